"""The OpenFlow 1.3 messages that the controller uses, as values; everything else is `Raw`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from controller.southbound.device import Actions, FlowRule, Match
from controller.southbound.openflow.groups import (
    GroupDescReply,
    GroupDescRequest,
    GroupMod,
    GroupStatsReply,
    GroupStatsRequest,
    MeterConfigReply,
    MeterConfigRequest,
    MeterMod,
    MeterStatsReply,
    MeterStatsRequest,
)
from controller.southbound.openflow.statistics import (
    AggregateStatsReply,
    AggregateStatsRequest,
    DescReply,
    DescRequest,
    PortStatsReply,
    PortStatsRequest,
    TableStatsReply,
    TableStatsRequest,
)

VERSION = 4
"""The wire version of OpenFlow 1.3."""

NO_BUFFER = 0xFFFFFFFF
ANY = 0xFFFFFFFF
"""OFPP_ANY and OFPG_ANY: no restriction on the output port or group."""

ALL_TABLES = 0xFF


class Port13(IntEnum):
    """The reserved port numbers (OpenFlow 1.3.5, 7.2.1)."""

    IN_PORT = 0xFFFFFFF8
    TABLE = 0xFFFFFFF9
    NORMAL = 0xFFFFFFFA
    FLOOD = 0xFFFFFFFB
    ALL = 0xFFFFFFFC
    CONTROLLER = 0xFFFFFFFD
    LOCAL = 0xFFFFFFFE


class Type(IntEnum):
    """The type byte of the header."""

    HELLO = 0
    ERROR = 1
    ECHO_REQUEST = 2
    ECHO_REPLY = 3
    EXPERIMENTER = 4
    FEATURES_REQUEST = 5
    FEATURES_REPLY = 6
    GET_CONFIG_REQUEST = 7
    GET_CONFIG_REPLY = 8
    SET_CONFIG = 9
    PACKET_IN = 10
    FLOW_REMOVED = 11
    PORT_STATUS = 12
    PACKET_OUT = 13
    FLOW_MOD = 14
    GROUP_MOD = 15
    PORT_MOD = 16
    TABLE_MOD = 17
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21
    QUEUE_GET_CONFIG_REQUEST = 22
    QUEUE_GET_CONFIG_REPLY = 23
    ROLE_REQUEST = 24
    ROLE_REPLY = 25
    GET_ASYNC_REQUEST = 26
    GET_ASYNC_REPLY = 27
    SET_ASYNC = 28
    METER_MOD = 29


class FlowCommand(IntEnum):
    ADD = 0
    MODIFY = 1
    MODIFY_STRICT = 2
    DELETE = 3
    DELETE_STRICT = 4


SEND_FLOW_REMOVED = 1
"""The FLOW_MOD flag that asks for a FLOW_REMOVED when the entry goes."""


class MalformedMessage(Exception):
    """Bytes that are no OpenFlow 1.3 message."""


@dataclass(frozen=True, slots=True)
class Hello:
    """`version` is the highest the sender speaks; `bitmap` lists all of them, and is empty when the sender gave none."""

    version: int = VERSION
    bitmap: tuple[int, ...] = (VERSION,)

    @property
    def speaks_13(self) -> bool:
        return VERSION in self.bitmap if self.bitmap else self.version >= VERSION


EXPERIMENTER_ERROR = 0xFFFF
"""The `type` of an error whose meaning is an experimenter's."""


@dataclass(frozen=True, slots=True)
class Error:
    """`data` begins with the message that was refused. `experimenter` is on the wire of an EXPERIMENTER_ERROR only; `code` is then its type."""

    type: int
    code: int
    data: bytes = b""
    experimenter: int = 0


@dataclass(frozen=True, slots=True)
class EchoRequest:
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class EchoReply:
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class FeaturesRequest:
    pass


@dataclass(frozen=True, slots=True)
class FeaturesReply:
    datapath_id: int
    buffers: int
    tables: int
    auxiliary_id: int = 0
    capabilities: int = 0


@dataclass(frozen=True, slots=True)
class GetConfigRequest:
    pass


@dataclass(frozen=True, slots=True)
class GetConfigReply:
    """`flags` say how fragments are treated; `miss_send_bytes` is how much of a frame goes into a PACKET_IN (0xFFFF: all, unbuffered)."""

    flags: int = 0
    miss_send_bytes: int = 0xFFFF


@dataclass(frozen=True, slots=True)
class SetConfig:
    """As `GetConfigReply`."""

    flags: int = 0
    miss_send_bytes: int = 0xFFFF


class Role(IntEnum):
    NOCHANGE = 0
    EQUAL = 1
    MASTER = 2
    SLAVE = 3


@dataclass(frozen=True, slots=True)
class RoleRequest:
    """A request for MASTER or SLAVE with a `generation_id` older than the newest the switch has seen is refused as STALE."""

    role: int
    generation_id: int = 0


@dataclass(frozen=True, slots=True)
class RoleReply:
    """The role that this session now has. `generation_id` is all ones when the switch has seen none."""

    role: int
    generation_id: int = 0


# The three messages of the reactive path are not frozen: freezing would cost as much as encoding them.
@dataclass(slots=True)
class PacketIn:
    buffer_id: int
    total_length: int
    reason: int
    table: int
    cookie: int
    match: Match
    data: bytes

    @property
    def in_port(self) -> int:
        """The port the frame came in by; 0, which is no port, when the switch did not say."""
        for name, value in self.match:
            if name == "in_port" and isinstance(value, int):
                return value
        return 0


@dataclass(slots=True)
class PacketOut:
    actions: Actions
    data: bytes = b""
    in_port: int = Port13.CONTROLLER
    buffer_id: int = NO_BUFFER


@dataclass(slots=True)
class FlowMod:
    """`rule` gives table, priority, match, cookie and (for additions and modifications) actions."""

    command: FlowCommand
    rule: FlowRule
    cookie_mask: int = 0
    idle_timeout_s: int = 0
    hard_timeout_s: int = 0
    buffer_id: int = NO_BUFFER
    out_port: int = ANY
    out_group: int = ANY
    flags: int = 0


@dataclass(frozen=True, slots=True)
class FlowRemoved:
    cookie: int
    priority: int
    reason: int
    table: int
    duration_s: float
    idle_timeout_s: int
    hard_timeout_s: int
    packets: int
    bytes: int
    match: Match


@dataclass(frozen=True, slots=True)
class Port:
    """One port; speeds are in kbit/s, as the wire has them."""

    number: int
    mac: str
    name: str
    config: int = 0
    state: int = 0
    current: int = 0
    advertised: int = 0
    supported: int = 0
    peer: int = 0
    current_speed_kbps: int = 0
    maximum_speed_kbps: int = 0

    @property
    def up(self) -> bool:
        """Neither OFPPC_PORT_DOWN (configured down) nor OFPPS_LINK_DOWN (no signal)."""
        return not (self.config & 1 or self.state & 1)


class PortReason(IntEnum):
    ADD = 0
    DELETE = 1
    MODIFY = 2


@dataclass(frozen=True, slots=True)
class PortStatus:
    reason: int
    port: Port


@dataclass(frozen=True, slots=True)
class BarrierRequest:
    pass


@dataclass(frozen=True, slots=True)
class BarrierReply:
    pass


# Multiparts: a reply with `more` is followed by another part with the same xid.


@dataclass(frozen=True, slots=True)
class PortDescRequest:
    pass


@dataclass(frozen=True, slots=True)
class PortDescReply:
    ports: tuple[Port, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class FlowStatsRequest:
    table: int = ALL_TABLES
    out_port: int = ANY
    out_group: int = ANY
    cookie: int = 0
    cookie_mask: int = 0
    match: Match = ()


@dataclass(slots=True)  # not frozen, because there are as many as rules
class FlowStats:
    rule: FlowRule
    duration_s: float = 0.0
    idle_timeout_s: int = 0
    hard_timeout_s: int = 0
    flags: int = 0
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class FlowStatsReply:
    flows: tuple[FlowStats, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Raw:
    """A message that is not modelled here; `body` is what follows the header."""

    type: int
    body: bytes

    @property
    def more(self) -> bool:
        """Whether it is a multipart reply of which another part follows."""
        return self.type == Type.MULTIPART_REPLY and len(self.body) >= 4 and bool(self.body[3] & 1)


Message = (
    Hello
    | Error
    | EchoRequest
    | EchoReply
    | FeaturesRequest
    | FeaturesReply
    | GetConfigRequest
    | GetConfigReply
    | SetConfig
    | PacketIn
    | PacketOut
    | FlowMod
    | FlowRemoved
    | GroupMod
    | MeterMod
    | PortStatus
    | BarrierRequest
    | BarrierReply
    | RoleRequest
    | RoleReply
    | DescRequest
    | DescReply
    | PortDescRequest
    | PortDescReply
    | PortStatsRequest
    | PortStatsReply
    | FlowStatsRequest
    | FlowStatsReply
    | AggregateStatsRequest
    | AggregateStatsReply
    | TableStatsRequest
    | TableStatsReply
    | GroupStatsRequest
    | GroupStatsReply
    | GroupDescRequest
    | GroupDescReply
    | MeterStatsRequest
    | MeterStatsReply
    | MeterConfigRequest
    | MeterConfigReply
    | Raw
)
