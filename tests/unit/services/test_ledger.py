from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from controller.services.ledger import Ledger, Reservation

MOMENTS = st.sampled_from([-math.inf, 0.0, 1.0, 2.0, 3.0, 4.0, math.inf])
INTERVALS = st.tuples(MOMENTS, MOMENTS).filter(lambda pair: pair[0] < pair[1])
RESERVATIONS = st.builds(
    lambda resource, amount, interval: Reservation(resource, float(amount), *interval),
    st.sampled_from(["port:o:1", "key:a", "key:b"]),
    st.integers(0, 5),
    INTERVALS,
)
LEDGERS = st.builds(Ledger, st.dictionaries(st.sampled_from("xyz"), st.lists(RESERVATIONS, max_size=5).map(tuple)), st.integers(0, 9))
WITHIN = [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0]
"""A moment in, and at the start of, every interval that these reservations can tell apart."""


def brute(ledger: Ledger, start_s: float, end_s: float) -> dict[str, float]:
    most: dict[str, float] = {}
    for moment in (moment for moment in WITHIN if start_s <= moment < end_s):
        now: dict[str, float] = {}
        for each in (each for entry in ledger.entries.values() for each in entry):
            if each.start_s <= moment < each.end_s:
                now[each.resource] = now.get(each.resource, 0.0) + each.amount
        most = {resource: max(most.get(resource, 0.0), now.get(resource, 0.0)) for resource in most | now}
    return most


@given(LEDGERS, INTERVALS)
def test_the_peak_is_what_counting_moment_by_moment_finds(ledger: Ledger, interval: tuple[float, float]) -> None:
    assert ledger.reserved(*interval) == brute(ledger, *interval)


@given(LEDGERS, INTERVALS)
def test_what_holds_during_an_interval_peaks_as_the_whole_does_within_it(ledger: Ledger, interval: tuple[float, float]) -> None:
    assert ledger.during(*interval).reserved() == ledger.reserved(*interval)
    assert ledger.during(*interval).revision == ledger.revision


@given(LEDGERS, st.lists(RESERVATIONS, max_size=3).map(tuple))
def test_an_entry_replaces_what_a_service_had_and_without_takes_it_out(ledger: Ledger, entry: tuple[Reservation, ...]) -> None:
    added = ledger.with_entry("x", entry)
    assert added.entries["x"] == entry
    assert added.without(["x"]).entries == ledger.without(["x"]).entries
    assert brute(added, -math.inf, math.inf) == added.reserved()


def test_nothing_is_promised_of_an_empty_ledger() -> None:
    assert Ledger().reserved() == {}


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.none() | st.lists(RESERVATIONS, max_size=4).map(tuple)), max_size=12), INTERVALS)
def test_a_ledger_that_is_kept_is_as_one_made_anew(
    changes: list[tuple[str, tuple[Reservation, ...] | None]], interval: tuple[float, float]
) -> None:
    kept, copy, since, model = Ledger(), Ledger(), -1, dict[str, tuple[Reservation, ...]]()
    for step, (service, entry) in enumerate(changes):
        assert kept.put(service, entry) == model.pop(service, None)
        if entry is not None:
            model[service] = entry
        anew = Ledger(model)
        assert kept.entries == model
        assert kept.reserved() == anew.reserved() == brute(anew, -math.inf, math.inf)
        assert kept.reserved(*interval) == anew.reserved(*interval)
        for ledger in (kept, kept.during(*interval)):
            of_keys = {resource.removeprefix("key:"): peak for resource, peak in ledger.reserved().items() if resource[:4] == "key:"}
            assert ledger.reserved_of("key") == of_keys
            holding = {name: each for name, each in ledger.entries.items() if any(one.resource[:5] == "port:" for one in each)}
            assert ledger.holding("port") == holding
        if step % 3 == 0:
            for name, changed in kept.changed_since(since).items():
                copy.put(name, changed)
            since = kept.revision
            assert (copy.entries, copy.reserved()) == (kept.entries, kept.reserved())


def test_sums_do_not_depend_on_what_came_and_went() -> None:
    ledger = Ledger({"a": (Reservation("key:l", 0.1),)})
    for name, amount in (("b", 0.2), ("c", 1e16), ("d", 0.3)):
        ledger.put(name, (Reservation("key:l", amount),))
    for name in ("c", "b", "d"):
        ledger.put(name, None)
    assert ledger.reserved() == {"key:l": 0.1}
