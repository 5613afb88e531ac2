"""The compiled searches on small graphs, against all simple paths; whole numbers, so that sums are exact and ties are many."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.routing.compiled import Edges, Floats, adjacency
from controller.routing.entangled import constrained as constrained_module
from controller.routing.entangled.constrained import Bounds, Path, Problem, Sums, constrained
from controller.routing.entangled.searches import explore, walk, widest

SRC, DST, NODES = 0, 1, 6


@dataclass(frozen=True)
class Graph:
    edges: Edges
    rate: Floats
    cost: Floats
    swap_w: Floats
    swap_q: Floats

    def simple_paths(self, src: int, dst: int, least_hz: float) -> Iterator[list[int]]:
        ends = list(zip(self.edges.a.tolist(), self.edges.b.tolist(), strict=True))

        def step(here: int, seen: frozenset[int], path: list[int]) -> Iterator[list[int]]:
            if here == dst:
                yield path
                return
            if here != src and (here == DST or self.swap_w[here] == math.inf):
                return
            for number, both in enumerate(ends):
                if here in both and self.rate[number, 0] >= least_hz:
                    there = sum(both) - here
                    if there not in seen:
                        yield from step(there, seen | {there}, [*path, number])

        return step(src, frozenset((src,)), [])

    def passed(self, src: int, path: list[int]) -> list[int]:
        nodes = [src]
        for number in path:
            nodes.append(int(self.edges.a[number] + self.edges.b[number]) - nodes[-1])
        return nodes[1:-1]

    def sums(self, src: int, path: list[int], least_hz: float) -> tuple[float, float]:
        inner = self.passed(src, path)
        purified = [self.cost[number, int((self.rate[number] >= least_hz).sum()) - 1] for number in path]
        return float(sum(purified) + self.swap_w[inner].sum()), float(self.swap_q[inner].sum())


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Links in parallel, links and nodes that are of no use, whole costs from 0 to 3; a round of purification halves rate and cost at most."""
    pairs = [(a, b) for a in range(NODES) for b in range(a + 1, NODES) if b > DST]
    ends = np.array(draw(st.lists(st.sampled_from(pairs), min_size=5, max_size=11)), dtype=np.int32)
    count, small = len(ends), st.integers(0, 3)
    raw = np.array(draw(st.lists(st.sampled_from([0.0, 2.0, 4.0, 8.0, 8.0]), min_size=count, max_size=count)))
    purified = np.array(draw(st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=count, max_size=count))) * raw
    cost = np.array(draw(st.lists(st.tuples(small, small), min_size=count, max_size=count)), dtype=float)
    cost = np.stack((cost.sum(axis=1), cost[:, 0]), axis=1)
    swap = np.array(draw(st.lists(st.tuples(small, small, st.sampled_from([0, 0, 0, 1])), min_size=NODES, max_size=NODES)), dtype=float)
    swap[:2] = 0
    closed = swap[:, 2] > 0
    a, b = ends[:, 0].copy(), ends[:, 1].copy()
    ids = [str(number) for number in range(count)]
    edges = Edges(ids, {name: at for at, name in enumerate(ids)}, a, b, np.ones(count, dtype=np.bool_), *adjacency(NODES, a, b))
    return Graph(edges, np.stack((raw, purified), axis=1), cost, np.where(closed, np.inf, swap[:, 0]), np.where(closed, np.inf, swap[:, 1]))


def distance(graph: Graph, src: int, dst: int, least_hz: float) -> float:
    """Of the shortest simple path in -ln w, its last node not swapping."""
    return min((graph.sums(src, path, least_hz)[0] for path in graph.simple_paths(src, dst, least_hz)), default=math.inf)


thresholds = st.sampled_from([0.5, 1.0, 2.0, 3.0, 8.0])


@settings(max_examples=300, deadline=None)
@given(graphs(), thresholds, st.sampled_from([6, 20, 60]), st.sampled_from([0.0, 1.0, 4.0, math.inf]), st.booleans())
def test_sums_are_those_of_the_shortest_paths_of_use(graph: Graph, least_hz: float, limit: int, slack: float, directed: bool) -> None:
    arrays = (graph.edges.indptr, graph.edges.indices, graph.edges.edge, graph.rate, graph.cost, least_hz, 1.0, graph.swap_w)
    exact = [distance(graph, node, DST, least_hz) if node != DST else 0.0 for node in range(NODES)]
    ahead = np.array(exact) if directed else np.zeros(NODES)
    found, before = explore(*arrays, SRC, DST, ahead, float(limit), slack)
    shortest = distance(graph, SRC, DST, least_hz)
    most = min(limit, shortest + slack)
    for node in range(NODES):
        there = distance(graph, SRC, node, least_hz) if node != SRC else 0.0
        through = there + graph.swap_w[node] + ahead[node]
        assert found[node] == (there if through <= most and through < math.inf else math.inf)
    if found[DST] < math.inf:
        path = walk(before, graph.edges.a, graph.edges.b, DST)[::-1].tolist()
        assert graph.sums(SRC, path, least_hz)[0] == shortest and path in list(graph.simple_paths(SRC, DST, least_hz))


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_the_widest_path_is_as_wide_as_the_widest_of_all(graph: Graph) -> None:
    best = max((float(graph.rate[path, 0].min()) for path in graph.simple_paths(SRC, DST, 1e-9)), default=0.0)
    edges = graph.edges
    assert widest(edges.indptr, edges.indices, edges.edge, graph.rate, graph.swap_w, SRC, DST) == best


@settings(max_examples=300, deadline=None)
@given(graphs(), thresholds, st.integers(0, 10), st.sampled_from([3.0, 6.0, math.inf]), st.booleans())
def test_the_least_cost_within_a_budget(graph: Graph, least_hz: float, limit: int, cutoff: float, again: bool) -> None:
    """Also from the other end, kept to what the first search told."""
    met: list[tuple[float, float]] = []

    def consider(path: Path) -> float:
        met.append((path.cost, path.spent))
        return cutoff

    sums = [graph.sums(SRC, path, least_hz) for path in graph.simple_paths(SRC, DST, least_hz)]
    best = min((cost for cost, spent in sums if spent <= limit and cost < cutoff), default=None)
    nothing = np.zeros(NODES)
    aim, budget = Sums(1.0, graph.swap_w), Sums(0.0, graph.swap_q)
    known = Bounds(DST, nothing, nothing)
    for start in (SRC, DST) if again else (SRC,):
        problem = Problem(
            graph.edges, graph.rate, graph.cost, least_hz, start, known, aim, budget, float(limit), cutoff, math.inf, consider
        )
        found = constrained(problem)
        assert (found and found[0].cost) == best
        if found is None:
            break
        path, known = found
        assert path.bound == path.cost and path.spent <= limit
    assert all(pair in sums for pair in met)


def least_by_spending(graph: Graph, limit: int) -> Floats:
    """The least cost from SRC to DST within each whole budget up to the limit; what swaps spend is at least 1 each."""
    cost = np.full((limit + 1, len(graph.swap_w)), np.inf)
    cost[0, SRC] = 0
    for number, price in enumerate(graph.cost[:, 0]):
        if SRC in (a := int(graph.edges.a[number]), b := int(graph.edges.b[number])):
            cost[0, a + b - SRC] = min(cost[0, a + b - SRC], price)
    for spent in range(limit + 1):
        for number, price in enumerate(graph.cost[:, 0]):
            a, b = int(graph.edges.a[number]), int(graph.edges.b[number])
            for here, there in ((a, b), (b, a)):
                more = spent + int(graph.swap_q[here])
                if more <= limit and here > DST and there != SRC:
                    further = cost[spent, here] + price + graph.swap_w[here]
                    cost[more, there] = min(cost[more, there], further)
    return np.minimum.accumulate(cost[:, DST])


@pytest.mark.parametrize("seed", range(6))
def test_labels_find_the_least_cost_within_a_budget_where_multipliers_do_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    side = 8
    nodes = side * side
    number = np.concatenate(([SRC], np.arange(2, nodes), [DST])).reshape(side, side)  # the ends in opposite corners of a square
    a = np.concatenate((number[:-1].ravel(), number[:, :-1].ravel())).astype(np.int32)
    b = np.concatenate((number[1:].ravel(), number[:, 1:].ravel())).astype(np.int32)
    ids = [str(number) for number in range(len(a))]
    edges = Edges(ids, {name: at for at, name in enumerate(ids)}, a, b, np.ones(len(a), dtype=np.bool_), *adjacency(nodes, a, b))
    swap_q = rng.integers(1, 30, nodes).astype(float)
    swap_q[:2] = 0
    swap_w = np.zeros(nodes)
    cost = rng.integers(1, 30, len(a)).astype(float)[:, None]
    graph = Graph(edges, np.ones((len(a), 1)), cost, swap_w, swap_q)
    nothing = np.zeros(nodes)
    best = least_by_spending(graph, 240)
    with patch.object(constrained_module, "_labels", wraps=constrained_module._labels) as labels:
        for limit in range(80, 240, 10):
            found = constrained(
                Problem(
                    *(edges, graph.rate, cost, 1.0, SRC, Bounds(DST, nothing, nothing), Sums(1.0, swap_w), Sums(0.0, swap_q)),
                    *(float(limit), math.inf, math.inf, lambda path: math.inf),
                )
            )
            assert (found[0].cost if found else math.inf) == best[limit]
            assert found is None or (found[0].bound == found[0].cost and found[0].spent <= limit)
    assert labels.call_count
