"""Repeater chains with a cut-off and the halving tree of swaps, played out: mean delivery time and state, with their standard errors.

The protocol is that of `controller.physics.swap_trees`, with delays. A segment is there for the station that joins it further when the news of
its swap has reached that station; a link's pair is there when it is made. The station waits for the two sides from then on, swaps when both
are there, and when one has been there for longer than the cut-off gives up both. Both sides begin anew, whatever they have come to, when the
news of that, or of a swap that failed, has reached all of the segment. Only where both sides are links a cut-off needs no news: the two ends of
the link that waited see it by the clock, and for the other, which has no memory of its tries, going on and beginning anew are the same. The
ends of the chain deliver when the news of the last swap has reached both.

The two sides of the last swap know nothing of each other, so each is played alone, in blocks, and every one of a block meets every one of the
other side: chains that seldom meet are then known far better than by one try after the other. How often the last swap has to be tried until
it succeeds is known. Random numbers are those of `controller.physics.simulation`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from controller.physics.simulation import Estimate, Floats, Ints, Played, Words, begin, uniform, wait_s

_FIRST_BLOCKS = 100
"""Before a standard error is believed."""
_LEAST_MEETINGS = 1_000
"""With fewer, even the standard error is not known."""
_LEAST_BLOCK, _TRIAL, _MOST_BLOCK = 16, 512, 4_096
_MEETINGS_OF_ONE = 8
"""Of one side with those of a block: more tell little."""
_EVENTS_OF_ONE, _LEAST_EVENTS = 2_560, 20_000_000
"""Pairs that are made at most: so many for each of the 1/error^2 deliveries that an exponential time would take, but not too few."""
_MEETINGS_OF_EVENT = 16
"""As much work as making a pair."""
_EQUAL = 1e-9
"""Waits that exceed the cut-off by so much of an attempt are equal to it."""


def mean_delivery(chain: Played, cutoff_s: float, standard_error: float) -> Estimate | None:
    """Deliveries until both relative standard errors are at most `standard_error`, or the effort is spent: at 0.004 in some seconds.

    Two links or more; `cutoff_s` >= 0 is finite. None when the effort is too little for a thousand meetings.
    """
    tree = _halving(len(chain.means_s))
    place_s = chain.place_s
    station, first, last = place_s[tree[:, 0]], place_s[tree[:, 1]], place_s[tree[:, 2]]
    news_s = np.maximum(station - first, last - station)
    late_s, heard_s = news_s.copy(), np.zeros(len(tree))
    for row, (_, _, _, one, other) in enumerate(tree):
        for side in (one, other):
            if tree[side, 3]:
                heard_s[side] = abs(station[side] - station[row])
        if not tree[one, 3] and not tree[other, 3]:
            late_s[row] = 0.0
    slotted = chain.attempts_s[chain.attempts_s > 0]
    longest_s = cutoff_s + _EQUAL * (float(slotted.min()) if len(slotted) else 0.0)
    success, last_news_s = float(chain.success[tree[0, 0] - 1]), float(news_s[0])
    left = max(_LEAST_EVENTS, int(_EVENTS_OF_ONE / standard_error**2))
    drawn, size, wanted = 0, _TRIAL, 1
    blocks = np.empty((0, 4))
    while True:
        played, events = _play(
            chain.means_s,
            chain.attempts_s,
            chain.success,
            chain.decays_hz,
            tree,
            heard_s,
            news_s,
            late_s,
            cutoff_s,
            longest_s,
            drawn,
            size,
            wanted,
            left if len(blocks) or wanted > 1 else left // 10,
        )
        drawn += len(played) * size
        left -= events
        if not len(blocks) and wanted == 1:  # a trial, to know how often they meet
            if not len(played) or played[0, 1] == 0:
                return None
            size = int(min(_MOST_BLOCK, max(_LEAST_BLOCK, _MEETINGS_OF_ONE / played[0, 1])))
            wanted = _FIRST_BLOCKS
            continue
        blocks = np.concatenate((blocks, played))
        if len(blocks) < 2 or blocks[:, 1].sum() * size * size < _LEAST_MEETINGS:
            if left <= 0 or len(blocks) >= _FIRST_BLOCKS:
                return None
            continue
        try_s, met, kept_xy, kept_z = (float(mean) for mean in blocks.mean(axis=0))
        mean_s = (try_s / met + (1 - success) * last_news_s) / success + last_news_s
        fidelity = (1 + (chain.weights[0] * kept_xy + chain.weights[1] * kept_z) / met) / 4
        # of quotients of means, to first order
        time_off = (blocks[:, 0] - try_s / met * blocks[:, 1]) / met / success / mean_s
        kept_off = blocks[:, 2:] - blocks[:, 1:2] * np.array([kept_xy, kept_z]) / met
        fidelity_off = kept_off @ chain.weights / met / 4 / fidelity
        time_error, fidelity_error = (float(off.std(ddof=1)) / math.sqrt(len(blocks)) for off in (time_off, fidelity_off))
        short = max(time_error, fidelity_error) / standard_error
        if left <= 0 or (len(blocks) >= _FIRST_BLOCKS and short <= 1):
            return Estimate(mean_s, kept_xy / met, kept_z / met, len(blocks) * size, time_error, fidelity_error)
        wanted = max(_FIRST_BLOCKS, math.ceil(len(blocks) * min(4.0, 1.05 * short**2 - 1)))


def _halving(links: int) -> Ints:
    """Segments as rows: node of the station, first node, last node, rows of the two sides (0 of a link); the whole chain first."""
    rows = [[0, 0, links, 0, 0]]
    for row in rows:
        _, first, last, _, _ = row
        if last - first > 1:
            middle = (first + last + 1) // 2
            row[:] = middle, first, last, len(rows), len(rows) + 1
            rows += [[first, first, middle, 0, 0], [middle, middle, last, 0, 0]]
    return np.array(rows)


@njit(cache=True)
def _made(
    at: int,
    deadline_s: float,
    means_s: Floats,
    attempts_s: Floats,
    log_miss: Floats,
    success: Floats,
    decays_hz: Floats,
    tree: Ints,
    heard_s: Floats,
    news_s: Floats,
    late_s: Floats,
    cutoff_s: float,
    longest_s: float,
    streams: Words,
    ages_s: Floats,
    lost: Floats,
    left: Ints,
) -> float:
    """Seconds from the beginning of a segment, by its row, until its swap succeeds; infinity beyond the deadline, or when no events are left.

    Of the row, `ages_s` are then those of the qubits at its two ends, `lost` the decay in its
    stations, of XX and YY and of ZZ.
    """
    station, node, one, other = tree[at, 0], tree[at, 1], tree[at, 3], tree[at, 4]
    if one == 0:
        left[0] -= 1
        alone_s: float = wait_s(means_s[node], attempts_s[node], log_miss[node], uniform(streams, node))
        return alone_s
    clock = 0.0
    while clock <= deadline_s and left[0] > 0:
        if tree[one, 3] == 0:  # here and below: a call costs more than a link
            left[0] -= 1
            one_s = wait_s(means_s[node], attempts_s[node], log_miss[node], uniform(streams, node))
        else:
            one_s = heard_s[one] + _made(
                one, deadline_s - clock, means_s, attempts_s, log_miss, success, decays_hz, tree, heard_s, news_s, late_s, cutoff_s,
                longest_s, streams, ages_s, lost, left,
            )  # fmt: skip
        if tree[other, 3] == 0:
            left[0] -= 1
            other_s = wait_s(means_s[station], attempts_s[station], log_miss[station], uniform(streams, station))
        else:
            most_s = min(deadline_s - clock, one_s + longest_s)  # later the other does not matter
            other_s = heard_s[other] + _made(
                other, most_s, means_s, attempts_s, log_miss, success, decays_hz, tree, heard_s, news_s, late_s, cutoff_s, longest_s,
                streams, ages_s, lost, left,
            )  # fmt: skip
        there_s, both_s = min(one_s, other_s), max(one_s, other_s)
        if there_s == math.inf:
            break
        if both_s > there_s + longest_s:
            clock += there_s + cutoff_s + late_s[at]
            continue
        if uniform(streams, len(means_s) + station - 1) <= success[station - 1]:
            one_waited, other_waited = heard_s[one] + both_s - one_s, heard_s[other] + both_s - other_s
            ages_s[at, 0], ages_s[at, 1] = ages_s[one, 0] + one_waited, ages_s[other, 1] + other_waited
            stored_s = ages_s[one, 1] + one_waited + ages_s[other, 0] + other_waited
            for k in range(2):
                lost[at, k] = lost[one, k] + lost[other, k] + stored_s * decays_hz[k, station]
            return clock + both_s
        clock += both_s + news_s[at]
    return math.inf


@njit(cache=True)
def _play(
    means_s: Floats,
    attempts_s: Floats,
    success: Floats,
    decays_hz: Floats,
    tree: Ints,
    heard_s: Floats,
    news_s: Floats,
    late_s: Floats,
    cutoff_s: float,
    longest_s: float,
    before: int,
    size: int,
    wanted: int,
    budget: int,
) -> tuple[Floats, int]:
    """(of at most `wanted` blocks, the means over all pairs of sides; events, about `budget` at most), after `before` draws of earlier calls.

    The means: what a try takes, whether both sides meet, and then what is kept of XX and YY and of ZZ. By rows of the tree: heard_s, until the
    station that joins it further has heard of the swap; news_s, until all of it has heard of its station; late_s, the same when its
    station gives up.
    """
    links = len(means_s)
    log_miss = np.log1p(-np.minimum(attempts_s / means_s, 1 - 1e-16))
    streams = np.empty(2 * links - 1, np.uint64)
    ages_s, lost = np.zeros((len(tree), 2)), np.zeros((len(tree), 2))
    left = np.full(1, budget)
    there_s, decayed, waiting_hz = np.empty((2, size)), np.empty((2, size, 2)), np.empty((2, 2))
    station, sides = tree[0, 0], tree[0, 3:]
    for side in range(2):
        for k in range(2):
            waiting_hz[side, k] = decays_hz[k, station] + decays_hz[k, side * links]
    blocks = np.zeros((wanted, 4))
    for block in range(wanted):
        for draw in range(size):
            begin(streams, before + block * size + draw)
            for side in range(2):
                at = sides[side]
                there_s[side, draw] = heard_s[at] + _made(
                    at, math.inf, means_s, attempts_s, log_miss, success, decays_hz, tree, heard_s, news_s, late_s, cutoff_s, longest_s,
                    streams, ages_s, lost, left,
                )  # fmt: skip
                for k in range(2):
                    inner_s, outer_s = ages_s[at, 1 - side] + heard_s[at], ages_s[at, side] + heard_s[at] + news_s[0]
                    stored = inner_s * decays_hz[k, station] + outer_s * decays_hz[k, side * links]
                    decayed[side, draw, k] = lost[at, k] + stored
            if left[0] <= 0:
                return blocks[:block], budget - left[0]
        left[0] -= size * size // _MEETINGS_OF_EVENT
        for one in range(size):
            for other in range(size):
                wait = there_s[1, other] - there_s[0, one]
                early = 0 if wait > 0 else 1
                wait = abs(wait)
                if wait > longest_s:
                    blocks[block, 0] += min(there_s[0, one], there_s[1, other]) + cutoff_s + late_s[0]
                else:
                    blocks[block, 0] += max(there_s[0, one], there_s[1, other])
                    blocks[block, 1] += 1
                    for k in range(2):
                        blocks[block, 2 + k] += math.exp(-decayed[0, one, k] - decayed[1, other, k] - wait * waiting_hz[early, k])
        blocks[block] /= size * size
    return blocks, budget - left[0]
