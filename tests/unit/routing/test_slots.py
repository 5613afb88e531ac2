"""A slot's pairs for many requests over a network document: which links count, what is told of each path, why a request gets nothing."""

from __future__ import annotations

import itertools
import math

import pytest

from controller.network.model import Link, Node, Swap
from controller.network.topology import Topology
from controller.routing.refusal import NoRoute
from controller.routing.slots import Pair, Slot, slot

END, REPEATER = Node(kind="end-node"), Node(kind="repeater")


def entangled(a: str, b: str, rate_hz: float, name: str = "", via: str | None = None) -> Link:
    return Link(kind="entanglement", ends=(a, b), rate_hz=rate_hz, fidelity=0.9, id=name or f"{a}{b}", via=via)


def refusal(answer: Slot, index: int = 0) -> NoRoute:
    none = answer.refused[index]
    assert none is not None and answer.paths[index] == ()
    return none


@pytest.mark.parametrize("kind", ["source", "bell-station"])
def test_a_link_counts_only_while_what_is_in_its_middle_is_enabled(kind: str) -> None:
    for admin in ("enabled", "draining", "disabled"):
        middle = Node(kind=kind, admin=admin)  # type: ignore[arg-type]
        answer = slot(Topology("n", {"a": END, "b": END, "s": middle}, [entangled("a", "b", 1000, via="s")]), [Pair("a", "b")], 0.01)
        assert (answer.refused[0] is None) == (admin == "enabled")


def test_of_unequal_parallel_links_the_best_is_reserved_and_told() -> None:
    one = Node(kind="end-node", memories=1)
    links = [entangled("a", "b", 1e-6, "slow"), entangled("a", "b", 1e6, "fast")]
    (path,) = slot(Topology("n", {"a": one, "b": END}, links), [Pair("a", "b")], 0.01).paths[0]
    assert path.links == (("fast",),) and path.ebits == pytest.approx(1)
    detour = [*links, entangled("a", "r", 200), entangled("r", "b", 200)]
    (path,) = slot(Topology("n", {"a": one, "b": one, "r": REPEATER}, detour), [Pair("a", "b")], 0.01).paths[0]
    assert path.links == (("fast",),) and path.ebits == pytest.approx(1)


def test_the_pairs_told_are_those_of_the_links_reserved() -> None:
    """Over all outcomes of the links, for two requests that share an edge of three rates."""
    nodes = {"a": END, "b": END, "c": END, "r": Node(kind="repeater", swap=Swap(success=0.8))}
    rates = {"ar": 300.0, "br": 90.0, "x": 200.0, "y": 50.0, "z": 10.0, "w": 40.0}
    ends = {"ar": "ar", "br": "br", "x": "rc", "y": "rc", "z": "rc", "w": "ar"}
    topology = Topology("n", nodes, [entangled(*ends[name], rate, name) for name, rate in rates.items()])
    answer = slot(topology, [Pair("a", "c"), Pair("b", "c")], 0.01)
    taken = [link for paths in answer.paths for path in paths for hop in path.links for link in hop]
    assert len(set(taken)) == len(taken) and {"x", "y"} <= set(taken)
    for path in itertools.chain.from_iterable(answer.paths):
        names = [name for hop in path.links for name in hop]
        expected = 0.0
        for outcome in itertools.product((0, 1), repeat=len(names)):
            up = dict(zip(names, outcome, strict=True))
            chance = math.prod(1 - math.exp(-rates[name] * 0.01) if up[name] else math.exp(-rates[name] * 0.01) for name in names)
            expected += chance * min(sum(up[name] for name in hop) for hop in path.links)
        assert path.ebits == pytest.approx(expected * 0.8 ** (len(path.nodes) - 2))


def test_repeaters_of_different_swaps_are_chosen_by_them() -> None:
    """Also one that is disabled or on no path may have another swap success."""
    nodes = {
        "a": END,
        "b": END,
        "r": Node(kind="repeater", swap=Swap(success=0.5)),
        "t": Node(kind="repeater", swap=Swap(success=0.9)),
        "off": Node(kind="repeater", swap=Swap(success=0.1), admin="disabled"),
        "far": Node(kind="repeater", swap=Swap(success=0.2)),
    }
    one = {name: Node(kind="end-node", memories=1) for name in "ab"}
    links = [entangled(end, middle, 100) for middle in ("r", "t", "off") for end in "ab"]
    (path,) = slot(Topology("n", {**nodes, **one}, links), [Pair("a", "b")], 0.01).paths[0]
    assert path.nodes == ("a", "t", "b") and path.ebits == pytest.approx(0.9 * (1 - math.exp(-1)) ** 2)


def test_more_than_a_thousand_parallel_links() -> None:
    links = [entangled("a", "b", 100, f"l{number}") for number in range(1100)]
    answer = slot(Topology("n", {"a": END, "b": END}, links), [Pair("a", "b")], 0.01)
    assert answer.ebits == pytest.approx(1100 * (1 - math.exp(-1)))
    assert any("over l0, l1, l10, l100 and 1096 like it" in line for line in answer.explanation)


def test_who_took_the_channels_is_told_with_what_there_were_alone() -> None:
    topology = Topology("n", {"a": END, "b": END, "r": REPEATER}, [entangled("a", "r", 100), entangled("r", "b", 100)])
    none = refusal(slot(topology, [Pair("a", "b"), Pair("a", "r")], 0.01))
    assert none.constraint == "channels" and none.best == pytest.approx((1 - math.exp(-1)) ** 2)
    assert none.error == "others hold what it needs over a - r - b: 1 of 1 channels a - r taken by requests[1]"


def test_who_took_the_memories_is_told() -> None:
    nodes = {**dict.fromkeys("abcd", END), "r": Node(kind="repeater", memories=3)}
    topology = Topology("n", nodes, [entangled(end, "r", rate) for end, rate in zip("abcd", (100, 100, 50, 50), strict=True)])
    answer = slot(topology, [Pair("c", "d"), Pair("a", "b")], 0.01)
    none = refusal(answer)
    assert none.constraint == "memories" and none.best == pytest.approx((1 - math.exp(-0.5)) ** 2)
    assert none.error == "others hold what it needs over c - r - d: 2 of 3 memories of r taken by requests[1]"
    assert any("alone it would get 0.1548 pairs per slot" in line for line in answer.explanation)


def test_an_end_that_is_not_enabled_is_named() -> None:
    off = Node(kind="end-node", admin="disabled")
    none = refusal(slot(Topology("n", {"a": END, "b": off}, [entangled("a", "b", 100)]), [Pair("a", "b")], 0.01))
    assert (none.error, none.constraint, none.best) == ("b is disabled", "admin", None)


def test_a_repeater_of_too_few_memories_is_named() -> None:
    nodes = {"a": END, "b": END, "r": Node(kind="repeater", memories=1)}
    none = refusal(slot(Topology("n", nodes, [entangled("a", "r", 100), entangled("r", "b", 100)]), [Pair("a", "b")], 0.01))
    assert none.constraint == "memories" and none.best is None
    assert none.error == "a swap takes 2 memories, and every way from a to b lacks some: r has 1"


def test_no_path_at_all_is_no_contention() -> None:
    links = [entangled("a", "r", 100), entangled("r", "b", 0)]
    none = refusal(slot(Topology("n", {"a": END, "b": END, "r": REPEATER}, links), [Pair("a", "b")], 0.01))
    assert (none.constraint, none.best) == ("reachability", None)
    assert none.error == "no usable entanglement links join a and b over repeaters; 1 more make no pairs in the slot, rb for one"


def test_pairs_too_few_for_a_number_are_told_as_such() -> None:
    links = [entangled("a", "r", 1e-90), entangled("r", "t", 1e-90), entangled("t", "s", 1e-90), entangled("s", "b", 1e-90)]
    nodes = {"a": END, "b": END, **dict.fromkeys("rst", REPEATER)}
    none = refusal(slot(Topology("n", nodes, links), [Pair("a", "b")], 0.01))
    assert none.best == 0 and none.error == "the pairs expected between a and b are too few for a number"


def test_a_path_explains_its_hops_swaps_memories_and_what_binds() -> None:
    nodes = {"a": END, "b": END, "r": Node(kind="repeater", memories=4, swap=Swap(success=0.9), source="data sheet")}
    told = Link(kind="entanglement", ends=("r", "b"), rate_hz=50, fidelity=0.9, id="rb", source="[7]")
    answer = slot(Topology("n", nodes, [entangled("a", "r", 100, "x"), entangled("a", "r", 20, "y"), told]), [Pair("a", "b")], 0.01)
    assert answer.explanation == (
        "a slot of 0.01 s; 3 channels between 2 pairs of nodes",
        "a -- b: 0.2475 pairs per slot over a - r - b, channels 2-1",
        "  a: memories taken: 2, of how many is not given",
        "  a -> r: 100 Hz (assumed), a pair in the slot with probability 0.632121, over x",
        "  a -> r: 20 Hz (assumed), a pair in the slot with probability 0.181269, over y",
        "  r: swap succeeds with probability 0.9 (declared), memories taken: 3 of 4",
        "  r -> b: 50 Hz (declared, [7]), a pair in the slot with probability 0.393469, over rb",
        "  b: memories taken: 1, of how many is not given",
        "  binding: r -> b, 0.3935 links per slot on average; 1 of 1 channels b - r taken by requests[0]",
    )
