"""Entangled pairs for many requests in one time slot of a network: its links as parallel channels, and what `entangled.slotted` selects."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, groupby

from controller.network.topology import Figure, Topology
from controller.physics.domain import within
from controller.routing.entangled.slotted import Edge, Reservation, SlottedNetwork, expected_ebits, select
from controller.routing.entanglement import swap_of, swap_origin, via_usable
from controller.routing.refusal import NoRoute, told

_LINKS_TOLD = 4
"""So many parallel links of one rate are named in an explanation."""


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


@dataclass(frozen=True, slots=True)
class _Channel:
    link: str
    rate: Figure
    p: float
    """The chance that it gives a pair in the slot."""


@dataclass(frozen=True, slots=True)
class _Model:
    """A topology in one slot: names and channels behind the numbers of the network that is selected from."""

    topology: Topology
    names: tuple[str, ...]
    channels: tuple[tuple[_Channel, ...], ...]
    """Per edge, the best first."""
    network: SlottedNetwork
    idle: tuple[str, ...]
    """Ids of usable links that make no pairs."""


def slot(topology: Topology, requests: Sequence[Pair], slot_s: float) -> Slot:
    """Which channels to reserve in a slot of `slot_s` seconds before any is tried, for the most pairs expected over all requests.

    A usable entanglement link is a channel that gives a pair in the slot with probability 1 - exp(-rate slot_s); of parallel ones the best
    are reserved first. A node has as many qubits as memories; one that declares none has one for every channel. Only repeaters swap.
    Fidelity is not looked at. A request that gets nothing is refused (`admin`: an end is not enabled; `reachability`; `memories`,
    `channels`, with what it would get alone as the best where others took them). Raises UnknownName, and ValueError for a slot that is no
    time and a request between a node and itself.
    """
    within("slot_s", slot_s, 0, open_low=True)
    for index, pair in enumerate(requests):
        topology.node(pair.src), topology.node(pair.dst)
        if pair.src == pair.dst:
            raise ValueError(f"requests[{index}] has {pair.src} at both ends; name two nodes")
    model = _model(topology, slot_s)
    number = {name: at for at, name in enumerate(model.names)}
    ends = [(number[pair.src], number[pair.dst]) for pair in requests]
    reserved = select(model.network, ends)
    held = _held(model.network, reserved)
    found: list[list[SlotPath]] = [[] for _ in requests]
    lines: list[list[str]] = [[] for _ in requests]
    for each in reserved:
        found[each.request].append(_path(model, each))
        lines[each.request] += _explain(model, held, each, found[each.request][-1])
    refused = tuple(None if paths else _refusal(model, held, requests, ends, index) for index, paths in enumerate(found))
    for index, none in enumerate(refused):
        if none is not None:
            best = "" if none.best is None else f"; alone it would get {none.best:.4g} pairs per slot"
            lines[index].append(f"{requests[index].src} -- {requests[index].dst}: refused for {none.constraint}, {none.error}{best}")
    header = f"a slot of {slot_s:g} s; {sum(map(len, model.channels))} channels between {len(model.channels)} pairs of nodes"
    return Slot(tuple(requests), tuple(map(tuple, found)), refused, (header, *chain.from_iterable(lines)))


def _model(topology: Topology, slot_s: float) -> _Model:
    parallel: dict[tuple[str, str], list[_Channel]] = {}
    idle = []
    for link in topology.links("entanglement"):
        rate = topology.figure(link, "rate_hz")
        if rate is None or not topology.usable(link) or not via_usable(topology, link):
            continue
        p = -math.expm1(-rate.value * slot_s)
        if p > 0:
            a, b = sorted(link.nodes)
            parallel.setdefault((a, b), []).append(_Channel(link.id, rate, p))
        else:
            idle.append(link.id)
    names = [name for name, _ in topology.nodes()]
    number = {name: at for at, name in enumerate(names)}
    channels = [tuple(sorted(each, key=lambda channel: (-channel.rate.value, channel.link))) for each in parallel.values()]
    edges = [
        Edge(number[a], number[b], len(each), tuple(channel.p for channel in each)) for (a, b), each in zip(parallel, channels, strict=True)
    ]
    around = [0] * len(names)
    for edge in edges:
        around[edge.a] += edge.channels
        around[edge.b] += edge.channels
    qubits = [around[at] if node.memories is None else node.memories for at, (_, node) in enumerate(topology.nodes())]
    swap = [swap_of(topology, name).success if node.kind == "repeater" else 0.0 for name, node in topology.nodes()]
    return _Model(topology, tuple(names), tuple(channels), SlottedNetwork(qubits, edges, swap), tuple(idle))


def _path(model: _Model, reserved: Reservation) -> SlotPath:
    hops = [[model.channels[edge][each] for each in chosen] for edge, chosen in zip(reserved.edges, reserved.chosen, strict=True)]
    ebits = expected_ebits(
        [tuple(channel.p for channel in hop) for hop in hops],
        reserved.channels,
        [model.network.swap[node] for node in reserved.nodes[1:-1]],
    )
    return SlotPath(
        tuple(model.names[node] for node in reserved.nodes), tuple(tuple(channel.link for channel in hop) for hop in hops), ebits
    )


@dataclass(frozen=True, slots=True)
class _Held:
    """By number of the request what it holds: per node its memories, per edge its channels."""

    memories: list[Counter[int]]
    channels: list[Counter[int]]


def _held(network: SlottedNetwork, reserved: Sequence[Reservation]) -> _Held:
    held = _Held([Counter() for _ in network.qubits], [Counter() for _ in network.edges])
    for path in reserved:
        for index, count in zip(path.edges, path.channels, strict=True):
            edge = network.edges[index]
            held.channels[index][path.request] += count
            held.memories[edge.a][path.request] += count
            held.memories[edge.b][path.request] += count
    return held


def _explain(model: _Model, held: _Held, reserved: Reservation, path: SlotPath) -> list[str]:
    """The figures at every hop and node of a path, with where they come from, and what keeps it from more."""
    widths = reserved.channels
    lines = [
        f"{path.nodes[0]} -- {path.nodes[-1]}: {path.ebits:.4g} pairs per slot over {' - '.join(path.nodes)}, "
        f"channels {'-'.join(map(str, widths))}"
    ]
    links = []
    for place, (node, name) in enumerate(zip(reserved.nodes, path.nodes, strict=True)):
        count = sum(widths[max(0, place - 1) : place + 1])
        given = model.topology.node(name).memories
        taken = f"memories taken: {count}, of how many is not given" if given is None else f"memories taken: {count} of {given}"
        swap = ""
        if 0 < place < len(widths):
            swap = f"swap succeeds with probability {model.network.swap[node]:g} ({swap_origin(model.topology, name)}), "
        lines.append(f"  {name}: {swap}{taken}")
        if place < len(widths):
            hop = [model.channels[reserved.edges[place]][each] for each in reserved.chosen[place]]
            links.append(math.fsum(channel.p for channel in hop))
            for (rate, p), alike in groupby(hop, key=lambda channel: (told(channel.rate, "Hz"), channel.p)):
                ids = [channel.link for channel in alike]
                over = ", ".join(ids) if len(ids) <= _LINKS_TOLD else f"{', '.join(ids[:_LINKS_TOLD])} and {len(ids) - _LINKS_TOLD} like it"
                lines.append(f"  {name} -> {path.nodes[place + 1]}: {rate}, a pair in the slot with probability {p:.6g}, over {over}")
    scarce = links.index(min(links))
    here, there = path.nodes[scarce : scarce + 2]
    short = _short(model, held, reserved.nodes[scarce : scarce + 2], reserved.edges[scarce : scarce + 1], (1, 1))
    why = "; ".join(text for _, text in short) or "another channel would add next to nothing"
    return [*lines, f"  binding: {here} -> {there}, {links[scarce]:.4g} links per slot on average; {why}"]


def _short(model: _Model, held: _Held, nodes: Sequence[int], edges: Sequence[int], needed: Sequence[int]) -> list[tuple[str, str]]:
    """What one more channel along a way lacks, as constraint and text: memories where fewer than `needed` are free, channels where none is.
    A node that declares no memories has one for every channel, so it lacks none."""
    lacking = []
    for node, least in zip(nodes, needed, strict=True):
        name, by = model.names[node], held.memories[node]
        most = model.topology.node(name).memories
        if most is not None and most - by.total() < least:
            lacking.append(("memories", f"{by.total()} of {most} memories of {name} taken by {_named(by)}"))
    for index in edges:
        edge, by = model.network.edges[index], held.channels[index]
        if by.total() == edge.channels:
            between = f"{model.names[edge.a]} - {model.names[edge.b]}"
            lacking.append(("channels", f"{by.total()} of {edge.channels} channels {between} taken by {_named(by)}"))
    return lacking


def _named(requests: Counter[int]) -> str:
    return ", ".join(f"requests[{index}]" for index in sorted(requests))


def _refusal(model: _Model, held: _Held, requests: Sequence[Pair], ends: Sequence[tuple[int, int]], index: int) -> NoRoute:
    """Why a request has no path: what it is without even alone, or what others hold of the path it would have alone."""
    pair, network = requests[index], model.network
    for name in (pair.src, pair.dst):
        if (admin := model.topology.node(name).admin) != "enabled":
            return NoRoute(f"{name} is {admin}", "admin")
    alone = select(network, [ends[index]])
    if alone:
        path, best = alone[0], math.fsum(_path(model, each).ebits for each in alone)
        short = _short(model, held, path.nodes, path.edges, (1, *(2 for _ in path.nodes[1:-1]), 1))
        lacking = "; ".join(text for _, text in short) or "channels that give any"
        over = " - ".join(model.names[node] for node in path.nodes)
        return NoRoute(f"others hold what it needs over {over}: {lacking}", short[0][0] if short else "channels", best)
    if _way(network, *ends[index], least=2):
        return NoRoute(f"the pairs expected between {pair.src} and {pair.dst} are too few for a number", "reachability", 0.0)
    way = _way(network, *ends[index], least=0)
    if way is None:
        left_out = f"; {len(model.idle)} more make no pairs in the slot, {model.idle[0]} for one" if model.idle else ""
        return NoRoute(f"no usable entanglement links join {pair.src} and {pair.dst} over repeaters{left_out}", "reachability")
    few = [f"{model.names[node]} has {network.qubits[node]}" for node in way[1:-1] if network.qubits[node] < 2]
    return NoRoute(f"a swap takes 2 memories, and every way from {pair.src} to {pair.dst} lacks some: {', '.join(few)}", "memories")


def _way(network: SlottedNetwork, source: int, target: int, least: int) -> list[int] | None:
    """The nodes of a way of fewest edges, all others than its ends such that can swap and have at least so many qubits."""
    before, ring = {source: source}, [source]
    for here in ring:
        for there, _ in network.near[here]:
            if there == target:
                way = [target, here]
                while way[-1] != source:
                    way.append(before[way[-1]])
                return way[::-1]
            if there not in before and network.swap[there] and network.qubits[there] >= least:
                before[there] = here
                ring.append(there)
    return None
