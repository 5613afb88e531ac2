"""A host at another port takes its access link with it, and its services are planned to where it is."""

from __future__ import annotations

from apps.forwarding import Connectivity, plan
from controller.network.model import Link, Node
from controller.network.moves import access_link, moved, place
from controller.network.topology import Topology
from controller.services.app import Ledger
from tests.unit.apps.forwarded import arp, fabric, ip, mac, packet


def test_packets_come_out_where_the_host_has_gone() -> None:
    nodes = {f"s{n}": Node(kind="openflow-switch", dpid=f"{n:016x}") for n in (1, 2, 3)}
    nodes |= {host: Node(kind="host", mac=mac(host), ip=ip(host)) for host in ("h1", "h2", "h3")}
    links = [Link(kind="ethernet", ends=(f"s{a}:1{b}", f"s{b}:1{a}")) for a, b in ((1, 2), (2, 3), (1, 3))]
    links += [Link(kind="ethernet", id="access", ends=("s1:1", "h1:1"), capacity_mbps=7), Link(kind="ethernet", ends=("h2:1", "s2:1"))]
    links += [Link(kind="ethernet", ends=("h3:1", "s2:2")), Link(kind="ethernet", ends=("h3:2", "s3:2"))]
    network = Topology("triangle", nodes, links)
    request = Connectivity(ends=("h1", "h2"))
    before = plan("c", request, network, Ledger(), 0.0)
    for there, path in (("s3:1", ["h1", "s3", "s2", "h2"]), ("s2:9", ["h1", "s2", "h2"]), ("s1:1", before.route["nodes"])):
        link = access_link(network, "h1")
        assert link is not None
        for event in moved(link, "h1", there):
            network.apply(event)
        link = network.link("access")
        assert (place(link, "h1"), link.capacity_mbps, network.usable(link)) == (there, 7, True)
        after = plan("c", request, network, Ledger(), 0.0)
        assert after.route["nodes"] == path
        for a, b in (("h1", "h2"), ("h2", "h1")):
            for frame in (arp(a, b), packet(a, b)):
                assert [host for host, _ in fabric(network, [after]).send(frame, (a, 1)).arrived] == [b]
    assert after == before
    assert access_link(network, "h3") is None, "at two switches it has no place of its own"
