"""Key relay split over several paths: rates add up, and nothing is gained in secrecy, as each path carries keys of its own.

The greatest flow over at most n paths is NP-hard (Baier, Koehler and Skutella, Algorithmica 42:231, 2005). It is solved as a mixed-integer
programme that chooses among candidate paths: exactly where these are all paths there are, else among those of the maximum flow and the
widest ones; a proven bound stands beside the rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import block_array, coo_array, csr_array, diags_array, eye_array

from controller.routing.keys.allocation import Flow, flow_along
from controller.routing.keys.path_programme import Goal, PathProgramme
from controller.routing.keys.supply import KeySupply, Wish
from controller.routing.refusal import NoRoute

Floats = NDArray[np.float64]
Path = tuple[int, ...]

MAX_STEPS = 1_000
"""Partial paths that are extended in looking for all paths."""
_NODE_LIMIT = 10_000
_TIGHT = 1e-6
"""Relative difference to the bound below which a rate is the greatest; the integer solver's own tolerance."""
_EXACT = 1e-9
"""Relative difference below which two rates are one."""


@dataclass(frozen=True, slots=True)
class Split:
    """At most so many paths as asked for, with the rate on each; no choice of paths gives more than `bound_bps`."""

    flows: tuple[Flow, ...]
    rate_bps: float
    bound_bps: float
    greatest_bps: float
    """The most that was found, whatever is preferred."""
    full: tuple[str, ...]
    """The resources of which nothing is left."""
    proven: bool
    """Whether every path there is was looked at."""

    @property
    def tight(self) -> bool:
        """Whether the most that was found is the most there is."""
        return self.greatest_bps >= self.bound_bps * (1 - _TIGHT)


def split(
    supply: KeySupply,
    wish: Wish,
    paths: int,
    *,
    rate_bps: float = 0.0,
    prefer: Literal["widest", "fewest-trusted-nodes"] = "widest",
) -> Split:
    """The greatest rate of key over at most `paths` paths, `wish.max_trusted_nodes` in all, with the fewest trusted nodes; or, preferring
    these, of the sets of paths with the fewest that carry `rate_bps`, the one of the greatest rate.

    Raises NoRoute (`reachability`, `avoid`, `max_trusted_nodes`, `rate_bps`).
    """
    refused = supply.refusal(wish)
    if refused is not None:
        raise refused
    flow = PathProgramme(supply.uses, supply.capacity, [supply.commodity(wish, math.inf)]).highest([Goal(((0, 1.0),), 1.0)])
    greedy = _greedy(supply, wish, paths)
    bound = min(flow.bound, paths * supply.width(greedy[0], supply.capacity))
    every = supply.simple_paths(wish, MAX_STEPS)
    choice = _Choice(supply, wish, paths, every if every is not None else sorted({*greedy, *(path for _, path, _ in flow.flows)}))
    rates, proven = choice.greatest(wish.max_trusted_nodes)
    total = math.fsum(rates)
    if every is not None:
        bound = min(bound, max(total, proven))
    if total < rate_bps * (1 - _EXACT):
        best = (
            f"the best {paths} paths found from {wish.src} to {wish.dst} carry {total:.6g} bit/s together (at most {bound:.6g} can be had)"
        )
        raise NoRoute(f"{best}, {rate_bps:g} are asked for", "rate_bps", total)

    few = prefer == "fewest-trusted-nodes"
    least = rate_bps * (1 - _EXACT) if few else max(rate_bps * (1 - _EXACT), total * (1 - 2 * _TIGHT))
    for most in range(choice.fewest(rate_bps if few else total), choice.trusted(rates)):
        trusting, _ = choice.greatest(most)
        if math.fsum(trusting) >= least:
            rates = trusting
            break
    flows = [flow_along(supply, wish.src, path, rate) for path, rate in zip(choice.known, rates.tolist(), strict=True) if rate > 0]
    flows.sort(key=lambda each: (-each.rate_bps, each.nodes, each.links))
    full = np.flatnonzero(choice.drawn @ rates >= supply.capacity * (1 - _TIGHT)).tolist()
    return Split(
        tuple(flows),
        math.fsum(each.rate_bps for each in flows),
        bound,
        total,
        tuple(supply.resources[index] for index in full),
        every is not None,
    )


def _greedy(supply: KeySupply, wish: Wish, paths: int) -> list[Path]:
    """The widest path, then the widest in what it leaves, and so on."""
    left = supply.capacity.copy()
    found: list[Path] = []
    while len(found) < paths and (next_ := supply.widest(wish, left)) is not None:
        path, width = next_
        found.append(path)
        left = np.maximum(0.0, left - width * supply.uses[list(path)].sum(axis=0))
        left[left < 1e-12 * supply.capacity] = 0.0
    return found


class _Choice:
    """The choice of at most so many of the paths that are known: rates, whether a path is taken, and whether a node is trusted.

    Rates are counted in what each path can carry and limits in what each resource has, so that the solver's tolerance is a share of either.
    """

    def __init__(self, supply: KeySupply, wish: Wish, paths: int, known: Sequence[Path]) -> None:
        self.known, self._paths, self._capacity = known, paths, supply.capacity
        self.drawn: csr_array = csr_array(np.array([supply.uses[list(path)].sum(axis=0) for path in known]).T)
        self._widths = np.array([supply.width(path, supply.capacity) for path in known])
        self._trusted = [frozenset(offer.nodes[-1] for offer in supply.along(wish.src, path)[:-1]) for path in known]
        self._sizes = np.array([len(names) for names in self._trusted])
        number = {name: index for index, name in enumerate(sorted(frozenset[str]().union(*self._trusted)))}
        self._pairs = np.array([(path, number[name]) for path, names in enumerate(self._trusted) for name in names]).reshape(-1, 2)
        self._nodes = len(number)

    def trusted(self, rates: Floats) -> int:
        """How many nodes the paths trust that carry something."""
        return len(frozenset[str]().union(*(names for names, rate in zip(self._trusted, rates.tolist(), strict=True) if rate > 0)))

    def greatest(self, trusted: int | None) -> tuple[Floats, float]:
        """The rates of the best paths with at most so many trusted nodes in all, 0 for the others; and the proven bound on their sum.

        One path may trust as many.
        """
        count = len(self.known)
        # beside the width of a path that trusts too many the others might be lost in the tolerance
        widths = self._widths if trusted is None else np.where(self._sizes <= trusted, self._widths, 0.0)
        unit = float(widths.max())
        costs = np.concatenate((-widths / unit, np.zeros(count + self._nodes)))
        more = [] if trusted is None else [(np.repeat([0.0, 1.0], [2 * count, self._nodes]), float(trusted))]
        solution, bound = self._solved(widths, costs, more)
        return self._filled(np.where((solution[count : 2 * count] > 0.5) & (widths > 0), solution[:count] * widths, -1.0)), -bound * unit

    def _filled(self, rates: Floats) -> Floats:
        """The rates of the paths that are taken, others below 0, made to fit where the solver overfills, and to take what room it left."""
        taken = np.flatnonzero(rates >= 0)
        rates = np.maximum(0.0, rates)
        used = self.drawn @ rates
        fits = np.minimum(1.0, np.divide(self._capacity, used, out=np.ones_like(used), where=used > 0))
        columns = self.drawn.tocsc()
        for path in taken.tolist():
            rates[path] *= fits[columns.indices[columns.indptr[path] : columns.indptr[path + 1]]].min()
        for path in taken.tolist():
            on = slice(columns.indptr[path], columns.indptr[path + 1])
            left = self._capacity - self.drawn @ rates
            rates[path] += max(0.0, float(np.min(left[columns.indices[on]] / columns.data[on])))
        rates[rates <= _TIGHT * self._widths] = 0.0
        return rates

    def fewest(self, rate_bps: float) -> int:
        """With how few trusted nodes that rate can be had, within the integer solver's tolerance: no fewer do."""
        if rate_bps <= 0:
            return int(self._sizes.min())
        count = len(self.known)
        widths = np.minimum(self._widths, rate_bps)  # else a path of far more could be taken in part, within the tolerance
        carried = np.concatenate((-widths / rate_bps, np.zeros(count + self._nodes)))
        solution, _ = self._solved(widths, np.repeat([0.0, 1.0], [2 * count, self._nodes]), [(carried, _TIGHT - 1.0)])
        return round(math.fsum(solution[2 * count :]))

    def _solved(self, widths: Floats, costs: Floats, more: Sequence[tuple[Floats, float]]) -> tuple[Floats, float]:
        """What share of its width each path carries, 1 for each that is taken, 1 for each node that is trusted; and the proven bound."""
        count, pairs = len(self.known), len(self._pairs)
        one, of = np.ones(pairs), np.arange(pairs)
        taken, trusts = (
            csr_array(coo_array((one, (of, self._pairs[:, side])), shape=(pairs, size))) for side, size in ((0, count), (1, self._nodes))
        )
        drawn = diags_array(1 / self._capacity) @ self.drawn @ diags_array(widths)
        rows = block_array(
            [
                [drawn, csr_array((len(self._capacity), count)), csr_array((len(self._capacity), self._nodes))],
                [eye_array(count), -eye_array(count), None],
                [None, taken, -trusts],
                [None, csr_array(np.ones((1, count))), None],
                [None, -csr_array(np.ones((1, count))), None],
            ]
        )
        rows = block_array([[rows], *([csr_array(row[None, :])] for row, _ in more)])
        limits = [*np.ones(len(self._capacity)), *np.zeros(count + pairs), self._paths, -1.0, *(limit for _, limit in more)]
        solved = milp(
            costs,
            integrality=np.repeat([0, 1, 0], [count, count, self._nodes]),
            bounds=(0, 1),
            constraints=LinearConstraint(rows, ub=limits),
            options={"node_limit": _NODE_LIMIT, "mip_rel_gap": 0.0},
        )
        if solved.x is None:
            raise RuntimeError(f"the choice of paths was not solved: {solved.message}")
        return solved.x, float(solved.mip_dual_bound)
