from __future__ import annotations

import asyncio

from controller.telemetry.events import EventLog


async def test_a_reader_gets_kept_events_then_new_ones_in_order_and_once() -> None:
    log = EventLog()
    for number in range(3):
        log.publish("kept", number=number)
    seen: list[tuple[int, str]] = []

    async def read() -> None:
        async for event in log.follow(1):
            seen.append((event.number, event.kind))
            if event.number == 5:
                return
            if event.number == 3:
                log.publish("from within the reader")

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    assert seen == [(2, "kept"), (3, "kept"), (4, "from within the reader")]
    log.publish("new")
    await asyncio.wait_for(reader, 1)
    assert seen == [(2, "kept"), (3, "kept"), (4, "from within the reader"), (5, "new")]


async def test_many_readers_each_get_everything() -> None:
    log = EventLog()

    async def first(count: int) -> list[int]:
        numbers: list[int] = []
        async for event in log.follow(0):
            numbers.append(event.number)
            if len(numbers) == count:
                break
        return numbers

    readers = [asyncio.create_task(first(20)) for _ in range(5)]
    for number in range(20):
        log.publish("tick")
        if number % 3 == 0:
            await asyncio.sleep(0)
    assert await asyncio.wait_for(asyncio.gather(*readers), 1) == [list(range(1, 21))] * 5


def test_only_the_last_are_kept_and_a_late_reader_sees_the_gap() -> None:
    log = EventLog(size=4)
    for _ in range(10):
        log.publish("tick")
    assert [event.number for event in log.after(2)] == [7, 8, 9, 10]
    assert log.after(10) == []


async def test_a_number_from_before_a_restart_starts_from_the_beginning() -> None:
    log = EventLog()
    log.publish("controller.started")
    events = log.follow(4711)
    first = await asyncio.wait_for(anext(events), 1)
    assert (first.number, first.kind) == (1, "controller.started")
