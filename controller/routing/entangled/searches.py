"""Compiled searches for one chain: shortest, with bounds on what is ahead, and widest.

A graph is as in `graph.search`, with the edge of every entry. By edge and rounds of purification (m, K + 1) `rate` is falling, and `cost`;
the links purify as often as leaves `least_hz`. An arc weighs `factor` times its edge's cost then, plus the `leaving` of its tail, infinite
where no way leads through. All ties are decided by the order of the entries.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from controller.routing.compiled import Floats, Ints
from controller.routing.graph.heap import ABSENT, GONE, pop, push


@njit(cache=True)
def most_rounds(rate: Floats, edge: int, least_hz: float) -> int:
    """The most rounds on offer that leave an edge `least_hz` > 0; -1 where its raw rate is less."""
    times = 0
    while times < rate.shape[1] and rate[edge, times] >= least_hz:
        times += 1
    return times - 1


@njit(cache=True)
def explore(
    indptr: Ints, head: Ints, edge: Ints, rate: Floats, cost: Floats, least_hz: float, factor: float, leaving: Floats,
    root: int, target: int, ahead: Floats, limit: float, slack: float,
) -> tuple[Floats, Ints]:  # fmt: skip
    """The least sums from `root` to every node that lies on a way to `target` of at most `limit`, infinite for others; the edges before.

    `ahead` (n) bounds what is left to `target` after leaving a node, and must not fall faster than the arcs weigh (A*: Hart, Nilsson and
    Raphael 1968); zeros bound anything. Once the shortest way is known, what is longer by more than `slack` is left out. `leaving` and
    `ahead` of the target, and `leaving` of the root, must be 0.
    """
    nodes = indptr.size - 1
    found = np.full(nodes, np.inf)
    before = np.full(nodes, -1, np.int32)
    keys, items = np.empty(nodes), np.empty(nodes, np.int32)
    place = np.full(nodes, ABSENT, np.int32)
    found[root] = 0.0
    size = push(keys, items, place, 0, ahead[root], root)
    while size > 0 and keys[0] <= limit:
        key, here = keys[0], items[0]
        size = pop(keys, items, place, size)
        if here == target:
            limit = min(limit, key + slack)
            continue
        so_far = found[here] + leaving[here]
        for entry in range(indptr[here], indptr[here + 1]):
            there = head[entry]
            if place[there] == GONE or so_far >= found[there]:
                continue
            times = most_rounds(rate, edge[entry], least_hz)
            if times < 0:
                continue
            further = so_far + factor * cost[edge[entry], times]
            if further < found[there]:
                key = further + leaving[there] + ahead[there]
                if key <= limit and key < np.inf:
                    found[there] = further
                    before[there] = edge[entry]
                    size = push(keys, items, place, size, key, there)
    for at in range(size):
        found[items[at]] = np.inf
    return found, before


@njit(cache=True)
def widest(indptr: Ints, head: Ints, edge: Ints, rate: Floats, leaving: Floats, root: int, target: int) -> float:
    """The highest raw rate that all links of some path have; 0 when none leads."""
    nodes = indptr.size - 1
    best = np.zeros(nodes)
    keys, items = np.empty(nodes), np.empty(nodes, np.int32)
    place = np.full(nodes, ABSENT, np.int32)
    best[root] = np.inf
    size = push(keys, items, place, 0, -np.inf, root)
    while size > 0:
        here = items[0]
        if here == target:
            return float(best[target])
        size = pop(keys, items, place, size)
        if leaving[here] == np.inf:
            continue
        for entry in range(indptr[here], indptr[here + 1]):
            there = head[entry]
            through = min(best[here], rate[edge[entry], 0])
            if through > best[there] and place[there] != GONE:
                best[there] = through
                size = push(keys, items, place, size, -through, there)
    return 0.0


@njit(cache=True)
def walk(before: Ints, a: Ints, b: Ints, here: int) -> Ints:
    """The edges from a node back to the root of a search; `a` and `b` are the edges' ends."""
    count, at = 0, here
    while before[at] >= 0:
        count += 1
        at = a[before[at]] + b[before[at]] - at
    edges = np.empty(count, np.int32)
    for step in range(count):
        edges[step] = before[here]
        here = a[before[here]] + b[before[here]] - here
    return edges
