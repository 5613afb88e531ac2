"""Sets of key paths of which no two share an interior node, an operator of one, a link or a shared risk.

Without operators and shared risks it is a flow of least cost, see `flow`. With them it is NP-hard (Hu, Proc. DRCN 2003): where the flow's
paths happen to be disjoint in these too they are the optimum; else all paths are searched, exactly within a bound on effort, and it is said
when that was met.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations

from controller.routing.keys.segments import Segment

MAX_PATH_STEPS = 20_000
"""Partial paths that one search extends."""
MAX_SET_STEPS = 500_000
"""Paths that one search tries to add to a set."""

Path = tuple[Segment, ...]
Leaving = Callable[[str], Sequence[Segment]]
"""The segments that leave a node, oriented away from it."""
PathKey = tuple[int, int, tuple[str, ...], tuple[str, ...]]


def path_key(path: Path) -> PathKey:
    """The order of paths of one width: fewest segments (that is, trusted nodes), fewest links (a pool is as one), then by name."""
    nodes = (path[0].nodes[0], *(name for segment in path for name in segment.nodes[1:]))
    links = tuple(link for segment in path for link in segment.links)
    return len(path), sum(len(segment.links) or 1 for segment in path), nodes, links


@dataclass(frozen=True, slots=True)
class PathSet:
    """The best set that was found, None if none was; `proven` when the whole space was searched."""

    paths: tuple[Path, ...] | None
    proven: bool


def disjoint_paths(
    relaxed: tuple[Path, ...] | None,
    leaving: Leaving,
    to_go: Callable[[str], int],
    src: str,
    dst: str,
    shares: int,
    *,
    max_trusted_nodes: int | None,
    may_relay: Callable[[str], bool],
    operator: Callable[[str], str | None],
    risks: Callable[[Segment], frozenset[str]],
) -> PathSet:
    """`shares` pairwise disjoint paths with the fewest trusted nodes in all, then the fewest links, over the segments given.

    `relaxed` is the answer, if there is one, where no two paths share a relaying node; `to_go` the number of segments from a node to `dst`,
    negative where none lead.
    """
    if relaxed is None or (max_trusted_nodes is not None and sum(len(path) - 1 for path in relaxed) > max_trusted_nodes):
        return PathSet(None, True)
    if _all_disjoint([_marks(path, operator, risks) for path in relaxed]) and all(simple(path) for path in relaxed):
        return PathSet(relaxed, True)
    paths, complete = _simple_paths(leaving, to_go, src, dst, max_trusted_nodes, may_relay)
    marks = [_marks(path, operator, risks) for path in paths]
    sizes = [(len(path) - 1, path_key(path)[1]) for path in paths]
    fewest_links = list(accumulate((links for _, links in reversed(sizes)), min))[::-1]
    best: tuple[tuple[int, int], tuple[int, ...]] | None = None
    steps = 0

    def extend(chosen: tuple[int, ...], total: tuple[int, int], used: frozenset[tuple[str, str]]) -> None:
        nonlocal best, steps
        if len(chosen) == shares:
            if best is None or total < best[0]:
                best = total, chosen
            return
        missing = shares - len(chosen)
        for index in range(chosen[-1] + 1 if chosen else 0, len(paths)):
            steps += 1
            # paths come in the order of their sizes, so the rest of the set is at least as large
            least = total[0] + missing * sizes[index][0], total[1] + missing * fewest_links[index]
            beaten = best is not None and least >= best[0]
            if steps > MAX_SET_STEPS or beaten or (max_trusted_nodes is not None and least[0] > max_trusted_nodes):
                return
            if used.isdisjoint(marks[index]):
                extend((*chosen, index), (total[0] + sizes[index][0], total[1] + sizes[index][1]), used | marks[index])

    extend((), (0, 0), frozenset())
    proven = complete and steps <= MAX_SET_STEPS
    return PathSet(None if best is None else tuple(paths[index] for index in best[1]), proven)


def _all_disjoint(marks: Sequence[frozenset[tuple[str, str]]]) -> bool:
    return all(one.isdisjoint(other) for one, other in combinations(marks, 2))


def simple(path: Path) -> bool:
    nodes = path_key(path)[2]
    return len(set(nodes)) == len(nodes)


def _marks(path: Path, operator: Callable[[str], str | None], risks: Callable[[Segment], frozenset[str]]) -> frozenset[tuple[str, str]]:
    """What no other path of the set may have as well."""
    nodes = path_key(path)[2][1:-1]
    operators = (operator(name) for name in nodes)
    return frozenset(
        [("node", name) for name in nodes]
        + [("operator", name) for name in operators if name is not None]
        + [("risk", risk) for segment in path for risk in risks(segment)]
    )


def _simple_paths(
    leaving: Leaving, to_go: Callable[[str], int], src: str, dst: str, max_trusted_nodes: int | None, may_relay: Callable[[str], bool]
) -> tuple[list[Path], bool]:
    """Simple paths in the order of `path_key`, and whether these are all. Best first, guided by the number of segments still to go."""
    queue: list[tuple[int, PathKey, Path]] = []

    def push(paths: Iterable[Path]) -> None:
        for path in paths:
            here = path[-1].nodes[-1]
            rest = to_go(here) if here == dst or may_relay(here) else -1
            if rest >= 0 and (max_trusted_nodes is None or len(path) + rest - 1 <= max_trusted_nodes):
                heapq.heappush(queue, (len(path) + rest, path_key(path), path))

    push((segment,) for segment in leaving(src) if segment.nodes[-1] != src)
    found: list[Path] = []
    steps = 0
    while queue:
        _, _, path = heapq.heappop(queue)
        here = path[-1].nodes[-1]
        if here == dst:
            found.append(path)
            continue
        steps += 1
        if steps > MAX_PATH_STEPS:
            return sorted(found, key=path_key), False
        seen = {name for segment in path for name in segment.nodes}
        push((*path, segment) for segment in leaving(here) if seen.isdisjoint(segment.nodes[1:]))
    return sorted(found, key=path_key), True
