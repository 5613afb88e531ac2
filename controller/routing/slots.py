"""Entangled pairs for many requests in one time slot of a network: its links as parallel channels, and what `entangled.slotted` selects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from controller.network.model import Link
from controller.network.topology import Topology
from controller.physics.domain import within
from controller.routing.entangled.slotted import Edge, SlottedNetwork, select
from controller.routing.refusal import NoRoute


@dataclass(frozen=True, slots=True)
class Pair:
    """Two nodes that ask for entangled pairs, as many as the slot gives."""

    src: str
    dst: str


@dataclass(frozen=True, slots=True)
class SlotPath:
    """A path of a request, the channels to try on each of its hops, and the pairs expected of it per slot."""

    nodes: tuple[str, ...]
    links: tuple[tuple[str, ...], ...]
    """Per hop the links whose channels are tried."""
    ebits: float


@dataclass(frozen=True, slots=True)
class Slot:
    requests: tuple[Pair, ...]
    paths: tuple[tuple[SlotPath, ...], ...]
    """Per request."""
    refused: tuple[NoRoute | None, ...]
    """Per request why it has no path."""
    explanation: tuple[str, ...]

    @property
    def ebits(self) -> float:
        return math.fsum(path.ebits for paths in self.paths for path in paths)

    def to_json(self) -> dict[str, object]:
        return {
            "requests": [
                {
                    "src": pair.src,
                    "dst": pair.dst,
                    "ebits": math.fsum(path.ebits for path in paths),
                    "paths": [
                        {
                            "nodes": list(path.nodes),
                            "channels": [len(hop) for hop in path.links],
                            "links": [link for hop in path.links for link in hop],
                            "ebits": path.ebits,
                        }
                        for path in paths
                    ],
                    "refusal": none.to_json() if none else None,
                }
                for pair, paths, none in zip(self.requests, self.paths, self.refused, strict=True)
            ],
            "ebits": self.ebits,
            "explanation": list(self.explanation),
        }


def slot(topology: Topology, requests: Sequence[Pair], slot_s: float) -> Slot:
    """Which channels to reserve in a slot of `slot_s` seconds before any is tried, for the most pairs expected over all requests.

    A usable entanglement link is a channel that gives a pair in the slot with probability 1 - exp(-rate slot_s); parallel ones count with
    their mean. A node has as many qubits as memories; one that declares none has one for every channel. Only repeaters swap. Fidelity is
    not looked at. Raises UnknownName, and ValueError for a slot that is no time, a request between a node and itself, and repeaters of
    different swap success, which the model does not have.
    """
    within("slot_s", slot_s, 0, open_low=True)
    for index, pair in enumerate(requests):
        topology.node(pair.src), topology.node(pair.dst)
        if pair.src == pair.dst:
            raise ValueError(f"requests[{index}] has {pair.src} at both ends; name two nodes")
    rates: dict[tuple[str, str], list[tuple[float, Link]]] = {}
    for link in topology.links("entanglement"):
        figure = topology.figure(link, "rate_hz")
        if figure is not None and figure.value < math.inf and -math.expm1(-figure.value * slot_s) > 0 and topology.usable(link):
            a, b = sorted(link.nodes)
            rates.setdefault((a, b), []).append((figure.value, link))
    names = [name for name, _ in topology.nodes()]
    number = {name: at for at, name in enumerate(names)}
    channels = [[link.id for _, link in sorted(each, key=lambda pair: (-pair[0], pair[1].id))] for each in rates.values()]
    edges = [
        Edge(number[a], number[b], len(each), sum(-math.expm1(-rate * slot_s) for rate, _ in each) / len(each))
        for (a, b), each in rates.items()
    ]
    around = [0] * len(names)
    for edge in edges:
        around[edge.a] += edge.channels
        around[edge.b] += edge.channels
    qubits = [around[at] if node.memories is None else node.memories for at, (_, node) in enumerate(topology.nodes())]
    swap, swaps = _swaps(topology)
    free = [list(each) for each in channels]
    found: list[list[SlotPath]] = [[] for _ in requests]
    for path in select(SlottedNetwork(qubits, edges, swap, swaps), [(number[pair.src], number[pair.dst]) for pair in requests]):
        hops = [tuple(free[edge].pop(0) for _ in range(count)) for edge, count in zip(path.edges, path.channels, strict=True)]
        found[path.request].append(SlotPath(tuple(names[node] for node in path.nodes), tuple(hops), path.ebits))
    refused = tuple(None if paths else _refusal(pair) for pair, paths in zip(requests, found, strict=True))
    explanation = [
        f"a slot of {slot_s:g} s, swaps succeed with {swap:g}; {sum(map(len, channels))} channels between {len(edges)} pairs of nodes"
    ]
    for pair, paths, none in zip(requests, found, refused, strict=True):
        if none is not None:
            explanation.append(f"{pair.src} -- {pair.dst}: {none.error}")
        for each in paths:
            widths = "-".join(str(len(hop)) for hop in each.links)
            explanation.append(
                f"{pair.src} -- {pair.dst}: {each.ebits:.4g} pairs per slot over {' - '.join(each.nodes)}, channels {widths}"
            )
    return Slot(tuple(requests), tuple(map(tuple, found)), refused, tuple(explanation))


def _refusal(pair: Pair) -> NoRoute:
    return NoRoute(f"no repeaters with free memories and channels join {pair.src} and {pair.dst} in this slot", "reachability")


def _swaps(topology: Topology) -> tuple[float, list[bool]]:
    """The success of every swap, and which nodes can."""
    first: tuple[str, float] | None = None
    for name, node in topology.nodes("repeater"):
        success = 1.0 if node.swap is None else node.swap.success
        first = first or (name, success)
        if success != first[1]:
            raise ValueError(f"swaps succeed with {first[1]:g} at {first[0]} and {success:g} at {name}; a slot needs one figure for all")
    return first[1] if first else 1.0, [node.kind == "repeater" for _, node in topology.nodes()]
