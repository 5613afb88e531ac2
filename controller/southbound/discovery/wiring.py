"""How the document says that switches and hosts are wired, and where what is found disagrees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from controller.network.topology import Topology
from controller.southbound.discovery.links import End, Pair


@dataclass(frozen=True, slots=True)
class Wiring:
    """What is declared of the OpenFlow switches' ports. Cables whose ports are not said are known by their switches only."""

    cables: Mapping[str, Pair] = field(default_factory=dict)
    """The ports of the links between switches, by id."""
    links: Mapping[Pair, str] = field(default_factory=dict)
    """The same the other way round."""
    at: Mapping[End, str] = field(default_factory=dict)
    """The link between switches at a port."""
    vague: frozenset[frozenset[str]] = frozenset()
    """Switches joined by a cable whose ports the document does not say."""
    hosts: Mapping[str, End] = field(default_factory=dict)
    """Where the named hosts are."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """The names of these hosts by MAC address, or by IP address where the document gives no other."""
    datapaths: Mapping[int, str] = field(default_factory=dict)


def declared(topology: Topology) -> Wiring:
    """The wiring of the ethernet links in the document."""
    switches = {name for name, _ in topology.nodes("openflow-switch")}
    cables: dict[str, Pair] = {}
    vague: set[frozenset[str]] = set()
    hosts: dict[str, End] = {}
    for link in topology.links("ethernet"):
        joined = [each for each in (link.a, link.b) if each.node in switches]
        ends = sorted((each.node, int(each.port)) for each in joined if each.port and each.port.isdecimal())
        if len(joined) == 2 and len(ends) == 2:
            cables[link.id] = (ends[0], ends[1])
        elif len(joined) == 2:
            vague.add(frozenset(link.nodes))
        elif len(ends) == 1:
            other = link.b.node if link.a.node in switches else link.a.node
            hosts[other] = ends[0]
    return Wiring(
        cables,
        {pair: link for link, pair in cables.items()},
        {end: link for link, pair in cables.items() for end in pair},
        frozenset(vague),
        hosts,
        {text: name for name, node in topology.nodes("host") if name in hosts and (text := node.mac or node.ip)},
        {int(node.dpid, 16): name for name, node in topology.nodes("openflow-switch") if node.dpid},
    )


@dataclass(frozen=True, slots=True, order=True)
class Disagreement:
    """`missing`: declared, and its ports join nothing; `miswired`: declared, and its ports join others; `unexpected`: found, not declared.

    `subject` is the declared link's id, or the ports of the unexpected one; `declared` and `found` are ports, `s1:1 - s2:1`.
    """

    kind: Literal["missing", "miswired", "unexpected"]
    subject: str
    declared: str = ""
    found: tuple[str, ...] = ()


def text(pair: Pair) -> str:
    """Ports as they are told: `s1:1 - s2:1`."""
    return " - ".join(f"{switch}:{port}" for switch, port in pair)


def compare(wiring: Wiring, undeclared: Iterable[Pair], absent: Collection[Pair], known: Collection[str]) -> frozenset[Disagreement]:
    """What it means that links were found which are `undeclared`, and declared ones are `absent`: missing only between `known` switches."""
    others: dict[str, list[str]] = defaultdict(list)
    disagreements = set()
    for pair in undeclared:
        if frozenset(switch for switch, _ in pair) in wiring.vague:
            continue
        wrong = {link for end in pair if (link := wiring.at.get(end)) and wiring.cables[link] in absent}
        for link in wrong:
            others[link].append(text(pair))
        if not wrong:
            disagreements.add(Disagreement("unexpected", text(pair), _declared_there(wiring, pair), (text(pair),)))
    for pair in absent:
        link = wiring.links[pair]
        if link in others:
            disagreements.add(Disagreement("miswired", link, text(pair), tuple(sorted(others[link]))))
        elif all(switch in known for switch, _ in pair):
            disagreements.add(Disagreement("missing", link, text(pair)))
    return frozenset(disagreements)


def _declared_there(wiring: Wiring, pair: Pair) -> str:
    """What the document has at these ports instead."""
    named: Iterable[str] = (f"{name} at {switch}:{port}" for name, (switch, port) in wiring.hosts.items() if (switch, port) in pair)
    cables = (text(wiring.cables[wiring.at[end]]) for end in pair if end in wiring.at)
    return "; ".join((*named, *cables))
