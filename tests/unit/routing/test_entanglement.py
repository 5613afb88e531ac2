from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import topologies
from controller.network import events
from controller.network.document import load
from controller.network.model import Link, Node, NodeKind, Swap
from controller.network.topology import Topology, UnknownName
from controller.physics.bell_diagonal import bbpssw, swap, werner, werner_parameter
from controller.routing import entanglement as module
from controller.routing.entangled import constrained
from controller.routing.entanglement import entanglement
from controller.routing.refusal import NoRoute

Hops = list[tuple[str, str, Link]]


def sandbox() -> Topology:
    return load(Path(topologies.__file__).parent / "sandbox.yaml")


def simple_paths(topology: Topology, src: str, dst: str) -> Iterator[Hops]:
    """All simple paths from src to dst whose interior nodes are repeaters."""

    def walk(here: str, seen: set[str], hops: Hops) -> Iterator[Hops]:
        if here == dst:
            yield hops
            return
        if here != src and topology.node(here).kind != "repeater":
            return
        for link in topology.links("entanglement"):
            if here in link.nodes and topology.usable(link):
                there = link.nodes[1] if link.nodes[0] == here else link.nodes[0]
                if there not in seen:
                    yield from walk(there, seen | {there}, [*hops, (here, there, link)])

    yield from walk(src, {src}, [])


def evaluated(topology: Topology, hops: Hops, rounds: tuple[int, ...]) -> tuple[float, float]:
    """(rate, fidelity) of a path under the buffered model, with states instead of Werner parameters."""
    rates, states = [], []
    for (_, _, link), times in zip(hops, rounds, strict=True):
        rate, fidelity = link.rate_hz, link.fidelity
        assert rate is not None and fidelity is not None
        for _ in range(times):
            fidelity, success = bbpssw(fidelity, fidelity)
            rate *= success / 2
        rates.append(rate)
        states.append(werner(fidelity))
    state, chance = states[0], 1.0
    for (name, _, _), other in zip(hops[1:], states[1:], strict=True):
        station = topology.node(name).swap or Swap()
        state, chance = swap(state, other, station.fidelity), chance * station.success
    return min(rates) * chance, state.fidelity


def everything(topology: Topology, src: str, dst: str, max_rounds: int) -> list[tuple[float, float]]:
    paths = list(simple_paths(topology, src, dst))
    return [evaluated(topology, hops, rounds) for hops in paths for rounds in product(range(max_rounds + 1), repeat=len(hops))]


def networks(most_nodes: int, most_links: int, *, successes: tuple[float, ...] = (0.3, 0.5, 0.9, 1.0)) -> st.SearchStrategy[Topology]:
    """End nodes n0 and n1, repeaters (one of them perhaps a second kind of node that must not swap), links in parallel allowed."""
    swaps = st.builds(Swap, success=st.sampled_from(successes), fidelity=st.floats(0.6, 1.0))
    kinds: st.SearchStrategy[NodeKind] = st.sampled_from(["repeater", "repeater", "repeater", "trusted-node"])

    @st.composite
    def build(draw: st.DrawFn) -> Topology:
        nodes = {"n0": Node(kind="end-node"), "n1": Node(kind="end-node")}
        for number in range(2, draw(st.integers(2, most_nodes))):
            kind = draw(kinds)
            nodes[f"n{number}"] = Node(kind=kind, swap=draw(st.none() | swaps) if kind == "repeater" else None)
        pairs = [(a, b) for a in nodes for b in nodes if a < b]
        links = [
            Link(kind="entanglement", id=f"l{number}", ends=ends, rate_hz=draw(st.floats(0.1, 1000)), fidelity=draw(st.floats(0.4, 1.0)))
            for number, ends in enumerate(draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=most_links)))
        ]
        return Topology("random", nodes, links)

    return build()


floors = st.none() | st.floats(0.3, 0.99)
rates = st.none() | st.floats(0.1, 300)


def check_against_everything(topology: Topology, floor: float | None, rate: float | None, max_rounds: int) -> None:
    found = everything(topology, "n0", "n1", max_rounds)
    least_f, least_r = (floor or 0) * (1 - 1e-12), (rate or 0) * (1 - 1e-12)
    meeting = [(r, f) for r, f in found if f >= least_f and r >= least_r]
    with patch.object(module, "MAX_ROUNDS", max_rounds):
        if not meeting:
            with pytest.raises(NoRoute) as refused:
                entanglement(topology, "n0", "n1", min_fidelity=floor, min_rate_hz=rate)
            best = refused.value.best
            if not found:
                assert (refused.value.constraint, best) == ("reachability", None)
            elif max(f for _, f in found) < least_f:
                assert refused.value.constraint == "min_fidelity"
                assert best == pytest.approx(max(f for _, f in found), rel=1e-9)
            else:
                assert refused.value.constraint == "min_rate_hz"
                assert best == pytest.approx(max(r for r, f in found if f >= least_f), rel=1e-9)
            return
        route = entanglement(topology, "n0", "n1", min_fidelity=floor, min_rate_hz=rate)
    hops = [(a, b, topology.link(link)) for a, b, link in zip(route.nodes, route.nodes[1:], route.links, strict=False)]
    assert evaluated(topology, hops, route.rounds) == pytest.approx((route.rate_hz, route.fidelity), rel=1e-9)
    assert route.fidelity >= least_f * (1 - 1e-9) and route.rate_hz >= least_r * (1 - 1e-9)
    first, second = (1, 0) if rate is not None and floor is None else (0, 1)
    got, best = (route.rate_hz, route.fidelity), max(each[first] for each in meeting)
    assert got[first] == pytest.approx(best, rel=1e-9)
    assert got[second] == pytest.approx(max(each[second] for each in meeting if each[first] >= best * (1 - 1e-9)), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(networks(7, 9), floors, rates)
def test_no_path_and_no_rounds_are_better_on_seven_nodes(topology: Topology, floor: float | None, rate: float | None) -> None:
    check_against_everything(topology, floor, rate, max_rounds=2)


@settings(max_examples=60, deadline=None)
@given(networks(5, 5), floors, rates)
def test_no_path_and_no_rounds_are_better_with_all_rounds(topology: Topology, floor: float | None, rate: float | None) -> None:
    check_against_everything(topology, floor, rate, max_rounds=module.MAX_ROUNDS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.lists(st.floats(0.4, 1.0), min_size=3, max_size=3)), min_size=1, max_size=4), floors)
def test_of_paths_of_one_rate_the_best_pairs_are_taken(ways: list[tuple[int, list[float]]], floor: float | None) -> None:
    """Every swap fails one time in two, and links of a path with one swap more are twice as fast: all come to 10 Hz."""
    nodes, links = {"n0": Node(kind="end-node"), "n1": Node(kind="end-node")}, []
    for number, (length, fidelities) in enumerate(ways):
        repeaters = [f"r{number}{place}" for place in range(length - 1)]
        nodes |= {name: Node(kind="repeater", swap=Swap(success=0.5)) for name in repeaters}
        for place, ends in enumerate(pairwise(["n0", *repeaters, "n1"])):
            links.append(
                Link(kind="entanglement", id=f"l{number}{place}", ends=ends, rate_hz=5.0 * 2**length, fidelity=fidelities[place])
            )
    check_against_everything(Topology("ties", nodes, links), floor, None, max_rounds=1)


@settings(max_examples=40, deadline=None)
@given(networks(6, 7, successes=(1.0,)))
def test_on_demand_is_never_better_than_buffered_where_swaps_do_not_fail(topology: Topology) -> None:
    try:
        buffered = entanglement(topology, "n0", "n1")
    except NoRoute:
        with pytest.raises(NoRoute):
            entanglement(topology, "n0", "n1", model="on-demand")
        return
    assert entanglement(topology, "n0", "n1", model="on-demand").rate_hz <= buffered.rate_hz * (1 + 1e-9)


def chain(t2_s: float | None, *, state: tuple[float, float, float, float] | None = None) -> Topology:
    nodes = {
        "a": Node(kind="end-node", t2_s=t2_s),
        "r": Node(kind="repeater", t2_s=t2_s, swap=Swap(success=0.5, fidelity=0.95)),
        "b": Node(kind="end-node", t2_s=t2_s),
    }
    left = Link(kind="entanglement", ends=("a", "r"), rate_hz=10, state=state) if state else None
    left = left or Link(kind="entanglement", ends=("a", "r"), rate_hz=10, fidelity=0.9)
    return Topology("chain", nodes, [left, Link(kind="entanglement", ends=("r", "b"), rate_hz=40, fidelity=0.8)])


def test_on_demand_chain_of_two_is_the_textbook_result() -> None:
    route = entanglement(chain(0.2), "a", "b", model="on-demand")
    # both wait for the later: 1/10 + 1/40 - 1/50; who waits, waits an exponential time of the other's rate, in two memories of T2 each
    assert route.rate_hz == pytest.approx(0.5 / (0.1 + 0.025 - 0.02))
    kept = 10 / 50 * 40 / (40 + 10) + 40 / 50 * 10 / (10 + 10)
    w = werner_parameter(0.9) * werner_parameter(0.8) * werner_parameter(0.95)
    # T2 without T1: XX and YY decay, ZZ does not
    assert route.fidelity == pytest.approx((1 + w * (1 + 2 * kept)) / 4)
    assert route.model == "on-demand"
    assert any("swap as soon as possible" in line and "error: exact" in line for line in route.explanation)


def test_perfect_memories_lose_nothing_while_waiting() -> None:
    topology = chain(None)
    route = entanglement(topology, "a", "b", model="on-demand", min_fidelity=0.72)
    hops = next(simple_paths(topology, "a", "b"))
    assert max(route.rounds) > 0
    assert evaluated(topology, hops, route.rounds)[1] == pytest.approx(route.fidelity)


def test_on_demand_refuses_a_floor_that_the_buffered_model_meets() -> None:
    floor = entanglement(chain(0.2), "a", "b", min_rate_hz=0).fidelity * 0.999
    entanglement(chain(0.2), "a", "b", min_fidelity=floor)
    with pytest.raises(NoRoute) as refused:
        entanglement(chain(0.2), "a", "b", min_fidelity=floor, model="on-demand")
    assert refused.value.constraint == "min_fidelity"
    assert refused.value.best is not None and 0.25 < refused.value.best < floor


def test_a_bell_diagonal_state_counts_by_its_fidelity() -> None:
    assert entanglement(chain(None, state=(0.9, 0.1, 0, 0)), "a", "b").fidelity == entanglement(chain(None), "a", "b").fidelity


def test_sandbox_chain() -> None:
    route = entanglement(sandbox(), "alice", "bob")
    assert route.nodes == ("alice", "rep1", "rep2", "bob")
    assert route.rate_hz == pytest.approx(80 * 0.9 * 0.9)
    assert route.rounds == (0, 0, 0)
    state = swap(swap(werner(0.97), werner(0.96), 0.99), werner(0.97), 0.99)
    assert route.fidelity == pytest.approx(state.fidelity)
    assert list(route.to_json()) == ["nodes", "links", "rate_hz", "fidelity", "rounds", "model", "explanation"]
    text = "\n".join(route.explanation)
    assert "120 Hz (assumed)" in text and "binding for the rate: entanglement:rep1--rep2" in text


def test_sandbox_purifies_for_a_floor_and_refuses_the_impossible() -> None:
    route = entanglement(sandbox(), "alice", "bob", min_fidelity=0.95)
    assert route.fidelity >= 0.95 and max(route.rounds) > 0
    with pytest.raises(NoRoute) as refused:
        entanglement(sandbox(), "alice", "bob", min_fidelity=0.9999)
    told = refused.value.to_json()
    assert told["constraint"] == "min_fidelity" and list(told) == ["error", "constraint", "best"]
    assert refused.value.best == entanglement(sandbox(), "alice", "bob", min_rate_hz=0).fidelity


def test_a_refusal_says_what_was_left_out_and_why() -> None:
    kinds: dict[str, NodeKind] = {"a": "end-node", "b": "end-node", "s": "source", "r": "repeater"}
    links = [
        Link(kind="entanglement", id="dark", ends=("a", "b"), rate_hz=10, fidelity=0.9),
        Link(kind="entanglement", id="drained", ends=("a", "b"), rate_hz=10, fidelity=0.9, admin="draining"),
        Link(kind="entanglement", id="idle", ends=("a", "b"), rate_hz=0, fidelity=0.9),
        Link(kind="entanglement", id="sourced", ends=("a", "b"), rate_hz=10, fidelity=0.9, via="s"),
        Link(kind="entanglement", id="noise", ends=("a", "b"), rate_hz=10, state=(0.1, 0.0, 0.0, 0.9)),
        Link(kind="entanglement", id="unknown", ends=("a", "b"), rate_hz=10),
        Link(kind="entanglement", id="aside", ends=("a", "r"), rate_hz=10, fidelity=0.9),
    ]
    topology = Topology("dark", {name: Node(kind=kind) for name, kind in kinds.items()}, links)
    topology.apply(events.LinkStateChanged("dark", up=False))
    topology.apply(events.AdminChanged("node", "s", "disabled"))
    for model in ("buffered", "on-demand"):
        with pytest.raises(NoRoute) as refused:
            entanglement(topology, "a", "b", model=model)  # type: ignore[arg-type]
        assert refused.value.constraint == "reachability"
        assert refused.value.error.endswith(
            "over repeaters; left out: dark, drained (down, draining or disabled), idle (makes no pairs, rate_hz is 0), "
            "sourced (its source or Bell station is not enabled), noise (fidelity below 1/4), unknown (unknown fidelity)"
        )
    topology.apply(events.AdminChanged("node", "b", "disabled"))
    with pytest.raises(NoRoute, match="b is disabled: no chain begins or ends there"):
        entanglement(topology, "a", "b")


def test_another_model_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"model must be one of buffered, on-demand, got 'bufered'"):
        entanglement(sandbox(), "alice", "bob", model="bufered")  # type: ignore[arg-type]


def test_what_binds_the_fidelity_is_named_and_the_memories_with_their_times() -> None:
    nodes = {
        "a": Node(kind="end-node", t1_s=0.01, source="a data sheet"),
        "r": Node(kind="repeater", swap=Swap(fidelity=0.93)),
        "b": Node(kind="end-node", t1_s=20.0, t2_s=5.0),
    }
    links = [Link(kind="entanglement", ends=ends, rate_hz=10, fidelity=0.95) for ends in pairwise("arb")]
    topology = Topology("memories", nodes, links)
    assert "binding for the fidelity: the swap at r with 0.93" in entanglement(topology, "a", "b").explanation
    told = entanglement(topology, "a", "b", model="on-demand").explanation
    assert "memories of a: t1_s 0.01 s (declared), t2_s taken as twice that" in told
    assert "memories of r: no decay (assumed, none is given)" in told
    assert "memories of b: t1_s 20 s (assumed), t2_s 5 s (assumed)" in told
    assert any(line.startswith("binding for the fidelity: waiting in memories") for line in told)


def test_memories_are_said_not_to_enter_where_they_are_given() -> None:
    nodes = {"a": Node(kind="end-node", memories=4), "r": Node(kind="repeater", memories=2), "b": Node(kind="end-node")}
    links = [Link(kind="entanglement", ends=ends, rate_hz=10, fidelity=0.9) for ends in pairwise("arb")]
    route = entanglement(Topology("memories", nodes, links), "a", "b")
    assert any("memories (the least is 2, at r) do not enter" in line for line in route.explanation)
    assert not any("do not enter" in line for line in entanglement(chain(None), "a", "b").explanation)


def test_who_meets_the_bound_on_labels_says_so_and_is_no_better_than_the_optimum() -> None:
    rng = random.Random(2)
    names = [f"r{number}" for number in range(30)]
    nodes = {name: Node(kind="repeater", swap=Swap(success=rng.uniform(0.3, 1), fidelity=0.99)) for name in names}
    links = [
        Link(kind="entanglement", id=f"l{number}", ends=(a, b), rate_hz=rng.uniform(90, 100), fidelity=rng.uniform(0.85, 1))
        for number, (a, b) in enumerate(rng.sample(names, 2) for _ in range(90))
    ]
    topology = Topology("bounded", nodes, links)
    unproven = 0
    for floor in (0.6 + 0.01 * step for step in range(35)):
        try:
            best = entanglement(topology, "r0", "r1", min_fidelity=floor)
            with patch.object(constrained, "MOST_LABELS", 1):
                found = entanglement(topology, "r0", "r1", min_fidelity=floor)
        except NoRoute:
            continue
        said = [any("bound on its effort" in line for line in route.explanation) for route in (best, found)]
        assert not said[0] and found.rate_hz <= best.rate_hz * (1 + 1e-9) and found.fidelity >= floor * (1 - 1e-9)
        assert said[1] or found.rate_hz == pytest.approx(best.rate_hz, rel=1e-9)
        unproven += said[1]
    assert unproven


def test_measured_figures_count() -> None:
    topology = sandbox()
    topology.apply(events.LinkMeasured("entanglement:rep1--rep2", "rate_hz", 5.0))
    route = entanglement(topology, "alice", "bob")
    assert route.rate_hz == pytest.approx(5 * 0.81)
    assert any("5 Hz (measured)" in line for line in route.explanation)


@pytest.mark.parametrize(
    "event",
    [
        events.LinkStateChanged("entanglement:rep1--rep2", up=False),
        events.AdminChanged("link", "entanglement:rep1--rep2", "draining"),
        events.AdminChanged("node", "rep2", "disabled"),
        events.LinkMeasured("entanglement:rep1--rep2", "rate_hz", 0.0),
    ],
)
def test_what_is_not_usable_is_avoided(event: events.NetworkEvent) -> None:
    topology = sandbox()
    topology.apply(event)
    with pytest.raises(NoRoute) as refused:
        entanglement(topology, "alice", "bob")
    assert refused.value.constraint == "reachability"


def test_a_link_over_a_disabled_source_is_avoided() -> None:
    nodes = {"a": Node(kind="end-node"), "b": Node(kind="end-node"), "s": Node(kind="source")}
    topology = Topology("via", nodes, [Link(kind="entanglement", ends=("a", "b"), via="s", rate_hz=1, fidelity=0.9)])
    assert entanglement(topology, "a", "b").rate_hz == 1
    topology.apply(events.AdminChanged("node", "s", "disabled"))
    with pytest.raises(NoRoute):
        entanglement(topology, "a", "b")


def test_bad_requests() -> None:
    topology = sandbox()
    with pytest.raises(UnknownName):
        entanglement(topology, "alice", "carol")
    with pytest.raises(NoRoute):
        entanglement(topology, "alice", "alice")
    with pytest.raises(ValueError, match="min_fidelity"):
        entanglement(topology, "alice", "bob", min_fidelity=1.5)
    with pytest.raises(ValueError, match="min_rate_hz"):
        entanglement(topology, "alice", "bob", min_rate_hz=math.nan)


@pytest.mark.parametrize("model", ["buffered", "on-demand"])
@pytest.mark.parametrize("floors", [{}, {"min_fidelity": 0.5}, {"min_rate_hz": 0.0}])
def test_swaps_too_unlikely_for_a_number_are_refused(model: module.Model, floors: dict[str, float]) -> None:
    nodes = {name: Node(kind="repeater", swap=Swap(success=1e-200)) for name in "abcde"}
    links = [Link(kind="entanglement", ends=ends, rate_hz=10, fidelity=0.9) for ends in pairwise("abcde")]
    with pytest.raises(NoRoute, match="swaps") as refused:
        entanglement(Topology("rare", nodes, links), "a", "e", model=model, **floors)
    assert (refused.value.constraint, refused.value.best) == ("min_rate_hz", 0.0)


@pytest.mark.parametrize("seed", range(60))
def test_agrees_with_pareto_labels_where_swaps_differ(seed: int) -> None:
    """Larger than can be enumerated: the front of all chains, found another way, holds the optimum of every pair of floors."""
    rng = random.Random(seed)
    nodes = {f"r{number}": Node(kind="repeater", swap=Swap(success=rng.choice([0.3, 0.8, 0.95]), fidelity=0.99)) for number in range(12)}
    links = [
        Link(kind="entanglement", id=f"l{number}", ends=(a, b), rate_hz=10 ** rng.uniform(0, 3), fidelity=rng.uniform(0.8, 1))
        for number, (a, b) in enumerate(rng.sample(list(nodes), 2) for _ in range(26))
    ]
    topology = Topology("random", nodes, links)
    chains = module.front(topology, "r0", "r1")
    for each in rng.sample(chains, min(4, len(chains))):
        least_f, least_r = each.fidelity * (1 - 1e-12), each.rate_hz * (1 - 1e-12)
        fastest = max(other.rate_hz for other in chains if other.fidelity >= least_f)
        finest = max(other.fidelity for other in chains if other.rate_hz >= least_r)
        assert entanglement(topology, "r0", "r1", min_fidelity=each.fidelity).rate_hz == pytest.approx(fastest, rel=1e-9)
        assert entanglement(topology, "r0", "r1", min_rate_hz=each.rate_hz).fidelity == pytest.approx(finest, rel=1e-9)
