"""Forwarding judged by what comes out: frames go through a flow-table pipeline that knows nothing of the planner."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.forwarding import ARP_PRIORITY, Connectivity, plan, serving
from controller.network.model import Link, Node
from controller.network.topology import Topology
from controller.routing.refusal import NoRoute
from controller.services.app import FlowRule, Ledger, Plan, State, cookie
from controller.southbound.openflow.codec import encode
from controller.southbound.openflow.messages import FlowCommand, FlowMod
from topologies.emulation.openflow.fabric import Fabric
from topologies.emulation.openflow.pipeline import Pipeline

HOSTS = ("h1", "h2", "h3")


def mac(host: str) -> str:
    return f"02:00:00:00:00:0{host[1]}"


def ip(host: str) -> str:
    return f"10.0.0.{host[1]}"


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    """Switches joined by a random tree and some links more, three hosts on random switches, some links down for works."""
    switches = [f"s{number}" for number in range(1, draw(st.integers(1, 5)) + 1)]
    nodes = {name: Node(kind="openflow-switch", dpid=f"{number:016x}") for number, name in enumerate(switches, 1)}
    nodes |= {host: Node(kind="host", mac=mac(host), ip=ip(host)) for host in HOSTS}
    pairs = [(switches[draw(st.integers(0, number - 1))], switches[number]) for number in range(1, len(switches))]
    if len(switches) > 1:
        pairs += draw(
            st.lists(st.tuples(st.sampled_from(switches), st.sampled_from(switches)).filter(lambda pair: pair[0] != pair[1]), max_size=4)
        )
    pairs += [(host, draw(st.sampled_from(switches))) for host in HOSTS]
    next_port = dict.fromkeys(nodes, 0)

    def port(name: str) -> str:
        next_port[name] += 1
        return f"{name}:{next_port[name]}"

    return Topology(
        "random",
        nodes,
        [
            Link(
                kind="ethernet",
                id=f"l{number}",
                ends=(port(a), port(b)),
                latency_ms=draw(st.sampled_from([0.1, 0.2, 1.0])),
                admin=draw(st.sampled_from(["enabled"] * 7 + ["disabled"])) if a not in HOSTS else "enabled",
            )
            for number, (a, b) in enumerate(pairs)
        ],
    )


def packed(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def arp(sender: str, target: str, *, reply: bool = False) -> bytes:
    asked = packed(mac(target)) if reply else bytes(6)
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2 if reply else 1) + packed(mac(sender)) + IPv4Address(ip(sender)).packed + asked
    destination = packed(mac(target)) if reply else b"\xff" * 6
    return (destination + packed(mac(sender)) + b"\x08\x06" + body + IPv4Address(ip(target)).packed).ljust(60, b"\0")


def packet(sender: str, target: str) -> bytes:
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0, IPv4Address(ip(sender)).packed, IPv4Address(ip(target)).packed)
    return (packed(mac(target)) + packed(mac(sender)) + b"\x08\x00" + header + struct.pack("!HHHH", 5, 6, 8, 0)).ljust(60, b"\0")


def sent(network: Topology, plans: list[Plan], frame: bytes, host: str) -> list[str]:
    """The hosts at which a frame from a host comes out."""
    links = [link for link in network.links("ethernet") if network.usable(link)]
    ends = [((link.a.node, int(link.a.port or 0)), (link.b.node, int(link.b.port or 0))) for link in links]
    switches = {
        name: Pipeline(port for pair in ends for node, port in pair if node == name) for name, _ in network.nodes("openflow-switch")
    }
    for name, switch in switches.items():
        for item in (item for each in plans for item in each.desired.get(name, ())):
            assert isinstance(item, FlowRule)
            switch.apply(encode(FlowMod(FlowCommand.ADD, item)))
    return [name for name, _ in Fabric(switches, ends).send(frame, (host, 1)).arrived]


@given(networks())
def test_asked_for_hosts_reach_each_other_and_nobody_else_hears(network: Topology) -> None:
    plans = []
    for number, ends in enumerate((("h1", "h2"), ("h3", "h1"))):
        try:
            plans.append((ends, plan(f"c{number}", Connectivity(ends=ends), network, Ledger(), 0.0)))
        except NoRoute as no:
            assert no.constraint == "reachability"
    together = [each for _, each in plans]
    joined = {frozenset(ends) for ends, _ in plans}
    for a in HOSTS:
        for b in HOSTS:
            expected = [b] if frozenset((a, b)) in joined else []
            for frame in (arp(a, b), arp(a, b, reply=True), packet(a, b)):
                if a != b:
                    assert sent(network, together, frame, a) == expected
    for each in together:
        rules = [item for items in each.desired.values() for item in items if isinstance(item, FlowRule)]
        assert all(rule.ours for rule in rules)
        assert len({rule.cookie for rule in rules}) == 1
        assert len({(name, item.key) for name, items in each.desired.items() for item in items}) == len(rules)


@given(networks())
def test_while_rules_come_in_stages_no_packet_goes_astray(network: Topology) -> None:
    """Whatever part of the rules is there, in the order of the stages: a packet arrives or stops, nowhere else."""
    try:
        whole = plan("c", Connectivity(ends=("h1", "h2")), network, Ledger(), 0.0)
    except NoRoute:
        return
    hops = sorted({item.hop for items in whole.desired.values() for item in items if isinstance(item, FlowRule)}, reverse=True)
    for reached in hops:
        part = Plan(
            {n: tuple(i for i in items if isinstance(i, FlowRule) and i.hop >= reached) for n, items in whole.desired.items()},
            frozenset(),
            {},
        )
        there = sent(network, [part], packet("h1", "h2"), "h1")
        assert there == (["h2"] if reached == 0 else []), "the ingress, hop 0, turns the traffic over when all else is there"


def test_what_cannot_be_joined_is_said() -> None:
    host = {"kind": "host", "ip": "10.0.0.1", "mac": mac("h1")}
    nodes = {
        "h1": Node(**host),
        "h2": Node(**host | {"mac": mac("h2")}),
        "bare": Node(kind="host"),
        "s1": Node(kind="openflow-switch", dpid="0" * 16),
    }
    links = [
        Link(kind="ethernet", ends=("h1:1", "s1:1")),
        Link(kind="ethernet", ends=("h2:1", "s1")),
        Link(kind="ethernet", ends=("bare:1", "s1:3")),
    ]
    network = Topology("n", nodes, links)
    with pytest.raises(NoRoute, match="bare is no host with ip and mac"):
        plan("c", Connectivity(ends=("h1", "bare")), network, Ledger(), 0.0)
    with pytest.raises(NoRoute, match="names no port where the path passes s1; write its ends as s1:1"):
        plan("c", Connectivity(ends=("h1", "h2")), network, Ledger(), 0.0)


@given(networks())
def test_two_hosts_are_connected_once(network: Topology) -> None:
    try:
        first = plan("c", Connectivity(ends=("h1", "h2")), network, Ledger(), 0.0)
    except NoRoute:
        return
    ledger = Ledger().with_entry("c", first.reservations)
    with pytest.raises(NoRoute, match="connected by another service already"):
        plan("d", Connectivity(ends=("h2", "h1")), network, ledger, 0.0)
    assert plan("c", Connectivity(ends=("h1", "h2")), network, ledger.without(["c"]), 0.0) == first


def test_a_foreign_rule_that_takes_the_packets_first_is_named() -> None:
    mine = FlowRule(1000, (("eth_dst", mac("h2")), ("eth_src", mac("h1")), ("in_port", 1)), (("output", 2),), cookie("c"))
    standing = Plan({"s1": (mine,)}, frozenset(), {})

    def judged(*others: FlowRule) -> str:
        return serving("c", standing, {"s1": State(frozenset({mine, *others}))})

    assert judged() == ""
    assert judged(FlowRule(ARP_PRIORITY, (("in_port", 2),), (), 7), FlowRule(999, (), (), 7)) == ""
    assert judged(FlowRule(2000, (("in_port", 1),), (), cookie("d"))) == ""
    assert judged(FlowRule(2000, (("in_port", 1),), (), 7)) == (
        "a foreign rule on s1 takes its packets first: priority 2000, match {'in_port': 1}"
    )
