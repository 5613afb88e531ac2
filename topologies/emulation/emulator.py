"""An emulated network in one process: optical and wavelength switches, QKD modules, OpenFlow switches and hosts, tied together by the
fibre plant.

Each device is a server or client on a real socket of its own. A small HTTP interface on loopback cuts and mends links and sends pings.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import asyncssh
from aiohttp import web

from controller.network.model import Link
from controller.network.topology import Topology, UnknownName
from controller.northbound.same_origin import same_origin
from topologies.emulation import pki
from topologies.emulation.frames import PingResult
from topologies.emulation.optical_switch import EmulatedOpticalSwitch
from topologies.emulation.plant import FibrePlant
from topologies.emulation.qkd_modules import EmulatedQkdLink, ModuleEnd, Setting
from topologies.emulation.scpi_switch import EmulatedScpiSwitch
from topologies.emulation.wavelength_switch import EmulatedWavelengthSwitch


@dataclass(frozen=True, slots=True)
class DeviceTimes:
    """How long devices take: an optical switch to move its beams, a QKD pair to find each other again after the light came back."""

    switching_s: float
    resync_s: float


DEVICE_TIMES: dict[Literal["demo", "lab"], DeviceTimes] = {
    "demo": DeviceTimes(switching_s=0.025, resync_s=0.5),
    "lab": DeviceTimes(switching_s=0.025, resync_s=60.0),
}
"""`lab`: 25 ms for a beam-steering switch; a minute for QKD modules without fast resynchronisation, of which 1 to 20 minutes are told.
`demo`: the same switch, and modules with the sub-second resynchronisation of Krause et al., arXiv 2508.17770."""


class Classical(Protocol):
    """The classical half: emulated in this process, or Mininet."""

    warnings: list[str]

    def listener(self, node: str, host: str, port: int) -> socket.socket: ...

    def running(self) -> AbstractAsyncContextManager[None]: ...

    async def flows(self) -> dict[str, list[str]]:
        """The flow entries of every switch, a line of text each."""
        ...

    async def set_link(self, link: Link, up: bool) -> None: ...

    async def ping(self, source: str, target: str, count: int, ipv6: bool = False) -> PingResult: ...


class Emulator:
    """The emulated devices of a network whose every device has an address. `directory` holds `pki/` and `ssh/` (see workspace)."""

    def __init__(self, topology: Topology, directory: Path, classical: Classical, times: DeviceTimes) -> None:
        self.topology = topology
        self.plant = FibrePlant(topology)
        self.classical = classical
        self._directory = directory
        self.optical: dict[str, EmulatedOpticalSwitch | EmulatedScpiSwitch] = {}
        for name, node in topology.nodes("optical-switch"):
            ports, switching_s, committed = node.ports or 2, times.switching_s, partial(self._committed, name)
            self.optical[name] = (
                EmulatedScpiSwitch(name, ports, switching_s, committed)
                if node.driver == "scpi"
                else EmulatedOpticalSwitch(name, ports, node.sides != "single", switching_s, committed)
            )
        self.wavelength = {
            name: EmulatedWavelengthSwitch(name, map(str, range(1, (node.ports or 2) + 1)), times.switching_s)
            for name, node in topology.nodes("wavelength-switch")
        }
        self.qkd: dict[str, EmulatedQkdLink] = {}
        lit = self.plant.light()
        for link in topology.links("qkd"):
            light = lit.links[link.id]
            ends = (self._module_end(link.a.node), self._module_end(link.b.node))
            resync_s = times.resync_s if link.switched else 0.0
            self.qkd[link.id] = EmulatedQkdLink(link.id, ends, Setting(light.live, light.rate_bps, light.qber), resync_s)

    def _module_end(self, node: str) -> ModuleEnd:
        certificate, key = pki.issue(self._directory / "pki", "qkd", node)
        tls = ssl.create_default_context(cafile=self._directory / "pki" / "ca.crt")
        tls.load_cert_chain(certificate, key)
        return ModuleEnd(node, f"https://{self.topology.node(node).kme}", tls)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve every device while the context lasts."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.classical.running())  # first: with Mininet it makes the namespaces devices listen in
            for name, switch in (*self.optical.items(), *self.wavelength.items()):
                host, _, port = (self.topology.node(name).address or "127.0.0.1:0").rpartition(":")
                listener = self.classical.listener(name, host, int(port))
                stack.push_async_callback(switch.close)
                if isinstance(switch, EmulatedScpiSwitch):
                    await switch.start(listener=listener)
                else:
                    host_key = asyncssh.read_private_key(self._directory / "ssh" / f"{name}.key")
                    authorized_keys = self._directory / "ssh" / "authorized_keys"
                    await switch.start(listener=listener, authorized_keys=authorized_keys, host_key=host_key)
            self._relight()
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            serving = [tasks.create_task(link.run(), name=link.link) for link in self.qkd.values()]
            try:
                yield
            finally:
                for task in serving:
                    task.cancel()

    def _committed(self, switch: str, cross_connects: frozenset[tuple[int, int]]) -> None:
        self.plant.cross_connects[switch] = cross_connects
        self._relight()

    def _relight(self) -> None:
        """Tell every device what its light is now."""
        lit = self.plant.light()
        for name, switch in self.optical.items():
            if isinstance(switch, EmulatedScpiSwitch):
                continue  # it has no monitors that can be asked
            for port in range(1, switch.ports + 1):
                switch.set_power(port, lit.power_dbm[name].get(port))
        for link_id, light in lit.links.items():
            now = Setting(light.live, light.rate_bps, light.qber)
            if self.qkd[link_id].setting != now:
                self.qkd[link_id].set(now.live, now.rate_bps, now.qber)

    async def set_link(self, link_id: str, *, up: bool) -> None:
        """Cut a fibre or a cable, or mend it. UnknownName when there is none of that id; ValueError for one that is no fibre or cable."""
        link = self.topology.link(link_id)
        if link.kind == "ethernet":
            await self.classical.set_link(link, up)
        elif link.kind in ("fibre", "free-space"):
            (self.plant.cut.discard if up else self.plant.cut.add)(link_id)
            self._relight()
        else:
            over = ", ".join(link.fibres) or "a lightpath"
            raise ValueError(f"{link_id} is of kind {link.kind}, which is no glass to cut; cut what it rides on: {over}")


def interface(emulator: Emulator) -> web.Application:
    """The emulator's HTTP interface: `GET /state`, `POST /links/{id}/cut|restore`, `POST /ping`."""

    async def state(request: web.Request) -> web.Response:
        lit = emulator.plant.light()
        return web.json_response(
            {
                "network": emulator.topology.name,
                "warnings": emulator.classical.warnings,
                "cut": sorted(emulator.plant.cut),
                "flows": await emulator.classical.flows(),
                "cross_connects": {name: sorted(switch.cross_connects) for name, switch in emulator.optical.items()},
                "qkd": {
                    link_id: {"live": light.live, "rate_bps": light.rate_bps, "qber": light.qber} for link_id, light in lit.links.items()
                },
            }
        )

    async def set_link(request: web.Request) -> web.Response:
        link_id, action = request.match_info["link"], request.match_info["action"]
        try:
            await emulator.set_link(link_id, up=action == "restore")
        except UnknownName as unknown:
            return web.json_response({"detail": str(unknown)}, status=404)
        except ValueError as wrong:
            return web.json_response({"detail": str(wrong)}, status=409)
        return web.json_response({"link": link_id, "up": action == "restore"})

    async def ping(request: web.Request) -> web.Response:
        try:
            wanted = await request.json()
            source, target, count = str(wanted["from"]), str(wanted["to"]), int(wanted.get("count", 3))
            ipv6 = bool(wanted.get("ipv6", False))
        except (ValueError, KeyError, TypeError):
            return web.json_response({"detail": 'send {"from": host, "to": host, "count": 3, "ipv6": false}'}, status=400)
        try:
            result = await emulator.classical.ping(source, target, max(1, min(count, 1000)), ipv6)
        except UnknownName as unknown:
            return web.json_response({"detail": str(unknown)}, status=404)
        except ValueError as wrong:
            return web.json_response({"detail": str(wrong)}, status=409)
        return web.json_response({"sent": result.sent, "received": result.received, "rtts_ms": list(result.rtts_ms)})

    app = web.Application(middlewares=[same_origin])
    app.add_routes([web.get("/state", state), web.post("/links/{link:[^/]+}/{action:cut|restore}", set_link), web.post("/ping", ping)])
    return app
