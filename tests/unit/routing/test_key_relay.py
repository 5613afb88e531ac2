from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import topologies
from controller.network import events
from controller.network.document import load
from controller.network.model import Admin, Link, Node, NodeKind, Swap
from controller.network.topology import Topology, UnknownName
from controller.physics.bell_diagonal import bbm92_key_fraction, recurrence, swap, werner
from controller.routing.key_relay import Preference, key
from controller.routing.keys import disjoint, promised
from controller.routing.keys.allocation import Demand, allocate
from controller.routing.keys.promised import Promised
from controller.routing.refusal import NoRoute

Hops = tuple[tuple[str, Link], ...]


def sandbox() -> Topology:
    return load(Path(topologies.__file__).parent / "sandbox.yaml")


def secoqc() -> Topology:
    return load(Path(topologies.__file__).parent / "secoqc.yaml")


def refusal(topology: Topology, src: str, dst: str, **wanted: Any) -> NoRoute:
    with pytest.raises(NoRoute) as refused:
        key(topology, src, dst, **wanted)
    return refused.value


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    """End nodes n0, n1; up to five more, mostly trusted, some of one operator; parallel links; fibres in shared ducts."""
    kinds: st.SearchStrategy[NodeKind] = st.sampled_from(["trusted-node", "trusted-node", "trusted-node", "satellite", "end-node"])
    operators = st.sampled_from([None, None, "north", "south"])
    nodes = {"n0": Node(kind="end-node", operator="north"), "n1": Node(kind="trusted-node", operator="north")}
    for number in range(2, draw(st.integers(2, 7))):
        nodes[f"n{number}"] = Node(kind=draw(kinds), operator=draw(operators))
    pairs = [(a, b) for a in nodes for b in nodes if a < b]
    links = []
    for number, ends in enumerate(draw(st.lists(st.sampled_from(pairs), min_size=2, max_size=11))):
        ducts = draw(st.sampled_from([(), (), (), ("east",), ("west",)]))
        links.append(Link(kind="fibre", id=f"f{number}", ends=ends, length_km=1, shared_risk=ducts))
        over = (f"f{draw(st.sampled_from([number, number, max(0, number - 1)]))}",)
        rate = float(draw(st.integers(0, 5)))
        admins: st.SearchStrategy[Admin] = st.sampled_from([*["enabled"] * 7, "draining"])
        links.append(Link(kind="qkd", id=f"q{number}", ends=ends, rate_bps=rate, over=over, admin=draw(admins)))
    return Topology("random", nodes, links)


def every_path(topology: Topology, src: str, dst: str, avoid: frozenset[str]) -> list[Hops]:
    def walk(here: str, seen: tuple[str, ...]) -> Iterator[Hops]:
        if here == dst:
            yield ()
            return
        if here != src and topology.node(here).kind not in ("trusted-node", "satellite"):
            return
        for link in topology.links("qkd"):
            touched = {link.id, *link.nodes, *link.fibres, *(name for fibre in link.fibres for name in topology.link(fibre).nodes)}
            if here in link.nodes and topology.usable(link) and (link.rate_bps or 0) > 0 and avoid.isdisjoint(touched):
                there = next(name for name in link.nodes if name != here)
                if there not in seen:
                    yield from (((there, link), *rest) for rest in walk(there, (*seen, there)))

    return list(walk(src, (src,)))


def conflict(topology: Topology, one: Hops, other: Hops) -> bool:
    def parts(hops: Hops) -> tuple[set[str], set[str], set[str]]:
        nodes = {name for name, _ in hops[:-1]}
        ducts = {risk for _, link in hops for risk in topology.shared_risk(link)} | {link.id for _, link in hops}
        return nodes, {topology.node(name).operator or f"alone-{name}" for name in nodes}, ducts

    return any(mine & theirs for mine, theirs in zip(parts(one), parts(other), strict=True))


def width(paths: tuple[Hops, ...]) -> float:
    return min(link.rate_bps or 0 for hops in paths for _, link in hops)


def every_set(topology: Topology, shares: int, avoid: frozenset[str]) -> list[tuple[Hops, ...]]:
    sets = combinations(every_path(topology, "n0", "n1", avoid), shares)
    return [paths for paths in sets if not any(conflict(topology, *pair) for pair in combinations(paths, 2))]


@settings(max_examples=400, deadline=None)
@given(
    networks(),
    st.integers(1, 3),
    st.none() | st.integers(0, 3),
    st.sampled_from([0, 0, 2, 4]),
    st.sampled_from([(), (), ("n2",), ("n2", "q3")]),
    st.sampled_from(["widest", "fewest-trusted-nodes"]),
)
def test_no_set_of_paths_is_better(
    topology: Topology, shares: int, most: int | None, rate: float, avoid: tuple[str, ...], prefer: Preference
) -> None:
    avoid = tuple(name for name in avoid if name in topology.graph)
    found = every_set(topology, shares, frozenset(avoid))
    sizes = [(-width(paths), sum(len(hops) - 1 for hops in paths)) for paths in found]
    allowed = [size for size in sizes if most is None or size[1] <= most]
    try:
        route = key(topology, "n0", "n1", shares=shares, max_trusted_nodes=most, rate_bps=rate, avoid=avoid, prefer=prefer)
    except NoRoute as refused:
        if allowed:
            assert (refused.constraint, refused.best) == ("rate_bps", -min(allowed)[0])
            assert -min(allowed)[0] < rate
        elif refused.constraint == "shares":
            assert refused.best is not None and refused.best < shares
            assert every_set(topology, int(refused.best), frozenset(avoid)) and not every_set(
                topology, int(refused.best) + 1, frozenset(avoid)
            )
        elif refused.constraint == "max_trusted_nodes":
            fewest = [len(hops) - 1 for hops in every_path(topology, "n0", "n1", frozenset(avoid))]
            assert refused.best in {min(fewest), min((size[1] for size in sizes), default=None)}
            assert most is not None and refused.best is not None and refused.best > most
        elif refused.constraint == "avoid":
            assert avoid and not every_path(topology, "n0", "n1", frozenset(avoid))
        else:
            assert refused.constraint in ("reachability", "rate_bps")
            assert not every_path(topology, "n0", "n1", frozenset(avoid))
        return
    size = (-route.rate_bps, len(route.trusted_nodes))
    first = tuple if prefer == "widest" else lambda size: size[::-1]
    assert size == min([each for each in allowed if -each[0] >= rate], key=first)
    assert len(route.paths) == shares
    returned = {(path.nodes[1:], path.links) for path in route.paths}
    assert returned in [{(tuple(name for name, _ in hops), tuple(link.id for _, link in hops)) for hops in paths} for paths in found]
    assert route.rate_bps == min(path.rate_bps for path in route.paths)
    if shares == 1:
        alike = [hops for (hops,), each in zip(found, sizes, strict=True) if each == size]
        named = [(tuple(name for name, _ in hops), tuple(link.id for _, link in hops)) for hops in alike]
        assert returned == {min(named)}, "the first by name"


def test_the_fewest_trusted_nodes_that_carry_the_rate_and_of_these_the_widest() -> None:
    """From alice to bob a chain without trusted nodes carries little, one node more, two the most."""
    topology = sandbox()
    for rate, shares in product((0.0, 1.0, 400.0), (1, 2)):
        fewest = key(topology, "alice", "bob", rate_bps=rate, shares=shares, prefer="fewest-trusted-nodes")
        widest = key(topology, "alice", "bob", rate_bps=rate, shares=shares)
        assert len(fewest.trusted_nodes) <= len(widest.trusted_nodes) and rate <= fewest.rate_bps <= widest.rate_bps
        same = key(topology, "alice", "bob", shares=shares, max_trusted_nodes=len(fewest.trusted_nodes))
        assert same.rate_bps == fewest.rate_bps, "no other so many are wider"
        if fewest.trusted_nodes:
            none = refusal(topology, "alice", "bob", rate_bps=rate, shares=shares, max_trusted_nodes=len(fewest.trusted_nodes) - 1)
            assert none.constraint in ("rate_bps", "max_trusted_nodes")
        assert any("the fewest trusted nodes of those that carry the rate" in line for line in fewest.explanation)
    assert key(topology, "alice", "bob", prefer="fewest-trusted-nodes").trusted_nodes == ()
    assert key(topology, "alice", "bob").trusted_nodes == ("relay1", "relay2")
    with pytest.raises(ValueError, match="prefer must be one of widest, fewest-trusted-nodes, got 'shortest'"):
        key(topology, "alice", "bob", prefer="shortest")  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_an_entangled_segment_is_the_best_of_all_chains(data: st.DataObject) -> None:
    """Between two users over repeaters in parallel and in a row: the rate is the best of every chain and every choice of rounds."""
    stations = {f"r{number}": Swap(success=data.draw(st.sampled_from([0.5, 0.9, 1.0])), fidelity=0.995) for number in range(2)}
    nodes = {
        "a": Node(kind="end-node"),
        "b": Node(kind="end-node"),
        **{name: Node(kind="repeater", swap=each) for name, each in stations.items()},
    }
    figures = {
        ends: (data.draw(st.floats(1, 100)), data.draw(st.floats(0.85, 1)))
        for ends in (("a", "r0"), ("a", "r1"), ("r0", "r1"), ("r0", "b"), ("r1", "b"), ("a", "b"))
    }
    links = [Link(kind="entanglement", ends=ends, rate_hz=rate, fidelity=fidelity) for ends, (rate, fidelity) in figures.items()]
    best = 0.0
    for chain in (("a", "b"), ("a", "r0", "b"), ("a", "r1", "b"), ("a", "r0", "r1", "b"), ("a", "r1", "r0", "b")):
        hops = [figures.get(ends) or figures[ends[::-1]] for ends in pairwise(chain)]
        for rounds in product(range(7), repeat=len(hops)):
            links_left = [
                (rate * recurrence(fidelity, k)[1], recurrence(fidelity, k)[0]) for (rate, fidelity), k in zip(hops, rounds, strict=True)
            ]
            state, chance = werner(links_left[0][1]), 1.0
            for name, (_, fidelity) in zip(chain[1:-1], links_left[1:], strict=True):
                state, chance = swap(state, werner(fidelity), stations[name].fidelity), chance * stations[name].success
            best = max(best, min(rate for rate, _ in links_left) * chance / 2 * bbm92_key_fraction(state))
    topology = Topology("bbm92", nodes, links)
    if best == 0:
        assert refusal(topology, "a", "b").constraint == "reachability"
        return
    route = key(topology, "a", "b", max_trusted_nodes=0)
    assert route.rate_bps == pytest.approx(best, rel=1e-9)
    assert route.paths[0].segments == ("entanglement",)
    assert route.trusted_nodes == ()


def test_sandbox_relays_over_the_two_near_nodes() -> None:
    topology = sandbox()
    route = key(topology, "alice", "bob")
    assert list(route.to_json()) == ["paths", "rate_bps", "trusted_nodes", "explanation"]
    told = route.to_json()["paths"]
    assert told == [
        {
            "nodes": ["alice", "relay1", "relay2", "bob"],
            "links": ["qkd:alice--relay1", "qkd:relay1--relay2", "qkd:relay2--bob"],
            "segments": ["relay", "relay", "relay"],
            "rate_bps": route.rate_bps,
        }
    ]
    figure = topology.figure(topology.link("qkd:relay1--relay2"), "rate_bps")
    assert figure is not None and route.rate_bps == figure.value
    assert route.trusted_nodes == ("relay1", "relay2")
    assert any(line.startswith("binding: relay1 -- relay2") for line in route.explanation)


def test_sandbox_avoids_what_it_is_told_to() -> None:
    assert key(sandbox(), "alice", "bob", avoid=["relay1"]).trusted_nodes == ("relay3",)
    assert key(sandbox(), "alice", "bob", avoid=["fibre:alice--relay1", "relay3"]).paths[0].links == ("qkd:alice--bob",)
    assert key(sandbox(), "alice", "bob", avoid=["relay1", "relay3", "ocs1"]).paths[0].segments == ("entanglement",)
    assert refusal(sandbox(), "alice", "bob", avoid=["relay1", "relay3", "ocs1", "rep2"]).constraint == "avoid"
    assert refusal(sandbox(), "alice", "bob", avoid=["bob"]).constraint == "avoid"


def test_sandbox_shares_are_disjoint() -> None:
    route = key(sandbox(), "alice", "bob", shares=2)
    assert [path.nodes[1:-1] for path in route.paths] == [("relay3",), ("relay1", "relay2")]
    assert route.rate_bps == min(path.rate_bps for path in route.paths)
    every = key(sandbox(), "alice", "bob", shares=4)
    assert sorted(path.segments for path in every.paths) == [("entanglement",), ("relay",), ("relay", "relay"), ("relay", "relay", "relay")]
    refused = refusal(sandbox(), "alice", "bob", shares=5)
    assert (refused.constraint, refused.best) == ("shares", 4)


def test_sandbox_without_trusted_nodes_takes_the_switched_link() -> None:
    route = key(sandbox(), "alice", "bob", max_trusted_nodes=0)
    assert route.paths[0].links == ("qkd:alice--bob",)
    assert any("qkd:alice--bob needs a lightpath of 6.6 dB: alice:q9, ocs1:1, ocs1:9" in line for line in route.explanation)
    farther = key(sandbox(), "alice", "bob", max_trusted_nodes=0, taken={("ocs1", "9")})
    assert any("needs a lightpath of 8 dB" in line for line in farther.explanation) and farther.rate_bps < route.rate_bps
    dark = key(sandbox(), "alice", "bob", max_trusted_nodes=0, taken={("ocs1", "1")})
    assert dark.paths[0].nodes == ("alice", "rep1", "rep2", "bob")
    refused = refusal(sandbox(), "alice", "bob", max_trusted_nodes=0, taken={("ocs1", "1")}, avoid=["rep1"])
    assert (refused.constraint, refused.best) == ("max_trusted_nodes", 1)


def one_duct() -> Topology:
    """The sandbox, with trunk a in the duct of relay3's fibres."""
    topology = sandbox()
    links = [replace(link, shared_risk=("south-duct",)) if link.id == "trunk-a" else link for link in topology.links()]
    return Topology("ducts", dict(topology.nodes()), links)


def test_a_switched_link_inherits_the_risks_of_its_lightpath() -> None:
    assert len(key(sandbox(), "alice", "bob", shares=2, avoid=["relay1", "rep1"]).paths) == 2
    refused = refusal(one_duct(), "alice", "bob", shares=2, avoid=["relay1", "rep1"])
    assert (refused.constraint, refused.best) == ("shares", 1)
    assert "effort" not in refused.error


def test_what_is_promised_is_no_longer_there() -> None:
    free = key(sandbox(), "alice", "relay1").rate_bps
    assert key(sandbox(), "alice", "relay1", reserved={"qkd:alice--relay1": 500.0}).rate_bps == pytest.approx(free - 500)
    assert key(sandbox(), "alice", "bob", reserved={"qkd:relay2--bob": 2000.0}).trusted_nodes == ("relay3",)
    refused = refusal(sandbox(), "alice", "bob", rate_bps=1e5)
    assert (refused.constraint, refused.best) == ("rate_bps", key(sandbox(), "alice", "bob").rate_bps)
    nothing = refusal(secoqc(), "STP", "SIE", reserved={"qkd:STP--BRT": 1e9})
    assert (nothing.constraint, nothing.best) == ("rate_bps", 0)


@pytest.mark.parametrize(
    "event",
    [
        events.LinkStateChanged("qkd:relay1--relay2", up=False),
        events.LinkStateChanged("fibre:relay1--relay2", up=False),
        events.AdminChanged("link", "fibre:relay1--relay2", "draining"),
        events.AdminChanged("node", "relay2", "draining"),
        events.LinkMeasured("qkd:relay1--relay2", "rate_bps", 1.0),
    ],
)
def test_what_is_not_usable_is_avoided(event: events.NetworkEvent) -> None:
    topology = sandbox()
    topology.apply(event)
    assert key(topology, "alice", "bob").trusted_nodes == ("relay3",)


@settings(max_examples=150, deadline=None)
@given(
    networks(),
    st.dictionaries(st.sampled_from(["n0 n1", "n0 n2", "n3 n1", "n2 n3"]), st.sampled_from([0.0, 100.0, 400.0]), min_size=1),
    st.sampled_from([100.0, 800.0, math.inf]),
    st.dictionaries(st.sampled_from([f"q{number}" for number in range(11)]), st.sampled_from([1.0, 9.0])),
)
def test_pools_widen_the_links_of_their_pairs(
    topology: Topology, pools: dict[str, float], horizon_s: float, reserved: dict[str, float]
) -> None:
    held = {(pair[:2], pair[3:]): held for pair, held in pools.items() if pair[:2] in topology.graph and pair[3:] in topology.graph}
    usable = [link for link in topology.links("qkd") if topology.usable(link)]
    gives: dict[frozenset[str], float] = {}
    for pair, stored in held.items():
        short = sum(
            max(0.0, reserved.get(link.id, 0.0) - (link.rate_bps or 0.0) * topology.usable(link))
            for link in topology.links("qkd")
            if set(link.nodes) == set(pair)
        )
        gives[frozenset(pair)] = max(0.0, (8 * stored - 8 * 50.0) / horizon_s - short) if topology.node(pair[0]).holds_keys else 0.0

    def pair_width(link: Link) -> float:
        return max(0.0, (link.rate_bps or 0.0) - reserved.get(link.id, 0.0)) + gives.get(frozenset(link.nodes), 0.0)

    links = [replace(link, over=(), rate_bps=pair_width(link)) for link in usable]
    lone = {pair: bps for pair, bps in gives.items() if all(set(link.nodes) != pair for link in usable)}
    links += [Link(kind="qkd", id="pool-" + "-".join(pair), ends=(min(pair), max(pair)), rate_bps=bps) for pair, bps in lone.items()]
    graph = Topology("pairs", dict(topology.nodes()), links)
    found = every_path(graph, "n0", "n1", frozenset())
    best = max((min(link.rate_bps or 0.0 for _, link in hops) for hops in found), default=0.0)
    wanted = {"pool_bytes": held, "minimum_bytes": 50.0, "horizon_s": horizon_s, "reserved": reserved}
    if best == 0:
        assert refusal(topology, "n0", "n1", **wanted).constraint in ("rate_bps", "reachability")
        return
    route = key(topology, "n0", "n1", **wanted)  # type: ignore[arg-type]
    assert route.rate_bps == pytest.approx(best)
    for path in route.paths:
        over = iter(path.links)
        for pair, kind in zip(pairwise(path.nodes), path.segments, strict=True):
            assert set(topology.link(next(over)).nodes) == set(pair) if kind == "relay" else frozenset(pair) in lone
        assert not [*over]


def test_what_a_pool_adds_is_told() -> None:
    pools = {("relay1", "alice"): 100_000.0}
    free = key(sandbox(), "alice", "relay1", segments=["relay"])
    route = key(sandbox(), "alice", "relay1", segments=["relay"], pool_bytes=pools, minimum_bytes=25_000.0, horizon_s=600.0)
    assert route.rate_bps == pytest.approx(free.rate_bps + 1000)
    assert any("plus 1000 bit/s of its pool, over qkd:alice--relay1" in line for line in route.explanation)
    assert key(sandbox(), "alice", "relay1", segments=["relay"], pool_bytes=pools) == free, "nothing for ever"


def chain(*rates_bps: float) -> Topology:
    """Nodes a, b, c, ... in a row, links ab, bc, ... of those rates."""
    names = "abcdefgh"[: len(rates_bps) + 1]
    links = [Link(kind="qkd", id=f"{x}{y}", ends=(x, y), rate_bps=rate) for x, y, rate in zip(names, names[1:], rates_bps, strict=False)]
    return Topology("chain", {name: Node(kind="trusted-node") for name in names}, links)


def test_a_pool_outlasts_its_link_as_it_does_for_demands() -> None:
    """Two KMEs relay from what they have in store whatever became of the link, as long as there is any."""
    topology = chain(1000.0, 500.0)
    topology.apply(events.LinkStateChanged("ab", up=False))
    wanted: dict[str, Any] = {"pool_bytes": {("b", "a"): 1e6}, "horizon_s": 16_000.0}
    assert refusal(topology, "a", "c").constraint == "reachability"
    assert refusal(topology, "a", "c", segments=["relay"], **wanted).constraint == "reachability"
    assert refusal(topology, "a", "c", rate_bps=501, **wanted).best == pytest.approx(500)
    assert refusal(topology, "a", "c", avoid=["b"], **wanted).constraint == "avoid"
    routes = [
        key(topology, "a", "c", **wanted, **more) for more in ({"avoid": ["ab"]}, {}, {"prefer": "fewest-trusted-nodes"}, {"split": 2})
    ]
    for route in routes:
        (path,) = route.paths
        assert (path.nodes, path.links, path.segments) == (("a", "b", "c"), ("bc",), ("pool", "relay"))
        assert route.rate_bps == pytest.approx(500) and route.trusted_nodes == ("b",)
        assert "a -- b: 500 bit/s of their pool, as no QKD link between them is usable" in route.explanation
        assert "the pool of a -- b is down to its minimum after 16000 s at 500 bit/s" in route.explanation
    matrix = allocate(topology, [Demand("a", "c", math.inf)], **wanted)
    assert matrix.throughput_bps == pytest.approx(routes[0].rate_bps) and matrix.grants[0].flows[0].segments == ("pool", "relay")
    less = key(topology, "a", "c", reserved={"ab": 100.0}, **wanted)
    assert less.rate_bps == pytest.approx(400)
    assert (
        "the pool of a -- b is down to its minimum after 16000 s at 400 bit/s beside 100 bit/s that are promised of it" in less.explanation
    )


@given(st.floats(0, 1000), st.floats(0, 2000), st.floats(1e3, 1e6), st.floats(0, 1e3), st.floats(10, 1e4), st.floats(0.01, 1))
def test_a_pool_is_empty_when_its_link_its_promises_and_the_key_have_drained_it(
    eskr: float, promised_bps: float, held: float, kept: float, horizon_s: float, share: float
) -> None:
    """What it held, and gained and lost in the time that is told, is its minimum."""
    wanted: dict[str, Any] = {
        "reserved": {"ab": promised_bps},
        "pool_bytes": {("a", "b"): held},
        "minimum_bytes": kept,
        "horizon_s": horizon_s,
    }
    try:
        most = key(chain(eskr), "a", "b", **wanted).rate_bps
    except NoRoute:
        return
    rate = share * most
    told = next((line for line in key(chain(eskr), "a", "b", rate_bps=rate, **wanted).explanation if line.startswith("the pool")), None)
    if told is None:
        return  # it has nothing to give
    drained_bps = rate + promised_bps - eskr
    if "does not shrink" in told:
        assert drained_bps <= 1e-9 * most
    else:
        after_s = float(told.split(" after ")[1].split()[0])
        assert 8 * held + (eskr - promised_bps - rate) * after_s == pytest.approx(8 * kept, rel=1e-4, abs=1e-4 * 8 * held)


def test_promises_drain_a_pool_too() -> None:
    route = key(chain(100.0), "a", "b", rate_bps=600, pool_bytes={("a", "b"): 75_000.0}, horizon_s=600, reserved={"ab": 400})
    told = "the pool of a -- b is down to its minimum after 666.667 s at 600 bit/s beside 300 bit/s that are promised of it"
    assert told in route.explanation


def test_the_pool_of_parallel_links_counts_with_the_widest() -> None:
    """It would serve two shares better with the narrower; the rule is told."""
    pair = Topology(
        "pair",
        {name: Node(kind="trusted-node") for name in "ab"},
        [Link(kind="qkd", id=f"q{rate:g}", ends=("a", "b"), rate_bps=rate) for rate in (1000.0, 400.0)],
    )
    route = key(pair, "a", "b", shares=2, pool_bytes={("a", "b"): 4500.0}, horizon_s=60)
    assert route.rate_bps == 400 and "a pool counts with the widest link of its pair of nodes" in route.explanation
    assert any(line.endswith("plus 600 bit/s of its pool, over q1000") for line in route.explanation)


def test_shares_do_not_come_from_one_source() -> None:
    """The two widest links are of one source, which is a shared risk of theirs: the second share is of another."""
    nodes = {"a": Node(kind="end-node"), "b": Node(kind="end-node"), "s": Node(kind="source"), "t": Node(kind="source")}
    figures = {"e0": ("s", 900.0), "e1": ("s", 800.0), "e2": ("t", 100.0)}

    def network(*links: str) -> Topology:
        chosen = [(name, *figures[name]) for name in links]
        pairs = [Link(kind="entanglement", id=name, ends=("a", "b"), via=via, rate_hz=rate, fidelity=1) for name, via, rate in chosen]
        return Topology("sources", nodes, pairs)

    refused = refusal(network("e0", "e1"), "a", "b", shares=2)
    assert (refused.constraint, refused.best) == ("shares", 1)
    both = key(network("e0", "e1", "e2"), "a", "b", shares=2)
    assert both.rate_bps == pytest.approx(50) and sorted(path.links for path in both.paths) == [("e0",), ("e2",)]
    assert key(network("e0", "e1", "e2"), "a", "b", split=2).rate_bps == pytest.approx(850), "rates add up whatever they come from"


def test_published_rates_of_vienna() -> None:
    route = key(secoqc(), "SIE", "FOR")
    assert route.paths[0].nodes == ("SIE", "ERD", "FOR")
    assert route.rate_bps == 2500
    assert any("2500 bit/s (declared, Peev 2009" in line for line in route.explanation)
    assert key(secoqc(), "STP", "FOR").trusted_nodes == ("BRT", "ERD")
    assert len(key(secoqc(), "SIE", "GUD", shares=3).paths) == 3


def test_paths_over_nodes_of_one_operator_are_not_disjoint() -> None:
    """Were every node run by one operator, a second path with a relay of its own would add no secrecy, and that is told without a search."""
    vienna = secoqc()
    nodes = {name: replace(node, operator="one") for name, node in vienna.nodes()}
    refused = refusal(Topology("one operator", nodes, vienna.links()), "SIE", "GUD", shares=3)
    assert (refused.constraint, refused.best) == ("shares", 2)
    assert "effort" not in refused.error
    names = {(x, y): f"t{x}-{y}" for x in range(12) for y in range(12)}
    ends = [(here, (here[0] + dx, here[1] + dy)) for here in names for dx, dy in ((1, 0), (0, 1)) if (here[0] + dx, here[1] + dy) in names]
    links = [Link(kind="qkd", ends=(names[a], names[b]), rate_bps=1000) for a, b in ends]
    grid = Topology("grid", {name: Node(kind="trusted-node", operator="one") for name in names.values()}, links)
    refused = refusal(grid, "t0-0", "t11-11", shares=2)
    assert (refused.constraint, refused.best) == ("shares", 1)
    assert "effort" not in refused.error


def test_only_segments_of_the_kinds_asked_for() -> None:
    assert key(sandbox(), "alice", "bob", max_trusted_nodes=0, segments=["entanglement"]).paths[0].segments == ("entanglement",)
    assert len(key(sandbox(), "alice", "bob", shares=3, segments=["relay"]).paths) == 3
    refused = refusal(sandbox(), "alice", "bob", shares=4, segments=["relay"])
    assert (refused.constraint, refused.best) == ("shares", 3)


@settings(max_examples=100, deadline=None)
@given(networks(), st.lists(st.tuples(st.integers(0, 10), st.integers(0, 6)), max_size=4), st.integers(1, 2))
def test_what_is_kept_between_requests_is_never_stale(topology: Topology, changes: list[tuple[int, int]], shares: int) -> None:
    """A changed topology answers as one that is made so from the beginning, and so do promises that are followed."""
    followed = Promised()

    def answer(network: Topology, reserved: Mapping[str, float], prefer: Preference) -> dict[str, object]:
        try:
            return key(network, "n0", "n1", shares=shares, reserved=reserved, prefer=prefer).to_json()
        except NoRoute as refused:
            return refused.to_json()

    for number, value in [(0, -1), *changes]:
        link_ids = {link.id for link in topology.links("qkd")}
        if value >= 0 and f"q{number}" in link_ids:
            topology.apply(events.LinkMeasured(f"q{number}", "rate_bps", float(value)))
            topology.apply(events.LinkStateChanged(f"f{number}", up=value % 3 > 0))
        if value >= 0:
            followed[f"q{10 - number}"] = float(value)
            followed.pop(f"q{value}", None)
        for prefer, reserved in product(get_args(Preference), ({}, followed)):
            again = copy.deepcopy(topology), dict(reserved), prefer
            assert answer(topology, reserved, prefer) == answer(topology, reserved, prefer) == answer(*again)
            assert answer(topology, dict(reserved), prefer) == answer(*again)


def test_promises_are_followed_past_the_changes_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promised, "CHANGES_KEPT", 2)
    topology, followed = sandbox(), Promised({"qkd:relay2--bob": 1.0})
    widths = []
    for each in range(1, 8):
        followed["qkd:alice--relay1"] = float(each)
        widths.append(key(topology, "alice", "relay1", reserved=followed).rate_bps)
    del followed["qkd:alice--relay1"]
    free = key(topology, "alice", "relay1", reserved=followed).rate_bps
    assert widths == pytest.approx([free - each for each in range(1, 8)])
    assert key(topology, "alice", "relay1", reserved=Promised({"qkd:alice--relay1": 100.0})).rate_bps == pytest.approx(free - 100)


def test_two_segments_over_one_repeater_count_its_links_once() -> None:
    """Key between a and b needs the relay t, and both ways to t lead over the one repeater r."""
    nodes = {name: Node(kind="end-node") for name in "ab"} | {
        "t": Node(kind="trusted-node"),
        "r": Node(kind="repeater", swap=Swap(fidelity=0.99)),
    }
    fidelities = {("a", "r"): 0.92, ("r", "t"): 1.0, ("r", "b"): 0.92}
    links = [Link(kind="entanglement", ends=ends, rate_hz=10, fidelity=fidelity) for ends, fidelity in fidelities.items()]
    topology = Topology("star", nodes, links)
    route = key(topology, "a", "b")
    assert route.trusted_nodes == ()
    assert min(key(topology, "a", "t").rate_bps, key(topology, "t", "b").rate_bps) > route.rate_bps


def test_entangled_shares_are_disjoint_by_repeater() -> None:
    """Two chains over r would be the better ones, but r may serve only one of the shares."""
    nodes = {name: Node(kind="end-node") for name in "ab"} | {name: Node(kind="repeater") for name in "rs"}
    links = [
        Link(kind="entanglement", id=f"{'-'.join(ends)}{copy}", ends=ends, rate_hz=rate, fidelity=0.99)
        for ends, rate in ((("a", "r"), 100), (("r", "b"), 100), (("a", "s"), 10), (("s", "b"), 10))
        for copy in range(2 if "r" in ends else 1)
    ]
    route = key(Topology("parallel", nodes, links), "a", "b", shares=2)
    assert {path.nodes for path in route.paths} == {("a", "r", "b"), ("a", "s", "b")}


def test_a_search_that_met_its_bound_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disjoint, "MAX_PATH_STEPS", 0)
    refused = refusal(one_duct(), "alice", "bob", shares=2, avoid=["relay1", "rep1"])
    assert "at least 1 paths disjoint" in refused.error and "the search met the bound on its effort" in refused.error
    # where nodes alone decide, a flow does, and there is nothing to give up
    assert len(key(sandbox(), "alice", "bob", shares=4).paths) == 4


@settings(max_examples=100)
@given(networks(), st.integers(2, 3), st.none() | st.integers(0, 3), st.integers(0, 5), st.integers(0, 4), st.integers(0, 4))
def test_a_search_that_met_its_bound_takes_nothing_for_a_fact(
    topology: Topology, shares: int, most: int | None, rate: float, path_steps: int, set_steps: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(disjoint, "MAX_PATH_STEPS", path_steps)
        patched.setattr(disjoint, "MAX_SET_STEPS", set_steps)
        try:
            key(topology, "n0", "n1", shares=shares, max_trusted_nodes=most, rate_bps=rate)
        except NoRoute as refused:
            said = refused
        else:
            return
    sets = every_set(topology, shares, frozenset())
    trusted = [sum(len(hops) - 1 for hops in paths) for paths in sets]
    gave_up = "bound on its effort" in said.error
    if said.constraint == "rate_bps" and sets:
        widths = [width(paths) for paths, nodes in zip(sets, trusted, strict=True) if most is None or nodes <= most]
        assert max(widths) >= (said.best or 0) and (gave_up or max(widths) == said.best)
    elif said.constraint == "max_trusted_nodes" and "takes at least" in said.error:
        assert all(nodes >= (said.best or 0) for nodes in trusted)
    elif said.constraint == "shares":
        assert said.best is not None and (said.best == 0 or every_set(topology, int(said.best), frozenset()))
        if not gave_up:
            assert not every_set(topology, int(said.best) + 1, frozenset())
        assert gave_up == ("at least" in said.error)


def test_two_disjoint_paths_of_a_large_grid_are_found_and_proven() -> None:
    names = {(x, y): f"t{x}-{y}" for x in range(10) for y in range(10)}
    pairs = [(here, (x + dx, y + dy)) for here in names for x, y in [here] for dx, dy in ((1, 0), (0, 1)) if (x + dx, y + dy) in names]
    links = [
        Link(kind="qkd", ends=(names[a], names[b]), rate_bps=1000 if {a[0], b[0]} & {0, 9} or {a[1], b[1]} & {0, 9} else 10)
        for a, b in pairs
    ]
    topology = Topology("grid", {name: Node(kind="trusted-node") for name in names.values()}, links)
    route = key(topology, "t0-0", "t9-9", shares=2)
    assert (route.rate_bps, len(route.trusted_nodes)) == (1000, 34)
    assert not any("bound on its effort" in line for line in route.explanation)


def test_bad_requests() -> None:
    with pytest.raises(UnknownName):
        key(sandbox(), "alice", "carol")
    with pytest.raises(UnknownName):
        key(sandbox(), "alice", "bob", avoid=["relay9"])
    wrongs: list[dict[str, Any]] = [{name: number} for name in ("shares", "split") for number in (0, 2.5, 1.0, True, math.nan)]
    wrongs += [{"max_trusted_nodes": number} for number in (-1, 1.5, math.nan)]
    for wrong in (*wrongs, {"rate_bps": -1.0}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be"):
            key(sandbox(), "alice", "bob", **wrong)
    assert refusal(sandbox(), "alice", "alice").constraint == "reachability"
    assert refusal(sandbox(), "alice", "ocs1").constraint == "reachability"


def test_a_refusal_survives_the_way_back_from_a_worker() -> None:
    refused = refusal(sandbox(), "alice", "bob", rate_bps=1e5)  # copying takes the same way as pickling
    assert copy.copy(refused).to_json() == refused.to_json()
