"""The ledger: what is promised of each resource, from when until when. Pure data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Reservation:
    """`amount` of a resource from `start_s` until `end_s` (seconds since the epoch; infinity for no end).

    Resources are `port:<switch>:<port>` and `hosts:<host>,<host>` (amount 1: exclusive), `key:<link id>` in bit/s.
    """

    resource: str
    amount: float
    start_s: float = -math.inf
    end_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Ledger:
    """Reservations by service."""

    entries: Mapping[str, tuple[Reservation, ...]] = field(default_factory=dict)
    revision: int = 0

    def reserved(self, start_s: float = -math.inf, end_s: float = math.inf) -> dict[str, float]:
        """The most that is promised of each resource at any moment within the interval [start, end)."""
        by_resource: dict[str, list[Reservation]] = {}
        for reservations in self.entries.values():
            for each in reservations:
                if each.start_s < end_s and each.end_s > start_s:
                    by_resource.setdefault(each.resource, []).append(each)
        return {resource: _peak(each, start_s) for resource, each in by_resource.items()}

    def during(self, start_s: float, end_s: float) -> Ledger:
        """What of it holds within the interval [start, end)."""
        entries = {
            name: tuple(
                replace(each, start_s=max(each.start_s, start_s), end_s=min(each.end_s, end_s))
                for each in entry
                if each.start_s < end_s and each.end_s > start_s
            )
            for name, entry in self.entries.items()
        }
        return Ledger(entries, self.revision)

    def without(self, services: Iterable[str]) -> Ledger:
        """The ledger as it would be if these services were gone."""
        gone = set(services)
        return Ledger({name: entry for name, entry in self.entries.items() if name not in gone}, self.revision)

    def with_entry(self, service: str, reservations: tuple[Reservation, ...]) -> Ledger:
        """The ledger with this service's reservations in place of what it had."""
        return Ledger({**self.entries, service: reservations}, self.revision)


def _peak(reservations: list[Reservation], start_s: float) -> float:
    """The largest sum of amounts at one moment: it is reached where some reservation starts."""
    moments = {max(each.start_s, start_s) for each in reservations}
    return max(sum(each.amount for each in reservations if each.start_s <= moment < each.end_s) for moment in moments)
