"""Where hosts are, learned from their ARP and IPv6 neighbour discovery."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from controller.southbound.discovery.frames import Ethernet, MalformedFrame, mac_text
from controller.southbound.discovery.links import End

ARP, IPV6 = 0x0806, 0x86DD
SOLICITATION, ADVERTISEMENT = 135, 136
ICMPV6 = 58

_ARP_IPV4 = struct.pack("!HHBB", 1, 0x0800, 6, 4)
_OPTION_OF = {SOLICITATION: 1, ADVERTISEMENT: 2}
"""The option with the sender's own link-layer address: source of a solicitation, target of an advertisement."""

Address = IPv4Address | IPv6Address
News = tuple[str, dict[str, Any]]
"""The kind of an event, and what it says."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A host says that it is there. `ip` is None while it only asks whether an address is free."""

    mac: str
    ip: Address | None


def sighting(ethernet: Ethernet) -> Sighting | None:
    """What an ARP packet or a neighbour solicitation or advertisement says of its sender; None for other frames.

    Raises MalformedFrame for those that are broken, or in which the sender is not who sent the frame.
    """
    if ethernet.ethertype == ARP:
        return _of_arp(ethernet)
    packet = ethernet.payload
    if ethernet.ethertype != IPV6 or packet[6:7] != bytes([ICMPV6]) or packet[40:41] not in (b"\x87", b"\x88"):
        return None
    return _of_neighbour_discovery(ethernet)


def _of_arp(ethernet: Ethernet) -> Sighting:
    packet = ethernet.payload
    if len(packet) < 28 or packet[:6] != _ARP_IPV4 or packet[6:8] not in (b"\0\1", b"\0\2"):
        raise MalformedFrame("not an ARP request or reply for IPv4 over Ethernet")
    return _said(ethernet, packet[8:14], IPv4Address(packet[14:18]))


def _of_neighbour_discovery(ethernet: Ethernet) -> Sighting:
    packet = ethernet.payload
    length = int.from_bytes(packet[4:6])
    message = packet[40 : 40 + length]
    if packet[0] >> 4 != 6 or len(message) < max(24, length) or packet[7] != 255 or message[1]:
        raise MalformedFrame("a neighbour discovery message that is cut short, or comes from beyond the link (RFC 4861, 7.1)")
    if checksum(packet[8:40] + struct.pack("!II", length, ICMPV6) + message):
        raise MalformedFrame("a neighbour discovery message with a wrong checksum")
    source, target = IPv6Address(packet[8:24]), IPv6Address(message[8:24])
    mac = next((value for kind, value in _options(message[24:]) if kind == _OPTION_OF[message[0]]), ethernet.source)
    return _said(ethernet, mac[:6], source if message[0] == SOLICITATION else target)


def _options(options: bytes) -> Iterator[tuple[int, bytes]]:
    while options:
        length = 8 * options[1] if len(options) > 1 else 0
        if not 0 < length <= len(options):
            raise MalformedFrame("a neighbour discovery option of impossible length")
        yield options[0], options[2:length]
        options = options[length:]


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071); 0 when the one in the data is right."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _said(ethernet: Ethernet, mac: bytes, ip: Address) -> Sighting:
    if mac != ethernet.source or mac[0] & 1 or not any(mac):
        raise MalformedFrame(f"{mac_text(ethernet.source)} speaks for {mac_text(mac)}")
    if ip.is_unspecified:
        return Sighting(mac_text(mac), None)
    if ip.is_multicast or ip.is_loopback or ip == IPv4Address(0xFFFFFFFF):
        raise MalformedFrame(f"{ip} is no host's address")
    return Sighting(mac_text(mac), ip)


@dataclass(slots=True)
class Host:
    """One MAC address. Times are seconds of the caller's clock; `ips` has when each address was last claimed."""

    mac: str
    end: End
    seen_s: float
    moved_s: float
    ips: dict[Address, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is remembered, and for how long.

    Between two moves of one host must lie `rest_s`: what is faster is no move but a loop or a lie. An address that its holder has not
    claimed for `handover_s` may go to another without a conflict.
    """

    hosts: int = 20_000
    per_port: int = 256
    ips: int = 16
    age_s: float = 1800.0
    rest_s: float = 1.0
    handover_s: float = 60.0


class Hosts:
    """The hosts at edge ports. What changes what is known is told as events."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.limits = limits
        self.refused = 0
        """Sightings left aside because a table was full, or a host had moved just before."""
        self._hosts: dict[str, Host] = {}
        self._at: dict[End, set[str]] = {}
        self._holders: dict[Address, set[str]] = {}
        self._full: set[End | None] = set()

    def __len__(self) -> int:
        return len(self._hosts)

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def get(self, mac: str) -> Host | None:
        return self._hosts.get(mac)

    def learn(self, seen: Sighting, end: End, now_s: float) -> list[News]:
        """A host was seen at an edge port."""
        host = self._hosts.get(seen.mac)
        news: list[News] = []
        if host is None:
            if len(self._at.get(end, ())) >= self.limits.per_port:
                return self._turn_away(end)
            if len(self._hosts) >= self.limits.hosts:
                return self._turn_away(None)
            host = self._hosts[seen.mac] = Host(seen.mac, end, now_s, float("-inf"))
            self._at.setdefault(end, set()).add(seen.mac)
            news.append(("host.found", _told(host) | ({"ip": str(seen.ip)} if seen.ip else {})))
        elif host.end != end:
            if now_s - host.moved_s < self.limits.rest_s or len(self._at.get(end, ())) >= self.limits.per_port:
                self.refused += 1
                return []
            before, host.end, host.moved_s = host.end, end, now_s
            self._leave(seen.mac, before)
            self._at.setdefault(end, set()).add(seen.mac)
            news.append(("host.moved", _told(host) | {"from": f"{before[0]}:{before[1]}"}))
        host.seen_s = now_s
        if seen.ip is not None:
            news += self._claims(host, seen.ip, now_s)
        return news

    def expire(self, now_s: float) -> list[News]:
        """Forget who has been silent for too long."""
        since_s = now_s - self.limits.age_s
        for host in self._hosts.values():
            for ip in [ip for ip, seen_s in host.ips.items() if seen_s < since_s]:
                self._release(host, ip)
        return [self._forget(host) for host in [host for host in self._hosts.values() if host.seen_s < since_s]]

    def forget(self, end: End) -> list[News]:
        """The port is no edge: what was learned there was seen through other switches."""
        return [self._forget(self._hosts[mac]) for mac in sorted(self._at.get(end, ()))]

    def _turn_away(self, full: End | None) -> list[News]:
        """There is no room for another host at this port, or at all (None): told the first time."""
        self.refused += 1
        if full in self._full:
            return []
        self._full.add(full)
        return [("hosts.full", {"switch": full[0], "port": full[1], "most": self.limits.per_port} if full else {"most": self.limits.hosts})]

    def _claims(self, host: Host, ip: Address, now_s: float) -> list[News]:
        known = ip in host.ips
        if not known and len(host.ips) >= self.limits.ips:
            self._release(host, min(host.ips, key=lambda each: host.ips[each]))
        host.ips[ip] = now_s
        if known:
            return []
        for other in sorted(self._holders.get(ip, ())):
            if now_s - self._hosts[other].ips[ip] > self.limits.handover_s:
                self._release(self._hosts[other], ip)
        holders = self._holders.setdefault(ip, set())
        holders.add(host.mac)
        if len(holders) < 2:
            return []
        return [("host.conflict", {"ip": str(ip), "macs": sorted(holders), "switch": host.end[0], "port": host.end[1]})]

    def _release(self, host: Host, ip: Address) -> None:
        del host.ips[ip]
        self._holders[ip].discard(host.mac)
        if not self._holders[ip]:
            del self._holders[ip]

    def _leave(self, mac: str, end: End) -> None:
        self._at[end].discard(mac)
        if not self._at[end]:
            del self._at[end]

    def _forget(self, host: Host) -> News:
        for ip in list(host.ips):
            self._release(host, ip)
        self._leave(host.mac, host.end)
        self._full -= {host.end, None}
        del self._hosts[host.mac]
        return "host.gone", _told(host)


def _told(host: Host) -> dict[str, Any]:
    return {"mac": host.mac, "switch": host.end[0], "port": host.end[1]}
