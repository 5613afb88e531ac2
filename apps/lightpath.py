"""A lightpath between two modules or ports: cross-connects on optical switches, set within a loss budget, with ports of its own."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from controller.network.model import Module, parse_end
from controller.routing.light.plant import crossing_loss_db
from controller.routing.lightpath import LightRoute, light
from controller.services.app import App, CrossConnect, Item, Ledger, NoRoute, Plan, Request, Reservation, State, Topology

DARK_DBM = -55.0
"""Below this a monitor sees no light; the bottom of its range is -60 dBm."""
POWER_TOLERANCE_DB = 1.5
"""How far the light read back may be from what the losses predict."""


class Lightpath(Request):
    """Light from one end to the other; ends are nodes, node/module or node:port."""

    max_loss_db: Annotated[float, Field(gt=0)] | None = None


def plan(service: str, request: Lightpath, network: Topology, ledger: Ledger, now_s: float) -> Plan:
    """Cross-connects from the transmitter's side to the receiver's. Raises NoRoute when no free ports join the ends within the budget."""
    taken = frozenset(_port(resource) for resource, amount in ledger.reserved().items() if resource.startswith("port:") and amount > 0)
    route = light(network, *request.ends, max_loss_db=request.max_loss_db, taken=taken)
    if _is_receiver(network, route.ports[0]):
        route = light(network, *reversed(request.ends), max_loss_db=request.max_loss_db, taken=taken)
    if route.media_channels:
        switches = ", ".join(sorted({each.switch for each in route.media_channels}))
        raise NoRoute(f"the only way is through {switches}, and there is no driver for wavelength switches yet", "driver", None)
    hops = _hops(network, route)
    desired: dict[str, tuple[Item, ...]] = {}
    for each in route.cross_connects:
        desired[each.switch] = (*desired.get(each.switch, ()), CrossConnect(each.ingress, each.egress))
    return Plan(
        desired=desired,
        touches=frozenset(route.nodes) | frozenset(route.links),
        route={**route.to_json(), "hops": hops},
        reservations=tuple(Reservation(f"port:{port}", 1.0) for port in route.ports),
        expected_power_dbm=_expected_power(network, hops),
        explanation=route.explanation,
    )


def _hops(network: Topology, route: LightRoute) -> list[dict[str, str | None]]:
    """Port to port, with the fibre between; None inside a device and for a patch cord."""
    fibres = {frozenset(network.link(link_id).ends): link_id for link_id in route.links}
    return [{"from": here, "to": there, "link": fibres.get(frozenset((here, there)))} for here, there in pairwise(route.ports)]


def _port(resource: str) -> tuple[str, str]:
    end = parse_end(resource.removeprefix("port:"))
    return end.node, end.port or ""


def _module(network: Topology, port: str) -> Module | None:
    end = parse_end(port)
    return network.node(end.node).modules.get(end.port or "")


def _is_receiver(network: Topology, port: str) -> bool:
    module = _module(network, port)
    return module is not None and module.role == "rx"


def _expected_power(network: Topology, hops: list[dict[str, str | None]]) -> dict[str, dict[int, float]]:
    """What the monitor of the last switch that has one should read where the light leaves it; nothing when no transmitter is known."""
    transmitter = _module(network, str(hops[0]["from"]))
    expected: dict[str, dict[int, float]] = {}
    if transmitter is None or transmitter.role not in ("tx", "tx-rx"):
        return expected
    power_dbm = transmitter.launch_dbm
    for hop in hops:
        here, there = parse_end(str(hop["from"])), parse_end(str(hop["to"]))
        if hop["link"]:
            figure = network.figure(network.link(hop["link"]), "loss_db")
            power_dbm -= figure.value if figure else 0.0
        elif here.node == there.node:
            node = network.node(here.node)
            power_dbm -= crossing_loss_db(node, here.port or "", there.port or "") or 0.0
            if node.kind == "optical-switch" and node.driver != "scpi":  # which cannot be asked for power
                expected = {here.node: {int(there.port or 0): power_dbm}}
    return expected


def serving(service: str, plan: Plan, states: Mapping[str, State]) -> str:
    """The light is there: the power read at the last switch is what the losses predict."""
    for device, ports in plan.expected_power_dbm.items():
        for port, expected_dbm in ports.items():
            found_dbm = states[device].power_dbm.get(port)
            if found_dbm is None:
                return f"no power reading at {device}:{port}"
            if abs(found_dbm - expected_dbm) > POWER_TOLERANCE_DB:
                return f"power at {device}:{port} is {found_dbm:.1f} dBm, expected {expected_dbm:.1f} dBm within {POWER_TOLERANCE_DB} dB"
    return ""


def suspects(plan: Plan, states: Mapping[str, State]) -> frozenset[str]:
    """The fibres in which the light is lost: those between the last port that still sees light and the first that does not."""
    since_lit: set[str] = set()
    for hop in plan.route["hops"]:
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
