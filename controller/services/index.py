"""Where to find the services that a change touches: by what they depend on, by state, by what was asked for. Brought up to date with each."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Hashable, Set
from typing import Any

from controller.services.service import Service, ServiceState

Keys = Callable[[Service], Set[Hashable]]
_NOWHERE: frozenset[Hashable] = frozenset()


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
    and request; `timed` have an end, `unsettled` are on their way, DEGRADED, or ACTIVE with a reason.
    """

    def __init__(self) -> None:
        self.touching = Sets()
        self.on = Sets()
        self.needing = Sets()
        self.alike = Sets()
        self.in_state = Sets()
        self.timed: set[str] = set()
        self.unsettled: set[str] = set()

    def replace(self, before: Service | None, after: Service | None) -> None:
        """One service is now other than before; None where it is not there. It costs what differs."""
        service = after or before
        if service is None:
            return
        places: list[tuple[Sets, Keys]] = [(self.in_state, _state), (self.needing, _companions)]
        if before is None or after is None or before.request is not after.request:
            places.append((self.alike, _likeness))
        if before is None or after is None or before.plan is not after.plan:
            places += [(self.touching, _touched), (self.on, _devices)]
        for sets, keys in places:
            had, has = (_NOWHERE if each is None else keys(each) for each in (before, after))
            if had != has:
                for key in had - has:
                    sets.drop(key, service.id)
                for key in has - had:
                    sets.put(key, service.id)
        for marked, belongs in ((self.timed, _timed), (self.unsettled, _unsettled)):
            (marked.add if after is not None and belongs(after) else marked.discard)(service.id)

    def states(self, *states: ServiceState) -> set[str]:
        """Ids of the services in one of these states."""
        return set().union(*(self.in_state.of(state) for state in states))


def _state(service: Service) -> Set[Hashable]:
    return frozenset([service.state])


def _companions(service: Service) -> Set[Hashable]:
    return frozenset(service.companions)


def _likeness(service: Service) -> Set[Hashable]:
    return frozenset([likeness(service.kind, service.request)])


def _touched(service: Service) -> Set[Hashable]:
    return _NOWHERE if service.plan is None else service.plan.touches


def _devices(service: Service) -> Set[Hashable]:
    return _NOWHERE if service.plan is None else service.plan.desired.keys()


def _timed(service: Service) -> bool:
    return service.end_s is not None


def _unsettled(service: Service) -> bool:
    return service.state in ("REMOVING", "PROGRAMMING", "DEGRADED", "REPAIRING") or (service.state == "ACTIVE" and bool(service.reason))


def likeness(kind: str, request: dict[str, Any]) -> str:
    """Equal for services of which one does what the other does."""
    return f"{kind} {json.dumps(request, sort_keys=True)}"
