"""A service: what somebody asked for and where it stands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from controller.services.app import Plan
from controller.services.ledger import Entry

ServiceState = Literal["REQUESTED", "PLANNED", "PROGRAMMING", "ACTIVE", "DEGRADED", "REPAIRING", "REMOVING", "FAILED"]

TRANSITIONS: Mapping[ServiceState, frozenset[ServiceState]] = {
    "REQUESTED": frozenset({"PLANNED", "FAILED", "REMOVING"}),
    "PLANNED": frozenset({"PROGRAMMING", "FAILED", "REMOVING"}),
    "PROGRAMMING": frozenset({"ACTIVE", "DEGRADED", "REPAIRING", "FAILED", "REMOVING"}),
    "ACTIVE": frozenset({"DEGRADED", "REPAIRING", "REMOVING"}),
    "DEGRADED": frozenset({"REPAIRING", "ACTIVE", "FAILED", "REMOVING"}),
    "REPAIRING": frozenset({"ACTIVE", "DEGRADED", "FAILED", "REMOVING"}),
    "REMOVING": frozenset(),
    "FAILED": frozenset({"PLANNED", "REPAIRING", "REMOVING"}),
}
"""Where a service may go from each state. A service that was removed is gone; a failed one is tried again when the network changes."""

ServiceId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=64)]


class Service(BaseModel):
    """One service. Times are seconds since the epoch.

    `companions` names the services that must stand for this one to serve; `parent` the service for which a companion was made. A companion
    may be shared, starts with the first and goes with the last that needs it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: ServiceId
    kind: str
    request: dict[str, Any]
    priority: Annotated[int, Field(ge=0, le=9)] = 0
    state: ServiceState = "REQUESTED"
    reason: str = ""
    parent: str | None = None
    companions: tuple[str, ...] = ()
    start_s: float | None = None
    end_s: float | None = None
    created_s: float = 0.0
    plan: Plan | None = None
    served: bool = False
    """Whether it was ever ACTIVE: from then on a plan that is being programmed is a repair."""

    @property
    def delivered(self) -> bool:
        """Whether devices are to hold its plan now."""
        return self.state in ("PROGRAMMING", "ACTIVE", "DEGRADED", "REPAIRING")

    @property
    def reports_drift(self) -> bool:
        """Whether what somebody took away from it since it was in place is to be told and left so."""
        return self.request.get("on_drift") == "report" and self.state in ("ACTIVE", "DEGRADED")

    @property
    def interval_s(self) -> tuple[float, float]:
        """From when until when it is to be delivered, with infinity where nothing is said."""
        return -math.inf if self.start_s is None else self.start_s, math.inf if self.end_s is None else self.end_s

    def due(self, now_s: float) -> bool:
        """Whether it is to be delivered already."""
        return self.interval_s[0] <= now_s

    def moved(self, state: ServiceState, reason: str = "", **changes: Any) -> Service:
        """The service in another state. Raises ValueError when TRANSITIONS has no such step."""
        if state != self.state and state not in TRANSITIONS[self.state]:
            raise ValueError(f"service {self.id} cannot go from {self.state} to {state}")
        if state == self.state and reason == self.reason and not changes:
            return self
        return self.model_copy(update={"state": state, "reason": reason, "served": self.served or state == "ACTIVE", **changes})


def promised(plan: Plan, interval_s: tuple[float, float]) -> Entry:
    """What the ledger has for the plan: its reservations, for the interval of its service."""
    return Entry(plan.reservations, *interval_s)


SERVICE: TypeAdapter[Service] = TypeAdapter(Service)
