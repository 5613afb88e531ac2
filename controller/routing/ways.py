"""Ways of light through the plant, by increasing loss."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from controller.routing.plant import NANO, Edge, Glass, Group, Hop, Leave, Plant, Port, Vertex, mhz_of, passes

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


class _Search:
    """One search: what is blocked, what passes at this wavelength, and the least cost from each vertex to the target."""

    def __init__(self, plant: Plant, source: Port, target: Port, mhz: int | None, guard_mhz: int, taken: Collection[Port]) -> None:
        self.plant, self.source, self.target = plant, source, target
        self.mhz, self.guard_mhz, self.taken = mhz, guard_mhz, taken
        self._free: dict[int, int] = {}
        self.last = list(self._last())
        self.to_go = self._to_go()

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

    def open(self, edge: Edge) -> bool:
        return self.free(edge.group) > 0 and passes(edge.leave.bands, self.mhz) and self.clear(edge.group.trunks[0])

    def _last(self) -> Iterator[tuple[Leave, Glass | None]]:
        """The last steps to the target: across its own device, or out of the one before it and over the target's glass."""
        glass = self.plant.glass.get(self.target)
        near = glass.far(self.target) if glass else None
        if glass and near and near != self.source and near not in self.taken and self.clear(glass):
            yield from ((leave, glass) for leave in self.plant.leaves(near) if passes(leave.bands, self.mhz))
        yield from ((leave, None) for leave in self.plant.leaves(self.target) if passes(leave.bands, self.mhz))

    def _to_go(self) -> dict[Vertex, Cost]:
        least: dict[Vertex, Cost] = {}
        queue: list[tuple[Cost, Vertex]] = [
            ((_nano(leave.inside_db, glass.loss_db if glass else 0.0), 2 if glass else 1), leave.vertex) for leave, glass in self.last
        ]
        heapq.heapify(queue)
        while queue:
            (loss, hops), vertex = heapq.heappop(queue)
            if vertex in least:
                continue
            least[vertex] = (loss, hops)
            for edge in self.plant.into.get(vertex, ()):
                if edge.leave.vertex not in least and self.open(edge):
                    heapq.heappush(queue, ((loss + _nano(edge.leave.inside_db, edge.group.loss_db), hops + 2), edge.leave.vertex))
        return least


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

    A best-first search, guided by the exact distance where devices may repeat. Light comes by no side of a switch twice: of a way that
    does, the shorter one without the loop uses fewer ports. Raises TooManyPaths.
    """
    if source in taken or target in taken or source == target:
        return
    search = _Search(plant, source, target, mhz, guard_mhz, taken)
    queue: list[tuple[Cost, tuple[int, ...], int, Cost, Vertex | None, tuple[Leg, ...], float | None, tuple[Vertex, ...]]] = []
    pushed = 0

    def push(vertex: Vertex | None, legs: tuple[Leg, ...], cost: Cost, last: float | None, seen: tuple[Vertex, ...]) -> None:
        nonlocal pushed
        rest = (0, 0) if vertex is None else search.to_go.get(vertex)
        if rest is not None:
            pushed += 1
            total = (cost[0] + rest[0], cost[1] + rest[1])
            heapq.heappush(queue, (total, tuple(leg.group.number for leg in legs), pushed, cost, vertex, legs, last, seen))

    glass = plant.glass.get(source)
    if glass is not None and glass.far(source) not in taken and search.clear(glass):
        far = glass.far(source)
        first = Leg(None, _lone(glass), source == glass.a)
        vertex = None if far == target else plant.arrival(far)
        if far == target or vertex is not None:
            push(vertex, (first,), (_nano(glass.loss_db), 1), None, ())
    inside = plant.arrival(source)
    if inside is not None:
        push(inside, (), (0, 0), None, ())
    while queue:
        _, _, _, cost, vertex, legs, last, seen = heapq.heappop(queue)
        if vertex is None:
            yield Way(source, target, legs, last)
            continue
        if pushed > MAX_STEPS:
            raise TooManyPaths
        here = (*seen, vertex)
        for leave, end in search.last:
            if leave.vertex == vertex and end is None:
                push(None, legs, (cost[0] + _nano(leave.inside_db), cost[1] + 1), leave.inside_db, here)
            elif leave.vertex == vertex and end is not None:
                final = Leg(leave.inside_db, _lone(end), target == end.b)
                push(None, (*legs, final), (cost[0] + _nano(leave.inside_db, end.loss_db), cost[1] + 2), None, here)
        for edge in plant.edges.get(vertex, ()):
            used = sum(leg.group.number == edge.group.number for leg in legs)
            if edge.to not in here and search.open(edge) and used < search.free(edge.group):
                leg = Leg(edge.leave.inside_db, edge.group, edge.forward)
                loss, hops = _nano(leg.inside_db, edge.group.loss_db), 2
                push(edge.to, (*legs, leg), (cost[0] + loss, cost[1] + hops), None, here)


def _lone(glass: Glass) -> Group:
    """The glass at an end of the way."""
    return Group(-1, (glass,), pooled=False)
