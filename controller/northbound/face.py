"""What the interface shows: the parts of the running controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client import Histogram

from controller.network.topology import Topology
from controller.services.desk import Desk
from controller.services.reconciler import Reconciler
from controller.southbound.device import Device
from controller.southbound.openflow.listener import OpenFlowListener
from controller.telemetry.events import EventLog
from controller.telemetry.histogram import Histogram

LAG_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


def _lag() -> Histogram:
    return Histogram(
        "bellhop_loop_lag_seconds", "How late the event loop woke a probe: what every session waits.", registry=None, buckets=LAG_BUCKETS_S
    )


@dataclass(slots=True)
class Face:
    """`loop_lag` is how much later than asked the event loop woke its probe, in seconds."""

    topology: Topology
    devices: Mapping[str, Device]
    listener: OpenFlowListener
    reconciler: Reconciler
    desk: Desk
    events: EventLog
    started_s: float
    loop_lag: Histogram = field(default_factory=_lag)
    stopping: bool = False
    api: str = ""
    """Where the interface is served."""
