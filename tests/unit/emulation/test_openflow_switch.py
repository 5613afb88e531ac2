"""The emulated switch: its flow table, the frames it rewrites, and hosts that ping through it."""

from __future__ import annotations

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.lib.packet import ethernet, ipv4, packet, tcp, udp, vlan
from os_ken.ofproto import ofproto_v1_3 as ofp

from controller.southbound.device import Actions, FlowRule, Match
from topologies.emulation.flow_table import Bits, Entry, FlowTable, field_bits
from topologies.emulation.frames import EmulatedHost, headers, rewrite, wire
from topologies.emulation.openflow_switch import EmulatedSwitch

PORTS = (1, 2, 3)
FLOOD, CONTROLLER, IN_PORT = ofp.OFPP_FLOOD, ofp.OFPP_CONTROLLER, ofp.OFPP_IN_PORT


def frame(dst: str = "02:00:00:00:00:02", ip_dst: str = "10.0.0.2", vid: int = 0, transport: type = udp.udp) -> bytes:
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet(dst, "02:00:00:00:00:01", 0x8100 if vid else 0x0800))
    if vid:
        made.add_protocol(vlan.vlan(vid=vid, ethertype=0x0800))
    made.add_protocol(ipv4.ipv4(src="10.0.0.1", dst=ip_dst, proto=6 if transport is tcp.tcp else 17))
    made.add_protocol(transport(src_port=1000, dst_port=53))
    made.add_protocol(b"question")
    made.serialize()
    return bytes(made.data)


def rule(priority: int, match: Match, *actions: tuple[str, int | str]) -> FlowRule:
    return FlowRule(priority, match, actions, 0)


def ports_out(rules: list[FlowRule], sent: bytes, in_port: int = 1) -> list[int]:
    return [port for port, _ in FlowTable.of(rules).forward(sent, in_port, PORTS)]


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ((), True),
        ((("in_port", 1),), True),
        ((("in_port", 2),), False),
        ((("eth_dst", "02:00:00:00:00:02"),), True),
        ((("eth_dst", "02:00:00:00:00:03"),), False),
        ((("eth_dst", "02:00:00:00:00:00/ff:ff:ff:ff:ff:00"),), True),
        ((("eth_type", 0x0800), ("ipv4_dst", "10.0.0.0/255.255.255.0")), True),
        ((("eth_type", 0x0800), ("ipv4_dst", "10.0.1.0/255.255.255.0")), False),
        ((("eth_type", 0x0806), ("arp_op", 1)), False),
        ((("udp_dst", 53),), True),
        ((("tcp_dst", 53),), False),
        ((("vlan_vid", 0),), True),
        ((("vlan_vid", "0x1000/0x1000"),), False),
    ],
)
def test_matching(match: Match, hit: bool) -> None:
    assert ports_out([rule(1, match, ("output", 2))], frame()) == ([2] if hit else [])


def test_the_highest_priority_wins() -> None:
    rules = [rule(1, (), ("output", 2)), rule(9, (("in_port", 1),), ("output", 3)), rule(5, (), ("output", 1))]
    assert ports_out(rules, frame()) == [3]


@pytest.mark.parametrize(("port", "out"), [(FLOOD, [2, 3]), (1, []), (IN_PORT, [1]), (CONTROLLER, [CONTROLLER]), (77, [])], ids=str)
def test_outputs(port: int, out: list[int]) -> None:
    assert ports_out([rule(1, (), ("output", port))], frame()) == out


def test_actions_take_effect_in_order() -> None:
    rules = [rule(1, (), ("output", 2), ("set_field:eth_dst", "02:00:00:00:00:09"), ("output", 3))]
    (_, before), (_, after) = FlowTable.of(rules).forward(frame(), 1, PORTS)
    assert before == frame()
    assert after == frame(dst="02:00:00:00:00:09")


def test_a_vlan_tag_goes_on_and_off() -> None:
    tag: Actions = (("push_vlan", 0x8100), ("set_field:vlan_vid", 0x1000 | 42), ("output", 2))
    ((_, tagged),) = FlowTable.of([rule(1, (), *tag)]).forward(frame(), 1, PORTS)
    assert packet.Packet(tagged).get_protocol(vlan.vlan).vid == 42
    assert headers(tagged, 1)["vlan_vid"] == 0x1000 | 42
    untag = FlowTable.of([rule(1, (("vlan_vid", 0x1000 | 42),), ("pop_vlan", 0), ("output", 2))])
    assert untag.forward(tagged, 1, PORTS) == [(2, frame())]


@pytest.mark.parametrize("transport", [udp.udp, tcp.tcp])
@pytest.mark.parametrize("vid", [0, 7])
def test_rewritten_addresses_have_right_checksums(transport: type, vid: int) -> None:
    """Against os-ken's packet library, which computes the checksums of the expected frame itself."""
    sent = frame(vid=vid, transport=transport)
    assert rewrite(sent, "ipv4_dst", int.from_bytes(bytes([10, 0, 0, 9]))) == frame(ip_dst="10.0.0.9", vid=vid, transport=transport)


@given(st.binary(max_size=120), st.sampled_from(["eth_dst", "vlan_vid", "ipv4_src", "arp_tpa", "udp_src", "ipv6_dst", "ip_dscp"]))
def test_no_frame_upsets_the_parser(data: bytes, name: str) -> None:
    data = data.ljust(14, b"\0")
    fields = headers(data, 1)
    assert len(rewrite(data, name, fields.get(name, 0))) == len(data)


def bits(*match: tuple[str, int | str]) -> dict[str, Bits]:
    return {name: field_bits(name, value) for name, value in match}


def test_strict_and_loose_requests_select_what_they_should() -> None:
    table = FlowTable()
    wide = Entry(1, bits(("eth_type", 0x0800)), (("output", 2),), cookie=0xA0)
    narrow = Entry(2, bits(("eth_type", 0x0800), ("ipv4_dst", "10.0.0.0/255.255.255.0")), (("output", 3),), cookie=0xB0)
    for entry in (wide, narrow):
        table.add(entry)
    assert table.select({}, None) == [narrow, wide]
    assert table.select(bits(("eth_type", 0x0800), ("ipv4_dst", "10.0.0.0/255.255.0.0")), None) == [narrow]
    assert table.select(bits(("eth_type", 0x0800)), 1) == [wide]
    assert table.select(bits(("eth_type", 0x0800)), 2) == []
    assert table.select({}, None, cookie=0xA0, cookie_mask=0xF0) == [wide]
    assert table.select({}, None, out_port=3) == [narrow]
    table.delete([wide])
    assert table.entries == [narrow]


def test_entries_count_and_expire() -> None:
    now_s = 0.0
    table = FlowTable(clock=lambda: now_s)
    idle = Entry(2, {}, (), idle_timeout_s=2)
    hard = Entry(1, {}, (), hard_timeout_s=5)
    table.add(idle)
    table.add(hard)
    now_s = 1.5
    table.forward(frame(), 1, PORTS)
    assert (idle.packets, idle.bytes, hard.packets) == (1, len(frame()), 0)
    now_s = 3.0
    assert table.expired() == []
    now_s = 5.0
    assert table.expired() == [(idle, ofp.OFPRR_IDLE_TIMEOUT), (hard, ofp.OFPRR_HARD_TIMEOUT)]


def two_switches(rules: list[FlowRule]) -> tuple[EmulatedSwitch, EmulatedSwitch, EmulatedHost, EmulatedHost]:
    """h1 - s1 - s2 - h2; port 1 is the host's, port 2 the trunk."""
    switches = [EmulatedSwitch(f"s{number}", number, [1, 2], ("127.0.0.1", 9)) for number in (1, 2)]
    hosts = [EmulatedHost(f"h{number}", f"02:00:00:00:00:0{number}", f"10.0.0.{number}") for number in (1, 2)]
    for switch, other, host in zip(switches, reversed(switches), hosts, strict=True):
        switch.table = FlowTable.of(rules)
        host.attach(wire(lambda data, switch=switch: switch.receive(1, data)))  # type: ignore[misc]
        switch.attach(1, wire(host.receive))
        switch.attach(2, wire(lambda data, other=other: other.receive(2, data)))  # type: ignore[misc]
    return switches[0], switches[1], hosts[0], hosts[1]


async def test_hosts_ping_across_two_switches() -> None:
    _, s2, h1, h2 = two_switches([rule(1, (), ("output", FLOOD))])
    result = await h1.ping("10.0.0.2", count=3)
    assert (result.sent, result.received, len(result.rtts_ms)) == (3, 3, 3)
    assert all(0 < rtt_ms < 1000 for rtt_ms in result.rtts_ms)
    s2.set_port(2, up=False)
    assert (await h2.ping("10.0.0.1", timeout_s=0.05)).received == 0
    s2.set_port(2, up=True)
    assert (await h2.ping("10.0.0.1")).received == 1


async def test_without_rules_nothing_passes() -> None:
    _, _, h1, _ = two_switches([])
    assert (await h1.ping("10.0.0.2", timeout_s=0.05)).received == 0


async def test_nobody_answers_for_an_address_that_is_not_there() -> None:
    _, _, h1, _ = two_switches([rule(1, (), ("output", FLOOD))])
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
        switch.table = FlowTable.of([rule(1, (), ("output", FLOOD))])
        for port, other in ((2, switches[index - 2]), (3, switches[index - 1])):
            switch.attach(port, wire(lambda data, other=other, port=port: carry(other, 5 - port, data)))  # type: ignore[misc]
    switches[0].receive(1, frame())
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
            (ofp.OFPT_GET_CONFIG_REQUEST, b""),
            (ofp.OFPT_MULTIPART_REQUEST, struct.pack("!HH4x", ofp.OFPMP_METER, 0)),
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
