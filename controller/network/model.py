"""What a network is made of: nodes, the modules they own, and the links between them.

These frozen models are the one description of a network: the document, the routing core, the API and the emulator all use them. They are
slotted, since a network may have half a million of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, TypeAdapter, field_validator
from pydantic.dataclasses import dataclass

NodeKind = Literal[
    "end-node",
    "trusted-node",
    "repeater",
    "source",
    "bell-station",
    "optical-switch",
    "wavelength-switch",
    "passive",
    "openflow-switch",
    "host",
    "satellite",
    "ground-station",
]
LinkKind = Literal["fibre", "free-space", "qkd", "entanglement", "ethernet"]
Technology = Literal["bb84-decoy", "bbm92", "cow", "sarg04", "cv", "dps", "twin-field", "mdi", "memory"]
Admin = Literal["enabled", "draining", "disabled"]
Signal = Literal["quantum", "service", "synchronisation"]
Origin = Literal["declared", "computed", "measured", "assumed"]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
EndText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*([:/][A-Za-z0-9][A-Za-z0-9_.-]*)?$", max_length=128)]
LinkId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]*$", max_length=200)]


def with_port(address: str) -> str:
    """An address that ends in a TCP port, as it is; ValueError when no port has that number."""
    if not 1 <= int(address.rpartition(":")[2]) <= 65535:
        raise ValueError(f"'{address}' ends in no port; give one from 1 to 65535")
    return address


Address = Annotated[str, StringConstraints(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$"), AfterValidator(with_port)]
_LEAST, _MOST = 1e-30, 1e30
"""Of any figure, so that products of a few stay numbers and in the domain of the formulas."""


def _no_rounding(value: float) -> float:
    if value < _LEAST:
        raise ValueError(f"{value:g} is too small for a figure; the least is {_LEAST:g}")
    return value


Positive = Annotated[float, Field(gt=0, le=_MOST, allow_inf_nan=False), AfterValidator(_no_rounding)]
NonNegative = Annotated[float, Field(ge=0, le=_MOST, allow_inf_nan=False)]
Real = Annotated[float, Field(allow_inf_nan=False)]
Fidelity = Annotated[float, Field(ge=0.25, le=1, allow_inf_nan=False)]
Probability = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Latitude = Annotated[float, Field(ge=-90, le=90)]
Longitude = Annotated[float, Field(ge=-180, le=180)]

STRICT = ConfigDict(extra="forbid")


@dataclasses.dataclass(frozen=True, slots=True)
class End:
    """One end of a link: a node, and where it matters the port or the module there."""

    node: str
    port: str | None = None
    module: str | None = None

    def __str__(self) -> str:
        if self.port is not None:
            return f"{self.node}:{self.port}"
        if self.module is not None:
            return f"{self.node}/{self.module}"
        return self.node


def _utc(moment: datetime) -> datetime:
    """A moment without a time zone is in UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


Instant = Annotated[datetime, AfterValidator(_utc)]


def _ipv6(text: str) -> str:
    """An IPv6 address in its one canonical form (RFC 5952), so that equal addresses are equal texts."""
    try:
        address = IPv6Address(text)
    except ValueError:
        raise ValueError(f"'{text}' is no IPv6 address; give one as in fd00::1") from None
    if address.scope_id or address.is_multicast or address.is_unspecified:
        raise ValueError(f"'{text}' is no IPv6 address of one host; give one as in fd00::1")
    return str(address)


@lru_cache(maxsize=1 << 14)
def parse_end(text: str) -> End:
    """`node`, `node:port` or `node/module`."""
    node, colon, port = text.partition(":")
    if colon:
        return End(node, port=port)
    node, slash, module = text.partition("/")
    return End(node, module=module) if slash else End(node)


def node_of(text: str) -> str:
    """The node of an end: `parse_end(text).node`, for those who ask it of every link."""
    return text.partition(":")[0].partition("/")[0]


def default_id(kind: str, a: str, b: str) -> str:
    """The id of a link between these ends that is given none."""
    return f"{kind}:{node_of(a)}--{node_of(b)}"


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Swap:
    """A repeater's Bell-state measurement: chance to succeed, and fidelity of the output for two perfect inputs."""

    success: Probability = 1.0
    fidelity: Fidelity = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Module:
    """A QKD transmitter or receiver, a memory interface, or a classical transceiver beside them, of a node."""

    role: Literal["tx", "rx", "tx-rx", "memory"]
    signal: Signal = "quantum"
    """What it sends or takes. Service and synchronisation signals are classical light, which no quantum receiver may meet."""
    technology: Technology = "bb84-decoy"
    wavelength_nm: Positive = 1550.0
    max_loss_db: Positive | None = None
    """The most channel loss with which the module still makes key."""
    launch_dbm: Real = -20.0
    """Power of the synchronisation signal a transmitter sends with its quantum signal; what switches' power monitors see.
    Of a classical transmitter: its power."""
    max_input_dbm: Real | None = None
    """The most power a receiver takes."""
    clock_hz: Positive | None = None
    port: EndText | None = None
    """The port of an optical switch the module is patched to (ETSI GS QKD 015 `qkdi_att_point`); None: its fibre says."""

    @field_validator("port")
    @classmethod
    def _port_names_a_port(cls, text: str | None) -> str | None:
        if text is not None and parse_end(text).port is None:
            raise ValueError(f"'{text}' names no port; write it as switch:port, for instance ocs1:1")
        return text


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Channel:
    """A data channel that somebody else has lit in a fibre, added and dropped by filters at the fibre's ends."""

    wavelength_nm: Annotated[float, Field(ge=1200, le=1700)]
    launch_dbm: Annotated[float, Field(ge=-100, le=40)]
    direction: Literal["forward", "backward"] = "forward"
    """Forward runs from the first of the fibre's ends to the second."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Window:
    """An interval in which a link is available, from `start` until just before `end`."""

    start: Instant
    end: Instant

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise ValueError("the window ends before it starts; give an end later than the start")


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Attachment:
    """How a node is attached to the classical network, and what its quantum services need of the way to another node that is."""

    host: Name
    """The host by which its classical messages leave and arrive: sifting, error correction, heralding."""
    max_latency_ms: Positive
    """The most that a message may take; of two nodes the stricter counts."""
    rate_mbps: Annotated[float, Field(ge=0.001, le=4_000_000)]
    """What is promised to the messages of one direction, and all they are let in with; of two nodes the greater counts."""


_ANY_MODULE = {"modules", "classical"}
_KEY_NODE = _ANY_MODULE | {"kme", "saes"}
_MEMORY_NODE = _ANY_MODULE | {"memories", "t1_s", "t2_s", "swap"}
NODE_FIELDS: Mapping[str, frozenset[str]] = {
    "end-node": frozenset(_KEY_NODE | _MEMORY_NODE - {"swap"}),
    "trusted-node": frozenset(_KEY_NODE),
    "repeater": frozenset(_MEMORY_NODE),
    "source": frozenset(_ANY_MODULE),
    "bell-station": frozenset(_ANY_MODULE),
    "optical-switch": frozenset({"ports", "sides", "insertion_loss_db", "driver", "address"}),
    "wavelength-switch": frozenset({"ports", "insertion_loss_db", "driver", "address"}),
    "passive": frozenset({"ports", "insertion_loss_db", "losses_db", "bands"}),
    "openflow-switch": frozenset({"dpid"}),
    "host": frozenset({"ip", "ipv6", "mac", "vlan"}),
    "satellite": frozenset(_KEY_NODE),
    "ground-station": frozenset(_KEY_NODE),
}
"""Which fields beside the common ones a node kind has; the fields of Node minus all of these are common."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Node:
    """One node of the network. Which fields it may carry depends on its kind (NODE_FIELDS)."""

    kind: NodeKind
    location: tuple[Latitude, Longitude] | None = None
    """Latitude and longitude in degrees."""
    site: Name | None = None
    operator: Name | None = None
    admin: Admin = "enabled"
    source: str | None = None
    origins: dict[str, Origin] = Field(default_factory=dict)
    modules: dict[Name, Module] = Field(default_factory=dict)
    classical: Attachment | None = None
    """Its quantum services have a classical channel to each neighbour that is attached, too."""
    kme: Address | None = None
    """Where the node's key management entity listens (HTTPS)."""
    saes: tuple[Name, ...] = ()
    """The SAE IDs its KME serves; a node with a KME and none listed serves `sae-<node>`."""
    memories: Annotated[int, Field(ge=1)] | None = None
    t1_s: Positive | None = None
    t2_s: Positive | None = None
    swap: Swap | None = None
    ports: Annotated[int, Field(ge=2, le=65535)] | None = None
    sides: Literal["dual", "single"] | None = None
    """A dual-sided switch connects its lower half of ports (ingress) to its upper half (egress); a single-sided one any two ports."""
    insertion_loss_db: NonNegative | None = None
    losses_db: dict[Annotated[str, StringConstraints(pattern=r"^[0-9]+-[0-9]+$")], NonNegative] = Field(default_factory=dict)
    """Loss per port pair of a passive node, as `{"1-2": 3.4}`; a pair that is not listed is dark unless insertion_loss_db is given."""
    bands: dict[Annotated[str, StringConstraints(pattern=r"^[0-9]+$")], tuple[Positive, Positive]] = Field(default_factory=dict)
    """Lowest and highest wavelength in nm that a port of a passive node passes, as `{"2": [1549, 1551]}`; a port not listed passes all."""
    driver: Literal["netconf", "scpi"] | None = None
    """How an optical switch is spoken to; NETCONF where nothing is said."""
    address: Address | None = None
    dpid: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")] | None = None
    ip: Annotated[str, StringConstraints(pattern=r"^[0-9.]{7,15}$")] | None = None
    ipv6: Annotated[str, AfterValidator(_ipv6)] | None = None
    mac: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")] | None = None
    vlan: Annotated[int, Field(ge=1, le=4094)] | None = None
    """The VLAN of a host's access port: its frames are untagged there and carry this VLAN id between switches."""

    def origin(self, field: str) -> Origin:
        """Where a given figure comes from: as said in `origins`, else declared when a source is named, else assumed."""
        return self.origins.get(field, "declared" if self.source else "assumed")

    @property
    def holds_keys(self) -> bool:
        """Whether keys are stored here: the node is an end of key links, trusted or serving users."""
        return self.kind in ("end-node", "trusted-node", "satellite", "ground-station")


_LIGHT = frozenset({"length_km", "loss_db", "loss_db_per_km"})
LINK_FIELDS: Mapping[str, frozenset[str]] = {
    "fibre": _LIGHT | {"channels", "raman_per_km_nm"},
    "free-space": _LIGHT,
    "qkd": frozenset({"over", "protocol", "rate_bps", "qber"}),
    "entanglement": frozenset({"over", "protocol", "rate_hz", "fidelity", "state", "via"}),
    "ethernet": frozenset({"capacity_mbps", "latency_ms"}),
}
"""Which fields beside the common ones a link kind has."""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Link:
    """One link. Which fields it may carry depends on its kind (LINK_FIELDS).

    `rate_bps` is secret key after the KME's own use; `rate_hz` is entangled pairs per second, all parallel channels together.
    """

    kind: LinkKind
    ends: tuple[EndText, EndText]
    id: LinkId = ""
    admin: Admin = "enabled"
    shared_risk: tuple[Name, ...] = ()
    windows: tuple[Window, ...] = ()
    source: str | None = None
    origins: dict[str, Origin] = Field(default_factory=dict)
    length_km: NonNegative | None = None
    loss_db: NonNegative | None = None
    loss_db_per_km: Positive | None = None
    channels: tuple[Channel, ...] = ()
    raman_per_km_nm: Annotated[float, Field(gt=0, le=1e-6, allow_inf_nan=False)] | None = None
    """Share of a data channel's power that a km of this fibre scatters into a nm of the quantum channel's spectrum, one way."""
    over: Literal["switched"] | tuple[LinkId, ...] = ()
    """The fibres a quantum link rides on, or `switched`: it exists only while a lightpath joins its modules."""
    protocol: Technology | None = None
    rate_bps: NonNegative | None = None
    qber: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] | None = None
    rate_hz: NonNegative | None = None
    fidelity: Fidelity | None = None
    state: tuple[NonNegative, NonNegative, NonNegative, NonNegative] | None = None
    """Bell-diagonal coefficients (Phi+, Psi-, Psi+, Phi-) instead of a fidelity."""
    via: Name | None = None
    """The entangled-pair source or Bell station in the middle."""
    capacity_mbps: Positive | None = None
    latency_ms: NonNegative | None = None

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", default_id(self.kind, *self.ends))

    @field_validator("state")
    @classmethod
    def _state_is_normalised(cls, state: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
        if state is not None and not math.isclose(sum(state), 1.0, abs_tol=1e-6):
            raise ValueError(f"the coefficients add up to {sum(state):g}; make them add up to 1")
        return state

    @property
    def a(self) -> End:
        return parse_end(self.ends[0])

    @property
    def b(self) -> End:
        return parse_end(self.ends[1])

    @property
    def nodes(self) -> tuple[str, str]:
        a, b = self.ends
        return node_of(a), node_of(b)

    @property
    def switched(self) -> bool:
        return self.over == "switched"

    @property
    def fibres(self) -> tuple[str, ...]:
        """Ids of the fibres it rides on for good; empty for a switched link."""
        return self.over if isinstance(self.over, tuple) else ()

    def origin(self, field: str) -> Origin:
        """As of a node."""
        return self.origins.get(field, "declared" if self.source else "assumed")


NODE_NAMES = frozenset(field.name for field in dataclasses.fields(Node))
LINK_NAMES = frozenset(field.name for field in dataclasses.fields(Link))
NODE: TypeAdapter[Node] = TypeAdapter(Node)
LINK: TypeAdapter[Link] = TypeAdapter(Link)


def given(part: Node | Link) -> dict[str, Any]:
    """What was said of a node or link, as the document would have it: JSON without what is left at its default."""
    adapter: TypeAdapter[Any] = NODE if isinstance(part, Node) else LINK
    said: dict[str, Any] = adapter.dump_python(part, mode="json", exclude_defaults=True)
    return said
