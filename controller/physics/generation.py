"""Heralded generation of entanglement over an elementary link with a Bell station in the middle.

An arm's efficiency is the probability that a photon sent by a node makes its detector at the station click: collection, fibre and detector
together. All probabilities are per attempt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.physics.bell_diagonal import BellDiagonal
from controller.physics.domain import LEAST, MOST, whole, within
from controller.physics.fibre import propagation_delay_s, transmittance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SUMMED_ATTEMPTS = 4096
"""Of the sum for links that differ, so many terms are added one by one; beyond them the rest is smooth."""

LEAST_PROBABILITY = 1e-100
"""Below this the waiting time of links is of no meaning, and its terms leave the range of a float."""


def arm_efficiency(loss_db: float, detector_efficiency: float) -> float:
    """Efficiency of one arm, from its loss in dB (>= 0) and the detector's efficiency in [0, 1]."""
    within("detector_efficiency", detector_efficiency, 0, 1)
    return detector_efficiency * transmittance(loss_db)


def double_click_probability(left_efficiency: float, right_efficiency: float) -> float:
    """Heralding probability when both photons must click: half the product of the arm efficiencies, each in [0, 1].

    Linear optics tells two of the four Bell states apart, hence the half (Barrett & Kok, PRA 71, 060310, 2005).
    """
    within("left_efficiency", left_efficiency, 0, 1)
    within("right_efficiency", right_efficiency, 0, 1)
    return left_efficiency * right_efficiency / 2


def double_click_fidelity(visibility: float) -> float:
    """Fidelity (1 + V)/2 that two-photon interference of `visibility` in [0, 1] leaves, all else perfect."""
    within("visibility", visibility, 0, 1)
    return (1 + visibility) / 2


def single_click_probability(bright_population: float, efficiency: float) -> float:
    """Heralding probability 2 a eta when one click heralds, for bright-state population a in [0, 1/2] and equal arms in [0, 1].

    Leading order: it neglects that both nodes may be heard, and so is high by the share a eta (Cabrillo et al., PRA 59, 1025, 1999).
    """
    within("bright_population", bright_population, 0, 0.5)
    within("efficiency", efficiency, 0, 1)
    return 2 * bright_population * efficiency


def single_click_fidelity(bright_population: float) -> float:
    """Fidelity 1 - a at high loss for bright-state population a in [0, 1/2]; phase noise comes on top (Cabrillo et al. 1999)."""
    within("bright_population", bright_population, 0, 0.5)
    return 1 - bright_population


@dataclass(frozen=True, slots=True)
class SingleClickArm:
    """One node of a single-click link: bright-state population a in [0, 1/2], efficiency of its arm in [0, 1]."""

    bright_population: float
    efficiency: float

    def __post_init__(self) -> None:
        within("bright_population", self.bright_population, 0, 0.5)
        within("efficiency", self.efficiency, 0, 1)


def single_click(left: SingleClickArm, right: SingleClickArm, visibility: float = 1.0) -> tuple[float, BellDiagonal]:
    """(heralding probability, heralded state) when exactly one photon is counted; the arms need not be equal.

    Detectors resolve the number of photons and have no dark counts. Of the two nodes' joint states, one bright node leads to the Bell pair
    (in part, when the arms are unbalanced), both bright with one photon lost to noise without phase. `visibility` in [0, 1] is that of the
    interference: optical phase noise and distinguishable photons turn the pair into its phase-flipped one. Equal arms: p = 2 a eta
    (1 - a eta), F = (1 - a)/(1 - a eta). Hermans et al., New J. Phys. 25, 013011, 2023.

    Raises ValueError when no photon can be counted.
    """
    within("visibility", visibility, 0, 1)
    a1, eta1, a2, eta2 = left.bright_population, left.efficiency, right.bright_population, right.efficiency
    one, other = a1 * (1 - a2) * eta1, a2 * (1 - a1) * eta2
    both = a1 * a2 * (eta1 * (1 - eta2) + eta2 * (1 - eta1))
    probability = one + other + both
    if probability == 0:
        raise ValueError("left and right never herald: a bright population and an efficiency must be above 0, got probability 0")
    # shares of the heralds: a product of two small probabilities would not be a float
    one, other, noise = one / probability, other / probability, both / 2 / probability
    coherent = visibility * math.sqrt(one * other)
    return probability, BellDiagonal((one + other) / 2 + coherent, noise, noise, max(0.0, (one + other) / 2 - coherent))


def double_click_state(visibility: float) -> BellDiagonal:
    """The pair that two clicks herald at interference `visibility` in [0, 1]: all its error is phase flips (Barrett & Kok 2005)."""
    fidelity = double_click_fidelity(visibility)
    return BellDiagonal(fidelity, 0.0, 0.0, 1 - fidelity)


def multiplexed_probability(probability: float, modes: int) -> float:
    """Probability 1 - (1 - p)^m that at least one of `modes` (1 to 1,000,000) parallel modes is heralded, for p in [0, 1].

    Collins et al., PRL 98, 060502, 2007.
    """
    within("probability", probability, 0, 1)
    whole("modes", modes, 1, 1_000_000)
    return 1.0 if probability == 1 else -math.expm1(modes * math.log1p(-probability))


def attempt_period_s(length_km: float, preparation_s: float = 0.0) -> float:
    """Time of one attempt over a link of `length_km` >= 0: light out to the middle, the herald back, and `preparation_s` >= 0."""
    within("preparation_s", preparation_s, 0)
    return propagation_delay_s(length_km) + preparation_s


def attempt_rate_hz(herald_s: float, memories: int = 1, emission_s: float = 0.0) -> float:
    """Attempts per second of a link whose nodes have `memories` (1 to 1,000,000) each for it.

    A memory is taken for an emission, `emission_s` >= 0 seconds, and until its herald is back `herald_s` >= 0 after it; one emission
    follows the other at a node. Raises ValueError when both times are 0.
    """
    within("herald_s", herald_s, 0)
    within("emission_s", emission_s, 0)
    whole("memories", memories, 1, 1_000_000)
    period_s = max(emission_s, (emission_s + herald_s) / memories)
    within("emission_s + herald_s", period_s, LEAST, MOST)
    return 1 / period_s


def heralded_rate_hz(probability: float, success_s: float, failure_s: float) -> float:
    """Pairs per second when attempts succeed with `probability` in (0, 1] and one that does takes `success_s` > 0, others `failure_s` > 0.

    The link rate of Caleffi, IEEE Access 5, 22299, 2017.
    """
    within("probability", probability, 0, 1, open_low=True)
    within("success_s", success_s, LEAST, MOST)
    within("failure_s", failure_s, LEAST, MOST)
    return probability / ((1 - probability) * failure_s + probability * success_s)


def generation_rate_hz(probability: float, attempt_s: float) -> float:
    """Heralded pairs per second of back-to-back attempts of `attempt_s` > 0 seconds that succeed with `probability` in [0, 1]."""
    within("probability", probability, 0, 1)
    within("attempt_s", attempt_s, LEAST, MOST)
    return probability / attempt_s


def attempts_until_all(links: int, probability: float) -> float:
    """Mean number of attempts until each of `links` (1 to 256) has a pair, trying in parallel with `probability` in [1e-100, 1] each.

    The mean of the largest of n geometric variables, exactly (Bernardes et al., PRA 83, 012323, 2011). Conditioned on how many links still
    wait after one attempt, all terms are positive; the textbook alternating sum loses every digit at some tens of links.
    """
    whole("links", links, 1, 256)
    within("probability", probability, LEAST_PROBABILITY, 1)
    if probability == 1:
        return 1.0
    failure = 1 - probability
    means = [0.0]
    for n in range(1, links + 1):
        later = sum(math.comb(n, k) * failure**k * probability ** (n - k) * means[k] for k in range(1, n))
        means.append((1 + later) / -math.expm1(n * math.log1p(-probability)))
    return means[links]


def probability_all_within(probabilities: Sequence[float], attempts: int) -> float:
    """Probability that links of success `probabilities`, each in [0, 1], all have a pair after `attempts` (0 to 10^15) parallel attempts."""
    whole("attempts", attempts, 0, 10**15)
    product = 1.0
    for probability in probabilities:
        within("probability", probability, 0, 1)
        if attempts == 0 or probability == 0:
            return 0.0
        if probability < 1:
            product *= -math.expm1(attempts * math.log1p(-probability))
    return product


def attempts_until_each(probabilities: Sequence[float]) -> float:
    """Mean number of attempts until all of 1 to 256 links have a pair, trying in parallel, each with its own probability in [1e-100, 1].

    The sum over k of 1 - prod_i (1 - (1 - p_i)^k): term by term at first, then by Euler and Maclaurin's formula, the integral in panels that
    double in width. Relative error below 1e-10; of equal links `attempts_until_all` is exact.
    """
    import numpy as np

    whole("the number of probabilities", len(probabilities), 1, 256)
    for probability in probabilities:
        within("probability", probability, LEAST_PROBABILITY, 1)
    slow = np.array([-math.log1p(-probability) for probability in probabilities if probability < 1])
    if not len(slow):
        return 1.0

    def waiting(attempts: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore"):
            waits: NDArray[np.float64] = -np.expm1(np.log(-np.expm1(-np.outer(attempts, slow))).sum(axis=1))
        return waits

    total = float(waiting(np.arange(_SUMMED_ATTEMPTS, dtype=float)).sum())
    last, slowest = float(_SUMMED_ATTEMPTS), float(slow.min())
    if last * slowest < 80:
        points, weights = np.polynomial.legendre.leggauss(16)
        edges = last * 2.0 ** np.arange(math.ceil(math.log2(80 / slowest / last)) + 1)
        half = np.diff(edges)[:, None] / 2
        total += float((half * weights).ravel() @ waiting((edges[:-1, None] + half * (points + 1)).ravel()))
        here = waiting(np.array([last]))[0]
        slope = -(1 - here) * float((slow / np.expm1(np.minimum(last * slow, 700))).sum())
        total += here / 2 - slope / 12
    return total
