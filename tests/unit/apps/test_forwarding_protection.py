"""Fast failover judged by what comes out of a network whose links are cut after its rules were set: no controller helps."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from apps.forwarding import Connectivity, plan
from controller.network.model import Link, Node
from controller.network.topology import Topology
from controller.routing.refusal import NoRoute
from controller.services.app import Entry, FlowRule, Ledger, Plan
from controller.southbound.device import Group
from tests.unit.apps.forwarded import advertisement, arp, fabric, ip, ipv6, mac, packet, solicitation


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    """Up to seven switches in a tree with links across, parallel ones among them; a host at the first and one at the last."""
    switches = [f"s{number}" for number in range(1, draw(st.integers(2, 7)) + 1)]
    vlan = draw(st.sampled_from([None, 100]))
    nodes = {name: Node(kind="openflow-switch", dpid=f"{number:016x}") for number, name in enumerate(switches, 1)}
    nodes |= {host: Node(kind="host", mac=mac(host), ip=ip(host), ipv6=ipv6(host), vlan=vlan) for host in ("h1", "h2")}
    apart = st.tuples(st.sampled_from(switches), st.sampled_from(switches)).filter(lambda pair: pair[0] != pair[1])
    pairs = [(switches[draw(st.integers(0, number - 1))], switches[number]) for number in range(1, len(switches))]
    pairs += draw(st.lists(apart, min_size=1, max_size=8))
    pairs += [("h1", switches[0]), ("h2", switches[-1])]
    next_port = dict.fromkeys(nodes, 0)

    def port(name: str) -> str:
        next_port[name] += 1
        return f"{name}:{next_port[name]}"

    links = [
        Link(
            kind="ethernet", id=f"l{number}", ends=(port(a), port(b)), latency_ms=draw(st.sampled_from([0.1, 0.2, 1.0])), capacity_mbps=100
        )
        for number, (a, b) in enumerate(pairs)
    ]
    return Topology("random", nodes, links)


def protected(network: Topology, disjoint: str) -> Plan:
    """The plan; the example is given up where there are no two such paths."""
    request = Connectivity(ends=("h1", "h2"), protection="fast-failover", disjoint=disjoint)  # type: ignore[arg-type]
    try:
        return plan("c", request, network, Ledger(), 0.0)
    except NoRoute as no:
        assert no.constraint == "disjoint"
        assume(False)
        raise


def conversation(a: str, b: str) -> list[bytes]:
    return [arp(a, b), arp(a, b, reply=True), solicitation(a, b), advertisement(a, b), packet(a, b)]


def reached(network: Topology, each: Plan, cut: list[str]) -> bool:
    """Whether all that two hosts say to each other comes out at the other, once, and nowhere else."""
    whole = fabric(network, [each], cut)
    return all(
        whole.send(frame, (a, 1)).arrived == [(b, packet(a, b)[:6] + frame[6:])]
        for a, b in (("h1", "h2"), ("h2", "h1"))
        for frame in conversation(a, b)
    )


@given(networks(), st.sampled_from(["node", "link"]))
def test_any_link_of_either_path_may_be_cut(network: Topology, disjoint: str) -> None:
    both = protected(network, disjoint)
    working, spare = both.route["links"][1:-1], both.route["protection"]["links"][1:-1]
    assert not set(working) & set(spare)
    assert reached(network, both, [])
    for link in (*working, *spare):
        assert reached(network, both, [link]), f"without {link}"


@given(networks())
def test_any_switch_that_the_paths_do_not_share_may_fail(network: Topology) -> None:
    both = protected(network, "node")
    for switch in {*both.route["nodes"][2:-2], *both.route["protection"]["nodes"][2:-2]}:
        assert reached(network, both, [link.id for link in network.links() if switch in link.nodes]), f"without {switch}"


@given(networks(), st.sampled_from(["node", "link"]), st.data())
def test_whatever_is_cut_no_packet_goes_round_or_astray(network: Topology, disjoint: str, data: st.DataObject) -> None:
    both = protected(network, disjoint)
    cut = data.draw(st.lists(st.sampled_from([link.id for link in network.links()]), unique=True))
    whole = fabric(network, [both], cut)
    for a, b in (("h1", "h2"), ("h2", "h1")):
        for frame in conversation(a, b):
            journey = whole.send(frame, (a, 1))  # raises ForwardingLoop
            assert journey.arrived in ([], [(b, packet(a, b)[:6] + frame[6:])])
            assert journey.packet_ins == []


@given(networks(), st.sampled_from(["node", "link"]))
def test_two_paths_are_found_whenever_there_are_two(network: Topology, disjoint: str) -> None:
    request = Connectivity(ends=("h1", "h2"), protection="fast-failover", disjoint=disjoint)  # type: ignore[arg-type]
    switches = network.graph.subgraph([name for name, _ in network.nodes("openflow-switch")])
    first, last = "s1", max(switches)
    if disjoint == "link":
        simple: nx.Graph[str] = nx.Graph()
        for number, (a, b) in enumerate(switches.edges()):
            nx.add_path(simple, [a, f"{a}{b}{number}", b])
        there = nx.edge_connectivity(simple, first, last) > 1
    else:
        direct = switches.number_of_edges(first, last)
        rest: nx.Graph[str] = nx.Graph(switches)
        if direct:
            rest.remove_edge(first, last)
        there = direct + nx.node_connectivity(rest, first, last) > 1
    if there:
        assert plan("c", request, network, Ledger(), 0.0).route["protection"]
        return
    with pytest.raises(NoRoute, match=f"have no {disjoint} in common") as refused:
        plan("c", request, network, Ledger(), 0.0)
    assert refused.value.constraint == "disjoint"


@given(networks(), st.sampled_from(["node", "link"]))
def test_while_rules_come_in_stages_a_packet_arrives_or_stops(network: Topology, disjoint: str) -> None:
    """Also when a link is cut meanwhile: once the entrance is set, all that the packet may meet is there."""
    both = protected(network, disjoint)
    rules = [(name, item) for name, items in both.desired.items() for item in items if isinstance(item, FlowRule)]
    entrances = {(name, dict(rule.match)["in_port"]) for name, rule in rules if not rule.hop}
    links = (network.link(both.route["links"][0]), network.link(both.route["links"][-1]))
    assert entrances == {(link.b.node, int(link.b.port or 0)) for link in links}, "alone in the last stage"
    hops = {rule.hop for _, rule in rules}
    for stage in sorted(hops, reverse=True):
        part = {name: tuple(i for i in items if not isinstance(i, FlowRule) or i.hop >= stage) for name, items in both.desired.items()}
        for cut in ([], *([link] for link in both.route["links"][1:-1])):
            arrived = fabric(network, [Plan(part, frozenset(), {})], cut).send(packet("h1", "h2"), ("h1", 1)).arrived
            assert arrived == ([("h2", packet("h1", "h2"))] if stage == 0 else [])


@given(networks(), st.sampled_from(["node", "link"]))
def test_items_are_told_apart_and_bellhops_own(network: Topology, disjoint: str) -> None:
    both = protected(network, disjoint)
    items = [(name, item) for name, items in both.desired.items() for item in items]
    assert len({(name, item.key) for name, item in items}) == len(items)
    assert all(item.ours for _, item in items)
    named = {(name, item.number) for name, item in items if isinstance(item, Group)}
    used = {(name, value) for name, item in items if isinstance(item, FlowRule) for action, value in item.actions if action == "group"}
    assert named == used
    assert {resource for resource in both.reservations if resource.startswith("group:")} == {f"group:{n}:{number}" for n, number in named}


def ring(size: int, capacity_mbps: float = 100) -> Topology:
    nodes = {f"s{n}": Node(kind="openflow-switch", dpid=f"{n:016x}") for n in range(1, size + 1)}
    nodes |= {host: Node(kind="host", mac=mac(host), ip=ip(host)) for host in ("h1", "h2")}
    around = [*(f"s{n}" for n in range(1, size + 1)), "s1"]
    links = [Link(kind="ethernet", ends=(f"{a}:2", f"{b}:3"), latency_ms=1, capacity_mbps=capacity_mbps) for a, b in pairwise(around)]
    links += [Link(kind="ethernet", ends=("h1:1", "s1:1"), latency_ms=0.5, capacity_mbps=1000)]
    links += [Link(kind="ethernet", ends=("h2:1", "s3:1"), latency_ms=0.25, capacity_mbps=1000)]
    return Topology("ring", nodes, links)


def test_both_paths_are_told_and_touched() -> None:
    network = ring(5)
    both = plan("c", Connectivity(ends=("h1", "h2"), protection="fast-failover"), network, Ledger(), 0.0)
    assert both.route["nodes"] == ["h1", "s1", "s2", "s3", "h2"]
    assert both.route["protection"]["nodes"] == ["h1", "s1", "s5", "s4", "s3", "h2"]
    assert (both.route["latency_ms"], both.route["protection"]["latency_ms"]) == (2.75, 3.75)
    assert both.touches == set(network.graph) | {link.id for link in network.links()}
    assert len(both.explanation) == (4 + 1) + (5 + 1), "a line a link, and what most of the latency is on"
    assert both.explanation[0].startswith("h1:1 -> s1:1: 0.5 ms")
    assert both.explanation[3].startswith("s3:1 -> h2:1: 0.25 ms")


def test_a_promise_holds_on_both_paths() -> None:
    network = ring(4)
    request = Connectivity(ends=("h1", "h2"), protection="fast-failover", rate_mbps=60)
    first = plan("c", request, network, Ledger(), 0.0)
    promised = {resource for resource in first.reservations if resource.startswith("ethernet:")}
    assert promised == {f"ethernet:{link.id}" for link in network.links()}
    with pytest.raises(NoRoute) as refused:
        plan("c", request, ring(4, 50), Ledger(), 0.0)
    assert (refused.value.constraint, refused.value.best) == ("rate_mbps", 50)
    taken = Ledger().with_entry("other", Entry({"ethernet:ethernet:s4--s1": 41.0}))
    with pytest.raises(NoRoute, match="no two paths") as refused:
        plan("c", request, network, taken, 0.0)
    assert refused.value.constraint == "disjoint"


def test_hosts_at_one_switch_have_nothing_to_protect() -> None:
    nodes = {name: Node(kind="host", mac=mac(name), ip=ip(name)) for name in ("h1", "h2")} | {
        "s1": Node(kind="openflow-switch", dpid="1" * 16)
    }
    network = Topology("one", nodes, [Link(kind="ethernet", ends=(f"h{port}:1", f"s1:{port}")) for port in (1, 2)])
    only = plan("c", Connectivity(ends=("h1", "h2"), protection="fast-failover"), network, Ledger(), 0.0)
    assert only.route["protection"] is None
    assert fabric(network, [only]).send(packet("h1", "h2"), ("h1", 1)).arrived == [("h2", packet("h1", "h2"))]
