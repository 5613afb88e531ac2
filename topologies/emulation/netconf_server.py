"""A NETCONF server over SSH (RFC 6241, 6242, 5277) for emulated devices.

The server knows sessions, framing, datastores, locks and notifications; what the configuration means is the device's, behind `Datastore`.
Offered: base 1.0 and 1.1, writable-running, candidate, validate, rollback-on-error, notifications interleaved with operations.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import asyncssh
from lxml import etree

from controller.southbound.netconf import rpc
from controller.southbound.netconf.framing import Deframer, FramingError, frame
from controller.southbound.netconf.rpc import BASE, NOTIFICATION, RpcError, element, q
from topologies.emulation.subtree_filter import subtree_filter

Config = TypeVar("Config")
Element = etree._Element

CAPABILITIES = (
    rpc.BASE_1_0,
    rpc.BASE_1_1,
    *(
        rpc.CAPABILITY + name
        for name in ("writable-running:1.0", "candidate:1.0", "rollback-on-error:1.0", "validate:1.1", "notification:1.0", "interleave:1.0")
    ),
    f"{rpc.CONFIG_CHANGES}?module=ietf-netconf-notifications&revision=2012-02-06",
)
_HELLO_TIMEOUT_S = 30.0
_KEEPALIVE_S = 15.0
_MAX_UNREAD_BYTES = 8 * 1024 * 1024


class FaultError(Exception):
    """An operation is refused; `error` is what the client is told."""

    def __init__(self, tag: str, message: str, path: str = "", type: str = "application", **info: str) -> None:
        super().__init__(message)
        self.error = RpcError(tag, message, path, type=type, info=tuple((name.replace("_", "-"), text) for name, text in info.items()))


class Datastore(Protocol[Config]):
    """What a device's configuration means. `Config` is a value: it is replaced, never changed. The methods raise FaultError."""

    capabilities: tuple[str, ...]
    prefixes: Mapping[str, str]
    """The prefixes of the device's error paths, each with its namespace."""
    running: Config

    def edit(self, config: Config, edit: Element, default_operation: str) -> Config:
        """What `config` becomes by the <config> element of an edit-config."""
        ...

    def validate(self, config: Config) -> None: ...

    def configuration(self, config: Config) -> list[Element]: ...

    def state(self) -> list[Element]: ...

    async def activate(self, config: Config) -> None:
        """Make `config` the running configuration; it is in effect when this returns."""
        ...


class NetconfServer(Generic[Config]):
    """Serves one device. Configuration operations run one at a time; reads never wait for them."""

    def __init__(self, store: Datastore[Config]) -> None:
        self.store = store
        self.host_public_key = ""
        """The host key in OpenSSH format, for known_hosts, once started."""
        self._candidate: Config | None = None
        self._candidate_editor = 0
        self._locks: dict[str, int] = {}
        self._sessions: dict[int, _Session[Config]] = {}
        self._last_session_id = 0
        self._changing = asyncio.Lock()
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._serving: set[asyncio.Task[object]] = set()
        self._acceptor: asyncssh.SSHAcceptor | None = None

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
        return self._acceptor.get_port()

    async def close(self) -> None:
        """Stop listening and drop every session. The configuration stays."""
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

    def notify(self, event: Element) -> None:
        """Send an event to every subscribed session."""
        message = element(NOTIFICATION, "notification")
        etree.SubElement(message, q(NOTIFICATION, "eventTime")).text = datetime.now(UTC).isoformat(timespec="milliseconds")
        message.append(event)
        for session in tuple(self._sessions.values()):
            if session.subscription is not None and (not len(session.subscription) or subtree_filter([event], session.subscription[0])):
                session.send(message)

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.subsystem != "netconf":
            process.exit(1)
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._last_session_id += 1
        session = self._sessions[self._last_session_id] = _Session(self, self._last_session_id, process)
        try:
            await session.run()
        except (OSError, asyncssh.Error):
            pass  # the client went away; what it held is given up below
        finally:
            del self._sessions[session.id]
            self._release(session.id)
            process.close()

    def _release(self, session_id: int) -> None:
        if session_id in (self._locks.get("candidate"), self._candidate_editor):
            self._candidate, self._candidate_editor = None, 0
        self._locks = {name: holder for name, holder in self._locks.items() if holder != session_id}

    def read(self, name: str) -> Config:
        """The configuration in a datastore."""
        return self.store.running if name == "running" or self._candidate is None else self._candidate

    async def edit(self, session_id: int, target: str, edit: Element, default_operation: str, test_option: str) -> None:
        async with self._changing:
            self._refuse_locked(session_id, target)
            config = self.store.edit(self.read(target), edit, default_operation)
            if test_option != "set" or target == "running":
                self.store.validate(config)
            if test_option == "test-only":
                return
            if target == "running":
                await self._activate(session_id, config)
            else:
                self._candidate, self._candidate_editor = config, session_id

    async def commit(self, session_id: int) -> None:
        async with self._changing:
            self._refuse_locked(session_id, "candidate")
            self._refuse_locked(session_id, "running")
            config = self.read("candidate")
            self.store.validate(config)
            await self._activate(session_id, config)
            self._candidate, self._candidate_editor = None, 0

    async def discard(self, session_id: int) -> None:
        async with self._changing:
            self._refuse_locked(session_id, "candidate")
            self._candidate, self._candidate_editor = None, 0

    async def lock(self, session_id: int, target: str) -> None:
        async with self._changing:
            holder = self._locks.get(target, 0)
            if not holder and target == "candidate" and self._candidate_editor != session_id:
                holder = self._candidate_editor  # RFC 6241 8.3.5.2: uncommitted changes of a session hinder the others
            if holder:
                raise FaultError("lock-denied", f"session {holder} holds the {target} datastore", type="protocol", session_id=str(holder))
            self._locks[target] = session_id

    async def unlock(self, session_id: int, target: str) -> None:
        async with self._changing:
            if self._locks.get(target) != session_id:
                raise FaultError("operation-failed", f"this session does not hold the lock of the {target} datastore", type="protocol")
            del self._locks[target]  # an uncommitted edit stays until it is discarded: devices differ, this is the harder case for a client

    def kill(self, session_id: int, victim: int | None) -> None:
        if victim is None or victim == session_id or victim not in self._sessions:
            raise FaultError("invalid-value", "session-id is not another open session's", type="protocol", bad_element="session-id")
        self._sessions[victim].abort()

    def _refuse_locked(self, session_id: int, target: str) -> None:
        holder = self._locks.get(target, session_id)
        if holder != session_id:
            raise FaultError("in-use", f"session {holder} holds the lock of the {target} datastore", type="protocol")

    async def _activate(self, session_id: int, config: Config) -> None:
        if config == self.store.running:
            return
        await self.store.activate(config)
        change = element(rpc.CONFIG_CHANGES, "netconf-config-change")
        changed_by = etree.SubElement(change, q(rpc.CONFIG_CHANGES, "changed-by"))
        etree.SubElement(changed_by, q(rpc.CONFIG_CHANGES, "username")).text = self._sessions[session_id].username
        etree.SubElement(changed_by, q(rpc.CONFIG_CHANGES, "session-id")).text = str(session_id)
        etree.SubElement(change, q(rpc.CONFIG_CHANGES, "datastore")).text = "running"
        self.notify(change)


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


class _Session(Generic[Config]):
    """One client's session."""

    def __init__(self, server: NetconfServer[Config], session_id: int, process: asyncssh.SSHServerProcess[bytes]) -> None:
        self.id = session_id
        self.username = str(process.get_extra_info("username"))
        self.subscription: Element | None = None
        """The filter of the subscription, an empty element when there is none; None while not subscribed."""
        self._server = server
        self._process = process
        self._deframer = Deframer()
        self._open = True

    async def run(self) -> None:
        self._write(rpc.hello((*CAPABILITIES, *self._server.store.capabilities), self.id))
        try:
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                greeting = await self._message()
            if greeting is None:
                return
            hello = rpc.parse(greeting)
            if not isinstance(hello, rpc.Hello) or hello.session_id is not None:
                return
            self._deframer.chunked = rpc.BASE_1_1 in hello.capabilities.intersection(CAPABILITIES)
            while self._open and (message := await self._message()) is not None:
                self.send(await self._reply(message))
                await self._process.stdout.drain()
        except (FramingError, rpc.MessageError, TimeoutError):
            return  # RFC 6242 4.2: a broken stream is closed, there is nobody to tell

    def send(self, message: Element) -> None:
        """Write a message. A client that leaves too much unread loses its session."""
        if self._process.channel.get_write_buffer_size() > _MAX_UNREAD_BYTES:
            self.abort()
        else:
            self._write(rpc.serialise(message))

    def abort(self) -> None:
        self._open = False
        self._process.channel.get_connection().abort()

    def _write(self, message: bytes) -> None:
        with suppress(OSError, asyncssh.Error):  # a client that is gone is noticed where it is read from
            self._process.stdout.write(frame(message, self._deframer.chunked))

    async def _message(self) -> bytes | None:
        while (message := self._deframer.take()) is None:
            data = await self._process.stdin.read(65536)
            if not data:
                return None
            self._deframer.feed(data)
        return message

    async def _reply(self, message: bytes) -> Element:
        reply = element(BASE, "rpc-reply")
        try:
            try:
                request = rpc.parse_xml(message)
            except rpc.MessageError as fault:
                raise FaultError("malformed-message", str(fault), type="rpc") from None
            if request.tag != q(BASE, "rpc"):
                raise FaultError("operation-not-supported", f"a {request.tag} was sent, not an rpc of {BASE}", type="rpc")
            for name, value in request.attrib.items():
                reply.set(name, value)
            if "message-id" not in request.attrib:
                raise FaultError(
                    "missing-attribute", "the rpc has no message-id", type="rpc", bad_attribute="message-id", bad_element="rpc"
                )
            if len(request) != 1:
                raise FaultError("operation-not-supported", f"the rpc holds {len(request)} operations instead of one", type="rpc")
            data = await self._operate(request[0])
        except FaultError as fault:
            reply.append(self._error(fault.error))
        else:
            reply.append(element(BASE, "ok") if data is None else data)
        return reply

    async def _operate(self, operation: Element) -> Element | None:
        """Do it; the data to reply, or None for ok."""
        server, store = self._server, self._server.store
        match operation.tag.removeprefix(f"{{{BASE}}}"):
            case "get":
                return _data(operation, store.configuration(store.running) + store.state())
            case "get-config":
                return _data(operation, store.configuration(server.read(_datastore(operation, "source"))))
            case "edit-config":
                target = _datastore(operation, "target")
                default = _choice(operation, "default-operation", "merge", "replace", "none")
                test = _choice(operation, "test-option", "test-then-set", "set", "test-only")
                _choice(
                    operation, "error-option", "stop-on-error", "continue-on-error", "rollback-on-error"
                )  # an edit is always all or nothing
                await server.edit(self.id, target, _config(operation), default, test)
            case "lock":
                await server.lock(self.id, _datastore(operation, "target"))
            case "unlock":
                await server.unlock(self.id, _datastore(operation, "target"))
            case "validate":
                store.validate(server.read(_datastore(operation, "source")))
            case "commit":
                if len(operation):
                    raise FaultError("operation-not-supported", "a commit takes no parameters here: confirmed commits are not offered")
                await server.commit(self.id)
            case "discard-changes":
                await server.discard(self.id)
            case "close-session":
                self._open = False
            case "kill-session":
                server.kill(self.id, rpc.unsigned(rpc.text(operation, BASE, "session-id")))
            case _ if operation.tag == q(NOTIFICATION, "create-subscription"):
                self._subscribe(operation)
            case _:
                raise FaultError("operation-not-supported", f"there is no operation {operation.tag} here", type="protocol")
        return None

    def _subscribe(self, operation: Element) -> None:
        if self.subscription is not None:
            raise FaultError("in-use", "this session has a subscription already", type="protocol")
        if operation.find(q(NOTIFICATION, "startTime")) is not None:
            raise FaultError("operation-not-supported", "notifications are not replayed here: leave startTime out", type="protocol")
        stream = rpc.text(operation, NOTIFICATION, "stream")
        if stream not in ("", "NETCONF", "Polatis"):
            raise FaultError("invalid-value", f"there is no stream {stream!r}", type="protocol", bad_element="stream")
        holder = element(NOTIFICATION, "subscription")
        holder.extend(operation.findall(q(NOTIFICATION, "filter")))
        self.subscription = holder

    def _error(self, error: RpcError) -> Element:
        root = element(BASE, "rpc-error")
        for name, value in (("type", error.type), ("tag", error.tag), ("severity", error.severity)):
            etree.SubElement(root, q(BASE, f"error-{name}")).text = value
        if error.path:
            etree.SubElement(root, q(BASE, "error-path"), nsmap=dict(self._server.store.prefixes)).text = error.path
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


def _datastore(operation: Element, side: str) -> str:
    named = operation.find(q(BASE, side))
    if named is None or len(named) != 1:
        raise FaultError("missing-element", f"{side} must name one datastore", type="protocol", bad_element=side)
    name = named[0].tag.removeprefix(f"{{{BASE}}}")
    if name not in ("running", "candidate"):
        raise FaultError("operation-not-supported", f"{name} is no datastore here: use running or candidate", type="protocol")
    return str(name)


def _choice(operation: Element, name: str, *choices: str) -> str:
    """A parameter's text; the first choice when it is not given."""
    value = rpc.text(operation, BASE, name) or choices[0]
    if value not in choices:
        raise FaultError("invalid-value", f"{name} is {value!r}; it must be {', '.join(choices)}", type="protocol", bad_element=name)
    return value


def _config(operation: Element) -> Element:
    config = operation.find(q(BASE, "config"))
    if config is None:
        stray = ", ".join(child.tag for child in operation if etree.QName(child).localname == "config")
        hint = f"; {stray!r} is in another namespace" if stray else ""
        raise FaultError("missing-element", f"edit-config has no config of {BASE}{hint}", type="protocol", bad_element="config")
    return config


def _data(operation: Element, roots: list[Element]) -> Element:
    """The reply's data: everything, or what the operation's filter selects."""
    wanted = operation.find(q(BASE, "filter"))
    data = element(BASE, "data")
    if wanted is None:
        data.extend(roots)
    elif wanted.get("type", wanted.get(q(BASE, "type"), "subtree")) != "subtree":
        raise FaultError("operation-not-supported", "only subtree filters are offered", type="protocol")
    else:
        data.extend(subtree_filter(roots, wanted))
    return data
