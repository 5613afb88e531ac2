"""Chains with a fixed order of swaps, against sampling the protocol and against the chain of two links in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.physics import two_links
from controller.physics.bell_diagonal import BellDiagonal
from controller.physics.chains import EXACT, Link, Node, deliver
from controller.physics.generation import attempts_until_all, attempts_until_each
from controller.physics.memory import Memory
from controller.physics.swap_trees import Nested, Tree, balanced, distribution, mean_delivery

DIFFERENT = Nested((0.3, 0.1, 0.2, 0.4), (0.8, 0.6, 0.9), ((0.02, 0.03, 0.01, 0.05, 0.02),))


def delivered(chain: Nested, tree: Tree) -> tuple[float, list[float]]:
    found = mean_delivery(chain, tree)
    assert found is not None
    return found


def sampler(chain: Nested, seed: int) -> Callable[[Tree], tuple[int, float, int, int]]:
    """Draws (slots, what is kept, first link, last link) of one segment, round by round."""
    rng = np.random.default_rng(seed)

    def sample(tree: Tree) -> tuple[int, float, int, int]:
        if isinstance(tree, int):
            return int(rng.geometric(chain.arrivals[tree])), 1.0, tree, tree
        clock = 0
        while True:
            sides = [sample(side) for side in tree]
            early, late = sorted(sides, key=lambda side: side[0])
            wait = late[0] - early[0]
            if chain.cutoff_slots is not None and wait > chain.cutoff_slots:
                clock += early[0] + chain.cutoff_slots
                continue
            clock += late[0]
            if rng.random() < chain.success[sides[0][3]]:
                decay = chain.decays[0][early[2]] + chain.decays[0][early[3] + 1]
                return clock, early[1] * late[1] * math.exp(-decay * wait), sides[0][2], sides[1][3]

    return sample


@pytest.mark.parametrize("cutoff_slots", [None, 3, 20])
@pytest.mark.parametrize("tree", [((0, 1), (2, 3)), (((0, 1), 2), 3), (0, ((1, 2), 3))])
def test_trees_agree_with_sampling(tree: Tree, cutoff_slots: int | None) -> None:
    chain = Nested(DIFFERENT.arrivals, DIFFERENT.success, DIFFERENT.decays, cutoff_slots)
    sample = sampler(chain, 3)
    drawn = np.array([sample(tree)[:2] for _ in range(4_000)])
    slots, kept = delivered(chain, tree)
    errors = drawn.std(axis=0) / math.sqrt(len(drawn))
    assert slots == pytest.approx(drawn[:, 0].mean(), abs=4 * errors[0])
    assert kept[0] == pytest.approx(drawn[:, 1].mean(), abs=4 * errors[1])


@pytest.mark.parametrize("cutoff_slots", [None, 5])
def test_distributions_have_the_means_and_the_mass(cutoff_slots: int | None) -> None:
    chain = Nested(DIFFERENT.arrivals, DIFFERENT.success, DIFFERENT.decays, cutoff_slots)
    tree = balanced(0, 3)
    slots, kept = delivered(chain, tree)
    found = distribution(chain, tree, 2**12)
    assert found.beyond < 1e-7
    assert float(np.arange(2**12) @ found.waiting) == pytest.approx(slots, rel=1e-5)
    assert float(found.kept[0].sum()) == pytest.approx(kept[0], rel=1e-6)
    assert float(found.waiting.min()) >= 0 and found.waiting[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("links", range(1, 9))
def test_certain_swaps_wait_for_the_last_link(links: int) -> None:
    chain = Nested((0.1,) * links, (1.0,) * (links - 1), ((0.0,) * (links + 1),))
    slots, kept = delivered(chain, balanced(0, links - 1))
    assert slots == pytest.approx(attempts_until_all(links, 0.1), rel=1e-7)
    assert kept == pytest.approx([1.0], rel=1e-7)


@given(st.tuples(*[st.floats(0.02, 1)] * 3))
def test_the_order_of_certain_swaps_does_not_matter_to_time(arrivals: tuple[float, float, float]) -> None:
    chain = Nested(arrivals, (1.0, 1.0), ((0.0,) * 4,))
    for tree in (((0, 1), 2), (0, (1, 2))):
        assert delivered(chain, tree)[0] == pytest.approx(attempts_until_each(arrivals), rel=1e-7)


@given(st.floats(0.02, 1), st.floats(0.02, 1), st.floats(0.1, 1), st.integers(0, 60), st.tuples(*[st.floats(0, 0.5)] * 3))
def test_two_links_agree_with_the_closed_form(one: float, other: float, q: float, cutoff: int, decays: tuple[float, float, float]) -> None:
    slots, kept = delivered(Nested((one, other), (q,), (decays,), cutoff), (0, 1))
    mean_s, closed = two_links.mean_delivery((one, other), 1.0, float(cutoff), q, 0.0, (decays,))
    assert slots == pytest.approx(mean_s, rel=1e-7)
    assert kept == pytest.approx(closed, rel=1e-7)


@given(st.integers(1, 200), st.integers(1, 200))
def test_a_shorter_cutoff_never_speeds_a_chain_of_certain_swaps_up(one: int, other: int) -> None:
    short, long = sorted((one, other))
    three = [delivered(Nested((0.3, 0.2, 0.3), (1.0, 1.0), ((0.1,) * 4,), cutoff), ((0, 1), 2)) for cutoff in (short, long)]
    assert three[0][0] >= three[1][0] * (1 - 1e-9)
    assert three[0][1][0] >= three[1][1][0] - 1e-9


def test_deliver_uses_the_halving_tree_for_a_cutoff_over_more_links() -> None:
    links = [Link(0.1, BellDiagonal(1.0, 0.0, 0.0, 0.0), 1.0)] * 4
    nodes = [Node(Memory(50.0, 50.0), 0.8)] * 5
    delivery = deliver(links, nodes, [], 10.0)
    slots, kept = delivered(Nested((0.1,) * 4, (0.8,) * 3, ((0.02,) * 5,), 10), ((0, 1), (2, 3)))
    assert delivery.error == EXACT and "halving tree" in delivery.method
    assert 1 / delivery.rate_hz == pytest.approx(slots)
    assert delivery.state.fidelity == pytest.approx((1 + 3 * kept[0]) / 4)
    for other in (
        deliver([Link(0.1, links[0].state, 1e-6)] * 4, nodes, [], 10.0),
        deliver(links, nodes, [1.0] * 4, 10.0),
        deliver([*links[:3], Link(0.1, links[0].state, 0.5)], nodes, [], 10.0),
    ):
        assert "halving tree" in other.method and other.error.startswith("standard error")


@pytest.mark.parametrize(
    "chain",
    [
        Nested((0.01,) * 4, (0.001, 0.01, 0.001), ((0.0,) * 5,), 100),  # a try lasts too long
        Nested((1e-5,) * 3, (1.0,) * 2, ((0.0,) * 4,), 0),  # sides meet too rarely
    ],
)
def test_what_rounding_or_the_horizon_would_show_in_is_not_told_as_exact(chain: Nested) -> None:
    assert mean_delivery(chain, balanced(0, len(chain.arrivals) - 1)) is None


def test_a_cutoff_that_lets_nothing_through_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^cutoff_s is too short"):
        two_links.mean_delivery((1e-300, 1e-300), 0.0, 1e-300, 1.0, 0.0, ())
