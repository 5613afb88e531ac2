"""What the OpenFlow sessions of one listener met, as plain numbers: the sessions count, the metrics page reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from controller.telemetry.histogram import Histogram


def _by_type() -> list[int]:
    return [0] * 256


@dataclass(slots=True)
class Counters:
    """Since the listener started. `received` and `sent` count messages by their type byte."""

    sessions: int = 0
    """Sessions that were given to a driver."""
    refused: int = 0
    """Unknown or duplicate datapath id, a certificate of another datapath, a newer master elsewhere."""
    tls_refused: int = 0
    """Connections that ended before OpenFlow began: no certificate, or a wrong one."""
    malformed: int = 0
    undecodable: int = 0
    stray_errors: int = 0
    packet_ins_dropped: int = 0
    """Over a switch's budget."""
    received: list[int] = field(default_factory=_by_type)
    sent: list[int] = field(default_factory=_by_type)
    handshake_s: Histogram = field(default_factory=Histogram)
    echo_s: Histogram = field(default_factory=Histogram)
