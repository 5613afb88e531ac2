from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.physics.bell_diagonal import BellDiagonal, correlations, dephase, depolarise, from_correlations, swap
from controller.physics.memory import Memory, store

unit = st.floats(0, 1)


def from_weights(weights: tuple[float, ...]) -> BellDiagonal:
    a, b, c, d = (w / sum(weights) for w in weights)
    return BellDiagonal(a, b, c, d)


states = st.tuples(unit, unit, unit, unit).filter(lambda w: sum(w) > 1e-3).map(from_weights)


@given(states, st.floats(0, 50))
def test_limits_are_the_dephasing_and_the_depolarising_memory(state: BellDiagonal, wait: float) -> None:
    assert store(state, wait, Memory(t2_s=3.0)).coefficients == pytest.approx(dephase(state, wait, 3.0).coefficients, abs=1e-14)
    assert store(state, wait, Memory(3.0, 3.0)).coefficients == pytest.approx(depolarise(state, wait, 3.0).coefficients, abs=1e-14)
    assert store(state, wait, Memory()).coefficients == pytest.approx(state.coefficients, abs=1e-15)


@given(states, st.floats(0, 5), st.floats(0, 5), st.floats(0.1, 10), st.floats(0.01, 2))
def test_storing_twice_is_storing_longer(state: BellDiagonal, one: float, other: float, t1: float, ratio: float) -> None:
    memory = Memory(t1, t1 * ratio)
    twice = store(store(state, one, memory), other, memory)
    assert twice.coefficients == pytest.approx(store(state, one + other, memory).coefficients, abs=1e-13)


def test_relaxation_limits_dephasing() -> None:
    # pure relaxation, T2 = 2 T1: the twirled channel has X and Y errors of (1 - e^-t/T1)/4 and Z of ((1 - e^-t/2T1)/2)^2
    state = store(BellDiagonal(1.0, 0.0, 0.0, 0.0), 1.0, Memory(1.0, 2.0))
    bit_flip = (1 - math.exp(-1.0)) / 4
    assert state.psi_plus == pytest.approx(bit_flip) and state.psi_minus == pytest.approx(bit_flip)
    assert state.phi_minus == pytest.approx(((1 - math.exp(-0.5)) / 2) ** 2)
    with pytest.raises(ValueError, match=r"^t2_s must be at most twice t1_s"):
        Memory(1.0, 2.1)


@given(states, states)
def test_correlations_there_and_back_and_through_a_swap(left: BellDiagonal, right: BellDiagonal) -> None:
    assert from_correlations(*correlations(left)).coefficients == pytest.approx(left.coefficients, abs=1e-15)
    products = [a * b for a, b in zip(correlations(left), correlations(right), strict=True)]
    assert correlations(swap(left, right)) == pytest.approx(products, abs=1e-14)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_times_outside_their_range_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"^t1_s must be in \[1e-100, 1e\+100\]"):
        Memory(t1_s=bad)
    with pytest.raises(ValueError, match=r"^t2_s must be in \[1e-100, 1e\+100\]"):
        Memory(t2_s=bad)
    if bad != 0:
        with pytest.raises(ValueError, match=r"^wait_s must be in"):
            store(BellDiagonal(1.0, 0.0, 0.0, 0.0), bad, Memory())


@pytest.mark.parametrize("bad", [(1.0, 1.0, -1.0), (1.1, 1.0, 1.0), (math.nan, 0.0, 0.0)])
def test_correlations_of_no_state_are_refused(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"^no state has the correlations"):
        from_correlations(*bad)
