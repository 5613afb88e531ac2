"""Entangled pairs for many requests in one time slot: which channels to reserve before any of them is tried.

The model is Q-CAST's (Shi and Qian, "Concurrent Entanglement Routing for Quantum Networks: Model and Designs", SIGCOMM 2020). An edge has
parallel channels; a channel takes one qubit at both of its ends and gives a link with probability p in the slot. A repeater joins two links
with probability q. What is asked for is the most pairs (ebits) per slot over all requests. A path of h edges with c_e channels on edge e
has as many chains as its poorest edge has links, so it delivers on average

    EXT = q^(h-1) sum_{i >= 1} prod_e P(Binomial(c_e, p_e) >= i),

which for equal c_e is the paper's recursion, and which holds for unequal c_e as well. The selection rests on that:

1. Every request has one candidate per width, the path of highest EXT at it. The candidate of highest EXT / (width x hops)^0.7 is reserved,
   until none fits. Neither the widest (as published), nor the one of highest EXT: what a candidate takes from the others counts too.
   The exponent is flat between 0.5 and 0.9. A request gets as many paths as win; resources only shrink, so a candidate's score is an upper
   bound of its later ones, and is computed again only when it comes to the top and no longer fits. (Not searched yet, it waits with the
   score of a path of median edges.)
2. What is left over cannot carry another path, yet widens single edges: each free channel with qubits at both ends goes to the path whose
   EXT it raises most, as long as it raises any. This takes the place of recovery paths.

The choice of swaps once the links are known is `slotted_swaps`.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

_THRIFT = 0.7
"""Exponent of the resources in a candidate's score: 0 asks for the highest EXT, 1 for the highest EXT per channel."""

_NO_GAIN = 1e-9
"""Ebits; a channel that adds less is left free."""


@dataclass(frozen=True, slots=True)
class Edge:
    """Parallel channels between two nodes; `p` is the success probability of one of them in a slot."""

    a: int
    b: int
    channels: int
    p: float


@dataclass(frozen=True, slots=True)
class Reservation:
    """A path for request `request` of the slot: its nodes, the indices of its edges, the channels on each; `ebits` expected of it."""

    request: int
    nodes: tuple[int, ...]
    edges: tuple[int, ...]
    channels: tuple[int, ...]
    ebits: float


class SlottedNetwork:
    """A network compiled for selection: nodes are 0 .. len(qubits) - 1, `swap` is the success probability of every swap, and `swaps` says
    which nodes can (None: all); others are only ends.

    Raises ValueError naming the field for a negative count, a probability outside (0, 1], an edge to itself or to an unknown node, and two
    edges between the same nodes (they are one edge with more channels).
    """

    def __init__(self, qubits: Sequence[int], edges: Sequence[Edge], swap: float, swaps: Sequence[bool] | None = None) -> None:
        if not 0 < swap <= 1:
            raise ValueError(f"swap must be in (0, 1], got {swap}")
        for node, count in enumerate(qubits):
            if count < 0:
                raise ValueError(f"qubits[{node}] must be at least 0, got {count}")
        self.qubits, self.edges, self.swap = tuple(qubits), tuple(edges), swap
        self.swaps = tuple(swaps) if swaps is not None else (True,) * len(self.qubits)
        self.near: list[list[tuple[int, int]]] = [[] for _ in qubits]
        """Per node its neighbours and the edges to them."""
        seen: dict[frozenset[int], int] = {}
        for index, edge in enumerate(edges):
            ends = frozenset((edge.a, edge.b))
            if not (0 <= edge.a < len(qubits) and 0 <= edge.b < len(qubits)) or len(ends) < 2:
                raise ValueError(f"edges[{index}] must join two of the nodes 0 .. {len(qubits) - 1}, got {edge.a} and {edge.b}")
            if not 0 < edge.p <= 1:
                raise ValueError(f"edges[{index}].p must be in (0, 1], got {edge.p}")
            if edge.channels < 0:
                raise ValueError(f"edges[{index}].channels must be at least 0, got {edge.channels}")
            if ends in seen:
                raise ValueError(f"edges[{index}] joins the same nodes as edges[{seen[ends]}]: add their channels instead")
            seen[ends] = index
            self.near[edge.a].append((edge.b, index))
            self.near[edge.b].append((edge.a, index))
        self.usable = [min(edge.channels, qubits[edge.a], qubits[edge.b]) for edge in edges]
        self.tails = [[binomial_tails(count, edge.p) for count in range(most + 1)] for edge, most in zip(edges, self.usable, strict=True)]
        """Per edge and number of channels the chances of at least 1, 2, ... links."""
        typical = statistics.median(edge.p for edge in edges) if edges else 1.0
        self._typical = [binomial_tails(count, typical) for count in range(max(self.usable, default=0) + 1)]
        self._rest: dict[int, list[tuple[float, ...]]] = {}

    def typical_ebits(self, width: int, hops: int) -> float:
        """EXT of a path whose edges all have the network's median success probability."""
        return math.pow(self.swap, hops - 1) * sum(tail**hops for tail in self._typical[width])

    def rest(self, width: int) -> list[tuple[float, ...]]:
        """Per number of edges to go the factor each product of tails is expected to meet on them: (q x median edge's tail)^edges."""
        if width not in self._rest:
            steps = [self.swap * tail for tail in self._typical[width]]
            self._rest[width] = [tuple(step**hops for step in steps) for hops in range(len(self.qubits) + 1)]
        return self._rest[width]

    def hops_from(self, source: int) -> list[int]:
        """Fewest edges from `source` to each node; the number of nodes where there is no way."""
        hops, ring = [len(self.qubits)] * len(self.qubits), [source]
        hops[source] = 0
        for here in ring:
            for there, _ in self.near[here]:
                if hops[there] > hops[here] + 1:
                    hops[there] = hops[here] + 1
                    ring.append(there)
        return hops


def binomial_tails(count: int, p: float) -> tuple[float, ...]:
    """P(Binomial(count, p) >= i) for i = 1 .. count."""
    mass = [math.comb(count, i) * p**i * (1 - p) ** (count - i) for i in range(count, 0, -1)]
    return tuple(accumulate(mass))[::-1]


def expected_ebits(p: Sequence[float], channels: Sequence[int], swap: float) -> float:
    """EXT: ebits expected in one slot of a path with channels[k] channels of success probability p[k] on its k-th edge."""
    tails = [binomial_tails(count, chance) for count, chance in zip(channels, p, strict=True)]
    return math.pow(swap, len(tails) - 1) * math.fsum(math.prod(chances) for chances in zip(*tails, strict=False))  # to the poorest edge's


def select(network: SlottedNetwork, requests: Sequence[tuple[int, int]]) -> list[Reservation]:
    """Paths and channels for the requests (source, destination) of one slot, from the network alone: nothing of the slot's links is known.

    Raises ValueError for a request whose ends are the same or are no nodes.
    """
    for index, (source, target) in enumerate(requests):
        if source == target or not (0 <= source < len(network.qubits) and 0 <= target < len(network.qubits)):
            raise ValueError(f"requests[{index}] must join two of the nodes 0 .. {len(network.qubits) - 1}, got {source} and {target}")
    slot = _Slot(network)
    slot.reserve_paths(requests)
    slot.widen()
    return [
        Reservation(path.request, _nodes(network, requests[path.request][0], path.edges), path.edges, tuple(path.channels), path.ebits)
        for path in slot.paths
    ]


def _nodes(network: SlottedNetwork, source: int, edges: Sequence[int]) -> tuple[int, ...]:
    nodes = [source]
    for index in edges:
        edge = network.edges[index]
        nodes.append(edge.a + edge.b - nodes[-1])
    return tuple(nodes)


@dataclass(slots=True)
class _Path:
    request: int
    edges: tuple[int, ...]
    channels: list[int]
    ebits: float


class _Slot:
    """One slot's free qubits and channels, and the paths reserved so far."""

    def __init__(self, network: SlottedNetwork) -> None:
        self.network = network
        self.qubits = list(network.qubits)
        self.channels = list(network.usable)
        self.paths: list[_Path] = []

    def reserve_paths(self, requests: Sequence[tuple[int, int]]) -> None:
        network = self.network
        hops = [network.hops_from(target) for _, target in requests]
        barred = [len(network.qubits) + 1] * len(requests)  # per request the least width known to have no path left
        queue: list[tuple[float, int, int, float, tuple[int, ...] | None]] = []
        for index, (source, target) in enumerate(requests):
            fewest = hops[index][source]
            most = min(
                network.qubits[source],
                network.qubits[target],
                max((self.channels[edge] for _, edge in network.near[source]), default=0),
                max((self.channels[edge] for _, edge in network.near[target]), default=0),
            )
            if fewest < len(network.qubits):
                for width in range(1, most + 1):
                    score = network.typical_ebits(width, fewest) / (width * fewest) ** _THRIFT
                    queue.append((-score, index, width, 0.0, None))
        heapq.heapify(queue)
        while queue:
            _, index, width, ebits, path = heapq.heappop(queue)
            if width >= barred[index]:
                continue
            source, target = requests[index]
            if path is not None and self._fits(source, target, path, width):
                self._take(path, width)
                self.paths.append(_Path(index, path, [width] * len(path), ebits))
            else:
                found = self._search(source, target, width, hops[index])
                if found is None:
                    barred[index] = width
                    continue
                ebits, path = found
            heapq.heappush(queue, (-ebits / (width * len(path)) ** _THRIFT, index, width, ebits, path))

    def _fits(self, source: int, target: int, path: Sequence[int], width: int) -> bool:
        here = source
        if self.qubits[source] < width or self.qubits[target] < width:
            return False
        for index in path:
            edge = self.network.edges[index]
            here = edge.a + edge.b - here
            if self.channels[index] < width or (here != target and self.qubits[here] < 2 * width):
                return False
        return True

    def _take(self, path: Sequence[int], width: int) -> None:
        for index in path:
            edge = self.network.edges[index]
            self.channels[index] -= width
            self.qubits[edge.a] -= width
            self.qubits[edge.b] -= width

    def _search(self, source: int, target: int, width: int, hops_left: Sequence[int]) -> tuple[float, tuple[int, ...]] | None:
        """A path of high EXT at that width: the paper's extended Dijkstra, directed to the target. A label is ranked by the EXT it would
        have if the fewest edges still to go were as good as the median edge: a third faster, and as good within noise."""
        network, qubits, channels = self.network, self.qubits, self.channels
        if qubits[source] < width or qubits[target] < width:
            return None
        near, tails, swaps = network.near, network.tails, network.swaps
        rest = network.rest(width)
        best = [0.0] * len(qubits)
        settled = [False] * len(qubits)
        queue: list[tuple[float, int, tuple[int, ...], Sequence[float]]] = [(0.0, source, (), ())]
        while queue:
            rank, here, path, chances = heapq.heappop(queue)
            if here == target:
                return -rank, path
            if settled[here]:
                continue
            settled[here] = True
            through = network.swap ** len(path)
            for there, edge in near[here]:
                if settled[there] or channels[edge] < width:
                    continue
                if there != target and (qubits[there] < 2 * width or not swaps[there]):
                    continue
                row = tails[edge][width]
                product = list(map(mul, chances, row)) if path else row
                value = through * sum(map(mul, product, rest[hops_left[there]]))
                if value > best[there]:
                    best[there] = value
                    heapq.heappush(queue, (-value, there, (*path, edge), product))
        return None

    def widen(self) -> None:
        network = self.network
        gains = [self._gains(path) for path in self.paths]
        while True:
            gain, index, place = max(
                ((gain, index, place) for index, row in enumerate(gains) for place, gain in enumerate(row)), default=(0.0, 0, 0)
            )
            if gain <= _NO_GAIN:
                return
            path = self.paths[index]
            edge = path.edges[place]
            ends = network.edges[edge]
            if not (self.channels[edge] and self.qubits[ends.a] and self.qubits[ends.b]):
                gains[index][place] = 0.0  # taken by another path meanwhile
                continue
            self._take((edge,), 1)
            path.channels[place] += 1
            path.ebits += gain
            gains[index] = self._gains(path)

    def _gains(self, path: _Path) -> list[float]:
        """Ebits that one more channel on each of the path's edges would add; 0 where none is free."""
        network = self.network
        rows = [network.tails[edge][count] for edge, count in zip(path.edges, path.channels, strict=True)]
        depth = min(path.channels) + 1  # one more channel gives at most one more chain
        before = [(1.0,) * depth]
        for row in rows:
            before.append(tuple(map(mul, before[-1], row)))
        after: Sequence[float] = (1.0,) * depth
        gains = [0.0] * len(rows)
        through = network.swap ** (len(rows) - 1)
        for place in range(len(rows) - 1, -1, -1):
            edge, count = path.edges[place], path.channels[place]
            ends = network.edges[edge]
            if self.channels[edge] and self.qubits[ends.a] and self.qubits[ends.b]:
                wider = network.tails[edge][count + 1]
                others = tuple(map(mul, before[place], after))
                gains[place] = through * (sum(map(mul, others, wider)) - sum(map(mul, others, rows[place])))
            after = tuple(map(mul, after, rows[place]))
        return gains
