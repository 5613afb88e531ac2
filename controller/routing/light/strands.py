"""What is asked of a bundle of strands of light, and the ways each strand could take."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import get_args

from controller.network.model import Signal
from controller.network.topology import Topology
from controller.physics.domain import within
from controller.physics.key_rates import DecoyBb84
from controller.routing.light.coexisting import FILTER_NM, Passage, neighbours, noise, passages
from controller.routing.light.light_route import (
    MAX_WAVELENGTH_DIFFERENCE_NM,
    Shine,
    Terminal,
    facing,
    sends_classical,
    shine,
    takes_quantum,
    terminals,
    transmitter,
)
from controller.routing.light.plant import Plant, Port, mhz_of
from controller.routing.light.ways import TooManyPaths, Way, ways
from controller.routing.refusal import NoRoute

QUANTUM_INPUT_DBM = -50.0
"""The most power into a quantum receiver that declares no limit of its own, where the request names the power it launches."""
CLASSICAL_LAUNCH_DBM = 0.0
"""Power of classical light for which neither the request nor a module gives one. Assumed."""


@dataclass(frozen=True, slots=True)
class Strand:
    """One strand of light, from its transmitter to its receiver. Raises ValueError that names the field."""

    src: str
    dst: str
    signal: Signal = "quantum"
    wavelengths_nm: tuple[float, ...] = ()
    """What the transmitter can be tuned to; () is its module's wavelength."""
    launch_dbm: float | None = None
    """None: as the transmitter's module says; 0 dBm where classical light starts at a bare port."""
    max_input_dbm: float | None = None
    """None: as the receiver's module says."""
    max_loss_db: float | None = None
    max_noise_hz: float | None = None
    """Most Raman photons per second at a quantum receiver."""
    min_rate_bps: float | None = None
    """Least secret-key rate of a quantum strand, by `receiver`."""
    receiver: DecoyBb84 = field(default_factory=DecoyBb84)
    filter_nm: float = FILTER_NM
    gate_s: float = 1e-9

    def __post_init__(self) -> None:
        if self.signal not in get_args(Signal):
            raise ValueError(f"signal must be one of {', '.join(get_args(Signal))}, got {self.signal!r}")
        for nm in self.wavelengths_nm:
            within("wavelengths_nm", nm, 100, 100_000)
        for name, low, high in (
            ("launch_dbm", -300, 40),
            ("max_input_dbm", -300, 100),
            ("max_loss_db", 0, math.inf),
            ("max_noise_hz", 0, math.inf),
            ("min_rate_bps", 0, math.inf),
        ):
            value = getattr(self, name)
            if value is not None:
                within(name, value, low, high)
        within("filter_nm", self.filter_nm, 0, 1000)
        within("gate_s", self.gate_s, 0, 1, open_low=True)
        if self.signal != "quantum" and (self.max_noise_hz is not None or self.min_rate_bps is not None):
            raise ValueError("max_noise_hz and min_rate_bps are limits of quantum strands; this one is classical")

    @property
    def classical(self) -> bool:
        return self.signal != "quantum"

    def most_noise_hz(self, loss_db: float) -> float:
        """Most Raman photons per second over `loss_db` that the floors allow; below 0 when even darkness is not enough.

        The key rate falls with the noise, so the most is found by bisection.
        """
        most = math.inf if self.max_noise_hz is None else self.max_noise_hz
        if self.min_rate_bps is None:
            return most
        dark = self.receiver.background_yield

        def enough(noise_yield: float) -> bool:
            return replace(self.receiver, background_yield=min(1.0, dark + noise_yield)).rate_bps(loss_db) >= (self.min_rate_bps or 0.0)

        if not enough(0.0):
            return -1.0
        low, high = 0.0, 1.0 - 1e-12
        if enough(high) or self.receiver.receiver_efficiency == 0:
            return most
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if enough(middle) else (low, middle)
        return min(most, -math.log1p(-low) / (self.gate_s * self.receiver.receiver_efficiency))


@dataclass(frozen=True, slots=True)
class Bundle:
    """Strands that are of use only together. A higher priority is served first. Raises ValueError without strands."""

    name: str
    strands: tuple[Strand, ...]
    priority: int = 0

    def __post_init__(self) -> None:
        if not self.strands:
            raise ValueError(f"bundle {self.name} has no strands")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way and wavelength of a strand that is right by itself."""

    strand: Strand
    near: Terminal
    far: Terminal
    way: Way
    wavelength_nm: float | None
    launch_dbm: float | None
    budget_db: float | None
    passages: tuple[Passage, ...]
    shine: Shine
    lit_hz: float
    """Raman noise of the channels others have lit."""
    most_hz: float
    """Most Raman noise, of those and of other strands."""

    @property
    def mhz(self) -> int | None:
        return None if self.wavelength_nm is None else mhz_of(self.wavelength_nm)

    @property
    def loss_db(self) -> float:
        return self.way.loss_db


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidates of a strand by loss; when there is none, why. `all` says that there are no others."""

    candidates: tuple[Candidate, ...]
    all: bool
    refused: NoRoute | None = None


def choose(topology: Topology, plant: Plant, strand: Strand, most: int, guard_mhz: int, taken: Collection[Port]) -> Choice:
    """At most `most` candidates of a strand per pair of ends and wavelength. Raises UnknownName."""
    near, far = terminals(topology, plant, strand.src), terminals(topology, plant, strand.dst)
    why: dict[str, NoRoute] = {}
    found: list[Candidate] = []
    complete = True
    for a in near:
        for b in far:
            refused = _unfit(strand, a, b)
            if refused is not None:
                why[refused.constraint] = refused
                continue
            for nm in _wavelengths(strand, a, b):
                some, exhausted = _by_loss(plant, strand, a, b, nm, most, guard_mhz, taken, why)
                found += some
                complete &= exhausted
    if found:
        return Choice(tuple(sorted(found, key=lambda each: each.loss_db)), complete)
    for constraint in ("power", "loss_db", "noise", "ends"):
        if constraint in why:
            return Choice((), complete, why[constraint])
    ends = f"{strand.src} to {strand.dst}"
    if taken and choose(topology, plant, strand, 1, guard_mhz, ()).candidates:
        return Choice((), complete, NoRoute(f"every lightpath from {ends} needs a port that is in use", "ports"))
    return Choice((), complete, NoRoute(f"no usable fibres, cross-connects and filters lead from {ends}", "reachability"))


def _unfit(strand: Strand, a: Terminal, b: Terminal) -> NoRoute | None:
    """Why light of the strand may not run between these ends, whatever the way."""
    here, there = ":".join(a.port), ":".join(b.port)
    sends = strand.classical or (a.module is not None and sends_classical(a.module))
    if sends and b.module is not None and takes_quantum(b.module):
        return NoRoute(f"classical light from {here} would blind the quantum receiver {there}", "power")
    for port, module, wrong in ((here, a.module, "rx"), (there, b.module, "tx")):
        if module is not None and (module.signal != strand.signal or module.role == wrong):
            return NoRoute(f"{port} is a {module.signal} module of role {module.role}, not an end of a {strand.signal} strand", "ends")
    if a.module and b.module:
        apart_nm = 0.0 if strand.wavelengths_nm else abs(a.module.wavelength_nm - b.module.wavelength_nm)
        if not facing(a.module, b.module) or apart_nm > MAX_WAVELENGTH_DIFFERENCE_NM:
            return NoRoute(f"{here} and {there} are of no one technology and wavelength", "ends")
    return None


def _wavelengths(strand: Strand, a: Terminal, b: Terminal) -> tuple[float | None, ...]:
    sender = transmitter(a.module, b.module)
    return tuple(dict.fromkeys(strand.wavelengths_nm)) or (None if sender is None else sender.wavelength_nm,)


def _by_loss(
    plant: Plant,
    strand: Strand,
    a: Terminal,
    b: Terminal,
    nm: float | None,
    most: int,
    guard_mhz: int,
    taken: Collection[Port],
    why: dict[str, NoRoute],
) -> tuple[list[Candidate], bool]:
    """The candidates of one pair of ends at one wavelength, and whether these are all. Notes in `why` what stood against others."""
    mhz = None if nm is None else mhz_of(nm)
    ends = f"{strand.src} to {strand.dst}"
    limits = [strand.max_loss_db, *(each.module.max_loss_db for each in (a, b) if each.module is not None)]
    budget_db = min((limit for limit in limits if limit is not None), default=None)
    launch_dbm, input_dbm = _powers(strand, a, b)
    found: list[Candidate] = []
    try:
        for way in ways(plant, a.port, b.port, mhz=mhz, guard_mhz=guard_mhz, taken=taken):
            loss_db = way.loss_db
            if budget_db is not None and loss_db > budget_db:
                told = f"every lightpath from {ends} loses more than the budget of {budget_db:g} dB; the least loss is {loss_db:.6g} dB"
                if not found and ("loss_db" not in why or loss_db < (why["loss_db"].best or 0.0)):
                    why["loss_db"] = NoRoute(told, "loss_db", loss_db)
                return found, True
            if launch_dbm is not None and input_dbm is not None and launch_dbm - loss_db > input_dbm:
                told = f"{launch_dbm:g} dBm from {strand.src} arrive with more than the {input_dbm:g} dBm that {strand.dst} takes"
                why["power"] = NoRoute(told, "power", launch_dbm - loss_db)
                continue
            used = {a.port, b.port}
            hops = way.hops(lambda group, used=used: group.take(used, taken))  # type: ignore[misc]
            shone = shine(plant, a.port, hops, mhz, classical=strand.classical)
            if shone.blinded is not None:
                told = f"classical light from {ends} would reach the quantum receiver {':'.join(shone.blinded)}"
                why["power"] = NoRoute(told, "power")
                continue
            passed = tuple(passages(way))
            lit_hz, most_hz = (0.0, math.inf) if strand.classical else _noise(strand, passed, nm, loss_db)
            if lit_hz > most_hz:
                least = f"{lit_hz:.4g} photons/s of Raman noise, {max(0.0, most_hz):.4g} allowed" if most_hz >= 0 else f"{loss_db:.6g} dB"
                why["noise"] = NoRoute(f"no lightpath from {ends} meets the floor of noise or key rate ({least})", "noise", lit_hz)
                continue
            if len(found) == most:
                return found, False
            found.append(Candidate(strand, a, b, way, nm, launch_dbm, budget_db, passed, shone, lit_hz, most_hz))
    except TooManyPaths:
        return found, False
    return found, True


def _powers(strand: Strand, a: Terminal, b: Terminal) -> tuple[float | None, float | None]:
    """What is launched, and what the receiver takes, in dBm; None where that is not known."""
    launch_dbm, input_dbm = strand.launch_dbm, strand.max_input_dbm
    if launch_dbm is None:
        launch_dbm = a.module.launch_dbm if a.module else CLASSICAL_LAUNCH_DBM if strand.classical else None
    if b.module is not None and b.module.max_input_dbm is not None:
        input_dbm = b.module.max_input_dbm if input_dbm is None else min(input_dbm, b.module.max_input_dbm)
    if input_dbm is None and not strand.classical and strand.launch_dbm is not None:
        input_dbm = QUANTUM_INPUT_DBM
    return launch_dbm, input_dbm


def _noise(strand: Strand, passed: tuple[Passage, ...], nm: float | None, loss_db: float) -> tuple[float, float]:
    """Raman noise of the channels others have lit, infinite where it cannot be known, and the most that may be."""
    most_hz = strand.most_noise_hz(loss_db)
    met = neighbours(passed)
    if not met or (most_hz == math.inf):
        return 0.0, most_hz
    of_others = noise(met, nm, strand.filter_nm) if nm is not None else None
    return (math.inf if of_others is None else of_others.photons_hz), most_hz
