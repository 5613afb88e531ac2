"""What every driver of an optical device keeps, on its emulated device over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from optical_twins import TWINS, Twin, driven, next_event

from controller.southbound.device import Changed, Connected, Diff, Disconnected, FlowRule, Item, Refused, Unreachable, diff

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=TWINS)
async def twin(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Twin]:
    twin = TWINS[request.param](tmp_path)
    await twin.start()
    yield twin
    await twin.close()


def to(add: tuple[Item, ...] = (), remove: tuple[Item, ...] = ()) -> Diff:
    return Diff("dev1", add, remove)


async def test_what_is_added_is_held_and_read_and_can_be_removed(twin: Twin) -> None:
    first, second, third = twin.items
    async with driven(twin) as (device, _):
        assert device.connected and device.capabilities == twin.capabilities
        assert (await device.read()).items == frozenset()
        await device.apply(to(add=(first, second)))
        await device.apply(to(add=(second, third)))  # what is there already is left out
        assert (await device.read()).items == twin.held() == {first, second, third}
        await device.apply(to(remove=(first, second)))
        await device.apply(to(remove=(first,)))
        assert (await device.read()).items == twin.held() == {third}


async def test_one_item_takes_the_place_of_another(twin: Twin) -> None:
    first, second, _ = twin.items
    async with driven(twin) as (device, _):
        await device.apply(to(add=(first, second)))
        await device.apply(to(add=(twin.moved,), remove=(first,)))
        assert (await device.read()).items == twin.held() == {twin.moved, second}
        await device.apply(to(add=(twin.clash,), remove=(second,)))  # which clashed with the first, gone by now
        assert twin.held() == {twin.moved, twin.clash}


async def test_what_is_foreign_is_reported_and_untouched(twin: Twin) -> None:
    foreign, second, third = twin.items
    async with driven(twin) as (device, events):
        await twin.change((foreign,))
        changed = await next_event(events)
        assert isinstance(changed, Changed) and changed.device == "dev1"
        needed = diff("dev1", (await device.read()).items, frozenset({second}), frozenset({third}))
        assert (needed.add, needed.remove, needed.foreign) == ((second,), (), (foreign,))
        await device.apply(needed)
        for taking_over in (twin.moved, twin.clash):
            with pytest.raises(Refused):
                await device.apply(to(add=(taking_over,)))
        await device.apply(to(remove=(twin.moved,)))  # of the foreign item's place, but not what is there
        assert twin.held() == {foreign, second}


async def test_only_changes_by_others_are_told(twin: Twin) -> None:
    first, second, third = twin.items
    async with driven(twin) as (device, events):
        await device.apply(to(add=(first,)))
        await device.apply(to(add=(second,), remove=(first,)))
        await twin.change((third,), (second,))
        assert isinstance(await next_event(events), Changed)
        assert (await device.read()).items == {third}
        await twin.close()
        assert isinstance(await next_event(events), Disconnected)


async def test_power_is_read_where_it_is_measured(twin: Twin) -> None:
    twin.light(3, -8.25)
    async with driven(twin) as (device, _):
        power_dbm = (await device.read()).power_dbm
        assert ("power" in device.capabilities) == bool(power_dbm)
        assert not power_dbm or (power_dbm[3], power_dbm[4], len(power_dbm)) == (-8.25, -60.0, 16)


async def test_check_tells_what_would_be_refused_and_changes_nothing(twin: Twin) -> None:
    first, second, third = twin.items
    async with driven(twin) as (device, _):
        await device.apply(to(add=(first,)))
        assert await device.check(to(add=(second, third), remove=(first,))) == []
        assert await device.check(to(add=(twin.clash,), remove=(first,))) == []
        (fault,) = await device.check(to(add=(second, twin.clash)))
        with pytest.raises(Refused) as refusal:
            await device.apply(to(add=(second, twin.clash)))
        assert refusal.value.what == fault and "9" in fault  # the port they both want
        assert twin.held() == {first}
        await device.apply(to(add=(second,)))  # nothing is left locked or half edited
        assert twin.held() == {first, second}


async def test_items_of_another_kind_are_refused(twin: Twin) -> None:
    async with driven(twin) as (device, _):
        for change in (to(add=(FlowRule(1, (), (), 0),)), to(remove=(FlowRule(1, (), (), 0),))):
            with pytest.raises(Refused, match="the change has a flow"):
                await device.apply(change)


async def test_a_refusal_names_what_and_is_as_whole_as_promised(twin: Twin) -> None:
    first, second, _ = twin.items
    async with driven(twin) as (device, _):
        await device.apply(to(add=(first,)))
        twin.misbehave("refuse")
        with pytest.raises(Refused, match=r"cannot do|out of order"):
            await device.apply(to(add=(second,), remove=(first,)))
        assert twin.held() == ({first} if "atomic" in device.capabilities else frozenset())
        assert (await device.read()).items == twin.held()
        await device.apply(to(add=(second,), remove=(first,)))
        assert twin.held() == {second}


async def test_a_lie_is_found_by_reading_back(twin: Twin) -> None:
    first, second, _ = twin.items
    async with driven(twin) as (device, _):
        await device.apply(to(add=(first,)))
        twin.misbehave("lie")
        with pytest.raises(Refused, match="it confirmed the change, yet read back"):
            await device.apply(to(add=(second,)))
        assert device.connected and twin.held() == {first}
        await device.apply(to(add=(second,)))
        assert twin.held() == {first, second}


async def test_a_device_that_hangs_is_unreachable_and_found_again(twin: Twin) -> None:
    async with driven(twin, timeout_s=1.0) as (device, events):
        twin.misbehave("hang")
        with pytest.raises(Unreachable, match="within 1 s"):
            await device.apply(to(add=twin.items))
        assert not device.connected
        lost = await next_event(events)
        assert isinstance(lost, Disconnected) and "within 1 s" in lost.reason
        assert await next_event(events) == Connected("dev1")
        assert (await device.read()).items == frozenset()
        await device.apply(to(add=twin.items))
        assert twin.held() == set(twin.items)


@pytest.mark.parametrize(("does", "done"), [("drop", False), ("drop-after", True)])
async def test_a_session_lost_at_the_commit_leaves_all_or_nothing_and_no_lock(twin: Twin, does: str, done: bool) -> None:
    first, second, third = twin.items
    async with driven(twin) as (device, events):
        await device.apply(to(add=(first,)))
        twin.misbehave("drop" if does == "drop" else "drop-after")
        with pytest.raises(Unreachable):
            await device.apply(to(add=(second, third)))
        assert isinstance(await next_event(events), Disconnected)
        with pytest.raises(Unreachable):
            await device.read()
        assert await next_event(events) == Connected("dev1")
        assert (await device.read()).items == twin.held() == ({first, second, third} if done else {first})
        await device.apply(to(add=(second, third)))
        assert twin.held() == {first, second, third}


async def test_a_device_that_comes_back_with_other_items_is_read_again(twin: Twin) -> None:
    first, second, third = twin.items
    async with driven(twin) as (device, events):
        await device.apply(to(add=(first, second)))
        await twin.close()
        assert isinstance(await next_event(events), Disconnected)
        with pytest.raises(Unreachable):
            await device.apply(to(add=(third,)))
        await twin.start()
        await twin.change((third,), (second,))  # before or after the driver is back: it is told of, or read
        while await next_event(events) != Connected("dev1"):
            pass
        assert (await device.read()).items == twin.held() == {first, third}
