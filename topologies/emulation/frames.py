"""Links that carry Ethernet frames between emulated switches and hosts, and hosts that answer ARP, neighbour discovery and ping."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import count

from topologies.emulation.openflow.headers import TYPE_ARP, TYPE_IPV4, TYPE_IPV6

Deliver = Callable[[bytes], None]
"""Takes a frame at the far end of a wire."""

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_ICMP = struct.Struct("!BBHHH")
_NEIGHBOUR = struct.Struct("!BBHI16s2s6s")
"""A solicitation or advertisement with its one option, a link-layer address (RFC 4861)."""

_ICMP_PROTOCOL, _ECHO_REPLY, _ECHO_REQUEST = 1, 0, 8
_ICMPV6_PROTOCOL, _ECHO_REQUEST_6, _ECHO_REPLY_6, _SOLICITATION, _ADVERTISEMENT = 58, 128, 129, 135, 136
_SOLICITED_OVERRIDE = 0x60000000
_BROADCAST = b"\xff" * 6
_SOLICITED_NODE = IPv6Address("ff02::1:ff00:0").packed[:13]

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


def _checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _pseudo(source: bytes, target: bytes, message: bytes) -> bytes:
    """What the checksum of an ICMPv6 message covers (RFC 8200, 8.1)."""
    return source + target + struct.pack("!II", len(message), _ICMPV6_PROTOCOL) + message


@dataclass(frozen=True, slots=True)
class PingResult:
    sent: int
    received: int
    rtts_ms: tuple[float, ...]


@dataclass(slots=True)
class EmulatedHost:
    """A host with one interface. It answers ARP requests, neighbour solicitations and pings for its addresses, and can ping."""

    name: str
    mac: str
    ip: str | None
    ipv6: str | None = None
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
    def _ip(self) -> bytes | None:
        return IPv4Address(self.ip).packed if self.ip else None

    @property
    def _ipv6(self) -> bytes | None:
        return IPv6Address(self.ipv6).packed if self.ipv6 else None

    def receive(self, frame: bytes) -> None:
        if len(frame) < _ETHERNET.size:
            return
        target, source, ethertype = _ETHERNET.unpack_from(frame)
        if target not in (self._mac, _BROADCAST, self._ipv6 and b"\x33\x33\xff" + self._ipv6[13:]):
            return
        if ethertype == TYPE_ARP and len(frame) >= 14 + _ARP.size:
            self._on_arp(frame)
        elif ethertype == TYPE_IPV4 and len(frame) >= 14 + _IPV4.size + _ICMP.size:
            self._on_ipv4(source, frame)
        elif ethertype == TYPE_IPV6 and len(frame) >= 14 + _IPV6.size + _ICMP.size:
            self._on_ipv6(source, frame)

    async def ping(self, ip: str, count: int = 1, timeout_s: float = 1.0) -> PingResult:
        """Send `count` echo requests, one after the other, each waiting up to `timeout_s` for its answer. ValueError without an address
        of that family."""
        target = ip_address(ip).packed
        if (self._ip if len(target) == 4 else self._ipv6) is None:
            raise ValueError(f"{self.name} has no address to ping {ip} from")
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
            send, kind = (self._transmit_icmp, _ECHO_REQUEST) if len(target) == 4 else (self._transmit_echo_6, _ECHO_REQUEST_6)
            send(mac, target, kind, identifier, sequence, b"bellhop " * 7)
            return (await answer - sent_s) * 1e3
        finally:
            del self._echoes[identifier, sequence]

    async def _resolve(self, target: bytes) -> bytes:
        if target not in self._neighbours:
            resolving = self._resolving.setdefault(target, asyncio.get_running_loop().create_future())
            if len(target) == 4:
                self._transmit(_BROADCAST, TYPE_ARP, _ARP.pack(1, TYPE_IPV4, 6, 4, 1, self._mac, self._ip, bytes(6), target))
            else:
                question = _NEIGHBOUR.pack(_SOLICITATION, 0, 0, 0, target, b"\x01\x01", self._mac)
                self._transmit_icmpv6(b"\x33\x33\xff" + target[13:], _SOLICITED_NODE + target[13:], question)
            await asyncio.shield(resolving)
        return self._neighbours[target]

    def _on_arp(self, frame: bytes) -> None:
        _, _, _, _, operation, sender_mac, sender_ip, _, target_ip = _ARP.unpack_from(frame, 14)
        if target_ip != self._ip:
            return
        self._meet(sender_ip, sender_mac)
        if operation == 1:
            self._transmit(sender_mac, TYPE_ARP, _ARP.pack(1, TYPE_IPV4, 6, 4, 2, self._mac, self._ip, sender_mac, sender_ip))

    def _meet(self, ip: bytes, mac: bytes) -> None:
        self._neighbours[ip] = mac
        if resolving := self._resolving.pop(ip, None):
            resolving.set_result(mac)

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
        elif kind == _ECHO_REPLY:
            self._answered(identifier, sequence)

    def _answered(self, identifier: int, sequence: int) -> None:
        if (answer := self._echoes.get((identifier, sequence))) and not answer.done():
            answer.set_result(asyncio.get_running_loop().time())

    def _on_ipv6(self, source_mac: bytes, frame: bytes) -> None:
        _, length, protocol, hops, source, target = _IPV6.unpack_from(frame, 14)
        message = frame[54 : 54 + length]
        own = self._ipv6
        if (
            own is None
            or protocol != _ICMPV6_PROTOCOL
            or len(message) < max(length, _ICMP.size)
            or _checksum(_pseudo(source, target, message))
        ):
            return
        kind, _, _, identifier, sequence = _ICMP.unpack_from(message)
        if kind in (_SOLICITATION, _ADVERTISEMENT):
            if len(message) < 24 or hops != 255:
                return
            if kind == _SOLICITATION and message[8:24] == own:
                self._neighbours[source] = source_mac
                answer = _NEIGHBOUR.pack(_ADVERTISEMENT, 0, 0, _SOLICITED_OVERRIDE, own, b"\x02\x01", self._mac)
                self._transmit_icmpv6(source_mac, source, answer)
            elif kind == _ADVERTISEMENT and target == own:
                self._meet(message[8:24], message[26:32] if message[24:26] == b"\x02\x01" else source_mac)
        elif target == own and kind == _ECHO_REQUEST_6:
            self._transmit_echo_6(source_mac, source, _ECHO_REPLY_6, identifier, sequence, message[_ICMP.size :])
        elif target == own and kind == _ECHO_REPLY_6:
            self._answered(identifier, sequence)

    def _transmit_echo_6(self, mac: bytes, ip: bytes, kind: int, identifier: int, sequence: int, data: bytes) -> None:
        self._transmit_icmpv6(mac, ip, _ICMP.pack(kind, 0, 0, identifier, sequence) + data)

    def _transmit_icmpv6(self, mac: bytes, ip: bytes, message: bytes) -> None:
        """Send a message whose checksum is still 0."""
        own = self._ipv6 or bytes(16)
        message = message[:2] + _checksum(_pseudo(own, ip, message)).to_bytes(2) + message[4:]
        self._transmit(mac, TYPE_IPV6, _IPV6.pack(6 << 28, len(message), _ICMPV6_PROTOCOL, 255, own, ip) + message)

    def _transmit_icmp(self, mac: bytes, ip: bytes, kind: int, identifier: int, sequence: int, data: bytes) -> None:
        checksum = _checksum(_ICMP.pack(kind, 0, 0, identifier, sequence) + data)
        icmp = _ICMP.pack(kind, 0, checksum, identifier, sequence) + data
        fields = (0x45, 0, _IPV4.size + len(icmp), 0, 0, 64, _ICMP_PROTOCOL)
        checksum = _checksum(_IPV4.pack(*fields, 0, self._ip, ip))
        self._transmit(mac, TYPE_IPV4, _IPV4.pack(*fields, checksum, self._ip, ip) + icmp)

    def _transmit(self, mac: bytes, ethertype: int, payload: bytes) -> None:
        if self._send:
            self._send((_ETHERNET.pack(mac, self._mac, ethertype) + payload).ljust(60, b"\0"))
