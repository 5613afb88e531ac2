"""Where OpenFlow switches dial in: accepts sessions, shakes hands, and gives each to the driver of its datapath id."""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

from controller.southbound.openflow.channel import Channel, ChannelClosed, Counters, RequestFailed
from controller.southbound.openflow.errors import HELLO_FAILED, NOT_PERMITTED
from controller.southbound.openflow.messages import EchoRequest, Error, MalformedMessage

_BACKLOG = 4096
"""All switches of a network reconnect at once after a restart of the controller; a short queue would turn most of them away."""
_HANDSHAKE_TIMEOUT_S = 10.0

Attach = Callable[[Channel], AbstractContextManager[None]]
"""Enters with a session that is ready, leaves when it is over."""

log = logging.getLogger(__name__)


class OpenFlowListener:
    """Use as an async context manager; `port` 0 takes a free port. Entering raises OSError when the port cannot be had."""

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None, keep_alive_s: float = 5.0) -> None:
        self.host = host
        self.port = port
        self.counters = Counters()
        self._tls = tls
        self._keep_alive_s = keep_alive_s
        self._expected: dict[int, Attach] = {}
        self._channels: dict[int, Channel] = {}
        self._sessions: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> OpenFlowListener:
        try:
            self._server = await asyncio.start_server(self._accept, self.host, self.port, backlog=_BACKLOG, ssl=self._tls)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise OSError(
                errno.EADDRINUSE,
                f"port {self.port} on {self.host} is taken, so no OpenFlow switch can connect: stop the program that holds it "
                f"(`ss -ltnp 'sport = :{self.port}'` names it) or choose another OpenFlow port in the settings",
            ) from None
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        await self._server.wait_closed()

    @contextmanager
    def expect(self, datapath_id: int, attach: Attach) -> Iterator[None]:
        """Admit the switch with this datapath id for as long as the context lasts. Raises ValueError when it is already expected."""
        if datapath_id in self._expected:
            raise ValueError(f"two switches have the datapath id {datapath_id:016x}: give each its own in the topology document")
        self._expected[datapath_id] = attach
        try:
            yield
        finally:
            del self._expected[datapath_id]
            if channel := self._channels.get(datapath_id):
                channel.stop("the switch is no longer managed")

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.create_task(self._session(Channel(reader, writer, self.counters)))
        self._sessions.add(session)
        session.add_done_callback(self._sessions.discard)

    async def _session(self, channel: Channel) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(channel.receive())
                async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):
                    await channel.handshake()
                await self._serve(channel)
        except* (ChannelClosed, RequestFailed, TimeoutError) as group:
            log.info("%s, datapath %016x: %s", channel.peer, channel.datapath_id, channel.closed_because or group.exceptions[0])
        except* MalformedMessage as group:
            self.counters.malformed += 1
            log.warning("%s, datapath %016x: session closed: %s", channel.peer, channel.datapath_id, group.exceptions[0])
        except* Exception:
            log.exception("%s, datapath %016x: session failed", channel.peer, channel.datapath_id)
        finally:
            await channel.close()

    async def _serve(self, channel: Channel) -> None:
        datapath_id = channel.datapath_id
        attach = self._expected.get(datapath_id)
        if attach is None:
            raise self._refuse(channel, "no openflow-switch of the topology document has this datapath id; add it, or correct its dpid")
        if holder := self._channels.get(datapath_id):
            holder.send(EchoRequest())  # a dead session is found out sooner
            raise self._refuse(channel, f"another session, {holder.peer}, has this datapath id; the first keeps it")
        self.counters.sessions += 1
        self._channels[datapath_id] = channel
        try:
            with attach(channel):
                await channel.keep_alive(self._keep_alive_s)
        finally:
            del self._channels[datapath_id]

    def _refuse(self, channel: Channel, why: str) -> ChannelClosed:
        self.counters.refused += 1
        log.warning("%s: datapath %016x refused: %s", channel.peer, channel.datapath_id, why)
        channel.send(Error(HELLO_FAILED, NOT_PERMITTED, why.encode()))
        return ChannelClosed(why)
