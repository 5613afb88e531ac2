from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.physics.fibre import transmittance
from controller.physics.key_rates import plob, plob_with_station
from controller.physics.twin_field import TwinField

IDEAL = TwinField(dark_probability=0.0, polarisation_mismatch_rad=0.0, phase_mismatch_rad=0.0, error_correction_efficiency=1.0)
links = st.builds(
    TwinField,
    intensity=st.floats(1e-4, 1),
    detector_efficiency=st.floats(0, 1),
    dark_probability=st.one_of(st.floats(0, 1e-3), st.floats(0, 1)),
    polarisation_mismatch_rad=st.floats(0, math.pi / 2),
    phase_mismatch_rad=st.floats(0, math.pi / 2),
    error_correction_efficiency=st.floats(1, 2),
)


def best_rate(link: TwinField, loss_db: float) -> float:
    return max(replace(link, intensity=float(m)).rate_per_pulse(loss_db) for m in np.geomspace(1e-3, 0.6, 40))


def dark_port_of_fock_states(left: int, right: int, angle: float) -> float:
    """Probability that the second output of a beam splitter stays dark, from the amplitudes of its first output alone.

    The left photons are H, the right ones turned by `angle`; both modes' creation operators pass the splitter with 1/sqrt(2).
    """
    scale = math.factorial(left) * math.factorial(right) * 2.0 ** (left + right)
    return (
        math.fsum(
            (math.comb(right, j) * math.cos(angle) ** (right - j) * math.sin(angle) ** j) ** 2
            * math.factorial(left + right - j)
            * math.factorial(j)
            for j in range(right + 1)
        )
        / scale
    )


@pytest.mark.parametrize("angle", [0.0, 0.14, 0.9, math.pi / 2])
@pytest.mark.parametrize(("left", "right"), [(0, 0), (1, 0), (0, 3), (1, 1), (2, 2), (5, 1), (4, 3)])
def test_yields_of_fock_states(left: int, right: int, angle: float) -> None:
    link = TwinField(detector_efficiency=0.7, dark_probability=0.01, polarisation_mismatch_rad=angle)
    arm = 0.7 * math.sqrt(transmittance(3.0))
    dark_port = sum(
        math.comb(left, i)
        * math.comb(right, j)
        * arm ** (i + j)
        * (1 - arm) ** (left + right - i - j)
        * dark_port_of_fock_states(i, j, angle)
        for i in range(left + 1)
        for j in range(right + 1)
    )
    alone = 0.99 * (dark_port - 0.99 * (1 - arm) ** (left + right))
    assert link.yield_of(left, right, 3.0) == pytest.approx(alone, abs=1e-14)


@given(links, st.floats(0, 60))
def test_clicks_of_interfering_pulses(link: TwinField, loss: float) -> None:
    """Two threshold detectors behind light of mean light (1 +- overlap) photons, each with its own dark counts."""
    light = link.detector_efficiency * math.sqrt(transmittance(loss)) * link.intensity
    overlap = math.cos(link.polarisation_mismatch_rad) * math.cos(link.phase_mismatch_rad)
    bright, dim = (1 - (1 - link.dark_probability) * math.exp(-light * (1 + s * overlap)) for s in (1, -1))
    right, wrong = bright * (1 - dim), dim * (1 - bright)
    assert link.click_probability(loss) == pytest.approx((right + wrong) / 2, rel=1e-9, abs=1e-15)
    if right + wrong > 1e-9:
        assert link.qber(loss) == pytest.approx(wrong / (right + wrong), rel=1e-6, abs=1e-7)


def test_yields_add_up_to_the_clicks_of_phase_randomised_pulses() -> None:
    link = TwinField(intensity=0.7, dark_probability=1e-3, phase_mismatch_rad=0.0)
    poisson = [math.exp(-0.7) * 0.7**n / math.factorial(n) for n in range(25)]
    of_yields = sum(p * q * link.yield_of(n, m, 4.0) for n, p in enumerate(poisson) for m, q in enumerate(poisson))
    phases = 64
    turned = [replace(link, phase_mismatch_rad=(k + 0.5) * math.pi / 2 / phases) for k in range(phases)]
    # the mean over a full turn is that over a quarter, once for either detector
    assert of_yields == pytest.approx(sum(t.click_probability(4.0) for t in turned) / phases, rel=1e-9)


def test_beats_every_link_without_a_repeater_beyond_some_distance() -> None:
    real = TwinField()
    assert best_rate(real, 20) < plob(transmittance(20))
    for loss in (40, 50, 60, 70):
        assert best_rate(real, loss) > plob(transmittance(loss))
    assert best_rate(real, 100) == 0  # dark counts


def test_falls_with_the_root_of_the_transmittance() -> None:
    for loss in (40, 60, 80):
        assert best_rate(IDEAL, loss + 20) / best_rate(IDEAL, loss) == pytest.approx(0.1, rel=0.02)


@settings(max_examples=150, deadline=None)
@given(links, st.floats(0, 200))
def test_never_exceeds_the_bound_of_one_station(link: TwinField, loss: float) -> None:
    rate = link.rate_per_pulse(loss)
    assert 0 <= rate <= plob_with_station(transmittance(loss)) + 1e-15
    assert 0 <= link.qber(loss) <= 0.5
    assert 0 <= link.phase_error(loss) <= 0.5


@settings(max_examples=100, deadline=None)
@given(links, st.floats(0, 120), st.floats(0, 20), st.floats(1, 10))
def test_falls_with_loss_and_noise(link: TwinField, loss: float, more_db: float, darker: float) -> None:
    rate = link.rate_per_pulse(loss)
    noisier = replace(link, dark_probability=min(1.0, darker * link.dark_probability))
    assert noisier.rate_per_pulse(loss) <= rate * (1 + 1e-9) + 1e-15
    if link.intensity <= 0.1:  # brighter pulses are told apart by more photons at low loss
        assert link.rate_per_pulse(loss + more_db) <= rate * (1 + 1e-9) + 1e-15


def test_size_of_the_longest_links() -> None:
    """1,002 km of ultra-low-loss fibre (0.157 dB/km) gave 9.53e-12 bit per pulse (PRL 130, 210801): below an ideal link, above PLOB."""
    loss = 1002 * 0.157
    assert plob(transmittance(loss)) < 9.53e-12 < best_rate(IDEAL, loss)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("intensity", 0.0),
        ("detector_efficiency", 1.1),
        ("dark_probability", -1e-9),
        ("polarisation_mismatch_rad", 1.6),
        ("phase_mismatch_rad", -0.1),
        ("error_correction_efficiency", 0.9),
        ("clock_hz", 0.0),
    ],
)
def test_parameters_outside_their_range_are_refused(name: str, bad: float) -> None:
    for value in (bad, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"^{name} must be in "):
            TwinField(**{name: value})
    with pytest.raises(ValueError, match=r"^loss_db must be in \[0, 1e\+100\]"):
        TwinField().rate_bps(-1.0)
