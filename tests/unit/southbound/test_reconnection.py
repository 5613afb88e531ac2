"""How a device's session is held: opened again with back-off, its end told once, its failures those of the driver protocol."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from controller.southbound.device import Connected, Disconnected, Refused, Unreachable
from controller.southbound.drivers.reconnection import Reconnection, host_and_port
from controller.southbound.session import ProtocolError, RefusedError, SessionError


class FakeSession:
    def __init__(self) -> None:
        self.lost: str | None = None
        self.ended = asyncio.Event()

    def end(self, reason: str) -> None:
        self.lost = self.lost or reason
        self.ended.set()


class Device:
    """Does one thing after another when it is connected to: an exception, or a session that `follow` treats as told."""

    def __init__(self, *attempts: str | Exception, max_s: float = 0.8) -> None:
        self.attempts = list(attempts)
        self.sessions: list[FakeSession] = []
        self.exhausted = asyncio.Event()
        self.link = Reconnection("d", self.open, self.follow, min_s=0.1, max_s=max_s)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[FakeSession]:
        if not self.attempts:
            self.exhausted.set()
            await asyncio.Event().wait()
        if isinstance(self.attempts[0], SessionError):
            raise self.attempts.pop(0)
        self.sessions.append(FakeSession())
        yield self.sessions[-1]

    async def follow(self, session: FakeSession) -> None:
        step = self.attempts.pop(0)
        if isinstance(step, Exception):
            raise step
        await self.link.opened(session)
        if step == "until ended":
            await session.ended.wait()
        else:
            if step == "long":
                time.sleep(0.6)  # noqa: ASYNC251 - the event loop's clock is what is meant to go on
            session.end(step)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The delays that were waited, in place of waiting them."""
    delays: list[float] = []
    sleep = asyncio.sleep

    async def note(delay: float) -> None:
        delays.append(delay)
        await sleep(0)

    monkeypatch.setattr("controller.southbound.drivers.reconnection.asyncio.sleep", note)
    monkeypatch.setattr("controller.southbound.drivers.reconnection.random.uniform", lambda low, high: 1.0)
    return delays


async def until(device: Device, event: asyncio.Event) -> None:
    task = asyncio.create_task(device.link.run())
    await asyncio.wait_for(event.wait(), 5)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_failure_is_told_once_and_tried_again_ever_later(slept: list[float]) -> None:
    no, other = SessionError("no route"), SessionError("wrong key")
    device = Device(no, no, no, no, other, "it broke", no)
    events = device.link.events()
    await until(device, device.exhausted)
    assert slept == [0.1, 0.2, 0.4, 0.8, 0.8, 0.8, 0.8]
    told = [await anext(events) for _ in range(5)]
    assert told == [
        Disconnected("d", "no route"),
        Disconnected("d", "wrong key"),
        Connected("d"),
        Disconnected("d", "it broke"),
        Disconnected("d", "no route"),
    ]
    assert (device.link.sessions_opened, device.link.sessions_lost) == (1, 1)


async def test_after_a_session_that_lasted_the_first_delay_is_short_again(slept: list[float]) -> None:
    no = SessionError("no route")
    device = Device(no, no, "short", "long", no, max_s=0.5)
    await until(device, device.exhausted)
    assert slept == [0.1, 0.2, 0.4, 0.1, 0.2]


@pytest.mark.parametrize("fault", [ProtocolError("nonsense"), RefusedError("not you")])
async def test_a_device_that_fails_its_greeting_is_no_session(slept: list[float], fault: Exception) -> None:
    device = Device(fault)
    events = device.link.events()
    await until(device, device.exhausted)
    assert await anext(events) == Disconnected("d", f"the device broke the protocol: {fault}")
    assert not device.link.connected and device.link.sessions_opened == 0


async def test_failures_of_operations_are_those_of_the_driver_protocol(slept: list[float]) -> None:
    device = Device("until ended")
    with pytest.raises(Unreachable, match="not connected yet"), device.link.session():
        pass
    events = device.link.events()
    task = asyncio.create_task(device.link.run())
    assert await anext(events) == Connected("d") and device.link.connected
    with pytest.raises(Refused, match="d: no"), device.link.session():
        raise RefusedError("no")
    assert device.link.connected, "a refusal costs no session"
    with pytest.raises(Unreachable, match=r"d: what\?"), device.link.session():
        raise ProtocolError("what?")
    assert not device.link.connected
    with pytest.raises(Unreachable, match="broke the protocol: what"), device.link.session():
        pass
    assert await anext(events) == Disconnected("d", "the device broke the protocol: what?")
    await asyncio.wait_for(device.exhausted.wait(), 5)
    with pytest.raises(Unreachable, match="broke the protocol: what"), device.link.session():
        pass
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("address", ["ocs1", "ocs1:", ":830", "ocs1:0", "ocs1:65536", "ocs1:ssh"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ValueError, match=r"d: the address .* is not host:port"):
        host_and_port("d", address)


def test_addresses() -> None:
    assert host_and_port("d", "ocs1:830") == ("ocs1", 830)
    assert host_and_port("d", "[::1]:5025") == ("::1", 5025)
