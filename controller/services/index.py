"""Where to find the services that a change touches: by what they depend on, by state, by what was asked for. Brought up to date with each."""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Iterator
from typing import Any

from controller.services.app import Plan
from controller.services.service import Service, ServiceState


class Sets(dict[Hashable, set[str]]):
    """Names of services under keys; a key without any is not kept."""

    def of(self, key: Hashable) -> Collection[str]:
        return self.get(key, ())

    def put(self, key: Hashable, name: str) -> None:
        self.setdefault(key, set()).add(name)

    def drop(self, key: Hashable, name: str) -> None:
        self[key].discard(name)
        if not self[key]:
            del self[key]


class Index:
    """Ids of services.

    `touching` by node or link of their plans, `on` by device of their plans, `needing` by companion, `in_state` by state, `alike` by kind
    and request; `timed` have an end, `lit` have cross-connects or media channels, `noted` are ACTIVE with a reason.
    """

    def __init__(self) -> None:
        self.touching = Sets()
        self.on = Sets()
        self.needing = Sets()
        self.alike = Sets()
        self.in_state = Sets()
        self.timed: set[str] = set()
        self.lit: set[str] = set()
        self.noted: set[str] = set()

    def replace(self, before: Service | None, after: Service | None) -> None:
        """One service is now other than before; None where it is not there."""
        same = before is not None and after is not None and before.request is after.request and _alike(before.plan, after.plan)
        if before is not None:
            for sets, key in self._keys(before, passing=same):
                sets.drop(key, before.id)
            for marked in (self.timed, self.lit, self.noted):
                marked.discard(before.id)
        if after is None:
            return
        for sets, key in self._keys(after, passing=same):
            sets.put(key, after.id)
        if after.end_s is not None:
            self.timed.add(after.id)
        if after.plan is not None and (after.plan.route.get("cross_connects") or after.plan.route.get("media_channels")):
            self.lit.add(after.id)
        if after.state == "ACTIVE" and after.reason:
            self.noted.add(after.id)

    def _keys(self, service: Service, *, passing: bool) -> Iterator[tuple[Sets, Hashable]]:
        """Where the service is to be found: by all that it is, or by what changes while its request and plan stay."""
        yield self.in_state, service.state
        for name in set(service.companions):
            yield self.needing, name
        if passing:
            return
        yield self.alike, likeness(service.kind, service.request)
        if service.plan is not None:
            for name in service.plan.touches:
                yield self.touching, name
            for device in service.plan.desired:
                yield self.on, device

    def states(self, *states: ServiceState) -> set[str]:
        """Ids of the services in one of these states."""
        return set().union(*(self.in_state.of(state) for state in states))


def _alike(a: Plan | None, b: Plan | None) -> bool:
    """Whether two plans are to be found in the same places."""
    return a is b or (a is not None and b is not None and a.touches == b.touches and a.desired.keys() == b.desired.keys())


def likeness(kind: str, request: dict[str, Any]) -> str:
    """Equal for services of which one does what the other does."""
    return f"{kind} {json.dumps(request, sort_keys=True)}"
