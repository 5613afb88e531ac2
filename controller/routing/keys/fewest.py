"""Searches for one relay path, compiled: how wide the widest is, and which has the fewest trusted nodes.

The graph is undirected; only `relays` (n) may lie between the ends, and an edge of width 0 is not there.
"""

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
    """The edges of the path at least so wide with the fewest of them, then the widest, then the first by the ranks of its nodes and edges.

    `indptr` (n + 1), `heads`, `edge` and `width` (2m) are the edges by node, widths in bit/s. Empty where no path leads.
    """
    least = max(least, np.nextafter(0.0, 1.0))
    nodes = indptr.size - 1
    left = np.full(nodes, -1, dtype=np.int32)  # how many edges to the target
    queue = np.empty(nodes + 1, dtype=np.int32)
    queue[0], left[target] = target, 0
    taken, there = 0, 1
    while taken < there and left[source] < 0:
        here = queue[taken]
        taken += 1
        if here == target or relays[here]:
            after = left[here] + 1
            for entry in range(indptr[here], indptr[here + 1]):
                # without a branch, as no processor can tell what to expect
                head = heads[entry]
                new = (width[entry] >= least) & (left[head] < 0)
                left[head] = after if new else left[head]
                queue[there] = head
                there += new
    if left[source] < 0:
        return np.empty(0, dtype=np.int32)

    # the nodes on any path so short, from the source on, and from each the width of the widest such way to the target
    widest = np.full(nodes, -1.0)
    queue[0], widest[source] = source, 0.0
    taken, there = 0, 1
    while taken < there:
        here = queue[taken]
        taken += 1
        for entry in range(indptr[here], indptr[here + 1]):
            head = heads[entry]
            if left[head] == left[here] - 1 and width[entry] >= least and widest[head] < 0 and (relays[head] or head == target):
                widest[head] = 0.0
                queue[there] = head
                there += 1
    widest[target] = np.inf
    for place in range(there - 1, -1, -1):
        here = queue[place]
        for entry in range(indptr[here], indptr[here + 1]):
            head = heads[entry]
            if left[head] == left[here] - 1:
                widest[here] = max(widest[here], min(width[entry], widest[head]))

    path = np.empty(left[source], dtype=np.int32)
    here = source
    for hop in range(path.size):
        best, after = -1, -1
        for entry in range(indptr[here], indptr[here + 1]):
            head, number = heads[entry], edge[entry]
            if left[head] != left[here] - 1 or min(width[entry], widest[head]) < widest[source]:
                continue
            if best < 0 or (node_rank[head], edge_rank[number]) < (node_rank[after], edge_rank[best]):
                best, after = number, head
        path[hop], here = best, after
    return path


def widest_width(a: Ints, b: Ints, width: Floats, relays: Bools, source: int, target: int) -> float:
    """The width of the widest path, 0 where none leads; `a`, `b` and `width` (m) are the edges.

    Camerini's search (Inf. Process. Lett. 7:10, 1978): whether the wider half of the edges joins the ends decides with which half to go on,
    what a half that does not has joined being one node from then on. Time and space grow as the edges.
    """
    through = relays.copy()
    through[[source, target]] = True
    edges = np.flatnonzero(through[a] & through[b] & (width > 0))
    top = np.arange(relays.size, dtype=np.int32)
    best = 0.0
    while edges.size:
        widths = width[edges]
        pivot = np.partition(widths, edges.size // 2)[edges.size // 2]
        joined, wide = top.copy(), edges[widths >= pivot]
        if _join(joined, a[wide], b[wide], source, target):
            best, edges = float(pivot), edges[widths > pivot]
        else:
            top, edges = joined, edges[widths < pivot]
    return best


@njit(cache=True)
def _join(above: Ints, a: Ints, b: Ints, source: int, target: int) -> bool:
    """Join the ends of edges, and say whether that joins source and target; `above` leads from each node to the one that stands for it."""
    ends = np.empty(2, dtype=np.int32)
    for edge in range(a.size + 1):
        ends[0], ends[1] = (a[edge], b[edge]) if edge < a.size else (source, target)
        for end in range(2):
            node = ends[end]
            while above[node] != node:
                above[node] = above[above[node]]
                node = above[node]
            ends[end] = node
        if edge < a.size:
            above[ends[0]] = ends[1]
    return bool(ends[0] == ends[1])
