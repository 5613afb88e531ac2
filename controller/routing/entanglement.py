"""Entangled pairs over repeaters: the exact optimum of the buffered model, and the on-demand model's choice among its candidates.

Buffered: many pairs are in flight and none decays. A link of pair rate r after k rounds of purification (Werner-twirled after each)
delivers r times the yield at Werner parameter w_k. Along a path w multiplies, with w_s of every repeater's swap; the rate is the least of
the links' rates times the product q of the swaps' success probabilities. How many memories a node has does not enter: a link's rate is that
of all its channels together, with the memories its ends have. All of (w, q, rate) can only fall as a path grows, so a label that is no
better in any of the three can be dropped: Pareto label-setting is exact.

On-demand: one request at a time, swap as soon as possible, and what waits decays (`controller.physics.chains`). `proposals` tells which
chains are looked at; on random networks of up to eight nodes the best of them was within 1 % of the optimum in 99 % of the cases.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from controller.network.model import Link, Swap
from controller.network.topology import Topology
from controller.physics.bell_diagonal import fidelity_of, recurrence, werner_parameter
from controller.physics.domain import within
from controller.routing.entangled.buffered import Optimum, Search, highest_fidelity, highest_rate
from controller.routing.entangled.offers import LEAST_PAIRS_HZ, ROUNDING, Offers, offers
from controller.routing.entangled.proposals import Demand, Goal
from controller.routing.refusal import NoRoute, told

MAX_ROUNDS = 6
"""Most rounds of purification on one link. The yield halves at least with each, so the seventh would leave under 1 pair in 128."""

Model = Literal["buffered", "on-demand"]

PERFECT_SWAP = Swap()


@dataclass(frozen=True, slots=True)
class Supply:
    """What one link delivers after `rounds` of purification."""

    rounds: int
    rate_hz: float
    w: float


@dataclass(frozen=True, slots=True)
class Chain:
    """A path of links from one node to another, with the rounds on each: nodes, links, supplies; w and q of the whole of it."""

    nodes: tuple[str, ...]
    links: tuple[str, ...]
    supplies: tuple[Supply, ...]
    w: float
    q: float
    raw_hz: float
    """The least of the links' rates, before swaps fail."""

    @property
    def rate_hz(self) -> float:
        return self.raw_hz * self.q

    @property
    def fidelity(self) -> float:
        return fidelity_of(self.w)

    @property
    def rounds(self) -> tuple[int, ...]:
        return tuple(supply.rounds for supply in self.supplies)


@dataclass(frozen=True, slots=True)
class EntanglementRoute:
    nodes: tuple[str, ...]
    links: tuple[str, ...]
    rate_hz: float
    """Delivered pairs per second."""
    fidelity: float
    rounds: tuple[int, ...]
    """Rounds of purification on each link."""
    model: Model
    explanation: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "nodes": list(self.nodes),
            "links": list(self.links),
            "rate_hz": self.rate_hz,
            "fidelity": self.fidelity,
            "rounds": list(self.rounds),
            "model": self.model,
            "explanation": list(self.explanation),
        }


def entanglement(
    topology: Topology,
    src: str,
    dst: str,
    *,
    min_fidelity: float | None = None,
    min_rate_hz: float | None = None,
    model: Model = "buffered",
) -> EntanglementRoute:
    """The best chain of entangled pairs from `src` to `dst`: the highest rate, or the highest fidelity when only a rate is asked for.

    Raises NoRoute (`reachability`, `min_fidelity`, `min_rate_hz`) with the best achievable, UnknownName, and ValueError for a floor that is
    out of range (fidelity in [0, 1], rate at least 0) and for another model.
    """
    topology.node(src), topology.node(dst)
    if model not in get_args(Model):
        raise ValueError(f"model must be one of {', '.join(get_args(Model))}, got {model!r}")
    _floors(min_fidelity or 0.0, min_rate_hz or 0.0)
    if src == dst:
        raise NoRoute(f"{src} is both ends of the request", "reachability")
    floor, rate = min_fidelity or 0.0, min_rate_hz or 0.0

    finest = min_rate_hz is not None and min_fidelity is None
    if finest:
        goal = f"highest fidelity at {rate:g} Hz or more"
    else:
        goal = "highest rate" if min_fidelity is None else f"highest rate at fidelity {floor:g} or more"
    choose = _buffered if model == "buffered" else _on_demand
    chosen = choose(topology, src, dst, floor, rate, finest)
    chain = chosen.chain
    explanation = (*explain(topology, chain), *chosen.notes, *_memories(topology, chain), f"chosen for the {goal}")
    return EntanglementRoute(chain.nodes, chain.links, chosen.rate_hz, chosen.fidelity, chain.rounds, model, explanation)


def _floors(min_fidelity: float, min_rate_hz: float) -> None:
    within("min_fidelity", min_fidelity, 0, 1)
    within("min_rate_hz", min_rate_hz, 0)


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A chain with its figures under the model asked for."""

    chain: Chain
    rate_hz: float
    fidelity: float
    notes: tuple[str, ...]


def _optimum(topology: Topology, offered: Offers, optimum: Optimum, src: str) -> Chain:
    chosen = zip(optimum.edges, optimum.rounds, strict=True)
    kept = tuple(Supply(rounds, float(offered.rate[edge, rounds]), float(offered.w[edge, rounds])) for edge, rounds in chosen)
    return _chain(topology, offered, optimum.edges, kept, src)


def _chain(topology: Topology, offered: Offers, edges: Sequence[int], kept: tuple[Supply, ...], src: str) -> Chain:
    """A path by edge numbers, with its figures multiplied along it as `front` does."""
    nodes, links = [src], list[str]()
    w, q = 1.0, 1.0
    for edge, supply in zip(edges, kept, strict=True):
        link = topology.link(offered.edges.ids[edge])
        if links:
            swap = swap_of(topology, nodes[-1])
            w, q = w * werner_parameter(swap.fidelity), q * swap.success
        w *= supply.w
        nodes.append(link.nodes[1] if link.nodes[0] == nodes[-1] else link.nodes[0])
        links.append(link.id)
    return Chain(tuple(nodes), tuple(links), kept, w, q, min(supply.rate_hz for supply in kept))


def _buffered(topology: Topology, src: str, dst: str, floor: float, rate: float, finest: bool) -> _Ranked:
    """The optimum of the buffered model; NoRoute when it does not meet the floors."""
    offered = offers(topology, MAX_ROUNDS)
    ends = offered.arrays.number[src], offered.arrays.number[dst]
    least_w = (4 * floor * (1 - ROUNDING) - 1) / 3
    most_cost = -math.log(least_w) if least_w > 0 else math.inf
    least_log_rate = math.log(rate) if rate else -math.inf
    if finest:
        found = highest_fidelity(Search.of(offered, *ends, least_log_rate=least_log_rate))
    else:
        found = highest_rate(Search.of(offered, *ends, most_cost))
    if found is None or (chain := _optimum(topology, offered, found, src)).rate_hz == 0 or not _meets(chain.rate_hz, rate):
        raise _refusal(topology, src, dst, floor, rate, None if finest else found)
    scarce = min(range(len(chain.links)), key=lambda index: chain.supplies[index].rate_hz)
    of_swaps = f"; all swaps succeed with probability {chain.q:.6g}" if chain.q < 1 else ""
    purified = f" after {_rounds(chain.rounds[scarce])} of purification"
    notes: tuple[str, ...] = (
        "buffered: many pairs in flight, no decay; states taken as Werner",
        f"binding for the rate: {chain.links[scarce]} with {chain.raw_hz:.6g} Hz{purified}{of_swaps}",
        _dimmest(topology, chain),
    )
    if not found.proven:
        notes = (*notes, "the search met the bound on its effort: a better chain may exist")
    return _Ranked(chain, chain.rate_hz, chain.fidelity, notes)


def _nowhere(topology: Topology, src: str, dst: str) -> NoRoute:
    """Why no chain leads there: the ends, and the links that are left out with the reason."""
    if shut := [f"{name} is {admin}" for name in (src, dst) if (admin := topology.node(name).admin) != "enabled"]:
        return NoRoute(f"{' and '.join(shut)}: no chain begins or ends there", "reachability")
    left_out: dict[str, list[str]] = {}
    for link in topology.links("entanglement"):
        if (why := _unfit(topology, link)) is not None:
            left_out.setdefault(why, []).append(link.id)
    some = (f"{', '.join(ids[:3])}{f' and {len(ids) - 3} more' if len(ids) > 3 else ''} ({why})" for why, ids in left_out.items())
    more = f"; left out: {', '.join(some)}" if left_out else ""
    return NoRoute(f"no usable entanglement links join {src} and {dst} over repeaters{more}", "reachability")


def _unfit(topology: Topology, link: Link) -> str | None:
    """Why a link is not on offer; None when it is. What `Offers` computes, in words."""
    if not topology.usable(link):
        return "down, draining or disabled"
    if not via_usable(topology, link):
        return "its source or Bell station is not enabled"
    rate, fidelity = topology.figure(link, "rate_hz"), topology.figure(link, "fidelity")
    if rate is None or fidelity is None:
        return f"unknown {'rate_hz' if rate is None else 'fidelity'}"
    if rate.value < LEAST_PAIRS_HZ:
        return f"makes no pairs, rate_hz is {rate.value:g}"
    if fidelity.value < 0.25:
        return "fidelity below 1/4"
    return "fidelity above 1" if fidelity.value > 1 else None


def _refusal(topology: Topology, src: str, dst: str, floor: float, rate: float, fastest: Optimum | None) -> NoRoute:
    """Why no chain meets the floors; `fastest` is the one of the highest rate at that fidelity, where it is known."""
    offered = offers(topology, MAX_ROUNDS)
    ends = offered.arrays.number[src], offered.arrays.number[dst]
    finest = highest_fidelity(Search.of(offered, *ends))
    if finest is None:
        return _nowhere(topology, src, dst)
    fidelity = _optimum(topology, offered, finest, src).fidelity
    if not _meets(fidelity, floor):
        purified = f"with up to {MAX_ROUNDS} rounds of purification per link"
        return NoRoute(
            f"no chain from {src} to {dst} reaches fidelity {floor:g}; the best is {fidelity:.6g}, {purified}", "min_fidelity", fidelity
        )
    fastest = fastest or highest_rate(Search.of(offered, *ends))
    achievable = _optimum(topology, offered, fastest, src).rate_hz if fastest else 0.0
    at = f" at fidelity {floor:g} or more" if floor else ""
    if achievable == 0:
        return NoRoute(
            f"every chain from {src} to {dst}{at} has swaps so unlikely to succeed that its rate is no number", "min_rate_hz", 0.0
        )
    unproven = "" if fastest is None or fastest.proven else ", as far as the bound on the search's effort let it look"
    return NoRoute(
        f"no chain from {src} to {dst} delivers {rate:g} pairs per second{at}; the best is {achievable:.6g}{unproven}",
        "min_rate_hz",
        achievable,
    )


def _meets(value: float, floor: float) -> bool:
    return value >= floor * (1 - ROUNDING)


def supplies(rate_hz: float, fidelity: float) -> tuple[Supply, ...]:
    """What a link delivers after 0, 1, ... rounds of purification, as long as each round raises the fidelity."""
    offered: list[Supply] = []
    for rounds in range(MAX_ROUNDS + 1):
        purified, kept = recurrence(fidelity, rounds)
        supply = Supply(rounds, rate_hz * kept, werner_parameter(purified))
        if offered and supply.w <= offered[-1].w * (1 + ROUNDING):
            break
        offered.append(supply)
    return tuple(offered)


def swap_of(topology: Topology, node: str) -> Swap:
    """A repeater's swap; a perfect one where the document says nothing."""
    return topology.node(node).swap or PERFECT_SWAP


def front(
    topology: Topology, src: str, dst: str | None, *, min_fidelity: float = 0.0, min_rate_hz: float = 0.0, avoid: Collection[str] = ()
) -> list[Chain]:
    """All chains from `src` to `dst` (None: to every node) of which none is worse than another in w, q and raw rate at once.

    Chains below a floor are left out, and so are links below fidelity 1/4 (less than noise), without a rate, or with an end or id in
    `avoid`. Of chains with equal figures the one of fewest links, then the first by id, is kept. None lead from a node to itself.

    Raises UnknownName, and ValueError for a floor that is out of range.
    """
    topology.node(src)
    if dst is not None:
        topology.node(dst)
    _floors(min_fidelity, min_rate_hz)
    if src == dst:
        return []
    offers: dict[str, list[tuple[str, str, tuple[Supply, ...]]]] = {}
    for link in topology.links("entanglement"):
        if any(name in avoid for name in (link.id, *link.nodes, link.via)) or _unfit(topology, link) is not None:
            continue
        rate, fidelity = topology.figure(link, "rate_hz"), topology.figure(link, "fidelity")
        assert rate is not None and fidelity is not None
        offered = supplies(rate.value, fidelity.value)
        for here, there in (link.nodes, link.nodes[::-1]):
            offers.setdefault(here, []).append((there, link.id, offered))

    queue: list[tuple[float, float, float, int, tuple[str, ...], tuple[int, ...], Chain]] = []
    settled: dict[str, list[Chain]] = {}

    def dominated(chain: Chain, at: str) -> bool:
        # what is settled came off the queue earlier, so its w is no less
        return any(other.q >= chain.q and other.raw_hz >= chain.raw_hz for other in settled.get(at, ()))

    def push(chain: Chain) -> None:
        # every extension is no better in any figure, so chains come off the queue in an order in which none dominates an earlier one
        if _meets(chain.fidelity, min_fidelity) and _meets(chain.rate_hz, min_rate_hz) and not dominated(chain, chain.nodes[-1]):
            heapq.heappush(queue, (-chain.w, -chain.q, -chain.raw_hz, len(chain.links), chain.links, chain.rounds, chain))

    push(Chain((src,), (), (), 1.0, 1.0, float("inf")))
    while queue:
        chain = heapq.heappop(queue)[-1]
        here = chain.nodes[-1]
        if dominated(chain, here) or (dst is not None and dominated(chain, dst)):
            continue
        settled.setdefault(here, []).append(chain)
        w, q = chain.w, chain.q
        if here != src:
            if here == dst or topology.node(here).kind != "repeater":
                continue
            swap = swap_of(topology, here)
            w, q = w * werner_parameter(swap.fidelity), q * swap.success
        for there, link_id, offered in offers.get(here, ()):
            if there not in chain.nodes:
                for supply in offered:
                    push(
                        Chain(
                            (*chain.nodes, there),
                            (*chain.links, link_id),
                            (*chain.supplies, supply),
                            w * supply.w,
                            q,
                            min(chain.raw_hz, supply.rate_hz),
                        )
                    )
    if dst is not None:
        return settled.get(dst, [])
    return [chain for name, chains in settled.items() if name != src for chain in chains]


def via_usable(topology: Topology, link: Link) -> bool:
    """Whether the source or Bell station in the middle of a link, if there is one, is enabled."""
    return link.via is None or topology.node(link.via).admin == "enabled"


def _on_demand(topology: Topology, src: str, dst: str, floor: float, rate: float, finest: bool) -> _Ranked:
    """The best chain found for the on-demand model; NoRoute when none found meets the floors."""
    offered = offers(topology, MAX_ROUNDS)
    ends = offered.arrays.number[src], offered.arrays.number[dst]
    demand = Demand(topology, offered, *ends)
    found = demand.best(Goal(floor, rate, finest))
    if not found:
        raise _nowhere(topology, src, dst)
    best = found[0]
    delivered, (_, fidelity) = best.delivery, best.figures
    if delivered.rate_hz == 0:
        raise NoRoute(f"no chain from {src} to {dst} can be told a rate on demand: its swaps succeed too rarely", "min_rate_hz", 0.0)
    if not _meets(fidelity, floor):
        _, finer = demand.best(Goal(0, 0, True))[0].figures
        raise NoRoute(
            f"no chain found from {src} to {dst} reaches fidelity {floor:g} on demand; the best is {finer:.9g}", "min_fidelity", finer
        )
    if not _meets(delivered.rate_hz, rate):
        at = f" at fidelity {floor:g} or more" if floor else ""
        raise NoRoute(
            f"no chain found from {src} to {dst} delivers {rate:g} pairs per second{at} on demand; the best is {delivered.rate_hz:.6g}",
            "min_rate_hz",
            delivered.rate_hz,
        )
    kept = tuple(
        Supply(times, link.rate_hz, werner_parameter(min(1.0, link.state.fidelity)))
        for times, link in zip(best.rounds, best.links, strict=True)
    )
    chain = _chain(topology, offered, best.edges, kept, src)
    slowest = min(range(len(kept)), key=lambda at: kept[at].rate_hz)
    notes = (
        f"on-demand: {delivered.method}; error: {delivered.error}",
        *best.notes,
        f"binding for the rate: {chain.links[slowest]} waits {1 / kept[slowest].rate_hz:.6g} s for a pair on average; "
        f"all swaps succeed at once with probability {chain.q:.6g}",
        *_waiting_in(topology, chain),
        f"without waiting in memories the fidelity were {fidelity_of(chain.w):.6g} (states taken as Werner)",
        _dimmest(topology, chain, waiting=werner_parameter(fidelity) / chain.w if chain.w > 0 else 1.0),
        f"the best of {len(found)} chains evaluated; paths come from the buffered model's arrays, so a better chain may be missed",
    )
    return _Ranked(chain, delivered.rate_hz, fidelity, notes)


def explain(topology: Topology, chain: Chain) -> list[str]:
    """The figures at every hop of a chain, with where they come from."""
    lines = []
    for index, (link_id, supply) in enumerate(zip(chain.links, chain.supplies, strict=True)):
        link = topology.link(link_id)
        rate, fidelity = topology.figure(link, "rate_hz"), topology.figure(link, "fidelity")
        assert rate is not None and fidelity is not None
        purified = f"{_rounds(supply.rounds)} of purification leave {supply.rate_hz:.6g} Hz at fidelity {fidelity_of(supply.w):.6g}"
        here, there = chain.nodes[index], chain.nodes[index + 1]
        after = f"; {purified}" if supply.rounds else ""
        lines.append(f"{here} -> {there}: {told(rate, 'Hz')}, fidelity {told(fidelity, '')}{after}, over {link_id}")
        if index + 1 < len(chain.links):
            swap, said = swap_of(topology, there), swap_origin(topology, there)
            lines.append(f"{there}: swap succeeds with probability {swap.success:g}, fidelity {swap.fidelity:g} ({said})")
    return lines


def _dimmest(topology: Topology, chain: Chain, waiting: float = 1.0) -> str:
    """What takes most of the fidelity: a link, a swap, or waiting, which leaves so much of the Werner parameter."""
    parts = [(supply.w, f"{link} with {fidelity_of(supply.w):.6g}") for link, supply in zip(chain.links, chain.supplies, strict=True)]
    swaps = [(name, swap_of(topology, name).fidelity) for name in chain.nodes[1:-1]]
    parts += [(werner_parameter(fidelity), f"the swap at {name} with {fidelity:g}") for name, fidelity in swaps]
    parts.append((waiting, f"waiting in memories, which leaves {waiting:.4g} of the Werner parameter"))
    return f"binding for the fidelity: {min(parts)[1]}"


def _waiting_in(topology: Topology, chain: Chain) -> list[str]:
    """The memories in which pairs wait, by their times."""
    alike: dict[str, list[str]] = {}
    for name in chain.nodes:
        node = topology.node(name)
        given = [f"{field} {value:g} s ({node.origin(field)})" for field, value in (("t1_s", node.t1_s), ("t2_s", node.t2_s)) if value is not None]
        if node.t1_s is not None and node.t2_s is None:
            given.append("t2_s taken as twice that")
        alike.setdefault(", ".join(given) or "no decay (assumed, none is given)", []).append(name)
    return [f"memories of {', '.join(names)}: {times}" for times, names in alike.items()]


def swap_origin(topology: Topology, name: str) -> str:
    """Where the figures of a repeater's swap come from, for an explanation."""
    node = topology.node(name)
    return node.origin("swap") if node.swap else "assumed, none is given"


def _memories(topology: Topology, chain: Chain) -> tuple[str, ...]:
    """That numbers of memories do not enter, where they are given: without the chance of an attempt they bound no rate."""
    given = [(count, name) for name in chain.nodes if (count := topology.node(name).memories) is not None]
    if not given:
        return ()
    count, name = min(given)
    return (
        f"numbers of memories (the least is {count}, at {name}) do not enter: a link's rate is taken as what its ends' memories sustain",
    )


def _rounds(count: int) -> str:
    return f"{count} round{'' if count == 1 else 's'}"
