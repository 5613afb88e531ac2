"""Key segments: what makes key between two nodes that hold keys, as candidates for relay paths.

A relay segment is one QKD link, fixed or switched. An entangled segment is a chain over repeaters whose pairs are measured (BBM92): a
virtual key link without trusted nodes inside. A pool is key that two nodes have in store: it outlasts the links that made it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from controller.network.model import Link
from controller.network.topology import Figure, Topology, qkd_figure
from controller.physics.bell_diagonal import bbm92_key_fraction, werner
from controller.physics.domain import within
from controller.routing.compiled import Bools, Compiled, Edges, Floats, Ints, Kept, adjacency, compiled
from controller.routing.entanglement import Chain, explain, front
from controller.routing.keys.promised import Promised
from controller.routing.light.plant import build
from controller.routing.lightpath import LightRoute, light
from controller.routing.refusal import NoRoute, told

SIFTED = 0.5
"""Share of pairs that both ends measure in the same basis, chosen at random."""

RELAYS = frozenset({"trusted-node", "satellite", "ground-station"})
"""The kinds of node that may relay a key between two others."""

SegmentKind = Literal["relay", "entanglement", "pool"]


class Segment(NamedTuple):
    """One way to make key between the first and the last of `nodes`; `width_bps` is what is not yet promised, at least 0."""

    kind: SegmentKind
    nodes: tuple[str, ...]
    links: tuple[str, ...]
    width_bps: float
    way: LightRoute | Chain | None = None
    """What a switched link or an entangled segment runs over."""
    pool_bps: float = 0.0
    """What of the width comes out of the pool of its two nodes."""

    def reversed(self) -> Segment:
        return self._replace(nodes=self.nodes[::-1], links=self.links[::-1])


class Segments:
    """Every usable segment between key-holding nodes, as edges (m): the QKD links in their order, then the entangled segments, then pools.

    `a`, `b` node numbers of the ends; `width` bit/s not yet promised; `there` whether there is such a segment at all, with key or without;
    `links` how many links it has, a pool as many as one; `indptr`, `indices`, `edge` the adjacency; `relays` per node; `operators` the
    relays of each; `node_rank`, `edge_rank` the places of nodes and QKD links in the order of their names (all others come after); `told`
    the rates of QKD links in words, by id; `stored` what pools give, by edge. `kept` is what was computed from these.
    """

    def __init__(self, topology: Topology, arrays: Compiled, edges: Edges, there: Bools, width: Floats) -> None:
        self.topology, self.names, self.number = topology, arrays.names, arrays.number
        self.ids: Sequence[str] = edges.ids
        self.a, self.b, self.indptr, self.indices, self.edge = edges.a, edges.b, edges.indptr, edges.indices, edges.edge
        self.there, self.width = there, width
        self.links: Ints = np.ones(len(edges.ids), dtype=np.int32)
        kept = arrays.by_structure
        self.relays: Bools = kept.of("relays", lambda: np.array([node.kind in RELAYS for _, node in topology.nodes()], dtype=np.bool_))
        self.operators: list[Ints] = kept.of("operators", lambda: _operators(topology, self.relays))
        self.node_rank: Ints = kept.of("node rank", lambda: _rank(arrays.names))
        self.edge_rank: Ints = edges.by_structure.of("edge rank", lambda: _rank(edges.ids))
        self.lit: dict[int, LightRoute] = {}
        self.chains: Sequence[Chain] = ()
        self.told: dict[str, str] = {}
        self.stored: Mapping[int, float] = {}
        self.kept = Kept()

    @property
    def qkd(self) -> int:
        """How many of them are QKD links."""
        return len(self.ids)

    def join(self, chains: Sequence[Chain]) -> None:
        """Take in entangled segments."""
        self.chains = chains
        widths = np.maximum([_key_bps(chain) for chain in chains], 0.0)
        self._extend([(chain.nodes[0], chain.nodes[-1]) for chain in chains], widths, [len(chain.links) for chain in chains])

    def _extend(self, pairs: Sequence[tuple[str, str]], widths: Floats | Sequence[float], links: Sequence[int]) -> None:
        ends = np.array([(self.number[one], self.number[other]) for one, other in pairs], dtype=np.int32)
        self.a, self.b = np.concatenate((self.a, ends[:, 0])), np.concatenate((self.b, ends[:, 1]))
        self.indptr, self.indices, self.edge = adjacency(len(self.names), self.a, self.b)
        self.width = np.concatenate((self.width, widths))
        self.there = np.concatenate((self.there, np.ones(len(pairs), dtype=np.bool_)))
        self.links = np.concatenate((self.links, np.array(links, dtype=np.int32)))
        self.edge_rank = np.concatenate((self.edge_rank, np.arange(len(self.edge_rank), len(self.there), dtype=np.int32)))

    def less(self, of_links: Floats, reserved: Mapping[str, float]) -> Segments:
        """These segments less what is promised: of the QKD links in their order, and of the links of entangled segments by id; in bit/s."""
        of_chains = [max(reserved.get(link_id, 0.0) for link_id in chain.links) for chain in self.chains]
        other = copy.copy(self)
        other.width = np.maximum(self.width - (np.concatenate((of_links, of_chains)) if of_chains else of_links), 0.0)
        other.kept = Kept()
        return other

    def plus(self, stored: Mapping[tuple[str, str], float], *, alone: bool) -> Segments:
        """These segments and what the pools of pairs of nodes give, in bit/s.

        A pool is its pair's: it counts with the widest of their QKD links, and where none of these is usable, if `alone`, by itself.
        """
        other = copy.copy(self)
        other.width, other.kept = self.width.copy(), Kept()
        of_links: dict[int, float] = {}
        lone: dict[tuple[str, str], float] = {}
        for (one, far), width in stored.items():
            node = self.number[one]
            span = slice(self.indptr[node], self.indptr[node + 1])
            between = self.edge[span][self.indices[span] == self.number[far]]
            between = between[(between < self.qkd) & self.there[between]]
            if between.size:
                widest = int(between[np.argmax(self.width[between])])
                other.width[widest] += width
                of_links[widest] = width
            elif alone:
                lone[one, far] = width
        if lone:
            other._extend(list(lone), list(lone.values()), [1] * len(lone))
        other.stored = {**of_links, **dict(enumerate(lone.values(), start=len(self.there)))}
        return other

    def segment(self, edge: int, tail: int | None = None) -> Segment:
        """The segment of that number, away from the node `tail`."""
        width, stored = float(self.width[edge]), self.stored.get(edge, 0.0)
        if self.qkd <= edge < self.qkd + len(self.chains):
            chain = self.chains[edge - self.qkd]
            segment = Segment("entanglement", chain.nodes, chain.links, width, chain)
            return segment if tail is None or self.a[edge] == tail else segment.reversed()
        near, far = self.names[self.a[edge]], self.names[self.b[edge]]
        nodes = (near, far) if tail is None or self.a[edge] == tail else (far, near)
        if edge >= self.qkd:
            return Segment("pool", nodes, (), width, None, stored)
        return Segment("relay", nodes, (self.ids[edge],), width, self.lit.get(edge), stored)

    def relayed(self, edges: Ints, tail: int) -> tuple[Segment, ...]:
        """The edges of these numbers as a path away from the node `tail`, none of them a chain: those without pools all looked up at once, as
        long paths are planned by the thousand."""
        path, names = [], self.names
        if self.stored:
            for edge in edges.tolist():
                path.append(self.segment(edge, tail))
                tail = self.number[path[-1].nodes[-1]]
            return tuple(path)
        ends = self.a[edges].tolist(), self.b[edges].tolist()
        for edge, a, b, width in zip(edges.tolist(), *ends, self.width[edges].tolist(), strict=True):
            near, tail = (a, b) if a == tail else (b, a)
            path.append(Segment("relay", (names[near], names[tail]), (self.ids[edge],), width, self.lit.get(edge)))
        return tuple(path)

    def risks(self, segment: Segment) -> frozenset[str]:
        """Links, glass, shared-risk groups, and sources or Bell stations in the middle that a segment depends on."""
        over = segment.way.links if isinstance(segment.way, LightRoute) else ()
        links = [self.topology.link(link_id) for link_id in (*segment.links, *over)]
        ways = {link.id for link in links} | {link.via for link in links if link.via is not None}
        return frozenset(ways).union(*(self.topology.shared_risk(link) for link in links))


def _rank(names: Sequence[str]) -> Ints:
    """The place of each in the order of all."""
    rank = np.empty(len(names), dtype=np.int32)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return rank


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
    """The segments of these kinds (pools: see `Segments.plus`) without the nodes and links in `avoid`.

    For each pair of nodes there are up to `alternatives` entangled segments that share no repeater and no link: the best, then the best of
    what is left; and as many that share no source or station in the middle either. A figure that nobody knows makes no segment. Without
    `avoid` they are kept for the next request; with `reserved`, if that is a `Promised` of which nothing changed.
    """
    arrays = compiled(topology)
    edges = arrays.edges(topology, "qkd")
    pairs = "entanglement" in kinds and bool(arrays.edges(topology, "entanglement").ids)
    ways: _Ways = edges.by_structure.of("ways", lambda: _Ways.of(topology, edges))
    # links that need nothing but themselves change only with themselves
    kept = edges.by_figures if not (pairs or ways.via or ways.switched) else arrays.by_revision
    asked = (frozenset(taken), alternatives if pairs else 0, frozenset(kinds))
    last: tuple[object, Segments] | None = None if avoid else kept.get("segments")
    if last is None or last[0] != asked:
        last = asked, _all(topology, arrays, edges, ways, frozenset(avoid), taken, alternatives if pairs else 0, kinds)
        if not avoid:
            kept["segments"] = last
    every = last[1]
    if not reserved:
        return every
    follower: _Follower = edges.by_structure.of("promised", lambda: _Follower(edges))
    mark, promised = follower.follow(reserved)
    reduced: tuple[object, Segments] | None = every.kept.get("less")
    if reduced is None or reduced[0] is not mark:
        reduced = every.kept["less"] = mark, every.less(promised, reserved)
    return reduced[1]


def _all(
    topology: Topology,
    arrays: Compiled,
    edges: Edges,
    ways: _Ways,
    avoid: frozenset[str],
    taken: Collection[tuple[str, str]],
    alternatives: int,
    kinds: Collection[SegmentKind],
) -> Segments:
    """The segments as if nothing were promised; entangled ones if there may be `alternatives`."""
    there, rates = _fixed(topology, arrays, edges, ways, avoid, kinds)
    lit: dict[int, LightRoute] = {}
    if ways.switched and "relay" in kinds:
        lit = _lit(topology, arrays, edges, ways, avoid, taken)
        for number, route in lit.items():
            rate = switched_rate(topology, topology.link(edges.ids[number]), route)
            if rate is not None:
                there[number], rates[number] = True, rate.value
    found = Segments(topology, arrays, edges, there, np.maximum(np.where(there, rates, 0.0), 0.0))
    found.lit = lit
    if alternatives:
        chains = (
            _entangled(topology, avoid, alternatives)
            if avoid
            else arrays.by_revision.of(("entangled", alternatives), lambda: _entangled(topology, avoid, alternatives))
        )
        if chains:
            found.join(chains)
    return found


@dataclass(slots=True)
class _Follower:
    """What is promised of each QKD link, in their order, kept as the last `Promised` it was asked for goes on."""

    edges: Edges
    of: Promised = field(default_factory=Promised)
    changes: list[str] = field(default_factory=list)
    taken: int = 0
    mark: object = None
    """Another object whenever an amount is another."""
    bps: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.bps = np.zeros(len(self.edges.ids))

    def follow(self, reserved: Mapping[str, float]) -> tuple[object, Floats]:
        """A mark of the amounts, and these in bit/s. Anything but the `Promised` followed is read whole."""
        if reserved is not self.of or self.of.changes is not self.changes:
            self.of = reserved if isinstance(reserved, Promised) else Promised()
            self.changes, self.taken, self.mark = self.of.changes, len(self.of.changes), object()
            self.bps = np.zeros(len(self.edges.ids))
            for link_id, promised in reserved.items():
                if reserved is not self.of:
                    within(f"reserved of {link_id}", promised, 0)
                if link_id in self.edges.number:
                    self.bps[self.edges.number[link_id]] = promised
        if changed := self.changes[self.taken :]:
            self.taken = len(self.changes)
            known = [number for link_id in changed if (number := self.edges.number.get(link_id)) is not None]
            bps = [reserved.get(link_id, 0.0) for link_id in changed if link_id in self.edges.number]
            if len(known) < len(changed) or (self.bps[known] != bps).any():
                self.mark = object()
            self.bps[known] = bps
        return self.mark, self.bps


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


def told_segment(every: Segments, segment: Segment, reserved: Mapping[str, float]) -> list[str]:
    """The figures of one of the segments, with where they come from."""
    if segment.kind == "pool":
        return [
            f"{segment.nodes[0]} -- {segment.nodes[-1]}: {segment.width_bps:.6g} bit/s of their pool, as no QKD link between them is usable"
        ]
    promised = max([reserved.get(link_id, 0.0) for link_id in segment.links]) if reserved else 0.0
    less = f", less {promised:.6g} bit/s promised" if promised else ""
    if isinstance(segment.way, Chain):
        chain = segment.way
        made = (
            f"{_key_bps(chain):.6g} bit/s (computed, BBM92: {chain.rate_hz:.6g} pairs per second of fidelity {chain.fidelity:.6g}, "
            f"half of them sifted){less}, entangled over {', '.join(chain.nodes[1:-1]) or 'one link'}"
        )
        return [f"{chain.nodes[0]} -- {chain.nodes[-1]}: {made}", *explain(every.topology, chain)]
    link_id = segment.links[0]
    rate = every.told.get(link_id)
    if rate is None:
        link = every.topology.link(link_id)
        figure = every.topology.figure(link, "rate_bps") if segment.way is None else switched_rate(every.topology, link, segment.way)
        assert figure is not None
        rate = every.told[link_id] = told(figure, "bit/s")
    more = f", plus {segment.pool_bps:.6g} bit/s of its pool" if segment.pool_bps else ""
    lines = [f"{segment.nodes[0]} -- {segment.nodes[-1]}: {rate}{less}{more}, over {link_id}"]
    if segment.way is not None:
        lines.append(f"{link_id} needs a lightpath of {segment.way.loss_db:.6g} dB: {', '.join(segment.way.ports)}")
    return lines


def _entangled(topology: Topology, avoid: frozenset[str], alternatives: int) -> list[Chain]:
    ends = sorted({name for link in topology.links("entanglement") for name in link.nodes if topology.node(name).holds_keys} - avoid)
    via = alternatives > 1 and any(link.via is not None for link in topology.links("entanglement"))
    found: list[Chain] = []
    for position, src in enumerate(ends):
        best: dict[str, Chain] = {}
        for chain in front(topology, src, None, avoid=avoid):
            dst = chain.nodes[-1]
            if dst in ends[position + 1 :] and (dst not in best or _key_bps(chain) > _key_bps(best[dst])):
                best[dst] = chain
        for _, chain in sorted(best.items()):
            apart = _apart(topology, chain, avoid, alternatives, via=False)
            found += dict.fromkeys([*apart, *(_apart(topology, chain, avoid, alternatives, via=True) if via else ())])
    return found


def _apart(topology: Topology, best: Chain, avoid: frozenset[str], most: int, *, via: bool) -> list[Chain]:
    """The best chain and others between its ends, up to `most`, that share no repeater and no link; with `via` no node in the middle either."""
    found: list[Chain] = []
    left: Chain | None = best
    while left is not None and len(found) < most and _key_bps(left) > 0:
        found.append(left)
        middles = [middle for link_id in left.links if via and (middle := topology.link(link_id).via) is not None]
        avoid = avoid.union(left.links, left.nodes[1:-1], middles)
        ends = left.nodes[0], left.nodes[-1]
        left = max(front(topology, *ends, avoid=avoid), key=_key_bps, default=None) if len(found) < most else None
    return found


def _key_bps(chain: Chain) -> float:
    """Secret key of a chain's pairs: BBM92, sifted, of the Werner state."""
    return chain.rate_hz * SIFTED * bbm92_key_fraction(werner(chain.fidelity))
