"""Hosts that are found at another port than before: their access link goes with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from controller.network.events import LinkAdded, LinkRemoved, LinkStateChanged, NetworkEvent
from controller.network.model import Link
from controller.network.topology import Topology


def access_link(topology: Topology, host: str) -> Link | None:
    """The one ethernet link of a host; None when it has none, or several: such a host has no place of its own."""
    links: list[Link] = [data["link"] for _, _, data in topology.graph.edges(host, data=True) if data["link"].kind == "ethernet"]
    return links[0] if len(links) == 1 else None


def place(link: Link, host: str) -> str:
    """Where a host's access link ends at a switch, as written: `s1:1`."""
    return link.ends[1] if link.a.node == host else link.ends[0]


def moved(link: Link, host: str, there: str) -> Sequence[NetworkEvent]:
    """What happens to a network whose host is at another port (`s3:1`): its access link joins that one, with the same id and figures."""
    ends = (link.ends[0], there) if link.a.node == host else (there, link.ends[1])
    return LinkRemoved(link.id), LinkAdded(replace(link, ends=ends)), LinkStateChanged(link.id, up=True)
