"""A SCPI session over TCP, client side: one query at a time, and commands believed when the error queue says nothing against them.

The device is not trusted: whatever is wrong with what it sends ends this session, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from controller.southbound.scpi import grammar
from controller.southbound.session import SessionError

_MAX_FAULTS = 100
"""How many errors are read of a queue: a device that never runs out of them is out of order."""


class ScpiSession:
    """An open session; `open_session` makes it. Its methods raise SessionError once it is lost, and GrammarError for nonsense."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float, max_line_bytes: int) -> None:
        self.lost: str | None = None
        self.ended = asyncio.Event()
        """Set when the session is lost."""
        self._reader = reader
        self._writer = writer
        self._timeout_s = timeout_s
        self._lines = grammar.Lines(max_line_bytes)
        self._asking = asyncio.Lock()
        self._answer: asyncio.Future[str | None] | None = None

    async def query(self, command: str) -> str:
        """The answer to a query. No answer in time ends the session, as does a caller that does not wait for it."""
        async with self._asking:
            if self.lost is not None:
                raise SessionError(self.lost)
            self._answer = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self._timeout_s):
                    self._writer.write(command.encode("ascii") + b"\n")
                    await self._writer.drain()
                    answer = await self._answer
            except TimeoutError:
                self.end(f"no answer to {command[:60]} within {self._timeout_s:g} s")
                raise SessionError(self.lost) from None
            except OSError as fault:
                self.end(f"the connection broke: {fault}")
                raise SessionError(self.lost) from None
            except asyncio.CancelledError:
                self.end(f"nobody waited for the answer to {command[:60]}")  # which would be taken for the next one's
                raise
            if answer is None:
                raise SessionError(self.lost)
            return answer

    async def command(self, command: str) -> list[grammar.DeviceFault]:
        """Have a command carried out, and wait until it is; what the device's error queue says against it."""
        await self.faults()  # what earlier commands left, perhaps other clients'
        answer = await self.query(f"{command};{grammar.COMPLETE}")
        if answer != "1":
            raise grammar.GrammarError(f"{grammar.COMPLETE} was answered {answer[:60]!r}, not 1")
        return await self.faults()

    async def faults(self) -> list[grammar.DeviceFault]:
        """Empty the device's error queue."""
        found: list[grammar.DeviceFault] = []
        while (fault := grammar.read_fault(await self.query(grammar.NEXT_ERROR))) is not None:
            found.append(fault)
            if len(found) > _MAX_FAULTS:
                raise grammar.GrammarError(f"its error queue has more than {_MAX_FAULTS} entries")
        return found

    def end(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        self.ended.set()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)
        self._writer.transport.abort()

    async def receive(self) -> None:
        """Read until the session ends. Called once, by `open_session`."""
        try:
            while data := await self._reader.read(65536):
                self._lines.feed(data)
                while self.lost is None and (line := self._lines.take()) is not None:
                    if self._answer is None or self._answer.done():
                        raise grammar.GrammarError(f"it said {line[:60]!r}, which was not asked")
                    self._answer.set_result(line)
            self.end("the device closed the session")
        except grammar.GrammarError as fault:
            self.end(f"the device broke the protocol: {fault}")
        except OSError as fault:
            self.end(f"the connection broke: {fault}")
        finally:
            self.end("no longer read from")


@asynccontextmanager
async def open_session(
    host: str, port: int, *, timeout_s: float = 10.0, max_line_bytes: int = grammar.MAX_LINE_BYTES
) -> AsyncIterator[ScpiSession]:
    """A session for the time of the block; `timeout_s` bounds the connecting and each answer. Raises SessionError when there is none."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as fault:
        why = "no answer in time" if isinstance(fault, TimeoutError) else fault
        raise SessionError(f"no connection to {host}:{port}: {why}") from None
    session = ScpiSession(reader, writer, timeout_s, max_line_bytes)
    receiver = asyncio.create_task(session.receive(), name=f"scpi {host}:{port}")
    try:
        yield session
    finally:
        session.end("closed by the controller")
        receiver.cancel()
        await asyncio.wait((receiver,))
        with suppress(OSError):
            await writer.wait_closed()
