"""The key that a network can give, as the arrays that a programme over paths works on: segments, what they draw on, who may use which."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array

from controller.network.topology import Topology
from controller.physics.domain import within
from controller.routing.keys.path_programme import Commodity, Floats, Goal, Ints, PathProgramme, SegmentGraph
from controller.routing.keys.pools import width_bps
from controller.routing.keys.segments import RELAYS, SegmentKind, Segments
from controller.routing.refusal import NoRoute

LEAST_BPS = 1e-12
"""Less than this, a bit in 30,000 years, counts as none."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A way to have key between the first and the last of `nodes`: `width_bps` when it has its `resources` for itself."""

    kind: SegmentKind
    nodes: tuple[str, ...]
    links: tuple[str, ...]
    width_bps: float
    resources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """Who wants key of whom, and what its paths may be made of."""

    src: str
    dst: str
    max_trusted_nodes: int | None
    avoid: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Ways:
    """What one set of things to avoid leaves: over every segment, and over those that have key to give."""

    every: SegmentGraph
    usable: SegmentGraph
    usable_offers: Ints
    widths: Floats
    """Per node, the widths of its usable segments added up."""


class KeySupply:
    """The segments of a topology for some wishes.

    Offers on one resource share it in time: their rates over their widths add up to at most 1. For a fixed link that is its rate.
    `offered` gives the segments that are left without the nodes and links of a set; `stored` are further offers (pools); `cost_factor` is
    the key spent per bit delivered. Raises UnknownName.
    """

    def __init__(
        self,
        topology: Topology,
        wishes: Sequence[Wish],
        offered: Callable[[frozenset[str]], Segments],
        *,
        stored: Sequence[Offer] = (),
        cost_factor: float = 1.0,
    ) -> None:
        self._topology, self._segments, self._stored = topology, offered, stored
        for wish in wishes:
            topology.node(wish.src), topology.node(wish.dst)
            for name in sorted(wish.avoid):
                topology.must_know(name)
        self._node = {name: index for index, (name, node) in enumerate(topology.nodes()) if node.holds_keys}
        self._nodes = len(topology.graph)
        self._relays = np.array([node.kind in RELAYS for _, node in topology.nodes()])
        self.offers: list[Offer] = []
        self._offer: dict[Offer, int] = {}
        chosen = {avoid: self._offered(avoid) for avoid in {frozenset[str]()} | {wish.avoid for wish in wishes}}
        self._widths = np.array([offer.width_bps for offer in self.offers])
        self._ways = {avoid: self._graphs(indices) for avoid, indices in chosen.items()}
        self.resources = sorted({name for offer in self.offers if offer.width_bps > 0 for name in offer.resources})
        number = {name: index for index, name in enumerate(self.resources)}
        self.capacity = np.zeros(len(self.resources))
        for offer in self.offers:
            for name in offer.resources if offer.width_bps > 0 else ():
                self.capacity[number[name]] = max(self.capacity[number[name]], offer.width_bps)
        draws = [
            (index, number[name], cost_factor * self.capacity[number[name]] / offer.width_bps)
            for index, offer in enumerate(self.offers)
            for name in offer.resources
            if offer.width_bps > 0
        ]
        rows, columns, units = zip(*draws, strict=True) if draws else ((), (), ())
        self.uses: csr_array = coo_array((units, (rows, columns)), shape=(len(self.offers), len(self.resources)), dtype=float).tocsr()
        self.cost_factor = cost_factor
        drawn = np.diff(self.uses.tocsc().indptr)
        self._shared = bool(np.any(drawn > 1) or np.any(np.diff(self.uses.indptr) > 1))

    def _offered(self, avoid: frozenset[str]) -> Ints:
        found = [offer for offer in self._stored if avoid.isdisjoint(offer.nodes)]
        segments = self._segments(avoid)
        for segment in map(segments.segment, np.flatnonzero(segments.there).tolist()):
            modules: tuple[str, ...] = ()
            if segment.kind == "relay" and (link := self._topology.link(segment.links[0])).switched:
                modules = tuple(str(end) for end in (link.a, link.b) if end.module is not None)
            width = segment.width_bps if segment.width_bps >= LEAST_BPS else 0.0
            resources = (*segment.links, *modules) or (_pool_of(segment.nodes),)
            found.append(Offer(segment.kind, segment.nodes, segment.links, width, resources))
        for offer in found:
            if offer not in self._offer:
                self._offer[offer] = len(self.offers)
                self.offers.append(offer)
        return np.array([self._offer[offer] for offer in found], dtype=np.int64)

    def _graphs(self, indices: Ints) -> _Ways:
        usable = indices[self._widths[indices] > 0]
        ends = self._ends(usable)
        widths = np.bincount(ends.ravel(), weights=np.repeat(self._widths[usable], 2), minlength=self._nodes).astype(float)
        return _Ways(self._graph(indices), self._graph(usable), usable, widths)

    def _ends(self, indices: Ints) -> Ints:
        offers = [self.offers[index] for index in indices.tolist()]
        return np.array([(self._node[each.nodes[0]], self._node[each.nodes[-1]]) for each in offers], dtype=np.int64).reshape(-1, 2)

    def _graph(self, indices: Ints) -> SegmentGraph:
        return SegmentGraph(self._ends(np.arange(len(self.offers))), indices, self._relays)

    def widest(self, wish: Wish, left: Floats) -> tuple[tuple[int, ...], float] | None:
        """The widest path when the resources have so much left, with the fewest segments, and its width; None when there is none."""
        usable, commodity = self._ways[wish.avoid].usable_offers, self.commodity(wish, math.inf)
        drawn = self.uses[usable].tocoo()
        widths = np.full(len(usable), np.inf)
        np.minimum.at(widths, drawn.row, left[drawn.col] / drawn.data)
        best, levels = None, np.unique(widths[widths > 0])
        low, high = 0, len(levels)
        while low < high:
            middle = (low + high) // 2
            graph = self._graph(usable[widths >= levels[middle]])
            path = graph.shortest(np.ones(len(self.offers)), [(commodity.source, commodity.target, commodity.most_segments)])[0]
            if path is None:
                high = middle
            else:
                best, low = path, middle + 1
        return None if best is None else (best, self.width(best, left))

    def width(self, path: Sequence[int], left: Floats) -> float:
        """The rate that a path alone can have when the resources have so much left, in bit/s."""
        drawn = self.uses[list(path)].sum(axis=0)
        return float(np.min(left[drawn > 0] / drawn[drawn > 0]))

    def simple_paths(self, wish: Wish, limit: int) -> list[tuple[int, ...]] | None:
        """Every path without a loop that the wish allows; None when looking for them takes more than `limit` steps."""
        leaving: dict[str, list[tuple[int, str]]] = {}
        for index in self._ways[wish.avoid].usable_offers.tolist():
            ends = self.offers[index].nodes[0], self.offers[index].nodes[-1]
            for here, there in (ends, ends[::-1]):
                leaving.setdefault(here, []).append((index, there))
        most = self._nodes if wish.max_trusted_nodes is None else wish.max_trusted_nodes + 1
        found: list[tuple[int, ...]] = []
        open_paths: list[tuple[tuple[int, ...], tuple[str, ...]]] = [((), (wish.src,))]
        for _ in range(limit):
            if not open_paths:
                return found
            path, nodes = open_paths.pop()
            if nodes[-1] == wish.dst:
                found.append(path)
            elif len(path) < most and (not path or self._relays[self._node[nodes[-1]]]):
                open_paths += [((*path, index), (*nodes, there)) for index, there in leaving.get(nodes[-1], ()) if there not in nodes]
        return None

    def commodity(self, wish: Wish, rate_bps: float) -> Commodity:
        """The wish for the programme: at most `rate_bps`, which may be infinite, and then twice what can leave one end or enter the other.

        Twice, so that a demand that cannot be met is held by resources, which have prices and names, and not by this stand-in.
        """
        ways, source, target = self._ways[wish.avoid], self._node[wish.src], self._node[wish.dst]
        rate = min(rate_bps, 2 * float(min(ways.widths[source], ways.widths[target])) / self.cost_factor)
        return Commodity(source, target, rate, ways.usable, None if wish.max_trusted_nodes is None else wish.max_trusted_nodes + 1)

    def alone(self, commodity: Commodity) -> float:
        """The rate that a commodity could have were it the only one, in bit/s."""
        if commodity.most_segments is None and not self._shared:
            widths = self._widths / self.cost_factor
            return commodity.graph.most(widths, commodity.source, commodity.target, commodity.rate)
        return PathProgramme(self.uses, self.capacity, [commodity]).highest([Goal(((0, 1.0),), 1.0)]).value

    def refusal(self, wish: Wish) -> NoRoute | None:
        """Why no path at all can serve the wish; None when one can."""
        for name in (wish.src, wish.dst):
            if name not in self._node:
                return NoRoute(f"{name} is of kind {self._topology.node(name).kind} and holds no keys", "reachability")
            if name in wish.avoid:
                return NoRoute(f"{name} is an end of the demand and cannot be avoided", "avoid")
        if wish.src == wish.dst:
            return NoRoute(f"{wish.src} is both ends of the demand", "reachability")
        ways, between = self._ways[wish.avoid], f"from {wish.src} to {wish.dst}"
        fewest = self._fewest(ways.usable, wish)
        if fewest is not None and (wish.max_trusted_nodes is None or fewest <= wish.max_trusted_nodes):
            return None
        if fewest is not None:
            asked = f"{wish.max_trusted_nodes} are allowed"
            return NoRoute(f"{between} takes at least {fewest} trusted nodes, {asked}", "max_trusted_nodes", float(fewest))
        if self._fewest(ways.every, wish) is not None:
            return NoRoute(f"every path {between} has a link without any key to give", "rate_bps", 0.0)
        if self._fewest(self._ways[frozenset()].every, wish) is not None:
            return NoRoute(f"every path {between} leads over what is to be avoided", "avoid")
        return NoRoute(f"no usable key links join {wish.src} and {wish.dst} over trusted nodes", "reachability")

    def _fewest(self, graph: SegmentGraph, wish: Wish) -> int | None:
        """The least number of trusted nodes between the ends."""
        path = graph.shortest(np.ones(len(self.offers)), [(self._node[wish.src], self._node[wish.dst], None)])[0]
        return None if path is None else len(path) - 1

    def along(self, src: str, path: Sequence[int]) -> tuple[Offer, ...]:
        """The offers of a path, each turned the way it is gone."""
        here, found = src, []
        for index in path:
            offer = self.offers[index]
            if offer.nodes[0] != here:
                offer = Offer(offer.kind, offer.nodes[::-1], offer.links[::-1], offer.width_bps, offer.resources)
            found.append(offer)
            here = offer.nodes[-1]
        return tuple(found)


def stored_key(
    topology: Topology,
    pool_bytes: Mapping[tuple[str, str], float],
    *,
    minimum_bytes: float = 0.0,
    horizon_s: float = math.inf,
    reserved: Mapping[str, float] | None = None,
) -> list[Offer]:
    """What the key pools of pairs of nodes can give for `horizon_s`, as offers beside the links; nothing over an infinite horizon.

    A pool belongs to its pair of KMEs, so it counts once however many links refill it. Promises beyond what the pair's links give now
    come out of it first. A pool below `minimum_bytes` gives nothing. Raises UnknownName, and ValueError by name.
    """
    within("minimum_bytes", minimum_bytes, 0)
    width_bps(0.0, horizon_s=horizon_s)  # for its domain
    if not pool_bytes:
        return []
    short = overdrawn(topology, reserved or {})
    found: list[Offer] = []
    seen: set[frozenset[str]] = set()
    for (one, other), held in pool_bytes.items():
        nodes, pair = [topology.node(name) for name in (one, other)], frozenset((one, other))
        within(f"pool_bytes of {one}, {other}", held, 0)
        if len(pair) < 2 or pair in seen:
            raise ValueError(f"pool_bytes names {one}, {other} {'twice' if pair in seen else 'as a pair'}; a pool belongs to two nodes")
        seen.add(pair)
        width = width_bps(0.0, reserved_bps=short.get(pair, 0.0), pool_bits=8 * held, minimum_bits=8 * minimum_bytes, horizon_s=horizon_s)
        if width >= LEAST_BPS and all(node.holds_keys and node.admin == "enabled" for node in nodes):
            found.append(Offer("pool", (one, other), (), width, (_pool_of(pair),)))
    return found


def _pool_of(pair: Iterable[str]) -> str:
    return f"pool {' -- '.join(sorted(pair))}"


def overdrawn(topology: Topology, reserved: Mapping[str, float]) -> dict[frozenset[str], float]:
    """What is promised of the links of a pair of nodes beyond what they give now, in bit/s: it comes out of their pool. By pair."""
    short: dict[frozenset[str], float] = {}
    for link in topology.links("qkd"):
        promised = reserved.get(link.id, 0.0)
        rate = topology.figure(link, "rate_bps") if promised else None
        if promised and (rate is not None or not topology.usable(link)):
            gives = rate.value if rate is not None and topology.usable(link) else 0.0
            pair = frozenset(link.nodes)
            short[pair] = short.get(pair, 0.0) + max(0.0, promised - gives)
    return short
