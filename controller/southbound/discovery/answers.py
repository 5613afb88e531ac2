"""Answers to ARP requests and neighbour solicitations, in the name of the host that was asked for."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from controller.southbound.discovery.frames import MalformedFrame, parse
from controller.southbound.discovery.hosts import ADVERTISEMENT, ARP, ICMPV6, IPV6, SOLICITATION, checksum, sighting

_REQUEST, _REPLY = b"\0\1", b"\0\2"
_SOLICITED_OVERRIDE = 0x60000000
_LEAST_BYTES = 60
"""Ethernet frames are no shorter, without their checksum."""

MacOf = Callable[[str, str], str | None]
"""The MAC address of the host with an IP address (second), if the host with a MAC address (first) is to be told."""


def answer(frame: bytes, mac_of: MacOf) -> bytes | None:
    """The frame to send back by the port that this one came in by; None when it asks nothing, or is not to be told.

    Tagged frames, and questions by which a host looks whether its own address is free, have no answer.
    """
    try:
        ethernet = parse(frame)
        seen = sighting(ethernet)
    except MalformedFrame:
        return None
    if seen is None or seen.ip is None or frame[12:14] != ethernet.ethertype.to_bytes(2):
        return None
    packet = ethernet.payload
    if ethernet.ethertype == ARP and packet[6:8] == _REQUEST:
        if (mac := _packed(mac_of(seen.mac, str(IPv4Address(packet[24:28]))))) is None:
            return None
        body = packet[:6] + _REPLY + mac + packet[24:28] + packet[8:18]
    elif ethernet.ethertype == IPV6 and packet[40] == SOLICITATION:
        if (mac := _packed(mac_of(seen.mac, str(IPv6Address(packet[48:64]))))) is None:
            return None
        body = _advertisement(packet[48:64], mac, packet[8:24])
    else:
        return None
    return (ethernet.source + mac + ethernet.ethertype.to_bytes(2) + body).ljust(_LEAST_BYTES, b"\0")


def _packed(mac: str | None) -> bytes | None:
    return bytes.fromhex(mac.replace(":", "")) if mac else None


def _advertisement(address: bytes, mac: bytes, asker: bytes) -> bytes:
    """That `address` is at `mac`, for the host that asked (RFC 4861, 4.4)."""
    message = struct.pack("!BBHI16sBB6s", ADVERTISEMENT, 0, 0, _SOLICITED_OVERRIDE, address, 2, 1, mac)
    covered = checksum(address + asker + struct.pack("!II", len(message), ICMPV6) + message)
    message = message[:2] + covered.to_bytes(2) + message[4:]
    return struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, 255) + address + asker + message
