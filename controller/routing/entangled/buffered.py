"""The exact optimum of the buffered model: the highest rate above a fidelity, or the highest fidelity above a rate.

A path's rate is the least of its links' rates times the swaps' successes q. Ask every link for a threshold r: then each purifies as often as
leaves it r, and what remains is a shortest path in -ln w, with what is lost by swaps as a second cost where swaps may fail (see
`constrained`). The thresholds that matter are the links' own rates after k rounds. A threshold also bounds all higher ones: their paths are
no shorter. So an interval [low, high] of thresholds cannot be better than the links of `low` with the rate of `high`, and intervals are
halved, the most promising first, until none promises more than the best path found (branch and bound). With swaps that never fail this is
the bisection over thresholds. Each search leaves the least sums from one end, by which the next one, from the other end, is directed and
kept to the nodes that may matter; so most of them look at few nodes.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numba import njit

from controller.routing.compiled import Floats, Ints
from controller.routing.entangled.constrained import Bounds, Path, Problem, Sums, constrained
from controller.routing.entangled.offers import LEAST_HZ, ROUNDING, Offers, thresholds
from controller.routing.entangled.searches import most_rounds, widest

MOST_STEPS = 3_000
"""Intervals looked at for one request."""

_NARROW = 1.1
"""Intervals of a greater ratio are halved in the logarithm, others at the median of the thresholds in them."""


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
    fidelity: Sums
    """-ln w of links and swaps."""
    success: Sums
    """-ln q of swaps."""

    @classmethod
    def of(cls, offers: Offers, src: int, dst: int, most_cost: float = math.inf, least_log_rate: float = -math.inf) -> Search:
        swap_w, swap_q = offers.swap_w.copy(), offers.swap_q.copy()
        # the ends do not swap, and no shortest path comes back to them
        swap_w[[src, dst]] = swap_q[[src, dst]] = 0
        return cls(offers, src, dst, most_cost, least_log_rate, Sums(1.0, swap_w), Sums(0.0, swap_q))

    def unbounded(self) -> Bounds:
        nothing = np.zeros(len(self.success.leaving))
        return Bounds(self.dst, nothing, nothing)

    def problem(self, known: Bounds, least_hz: float, budget: Sums | None = None, limit: float = math.inf) -> Problem:
        """The least -ln w of paths whose links leave `least_hz`, with all that tie within rounding."""
        start = self.src + self.dst - known.end
        offers, slack = self.offers, 2 * ROUNDING
        return Problem(
            *(offers.edges, offers.rate, offers.cost, least_hz, start, known),
            *(self.fidelity, budget, limit, math.inf, slack, lambda path: math.inf),
        )

    def lowest_hz(self) -> float:
        """What every link of a path must deliver at least."""
        return max(LEAST_HZ, math.exp(min(700.0, self.least_log_rate)) * (1 - ROUNDING))

    def widest_hz(self) -> float:
        """The highest raw rate that all links of some path have; 0 when none leads."""
        edges = self.offers.edges
        return widest(edges.indptr, edges.indices, edges.edge, self.offers.raw, self.success.leaving, self.src, self.dst)

    def rounds(self, path: Ints, least_hz: float) -> tuple[int, ...]:
        """The rounds of purification that leave each edge of a path `least_hz`."""
        return tuple(_purified(path, self.offers.rate, self.offers.cost, least_hz)[2].tolist())

    def at(self, path: Path, least_hz: float) -> Optimum:
        """A path whose links purify as often as leaves `least_hz`, which they must be able to."""
        edges = path.edges if path.start == self.src else path.edges[::-1].copy()
        cost, hz, rounds = _purified(edges, self.offers.rate, self.offers.cost, least_hz)
        swap_w, spent = self.swaps(path)
        return Optimum(tuple(edges.tolist()), tuple(rounds.tolist()), math.log(hz) - spent, swap_w + cost)

    def swaps(self, path: Path) -> tuple[float, float]:
        """-ln w and -ln q of all swaps along a path."""
        edges = self.offers.edges
        return _swaps(path.edges, path.start, edges.a, edges.b, self.fidelity.leaving, self.success.leaving)

    def fastest_on(self, path: Path) -> tuple[float, float]:
        """The highest rate that all links of a path can keep to at -ln w of at most `most_cost`, 0 if none; ln of what swaps leave of it."""
        swap_w, spent = self.swaps(path)
        most = self.most_cost + ROUNDING / 2 - swap_w
        hz = _fastest_hz(path.edges, self.offers.rate, self.offers.cost, most)
        return hz, math.log(hz) - spent if hz else -math.inf

    def finest_on(self, path: Path) -> tuple[float, float]:
        """The rate that the links of a path must keep to for ln of the rate of at least `least_log_rate`; the least -ln w with that."""
        swap_w, spent = self.swaps(path)
        least_hz = math.exp(min(700.0, self.least_log_rate + spent)) * (1 - ROUNDING)
        return least_hz, swap_w + _purified(path.edges, self.offers.rate, self.offers.cost, least_hz)[0]


@njit(cache=True)
def _swaps(path: Ints, here: int, a: Ints, b: Ints, swap_w: Floats, swap_q: Floats) -> tuple[float, float]:
    w = q = 0.0
    for edge in path:
        w += swap_w[here]
        q += swap_q[here]
        here = a[edge] + b[edge] - here
    return w, q


@njit(cache=True)
def _purified(path: Ints, rate: Floats, cost: Floats, least_hz: float) -> tuple[float, float, Ints]:
    """-ln w of the links, the least rate that remains of any, and the rounds; (inf, 0) where a raw rate is less."""
    rounds = np.empty(path.size, np.int32)
    total, least = 0.0, np.inf
    for step in range(path.size):
        times = most_rounds(rate, path[step], least_hz)
        rounds[step] = times
        if times < 0:
            return np.inf, 0.0, rounds
        total += cost[path[step], times]
        least = min(least, rate[path[step], times])
    return total, least, rounds


@njit(cache=True)
def _fastest_hz(path: Ints, rate: Floats, cost: Floats, most: float) -> float:
    values = np.empty(path.size * rate.shape[1])
    size = 0
    for edge in path:
        for value in rate[edge]:
            if value > 0:
                values[size] = value
                size += 1
    values = np.sort(values[:size])
    below, above = -1, size
    while above - below > 1:
        middle = (below + above) // 2
        total, least, _ = _purified(path, rate, cost, values[middle])
        if least > 0 and total <= most:
            below = middle
        else:
            above = middle
    return values[below] if below >= 0 else 0.0


def highest_rate(search: Search, known: Bounds | None = None, seed: Path | None = None) -> Optimum | None:
    """The highest rate at -ln w of at most `most_cost`, then the least -ln w; None when no path has that little.

    `known` bounds -ln q (first) and -ln w; `seed` is a path that need not be found anew.
    """
    lossy, proven, limit = search.offers.lossy, True, math.inf
    known = known or search.unbounded()
    if lossy or search.most_cost < math.inf:
        found = _Branching(search, fastest=True).best(known, seed)
        if found is None:
            return None
        least_hz, proven, known = found.hz, found.proven, found.known
        if found.tied:
            # slower links with swaps that succeed more often come to the same rate, or the other way round
            tied = replace(search, least_log_rate=search.at(found.path, least_hz).log_rate)
            best = _Branching(tied, fastest=False).best(search.unbounded(), found.path)
            assert best is not None
            return replace(search.at(best.path, best.hz), proven=proven and best.proven)
        if lossy:
            limit = search.swaps(found.path)[1]
            known = Bounds(known.end, known.second, known.first)
    else:
        least_hz = search.widest_hz()
        if not least_hz:
            return None
    finest = constrained(search.problem(known, least_hz, search.success if lossy else None, limit))
    assert finest is not None
    return replace(search.at(finest[0], least_hz), proven=proven)


def highest_fidelity(search: Search) -> Optimum | None:
    """The least -ln w at ln of the rate of at least `least_log_rate`, then the highest rate; None when no path has that rate."""
    lossy = search.offers.lossy
    if lossy and search.least_log_rate > -math.inf:
        best = _Branching(search, fastest=False).best(search.unbounded(), None)
        if best is None:
            return None
        path, proven, found = best.path, best.proven, search.at(best.path, best.hz)
        known = Bounds(best.root.end, best.root.second, best.root.first)
    else:
        problem = search.problem(search.unbounded(), search.lowest_hz())
        finest = constrained(problem)
        if finest is None:
            return None
        path, bounds = finest
        proven, found = True, search.at(path, problem.least_hz)
        if not _tied(*problem.arrays, search.fidelity.leaving, path.edges, path.start, bounds.first):
            return found
        known = replace(bounds, first=np.zeros_like(bounds.first), second=bounds.first) if lossy else bounds
    fastest = highest_rate(replace(search, most_cost=found.cost), known, path)
    return found if fastest is None else replace(fastest, proven=proven and fastest.proven)


@njit(cache=True)
def _tied(
    indptr: Ints, head: Ints, edge: Ints, rate: Floats, cost: Floats, least_hz: float, leaving: Floats, path: Ints, here: int, back: Floats
) -> bool:
    """Whether another way from some node of a path is as short as the path's; `back` are the distances to the path's end."""
    for step in path:
        ways, onwards = 0, here
        for entry in range(indptr[here], indptr[here + 1]):
            there, times = head[entry], most_rounds(rate, edge[entry], least_hz)
            if times >= 0 and cost[edge[entry], times] + leaving[there] + back[there] <= back[here] + ROUNDING:
                ways += 1
            if edge[entry] == step:
                onwards = there
        if ways > 1:
            return True
        here = onwards
    return False


@dataclass(frozen=True, slots=True)
class _Found:
    """The best path, the rate its links keep to, and bounds that hold at that rate, and at every rate. `tied`: at another rate there may be
    a path as good."""

    path: Path
    hz: float
    known: Bounds
    root: Bounds
    proven: bool
    tied: bool


@dataclass(frozen=True, slots=True)
class _Interval:
    """Thresholds from `low` to `high`; the best path at `low`, and bounds on the sums of any path that may be better.

    `between`: the thresholds above `low` up to `high`, perhaps with some that no such path has; None where they were not gathered yet.
    """

    low: float
    high: float
    path: Path
    bounds: Bounds
    between: Floats | None


class _Branching:
    """The best path over all thresholds: of the highest rate if `fastest`, else of the least -ln w. Values are less the better."""

    def __init__(self, search: Search, *, fastest: bool) -> None:
        self._search, self._fastest, self._lossy = search, fastest, search.offers.lossy
        # unpurified links are fastest: where nothing asks for fidelity, no other rates matter
        self._rate = search.offers.raw if fastest and search.most_cost == math.inf else search.offers.rate
        self._value, self._hz, self._tied = math.inf, 0.0, False
        self._path: Path | None = None
        self._queue: list[tuple[float, int, _Interval]] = []
        self._number = count()
        self._known = self._root = search.unbounded()

    def best(self, known: Bounds, seed: Path | None) -> _Found | None:
        search, edges = self._search, self._search.offers.edges
        near = (edges.edge[edges.indptr[end] : edges.indptr[end + 1]] for end in (search.src, search.dst))
        lowest, highest = search.lowest_hz(), min(float(search.offers.raw[each].max(initial=0.0)) for each in near)
        if highest < lowest:
            return None
        if seed is not None:
            self._consider(seed)
        self._known = self._root = known
        self._root = self._look(lowest, highest, known, None) or known
        proven, steps = True, 0
        while self._queue and self._queue[0][0] < self._value - ROUNDING:
            interval = heapq.heappop(self._queue)[2]
            steps += 1
            if steps > MOST_STEPS:
                proven = False
                break
            proven = self._narrow(interval) and proven
        if self._path is None:
            return None
        for value, _, interval in self._queue:
            self._note_tie(value, interval.low, interval.high)
        return _Found(self._path, self._hz, self._known, self._root, proven, self._tied)

    def _narrow(self, interval: _Interval) -> bool:
        """Look further up in an interval if its low end is of no use any more, else at both halves; false if one threshold is left undecided."""
        low, high, bounds, between = self._raised(interval), interval.high, interval.bounds, interval.between
        if between is None and high <= _NARROW * low:
            edges = self._search.offers.edges
            between = thresholds(edges.indptr, edges.indices, edges.edge, self._rate, bounds.first, low, high)
        if between is not None:
            between = between[(between > low) & (between <= high)]
            if not between.size:
                if high > low == interval.low and not self._fastest:
                    self._look(low, low, bounds, between)
                    return True
                return low > interval.low or self._promise(interval.path, low) >= self._value - ROUNDING
        if low > interval.low:
            self._look(low if between is None else float(between.min()), high, bounds, between)
            return True
        if between is None:
            middle = below = math.sqrt(low) * math.sqrt(high)
        else:
            middle = float(np.partition(between, between.size // 2)[between.size // 2])
            below = float(between[between < middle].max(initial=low))
        self._look(middle, high, bounds, between)
        if self._fastest or interval.path.spent <= math.log(below) - self._search.least_log_rate:
            self._push(replace(interval, high=below, between=between))
        else:
            self._look(interval.low, below, bounds, between)
        return True

    def _raised(self, interval: _Interval) -> float:
        """The low end, without the thresholds at which no path can be better than the best one known."""
        if not self._fastest:
            least = self._search.least_log_rate + float(interval.bounds.second[interval.path.start])
        else:
            least = (interval.path.bound if self._lossy else 0.0) - self._value
        return max(interval.low, math.exp(min(700.0, least)) * (1 - ROUNDING))

    def _consider(self, path: Path) -> bool:
        """Whether a path is better than all before."""
        if self._fastest:
            hz, log_rate = self._search.fastest_on(path)
            value = -log_rate
        else:
            hz, value = self._search.finest_on(path)
        better = value < self._value
        if value < self._value - ROUNDING:
            self._tied = False
        else:
            self._note_tie(value, hz, hz)
        if better:
            self._value, self._path, self._hz = value, path, hz
        return better

    def _note_tie(self, value: float, low: float, high: float) -> None:
        """Rates from `low` to `high` have paths of this value, or may have."""
        self._tied |= self._fastest and self._lossy and abs(value - self._value) <= ROUNDING and not low == high == self._hz

    def _look(self, low: float, high: float, known: Bounds, between: Floats | None) -> Bounds | None:
        """Put the interval into the queue, if it promises anything; bounds that hold at its thresholds."""
        search, fastest, lossy = self._search, self._fastest, self._lossy
        log_high = math.log(high)

        def cutoff() -> float:
            if not fastest:
                return self._value
            return self._value + log_high + 2 * ROUNDING if lossy else search.most_cost + ROUNDING  # a tie is to be known

        def consider(path: Path) -> float:
            if self._consider(path):
                self._known = known if low <= self._hz <= high else self._root
            return cutoff()

        problem = replace(search.problem(known, low), rate=self._rate, cutoff=cutoff(), slack=math.inf, consider=consider)
        if not fastest:
            problem = replace(problem, budget=search.success, limit=log_high - search.least_log_rate)
        elif lossy and search.most_cost < math.inf:
            problem = replace(problem, aim=search.success, budget=search.fidelity, limit=search.most_cost)
        elif lossy:
            # what is found has a rate of `low` at least
            problem = replace(problem, aim=search.success, slack=log_high - math.log(low) + ROUNDING)
        found = constrained(problem)
        if found is None:
            return None
        path, bounds = found
        if fastest and path.bound >= path.cost:
            # what is best at `low` is so at all thresholds it can keep to
            low = max(low, search.fastest_on(path)[0])
        self._push(_Interval(low, high, path, bounds, between))
        return bounds

    def _push(self, interval: _Interval) -> None:
        value = self._promise(interval.path, interval.high)
        if value < self._value - ROUNDING and interval.low <= interval.high:
            heapq.heappush(self._queue, (value, next(self._number), interval))
        elif interval.low <= interval.high:
            self._note_tie(value, interval.low, interval.high)

    def _promise(self, path: Path, high: float) -> float:
        """What no path of an interval up to `high` is below, by the best path at its low end."""
        if not self._fastest:
            return path.bound
        return (path.bound if self._lossy else 0.0) - math.log(high)
