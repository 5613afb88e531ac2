"""The ledger: what is promised of each resource, from when until when. Pure data.

It is kept, not made anew: an entry that changes costs what that entry holds, whatever else is promised, and that only once sums are asked
for. Sums are exact, so they depend on what is promised and not on the order in which it came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from controller.routing.keys.promised import Promised

ALWAYS = (-math.inf, math.inf)
_UNIT = 1 << 256
"""So many parts of one make every amount above 1e-60 a whole number, and of a lesser one what is to be heeded of it."""


@lru_cache(4096)
def _parts(amount: float) -> int:
    whole, of = amount.as_integer_ratio()
    return whole * _UNIT // of


class Entry(NamedTuple):
    """What one service holds: so much of each resource, from `start_s` until `end_s` (seconds since the epoch; infinity for no end).

    Resources are `port:<switch>:<port>`, `hosts:<host>,<host>`, `group:<switch>:<number>` and `meter:<switch>:<number>` (amount 1:
    exclusive), `key:<link id>` in bit/s, `ethernet:<link id>` in Mbit/s, each direction.
    """

    amounts: Mapping[str, float]
    start_s: float = -math.inf
    end_s: float = math.inf

    def within(self, start_s: float, end_s: float) -> Entry:
        """The part of it in the interval [start, end)."""
        if not (self.start_s < end_s and self.end_s > start_s):
            return Entry({}, start_s, end_s)
        return Entry(self.amounts, max(self.start_s, start_s), min(self.end_s, end_s))


_Account = tuple[int, int, tuple[tuple[float, float, float], ...]]
"""What is promised of one resource: by how many for all time, how much together in parts of `_UNIT`, and (amount, from, until) otherwise."""


def _peak(account: _Account, start_s: float, end_s: float) -> float | None:
    """The most promised at any moment within [start, end), where some entry starts; None when nothing is."""
    holders, always, for_a_time = account
    during = [each for each in for_a_time if each[1] < end_s and each[2] > start_s]
    if not during:
        return always / _UNIT if holders else None
    moments = {max(since_s, start_s) for _, since_s, _ in during}
    most = max(sum(_parts(amount) for amount, since_s, until_s in during if since_s <= moment < until_s) for moment in moments)
    return (always + most) / _UNIT


_NOTHING: _Account = 0, 0, ()
_NO_ENTRY = Entry({})


class Ledger:
    """What services hold. `revision` counts the changes; `changed_since` says which entries they were."""

    def __init__(self, entries: Mapping[str, Entry] | None = None, revision: int = 0) -> None:
        self.revision = revision
        self._window = ALWAYS
        self._entries: dict[str, Entry] = {}
        self._accounts: dict[str, _Account] = {}
        self._of_kind: dict[str, Promised] = {}
        self._holding: dict[str, set[str]] = {}
        self._counted: dict[str, Entry] = {}
        """Of services whose entry changed since the accounts were last looked at, what these count for them."""
        self._changed: dict[str, int] = {}
        for service, entry in (entries or {}).items():
            self._enter(service, entry)
            self._changed[service] = revision

    @property
    def entries(self) -> Mapping[str, Entry]:
        """What each service holds. To be read only."""
        if self._window == ALWAYS:
            return self._entries
        return {name: entry.within(*self._window) for name, entry in self._entries.items()}

    def reserved(self, start_s: float = -math.inf, end_s: float = math.inf) -> dict[str, float]:
        """The most that is promised of each resource at any moment within the interval [start, end)."""
        self._count()
        start_s, end_s = max(start_s, self._window[0]), min(end_s, self._window[1])
        if (start_s, end_s) == ALWAYS:
            return {f"{kind}:{name}": peak for kind, peaks in self._of_kind.items() for name, peak in peaks.items()}
        found = ((resource, _peak(account, start_s, end_s)) for resource, account in self._accounts.items())
        return {resource: peak for resource, peak in found if peak is not None}

    def reserved_of(self, kind: str) -> Mapping[str, float]:
        """What `reserved` says of the resources `<kind>:<name>`, by name. To be read only."""
        if self._window == ALWAYS:
            self._count()
            return self._of_kind.get(kind, {})
        prefix = f"{kind}:"
        return {resource[len(prefix) :]: peak for resource, peak in self.reserved().items() if resource.startswith(prefix)}

    def holding(self, kind: str) -> dict[str, Entry]:
        """The entries with a reservation of some resource `<kind>:<name>`."""
        self._count()
        held = {name: self._entries[name] for name in sorted(self._holding.get(kind, ()))}
        if self._window == ALWAYS:
            return held
        cut = {name: entry.within(*self._window) for name, entry in held.items()}
        return {name: entry for name, entry in cut.items() if entry.amounts}

    def during(self, start_s: float, end_s: float) -> Ledger:
        """What of it holds within the interval [start, end): a view, to be read before the ledger changes."""
        view = self._sharing()
        view._window = max(start_s, self._window[0]), min(end_s, self._window[1])
        return view

    def without(self, services: Iterable[str]) -> Ledger:
        """The ledger as it would be if these services were gone."""
        return self._with(dict.fromkeys(services))

    def with_entry(self, service: str, entry: Entry) -> Ledger:
        """The ledger with this entry in place of what the service had."""
        return self._with({service: entry})

    def put(self, service: str, entry: Entry | None) -> Entry | None:
        """Change the ledger itself: what the service holds from now on (None: it is gone). Returns what it held."""
        before = self._entries.get(service)
        if entry != before:
            self._enter(service, entry)
            self.revision += 1
            self._changed.pop(service, None)
            self._changed[service] = self.revision  # the latest change is last
        return before

    def changed_since(self, revision: int) -> dict[str, Entry | None]:
        """The entries that may be other than at that revision, as they are now; None for what is gone. Since -1: all."""
        late: list[str] = []
        for service in reversed(self._changed):
            if self._changed[service] <= revision:
                break
            late.append(service)
        return {service: self._entries.get(service) for service in reversed(late)}

    def _sharing(self) -> Ledger:
        other = Ledger(revision=self.revision)
        other._window, other._entries, other._accounts = self._window, self._entries, self._accounts
        other._of_kind, other._holding, other._counted = self._of_kind, self._holding, self._counted
        return other

    def _with(self, changes: Mapping[str, Entry | None]) -> Ledger:
        self._count()
        other = self._sharing()
        other._entries, other._accounts = dict(self._entries), dict(self._accounts)
        other._of_kind = {kind: Promised(peaks) for kind, peaks in self._of_kind.items()}
        other._holding, other._counted = {kind: set(names) for kind, names in self._holding.items()}, {}
        for service, entry in changes.items():
            other._enter(service, entry)
        other._changed = dict.fromkeys(other._entries, other.revision)
        return other

    def _enter(self, service: str, entry: Entry | None) -> None:
        self._counted.setdefault(service, self._entries.pop(service, _NO_ENTRY))
        if entry is not None:
            self._entries[service] = entry

    def _count(self) -> None:
        """Bring the accounts up to the entries."""
        while self._counted:
            service, counted = self._counted.popitem()
            entry = self._entries.get(service, _NO_ENTRY)
            before, now = self._add(counted, -1), self._add(entry, +1)
            for kind in before - now:
                self._holding[kind].discard(service)
            for kind in now:
                self._holding.setdefault(kind, set()).add(service)

    def _add(self, entry: Entry, sign: int) -> set[str]:
        """Add an entry to the accounts, or take them away. Returns of which kinds their resources are.

        Each plan does so to every link of a path or two: it is made to be fast.
        """
        accounts, kinds, last, before = self._accounts, set[str](), "", math.nan
        amounts, start_s, end_s = entry
        for_ever = (start_s, end_s) == ALWAYS
        for resource, amount in amounts.items():
            kind, name = _kind_and_name(resource)
            if kind != last:
                kinds.add(last := kind)
                peaks = self._of_kind.get(kind) or self._of_kind.setdefault(kind, Promised())
            holders, always, for_a_time = accounts.get(resource, _NOTHING)
            if for_ever:
                if amount != before:
                    before, parts = amount, sign * _parts(amount)
                holders, always = holders + sign, always + parts
            elif sign > 0:
                for_a_time = (*for_a_time, (amount, start_s, end_s))
            else:
                at = for_a_time.index((amount, start_s, end_s))
                for_a_time = for_a_time[:at] + for_a_time[at + 1 :]
            if not holders and not for_a_time:
                del accounts[resource], peaks[name]
                continue
            accounts[resource] = account = holders, always, for_a_time
            peaks[name] = (_peak(account, *ALWAYS) or 0.0) if for_a_time else always / _UNIT
        return kinds


@lru_cache(65536)
def _kind_and_name(resource: str) -> tuple[str, str]:
    kind, _, name = resource.partition(":")
    return kind, name
