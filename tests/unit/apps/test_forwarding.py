"""Forwarding judged by what comes out: frames go through a flow-table pipeline that knows nothing of the planner."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.forwarding import QUESTION_PRIORITY, Connectivity, plan, serving
from controller.network.model import Link, Node
from controller.network.topology import Topology
from controller.routing.refusal import NoRoute
from controller.services.app import Entry, FlowRule, Ledger, Plan, State, cookie
from controller.southbound.device import Meter
from tests.unit.apps.forwarded import advertisement, arp, echo, fabric, ip, ipv6, mac, packet, solicitation

HOSTS = ("h1", "h2", "h3")


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    """Switches joined by a random tree and some links more, three hosts on random switches, some links down for works."""
    switches = [f"s{number}" for number in range(1, draw(st.integers(1, 5)) + 1)]
    nodes = {name: Node(kind="openflow-switch", dpid=f"{number:016x}") for number, name in enumerate(switches, 1)}
    vlan = draw(st.sampled_from([None, 1, 100, 4094]))
    nodes |= {host: Node(kind="host", mac=mac(host), ip=ip(host), ipv6=ipv6(host), vlan=vlan) for host in HOSTS}
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


def sent(network: Topology, plans: list[Plan], frame: bytes, host: str) -> list[tuple[str, bytes]]:
    """The hosts at which a frame from a host comes out, and as what."""
    return fabric(network, plans).send(frame, (host, 1)).arrived


def line(**hosts: dict[str, object]) -> Topology:
    """Hosts h1, h2, ... in a row, at switches s1, s2, ... joined in a row by links of 100 Mbit/s."""
    nodes: dict[str, Node] = {}
    links = []
    for number, (name, fields) in enumerate(hosts.items(), 1):
        nodes[name] = Node(kind="host", **{"mac": mac(name), "ip": ip(name), **fields})  # type: ignore[arg-type]
        nodes[f"s{number}"] = Node(kind="openflow-switch", dpid=f"{number:016x}")
        links.append(Link(kind="ethernet", ends=(f"{name}:1", f"s{number}:1"), capacity_mbps=1000))
        if number > 1:
            links.append(Link(kind="ethernet", id=f"l{number}", ends=(f"s{number - 1}:3", f"s{number}:2"), capacity_mbps=100))
    return Topology("line", nodes, links)


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
            if a == b:
                continue
            for frame in (packet(a, b), arp(a, b, reply=True), advertisement(a, b), echo(a, b)):
                assert sent(network, together, frame, a) == ([(b, frame)] if frozenset((a, b)) in joined else [])
            for question in (arp(a, b), solicitation(a, b)):  # addressed to the one asked, or nobody hears it
                assert sent(network, together, question, a) == (
                    [(b, packet(a, b)[:6] + question[6:])] if frozenset((a, b)) in joined else []
                )
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
        assert there == ([("h2", packet("h1", "h2"))] if reached == 0 else []), (
            "the ingress, hop 0, turns the traffic over when all else is there"
        )


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
    with pytest.raises(NoRoute, match="bare is no host with mac and ip or ipv6"):
        plan("c", Connectivity(ends=("h1", "bare")), network, Ledger(), 0.0)
    with pytest.raises(NoRoute, match="names no port where the path passes s1; write its ends as s1:1"):
        plan("c", Connectivity(ends=("h1", "h2")), network, Ledger(), 0.0)


def test_hosts_are_joined_by_the_family_of_addresses_that_both_have() -> None:
    six = {"ip": None, "ipv6": "FD00:0:0::1"}
    network = line(h1=six, h2={"ipv6": ipv6("h2")}, h3={})
    joined = plan("c", Connectivity(ends=("h1", "h2")), network, Ledger(), 0.0)
    for frame in (echo("h1", "h2"), advertisement("h1", "h2")):
        assert sent(network, [joined], frame, "h1") == [("h2", frame)]
    assert [host for host, _ in sent(network, [joined], solicitation("h2", "h1"), "h2")] == ["h1"]
    with pytest.raises(NoRoute, match="h1 and h3 have no address of one family: give both ip, or both ipv6"):
        plan("c", Connectivity(ends=("h1", "h3")), network, Ledger(), 0.0)


def test_vlans_are_tags_between_switches_and_nowhere_else() -> None:
    network = line(h1={"vlan": 7}, h2={"vlan": 7}, h3={"vlan": 8})
    joined = plan("c", Connectivity(ends=("h1", "h2")), network, Ledger(), 0.0)
    whole = fabric(network, [joined])
    assert whole.switches["s1"].send(packet("h1", "h2"), 1) == [(3, packet("h1", "h2", vlan=7))]
    assert whole.switches["s2"].send(packet("h1", "h2", vlan=7), 2) == [(1, packet("h1", "h2"))]
    assert whole.switches["s2"].send(packet("h1", "h2", vlan=8), 2) == []
    assert whole.switches["s2"].send(packet("h1", "h2"), 2) == []
    for vlan in (7, 8):
        assert whole.send(packet("h1", "h2", vlan=vlan), ("h1", 1)).arrived == [], "an access port takes no tags"
        assert whole.send(arp("h1", "h2", vlan=vlan), ("h1", 1)).arrived == []
    with pytest.raises(NoRoute, match="hosts are joined within one VLAN: h1 is in VLAN 7, h3 is in VLAN 8") as refused:
        plan("c", Connectivity(ends=("h1", "h3")), network, Ledger(), 0.0)
    assert refused.value.constraint == "vlan"
    with pytest.raises(NoRoute, match="h1 is in VLAN 7, h2 is in none"):
        plan("c", Connectivity(ends=("h1", "h2")), line(h1={"vlan": 7}, h2={}), Ledger(), 0.0)


def test_without_a_vlan_tags_of_the_hosts_own_pass() -> None:
    network = line(h1={}, h2={})
    joined = plan("c", Connectivity(ends=("h1", "h2")), network, Ledger(), 0.0)
    assert sent(network, [joined], packet("h1", "h2", vlan=5), "h1") == [("h2", packet("h1", "h2", vlan=5))]


@pytest.mark.parametrize("switches", [1, 2])
def test_a_rate_is_held_at_the_entrance_in_each_direction_and_questions_pass(switches: int) -> None:
    network = line(h1={}, h2={}) if switches == 2 else one_switch()
    kbps, size = 1000, 1250
    joined = plan("c", Connectivity(ends=("h1", "h2"), max_rate_kbps=kbps), network, Ledger(), 0.0)
    whole = fabric(network, [joined])
    for a, b in (("h1", "h2"), ("h2", "h1")):
        arrived = sum(len(whole.send(packet(a, b, size=size - 14), (a, 1), now_s=n / 400).arrived) for n in range(4000))
        assert arrived * 8 * size / 1000 == pytest.approx(10 * kbps + 200, rel=0.02), "4 Mbit/s are offered for 10 s"
        assert len(whole.send(packet(a, b, size=size - 14), (a, 1), now_s=10.0).arrived) == 0
        assert len(whole.send(arp(a, b), (a, 1), now_s=10.0).arrived) == 1


def one_switch() -> Topology:
    nodes = {name: Node(kind="host", mac=mac(name), ip=ip(name)) for name in ("h1", "h2")}
    nodes["s1"] = Node(kind="openflow-switch", dpid="0" * 15 + "1")
    return Topology("one", nodes, [Link(kind="ethernet", ends=(f"h{port}:1", f"s1:{port}")) for port in (1, 2)])


def test_promised_rates_come_out_of_the_capacity_of_links() -> None:
    network = line(h1={}, h2={}, h3={})
    ledger = Ledger()
    for number, (ends, rate) in enumerate(((("h1", "h3"), 60.0), (("h1", "h2"), 40.0))):
        ledger = ledger.with_entry(
            f"c{number}", Entry(plan(f"c{number}", Connectivity(ends=ends, rate_mbps=rate), network, ledger, 0.0).reservations)
        )
    with pytest.raises(NoRoute, match=r"from h2 to h3 has 40\.5 Mbit/s free") as refused:
        plan("d", Connectivity(ends=("h2", "h3"), rate_mbps=40.5), network, ledger, 0.0)
    assert (refused.value.constraint, refused.value.best) == ("rate_mbps", 40.0)
    plan("d", Connectivity(ends=("h2", "h3"), rate_mbps=40.0), network, ledger, 0.0)
    plan("d", Connectivity(ends=("h2", "h3")), network, ledger.with_entry("d", Entry({"ethernet:l3": 40.0})), 0.0)


def test_a_path_that_takes_too_long_is_refused_with_what_the_best_takes() -> None:
    flat = line(h1={}, h2={}, h3={})
    network = Topology("line", dict(flat.nodes()), [replace(link, latency_ms=0.25) for link in flat.links()])
    least_ms = float(plan("c", Connectivity(ends=("h1", "h3")), network, Ledger(), 0.0).route["latency_ms"])
    assert least_ms > 0
    within = Connectivity(ends=("h1", "h3"), max_latency_ms=least_ms)
    assert plan("c", within, network, Ledger(), 0.0).route["latency_ms"] == least_ms
    with pytest.raises(NoRoute, match=r"h1 and h3 are too far apart: the path of least latency takes .* ms are allowed") as refused:
        plan("c", Connectivity(ends=("h1", "h3"), max_latency_ms=0.99 * least_ms), network, Ledger(), 0.0)
    assert (refused.value.constraint, refused.value.best) == ("max_latency_ms", least_ms)


def test_a_meter_has_a_number_that_nobody_else_has_on_its_switch() -> None:
    network = line(h1={}, h2={})
    request = Connectivity(ends=("h1", "h2"), max_rate_kbps=500)
    first = plan("c", request, network, Ledger(), 0.0)
    assert plan("c", request, network, Ledger(), 0.0) == first
    (meter,) = (item for item in first.desired["s1"] if isinstance(item, Meter))
    taken = Ledger().with_entry("other", Entry({f"meter:s1:{meter.number}": 1.0}))
    second = plan("c", request, network, taken, 0.0)
    (other,) = (item for item in second.desired["s1"] if isinstance(item, Meter))
    assert other == replace(meter, number=other.number)
    assert other.number != meter.number
    assert other.ours
    assert second.desired["s2"] == first.desired["s2"]
    assert sent(network, [second], packet("h1", "h2"), "h1") == [("h2", packet("h1", "h2"))]


@given(networks())
def test_two_hosts_are_connected_once(network: Topology) -> None:
    try:
        first = plan("c", Connectivity(ends=("h1", "h2")), network, Ledger(), 0.0)
    except NoRoute:
        return
    ledger = Ledger().with_entry("c", Entry(first.reservations))
    with pytest.raises(NoRoute, match="connected by another service already"):
        plan("d", Connectivity(ends=("h2", "h1")), network, ledger, 0.0)
    assert plan("c", Connectivity(ends=("h1", "h2")), network, ledger.without(["c"]), 0.0) == first


def test_a_foreign_rule_that_takes_the_packets_first_is_named() -> None:
    mine = FlowRule(1000, (("eth_dst", mac("h2")), ("eth_src", mac("h1")), ("in_port", 1)), (("output", 2),), cookie("c"))
    standing = Plan({"s1": (mine,)}, frozenset(), {})

    def judged(*others: FlowRule) -> str:
        return serving("c", standing, {"s1": State(frozenset({mine, *others}))})

    assert judged() == ""
    assert judged(FlowRule(QUESTION_PRIORITY, (("in_port", 2),), (), 7), FlowRule(999, (), (), 7)) == ""
    assert judged(FlowRule(2000, (("in_port", 1),), (), cookie("d"))) == ""
    assert judged(FlowRule(2000, (("in_port", 1),), (), 7)) == (
        "a foreign rule on s1 takes its packets first: priority 2000, match {'in_port': 1}"
    )
