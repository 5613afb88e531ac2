"""Swap-as-soon-as-possible repeater chains played out: mean delivery time and mean delivered state, with their standard errors.

The protocol is that of `controller.physics.chains`, event by event and without approximation, so that the error is that of sampling alone.
The random numbers are a hash of delivery, link (or station) and how often it has drawn: the same in every run, and the same for two chains
that differ in a link or two, whose difference is then known better than either.

What makes most of the spread of the time is how often long segments are lost. For every length of a segment, the number of those that
survived their measurement minus its expectation is a martingale and so of mean 0, and the time is regressed on them (control variates:
Glasserman, Monte Carlo Methods in Financial Engineering, 2003, section 4.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]

_FIRST_DELIVERIES = 1_000
"""Before a standard error is believed."""
_LEAST_DELIVERIES = 100
"""With fewer, even the standard error is not known."""
_EVENTS_OF_ONE, _LEAST_EVENTS = 320, 4_000_000
"""Pairs that are made at most: so many for each of the 1/error^2 deliveries that an exponential time would take, but not too few."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_ONE, _MIX_TWO = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Played:
    """What n links and the n - 1 stations between them do.

    means_s: the links' mean waits. attempts_s: their attempts, 0 for exponential waiting. success: of the stations' swaps. place_s: of every
    node, how long a message takes from the first. decays_hz: (2, n + 1), of the nodes' memories, of XX and YY and of ZZ. weights: how much
    what is left of the two counts in 4 F - 1.
    """

    means_s: Floats
    attempts_s: Floats
    success: Floats
    place_s: Floats
    decays_hz: Floats
    weights: Floats


@dataclass(frozen=True, slots=True)
class Estimate:
    """Means over simulated deliveries, and the relative standard errors of time and fidelity."""

    mean_s: float
    kept_xy: float
    kept_z: float
    deliveries: int
    time_error: float
    fidelity_error: float


def mean_delivery(chain: Played, standard_error: float) -> Estimate | None:
    """Deliveries until both relative standard errors are at most `standard_error`, or the effort is spent: about a second for 0.4 %.

    None when that is too little for a hundred deliveries.
    """
    links = len(chain.means_s)
    sums, products = np.zeros(links + 4), np.zeros((links, links))
    left = max(_LEAST_EVENTS, int(_EVENTS_OF_ONE / standard_error**2))
    budget = left // 10
    deliveries, wanted = 0, _FIRST_DELIVERIES
    while True:
        played, events = _play(
            chain.means_s,
            chain.attempts_s,
            chain.success,
            chain.place_s,
            chain.decays_hz,
            chain.weights,
            deliveries,
            wanted,
            budget,
            sums,
            products,
        )
        deliveries += played
        left -= events
        if deliveries < _LEAST_DELIVERIES and (left <= 0 or 30 * deliveries < _LEAST_DELIVERIES):
            return None
        estimate = _estimate(sums, products, deliveries)
        short = max(estimate.time_error, estimate.fidelity_error) / standard_error
        if left <= 0 or (deliveries >= _FIRST_DELIVERIES and short <= 1):
            return estimate
        budget = left
        wanted = max(_LEAST_DELIVERIES, _FIRST_DELIVERIES - deliveries, math.ceil(deliveries * min(3.0, 1.1 * short**2 - 1)))


def _estimate(sums: Floats, products: Floats, deliveries: int) -> Estimate:
    links = len(products)
    means = sums / deliveries
    spread = products / deliveries - np.outer(means[:links], means[:links])
    controls = spread[1:, 1:]
    slopes = np.linalg.pinv(controls, hermitian=True) @ spread[0, 1:]
    mean_s = float(means[0] - slopes @ means[1:links])
    left = max(0.0, float(spread[0, 0] - slopes @ spread[0, 1:])) / max(1, deliveries - links)
    kept_xy, kept_z, fidelity, square = (float(value) for value in means[links:])
    return Estimate(
        mean_s,
        kept_xy,
        kept_z,
        deliveries,
        math.sqrt(left) / mean_s,
        math.sqrt(max(0.0, square - fidelity**2) / deliveries) / fidelity,
    )


@njit(cache=True)
def _mixed(word: np.uint64) -> np.uint64:
    """The finaliser of splitmix64 (Steele, Lea & Flood, OOPSLA 2014): every bit of the word in every bit of the result."""
    word = (word ^ (word >> np.uint64(30))) * _MIX_ONE
    word = (word ^ (word >> np.uint64(27))) * _MIX_TWO
    return word ^ (word >> np.uint64(31))


@njit(cache=True)
def _uniform(streams: Words, at: int) -> float:
    """The next number in (0, 1] of a stream."""
    streams[at] += _GOLDEN
    return (np.float64(_mixed(streams[at]) >> np.uint64(11)) + 1.0) * 2.0**-53


@njit(cache=True)
def _wait(mean_s: float, attempt_s: float, log_miss: float, uniform: float) -> float:
    """Seconds to a link's pair: attempts, the one that succeeds included, or exponential where an attempt takes no time."""
    if attempt_s == 0.0:
        return -mean_s * math.log(uniform)
    return attempt_s * max(1.0, math.ceil(math.log(uniform) / log_miss))


@njit(cache=True)
def _play(
    means_s: Floats,
    attempts_s: Floats,
    success: Floats,
    place_s: Floats,
    decays_hz: Floats,
    weights: Floats,
    before: int,
    wanted: int,
    budget: int,
    sums: Floats,
    products: Floats,
) -> tuple[int, int]:
    """(deliveries, events) of at most `wanted` and about `budget`, after `before` deliveries of earlier calls.

    Adds to `products` those of time and the lengths' martingales, and to `sums` these, what is kept of XX and YY and of ZZ, fidelity, and
    fidelity^2.
    """
    links = len(means_s)
    log_miss = np.log1p(-np.minimum(attempts_s / means_s, 1 - 1e-16))
    streams = np.empty(2 * links - 1, np.uint64)
    ready, pending = np.empty(links), np.empty(links)
    measured_s = np.empty(links - 1)
    failed = np.empty(links - 1, np.bool_)
    seen = np.empty(links)  # of this delivery: its time, and by length survivals minus their expectation
    delivered, events = 0, 0
    while delivered < wanted and events < budget:
        start = _mixed(np.uint64(before + delivered + 1) * _GOLDEN)
        for k in range(2 * links - 1):
            streams[k] = _mixed(start + np.uint64(k + 1) * _MIX_ONE)
        for k in range(links):
            pending[k] = _wait(means_s[k], attempts_s[k], log_miss[k], _uniform(streams, k))
        measured_s[:] = -1.0
        seen[:] = 0.0
        empty = links
        while empty > 0 and events < budget:
            now = pending.min()
            together = now * (1 + 1e-12)
            for k in range(links):
                if pending[k] <= together:
                    ready[k] = pending[k]
                    pending[k] = math.inf
                    empty -= 1
                    events += 1
                    for s in (k - 1, k):
                        if 0 <= s < links - 1:
                            measured_s[s] = -1.0  # what was measured here is of pairs that are lost
            first = 0
            while first < links:
                if pending[first] < math.inf:
                    first += 1
                    continue
                last = first
                expected, survived, measures = 1.0, True, False
                while last + 1 < links and pending[last + 1] == math.inf:
                    failed[last] = False
                    if measured_s[last] < 0.0:
                        measures = True
                        measured_s[last] = now
                        if success[last] < 1.0:
                            expected *= success[last]
                            failed[last] = _uniform(streams, links + last) > success[last]
                            survived = survived and not failed[last]
                    last += 1
                if measures:
                    seen[last - first] += survived - expected
                if not survived:
                    news = math.inf  # all of the run has heard of a failure
                    for s in range(first, last):
                        if failed[s]:
                            news = min(news, max(place_s[s + 1] - place_s[first], place_s[last + 1] - place_s[s + 1]))
                    for k in range(first, last + 1):
                        pending[k] = now + news + _wait(means_s[k], attempts_s[k], log_miss[k], _uniform(streams, k))
                    empty += last + 1 - first
                first = last + 1
        if empty > 0:
            break
        done = ready.max()
        for s in range(links - 1):
            done = max(done, measured_s[s] + max(place_s[s + 1], place_s[links] - place_s[s + 1]))
        lost_xy = (done - ready[0]) * decays_hz[0, 0] + (done - ready[links - 1]) * decays_hz[0, links]
        lost_z = (done - ready[0]) * decays_hz[1, 0] + (done - ready[links - 1]) * decays_hz[1, links]
        for s in range(links - 1):
            waited = abs(ready[s + 1] - ready[s])
            lost_xy += waited * decays_hz[0, s + 1]
            lost_z += waited * decays_hz[1, s + 1]
        kept_xy, kept_z = math.exp(-lost_xy), math.exp(-lost_z)
        fidelity = (1 + weights[0] * kept_xy + weights[1] * kept_z) / 4
        seen[0] = done
        for k in range(links):
            sums[k] += seen[k]
            if seen[k] != 0.0:
                for other in range(links):
                    products[k, other] += seen[k] * seen[other]
        sums[links] += kept_xy
        sums[links + 1] += kept_z
        sums[links + 2] += fidelity
        sums[links + 3] += fidelity * fidelity
        delivered += 1
    return delivered, events
