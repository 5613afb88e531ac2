"""Liveness and what it comes to, against a model that remembers everything and recomputes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.southbound.discovery.links import Change, Links, Pair
from controller.southbound.discovery.liveness import Liveness, Timing, fallen, heard, missed

TIMING = Timing(up_hellos=2, dead_multiplier=3)
A, B, C = ("s1", 1), ("s2", 1), ("s3", 1)
BOTH = {"s1", "s2", "s3"}


@given(st.lists(st.sampled_from([heard, missed]), max_size=200), st.integers(1, 5), st.integers(1, 6))
def test_liveness_is_what_its_last_hellos_say(steps: list[object], up_hellos: int, dead_multiplier: int) -> None:
    timing = Timing(up_hellos=up_hellos, dead_multiplier=dead_multiplier)
    state, arrived, up, falls = Liveness(), list[bool](), False, 0
    for step in steps:
        state = heard(state, timing) if step is heard else missed(state, timing)
        arrived.append(step is heard)
        asked = min(up_hellos * 2 ** max(0, falls - 1), 32)
        if not up and len(arrived) >= asked and all(arrived[-asked:]):
            up = True
        if up and len(arrived) >= dead_multiplier and not any(arrived[-dead_multiplier:]):
            up, falls = False, falls + 1
        if len(arrived) >= 60 and all(arrived[-60:]):
            falls = 0
        assert (state.up, state.falls) == (up, falls)


def test_a_link_that_flaps_has_to_prove_itself_longer_each_time() -> None:
    state, asked = Liveness(), []
    for _ in range(7):
        hellos = 0
        while not state.up:
            state, hellos = heard(state, TIMING), hellos + 1
        asked.append(hellos)
        state = fallen(state)
    assert asked == [2, 2, 4, 8, 16, 32, 32]
    for _ in range(60):
        state = heard(state, TIMING)
    assert state.falls == 0


def exchange(links: Links, *directions: tuple[Pair, bool], connected: set[str] = BOTH) -> list[Change]:
    """One interval: each origin sends once, each of its receivers hears it or not."""
    changes = []
    for origin in {origin: None for (origin, _), _ in directions}:
        nonce, found = links.leaves(origin, connected)
        changes += found
        for (near, far), arrives in directions:
            if near == origin and arrives:
                changes += links.arrives(near, far, nonce) or []
    return changes


def rounds(links: Links, count: int, *directions: tuple[Pair, bool], connected: set[str] = BOTH) -> list[Change]:
    return [change for _ in range(count) for change in exchange(links, *directions, connected=connected)]


THERE, BACK = ((A, B), True), ((B, A), True)
NOT_THERE, NOT_BACK = ((A, B), False), ((B, A), False)


def test_a_link_is_both_directions() -> None:
    links = Links(TIMING)
    assert rounds(links, 1, THERE, BACK) == []
    assert rounds(links, 1, THERE, BACK) == [Change("link", (A, B), True)]
    assert rounds(links, 100, THERE, BACK) == []
    assert rounds(links, 3, NOT_THERE, NOT_BACK) == []
    assert rounds(links, 1, NOT_THERE, NOT_BACK) == [Change("link", (A, B), False)]
    assert links.links == links.one_way == set()


def test_one_direction_alone_is_reported_and_is_no_link() -> None:
    links = Links(TIMING)
    assert rounds(links, 4, THERE, NOT_BACK) == []
    assert rounds(links, 1, THERE, NOT_BACK) == [Change("one-way", (A, B), True)]
    assert rounds(links, 2, THERE, BACK) == [Change("link", (A, B), True), Change("one-way", (A, B), False)]
    assert rounds(links, 5, THERE, NOT_BACK) == [Change("link", (A, B), False), Change("one-way", (A, B), True)]


def test_a_port_that_goes_down_takes_its_link_with_it_at_once() -> None:
    links = Links(TIMING)
    rounds(links, 5, THERE, BACK)
    assert links.goes_down(B) == [Change("link", (A, B), False)]
    assert not links.joined(A) and not links.joined(B)
    assert rounds(links, 2, THERE, BACK) == [Change("link", (A, B), True)]


def test_hellos_that_were_never_sent_are_not_missed() -> None:
    """A controller that had no time, or lost its sessions, has learned nothing about the cable."""
    links = Links(TIMING)
    rounds(links, 5, THERE, BACK)
    links.pauses("s2")
    assert rounds(links, 50, NOT_THERE, connected={"s1", "s3"}) == []
    for _ in range(50):
        links.leaves(A, {"s1", "s2"})
        links.withdraws(A)
    assert links.links == {(A, B)}
    assert rounds(links, 3, THERE, BACK) == []
    assert rounds(links, 4, NOT_THERE, NOT_BACK) == [Change("link", (A, B), False)]


def test_a_hello_counts_once_and_only_while_it_is_new() -> None:
    links = Links(TIMING, first_nonce=2**64 - 2)
    first, _ = links.leaves(A, BOTH)
    assert links.arrives(A, B, first) == []
    assert links.arrives(A, B, first) is None
    second, _ = links.leaves(A, BOTH)
    assert links.arrives(A, B, second) is not None
    assert links.arrives(A, B, first) is None  # the older one, after the newer
    links.leaves(A, BOTH)
    assert links.arrives(A, C, first) is None  # too old, even where it has not been
    assert links.arrives(A, C, 12345) is None
    assert links.arrives(C, A, first) == []  # C has sent nothing: it is left aside
    assert not links.joined(C)


def test_a_switch_that_hears_itself_is_a_loop_and_no_link() -> None:
    links, other = Links(TIMING), ("s1", 2)
    assert rounds(links, 1, ((A, other), True)) == [Change("loop", (A, other), True)]
    assert rounds(links, 9, ((A, other), True)) == []
    assert rounds(links, 4, ((A, other), False)) == [Change("loop", (A, other), False)]
    assert rounds(links, 1, ((A, A), True)) == [Change("loop", (A, A), True)]
    assert links.links == set()


def test_ports_that_pretend_to_hear_do_not_fill_the_memory() -> None:
    links = Links(TIMING)
    nonce, _ = links.leaves(A, BOTH)
    heard_by = [links.arrives(A, ("s2", port), nonce) is not None for port in range(1000)]
    assert sum(heard_by) == 16


@settings(max_examples=60)
@given(st.data())
def test_what_is_found_is_what_lives_both_ways(data: st.DataObject) -> None:
    """Cables come, go, and break in one direction; switches leave and return. After enough quiet rounds the found links are the cables."""
    ports = [(switch, port) for switch in ("s1", "s2", "s3") for port in (1, 2)]
    links = Links(TIMING)
    told: dict[tuple[str, Pair], bool] = {}

    def note(changes: list[Change]) -> None:
        for change in changes:
            assert told.get((change.kind, change.pair), False) != change.found
            told[change.kind, change.pair] = change.found

    for _ in range(data.draw(st.integers(1, 4))):
        order = data.draw(st.permutations(ports))
        cables = {frozenset(order[2 * index : 2 * index + 2]) for index in range(data.draw(st.integers(0, 3)))}
        dead = {(a, b) for cable in cables for a in cable for b in cable if a != b and data.draw(st.booleans())}
        away = data.draw(st.sampled_from([set(), {"s1"}, {"s2", "s3"}]))
        for switch in away:
            links.pauses(switch)
        for connected, count in ((BOTH - away, data.draw(st.integers(0, 6))), (BOTH, 40)):
            for _ in range(count):
                for origin in ports:
                    if origin[0] not in connected:
                        continue
                    nonce, changes = links.leaves(origin, connected)
                    note(changes)
                    for cable in cables:
                        if origin in cable:
                            (receiver,) = cable - {origin}
                            if (origin, receiver) not in dead and receiver[0] in connected:
                                note(links.arrives(origin, receiver, nonce) or [])
        alive = {(a, b) for cable in cables for a in cable for b in cable if a != b and (a, b) not in dead}
        assert links.links == {(a, b) for a, b in alive if a < b and a[0] != b[0] and (b, a) in alive}
        assert links.one_way == {(a, b) for a, b in alive if a[0] != b[0] and (b, a) not in alive}
        assert links.loops == {(min(a, b), max(a, b)) for a, b in alive if a[0] == b[0]}
        assert {pair for (kind, pair), found in told.items() if kind == "link" and found} == links.links
        assert {end for end in ports if links.joined(end)} == {end for pair in alive for end in pair}
