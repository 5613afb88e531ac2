"""Allocation of a demand matrix of key relay: who gets how much secret key over which paths, as a linear programme (HiGHS).

Throughput: the greatest weighted sum of rates. Max-min: no demand's rate per weight can grow without lowering one that is not larger
(Bertsekas and Gallager, Data Networks, 1992, 6.5.2); each round raises all open demands together and fixes those that hold the level
down. A higher priority is served first, as if the lower were not there. Rates are exact; the paths they then take spend little key, and it is said how little.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from controller.network.topology import Topology
from controller.physics.domain import whole, within
from controller.routing.keys.path_programme import Commodity, Goal, PathProgramme, Solution
from controller.routing.keys.segments import SegmentKind, key_segments
from controller.routing.keys.supply import LEAST_BPS, KeySupply, Wish, stored_key
from controller.routing.refusal import NoRoute

Objective = Literal["throughput", "max-min"]

_EXACT = 1e-9
"""Relative difference below which two rates are one."""
_ROUNDING = 1e-11
"""How much less than what one round reached the next has to hold."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Key that two nodes ask for: at most `rate_bps` (infinite: as much as there is), fair shares in proportion to `weight`.

    Of two priorities the higher is served first. `max_trusted_nodes` bounds each path, `avoid` names nodes and links (glass included).
    """

    src: str
    dst: str
    rate_bps: float
    weight: float = 1.0
    priority: int = 0
    max_trusted_nodes: int | None = None
    avoid: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.rate_bps >= 0:
            raise ValueError(f"rate_bps must be at least 0, got {self.rate_bps!r}")
        within("weight", self.weight, 1e-3, 1e3)
        whole("priority", self.priority, -(2**31), 2**31)
        if self.max_trusted_nodes is not None:
            whole("max_trusted_nodes", self.max_trusted_nodes, 0, 2**31)

    @property
    def wish(self) -> Wish:
        return Wish(self.src, self.dst, self.max_trusted_nodes, self.avoid)


@dataclass(frozen=True, slots=True)
class Flow:
    """One path of a grant. A segment of kind `pool` is key already stored at both its ends; it has no links."""

    nodes: tuple[str, ...]
    links: tuple[str, ...]
    segments: tuple[SegmentKind, ...]
    trusted_nodes: tuple[str, ...]
    rate_bps: float

    def to_json(self) -> dict[str, object]:
        return {
            "nodes": list(self.nodes),
            "links": list(self.links),
            "segments": list(self.segments),
            "trusted_nodes": list(self.trusted_nodes),
            "rate_bps": self.rate_bps,
        }


@dataclass(frozen=True, slots=True)
class Grant:
    """What a demand gets."""

    demand: Demand
    rate_bps: float
    flows: tuple[Flow, ...]
    held_by: tuple[str, ...]
    """The full resources that keep the rate from growing; empty when the demand is met."""
    best_bps: float
    """What it could have, up to what it asks for, were it alone."""
    refusal: NoRoute | None
    """Why it gets nothing, when no path at all could serve it."""

    def to_json(self) -> dict[str, object]:
        return {
            "src": self.demand.src,
            "dst": self.demand.dst,
            "rate_bps": self.rate_bps,
            "flows": [flow.to_json() for flow in self.flows],
            "held_by": list(self.held_by),
            "best_bps": self.best_bps,
            "refusal": self.refusal.to_json() if self.refusal else None,
        }


@dataclass(frozen=True, slots=True)
class Binding:
    """A full resource: a link's id, a module that switched links share, or the pool of two nodes."""

    resource: str
    width_bps: float
    price: float
    """What one bit/s more of it would add to the objective: to the weighted sum of rates, or to the fair level it held down."""

    def to_json(self) -> dict[str, object]:
        return {"resource": self.resource, "width_bps": self.width_bps, "price": self.price}


@dataclass(frozen=True, slots=True)
class Allocation:
    grants: tuple[Grant, ...]
    """One per demand, in their order."""
    throughput_bps: float
    binding: tuple[Binding, ...]
    gap: float
    """The largest relative distance between a programme's value and its proven bound: what the allocation can be short of the optimum.

    A programme to which those before it left nothing but rounding does not count.
    """
    excess: float
    """The paths spend at most so much more key than the least that these rates need, as a share of it."""
    explanation: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "grants": [grant.to_json() for grant in self.grants],
            "throughput_bps": self.throughput_bps,
            "binding": [binding.to_json() for binding in self.binding],
            "gap": self.gap,
            "excess": self.excess,
            "explanation": list(self.explanation),
        }


def allocate(
    topology: Topology,
    demands: Sequence[Demand],
    *,
    objective: Objective = "max-min",
    reserved: Mapping[str, float] | None = None,
    taken: Collection[tuple[str, str]] = frozenset(),
    pool_bytes: Mapping[tuple[str, str], float] | None = None,
    minimum_bytes: float = 0.0,
    horizon_s: float = math.inf,
    cost_factor: float = 1.0,
) -> Allocation:
    """Share the network's key among `demands`; both directions of a link draw on the same key.

    `reserved` is bit/s already promised per link id, `taken` are optical ports (node, port) that switched links cannot have.
    `pool_bytes` is what a pair of nodes has stored, of which all above `minimum_bytes` may be spent over `horizon_s`.
    `cost_factor` is the key that a link spends per bit relayed (`key_pools.link_cost_factor`). A link that several entangled segments
    cross, and a module that several switched links use, is shared in time: their rates over their widths add up to at most 1.

    A demand that no path can serve is granted 0 with its refusal (`reachability`, `avoid`, `max_trusted_nodes`, `rate_bps`).
    Raises UnknownName, and ValueError for a number out of range, by name.
    """
    if objective not in ("throughput", "max-min"):
        raise ValueError(f"objective must be throughput or max-min, got {objective!r}")
    within("cost_factor", cost_factor, 1)
    promised = reserved or {}
    for link_id, amount in promised.items():
        topology.link(link_id)
        within(f"reserved of {link_id}", amount, 0)
    stored = stored_key(topology, pool_bytes or {}, minimum_bytes=minimum_bytes, horizon_s=horizon_s, reserved=promised)
    wishes = [demand.wish for demand in demands]
    supply = KeySupply(
        topology,
        wishes,
        lambda avoid: key_segments(topology, reserved=promised, avoid=avoid, taken=taken),
        stored=stored,
        cost_factor=cost_factor,
    )
    refusals = [supply.refusal(wish) for wish in wishes]
    served = [index for index, demand in enumerate(demands) if refusals[index] is None and demand.rate_bps >= LEAST_BPS]
    grants = [Grant(demand, 0.0, (), (), 0.0, refused) for demand, refused in zip(demands, refusals, strict=True)]
    if not served:
        return Allocation(tuple(grants), 0.0, (), 0.0, 0.0, _explanation(objective, grants, (), 0.0))

    wanted = [demands[index] for index in served]
    commodities = [supply.commodity(demand.wish, demand.rate_bps) for demand in wanted]
    programme = PathProgramme(supply.uses, supply.capacity, commodities)
    decided = (_throughput if objective == "throughput" else _max_min)(programme, commodities, wanted)
    cheapest = programme.cheapest(np.array(decided.rates))
    flows = _flows(supply, cheapest, wanted)
    for index, demand, commodity, solution, given in zip(served, wanted, commodities, decided.by, flows, strict=True):
        rate = math.fsum(flow.rate_bps for flow in given)
        if rate >= demand.rate_bps * (1 - _EXACT):
            grants[index] = Grant(demand, min(rate, demand.rate_bps), given, (), demand.rate_bps, None)
        else:
            held_by = _held_by(supply, solution, wanted.index(demand))
            grants[index] = Grant(demand, rate, given, held_by, max(rate, supply.alone(commodity)), None)
    prices: dict[int, float] = {}
    for solution in decided.solutions:
        for resource in np.flatnonzero(solution.prices > _EXACT).tolist():
            prices.setdefault(resource, float(solution.prices[resource]))
    binding = [Binding(supply.resources[at], float(supply.capacity[at]), price) for at, price in prices.items()]
    binding.sort(key=lambda each: (-each.price, each.resource))
    least = _EXACT * max(each.bound for each in decided.solutions)
    gap = max((abs(each.bound - each.value) / each.bound for each in decided.solutions if each.bound > least), default=0.0)
    excess = max(0.0, cheapest.value / cheapest.bound - 1)
    total = math.fsum(grant.rate_bps for grant in grants)
    return Allocation(tuple(grants), total, tuple(binding), gap, excess, _explanation(objective, grants, binding, programme.finest))


@dataclass(frozen=True, slots=True)
class _Decided:
    rates: tuple[float, ...]
    """Per commodity, in bit/s."""
    solutions: tuple[Solution, ...]
    """In the order of rounds."""
    by: tuple[Solution, ...]
    """Per commodity, the round that decided its rate."""


def _classes(demands: Sequence[Demand]) -> list[list[int]]:
    """Indices by priority, the highest first."""
    return [
        [index for index, demand in enumerate(demands) if demand.priority == priority]
        for priority in sorted({demand.priority for demand in demands}, reverse=True)
    ]


def _throughput(programme: PathProgramme, _: Sequence[Commodity], demands: Sequence[Demand]) -> _Decided:
    goals: list[Goal] = []
    solutions: list[Solution] = []
    by: dict[int, Solution] = {}
    for members in _classes(demands):
        rates = tuple((index, demands[index].weight) for index in members)
        solution = programme.highest([*goals, Goal(rates, 1.0)])
        goals.append(Goal(rates, 0.0, solution.value * (1 - _ROUNDING)))
        solutions.append(solution)
        by.update(dict.fromkeys(members, solution))
    return _Decided(
        tuple((solutions[-1].rates * (1 - _ROUNDING)).tolist()), tuple(solutions), tuple(by[index] for index in range(len(demands)))
    )


def _max_min(programme: PathProgramme, commodities: Sequence[Commodity], demands: Sequence[Demand]) -> _Decided:
    fixed: dict[int, Goal] = {}
    solutions: list[Solution] = []
    by: dict[int, Solution] = {}
    for members in _classes(demands):
        rising = list(members)
        while rising:
            solution = programme.highest([*fixed.values(), *(Goal(((index, 1.0),), demands[index].weight) for index in rising)])
            solutions.append(solution)
            # the shares of the rising demands in holding the level down add up to 1: whoever has one can rise in no optimum
            shares = [demands[index].weight * pull for index, pull in zip(rising, solution.pull[len(fixed) :], strict=True)]
            enough = min(max(shares), 1e-3 / len(rising))
            for index, share in zip(list(rising), shares, strict=True):
                rate = demands[index].weight * solution.value
                if share >= enough or rate >= commodities[index].rate * (1 - _EXACT):
                    fixed[index] = Goal(((index, 1.0),), 0.0, rate * (1 - _ROUNDING))
                    by[index] = solution
                    rising.remove(index)
    return _Decided(
        tuple(fixed[index].least for index in range(len(demands))), tuple(solutions), tuple(by[index] for index in range(len(demands)))
    )


def _flows(supply: KeySupply, solution: Solution, demands: Sequence[Demand]) -> list[tuple[Flow, ...]]:
    """The paths per demand; where the solver's tolerance overfills a resource its paths are cut, so that none is ever over its width."""
    used = np.zeros(len(supply.capacity))
    for _, path, rate in solution.flows:
        used += rate * supply.uses[list(path)].sum(axis=0)
    fits = np.minimum(1.0, np.divide(supply.capacity, used, out=np.ones_like(used), where=used > 0))
    found: list[list[Flow]] = [[] for _ in demands]
    for index, path, rate in solution.flows:
        drawn = supply.uses[list(path)].sum(axis=0) > 0
        if rate <= _EXACT * solution.rates[index]:
            continue
        found[index].append(flow_along(supply, demands[index].src, path, rate * float(fits[drawn].min())))
    return [tuple(sorted(flows, key=lambda flow: (-flow.rate_bps, flow.nodes, flow.links))) for flows in found]


def flow_along(supply: KeySupply, src: str, path: Sequence[int], rate_bps: float) -> Flow:
    """A flow over the offers of a path, told in the network's names."""
    offers = supply.along(src, path)
    nodes = (src, *(name for offer in offers for name in offer.nodes[1:]))
    links = tuple(link for offer in offers for link in offer.links)
    return Flow(nodes, links, tuple(offer.kind for offer in offers), tuple(offer.nodes[-1] for offer in offers[:-1]), rate_bps)


def _held_by(supply: KeySupply, solution: Solution, index: int) -> tuple[str, ...]:
    """The full resources on the paths that a commodity has, or would have next, in the round that decided its rate."""
    paths = [path for of, path, _ in solution.flows if of == index]
    route = solution.routes[index]
    full = {
        supply.resources[at]
        for path in (*paths, *([route] if route is not None else []))
        for at in np.flatnonzero((supply.uses[list(path)].sum(axis=0) > 0) & (solution.prices > _EXACT)).tolist()
    }
    return tuple(sorted(full))


def _explanation(objective: Objective, grants: Sequence[Grant], binding: Sequence[Binding], finest_bps: float) -> tuple[str, ...]:
    lines = []
    for grant in grants:
        demand, asked = grant.demand, f"of {grant.demand.rate_bps:.6g} bit/s asked"
        if grant.refusal is not None:
            lines.append(f"{demand.src} -- {demand.dst}: nothing {asked}: {grant.refusal.error}")
            continue
        held = f"; held by {', '.join(grant.held_by)}; alone it could have {grant.best_bps:.6g} bit/s" if grant.held_by else ""
        lines.append(f"{demand.src} -- {demand.dst}: {grant.rate_bps:.6g} {asked} over {len(grant.flows)} paths{held}")
        if LEAST_BPS <= grant.best_bps < min(10 * finest_bps, demand.rate_bps):
            lines.append(f"{demand.src} -- {demand.dst}: so little may be lost in the rounding beside the largest rates of this matrix")
    gains = "the weighted sum of rates" if objective == "throughput" else "the fair level of those it holds"
    lines += [
        f"binding: {each.resource} with {each.width_bps:.6g} bit/s; one bit/s more adds {each.price:.6g} bit/s to {gains}"
        for each in binding
    ]
    return tuple(lines)
