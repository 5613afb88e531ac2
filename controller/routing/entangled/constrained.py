"""The shortest path under a budget: least sum of one cost while the sum of another stays within a limit. Exact.

Lagrange multipliers bound the optimum from both sides (Handler and Zang, Networks 10, 293, 1980); what lies between the bounds is decided
by labels in the order of the first cost and what it must still come to, so that of the labels at a node one remembered figure tells which
are dominated (BOA*: Hernandez Ulloa et al., ICAPS 2020). On graphs made for it the number of labels grows exponentially: it is limited, and
who meets the limit gets the best path found, marked as not proven.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from controller.routing.compiled import Edges, Floats, Ints
from controller.routing.entangled.offers import ROUNDING
from controller.routing.entangled.searches import explore, most_rounds, walk
from controller.routing.graph.heap import ABSENT, pop, push

MOST_LABELS = 500_000
"""Labels for one path, about half a second's worth."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What adds up along a path: `factor` times the cost of each edge, and `leaving` (n) of each node but the last."""

    factor: float
    leaving: Floats

    def plus(self, times: float, other: Sums) -> Sums:
        return Sums(self.factor + times * other.factor, self.leaving + times * other.leaving)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least that the first cost and the second come to on any way from node `end` to each node (n); infinite where it is of no use.

    `both` is the same of the first + `slope` * the second, where some slope has told more than either cost alone.
    """

    end: int
    first: Floats
    second: Floats
    both: Floats | None = None
    slope: float = 0.0


@dataclass(frozen=True, slots=True)
class Path:
    """A path by its edges from `start`; the sums of both costs along it, and a lower bound on the first of any path."""

    start: int
    edges: Ints
    cost: float
    spent: float
    bound: float


@dataclass(frozen=True, slots=True)
class Problem:
    """Paths from `start` to `known.end` whose links leave `least_hz`: least `aim`, with `budget` of at most `limit` where there is one.

    `rate`, `cost` and, where there is no budget, `slack` as in `searches`. `consider` is told of every path met, and says below which `aim` another is of interest.
    """

    edges: Edges
    rate: Floats
    cost: Floats
    least_hz: float
    start: int
    known: Bounds
    aim: Sums
    budget: Sums | None
    limit: float
    cutoff: float
    slack: float
    consider: Callable[[Path], float]

    def explore(self, sums: Sums, ahead: Floats, limit: float, slack: float = math.inf) -> tuple[Floats, Path | None]:
        """Sums from `start` to all nodes of use, and the path of the least."""
        end = self.known.end
        found, before = explore(*self.arrays, sums.factor, sums.leaving, self.start, end, ahead, limit, slack)
        return found, self.path(walk(before, self.edges.a, self.edges.b, end)) if found[end] < math.inf else None

    def path(self, path: Ints) -> Path:
        start, aim, budget = self.known.end, self.aim, self.budget or self.aim
        factors = aim.factor, aim.leaving, budget.factor, budget.leaving
        cost, spent = _along(path, start, self.edges.a, self.edges.b, self.rate, self.cost, self.least_hz, *factors)
        return Path(start, path, cost, spent, cost)

    @property
    def arrays(self) -> tuple[Ints, Ints, Ints, Floats, Floats, float]:
        return self.edges.indptr, self.edges.indices, self.edges.edge, self.rate, self.cost, self.least_hz


def constrained(problem: Problem) -> tuple[Path, Bounds] | None:
    """The best path and bounds from `start`; None when there is none below the cutoff. The path's bound tells whether it is proven best."""
    limit, cutoff, known, thrifty = problem.limit + ROUNDING / 2, problem.cutoff, problem.known, None
    ahead, second = known.first, known.second
    if (budget := problem.budget) is not None and known.both is not None:
        both, path = problem.explore(problem.aim.plus(known.slope, budget), known.both, cutoff + known.slope * limit + ROUNDING)
        if path is None:
            return None
        cutoff = min(cutoff, problem.consider(path))
        ahead, second = np.where(both < math.inf, (ahead, second), math.inf)
    if budget is not None and cutoff == math.inf:
        second, thrifty = problem.explore(budget, second, limit)
        if thrifty is None:
            return None
        cutoff = problem.consider(thrifty)
        ahead = np.where(second < math.inf, ahead, math.inf)
    first, cheap = problem.explore(problem.aim, ahead, cutoff + ROUNDING, math.inf if budget else problem.slack)
    if cheap is None or not cheap.cost < cutoff:
        return None
    if budget is None or cheap.spent <= limit:
        problem.consider(cheap)
        return cheap, Bounds(problem.start, first, second if thrifty else np.where(first < math.inf, 0.0, math.inf))
    if thrifty is None:
        second, thrifty = problem.explore(budget, np.where(first < math.inf, second, math.inf), limit)
        if thrifty is None:
            return None
        cutoff = min(cutoff, problem.consider(thrifty))
    return _close_gap(problem, Bounds(problem.start, first, second), limit, cutoff, cheap, thrifty)


def _close_gap(problem: Problem, bounds: Bounds, limit: float, cutoff: float, cheap: Path, thrifty: Path) -> tuple[Path, Bounds] | None:
    """Between the cheapest path, which spends too much, and one that spends little enough."""
    aim, budget, known = problem.aim, problem.budget, problem.known
    assert budget is not None
    both, slope = bounds.first, 0.0
    ahead = np.where(bounds.second < math.inf, np.where(bounds.first < math.inf, known.first, math.inf), math.inf)
    over, under, bound = cheap, thrifty, cheap.cost
    while over.spent > under.spent and under.cost > over.cost and limit > thrifty.spent + ROUNDING:
        rate = (under.cost - over.cost) / (over.spent - under.spent)
        found, path = problem.explore(aim.plus(rate, budget), ahead + rate * known.second, cutoff + rate * limit + ROUNDING)
        if path is None:
            return None
        least = path.cost + rate * path.spent
        if least - rate * limit > bound:
            bound, both, slope = least - rate * limit, found, rate
        cutoff = min(cutoff, problem.consider(path))
        if bound >= min(cutoff, under.cost) - ROUNDING or least >= (over.cost + rate * over.spent) * (1 - ROUNDING):
            break
        over, under = (over, path) if path.spent <= limit else (path, under)
    best = under
    if bound < min(cutoff, best.cost) - ROUNDING:
        edges, reached = _labels(
            *(*problem.arrays, aim.factor, aim.leaving, budget.factor, budget.leaving),
            *(known.end, problem.start, bounds.first, bounds.second, both, slope, limit, min(cutoff, best.cost), MOST_LABELS),
        )
        if edges.size:
            best = problem.path(edges)
            cutoff = min(cutoff, problem.consider(best))
        bound = max(bound, min(reached, best.cost))
    if bound >= cutoff - ROUNDING and best.cost >= cutoff:
        return None
    best = replace(best, bound=best.cost if bound >= best.cost - ROUNDING else bound)
    return best, replace(bounds, both=both, slope=slope) if slope else bounds


@njit(cache=True)
def _labels(
    indptr: Ints, head: Ints, edge: Ints, rate: Floats, price: Floats, least_hz: float,
    factor: float, leaving: Floats, spend_factor: float, spend_leaving: Floats,
    start: int, goal: int, to_go: Floats, to_spend: Floats, to_both: Floats, slope: float, limit: float, cutoff: float, most: int,
) -> tuple[Ints, float]:  # fmt: skip
    """The edges of the best path below `cutoff`, if any, and a lower bound on what any other costs.

    `to_go`, `to_spend` and `to_both` (first + `slope` * second) bound what is ahead after leaving a node.
    """
    cost, spent = np.empty(most), np.empty(most)
    at, last, before = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int32)
    keys, queue, place = np.empty(most), np.empty(most, np.int32), np.empty(most, np.int32)
    thriftiest = np.full(indptr.size - 1, np.inf)
    cost[0] = spent[0] = 0.0
    at[0], last[0], before[0] = start, -1, -1
    place[0] = ABSENT
    labels, size = 1, push(keys, queue, place, 0, 0.0, 0)
    while size > 0:
        key, label = keys[0], queue[0]
        size = pop(keys, queue, place, size)
        here = at[label]
        if spent[label] >= thriftiest[here]:
            continue
        thriftiest[here] = spent[label]
        if here == goal:
            count = 0
            step = label
            while last[step] >= 0:
                count, step = count + 1, before[step]
            edges = np.empty(count, np.int32)
            while last[label] >= 0:
                count -= 1
                edges[count], label = last[label], before[label]
            return edges, key
        for entry in range(indptr[here], indptr[here + 1]):
            there, times = head[entry], most_rounds(rate, edge[entry], least_hz)
            if times < 0 or to_both[there] == np.inf or to_spend[there] == np.inf or to_go[there] == np.inf:
                continue
            further = cost[label] + leaving[here] + factor * price[edge[entry], times]
            more = spent[label] + spend_leaving[here] + spend_factor * price[edge[entry], times]
            bound, least = further + leaving[there], more + spend_leaving[there]
            if (
                more >= thriftiest[there]
                or least + to_spend[there] > limit
                or bound + to_go[there] >= cutoff - ROUNDING
                or bound + slope * least + to_both[there] >= cutoff - ROUNDING + slope * limit
            ):
                continue
            if labels == most:
                return np.empty(0, np.int32), key
            cost[labels], spent[labels] = further, more
            at[labels], last[labels], before[labels], place[labels] = there, edge[entry], label, ABSENT
            size = push(keys, queue, place, size, bound + to_go[there], labels)
            labels += 1
    return np.empty(0, np.int32), cutoff


@njit(cache=True)
def _along(
    path: Ints, here: int, a: Ints, b: Ints, rate: Floats, cost: Floats, least_hz: float,
    factor: float, leaving: Floats, spend_factor: float, spend_leaving: Floats,
) -> tuple[float, float]:  # fmt: skip
    total = spent = 0.0
    for edge in path:
        price = cost[edge, most_rounds(rate, edge, least_hz)]
        total += leaving[here] + factor * price
        spent += spend_leaving[here] + spend_factor * price
        here = a[edge] + b[edge] - here
    return total, spent
