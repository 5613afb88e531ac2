"""An emulated OpenFlow 1.3 switch on real sockets. It decodes and encodes with os-ken, so that the controller's own codec meets a stranger's."""

from __future__ import annotations

import asyncio
import logging
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from time import monotonic

from os_ken.ofproto import ofproto_v1_3 as ofp

from topologies.emulation.frames import Deliver
from topologies.emulation.openflow.agent import Agent, Controller
from topologies.emulation.openflow.pipeline import Pipeline
from topologies.emulation.openflow.tables import Entry

_FIRST_RETRY_S, _LAST_RETRY_S = 0.1, 5.0
_MESSAGES_PER_TURN = 32
_EXPIRY_S = 0.5
_CONGESTED_BYTES = 1 << 20
"""PACKET_INs are left out while a controller is so far behind."""

log = logging.getLogger(__name__)


class EmulatedSwitch:
    """Dials out to its controllers for ever; its rules stay, and forward, while they are away (`fail-mode=secure`).

    `controllers` are addresses and ports; `tls` is what to dial with, its own certificate in it. `clock` gives seconds.
    """

    def __init__(
        self,
        name: str,
        dpid: int,
        ports: list[int],
        *controllers: tuple[str, int],
        capacity: int = 100_000,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.name = name
        self.dpid = dpid
        self.pipeline = Pipeline(ports, capacity=capacity)
        self._addresses = controllers
        self._tls = tls
        self._wires: dict[int, Deliver | None] = dict.fromkeys(ports)
        self._agent = Agent(name, dpid, self.pipeline, self._transmit, clock)

    @property
    def connected(self) -> bool:
        """Whether any controller is there."""
        return bool(self._agent.controllers)

    def flows(self) -> list[Entry]:
        """The entries, table by table, highest priority first."""
        tables = sorted({entry.table for entry in self.pipeline.tables})
        return [entry for table in tables for entry in self.pipeline.tables.ordered(table)]

    def attach(self, port: int, deliver: Deliver) -> None:
        """Plug a cable into a port: frames leave by `deliver`."""
        if port not in self._wires:
            raise ValueError(f"{self.name} has no port {port}; it has {sorted(self._wires)}")
        self._wires[port] = deliver

    def set_port(self, port: int, up: bool) -> None:
        """Take a port's signal away, or give it back; the controllers are told."""
        self._agent.set_port(port, up)

    def receive(self, port: int, frame: bytes) -> None:
        """A frame comes in by a port."""
        self._agent.receive(port, frame)

    async def run(self) -> None:
        """Serve the controllers, reconnecting with back-off, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._expire())
            for address in self._addresses:
                tasks.create_task(self._serve(*address))

    async def _serve(self, host: str, port: int) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            dialled_s = monotonic()
            with suppress(OSError, asyncio.IncompleteReadError):  # ssl.SSLError is an OSError
                reader, writer = await asyncio.open_connection(host, port, ssl=self._tls)
                controller = Controller(writer.write, lambda: writer.transport.get_write_buffer_size() > _CONGESTED_BYTES)  # noqa: B023
                self._agent.controllers.append(controller)
                try:
                    await self._converse(controller, reader, writer)
                finally:
                    self._agent.controllers.remove(controller)
                    writer.close()
            if monotonic() - dialled_s > _LAST_RETRY_S:
                retry_s = _FIRST_RETRY_S
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, _LAST_RETRY_S)

    async def _converse(self, controller: Controller, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One session, until the connection ends or the two have no version in common."""
        controller.send(ofp.OFPT_HELLO, b"")
        for turn in count():
            head = await reader.readexactly(ofp.OFP_HEADER_SIZE)
            version, kind, length, xid = struct.unpack(ofp.OFP_HEADER_PACK_STR, head)
            data = head + await reader.readexactly(max(0, length - len(head)))
            if turn == 0 and (kind != ofp.OFPT_HELLO or version < ofp.OFP_VERSION):
                controller.send(ofp.OFPT_ERROR, struct.pack("!HH", ofp.OFPET_HELLO_FAILED, ofp.OFPHFC_INCOMPATIBLE), xid)
                log.warning(
                    "%s: the controller begins with version %d, type %d, not with a HELLO of OpenFlow 1.3", self.name, version, kind
                )
                await writer.drain()
                return
            self._agent.handle(controller, data)
            await writer.drain()
            if turn % _MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)

    def _transmit(self, port: int, frame: bytes) -> None:
        if deliver := self._wires[port]:
            deliver(frame)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRY_S)
            self._agent.expire()
