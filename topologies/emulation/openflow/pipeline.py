"""What an OpenFlow 1.3 switch does with frames: tables, groups and meters, without clock, socket or event loop.

It is made to be asked "does this packet come out there?". It takes the messages of any controller, as bytes or as os-ken's objects:

    switch = Pipeline(ports=(1, 2, 3))
    switch.apply(encode(FlowMod(FlowCommand.ADD, rule)))     # the bytes of Bellhop's own codec
    switch.apply(parser.OFPGroupMod(PROTOCOL, ...))          # or what os-ken built
    assert switch.send(frame, in_port=1) == [(2, frame)]     # it comes out of port 2 as it was
    assert switch.send(other, in_port=1) == []               # it is dropped

A frame for the controller comes out of port `OFPP_CONTROLLER`; `process` tells all of the PACKET_IN, and the entries that were met.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from os_ken.ofproto import ofproto_protocol
from os_ken.ofproto import ofproto_v1_3 as ofp

from topologies.emulation.openflow import headers
from topologies.emulation.openflow.actions import RESERVED, Action, Holdings, check_groups, in_order, parse_actions, parse_instructions
from topologies.emulation.openflow.errors import OpenFlowError
from topologies.emulation.openflow.groups import Choose, GroupTable, by_addresses
from topologies.emulation.openflow.match import matches, parse_match
from topologies.emulation.openflow.meters import Meter, failed
from topologies.emulation.openflow.requests import fields, parse_group_mod, parse_meter_mod
from topologies.emulation.openflow.tables import Entry, FlowTables, TableCounters

PROTOCOL = ofproto_protocol.ProtocolDesc(version=ofp.OFP_VERSION)
"""What os-ken's messages want as their datapath."""
Outputs = list[tuple[int, bytes]]
"""Frames with the ports they leave by; a port may be `OFPP_CONTROLLER`."""

_FLOW_FLAGS = ofp.OFPFF_SEND_FLOW_REM | ofp.OFPFF_CHECK_OVERLAP | ofp.OFPFF_RESET_COUNTS | ofp.OFPFF_NO_PKT_COUNTS | ofp.OFPFF_NO_BYT_COUNTS
_PACKET_OUT_PORTS = RESERVED | {ofp.OFPP_TABLE}


@dataclass(slots=True)
class Port:
    """A port's state and counters. `config` holds OFPPC bits."""

    up: bool = True
    config: int = 0
    received: list[int] = field(default_factory=lambda: [0, 0])
    sent: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def live(self) -> bool:
        return self.up and not self.config & ofp.OFPPC_PORT_DOWN


@dataclass(frozen=True, slots=True)
class PacketIn:
    """A frame for the controller. It goes whole, whatever the action's `max_len`: what is not buffered is not cut (and Open vSwitch agrees)."""

    frame: bytes
    in_port: int
    reason: int
    table: int
    cookie: int
    metadata: int = 0


@dataclass(slots=True)
class Passage:
    """One frame's way through a switch."""

    in_port: int
    now_s: float
    outputs: Outputs = field(default_factory=list)
    packet_ins: list[PacketIn] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    metadata: int = 0
    entry: Entry | None = None
    """The entry whose actions are being executed."""
    groups: list[int] = field(default_factory=list)
    """The groups the frame is in."""


class _TtlExpired(Exception):
    """There is no TTL left to take from a frame."""

    def __init__(self, frame: bytes) -> None:
        super().__init__()
        self.frame = frame


class Pipeline:
    """A switch with these ports, empty tables, no groups, no meters. `choose` picks the buckets of select groups.

    Times are seconds of one clock that the caller reads; it must not run backwards.
    """

    def __init__(self, ports: Iterable[int], *, tables: int = 254, capacity: int = 100_000, choose: Choose = by_addresses) -> None:
        self.ports = {number: Port() for number in ports}
        self.tables = FlowTables(tables, capacity)
        self.groups = GroupTable(lambda number: number in self.ports and self.ports[number].live, choose)
        self.meters: dict[int, Meter] = {}
        self._holdings = Holdings(self.ports.__contains__, self.groups.__contains__, self.meters.__contains__, tables)

    def apply(self, message: Any, now_s: float = 0.0) -> list[tuple[Entry, int]]:
        """Take a FLOW_MOD, GROUP_MOD or METER_MOD: bytes or an os-ken message. Gives the entries removed, with their OFPRR reasons.

        OpenFlowError when the standard has it refused; then nothing has changed.
        """
        data = to_bytes(message)
        _, kind, length, _ = fields(ofp.OFP_HEADER_PACK_STR, data, 0)
        if length != len(data):
            raise OpenFlowError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_LEN)
        if kind == ofp.OFPT_FLOW_MOD:
            return self._flow_mod(data, now_s)
        if kind == ofp.OFPT_GROUP_MOD:
            return self._group_mod(data, now_s)
        if kind == ofp.OFPT_METER_MOD:
            return self._meter_mod(data, now_s)
        raise OpenFlowError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_TYPE)

    def send(self, frame: bytes, in_port: int, now_s: float = 0.0) -> Outputs:
        """What comes out where when a frame comes in by a port; first what leaves by ports, then what goes to the controller."""
        passage = self.process(frame, in_port, now_s)
        return passage.outputs + [(ofp.OFPP_CONTROLLER, packet_in.frame) for packet_in in passage.packet_ins]

    def process(self, frame: bytes, in_port: int, now_s: float = 0.0) -> Passage:
        """A frame's whole way through the switch."""
        passage = Passage(in_port, now_s)
        port = self.ports.get(in_port)
        if port is None or not port.live or len(frame) < 14:
            return passage
        _count(port.received, frame)
        if not port.config & ofp.OFPPC_NO_RECV:
            self._through_tables(frame, passage)
        return passage

    def packet_out(self, message: Any, now_s: float = 0.0) -> Passage:
        """Carry out a PACKET_OUT: bytes or an os-ken message. OpenFlowError when the standard has it refused."""
        data = to_bytes(message)
        buffer, in_port, length = fields(ofp.OFP_PACKET_OUT_PACK_STR, data)
        if buffer != ofp.OFP_NO_BUFFER:
            raise OpenFlowError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BUFFER_UNKNOWN)
        if in_port not in self.ports and in_port != ofp.OFPP_CONTROLLER:
            raise OpenFlowError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_PORT)
        end = ofp.OFP_PACKET_OUT_SIZE + length
        if end > len(data):
            raise OpenFlowError(ofp.OFPET_BAD_ACTION, ofp.OFPBAC_BAD_LEN)
        actions = parse_actions(data, ofp.OFP_PACKET_OUT_SIZE, end, self._holdings, reserved=_PACKET_OUT_PORTS)
        check_groups(actions, self._holdings)
        if len(data) - end < 14:
            raise OpenFlowError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_PACKET)
        passage = Passage(in_port, now_s)
        with suppress(_TtlExpired):
            self._apply_list(actions, data[end:], passage)
        return passage

    def expire(self, now_s: float) -> list[tuple[Entry, int]]:
        """Remove the entries whose time is up, and say which, with their OFPRR reasons."""
        gone = [(entry, reason) for entry in self.tables if (reason := entry.time_is_up(now_s)) is not None]
        self.tables.remove(entry for entry, _ in gone)
        return gone

    def set_port(self, number: int, up: bool) -> None:
        """Take a port's signal away, or give it back. KeyError when there is no such port."""
        self.ports[number].up = up

    # What frames go through

    def _through_tables(self, frame: bytes, passage: Passage) -> None:
        action_set: list[Action] = []
        table: int | None = 0
        while table is not None and (entry := self._lookup(table, frame, passage)):
            table = None
            for instruction in entry.instructions:
                if instruction.type == ofp.OFPIT_METER:
                    if not self.meters[instruction.meter_id].passes(len(frame), passage.now_s):
                        return
                elif instruction.type == ofp.OFPIT_APPLY_ACTIONS:
                    try:
                        frame = self._apply_list(instruction.actions, frame, passage)
                    except _TtlExpired as expired:
                        frame = expired.frame
                        break  # as in Open vSwitch, what earlier tables wrote into the action set still holds
                elif instruction.type == ofp.OFPIT_CLEAR_ACTIONS:
                    action_set = []
                elif instruction.type == ofp.OFPIT_WRITE_ACTIONS:
                    action_set = action_set + instruction.actions
                elif instruction.type == ofp.OFPIT_WRITE_METADATA:
                    mask = instruction.metadata_mask
                    passage.metadata = passage.metadata & ~mask | instruction.metadata & mask
                else:
                    table = instruction.table_id
        with suppress(_TtlExpired):
            self._execute(in_order(action_set), frame, passage)

    def _lookup(self, table: int, frame: bytes, passage: Passage) -> Entry | None:
        seen = headers.headers(frame, passage.in_port, passage.metadata)
        entry = next((entry for entry in self.tables.ordered(table) if matches(entry.match, seen)), None)
        counters = self.tables.counters.setdefault(table, TableCounters())
        counters.lookups += 1
        if entry:
            counters.matched += 1
            entry.count(len(frame), passage.now_s)
            passage.entries.append(entry)
            passage.entry = entry
        return entry

    def _apply_list(self, actions: list[Action], frame: bytes, passage: Passage) -> bytes:
        missed = passage.entry is not None and passage.entry.is_miss
        return self._execute(actions, frame, passage, ofp.OFPR_NO_MATCH if missed else ofp.OFPR_ACTION)

    def _execute(self, actions: list[Action], frame: bytes, passage: Passage, reason: int = ofp.OFPR_ACTION) -> bytes:
        """Execute actions in order, and give the frame as they leave it."""
        for action in actions:
            if action.type == ofp.OFPAT_OUTPUT:
                self._output(action, frame, passage, reason)
            elif action.type == ofp.OFPAT_GROUP:
                self._through_group(action.group_id, frame, passage)
            elif action.type == ofp.OFPAT_SET_FIELD:
                frame = self._set_field(action, frame, passage)
            elif action.type == ofp.OFPAT_PUSH_VLAN:
                frame = headers.push_vlan(frame, action.ethertype)
            elif action.type == ofp.OFPAT_POP_VLAN:
                frame = headers.pop_vlan(frame)
            elif action.type == ofp.OFPAT_SET_NW_TTL:
                frame = headers.set_field(frame, "ip_ttl", action.nw_ttl)
            elif action.type == ofp.OFPAT_DEC_NW_TTL:
                lower = headers.dec_ttl(frame)
                if lower is None:
                    self._to_controller(frame, passage, ofp.OFPR_INVALID_TTL)
                    raise _TtlExpired(frame)
                frame = lower
        return frame

    @staticmethod
    def _set_field(action: Action, frame: bytes, passage: Passage) -> bytes:
        value = int.from_bytes(ofp.oxm_from_user(action.key, action.value)[1])
        if action.key == "metadata":
            passage.metadata = value
            return frame
        return headers.set_field(frame, action.key, value & 0xFFF if action.key == "vlan_vid" else value)

    def _output(self, action: Action, frame: bytes, passage: Passage, reason: int) -> None:
        if action.port == ofp.OFPP_CONTROLLER:
            self._to_controller(frame, passage, reason)
        elif action.port == ofp.OFPP_TABLE:
            self._through_tables(frame, passage)
        elif action.port == ofp.OFPP_IN_PORT:
            self._leave([passage.in_port], frame, passage)
        elif action.port in (ofp.OFPP_ALL, ofp.OFPP_FLOOD):
            self._leave([number for number in self.ports if number != passage.in_port], frame, passage)
        elif action.port != passage.in_port:
            self._leave([action.port], frame, passage)

    def _leave(self, numbers: list[int], frame: bytes, passage: Passage) -> None:
        for number in numbers:
            port = self.ports.get(number)
            if port and port.live and not port.config & ofp.OFPPC_NO_FWD:
                _count(port.sent, frame)
                passage.outputs.append((number, frame))

    def _to_controller(self, frame: bytes, passage: Passage, reason: int) -> None:
        port, entry = self.ports.get(passage.in_port), passage.entry
        if port and port.config & ofp.OFPPC_NO_PACKET_IN:
            return
        limit = self.meters.get(ofp.OFPM_CONTROLLER)
        if limit and not limit.passes(len(frame), passage.now_s):
            return
        table, cookie = (entry.table, entry.cookie) if entry else (0, 0xFFFFFFFFFFFFFFFF)
        passage.packet_ins.append(PacketIn(frame, passage.in_port, reason, table, cookie, passage.metadata))

    def _through_group(self, number: int, frame: bytes, passage: Passage) -> None:
        if number not in self.groups or number in passage.groups:
            return
        group = self.groups[number]
        group.packets += 1
        group.bytes += len(frame)
        passage.groups.append(number)
        for index in self.groups.chosen(group, frame):
            _count(group.bucket_counts[index], frame)
            metadata = passage.metadata
            with suppress(_TtlExpired):  # it is this bucket's copy of the frame that ends
                self._execute(in_order(group.buckets[index].actions), frame, passage)
            passage.metadata = metadata
        passage.groups.pop()

    # What controllers ask for

    def _flow_mod(self, data: bytes, now_s: float) -> list[tuple[Entry, int]]:
        cookie, cookie_mask, table, command, idle_s, hard_s, priority, buffer, out_port, out_group, flags = fields(
            ofp.OFP_FLOW_MOD_PACK_STR0, data
        )
        if command not in (ofp.OFPFC_ADD, ofp.OFPFC_MODIFY, ofp.OFPFC_MODIFY_STRICT, ofp.OFPFC_DELETE, ofp.OFPFC_DELETE_STRICT):
            raise OpenFlowError(ofp.OFPET_FLOW_MOD_FAILED, ofp.OFPFMFC_BAD_COMMAND)
        deleting = command in (ofp.OFPFC_DELETE, ofp.OFPFC_DELETE_STRICT)
        if table >= self.tables.count and not (deleting and table == ofp.OFPTT_ALL):
            raise OpenFlowError(ofp.OFPET_FLOW_MOD_FAILED, ofp.OFPFMFC_BAD_TABLE_ID)
        match, offset = parse_match(data, ofp.OFP_FLOW_MOD_SIZE - 8)
        if flags & ~_FLOW_FLAGS:
            raise OpenFlowError(ofp.OFPET_FLOW_MOD_FAILED, ofp.OFPFMFC_BAD_FLAGS)
        strict = priority if command in (ofp.OFPFC_MODIFY_STRICT, ofp.OFPFC_DELETE_STRICT) else None
        if deleting:
            gone = self.tables.select(table, match, strict, cookie=cookie, cookie_mask=cookie_mask, out_port=out_port, out_group=out_group)
            return self._remove(gone, ofp.OFPRR_DELETE)
        instructions = parse_instructions(data, offset, len(data), table, match, self._holdings)
        if buffer != ofp.OFP_NO_BUFFER:
            raise OpenFlowError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BUFFER_UNKNOWN)
        if command == ofp.OFPFC_ADD:
            self.tables.add(Entry(table, priority, match, instructions, cookie, flags, idle_s, hard_s, now_s, now_s))
            return []
        for entry in self.tables.select(table, match, strict, cookie=cookie, cookie_mask=cookie_mask):
            entry.instructions = instructions
            if flags & ofp.OFPFF_RESET_COUNTS:
                entry.packets = entry.bytes = 0
        return []

    def _group_mod(self, data: bytes, now_s: float) -> list[tuple[Entry, int]]:
        command, group = parse_group_mod(data, self._holdings, now_s)
        if command == ofp.OFPGC_DELETE:
            gone = self.groups.delete(group.number)
            return self._remove([entry for entry in self.tables if entry.groups & gone], ofp.OFPRR_GROUP_DELETE)
        if command not in (ofp.OFPGC_ADD, ofp.OFPGC_MODIFY):
            raise OpenFlowError(ofp.OFPET_GROUP_MOD_FAILED, ofp.OFPGMFC_BAD_COMMAND)
        self.groups.change(command, group)
        return []

    def _meter_mod(self, data: bytes, now_s: float) -> list[tuple[Entry, int]]:
        command, meter = parse_meter_mod(data, now_s)
        if command == ofp.OFPMC_DELETE:
            gone = set(self.meters) if meter.number == ofp.OFPM_ALL else {meter.number} & set(self.meters)
            for number in gone:
                del self.meters[number]
            return self._remove([entry for entry in self.tables if entry.meter in gone], ofp.OFPRR_DELETE)
        if command not in (ofp.OFPMC_ADD, ofp.OFPMC_MODIFY):
            raise failed(ofp.OFPMMFC_BAD_COMMAND)
        if (command == ofp.OFPMC_ADD) == (meter.number in self.meters):
            raise failed(ofp.OFPMMFC_METER_EXISTS if command == ofp.OFPMC_ADD else ofp.OFPMMFC_UNKNOWN_METER)
        self.meters[meter.number] = meter
        return []

    def _remove(self, entries: list[Entry], reason: int) -> list[tuple[Entry, int]]:
        self.tables.remove(entries)
        return [(entry, reason) for entry in entries]


def to_bytes(message: Any) -> bytes:
    """An OpenFlow message as bytes: it may be bytes, or an os-ken message, whose datapath is then `PROTOCOL` or one like it."""
    if isinstance(message, (bytes, bytearray, memoryview)):
        return bytes(message)
    message.serialize()
    return bytes(message.buf)


def _count(counters: list[int], frame: bytes) -> None:
    counters[0] += 1
    counters[1] += len(frame)
