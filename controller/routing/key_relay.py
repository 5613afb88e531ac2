"""Key relay paths: the widest over trusted nodes, alone or as several disjoint paths whose keys are combined by XOR."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from controller.network.topology import Topology, UnknownName
from controller.routing.disjoint import Path, PathKey, PathSet, disjoint_paths, path_key
from controller.routing.refusal import NoRoute
from controller.routing.segments import RELAYS, Segment, key_segments


@dataclass(frozen=True, slots=True)
class KeyPath:
    nodes: tuple[str, ...]
    """All nodes, repeaters included."""
    links: tuple[str, ...]
    segments: tuple[str, ...]
    """`relay` or `entanglement` for each key segment."""
    rate_bps: float
    """What is not yet promised on its narrowest segment."""

    def to_json(self) -> dict[str, object]:
        return {"nodes": list(self.nodes), "links": list(self.links), "segments": list(self.segments), "rate_bps": self.rate_bps}


@dataclass(frozen=True, slots=True)
class KeyRoute:
    paths: tuple[KeyPath, ...]
    rate_bps: float
    """Secret key that the ends can have: the least of the paths' rates."""
    trusted_nodes: tuple[str, ...]
    """Every node that learns a share, by name."""
    explanation: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "paths": [path.to_json() for path in self.paths],
            "rate_bps": self.rate_bps,
            "trusted_nodes": list(self.trusted_nodes),
            "explanation": list(self.explanation),
        }


def key(
    topology: Topology,
    src: str,
    dst: str,
    *,
    rate_bps: float = 0.0,
    shares: int = 1,
    max_trusted_nodes: int | None = None,
    avoid: Collection[str] = (),
    reserved: Mapping[str, float] | None = None,
    taken: Collection[tuple[str, str]] = frozenset(),
) -> KeyRoute:
    """The widest way to relay key from `src` to `dst`; then with the fewest trusted nodes, then the fewest links, then first by name.

    With `shares` above 1: so many paths of which no two share an interior node, an operator of one, a link or a shared risk, the least
    width as large as can be. `max_trusted_nodes` bounds the trusted nodes of all paths together. `avoid` names nodes and links,
    `reserved` is bit/s already promised per link id, `taken` are optical ports (node, port) that switched links cannot have.
    A relay segment is a QKD link; of an entangled one, see `segments.key_segments`. Each switched link is judged by a lightpath of its
    own, not by whether several can be set at once. Rates are sustained ones: pools are not counted.

    Raises NoRoute (`reachability`, `avoid`, `max_trusted_nodes`, `shares`, `rate_bps`), UnknownName, and ValueError for a number out of range.
    """
    for name in (src, dst):
        topology.node(name)
    link_ids = {link.id for link in topology.links()}
    for name in avoid:
        if name not in topology.graph and name not in link_ids:
            raise UnknownName("node or link", name, [*topology.graph, *link_ids])
    if not rate_bps >= 0 or shares < 1 or (max_trusted_nodes is not None and max_trusted_nodes < 0):
        raise ValueError("rate_bps must be at least 0, shares at least 1, max_trusted_nodes at least 0")
    for name in (src, dst):
        if not topology.node(name).holds_keys:
            raise NoRoute(f"{name} is of kind {topology.node(name).kind} and holds no keys", "reachability")
        if name in avoid:
            raise NoRoute(f"{name} is an end of the request and cannot be avoided", "avoid")
    if src == dst:
        raise NoRoute(f"{src} is both ends of the request", "reachability")

    promised = reserved or {}
    every = key_segments(topology, reserved=promised, avoid=avoid, taken=taken, alternatives=shares)
    search = _Search(topology, src, dst, tuple(segment for segment in every if segment.width_bps > 0))
    found = search.widest(shares, max_trusted_nodes)
    if found.paths is not None and _width(found.paths) >= rate_bps:
        return _route(topology, found)
    without = partial(key_segments, topology, reserved=promised, taken=taken)
    raise _refusal(search, every, without if avoid else None, found, rate_bps, shares, max_trusted_nodes)


@dataclass(frozen=True, slots=True)
class _Search:
    topology: Topology
    src: str
    dst: str
    segments: tuple[Segment, ...]

    def may_relay(self, name: str) -> bool:
        return self.topology.node(name).kind in RELAYS

    def operator(self, name: str) -> str | None:
        return self.topology.node(name).operator

    def neighbours(self, width_bps: float = 0.0) -> dict[str, list[Segment]]:
        """The segments at least that wide, by the node they leave."""
        leaving: dict[str, list[Segment]] = {}
        for segment in self.segments:
            if segment.width_bps >= width_bps:
                for oriented in (segment, segment.reversed()):
                    leaving.setdefault(oriented.nodes[0], []).append(oriented)
        return leaving

    def at(self, width_bps: float, shares: int, max_trusted_nodes: int | None) -> PathSet:
        """The paths with the fewest trusted nodes, then links, over segments at least that wide."""
        leaving = self.neighbours(width_bps)
        if shares == 1:
            path = _smallest(leaving, self.src, self.dst, self.may_relay)
            if path is None or (max_trusted_nodes is not None and len(path) - 1 > max_trusted_nodes):
                return PathSet(None, True)
            nodes = path_key(path)[2]
            if len(set(nodes)) == len(nodes):
                return PathSet((path,), True)
            # two entangled segments over one repeater: its links would be counted twice
        bounds = partial(disjoint_paths, max_trusted_nodes=max_trusted_nodes, may_relay=self.may_relay, operator=self.operator)
        return bounds(leaving, self.src, self.dst, shares)

    def widest(self, shares: int, max_trusted_nodes: int | None) -> PathSet:
        """The same at the largest width that has them. Every path of one width is one of each lesser width, so bisection is exact."""
        widths = sorted({segment.width_bps for segment in self.segments})
        best, proven = PathSet(None, True), True
        low, high = 0, len(widths)
        while low < high:
            middle = low if best.paths is None and low == 0 and high == len(widths) else (low + high) // 2
            found = self.at(widths[middle], shares, max_trusted_nodes)
            proven = proven and found.proven
            if found.paths is None:
                high = middle
            else:
                best, low = found, middle + 1
        return PathSet(best.paths, proven)

    def most_shares(self, below: int) -> int:
        """How many disjoint paths there are, at most `below` - 1."""
        most = min(below - 1, len(self.neighbours().get(self.src, ())))
        return next((shares for shares in range(most, 0, -1) if self.at(0.0, shares, None).paths is not None), 0)


def _smallest(leaving: Mapping[str, Sequence[Segment]], src: str, dst: str, may_relay: Callable[[str], bool]) -> Path | None:
    """The path of fewest segments, then links, then first by name: Dijkstra, as the order of paths is that of what they are made of."""
    queue: list[tuple[PathKey, Path]] = [(path_key((segment,)), (segment,)) for segment in leaving.get(src, ())]
    heapq.heapify(queue)
    settled = {src}
    while queue:
        _, path = heapq.heappop(queue)
        here = path[-1].nodes[-1]
        if here == dst:
            return path
        if here in settled or not may_relay(here):
            continue
        settled.add(here)
        for segment in leaving.get(here, ()):
            if segment.nodes[-1] not in settled:
                longer = (*path, segment)
                heapq.heappush(queue, (path_key(longer), longer))
    return None


def _width(paths: Iterable[Path]) -> float:
    return min(segment.width_bps for path in paths for segment in path)


def _refusal(
    search: _Search,
    every: Sequence[Segment],
    without_avoid: Callable[[], list[Segment]] | None,
    found: PathSet,
    rate_bps: float,
    shares: int,
    max_trusted_nodes: int | None,
) -> NoRoute:
    src, dst, gave_up = search.src, search.dst, "" if found.proven else " (found within the bound on the search's effort)"

    def smallest(segments: Iterable[Segment]) -> tuple[Path, ...] | None:
        return _Search(search.topology, src, dst, tuple(segments)).at(0.0, 1, None).paths

    if smallest(every) is None:
        if without_avoid is not None and smallest(without_avoid()) is not None:
            return NoRoute(f"every path from {src} to {dst} leads over what is to be avoided", "avoid")
        return NoRoute(f"no usable key links join {src} and {dst} over trusted nodes", "reachability")
    fewest = smallest(search.segments)
    if fewest is None:
        return NoRoute(f"every path from {src} to {dst} has a link without any key to give", "rate_bps", 0.0)
    if found.paths is not None:
        best = _width(found.paths)
        paths = "path" if shares == 1 else f"{shares} disjoint paths"
        return NoRoute(
            f"the widest {paths} from {src} to {dst} can carry {best:.6g} bit/s, {rate_bps:g} are asked for{gave_up}", "rate_bps", best
        )
    trusted = len(fewest[0]) - 1
    if max_trusted_nodes is not None and trusted <= max_trusted_nodes:
        unbounded = search.at(0.0, shares, None).paths
        trusted = sum(len(path) - 1 for path in unbounded) if unbounded else -1
    if max_trusted_nodes is not None and trusted > max_trusted_nodes:
        asked = f"{max_trusted_nodes} are allowed"
        return NoRoute(f"from {src} to {dst} takes at least {trusted} trusted nodes, {asked}{gave_up}", "max_trusted_nodes", float(trusted))
    most = search.most_shares(shares)
    disjoint = "disjoint by node, operator and shared risk"
    return NoRoute(f"from {src} to {dst} there are {most} paths {disjoint}, {shares} are asked for{gave_up}", "shares", float(most))


def _route(topology: Topology, found: PathSet) -> KeyRoute:
    assert found.paths is not None
    paths, trusted, explanation = [], set(), []
    for number, path in enumerate(found.paths, start=1):
        _, _, nodes, links = path_key(path)
        narrowest = min(path, key=lambda segment: segment.width_bps)
        paths.append(KeyPath(nodes, links, tuple(segment.kind for segment in path), narrowest.width_bps))
        relays = [segment.nodes[-1] for segment in path[:-1]]
        trusted.update(relays)
        explanation.append(f"path {number}: {' - '.join(nodes)}, trusting {', '.join(relays) or 'nobody'}")
        explanation += [line for segment in path for line in segment.explanation]
        explanation.append(f"binding: {narrowest.nodes[0]} -- {narrowest.nodes[-1]} with {narrowest.width_bps:.6g} bit/s")
    if not found.proven:
        explanation.append("the search met the bound on its effort: a wider set of paths may exist")
    return KeyRoute(tuple(paths), _width(found.paths), tuple(sorted(trusted)), tuple(explanation))
