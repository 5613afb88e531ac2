"""The fibre plant: where light goes, given the fibres, the cuts and the cross-connects the switches have committed. Pure.

It follows each transmitter's light port by port. That decides which QKD links live, with which loss, and what the switches' monitors see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.network.model import Link, parse_end
from controller.network.topology import Figure, Topology, qkd_figure

Port = tuple[str, str]


@dataclass(frozen=True, slots=True)
class QkdLight:
    """Whether a QKD link's light arrives, and what it makes of it."""

    live: bool
    rate_bps: float
    qber: float


@dataclass(frozen=True, slots=True)
class Lit:
    """What the plant looks like: every QKD link by id, and the power at every lit port of each optical switch."""

    links: Mapping[str, QkdLight]
    power_dbm: Mapping[str, Mapping[int, float]]


@dataclass(slots=True)
class FibrePlant:
    topology: Topology
    cut: set[str] = field(default_factory=set)
    cross_connects: dict[str, frozenset[tuple[int, int]]] = field(default_factory=dict)

    def light(self) -> Lit:
        """Follow the light of every transmitter."""
        arrivals: dict[Port, tuple[Port, float]] = {}
        power_dbm: dict[str, dict[int, float]] = {name: {} for name, _ in self.topology.nodes("optical-switch")}
        for name, node in self.topology.nodes():
            for module_name, module in node.modules.items():
                if module.role in ("tx", "tx-rx"):
                    target, loss_db = self._trace((name, module_name), module.launch_dbm, power_dbm)
                    if target is not None:
                        arrivals[name, module_name] = target, loss_db
        return Lit({link.id: self._qkd(link, arrivals) for link in self.topology.links("qkd")}, power_dbm)

    def _qkd(self, link: Link, arrivals: Mapping[Port, tuple[Port, float]]) -> QkdLight:
        dark = QkdLight(False, 0.0, 0.0)
        if not link.switched:
            rate = self.topology.figure(link, "rate_bps")
            if rate is None or self.cut.intersection(link.fibres):
                return dark
            qber = self.topology.figure(link, "qber")
            return QkdLight(True, rate.value, qber.value if qber else 0.0)
        ends = [(end.node, end.module or "") for end in (link.a, link.b)]
        for start, end in (ends, ends[::-1]):
            target, loss_db = arrivals.get(start, (None, 0.0))
            budget_db = self.topology.node(end[0]).modules[end[1]].max_loss_db
            if target == end and (budget_db is None or loss_db <= budget_db):
                loss = Figure(loss_db, "measured")
                rate, qber = qkd_figure(link, loss, "rate_bps"), qkd_figure(link, loss, "qber")
                if rate is not None and rate.value > 0:
                    return QkdLight(True, rate.value, qber.value if qber else 0.0)
        return dark

    def _trace(self, start: Port, launch_dbm: float, power_dbm: Mapping[str, dict[int, float]]) -> tuple[Port | None, float]:
        """Where the light from a module ends (a module, or None) and what it lost; notes the power at each switch port it passes."""
        here, loss_db, seen = start, 0.0, {start}
        while True:
            step = self._through_glass(here)
            if step is None:
                return None, loss_db
            here, lost_db = step
            loss_db += lost_db
            node = self.topology.node(here[0])
            if here in seen or here[1] in node.modules:
                return (here if here not in seen else None), loss_db
            seen.add(here)
            if node.kind == "optical-switch":
                power_dbm[here[0]][int(here[1])] = launch_dbm - loss_db
            inside = self._through_node(here)
            if inside is None:
                return None, loss_db
            here, lost_db = inside
            loss_db += lost_db
            if node.kind == "optical-switch":
                power_dbm[here[0]][int(here[1])] = launch_dbm - loss_db

    def _through_glass(self, port: Port) -> tuple[Port, float] | None:
        """The far end of the fibre or patch cord at a port, and its loss; None where there is none or it is cut."""
        for link in self.topology.links("fibre", "free-space"):
            for near, far in ((link.a, link.b), (link.b, link.a)):
                if (near.node, near.port) == port and far.port is not None:
                    loss = self.topology.figure(link, "loss_db")
                    return None if link.id in self.cut or loss is None else ((far.node, far.port), loss.value)
        for name, node in self.topology.nodes():
            for module_name, module in node.modules.items():
                if module.port is not None:
                    patched = parse_end(module.port)
                    switch_port = (patched.node, patched.port or "")
                    if port == (name, module_name):
                        return switch_port, 0.0
                    if port == switch_port:
                        return (name, module_name), 0.0
        return None

    def _through_node(self, port: Port) -> tuple[Port, float] | None:
        name, number = port
        node = self.topology.node(name)
        if node.kind == "optical-switch":
            for ingress, egress in self.cross_connects.get(name, ()):
                for here, there in ((ingress, egress), (egress, ingress)):
                    if str(here) == number:
                        return (name, str(there)), node.insertion_loss_db or 0.0
        elif node.kind == "passive":
            for pair, loss_db in node.losses_db.items():
                first, second = pair.split("-")
                for here_text, there_text in ((first, second), (second, first)):
                    if here_text == number:
                        return (name, there_text), loss_db
        return None
