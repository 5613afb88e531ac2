from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.physics.coexistence import (
    DataChannel,
    RamanCoefficient,
    RamanNoise,
    SharedSpan,
    clicks_per_gate,
    launched_w,
    photons_hz,
    raman_backward_w,
    raman_coefficient,
    raman_forward_w,
    raman_noise,
)
from controller.physics.fibre import fibre_loss_db, path_loss_db
from controller.physics.key_rates import DecoyBb84

C_BAND = RamanCoefficient(3e-9, "declared", "order of the C band")
O_BAND = RamanCoefficient(5e-12, "declared", "order of the O band under C-band data")
GATE_S, DETECTOR, RECEIVER = 100e-12, 0.2, 0.5


def receiver(noise_clicks: float) -> DecoyBb84:
    """1 GHz, two detectors of 20 % with 1e-7 dark counts per gate behind optics that pass half."""
    return DecoyBb84(DETECTOR * RECEIVER, 2e-7 + noise_clicks, 0.01, 1.16, 0.5, 0.5, 1e9)


def coexisting(
    length_km: float, total_dbm: float | None, coefficient: RamanCoefficient = C_BAND, db_per_km: float = 0.2
) -> tuple[float, float]:
    """(key in kbit/s, QBER) with two switches and four connectors, half of them behind the fibre; each detector sees all the noise."""
    channels = [DataChannel(1550, total_dbm, True, coefficient)] if total_dbm is not None else []
    after = path_loss_db([], connectors=2, insertions_db=[1.0])
    # the figures take the noise to fade at 0.2 dB/km in either band
    noise = raman_noise([SharedSpan(length_km, channels, 0.2, 0.2, after)], 1550 if db_per_km == 0.2 else 1310, 0.2)
    link = receiver(2 * clicks_per_gate(noise.photons_hz, GATE_S, DETECTOR * RECEIVER))
    loss = path_loss_db([fibre_loss_db(length_km, db_per_km)], connectors=4, insertions_db=[1.0, 1.0])
    return link.rate_bps(loss) / 1e3, link.qber(loss)


@pytest.mark.parametrize(
    ("length_km", "dbm", "rate_kbps", "qber"),
    [
        (10, None, 3515, 0.010), (10, -20, 3506, None), (10, -10, 3423, 0.011), (10, 0, 2672, 0.023), (10, 10, 0, 0.115),
        (25, None, 1760, None), (25, -20, 1748, None), (25, -10, 1646, 0.013), (25, 0, 805, 0.041), (25, 10, 0, None),
        (50, None, 556, None), (50, -20, 549, None), (50, -10, 486, 0.017), (50, 0, 16, 0.069), (50, 10, 0, None),
        (80, None, 139, None), (80, -20, 136, None), (80, -10, 112, 0.021), (80, 0, 0, 0.097), (80, 10, 0, None),
    ],
)  # fmt: skip
def test_coexistence_in_the_c_band(length_km: float, dbm: float | None, rate_kbps: float, qber: float | None) -> None:
    rate, errors = coexisting(length_km, dbm)
    assert rate == pytest.approx(rate_kbps, rel=4e-3, abs=0.6)
    if qber is not None:
        assert errors == pytest.approx(qber, abs=6e-4)


@pytest.mark.parametrize(("dbm", "rate_kbps"), [(None, 832), (0, 831), (10, 816), (18, 732), (21, 641)])
def test_coexistence_in_the_o_band(dbm: float | None, rate_kbps: float) -> None:
    assert coexisting(25, dbm, O_BAND, 0.33)[0] == pytest.approx(rate_kbps, rel=0.02)


def test_key_beside_data_lasers_of_0_dbm_is_near_the_published_rate() -> None:
    """Patel et al., APL 104, 051123, 2014: 445 kb/s over 25 km; the paper's wavelengths and losses were not at hand, these are like them."""
    assert 445 / 2 < coexisting(25, 0.0)[0] < 445 * 2
    lasers = [DataChannel(1529.55, 0.0, True), DataChannel(1530.33, 0.0, False)]
    noise = raman_noise([SharedSpan(25, lasers, loss_after_db=1.0)], 1547.72, 0.2)
    assert noise.origin == "assumed"
    link = receiver(clicks_per_gate(noise.photons_hz, GATE_S, DETECTOR * RECEIVER))
    assert 445e3 / 2 < link.rate_bps(fibre_loss_db(25) + 2) < 445e3 * 2


@pytest.mark.parametrize(("data_db", "quantum_db"), [(0.2, 0.2), (0.2, 0.33), (0.33, 0.2), (0.0, 0.0), (0.2, 0.2 + 1e-13)])
@pytest.mark.parametrize("length_km", [0.0, 1.0, 50.0, 300.0])
def test_noise_is_the_sum_over_the_fibre(length_km: float, data_db: float, quantum_db: float) -> None:
    z = (np.arange(200_000) + 0.5) / 200_000 * length_km
    data, quantum = (np.power(10, -a * z / 10) for a in (data_db, quantum_db))
    step = length_km / 200_000 * 1e-3 * 3e-9 * 0.2
    assert raman_forward_w(1e-3, 3e-9, 0.2, length_km, data_db, quantum_db) == pytest.approx(
        float((data * quantum[::-1]).sum()) * step, rel=1e-6
    )
    assert raman_backward_w(1e-3, 3e-9, 0.2, length_km, data_db, quantum_db) == pytest.approx(
        float((data * quantum).sum()) * step, rel=1e-6
    )


def test_units() -> None:
    assert launched_w(0) == pytest.approx(1e-3)
    assert photons_hz(1e-9, 1550) == pytest.approx(7.803e9, rel=1e-3)
    assert clicks_per_gate(1e7, 1e-10, 0.2) == pytest.approx(2e-4, rel=2e-4)
    assert clicks_per_gate(1e300, 1.0, 1.0) == 1


@pytest.mark.parametrize("shift_nm", [8, 12, 16, 20, 28, 36, 40])
def test_coefficients_on_either_side_are_in_thermal_balance(shift_nm: float) -> None:
    """Anti-Stokes over Stokes: exp(-h nu / kT) in photons per mode, and the sixth power of the wavelengths in power per nm."""
    above, below = 1550.0 + shift_nm, 1550.0 - shift_nm
    nu = 299_792_458 * (1e9 / below - 1e9 / above) / 2
    balance = math.exp(-6.62607015e-34 * nu / (1.380649e-23 * 295)) * (above / below) ** 6
    ratio = raman_coefficient(1550, below).beta_per_km_nm / raman_coefficient(1550, above).beta_per_km_nm
    assert ratio == pytest.approx(balance, rel=0.15)


def test_coefficients_are_of_the_known_size_and_say_what_they_are() -> None:
    for data, quantum in ((1550, 1530), (1530, 1550), (1560, 1550), (1550.12, 1549.32)):
        got = raman_coefficient(data, quantum)
        assert 1e-9 < got.beta_per_km_nm < 6e-9
        assert got.origin == "assumed"
        assert "unknown paper" in got.source
    assert raman_coefficient(1550, 1310).beta_per_km_nm <= 1.1e-11
    assert "order" in raman_coefficient(1550, 1310).source
    declared = RamanNoise(1.0, (C_BAND,))
    assert declared.origin == "computed"
    assert RamanNoise(1.0, (C_BAND, raman_coefficient(1550, 1530))).origin == "assumed"


@given(st.floats(1200, 1700), st.floats(1200, 1700))
def test_every_pair_of_wavelengths_has_a_coefficient(data: float, quantum: float) -> None:
    assert 0 < raman_coefficient(data, quantum).beta_per_km_nm < 5e-8


@given(st.floats(0, 200), st.floats(-60, 20), st.floats(0, 10), st.floats(0, 10), st.booleans())
def test_noise_grows_with_power_and_channels_and_fades_behind_the_span(
    length: float, dbm: float, more: float, after: float, along: bool
) -> None:
    def noise(*dbms: float, loss_after_db: float = 0.0) -> float:
        channels = [DataChannel(1550, p, along) for p in dbms]
        return raman_noise([SharedSpan(length, channels, loss_after_db=loss_after_db)], 1540, 0.2).photons_hz

    alone = noise(dbm)
    assert noise() == 0 <= alone
    assert noise(dbm + more) >= alone
    assert noise(dbm, dbm) == pytest.approx(2 * alone)
    assert noise(dbm, loss_after_db=after) == pytest.approx(alone * 10 ** (-after / 10))
    key = [receiver(clicks_per_gate(hz, GATE_S, 0.1)).rate_bps(fibre_loss_db(length)) for hz in (0.0, alone, noise(dbm + more))]
    assert key == sorted(key, reverse=True)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_figures_outside_their_range_are_refused(bad: float) -> None:
    names = ("launch_w", "beta_per_km_nm", "bandwidth_nm", "length_km", "data_db_per_km", "quantum_db_per_km")
    for scattered in (raman_forward_w, raman_backward_w):
        for n, name in enumerate(names):
            with pytest.raises(ValueError, match=rf"^{name} must be"):
                scattered(*[bad if i == n else 0.1 for i in range(6)])
    for call, name in (
        (lambda: raman_coefficient(bad, 1550), "data_nm"),
        (lambda: raman_coefficient(1550, bad), "quantum_nm"),
        (lambda: DataChannel(bad, 0.0, True), "wavelength_nm"),
        (lambda: DataChannel(1550, bad * 1e3, True), "launch_dbm"),
        (lambda: RamanCoefficient(bad, "declared", "sheet"), "beta_per_km_nm"),
        (lambda: photons_hz(bad, 1550), "power_w"),
        (lambda: clicks_per_gate(bad, 1e-10, 0.2), "rate_hz"),
        (lambda: raman_noise([], 1550, bad), "bandwidth_nm"),
        (lambda: SharedSpan(10, [], loss_after_db=bad), "loss_after_db"),
    ):
        with pytest.raises(ValueError, match=rf"^{name} must be"):
            call()
