from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import topologies
from controller.network import events
from controller.network.document import load
from controller.network.model import Link, Node
from controller.network.topology import Topology, UnknownName
from controller.routing.classical import classical, disjoint_pair, k_shortest
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


def sizes(topology: Topology, paths: list[list[Link]]) -> list[tuple[int, int]]:
    return [(sum(round((link.latency_ms or 0) * 10**9) for link in path), len(path)) for path in paths]


def in_order(topology: Topology, src: str, dst: str) -> list[tuple[tuple[int, int], tuple[str, ...], tuple[str, ...]]]:
    """Every simple path: size, nodes, links."""
    found = []
    for path in every_path(topology, src, dst, (src,)):
        nodes = [src]
        for link in path:
            nodes.append(next(name for name in link.nodes if name != nodes[-1]))
        found.append((sizes(topology, [path])[0], tuple(nodes), tuple(link.id for link in path)))
    return sorted(found)


@pytest.mark.parametrize("exact", [2.0**53, 0.0])
@settings(deadline=None, max_examples=300)
@given(topology=networks(), k=st.integers(1, 12))
def test_the_k_shortest_are_the_first_of_all(exact: float, topology: Topology, k: int) -> None:
    every = in_order(topology, "h0", "h1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("controller.routing.classical._EXACT", exact)  # 0: latency and hops never fit in one number
        if not every:
            with pytest.raises(NoRoute):
                k_shortest(topology, "h0", "h1", k)
            return
        routes = k_shortest(topology, "h0", "h1", k)
        best = classical(topology, "h0", "h1")
    assert [(route.nodes, route.links) for route in routes] == [(nodes, links) for _, nodes, links in every[:k]]
    assert routes[0] == best


@settings(deadline=None, max_examples=300)
@given(networks(), st.sampled_from(["node", "link"]))
def test_no_disjoint_pair_is_faster(topology: Topology, by: Literal["node", "link"]) -> None:
    def apart(one: list[Link], other: list[Link]) -> bool:
        inner = [{name for link in path for name in link.nodes} - {"h0", "h1"} for path in (one, other)]
        return not {link.id for link in one} & {link.id for link in other} and (by == "link" or not inner[0] & inner[1])

    every = list(every_path(topology, "h0", "h1", ("h0",)))
    pairs = [pair for pair in combinations(every, 2) if apart(*pair)]
    if not pairs:
        with pytest.raises(NoRoute) as refused:
            disjoint_pair(topology, "h0", "h1", by=by)
        assert refused.value.constraint == ("disjoint" if every else "reachability")
        return
    routes = disjoint_pair(topology, "h0", "h1", by=by)
    chosen = [[topology.link(link) for link in route.links] for route in routes]
    assert all(path in every for path in chosen) and apart(*chosen)
    totals = [tuple(map(sum, zip(*sizes(topology, list(pair)), strict=True))) for pair in pairs]
    assert tuple(map(sum, zip(*sizes(topology, chosen), strict=True))) == min(totals)
    assert routes[0].latency_ms <= routes[1].latency_ms


@settings(deadline=None, max_examples=200)
@given(networks(), st.data())
def test_capacity_is_what_is_not_reserved(topology: Topology, data: st.DataObject) -> None:
    links = [replace(link, capacity_mbps=data.draw(st.sampled_from([None, 1.0, 5.0, 10.0]))) for link in topology.links()]
    topology = Topology("capacities", dict(topology.nodes()), links)
    reserved = {link.id: data.draw(st.sampled_from([0.0, 2.0, 5.0])) for link in links}
    left = {link.id: (link.capacity_mbps or 0.0) - reserved[link.id] for link in links}
    every = list(every_path(topology, "h0", "h1", ("h0",)))
    widths = [min(left[link.id] for link in path) for path in every]
    fitting = [size for size, width in zip(sizes(topology, every), widths, strict=True) if width >= 4]
    if fitting:
        route = classical(topology, "h0", "h1", min_capacity_mbps=4.0, reserved=reserved)
        assert sizes(topology, [[topology.link(link) for link in route.links]]) == [min(fitting)]
        assert all(left[link] >= 4 for link in route.links)
        return
    with pytest.raises(NoRoute) as refused:
        classical(topology, "h0", "h1", min_capacity_mbps=4.0, reserved=reserved)
    if every:
        assert (refused.value.constraint, refused.value.best) == ("min_capacity_mbps", max(0.0, *widths, -1.0))
    else:
        assert refused.value.constraint == "reachability"


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        k_shortest(sandbox(), "h1", "h4", 0)
    with pytest.raises(ValueError, match="at least 0"):
        classical(sandbox(), "h1", "h4", min_capacity_mbps=float("nan"))
