"""An emulated OpenFlow 1.3 switch. It encodes and decodes with os-ken, so that the controller's own codec meets a stranger's."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import Any

from os_ken.ofproto import ofproto_parser, ofproto_protocol
from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as messages

from controller.southbound.device import Actions
from topologies.emulation.flow_table import Bits, Entry, FlowTable, Outputs, execute, field_bits
from topologies.emulation.frames import Deliver

_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 5.0
_MESSAGES_PER_TURN = 32
_REPLY_BYTES = 32768
"""A multipart reply is cut into parts of about this size."""
_EXPIRY_S = 0.5
_CONGESTED_BYTES = 1 << 20
"""PACKET_INs are left out while the controller is so far behind."""
_PROTOCOL = ofproto_protocol.ProtocolDesc(version=ofp.OFP_VERSION)

_PREREQUISITES: dict[str, tuple[str, int]] = {
    **dict.fromkeys(("ipv4_src", "ipv4_dst"), ("eth_type", 0x0800)),
    **dict.fromkeys(("ipv6_src", "ipv6_dst"), ("eth_type", 0x86DD)),
    **dict.fromkeys(("arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha"), ("eth_type", 0x0806)),
    **dict.fromkeys(("tcp_src", "tcp_dst"), ("ip_proto", 6)),
    **dict.fromkeys(("udp_src", "udp_dst"), ("ip_proto", 17)),
    **dict.fromkeys(("icmpv4_type", "icmpv4_code"), ("ip_proto", 1)),
}
_RESERVED_OUTPUTS = (ofp.OFPP_IN_PORT, ofp.OFPP_FLOOD, ofp.OFPP_ALL, ofp.OFPP_CONTROLLER)

log = logging.getLogger(__name__)


class _RequestError(Exception):
    def __init__(self, kind: int, code: int) -> None:
        super().__init__(f"OpenFlow error {kind}/{code}")
        self.kind = kind
        self.code = code


class EmulatedSwitch:
    """Dials out to the controller for ever; keeps forwarding by its table when the controller is away (fail-mode secure)."""

    def __init__(self, name: str, dpid: int, ports: list[int], controller: tuple[str, int], *, capacity: int = 100_000) -> None:
        self.name = name
        self.dpid = dpid
        self.table = FlowTable()
        self._controller = controller
        self._capacity = capacity
        self._wires: dict[int, Deliver | None] = dict.fromkeys(ports)
        self._down: set[int] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._handlers: dict[int, Callable[[int, bytes], None]] = {
            ofp.OFPT_HELLO: lambda xid, data: None,
            ofp.OFPT_ERROR: self._on_error,
            ofp.OFPT_ECHO_REQUEST: lambda xid, data: self._send(ofp.OFPT_ECHO_REPLY, data[8:], xid),
            ofp.OFPT_ECHO_REPLY: lambda xid, data: None,
            ofp.OFPT_FEATURES_REQUEST: self._on_features_request,
            ofp.OFPT_BARRIER_REQUEST: lambda xid, data: self._send(ofp.OFPT_BARRIER_REPLY, b"", xid),
            ofp.OFPT_FLOW_MOD: self._on_flow_mod,
            ofp.OFPT_PACKET_OUT: self._on_packet_out,
            ofp.OFPT_MULTIPART_REQUEST: self._on_multipart_request,
        }

    @property
    def connected(self) -> bool:
        return self._writer is not None

    def flows(self) -> list[Entry]:
        """The entries of the table, highest priority first."""
        return list(self.table.entries)

    def attach(self, port: int, deliver: Deliver) -> None:
        """Plug a cable into a port: frames leave by `deliver`."""
        if port not in self._wires:
            raise ValueError(f"{self.name} has no port {port}; it has {sorted(self._wires)}")
        self._wires[port] = deliver

    def set_port(self, port: int, up: bool) -> None:
        """Take a port's signal away, or give it back; the controller is told."""
        (self._down.discard if up else self._down.add)(port)
        self._send(ofp.OFPT_PORT_STATUS, struct.pack("!B7x", ofp.OFPPR_MODIFY) + self._port_bytes(port))

    def receive(self, port: int, frame: bytes) -> None:
        """A frame comes in by a port."""
        if port not in self._live_ports():
            return
        entry = self.table.lookup(frame, port)
        if entry:
            self._emit(execute(entry.actions, frame, port, self._live_ports()), port, entry)

    async def run(self) -> None:
        """Serve the controller, reconnecting with back-off, until cancelled."""
        retry_s = _FIRST_RETRY_S
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._expire())
            while True:
                dialled_s = monotonic()
                with suppress(OSError, asyncio.IncompleteReadError):
                    reader, self._writer = await asyncio.open_connection(*self._controller)
                    try:
                        await self._converse(reader, self._writer)
                    finally:
                        self._writer.close()
                        self._writer = None
                if monotonic() - dialled_s > _LAST_RETRY_S:
                    retry_s = _FIRST_RETRY_S
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One session, until the connection ends."""
        self._send(ofp.OFPT_HELLO, b"")
        for turn in count():
            head = await reader.readexactly(ofp.OFP_HEADER_SIZE)
            _, kind, length, xid = struct.unpack(ofp.OFP_HEADER_PACK_STR, head)
            self._handle(kind, xid, head + await reader.readexactly(max(0, length - len(head))))
            await writer.drain()
            if turn % _MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)

    def _handle(self, kind: int, xid: int, data: bytes) -> None:
        try:
            handler = self._handlers.get(kind)
            if handler is None:
                raise _RequestError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_TYPE)
            handler(xid, data)
        except _RequestError as error:
            self._send(ofp.OFPT_ERROR, struct.pack("!HH", error.kind, error.code) + data[:64], xid)
        except Exception:  # os-ken raises all kinds of exceptions on what it cannot parse
            log.exception("%s: cannot parse a request of type %d", self.name, kind)
            self._send(ofp.OFPT_ERROR, struct.pack("!HH", ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_LEN) + data[:64], xid)

    def _send(self, kind: int, body: bytes, xid: int = 0) -> None:
        if self._writer is None:
            return
        self._writer.write(struct.pack(ofp.OFP_HEADER_PACK_STR, ofp.OFP_VERSION, kind, ofp.OFP_HEADER_SIZE + len(body), xid) + body)

    def _on_error(self, xid: int, data: bytes) -> None:
        error = messages.OFPErrorMsg.parser(_PROTOCOL, ofp.OFP_VERSION, ofp.OFPT_ERROR, len(data), xid, data)
        log.warning("%s: the controller reports error %d/%d %r", self.name, error.type, error.code, bytes(error.data))

    def _on_features_request(self, xid: int, data: bytes) -> None:
        capabilities = ofp.OFPC_FLOW_STATS | ofp.OFPC_PORT_STATS
        self._send(ofp.OFPT_FEATURES_REPLY, struct.pack(ofp.OFP_SWITCH_FEATURES_PACK_STR, self.dpid, 0, 1, 0, capabilities, 0), xid)

    def _on_multipart_request(self, xid: int, data: bytes) -> None:
        kind, _ = struct.unpack_from(ofp.OFP_MULTIPART_REQUEST_PACK_STR, data, ofp.OFP_HEADER_SIZE)
        if kind == ofp.OFPMP_PORT_DESC:
            self._reply_in_parts(kind, [self._port_bytes(port) for port in sorted(self._wires)], xid)
        elif kind == ofp.OFPMP_FLOW:
            offset = ofp.OFP_HEADER_SIZE + 8
            table, out_port, _, cookie, mask = struct.unpack_from(ofp.OFP_FLOW_STATS_REQUEST_0_PACK_STR, data, offset)
            match = messages.OFPMatch.parser(data, offset + ofp.OFP_FLOW_STATS_REQUEST_0_SIZE)
            entries = self.table.select(_match_bits(match), None, cookie, mask, out_port) if table in (0, ofp.OFPTT_ALL) else []
            self._reply_in_parts(kind, [self._flow_bytes(entry) for entry in entries], xid)
        else:
            raise _RequestError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_MULTIPART)

    def _reply_in_parts(self, kind: int, items: list[bytes], xid: int) -> None:
        part: list[bytes] = []
        size = 0
        for item in items:
            if size + len(item) > _REPLY_BYTES:
                self._send(ofp.OFPT_MULTIPART_REPLY, struct.pack("!HH4x", kind, ofp.OFPMPF_REPLY_MORE) + b"".join(part), xid)
                part, size = [], 0
            part.append(item)
            size += len(item)
        self._send(ofp.OFPT_MULTIPART_REPLY, struct.pack("!HH4x", kind, 0) + b"".join(part), xid)

    def _port_bytes(self, port: int) -> bytes:
        mac = struct.pack("!BBHH", 2, 0xBE, self.dpid & 0xFFFF, port & 0xFFFF)
        state = ofp.OFPPS_LINK_DOWN if port in self._down else ofp.OFPPS_LIVE
        speed = ofp.OFPPF_10GB_FD
        name = f"{self.name}-eth{port}".encode()[:15]
        return struct.pack(ofp.OFP_PORT_PACK_STR, port, mac, name, 0, state, speed, 0, speed, 0, 10_000_000, 10_000_000)

    def _flow_bytes(self, entry: Entry) -> bytes:
        nanoseconds = int(self.table.age_s(entry) * 1e9)
        return (
            struct.pack(
                ofp.OFP_FLOW_STATS_0_PACK_STR,
                ofp.OFP_FLOW_STATS_0_SIZE + len(entry.match_bytes) + len(entry.instruction_bytes),
                0,
                *divmod(nanoseconds, 10**9),
                entry.priority,
                entry.idle_timeout_s,
                entry.hard_timeout_s,
                entry.flags,
                entry.cookie,
                entry.packets,
                entry.bytes,
            )
            + entry.match_bytes
            + entry.instruction_bytes
        )

    def _on_flow_mod(self, xid: int, data: bytes) -> None:
        mod = ofproto_parser.msg(_PROTOCOL, ofp.OFP_VERSION, ofp.OFPT_FLOW_MOD, len(data), xid, data)
        deleting = mod.command in (ofp.OFPFC_DELETE, ofp.OFPFC_DELETE_STRICT)
        if mod.table_id and not (deleting and mod.table_id == ofp.OFPTT_ALL):
            raise _RequestError(ofp.OFPET_FLOW_MOD_FAILED, ofp.OFPFMFC_BAD_TABLE_ID)
        match = _match_bits(mod.match)
        if mod.command == ofp.OFPFC_ADD:
            self._add(mod, match)
            return
        strict = mod.command in (ofp.OFPFC_DELETE_STRICT, ofp.OFPFC_MODIFY_STRICT)
        out_port = mod.out_port if deleting else ofp.OFPP_ANY
        selected = self.table.select(match, mod.priority if strict else None, mod.cookie, mod.cookie_mask, out_port)
        if deleting:
            self.table.delete(selected)
            for entry in selected:
                self._flow_removed(entry, ofp.OFPRR_DELETE)
        elif mod.command in (ofp.OFPFC_MODIFY, ofp.OFPFC_MODIFY_STRICT):
            actions, instruction_bytes = self._actions_of(mod.instructions), _serialized(mod.instructions)
            for entry in selected:
                entry.actions, entry.instruction_bytes = actions, instruction_bytes
        else:
            raise _RequestError(ofp.OFPET_FLOW_MOD_FAILED, ofp.OFPFMFC_BAD_COMMAND)

    def _add(self, mod: Any, match: dict[str, Bits]) -> None:
        actions = self._actions_of(mod.instructions)
        if len(self.table) >= self._capacity and not self.table.select(match, mod.priority):
            raise _RequestError(ofp.OFPET_FLOW_MOD_FAILED, ofp.OFPFMFC_TABLE_FULL)
        self.table.add(
            Entry(
                mod.priority,
                match,
                actions,
                mod.cookie,
                mod.flags,
                mod.idle_timeout,
                mod.hard_timeout,
                _serialized([mod.match]),
                _serialized(mod.instructions),
            )
        )

    def _actions_of(self, instructions: list[Any]) -> Actions:
        actions: list[tuple[str, int | str]] = []
        for instruction in instructions:
            if instruction.type != ofp.OFPIT_APPLY_ACTIONS:
                raise _RequestError(ofp.OFPET_BAD_INSTRUCTION, ofp.OFPBIC_UNSUP_INST)
            actions += [self._action_of(action) for action in instruction.actions]
        return tuple(actions)

    def _action_of(self, action: Any) -> tuple[str, int | str]:
        if action.type == ofp.OFPAT_OUTPUT:
            if action.port not in self._wires and action.port not in _RESERVED_OUTPUTS:
                raise _RequestError(ofp.OFPET_BAD_ACTION, ofp.OFPBAC_BAD_OUT_PORT)
            return "output", action.port
        if action.type == ofp.OFPAT_SET_FIELD:
            return f"set_field:{action.key}", action.value
        if action.type == ofp.OFPAT_PUSH_VLAN:
            return "push_vlan", action.ethertype
        if action.type == ofp.OFPAT_POP_VLAN:
            return "pop_vlan", 0
        raise _RequestError(ofp.OFPET_BAD_ACTION, ofp.OFPBAC_BAD_TYPE)

    def _on_packet_out(self, xid: int, data: bytes) -> None:
        buffer_id, in_port, length = struct.unpack_from(ofp.OFP_PACKET_OUT_PACK_STR, data, ofp.OFP_HEADER_SIZE)
        if buffer_id != ofp.OFP_NO_BUFFER:
            raise _RequestError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BUFFER_UNKNOWN)
        offset, end = ofp.OFP_PACKET_OUT_SIZE, ofp.OFP_PACKET_OUT_SIZE + length
        actions = []
        while offset < end:
            action = messages.OFPAction.parser(data, offset)
            actions.append(self._action_of(action))
            offset += action.len
        self._emit(execute(tuple(actions), data[end:], in_port, self._live_ports()), in_port, None)

    def _emit(self, outputs: Outputs, in_port: int, entry: Entry | None) -> None:
        for port, frame in outputs:
            if port == ofp.OFPP_CONTROLLER:
                self._packet_in(frame, in_port, entry)
            elif deliver := self._wires[port]:
                deliver(frame)

    def _packet_in(self, frame: bytes, in_port: int, entry: Entry | None) -> None:
        if self._writer is None or self._writer.transport.get_write_buffer_size() > _CONGESTED_BYTES:
            return
        missed = entry is not None and not entry.priority and not entry.match
        reason = ofp.OFPR_NO_MATCH if missed else ofp.OFPR_ACTION
        head = struct.pack(ofp.OFP_PACKET_IN_PACK_STR, ofp.OFP_NO_BUFFER, len(frame), reason, 0, entry.cookie if entry else 0)
        self._send(ofp.OFPT_PACKET_IN, head + _serialized([messages.OFPMatch(in_port=in_port)]) + bytes(2) + frame)

    def _flow_removed(self, entry: Entry, reason: int) -> None:
        if not entry.flags & ofp.OFPFF_SEND_FLOW_REM:
            return
        age = divmod(int(self.table.age_s(entry) * 1e9), 10**9)
        timeouts = entry.idle_timeout_s, entry.hard_timeout_s
        fields = (entry.cookie, entry.priority, reason, 0, *age, *timeouts, entry.packets, entry.bytes)
        self._send(ofp.OFPT_FLOW_REMOVED, struct.pack(ofp.OFP_FLOW_REMOVED_PACK_STR0, *fields) + entry.match_bytes)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRY_S)
            gone = self.table.expired()
            if gone:
                self.table.delete(entry for entry, _ in gone)
            for entry, reason in gone:
                self._flow_removed(entry, reason)

    def _live_ports(self) -> list[int]:
        return [port for port in self._wires if port not in self._down]


def _match_bits(match: Any) -> dict[str, Bits]:
    """The match as values and masks. Raises _RequestError when a field's prerequisite is missing."""
    fields = {name: field_bits(name, value) for name, value in match.items()}
    for name in fields:
        needed = _PREREQUISITES.get(name)
        if needed and fields.get(needed[0], (None, 0))[0] != needed[1]:
            raise _RequestError(ofp.OFPET_BAD_MATCH, ofp.OFPBMC_BAD_PREREQ)
    return fields


def _serialized(parts: list[Any]) -> bytes:
    data = bytearray()
    for part in parts:
        part.serialize(data, len(data))
    return bytes(data)
