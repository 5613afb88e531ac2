"""A NETCONF server over SSH (RFC 6241, 6242, 5277, 6022) for emulated devices.

Offered: base 1.0 and 1.1, writable-running, candidate, confirmed-commit, validate, rollback-on-error, notifications interleaved with
operations, get-schema. A device is a subclass: it says what its YANG modules are, what they cannot say, and what a configuration does.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import asyncssh
from lxml import etree

from controller.southbound.netconf import rpc
from controller.southbound.netconf.framing import Deframer, FramingError, frame
from controller.southbound.netconf.rpc import BASE, CONFIG_CHANGES, NOTIFICATION, RpcError, element, q
from topologies.emulation.netconf.datastores import Datastores
from topologies.emulation.netconf.fault import FaultError
from topologies.emulation.netconf.operations import operate
from topologies.emulation.netconf.schema import Schema
from topologies.emulation.netconf.subtree_filter import subtree_filter

Element = etree._Element

CAPABILITIES = (
    rpc.BASE_1_0,
    rpc.BASE_1_1,
    *(
        rpc.CAPABILITY + name
        for name in (
            "writable-running:1.0",
            "candidate:1.0",
            "confirmed-commit:1.1",
            "rollback-on-error:1.0",
            "validate:1.1",
            "notification:1.0",
            "interleave:1.0",
        )
    ),
)
STREAMS = ("NETCONF",)
_HELLO_TIMEOUT_S = 30.0
_KEEPALIVE_S = 15.0
_MAX_UNREAD_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class Misbehaviour:
    """Something the device does wrong, once, at an operation by that name, after `skip` of them went well.

    hang: there is no answer, and none to what follows in that session. lie: it answers as if it had done it, or with no data.
    drop: the connection is lost instead. drop-after: it is done, and the connection lost instead of an answer. refuse: operation-failed.
    """

    operation: str
    does: Literal["hang", "lie", "drop", "drop-after", "refuse"]
    skip: int = 0


@dataclass(slots=True)
class Session:
    """One client's session, as operations see it."""

    id: int
    username: str
    since: datetime
    end: Callable[[], None]
    """Close it once the answer under way is out."""
    abort: Callable[[], None]
    """Drop its connection."""
    send: Callable[[Element], None]
    subscription: Element | None = None
    """The filter of the subscription, an empty element when there is none; None while not subscribed."""


class NetconfServer:
    """Serves one device. Its datastores live as long as the object: sessions, and the listening itself, come and go."""

    def __init__(self, schema: Schema, running: Element | None = None) -> None:
        self.schema = schema
        self.capabilities: tuple[str, ...] = CAPABILITIES
        """What is offered, besides the modules. Operations of a capability taken out of it are refused."""
        self.streams: tuple[str, ...] = STREAMS
        self.misbehaviours: list[Misbehaviour] = []
        """What will go wrong; each is taken out when it has happened."""
        self.host_public_key = ""
        """The host key in OpenSSH format, for known_hosts, once started."""
        self.port = 0
        """Where it listens, once started."""
        self.sessions: dict[int, Session] = {}
        self.datastores = Datastores(
            schema,
            element(BASE, "config") if running is None else running,
            lambda config: self.check(config),
            lambda config: self.activate(config),
            self._config_changed,
            self._trial_went_on,
        )
        self._last_session_id = 0
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._serving: set[asyncio.Task[object]] = set()
        self._acceptor: asyncssh.SSHAcceptor | None = None

    # What a device says of itself.

    def check(self, config: Element) -> None:
        """Raise FaultError for a configuration that the YANG modules allow and the device does not."""

    async def activate(self, config: Element) -> None:
        """Make `config` work; it is in effect when this returns."""

    def state(self) -> Mapping[str, Callable[[], Element]]:
        """Operational state: what makes each top-level element, by its name in lxml's notation."""
        return {}

    async def call(self, operation: Element) -> Sequence[Element]:
        """Do an operation of the device's own modules; the output. Raises FaultError."""
        raise FaultError("operation-not-supported", f"there is no operation {operation.tag} here", type="protocol")

    # The server.

    async def start(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        listener: socket.socket | None = None,
        passwords: Mapping[str, str] | None = None,
        authorized_keys: Path | None = None,
        host_key: Path | asyncssh.SSHKey | None = None,
    ) -> int:
        """Listen; returns the port. `listener` is a bound socket to use in place of host and port.

        `passwords` are by user; `authorized_keys` is an OpenSSH file that holds for every user name.
        Without `host_key` one is generated. Raises ValueError when nobody could log in, OSError when the port is taken.
        """
        if not passwords and authorized_keys is None:
            raise ValueError("nobody could log in: give passwords, authorized_keys or both")
        key = await _host_key(host_key)
        self.host_public_key = key.export_public_key().decode().strip()
        self._acceptor = await asyncssh.listen(
            host,
            port,
            sock=listener,
            config=None,
            server_factory=lambda: _Login(dict(passwords or {}), self._connections),
            server_host_keys=[key],
            authorized_client_keys=None if authorized_keys is None else str(authorized_keys),
            process_factory=self._serve,
            encoding=None,
            line_editor=False,
            allow_pty=False,
            agent_forwarding=False,
            reuse_address=True,
            keepalive_interval=_KEEPALIVE_S,  # a client that vanished keeps no lock
        )
        self.port = self._acceptor.get_port()
        return self.port

    async def close(self) -> None:
        """Stop listening and drop every session; an unconfirmed commit is undone. The configuration stays."""
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.wait_closed()
        connections, serving = tuple(self._connections), tuple(self._serving)
        for connection in connections:
            connection.abort()
        for connection in connections:
            await connection.wait_closed()
        if serving:
            await asyncio.wait(serving)  # a commit under way is finished
        await self.datastores.close()

    def notify(self, event: Element) -> None:
        """Send an event to every subscribed session."""
        message = element(NOTIFICATION, "notification")
        etree.SubElement(message, q(NOTIFICATION, "eventTime")).text = datetime.now(UTC).isoformat(timespec="milliseconds")
        message.append(event)
        for session in tuple(self.sessions.values()):
            if session.subscription is not None and (not len(session.subscription) or subtree_filter([event], session.subscription[0])):
                session.send(message)

    def hello(self, session_id: int) -> bytes:
        return rpc.hello((*self.capabilities, *(module.capability for module in self.schema.modules)), session_id)

    def misbehave(self, operation: str) -> str:
        """What the device does wrong at this operation; empty when nothing."""
        for planned in self.misbehaviours:
            if planned.operation == operation:
                if not planned.skip:
                    self.misbehaviours.remove(planned)
                    return planned.does
                planned.skip -= 1
        return ""

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.subsystem != "netconf":
            process.exit(1)
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._last_session_id += 1
        wire = _Wire(process)
        username = str(process.get_extra_info("username"))
        session = Session(self._last_session_id, username, datetime.now(UTC), wire.end, wire.abort, wire.send)
        self.sessions[session.id] = session
        try:
            await wire.serve(self, session)
        except (OSError, asyncssh.Error):
            pass  # the client went away; what it held is given up below
        finally:
            await self.datastores.release(session.id)
            del self.sessions[session.id]
            process.close()

    def _config_changed(self, session_id: int) -> None:
        change = element(CONFIG_CHANGES, "netconf-config-change")
        self._by(etree.SubElement(change, q(CONFIG_CHANGES, "changed-by")), session_id)
        etree.SubElement(change, q(CONFIG_CHANGES, "datastore")).text = "running"
        self.notify(change)

    def _trial_went_on(self, session_id: int, what: str, timeout_s: float) -> None:
        event = element(CONFIG_CHANGES, "netconf-confirmed-commit")
        if what != "timeout":
            self._by(event, session_id)
        etree.SubElement(event, q(CONFIG_CHANGES, "confirm-event")).text = what
        if timeout_s:
            etree.SubElement(event, q(CONFIG_CHANGES, "timeout")).text = str(round(timeout_s))
        self.notify(event)

    def _by(self, parent: Element, session_id: int) -> None:
        session = self.sessions.get(session_id)
        etree.SubElement(parent, q(CONFIG_CHANGES, "username")).text = "unknown" if session is None else session.username
        etree.SubElement(parent, q(CONFIG_CHANGES, "session-id")).text = str(session_id)


class _Login(asyncssh.SSHServer):
    def __init__(self, passwords: Mapping[str, str], connections: set[asyncssh.SSHServerConnection]) -> None:
        self._passwords = passwords
        self._connections = connections
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._connections.discard(self._connection)

    def password_auth_supported(self) -> bool:
        return bool(self._passwords)

    def validate_password(self, username: str, password: str) -> bool:
        return bool(password) and self._passwords.get(username) == password


@dataclass(slots=True)
class _Wire:
    """The SSH channel of a session: framing, and one answer after the other."""

    process: asyncssh.SSHServerProcess[bytes]
    deframer: Deframer = field(default_factory=Deframer)
    open: bool = True

    async def serve(self, server: NetconfServer, session: Session) -> None:
        self._write(server.hello(session.id))
        try:
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                greeting = await self._message()
            if greeting is None:
                return
            hello = rpc.parse(greeting)
            if not isinstance(hello, rpc.Hello) or hello.session_id is not None:
                return
            self.deframer.chunked = rpc.BASE_1_1 in hello.capabilities.intersection(server.capabilities)
            while self.open and (message := await self._message()) is not None:
                answer = await self._answer(server, session, message)
                if answer is not None:
                    self.send(answer)
                await self.process.stdout.drain()
                await asyncio.sleep(0)  # one read may have brought a hundred messages, and there are other sessions
        except (FramingError, rpc.MessageError, TimeoutError):
            return  # RFC 6242 4.2: a broken stream is closed, there is nobody to tell

    def send(self, message: Element) -> None:
        """Write a message. A client that leaves too much unread loses its session."""
        if self.process.channel.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            self.abort()
        else:
            self._write(rpc.serialise(message))

    def end(self) -> None:
        self.open = False

    def abort(self) -> None:
        self.open = False
        self.process.channel.get_connection().abort()

    def _write(self, message: bytes) -> None:
        with suppress(OSError, asyncssh.Error):  # a client that is gone is noticed where it is read from
            self.process.stdout.write(frame(message, self.deframer.chunked))

    async def _message(self) -> bytes | None:
        while (message := self.deframer.take()) is None:
            data = await self.process.stdin.read(65536)
            if not data:
                return None
            self.deframer.feed(data)
        return message

    async def _answer(self, server: NetconfServer, session: Session, message: bytes) -> Element | None:
        """The reply to a message; None when a misbehaving device gives none."""
        reply = element(BASE, "rpc-reply")
        try:
            operation = _operation(message, reply)
            name = etree.QName(operation).localname
            wrong = server.misbehave(name) if server.misbehaviours else ""
            if wrong == "refuse":
                raise FaultError("operation-failed", f"the device cannot do {name} now")
            if wrong in ("hang", "drop"):
                if wrong == "drop":
                    self.abort()
                await self.process.wait_closed()
                return None
            output = (
                ([element(BASE, "data")] if name.startswith("get") else []) if wrong == "lie" else await operate(server, session, operation)
            )
            if wrong == "drop-after":
                self.abort()
                return None
        except FaultError as fault:
            reply.append(_error(fault.error, server.schema.prefixes))
        else:
            reply.extend(output or (element(BASE, "ok"),))
        return reply


def _operation(message: bytes, reply: Element) -> Element:
    """The operation in a message, whose attributes the reply is given. Raises FaultError."""
    try:
        request = rpc.parse_xml(message)
    except rpc.MessageError as fault:
        raise FaultError("malformed-message", str(fault), type="rpc") from None
    if request.tag != q(BASE, "rpc"):
        raise FaultError("operation-not-supported", f"a {request.tag} was sent, not an rpc of {BASE}", type="rpc")
    for name, value in request.attrib.items():
        reply.set(name, value)
    if "message-id" not in request.attrib:
        raise FaultError("missing-attribute", "the rpc has no message-id", type="rpc", bad_attribute="message-id", bad_element="rpc")
    if len(request) != 1:
        raise FaultError("operation-not-supported", f"the rpc holds {len(request)} operations instead of one", type="rpc")
    return request[0]


def _error(error: RpcError, prefixes: Mapping[str, str]) -> Element:
    root = element(BASE, "rpc-error")
    for name, value in (("type", error.type), ("tag", error.tag), ("severity", error.severity)):
        etree.SubElement(root, q(BASE, f"error-{name}")).text = value
    if error.path:
        etree.SubElement(root, q(BASE, "error-path"), nsmap=dict(prefixes)).text = error.path
    etree.SubElement(root, q(BASE, "error-message")).text = error.message
    if error.info:
        info = etree.SubElement(root, q(BASE, "error-info"))
        for name, value in error.info:
            etree.SubElement(info, q(BASE, name)).text = value
    return root


async def _host_key(given: Path | asyncssh.SSHKey | None) -> asyncssh.SSHKey:
    if given is None:
        return asyncssh.generate_private_key("ssh-ed25519")
    if isinstance(given, asyncssh.SSHKey):
        return given
    return await asyncio.to_thread(asyncssh.read_private_key, str(given))
