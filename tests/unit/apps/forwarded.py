"""Plans judged by what comes out: frames go through flow-table pipelines that know nothing of the planner."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv6Address

from controller.network.topology import Topology
from controller.services.app import Plan
from controller.southbound.device import FlowRule, Group, Item, Meter
from controller.southbound.openflow.codec import encode
from controller.southbound.openflow.groups import GroupCommand, GroupMod, MeterCommand, MeterMod
from controller.southbound.openflow.messages import FlowCommand, FlowMod
from topologies.emulation.openflow.fabric import Fabric
from topologies.emulation.openflow.pipeline import Pipeline

BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(host: str) -> str:
    return f"02:00:00:00:00:0{host[1]}"


def ip(host: str) -> str:
    return f"10.0.0.{host[1]}"


def ipv6(host: str) -> str:
    return f"fd00::{host[1]}"


def packed(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def frame(source: str, destination: str, ethertype: int, payload: bytes, vlan: int | None = None) -> bytes:
    tag = struct.pack("!HH", 0x8100, vlan) if vlan is not None else b""
    return packed(destination) + packed(source) + tag + struct.pack("!H", ethertype) + payload.ljust(46, b"\0")


def arp(sender: str, target: str, *, reply: bool = False, vlan: int | None = None) -> bytes:
    asked = packed(mac(target)) if reply else bytes(6)
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2 if reply else 1) + packed(mac(sender)) + IPv4Address(ip(sender)).packed + asked
    return frame(mac(sender), mac(target) if reply else BROADCAST, 0x0806, body + IPv4Address(ip(target)).packed, vlan)


def packet(sender: str, target: str, *, vlan: int | None = None, size: int = 28) -> bytes:
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, 0, 0, 64, 17, 0, IPv4Address(ip(sender)).packed, IPv4Address(ip(target)).packed)
    return frame(mac(sender), mac(target), 0x0800, (header + struct.pack("!HHHH", 5, 6, size - 20, 0)).ljust(size, b"\0"), vlan)


def over_ipv6(sender: str, target: str, destination: str, message: bytes, link_layer: str) -> bytes:
    source, to = IPv6Address(ipv6(sender)).packed, IPv6Address(destination).packed
    total = sum(struct.unpack(f"!{(40 + len(message)) // 2}H", source + to + struct.pack("!II", len(message), 58) + message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    message = message[:2] + (~total & 0xFFFF).to_bytes(2) + message[4:]
    return frame(mac(sender), link_layer, 0x86DD, struct.pack("!IHBB", 6 << 28, len(message), 58, 255) + source + to + message)


def solicitation(sender: str, target: str) -> bytes:
    """Who has the target's IPv6 address? To the solicited-node multicast address (RFC 4291, 2.7.1)."""
    last = IPv6Address(ipv6(target)).packed[-3:]
    group = str(IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + last))
    body = struct.pack("!BBHI", 135, 0, 0, 0) + IPv6Address(ipv6(target)).packed + b"\x01\x01" + packed(mac(sender))
    return over_ipv6(sender, target, group, body, f"33:33:ff:{last.hex(':')}")


def advertisement(sender: str, target: str) -> bytes:
    """The sender's answer to the target that asked for it."""
    body = struct.pack("!BBHI", 136, 0, 0, 0x60000000) + IPv6Address(ipv6(sender)).packed + b"\x02\x01" + packed(mac(sender))
    return over_ipv6(sender, target, ipv6(target), body, mac(target))


def echo(sender: str, target: str) -> bytes:
    return over_ipv6(sender, target, ipv6(target), struct.pack("!BBHHH", 128, 0, 0, 1, 1), mac(target))


def change(item: Item) -> bytes:
    """The message by which a switch takes an item, from Bellhop's own codec."""
    if isinstance(item, Group):
        return encode(GroupMod(GroupCommand.ADD, item))
    if isinstance(item, Meter):
        return encode(MeterMod(MeterCommand.ADD, item))
    assert isinstance(item, FlowRule)
    return encode(FlowMod(FlowCommand.ADD, item))


def fabric(network: Topology, plans: Iterable[Plan], cut: Collection[str] = ()) -> Fabric:
    """The network with what the plans want on its switches, after which the links of these ids are `cut`: their ports have no signal."""
    links = {link.id: ((link.a.node, int(link.a.port or 0)), (link.b.node, int(link.b.port or 0))) for link in network.links("ethernet")}
    switches = {
        name: Pipeline(port for pair in links.values() for node, port in pair if node == name)
        for name, _ in network.nodes("openflow-switch")
    }
    for each in plans:
        for name, items in each.desired.items():
            for item in sorted(items, key=lambda item: isinstance(item, FlowRule)):  # groups and meters before the rules that name them
                switches[name].apply(change(item))
    for link in cut:
        for node, port in links[link]:
            if node in switches:
                switches[node].set_port(port, up=False)
    return Fabric(switches, links.values())
