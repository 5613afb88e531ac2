"""LLDP frames (IEEE 802.1AB): Bellhop's hellos, signed, and what other systems say of themselves.

A hello names the datapath and port it left by in the chassis and port ID, as text. An organisationally specific TLV ends it: a nonce of 8
bytes and the leftmost 16 bytes of HMAC-SHA256 (RFC 2104, section 5) over the whole LLDPDU before them. What that cannot tell from a cable
is a host that carries hellos on, as they are and at once, from one port to another.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from controller.southbound.discovery.frames import MalformedFrame, mac_text, parse

ETHERTYPE = 0x88CC
NEAREST_BRIDGE = bytes.fromhex("0180c200000e")
"""The group address that no bridge forwards, so that a hello ends at the other end of the cable."""

_END, _CHASSIS, _PORT, _TTL, _SYSTEM_NAME, _ORGANISATION = 0, 1, 2, 3, 5, 127
_LOCAL = b"\x07"
"""The subtype `locally assigned` of chassis and port IDs."""
_OURS = bytes.fromhex("be1109") + b"\x01"
"""The organisation, from the space of locally administered identifiers, and its subtype: a signed nonce."""
_NONCE_BYTES, _TAG_BYTES = 8, 16
_MAC_SUBTYPES = {(_CHASSIS, 4), (_PORT, 3)}
_ADDRESS_SUBTYPES = {(_CHASSIS, 5), (_PORT, 4)}
_ADDRESS_FAMILIES = {1: 4, 2: 16}
_LONGEST_TEXT = 64


class Forged(Exception):
    """A frame that says it is a hello of this controller, and is not signed with its key."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Of this controller: the port it left by, and what tells it from every other hello."""

    datapath_id: int
    port: int
    nonce: int


@dataclass(frozen=True, slots=True)
class Advertisement:
    """Of somebody else. `ttl_s` of 0 says that they are leaving."""

    chassis: str
    port: str
    ttl_s: int
    system: str = ""


def encode(hello: Hello, key: bytes, *, source: str, ttl_s: int) -> bytes:
    """The frame of a hello, from the MAC address `source`, padded to the least that Ethernet carries."""
    unit = b"".join(
        (
            _tlv(_CHASSIS, _LOCAL + f"dpid:{hello.datapath_id:016x}".encode()),
            _tlv(_PORT, _LOCAL + str(hello.port).encode()),
            _tlv(_TTL, ttl_s.to_bytes(2)),
            _head(_ORGANISATION, len(_OURS) + _NONCE_BYTES + _TAG_BYTES),
            _OURS,
            hello.nonce.to_bytes(_NONCE_BYTES),
        )
    )
    ethernet = NEAREST_BRIDGE + bytes.fromhex(source.replace(":", "")) + ETHERTYPE.to_bytes(2)
    return (ethernet + unit + _tag(unit, key) + _tlv(_END, b"")).ljust(60, b"\0")


def decode(frame: bytes, key: bytes) -> Hello | Advertisement:
    """What an LLDP frame says. Raises MalformedFrame when it is none, Forged when it claims to be ours and the key does not agree."""
    ethernet = parse(frame)
    if ethernet.ethertype != ETHERTYPE:
        raise MalformedFrame(f"EtherType {ethernet.ethertype:#06x} is not LLDP")
    unit = ethernet.payload
    tlvs = list(_tlvs(unit))
    if [kind for kind, _, _ in tlvs[:3]] != [_CHASSIS, _PORT, _TTL]:
        raise MalformedFrame("LLDP does not begin with chassis ID, port ID and time to live")
    for kind, value, start in tlvs[3:]:
        if kind == _ORGANISATION and value.startswith(_OURS):
            return _hello(tlvs, unit[:start], value[len(_OURS) :], key)
    (_, chassis, _), (_, port, _), (_, ttl, _) = tlvs[:3]
    if len(chassis) < 2 or len(port) < 2 or len(ttl) < 2:
        raise MalformedFrame("an LLDP chassis ID, port ID or time to live of no length")
    system = next((value for kind, value, _ in tlvs[3:] if kind == _SYSTEM_NAME), b"")
    return Advertisement(_identity(_CHASSIS, chassis), _identity(_PORT, port), int.from_bytes(ttl[:2]), _text(system) if system else "")


def _hello(tlvs: list[tuple[int, bytes, int]], before: bytes, signed: bytes, key: bytes) -> Hello:
    nonce, tag = signed[:_NONCE_BYTES], signed[_NONCE_BYTES:]
    covered = before + _head(_ORGANISATION, len(_OURS) + len(signed)) + _OURS + nonce
    if not hmac.compare_digest(tag, _tag(covered, key)):
        raise Forged("the signature of a hello is wrong")
    chassis, port = tlvs[0][1], tlvs[1][1]  # ours, as the key says: in the form that `encode` gives them
    return Hello(int(chassis.removeprefix(_LOCAL + b"dpid:"), 16), int(port.removeprefix(_LOCAL)), int.from_bytes(nonce))


def _tag(unit: bytes, key: bytes) -> bytes:
    return hmac.digest(key, unit, hashlib.sha256().name)[:_TAG_BYTES]


def _head(kind: int, length: int) -> bytes:
    return (kind << 9 | length).to_bytes(2)


def _tlv(kind: int, value: bytes) -> bytes:
    return _head(kind, len(value)) + value


def _tlvs(unit: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Type, value and start of each TLV, until the one that says it is the last or the unit ends."""
    start = 0
    while start < len(unit):
        head = int.from_bytes(unit[start : start + 2])
        kind, end = head >> 9, start + 2 + (head & 0x1FF)
        if kind == _END:
            return
        if len(unit) < start + 2 or end > len(unit):
            raise MalformedFrame(f"an LLDP TLV at byte {start} goes beyond the frame")
        yield kind, unit[start + 2 : end], start
        start = end


def _identity(kind: int, value: bytes) -> str:
    """A chassis or port ID as text: a MAC or network address in its usual form, else as given."""
    subtype, name = (kind, value[0]), value[1:]
    if subtype in _MAC_SUBTYPES and len(name) == 6:
        return mac_text(name)
    if subtype in _ADDRESS_SUBTYPES and _ADDRESS_FAMILIES.get(name[0]) == len(name) - 1:
        return str(ip_address(name[1:]))
    return _text(name)


def _text(name: bytes) -> str:
    """What can be printed as it is; else its bytes in hex: a stranger's name goes into logs and tables."""
    text = name[:_LONGEST_TEXT].decode("utf-8", "replace")
    return text if text.isprintable() and "\ufffd" not in text else name[:_LONGEST_TEXT].hex()
