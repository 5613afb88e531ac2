"""Data and quantum signals in one fibre: the spontaneous Raman noise that data channels scatter into a quantum channel.

Raman scattering is what limits coexistence where filters are good; four-wave mixing and crosstalk of filters are not modelled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from controller.physics.domain import LEAST, MOST, within
from controller.physics.fibre import transmittance

_PLANCK_TIMES_LIGHT_J_M = 6.62607015e-34 * 299_792_458

_PUMP_NM = 1550.0
_TABLE: tuple[tuple[float, float], ...] = (
    (-240.0, 0.010), (-200.0, 0.010), (-40.0, 2.2), (-36.0, 2.3), (-32.0, 2.4), (-28.0, 2.7), (-24.0, 3.0), (-20.0, 3.3),
    (-16.0, 3.6), (-14.0, 3.8), (-12.0, 4.0), (-10.0, 3.8), (-8.0, 3.4), (-6.0, 2.7), (-4.0, 1.9), (-2.0, 1.6), (2.0, 1.8),
    (4.0, 2.1), (6.0, 3.4), (8.0, 4.3), (10.0, 4.9), (12.0, 5.1), (14.0, 5.1), (16.0, 5.0), (20.0, 4.8), (24.0, 4.5), (28.0, 4.1),
    (32.0, 4.0), (36.0, 3.8), (40.0, 3.7), (60.0, 8.0),
)  # fmt: skip
"""Wavelength of the noise minus that of a 1550 nm pump, in nm, and the coefficient in 1e-9 /(km nm), for standard fibre at room
temperature. See `raman_coefficient` for where it comes from."""


@dataclass(frozen=True, slots=True)
class RamanCoefficient:
    """Share of a data channel's power that a km of fibre scatters into a nm of the quantum channel's spectrum, one way."""

    beta_per_km_nm: float
    origin: Literal["declared", "assumed"]
    source: str
    """Where the figure comes from, for explanations."""

    def __post_init__(self) -> None:
        within("beta_per_km_nm", self.beta_per_km_nm, 0, MOST)


def raman_coefficient(data_nm: float, quantum_nm: float) -> RamanCoefficient:
    """The coefficient assumed where a fibre declares none, for wavelengths in [1200, 1700] nm.

    Within 40 nm of the pump: from a table in public code (github.com/damianobacchin/ml-qkd, raman.py), which names no paper. The papers
    that measured it were looked for and only their abstracts found: Chapuran et al., NJP 11, 105001, 2009; Eraerds et al., NJP 12, 063027,
    2010; Patel et al., PRX 2, 041010, 2012, and APL 104, 051123, 2014; da Silva et al., JLT 32, 2332, 2014. For it speak the 1e-9 to 4e-9
    quoted of them for the C band, and that its two sides stand in the ratio that thermal balance asks for, within 15 %. Against it: what
    follows from the published Raman gain of standard fibre (D'Amico et al., JLT 40, 3499, 2022, tabulated in GNPy) with both polarisations
    and phonons at 295 K is 1.4 to 2.6 times as much; with that, no key would be left where Patel et al. 2014 report 445 kb/s.
    Beyond: towards 1e-11 below the pump (an upper order for O-band quantum channels; 2e-12 follows from the gain), and the 8e-9 of a Raman
    peak above it, which overstates the noise far out. Hence the origin `assumed`.

    Other pumps than 1550 nm: the same shift of frequency, scaled by the fourth power of the wavelength.
    """
    within("data_nm", data_nm, 1200, 1700)
    within("quantum_nm", quantum_nm, 1200, 1700)
    as_if_nm = 1 / (1 / _PUMP_NM + 1 / quantum_nm - 1 / data_nm)
    shift = min(_TABLE[-1][0], max(_TABLE[0][0], as_if_nm - _PUMP_NM))
    for (low, before), (high, after) in pairwise(_TABLE):
        if shift <= high:
            # far from the pump the figures span decades
            nanos = math.exp(math.log(before) + (math.log(after) - math.log(before)) * (shift - low) / (high - low))
            break
    where = "a table of unknown paper" if abs(shift) <= 40 else "the order of published figures"
    beta = nanos * 1e-9 * (as_if_nm / quantum_nm) ** 4
    return RamanCoefficient(beta, "assumed", f"{where}, {data_nm:g} nm to {quantum_nm:g} nm")


@dataclass(frozen=True, slots=True)
class DataChannel:
    """A data channel that shares a span of fibre with the quantum channel."""

    wavelength_nm: float
    launch_dbm: float
    """Power launched into the span, in [-100, 40]."""
    with_quantum: bool
    """Whether it travels with the quantum signal or against it."""
    coefficient: RamanCoefficient | None = None
    """None: `raman_coefficient` of the two wavelengths."""

    def __post_init__(self) -> None:
        within("wavelength_nm", self.wavelength_nm, 1200, 1700)
        within("launch_dbm", self.launch_dbm, -100, 40)


def raman_forward_w(
    launch_w: float, beta_per_km_nm: float, bandwidth_nm: float, length_km: float, data_db_per_km: float, quantum_db_per_km: float
) -> float:
    """Noise in watt at the far end of a span from data of `launch_w` launched at its near end, in `bandwidth_nm` of spectrum.

    P beta dlambda exp(-a_q L) (1 - exp(-(a_c - a_q) L)) / (a_c - a_q), with L exp(-a L) at equal losses (Eraerds et al. 2010). All
    arguments are >= 0; losses in dB/km.
    """
    a_c, a_q = _nepers(launch_w, beta_per_km_nm, bandwidth_nm, length_km, data_db_per_km, quantum_db_per_km)
    # the same with the two losses exchanged: the lesser one is taken for the quantum signal's, so that nothing grows
    difference = abs(a_c - a_q) * length_km
    reach_km = length_km if difference < 1e-12 else -length_km * math.expm1(-difference) / difference
    return launch_w * beta_per_km_nm * bandwidth_nm * math.exp(-min(a_c, a_q) * length_km) * reach_km


def raman_backward_w(
    launch_w: float, beta_per_km_nm: float, bandwidth_nm: float, length_km: float, data_db_per_km: float, quantum_db_per_km: float
) -> float:
    """Noise in watt at the end of a span at which data of `launch_w` are launched against the quantum signal.

    P beta dlambda (1 - exp(-(a_c + a_q) L)) / (a_c + a_q) (Eraerds et al. 2010). Arguments as in `raman_forward_w`.
    """
    a_c, a_q = _nepers(launch_w, beta_per_km_nm, bandwidth_nm, length_km, data_db_per_km, quantum_db_per_km)
    both = (a_c + a_q) * length_km
    reach_km = length_km if both < 1e-12 else -length_km * math.expm1(-both) / both
    return launch_w * beta_per_km_nm * bandwidth_nm * reach_km


def _nepers(
    launch_w: float, beta_per_km_nm: float, bandwidth_nm: float, length_km: float, data_db_per_km: float, quantum_db_per_km: float
) -> tuple[float, float]:
    within("launch_w", launch_w, 0, MOST)
    within("beta_per_km_nm", beta_per_km_nm, 0, MOST)
    within("bandwidth_nm", bandwidth_nm, 0, MOST)
    within("length_km", length_km, 0, 100_000)
    within("data_db_per_km", data_db_per_km, 0, 100)
    within("quantum_db_per_km", quantum_db_per_km, 0, 100)
    return data_db_per_km * math.log(10) / 10, quantum_db_per_km * math.log(10) / 10


def launched_w(dbm: float) -> float:
    """Power in watt of `dbm` in [-300, 100]."""
    within("dbm", dbm, -300, 100)
    return 1e-3 * math.pow(10, dbm / 10)


def photons_hz(power_w: float, wavelength_nm: float) -> float:
    """Photons per second of light of `power_w` >= 0 at `wavelength_nm` > 0."""
    within("power_w", power_w, 0, MOST)
    within("wavelength_nm", wavelength_nm, LEAST, MOST)
    return power_w * wavelength_nm * 1e-9 / _PLANCK_TIMES_LIGHT_J_M


def clicks_per_gate(rate_hz: float, gate_s: float, efficiency: float) -> float:
    """Probability in [0, 1] that noise of `rate_hz` >= 0 photons per second makes a detector of `efficiency` click in a gate.

    1 - exp(-N tau eta), for a gate of `gate_s` >= 0 seconds: N tau eta while that is small.
    """
    within("rate_hz", rate_hz, 0)
    within("gate_s", gate_s, 0)
    within("efficiency", efficiency, 0, 1)
    return -math.expm1(-rate_hz * (gate_s * efficiency))


@dataclass(frozen=True, slots=True)
class RamanNoise:
    """Noise photons at the receiver's input, and the coefficients they follow from."""

    photons_hz: float
    coefficients: tuple[RamanCoefficient, ...]

    @property
    def origin(self) -> Literal["computed", "assumed"]:
        """`assumed` when any coefficient is."""
        return "assumed" if any(c.origin == "assumed" for c in self.coefficients) else "computed"


@dataclass(frozen=True, slots=True)
class SharedSpan:
    """A span of fibre that the quantum channel shares with data, and the loss that light meets behind it before the receiver."""

    length_km: float
    channels: Sequence[DataChannel]
    quantum_db_per_km: float = 0.2
    data_db_per_km: float = 0.2
    loss_after_db: float = 0.0
    """Of the quantum channel: what it passes from the end of the span to the receiver."""

    def __post_init__(self) -> None:
        within("length_km", self.length_km, 0, 100_000)
        within("quantum_db_per_km", self.quantum_db_per_km, 0, 100)
        within("data_db_per_km", self.data_db_per_km, 0, 100)
        within("loss_after_db", self.loss_after_db, 0)


def raman_noise(spans: Sequence[SharedSpan], quantum_nm: float, bandwidth_nm: float) -> RamanNoise:
    """Noise that reaches a receiver at `quantum_nm` behind a filter of `bandwidth_nm` >= 0, of all channels of all spans together."""
    within("bandwidth_nm", bandwidth_nm, 0, MOST)
    total_w = 0.0
    used: list[RamanCoefficient] = []
    for span in spans:
        after = transmittance(span.loss_after_db)
        for channel in span.channels:
            coefficient = channel.coefficient or raman_coefficient(channel.wavelength_nm, quantum_nm)
            scattered_w = raman_forward_w if channel.with_quantum else raman_backward_w
            used.append(coefficient)
            total_w += after * scattered_w(
                launched_w(channel.launch_dbm),
                coefficient.beta_per_km_nm,
                bandwidth_nm,
                span.length_km,
                span.data_db_per_km,
                span.quantum_db_per_km,
            )
    return RamanNoise(photons_hz(total_w, quantum_nm), tuple(used))
