"""The driver makes of a switch what is desired, whatever it held, whoever changed it meanwhile, and wherever a change broke off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.southbound.device import (
    CONTROLLER_METER,
    GROUP_NUMBERS,
    METER_BURST,
    METER_KBPS,
    METER_NUMBERS,
    METER_PKTPS,
    METER_STATS,
    Band,
    Bucket,
    Diff,
    FlowRule,
    Group,
    GroupType,
    Item,
    Meter,
    Refused,
    Unreachable,
    diff,
)
from controller.southbound.drivers.openflow_switch import OpenFlowSwitch
from controller.southbound.openflow.codec import encode
from controller.southbound.openflow.groups import GroupCommand, GroupDescRequest, GroupMod, MeterCommand, MeterConfigRequest, MeterMod
from controller.southbound.openflow.listener import OpenFlowListener
from controller.southbound.openflow.messages import SEND_FLOW_REMOVED, FlowCommand, FlowMod, FlowStatsRequest, Type
from topologies.emulation import openflow_switch as emulated
from topologies.emulation.openflow.errors import OpenFlowError
from topologies.emulation.openflow.pipeline import Pipeline
from topologies.emulation.openflow.statistics import Statistics

OURS = 0xBE11 << 48
PORTS = (1, 2, 3)
MAYBE = st.sampled_from([False, True])


def addition(item: Item, *, ours: bool = True) -> bytes:
    match item:
        case FlowRule():
            return encode(FlowMod(FlowCommand.ADD, item, flags=SEND_FLOW_REMOVED if ours else 0))
        case Group():
            return encode(GroupMod(GroupCommand.ADD, item))
        case Meter():
            return encode(MeterMod(MeterCommand.ADD, item))
    raise AssertionError(item)


def by_need(items: Iterable[Item]) -> list[Item]:
    """Meters, groups from the lowest number up, rules."""
    return sorted(items, key=lambda item: (["meter", "group", "flow"].index(item.kind), getattr(item, "number", 0)))


def held(pipeline: Pipeline) -> list[list[bytes]]:
    """All that a switch tells of its tables."""
    statistics = Statistics("s1", 1, pipeline)
    return [
        sorted(statistics.answer(encode(request), 0.0)[1]) for request in (FlowStatsRequest(), GroupDescRequest(), MeterConfigRequest())
    ]


def filled(pipeline: Pipeline, ours: Iterable[Item], foreign: Iterable[Item] = ()) -> Pipeline:
    for item in by_need(foreign):
        pipeline.apply(addition(item, ours=False))
    for item in by_need(ours):
        pipeline.apply(addition(item))
    return pipeline


@dataclass
class Bench:
    driver: OpenFlowSwitch
    switch: emulated.EmulatedSwitch

    @property
    def pipeline(self) -> Pipeline:
        return self.switch.pipeline

    async def connected(self) -> None:
        async with asyncio.timeout(10):
            while not self.driver._channel or self.driver._channel.closed_because:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.001)

    async def make(self, desired: frozenset[Item], absent: frozenset[Item] = frozenset()) -> Diff:
        """Read, compare, change: the difference that was made."""
        change = diff("s1", (await self.driver.read()).items, desired, absent)
        if not change.empty:
            await self.driver.apply(change)
        return change

    def break_off_after(self, changes: int) -> None:
        """The connection is lost when the switch has taken so many more changes."""
        taken, done = 0, self.pipeline.apply

        def apply(message: object, now_s: float = 0.0) -> object:
            nonlocal taken
            taken += 1
            if taken == changes and self.driver._channel:
                self.driver._channel.stop("broken off")
            return done(message, now_s)

        self.pipeline.apply = apply  # type: ignore[assignment, method-assign]


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with OpenFlowListener("127.0.0.1", 0) as listener, asyncio.TaskGroup() as tasks:
        both = Bench(
            OpenFlowSwitch("s1", 1, listener), emulated.EmulatedSwitch("s1", 1, [*PORTS], ("127.0.0.1", listener.port), clock=lambda: 0.0)
        )
        running = [tasks.create_task(both.driver.run()), tasks.create_task(both.switch.run())]
        await both.connected()
        yield both
        for task in running:
            task.cancel()


def numbers(first: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(first, first + 3), unique=True, max_size=3)


def outputs(draw: st.DrawFn, groups: list[int]) -> tuple[tuple[str, int | str], ...]:
    port = draw(st.sampled_from(PORTS))
    return (("group", draw(st.sampled_from(groups))),) if draw(MAYBE) and groups else (("output", port),)


@st.composite
def tables(draw: st.DrawFn, groups_from: int, meters_from: int, cookie: int, priorities: tuple[int, ...]) -> frozenset[Item]:
    """What one owner wants on a switch: nothing in it leads to what is not in it, and groups lead to lower numbers only."""
    items: set[Item] = set()
    meters = draw(numbers(meters_from))
    for number in meters:
        unit = draw(st.sampled_from([METER_KBPS, METER_PKTPS]))
        items.add(Meter(number, unit | METER_BURST | METER_STATS, (Band(draw(st.integers(1, 3)), 10),)))
    groups: list[int] = []
    for number in sorted(draw(numbers(groups_from))):
        if draw(MAYBE):
            buckets = tuple(Bucket((("output", port),), watch_port=port) for port in draw(st.permutations(PORTS))[:2])
            items.add(Group(number, GroupType.FAST_FAILOVER, buckets))
        else:
            items.add(Group(number, GroupType.INDIRECT, (Bucket(outputs(draw, groups)),)))
        groups.append(number)
    for priority in draw(st.lists(st.sampled_from(priorities), unique=True)):
        port = draw(st.sampled_from(PORTS))
        through = (("meter", draw(st.sampled_from(meters))),) if draw(MAYBE) and meters else ()
        items.add(FlowRule(priority, (("in_port", port),), outputs(draw, groups) + through, cookie | draw(st.integers(0, 1))))
    return frozenset(items)


@pytest.fixture(autouse=True, scope="module")
def soon_again() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emulated, "_FIRST_RETRY_S", 0.001)
        yield


OWN = tables(GROUP_NUMBERS.start, METER_NUMBERS.start, OURS, (1, 2, 3, 4))
FOREIGN = tables(1, 1, 7, (5, 6))


@given(FOREIGN, OWN, st.lists(st.tuples(OWN, st.integers(0, 8)), min_size=1, max_size=3), st.data())
def test_the_switch_holds_what_is_desired_and_what_is_foreign(
    foreign: frozenset[Item], before: frozenset[Item], steps: list[tuple[frozenset[Item], int]], data: st.DataObject
) -> None:
    async def run() -> None:
        async with bench() as net:
            filled(net.pipeline, before, foreign)
            for desired, breaks_after in steps:
                if breaks_after:
                    net.break_off_after(breaks_after)
                with suppress(Unreachable):
                    await net.make(desired)
                net.pipeline.__dict__.pop("apply", None)  # what broke it off
                for item in data.draw(st.frozensets(st.sampled_from(by_need(desired)))) if desired else ():
                    tamper(net.pipeline, item)
                await net.connected()
                await net.make(desired)
                assert held(net.pipeline) == held(filled(Pipeline(PORTS), desired, foreign))
                again = await net.make(desired)
                assert again.empty, "the second look finds nothing to do"
                assert frozenset(again.foreign) == foreign

    asyncio.run(run())


def tamper(pipeline: Pipeline, item: Item) -> None:
    """Somebody else's hand: an item is changed or taken away, and with it what uses it."""
    with suppress(OpenFlowError):  # it is gone already, or something leads to it
        match item:
            case FlowRule(priority=1 | 2):
                pipeline.apply(addition(replace(item, actions=(("output", 3),))))
            case FlowRule():
                pipeline.apply(encode(FlowMod(FlowCommand.DELETE_STRICT, item)))
            case Group():
                pipeline.apply(encode(GroupMod(GroupCommand.DELETE, item)))
            case Meter():
                pipeline.apply(encode(MeterMod(MeterCommand.MODIFY, replace(item, bands=(Band(9),)))))


GROUP = Group(
    GROUP_NUMBERS.start + 1, GroupType.FAST_FAILOVER, (Bucket((("output", 2),), watch_port=2), Bucket((("output", 3),), watch_port=3))
)
METER = Meter(METER_NUMBERS.start, METER_KBPS, (Band(100),))
RULE = FlowRule(3, (("in_port", 1),), (("group", GROUP.number), ("meter", METER.number)), OURS)
FRAME = bytes(60)


async def test_a_group_that_changes_is_changed_in_place_and_forwards_throughout() -> None:
    async with bench() as net:
        await net.make(frozenset({GROUP, METER, RULE}))
        changed = replace(GROUP, buckets=GROUP.buckets[::-1])
        out: list[list[tuple[int, bytes]]] = []
        apply = net.pipeline.apply

        def watched(message: object, now_s: float = 0.0) -> object:
            done = apply(message, now_s)
            out.append(net.pipeline.send(FRAME, 1))
            return done

        net.pipeline.apply = watched  # type: ignore[assignment, method-assign]
        await net.make(frozenset({changed, METER, RULE}))
        assert out == [[(3, FRAME)]], "one message, and the rule that uses the group stays"


async def test_new_rules_are_there_before_old_ones_go() -> None:
    async with bench() as net:
        await net.make(frozenset({GROUP, METER, RULE}))
        apply = net.pipeline.apply
        kinds: list[int] = []

        def watched(message: bytes, now_s: float = 0.0) -> object:
            done = apply(message, now_s)
            kinds.append(message[1])
            assert net.pipeline.send(FRAME, 1), "no frame is lost while the way changes"
            return done

        net.pipeline.apply = watched  # type: ignore[assignment, method-assign]
        other = replace(GROUP, number=GROUP.number + 1)
        await net.make(frozenset({other, FlowRule(4, (("in_port", 1),), (("group", other.number),), OURS)}))
        assert kinds == [Type.GROUP_MOD, Type.FLOW_MOD, Type.FLOW_MOD, Type.GROUP_MOD, Type.METER_MOD], "a group takes no rule along"
        assert [group.number for group in net.pipeline.groups] == [other.number]
        assert not net.pipeline.meters


async def test_a_switch_that_lost_its_groups_is_given_them_in_a_new_session() -> None:
    async with bench() as net:
        await net.make(frozenset({GROUP}))
        net.pipeline.groups.delete(GROUP.number)
        assert net.driver._channel
        net.driver._channel.stop("the test ends the session")
        await net.connected()
        await net.driver.apply(Diff("s1", add=(GROUP,)))
        assert held(net.pipeline) == held(filled(Pipeline(PORTS), {GROUP}))


async def test_the_controllers_meter_has_no_owner_but_the_one_who_remembers() -> None:
    async with bench() as net:
        limit = Meter(CONTROLLER_METER, METER_PKTPS, (Band(100),))
        net.pipeline.apply(addition(limit))
        assert (await net.make(frozenset())).foreign == (limit,)
        assert net.pipeline.meters
        wanted = replace(limit, bands=(Band(50),))
        with pytest.raises(Refused, match=r"meter 4294967294: a meter that is not Bellhop's has this number: remove that"):
            await net.make(frozenset({wanted}))
        await net.make(frozenset(), frozenset({limit}))
        await net.make(frozenset({wanted}))
        assert (await net.driver.read()).items == {wanted}


async def test_errors_name_the_item_and_the_others_stand() -> None:
    async with bench() as net:
        bad_group = Group(GROUP_NUMBERS.start, GroupType.INDIRECT, (Bucket((("output", 9),)),))
        bad_meter = replace(METER, number=METER.number + 1, flags=0)
        leads_nowhere = FlowRule(5, (), (("group", bad_group.number),), OURS)
        with pytest.raises(Refused) as caught:
            await net.driver.apply(Diff("s1", add=(leads_nowhere, bad_group, bad_meter, RULE, METER, GROUP)))
        assert caught.value.what.split("; ") == [
            f"meter {bad_meter.number}: METER_MOD_FAILED/BAD_FLAGS",
            f"group {bad_group.number}: BAD_ACTION/BAD_OUT_PORT",
            "table 0 priority 5 any: BAD_ACTION/BAD_OUT_GROUP",
        ]
        assert (await net.driver.read()).items == {RULE, METER, GROUP}


async def test_what_could_not_be_recognised_again_is_a_fault_before_it_is_sent() -> None:
    async with bench() as net:
        unheeded = replace(METER, bands=(Band(100, 10),))
        masked = Group(GROUP.number, GroupType.INDIRECT, (Bucket((("set_field:vlan_vid", "0x1000/0x1000"),)),))
        faults = await net.driver.check(Diff("s1", add=(unheeded, masked, METER, replace(METER, flags=METER_PKTPS))))
        assert [fault.partition(": ")[0] for fault in faults] == [f"meter {METER.number}", f"group {GROUP.number}", f"meter {METER.number}"]
        assert "METER_BURST to have bursts heeded" in faults[0]
        assert "not in canonical form; write buckets" in faults[1]
        assert "another meter of the same change has this number" in faults[2]
        assert (await net.driver.read()).items == frozenset()


async def test_what_a_strangers_rule_uses_is_not_deleted() -> None:
    async with bench() as net:
        await net.make(frozenset({GROUP}))
        stranger = FlowRule(9, (), (("group", GROUP.number),), 7)
        net.pipeline.apply(addition(stranger, ours=False))
        with pytest.raises(Refused, match=rf"group {GROUP.number}: table 0 priority 9 any, which is not Bellhop's, uses it"):
            await net.make(frozenset())
        assert (await net.driver.read()).items == {GROUP, stranger}


async def test_a_switch_without_groups_and_meters_takes_all_that_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Statistics.answer

    def without(self: Statistics, data: bytes, now_s: float) -> tuple[int, list[bytes]]:
        if data[9] in (6, 7, 9, 10):
            raise OpenFlowError(1, 2)
        return answer(self, data, now_s)

    monkeypatch.setattr(Statistics, "answer", without)
    plain = FlowRule(1, (), (("output", 2),), OURS)
    metered = FlowRule(2, (), (("output", 2), ("meter", METER.number)), OURS)
    async with bench() as net:
        with pytest.raises(Refused) as caught:
            await net.make(frozenset({plain, metered, RULE, METER, GROUP}))
        text = str(caught.value)
        assert text.count("needs groups, and the switch has none (BAD_REQUEST/BAD_MULTIPART)") + text.count("needs meters") == 4
        assert f"meter {METER.number}: it needs meters, and the switch has none (BAD_REQUEST/BAD_MULTIPART)" in text
        assert (await net.driver.read()).items == {plain}


async def test_the_last_reading_says_what_was_counted() -> None:
    async with bench() as net:
        assert net.driver.counters().traffic == {}
        await net.make(frozenset({GROUP, METER, RULE, FlowRule(2, (("in_port", 2),), (("output", 1),), OURS)}))
        net.pipeline.apply(addition(FlowRule(9, (("in_port", 3),), (), 7), ours=False))
        for port in (1, 1, 2, 3):
            net.switch.receive(port, FRAME)
        await net.driver.read()
        counters = net.driver.counters()
        assert counters.traffic == {OURS: (3, 180)}
        assert {port.port: (port.received_packets, port.sent_bytes) for port in counters.ports} == {1: (2, 60), 2: (1, 120), 3: (1, 0)}
        assert [(group.group, group.packets) for group in counters.groups] == [(GROUP.number, 2)]
        assert [(meter.meter, meter.bytes) for meter in counters.meters] == [(METER.number, 120)]


async def test_rules_read_before_are_not_decoded_again() -> None:
    async with bench() as net:
        rules = frozenset[Item](FlowRule(5, (("in_port", number),), (("output", 2),), OURS) for number in range(900))
        await net.make(rules)
        first = {item.key: item for item in (await net.driver.read()).items}
        second = (await net.driver.read()).items
        assert second == rules
        assert all(first[item.key] is item for item in second)
