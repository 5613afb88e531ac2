from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from controller.physics.bell_diagonal import (
    BellDiagonal,
    bbm92_key_fraction,
    bbpssw,
    binary_entropy,
    dejmps,
    dephase,
    depolarise,
    fidelity_of,
    recurrence,
    swap,
    swap_fidelity,
    teleportation_fidelity,
    twirl,
    werner,
    werner_parameter,
)

PERFECT = BellDiagonal(1.0, 0.0, 0.0, 0.0)
unit = st.floats(0, 1)


def from_weights(weights: tuple[float, ...]) -> BellDiagonal:
    total = sum(weights)
    a, b, c, d = (w / total for w in weights)
    return BellDiagonal(a, b, c, d)


states = st.tuples(unit, unit, unit, unit).filter(lambda w: sum(w) > 1e-3).map(from_weights)


def chain(fidelity: float, hops: int) -> BellDiagonal:
    return reduce(swap, [werner(fidelity)] * hops)


# --- the same physics from density matrices, qubits in the order left pair, right pair ---

Matrix = NDArray[np.complex128]
S = 1 / math.sqrt(2)
BELL = [np.array(v, dtype=complex) for v in ([S, 0, 0, S], [0, S, -S, 0], [0, S, S, 0], [S, 0, 0, -S])]  # Phi+, Psi-, Psi+, Phi-
IDENTITY = np.eye(2, dtype=complex)
X = np.array([[0, 1], [1, 0]], dtype=complex)
Z = np.diag([1, -1]).astype(complex)
CORRECTIONS = [IDENTITY, Z @ X, X, Z]


def kron(*operators: Matrix) -> Matrix:
    return reduce(lambda left, right: np.kron(left, right).astype(complex), operators)


def density(state: BellDiagonal) -> Matrix:
    rho: Matrix = np.einsum("k,ki,kj->ij", state.coefficients, BELL, np.conj(BELL))
    return rho


def weights(rho: NDArray[Any]) -> list[float]:
    return [float((v.conj() @ rho @ v).real) for v in BELL]


def simulated_swap(left: BellDiagonal, right: BellDiagonal) -> list[float]:
    rho = kron(density(left), density(right))
    total = np.zeros((4, 4), dtype=complex)
    for outcome, correction in zip(BELL, CORRECTIONS, strict=True):
        project = kron(IDENTITY, outcome.conj().reshape(1, 4), IDENTITY)
        correct = kron(IDENTITY, correction)
        total += correct @ project @ rho @ project.conj().T @ correct.conj().T
    return weights(total)


def simulated_dejmps(first: BellDiagonal, second: BellDiagonal) -> tuple[list[float], float]:
    rho = kron(density(first), density(second))  # qubits: Alice 1, Bob 1, Alice 2, Bob 2
    alice = (IDENTITY - 1j * X) * S
    bob = (IDENTITY + 1j * X) * S
    cnots = np.zeros((16, 16), dtype=complex)
    for bits in range(16):
        a1, b1, a2, b2 = ((bits >> k) & 1 for k in (3, 2, 1, 0))
        cnots[a1 << 3 | b1 << 2 | (a2 ^ a1) << 1 | (b2 ^ b1), bits] = 1
    step = cnots @ kron(alice, bob, alice, bob)
    rho = step @ rho @ step.conj().T
    kept = np.zeros((4, 4), dtype=complex)
    for outcome in (0, 3):  # both zero, both one
        project = kron(np.eye(4, dtype=complex), np.eye(4, dtype=complex)[[outcome]])
        kept += project @ rho @ project.conj().T
    success = float(np.trace(kept).real)
    return weights(kept / success), success


@given(states, states)
def test_swap_agrees_with_density_matrices(left: BellDiagonal, right: BellDiagonal) -> None:
    assert swap(left, right).coefficients == pytest.approx(simulated_swap(left, right), abs=1e-12)


def noisy_swap(left: BellDiagonal, right: BellDiagonal, gate: float, readout: float) -> list[float]:
    """A measurement by CNOT and H that leaves white noise in its qubits with 1 - gate, and two bits that are each wrong with 1 - readout."""
    rho = kron(density(left), density(right))
    halves = rho.reshape(2, 4, 2, 2, 4, 2)
    outer = np.einsum("abcdbf->acdf", halves)
    white = np.einsum("acdf,be->abcdef", outer, np.eye(4) / 4).reshape(16, 16)
    rho = gate * rho + (1 - gate) * white
    total = np.zeros((4, 4), dtype=complex)
    for truth, outcome in enumerate(BELL):
        project = kron(IDENTITY, outcome.conj().reshape(1, 4), IDENTITY)
        for told, correction in enumerate(CORRECTIONS):
            # the phase bit tells Phi-, Psi- from Phi+, Psi+; the parity bit Psi from Phi
            wrong = ((truth in (1, 3)) != (told in (1, 3))) + ((truth in (1, 2)) != (told in (1, 2)))
            correct = kron(IDENTITY, correction)
            chance = readout ** (2 - wrong) * (1 - readout) ** wrong
            total += chance * correct @ project @ rho @ project.conj().T @ correct.conj().T
    return weights(total)


@given(st.floats(0.25, 1), st.floats(0.25, 1), unit, st.floats(0.5, 1))
def test_imperfect_swap_agrees_with_density_matrices(f1: float, f2: float, gate: float, readout: float) -> None:
    expected = noisy_swap(werner(f1), werner(f2), gate, readout)
    assert math.fsum(expected) == pytest.approx(1, abs=1e-12)
    assert swap(werner(f1), werner(f2), swap_fidelity(gate, readout)).fidelity == pytest.approx(expected[0], abs=1e-12)


@given(states, states, unit)
def test_white_noise_in_a_swap_agrees_with_density_matrices(left: BellDiagonal, right: BellDiagonal, gate: float) -> None:
    assert swap(left, right, swap_fidelity(gate, 1.0)).coefficients == pytest.approx(noisy_swap(left, right, gate, 1.0), abs=1e-12)


@given(states, states)
def test_dejmps_agrees_with_density_matrices(first: BellDiagonal, second: BellDiagonal) -> None:
    a, b, c, d = zip(first.coefficients, second.coefficients, strict=True)
    assume((a[0] + b[0]) * (a[1] + b[1]) + (c[0] + d[0]) * (c[1] + d[1]) > 1e-3)
    state, success = dejmps(first, second)
    expected, probability = simulated_dejmps(first, second)
    assert success == pytest.approx(probability, abs=1e-12)
    assert state.coefficients == pytest.approx(expected, abs=1e-9)


@given(states, unit)
def test_one_stored_qubit_agrees_with_density_matrices(state: BellDiagonal, wait: float) -> None:
    rho, kept = density(state), math.exp(-wait)
    y = 1j * X @ Z
    flips = [kron(IDENTITY, p) @ rho @ kron(IDENTITY, p).conj().T for p in (X, y, Z)]
    noisy = kept * rho + (1 - kept) / 4 * (rho + flips[0] + flips[1] + flips[2])
    assert depolarise(state, wait, 1.0).coefficients == pytest.approx(weights(noisy), abs=1e-12)
    flip = (1 - kept) / 2
    assert dephase(state, wait, 1.0).coefficients == pytest.approx(weights((1 - flip) * rho + flip * flips[2]), abs=1e-12)


# --- reference values ---


@pytest.mark.parametrize(
    ("f1", "f2", "expected"),
    [(0.95, 0.95, 0.9033333), (0.90, 0.90, 0.8133333), (0.99, 0.90, 0.8913333), (0.80, 0.70, 0.58), (1, 0.5, 0.5)],
)
def test_swap_of_werner_pairs(f1: float, f2: float, expected: float) -> None:
    assert swap(werner(f1), werner(f2)).fidelity == pytest.approx(expected, abs=5e-8)


@pytest.mark.parametrize(
    ("fidelity", "expected"),
    [
        (0.95, (0.95, 0.903333, 0.859778, 0.819126, 0.781184, 0.681872, 0.626209)),
        (0.98, (0.98, 0.960533, 0.941586, 0.923143, 0.905193, 0.854163, 0.822370)),
        (0.99, (0.99, 0.980133, 0.970398, 0.960793, 0.951316, 0.923635, 0.905792)),
    ],
)
def test_chains(fidelity: float, expected: tuple[float, ...]) -> None:
    for hops, value in zip((1, 2, 3, 4, 5, 8, 10), expected, strict=True):
        assert chain(fidelity, hops).fidelity == pytest.approx(value, abs=6e-7)


@pytest.mark.parametrize(
    ("f1", "f2", "fidelity", "success"),
    [
        (0.50, 0.50, 0.5, 0.55555556),
        (0.60, 0.60, 0.62043796, 0.60888889),
        (0.70, 0.70, 0.73529412, 0.68),
        (0.75, 0.75, 0.78846154, 0.72222222),
        (0.80, 0.80, 0.83815029, 0.76888889),
        (0.90, 0.90, 0.92639594, 0.87555556),
        (0.95, 0.95, 0.96496437, 0.93555556),
        (0.90, 0.80, 0.88315217, 0.81777778),
        (0.95, 0.70, 0.85470085, 0.78),
        (0.85, 0.75, 0.83695652, 0.76666667),
    ],
)
def test_bbpssw(f1: float, f2: float, fidelity: float, success: float) -> None:
    assert bbpssw(f1, f2) == pytest.approx((fidelity, success), abs=6e-9)


@pytest.mark.parametrize(
    ("fidelity", "rounds"),
    [
        (0.8, ((0.83815029, 0.76888889), (0.94363922, 0.74459554), (0.98797356, 0.90131312))),
        (0.9, ((0.92639594, 0.87555556), (0.98876354, 0.86796877), (0.99907012, 0.97856346))),
    ],
)
def test_dejmps_rounds(fidelity: float, rounds: tuple[tuple[float, float], ...]) -> None:
    state = werner(fidelity)
    for expected in rounds:
        state, success = dejmps(state, state)
        assert (state.fidelity, success) == pytest.approx(expected, abs=6e-9)


@pytest.mark.parametrize(("fidelity", "rounds"), [(0.8, (0.83815029, 0.87358452, 0.90454022)), (0.9, (0.92639594, 0.94720779, 0.96290535))])
def test_recurrence(fidelity: float, rounds: tuple[float, ...]) -> None:
    assert recurrence(fidelity, 0) == (fidelity, 1.0)
    yield_ = 1.0
    for count, expected in enumerate(rounds, start=1):
        yield_ *= bbpssw(recurrence(fidelity, count - 1)[0], recurrence(fidelity, count - 1)[0])[1] / 2
        assert recurrence(fidelity, count) == pytest.approx((expected, yield_), abs=6e-9)


@pytest.mark.parametrize(("before", "after"), [((0.9, 0.1, 0.0, 0.0), 0.82), ((0.9, 0.0, 0.1, 0.0), 0.988)])
def test_labels_matter_to_dejmps(before: tuple[float, float, float, float], after: float) -> None:
    state = BellDiagonal(*before)
    assert dejmps(state, state)[0].fidelity == pytest.approx(after, abs=5e-4)


def test_twirling_before_a_chain_costs_fidelity() -> None:
    purified, _ = dejmps(werner(0.9), werner(0.9))
    assert reduce(swap, [purified] * 8).fidelity == pytest.approx(0.627, abs=5e-4)
    assert reduce(swap, [twirl(purified)] * 8).fidelity == pytest.approx(0.578, abs=5e-4)


@pytest.mark.parametrize(
    ("wait", "one", "both"),
    [(0.1, 0.88338619, 0.82311153), (0.5, 0.67457146, 0.50751561), (1, 0.50751561, 0.3447347)],
)
def test_depolarising_memory(wait: float, one: float, both: float) -> None:
    assert depolarise(werner(0.95), wait, 1.0).fidelity == pytest.approx(one, abs=6e-9)
    assert depolarise(werner(0.95), wait, 1.0, 2).fidelity == pytest.approx(both, abs=6e-9)


@pytest.mark.parametrize(
    ("wait", "pure", "mixed"),
    [(0.1, 0.95241871, 0.9055908), (0.5, 0.80326533, 0.76638097), (1, 0.68393972, 0.65501041)],
)
def test_dephasing_memory(wait: float, pure: float, mixed: float) -> None:
    assert dephase(PERFECT, wait, 1.0).fidelity == pytest.approx(pure, abs=6e-9)
    assert dephase(werner(0.95), wait, 1.0).fidelity == pytest.approx(mixed, abs=6e-9)


@pytest.mark.parametrize(("fidelity", "expected"), [(0.5, 2 / 3), (0.75, 0.83333333), (0.9, 0.93333333), (0.95, 0.96666667)])
def test_teleportation(fidelity: float, expected: float) -> None:
    assert teleportation_fidelity(fidelity) == pytest.approx(expected, abs=6e-9)


@pytest.mark.parametrize(
    ("qber", "expected"),
    [
        (0.01, 0.83841373),
        (0.02, 0.71711891),
        (0.03, 0.61121628),
        (0.05, 0.42720609),
        (0.08, 0.19564162),
        (0.10, 0.06200881),
        (0.1100278644, 0.0),
    ],
)
def test_bbm92_key_fraction_of_werner_pairs(qber: float, expected: float) -> None:
    assert bbm92_key_fraction(werner(1 - 1.5 * qber)) == pytest.approx(expected, abs=6e-9)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((0.9, 0.1, 0.0, 0.0), 0.06200881), ((0.9, 0.0, 0.1, 0.0), 0.53100441), ((0.9, 0.0, 0.0, 0.1), 0.53100441)],
)
def test_psi_minus_is_an_error_in_both_bases(weights: tuple[float, float, float, float], expected: float) -> None:
    assert bbm92_key_fraction(BellDiagonal(*weights)) == pytest.approx(expected, abs=6e-9)


def test_bbm92_threshold() -> None:
    assert bbm92_key_fraction(werner(0.834958)) == 0
    assert bbm92_key_fraction(werner(0.834959)) > 0


# --- properties ---


@given(states, states, st.floats(0.25, 1), st.floats(0, 1e308), st.floats(1e-300, 1e308) | st.just(math.inf))
def test_results_are_states(left: BellDiagonal, right: BellDiagonal, swap_fidelity: float, wait: float, time: float) -> None:
    assume(left.phi_plus + left.psi_minus > 1e-6 and right.phi_plus + right.psi_minus > 1e-6)
    results = [
        swap(left, right, swap_fidelity),
        dejmps(left, right)[0],
        depolarise(left, wait, time, 2),
        dephase(left, wait, time, 2),
        twirl(left),
    ]
    for state in results:
        assert math.fsum(state.coefficients) == pytest.approx(1, abs=1e-14)
        assert min(state.coefficients) >= 0


@given(states, states, states)
def test_swap_is_commutative_and_associative(a: BellDiagonal, b: BellDiagonal, c: BellDiagonal) -> None:
    assert swap(a, b).coefficients == pytest.approx(swap(b, a).coefficients, abs=1e-14)
    assert swap(swap(a, b), c).coefficients == pytest.approx(swap(a, swap(b, c)).coefficients, abs=1e-14)


@given(states)
def test_swap_with_a_perfect_pair_changes_nothing(state: BellDiagonal) -> None:
    assert swap(state, PERFECT).coefficients == pytest.approx(state.coefficients, abs=1e-15)


@given(st.floats(0.25, 1))
def test_swap_fidelity_is_what_perfect_pairs_give(fidelity: float) -> None:
    assert swap(PERFECT, PERFECT, fidelity).coefficients == pytest.approx(werner(fidelity).coefficients, abs=1e-15)


@given(unit, unit)
def test_twirled_dejmps_is_bbpssw(f1: float, f2: float) -> None:
    state, success = dejmps(werner(f1), werner(f2))
    assert (state.fidelity, success) == pytest.approx(bbpssw(f1, f2), abs=1e-12)


@given(unit, unit)
def test_key_fraction_grows_with_fidelity(f1: float, f2: float) -> None:
    low, high = sorted((f1, f2))
    assert bbm92_key_fraction(werner(low)) <= bbm92_key_fraction(werner(high)) + 1e-12


@given(states, st.floats(0, 10))
def test_key_fraction_does_not_grow_in_memory(state: BellDiagonal, wait: float) -> None:
    assert bbm92_key_fraction(depolarise(state, wait, 1.0)) <= bbm92_key_fraction(state) + 1e-12
    assert bbm92_key_fraction(dephase(state, wait, 1.0)) <= bbm92_key_fraction(state) + 1e-12


@given(unit)
def test_werner_parameter_there_and_back(fidelity: float) -> None:
    assert fidelity_of(max(-1 / 3, werner_parameter(fidelity))) == pytest.approx(fidelity, abs=1e-15)


@given(unit)
def test_binary_entropy_is_symmetric_and_in_range(p: float) -> None:
    assert 0 <= binary_entropy(p) <= 1 + 1e-15
    assert binary_entropy(p) == pytest.approx(binary_entropy(1 - p), abs=1e-12)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, math.inf])
def test_fidelities_outside_their_range_are_refused(bad: float) -> None:
    for call in (werner, werner_parameter, teleportation_fidelity, lambda f: recurrence(f, 1)):
        with pytest.raises(ValueError, match=r"^fidelity must be in \[0, 1\], got "):
            call(bad)
    with pytest.raises(ValueError, match=r"^second_fidelity must be in"):
        bbpssw(0.9, bad)
    with pytest.raises(ValueError, match=r"^swap_fidelity must be in \[0.25, 1\]"):
        swap(PERFECT, PERFECT, bad)
    with pytest.raises(ValueError, match=r"^gate must be in"):
        swap_fidelity(bad, 1.0)
    with pytest.raises(ValueError, match=r"^readout must be in \[0.5, 1\]"):
        swap_fidelity(1.0, bad)
    with pytest.raises(ValueError, match=r"^w must be in \[-0.333333, 1\]"):
        fidelity_of(bad if bad != -0.1 else -0.4)
    with pytest.raises(ValueError, match=r"^probability must be in"):
        binary_entropy(bad)


@pytest.mark.parametrize("weights", [(0.5, 0.5, 0.5, -0.5), (math.nan, 0, 0, 1), (0.9, 0, 0, 0), (0.9, 0.1, 0.1, 0)])
def test_weights_that_are_no_state_are_refused(weights: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"^(psi|phi|the weights)"):
        BellDiagonal(*weights)


@pytest.mark.parametrize(("wait", "time"), [(-1.0, 1.0), (math.nan, 1.0), (math.inf, 1.0), (1.0, 0.0), (1.0, -1.0), (1.0, math.nan)])
def test_memory_times_outside_their_range_are_refused(wait: float, time: float) -> None:
    with pytest.raises(ValueError, match=r"^(wait_s|memory_time_s) must be in"):
        depolarise(PERFECT, wait, time)
    with pytest.raises(ValueError, match=r"^(wait_s|t2_s) must be in"):
        dephase(PERFECT, wait, time)


def test_counts_outside_their_range_are_refused() -> None:
    for rounds in (-1, 65, 1.0, True):
        with pytest.raises(ValueError, match=r"^rounds must be a whole number in \[0, 64\]"):
            recurrence(0.9, rounds)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^memories must be a whole number in \[1, 2\]"):
        depolarise(PERFECT, 1.0, 1.0, 3)  # type: ignore[arg-type]


def test_purification_that_never_succeeds_is_refused() -> None:
    with pytest.raises(ValueError, match="never succeeds"):
        dejmps(PERFECT, BellDiagonal(0.0, 0.0, 1.0, 0.0))
