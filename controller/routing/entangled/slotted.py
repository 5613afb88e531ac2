"""Entangled pairs for many requests in one time slot: which channels to reserve before any of them is tried.

The model is Q-CAST's (Shi and Qian, "Concurrent Entanglement Routing for Quantum Networks: Model and Designs", SIGCOMM 2020), with channels
and repeaters that differ. An edge has parallel channels; a channel takes one qubit at both of its ends and gives a link with its probability
p in the slot. Repeater v joins two links with probability q_v. What is asked for is the most pairs (ebits) per slot over all requests. A path
has as many chains as its poorest edge has links; with N_e the number of links of edge e it delivers on average

    EXT = prod_v q_v sum_{i >= 1} prod_e P(N_e >= i).

N_e is Poisson-binomial in the p of the channels reserved there. Where all p are the same it is binomial, and EXT with as many channels on
every edge is the paper's recursion. An edge's best channels are given first. The selection rests on that:

1. Every request has one candidate per width, the path of highest EXT at it. The candidate of highest EXT / (width x hops)^0.7 is reserved,
   until none fits. Neither the widest (as published), nor the one of highest EXT: what a candidate takes from the others counts too.
   The exponent is flat between 0.5 and 0.9. A request gets as many paths as win; resources only shrink, so a candidate's score is an upper
   bound of its later ones, and is computed again only when it comes to the top and no longer fits. (Not searched yet, it waits with the
   score of a path of median edges; where an edge's channels differ, or edges or swaps do by a factor of `_APART`, of the best edges. Where
   channels differ a path is searched anew as well when it fits, but its better channels went to others.)
2. What is left over cannot carry another path, yet widens single edges: each free channel with qubits at both ends goes to the path whose
   EXT it raises most, as long as it raises any. This takes the place of recovery paths.

The choice of swaps once the links are known is `slotted_swaps`.
"""

from __future__ import annotations

import heapq
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, pairwise, repeat, takewhile
from operator import mul

from controller.physics.domain import whole, within

_THRIFT = 0.7
"""Exponent of the resources in a candidate's score: 0 asks for the highest EXT, 1 for the highest EXT per channel."""

_APART = 10.0
"""Beyond this ratio between success probabilities the median edge tells nothing of a path."""

_NO_GAIN = 1e-9
"""Ebits; a channel that adds less is left free."""

_ROUNDING = 1e-12
"""Relative error that sums in another order may have."""

_EXACT = 56
"""Up to so many channels all binomial coefficients are floats without rounding."""


@dataclass(frozen=True, slots=True)
class Edge:
    """Parallel channels between two nodes; `p` is the success probability in a slot of every one of them, or of each, the best first."""

    a: int
    b: int
    channels: int
    p: float | Sequence[float]


@dataclass(frozen=True, slots=True)
class Reservation:
    """A path for request `request` of the slot: its nodes, the indices of its edges, and the `ebits` expected of it."""

    request: int
    nodes: tuple[int, ...]
    edges: tuple[int, ...]
    chosen: tuple[tuple[int, ...], ...]
    """Per edge which of its channels, counted from the best."""
    ebits: float

    @property
    def channels(self) -> tuple[int, ...]:
        return tuple(map(len, self.chosen))


class SlottedNetwork:
    """A network compiled for selection: nodes are 0 .. len(qubits) - 1, `swap` is the success probability of swaps at every node, or of each
    (0: it cannot, and is only an end).

    Raises ValueError naming the field for a count that is not whole or negative, a probability outside (0, 1], probabilities that are not
    one per channel or not the best first, an edge to itself or to an unknown node, and two edges between the same nodes (they are one edge
    with more channels).
    """

    def __init__(self, qubits: Sequence[int], edges: Sequence[Edge], swap: float | Sequence[float]) -> None:
        for node, count in enumerate(qubits):
            whole(f"qubits[{node}]", count, 0, sys.maxsize)
        if isinstance(swap, Sequence):
            if len(swap) != len(qubits):
                raise ValueError(f"swap must have {len(qubits)} figures, one per node, got {len(swap)}")
            for node, success in enumerate(swap):
                within(f"swap[{node}]", success, 0, 1)
            self.swap = tuple(swap)
        else:
            within("swap", swap, 0, 1, open_low=True)
            self.swap = (swap,) * len(qubits)
        self.qubits, self.edges = tuple(qubits), tuple(edges)
        self.near: list[list[tuple[int, int]]] = [[] for _ in qubits]
        """Per node its neighbours and the edges to them."""
        self.p: list[tuple[float, ...]] = []
        """Per edge the success probabilities of the channels that its ends have qubits for, the best first."""
        seen: dict[frozenset[int], int] = {}
        for index, edge in enumerate(edges):
            ends = frozenset((edge.a, edge.b))
            if not (_is_node(edge.a, qubits) and _is_node(edge.b, qubits)) or len(ends) < 2:
                raise ValueError(f"edges[{index}] must join two of the nodes 0 .. {len(qubits) - 1}, got {edge.a} and {edge.b}")
            whole(f"edges[{index}].channels", edge.channels, 0, sys.maxsize)
            if ends in seen:
                raise ValueError(f"edges[{index}] joins the same nodes as edges[{seen[ends]}]: add their channels instead")
            seen[ends] = index
            self.near[edge.a].append((edge.b, index))
            self.near[edge.b].append((edge.a, index))
            most = min(edge.channels, qubits[edge.a], qubits[edge.b])
            self.p.append(_best(f"edges[{index}].p", edge, most))
        self.alike = [len(set(p)) <= 1 for p in self.p]
        """Per edge whether it makes no difference which of its channels are reserved."""
        self.tails = [_tails_by_count(p) for p in self.p]
        """Per edge and number of its best channels the chances of at least 1, 2, ... links."""
        each = [edge.p if isinstance(edge.p, Sequence) else (edge.p,) for edge in edges]
        bests = [(best or p)[0] for best, p in zip(self.p, each, strict=True) if p] or [1.0]
        swaps = [q for q, near in zip(self.swap, self.near, strict=True) if q and near] or [1.0]
        like = all(self.alike) and max(bests) <= _APART * min(bests) and max(swaps) <= _APART * min(swaps)
        typical: Callable[[list[float]], float] = statistics.median if like else max
        self._typical = _tails_by_count((typical(bests),) * max(map(len, self.p), default=0))
        self.typical_swap = typical(swaps)
        self.swap_ratio = [success / self.typical_swap for success in self.swap]
        """Per node, beside the typical success. So like swaps come to a power, the same in whatever order."""
        self._rest: dict[int, list[tuple[float, ...]]] = {}

    def typical_ebits(self, width: int, hops: int) -> float:
        """EXT of a path whose edges and swaps all have the network's typical success probability."""
        return math.pow(self.typical_swap, hops - 1) * sum(tail**hops for tail in self._typical[width])

    def through(self, nodes: Sequence[int]) -> float:
        """The chance that the swaps at all nodes of a path but its ends succeed."""
        return self.typical_swap ** (len(nodes) - 2) * math.prod(self.swap_ratio[node] for node in nodes[1:-1])

    def rest(self, width: int) -> list[tuple[float, ...]]:
        """Per number of edges to go the factor each product of tails is expected to meet on them: (typical q x tail)^edges."""
        if width not in self._rest:
            steps = [self.typical_swap * tail for tail in self._typical[width]]
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


def _is_node(node: int, qubits: Sequence[int]) -> bool:
    return isinstance(node, int) and 0 <= node < len(qubits)


def _best(field: str, edge: Edge, most: int) -> tuple[float, ...]:
    """The success probabilities of the edge's `most` best channels."""
    if not isinstance(edge.p, Sequence):
        within(field, edge.p, 0, 1, open_low=True)
        return (edge.p,) * most
    if len(edge.p) != edge.channels:
        raise ValueError(f"{field} must have {edge.channels} figures, one per channel, got {len(edge.p)}")
    for chance in edge.p:
        within(field, chance, 0, 1, open_low=True)
    if any(better < worse for better, worse in pairwise(edge.p)):
        raise ValueError(f"{field} must name the best channels first, got {edge.p}")
    return tuple(edge.p[:most])


def _wider(tails: Sequence[float], p: float) -> tuple[float, ...]:
    """The chances of at least 1, 2, ... links with one more channel: it gives one with probability p, and else there are as many as before."""
    return tuple((1 - p) * fewer_fail + p * fewer for fewer_fail, fewer in zip((*tails, 0.0), (1.0, *tails), strict=True))


def _tails_by_count(p: Sequence[float]) -> list[tuple[float, ...]]:
    """P(at least i of the first c channels give a link) for i = 1 .. c, by c = 0 .. len(p)."""
    alike = min(_EXACT, sum(1 for _ in takewhile(lambda chance: chance == p[0], p)))
    closed = [binomial_tails(count, p[0]) for count in range(1, alike + 1)]
    return [(), *closed[:-1], *accumulate(p[alike:], _wider, initial=closed[-1])] if closed else [()]


def binomial_tails(count: int, p: float) -> tuple[float, ...]:
    """P(Binomial(count, p) >= i) for i = 1 .. count. Raises ValueError for a count that is not whole or negative, and p outside [0, 1]."""
    whole("count", count, 0, sys.maxsize)
    within("p", p, 0, 1)
    closed = min(count, _EXACT)
    mass = [math.comb(closed, i) * p**i * (1 - p) ** (closed - i) for i in range(closed, 0, -1)]
    return reduce(_wider, repeat(p, count - closed), tuple(accumulate(mass))[::-1])


def expected_ebits(p: Sequence[float | Sequence[float]], channels: Sequence[int], swap: float | Sequence[float]) -> float:
    """EXT: ebits expected in one slot of a path with channels[k] channels on its k-th edge, of success probability p[k] or each of its own,
    and of `swap`, the success probability of every swap on the path or of each in turn.

    Raises ValueError naming the field for a probability outside [0, 1], a count that is not whole or negative, and lengths that do not match.
    """
    if not p or len(p) != len(channels):
        raise ValueError(f"channels must be of the same edges as p, one or more; got {len(channels)} for {len(p)}")
    tails: list[Sequence[float]] = []
    no_channels: Sequence[float] = ()
    for index, (chances, count) in enumerate(zip(p, channels, strict=True)):
        whole(f"channels[{index}]", count, 0, sys.maxsize)
        each = chances if isinstance(chances, Sequence) else (chances,)
        for chance in each:
            within(f"p[{index}]", chance, 0, 1)
        if isinstance(chances, Sequence):
            if len(chances) != count:
                raise ValueError(f"p[{index}] must have {count} figures, one per channel, got {len(chances)}")
            tails.append(reduce(_wider, chances, no_channels))
        else:
            tails.append(binomial_tails(count, chances))
    swaps = swap if isinstance(swap, Sequence) else (swap,) * (len(tails) - 1)
    if len(swaps) != len(tails) - 1:
        raise ValueError(f"swap must have {len(tails) - 1} figures, one per node between two edges, got {len(swaps)}")
    for success in swaps if isinstance(swap, Sequence) else (swap,):
        within("swap", success, 0, 1)
    return math.prod(swaps) * math.fsum(math.prod(chances) for chances in zip(*tails, strict=False))  # to the poorest edge's


def select(network: SlottedNetwork, requests: Sequence[tuple[int, int]]) -> list[Reservation]:
    """Paths and channels for the requests (source, destination) of one slot, from the network alone: nothing of the slot's links is known.

    Raises ValueError for a request whose ends are the same or are no nodes.
    """
    for index, (source, target) in enumerate(requests):
        if source == target or not (_is_node(source, network.qubits) and _is_node(target, network.qubits)):
            raise ValueError(f"requests[{index}] must join two of the nodes 0 .. {len(network.qubits) - 1}, got {source} and {target}")
    slot = _Slot(network)
    slot.reserve_paths(requests)
    slot.widen()
    return [
        Reservation(path.request, path.nodes, path.edges, tuple(tuple(chosen) for chosen in path.chosen), path.ebits) for path in slot.paths
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
    nodes: tuple[int, ...]
    edges: tuple[int, ...]
    chosen: list[list[int]]
    tails: list[Sequence[float]]
    """Per edge, of the channels chosen."""
    through: float
    """The chance that a chain's swaps all succeed."""
    ebits: float


class _Slot:
    """One slot's free qubits and channels, and the paths reserved so far."""

    def __init__(self, network: SlottedNetwork) -> None:
        self.network = network
        self.qubits = list(network.qubits)
        self.channels = [len(p) for p in network.p]
        self.tails = list(network.tails)
        """Per edge and number of its best free channels the chances of at least 1, 2, ... links."""
        self.paths: list[_Path] = []

    def reserve_paths(self, requests: Sequence[tuple[int, int]]) -> None:
        network = self.network
        hops = [network.hops_from(target) for _, target in requests]
        barred = [max(network.qubits, default=0) + 1] * len(requests)  # per request the least width known to have no path left
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
            if path is not None and self._fits(source, target, path, width) and self._as_good(source, path, width, ebits):
                self._reserve(index, source, path, width, ebits)
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

    def _as_good(self, source: int, path: Sequence[int], width: int, ebits: float) -> bool:
        """Whether the best free channels of a path that fits are those that it was found with, or as good."""
        network = self.network
        if all(network.alike[edge] for edge in path):
            return True
        rows = (self.tails[edge][width] for edge in path)
        return network.through(_nodes(network, source, path)) * sum(map(math.prod, zip(*rows, strict=True))) >= ebits * (1 - _ROUNDING)

    def _reserve(self, request: int, source: int, path: tuple[int, ...], width: int, ebits: float) -> None:
        nodes = _nodes(self.network, source, path)
        tails: list[Sequence[float]] = [self.tails[edge][width] for edge in path]
        chosen = [self._take(edge, width) for edge in path]
        self.paths.append(_Path(request, nodes, path, chosen, tails, self.network.through(nodes), ebits))
        for edge in path:
            if not self.network.alike[edge]:
                p = self.network.p[edge]
                self.tails[edge] = _tails_by_count(p[len(p) - self.channels[edge] :])

    def _take(self, index: int, count: int) -> list[int]:
        """The edge's best free channels, free no longer."""
        edge, first = self.network.edges[index], len(self.network.p[index]) - self.channels[index]
        self.channels[index] -= count
        self.qubits[edge.a] -= count
        self.qubits[edge.b] -= count
        return list(range(first, first + count))

    def _search(self, source: int, target: int, width: int, hops_left: Sequence[int]) -> tuple[float, tuple[int, ...]] | None:
        """A path of high EXT at that width: the paper's extended Dijkstra, directed to the target. A label is ranked by the EXT it would
        have if the fewest edges still to go were as good as the typical edge: a third faster, and as good within noise."""
        network, qubits, channels = self.network, self.qubits, self.channels
        if qubits[source] < width or qubits[target] < width:
            return None
        near, tails, ratio = network.near, self.tails, network.swap_ratio
        rest = network.rest(width)
        best = [0.0] * len(qubits)
        settled = [False] * len(qubits)
        queue: list[tuple[float, int, tuple[int, ...], Sequence[float], float]] = [(0.0, source, (), (), 1.0)]
        while queue:
            rank, here, path, chances, ratios = heapq.heappop(queue)
            if here == target:
                return -rank, path
            if settled[here]:
                continue
            settled[here] = True
            through = network.typical_swap ** len(path)
            for there, edge in near[here]:
                if settled[there] or channels[edge] < width:
                    continue
                if there != target and (qubits[there] < 2 * width or not ratio[there]):
                    continue
                row = tails[edge][width]
                product = list(map(mul, chances, row)) if path else row
                swaps = ratios if there == target else ratios * ratio[there]
                value = through * swaps * sum(map(mul, product, rest[hops_left[there]]))
                if value > best[there]:
                    best[there] = value
                    heapq.heappush(queue, (-value, there, (*path, edge), product, swaps))
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
            if not (self._free(edge) and network.alike[edge]):
                now = self._gains(path)
                if now[place] < gain:
                    gains[index] = now  # another path took it meanwhile, or the best of it
                    continue
            path.tails[place] = self._widened(path, place)
            path.chosen[place] += self._take(edge, 1)
            path.ebits += gain
            gains[index] = self._gains(path)

    def _free(self, index: int) -> bool:
        """Whether the edge has a free channel with qubits at both ends."""
        edge = self.network.edges[index]
        return self.channels[index] > 0 and self.qubits[edge.a] > 0 and self.qubits[edge.b] > 0

    def _widened(self, path: _Path, place: int) -> Sequence[float]:
        """The chances of at least 1, 2, ... links on one of the path's edges with the best free channel besides."""
        network, edge = self.network, path.edges[place]
        if network.alike[edge]:
            return network.tails[edge][len(path.chosen[place]) + 1]
        return _wider(path.tails[place], network.p[edge][-self.channels[edge]])

    def _gains(self, path: _Path) -> list[float]:
        """Ebits that one more channel on each of the path's edges would add; 0 where none is free."""
        rows = path.tails
        depth = min(map(len, rows)) + 1  # one more channel gives at most one more chain
        before = [(1.0,) * depth]
        for row in rows:
            before.append(tuple(map(mul, before[-1], row)))
        after: Sequence[float] = (1.0,) * depth
        gains = [0.0] * len(rows)
        for place in range(len(rows) - 1, -1, -1):
            if self._free(path.edges[place]):
                wider = self._widened(path, place)
                others = tuple(map(mul, before[place], after))
                gains[place] = path.through * (sum(map(mul, others, wider)) - sum(map(mul, others, rows[place])))
            after = tuple(map(mul, after, rows[place]))
        return gains
