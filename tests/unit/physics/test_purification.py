from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from controller.physics.bell_diagonal import BellDiagonal, dejmps, werner
from controller.physics.purification import pumping_schedule, purify, recurrence_schedule, relabelled

unit = st.floats(0, 1)


def with_errors(fidelity: float, weights: tuple[float, float, float]) -> BellDiagonal:
    total = sum(weights)
    b, c, d = ((1 - fidelity) * w / total for w in weights)
    return BellDiagonal(fidelity, b, c, d)


errors = st.tuples(unit, unit, unit).filter(lambda w: sum(w) > 1e-3)
good = st.builds(with_errors, st.floats(0.5, 1), errors)


def all_labels(state: BellDiagonal) -> list[BellDiagonal]:
    a, *rest = state.coefficients
    return [BellDiagonal(a, *order) for order in permutations(rest)]


@given(good, good)
def test_no_relabelling_of_either_pair_gives_more_fidelity(first: BellDiagonal, second: BellDiagonal) -> None:
    best = max(dejmps(one, other)[0].fidelity for one in all_labels(first) for other in all_labels(second))
    assert purify(first, second)[0].fidelity == pytest.approx(best, abs=1e-12)


@given(good)
def test_no_relabelling_gives_more_after_two_rounds_of_the_greedy_one(state: BellDiagonal) -> None:
    def twice(labelled: BellDiagonal) -> float:
        once, _ = dejmps(labelled, labelled)
        return purify(once, once)[0].fidelity

    best = max(twice(labelled) for labelled in all_labels(state) if labelled.psi_minus == min(labelled.coefficients[1:]))
    assert twice(relabelled(state)) == pytest.approx(best, abs=1e-12)


def test_what_serves_each_round_best_need_not_serve_both() -> None:
    """The figures of the docstring, and its word on Werner pairs."""
    state = BellDiagonal(0.71, 0.036, 0.014, 0.24)
    once, _ = dejmps(state, state)
    assert recurrence_schedule(state, 2).state.fidelity == pytest.approx(0.9151, abs=5e-5)
    assert purify(once, once)[0].fidelity == pytest.approx(0.9319, abs=5e-5)
    for fidelity in (0.55, 0.8, 0.99):
        once, _ = dejmps(werner(fidelity), werner(fidelity))
        best = max(dejmps(labelled, labelled)[0].fidelity for labelled in all_labels(once))
        assert recurrence_schedule(werner(fidelity), 2).state.fidelity == pytest.approx(best)


def test_the_sheets_example_of_labels() -> None:
    bad = BellDiagonal(0.9, 0.1, 0.0, 0.0)
    assert dejmps(bad, bad)[0].fidelity == pytest.approx(0.82)
    assert purify(bad, bad)[0].fidelity == pytest.approx(0.988, abs=5e-4)


@pytest.mark.parametrize(
    ("fidelity", "rounds"),
    [
        (0.8, ((0.83815029, 0.76888889), (0.94363922, 0.74459554), (0.98797356, 0.90131312))),
        (0.9, ((0.92639594, 0.87555556), (0.98876354, 0.86796877), (0.99907012, 0.97856346))),
    ],
)
def test_recurrence_from_werner_pairs(fidelity: float, rounds: tuple[tuple[float, float], ...]) -> None:
    schedule = recurrence_schedule(werner(fidelity), 3)
    assert schedule.state.fidelity == pytest.approx(rounds[-1][0], abs=6e-9)
    assert schedule.successes == pytest.approx([success for _, success in rounds], abs=6e-9)
    assert schedule.pairs == pytest.approx(8 / math.prod(success for _, success in rounds), rel=1e-7)


def test_no_rounds_change_nothing() -> None:
    for schedule in (recurrence_schedule(werner(0.8), 0), pumping_schedule(werner(0.8), 0)):
        assert (schedule.state, schedule.successes, schedule.pairs) == (werner(0.8), (), 1.0)


def test_one_round_is_the_same_either_way() -> None:
    one, other = recurrence_schedule(werner(0.8), 1), pumping_schedule(werner(0.8), 1)
    assert one.state == other.state
    assert one.pairs == pytest.approx(other.pairs)


def test_pumping_costs_what_a_simulation_counts() -> None:
    schedule = pumping_schedule(werner(0.75), 3)
    rng = np.random.default_rng(5)
    consumed = []
    for _ in range(20_000):
        pairs, done = 1, 0
        while done < 3:
            pairs += 1
            if rng.random() < schedule.successes[done]:
                done += 1
            else:
                pairs, done = pairs + 1, 0
        consumed.append(pairs)
    assert schedule.pairs == pytest.approx(np.mean(consumed), abs=5 * np.std(consumed) / math.sqrt(len(consumed)))


@given(good, st.integers(1, 8))
def test_schedules_deliver_states_at_a_price(state: BellDiagonal, rounds: int) -> None:
    assume(state.fidelity > 0.51)
    pumped, purified = pumping_schedule(state, rounds), recurrence_schedule(state, rounds)
    for schedule in (pumped, purified):
        assert math.fsum(schedule.state.coefficients) == pytest.approx(1)
        assert all(0 < success <= 1 for success in schedule.successes)
        assert schedule.pairs >= rounds + 1 - 1e-12
    assert purified.state.fidelity >= state.fidelity - 1e-12
    assert purified.pairs >= 2**rounds * (1 - 1e-12)


def test_pumping_has_a_limit() -> None:
    limits = [pumping_schedule(werner(0.8), rounds).state.fidelity for rounds in (20, 40, 64)]
    assert limits[2] == pytest.approx(limits[1], abs=1e-6)
    assert limits[2] < 0.99 < recurrence_schedule(werner(0.8), 5).state.fidelity


@pytest.mark.parametrize("rounds", [-1, 65, 1.5, True])
def test_rounds_outside_their_range_are_refused(rounds: int) -> None:
    for schedule in (recurrence_schedule, pumping_schedule):
        with pytest.raises(ValueError, match=r"^rounds must be a whole number in \[0, 64\]"):
            schedule(werner(0.8), rounds)
