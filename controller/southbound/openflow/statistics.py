"""What a switch is and what it has counted, as values: description, ports, tables, sums over flows."""

from __future__ import annotations

from dataclasses import dataclass

from controller.southbound.device import Match

_ANY = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class DescRequest:
    pass


@dataclass(frozen=True, slots=True)
class DescReply:
    """What the switch says it is."""

    manufacturer: str
    hardware: str
    software: str
    serial_number: str
    datapath: str
    more: bool = False


@dataclass(frozen=True, slots=True)
class PortStatsRequest:
    port: int = _ANY


@dataclass(frozen=True, slots=True)
class PortStats:
    """What a port has counted in `duration_s`; a counter it does not keep is all ones."""

    port: int
    received_packets: int = 0
    sent_packets: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    received_dropped: int = 0
    sent_dropped: int = 0
    received_errors: int = 0
    sent_errors: int = 0
    frame_errors: int = 0
    overruns: int = 0
    crc_errors: int = 0
    collisions: int = 0
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PortStatsReply:
    ports: tuple[PortStats, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class AggregateStatsRequest:
    """As `FlowStatsRequest`, for the sums alone."""

    table: int = 0xFF
    out_port: int = _ANY
    out_group: int = _ANY
    cookie: int = 0
    cookie_mask: int = 0
    match: Match = ()


@dataclass(frozen=True, slots=True)
class AggregateStatsReply:
    packets: int
    bytes: int
    flows: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class TableStatsRequest:
    pass


@dataclass(frozen=True, slots=True)
class TableStats:
    table: int
    active: int
    lookups: int
    matched: int


@dataclass(frozen=True, slots=True)
class TableStatsReply:
    tables: tuple[TableStats, ...]
    more: bool = False
