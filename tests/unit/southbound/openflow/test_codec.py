"""The codec against os-ken's, an independent implementation, and against nonsense."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.ofproto import ofproto_parser, ofproto_protocol
from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as osken

from controller.southbound.device import FlowRule
from controller.southbound.openflow.codec import Frame, Framer, decode, encode
from controller.southbound.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    EchoReply,
    EchoRequest,
    Error,
    FeaturesReply,
    FeaturesRequest,
    FlowCommand,
    FlowMod,
    FlowRemoved,
    FlowStats,
    FlowStatsReply,
    FlowStatsRequest,
    Hello,
    MalformedMessage,
    Message,
    PacketIn,
    PacketOut,
    Port,
    PortDescReply,
    PortDescRequest,
    PortStatus,
    Raw,
    Type,
)

OSKEN = ofproto_protocol.ProtocolDesc(version=4)
NUMBERS = {
    "in_port": 32,
    "in_phy_port": 32,
    "metadata": 64,
    "eth_type": 16,
    "vlan_vid": 13,
    "vlan_pcp": 3,
    "ip_dscp": 6,
    "ip_ecn": 2,
    "ip_proto": 8,
    "tcp_src": 16,
    "tcp_dst": 16,
    "udp_src": 16,
    "udp_dst": 16,
    "sctp_src": 16,
    "sctp_dst": 16,
    "icmpv4_type": 8,
    "icmpv4_code": 8,
    "arp_op": 16,
    "ipv6_flabel": 20,
    "icmpv6_type": 8,
    "icmpv6_code": 8,
    "mpls_label": 20,
    "mpls_tc": 3,
    "mpls_bos": 1,
    "pbb_isid": 24,
    "tunnel_id": 64,
    "ipv6_exthdr": 9,
}
MACS = ("eth_dst", "eth_src", "arp_sha", "arp_tha", "ipv6_nd_sll", "ipv6_nd_tll")
IPV4S = ("ipv4_src", "ipv4_dst", "arp_spa", "arp_tpa")
IPV6S = ("ipv6_src", "ipv6_dst", "ipv6_nd_target")
WIDTHS = NUMBERS | dict.fromkeys(MACS, 48) | dict.fromkeys(IPV4S, 32) | dict.fromkeys(IPV6S, 128)


def text_of(name: str, value: int) -> str:
    if name in MACS:
        return value.to_bytes(6).hex(":")
    if name in IPV4S:
        return str(IPv4Address(value))
    return str(IPv6Address(value)) if name in IPV6S else hex(value)


@st.composite
def values(draw: st.DrawFn, name: str, masks: bool = True) -> int | str:
    bits = WIDTHS[name]
    value = draw(st.integers(0, (1 << bits) - 1))
    if masks and bits > 1 and draw(st.booleans()):
        mask = draw(st.integers(1, (1 << bits) - 2))
        return f"{text_of(name, value & mask)}/{text_of(name, mask)}"
    return value if name in NUMBERS else text_of(name, value)


@st.composite
def matches(draw: st.DrawFn) -> tuple[tuple[str, int | str], ...]:
    names = draw(st.sets(st.sampled_from(sorted(WIDTHS)), max_size=8))
    return tuple((name, draw(values(name))) for name in sorted(names))


@st.composite
def set_fields(draw: st.DrawFn) -> tuple[str, int | str]:
    name = draw(st.sampled_from(sorted(WIDTHS)))
    return f"set_field:{name}", draw(values(name, masks=False))


def action(*names: str, bits: int = 0) -> st.SearchStrategy[tuple[str, int | str]]:
    return st.tuples(st.sampled_from(names), st.integers(0, (1 << bits) - 1))


action_lists = st.lists(
    st.one_of(
        action("output", "group", "set_queue", bits=32),
        action("push_vlan", "push_mpls", "pop_mpls", "push_pbb", bits=16),
        action("set_nw_ttl", "set_mpls_ttl", bits=8),
        action("pop_vlan", "dec_nw_ttl", "dec_mpls_ttl", "copy_ttl_in", "copy_ttl_out", "pop_pbb"),
        set_fields(),
    ),
    max_size=5,
).map(tuple)
u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
instructions = st.sampled_from([(), (("goto_table", 3),), (("meter", 9),), (("goto_table", 3), ("meter", 9))])
rules = st.builds(
    lambda priority, match, actions, others, cookie, table: FlowRule(priority, match, actions + others, cookie, table),
    *(u16, matches(), action_lists, instructions, u64, u8),
)
macs = st.binary(min_size=6, max_size=6).map(lambda mac: mac.hex(":"))
ports = st.builds(Port, u32, macs, st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=15), *(u32,) * 8)
durations_s = st.integers(0, 1 << 20).map(lambda ticks: ticks / 512)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, bitmap=st.sets(st.integers(1, 30), max_size=4).map(lambda versions: tuple(sorted(versions)))),
    st.builds(Error, u16.filter(lambda kind: kind != 0xFFFF), u16, st.binary()),
    st.builds(EchoRequest, st.binary()),
    st.builds(EchoReply, st.binary()),
    st.builds(FeaturesReply, u64, u32, u8, u8, u32),
    st.sampled_from([FeaturesRequest(), BarrierRequest(), BarrierReply(), PortDescRequest()]),
    st.builds(PacketIn, u32, u16, u8, u8, u64, matches(), st.binary()),
    st.builds(PacketOut, action_lists, st.binary(), u32),
    st.builds(FlowMod, st.sampled_from(FlowCommand), rules, u64, u16, u16, u32, u32, u32, u16),
    st.builds(FlowRemoved, u64, u16, u8, u8, durations_s, u16, u16, u64, u64, matches()),
    st.builds(PortStatus, u8, ports),
    st.builds(PortDescReply, st.lists(ports, max_size=3).map(tuple), st.booleans()),
    st.builds(FlowStatsRequest, u8, u32, u32, u64, u64, matches()),
    st.builds(
        FlowStatsReply, st.lists(st.builds(FlowStats, rules, durations_s, u16, u16, u16, u64, u64), max_size=3).map(tuple), st.booleans()
    ),
    st.builds(Raw, st.integers(22, 40), st.binary()),
)


def decoded(data: bytes) -> Message:
    (frame,) = Framer().feed(data)
    return decode(frame)


@given(messages, u32)
def test_a_message_survives_the_wire(message: Message, xid: int) -> None:
    (frame,) = Framer().feed(encode(message, xid))
    assert frame.xid == xid
    assert decode(frame) == message


def osken_value(name: str, value: int | str) -> Any:
    if isinstance(value, str) and "/" in value:
        plain, _, mask = value.partition("/")
        return (int(plain, 16), int(mask, 16)) if name in NUMBERS else (plain, mask)
    return value


def osken_match(match: tuple[tuple[str, int | str], ...]) -> Any:
    return osken.OFPMatch(**{name: osken_value(name, value) for name, value in match})


OSKEN_ACTIONS = {
    "output": lambda port: osken.OFPActionOutput(port, 0xFFFF if port == ofp.OFPP_CONTROLLER else 0),
    "group": osken.OFPActionGroup,
    "set_queue": osken.OFPActionSetQueue,
    "push_vlan": osken.OFPActionPushVlan,
    "push_mpls": osken.OFPActionPushMpls,
    "pop_mpls": osken.OFPActionPopMpls,
    "push_pbb": osken.OFPActionPushPbb,
    "set_nw_ttl": osken.OFPActionSetNwTtl,
    "set_mpls_ttl": osken.OFPActionSetMplsTtl,
    "pop_vlan": lambda _: osken.OFPActionPopVlan(),
    "dec_nw_ttl": lambda _: osken.OFPActionDecNwTtl(),
    "dec_mpls_ttl": lambda _: osken.OFPActionDecMplsTtl(),
    "copy_ttl_in": lambda _: osken.OFPActionCopyTtlIn(),
    "copy_ttl_out": lambda _: osken.OFPActionCopyTtlOut(),
    "pop_pbb": lambda _: osken.OFPActionPopPbb(),
}


def osken_actions(actions: tuple[tuple[str, int | str], ...]) -> list[Any]:
    return [
        osken.OFPActionSetField(**{name.removeprefix("set_field:"): value}) if name.startswith("set_field:") else OSKEN_ACTIONS[name](value)
        for name, value in actions
    ]


def osken_instructions(actions: tuple[tuple[str, int | str], ...]) -> list[Any]:
    made = {"goto_table": osken.OFPInstructionGotoTable, "meter": osken.OFPInstructionMeter}
    applied = osken_actions(tuple(item for item in actions if item[0] not in made))
    first = [osken.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, applied)] if applied else []
    return first + [made[name](value) for name, value in actions if name in made]


def as_osken(message: Message) -> Any:
    """The same message as os-ken would send it; None where os-ken has no encoder."""
    match message:
        case Error(kind, code, data):
            return osken.OFPErrorMsg(OSKEN, kind, code, data)
        case EchoRequest(data):
            return osken.OFPEchoRequest(OSKEN, data)
        case EchoReply(data):
            return osken.OFPEchoReply(OSKEN, data)
        case FeaturesRequest():
            return osken.OFPFeaturesRequest(OSKEN)
        case BarrierRequest():
            return osken.OFPBarrierRequest(OSKEN)
        case PortDescRequest():
            return osken.OFPPortDescStatsRequest(OSKEN, 0)
        case PacketOut(actions, data, in_port, buffer_id) if actions:  # without actions, os-ken overwrites the frame with the header
            return osken.OFPPacketOut(OSKEN, buffer_id, in_port, osken_actions(actions), data)
        case FlowMod(command, rule, mask, idle, hard, buffer_id, out_port, out_group, flags):
            return osken.OFPFlowMod(
                *(OSKEN, rule.cookie, mask, rule.table, int(command), idle, hard, rule.priority, buffer_id, out_port, out_group, flags),
                *(osken_match(rule.match), osken_instructions(rule.actions)),
            )
        case FlowStatsRequest(table, out_port, out_group, cookie, mask, match_fields):
            return osken.OFPFlowStatsRequest(OSKEN, 0, table, out_port, out_group, cookie, mask, osken_match(match_fields))
    return None


@given(messages.filter(lambda message: as_osken(message) is not None), u32)
def test_our_bytes_are_os_kens(message: Message, xid: int) -> None:
    theirs = as_osken(message)
    theirs.set_xid(xid)
    theirs.serialize()
    assert encode(message, xid) == bytes(theirs.buf)


def same_match(ours: tuple[tuple[str, int | str], ...], theirs: Any) -> None:
    assert {name: number(name, value) for name, value in theirs.items()} == {
        name: number(name, osken_value(name, value)) for name, value in ours
    }


def number(name: str, value: Any) -> Any:
    """IPv6 addresses have several spellings (`::1.2.3.4`), and os-ken's is not ours."""
    if name not in IPV6S:
        return value
    return tuple(map(IPv6Address, value)) if isinstance(value, tuple) else IPv6Address(value)


def same_instructions(ours: tuple[tuple[str, int | str], ...], theirs: list[Any]) -> None:
    assert [item.to_jsondict() for item in theirs] == [item.to_jsondict() for item in parsed_back(osken_instructions(ours))]


def parsed_back(items: list[Any]) -> list[Any]:
    data = bytearray()
    for item in items:
        item.serialize(data, len(data))
    parsed, offset = [], 0
    while offset < len(data):
        parsed.append(osken.OFPInstruction.parser(bytes(data), offset))
        offset += parsed[-1].len
    return parsed


@given(messages)
def test_os_ken_reads_what_we_mean(message: Message) -> None:
    data = encode(message, 5)
    kind = data[1]
    if kind in (Type.FEATURES_REQUEST, Type.BARRIER_REQUEST, Type.PACKET_OUT, Type.MULTIPART_REQUEST) or isinstance(message, Raw):
        return  # os-ken has no parser for these; their bytes are compared above
    theirs = ofproto_parser.msg(OSKEN, 4, kind, len(data), 5, data)
    match message:
        case Hello(_, bitmap):
            assert [sorted(element.versions) for element in theirs.elements] == ([list(bitmap)] if bitmap else [])
        case Error(error, code, body):
            assert (theirs.type, theirs.code, bytes(theirs.data)) == (error, code, body)
        case EchoRequest(body) | EchoReply(body):
            assert bytes(theirs.data or b"") == body
        case FeaturesReply():
            assert theirs.datapath_id == message.datapath_id
            assert (theirs.n_buffers, theirs.n_tables, theirs.auxiliary_id) == (message.buffers, message.tables, message.auxiliary_id)
        case PacketIn():
            assert (theirs.buffer_id, theirs.total_len, theirs.cookie) == (message.buffer_id, message.total_length, message.cookie)
            assert bytes(theirs.data) == message.data[: message.total_length]
            same_match(message.match, theirs.match)
        case FlowMod(rule=rule):
            assert (theirs.priority, theirs.cookie, theirs.table_id) == (rule.priority, rule.cookie, rule.table)
            same_match(rule.match, theirs.match)
            same_instructions(rule.actions, theirs.instructions)
        case FlowRemoved():
            assert (theirs.cookie, theirs.priority, theirs.reason) == (message.cookie, message.priority, message.reason)
            assert theirs.duration_sec + theirs.duration_nsec / 1e9 == message.duration_s
            same_match(message.match, theirs.match)
        case PortStatus(reason, port):
            assert (theirs.reason, theirs.desc.port_no, theirs.desc.hw_addr) == (reason, port.number, port.mac)
        case PortDescReply(listed, more):
            assert [(p.port_no, p.name.decode(), p.state, p.max_speed) for p in theirs.body] == [
                (p.number, p.name, p.state, p.maximum_speed_kbps) for p in listed
            ]
            assert theirs.flags == more
        case FlowStatsReply(flows, more):
            assert theirs.flags == more
            assert len(theirs.body) == len(flows)
            for entry, flow in zip(theirs.body, flows, strict=True):
                assert (entry.priority, entry.packet_count, entry.byte_count) == (flow.rule.priority, flow.packets, flow.bytes)
                same_match(flow.rule.match, entry.match)
                same_instructions(flow.rule.actions, entry.instructions)


@given(st.lists(messages, max_size=6), st.lists(st.integers(1, 50), min_size=1))
def test_the_stream_may_be_cut_anywhere(sent: list[Message], cuts: list[int]) -> None:
    stream = b"".join(encode(message, index) for index, message in enumerate(sent))
    framer = Framer()
    frames: list[Frame] = []
    turn = 0
    while stream:
        size = cuts[turn % len(cuts)]
        frames += framer.feed(stream[:size])
        stream, turn = stream[size:], turn + 1
    assert [(frame.xid, decode(frame)) for frame in frames] == list(enumerate(sent))


def feed_and_decode(data: bytes) -> None:
    try:
        frames = Framer().feed(data)
    except MalformedMessage:
        return
    for frame in frames:
        try:
            message = decode(frame)
        except MalformedMessage:
            continue
        assert message is not None


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_malformed_or_a_message(data: bytes) -> None:
    feed_and_decode(data)


@given(st.sampled_from([*Type, 4, 7, 9, 15, 24, 99]), st.binary(max_size=200))
def test_arbitrary_bodies_are_malformed_or_a_message(kind: int, body: bytes) -> None:
    feed_and_decode(bytes([4, kind]) + (8 + len(body)).to_bytes(2) + bytes(4) + body)


@given(messages, st.data())
def test_damaged_messages_are_malformed_or_a_message(message: Message, data: st.DataObject) -> None:
    damaged = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    feed_and_decode(bytes(damaged))


@pytest.mark.parametrize(
    "header",
    ["0a00000800000000", "010e000800000000", "040e000700000000", "0000000800000000"],
    ids=["future version, HELLO is fine", "FLOW_MOD of 1.0", "too short", "no version"],
)
def test_a_nonsensical_header_ends_the_stream(header: str) -> None:
    if header.startswith("0a00"):
        assert decoded(bytes.fromhex(header)) == Hello(10, ())
        return
    with pytest.raises(MalformedMessage, match=f"version {int(header[:2])}"):
        Framer().feed(bytes.fromhex(header))


def test_what_is_not_modelled_is_kept_and_written_back() -> None:
    """A Nicira resubmit action, an experimenter's instruction and match field, as a switch may show them."""
    resubmit = "ffff001000002320000e000500000000"
    actions = (("raw", resubmit), ("output", 4), ("instruction", "ffff00080000abcd"))
    rule = FlowRule(7, (("oxm:ffff0c04", "00002320"),), actions, 99)
    mod = FlowMod(FlowCommand.ADD, rule)
    assert decoded(encode(mod)) == mod


def test_an_output_that_sends_less_than_the_frame_to_the_controller_is_told_apart() -> None:
    whole = encode(PacketOut((("output", ofp.OFPP_CONTROLLER),)))
    cut = whole[:-8] + (128).to_bytes(2) + whole[-6:]
    message = decoded(cut)
    assert isinstance(message, PacketOut)
    assert message.actions[0][0] == "raw"
    assert encode(message) == cut


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        ("10.0.0.9/255.255.255.0", (("ipv4_dst", "10.0.0.0/255.255.255.0"),)),
        ("10.0.0.9/255.255.255.255", (("ipv4_dst", "10.0.0.9"),)),
        ("10.0.0.9/0.0.0.0", ()),
    ],
)
def test_masks_are_read_in_canonical_form(sent: str, canonical: tuple[tuple[str, str], ...]) -> None:
    message = decoded(encode(FlowStatsRequest(match=(("ipv4_dst", sent),))))
    assert isinstance(message, FlowStatsRequest)
    assert message.match == canonical


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (FlowRule(1, (("ipv4_dts", "10.0.0.1"),), (), 0), "ipv4_dts is no OpenFlow 1.3 match field"),
        (FlowRule(1, (("ipv4_dst", "10.0.0.300"),), (), 0), "ipv4_dst=10.0.0.300"),
        (FlowRule(1, (("eth_dst", 5),), (), 0), "eth_dst=5: an address expected"),
        (FlowRule(1, (("vlan_vid", 0x2000),), (), 0), "vlan_vid=8192: a number of 13 bits"),
        (FlowRule(1, (("in_port", -1),), (), 0), "in_port=-1"),
        (FlowRule(1, (("in_port", "one"),), (), 0), "in_port=one"),
        (FlowRule(1, (), (("outptu", 1),), 0), "outptu is no OpenFlow 1.3 action"),
        (FlowRule(1, (), (("output", -1),), 0), "output=-1"),
        (FlowRule(1, (), (("goto_table", 300),), 0), "goto_table=300"),
        (FlowRule(1, (), (("raw", "xyz"),), 0), "raw=xyz"),
        (FlowRule(70000, (), (), 0), "FlowMod"),
    ],
)
def test_what_cannot_be_encoded_is_named(rule: FlowRule, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        encode(FlowMod(FlowCommand.ADD, rule))
