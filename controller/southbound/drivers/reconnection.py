"""One device's session, opened again with back-off whenever it is lost, and the device's events for one reader."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Generic, TypeVar

from controller.southbound.device import Connected, DeviceEvent, Disconnected, Refused, Unreachable
from controller.southbound.session import ProtocolError, RefusedError, Session, SessionError

S = TypeVar("S", bound=Session)
_MAX_WAITING_EVENTS = 10_000

log = logging.getLogger(__name__)


class Reconnection(Generic[S]):
    """Holds the session that `open_session` opens for as long as `follow` follows it.

    `follow` readies the session, says `opened`, and then emits what the device tells until the session is lost.
    """

    def __init__(
        self,
        name: str,
        open_session: Callable[[], AbstractAsyncContextManager[S]],
        follow: Callable[[S], Awaitable[None]],
        *,
        min_s: float,
        max_s: float,
    ) -> None:
        self.sessions_opened = 0
        self.sessions_lost = 0
        self._name = name
        self._open_session = open_session
        self._follow = follow
        self._min_s = min_s
        self._max_s = max_s
        self._session: S | None = None
        self._why_down = "not connected yet"
        self._events: asyncio.Queue[DeviceEvent] | None = None

    @property
    def connected(self) -> bool:
        return self._session is not None and self._session.lost is None

    def events(self) -> AsyncIterator[DeviceEvent]:
        self._events = asyncio.Queue(_MAX_WAITING_EVENTS)
        return drained(self._events)

    async def emit(self, event: DeviceEvent) -> None:
        if self._events is not None:
            await self._events.put(event)

    async def opened(self, session: S) -> None:
        """The session is ready for the driver's operations."""
        self._session = session
        self.sessions_opened += 1
        await self.emit(Connected(self._name))

    @contextmanager
    def session(self) -> Iterator[S]:
        """The session, for operations whose failures become those of the driver protocol."""
        session = self._session
        if session is None or session.lost is not None:
            raise Unreachable(self._name, (session and session.lost) or self._why_down)
        try:
            yield session
        except RefusedError as refusal:
            raise Refused(self._name, str(refusal)) from None
        except ProtocolError as fault:
            session.end(f"the device broke the protocol: {fault}")
            raise Unreachable(self._name, str(fault)) from None
        except SessionError as lost:
            raise Unreachable(self._name, str(lost)) from None

    async def run(self) -> None:
        """Hold the session until cancelled."""
        delay_s = self._min_s
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            reason = await self._hold()
            if reason != self._why_down:
                log.warning("%s: %s", self._name, reason)
            self._why_down = reason
            if clock() - began > self._max_s:
                delay_s = self._min_s
            await asyncio.sleep(delay_s * random.uniform(0.8, 1.2))
            delay_s = min(2 * delay_s, self._max_s)

    async def _hold(self) -> str:
        """Connect and follow the session; why it ended."""
        opened_before = self.sessions_opened
        try:
            async with self._open_session() as session:
                try:
                    await self._follow(session)
                except (ProtocolError, RefusedError) as fault:
                    session.end(f"the device broke the protocol: {fault}")
                reason = session.lost or "the session ended"
        except SessionError as lost:
            reason = str(lost)
        finally:
            self._session = None
        was_open = self.sessions_opened > opened_before
        self.sessions_lost += was_open
        if was_open or reason != self._why_down:
            await self.emit(Disconnected(self._name, reason))
        return reason


async def drained(events: asyncio.Queue[DeviceEvent]) -> AsyncIterator[DeviceEvent]:
    """A driver's events, for one reader."""
    while True:
        yield await events.get()


def host_and_port(name: str, address: str) -> tuple[str, int]:
    """The two parts of `host:port`. Raises ValueError for an address that is none."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{name}: the address {address!r} is not host:port")
    return host.strip("[]"), int(port)
