"""What a switch is to hold, as bytes: the messages that put items there and take them away, and flow rules known by their bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from struct import Struct, error

from controller.southbound.device import BELLHOP_COOKIE_PREFIX, METER_BURST, FlowRule, Group, Meter
from controller.southbound.openflow.actions import decode_instructions
from controller.southbound.openflow.codec import Framer, decode, encode, recommanded
from controller.southbound.openflow.groups import GroupCommand, GroupMod, MeterCommand, MeterMod
from controller.southbound.openflow.match import decode_match
from controller.southbound.openflow.messages import SEND_FLOW_REMOVED, FlowCommand, FlowMod, MalformedMessage

SwitchItem = FlowRule | Group | Meter

_COMPILED_KEPT = 16384
"""Messages that are remembered: what is desired is sent again after a restart of the switch, to be removed, to be checked."""
_WHOLE_COOKIE = 0xFFFFFFFFFFFFFFFF
_HEAD_BYTES = 8
_FLOW = b"\x00\x01"
"""The kind of a multipart reply that tells of flows."""
_READ_AT_ONCE = 100
_ENTRY = Struct("!HB9xH10xQQQ")
"""A flow entry's length, table, priority, cookie, packets and bytes."""


@lru_cache(_COMPILED_KEPT)
def compiled(item: SwitchItem) -> bytes:
    """The message that adds an item, under xid 0. Raises ValueError when the item could not be recognised as itself when it is read back."""
    message: FlowMod | GroupMod | MeterMod
    match item:
        case FlowRule():
            # The cookie in a deletion, made of this, spares a stranger's rule that has taken the place of ours.
            message = FlowMod(FlowCommand.ADD, item, cookie_mask=_WHOLE_COOKIE, flags=SEND_FLOW_REMOVED)
        case Group():
            message = GroupMod(GroupCommand.ADD, item)
        case Meter():
            message = MeterMod(MeterCommand.ADD, item)
    data = encode(message)
    try:
        sent = decode(Framer().feed(data)[0])
    except MalformedMessage as error:
        raise ValueError(str(error)) from error
    if isinstance(sent, MeterMod):
        sent = MeterMod(sent.command, without_idle_bursts(sent.meter))
    if sent != message:
        raise ValueError(_canonical(sent))
    return data


def without_idle_bursts(meter: Meter) -> Meter:
    """The meter with the bursts that its flags have it heed, and no others: where none was asked for, switches put one of their own."""
    if meter.flags & METER_BURST or not any(band.burst for band in meter.bands):
        return meter
    return replace(meter, bands=tuple(replace(band, burst=0) for band in meter.bands))


def _canonical(sent: object) -> str:
    match sent:
        case FlowMod(rule=rule):
            return f"not in canonical form; write match {rule.match}, actions {rule.actions}"
        case GroupMod(group=group):
            return f"not in canonical form; write buckets {group.buckets}"
        case MeterMod(meter=meter):
            return f"not in canonical form; write bands {meter.bands}, or METER_BURST to have bursts heeded"
    return "not in canonical form"


def modification(item: Group | Meter) -> bytes:
    """The message that makes this of the group or meter that has its number."""
    return encode(GroupMod(GroupCommand.MODIFY, item) if isinstance(item, Group) else MeterMod(MeterCommand.MODIFY, item))


def removal(item: SwitchItem) -> bytes:
    """The message that takes an item away. Raises ValueError as `compiled` does."""
    match item:
        case FlowRule():
            return recommanded(compiled(item), 0, FlowCommand.DELETE_STRICT)
        case Group():
            return encode(GroupMod(GroupCommand.DELETE, Group(item.number, item.type)))
        case Meter():
            return encode(MeterMod(MeterCommand.DELETE, Meter(item.number, item.flags)))


Traffic = dict[int, tuple[int, int]]
"""Packets and bytes that Bellhop's rules have met, by cookie."""


def read_flows(reply: bytes, known: Mapping[bytes, FlowRule], found: dict[bytes, FlowRule], traffic: Traffic) -> Iterator[list[FlowRule]]:
    """The rules in one part of a switch's flow table, the body of a MULTIPART_REPLY, some at a time; they go to `found`, too, under what they
    are on the wire. A rule that is `known` is not decoded again. Raises MalformedMessage.
    """
    if reply[:2] != _FLOW:
        raise MalformedMessage("no flow table, but another multipart reply")
    rules: list[FlowRule] = []
    offset, end = _HEAD_BYTES, len(reply)
    while offset < end:
        if end - offset < _ENTRY.size:
            raise MalformedMessage(f"a flow entry of {end - offset} bytes at byte {offset}")
        length, table, priority, cookie, packets, octets = _ENTRY.unpack_from(reply, offset)
        after = offset + length
        if length < _ENTRY.size or after > end:
            raise MalformedMessage(f"a flow entry of length {length} at byte {offset}")
        wire = (
            reply[offset + 2 : offset + 4]
            + reply[offset + 12 : offset + 14]
            + reply[offset + 24 : offset + 32]
            + reply[offset + 48 : after]
        )
        rule = known.get(wire)
        if rule is None:
            rule = _decoded(reply, offset, after, priority, cookie, table)
        found[wire] = rule
        rules.append(rule)
        if cookie >> 48 == BELLHOP_COOKIE_PREFIX:
            before = traffic.get(cookie)
            traffic[cookie] = (packets, octets) if before is None else (before[0] + packets, before[1] + octets)
        if len(rules) >= _READ_AT_ONCE:
            yield rules
            rules = []
        offset = after
    yield rules


def _decoded(reply: bytes, offset: int, end: int, priority: int, cookie: int, table: int) -> FlowRule:
    try:
        match, start = decode_match(reply, offset + _ENTRY.size)
        if start > end:
            raise MalformedMessage(f"a flow entry at byte {offset} that ends in its match")
        return FlowRule(priority, match, decode_instructions(reply[start:end]), cookie, table)
    except (ValueError, error) as why:
        raise MalformedMessage(f"a flow entry at byte {offset}: {why}") from why
