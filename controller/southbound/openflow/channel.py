"""One OpenFlow 1.3 session with one switch: the thin edge between a connection and the codec."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, cast

from controller.southbound.openflow.codec import Frame, Framer, decode, encode, readdressed
from controller.southbound.openflow.counters import Counters
from controller.southbound.openflow.errors import HELLO_FAILED, INCOMPATIBLE, error_name
from controller.southbound.openflow.messages import (
    BarrierRequest,
    EchoReply,
    EchoRequest,
    Error,
    FeaturesReply,
    FeaturesRequest,
    Hello,
    MalformedMessage,
    Message,
    Port,
    PortDescReply,
    PortDescRequest,
    PortReason,
    PortStatus,
    Raw,
    Role,
    RoleReply,
    RoleRequest,
    Type,
)
from controller.southbound.openflow.turns import Turns

_SLICE = 64
"""Messages of one session that are handled before other sessions get their turn."""
_SLICE_BYTES = 32768
"""A slice ends after so much, too: one part of a long answer takes as long as many small messages."""
_BACKLOG = 2048
"""Messages that may wait to be handled; the switch is not read from while there are more."""
_BARRIER_EVERY = 200
"""Changes between two barriers."""
_BARRIERS_OPEN = 2
"""Barriers under way at once: the switch has the next changes while it confirms the last, and neither side's buffers grow with the change."""
_CONGESTED_BYTES = 1 << 20
_LOST_ECHOES = 3
_COMPLAINTS_LOGGED = 20
REQUEST_TIMEOUT_S = 10.0
PACKET_INS_PER_S = 20_000
"""What a switch may ask of the applications unless the settings say otherwise; a tenth of it at once."""

_ASYNCHRONOUS = frozenset({Type.FLOW_REMOVED, Type.PORT_STATUS})
_PACKET_IN = int(Type.PACKET_IN)
_LAST_XID = 0xFFFFFFFF
_NO_GENERATION = 0xFFFFFFFFFFFFFFFF

log = logging.getLogger(__name__)


class ChannelClosed(Exception):
    """The session is over; the text says why."""


class RequestFailed(Exception):
    """The switch refused a request, or its answer makes no sense. `error` is what it said."""

    def __init__(self, what: str, error: Error | None = None) -> None:
        super().__init__(what)
        self.error = error


class Channel(asyncio.BufferedProtocol):
    """A session with a switch, as the protocol of its connection. `handshake` comes first; `ended` is done when the session is over.

    Messages are read and written in batches. They are handled in slices, in turn with the other sessions: first what keeps the session
    alive and answers requests, in its order (an ERROR precedes the BARRIER_REPLY that closes it), then packets. A switch that does not
    read what it is sent is not read from.
    """

    def __init__(self, counters: Counters, turns: Turns, buffer: bytearray, packet_ins_per_s: float = PACKET_INS_PER_S) -> None:
        """`buffer` is where the connection is read into; sessions of one loop share it."""
        self.peer = "a peer that is gone"
        self.certificate: Mapping[str, Any] = {}
        """The switch's, as `SSLSocket.getpeercert` gives it; empty without TLS."""
        self.features = FeaturesReply(0, 0, 0)
        self.ports: dict[int, Port] = {}
        self.on_message: Callable[[Message], None] | None = None
        """Called with each PACKET_IN, FLOW_REMOVED and PORT_STATUS; must not block."""
        self.packet_ins_dropped = 0
        self.closed_because = ""
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport
        self._counters = counters
        self._turns = turns
        self._buffer = memoryview(buffer)
        self._framer = Framer()
        self._hello: asyncio.Future[Hello] = self._loop.create_future()
        self._xid = 0
        self._outgoing: list[bytes] = []
        self._flushing = False
        self._control: deque[Frame] = deque()
        self._packets: deque[Frame] = deque()
        self._in_turns = False
        self._reading = True
        self._writable = True
        self._packet_ins_per_s = packet_ins_per_s
        self._allowed = self._most_at_once = packet_ins_per_s / 10
        self._allowed_at_s = self._loop.time()
        self._pending: dict[int, tuple[asyncio.Future[list[Message]], list[Message]]] = {}
        self._raw: set[int] = set()
        self._watched: dict[int, tuple[int, dict[int, Error]]] = {}
        self._changing = asyncio.Lock()
        self._unanswered = 0
        self._echo: tuple[int, float] = (0, 0.0)
        self._keeping_alive: asyncio.TimerHandle | None = None
        self._complaints = 0

    @property
    def datapath_id(self) -> int:
        return self.features.datapath_id

    @property
    def congested(self) -> bool:
        """Whether the switch reads so slowly that what can be left out should be."""
        return self._transport.get_write_buffer_size() > _CONGESTED_BYTES

    # what the controller asks of the switch

    def send(self, message: Message | bytes, xid: int | None = None) -> int:
        """Queue a message, or the bytes of one, and return its xid; what is queued in one turn leaves in one write.

        Raises ValueError as `encode`.
        """
        if xid is None:
            self._xid = xid = self._xid % _LAST_XID + 1
        data = readdressed(message, xid) if isinstance(message, bytes) else encode(message, xid)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        self._outgoing.append(data)
        self._counters.sent[data[1]] += 1
        return xid

    async def request(self, message: Message, timeout_s: float = REQUEST_TIMEOUT_S, *, raw: bool = False) -> list[Message]:
        """The parts of the answer to `message`; `raw` leaves multipart replies undecoded. Raises ChannelClosed, RequestFailed or TimeoutError."""
        xid, answer = self._ask(message)
        if raw:
            self._raw.add(xid)
        try:
            return await self._answer_to(message, xid, answer, timeout_s)
        finally:
            self._raw.discard(xid)

    async def transact(self, messages: Sequence[Message | bytes]) -> dict[int, Error]:
        """Send changes and wait until the switch has done them all; the errors it sent back, by index. Raises as `request`."""
        errors: dict[int, Error] = {}
        watched: list[int] = []
        barriers: deque[tuple[int, asyncio.Future[list[Message]]]] = deque()
        barrier = BarrierRequest()
        async with self._changing:
            try:
                for start in range(0, len(messages), _BARRIER_EVERY):
                    for index, message in enumerate(messages[start : start + _BARRIER_EVERY], start):
                        watched.append(xid := self.send(message))
                        self._watched[xid] = index, errors
                    barriers.append(self._ask(barrier))
                    if len(barriers) >= _BARRIERS_OPEN:
                        await self._answer_to(barrier, *barriers.popleft(), REQUEST_TIMEOUT_S)
                while barriers:
                    await self._answer_to(barrier, *barriers.popleft(), REQUEST_TIMEOUT_S)
            finally:
                for xid in watched:
                    del self._watched[xid]
                for xid, answer in barriers:
                    del self._pending[xid]
                    if not answer.cancel():
                        answer.exception()  # nobody else asks for it
        return errors

    async def handshake(self) -> None:
        """Agree on OpenFlow 1.3 and learn who the switch is. Raises ChannelClosed when it speaks something else."""
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

    async def claim(self, role: Role, generation_id: int) -> None:
        """Ask for a role: MASTER as of a generation, or SLAVE, to look on and be held to it by the switch.

        Raises ChannelClosed, TimeoutError, or RequestFailed: with STALE when a newer master has been there.
        """
        if role == Role.SLAVE:
            # The switch keeps the newest generation it is told, so one who looks on must not tell it a new one.
            (seen,) = await self.request(RoleRequest(Role.NOCHANGE))
            generation_id = seen.generation_id if isinstance(seen, RoleReply) else _NO_GENERATION
            role = Role.EQUAL if generation_id == _NO_GENERATION else role
        await self.request(RoleRequest(role, generation_id))

    def keep_alive(self, interval_s: float) -> None:
        """From now on send an ECHO_REQUEST each interval, and end the session after three in which nothing at all came back."""
        if not self.closed_because:
            self._keeping_alive = self._loop.call_later(interval_s, self._ask_whether_alive, interval_s)

    def _ask_whether_alive(self, interval_s: float) -> None:
        if self._unanswered >= _LOST_ECHOES:
            self.stop(f"the switch has been silent for {self._unanswered * interval_s:g} s")
            self._transport.abort()  # what is queued will not be read
            return
        self._unanswered += 1
        self._echo = self.send(EchoRequest()), perf_counter()
        self.keep_alive(interval_s)

    def stop(self, reason: str) -> None:
        """End the session: what is queued still leaves. The first reason is the one that counts."""
        self.closed_because = self.closed_because or reason
        closed = ChannelClosed(self.closed_because)
        for answer, _ in self._pending.values():
            if not answer.done():
                answer.set_exception(closed)
        if not self._hello.done():
            self._hello.set_exception(closed)
            self._hello.exception()  # whether anybody waits for it or not
        if self._keeping_alive:
            self._keeping_alive.cancel()
        self._control.clear()
        self._packets.clear()
        self._flush()
        self._transport.close()

    async def close(self) -> None:
        """Stop, and wait until the connection is gone."""
        self.stop("the session was closed")
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.shield(self.ended)
                return
        self._transport.abort()

    def _ask(self, message: Message) -> tuple[int, asyncio.Future[list[Message]]]:
        if self.closed_because:
            raise ChannelClosed(self.closed_because)
        answer: asyncio.Future[list[Message]] = self._loop.create_future()
        xid = self.send(message)
        self._pending[xid] = (answer, [])
        return xid, answer

    async def _answer_to(self, message: Message, xid: int, answer: asyncio.Future[list[Message]], timeout_s: float) -> list[Message]:
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise TimeoutError(f"no answer to {type(message).__name__} within {timeout_s:g} s") from None
        finally:
            del self._pending[xid]

    def _flush(self) -> None:
        self._flushing = False
        if self._outgoing and not self._transport.is_closing():
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    # what the connection brings

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername") or ("a peer that is gone", 0)
        self.peer = f"{peer[0]}:{peer[1]}"
        self.certificate = transport.get_extra_info("peercert") or {}
        self.send(Hello())
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.stop(f"the connection broke: {error}" if error else "the switch closed the connection")
        self.ended.set_result(None)

    def pause_writing(self) -> None:
        self._writable = False
        self._read_or_not()

    def resume_writing(self) -> None:
        self._writable = True
        self._read_or_not()
        self._take_turns()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, count: int) -> None:
        self._unanswered = 0
        if self.closed_because:
            return
        try:
            frames = self._framer.feed(bytes(self._buffer[:count]))
        except MalformedMessage as error:
            self._malformed(error)
            return
        packets = [frame for frame in frames if frame.type == _PACKET_IN]
        if len(packets) < len(frames):
            self._control.extend([frame for frame in frames if frame.type != _PACKET_IN] if packets else frames)
        if packets:
            self._packets.extend(packets[: self._admitted(len(packets))])
        self._read_or_not()
        self._take_turns()

    def _admitted(self, packets: int) -> int:
        """How many of so many packets are within the switch's budget; the others are counted as dropped."""
        now_s = self._loop.time()
        self._allowed = min(self._most_at_once, self._allowed + (now_s - self._allowed_at_s) * self._packet_ins_per_s)
        self._allowed_at_s = now_s
        admitted = min(packets, int(self._allowed))
        self._allowed -= admitted
        self.packet_ins_dropped += packets - admitted
        self._counters.packet_ins_dropped += packets - admitted
        return admitted

    def _read_or_not(self) -> None:
        reading = self._writable and len(self._control) + len(self._packets) < _BACKLOG
        if reading != self._reading and not self._transport.is_closing():
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    def _take_turns(self) -> None:
        if not self._in_turns and (self._control or (self._packets and self._writable)):
            self._in_turns = True
            self._turns.add(self._turn)

    def _turn(self) -> bool:
        """Handle a slice of what came; whether there is more."""
        self._flushing = True
        room, size = _SLICE, 0
        control, packets = self._control, self._packets
        try:
            while control and room and size < _SLICE_BYTES:
                frame = control.popleft()
                room -= 1
                size += len(frame.body)
                self._handle(frame)
            if not control and packets and self._writable:
                self._handle_packets([packets.popleft() for _ in range(min(room, len(packets)))])
        except ChannelClosed as closed:
            self.stop(str(closed))
        except MalformedMessage as error:
            self._malformed(error)
        self._flush()
        self._read_or_not()
        self._in_turns = bool(control or (packets and self._writable))
        return self._in_turns

    def _handle_packets(self, frames: list[Frame]) -> None:
        if not self._hello.done():
            raise MalformedMessage("the first message is a PACKET_IN, not HELLO")
        self._counters.received[_PACKET_IN] += len(frames)
        for frame in frames:
            try:
                self._deliver(decode(frame))
            except MalformedMessage as error:
                self._undecodable(frame, error)

    def _deliver(self, message: Message) -> None:
        if self.on_message:
            try:
                self.on_message(message)
            except Exception:  # an application's fault must not cost the session
                log.exception("%s: handling a %s failed", self.peer, type(message).__name__)

    def _handle(self, frame: Frame) -> None:
        self._counters.received[frame.type] += 1
        if not self._hello.done() and frame.type not in (Type.HELLO, Type.ERROR):
            raise MalformedMessage(f"the first message is of type {frame.type}, not HELLO")
        try:
            undecoded = frame.type == Type.MULTIPART_REPLY and frame.xid in self._raw
            message = Raw(frame.type, frame.body) if undecoded else decode(frame)
        except MalformedMessage as error:
            self._undecodable(frame, error)
            return
        if isinstance(message, EchoRequest):
            self.send(EchoReply(message.data), frame.xid)
        elif isinstance(message, Error):
            self._on_error(frame.xid, message)
        elif isinstance(message, Hello):
            if not self._hello.done():
                self._hello.set_result(message)
        elif frame.type in _ASYNCHRONOUS:
            self._on_asynchronous(message)
        elif isinstance(message, EchoReply) and frame.xid == self._echo[0]:
            self._counters.echo_s.observe(perf_counter() - self._echo[1])
        elif frame.xid in self._pending:
            answer, parts = self._pending[frame.xid]
            parts.append(message)
            if not answer.done() and not getattr(message, "more", False):
                answer.set_result(parts)

    def _malformed(self, error: MalformedMessage) -> None:
        self._counters.malformed += 1
        log.warning("%s, datapath %016x: session closed: malformed OpenFlow: %s", self.peer, self.datapath_id, error)
        self.stop(f"malformed OpenFlow: {error}")

    def _undecodable(self, frame: Frame, error: MalformedMessage) -> None:
        self._counters.undecodable += 1
        if not self._hello.done():
            raise error
        self._complain(f"left aside: {error}")
        answer, _ = self._pending.get(frame.xid, (None, None))
        if answer and not answer.done() and frame.type != _PACKET_IN and frame.type not in _ASYNCHRONOUS:
            answer.set_exception(RequestFailed(f"the answer cannot be decoded: {error}"))

    def _on_error(self, xid: int, error: Error) -> None:
        if not self._hello.done() or error.type == HELLO_FAILED:
            raise ChannelClosed(f"the switch refused the session: {error_name(error)}")
        if xid in self._watched:
            index, errors = self._watched[xid]
            errors[index] = error
        elif xid in self._pending:
            answer, _ = self._pending[xid]
            if not answer.done():
                answer.set_exception(RequestFailed(error_name(error), error))
        else:
            self._counters.stray_errors += 1
            self._complain(f"the switch reports {error_name(error)} for no request that is open (xid {xid})")

    def _complain(self, what: str) -> None:
        """Log what is wrong with a message: the first times, because it may come as often as packets do. All are counted."""
        self._complaints += 1
        if self._complaints <= _COMPLAINTS_LOGGED:
            log.warning("%s, datapath %016x: %s", self.peer, self.datapath_id, what)

    def _on_asynchronous(self, message: Message) -> None:
        if isinstance(message, PortStatus):
            if message.reason == PortReason.DELETE:
                self.ports.pop(message.port.number, None)
            else:
                self.ports[message.port.number] = message.port
        self._deliver(message)
