"""Ways of light through the plant, by increasing loss."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Container, Iterator
from dataclasses import dataclass

from controller.routing.light.plant import NANO, Edge, Glass, Group, Hop, Leave, Plant, Port, Vertex, mhz_of, passes

Cost = tuple[int, int]
"""Loss in nano-dB, and number of hops. Whole numbers, so that equal ways compare equal whatever the order of their parts."""

GUARD_GHZ = 50.0
"""Least distance of two wavelengths in one fibre, unless the caller says otherwise."""
MAX_STEPS = 200_000
"""How many partial ways one search extends before it gives up; only plants with many loops come near."""


class TooManyPaths(Exception):
    """The search was given up after MAX_STEPS partial ways."""


@dataclass(frozen=True, slots=True)
class Leg:
    """Across a device (`inside_db` is None for the first leg of a way that starts over glass), then over one trunk of a group."""

    inside_db: float | None
    group: Group
    forward: bool


@dataclass(frozen=True, slots=True)
class Way:
    """Light from one port to another, by no device's side and no port twice. `last_inside_db`: it ends by crossing the last device."""

    source: Port
    target: Port
    legs: tuple[Leg, ...]
    last_inside_db: float | None

    @property
    def loss_db(self) -> float:
        return _nano(self.last_inside_db, *(loss for leg in self.legs for loss in (leg.inside_db, leg.group.loss_db))) / NANO

    def reversed(self) -> Way:
        """The same way for light that runs from the target to the source."""
        inside = [leg.inside_db for leg in self.legs] + [self.last_inside_db]
        legs = [Leg(before, leg.group, not leg.forward) for before, leg in zip(inside[:0:-1], self.legs[::-1], strict=True)]
        return Way(self.target, self.source, tuple(legs), inside[0])

    def hops(self, pick: Callable[[Group], Glass]) -> tuple[Hop, ...]:
        """The hops over the trunks that `pick` gives, group by group from the source on."""
        found = []
        for leg in self.legs:
            glass = pick(leg.group)
            near, far = glass.oriented(forward=leg.forward)
            if leg.inside_db is not None:
                found.append(Hop(near, "inside", leg.inside_db))
            found.append(Hop(far, "glass", glass.loss_db, glass.link))
        if self.last_inside_db is not None:
            found.append(Hop(self.target, "inside", self.last_inside_db))
        return tuple(found)


def _nano(*losses_db: float | None) -> int:
    return sum(round((loss or 0.0) * NANO) for loss in losses_db)


@dataclass(slots=True, eq=False)
class _Part:
    """The beginning of a way. `vertex` is None where it is complete."""

    cost: Cost
    groups: tuple[int, ...]
    vertex: Vertex | None
    before: _Part | None
    choice: int
    """By which of the successors of `before` it came about."""
    leg: Leg | None = None
    last_inside_db: float | None = None

    def chain(self) -> list[_Part]:
        """It and all before it, from the start."""
        parts: list[_Part] = []
        part: _Part | None = self
        while part is not None:
            parts.append(part)
            part = part.before
        return parts[::-1]


_START = _Part((0, 0), (), ("", ""), None, 0)


class _Search:
    """One search: what is blocked, what passes at this wavelength, and the least cost from each vertex to the target."""

    def __init__(self, plant: Plant, source: Port, target: Port, mhz: int | None, guard_mhz: int, taken: Collection[Port]) -> None:
        self.plant, self.source, self.target = plant, source, target
        self.mhz, self.guard_mhz, self.taken = mhz, guard_mhz, taken
        self._free: dict[int, int] = {}
        self._open: dict[Vertex, list[tuple[Edge, Cost]]] = {}
        self.last: dict[Vertex, list[tuple[Leave, Glass | None, Cost]]] = {}
        for leave, glass in self._last():
            cost = _nano(leave.inside_db, glass.loss_db if glass else 0.0), 2 if glass else 1
            self.last.setdefault(leave.vertex, []).append((leave, glass, cost))
        self.to_go = self._to_go()
        self.steps = 0

    def clear(self, glass: Glass) -> bool:
        """Whether the wavelength keeps the guard to what others have lit there."""
        return not glass.channels or (
            self.mhz is not None and all(abs(mhz_of(each.wavelength_nm) - self.mhz) >= self.guard_mhz for each in glass.channels)
        )

    def free(self, group: Group) -> int:
        """How many trunks of a group this way may use."""
        if group.number not in self._free:
            ends = (self.source, self.target)
            self._free[group.number] = sum(
                not any(port in self.taken or port in ends for port in (glass.a, glass.b)) for glass in group.trunks
            )
        return self._free[group.number]

    def _passable(self, edge: Edge) -> bool:
        return self.free(edge.group) > 0 and passes(edge.leave.bands, self.mhz) and self.clear(edge.group.trunks[0])

    def open(self, vertex: Vertex) -> list[tuple[Edge, Cost]]:
        """The edges this way may use out of a vertex, with their costs."""
        if vertex not in self._open:
            self._open[vertex] = [
                (edge, (_nano(edge.leave.inside_db, edge.group.loss_db), 2))
                for edge in self.plant.edges.get(vertex, ())
                if edge.to in self.to_go and self._passable(edge)
            ]
        return self._open[vertex]

    def _last(self) -> Iterator[tuple[Leave, Glass | None]]:
        """The last steps to the target: across its own device, or out of the one before it and over the target's glass."""
        glass = self.plant.glass.get(self.target)
        near = glass.far(self.target) if glass else None
        if glass and near and near != self.source and near not in self.taken and self.clear(glass):
            yield from ((leave, glass) for leave in self.plant.leaves(near) if passes(leave.bands, self.mhz))
        yield from ((leave, None) for leave in self.plant.leaves(self.target) if passes(leave.bands, self.mhz))

    def _to_go(self) -> dict[Vertex, Cost]:
        least: dict[Vertex, Cost] = {}
        queue = [(cost, vertex) for vertex, steps in self.last.items() for _, _, cost in steps]
        heapq.heapify(queue)
        while queue:
            (loss, hops), vertex = heapq.heappop(queue)
            if vertex in least:
                continue
            least[vertex] = (loss, hops)
            for edge in self.plant.into.get(vertex, ()):
                if edge.leave.vertex not in least and self._passable(edge):
                    heapq.heappush(queue, ((loss + _nano(edge.leave.inside_db, edge.group.loss_db), hops + 2), edge.leave.vertex))
        return least

    def after(self, part: _Part, seen: Container[Vertex | None]) -> Iterator[_Part]:
        """What may follow a part without coming by what was seen."""
        if part is _START:
            yield from self._first()
            return
        vertex, cost = part.vertex, part.cost
        assert vertex is not None
        last = self.last.get(vertex, [])
        for choice, (leave, end, more) in enumerate(last):
            total = cost[0] + more[0], cost[1] + more[1]
            if end is None:
                yield _Part(total, part.groups, None, part, choice, last_inside_db=leave.inside_db)
            else:
                yield _Part(total, part.groups, None, part, choice, Leg(leave.inside_db, _lone(end), self.target == end.b))
        for choice, (edge, more) in enumerate(self.open(vertex), len(last)):
            if edge.to not in seen:
                leg = Leg(edge.leave.inside_db, edge.group, edge.forward)
                total = cost[0] + more[0], cost[1] + more[1]
                yield _Part(total, (*part.groups, edge.group.number), edge.to, part, choice, leg)

    def _first(self) -> Iterator[_Part]:
        glass = self.plant.glass.get(self.source)
        far = glass.far(self.source) if glass else None
        if glass and far and far not in self.taken and self.clear(glass):
            vertex = None if far == self.target else self.plant.arrival(far)
            if far == self.target or vertex is not None:
                yield _Part((_nano(glass.loss_db), 1), (), vertex, _START, 0, Leg(None, _lone(glass), self.source == glass.a))
        inside = self.plant.arrival(self.source)
        if inside is not None:
            yield _Part((0, 0), (), inside, _START, 1)

    def complete(self, part: _Part, banned: frozenset[int]) -> _Part | None:
        """The cheapest complete way that begins so, visits no vertex twice, and does not go on by a banned choice."""
        seen = {each.vertex for each in part.chain()}
        queue: list[tuple[Cost, tuple[int, ...], int, _Part]] = [((0, 0), (), 0, part)]
        while queue:
            here = heapq.heappop(queue)[3]
            if here.vertex is None:
                return here
            if here is not part:
                if here.vertex in seen:
                    continue
                seen.add(here.vertex)
            for each in self.after(here, seen):
                if here is part and each.choice in banned:
                    continue
                rest = (0, 0) if each.vertex is None else self.to_go.get(each.vertex)
                if rest is not None:
                    self.steps += 1
                    total = each.cost[0] + rest[0], each.cost[1] + rest[1]
                    heapq.heappush(queue, (total, each.groups, self.steps, each))
            if self.steps > MAX_STEPS:
                raise TooManyPaths
        return None

    def possible(self, part: _Part) -> bool:
        """Whether there is a trunk for every leg."""
        return all(
            part.groups.count(leg.group.number) <= self.free(leg.group)
            for each in part.chain()
            if (leg := each.leg) and leg.group.number >= 0
        )


def ways(
    plant: Plant,
    source: Port,
    target: Port,
    *,
    mhz: int | None = None,
    guard_mhz: int = round(GUARD_GHZ * 1000),
    taken: Collection[Port] = (),
) -> Iterator[Way]:
    """Every way that uses none of `taken`, by loss, then hops, then port; a way by other trunks of the same groups is the same way.

    Lawler's partition (Management Science 18, 401, 1972): each way found is a cheapest one, and the ways that leave it at each of its steps
    are searched next. Light comes by no side of a switch twice: of a way that does, the shorter one without the loop uses fewer ports.
    Raises TooManyPaths.
    """
    if source in taken or target in taken or source == target:
        return
    search = _Search(plant, source, target, mhz, guard_mhz, taken)
    queue: list[tuple[Cost, tuple[int, ...], int, _Part, int, frozenset[int]]] = []

    def put(part: _Part, depth: int, banned: frozenset[int]) -> None:
        found = search.complete(part, banned)
        if found is not None:
            heapq.heappush(queue, (found.cost, found.groups, search.steps, found, depth, banned))

    put(_START, 0, frozenset())
    while queue:
        *_, found, depth, banned = heapq.heappop(queue)
        chain = found.chain()
        if search.possible(found):
            yield Way(source, target, tuple(each.leg for each in chain if each.leg is not None), found.last_inside_db)
        for number in range(depth, len(chain) - 1):
            left = chain[number + 1].choice
            put(chain[number], number, (banned if number == depth else frozenset()) | {left})


def _lone(glass: Glass) -> Group:
    """The glass at an end of the way."""
    return Group(-1, (glass,), pooled=False)
