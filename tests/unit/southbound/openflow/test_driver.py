"""The listener and the driver against the emulated switch, on real sockets."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controller.southbound.device import (
    Changed,
    Connected,
    DeviceEvent,
    Diff,
    Disconnected,
    FlowRule,
    PortChanged,
    Refused,
    Unreachable,
    diff,
)
from controller.southbound.drivers.openflow_switch import OpenFlowSwitch
from controller.southbound.openflow.codec import Framer, decode, encode
from controller.southbound.openflow.listener import OpenFlowListener
from controller.southbound.openflow.messages import (
    EchoReply,
    EchoRequest,
    Error,
    FeaturesReply,
    FeaturesRequest,
    Hello,
    Message,
    PacketIn,
    Port13,
    PortDescReply,
    PortDescRequest,
    Raw,
)
from topologies.emulation import pki
from topologies.emulation.openflow.tables import Entry
from topologies.emulation.openflow_switch import EmulatedSwitch

OURS = 0xBE11 << 48
FLOOD = FlowRule(1, (), (("output", int(Port13.FLOOD)),), OURS)
MASKED = FlowRule(
    100,
    (("eth_type", 0x0800), ("in_port", 1), ("ipv4_dst", "10.0.0.0/255.255.255.0"), ("vlan_vid", "0x1000/0x1000")),
    (("set_field:eth_dst", "02:00:00:00:00:01"), ("pop_vlan", 0), ("output", 3)),
    OURS | 1,
)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


class Network:
    """A listener, drivers and emulated switches; all end with the context."""

    def __init__(self, listener: OpenFlowListener, tasks: asyncio.TaskGroup) -> None:
        self.listener = listener
        self.running: list[asyncio.Task[None]] = []
        self._tasks = tasks

    def manage(self, name: str, dpid: int) -> OpenFlowSwitch:
        driver = OpenFlowSwitch(name, dpid, self.listener)
        self.running.append(self._tasks.create_task(driver.run()))
        return driver

    def emulate(self, name: str, dpid: int, capacity: int = 1000) -> EmulatedSwitch:
        switch = EmulatedSwitch(name, dpid, [1, 2, 3], ("127.0.0.1", self.listener.port), capacity=capacity)
        self.running.append(self._tasks.create_task(switch.run()))
        return switch

    async def pair(self, name: str = "s1", dpid: int = 1, capacity: int = 1000) -> tuple[OpenFlowSwitch, EmulatedSwitch]:
        driver, switch = self.manage(name, dpid), self.emulate(name, dpid, capacity)
        await until(lambda: driver.connected)
        return driver, switch


@asynccontextmanager
async def network(keep_alive_s: float = 5.0) -> AsyncIterator[Network]:
    async with OpenFlowListener("127.0.0.1", 0, keep_alive_s=keep_alive_s) as listener, asyncio.TaskGroup() as tasks:
        net = Network(listener, tasks)
        yield net
        for task in net.running:
            task.cancel()


class Peer:
    """A switch of few words: what it sends is up to the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._framer = Framer()
        self._received: list[tuple[int, Message]] = []

    def send(self, message: Message, xid: int = 0) -> None:
        self.writer.write(encode(message, xid))

    async def receive(self) -> tuple[int, Message]:
        async with asyncio.timeout(5):
            while not self._received:
                data = await self.reader.read(65536)
                assert data, "the controller closed the connection"
                self._received += [(frame.xid, decode(frame)) for frame in self._framer.feed(data)]
        return self._received.pop(0)

    async def handshake(self, dpid: int) -> None:
        self.send(Hello())
        assert (await self.receive())[1] == Hello()
        xid, request = await self.receive()
        assert request == FeaturesRequest()
        self.send(FeaturesReply(dpid, 0, 1), xid)
        xid, request = await self.receive()
        assert request == PortDescRequest()
        self.send(PortDescReply(()), xid)

    async def closed(self) -> list[Message]:
        """What still came before the controller closed the connection."""
        async with asyncio.timeout(5):
            try:
                frames = self._framer.feed(await self.reader.read(-1))
            except ConnectionResetError:
                frames = []
        return [message for _, message in self._received] + [decode(frame) for frame in frames]


@asynccontextmanager
async def dial(listener: OpenFlowListener, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=tls)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()


async def test_rules_are_installed_read_back_and_removed() -> None:
    async with network() as net:
        driver, switch = await net.pair()
        await driver.apply(Diff("s1", add=(FLOOD, MASKED)))
        state = await driver.read()
        assert state.items == {FLOOD, MASKED}
        assert diff("s1", frozenset(state.items), frozenset({FLOOD, MASKED}), frozenset()).empty
        await driver.apply(Diff("s1", remove=(MASKED,)))
        assert (await driver.read()).items == {FLOOD}
        assert [entry.priority for entry in switch.flows()] == [1]


async def test_a_rule_of_the_same_match_is_replaced() -> None:
    async with network() as net:
        driver, _ = await net.pair()
        changed = FlowRule(MASKED.priority, MASKED.match, (("output", 2),), OURS | 2)
        await driver.apply(Diff("s1", add=(MASKED,)))
        await driver.apply(Diff("s1", add=(changed,)))
        assert (await driver.read()).items == {changed}


async def test_foreign_rules_are_reported_and_kept() -> None:
    async with network() as net:
        driver, switch = await net.pair()
        switch.pipeline.tables.add(Entry(0, 5, {}, [], cookie=7))
        actual = frozenset((await driver.read()).items)
        (foreign,) = actual
        change = diff("s1", actual, frozenset({FLOOD}), frozenset())
        assert change.foreign == (foreign,)
        await driver.apply(change)
        assert (await driver.read()).items == {foreign, FLOOD}

        same_place = FlowRule(5, (), (("output", 3),), OURS)
        clash = diff("s1", actual, frozenset({same_place, MASKED}), frozenset())
        with pytest.raises(Refused, match=r"s1: table 0 priority 5 any: a rule that is not Bellhop's has this match"):
            await driver.apply(clash)
        assert (await driver.read()).items == {foreign, FLOOD, MASKED}, "the other rule of the change is not held up"


async def test_a_removal_spares_what_took_the_rules_place() -> None:
    async with network() as net:
        driver, switch = await net.pair()
        await driver.apply(Diff("s1", add=(FLOOD,)))
        switch.pipeline.tables.add(Entry(0, 1, {}, [], cookie=7))
        await driver.apply(Diff("s1", remove=(FLOOD,)))
        assert [entry.cookie for entry in switch.flows()] == [7]


async def test_a_refusal_names_the_rule_and_the_error() -> None:
    async with network() as net:
        driver, _ = await net.pair(capacity=1)
        bad_port = FlowRule(3, (("in_port", 1),), (("output", 9),), OURS)
        no_type = FlowRule(4, (("ipv4_dst", "10.0.0.1"),), (("output", 1),), OURS)
        other_table = FlowRule(5, (), (("output", 1),), OURS, table=254)
        with pytest.raises(Refused) as caught:
            await driver.apply(Diff("s1", add=(FLOOD, bad_port, no_type, other_table, MASKED)))
        text = str(caught.value)
        assert "table 0 priority 3 in_port=1: BAD_ACTION/BAD_OUT_PORT" in text
        assert "priority 4 ipv4_dst=10.0.0.1: BAD_MATCH/BAD_PREREQ" in text
        assert "table 254 priority 5 any: FLOW_MOD_FAILED/BAD_TABLE_ID" in text
        assert "priority 100" in text
        assert "FLOW_MOD_FAILED/TABLE_FULL" in text
        assert (await driver.read()).items == {FLOOD}


async def test_what_could_not_be_recognised_again_is_a_fault_before_it_is_sent() -> None:
    async with network() as net:
        driver, _ = await net.pair()
        short_mask = FlowRule(1, (("eth_type", 0x0800), ("ipv4_dst", "10.0.0.0/24")), (("output", 1),), OURS)
        loose_mask = FlowRule(2, (("eth_type", 0x0800), ("ipv4_dst", "10.0.0.1/255.255.255.0")), (("output", 1),), OURS)
        faults = await driver.check(Diff("s1", add=(short_mask, loose_mask, FLOOD, FlowRule(1, (), (), OURS))))
        assert len(faults) == 3
        assert "ipv4_dst=10.0.0.0/24" in faults[0]
        assert "write match (('eth_type', 2048), ('ipv4_dst', '10.0.0.0/255.255.255.0'))" in faults[1]
        assert "another rule of the same change" in faults[2]


async def test_many_rules_come_back_in_several_parts() -> None:
    async with network() as net:
        driver, _ = await net.pair()
        rules = frozenset(FlowRule(5, (("in_port", number),), (("output", 2),), OURS) for number in range(900))
        await driver.apply(Diff("s1", add=tuple(rules)))
        assert (await driver.read()).items == rules


async def next_event(events: AsyncIterator[DeviceEvent]) -> DeviceEvent:
    async with asyncio.timeout(5):
        return await anext(events)


async def test_events_tell_of_sessions_ports_and_strangers_changes() -> None:
    async with network() as net:
        driver = net.manage("s1", 1)
        events = driver.events()
        with pytest.raises(Unreachable, match="s1: datapath 0000000000000001 has not connected"):
            await driver.read()
        switch = net.emulate("s1", 1)
        assert await next_event(events) == Connected("s1")
        switch.set_port(2, up=False)
        assert await next_event(events) == PortChanged("s1", 2, False)
        switch.set_port(2, up=True)
        assert await next_event(events) == PortChanged("s1", 2, True)

        await driver.apply(Diff("s1", add=(FLOOD, MASKED)))
        await driver.apply(Diff("s1", remove=(FLOOD,)))
        (entry,) = switch.flows()
        entry.hard_timeout_s = 1
        entry.added_s -= 1
        event = await next_event(events)
        assert isinstance(event, Changed), "the driver's own removal is no news, the time-out is"
        assert "priority 100" in event.what

        net.running[-1].cancel()
        assert await next_event(events) == Disconnected("s1", "the switch closed the connection")
        assert not driver.connected


async def test_a_switch_keeps_its_rules_and_comes_back() -> None:
    async with network() as net:
        driver, switch = await net.pair()
        await driver.apply(Diff("s1", add=(FLOOD,)))
        net.running[0].cancel()
        await until(lambda: not switch.connected)
        switch.set_port(3, up=False)
        again = OpenFlowSwitch("s1", 1, net.listener)
        events = again.events()
        net.running.append(net._tasks.create_task(again.run()))
        assert await next_event(events) == Connected("s1")
        assert await next_event(events) == PortChanged("s1", 3, False)
        assert (await again.read()).items == {FLOOD}


async def test_packets_come_in_and_go_out() -> None:
    async with network() as net:
        driver, switch = await net.pair()
        came: list[PacketIn] = []
        driver.on_packet_in = came.append
        out: list[bytes] = []
        switch.attach(2, out.append)
        await driver.apply(Diff("s1", add=(FlowRule(0, (), (("output", int(Port13.CONTROLLER)),), OURS),)))
        frame = bytes(range(60))
        switch.receive(1, frame)
        await until(lambda: bool(came))
        assert (came[0].in_port, came[0].data, driver.packet_ins) == (1, frame, 1)
        assert driver.packet_out(2, frame)
        await until(lambda: out == [frame])


async def test_an_application_that_fails_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with network() as net:
        driver, switch = await net.pair()
        driver.on_packet_in = lambda packet: [][0]
        await driver.apply(Diff("s1", add=(FlowRule(0, (), (("output", int(Port13.CONTROLLER)),), OURS),)))
        switch.receive(1, bytes(60))
        await until(lambda: driver.packet_ins == 1)
        await driver.read()
        assert "handling a PacketIn failed" in caplog.text


async def test_malformed_bytes_cost_that_session_only() -> None:
    async with network() as net:
        driver, _ = await net.pair()
        net.manage("s2", 2)
        async with dial(net.listener) as peer:
            await peer.handshake(2)
            await until(lambda: net.listener.counters.sessions == 2)
            peer.writer.write(b"\x01\x0e\x00\x03garbage!")
            await peer.closed()
        async with dial(net.listener) as peer:
            peer.writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await peer.closed()
        assert net.listener.counters.malformed == 2
        await driver.apply(Diff("s1", add=(FLOOD,)))
        assert driver.sessions == 1


async def test_an_undecodable_body_does_not_cost_the_session() -> None:
    async with network() as net:
        driver = net.manage("s2", 2)
        async with dial(net.listener) as peer:
            await peer.handshake(2)
            await until(lambda: driver.connected)
            peer.send(Raw(10, b"short"))
            reading = asyncio.create_task(driver.read())
            xid, _ = await peer.receive()
            peer.send(Raw(19, bytes.fromhex("0001000000000000") + b"no flow entry"), xid)
            with pytest.raises(Refused, match="cannot be decoded"):
                await reading
            assert net.listener.counters.undecodable == 2
            peer.send(EchoRequest(b"still there?"), 99)
            assert await peer.receive() == (99, EchoReply(b"still there?"))


async def test_liveness_goes_before_packets() -> None:
    async with network() as net:
        driver = net.manage("s2", 2)
        order: list[str] = []
        driver.on_packet_in = lambda packet: order.append(f"packet {driver._channel and len(driver._channel._outgoing)}")
        async with dial(net.listener) as peer:
            await peer.handshake(2)
            await until(lambda: driver.connected)
            packet = encode(PacketIn(0xFFFFFFFF, 60, 0, 0, 0, (("in_port", 1),), bytes(60)))
            peer.writer.write(packet * 10 + encode(EchoRequest(b"now")))
            await until(lambda: len(order) == 10)
            assert order[0] == "packet 1", "the echo reply was queued before the first packet was handled"


async def test_a_second_session_of_one_datapath_is_refused() -> None:
    async with network() as net:
        driver, _ = await net.pair()
        async with dial(net.listener) as peer:
            await peer.handshake(1)
            (refusal,) = await peer.closed()
            assert isinstance(refusal, Error)
            assert b"another session" in refusal.data
        await driver.read()
        assert (net.listener.counters.refused, driver.sessions) == (1, 1)


async def test_an_unknown_datapath_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with network() as net:
        async with dial(net.listener) as peer:
            await peer.handshake(0xABC)
            (refusal,) = await peer.closed()
        assert isinstance(refusal, Error)
        assert "datapath 0000000000000abc refused: no openflow-switch of the topology document has this datapath id" in caplog.text


@pytest.mark.parametrize("hello", [Hello(1, ()), Hello(6, (1, 6))])
async def test_another_version_is_refused(hello: Hello) -> None:
    async with network() as net, dial(net.listener) as peer:
        peer.send(hello)
        greeting, refusal = await peer.closed()
        assert greeting == Hello()
        assert isinstance(refusal, Error)
        assert (refusal.type, refusal.code) == (0, 0)
        assert b"speaks OpenFlow 1.3" in refusal.data


async def test_a_silent_switch_is_given_up() -> None:
    async with network(keep_alive_s=0.02) as net:
        driver = net.manage("s2", 2)
        events = driver.events()
        async with dial(net.listener) as peer:
            await peer.handshake(2)
            assert await next_event(events) == Connected("s2")
            reading = asyncio.create_task(driver.read())
            event = await next_event(events)
            assert isinstance(event, Disconnected)
            assert "silent" in event.reason
            with pytest.raises(Unreachable, match="silent"):
                await reading


async def test_an_answering_switch_is_kept() -> None:
    async with network(keep_alive_s=0.02) as net:
        driver, _ = await net.pair()
        await asyncio.sleep(0.3)
        assert driver.connected
        assert driver.sessions == 1


async def test_a_taken_port_is_named() -> None:
    async with OpenFlowListener("127.0.0.1", 0) as first:
        with pytest.raises(OSError, match=rf"port {first.port} on 127.0.0.1 is taken.*another OpenFlow port in the settings"):
            async with OpenFlowListener("127.0.0.1", first.port):
                pass


async def test_one_datapath_id_for_two_switches_is_a_fault() -> None:
    async with network() as net:
        net.manage("s1", 1)
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="two switches have the datapath id 0000000000000001"):
            await OpenFlowSwitch("s9", 1, net.listener).run()


async def test_a_storm_of_connections_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    async with network() as net:
        drivers = [net.manage(f"s{number}", number) for number in range(1, 101)]
        switches = [net.emulate(f"s{number}", number) for number in range(1, 101)]
        await until(lambda: all(driver.connected for driver in drivers))
        assert all(switch.connected for switch in switches)


async def test_tls_admits_switches_of_the_authority_and_nobody_else(tmp_path: Path) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*pki.issue(tmp_path, "controller", "bellhop"))
    server.load_verify_locations(tmp_path / "ca.crt")
    server.verify_mode = ssl.CERT_REQUIRED
    known = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    known.load_cert_chain(*pki.issue(tmp_path, "qkd", "s1"))
    nameless = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    async with OpenFlowListener("127.0.0.1", 0, tls=lambda: server) as listener:
        driver = OpenFlowSwitch("s1", 1, listener)
        running = asyncio.create_task(driver.run())
        async with dial(listener, known) as peer:
            await peer.handshake(1)
            await until(lambda: driver.connected)
        for stranger in (nameless, None):
            with pytest.raises((OSError, AssertionError)):
                async with dial(listener, stranger) as peer:
                    await peer.handshake(1)
        assert driver.sessions == 1
        running.cancel()
