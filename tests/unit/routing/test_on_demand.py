from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.routing.entangled.on_demand import evaluate

rates = st.floats(1e-3, 1e6)
decays = st.just(0.0) | st.floats(1e-6, 1e6)


@given(st.lists(rates, min_size=1, max_size=6))
def test_mean_of_the_last_arrival_is_that_of_inclusion_and_exclusion(rates_hz: list[float]) -> None:
    exact = sum((-1) ** (size + 1) / sum(some) for size in range(1, len(rates_hz) + 1) for some in combinations(rates_hz, size))
    mean_s, kept = evaluate(rates_hz, [0.0] * len(rates_hz))
    assert mean_s == pytest.approx(exact, rel=1e-9)
    assert kept == pytest.approx(1, rel=1e-9)


@given(rates, rates, decays, decays)
def test_of_two_pairs_the_first_waits_for_the_second(r1: float, r2: float, g1: float, g2: float) -> None:
    exact = r1 / (r1 + r2) * r2 / (r2 + g1) + r2 / (r1 + r2) * r1 / (r1 + g2)
    assert evaluate([r1, r2], [g1, g2])[1] == pytest.approx(exact, rel=1e-9)


@given(rates, decays)
def test_one_pair_waits_for_nobody(rate_hz: float, decay: float) -> None:
    assert evaluate([rate_hz], [decay]) == (pytest.approx(1 / rate_hz, rel=1e-9), pytest.approx(1, rel=1e-9))


def test_four_unlike_links_agree_with_a_simulation() -> None:
    rates_hz, decays_per_s = np.array([3.0, 1.0, 8.0, 1.0]), np.array([0.5, 2.0, 0.0, 1.0])
    arrivals = np.random.default_rng(7).exponential(1 / rates_hz, size=(400_000, 4))
    last = arrivals.max(axis=1)
    kept = np.exp(-((last[:, None] - arrivals) * decays_per_s).sum(axis=1))
    mean_s, expected = evaluate(list(rates_hz), list(decays_per_s))
    assert mean_s == pytest.approx(last.mean(), rel=5e-3)
    assert expected == pytest.approx(kept.mean(), rel=5e-3)
