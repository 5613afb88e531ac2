"""Bell-diagonal states: swapping, purification, memory decay and what the pairs are good for.

A state is a mixture of the four Bell states, kept as its four weights. Werner states (three equal lesser weights) are the special case
that one number describes: the fidelity F or the Werner parameter w = (4F - 1)/3. Fidelity is always that with Phi+.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from controller.physics.domain import MOST, whole, within

_NORMALISATION_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class BellDiagonal:
    """Weights of the four Bell states, each in [0, 1], sum 1. The formulas call them A, B, C, D, in the order of the fields.

    Raises ValueError when a weight is negative or NaN, or the sum is off by more than 1e-9.
    """

    phi_plus: float
    psi_minus: float
    psi_plus: float
    phi_minus: float

    def __post_init__(self) -> None:
        for name, weight in zip(("phi_plus", "psi_minus", "psi_plus", "phi_minus"), self.coefficients, strict=True):
            within(name, weight, 0, 1 + _NORMALISATION_TOLERANCE)
        total = sum(self.coefficients)
        if abs(total - 1) > _NORMALISATION_TOLERANCE:
            raise ValueError(f"the weights of a Bell-diagonal state must sum to 1, got {total!r}")

    @property
    def coefficients(self) -> tuple[float, float, float, float]:
        """(A, B, C, D) = (Phi+, Psi-, Psi+, Phi-)."""
        return (self.phi_plus, self.psi_minus, self.psi_plus, self.phi_minus)

    @property
    def fidelity(self) -> float:
        """Fidelity with Phi+."""
        return self.phi_plus


def _normalised(a: float, b: float, c: float, d: float) -> BellDiagonal:
    """Rounding must not add up along a path, so every result is scaled to sum 1."""
    total = a + b + c + d
    return BellDiagonal(a / total, b / total, c / total, d / total)


def correlations(state: BellDiagonal) -> tuple[float, float, float]:
    """(<XX>, -<YY>, <ZZ>) of the pair, each in [-1, 1]; Phi+ has (1, 1, 1). A swap multiplies them one by one."""
    a, b, c, d = state.coefficients
    return a - b + c - d, a + b - c - d, a - b - c + d


def from_correlations(x: float, y: float, z: float) -> BellDiagonal:
    """The state of (<XX>, -<YY>, <ZZ>). Raises ValueError when there is none; what rounding takes below 0 is 0."""
    if max(abs(x), abs(y), abs(z)) > MOST:
        raise ValueError(f"no state has the correlations x, y, z: one is beyond {MOST:g}")
    weights = ((1 + x + y + z) / 4, (1 - x + y - z) / 4, (1 + x - y - z) / 4, (1 - x - y + z) / 4)
    if not min(weights) >= -_NORMALISATION_TOLERANCE:
        raise ValueError(f"no state has the correlations x, y, z = {x!r}, {y!r}, {z!r}")
    a, b, c, d = (max(0.0, weight) for weight in weights)
    return _normalised(a, b, c, d)


def werner_parameter(fidelity: float) -> float:
    """w = (4F - 1)/3 of a Werner state of `fidelity` in [0, 1]; w is in [-1/3, 1]."""
    within("fidelity", fidelity, 0, 1)
    return (4 * fidelity - 1) / 3


def fidelity_of(w: float) -> float:
    """F = (1 + 3w)/4 of a Werner state of parameter `w` in [-1/3, 1]."""
    within("w", w, -1 / 3, 1)
    return (1 + 3 * w) / 4


def werner(fidelity: float) -> BellDiagonal:
    """The Werner state of `fidelity` in [0, 1] (Werner, PRA 40, 4277, 1989)."""
    within("fidelity", fidelity, 0, 1)
    rest = (1 - fidelity) / 3
    return BellDiagonal(fidelity, rest, rest, rest)


def twirl(state: BellDiagonal) -> BellDiagonal:
    """The Werner state of the same fidelity: what random bilateral rotations leave (Bennett et al., PRL 76, 722, 1996)."""
    return werner(min(1.0, state.fidelity))


def _mixed(state: BellDiagonal, kept: float) -> BellDiagonal:
    """`kept` of the state and 1 - `kept` of white noise."""
    noise = (1 - kept) / 4
    a, b, c, d = state.coefficients
    return _normalised(kept * a + noise, kept * b + noise, kept * c + noise, kept * d + noise)


def swap(left: BellDiagonal, right: BellDiagonal, swap_fidelity: float = 1.0) -> BellDiagonal:
    """The pair that a Bell-state measurement between two pairs leaves, Pauli correction included.

    An ideal swap convolves the weights over Z2 x Z2; on Werner states it multiplies w. `swap_fidelity`, in [1/4, 1], is the fidelity the
    station would deliver from two perfect pairs, its noise taken as white (Briegel et al., PRL 81, 5932, 1998).
    """
    within("swap_fidelity", swap_fidelity, 0.25, 1)
    a1, b1, c1, d1 = left.coefficients
    a2, b2, c2, d2 = right.coefficients
    ideal = _normalised(
        a1 * a2 + b1 * b2 + c1 * c2 + d1 * d2,
        a1 * b2 + b1 * a2 + c1 * d2 + d1 * c2,
        a1 * c2 + c1 * a2 + b1 * d2 + d1 * b2,
        a1 * d2 + d1 * a2 + b1 * c2 + c1 * b2,
    )
    return _mixed(ideal, werner_parameter(swap_fidelity))


def swap_fidelity(gate: float, readout: float) -> float:
    """Fidelity in [1/4, 1] that a swap delivers from two perfect pairs, for the `swap_fidelity` of `swap`.

    The measurement is a two-qubit gate that is right with probability `gate` in [0, 1] and else leaves white noise, and two readouts that
    are each right with probability `readout` in [1/2, 1]: w_s = gate (4 readout^2 - 1)/3 (Briegel et al., PRL 81, 5932, 1998; exact in
    fidelity for Werner pairs).
    """
    within("gate", gate, 0, 1)
    within("readout", readout, 0.5, 1)
    return fidelity_of(gate * (4 * readout * readout - 1) / 3)


def dejmps(first: BellDiagonal, second: BellDiagonal) -> tuple[BellDiagonal, float]:
    """One purification round: the kept pair's state when it succeeds, and the probability that it does.

    Deutsch et al., PRL 77, 2818, 1996, for two pairs that need not be equal. Local rotations can permute B, C and D of a pair before a
    round, and it matters: a round leaves the error B in place, so (.9, .1, 0, 0) falls to .82 while (.9, 0, .1, 0) rises to .988. The
    least of the three belongs in B. This function takes the states as they are and does not relabel.

    Raises ValueError when the measurement outcomes of the two pairs can never agree.
    """
    a1, b1, c1, d1 = first.coefficients
    a2, b2, c2, d2 = second.coefficients
    kept = (a1 * a2 + b1 * b2, c1 * d2 + d1 * c2, c1 * c2 + d1 * d2, a1 * b2 + b1 * a2)
    success = sum(kept)
    if success == 0:
        raise ValueError("purification of first and second never succeeds: success probability must be in (0, 1], got 0")
    return _normalised(*kept), min(1.0, success)


def bbpssw(first_fidelity: float, second_fidelity: float) -> tuple[float, float]:
    """One purification round of two Werner pairs: (fidelity of the kept pair, success probability).

    Bennett et al., PRL 76, 722, 1996, for fidelities in [0, 1] that need not be equal. The kept pair can be worse than the better input.
    """
    within("first_fidelity", first_fidelity, 0, 1)
    within("second_fidelity", second_fidelity, 0, 1)
    g1, g2 = (1 - first_fidelity) / 3, (1 - second_fidelity) / 3
    good = first_fidelity * second_fidelity + g1 * g2
    success = good + first_fidelity * g2 + second_fidelity * g1 + 4 * g1 * g2
    return min(1.0, good / success), min(1.0, success)


def recurrence(fidelity: float, rounds: int) -> tuple[float, float]:
    """`rounds` (0 to 64) of purification among equal Werner pairs of `fidelity` in [0, 1]: (fidelity, kept pairs per raw pair).

    Every round is twirled, which makes DEJMPS and BBPSSW the same; it helps only above fidelity 1/2. The yield is
    prod(success probabilities) / 2^rounds.
    """
    within("fidelity", fidelity, 0, 1)
    whole("rounds", rounds, 0, 64)
    kept = 1.0
    for _ in range(rounds):
        fidelity, success = bbpssw(fidelity, fidelity)
        kept *= success / 2
    return fidelity, kept


def _survival(wait_s: float, time_name: str, time_s: float, memories: int) -> float:
    within("wait_s", wait_s, 0)
    whole("memories", memories, 1, 2)
    if time_s != math.inf:  # a perfect memory
        within(time_name, time_s, 0, open_low=True)
    return math.exp(-memories * (wait_s / time_s))


def depolarise(state: BellDiagonal, wait_s: float, memory_time_s: float, memories: Literal[1, 2] = 1) -> BellDiagonal:
    """The state after `wait_s` >= 0 in depolarising memories of time constant `memory_time_s` (> 0, infinity allowed), in seconds.

    `memories` is how many of the pair's two qubits are stored: w decays as exp(-memories t/T). Ends of different time constants: apply
    it once for each. (Depolarising channel: Nielsen & Chuang, section 8.3.4.)
    """
    return _mixed(state, _survival(wait_s, "memory_time_s", memory_time_s, memories))


def dephase(state: BellDiagonal, wait_s: float, t2_s: float, memories: Literal[1, 2] = 1) -> BellDiagonal:
    """The state after `wait_s` >= 0 in dephasing memories of coherence time `t2_s` (> 0, infinity allowed), in seconds.

    A phase flip of probability (1 - exp(-memories t/T2))/2 exchanges Phi+ with Phi- and Psi+ with Psi-. `memories` as in `depolarise`.
    (Phase damping: Nielsen & Chuang, section 8.3.6.)
    """
    flip = (1 - _survival(wait_s, "t2_s", t2_s, memories)) / 2
    a, b, c, d = state.coefficients
    keep = 1 - flip
    return _normalised(keep * a + flip * d, keep * b + flip * c, keep * c + flip * b, keep * d + flip * a)


def teleportation_fidelity(fidelity: float) -> float:
    """Mean fidelity (2F + 1)/3 of a qubit teleported over a pair of `fidelity` in [0, 1]; 2/3 is reached without entanglement.

    Horodecki et al., PRA 60, 1888, 1999.
    """
    within("fidelity", fidelity, 0, 1)
    return (2 * fidelity + 1) / 3


def binary_entropy(probability: float) -> float:
    """h(p) in bits, for p in [0, 1]."""
    within("probability", probability, 0, 1)
    if probability in (0, 1):
        return 0.0
    # log1p keeps the digits of 1 - p that a small p would lose
    return -(probability * math.log(probability) + (1 - probability) * math.log1p(-probability)) / math.log(2)


def bbm92_key_fraction(state: BellDiagonal) -> float:
    """Asymptotic secret bits per sifted pair, in [0, 1], with ideal error correction: 1 - h(e_Z) - h(e_X), at least 0.

    e_Z = B + C and e_X = B + D are the QBERs of the two bases (Bennett, Brassard & Mermin, PRL 68, 557, 1992; rate of Shor & Preskill,
    PRL 85, 441, 2000).
    """
    _, b, c, d = state.coefficients
    return max(0.0, 1 - binary_entropy(min(1.0, b + c)) - binary_entropy(min(1.0, b + d)))
