"""Ethernet frames as emulated switches and hosts see them, links that carry them, and hosts that answer ARP and ping."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import count

Deliver = Callable[[bytes], None]
"""Takes a frame at the far end of a wire."""

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_ICMP = struct.Struct("!BBHHH")

_TYPE_ARP, _TYPE_IPV4, _TYPE_IPV6 = 0x0806, 0x0800, 0x86DD
_VLAN_TYPES = (0x8100, 0x88A8)
_ICMP_PROTOCOL, _ECHO_REPLY, _ECHO_REQUEST = 1, 0, 8
_BROADCAST = b"\xff" * 6
_VLAN_PRESENT = 0x1000

_DELIVERIES = 4096
_deliveries_left: ContextVar[list[int] | None] = ContextVar("deliveries_left", default=None)
"""Shared by all copies of one frame, so that a loop of flooding switches dies out instead of filling the memory."""


def wire(receive: Deliver, latency_s: float = 0.0) -> Deliver:
    """One direction of a link: what is handed to it arrives at `receive` in a later turn of the event loop."""

    def carry(frame: bytes) -> None:
        left = _deliveries_left.get() or [_DELIVERIES]
        if left[0] <= 1:
            return
        left[0] -= 1
        context = copy_context()
        context.run(_deliveries_left.set, left)
        loop = asyncio.get_running_loop()
        if latency_s:
            loop.call_later(latency_s, receive, frame, context=context)
        else:
            loop.call_soon(receive, frame, context=context)

    return carry


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a header field lies: `bits` bits, `shift` from the right, of the `length` bytes at `offset`."""

    offset: int
    length: int
    shift: int = 0
    bits: int = 0


def _layout(frame: bytes) -> dict[str, _Slot]:
    slots = {"eth_dst": _Slot(0, 6), "eth_src": _Slot(6, 6)}
    offset = 12
    if len(frame) >= 18 and int.from_bytes(frame[12:14]) in _VLAN_TYPES:
        slots |= {"vlan_vid": _Slot(14, 2, 0, 12), "vlan_pcp": _Slot(14, 2, 13, 3)}
        offset = 16
    slots["eth_type"] = _Slot(offset, 2)
    ethertype = int.from_bytes(frame[offset : offset + 2])
    offset += 2
    room = len(frame) - offset
    if ethertype == _TYPE_ARP and room >= _ARP.size:
        slots |= {"arp_op": _Slot(offset + 6, 2), "arp_sha": _Slot(offset + 8, 6), "arp_spa": _Slot(offset + 14, 4)}
        slots |= {"arp_tha": _Slot(offset + 18, 6), "arp_tpa": _Slot(offset + 24, 4)}
    elif ethertype == _TYPE_IPV4 and room >= _IPV4.size:
        slots |= {"ip_dscp": _Slot(offset + 1, 1, 2, 6), "ip_ecn": _Slot(offset + 1, 1, 0, 2), "ip_proto": _Slot(offset + 9, 1)}
        slots |= {"ipv4_src": _Slot(offset + 12, 4), "ipv4_dst": _Slot(offset + 16, 4)}
        if not int.from_bytes(frame[offset + 6 : offset + 8]) & 0x1FFF:  # later fragments have no transport header
            slots |= _transport(frame, frame[offset + 9], offset + 4 * (frame[offset] & 0xF))
    elif ethertype == _TYPE_IPV6 and room >= 40:
        slots |= {"ip_proto": _Slot(offset + 6, 1), "ipv6_src": _Slot(offset + 8, 16), "ipv6_dst": _Slot(offset + 24, 16)}
        slots |= _transport(frame, frame[offset + 6], offset + 40)
    return slots


def _transport(frame: bytes, protocol: int, offset: int) -> dict[str, _Slot]:
    if len(frame) < offset + 4:
        return {}
    if name := {6: "tcp", 17: "udp", 132: "sctp"}.get(protocol):
        return {f"{name}_src": _Slot(offset, 2), f"{name}_dst": _Slot(offset + 2, 2)}
    if name := {1: "icmpv4", 58: "icmpv6"}.get(protocol):
        return {f"{name}_type": _Slot(offset, 1), f"{name}_code": _Slot(offset + 1, 1)}
    return {}


def headers(frame: bytes, in_port: int) -> dict[str, int]:
    """The frame's OpenFlow match fields, by OXM name."""
    values = {"in_port": in_port, "vlan_vid": 0}
    for name, slot in _layout(frame).items():
        value = int.from_bytes(frame[slot.offset : slot.offset + slot.length]) >> slot.shift
        values[name] = value & ((1 << slot.bits) - 1) if slot.bits else value
    if "vlan_pcp" in values:
        values["vlan_vid"] |= _VLAN_PRESENT
    return values


def rewrite(frame: bytes, name: str, value: int) -> bytes:
    """The frame with one field set and its checksums right; unchanged when it has no such field."""
    slot = _layout(frame).get(name)
    if slot is None:
        return frame
    mask = ((1 << (slot.bits or 8 * slot.length)) - 1) << slot.shift
    end = slot.offset + slot.length
    whole = int.from_bytes(frame[slot.offset : end])
    whole = whole & ~mask | value << slot.shift & mask
    return _with_checksums(frame[: slot.offset] + whole.to_bytes(slot.length) + frame[end:])


def push_vlan(frame: bytes, ethertype: int) -> bytes:
    return frame[:12] + ethertype.to_bytes(2) + bytes(2) + frame[12:]


def pop_vlan(frame: bytes) -> bytes:
    return frame[:12] + frame[16:] if int.from_bytes(frame[12:14]) in _VLAN_TYPES else frame


def _checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _with_checksums(frame: bytes) -> bytes:
    """IPv4, and TCP or UDP in it, computed anew."""
    start = 18 if int.from_bytes(frame[12:14]) in _VLAN_TYPES else 14
    if int.from_bytes(frame[start - 2 : start]) != _TYPE_IPV4 or len(frame) < start + _IPV4.size:
        return frame
    data = bytearray(frame)
    inner = start + 4 * (data[start] & 0xF)
    data[start + 10 : start + 12] = bytes(2)
    data[start + 10 : start + 12] = _checksum(bytes(data[start:inner])).to_bytes(2)
    end = start + int.from_bytes(data[start + 2 : start + 4])
    at = {6: inner + 16, 17: inner + 6}.get(data[start + 9], 0)
    if at and at + 2 <= end <= len(data) and not int.from_bytes(data[start + 6 : start + 8]) & 0x3FFF:
        data[at : at + 2] = bytes(2)
        pseudo = bytes(data[start + 12 : start + 20]) + struct.pack("!BBH", 0, data[start + 9], end - inner)
        data[at : at + 2] = (_checksum(pseudo + bytes(data[inner:end])) or 0xFFFF).to_bytes(2)
    return bytes(data)


@dataclass(frozen=True, slots=True)
class PingResult:
    sent: int
    received: int
    rtts_ms: tuple[float, ...]


@dataclass(slots=True)
class EmulatedHost:
    """A host with one interface. It answers ARP requests and pings for its address, and can ping."""

    name: str
    mac: str
    ip: str
    _send: Deliver | None = None
    _neighbours: dict[bytes, bytes] = field(default_factory=dict)
    _resolving: dict[bytes, asyncio.Future[bytes]] = field(default_factory=dict)
    _echoes: dict[tuple[int, int], asyncio.Future[float]] = field(default_factory=dict)
    _identifiers: count[int] = field(default_factory=lambda: count(1))

    def attach(self, deliver: Deliver) -> None:
        """Plug in the cable: frames leave by `deliver`."""
        self._send = deliver

    @property
    def _mac(self) -> bytes:
        return bytes.fromhex(self.mac.replace(":", ""))

    @property
    def _ip(self) -> bytes:
        return IPv4Address(self.ip).packed

    def receive(self, frame: bytes) -> None:
        if len(frame) < _ETHERNET.size:
            return
        target, source, ethertype = _ETHERNET.unpack_from(frame)
        if target not in (self._mac, _BROADCAST):
            return
        if ethertype == _TYPE_ARP and len(frame) >= 14 + _ARP.size:
            self._on_arp(frame)
        elif ethertype == _TYPE_IPV4 and len(frame) >= 14 + _IPV4.size + _ICMP.size:
            self._on_ipv4(source, frame)

    async def ping(self, ip: str, count: int = 1, timeout_s: float = 1.0) -> PingResult:
        """Send `count` echo requests, one after the other, each waiting up to `timeout_s` for its answer."""
        target = IPv4Address(ip).packed
        identifier = next(self._identifiers) & 0xFFFF
        rtts_ms = []
        for sequence in range(count):
            try:
                async with asyncio.timeout(timeout_s):
                    rtts_ms.append(await self._echo(target, identifier, sequence & 0xFFFF))
            except TimeoutError:
                continue
        return PingResult(count, len(rtts_ms), tuple(rtts_ms))

    async def _echo(self, target: bytes, identifier: int, sequence: int) -> float:
        mac = await self._resolve(target)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[float] = loop.create_future()
        self._echoes[identifier, sequence] = answer
        try:
            sent_s = loop.time()
            self._transmit_icmp(mac, target, _ECHO_REQUEST, identifier, sequence, b"bellhop " * 7)
            return (await answer - sent_s) * 1e3
        finally:
            del self._echoes[identifier, sequence]

    async def _resolve(self, target: bytes) -> bytes:
        if target not in self._neighbours:
            resolving = self._resolving.setdefault(target, asyncio.get_running_loop().create_future())
            self._transmit(_BROADCAST, _TYPE_ARP, _ARP.pack(1, _TYPE_IPV4, 6, 4, 1, self._mac, self._ip, bytes(6), target))
            await asyncio.shield(resolving)
        return self._neighbours[target]

    def _on_arp(self, frame: bytes) -> None:
        _, _, _, _, operation, sender_mac, sender_ip, _, target_ip = _ARP.unpack_from(frame, 14)
        if target_ip != self._ip:
            return
        self._neighbours[sender_ip] = sender_mac
        if resolving := self._resolving.pop(sender_ip, None):
            resolving.set_result(sender_mac)
        if operation == 1:
            self._transmit(sender_mac, _TYPE_ARP, _ARP.pack(1, _TYPE_IPV4, 6, 4, 2, self._mac, self._ip, sender_mac, sender_ip))

    def _on_ipv4(self, source_mac: bytes, frame: bytes) -> None:
        version, _, length, _, _, _, protocol, _, source, target = _IPV4.unpack_from(frame, 14)
        start = 14 + 4 * (version & 0xF)
        icmp = frame[start : 14 + length]
        if target != self._ip or protocol != _ICMP_PROTOCOL or len(icmp) < _ICMP.size:
            return
        if _checksum(frame[14:start]) or _checksum(icmp):
            return
        kind, _, _, identifier, sequence = _ICMP.unpack_from(icmp)
        if kind == _ECHO_REQUEST:
            self._transmit_icmp(source_mac, source, _ECHO_REPLY, identifier, sequence, icmp[_ICMP.size :])
        elif kind == _ECHO_REPLY and (answer := self._echoes.get((identifier, sequence))) and not answer.done():
            answer.set_result(asyncio.get_running_loop().time())

    def _transmit_icmp(self, mac: bytes, ip: bytes, kind: int, identifier: int, sequence: int, data: bytes) -> None:
        checksum = _checksum(_ICMP.pack(kind, 0, 0, identifier, sequence) + data)
        icmp = _ICMP.pack(kind, 0, checksum, identifier, sequence) + data
        fields = (0x45, 0, _IPV4.size + len(icmp), 0, 0, 64, _ICMP_PROTOCOL)
        checksum = _checksum(_IPV4.pack(*fields, 0, self._ip, ip))
        self._transmit(mac, _TYPE_IPV4, _IPV4.pack(*fields, checksum, self._ip, ip) + icmp)

    def _transmit(self, mac: bytes, ethertype: int, payload: bytes) -> None:
        if self._send:
            self._send((_ETHERNET.pack(mac, self._mac, ethertype) + payload).ljust(60, b"\0"))
