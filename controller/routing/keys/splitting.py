"""Key relay split over several paths: rates add up, and nothing is gained in secrecy, as each path carries keys of its own.

The greatest flow over at most n paths is NP-hard (Baier, Koehler and Skutella, Algorithmica 42:231, 2005). It is solved as a mixed-integer
programme that chooses among candidate paths: exactly where these are all paths there are, else among those of the maximum flow and the
widest ones; a proven bound stands beside the rate.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import block_array, csr_array, diags_array, eye_array

from controller.network.topology import Topology
from controller.physics.domain import whole
from controller.routing.keys.allocation import Flow, flow_along
from controller.routing.keys.path_programme import Goal, PathProgramme
from controller.routing.keys.supply import KeySupply, Wish
from controller.routing.refusal import NoRoute

MAX_STEPS = 1_000
"""Partial paths that are extended in looking for all paths."""
_NODE_LIMIT = 10_000
_TIGHT = 1e-6
"""Relative difference to the bound below which a rate is the greatest; the integer solver's own tolerance."""

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """At most so many paths as asked for, with the rate on each; no choice of paths gives more than `bound_bps`."""

    flows: tuple[Flow, ...]
    rate_bps: float
    bound_bps: float
    explanation: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        flows = [flow.to_json() for flow in self.flows]
        return {"flows": flows, "rate_bps": self.rate_bps, "bound_bps": self.bound_bps, "explanation": list(self.explanation)}


def split(
    topology: Topology,
    src: str,
    dst: str,
    paths: int,
    *,
    rate_bps: float = 0.0,
    max_trusted_nodes: int | None = None,
    avoid: Collection[str] = (),
    reserved: Mapping[str, float] | None = None,
    taken: Collection[tuple[str, str]] = frozenset(),
    cost_factor: float = 1.0,
) -> Split:
    """The greatest rate of key from `src` to `dst` over at most `paths` paths, each with at most `max_trusted_nodes` of these.

    Links, `reserved`, `taken` and `cost_factor` are as for `allocation.allocate`. Raises NoRoute (`reachability`, `avoid`,
    `max_trusted_nodes`, `rate_bps`), UnknownName, and ValueError for a number out of range, by name.
    """
    whole("paths", paths, 1, 64)
    if not (rate_bps >= 0 and math.isfinite(rate_bps)):
        raise ValueError(f"rate_bps must be finite and at least 0, got {rate_bps!r}")
    wish = Wish(src, dst, max_trusted_nodes, frozenset(avoid))
    supply = KeySupply(topology, [wish], reserved=reserved or {}, taken=taken, cost_factor=cost_factor)
    refused = supply.refusal(wish)
    if refused is not None:
        raise refused

    flow = PathProgramme(supply.uses, supply.capacity, [supply.commodity(wish, math.inf)]).highest([Goal(((0, 1.0),), 1.0)])
    greedy = _greedy(supply, wish, paths)
    bound = min(flow.bound, paths * supply.width(greedy[0], supply.capacity))
    every = supply.simple_paths(wish, MAX_STEPS)
    known = every if every is not None else sorted({*greedy, *(path for _, path, _ in flow.flows)})
    rates, proven = _choose(supply, known, paths)
    chosen = [path for path, rate in zip(known, rates, strict=True) if rate > _TIGHT * rates.max()]
    flows = [flow_along(supply, src, path, rate) for path, rate in zip(known, rates, strict=True) if path in set(chosen)]
    flows.sort(key=lambda each: (-each.rate_bps, each.nodes, each.links))
    total = math.fsum(each.rate_bps for each in flows)
    if every is not None:
        bound = min(bound, max(total, proven))
    if total < rate_bps:
        best = f"the best {paths} paths found from {src} to {dst} carry {total:.6g} bit/s together (at most {bound:.6g} can be had)"
        raise NoRoute(f"{best}, {rate_bps:g} are asked for", "rate_bps", total)
    lines = [f"{' - '.join(each.nodes)}: {each.rate_bps:.6g} bit/s, trusting {', '.join(each.trusted_nodes) or 'nobody'}" for each in flows]
    if total >= bound * (1 - _TIGHT):
        lines.append(f"{total:.6g} bit/s together, the most that {paths} paths can carry")
    else:
        lines.append(f"{total:.6g} bit/s together, the best of {len(known)} paths looked at; no {paths} paths carry more than {bound:.6g}")
    return Split(tuple(flows), total, bound, tuple(lines))


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


def _choose(supply: KeySupply, known: Sequence[Path], paths: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], float]:
    """The rates of the best at most `paths` of the known paths, 0 for the others; and the bound on their sum that was proven."""
    drawn: csr_array = csr_array(np.array([supply.uses[list(path)].sum(axis=0) for path in known]).T)
    widths = np.array([supply.width(path, supply.capacity) for path in known])
    unit, count = widths.max(), len(known)
    rows = block_array([[drawn, None], [eye_array(count), -diags_array(widths / unit)], [None, csr_array(np.ones((1, count)))]])
    limits = np.concatenate((supply.capacity / unit, np.zeros(count), [paths]))
    solved = milp(
        np.concatenate((-np.ones(count), np.zeros(count))),
        integrality=np.repeat([0, 1], count),
        bounds=(0, np.repeat([np.inf, 1.0], count)),
        constraints=LinearConstraint(rows, ub=limits),
        options={"node_limit": _NODE_LIMIT, "mip_rel_gap": 0.0},
    )
    if solved.x is None:
        raise RuntimeError(f"the choice of paths was not solved: {solved.message}")
    rates = np.where(solved.x[count:] > 0.5, np.maximum(0.0, solved.x[:count]), 0.0) * unit
    used = drawn @ rates
    full = float(np.max(used / supply.capacity, initial=1.0))
    return rates / full, -float(solved.mip_dual_bound) * unit
