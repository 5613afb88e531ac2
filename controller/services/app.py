"""What a planner app is, and everything it may import: this module is Bellhop's interface to third parties.

An app owns one kind of service. It is a value, registered in the entry-point group `bellhop.apps` under its kind:

    app = App(kind="connectivity", request=Connectivity, plan=plan, serving=serving)

`plan` is pure and deterministic: the same request, network and ledger give the same plan, cookies included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from controller.network.topology import Topology, UnknownName
from controller.routing.refusal import NoRoute
from controller.services.ledger import Ledger, Reservation
from controller.southbound.device import BELLHOP_COOKIE_PREFIX, CrossConnect, FlowRule, Item, KeyRelay, State

__all__ = [
    "App",
    "Companion",
    "CrossConnect",
    "FlowRule",
    "Item",
    "KeyRelay",
    "Ledger",
    "NoRoute",
    "Plan",
    "Reservation",
    "State",
    "Topology",
    "UnknownName",
    "cookie",
]


@dataclass(frozen=True, slots=True)
class Companion:
    """Another service that must stand for this one to serve: a lightpath under a switched QKD link."""

    kind: str
    request: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a service is to be delivered.

    `desired` is what each device is to hold for it; `touches` the nodes and link ids it depends on; `route` what the user is shown.
    `expected_power_dbm` is the light that must be read back at ports of optical switches, by device.
    """

    desired: Mapping[str, tuple[Item, ...]]
    touches: frozenset[str]
    route: dict[str, Any]
    reservations: tuple[Reservation, ...] = ()
    companions: tuple[Companion, ...] = ()
    expected_power_dbm: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    explanation: tuple[str, ...] = ()
    network_revision: int = 0
    ledger_revision: int = 0


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
