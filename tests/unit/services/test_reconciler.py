from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from controller.services import device_view
from controller.services import reconciler as module
from controller.services.desired import Book
from controller.services.reconciler import Reconciler
from controller.southbound.device import (
    GROUP_NUMBERS,
    METER_NUMBERS,
    Bucket,
    CrossConnect,
    Diff,
    Group,
    Item,
    Meter,
    Refused,
    State,
    Unreachable,
)
from controller.store.sqlite import Store
from tests.unit.services.scripted import ScriptedDevice, delivered, foreign_rule, relay, rule


@dataclass
class Bench:
    """A reconciler on scripted devices, run round by round or as in the daemon; what is refused fails, as the desk would have it."""

    store: Store
    devices: Mapping[str, ScriptedDevice]
    observe: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    rounds: list[frozenset[str]] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)
    """Of the devices, when a round was last over."""
    book: Book = field(init=False)
    reconciler: Reconciler = field(init=False)

    def __post_init__(self) -> None:
        self.book = Book(self.store)
        self.reconciler = Reconciler(self.devices, self.book, self.settled, observe=self.observe)

    async def settled(self, read: frozenset[str], concerned: set[str], refused: Mapping[str, str]) -> None:
        self.rounds.append(read)
        self.refused |= refused
        self.troubles = {name: view.trouble for name, view in self.reconciler.views.items()}
        if refused:
            self.reconciler.mark(self.book.commit([self.book.services[name].moved("FAILED", why) for name, why in refused.items()]))

    def want(self, name: str, **items: tuple[Item, ...]) -> None:
        self.reconciler.mark(self.book.commit([delivered(name, dict(items))]))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.reconciler.mark(self.devices)
        task = asyncio.create_task(self.reconciler.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - the state of several parts is watched
                await asyncio.sleep(0.001)

    async def rounds_more(self, count: int = 2) -> None:
        wanted = self.reconciler.rounds + count
        for _ in range(count):
            self.reconciler.mark(self.devices)
            await self.until(lambda: self.reconciler.rounds > wanted - count)
            await asyncio.sleep(0.005)

    def settled_on_desired(self) -> bool:
        return all(
            device.items >= self.book.of(name).items()
            and device.items.isdisjoint(self.book.of(name).absent)
            and not self.book.of(name).absent
            for name, device in self.devices.items()
        )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(module, "RETRY_S", 0.005)
    return Bench(Store(tmp_path / "store.db"), {name: ScriptedDevice(name, foreign_rule(9)) for name in "ABC"})


async def test_drift_is_repaired_and_what_is_foreign_stays(bench: Bench) -> None:
    bench.want("s", A=(rule("s", 1), rule("s", 2)), B=(relay("s"),))
    async with bench.running():
        await bench.until(bench.settled_on_desired)
        bench.devices["A"].items -= {rule("s", 1)}
        bench.devices["A"].items |= {rule("unknown", 5), foreign_rule(3), CrossConnect(1, 2)}
        bench.reconciler.mark(["A"])
        await bench.until(lambda: rule("s", 1) in bench.devices["A"].items)
        await bench.until(lambda: rule("unknown", 5) not in bench.devices["A"].items)
    assert bench.devices["A"].items == {rule("s", 1), rule("s", 2), foreign_rule(3), foreign_rule(9), CrossConnect(1, 2)}


async def test_while_many_are_planned_a_round_serves_many(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_S", 30.0)
    async with bench.running():
        await bench.until(lambda: bool(bench.rounds))
        with bench.reconciler.gathering():
            bench.want("first", A=(rule("first", 1),))
            await bench.until(lambda: rule("first", 1) in bench.devices["A"].items)
            for number in range(2, 20):
                bench.want(f"s{number}", A=(rule(f"s{number}", number),))
                await asyncio.sleep(0.002)
            assert rule("s19", 19) not in bench.devices["A"].items
            rounds = bench.reconciler.rounds
        await bench.until(bench.settled_on_desired)
    assert bench.reconciler.rounds <= rounds + 2


async def test_a_service_is_not_half_programmed_while_one_of_its_devices_is_away(bench: Bench) -> None:
    bench.devices["B"].up = False
    bench.want("s", A=(rule("s", 1),), B=(rule("s", 2),))
    bench.want("other", A=(rule("other", 3),))
    bench.want("nowhere", A=(rule("nowhere", 4),), undriven=(rule("nowhere", 5),))
    async with bench.running():
        await bench.until(lambda: rule("other", 3) in bench.devices["A"].items)
        await bench.rounds_more()
        assert bench.devices["A"].items == {rule("other", 3), foreign_rule(9)}
        bench.devices["B"].up = True
        bench.reconciler.mark(["B"])
        await bench.until(lambda: rule("s", 1) in bench.devices["A"].items and rule("s", 2) in bench.devices["B"].items)
    assert rule("nowhere", 4) not in bench.devices["A"].items


async def test_what_a_silent_device_was_read_to_hold_does_not_stop_repairs_elsewhere(bench: Bench) -> None:
    bench.want("s", A=(rule("s", 1),), B=(rule("s", 2),))
    async with bench.running():
        await bench.until(bench.settled_on_desired)
        await bench.rounds_more()
        bench.devices["B"].up = False
        bench.devices["A"].items.clear()
        bench.reconciler.mark(["A"])
        await bench.until(lambda: rule("s", 1) in bench.devices["A"].items)


async def test_a_moved_service_keeps_its_old_rules_until_the_new_ones_can_be_put(bench: Bench) -> None:
    bench.want("s", A=(rule("s", 1),), B=(rule("s", 2), relay("s")))
    async with bench.running():
        await bench.until(bench.settled_on_desired)
        bench.devices["C"].up = False
        bench.want("s", A=(rule("s", 7),), C=(rule("s", 2),))
        await bench.rounds_more()
        assert rule("s", 1) in bench.devices["A"].items
        assert bench.devices["B"].items >= {rule("s", 2), relay("s")}
        bench.devices["C"].up = True
        bench.reconciler.mark(["C"])
        await bench.until(bench.settled_on_desired)
    assert rule("s", 1) not in bench.devices["A"].items
    assert rule("s", 2) not in bench.devices["B"].items


@pytest.mark.parametrize("validates", [True, False])
async def test_a_refusal_fails_its_service_everywhere_and_no_other(bench: Bench, *, validates: bool) -> None:
    bench.devices["B"].capabilities = frozenset({"validate"} if validates else ())
    bench.devices["B"].refuses = lambda item: item == rule("bad", 2)
    bench.want("bad", A=(rule("bad", 1, hop=1),), B=(rule("bad", 2, hop=1),), C=(rule("bad", 3),))
    bench.want("able", A=(rule("able", 4),), B=(rule("able", 5, hop=1),))
    async with bench.running():
        await bench.until(lambda: bench.settled_on_desired() and "bad" in bench.refused)
        await bench.rounds_more()
    assert bench.refused.keys() == {"bad"}
    assert bench.refused["bad"].startswith("B: ")
    assert "apply" not in bench.devices["C"].calls, "what comes after the refusal is not begun"
    assert bench.book.services["bad"].state == "FAILED"
    assert [device.items for device in bench.devices.values()] == [
        {rule("able", 4), foreign_rule(9)},
        {rule("able", 5), foreign_rule(9)},
        {foreign_rule(9)},
    ]


async def test_the_hands_of_others_are_not_overwritten(bench: Bench) -> None:
    bench.want("s", A=(rule("s", 9),), B=(rule("s", 1),))
    async with bench.running():
        await bench.until(lambda: "s" in bench.refused)
        await bench.rounds_more()
    assert "would replace what somebody else put there" in bench.refused["s"]
    assert bench.devices["A"].items == {foreign_rule(9)}
    assert bench.devices["B"].items == {foreign_rule(9)}


async def test_observing_reads_and_compares_and_writes_nothing(bench: Bench) -> None:
    bench.want("s", A=(rule("s", 1),))
    bench.want("gone", B=(CrossConnect(1, 2),))
    bench.book.commit([], ["gone"])
    watching = Bench(bench.store, bench.devices, observe=True)
    before = bench.store.revision
    async with watching.running():
        await watching.rounds_more(3)
    assert {call for device in bench.devices.values() for call in device.calls} == {"read"}
    assert watching.reconciler.views["A"].diff == Diff("A", add=(rule("s", 1),), foreign=(foreign_rule(9),))
    assert bench.store.revision == before
    assert bench.devices["A"].items == {foreign_rule(9)}


async def test_a_session_lost_between_check_and_apply_is_tried_again(bench: Bench) -> None:
    device = bench.devices["A"]
    device.capabilities = frozenset({"validate"})
    lost: list[int] = []

    def lose() -> None:
        if not lost:
            lost.append(1)
            device.up = False

    device.before_check = lose
    bench.want("s", A=(rule("s", 1, hop=1),), B=(rule("s", 2),))
    async with bench.running():
        await bench.until(lambda: bool(lost))
        await bench.rounds_more()
        assert bench.devices["B"].items == {foreign_rule(9)}, "the ingress is not turned over to a missing rule"
        device.up = True
        bench.reconciler.mark(["A"])
        await bench.until(bench.settled_on_desired)
    assert bench.refused == {}


@pytest.mark.parametrize("error", [Unreachable("A", "timed out"), ValueError("a bug of the driver")])
async def test_a_device_that_keeps_failing_stops_only_its_own_services(bench: Bench, error: Exception) -> None:
    def fail(diff: Diff) -> None:
        raise error

    bench.devices["A"].before_apply = fail
    bench.want("s", A=(rule("s", 1, hop=3),), B=(rule("s", 2),))
    bench.want("t", B=(rule("t", 3, hop=3),), C=(rule("t", 4),))
    async with bench.running():
        await bench.until(lambda: rule("t", 4) in bench.devices["C"].items)
        await bench.rounds_more()
        assert bench.devices["B"].items == {rule("t", 3), foreign_rule(9)}
        assert bench.refused == {}
        assert bench.troubles["A"] == (error.what if isinstance(error, Unreachable) else f"its driver failed: {error!r}")
        bench.devices["A"].before_apply = lambda diff: None
        await bench.until(bench.settled_on_desired)
        await bench.until(lambda: not bench.troubles["A"])


async def test_a_device_that_answers_never_does_not_stop_the_others_for_good(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_view, "CALL_S", 0.01)
    monkeypatch.setattr(bench.devices["A"], "read", asyncio.Event().wait)
    bench.want("t", B=(rule("t", 3),))
    async with bench.running():
        await bench.until(lambda: rule("t", 3) in bench.devices["B"].items)
    assert bench.reconciler.views["A"].trouble == "no answer within 0.01 s"


async def test_nobody_waits_long_for_a_device_that_is_silent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_view, "PATIENCE_S", 0.02)
    answered, device = asyncio.Event(), bench.devices["A"]
    read = device.read

    async def late() -> State:
        state = await read()
        await answered.wait()
        return state

    monkeypatch.setattr(device, "read", late)
    bench.want("s", A=(rule("s", 1, hop=1),), B=(rule("s", 2),))
    bench.want("t", B=(rule("t", 3),))
    async with bench.running():
        await bench.until(lambda: rule("t", 3) in bench.devices["B"].items)
        await bench.rounds_more()
        assert bench.troubles["A"] == "no answer for 0.02 s"
        assert bench.reconciler.views["A"].failures == 0, "it may only be slow"
        assert rule("s", 2) not in bench.devices["B"].items, "what needs the silent one is not half programmed"
        assert device.calls == ["read"], "nor is it asked anew before it has answered"
        answered.set()
        await bench.until(bench.settled_on_desired)
        await bench.until(lambda: not bench.troubles["A"])
    assert bench.refused == {}


async def test_a_device_that_is_always_slower_than_others_wait_is_programmed_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_view, "PATIENCE_S", 0.005)
    monkeypatch.setattr(module, "RETRY_S", 60.0)  # it is looked at again when it has answered, not when it is tried again
    device = bench.devices["A"]
    read, apply = device.read, device.apply

    async def slow_read() -> State:
        await asyncio.sleep(0.03)
        return await read()

    async def slow_apply(diff: Diff) -> None:
        await asyncio.sleep(0.03)
        await apply(diff)

    monkeypatch.setattr(device, "read", slow_read)
    monkeypatch.setattr(device, "apply", slow_apply)
    bench.want("s", A=(rule("s", 1, hop=1),), B=(rule("s", 2),))
    async with bench.running():
        await bench.until(bench.settled_on_desired)
        assert bench.reconciler.views["A"].applies == 1
        bench.want("s")
        await bench.until(bench.settled_on_desired)
        assert device.items == {foreign_rule(9)}
    assert bench.reconciler.views["A"].failures == 0


async def test_what_a_late_reading_found_is_not_believed_of_a_device_with_a_new_session(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_view, "PATIENCE_S", 0.01)
    view = bench.reconciler.views["A"]

    async def old() -> State:
        await asyncio.sleep(0.02)
        return State(frozenset({rule("old", 1)}))

    async def new() -> State:
        return State(frozenset({rule("new", 1)}))

    for renewed, believed in ((False, "old"), (True, "new")):
        view.renewed = renewed
        assert isinstance(await view.call(old), Unreachable)
        await asyncio.sleep(0.03)
        found = await view.read(new)
        assert isinstance(found, State) and found.items == {rule(believed, 1)}


async def test_a_call_that_nobody_waits_for_ends_with_the_reconciler(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_view, "PATIENCE_S", 0.01)
    ended: list[str] = []

    async def never() -> State:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("read")
        raise AssertionError

    monkeypatch.setattr(bench.devices["A"], "read", never)
    async with bench.running():
        await bench.until(lambda: bench.reconciler.views["A"].late)
        assert not ended
    assert ended == ["read"]


async def test_every_device_is_swept_although_one_is_marked_all_the_time(bench: Bench) -> None:
    bench.reconciler.sweep_s = 0.05
    async with bench.running():
        await bench.until(lambda: bool(bench.devices["B"].calls))
        bench.devices["B"].items |= {rule("leftover", 1)}
        async with asyncio.timeout(5):
            while rule("leftover", 1) in bench.devices["B"].items:
                bench.reconciler.mark(["A"])
                await asyncio.sleep(0.005)


async def test_a_group_stays_while_the_rule_that_uses_it_cannot_be_replaced(bench: Bench) -> None:
    meter = Meter(METER_NUMBERS.start, 1)
    inner, outer = (
        Group(number, 2, (Bucket(actions),))
        for number, actions in enumerate([(("output", 1),), (("group", GROUP_NUMBERS.start),)], GROUP_NUMBERS.start)
    )
    user = replace(rule("s", 1), actions=(("group", outer.number), ("meter", meter.number)))
    bench.want("s", A=(meter, inner, outer, user))
    async with bench.running():
        await bench.until(lambda: bench.devices["A"].items == {foreign_rule(9), meter, inner, outer, user})
        bench.devices["B"].up = False
        bench.want("s", A=(rule("s", 1),), B=(rule("s", 2),))
        await bench.rounds_more()
        assert bench.devices["A"].items == {foreign_rule(9), meter, inner, outer, user}
        bench.devices["B"].up = True
        bench.reconciler.mark(["B"])
        await bench.until(lambda: bench.devices["A"].items == {foreign_rule(9), rule("s", 1)})


async def test_a_refused_removal_is_tried_again_and_told(bench: Bench) -> None:
    def refuse(diff: Diff) -> None:
        if diff.remove:
            raise Refused("A", "locked by an operator")

    bench.want("s", A=(CrossConnect(1, 2),))
    async with bench.running():
        await bench.until(bench.settled_on_desired)
        bench.devices["A"].before_apply = refuse
        bench.reconciler.mark(bench.book.commit([], ["s"]))
        await bench.until(lambda: bench.reconciler.views["A"].failures > 2)
        assert CrossConnect(1, 2) in bench.book.of("A").absent
        bench.devices["A"].before_apply = lambda diff: None
        await bench.until(lambda: CrossConnect(1, 2) not in bench.devices["A"].items)
        await bench.until(bench.settled_on_desired)


async def test_a_reading_by_the_way_forgets_nothing_that_is_about_to_be_put_there(bench: Bench) -> None:
    """A removal while the change is under way: what is added then must still be known as Bellhop's to be taken off again."""
    bench.devices["A"].capabilities = frozenset({"validate"})
    removed: list[asyncio.Task[object]] = []

    def remove() -> None:
        if not removed and CrossConnect(1, 2) in bench.book.of("A").items():
            bench.reconciler.mark(bench.book.commit([], ["s"]))
            removed.append(asyncio.create_task(bench.reconciler.read(["A"])))

    bench.devices["A"].before_check = remove
    bench.want("s", A=(CrossConnect(1, 2),))
    async with bench.running():
        await bench.until(lambda: bool(removed) and removed[0].done())
        await bench.rounds_more(3)
    assert bench.devices["A"].items == {foreign_rule(9)}


async def test_devices_are_not_told_what_a_crash_could_lose(bench: Bench) -> None:
    disk = threading.Event()
    bench.store._writer.submit(disk.wait)
    bench.want("s", A=(rule("s", 1),))
    async with bench.running():
        await bench.until(lambda: bench.devices["A"].calls == ["read"])
        await asyncio.sleep(0.02)
        assert bench.devices["A"].calls == ["read"]
        disk.set()
        await bench.until(bench.settled_on_desired)


async def test_a_plan_that_changes_while_devices_are_compared_is_the_next_rounds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.want("s", A=(rule("s", 1),), B=(rule("s", 1),))

    class Between:
        """Changes the plan when A was compared, and B was not."""

        async def pause(self) -> None:
            if bench.reconciler.views["A"].diff is not None and bench.reconciler.views["B"].diff is None:
                bench.want("s", A=(rule("s", 2),), B=(rule("s", 2),))

    monkeypatch.setattr(module, "Turn", Between)
    diffs = await bench.reconciler.read(["A", "B"])
    assert {name: each.add for name, each in diffs.items()} == {"A": (rule("s", 1),), "B": (rule("s", 1),)}
    monkeypatch.undo()
    diffs = await bench.reconciler.read(["A", "B"])
    assert {name: each.add for name, each in diffs.items()} == {"A": (rule("s", 2),), "B": (rule("s", 2),)}


async def test_a_crash_at_every_call_to_a_device_ends_in_the_desired_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.005)

    async def story(folder: Path, crash_at: int) -> bool:
        """Whether it went through without reaching the crash."""
        store = Store(folder / "store.db")
        foreign: set[Item] = {foreign_rule(9), CrossConnect(5, 6)}
        devices = {name: ScriptedDevice(name, *foreign, validates=name == "A") for name in "ABC"}
        left = [crash_at]

        def count() -> None:
            left[0] -= 1
            if left[0] == 0:
                current[0].cancel()

        for device in devices.values():
            device.on_call = count
        steps: list[Callable[[Bench], None]] = [
            lambda bench: bench.want("s", A=(rule("s", 1, hop=1), CrossConnect(1, 2)), B=(rule("s", 2),)),
            lambda bench: bench.want("s", A=(CrossConnect(1, 3),), B=(rule("s", 2),), C=(rule("s", 1, hop=1), relay("s"))),
            lambda bench: bench.want("t", A=(CrossConnect(2, 4),), C=(relay("t"),)),
            lambda bench: bench.reconciler.mark(bench.book.commit([], ["s"])),
            lambda bench: None,
        ]
        current: list[asyncio.Task[None]] = []
        bench = Bench(store, devices)
        for step in steps:
            step(bench)
            while True:
                bench.reconciler.mark(devices)
                current[:] = [asyncio.create_task(bench.reconciler.run())]
                with suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        while not current[0].done() and not (bench.rounds and bench.settled_on_desired()):  # noqa: ASYNC110
                            await asyncio.sleep(0)
                crashed = current[0].done()
                current[0].cancel()
                with suppress(asyncio.CancelledError):
                    await current[0]
                if not crashed:
                    break
                bench = Bench(store, devices)
        assert {name: device.items - foreign for name, device in devices.items()} == {
            "A": {CrossConnect(2, 4)},
            "B": set(),
            "C": {relay("t")},
        }
        assert all(device.items >= foreign for device in devices.values())
        assert bench.refused == {}
        store.close()
        return left[0] > 0

    crash_at = 1
    while not await story(tmp_path / str(crash_at), crash_at):
        crash_at += 1
    assert crash_at > 20, "the story has many calls"
