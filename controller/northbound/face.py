"""What the interface shows: the parts of the running controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.network.topology import Topology
from controller.services.desk import Desk
from controller.services.reconciler import Reconciler
from controller.southbound.device import Device
from controller.southbound.openflow.listener import OpenFlowListener
from controller.telemetry.events import EventLog


@dataclass(slots=True)
class Face:
    """`loop_lag_most_s` is the worst lag of the event loop since the last scrape."""

    topology: Topology
    devices: Mapping[str, Device]
    listener: OpenFlowListener
    reconciler: Reconciler
    desk: Desk
    events: EventLog
    started_s: float
    loop_lag_most_s: float = 0.0
    stopping: bool = False
    api: str = ""
    """Where the interface is served."""

    def observe_lag(self, lag_s: float) -> None:
        self.loop_lag_most_s = max(self.loop_lag_most_s, lag_s)
