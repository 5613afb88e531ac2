"""The exact optimum of the buffered model: the highest rate above a fidelity, or the highest fidelity above a rate.

A path's rate is the least of its links' rates times the swaps' successes q. Ask every link for a threshold r: then each purifies as often as
leaves it r, and what remains is a shortest path in -ln w, with what is lost by swaps as a second cost where swaps may fail (see
`constrained`). The thresholds that matter are the links' own rates after k rounds. A threshold also bounds all higher ones: their paths are
no shorter. So an interval [low, high] of thresholds cannot be better than the links of `low` with the rate of `high`, and intervals are
halved, the most promising first, until none promises more than the best path found (branch and bound). With swaps that never fail this is
the bisection over thresholds. Work: each step is some shortest-path trees of a graph that shrinks with the interval; usually tens of steps.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from controller.routing.compiled import Floats
from controller.routing.entangled.constrained import Path, Priced, constrained
from controller.routing.entangled.offers import ROUNDING, Arcs, Offers

MOST_STEPS = 3_000
"""Intervals looked at for one request."""

_SAMPLE = 1_000
"""Of more thresholds than this the median of some stands for the median of all."""


@dataclass(frozen=True, slots=True)
class Optimum:
    """Edges and rounds of a path, and what it is: ln of the rate in Hz, -ln w. `proven` is false when a bound on the effort was met."""

    edges: tuple[int, ...]
    rounds: tuple[int, ...]
    log_rate: float
    cost: float
    proven: bool = True


@dataclass(frozen=True, slots=True)
class Search:
    """The chains between two nodes, by number, and the floors they must meet: `most_cost` of -ln w, `least_log_rate` of ln of the rate."""

    offers: Offers
    src: int
    dst: int
    most_cost: float
    least_log_rate: float
    swap_w: Floats
    swap_q: Floats
    lossy: bool
    """Whether any swap may fail."""

    @classmethod
    def of(cls, offers: Offers, src: int, dst: int, most_cost: float = math.inf, least_log_rate: float = -math.inf) -> Search:
        swap_w, swap_q = offers.swap_w.copy(), offers.swap_q.copy()
        # the ends do not swap, and no shortest path comes back to them
        swap_w[[src, dst]] = swap_q[[src, dst]] = 0
        return cls(offers, src, dst, most_cost, least_log_rate, swap_w, swap_q, bool((swap_q[offers.repeater] > 0).any()))

    def priced(self, arcs: Arcs, least_hz: float) -> Priced:
        """The arcs whose links deliver `least_hz`: -ln w, purified as often as that allows, and -ln q of each and the swap before it."""
        arcs = arcs.keep(self.offers.rate[0][arcs.edge] >= least_hz)
        cost, _ = self.offers.at_rate(arcs.edge, least_hz)
        return Priced(arcs, cost + self.swap_w[arcs.tail], self.swap_q[arcs.tail])

    def spent(self, edges: Sequence[int]) -> float:
        """-ln of the success of all swaps along a path."""
        return float(self.swap_q[self._nodes(edges)].sum())

    def cost(self, edges: Sequence[int], least_hz: float) -> tuple[float, tuple[int, ...]]:
        """-ln w and rounds of a path whose links purify as often as leaves `least_hz`."""
        cost, rounds = self.offers.at_rate(np.asarray(edges, dtype=np.int32), least_hz)
        return float(cost.sum() + self.swap_w[self._nodes(edges)].sum()), tuple(int(times) for times in rounds)

    def _nodes(self, edges: Sequence[int]) -> list[int]:
        """The nodes a path passes from the start to before its end, start included (whose swap costs are 0)."""
        nodes, here = [], self.src
        for edge in edges:
            nodes.append(here)
            here = int(self.offers.edges.a[edge] + self.offers.edges.b[edge] - here)
        return nodes

    def fastest_on(self, edges: Sequence[int]) -> Optimum | None:
        """The highest rate of a path at -ln w of at most `most_cost`."""
        table = self.offers.rate[:, list(edges)]
        bottleneck = float(table[0].min())
        thresholds = np.unique(table[(table > 0) & (table <= bottleneck)])
        below, above = -1, len(thresholds)
        while above - below > 1:
            middle = (below + above) // 2
            if self.cost(edges, float(thresholds[middle]))[0] <= self.most_cost + ROUNDING / 2:
                below = middle
            else:
                above = middle
        if below < 0:
            return None
        least_hz = float(thresholds[below])
        cost, rounds = self.cost(edges, least_hz)
        return Optimum(tuple(edges), rounds, math.log(least_hz) - self.spent(edges), cost)

    def finest_on(self, edges: Sequence[int]) -> Optimum | None:
        """The least -ln w of a path at ln of the rate of at least `least_log_rate`."""
        spent = self.spent(edges)
        cost, rounds = self.cost(edges, math.exp(min(700, self.least_log_rate + spent)) * (1 - ROUNDING))
        if not cost < math.inf:
            return None
        return Optimum(tuple(edges), rounds, math.log(self.least_hz(edges, rounds)) - spent, cost)

    def least_hz(self, edges: Sequence[int], rounds: Sequence[int]) -> float:
        return float(self.offers.rate[list(rounds), list(edges)].min())


def highest_rate(search: Search, arcs: Arcs | None = None) -> Optimum | None:
    """The highest rate at -ln w of at most `most_cost`, then the least -ln w; None when no path (within `arcs`) has that little."""
    arcs = arcs or search.offers.between(search.src, search.dst)
    least_hz = search.offers.widest_hz(search.src, search.dst)
    if not least_hz:
        return None
    proven, limit = True, math.inf
    if search.lossy or search.most_cost < math.inf:
        found = _branch_and_bound(search, arcs, least_hz, fastest=True)
        if found is None:
            return None
        proven, least_hz = found.proven, search.least_hz(found.edges, found.rounds)
        limit = search.spent(found.edges) if search.lossy else math.inf
    finest = constrained(search.priced(arcs, least_hz), search.src, search.dst, limit)
    assert finest is not None
    cost, rounds = search.cost(finest[0].edges, least_hz)
    return Optimum(finest[0].edges, rounds, math.log(least_hz) - search.spent(finest[0].edges), cost, proven)


def highest_fidelity(search: Search) -> Optimum | None:
    """The least -ln w at ln of the rate of at least `least_log_rate`, then the highest rate; None when no path has that rate."""
    arcs = search.offers.between(search.src, search.dst)
    if search.lossy and search.least_log_rate > -math.inf:
        widest = search.offers.widest_hz(search.src, search.dst)
        found = _branch_and_bound(search, arcs, widest, fastest=False) if widest else None
        if found is None:
            return None
    else:
        least_hz = math.exp(min(700.0, search.least_log_rate)) * (1 - ROUNDING)
        priced = search.priced(arcs, least_hz)
        there, before = priced.arcs.tree(priced.cost, search.src)
        if not there[search.dst] < math.inf:
            return None
        path = priced.arcs.walk(before, priced.cost, search.dst)
        found = search.finest_on(priced.path(path).edges)
        assert found is not None
        tight = priced.arcs.head[there[priced.arcs.tail] + priced.cost <= there[priced.arcs.head] + ROUNDING]
        if (np.bincount(tight)[priced.arcs.head[path]] == 1).all():
            return found  # there is no other as good
        back, _ = priced.arcs.tree(priced.cost, search.dst)
        arcs = priced.within(priced.cost, there, back, float(there[search.dst]) + ROUNDING).arcs
    fastest = highest_rate(replace(search, most_cost=found.cost), arcs)
    return found if fastest is None else replace(fastest, proven=found.proven)


@dataclass(frozen=True, slots=True)
class _Interval:
    """Thresholds from `low` to `high`; the best path at `low`, and the arcs that a better one may use."""

    low: float
    high: float
    path: Path
    arcs: Arcs
    thresholds: Floats
    """Those above `low`, perhaps with some that no link of `arcs` has."""


def _branch_and_bound(search: Search, arcs: Arcs, widest: float, *, fastest: bool) -> Optimum | None:
    """The best path over all thresholds up to `widest`: of the highest rate if `fastest`, else of the least -ln w."""
    best: Optimum | None = None
    best_value = math.inf
    proven = True
    queue: list[tuple[float, int, _Interval]] = []

    numbers = count()

    def promise(path: Path, high: float) -> float:
        """What no path of an interval up to `high` is below, by the best path at its low end."""
        if not fastest:
            return path.bound
        return (path.bound if search.lossy else 0.0) - math.log(high)

    def look(arcs: Arcs, low: float, high: float, thresholds: Floats) -> None:
        nonlocal best, best_value
        priced = search.priced(arcs, low)
        if not fastest:
            found = constrained(priced, search.src, search.dst, math.log(high) - search.least_log_rate, best_value)
        elif search.lossy:
            turned = Priced(priced.arcs, priced.spend, priced.cost)
            found = constrained(turned, search.src, search.dst, search.most_cost, best_value + math.log(high))
        else:
            found = constrained(priced, search.src, search.dst, math.inf, search.most_cost + ROUNDING)
        if found is None:
            return
        path, arcs = found
        here = search.fastest_on(path.edges) if fastest else search.finest_on(path.edges)
        if here is not None and (value := -here.log_rate if fastest else here.cost) < best_value:
            best, best_value = here, value
        if fastest and here is not None and path.bound >= path.cost:
            # what is best at `low` is so at all thresholds it can keep to
            low = search.least_hz(here.edges, here.rounds)
        if 4 * arcs.edge.size < thresholds.size:
            thresholds = search.offers.rate.take(arcs.edge[arcs.tail < arcs.head], axis=1)
        push(_Interval(low, high, path, arcs, thresholds[(thresholds > low) & (thresholds <= high)]))

    def push(interval: _Interval) -> None:
        value = promise(interval.path, interval.high)
        if value < best_value - ROUNDING:
            heapq.heappush(queue, (value, next(numbers), interval))

    lowest = max(5e-324, math.exp(min(700.0, search.least_log_rate)) * (1 - ROUNDING))
    rates = search.offers.rate if 2 * arcs.edge.size > search.offers.rate.shape[1] else search.offers.rate.take(arcs.edge, axis=1)
    thresholds = rates[(rates >= lowest) & (rates <= widest)]
    if not len(thresholds):
        return None
    look(arcs, float(thresholds.min()), widest, thresholds)
    for _ in range(MOST_STEPS):
        if not queue or queue[0][0] >= best_value - ROUNDING:
            break
        _, _, interval = heapq.heappop(queue)
        low, thresholds = interval.low, interval.thresholds
        if not len(thresholds):
            if interval.high > low and not fastest:
                look(interval.arcs, low, low, thresholds)
            elif promise(interval.path, low) < best_value - ROUNDING:
                proven = False  # the search for a path at this one threshold was cut short
            continue
        sample = np.sort(thresholds[:: 1 + len(thresholds) // _SAMPLE])
        middle = float(sample[len(sample) // 2])
        look(interval.arcs, middle, interval.high, thresholds)
        below = thresholds[thresholds < middle]
        high = float(below.max(initial=low))
        if fastest or interval.path.spent <= math.log(high) - search.least_log_rate:
            push(_Interval(low, high, interval.path, interval.arcs, below))
        else:
            look(interval.arcs, low, high, below)
    else:
        proven = proven and not queue
    return best if best is None else replace(best, proven=proven)
