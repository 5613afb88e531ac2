"""What a switch tells of itself: the parts of multipart replies, which os-ken can parse but not build, from os-ken's layouts."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable

from os_ken.ofproto import ofproto_v1_3 as ofp

from topologies.emulation.openflow.errors import OpenFlowError
from topologies.emulation.openflow.groups import Group
from topologies.emulation.openflow.match import encode_match, parse_match
from topologies.emulation.openflow.meters import Meter
from topologies.emulation.openflow.pipeline import Pipeline, Port
from topologies.emulation.openflow.requests import fields
from topologies.emulation.openflow.tables import Entry, TableCounters, serialized

_BODY = ofp.OFP_HEADER_SIZE + 8
"""Where the body of a multipart request begins."""
_SPEED_KBPS = 10_000_000


class Statistics:
    """Answers multipart requests about one switch."""

    def __init__(self, name: str, dpid: int, pipeline: Pipeline) -> None:
        self._name = name
        self._dpid = dpid
        self._pipeline = pipeline
        self._answers: dict[int, Callable[[bytes, float], list[bytes]]] = {
            ofp.OFPMP_DESC: self._description,
            ofp.OFPMP_FLOW: self._flows,
            ofp.OFPMP_AGGREGATE: self._aggregate,
            ofp.OFPMP_TABLE: self._tables,
            ofp.OFPMP_PORT_STATS: self._port_counters,
            ofp.OFPMP_GROUP: self._group_counters,
            ofp.OFPMP_GROUP_DESC: self._groups,
            ofp.OFPMP_GROUP_FEATURES: self._group_features,
            ofp.OFPMP_METER: self._meter_counters,
            ofp.OFPMP_METER_CONFIG: self._meters,
            ofp.OFPMP_METER_FEATURES: self._meter_features,
            ofp.OFPMP_PORT_DESC: lambda data, now_s: [self.port(number) for number in sorted(pipeline.ports)],
        }

    def answer(self, data: bytes, now_s: float) -> tuple[int, list[bytes]]:
        """The kind of a multipart request, and the records of its reply. OpenFlowError when it cannot be answered."""
        kind, flags = fields(ofp.OFP_MULTIPART_REQUEST_PACK_STR, data)
        if kind not in self._answers or flags:
            raise OpenFlowError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_MULTIPART)
        return kind, self._answers[kind](data, now_s)

    def port(self, number: int) -> bytes:
        """The description of a port."""
        port = self._pipeline.ports[number]
        mac = struct.pack("!BBHH", 2, 0xBE, self._dpid & 0xFFFF, number & 0xFFFF)
        state = (0 if port.up else ofp.OFPPS_LINK_DOWN) | (ofp.OFPPS_LIVE if port.live else 0)
        name = f"{self._name}-eth{number}".encode()[:15]
        features = (ofp.OFPPF_10GB_FD, 0, ofp.OFPPF_10GB_FD, 0)
        return struct.pack(ofp.OFP_PORT_PACK_STR, number, mac, name, port.config, state, *features, _SPEED_KBPS, _SPEED_KBPS)

    def _description(self, data: bytes, now_s: float) -> list[bytes]:
        words = ("The Bellhop developers", "emulated switch", "os-ken", f"{self._dpid:016x}", self._name)
        return [struct.pack(ofp.OFP_DESC_PACK_STR, *(word.encode() for word in words))]

    def _selected(self, data: bytes) -> list[Entry]:
        table, out_port, out_group, cookie, mask = fields(ofp.OFP_FLOW_STATS_REQUEST_0_PACK_STR, data, _BODY)
        if table >= self._pipeline.tables.count and table != ofp.OFPTT_ALL:
            raise OpenFlowError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_TABLE_ID)
        match, _ = parse_match(data, _BODY + ofp.OFP_FLOW_STATS_REQUEST_0_SIZE)
        return self._pipeline.tables.select(table, match, cookie=cookie, cookie_mask=mask, out_port=out_port, out_group=out_group)

    def _flows(self, data: bytes, now_s: float) -> list[bytes]:
        return [_flow(entry, now_s) for entry in self._selected(data)]

    def _aggregate(self, data: bytes, now_s: float) -> list[bytes]:
        entries = self._selected(data)
        totals = sum(entry.packets for entry in entries), sum(entry.bytes for entry in entries)
        return [struct.pack(ofp.OFP_AGGREGATE_STATS_REPLY_PACK_STR, *totals, len(entries))]

    def _tables(self, data: bytes, now_s: float) -> list[bytes]:
        tables = self._pipeline.tables
        held = Counter(entry.table for entry in tables)
        found = []
        for number in range(tables.count):
            counters, active = tables.counters.get(number, TableCounters()), held[number]
            found.append(struct.pack(ofp.OFP_TABLE_STATS_PACK_STR, number, active, counters.lookups, counters.matched))
        return found

    def _port_counters(self, data: bytes, now_s: float) -> list[bytes]:
        (wanted,) = fields(ofp.OFP_PORT_STATS_REQUEST_PACK_STR, data, _BODY)
        ports = self._pipeline.ports
        if wanted not in (*ports, ofp.OFPP_ANY):
            raise OpenFlowError(ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_PORT)
        return [_port_counters(number, ports[number], now_s) for number in sorted(ports) if wanted in (number, ofp.OFPP_ANY)]

    def _group_counters(self, data: bytes, now_s: float) -> list[bytes]:
        (wanted,) = fields(ofp.OFP_GROUP_STATS_REQUEST_PACK_STR, data, _BODY)
        return [self._group(group, now_s) for group in self._pipeline.groups if wanted in (group.number, ofp.OFPG_ALL)]

    def _group(self, group: Group, now_s: float) -> bytes:
        references = sum(group.number in entry.groups for entry in self._pipeline.tables)
        references += sum(group.number in other.next_groups for other in self._pipeline.groups)
        buckets = b"".join(struct.pack(ofp.OFP_BUCKET_COUNTER_PACK_STR, *counts) for counts in group.bucket_counts)
        counts = group.packets, group.bytes
        length = ofp.OFP_GROUP_STATS_SIZE + len(buckets)
        return struct.pack(ofp.OFP_GROUP_STATS_PACK_STR, length, group.number, references, *counts, *split(now_s - group.added_s)) + buckets

    def _groups(self, data: bytes, now_s: float) -> list[bytes]:
        found = []
        for group in self._pipeline.groups:
            buckets = serialized(group.buckets)
            length = ofp.OFP_GROUP_DESC_STATS_SIZE + len(buckets)
            found.append(struct.pack(ofp.OFP_GROUP_DESC_STATS_PACK_STR, length, group.kind, group.number) + buckets)
        return found

    def _group_features(self, data: bytes, now_s: float) -> list[bytes]:
        kinds = sum(1 << kind for kind in (ofp.OFPGT_ALL, ofp.OFPGT_SELECT, ofp.OFPGT_INDIRECT, ofp.OFPGT_FF))
        capabilities = ofp.OFPGFC_SELECT_WEIGHT | ofp.OFPGFC_SELECT_LIVENESS | ofp.OFPGFC_CHAINING | ofp.OFPGFC_CHAINING_CHECKS
        actions = sum(1 << kind for kind in _ACTIONS)
        return [struct.pack(ofp.OFP_GROUP_FEATURES_PACK_STR, kinds, capabilities, *(ofp.OFPG_MAX,) * 4, *(actions,) * 4)]

    def _metered(self, data: bytes) -> list[Meter]:
        (wanted,) = fields(ofp.OFP_METER_MULTIPART_REQUEST_PACK_STR, data, _BODY)
        meters = self._pipeline.meters
        if wanted not in (*meters, ofp.OFPM_ALL):
            raise OpenFlowError(ofp.OFPET_METER_MOD_FAILED, ofp.OFPMMFC_UNKNOWN_METER)
        return [meters[number] for number in sorted(meters) if wanted in (number, ofp.OFPM_ALL)]

    def _meter_counters(self, data: bytes, now_s: float) -> list[bytes]:
        found = []
        for meter in self._metered(data):
            bands = b"".join(struct.pack(ofp.OFP_METER_BAND_STATS_PACK_STR, *counts) for counts in meter.band_counts)
            flows = sum(entry.meter == meter.number for entry in self._pipeline.tables)
            length = ofp.OFP_METER_STATS_SIZE + len(bands)
            counts = (flows, meter.packets, meter.bytes)
            found.append(struct.pack(ofp.OFP_METER_STATS_PACK_STR, meter.number, length, *counts, *split(now_s - meter.added_s)) + bands)
        return found

    def _meters(self, data: bytes, now_s: float) -> list[bytes]:
        found = []
        for meter in self._metered(data):
            bands = serialized(meter.bands)
            found.append(
                struct.pack(ofp.OFP_METER_CONFIG_PACK_STR, ofp.OFP_METER_CONFIG_SIZE + len(bands), meter.flags, meter.number) + bands
            )
        return found

    def _meter_features(self, data: bytes, now_s: float) -> list[bytes]:
        flags = ofp.OFPMF_KBPS | ofp.OFPMF_PKTPS | ofp.OFPMF_BURST | ofp.OFPMF_STATS
        return [struct.pack(ofp.OFP_METER_FEATURES_PACK_STR, ofp.OFPM_MAX, 1 << ofp.OFPMBT_DROP, flags, 255, 0)]


_ACTIONS = (
    ofp.OFPAT_OUTPUT,
    ofp.OFPAT_GROUP,
    ofp.OFPAT_SET_QUEUE,
    ofp.OFPAT_SET_NW_TTL,
    ofp.OFPAT_DEC_NW_TTL,
    ofp.OFPAT_PUSH_VLAN,
    ofp.OFPAT_POP_VLAN,
    ofp.OFPAT_SET_FIELD,
)


def split(duration_s: float) -> tuple[int, int]:
    """Whole seconds and the nanoseconds beyond."""
    return divmod(int(duration_s * 1e9), 10**9)


def _flow(entry: Entry, now_s: float) -> bytes:
    match_and_instructions = encode_match(entry.match) + serialized(entry.instructions)
    length = ofp.OFP_FLOW_STATS_0_SIZE + len(match_and_instructions)
    timeouts = entry.idle_timeout_s, entry.hard_timeout_s
    numbers = (length, entry.table, *split(now_s - entry.added_s), entry.priority, *timeouts, entry.flags, entry.cookie)
    head = struct.pack(ofp.OFP_FLOW_STATS_0_PACK_STR, *numbers, entry.packets, entry.bytes)
    return head + match_and_instructions


def _port_counters(number: int, port: Port, now_s: float) -> bytes:
    counts = (port.received[0], port.sent[0], port.received[1], port.sent[1])
    return struct.pack(ofp.OFP_PORT_STATS_PACK_STR, number, *counts, *(0,) * 8, *split(now_s))
