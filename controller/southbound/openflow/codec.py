"""OpenFlow 1.3 bytes to messages and back. No sockets here: bytes in, values out."""

from __future__ import annotations

import struct
from collections.abc import Callable
from struct import Struct
from typing import Any, NamedTuple

from controller.southbound.device import FlowRule
from controller.southbound.openflow.actions import decode_actions, decode_instructions, encode_actions, encode_instructions
from controller.southbound.openflow.group_codec import decode_group_mod, decode_meter_mod, encode_group_mod, encode_meter_mod
from controller.southbound.openflow.groups import GroupMod, MeterMod
from controller.southbound.openflow.match import decode_match, encode_match
from controller.southbound.openflow.messages import (
    EXPERIMENTER_ERROR,
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
    GetConfigReply,
    GetConfigRequest,
    Hello,
    MalformedMessage,
    Message,
    PacketIn,
    PacketOut,
    PortStatus,
    Raw,
    RoleReply,
    RoleRequest,
    SetConfig,
    Type,
)
from controller.southbound.openflow.multipart import (
    REPLIES,
    REQUESTS,
    decode_port,
    decode_reply,
    decode_request,
    encode_port,
    encode_reply,
    encode_request,
    split_seconds,
)

_HEADER = Struct("!BBHI")
_PAIR = Struct("!HH")
_WORD = Struct("!I")
_FEATURES = Struct("!QIBB2xII")
_CONFIG = Struct("!HH")
_ROLE = Struct("!I4xQ")
_PACKET_IN = Struct("!IHBBQ")
_PACKET_IN_FROM_PORT = Struct("!IHBBQ8xI6x")
_ONLY_IN_PORT = bytes.fromhex("0001000c80000004")
"""How a match on nothing but in_port begins: what most PACKET_INs carry, so it has a short way."""
_PACKET_OUT = Struct("!IIH6x")
_FLOW_MOD = Struct("!QQBBHHHIIIH2x")
_COMMAND_AT = 25
"""Where an encoded FLOW_MOD has its command."""
_BUFFER_AT = 32
_FLOW_REMOVED = Struct("!QHBBIIHHQQ")
_PORT_STATUS = Struct("!B7x")
_HIGHEST_VERSION = 255


class Frame(NamedTuple):
    """One message as it came, cut out of the stream but not decoded."""

    version: int
    type: int
    xid: int
    body: bytes


class Framer:
    """Cuts a byte stream into messages, however its pieces arrive."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The messages that `data` completes. Raises MalformedMessage when the stream makes no sense; it cannot go on after that."""
        if self._pending:
            data = self._pending + data  # of one message at most, 64 KiB
        frames: list[Frame] = []
        offset, end = 0, len(data)
        while end - offset >= 8:
            version, kind, length, xid = _HEADER.unpack_from(data, offset)
            # A HELLO or the ERROR that refuses one carries the sender's own version.
            if length < 8 or (version != VERSION and (kind > Type.ERROR or not version)):
                raise MalformedMessage(f"no OpenFlow 1.3 header: version {version}, type {kind}, length {length}")
            after = offset + length
            if after > end:
                break
            frames.append(Frame(version, kind, xid, data[offset + 8 : after]))
            offset = after
        self._pending = data[offset:]
        return frames


def encode(message: Message, xid: int = 0) -> bytes:
    """The message with its header. Raises ValueError, naming the field, when a value does not fit in it."""
    try:
        kind, encoder = _ENCODERS[type(message)]
        body = encoder(message)
        if isinstance(message, Raw):
            kind = message.type
        return _HEADER.pack(message.version if isinstance(message, Hello) else VERSION, kind, 8 + len(body), xid) + body
    except struct.error as error:
        raise ValueError(f"{type(message).__name__} does not fit an OpenFlow message: {error}") from None


def readdressed(message: bytes, xid: int) -> bytes:
    """An encoded message under another xid: a message that is sent again and again is encoded once."""
    return message[:4] + _WORD.pack(xid) + message[8:]


def recommanded(flow_mod: bytes, xid: int, command: FlowCommand) -> bytes:
    """An encoded FLOW_MOD under another xid and command: what a switch heeds of a deletion is in the addition too.

    Encode the addition with the `cookie_mask` that a deletion is to compare; an ADD does not look at it.
    """
    return b"".join((flow_mod[:4], _WORD.pack(xid), flow_mod[8:_COMMAND_AT], bytes((command,)), flow_mod[_COMMAND_AT + 1 :]))


def rebuffered(flow_mod: bytes, buffer_id: int) -> bytes:
    """An encoded FLOW_MOD for another packet that waits in the switch: the rule for a pair of hosts is encoded once."""
    return flow_mod[:_BUFFER_AT] + _WORD.pack(buffer_id) + flow_mod[_BUFFER_AT + 4 :]


def decode(frame: Frame) -> Message:
    """The message in a frame; `Raw` for a type that is not modelled. Raises MalformedMessage when its body makes no sense."""
    decoder = _DECODERS.get(frame.type)
    try:
        if decoder:
            return decoder(frame.body)
        return Hello(frame.version, _decode_bitmap(frame.body)) if frame.type == Type.HELLO else Raw(frame.type, frame.body)
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
            words = struct.unpack_from(f"!{(length - 4) // 4}I", body, offset + 4)[: _HIGHEST_VERSION // 32 + 1]
            return tuple(32 * index + bit for index, word in enumerate(words) for bit in range(32) if word >> bit & 1)
        offset += length + -length % 8
    return ()


def _encode_error(message: Error) -> bytes:
    experimenter = _WORD.pack(message.experimenter) if message.type == EXPERIMENTER_ERROR else b""
    return _PAIR.pack(message.type, message.code) + experimenter + message.data


def _decode_error(body: bytes) -> Error:
    kind, code = _PAIR.unpack_from(body)
    if kind == EXPERIMENTER_ERROR:
        return Error(kind, code, body[8:], *_WORD.unpack_from(body, 4))
    return Error(kind, code, body[4:])


def _encode_features(message: FeaturesReply) -> bytes:
    return _FEATURES.pack(message.datapath_id, message.buffers, message.tables, message.auxiliary_id, message.capabilities, 0)


def _decode_features(body: bytes) -> FeaturesReply:
    return FeaturesReply(*_FEATURES.unpack_from(body)[:5])


def _encode_packet_in(message: PacketIn) -> bytes:
    head = _PACKET_IN.pack(message.buffer_id, message.total_length, message.reason, message.table, message.cookie)
    return head + encode_match(message.match) + bytes(2) + message.data


def _decode_packet_in(body: bytes) -> PacketIn:
    if body[16:24] == _ONLY_IN_PORT:
        buffer_id, total_length, reason, table, cookie, port = _PACKET_IN_FROM_PORT.unpack_from(body)
        return PacketIn(buffer_id, total_length, reason, table, cookie, (("in_port", port),), body[34:])
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
    rule = FlowRule(priority, match, decode_instructions(body[offset:]), cookie, table)
    return FlowMod(FlowCommand(command), rule, mask, idle, hard, buffer_id, out_port, out_group, flags)


def _encode_flow_removed(message: FlowRemoved) -> bytes:
    head = _FLOW_REMOVED.pack(
        message.cookie,
        message.priority,
        message.reason,
        message.table,
        *split_seconds(message.duration_s),
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


def _encode_port_status(message: PortStatus) -> bytes:
    return _PORT_STATUS.pack(message.reason) + encode_port(message.port)


def _decode_port_status(body: bytes) -> PortStatus:
    (reason,) = _PORT_STATUS.unpack_from(body)
    return PortStatus(reason, decode_port(body, _PORT_STATUS.size))


def _nothing(message: Message) -> bytes:
    return b""


_ENCODERS: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    PacketOut: (Type.PACKET_OUT, _encode_packet_out),
    FlowMod: (Type.FLOW_MOD, _encode_flow_mod),
    Hello: (Type.HELLO, _encode_hello),
    Error: (Type.ERROR, _encode_error),
    EchoRequest: (Type.ECHO_REQUEST, lambda m: m.data),
    EchoReply: (Type.ECHO_REPLY, lambda m: m.data),
    FeaturesRequest: (Type.FEATURES_REQUEST, _nothing),
    FeaturesReply: (Type.FEATURES_REPLY, _encode_features),
    GetConfigRequest: (Type.GET_CONFIG_REQUEST, _nothing),
    GetConfigReply: (Type.GET_CONFIG_REPLY, lambda m: _CONFIG.pack(m.flags, m.miss_send_bytes)),
    SetConfig: (Type.SET_CONFIG, lambda m: _CONFIG.pack(m.flags, m.miss_send_bytes)),
    PacketIn: (Type.PACKET_IN, _encode_packet_in),
    FlowRemoved: (Type.FLOW_REMOVED, _encode_flow_removed),
    PortStatus: (Type.PORT_STATUS, _encode_port_status),
    GroupMod: (Type.GROUP_MOD, encode_group_mod),
    MeterMod: (Type.METER_MOD, encode_meter_mod),
    BarrierRequest: (Type.BARRIER_REQUEST, _nothing),
    BarrierReply: (Type.BARRIER_REPLY, _nothing),
    RoleRequest: (Type.ROLE_REQUEST, lambda m: _ROLE.pack(m.role, m.generation_id)),
    RoleReply: (Type.ROLE_REPLY, lambda m: _ROLE.pack(m.role, m.generation_id)),
    **dict.fromkeys(REQUESTS, (Type.MULTIPART_REQUEST, encode_request)),
    **dict.fromkeys(REPLIES, (Type.MULTIPART_REPLY, encode_reply)),
    Raw: (0, lambda m: m.body),
}

_DECODERS: dict[int, Callable[[bytes], Message]] = {
    Type.PACKET_IN: _decode_packet_in,
    Type.ERROR: _decode_error,
    Type.ECHO_REQUEST: EchoRequest,
    Type.ECHO_REPLY: EchoReply,
    Type.FEATURES_REQUEST: lambda body: FeaturesRequest(),
    Type.FEATURES_REPLY: _decode_features,
    Type.GET_CONFIG_REQUEST: lambda body: GetConfigRequest(),
    Type.GET_CONFIG_REPLY: lambda body: GetConfigReply(*_CONFIG.unpack_from(body)),
    Type.SET_CONFIG: lambda body: SetConfig(*_CONFIG.unpack_from(body)),
    Type.FLOW_REMOVED: _decode_flow_removed,
    Type.PORT_STATUS: _decode_port_status,
    Type.PACKET_OUT: _decode_packet_out,
    Type.FLOW_MOD: _decode_flow_mod,
    Type.GROUP_MOD: decode_group_mod,
    Type.METER_MOD: decode_meter_mod,
    Type.MULTIPART_REQUEST: decode_request,
    Type.MULTIPART_REPLY: decode_reply,
    Type.BARRIER_REQUEST: lambda body: BarrierRequest(),
    Type.BARRIER_REPLY: lambda body: BarrierReply(),
    Type.ROLE_REQUEST: lambda body: RoleRequest(*_ROLE.unpack_from(body)),
    Type.ROLE_REPLY: lambda body: RoleReply(*_ROLE.unpack_from(body)),
}
