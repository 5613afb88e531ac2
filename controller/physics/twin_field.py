"""Twin-field key distribution: two ends send light to a station that need not be trusted, and the rate falls with the root of the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

from controller.physics.bell_diagonal import binary_entropy
from controller.physics.domain import whole, within
from controller.physics.fibre import transmittance

_PHOTONS = 12
"""Up to so many photons per end the yields are taken as known from decoys; above, as 1, which overstates the phase error."""
_MOST_PHOTONS = 500
"""Binomials of more leave the range of a float."""


@dataclass(frozen=True, slots=True)
class TwinField:
    """Twin-field key distribution of Curty, Azuma & Lo, npj Quantum Inf. 5, 64, 2019 (its protocol 3), asymptotic, infinitely many decoys.

    Key is made of coherent states |+-a>, phase-randomised states bound the phase error. The station stands in the middle, its arms equal;
    it announces which of two threshold detectors clicked. The channel is the paper's: loss, dark counts and a mismatch of polarisation and
    of phase between the arms. The defaults are of the size of published experiments, and assumed.
    Raises ValueError when a parameter is outside its range.
    """

    intensity: float = 0.02
    """Mean photons |a|^2 per end and pulse in the key basis, in (0, 1]."""
    detector_efficiency: float = 1.0
    """In [0, 1]; the station's optics included."""
    dark_probability: float = 1e-7
    """Clicks per detector and pulse without light, in [0, 1]."""
    polarisation_mismatch_rad: float = 0.14
    """Angle between the arms' polarisations at the station, in [0, pi/2]; .14 is an error of 2 %, sin^2."""
    phase_mismatch_rad: float = 0.06
    """Angle between the arms' phases at the station, in [0, pi/2]."""
    error_correction_efficiency: float = 1.16
    """Bits disclosed over the Shannon limit (f), at least 1."""
    clock_hz: float = 1e9
    """Pulses per second, above 0."""

    def __post_init__(self) -> None:
        within("intensity", self.intensity, 0, 1, open_low=True)
        within("detector_efficiency", self.detector_efficiency, 0, 1)
        within("dark_probability", self.dark_probability, 0, 1)
        within("polarisation_mismatch_rad", self.polarisation_mismatch_rad, 0, math.pi / 2)
        within("phase_mismatch_rad", self.phase_mismatch_rad, 0, math.pi / 2)
        within("error_correction_efficiency", self.error_correction_efficiency, 1)
        within("clock_hz", self.clock_hz, 0, open_low=True)

    def _arm(self, loss_db: float) -> float:
        return self.detector_efficiency * math.sqrt(transmittance(loss_db))

    def click_probability(self, loss_db: float) -> float:
        """Probability per key pulse that one given detector clicks and the other does not (p_XX), over `loss_db` >= 0 end to end."""
        right, wrong = self._clicks(loss_db)
        return (right + wrong) / 2

    def qber(self, loss_db: float) -> float:
        """Error rate of the sifted key (e_X), in [0, 1/2], over `loss_db` >= 0 end to end; 1/2 where nothing clicks."""
        right, wrong = self._clicks(loss_db)
        return min(0.5, wrong / (right + wrong)) if right + wrong > 0 else 0.5

    def _clicks(self, loss_db: float) -> tuple[float, float]:
        """Probability of the announcement when the ends' bits agree with it, and when they do not."""
        light = self._arm(loss_db) * self.intensity
        overlap = math.cos(self.polarisation_mismatch_rad) * math.cos(self.phase_mismatch_rad)
        quiet, dark = 1 - self.dark_probability, self.dark_probability
        # exp(-x) - (1 - dark) exp(-2 light), without losing the digits of a small difference
        right, wrong = (quiet * math.exp(-2 * light) * (math.expm1(light * (1 + sign * overlap)) + dark) for sign in (1, -1))
        return right, wrong

    def yield_of(self, left: int, right: int, loss_db: float) -> float:
        """Probability that one given detector clicks alone when the ends send `left` and `right` photons (p_ZZ), over `loss_db` >= 0.

        `left` and `right` are at most 500.

        Closed form of the paper's double sum: the share of two-mode Fock states in the vacuum probability of coherent states.
        """
        whole("left", left, 0, _MOST_PHOTONS)
        whole("right", right, 0, _MOST_PHOTONS)
        arm = self._arm(loss_db)
        dark_side, swap = 1 - arm / 2, (arm * math.cos(self.polarisation_mismatch_rad) / 2) ** 2
        silent = math.fsum(
            math.comb(left, k) * math.comb(right, k) * swap**k * dark_side ** (left + right - 2 * k) for k in range(min(left, right) + 1)
        )
        quiet = 1 - self.dark_probability
        return max(0.0, min(1.0, quiet * (silent - quiet * (1 - arm) ** (left + right))))

    def phase_error(self, loss_db: float) -> float:
        """Most phase errors of the key (e_Z), in [0, 1/2], that the yields of up to 12 photons per end allow over `loss_db` >= 0."""
        clicks = self.click_probability(loss_db)
        if clicks == 0:
            return 0.5
        a = math.sqrt(self.intensity)
        amplitudes = [math.exp(-self.intensity / 2) * a**n / math.sqrt(math.factorial(n)) for n in range(3 * _PHOTONS)]
        total = 0.0
        for parity in (0, 1):
            known = range(parity, _PHOTONS + 1, 2)
            both = math.fsum(amplitudes[parity::2])
            part = math.fsum(amplitudes[n] for n in known)
            bound = math.fsum(amplitudes[n] * amplitudes[m] * math.sqrt(self.yield_of(n, m, loss_db)) for n in known for m in known)
            total += (bound + both * both - part * part) ** 2
        return min(0.5, total / clicks)

    def rate_per_pulse(self, loss_db: float) -> float:
        """Secret bits per pulse over a channel of `loss_db` >= 0 from end to end; 0 where no key can be made.

        Both announcements count, and the key basis takes all pulses, as in the limit of long keys.
        """
        disclosed = self.error_correction_efficiency * binary_entropy(self.qber(loss_db))
        return max(0.0, 2 * self.click_probability(loss_db) * (1 - disclosed - binary_entropy(self.phase_error(loss_db))))

    def rate_bps(self, loss_db: float) -> float:
        """Secret bits per second over a channel of `loss_db` >= 0 from end to end."""
        return self.clock_hz * self.rate_per_pulse(loss_db)
