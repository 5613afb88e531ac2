"""How long it took to set each path of light, until it was read to serve: what the next set-up of the path can be expected to take."""

from __future__ import annotations

import hashlib
import statistics
from dataclasses import dataclass, field

from controller.services.app import Plan
from controller.services.service import Service
from controller.store.sqlite import Store

KEPT = 9
"""So many of the latest times of a path are kept."""


@dataclass(slots=True)
class SetupTimes:
    """Kept in the store by transmitter, receiver and path, which are a plan's ports from the first to the last."""

    store: Store
    _begun: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By service that is being set: the path, and since when."""
    _times_s: dict[str, list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self._times_s = {key: list(entry.value) for key, entry in self.store.read("setup/").items()}

    def follow(self, service: Service, now_s: float) -> None:
        """Take a service's new state; `now_s` is monotonic. What was degraded on the way says nothing of the path."""
        key = None if service.plan is None else _key(service.plan)
        begun = self._begun.get(service.id)
        if key is not None and service.state in ("PROGRAMMING", "REPAIRING"):
            if begun is None or begun[0] != key:
                self._begun[service.id] = key, now_s
            return
        self._begun.pop(service.id, None)
        if begun is not None and begun[0] == key and service.state == "ACTIVE":
            self._times_s[key] = [*self._times_s.get(key, []), round(now_s - begun[1], 3)][-KEPT:]
            self.store.commit({key: self._times_s[key]})

    def expected_s(self, plan: Plan) -> tuple[float, int] | None:
        """The median in seconds, and of how many times; None where the path was never set, or the plan has no light."""
        times_s = self._times_s.get(_key(plan) or "", [])
        return (statistics.median(times_s), len(times_s)) if times_s else None


def _key(plan: Plan) -> str | None:
    if "cross_connects" not in plan.route:
        return None
    ports = plan.route["ports"]
    return f"setup/{ports[0]}/{ports[-1]}/{hashlib.sha256(' '.join(ports).encode()).hexdigest()[:16]}"
