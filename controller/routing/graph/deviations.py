"""The k shortest simple paths, each found as a deviation from an earlier one (Yen, Management Science 17, 1971; Lawler 1972).

How far every node is from the target is known beforehand, so a deviation has a bound at once, and is searched only when its turn comes: most
never are. Where the way on is free, it is the path itself; where it leads back into what is already used, A* finds it.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controller.routing.graph.search import Arc

Size = tuple[float, int]
"""Weight, then number of links."""
Found = tuple[tuple[int, ...], tuple[int, ...]]
"""The nodes and the edges of a path."""


@dataclass(frozen=True, slots=True)
class _Deviation:
    """All simple paths that begin with these nodes and edges, and whose next edge is none of `barred`. `done` is the size of each beginning."""

    nodes: tuple[int, ...]
    edges: tuple[int, ...]
    done: tuple[Size, ...]
    barred: frozenset[int]


class Deviations:
    """`arcs` gives the entries that leave a node; `to_go` per node weight and number of links of the shortest way to the target."""

    def __init__(
        self, arcs: Callable[[int], list[Arc]], to_go: tuple[Sequence[float], Sequence[int]], names: Sequence[str], ids: Sequence[str]
    ) -> None:
        self._compute_arcs = arcs
        self._weight, self._hops = to_go
        self._names, self._ids = names, ids
        self._arcs: dict[int, list[Arc]] = {}

    def shortest(self, source: int, target: int, count: int) -> list[Found]:
        """At most `count` simple paths by weight, number of links, node names and link ids."""
        queue: list[tuple[Size, bool, tuple[str, ...], tuple[str, ...], int, _Deviation, Found | None]] = []
        sizes: list[Size] = []  # of the best that are known, so that worse ones are not looked for
        pushed = 0

        def push(part: _Deviation, used: set[int]) -> None:
            nonlocal pushed
            size = self._bound(part, used)
            if size is not None and (len(sizes) < count or size <= sizes[count - 1]):
                pushed += 1
                heapq.heappush(queue, (size, False, (), (), pushed, part, None))

        push(_Deviation((source,), (), ((0.0, 0),), frozenset()), {source})
        found: list[Found] = []
        while queue and len(found) < count:
            size, _, _, _, number, part, path = heapq.heappop(queue)
            if path is None:
                path = self._free(part, target)
                if path is None:
                    path = self._around(part, target, sizes[count - 1] if len(sizes) >= count else None)
                if path is not None:
                    size = self._size(part, path)
                    insort(sizes, size)
                    names = tuple(self._names[node] for node in path[0])
                    heapq.heappush(queue, (size, True, names, tuple(self._ids[edge] for edge in path[1]), number, part, path))
                continue
            found.append(path)
            nodes, edges = path
            done, first, used = list(part.done), len(part.edges), set(part.nodes[:-1])
            for position in range(first, len(edges)):
                used.add(nodes[position])
                barred = frozenset((edges[position],)) | (part.barred if position == first else frozenset())
                push(_Deviation(nodes[: position + 1], edges[:position], tuple(done), barred), used)
                done.append(self._after(done[-1], nodes[position], edges[position]))
        return found

    def _leaving(self, node: int) -> list[Arc]:
        if node not in self._arcs:
            self._arcs[node] = [arc for arc in self._compute_arcs(node) if self._hops[arc[1]] >= 0]
        return self._arcs[node]

    def _after(self, done: Size, node: int, edge: int) -> Size:
        weight = next(weight for weight, _, number in self._leaving(node) if number == edge)
        return done[0] + weight, done[1] + 1

    def _size(self, part: _Deviation, path: Found) -> Size:
        size = part.done[-1]
        for node, edge in zip(path[0][len(part.edges) :], path[1][len(part.edges) :], strict=False):
            size = self._after(size, node, edge)
        return size

    def _bound(self, part: _Deviation, used: set[int]) -> Size | None:
        """No path of the part is smaller; None when it has none."""
        weight, hops = part.done[-1]
        sizes = [
            (arc + self._weight[head], self._hops[head] + 1)
            for arc, head, edge in self._leaving(part.nodes[-1])
            if edge not in part.barred and head not in used
        ]
        if not sizes:
            return None
        least = min(sizes)
        return weight + least[0], hops + least[1]

    def _free(self, part: _Deviation, target: int) -> Found | None:
        """The path that goes on as if nothing were used yet; None when that leads into what is."""
        used = set(part.nodes)
        nodes, edges, barred = list(part.nodes), list(part.edges), part.barred
        while nodes[-1] != target:
            ways = [
                (arc + self._weight[head], self._hops[head], self._names[head], self._ids[edge], head, edge)
                for arc, head, edge in self._leaving(nodes[-1])
                if edge not in barred and head not in used
            ]
            best = min(ways, default=None)
            here = nodes[-1]
            if best is None or (len(nodes) > len(part.nodes) and (best[0], best[1] + 1) != (self._weight[here], self._hops[here])):
                return None
            nodes.append(best[4])
            edges.append(best[5])
            used.add(best[4])
            barred = frozenset()
        return tuple(nodes), tuple(edges)

    def _around(self, part: _Deviation, target: int, limit: Size | None) -> Found | None:
        """The first path of the part, by A*; None when it has none, or none within the limit."""
        settled = set(part.nodes[:-1])
        # a way so far, as (names, ids, nodes, edges) after the spur; at equal sizes the heap orders it by name
        queue: list[tuple[Size, tuple[str, ...], tuple[str, ...], Size, tuple[int, ...], tuple[int, ...]]] = [
            (part.done[-1], (), (), part.done[-1], (part.nodes[-1],), ())
        ]
        barred = part.barred
        while queue:
            _, names, ids, (weight, hops), nodes, edges = heapq.heappop(queue)
            here = nodes[-1]
            if here == target:
                return part.nodes[:-1] + nodes, part.edges + edges
            if here in settled:
                continue
            settled.add(here)
            for arc, head, edge in self._leaving(here):
                if head in settled or edge in barred:
                    continue
                size = weight + arc, hops + 1
                bound = size[0] + self._weight[head], size[1] + self._hops[head]
                if limit is None or bound <= limit:
                    heapq.heappush(
                        queue, (bound, (*names, self._names[head]), (*ids, self._ids[edge]), size, (*nodes, head), (*edges, edge))
                    )
            barred = frozenset()
        return None
