"""Repeater chains on demand: how often a chain of links delivers a pair, and in which state.

One request at a time. All links start at once; each makes its pair after a geometric number of attempts. Stations swap as soon as they have
a pair on both sides. Pairs decay in the memories that hold their ends, also at the two ends of the chain, until the pair is delivered: when
the news of the last swap has reached both ends. A failed swap loses all links joined to it, and they start anew when the news has reached
all of them. With the delivery the next request starts.

With a cut-off stations swap in the order of a tree that halves the chain. Who has waited so long for the other side of a swap is discarded and
begins anew, together with the other side, when the news of that has reached both; between two single links it needs no news. What that means
with delays, `controller.physics.tree_simulation` says in full.

Left out: pairs that a station measures against a pair of whose loss it has not heard; several pairs in flight at once.

Evaluated exactly where a Markov chain, a closed form or distributions over slots can do it, by the Markov chain with two approximations where
they are known to be good, and by playing it out (`controller.physics.simulation`, `controller.physics.tree_simulation`) everywhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from controller.physics.bell_diagonal import BellDiagonal, correlations, from_correlations, werner_parameter
from controller.physics.domain import LEAST, MOST, within
from controller.physics.memory import PERFECT_MEMORY, Memory

if TYPE_CHECKING:
    from controller.physics.simulation import Estimate, Played

EXACT_LINKS = 8
"""Chains of more links are simulated."""

EXACT = "exact"
APPROXIMATE = "within 2 %: of 800 simulated chains of its domain the worst is 1.4 % off in rate, 0.5 % in fidelity"
STANDARD_ERROR = 0.004
"""Relative, of rate and fidelity, at which a simulation is ended: five of them are 2 %."""

_WORST = 0.02
"""The standard error above which a simulation's figures are not told, where none so large was asked for."""

_APPROXIMATED_LINKS = 6
"""Beyond, the Markov chain takes longer than the simulation."""
_RAREST = 1e-10
"""Least probability that all swaps succeed: the digits left of a Markov chain's waiting time are as many fewer than 16."""
_MOST_SLOTS_PER_WAIT, _MOST_SLOTS_PER_CUTOFF = 400, 200
"""Of chains with more of both, distributions over slots take longer than the simulation."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a link does while it tries: heralded pairs per second, their state, and the seconds an attempt takes; both 1e-100 to 1e100.

    `attempt_s` may also be 0: attempts so short that waiting is exponential; rate_hz * attempt_s, the success probability, is at most 1.
    """

    rate_hz: float
    state: BellDiagonal
    attempt_s: float = 0.0

    def __post_init__(self) -> None:
        within("rate_hz", self.rate_hz, LEAST, MOST)
        if self.attempt_s != 0:
            within("attempt_s", self.attempt_s, LEAST, MOST)
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


class TooRare(ValueError):
    """A chain that delivers so seldom that it cannot be evaluated."""


def deliver(
    links: Sequence[Link],
    nodes: Sequence[Node],
    delays_s: Sequence[float] = (),
    cutoff_s: float = math.inf,
    *,
    standard_error: float = STANDARD_ERROR,
) -> Delivery:
    """What a chain of links between nodes (one more than links; the first and last are its ends) delivers on demand.

    delays_s: classical one-way delay along each link in seconds (>= 0; none means 0 everywhere). cutoff_s: who has waited so long (> 0) for
    the other side of a swap is discarded; links of one attempt time count it in whole attempts, rounded down, unless there are three or more
    of them with delays. standard_error: where a simulation may end, in [1e-4, 0.1], relative; to rank chains 0.02 does,
    and costs a tenth.

    Raises ValueError, naming what is wrong, for lengths that do not fit, for a figure outside its domain, and for a cut-off that lets
    nothing through; TooRare, which is one, for swaps that succeed, or sides that meet within the cut-off, too rarely for figures within 2 %.
    """
    _fit(links, nodes, delays_s, cutoff_s)
    within("standard_error", standard_error, 1e-4, 0.1)
    chain = _Chain(tuple(links), tuple(nodes), tuple(delays_s) or (0.0,) * len(links))
    return (
        _with_cutoff(chain, cutoff_s, standard_error) if cutoff_s != math.inf and len(links) > 1 else _without_cutoff(chain, standard_error)
    )


def _fit(links: Sequence[Link], nodes: Sequence[Node], delays_s: Sequence[float], cutoff_s: float) -> None:
    if not links:
        raise ValueError("links must not be empty")
    if len(nodes) != len(links) + 1:
        raise ValueError(f"nodes must be one more than links: {len(links) + 1}, got {len(nodes)}")
    if delays_s and len(delays_s) != len(links):
        raise ValueError(f"delays_s must be one per link: {len(links)}, got {len(delays_s)}")
    for delay_s in delays_s:
        within("delays_s", delay_s, 0, MOST)
    if cutoff_s != math.inf:
        within("cutoff_s", cutoff_s, LEAST, MOST)


@dataclass(frozen=True, slots=True)
class _Chain:
    links: tuple[Link, ...]
    nodes: tuple[Node, ...]
    delays_s: tuple[float, ...]

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


def _without_cutoff(chain: _Chain, standard_error: float) -> Delivery:
    count = len(chain.links)
    same = len({link.attempt_s for link in chain.links}) == 1
    exact = count == 1 or (same and (count == 2 or (count <= EXACT_LINKS and not any(chain.delays_s))))
    if not exact and not _approximable(chain):
        return _simulated(chain, standard_error)
    from controller.physics import swap_asap

    success = _frequent(chain)
    slot_s = chain.slot_s
    rates = swap_asap.Rates(_arrivals(chain, slot_s), success, chain.delays_s, slot_s)
    mean_s, kept = swap_asap.mean_delivery(rates, chain.decays_hz)
    if exact:
        return Delivery(1 / mean_s, chain.state(*kept), "swap as soon as possible, Markov chain", EXACT)
    method = "swap as soon as possible, Markov chain on a mean slot, news to first order"
    return Delivery(1 / mean_s, chain.state(*kept), method, APPROXIMATE)


def _approximable(chain: _Chain) -> bool:
    """Whether a mean slot, and news of losses to first order in its delay, are known to be good enough.

    Attempts succeed with at most 0.1; what attempts differ by, and the delay end to end, are together at most a tenth of the shortest mean
    wait; swaps succeed with at least 0.5; attempts and the delay are at most T2/10.
    """
    attempts = [link.attempt_s for link in chain.links]
    delay_s = math.fsum(chain.delays_s)
    fastest_hz = max(link.rate_hz for link in chain.links)
    return (
        len(chain.links) <= _APPROXIMATED_LINKS
        and all(link.rate_hz * link.attempt_s <= 0.1 for link in chain.links)
        and fastest_hz * (max(attempts) - min(attempts) + delay_s) <= 0.1
        and all(node.swap_success >= 0.5 for node in chain.stations)
        and 10 * max(*attempts, delay_s) <= min(node.memory.t2_s for node in chain.nodes)
    )


def _simulated(chain: _Chain, standard_error: float) -> Delivery:
    from controller.physics import simulation

    found = simulation.mean_delivery(_played(chain), standard_error)
    return _estimated(chain, "swap as soon as possible", found, standard_error, "swap_success")


def _played(chain: _Chain) -> Played:
    from controller.physics.simulation import Played

    x, y, z = correlations(chain.state(1, 1))
    return Played(
        np.array([1 / link.rate_hz for link in chain.links]),
        np.array([link.attempt_s for link in chain.links]),
        np.array([node.swap_success for node in chain.stations]),
        np.concatenate(([0.0], np.cumsum(chain.delays_s))),
        np.array(chain.decays_hz),
        np.array([x + y, z]),
    )


def _estimated(chain: _Chain, protocol: str, found: Estimate | None, standard_error: float, to_raise: str) -> Delivery:
    """What a simulation came to; TooRare where it came to nothing, or to nothing that is worth telling."""
    if found is None or max(found.time_error, found.fidelity_error) > max(_WORST, standard_error):
        raise TooRare(f"{to_raise} must be higher to be evaluated: {len(chain.links)} links deliver too rarely to be simulated to {_WORST:.0%}")
    error = f"standard error {found.time_error:.2%} in rate, {found.fidelity_error:.2%} in fidelity"
    if max(found.time_error, found.fidelity_error) > standard_error:
        error += f" (with all the effort it may take, {standard_error:.2%} was aimed at)"
    method = f"{protocol}, simulated, {found.deliveries} deliveries"
    return Delivery(1 / found.mean_s, chain.state(found.kept_xy, found.kept_z), method, error)


def _with_cutoff(chain: _Chain, cutoff_s: float, standard_error: float) -> Delivery:
    attempts_s = [link.attempt_s for link in chain.links]
    same = min(attempts_s) == max(attempts_s)
    if len(chain.links) == 2:
        return _two_with_cutoff(chain, cutoff_s, same)
    if same and attempts_s[0] and not any(chain.delays_s):
        cutoff_slots = math.floor(cutoff_s / attempts_s[0] + 1e-9)
        exact = _slotted_with_cutoff(chain, cutoff_slots)
        if exact is not None:
            return exact
        cutoff_s = cutoff_slots * attempts_s[0]
    from controller.physics import tree_simulation

    found = tree_simulation.mean_delivery(_played(chain), cutoff_s, standard_error)
    return _estimated(chain, "halving tree of swaps with a cut-off", found, standard_error, "cutoff_s and swap_success")


def _two_with_cutoff(chain: _Chain, cutoff_s: float, same: bool) -> Delivery:
    from controller.physics import two_links

    (success,) = _frequent(chain)
    one, other = chain.links
    rest = cutoff_s, success, max(chain.delays_s), chain.decays_hz
    if same:
        first, second = _arrivals(chain, one.attempt_s)
        mean_s, kept = two_links.mean_delivery((first, second), one.attempt_s, *rest)
    else:
        mean_s, kept = two_links.mean_delivery_of_unlike((one.rate_hz, other.rate_hz), (one.attempt_s, other.attempt_s), *rest)
    return Delivery(1 / mean_s, chain.state(*kept), "two links with a cut-off, closed form", EXACT)


def _slotted_with_cutoff(chain: _Chain, cutoff_slots: int) -> Delivery | None:
    """None where there are too many slots, or too few deliveries among them, for the distributions to be exact."""
    from controller.physics import swap_trees

    slot_s = chain.links[0].attempt_s
    arrivals = _arrivals(chain, slot_s)
    if 1 / min(arrivals) > _MOST_SLOTS_PER_WAIT and cutoff_slots > _MOST_SLOTS_PER_CUTOFF:
        return None
    decays = tuple(tuple(decay * slot_s for decay in row) for row in chain.decays_hz)
    nested = swap_trees.Nested(arrivals, _frequent(chain), decays, cutoff_slots)
    found = swap_trees.mean_delivery(nested, swap_trees.balanced(0, len(chain.links) - 1))
    if found is None:
        return None
    slots, kept = found
    return Delivery(1 / (slots * slot_s), chain.state(*kept), "halving tree of swaps with a cut-off, distributions", EXACT)


def _frequent(chain: _Chain) -> tuple[float, ...]:
    """How often swaps succeed, often enough for what is exact."""
    success = tuple(node.swap_success for node in chain.stations)
    if math.prod(success) < _RAREST:
        raise TooRare(f"swap_success must multiply to at least {_RAREST:g} over the stations to be evaluated, got {math.prod(success):.3g}")
    return success
