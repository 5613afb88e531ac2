"""Searches on arrays: what shortest and widest paths have in common.

A graph is `indptr` (n + 1) and `indices` (E), its directed entries by the node they leave, parallel ones included; weights, widths and what
may be used are arrays over the entries. scipy does the walking; a weight of infinity is an entry that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csgraph, csr_array

from controller.routing.compiled import Bools, Floats, Ints

Arc = tuple[float, int, int]
"""Weight, head and edge of an entry."""


def kept(indptr: Ints, indices: Ints, keep: Bools) -> csr_array:
    """The graph of the entries to keep, each of weight 1."""
    before = np.empty(keep.size + 1, dtype=np.int32)
    before[0] = 0
    np.cumsum(keep, dtype=np.int32, out=before[1:])
    heads = indices.take(np.flatnonzero(keep))
    nodes = indptr.size - 1
    return csr_array((np.ones(heads.size), heads, before.take(indptr)), shape=(nodes, nodes))


def distances(indptr: Ints, indices: Ints, weights: Floats, root: int) -> tuple[Floats, Ints]:
    """The least weight from `root` to every node, infinite where none leads, and the node before each."""
    nodes = indptr.size - 1
    graph = csr_array((weights, indices, indptr), shape=(nodes, nodes))
    found: tuple[Floats, Ints] = csgraph.dijkstra(graph, indices=root, return_predecessors=True)
    return found


def reached(graph: csr_array, root: int) -> tuple[Ints, Ints]:
    """Nodes in the order of a breadth-first search, and for every node of the graph the one before it (negative: none)."""
    found: tuple[Ints, Ints] = csgraph.breadth_first_order(graph, root)
    return found


def hops(graph: csr_array, root: int) -> Ints:
    """The fewest entries from `root` to every node; -1 where none leads."""
    order, before = reached(graph, root)
    position = np.zeros(graph.shape[0], dtype=np.intp)
    position[order] = np.arange(order.size)
    above = position.take(before.take(order), mode="clip")
    above[0] = 0
    depth = np.ones(order.size, dtype=np.int32)
    depth[0] = 0
    while above.any():  # each round knows the way up twice as far
        depth += depth.take(above)
        above = above.take(above)
    found = np.full(graph.shape[0], -1, dtype=np.int32)
    found[order] = depth
    return found


def first_by_name(
    arcs: Callable[[int], Iterable[Arc]], weight: Floats | None, left: Ints, source: int, names: Sequence[str], ids: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Of the shortest paths the first by node names, then by link ids; its nodes and its edges.

    Per node `weight` (None: all weigh the same) and `left` are the weight and the number of edges to go; `arcs` gives the entries that leave.
    """
    nodes, edges = [source], []
    here, hops_left = source, int(left[source])
    while hops_left:
        hops_left -= 1
        _, _, here, number = min(
            (names[head], ids[edge], head, edge)
            for arc, head, edge in arcs(here)
            if left[head] == hops_left and (weight is None or weight[head] + arc == weight[here])
        )
        nodes.append(here)
        edges.append(number)
    return nodes, edges


def largest(values: Floats, feasible: Callable[[float], bool], at_most: float = np.inf) -> float | None:
    """The largest of the positive values that is feasible, if all below a feasible one are."""
    left = values[(values > 0) & (values <= at_most)]
    best = None
    while left.size:
        pivot = np.partition(left, left.size // 2)[left.size // 2]
        if feasible(float(pivot)):
            best, left = float(pivot), left[left > pivot]
        else:
            left = left[left < pivot]
    return best


@dataclass(frozen=True, slots=True)
class Forest:
    """A spanning forest of greatest widths. The narrowest edge between two nodes of it is as wide as that of their widest path.

    Per node the one above it and the width of the edge there, 0 above the top of a tree.
    """

    above: list[int]
    width: list[float]

    def widest(self, sources: Iterable[tuple[int, float]], targets: Iterable[tuple[int, float]]) -> float:
        """The width of the widest path from a source to a target, each a node with the width of the way to it; 0 when none leads."""
        up: dict[int, float] = {}
        for node, width in sources:
            self._climb(node, width, up)
        best = 0.0
        for node, width in targets:
            other: dict[int, float] = {}
            self._climb(node, width, other)
            best = max([best, *(min(width, up[node]) for node, width in other.items() if node in up)])
        return best

    def _climb(self, node: int, width: float, seen: dict[int, float]) -> None:
        while width > seen.get(node, 0.0):
            seen[node] = width
            width = min(width, self.width[node])
            node = self.above[node]


def forest(indptr: Ints, indices: Ints, width: Floats) -> Forest:
    """The spanning forest of greatest widths, of the entries of positive width: one direction of each edge; parallel ones are allowed."""
    nodes, some = indptr.size - 1, 3 * (indptr.size - 1) // 2
    keep = width > 0
    there = width[keep]
    if there.size > 2 * some:
        # a narrower edge within a component of the widest edges is in no such forest: sort only the rest
        heavy = width >= np.partition(there, there.size - some)[there.size - some]
        _, part = csgraph.connected_components(kept(indptr, indices, heavy), directed=False)
        keep &= heavy | (part.repeat(np.diff(indptr)) != part.take(indices))
    wide = kept(indptr, indices, keep)
    wide.data = -width[keep]
    tree = csgraph.minimum_spanning_tree(wide).tocoo()
    one, other = tree.coords
    trees, part = csgraph.connected_components(tree, directed=False)
    tops = np.empty(trees, dtype=np.int32)
    tops[part] = np.arange(nodes)  # any node of a tree will do
    joined = (np.concatenate((one, tops)), np.concatenate((other, np.full(tops.size, nodes))))
    graph = csr_array((np.ones(nodes), joined), shape=(nodes + 1, nodes + 1))
    above = csgraph.breadth_first_order(graph, nodes, directed=False)[1]
    above[nodes] = nodes
    up = np.zeros(nodes + 1)
    up[np.where(above[one] == other, one, other)] = -tree.data
    return Forest(above.tolist(), up.tolist())
