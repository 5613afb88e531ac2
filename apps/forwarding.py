"""Connectivity between two hosts: proactive flow rules along the classical path of least latency, both ways.

Per direction, the switch at the source lets packets in (source and destination MAC, and the port) and addresses its ARP requests and
neighbour solicitations for the destination to the destination alone; from there on one rule per switch carries all of them. Nothing is
flooded, and nothing waits for the controller: addresses are still resolved when it is dead. It answers in the target's name only where
these rules are not: a host that has moved asks from another port.

A host's `vlan` is that of its access port. Its frames are untagged there, carry the tag between switches, and are joined only with a host
of the same VLAN; a tagged frame from such a host is dropped. Hosts without `vlan` are joined as by a wire: tags of their own pass.

Fast failover needs no controller either. The working path and the protection path share no switch (or no link) between the hosts' own.
Every switch of the working path has a group: onwards while that port is live, else back by the port the packet came in. The switches
behind send it back further, and the first one puts it on the protection path, as it does by itself when its own link is cut (crankback).
So any one link between switches may be cut, or any one switch in between fail where the paths share none; the hosts' own links are not
covered. A packet goes onwards, back, and over the protection path at most once each: whatever else is cut, none goes round in circles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from controller.network.model import Node, parse_end
from controller.routing.classical import ClassicalRoute, classical, disjoint_pair
from controller.services.app import (
    GROUP_NUMBERS,
    METER_BURST,
    METER_KBPS,
    METER_NUMBERS,
    METER_STATS,
    Actions,
    App,
    Band,
    Bucket,
    FlowRule,
    Group,
    GroupType,
    Item,
    Ledger,
    Meter,
    NoRoute,
    Plan,
    Request,
    State,
    Topology,
    cookie,
)

PACKET_PRIORITY = 1000
QUESTION_PRIORITY = 1001
ETH_TYPE_ARP, ETH_TYPE_IPV6, ETH_TYPE_VLAN = 0x0806, 0x86DD, 0x8100
ICMPV6, NEIGHBOUR_SOLICITATION = 58, 135
VLAN_PRESENT = 0x1000
BACK = 0xFFFFFFF8
"""OFPP_IN_PORT: out of the port it came in by."""
LEAST_BURST_KBIT = 200
"""Sixteen full frames."""

Step = tuple[str, int, int]
"""A switch of a path, the port by which a packet comes in and the one by which it leaves."""


class Connectivity(Request):
    """Packets between two hosts.

    `rate_mbps` is promised in each direction, out of the links' capacity; `max_rate_kbps` is what the first switch lets in of each.
    No path that it is given takes longer than `max_latency_ms`, by the latencies of its links.
    """

    protection: Literal["none", "fast-failover"] = "none"
    disjoint: Literal["node", "link"] = "node"
    """What the working and the protection path may not have in common."""
    rate_mbps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    max_rate_kbps: Annotated[int, Field(ge=1, le=0xFFFFFFFF)] | None = None
    max_latency_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


def plan(service: str, request: Connectivity, network: Topology, ledger: Ledger, now_s: float) -> Plan:
    """Rules on every switch of the path or the two paths.

    Raises NoRoute when an end is no host, lacks its addresses, cannot be reached at the rate (`rate_mbps`), in time
    (`max_latency_ms`) or by two paths (`disjoint`), or when the two are connected already: a second service's rules would have the same matches.
    """
    there, back = (_host(network, name) for name in request.ends)
    if (there.ip is None or back.ip is None) and (there.ipv6 is None or back.ipv6 is None):
        raise NoRoute(f"{' and '.join(request.ends)} have no address of one family: give both ip, or both ipv6", "ends", None)
    if there.vlan != back.vlan:
        vlans = [f"{name} is in {f'VLAN {network.node(name).vlan}' if network.node(name).vlan else 'none'}" for name in request.ends]
        raise NoRoute(f"hosts are joined within one VLAN: {', '.join(vlans)}", "vlan", None)
    pair = ",".join(sorted(request.ends))
    if ledger.reserved_of("hosts").get(pair):
        raise NoRoute(f"{' and '.join(request.ends)} are connected by another service already", "ends", None)
    routes = _routes(request, network, ledger)
    slowest_ms = max(route.latency_ms for route in routes)
    if request.max_latency_ms is not None and slowest_ms > request.max_latency_ms:
        by = "the path of least latency takes" if len(routes) == 1 else "of the two paths of least latency the slower takes"
        why = f"{' and '.join(request.ends)} are too far apart: {by} {slowest_ms:.6g} ms, and {request.max_latency_ms:g} ms are allowed"
        raise NoRoute(why, "max_latency_ms", slowest_ms)
    ways = [_steps(route) for route in routes]
    backwards = [[(switch, outward, inward) for switch, inward, outward in reversed(way)] for way in ways]
    reservations = {f"hosts:{pair}": 1.0}
    if request.rate_mbps:
        reservations |= {f"ethernet:{link}": request.rate_mbps for route in routes for link in route.links}
    numbers = _Numbers(service, ledger)
    desired: dict[str, list[Item]] = {}
    for source, target, each in ((there, back, ways), (back, there, backwards)):
        for switch, item in _Direction(cookie(service), source, target, request.max_rate_kbps, numbers).items(*each):
            desired.setdefault(switch, []).append(item)
    return Plan(
        desired={switch: tuple(items) for switch, items in desired.items()},
        touches=frozenset(name for route in routes for name in (*route.nodes, *route.links)),
        route={**routes[0].to_json(), "protection": routes[1].to_json() if len(routes) > 1 else None},
        reservations=reservations | dict.fromkeys(numbers.given, 1.0),
        explanation=tuple(line for route in routes for line in route.explanation),
    )


def _host(network: Topology, name: str) -> Node:
    node = network.node(name)
    if node.kind != "host" or node.mac is None or (node.ip is None and node.ipv6 is None):
        raise NoRoute(f"{name} is no host with mac and ip or ipv6 in the network document", "ends", None)
    return node


class _Numbers:
    """Numbers of groups and meters, each switch for itself: the same in every run, but for one that another service has there."""

    def __init__(self, service: str, ledger: Ledger) -> None:
        self._service = service
        self._taken = {"group": ledger.reserved_of("group"), "meter": ledger.reserved_of("meter")}
        self.given: list[str] = []
        """The resources, `group:<switch>:<number>` or `meter:<switch>:<number>`."""

    def of(self, kind: Literal["group", "meter"], switch: str, source: str) -> int:
        """NoRoute (`numbers`) when the switch has none left."""
        numbers = GROUP_NUMBERS if kind == "group" else METER_NUMBERS
        first = int.from_bytes(hashlib.sha256(f"{self._service} {source}".encode()).digest()[:4])
        for tried in range(len(numbers)):
            number = numbers[(first + tried) % len(numbers)]
            resource = f"{kind}:{switch}:{number}"
            if f"{switch}:{number}" not in self._taken[kind] and resource not in self.given:
                self.given.append(resource)
                return number
        raise NoRoute(f"{switch} has all {len(numbers)} {kind}s that Bellhop may have there", "numbers", 0.0)


# the paths


def _routes(request: Connectivity, network: Topology, ledger: Ledger) -> list[ClassicalRoute]:
    """The working path and, when it is protected and has links between switches, the protection path."""
    conditions: dict[str, Any] = {"min_capacity_mbps": request.rate_mbps or None, "reserved": ledger.reserved_of("ethernet")}
    try:
        least = classical(network, *request.ends, **conditions)
        if request.protection == "none" or len(least.nodes) == 3:
            return [least]
        pair = disjoint_pair(network, least.nodes[1], least.nodes[-2], by=request.disjoint, **conditions)
    except NoRoute as no:
        if no.constraint == "min_capacity_mbps":
            raise NoRoute(str(no), "rate_mbps", no.best) from None
        raise
    return [_between_hosts(network, least, inner) for inner in pair]


def _between_hosts(network: Topology, hosts: ClassicalRoute, inner: ClassicalRoute) -> ClassicalRoute:
    """A path between switches, with the links of the hosts at these switches before and after it."""
    links = (hosts.links[0], *inner.links, hosts.links[-1])
    figures = [network.figure(network.link(link), "latency_ms") for link in (links[0], links[-1])]
    return replace(
        inner,
        nodes=(hosts.nodes[0], *inner.nodes, hosts.nodes[-1]),
        links=links,
        latency_ms=inner.latency_ms + sum(figure.value for figure in figures if figure),
        ports=(hosts.ports[0], *inner.ports, hosts.ports[-1]),
        explanation=(hosts.explanation[0], *inner.explanation[:-1], hosts.explanation[-2], inner.explanation[-1]),
    )


def _steps(route: ClassicalRoute) -> list[Step]:
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


# what switches hold


@dataclass(frozen=True, slots=True)
class _Direction:
    """What switches hold for the packets of one host to the other. `hop` of rules grows along the longest way that a packet can take."""

    owner: int
    source: Node
    target: Node
    max_rate_kbps: int | None
    numbers: _Numbers

    def items(self, working: list[Step], protection: list[Step] | None = None) -> Iterator[tuple[str, Item]]:
        tagged = self.source.vlan is not None and len(working) > 1
        enter: Actions = (("push_vlan", ETH_TYPE_VLAN), ("set_field:vlan_vid", VLAN_PRESENT | (self.source.vlan or 0))) if tagged else ()
        leave: Actions = (("pop_vlan", 0),) if tagged else ()
        last = len(working) - 1
        for hop, (switch, in_port, out_port) in enumerate(working):
            onward: Actions = (("output", out_port),)
            if protection and hop < last:
                # A packet may leave by the port it came in by only when that is said by the reserved port's name.
                aside, watched = (protection[0][2], protection[0][2]) if hop == 0 else (BACK, in_port)
                buckets = (Bucket(onward, watch_port=out_port), Bucket((("output", aside),), watch_port=watched))
                group = Group(self.numbers.of("group", switch, str(self.source.mac)), GroupType.FAST_FAILOVER, buckets)
                yield switch, group
                onward = (("group", group.number),)
            if hop == 0:
                yield from self._entrance(switch, in_port, enter, onward)
            else:
                yield switch, self._carry(hop, in_port, (*leave, *onward) if hop == last else onward)
        if protection:
            for hop, (switch, in_port, out_port) in enumerate(working[:-2]):
                aside = protection[0][2] if hop == 0 else in_port
                yield switch, self._carry(2 * last - 1 - hop, out_port, (("output", aside),))
            for hop, (switch, in_port, out_port) in enumerate(protection[1:], 2 * last):
                ending = leave if switch == working[-1][0] else ()
                yield switch, self._carry(hop, in_port, (*ending, ("output", out_port)))

    def _entrance(self, switch: str, in_port: int, enter: Actions, onward: Actions) -> Iterator[tuple[str, Item]]:
        """At the source's own switch: packets, within their rate, and questions for the target's address, addressed to the target."""
        limit: Actions = ()
        if self.max_rate_kbps is not None:
            burst_kbit = max(self.max_rate_kbps // 10, LEAST_BURST_KBIT)
            meter = Meter(
                self.numbers.of("meter", switch, str(self.source.mac)),
                METER_KBPS | METER_BURST | METER_STATS,
                (Band(self.max_rate_kbps, burst_kbit),),
            )
            yield switch, meter
            limit = (("meter", meter.number),)
        origin: dict[str, int | str] = {"eth_src": str(self.source.mac), "in_port": in_port}
        if self.source.vlan:
            origin["vlan_vid"] = 0
        yield switch, self._rule(0, PACKET_PRIORITY, origin | {"eth_dst": str(self.target.mac)}, (*enter, *onward, *limit))
        questions: list[dict[str, int | str]] = []
        if self.target.ip is not None:
            questions.append({"eth_type": ETH_TYPE_ARP, "arp_tpa": self.target.ip})
        if self.target.ipv6 is not None:
            solicitation = {"eth_type": ETH_TYPE_IPV6, "ip_proto": ICMPV6, "icmpv6_type": NEIGHBOUR_SOLICITATION}
            questions.append({**solicitation, "ipv6_nd_target": self.target.ipv6})
        to_target = ("set_field:eth_dst", str(self.target.mac))
        for question in questions:
            yield switch, self._rule(0, QUESTION_PRIORITY, origin | question, (to_target, *enter, *onward))

    def _carry(self, hop: int, in_port: int, actions: Actions) -> FlowRule:
        match: dict[str, int | str] = {"eth_dst": str(self.target.mac), "eth_src": str(self.source.mac), "in_port": in_port}
        if self.source.vlan:
            match["vlan_vid"] = VLAN_PRESENT | self.source.vlan
        return self._rule(hop, PACKET_PRIORITY, match, actions)

    def _rule(self, hop: int, priority: int, match: Mapping[str, int | str], actions: Actions) -> FlowRule:
        return FlowRule(priority, tuple(sorted(match.items())), actions, self.owner, hop=hop)


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
