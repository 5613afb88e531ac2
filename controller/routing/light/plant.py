"""The optical plant as light sees it: glass between ports, and the switches, filters and splitters it leads through.

Light alternates: it arrives at a port over glass, crosses the device, and leaves from another port over glass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from controller.network.model import Channel, End, Link, Module, Node, parse_end
from controller.network.topology import Figure, Topology
from controller.physics.fibre import FIBRE_LOSS_DB_PER_KM

Port = tuple[str, str]
"""Node and port; the port of a module is the module's name."""
Medium = Literal["glass", "inside"]
Vertex = tuple[str, str]
"""Where light is before it leaves a device. Optical switch: the side it leaves by ("" when single-sided); wavelength switch: "";
passive: the port it came by."""
Band = tuple[int, int]
"""Lowest and highest frequency in MHz."""

NANO = 10**9
_ANY_KNOWN: Band = (0, 10**12)
LIGHT_MHZ_NM = 299_792_458_000


def mhz_of(wavelength_nm: float) -> int:
    """Frequency in MHz, rounded: whole numbers, so that distances between channels compare exactly."""
    return round(LIGHT_MHZ_NM / wavelength_nm)


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of light: over glass (`link` is the fibre's id, None for a patch cord) or inside a device."""

    to: Port
    medium: Medium
    loss_db: float
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Glass:
    """A fibre, a free-space link or a patch cord (`link` is None) between two ports."""

    a: Port
    b: Port
    loss_db: float = 0.0
    link: str | None = None
    length_km: float = 0.0
    loss_db_per_km: float = FIBRE_LOSS_DB_PER_KM
    raman: Figure | None = None
    channels: tuple[Channel, ...] = ()
    """Data channels of others; forward is from `a` to `b`."""

    def oriented(self, *, forward: bool) -> tuple[Port, Port]:
        return (self.a, self.b) if forward else (self.b, self.a)

    def far(self, port: Port) -> Port:
        return self.b if port == self.a else self.a


@dataclass(frozen=True, slots=True)
class Group:
    """Glass that is all the same to light: parallel trunks of equal loss and make between the same sides of two optical switches.

    All other glass is alone in its group; `pooled` says that any trunk of the group will do.
    """

    number: int
    trunks: tuple[Glass, ...]
    pooled: bool

    @property
    def loss_db(self) -> float:
        return self.trunks[0].loss_db

    def take(self, used: set[Port], taken: Collection[Port] = ()) -> Glass:
        """The first trunk without a used or taken port, which is then used; the only one of its group in any case."""
        glass = self.trunks[0]
        if len(self.trunks) > 1:
            glass = next(each for each in self.trunks if not any(port in used or port in taken for port in (each.a, each.b)))
        used.update((glass.a, glass.b))
        return glass


@dataclass(frozen=True, slots=True)
class Leave:
    """How light at a vertex can leave by a certain port: loss inside the device, and the bands it must be in."""

    vertex: Vertex
    inside_db: float
    bands: tuple[Band, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """Out of a device and over a group of glass to the next one."""

    leave: Leave
    group: Group
    forward: bool
    """Whether from the `a` of its trunks to the `b`."""
    to: Vertex


class Survey:
    """What a topology says of its plant: one pass over it, kept with the topology, followed by what changed since."""

    def __init__(self, topology: Topology) -> None:
        self.structure, self.revision = topology.structure, topology.revision
        self.devices = dict(topology.nodes("optical-switch", "wavelength-switch", "passive"))
        self.modules: dict[Port, Module] = {
            (name, each): module for name, node in topology.nodes() for each, module in node.modules.items()
        }
        self.has_classical_senders = any(each.signal != "quantum" and each.role != "rx" for each in self.modules.values())
        fibres = list(topology.links("fibre", "free-space"))
        self.fibres = {link.id: _glass(topology, link) for link in fibres}
        self.unnamed = {(end.node, link.id) for link in fibres for end in (link.a, link.b) if end.port is None}
        self.far: dict[Port, Port] = {}
        """Where the glass at a port leads, whether in use or not: light asks nobody."""
        for link in fibres:
            a, b = _port(link.a, link), _port(link.b, link)
            self.far.setdefault(a, b)
            self.far.setdefault(b, a)
        # a fibre that ends at the module, up or down, is its lead; only without one there is a patch cord
        self._leads = {port: parse_end(module.port) for port, module in self.modules.items() if module.port and port not in self.far}
        for port, end in self._leads.items():
            self.far[port] = (end.node, end.port or "")
            self.far[end.node, end.port or ""] = port
        self.ports: dict[str, list[str]] = {}
        for node_name, number in self.far:
            if number.isdecimal():
                self.ports.setdefault(node_name, []).append(number)
        self.cords = self._cords(topology)
        self.plant = Plant(self)

    def _cords(self, topology: Topology) -> list[Glass]:
        return [
            Glass(port, (end.node, end.port or ""))
            for port, end in self._leads.items()
            if topology.node(port[0]).admin == "enabled" and topology.node(end.node).admin == "enabled"
        ]

    def catch_up(self, topology: Topology) -> bool:
        """Follow what changed. False when the structure did: survey anew."""
        if self.revision == topology.revision:
            return True
        changed = topology.changed_since(self.revision)
        if changed is None or self.structure != topology.structure:
            return False
        cords, before = self._cords(topology), self.fibres
        now = {link_id: _glass(topology, topology.link(link_id)) for link_id in changed if link_id in before}
        if cords != self.cords or any(before[link_id] != glass for link_id, glass in now.items()):
            self.cords, self.fibres = cords, {**before, **now}
            self.plant = Plant(self)
        near = {end.node for link_id in now for end in (topology.link(link_id).a, topology.link(link_id).b)}
        self.devices.update({name: topology.node(name) for name in near & self.devices.keys()})  # which may be drained or disabled now
        self.revision = topology.revision
        return True

    def disabled(self, name: str) -> bool:
        """Whether the operator has put a device out of use."""
        return name in self.devices and self.devices[name].admin == "disabled"


def _port(end: End, link: Link) -> Port:
    """An end that names no port is a port of its own, named after the link: light ends there, and nothing else is attached."""
    return end.node, end.port or link.id


def _glass(topology: Topology, link: Link) -> Glass | None:
    """The glass of a link; None where it is not usable or its loss is not known."""
    figure = topology.figure(link, "loss_db")
    if not topology.usable(link) or figure is None or not 0 <= figure.value < float("inf"):
        return None
    length_km = link.length_km if link.length_km is not None else figure.value / FIBRE_LOSS_DB_PER_KM
    raman = link.raman_per_km_nm and Figure(link.raman_per_km_nm, link.origin("raman_per_km_nm"), link.source or "")
    per_km = link.loss_db_per_km or FIBRE_LOSS_DB_PER_KM
    a, b = _port(link.a, link), _port(link.b, link)
    return Glass(a, b, figure.value, link.id, length_km if link.kind == "fibre" else 0.0, per_km, raman or None, link.channels)


def build(topology: Topology, avoid: Collection[str] = ()) -> Plant:
    """The plant of usable fibres and enabled devices, kept with the topology; without the nodes and links (by id) in `avoid`."""
    kept: Survey | None = topology.derived.get(Survey)
    if kept is None or not kept.catch_up(topology):
        kept = topology.derived[Survey] = Survey(topology)
    return Plant(kept, avoid) if avoid else kept.plant


class Plant:
    """Where light can go, over what is usable, as a graph of devices: parallel trunks are one edge."""

    def __init__(self, survey: Survey, avoid: Collection[str] = (), alone: Collection[Port] = ()) -> None:
        """`alone` are ports whose glass is to be in no pool, for callers who treat them apart."""
        self.survey = survey
        self._avoid = avoid
        self.glass: dict[Port, Glass] = {}
        self.edges: dict[Vertex, list[Edge]] = {}
        """By the vertex they leave."""
        self.into: dict[Vertex, list[Edge]] = {}
        for glass in (*survey.fibres.values(), *survey.cords):
            # a port takes one fibre; of more, which the document's checks refuse, the first counts
            if glass is None or glass.a in self.glass or glass.b in self.glass:
                continue
            if not avoid or not (glass.link in avoid or glass.a[0] in avoid or glass.b[0] in avoid):
                self.glass[glass.a] = self.glass[glass.b] = glass
        self.groups = self._grouped(frozenset(alone))
        for group in self.groups:
            for forward in (True, False):
                near, far = group.trunks[0].oriented(forward=forward)
                to = self.arrival(far)
                for leave in self.leaves(near):
                    if to is None:
                        break
                    edge = Edge(leave, group, forward, to)
                    self.edges.setdefault(leave.vertex, []).append(edge)
                    self.into.setdefault(edge.to, []).append(edge)

    def with_alone(self, ports: Collection[Port]) -> Plant:
        return Plant(self.survey, self._avoid, ports)

    def _grouped(self, alone: frozenset[Port]) -> list[Group]:
        pools: dict[tuple[object, ...], list[Glass]] = {}
        for port, glass in self.glass.items():
            if port != glass.a or any(end[0] not in self.survey.devices for end in (glass.a, glass.b)):
                continue
            near, far = self.side(glass.a), self.side(glass.b)
            if near is None or far is None or glass.channels or glass.a in alone or glass.b in alone:
                pools[glass.a, False] = [glass]
                continue
            turned = glass if near <= far else replace(glass, a=glass.b, b=glass.a)
            make = (round(glass.loss_db * NANO), glass.length_km, glass.loss_db_per_km, glass.raman)
            pools.setdefault((min(near, far), max(near, far), *make, True), []).append(turned)
        sorted_pools = [(sorted(pool, key=lambda glass: order(glass.a)), bool(key[-1])) for key, pool in pools.items()]
        sorted_pools.sort(key=lambda each: order(each[0][0].a))
        return [Group(number, tuple(pool), pooled) for number, (pool, pooled) in enumerate(sorted_pools)]

    def ports_of(self, node: str) -> list[Port]:
        return sorted((port for port in self.glass if port[0] == node), key=order)

    def side(self, port: Port) -> Vertex | None:
        """The side of an optical switch that a port is on; None for ports of anything else."""
        node = self.survey.devices.get(port[0])
        if node is None or node.kind != "optical-switch" or not port[1].isdecimal():
            return None
        if node.sides == "single":
            return port[0], ""
        return port[0], "lower" if int(port[1]) <= (node.ports or 0) // 2 else "upper"

    def arrival(self, port: Port) -> Vertex | None:
        """Where light is that has come in by a port; None where it goes no further."""
        node = self.survey.devices.get(port[0])
        if node is None or not port[1].isdecimal():
            return None
        if node.kind == "passive":
            return port
        side = self.side(port)
        if side is None or side[1] == "":
            return port[0], ""
        return port[0], "upper" if side[1] == "lower" else "lower"

    def leaves(self, port: Port) -> Iterator[Leave]:
        """The vertices from which light can leave by a port."""
        node = self.survey.devices.get(port[0])
        if node is None or not port[1].isdecimal():
            return
        side = self.side(port)
        if side is not None:
            yield Leave(side, node.insertion_loss_db or 0.0)
        elif node.kind == "wavelength-switch":
            yield Leave((port[0], ""), node.insertion_loss_db or 0.0, (_ANY_KNOWN,))
        else:
            for other in self.survey.ports.get(port[0], ()):
                yield from self.through(node, (port[0], other), port)

    def through(self, node: Node, port: Port, other: Port) -> Iterator[Leave]:
        """How light crosses a passive node from one port to another, if it does."""
        loss_db = crossing_loss_db(node, port[1], other[1]) if port != other else None
        if loss_db is not None:
            bands = [node.bands[name] for name in (port[1], other[1]) if name in node.bands]
            yield Leave(port, loss_db, tuple((mhz_of(high), mhz_of(low)) for low, high in bands))


def crossing_loss_db(node: Node, port: str, other: str) -> float | None:
    """Loss in dB from one port to another inside a device; None where no light passes, whatever its wavelength."""
    if not (port.isdecimal() and other.isdecimal()):
        return None
    if node.kind == "passive":
        listed = node.losses_db.get(f"{port}-{other}", node.losses_db.get(f"{other}-{port}"))
        return node.insertion_loss_db if listed is None else listed
    if node.kind == "wavelength-switch":
        return node.insertion_loss_db or 0.0
    if node.kind != "optical-switch":
        return None
    half = (node.ports or 0) // 2
    if node.sides != "single" and (int(port) <= half) == (int(other) <= half):
        return None
    return node.insertion_loss_db or 0.0


def passes(bands: Iterable[Band], mhz: int | None) -> bool:
    """Whether light of a frequency passes bands; light of unknown frequency passes no filter."""
    return all(mhz is not None and low <= mhz <= high for low, high in bands)


def order(port: Port) -> tuple[str, int, str]:
    """Ports in the order of their numbers."""
    return port[0], len(port[1]), port[1]


def lit(plant: Plant, begin: Iterable[Port], mhz: int | None, joined: Mapping[Port, Port]) -> set[Port]:
    """Every port that light reaches which leaves `begin` over glass: all branches of splitters, and through switches where `joined` says.

    Glass out of use is glass too. Light of unknown frequency passes every filter here: what cannot be ruled out is lit.
    """
    far, devices = plant.survey.far, plant.survey.devices
    leaving = list(begin)
    left, arrived = set(leaving), set[Port]()
    while leaving:
        port = far.get(leaving.pop())
        if port is None or port in arrived:
            continue
        arrived.add(port)
        node = devices.get(port[0])
        onward: list[Port] = [joined[port]] if port in joined else []
        if node is not None and node.kind == "passive":
            onward = [
                (port[0], name)
                for name in plant.survey.ports[port[0]]
                for leave in plant.through(node, port, (port[0], name))
                if mhz is None or passes(leave.bands, mhz)
            ]
        leaving.extend(each for each in onward if each not in left)
        left.update(onward)
    return left | arrived
