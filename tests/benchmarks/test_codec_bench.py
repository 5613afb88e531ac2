"""What the OpenFlow codec costs a message, beside os-ken's in the same run: microseconds of processor time, best of a few rounds in turn.

Printed, never asserted: what the two make of a message is compared first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle
from typing import Any

from os_ken.ofproto import ofproto_parser, ofproto_protocol
from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as osken

from controller.southbound.device import FlowRule
from controller.southbound.openflow.codec import Framer, decode, encode, recommanded
from controller.southbound.openflow.messages import FlowCommand, FlowMod, FlowStats, FlowStatsReply, Message, PacketIn, PacketOut

ROUNDS = 7
DATAPATH = ofproto_protocol.ProtocolDesc(version=4)
FRAME = bytes.fromhex("020000000002020000000001080045000032") + bytes(46)
HOSTS = [f"02:00:00:00:{index // 256:02x}:{index % 256:02x}" for index in range(1000)]
"""Rules are built for one of them after the other, as packets of a network come."""
COOKIE = 0xBE11 << 48
FLOWS = 100


def cost_us(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(repeats):
                call()
            best[name] = min(best[name], (time.process_time() - start) / repeats * 1e6)
    return best


def ours_decodes(data: bytes) -> Message:
    (frame,) = Framer().feed(data)
    return decode(frame)


def theirs_decodes(data: bytes) -> Any:
    version, kind, length, xid = ofproto_parser.header(data)
    return ofproto_parser.msg(DATAPATH, version, kind, length, xid, data)


def our_flow_mod(eth_src: str, eth_dst: str) -> bytes:
    match = (("eth_dst", eth_dst), ("eth_src", eth_src), ("in_port", 3))
    return encode(FlowMod(FlowCommand.ADD, FlowRule(1, match, (("output", 2),), COOKIE), buffer_id=7), 5)


def their_flow_mod(eth_src: str, eth_dst: str) -> bytes:
    match = osken.OFPMatch(in_port=3, eth_dst=eth_dst, eth_src=eth_src)
    apply = [osken.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, [osken.OFPActionOutput(2, 0)])]
    return sent_by_them(
        osken.OFPFlowMod(
            DATAPATH,
            COOKIE,
            0,
            0,
            ofp.OFPFC_ADD,
            0,
            0,
            1,
            7,
            match=match,
            instructions=apply,
            out_port=ofp.OFPP_ANY,
            out_group=ofp.OFPG_ANY,
        )
    )


def our_packet_out() -> bytes:
    return encode(PacketOut((("output", 2),), FRAME, 3), 5)


def their_packet_out() -> bytes:
    return sent_by_them(osken.OFPPacketOut(DATAPATH, ofp.OFP_NO_BUFFER, 3, [osken.OFPActionOutput(2, 0)], FRAME))


def sent_by_them(message: Any) -> bytes:
    message.set_xid(5)
    message.serialize()
    return bytes(message.buf)


def test_codec_beside_os_ken() -> None:
    packet_in = encode(PacketIn(7, len(FRAME), 0, 0, COOKIE, (("in_port", 3),), FRAME), 5)
    rules = [FlowRule(1, (("eth_dst", f"02:00:00:00:00:{i:02x}"), ("in_port", 3)), (("output", 2),), COOKIE) for i in range(FLOWS)]
    flow_stats = encode(FlowStatsReply(tuple(map(FlowStats, rules))), 5)
    once = our_flow_mod(*HOSTS[:2])
    assert once == their_flow_mod(*HOSTS[:2])
    assert our_packet_out() == their_packet_out()
    assert ours_decodes(packet_in).in_port == theirs_decodes(packet_in).match["in_port"] == 3  # type: ignore[union-attr]
    assert len(theirs_decodes(flow_stats).body) == FLOWS

    hosts = cycle(HOSTS)

    def ours_answers() -> bytes:
        ours_decodes(packet_in)
        return our_flow_mod(next(hosts), next(hosts))

    def theirs_answer() -> bytes:
        theirs_decodes(packet_in)
        return their_flow_mod(next(hosts), next(hosts))

    compared: list[tuple[str, int, int, Callable[[], object], Callable[[], object]]] = [
        ("PACKET_IN, framed and decoded", 1, 2000, lambda: ours_decodes(packet_in), lambda: theirs_decodes(packet_in)),
        ("PACKET_OUT, built and encoded", 1, 2000, our_packet_out, their_packet_out),
        ("PACKET_IN answered by FLOW_MOD", 1, 1000, ours_answers, theirs_answer),
        ("FLOW_STATS decoded, per flow", FLOWS, 10, lambda: ours_decodes(flow_stats), lambda: theirs_decodes(flow_stats)),
        (
            "FLOW_MOD encoded once, new xid and command",
            *(1, 1000),
            lambda: recommanded(once, 6, FlowCommand.DELETE_STRICT),
            lambda: their_flow_mod(next(hosts), next(hosts)),
        ),
    ]
    print(f"\n{'microseconds of processor time':44}{'ours':>8}{'os-ken':>9}{'ratio':>8}")
    for name, parts, repeats, ours, theirs in compared:
        cost = cost_us({"ours": ours, "os-ken": theirs}, repeats)
        print(f"{name:44}{cost['ours'] / parts:8.2f}{cost['os-ken'] / parts:9.1f}{cost['os-ken'] / cost['ours']:7.0f}x")
