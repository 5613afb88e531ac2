"""Flows of many demands over shared capacities as a linear programme over paths, solved by column generation.

The path formulation (Ford and Fulkerson, Management Science 5:97, 1958) has one variable per path; those that are needed are found by a
shortest path in the prices of the capacities. Unlike flow per edge it does not grow with the number of demands times edges, it holds
policies of single demands (barred links, at most so many segments) exactly, and its answer is paths. Arrays and numbers only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array, csr_array, vstack
from scipy.sparse.csgraph import dijkstra, maximum_flow

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_GAP = 1e-10
"""Relative distance to the proven bound at which a level counts as reached."""
_CHEAP_GAP = 1e-2
"""The same for the key spent, where the last per cent takes as long as all before."""
_CHEAP_ROUNDS = 25
"""How often paths are looked for that spend less; small networks need fewer to be done."""
_SPAN = 1e5
"""The largest rate in the solver's own units."""
_TOLERANCE = 1e-7
"""What the solver may be off, in its own units."""
_INFEASIBLE = 2
_SLACKS = (0.0, 1e-10, 1e-9, 1e-8)
"""So much less is asked for where rates that one solve reached are, by its tolerance, out of reach of the next."""
_FIRST_GUESSES = 15
_CENTRED = 0.9
"""How much of the best known prices goes into those that paths are looked for by."""
_FAR = 0.02
"""A path that costs so much more than it is worth, relative to the demands' mean, is forgotten. The three were tuned at 1,000 nodes."""


class SegmentGraph:
    """Which segments may follow which: only relays pass on what they receive.

    `ends` has shape (segments, 2); `allowed` are the indices of the segments that may be used; `relays` has shape (nodes,). A node that
    does not relay has two vertices, one where flow arrives and one where it leaves.
    """

    def __init__(self, ends: Ints, allowed: Ints, relays: NDArray[np.bool_]) -> None:
        nodes = len(relays)
        self._leave: Ints = np.where(relays, np.arange(nodes), nodes + np.arange(nodes))
        self._vertices = 2 * nodes
        tails = self._leave[np.concatenate((ends[allowed, 0], ends[allowed, 1]))]
        heads = np.concatenate((ends[allowed, 1], ends[allowed, 0]))
        order = np.lexsort((heads, tails))
        self._segments = np.concatenate((allowed, allowed))[order]
        pairs = (tails * self._vertices + heads)[order]
        unique, self._starts = np.unique(pairs, return_index=True)
        self._tails, self._heads = unique // self._vertices, unique % self._vertices
        self._indptr = np.searchsorted(self._tails, np.arange(self._vertices + 1)).astype(np.int32)
        self._arc = {pair: position for position, pair in enumerate(unique.tolist())}
        self._by_head = np.argsort(self._heads, kind="stable")
        self._reached, self._head_starts = np.unique(self._heads[self._by_head], return_index=True)

    def shortest(self, lengths: Floats, wanted: Sequence[tuple[int, int, int | None]]) -> list[tuple[int, ...] | None]:
        """For each (source, target, most segments) the segments of a shortest path; None where there is none. Lengths are at least 0."""
        if not len(self._starts):
            return [None] * len(wanted)
        arcs = np.minimum.reduceat(lengths[self._segments], self._starts)
        sources = sorted({source for source, _, most in wanted if most is None})
        rows = {source: row for row, source in enumerate(sources)}
        before: Ints = np.empty((0, self._vertices), dtype=np.int64)
        if sources:
            graph = csr_array((arcs, self._heads.astype(np.int32), self._indptr), shape=(self._vertices, self._vertices))
            before = dijkstra(graph, indices=self._leave[sources], return_predecessors=True)[1]
        found = []
        for source, target, most in wanted:
            if most is None:
                steps = self._follow(before[rows[source]], int(self._leave[source]), target)
            else:
                steps = self._within(arcs, int(self._leave[source]), target, most)
            found.append(None if steps is None else tuple(self._cheapest(lengths, arc) for arc in steps))
        return found

    def most(self, widths: Floats, source: int, target: int, rate: float) -> float:
        """The maximum flow where each segment has its width for itself, no more than `rate`; up to 1e-9 of that short per segment cut."""
        if not len(self._starts) or rate <= 0:
            return 0.0
        # the solver counts in 32 bits
        whole = np.floor(np.minimum(np.add.reduceat(widths[self._segments], self._starts) / rate, 1.0) * 2**30).astype(np.int32)
        graph = csr_array((whole, self._heads.astype(np.int32), self._indptr), shape=(self._vertices, self._vertices))
        return min(rate, float(maximum_flow(graph, int(self._leave[source]), target).flow_value) / 2**30 * rate)

    def _follow(self, before: Ints, start: int, target: int) -> list[int] | None:
        steps, here = [], target
        while here != start:
            tail = int(before[here])
            if tail < 0:
                return None
            steps.append(self._arc[tail * self._vertices + here])
            here = tail
        return steps[::-1]

    def _within(self, arcs: Floats, start: int, target: int, most: int) -> list[int] | None:
        """Bellman and Ford, one round per segment: the shortest walk of at most so many; as short with a cycle is shorter without."""
        least = np.full(self._vertices, np.inf)
        least[start] = 0.0
        rounds = [least]
        for _ in range(min(most, self._vertices)):
            via = (least[self._tails] + arcs)[self._by_head]
            least = least.copy()
            least[self._reached] = np.minimum(least[self._reached], np.minimum.reduceat(via, self._head_starts))
            if np.array_equal(least, rounds[-1]):
                break
            rounds.append(least)
        if not np.isfinite(least[target]):
            return None
        steps, here, number = [], target, len(rounds) - 1
        while here != start:
            while rounds[number - 1][here] == rounds[number][here]:
                number -= 1
            first = self._head_starts[np.searchsorted(self._reached, here)]
            last = first + np.searchsorted(self._heads[self._by_head[first:]], here, side="right")
            into = self._by_head[first:last]
            number -= 1
            arc = int(into[np.argmin(rounds[number][self._tails[into]] + arcs[into])])
            steps.append(arc)
            here = int(self._tails[arc])
        return steps[::-1]

    def _cheapest(self, lengths: Floats, arc: int) -> int:
        first = self._starts[arc]
        last = self._starts[arc + 1] if arc + 1 < len(self._starts) else len(self._segments)
        parallel = self._segments[first:last]
        return int(parallel[np.argmin(lengths[parallel])])


@dataclass(frozen=True, slots=True)
class Commodity:
    """What one demand asks of the programme: at most `rate` from `source` to `target` over paths of at most `most_segments`."""

    source: int
    target: int
    rate: float
    graph: SegmentGraph
    most_segments: int | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """sum of weight * rate over (commodity, weight) >= `per_level` * level + `least`."""

    rates: tuple[tuple[int, float], ...]
    per_level: float
    least: float = 0.0


@dataclass(frozen=True, slots=True)
class Solution:
    value: float
    """The level, or the bits spent when these are made least."""
    bound: float
    """Proven by duality: no flow has a level above it, none spends less."""
    rates: Floats
    """Per commodity."""
    flows: tuple[tuple[int, tuple[int, ...], float], ...]
    """Commodity, segments of the path, rate."""
    prices: Floats
    """Per resource: what one unit more of its capacity adds to the value."""
    pull: Floats
    """Per goal: what the value would gain if it asked for one unit less."""
    routes: tuple[tuple[int, ...] | None, ...]
    """Per commodity the cheapest path in these prices."""


class PathProgramme:
    """The programme of some commodities over segments that draw on shared resources; paths once found serve every later solve.

    `uses` has shape (segments, resources): units of each resource that one unit of flow over the segment takes. `capacity` has shape
    (resources,). Every commodity has a path, and a finite rate above 0.
    """

    def __init__(self, uses: csr_array, capacity: Floats, commodities: Sequence[Commodity]) -> None:
        self._uses, self._commodities = uses, commodities
        self._unit = max((each.rate for each in commodities), default=1.0) / _SPAN
        self.finest = self._unit * _TOLERANCE
        """A rate below it is lost in the solver's tolerance."""
        self._capacity = capacity / self._unit
        self._most = np.array([each.rate for each in commodities]) / self._unit
        self._columns: list[tuple[int, tuple[int, ...]]] = []
        self._guess(1.0 / self._capacity)

    def _guess(self, lengths: Floats) -> None:
        """A first set of paths: what a path fills becomes longer, what it fills most, most (Garg and Koenemann, SIAM J. Comput. 37:630, 2007)."""
        for _ in range(_FIRST_GUESSES):
            routes = self._routes(self._uses @ lengths)
            self._add(enumerate(routes))
            for route in routes:
                if route is not None:
                    taken = self._uses[list(route)].sum(axis=0) / self._capacity
                    lengths = lengths * (1.0 + 0.5 * taken / taken.max())

    def _routes(self, lengths: Floats) -> list[tuple[int, ...] | None]:
        by_graph: dict[int, list[int]] = {}
        for index, each in enumerate(self._commodities):
            by_graph.setdefault(id(each.graph), []).append(index)
        routes: list[tuple[int, ...] | None] = [None] * len(self._commodities)
        for indices in by_graph.values():
            members = [self._commodities[index] for index in indices]
            wanted = [(each.source, each.target, each.most_segments) for each in members]
            for index, route in zip(indices, members[0].graph.shortest(lengths, wanted), strict=True):
                routes[index] = route
        return routes

    def _add(self, columns: Iterable[tuple[int, tuple[int, ...] | None]]) -> bool:
        known = set(self._columns)
        fresh = [(index, route) for index, route in columns if route is not None and (index, route) not in known]
        self._columns += fresh
        return bool(fresh)

    def _drop(self, paths: Floats, lengths: Floats, worth: Floats) -> Floats:
        """Forget the idle paths that cost far more than they are worth; they are found again when prices change. The rest's rates."""
        far = _FAR * float(np.mean(worth))
        keep = [at for at, (index, route) in enumerate(self._columns) if paths[at] > 0 or lengths[list(route)].sum() < worth[index] + far]
        self._columns = [self._columns[at] for at in keep]
        return paths[keep]

    def highest(self, goals: Sequence[Goal]) -> Solution:
        """The greatest level that all goals allow. Raises RuntimeError when the solver gives up, as for goals that no flow meets."""
        return self._solve(goals, self._most, cheapest=False)

    def cheapest(self, rates: Floats) -> Solution:
        """A small sum of rate times segments that gives each commodity its rate: the least within 1 %, or as far as the effort goes.

        Value and bound are that sum. Raises RuntimeError when no flow has these rates.
        """
        self._guess(np.ones(len(self._capacity)))
        goals = [Goal(((index, 1.0),), 0.0, rate) for index, rate in enumerate(rates.tolist())]
        return self._solve(goals, rates / self._unit, cheapest=True)

    def _solve(self, goals: Sequence[Goal], most: Floats, *, cheapest: bool) -> Solution:
        weights = coo_array(
            (
                [weight for goal in goals for _, weight in goal.rates],
                (
                    [number for number, goal in enumerate(goals) for _ in goal.rates],
                    [index for goal in goals for index, _ in goal.rates],
                ),
            ),
            shape=(len(goals), len(self._commodities)),
        ).tocsr()
        least = np.array([goal.least for goal in goals]) / self._unit
        per_level = np.array([goal.per_level for goal in goals])
        sign = -1.0 if cheapest else 1.0
        bound, reached = np.inf, -np.inf
        centre: tuple[Floats, Floats] | None = None
        if cheapest:
            # whatever the capacities, no path has fewer segments than the shortest
            fewest = [len(route or ()) for route in self._routes(np.ones(self._uses.shape[0]))]
            centre, bound = (np.zeros(len(self._capacity)), np.array(fewest, dtype=float)), -float(least @ fewest)
        for number in count(1):
            paths, prices, idle, pull, value = self._master(weights, per_level, least, most, cheapest)
            # prices half way to the best known ones swing less from round to round (Wentges, Int. Trans. Oper. Res. 4:151, 1997)
            for share in (0.0,) if centre is None else (_CENTRED, 0.0):
                at_prices, at_pull = prices, pull
                if centre is not None and share:
                    at_prices, at_pull = share * centre[0] + (1 - share) * prices, share * centre[1] + (1 - share) * pull
                lengths = self._uses @ at_prices + (1.0 if cheapest else 0.0)
                routes = self._routes(lengths)
                costs = np.array([np.inf if route is None else lengths[list(route)].sum() for route in routes])
                # weak duality: prices and pulls of any size bound the value, whether or not they are optimal
                worth = weights.T @ at_pull
                slack = at_prices @ self._capacity + most @ np.maximum(0.0, worth - costs) - least @ at_pull
                if slack < bound:
                    bound, centre = slack, (at_prices, at_pull)
                if share:
                    lengths = self._uses @ prices + (1.0 if cheapest else 0.0)
                    costs = np.array([np.inf if route is None else lengths[list(route)].sum() for route in routes])
                worth = weights.T @ pull - idle
                better = costs < worth - 1e-9 * max(1e-300, float(np.max(worth, initial=0.0)))
                if np.any(better):
                    break
            if (bound - sign * value) <= (_CHEAP_GAP if cheapest else _GAP) * abs(bound) or (cheapest and number > _CHEAP_ROUNDS):
                break
            if sign * value > reached + 1e-9 * abs(value):
                # only while the value grows: else a path could come and go for ever
                reached = sign * value
                paths = self._drop(paths, lengths, worth)
            if not self._add((int(index), routes[index]) for index in np.flatnonzero(better)):
                break
        bound *= sign
        of = np.array([index for index, _ in self._columns], dtype=np.int64)
        return Solution(
            value * self._unit,
            bound * self._unit,
            np.bincount(of, weights=paths, minlength=len(self._commodities)).astype(float) * self._unit,
            tuple((*self._columns[at], float(paths[at]) * self._unit) for at in np.flatnonzero(paths)),
            prices,
            pull,
            tuple(routes),
        )

    def _master(
        self, weights: csr_array, per_level: Floats, least: Floats, most: Floats, cheapest: bool
    ) -> tuple[Floats, Floats, Floats, Floats, float]:
        """The programme over the paths found so far: their rates, the duals of capacities, of the demands' caps, of goals; the value."""
        columns = len(self._columns)
        sizes = [len(route) for _, route in self._columns]
        of = [index for index, _ in self._columns]
        members = coo_array((np.ones(columns), (of, np.arange(columns))), shape=(len(self._commodities), columns)).tocsr()
        segments = np.array([segment for _, route in self._columns for segment in route], dtype=np.int64)
        incidence = coo_array(
            (np.ones(len(segments)), (np.repeat(np.arange(columns), sizes), segments)), shape=(columns, self._uses.shape[0])
        ).tocsr()
        taken = (incidence @ self._uses).T.tocsr()
        touched = np.flatnonzero(np.diff(taken.indptr))
        rows = vstack([taken[touched], members, -(weights @ members)], format="csr")
        limits = np.concatenate((self._capacity[touched], most, -least))
        objective = np.array(sizes, dtype=float)
        if not cheapest:
            level = np.concatenate((np.zeros(len(touched) + len(most)), per_level))
            rows = vstack([rows.T, csr_array(level[None, :])], format="csr").T
            objective = np.append(np.zeros(columns), -1.0)
        for slack in _SLACKS:
            limits[-len(least) :] = -least * (1 - slack)
            solved = linprog(objective, A_ub=rows, b_ub=limits, bounds=(0, None), method="highs-ds")
            if solved.status != _INFEASIBLE:
                break
        if solved.status != 0:
            raise RuntimeError(f"the allocation's linear programme was not solved: {solved.message}")
        duals = np.maximum(0.0, -solved.ineqlin.marginals)
        prices = np.zeros(len(self._capacity))
        prices[touched] = duals[: len(touched)]
        idle, pull = duals[len(touched) : -len(least)], duals[-len(least) :]
        return np.maximum(0.0, solved.x[:columns]), prices, idle, pull, float(solved.fun if cheapest else -solved.fun)
