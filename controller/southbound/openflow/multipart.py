"""The bodies of MULTIPART_REQUEST and MULTIPART_REPLY (OpenFlow 1.3.5, 7.3.5). A kind that is not modelled is `Raw`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

from controller.southbound.device import FlowRule, Group, Meter
from controller.southbound.openflow.actions import decode_instructions, encode_instructions
from controller.southbound.openflow.group_codec import decode_bands, decode_buckets, encode_bands, encode_buckets
from controller.southbound.openflow.groups import (
    GroupDescReply,
    GroupDescRequest,
    GroupStats,
    GroupStatsReply,
    GroupStatsRequest,
    MeterConfigReply,
    MeterConfigRequest,
    MeterStats,
    MeterStatsReply,
    MeterStatsRequest,
)
from controller.southbound.openflow.match import decode_match, encode_match, pack_mac
from controller.southbound.openflow.messages import (
    FlowStats,
    FlowStatsReply,
    FlowStatsRequest,
    MalformedMessage,
    Message,
    Port,
    PortDescReply,
    PortDescRequest,
    Raw,
    Type,
)
from controller.southbound.openflow.statistics import (
    AggregateStatsReply,
    AggregateStatsRequest,
    DescReply,
    DescRequest,
    PortStats,
    PortStatsReply,
    PortStatsRequest,
    TableStats,
    TableStatsReply,
    TableStatsRequest,
)

_HEAD = Struct("!HH4x")
_DESC = Struct("!256s256s256s32s256s")
_FLOW_REQUEST = Struct("!B3xII4xQQ")
_FLOW_STATS = Struct("!HBxIIHHHH4xQQQ")
_AGGREGATE = Struct("!QQI4x")
_TABLE = Struct("!B3xIQQ")
_SELECTED = Struct("!I4x")
"""The port, group or meter that a request is about."""
_PORT_STATS = Struct("!I4x12QII")
_PORT = Struct("!I4x6s2x16sIIIIIIII")
_GROUP_STATS = Struct("!H2xII4xQQII")
_GROUP_DESC = Struct("!HBxI")
_METER_STATS = Struct("!IH6xIQQII")
_METER_CONFIG = Struct("!HHI")
_COUNTERS = Struct("!QQ")

_MORE = 1


def pack_text(text: str, size: int) -> bytes:
    """Raises ValueError when the text is longer than the `size` bytes of its place."""
    data = text.encode()
    if len(data) > size:
        raise ValueError(f"{text!r} is longer than {size} bytes")
    return data


def read_text(data: bytes) -> str:
    """A text that ends at its first zero byte."""
    return data.partition(b"\0")[0].decode(errors="replace")


def split_seconds(duration_s: float) -> tuple[int, int]:
    nanoseconds = round(duration_s * 1e9)
    return nanoseconds // 10**9, nanoseconds % 10**9


def _entries(what: str, head: Struct, body: bytes, length_at: int = 0) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Of each entry of a reply where what follows its head begins and ends, and the head, whose field `length_at` is the entry's length."""
    offset = _HEAD.size
    while offset < len(body):
        fields = head.unpack_from(body, offset)
        length = fields[length_at]
        if length < head.size or offset + length > len(body):
            raise MalformedMessage(f"{what} of length {length} at byte {offset}")
        yield offset + head.size, offset + length, fields
        offset += length


def _encode_desc(reply: DescReply) -> bytes:
    return _DESC.pack(
        pack_text(reply.manufacturer, 256),
        pack_text(reply.hardware, 256),
        pack_text(reply.software, 256),
        pack_text(reply.serial_number, 32),
        pack_text(reply.datapath, 256),
    )


def _decode_desc(body: bytes, more: bool) -> DescReply:
    manufacturer, hardware, software, serial_number, datapath = map(read_text, _DESC.unpack_from(body, _HEAD.size))
    return DescReply(manufacturer, hardware, software, serial_number, datapath, more)


def _encode_flow_request(request: FlowStatsRequest | AggregateStatsRequest) -> bytes:
    head = _FLOW_REQUEST.pack(request.table, request.out_port, request.out_group, request.cookie, request.cookie_mask)
    return head + encode_match(request.match)


def _flow_request(body: bytes) -> tuple[Any, ...]:
    match, _ = decode_match(body, _HEAD.size + _FLOW_REQUEST.size)
    return *_FLOW_REQUEST.unpack_from(body, _HEAD.size), match


def _encode_flows(reply: FlowStatsReply) -> bytes:
    entries = []
    for flow in reply.flows:
        rule = flow.rule
        tail = encode_match(rule.match) + encode_instructions(rule.actions)
        head = _FLOW_STATS.pack(
            _FLOW_STATS.size + len(tail),
            rule.table,
            *split_seconds(flow.duration_s),
            rule.priority,
            flow.idle_timeout_s,
            flow.hard_timeout_s,
            flow.flags,
            rule.cookie,
            flow.packets,
            flow.bytes,
        )
        entries.append(head + tail)
    return b"".join(entries)


def _decode_flows(body: bytes, more: bool) -> FlowStatsReply:
    flows = []
    for after, end, head in _entries("a flow entry", _FLOW_STATS, body):
        _, table, seconds, nanoseconds, priority, idle, hard, flags, cookie, packets, octets = head
        match, start = decode_match(body, after)
        if start > end:
            raise MalformedMessage(f"a flow entry at byte {after - _FLOW_STATS.size} that ends in its match")
        rule = FlowRule(priority, match, decode_instructions(body[start:end]), cookie, table)
        flows.append(FlowStats(rule, seconds + nanoseconds / 1e9, idle, hard, flags, packets, octets))
    return FlowStatsReply(tuple(flows), more)


def _decode_aggregate(body: bytes, more: bool) -> AggregateStatsReply:
    packets, octets, flows = _AGGREGATE.unpack_from(body, _HEAD.size)
    return AggregateStatsReply(packets, octets, flows, more)


def _encode_tables(reply: TableStatsReply) -> bytes:
    return b"".join(_TABLE.pack(table.table, table.active, table.lookups, table.matched) for table in reply.tables)


def _decode_tables(body: bytes, more: bool) -> TableStatsReply:
    return TableStatsReply(tuple(TableStats(*entry) for entry in _TABLE.iter_unpack(body[_HEAD.size :])), more)


def _encode_port_stats(reply: PortStatsReply) -> bytes:
    return b"".join(
        _PORT_STATS.pack(
            port.port,
            port.received_packets,
            port.sent_packets,
            port.received_bytes,
            port.sent_bytes,
            port.received_dropped,
            port.sent_dropped,
            port.received_errors,
            port.sent_errors,
            port.frame_errors,
            port.overruns,
            port.crc_errors,
            port.collisions,
            *split_seconds(port.duration_s),
        )
        for port in reply.ports
    )


def _decode_port_stats(body: bytes, more: bool) -> PortStatsReply:
    entries = _PORT_STATS.iter_unpack(body[_HEAD.size :])
    return PortStatsReply(tuple(PortStats(*(*entry[:-2], entry[-2] + entry[-1] / 1e9)) for entry in entries), more)


def encode_port(port: Port) -> bytes:
    return _PORT.pack(
        port.number,
        pack_mac(port.mac),
        pack_text(port.name, 16),
        port.config,
        port.state,
        port.current,
        port.advertised,
        port.supported,
        port.peer,
        port.current_speed_kbps,
        port.maximum_speed_kbps,
    )


def decode_port(body: bytes, offset: int) -> Port:
    number, mac, name, *rest = _PORT.unpack_from(body, offset)
    return Port(number, mac.hex(":"), read_text(name), *rest)


def _decode_port_desc(body: bytes, more: bool) -> PortDescReply:
    return PortDescReply(tuple(decode_port(body, offset) for offset in range(_HEAD.size, len(body), _PORT.size)), more)


def _encode_counters(counters: tuple[tuple[int, int], ...]) -> bytes:
    return b"".join(_COUNTERS.pack(packets, octets) for packets, octets in counters)


def _decode_counters(body: bytes, start: int, end: int) -> tuple[tuple[int, int], ...]:
    return tuple((packets, octets) for packets, octets in _COUNTERS.iter_unpack(body[start:end]))


def _encode_group_stats(reply: GroupStatsReply) -> bytes:
    entries = []
    for group in reply.groups:
        counters = _encode_counters(group.buckets)
        duration = split_seconds(group.duration_s)
        length = _GROUP_STATS.size + len(counters)
        entries.append(_GROUP_STATS.pack(length, group.group, group.references, group.packets, group.bytes, *duration) + counters)
    return b"".join(entries)


def _decode_group_stats(body: bytes, more: bool) -> GroupStatsReply:
    groups = []
    for start, end, (_, number, references, packets, octets, seconds, nanoseconds) in _entries("group statistics", _GROUP_STATS, body):
        buckets = _decode_counters(body, start, end)
        groups.append(GroupStats(number, references, packets, octets, seconds + nanoseconds / 1e9, buckets))
    return GroupStatsReply(tuple(groups), more)


def _encode_group_desc(reply: GroupDescReply) -> bytes:
    entries = []
    for group in reply.groups:
        buckets = encode_buckets(group.buckets)
        entries.append(_GROUP_DESC.pack(_GROUP_DESC.size + len(buckets), group.type, group.number) + buckets)
    return b"".join(entries)


def _decode_group_desc(body: bytes, more: bool) -> GroupDescReply:
    entries = _entries("a group", _GROUP_DESC, body)
    return GroupDescReply(tuple(Group(number, kind, decode_buckets(body, start, end)) for start, end, (_, kind, number) in entries), more)


def _encode_meter_stats(reply: MeterStatsReply) -> bytes:
    entries = []
    for meter in reply.meters:
        counters = _encode_counters(meter.bands)
        duration = split_seconds(meter.duration_s)
        length = _METER_STATS.size + len(counters)
        entries.append(_METER_STATS.pack(meter.meter, length, meter.flows, meter.packets, meter.bytes, *duration) + counters)
    return b"".join(entries)


def _decode_meter_stats(body: bytes, more: bool) -> MeterStatsReply:
    meters = []
    for start, end, (number, _, flows, packets, octets, seconds, nanoseconds) in _entries("meter statistics", _METER_STATS, body, 1):
        bands = _decode_counters(body, start, end)
        meters.append(MeterStats(number, flows, packets, octets, seconds + nanoseconds / 1e9, bands))
    return MeterStatsReply(tuple(meters), more)


def _encode_meter_config(reply: MeterConfigReply) -> bytes:
    entries = []
    for meter in reply.meters:
        bands = encode_bands(meter.bands)
        entries.append(_METER_CONFIG.pack(_METER_CONFIG.size + len(bands), meter.flags, meter.number) + bands)
    return b"".join(entries)


def _decode_meter_config(body: bytes, more: bool) -> MeterConfigReply:
    entries = _entries("a meter", _METER_CONFIG, body)
    return MeterConfigReply(tuple(Meter(number, flags, decode_bands(body, start, end)) for start, end, (_, flags, number) in entries), more)


def _nothing(request: object) -> bytes:
    return b""


REQUESTS: dict[type, tuple[int, Callable[[Any], bytes], Callable[[bytes], Message]]] = {
    DescRequest: (0, _nothing, lambda body: DescRequest()),
    FlowStatsRequest: (1, _encode_flow_request, lambda body: FlowStatsRequest(*_flow_request(body))),
    AggregateStatsRequest: (2, _encode_flow_request, lambda body: AggregateStatsRequest(*_flow_request(body))),
    TableStatsRequest: (3, _nothing, lambda body: TableStatsRequest()),
    PortStatsRequest: (4, lambda m: _SELECTED.pack(m.port), lambda body: PortStatsRequest(*_SELECTED.unpack_from(body, 8))),
    GroupStatsRequest: (6, lambda m: _SELECTED.pack(m.group), lambda body: GroupStatsRequest(*_SELECTED.unpack_from(body, 8))),
    GroupDescRequest: (7, _nothing, lambda body: GroupDescRequest()),
    MeterStatsRequest: (9, lambda m: _SELECTED.pack(m.meter), lambda body: MeterStatsRequest(*_SELECTED.unpack_from(body, 8))),
    MeterConfigRequest: (10, lambda m: _SELECTED.pack(m.meter), lambda body: MeterConfigRequest(*_SELECTED.unpack_from(body, 8))),
    PortDescRequest: (13, _nothing, lambda body: PortDescRequest()),
}
"""By class of the request: the number of its kind, what follows the multipart header, and the request in a body."""

REPLIES: dict[type, tuple[int, Callable[[Any], bytes], Callable[[bytes, bool], Message]]] = {
    DescReply: (0, _encode_desc, _decode_desc),
    FlowStatsReply: (1, _encode_flows, _decode_flows),
    AggregateStatsReply: (2, lambda m: _AGGREGATE.pack(m.packets, m.bytes, m.flows), _decode_aggregate),
    TableStatsReply: (3, _encode_tables, _decode_tables),
    PortStatsReply: (4, _encode_port_stats, _decode_port_stats),
    GroupStatsReply: (6, _encode_group_stats, _decode_group_stats),
    GroupDescReply: (7, _encode_group_desc, _decode_group_desc),
    MeterStatsReply: (9, _encode_meter_stats, _decode_meter_stats),
    MeterConfigReply: (10, _encode_meter_config, _decode_meter_config),
    PortDescReply: (13, lambda m: b"".join(map(encode_port, m.ports)), _decode_port_desc),
}
"""By class of the reply, as REQUESTS."""

_REQUEST_DECODERS = {kind: decode for kind, _, decode in REQUESTS.values()}
_REPLY_DECODERS = {kind: decode for kind, _, decode in REPLIES.values()}


def encode_request(request: Any) -> bytes:
    kind, encode_rest, _ = REQUESTS[type(request)]
    return _HEAD.pack(kind, 0) + encode_rest(request)


def encode_reply(reply: Any) -> bytes:
    kind, encode_rest, _ = REPLIES[type(reply)]
    return _HEAD.pack(kind, _MORE * reply.more) + encode_rest(reply)


def decode_request(body: bytes) -> Message:
    kind, _ = _HEAD.unpack_from(body)
    decoder = _REQUEST_DECODERS.get(kind)
    return decoder(body) if decoder else Raw(Type.MULTIPART_REQUEST, body)


def decode_reply(body: bytes) -> Message:
    kind, flags = _HEAD.unpack_from(body)
    decoder = _REPLY_DECODERS.get(kind)
    return decoder(body, bool(flags & _MORE)) if decoder else Raw(Type.MULTIPART_REPLY, body)
