"""Flow tables: entries, which of them a request means, and when they end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from os_ken.ofproto import ofproto_v1_3 as ofp

from topologies.emulation.openflow.actions import Action, Instruction, actions_of
from topologies.emulation.openflow.errors import OpenFlowError
from topologies.emulation.openflow.match import Match, overlap, within

Key = tuple[int, int, frozenset[tuple[str, tuple[int, int]]]]
"""What tells entries apart: table, priority and match."""

_ACTION_LISTS = (ofp.OFPIT_APPLY_ACTIONS, ofp.OFPIT_WRITE_ACTIONS)


def serialized(parts: Iterable[object]) -> bytes:
    """os-ken's matches, instructions, buckets or meter bands as bytes."""
    data = bytearray()
    for part in parts:
        part.serialize(data, len(data))  # type: ignore[attr-defined]
    return bytes(data)


@dataclass(slots=True, eq=False)
class Entry:
    """One flow entry. Times are of the clock that the caller gives."""

    table: int
    priority: int
    match: Match
    instructions: list[Instruction]
    cookie: int = 0
    flags: int = 0
    idle_timeout_s: int = 0
    hard_timeout_s: int = 0
    added_s: float = 0.0
    used_s: float = 0.0
    packets: int = 0
    bytes: int = 0

    @property
    def key(self) -> Key:
        return self.table, self.priority, frozenset(self.match.items())

    @property
    def is_miss(self) -> bool:
        """Whether this is the table-miss entry."""
        return not self.priority and not self.match

    @property
    def groups(self) -> set[int]:
        return {action.group_id for action in self._all_actions() if action.type == ofp.OFPAT_GROUP}

    @property
    def meter(self) -> int | None:
        return next((each.meter_id for each in self.instructions if each.type == ofp.OFPIT_METER), None)

    def outputs_to(self, port: int, group: int) -> bool:
        """Whether it names that port and that group; `OFPP_ANY` and `OFPG_ANY` ask for none."""
        ports = {action.port for action in self._all_actions() if action.type == ofp.OFPAT_OUTPUT}
        return (port == ofp.OFPP_ANY or port in ports) and (group == ofp.OFPG_ANY or group in self.groups)

    def _all_actions(self) -> list[Instruction]:
        return [action for kind in _ACTION_LISTS for action in actions_of(self.instructions, kind)]

    def __str__(self) -> str:
        match = ",".join(f"{name}={value:#x}/{mask:#x}" for name, (value, mask) in sorted(self.match.items()))
        told = " ".join(map(_instruction_text, self.instructions))
        return f"table={self.table},cookie={self.cookie:#x},priority={self.priority},{match} {told}"

    def count(self, size: int, now_s: float) -> None:
        self.packets += not self.flags & ofp.OFPFF_NO_PKT_COUNTS
        self.bytes += 0 if self.flags & ofp.OFPFF_NO_BYT_COUNTS else size
        self.used_s = now_s

    def time_is_up(self, now_s: float) -> int | None:
        """The OFPRR reason for which it ends, if it does."""
        if self.hard_timeout_s and now_s - self.added_s >= self.hard_timeout_s:
            return int(ofp.OFPRR_HARD_TIMEOUT)
        if self.idle_timeout_s and now_s - self.used_s >= self.idle_timeout_s:
            return int(ofp.OFPRR_IDLE_TIMEOUT)
        return None


def _instruction_text(instruction: Instruction) -> str:
    if hasattr(instruction, "actions"):
        kinds = {ofp.OFPIT_APPLY_ACTIONS: "apply", ofp.OFPIT_WRITE_ACTIONS: "write", ofp.OFPIT_CLEAR_ACTIONS: "clear"}
        return f"{kinds[instruction.type]}({','.join(map(_action_text, instruction.actions))})"
    if instruction.type == ofp.OFPIT_WRITE_METADATA:
        return f"metadata({instruction.metadata:#x}/{instruction.metadata_mask:#x})"
    return f"goto({instruction.table_id})" if instruction.type == ofp.OFPIT_GOTO_TABLE else f"meter({instruction.meter_id})"


def _action_text(action: Action) -> str:
    if action.type == ofp.OFPAT_SET_FIELD:
        return f"set_field:{action.key}={action.value}"
    name = type(action).__name__.removeprefix("OFPAction")
    argument = next(
        (getattr(action, name) for name in ("port", "group_id", "ethertype", "nw_ttl", "queue_id") if hasattr(action, name)), ""
    )
    return f"{name}:{argument}"


@dataclass(slots=True)
class TableCounters:
    lookups: int = 0
    matched: int = 0


class FlowTables:
    """All tables of a switch, with at most `capacity` entries together."""

    def __init__(self, count: int, capacity: int) -> None:
        self.count = count
        self.capacity = capacity
        self.counters: dict[int, TableCounters] = {}
        self._entries: dict[Key, Entry] = {}
        self._ordered: dict[int, list[Entry]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def ordered(self, table: int) -> list[Entry]:
        """The entries of one table, highest priority first; of one priority, in the order they came."""
        if table not in self._ordered:
            entries = [entry for entry in self._entries.values() if entry.table == table]
            self._ordered[table] = sorted(entries, key=lambda entry: -entry.priority)
        return self._ordered[table]

    def add(self, entry: Entry) -> None:
        """Add an entry, in the place of one of its key: then that one's counters go on, unless OFPFF_RESET_COUNTS is set.

        OpenFlowError: TABLE_FULL, or OVERLAP when OFPFF_CHECK_OVERLAP is set and another entry of its priority could match the same frame.
        """
        old = self._entries.get(entry.key)
        if old is None and entry.flags & ofp.OFPFF_CHECK_OVERLAP:
            peers = (other for other in self.ordered(entry.table) if other.priority == entry.priority)
            if any(overlap(entry.match, other.match) for other in peers):
                raise OpenFlowError(ofp.OFPET_FLOW_MOD_FAILED, ofp.OFPFMFC_OVERLAP)
        if old is None and len(self) >= self.capacity:
            raise OpenFlowError(ofp.OFPET_FLOW_MOD_FAILED, ofp.OFPFMFC_TABLE_FULL)
        if old and not entry.flags & ofp.OFPFF_RESET_COUNTS:
            entry.packets, entry.bytes = old.packets, old.bytes
        self._entries[entry.key] = entry
        self._ordered.pop(entry.table, None)

    def select(
        self,
        table: int,
        match: Match,
        priority: int | None = None,
        *,
        cookie: int = 0,
        cookie_mask: int = 0,
        out_port: int = ofp.OFPP_ANY,
        out_group: int = ofp.OFPG_ANY,
    ) -> list[Entry]:
        """The entries a request means: with a priority exactly that one (strict), otherwise all within `match`; in all tables for OFPTT_ALL."""
        tables = {entry.table for entry in self._entries.values()} if table == ofp.OFPTT_ALL else {table}
        if priority is None:
            candidates = [entry for each in sorted(tables) for entry in self.ordered(each) if within(entry.match, match)]
        else:
            keys = [(each, priority, frozenset(match.items())) for each in sorted(tables)]
            candidates = [self._entries[key] for key in keys if key in self._entries]
        wanted = cookie & cookie_mask
        return [entry for entry in candidates if entry.cookie & cookie_mask == wanted and entry.outputs_to(out_port, out_group)]

    def remove(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._entries.pop(entry.key, None)
            self._ordered.pop(entry.table, None)
