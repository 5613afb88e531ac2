"""Swap-as-soon-as-possible repeater chains as an absorbing Markov chain: mean delivery time and mean delivered state.

Every empty link tries to make a pair; a station measures as soon as it has a pair on both sides. Adjacent pairs are therefore always
joined, so the set of filled links tells the whole state of the chain: its runs are the joined segments (Shchukin, Schmidt & van Loock,
PRA 100, 032322, 2019, arXiv:1710.06214, generalised to links and stations that differ and to memories that decay). When any of the
measurements that join a run fails, the whole run is lost.

The decay of a segment counts only if the segment is part of what is delivered in the end. For the state, every filled link therefore
carries a label, given when its pair is made: KEPT, its segment will survive and its decay counts, or DOOMED, its segment will be lost.
Every history has exactly one right labelling; wrong ones get weight 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise, product

import numpy as np
from numpy.typing import NDArray

from controller.physics.domain import within

MAX_LINKS = 8
"""Most links of a chain: the labelled states grow as 2.41^n, 1,393 at eight."""

_EMPTY, _DOOMED, _KEPT = 0, 1, 2
_MOST_LOST = 4
"""Runs of two links or more that eight links can form, at most."""

_BLOCK = 96
"""Up to about this many states, solving for them at once costs less than one kept set after the other."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rates:
    """What n links and the n - 1 stations between them do.

    arrivals: of each link the success probability per slot, in (0, 1], or the rate in Hz where `slot_s` is 0: then waiting is exponential.
    success: of each station the swap's success probability, in (0, 1]. delays_s: the classical one-way delay along each link. A lost run
    starts anew when the news has reached all of it, and the ends deliver when the news of the last measurement has reached both.
    Raises ValueError otherwise.
    """

    arrivals: tuple[float, ...]
    success: tuple[float, ...]
    delays_s: tuple[float, ...]
    slot_s: float

    def __post_init__(self) -> None:
        for arrival in self.arrivals:
            within("arrivals", arrival, 0, 1 if self.slot_s else math.inf, open_low=True)
        for success in self.success:
            within("success", success, 0, 1, open_low=True)
        for delay_s in self.delays_s:
            within("delays_s", delay_s, 0)


@dataclass(frozen=True, slots=True)
class _Transitions:
    """What can happen in one slot, apart from nothing: from `source` to `target`, by bit masks and by the runs that are lost."""

    source: Ints
    target: Ints
    arrived: Ints  # mask of the links that made a pair
    idle: Ints  # mask of the links that tried in vain
    joined: Ints  # mask of the stations that measured with success
    lost: Ints  # (transitions, 4) indices into runs; len(runs) where nothing is lost
    runs: tuple[tuple[int, int, int], ...]  # first link, last link, mask of the stations that measured
    empty: Ints  # of each state, the mask of the empty links
    ends: Floats  # (states, nodes): the memories that hold an end of a kept segment
    blocks: tuple[tuple[int, int], ...]  # ranges of states; a transition leads within its block or to an earlier one


def _states(n: int, labelled: bool) -> list[tuple[int, ...]]:
    """All states, the delivered one first, in falling number of kept links, which never falls in time."""
    labels = (_EMPTY, _DOOMED, _KEPT) if labelled else (_EMPTY, _KEPT)
    states = [
        word
        for word in product(labels, repeat=n)
        if all(_EMPTY in pair or pair[0] == pair[1] for pair in pairwise(word)) and word != (_DOOMED,) * n  # the delivered pair is not lost
    ]
    return sorted(states, key=lambda word: (-word.count(_KEPT), _kept_links(word)))


def _kept_links(word: tuple[int, ...]) -> int:
    return _mask(link for link, label in enumerate(word) if label == _KEPT)


def _blocks(states: Sequence[tuple[int, ...]], labelled: bool) -> tuple[tuple[int, int], ...]:
    """Ranges of states whose transitions lead to the same range or an earlier one: what is labelled as kept is never lost."""
    if not labelled or len(states) <= _BLOCK:
        return ((1, len(states)),)
    bounds = [1]
    for position in range(2, len(states)):
        before, word = states[position - 1], states[position]
        if _kept_links(before) != _kept_links(word) and (position - bounds[-1] >= _BLOCK // 2 or before.count(_KEPT) != word.count(_KEPT)):
            bounds.append(position)
    return tuple(pairwise([*bounds, len(states)]))


def _runs(filled: Sequence[bool]) -> list[tuple[int, int]]:
    """(first, last) of every run of filled links."""
    starts = [k for k, full in enumerate(filled) if full and not (k and filled[k - 1])]
    ends = [k for k, full in enumerate(filled) if full and not (k + 1 < len(filled) and filled[k + 1])]
    return list(zip(starts, ends, strict=True))


def _outcomes(word: tuple[int, ...], new: int, first: int, last: int, labelled: bool) -> list[tuple[int, int, bool]]:
    """(label, mask of the stations that measured, lost) of what the filled links first..last may become."""
    measured = sum(1 << k for k in range(first, last) if (new >> k & 1) or (new >> k + 1 & 1))
    old = {word[link] for link in range(first, last + 1) if not new >> link & 1}
    if len(old) == 2:  # a segment that survives cannot meet one that is lost
        return []
    outcomes = [(label, measured, False) for label in (old or ({_DOOMED, _KEPT} if labelled else {_KEPT}))]
    if measured and not (labelled and old == {_KEPT}):
        outcomes.append((_EMPTY, measured, True))
    return outcomes


def _mask(bits: Iterable[int]) -> int:
    return sum(1 << bit for bit in bits)


@lru_cache(maxsize=4 * MAX_LINKS)
def _transitions(n: int, labelled: bool, one_at_a_time: bool) -> _Transitions:
    states = _states(n, labelled)
    index = {word: position for position, word in enumerate(states)}
    runs: dict[tuple[int, int, int], int] = {}
    rows: list[tuple[int, int, int, int, int]] = []
    losses: list[list[int]] = []
    for source, word in enumerate(states[1:], start=1):
        empty = [link for link in range(n) if word[link] == _EMPTY]
        sizes = (1,) if one_at_a_time else range(1, len(empty) + 1)
        for new in (_mask(chosen) for size in sizes for chosen in combinations(empty, size)):
            spans = _runs([word[link] != _EMPTY or bool(new >> link & 1) for link in range(n)])
            for outcome in product(*(_outcomes(word, new, first, last, labelled) for first, last in spans)):
                after = [_EMPTY] * n
                joined, lost = 0, []
                for (first, last), (label, measured, failed) in zip(spans, outcome, strict=True):
                    after[first : last + 1] = [label] * (last + 1 - first)
                    if failed:
                        lost.append(runs.setdefault((first, last, measured), len(runs)))
                    else:
                        joined |= measured
                target = index.get(tuple(after))
                if target is not None:
                    rows.append((source, target, new, _mask(empty) & ~new, joined))
                    losses.append(lost)
    source_, target_, arrived, idle, joined_ = np.array(rows, dtype=np.int64).T
    ends = np.zeros((len(states), n + 1))
    for position, word in enumerate(states):
        for first, last in _runs([label == _KEPT for label in word]):
            ends[position, [first, last + 1]] = 1
    return _Transitions(
        source=source_,
        target=target_,
        arrived=arrived,
        idle=idle,
        joined=joined_,
        lost=np.array([lost + [len(runs)] * (_MOST_LOST - len(lost)) for lost in losses], dtype=np.int64),
        runs=tuple(runs),
        empty=np.array([_mask(k for k, label in enumerate(word) if label == _EMPTY) for word in states], dtype=np.int64),
        ends=ends,
        blocks=_blocks(states, labelled),
    )


def _over_subsets(values: Sequence[float], operation: Callable[[Floats, float], Floats], start: float) -> Floats:
    """operation over the members of every subset of `values`, by bit mask."""
    table: Floats = np.array([start])
    for value in values:
        table = np.concatenate((table, operation(table, value)))
    return table


@dataclass(frozen=True, slots=True)
class _Weighted:
    """Transitions with the probabilities (or rates) of one chain, and the time each of them costs beyond the slot."""

    moves: _Transitions
    weight: Floats
    extra_s: Floats


def _weigh(rates: Rates, labelled: bool) -> _Weighted:
    n = len(rates.arrivals)
    moves = _transitions(n, labelled, rates.slot_s == 0)
    weight = _over_subsets(rates.arrivals, np.multiply, 1.0)[moves.arrived] * _over_subsets(rates.success, np.multiply, 1.0)[moves.joined]
    if rates.slot_s:
        weight *= _over_subsets([1 - p for p in rates.arrivals], np.multiply, 1.0)[moves.idle]
    if moves.runs:
        joined = _over_subsets(rates.success, np.multiply, 1.0)
        failing = np.array([*(1 - joined[stations] for _, _, stations in moves.runs), 1.0])
        weight *= failing[moves.lost].prod(axis=1)
    return _Weighted(moves, weight, _message_times(rates, moves))


def _message_times(rates: Rates, moves: _Transitions) -> Floats:
    """Seconds that every transition adds: exactly for the last one's news; to first order in the delays for the news of a loss.

    A delay d of the links of a lost run delays the last of all empty links by d times the probability that the last is of the run, taken
    as proportional to the links' mean waits.
    """
    extra = np.zeros(len(moves.source))
    n = len(rates.arrivals)
    if n == 1 or not any(rates.delays_s):
        return extra
    position = np.concatenate(([0.0], np.cumsum(rates.delays_s)))
    farthest = np.maximum(position[1:-1], position[-1] - position[1:-1])
    last_word = [max(farthest[max(0, link - 1) : link + 1]) for link in range(n)]  # of the stations at either side
    delivered = moves.target == 0
    extra[delivered] = _over_subsets(last_word, np.maximum, 0.0)[moves.arrived[delivered]]
    if all(q == 1 for q in rates.success):
        return extra
    waits = [1 / rate for rate in rates.arrivals]
    spent = []
    for first, last, stations in moves.runs:
        failing = [
            (1 - rates.success[k], max(position[k + 1] - position[first], position[last + 1] - position[k + 1]))
            for k in range(n - 1)
            if stations >> k & 1
        ]
        chance = sum(each for each, _ in failing)
        delay = sum(each * time_s for each, time_s in failing) / chance if chance else 0.0
        spent.append(delay * sum(waits[first : last + 1]))
    total = _over_subsets(waits, np.add, 0.0)[moves.empty[moves.target]]
    news = np.array([*spent, 0.0])[moves.lost].sum(axis=1)
    return np.asarray(extra + np.divide(news, total, out=np.zeros_like(news), where=total > 0))


def mean_delivery(rates: Rates, decays_hz: Sequence[Sequence[float]]) -> tuple[float, list[float]]:
    """(mean time to deliver in s, for every row of `decays_hz` the mean of exp(-decay) that memories take from what is delivered).

    A row holds the decay rate in 1/s of the memories of each of the n + 1 nodes. Exact but for `_message_times`.
    """
    losing = any(q < 1 for q in rates.success)
    unlabelled = _weigh(rates, False)
    mean_s = float(_mean_time(rates, unlabelled))
    rows = [tuple(row) for row in decays_hz]
    distinct = sorted({row for row in rows if any(row)})
    if not distinct or len(rates.arrivals) == 1:
        return mean_s, [1.0] * len(rows)
    kept = _kept(rates, _weigh(rates, True) if losing else unlabelled, np.array(distinct, dtype=float))
    left = dict(zip(distinct, np.clip(kept, 0.0, 1.0).tolist(), strict=True))
    return mean_s, [left.get(row, 1.0) for row in rows]


def _leaving(rates: Rates, moves: _Transitions) -> Floats:
    """Of every state, the rate of leaving it, or minus the logarithm of the probability to stay for a slot."""
    if rates.slot_s == 0:
        return np.asarray(_over_subsets(rates.arrivals, np.add, 0.0)[moves.empty])
    logarithms = [-math.log1p(-p) if p < 1 else math.inf for p in rates.arrivals]
    return np.asarray(_over_subsets(logarithms, np.add, 0.0)[moves.empty])


def _mean_time(rates: Rates, chain: _Weighted) -> float:
    moves = chain.moves
    size = len(moves.empty)
    leaving = _leaving(rates, moves)
    leaving = -np.expm1(-leaving) if rates.slot_s else leaving
    matrix = -np.bincount(moves.source * size + moves.target, chain.weight, size * size).reshape(size, size)
    matrix += np.diag(leaving)
    cost = np.bincount(moves.source, chain.weight * chain.extra_s, size) + (rates.slot_s or 1.0)
    return float(np.linalg.solve(matrix[1:, 1:] / leaving[1:, None], cost[1:] / leaving[1:])[-1])


def _kept(rates: Rates, chain: _Weighted, decays_hz: Floats) -> Floats:
    moves = chain.moves
    decay = moves.ends @ decays_hz.T  # (states, rows)
    leaving = _leaving(rates, moves)[:, None]
    if rates.slot_s:
        out, scale = -np.expm1(-leaving - decay * rates.slot_s), np.exp(-decay * rates.slot_s)
    else:
        out, scale = leaving + decay, np.ones_like(decay)
    weight = chain.weight[:, None] * np.exp(-decay[moves.target] * chain.extra_s[:, None]) * (scale[1:] / out[1:])[moves.source - 1]
    value = np.zeros((len(moves.empty), decays_hz.shape[0]))
    value[0] = 1.0
    for low, high in moves.blocks:
        begin, end = np.searchsorted(moves.source, (low, high))
        source, target, here = moves.source[begin:end] - low, moves.target[begin:end], weight[begin:end]
        inner, size = target >= low, high - low
        cells = source[inner] * size + target[inner] - low
        matrices, outer = [], []
        for row in range(value.shape[1]):
            matrices.append(np.eye(size) - np.bincount(cells, here[inner, row], size * size).reshape(size, size))
            outer.append(np.bincount(source[~inner], here[~inner, row] * value[target[~inner], row], size))
        value[low:high] = np.linalg.solve(np.array(matrices), np.array(outer)[:, :, None])[:, :, 0].T
    return np.asarray(value[moves.empty.argmax()])  # from where all links are empty
