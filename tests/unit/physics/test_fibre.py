from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.physics.fibre import fibre_loss_db, loss_db_of, path_loss_db, propagation_delay_s, transmittance


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
        with pytest.raises(ValueError, match=rf"^{name} must be in \[0, 1e\+100\], got "):
            call(bad)
    with pytest.raises(ValueError, match=r"^loss_db_per_km must be in \[0, 1e\+100\]"):
        fibre_loss_db(1.0, bad)
    for eta in (bad, 0.0):
        with pytest.raises(ValueError, match=r"^transmittance must be in \(0, 1\]"):
            loss_db_of(eta)


def test_loss_of_a_lightpath() -> None:
    # the networks of the coexistence figures: 10 km, two switches, four connectors
    assert path_loss_db([fibre_loss_db(10)], connectors=4, insertions_db=[1.0, 1.0]) == pytest.approx(5.2)
    assert path_loss_db([2, 3], connectors=2, splices=10, insertions_db=(0.7, 5), margin_db=3) == pytest.approx(14.8)
    assert path_loss_db([], splices=3, splice_loss_db=0.1) == pytest.approx(0.3)


@given(st.lists(st.floats(0, 50)), st.integers(0, 50), st.integers(0, 50), st.lists(st.floats(0, 20)), st.floats(0, 10))
def test_more_parts_never_lose_less(fibres: list[float], connectors: int, splices: int, passed: list[float], more: float) -> None:
    loss = path_loss_db(fibres, connectors=connectors, splices=splices, insertions_db=passed)
    for longer in (
        path_loss_db([*fibres, more], connectors=connectors, splices=splices, insertions_db=passed),
        path_loss_db(fibres, connectors=connectors + 1, splices=splices, insertions_db=[*passed, more]),
        path_loss_db(fibres, connectors=connectors, splices=splices + 1, insertions_db=passed, margin_db=more),
    ):
        assert longer >= loss - 1e-9


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"connectors": -1}, "connectors"),
        ({"splices": 1.5}, "splices"),
        ({"insertions_db": [1.0, math.nan]}, r"insertions_db\[1\]"),
        ({"margin_db": -1.0}, "margin_db"),
        ({"connector_loss_db": math.inf}, "connector_loss_db"),
    ],
)
def test_bad_parts_are_refused(arguments: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        path_loss_db([1.0], **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^fibres_db\[0\] must be"):
        path_loss_db([-1.0])
