"""The messages that change and tell groups and meters, and what those have counted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from controller.southbound.device import Group, Meter

ALL_GROUPS = 0xFFFFFFFC
ALL_METERS = 0xFFFFFFFF


class GroupCommand(IntEnum):
    ADD = 0
    MODIFY = 1
    DELETE = 2


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
