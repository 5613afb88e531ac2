"""What can happen to a network, as typed events: the only way its state changes after it was loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_type_hints

from pydantic import TypeAdapter, ValidationError

from controller.network.model import Admin, Link, Node

_FIGURES = {name: TypeAdapter(hint) for name, hint in get_type_hints(Link, include_extras=True).items()}


@dataclass(frozen=True, slots=True)
class LinkStateChanged:
    """A link carries its signal, or does not, as a device reported it."""

    link: str
    up: bool


@dataclass(frozen=True, slots=True)
class LinkWindowChanged:
    """A link's availability window began, or ended, by the clock."""

    link: str
    open: bool


@dataclass(frozen=True, slots=True)
class LinkMeasured:
    """A device reported one figure of a link (`rate_bps`, `qber`). ValueError for one that a document may not give it either."""

    link: str
    figure: Literal["rate_bps", "qber", "loss_db", "rate_hz", "fidelity"]
    value: float

    def __post_init__(self) -> None:
        try:
            _FIGURES[self.figure].validate_python(self.value)
        except ValidationError as error:
            raise ValueError(f"{self.figure} of {self.link} cannot be {self.value!r}: {error.errors()[0]['msg']}") from None


@dataclass(frozen=True, slots=True)
class AdminChanged:
    """An operator enabled, drains or disabled a node or a link."""

    subject: Literal["node", "link"]
    name: str
    admin: Admin


@dataclass(frozen=True, slots=True)
class NodeAdded:
    name: str
    node: Node


@dataclass(frozen=True, slots=True)
class LinkAdded:
    link: Link


@dataclass(frozen=True, slots=True)
class LinkRemoved:
    link: str


NetworkEvent = LinkStateChanged | LinkWindowChanged | LinkMeasured | AdminChanged | NodeAdded | LinkAdded | LinkRemoved
