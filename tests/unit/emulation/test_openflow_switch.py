"""The emulated switch on sockets and wires: hosts that ping through it, and controllers that it dials."""

from __future__ import annotations

import asyncio
import struct

from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topologies.emulation.frames import EmulatedHost, wire
from topologies.emulation.openflow.pipeline import PROTOCOL
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
