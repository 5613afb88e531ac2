"""The emulated switch on sockets and wires: hosts that ping through it, and controllers that it dials."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topologies.emulation import pki
from topologies.emulation.frames import EmulatedHost, wire
from topologies.emulation.openflow.pipeline import PROTOCOL, to_bytes
from topologies.emulation.openflow_switch import EmulatedSwitch

FLOODING = parser.OFPFlowMod(
    PROTOCOL,
    priority=1,
    instructions=[parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, [parser.OFPActionOutput(ofp.OFPP_FLOOD)])],
)


def two_switches(*flow_mods: object) -> tuple[EmulatedSwitch, EmulatedSwitch, EmulatedHost, EmulatedHost]:
    """h1 - s1 - s2 - h2; port 1 is the host's, port 2 the trunk."""
    switches = [EmulatedSwitch(f"s{number}", number, [1, 2], ("127.0.0.1", 9)) for number in (1, 2)]
    hosts = [EmulatedHost(f"h{number}", f"02:00:00:00:00:0{number}", f"10.0.0.{number}") for number in (1, 2)]
    for switch, other, host in zip(switches, reversed(switches), hosts, strict=True):
        for flow_mod in flow_mods:
            switch.pipeline.apply(flow_mod)
        host.attach(wire(lambda data, switch=switch: switch.receive(1, data)))  # type: ignore[misc]
        switch.attach(1, wire(host.receive))
        switch.attach(2, wire(lambda data, other=other: other.receive(2, data)))  # type: ignore[misc]
    return switches[0], switches[1], hosts[0], hosts[1]


async def test_hosts_ping_across_two_switches() -> None:
    _, s2, h1, h2 = two_switches(FLOODING)
    result = await h1.ping("10.0.0.2", count=3)
    assert (result.sent, result.received, len(result.rtts_ms)) == (3, 3, 3)
    assert all(0 < rtt_ms < 1000 for rtt_ms in result.rtts_ms)
    s2.set_port(2, up=False)
    assert (await h2.ping("10.0.0.1", timeout_s=0.05)).received == 0
    s2.set_port(2, up=True)
    assert (await h2.ping("10.0.0.1")).received == 1


async def test_without_rules_nothing_passes() -> None:
    _, _, h1, _ = two_switches()
    assert (await h1.ping("10.0.0.2", timeout_s=0.05)).received == 0


async def test_nobody_answers_for_an_address_that_is_not_there() -> None:
    _, _, h1, _ = two_switches(FLOODING)
    assert (await h1.ping("10.0.0.77", timeout_s=0.05)).received == 0
    assert (await h1.ping("10.0.0.2")).received == 1


async def test_latency_is_felt() -> None:
    h1, h2 = EmulatedHost("h1", "02:00:00:00:00:01", "10.0.0.1"), EmulatedHost("h2", "02:00:00:00:00:02", "10.0.0.2")
    h1.attach(wire(h2.receive, latency_s=0.01))
    h2.attach(wire(h1.receive, latency_s=0.01))
    (rtt_ms,) = (await h1.ping("10.0.0.2")).rtts_ms
    assert rtt_ms >= 19


async def test_a_loop_of_flooding_switches_dies_out() -> None:
    carried = 0
    switches = [EmulatedSwitch(f"s{number}", number, [1, 2, 3], ("127.0.0.1", 9)) for number in range(3)]

    def carry(switch: EmulatedSwitch, port: int, data: bytes) -> None:
        nonlocal carried
        carried += 1
        switch.receive(port, data)

    for index, switch in enumerate(switches):
        switch.pipeline.apply(FLOODING)
        for port, other in ((2, switches[index - 2]), (3, switches[index - 1])):
            switch.attach(port, wire(lambda data, other=other, port=port: carry(other, 5 - port, data)))  # type: ignore[misc]
    switches[0].receive(1, bytes(60))
    before = -1
    while carried != before:
        before = carried
        for _ in range(200):
            await asyncio.sleep(0)
    assert 100 < carried < 20_000


async def test_requests_it_does_not_know_are_answered_with_errors() -> None:
    """What the controller's driver never sends, so no other test meets it."""
    answers: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()

    async def controller(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests = [
            (ofp.OFPT_HELLO, b""),
            (99, b""),
            (ofp.OFPT_MULTIPART_REQUEST, struct.pack("!HH4x", ofp.OFPMP_QUEUE, 0)),
            (ofp.OFPT_FLOW_MOD, b"cut short"),
            (ofp.OFPT_BARRIER_REQUEST, b""),
        ]
        for xid, (kind, body) in enumerate(requests):
            writer.write(struct.pack("!BBHI", 4, kind, 8 + len(body), xid) + body)
        while True:
            _, kind, length, xid = struct.unpack("!BBHI", await reader.readexactly(8))
            body = await reader.readexactly(length - 8)
            await answers.put((kind, body[:4]))
            if kind == ofp.OFPT_BARRIER_REPLY:
                writer.close()
                return

    server = await asyncio.start_server(controller, "127.0.0.1", 0)
    switch = EmulatedSwitch("s1", 1, [1], server.sockets[0].getsockname()[:2])
    running = asyncio.create_task(switch.run())
    async with asyncio.timeout(5):
        seen = [await answers.get() for _ in range(5)]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    server.close()
    await server.wait_closed()
    assert seen == [
        (ofp.OFPT_HELLO, b""),
        (ofp.OFPT_ERROR, struct.pack("!HH", ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_TYPE)),
        (ofp.OFPT_ERROR, struct.pack("!HH", ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_MULTIPART)),
        (ofp.OFPT_ERROR, struct.pack("!HH", ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_LEN)),
        (ofp.OFPT_BARRIER_REPLY, b""),
    ]


class Door:
    """A listening controller of few words: it says HELLO, sends what it is given, and keeps what it is told."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.names: list[str] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        return ("127.0.0.1", self.server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("peercert") or {}
        self.names += [name for kind, name in certificate.get("subjectAltName", ()) if kind == "URI"]
        self._writers.append(writer)
        self.send(ofp.OFPT_HELLO)
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                _, kind, length, _ = struct.unpack("!BBHI", await reader.readexactly(8))
                await self.told.put((kind, await reader.readexactly(length - 8)))

    def send(self, kind: int, body: bytes = b"") -> None:
        self._writers[-1].write(struct.pack("!BBHI", 4, kind, 8 + len(body), 0) + body)

    async def until(self, kind: int) -> bytes:
        async with asyncio.timeout(5):
            while True:
                told, body = await self.told.get()
                if told == kind:
                    return body

    def hang_up(self) -> None:
        self._writers[-1].close()

    async def close(self) -> None:
        self.hang_up()
        self.server.close()
        await self.server.wait_closed()


@asynccontextmanager
async def dialling(switch: EmulatedSwitch, *doors: Door) -> AsyncIterator[None]:
    running = asyncio.create_task(switch.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for door in doors:
            await door.close()


async def test_rules_stay_and_forward_while_no_controller_is_there() -> None:
    out: list[bytes] = []
    door = Door()
    switch = EmulatedSwitch("s1", 1, [1, 2], await door.open())
    switch.attach(2, out.append)
    async with dialling(switch, door):
        await door.until(ofp.OFPT_HELLO)
        door.send(ofp.OFPT_FLOW_MOD, to_bytes(FLOODING)[8:])
        door.send(ofp.OFPT_BARRIER_REQUEST)
        await door.until(ofp.OFPT_BARRIER_REPLY)
        (entry,) = switch.flows()
        door.hang_up()
        async with asyncio.timeout(5):
            while switch.connected:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.005)
        switch.receive(1, bytes(60))
        assert out == [bytes(60)]
        await door.until(ofp.OFPT_HELLO)
        assert switch.flows() == [entry]


async def test_several_controllers_are_served_at_once() -> None:
    doors = [Door(), Door()]
    switch = EmulatedSwitch("s1", 1, [1, 2], *[await door.open() for door in doors])
    async with dialling(switch, *doors):
        for generation, door in enumerate(doors):
            await door.until(ofp.OFPT_HELLO)
            door.send(ofp.OFPT_ROLE_REQUEST, struct.pack("!I4xQ", ofp.OFPCR_ROLE_MASTER, generation))
            assert await door.until(ofp.OFPT_ROLE_REPLY) == struct.pack("!I4xQ", ofp.OFPCR_ROLE_MASTER, generation)
        switch.set_port(1, up=False)
        for door in doors:
            await door.until(ofp.OFPT_PORT_STATUS)
        doors[0].send(ofp.OFPT_FLOW_MOD, to_bytes(FLOODING)[8:])
        assert (await doors[0].until(ofp.OFPT_ERROR))[:4] == struct.pack("!HH", ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_IS_SLAVE)


def context(purpose: ssl.Purpose, directory: Path, role: pki.Role, name: str) -> ssl.SSLContext:
    made = ssl.create_default_context(purpose, cafile=None)
    made.load_cert_chain(*pki.issue(directory, role, name))
    made.load_verify_locations(directory / "ca.crt")
    made.verify_mode = ssl.CERT_REQUIRED
    return made


async def test_it_shows_its_certificate_and_looks_at_the_controllers(tmp_path: Path) -> None:
    door = Door()
    address = await door.open(context(ssl.Purpose.CLIENT_AUTH, tmp_path, "controller", "bellhop"))
    switch = EmulatedSwitch("s1", 1, [1], address, tls=context(ssl.Purpose.SERVER_AUTH, tmp_path, "qkd", "s1"))
    async with dialling(switch, door):
        await door.until(ofp.OFPT_HELLO)
        assert door.names == ["urn:bellhop:qkd:s1"]


async def test_a_controller_of_another_authority_is_not_served(tmp_path: Path) -> None:
    stranger, door = Door(), Door()
    addresses = [
        await stranger.open(context(ssl.Purpose.CLIENT_AUTH, tmp_path / "other", "controller", "bellhop")),
        await door.open(context(ssl.Purpose.CLIENT_AUTH, tmp_path, "controller", "bellhop")),
    ]
    switch = EmulatedSwitch("s1", 1, [1], *addresses, tls=context(ssl.Purpose.SERVER_AUTH, tmp_path, "qkd", "s1"))
    running = asyncio.create_task(switch.run())
    await door.until(ofp.OFPT_HELLO)
    assert stranger.told.empty()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await door.close()
    stranger.server.close()


async def test_a_controller_that_speaks_another_version_is_told_so() -> None:
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def old_controller(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(struct.pack("!BBHI", 1, ofp.OFPT_HELLO, 8, 0))
        await answers.put(await reader.read(-1))
        writer.close()

    server = await asyncio.start_server(old_controller, "127.0.0.1", 0)
    switch = EmulatedSwitch("s1", 1, [1], server.sockets[0].getsockname()[:2])
    async with dialling(switch), asyncio.timeout(5):
        hello_and_error = await answers.get()
    server.close()
    await server.wait_closed()
    assert hello_and_error[8:12] == struct.pack("!BBH", 4, ofp.OFPT_ERROR, 12)
    assert hello_and_error[16:] == struct.pack("!HH", ofp.OFPET_HELLO_FAILED, ofp.OFPHFC_INCOMPATIBLE)
