"""An emulated optical circuit switch that speaks SCPI over raw TCP, with the command names of a Polatis switch.

Commands are taken in their short and long forms, in any case; several on a line are parted by semicolons, and one that does not start with
a colon goes on where the one before it stood. Only queries are answered: what was wrong with a command waits in the error queue.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from topologies.emulation.netconf.server import Misbehaviour

Command = Callable[[str], str | dict[int, int] | None]
"""What an argument leads to: an answer, new cross-connects, or neither. Raises _ScpiFault."""

_LONG = re.compile("[a-z]+")
"""What the long form of a word has beyond the short one."""
_MAX_FAULTS = 20
_MAX_LINE_BYTES = 64 * 1024


class _ScpiFault(Exception):
    """What is put into the error queue."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f'{number},"{text}"')


class _Gone(Exception):
    """The session is dropped instead of an answer."""


class EmulatedScpiSwitch:
    """A dual-sided switch of `ports` ports; its state lives as long as the object.

    A change takes `switching_time_s`; then `on_commit` is called with every cross-connect that passes light: both its ports are enabled.
    A command is done whole or not at all.
    `misbehaviours` name commands by their header in short form, as `OXC:SWIT:CONN:ADD`. Raises ValueError for a switch that cannot be.
    """

    def __init__(
        self,
        name: str,
        ports: int,
        switching_time_s: float = 0.025,
        on_commit: Callable[[frozenset[tuple[int, int]]], None] = lambda cross_connects: None,
    ) -> None:
        if not 2 <= ports <= 65534 or ports % 2:
            raise ValueError(f"{name}: {ports} ports: a dual-sided switch has an even number from 2 to 65534")
        self.name = name
        self.ports = ports
        self.switching_time_s = switching_time_s
        self.on_commit = on_commit
        self.misbehaviours: list[Misbehaviour] = []
        """What will go wrong; each is taken out when it has happened."""
        self.received: list[str] = []
        """Every command header, in short form."""
        self._pairs: dict[int, int] = {}
        self._states = ["E"] * ports
        self._faults: list[str] = []
        self._changing = asyncio.Lock()
        half = ports // 2
        commands: dict[str, Command] = {
            "*IDN?": lambda _: f"Polatis,EMU-OST-{half}x{half},{name},0",
            "*OPC?": lambda _: "1",  # commands are done one after the other
            "*CLS": lambda _: self._faults.clear(),
            "*RST": lambda _: {},
            "SYSTem:ERRor?": lambda _: self._faults.pop(0) if self._faults else '0,"No error"',
            "OXC:SWITch:SIZE?": lambda _: f"{half},{half}",
            "OXC:SWITch:CONNect:ADD": lambda lists: self._pairs | self._joined(lists, self._pairs),
            "OXC:SWITch:CONNect:SUB": self._without,
            "OXC:SWITch:CONNect:ONLY": lambda lists: self._joined(lists, {}),
            "OXC:SWITch:CONNect:STATe?": lambda _: self._connections(),
            "OXC:SWITch:DISConnect:ALL": lambda _: {},
            "OXC:SWITch:PORT:DISable": lambda ports: self.set_port_state(self._list(ports), "D"),
            "OXC:SWITch:PORT:ENABle": lambda ports: self.set_port_state(self._list(ports), "E"),
            "OXC:SWITch:PORT:STATe?": lambda ports: f"({','.join(self._states[port - 1] for port in self._list(ports))})",
        }
        self._commands = [
            (re.compile(_LONG.sub(lambda tail: f"(?:{tail[0].upper()})?", re.escape(each))), _LONG.sub("", each), command)
            for each, command in commands.items()
        ]
        """Each by its forms, its short form, and what does it."""
        self._server: asyncio.Server | None = None
        self._sessions: dict[asyncio.Task[object], asyncio.StreamWriter] = {}

    @property
    def cross_connects(self) -> frozenset[tuple[int, int]]:
        """The (ingress, egress) pairs that are in effect."""
        return frozenset(self._pairs.items())

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, listener: socket.socket | None = None) -> int:
        """Listen; returns the port. `listener` is a bound socket to use in place of host and port. Raises OSError when it is taken."""
        where = {"host": host, "port": port} if listener is None else {"sock": listener}
        self._server = await asyncio.start_server(self._serve, **where, limit=_MAX_LINE_BYTES)
        taken: int = self._server.sockets[0].getsockname()[1]
        return taken

    async def close(self) -> None:
        """Stop listening and drop every session; the cross-connects stay, as on a switch whose management port is unplugged."""
        if self._server is not None:
            self._server.close()
        serving = dict(self._sessions)
        for writer in serving.values():
            writer.transport.abort()
        if serving:
            await asyncio.wait(serving)
        if self._server is not None:
            await self._server.wait_closed()

    async def set_cross_connects(self, pairs: Mapping[int, int]) -> None:
        """Move the beams: what a command does, and somebody at the front panel."""
        await asyncio.sleep(self.switching_time_s)
        self._pairs = dict(pairs)
        self._light_changed()

    def set_port_state(self, ports: Iterable[int], state: str) -> None:
        """D disabled, E enabled, F failed."""
        for port in ports:
            self._states[port - 1] = state
        self._light_changed()

    def _light_changed(self) -> None:
        self.on_commit(frozenset(pair for pair in self.cross_connects if all(self._states[port - 1] == "E" for port in pair)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sessions[task] = writer
        try:
            while line := await reader.readline():
                async with self._changing:
                    answers = await self._line(line.decode("ascii", "replace").strip(), reader)
                if answers:
                    writer.write(";".join(answers).encode() + b"\n")
                    await writer.drain()
        except (OSError, ValueError, _Gone):
            pass  # the client went away, its line is too long, or this switch is to drop it
        finally:
            del self._sessions[task]
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def _line(self, line: str, reader: asyncio.StreamReader) -> list[str]:
        """Do what a line says; the answers of its queries."""
        answers: list[str] = []
        path = ""
        for command in filter(None, (part.strip() for part in line.split(";"))):
            header, _, argument = command.upper().partition(" ")
            if not header.startswith("*"):
                header = header[1:] if header.startswith(":") else path + header
                path = header[: header.rfind(":") + 1]
            try:
                answer = await self._do(header, argument.strip(), reader)
            except _ScpiFault as fault:
                overflows = len(self._faults) == _MAX_FAULTS
                self._faults[_MAX_FAULTS - 1 :] = ['-350,"Queue overflow"' if overflows else str(fault)]
            else:
                if answer is not None:
                    answers.append(answer)
        return answers

    async def _do(self, header: str, argument: str, reader: asyncio.StreamReader) -> str | None:
        found = [(name, command) for form, name, command in self._commands if form.fullmatch(header)]
        if not found:
            raise _ScpiFault(-113, f"Undefined header; {header[:60]}")
        name, command = found[0]
        self.received.append(name)
        wrong = self._misbehaviour(name)
        if wrong == "hang":
            while await reader.read(65536):
                pass
        if wrong in ("hang", "drop"):
            raise _Gone
        if wrong == "refuse":
            raise _ScpiFault(-200, f"Execution error; {name} is out of order")
        if wrong == "lie":
            return "(@),(@)" if name.endswith("?") else None
        done = command(argument)
        if isinstance(done, dict):
            await self.set_cross_connects(done)
        if wrong == "drop-after":
            raise _Gone
        return done if isinstance(done, str) else None

    def _misbehaviour(self, name: str) -> str:
        for planned in self.misbehaviours:
            if planned.operation == name:
                if not planned.skip:
                    self.misbehaviours.remove(planned)
                    return planned.does
                planned.skip -= 1
        return ""

    def _connections(self) -> str:
        return "(@{}),(@{})".format(*(",".join(map(str, side)) for side in (self._pairs, self._pairs.values())))

    def _without(self, argument: str) -> dict[int, int]:
        """What is left when pairs are taken out, or ingress ports alone, with an empty second list."""
        ingress, egress = self._lists(argument)
        for index, port in enumerate(ingress):
            if port not in self._pairs or (egress and self._pairs[port] != egress[index]):
                raise _ScpiFault(-221, f"Settings conflict; port {port} is not connected so")
        return {port: other for port, other in self._pairs.items() if port not in ingress}

    def _joined(self, argument: str, held: dict[int, int]) -> dict[int, int]:
        """The pairs of an argument, whose ports must be free: light passes both ways, so an egress is as taken as an ingress."""
        half, used = self.ports // 2, {*held, *held.values()}
        ingress, egress = self._lists(argument)
        for first, second in zip(ingress, egress, strict=False):
            if not first <= half < second:
                raise _ScpiFault(-222, f"Data out of range; {first} is no ingress or {second} no egress port")
            for port in (first, second):
                if port in used:
                    raise _ScpiFault(-221, f"Settings conflict; port {port} is in use")
                used.add(port)
        if len(ingress) != len(egress):
            raise _ScpiFault(-109, "Missing parameter; the lists are not of one length")
        return dict(zip(ingress, egress, strict=True))

    def _lists(self, argument: str) -> tuple[list[int], list[int]]:
        found = re.fullmatch(r"(\(@[^)]*\))\s*,\s*(\(@[^)]*\))", argument)
        if found is None:
            raise _ScpiFault(-102, "Syntax error; give two channel lists")
        return self._list(found[1]), self._list(found[2])

    def _list(self, argument: str) -> list[int]:
        if not (argument.startswith("(@") and argument.endswith(")")):
            raise _ScpiFault(-102, "Syntax error; give a channel list")
        ports: list[int] = []
        for part in filter(None, (part.strip() for part in argument[2:-1].split(","))):
            first, _, last = part.partition(":")
            ends = [int(end) if end.isascii() and end.isdigit() and len(end) < 9 else 0 for end in (first, last or first)]
            if not all(1 <= end <= self.ports for end in ends):
                raise _ScpiFault(-222, f"Data out of range; there is no port {part[:20]}")
            ports += range(ends[0], ends[1] + 1)
        return ports
