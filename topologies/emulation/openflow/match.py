"""Matches of OpenFlow 1.3: decoded with os-ken, checked as the standard asks, held as values and masks."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as messages

from topologies.emulation.openflow.errors import OpenFlowError
from topologies.emulation.openflow.headers import TYPE_ARP, TYPE_IPV4, TYPE_IPV6, VLAN_PRESENT

Bits = tuple[int, int]
"""A value and its mask."""
Match = dict[str, Bits]
"""By OXM field name; the value has no bits outside the mask."""

_ND_SOLICITATION, _ND_ADVERTISEMENT = 135, 136
_NEEDED: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {
    "vlan_pcp": (("vlan_vid", ()),),
    **dict.fromkeys(("ip_dscp", "ip_ecn", "ip_proto"), (("eth_type", (TYPE_IPV4, TYPE_IPV6)),)),
    **dict.fromkeys(("ipv4_src", "ipv4_dst"), (("eth_type", (TYPE_IPV4,)),)),
    **dict.fromkeys(("ipv6_src", "ipv6_dst", "ipv6_flabel"), (("eth_type", (TYPE_IPV6,)),)),
    **dict.fromkeys(("arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha"), (("eth_type", (TYPE_ARP,)),)),
    **dict.fromkeys(("tcp_src", "tcp_dst"), (("ip_proto", (6,)),)),
    **dict.fromkeys(("udp_src", "udp_dst"), (("ip_proto", (17,)),)),
    **dict.fromkeys(("sctp_src", "sctp_dst"), (("ip_proto", (132,)),)),
    **dict.fromkeys(("icmpv4_type", "icmpv4_code"), (("eth_type", (TYPE_IPV4,)), ("ip_proto", (1,)))),
    **dict.fromkeys(("icmpv6_type", "icmpv6_code"), (("eth_type", (TYPE_IPV6,)), ("ip_proto", (58,)))),
    "ipv6_nd_target": (("icmpv6_type", (_ND_SOLICITATION, _ND_ADVERTISEMENT)),),
    "ipv6_nd_sll": (("icmpv6_type", (_ND_SOLICITATION,)),),
    "ipv6_nd_tll": (("icmpv6_type", (_ND_ADVERTISEMENT,)),),
}
"""What else must be matched for a field to mean anything: the field, and its values (any, when none is named)."""

_WIDTHS = {"vlan_vid": 13, "vlan_pcp": 3, "ip_dscp": 6, "ip_ecn": 2, "ipv6_flabel": 20}
"""Bits of the fields that are narrower than their bytes."""
_MASKABLE = frozenset(
    {"metadata", "eth_dst", "eth_src", "vlan_vid", "ipv4_src", "ipv4_dst", "arp_spa", "arp_tpa", "arp_sha", "arp_tha"}
    | {"ipv6_src", "ipv6_dst", "ipv6_flabel", "tunnel_id"}
)
FIELDS = frozenset({"in_port", "metadata", "tunnel_id", "eth_dst", "eth_src", "eth_type", "vlan_vid", *_NEEDED})


def parse_field(data: bytes, offset: int, end: int, *, error: int, kinds: tuple[int, int, int]) -> tuple[str, int, int | None, int]:
    """One OXM field: name, value, mask (None without one) and where the next begins.

    Raises OpenFlowError of type `error`, with one of `kinds` when the field is unknown, has a wrong length, or a value out of range.
    """
    unknown, bad_length, bad_value = kinds
    if end - offset < 4:
        raise OpenFlowError(error, bad_length)
    oxm_class, number, length = struct.unpack_from("!HBB", data, offset)
    after = offset + 4 + length
    masked = number & 1
    name = ofp.oxm_to_user_header(oxm_class << 7 | number >> 1)
    if name not in FIELDS:
        raise OpenFlowError(error, unknown)
    size = ofp.oxm_get_field_info_by_name(name)[1].size
    if after > end or length != size * (1 + masked):
        raise OpenFlowError(error, bad_length)
    _, packed, packed_mask, _ = ofp.oxm_parse(data, offset)
    value, width = int.from_bytes(packed), _WIDTHS.get(name, 8 * size)
    if value >> width:
        raise OpenFlowError(error, bad_value)
    return name, value, int.from_bytes(packed_mask) if masked else None, after


def parse_match(data: bytes, offset: int) -> tuple[Match, int]:
    """The match at `offset`, and where what follows begins. OpenFlowError (BAD_MATCH) when it is wrong."""
    if len(data) < offset + 4:
        raise OpenFlowError(ofp.OFPET_BAD_MATCH, ofp.OFPBMC_BAD_LEN)
    kind, length = struct.unpack_from("!HH", data, offset)
    if kind != ofp.OFPMT_OXM:
        raise OpenFlowError(ofp.OFPET_BAD_MATCH, ofp.OFPBMC_BAD_TYPE)
    end, after = offset + length, offset + (length + 7) // 8 * 8
    if length < 4 or after > len(data):
        raise OpenFlowError(ofp.OFPET_BAD_MATCH, ofp.OFPBMC_BAD_LEN)
    match: Match = {}
    at = offset + 4
    while at < end:
        kinds = (ofp.OFPBMC_BAD_FIELD, ofp.OFPBMC_BAD_LEN, ofp.OFPBMC_BAD_VALUE)
        name, value, mask, at = parse_field(data, at, end, error=ofp.OFPET_BAD_MATCH, kinds=kinds)
        if name in match:
            raise OpenFlowError(ofp.OFPET_BAD_MATCH, ofp.OFPBMC_DUP_FIELD)
        whole = _whole(name)
        if mask is None:
            mask = whole
        elif name not in _MASKABLE and mask & whole not in (0, whole):
            raise OpenFlowError(ofp.OFPET_BAD_MATCH, ofp.OFPBMC_BAD_MASK)
        elif value & ~mask:
            raise OpenFlowError(ofp.OFPET_BAD_MATCH, ofp.OFPBMC_BAD_WILDCARDS)
        if missing(name, match):
            raise OpenFlowError(ofp.OFPET_BAD_MATCH, ofp.OFPBMC_BAD_PREREQ)
        match[name] = value, mask & whole
    return {name: bits for name, bits in match.items() if bits[1]}, after


def encode_match(match: Match) -> bytes:
    """The match as os-ken encodes it."""
    fields = []
    for name, (value, mask) in match.items():
        number, kind = ofp.oxm_get_field_info_by_name(name)
        packed_mask = None if mask == _whole(name) else mask.to_bytes(kind.size)
        fields.append(ofp.oxm_to_user(number, value.to_bytes(kind.size), packed_mask))
    data = bytearray()
    messages.OFPMatch(_ordered_fields=fields).serialize(data, 0)
    return bytes(data)


def _whole(name: str) -> int:
    return (1 << int(_WIDTHS.get(name, 8 * ofp.oxm_get_field_info_by_name(name)[1].size))) - 1


def missing(name: str, match: Mapping[str, Bits]) -> bool:
    """Whether a field's prerequisite is not in the match."""
    for needed, values in _NEEDED.get(name, ()):
        value, mask = match.get(needed, (0, 0))
        if (values and value not in values) or not mask:
            return True
        if needed == "vlan_vid" and not value & VLAN_PRESENT:
            return True
        if missing(needed, match):
            return True
    return False


def matches(match: Match, fields: Mapping[str, int]) -> bool:
    return all(name in fields and fields[name] & mask == value for name, (value, mask) in match.items())


def within(inner: Match, outer: Match) -> bool:
    """Whether every frame that `inner` matches is matched by `outer`, too."""
    for name, (value, mask) in outer.items():
        own_value, own_mask = inner.get(name, (0, 0))
        if own_mask & mask != mask or own_value & mask != value:
            return False
    return True


def overlap(one: Match, other: Match) -> bool:
    """Whether a frame could match both."""
    return not any((value ^ other[name][0]) & mask & other[name][1] for name, (value, mask) in one.items() if name in other)
