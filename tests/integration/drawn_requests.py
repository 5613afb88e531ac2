"""Random OpenFlow requests and frames, of few different values so that they meet."""

from __future__ import annotations

import random
import struct
from typing import Any
from zlib import crc32

from os_ken.lib.packet import arp, ethernet, icmp, icmpv6, ipv4, ipv6, lldp, packet, tcp, udp, vlan
from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topologies.emulation.openflow.pipeline import PROTOCOL

PORTS = (1, 2, 3, 4)
TABLES, GROUPS, METERS = range(4), range(1, 5), (1, 2)
MACS = [f"02:00:00:00:00:0{number}" for number in (1, 2, 3)]
IPS = ["10.0.0.1", "10.0.0.2", "10.0.1.1"]
IP6S = ["fe80::1", "fe80::2", "2001:db8::1"]
VIDS = (5, 6)
L4_PORTS = (53, 1000)


class Requests:
    """Random requests of few different values, so that they meet; some are wrong."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def match(self, table: int) -> dict[str, Any]:
        pick = self.rng.choice
        found: dict[str, Any] = {}
        if self.chance(0.25):
            found["in_port"] = pick(PORTS)
        if self.chance(0.15):
            found["eth_dst"] = pick([*MACS, (MACS[0], "ff:ff:ff:ff:ff:fd"), ("01:00:00:00:00:00", "01:00:00:00:00:00")])
        if self.chance(0.1):
            found["eth_src"] = pick(MACS)
        if self.chance(0.15):
            found["vlan_vid"] = pick([0, 0x1000 | VIDS[0], 0x1000 | VIDS[1], (0x1000, 0x1000)])
            if self.chance(0.3):
                found["vlan_pcp"] = pick([0, 3])
        if table and self.chance(0.2):
            found["metadata"] = pick([0, 1, (1, 1), (0, 2)])
        if self.chance(0.7):
            found |= pick([self._ipv4, self._ipv6, self._arp])()
        if found and self.chance(0.03):
            del found[pick(sorted(found))]  # perhaps a prerequisite
        return found

    def _some(self, shares: dict[str, list[Any]], share: float = 0.3) -> dict[str, Any]:
        return {name: self.rng.choice(values) for name, values in shares.items() if self.chance(share)}

    def _ipv4(self) -> dict[str, Any]:
        nets = [*IPS, ("10.0.0.0", "255.255.255.0"), ("0.0.0.1", "0.0.0.1")]
        found = {"eth_type": 0x0800} | self._some({"ipv4_src": nets, "ipv4_dst": nets, "ip_dscp": [0, 10], "ip_ecn": [0, 1]}, 0.25)
        return found | self._transport(1, "icmpv4")

    def _ipv6(self) -> dict[str, Any]:
        nets = [*IP6S, ("fe80::", "ffff::")]
        found = {"eth_type": 0x86DD} | self._some({"ipv6_src": nets, "ipv6_dst": nets, "ipv6_flabel": [0, 7], "ip_dscp": [0, 10]}, 0.25)
        found |= self._transport(58, "icmpv6")
        if found.get("icmpv6_type") in (135, 136):
            link = "ipv6_nd_sll" if found["icmpv6_type"] == 135 else "ipv6_nd_tll"
            found |= self._some({"ipv6_nd_target": IP6S, link: MACS})
        return found

    def _transport(self, icmp_protocol: int, icmp_name: str) -> dict[str, Any]:
        if not self.chance(0.6):
            return {}
        protocol, name = self.rng.choice([(6, "tcp"), (17, "udp"), (icmp_protocol, icmp_name)])
        kinds = {f"{name}_type": [0, 8] if name == "icmpv4" else [128, 135, 136], f"{name}_code": [0]}
        return {"ip_proto": protocol} | self._some(
            kinds if protocol == icmp_protocol else {f"{name}_src": [0, *L4_PORTS], f"{name}_dst": [0, *L4_PORTS]}, 0.5
        )

    def _arp(self) -> dict[str, Any]:
        ips = [*IPS, ("10.0.0.0", "255.255.255.0")]
        return {"eth_type": 0x0806} | self._some({"arp_op": [1, 2], "arp_spa": ips, "arp_tpa": ips, "arp_sha": MACS, "arp_tha": MACS})

    def actions(self, known: dict[str, Any] | None, groups: list[int], strangers: list[int], *, bucket: bool = False) -> list[Any]:
        """Mostly such as fit the frames that `known` matches."""
        rng, made = self.rng, []
        for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4])):
            kind = rng.choice(["output"] * 5 + ["set"] * 4 + ["push", "pop", "ttl", "dec", "group"])
            if kind == "output":
                made.append(self._output())
            elif kind == "set":
                name, value = self._field(known)
                made.append(parser.OFPActionSetField(**{name: value}))
            elif kind == "push" and (known is None or known.get("vlan_vid") == 0) and not bucket:
                made += [
                    parser.OFPActionPushVlan(rng.choice([0x8100, 0x88A8])),
                    parser.OFPActionSetField(vlan_vid=0x1000 | rng.choice(VIDS)),
                ]
                known = {**(known or {}), "vlan_vid": 0x1000}
            elif kind == "pop" and (known is None or known.get("vlan_vid") or self.chance(0.1)):
                made.append(parser.OFPActionPopVlan())
                known = {name: value for name, value in (known or {}).items() if name != "vlan_vid"} if known is not None else None
            elif kind == "ttl":
                made.append(parser.OFPActionSetNwTtl(rng.choice([1, 2, 9])))
            elif kind == "dec":
                made.append(parser.OFPActionDecNwTtl())
            elif kind == "group" and groups:
                made.append(parser.OFPActionGroup(rng.choice(groups)))
            elif strangers and self.chance(0.05):
                made.append(parser.OFPActionGroup(strangers[0]))
        if bucket or self.chance(0.6):
            made.append(self._output())
        return made

    def _output(self) -> Any:
        port = self.rng.choice([*PORTS] * 3 + [ofp.OFPP_IN_PORT, ofp.OFPP_ALL, ofp.OFPP_FLOOD, ofp.OFPP_CONTROLLER])
        return parser.OFPActionOutput(port, ofp.OFPCML_NO_BUFFER)

    def _field(self, known: dict[str, Any] | None) -> tuple[str, Any]:
        choices: list[tuple[str, Any]] = [("eth_dst", MACS), ("eth_src", MACS)]
        anything, known = known is None or self.chance(0.1), known or {}
        if anything or known.get("vlan_vid"):
            choices += [("vlan_vid", [0x1000 | vid for vid in VIDS]), ("vlan_pcp", [0, 3])]
        if anything or known.get("eth_type") == 0x0800:
            choices += [("ipv4_src", IPS), ("ipv4_dst", IPS), ("ip_dscp", [0, 10, 63]), ("ip_ecn", [0, 3])]
        if anything or known.get("eth_type") == 0x86DD:
            choices += [("ipv6_src", IP6S), ("ipv6_dst", IP6S), ("ip_dscp", [0, 10, 63]), ("ipv6_flabel", [0, 7, 0xFFFFF])]
        if anything or known.get("eth_type") == 0x0806:
            choices += [("arp_op", [1, 2]), ("arp_spa", IPS), ("arp_tpa", IPS), ("arp_sha", MACS), ("arp_tha", MACS)]
        for protocol, name in ((6, "tcp"), (17, "udp")):
            if anything or known.get("ip_proto") == protocol:
                choices += [(f"{name}_src", L4_PORTS), (f"{name}_dst", L4_PORTS)] * 2
        if anything or known.get("ip_proto") in (1, 58):
            name = "icmpv4" if known.get("ip_proto") == 1 else "icmpv6"
            choices += [(f"{name}_type", [8, 128]), (f"{name}_code", [0, 1])]
        name, values = self.rng.choice(choices)
        return name, self.rng.choice(list(values))

    def flow_mod(self, groups: list[int], meters: list[int], taken: list[int]) -> Any:
        """`taken` are the priorities of entries that are there."""
        rng = self.rng
        table = rng.choice(TABLES)
        match = {} if self.chance(0.15) else self.match(table)
        loose, instructions = self.chance(0.15), []
        strangers = [] if loose else [77]  # Open vSwitch looks for the group when it finds an entry to modify
        for kind in (ofp.OFPIT_APPLY_ACTIONS, ofp.OFPIT_WRITE_ACTIONS):
            if self.chance(0.6):
                instructions.append(parser.OFPInstructionActions(kind, self.actions(match, groups, strangers)))
        if self.chance(0.15):
            instructions.append(parser.OFPInstructionActions(ofp.OFPIT_CLEAR_ACTIONS, []))
        if self.chance(0.2):
            instructions.append(parser.OFPInstructionWriteMetadata(rng.choice([0, 1, 2, 3]), rng.choice([1, 3])))
        if self.chance(0.6):
            instructions.append(parser.OFPInstructionGotoTable(table + rng.choice([1] * 9 + [0])))
        if meters and self.chance(0.1):
            instructions.append(parser.OFPInstructionMeter(rng.choice([*meters] if loose else [*meters, 7])))
        rng.shuffle(instructions)
        command = (
            rng.choice([ofp.OFPFC_MODIFY, ofp.OFPFC_MODIFY_STRICT, ofp.OFPFC_DELETE, ofp.OFPFC_DELETE_STRICT]) if loose else ofp.OFPFC_ADD
        )
        flags = rng.choice([0] * 8 + [ofp.OFPFF_CHECK_OVERLAP, 1 << 9])
        # No two matches have one priority: which of two entries of one priority takes a frame is not for a standard to say.
        priority = rng.choice(taken or [1]) if flags & ofp.OFPFF_CHECK_OVERLAP else crc32(repr(sorted(match.items())).encode()) % 60_000
        return parser.OFPFlowMod(
            PROTOCOL,
            cookie=rng.choice([0, 1, 2, 0xF1]),
            cookie_mask=rng.choice([0, 0, 1, 0xF0]) if loose else 0,
            table_id=ofp.OFPTT_ALL if command == ofp.OFPFC_DELETE and self.chance(0.3) else table,
            command=command,
            priority=priority,
            out_port=rng.choice([ofp.OFPP_ANY, ofp.OFPP_ANY, 2]),
            out_group=rng.choice([ofp.OFPG_ANY, ofp.OFPG_ANY, 1]),
            flags=flags,
            match=parser.OFPMatch(**match),
            instructions=[] if command in (ofp.OFPFC_DELETE, ofp.OFPFC_DELETE_STRICT) else instructions,
        )

    def group_mod(self, groups: list[int]) -> Any:
        rng = self.rng
        number, kind = rng.choice(GROUPS), rng.choice([ofp.OFPGT_ALL, ofp.OFPGT_SELECT, ofp.OFPGT_INDIRECT, ofp.OFPGT_FF])
        lower = [each for each in groups if each < number]
        buckets = []
        for _ in range(1 if kind == ofp.OFPGT_INDIRECT and self.chance(0.9) else rng.choice([0, 1, 2, 3])):
            watched = rng.choice(PORTS) if kind == ofp.OFPGT_FF else ofp.OFPP_ANY
            weight = rng.choice([0, 1, 3]) if kind == ofp.OFPGT_SELECT else 0
            buckets.append(parser.OFPBucket(weight, watched, ofp.OFPG_ANY, self.actions(None, lower, [], bucket=True)))
        command = rng.choice([ofp.OFPGC_ADD, ofp.OFPGC_ADD, ofp.OFPGC_MODIFY])
        return parser.OFPGroupMod(PROTOCOL, command, kind, number, buckets)

    def meter_mod(self) -> Any:
        """Of a rate that no test reaches."""
        command = self.rng.choice([ofp.OFPMC_ADD, ofp.OFPMC_ADD, ofp.OFPMC_MODIFY, ofp.OFPMC_DELETE])
        return parser.OFPMeterMod(PROTOCOL, command, ofp.OFPMF_KBPS, self.rng.choice([*METERS, 0]), [parser.OFPMeterBandDrop(1_000_000, 0)])

    def frame(self, index: int) -> bytes:
        rng, made = self.rng, packet.Packet()
        kind = rng.choice(["ipv4"] * 4 + ["ipv6"] * 4 + ["arp", "arp", "lldp"])
        ethertype = {"ipv4": 0x0800, "ipv6": 0x86DD, "arp": 0x0806, "lldp": 0x88CC}[kind]
        tagged = self.chance(0.35)
        made.add_protocol(ethernet.ethernet(rng.choice([*MACS, "ff:ff:ff:ff:ff:ff"]), rng.choice(MACS), 0x8100 if tagged else ethertype))
        if tagged:
            made.add_protocol(vlan.vlan(vid=rng.choice([*VIDS, 0]), pcp=rng.choice([0, 3]), ethertype=ethertype))
        body: list[Any] = []
        if kind == "arp":
            body = [arp.arp_ip(rng.choice([1, 2]), rng.choice(MACS), rng.choice(IPS), rng.choice(MACS), rng.choice(IPS))]
        elif kind == "lldp":
            chassis = lldp.ChassisID(subtype=lldp.ChassisID.SUB_LOCALLY_ASSIGNED, chassis_id=b"s1")
            port = lldp.PortID(subtype=lldp.PortID.SUB_PORT_COMPONENT, port_id=b"1")
            body = [lldp.lldp(tlvs=[chassis, port, lldp.TTL(ttl=120), lldp.End()])]
        else:
            body = self._datagram(kind)
        for each in body:
            made.add_protocol(each)
        made.serialize()
        return bytes(made.data) + bytes(max(0, 56 - len(made.data))) + struct.pack("!I", index)

    def _datagram(self, kind: str) -> list[Any]:
        rng = self.rng
        protocol = rng.choice(["tcp", "udp", "icmp"])
        if protocol == "icmp":
            upper: list[Any] = [icmp.icmp(type_=rng.choice([0, 8]))] if kind == "ipv4" else [self._icmpv6()]
        else:
            ports = {"src_port": rng.choice(L4_PORTS), "dst_port": rng.choice(L4_PORTS)}
            upper = [tcp.tcp(**ports) if protocol == "tcp" else udp.udp(**ports), b"question"]
        ttl = rng.choice([1, 2, 64])
        if kind == "ipv4":
            fragment = rng.choice([0] * 8 + [1, 5])
            if fragment == 5:
                upper = [b"rest"]
            made: Any = ipv4.ipv4(
                src=rng.choice(IPS),
                dst=rng.choice(IPS),
                proto={"tcp": 6, "udp": 17, "icmp": 1}[protocol],
                ttl=ttl,
                tos=rng.choice([0, 40, 41]),
                flags=1 if fragment else rng.choice([0, 2]),
                offset=0 if fragment == 1 else fragment,
            )
        else:
            made = ipv6.ipv6(
                src=rng.choice(IP6S),
                dst=rng.choice(IP6S),
                nxt={"tcp": 6, "udp": 17, "icmp": 58}[protocol],
                hop_limit=ttl,
                traffic_class=rng.choice([0, 40]),
                flow_label=rng.choice([0, 7]),
                ext_hdrs=[ipv6.hop_opts(data=[ipv6.option(type_=1, len_=4, data=bytes(4))])] if self.chance(0.1) else [],
            )
            if made.ext_hdrs:
                made.ext_hdrs[0].nxt, made.nxt = made.nxt, 0
        return [made, *upper]

    def _icmpv6(self) -> Any:
        rng = self.rng
        kind = rng.choice([128, 135, 136])
        if kind == 128:
            return icmpv6.icmpv6(type_=128, data=icmpv6.echo())
        link = (icmpv6.nd_option_sla if kind == 135 else icmpv6.nd_option_tla)(hw_src=rng.choice(MACS))
        return icmpv6.icmpv6(type_=kind, data=icmpv6.nd_neighbor(dst=rng.choice(IP6S), option=link if self.chance(0.8) else None))
