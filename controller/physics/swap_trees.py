"""Repeater chains with a fixed order of swaps: distributions of waiting time and of what decay leaves, up to a horizon.

Brand, Coopmans & Elkouss, IEEE JSAC 38, 619, 2020 (arXiv:1912.07688), with the cut-off on the difference of two waiting times of Li, Coopmans
& Elkouss, IEEE Trans. Quantum Eng. 2, 4103015, 2021. Links try on a common slot. A swap waits for both of its sides; when one side has
waited `cutoff_slots` for the other, or the swap fails, both begin anew. Exact up to the horizon.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.physics.domain import within

Tree = int | tuple["Tree", "Tree"]
"""A link by its index, or the two sides of a swap: ((0, 1), 2) swaps links 0 and 1 first."""

Floats = NDArray[np.float64]

LONGEST_HORIZON = 2**18
_LEAST_HORIZON = 2**9
_MISSED = 1e-9
_RAREST = 1e-6
_ALIASED = 1e-8
"""What lies beyond the period of the Fourier transforms comes back damped by this."""


def balanced(first: int, last: int) -> Tree:
    """The tree over links first..last whose every swap halves what it joins."""
    if first == last:
        return first
    middle = (first + last) // 2
    return balanced(first, middle), balanced(middle + 1, last)


@dataclass(frozen=True, slots=True)
class Nested:
    """n links, the n - 1 stations between them, and rows of what decays; probabilities per slot.

    arrivals: link successes in (0, 1]. success: swap successes in (0, 1]. decays: rows of decay per slot, >= 0, of the n + 1 nodes' memories.
    Raises ValueError otherwise.
    """

    arrivals: tuple[float, ...]
    success: tuple[float, ...]
    decays: tuple[tuple[float, ...], ...]
    cutoff_slots: int | None = None

    def __post_init__(self) -> None:
        for name, chances in (("arrivals", self.arrivals), ("success", self.success)):
            for chance in chances:
                within(name, chance, 0, 1, open_low=True)
        for row in self.decays:
            for decay in row:
                within("decays", decay, 0)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of a segment: probability to be there after 0, 1, 2, ... slots, and the same times the mean of what decay has left, by rows."""

    first: int
    last: int
    waiting: Floats
    kept: Floats

    @property
    def beyond(self) -> float:
        """Probability to take longer than the horizon."""
        return max(0.0, 1 - float(self.waiting.sum()))


def distribution(chain: Nested, tree: Tree, horizon: int) -> Distribution:
    """Waiting time and kept correlations of the segment that `tree` makes, for 0 to `horizon` - 1 slots. O(n horizon log horizon)."""
    if isinstance(tree, int):
        slots = np.arange(horizon)
        p = chain.arrivals[tree]
        waiting = np.where(slots > 0, p * (1 - p) ** np.maximum(slots - 1, 0), 0.0)
        return Distribution(tree, tree, waiting, np.tile(waiting, (len(chain.decays), 1)))
    left, right = (distribution(chain, side, horizon) for side in tree)
    swapped, kept, expired = _round(chain, left, right, horizon)
    q = chain.success[left.last]
    done = _until_success(np.vstack((swapped, kept)) * q, (1 - q) * swapped + expired)
    return Distribution(left.first, right.last, done[0], done[1:])


def mean_delivery(chain: Nested, tree: Tree) -> tuple[float, list[float]] | None:
    """(mean slots to deliver, mean of what decay leaves by rows).

    The horizon doubles until less than 1e-9 is beyond it. None when a try may take longer than 2^18 slots, or meets so rarely, less than
    once in a million, that rounding would show.
    """
    if isinstance(tree, int):
        return 1 / chain.arrivals[tree], [1.0] * len(chain.decays)
    horizon = _LEAST_HORIZON
    while True:
        left, right = (distribution(chain, side, horizon) for side in tree)
        swapped, kept, expired = _round(chain, left, right, horizon)
        meeting, lost = float(swapped.sum()), float(expired.sum())
        beyond = max(0.0, 1 - meeting - lost)
        if beyond < _MISSED:
            break
        if horizon >= LONGEST_HORIZON:
            return None
        horizon *= 2
    if meeting < _RAREST:
        return None
    one_try = float(np.arange(horizon) @ (swapped + expired))
    return one_try / (meeting * chain.success[left.last]), [float(row.sum()) / meeting for row in kept]


def _round(chain: Nested, left: Distribution, right: Distribution, horizon: int) -> tuple[Floats, Floats, Floats]:
    """One try of both sides, by slots: they meet in time, the same times what is kept, and one of them waits too long."""
    limit = horizon - 1 if chain.cutoff_slots is None else min(chain.cutoff_slots, horizon - 1)
    swapped, kept, expired = np.zeros(horizon), np.zeros((len(chain.decays), horizon)), np.zeros(horizon)
    for later, earlier, apart in ((left, right, 0), (right, left, 1)):
        swapped += later.waiting * _waited(earlier.waiting, 0.0, apart, limit)
        for row, decay in enumerate(chain.decays):
            rate = decay[earlier.first] + decay[earlier.last + 1]
            kept[row] += later.kept[row] * _waited(earlier.kept[row], rate, apart, limit)
        if chain.cutoff_slots is not None and limit < horizon - 1:
            missing = np.clip(1 - np.cumsum(later.waiting), 0, None)
            expired[limit:] += earlier.waiting[: horizon - limit] * missing[limit:]
    return swapped, kept, expired


def _waited(there: Floats, decay: float, least: int, most: int) -> Floats:
    """Sum over waits k from `least` to `most` of there[t - k] exp(-decay k)."""
    kernel = np.exp(-decay * np.arange(most + 1))
    kernel[:least] = 0
    size = 2 * len(there)
    found: Floats = np.fft.irfft(np.fft.rfft(there, size) * np.fft.rfft(kernel, size), size)[: len(there)]
    return np.clip(found, 0, None)


def _until_success(done: Floats, again: Floats) -> Floats:
    """Rows of `done` after any number of rounds `again`: their generating functions divided by 1 - that of `again`.

    Taken on a circle within the unit circle, so that what the period folds back is damped.
    """
    size = 2 * len(again)
    damping = _ALIASED ** (np.arange(len(again)) / size)
    rounds = np.fft.rfft(again * damping, size)
    summed: Floats = np.fft.irfft(np.fft.rfft(done * damping, size) / (1 - rounds), size)[:, : len(again)]
    return np.clip(summed / damping, 0, None)
