"""Match fields: the canonical tuples of a `FlowRule` to OXM bytes and back (OpenFlow 1.3.5, 7.2.3).

Canonical means that a value has one spelling, so that a rule read back equals the rule sent: `value/mask` only for a mask that is
neither empty nor full, no bits outside the mask, masked numbers in hexadecimal. A field that is not in the table (another OXM class,
an experimenter's) has the name `oxm:<header in hex>` and its payload in hex as value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from operator import itemgetter
from struct import Struct
from struct import error as struct_error

from controller.southbound.device import Match
from controller.southbound.openflow.messages import MalformedMessage

_BASIC_CLASS = 0x8000
_MATCH_HEADER = Struct("!HH")
_OXM_HEADER = Struct("!I")
_OXM_TYPE = 1
_FIELDS_KEPT = 16384
"""Encoded and decoded fields that are remembered: a network's addresses come again with each packet and rule."""


@dataclass(frozen=True, slots=True)
class _Field:
    header: int
    """Class, number and length of the field without a mask."""
    length: int
    pack: Callable[[str], bytes]
    """From the text of a value."""
    text: Callable[[bytes], str]
    bits: int
    """Significant bits of a number; 0 for an address."""
    head: bytes
    """`header` on the wire."""

    @property
    def masked_header(self) -> int:
        return (self.header & ~0xFF) | 0x100 | 2 * self.length


def pack_mac(text: str) -> bytes:
    """Raises ValueError, with the text, for what is no MAC address."""
    if len(text) == 17 and text[2::3] == ":::::":
        packed = bytes.fromhex(text.replace(":", ""))
        if len(packed) == 6:
            return packed
    raise ValueError(f"{text!r}: a MAC address is written 02:00:00:00:00:01")


def _mac_text(value: bytes) -> str:
    return value.hex(":")


def _pack_ipv4(text: str) -> bytes:
    return IPv4Address(text).packed


def _ipv4_text(value: bytes) -> str:
    return f"{value[0]}.{value[1]}.{value[2]}.{value[3]}"


def _pack_ipv6(text: str) -> bytes:
    return IPv6Address(text).packed


def _ipv6_text(value: bytes) -> str:
    return str(IPv6Address(value))


def _number(number: int, bits: int, length: int = 0) -> _Field:
    length = length or (bits + 7) // 8

    def pack(text: str) -> bytes:
        value = int(text, 0)
        if value >> bits:
            raise ValueError(f"more than {bits} bits")
        return value.to_bytes(length)

    return _field(number, length, pack, lambda value: hex(int.from_bytes(value)), bits)


def _field(number: int, length: int, pack: Callable[[str], bytes], text: Callable[[bytes], str], bits: int = 0) -> _Field:
    header = _BASIC_CLASS << 16 | number << 9 | length
    return _Field(header, length, pack, text, bits, _OXM_HEADER.pack(header))


def _mac(number: int) -> _Field:
    return _field(number, 6, pack_mac, _mac_text)


def _ipv4(number: int) -> _Field:
    return _field(number, 4, _pack_ipv4, _ipv4_text)


def _ipv6(number: int) -> _Field:
    return _field(number, 16, _pack_ipv6, _ipv6_text)


_FIELDS: dict[str, _Field] = {
    "in_port": _number(0, 32),
    "in_phy_port": _number(1, 32),
    "metadata": _number(2, 64),
    "eth_dst": _mac(3),
    "eth_src": _mac(4),
    "eth_type": _number(5, 16),
    "vlan_vid": _number(6, 13),  # with OFPVID_PRESENT (0x1000), as on the wire
    "vlan_pcp": _number(7, 3),
    "ip_dscp": _number(8, 6),
    "ip_ecn": _number(9, 2),
    "ip_proto": _number(10, 8),
    "ipv4_src": _ipv4(11),
    "ipv4_dst": _ipv4(12),
    "tcp_src": _number(13, 16),
    "tcp_dst": _number(14, 16),
    "udp_src": _number(15, 16),
    "udp_dst": _number(16, 16),
    "sctp_src": _number(17, 16),
    "sctp_dst": _number(18, 16),
    "icmpv4_type": _number(19, 8),
    "icmpv4_code": _number(20, 8),
    "arp_op": _number(21, 16),
    "arp_spa": _ipv4(22),
    "arp_tpa": _ipv4(23),
    "arp_sha": _mac(24),
    "arp_tha": _mac(25),
    "ipv6_src": _ipv6(26),
    "ipv6_dst": _ipv6(27),
    "ipv6_flabel": _number(28, 20, 4),
    "icmpv6_type": _number(29, 8),
    "icmpv6_code": _number(30, 8),
    "ipv6_nd_target": _ipv6(31),
    "ipv6_nd_sll": _mac(32),
    "ipv6_nd_tll": _mac(33),
    "mpls_label": _number(34, 20, 4),
    "mpls_tc": _number(35, 3),
    "mpls_bos": _number(36, 1),
    "pbb_isid": _number(37, 24),
    "tunnel_id": _number(38, 64),
    "ipv6_exthdr": _number(39, 9),
}

_PLAIN = {field.header: (name, field) for name, field in _FIELDS.items()}
_MASKED = {field.masked_header: (name, field) for name, field in _FIELDS.items()}


@lru_cache(_FIELDS_KEPT)
def encode_field(name: str, value: int | str) -> bytes:
    """One field as OXM bytes. Raises ValueError, naming field and value, when it is unknown or the value does not fit."""
    try:
        field = _FIELDS.get(name)
        if field is None:
            return _encode_unknown(name, value)
        if isinstance(value, int):
            if value >> field.bits or not field.bits:
                raise ValueError(f"a number of {field.bits} bits expected" if field.bits else "an address expected")
            return field.head + value.to_bytes(field.length)
        if "/" in value:
            plain, _, mask = value.partition("/")
            return _OXM_HEADER.pack(field.masked_header) + field.pack(plain) + field.pack(mask)
        if field.bits:
            raise ValueError("an unmasked number is an int, not text")
        return field.head + field.pack(value)
    except (ValueError, OverflowError, struct_error) as error:
        raise ValueError(f"{name}={value}: {error}") from None


def _encode_unknown(name: str, value: int | str) -> bytes:
    if not name.startswith("oxm:"):
        raise ValueError(f"{name} is no OpenFlow 1.3 match field; known are {', '.join(_FIELDS)}")
    header, payload = int(name.removeprefix("oxm:"), 16), bytes.fromhex(str(value))
    if len(payload) != header & 0xFF:
        raise ValueError(f"the header says {header & 0xFF} bytes, the value has {len(payload)}")
    return _OXM_HEADER.pack(header) + payload


def decode_field(data: bytes, offset: int) -> tuple[str, int | str | None, int]:
    """The field at `offset`: its name, canonical value (None when its mask is empty: it matches anything), where the next one starts."""
    (header,) = _OXM_HEADER.unpack_from(data, offset)
    start = offset + 4
    end = start + (header & 0xFF)
    if end > len(data):
        raise MalformedMessage(f"match field {header:#010x} goes beyond the end of its message")
    return *_decode_field(header, data[start:end]), end


@lru_cache(_FIELDS_KEPT)
def _decode_field(header: int, payload: bytes) -> tuple[str, int | str | None]:
    if entry := _PLAIN.get(header):
        name, field = entry
        return name, int.from_bytes(payload) if field.bits else field.text(payload)
    if entry := _MASKED.get(header):
        name, field = entry
        mask = int.from_bytes(payload[field.length :])
        value = int.from_bytes(payload[: field.length]) & mask
        if not mask:
            return name, None
        if mask == (1 << 8 * field.length) - 1 or (field.bits and mask == (1 << field.bits) - 1):
            return name, value if field.bits else field.text(payload[: field.length])
        return name, f"{field.text(value.to_bytes(field.length))}/{field.text(payload[field.length :])}"
    return f"oxm:{header:08x}", payload.hex()


def encode_match(match: Match) -> bytes:
    """The `ofp_match` structure with its padding. Fields go out by number, which puts prerequisites (eth_type) first."""
    fields = b"".join(sorted([encode_field(name, value) for name, value in match]))
    length = 4 + len(fields)
    return _MATCH_HEADER.pack(_OXM_TYPE, length) + fields + bytes(-length % 8)


def decode_match(data: bytes, offset: int) -> tuple[Match, int]:
    """The match at `offset` and the offset behind its padding."""
    kind, length = _MATCH_HEADER.unpack_from(data, offset)
    end = offset + length
    if kind != _OXM_TYPE or length < 4 or end > len(data):
        raise MalformedMessage(f"no OXM match at byte {offset}: type {kind}, length {length}")
    fields: list[tuple[str, int | str]] = []
    offset += 4
    while offset < end:
        name, value, offset = decode_field(data, offset)
        if value is not None:
            fields.append((name, value))
    if offset != end:
        raise MalformedMessage("a match field goes beyond the end of its match")
    fields.sort(key=itemgetter(0))
    return tuple(fields), end + -length % 8
