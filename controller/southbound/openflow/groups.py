"""Groups and meters as values: what a switch holds of them, the messages that change them, and what they have counted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from controller.southbound.device import Actions

ALL_GROUPS = 0xFFFFFFFC
NO_WATCH = 0xFFFFFFFF
"""OFPP_ANY and OFPG_ANY: the bucket watches no port, no group."""

ALL_METERS = 0xFFFFFFFF
CONTROLLER_METER = 0xFFFFFFFE
"""The meter that every PACKET_IN passes."""


class GroupCommand(IntEnum):
    ADD = 0
    MODIFY = 1
    DELETE = 2


class GroupType(IntEnum):
    """ALL buckets, one that the switch SELECTs, the only one (INDIRECT), or the first whose watched port or group is live."""

    ALL = 0
    SELECT = 1
    INDIRECT = 2
    FAST_FAILOVER = 3


@dataclass(frozen=True, slots=True)
class Bucket:
    """`weight` counts in SELECT groups; `watch_port` and `watch_group` in FAST_FAILOVER groups, where one of them is required."""

    actions: Actions
    weight: int = 0
    watch_port: int = NO_WATCH
    watch_group: int = NO_WATCH


@dataclass(frozen=True, slots=True)
class Group:
    """One entry of the group table. `type` is a `GroupType`, or the number of one that is not in OpenFlow 1.3."""

    number: int
    type: int
    buckets: tuple[Bucket, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupMod:
    """A DELETE reads no more of `group` than its number, which may be ALL_GROUPS."""

    command: GroupCommand
    group: Group


@dataclass(frozen=True, slots=True)
class GroupDescRequest:
    pass


@dataclass(frozen=True, slots=True)
class GroupDescReply:
    groups: tuple[Group, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class GroupStatsRequest:
    group: int = ALL_GROUPS


@dataclass(frozen=True, slots=True)
class GroupStats:
    """`references` counts the flows and groups that point to it; `buckets` gives (packets, bytes) of each bucket."""

    group: int
    references: int = 0
    packets: int = 0
    bytes: int = 0
    duration_s: float = 0.0
    buckets: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class GroupStatsReply:
    groups: tuple[GroupStats, ...]
    more: bool = False


class MeterCommand(IntEnum):
    ADD = 0
    MODIFY = 1
    DELETE = 2


METER_KBPS, METER_PKTPS, METER_BURST, METER_STATS = 1, 2, 4, 8
"""The flags of a meter: rates in kbit/s, rates in packets/s, heed `Band.burst`, count."""


class BandType(IntEnum):
    DROP = 1
    DSCP_REMARK = 2


@dataclass(frozen=True, slots=True)
class Band:
    """What happens above `rate` (kbit/s or packets/s, as the meter's flags say; `burst` in kbit or packets).

    `precedence_levels` is by how much DSCP_REMARK raises the drop precedence. A type that is not modelled keeps its bytes in `rest`.
    """

    rate: int
    burst: int = 0
    type: int = BandType.DROP
    precedence_levels: int = 0
    rest: bytes = b""


@dataclass(frozen=True, slots=True)
class Meter:
    """One entry of the meter table."""

    number: int
    flags: int
    bands: tuple[Band, ...] = ()


@dataclass(frozen=True, slots=True)
class MeterMod:
    """A DELETE reads no more of `meter` than its number, which may be ALL_METERS."""

    command: MeterCommand
    meter: Meter


@dataclass(frozen=True, slots=True)
class MeterConfigRequest:
    meter: int = ALL_METERS


@dataclass(frozen=True, slots=True)
class MeterConfigReply:
    meters: tuple[Meter, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class MeterStatsRequest:
    meter: int = ALL_METERS


@dataclass(frozen=True, slots=True)
class MeterStats:
    """`flows` counts the rules that point to it; `bands` gives (packets, bytes) that each band has caught."""

    meter: int
    flows: int = 0
    packets: int = 0
    bytes: int = 0
    duration_s: float = 0.0
    bands: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class MeterStatsReply:
    meters: tuple[MeterStats, ...]
    more: bool = False
