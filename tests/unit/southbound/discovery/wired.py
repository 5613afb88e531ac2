"""Discovery over emulated pipelines: its rules in their tables, its hellos on their wires, what they send up handed to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controller.network.model import Link, Node
from controller.network.topology import Topology
from controller.southbound.discovery.discovery import HOST_RULES, LLDP_RULE, Discovery
from controller.southbound.discovery.wiring import declared
from controller.southbound.openflow.codec import encode
from controller.southbound.openflow.messages import FlowCommand, FlowMod
from topologies.emulation.openflow.fabric import End, Fabric, ForwardingLoop
from topologies.emulation.openflow.pipeline import Pipeline

PORTS = (1, 2, 3, 4)


class Wired:
    """Switches s1, s2, ... of four ports and hosts h1, h2, ...; `links` are declared, `cables` are what is really there."""

    def __init__(self, links: Iterable[tuple[str, str]], cables: Iterable[tuple[str, str]] | None = None, switches: int = 3) -> None:
        links = list(links)
        nodes = {f"s{n}": Node(kind="openflow-switch", dpid=f"{n:016x}") for n in range(1, switches + 1)}
        hosts = sorted({end.partition(":")[0] for pair in links for end in pair if end.startswith("h")})
        nodes |= {name: Node(kind="host", ip=f"10.0.0.{name[1:]}", mac=f"02:00:00:00:00:0{name[1:]}") for name in hosts}
        self.topology = Topology("wired", nodes, [Link(kind="ethernet", ends=ends) for ends in links])
        self.now_s = 0.0
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.link_states: list[tuple[str, bool]] = []
        self.pipelines = {name: Pipeline(PORTS) for name in nodes if name.startswith("s")}
        for pipeline in self.pipelines.values():
            for rule in (LLDP_RULE, *HOST_RULES):
                pipeline.apply(encode(FlowMod(FlowCommand.ADD, rule)))
        self.cut_off: set[End] = set()
        """Ports that send nothing any more."""
        self.wire(links if cables is None else cables)
        self.discovery = Discovery(
            declared(self.topology),
            b"a key",
            lambda kind, **data: self.events.append((kind, data)),
            lambda link, up: self.link_states.append((link, up)),
        )
        for name in self.pipelines:
            self.discovery.connected(name)

    def wire(self, cables: Iterable[tuple[str, str]]) -> None:
        self.fabric = Fabric(self.pipelines, [(_end(a), _end(b)) for a, b in cables])

    def send(self, frame: bytes, source: str) -> bool:
        """Put a frame on the wire at a port, and hand discovery what switches send up. False when that is all that is done with it."""
        try:
            journey = self.fabric.send(frame, _end(source), self.now_s)
        except ForwardingLoop:
            return False
        taken = [self.discovery.packet_in(name, packet.in_port, packet.frame, self.now_s) for name, packet in journey.packet_ins]
        return bool(taken) and all(taken)

    def run(self, rounds: int = 6) -> list[str]:
        """So many intervals; the kinds of the events that they bring."""
        before = len(self.events)
        for _ in range(rounds):
            for name in self.pipelines:
                for port in PORTS:
                    self.discovery.greet(name, port, "02:ff:00:00:00:01", lambda frame, at=(name, port): self._leaves(frame, at))
            self.discovery.judge(self.now_s)
            self.now_s += 1
        return [kind for kind, _ in self.events[before:]]

    def _leaves(self, frame: bytes, at: End) -> bool:
        if at not in self.cut_off:
            self.send(frame, f"{at[0]}:{at[1]}")
        return True

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [data for each, data in self.events if each == kind]


def _end(text: str) -> End:
    node, _, port = text.partition(":")
    return node, int(port)
