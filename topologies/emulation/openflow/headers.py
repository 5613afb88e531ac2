"""Header fields of Ethernet frames under their OpenFlow names: where they lie, what they hold, and how a switch rewrites them.

Where the standard is silent (headers cut short, fragments, IPv6 extension headers) this does as Open vSwitch does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

TYPE_ARP, TYPE_IPV4, TYPE_IPV6 = 0x0806, 0x0800, 0x86DD
VLAN_TYPES = (0x8100, 0x88A8)
VLAN_PRESENT = 0x1000
_NOT_ETHERNET_II = 0x05FF
"""The eth_type of a frame whose type field is a length, and that has no SNAP header."""
_ICMP, _TCP, _UDP, _ICMPV6, _SCTP = 1, 6, 17, 58, 132
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60
_SPARE_BYTES = 255
"""A frame may be so much longer than its IP packet; beyond, the length in the IP header is not believed."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a header field lies: `bits` bits, `shift` from the right, of the `length` bytes at `offset`."""

    offset: int
    length: int
    shift: int = 0
    bits: int = 0

    @property
    def mask(self) -> int:
        return ((1 << (self.bits or 8 * self.length)) - 1) << self.shift


@dataclass(slots=True)
class Layout:
    """What a frame holds. `values` are fields that a match sees and no rewrite reaches."""

    slots: dict[str, Slot]
    values: dict[str, int] = field(default_factory=dict)
    network: int = 0
    """Where the IPv4 or IPv6 header begins; 0 without one."""
    version: int = 0
    transport_checksum: int = 0
    """Where the checksum of TCP, UDP, ICMP or ICMPv6 is; 0 without one."""
    pseudo_header: bool = False
    """Whether that checksum covers the IP addresses."""


def _number(frame: bytes | bytearray, offset: int, length: int) -> int:
    return int.from_bytes(frame[offset : offset + length])


def layout(frame: bytes) -> Layout:
    found = Layout({"eth_dst": Slot(0, 6), "eth_src": Slot(6, 6)})
    offset = 12
    while len(frame) >= offset + 6 and _number(frame, offset, 2) in VLAN_TYPES:
        if offset == 12:  # the outermost tag is the one that is matched
            found.slots |= {"vlan_vid": Slot(14, 2, 0, 12), "vlan_pcp": Slot(14, 2, 13, 3)}
        offset += 4
    ethertype, start = _number(frame, offset, 2), offset + 2
    if ethertype < 0x0600:
        snap = frame[start : start + 6] == b"\xaa\xaa\x03\0\0\0" and len(frame) >= start + 8
        ethertype = _number(frame, start + 6, 2) if snap and _number(frame, start + 6, 2) >= 0x0600 else _NOT_ETHERNET_II
        start += 8 if ethertype != _NOT_ETHERNET_II else 0
    found.values["eth_type"] = ethertype
    if ethertype == TYPE_ARP:
        _arp(found, frame, start)
    elif ethertype == TYPE_IPV4:
        _ipv4(found, frame, start)
    elif ethertype == TYPE_IPV6:
        _ipv6(found, frame, start)
    return found


def _arp(found: Layout, frame: bytes, start: int) -> None:
    slots = {"arp_op": Slot(start + 6, 2), "arp_sha": Slot(start + 8, 6), "arp_spa": Slot(start + 14, 4)}
    slots |= {"arp_tha": Slot(start + 18, 6), "arp_tpa": Slot(start + 24, 4)}
    if frame[start : start + 6] == b"\0\x01\x08\0\x06\x04" and len(frame) >= start + 28:
        found.slots |= slots
    else:
        found.values |= dict.fromkeys(slots, 0)


def _ipv4(found: Layout, frame: bytes, start: int) -> None:
    room, words = len(frame) - start, _number(frame, start, 1) & 0xF
    total = _number(frame, start + 2, 2)
    if room < 20 or words < 5 or not 4 * words <= total <= room <= total + _SPARE_BYTES:
        found.values |= dict.fromkeys(("ip_dscp", "ip_ecn", "ip_proto", "ipv4_src", "ipv4_dst"), 0)
        return
    found.network, found.version = start, 4
    found.slots |= {"ip_dscp": Slot(start + 1, 1, 2, 6), "ip_ecn": Slot(start + 1, 1, 0, 2), "ip_ttl": Slot(start + 8, 1)}
    found.slots |= {"ipv4_src": Slot(start + 12, 4), "ipv4_dst": Slot(start + 16, 4)}
    found.values["ip_proto"] = frame[start + 9]
    fragment = _number(frame, start + 6, 2)
    _transport(found, frame, frame[start + 9], start + 4 * words, start + total, bool(fragment & 0x3FFF), bool(fragment & 0x1FFF))


def _ipv6(found: Layout, frame: bytes, start: int) -> None:
    room, payload = len(frame) - start - 40, _number(frame, start + 4, 2)
    extended = _extended(frame, start + 40, start + 40 + payload) if 0 <= payload <= room <= payload + _SPARE_BYTES else None
    if extended is None:
        found.values |= dict.fromkeys(("ip_dscp", "ip_ecn", "ip_proto", "ipv6_src", "ipv6_dst", "ipv6_flabel"), 0)
        return
    protocol, offset, fragment, later = extended
    found.network, found.version = start, 6
    found.slots |= {"ip_dscp": Slot(start, 2, 6, 6), "ip_ecn": Slot(start, 2, 4, 2), "ip_ttl": Slot(start + 7, 1)}
    found.slots |= {"ipv6_src": Slot(start + 8, 16), "ipv6_dst": Slot(start + 24, 16), "ipv6_flabel": Slot(start, 4, 0, 20)}
    found.values["ip_proto"] = protocol
    _transport(found, frame, protocol, offset, start + 40 + payload, fragment, later)


def _extended(frame: bytes, offset: int, end: int) -> tuple[int, int, bool, bool] | None:
    """Past the extension headers: the protocol, where it begins, whether the packet is a fragment, and a later one."""
    protocol, fragment = frame[offset - 34], False
    while protocol in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION):
        if end - offset < 8:
            return None
        here, protocol = protocol, frame[offset]
        if here == _FRAGMENT:
            fragment = fragment or bool(_number(frame, offset + 2, 2) & 0xFFF9)
            if _number(frame, offset + 2, 2) & 0xFFF8:
                return _FRAGMENT, offset + 8, True, True
            offset += 8
        else:
            offset += 4 * (frame[offset + 1] + 2) if here == _AUTHENTICATION else 8 * (frame[offset + 1] + 1)
            if offset > end:
                return None
    return protocol, offset, fragment, False


def _transport(found: Layout, frame: bytes, protocol: int, offset: int, end: int, fragment: bool, later: bool) -> None:
    room = end - offset
    if name := {_TCP: "tcp", _UDP: "udp", _SCTP: "sctp"}.get(protocol):
        least, checksum = {_TCP: (20, 16), _UDP: (8, 6), _SCTP: (12, 0)}[protocol]
        slots = {f"{name}_src": Slot(offset, 2), f"{name}_dst": Slot(offset + 2, 2)}
        found.pseudo_header = True
    elif (protocol, found.version) in ((_ICMP, 4), (_ICMPV6, 6)):
        name = "icmpv4" if protocol == _ICMP else "icmpv6"
        least, checksum = 8 if protocol == _ICMP else 4, 2
        slots = {f"{name}_type": Slot(offset, 1), f"{name}_code": Slot(offset + 1, 1)}
        found.pseudo_header = protocol == _ICMPV6
    else:
        return
    whole = not later and room >= least
    if whole:
        found.slots |= slots
        found.transport_checksum = offset + checksum if checksum else 0
    if fragment or not whole:  # matches must not tell the fragments of a packet apart
        found.values |= dict.fromkeys(slots, 0)
    if whole and protocol == _ICMPV6 and not fragment:
        _neighbour_discovery(found, frame, offset, end)


def _neighbour_discovery(found: Layout, frame: bytes, offset: int, end: int) -> None:
    """Solicitations and advertisements (RFC 4861); one whose options are not in order has fields of zero."""
    if frame[offset] not in (135, 136) or frame[offset + 1]:
        return
    found.values["ipv6_nd_target"] = 0
    link_layer = "ipv6_nd_sll" if frame[offset] == 135 else "ipv6_nd_tll"
    found.values[link_layer] = 0
    if end - offset < 24:
        return
    slots = {"ipv6_nd_target": Slot(offset + 8, 16)}
    at = offset + 24
    while end - at >= 8:
        length = 8 * frame[at + 1]
        if not length or length > end - at:
            return
        name = {1: "ipv6_nd_sll", 2: "ipv6_nd_tll"}.get(frame[at])
        if name == link_layer and length == 8:
            if name in slots:
                return
            slots[name] = Slot(at + 2, 6)
        at += length
    for name, slot in slots.items():
        del found.values[name]
        found.slots[name] = slot


def headers(frame: bytes, in_port: int, metadata: int = 0) -> dict[str, int]:
    """The values that a match sees, by OXM name. A field whose header the frame has, but cut short, is 0."""
    found = layout(frame)
    values = {"in_port": in_port, "metadata": metadata, "tunnel_id": 0, "vlan_vid": 0}
    for name, slot in found.slots.items():
        values[name] = (_number(frame, slot.offset, slot.length) & slot.mask) >> slot.shift
    if "vlan_pcp" in values:
        values["vlan_vid"] |= VLAN_PRESENT
    return values | found.values


def set_field(frame: bytes, name: str, value: int) -> bytes:
    """The frame with one field set and its checksums brought along; unchanged when it has no such field.

    A VLAN is the exception, as in Open vSwitch: a frame without a tag gets one.
    """
    found = layout(frame)
    if name == "vlan_vid" and name not in found.slots:
        return set_field(push_vlan(frame, VLAN_TYPES[0]), name, value)
    slot = found.slots.get(name)
    if slot is None:
        return frame
    whole = _number(frame, slot.offset, slot.length) & ~slot.mask | value << slot.shift & slot.mask
    data = bytearray(frame)
    data[slot.offset : slot.offset + slot.length] = whole.to_bytes(slot.length)
    if found.network and slot.offset >= found.network:
        _carry_over(found, frame, data, slot)
    return bytes(data)


def _carry_over(found: Layout, frame: bytes, data: bytearray, slot: Slot) -> None:
    """Correct checksums by the difference only (RFC 1624): what was wrong stays wrong, as in a real switch."""
    first = slot.offset - (slot.offset - found.network) % 2
    last = slot.offset + slot.length + (slot.offset + slot.length - found.network) % 2
    before, after = frame[first:last], bytes(data[first:last])
    in_header = slot.offset < found.network + (4 * (frame[found.network] & 0xF) if found.version == 4 else 40)
    if found.version == 4 and in_header:
        _adjust(data, found.network + 10, before, after)
    addresses = found.network + (12 if found.version == 4 else 8)
    covered = found.pseudo_header and addresses <= slot.offset < addresses + (8 if found.version == 4 else 32)
    at = found.transport_checksum
    if not at or (in_header and not covered) or first <= at < last:
        return
    is_udp = "udp_src" in found.slots
    if is_udp and not _number(frame, at, 2):
        return  # the sender computed none
    _adjust(data, at, before, after)
    if is_udp and not _number(data, at, 2):
        data[at : at + 2] = b"\xff\xff"


def _adjust(data: bytearray, at: int, before: bytes, after: bytes) -> None:
    words = f"!{len(before) // 2}H"
    total = (~_number(data, at, 2) & 0xFFFF) + sum(~word & 0xFFFF for word in struct.unpack(words, before))
    total += sum(struct.unpack(words, after))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    data[at : at + 2] = (~total & 0xFFFF).to_bytes(2)


def push_vlan(frame: bytes, ethertype: int) -> bytes:
    """A new outermost tag, with the VLAN and priority of the one that was there, or 0."""
    tag = frame[14:16] if "vlan_vid" in layout(frame).slots else bytes(2)
    return frame[:12] + ethertype.to_bytes(2) + tag + frame[12:]


def pop_vlan(frame: bytes) -> bytes:
    return frame[:12] + frame[16:] if "vlan_vid" in layout(frame).slots else frame


def dec_ttl(frame: bytes) -> bytes | None:
    """The frame with its TTL or hop limit one lower; None when there is none left to take. Without IP, the frame as it is."""
    slot = layout(frame).slots.get("ip_ttl")
    if slot is None:
        return frame
    return set_field(frame, "ip_ttl", frame[slot.offset] - 1) if frame[slot.offset] > 1 else None
