"""Chains on demand: the buffered model's arrays propose paths and rounds, the on-demand model ranks them and improves the rounds.

Proposals are shortest paths: in -ln w at some thresholds of the rate, and in -ln w plus the links' mean waits at some weights of the two;
in a graph of a few links all paths. Chains of up to `SEARCHED_LINKS` links are then improved by changing the rounds of one link, or of two,
as long as that helps. Where news of swaps has them simulated, the changes are judged without the news, by the proportion of the two figures
before the change. Longer ones are ranked by an estimate (parallel generation, swaps when all pairs are there) with the rounds they were
proposed with, and the best few are evaluated. No bound on the distance from the optimum is known; tests measure it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from controller.network.model import Link, Swap
from controller.network.topology import Topology
from controller.physics import chains
from controller.physics.bell_diagonal import BellDiagonal, correlations, werner
from controller.physics.fibre import propagation_delay_s
from controller.physics.memory import Memory
from controller.physics.purification import recurrence_schedule
from controller.routing.classical import classical
from controller.routing.compiled import Floats, Ints
from controller.routing.entangled.buffered import Search
from controller.routing.entangled.constrained import Sums
from controller.routing.entangled.offers import LEAST_HZ, ROUNDING, Offers
from controller.routing.entangled.on_demand import evaluate
from controller.routing.entangled.searches import explore, walk
from controller.routing.refusal import NoRoute

SEARCHED_LINKS = 6
"""Chains up to this long are evaluated for every choice of rounds looked at; beyond it that takes too long."""

_THRESHOLDS, _WEIGHTS = 4, 5
_SMALL = 1_000
"""Links of a graph in which every proposal is made again, up to `_AGAIN` times, with the links used so far made twice as dear."""
_AGAIN = 4
_FEW = 16
"""Links of a graph in which every path is proposed, `_MOST_PATHS` at most."""
_MOST_PATHS = 100
_SEARCHED, _DELIVERED = 12, 3
"""Paths of which the rounds are improved; long chains that are evaluated."""
_CORRECTIONS = 3
"""How often a chain that is simulated is improved anew by what its simulation came to."""

_STANDARD_ERROR = 0.0075
"""Relative, at which the simulation of a chain is ended: within 2 % in 99 of 100 cases. What was reached is told with the route."""

_NEVER = 1e-100
"""The least success of a swap that the physics takes: far below what is evaluated."""

Rounds = tuple[int, ...]
Key = tuple[bool, float, float]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A chain by edges and rounds, its links' rates and states after purification, and what it delivers."""

    edges: tuple[int, ...]
    rounds: Rounds
    links: tuple[chains.Link, ...]
    delivery: chains.Delivery
    notes: tuple[str, ...]

    @property
    def figures(self) -> tuple[float, float]:
        """(rate in Hz, fidelity)."""
        return self.delivery.rate_hz, self.delivery.state.fidelity


@dataclass(frozen=True, slots=True)
class Goal:
    """The highest rate at a fidelity, or, if `finest`, the highest fidelity at a rate."""

    floor: float
    rate_hz: float
    finest: bool

    def key(self, rate_hz: float, fidelity: float) -> Key:
        """Greater is better; what misses the floor is worse than all that meets it, and the less it misses the better."""
        first, second, least = (fidelity, rate_hz, self.rate_hz) if self.finest else (rate_hz, fidelity, self.floor)
        return (True, first, second) if second >= least * (1 - ROUNDING) else (False, second, first)


class Demand:
    """One request between two nodes: proposals and their figures, each computed once."""

    def __init__(self, topology: Topology, offers: Offers, src: int, dst: int) -> None:
        self.topology, self.offers = topology, offers
        self.search = Search.of(offers, src, dst)
        self._purified: dict[tuple[int, int], chains.Link] = {}
        self._nodes: dict[int, chains.Node] = {}
        self._delays: dict[int, tuple[float, str]] = {}
        self._evaluated: dict[bool, dict[tuple[tuple[int, ...], Rounds], Evaluated]] = {True: {}, False: {}}
        """With news of swaps, and without."""

    def best(self, goal: Goal) -> list[Evaluated]:
        """The chains found, the best for the goal first."""
        proposed = list(dict.fromkeys((*_proposals(self.search), *_all_paths(self.search))))
        short = [each for each in proposed if len(each[0]) <= SEARCHED_LINKS]
        long = [each for each in proposed if len(each[0]) > SEARCHED_LINKS]
        starts: dict[tuple[int, ...], list[Rounds]] = {}
        for edges, rounds in short:
            starts.setdefault(edges, []).append(rounds)

        def key(edges: tuple[int, ...], rounds: Rounds) -> Key:
            return goal.key(*self.evaluate(edges, rounds).figures)

        def roughly(edges: tuple[int, ...], rounds: Rounds) -> Key:
            return goal.key(*self.evaluate(edges, rounds, news=False).figures)

        firsts = {edges: max((roughly(edges, each), each) for each in rounds) for edges, rounds in starts.items()}
        best: Key = (False, 0.0, 0.0)
        for edges in sorted(firsts, key=firsts.__getitem__, reverse=True)[:_SEARCHED]:
            nothing = (0,) * len(edges)
            if best[0] and not goal.finest and self.evaluate(edges, nothing, news=False).figures[0] < best[1]:
                continue  # purification takes pairs, and so does waiting for news
            for start in dict.fromkeys((firsts[edges][1], nothing)):
                best = max(best, key(edges, self._improved(edges, start, goal)))
        long.sort(key=lambda each: goal.key(*self.estimate(*each)), reverse=True)
        for edges, rounds in long[:_DELIVERED]:
            if key(edges, rounds)[0] and not goal.finest:  # rates are told apart well by the estimate, fidelities less so
                break
        return sorted(self._evaluated[True].values(), key=lambda each: goal.key(*each.figures), reverse=True)

    def _improved(self, edges: tuple[int, ...], rounds: Rounds, goal: Goal) -> Rounds:
        """Rounds that are no worse for the goal, found by changing one or two at a time."""
        for _ in range(_CORRECTIONS):
            (rate, fidelity), (told_rate, told_fidelity) = (self.evaluate(edges, rounds, news=news).figures for news in (True, False))
            if not told_rate:
                break

            def key(changed: Rounds, factors: tuple[float, float] = (rate / told_rate, fidelity / told_fidelity)) -> Key:
                rate, fidelity = self.evaluate(edges, changed, news=False).figures
                return goal.key(rate * factors[0], fidelity * factors[1])

            better = _climb(rounds, self.offers.rounds, key)
            if better == rounds or goal.key(*self.evaluate(edges, better).figures) <= goal.key(rate, fidelity):
                break
            rounds = better
            if self._told_alike(edges):
                break
        return rounds

    def _told_alike(self, edges: tuple[int, ...]) -> bool:
        """Whether there is no news that a chain would have to wait for."""
        return not any(self._delay(edge)[0] for edge in edges)

    def link(self, edge: int, rounds: int) -> chains.Link:
        """A link after some rounds of purification (recurrence, DEJMPS)."""
        if (edge, rounds) not in self._purified:
            model = self.topology.link(self.offers.edges.ids[edge])
            rate, fidelity = float(self.offers.rate[edge, 0]), self.topology.figure(model, "fidelity")
            assert fidelity is not None
            purified = recurrence_schedule(_state(model, fidelity.value), rounds)
            self._purified[edge, rounds] = chains.Link(rate / purified.pairs, purified.state)
        return self._purified[edge, rounds]

    def evaluate(self, edges: tuple[int, ...], rounds: Rounds, *, news: bool = True) -> Evaluated:
        """What a chain delivers; without `news`, as if every node knew at once of each swap."""
        news |= self._told_alike(edges)
        if (edges, rounds) not in self._evaluated[news]:
            self._evaluated[news][edges, rounds] = self._deliver(edges, rounds, news=news)
        return self._evaluated[news][edges, rounds]

    def _deliver(self, edges: tuple[int, ...], rounds: Rounds, *, news: bool) -> Evaluated:
        links = tuple(self.link(edge, times) for edge, times in zip(edges, rounds, strict=True))
        nodes = [self._node(number) for number in self._passed(edges)]
        delays = [self._delay(edge) for edge in edges]
        try:
            delays_s = [delay_s for delay_s, _ in delays] if news else []
            delivery = chains.deliver(links, nodes, delays_s, standard_error=_STANDARD_ERROR)
        except chains.TooRare as rare:
            delivery = chains.Delivery(0.0, werner(0.25), f"not evaluated: {rare}", "unknown")
        sources = ", ".join(sorted({source for _, source in delays}))
        return Evaluated(
            edges, rounds, links, delivery, (f"news of swaps travels {sum(delay for delay, _ in delays):.6g} s end to end ({sources})",)
        )

    def estimate(self, edges: tuple[int, ...], rounds: Rounds) -> tuple[float, float]:
        """(rate, fidelity), quickly: all swap when the last pair is there, and a failure loses everything."""
        links = [self.link(edge, times) for edge, times in zip(edges, rounds, strict=True)]
        rates, passed = [link.rate_hz for link in links], self._passed(edges)
        lost = self.offers.swap_w[passed[1:-1]].sum(), self.offers.swap_q[passed[1:-1]].sum()
        x, y, z = (math.exp(-lost[0]) * math.prod(each) for each in zip(*(correlations(link.state) for link in links), strict=True))
        memories = [(a.memory, b.memory) for a, b in pairwise(map(self._node, passed))]
        mean_s, kept_xy = evaluate(rates, [1 / a.t2_s + 1 / b.t2_s for a, b in memories])
        _, kept_z = evaluate(rates, [1 / a.t1_s + 1 / b.t1_s for a, b in memories])
        return math.exp(-lost[1]) / mean_s, (1 + (x + y) * kept_xy + z * kept_z) / 4

    def _passed(self, edges: Sequence[int]) -> list[int]:
        nodes = [self.search.src]
        for edge in edges:
            nodes.append(int(self.offers.edges.a[edge] + self.offers.edges.b[edge] - nodes[-1]))
        return nodes

    def _node(self, number: int) -> chains.Node:
        if number not in self._nodes:
            node = self.topology.node(self.offers.arrays.names[number])
            t1_s = math.inf if node.t1_s is None else node.t1_s
            memory = Memory(t1_s, 2 * t1_s if node.t2_s is None else min(node.t2_s, 2 * t1_s))
            swap = node.swap or Swap()
            self._nodes[number] = chains.Node(memory, max(_NEVER, swap.success), swap.fidelity)
        return self._nodes[number]

    def _delay(self, edge: int) -> tuple[float, str]:
        """Seconds that a message takes along a link, and how that is known."""
        if edge not in self._delays:
            self._delays[edge] = _message_s(self.topology, self.topology.link(self.offers.edges.ids[edge]), self.offers)
        return self._delays[edge]


def _message_s(topology: Topology, link: Link, offers: Offers) -> tuple[float, str]:
    if offers.arrays.edges(topology, "ethernet").ids:
        try:
            return classical(topology, *link.nodes).latency_ms / 1e3, "over the classical network"
        except NoRoute:
            pass
    lengths = [topology.link(fibre).length_km for fibre in link.fibres]
    known = [length for length in lengths if length is not None]
    if known and len(known) == len(lengths):
        return propagation_delay_s(sum(known)), "light in the link's glass; no classical path is given"
    return 0.0, "taken as no time: neither classical paths nor lengths of glass are given"


def _state(link: Link, fidelity: float) -> BellDiagonal:
    """The state the document gives, unless the fidelity was measured since; else the Werner state."""
    if link.state is not None and link.state[0] == fidelity:
        total = sum(link.state)
        a, b, c, d = (weight / total for weight in link.state)
        return BellDiagonal(a, b, c, d)
    return werner(fidelity)


def _proposals(search: Search) -> Iterator[tuple[tuple[int, ...], Rounds]]:
    widest = search.widest_hz()
    if not widest:
        return
    both, offers = search.fidelity.plus(1.0, search.success), search.offers
    for share in np.geomspace(1, 1e-3, _THRESHOLDS):
        least_hz = widest * share
        for path in _paths(search, both, offers.rate, offers.cost, least_hz):
            yield tuple(path.tolist()), search.rounds(path, least_hz)
    for weight in np.geomspace(1e-3, 30, _WEIGHTS) * widest:
        cost, rounds = offers.waiting(weight)
        for path in _paths(search, both, offers.raw, cost[:, None], LEAST_HZ):
            yield tuple(path.tolist()), tuple(rounds[path].tolist())


def _paths(search: Search, sums: Sums, rate: Floats, cost: Floats, least_hz: float) -> Iterator[Ints]:
    edges, nothing = search.offers.edges, np.zeros(len(sums.leaving))
    again = _AGAIN if len(edges.ids) <= _SMALL else 1
    cost = cost.copy() if again > 1 else cost
    for _ in range(again):
        _, before = explore(
            *(edges.indptr, edges.indices, edges.edge, rate, cost, least_hz, sums.factor, sums.leaving),
            *(search.dst, search.src, nothing, math.inf, 0.0),
        )
        path = walk(before, edges.a, edges.b, search.src)
        if not path.size:
            return
        yield path
        if again > 1:
            here = search.src
            for edge in path.tolist():
                cost[edge] += cost[edge] + sums.leaving[here] + ROUNDING
                here = int(edges.a[edge] + edges.b[edge]) - here


def _all_paths(search: Search) -> Iterator[tuple[tuple[int, ...], Rounds]]:
    """Every chain of no rounds and up to `SEARCHED_LINKS` links, in a graph of few."""
    edges, offers = search.offers.edges, search.offers
    if len(edges.ids) > _FEW:
        return
    ahead: list[tuple[int, tuple[int, ...], frozenset[int]]] = [(search.src, (), frozenset((search.src,)))]
    found = 0
    while ahead and found < _MOST_PATHS:
        here, path, seen = ahead.pop()
        if here == search.dst:
            found += 1
            yield path, (0,) * len(path)
        elif len(path) < SEARCHED_LINKS and search.success.leaving[here] < math.inf:
            span = slice(edges.indptr[here], edges.indptr[here + 1])
            for there, edge in zip(edges.indices[span].tolist(), edges.edge[span].tolist(), strict=True):
                if there not in seen and offers.raw[edge, 0] >= LEAST_HZ:
                    ahead.append((there, (*path, edge), seen | {there}))


def _climb(rounds: Rounds, most: int, key: Callable[[Rounds], Key]) -> Rounds:
    """Change the rounds of one link for the better, or of two where that of one is of no use, as long as there is such a change."""
    moves = [(at, by) for at in range(len(rounds)) for by in (1, -1)]
    ways: tuple[list[tuple[tuple[int, int], ...]], ...] = (
        [(one,) for one in moves],
        [(one, other) for one in moves for other in moves if one[0] < other[0]],
    )
    while True:
        for steps in ways:
            near = []
            for step in steps:
                changed = list(rounds)
                for at, by in step:
                    changed[at] += by
                if all(0 <= times <= most for times in changed):
                    near.append(tuple(changed))
            best = max(near, key=key, default=rounds)
            if key(best) > key(rounds):
                break
        else:
            return rounds
        rounds = best
