"""Controller-to-switch requests that os-ken can build but not parse; what they consist of is parsed with os-ken."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as messages

from topologies.emulation.openflow.actions import Holdings, check_groups, parse_actions, records
from topologies.emulation.openflow.errors import OpenFlowError
from topologies.emulation.openflow.groups import Bucket, Group
from topologies.emulation.openflow.meters import Meter, checked, failed


def fields(layout: str, data: bytes, offset: int = ofp.OFP_HEADER_SIZE) -> tuple[int, ...]:
    """The numbers of a fixed part. OpenFlowError (BAD_LEN) when the message is shorter."""
    if len(data) < offset + struct.calcsize(layout):
        raise OpenFlowError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_LEN)
    return struct.unpack_from(layout, data, offset)


def parse_group_mod(data: bytes, holdings: Holdings, now_s: float) -> tuple[int, Group]:
    """The command and the group."""
    command, kind, number = fields(ofp.OFP_GROUP_MOD_PACK_STR, data)

    def has_group(other: int) -> bool:
        return other == number or holdings.has_group(other)

    with_itself = Holdings(holdings.has_port, has_group, holdings.has_meter, holdings.tables)
    buckets = [_bucket(data, at, length, with_itself) for at, length in _buckets(data)]
    return command, Group(number, kind, buckets, now_s)


def _buckets(data: bytes) -> Iterator[tuple[int, int]]:
    offset = ofp.OFP_GROUP_MOD_SIZE
    while offset < len(data):
        length = int.from_bytes(data[offset : offset + 2])
        if length < ofp.OFP_BUCKET_SIZE or length % 8 or offset + length > len(data):
            raise OpenFlowError(ofp.OFPET_GROUP_MOD_FAILED, ofp.OFPGMFC_BAD_BUCKET)
        yield offset, length
        offset += length


def _bucket(data: bytes, at: int, length: int, holdings: Holdings) -> Bucket:
    check_groups(parse_actions(data, at + ofp.OFP_BUCKET_SIZE, at + length, holdings), holdings)
    bucket = messages.OFPBucket.parser(data, at)
    if bucket.watch_port != ofp.OFPP_ANY and not holdings.has_port(bucket.watch_port):
        raise OpenFlowError(ofp.OFPET_GROUP_MOD_FAILED, ofp.OFPGMFC_BAD_WATCH)
    return bucket


def parse_meter_mod(data: bytes, now_s: float) -> tuple[int, Meter]:
    """The command and the meter."""
    command, flags, number = fields(ofp.OFP_METER_MOD_PACK_STR, data)
    bands = []
    for kind, at, length in records(data, ofp.OFP_METER_MOD_SIZE, len(data), (ofp.OFPET_METER_MOD_FAILED, ofp.OFPMMFC_BAD_BAND)):
        if kind != ofp.OFPMBT_DROP or length != ofp.OFP_METER_BAND_DROP_SIZE:
            raise failed(ofp.OFPMMFC_BAD_BAND)
        bands.append(messages.OFPMeterBandHeader.parser(data, at))
    meter = Meter(number, flags, bands, now_s)
    return command, meter if command == ofp.OFPMC_DELETE else checked(meter)
