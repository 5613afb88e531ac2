"""OpenFlow 1.3 bytes to messages and back. No sockets here: bytes in, values out."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct

from controller.southbound.device import FlowRule
from controller.southbound.openflow.actions import decode_actions, decode_instructions, encode_actions, encode_instructions
from controller.southbound.openflow.match import decode_match, encode_match
from controller.southbound.openflow.messages import (
    VERSION,
    BarrierReply,
    BarrierRequest,
    EchoReply,
    EchoRequest,
    Error,
    FeaturesReply,
    FeaturesRequest,
    FlowCommand,
    FlowMod,
    FlowRemoved,
    FlowStats,
    FlowStatsReply,
    FlowStatsRequest,
    Hello,
    MalformedMessage,
    Message,
    PacketIn,
    PacketOut,
    Port,
    PortDescReply,
    PortDescRequest,
    PortStatus,
    Raw,
    Type,
)

_HEADER = Struct("!BBHI")
_PAIR = Struct("!HH")
_WORD = Struct("!I")
_FEATURES = Struct("!QIBB2xII")
_PACKET_IN = Struct("!IHBBQ")
_PACKET_OUT = Struct("!IIH6x")
_FLOW_MOD = Struct("!QQBBHHHIIIH2x")
_FLOW_REMOVED = Struct("!QHBBIIHHQQ")
_PORT = Struct("!I4x6s2x16sIIIIIIII")
_PORT_STATUS = Struct("!B7x")
_MULTIPART = Struct("!HH4x")
_FLOW_REQUEST = Struct("!B3xII4xQQ")
_FLOW_STATS = Struct("!HBxIIHHHH4xQQQ")

_FLOW, _PORT_DESC = 1, 13
_MORE = 1


@dataclass(frozen=True, slots=True)
class Frame:
    """One message as it came, cut out of the stream but not decoded."""

    version: int
    type: int
    xid: int
    body: bytes


class Framer:
    """Cuts a byte stream into messages, however its pieces arrive."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The messages that `data` completes. Raises MalformedMessage when the stream makes no sense; it cannot go on after that."""
        pending = self._pending
        pending += data
        frames: list[Frame] = []
        offset, end = 0, len(pending)
        while end - offset >= 8:
            version, kind, length, xid = _HEADER.unpack_from(pending, offset)
            # A HELLO or the ERROR that refuses one carries the sender's own version.
            if length < 8 or not version or (version != VERSION and kind not in (Type.HELLO, Type.ERROR)):
                raise MalformedMessage(f"no OpenFlow 1.3 header: version {version}, type {kind}, length {length}")
            if end - offset < length:
                break
            frames.append(Frame(version, kind, xid, bytes(pending[offset + 8 : offset + length])))
            offset += length
        del pending[:offset]
        return frames


def encode(message: Message, xid: int = 0) -> bytes:
    """The message with its header. Raises ValueError, naming the field, when a value does not fit in it."""
    try:
        kind, body = _ENCODERS[type(message)](message)
        return _HEADER.pack(message.version if isinstance(message, Hello) else VERSION, kind, 8 + len(body), xid) + body
    except struct.error as error:
        raise ValueError(f"{type(message).__name__} does not fit an OpenFlow message: {error}") from None


def decode(frame: Frame) -> Message:
    """The message in a frame; `Raw` for a type that is not modelled. Raises MalformedMessage when its body makes no sense."""
    decoder = _DECODERS.get(frame.type)
    try:
        if frame.type == Type.HELLO:
            return Hello(frame.version, _decode_bitmap(frame.body))
        return decoder(frame.body) if decoder else Raw(frame.type, frame.body)
    except (struct.error, ValueError) as error:
        raise MalformedMessage(f"message of type {frame.type}, {len(frame.body) + 8} bytes: {error}") from error


def _encode_hello(message: Hello) -> bytes:
    if not message.bitmap:
        return b""
    words = [0] * (max(message.bitmap) // 32 + 1)
    for version in message.bitmap:
        words[version // 32] |= 1 << version % 32
    length = 4 + 4 * len(words)
    return _PAIR.pack(1, length) + b"".join(map(_WORD.pack, words)) + bytes(-length % 8)


def _decode_bitmap(body: bytes) -> tuple[int, ...]:
    offset = 0
    while offset < len(body):
        kind, length = _PAIR.unpack_from(body, offset)
        if length < 4 or offset + length > len(body):
            raise MalformedMessage(f"a HELLO element of length {length}")
        if kind == 1:
            words = struct.unpack_from(f"!{(length - 4) // 4}I", body, offset + 4)
            return tuple(32 * index + bit for index, word in enumerate(words) for bit in range(32) if word >> bit & 1)
        offset += length + -length % 8
    return ()


def _decode_error(body: bytes) -> Error:
    kind, code = _PAIR.unpack_from(body)
    return Error(kind, code, body[4:])


def _encode_features(message: FeaturesReply) -> bytes:
    return _FEATURES.pack(message.datapath_id, message.buffers, message.tables, message.auxiliary_id, message.capabilities, 0)


def _decode_features(body: bytes) -> FeaturesReply:
    return FeaturesReply(*_FEATURES.unpack_from(body)[:5])


def _encode_packet_in(message: PacketIn) -> bytes:
    head = _PACKET_IN.pack(message.buffer_id, message.total_length, message.reason, message.table, message.cookie)
    return head + encode_match(message.match) + bytes(2) + message.data


def _decode_packet_in(body: bytes) -> PacketIn:
    buffer_id, total_length, reason, table, cookie = _PACKET_IN.unpack_from(body)
    match, offset = decode_match(body, _PACKET_IN.size)
    if len(body) < offset + 2:
        raise MalformedMessage("a PACKET_IN that ends in its match")
    return PacketIn(buffer_id, total_length, reason, table, cookie, match, body[offset + 2 :])


def _encode_packet_out(message: PacketOut) -> bytes:
    actions = encode_actions(message.actions)
    return _PACKET_OUT.pack(message.buffer_id, message.in_port, len(actions)) + actions + message.data


def _decode_packet_out(body: bytes) -> PacketOut:
    buffer_id, in_port, length = _PACKET_OUT.unpack_from(body)
    end = _PACKET_OUT.size + length
    if end > len(body):
        raise MalformedMessage("a PACKET_OUT that ends in its actions")
    return PacketOut(tuple(decode_actions(body, _PACKET_OUT.size, end)), body[end:], in_port, buffer_id)


def _encode_flow_mod(message: FlowMod) -> bytes:
    rule = message.rule
    head = _FLOW_MOD.pack(
        rule.cookie,
        message.cookie_mask,
        rule.table,
        message.command,
        message.idle_timeout_s,
        message.hard_timeout_s,
        rule.priority,
        message.buffer_id,
        message.out_port,
        message.out_group,
        message.flags,
    )
    return head + encode_match(rule.match) + encode_instructions(rule.actions)


def _decode_flow_mod(body: bytes) -> FlowMod:
    cookie, mask, table, command, idle, hard, priority, buffer_id, out_port, out_group, flags = _FLOW_MOD.unpack_from(body)
    match, offset = decode_match(body, _FLOW_MOD.size)
    rule = FlowRule(priority, match, decode_instructions(body, offset, len(body)), cookie, table)
    return FlowMod(FlowCommand(command), rule, mask, idle, hard, buffer_id, out_port, out_group, flags)


def _split_seconds(duration_s: float) -> tuple[int, int]:
    nanoseconds = round(duration_s * 1e9)
    return nanoseconds // 10**9, nanoseconds % 10**9


def _encode_flow_removed(message: FlowRemoved) -> bytes:
    head = _FLOW_REMOVED.pack(
        message.cookie,
        message.priority,
        message.reason,
        message.table,
        *_split_seconds(message.duration_s),
        message.idle_timeout_s,
        message.hard_timeout_s,
        message.packets,
        message.bytes,
    )
    return head + encode_match(message.match)


def _decode_flow_removed(body: bytes) -> FlowRemoved:
    cookie, priority, reason, table, seconds, nanoseconds, idle, hard, packets, octets = _FLOW_REMOVED.unpack_from(body)
    match, _ = decode_match(body, _FLOW_REMOVED.size)
    return FlowRemoved(cookie, priority, reason, table, seconds + nanoseconds / 1e9, idle, hard, packets, octets, match)


def _encode_port(port: Port) -> bytes:
    return _PORT.pack(
        port.number,
        bytes.fromhex(port.mac.replace(":", "")),
        port.name.encode(),
        port.config,
        port.state,
        port.current,
        port.advertised,
        port.supported,
        port.peer,
        port.current_speed_kbps,
        port.maximum_speed_kbps,
    )


def _decode_port(body: bytes, offset: int) -> Port:
    number, mac, name, *rest = _PORT.unpack_from(body, offset)
    return Port(number, mac.hex(":"), name.rstrip(b"\0").decode(errors="replace"), *rest)


def _encode_port_status(message: PortStatus) -> bytes:
    return _PORT_STATUS.pack(message.reason) + _encode_port(message.port)


def _decode_port_status(body: bytes) -> PortStatus:
    (reason,) = _PORT_STATUS.unpack_from(body)
    return PortStatus(reason, _decode_port(body, _PORT_STATUS.size))


def _encode_flow_request(message: FlowStatsRequest) -> bytes:
    head = _FLOW_REQUEST.pack(message.table, message.out_port, message.out_group, message.cookie, message.cookie_mask)
    return _MULTIPART.pack(_FLOW, 0) + head + encode_match(message.match)


def _encode_flow_stats(message: FlowStatsReply) -> bytes:
    entries = []
    for flow in message.flows:
        rule = flow.rule
        tail = encode_match(rule.match) + encode_instructions(rule.actions)
        head = _FLOW_STATS.pack(
            _FLOW_STATS.size + len(tail),
            rule.table,
            *_split_seconds(flow.duration_s),
            rule.priority,
            flow.idle_timeout_s,
            flow.hard_timeout_s,
            flow.flags,
            rule.cookie,
            flow.packets,
            flow.bytes,
        )
        entries.append(head + tail)
    return _MULTIPART.pack(_FLOW, _MORE * message.more) + b"".join(entries)


def _decode_flow_stats(body: bytes, more: bool) -> FlowStatsReply:
    flows = []
    offset = _MULTIPART.size
    while offset < len(body):
        length, table, seconds, nanoseconds, priority, idle, hard, flags, cookie, packets, octets = _FLOW_STATS.unpack_from(body, offset)
        end = offset + length
        if length < _FLOW_STATS.size or end > len(body):
            raise MalformedMessage(f"a flow entry of length {length}")
        match, start = decode_match(body, offset + _FLOW_STATS.size)
        rule = FlowRule(priority, match, decode_instructions(body, start, end), cookie, table)
        flows.append(FlowStats(rule, seconds + nanoseconds / 1e9, idle, hard, flags, packets, octets))
        offset = end
    return FlowStatsReply(tuple(flows), more)


def _decode_port_desc(body: bytes, more: bool) -> PortDescReply:
    return PortDescReply(tuple(_decode_port(body, offset) for offset in range(_MULTIPART.size, len(body), _PORT.size)), more)


def _decode_multipart_request(body: bytes) -> Message:
    kind, _ = _MULTIPART.unpack_from(body)
    if kind == _FLOW:
        table, out_port, out_group, cookie, mask = _FLOW_REQUEST.unpack_from(body, _MULTIPART.size)
        match, _ = decode_match(body, _MULTIPART.size + _FLOW_REQUEST.size)
        return FlowStatsRequest(table, out_port, out_group, cookie, mask, match)
    return PortDescRequest() if kind == _PORT_DESC else Raw(Type.MULTIPART_REQUEST, body)


def _decode_multipart_reply(body: bytes) -> Message:
    kind, flags = _MULTIPART.unpack_from(body)
    more = bool(flags & _MORE)
    if kind == _FLOW:
        return _decode_flow_stats(body, more)
    return _decode_port_desc(body, more) if kind == _PORT_DESC else Raw(Type.MULTIPART_REPLY, body)


_ENCODERS: dict[type, Callable[..., tuple[int, bytes]]] = {
    Hello: lambda m: (Type.HELLO, _encode_hello(m)),
    Error: lambda m: (Type.ERROR, _PAIR.pack(m.type, m.code) + m.data),
    EchoRequest: lambda m: (Type.ECHO_REQUEST, m.data),
    EchoReply: lambda m: (Type.ECHO_REPLY, m.data),
    FeaturesRequest: lambda m: (Type.FEATURES_REQUEST, b""),
    FeaturesReply: lambda m: (Type.FEATURES_REPLY, _encode_features(m)),
    PacketIn: lambda m: (Type.PACKET_IN, _encode_packet_in(m)),
    PacketOut: lambda m: (Type.PACKET_OUT, _encode_packet_out(m)),
    FlowMod: lambda m: (Type.FLOW_MOD, _encode_flow_mod(m)),
    FlowRemoved: lambda m: (Type.FLOW_REMOVED, _encode_flow_removed(m)),
    PortStatus: lambda m: (Type.PORT_STATUS, _encode_port_status(m)),
    BarrierRequest: lambda m: (Type.BARRIER_REQUEST, b""),
    BarrierReply: lambda m: (Type.BARRIER_REPLY, b""),
    PortDescRequest: lambda m: (Type.MULTIPART_REQUEST, _MULTIPART.pack(_PORT_DESC, 0)),
    PortDescReply: lambda m: (Type.MULTIPART_REPLY, _MULTIPART.pack(_PORT_DESC, _MORE * m.more) + b"".join(map(_encode_port, m.ports))),
    FlowStatsRequest: lambda m: (Type.MULTIPART_REQUEST, _encode_flow_request(m)),
    FlowStatsReply: lambda m: (Type.MULTIPART_REPLY, _encode_flow_stats(m)),
    Raw: lambda m: (m.type, m.body),
}

_DECODERS: dict[int, Callable[[bytes], Message]] = {
    Type.ERROR: _decode_error,
    Type.ECHO_REQUEST: EchoRequest,
    Type.ECHO_REPLY: EchoReply,
    Type.FEATURES_REQUEST: lambda body: FeaturesRequest(),
    Type.FEATURES_REPLY: _decode_features,
    Type.PACKET_IN: _decode_packet_in,
    Type.FLOW_REMOVED: _decode_flow_removed,
    Type.PORT_STATUS: _decode_port_status,
    Type.PACKET_OUT: _decode_packet_out,
    Type.FLOW_MOD: _decode_flow_mod,
    Type.MULTIPART_REQUEST: _decode_multipart_request,
    Type.MULTIPART_REPLY: _decode_multipart_reply,
    Type.BARRIER_REQUEST: lambda body: BarrierRequest(),
    Type.BARRIER_REPLY: lambda body: BarrierReply(),
}
