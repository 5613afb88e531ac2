"""Secret-key rates, asymptotic, and the bounds that no key rate exceeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from controller.physics.bell_diagonal import binary_entropy
from controller.physics.domain import LEAST, MOST, whole, within
from controller.physics.fibre import transmittance

_BACKGROUND_ERROR = 0.5
"""A background click is right half of the time."""


@dataclass(frozen=True, slots=True)
class DecoyBb84:
    """A BB84 link with weak coherent pulses and infinitely many decoy intensities (Ma et al., PRA 72, 012326, 2005).

    The defaults are the experiment of Gobby, Yuan & Shields (GYS), APL 84, 3762, 2004, on 0.21 dB/km fibre, at the signal intensity that
    is best for it. Terms of order background x signal are neglected as in the paper; that overstates errors and clicks, by the share
    `background_yield` at most.
    Raises ValueError when a parameter is outside the range given.
    """

    receiver_efficiency: float = 0.045
    """Detector and receiver optics together, in [0, 1]."""
    background_yield: float = 1.7e-6
    """Clicks per pulse without light (Y0), in [0, 1]: dark counts, and noise from data channels."""
    misalignment_error: float = 0.033
    """Share of signal clicks in the wrong detector (e_d), in [0, 1/2]."""
    error_correction_efficiency: float = 1.22
    """Bits disclosed over the Shannon limit (f), 1 to 1e100."""
    sifting: float = 0.5
    """Share of clicks in the same basis (q), in [0, 1]: 1/2, or p^2 -> 1 in efficient BB84 with the key basis chosen with probability p
    by both (Lo, Chau & Ardehali, J. Cryptology 18, 133, 2005)."""
    intensity: float = 0.48
    """Mean photons per signal pulse (mu), in (0, 1]."""
    clock_hz: float = 2e6
    """Pulses per second, above 0."""

    def __post_init__(self) -> None:
        within("receiver_efficiency", self.receiver_efficiency, 0, 1)
        within("background_yield", self.background_yield, 0, 1)
        within("misalignment_error", self.misalignment_error, 0, 0.5)
        within("error_correction_efficiency", self.error_correction_efficiency, 1, MOST)
        within("sifting", self.sifting, 0, 1)
        within("intensity", self.intensity, 0, 1, open_low=True)
        within("clock_hz", self.clock_hz, 0, open_low=True)

    def _efficiency(self, loss_db: float) -> float:
        return self.receiver_efficiency * transmittance(loss_db)

    def _clicks(self, signal: float) -> float:
        """Clicks per pulse of which `signal` would be of light."""
        return min(1.0, self.background_yield + signal)

    def _error(self, signal: float) -> float:
        """Error rate among those clicks; 1/2, that of noise, when there are none."""
        clicks = self._clicks(signal)
        if clicks == 0:
            return _BACKGROUND_ERROR
        return min(0.5, (_BACKGROUND_ERROR * self.background_yield + self.misalignment_error * signal) / clicks)

    def _signal(self, loss_db: float) -> float:
        return -math.expm1(-self._efficiency(loss_db) * self.intensity)

    def gain(self, loss_db: float) -> float:
        """Clicks per signal pulse (Q_mu), in [0, 1], over a channel of `loss_db` >= 0."""
        return self._clicks(self._signal(loss_db))

    def qber(self, loss_db: float) -> float:
        """Error rate of the sifted signal (E_mu), in [0, 1/2], over a channel of `loss_db` >= 0."""
        return self._error(self._signal(loss_db))

    def single_photon_error(self, loss_db: float) -> float:
        """Error rate among the clicks of pulses that held one photon (e_1), in [0, 1/2], over a channel of `loss_db` >= 0."""
        return self._error(self._efficiency(loss_db))

    def rate_per_pulse(self, loss_db: float) -> float:
        """Secret bits per pulse over a channel of `loss_db` >= 0; 0 where no key can be made."""
        single_photon_gain = self._clicks(self._efficiency(loss_db)) * self.intensity * math.exp(-self.intensity)
        secret = single_photon_gain * (1 - binary_entropy(self.single_photon_error(loss_db)))
        disclosed = self.gain(loss_db) * self.error_correction_efficiency * binary_entropy(self.qber(loss_db))
        return max(0.0, self.sifting * (secret - disclosed))

    def rate_bps(self, loss_db: float) -> float:
        """Secret bits per second over a channel of `loss_db` >= 0."""
        return self.clock_hz * self.rate_per_pulse(loss_db)


def best_intensity(misalignment_error: float, error_correction_efficiency: float = 1.22) -> float:
    """Signal intensity (photons per pulse) that is best at short distance, where background does not matter; at most 1.

    Solves (1 - mu) exp(-mu) = f h(e_d) / (1 - h(e_d)) for e_d in [0, 1/2] and f >= 1 (Ma et al. 2005, equation 12); 0 where no intensity
    makes key.
    """
    within("misalignment_error", misalignment_error, 0, 0.5)
    within("error_correction_efficiency", error_correction_efficiency, 1)
    entropy = binary_entropy(misalignment_error)
    if (1 + error_correction_efficiency) * entropy >= 1:
        return 0.0
    target = error_correction_efficiency * entropy / (1 - entropy)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - middle) * math.exp(-middle) > target else (low, middle)
    return (low + high) / 2


def bbm92_rate(coincidence_hz: float, qber: float, f_ec: float) -> float:
    """Secret bits per second from `coincidence_hz` >= 0 detected pairs, half of which survive sifting.

    R/2 (1 - f h(Q) - h(Q)), at least 0, for the same `qber` in [0, 1/2] in both bases and error correction at `f_ec` >= 1 times the
    Shannon limit (Ma, Fung & Lo, PRA 76, 012307, 2007).
    """
    within("coincidence_hz", coincidence_hz, 0)
    within("qber", qber, 0, 0.5)
    within("f_ec", f_ec, 1)
    return max(0.0, coincidence_hz / 2 * (1 - (f_ec + 1) * binary_entropy(qber)))


def six_state_key_fraction(qber: float) -> float:
    """Asymptotic secret bits per sifted six-state signal of `qber` in [0, 1/2], in [0, 1], with ideal error correction.

    1 - h(Q) - Q - (1 - Q) h((1 - 3Q/2)/(1 - Q)), at least 0 (Lo, Quant. Inf. Comput. 1, 81, 2001); zero from Q = .1262 on.
    """
    within("qber", qber, 0, 0.5)
    return max(0.0, 1 - binary_entropy(qber) - qber - (1 - qber) * binary_entropy((1 - 1.5 * qber) / (1 - qber)))


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


LinkMiddle = Literal["none", "source", "station"]
"""What stands between the ends of a link: nothing, a source of pairs, or a station that measures (twin-field, MDI, heralding)."""


def bound_bps(loss_db: float, clock_hz: float, modes: int, middle: LinkMiddle) -> float:
    """Most secret bits or ebits per second of a link of `loss_db` >= 0 end to end, run at `clock_hz` in `modes` >= 1 modes at once.

    `clock_hz` is 1e-100 to 1e100. A source in the middle obeys the bound of a direct link; a measuring station that of one repeater. It bounds key and distillable
    entanglement, never raw pairs. Infinite for a channel without loss. Raises ValueError for a figure or a `middle` outside its domain.
    """
    within("clock_hz", clock_hz, LEAST, MOST)
    whole("modes", modes, 1, 1_000_000_000)
    if middle not in get_args(LinkMiddle):
        raise ValueError(f"middle must be one of {', '.join(get_args(LinkMiddle))}, got {middle!r}")
    capacity = plob_with_station if middle == "station" else plob
    return clock_hz * modes * capacity(transmittance(loss_db))


def bound_warning(rate_bps: float, loss_db: float, clock_hz: float, modes: int = 1, middle: LinkMiddle = "none") -> str | None:
    """A warning when a declared `rate_bps` >= 0 exceeds `bound_bps` of its link, None when it does not.

    A warning and no refusal: the declared loss or clock may be the figure that is wrong.
    """
    within("rate_bps", rate_bps, 0)
    bound = bound_bps(loss_db, clock_hz, modes, middle)
    if rate_bps <= bound:
        return None
    law = "-log2(1 - sqrt(eta)), with a station between" if middle == "station" else "-log2(1 - eta), without a repeater"
    return (
        f"{rate_bps:g} bit/s is above {bound:g} bit/s, the most that physics allows over {loss_db:g} dB at {clock_hz:g} pulses/s"
        f" in {modes} mode{'s' if modes > 1 else ''} ({law}): check the rate, the loss and the clock"
    )
