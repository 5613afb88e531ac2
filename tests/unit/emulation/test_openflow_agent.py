"""What the emulated switch says to its controllers: roles, news, statistics; and that no bytes upset it."""

from __future__ import annotations

import logging
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from os_ken.ofproto import ofproto_parser
from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topologies.emulation.openflow.agent import Agent, Controller
from topologies.emulation.openflow.pipeline import PROTOCOL, Pipeline, to_bytes

EQUAL, MASTER, SLAVE = ofp.OFPCR_ROLE_EQUAL, ofp.OFPCR_ROLE_MASTER, ofp.OFPCR_ROLE_SLAVE
FRAME = bytes.fromhex("020000000002020000000001") + b"\x12\x34" + bytes(46)
APPLY = ofp.OFPIT_APPLY_ACTIONS
FLOW = parser.OFPFlowMod(
    PROTOCOL,
    priority=5,
    cookie=7,
    flags=ofp.OFPFF_SEND_FLOW_REM,
    idle_timeout=2,
    match=parser.OFPMatch(in_port=1, eth_dst=("02:00:00:00:00:00", "ff:00:00:00:00:00")),
    instructions=[
        parser.OFPInstructionMeter(1),
        parser.OFPInstructionActions(APPLY, [parser.OFPActionGroup(1), parser.OFPActionOutput(ofp.OFPP_CONTROLLER)]),
    ],
)
GROUP = parser.OFPGroupMod(PROTOCOL, 0, ofp.OFPGT_ALL, 1, [parser.OFPBucket(actions=[parser.OFPActionOutput(2)])])
METER = parser.OFPMeterMod(PROTOCOL, 0, ofp.OFPMF_PKTPS, 1, [parser.OFPMeterBandDrop(1, 0)])


class Switch:
    """A switch of two ports; `told` are the messages to each controller, decoded by os-ken."""

    def __init__(self, controllers: int = 1) -> None:
        self.now_s = 0.0
        self.sent: list[tuple[int, bytes]] = []
        self.agent = Agent("s1", 0xBE, Pipeline((1, 2)), lambda port, frame: self.sent.append((port, frame)), lambda: self.now_s)
        self.told: list[list[Any]] = [[] for _ in range(controllers)]
        self.agent.controllers = [Controller(lambda data, told=told: told.append(decoded(data))) for told in self.told]  # type: ignore[misc]

    def ask(self, message: Any, controller: int = 0) -> Any:
        """Send a request; its last answer."""
        before = len(self.told[controller])
        self.agent.handle(self.agent.controllers[controller], to_bytes(message))
        return self.told[controller][-1] if len(self.told[controller]) > before else None

    def role(self, role: int, generation: int = 0, controller: int = 0) -> Any:
        return self.ask(parser.OFPRoleRequest(PROTOCOL, role, generation), controller)


def decoded(data: bytes) -> Any:
    version, kind, length, xid = struct.unpack_from("!BBHI", data)
    assert length == len(data)
    return ofproto_parser.msg(PROTOCOL, version, kind, length, xid, data)


def is_error(answer: Any, kind: int, code: int) -> bool:
    return isinstance(answer, parser.OFPErrorMsg) and (answer.type, answer.code) == (kind, code)


def test_a_stale_generation_is_refused() -> None:
    switch = Switch(2)
    assert switch.role(ofp.OFPCR_ROLE_NOCHANGE).generation_id == (1 << 64) - 1
    assert (switch.role(MASTER, 5).role, switch.role(MASTER, 5).generation_id) == (MASTER, 5)
    assert is_error(switch.role(MASTER, 4, controller=1), ofp.OFPET_ROLE_REQUEST_FAILED, ofp.OFPRRFC_STALE)
    assert is_error(switch.role(SLAVE, (1 << 64) - 1), ofp.OFPET_ROLE_REQUEST_FAILED, ofp.OFPRRFC_STALE)
    assert switch.role(MASTER, 6, controller=1).role == MASTER
    assert switch.role(ofp.OFPCR_ROLE_NOCHANGE).role == SLAVE, "there is one master"
    assert switch.role(EQUAL, 0).role == EQUAL, "an equal needs no generation"
    assert is_error(switch.role(9), ofp.OFPET_ROLE_REQUEST_FAILED, ofp.OFPRRFC_BAD_ROLE)


def test_generations_go_round() -> None:
    switch = Switch()
    assert switch.role(MASTER, (1 << 64) - 1).role == MASTER
    assert switch.role(MASTER, 3).generation_id == 3


def test_a_slave_reads_and_does_not_write() -> None:
    switch = Switch(2)
    switch.role(MASTER, 1)
    switch.role(SLAVE, 1, controller=1)
    out = parser.OFPPacketOut(PROTOCOL, ofp.OFP_NO_BUFFER, ofp.OFPP_CONTROLLER, [parser.OFPActionOutput(2)], FRAME)
    for request in (FLOW, GROUP, METER, out):
        assert is_error(switch.ask(request, controller=1), ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_IS_SLAVE)
    assert switch.sent == []
    assert switch.ask(parser.OFPBarrierRequest(PROTOCOL), controller=1) is not None
    assert isinstance(switch.ask(parser.OFPDescStatsRequest(PROTOCOL, 0), controller=1), parser.OFPDescStatsReply)
    for request in (METER, GROUP, FLOW, out):
        assert switch.ask(request) is None
    assert switch.sent == [(2, FRAME)]


def test_who_is_told_what() -> None:
    switch = Switch(3)
    for request in (METER, GROUP, FLOW):
        switch.ask(request)
    switch.role(SLAVE, 1, controller=1)
    switch.ask(parser.OFPSetAsync(PROTOCOL, [0, 0], [0, 0], [0, 0]), controller=2)
    for told in switch.told:
        told.clear()
    switch.agent.receive(1, FRAME)
    switch.agent.set_port(1, up=False)
    switch.now_s = 2.0
    switch.agent.expire()
    assert [[type(each).__name__ for each in told] for told in switch.told] == [
        ["OFPPacketIn", "OFPPortStatus", "OFPFlowRemoved"],
        ["OFPPortStatus"],
        [],
    ]
    packet_in, port_status, removed = switch.told[0]
    assert (packet_in.buffer_id, packet_in.data, packet_in.match["in_port"], packet_in.cookie) == (ofp.OFP_NO_BUFFER, FRAME, 1, 7)
    assert (port_status.desc.port_no, port_status.desc.state) == (1, ofp.OFPPS_LINK_DOWN)
    assert (removed.cookie, removed.reason, removed.packet_count, removed.duration_sec) == (7, ofp.OFPRR_IDLE_TIMEOUT, 1, 2)
    assert removed.match["eth_dst"] == ("02:00:00:00:00:00", "ff:00:00:00:00:00")


def test_a_congested_controller_gets_no_packet_ins() -> None:
    switch = Switch()
    for request in (METER, GROUP, FLOW):
        switch.ask(request)
    switch.agent.controllers[0].congested = lambda: True
    switch.agent.receive(1, FRAME)
    assert switch.told == [[]]
    assert switch.sent == [(2, FRAME)]


def test_statistics_tell_what_happened() -> None:
    switch = Switch()
    for request in (METER, GROUP, FLOW):
        switch.ask(request)
    switch.now_s = 0.5
    for _ in range(2):  # the meter lets one through
        switch.agent.receive(1, FRAME)
    switch.now_s = 1.5

    def body(request: type, *arguments: Any) -> Any:
        return switch.ask(request(PROTOCOL, 0, *arguments)).body

    everything = (ofp.OFPTT_ALL, ofp.OFPP_ANY, ofp.OFPG_ANY, 0, 0, parser.OFPMatch())
    (flow,) = body(parser.OFPFlowStatsRequest, *everything)
    assert (flow.priority, flow.cookie, flow.packet_count, flow.byte_count, flow.duration_nsec) == (5, 7, 2, 2 * len(FRAME), 500_000_000)
    assert str(flow.match) == str(FLOW.match)
    assert [str(each) for each in flow.instructions] == [str(each) for each in FLOW.instructions]
    aggregate = body(parser.OFPAggregateStatsRequest, *everything)
    assert (aggregate.flow_count, aggregate.packet_count, aggregate.byte_count) == (1, 2, 2 * len(FRAME))
    table = body(parser.OFPTableStatsRequest)[0]
    assert (table.table_id, table.active_count, table.lookup_count, table.matched_count) == (0, 1, 2, 2)
    (group,) = body(parser.OFPGroupStatsRequest, ofp.OFPG_ALL)
    assert (group.group_id, group.ref_count, group.packet_count, group.bucket_stats[0].byte_count) == (1, 1, 1, len(FRAME))
    (described,) = body(parser.OFPGroupDescStatsRequest)
    assert [str(each) for each in described.buckets] == [str(each) for each in GROUP.buckets]
    (meter,) = body(parser.OFPMeterStatsRequest, ofp.OFPM_ALL)
    assert (meter.flow_count, meter.packet_in_count, meter.band_stats[0].packet_band_count) == (1, 2, 1)
    (configured,) = body(parser.OFPMeterConfigStatsRequest, ofp.OFPM_ALL)
    assert (configured.flags, configured.bands[0].rate) == (ofp.OFPMF_PKTPS, 1)
    one, two = body(parser.OFPPortStatsRequest, ofp.OFPP_ANY)
    assert (one.port_no, one.rx_packets, one.rx_bytes, one.tx_packets) == (1, 2, 2 * len(FRAME), 0)
    assert (two.port_no, two.rx_packets, two.tx_packets, two.tx_bytes) == (2, 0, 1, len(FRAME))
    assert [(each.port_no, each.state) for each in body(parser.OFPPortDescStatsRequest)] == [(1, ofp.OFPPS_LIVE), (2, ofp.OFPPS_LIVE)]
    assert body(parser.OFPDescStatsRequest).dp_desc.rstrip(b"\0") == b"s1"
    assert body(parser.OFPGroupFeaturesStatsRequest).types == 0b1111
    assert body(parser.OFPMeterFeaturesStatsRequest)[0].band_types == 1 << ofp.OFPMBT_DROP


def test_statistics_of_what_is_not_there() -> None:
    switch = Switch()
    assert is_error(switch.ask(parser.OFPPortStatsRequest(PROTOCOL, 0, 77)), ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_PORT)
    assert is_error(switch.ask(parser.OFPMeterStatsRequest(PROTOCOL, 0, 77)), ofp.OFPET_METER_MOD_FAILED, ofp.OFPMMFC_UNKNOWN_METER)
    assert switch.ask(parser.OFPGroupStatsRequest(PROTOCOL, 0, 77)).body == []
    assert is_error(switch.ask(parser.OFPQueueStatsRequest(PROTOCOL, 0, 1, 1)), ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_MULTIPART)


def test_long_replies_come_in_parts() -> None:
    switch = Switch()
    for priority in range(1000):
        switch.ask(parser.OFPFlowMod(PROTOCOL, priority=priority))
    switch.ask(parser.OFPFlowStatsRequest(PROTOCOL, 0, ofp.OFPTT_ALL, ofp.OFPP_ANY, ofp.OFPG_ANY))
    assert [part.flags for part in switch.told[0]] == [ofp.OFPMPF_REPLY_MORE] * (len(switch.told[0]) - 1) + [0]
    assert [flow.priority for part in switch.told[0] for flow in part.body] == list(range(999, -1, -1))


def test_configuration_echo_and_features() -> None:
    switch = Switch()
    assert switch.ask(parser.OFPSetConfig(PROTOCOL, ofp.OFPC_FRAG_NORMAL, 0xFFFF)) is None
    assert switch.ask(parser.OFPGetConfigRequest(PROTOCOL)).miss_send_len == 0xFFFF
    assert is_error(switch.ask(parser.OFPSetConfig(PROTOCOL, 3, 0)), ofp.OFPET_SWITCH_CONFIG_FAILED, ofp.OFPSCFC_BAD_FLAGS)
    assert switch.ask(parser.OFPEchoRequest(PROTOCOL, b"are you there?")).data == b"are you there?"
    features = switch.ask(parser.OFPFeaturesRequest(PROTOCOL))
    assert (features.datapath_id, features.n_buffers, features.n_tables) == (0xBE, 0, 254)
    assert is_error(switch.ask(b"\x01\x02\x00\x08\0\0\0\0"), ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_VERSION)
    assert is_error(switch.ask(b"\x04\x63\x00\x08\0\0\0\0"), ofp.OFPET_BAD_REQUEST, ofp.OFPBRC_BAD_TYPE)


@pytest.mark.parametrize(
    ("config", "into", "out_of"), [(ofp.OFPPC_NO_FWD, [2], []), (ofp.OFPPC_NO_RECV, [], [1]), (ofp.OFPPC_PORT_DOWN, [], [])]
)
def test_a_ports_configuration(config: int, into: list[int], out_of: list[int]) -> None:
    switch = Switch()
    flood = parser.OFPInstructionActions(APPLY, [parser.OFPActionOutput(ofp.OFPP_FLOOD)])
    switch.ask(parser.OFPFlowMod(PROTOCOL, instructions=[flood]))
    switch.ask(parser.OFPPortMod(PROTOCOL, 1, "02:be:00:be:00:01", config, config, 0))
    assert switch.told[0][-1].desc.config == config
    seen = []
    for port in (1, 2):
        switch.sent.clear()
        switch.agent.receive(port, FRAME)
        seen.append([to for to, _ in switch.sent])
    assert seen == [into, out_of]


MESSAGES = [to_bytes(each) for each in (FLOW, GROUP, METER)] + [
    to_bytes(parser.OFPPacketOut(PROTOCOL, ofp.OFP_NO_BUFFER, 1, [parser.OFPActionSetField(eth_dst="02:00:00:00:00:09")], FRAME)),
    to_bytes(parser.OFPFlowStatsRequest(PROTOCOL, 0, 0, 1, 1, 0, 0, parser.OFPMatch(in_port=1))),
    to_bytes(parser.OFPRoleRequest(PROTOCOL, MASTER, 1)),
    to_bytes(parser.OFPPortMod(PROTOCOL, 1)),
]


@given(
    st.sampled_from(MESSAGES), st.lists(st.tuples(st.integers(8, 150), st.integers(0, 255)), min_size=1, max_size=4), st.integers(8, 150)
)
def test_no_message_upsets_it(message: bytes, changes: list[tuple[int, int]], length: int) -> None:
    """Every message is carried out or refused by its own error; none is one that was not foreseen."""
    data = bytearray(message[:length])
    for at, value in changes:
        if at < len(data):
            data[at] = value
    data[2:4] = len(data).to_bytes(2)
    switch = Switch()
    failures: list[logging.LogRecord] = []
    log = logging.getLogger("topologies.emulation.openflow.agent")
    handler = logging.Handler()
    handler.emit = failures.append  # type: ignore[method-assign, assignment]
    log.addHandler(handler)
    try:
        for request in (METER, GROUP, FLOW, bytes(data)):
            switch.ask(request)
        switch.agent.receive(1, FRAME)
    finally:
        log.removeHandler(handler)
    assert not failures, failures[0].exc_info
