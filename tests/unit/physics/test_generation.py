from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.physics.fibre import fibre_loss_db
from controller.physics.generation import (
    arm_efficiency,
    attempt_period_s,
    attempts_until_all,
    double_click_fidelity,
    double_click_probability,
    generation_rate_hz,
    multiplexed_probability,
    single_click_fidelity,
    single_click_probability,
)


@pytest.mark.parametrize(
    ("length_km", "double", "double_hz", "single", "single_hz"),
    [(10, 2.839308e-2, 567.9, 2.382985e-2, 476.6), (50, 4.5e-3, 18.0, 9.486833e-3, 37.9), (100, 4.5e-4, 0.9, 3.0e-3, 6.0)],
)
def test_elementary_link(length_km: float, double: float, double_hz: float, single: float, single_hz: float) -> None:
    arm = arm_efficiency(fibre_loss_db(length_km / 2), 0.3)
    period_s = attempt_period_s(length_km)
    assert double_click_probability(arm, arm) == pytest.approx(double, rel=3e-7)
    assert single_click_probability(0.05, arm) == pytest.approx(single, rel=3e-7)
    assert generation_rate_hz(double_click_probability(arm, arm), period_s) == pytest.approx(double_hz, abs=0.06)
    assert generation_rate_hz(single_click_probability(0.05, arm), period_s) == pytest.approx(single_hz, abs=0.06)


@pytest.mark.parametrize(("length_km", "expected"), [(10, 0.2502681), (50, 4.40996e-2)])
def test_ten_modes(length_km: float, expected: float) -> None:
    arm = arm_efficiency(fibre_loss_db(length_km / 2), 0.3)
    assert multiplexed_probability(double_click_probability(arm, arm), 10) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize(("links", "expected"), [(1, 10.0), (2, 14.7368421), (4, 20.2733782)])
def test_waiting_for_parallel_links(links: int, expected: float) -> None:
    assert attempts_until_all(links, 0.1) == pytest.approx(expected, abs=6e-8)


@given(st.integers(1, 40), st.floats(0.01, 0.99))
def test_waiting_agrees_with_the_alternating_sum_in_exact_arithmetic(links: int, probability: float) -> None:
    failure = 1 - Fraction(probability).limit_denominator(100)
    exact = sum(math.comb(links, k) * Fraction((-1) ** (k + 1)) / (1 - failure**k) for k in range(1, links + 1))
    assert attempts_until_all(links, float(1 - failure)) == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("probability", [1e-100, 1e-9, 0.5, 0.999, 1.0])
def test_waiting_holds_at_the_ends_of_its_domain(probability: float) -> None:
    mean = attempts_until_all(256, probability)
    harmonic = sum(1 / k for k in range(1, 257))
    # the largest of n exponential variables is no larger on average than that of n geometric ones, which is at most one attempt later
    decay = -math.log1p(-probability) if probability < 1 else math.inf
    assert harmonic / decay * (1 - 1e-12) <= mean <= (harmonic / decay + 1) * (1 + 1e-12)


@given(st.floats(0, 1), st.integers(1, 1000))
def test_more_modes_never_harm(probability: float, modes: int) -> None:
    one, many = multiplexed_probability(probability, modes), multiplexed_probability(probability, modes + 1)
    assert probability * (1 - 1e-12) <= one <= many * (1 + 1e-12) <= 1 + 1e-12


def test_preparation_and_fidelities() -> None:
    assert attempt_period_s(10, 1e-5) == pytest.approx(6e-5)
    assert double_click_fidelity(0.9) == pytest.approx(0.95)
    assert single_click_fidelity(0.05) == pytest.approx(0.95)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_figures_outside_their_range_are_refused(bad: float) -> None:
    calls: tuple[tuple[str, Callable[[], float]], ...] = (
        ("detector_efficiency", lambda: arm_efficiency(1.0, bad)),
        ("left_efficiency", lambda: double_click_probability(bad, 1.0)),
        ("right_efficiency", lambda: double_click_probability(1.0, bad)),
        ("visibility", lambda: double_click_fidelity(bad)),
        ("bright_population", lambda: single_click_probability(bad, 1.0)),
        ("bright_population", lambda: single_click_fidelity(bad)),
        ("efficiency", lambda: single_click_probability(0.1, bad)),
        ("probability", lambda: multiplexed_probability(bad, 2)),
        ("probability", lambda: generation_rate_hz(bad, 1.0)),
        ("probability", lambda: attempts_until_all(2, bad)),
    )
    for name, call in calls:
        with pytest.raises(ValueError, match=rf"^{name} must be in \["):
            call()


def test_counts_and_times_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^modes must be a whole number"):
        multiplexed_probability(0.1, 0)
    with pytest.raises(ValueError, match=r"^links must be a whole number"):
        attempts_until_all(257, 0.1)
    with pytest.raises(ValueError, match=r"^probability must be in \[1e-100, 1\]"):
        attempts_until_all(2, 0.0)
    with pytest.raises(ValueError, match=r"^preparation_s must be in"):
        attempt_period_s(1.0, -1.0)
    with pytest.raises(ValueError, match=r"^attempt_s must be in \(0, inf\)"):
        generation_rate_hz(0.1, 0.0)
