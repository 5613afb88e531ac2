"""A host that is found elsewhere takes its access link with it, and its services are planned to where it is."""

from __future__ import annotations

from apps.forwarding import Connectivity, plan
from controller.network.events import LinkStateChanged
from controller.network.model import Link, Node
from controller.network.moves import Place, followed
from controller.network.topology import Topology
from controller.services.app import Ledger
from tests.unit.apps.forwarded import arp, fabric, ip, mac, packet


def triangle() -> Topology:
    nodes = {f"s{n}": Node(kind="openflow-switch", dpid=f"{n:016x}") for n in (1, 2, 3)}
    nodes |= {host: Node(kind="host", mac=mac(host), ip=ip(host)) for host in ("h1", "h2", "h3")}
    links = [Link(kind="ethernet", ends=(f"s{a}:1{b}", f"s{b}:1{a}")) for a, b in ((1, 2), (2, 3), (1, 3))]
    links += [Link(kind="ethernet", id="access", ends=("s1:1", "h1:1"), capacity_mbps=7)]
    links += [
        Link(kind="ethernet", ends=("h2:1", "s2:1")),
        Link(kind="ethernet", ends=("h3:1", "s2:2")),
        Link(kind="ethernet", ends=("h3:2", "s3:2")),
    ]
    return Topology("triangle", nodes, links)


def moved(network: Topology, found: dict[str, Place]) -> list[str]:
    links = followed(network, found)
    for _, events in links:
        for event in events:
            assert network.apply(event)
    return [link for link, _ in links]


def test_services_follow_a_host_that_has_left_its_port() -> None:
    network = triangle()
    request = Connectivity(ends=("h1", "h2"))
    before = plan("c", request, network, Ledger(), 0.0)
    assert moved(network, {"h1": ("s3", 1)}) == [], "its old port still has a signal: somebody else may be using its address"
    network.apply(LinkStateChanged("access", up=False))
    assert moved(network, {"h1": ("s3", 1)}) == ["access"]
    link = network.link("access")
    assert (link.ends, link.capacity_mbps, network.usable(link)) == (("s3:1", "h1:1"), 7, True)
    assert moved(network, {"h1": ("s3", 1)}) == [], "it is there now"
    after = plan("c", request, network, Ledger(), 0.0)
    assert (after.route["nodes"], before.route["nodes"]) == (["h1", "s3", "s2", "h2"], ["h1", "s1", "s2", "h2"])
    for a, b in (("h1", "h2"), ("h2", "h1")):
        for frame in (arp(a, b), packet(a, b)):
            assert [host for host, _ in fabric(network, [after]).send(frame, (a, 1)).arrived] == [b]
    network.apply(LinkStateChanged("access", up=False))
    assert moved(network, {"h1": ("s1", 1)}) == ["access"]
    assert plan("c", request, network, Ledger(), 0.0) == before


def test_who_has_no_place_of_its_own_does_not_move() -> None:
    network = triangle()
    for link in ("ethernet:h3--s2", "ethernet:h3--s3", "access"):
        network.apply(LinkStateChanged(link, up=False))
    assert moved(network, {"h3": ("s1", 5)}) == [], "it is at two switches"
    assert moved(network, {"h1": ("s9", 5)}) == []
    assert moved(network, {"h1": ("s1", 5)}) == ["access"], "another port of the same switch"
    assert network.link("access").ends == ("s1:5", "h1:1")
