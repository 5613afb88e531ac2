from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from controller.services.ledger import Entry, Ledger

MOMENTS = st.sampled_from([-math.inf, 0.0, 1.0, 2.0, 3.0, 4.0, math.inf])
INTERVALS = st.tuples(MOMENTS, MOMENTS).filter(lambda pair: pair[0] < pair[1])
ENTRIES = st.builds(
    lambda amounts, interval: Entry(amounts, *interval),
    st.dictionaries(st.sampled_from(["port:o:1", "key:a", "key:b"]), st.integers(0, 5).map(float)),
    INTERVALS,
)
LEDGERS = st.builds(Ledger, st.dictionaries(st.sampled_from("vwxyz"), ENTRIES), st.integers(0, 9))
WITHIN = [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0]
"""A moment in, and at the start of, every interval that these entries can tell apart."""


def brute(ledger: Ledger, start_s: float, end_s: float) -> dict[str, float]:
    most: dict[str, float] = {}
    for moment in (moment for moment in WITHIN if start_s <= moment < end_s):
        now: dict[str, float] = {}
        for entry in ledger.entries.values():
            if entry.start_s <= moment < entry.end_s:
                now |= {resource: now.get(resource, 0.0) + amount for resource, amount in entry.amounts.items()}
        most = {resource: max(most.get(resource, 0.0), now.get(resource, 0.0)) for resource in most | now}
    return most


@given(LEDGERS, INTERVALS)
def test_the_peak_is_what_counting_moment_by_moment_finds(ledger: Ledger, interval: tuple[float, float]) -> None:
    assert ledger.reserved(*interval) == brute(ledger, *interval)


@given(LEDGERS, INTERVALS)
def test_what_holds_during_an_interval_peaks_as_the_whole_does_within_it(ledger: Ledger, interval: tuple[float, float]) -> None:
    assert ledger.during(*interval).reserved() == ledger.reserved(*interval)
    assert ledger.during(*interval).revision == ledger.revision


@given(LEDGERS, ENTRIES)
def test_an_entry_replaces_what_a_service_had_and_without_takes_it_out(ledger: Ledger, entry: Entry) -> None:
    added = ledger.with_entry("x", entry)
    assert added.entries["x"] == entry
    assert added.without(["x"]).entries == ledger.without(["x"]).entries
    assert brute(added, -math.inf, math.inf) == added.reserved()


def test_nothing_is_promised_of_an_empty_ledger() -> None:
    assert Ledger().reserved() == {}


@given(st.lists(st.tuples(st.sampled_from("vwxyz"), st.none() | ENTRIES), max_size=12), INTERVALS)
def test_a_ledger_that_is_kept_is_as_one_made_anew(changes: list[tuple[str, Entry | None]], interval: tuple[float, float]) -> None:
    kept, copy, since, model = Ledger(), Ledger(), -1, dict[str, Entry]()
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
            holding = {name: each for name, each in ledger.entries.items() if any(resource[:5] == "port:" for resource in each.amounts)}
            assert ledger.holding("port") == holding
        if step % 3 == 0:
            for name, changed in kept.changed_since(since).items():
                copy.put(name, changed)
            since = kept.revision
            assert (copy.entries, copy.reserved()) == (kept.entries, kept.reserved())


def test_sums_do_not_depend_on_what_came_and_went() -> None:
    ledger = Ledger({"a": Entry({"key:l": 0.1})})
    for name, amount in (("b", 0.2), ("c", 1e16), ("d", 0.3)):
        ledger.put(name, Entry({"key:l": amount}))
    for name in ("c", "b", "d"):
        ledger.put(name, None)
    assert ledger.reserved() == {"key:l": 0.1}
