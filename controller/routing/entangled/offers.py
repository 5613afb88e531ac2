"""What entanglement links and repeaters offer, as arrays that follow the topology: pair rates and w by rounds, -ln of swaps' w and q.

Everything along a path then adds up (-ln w, -ln q) or is a minimum (the rate), which is what shortest-path routines need.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from controller.network.model import Swap
from controller.network.topology import Topology
from controller.routing.compiled import Compiled, Floats, Ints, compiled

ROUNDING = 1e-12
"""Relative error that floats may add along a path; a floor missed by less is met."""

LEAST_PAIRS_HZ = 1e-90
"""A link that makes fewer pairs makes none: what is left of them after purification is still in the domain of `chains`."""

LEAST_HZ = 5e-324
"""Any positive rate is at least this."""

_HOP = 1e-15
"""Added to the -ln w of each link: of paths with equal figures the one of fewest links is the shortest, and no link is for nothing."""

_LEAST = 1e-300
"""Stands for w = 0 in a logarithm."""


class Offers:
    """The offers of one topology, by edge and rounds of purification (m, K + 1): rates in Hz (0: not on offer), w and costs -ln w.

    `raw` are the rates without purification (m, 1). A round is on offer as long as it raises the fidelity. Per node (n): `swap_w` = -ln of the swap's w, `swap_q` = -ln of its success,
    both infinite where nothing is swapped.
    """

    def __init__(self, topology: Topology, arrays: Compiled, rounds: int) -> None:
        self.arrays, self.rounds, self.revision = arrays, rounds, 0
        self.edges = arrays.edges(topology, "entanglement")
        self.rate = np.zeros((len(self.edges.ids), rounds + 1))
        self.raw = np.zeros((len(self.edges.ids), 1))
        self.w = np.zeros_like(self.rate)
        self.cost = np.zeros_like(self.rate)
        self._given = np.zeros((2, len(self.edges.ids)))
        links = enumerate(topology.links("entanglement"))
        self._via = [(at, link.via) for at, link in links if link.via is not None]
        nodes = [node for _, node in topology.nodes()]
        swaps = [node.swap or Swap() for node in nodes]
        repeater = np.array([node.kind == "repeater" for node in nodes], dtype=np.bool_)
        swap_w = -np.log(np.maximum(_LEAST, (4 * np.array([swap.fidelity for swap in swaps]) - 1) / 3))
        self.swap_w = np.where(repeater, swap_w, np.inf)
        self.swap_q = np.where(repeater, -np.log(np.array([swap.success for swap in swaps])), np.inf)
        self.lossy = bool((self.swap_q[repeater] > 0).any())

    def catch_up(self, topology: Topology) -> None:
        """Compute anew what changed of rate, fidelity or usability."""
        if self.revision == topology.revision:
            return
        rate = self.arrays.figure(topology, "entanglement", "rate_hz")
        fidelity = self.arrays.figure(topology, "entanglement", "fidelity")
        usable = self.edges.usable.copy()
        for at, via in self._via:
            usable[at] &= topology.node(via).admin == "enabled"
        # NaN compares false: what nobody knows is not on offer
        usable &= (rate >= LEAST_PAIRS_HZ) & (fidelity >= 0.25) & (fidelity <= 1)
        given = np.where(usable, (rate, fidelity), 0.0)
        changed = np.flatnonzero((given != self._given).any(axis=0))
        rates, w = _by_rounds(given[0, changed], given[1, changed], self.rounds)
        self.rate[changed], self.w[changed] = rates.T, w.T
        self.raw[changed] = rates.T[:, :1]
        self.cost[changed] = _HOP - np.log(np.clip(self.w[changed], _LEAST, 1))
        self._given, self.revision = given, topology.revision

    def waiting(self, weight_hz: float) -> tuple[Floats, Ints]:
        """The least of -ln w + weight/rate over the rounds, of every link (m), and the rounds; infinite where nothing is on offer."""
        return _waiting(self.rate, self.cost, weight_hz)


@njit(cache=True)
def _waiting(rate: Floats, cost: Floats, weight_hz: float) -> tuple[Floats, Ints]:
    least = np.full(rate.shape[0], np.inf)
    chosen = np.zeros(rate.shape[0], np.int32)
    for edge in range(rate.shape[0]):
        for times in range(rate.shape[1]):
            if rate[edge, times] <= 0:
                break
            weight = cost[edge, times] + weight_hz / rate[edge, times]
            if weight < least[edge]:
                least[edge], chosen[edge] = weight, times
    return least, chosen


@njit(cache=True)
def thresholds(indptr: Ints, head: Ints, edge: Ints, rate: Floats, within: Floats, low: float, high: float) -> Floats:
    """The rates above `low` up to `high` that edges between nodes of finite `within` can have."""
    found = np.empty(0)
    for filling in (False, True):
        count = 0
        for node in range(indptr.size - 1):
            if within[node] < np.inf:
                for entry in range(indptr[node], indptr[node + 1]):
                    if node < head[entry] and within[head[entry]] < np.inf:
                        for times in range(rate.shape[1]):
                            value = rate[edge[entry], times]
                            if value <= low:
                                break
                            if value <= high:
                                if filling:
                                    found[count] = value
                                count += 1
        if not filling:
            found = np.empty(count)
    return found


def _by_rounds(rate: Floats, fidelity: Floats, rounds: int) -> tuple[Floats, Floats]:
    """`recurrence` of many links at once: rates and w by rounds; a round that does not raise w has rate 0."""
    rates, ws = np.zeros((rounds + 1, len(rate))), np.zeros((rounds + 1, len(rate)))
    for times in range(rounds + 1):
        ws[times] = (4 * fidelity - 1) / 3
        rate = np.where(ws[times] > ws[max(0, times - 1)] * (1 + ROUNDING), rate, 0.0) if times else rate
        rates[times] = rate
        rest = (1 - fidelity) / 3
        good = fidelity * fidelity + rest * rest
        success = good + 2 * fidelity * rest + 4 * rest * rest
        rate, fidelity = rate * (success / 2), np.minimum(1.0, good / success)
    return rates, ws


def offers(topology: Topology, rounds: int) -> Offers:
    """The offers of this topology with up to `rounds` rounds of purification, up to date; kept with it."""
    arrays = compiled(topology)
    kept: Offers | None = topology.derived.get(Offers)
    if kept is None or kept.arrays is not arrays or kept.rounds != rounds:
        kept = topology.derived[Offers] = Offers(topology, arrays, rounds)
    kept.catch_up(topology)
    return kept
