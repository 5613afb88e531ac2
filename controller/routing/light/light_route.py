"""A lightpath as it is told and programmed: cross-connects, media channels, explanation; and the ends light may run between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from controller.network.model import Module, parse_end
from controller.network.topology import Topology, UnknownName
from controller.routing.light.plant import Hop, Plant, Port, lit, mhz_of, order
from controller.routing.refusal import told

MAX_WAVELENGTH_DIFFERENCE_NM = 1.0
"""How far apart the wavelengths of a transmitter and a receiver may be."""
_GRID_MHZ, _SLOT_MHZ = 6250, 12_500
"""ITU-T G.694.1: centres of media channels lie on multiples of 6.25 GHz from 193.1 THz, itself one; widths are multiples of 12.5 GHz."""
LEAST_GUARD_GHZ = (_GRID_MHZ + _SLOT_MHZ) / 1000


@dataclass(frozen=True, slots=True)
class CrossConnection:
    """Two ports of an optical switch to be joined. On a dual-sided switch the ingress is the port of the lower half."""

    switch: str
    ingress: int
    egress: int


@dataclass(frozen=True, slots=True)
class MediaChannel:
    """Two ports of a wavelength switch to be joined for the light between two frequencies."""

    switch: str
    ingress: int
    egress: int
    lower_frequency_mhz: int
    upper_frequency_mhz: int


def slot(mhz: int, guard_mhz: int) -> tuple[int, int]:
    """Lower and upper frequency in MHz of the media channel for light at `mhz`.

    The centre is the nearest on the grid, the width the largest at which channels of lights `guard_mhz` apart do not overlap.
    """
    centre = round(mhz / _GRID_MHZ) * _GRID_MHZ
    half = (guard_mhz - _GRID_MHZ) // _SLOT_MHZ * _SLOT_MHZ // 2
    return centre - half, centre + half


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
    media_channels: tuple[MediaChannel, ...] = ()

    def to_json(self) -> dict[str, object]:
        channels = [
            {
                "switch": each.switch,
                "ingress": each.ingress,
                "egress": each.egress,
                "lower_frequency_mhz": each.lower_frequency_mhz,
                "upper_frequency_mhz": each.upper_frequency_mhz,
            }
            for each in self.media_channels
        ]
        return {
            "nodes": list(self.nodes),
            "links": list(self.links),
            "cross_connects": [{"switch": each.switch, "ingress": each.ingress, "egress": each.egress} for each in self.cross_connects],
            "loss_db": self.loss_db,
            **({"media_channels": channels} if channels else {}),
            "ports": list(self.ports),
            "wavelength_nm": self.wavelength_nm,
            "budget_db": self.budget_db,
            "explanation": list(self.explanation),
        }


@dataclass(frozen=True, slots=True)
class Terminal:
    """A port where light may begin or end, with the module there."""

    port: Port
    module: Module | None


def terminals(topology: Topology, plant: Plant, text: str) -> list[Terminal]:
    """Where light may begin or end at an end of a request. Raises UnknownName."""
    end = parse_end(text)
    node = topology.node(end.node)
    name = end.port or end.module
    if name is None:
        if node.modules:
            return [Terminal((end.node, module_name), module) for module_name, module in node.modules.items()]
        return [Terminal(port, None) for port in plant.ports_of(end.node)]
    if name in node.modules:
        return [Terminal((end.node, name), node.modules[name])]
    if end.module is not None:
        raise UnknownName("module", text, [f"{end.node}/{module}" for module in node.modules])
    numbered = node.ports is not None and name.isdecimal() and name[0] != "0" and int(name) <= node.ports
    if not numbered and ((end.node, name) not in plant.survey.far or (end.node, name) in plant.survey.unnamed):
        known = [port for port in plant.survey.far if port[0] == end.node and port not in plant.survey.unnamed]
        raise UnknownName("port", text, [f"{end.node}:{port}" for _, port in sorted(known, key=order)])
    return [Terminal((end.node, name), None)]


def facing(a: Module, b: Module) -> bool:
    """Whether one can send what the other takes, wavelengths aside."""
    roles = {a.role, b.role}
    opposite = roles in ({"tx", "rx"}, {"tx-rx"}, {"tx-rx", "tx"}, {"tx-rx", "rx"}, {"memory"})
    return opposite and a.signal == b.signal and (a.signal != "quantum" or a.technology == b.technology)


def takes_quantum(module: Module) -> bool:
    """Whether it has detectors or memories for single photons, which classical light blinds."""
    return module.signal == "quantum" and module.role != "tx"


def sends_classical(module: Module) -> bool:
    return module.signal != "quantum" and module.role in ("tx", "tx-rx")


@dataclass(frozen=True, slots=True)
class Shine:
    """Where the classical light of a way reaches beside the way itself."""

    blinded: Port | None
    """A quantum receiver that it reaches."""
    beside: frozenset[Port]
    """Ports lit by the side branches of splitters."""


def shine(plant: Plant, source: Port, hops: Sequence[Hop], mhz: int | None, *, classical: bool) -> Shine:
    """Follow the classical light of a way: that of the modules at its ends or behind them, and with `classical` what enters at `source`."""
    modules = plant.survey.modules
    ports = [source, *(hop.to for hop in hops)]
    joined: dict[Port, Port] = {}
    for here, hop in zip(ports, hops, strict=False):
        if hop.medium == "inside":
            joined[here], joined[hop.to] = hop.to, here
    reached: set[Port] = set()
    if classical:
        reached |= lit(plant, [source if hops[0].medium == "glass" else hops[0].to], mhz, joined)
    if classical or plant.survey.has_classical_senders:
        ends = {port for end in (ports[0], ports[-1]) for port in ({end} if end in modules else lit(plant, [end], None, {}))}
        for port in ends:
            module = modules.get(port)
            if module is not None and sends_classical(module):
                known = mhz if port in (ports[0], ports[-1]) and mhz is not None else mhz_of(module.wavelength_nm)
                reached |= lit(plant, [port], known, joined)
    blinded = min((port for port in reached if port in modules and takes_quantum(modules[port])), default=None)
    return Shine(blinded, frozenset(reached - set(ports)))


def render(
    topology: Topology,
    plant: Plant,
    source: Port,
    hops: Sequence[Hop],
    *,
    wavelength_nm: float | None,
    guard_mhz: int,
    budget_db: float | None,
    loss_db: float,
    more: Iterable[str] = (),
) -> LightRoute:
    """The route of light over these hops, with what is to be programmed and how each figure came about."""
    ports = (source, *(hop.to for hop in hops))
    nodes, cross_connects, media_channels, explanation = [ports[0][0]], [], [], []
    for (here, there), hop in zip(pairwise(ports), hops, strict=True):
        step = f"{_text(plant, here)} -> {_text(plant, there)}"
        if hop.medium == "glass":
            nodes.append(there[0])
            figure = topology.figure(topology.link(hop.link), "loss_db") if hop.link else None
            explanation.append(f"{step}: {told(figure, 'dB')} over {hop.link}" if figure else f"{step}: patch cord, 0 dB (assumed)")
            continue
        node = topology.node(here[0])
        given = node.insertion_loss_db is not None or bool(node.losses_db)
        field = "losses_db" if node.losses_db else "insertion_loss_db"
        origin = node.origin(field)
        explanation.append(f"{step}: {hop.loss_db:g} dB inside ({origin if given else 'assumed, none is given'})")
        first, second = here[1], there[1]
        if node.kind == "optical-switch":
            if node.sides != "single" and int(first) > int(second):
                first, second = second, first
            cross_connects.append(CrossConnection(here[0], int(first), int(second)))
        elif node.kind == "wavelength-switch" and wavelength_nm is not None:
            lower, upper = slot(mhz_of(wavelength_nm), guard_mhz)
            media_channels.append(MediaChannel(here[0], int(first), int(second), lower, upper))
            explanation.append(f"{here[0]}: media channel from {lower} to {upper} MHz for {wavelength_nm:g} nm")
    explanation += more
    explanation.append(
        f"binding: {'no budget is known' if budget_db is None else f'the budget of {budget_db:g} dB'}, of which {loss_db:.6g} dB are lost"
    )
    return LightRoute(
        tuple(nodes),
        tuple(hop.link for hop in hops if hop.link is not None),
        tuple(cross_connects),
        loss_db,
        tuple(_text(plant, port) for port in ports),
        wavelength_nm,
        budget_db,
        tuple(explanation),
        tuple(media_channels),
    )


def transmitter(*modules: Module | None) -> Module | None:
    """The module whose wavelength the light has."""
    known = [module for module in modules if module is not None]
    return next((module for module in known if module.role == "tx"), known[0] if known else None)


def _text(plant: Plant, port: Port) -> str:
    """`node:port`; just the node where its fibre names no port."""
    return port[0] if port in plant.survey.unnamed else f"{port[0]}:{port[1]}"
