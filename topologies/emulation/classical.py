"""The classical half of an emulated network without root: OpenFlow switches and hosts in this process, joined by wires."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from controller.network.model import Link
from controller.network.topology import Topology, UnknownName
from topologies.emulation.frames import Deliver, EmulatedHost, PingResult, wire
from topologies.emulation.openflow_switch import EmulatedSwitch


class ClassicalNetwork:
    """Emulated switches that dial out to the controller, and hosts. `running` serves while its context lasts."""

    def __init__(self, topology: Topology, controller: tuple[str, int]) -> None:
        self._topology = topology
        self.hosts = {
            name: EmulatedHost(name, node.mac, node.ip, node.ipv6)
            for name, node in topology.nodes("host")
            if node.mac and (node.ip or node.ipv6)
        }
        self.switches: dict[str, EmulatedSwitch] = {}
        self.warnings: list[str] = []
        """What of the document it cannot do: nothing."""
        for name, node in topology.nodes("openflow-switch"):
            ports = [int(end.port) for link in topology.links("ethernet") for end in (link.a, link.b) if end.node == name and end.port]
            self.switches[name] = EmulatedSwitch(name, int(node.dpid or "0", 16), ports, controller)
        for link in topology.links("ethernet"):
            self._plug(link)

    def _plug(self, link: Link) -> None:
        latency = self._topology.figure(link, "latency_ms")
        for near, far in ((link.a, link.b), (link.b, link.a)):
            into = self._entry(far.node, far.port)
            if into is None:
                continue
            cable = wire(into, (latency.value if latency else 0.0) / 1e3)
            if near.node in self.switches and near.port:
                self.switches[near.node].attach(int(near.port), cable)
            elif near.node in self.hosts:
                self.hosts[near.node].attach(cable)

    def _entry(self, node: str, port: str | None) -> Deliver | None:
        if node in self.switches and port:
            return partial(self.switches[node].receive, int(port))
        return self.hosts[node].receive if node in self.hosts else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve the controller while the context lasts."""
        async with asyncio.TaskGroup() as tasks:
            serving = [tasks.create_task(switch.run(), name=f"emulated {name}") for name, switch in self.switches.items()]
            try:
                yield
            finally:
                for task in serving:
                    task.cancel()

    def listener(self, node: str, host: str, port: int) -> socket.socket:
        """A listening socket for a device of the node."""
        return socket.create_server((host, port))

    async def flows(self) -> dict[str, list[str]]:
        """The flow entries of every switch, a line of text each."""
        return {name: [f"{entry},added_s={entry.added_s:.6f}" for entry in switch.flows()] for name, switch in self.switches.items()}

    async def set_link(self, link: Link, up: bool) -> None:
        """Cut an ethernet link, or mend it; both switches see their port go."""
        for end in (link.a, link.b):
            if end.node in self.switches and end.port:
                self.switches[end.node].set_port(int(end.port), up)

    async def ping(self, source: str, target: str, count: int, ipv6: bool = False) -> PingResult:
        """Pings between two hosts. UnknownName when one is no host here; ValueError when one has no address of that family."""
        for name in (source, target):
            if name not in self.hosts:
                raise UnknownName("host", name, self.hosts)
        address = self.hosts[target].ipv6 if ipv6 else self.hosts[target].ip
        if address is None:
            raise ValueError(f"{target} has no {'ipv6' if ipv6 else 'ip'} in the document")
        return await self.hosts[source].ping(address, count=count)
