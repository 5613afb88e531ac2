"""What a candidate way of a strand occupies: chains of optical switches, modules, and glass where it may meet other strands."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from controller.routing.light.coexisting import Passage
from controller.routing.light.plant import Plant, Port
from controller.routing.light.strands import Candidate

Run = tuple[Port | int, ...]
"""A chain of optical switches: the port by which light enters it, the groups of trunks between, the port by which it leaves; the port
alone where light begins or ends there; read from whichever end sorts first, since a cross-connect carries light both ways."""
Place = tuple[object, ...]
"""Glass in which strands may meet: a single one, or the trunk that a bundle takes at one step of a run."""
Claim = tuple[str, object]
"""What is exclusive: a port or a module, or one trunk of a group."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    runs: frozenset[Run]
    modules: tuple[Port, ...]
    places: dict[Place, Passage]
    """Where it can meet strands of any bundle; and, by run and step, strands of its own bundle."""
    beside: tuple[Place, ...]
    """More glass where other strands must keep the guard to it: that of its bare ends, and what splitters light beside its way."""
    steps: dict[int, tuple[Run, int]]
    """For each leg over a pooled group, which step of which run it is."""


def claims(run: Run) -> Counter[Claim]:
    """What a run needs for itself."""
    ports = {("port", part) for part in (run[0], run[-1])}
    return Counter([*ports, *(("group", part) for part in run if isinstance(part, int))])


def occupancy(plant: Plant, candidate: Candidate) -> Occupancy:
    way = candidate.way
    runs: set[Run] = set()
    steps: dict[int, tuple[Run, int]] = {}
    places: dict[Place, Passage] = {}
    parts: list[Port | int] = []
    over: list[int] = []

    def close() -> None:
        if not parts:
            return
        turned = repr(parts[::-1]) < repr(parts)
        run = tuple(parts[::-1] if turned else parts)
        runs.add(run)
        for step, leg in enumerate(over[::-1] if turned else over):
            steps[leg] = (run, step)
            places["run", run, step] = candidate.passages[leg]
        parts.clear()
        over.clear()

    if plant.side(way.source) is not None:
        parts.append(way.source)
    for number, leg in enumerate(way.legs):
        if leg.group.pooled:
            parts.append(leg.group.number)
            over.append(number)
            continue
        glass = leg.group.trunks[0]
        near, far = glass.oriented(forward=leg.forward)
        if leg.inside_db is not None and plant.side(near) is not None:
            parts.append(near)
        close()
        places["glass", glass.a] = candidate.passages[number]
        if plant.side(far) is not None:
            parts.append(far)
    if parts and way.last_inside_db is not None:
        parts.append(way.target)
    close()
    beside: list[Place] = [("run", run) for run in runs]
    for terminal in (candidate.near, candidate.far):
        if terminal.module is None:
            beside.append(_glass(plant, terminal.port))
    for port in candidate.shine.beside:
        beside.append(_glass(plant, port))
        if plant.side(port) is not None:
            runs.add((port,))
    modules = tuple(each.port for each in (candidate.near, candidate.far) if each.module is not None)
    return Occupancy(frozenset(runs), modules, places, tuple(beside), steps)


def _glass(plant: Plant, port: Port) -> Place:
    return ("glass", plant.glass[port].a) if port in plant.glass else ("port", port)
