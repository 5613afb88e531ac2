"""Paths of key segments over relays: the smallest, the widest and the disjoint ones, by searches on the arrays of `segments`."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

import numpy as np
from scipy.sparse import csr_array

from controller.routing.compiled import Floats, Ints, adjacency
from controller.routing.graph import flow
from controller.routing.graph.search import Forest, forest, hops, kept, largest
from controller.routing.keys.disjoint import Leaving, Path, PathKey, PathSet, disjoint_paths, path_key, simple
from controller.routing.keys.segments import Segment, Segments

_SEGMENT_COST = 1_000_000
"""One segment, that is one trusted node, weighs more than all links of a set."""


class Search:
    """Paths between two nodes over the segments of positive width."""

    def __init__(self, segments: Segments, width: Floats, src: str, dst: str) -> None:
        self.segments, self.width, self.src, self.dst = segments, width, src, dst
        self.source, self.target = segments.number[src], segments.number[dst]
        self._residual: flow.NodeDisjoint | None = None

    def may_relay(self, name: str) -> bool:
        return bool(self.segments.relays[self.segments.number[name]])

    def operator(self, name: str) -> str | None:
        return self.segments.topology.node(name).operator

    def leaving(self, least: float, onward: Callable[[int, int], bool] = lambda tail, head: True) -> Leaving:
        """The segments at least that wide that leave a node for one that `onward` allows."""
        every = self.segments

        def of(name: str) -> list[Segment]:
            tail = every.number[name]
            entries = self._around(tail)
            return [every.segment(edge, tail) for head, edge, width in entries if 0 < width >= least and onward(tail, head)]

        return of

    def to_go(self, least: float) -> Ints:
        """The fewest segments at least that wide from every node to the target, over relays; -1 where none lead."""
        return hops(self._wide(least), self.target)

    def _wide(self, least: float) -> csr_array:
        """The graph of the segments at least that wide, by the entries on which a search from the target goes."""
        every = self.segments
        keep = self._of_relays() >= max(least, np.nextafter(0.0, 1.0))
        if not every.relays[self.target]:
            span = slice(every.indptr[self.target], every.indptr[self.target + 1])
            widths = self.width[every.edge[span]]
            keep[span] = (widths > 0) & (widths >= least)
        return kept(every.indptr, every.indices, keep)

    def _entries(self) -> Floats:
        """Widths of the entries."""
        every = self.segments
        widths: Floats = (
            every.kept.of("entries", lambda: self.width.take(every.edge)) if self.width is every.width else self.width.take(every.edge)
        )
        return widths

    def _of_relays(self) -> Floats:
        """Widths of the entries that leave a relay, else 0."""
        every = self.segments

        def compute() -> Floats:
            return np.where(np.repeat(every.relays, np.diff(every.indptr)), self._entries(), 0.0)

        widths: Floats = every.kept.of("of relays", compute) if self.width is every.width else compute()
        return widths

    def smallest(self, least: float, max_trusted_nodes: int | None) -> Path | None:
        """The path of fewest segments at least that wide, then links, then the first by name. It may pass one repeater twice.

        Where every segment is one link, it is the widest of those with the fewest.
        """
        every = self.segments
        if every.chains:
            left = self.to_go(least)
            if left[self.source] < 0 or (max_trusted_nodes is not None and left[self.source] - 1 > max_trusted_nodes):
                return None
            closer = self.leaving(least, lambda tail, head: bool(left[head] == left[tail] - 1))
            return _smallest(closer, self.src, self.dst, self.may_relay)
        edges = self._edges(least)
        if not edges.size or (max_trusted_nodes is not None and edges.size - 1 > max_trusted_nodes):
            return None
        return every.relayed(edges, self.source)

    def _edges(self, least: float) -> Ints:
        """The path of fewest segments at least that wide, then the widest; then the first by name, if every segment is one link."""
        from controller.routing.keys.fewest import fewest_relays  # it needs a compiler, which only workers are to load

        every = self.segments
        graph = every.indptr, every.indices, every.edge, self._entries()
        return fewest_relays(*graph, every.relays, every.node_rank, every.edge_rank, self.source, self.target, least)

    def at(self, least: float, shares: int, max_trusted_nodes: int | None) -> PathSet:
        """The paths with the fewest trusted nodes, then links, over segments at least that wide."""
        if shares == 1:
            path = self.smallest(least, max_trusted_nodes)
            if path is None or not self.segments.chains or simple(path):
                return PathSet(None if path is None else (path,), True)
            relaxed: tuple[Path, ...] | None = (path,)  # two entangled segments over one repeater: its links would be counted twice
        else:
            relaxed = self._relaxed(least, shares)
        if relaxed is None:
            return PathSet(None, True)
        left = self.to_go(least)
        return disjoint_paths(
            relaxed,
            self.leaving(least),
            lambda name: int(left[self.segments.number[name]]),
            self.src,
            self.dst,
            shares,
            max_trusted_nodes=max_trusted_nodes,
            may_relay=self.may_relay,
            operator=self.operator,
            risks=self.segments.risks,
        )

    def _relaxed(self, least: float, shares: int) -> tuple[Path, ...] | None:
        """Paths that share no relaying node, with the fewest segments and then links in all: a flow of least cost."""
        every = self.segments
        if self._residual is None:
            self._residual = flow.NodeDisjoint(every.indptr, every.indices, every.edge, every.relays, self.source, self.target)
        costs = np.where((self.width > 0) & (self.width >= least), _SEGMENT_COST + every.links, np.inf)
        used = flow.cheapest(self._residual, costs.take(every.edge), shares, self.order)
        if used is None:
            return None
        tails = np.searchsorted(every.indptr, sorted(used), side="right") - 1
        ways: dict[int, list[int]] = {}
        for tail, entry in zip(tails.tolist(), sorted(used), strict=True):
            ways.setdefault(tail, []).append(entry)
        paths = []
        for first in ways[self.source]:
            path, tail, entry = [], self.source, first
            while tail != self.target:
                path.append(every.segment(int(every.edge[entry]), tail))
                tail = int(every.indices[entry])
                entry = ways.get(tail, [entry])[0]
            paths.append(tuple(path))
        return tuple(sorted(paths, key=path_key))

    def order(self, edge: int) -> object:
        """The order of parallel segments."""
        return path_key((self.segments.segment(edge),))

    def bound(self, shares: int) -> tuple[int, float]:
        """How many paths, at most `shares`, can be disjoint, and how wide so many are at most.

        Exact for one path; for more where nobody operates more than one node and no risks are shared. Nodes of one operator are taken for
        one, as no two paths may pass them.
        """
        every, relays = self.segments, self.segments.relays
        if shares == 1:
            best = self._width()
            return int(best > 0), best
        if not every.operators:
            residual = flow.NodeDisjoint(every.indptr, every.indices, every.edge, relays, self.source, self.target)
            return flow.widest(residual, self.width.take(every.edge), shares, self.order)
        group = np.arange(len(every.names), dtype=np.int32)
        for members in every.operators:
            inner = members[(members != self.source) & (members != self.target)]
            group[inner] = inner[:1]
        a, b = group[every.a], group[every.b]
        apart = np.flatnonzero(a != b)
        indptr, indices, edge = adjacency(group.size, a[apart], b[apart])
        residual = flow.NodeDisjoint(indptr, indices, apart[edge].astype(np.int32), relays, self.source, self.target)
        return flow.widest(residual, self.width[apart[edge]], shares, self.order)

    def _width(self) -> float:
        """The width of the widest path, 0 where there is none. A forest takes longer than one search, so it is made for the second request."""
        every = self.segments
        if "asked" not in every.kept:
            from controller.routing.keys.fewest import widest_width  # see `_edges`

            every.kept["asked"] = True
            return widest_width(every.a, every.b, self.width, every.relays, self.source, self.target)
        tree: Forest = every.kept.of("forest", self._forest)
        ends = [self._reach(node) for node in (self.source, self.target)]
        direct = [width for head, _, width in self._around(self.source) if head == self.target]
        return max([tree.widest(*ends), *direct])

    def _forest(self) -> Forest:
        every = self.segments
        one_way = every.a.take(every.edge) == np.repeat(np.arange(len(every.names), dtype=np.int32), np.diff(every.indptr))
        return forest(every.indptr, every.indices, np.where(one_way & every.relays.take(every.indices), self._of_relays(), 0.0))

    def _around(self, node: int) -> list[tuple[int, int, float]]:
        """Head, edge and width of the entries that leave a node."""
        every = self.segments
        span = slice(every.indptr[node], every.indptr[node + 1])
        edges = every.edge[span]
        return list(zip(every.indices[span].tolist(), edges.tolist(), self.width[edges].tolist(), strict=True))

    def _reach(self, node: int) -> list[tuple[int, float]]:
        """The relays by which a path begins, and how wide the way to them is."""
        if self.segments.relays[node]:
            return [(node, np.inf)]
        return [(head, width) for head, _, width in self._around(node) if self.segments.relays[head]]

    def fewest(self, rate_bps: float, shares: int, max_trusted_nodes: int | None) -> PathSet:
        """The paths that carry the rate with the fewest trusted nodes, then the widest, then with the fewest links."""
        found = self.at(rate_bps, shares, max_trusted_nodes)
        if found.paths is None or (shares == 1 and not self.segments.chains):
            return found
        most = sum(len(path) - 1 for path in found.paths)
        return self._widened(found, self.width[self.width > width_of(found.paths)], shares, most)

    def widest(self, shares: int, max_trusted_nodes: int | None) -> PathSet:
        """The same at the largest width that has them. Every path of one width is one of each lesser width, so bisection is exact."""
        count, width = self.bound(shares)
        if count < shares:
            return PathSet(None, True)
        found = self.at(width, shares, max_trusted_nodes)
        if found.paths is not None:
            return found
        return self._widened(found, self.width[self.width < width], shares, max_trusted_nodes)

    def _widened(self, best: PathSet, widths: Floats, shares: int, max_trusted_nodes: int | None) -> PathSet:
        """What there is at the largest of the widths that has anything; else `best`."""
        proven = best.proven

        def feasible(least: float) -> bool:
            nonlocal best, proven
            found = self.at(least, shares, max_trusted_nodes)
            proven = proven and found.proven
            if found.paths is not None:
                best = found
            return found.paths is not None

        largest(widths, feasible)
        return PathSet(best.paths, proven)

    def most_shares(self, below: int) -> tuple[int, bool]:
        """How many disjoint paths there are, at most `below` - 1; and whether that is proven, else there may be more."""
        most, _ = self.bound(below - 1) if below > 1 else (0, 0.0)
        proven = True
        for shares in range(most, 0, -1):
            found = self.at(0.0, shares, None)
            if found.paths is not None:
                return shares, proven
            proven = proven and found.proven
        return 0, proven


def _smallest(leaving: Leaving, src: str, dst: str, may_relay: Callable[[str], bool]) -> Path | None:
    """The path of fewest segments, then links, then first by name: Dijkstra, as the order of paths is that of what they are made of."""
    queue: list[tuple[PathKey, Path]] = [(path_key((segment,)), (segment,)) for segment in leaving(src)]
    heapq.heapify(queue)
    settled = {src}
    while queue:
        _, path = heapq.heappop(queue)
        here = path[-1].nodes[-1]
        if here == dst:
            return path
        if here in settled or not may_relay(here):
            continue
        settled.add(here)
        for segment in leaving(here):
            if segment.nodes[-1] not in settled:
                longer = (*path, segment)
                heapq.heappush(queue, (path_key(longer), longer))
    return None


def width_of(paths: Iterable[Path]) -> float:
    """The width of the narrowest segment of all."""
    return min(segment.width_bps for path in paths for segment in path)
