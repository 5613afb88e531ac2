"""What a planner app is, and everything it may import: this module is Bellhop's interface to third parties.

A planner app owns one kind of service. It is a value, registered in the entry-point group `bellhop.apps` under its kind:

    app = App(kind="connectivity", request=Connectivity, plan=plan, serving=serving)

`plan` is pure and deterministic: the same request, network and ledger give the same plan, cookies included.

A packet app answers the packets that OpenFlow switches send to the controller. It is a value named `app` in a module that the setting
`apps` lists, as `apps: [apps.learning_switch]`:

    app = PacketApp(name="learning-switch", packet_in=packet_in)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from pydantic import BaseModel, ConfigDict

from controller.network.topology import Topology, UnknownName
from controller.routing.compiled import compiled
from controller.routing.refusal import NoRoute
from controller.services.ledger import Entry, Ledger
from controller.southbound.device import (
    BELLHOP_COOKIE_PREFIX,
    GROUP_NUMBERS,
    METER_BURST,
    METER_KBPS,
    METER_NUMBERS,
    METER_STATS,
    Actions,
    Band,
    Bucket,
    CrossConnect,
    FlowRule,
    Group,
    GroupType,
    Item,
    KeyRelay,
    Match,
    Meter,
    State,
)
from controller.southbound.openflow.codec import encode, rebuffered
from controller.southbound.openflow.messages import NO_BUFFER, FlowCommand, FlowMod, Message, PacketIn, PacketOut, Port, Port13

__all__ = [
    "GROUP_NUMBERS",
    "METER_BURST",
    "METER_KBPS",
    "METER_NUMBERS",
    "METER_STATS",
    "NO_BUFFER",
    "Actions",
    "App",
    "Band",
    "Bucket",
    "Companion",
    "CrossConnect",
    "Entry",
    "FlowCommand",
    "FlowMod",
    "FlowRule",
    "Group",
    "GroupType",
    "Item",
    "KeyRelay",
    "Ledger",
    "Message",
    "Meter",
    "NoRoute",
    "PacketApp",
    "PacketIn",
    "PacketOut",
    "Plan",
    "Port13",
    "State",
    "Switch",
    "Topology",
    "UnknownName",
    "classical_channels",
    "cookie",
    "encode",
    "rebuffered",
]


@dataclass(frozen=True, slots=True)
class Companion:
    """Another service that must stand for this one to serve: a lightpath under a switched QKD link."""

    kind: str
    request: dict[str, Any]


def classical_channels(network: Topology, neighbours: Iterable[tuple[str, str]]) -> tuple[Companion, ...]:
    """What the neighbouring nodes of a quantum service need between them: connectivity within a latency, at a promised and metered rate.

    One for each pair of hosts, whatever service asks for it, so that all share it. Nodes whose document has no `classical` need none.
    """
    attached = compiled(network).by_structure.of(
        "attachments", lambda: {name: node.classical for name, node in network.nodes() if node.classical is not None}
    )
    if not attached:
        return ()
    found: dict[tuple[str, str], Companion] = {}
    for pair in neighbours:
        here, there = (attached.get(name) for name in pair)
        if here is None or there is None or here.host == there.host:
            continue
        a, b = sorted((here.host, there.host))
        rate_mbps = max(here.rate_mbps, there.rate_mbps)
        request = {
            "ends": [a, b],
            "max_latency_ms": min(here.max_latency_ms, there.max_latency_ms),
            "rate_mbps": rate_mbps,
            "max_rate_kbps": round(1000 * rate_mbps),
        }
        found.setdefault((a, b), Companion("connectivity", request))
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Plan:
    """How a service is to be delivered.

    `desired` is what each device is to hold for it; `touches` the nodes and link ids it depends on; `route` what the user is shown.
    `reservations` are amounts of resources as the ledger names them, for the service's interval. `expected_power_dbm` is the light that must be read back at ports of optical switches, by device.
    """

    desired: Mapping[str, tuple[Item, ...]]
    touches: frozenset[str]
    route: dict[str, Any]
    reservations: Mapping[str, float] = field(default_factory=dict)
    companions: tuple[Companion, ...] = ()
    expected_power_dbm: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    explanation: tuple[str, ...] = ()
    network_revision: int = 0
    ledger_revision: int = 0

    def __reduce__(self) -> tuple[object, ...]:
        """By its values: plans come from another process by the thousand, and a frozen dataclass looks its fields up each time."""
        return Plan, _PLAN_VALUES(self)


_PLAN_VALUES = attrgetter(*Plan.__slots__)
PlanFunction = Callable[[str, Any, Topology, Ledger, float], Plan]
ServingFunction = Callable[[str, Plan, Mapping[str, State]], str]
SuspectsFunction = Callable[[Plan, Mapping[str, State]], frozenset[str]]


def no_suspects(plan: Plan, states: Mapping[str, State]) -> frozenset[str]:
    """For apps that cannot tell from the devices' readings which link is to blame."""
    return frozenset()


class Request(BaseModel):
    """What every request has; an app's request model adds its constraints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ends: tuple[str, str]


@dataclass(frozen=True, slots=True)
class App:
    """A planner app.

    `plan(service id, request, network, ledger, now)` returns a Plan, or raises NoRoute or UnknownName. `serving(service id, plan, states)`
    returns what is still missing for the service to be ACTIVE, once every item has been read back; the empty text when nothing is.
    """

    kind: str
    request: type[Request]
    plan: PlanFunction
    serving: ServingFunction
    suspects: SuspectsFunction = no_suspects
    """Which links are to blame when every item is in place and the service yet does not serve, judged from the readings along its route."""
    buffered: bool = False
    """Whether the service serves from a stock while its devices are being changed; it stays ACTIVE then, as long as `serving` is content."""


def cookie(service: str) -> int:
    """The 64-bit cookie of a service's flow rules: Bellhop's prefix, then 48 bits of the service id's SHA-256."""
    return BELLHOP_COOKIE_PREFIX << 48 | int.from_bytes(hashlib.sha256(service.encode()).digest()[:6])


@dataclass(frozen=True, slots=True)
class Switch:
    """An OpenFlow switch as a packet app sees it."""

    name: str
    datapath_id: int
    cookie: int
    """What the app's rules on switches carry, so that they are known to be its own; the low 16 bits are free for the app to use."""
    ports: Callable[[], Mapping[int, Port]]
    """The switch's ports by number, as they are now."""
    memory: dict[Any, Any] = field(default_factory=dict)
    """What the app remembers of this switch; nobody else reads it."""


@dataclass(frozen=True, slots=True)
class PacketApp:
    """An app that answers packets.

    `packet_in(switch, packet)` gives the messages to send to the switch that the packet came from, or the bytes of such: PACKET_OUTs, and
    FLOW_MODs with the switch's `cookie` and a timeout. It is called on the event loop, once a packet: it must not wait, and should take
    microseconds. Its rules are its own affair: they are neither repaired nor reported as foreign, and they are removed once the app is no longer loaded.
    """

    name: str
    packet_in: Callable[[Switch, PacketIn], Iterable[Message | bytes]]
    packets: tuple[Match, ...] = ((),)
    """Which packets the app is given: on each switch a rule per match sends them to the controller, in table 0."""
    priority: int = 0
    """Of those rules; 0 with the empty match takes what no other rule does."""

    @property
    def cookie(self) -> int:
        """Bellhop's prefix, then 32 bits of the SHA-256 of the app's name, and 16 bits that are the app's own."""
        return BELLHOP_COOKIE_PREFIX << 48 | int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4]) << 16
