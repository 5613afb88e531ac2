"""Lightpaths for many bundles at once: an integer programme over the candidate ways of their strands.

As many bundles as can be, those of higher priority first, then the least total loss. What is exclusive: a port of an optical switch takes
one cross-connect, in either direction; strands of one bundle may share it with all that lies between (they came through one filter).
Other glass is shared by wavelength, with a guard. The Raman noise of classical strands in a quantum one adds up.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from controller.network.topology import Topology
from controller.physics.domain import whole, within
from controller.routing.light.coexisting import neighbours, noise, noise_told
from controller.routing.light.light_route import LEAST_GUARD_GHZ, CrossConnection, LightRoute, MediaChannel, render, terminals
from controller.routing.light.occupancy import Run
from controller.routing.light.plant import Glass, Plant, Port, build
from controller.routing.light.programme import Column, Limits, columns_of, meetings, solve
from controller.routing.light.strands import Bundle, Strand, choose
from controller.routing.light.ways import GUARD_GHZ
from controller.routing.refusal import NoRoute


@dataclass(frozen=True, slots=True)
class StrandRoute:
    strand: Strand
    route: LightRoute
    received_dbm: float | None
    noise_hz: float | None
    """Raman photons per second at a quantum receiver; None where the wavelengths are outside the model."""
    most_noise_hz: float

    def to_json(self) -> dict[str, object]:
        most = None if self.most_noise_hz == math.inf else self.most_noise_hz
        quantum = {} if self.strand.classical else {"noise_hz": self.noise_hz, "most_noise_hz": most}
        return {**self.route.to_json(), "signal": self.strand.signal, "received_dbm": self.received_dbm, **quantum}


@dataclass(frozen=True, slots=True)
class BundleRoute:
    strands: tuple[StrandRoute, ...]

    @property
    def loss_db(self) -> float:
        return sum(each.route.loss_db for each in self.strands)

    @property
    def cross_connects(self) -> tuple[CrossConnection, ...]:
        """Each once, however many strands share it, and whichever way they run."""
        unique = {(each.switch, frozenset((each.ingress, each.egress))): each for one in self.strands for each in one.route.cross_connects}
        return tuple(unique.values())

    @property
    def media_channels(self) -> tuple[MediaChannel, ...]:
        return tuple(each for one in self.strands for each in one.route.media_channels)

    def to_json(self) -> dict[str, object]:
        return {"loss_db": self.loss_db, "strands": [each.to_json() for each in self.strands]}


@dataclass(frozen=True, slots=True)
class Assignment:
    """What is served and what is not. `exact`: no other assignment is better; else `explanation` says what was left out."""

    served: Mapping[str, BundleRoute]
    refused: Mapping[str, NoRoute]
    exact: bool
    explanation: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "served": {name: each.to_json() for name, each in self.served.items()},
            "refused": {name: each.to_json() for name, each in self.refused.items()},
            "exact": self.exact,
            "explanation": list(self.explanation),
        }


def assign(
    topology: Topology,
    requests: Sequence[Bundle],
    *,
    taken: Collection[Port] = frozenset(),
    guard_ghz: float = GUARD_GHZ,
    candidates: int = 16,
    time_limit_s: float = 10.0,
) -> Assignment:
    """Ports and wavelengths for all requests at once, using no port in `taken` (node, port).

    Each strand chooses among its `candidates` ways of least loss per pair of ends and wavelength; parallel trunks of equal loss are one
    way, so that a few go far. The choice among them is exact, unless `time_limit_s` ends the search. A switch port that classical light
    reaches beside its way, by a splitter, is given to nobody. Raman noise counts in glass that strands share; four-wave mixing and the
    crosstalk of filters are left out.
    Raises UnknownName, and ValueError for two requests of one name or a parameter outside its range.
    """
    within("guard_ghz", guard_ghz, LEAST_GUARD_GHZ, 100_000)
    whole("candidates", candidates, 1, 10_000)
    within("time_limit_s", time_limit_s, 0, open_low=True)
    if len({each.name for each in requests}) < len(requests):
        raise ValueError("two requests have one name; give each its own")
    guard_mhz = round(guard_ghz * 1000)
    taken = frozenset(taken)
    plant = _apart(topology, requests)
    choices = [[choose(topology, plant, strand, candidates, guard_mhz, taken) for strand in each.strands] for each in requests]
    refused = {
        bundle.name: next(choice.refused for choice in some if choice.refused is not None)
        for bundle, some in zip(requests, choices, strict=True)
        if any(choice.refused is not None for choice in some)
    }
    possible = [(bundle, some) for bundle, some in zip(requests, choices, strict=True) if bundle.name not in refused]
    limits = Limits(plant, guard_mhz, taken)
    columns = columns_of(plant, possible)
    chosen, finished = solve(columns, [bundle.priority for bundle, _ in possible], limits, time_limit_s)
    used, everything = set(taken), [column for picked in chosen for column in picked or ()]
    served = {
        bundle.name: _told(topology, limits, picked, everything, used)
        for (bundle, _), picked in zip(possible, chosen, strict=True)
        if picked is not None
    }
    for index, (bundle, _) in enumerate(possible):
        if chosen[index] is None:
            own = [replace(each, bundle=0) for each in columns if each.bundle == index]
            refused[bundle.name] = _why(bundle, own, limits, time_limit_s)
    cut = sum(not all(choice.all for choice in some) for _, some in possible)
    best = len(served) == len(requests) and all(
        picked is not None and all(one.candidate.loss_db <= choice.candidates[0].loss_db for one, choice in zip(picked, some, strict=True))
        for picked, (_, some) in zip(chosen, possible, strict=True)
    )
    explanation = [f"{len(served)} of {len(requests)} served, {sum(each.loss_db for each in served.values()):.6g} dB lost in all"]
    if cut and not best:
        explanation.append(f"bounded: {cut} bundles have more ways than the {candidates} of least loss that were tried per strand")
    if not finished:
        explanation.append(f"bounded: the search was ended after {time_limit_s:g} s")
    return Assignment(served, refused, best or (finished and not cut), tuple(explanation))


def _apart(topology: Topology, requests: Sequence[Bundle]) -> Plant:
    """The plant with the trunks at bare ports that requests name out of the pools: not any trunk will do there."""
    plant = build(topology)
    ends = {each.port for bundle in requests for strand in bundle.strands for text in (strand.src, strand.dst)
            for each in terminals(topology, plant, text) if each.module is None}  # fmt: skip
    return plant.with_alone(ends) if any(plant.side(port) is not None for port in ends) else plant


def _why(bundle: Bundle, own: list[Column], limits: Limits, time_limit_s: float) -> NoRoute:
    """Why a bundle whose strands each have a way is not served."""
    if solve(own, [0], limits, time_limit_s)[0][0] is not None:
        return NoRoute(f"others hold ports or wavelengths, or make noise, that every assignment of {bundle.name} needs free", "ports")
    if solve(own, [0], limits, time_limit_s, noisy=False)[0][0] is not None:
        return NoRoute(f"the classical strands of {bundle.name} make more Raman noise than its quantum strands allow", "noise")
    return NoRoute(f"the strands of {bundle.name} need the same ports or wavelengths", "ports")


def _told(topology: Topology, limits: Limits, picked: Sequence[Column], everything: Sequence[Column], used: set[Port]) -> BundleRoute:
    """The routes of one bundle beside everything that is lit; marks the trunks it takes as used."""
    allotted: dict[tuple[Run, int], Glass] = {}
    routes = []
    for column in picked:
        candidate, steps = column.candidate, column.occupancy.steps
        trunks = []
        for number, leg in enumerate(candidate.way.legs):
            if number in steps and steps[number] not in allotted:
                allotted[steps[number]] = leg.group.take(used)
            trunks.append(allotted[steps[number]] if number in steps else leg.group.trunks[0])
        following = iter(trunks)
        hops = candidate.way.hops(lambda _, following=following: next(following))  # type: ignore[misc]
        arriving = None if candidate.launch_dbm is None else candidate.launch_dbm - candidate.loss_db
        told = [] if arriving is None else [f"{candidate.launch_dbm:g} dBm are launched, {arriving:.6g} dBm arrive"]
        noise_hz: float | None = 0.0
        if not candidate.strand.classical:
            met = neighbours(candidate.passages)
            met += [each for other in everything if other.candidate.strand.classical for each in meetings(column, other)]
            if met and candidate.wavelength_nm is not None:
                found = noise(met, candidate.wavelength_nm, candidate.strand.filter_nm)
                told += noise_told(met, found, candidate.strand.filter_nm, candidate.most_hz)
                noise_hz = found.photons_hz if found else None
        route = render(
            topology,
            limits.plant,
            candidate.near.port,
            hops,
            wavelength_nm=candidate.wavelength_nm,
            guard_mhz=limits.guard_mhz,
            budget_db=candidate.budget_db,
            loss_db=candidate.loss_db,
            more=told,
        )
        routes.append(StrandRoute(candidate.strand, route, arriving, noise_hz, candidate.most_hz))
    return BundleRoute(tuple(routes))
