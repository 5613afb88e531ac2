from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import topologies
from controller.network import events
from controller.network.document import load, parse
from controller.network.model import Link, Node
from controller.network.topology import Topology, UnknownName
from controller.routing.light import ways as ways_module
from controller.routing.lightpath import light
from controller.routing.refusal import NoRoute

Port = tuple[str, str]


def sandbox() -> Topology:
    return load(Path(topologies.__file__).parent / "sandbox.yaml")


@st.composite
def plants(draw: st.DrawFn) -> Topology:
    """Two nodes `a` and `b` of one port each, and switches and splitters whose ports are joined at random."""
    nodes = {"a": Node(kind="end-node"), "b": Node(kind="end-node")}
    for number in range(draw(st.integers(1, 4))):
        loss = draw(st.sampled_from([0.0, 0.5, 0.8]))
        kind = draw(st.sampled_from(["dual", "dual", "single", "passive"]))
        if kind == "passive":
            losses = draw(st.dictionaries(st.sampled_from(["1-2", "3-1", "2-4"]), st.sampled_from([0.2, 3.4])))
            nodes[f"p{number}"] = Node(kind="passive", ports=4, losses_db=losses, insertion_loss_db=draw(st.none() | st.just(1.0)))
        else:
            sides = "single" if kind == "single" else None
            nodes[f"o{number}"] = Node(kind="optical-switch", ports=4, sides=sides, insertion_loss_db=loss)
    ports = ["a:1", "b:1", *(f"{name}:{port}" for name in nodes if name not in "ab" for port in range(1, 5))]
    shuffled = draw(st.permutations(ports))
    links = [
        Link(
            kind="fibre",
            id=f"f{number}",
            ends=ends,
            loss_db=draw(st.sampled_from([0.1, 0.2, 1.0, 2.5])),
            admin=draw(st.sampled_from(["enabled"] * 6 + ["disabled"])),
        )
        for number, ends in enumerate(zip(shuffled[::2], shuffled[1::2], strict=False))
        if ends[0].split(":")[0] != ends[1].split(":")[0]
    ]
    return Topology("random", nodes, links)


def inside(node: Node, port: int, other: int) -> float | None:
    if node.kind == "passive":
        for pair, loss in node.losses_db.items():
            if set(pair.split("-")) == {str(port), str(other)}:
                return loss
        return node.insertion_loss_db
    if node.kind != "optical-switch" or (node.sides is None and (port <= 2) == (other <= 2)):
        return None
    return node.insertion_loss_db


def every_loss(topology: Topology, here: Port, dst: Port, used: frozenset[Port]) -> Iterator[float]:
    """The loss of every way to dst for light that leaves `here` over glass, no port used twice."""
    for link in topology.links("fibre"):
        ends = [(end.node, end.port or "") for end in (link.a, link.b)]
        if here not in ends or not topology.usable(link):
            continue
        there = ends[1] if ends[0] == here else ends[0]
        if there in used:
            continue
        loss = link.loss_db or 0.0
        if there == dst:
            yield loss
            continue
        node = topology.node(there[0])
        for port in range(1, 5):
            crossing = None if port == int(there[1]) else inside(node, int(there[1]), port)
            out = (there[0], str(port))
            if crossing is not None and out not in used:
                yield from (loss + crossing + rest for rest in every_loss(topology, out, dst, used | {there, out}))


ports_in_use = st.frozensets(st.tuples(st.sampled_from(["o0", "o1", "p1"]), st.sampled_from("1234")), max_size=2)


@settings(max_examples=300, deadline=None)
@given(plants(), ports_in_use)
def test_no_lightpath_loses_less(topology: Topology, taken: frozenset[Port]) -> None:
    losses = list(every_loss(topology, ("a", "1"), ("b", "1"), taken | {("a", "1")}))
    untaken = list(every_loss(topology, ("a", "1"), ("b", "1"), frozenset({("a", "1")})))
    try:
        route = light(topology, "a", "b", taken=taken)
    except UnknownName:
        raise
    except NoRoute as refused:
        assert not losses
        assert refused.constraint == ("ports" if untaken else "reachability")
        return
    assert route.loss_db == pytest.approx(min(losses))
    assert len(set(route.ports)) == len(route.ports)
    assert taken.isdisjoint(tuple(port.split(":")) for port in route.ports)
    for each in route.cross_connects:
        if topology.node(each.switch).sides != "single":
            assert each.ingress <= 2 < each.egress


def test_sandbox_takes_the_shorter_trunk() -> None:
    route = light(sandbox(), "alice", "bob")
    assert list(route.to_json())[:4] == ["nodes", "links", "cross_connects", "loss_db"]
    assert route.to_json()["cross_connects"] == [
        {"switch": "ocs1", "ingress": 1, "egress": 9},
        {"switch": "ocs2", "ingress": 1, "egress": 9},
    ]
    assert route.nodes == ("alice", "ocs1", "ocs2", "bob")
    assert route.links == ("trunk-a",)
    assert route.loss_db == pytest.approx(25 * 0.2 + 2 * 0.8)
    assert (route.wavelength_nm, route.budget_db) == (1550.12, 14)
    assert any("0.8 dB inside (assumed)" in line for line in route.explanation)
    assert light(sandbox(), "bob:q9", "alice/q9").cross_connects == route.cross_connects[::-1]
    assert light(sandbox(), "ocs1:1", "ocs2:9").cross_connects == route.cross_connects


def test_sandbox_takes_the_other_trunk_where_the_first_is_taken_down_or_drained() -> None:
    assert light(sandbox(), "alice", "bob", taken={("ocs2", "1")}).links == ("trunk-b",)
    for event in (events.LinkStateChanged("trunk-a", up=False), events.AdminChanged("link", "trunk-a", "draining")):
        topology = sandbox()
        topology.apply(event)
        assert light(topology, "alice", "bob").links == ("trunk-b",)


def refusal(topology: Topology, *ends: str, **wanted: Any) -> NoRoute:
    with pytest.raises(NoRoute) as refused:
        light(topology, *ends, **wanted)
    return refused.value


def test_refusals_name_the_constraint_and_the_best() -> None:
    over = refusal(sandbox(), "alice", "bob", max_loss_db=6.5)
    assert (over.constraint, over.best) == ("loss_db", pytest.approx(6.6))
    over_with_taken = refusal(sandbox(), "alice", "bob", max_loss_db=6.7, taken={("ocs1", "9")})
    assert (over_with_taken.constraint, over_with_taken.best) == ("loss_db", pytest.approx(8.0))
    assert refusal(sandbox(), "alice", "bob", taken={("ocs1", "1")}).constraint == "ports"
    assert refusal(sandbox(), "alice", "bob", taken={("bob", "q9")}).constraint == "ports"
    assert refusal(sandbox(), "alice", "relay1").constraint == "reachability"
    assert refusal(sandbox(), "alice", "alice").constraint == "reachability"
    assert refusal(sandbox(), "s1", "s2").constraint == "reachability"
    disabled = sandbox()
    disabled.apply(events.AdminChanged("node", "ocs2", "disabled"))
    assert refusal(disabled, "alice", "bob").constraint == "reachability"


@pytest.mark.parametrize("end", ["carol", "ocs1:17", "ocs1:0", "ocs1:01", "ocs1:x", "alice/q1", "relay1:4"])
def test_unknown_ends(end: str) -> None:
    with pytest.raises(UnknownName):
        light(sandbox(), end, "bob")


TWO_RECEIVERS = """
name: receivers
nodes:
  a: {kind: end-node, modules: {t1: {role: tx, port: "o:1", max_loss_db: 20}, t2: {role: tx, technology: cow, port: "o:2"}}}
  b: {kind: end-node, modules: {r1: {role: rx, wavelength_nm: 1310, port: "o:5"}, r2: {role: rx, wavelength_nm: 1550.9}, r3: {role: tx, port: "o:7"}}}
  o: {kind: optical-switch, ports: 8, insertion_loss_db: 1}
links:
  - {kind: fibre, ends: ["o:6", "b:r2"], loss_db: 4, source: measured once}
"""


def test_only_modules_that_fit_are_joined() -> None:
    topology = parse(TWO_RECEIVERS)
    route = light(topology, "a", "b")
    assert route.ports == ("a:t1", "o:1", "o:6", "b:r2")
    assert (route.loss_db, route.budget_db, route.wavelength_nm) == (5, 20, 1550)
    assert any("4 dB (declared, measured once)" in line for line in route.explanation)
    for ends in (("a/t2", "b"), ("a/t1", "b/r1"), ("a/t1", "b/r3")):
        assert refusal(topology, *ends).constraint == "reachability"
    topology.apply(events.LinkStateChanged(topology.links("fibre").__next__().id, up=False))
    assert refusal(topology, "a", "b").constraint == "reachability"


def test_a_fibre_straight_between_nodes_needs_no_switch() -> None:
    route = light(sandbox(), "relay1", "relay2")
    assert (route.nodes, route.links, route.cross_connects) == (("relay1", "relay2"), ("fibre:relay1--relay2",), ())
    assert (route.ports, route.budget_db) == (("relay1", "relay2"), None)


def test_light_does_not_come_back_through_a_port_it_left_by() -> None:
    """a and b are on one side of switch o: light must go out and come back, and the cheapest way back is the fibre it went out on."""
    switch = Node(kind="optical-switch", ports=4, insertion_loss_db=0.5)
    nodes = {
        "a": Node(kind="end-node"),
        "b": Node(kind="end-node"),
        "o": switch,
        "x": switch,
        "y": Node(kind="passive", losses_db={"1-2": 0.1}),
    }
    fibres = {("a:1", "o:1"): 0.1, ("b:1", "o:2"): 0.1, ("o:3", "x:1"): 0.1, ("x:3", "y:1"): 0.1, ("y:2", "x:4"): 0.1}
    links = [Link(kind="fibre", id="-".join(ends), ends=ends, loss_db=loss) for ends, loss in fibres.items()]
    assert refusal(Topology("loop", nodes, links), "a", "b").constraint == "reachability"
    second = Link(kind="fibre", id="second", ends=("x:2", "o:4"), loss_db=9)
    route = light(Topology("loops", nodes, [*links, second]), "a", "b")
    assert route.ports == ("a:1", "o:1", "o:3", "x:1", "x:3", "y:1", "y:2", "x:4", "x:2", "o:4", "o:2", "b:1")
    assert route.loss_db == pytest.approx(5 * 0.1 + 4 * 0.5 + 0.1 + 9)


def test_a_search_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways_module, "MAX_STEPS", 2)
    assert "too many loops" in str(refusal(sandbox(), "alice", "bob"))
