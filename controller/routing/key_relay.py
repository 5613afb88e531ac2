"""Key relay paths: the widest over trusted nodes, alone, as disjoint paths whose keys are combined by XOR, or as paths whose rates add up."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from controller.network.topology import Topology
from controller.physics.domain import whole
from controller.routing.keys import splitting
from controller.routing.keys.allocation import Flow
from controller.routing.keys.disjoint import PathSet, path_key
from controller.routing.keys.pools import time_to_empty_s
from controller.routing.keys.relay_paths import Search, width_of
from controller.routing.keys.segments import Segment, SegmentKind, Segments, key_segments, told_segment
from controller.routing.keys.supply import KeySupply, Wish, overdrawn, stored_key
from controller.routing.refusal import NoRoute

Preference = Literal["widest", "fewest-trusted-nodes"]
_ORDER: dict[Preference, str] = {
    "widest": "the widest, then with the fewest trusted nodes",
    "fewest-trusted-nodes": "with the fewest trusted nodes of those that carry the rate asked for, then the widest",
}


@dataclass(frozen=True, slots=True)
class KeyPath:
    nodes: tuple[str, ...]
    """All nodes, repeaters included."""
    links: tuple[str, ...]
    segments: tuple[str, ...]
    """`relay`, `entanglement` or `pool` for each key segment; a pool has no links."""
    rate_bps: float
    """What is not yet promised on its narrowest segment; of a split what it carries, beside the others."""

    def to_json(self) -> dict[str, object]:
        return {"nodes": list(self.nodes), "links": list(self.links), "segments": list(self.segments), "rate_bps": self.rate_bps}


@dataclass(frozen=True, slots=True)
class KeyRoute:
    paths: tuple[KeyPath, ...]
    rate_bps: float
    """Secret key that the ends can have: the least of the paths' rates, of a split their sum."""
    trusted_nodes: tuple[str, ...]
    """Every node that learns a share, or some of the keys, by name."""
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
    prefer: Preference = "widest",
    shares: int = 1,
    split: int = 1,
    max_trusted_nodes: int | None = None,
    avoid: Collection[str] = (),
    reserved: Mapping[str, float] | None = None,
    taken: Collection[tuple[str, str]] = frozenset(),
    segments: Collection[SegmentKind] = ("relay", "entanglement", "pool"),
    pool_bytes: Mapping[tuple[str, str], float] | None = None,
    minimum_bytes: float = 0.0,
    horizon_s: float = math.inf,
) -> KeyRoute:
    """The best way to relay key from `src` to `dst` that carries `rate_bps`.

    `prefer` says which is best: the widest and of these one with the fewest trusted nodes, or one with the fewest trusted nodes and of
    these the widest; then the one with the fewest links, then the first by name. Each further hop trusts one more node and spends key of
    one more link, so the widest is for who takes what there is, the other for who knows the rate that is needed.

    With `shares` above 1: so many paths of which no two share an interior node, an operator of one, a link or a shared risk, the least
    width is what counts. With `split` above 1: at most so many paths, which may share what they like, each for keys of its own; their rates
    add up, and whoever is trusted on any of them learns some keys, so no secrecy is added. `max_trusted_nodes` bounds the trusted nodes of all paths together. `avoid` names nodes and links, `reserved` is
    bit/s already promised per link id (a `Promised` is followed at the cost of what changes in it), `taken` are optical ports (node, port)
    that switched links cannot have. `segments` says of which kinds the path may be: a relay segment is a QKD link, a pool key in store where
    none is usable; of an entangled one, see `segments.key_segments`. Each switched link is judged by a lightpath of its own, not by whether
    several can be set at once.

    Rates are sustained ones unless they need hold for `horizon_s` only: then a link gives the pool of its pair of nodes as well,
    (`pool_bytes` - `minimum_bytes`) / `horizon_s`, see `supply.stored_key`. Of parallel links the widest does, whole, whatever the shares
    over them would gain otherwise. A pool outlasts its links and is a segment without them: KMEs relay from what they have in store.

    Raises NoRoute (`reachability`, `avoid`, `max_trusted_nodes`, `shares`, `rate_bps`), UnknownName, and ValueError for a number out of range,
    or for `shares` and `split` both above 1.
    """
    for name in (src, dst):
        topology.node(name)
    for name in avoid:
        topology.must_know(name)
    if prefer not in _ORDER:
        raise ValueError(f"prefer must be one of {', '.join(_ORDER)}, got {prefer!r}")
    if not rate_bps >= 0:
        raise ValueError(f"rate_bps must be at least 0, got {rate_bps!r}")
    for name, number, least in ("shares", shares, 1), ("split", split, 1), ("max_trusted_nodes", max_trusted_nodes or 0, 0):
        whole(name, number, least, 2**31)
    if shares > 1 and split > 1:
        raise ValueError(f"split must be 1 where shares is above 1, got {split} and {shares}: keys are combined or rates added, not both")
    for name in (src, dst):
        if not topology.node(name).holds_keys:
            raise NoRoute(f"{name} is of kind {topology.node(name).kind} and holds no keys", "reachability")
        if name in avoid:
            raise NoRoute(f"{name} is an end of the request and cannot be avoided", "avoid")
    if src == dst:
        raise NoRoute(f"{src} is both ends of the request", "reachability")

    promised = reserved or {}
    pools: dict[tuple[str, str], float] = {}
    if pool_bytes is not None or minimum_bytes != 0 or horizon_s != math.inf:
        stored = stored_key(topology, pool_bytes or {}, minimum_bytes=minimum_bytes, horizon_s=horizon_s, reserved=promised)
        pools = {(each.nodes[0], each.nodes[-1]): each.width_bps for each in stored}
    short = overdrawn(topology, promised) if pools and promised else {}
    alternatives = max(shares, split)

    def offered(avoid: Collection[str]) -> Segments:
        made = key_segments(topology, reserved=promised, avoid=avoid, taken=taken, alternatives=alternatives, kinds=segments)
        if not pools:
            return made
        left = {pair: width for pair, width in pools.items() if not set(avoid).intersection(pair)}
        return made.plus(left, alone="pool" in segments)

    every = offered(avoid)
    if split > 1:
        supply = KeySupply(topology, [wish := Wish(src, dst, max_trusted_nodes, frozenset(avoid))], offered)
        return _split(every, supply, wish, split, rate_bps, prefer, promised, horizon_s, short)
    search = Search(every, every.width, src, dst)
    found = search.fewest(rate_bps, shares, max_trusted_nodes) if prefer == "fewest-trusted-nodes" else PathSet(None, True)
    if found.paths is None:  # a refusal tells the widest
        found = search.widest(shares, max_trusted_nodes)
    if found.paths is not None and width_of(found.paths) >= rate_bps:
        return _route(every, found, promised, _ORDER[prefer], rate_bps, horizon_s, short)
    raise _refusal(search, (lambda: offered(())) if avoid else None, found, rate_bps, shares, max_trusted_nodes)


def _refusal(
    search: Search,
    without_avoid: Callable[[], Segments] | None,
    found: PathSet,
    rate_bps: float,
    shares: int,
    max_trusted_nodes: int | None,
) -> NoRoute:
    src, dst, gave_up = search.src, search.dst, " (the search met the bound on its effort)"

    def joined(every: Segments) -> bool:
        """Whether a path leads over segments with key or without."""
        return Search(every, every.there.astype(np.float64), src, dst).at(0.0, 1, None).paths is not None

    if not joined(search.segments):
        if without_avoid is not None and joined(without_avoid()):
            return NoRoute(f"every path from {src} to {dst} leads over what is to be avoided", "avoid")
        return NoRoute(f"no usable key links join {src} and {dst} over trusted nodes", "reachability")
    fewest = search.at(0.0, 1, None).paths
    if fewest is None:
        return NoRoute(f"every path from {src} to {dst} has a link without any key to give", "rate_bps", 0.0)
    if found.paths is not None:
        best = width_of(found.paths)
        paths = "path" if shares == 1 else f"{shares} disjoint paths"
        carry = f"can carry {best:.6g}" if found.proven else f"carry at least {best:.6g}"
        told = f"the widest {paths} from {src} to {dst} {carry} bit/s, {rate_bps:g} are asked for"
        return NoRoute(told if found.proven else told + gave_up, "rate_bps", best)
    trusted, least = len(fewest[0]) - 1, True
    if max_trusted_nodes is not None and trusted <= max_trusted_nodes:
        unbounded = search.at(0.0, shares, None)
        trusted, least = sum(len(path) - 1 for path in unbounded.paths) if unbounded.paths else -1, unbounded.proven
    if max_trusted_nodes is not None and trusted > max_trusted_nodes:
        takes = f"from {src} to {dst} takes at least" if least else f"the {shares} disjoint paths found from {src} to {dst} take"
        told = f"{takes} {trusted} trusted nodes, {max_trusted_nodes} are allowed"
        return NoRoute(told if least else told + gave_up, "max_trusted_nodes", float(trusted))
    most, proven = search.most_shares(shares)
    proven = proven and found.proven and least
    told = f"from {src} to {dst} there are {'' if proven else 'at least '}{most} paths disjoint by node, operator and shared risk"
    return NoRoute(f"{told}, {shares} are asked for{'' if proven else gave_up}", "shares", float(most))


def _route(
    every: Segments,
    found: PathSet,
    reserved: Mapping[str, float],
    order: str,
    rate_bps: float,
    horizon_s: float,
    short: Mapping[frozenset[str], float],
) -> KeyRoute:
    assert found.paths is not None
    width = width_of(found.paths)
    paths, trusted, explanation = [], set(), []
    for number, path in enumerate(found.paths, start=1):
        _, _, nodes, links = path_key(path)
        narrowest = min(path, key=lambda segment: segment.width_bps)
        paths.append(KeyPath(nodes, links, tuple(segment.kind for segment in path), narrowest.width_bps))
        relays = [segment.nodes[-1] for segment in path[:-1]]
        trusted.update(relays)
        explanation.append(f"path {number}: {' - '.join(nodes)}, trusting {', '.join(relays) or 'nobody'}")
        explanation += [line for segment in path for line in told_segment(every, segment, reserved)]
        explanation.append(f"binding: {narrowest.nodes[0]} -- {narrowest.nodes[-1]} with {narrowest.width_bps:.6g} bit/s")
    explanation += _emptied([(path, rate_bps or width) for path in found.paths], horizon_s, short)
    if len(found.paths) > 1 and every.stored:
        explanation.append("a pool counts with the widest link of its pair of nodes")
    explanation.append(f"chosen: {order}")
    if not found.proven:
        explanation.append("the search met the bound on its effort: a better set of paths may exist")
    return KeyRoute(tuple(paths), width, tuple(sorted(trusted)), tuple(explanation))


def _emptied(used: Iterable[tuple[Iterable[Segment], float]], horizon_s: float, short: Mapping[frozenset[str], float]) -> Iterator[str]:
    """How long the pools last that a route draws on, if so much is taken along its paths beside what promises take, all in bit/s."""
    taken: dict[frozenset[str], float] = {}
    drawn: dict[frozenset[str], Segment] = {}
    for path, rate_bps in used:
        for segment in path:
            if segment.pool_bps:
                drawn[pair := frozenset(segment.nodes)] = segment
                taken[pair] = taken.get(pair, 0.0) + rate_bps
    for pair, segment in drawn.items():
        promised = short.get(pair, 0.0)
        lasts_s = time_to_empty_s(
            pool_bits=(segment.pool_bps + promised) * horizon_s,
            consumption_bps=taken[pair] + promised,
            eskr_bps=max(0.0, segment.width_bps - segment.pool_bps),
        )
        lasts = "does not shrink" if lasts_s == math.inf else f"is down to its minimum after {lasts_s:.6g} s"
        beside = f" beside {promised:.6g} bit/s that are promised of it" if promised else ""
        yield f"the pool of {' -- '.join(segment.nodes)} {lasts} at {taken[pair]:.6g} bit/s{beside}"


def _split(
    every: Segments,
    supply: KeySupply,
    wish: Wish,
    paths: int,
    rate_bps: float,
    prefer: Preference,
    reserved: Mapping[str, float],
    horizon_s: float,
    short: Mapping[frozenset[str], float],
) -> KeyRoute:
    """The route over paths whose rates add up."""
    found = splitting.split(supply, wish, paths, rate_bps=rate_bps, prefer=prefer)
    along = [_segments(every, flow, wish.dst) for flow in found.flows]
    explanation = []
    for number, (flow, path) in enumerate(zip(found.flows, along, strict=True), start=1):
        carries = f"{flow.rate_bps:.6g} bit/s, trusting {', '.join(flow.trusted_nodes) or 'nobody'}"
        explanation.append(f"path {number}: {' - '.join(flow.nodes)}, carrying {carries}")
        explanation += [line for segment in path for line in told_segment(every, segment, reserved)]
    explanation.append(f"binding: nothing is left of {', '.join(found.full)}")
    share = min(1.0, rate_bps / found.rate_bps) if rate_bps else 1.0
    explanation += _emptied([(path, flow.rate_bps * share) for flow, path in zip(found.flows, along, strict=True)], horizon_s, short)
    if found.tight:
        explanation.append(f"{found.greatest_bps:.6g} bit/s is the most that {paths} paths can carry together")
    else:
        explanation.append(
            f"of the paths looked at {paths} carry {found.greatest_bps:.6g} bit/s; no {paths} paths carry more than {found.bound_bps:.6g}"
        )
    explanation.append("each key goes over one of the paths, and their rates add up; unlike with shares, no secrecy is added")
    explanation.append(f"chosen: {_ORDER[prefer]}{'' if found.proven else ', of the paths looked at'}")
    told = tuple(KeyPath(flow.nodes, flow.links, flow.segments, flow.rate_bps) for flow in found.flows)
    trusted = {name for flow in found.flows for name in flow.trusted_nodes}
    return KeyRoute(told, found.rate_bps, tuple(sorted(trusted)), tuple(explanation))


def _segments(every: Segments, flow: Flow, dst: str) -> list[Segment]:
    """The segments that a flow goes over."""
    found, at, gone = [], 0, 0
    for name, kind in zip((*flow.trusted_nodes, dst), flow.segments, strict=True):
        end = flow.nodes.index(name, at + 1)
        over = flow.links[gone : gone if kind == "pool" else gone + end - at]
        tail = every.number[flow.nodes[at]]
        leaving = [every.segment(edge, tail) for edge in every.edge[every.indptr[tail] : every.indptr[tail + 1]].tolist()]
        found.append(next(each for each in leaving if each.kind == kind and each.nodes[-1] == name and set(each.links) == set(over)))
        at, gone = end, gone + len(over)
    return found
