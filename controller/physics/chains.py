"""Repeater chains on demand: how often a chain of links delivers a pair, and in which state.

One request at a time. All links start at once; each makes its pair after a geometric number of attempts. Stations swap as soon as they have
a pair on both sides. Pairs decay in the memories that hold their ends, also at the two ends of the chain, until the pair is delivered: when
the news of the last swap has reached both ends. A failed swap loses all links joined to it, and they start anew when the news has reached
all of them. With the delivery the next request starts.

Left out: pairs that a station measures against a pair of whose loss it has not heard; several pairs in flight at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from controller.physics.bell_diagonal import BellDiagonal, correlations, from_correlations, werner_parameter
from controller.physics.domain import within
from controller.physics.memory import PERFECT_MEMORY, Memory

EXACT_LINKS = 8
"""Chains of more links are evaluated with their fastest neighbours merged."""

EXACT = "exact"
APPROXIMATE = (
    "within 2 % of simulation in rate and in fidelity where links succeed per attempt with at most 0.1, attempts differ by at most a factor of "
    "10, a delay is at most its link's attempt, swaps succeed with at least 0.4, and attempts and the delay end to end are at most T2/10"
)
MERGED_ERROR = "an estimate: of 22 simulated chains of 9 to 13 links it was up to 37 % off in rate and 24 % in fidelity"

_SLOTS_PER_WAIT = 100
_SLOTS_PER_CUTOFF = 50


@dataclass(frozen=True, slots=True)
class Link:
    """What a link does while it tries: heralded pairs per second (> 0), their state, and the seconds an attempt takes.

    `attempt_s` 0 means attempts so short that waiting is exponential; rate_hz * attempt_s, the success probability, is at most 1.
    """

    rate_hz: float
    state: BellDiagonal
    attempt_s: float = 0.0

    def __post_init__(self) -> None:
        within("rate_hz", self.rate_hz, 0, open_low=True)
        within("attempt_s", self.attempt_s, 0)
        within("rate_hz * attempt_s", self.rate_hz * self.attempt_s, 0, 1 + 1e-12)


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the chain: its memory; of a station also the swap's success probability (0, 1] and fidelity [1/4, 1] (see `swap`)."""

    memory: Memory = PERFECT_MEMORY
    swap_success: float = 1.0
    swap_fidelity: float = 1.0

    def __post_init__(self) -> None:
        within("swap_success", self.swap_success, 0, 1, open_low=True)
        within("swap_fidelity", self.swap_fidelity, 0.25, 1)


@dataclass(frozen=True, slots=True)
class Delivery:
    rate_hz: float
    """Delivered pairs per second."""
    state: BellDiagonal
    """Mean over the deliveries."""
    method: str
    error: str
    """How far off rate and fidelity may be, and how that is known."""


def deliver(links: Sequence[Link], nodes: Sequence[Node], delays_s: Sequence[float] = (), cutoff_s: float = math.inf) -> Delivery:
    """What a chain of links between nodes (one more than links; the first and last are its ends) delivers on demand.

    delays_s: classical one-way delay along each link in seconds (>= 0; none means 0 everywhere). cutoff_s: who has waited so long (> 0) for
    the other side of a swap is discarded and begins anew, together with the other side.

    Raises ValueError, naming what is wrong, for lengths that do not fit, for a figure outside its domain, and for a cut-off that lets
    nothing through.
    """
    _fit(links, nodes, delays_s, cutoff_s)
    chain = _Chain(tuple(links), tuple(nodes), tuple(delays_s) or (0.0,) * len(links))
    return _with_cutoff(chain, cutoff_s) if cutoff_s != math.inf and len(links) > 1 else _without_cutoff(chain)


def _fit(links: Sequence[Link], nodes: Sequence[Node], delays_s: Sequence[float], cutoff_s: float) -> None:
    if not links:
        raise ValueError("links must not be empty")
    if len(nodes) != len(links) + 1:
        raise ValueError(f"nodes must be one more than links: {len(links) + 1}, got {len(nodes)}")
    if delays_s and len(delays_s) != len(links):
        raise ValueError(f"delays_s must be one per link: {len(links)}, got {len(delays_s)}")
    for delay_s in delays_s:
        within("delays_s", delay_s, 0)
    if cutoff_s != math.inf:
        within("cutoff_s", cutoff_s, 0, open_low=True)


@dataclass(frozen=True, slots=True)
class _Chain:
    links: tuple[Link, ...]
    nodes: tuple[Node, ...]
    delays_s: tuple[float, ...]
    merged: int = field(default=0)

    @property
    def stations(self) -> tuple[Node, ...]:
        return self.nodes[1:-1]

    @property
    def decays_hz(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Decay rates of (XX and YY, ZZ) in the nodes' memories."""
        return tuple(1 / node.memory.t2_s for node in self.nodes), tuple(1 / node.memory.t1_s for node in self.nodes)

    @property
    def slot_s(self) -> float:
        """The links' common slot; where attempts differ, their mean weighted by how long each link takes.

        A link's mean wait stays as it is; only the spread of the wait changes, by at most an attempt.
        """
        waits = [1 / link.rate_hz for link in self.links]
        attempts = [link.attempt_s for link in self.links]
        if min(attempts) == max(attempts):
            return attempts[0]
        mean = math.fsum(wait * attempt for wait, attempt in zip(waits, attempts, strict=True)) / math.fsum(waits)
        return min(mean, *waits)

    def state(self, kept_xy: float, kept_z: float) -> BellDiagonal:
        """What is delivered when of the correlations memories leave so much."""
        x = y = math.prod(werner_parameter(node.swap_fidelity) for node in self.stations)
        z = x
        for link in self.links:
            link_x, link_y, link_z = correlations(link.state)
            x, y, z = x * link_x, y * link_y, z * link_z
        return from_correlations(x * kept_xy, y * kept_xy, z * kept_z)


def _arrivals(chain: _Chain, slot_s: float) -> tuple[float, ...]:
    return tuple(min(1.0, link.rate_hz * slot_s) if slot_s else link.rate_hz for link in chain.links)


def _without_cutoff(chain: _Chain) -> Delivery:
    from controller.physics import swap_asap

    count = len(chain.links)
    while len(chain.links) > EXACT_LINKS:
        chain = _merged(chain)
    slot_s = chain.slot_s
    success = tuple(node.swap_success for node in chain.stations)
    rates = swap_asap.Rates(_arrivals(chain, slot_s), success, chain.delays_s, slot_s)
    mean_s, kept = swap_asap.mean_delivery(rates, chain.decays_hz)
    state = chain.state(*kept)
    if chain.merged:
        return Delivery(1 / mean_s, state, f"swap as soon as possible, {count} links merged into {EXACT_LINKS}", MERGED_ERROR)
    same = len({link.attempt_s for link in chain.links}) == 1
    if same and (count <= 2 or not any(chain.delays_s)):
        return Delivery(1 / mean_s, state, "swap as soon as possible, Markov chain", EXACT)
    return Delivery(1 / mean_s, state, "swap as soon as possible, Markov chain on a mean slot, news to first order", APPROXIMATE)


def _merged(chain: _Chain) -> _Chain:
    """The chain with the two neighbours that are ready soonest made one link."""
    from controller.physics import swap_asap

    def soon(k: int) -> float:
        return (1 / chain.links[k].rate_hz + 1 / chain.links[k + 1].rate_hz) / chain.stations[k].swap_success

    at = min(range(len(chain.stations)), key=soon)
    pair = _Chain(chain.links[at : at + 2], chain.nodes[at : at + 3], (0.0, 0.0))
    slot_s = pair.slot_s
    rates = swap_asap.Rates(_arrivals(pair, slot_s), (pair.stations[0].swap_success,), pair.delays_s, slot_s)
    mean_s, kept = swap_asap.mean_delivery(rates, pair.decays_hz)
    link = Link(1 / mean_s, pair.state(*kept), slot_s)
    return _Chain(
        (*chain.links[:at], link, *chain.links[at + 2 :]),
        (*chain.nodes[: at + 1], *chain.nodes[at + 2 :]),
        (*chain.delays_s[:at], chain.delays_s[at] + chain.delays_s[at + 1], *chain.delays_s[at + 2 :]),
        chain.merged + 1,
    )


def _with_cutoff(chain: _Chain, cutoff_s: float) -> Delivery:
    same = len({link.attempt_s for link in chain.links}) == 1
    if len(chain.links) == 2:
        from controller.physics import two_links

        slot_s = chain.slot_s
        one, other = _arrivals(chain, slot_s)
        mean_s, kept = two_links.mean_delivery(
            (one, other), slot_s, cutoff_s, chain.stations[0].swap_success, max(chain.delays_s), chain.decays_hz
        )
        return Delivery(1 / mean_s, chain.state(*kept), "two links with a cut-off, closed form", EXACT if same else APPROXIMATE)
    from controller.physics import swap_trees

    longest_s = max(1 / link.rate_hz for link in chain.links)
    fine_s = min(longest_s / _SLOTS_PER_WAIT, cutoff_s / _SLOTS_PER_CUTOFF)
    exact = same and chain.links[0].attempt_s * 4 > fine_s
    slot_s = chain.links[0].attempt_s if exact else fine_s
    nested = swap_trees.Nested(
        _arrivals(chain, slot_s),
        tuple(node.swap_success for node in chain.stations),
        tuple(tuple(decay * slot_s for decay in row) for row in chain.decays_hz),
        math.floor(cutoff_s / slot_s + 1e-9),
    )
    slots, kept, beyond = swap_trees.mean_delivery(nested, swap_trees.balanced(0, len(chain.links) - 1))
    error = EXACT if exact else f"time in steps of {slot_s:.3g} s"
    left_out = "; left out: news of swaps" if any(chain.delays_s) else ""
    missed = f"; {beyond:.1e} of the tries last beyond the horizon" if beyond > 1e-9 else ""
    return Delivery(
        1 / (slots * slot_s), chain.state(*kept), "halving tree of swaps with a cut-off, distributions", error + left_out + missed
    )
