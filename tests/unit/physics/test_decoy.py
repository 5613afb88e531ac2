from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from controller.physics.bell_diagonal import binary_entropy
from controller.physics.decoy import (
    BasisCounts,
    FiniteKeyBb84,
    vacuum_weak_bounds,
    vacuum_weak_rate_per_pulse,
    without_decoys_rate_per_pulse,
)
from controller.physics.key_rates import DecoyBb84

GYS = DecoyBb84()
GYS_DB_PER_KM = 0.21


def lim_link(after_pulsing: float = 0.04) -> DecoyBb84:
    """The receiver of Lim et al. 2014; an after-pulse is a click more, right half of the time."""
    return DecoyBb84(
        receiver_efficiency=0.1 * (1 + after_pulsing),
        background_yield=1.2e-6 * (1 + after_pulsing),
        misalignment_error=(5e-3 + after_pulsing / 2) / (1 + after_pulsing),
        error_correction_efficiency=1.16,
    )


@pytest.mark.parametrize(("length_km", "rate"), [(50, 2.09625e-4), (100, 1.60200e-5)])
def test_vacuum_and_weak_decoy_of_gys(length_km: float, rate: float) -> None:
    assert vacuum_weak_rate_per_pulse(GYS, GYS_DB_PER_KM * length_km, 0.05) == pytest.approx(rate, rel=4e-6)


def test_reach_of_the_decoy_methods() -> None:
    assert vacuum_weak_rate_per_pulse(GYS, GYS_DB_PER_KM * 140.61, 0.05) > 0
    assert vacuum_weak_rate_per_pulse(GYS, GYS_DB_PER_KM * 140.63, 0.05) == 0
    links = [replace(GYS, intensity=float(m)) for m in np.geomspace(1e-4, 0.1, 300)]
    assert any(without_decoys_rate_per_pulse(link, GYS_DB_PER_KM * 40.15) > 0 for link in links)
    assert not any(without_decoys_rate_per_pulse(link, GYS_DB_PER_KM * 40.25) > 0 for link in links)


@pytest.mark.parametrize("length_km", [0, 25, 50, 100])
def test_the_bounds_hold_for_every_eavesdropper_and_are_tight(length_km: float) -> None:
    """The least yield and the most errors of single photons by linear programming over all yields that explain the gains."""
    loss, mu, nu, photons = GYS_DB_PER_KM * length_km, GYS.intensity, 0.05, 14
    decoy = replace(GYS, intensity=nu)
    rows, gains, wrongs = [], [], []
    for k, gain, wrong in (
        (mu, GYS.gain(loss), None),
        (nu, decoy.gain(loss), decoy.gain(loss) * decoy.qber(loss)),
        (0.0, GYS.background_yield, GYS.background_yield / 2),
    ):
        rows.append([math.exp(-k) * k**n / math.factorial(n) for n in range(photons)])
        gains.append(gain)
        wrongs.append(wrong)
    unit = [float(n == 1) for n in range(photons)]
    scale = gains[0]  # the solver's tolerance is absolute
    upper = [(0, 1 / scale)] * photons
    least = linprog(unit, A_eq=rows, b_eq=[g / scale for g in gains], bounds=upper).fun * scale
    most = -linprog([-u for u in unit], A_eq=rows[1:], b_eq=[w / scale for w in wrongs[1:] if w], bounds=upper).fun * scale
    y_1, e_1 = vacuum_weak_bounds(GYS, loss, nu)
    assert y_1 <= least * (1 + 1e-6)
    assert y_1 == pytest.approx(least, rel=0.02)
    assert e_1 * y_1 >= most * (1 - 1e-6)
    assert e_1 * y_1 == pytest.approx(most, rel=0.05)


@given(st.floats(0.01, 1), st.floats(0, 1e-4), st.floats(0, 0.2), st.floats(0.2, 1), st.floats(0.01, 0.9), st.floats(0, 60))
def test_a_weak_decoy_proves_no_more_than_is_true(
    efficiency: float, background: float, misalignment: float, mu: float, share: float, loss: float
) -> None:
    link = DecoyBb84(efficiency, background, misalignment, intensity=mu)
    y_1, e_1 = vacuum_weak_bounds(link, loss, share * mu)
    true_yield = background + efficiency * 10 ** (-loss / 10)
    assert y_1 <= true_yield * (1 + 1e-9) + 1e-13 / share**2
    assert 0 <= e_1 <= 0.5
    if y_1 > 1e-9:
        assert e_1 >= link.single_photon_error(loss) * (1 - 1e-6)
    assert 0 <= vacuum_weak_rate_per_pulse(link, loss, share * mu) <= link.rate_per_pulse(loss) * (1 + 1e-6) + 1e-12
    assert without_decoys_rate_per_pulse(link, loss) <= link.rate_per_pulse(loss) + 1e-15


@pytest.mark.parametrize(("loss_db", "seed"), [(5.0, 1), (15.0, 2), (25.0, 3)])
def test_finite_bounds_hold_in_a_simulation_with_photon_statistics(loss_db: float, seed: int) -> None:
    """Pulses are drawn photon number by photon number, so the true counts of empty and single-photon pulses are known."""
    rng = np.random.default_rng(seed)
    link = lim_link()
    protocol = FiniteKeyBb84(link, (0.5, 0.15, 2e-4), (0.5, 0.35, 0.15), 0.8, secrecy=1e-6)
    eta = link.receiver_efficiency * 10 ** (-loss_db / 10)
    photons = 12
    seen_yield = np.array([1 - (1 - link.background_yield) * (1 - eta) ** n for n in range(photons)])
    noise_share = link.background_yield / seen_yield
    wrong = 0.5 * noise_share + link.misalignment_error * (1 - noise_share)
    for _ in range(60):
        counted: dict[str, BasisCounts] = {}
        true: dict[str, tuple[float, float, float]] = {}
        for basis, pulses in (("key", 4_000_000_000), ("check", 800_000_000)):
            detections, errors = np.zeros((3, photons)), np.zeros((3, photons))
            for i, (k, p) in enumerate(zip(protocol.intensities, protocol.probabilities, strict=True)):
                weights = [math.exp(-k) * k**n / math.factorial(n) for n in range(photons)]
                sent = rng.multinomial(int(pulses * p), np.array(weights) / sum(weights))
                detections[i] = rng.binomial(sent, seen_yield)
                errors[i] = rng.binomial(detections[i].astype(int), wrong)
            d, e = detections.sum(axis=1), errors.sum(axis=1)
            counted[basis] = BasisCounts((d[0], d[1], d[2]), (e[0], e[1], e[2]))
            true[basis] = (detections[:, 0].sum(), detections[:, 1].sum(), errors[:, 1].sum())
        for basis in ("key", "check"):
            empty, single = protocol.least_vacuum_and_single(counted[basis].detections)
            assert empty <= true[basis][0]
            assert 0 < single <= true[basis][1]
            assert single > 0.5 * true[basis][1]
        _, single = protocol.least_vacuum_and_single(counted["key"].detections)
        # phase errors of the key basis are as frequent as bit errors there: the channel treats the bases alike
        assert protocol.most_phase_error(single, counted["check"]) >= true["key"][2] / true["key"][1]


def test_finite_key_by_hand() -> None:
    """Equations 1 to 5 with figures small enough to follow: no background, three intensities, everything seen."""
    protocol = FiniteKeyBb84(lim_link(), (0.5, 0.1, 0.0), (0.5, 0.25, 0.25), secrecy=0.021, correctness=2**-9)
    counts = (200_000.0, 30_000.0, 2_000.0)
    dev = math.sqrt(232_000 / 2 * math.log(1000))
    tau_0 = 0.5 * math.exp(-0.5) + 0.25 * math.exp(-0.1) + 0.25
    tau_1 = 0.5 * math.exp(-0.5) * 0.5 + 0.25 * math.exp(-0.1) * 0.1
    empty = tau_0 * 0.1 * 4 * (2_000 - dev) / 0.1
    inner = 4 * math.exp(0.1) * (30_000 - dev) - 4 * (2_000 + dev)
    inner -= 0.01 / 0.25 * (2 * math.exp(0.5) * (200_000 + dev) - empty / tau_0)
    single = tau_1 * 0.5 * inner / (0.5 * 0.1 - 0.01)
    got = protocol.least_vacuum_and_single(counts)
    assert got == pytest.approx((empty, single), rel=1e-12)

    errors = (2_000.0, 300.0, 100.0)
    dev_m = math.sqrt(2_400 / 2 * math.log(1000))
    v = tau_1 * (4 * math.exp(0.1) * (300 + dev_m) - 4 * max(0, 100 - dev_m)) / 0.1
    b = v / single
    gamma = math.sqrt(2 * single * (1 - b) * b / (single**2 * math.log(2)) * math.log2(2 / (single * (1 - b) * b) * 1000**2))
    assert protocol.most_phase_error(single, BasisCounts(counts, errors)) == pytest.approx(b + gamma, rel=1e-12)
    block = BasisCounts(counts, errors)
    bits = empty + single * (1 - binary_entropy(b + gamma)) - 3_000 - 6 * math.log2(1000) - 10
    assert protocol.secret_bits(block, block, 3_000) == pytest.approx(bits, rel=1e-12)


def lim_rate(
    length_km: float, block: float, intensities: tuple[float, float, float], shares: tuple[float, float], key: float, after_pulsing: float
) -> float:
    """The secrecy is 1e-15 for each secret bit, so it is found by iteration."""
    protocol = FiniteKeyBb84(lim_link(after_pulsing), intensities, (*shares, 1 - sum(shares)), key, block)
    loss = 0.2 * length_km
    for _ in range(5):
        bits = protocol.rate_per_pulse(loss) * protocol.block_s(loss) * protocol.link.clock_hz
        if bits == 0:
            return 0.0
        protocol = replace(protocol, secrecy=1e-15 * bits)
    return protocol.rate_per_pulse(loss)


def test_published_gain_of_larger_blocks() -> None:
    """Lim et al. 2014 state 1.75 between blocks of 1e9 and 1e7 bits at 100 km; intensities and shares as optimised for each."""
    small = lim_rate(100, 1e7, (0.431, 0.209, 2e-4), (0.4006, 0.4647), 0.8657, 0.04)
    large = lim_rate(100, 1e9, (0.4476, 0.1712, 2e-4), (0.7618, 0.1767), 0.9386, 0.04)
    assert large / small == pytest.approx(1.75, rel=0.05)


def test_published_reach_of_small_blocks_is_between_two_views_of_after_pulses() -> None:
    """Lim et al. 2014: 135 km with blocks of 1e4 bits; intensities and shares as optimised."""
    chosen = ((0.61, 0.163, 2e-4), (0.0754, 0.524), 0.3564)
    assert lim_rate(135, 1e4, *chosen, 0.0) > 1e-7
    assert lim_rate(120, 1e4, (0.49, 0.1033, 2e-4), (0.0419, 0.5208), 0.2567, 0.04) > 5e-8
    assert lim_rate(135, 1e4, *chosen, 0.04) == 0


@settings(max_examples=60)
@given(st.floats(0, 40), st.floats(3, 14), st.floats(3, 14), st.floats(0, 3))
def test_finite_rates_grow_with_the_block_and_fall_with_loss(loss: float, a: float, b: float, more_db: float) -> None:
    small, large = sorted((a, b))
    low = FiniteKeyBb84(lim_link(), block_bits=10**small)
    high = FiniteKeyBb84(lim_link(), block_bits=10**large)
    assert low.rate_per_pulse(loss) <= high.rate_per_pulse(loss) * (1 + 1e-9)
    assert high.rate_per_pulse(loss + more_db) <= high.rate_per_pulse(loss) * (1 + 1e-9)


@given(st.floats(0, 60), st.floats(1, 15), st.floats(0.5, 0.99))
def test_finite_rates_stay_below_what_infinitely_many_decoys_prove(loss: float, block: float, key: float) -> None:
    protocol = FiniteKeyBb84(lim_link(), key_basis_probability=key, block_bits=10**block)
    limit = sum(
        p * (replace(protocol.link, intensity=k, sifting=key**2).rate_per_pulse(loss) + math.exp(-k) * protocol.link.background_yield)
        for k, p in zip(protocol.intensities, protocol.probabilities, strict=True)
    )
    rate = protocol.rate_per_pulse(loss)
    assert 0 <= rate <= limit + 1e-12


def test_a_dead_link_makes_no_key() -> None:
    dead = FiniteKeyBb84(replace(lim_link(), receiver_efficiency=0.0, background_yield=0.0))
    assert dead.rate_per_pulse(0) == 0
    assert dead.block_s(0) == math.inf


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"intensities": (0.5, math.nan, 0.0)}, "intensities[1]"),
        ({"intensities": (0.5, 0.4, 0.2)}, "intensities"),
        ({"intensities": (0.5, 5e-324, 0.0)}, "intensities"),
        ({"probabilities": (0.5, 0.5, 0.0)}, "probabilities[2]"),
        ({"probabilities": (0.5, 0.5, 0.5)}, "probabilities"),
        ({"key_basis_probability": 1.0}, "key_basis_probability"),
        ({"block_bits": math.nan}, "block_bits"),
        ({"secrecy": 0.0}, "secrecy"),
        ({"correctness": 1.0}, "correctness"),
    ],
)
def test_bad_protocols_are_refused(change: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match="^" + name.replace("[", r"\[") + " must"):
        replace(FiniteKeyBb84(lim_link()), **change)  # type: ignore[arg-type]


def test_bad_counts_and_decoys_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^errors\[1\] must be in \[0, 5\]"):
        BasisCounts((9.0, 5.0, 1.0), (0.0, 6.0, 0.0))
    for bad in (0.0, 5e-324, -0.1, 0.48, 0.5, math.nan):
        with pytest.raises(ValueError, match=r"^decoy_intensity must be"):
            vacuum_weak_bounds(GYS, 10, bad)
    with pytest.raises(ValueError, match=r"^loss_db must be in \[0, 1e\+100\]"):
        FiniteKeyBb84(GYS).rate_per_pulse(-1)
