"""The emulated switch's pipeline: what comes out of it, and what it refuses. Requests are os-ken's, or the bytes of Bellhop's codec."""

from __future__ import annotations

from typing import Any

import pytest
from os_ken.lib.packet import ethernet, ipv4, packet, tcp, udp, vlan
from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from controller.southbound.device import FlowRule
from controller.southbound.openflow.codec import encode
from controller.southbound.openflow.messages import FlowCommand, FlowMod
from topologies.emulation.openflow.errors import OpenFlowError
from topologies.emulation.openflow.headers import headers
from topologies.emulation.openflow.pipeline import PROTOCOL, Pipeline, to_bytes

ALL, CONTROLLER, FLOOD, IN_PORT, TABLE = ofp.OFPP_ALL, ofp.OFPP_CONTROLLER, ofp.OFPP_FLOOD, ofp.OFPP_IN_PORT, ofp.OFPP_TABLE


def frame(dst: str = "02:00:00:00:00:02", ip_dst: str = "10.0.0.2", vid: int = 0, ttl: int = 64, transport: type = udp.udp) -> bytes:
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet(dst, "02:00:00:00:00:01", 0x8100 if vid else 0x0800))
    if vid:
        made.add_protocol(vlan.vlan(vid=vid, ethertype=0x0800))
    made.add_protocol(ipv4.ipv4(src="10.0.0.1", dst=ip_dst, ttl=ttl, proto=6 if transport is tcp.tcp else 17))
    made.add_protocol(transport(src_port=1000, dst_port=53))
    made.add_protocol(b"question")
    made.serialize()
    return bytes(made.data)


def out(port: int, max_len: int = ofp.OFPCML_NO_BUFFER) -> Any:
    return parser.OFPActionOutput(port, max_len)


def put(**fields: Any) -> Any:
    return parser.OFPActionSetField(**fields)


def to_group(number: int) -> Any:
    return parser.OFPActionGroup(number)


def apply(*actions: Any) -> Any:
    return parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, list(actions))


def write(*actions: Any) -> Any:
    return parser.OFPInstructionActions(ofp.OFPIT_WRITE_ACTIONS, list(actions))


CLEAR = parser.OFPInstructionActions(ofp.OFPIT_CLEAR_ACTIONS, [])


def goto(table: int) -> Any:
    return parser.OFPInstructionGotoTable(table)


def flow(
    *instructions: Any,
    table: int = 0,
    priority: int = 1,
    match: dict[str, Any] | None = None,
    command: int = ofp.OFPFC_ADD,
    out_port: int = ofp.OFPP_ANY,
    out_group: int = ofp.OFPG_ANY,
    **more: int,
) -> Any:
    return parser.OFPFlowMod(
        PROTOCOL,
        table_id=table,
        priority=priority,
        match=parser.OFPMatch(**(match or {})),
        command=command,
        out_port=out_port,
        out_group=out_group,
        instructions=list(instructions),
        **more,
    )


def bucket(*actions: Any, weight: int = 0, port: int = ofp.OFPP_ANY, group: int = ofp.OFPG_ANY) -> Any:
    return parser.OFPBucket(weight, port, group, list(actions))


def group(kind: int, *buckets: Any, number: int = 1, command: int = ofp.OFPGC_ADD) -> Any:
    return parser.OFPGroupMod(PROTOCOL, command, kind, number, list(buckets))


def meter(rate: int, burst: int = 0, flags: int = ofp.OFPMF_PKTPS, number: int = 1, command: int = ofp.OFPMC_ADD) -> Any:
    return parser.OFPMeterMod(PROTOCOL, command, flags | (ofp.OFPMF_BURST if burst else 0), number, [parser.OFPMeterBandDrop(rate, burst)])


def switch(*messages: Any, **more: Any) -> Pipeline:
    made = Pipeline((1, 2, 3), **more)
    for message in messages:
        made.apply(message)
    return made


def ports_out(made: Pipeline, sent: bytes | None = None, in_port: int = 1, now_s: float = 0.0) -> list[int]:
    return [port for port, _ in made.send(sent or frame(), in_port, now_s)]


def refused(made: Pipeline, message: Any) -> str:
    with pytest.raises(OpenFlowError) as error:
        made.apply(message)
    return str(error.value)


def test_it_takes_what_bellhops_codec_wrote() -> None:
    rule = FlowRule(5, (("eth_type", 0x0800), ("ipv4_dst", "10.0.0.0/255.255.255.0")), (("output", 3),), cookie=7)
    made = switch(encode(FlowMod(FlowCommand.ADD, rule)))
    assert made.send(frame(), 1) == [(3, frame())]
    assert made.send(frame(ip_dst="10.0.1.1"), 1) == []


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({}, True),
        ({"in_port": 1}, True),
        ({"in_port": 2}, False),
        ({"eth_dst": ("02:00:00:00:00:00", "ff:ff:ff:ff:ff:00")}, True),
        ({"eth_dst": "02:00:00:00:00:03"}, False),
        ({"eth_type": 0x0800, "ipv4_dst": ("10.0.1.0", "255.255.255.0")}, False),
        ({"eth_type": 0x0800, "ip_proto": 17, "udp_dst": 53}, True),
        ({"eth_type": 0x0800, "ip_proto": 6, "tcp_dst": 53}, False),
        ({"eth_type": 0x0806, "arp_op": 1}, False),
        ({"vlan_vid": 0}, True),
        ({"vlan_vid": (0x1000, 0x1000)}, False),
        ({"metadata": 0}, True),
    ],
)
def test_matching(match: dict[str, Any], hit: bool) -> None:
    assert ports_out(switch(flow(apply(out(2)), match=match))) == ([2] if hit else [])


def test_the_highest_priority_wins_and_no_entry_means_drop() -> None:
    made = switch(flow(apply(out(2))), flow(apply(out(3)), priority=9, match={"in_port": 1}), flow(apply(out(1)), priority=5))
    assert ports_out(made) == [3]
    assert ports_out(switch()) == []


@pytest.mark.parametrize(
    ("port", "expected"), [(ALL, [2, 3]), (FLOOD, [2, 3]), (1, []), (2, [2]), (IN_PORT, [1]), (CONTROLLER, [CONTROLLER])], ids=str
)
def test_outputs(port: int, expected: list[int]) -> None:
    assert ports_out(switch(flow(apply(out(port))))) == expected


def test_the_tables_are_walked_and_metadata_goes_along() -> None:
    made = switch(
        flow(parser.OFPInstructionWriteMetadata(0xFF, 0x0F), goto(3)),
        flow(apply(out(2)), table=3, match={"metadata": 0x0F}),
        flow(apply(out(3)), table=1),
    )
    assert ports_out(made) == [2]
    assert [entry.table for entry in made.process(frame(), 1).entries] == [0, 3]


def test_applied_actions_take_effect_at_once_written_ones_at_the_end() -> None:
    made = switch(flow(apply(out(2)), write(put(eth_dst="02:00:00:00:00:09"), out(3)), goto(1)), flow(apply(out(1 + 1)), table=1))
    assert made.send(frame(), 1) == [(2, frame()), (2, frame()), (3, frame(dst="02:00:00:00:00:09"))]


def test_the_action_set_keeps_the_last_of_a_kind_and_can_be_cleared() -> None:
    made = switch(flow(write(out(2)), goto(1)), flow(write(out(3)), goto(2), table=1), flow(table=2))
    assert ports_out(made) == [3]
    made.apply(flow(CLEAR, table=2))
    assert ports_out(made) == []


def test_the_action_set_has_the_standards_order() -> None:
    """Whatever the order in which they are written: tag, then TTL, then fields, then output; a group excludes an output."""
    tag = [out(2), put(vlan_vid=0x1000 | 42), parser.OFPActionDecNwTtl(), parser.OFPActionPushVlan(0x8100)]
    made = switch(
        flow(write(*tag[:1], *tag[2:]), goto(1), match={"eth_type": 0x0800}),
        flow(write(put(vlan_vid=0x1000 | 42)), table=1, match={"vlan_vid": (0x1000, 0x1000)}),
        flow(table=1, priority=0),
    )
    ((port, sent),) = made.send(frame(), 1)
    assert (port, headers(sent, 1)["vlan_vid"]) == (2, 0x1000)
    assert packet.Packet(sent).get_protocol(ipv4.ipv4).ttl == 63
    made = switch(group(ofp.OFPGT_ALL, bucket(out(3))), flow(write(out(2), to_group(1))))
    assert ports_out(made) == [3]


def test_a_tag_goes_on_and_off() -> None:
    untagged = {"vlan_vid": 0}
    made = switch(flow(apply(parser.OFPActionPushVlan(0x8100), put(vlan_vid=0x1000 | 42), put(vlan_pcp=3), out(2)), match=untagged))
    ((_, tagged),) = made.send(frame(), 1)
    tag = packet.Packet(tagged).get_protocol(vlan.vlan)
    assert (tag.vid, tag.pcp) == (42, 3)
    made = switch(flow(apply(parser.OFPActionPopVlan(), out(2)), match={"vlan_vid": 0x1000 | 42}))
    assert made.send(tagged, 1) == [(2, frame())]


def test_a_second_tag_begins_as_a_copy_of_the_first() -> None:
    made = switch(flow(apply(parser.OFPActionPushVlan(0x88A8), out(2)), match={"vlan_vid": 0x1000 | 7}))
    ((_, sent),) = made.send(frame(vid=7), 1)
    assert sent[12:20] == bytes.fromhex("88a8000781000007")
    assert headers(sent, 1)["eth_type"] == 0x0800


def test_a_ttl_that_has_run_out_stops_the_frame() -> None:
    made = switch(flow(apply(out(2), parser.OFPActionDecNwTtl(), out(3)), match={"eth_type": 0x0800}))
    assert made.send(frame(ttl=2), 1) == [(2, frame(ttl=2)), (3, frame(ttl=1))]
    passage = made.process(frame(ttl=1), 1)
    assert passage.outputs == [(2, frame(ttl=1))]
    assert [each.reason for each in passage.packet_ins] == [ofp.OFPR_INVALID_TTL]


def test_groups_all_and_indirect_send_copies() -> None:
    made = switch(
        group(ofp.OFPGT_INDIRECT, bucket(out(3)), number=2),
        group(ofp.OFPGT_ALL, bucket(put(eth_dst="02:00:00:00:00:09"), out(2)), bucket(to_group(2))),
        flow(apply(to_group(1), out(CONTROLLER))),
    )
    assert made.send(frame(), 1) == [(2, frame(dst="02:00:00:00:00:09")), (3, frame()), (CONTROLLER, frame())]


def test_a_select_group_sends_one_copy_by_weight_to_what_is_alive() -> None:
    seen: list[list[int]] = []

    def last(sent: bytes, weights: list[int]) -> int:
        seen.append(weights)
        return len(weights) - 1

    kinds = [bucket(out(2), weight=3), bucket(out(1), weight=0), bucket(out(3), weight=1, port=3)]
    made = switch(group(ofp.OFPGT_SELECT, *kinds), flow(apply(to_group(1))), choose=last)
    assert ports_out(made) == [3]
    made.set_port(3, up=False)
    assert ports_out(made) == [2]
    assert seen == [[3, 1], [3]]


def test_a_select_group_spreads_conversations_by_weight() -> None:
    made = switch(group(ofp.OFPGT_SELECT, bucket(out(2), weight=3), bucket(out(3), weight=1)), flow(apply(to_group(1))))
    taken = [ports_out(made, frame(dst=f"02:00:00:00:{number:02x}:09"))[0] for number in range(200)]
    assert taken == [ports_out(made, frame(dst=f"02:00:00:00:{number:02x}:09"))[0] for number in range(200)]
    assert 120 < taken.count(2) < 180


def test_fast_failover_follows_ports_and_groups() -> None:
    made = switch(
        group(ofp.OFPGT_FF, bucket(out(3), port=3), number=2),
        group(ofp.OFPGT_FF, bucket(out(2), port=2), bucket(to_group(2), group=2)),
        flow(apply(to_group(1))),
    )
    assert ports_out(made) == [2]
    made.set_port(2, up=False)
    assert ports_out(made) == [3]
    made.set_port(3, up=False)
    assert ports_out(made) == []
    made.set_port(2, up=True)
    assert ports_out(made) == [2]


def test_groups_that_cannot_be() -> None:
    made = switch(group(ofp.OFPGT_ALL, bucket(out(2))), group(ofp.OFPGT_ALL, bucket(to_group(1)), number=2))
    assert refused(made, group(ofp.OFPGT_ALL)) == "OFPGMFC_GROUP_EXISTS"
    assert refused(made, group(ofp.OFPGT_ALL, number=9, command=ofp.OFPGC_MODIFY)) == "OFPGMFC_UNKNOWN_GROUP"
    assert refused(made, group(ofp.OFPGT_ALL, bucket(to_group(2)), command=ofp.OFPGC_MODIFY)) == "OFPGMFC_LOOP"
    assert refused(made, group(ofp.OFPGT_FF, bucket(out(2), group=2), command=ofp.OFPGC_MODIFY)) == "OFPGMFC_LOOP"
    assert refused(made, group(ofp.OFPGT_ALL, bucket(to_group(8)), number=3)) == "OFPBAC_BAD_OUT_GROUP"
    assert refused(made, group(ofp.OFPGT_INDIRECT, number=3)) == "OFPGMFC_INVALID_GROUP"
    assert refused(made, group(ofp.OFPGT_FF, bucket(out(2)), number=3)) == "OFPGMFC_INVALID_GROUP"
    assert refused(made, group(ofp.OFPGT_FF, bucket(out(2), port=77), number=3)) == "OFPGMFC_BAD_WATCH"
    assert refused(made, group(ofp.OFPGT_ALL, bucket(out(2), port=2), number=3)) == "OFPGMFC_WATCH_UNSUPPORTED"
    assert refused(made, group(9, number=3)) == "OFPGMFC_BAD_TYPE"
    assert refused(made, group(0, number=1, command=9)) == "OFPGMFC_BAD_COMMAND"
    assert refused(made, group(0, number=1, command=ofp.OFPGC_DELETE)) == "OFPGMFC_CHAINED_GROUP"
    assert [each.number for each in made.groups] == [1, 2]


def test_a_deleted_group_takes_the_entries_that_lead_to_it_along() -> None:
    made = switch(group(ofp.OFPGT_ALL, bucket(out(2))), flow(apply(to_group(1)), match={"in_port": 1}), flow(apply(out(3)), priority=0))
    ((entry, reason),) = made.apply(group(ofp.OFPGT_ALL, command=ofp.OFPGC_DELETE))
    assert (entry.groups, reason) == ({1}, ofp.OFPRR_GROUP_DELETE)
    assert ports_out(made) == [3]


def test_a_meter_lets_through_its_burst_and_then_its_rate() -> None:
    made = switch(meter(rate=2, burst=3), flow(parser.OFPInstructionMeter(1), apply(out(2))))
    assert [ports_out(made, now_s=0.0) for _ in range(5)] == [[2], [2], [2], [], []]
    assert [ports_out(made, now_s=0.5) for _ in range(2)] == [[2], []]
    assert [ports_out(made, now_s=9.0) for _ in range(4)] == [[2], [2], [2], []]
    assert (made.meters[1].packets, made.meters[1].band_counts) == (11, [[4, 4 * len(frame())]])


def test_a_meter_counts_kilobits() -> None:
    made = switch(meter(rate=1, flags=ofp.OFPMF_KBPS), flow(parser.OFPInstructionMeter(1), apply(out(2))))
    assert len(frame()) * 8 * 2 < 1000 < len(frame()) * 8 * 3
    assert [ports_out(made) for _ in range(3)] == [[2], [2], []]


def test_the_meter_of_the_controller_port_thins_packet_ins_only() -> None:
    made = switch(meter(rate=1, number=ofp.OFPM_CONTROLLER), flow(apply(out(2), out(CONTROLLER))))
    assert [ports_out(made) for _ in range(2)] == [[2, CONTROLLER], [2]]


def test_meters_that_cannot_be() -> None:
    made = switch(meter(1))
    assert refused(made, meter(1)) == "OFPMMFC_METER_EXISTS"
    assert refused(made, meter(1, number=9, command=ofp.OFPMC_MODIFY)) == "OFPMMFC_UNKNOWN_METER"
    assert refused(made, meter(1, number=0)) == "OFPMMFC_INVALID_METER"
    assert refused(made, meter(0, number=2)) == "OFPMMFC_BAD_RATE"
    assert refused(made, meter(1, number=2, flags=0)) == "OFPMMFC_BAD_FLAGS"
    assert refused(made, flow(parser.OFPInstructionMeter(5))) == "OFPMMFC_INVALID_METER"
    made.apply(flow(parser.OFPInstructionMeter(1), apply(out(2))))
    ((entry, _),) = made.apply(meter(1, command=ofp.OFPMC_DELETE))
    assert entry.meter == 1
    assert ports_out(made) == []


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (flow(apply(out(77))), "OFPBAC_BAD_OUT_PORT"),
        (flow(apply(out(TABLE))), "OFPBAC_BAD_OUT_PORT"),
        (flow(apply(to_group(5))), "OFPBAC_BAD_OUT_GROUP"),
        (flow(apply(put(ipv4_dst="10.0.0.1"))), "OFPBAC_MATCH_INCONSISTENT"),
        (flow(write(put(ipv4_dst="10.0.0.1")), match={"eth_type": 0x86DD}), "OFPBAC_MATCH_INCONSISTENT"),
        (flow(apply(parser.OFPActionDecNwTtl())), "OFPBAC_MATCH_INCONSISTENT"),
        (flow(apply(parser.OFPActionPopVlan())), "OFPBAC_MATCH_INCONSISTENT"),
        (flow(apply(put(eth_type=5))), "OFPBAC_BAD_SET_ARGUMENT"),
        (flow(apply(parser.OFPActionPushVlan(0x0800))), "OFPBAC_BAD_ARGUMENT"),
        (flow(apply(parser.OFPActionPopMpls(0x0800))), "OFPBAC_BAD_TYPE"),
        (flow(goto(0)), "OFPBIC_BAD_TABLE_ID"),
        (flow(goto(254)), "OFPBIC_BAD_TABLE_ID"),
        (flow(apply(), apply()), "OFPBIC_UNSUP_INST"),
        (flow(match={"eth_type": 0x0806, "ipv4_src": "10.0.0.1"}), "OFPBMC_BAD_PREREQ"),
        (flow(match={"eth_type": (0x0800, 0xFF00)}), "OFPBMC_BAD_MASK"),
        (flow(match={"vlan_vid": 0x1001, "vlan_pcp": 8}), "OFPBMC_BAD_VALUE"),
        (flow(match={"mpls_label": 1}), "OFPBMC_BAD_FIELD"),
        (flow(table=254), "OFPFMFC_BAD_TABLE_ID"),
        (flow(table=ofp.OFPTT_ALL), "OFPFMFC_BAD_TABLE_ID"),
        (flow(command=7), "OFPFMFC_BAD_COMMAND"),
        (flow(flags=1 << 12), "OFPFMFC_BAD_FLAGS"),
        (flow(buffer_id=3), "OFPBRC_BUFFER_UNKNOWN"),
    ],
    ids=str,
)
def test_flows_that_cannot_be(message: Any, error: str) -> None:
    made = switch()
    assert refused(made, message) == error
    assert len(made.tables) == 0


@pytest.mark.parametrize("length", range(8, 88, 4))
def test_a_message_cut_short_is_refused(length: int) -> None:
    data = to_bytes(flow(apply(out(2), put(eth_dst="02:00:00:00:00:09")), match={"in_port": 1}))
    with pytest.raises(OpenFlowError):
        switch().apply(data[:length])


def test_overlap_is_refused_when_asked_for() -> None:
    made = switch(flow(match={"in_port": 1}))
    overlapping = {"match": {"eth_type": 0x0800}, "flags": ofp.OFPFF_CHECK_OVERLAP}
    assert refused(made, flow(**overlapping)) == "OFPFMFC_OVERLAP"
    made.apply(flow(**overlapping, priority=2))
    made.apply(flow(**overlapping, table=1))
    made.apply(flow(match={"in_port": 2}, flags=ofp.OFPFF_CHECK_OVERLAP))


def test_a_full_table_still_takes_replacements() -> None:
    made = switch(flow(apply(out(2))), capacity=1)
    assert refused(made, flow(priority=7)) == "OFPFMFC_TABLE_FULL"
    made.apply(flow(apply(out(3))))
    assert ports_out(made) == [3]


def test_counters_outlive_a_replacement_unless_reset() -> None:
    made = switch(flow(apply(out(2))))
    ports_out(made)
    made.apply(flow(apply(out(3))), 5.0)
    (entry,) = made.tables
    assert (entry.packets, entry.bytes, entry.added_s) == (1, len(frame()), 5.0)
    made.apply(flow(apply(out(3)), flags=ofp.OFPFF_RESET_COUNTS))
    (entry,) = made.tables
    assert entry.packets == 0


def test_modify_changes_instructions_and_nothing_else() -> None:
    made = switch(flow(apply(out(2)), match={"in_port": 1}, cookie=5), flow(apply(out(2)), priority=7, match={"in_port": 1, "vlan_vid": 0}))
    ports_out(made)
    made.apply(flow(apply(out(3)), match={"in_port": 1}, command=ofp.OFPFC_MODIFY_STRICT), 5.0)
    wide, narrow = made.tables
    assert (wide.cookie, wide.added_s, str(wide).endswith("apply(Output:3)")) == (5, 0.0, True)
    assert (narrow.packets, str(narrow).endswith("apply(Output:2)")) == (1, True)
    made.apply(flow(apply(out(3)), match={"in_port": 1}, command=ofp.OFPFC_MODIFY))
    assert ports_out(made) == [3]
    made.apply(flow(apply(out(3)), match={"in_port": 2}, command=ofp.OFPFC_MODIFY))
    assert len(made.tables) == 2, "MODIFY adds nothing"


@pytest.mark.parametrize(
    ("request_", "gone"),
    [
        (flow(command=ofp.OFPFC_DELETE), {1, 2, 3}),
        (flow(command=ofp.OFPFC_DELETE, table=ofp.OFPTT_ALL), {1, 2, 3, 4}),
        (flow(command=ofp.OFPFC_DELETE, match={"in_port": 1}), {1, 2}),
        (flow(command=ofp.OFPFC_DELETE_STRICT, match={"in_port": 1}), {1}),
        (flow(command=ofp.OFPFC_DELETE, cookie=3, cookie_mask=3), {3}),
        (flow(command=ofp.OFPFC_DELETE, cookie=2, cookie_mask=2), {2, 3}),
        (flow(command=ofp.OFPFC_DELETE, out_port=3), {2}),
        (flow(command=ofp.OFPFC_DELETE, out_group=1), {3}),
        (flow(command=ofp.OFPFC_DELETE, match={"vlan_vid": 0}), set()),
    ],
    ids=range(9),
)
def test_what_a_deletion_takes(request_: Any, gone: set[int]) -> None:
    made = switch(
        group(ofp.OFPGT_ALL, bucket(out(2))),
        flow(apply(out(2)), match={"in_port": 1}, cookie=1),
        flow(write(out(3)), match={"in_port": 1, "eth_type": 0x0800}, cookie=2),
        flow(apply(to_group(1)), match={"in_port": 2}, cookie=3),
        flow(apply(out(2)), table=1, cookie=4),
    )
    assert {entry.cookie for entry, reason in made.apply(request_) if reason == ofp.OFPRR_DELETE} == gone
    assert {entry.cookie for entry in made.tables} == {1, 2, 3, 4} - gone


def test_entries_expire() -> None:
    made = switch(flow(priority=2, idle_timeout=2), flow(hard_timeout=5))
    ports_out(made, now_s=1.5)
    assert made.expire(3.4) == []
    assert [(entry.priority, reason) for entry, reason in made.expire(3.5)] == [(2, ofp.OFPRR_IDLE_TIMEOUT)]
    ports_out(made, now_s=4.9)
    assert [(entry.priority, reason) for entry, reason in made.expire(5.0)] == [(1, ofp.OFPRR_HARD_TIMEOUT)]
    assert len(made.tables) == 0


def test_a_packet_in_says_where_it_comes_from() -> None:
    made = switch(
        flow(apply(out(CONTROLLER, max_len=20)), priority=0, cookie=9),
        flow(goto(2), match={"in_port": 2}),
        flow(apply(out(CONTROLLER)), table=2, cookie=8),
    )
    ((missed,), (sent,)) = (made.process(frame(), port).packet_ins for port in (1, 2))
    assert (missed.reason, missed.table, missed.cookie, missed.in_port, missed.frame) == (ofp.OFPR_NO_MATCH, 0, 9, 1, frame())
    assert (sent.reason, sent.table, sent.cookie, sent.frame) == (ofp.OFPR_ACTION, 2, 8, frame())


def packet_out(*actions: Any, in_port: int = CONTROLLER, buffer: int = ofp.OFP_NO_BUFFER) -> Any:
    data = frame() if buffer == ofp.OFP_NO_BUFFER else None
    return parser.OFPPacketOut(PROTOCOL, buffer_id=buffer, in_port=in_port, actions=list(actions), data=data)


def test_packet_outs() -> None:
    made = switch(flow(apply(out(2), out(3))))
    assert made.packet_out(packet_out(put(eth_dst="02:00:00:00:00:09"), out(3))).outputs == [(3, frame(dst="02:00:00:00:00:09"))]
    assert made.packet_out(packet_out(out(FLOOD), in_port=2)).outputs == [(1, frame()), (3, frame())]
    assert made.packet_out(packet_out(out(TABLE), in_port=2)).outputs == [(3, frame())]
    for wrong, error in (
        (packet_out(out(77)), "BAD_OUT_PORT"),
        (packet_out(out(2), in_port=88), "BAD_PORT"),
        (packet_out(buffer=5), "BUFFER"),
    ):
        with pytest.raises(OpenFlowError, match=error):
            made.packet_out(wrong)


def test_nothing_passes_a_port_without_a_signal() -> None:
    made = switch(flow(apply(out(FLOOD))))
    made.set_port(3, up=False)
    assert ports_out(made) == [2]
    assert ports_out(made, in_port=3) == []
