"""Lightpaths: ports and cross-connects over fibre, switches and passive devices, of least loss and within the power budget."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from controller.network.model import Module, parse_end
from controller.network.topology import Topology, UnknownName
from controller.routing.plant import NANO, Hop, Plant, Port, TooManyPaths, build, least_loss
from controller.routing.refusal import NoRoute, told

MAX_WAVELENGTH_DIFFERENCE_NM = 1.0
"""How far apart the wavelengths of a transmitter and a receiver may be."""


@dataclass(frozen=True, slots=True)
class CrossConnection:
    """Two ports of an optical switch to be joined. On a dual-sided switch the ingress is the port of the lower half."""

    switch: str
    ingress: int
    egress: int


@dataclass(frozen=True, slots=True)
class LightRoute:
    nodes: tuple[str, ...]
    links: tuple[str, ...]
    cross_connects: tuple[CrossConnection, ...]
    loss_db: float
    ports: tuple[str, ...]
    """Every port the light touches, ends included, as `node:port`."""
    wavelength_nm: float | None
    """That of the transmitter; None when the ends are no modules."""
    budget_db: float | None
    explanation: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "nodes": list(self.nodes),
            "links": list(self.links),
            "cross_connects": [{"switch": each.switch, "ingress": each.ingress, "egress": each.egress} for each in self.cross_connects],
            "loss_db": self.loss_db,
            "ports": list(self.ports),
            "wavelength_nm": self.wavelength_nm,
            "budget_db": self.budget_db,
            "explanation": list(self.explanation),
        }


@dataclass(frozen=True, slots=True)
class _Terminal:
    """A port where light may begin or end, with the module there."""

    port: Port
    module: Module | None


@dataclass(frozen=True, slots=True)
class _Candidate:
    near: _Terminal
    far: _Terminal
    hops: tuple[Hop, ...]
    budget_db: float | None

    @property
    def loss_db(self) -> float:
        return sum(round(hop.loss_db * NANO) for hop in self.hops) / NANO

    @property
    def fits(self) -> bool:
        return self.budget_db is None or self.loss_db <= self.budget_db


def light(
    topology: Topology,
    src: str,
    dst: str,
    *,
    max_loss_db: float | None = None,
    taken: Collection[tuple[str, str]] = frozenset(),
    plant: Plant | None = None,
) -> LightRoute:
    """The lightpath of least loss between two ends, each `node`, `node:port` or `node/module`, using no port in `taken` (node, port).

    A node with modules offers its modules, and the ends must fit (transmitter and receiver, technology, wavelength within 1 nm); a node
    without offers the ports where its fibres end. The budget is the least of `max_loss_db` and the two modules' maximum. `plant` is
    `plant.build(topology)`, for callers who ask more than once. Losses of connectors and dispersion are left out.
    Raises NoRoute (`reachability`, `ports` when all ways are taken, `loss_db` with the least loss) and UnknownName.
    """
    plant = build(topology) if plant is None else plant
    near, far = _terminals(topology, plant, src), _terminals(topology, plant, dst)
    if src == dst:
        raise NoRoute(f"{src} is both ends of the request", "reachability")
    pairs = [(a, b) for a in near for b in far if _compatible(a.module, b.module)]
    if not pairs:
        have = "no fibre or module in use" if not near or not far else "no transmitter and receiver of one technology and wavelength"
        raise NoRoute(f"{src} and {dst} have {have} between them", "reachability")
    try:
        found = _candidates(plant, pairs, max_loss_db, taken)
        fitting = [each for each in found if each.fits]
        if fitting:
            return _route(topology, min(fitting, key=lambda each: (each.loss_db, len(each.hops))))
        if not found and taken and _candidates(plant, pairs, max_loss_db, ()):
            raise NoRoute(f"every lightpath from {src} to {dst} needs a port that is in use", "ports")
    except TooManyPaths:
        raise NoRoute(f"the fibres between {src} and {dst} make too many loops to search; name the ports", "reachability") from None
    if not found:
        raise NoRoute(f"no usable fibres and cross-connects join {src} and {dst}", "reachability")
    least = min(found, key=lambda each: each.loss_db)
    raise NoRoute(
        f"every lightpath from {src} to {dst} loses more than the budget of {least.budget_db:g} dB; the least loss is {least.loss_db:.6g} dB",
        "loss_db",
        least.loss_db,
    )


def _terminals(topology: Topology, plant: Plant, text: str) -> list[_Terminal]:
    end = parse_end(text)
    node = topology.node(end.node)
    name = end.port or end.module
    if name is None:
        if node.modules:
            return [_Terminal((end.node, module_name), module) for module_name, module in node.modules.items()]
        return [_Terminal(port, None) for port in plant.ports_of(end.node)]
    if name in node.modules:
        return [_Terminal((end.node, name), node.modules[name])]
    if end.module is not None:
        raise UnknownName("module", text, [f"{end.node}/{module}" for module in node.modules])
    attached = {each.port for link in topology.links("fibre", "free-space") for each in (link.a, link.b) if each.node == end.node}
    numbered = node.ports is not None and name.isdecimal() and 1 <= int(name) <= node.ports
    if not numbered and name not in attached:
        raise UnknownName("port", text, [f"{end.node}:{port}" for port in attached if port])
    return [_Terminal((end.node, name), None)]


def _compatible(a: Module | None, b: Module | None) -> bool:
    if a is None or b is None:
        return True
    roles = {a.role, b.role}
    facing = roles in ({"tx", "rx"}, {"tx-rx"}, {"tx-rx", "tx"}, {"tx-rx", "rx"}, {"memory"})
    return facing and a.technology == b.technology and abs(a.wavelength_nm - b.wavelength_nm) <= MAX_WAVELENGTH_DIFFERENCE_NM


def _candidates(
    plant: Plant, pairs: list[tuple[_Terminal, _Terminal]], max_loss_db: float | None, taken: Collection[tuple[str, str]]
) -> list[_Candidate]:
    found = []
    for near, far in pairs:
        hops = least_loss(plant, near.port, far.port, taken)
        if hops is not None:
            limits = [max_loss_db, *(each.module.max_loss_db for each in (near, far) if each.module is not None)]
            found.append(_Candidate(near, far, hops, min((limit for limit in limits if limit is not None), default=None)))
    return found


def _route(topology: Topology, chosen: _Candidate) -> LightRoute:
    ports = (chosen.near.port, *(hop.to for hop in chosen.hops))
    nodes, cross_connects, explanation = [ports[0][0]], [], []
    for here, hop in zip(ports, chosen.hops, strict=False):
        step = f"{_text(topology, here)} -> {_text(topology, hop.to)}"
        if hop.medium == "glass":
            nodes.append(hop.to[0])
            figure = topology.figure(topology.link(hop.link), "loss_db") if hop.link else None
            explanation.append(f"{step}: {told(figure, 'dB')} over {hop.link}" if figure else f"{step}: patch cord, 0 dB (assumed)")
            continue
        node = topology.node(here[0])
        given = node.insertion_loss_db is not None or bool(node.losses_db)
        field = "losses_db" if node.losses_db else "insertion_loss_db"
        origin = node.origins.get(field, "declared" if node.source else "assumed")
        explanation.append(f"{step}: {hop.loss_db:g} dB inside ({origin if given else 'assumed, none is given'})")
        if node.kind == "optical-switch":
            first, second = int(here[1]), int(hop.to[1])
            if node.sides != "single" and first > second:
                first, second = second, first
            cross_connects.append(CrossConnection(here[0], first, second))
    modules = [each.module for each in (chosen.near, chosen.far) if each.module is not None]
    transmitter = next((module for module in modules if module.role == "tx"), modules[0] if modules else None)
    loss_db, budget_db = chosen.loss_db, chosen.budget_db
    explanation.append(
        f"binding: {'no budget is known' if budget_db is None else f'the budget of {budget_db:g} dB'}, of which {loss_db:.6g} dB are lost"
    )
    return LightRoute(
        tuple(nodes),
        tuple(hop.link for hop in chosen.hops if hop.link is not None),
        tuple(cross_connects),
        loss_db,
        tuple(_text(topology, port) for port in ports),
        transmitter.wavelength_nm if transmitter else None,
        budget_db,
        tuple(explanation),
    )


def _text(topology: Topology, port: Port) -> str:
    """`node:port`; just the node where its fibre names no port."""
    node, name = port
    unnamed = any(link.id == name and node in link.nodes for link in topology.links("fibre", "free-space"))
    return node if unnamed else f"{node}:{name}"
