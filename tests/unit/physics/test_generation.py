from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from controller.physics.fibre import fibre_loss_db
from controller.physics.generation import (
    SingleClickArm,
    arm_efficiency,
    attempt_period_s,
    attempt_rate_hz,
    attempts_until_all,
    attempts_until_each,
    double_click_fidelity,
    double_click_probability,
    double_click_state,
    generation_rate_hz,
    heralded_rate_hz,
    multiplexed_probability,
    probability_all_within,
    single_click,
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
        ("probability", lambda: attempts_until_each((0.5, bad))),
        ("probability", lambda: probability_all_within((0.5, bad), 2)),
        ("bright_population", lambda: SingleClickArm(bad, 0.5).efficiency),
        ("efficiency", lambda: SingleClickArm(0.1, bad).efficiency),
        ("visibility", lambda: single_click(SingleClickArm(0.1, 0.5), SingleClickArm(0.1, 0.5), bad)[0]),
        ("visibility", lambda: double_click_state(bad).fidelity),
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
    with pytest.raises(ValueError, match=r"^attempt_s must be in \[1e-100, 1e\+100\]"):
        generation_rate_hz(0.1, 0.0)
    with pytest.raises(ValueError, match=r"^the number of probabilities must be a whole number in \[1, 256\]"):
        attempts_until_each(())
    with pytest.raises(ValueError, match=r"^attempts must be a whole number"):
        probability_all_within((0.5,), -1)
    with pytest.raises(ValueError, match=r"^memories must be a whole number"):
        attempt_rate_hz(1e-3, 0)
    with pytest.raises(ValueError, match=r"^emission_s \+ herald_s must be in \[1e-100, 1e\+100\]"):
        attempt_rate_hz(0.0)
    with pytest.raises(ValueError, match=r"^probability must be in \(0, 1\]"):
        heralded_rate_hz(0.0, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"^failure_s must be in"):
        heralded_rate_hz(0.5, 1.0, math.nan)
    with pytest.raises(ValueError, match="never herald"):
        single_click(SingleClickArm(0.0, 0.5), SingleClickArm(0.1, 0.0))


# --- single click ---

arms = st.builds(SingleClickArm, st.floats(0.001, 0.5), st.floats(0.001, 1))


@given(st.floats(0.001, 0.5), st.floats(0.001, 1))
def test_equal_arms_with_number_resolving_loss(bright: float, efficiency: float) -> None:
    probability, state = single_click(SingleClickArm(bright, efficiency), SingleClickArm(bright, efficiency))
    assert probability == pytest.approx(2 * bright * efficiency * (1 - bright * efficiency), rel=1e-12)
    assert state.fidelity == pytest.approx((1 - bright) / (1 - bright * efficiency), rel=1e-12)
    assert probability <= single_click_probability(bright, efficiency)
    assert state.fidelity >= single_click_fidelity(bright)


@given(arms, arms)
def test_single_click_agrees_with_density_matrices(left: SingleClickArm, right: SingleClickArm) -> None:
    # node, emitted photon: amplitudes of dark without and bright with a photon; beam splitter and one count in the first or second output
    rho, total = np.zeros((4, 4)), 0.0
    for sign in (1, -1):
        for lost_left, lost_right in ((0, 0), (0, 1), (1, 0)):
            vector = np.zeros(4)
            for bright_left, bright_right in ((1, 0), (0, 1), (1, 1)):
                arrived = (bright_left - lost_left, bright_right - lost_right)
                if sorted(arrived) != [0, 1]:
                    continue
                amplitude = 1.0 if arrived == (1, 0) else sign
                for arm, bright, lost in ((left, bright_left, lost_left), (right, bright_right, lost_right)):
                    amplitude *= math.sqrt(arm.bright_population if bright else 1 - arm.bright_population)
                    amplitude *= math.sqrt(1 - arm.efficiency if lost else arm.efficiency if bright else 1)
                vector[2 * bright_left + bright_right] += amplitude / math.sqrt(2)
            corrected = vector * np.array([1, 1, sign, sign])  # Z on the left node after the second output
            rho += np.outer(corrected, corrected)
            total += float(vector @ vector)
    psi_plus, psi_minus = np.array([0, 1, 1, 0]) / math.sqrt(2), np.array([0, 1, -1, 0]) / math.sqrt(2)
    probability, state = single_click(left, right)
    assert probability == pytest.approx(total, rel=1e-12)
    assert state.fidelity == pytest.approx(psi_plus @ rho @ psi_plus / total, abs=1e-12)
    assert state.phi_minus == pytest.approx(psi_minus @ rho @ psi_minus / total, abs=1e-12)
    assert state.psi_plus == state.psi_minus == pytest.approx(rho[3, 3] / total / 2, abs=1e-12)


@given(arms, arms, st.floats(0, 1), st.floats(0, 1))
def test_better_interference_never_harms(left: SingleClickArm, right: SingleClickArm, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert single_click(left, right, low)[1].fidelity <= single_click(left, right, high)[1].fidelity + 1e-15
    assert double_click_state(low).fidelity == double_click_fidelity(low)


# --- attempts ---


@pytest.mark.parametrize(
    ("length_km", "expected"),
    [(1, 205.57), (5, 170.37), (10, 135.02), (15, 107.20), (20, 71.80), (25, 47.72), (30, 32.62), (50, 8.378)],
)
def test_link_rates_of_caleffi(length_km: float, expected: float) -> None:
    probability = 0.5 * 0.39 * (0.53 * 0.8 * 0.8) ** 2 * math.exp(-length_km / 22)
    heralding_s = 10e-6 + 10e-6 + length_km / 2e5
    success_s, failure_s = 5.9e-6 + max(20e-6, heralding_s), 5.9e-6 + max(20e-6, heralding_s, 100e-6)
    assert heralded_rate_hz(probability, success_s, failure_s) == pytest.approx(expected, abs=0.006 if expected > 9 else 0.0006)


def test_memories_limit_attempts_until_emission_does() -> None:
    herald_s, emission_s = 1e-3, 1e-5
    assert attempt_rate_hz(herald_s, 1, emission_s) == pytest.approx(1 / (herald_s + emission_s))
    assert attempt_rate_hz(herald_s, 10, emission_s) == pytest.approx(10 / (herald_s + emission_s))
    assert attempt_rate_hz(herald_s, 1000, emission_s) == pytest.approx(1 / emission_s)
    assert attempt_rate_hz(0.0, 1, emission_s) == pytest.approx(1 / emission_s)
    assert 1 / attempt_rate_hz(attempt_period_s(50)) == pytest.approx(attempt_period_s(50))


# --- links that differ ---


def test_buffered_and_on_demand_differ() -> None:
    assert 1 / attempts_until_all(4, 0.1) == pytest.approx(0.0493, abs=5e-5)
    assert 0.1 * attempts_until_all(8, 0.1) == pytest.approx(2.63, abs=5e-3)


@given(st.integers(1, 30), st.floats(1e-6, 1))
def test_equal_links_wait_as_the_closed_form_says(links: int, probability: float) -> None:
    assert attempts_until_each([probability] * links) == pytest.approx(attempts_until_all(links, probability), rel=1e-10)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6))
def test_different_links_agree_with_the_alternating_sum_in_exact_arithmetic(parts: list[int]) -> None:
    failures = [1 - Fraction(part, 10**6) for part in parts]
    exact = sum(
        Fraction((-1) ** (size + 1)) / (1 - math.prod(chosen))
        for size in range(1, len(parts) + 1)
        for chosen in combinations(failures, size)
    )
    assert attempts_until_each([part / 10**6 for part in parts]) == pytest.approx(float(exact), rel=1e-10)


@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=8))
def test_mean_is_the_sum_of_the_distributions_tail(probabilities: list[float]) -> None:
    tail = math.fsum(1 - probability_all_within(probabilities, attempts) for attempts in range(1000))
    assert attempts_until_each(probabilities) == pytest.approx(tail, rel=1e-10)


@given(st.lists(st.floats(1e-100, 1), min_size=2, max_size=8), st.integers(0, 10**15))
def test_waiting_grows_with_links_and_its_distribution_with_time(probabilities: list[float], attempts: int) -> None:
    assert attempts_until_each(probabilities[1:]) <= attempts_until_each(probabilities) * (1 + 1e-9)
    now, later = probability_all_within(probabilities, attempts), probability_all_within(probabilities, min(attempts + 1, 10**15))
    assert 0 <= now <= later * (1 + 1e-12) <= 1 + 1e-12


@given(arms, arms)
def test_single_click_gives_a_state(left: SingleClickArm, right: SingleClickArm) -> None:
    assume(left != right)
    probability, state = single_click(left, right)
    assert 0 < probability <= 1
    assert state.fidelity >= state.phi_minus
