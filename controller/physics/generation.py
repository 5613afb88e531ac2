"""Heralded generation of entanglement over an elementary link with a Bell station in the middle.

An arm's efficiency is the probability that a photon sent by a node makes its detector at the station click: collection, fibre and detector
together. All probabilities are per attempt.
"""

from __future__ import annotations

import math

from controller.physics.domain import whole, within
from controller.physics.fibre import propagation_delay_s, transmittance

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


def generation_rate_hz(probability: float, attempt_s: float) -> float:
    """Heralded pairs per second of back-to-back attempts of `attempt_s` > 0 seconds that succeed with `probability` in [0, 1]."""
    within("probability", probability, 0, 1)
    within("attempt_s", attempt_s, 0, open_low=True)
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
