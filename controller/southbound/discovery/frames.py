"""What discovery needs to know of Ethernet: a frame's source, type and payload, behind any VLAN tags."""

from __future__ import annotations

from dataclasses import dataclass

VLAN_TAGS = (0x8100, 0x88A8)
_MOST_TAGS = 2


class MalformedFrame(Exception):
    """Bytes that are not the frame they claim to be."""


@dataclass(frozen=True, slots=True)
class Ethernet:
    source: bytes
    ethertype: int
    payload: bytes


def parse(frame: bytes) -> Ethernet:
    """The frame behind at most two VLAN tags. Raises MalformedFrame when it is too short."""
    start = 12
    for _ in range(_MOST_TAGS + 1):
        ethertype = int.from_bytes(frame[start : start + 2])
        if len(frame) < start + 2:
            raise MalformedFrame(f"an Ethernet frame of {len(frame)} bytes")
        if ethertype not in VLAN_TAGS:
            break
        start += 4
    return Ethernet(frame[6:12], ethertype, frame[start + 2 :])


def mac_text(mac: bytes) -> str:
    return mac.hex(":")
