"""Classical paths: the least latency through OpenFlow switches."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from controller.network.model import Link
from controller.network.topology import Topology
from controller.routing.refusal import NoRoute, told

_STEPS_PER_MS = 10**9
"""Latencies are added as whole picoseconds, so that equal paths compare equal whatever the order of their links."""


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


def classical(topology: Topology, src: str, dst: str) -> ClassicalRoute:
    """The path of least latency over usable ethernet links; then of fewest hops; then the first by name.

    Only OpenFlow switches forward. Raises NoRoute (`reachability`) and UnknownName.
    """
    topology.node(src), topology.node(dst)
    if src == dst:
        raise NoRoute(f"{src} is both ends of the request", "reachability")
    links = _shortest(topology, src, dst)
    if links is None:
        raise NoRoute(f"no usable ethernet links join {src} and {dst} over OpenFlow switches", "reachability")
    nodes, ports, explanation, slowest = [src], [], [], (-1.0, "")
    for link in links:
        ends = (link.a, link.b) if link.a.node == nodes[-1] else (link.b, link.a)
        figure = topology.figure(link, "latency_ms")
        assert figure is not None
        capacity = topology.figure(link, "capacity_mbps")
        rate = f", {told(capacity, 'Mbit/s')}" if capacity else ""
        explanation.append(f"{ends[0]} -> {ends[1]}: {told(figure, 'ms')}{rate} over {link.id}")
        slowest = max(slowest, (figure.value, link.id), key=lambda pair: pair[0])
        nodes.append(ends[1].node)
        ports.append((str(ends[0]), str(ends[1])))
    explanation.append(f"most of the latency: {slowest[0]:.6g} ms on {slowest[1]}")
    total = sum(_latency(topology, link) for link in links) / _STEPS_PER_MS
    return ClassicalRoute(tuple(nodes), tuple(link.id for link in links), total, tuple(ports), tuple(explanation))


def _latency(topology: Topology, link: Link) -> int:
    figure = topology.figure(link, "latency_ms")
    return round(figure.value * _STEPS_PER_MS) if figure else 0


def _shortest(topology: Topology, src: str, dst: str) -> tuple[Link, ...] | None:
    neighbours: dict[str, list[tuple[str, Link]]] = {}
    for link in topology.links("ethernet"):
        if topology.usable(link):
            for here, there in (link.nodes, link.nodes[::-1]):
                neighbours.setdefault(here, []).append((there, link))
    queue: list[tuple[int, int, tuple[str, ...], tuple[str, ...]]] = [(0, 0, (src,), ())]
    settled: set[str] = set()
    while queue:
        latency, hops, nodes, ids = heapq.heappop(queue)
        here = nodes[-1]
        if here == dst:
            return tuple(topology.link(link_id) for link_id in ids)
        if here in settled or (here != src and topology.node(here).kind != "openflow-switch"):
            continue
        settled.add(here)
        for there, link in neighbours.get(here, ()):
            if there not in settled:
                heapq.heappush(queue, (latency + _latency(topology, link), hops + 1, (*nodes, there), (*ids, link.id)))
    return None
