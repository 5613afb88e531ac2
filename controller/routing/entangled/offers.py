"""What entanglement links and repeaters offer, as arrays that follow the topology: pair rates and w by rounds, -ln of swaps' w and q.

Everything along a path then adds up (-ln w, -ln q) or is a minimum (the rate), which is what shortest-path routines need.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, dijkstra, minimum_spanning_tree

from controller.network.model import Swap
from controller.network.topology import Topology
from controller.routing.compiled import Compiled, Floats, Ints, compiled

ROUNDING = 1e-12
"""Relative error that floats may add along a path; a floor missed by less is met."""

_HOP = 1e-15
"""Added to the -ln w of each link: of paths with equal figures the one of fewest links is the shortest, and no link is for nothing."""

_LEAST = 1e-300
"""Stands for w = 0 in a logarithm."""


@dataclass(frozen=True, slots=True)
class Arcs:
    """Part of the offered links in both directions, in compressed sparse rows over all n nodes: the edge from `tail` to `head`."""

    indptr: Ints
    tail: Ints
    head: Ints
    edge: Ints

    def keep(self, mask: NDArray[np.bool_]) -> Arcs:
        if mask.all():
            return self
        at = np.flatnonzero(mask)
        indptr = np.concatenate(([0], np.cumsum(mask)))[self.indptr].astype(np.int32)
        return Arcs(indptr, self.tail[at], self.head[at], self.edge[at])

    def graph(self, weights: Floats) -> csr_array:
        return csr_array((weights, self.head, self.indptr), shape=(len(self.indptr) - 1,) * 2)

    def tree(self, weights: Floats, root: int, limit: float = np.inf) -> tuple[Floats, Ints]:
        """Least sums of `weights` (one per arc) from `root` to every node up to `limit`, and the node before each."""
        distance, before = dijkstra(self.graph(weights), indices=root, return_predecessors=True, limit=limit)
        return distance, before

    def walk(self, before: Ints, weights: Floats, dst: int) -> list[int]:
        """The arcs of the tree's path that ends in `dst`."""
        path, here = [], dst
        while (previous := int(before[here])) >= 0:
            start, end = int(self.indptr[previous]), int(self.indptr[previous + 1])
            near = zip(self.head[start:end].tolist(), weights[start:end].tolist(), range(start, end), strict=True)
            # of links in parallel, the one the tree used
            path.append(min((weight, arc) for head, weight, arc in near if head == here)[1])
            here = previous
        return path[::-1]


class Offers:
    """The offers of one topology, by rounds of purification (K + 1, m): rates in Hz (0: not on offer), w and costs -ln w.

    A round is on offer as long as it raises the fidelity. Per node (n): `swap_w` = -ln of the swap's w, `swap_q` = -ln of its success.
    """

    def __init__(self, topology: Topology, arrays: Compiled, rounds: int) -> None:
        self.arrays, self.rounds, self.revision = arrays, rounds, 0
        self.edges = arrays.edges(topology, "entanglement")
        edges = self.edges
        tail = np.repeat(np.arange(len(arrays.names), dtype=np.int32), np.diff(edges.indptr))
        self.arcs = Arcs(edges.indptr, tail, edges.indices, edges.edge)
        self.rate = np.zeros((rounds + 1, len(edges.ids)))
        self.w = np.zeros_like(self.rate)
        self.cost = np.zeros_like(self.rate)
        self._given = np.zeros((2, len(edges.ids)))
        self._inner: Arcs | None = None
        self._forest: Arcs | None = None
        links = enumerate(topology.links("entanglement"))
        self._via = [(at, link.via) for at, link in links if link.via is not None]
        nodes = [node for _, node in topology.nodes()]
        swaps = [node.swap or Swap() for node in nodes]
        self.repeater = np.array([node.kind == "repeater" for node in nodes], dtype=np.bool_)
        self.swap_w = -np.log(np.maximum(_LEAST, (4 * np.array([swap.fidelity for swap in swaps]) - 1) / 3))
        self.swap_q = -np.log(np.array([swap.success for swap in swaps]))

    def catch_up(self, topology: Topology) -> None:
        """Compute anew what changed of rate, fidelity or usability."""
        if self.revision == topology.revision:
            return
        rate = self.arrays.figure(topology, "entanglement", "rate_hz")
        fidelity = self.arrays.figure(topology, "entanglement", "fidelity")
        usable = self.edges.usable.copy()
        for at, via in self._via:
            usable[at] &= topology.node(via).admin == "enabled"
        # NaN compares false: what nobody knows is not on offer
        usable &= (rate > 0) & (rate < np.inf) & (fidelity >= 0.25) & (fidelity <= 1)
        given = np.where(usable, (rate, fidelity), 0.0)
        changed = np.flatnonzero((given != self._given).any(axis=0))
        self.rate[:, changed], self.w[:, changed] = _by_rounds(given[0, changed], given[1, changed], self.rounds)
        self.cost[:, changed] = _HOP - np.log(np.clip(self.w[:, changed], _LEAST, 1))
        self._given, self.revision = given, topology.revision
        if len(changed):
            self._inner = self._forest = None

    def between(self, src: int, dst: int) -> Arcs:
        """The arcs on offer between repeaters and the two ends."""
        if self.repeater[src] and self.repeater[dst]:
            return self.inner
        inside = self.repeater.copy()
        inside[[src, dst]] = True
        return self._over(inside)

    @property
    def inner(self) -> Arcs:
        """The arcs on offer between repeaters."""
        if self._inner is None:
            self._inner = self._over(self.repeater)
        return self._inner

    def _over(self, inside: NDArray[np.bool_]) -> Arcs:
        usable = (self.rate[0] > 0) & inside[self.edges.a] & inside[self.edges.b]
        return self.arcs.keep(usable[self.arcs.edge])

    def widest_hz(self, src: int, dst: int) -> float:
        """The highest raw rate that all links of some path between the two ends have; 0 when none joins them.

        Along a spanning forest of the highest rates: that of the repeaters, kept, and with it the links of ends that are none.
        """
        if self._forest is None:
            self._forest = self._spanning(self.inner)
        forest = self._forest
        if not (self.repeater[src] and self.repeater[dst]):
            on = np.zeros(len(self.edges.ids), dtype=np.bool_)
            on[forest.edge] = True
            for end in (src, dst):
                on[self.arcs.edge[self.arcs.indptr[end] : self.arcs.indptr[end + 1]]] = True
            arcs = self.between(src, dst)
            forest = self._spanning(arcs.keep(on[arcs.edge]))
        before = breadth_first_order(forest.graph(np.ones(len(forest.edge))), src)[1]
        if before[dst] < 0:
            return 0.0
        rate = np.empty(len(before))
        onwards = before[forest.head] == forest.tail
        rate[forest.head[onwards]] = self.rate[0][forest.edge[onwards]]
        steps, passed, here = before.tolist(), [], dst
        while here != src:
            passed.append(here)
            here = steps[here]
        return float(rate[passed].min())

    def _spanning(self, arcs: Arcs) -> Arcs:
        once = arcs.keep(arcs.tail < arcs.head)
        order = np.argsort(-self.rate[0][once.edge])
        rank = np.empty(len(order))
        # the rank tells which edge a tree's entry is
        rank[order] = np.arange(1, len(order) + 1)
        tree = minimum_spanning_tree(once.graph(rank))
        on = np.zeros(len(self.edges.ids), dtype=np.bool_)
        on[once.edge[order[tree.data.astype(np.int64) - 1]]] = True
        return arcs.keep(on[arcs.edge])

    def at_rate(self, edge: Ints, least_hz: float) -> tuple[Floats, Ints]:
        """(-ln w, rounds) of these edges purified as often as leaves `least_hz`; (inf, -1) where the raw rate is below."""
        links = self.rate.shape[1]
        # most arcs: once for every link, instead of for both directions
        every = len(edge) > links
        among = np.arange(links, dtype=np.int32) if every else edge
        table = self.rate if every else self.rate.take(edge, axis=1)
        rounds = (table >= max(least_hz, 5e-324)).sum(axis=0, dtype=np.int32) - 1
        cost = self.cost.ravel().take(np.maximum(rounds, 0) * links + among)
        cost[rounds < 0] = np.inf
        return (cost.take(edge), rounds.take(edge)) if every else (cost, rounds)

    def waiting(self, weight_hz: float) -> tuple[Floats, Ints]:
        """The least of -ln w + weight/rate over the rounds, of every link (m), and the rounds; infinite where nothing is on offer."""
        with np.errstate(divide="ignore"):
            cost = self.cost + weight_hz / self.rate
        rounds = cost.argmin(axis=0).astype(np.int32)
        return cost[rounds, np.arange(cost.shape[1])], rounds


def _by_rounds(rate: Floats, fidelity: Floats, rounds: int) -> tuple[Floats, Floats]:
    """`recurrence` of many links at once: rates and w by rounds; a round that does not raise w has rate 0."""
    rates, ws = np.zeros((rounds + 1, len(rate))), np.zeros((rounds + 1, len(rate)))
    for times in range(rounds + 1):
        ws[times] = (4 * fidelity - 1) / 3
        rate = np.where(ws[times] > ws[max(0, times - 1)] * (1 + ROUNDING), rate, 0.0) if times else rate
        rates[times] = rate
        rest = (1 - fidelity) / 3
        good = fidelity * fidelity + rest * rest
        success = good + 2 * fidelity * rest + 4 * rest * rest
        rate, fidelity = rate * (success / 2), np.minimum(1.0, good / success)
    return rates, ws


def offers(topology: Topology, rounds: int) -> Offers:
    """The offers of this topology with up to `rounds` rounds of purification, up to date; kept with it."""
    arrays = compiled(topology)
    kept: Offers | None = topology.derived.get(Offers)
    if kept is None or kept.arrays is not arrays or kept.rounds != rounds:
        kept = topology.derived[Offers] = Offers(topology, arrays, rounds)
    kept.catch_up(topology)
    return kept
