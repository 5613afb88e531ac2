"""Switches joined by links: a frame is carried hop by hop until it comes out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from os_ken.lib.packet import ethernet, ipv4, packet
from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as parser

from topologies.emulation.openflow.fabric import Fabric, ForwardingLoop
from topologies.emulation.openflow.pipeline import PROTOCOL, Pipeline


def frame(ttl: int = 64) -> bytes:
    made = packet.Packet()
    made.add_protocol(ethernet.ethernet("02:00:00:00:00:02", "02:00:00:00:00:01", 0x0800))
    made.add_protocol(ipv4.ipv4(src="10.0.0.1", dst="10.0.0.2", ttl=ttl, proto=17))
    made.serialize()
    return bytes(made.data)


def flow(match: dict[str, Any], *actions: Any) -> Any:
    applied = parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, list(actions))
    return parser.OFPFlowMod(PROTOCOL, match=parser.OFPMatch(**match), instructions=[applied])


def switch(message: Any) -> Pipeline:
    made = Pipeline((1, 2, 3))
    made.apply(message)
    return made


def line(*switches: Pipeline) -> Fabric:
    """h1 - s0 - s1 ... - h2: port 1 of a switch is to the left, 2 to the right."""
    names = [f"s{number}" for number in range(len(switches))]
    links = [((near, 2), (far, 1)) for near, far in pairwise(names)]
    return Fabric(dict(zip(names, switches, strict=True)), [(("h1", 1), (names[0], 1)), *links, ((names[-1], 2), ("h2", 1))])


def test_a_fabric_carries_a_frame_from_host_to_host() -> None:
    hop = flow({"eth_type": 0x0800}, parser.OFPActionDecNwTtl(), parser.OFPActionOutput(2))
    fabric = line(switch(hop), switch(hop), switch(hop))
    assert fabric.send(frame(), ("h1", 1)).arrived == [("h2", frame(ttl=61))]
    assert fabric.send(frame(ttl=2), ("h1", 1)).arrived == []
    assert fabric.send(frame(ttl=2), ("h1", 1)).visited == [("s0", 1), ("s1", 1)]
    assert [name for name, _ in fabric.send(frame(ttl=1), ("h1", 1)).packet_ins] == ["s0"]


def test_a_fabric_finds_loops() -> None:
    flood = flow({}, parser.OFPActionOutput(ofp.OFPP_FLOOD))
    ring = [(("a", 2), ("b", 3)), (("b", 2), ("c", 3)), (("c", 2), ("a", 3)), (("h", 1), ("a", 1))]
    fabric = Fabric({name: switch(flood) for name in "abc"}, ring)
    with pytest.raises(ForwardingLoop, match="a frame goes round by"):
        fabric.send(frame(), ("h", 1))
