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
    if total < rate_bps:
        best = (
            f"the best {paths} paths found from {wish.src} to {wish.dst} carry {total:.6g} bit/s together (at most {bound:.6g} can be had)"
        )
        raise NoRoute(f"{best}, {rate_bps:g} are asked for", "rate_bps", total)

    fewest = choice.fewest(rate_bps if prefer == "fewest-trusted-nodes" else total * (1 - _TIGHT))
    trusting, _ = choice.greatest(fewest)
    if math.fsum(trusting) >= max(rate_bps, 0.0 if prefer == "fewest-trusted-nodes" else total * (1 - 2 * _TIGHT)):
        rates = trusting
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
    """The choice of at most so many of the paths that are known: rates, whether a path is taken, and whether a node is trusted."""

    def __init__(self, supply: KeySupply, wish: Wish, paths: int, known: Sequence[Path]) -> None:
        self.known, self._supply = known, supply
        self.drawn: csr_array = csr_array(np.array([supply.uses[list(path)].sum(axis=0) for path in known]).T)
        widths = np.array([supply.width(path, supply.capacity) for path in known])
        self._unit, count = float(widths.max()), len(known)
        trusted = [[offer.nodes[-1] for offer in supply.along(wish.src, path)[:-1]] for path in known]
        number = {name: index for index, name in enumerate(sorted({name for names in trusted for name in names}))}
        pairs = [(path, number[name]) for path, names in enumerate(trusted) for name in names]
        self._nodes, of = len(number), np.arange(len(pairs))
        one = np.ones(len(pairs))
        taken, trusts = (
            csr_array(coo_array((one, (of, np.array(at, dtype=np.int64))), shape=(len(pairs), size)))
            for at, size in (([path for path, _ in pairs], count), ([node for _, node in pairs], self._nodes))
        )
        self._rows = block_array(
            [
                [self.drawn, csr_array((len(supply.capacity), count)), csr_array((len(supply.capacity), self._nodes))],
                [eye_array(count), -diags_array(widths / self._unit), None],
                [None, taken, -trusts],
                [None, csr_array(np.ones((1, count))), None],
                [None, -csr_array(np.ones((1, count))), None],
            ]
        )
        self._limits = np.concatenate((supply.capacity / self._unit, np.zeros(count + len(pairs)), [paths, -1.0]))

    def greatest(self, trusted: int | None) -> tuple[Floats, float]:
        """The rates of the best paths with at most so many trusted nodes in all, 0 for the others; and the proven bound on their sum."""
        count = len(self.known)
        costs = np.concatenate((-np.ones(count), np.zeros(count + self._nodes)))
        solution, bound = self._solved(costs, *([] if trusted is None else [(np.repeat([0.0, 1.0], [2 * count, self._nodes]), trusted)]))
        rates = np.where(solution[count : 2 * count] > 0.5, np.maximum(0.0, solution[:count]), 0.0) * self._unit
        rates[rates <= _TIGHT * rates.max()] = 0.0
        full = float(np.max(self.drawn @ rates / self._supply.capacity, initial=1.0))
        return rates / full, -bound * self._unit

    def fewest(self, rate_bps: float) -> int:
        """With how few trusted nodes that rate can be had."""
        count = len(self.known)
        costs = np.repeat([0.0, 1.0], [2 * count, self._nodes])
        solution, _ = self._solved(costs, (np.repeat([-1.0, 0.0], [count, count + self._nodes]), -rate_bps / self._unit))
        return round(math.fsum(solution[2 * count :]))

    def _solved(self, costs: Floats, *more: tuple[Floats, float]) -> tuple[Floats, float]:
        rows = block_array([[self._rows], *([csr_array(row[None, :])] for row, _ in more)])
        solved = milp(
            costs,
            integrality=np.repeat([0, 1, 0], [len(self.known), len(self.known), self._nodes]),
            bounds=(0, np.repeat([np.inf, 1.0], [len(self.known), len(self.known) + self._nodes])),
            constraints=LinearConstraint(rows, ub=np.concatenate((self._limits, [limit for _, limit in more]))),
            options={"node_limit": _NODE_LIMIT, "mip_rel_gap": 0.0},
        )
        if solved.x is None:
            raise RuntimeError(f"the choice of paths was not solved: {solved.message}")
        return solved.x, float(solved.mip_dual_bound)
