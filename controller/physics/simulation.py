"""Swap-as-soon-as-possible repeater chains played out: mean delivery time and mean delivered state, with their standard errors.

The protocol is that of `controller.physics.chains`, event by event and without approximation, so that the error is that of sampling alone.
The random numbers are a hash of delivery, link (or station) and how often it has drawn: the same in every run, and the same for two chains
that differ in a link or two, whose difference is then known better than either.

What makes most of the spread of the time is how often joined segments are lost, and how long the slowest links take. Whether a segment
survives minus its chance of that, summed over all segments of about the same chance of having come so far, has mean 0; so has what a
link's waits exceed their mean by. The time is regressed on these sums (control variates: Glasserman, Monte Carlo Methods in Financial
Engineering, 2003, section 4.1). How much a survival is worth depends on what the other segments have come to by then, so each such
difference counts three times: as it is, times the size of the others, and times its square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
Ints = NDArray[np.integer]

_FIRST_DELIVERIES = 1_000
"""Before a standard error is believed."""
_LEAST_DELIVERIES = 100
"""With fewer, even the standard error is not known."""
_EVENTS_OF_ONE, _LEAST_EVENTS = 640, 20_000_000
"""Pairs that are made at most: so many for each of the 1/error^2 deliveries that an exponential time would take, but not too few."""
_SLOWEST, _BINS = 4, 16
"""Links whose waits are controls, and sums over segments that are."""
_OFTEN = 30
"""Segments that survived, and that were lost, before a sum over them is believed: one that is hardly ever lost tells of nothing but itself."""
_PER_SLOPE = 20
"""Deliveries for each control that is used: with fewer they would fit what is chance."""
_FIGURES = 4
"""Of a delivery, before the controls: time, what is kept of XX and YY and of ZZ, fidelity."""

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
    """Deliveries until both relative standard errors are at most `standard_error`, or the effort is spent: at 0.004 in three seconds.

    Then, in rate, 20 like links whose swaps succeed with 0.5 come to 0.7 %, 22 to 1.3 %, 24 to 2.3 %, and 45 with 0.7 to
    0.7 %; in fidelity to 0.25 % and less. None when the effort is too little for a hundred deliveries.
    """
    columns = _FIGURES + _SLOWEST + 3 * _BINS
    links = len(chain.means_s)
    slow = np.full(links, -1)
    slowest = np.argsort(-chain.means_s, kind="stable")[:_SLOWEST]
    slow[slowest] = _FIGURES + np.arange(len(slowest))
    grown = np.concatenate(([0.0], np.cumsum(-np.log(chain.success))))
    grown *= (_BINS - 1) / max(grown[-1], 1e-300)
    sums, products = np.zeros(columns), np.zeros((columns, columns))
    outcomes = np.zeros((2, _BINS), np.int64)
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
            slow,
            grown,
            deliveries,
            wanted,
            budget,
            sums,
            products,
            outcomes,
        )
        deliveries += played
        left -= events
        if deliveries < _LEAST_DELIVERIES and (left <= 0 or 30 * deliveries < _LEAST_DELIVERIES):
            return None
        often = np.flatnonzero(outcomes.min(axis=0) >= _OFTEN)
        believed = np.concatenate((np.arange(_SLOWEST), _SLOWEST + often, _SLOWEST + _BINS + often, _SLOWEST + 2 * _BINS + often))
        estimate = _estimate(sums, products, deliveries, _FIGURES + believed)
        short = max(estimate.time_error, estimate.fidelity_error) / standard_error
        if left <= 0 or (deliveries >= _FIRST_DELIVERIES and short <= 1):
            return estimate
        budget = left
        wanted = max(_LEAST_DELIVERIES, _FIRST_DELIVERIES - deliveries, math.ceil(deliveries * min(0.5, 1.05 * short**2 - 1)))


def _estimate(sums: Floats, products: Floats, deliveries: int, controls: Ints) -> Estimate:
    means = sums / deliveries
    spread = products / deliveries - np.outer(means, means)
    _, kept_xy, kept_z, fidelity = (float(value) for value in means[:_FIGURES])
    fidelity_error = math.sqrt(max(0.0, float(spread[3, 3])) / deliveries) / fidelity
    # what a control tells is taken from all the rest, one after the other, beginning with the one that tells most of the time
    least = 1e-9 * np.diag(spread)
    used = 0
    while used < deliveries // _PER_SLOPE:
        controls = controls[spread[controls, controls] > least[controls]]
        if not controls.size:
            break
        control = int(controls[np.argmax(spread[0, controls] ** 2 / spread[controls, controls])])
        slopes = spread[:, control] / spread[control, control]
        slopes[control] = 0.0
        means -= slopes * means[control]
        spread -= slopes[:, None] * spread[control]
        controls = controls[controls != control]
        used += 1
    # the slopes have taken as many deliveries as there are of them
    left = max(0.0, float(spread[0, 0])) * deliveries / max(1, deliveries - used) ** 2
    return Estimate(float(means[0]), kept_xy, kept_z, deliveries, math.sqrt(left) / float(means[0]), fidelity_error)


@njit(cache=True)
def _mixed(word: np.uint64) -> np.uint64:
    """The finaliser of splitmix64 (Steele, Lea & Flood, OOPSLA 2014): every bit of the word in every bit of the result."""
    word = (word ^ (word >> np.uint64(30))) * _MIX_ONE
    word = (word ^ (word >> np.uint64(27))) * _MIX_TWO
    return word ^ (word >> np.uint64(31))


@njit(cache=True)
def begin(streams: Words, delivery: int) -> None:
    """Set the streams to where they begin at the delivery, counted from 0."""
    start = _mixed(np.uint64(delivery + 1) * _GOLDEN)
    for k in range(len(streams)):
        streams[k] = _mixed(start + np.uint64(k + 1) * _MIX_ONE)


@njit(cache=True)
def uniform(streams: Words, at: int) -> float:
    """The next number in (0, 1] of a stream."""
    streams[at] += _GOLDEN
    return (np.float64(_mixed(streams[at]) >> np.uint64(11)) + 1.0) * 2.0**-53


@njit(cache=True)
def wait_s(mean_s: float, attempt_s: float, log_miss: float, drawn: float) -> float:
    """Seconds to a link's pair: attempts, the one that succeeds included, or exponential where an attempt takes no time."""
    if attempt_s == 0.0:
        return -mean_s * math.log(drawn)
    return attempt_s * max(1.0, float(np.ceil(math.log(drawn) / log_miss)))  # math.ceil would be a whole number, of 64 bits


@njit(cache=True)
def _settle(soonest: Ints, pending: Floats, first: int, last: int) -> None:
    """Decide the matches anew that links first..last play in: a tournament, whose winner soonest[1] is the link to be next."""
    first, last = (first + len(pending)) >> 1, (last + len(pending)) >> 1
    while first > 0:
        for match in range(first, last + 1):
            one, other = soonest[2 * match], soonest[2 * match + 1]
            soonest[match] = one if pending[one] <= pending[other] else other
        first, last = first >> 1, last >> 1


@njit(cache=True)
def _play(
    means_s: Floats,
    attempts_s: Floats,
    success: Floats,
    place_s: Floats,
    decays_hz: Floats,
    weights: Floats,
    slow: Ints,
    grown: Floats,
    before: int,
    wanted: int,
    budget: int,
    sums: Floats,
    products: Floats,
    outcomes: Ints,
) -> tuple[int, int]:
    """(deliveries, events) of at most `wanted` and about `budget`, after `before` deliveries of earlier calls.

    Adds the figures and controls of each to `sums` and their products to `products`. slow: of every link, which control is what its waits
    exceed their mean by, or -1. grown: of every link a number such that a segment's sum is that of its last minus that of its first; of each
    sum, `outcomes` counts the segments lost and those that survived.
    """
    links = len(means_s)
    log_miss = np.log1p(-np.minimum(attempts_s / means_s, 1 - 1e-16))
    streams = np.empty(2 * links - 1, np.uint64)
    size = 1
    while size < links:
        size *= 2
    pending = np.full(size, np.inf)  # where a pair is there, infinite
    soonest = np.empty(2 * size, np.int32)
    soonest[size:] = np.arange(size)
    ready, measured_s = np.empty(links), np.zeros(links - 1)
    first_of, last_of = np.empty(links, np.int32), np.empty(links, np.int32)  # of a segment, at its last link and at its first
    arrived, failed = np.empty(links, np.int32), np.empty(links - 1, np.int32)
    row = np.empty(len(sums))
    delivered, events = 0, 0
    while delivered < wanted and events < budget:
        row[:] = 0.0
        begin(streams, before + delivered)
        for k in range(links):
            wait = wait_s(means_s[k], attempts_s[k], log_miss[k], uniform(streams, k))
            pending[k] = wait
            if slow[k] >= 0:
                row[slow[k]] += wait - means_s[k]
        _settle(soonest, pending, 0, size - 1)
        empty, held = links, 0.0
        while empty > 0 and events < budget:
            now = pending[soonest[1]]
            together = now * (1 + 1e-12)
            count = 0
            while pending[soonest[1]] <= together:
                k = soonest[1]
                ready[k], pending[k] = pending[k], np.inf
                _settle(soonest, pending, k, k)
                at = count
                while at > 0 and arrived[at - 1] > k:
                    arrived[at] = arrived[at - 1]
                    at -= 1
                arrived[at] = k
                count += 1
            empty -= count
            events += count
            failures = 0
            for at in range(count):  # in the order of the links: which is first by a rounding must not matter
                k = arrived[at]
                first, last = k, k
                expected, survived = 1.0, True
                if k > 0 and pending[k - 1] == np.inf:
                    first = first_of[k - 1]
                    measured_s[k - 1] = now
                    if success[k - 1] < 1.0:
                        expected *= success[k - 1]
                        if uniform(streams, links + k - 1) > success[k - 1]:
                            survived = False
                            failed[failures] = k - 1
                            failures += 1
                if k + 1 < links and pending[k + 1] == np.inf and (at + 1 == count or arrived[at + 1] > k + 1):
                    last = last_of[k + 1]
                    measured_s[k] = now
                    if success[k] < 1.0:
                        expected *= success[k]
                        if uniform(streams, links + k) > success[k]:
                            survived = False
                            failed[failures] = k
                            failures += 1
                first_of[last], last_of[first] = first, last
                others = held
                if first < k:
                    others -= grown[k - 1] - grown[first]
                if last > k:
                    others -= grown[last] - grown[k + 1]
                held = others + grown[last] - grown[first]
                if expected < 1.0:
                    sum_at = int(grown[last] - grown[first])
                    row[_FIGURES + _SLOWEST + sum_at] += survived - expected
                    row[_FIGURES + _SLOWEST + _BINS + sum_at] += (survived - expected) * others
                    row[_FIGURES + _SLOWEST + 2 * _BINS + sum_at] += (survived - expected) * others * others
                    outcomes[int(survived), sum_at] += 1
            for each in range(failures):
                if pending[failed[each]] < np.inf:
                    continue  # lost with one that was measured at the same time
                first, last = failed[each], failed[each] + 1
                while first > 0 and pending[first - 1] == np.inf:
                    first -= 1
                while last + 1 < links and pending[last + 1] == np.inf:
                    last += 1
                news = np.inf  # all of the segment has heard of a failure
                for s in failed[each:failures]:
                    if first <= s < last:
                        news = min(news, max(place_s[s + 1] - place_s[first], place_s[last + 1] - place_s[s + 1]))
                held -= grown[last] - grown[first]
                for k in range(first, last + 1):
                    wait = wait_s(means_s[k], attempts_s[k], log_miss[k], uniform(streams, k))
                    pending[k] = now + news + wait
                    if slow[k] >= 0:
                        row[slow[k]] += wait - means_s[k]
                _settle(soonest, pending, first, last)
                empty += last + 1 - first
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
        row[0], row[1], row[2] = done, math.exp(-lost_xy), math.exp(-lost_z)
        row[3] = (1 + weights[0] * row[1] + weights[1] * row[2]) / 4
        for one in range(len(row)):
            if row[one] != 0.0:
                sums[one] += row[one]
                for other in range(len(row)):
                    products[one, other] += row[one] * row[other]
        delivered += 1
    return delivered, events
