"""Where OpenFlow switches dial in: accepts sessions, shakes hands, and gives each to the driver of its datapath id."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from types import TracebackType
from typing import Any

from controller.southbound.openflow.certificates import datapaths_named
from controller.southbound.openflow.channel import PACKET_INS_PER_S, Channel, ChannelClosed, RequestFailed
from controller.southbound.openflow.counters import Counters
from controller.southbound.openflow.errors import HELLO_FAILED, NOT_PERMITTED, ROLE_REQUEST_FAILED, STALE
from controller.southbound.openflow.messages import EchoRequest, Error, Role
from controller.southbound.openflow.turns import Turns

_BACKLOG = 4096
"""All switches of a network reconnect at once after a restart of the controller; a short queue would turn most of them away."""
_ACCEPTED_AT_ONCE = 8
"""Connections per turn of the event loop: each is several steps in the turns that follow, beside those of the ones before it."""
_ACCEPT_RETRY_S = 0.2
_HANDSHAKE_TIMEOUT_S = 10.0
_READ_BYTES = 65536

Attach = Callable[[Channel], AbstractContextManager[None]]
"""Enters with a session that is ready, leaves when it is over."""

log = logging.getLogger(__name__)


class OpenFlowListener:
    """Use as an async context manager; `port` 0 takes a free port. Entering raises OSError when the port cannot be had.

    `tls` gives the context for the next session, so that certificates can be renewed while the controller runs. `claim` is the role that
    is asked of each switch, MASTER or SLAVE, and the generation of the controller that asks; without it sessions are EQUAL.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        keep_alive_s: float = 5.0,
        packet_ins_per_s: float = PACKET_INS_PER_S,
        claim: tuple[Role, int] | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.counters = Counters()
        self.on_refused: Callable[[int, str], None] | None = None
        """Called with the datapath id of a switch of the network whose session is refused, and why."""
        self._tls = tls
        self._keep_alive_s = keep_alive_s
        self._packet_ins_per_s = packet_ins_per_s
        self._claim = claim
        self._expected: dict[int, Attach] = {}
        self._channels: dict[int, Channel] = {}
        self._sessions: set[asyncio.Task[None]] = set()
        self._buffer = bytearray(_READ_BYTES)
        self._turns: Turns
        self._socket: socket.socket
        self._accepting: asyncio.Task[None]

    @property
    def connected(self) -> int:
        """How many switches have a session."""
        return len(self._channels)

    async def __aenter__(self) -> OpenFlowListener:
        try:
            self._socket = socket.create_server(
                (self.host, self.port), family=socket.AF_INET6 if ":" in self.host else socket.AF_INET, backlog=_BACKLOG
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise OSError(
                errno.EADDRINUSE,
                f"port {self.port} on {self.host} is taken, so no OpenFlow switch can connect: stop the program that holds it "
                f"(`ss -ltnp 'sport = :{self.port}'` names it) or choose another OpenFlow port in the settings",
            ) from None
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self._turns = Turns()
        self._accepting = asyncio.create_task(self._accept(), name="OpenFlow listener")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)  # meanwhile the last sessions begin, and own their connections
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        self._socket.close()

    @contextmanager
    def expect(self, datapath_id: int, attach: Attach) -> Iterator[None]:
        """Admit the switch with this datapath id for as long as the context lasts. Raises ValueError when it is already expected."""
        if datapath_id in self._expected:
            raise ValueError(f"two switches have the datapath id {datapath_id:016x}: give each its own in the topology document")
        self._expected[datapath_id] = attach
        try:
            yield
        finally:
            del self._expected[datapath_id]
            if channel := self._channels.get(datapath_id):
                channel.stop("the switch is no longer managed")

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        accepted = 0
        while True:
            try:
                connection, peer = await loop.sock_accept(self._socket)
            except OSError as error:  # no more file descriptors, or a peer that is gone already
                log.warning("OpenFlow port %d: cannot accept a connection: %s", self.port, error)
                await asyncio.sleep(_ACCEPT_RETRY_S)
                continue
            session = asyncio.create_task(self._session(connection, peer))
            self._sessions.add(session)
            session.add_done_callback(self._sessions.discard)
            accepted += 1
            if accepted % _ACCEPTED_AT_ONCE == 0:  # accepting does not wait while more connections do
                await asyncio.sleep(0)

    async def _session(self, connection: socket.socket, peer: tuple[Any, ...]) -> None:
        began_s = perf_counter()
        channel = Channel(self.counters, self._turns, self._buffer, self._packet_ins_per_s)
        if not await self._connect(channel, connection, peer):
            return
        try:
            async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):
                await channel.handshake()
            self.counters.handshake_s.observe(perf_counter() - began_s)
            await self._serve(channel)
        except (ChannelClosed, RequestFailed, TimeoutError) as error:
            channel.stop(str(error) or f"no handshake within {_HANDSHAKE_TIMEOUT_S:g} s")
        except Exception:
            log.exception("%s, datapath %016x: session failed", channel.peer, channel.datapath_id)
        finally:
            log.info("%s, datapath %016x: %s", channel.peer, channel.datapath_id, channel.closed_because or "the controller is stopping")
            await channel.close()

    async def _connect(self, channel: Channel, connection: socket.socket, peer: tuple[Any, ...]) -> bool:
        """Whether the connection is ready for OpenFlow: over TLS only with a certificate that the authority signed."""
        loop = asyncio.get_running_loop()
        tls = self._tls() if self._tls else None
        limit_s = _HANDSHAKE_TIMEOUT_S if tls else None
        try:
            await loop.connect_accepted_socket(lambda: channel, connection, ssl=tls, ssl_handshake_timeout=limit_s)
        except OSError as error:  # ssl.SSLError is one
            self.counters.tls_refused += 1
            log.warning("%s:%d refused before OpenFlow began: %s", *peer[:2], error)
            return False
        return True

    async def _serve(self, channel: Channel) -> None:
        datapath_id = channel.datapath_id
        attach = self._expected.get(datapath_id)
        if attach is None:
            raise self._refuse(channel, "no openflow-switch of the topology document has this datapath id; add it, or correct its dpid")
        named = datapaths_named(channel.certificate)
        if named and datapath_id not in named:
            others = ", ".join(f"{each:016x}" for each in sorted(named))
            raise self._refuse(channel, f"its certificate is for datapath {others}; give it one of its own")
        if holder := self._channels.get(datapath_id):
            holder.send(EchoRequest())  # a dead session is found out sooner
            raise self._refuse(channel, f"another session, {holder.peer}, has this datapath id; the first keeps it")
        self._channels[datapath_id] = channel
        try:
            await self._claim_role(channel)
            self.counters.sessions += 1
            with attach(channel):
                channel.keep_alive(self._keep_alive_s)
                await asyncio.shield(channel.ended)
        finally:
            del self._channels[datapath_id]

    async def _claim_role(self, channel: Channel) -> None:
        if self._claim is None:
            return
        try:
            await channel.claim(*self._claim)
        except RequestFailed as failed:
            if failed.error is None or failed.error.type != ROLE_REQUEST_FAILED or failed.error.code != STALE:
                log.warning("%s: datapath %016x gives no roles: %s", channel.peer, channel.datapath_id, failed)
                return  # whoever is the only controller needs none
            why = f"another controller of a newer generation than ours, {self._claim[1]}, is or was master; stop one of the two, or restart this one"
            raise self._refuse(channel, why) from None

    def _refuse(self, channel: Channel, why: str) -> ChannelClosed:
        self.counters.refused += 1
        log.warning("%s: datapath %016x refused: %s", channel.peer, channel.datapath_id, why)
        channel.send(Error(HELLO_FAILED, NOT_PERMITTED, why.encode()))
        if self.on_refused and channel.datapath_id in self._expected:
            self.on_refused(channel.datapath_id, why)
        return ChannelClosed(why)
