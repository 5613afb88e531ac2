"""Frames as hosts send them, built with os-ken."""

from __future__ import annotations

from os_ken.lib.packet import arp, ethernet, icmpv6, ipv6, packet


def frame(*protocols: object) -> bytes:
    built = packet.Packet()
    for protocol in protocols:
        built.add_protocol(protocol)
    built.serialize()
    return bytes(built.data)


def arp_frame(operation: int, mac: str, ip: str, *, sender: str = "") -> bytes:
    return frame(
        ethernet.ethernet("ff:ff:ff:ff:ff:ff", mac, 0x0806), arp.arp(opcode=operation, src_mac=sender or mac, src_ip=ip, dst_ip="10.0.0.9")
    )


def nd_frame(kind: int, mac: str, source: str, target: str, *, option: str | None = None, hop_limit: int = 255) -> bytes:
    carries = option if option is not None else mac
    link_address = (icmpv6.nd_option_sla if kind == 135 else icmpv6.nd_option_tla)(hw_src=carries) if carries else None
    return frame(
        ethernet.ethernet("33:33:ff:00:00:01", mac, 0x86DD),
        ipv6.ipv6(src=source, dst="ff02::1", nxt=58, hop_limit=hop_limit),
        icmpv6.icmpv6(type_=kind, data=icmpv6.nd_neighbor(dst=target, option=link_address)),
    )
