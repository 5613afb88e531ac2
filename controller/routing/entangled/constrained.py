"""The shortest path under a budget: least sum of one cost while the sum of another stays within a limit. Exact.

Lagrange multipliers bound the optimum from both sides (Handler and Zang, Networks 10, 293, 1980); what lies between the bounds is decided
by labels, of which only those survive that every bound still allows. On graphs made for it the number of labels grows exponentially: it is
limited, and who meets the limit gets the best path found, marked as not proven.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.routing.compiled import Floats
from controller.routing.entangled.offers import ROUNDING, Arcs

MOST_LABELS = 100_000
"""Labels for one path, about a second's worth."""


@dataclass(frozen=True, slots=True)
class Path:
    """A path by the edges it uses, the sums of both costs along it, and a lower bound on the first sum; equal to it when proven optimal."""

    edges: tuple[int, ...]
    cost: float
    spent: float
    bound: float


@dataclass(frozen=True, slots=True)
class Priced:
    """Arcs with two costs each."""

    arcs: Arcs
    cost: Floats
    spend: Floats

    def keep(self, mask: NDArray[np.bool_]) -> Priced:
        return self if mask.all() else Priced(self.arcs.keep(mask), self.cost[mask], self.spend[mask])

    def within(self, weights: Floats, there: Floats, back: Floats, limit: float) -> Priced:
        """Without the edges that no path of at most `limit` in `weights` can use, given the distances from both ends."""
        through = there[self.arcs.tail] + weights + back[self.arcs.head]
        used = np.zeros(int(self.arcs.edge.max(initial=-1)) + 1, dtype=np.bool_)
        used[self.arcs.edge[through <= limit]] = True
        return self.keep(used[self.arcs.edge])

    def path(self, arcs: list[int]) -> Path:
        edges = tuple(int(self.arcs.edge[arc]) for arc in arcs)
        cost = float(self.cost[arcs].sum())
        return Path(edges, cost, float(self.spend[arcs].sum()), cost)


def constrained(priced: Priced, src: int, dst: int, limit: float, cutoff: float = np.inf) -> tuple[Path, Arcs] | None:
    """The path from `src` to `dst` of least cost that spends at most `limit`, and the arcs that any path as good as `cutoff` may use.

    None when there is none of a cost below `cutoff`.
    """
    limit += ROUNDING / 2
    thrifty, back = None, None
    if np.isfinite(limit):
        there, before = priced.arcs.tree(priced.spend, src, limit)
        if not there[dst] <= limit:
            return None
        thrifty = priced.path(priced.arcs.walk(before, priced.spend, dst))
        back, _ = priced.arcs.tree(priced.spend, dst, limit)
        priced = priced.within(priced.spend, there, back, limit)
    there, before = priced.arcs.tree(priced.cost, src, cutoff)
    if not there[dst] < cutoff:
        return None
    cheap = priced.path(priced.arcs.walk(before, priced.cost, dst))
    if cheap.spent > limit and thrifty is not None and back is not None:
        return _close_gap(priced, src, dst, limit, cutoff, cheap, thrifty, there, back)
    if np.isfinite(cutoff):
        to_go, _ = priced.arcs.tree(priced.cost, dst, cutoff)
        priced = priced.within(priced.cost, there, to_go, cutoff)
    return cheap, priced.arcs


def _close_gap(
    priced: Priced, src: int, dst: int, limit: float, cutoff: float, cheap: Path, thrifty: Path, there: Floats, back: Floats
) -> tuple[Path, Arcs] | None:
    """Between the cheapest path, which spends too much, and one that spends little enough."""
    to_go, _ = priced.arcs.tree(priced.cost, dst, cutoff)
    wanted = priced.within(priced.cost, there, to_go, cutoff).arcs
    priced = priced.within(priced.cost, there, to_go, min(cutoff, thrifty.cost))
    over, under, bound, rate = cheap, thrifty, cheap.cost, 0.0
    while over.spent > under.spent and under.cost > over.cost:
        slope = (under.cost - over.cost) / (over.spent - under.spent)
        weights = priced.cost + slope * priced.spend
        there, before = priced.arcs.tree(weights, src)
        if there[dst] - slope * limit > bound:
            bound, rate = float(there[dst] - slope * limit), slope
        if bound >= min(cutoff, under.cost) - ROUNDING or there[dst] >= (over.cost + slope * over.spent) * (1 - ROUNDING):
            break
        path = priced.path(priced.arcs.walk(before, weights, dst))
        over, under = (over, path) if path.spent <= limit else (path, under)
    if bound >= cutoff:
        return None
    best = under
    if bound < min(cutoff, best.cost) - ROUNDING:
        weights = priced.cost + rate * priced.spend
        there, _ = priced.arcs.tree(weights, src)
        combined, _ = priced.arcs.tree(weights, dst)
        priced = priced.within(weights, there, combined, min(cutoff, best.cost) + rate * limit)
        found, bound = _labels(priced, src, dst, limit, min(cutoff, best.cost), rate, (to_go, back, combined))
        best = found or best
    if best.cost >= cutoff:
        return None
    return Path(best.edges, best.cost, best.spent, best.cost if bound >= best.cost - ROUNDING else bound), wanted


def _labels(
    priced: Priced, src: int, dst: int, limit: float, cutoff: float, rate: float, bounds: tuple[Floats, Floats, Floats]
) -> tuple[Path | None, float]:
    """The best path below `cutoff`, if any, and a lower bound on what any other costs; `bounds` are distances to `dst` in cost, spend, both."""
    indptr, heads, edges = priced.arcs.indptr.tolist(), priced.arcs.head.tolist(), priced.arcs.edge.tolist()
    cost, spend = priced.cost.tolist(), priced.spend.tolist()
    to_cost, to_spend, to_both = (bound.tolist() for bound in bounds)
    best: Path | None = None
    # a label: what cost + rate * spend comes to at least, cost, spend, node, the label before, its edge
    labels: list[tuple[float, float, int, int, int]] = [(0.0, 0.0, src, -1, -1)]
    queue: list[tuple[float, int]] = [(to_both[src], 0)]
    settled: dict[int, list[tuple[float, float]]] = {}
    while queue:
        least, number = heapq.heappop(queue)
        if least - rate * limit >= cutoff - ROUNDING:
            break
        if len(labels) > MOST_LABELS:
            return best, least - rate * limit
        so_far, spent, here, _, _ = labels[number]
        if so_far + to_cost[here] >= cutoff - ROUNDING:
            continue
        known = settled.setdefault(here, [])
        if any(other <= so_far and less <= spent for other, less in known):
            continue
        known.append((so_far, spent))
        if here == dst:
            cutoff, at, used = so_far, number, []
            while labels[at][3] >= 0:
                used.append(labels[at][4])
                at = labels[at][3]
            best = Path(tuple(used[::-1]), so_far, spent, so_far)
            continue
        for arc in range(indptr[here], indptr[here + 1]):
            head = heads[arc]
            further, more = so_far + cost[arc], spent + spend[arc]
            if more + to_spend[head] > limit or further + to_cost[head] >= cutoff - ROUNDING:
                continue
            key = further + rate * more + to_both[head]
            if key - rate * limit < cutoff and not any(other <= further and less <= more for other, less in settled.get(head, ())):
                labels.append((further, more, head, number, edges[arc]))
                heapq.heappush(queue, (key, len(labels) - 1))
    return best, cutoff
