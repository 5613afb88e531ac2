"""Classical paths through OpenFlow switches: the least latency, the k least, and two that share no switch or no link."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from controller.network.topology import Topology
from controller.routing.compiled import Bools, Edges, Floats, Ints, compiled
from controller.routing.graph.deviations import Deviations
from controller.routing.graph.flow import LinkDisjoint, NodeDisjoint, cheapest
from controller.routing.graph.search import Arc, distances, first_by_name, forest, hops, kept
from controller.routing.refusal import NoRoute, told

_STEPS_PER_MS = 10**9
"""Latencies are added as whole picoseconds, so that equal paths compare equal whatever the order of their links."""
_EXACT = 2.0**53
"""Up to here floats count in whole steps."""


@dataclass(frozen=True, slots=True)
class ClassicalRoute:
    nodes: tuple[str, ...]
    links: tuple[str, ...]
    latency_ms: float
    ports: tuple[tuple[str, str], ...]
    """Per link the end it leaves by and the end it arrives at, as written in the document (`s1:11`)."""
    explanation: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "nodes": list(self.nodes),
            "links": list(self.links),
            "latency_ms": self.latency_ms,
            "ports": [list(pair) for pair in self.ports],
            "explanation": list(self.explanation),
        }


def classical(
    topology: Topology, src: str, dst: str, *, min_capacity_mbps: float | None = None, reserved: Mapping[str, float] | None = None
) -> ClassicalRoute:
    """The path of least latency over usable ethernet links; then of fewest hops; then the first by name.

    Only OpenFlow switches forward. With `min_capacity_mbps` every link has so much capacity beyond what is `reserved` (Mbit/s by link id);
    a link of unknown capacity has none to promise. Raises NoRoute (`reachability`, `min_capacity_mbps` with the best), UnknownName, and
    ValueError for a capacity below 0.
    """
    return k_shortest(topology, src, dst, 1, min_capacity_mbps=min_capacity_mbps, reserved=reserved)[0]


def k_shortest(
    topology: Topology, src: str, dst: str, k: int, *, min_capacity_mbps: float | None = None, reserved: Mapping[str, float] | None = None
) -> tuple[ClassicalRoute, ...]:
    """The `k` simple paths of least latency, fewer when there are not so many, in the order and under the conditions of `classical`.

    Paths over parallel links are different paths. Raises as `classical` does, and ValueError for k below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    network = _Network(topology, src, dst, min_capacity_mbps, reserved or {})
    latency, left = network.to_go()
    if left[network.source] < 0:
        raise network.refusal(topology)
    edges = network.edges
    if k == 1:
        links = [first_by_name(network.arcs(), latency, left, network.source, network.names, edges.ids)[1]]
    else:
        deviations = Deviations(network.arcs(), (latency.tolist(), left.tolist()), network.names, edges.ids)
        links = [list(path) for _, path in deviations.shortest(network.source, network.target, k)]
    return tuple(_route(topology, edges, src, path) for path in links)


def disjoint_pair(
    topology: Topology,
    src: str,
    dst: str,
    *,
    by: Literal["node", "link"] = "node",
    min_capacity_mbps: float | None = None,
    reserved: Mapping[str, float] | None = None,
) -> tuple[ClassicalRoute, ClassicalRoute]:
    """Two paths that share no interior node (`link`: no link) with the least latency in all, then the fewest hops; the faster one first.

    Where latencies add up to 2^53 ps times twice the number of nodes or more, hops are left out. Conditions as in `classical`. Raises
    NoRoute (`reachability`, `min_capacity_mbps`, `disjoint` when there are no two) and UnknownName.
    """
    network = _Network(topology, src, dst, min_capacity_mbps, reserved or {})
    edges, names = network.edges, network.names
    if by == "node":
        residual: NodeDisjoint | LinkDisjoint = NodeDisjoint(
            edges.indptr, edges.indices, edges.edge, network.switches, network.source, network.target
        )
    else:
        residual = LinkDisjoint(edges.indptr, edges.indices, edges.edge, network.twins(), network.source, network.target)
    usable, steps = network.forwards(), 2 * len(names)
    for scale, hop in ((steps, 1), (1, 0)):
        costs = np.where(usable, network.picoseconds * scale + hop, np.inf)
        flow = cheapest(residual, costs, 2, edges.ids.__getitem__)
        if flow is None or sum(costs[entry] for entry in flow) < _EXACT:
            break
    if flow is None:
        classical(topology, src, dst, min_capacity_mbps=min_capacity_mbps, reserved=reserved)  # refuses when there is not even one
        raise NoRoute(f"no two paths from {src} to {dst} have no {by} in common", "disjoint", 1.0)
    onward: dict[int, list[int]] = {}
    for entry in sorted(flow, key=lambda entry: (names[edges.indices[entry]], edges.ids[edges.edge[entry]])):
        onward.setdefault(int(network.tails[entry]), []).append(entry)
    routes = []
    for first in onward[network.source]:
        path = [first]
        while (here := int(edges.indices[path[-1]])) != network.target:
            path.append(onward[here].pop(0))
        routes.append(_route(topology, edges, src, [int(edges.edge[entry]) for entry in path]))
    one, other = sorted(routes, key=lambda route: (route.latency_ms, len(route.links), route.nodes, route.links))
    return one, other


class _Network:
    """The ethernet links between two nodes, as arrays."""

    def __init__(self, topology: Topology, src: str, dst: str, min_capacity_mbps: float | None, reserved: Mapping[str, float]) -> None:
        topology.node(src), topology.node(dst)
        if min_capacity_mbps is not None and not min_capacity_mbps >= 0:
            raise ValueError(f"min_capacity_mbps must be at least 0, got {min_capacity_mbps}")
        if src == dst:
            raise NoRoute(f"{src} is both ends of the request", "reachability")
        self.src, self.dst, self.wanted = src, dst, min_capacity_mbps
        arrays = compiled(topology)
        self.names = arrays.names
        self.source, self.target = arrays.number[src], arrays.number[dst]
        self.edges = edges = arrays.edges(topology, "ethernet")
        latency = arrays.figure(topology, "ethernet", "latency_ms")
        self.picoseconds: Floats = edges.by_figures.of(
            "picoseconds", lambda: edges.per_entry(np.rint(np.nan_to_num(latency) * _STEPS_PER_MS))
        )
        self.tails: Ints = edges.by_structure.of(
            "tails", lambda: np.repeat(np.arange(len(arrays.names), dtype=np.int32), np.diff(edges.indptr))
        )
        self.switches: Bools = arrays.by_structure.of(
            "switches", lambda: np.array([node.kind == "openflow-switch" for _, node in topology.nodes()], dtype=np.bool_)
        )
        self._usable: Bools = edges.by_figures.of("usable", lambda: edges.per_entry(edges.usable))
        if min_capacity_mbps is not None:
            self.capacity = arrays.figure(topology, "ethernet", "capacity_mbps").copy()
            for link_id, promised in reserved.items():
                if link_id in edges.number:
                    self.capacity[edges.number[link_id]] -= promised
            self._usable = self._usable & edges.per_entry(self.capacity >= min_capacity_mbps)

    def forwards(self) -> Bools:
        """The entries that lead from a switch, or from the source."""
        leading: Bools = self.switches.take(self.tails)
        leading[self.edges.indptr[self.source] : self.edges.indptr[self.source + 1]] = True
        return leading & self._usable

    def to_go(self) -> tuple[Floats, Ints]:
        """Per node the least latency in ps to the target, and the fewest hops among the paths of that latency; -1 hops where none leads."""
        edges, shift = self.edges, float(1 << len(self.names).bit_length())
        far, _ = distances(
            edges.indptr, edges.indices, self._backwards("latency and hop", lambda: self.picoseconds * shift + 1), self.target
        )
        reachable = np.isfinite(far)
        far = np.where(reachable, far, 0.0)
        if far.max() < _EXACT:
            latency = np.floor(far / shift)
            return latency, np.where(reachable, far - latency * shift, -1).astype(np.int32)
        # too far to tell both in one number: first the latency, then the hops along entries by which it is least
        weights = self._backwards("latency", lambda: self.picoseconds)
        latency, _ = distances(edges.indptr, edges.indices, weights, self.target)
        least = np.isfinite(weights) & (latency.take(edges.indices) == latency.take(self.tails) + weights)
        return latency, hops(kept(edges.indptr, edges.indices, least), self.target)

    def _backwards(self, name: str, weights: Callable[[], Floats]) -> Floats:
        """The weights of the entries by which a search from the target goes, which lead to a switch or to the source; else infinite."""
        edges, to_switch = self.edges, self.switches.take
        if self.wanted is None and self.switches[self.source]:
            kept: Floats = edges.by_figures.of(
                (name, "to switches"), lambda: np.where(to_switch(edges.indices) & self._usable, weights(), np.inf)
            )
            return kept
        leading = to_switch(edges.indices) | (edges.indices == self.source)
        return np.where(leading & self._usable, edges.by_figures.of(name, weights), np.inf)

    def twins(self) -> Ints:
        """Per entry the one of the other direction of its edge."""

        def compute() -> Ints:
            pairs = np.argsort(self.edges.edge, kind="stable").reshape(-1, 2)
            twins = np.empty(self.edges.edge.size, dtype=np.int32)
            twins[pairs[:, 0]], twins[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
            return twins

        twins: Ints = self.edges.by_structure.of("twins", compute)
        return twins

    def arcs(self) -> Callable[[int], list[Arc]]:
        """The entries by which a packet can leave a node."""
        edges, usable, weights = self.edges, self._usable, self.picoseconds

        def leaving(node: int) -> list[Arc]:
            if node != self.source and not self.switches[node]:
                return []
            span = slice(edges.indptr[node], edges.indptr[node + 1])
            entries = zip(
                usable[span].tolist(), weights[span].tolist(), edges.indices[span].tolist(), edges.edge[span].tolist(), strict=True
            )
            return [(weight, head, edge) for use, weight, head, edge in entries if use]

        return leaving

    def refusal(self, topology: Topology) -> NoRoute:
        nowhere = NoRoute(f"no usable ethernet links join {self.src} and {self.dst} over OpenFlow switches", "reachability")
        if self.wanted is None:
            return nowhere
        try:
            classical(topology, self.src, self.dst)
        except NoRoute:
            return nowhere
        edges, inner = self.edges, self.switches.copy()
        inner[[self.source, self.target]] = True
        keep = edges.usable & inner[edges.a] & inner[edges.b] & (self.capacity > 0)
        one_way = edges.a.take(edges.edge) == self.tails
        widths = forest(edges.indptr, edges.indices, np.where(one_way, np.where(keep, self.capacity, 0.0).take(edges.edge), 0.0))
        best = widths.widest([(self.source, np.inf)], [(self.target, np.inf)])
        return NoRoute(
            f"no path from {self.src} to {self.dst} has {self.wanted:g} Mbit/s free on every link; the best has {best:.6g}",
            "min_capacity_mbps",
            best,
        )


def _route(topology: Topology, edges: Edges, src: str, links: list[int]) -> ClassicalRoute:
    nodes, ports, explanation, slowest, total = [src], [], [], (-1.0, ""), 0
    for link in (topology.link(edges.ids[number]) for number in links):
        ends = (link.a, link.b) if link.a.node == nodes[-1] else (link.b, link.a)
        figure = topology.figure(link, "latency_ms")
        assert figure is not None
        capacity = topology.figure(link, "capacity_mbps")
        rate = f", {told(capacity, 'Mbit/s')}" if capacity else ""
        explanation.append(f"{ends[0]} -> {ends[1]}: {told(figure, 'ms')}{rate} over {link.id}")
        slowest = max(slowest, (figure.value, link.id), key=lambda pair: pair[0])
        total += round(figure.value * _STEPS_PER_MS)
        nodes.append(ends[1].node)
        ports.append((str(ends[0]), str(ends[1])))
    explanation.append(f"most of the latency: {slowest[0]:.6g} ms on {slowest[1]}")
    ids = tuple(edges.ids[number] for number in links)
    return ClassicalRoute(tuple(nodes), ids, total / _STEPS_PER_MS, tuple(ports), tuple(explanation))
