"""Key segments: what makes key between two nodes that hold keys, as candidates for relay paths.

A relay segment is one QKD link, fixed or switched. An entangled segment is a chain over repeaters whose pairs are measured (BBM92): a
virtual key link without trusted nodes inside.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from controller.network.model import Link
from controller.network.topology import Figure, Topology, qkd_figure
from controller.physics.bell_diagonal import bbm92_key_fraction, werner
from controller.routing.compiled import Bools, Compiled, Edges, Floats, Ints, Kept, adjacency, compiled
from controller.routing.entanglement import Chain, explain, front
from controller.routing.light.plant import build
from controller.routing.lightpath import LightRoute, light
from controller.routing.refusal import NoRoute, told

SIFTED = 0.5
"""Share of pairs that both ends measure in the same basis, chosen at random."""

RELAYS = frozenset({"trusted-node", "satellite", "ground-station"})
"""The kinds of node that may relay a key between two others."""

SegmentKind = Literal["relay", "entanglement"]


@dataclass(frozen=True, slots=True)
class Segment:
    """One way to make key between the first and the last of `nodes`; `width_bps` is what is not yet promised, at least 0."""

    kind: SegmentKind
    nodes: tuple[str, ...]
    links: tuple[str, ...]
    width_bps: float
    way: LightRoute | Chain | None = None
    """What a switched link or an entangled segment runs over."""

    def reversed(self) -> Segment:
        return Segment(self.kind, self.nodes[::-1], self.links[::-1], self.width_bps, self.way)


class Segments:
    """Every usable segment between key-holding nodes, as edges (m): the QKD links in their order, then the entangled segments.

    `a`, `b` node numbers of the ends; `width` bit/s not yet promised; `there` whether there is such a segment at all, with key or without;
    `links` how many links it has; `indptr`, `indices`, `edge` the adjacency; `relays` per node; `operators` the relays of each. `kept` is what was computed from these.
    """

    def __init__(self, topology: Topology, arrays: Compiled, edges: Edges, there: Bools, width: Floats) -> None:
        self.topology, self.names, self.number = topology, arrays.names, arrays.number
        self.ids: Sequence[str] = edges.ids
        self.a, self.b, self.indptr, self.indices, self.edge = edges.a, edges.b, edges.indptr, edges.indices, edges.edge
        self.there, self.width = there, width
        self.links: Ints = np.ones(len(edges.ids), dtype=np.int32)
        self.relays: Bools = arrays.by_structure.of(
            "relays", lambda: np.array([node.kind in RELAYS for _, node in topology.nodes()], dtype=np.bool_)
        )
        self.operators: list[Ints] = arrays.by_structure.of("operators", lambda: _operators(topology, self.relays))
        self.lit: dict[int, LightRoute] = {}
        self.chains: Sequence[Chain] = ()
        self.kept = Kept()

    def join(self, chains: Sequence[Chain], reserved: Mapping[str, float]) -> None:
        """Take in entangled segments."""
        ends = np.array([(self.number[chain.nodes[0]], self.number[chain.nodes[-1]]) for chain in chains], dtype=np.int32)
        promised = [max(reserved.get(link_id, 0.0) for link_id in chain.links) for chain in chains]
        widths = [max(0.0, _key_bps(chain) - less) for chain, less in zip(chains, promised, strict=True)]
        self.a, self.b = np.concatenate((self.a, ends[:, 0])), np.concatenate((self.b, ends[:, 1]))
        self.indptr, self.indices, self.edge = adjacency(len(self.names), self.a, self.b)
        self.width = np.concatenate((self.width, widths))
        self.there = np.concatenate((self.there, np.ones(len(chains), dtype=np.bool_)))
        self.links = np.concatenate((self.links, np.array([len(chain.links) for chain in chains], dtype=np.int32)))
        self.ids = [*self.ids, *(chain.links[0] for chain in chains)]
        self.chains = chains

    def segment(self, edge: int, tail: int | None = None) -> Segment:
        """The segment of that number, away from the node `tail`."""
        width, first = float(self.width[edge]), len(self.there) - len(self.chains)
        if edge >= first:
            chain = self.chains[edge - first]
            segment = Segment("entanglement", chain.nodes, chain.links, width, chain)
            return segment if tail is None or self.a[edge] == tail else segment.reversed()
        near, far = self.names[self.a[edge]], self.names[self.b[edge]]
        nodes = (near, far) if tail is None or self.a[edge] == tail else (far, near)
        return Segment("relay", nodes, (self.ids[edge],), width, self.lit.get(edge))

    def risks(self, segment: Segment) -> frozenset[str]:
        """Links, glass and shared-risk groups a segment depends on."""
        over = segment.way.links if isinstance(segment.way, LightRoute) else ()
        link_ids = (*segment.links, *over)
        return frozenset(link_ids).union(*(self.topology.shared_risk(self.topology.link(link_id)) for link_id in link_ids))


def _operators(topology: Topology, relays: Bools) -> list[Ints]:
    """The relays of each operator, by number."""
    members: dict[str, list[int]] = {}
    for number, (_, node) in enumerate(topology.nodes()):
        if relays[number] and node.operator is not None:
            members.setdefault(node.operator, []).append(number)
    return [np.array(numbers, dtype=np.int32) for numbers in members.values()]


def key_segments(
    topology: Topology,
    *,
    reserved: Mapping[str, float],
    avoid: Collection[str] = (),
    taken: Collection[tuple[str, str]] = (),
    alternatives: int = 1,
    kinds: Collection[SegmentKind] = ("relay", "entanglement"),
) -> Segments:
    """The segments of these kinds without the nodes and links in `avoid`.

    For each pair of nodes there are up to `alternatives` entangled segments that share no repeater and no link: the best, then the best of
    what is left. A figure that nobody knows makes no segment. Without `avoid` and `reserved` they are kept for the next request.
    """
    arrays = compiled(topology)
    edges = arrays.edges(topology, "qkd")
    pairs = "entanglement" in kinds and bool(arrays.edges(topology, "entanglement").ids)
    ways: _Ways = edges.by_structure.of("ways", lambda: _Ways.of(topology, edges))
    # links that need nothing but themselves change only with themselves
    kept = edges.by_figures if not (pairs or ways.via or ways.switched) else arrays.by_revision
    asked = (frozenset(taken), alternatives if pairs else 0, frozenset(kinds))
    last: tuple[object, Segments] | None = kept.get("segments")
    if not (reserved or avoid) and last is not None and last[0] == asked:
        return last[1]
    there, rates = _fixed(topology, arrays, edges, ways, avoid, kinds)
    lit: dict[int, LightRoute] = {}
    if ways.switched and "relay" in kinds:
        lit = _lit(topology, arrays, edges, ways, avoid, taken)
        for number, route in lit.items():
            rate = switched_rate(topology, topology.link(edges.ids[number]), route)
            if rate is not None:
                there[number], rates[number] = True, rate.value
    for link_id, promised in reserved.items():
        if link_id in edges.number:
            rates[edges.number[link_id]] -= promised
    found = Segments(topology, arrays, edges, there, np.maximum(np.where(there, rates, 0.0), 0.0))
    found.lit = lit
    if pairs:
        chains = (
            _entangled(topology, frozenset(avoid), alternatives)
            if avoid
            else arrays.by_revision.of(("entangled", alternatives), lambda: _entangled(topology, frozenset(), alternatives))
        )
        if chains:
            found.join(chains, reserved)
    if not (reserved or avoid):
        kept["segments"] = asked, found
    return found


@dataclass(frozen=True, slots=True)
class _Ways:
    """What QKD links depend on beside their ends: by number, those that are switched, those via a node, and those over a fibre or its ends."""

    switched: list[int]
    via: list[tuple[int, str]]
    over: dict[str, list[int]]

    @classmethod
    def of(cls, topology: Topology, edges: Edges) -> _Ways:
        switched, via, over = [], [], dict[str, list[int]]()
        for number, link_id in enumerate(edges.ids):
            link = topology.link(link_id)
            if link.switched:
                switched.append(number)
            if link.via is not None:
                via.append((number, link.via))
            for fibre_id in link.fibres:
                for name in (fibre_id, *topology.link(fibre_id).nodes):
                    over.setdefault(name, []).append(number)
        return cls(switched, via, over)


def _usable(topology: Topology, arrays: Compiled, edges: Edges, ways: _Ways, avoid: Collection[str]) -> Bools:
    usable = edges.usable.copy()
    for number, name in ways.via:
        usable[number] &= name not in avoid and topology.node(name).admin == "enabled"
    for name in avoid:
        if name in edges.number:
            usable[edges.number[name]] = False
        usable[ways.over.get(name, [])] = False
        if name in arrays.number:
            node = arrays.number[name]
            usable[edges.edge[edges.indptr[node] : edges.indptr[node + 1]]] = False
    return usable


def _fixed(
    topology: Topology, arrays: Compiled, edges: Edges, ways: _Ways, avoid: Collection[str], kinds: Collection[SegmentKind]
) -> tuple[Bools, Floats]:
    """Which links make key on glass of their own, and all known rates."""
    rates = arrays.figure(topology, "qkd", "rate_bps").copy()
    if "relay" not in kinds:
        return np.zeros(rates.size, dtype=np.bool_), rates
    there = _usable(topology, arrays, edges, ways, avoid) & ~np.isnan(rates)
    there[ways.switched] = False
    return there, rates


def _lit(
    topology: Topology, arrays: Compiled, edges: Edges, ways: _Ways, avoid: Collection[str], taken: Collection[tuple[str, str]]
) -> dict[int, LightRoute]:
    """The lightpath of least loss for each switched link that can have one."""
    usable = _usable(topology, arrays, edges, ways, avoid)
    plant = build(topology, avoid) if avoid else arrays.by_revision.of("plant", lambda: build(topology))
    found = {}
    for number in ways.switched:
        if usable[number]:
            try:
                found[number] = light(topology, *topology.link(edges.ids[number]).ends, taken=taken, plant=plant)
            except NoRoute:
                continue
    return found


def switched_rate(topology: Topology, link: Link, route: LightRoute) -> Figure | None:
    """The rate of a switched link as measured or given, else computed from the loss of its lightpath."""
    return topology.figure(link, "rate_bps") or qkd_figure(link, Figure(route.loss_db, "computed", "lightpath"), "rate_bps")


def told_segment(topology: Topology, segment: Segment, reserved: Mapping[str, float]) -> list[str]:
    """The figures of a segment, with where they come from."""
    promised = max(reserved.get(link_id, 0.0) for link_id in segment.links) if reserved else 0.0
    less = f", less {promised:.6g} bit/s promised" if promised else ""
    if isinstance(segment.way, Chain):
        chain = segment.way
        made = (
            f"{_key_bps(chain):.6g} bit/s (computed, BBM92: {chain.rate_hz:.6g} pairs per second of fidelity {chain.fidelity:.6g}, "
            f"half of them sifted){less}, entangled over {', '.join(chain.nodes[1:-1]) or 'one link'}"
        )
        return [f"{chain.nodes[0]} -- {chain.nodes[-1]}: {made}", *explain(topology, chain)]
    link = topology.link(segment.links[0])
    rate = topology.figure(link, "rate_bps") if segment.way is None else switched_rate(topology, link, segment.way)
    assert rate is not None
    lines = [f"{segment.nodes[0]} -- {segment.nodes[-1]}: {told(rate, 'bit/s')}{less}, over {link.id}"]
    if segment.way is not None:
        lines.append(f"{link.id} needs a lightpath of {segment.way.loss_db:.6g} dB: {', '.join(segment.way.ports)}")
    return lines


def _entangled(topology: Topology, avoid: frozenset[str], alternatives: int) -> list[Chain]:
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
                found.append(left)
                used = used.union(left.links, left.nodes[1:-1])
                left = max(front(topology, src, dst, avoid=used), key=_key_bps, default=None) if alternatives > 1 else None
    return found


def _key_bps(chain: Chain) -> float:
    """Secret key of a chain's pairs: BBM92, sifted, of the Werner state."""
    return chain.rate_hz * SIFTED * bbm92_key_fraction(werner(chain.fidelity))
