"""The bodies of GROUP_MOD and METER_MOD, and what the description multiparts share with them (OpenFlow 1.3.5, 7.3.4.2 and 7.3.4.4)."""

from __future__ import annotations

from struct import Struct

from controller.southbound.device import Band, BandType, Bucket, Group, Meter
from controller.southbound.openflow.actions import decode_actions, encode_actions
from controller.southbound.openflow.groups import GroupCommand, GroupMod, MeterCommand, MeterMod
from controller.southbound.openflow.messages import MalformedMessage

_GROUP_MOD = Struct("!HBxI")
_BUCKET = Struct("!HHII4x")
_METER_MOD = Struct("!HHI")
_BAND = Struct("!HHII")
_PRECEDENCE = Struct("!B3x")
_BAND_BYTES = 16
"""Of each band that the specification describes."""


def encode_group_mod(message: GroupMod) -> bytes:
    group = message.group
    return _GROUP_MOD.pack(message.command, group.type, group.number) + encode_buckets(group.buckets)


def decode_group_mod(body: bytes) -> GroupMod:
    command, kind, number = _GROUP_MOD.unpack_from(body)
    return GroupMod(GroupCommand(command), Group(number, kind, decode_buckets(body, _GROUP_MOD.size, len(body))))


def encode_buckets(buckets: tuple[Bucket, ...]) -> bytes:
    encoded = []
    for bucket in buckets:
        actions = encode_actions(bucket.actions)
        encoded.append(_BUCKET.pack(_BUCKET.size + len(actions), bucket.weight, bucket.watch_port, bucket.watch_group) + actions)
    return b"".join(encoded)


def decode_buckets(data: bytes, offset: int, end: int) -> tuple[Bucket, ...]:
    buckets = []
    while offset < end:
        length, weight, watch_port, watch_group = _BUCKET.unpack_from(data, offset)
        after = offset + length
        if length < _BUCKET.size or after > end:
            raise MalformedMessage(f"a bucket of length {length} at byte {offset}")
        buckets.append(Bucket(tuple(decode_actions(data, offset + _BUCKET.size, after)), weight, watch_port, watch_group))
        offset = after
    return tuple(buckets)


def encode_meter_mod(message: MeterMod) -> bytes:
    meter = message.meter
    return _METER_MOD.pack(message.command, meter.flags, meter.number) + encode_bands(meter.bands)


def decode_meter_mod(body: bytes) -> MeterMod:
    command, flags, number = _METER_MOD.unpack_from(body)
    return MeterMod(MeterCommand(command), Meter(number, flags, decode_bands(body, _METER_MOD.size, len(body))))


def encode_bands(bands: tuple[Band, ...]) -> bytes:
    encoded = []
    for band in bands:
        if band.type in (BandType.DROP, BandType.DSCP_REMARK):
            rest = _PRECEDENCE.pack(band.precedence_levels)
        else:
            rest = bytes.fromhex(band.rest)
        encoded.append(_BAND.pack(band.type, _BAND.size + len(rest), band.rate, band.burst) + rest)
    return b"".join(encoded)


def decode_bands(data: bytes, offset: int, end: int) -> tuple[Band, ...]:
    bands = []
    while offset < end:
        kind, length, rate, burst = _BAND.unpack_from(data, offset)
        start, after = offset + _BAND.size, offset + length
        if length < _BAND.size or after > end:
            raise MalformedMessage(f"a meter band of length {length} at byte {offset}")
        if kind == BandType.DSCP_REMARK and length == _BAND_BYTES:
            bands.append(Band(rate, burst, kind, data[start]))
        elif kind == BandType.DROP and length == _BAND_BYTES:
            bands.append(Band(rate, burst))
        elif kind in (BandType.DROP, BandType.DSCP_REMARK):
            raise MalformedMessage(f"a meter band of type {kind} and length {length} at byte {offset}")
        else:
            bands.append(Band(rate, burst, kind, 0, data[start:after].hex()))
        offset = after
    return tuple(bands)
