"""Secret-key rates, asymptotic, and the bounds that no key rate exceeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from controller.physics.bell_diagonal import binary_entropy
from controller.physics.domain import within
from controller.physics.fibre import transmittance

_BACKGROUND_ERROR = 0.5
"""A background click is right half of the time."""


@dataclass(frozen=True, slots=True)
class DecoyBb84:
    """A BB84 link with weak coherent pulses and infinitely many decoy intensities (Ma et al., PRA 72, 012326, 2005).

    The defaults are the experiment of Gobby, Yuan & Shields (GYS), APL 84, 3762, 2004, on 0.21 dB/km fibre, at the signal intensity that
    is best for it. Terms of order background x signal are neglected as in the paper, hence the bound on `background_yield`.
    Raises ValueError when a parameter is outside the range given.
    """

    receiver_efficiency: float = 0.045
    """Detector and receiver optics together, in [0, 1]."""
    background_yield: float = 1.7e-6
    """Clicks per pulse without light (Y0), in [0, 1e-3]."""
    misalignment_error: float = 0.033
    """Share of signal clicks in the wrong detector (e_d), in [0, 1/2]."""
    error_correction_efficiency: float = 1.22
    """Bits disclosed over the Shannon limit (f), at least 1."""
    sifting: float = 0.5
    """Share of clicks in the same basis (q), in [0, 1]."""
    intensity: float = 0.48
    """Mean photons per signal pulse (mu), in (0, 1]."""
    clock_hz: float = 2e6
    """Pulses per second, above 0."""

    def __post_init__(self) -> None:
        within("receiver_efficiency", self.receiver_efficiency, 0, 1)
        within("background_yield", self.background_yield, 0, 1e-3)
        within("misalignment_error", self.misalignment_error, 0, 0.5)
        within("error_correction_efficiency", self.error_correction_efficiency, 1)
        within("sifting", self.sifting, 0, 1)
        within("intensity", self.intensity, 0, 1, open_low=True)
        within("clock_hz", self.clock_hz, 0, open_low=True)

    def _efficiency(self, loss_db: float) -> float:
        return self.receiver_efficiency * transmittance(loss_db)

    def _error(self, signal: float) -> float:
        """Error rate among clicks of which `signal` per pulse are of light; 1/2, that of noise, when there are none."""
        clicks = self.background_yield + signal
        if clicks == 0:
            return _BACKGROUND_ERROR
        return min(0.5, (_BACKGROUND_ERROR * self.background_yield + self.misalignment_error * signal) / clicks)

    def _signal(self, loss_db: float) -> float:
        return -math.expm1(-self._efficiency(loss_db) * self.intensity)

    def gain(self, loss_db: float) -> float:
        """Clicks per signal pulse (Q_mu), in [0, 1], over a channel of `loss_db` >= 0."""
        return self.background_yield + self._signal(loss_db)

    def qber(self, loss_db: float) -> float:
        """Error rate of the sifted signal (E_mu), in [0, 1/2], over a channel of `loss_db` >= 0."""
        return self._error(self._signal(loss_db))

    def single_photon_error(self, loss_db: float) -> float:
        """Error rate among the clicks of pulses that held one photon (e_1), in [0, 1/2], over a channel of `loss_db` >= 0."""
        return self._error(self._efficiency(loss_db))

    def rate_per_pulse(self, loss_db: float) -> float:
        """Secret bits per pulse over a channel of `loss_db` >= 0; 0 where no key can be made."""
        single_photon_gain = (self.background_yield + self._efficiency(loss_db)) * self.intensity * math.exp(-self.intensity)
        secret = single_photon_gain * (1 - binary_entropy(self.single_photon_error(loss_db)))
        disclosed = self.gain(loss_db) * self.error_correction_efficiency * binary_entropy(self.qber(loss_db))
        return max(0.0, self.sifting * (secret - disclosed))

    def rate_bps(self, loss_db: float) -> float:
        """Secret bits per second over a channel of `loss_db` >= 0."""
        return self.clock_hz * self.rate_per_pulse(loss_db)


def bbm92_rate(coincidence_hz: float, qber: float, f_ec: float) -> float:
    """Secret bits per second from `coincidence_hz` >= 0 detected pairs, half of which survive sifting.

    R/2 (1 - f h(Q) - h(Q)), at least 0, for the same `qber` in [0, 1/2] in both bases and error correction at `f_ec` >= 1 times the
    Shannon limit (Ma, Fung & Lo, PRA 76, 012307, 2007).
    """
    within("coincidence_hz", coincidence_hz, 0)
    within("qber", qber, 0, 0.5)
    within("f_ec", f_ec, 1)
    return max(0.0, coincidence_hz / 2 * (1 - (f_ec + 1) * binary_entropy(qber)))


def plob(transmittance: float) -> float:
    """Most secret bits (or ebits) per use of a lossy channel without a station between: -log2(1 - eta), for eta in [0, 1].

    Pirandola et al., Nat. Commun. 8, 15043, 2017. Infinite at eta = 1.
    """
    within("transmittance", transmittance, 0, 1)
    return math.inf if transmittance == 1 else -math.log1p(-transmittance) / math.log(2)


def plob_with_station(transmittance: float) -> float:
    """The bound with one station in the middle of a channel of `transmittance` eta in [0, 1]: -log2(1 - sqrt(eta)).

    It holds for repeaters, twin-field and measurement-device-independent links (Pirandola, Commun. Phys. 2, 51, 2019).
    """
    within("transmittance", transmittance, 0, 1)
    return plob(math.sqrt(transmittance))
