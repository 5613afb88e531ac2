"""Key segments: what makes key between two nodes that hold keys, as candidates for relay paths.

A relay segment is one QKD link, fixed or switched. An entangled segment is a chain over repeaters whose pairs are measured (BBM92): a
virtual key link without trusted nodes inside.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from controller.network.model import Link
from controller.network.topology import Figure, Topology, qkd_figure
from controller.physics.bell_diagonal import bbm92_key_fraction, werner
from controller.routing.entanglement import Chain, explain, front
from controller.routing.lightpath import light
from controller.routing.plant import Plant, build
from controller.routing.refusal import NoRoute, told

SIFTED = 0.5
"""Share of pairs that both ends measure in the same basis, chosen at random."""

RELAYS = frozenset({"trusted-node", "satellite", "ground-station"})
"""The kinds of node that may relay a key between two others."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One way to make key between the first and the last of `nodes`; `width_bps` is what is not yet promised, at least 0."""

    kind: Literal["relay", "entanglement"]
    nodes: tuple[str, ...]
    links: tuple[str, ...]
    width_bps: float
    risks: frozenset[str]
    """Links, glass and shared-risk groups it depends on."""
    explanation: tuple[str, ...]

    def reversed(self) -> Segment:
        return Segment(self.kind, self.nodes[::-1], self.links[::-1], self.width_bps, self.risks, self.explanation)


def key_segments(
    topology: Topology,
    *,
    reserved: Mapping[str, float],
    avoid: Collection[str] = (),
    taken: Collection[tuple[str, str]] = (),
    alternatives: int = 1,
) -> list[Segment]:
    """Every usable segment between key-holding nodes, without the nodes and links in `avoid`.

    For each pair of nodes there are up to `alternatives` entangled segments that share no repeater and no link: the best, then the best of
    what is left. A figure that nobody knows makes no segment.
    """
    plant: Plant | None = None
    found = []
    for link in topology.links("qkd"):
        if not topology.usable(link) or _barred(topology, link, avoid):
            continue
        if link.switched and plant is None:
            plant = build(topology, avoid)
        segment = _switched(topology, link, reserved, taken, plant) if link.switched and plant else _fixed(topology, link, reserved)
        if segment is not None:
            found.append(segment)
    return found + _entangled(topology, reserved, frozenset(avoid), alternatives)


def _barred(topology: Topology, link: Link, avoid: Collection[str]) -> bool:
    on_the_way = {link.id, *link.nodes, *link.fibres}.union(*(topology.link(fibre_id).nodes for fibre_id in link.fibres))
    if link.via is not None:
        on_the_way.add(link.via)
    return any(name in avoid for name in on_the_way) or (link.via is not None and topology.node(link.via).admin != "enabled")


def _fixed(topology: Topology, link: Link, reserved: Mapping[str, float]) -> Segment | None:
    rate = topology.figure(link, "rate_bps")
    return _relay(topology, link, rate, reserved, topology.shared_risk(link), ()) if rate is not None else None


def _switched(
    topology: Topology, link: Link, reserved: Mapping[str, float], taken: Collection[tuple[str, str]], plant: Plant
) -> Segment | None:
    """A switched link over the lightpath of least loss: its rate as measured or given, else computed from that loss."""
    try:
        route = light(topology, *link.ends, taken=taken, plant=plant)
    except NoRoute:
        return None
    rate = topology.figure(link, "rate_bps") or qkd_figure(link, Figure(route.loss_db, "computed", "lightpath"), "rate_bps")
    if rate is None:
        return None
    glass = [topology.link(fibre_id) for fibre_id in route.links]
    risks = topology.shared_risk(link).union(route.links, *(topology.shared_risk(fibre) for fibre in glass))
    ways = ", ".join(route.ports)
    return _relay(topology, link, rate, reserved, risks, (f"{link.id} needs a lightpath of {route.loss_db:.6g} dB: {ways}",))


def _relay(
    topology: Topology, link: Link, rate: Figure, reserved: Mapping[str, float], risks: frozenset[str], more: tuple[str, ...]
) -> Segment:
    promised = reserved.get(link.id, 0.0)
    less = f", less {promised:.6g} bit/s promised" if promised else ""
    line = f"{link.nodes[0]} -- {link.nodes[1]}: {told(rate, 'bit/s')}{less}, over {link.id}"
    return Segment("relay", link.nodes, (link.id,), max(0.0, rate.value - promised), risks | {link.id}, (line, *more))


def _entangled(topology: Topology, reserved: Mapping[str, float], avoid: frozenset[str], alternatives: int) -> list[Segment]:
    ends = sorted({name for link in topology.links("entanglement") for name in link.nodes if topology.node(name).holds_keys} - avoid)
    found = []
    for position, src in enumerate(ends):
        best: dict[str, Chain] = {}
        for chain in front(topology, src, None, avoid=avoid):
            dst = chain.nodes[-1]
            if dst in ends[position + 1 :] and (dst not in best or _key_bps(chain) > _key_bps(best[dst])):
                best[dst] = chain
        for dst, chain in sorted(best.items()):
            used = avoid
            left: Chain | None = chain
            for _ in range(alternatives):
                if left is None or _key_bps(left) <= 0:
                    break
                found.append(_virtual(topology, left, reserved))
                used = used.union(left.links, left.nodes[1:-1])
                left = max(front(topology, src, dst, avoid=used), key=_key_bps, default=None) if alternatives > 1 else None
    return found


def _key_bps(chain: Chain) -> float:
    """Secret key of a chain's pairs: BBM92, sifted, of the Werner state."""
    return chain.rate_hz * SIFTED * bbm92_key_fraction(werner(chain.fidelity))


def _virtual(topology: Topology, chain: Chain, reserved: Mapping[str, float]) -> Segment:
    promised = max(reserved.get(link_id, 0.0) for link_id in chain.links)
    rate_bps = _key_bps(chain)
    less = f", less {promised:.6g} bit/s promised" if promised else ""
    line = (
        f"{chain.nodes[0]} -- {chain.nodes[-1]}: {rate_bps:.6g} bit/s (computed, BBM92: {chain.rate_hz:.6g} pairs per second of fidelity "
        f"{chain.fidelity:.6g}, half of them sifted){less}, entangled over {', '.join(chain.nodes[1:-1]) or 'one link'}"
    )
    risks = frozenset(chain.links).union(*(topology.shared_risk(topology.link(link_id)) for link_id in chain.links))
    return Segment("entanglement", chain.nodes, chain.links, max(0.0, rate_bps - promised), risks, (line, *explain(topology, chain)))
