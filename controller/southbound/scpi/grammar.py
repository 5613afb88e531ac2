"""The SCPI of an optical circuit switch: commands to text, answers to values (SCPI-99; command names as Polatis switches have them).

Lines end with LF. Only queries, which end with a question mark, are answered. Pure; answers come from a device and are not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from controller.southbound.session import ProtocolError

Pairs = Iterable[tuple[int, int]]

MAX_LINE_BYTES = 1024 * 1024
MAX_PORT = 65535

IDENTITY = "*IDN?"
COMPLETE = "*OPC?"
NEXT_ERROR = ":SYST:ERR?"
SIZE = ":OXC:SWIT:SIZE?"
CONNECTIONS = ":OXC:SWIT:CONN:STAT?"

_SHOWN = 60


class GrammarError(ProtocolError):
    """An answer is not what the query asks for."""


@dataclass(frozen=True, slots=True)
class Identity:
    manufacturer: str
    model: str
    serial: str
    firmware: str


@dataclass(frozen=True, slots=True)
class DeviceFault:
    """An entry of the device's error queue: negative numbers are SCPI's, positive ones the device's own."""

    number: int
    text: str

    def __str__(self) -> str:
        return f"error {self.number}: {self.text}"


class Lines:
    """Collects received bytes and hands out whole lines without their end."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._received = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> None:
        self._received += data

    def take(self) -> str | None:
        """The next line; None until more is fed. Raises GrammarError for one that is too long or no ASCII."""
        end = self._received.find(b"\n", self._searched)
        if (len(self._received) if end < 0 else end) > self._max_line_bytes:
            raise GrammarError(f"a line is longer than {self._max_line_bytes} bytes")
        if end < 0:
            self._searched = len(self._received)
            return None
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        self._searched = 0
        try:
            return line.decode("ascii").strip()
        except UnicodeDecodeError:
            raise GrammarError(f"the line {line[:_SHOWN]!r} is no ASCII") from None


def add_connections(pairs: Pairs) -> str:
    """Connect these pairs, and leave all others as they are."""
    return f":OXC:SWIT:CONN:ADD {_ends(pairs)}"


def subtract_connections(pairs: Pairs) -> str:
    """Take these pairs apart, and leave all others as they are."""
    return f":OXC:SWIT:CONN:SUB {_ends(pairs)}"


def port_states(ports: Iterable[int]) -> str:
    return f":OXC:SWIT:PORT:STAT? {port_list(ports)}"


def port_list(ports: Iterable[int]) -> str:
    return f"(@{','.join(map(str, ports))})"


def _ends(pairs: Pairs) -> str:
    listed = list(pairs)
    return f"{port_list(ingress for ingress, _ in listed)},{port_list(egress for _, egress in listed)}"


def read_identity(answer: str) -> Identity:
    fields = [field.strip() for field in answer.split(",")]
    if len(fields) != 4 or not fields[0]:
        raise GrammarError(f"the identity {answer[:_SHOWN]!r} is not manufacturer, model, serial number, firmware")
    return Identity(*fields)


def read_size(answer: str) -> tuple[int, int]:
    """How many ingress and egress ports there are; the egress ports are numbered after the ingress ports."""
    found = re.fullmatch(r"\s*(\d{1,5})\s*,\s*(\d{1,5})\s*", answer, re.ASCII)
    ingress, egress = (int(found[1]), int(found[2])) if found else (0, 0)
    if not ingress or not egress or ingress + egress > MAX_PORT:
        raise GrammarError(f"the size {answer[:_SHOWN]!r} is not two numbers of ports, {MAX_PORT} in all at most")
    return ingress, egress


def read_connections(answer: str) -> frozenset[tuple[int, int]]:
    """The (ingress, egress) pairs of two channel lists, as `(@1,2),(@17,18)`."""
    found = re.fullmatch(r"\s*(\(@[^()]*\))\s*,\s*(\(@[^()]*\))\s*", answer)
    if found is None:
        raise GrammarError(f"the connections {answer[:_SHOWN]!r} are not two lists of ports")
    ingress, egress = read_ports(found[1]), read_ports(found[2])
    if len(ingress) != len(egress):
        raise GrammarError(f"{len(ingress)} ingress ports are said to be connected to {len(egress)} egress ports")
    used = (*ingress, *egress)
    if len(set(used)) != len(used):
        raise GrammarError("a port is said to be in two connections")
    return frozenset(zip(ingress, egress, strict=True))


def read_ports(channels: str) -> tuple[int, ...]:
    """The ports of a channel list: `(@1,2,5:7)`, where 5:7 is a range. Raises GrammarError."""
    found = re.fullmatch(r"\s*\(@([\d\s,:]*)\)\s*", channels, re.ASCII)
    if found is None:
        raise GrammarError(f"{channels[:_SHOWN]!r} is no list of ports as (@1,2)")
    ports: list[int] = []
    for part in found[1].split(",") if found[1].strip() else ():
        ends = [int(end) if end.strip() and len(end) <= 8 else 0 for end in part.split(":")] if " " not in part.strip() else [0]
        if len(ends) > 2 or not all(1 <= end <= MAX_PORT for end in ends):
            raise GrammarError(f"{part[:_SHOWN]!r} is neither a port from 1 to {MAX_PORT} nor a range of them")
        first, last = ends[0], ends[-1]
        ports += range(first, last + 1) if first <= last else range(first, last - 1, -1)
        if len(ports) > MAX_PORT:
            raise GrammarError(f"a list of ports is longer than {MAX_PORT}")
    return tuple(ports)


def read_port_states(answer: str, ports: int) -> str:
    """A letter for each port: D disabled, E enabled, F failed."""
    found = re.fullmatch(r"\s*\(([A-Z,\s]*)\)\s*", answer)
    letters = "".join(found[1].replace(",", "").split()) if found else ""
    if len(letters) != ports or letters.strip("DEF"):
        raise GrammarError(f"the port states {answer[:_SHOWN]!r} are not D, E or F for each of {ports} ports")
    return letters


def read_fault(answer: str) -> DeviceFault | None:
    """The oldest entry of the error queue; None when it is empty (number 0)."""
    found = re.fullmatch(r'\s*([+-]?\d{1,6})\s*,\s*"([^"]*)"\s*', answer, re.ASCII)
    if found is None:
        raise GrammarError(f"the error {answer[:_SHOWN]!r} is not a number and a text in quotes")
    return DeviceFault(int(found[1]), found[2]) if int(found[1]) else None
