"""Decoy-state BB84 with a finite number of intensities: what three of them prove, for long keys and for blocks of finite size.

`key_rates.DecoyBb84` models the link and gives the rate of infinitely many decoys; the functions here take its gains and error rates
for what the detectors would count, and return what can be proven from them, which is less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from controller.physics.bell_diagonal import binary_entropy
from controller.physics.domain import MOST, within
from controller.physics.key_rates import DecoyBb84


def without_decoys_rate_per_pulse(link: DecoyBb84, loss_db: float) -> float:
    """Secret bits per pulse over `loss_db` >= 0 dB when every multi-photon pulse that Bob may have seen is given up.

    Gottesman, Lo, Luetkenhaus & Preskill, Quant. Inf. Comput. 4, 325, 2004, for Poissonian pulses of `link.intensity`; at least 0.
    """
    gain, qber = link.gain(loss_db), link.qber(loss_db)
    several = -math.expm1(-link.intensity) - link.intensity * math.exp(-link.intensity)
    single = gain - several
    errors = gain * qber
    if single <= 0 or errors >= single / 2:
        return 0.0
    secret = single * (1 - binary_entropy(errors / single))
    return max(0.0, link.sifting * (secret - gain * link.error_correction_efficiency * binary_entropy(qber)))


def vacuum_weak_bounds(link: DecoyBb84, loss_db: float, decoy_intensity: float) -> tuple[float, float]:
    """(least yield of single photons, most error rate among them) that a weak and a vacuum decoy prove over `loss_db` >= 0 dB.

    Ma et al., PRA 72, 012326, 2005, equations 34 and 37, for `decoy_intensity` nu in [1e-9, mu), in photons per pulse; mu is that of `link`.
    The error rate is 1/2 when nothing better is proven. Exact for infinitely long keys; see `FiniteKeyBb84` for blocks.
    """
    within("decoy_intensity", decoy_intensity, 1e-9, link.intensity)
    mu, nu = link.intensity, decoy_intensity
    if nu == mu:
        raise ValueError(f"decoy_intensity must be below the signal's {mu:g}, got {nu!r}")
    decoy = replace(link, intensity=nu)
    q_mu, q_nu = link.gain(loss_db) * math.exp(mu), decoy.gain(loss_db) * math.exp(nu)
    y_0 = link.background_yield
    y_1 = mu / (mu * nu - nu * nu) * (q_nu - q_mu * nu**2 / mu**2 - (mu**2 - nu**2) / mu**2 * y_0)
    if y_1 <= 0:
        return 0.0, 0.5
    e_1 = (decoy.qber(loss_db) * q_nu - y_0 / 2) / (y_1 * nu)
    return min(1.0, y_1), min(0.5, max(0.0, e_1))


def vacuum_weak_rate_per_pulse(link: DecoyBb84, loss_db: float, decoy_intensity: float) -> float:
    """Secret bits per signal pulse over `loss_db` >= 0 dB with one vacuum and one weak decoy (Ma et al. 2005), at least 0.

    Asymptotic: the decoys take no share of the pulses. Arguments as in `vacuum_weak_bounds`.
    """
    y_1, e_1 = vacuum_weak_bounds(link, loss_db, decoy_intensity)
    secret = y_1 * link.intensity * math.exp(-link.intensity) * (1 - binary_entropy(e_1))
    disclosed = link.gain(loss_db) * link.error_correction_efficiency * binary_entropy(link.qber(loss_db))
    return max(0.0, link.sifting * (secret - disclosed))


Three = tuple[float, float, float]


def _three(name: str, values: Three) -> None:
    if len(values) != 3:
        raise ValueError(f"{name} must be three, one per intensity, got {len(values)}")


_LEAST_GAP = 1e-6
"""Intensities closer than this tell nothing apart, and their differences divide."""


@dataclass(frozen=True, slots=True)
class BasisCounts:
    """What one basis counted, per intensity in the order of `FiniteKeyBb84.intensities`. Errors are at most as many as detections."""

    detections: Three
    errors: Three

    def __post_init__(self) -> None:
        _three("detections", self.detections)
        _three("errors", self.errors)
        for n in range(3):
            within(f"detections[{n}]", self.detections[n], 0, MOST)
            within(f"errors[{n}]", self.errors[n], 0, self.detections[n])


@dataclass(frozen=True, slots=True)
class FiniteKeyBb84:
    """Decoy BB84 with three intensities and blocks of finite size, secure against general attacks.

    Lim, Curty, Walenta, Xu & Zbinden, PRA 89, 022307, 2014, equations 1 to 5, with Hoeffding's inequality. Two bases, chosen with unequal
    probability: key is made of one, the other bounds the phase error. The formulas were compared with the paper's equation by equation, and
    its factor of 1.75 between blocks of 1e9 and 1e7 bits at 100 km is met within 5 %. That blocks of 1e4 bits still give key over 135 km is
    not: with the channel as printed, after-pulses included, and all five parameters optimised anew, key ends between 120 and 125 km; without
    after-pulses between 140 and 145 km, with 2.3e-7 bits per pulse at 135 km. What the paper's figure was drawn with is not known.
    Raises ValueError when a parameter is outside its range.
    """

    link: DecoyBb84
    """Gains and error rates; its `intensity` and `sifting` are not used, those below are."""
    intensities: Three = (0.5, 0.1, 2e-4)
    """Photons per pulse mu1 > mu2 + mu3, mu2 > mu3 >= 0, by 1e-6 at least; mu1 at most 1."""
    probabilities: Three = (0.6, 0.3, 0.1)
    """How often each is sent, above 0, sum 1."""
    key_basis_probability: float = 0.9
    """How often either side chooses the key basis, in [1e-3, 1 - 1e-3]."""
    block_bits: float = 1e7
    """Sifted bits of the key basis (n) that are processed at once, in [1, 1e15]."""
    secrecy: float = 1e-10
    """Most distance from an ideally secret key (eps_sec), in [1e-30, 0.1]."""
    correctness: float = 1e-15
    """Most probability that the keys differ (eps_cor), in [1e-30, 0.1]."""

    def __post_init__(self) -> None:
        _three("intensities", self.intensities)
        _three("probabilities", self.probabilities)
        m1, m2, m3 = self.intensities
        within("intensities[0]", m1, 0, 1, open_low=True)
        within("intensities[1]", m2, 0, 1, open_low=True)
        within("intensities[2]", m3, 0, 1)
        if not (m1 >= m2 + m3 + _LEAST_GAP and m2 >= m3 + _LEAST_GAP):
            raise ValueError(f"intensities must obey mu1 > mu2 + mu3 and mu2 > mu3, by {_LEAST_GAP:g} at least, got {self.intensities!r}")
        for n, share in enumerate(self.probabilities):
            within(f"probabilities[{n}]", share, 0, 1, open_low=True)
        if abs(sum(self.probabilities) - 1) > 1e-9:
            raise ValueError(f"probabilities must sum to 1, got {sum(self.probabilities)!r}")
        within("key_basis_probability", self.key_basis_probability, 1e-3, 1 - 1e-3)
        within("block_bits", self.block_bits, 1, 1e15)
        within("secrecy", self.secrecy, 1e-30, 0.1)
        within("correctness", self.correctness, 1e-30, 0.1)

    def _photons(self, n: int) -> float:
        """Probability that a pulse holds n photons, its intensity unknown (tau_n)."""
        return sum(p * math.exp(-k) * k**n for k, p in zip(self.intensities, self.probabilities, strict=True)) / math.factorial(n)

    def _bounded(self, counts: Three) -> tuple[Three, Three]:
        """Least and most of what infinitely many pulses would have counted, each divided by the share of its intensity and exp(-k)."""
        deviation = math.sqrt(sum(counts) / 2 * math.log(21 / self.secrecy))
        weights = [math.exp(k) / p for k, p in zip(self.intensities, self.probabilities, strict=True)]
        least = [w * max(0.0, n - deviation) for w, n in zip(weights, counts, strict=True)]
        most = [w * (n + deviation) for w, n in zip(weights, counts, strict=True)]
        return (least[0], least[1], least[2]), (most[0], most[1], most[2])

    def least_vacuum_and_single(self, detections: Three) -> tuple[float, float]:
        """Least counts of empty and of single-photon pulses (equations 2 and 3) of `detections` >= 0 per intensity."""
        _three("detections", detections)
        for n in range(3):
            within(f"detections[{n}]", detections[n], 0, MOST)
        m1, m2, m3 = self.intensities
        least, most = self._bounded(detections)
        tau_0, tau_1 = self._photons(0), self._photons(1)
        empty = max(0.0, tau_0 * (m2 * least[2] - m3 * most[1]) / (m2 - m3))
        multi = (m2**2 - m3**2) / m1**2 * (most[0] - empty / tau_0)
        single = tau_1 * m1 * (least[1] - most[2] - multi) / (m1 * (m2 - m3) - m2**2 + m3**2)
        return empty, max(0.0, single)

    def most_phase_error(self, key_single: float, check: BasisCounts) -> float:
        """Most phase errors among the single photons of the key basis (equations 4 and 5), at most 1/2."""
        within("key_single", key_single, 0, MOST)
        _, m2, m3 = self.intensities
        _, check_single = self.least_vacuum_and_single(check.detections)
        if key_single < 1 or check_single < 1:
            return 0.5
        least, most = self._bounded(check.errors)
        # the paper's approximation fails where no error was seen: one is taken to have been
        seen = max(1.0, self._photons(1) * (most[1] - least[2]) / (m2 - m3)) / check_single
        if seen >= 0.5:
            return 0.5
        spread = (key_single + check_single) / (key_single * check_single)
        tail = math.log2(spread / ((1 - seen) * seen) * (21 / self.secrecy) ** 2)
        return min(0.5, seen + math.sqrt(max(0.0, spread * (1 - seen) * seen / math.log(2) * tail)))

    def secret_bits(self, key: BasisCounts, check: BasisCounts, disclosed_bits: float) -> float:
        """Secret bits of a block that counted `key` and `check`, `disclosed_bits` >= 0 having been told for error correction.

        Equation 1 of the paper, not rounded to whole bits, at least 0.
        """
        within("disclosed_bits", disclosed_bits, 0)
        empty, single = self.least_vacuum_and_single(key.detections)
        entropy = empty + single * (1 - binary_entropy(self.most_phase_error(single, check)))
        return max(0.0, entropy - disclosed_bits - 6 * math.log2(21 / self.secrecy) - math.log2(2 / self.correctness))

    def rate_per_pulse(self, loss_db: float) -> float:
        """Secret bits per pulse sent, over a channel of `loss_db` >= 0, with counts at their expectation; at least 0."""
        links = [replace(self.link, intensity=k) if k > 0 else None for k in self.intensities]
        gains = [link.gain(loss_db) if link else self.link.background_yield for link in links]
        errors = [gain * link.qber(loss_db) if link else gain / 2 for gain, link in zip(gains, links, strict=True)]
        gain = sum(p * g for p, g in zip(self.probabilities, gains, strict=True))
        error = sum(p * e for p, e in zip(self.probabilities, errors, strict=True))
        both_key = self.key_basis_probability**2
        if gain * both_key < 1e-100:
            return 0.0
        pulses = self.block_bits / (gain * both_key)

        def counts(share: float) -> BasisCounts:
            n = [pulses * share * p * g for p, g in zip(self.probabilities, gains, strict=True)]
            m = [min(n[i], pulses * share * self.probabilities[i] * errors[i]) for i in range(3)]
            return BasisCounts((n[0], n[1], n[2]), (m[0], m[1], m[2]))

        disclosed = self.link.error_correction_efficiency * self.block_bits * binary_entropy(min(0.5, error / gain))
        return self.secret_bits(counts(both_key), counts((1 - self.key_basis_probability) ** 2), disclosed) / pulses

    def rate_bps(self, loss_db: float) -> float:
        """Secret bits per second over a channel of `loss_db` >= 0."""
        return self.link.clock_hz * self.rate_per_pulse(loss_db)

    def block_s(self, loss_db: float) -> float:
        """Seconds until a block is full over a channel of `loss_db` >= 0: the first key is not there before. Infinite without clicks."""
        gains = [replace(self.link, intensity=k).gain(loss_db) if k > 0 else self.link.background_yield for k in self.intensities]
        sifted_hz = self.link.clock_hz * self.key_basis_probability**2 * sum(p * g for p, g in zip(self.probabilities, gains, strict=True))
        return self.block_bits / sifted_hz if sifted_hz > 0 else math.inf
