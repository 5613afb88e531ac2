from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from controller.network.model import Link, Node
from controller.network.topology import Topology
from controller.routing.key_relay import key
from controller.routing.keys import splitting
from controller.routing.keys.allocation import Demand, allocate
from controller.routing.keys.splitting import split
from controller.routing.refusal import NoRoute


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    names = [f"n{number}" for number in range(draw(st.integers(2, 5)))]
    chosen = draw(st.lists(st.sampled_from([(a, b) for a in names for b in names if a < b]), min_size=1, max_size=8))
    links = [Link(kind="qkd", id=f"q{n}", ends=ends, rate_bps=float(draw(st.integers(0, 6)))) for n, ends in enumerate(chosen)]
    return Topology("random", {name: Node(kind="trusted-node") for name in names}, links)


def best_split(topology: Topology, src: str, dst: str, paths: int) -> float:
    """Every set of simple paths, each with its own linear programme."""
    links = list(topology.links("qkd"))
    simple: list[frozenset[str]] = []

    def go(nodes: tuple[str, ...], over: tuple[str, ...]) -> None:
        if nodes[-1] == dst:
            simple.append(frozenset(over))
            return
        for link in links:
            if nodes[-1] in link.nodes and link.nodes[link.nodes[0] == nodes[-1]] not in nodes:
                go((*nodes, link.nodes[link.nodes[0] == nodes[-1]]), (*over, link.id))

    go((src,), ())
    best = 0.0
    for chosen in combinations(simple, min(paths, len(simple))):
        if chosen:
            rows = np.array([[float(link.id in path) for path in chosen] for link in links])
            best = max(best, -linprog(-np.ones(len(chosen)), A_ub=rows, b_ub=[link.rate_bps for link in links]).fun)
    return best


def check(topology: Topology, paths: int, exact: bool) -> None:
    best = best_split(topology, "n0", "n1", paths)
    if best == 0:
        with pytest.raises(NoRoute):
            split(topology, "n0", "n1", paths)
        return
    found = split(topology, "n0", "n1", paths)
    assert len(found.flows) <= paths
    assert found.rate_bps == pytest.approx(sum(flow.rate_bps for flow in found.flows))
    assert found.rate_bps <= best * (1 + 1e-6) and found.bound_bps >= best * (1 - 1e-6)
    assert not exact or found.rate_bps == pytest.approx(best, rel=1e-5) == found.bound_bps
    used: dict[str, float] = {}
    for flow in found.flows:
        for link_id in flow.links:
            used[link_id] = used.get(link_id, 0.0) + flow.rate_bps
    assert all(rate <= (topology.link(link_id).rate_bps or 0) * (1 + 1e-9) for link_id, rate in used.items())


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
        assert split(topology, "n0", "n1", 1).rate_bps == pytest.approx(key(topology, "n0", "n1").rate_bps, rel=1e-6)
        assert split(topology, "n0", "n1", 20).rate_bps == pytest.approx(flow, rel=1e-6)


def test_refusals_and_bad_numbers_are_named() -> None:
    pair = Topology(
        "pair", {"a": Node(kind="trusted-node"), "b": Node(kind="trusted-node")}, [Link(kind="qkd", ends=("a", "b"), rate_bps=5)]
    )
    with pytest.raises(NoRoute, match="carry 5 bit/s together") as refused:
        split(pair, "a", "b", 2, rate_bps=6)
    assert (refused.value.constraint, refused.value.best) == ("rate_bps", pytest.approx(5))
    with pytest.raises(NoRoute, match="both ends"):
        split(pair, "a", "a", 2)
    with pytest.raises(ValueError, match=r"^paths must"):
        split(pair, "a", "b", 0)
    with pytest.raises(ValueError, match=r"^rate_bps must"):
        split(pair, "a", "b", 1, rate_bps=math.nan)
