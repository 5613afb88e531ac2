"""Entangled pairs for many requests in one time slot: which links to join once it is known which channels gave one.

At every repeater of a path the i-th link before is joined with the i-th link after, so a path's poorest edge decides its chains and any
other edge may have links to spare. Where paths share an edge, what one cannot use another may. Both ends of the edge must come to the same
division without asking, so it rests only on what each of them has heard: the links of path edges at most k - 1 edges away, all of whose
ends are within k hops, the k of Q-CAST (Shi and Qian, SIGCOMM 2020; k = 3 there). No repeater knows whether a chain is whole.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from controller.routing.entangled.slotted import Reservation


def share_links(paths: Sequence[Reservation], links: Sequence[Sequence[int]], k: int = 3) -> list[tuple[int, ...]]:
    """Links that each path may use on each of its edges, of those that its own channels gave (`links`, in the same order).

    A path wants as many on an edge as its poorest other edge within k - 1 edges has, a path of one edge all it can get. Surplus goes to the
    wanting paths, the shortest first. Neither the links of an edge nor what a path of its own could use get fewer. With k < 2 nothing is
    shared. A path delivers the least of its figures, times the chance that all its swaps succeed. Raises ValueError where `links` exceeds
    or does not match the reserved channels.
    """
    users: dict[int, list[tuple[int, int]]] = {}
    for index, (path, own) in enumerate(zip(paths, links, strict=True)):
        for place, (edge, count, channels) in enumerate(zip(path.edges, own, path.channels, strict=True)):
            if not 0 <= count <= channels:
                raise ValueError(f"links[{index}][{place}] must be in 0 .. {channels}, the channels reserved there; got {count}")
            users.setdefault(edge, []).append((index, place))
    shared = [list(own) for own in links]
    if k < 2:
        return [tuple(own) for own in shared]
    for edge_users in users.values():
        wanted = {(index, place): _wanted(links[index], place, k - 1) for index, place in edge_users}
        for index, place in edge_users:
            shared[index][place] = min(links[index][place], wanted[index, place])
        spare = sum(links[index][place] - shared[index][place] for index, place in edge_users)
        edge_users.sort(key=lambda user: len(paths[user[0]].edges))
        # a path whose other edge is raised may use its surplus after all, so what nobody wants goes back
        for goal in (wanted, {(index, place): links[index][place] for index, place in edge_users}):
            for index, place in edge_users:
                extra = max(0, min(spare, goal[index, place] - shared[index][place]))
                shared[index][place] += extra
                spare -= extra
    return [tuple(own) for own in shared]


def _wanted(own: Sequence[int], place: int, reach: int) -> int:
    others = (*own[max(0, place - reach) : place], *own[place + 1 : place + reach + 1])
    return min(others, default=sys.maxsize)
