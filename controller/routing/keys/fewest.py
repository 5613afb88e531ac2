"""The path of fewest trusted nodes: a breadth-first search from the target, compiled, that ends where it meets the source."""

from __future__ import annotations

import numpy as np
from numba import njit

from controller.routing.compiled import Bools, Floats, Ints


@njit(cache=True)
def fewest_relays(
    indptr: Ints,
    heads: Ints,
    edge: Ints,
    width: Floats,
    relays: Bools,
    node_rank: Ints,
    edge_rank: Ints,
    source: int,
    target: int,
    least: float,
) -> Ints:
    """The edges of the path from `source` to `target` with the fewest of them, then the widest, then the first by the ranks of its nodes and edges.

    The graph is undirected: `indptr` (n + 1), `heads` and `edge` (2m) by node, `width` (m) in bit/s; only edges of positive width of at least
    `least` count, and only `relays` (n) may lie between the ends. Empty where no path leads.
    """
    nodes = indptr.size - 1
    left = np.full(nodes, -1, dtype=np.int32)  # how many edges to the target
    widest = np.zeros(nodes)  # over so many
    queue = np.empty(nodes, dtype=np.int32)
    queue[0], left[target], widest[target] = target, 0, np.inf
    taken, there = 0, 1
    while taken < there and (left[source] < 0 or left[queue[taken]] < left[source]):
        here = queue[taken]
        taken += 1
        if here != target and not relays[here]:
            continue
        for entry in range(indptr[here], indptr[here + 1]):
            gives, head = width[edge[entry]], heads[entry]
            if gives < least or gives <= 0.0:
                continue
            if left[head] < 0:
                left[head] = left[here] + 1
                queue[there] = head
                there += 1
            if left[head] == left[here] + 1:
                widest[head] = max(widest[head], min(gives, widest[here]))
    path = np.empty(max(left[source], 0), dtype=np.int32)
    here = source
    for hop in range(path.size):
        best, after = -1, -1
        for entry in range(indptr[here], indptr[here + 1]):
            head, number = heads[entry], edge[entry]
            if left[head] != left[here] - 1 or min(width[number], widest[head]) < widest[source] or not (relays[head] or head == target):
                continue
            if (
                best < 0
                or node_rank[head] < node_rank[after]
                or (node_rank[head] == node_rank[after] and edge_rank[number] < edge_rank[best])
            ):
                best, after = number, head
        path[hop], here = best, after
    return path
