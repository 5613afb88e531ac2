"""Schedules of purification: recurrence among equal pairs, and pumping of one pair by fresh ones; with what they cost.

Every round is DEJMPS with the relabelling that serves that round best, which need not be best for all rounds together. What fails is lost, and the schedule begins again.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.physics.bell_diagonal import BellDiagonal, dejmps
from controller.physics.domain import whole

MAX_ROUNDS = 64


@dataclass(frozen=True, slots=True)
class Purified:
    """What a schedule delivers."""

    state: BellDiagonal
    successes: tuple[float, ...]
    """Success probability of every round, given that the rounds before it succeeded."""
    pairs: float
    """Elementary pairs consumed per delivered pair, on average; infinity where it is beyond a float."""


def relabelled(state: BellDiagonal) -> BellDiagonal:
    """The state after the local rotations that are best for the next DEJMPS round: the least of the three errors goes into Psi-.

    The rotations permute Psi-, Psi+ and Phi- (Deutsch et al., PRL 77, 2818, 1996; Dehaene et al., PRA 67, 022310, 2003). For fidelities above
    1/2 no other choice gives a higher fidelity after that round. The order of the other two does not matter to that; the greater goes into
    Psi+, which of the two orders is the better one for a round after it.

    Over several rounds the best choice may be another one from the first round on: two rounds of recurrence among pairs of (.71, .036, .014,
    .24) give .9151, and .9319 if .036 stays in Psi- in the first. Of Werner pairs the errors are equal, and up to two rounds are the best.
    """
    a, *errors = state.coefficients
    least, middle, greatest = sorted(errors)
    return BellDiagonal(a, least, greatest, middle)


def purify(first: BellDiagonal, second: BellDiagonal) -> tuple[BellDiagonal, float]:
    """One DEJMPS round on the relabelled pairs, which need not be equal: (state of the kept pair, success probability)."""
    return dejmps(relabelled(first), relabelled(second))


def recurrence_schedule(state: BellDiagonal, rounds: int) -> Purified:
    """`rounds` (0 to 64) among equal pairs, as a binary tree: pairs consumed are the product of 2/p over the rounds."""
    whole("rounds", rounds, 0, MAX_ROUNDS)
    successes: list[float] = []
    pairs = 1.0
    for _ in range(rounds):
        state, success = purify(state, state)
        successes.append(success)
        pairs *= 2 / success
    return Purified(state, tuple(successes), pairs)


def pumping_schedule(elementary: BellDiagonal, rounds: int) -> Purified:
    """One pair, purified `rounds` (0 to 64) times by a fresh `elementary` pair; a failed round takes both, and all begins again.

    With c pairs for a pair of k rounds, the next costs (c + 1)/p: the mean over the geometric number of tries. Entanglement pumping of Duer
    et al., PRA 59, 169, 1999: two pairs are stored at a time, but the fidelity has a limit below 1.
    """
    whole("rounds", rounds, 0, MAX_ROUNDS)
    state = elementary
    successes: list[float] = []
    pairs = 1.0
    for _ in range(rounds):
        state, success = purify(state, elementary)
        successes.append(success)
        pairs = (pairs + 1) / success
    return Purified(state, tuple(successes), pairs)
