"""The event loop of the controller: short turns however many connections are ready, and short passes of the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from time import thread_time

import pytest

from controller.telemetry import loop as module
from controller.telemetry.loop import ShortTurns

CONNECTIONS = 200


@pytest.fixture
def loop() -> Iterator[ShortTurns]:
    made, thresholds = ShortTurns(), gc.get_threshold()
    yield made
    made.close()
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def served(loop: ShortTurns, handle: Callable[[], None], messages: int) -> list[list[int]]:
    """Which of many connections, all ready with so many messages each, `handle` was called for in each turn of the loop."""
    turns: list[list[int]] = [[]]
    pairs = [socket.socketpair() for _ in range(CONNECTIONS)]
    left = CONNECTIONS * messages

    def read(number: int) -> None:
        nonlocal left
        pairs[number][0].recv(1)
        turns[-1].append(number)
        handle()
        left -= 1

    async def watch() -> None:
        while left:
            turns.append([])
            await asyncio.sleep(0)

    for number, (ours, theirs) in enumerate(pairs):
        theirs.send(b"." * messages)
        loop.add_reader(ours, read, number)
    loop.run_until_complete(asyncio.wait_for(watch(), 20))
    for ours, theirs in pairs:
        loop.remove_reader(ours)
        ours.close()
        theirs.close()
    return [turn for turn in turns if turn]


def test_of_many_ready_connections_a_turn_sees_to_some_and_each_has_its_own(loop: ShortTurns) -> None:
    turns = served(loop, lambda: None, messages=3)
    assert max(map(len, turns)) <= 64
    order = [number for turn in turns for number in turn]
    for number in range(CONNECTIONS):
        assert order.count(number) == 3
    first = order[:CONNECTIONS]
    assert sorted(first) == list(range(CONNECTIONS)), "nobody is served twice before everybody was once"


def test_when_each_takes_long_a_turn_sees_to_fewer(loop: ShortTurns) -> None:
    def work() -> None:
        until_s = thread_time() + 0.001
        while thread_time() < until_s:
            pass

    turns = served(loop, work, messages=1)
    settled = turns[8:]
    assert max(map(len, settled)) <= 16, "each took a millisecond, a turn is to take a few"
    assert len(turns[0]) > 16


def test_what_turns_took_is_counted_each_by_itself_and_without_what_was_waited_for(loop: ShortTurns) -> None:
    async def turns() -> None:
        until_s = thread_time() + 0.05
        while thread_time() < until_s:
            pass
        for _ in range(30):
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        time.sleep(0.2)  # noqa: ASYNC251 - as when others have the processor

    loop.run_until_complete(turns())
    assert 0.05 <= loop.turns_s.total < 0.15
    counts = dict(loop.turns_s.buckets())
    assert counts["+Inf"] - counts["0.02"] == 1


def test_connections_are_served_as_by_any_loop(loop: ShortTurns) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def ask(port: int, number: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        said = bytes([number % 256]) * 400_000  # more than the socket's buffers hold: writing waits, too
        writer.write(said)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer == said

    async def main() -> list[bool]:
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await asyncio.gather(*(ask(port, number) for number in range(20)))

    assert all(loop.run_until_complete(asyncio.wait_for(main(), 30)))


class Knot:
    """Garbage that only a collector finds."""

    def __init__(self) -> None:
        self.self = self


def test_the_collector_finds_new_garbage_and_puts_aside_what_survives(loop: ShortTurns) -> None:
    loop.collect_in_short_passes()
    assert gc.get_threshold()[2] > 1000, "the collector leaves the last generation alone"
    knots = [Knot() for _ in range(20_000)]
    kept, dropped = weakref.ref(knots[0]), weakref.ref(knots[1])
    knots[1:] = []
    frozen = gc.get_freeze_count()

    async def make() -> list[list[int]]:
        made = []
        for _ in range(20):
            made += [[number] for number in range(1000)]
            await asyncio.sleep(0)
        return made

    made = loop.run_until_complete(make())
    assert dropped() is None and kept() is knots[0]
    assert gc.get_freeze_count() - frozen > len(made) / 2
    assert len(gc.get_objects()) < 20_000, "what a pass looks through"


def test_garbage_that_was_put_aside_is_found_when_that_has_doubled(loop: ShortTurns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BETWEEN_S", 0.0)
    collector = module._Collector()
    knot = Knot()
    gone = weakref.ref(knot)
    collector.look_through()
    del knot
    collector.look_through()
    assert gone() is not None, "it was put aside alive, and that has not doubled"
    collector._aside = 1
    collector._next_s = math.inf
    collector.look_through()
    assert gone() is not None, "it was looked for not long ago"
    collector._next_s = 0.0
    collector.look_through()
    assert gone() is None
