"""On-demand chains against simulations written here, which share nothing with the formulas but the definition of the protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from controller.physics.bell_diagonal import BellDiagonal, swap, werner
from controller.physics.chains import APPROXIMATE, EXACT, STANDARD_ERROR, Delivery, Link, Node, TooRare, deliver
from controller.physics.generation import attempts_until_all
from controller.physics.memory import Memory

PURE = BellDiagonal(1.0, 0.0, 0.0, 0.0)

# --- the simulation: many replicas of a chain at once, event by event ---


@dataclass(frozen=True)
class Case:
    """A chain of links with perfect pairs; an attempt of 0 s means exponential waiting."""

    rates_hz: tuple[float, ...]
    attempts_s: tuple[float, ...]
    success: tuple[float, ...]
    t1_s: tuple[float, ...]
    t2_s: tuple[float, ...]
    delays_s: tuple[float, ...]
    cutoff_s: float = math.inf

    def delivered(self, standard_error: float = STANDARD_ERROR) -> Delivery:
        links, nodes = chain_of(self)
        return deliver(links, nodes, self.delays_s, self.cutoff_s, standard_error=standard_error)


def chain_of(case: Case) -> tuple[tuple[Link, ...], tuple[Node, ...]]:
    links = tuple(Link(rate, PURE, attempt) for rate, attempt in zip(case.rates_hz, case.attempts_s, strict=True))
    swaps = (1.0, *case.success, 1.0)
    return links, tuple(Node(Memory(t1, t2), q) for t1, t2, q in zip(case.t1_s, case.t2_s, swaps, strict=True))


@dataclass(frozen=True)
class Observed:
    rate_hz: float
    fidelity: float
    rate_error: float
    """Relative standard error."""
    fidelity_error: float


class Replicas:
    """`size` chains side by side; times in seconds since each chain's request."""

    def __init__(self, case: Case, size: int, seed: int) -> None:
        self.case, self.size, self.links = case, size, len(case.rates_hz)
        self.rng = np.random.default_rng(seed)
        self.place = np.concatenate(([0.0], np.cumsum(case.delays_s)))
        self.ready = np.stack([self.draw(size, link) for link in range(self.links)], axis=1)
        self.filled = np.zeros((size, self.links), dtype=bool)
        self.measured_at = np.zeros((size, self.links - 1))

    def draw(self, count: int, link: int) -> NDArray[Any]:
        rate, attempt = self.case.rates_hz[link], self.case.attempts_s[link]
        return attempt * self.rng.geometric(rate * attempt, count) if attempt else self.rng.exponential(1 / rate, count)

    def step(self, live: NDArray[Any]) -> NDArray[Any]:
        """The next arrival of every live replica, what is measured then and what is lost; the replicas that are done."""
        pending = np.where(self.filled[live], np.inf, self.ready[live])
        now = pending.min(axis=1)
        arrived = pending <= now[:, None] * (1 + 1e-12)
        filled = self.filled[live] | arrived
        failed = np.zeros((len(live), self.links - 1), dtype=bool)
        for station, success in enumerate(self.case.success):
            measuring = filled[:, station] & filled[:, station + 1] & (arrived[:, station] | arrived[:, station + 1])
            failed[:, station] = measuring & (self.rng.random(len(live)) >= success)
            self.measured_at[live[measuring], station] = now[measuring]
        self.filled[live] = filled
        for row in np.flatnonzero(failed.any(axis=1)):
            self.lose(int(live[row]), float(now[row]), np.flatnonzero(failed[row]))
        return live[self.filled[live].all(axis=1)]

    def lose(self, replica: int, now: float, stations: NDArray[Any]) -> None:
        filled = self.filled[replica].copy()
        restart: dict[int, float] = {}
        for station in stations:
            first, last = station, station + 1
            while first > 0 and filled[first - 1]:
                first -= 1
            while last + 1 < self.links and filled[last + 1]:
                last += 1
            middle = self.place[station + 1]
            news = max(middle - self.place[first], self.place[last + 1] - middle)
            for link in range(first, last + 1):
                restart[link] = min(news, restart.get(link, math.inf))
        for link, news in restart.items():
            self.filled[replica, link] = False
            self.ready[replica, link] = now + news + self.draw(1, link)[0]

    def run(self) -> Observed:
        live = np.arange(self.size)
        while len(live):
            live = np.setdiff1d(live, self.step(live), assume_unique=True)
        farthest = np.maximum(self.place[1:-1], self.place[-1] - self.place[1:-1])
        done = (self.measured_at + farthest).max(axis=1) if self.links > 1 else self.ready[:, 0]
        waits = np.column_stack((done - self.ready[:, 0], np.abs(np.diff(self.ready, axis=1)), done - self.ready[:, -1]))
        xy, z = (np.exp(-waits @ (1 / np.array(times))) for times in (self.case.t2_s, self.case.t1_s))
        fidelity = (1 + 2 * xy + z) / 4
        root = math.sqrt(self.size)
        return Observed(
            1 / float(done.mean()),
            float(fidelity.mean()),
            float(done.std() / done.mean()) / root,
            float(fidelity.std() / fidelity.mean()) / root,
        )


def random_case(seed: int) -> Case:
    """A chain from the domain of the approximation, most often from its edges."""
    rng = np.random.default_rng(seed)
    links = int(rng.integers(3, 7))
    rates = 10 ** rng.uniform(0, rng.uniform(0, 2), links)
    longest = min(0.1, 0.1 * rates.max() / rates.min()) / rates.max()
    attempts = rng.choice([0.0, 0.45, 0.95]) * longest * (0.5 + 0.5 * rng.uniform(0, 1, links) * rng.choice([0.0, 1.0]))
    attempts = np.minimum(attempts, 0.0999 / rates)
    delays = rng.uniform(0, 1, links)
    delays *= rng.choice([0.3, 0.999]) * (0.1 / rates.max() - np.ptp(attempts)) / delays.sum()
    success = rng.uniform(0.5, rng.choice([0.55, 1.0]), links - 1) if rng.random() < 0.9 else np.ones(links - 1)
    t2 = np.maximum(10 ** rng.uniform(-1, 2, links + 1) / rates.mean(), 10.01 * max(attempts.max(), delays.sum()))
    t1 = t2 * 10 ** rng.uniform(-0.3, 1.3, links + 1)
    fields = (rates, attempts, success, t1, t2, delays)
    return Case(*(tuple(float(value) for value in each) for each in fields))


def agree(case: Case, size: int, tolerance: float, seed: int) -> None:
    told, seen = case.delivered(), Replicas(case, size, seed).run()
    assert told.rate_hz == pytest.approx(seen.rate_hz, rel=tolerance + 4 * seen.rate_error), (case, told, seen)
    assert told.state.fidelity == pytest.approx(seen.fidelity, rel=tolerance + 4 * seen.fidelity_error), (case, told, seen)


HETEROGENEOUS = Case((1.0, 1.5, 0.7, 2.0), (0.0,) * 4, (0.8, 0.6, 0.9), (20.0,) * 5, (8.0, 6.0, 9.0, 7.0, 10.0), (0.0,) * 4)


@pytest.mark.parametrize("attempt_s", [0.0, 0.2])
@pytest.mark.parametrize("links", [2, 3, 4])
@pytest.mark.parametrize("certain", [True, False])
def test_exact_chains_agree_with_simulation(links: int, attempt_s: float, certain: bool) -> None:
    whole = HETEROGENEOUS
    case = Case(
        whole.rates_hz[:links],
        (attempt_s,) * links,
        (1.0,) * (links - 1) if certain else whole.success[: links - 1],
        whole.t1_s[: links + 1],
        whole.t2_s[: links + 1],
        (0.0,) * links,
    )
    assert case.delivered().error == EXACT
    agree(case, 20_000, 0.0, seed=links)


@pytest.mark.parametrize("seed", range(8))
def test_approximate_chains_are_within_two_percent_of_simulation(seed: int) -> None:
    case = random_case(seed)
    assert case.delivered().error == APPROXIMATE
    agree(case, 10_000, 0.015, seed)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_approximate_chains_are_within_two_percent_of_simulation_in_full() -> None:
    for seed in range(100, 200):
        agree(random_case(seed), 20_000, 0.015, seed)


# --- chains that are simulated: many links, and what the approximation does not cover ---


def long_case(seed: int, least: int = 9, most: int = 40) -> Case:
    """A chain of many unlike links, from links that hardly wait to some that wait ten times as long as others, that delivers now and then."""
    rng = np.random.default_rng(seed)
    links = int(rng.integers(least, most + 1))
    rates = 10 ** rng.uniform(0, rng.uniform(0, 1), links)
    attempts = rng.uniform(0, 1, links) / rates if rng.random() < 0.5 else np.full(links, rng.choice([0.0, 0.3]) / rates.max())
    success = rng.uniform(1 - 5 / links, 1, links - 1) if rng.random() < 0.8 else np.ones(links - 1)
    delays = rng.uniform(0, 1, links) / links if rng.random() < 0.7 else np.zeros(links)
    t2 = 10 ** rng.uniform(0.5, 3, links + 1)
    t1 = t2 * 10 ** rng.uniform(-0.3, 1.3, links + 1)
    fields = (rates, attempts, success, t1, t2, delays)
    return Case(*(tuple(float(value) for value in each) for each in fields))


def outside_case(seed: int) -> Case:
    """A short chain outside what the approximation covers: long delays, unlike attempts, attempts that mostly succeed, poor memories."""
    rng = np.random.default_rng(seed)
    case = long_case(seed, 3, 8)
    delays = tuple(float(delay) for delay in 10 ** rng.uniform(-1, 1, len(case.rates_hz)) / np.array(case.rates_hz))
    return replace(case, delays_s=delays, success=tuple(float(q) for q in rng.uniform(0.3, 1, len(delays) - 1)))


@pytest.mark.parametrize("seed", range(6))
def test_long_chains_are_within_two_percent_of_simulation(seed: int) -> None:
    case = long_case(seed)
    told = case.delivered()
    assert "simulated" in told.method and "standard error" in told.error
    agree(case, 2_000, 3 * STANDARD_ERROR, seed)


@pytest.mark.parametrize("seed", range(6))
def test_short_chains_outside_the_approximation_are_simulated(seed: int) -> None:
    case = outside_case(seed)
    assert "standard error" in case.delivered().error
    agree(case, 4_000, 3 * STANDARD_ERROR, seed)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_simulated_chains_are_within_two_percent_of_simulation_in_full() -> None:
    for seed in range(100, 160):
        agree(long_case(seed), 10_000, 3 * STANDARD_ERROR, seed)
        agree(outside_case(seed), 20_000, 3 * STANDARD_ERROR, seed)


@pytest.mark.parametrize("links", [2, 5, 8])
@pytest.mark.parametrize("attempt_s", [0.0, 0.4])
def test_the_simulation_meets_the_markov_chain(links: int, attempt_s: float) -> None:
    """Against the exact figure with a tenth of the usual error; the standard error told is neither far too small nor far too large."""
    from controller.physics import chains

    case = Case(
        (1.0, 1.5, 0.7, 2.0, 1.1, 0.8, 1.3, 0.9)[:links],
        (attempt_s,) * links,
        (0.6,) * (links - 1),
        *(((20.0,) * (links + 1)),) * 2,
        (0.0,) * links,
    )
    exact = case.delivered()
    assert exact.error == EXACT
    chain = chains._Chain(*chain_of(case), case.delays_s)
    found = chains._simulated(chain, 0.001)
    assert found.rate_hz == pytest.approx(exact.rate_hz, rel=0.004)
    assert found.state.coefficients == pytest.approx(exact.state.coefficients, abs=0.002)


def test_the_standard_error_told_is_that_of_many_chains() -> None:
    """Against exact figures: stations that nearly always and that seldom succeed, few deliveries."""
    from controller.physics import chains

    off = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        links = int(rng.integers(3, 8))
        attempt_s = float(rng.choice([0.0, 0.3]))
        rates_hz, success = tuple((10 ** rng.uniform(0, 0.5, links)).tolist()), tuple(rng.uniform(0.3, 1, links - 1).tolist())
        memories = (20.0,) * (links + 1)
        case = Case(rates_hz, (attempt_s,) * links, success, memories, memories, (0.0,) * links)
        exact = case.delivered()
        assert exact.error == EXACT
        found = chains._simulated(chains._Chain(*chain_of(case), case.delays_s), 0.02)
        told = float(found.error.removeprefix("standard error ").split("%")[0]) / 100
        off.append((found.rate_hz / exact.rate_hz - 1) / told)
    assert np.abs(off).max() < 4
    assert 0.8 < math.sqrt(np.mean(np.square(off))) < 1.25


def test_a_simulation_says_how_far_off_it_is() -> None:
    case = long_case(1)
    fine, coarse = case.delivered(), case.delivered(standard_error=0.02)
    for delivery, most in ((fine, STANDARD_ERROR), (coarse, 0.02)):
        told = [float(part.split("%")[0]) / 100 for part in delivery.error.removeprefix("standard error ").split(", ")]
        assert all(0 < error <= most + 5e-5 for error in told)
    assert coarse != fine == case.delivered()
    assert coarse.rate_hz == pytest.approx(fine.rate_hz, rel=0.08)


def test_like_chains_are_compared_better_than_each_is_known() -> None:
    """The same random numbers for both: a link that is a thousandth faster never makes the chain slower, at 2 % of standard error."""
    case = replace(long_case(3), success=(1.0,) * (len(long_case(3).rates_hz) - 1), attempts_s=(0.0,) * len(long_case(3).rates_hz))
    rates = [
        replace(case, rates_hz=(*case.rates_hz[:4], rate, *case.rates_hz[5:])).delivered(standard_error=0.02).rate_hz
        for rate in (0.1, 0.1001)
    ]
    assert rates[0] < rates[1] < rates[0] * 1.002


@pytest.mark.parametrize(("links", "success"), [(12, 0.05), (40, 0.3), (8, 1e-30), (2, 1e-200), (5, 1e-4)])
@pytest.mark.parametrize("delay_s", [0.0, 3.0])
def test_swaps_that_succeed_too_rarely_are_refused_by_name(links: int, success: float, delay_s: float) -> None:
    with pytest.raises(TooRare, match=r"^swap_success must "):
        deliver([Link(1.0, PURE)] * links, [Node(swap_success=success)] * (links + 1), [delay_s] * links)


def test_what_a_simulation_does_not_find_to_two_percent_is_not_told() -> None:
    """Twenty-six links whose swaps fail every other time deliver a few dozen pairs within the effort that a simulation may take."""
    links, nodes = [Link(1.0, PURE)] * 26, [Node(swap_success=0.5)] * 27
    with pytest.raises(TooRare, match=r"^swap_success must be higher to be evaluated: 26 links deliver too rarely to be simulated to 2%"):
        deliver(links, nodes)
    told = deliver(links[:22], nodes[:23], standard_error=0.1).error
    assert 0.02 < float(told.removeprefix("standard error ").split("%")[0]) / 100 < 0.1, "as coarse as it was asked for"


# --- two links with a cut-off ---


def simulated_cutoff(case: Case, size: int, seed: int) -> tuple[float, float, float, float]:
    """(mean time, its standard error, mean of what is kept of XX, its standard error) without delays."""
    rng = np.random.default_rng(seed)

    def draw(link: int) -> float:
        rate, attempt = case.rates_hz[link], case.attempts_s[link]
        return float(attempt * rng.geometric(rate * attempt) if attempt else rng.exponential(1 / rate))

    times, kept = [], []
    for _ in range(size):
        clock = 0.0
        while True:
            one, other = draw(0), draw(1)
            if abs(one - other) > case.cutoff_s * (1 + 1e-12):
                clock += min(one, other) + case.cutoff_s
                continue
            clock += max(one, other)
            if rng.random() < case.success[0]:
                break
        pair = (0, 1) if one < other else (1, 2)
        times.append(clock)
        kept.append(math.exp(-abs(one - other) * sum(1 / case.t2_s[node] for node in pair)))
    root = math.sqrt(size)
    return float(np.mean(times)), float(np.std(times)) / root, float(np.mean(kept)), float(np.std(kept)) / root


@pytest.mark.parametrize("attempt_s", [0.0, 0.1])
@pytest.mark.parametrize("cutoff_s", [0.2, 1.0])
def test_two_links_with_a_cutoff_agree_with_simulation(attempt_s: float, cutoff_s: float) -> None:
    case = Case((1.0, 3.0), (attempt_s,) * 2, (0.7,), (math.inf,) * 3, (2.0, 1.0, 3.0), (0.0, 0.0), cutoff_s)
    told = case.delivered()
    mean_s, time_error, kept, kept_error = simulated_cutoff(case, 20_000, 11)
    assert told.error == EXACT
    assert 1 / told.rate_hz == pytest.approx(mean_s, abs=4 * time_error)
    assert 2 * told.state.fidelity - 1 == pytest.approx(kept, abs=4 * kept_error)


rates = st.floats(0.01, 100)
times = st.floats(0.01, 1000)
swaps = st.floats(0.05, 1)


@given(st.tuples(rates, rates), swaps, st.tuples(times, times, times), st.booleans(), st.floats(0, 1))
def test_no_cutoff_is_the_limit_of_a_long_one(
    pair: tuple[float, float], success: float, t2: tuple[float, float, float], slotted: bool, delay_s: float
) -> None:
    attempt = 0.9 / max(pair) if slotted else 0.0
    case = Case(pair, (attempt,) * 2, (success,), (math.inf,) * 3, t2, (delay_s,) * 2)
    without, long = case.delivered(), replace(case, cutoff_s=1e5).delivered()
    assert long.rate_hz == pytest.approx(without.rate_hz, rel=1e-9)
    assert long.state.coefficients == pytest.approx(without.state.coefficients, abs=1e-9)


@given(st.tuples(rates, rates), swaps, st.tuples(times, times, times), times, times)
def test_a_shorter_cutoff_trades_rate_for_fidelity(
    pair: tuple[float, float], success: float, t2: tuple[float, float, float], one: float, other: float
) -> None:
    case = Case(pair, (0.0, 0.0), (success,), (math.inf,) * 3, t2, (0.0, 0.0))
    short, long = (replace(case, cutoff_s=cutoff).delivered() for cutoff in sorted((one, other)))
    assert short.rate_hz <= long.rate_hz * (1 + 1e-12)
    if max(pair) / min(pair) < 2 and max(t2) == min(t2):
        assert short.state.fidelity >= long.state.fidelity - 1e-12


def test_a_cutoff_within_a_slot_needs_both_at_once() -> None:
    case = Case((0.2, 0.5), (1.0, 1.0), (0.5,), (math.inf,) * 3, (1.0,) * 3, (0.0, 0.0), 0.5)
    assert case.delivered().rate_hz == pytest.approx(0.2 * 0.5 * 0.5)
    assert case.delivered().state.fidelity == 1


# --- two links whose attempts take different times, with a cut-off ---


def tried(case: Case, size: int, seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of `size` tries without delays: what each takes, whether it meets, what is kept of XX then, else 0."""
    rng = np.random.default_rng(seed)
    one, other = (
        attempt * rng.geometric(rate * attempt, size) if attempt else rng.exponential(1 / rate, size)
        for rate, attempt in zip(case.rates_hz, case.attempts_s, strict=True)
    )
    wait = np.abs(one - other)
    met = wait <= case.cutoff_s * (1 + 1e-12)
    left, middle, right = (1 / t2 for t2 in case.t2_s)
    kept = np.exp(-wait * np.where(one < other, left + middle, middle + right))
    return np.minimum(one, other) + np.minimum(wait, case.cutoff_s), met, kept * met


@pytest.mark.parametrize(
    ("rates_hz", "attempts_s", "cutoff_s"),
    [
        ((0.1, 0.1), (1.0, 0.5), 0.7),
        ((0.5, 0.5), (1.0, 0.01), 0.6),
        ((0.01, 0.01), (1.0, 0.0), 0.5),
        ((1.0, 0.7), (1.0, math.sqrt(2)), 2.0),
        ((1.0, 3.0), (0.0, 0.2), 0.4),
        ((1.0, 1.0), (1e-5, 3.3e-6), 0.1),
    ],
)
def test_unlike_links_with_a_cutoff_agree_with_simulation(
    rates_hz: tuple[float, float], attempts_s: tuple[float, float], cutoff_s: float
) -> None:
    case = Case(rates_hz, attempts_s, (0.7,), (math.inf,) * 3, (20.0, 10.0, 30.0), (0.0, 0.0), cutoff_s)
    told = case.delivered()
    took, met, kept = tried(case, 400_000, 5)
    count = met.sum()
    mean_s = took.sum() / count / 0.7
    error = float(np.std(took - took.sum() / count * met)) / met.mean() / math.sqrt(len(met)) / 0.7
    assert told.error == EXACT
    assert 1 / told.rate_hz == pytest.approx(mean_s, abs=4 * error)
    assert 2 * told.state.fidelity - 1 == pytest.approx(kept.sum() / count, abs=4 * float(np.std(kept[met])) / math.sqrt(count))


@given(
    st.tuples(st.floats(0.4, 1), st.floats(0.4, 1)),
    st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)) | st.sampled_from([(0.1, 0.3), (0.6, 0.2), (0.25, 1.0), (0.7, 0.3)]),
    st.sampled_from([0.1, 0.3, 0.6, 2.0]) | st.floats(0.1, 3),
    st.tuples(*[st.floats(0.01, 1000)] * 3),
)
def test_unlike_links_with_a_cutoff_are_the_sum_over_all_waits(
    chances: tuple[float, float], attempts_s: tuple[float, float], cutoff_s: float, t2: tuple[float, float, float]
) -> None:
    """Term by term."""
    assume(attempts_s[0] != attempts_s[1])
    count = np.arange(1, 60)
    p, q = (chance * (1 - chance) ** (count - 1) for chance in chances)
    one, other, chance = attempts_s[0] * count[:, None], attempts_s[1] * count, p[:, None] * q
    wait = np.abs(one - other)
    met = wait <= cutoff_s + 1e-10
    assume((chance * met).sum() > 1e-3)
    took = (chance * np.where(met, np.maximum(one, other), np.minimum(one, other) + cutoff_s)).sum()
    left, middle, right = (1 / each for each in t2)
    kept = (chance * met * np.exp(-wait * np.where(one < other, left + middle, middle + right))).sum()
    links = [Link(min(chance / attempt, 1 / attempt), PURE, attempt) for chance, attempt in zip(chances, attempts_s, strict=True)]
    told = deliver(links, [Node(Memory(math.inf, each), 0.5) for each in t2], [], cutoff_s)
    assert told.error == EXACT
    assert 1 / told.rate_hz == pytest.approx(took / (chance * met).sum() / 0.5, rel=1e-7)
    assert 2 * told.state.fidelity - 1 == pytest.approx(kept / (chance * met).sum(), abs=1e-7)


@settings(max_examples=40)
@given(st.tuples(rates, rates), st.floats(0.01, 100), st.tuples(*[times] * 3), st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.9]))
def test_hardly_unlike_links_approach_like_ones(
    pair: tuple[float, float], cutoff_s: float, t2: tuple[float, float, float], delay_s: float, share: float
) -> None:
    attempt = share / max(pair)
    if attempt:
        cutoff_s = attempt * max(1, math.floor(cutoff_s / attempt))
    like = Case(pair, (attempt,) * 2, (0.6,), (math.inf,) * 3, t2, (delay_s, 0.0), cutoff_s)
    unlike = replace(like, attempts_s=(attempt, math.nextafter(attempt, 1.0) if attempt else 1e-11))
    assert unlike.delivered().rate_hz == pytest.approx(like.delivered().rate_hz, rel=1e-7)
    assert unlike.delivered().state.fidelity == pytest.approx(like.delivered().state.fidelity, rel=1e-7)


# --- more links with a cut-off, played out ---


@pytest.mark.parametrize("cutoff_s", [1e30, math.inf])
def test_attempts_that_hardly_ever_succeed_are_as_good_as_exponential_waiting(cutoff_s: float) -> None:
    """The simulations count attempts beyond 2^63."""
    nodes, delays_s = [Node(Memory(1e31, 1e31), 0.5)] * 4, [1e29] * 3
    short, none = (deliver([Link(1e-30, PURE, attempt_s)] * 3, nodes, delays_s, cutoff_s, standard_error=0.02) for attempt_s in (1e-3, 0.0))
    assert "simulated" in short.method
    assert short.rate_hz == pytest.approx(none.rate_hz, rel=1e-6)
    assert short.state.fidelity == pytest.approx(none.state.fidelity, rel=1e-6)


def tree_sample(case: Case, rng: np.random.Generator, first: int, last: int) -> tuple[float, dict[int, tuple[float, float]]]:
    """(when the swap that joins nodes first..last has succeeded, of every link when its pair was made and of every node when it measured)."""
    if last == first + 1:
        rate, attempt = case.rates_hz[first], case.attempts_s[first]
        made = float(attempt * rng.geometric(rate * attempt) if attempt else rng.exponential(1 / rate))
        return made, {first: (made, math.nan)}
    place = np.concatenate(([0.0], np.cumsum(case.delays_s)))
    middle = first + (last - first + 1) // 2
    news = max(place[middle] - place[first], place[last] - place[middle])
    clock = 0.0
    while True:
        heard, history = [], {}
        for low, high in ((first, middle), (middle, last)):
            done, story = tree_sample(case, rng, low, high)
            station = low + (high - low + 1) // 2
            heard.append(done + (abs(place[station] - place[middle]) if high > low + 1 else 0.0))
            history |= story
        if max(heard) - min(heard) > case.cutoff_s * (1 + 1e-9):
            clock += min(heard) + case.cutoff_s + (news if last > first + 2 else 0.0)
        elif rng.random() >= case.success[middle - 1]:
            clock += max(heard) + news
        else:
            break
    told = {link: (clock + made, clock + measured) for link, (made, measured) in history.items()}
    told[middle] = (told[middle][0], clock + max(heard))  # a node's measurement stands with the link that begins at it
    return clock + max(heard), told


def tree_case(seed: int) -> Case:
    """A chain of three to seven links with a cut-off that bites, with and without delays, attempts alike, unlike and of no time."""
    rng = np.random.default_rng(seed)
    links = int(rng.integers(3, 8))
    rates = 10 ** rng.uniform(0, 0.5, links)
    attempts = (np.zeros(links), np.full(links, 0.3 / rates.max()), rng.uniform(0, 1, links) / rates)[seed % 3]
    delays = rng.uniform(0, 0.3, links) if seed % 2 or seed % 3 == 1 else np.zeros(links)
    t2 = 10 ** rng.uniform(0.5, 2, links + 1)
    fields = (rates, attempts, rng.uniform(0.6, 1, links - 1), t2 * rng.uniform(0.6, 5, links + 1), t2, delays)
    return Case(*(tuple(float(value) for value in each) for each in fields), float(rng.uniform(1, 3)))


def tree_agrees(case: Case, size: int, seed: int) -> None:
    told = case.delivered()
    rng = np.random.default_rng(seed)
    place = np.concatenate(([0.0], np.cumsum(case.delays_s)))
    nodes = len(place)
    middle = nodes // 2
    taken, fidelities = [], []
    for _ in range(size):
        measured_s, story = tree_sample(case, rng, 0, nodes - 1)
        done = measured_s + max(place[middle], place[-1] - place[middle])
        gone = np.array([done, *(story[node][1] for node in range(1, nodes - 1)), done])
        made = np.array([story[link][0] for link in range(nodes - 1)])
        stored = np.concatenate((gone[:-1] - made, [0.0])) + np.concatenate(([0.0], gone[1:] - made))
        xy, z = (math.exp(-float(stored @ (1 / np.array(each)))) for each in (case.t2_s, case.t1_s))
        taken.append(done)
        fidelities.append((1 + 2 * xy + z) / 4)
    root = math.sqrt(size)
    assert "simulated" in told.method and "standard error" in told.error
    assert 1 / told.rate_hz == pytest.approx(np.mean(taken), rel=3 * STANDARD_ERROR, abs=4 * np.std(taken) / root), case
    assert told.state.fidelity == pytest.approx(np.mean(fidelities), rel=3 * STANDARD_ERROR, abs=4 * np.std(fidelities) / root), case


@pytest.mark.parametrize("seed", range(6))
def test_chains_with_a_cutoff_agree_with_simulation(seed: int) -> None:
    tree_agrees(tree_case(seed), 400, seed)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_chains_with_a_cutoff_agree_with_simulation_in_full() -> None:
    for seed in range(100, 160):
        tree_agrees(tree_case(seed), 5_000, seed)


def test_the_standard_error_told_of_a_cutoff_is_that_of_many_chains() -> None:
    """Against exact figures: two links with delays, and slotted ones whose sides meet often and seldom."""
    from controller.physics import chains, tree_simulation

    off = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        links, attempt_s = ((2, 0.0), (2, 0.3), (3, 0.3), (4, 0.2))[seed % 4]
        rates_hz, success = tuple((10 ** rng.uniform(0, 0.5, links)).tolist()), tuple(rng.uniform(0.3, 1, links - 1).tolist())
        memories, delays_s = (5.0,) * (links + 1), (0.2 if links == 2 else 0.0,) * links
        case = Case(rates_hz, (attempt_s,) * links, success, memories, memories, delays_s, (attempt_s or 0.1) * int(rng.integers(1, 10)))
        exact = case.delivered()
        assert exact.error == EXACT
        chain = chains._Chain(*chain_of(case), case.delays_s)
        found = tree_simulation.mean_delivery(chains._played(chain), case.cutoff_s, 0.02)
        assert found is not None
        fidelity = chain.state(found.kept_xy, found.kept_z).fidelity
        off.append((1 / found.mean_s / exact.rate_hz - 1) / found.time_error)
        if found.fidelity_error > 1e-9:
            off.append((fidelity / exact.state.fidelity - 1) / found.fidelity_error)
    assert np.abs(off).max() < 4
    assert 0.8 < math.sqrt(np.mean(np.square(off))) < 1.25


def test_a_cutoff_over_chains_with_delays_is_no_faster_than_the_news() -> None:
    links, nodes = [Link(500.0, PURE, 1e-3)] * 3, [Node(Memory(0.1, 0.1))] * 4
    told = deliver(links, nodes, [0.05] * 3, 1000.0, standard_error=0.02)
    assert told.rate_hz < deliver(links, nodes, [0.05] * 3).rate_hz < 10
    assert told.state.fidelity < 0.35


def test_chains_that_seldom_meet_are_told_with_their_error() -> None:
    told = deliver([Link(1.0, PURE)] * 4, [Node()] * 5, [], 0.1)
    fine = deliver([Link(1.0, PURE, 1e-3)] * 4, [Node()] * 5, [], 0.1)
    assert "standard error" in told.error
    assert told.rate_hz == pytest.approx(fine.rate_hz, rel=0.02)


@pytest.mark.parametrize(
    ("attempt_s", "success", "cutoff_s"), [(0.0, 1e-200, 3.0), (1.0, 1e-200, 3.0), (1e-3, 1e-6, 3.0), (0.0, 1.0, 1e-9)]
)
def test_cutoffs_that_let_too_little_through_are_refused_by_name(attempt_s: float, success: float, cutoff_s: float) -> None:
    rate_hz = min(1.0, 1e-7 / attempt_s) if attempt_s else 1.0
    with pytest.raises(TooRare, match=r"^(cutoff_s and )?swap_success must "):
        deliver([Link(rate_hz, PURE, attempt_s)] * 3, [Node(swap_success=success)] * 4, [], cutoff_s)


# --- slotted chains ---


@pytest.mark.parametrize("links", range(1, 9))
def test_certain_swaps_wait_for_the_last_link(links: int) -> None:
    delivery = deliver([Link(0.1, PURE, 1.0)] * links, [Node()] * (links + 1))
    assert 1 / delivery.rate_hz == pytest.approx(attempts_until_all(links, 0.1), rel=1e-12)
    assert (delivery.state, delivery.error) == (PURE, EXACT)


def test_four_links_on_demand_and_eight() -> None:
    four, eight = (deliver([Link(0.1, PURE, 1.0)] * n, [Node()] * (n + 1)).rate_hz for n in (4, 8))
    assert four == pytest.approx(0.0493, abs=5e-5)
    assert 0.1 / eight == pytest.approx(2.63, abs=5e-3)


@pytest.mark.parametrize("success", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("p", [0.05, 0.5, 1.0])
def test_two_links_with_probabilistic_swaps(p: float, success: float) -> None:
    delivery = deliver([Link(p, PURE, 1.0)] * 2, [Node(), Node(swap_success=success), Node()])
    assert 1 / delivery.rate_hz == pytest.approx((3 - 2 * p) / (p * (2 - p) * success), rel=1e-12)


@pytest.mark.parametrize("links", range(1, 9))
def test_links_that_never_fail_leave_it_to_the_swaps(links: int) -> None:
    nodes = [Node(Memory(50.0, 30.0), 0.6)] * (links + 1)
    delivery = deliver([Link(1.0, PURE, 1.0)] * links, nodes)
    assert delivery.rate_hz == pytest.approx(0.6 ** (links - 1), rel=1e-9)
    assert delivery.state.fidelity == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("links", [5, 6, 7, 8])
def test_homogeneous_chains_of_many_links_agree_with_simulation(links: int) -> None:
    case = Case((0.5,) * links, (1.0,) * links, (0.8,) * (links - 1), (40.0,) * (links + 1), (30.0,) * (links + 1), (0.0,) * links)
    assert case.delivered().error == EXACT
    agree(case, 4_000, 0.0, seed=links)


# --- properties ---

states = st.tuples(*[st.floats(0.001, 1)] * 4).map(lambda w: BellDiagonal(*(each / sum(w) for each in w)))


@st.composite
def chains(draw: st.DrawFn, least: int = 1, most: int = 5) -> tuple[list[Link], list[Node], list[float]]:
    count = draw(st.integers(least, most))
    slot = draw(st.sampled_from([0.0, 0.001, 0.01]))
    links = [Link(draw(st.floats(1e-6, 100)), draw(states), slot * draw(st.sampled_from([1.0, 0.5]))) for _ in range(count)]
    nodes = []
    for _ in range(count + 1):
        t1 = draw(st.floats(1e-6, 1e6) | st.just(math.inf))
        nodes.append(Node(Memory(t1, min(t1 * 2, draw(times))), draw(st.floats(0.2, 1)), draw(st.floats(0.25, 1))))
    return links, nodes, draw(st.sampled_from([[], [1e-3] * count, [0.1 * k for k in range(count)]]))


def ideal(links: Sequence[Link], nodes: Sequence[Node]) -> BellDiagonal:
    state = links[0].state
    for link, node in zip(links[1:], nodes[1:], strict=False):
        state = swap(state, link.state, node.swap_fidelity)
    return state


def slack(*deliveries: Delivery, least: float) -> float:
    """How far apart, relatively, two evaluations of the same chain may be: five standard errors of what was simulated."""
    return 5 * math.sqrt(2) * STANDARD_ERROR if any("simulated" in each.method for each in deliveries) else least


@given(chains(), st.floats(1e-3, 1e3) | st.just(math.inf))
def test_what_is_delivered_is_a_state_at_a_rate(chain: tuple[list[Link], list[Node], list[float]], cutoff_s: float) -> None:
    links, nodes, delays = chain
    if len(links) > 2:
        cutoff_s = math.inf
    delivery = deliver(links, nodes, delays, cutoff_s)
    assert math.fsum(delivery.state.coefficients) == pytest.approx(1, abs=1e-12)
    assert 0 < delivery.rate_hz <= min(link.rate_hz for link in links) * (1 + slack(delivery, least=1e-9))
    assert all(math.isfinite(weight) for weight in delivery.state.coefficients)
    assert delivery.method and delivery.error


@given(chains())
def test_perfect_memories_deliver_what_swaps_make_of_the_pairs(chain: tuple[list[Link], list[Node], list[float]]) -> None:
    links, nodes, delays = chain
    nodes = [replace(node, memory=Memory()) for node in nodes]
    assert deliver(links, nodes, delays).state.coefficients == pytest.approx(ideal(links, nodes).coefficients, abs=1e-12)


@given(chains(), st.floats(1, 100))
def test_better_memories_never_harm(chain: tuple[list[Link], list[Node], list[float]], factor: float) -> None:
    links, nodes, delays = chain
    links = [replace(link, state=werner(0.9)) for link in links]
    better = [replace(node, memory=Memory(node.memory.t1_s * factor, node.memory.t2_s * factor)) for node in nodes]
    now, then = deliver(links, nodes, delays), deliver(links, better, delays)
    assert then.state.fidelity >= now.state.fidelity - slack(now, then, least=1e-9)
    assert then.rate_hz == pytest.approx(now.rate_hz, rel=slack(now, then, least=1e-12))


@given(chains(least=2), st.floats(0.05, 1))
def test_swaps_that_succeed_more_often_never_slow_down(chain: tuple[list[Link], list[Node], list[float]], success: float) -> None:
    links, nodes, _ = chain
    # the better station's success replaces that of one station
    low, high = sorted((nodes[1].swap_success, success))
    worse, better = (deliver(links, [nodes[0], replace(nodes[1], swap_success=q), *nodes[2:]]) for q in (low, high))
    assert worse.rate_hz <= better.rate_hz * (1 + slack(worse, better, least=1e-9))


@given(chains())
def test_a_chain_and_its_mirror_image_are_the_same(chain: tuple[list[Link], list[Node], list[float]]) -> None:
    links, nodes, delays = chain
    one, other = deliver(links, nodes, delays), deliver(links[::-1], nodes[::-1], delays[::-1])
    assert one.rate_hz == pytest.approx(other.rate_hz, rel=slack(one, other, least=1e-9))
    assert one.state.coefficients == pytest.approx(other.state.coefficients, abs=slack(one, other, least=1e-9))


@given(chains(), st.floats(1e-3, 1e3))
def test_the_unit_of_time_does_not_matter(chain: tuple[list[Link], list[Node], list[float]], factor: float) -> None:
    links, nodes, delays = chain
    slow_links = [replace(link, rate_hz=link.rate_hz / factor, attempt_s=link.attempt_s * factor) for link in links]
    slow_nodes = [replace(node, memory=Memory(node.memory.t1_s * factor, node.memory.t2_s * factor)) for node in nodes]
    one, other = deliver(links, nodes, delays), deliver(slow_links, slow_nodes, [delay * factor for delay in delays])
    assert other.rate_hz * factor == pytest.approx(one.rate_hz, rel=1e-9)
    assert other.state.coefficients == pytest.approx(one.state.coefficients, abs=1e-9)


@given(st.lists(rates, min_size=1, max_size=8))
def test_short_attempts_approach_exponential_waiting(rates_hz: list[float]) -> None:
    nodes = [Node(Memory(5.0, 5.0))] * (len(rates_hz) + 1)
    short = deliver([Link(rate, PURE, 1e-8) for rate in rates_hz], nodes)
    none = deliver([Link(rate, PURE) for rate in rates_hz], nodes)
    assert short.rate_hz == pytest.approx(none.rate_hz, rel=1e-5)
    assert short.state.fidelity == pytest.approx(none.state.fidelity, rel=1e-5)


def test_one_link_delivers_what_it_makes() -> None:
    delivery = deliver([Link(7.0, werner(0.9), 0.1)], [Node(Memory(1.0, 1.0))] * 2, [5.0], 1.0)
    assert delivery.rate_hz == pytest.approx(7.0)
    assert delivery.state.coefficients == pytest.approx(werner(0.9).coefficients)


# --- refusals ---


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("links", lambda: deliver([], [Node()])),
        ("nodes", lambda: deliver([Link(1.0, PURE)], [Node()])),
        ("delays_s", lambda: deliver([Link(1.0, PURE)], [Node()] * 2, [0.0, 0.0])),
        ("delays_s", lambda: deliver([Link(1.0, PURE)], [Node()] * 2, [-1.0])),
        ("delays_s", lambda: deliver([Link(1.0, PURE)], [Node()] * 2, [math.nan])),
        ("cutoff_s", lambda: deliver([Link(1.0, PURE)] * 2, [Node()] * 3, [], 0.0)),
        ("cutoff_s", lambda: deliver([Link(1.0, PURE)] * 2, [Node()] * 3, [], math.nan)),
        ("rate_hz", lambda: Link(0.0, PURE)),
        ("rate_hz", lambda: Link(math.nan, PURE)),
        ("rate_hz", lambda: Link(math.inf, PURE)),
        ("attempt_s", lambda: Link(1.0, PURE, -1.0)),
        (r"rate_hz \* attempt_s", lambda: Link(10.0, PURE, 1.0)),
        ("swap_success", lambda: Node(swap_success=0.0)),
        ("swap_success", lambda: Node(swap_success=1.1)),
        ("swap_fidelity", lambda: Node(swap_fidelity=0.2)),
        ("swap_fidelity", lambda: Node(swap_fidelity=math.nan)),
    ],
)
def test_what_is_wrong_is_named(name: str, call: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must "):
        call()
