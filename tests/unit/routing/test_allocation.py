from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

import topologies
from controller.network.document import load
from controller.network.model import Link, Node, NodeKind, Swap
from controller.network.topology import Topology, UnknownName
from controller.routing.key_relay import key
from controller.routing.keys.allocation import Allocation, Demand, allocate
from controller.routing.keys.pools import link_cost_factor, pool_state, time_to_empty_s, width_bps
from controller.routing.keys.supply import stored_key

Way = tuple[tuple[str, ...], tuple[str, ...]]


def network(*rates: tuple[str, str, float], ends: str = "") -> Topology:
    """Trusted nodes named by letters (those in `ends` only hold keys); QKD links q0, q1, ... of those rates."""
    names = sorted({name for a, b, _ in rates for name in (a, b)} | set(ends))
    nodes = {name: Node(kind="end-node" if name in ends else "trusted-node") for name in names}
    return Topology("small", nodes, [Link(kind="qkd", id=f"q{n}", ends=(a, b), rate_bps=rate) for n, (a, b, rate) in enumerate(rates)])


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    """Up to six nodes, some of which do not relay; parallel links, links without key, parts without links."""
    kinds: st.SearchStrategy[NodeKind] = st.sampled_from(["trusted-node", "trusted-node", "trusted-node", "end-node"])
    names = [f"n{number}" for number in range(draw(st.integers(2, 6)))]
    pairs = st.sampled_from([(a, b) for a in names for b in names if a < b])
    chosen = draw(st.lists(pairs, min_size=1, max_size=9))
    rates = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, 10.0, 1e3]), min_size=len(chosen), max_size=len(chosen)))
    links = [Link(kind="qkd", id=f"q{n}", ends=ends, rate_bps=rate) for n, (ends, rate) in enumerate(zip(chosen, rates, strict=True))]
    return Topology("random", {name: Node(kind=draw(kinds)) for name in names}, links)


@st.composite
def matrices(draw: st.DrawFn) -> tuple[Topology, list[Demand]]:
    topology = draw(networks())
    names = st.sampled_from(sorted(topology.graph))
    avoidable = st.sampled_from([*sorted(topology.graph), "q0"])
    demand = st.builds(
        Demand, names, names, st.sampled_from([0.0, 0.5, 1.0, 4.0, 50.0, math.inf]), st.sampled_from([0.5, 1.0, 1.0, 3.0]),
        max_trusted_nodes=st.sampled_from([None, None, 0, 1, 2]), avoid=st.frozensets(avoidable, max_size=1),
    )  # fmt: skip
    return topology, draw(st.lists(demand, min_size=1, max_size=4))


def every_path(topology: Topology, demand: Demand) -> Iterator[Way]:
    """All simple paths that the demand's policy allows, straight from the document's links."""
    if demand.src in demand.avoid or demand.dst in demand.avoid or demand.src == demand.dst:
        return

    def go(nodes: tuple[str, ...], links: tuple[str, ...]) -> Iterator[Way]:
        if nodes[-1] == demand.dst:
            yield nodes, links
            return
        if len(nodes) > 1 and topology.node(nodes[-1]).kind != "trusted-node":
            return
        for link in topology.links("qkd"):
            if nodes[-1] in link.nodes and link.id not in demand.avoid:
                there = link.nodes[link.nodes[0] == nodes[-1]]
                if there not in nodes and there not in demand.avoid:
                    yield from go((*nodes, there), (*links, link.id))

    for nodes, links in go((demand.src,), ()):
        if demand.max_trusted_nodes is None or len(nodes) - 2 <= demand.max_trusted_nodes:
            yield nodes, links


class Oracle:
    """The linear programme over all paths, written out."""

    def __init__(self, topology: Topology, demands: Sequence[Demand]) -> None:
        self.demands = demands
        self.paths = [(n, links) for n, demand in enumerate(demands) for _, links in every_path(topology, demand)]
        qkd = list(topology.links("qkd"))
        self.rows = np.array([[float(link.id in links) for _, links in self.paths] for link in qkd]).reshape(len(qkd), -1)
        self.widths = [link.rate_bps or 0.0 for link in qkd]
        self.sums = np.array([[float(n == of) for of, _ in self.paths] for n in range(len(demands))]).reshape(len(demands), -1)

    def greatest(self, weights: Sequence[float], least: Sequence[float]) -> float:
        """The greatest weighted sum of rates where each demand has at least so much."""
        if not self.paths:
            return 0.0
        caps = [min(demand.rate_bps, 1e6) for demand in self.demands]
        found = linprog(
            -np.array(weights) @ self.sums,
            A_ub=np.vstack([self.rows, self.sums, -self.sums]),
            b_ub=[*self.widths, *caps, *(-np.array(least))],
        )
        assert found.status == 0, found.message
        return float(-found.fun)


def sound(topology: Topology, demands: Sequence[Demand], given_: Allocation) -> None:
    """Flows add up to the grants, follow the policies, and no link gives more than it has."""
    used: dict[str, float] = {}
    for demand, grant in zip(demands, given_.grants, strict=True):
        assert grant.demand == demand and 0 <= grant.rate_bps <= demand.rate_bps
        assert grant.rate_bps == pytest.approx(sum(flow.rate_bps for flow in grant.flows))
        assert grant.rate_bps <= grant.best_bps + 1e-9
        allowed = set(every_path(topology, demand))
        assert (grant.refusal is None) or not grant.flows
        for flow in grant.flows:
            assert (flow.nodes, flow.links) in allowed and flow.trusted_nodes == flow.nodes[1:-1] and flow.rate_bps > 0
            for link_id in flow.links:
                used[link_id] = used.get(link_id, 0.0) + flow.rate_bps
    for link_id, rate in used.items():
        assert rate <= (topology.link(link_id).rate_bps or 0.0) * (1 + 1e-12)
    for grant in given_.grants:
        met = grant.rate_bps >= grant.demand.rate_bps * (1 - 1e-8)
        assert bool(grant.held_by) == (grant.refusal is None and not met), grant
        assert set(grant.held_by) <= {each.resource for each in given_.binding}
        for link_id in grant.held_by:
            assert used.get(link_id, 0.0) == pytest.approx(topology.link(link_id).rate_bps, rel=1e-6), "what holds a demand is full"
    assert given_.gap < 1e-8 and given_.excess <= 0.0102
    assert given_.throughput_bps == pytest.approx(sum(grant.rate_bps for grant in given_.grants))


@given(matrices())
def test_the_throughput_is_that_of_the_programme_over_all_paths(case: tuple[Topology, list[Demand]]) -> None:
    topology, demands = case
    found = allocate(topology, demands, objective="throughput")
    sound(topology, demands, found)
    weights = [demand.weight for demand in demands]
    best = Oracle(topology, demands).greatest(weights, [0.0] * len(demands))
    assert sum(w * grant.rate_bps for w, grant in zip(weights, found.grants, strict=True)) == pytest.approx(best, rel=1e-6, abs=1e-6)


@given(matrices())
def test_max_min_is_what_its_definition_says(case: tuple[Topology, list[Demand]]) -> None:
    topology, demands = case
    found = allocate(topology, demands)
    sound(topology, demands, found)
    oracle = Oracle(topology, demands)
    shares = [grant.rate_bps / grant.demand.weight for grant in found.grants]
    for n, demand in enumerate(demands):
        # nobody whose share is as small or smaller may lose; all others may lose everything they have above this one's share
        least = [min(share, shares[n]) * each.weight * (1 - 1e-9) for share, each in zip(shares, demands, strict=True)]
        most = oracle.greatest([float(n == of) for of in range(len(demands))], least)
        assert most <= found.grants[n].rate_bps + 1e-6 * max(1.0, most), demand


@given(matrices())
def test_the_best_achievable_is_that_of_the_demand_alone_and_a_refusal_means_there_is_no_path(case: tuple[Topology, list[Demand]]) -> None:
    topology, demands = case
    for demand, grant in zip(demands, allocate(topology, demands).grants, strict=True):
        best = Oracle(topology, [demand]).greatest([1.0], [0.0])
        assert grant.best_bps == pytest.approx(best, rel=1e-6, abs=1e-6)
        usable = [links for _, links in every_path(topology, demand) if all(topology.link(each).rate_bps for each in links)]
        assert (grant.refusal is None) == bool(usable)


@given(networks())
def test_one_demand_gets_the_maximum_flow(topology: Topology) -> None:
    src, dst = sorted(topology.graph)[:2]
    flow: nx.DiGraph[str] = nx.DiGraph()
    flow.add_nodes_from((src, dst))
    for link in topology.links("qkd"):
        for here, there in (link.nodes, link.nodes[::-1]):
            if here == src or topology.node(here).kind == "trusted-node":
                before = flow.edges[here, there]["capacity"] if flow.has_edge(here, there) else 0.0
                flow.add_edge(here, there, capacity=before + (link.rate_bps or 0.0))
    for objective in ("throughput", "max-min"):
        found = allocate(topology, [Demand(src, dst, math.inf)], objective=objective)  # type: ignore[arg-type]
        assert found.throughput_bps == pytest.approx(nx.maximum_flow_value(flow, src, dst), rel=1e-9, abs=1e-9)


def test_a_shared_link_goes_to_the_greatest_sum_or_in_fair_shares() -> None:
    line = network(("a", "b", 10.0), ("b", "c", 10.0))
    demands = [Demand("a", "c", 100), Demand("a", "b", 100), Demand("b", "c", 100)]
    assert [grant.rate_bps for grant in allocate(line, demands, objective="throughput").grants] == pytest.approx([0, 10, 10])
    fair = allocate(line, demands)
    assert [grant.rate_bps for grant in fair.grants] == pytest.approx([5, 5, 5])
    assert fair.grants[1].held_by == ("q0",) and fair.grants[1].best_bps == pytest.approx(10)
    # one link, of which it does not matter, holds two demands down; what is left of the other then goes to the third alone
    assert sorted(each.price for each in fair.binding) == pytest.approx([0.5, 1.0])
    weighted = allocate(line, [Demand("a", "c", 100, weight=3), *demands[1:]])
    assert [grant.rate_bps for grant in weighted.grants] == pytest.approx([7.5, 2.5, 2.5])


@pytest.mark.parametrize("objective", ["throughput", "max-min"])
def test_what_holds_an_unmet_demand_is_named_also_where_it_has_all_the_links_of_an_end(objective: Any) -> None:
    secoqc = load(Path(topologies.__file__).parent / "secoqc.yaml")
    found = allocate(secoqc, [Demand("STP", "FOR", 2000)], objective=objective)
    width = key(secoqc, "STP", "FOR").rate_bps
    assert found.grants[0].held_by == ("qkd:STP--BRT",) and found.grants[0].rate_bps == pytest.approx(width)
    assert [(each.resource, each.price) for each in found.binding] == [("qkd:STP--BRT", pytest.approx(1))]
    assert f"held by qkd:STP--BRT; alone it could have {width:.6g} bit/s" in found.explanation[0]


@pytest.mark.parametrize(
    ("widths", "demands"),
    [
        ((3000.0, 500.0, 700.3), (("ac", 5000, 2, 0, None), ("ab", 5000, 0.5, 1, None), ("ba", math.inf, 1, 0, 0), ("ca", math.inf, 1, 1, None))),
        ((1000.0, 500.0, 700.3), (("cb", 1000, 1, 0, None), ("bc", 5000, 1, 1, None), ("ab", 5000, 0.5, 1, 0), ("ca", 1000, 1, 1, None))),
    ],
)  # fmt: skip
def test_what_a_higher_priority_leaves_may_be_nothing_but_rounding(widths: Any, demands: Any) -> None:
    """It is shared all the same, and is no gap. In both cases a later programme found the rates of an earlier one out of reach."""
    ring = network(*((*ends, width) for ends, width in zip(("ab", "bc", "ca"), widths, strict=True)))  # type: ignore[arg-type]
    asked = [Demand(ends[0], ends[1], *rest) for ends, *rest in demands]
    found = allocate(ring, asked)
    assert found.gap < 1e-8
    for grant in found.grants:
        assert (grant.rate_bps > 1) == (grant.demand.priority == 1)


def test_a_demand_too_small_to_be_told_beside_the_largest_is_said_to_be() -> None:
    apart = network(("a", "b", 1.0), ("c", "d", 1e13))
    line = "a -- b: so little may be lost in the rounding beside the largest rates of this matrix"
    assert line in allocate(apart, [Demand("a", "b", 5), Demand("c", "d", math.inf)]).explanation
    assert line not in allocate(apart, [Demand("a", "b", 5), Demand("c", "d", 1e6)]).explanation


@pytest.mark.parametrize("objective", ["throughput", "max-min"])
def test_a_higher_priority_is_served_as_if_it_were_alone(objective: Any) -> None:
    line = network(("a", "b", 10.0), ("b", "c", 10.0))
    found = allocate(line, [Demand("a", "c", 8, priority=9), Demand("a", "b", 100), Demand("b", "c", 1)], objective=objective)
    assert [grant.rate_bps for grant in found.grants] == pytest.approx([8, 2, 1])


def test_flows_spend_the_least_key_that_the_rates_need() -> None:
    ring = network(("a", "b", 10.0), ("b", "c", 10.0), ("c", "a", 4.0))
    found = allocate(ring, [Demand("a", "c", 6)])
    (grant,) = found.grants
    assert found.excess == pytest.approx(0)
    assert [(flow.nodes, pytest.approx(flow.rate_bps)) for flow in grant.flows] == [(("a", "c"), 4.0), (("a", "b", "c"), 2.0)]


def test_reserved_key_tags_and_pools_change_the_widths() -> None:
    pair = network(("a", "b", 10.0))
    demand = [Demand("a", "b", 1e6)]
    assert allocate(pair, demand, reserved={"q0": 4.0}).throughput_bps == pytest.approx(6)
    assert allocate(pair, demand, cost_factor=link_cost_factor(256, batch=4)).throughput_bps == pytest.approx(8)
    pool = {("b", "a"): 1000.0}
    assert allocate(pair, demand, pool_bytes=pool).throughput_bps == pytest.approx(10)
    spent = allocate(pair, demand, pool_bytes=pool, minimum_bytes=250, horizon_s=60)
    assert spent.throughput_bps == pytest.approx(width_bps(10, pool_bits=8000, minimum_bits=2000, horizon_s=60))
    assert {flow.segments for flow in spent.grants[0].flows} == {("pool",), ("relay",)}
    beyond = allocate(pair, demand, reserved={"q0": 50.0}, pool_bytes=pool, horizon_s=100)
    assert beyond.throughput_bps == pytest.approx(width_bps(10, reserved_bps=50, pool_bits=8000, horizon_s=100))


def test_a_pool_counts_once_for_parallel_links() -> None:
    pair = network(("a", "b", 10.0), ("a", "b", 10.0))
    found = allocate(pair, [Demand("a", "b", 1e6)], pool_bytes={("a", "b"): 125.0}, horizon_s=100)
    assert found.throughput_bps == pytest.approx(30)


def test_entangled_segments_over_one_link_share_it_in_time() -> None:
    ends = {name: Node(kind="end-node") for name in "abc"}
    repeater = Node(kind="repeater", swap=Swap(success=1.0, fidelity=1.0))
    links = [Link(kind="entanglement", id=f"e{n}", ends=(n, "r"), rate_hz=100, fidelity=0.99) for n in "abc"]
    star = Topology("star", {**ends, "r": repeater}, links)
    alone = key(star, "a", "b").rate_bps
    (only,) = allocate(star, [Demand("a", "b", 1e6)]).grants
    assert only.rate_bps == pytest.approx(alone) and only.flows[0].segments == ("entanglement",) and only.flows[0].nodes == ("a", "r", "b")
    both = allocate(star, [Demand("a", "b", 1e6), Demand("a", "c", 1e6)])
    assert [grant.rate_bps for grant in both.grants] == pytest.approx([alone / 2, alone / 2])
    assert both.grants[0].held_by == ("ea",)


def test_refusals_name_the_constraint_and_the_best() -> None:
    topology = network(("a", "b", 5.0), ("b", "c", 5.0), ("c", "d", 0.0), ("x", "y", 1.0))
    asked = {
        "max_trusted_nodes": Demand("a", "c", 1, max_trusted_nodes=0),
        "rate_bps": Demand("a", "d", 1),
        "avoid": Demand("a", "c", 1, avoid=frozenset({"b"})),
        "reachability": Demand("a", "x", 1),
    }
    found = allocate(topology, [*asked.values(), Demand("a", "a", 1), Demand("a", "c", 1)])
    for constraint, grant in zip([*asked, "reachability"], found.grants, strict=False):
        assert grant.refusal is not None and grant.refusal.constraint == constraint and grant.rate_bps == 0
    assert found.grants[0].refusal is not None and found.grants[0].refusal.best == 1.0
    assert found.grants[-1].rate_bps == pytest.approx(1)
    assert any("at least 1 trusted nodes" in line for line in found.explanation)
    assert allocate(topology, []).grants == ()


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("rate_bps", {"rate_bps": math.nan}),
        ("rate_bps", {"rate_bps": -1}),
        ("weight", {"weight": 0}),
        ("weight", {"weight": math.nan}),
        ("max_trusted_nodes", {"max_trusted_nodes": -1}),
        ("priority", {"priority": 0.5}),
    ],
)
def test_a_bad_demand_is_refused_by_name(field: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{field} must"):
        Demand(**{"src": "a", "dst": "b", "rate_bps": 1.0, **wrong})


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("objective", {"objective": "most"}),
        ("cost_factor", {"cost_factor": 0.5}),
        ("horizon_s", {"pool_bytes": {("a", "b"): 1.0}, "horizon_s": 0}),
        ("minimum_bytes", {"minimum_bytes": -1}),
        ("pool_bytes", {"pool_bytes": {("a", "b"): math.nan}}),
        ("pool_bytes", {"pool_bytes": {("a", "b"): 1, ("b", "a"): 1}, "horizon_s": 1}),
        ("reserved", {"reserved": {"q0": -1.0}}),
    ],
)
def test_a_bad_figure_is_refused_by_name(field: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=field):
        allocate(network(("a", "b", 1.0)), [Demand("a", "b", 1)], **wrong)


def test_unknown_names_are_refused() -> None:
    topology = network(("a", "b", 1.0))
    for demand in (Demand("a", "z", 1), Demand("a", "b", 1, avoid=frozenset({"z"}))):
        with pytest.raises(UnknownName):
            allocate(topology, [demand])
    with pytest.raises(UnknownName):
        allocate(topology, [Demand("a", "b", 1)], reserved={"z": 1})
    with pytest.raises(UnknownName):
        stored_key(topology, {("a", "z"): 1})


def test_pool_formulas() -> None:
    assert width_bps(1000, reserved_bps=300, pool_bits=6000, minimum_bits=1000, horizon_s=10) == 1200
    assert width_bps(1000, reserved_bps=300, pool_bits=6000, horizon_s=math.inf) == 700
    assert time_to_empty_s(pool_bits=6000, minimum_bits=1000, consumption_bps=150, eskr_bps=50) == 50
    assert time_to_empty_s(pool_bits=6000, consumption_bps=50, eskr_bps=50) == math.inf
    assert time_to_empty_s(pool_bits=500, minimum_bits=1000, consumption_bps=60, eskr_bps=50) == 0
    assert link_cost_factor(256) == 2 and link_cost_factor(256, batch=64) == 1 + 1 / 64
    for call in (
        lambda: width_bps(math.nan, horizon_s=1),
        lambda: time_to_empty_s(pool_bits=-1, consumption_bps=1, eskr_bps=1),
        lambda: link_cost_factor(0),
    ):
        with pytest.raises(ValueError, match=r"eskr_bps|pool_bits|key_bits"):
            call()


def test_pool_states_have_hysteresis() -> None:
    levels, state, seen = [9, 5, 2, 5, 8, 7], "READY", []
    for level in levels:
        state = pool_state(state, pool_bits=level, minimum_bits=2, threshold_bits=8)  # type: ignore[arg-type]
        seen.append(state)
    assert seen == ["READY", "WARNING", "EMPTY", "CHARGING", "READY", "WARNING"]
