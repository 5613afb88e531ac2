"""An emulated network in one process: optical and wavelength switches, QKD modules, OpenFlow switches and hosts, tied together by the
fibre plant.

Each device is a server or client on a real socket of its own. A small HTTP interface on loopback makes faults, undoes them and sends pings.
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
from time import time
from typing import Any, Literal, Protocol

import asyncssh
from aiohttp import web

from controller.network.model import Link
from controller.network.topology import Topology, UnknownName
from controller.northbound.same_origin import same_origin
from topologies.emulation import pki
from topologies.emulation.faults import Cut, Fault, Faults, Held, WrongFault, parse
from topologies.emulation.frames import PingResult
from topologies.emulation.light_log import LightLog
from topologies.emulation.optical_switch import EmulatedOpticalSwitch
from topologies.emulation.plant import DARK, FibrePlant, Lit, QkdLight
from topologies.emulation.qkd_modules import EmulatedQkdLink, ModuleEnd, Setting
from topologies.emulation.scpi_switch import EmulatedScpiSwitch
from topologies.emulation.wavelength_switch import EmulatedWavelengthSwitch


@dataclass(frozen=True, slots=True)
class DeviceTimes:
    """How long devices take: an optical switch to move its beams, its power monitors to settle, a QKD pair to find each other again after
    the light came back."""

    switching_s: float
    settling_s: float
    resync_s: float


DEVICE_TIMES: dict[Literal["demo", "lab"], DeviceTimes] = {
    "demo": DeviceTimes(switching_s=0.025, settling_s=0.01, resync_s=0.5),
    "lab": DeviceTimes(switching_s=0.025, settling_s=0.01, resync_s=60.0),
}
"""`lab`: 25 ms for a beam-steering switch, 10 ms for its monitors; a minute for QKD modules without fast resynchronisation, of which 1 to 20 minutes are told.
`demo`: the same switch, and modules with the sub-second resynchronisation of Krause et al., arXiv 2508.17770."""

DRIFT_STEP_S = 0.5
"""How often the loss of what drifts is worked out anew."""


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
                else EmulatedOpticalSwitch(name, ports, node.sides != "single", switching_s, committed, settling_time_s=times.settling_s)
            )
        self.wavelength = {
            name: EmulatedWavelengthSwitch(name, map(str, range(1, (node.ports or 2) + 1)), times.switching_s)
            for name, node in topology.nodes("wavelength-switch")
        }
        self.faults = Faults()
        self.light_log = LightLog()
        self.lit: Lit = self.plant.light()
        """What the devices were told of their light last."""
        self._lit_at_s = time()
        self.qkd: dict[str, EmulatedQkdLink] = {}
        for link in topology.links("qkd"):
            light = self.lit.links[link.id]
            ends = (self._module_end(link.a.node), self._module_end(link.b.node))
            setting = Setting(light.live, light.rate_bps, light.qber)
            self.qkd[link.id] = EmulatedQkdLink(link.id, ends, setting, times.resync_s, synchronised=not link.switched)

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
            serving.append(tasks.create_task(self._drift(), name="drift"))
            try:
                yield
            finally:
                for task in serving:
                    task.cancel()

    def _committed(self, switch: str, cross_connects: frozenset[tuple[int, int]]) -> None:
        self.plant.cross_connects[switch] = cross_connects
        self._relight()

    def _relight(self) -> None:
        """Follow the light anew, and tell every device what its light is now."""
        now_s, before = time(), self.lit
        self.plant.cut = self.faults.cuts()
        self.plant.extra_loss_db, self.plant.intercepted = self.faults.extra_loss_db(now_s), self.faults.intercepted()
        self.lit, self._lit_at_s = self.plant.light(), now_s
        self.light_log.note(self.lit.rays, now_s)
        for name, switch in self.optical.items():
            if isinstance(switch, EmulatedScpiSwitch):
                continue  # it has no monitors that can be asked
            for port in range(1, switch.ports + 1):
                switch.set_power(port, self.lit.power_dbm[name].get(port))
        for link_id, light in self.lit.links.items():
            if light != (was := before.links.get(link_id, DARK)):
                self.qkd[link_id].set(light.live, light.rate_bps, light.qber, interrupted=light.path != was.path)

    async def _drift(self) -> None:
        while True:
            await asyncio.sleep(DRIFT_STEP_S)
            if self.faults.drifting(self._lit_at_s):
                self._relight()

    async def add_fault(self, fault: Fault) -> Held:
        """Make a fault; one that cuts what is cut already is the cut that stands. UnknownName when there is no link of that id; ValueError
        for one that the fault cannot happen to."""
        link = self._link_of(fault)
        if isinstance(fault, Cut) and (standing := self.faults.cut_of(link.id)):
            return standing
        if link.kind == "ethernet":
            await self.classical.set_link(link, False)
        held = self.faults.add(fault, time())
        self._relight()
        return held

    async def clear_fault(self, fault_id: str) -> Held:
        """Undo a fault; UnknownName when none of that id stands."""
        held = self.faults.held.get(fault_id)
        if held is None:
            raise UnknownName("fault", fault_id, self.faults.held)
        link = self.topology.link(held.fault.link)
        if link.kind == "ethernet":
            await self.classical.set_link(link, True)
        self.faults.held.pop(fault_id, None)
        self._relight()
        return held

    async def set_link(self, link_id: str, *, up: bool) -> None:
        """Cut a fibre or a cable, or mend its cut; other faults of it stay. Errors as of `add_fault`."""
        if not up:
            await self.add_fault(Cut(link=link_id))
        elif cut := self.faults.cut_of(self._link_of(Cut(link=link_id)).id):
            await self.clear_fault(cut.id)

    def _link_of(self, fault: Fault) -> Link:
        link = self.topology.link(fault.link)
        if link.kind not in ("fibre", "free-space", *(("ethernet",) if isinstance(fault, Cut) else ())):
            over = f"; take what it rides on: {', '.join(link.fibres) or 'a lightpath'}" if link.kind in ("qkd", "entanglement") else ""
            raise ValueError(f"{link.id} is of kind {link.kind}, which no {fault.kind} can happen to{over}")
        return link


def _told(light: QkdLight) -> dict[str, Any]:
    path = [f"{node}:{port}" for node, port in light.path]
    return {"live": light.live, "rate_bps": light.rate_bps, "qber": light.qber, "loss_db": light.loss_db, "path": path}


def interface(emulator: Emulator) -> web.Application:
    """The emulator's HTTP interface: `GET /state`, `GET /light`, `GET|POST /faults`, `DELETE /faults/{id}`, `POST /links/{id}/cut|restore`,
    `POST /ping`. A fault that cannot be is answered with 422 and the fields that are wrong."""

    async def state(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "network": emulator.topology.name,
                "warnings": emulator.classical.warnings,
                "cut": sorted(emulator.faults.cuts()),
                "flows": await emulator.classical.flows(),
                "cross_connects": {name: sorted(switch.cross_connects) for name, switch in emulator.optical.items()},
                "power_dbm": emulator.lit.power_dbm,
                "qkd": {link_id: _told(light) for link_id, light in emulator.lit.links.items()},
            }
        )

    async def light(request: web.Request) -> web.Response:
        log = emulator.light_log
        return web.json_response({"forgotten": log.forgotten, "intervals": [each.told() for each in log.intervals()]})

    async def faults(request: web.Request) -> web.Response:
        now_s = time()
        return web.json_response({"faults": [held.told(now_s) for held in emulator.faults.held.values()]})

    async def add_fault(request: web.Request) -> web.Response:
        try:
            fault = parse(await request.json())
        except WrongFault as wrong:
            return _unprocessable(wrong)
        except ValueError:
            return web.json_response({"detail": 'send JSON, for instance {"kind": "bend", "link": "trunk-a", "loss_db": 3}'}, status=400)
        try:
            held = await emulator.add_fault(fault)
        except (UnknownName, ValueError) as wrong:
            return _unprocessable(WrongFault(("link", str(wrong))))
        return web.json_response(held.told(time()), status=201)

    async def clear_fault(request: web.Request) -> web.Response:
        try:
            held = await emulator.clear_fault(request.match_info["fault"])
        except UnknownName as unknown:
            return web.json_response({"detail": str(unknown)}, status=404)
        return web.json_response(held.told(time()))

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
    app.add_routes(
        [
            web.get("/state", state),
            web.get("/light", light),
            web.get("/faults", faults),
            web.post("/faults", add_fault),
            web.delete("/faults/{fault:[^/]+}", clear_fault),
            web.post("/links/{link:[^/]+}/{action:cut|restore}", set_link),
            web.post("/ping", ping),
        ]
    )
    return app


def _unprocessable(wrong: WrongFault) -> web.Response:
    errors = [{"field": field, "detail": detail} for field, detail in wrong.errors]
    return web.json_response({"detail": str(wrong), "errors": errors}, status=422)
