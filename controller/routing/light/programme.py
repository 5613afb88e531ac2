"""The integer programme behind joint lightpaths: which candidate of which strand, so that nothing exclusive is given twice."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from controller.routing.compiled import Floats
from controller.routing.light.coexisting import Neighbour, noise
from controller.routing.light.occupancy import Claim, Occupancy, Place, Run, claims, occupancy
from controller.routing.light.plant import Plant, Port
from controller.routing.light.strands import Bundle, Candidate, Choice


@dataclass(frozen=True, slots=True)
class Column:
    """One candidate of one strand (by number) of one bundle (by number): a yes or no of the programme."""

    bundle: int
    strand: int
    candidate: Candidate
    occupancy: Occupancy


@dataclass(frozen=True, slots=True)
class Limits:
    plant: Plant
    guard_mhz: int
    taken: Collection[Port]


_Row = tuple[dict[int, float], float, float]
"""Coefficients by variable, least and most of their sum."""


def columns_of(plant: Plant, possible: Sequence[tuple[Bundle, Sequence[Choice]]]) -> list[Column]:
    return [
        Column(bundle, strand, candidate, occupancy(plant, candidate))
        for bundle, (_, choices) in enumerate(possible)
        for strand, choice in enumerate(choices)
        for candidate in choice.candidates
    ]


def solve(
    columns: Sequence[Column], priorities: Sequence[int], limits: Limits, time_limit_s: float, *, noisy: bool = True
) -> tuple[list[tuple[Column, ...] | None], bool]:
    """Per bundle the columns that serve it, or None; and whether nothing better is among them."""
    if not columns:
        return [None] * len(priorities), True
    served = range(len(columns), len(columns) + len(priorities))
    rows, count = _rows(columns, served, limits, noisy=noisy)
    loss = np.zeros(count)
    loss[: len(columns)] = [each.candidate.loss_db for each in columns]
    goals: list[tuple[Floats, list[int]]] = []
    for level in sorted(set(priorities), reverse=True):
        of_level = [served[bundle] for bundle, priority in enumerate(priorities) if priority == level]
        goal = np.zeros(count)
        goal[of_level] = -1.0
        goals.append((goal, of_level))
    goals.append((loss, []))
    until = time.monotonic() + time_limit_s
    best: Floats | None = None
    finished = True
    for goal, of_level in goals:
        result = milp(
            goal,
            constraints=_constraints(rows, count),
            bounds=Bounds(0, 1),
            integrality=np.arange(count) < served.stop,
            options={"mip_rel_gap": 0.0, "time_limit": max(0.01, until - time.monotonic())},
        )
        finished &= result.status == 0
        if result.x is None:
            break
        best = result.x
        if of_level:
            rows.append((dict.fromkeys(of_level, 1.0), float(np.rint(-goal @ best)), math.inf))
    picked: list[list[Column]] = [[] for _ in priorities]
    for column, value in zip(columns, best if best is not None else (), strict=False):
        if value > 0.5:
            picked[column.bundle].append(column)
    return [tuple(sorted(each, key=lambda column: column.strand)) or None for each in picked], finished


def _constraints(rows: Sequence[_Row], count: int) -> LinearConstraint:
    entries = [(number, variable, value) for number, row in enumerate(rows) for variable, value in row[0].items()]
    at, variables, values = (np.array(each) for each in zip(*entries, strict=True))
    matrix = csr_array((values.astype(float), (at, variables)), shape=(len(rows), count))
    return LinearConstraint(matrix, [row[1] for row in rows], [row[2] for row in rows])


def _rows(columns: Sequence[Column], served: range, limits: Limits, *, noisy: bool) -> tuple[list[_Row], int]:
    """The constraints, and how many variables there are: columns, bundles served, runs that strands of a bundle may share."""
    rows: list[_Row] = []
    strands: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, column in enumerate(columns):
        strands[column.bundle, column.strand].append(number)
    rows += [({**dict.fromkeys(numbers, 1.0), served[bundle]: -1.0}, 0.0, 0.0) for (bundle, _), numbers in strands.items()]
    exclusive, count = _exclusive(columns, served.stop, limits, rows)
    for (kind, what), users in exclusive.items():
        room = 1
        if kind == "group" and isinstance(what, int):
            trunks = limits.plant.groups[what].trunks
            room = sum(glass.a not in limits.taken and glass.b not in limits.taken for glass in trunks)
        if sum(users.values()) > room:
            rows.append((dict(users), -math.inf, float(room)))
    rows += _guarded(columns, limits.guard_mhz)
    if noisy:
        rows += _quiet(columns)
    return rows, count


def _exclusive(columns: Sequence[Column], count: int, limits: Limits, rows: list[_Row]) -> tuple[dict[Claim, Counter[int]], int]:
    """Who needs how much of what is exclusive; adds a variable and its rows for each run that several strands of a bundle may share."""
    users: dict[tuple[int, Run], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    exclusive: dict[Claim, Counter[int]] = defaultdict(Counter)
    for number, column in enumerate(columns):
        for run in column.occupancy.runs:
            users[column.bundle, run][column.strand].append(number)
        for port in column.occupancy.modules:
            exclusive["module", port][number] += 1
    for (_, run), by_strand in users.items():
        terms = next(iter(by_strand.values()))
        if len(by_strand) > 1:
            rows += [({**dict.fromkeys(numbers, 1.0), count: -1.0}, -math.inf, 0.0) for numbers in by_strand.values()]
            terms = [count]
            count += 1
        for claim, amount in claims(run).items():
            for term in terms:
                exclusive[claim][term] += amount
    return exclusive, count


def _guarded(columns: Sequence[Column], guard_mhz: int) -> Iterator[_Row]:
    """In any glass, of the light within a guard's width at most one; light of unknown wavelength is alone."""
    meeting: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for number, column in enumerate(columns):
        for place in {*column.occupancy.places, *column.occupancy.beside}:
            meeting[_where(column, place)].append(number)
    seen: set[tuple[int, ...]] = set()
    for numbers in meeting.values():
        for low in {columns[number].candidate.mhz for number in numbers}:
            close = tuple(
                number
                for number in numbers
                if (mhz := columns[number].candidate.mhz) is None or (low is not None and low <= mhz < low + guard_mhz)
            )
            if close not in seen and len({(columns[number].bundle, columns[number].strand) for number in close}) > 1:
                seen.add(close)
                yield dict.fromkeys(close, 1.0), -math.inf, 1.0


def _where(column: Column, place: Place) -> tuple[object, ...]:
    """A place for all bundles; the trunk of a run is that of one bundle."""
    return (column.bundle, *place) if place[0] == "run" else place


def meetings(quantum: Column, classical: Column) -> list[Neighbour]:
    """Where a classical strand shares glass with a quantum one."""
    light = classical.candidate
    if light.wavelength_nm is None or light.launch_dbm is None:
        return []
    shared = [
        (mine, classical.occupancy.places[place])
        for place, mine in quantum.occupancy.places.items()
        if place in classical.occupancy.places and (place[0] != "run" or quantum.bundle == classical.bundle)
    ]
    name = f"the {light.strand.signal} strand {light.strand.src} to {light.strand.dst}"
    return [
        Neighbour(mine, light.wavelength_nm, light.launch_dbm - its.before_db, mine.forward == its.forward, name) for mine, its in shared
    ]


def _noise_hz(met: Sequence[Neighbour], candidate: Candidate) -> float:
    """Infinite where it cannot be known."""
    if not met or candidate.wavelength_nm is None:
        return 0.0
    found = noise(met, candidate.wavelength_nm, candidate.strand.filter_nm)
    return math.inf if found is None else found.photons_hz


def _quiet(columns: Sequence[Column]) -> Iterator[_Row]:
    """The noise of all classical strands chosen stays below what each quantum strand chosen allows."""
    by_place: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for number, column in enumerate(columns):
        if column.candidate.strand.classical:
            for place in column.occupancy.places:
                by_place[_where(column, place)].append(number)
    for number, column in enumerate(columns):
        candidate = column.candidate
        if candidate.strand.classical or candidate.most_hz == math.inf:
            continue
        room_hz = candidate.most_hz - candidate.lit_hz
        near = sorted({other for place in column.occupancy.places for other in by_place.get(_where(column, place), ())})
        parts: dict[int, float] = {}
        for other in near:
            found_hz = _noise_hz(meetings(column, columns[other]), candidate)
            if found_hz > room_hz:
                yield {number: 1.0, other: 1.0}, -math.inf, 1.0
            elif found_hz > 0:
                parts[other] = found_hz / room_hz
        most = sum(parts.values())
        if most > 1:
            yield {**parts, number: most}, -math.inf, 1.0 + most
