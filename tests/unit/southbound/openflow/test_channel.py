"""One session over a connection in memory: what the switch sends, by when it is handled, and what leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from controller.southbound.device import FlowRule
from controller.southbound.openflow.channel import Channel, ChannelClosed, RequestFailed
from controller.southbound.openflow.codec import Framer, decode, encode
from controller.southbound.openflow.counters import Counters
from controller.southbound.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    EchoReply,
    EchoRequest,
    Error,
    FeaturesReply,
    FlowCommand,
    FlowMod,
    FlowStats,
    FlowStatsReply,
    FlowStatsRequest,
    Hello,
    Message,
    PacketIn,
    Port,
    PortDescReply,
    PortReason,
    PortStatus,
    Raw,
    Role,
    RoleReply,
    RoleRequest,
    Type,
)
from controller.southbound.openflow.turns import Turns

PACKET = encode(PacketIn(0xFFFFFFFF, 60, 0, 0, 0, (("in_port", 1),), bytes(60)))
RULE = FlowRule(1, (), (("output", 2),), 0xBE11 << 48)


class Wire(asyncio.Transport):
    """A connection whose far end is the test."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 6653)})
        self.writes: list[bytes] = []
        self.reading = True
        self.unread = 0
        self.protocol: Channel
        self._closing = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.unread

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()


class Session:
    """A channel, the counters it counts in and the wire it is on."""

    def __init__(self, turns: Turns | None = None, **options: Any) -> None:
        self.counters = Counters()
        self.wire = Wire()
        self.channel = Channel(self.counters, turns or Turns(), bytearray(65536), **options)
        self.wire.protocol = self.channel
        self._framer = Framer()
        self.channel.connection_made(self.wire)

    def bring(self, data: bytes) -> None:
        """The switch sends bytes, so many at a time as a read takes."""
        for start in range(0, len(data), 65536):
            part = data[start : start + 65536]
            self.channel.get_buffer(-1)[: len(part)] = part
            self.channel.buffer_updated(len(part))

    def say(self, message: Message, xid: int = 0) -> None:
        self.bring(encode(message, xid))

    def heard(self) -> list[tuple[int, Message]]:
        """What the controller has written since the last call."""
        data, self.wire.writes = b"".join(self.wire.writes), []
        return [(frame.xid, decode(frame)) for frame in self._framer.feed(data)]

    async def ready(self) -> None:
        shaking = asyncio.create_task(self.channel.handshake())
        self.say(Hello())
        await settle()
        for message in (FeaturesReply(7, 0, 1), PortDescReply((Port(1, "02:00:00:00:00:01", "p1"),))):
            self.say(message, self.channel._xid)
            await settle()
        await shaking
        self.heard()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await settle()


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def test_hello_leaves_before_anything_else_and_the_switch_is_known_after_the_handshake() -> None:
    session = Session()
    assert [message for _, message in session.heard()] == [Hello()], "at once, in no later turn"
    await session.ready()
    assert session.channel.datapath_id == 7
    assert list(session.channel.ports) == [1]


async def test_a_batch_is_answered_by_one_write() -> None:
    session = Session()
    await session.ready()
    session.channel.on_message = lambda message: session.channel.send(BarrierRequest()) and None
    session.bring(PACKET * 50)
    await settle()
    assert len(session.wire.writes) == 1
    assert len(session.heard()) == 50


async def test_what_keeps_the_session_alive_goes_before_packets_even_of_an_earlier_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.southbound.openflow.turns._LONGEST_S", -1.0)
    session = Session()
    await session.ready()
    met: list[str] = []
    session.channel.on_message = lambda message: met.append("packet")
    session.bring(PACKET * 1000)
    await asyncio.sleep(0)
    assert 0 < len(met) < 1000, "not all in one turn"
    session.say(EchoRequest(b"now"), 5)
    asked = asyncio.create_task(session.channel.request(RoleRequest(Role.EQUAL)))
    before = len(met)
    await asyncio.sleep(0)
    assert (5, EchoReply(b"now")) in session.heard()
    session.say(RoleReply(Role.EQUAL), session.channel._xid)
    await asked
    assert len(met) - before < 900, "the answer did not wait for the packets"
    await until(lambda: len(met) == 1000)


async def test_sessions_have_their_turns_one_after_the_other() -> None:
    turns = Turns()
    one, other = Session(turns), Session(turns)
    met: list[int] = []
    for number, session in enumerate((one, other)):
        await session.ready()
        session.channel.on_message = lambda message, number=number: met.append(number)
    one.bring(PACKET * 500)
    other.bring(PACKET * 64)
    await until(lambda: len(met) == 564)
    assert met.index(1) <= 64, "the second does not wait for all of the first"
    assert sum(met[:192]) == 64


async def test_long_work_leaves_the_loop_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1_000_000))
    monkeypatch.setattr("controller.southbound.openflow.turns.perf_counter", lambda: next(clock))
    turns = Turns()
    worked: list[str] = []
    left = {"a": 3, "b": 1}

    def work(name: str) -> bool:
        worked.append(name)
        left[name] -= 1
        return left[name] > 0

    turns.add(lambda: work("a"))
    turns.add(lambda: work("b"))
    asyncio.get_running_loop().call_soon(worked.append, "other")
    await settle()
    assert worked == ["a", "other", "b", "a", "a"]


async def test_a_switch_that_does_not_read_is_not_read_from() -> None:
    session = Session()
    await session.ready()
    met: list[Message] = []
    session.channel.on_message = met.append
    session.channel.pause_writing()
    assert not session.wire.reading
    session.bring(PACKET)
    await settle()
    assert not met, "its packets wait as well: their answers would only pile up"
    session.channel.resume_writing()
    await settle()
    assert session.wire.reading
    assert len(met) == 1


async def test_reading_pauses_while_too_much_waits() -> None:
    session = Session(packet_ins_per_s=1e6)
    await session.ready()
    met: list[Message] = []
    session.channel.on_message = met.append
    session.bring(PACKET * 3000)
    assert not session.wire.reading
    await until(lambda: len(met) == 3000)
    assert session.wire.reading


async def test_packets_over_the_budget_are_dropped_and_counted() -> None:
    session = Session(packet_ins_per_s=100)
    await session.ready()
    met: list[Message] = []
    session.channel.on_message = met.append
    session.bring(PACKET * 50 + encode(EchoRequest(), 9))
    await settle()
    assert len(met) == 10
    assert session.channel.packet_ins_dropped == session.counters.packet_ins_dropped == 40
    assert session.heard() == [(9, EchoReply())], "nothing else is dropped"
    session.channel._allowed_at_s -= 1.0
    session.bring(PACKET * 50)
    await settle()
    assert len(met) == 20, "the budget comes back, but never more than a tenth of it at once"


async def test_parts_are_collected_until_there_is_no_more() -> None:
    session = Session()
    await session.ready()
    asked = asyncio.create_task(session.channel.request(FlowStatsRequest()))
    await settle()
    ((xid, _),) = session.heard()
    session.say(FlowStatsReply((FlowStats(RULE),), more=True), xid)
    session.say(Raw(Type.MULTIPART_REPLY, bytes.fromhex("fff0000100000000")), xid)
    await settle()
    assert not asked.done(), "a part that is not modelled may be followed by more as well"
    session.say(FlowStatsReply(()), xid)
    assert len(await asked) == 3


async def test_an_answer_that_cannot_be_decoded_fails_its_request_only() -> None:
    session = Session()
    await session.ready()
    asked = asyncio.create_task(session.channel.request(FlowStatsRequest()))
    other = asyncio.create_task(session.channel.request(BarrierRequest()))
    await settle()
    (xid, _), (other_xid, _) = session.heard()
    session.say(Raw(Type.PACKET_IN, b""), other_xid)
    session.say(Raw(Type.MULTIPART_REPLY, bytes.fromhex("0001000000000000") + b"no flow"), xid)
    with pytest.raises(RequestFailed, match="cannot be decoded"):
        await asked
    session.say(BarrierReply(), other_xid)
    assert await other == [BarrierReply()]
    assert session.counters.undecodable == 2
    assert not session.channel.closed_because


async def test_an_error_goes_to_the_change_it_answers() -> None:
    session = Session()
    await session.ready()
    change = FlowMod(FlowCommand.ADD, RULE)
    changing = asyncio.create_task(session.channel.transact([change, encode(change), change]))
    await settle()
    sent = session.heard()
    assert [type(message) for _, message in sent] == [FlowMod, FlowMod, FlowMod, BarrierRequest]
    session.say(Error(5, 1), sent[1][0])
    session.say(Error(5, 1), 424242)
    session.say(BarrierReply(), sent[3][0])
    assert await changing == {1: Error(5, 1)}
    assert session.counters.stray_errors == 1


async def test_changes_in_flight_are_bounded_by_barriers() -> None:
    session = Session()
    await session.ready()
    change = FlowMod(FlowCommand.ADD, RULE)
    first = asyncio.create_task(session.channel.transact([change] * 1000))
    second = asyncio.create_task(session.channel.transact([change]))
    seen = 0
    most = 0
    while not second.done():
        await settle()
        sent = session.heard()
        seen += sum(isinstance(message, FlowMod) for _, message in sent)
        most = max(most, len(sent))
        for xid, message in sent:
            if isinstance(message, BarrierRequest):
                session.say(BarrierReply(), xid)
    assert (seen, await first, await second) == (1001, {}, {})
    assert most <= 402


async def test_the_end_of_a_session_fails_what_waits() -> None:
    session = Session()
    await session.ready()
    asked = asyncio.create_task(session.channel.request(FlowStatsRequest()))
    changing = asyncio.create_task(session.channel.transact([FlowMod(FlowCommand.ADD, RULE)] * 401))
    await settle()
    session.wire.close()
    for task in (asked, changing):
        with pytest.raises(ChannelClosed, match="the switch closed the connection"):
            await task
    with pytest.raises(ChannelClosed):
        await session.channel.request(BarrierRequest())
    await session.channel.close()


async def test_one_who_looks_on_does_not_fence_off_the_master() -> None:
    for newest, asked in ((41, RoleRequest(Role.SLAVE, 41)), (0xFFFFFFFFFFFFFFFF, RoleRequest(Role.EQUAL, 0xFFFFFFFFFFFFFFFF))):
        session = Session()
        await session.ready()
        claiming = asyncio.create_task(session.channel.claim(Role.SLAVE, 99))
        await settle()
        ((xid, message),) = session.heard()
        assert message == RoleRequest(Role.NOCHANGE)
        session.say(RoleReply(Role.EQUAL, newest), xid)
        await settle()
        ((xid, message),) = session.heard()
        assert message == asked
        session.say(RoleReply(asked.role, newest), xid)
        await claiming


async def test_port_changes_are_kept() -> None:
    session = Session()
    await session.ready()
    session.say(PortStatus(PortReason.ADD, Port(2, "02:00:00:00:00:02", "p2")))
    session.say(PortStatus(PortReason.DELETE, Port(1, "02:00:00:00:00:01", "p1")))
    await settle()
    assert list(session.channel.ports) == [2]


async def test_messages_are_counted_by_type() -> None:
    session = Session()
    await session.ready()
    session.bring(PACKET * 3)
    session.say(Error(1, 1))
    session.channel.send(FlowMod(FlowCommand.ADD, RULE))
    await settle()
    assert session.counters.received[Type.PACKET_IN] == 3
    assert session.counters.received[Type.ERROR] == 1
    assert session.counters.sent[Type.FLOW_MOD] == 1
