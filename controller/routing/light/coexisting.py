"""What strands of light in the same glass do to each other: where they meet, and the Raman noise of classical ones in a quantum one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from controller.physics.coexistence import DataChannel, RamanCoefficient, RamanNoise, SharedSpan, raman_noise
from controller.routing.light.plant import Glass
from controller.routing.light.ways import Way

FILTER_NM = 0.2
"""Width of the filter before a quantum receiver, assumed where none is given."""
_RAMAN_NM = (1200.0, 1700.0)
"""Where the Raman model holds."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One strand in one glass: which way it runs, and what it loses before and after."""

    glass: Glass
    forward: bool
    before_db: float
    after_db: float


def passages(way: Way) -> Iterator[Passage]:
    """The glass a way leads through; of a group, its first trunk stands for all."""
    total_db, before_db = way.loss_db, 0.0
    for leg in way.legs:
        before_db += leg.inside_db or 0.0
        glass = leg.group.trunks[0]
        yield Passage(glass, leg.forward, before_db, max(0.0, total_db - before_db - glass.loss_db))
        before_db += glass.loss_db


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A classical strand where it meets a quantum one: `launch_dbm` is its power as it enters the glass they share."""

    quantum: Passage
    wavelength_nm: float
    launch_dbm: float
    with_quantum: bool
    name: str


def neighbours(quantum: Iterable[Passage]) -> list[Neighbour]:
    """The data channels that others have lit in the glass of a quantum strand."""
    return [
        Neighbour(
            passage, channel.wavelength_nm, channel.launch_dbm, (channel.direction == "forward") == passage.forward, "a channel of others"
        )
        for passage in quantum
        for channel in passage.glass.channels
    ]


def noise(met: Sequence[Neighbour], quantum_nm: float, filter_nm: float) -> RamanNoise | None:
    """The noise of all of them at the quantum receiver, in their order; None where a wavelength is outside what the model covers."""
    if not all(_RAMAN_NM[0] <= nm <= _RAMAN_NM[1] for nm in (quantum_nm, *(each.wavelength_nm for each in met))):
        return None
    spans = [
        SharedSpan(
            each.quantum.glass.length_km,
            (DataChannel(each.wavelength_nm, max(-100.0, each.launch_dbm), each.with_quantum, _coefficient(each.quantum.glass)),),
            min(100.0, each.quantum.glass.loss_db_per_km),
            min(100.0, each.quantum.glass.loss_db_per_km),
            each.quantum.after_db,
        )
        for each in met
    ]
    return raman_noise(spans, quantum_nm, filter_nm)


def _coefficient(glass: Glass) -> RamanCoefficient | None:
    if glass.raman is None:
        return None
    return RamanCoefficient(
        glass.raman.value, "assumed" if glass.raman.origin == "assumed" else "declared", glass.raman.source or "no source is given"
    )


def noise_told(met: Sequence[Neighbour], found: RamanNoise | None, filter_nm: float, most_hz: float = math.inf) -> list[str]:
    """The noise for an explanation: every coefficient with origin and source."""
    if found is None:
        return ["Raman noise: not known at these wavelengths"]
    lines = [
        f"{each.name}, {each.wavelength_nm:g} nm at {each.launch_dbm:.4g} dBm into {each.quantum.glass.link or 'a patch cord'},"
        f" {'with' if each.with_quantum else 'against'} the quantum light:"
        f" Raman coefficient {used.beta_per_km_nm:.3g} /(km nm) ({used.origin}, {used.source})"
        for each, used in zip(met, found.coefficients, strict=True)
    ]
    most = "" if most_hz == math.inf else f", of {most_hz:.4g} photons/s allowed"
    return [*lines, f"Raman noise: {found.photons_hz:.4g} photons/s in {filter_nm:g} nm at the receiver ({found.origin}){most}"]
