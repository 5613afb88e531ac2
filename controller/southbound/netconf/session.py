"""A NETCONF session over SSH (RFC 6242), client side: hello, pipelined operations, notifications.

The device is not trusted: whatever is wrong with what it sends ends this session, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import asyncssh
from lxml import etree

from controller.southbound.netconf import rpc
from controller.southbound.netconf.framing import MAX_MESSAGE_BYTES, Deframer, FramingError, frame
from controller.southbound.session import RefusedError, SessionError

MAX_WAITING_NOTIFICATIONS = 10_000
_GOODBYE_S = 1.0


class RpcRefusedError(RefusedError):
    """The device answered an operation with rpc-errors."""

    def __init__(self, errors: tuple[rpc.RpcError, ...]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to log in, and by which known_hosts file (OpenSSH format) to know the device. A key, a password or both."""

    username: str
    known_hosts: Path
    client_key: Path | None = None
    password: str | None = field(default=None, repr=False)


class Session:
    """An open session; `open_session` makes it. Its methods raise SessionError once it is lost."""

    def __init__(
        self, connection: asyncssh.SSHClientConnection, process: asyncssh.SSHClientProcess[bytes], timeout_s: float, max_message_bytes: int
    ) -> None:
        self.capabilities: frozenset[str] = frozenset()
        self.session_id = 0
        self.lost: str | None = None
        """Why the session ended; None while it is open."""
        self.notifications: asyncio.Queue[rpc.Notification | None] = asyncio.Queue()
        """What the device notified, in order; None after the last one, when the session is lost."""
        self._connection = connection
        self._process = process
        self._timeout_s = timeout_s
        self._deframer = Deframer(max_message_bytes)
        self._greeted = asyncio.Event()
        self._last_id = 0
        self._pending: dict[str, asyncio.Future[rpc.Reply | None]] = {}

    async def call(self, operation: etree._Element, timeout_s: float | None = None) -> rpc.Reply:
        """The device's reply. Calls may overlap. Raises RpcRefusedError for a reply with errors; no reply in time ends the session."""
        (outcome,) = await self.pipeline(operation, timeout_s=timeout_s)
        if isinstance(outcome, RpcRefusedError):
            raise outcome
        return outcome

    async def pipeline(self, *operations: etree._Element, timeout_s: float | None = None) -> list[rpc.Reply | RpcRefusedError]:
        """What the device answers to operations that are sent all at once, in their order.

        An operation that is refused hinders none after it. A device that answers none for `timeout_s` loses its session.
        """
        if self.lost is not None:
            raise SessionError(self.lost)
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        loop = asyncio.get_running_loop()
        asked: list[asyncio.Future[rpc.Reply | None]] = []
        outcomes: list[rpc.Reply | RpcRefusedError] = []
        try:
            messages = []
            for operation in operations:
                self._last_id += 1
                messages.append(frame(rpc.rpc(self._last_id, operation), self._deframer.chunked))
                asked.append(loop.create_future())
                self._pending[str(self._last_id)] = asked[-1]
            async with asyncio.timeout(limit_s):
                self._process.stdin.write(b"".join(messages))
                await self._process.stdin.drain()
            for future in asked:
                async with asyncio.timeout(limit_s):
                    reply = await future
                if reply is None:
                    raise SessionError(self.lost)
                errors = tuple(error for error in reply.errors if error.severity == "error")
                outcomes.append(RpcRefusedError(errors) if errors else reply)
        except TimeoutError:
            self._lose(f"no reply to {etree.QName(operations[len(outcomes)]).localname} within {limit_s:g} s")
        except (OSError, asyncssh.Error, FramingError) as fault:
            self._lose(f"{etree.QName(operations[0]).localname} could not be sent: {_reason(fault)}")
        return outcomes

    def end(self, reason: str) -> None:
        """Drop the session at once: the device gives up its locks and forgets what was not committed."""
        if self.lost is not None:
            return
        self.lost = reason
        self._greeted.set()
        for future in self._pending.values():
            if not future.done():
                future.set_result(None)
        self._pending.clear()
        self.notifications.put_nowait(None)
        self._connection.abort()

    def _lose(self, reason: str) -> NoReturn:
        self.end(reason)
        raise SessionError(self.lost) from None

    async def greet(self) -> None:
        """Exchange hellos. Called once, by `open_session`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                with suppress(OSError, asyncssh.Error):  # a device that is gone already may have left a better reason to read
                    self._process.stdin.write(frame(rpc.hello((rpc.BASE_1_0, rpc.BASE_1_1)), chunked=False))
                await self._greeted.wait()
        except TimeoutError:
            self._lose(f"no hello within {self._timeout_s:g} s")
        if self.lost is not None:
            raise SessionError(self.lost)

    async def receive(self) -> None:
        """Read until the session ends. Called once, by `open_session`."""
        try:
            while data := await self._process.stdout.read(65536):
                self._deframer.feed(data)
                while self.lost is None and (message := self._deframer.take()) is not None:
                    self._take(rpc.parse(message))
            self.end("the device closed the session")
        except (FramingError, rpc.MessageError) as fault:
            self.end(f"the device broke the protocol: {fault}")
        except (OSError, asyncssh.Error) as fault:
            self.end(f"the connection broke: {_reason(fault)}")
        finally:
            self.end("no longer read from")

    def _take(self, message: rpc.Hello | rpc.Reply | rpc.Notification) -> None:
        if isinstance(message, rpc.Hello) is self._greeted.is_set():
            raise rpc.MessageError("a hello comes first, and once")
        if isinstance(message, rpc.Hello):
            if message.session_id is None:
                raise rpc.MessageError("the hello has no session-id")
            if not {rpc.BASE_1_0, rpc.BASE_1_1} & message.capabilities:
                raise rpc.MessageError("the hello offers neither base:1.0 nor base:1.1")
            self.capabilities, self.session_id = message.capabilities, message.session_id
            self._deframer.chunked = rpc.BASE_1_1 in message.capabilities
            self._greeted.set()
        elif isinstance(message, rpc.Notification):
            if self.notifications.qsize() >= MAX_WAITING_NOTIFICATIONS:
                raise rpc.MessageError(f"more than {MAX_WAITING_NOTIFICATIONS} notifications wait to be read")
            self.notifications.put_nowait(message)
        else:
            future = self._pending.pop(message.message_id or "", None)
            if future is None:
                what = "; ".join(map(str, message.errors))
                raise rpc.MessageError(f"a reply to message-id {message.message_id!r}, which was not asked" + (what and f": {what}"))
            if not future.done():  # the caller may have been cancelled
                future.set_result(message)


@asynccontextmanager
async def open_session(
    host: str,
    port: int,
    credentials: Credentials,
    *,
    timeout_s: float = 10.0,
    keepalive_s: float = 15.0,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> AsyncIterator[Session]:
    """A session for the time of the block. Raises SessionError when there is none to be had, an unknown host key included.

    `timeout_s` bounds the login, the hello and each reply; three keep-alives without answer end the session.
    """
    connection = await _connect(host, port, credentials, timeout_s, keepalive_s)
    try:
        try:
            async with asyncio.timeout(timeout_s):
                process = await connection.create_process(subsystem="netconf", encoding=None)
        except (OSError, asyncssh.Error) as fault:
            raise SessionError(f"{host}:{port} gives no NETCONF subsystem: {_reason(fault)}") from None
        session = Session(connection, process, timeout_s, max_message_bytes)
        receiver = asyncio.create_task(session.receive(), name=f"netconf {host}:{port}")
        try:
            await session.greet()
            yield session
            if session.lost is None:
                with suppress(SessionError, RpcRefusedError):
                    await session.call(rpc.close_session(), _GOODBYE_S)
        finally:
            session.end("closed by the controller")
            receiver.cancel()
            await asyncio.wait((receiver,))
            if not receiver.cancelled():
                receiver.result()
    finally:
        connection.abort()
        await connection.wait_closed()


async def _connect(host: str, port: int, credentials: Credentials, timeout_s: float, keepalive_s: float) -> asyncssh.SSHClientConnection:
    where = f"{host}:{port}"
    try:
        # Nothing is taken from the user's own ~/.ssh or agent: what the credentials do not name is not used.
        return await asyncssh.connect(
            host,
            port,
            config=None,
            username=credentials.username,
            password=credentials.password,
            client_keys=None if credentials.client_key is None else [str(credentials.client_key)],
            agent_path=None,
            known_hosts=str(credentials.known_hosts),
            connect_timeout=timeout_s,
            login_timeout=timeout_s,
            keepalive_interval=keepalive_s,
            keepalive_count_max=3,
        )
    except asyncssh.HostKeyNotVerifiable as fault:
        raise SessionError(f"the host key of {where} is not the one in {credentials.known_hosts}, or not there: {fault.reason}") from None
    except asyncssh.PermissionDenied:
        raise SessionError(f"{where} refused the login of {credentials.username}: check its key or password") from None
    except (OSError, asyncssh.Error, ValueError) as fault:
        raise SessionError(f"no connection to {where}: {_reason(fault)}") from None


def _reason(fault: BaseException) -> str:
    return "no answer in time" if isinstance(fault, TimeoutError) else str(fault) or type(fault).__name__
