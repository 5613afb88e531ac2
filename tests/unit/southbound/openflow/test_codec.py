"""The codec by itself: what it says survives the wire, what it cannot say is named, and nonsense is malformed."""

from __future__ import annotations

import pytest
from drawn_messages import by_class, flow_mods, messages, u8, u32
from hypothesis import given, settings
from hypothesis import strategies as st
from os_ken.ofproto import ofproto_v1_3 as ofp

from controller.southbound.device import Band, Bucket, FlowRule, Group, GroupType, Meter
from controller.southbound.openflow.codec import Frame, Framer, decode, encode, readdressed, recommanded
from controller.southbound.openflow.errors import error_name
from controller.southbound.openflow.groups import GroupCommand, GroupMod, MeterCommand, MeterMod
from controller.southbound.openflow.messages import (
    EXPERIMENTER_ERROR,
    Error,
    FlowCommand,
    FlowMod,
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
    PortReason,
    PortStatus,
    Raw,
    Type,
)
from controller.southbound.openflow.statistics import DescReply


def decoded(data: bytes) -> Message:
    (frame,) = Framer().feed(data)
    return decode(frame)


@given(messages, u32)
def test_a_message_survives_the_wire(message: Message, xid: int) -> None:
    (frame,) = Framer().feed(encode(message, xid))
    assert frame.xid == xid
    assert decode(frame) == message


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
    """Nothing but the two errors that the codec names may come out, whichever way the bytes go."""
    try:
        frames = Framer().feed(data)
    except MalformedMessage:
        return
    for frame in frames:
        try:
            message = decode(frame)
        except MalformedMessage:
            continue
        try:
            again = encode(message, frame.xid)
        except ValueError:  # read, but more than a field may hold: a VLAN of 16 bits
            continue
        assert again[1] == frame.type


def framed(kind: int, body: bytes) -> bytes:
    return bytes([4, kind]) + (8 + len(body)).to_bytes(2) + bytes(4) + body


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_malformed_or_a_message(data: bytes) -> None:
    feed_and_decode(data)


@pytest.mark.parametrize("kind", [*Type, 99])
@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_arbitrary_bodies_are_malformed_or_a_message(kind: int, body: bytes) -> None:
    feed_and_decode(framed(kind, body))


@pytest.mark.parametrize("kind", [Type.MULTIPART_REQUEST, Type.MULTIPART_REPLY])
@given(st.integers(0, 15), st.binary(max_size=200))
def test_arbitrary_multiparts_are_malformed_or_a_message(kind: int, multipart: int, body: bytes) -> None:
    feed_and_decode(framed(kind, multipart.to_bytes(2) + bytes(6) + body))


@pytest.mark.parametrize("kind", by_class, ids=lambda kind: kind.__name__)
@settings(max_examples=50)
@given(data=st.data())
def test_damaged_messages_are_malformed_or_a_message(kind: type, data: st.DataObject) -> None:
    damaged = bytearray(encode(data.draw(by_class[kind])))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(u8)
    feed_and_decode(bytes(damaged))
    body = damaged[8 : data.draw(st.integers(8, len(damaged)))]
    feed_and_decode(framed(damaged[1], bytes(body)))


ZERO_LENGTHS = {
    "HELLO element": (Type.HELLO, "0001000000000010"),
    "action": (Type.PACKET_OUT, "ffffffff000000010008" + "00" * 6 + "0000000000000000"),
    "instruction": (Type.FLOW_MOD, "00" * 40 + "0001000400000000" + "0004000000000000"),
    "match": (Type.FLOW_REMOVED, "00" * 40 + "0001000000000000"),
    "bucket": (Type.GROUP_MOD, "0000000000000001" + "0000" * 8),
    "band": (Type.METER_MOD, "0000000100000001" + "0001" + "0000" * 7),
    "flow entry": (Type.MULTIPART_REPLY, "0001000000000000" + "00" * 56),
    "group statistics": (Type.MULTIPART_REPLY, "0006000000000000" + "00" * 40),
    "group": (Type.MULTIPART_REPLY, "0007000000000000" + "00" * 8),
    "meter statistics": (Type.MULTIPART_REPLY, "0009000000000000" + "00" * 40),
    "meter": (Type.MULTIPART_REPLY, "000a000000000000" + "00" * 8),
}


@pytest.mark.parametrize(("kind", "body"), ZERO_LENGTHS.values(), ids=ZERO_LENGTHS)
def test_an_entry_of_no_length_is_malformed_and_not_read_for_ever(kind: int, body: str) -> None:
    with pytest.raises(MalformedMessage, match=r"length 0|no OXM match"):
        decoded(framed(kind, bytes.fromhex(body)))


WRONG_LENGTHS = {
    "action of 12 bytes": (Type.PACKET_OUT, "ffffffff00000001000c" + "00" * 6 + "0018000c" + "00" * 8),
    "remark band without its precedence": (Type.METER_MOD, "0000000100000001" + "0002000c" + "00" * 8),
    "match field longer than its message": (Type.FLOW_REMOVED, "00" * 40 + "00010008" + "80001604"),
}


@pytest.mark.parametrize(("kind", "body"), WRONG_LENGTHS.values(), ids=WRONG_LENGTHS)
def test_what_has_a_wrong_length_is_malformed(kind: int, body: str) -> None:
    with pytest.raises(MalformedMessage):
        decoded(framed(kind, bytes.fromhex(body)))


def test_metadata_is_read_without_the_bits_outside_its_mask() -> None:
    written = decoded(encode(FlowMod(FlowCommand.ADD, FlowRule(1, (), (("write_metadata", "0xff5/0xf"),), 0))))
    assert isinstance(written, FlowMod)
    assert written.rule.actions == (("write_metadata", "0x5/0xf"),)


def test_a_flow_entry_does_not_read_on_into_the_next() -> None:
    flows = encode(FlowStatsReply((FlowStats(FlowRule(1, (("in_port", 1),), (), 2)), FlowStats(FlowRule(3, (), (), 4)))))
    cut = bytearray(flows)
    cut[16:18] = (48 + 8).to_bytes(2)  # the first entry has a match of 16 bytes
    with pytest.raises(MalformedMessage, match="ends in its match"):
        decoded(bytes(cut))


def test_a_hello_of_64_kib_offers_no_more_than_all_versions() -> None:
    hello = decoded(framed(Type.HELLO, (1).to_bytes(2) + (65524).to_bytes(2) + b"\xff" * 65520))
    assert hello == Hello(4, tuple(range(256)))


def test_a_hello_may_have_several_words() -> None:
    hello = Hello(9, (1, 4, 31, 32, 40))
    assert decoded(encode(hello)) == hello


@given(flow_mods, flow_mods, u32)
def test_a_rule_encoded_once_is_sent_and_withdrawn_with_new_numbers(flow_mod: FlowMod, other: FlowMod, xid: int) -> None:
    once = encode(flow_mod, 1)
    assert readdressed(once, xid) == encode(flow_mod, xid)
    flow_mod.command = other.command
    assert recommanded(once, xid, other.command) == encode(flow_mod, xid)


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


def test_a_packet_in_with_fields_of_other_classes_is_read() -> None:
    """Open vSwitch adds Nicira's registers to what it sends."""
    packet_in = PacketIn(1, 60, 0, 0, 5, (("in_port", 3), ("oxm:00010004", "00000007"), ("oxm:80005602", "0012")), b"frame")
    assert decoded(encode(packet_in)) == packet_in
    assert packet_in.in_port == 3


@pytest.mark.parametrize("match", [(("in_port", 3),), (("in_port", 3), ("metadata", 1))])
def test_a_packet_in_that_ends_in_its_match_is_malformed(match: tuple[tuple[str, int | str], ...]) -> None:
    whole = encode(PacketIn(1, 0, 0, 0, 5, match, b""))
    assert decoded(whole) == PacketIn(1, 0, 0, 0, 5, match, b"")
    with pytest.raises(MalformedMessage):
        decoded(framed(Type.PACKET_IN, whole[8:-2]))


def test_a_band_that_is_not_modelled_is_kept() -> None:
    mod = MeterMod(MeterCommand.ADD, Meter(1, 1, (Band(100, 10, 0xFFFF, 0, "0000232000000001"), Band(200))))
    assert decoded(encode(mod)) == mod


@pytest.mark.parametrize("flags", [0, 1])
def test_a_multipart_that_is_not_modelled_says_whether_there_is_more(flags: int) -> None:
    raw = decoded(framed(Type.MULTIPART_REPLY, bytes([0, 12, 0, flags]) + bytes(12)))
    assert isinstance(raw, Raw)
    assert raw.more == bool(flags)


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
        (FlowRule(1, (), (("write_metadata", "5"),), 0), "write_metadata=5"),
        (FlowRule(1, (), (("write:goto_table", 1),), 0), "goto_table is no OpenFlow 1.3 action"),
        (FlowRule(1, (("eth_dst", "0200:0000:00:00:0"),), (), 0), "a MAC address is written"),
        (FlowRule(1, (("oxm:ffff0c08", "00"),), (), 0), "says 8 bytes, the value has 1"),
        (FlowRule(70000, (), (), 0), "FlowMod"),
    ],
)
def test_what_cannot_be_encoded_is_named(rule: FlowRule, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        encode(FlowMod(FlowCommand.ADD, rule))


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (GroupMod(GroupCommand.ADD, Group(1 << 32, GroupType.ALL)), "GroupMod"),
        (GroupMod(GroupCommand.ADD, Group(1, GroupType.ALL, (Bucket((("outptu", 1),)),))), "outptu"),
        (GroupMod(GroupCommand.ADD, Group(1, GroupType.ALL, tuple([Bucket((("output", 1),))] * 3000))), "GroupMod"),
        (MeterMod(MeterCommand.ADD, Meter(1, 1, (Band(-1),))), "MeterMod"),
        (PortStatus(PortReason.ADD, Port(1, "02:00:00:00:00:01", "x" * 17)), "longer than 16 bytes"),
        (PortDescReply((Port(1, "02:00:00:00:00", "x"),)), "02:00:00:00:00"),
        (DescReply("", "", "", "x" * 33, ""), "longer than 32 bytes"),
    ],
)
def test_a_message_that_cannot_be_encoded_says_why(message: Message, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        encode(message)


ERROR_CODES = dict(enumerate(["HFC", "BRC", "BAC", "BIC", "BMC", "FMFC", "GMFC", "PMFC", "TMFC", "QOFC", "SCFC", "RRFC", "MMFC", "TFFC"]))


@pytest.mark.parametrize(("kind", "prefix"), ERROR_CODES.items(), ids=ERROR_CODES.values())
def test_errors_have_the_names_of_the_specification(kind: int, prefix: str) -> None:
    codes = {name.removeprefix(f"OFP{prefix}_"): code for name, code in vars(ofp).items() if name.startswith(f"OFP{prefix}_")}
    (kind_name,) = [name for name, value in vars(ofp).items() if name.startswith("OFPET_") and value == kind]
    assert {error_name(Error(kind, code)) for code in codes.values()} == {f"{kind_name.removeprefix('OFPET_')}/{name}" for name in codes}


def test_errors_without_a_name_keep_their_numbers() -> None:
    assert error_name(Error(77, 3)) == "error type 77/code 3"
    assert error_name(Error(5, 99)) == "FLOW_MOD_FAILED/code 99"
    assert error_name(Error(EXPERIMENTER_ERROR, 3, b"", 0x4F4E4600)) == "experimenter 0x4f4e4600/code 3"
