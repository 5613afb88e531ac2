"""Q-CAST as published (Shi and Qian, "Concurrent Entanglement Routing for Quantum Networks", SIGCOMM 2020), to be compared with.

Faithful to the paper and to how its authors' implementation behaves:
- Selection (P2): for each pair the largest width with a feasible path, from the free qubits of the ends downwards; at that width the path
  of highest EXT by the extended Dijkstra (G-EDA); the pair of highest EXT is reserved; until no pair has a path. All paths of a pair count.
- Recovery paths: for each major path and l = 1..k hops (k = 3), for each two of its nodes l hops apart, one more path found the same way.
- Swapping (P4): a major path of width W is W unit paths repaired one after the other; a broken edge takes the first live recovery path that
  spans it and covers no edge repaired already, joined to the unit path by exclusive or of their edges; then every repeater joins its first
  unswapped live links to the unit path's neighbours, whichever path reserved them. What counts is live chains that end at both ends.
- Defaults: q = 0.9 and alpha come with the topology. The authors' maxSearchHops = 15 is read by their offline algorithms only, Q-CAST's
  search has no limit on hops; none is applied here.

Different, in the baseline's favour: an edge counts as broken for unit i only if fewer live links remain on it than that unit needs, and a
recovery path is only taken while it is live on all its edges (the paper's text); the authors' code takes an edge with one dead channel as
broken and does not look whether the recovery path is live. Different, without effect: a pair's candidate is searched again only once it has
become infeasible (resources only shrink, so a feasible one is still the answer).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

Edge = tuple[int, int]
Path = tuple[int, ...]


@dataclass(frozen=True)
class Picked:
    ext: float
    width: int
    path: Path


def _key(a: int, b: int) -> Edge:
    return (a, b) if a < b else (b, a)


def _hops(path: Sequence[int]) -> list[Edge]:
    return [_key(a, b) for a, b in pairwise(path)]


class QCast:
    """One network's Q-CAST. `plan` is P2, `settle` is P4; both start from a network in which nothing is reserved."""

    def __init__(self, qubits: Sequence[int], edges: Sequence[tuple[int, int, int, float]], q: float, k: int = 3) -> None:
        self.qubits, self.q, self.k = list(qubits), q, k
        self.channels = {_key(a, b): channels for a, b, channels, _ in edges}
        self.p = {_key(a, b): p for a, b, _, p in edges}
        self.near: list[list[int]] = [[] for _ in qubits]
        for a, b, _, _ in edges:
            self.near[a].append(b)
            self.near[b].append(a)
        widest = max(self.channels.values())
        self.mass = {
            (edge, w): [math.comb(w, i) * p**i * (1 - p) ** (w - i) for i in range(w + 1)]
            for edge, p in self.p.items()
            for w in range(1, widest + 1)
        }

    def plan(self, pairs: Sequence[Edge]) -> tuple[list[Picked], dict[int, list[Picked]], dict[Edge, int]]:
        """Major paths, recovery paths by position of the major path, and the channels reserved on each edge."""
        self.free_qubits, self.free_channels = list(self.qubits), dict(self.channels)
        majors: list[Picked] = []
        found: dict[Edge, Picked | None] = {}
        while True:
            for pair in pairs:
                held = found.get(pair)
                if pair not in found or (held is not None and not self._fits(held)):
                    found[pair] = self._candidate(*pair)
            best = max((each for each in (found[pair] for pair in pairs) if each is not None), key=lambda each: each.ext, default=None)
            if best is None:
                break
            self._reserve(best)
            majors.append(best)
        recovery: dict[int, list[Picked]] = {i: [] for i in range(len(majors))}
        for i, major in enumerate(majors):
            for apart in range(1, self.k + 1):
                for start in range(len(major.path) - apart):
                    candidate = self._candidate(major.path[start], major.path[start + apart])
                    if candidate is not None:
                        self._reserve(candidate)
                        recovery[i].append(candidate)
        return majors, recovery, {edge: self.channels[edge] - free for edge, free in self.free_channels.items()}

    def _fits(self, picked: Picked) -> bool:
        path, w = picked.path, picked.width
        return (
            min(self.free_qubits[path[0]], self.free_qubits[path[-1]]) >= w
            and all(self.free_qubits[node] >= 2 * w for node in path[1:-1])
            and all(self.free_channels[edge] >= w for edge in _hops(path))
        )

    def _reserve(self, picked: Picked) -> None:
        for edge in _hops(picked.path):
            self.free_channels[edge] -= picked.width
            for node in edge:
                self.free_qubits[node] -= picked.width

    def _candidate(self, src: int, dst: int) -> Picked | None:
        most = min(self.free_qubits[src], self.free_qubits[dst])
        for width in range(most, 0, -1):
            if max((self.free_channels[_key(src, n)] for n in self.near[src]), default=0) < width:
                continue
            picked = self._search(src, dst, width)
            if picked is not None:
                return picked
        return None

    def _search(self, src: int, dst: int, width: int) -> Picked | None:
        """Extended Dijkstra: labels carry the distribution of the least number of live channels on any edge so far."""
        best = [-1.0] * len(self.qubits)
        queue: list[tuple[float, int, Path, list[float]]] = [(-math.inf, src, (src,), [])]
        settled: set[int] = set()
        while queue:
            ext, here, path, before = heapq.heappop(queue)
            if here in settled:
                continue
            settled.add(here)
            if here == dst:
                return Picked(-ext, width, path)
            for there in self.near[here]:
                edge = _key(here, there)
                if (
                    there in settled
                    or self.free_channels[edge] < width
                    or (there not in (src, dst) and self.free_qubits[there] < 2 * width)
                ):
                    continue
                least = self._least(before, self.mass[edge, width])
                value = self.q ** (len(path) - 1) * sum(i * chance for i, chance in enumerate(least))
                if value > best[there]:
                    best[there] = value
                    heapq.heappush(queue, (-value, there, (*path, there), least))
        return None

    @staticmethod
    def _least(before: list[float], mass: list[float]) -> list[float]:
        """P_k^i = P_{k-1}^i sum_{l >= i} Q_k^l + Q_k^i sum_{l > i} P_{k-1}^l."""
        if not before:
            return mass
        least = [0.0] * len(mass)
        above_before = above_mass = 0.0
        for i in range(len(mass) - 1, -1, -1):
            above_mass += mass[i]
            least[i] = before[i] * above_mass + mass[i] * above_before
            above_before += before[i]
        return least

    def settle(
        self,
        pairs: Sequence[Edge],
        majors: Sequence[Picked],
        recovery: dict[int, list[Picked]],
        live: dict[Edge, list[int]],
        swaps: Callable[[int], bool],
    ) -> int:
        """Ebits delivered. `live[edge]` are the live channels among those reserved; `swaps(node)` is the outcome of the node's next swap."""
        used: dict[tuple[Edge, int], int] = {(edge, node): 0 for edge in live for node in edge}  # live links swapped at that end
        joined: dict[tuple[Edge, int, int], tuple[Edge, int]] = {}  # (edge, link, node) -> the link it is swapped with

        for i, major in enumerate(majors):
            spares = sorted(recovery[i], key=lambda each: (len(each.path), major.path.index(each.path[0])))
            for _ in range(major.width):
                path = self._repaired(major.path, spares, live, used)
                for prev, node, after in zip(path, path[1:], path[2:]):  # noqa: B905
                    left, right = _key(prev, node), _key(node, after)
                    a, b = used[left, node], used[right, node]
                    if a < len(live[left]) and b < len(live[right]):
                        used[left, node] += 1
                        used[right, node] += 1
                        if swaps(node):
                            joined[left, live[left][a], node] = (right, live[right][b])
                            joined[right, live[right][b], node] = (left, live[left][a])
        return sum(self._chains(src, dst, live, used, joined) for src, dst in pairs)

    def _repaired(self, path: Path, spares: Sequence[Picked], live: dict[Edge, list[int]], used: dict[tuple[Edge, int], int]) -> Path:
        def left(edge: Edge) -> int:
            return min(len(live[edge]) - used[edge, node] for node in edge)

        hops = _hops(path)
        broken = [i for i, edge in enumerate(hops) if left(edge) < 1]
        repaired: set[int] = set()
        taken: list[Picked] = []
        for i in broken:
            if i in repaired:
                continue
            for spare in sorted(spares, key=lambda each: (path.index(each.path[0]), path.index(each.path[-1]))):
                start, end = path.index(spare.path[0]), path.index(spare.path[-1])
                covers = {j for j in broken if start <= j < end}
                overlaps = any(path.index(other.path[0]) < end and start < path.index(other.path[-1]) for other in taken)
                if i in covers and not overlaps and all(left(edge) >= 1 for edge in _hops(spare.path)):
                    taken.append(spare)
                    repaired |= covers
                    break
            else:
                break
        result = path
        for spare in taken:
            if not {spare.path[0], spare.path[-1]} <= set(result):
                continue  # an earlier repair led around it
            start, end = sorted((result.index(spare.path[0]), result.index(spare.path[-1])))
            cut = result[start : end + 1]
            mixed = set(_hops(result)) - set(_hops(cut)) | set(_hops(spare.path))
            result = self._fewest(mixed, path[0], path[-1])
        return result

    @staticmethod
    def _fewest(edges: set[Edge], src: int, dst: int) -> Path:
        paths, seen = [(src,)], {src}
        for path in paths:
            if path[-1] == dst:
                return path
            for edge in sorted(edges):
                if path[-1] in edge:
                    there = sum(edge) - path[-1]
                    if there not in seen:
                        seen.add(there)
                        paths.append((*path, there))
        raise AssertionError("the exclusive or of a path and its repairs joins its ends")

    def _chains(
        self,
        src: int,
        dst: int,
        live: dict[Edge, list[int]],
        used: dict[tuple[Edge, int], int],
        joined: dict[tuple[Edge, int, int], tuple[Edge, int]],
    ) -> int:
        total = 0
        for near in self.near[src]:
            edge = _key(src, near)
            for link in live[edge][used[edge, src] :]:
                step, at = (edge, link), near
                while at != dst:
                    following = joined.get((*step, at))
                    if following is None:
                        break
                    step = following
                    at = sum(step[0]) - at
                total += at == dst and used[step[0], dst] <= live[step[0]].index(step[1])
        return total
