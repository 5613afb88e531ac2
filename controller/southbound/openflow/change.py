"""A change of a switch's tables: what of it cannot be, and in which order the rest is made. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from controller.southbound.device import NO_WATCH, Actions, Diff, FlowRule, Group, Item, Meter
from controller.southbound.openflow.compiled import SwitchItem, compiled, modification, removal

Key = tuple[object, ...]


class Phase(NamedTuple):
    """Items that may be changed in any order, and what makes the message for each; between two phases goes a barrier."""

    items: Sequence[SwitchItem]
    message: Callable[[SwitchItem], bytes]


def named(item: Item) -> str:
    """An item as a person would look for it on the switch."""
    match item:
        case FlowRule():
            match = ",".join(f"{name}={value}" for name, value in item.match) or "any"
            return f"table {item.table} priority {item.priority} {match}"
        case Group() | Meter():
            return f"{item.kind} {item.number}"
    return f"a {item.kind}"


def used(item: Item) -> Iterator[Key]:
    """The groups and meters without which the switch does not take an item."""
    match item:
        case FlowRule():
            yield from _used(item.actions)
        case Group():
            for bucket in item.buckets:
                yield from _used(bucket.actions)
                if bucket.watch_group != NO_WATCH:
                    yield "group", bucket.watch_group


def _used(actions: Actions) -> Iterator[Key]:
    for name, value in actions:
        if name in ("group", "meter"):
            yield name, value
        elif name == "write:group":
            yield "group", value


class Faults:
    """What of a change the switch could not take, or must not, and why: `judge` each of its items, added ones first.

    `lacking` says by kind (`group`, `meter`) why the switch has none.
    """

    def __init__(self, change: Diff, lacking: Mapping[str, str]) -> None:
        self.found: dict[Item, str] = {}
        self._lacking = lacking
        self._strangers = {item.key for item in change.foreign}
        self._added: set[Key] = set()
        taken = any(isinstance(item, Group | Meter) for item in change.remove)
        self._leaned_on = {key: item for item in change.foreign for key in used(item)} if taken else {}

    def judge_added(self, item: Item) -> None:
        if why := self._against(item):
            self.found[item] = why
        else:
            self._added.add(item.key)

    def _against(self, item: Item) -> str:
        if not isinstance(item, FlowRule | Group | Meter):
            return f"an OpenFlow switch holds flow rules, groups and meters, not a {item.kind}"
        if item.key in self._strangers:
            if isinstance(item, FlowRule):
                return "a rule that is not Bellhop's has this match and priority, and would be overwritten: choose another priority"
            return f"a {item.kind} that is not Bellhop's has this number: remove that, or choose another number"
        if item.key in self._added:
            what = "match and priority" if isinstance(item, FlowRule) else "number"
            return f"another {'rule' if isinstance(item, FlowRule) else item.kind} of the same change has this {what}"
        for kind in {item.kind, *(str(key[0]) for key in used(item))}:
            if kind in self._lacking:
                return f"it needs {kind}s, and the switch has none ({self._lacking[kind]})"
        try:
            compiled(item)
        except ValueError as error:
            return str(error)
        return ""

    def judge_removed(self, item: Item) -> None:
        if isinstance(item, Group | Meter) and (other := self._leaned_on.get(item.key)):
            self.found[item] = f"{named(other)}, which is not Bellhop's, uses it and would be deleted with it: remove that first"


def phases(change: Diff, faults: Container[Item], held: Container[Key]) -> Iterator[Phase]:
    """The change in order: meters, groups, rules; then, when what replaces it is there, what goes, the other way round.

    What a group leads to is there before it and goes after it. Of a group or meter whose key is `held`, an addition is a modification.
    Items with faults are left out.
    """

    def added(item: SwitchItem) -> bytes:
        return modification(item) if not isinstance(item, FlowRule) and item.key in held else compiled(item)

    coming, going = ([item for item in items if item not in faults] if faults else items for items in (change.add, change.remove))
    rules, groups, meters = _by_kind(coming)
    yield Phase(meters, added)
    yield from (Phase(level, added) for level in _levels(groups))
    yield Phase(rules, added)
    rules, groups, meters = _by_kind(going)
    yield Phase(rules, removal)
    yield from (Phase(level, removal) for level in reversed(_levels(groups)))
    yield Phase(meters, removal)


def _by_kind(items: Iterable[Item]) -> tuple[list[FlowRule], list[Group], list[Meter]]:
    rules: list[FlowRule] = []
    groups: list[Group] = []
    meters: list[Meter] = []
    for item in items:
        match item:
            case FlowRule():
                rules.append(item)
            case Group():
                groups.append(item)
            case Meter():
                meters.append(item)
    return rules, groups, meters


def _levels(groups: list[Group]) -> list[list[Group]]:
    """Groups in levels, each of which leads to groups of earlier levels only. Those that lead in a circle are one level: the switch
    says what it thinks of that."""
    by_key = {group.key: group for group in groups}
    sorter = TopologicalSorter({group.key: [key for key in used(group) if key in by_key] for group in groups})
    levels: list[list[Group]] = []
    try:
        sorter.prepare()
    except CycleError:
        return [groups]
    while sorter.is_active():
        ready = sorter.get_ready()
        levels.append([by_key[key] for key in ready])
        sorter.done(*ready)
    return levels
