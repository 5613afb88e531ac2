from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import topologies
from controller.network import events
from controller.network.document import load
from controller.network.model import Link, Node
from controller.network.topology import Topology, UnknownName
from controller.routing.classical import classical
from controller.routing.refusal import NoRoute


def sandbox() -> Topology:
    return load(Path(topologies.__file__).parent / "sandbox.yaml")


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    nodes = {"h0": Node(kind="host"), "h1": Node(kind="host"), "h2": Node(kind="host")}
    nodes |= {f"s{number}": Node(kind="openflow-switch", dpid=f"{number:016x}") for number in range(draw(st.integers(0, 4)))}
    pairs = [(a, b) for a in nodes for b in nodes if a < b]
    links = [
        Link(
            kind="ethernet",
            id=f"l{number}",
            ends=(f"{a}:{number}", f"{b}:{number}"),
            latency_ms=draw(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.7])),
            admin=draw(st.sampled_from(["enabled", "enabled", "enabled", "draining"])),
        )
        for number, (a, b) in enumerate(draw(st.lists(st.sampled_from(pairs), max_size=10)))
    ]
    return Topology("random", nodes, links)


def every_path(topology: Topology, here: str, dst: str, seen: tuple[str, ...]) -> Iterator[list[Link]]:
    if here == dst:
        yield []
        return
    if here != seen[0] and topology.node(here).kind != "openflow-switch":
        return
    for link in topology.links("ethernet"):
        if here in link.nodes and topology.usable(link):
            there = next(name for name in link.nodes if name != here)
            if there not in seen:
                yield from ([link, *rest] for rest in every_path(topology, there, dst, (*seen, there)))


@settings(deadline=None)
@given(networks())
def test_no_path_is_faster_or_as_fast_and_shorter(topology: Topology) -> None:
    paths = [(round(sum(link.latency_ms or 0 for link in path), 6), len(path)) for path in every_path(topology, "h0", "h1", ("h0",))]
    if not paths:
        with pytest.raises(NoRoute) as refused:
            classical(topology, "h0", "h1")
        assert refused.value.constraint == "reachability"
        return
    route = classical(topology, "h0", "h1")
    assert (round(route.latency_ms, 6), len(route.links)) == min(paths)
    for here, there, link in zip(route.nodes, route.nodes[1:], route.links, strict=False):
        assert set(topology.link(link).nodes) == {here, there}


def test_sandbox_takes_the_two_fast_links() -> None:
    route = classical(sandbox(), "h1", "h4")
    assert route.nodes == ("h1", "s1", "s2", "s3", "h4")
    assert route.latency_ms == pytest.approx(0.01 + 0.1 + 0.05 + 0.01)
    assert route.ports == (("h1:1", "s1:1"), ("s1:11", "s2:11"), ("s2:12", "s3:12"), ("s3:1", "h4:1"))
    assert list(route.to_json())[:3] == ["nodes", "links", "latency_ms"]
    assert any("0.1 ms (assumed)" in line for line in route.explanation)


def test_of_equally_fast_paths_the_one_of_fewest_hops_is_taken() -> None:
    nodes = {name: Node(kind="openflow-switch", dpid=f"{number:016x}") for number, name in enumerate("abcz")}
    ends = [("a:1", "b:1"), ("b:2", "c:1"), ("c:2", "z:1"), ("a:2", "c:3")]
    links = [Link(kind="ethernet", ends=pair, latency_ms=latency) for pair, latency in zip(ends, (0.1, 0.2, 0.1, 0.3), strict=True)]
    assert classical(Topology("tie", nodes, links), "a", "z").nodes == ("a", "c", "z")


def test_a_link_that_is_down_is_avoided() -> None:
    topology = sandbox()
    topology.apply(events.LinkStateChanged("ethernet:s1--s2", up=False))
    assert classical(topology, "h1", "h4").nodes == ("h1", "s1", "s3", "h4")
    topology.apply(events.AdminChanged("node", "s3", "draining"))
    with pytest.raises(NoRoute):
        classical(topology, "h1", "h4")


def test_hosts_do_not_forward_and_names_are_checked() -> None:
    nodes = {name: Node(kind="host") for name in "abc"}
    topology = Topology("line", nodes, [Link(kind="ethernet", ends=("a:1", "b:1")), Link(kind="ethernet", ends=("b:2", "c:1"))])
    assert classical(topology, "a", "b").latency_ms == 0
    with pytest.raises(NoRoute):
        classical(topology, "a", "c")
    with pytest.raises(NoRoute):
        classical(topology, "a", "a")
    with pytest.raises(UnknownName):
        classical(topology, "a", "d")
