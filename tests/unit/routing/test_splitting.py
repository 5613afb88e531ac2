from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from controller.network.model import Link, Node, NodeKind, Swap
from controller.network.topology import Topology
from controller.routing.key_relay import key
from controller.routing.keys import splitting
from controller.routing.keys.allocation import Demand, allocate
from controller.routing.keys.segments import key_segments
from controller.routing.keys.supply import KeySupply, Wish
from controller.routing.refusal import NoRoute


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    names = [f"n{number}" for number in range(draw(st.integers(2, 5)))]
    chosen = draw(st.lists(st.sampled_from([(a, b) for a in names for b in names if a < b]), min_size=1, max_size=8))
    links = [Link(kind="qkd", id=f"q{n}", ends=ends, rate_bps=float(draw(st.integers(0, 6)))) for n, ends in enumerate(chosen)]
    return Topology("random", {name: Node(kind="trusted-node") for name in names}, links)


def every_split(topology: Topology, paths: int) -> list[tuple[float, int]]:
    """The rate and the trusted nodes of every set of simple paths from n0 to n1, each with its own linear programme."""
    links = list(topology.links("qkd"))
    simple: list[tuple[frozenset[str], frozenset[str]]] = []

    def go(nodes: tuple[str, ...], over: tuple[str, ...]) -> None:
        if nodes[-1] == "n1":
            simple.append((frozenset(over), frozenset(nodes[1:-1])))
            return
        for link in links:
            if link.rate_bps and nodes[-1] in link.nodes and link.nodes[link.nodes[0] == nodes[-1]] not in nodes:
                go((*nodes, link.nodes[link.nodes[0] == nodes[-1]]), (*over, link.id))

    go(("n0",), ())
    found = []
    for count in range(1, min(paths, len(simple)) + 1):
        for chosen in combinations(simple, count):
            rows = np.array([[float(link.id in over) for over, _ in chosen] for link in links])
            rate = -linprog(-np.ones(count), A_ub=rows, b_ub=[link.rate_bps for link in links]).fun
            found.append((rate, len(frozenset[str]().union(*(trusted for _, trusted in chosen)))))
    return found


def divided(topology: Topology, paths: int, most: int | None = None, **wanted: Any) -> splitting.Split:
    wish = Wish("n0", "n1", most, frozenset())
    return splitting.split(
        KeySupply(topology, [wish], lambda avoid: key_segments(topology, reserved={}, avoid=avoid)), wish, paths, **wanted
    )


def check(topology: Topology, paths: int, exact: bool) -> None:
    best = max((rate for rate, _ in every_split(topology, paths)), default=0.0)
    if best == 0:
        with pytest.raises(NoRoute):
            divided(topology, paths)
        return
    found = divided(topology, paths)
    assert len(found.flows) <= paths
    assert found.rate_bps == pytest.approx(sum(flow.rate_bps for flow in found.flows))
    assert found.rate_bps <= best * (1 + 1e-6) and found.bound_bps >= best * (1 - 1e-6)
    assert not exact or found.rate_bps == pytest.approx(best, rel=1e-5) == found.bound_bps
    used: dict[str, float] = {}
    for flow in found.flows:
        for link_id in flow.links:
            used[link_id] = used.get(link_id, 0.0) + flow.rate_bps
    widths = {link_id: topology.link(link_id).rate_bps or 0.0 for link_id in used}
    assert all(rate <= widths[link_id] * (1 + 1e-9) for link_id, rate in used.items())
    assert set(found.full) == {link_id for link_id, rate in used.items() if rate == pytest.approx(widths[link_id], rel=1e-5)}


@given(networks(), st.integers(1, 3))
def test_small_networks_are_split_exactly(topology: Topology, paths: int) -> None:
    check(topology, paths, exact=True)


@given(networks(), st.integers(1, 3))
def test_the_heuristic_is_sound_and_its_bound_holds(topology: Topology, paths: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(splitting, "MAX_STEPS", 0)
        check(topology, paths, exact=False)


@given(networks())
def test_one_path_is_the_widest_and_many_are_the_maximum_flow(topology: Topology) -> None:
    flow = allocate(topology, [Demand("n0", "n1", math.inf)]).throughput_bps
    if flow > 0:
        assert divided(topology, 1).rate_bps == pytest.approx(key(topology, "n0", "n1").rate_bps, rel=1e-6)
        assert key(topology, "n0", "n1", split=20).rate_bps == pytest.approx(flow, rel=1e-6)


@given(networks(), st.integers(2, 3), st.none() | st.integers(0, 3), st.sampled_from([0.0, 2.0, 5.0]), st.booleans())
def test_a_split_route_has_the_rate_and_trusts_the_fewest(topology: Topology, paths: int, most: int | None, rate: float, few: bool) -> None:
    every = [(bps, trusted) for bps, trusted in every_split(topology, paths) if most is None or trusted <= most]
    wanted: dict[str, Any] = {"split": paths, "rate_bps": rate, "max_trusted_nodes": most}
    best = max((bps for bps, _ in every), default=0.0)
    try:
        route = key(topology, "n0", "n1", **wanted, prefer="fewest-trusted-nodes" if few else "widest")
    except NoRoute as refused:
        assert best < max(rate, 1e-9)
        if best:
            assert (refused.constraint, refused.best) == ("rate_bps", pytest.approx(best, rel=1e-5))
        return
    assert route.rate_bps == pytest.approx(math.fsum(path.rate_bps for path in route.paths))
    assert route.rate_bps >= rate and len(route.paths) <= paths
    assert set(route.trusted_nodes) == {name for path in route.paths for name in path.nodes[1:-1]}
    carrying = [(bps, trusted) for bps, trusted in every if bps >= (rate if few else best * (1 - 1e-6))]
    fewest = min(trusted for _, trusted in carrying)
    assert len(route.trusted_nodes) == fewest
    assert route.rate_bps == pytest.approx(max(bps for bps, trusted in carrying if trusted == fewest), rel=1e-5)


def beside(direct_bps: float, relayed_bps: float) -> Topology:
    """One link from end to end, and two over a trusted node."""
    widths = {"ab": direct_bps, "ar": relayed_bps, "rb": relayed_bps}
    links = [Link(kind="qkd", id=ends, ends=(ends[0], ends[1]), rate_bps=width) for ends, width in widths.items()]
    return Topology("beside", {name: Node(kind="trusted-node") for name in "abr"}, links)


@pytest.mark.parametrize("direct_bps", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("relayed_bps", [4e3, 2.58e6, 1e12])
def test_a_path_is_not_lost_beside_one_that_is_far_wider(direct_bps: float, relayed_bps: float) -> None:
    topology = beside(direct_bps, relayed_bps)
    for rate, most in ((0.0, None), (direct_bps / 2, None), (direct_bps, None), (0.0, 0), (direct_bps, 0)):
        few = key(topology, "a", "b", split=2, rate_bps=rate, max_trusted_nodes=most, prefer="fewest-trusted-nodes")
        assert [(path.links, path.rate_bps) for path in few.paths] == [(("ab",), pytest.approx(direct_bps))]
    more = key(topology, "a", "b", split=2, rate_bps=1.5 * direct_bps, prefer="fewest-trusted-nodes")
    assert more.rate_bps == pytest.approx(direct_bps + relayed_bps)


@settings(max_examples=20)
@example(426.375, 3067.39, "widest", True)
@given(st.floats(1, 4000), st.floats(1, 4000), st.sampled_from(["widest", "fewest-trusted-nodes"]), st.booleans())
def test_the_rate_that_was_told_can_be_asked_for(direct_bps: float, relayed_bps: float, prefer: Any, rounded: bool) -> None:
    if rounded:
        direct_bps, relayed_bps = round(direct_bps, 3), round(relayed_bps, 2)
    topology = beside(direct_bps, relayed_bps)
    told = key(topology, "a", "b", split=2).rate_bps
    for rate in {told, round(direct_bps + relayed_bps, 3) if rounded else direct_bps + relayed_bps}:
        assert key(topology, "a", "b", split=2, rate_bps=rate, prefer=prefer).rate_bps == pytest.approx(rate, rel=1e-9)
    with pytest.raises(NoRoute):
        key(topology, "a", "b", split=2, rate_bps=told * 1.00001, prefer=prefer)


def test_a_split_route_tells_every_hop_and_what_binds() -> None:
    """Two ways that share their last link but for a chain of pairs, which is the second path."""
    kinds: dict[str, NodeKind] = {"a": "end-node", "r": "trusted-node", "m": "repeater", "b": "end-node"}
    links = [
        Link(kind="qkd", id="ar", ends=("a", "r"), rate_bps=70, source="sheet 1"),
        Link(kind="qkd", id="rb", ends=("r", "b"), rate_bps=50),
        Link(kind="entanglement", id="am", ends=("a", "m"), rate_hz=80, fidelity=1),
        Link(kind="entanglement", id="mb", ends=("m", "b"), rate_hz=60, fidelity=1),
    ]
    nodes = {name: Node(kind=kind, swap=Swap(success=0.5) if kind == "repeater" else None) for name, kind in kinds.items()}
    network = Topology("two ways", nodes, links)
    route = key(network, "a", "b", split=2)
    assert [(path.nodes, path.segments, path.rate_bps) for path in route.paths] == [
        (("a", "r", "b"), ("relay", "relay"), pytest.approx(50)),
        (("a", "m", "b"), ("entanglement",), pytest.approx(15)),
    ]
    assert (route.rate_bps, route.trusted_nodes) == (pytest.approx(65), ("r",))
    told = "\n".join(route.explanation)
    for said in (
        "path 1: a - r - b, carrying 50 bit/s, trusting r",
        "a -- r: 70 bit/s (declared, sheet 1), over ar",
        "path 2: a - m - b, carrying 15 bit/s, trusting nobody",
        "60 Hz",
        "binding: nothing is left of am, mb, rb",
        "65 bit/s is the most that 2 paths can carry together",
        "no secrecy is added",
    ):
        assert said in told
    promised = key(network, "a", "b", split=2, reserved={"rb": 20.0}, segments=["relay"])
    assert promised.rate_bps == pytest.approx(30) and len(promised.paths) == 1
    pools = {("b", "r"): 300.0}
    stored = key(network, "a", "b", split=2, rate_bps=75.0, segments=["relay", "entanglement"], pool_bytes=pools, horizon_s=60.0)
    assert stored.rate_bps == pytest.approx(70 + 15)
    assert "the pool of r -- b is down to its minimum after 204 s at 61.7647 bit/s" in stored.explanation


def test_refusals_and_bad_numbers_are_named() -> None:
    pair = Topology(
        "pair", {"a": Node(kind="trusted-node"), "b": Node(kind="trusted-node")}, [Link(kind="qkd", ends=("a", "b"), rate_bps=5)]
    )
    with pytest.raises(NoRoute, match="carry 5 bit/s together") as refused:
        key(pair, "a", "b", split=2, rate_bps=6)
    assert (refused.value.constraint, refused.value.best) == ("rate_bps", pytest.approx(5))
    with pytest.raises(NoRoute, match="both ends"):
        key(pair, "a", "a", split=2)
    with pytest.raises(NoRoute) as refused:
        key(pair, "a", "b", split=2, avoid=["qkd:a--b"])
    assert refused.value.constraint == "avoid"
    wrong: dict[str, Any]
    for name, wrong in (
        ("split", {"split": 0}),
        ("split", {"split": 2, "shares": 2}),
        ("shares", {"shares": 0}),
        ("rate_bps", {"split": 2, "rate_bps": math.nan}),
        ("max_trusted_nodes", {"max_trusted_nodes": -1}),
        ("horizon_s", {"horizon_s": math.nan}),
        ("minimum_bytes", {"minimum_bytes": -1.0}),
        ("reserved of qkd:a--b", {"reserved": {"qkd:a--b": math.nan}}),
    ):
        with pytest.raises(ValueError, match=rf"^{name} must"):
            key(pair, "a", "b", **wrong)
