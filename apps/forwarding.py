"""Connectivity between two hosts: proactive flow rules along the classical path of least latency, both ways.

Per direction and switch there is one rule for packets (source and destination MAC) and one for the ARP requests that ask for the
destination's address; nothing is flooded and nothing waits for the controller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.network.model import Node, parse_end
from controller.routing.classical import ClassicalRoute, classical
from controller.services.app import App, FlowRule, Item, Ledger, NoRoute, Plan, Request, Reservation, State, Topology, cookie

PACKET_PRIORITY = 1000
ARP_PRIORITY = 1001
ETH_TYPE_ARP = 0x0806


class Connectivity(Request):
    """Packets between two hosts."""


def plan(service: str, request: Connectivity, network: Topology, ledger: Ledger, now_s: float) -> Plan:
    """Rules on every switch of the path.

    Raises NoRoute when an end is no host, lacks its addresses, cannot be reached, or when the two are connected already: a second
    service's rules would have the same matches.
    """
    for name in request.ends:
        node = network.node(name)
        if node.kind != "host" or node.ip is None or node.mac is None:
            raise NoRoute(f"{name} is no host with ip and mac in the network document", "ends", None)
    pair = f"hosts:{','.join(sorted(request.ends))}"
    if ledger.reserved().get(pair):
        raise NoRoute(f"{' and '.join(request.ends)} are connected by another service already", "ends", None)
    route = classical(network, *request.ends)
    there, back = (network.node(name) for name in request.ends)
    desired: dict[str, list[Item]] = {}
    steps = _steps(route)
    for hop, (switch, in_port, out_port) in enumerate(steps):
        desired.setdefault(switch, []).extend(_rules(cookie(service), there, back, in_port, out_port, hop))
        desired[switch].extend(_rules(cookie(service), back, there, out_port, in_port, len(steps) - 1 - hop))
    return Plan(
        desired={switch: tuple(rules) for switch, rules in desired.items()},
        touches=frozenset(route.nodes) | frozenset(route.links),
        route=route.to_json(),
        reservations=(Reservation(pair, 1.0),),
        explanation=route.explanation,
    )


def _steps(route: ClassicalRoute) -> list[tuple[str, int, int]]:
    """Per switch of the path the port the packet comes in by and the one it leaves by."""
    steps = []
    for (_, arrival), (departure, _) in zip(route.ports, route.ports[1:], strict=False):
        inward, outward = parse_end(arrival), parse_end(departure)
        if inward.port is None or outward.port is None:
            raise NoRoute(
                f"the document names no port where the path passes {inward.node}; write its ends as {inward.node}:1", "ports", None
            )
        if not (inward.port.isdecimal() and outward.port.isdecimal()):
            raise NoRoute(f"the ports {inward} and {outward} of the path are no OpenFlow port numbers", "ports", None)
        steps.append((inward.node, int(inward.port), int(outward.port)))
    return steps


def _rules(owner: int, source: Node, target: Node, in_port: int, out_port: int, hop: int) -> tuple[Item, Item]:
    actions = (("output", out_port),)
    packets = (("eth_dst", str(target.mac)), ("eth_src", str(source.mac)), ("in_port", in_port))
    requests = (("arp_tpa", str(target.ip)), ("eth_src", str(source.mac)), ("eth_type", ETH_TYPE_ARP), ("in_port", in_port))
    return (
        FlowRule(PACKET_PRIORITY, packets, actions, owner, hop=hop),
        FlowRule(ARP_PRIORITY, requests, actions, owner, hop=hop),
    )


def serving(service: str, plan: Plan, states: Mapping[str, State]) -> str:
    """Packets get through when on every switch no foreign rule of higher priority takes them first."""
    for device, items in plan.desired.items():
        ours = [item for item in items if isinstance(item, FlowRule)]
        for other in states[device].items:
            if isinstance(other, FlowRule) and not other.ours and any(_shadows(other, rule) for rule in ours):
                return f"a foreign rule on {device} takes its packets first: priority {other.priority}, match {dict(other.match)}"
    return ""


def _shadows(other: FlowRule, rule: FlowRule) -> bool:
    """Whether `other` takes every packet that `rule` is for: it comes first and asks for nothing that the rule does not."""
    wanted: dict[str, Any] = dict(rule.match)
    return other.table == rule.table and other.priority > rule.priority and all(wanted.get(field) == value for field, value in other.match)


app = App(kind="connectivity", request=Connectivity, plan=plan, serving=serving)
