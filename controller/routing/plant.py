"""The optical plant as light sees it: ports, joined by glass between devices and by what lies inside a device.

Light alternates: it arrives at a port over glass, crosses the device, and leaves from another port over glass.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from controller.network.model import End, Link, Node, parse_end
from controller.network.topology import Topology

Port = tuple[str, str]
"""Node and port; the port of a QKD module or memory interface is the module's name."""
Medium = Literal["glass", "inside"]
Cost = tuple[int, int]
"""Loss in nano-dB, and number of hops. Whole numbers, so that equal paths compare equal whatever the order of their parts."""

NANO = 10**9
MAX_STEPS = 200_000
"""How many partial paths one search extends before it gives up; only plants with loops that force a detour come near."""


class TooManyPaths(Exception):
    """The search was given up after MAX_STEPS partial paths."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of light: over glass (`link` is the fibre's id, None for a patch cord) or inside a device."""

    to: Port
    medium: Medium
    loss_db: float
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Plant:
    """Where light can go from each port, over what is usable."""

    glass: dict[Port, list[Hop]] = field(default_factory=dict)
    inside: dict[Port, list[Hop]] = field(default_factory=dict)

    def hops(self, port: Port, medium: Medium) -> list[Hop]:
        return (self.glass if medium == "glass" else self.inside).get(port, [])

    def ports_of(self, node: str) -> list[Port]:
        return sorted((port for port in self.glass if port[0] == node), key=_order)


def build(topology: Topology, avoid: Collection[str] = ()) -> Plant:
    """The plant of usable fibres and enabled devices, without the nodes and links (by id) in `avoid`."""
    plant = Plant()
    fibres = list(topology.links("fibre", "free-space"))
    for link in fibres:
        figure = topology.figure(link, "loss_db")
        barred = link.id in avoid or any(name in avoid for name in link.nodes)
        if topology.usable(link) and not barred and figure is not None and figure.value >= 0:
            _join(plant, _port(link.a, link), _port(link.b, link), figure.value, link.id)
    leads = {(end.node, end.port) for link in fibres for end in (link.a, link.b)}
    for name, node in topology.nodes():
        for module_name, module in node.modules.items():
            # a fibre that ends at the module, up or down, is its lead; only without one there is a patch cord
            if module.port is not None and (name, module_name) not in leads:
                far = parse_end(module.port)
                if all(topology.node(each).admin == "enabled" and each not in avoid for each in (name, far.node)):
                    _join(plant, (name, module_name), (far.node, far.port or ""), 0.0, None)
    by_node: dict[str, list[Port]] = {}
    for port in plant.glass:
        by_node.setdefault(port[0], []).append(port)
    for name, ports in by_node.items():
        node = topology.node(name)
        for port in ports:
            crossings = ((other, crossing_loss_db(node, port[1], other[1])) for other in ports if other != port)
            hops = [Hop(other, "inside", loss) for other, loss in crossings if loss is not None]
            if hops:
                plant.inside[port] = hops
    return plant


def _port(end: End, link: Link) -> Port:
    """An end that names no port is a port of its own, named after the link: light ends there, and nothing else is attached."""
    return end.node, end.port or link.id


def _join(plant: Plant, a: Port, b: Port, loss_db: float, link: str | None) -> None:
    plant.glass.setdefault(a, []).append(Hop(b, "glass", loss_db, link))
    plant.glass.setdefault(b, []).append(Hop(a, "glass", loss_db, link))


def crossing_loss_db(node: Node, port: str, other: str) -> float | None:
    """Loss in dB from one port to another inside a device; None where no light passes."""
    if not (port.isdecimal() and other.isdecimal()):
        return None
    if node.kind == "passive":
        listed = node.losses_db.get(f"{port}-{other}", node.losses_db.get(f"{other}-{port}"))
        return node.insertion_loss_db if listed is None else listed
    if node.kind != "optical-switch":
        return None
    half = (node.ports or 0) // 2
    if node.sides != "single" and (int(port) <= half) == (int(other) <= half):
        return None
    return node.insertion_loss_db or 0.0


def _order(port: Port) -> tuple[str, int, str]:
    """Ports in the order of their numbers."""
    return port[0], len(port[1]), port[1]


def _cost(hop: Hop) -> Cost:
    return round(hop.loss_db * NANO), 1


def _to_go(plant: Plant, target: Port, taken: Collection[Port]) -> dict[tuple[Port, Medium], Cost]:
    """Least cost from each port to the target, by the medium of the next hop; ports may repeat, so it is a lower bound."""
    least: dict[tuple[Port, Medium], Cost] = {}
    queue: list[tuple[Cost, Port, Medium]] = [((0, 0), target, "glass"), ((0, 0), target, "inside")]
    while queue:
        cost, port, medium = heapq.heappop(queue)
        if (port, medium) in least:
            continue
        least[port, medium] = cost
        before: Medium = "inside" if medium == "glass" else "glass"
        for hop in plant.hops(port, before):  # hops are symmetric
            if hop.to not in taken and (hop.to, before) not in least:
                loss, count = _cost(hop)
                heapq.heappush(queue, ((cost[0] + loss, cost[1] + count), hop.to, before))
    return least


def least_loss(plant: Plant, source: Port, target: Port, taken: Collection[Port] = ()) -> tuple[Hop, ...] | None:
    """The path of least loss, then of fewest hops, then the first by port, that uses each port once and none of `taken`; None if there is none.

    A best-first search over simple paths, guided by the exact distance where ports may repeat: where no loop helps, and that is nearly
    everywhere, it walks straight to the target. Raises TooManyPaths.
    """
    if source in taken or target in taken or source == target:
        return None
    to_go = _to_go(plant, target, taken)
    queue: list[tuple[Cost, list[tuple[str, int, str]], int, tuple[Port, ...], tuple[Hop, ...], Medium, Cost]] = []
    pushed = 0

    def push(ports: tuple[Port, ...], hops: tuple[Hop, ...], medium: Medium, cost: Cost) -> None:
        nonlocal pushed
        rest = to_go.get((ports[-1], medium))
        if rest is not None:
            pushed += 1
            total = (cost[0] + rest[0], cost[1] + rest[1])
            heapq.heappush(queue, (total, [_order(port) for port in ports], pushed, ports, hops, medium, cost))

    push((source,), (), "glass", (0, 0))
    push((source,), (), "inside", (0, 0))
    while queue:
        _, _, _, ports, hops, medium, cost = heapq.heappop(queue)
        if ports[-1] == target:
            return hops
        if pushed > MAX_STEPS:
            raise TooManyPaths
        after: Medium = "inside" if medium == "glass" else "glass"
        for hop in plant.hops(ports[-1], medium):
            if hop.to not in ports and hop.to not in taken:
                loss, count = _cost(hop)
                push((*ports, hop.to), (*hops, hop), after, (cost[0] + loss, cost[1] + count))
    return None
