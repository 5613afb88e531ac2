"""Several paths at once that share no interior node, or no link: flows on arrays, one path after the other on what the earlier ones leave.

Suurballe, Networks 4 (1974): the next path of least cost may go back over an earlier one, which is then cut in two and joined anew. The
same holds for widths: where the first k are as wide as k can be, the widest next path makes k + 1 as wide as so many can be.
A graph is as in `search`; in the order of its entries, costs are infinite and widths 0 where an entry is not to be used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from controller.routing.compiled import Bools, Floats, Ints
from controller.routing.graph.search import distances, kept, largest, reached

Flow = frozenset[int]
"""The entries in use."""
Order = Callable[[int], object]
"""A key by which the first of parallel edges is taken."""


class Residual(Protocol):
    """A graph on which the next path is searched: entries in use lead backwards, and at what they cost before it is had back."""

    indptr: Ints
    tails: Ints
    source: int
    target: int

    def values(self, of_entries: Floats, inner: float, blocked: float) -> Floats: ...

    def against(self, flow: Flow, values: Floats, *, back: float, blocked: float) -> tuple[Ints, Floats]: ...

    def add(self, flow: Flow, steps: list[tuple[int, int]], heads: Ints, values: Floats, order: Order) -> Flow: ...


class NodeDisjoint:
    """Each node v is two: 2v where one arrives and 2v + 1 where one leaves, joined by an entry that one path may use.

    That entry is the only one at 2v. In use it becomes the way back over the link by which v is reached, and the entry by which v is left
    becomes the way back through v: so the arrays keep their shape.
    """

    def __init__(self, indptr: Ints, indices: Ints, edge: Ints, through: Bools, source: int, target: int) -> None:
        nodes, degrees = indptr.size - 1, np.diff(indptr)
        lengths = np.ones(2 * nodes, dtype=np.int32)
        lengths[1::2] = degrees
        self.indptr = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
        self.tails = np.repeat(np.arange(2 * nodes, dtype=np.int32), lengths)
        self.source, self.target = 2 * source + 1, 2 * target
        self._tail = np.repeat(np.arange(nodes, dtype=np.int32), degrees)
        self._head, self._edge, self._through = indices, edge, through
        self._inner = self.indptr[:-1:2]
        self._place = np.arange(indices.size, dtype=np.int32) + self._tail + 1
        self._heads = np.empty(self.tails.size, dtype=np.int32)
        self._heads[self._inner] = np.arange(1, 2 * nodes, 2)
        self._heads[self._place] = 2 * indices

    def values(self, of_entries: Floats, inner: float, blocked: float) -> Floats:
        """Values of the entries, and of the way through nodes."""
        values = np.empty(self.tails.size)
        values[self._place] = of_entries
        values[self._inner] = np.where(self._through, inner, blocked)
        return values

    def against(self, flow: Flow, values: Floats, *, back: float, blocked: float) -> tuple[Ints, Floats]:
        """Heads and values when the flow is in use; the way back is worth `back` times what the way there is."""
        heads, values = self._heads.copy(), values.copy()
        for entry in flow:
            tail, head, place = int(self._tail[entry]), int(self._head[entry]), self._place[entry]
            if 2 * head != self.target:
                heads[self._inner[head]], values[self._inner[head]] = 2 * tail + 1, back * values[place]
            if 2 * tail + 1 != self.source:
                heads[place], values[place] = 2 * tail, np.inf if back > 0 else 0.0
            else:
                values[place] = blocked
        return heads, values

    def add(self, flow: Flow, steps: list[tuple[int, int]], heads: Ints, values: Floats, order: Order) -> Flow:
        """The flow with one more path."""
        into = {int(self._head[entry]): entry for entry in flow if 2 * int(self._head[entry]) != self.target}
        more, gone = set(), set()
        for tail, head in steps:
            if tail % 2 == 0 and head != tail + 1:
                gone.add(into[tail // 2])
            elif tail % 2 == 1 and head != tail - 1:
                row = np.arange(self.indptr[tail], self.indptr[tail + 1])
                entries = [(values[place], order(int(self._edge[place - tail // 2 - 1])), int(place)) for place in row[heads[row] == head]]
                more.add(min(entries)[2] - tail // 2 - 1)
        return frozenset((flow | more) - gone)


class LinkDisjoint:
    """Two directions of one link cancel: while one is in use the other gives back its cost. `twin`: per entry that of the other direction."""

    def __init__(self, indptr: Ints, indices: Ints, edge: Ints, twin: Ints, source: int, target: int) -> None:
        self.indptr, self.source, self.target = indptr, source, target
        self.tails = np.repeat(np.arange(indptr.size - 1, dtype=np.int32), np.diff(indptr))
        self._heads, self._edge, self._twin = indices, edge, twin

    def values(self, of_entries: Floats, inner: float, blocked: float) -> Floats:
        return of_entries

    def against(self, flow: Flow, values: Floats, *, back: float, blocked: float) -> tuple[Ints, Floats]:
        changed = values.copy()
        for entry in flow:
            changed[entry], changed[self._twin[entry]] = blocked, back * values[entry]
        return self._heads, changed

    def add(self, flow: Flow, steps: list[tuple[int, int]], heads: Ints, values: Floats, order: Order) -> Flow:
        changed = set(flow)
        for tail, head in steps:
            row = np.arange(self.indptr[tail], self.indptr[tail + 1])
            _, _, entry = min((values[place], order(int(self._edge[place])), int(place)) for place in row[heads[row] == head])
            if int(self._twin[entry]) in changed:
                changed.remove(int(self._twin[entry]))
            else:
                changed.add(entry)
        return frozenset(changed)


def cheapest(residual: Residual, costs: Floats, count: int, order: Order) -> Flow | None:
    """`count` disjoint paths of least cost in all; None when there are not so many. Costs are whole numbers of at most 2^53 in all."""
    flow: Flow = frozenset()
    values = residual.values(costs, 0.0, np.inf)
    potential = np.zeros(residual.indptr.size - 1)
    for _ in range(count):
        heads, left = residual.against(flow, values, back=-1.0, blocked=np.inf)
        left += potential.take(residual.tails)
        left -= potential.take(heads)
        # below 0 only by rounding, beyond what is exact
        cost, before = distances(residual.indptr, heads, np.maximum(left, 0.0), residual.source)
        if np.isinf(cost[residual.target]):
            return None
        flow = residual.add(flow, _steps(before, residual), heads, left, order)
        potential += np.minimum(cost, cost[residual.target])
    return flow


def widest(residual: Residual, widths: Floats, count: int, order: Order) -> tuple[int, float]:
    """How many disjoint paths of positive width there are, at most `count`, and the largest width that so many can have; (0, 0) if none."""
    flow: Flow = frozenset()
    values = residual.values(widths, np.inf, 0.0)
    width = np.inf
    for found in range(count):
        heads, left = residual.against(flow, values, back=np.inf, blocked=0.0)
        before: Ints | None = None

        def leads(least: float, heads: Ints = heads, left: Floats = left) -> bool:
            nonlocal before
            _, through = reached(kept(residual.indptr, heads, left >= least), residual.source)
            if through[residual.target] >= 0:
                before = through
            return bool(through[residual.target] >= 0)

        # where entries at least as wide as before lead on, the width stays
        if not (np.isfinite(width) and leads(width)):
            narrower = largest(widths, leads, width)
            if narrower is None or before is None:
                return found, (width if found else 0.0)
            width = narrower
        assert before is not None
        flow = residual.add(flow, _steps(before, residual), heads, np.where(left >= width, 0.0, np.inf), order)
    return count, width


def _steps(before: Ints, residual: Residual) -> list[tuple[int, int]]:
    steps, here = [], residual.target
    while here != residual.source:
        steps.append((int(before[here]), here))
        here = int(before[here])
    return steps[::-1]
