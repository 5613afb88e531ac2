"""A pure OpenFlow 1.3 flow table: what a switch with these entries does with a frame. It serves as a test's oracle, too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from time import monotonic

from os_ken.ofproto import ofproto_v1_3 as ofp

from controller.southbound.device import Actions, FlowRule
from topologies.emulation.frames import headers, pop_vlan, push_vlan, rewrite

Bits = tuple[int, int]
"""A value and its mask."""
Key = tuple[int, frozenset[tuple[str, Bits]]]
"""What tells entries of one table apart: priority and match."""
Outputs = list[tuple[int, bytes]]
"""Frames with the ports they leave by; a port may be `ofp.OFPP_CONTROLLER`."""


def field_bits(name: str, value: object) -> Bits:
    """A match value as os-ken's users write it (`"10.0.0.0"`, `(value, mask)`) or as a `FlowRule` does (`"value/mask"`)."""
    if isinstance(value, str) and "/" in value:
        plain, _, plain_mask = value.partition("/")
        value = (int(plain, 0), int(plain_mask, 0)) if plain.startswith("0x") else (plain, plain_mask)
    _, packed, packed_mask = ofp.oxm_from_user(name, value)
    mask = int.from_bytes(packed_mask) if packed_mask else (1 << 8 * len(packed)) - 1
    return int.from_bytes(packed) & mask, mask


@dataclass(slots=True, eq=False)
class Entry:
    priority: int
    match: dict[str, Bits]
    actions: Actions
    cookie: int = 0
    flags: int = 0
    idle_timeout_s: int = 0
    hard_timeout_s: int = 0
    match_bytes: bytes = b""
    instruction_bytes: bytes = b""
    added_s: float = 0.0
    used_s: float = 0.0
    packets: int = 0
    bytes: int = 0

    @property
    def key(self) -> Key:
        return self.priority, frozenset(self.match.items())

    def matches(self, fields: dict[str, int]) -> bool:
        return all(name in fields and fields[name] & mask == value for name, (value, mask) in self.match.items())

    def within(self, match: dict[str, Bits]) -> bool:
        """Whether every frame this entry matches is matched by `match`, too."""
        for name, (value, mask) in match.items():
            own_value, own_mask = self.match.get(name, (0, 0))
            if own_mask & mask != mask or own_value & mask != value:
                return False
        return True

    def outputs_to(self, port: int) -> bool:
        return port == ofp.OFPP_ANY or ("output", port) in self.actions


class FlowTable:
    """One table, highest priority first. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._entries: dict[Key, Entry] = {}
        self._by_priority: list[Entry] | None = None
        self._clock = clock

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[Entry]:
        if self._by_priority is None:
            self._by_priority = sorted(self._entries.values(), key=lambda entry: -entry.priority)
        return self._by_priority

    @classmethod
    def of(cls, rules: Iterable[FlowRule]) -> FlowTable:
        """The table of a switch that holds these rules."""
        table = cls()
        for rule in rules:
            table.add(Entry(rule.priority, {name: field_bits(name, value) for name, value in rule.match}, rule.actions, rule.cookie))
        return table

    def add(self, entry: Entry) -> None:
        """An entry of the same priority and match is replaced, its counters with it."""
        entry.added_s = entry.used_s = self._clock()
        self._entries[entry.key] = entry
        self._by_priority = None

    def select(
        self, match: dict[str, Bits], priority: int | None, cookie: int = 0, cookie_mask: int = 0, out_port: int = ofp.OFPP_ANY
    ) -> list[Entry]:
        """The entries a request means: exactly one match and priority (strict), or, without a priority, all within `match`."""
        if priority is None:
            candidates = [entry for entry in self.entries if entry.within(match)]
        else:
            exact = self._entries.get((priority, frozenset(match.items())))
            candidates = [exact] if exact else []
        wanted = cookie & cookie_mask
        return [entry for entry in candidates if entry.cookie & cookie_mask == wanted and entry.outputs_to(out_port)]

    def delete(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._entries.pop(entry.key, None)
        self._by_priority = None

    def expired(self) -> list[tuple[Entry, int]]:
        """Entries whose time is up, with the OFPRR reason."""
        now_s = self._clock()
        gone = []
        for entry in self.entries:
            if entry.hard_timeout_s and now_s - entry.added_s >= entry.hard_timeout_s:
                gone.append((entry, ofp.OFPRR_HARD_TIMEOUT))
            elif entry.idle_timeout_s and now_s - entry.used_s >= entry.idle_timeout_s:
                gone.append((entry, ofp.OFPRR_IDLE_TIMEOUT))
        return gone

    def age_s(self, entry: Entry) -> float:
        return self._clock() - entry.added_s

    def lookup(self, frame: bytes, in_port: int) -> Entry | None:
        """The entry that takes the frame; it is counted."""
        fields = headers(frame, in_port)
        entry = next((entry for entry in self.entries if entry.matches(fields)), None)
        if entry:
            entry.packets += 1
            entry.bytes += len(frame)
            entry.used_s = self._clock()
        return entry

    def forward(self, frame: bytes, in_port: int, ports: Collection[int]) -> Outputs:
        """What comes out where, of a switch with these ports, when a frame comes in."""
        entry = self.lookup(frame, in_port)
        return execute(entry.actions, frame, in_port, ports) if entry else []


def execute(actions: Actions, frame: bytes, in_port: int, ports: Collection[int]) -> Outputs:
    """Apply actions in order. A frame never leaves by the port it came in by, unless OFPP_IN_PORT says so."""
    outputs: Outputs = []
    for name, value in actions:
        if name == "output":
            assert isinstance(value, int)
            outputs += [(port, frame) for port in _ports(value, in_port, ports)]
        elif name == "push_vlan":
            assert isinstance(value, int)
            frame = push_vlan(frame, value)
        elif name == "pop_vlan":
            frame = pop_vlan(frame)
        else:
            field = name.removeprefix("set_field:")
            frame = rewrite(frame, field, field_bits(field, value)[0])
    return outputs


def _ports(port: int, in_port: int, ports: Collection[int]) -> list[int]:
    if port == ofp.OFPP_CONTROLLER:
        return [port]
    if port == ofp.OFPP_IN_PORT:
        return [in_port] if in_port in ports else []
    if port in (ofp.OFPP_FLOOD, ofp.OFPP_ALL):
        return [number for number in ports if number != in_port]
    return [port] if port in ports and port != in_port else []
