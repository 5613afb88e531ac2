"""What the interface shows: the parts of the running controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.network.topology import Topology
from controller.services.desk import Desk
from controller.services.reconciler import Reconciler
from controller.southbound.device import Device
from controller.southbound.discovery.discovery import Discovery
from controller.southbound.openflow.listener import OpenFlowListener
from controller.telemetry.events import EventLog
from controller.telemetry.histogram import Histogram


@dataclass(slots=True)
class Face:
    """`loop_lag` is how much later than asked the event loop woke its probe, `loop_turns` the processor time of its turns, in seconds."""

    topology: Topology
    devices: Mapping[str, Device]
    listener: OpenFlowListener
    reconciler: Reconciler
    desk: Desk
    events: EventLog
    started_s: float
    discovery: Discovery | None = None
    loop_lag: Histogram = field(default_factory=Histogram)
    loop_turns: Histogram = field(default_factory=Histogram)
    stopping: bool = False
    api: str = ""
    """Where the interface is served."""
