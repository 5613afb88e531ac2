from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.physics.fibre import fibre_loss_db, loss_db_of, propagation_delay_s, transmittance


@given(st.floats(0, 3000))
def test_loss_there_and_back(loss: float) -> None:
    assert loss_db_of(transmittance(loss)) == pytest.approx(loss, abs=1e-12, rel=1e-12)


@given(st.floats(0, 500), st.floats(0, 500))
def test_losses_add_where_transmittances_multiply(a: float, b: float) -> None:
    assert transmittance(a + b) == pytest.approx(transmittance(a) * transmittance(b), rel=1e-10)


def test_known_lengths() -> None:
    assert fibre_loss_db(50) == pytest.approx(10)
    assert fibre_loss_db(50, 0.21) == pytest.approx(10.5)
    assert transmittance(10) == pytest.approx(0.1)
    assert math.copysign(1, loss_db_of(1.0)) == 1
    assert propagation_delay_s(10) == pytest.approx(50e-6)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_figures_outside_their_range_are_refused(bad: float) -> None:
    for call, name in ((fibre_loss_db, "length_km"), (propagation_delay_s, "length_km"), (transmittance, "loss_db")):
        with pytest.raises(ValueError, match=rf"^{name} must be in \[0, inf\), got "):
            call(bad)
    with pytest.raises(ValueError, match=r"^loss_db_per_km must be in \[0, inf\)"):
        fibre_loss_db(1.0, bad)
    for eta in (bad, 0.0):
        with pytest.raises(ValueError, match=r"^transmittance must be in \(0, 1\]"):
            loss_db_of(eta)
