from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.physics.bell_diagonal import bbm92_key_fraction, werner
from controller.physics.fibre import fibre_loss_db, transmittance
from controller.physics.key_rates import (
    DecoyBb84,
    bbm92_rate,
    best_intensity,
    bound_bps,
    bound_warning,
    plob,
    plob_with_station,
    six_state_key_fraction,
)

GYS = DecoyBb84()
losses = st.floats(0, 400)
links = st.builds(
    DecoyBb84,
    receiver_efficiency=st.floats(0, 1),
    background_yield=st.one_of(st.floats(0, 1e-3), st.floats(0, 1)),
    misalignment_error=st.floats(0, 0.5),
    error_correction_efficiency=st.floats(1, 2),
    sifting=st.floats(0, 1),
    intensity=st.floats(0, 1, exclude_min=True),
)


def gys_loss_db(length_km: float) -> float:
    return fibre_loss_db(length_km, 0.21)


@pytest.mark.parametrize(
    ("length_km", "rate", "gain", "qber", "single_photon_error"),
    [
        (0, 2.5546e-3, 2.1370e-2, 0.03304, 0.03302),
        (10, 1.5671e-3, 1.3232e-2, 0.03306, 0.03303),
        (50, 2.2260e-4, 1.9250e-3, 0.03341, 0.03320),
        (100, 1.7184e-5, 1.7326e-4, 0.03758, 0.03521),
        (120, 4.8146e-6, 6.6929e-5, 0.04486, 0.03877),
        (140, 2.4647e-7, 2.6500e-5, 0.06296, 0.04788),
    ],
)
def test_decoy_bb84_of_gys(length_km: float, rate: float, gain: float, qber: float, single_photon_error: float) -> None:
    loss = gys_loss_db(length_km)
    assert GYS.rate_per_pulse(loss) == pytest.approx(rate, rel=3e-5)
    assert GYS.gain(loss) == pytest.approx(gain, rel=3e-5)
    assert GYS.qber(loss) == pytest.approx(qber, abs=6e-6)
    assert GYS.single_photon_error(loss) == pytest.approx(single_photon_error, abs=6e-6)
    assert GYS.rate_bps(loss) == pytest.approx(2e6 * rate, rel=3e-5)


@pytest.mark.parametrize(("link", "reach_km", "step_km"), [(GYS, 142.01, 0.01), (DecoyBb84(error_correction_efficiency=1.0), 150.1, 0.1)])
def test_decoy_bb84_reach(link: DecoyBb84, reach_km: float, step_km: float) -> None:
    assert link.rate_per_pulse(gys_loss_db(reach_km - step_km)) > 0
    assert link.rate_per_pulse(gys_loss_db(reach_km + step_km)) == 0


def test_the_best_intensity_reaches_little_farther() -> None:
    intensities = [m / 1000 for m in range(400, 600)]
    assert any(DecoyBb84(intensity=m).rate_per_pulse(gys_loss_db(142.20)) > 0 for m in intensities)
    assert not any(DecoyBb84(intensity=m).rate_per_pulse(gys_loss_db(142.22)) > 0 for m in intensities)


@pytest.mark.parametrize(
    ("length_km", "direct", "station"),
    [
        (10, 1.43814052, None),
        (50, 0.15200309, None),
        (100, 0.01449957, 0.15200309),
        (200, 1.44276718e-4, None),
        (300, 1.44269576e-6, 0.00144341687),
        (500, None, 1.44270e-5),
    ],
)
def test_bounds(length_km: float, direct: float | None, station: float | None) -> None:
    eta = transmittance(fibre_loss_db(length_km))
    if direct is not None:
        assert plob(eta) == pytest.approx(direct, rel=4e-7)
    if station is not None:
        assert plob_with_station(eta) == pytest.approx(station, rel=4e-6)


def test_bounds_at_the_ends_of_their_domain() -> None:
    assert plob(0.0) == plob_with_station(0.0) == 0
    assert plob(1.0) == plob_with_station(1.0) == math.inf


@given(st.floats(0, 1))
def test_a_station_never_lowers_the_bound(eta: float) -> None:
    assert plob_with_station(eta) >= plob(eta)


@given(links, losses)
def test_gain_and_qber_are_in_range(link: DecoyBb84, loss: float) -> None:
    assert 0 <= link.gain(loss) <= 1
    assert 0 <= link.qber(loss) <= 0.5


@given(losses, losses)
def test_rate_falls_with_loss(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert GYS.rate_per_pulse(high) <= GYS.rate_per_pulse(low) * (1 + 1e-12)


@given(links, losses)
def test_no_key_rate_exceeds_the_bound(link: DecoyBb84, loss: float) -> None:
    # differences of nearly equal entropies are exact to about 1e-16
    assert 0 <= link.rate_per_pulse(loss) <= plob(transmittance(loss)) + 1e-17


def test_a_link_without_clicks_makes_no_key() -> None:
    dead = DecoyBb84(receiver_efficiency=0.0, background_yield=0.0)
    assert (dead.gain(0.0), dead.qber(0.0), dead.rate_per_pulse(0.0)) == (0, 0.5, 0)


@given(st.floats(0, 1))
def test_bbm92_rate_is_half_the_key_fraction_at_ideal_error_correction(fidelity: float) -> None:
    qber = 2 * (1 - fidelity) / 3
    if qber <= 0.5:
        assert bbm92_rate(1000.0, qber, 1.0) == pytest.approx(500 * bbm92_key_fraction(werner(fidelity)), abs=1e-9)


@given(st.floats(0, 0.5), st.floats(1, 2), st.floats(1, 2))
def test_worse_error_correction_never_helps(qber: float, f1: float, f2: float) -> None:
    low, high = sorted((f1, f2))
    assert bbm92_rate(1000.0, qber, high) <= bbm92_rate(1000.0, qber, low)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("receiver_efficiency", 1.1),
        ("background_yield", 1.1),
        ("misalignment_error", 0.6),
        ("error_correction_efficiency", 0.9),
        ("sifting", -0.1),
        ("intensity", 0.0),
        ("clock_hz", 0.0),
    ],
)
def test_parameters_outside_their_range_are_refused(name: str, bad: float) -> None:
    for value in (bad, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"^{name} must be in "):
            DecoyBb84(**{name: value})


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_arguments_outside_their_range_are_refused(bad: float) -> None:
    for method in (GYS.gain, GYS.qber, GYS.single_photon_error, GYS.rate_per_pulse, GYS.rate_bps):
        with pytest.raises(ValueError, match=r"^loss_db must be in \[0, 1e\+100\]"):
            method(bad)
    for bound in (plob, plob_with_station):
        with pytest.raises(ValueError, match=r"^transmittance must be in \[0, 1\]"):
            bound(bad)
    with pytest.raises(ValueError, match=r"^coincidence_hz must be in"):
        bbm92_rate(bad, 0.01, 1.1)
    with pytest.raises(ValueError, match=r"^qber must be in \[0, 0.5\]"):
        bbm92_rate(1.0, bad, 1.1)
    with pytest.raises(ValueError, match=r"^f_ec must be in \[1, inf\)"):
        bbm92_rate(1.0, 0.01, bad)


@pytest.mark.parametrize(
    ("qber", "fraction"),
    [(0.01, 0.83841373), (0.02, 0.71711891), (0.03, 0.61121628), (0.05, 0.42720609), (0.08, 0.19564162), (0.10, 0.06200881)],
)
def test_bbm92_fraction(qber: float, fraction: float) -> None:
    assert 2 * bbm92_rate(1.0, qber, 1.0) == pytest.approx(fraction, abs=5e-9)
    # Q = 2(1 - F)/3 of a Werner pair
    assert bbm92_key_fraction(werner(1 - 1.5 * qber)) == pytest.approx(fraction, abs=5e-9)


def test_where_the_key_ends() -> None:
    assert bbm92_rate(1.0, 0.1100278643, 1.0) > 0 == bbm92_rate(1.0, 0.1100278645, 1.0)
    assert bbm92_key_fraction(werner(0.8349583)) > 0 == bbm92_key_fraction(werner(0.8349581))
    assert six_state_key_fraction(0.05) == pytest.approx(0.496816, abs=5e-7)
    assert six_state_key_fraction(0.10) == pytest.approx(0.152415, abs=5e-7)
    assert six_state_key_fraction(0.1261930) > 0 == six_state_key_fraction(0.1261932)


@given(st.floats(0, 0.5))
def test_six_states_make_no_less_key_than_four(qber: float) -> None:
    assert 2 * bbm92_rate(1.0, qber, 1.0) - 1e-12 <= six_state_key_fraction(qber) <= 1


def test_best_intensity() -> None:
    assert best_intensity(0.033) == pytest.approx(0.47892, abs=5e-6)
    assert best_intensity(0.033, 1.0) == pytest.approx(0.54412, abs=5e-6)
    assert best_intensity(0.0) == pytest.approx(1)
    assert best_intensity(0.12) == best_intensity(0.5) == 0


@given(st.floats(0.001, 0.08), st.floats(1, 1.5))
def test_no_other_intensity_is_better_without_background(error: float, f: float) -> None:
    best = best_intensity(error, f)
    if best > 0.01:
        rates = [DecoyBb84(1e-4, 0.0, error, f, intensity=best * share).rate_per_pulse(0) for share in (0.97, 1.0, min(1.03, 1 / best))]
        assert max(rates) == pytest.approx(rates[1], rel=1e-4)


@given(losses, st.floats(0, 1), st.floats(0, 1))
def test_rate_falls_with_noise(loss: float, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert DecoyBb84(background_yield=high).rate_per_pulse(loss) <= DecoyBb84(background_yield=low).rate_per_pulse(loss) * (1 + 1e-12)


def test_efficient_sifting_scales_the_rate() -> None:
    assert DecoyBb84(sifting=0.9**2).rate_per_pulse(10) == pytest.approx(1.62 * GYS.rate_per_pulse(10))


def test_a_figure_above_the_loss_limit_gets_a_warning() -> None:
    # 50 km at 0.2 dB/km
    assert bound_bps(10, 1e9, 1, "none") == bound_bps(10, 1e9, 1, "source") == pytest.approx(0.15200309e9)
    assert bound_bps(20, 1e6, 4, "station") == pytest.approx(4e6 * 0.15200309)
    assert bound_warning(1.52e8, 10, 1e9) is None
    warning = bound_warning(1.53e8, 10, 1e9)
    assert warning is not None
    assert "1.53e+08 bit/s is above 1.52003e+08 bit/s" in warning
    assert "10 dB" in warning
    assert bound_warning(1.53e8, 10, 1e9, modes=2) is None
    assert bound_warning(1.53e8, 10, 1e9, middle="source") is not None
    assert bound_warning(1.53e8, 10, 1e9, middle="station") is None
    assert bound_warning(1e30, 0, 1e9) is None


@given(links, losses)
def test_no_model_is_warned_of(link: DecoyBb84, loss: float) -> None:
    assert bound_warning(link.rate_bps(loss) * (1 - 1e-9), loss, link.clock_hz) is None or link.rate_per_pulse(loss) < 1e-16


def test_bad_bounds_are_refused() -> None:
    for call, name in (
        (lambda: bound_warning(math.nan, 10, 1e9), "rate_bps"),
        (lambda: bound_warning(1.0, -1, 1e9), "loss_db"),
        (lambda: bound_warning(1.0, 10, 0), "clock_hz"),
        (lambda: bound_warning(1.0, 10, 1e9, 0), "modes"),
        (lambda: six_state_key_fraction(0.6), "qber"),
        (lambda: best_intensity(math.nan), "misalignment_error"),
    ):
        with pytest.raises(ValueError, match=rf"^{name} must be"):
            call()
