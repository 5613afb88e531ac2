"""Hosts that are found at another port than before: their access link goes with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from controller.network.events import LinkAdded, LinkRemoved, LinkStateChanged, NetworkEvent
from controller.network.model import Link
from controller.network.topology import Topology

Place = tuple[str, int]
"""A switch and its port."""


def access_link(topology: Topology, host: str) -> Link | None:
    """The one link that joins a host and a switch; None when it has none, or several: such a host has no place of its own."""
    links: list[Link] = [data["link"] for _, _, data in topology.graph.edges(host, data=True) if data["link"].kind == "ethernet"]
    return links[0] if len(links) == 1 else None


def followed(topology: Topology, found: Mapping[str, Place]) -> list[tuple[str, list[NetworkEvent]]]:
    """Per access link that has moved, the events by which the network learns of it. `found` says where hosts were seen last, by name.

    A host is believed to have moved when its old port has no signal: while that is alive, whoever claims the host's address at another
    port may lie. The link keeps its id and its figures.
    """
    moves: list[tuple[str, list[NetworkEvent]]] = []
    for host, (switch, port) in sorted(found.items()):
        link = access_link(topology, host)
        if link is None or topology.up(link) or switch not in topology.graph:
            continue
        there = f"{switch}:{port}"
        if there in link.ends:
            continue
        ends = (link.ends[0], there) if link.a.node == host else (there, link.ends[1])
        moves.append((link.id, [LinkRemoved(link.id), LinkAdded(replace(link, ends=ends)), LinkStateChanged(link.id, up=True)]))
    return moves
