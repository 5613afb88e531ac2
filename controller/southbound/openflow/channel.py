"""One OpenFlow 1.3 session with one switch: the thin edge between a stream and the codec."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from controller.southbound.openflow.codec import Frame, Framer, decode, encode
from controller.southbound.openflow.errors import HELLO_FAILED, INCOMPATIBLE, error_name
from controller.southbound.openflow.messages import (
    BarrierRequest,
    EchoReply,
    EchoRequest,
    Error,
    FeaturesReply,
    FeaturesRequest,
    FlowStatsReply,
    Hello,
    MalformedMessage,
    Message,
    Port,
    PortDescReply,
    PortDescRequest,
    PortReason,
    PortStatus,
    Raw,
    Type,
)

_READ_BYTES = 65536
_SLICE = 64
"""Messages handled before other sessions get their turn."""
_BARRIER_EVERY = 200
"""Changes sent before waiting for the switch, so that neither side's buffers grow with the change."""
_CONGESTED_BYTES = 1 << 20
_LOST_ECHOES = 3
REQUEST_TIMEOUT_S = 10.0

_ASYNCHRONOUS = frozenset({Type.PACKET_IN, Type.FLOW_REMOVED, Type.PORT_STATUS})
_LANES = {Type.ECHO_REQUEST: 0, Type.ECHO_REPLY: 0, Type.PACKET_IN: 2}
"""Liveness first, packets last; what is between keeps its order, because an ERROR precedes the BARRIER_REPLY that closes it."""

log = logging.getLogger(__name__)


class ChannelClosed(Exception):
    """The session is over; the text says why."""


class RequestFailed(Exception):
    """The switch refused a request, or its answer makes no sense."""


@dataclass(slots=True)
class Counters:
    """What the sessions of one listener met, since it started."""

    sessions: int = 0
    refused: int = 0
    malformed: int = 0
    undecodable: int = 0
    stray_errors: int = 0


class Channel:
    """A session with a switch: `receive` and `keep_alive` must run for the rest to work."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counters: Counters) -> None:
        peer = writer.get_extra_info("peername") or ("a peer that is gone", 0)
        self.peer = f"{peer[0]}:{peer[1]}"
        self.features = FeaturesReply(0, 0, 0)
        self.ports: dict[int, Port] = {}
        self.on_message: Callable[[Message], None] | None = None
        """Called with each PACKET_IN, FLOW_REMOVED and PORT_STATUS."""
        self.closed_because = ""
        self._reader = reader
        self._writer = writer
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._hello: asyncio.Future[Hello] = self._loop.create_future()
        self._xid = 0
        self._unanswered = 0
        self._outgoing: list[bytes] = []
        self._pending: dict[int, tuple[asyncio.Future[list[Message]], list[Message]]] = {}
        self._watched: dict[int, tuple[int, dict[int, Error]]] = {}

    @property
    def datapath_id(self) -> int:
        return self.features.datapath_id

    @property
    def congested(self) -> bool:
        """Whether the switch reads so slowly that what can be left out should be."""
        return self._writer.transport.get_write_buffer_size() > _CONGESTED_BYTES

    def send(self, message: Message, xid: int | None = None) -> int:
        """Queue a message and return its xid; what is queued in one turn of the loop leaves in one write. Raises ValueError as `encode`."""
        if xid is None:
            self._xid = self._xid % 0xFFFFFFFF + 1
            xid = self._xid
        data = encode(message, xid)
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(data)
        return xid

    async def request(self, message: Message, timeout_s: float = REQUEST_TIMEOUT_S) -> list[Message]:
        """The parts of the answer to `message`. Raises ChannelClosed, RequestFailed or TimeoutError."""
        if self.closed_because:
            raise ChannelClosed(self.closed_because)
        answer: asyncio.Future[list[Message]] = self._loop.create_future()
        xid = self.send(message)
        self._pending[xid] = (answer, [])
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise TimeoutError(f"no answer to {type(message).__name__} within {timeout_s:g} s") from None
        finally:
            del self._pending[xid]

    async def transact(self, messages: Sequence[Message]) -> dict[int, Error]:
        """Send changes and wait until the switch has done them all; the errors it sent back, by index. Raises as `request`."""
        errors: dict[int, Error] = {}
        for start in range(0, len(messages), _BARRIER_EVERY):
            watched = [self.send(message) for message in messages[start : start + _BARRIER_EVERY]]
            self._watched.update((xid, (start + index, errors)) for index, xid in enumerate(watched))
            try:
                await self.request(BarrierRequest())
            finally:
                for xid in watched:
                    del self._watched[xid]
        return errors

    async def handshake(self) -> None:
        """Agree on OpenFlow 1.3 and learn who the switch is. Raises ChannelClosed when it speaks something else."""
        self.send(Hello())
        hello = await self._hello
        if not hello.speaks_13:
            offered = ", ".join(f"{version:#04x}" for version in hello.bitmap or (hello.version,))
            why = f"the controller speaks OpenFlow 1.3 (wire version 0x04); the switch offers {offered}"
            self.send(Error(HELLO_FAILED, INCOMPATIBLE, why.encode()))
            raise ChannelClosed(why)
        for features in await self.request(FeaturesRequest()):
            if isinstance(features, FeaturesReply):
                self.features = features
        for part in await self.request(PortDescRequest()):
            if isinstance(part, PortDescReply):
                self.ports.update((port.number, port) for port in part.ports)

    async def receive(self) -> None:
        """Take in what the switch sends, until the session ends: always raises, ChannelClosed or MalformedMessage."""
        framer = Framer()
        try:
            while data := await self._reader.read(_READ_BYTES):
                self._unanswered = 0
                frames = framer.feed(data)
                frames.sort(key=lambda frame: _LANES.get(frame.type, 1))  # type: ignore[call-overload]
                for start in range(0, len(frames), _SLICE):
                    for frame in frames[start : start + _SLICE]:
                        self._handle(frame)
                    await self._writer.drain()  # a switch that does not read is not read from
                    if start:
                        await asyncio.sleep(0)
            raise ChannelClosed("the switch closed the connection")
        except MalformedMessage as error:
            self._end(f"malformed OpenFlow: {error}")
            raise
        except (ChannelClosed, OSError) as error:
            raise self._end(str(error)) from error
        finally:
            self._end("the session was cancelled")

    async def keep_alive(self, interval_s: float) -> None:
        """Send an ECHO_REQUEST each interval; raises ChannelClosed after three intervals in which nothing at all came back."""
        while True:
            await asyncio.sleep(interval_s)
            if self._unanswered >= _LOST_ECHOES:
                raise self._end(f"the switch has been silent for {self._unanswered * interval_s:g} s")
            self._unanswered += 1
            self.send(EchoRequest())

    def stop(self, reason: str) -> None:
        """End the session: what is queued still leaves, then `receive` raises ChannelClosed."""
        self._end(reason)
        self._flush()
        self._writer.close()

    async def close(self) -> None:
        """Stop, and wait until the connection is gone."""
        self.stop("the session was closed")
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()
                return
        self._writer.transport.abort()

    def _end(self, reason: str) -> ChannelClosed:
        """Fail what waits for an answer. The first reason is the one that counts."""
        self.closed_because = self.closed_because or reason
        closed = ChannelClosed(self.closed_because)
        for answer, _ in self._pending.values():
            if not answer.done():
                answer.set_exception(closed)
        return closed

    def _flush(self) -> None:
        if self._outgoing and not self._writer.is_closing():
            self._writer.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _handle(self, frame: Frame) -> None:
        if not self._hello.done() and frame.type not in (Type.HELLO, Type.ERROR):
            raise MalformedMessage(f"the first message is of type {frame.type}, not HELLO")
        try:
            message = decode(frame)
        except MalformedMessage as error:
            self._counters.undecodable += 1
            log.warning("%s: left aside: %s", self.peer, error)
            message = Raw(frame.type, frame.body)
        if isinstance(message, EchoRequest):
            self.send(EchoReply(message.data), frame.xid)
        elif isinstance(message, Error):
            self._on_error(frame.xid, message)
        elif isinstance(message, Hello):
            if not self._hello.done():
                self._hello.set_result(message)
        elif frame.type in _ASYNCHRONOUS:
            self._on_asynchronous(message)
        elif frame.xid in self._pending:
            self._on_answer(frame.xid, message)

    def _on_answer(self, xid: int, message: Message) -> None:
        answer, parts = self._pending[xid]
        if answer.done():
            return
        if isinstance(message, Raw):
            answer.set_exception(RequestFailed(f"the answer, a message of type {message.type}, cannot be decoded"))
            return
        parts.append(message)
        if not (isinstance(message, FlowStatsReply | PortDescReply) and message.more):
            answer.set_result(parts)

    def _on_error(self, xid: int, error: Error) -> None:
        if not self._hello.done() or error.type == HELLO_FAILED:
            raise ChannelClosed(f"the switch refused the session: {error_name(error)}")
        if xid in self._watched:
            index, errors = self._watched[xid]
            errors[index] = error
        elif xid in self._pending:
            answer, _ = self._pending[xid]
            if not answer.done():
                answer.set_exception(RequestFailed(error_name(error)))
        else:
            self._counters.stray_errors += 1
            log.warning("%s: the switch reports %s for no request that is open (xid %d)", self.peer, error_name(error), xid)

    def _on_asynchronous(self, message: Message) -> None:
        if isinstance(message, PortStatus):
            if message.reason == PortReason.DELETE:
                self.ports.pop(message.port.number, None)
            else:
                self.ports[message.port.number] = message.port
        if self.on_message is None or isinstance(message, Raw):
            return
        try:
            self.on_message(message)
        except Exception:  # an application's fault must not cost the session
            log.exception("%s: handling a %s failed", self.peer, type(message).__name__)
