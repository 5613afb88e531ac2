"""A lightpath between modules or ports: cross-connects and media channels for a strand of light, or for several that are of use together.

They are set within a loss budget, on ports of their own, and never against the rules of `controller.services.light_safety`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from controller.network.model import Module, Signal, parse_end
from controller.routing.light.plant import build, crossing_loss_db
from controller.routing.lightpath import LightRoute, light
from controller.services.app import (
    App,
    CrossConnect,
    Item,
    Ledger,
    NoRoute,
    Plan,
    Request,
    State,
    Topology,
    classical_channels,
)
from controller.services.light_safety import unsafe
from controller.southbound.device import Diff, MediaChannel

DARK_DBM = -55.0
"""Below this a monitor sees no light; the bottom of its range is -60 dBm."""
POWER_TOLERANCE_DB = 1.5
"""How far the light read back may be from what the losses predict, unless the request says otherwise."""
CHANNEL_NUMBERS = range(0xBE110000, 0xBE120000)
"""The numbers given to media channels, which a wavelength switch tells apart by number only."""

Loss = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Power = Annotated[float, Field(ge=-300, le=40)]


class StrandRequest(BaseModel):
    """One strand of a bundle. What is not given is as the lightpath's request or the modules say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    signal: Signal = "quantum"
    ends: tuple[str, str] | None = None
    """In either order, where the modules tell which one sends; else the transmitter first."""
    wavelengths_nm: tuple[Annotated[float, Field(ge=100, le=100_000)], ...] = ()
    """What the transmitter can be tuned to; () is its module's wavelength."""
    launch_dbm: Power | None = None
    max_input_dbm: Power | None = None
    max_loss_db: Loss | None = None


class Lightpath(Request):
    """Light from one end to the other; ends are nodes, node/module or node:port. Without `strands`, whatever light the ends make."""

    max_loss_db: Loss | None = None
    strands: Annotated[tuple[StrandRequest, ...], Field(max_length=16)] = ()
    power_tolerance_db: Annotated[float, Field(gt=0, le=60)] = POWER_TOLERANCE_DB
    on_drift: Literal["repair", "report"] = "repair"
    """What to do when somebody else takes one of its cross-connects away."""


@dataclass(frozen=True, slots=True)
class _Lit:
    """The route of a strand, the power launched into it (None: not known), what it is told as, and its hops: port to port, with the fibre
    between, None inside a device and for a patch cord."""

    route: LightRoute
    launch_dbm: float | None
    told: dict[str, Any]
    hops: list[dict[str, str | None]]


class _Taken(Collection[tuple[str, str]]):
    """The ports (node, port) that are promised, as the ledger has them: thousands, of which a plan looks at a few."""

    def __init__(self, promised: Mapping[str, float]) -> None:
        self._promised = promised

    def __contains__(self, port: object) -> bool:
        return isinstance(port, tuple) and ":".join(port) in self._promised

    def __iter__(self) -> Iterator[tuple[str, str]]:
        ends = map(parse_end, self._promised)
        return ((end.node, end.port or "") for end in ends)

    def __len__(self) -> int:
        return len(self._promised)


def plan(service: str, request: Lightpath, network: Topology, ledger: Ledger, now_s: float) -> Plan:
    """Cross-connects and media channels from the transmitters' side to the receivers'.

    Raises NoRoute when no free ports join the ends within the budget, or what joins them would break a rule of safety.
    """
    taken = _Taken(ledger.reserved_of("port"))
    lit, explanation = _bundle(service, request, network, taken) if request.strands else _single(request, network, taken)
    channels = {each.switch for strand in lit for each in strand.route.media_channels}
    if unreached := sorted(name for name in channels if network.node(name).address is None):
        raise NoRoute(f"the only way is through {', '.join(unreached)}, which cannot be reached: give it an address", "driver", None)
    placed = _placed(network, lit, ledger.reserved_of("channel"))
    desired: dict[str, tuple[Item, ...]] = {}
    for device, item in placed:
        desired[device] = (*desired.get(device, ()), item)
    if broken := unsafe(build(network), {}, [Diff(device, add=items) for device, items in desired.items()]):
        raise NoRoute(str(broken[0]), "safety", None)
    ports = tuple(dict.fromkeys(port for each in lit for port in each.route.ports))
    numbers = [f"channel:{device}:{item.index}" for device, item in placed if isinstance(item, MediaChannel)]
    return Plan(
        desired=desired,
        touches=frozenset(name for each in lit for name in (*each.route.nodes, *each.route.links)),
        route={**_told(request, lit, ports), **_in_order(placed), "power_tolerance_db": request.power_tolerance_db},
        reservations=dict.fromkeys((*(f"port:{port}" for port in ports), *numbers), 1.0),
        companions=classical_channels(network, ((each.route.nodes[0], each.route.nodes[-1]) for each in lit)),
        expected_power_dbm=_expected_power(network, lit),
        explanation=explanation,
    )


def _single(request: Lightpath, network: Topology, taken: Collection[tuple[str, str]]) -> tuple[list[_Lit], tuple[str, ...]]:
    route = light(network, *request.ends, max_loss_db=request.max_loss_db, taken=taken)
    if _is_receiver(network, route.ports[0]):
        route = light(network, *reversed(request.ends), max_loss_db=request.max_loss_db, taken=taken)
    sender = _module(network, route.ports[0])
    launch_dbm = sender.launch_dbm if sender is not None and sender.role in ("tx", "tx-rx") else None
    return [_Lit(route, launch_dbm, route.to_json(), _hops(network, route))], route.explanation


def _bundle(service: str, request: Lightpath, network: Topology, taken: Collection[tuple[str, str]]) -> tuple[list[_Lit], tuple[str, ...]]:
    """The routes of all strands at once. Raises NoRoute when there is none for one of them beside the others."""
    from controller.routing.light.joint import assign  # here, as it needs the solver, which only the planner's worker is to load
    from controller.routing.light.strands import Bundle, Strand

    strands = [
        Strand(
            *_oriented(network, each.ends or request.ends, each.signal),
            signal=each.signal,
            wavelengths_nm=each.wavelengths_nm,
            launch_dbm=each.launch_dbm,
            max_input_dbm=each.max_input_dbm,
            max_loss_db=min((limit for limit in (each.max_loss_db, request.max_loss_db) if limit is not None), default=None),
        )
        for each in request.strands
    ]
    assignment = assign(network, [Bundle(service, tuple(strands))], taken=taken)
    if service in assignment.refused:
        raise assignment.refused[service]
    found = assignment.served[service].strands
    lit = []
    for each in found:
        launch_dbm = None if each.received_dbm is None else each.received_dbm + each.route.loss_db
        lit.append(_Lit(each.route, launch_dbm, each.to_json(), _hops(network, each.route)))
    lines = [f"{each.strand.signal} {number}: {line}" for number, each in enumerate(found, 1) for line in each.route.explanation]
    return lit, (*lines, *assignment.explanation)


def _oriented(network: Topology, ends: tuple[str, str], signal: Signal) -> tuple[str, str]:
    """The end that sends first, where only the second one can; a node's only module of the signal by its name, so that refusals are of it."""

    def modules(text: str) -> dict[str, Module]:
        end = parse_end(text)
        name = end.port or end.module
        return {each: module for each, module in network.node(end.node).modules.items() if name in (None, each)}

    def sends(text: str) -> bool:
        return not modules(text) or any(each.signal == signal and each.role != "rx" for each in modules(text).values())

    def named(text: str) -> str:
        fitting = [name for name, each in modules(text).items() if each.signal == signal]
        return f"{parse_end(text).node}/{fitting[0]}" if len(fitting) == 1 else text

    here, there = ends if sends(ends[0]) or not sends(ends[1]) else ends[::-1]
    return named(here), named(there)


def _placed(network: Topology, lit: Sequence[_Lit], channels_taken: Iterable[str]) -> dict[tuple[str, Item], int]:
    """What is to be set on which device, and at which place from its source (0); what strands share is where the farthest source is.

    Channels have numbers that are not among those taken, `<switch>:<number>`.
    """
    placed: dict[tuple[str, Item], int] = {}
    taken = set(channels_taken)
    known: dict[object, Item] = {}
    for strand in lit:
        crossings, channels = iter(strand.route.cross_connects), iter(strand.route.media_channels)
        switches = (here for here, there in pairwise(map(parse_end, strand.route.ports)) if here.node == there.node)
        items: list[tuple[str, object, Item]] = []
        for switch in switches:
            kind = network.node(switch.node).kind
            if kind == "optical-switch":
                each = next(crossings)
                items.append((each.switch, frozenset((each.ingress, each.egress)), CrossConnect(each.ingress, each.egress)))
            elif kind == "wavelength-switch":
                channel = next(channels)
                number = next(number for number in CHANNEL_NUMBERS if f"{channel.switch}:{number}" not in taken)
                band = channel.lower_frequency_mhz, channel.upper_frequency_mhz
                made = MediaChannel(number, str(channel.ingress), str(channel.egress), *band)
                if (channel.switch, channel) not in known:
                    taken.add(f"{channel.switch}:{number}")
                items.append((channel.switch, channel, made))
        for place, (device, key, item) in enumerate(items):
            same = device, known.setdefault((device, key), item)
            placed[same] = max(place, placed.get(same, 0))
    return placed


def _in_order(placed: Mapping[tuple[str, Item], int]) -> dict[str, Any]:
    """What is set, with its place, as it is told."""
    crossings, channels = [], []
    for (device, item), place in placed.items():
        if isinstance(item, CrossConnect):
            crossings.append({"switch": device, "ingress": item.ingress, "egress": item.egress, "place": place})
        elif isinstance(item, MediaChannel):
            band = {"lower_frequency_mhz": item.lower_frequency_mhz, "upper_frequency_mhz": item.upper_frequency_mhz}
            channels.append({"switch": device, "ingress": int(item.source), "egress": int(item.dest), **band, "place": place})
    return {"cross_connects": crossings, **({"media_channels": channels} if channels else {})}


def _told(request: Lightpath, lit: Sequence[_Lit], ports: tuple[str, ...]) -> dict[str, Any]:
    if not request.strands:
        return {**lit[0].told, "hops": lit[0].hops}
    return {
        "nodes": list(dict.fromkeys(name for each in lit for name in each.route.nodes)),
        "links": list(dict.fromkeys(name for each in lit for name in each.route.links)),
        "loss_db": max(each.route.loss_db for each in lit),
        "ports": list(ports),
        "strands": [{**each.told, "hops": each.hops} for each in lit],
    }


def _hops(network: Topology, route: LightRoute) -> list[dict[str, str | None]]:
    fibres = {frozenset(network.link(link_id).ends): link_id for link_id in route.links}
    return [{"from": here, "to": there, "link": fibres.get(frozenset((here, there)))} for here, there in pairwise(route.ports)]


def _module(network: Topology, port: str) -> Module | None:
    end = parse_end(port)
    return network.node(end.node).modules.get(end.port or "")


def _is_receiver(network: Topology, port: str) -> bool:
    module = _module(network, port)
    return module is not None and module.role == "rx"


def _expected_power(network: Topology, lit: Sequence[_Lit]) -> dict[str, dict[int, float]]:
    """What the monitor of the last switch that has one should read where each strand leaves it, of all light there.

    Nothing where light is of unknown power.
    """
    read: list[dict[tuple[str, int], float | None]] = [dict(_monitored(network, each)) for each in lit]
    expected: dict[str, dict[int, float]] = {}
    for readings in read:
        if not readings:
            continue
        last = list(readings)[-1]
        there = [each[last] for each in read if last in each]
        known = [power_dbm for power_dbm in there if power_dbm is not None]
        if len(known) == len(there):
            total_dbm = known[0] if len(known) == 1 else 10 * math.log10(sum(10 ** (power_dbm / 10) for power_dbm in known))
            expected.setdefault(last[0], {})[last[1]] = total_dbm
    return expected


def _monitored(network: Topology, strand: _Lit) -> Iterator[tuple[tuple[str, int], float | None]]:
    """Switch and port of the monitors a strand passes as it leaves a switch, with the power there."""
    power_dbm = strand.launch_dbm
    for hop in strand.hops:
        here, there = parse_end(str(hop["from"])), parse_end(str(hop["to"]))
        lost_db = 0.0
        if hop["link"]:
            figure = network.figure(network.link(hop["link"]), "loss_db")
            lost_db = figure.value if figure else 0.0
        elif here.node == there.node:
            lost_db = crossing_loss_db(network.node(here.node), here.port or "", there.port or "") or 0.0
        power_dbm = None if power_dbm is None else power_dbm - lost_db
        node = network.node(here.node)
        if here.node == there.node and node.kind == "optical-switch" and node.driver != "scpi":  # which cannot be asked for power
            yield (here.node, int(there.port or 0)), power_dbm


def serving(service: str, plan: Plan, states: Mapping[str, State]) -> str:
    """The light is there: the power read at the last switch is what the losses predict."""
    tolerance_db = float(plan.route.get("power_tolerance_db", POWER_TOLERANCE_DB))
    for device, ports in plan.expected_power_dbm.items():
        for port, expected_dbm in ports.items():
            found_dbm = states[device].power_dbm.get(port)
            if found_dbm is None:
                return f"no power reading at {device}:{port}"
            off_db = found_dbm - expected_dbm
            if abs(off_db) > tolerance_db:
                off = f"{abs(off_db):.1f} dB {'more' if off_db > 0 else 'less'} than"
                return (
                    f"power at {device}:{port} is {found_dbm:.1f} dBm, {off} expected ({expected_dbm:.1f} dBm within {tolerance_db:g} dB)"
                )
    return ""


def suspects(plan: Plan, states: Mapping[str, State]) -> frozenset[str]:
    """The fibres in which the light is lost: those between the last port that still sees light and the first that does not."""
    return frozenset().union(*(_lost(strand["hops"], states) for strand in plan.route.get("strands", [plan.route])))


def _lost(hops: Sequence[Mapping[str, Any]], states: Mapping[str, State]) -> frozenset[str]:
    since_lit: set[str] = set()
    for hop in hops:
        if hop["link"]:
            since_lit.add(hop["link"])
        there = parse_end(hop["to"])
        if there.node not in states or not (there.port or "").isdecimal():
            continue
        power_dbm = states[there.node].power_dbm.get(int(there.port or 0))
        if power_dbm is None:
            continue
        if power_dbm <= DARK_DBM:
            return frozenset(since_lit)
        since_lit = set()
    return frozenset()


app = App(kind="lightpath", request=Lightpath, plan=plan, serving=serving, suspects=suspects)
