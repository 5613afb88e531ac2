"""Hypothesis strategies for every message the codec models, with values as they are after the wire (canonical)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st

from controller.southbound.device import Band, BandType, Bucket, FlowRule, Group, GroupType, Meter
from controller.southbound.openflow import groups as g
from controller.southbound.openflow import messages as m
from controller.southbound.openflow import statistics as s

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


actions = st.one_of(
    action("output", "group", "set_queue", bits=32),
    st.just(("output", int(m.Port13.CONTROLLER))),
    action("push_vlan", "push_mpls", "pop_mpls", "push_pbb", bits=16),
    action("set_nw_ttl", "set_mpls_ttl", bits=8),
    action("pop_vlan", "dec_nw_ttl", "dec_mpls_ttl", "copy_ttl_in", "copy_ttl_out", "pop_pbb"),
    set_fields(),
)
action_lists = st.lists(actions, max_size=5).map(tuple)
instructions = st.tuples(
    st.lists(action("goto_table", bits=8), max_size=1),
    st.lists(values("metadata").map(lambda value: ("write_metadata", value)), max_size=1),
    st.lists(actions.map(lambda item: (f"write:{item[0]}", item[1])), max_size=3),
    st.lists(st.just(("clear_actions", 0)), max_size=1),
    st.lists(action("meter", bits=32), max_size=1),
).map(lambda lists: tuple(item for items in lists for item in items))

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
durations_s = st.integers(0, 1 << 20).map(lambda ticks: ticks / 512)
macs = st.binary(min_size=6, max_size=6).map(lambda mac: mac.hex(":"))
frames = st.binary(max_size=100)
more = st.booleans()


def texts(size: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=size)


def listed(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(strategy, max_size=3).map(tuple)


rules = st.builds(
    lambda priority, match, applied, others, cookie, table: FlowRule(priority, match, applied + others, cookie, table),
    *(u16, matches(), action_lists, instructions, u64, u8),
)
flow_mods = st.builds(m.FlowMod, st.sampled_from(m.FlowCommand), rules, u64, u16, u16, u32, u32, u32, u16)
ports = st.builds(m.Port, u32, macs, texts(15), *(u32,) * 8)
buckets = st.builds(Bucket, action_lists, u16, u32, u32)
groups = st.builds(Group, u32, st.sampled_from(GroupType).map(int), listed(buckets))
bands = st.one_of(st.builds(Band, u32, u32), st.builds(Band, u32, u32, st.just(int(BandType.DSCP_REMARK)), u8))
meters = st.builds(Meter, u32, u16, listed(bands))
counters = listed(st.tuples(u64, u64))
packet_ins = st.builds(
    m.PacketIn,
    *(u32, st.integers(100, 65535), u8, u8, u64),
    st.one_of(matches(), u32.map(lambda port: (("in_port", port),))),
    frames,
)
flow_requests = (u8, u32, u32, u64, u64, matches())
experimenter_errors = st.builds(m.Error, st.just(m.EXPERIMENTER_ERROR), u16, frames, u32)

by_class: dict[type, st.SearchStrategy[m.Message]] = {
    # os-ken reads no version 31, and for ever when there are more.
    m.Hello: st.builds(m.Hello, bitmap=st.sets(st.integers(1, 30), max_size=4).map(lambda versions: tuple(sorted(versions)))),
    m.Error: st.one_of(st.builds(m.Error, u16.filter(lambda kind: kind != m.EXPERIMENTER_ERROR), u16, frames), experimenter_errors),
    m.EchoRequest: st.builds(m.EchoRequest, frames),
    m.EchoReply: st.builds(m.EchoReply, frames),
    m.FeaturesRequest: st.just(m.FeaturesRequest()),
    m.FeaturesReply: st.builds(m.FeaturesReply, u64, u32, u8, u8, u32),
    m.GetConfigRequest: st.just(m.GetConfigRequest()),
    m.GetConfigReply: st.builds(m.GetConfigReply, u16, u16),
    m.SetConfig: st.builds(m.SetConfig, u16, u16),
    m.PacketIn: packet_ins,
    m.PacketOut: st.builds(m.PacketOut, action_lists, frames, u32),
    m.FlowMod: flow_mods,
    m.FlowRemoved: st.builds(m.FlowRemoved, u64, u16, u8, u8, durations_s, u16, u16, u64, u64, matches()),
    g.GroupMod: st.builds(g.GroupMod, st.sampled_from(g.GroupCommand), groups),
    g.MeterMod: st.builds(g.MeterMod, st.sampled_from(g.MeterCommand), meters),
    m.PortStatus: st.builds(m.PortStatus, u8, ports),
    m.BarrierRequest: st.just(m.BarrierRequest()),
    m.BarrierReply: st.just(m.BarrierReply()),
    m.RoleRequest: st.builds(m.RoleRequest, u32, u64),
    m.RoleReply: st.builds(m.RoleReply, u32, u64),
    s.DescRequest: st.just(s.DescRequest()),
    s.DescReply: st.builds(s.DescReply, texts(255), texts(255), texts(255), texts(31), texts(255), more),
    m.PortDescRequest: st.just(m.PortDescRequest()),
    m.PortDescReply: st.builds(m.PortDescReply, listed(ports), more),
    s.PortStatsRequest: st.builds(s.PortStatsRequest, u32),
    s.PortStatsReply: st.builds(s.PortStatsReply, listed(st.builds(s.PortStats, u32, *(u64,) * 12, durations_s)), more),
    m.FlowStatsRequest: st.builds(m.FlowStatsRequest, *flow_requests),
    m.FlowStatsReply: st.builds(m.FlowStatsReply, listed(st.builds(m.FlowStats, rules, durations_s, u16, u16, u16, u64, u64)), more),
    s.AggregateStatsRequest: st.builds(s.AggregateStatsRequest, *flow_requests),
    s.AggregateStatsReply: st.builds(s.AggregateStatsReply, u64, u64, u32, more),
    s.TableStatsRequest: st.just(s.TableStatsRequest()),
    s.TableStatsReply: st.builds(s.TableStatsReply, listed(st.builds(s.TableStats, u8, u32, u64, u64)), more),
    g.GroupStatsRequest: st.builds(g.GroupStatsRequest, u32),
    g.GroupStatsReply: st.builds(g.GroupStatsReply, listed(st.builds(g.GroupStats, u32, u32, u64, u64, durations_s, counters)), more),
    g.GroupDescRequest: st.just(g.GroupDescRequest()),
    g.GroupDescReply: st.builds(g.GroupDescReply, listed(groups), more),
    g.MeterStatsRequest: st.builds(g.MeterStatsRequest, u32),
    g.MeterStatsReply: st.builds(g.MeterStatsReply, listed(st.builds(g.MeterStats, u32, u32, u64, u64, durations_s, counters)), more),
    g.MeterConfigRequest: st.builds(g.MeterConfigRequest, u32),
    g.MeterConfigReply: st.builds(g.MeterConfigReply, listed(meters), more),
    m.Raw: st.builds(m.Raw, st.sampled_from([4, 16, 17, 22, 23, 26, 27, 28, *range(30, 40)]), frames),
}
messages: st.SearchStrategy[m.Message] = st.sampled_from(sorted(by_class, key=lambda kind: kind.__name__)).flatmap(by_class.__getitem__)
