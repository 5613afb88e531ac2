"""os-ken and Ryu as judges of ours: our messages as theirs, and what they parsed as our messages."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from ipaddress import IPv6Address
from typing import Any

import pytest
from drawn_messages import IPV6S, NUMBERS

from controller.southbound.device import Band, BandType, Bucket, FlowRule, Group, Meter
from controller.southbound.openflow import groups as g
from controller.southbound.openflow import messages as m
from controller.southbound.openflow import statistics as s

Items = tuple[tuple[str, int | str], ...]

ACTIONS: dict[str, tuple[str, str | None]] = {
    "output": ("OFPActionOutput", "port"),
    "group": ("OFPActionGroup", "group_id"),
    "set_queue": ("OFPActionSetQueue", "queue_id"),
    "push_vlan": ("OFPActionPushVlan", "ethertype"),
    "push_mpls": ("OFPActionPushMpls", "ethertype"),
    "pop_mpls": ("OFPActionPopMpls", "ethertype"),
    "push_pbb": ("OFPActionPushPbb", "ethertype"),
    "set_nw_ttl": ("OFPActionSetNwTtl", "nw_ttl"),
    "set_mpls_ttl": ("OFPActionSetMplsTtl", "mpls_ttl"),
    "pop_vlan": ("OFPActionPopVlan", None),
    "dec_nw_ttl": ("OFPActionDecNwTtl", None),
    "dec_mpls_ttl": ("OFPActionDecMplsTtl", None),
    "copy_ttl_in": ("OFPActionCopyTtlIn", None),
    "copy_ttl_out": ("OFPActionCopyTtlOut", None),
    "pop_pbb": ("OFPActionPopPbb", None),
}
ACTION_NAMES = {name: (ours, attribute) for ours, (name, attribute) in ACTIONS.items()}


def masked(value: int | str) -> tuple[int, int]:
    if isinstance(value, int):
        return value, 0xFFFFFFFFFFFFFFFF
    plain, _, mask = value.partition("/")
    return int(plain, 16), int(mask, 16)


def field_value(name: str, value: int | str) -> Any:
    if isinstance(value, str) and "/" in value:
        return masked(value) if name in NUMBERS else tuple(value.split("/"))
    return value


def our_value(name: str, value: Any) -> int | str:
    """Theirs, in our spelling: numbers under a mask in hexadecimal, IPv6 addresses as Python writes them."""
    spell = (
        (lambda item: str(IPv6Address(item)))
        if name in IPV6S
        else hex
        if name in NUMBERS and isinstance(value, tuple)
        else lambda item: item
    )
    return "/".join(map(spell, value)) if isinstance(value, tuple) else spell(value)


class OtherCodec:
    """One of the two packages, `os_ken` or `ryu`."""

    def __init__(self, package: str) -> None:
        """Skips the test when the package is not there. Ryu is also looked for in the directory that BELLHOP_RYU_SITE names."""
        site = os.environ.get("BELLHOP_RYU_SITE")
        if package == "ryu" and site and site not in sys.path:
            sys.path.append(site)  # at the end: what it needs comes from here, where it can
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ryu's module level is of its time
            try:
                self.parser = importlib.import_module(f"{package}.ofproto.ofproto_parser")
                self.ofp = importlib.import_module(f"{package}.ofproto.ofproto_v1_3")
                self.messages = importlib.import_module(f"{package}.ofproto.ofproto_v1_3_parser")
                protocol = importlib.import_module(f"{package}.ofproto.ofproto_protocol")
            except ImportError as error:
                pytest.skip(f"{package} cannot be imported ({error}); BELLHOP_RYU_SITE may name a site-packages that has ryu 4.34")
        self.datapath = protocol.ProtocolDesc(version=4)

    def match(self, match: Items) -> Any:
        return self.messages.OFPMatch(**{name: field_value(name, value) for name, value in match})

    def action(self, name: str, value: int | str) -> Any:
        if name.startswith("set_field:"):
            return self.messages.OFPActionSetField(**{name.removeprefix("set_field:"): value})
        if name == "output":
            return self.messages.OFPActionOutput(value, 0xFFFF if value == self.ofp.OFPP_CONTROLLER else 0)
        kind, attribute = ACTIONS[name]
        return getattr(self.messages, kind)(value) if attribute else getattr(self.messages, kind)()

    def actions(self, items: Items) -> list[Any]:
        return [self.action(name, value) for name, value in items]

    def instructions(self, items: Items) -> list[Any]:
        apply, write, others = [], [], []
        for name, value in items:
            if name.startswith("write:"):
                write.append(self.action(name.removeprefix("write:"), value))
            elif name == "goto_table":
                others.append(self.messages.OFPInstructionGotoTable(value))
            elif name == "meter":
                others.append(self.messages.OFPInstructionMeter(value))
            elif name == "write_metadata":
                others.append(self.messages.OFPInstructionWriteMetadata(*masked(value)))
            elif name == "clear_actions":
                others.append(self.messages.OFPInstructionActions(self.ofp.OFPIT_CLEAR_ACTIONS, []))
            else:
                apply.append(self.action(name, value))
        lists = ((self.ofp.OFPIT_APPLY_ACTIONS, apply), (self.ofp.OFPIT_WRITE_ACTIONS, write))
        return [self.messages.OFPInstructionActions(kind, items) for kind, items in lists if items] + others

    def bucket(self, bucket: Bucket) -> Any:
        return self.messages.OFPBucket(bucket.weight, bucket.watch_port, bucket.watch_group, self.actions(bucket.actions))

    def band(self, band: Band) -> Any:
        if band.type == BandType.DROP:
            return self.messages.OFPMeterBandDrop(band.rate, band.burst)
        return self.messages.OFPMeterBandDscpRemark(band.rate, band.burst, band.precedence_levels)

    def sends(self, message: m.Message, xid: int) -> bytes | None:
        """The message as they would send it; None where they have no encoder."""
        theirs = self._theirs(message)
        if theirs is None:
            return None
        theirs.set_xid(xid)
        theirs.serialize()
        return bytes(theirs.buf)

    def _theirs(self, message: m.Message) -> Any:
        p, dp = self.messages, self.datapath
        match message:
            case m.Hello(bitmap=()):  # they leave out the elements
                return p.OFPHello(dp)
            case m.Error(kind, code, data, experimenter):
                if kind == m.EXPERIMENTER_ERROR:
                    return p.OFPErrorMsg(dp, kind, data=data, exp_type=code, experimenter=experimenter)
                return p.OFPErrorMsg(dp, kind, code, data)
            case m.EchoRequest(data):
                return p.OFPEchoRequest(dp, data)
            case m.EchoReply(data):
                return p.OFPEchoReply(dp, data)
            case m.FeaturesRequest():
                return p.OFPFeaturesRequest(dp)
            case m.GetConfigRequest():
                return p.OFPGetConfigRequest(dp)
            case m.SetConfig(flags, miss):
                return p.OFPSetConfig(dp, flags, miss)
            case m.PacketOut(actions, data, in_port, buffer_id) if actions:  # without actions, theirs overwrite the frame with the header
                return p.OFPPacketOut(dp, buffer_id, in_port, self.actions(actions), data)
            case m.FlowMod(command, rule, mask, idle, hard, buffer_id, out_port, out_group, flags):
                head = (rule.cookie, mask, rule.table, int(command), idle, hard, rule.priority, buffer_id, out_port, out_group, flags)
                return p.OFPFlowMod(dp, *head, self.match(rule.match), self.instructions(rule.actions))
            case g.GroupMod(command, group):
                return p.OFPGroupMod(dp, int(command), group.type, group.number, [self.bucket(bucket) for bucket in group.buckets])
            case g.MeterMod(command, meter):
                return p.OFPMeterMod(dp, int(command), meter.flags, meter.number, [self.band(band) for band in meter.bands])
            case m.BarrierRequest():
                return p.OFPBarrierRequest(dp)
            case m.RoleRequest(role, generation_id):
                return p.OFPRoleRequest(dp, role, generation_id)
            case s.DescRequest():
                return p.OFPDescStatsRequest(dp, 0)
            case m.PortDescRequest():
                return p.OFPPortDescStatsRequest(dp, 0)
            case s.PortStatsRequest(port):
                return p.OFPPortStatsRequest(dp, 0, port)
            case m.FlowStatsRequest(table, out_port, out_group, cookie, mask, match):
                return p.OFPFlowStatsRequest(dp, 0, table, out_port, out_group, cookie, mask, self.match(match))
            case s.AggregateStatsRequest(table, out_port, out_group, cookie, mask, match):
                return p.OFPAggregateStatsRequest(dp, 0, table, out_port, out_group, cookie, mask, self.match(match))
            case s.TableStatsRequest():
                return p.OFPTableStatsRequest(dp, 0)
            case g.GroupStatsRequest(number):
                return p.OFPGroupStatsRequest(dp, 0, number)
            case g.GroupDescRequest():
                return p.OFPGroupDescStatsRequest(dp, 0)
            case g.MeterStatsRequest(number):
                return p.OFPMeterStatsRequest(dp, 0, number)
            case g.MeterConfigRequest(number):
                return p.OFPMeterConfigStatsRequest(dp, 0, number)
        return None

    def reads(self, data: bytes) -> m.Message:
        """What they parsed, as our message."""
        t = self.parser.msg(self.datapath, data[0], data[1], len(data), int.from_bytes(data[4:8]), data)
        match type(t).__name__:
            case "OFPHello":
                return m.Hello(t.version, tuple(version for element in t.elements for version in sorted(element.versions)))
            case "OFPErrorMsg" if t.type == m.EXPERIMENTER_ERROR:
                return m.Error(t.type, t.exp_type, bytes(t.data), t.experimenter)
            case "OFPErrorMsg":
                return m.Error(t.type, t.code, bytes(t.data))
            case "OFPEchoRequest":
                return m.EchoRequest(bytes(t.data or b""))
            case "OFPEchoReply":
                return m.EchoReply(bytes(t.data or b""))
            case "OFPSwitchFeatures":
                return m.FeaturesReply(t.datapath_id, t.n_buffers, t.n_tables, t.auxiliary_id, t.capabilities)
            case "OFPGetConfigReply":
                return m.GetConfigReply(t.flags, t.miss_send_len)
            case "OFPPacketIn":
                return m.PacketIn(t.buffer_id, t.total_len, t.reason, t.table_id, t.cookie, our_match(t.match), bytes(t.data))
            case "OFPFlowMod":
                rest = (t.cookie_mask, t.idle_timeout, t.hard_timeout, t.buffer_id, t.out_port, t.out_group, t.flags)
                return m.FlowMod(m.FlowCommand(t.command), self._rule(t), *rest)
            case "OFPFlowRemoved":
                counted = (t.idle_timeout, t.hard_timeout, t.packet_count, t.byte_count)
                return m.FlowRemoved(t.cookie, t.priority, t.reason, t.table_id, duration_s(t), *counted, our_match(t.match))
            case "OFPPortStatus":
                return m.PortStatus(t.reason, our_port(t.desc))
            case "OFPBarrierReply":
                return m.BarrierReply()
            case "OFPRoleReply":
                return m.RoleReply(t.role, t.generation_id)
        return self._multipart(t, bool(t.flags & 1))

    def _multipart(self, t: Any, more: bool) -> m.Message:
        match type(t).__name__:
            case "OFPDescStatsReply":
                b = t.body
                return s.DescReply(*(text.decode() for text in (b.mfr_desc, b.hw_desc, b.sw_desc, b.serial_num, b.dp_desc)), more)
            case "OFPFlowStatsReply":
                return m.FlowStatsReply(
                    tuple(
                        m.FlowStats(self._rule(e), duration_s(e), e.idle_timeout, e.hard_timeout, e.flags, e.packet_count, e.byte_count)
                        for e in t.body
                    ),
                    more,
                )
            case "OFPAggregateStatsReply":
                return s.AggregateStatsReply(t.body.packet_count, t.body.byte_count, t.body.flow_count, more)
            case "OFPTableStatsReply":
                return s.TableStatsReply(tuple(s.TableStats(*entry) for entry in t.body), more)
            case "OFPPortStatsReply":
                return s.PortStatsReply(tuple(s.PortStats(*entry[:-2], duration_s(entry)) for entry in t.body), more)
            case "OFPPortDescStatsReply":
                return m.PortDescReply(tuple(map(our_port, t.body)), more)
            case "OFPGroupStatsReply":
                return g.GroupStatsReply(
                    tuple(
                        g.GroupStats(
                            *(e.group_id, e.ref_count, e.packet_count, e.byte_count, duration_s(e)),
                            tuple((bucket.packet_count, bucket.byte_count) for bucket in e.bucket_stats),
                        )
                        for e in t.body
                    ),
                    more,
                )
            case "OFPGroupDescStatsReply":
                return g.GroupDescReply(
                    tuple(Group(e.group_id, e.type, tuple(self._bucket(bucket) for bucket in e.buckets)) for e in t.body), more
                )
            case "OFPMeterStatsReply":
                return g.MeterStatsReply(
                    tuple(
                        g.MeterStats(
                            *(e.meter_id, e.flow_count, e.packet_in_count, e.byte_in_count, duration_s(e)),
                            tuple((band.packet_band_count, band.byte_band_count) for band in e.band_stats),
                        )
                        for e in t.body
                    ),
                    more,
                )
            case "OFPMeterConfigStatsReply":
                return g.MeterConfigReply(
                    tuple(
                        Meter(
                            *(e.meter_id, e.flags),
                            tuple(Band(b.rate, b.burst_size, b.type, getattr(b, "prec_level", 0)) for b in e.bands),
                        )
                        for e in t.body
                    ),
                    more,
                )
        raise AssertionError(f"no translation for {t}")

    def _bucket(self, bucket: Any) -> Bucket:
        return Bucket(tuple(map(self._action, bucket.actions)), bucket.weight, bucket.watch_port, bucket.watch_group)

    def _rule(self, t: Any) -> FlowRule:
        return FlowRule(t.priority, our_match(t.match), self._instructions(t.instructions), t.cookie, t.table_id)

    def _action(self, t: Any) -> tuple[str, int | str]:
        if isinstance(t, self.messages.OFPActionSetField):
            return f"set_field:{t.key}", our_value(t.key, t.value)
        name, attribute = ACTION_NAMES[type(t).__name__]
        return name, getattr(t, attribute) if attribute else 0

    def _instructions(self, instructions: list[Any]) -> Items:
        applied: Items = ()
        others: list[tuple[int, Items]] = []
        for t in instructions:
            if t.type == self.ofp.OFPIT_APPLY_ACTIONS:
                applied = tuple(map(self._action, t.actions))
            elif t.type == self.ofp.OFPIT_WRITE_ACTIONS:
                others.append((t.type, tuple((f"write:{name}", value) for name, value in map(self._action, t.actions))))
            elif t.type == self.ofp.OFPIT_CLEAR_ACTIONS:
                others.append((t.type, (("clear_actions", 0),)))
            elif t.type == self.ofp.OFPIT_WRITE_METADATA:
                whole = t.metadata_mask == 0xFFFFFFFFFFFFFFFF
                others.append((t.type, (("write_metadata", t.metadata if whole else f"{t.metadata:#x}/{t.metadata_mask:#x}"),)))
            elif t.type == self.ofp.OFPIT_GOTO_TABLE:
                others.append((t.type, (("goto_table", t.table_id),)))
            else:
                others.append((t.type, (("meter", t.meter_id),)))
        return applied + tuple(item for _, items in sorted(others) for item in items)


def our_match(match: Any) -> Items:
    return tuple(sorted((name, our_value(name, value)) for name, value in match.items()))


def our_port(t: Any) -> m.Port:
    speeds = (t.curr, t.advertised, t.supported, t.peer, t.curr_speed, t.max_speed)
    return m.Port(t.port_no, t.hw_addr, t.name.decode(), t.config, t.state, *speeds)


def duration_s(t: Any) -> float:
    return float(t.duration_sec + t.duration_nsec / 1e9)
