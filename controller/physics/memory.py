"""Quantum memories: what waiting does to a stored pair.

The correlations of a pair under XX, YY (sign taken so that Phi+ has +1) and ZZ are what noise on one qubit scales: independently of the
other qubit, and of all noise before and after. Swapping multiplies the correlations of the two pairs one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from controller.physics.bell_diagonal import BellDiagonal, correlations, from_correlations
from controller.physics.domain import LEAST, MOST, within


@dataclass(frozen=True, slots=True)
class Memory:
    """Times in seconds, 1e-100 to 1e100 or inf: ZZ decays as exp(-t/T1), XX and YY as exp(-t/T2).

    Relaxation and dephasing with random Pauli frames (the Pauli-twirled channel of Ghosh, Fowler & Geller, PRA 86, 062318, 2012):
    T1 = inf is pure dephasing, T1 = T2 = T the depolarising memory of time constant T. Raises ValueError unless T2 <= 2 T1.
    """

    t1_s: float = math.inf
    t2_s: float = math.inf

    def __post_init__(self) -> None:
        for name, time_s in (("t1_s", self.t1_s), ("t2_s", self.t2_s)):
            if time_s != math.inf:
                within(name, time_s, LEAST, MOST)
        if self.t2_s > 2 * self.t1_s:
            raise ValueError(f"t2_s must be at most twice t1_s, got {self.t2_s!r} with t1_s {self.t1_s!r}")


PERFECT_MEMORY = Memory()


def store(state: BellDiagonal, wait_s: float, memory: Memory) -> BellDiagonal:
    """The pair after one of its qubits spent `wait_s` >= 0 seconds in `memory`. Apply it once for each end that is stored."""
    within("wait_s", wait_s, 0)
    x, y, z = correlations(state)
    kept_xy, kept_z = math.exp(-wait_s / memory.t2_s), math.exp(-wait_s / memory.t1_s)
    return from_correlations(x * kept_xy, y * kept_xy, z * kept_z)
