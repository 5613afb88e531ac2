"""What somebody else changes is repaired when it has stayed for the verdict's delay, and what we change ourselves at once."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

from controller.services.desired import Book
from controller.services.deviations import Deviations
from controller.services.reconciler import Reconciler
from controller.southbound.device import Diff, Item
from controller.store.sqlite import Store
from tests.unit.services.scripted import ScriptedDevice, delivered, foreign_rule, rule

KEPT, GONE, NEW, STRAY = (rule("s", number) for number in range(4))


def test_only_what_is_due_is_left_of_a_difference() -> None:
    deviations = Deviations()
    found = Diff("A", add=(GONE, NEW), remove=(STRAY, KEPT), foreign=(foreign_rule(9),))
    deviations.note(found, held={GONE}, leaving={KEPT}, now_s=10.0)
    assert deviations.due(found, 10.0, 2.0) == replace(found, add=(NEW,), remove=(KEPT,))
    assert deviations.next_s(10.0, 2.0) == 12.0
    deviations.note(found, held=(), leaving={KEPT}, now_s=11.0)
    assert deviations.due(found, 11.9, 2.0).add == (NEW,), "noted first at 10"
    assert deviations.due(found, 12.0, 2.0) == found
    assert deviations.next_s(12.0, 2.0) == math.inf


def test_what_came_back_deviates_anew_when_it_goes_again() -> None:
    deviations = Deviations()
    gone = Diff("A", add=(GONE,))
    deviations.note(gone, {GONE}, (), 10.0)
    deviations.note(Diff("A"), (), (), 11.0)
    deviations.note(gone, {GONE}, (), 12.0)
    assert deviations.due(gone, 13.0, 2.0) == Diff("A")
    assert deviations.next_s(13.0, 2.0) == 14.0
    deviations.forget()
    assert deviations.due(gone, 13.0, 2.0) == gone
    assert deviations.next_s(13.0, 2.0) == math.inf


class Bench:
    def __init__(self, store: Store, verdict_s: float, *standing: Item) -> None:
        self.device = ScriptedDevice("A")
        self.book = Book(store, {"A": standing})
        self.reconciler = Reconciler({"A": self.device}, self.book, self.settled, verdict_s=verdict_s)

    async def settled(self, *round: object) -> None:
        pass

    def want(self, *items: object) -> None:
        self.reconciler.mark(self.book.commit([delivered("s", {"A": items})]))  # type: ignore[dict-item]

    async def look(self) -> None:
        """One more round has passed."""
        rounds = self.reconciler.rounds
        self.reconciler.mark(["A"])
        async with asyncio.timeout(5):
            while self.reconciler.rounds < rounds + 2:
                self.reconciler.mark(["A"])
                await asyncio.sleep(0.001)

    async def holds(self, *items: object) -> None:
        """The device is read to hold these."""
        view = self.reconciler.views["A"]
        async with asyncio.timeout(5):
            while self.device.items != set(items) or view.state is None or view.state.items != set(items):  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.001)


async def test_a_change_on_its_way_is_not_repaired_and_our_own_are_made_at_once(store: Store) -> None:
    bench = Bench(store, verdict_s=1000.0)
    running = asyncio.create_task(bench.reconciler.run())
    bench.want(KEPT, GONE)
    await bench.holds(KEPT, GONE)
    bench.device.items -= {GONE}
    bench.device.items |= {STRAY, foreign_rule(9)}
    await bench.look()
    assert bench.device.items == {KEPT, STRAY, foreign_rule(9)}
    bench.want(GONE, NEW)
    await bench.holds(NEW, STRAY, foreign_rule(9))
    applies = bench.device.calls.count("apply")
    bench.device.items = {GONE, NEW, foreign_rule(9)}
    await bench.look()
    assert bench.device.calls.count("apply") == applies, "it came right by itself"
    bench.device.items = {foreign_rule(9)}
    await bench.look()
    assert bench.device.items == {foreign_rule(9)}
    bench.reconciler.renew("A")
    await bench.holds(GONE, NEW, foreign_rule(9))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_deviation_that_stays_is_repaired_without_another_cause(store: Store) -> None:
    bench = Bench(store, verdict_s=0.05)
    running = asyncio.create_task(bench.reconciler.run())
    bench.want(KEPT, GONE)
    await bench.holds(KEPT, GONE)
    await bench.look()
    bench.device.items = {KEPT, STRAY, foreign_rule(9)}
    await bench.look()
    await bench.holds(KEPT, GONE, foreign_rule(9))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_stands_whatever_services_want_is_put_back_at_once(store: Store) -> None:
    hello = rule("discovery", 9)
    bench = Bench(store, 1000.0, hello)
    running = asyncio.create_task(bench.reconciler.run())
    bench.want(KEPT)
    await bench.holds(KEPT, hello)
    bench.device.items = set()
    bench.reconciler.mark(["A"])
    await bench.holds(hello)
    bench.device.items = {replace(hello, actions=())}
    bench.reconciler.mark(["A"])
    await bench.holds(hello)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_plan_that_changes_back_while_it_is_made_is_made_at_once(store: Store) -> None:
    """What the device held before was taken from it by us."""
    bench = Bench(store, verdict_s=1000.0)
    running = asyncio.create_task(bench.reconciler.run())
    bench.want(KEPT)
    await bench.holds(KEPT)
    other, made = replace(KEPT, actions=()), []

    def back(diff: Diff) -> None:
        made.append(diff.add)
        if other in diff.add:
            bench.want(KEPT)

    bench.device.before_apply = back
    bench.want(other)
    async with asyncio.timeout(5):
        while len(made) < 2:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)
    await bench.holds(KEPT)
    assert made == [(other,), (KEPT,)]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_deviation_that_is_found_when_a_change_is_read_back_is_repaired_without_another_cause(store: Store) -> None:
    bench = Bench(store, verdict_s=0.05)
    running = asyncio.create_task(bench.reconciler.run())
    bench.want(KEPT)
    await bench.holds(KEPT)

    def undo(diff: Diff) -> None:
        bench.device.items -= {KEPT}

    bench.device.before_apply = undo
    bench.want(KEPT, NEW)
    await bench.holds(NEW)
    bench.device.before_apply = lambda diff: None
    await bench.holds(KEPT, NEW)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
