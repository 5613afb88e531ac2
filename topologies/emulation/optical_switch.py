"""An emulated optical circuit switch: the cross-connects, shutters, powers and alarms of a Polatis switch, served over NETCONF.

The element names and namespaces are those of the vendor's modules `optical-switch` and `polatis-switch`, so that one driver serves both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

from lxml import etree

from controller.southbound.netconf.rpc import element, q, unsigned
from topologies.emulation.netconf.fault import FaultError
from topologies.emulation.netconf.schema import schema
from topologies.emulation.netconf.server import STREAMS, NetconfServer
from topologies.emulation.power_monitors import DARK_DBM, PowerMonitors

OPTICAL_SWITCH = "http://www.polatis.com/yang/optical-switch"
POLATIS_SWITCH = "http://www.polatis.com/yang/polatis-switch"

Element = etree._Element
Model = Literal["pair", "pairs"]
_MODULES: Mapping[Model, str] = {"pair": "optical-switch@2018-03-22", "pairs": "optical-switch@2016-04-22"}


@dataclass(frozen=True, slots=True)
class Attenuator:
    """What a port's variable attenuator is set to: VOA_MODE_ABSOLUTE and the like, and its level in dBm (dB in VOA_MODE_RELATIVE)."""

    mode: str
    level: float
    reference_port: int


class EmulatedOpticalSwitch(NetconfServer):
    """A switch of `ports` ports. Its state lives as long as the object: sessions, and the listening itself, come and go.

    A dual-sided switch connects an ingress in the first half of the ports with an egress in the second; a single-sided one connects any
    two. A change takes `switching_time_s`; then `on_commit` is called with every cross-connect that passes light, before the client has
    its reply. The power monitors follow the light after `settling_time_s`. `model` is how the vendor's modules name a cross-connect:
    `pair`, or `pairs` before August 2017. Raises ValueError for a switch that cannot be.
    """

    def __init__(
        self,
        name: str,
        ports: int,
        dual_sided: bool = True,
        switching_time_s: float = 0.025,
        on_commit: Callable[[frozenset[tuple[int, int]]], None] = lambda cross_connects: None,
        *,
        settling_time_s: float = 0.0,
        model: Model = "pair",
    ) -> None:
        if not 2 <= ports <= 65535 or (dual_sided and ports % 2):
            raise ValueError(f"{name}: {ports} ports: a switch has 2 to 65535, a dual-sided one an even number")
        super().__init__(schema(_MODULES[model], "polatis-switch@2018-01-19"))
        self.streams = (*STREAMS, "Polatis")
        self.name = name
        self.ports = ports
        self.dual_sided = dual_sided
        self.switching_time_s = switching_time_s
        self.on_commit = on_commit
        self.model = model
        self.cross_connects: frozenset[tuple[int, int]] = frozenset()
        """The (ingress, egress) pairs that are in effect."""
        self.shut: frozenset[int] = frozenset()
        """The ports whose shutter is closed: no light passes there, either way."""
        self._monitors = PowerMonitors(range(1, ports + 1), settling_time_s, self._power_shown)

    @property
    def passing(self) -> frozenset[tuple[int, int]]:
        """The cross-connects that let light through: both their ports are open."""
        return frozenset(pair for pair in self.cross_connects if self.shut.isdisjoint(pair))

    @property
    def attenuators(self) -> dict[int, Attenuator]:
        """The variable attenuators that are set, by port."""
        return {
            port: Attenuator(mode, float(_leaf(entry, "atten-level", "0")), int(_leaf(entry, "reference-port", "0")))
            for port, entry in _ports(self.datastores.running, "voa").items()
            if (mode := _leaf(entry, "atten-mode", "VOA_MODE_NONE")) != "VOA_MODE_NONE"
        }

    def power_dbm(self, port: int) -> float:
        """What the power monitor of a port shows, without the offset a client may have set."""
        return self._monitors[port]

    def set_power(self, port: int, dbm: float | None) -> None:
        """The light at a port is now so strong, in dBm; None is dark. Its monitor raises port-power-alarm and port-power-clear."""
        self._monitors.light(port, dbm)

    def patch(self, cross_connects: Mapping[int, int]) -> None:
        """Come to hold other cross-connects than were committed, egress by ingress: by hand, or after a restart. Nobody is told."""
        config = deepcopy(self.datastores.running)
        for old in config.findall(q(OPTICAL_SWITCH, "cross-connects")):
            config.remove(old)
        root = element(OPTICAL_SWITCH, "cross-connects")
        for ports in cross_connects.items():
            pair = etree.SubElement(root, q(OPTICAL_SWITCH, self.model))
            for leaf, port in zip(("ingress", "egress"), ports, strict=True):
                etree.SubElement(pair, q(OPTICAL_SWITCH, leaf)).text = str(port)
        config.append(root)
        self.datastores.running = config
        self._take_effect(config)

    async def close(self) -> None:
        """Stop serving; the cross-connects stay, as on a switch whose management port is unplugged."""
        await super().close()
        self._monitors.settle()

    # What the server asks of the device.

    def check(self, config: Element) -> None:
        """Each port is in one cross-connect at most: light passes both ways, so an egress is as taken as an ingress."""
        for child in config:
            if child.tag == q(OPTICAL_SWITCH, "cross-connects"):
                self._check_cross_connects(child)
            else:
                for port in _entries(child):
                    if port > self.ports:
                        path = f"/opsw:{etree.QName(child).localname}/opsw:port[opsw:port-id='{port}']/opsw:port-id"
                        raise FaultError("invalid-value", self._no_port(port), path)

    def _check_cross_connects(self, root: Element) -> None:
        user: dict[int, int] = {}
        for ingress, egress in sorted(_pairs(root)):
            path = f"/opsw:cross-connects/opsw:{self.model}[opsw:ingress='{ingress}']/opsw:egress"
            if max(ingress, egress) > self.ports:
                raise FaultError("invalid-value", self._no_port(max(ingress, egress)), path)
            if ingress == egress:
                raise FaultError("invalid-value", f"port {ingress} cannot be connected to itself", path)
            half = self.ports // 2
            if self.dual_sided and not ingress <= half < egress:
                raise FaultError("invalid-value", f"{ingress} to {egress}: ingress is 1 to {half}, egress {half + 1} to {self.ports}", path)
            for port in (ingress, egress):
                if port in user:
                    raise FaultError("data-exists", f"port {port} is already used by the cross-connect of ingress {user[port]}", path)
                user[port] = ingress

    def _no_port(self, port: int) -> str:
        return f"{port} is no port: this switch has ports 1 to {self.ports}"

    async def activate(self, config: Element) -> None:
        await asyncio.sleep(self.switching_time_s)
        self._take_effect(config)

    def _take_effect(self, config: Element) -> None:
        root = config.find(q(OPTICAL_SWITCH, "cross-connects"))
        self.cross_connects = frozenset() if root is None else frozenset(_pairs(root))
        if self.model == "pairs":  # where the shutters are configuration
            states = _ports(config, "ports").items()
            self.shut = frozenset(port for port, entry in states if _leaf(entry, "port-state", "") == "PC_DISABLED")
        self.on_commit(self.passing)

    async def call(self, operation: Element) -> Sequence[Element]:
        """port-set-state: opens and closes shutters, all of them or, when a port is wrong, none."""
        if operation.tag != q(OPTICAL_SWITCH, "port-set-state") or self.model == "pairs":
            return await super().call(operation)
        chosen: dict[str, set[int]] = {"port-enab": set(), "port-disab": set()}
        for leaf in operation:
            name = etree.QName(leaf)
            if name.namespace != OPTICAL_SWITCH or name.localname not in chosen:
                message = f"port-set-state has no {name.localname}: it takes {' and '.join(chosen)}"
                raise FaultError("unknown-element", message, type="protocol", bad_element=name.localname)
            port = unsigned((leaf.text or "").strip())
            if not port or port > self.ports:
                message = f"{(leaf.text or '')[:40]!r} is no port: this switch has ports 1 to {self.ports}"
                raise FaultError("invalid-value", message, type="protocol", bad_element=name.localname)
            chosen[name.localname].add(port)
        if both := chosen["port-enab"] & chosen["port-disab"]:
            raise FaultError("invalid-value", f"port {min(both)} cannot be enabled and disabled", type="protocol", bad_element="port-disab")
        await asyncio.sleep(self.switching_time_s)
        self.shut = self.shut - chosen["port-enab"] | chosen["port-disab"]
        self.on_commit(self.passing)
        return ()

    def state(self) -> Mapping[str, Callable[[], Element]]:
        names = (
            ("product-information", self._product),
            *(
                (("opm-power", self._opm_power), ("port-config", self._port_config))
                if self.model == "pair"
                else (("ports", self._old_ports),)
            ),
        )
        return {q(OPTICAL_SWITCH, name): make for name, make in names}

    def _product(self) -> Element:
        root = element(OPTICAL_SWITCH, "product-information")
        for leaf, text in (("manufacturer", "Bellhop"), ("serial-number", self.name), ("model-name", f"emulated, {self.ports} ports")):
            etree.SubElement(root, q(OPTICAL_SWITCH, leaf)).text = text
        return root

    def _opm_power(self) -> Element:
        offsets = {port: float(_leaf(entry, "offset", "0")) for port, entry in _ports(self.datastores.running, "opm-config").items()}
        levels = ((port, f"{self._monitors[port] + offsets.get(port, 0.0):.2f}") for port in self._monitors)
        return _port_list("opm-power", "power", levels)

    def _port_config(self) -> Element:
        return _port_list("port-config", "status", ((port, "DISABLED" if port in self.shut else "ENABLED") for port in self._monitors))

    def _old_ports(self) -> Element:
        root = _port_list("ports", "port-status", ((port, "PO_DISABLED" if port in self.shut else "PO_ENABLED") for port in self._monitors))
        for entry, port in zip(root, self._monitors, strict=True):
            monitor = etree.SubElement(entry, q(OPTICAL_SWITCH, "opm"))
            etree.SubElement(monitor, q(OPTICAL_SWITCH, "power")).text = f"{self._monitors[port]:.2f}"
        return root

    def _power_shown(self, port: int, before_dbm: float, now_dbm: float) -> None:
        """Raise or clear the alarm of a port whose light crossed its threshold."""
        settings = _ports(self.datastores.running, "opm-alarm-config").get(port)
        threshold_dbm = DARK_DBM if settings is None else float(_leaf(settings, "signal-low-threshold", str(DARK_DBM)))
        low = now_dbm <= threshold_dbm
        if low == (before_dbm <= threshold_dbm) or (settings is not None and _leaf(settings, "mode", "") == "POWER_ALARM_DISABLED"):
            return
        alarm = element(POLATIS_SWITCH, "port-power-alarm" if low else "port-power-clear")
        etree.SubElement(alarm, q(POLATIS_SWITCH, "port-id")).text = str(port)
        names = ("port-config", "label") if self.model == "pair" else ("ports", "port-label")
        labelled = _ports(self.datastores.running, names[0]).get(port)
        etree.SubElement(alarm, q(POLATIS_SWITCH, "port-label")).text = "" if labelled is None else _leaf(labelled, names[1], "")
        self.notify(alarm)


def _pairs(root: Element) -> list[tuple[int, int]]:
    ingress, egress = q(OPTICAL_SWITCH, "ingress"), q(OPTICAL_SWITCH, "egress")
    return [(int(pair.findtext(ingress, "")), int(pair.findtext(egress, ""))) for pair in root]


def _ports(config: Element, container: str) -> dict[int, Element]:
    """The entries of a list of ports, by number."""
    root = config.find(q(OPTICAL_SWITCH, container))
    return {} if root is None else _entries(root)


def _entries(root: Element) -> dict[int, Element]:
    return {int(entry.findtext(q(OPTICAL_SWITCH, "port-id"), "")): entry for entry in root}


def _leaf(entry: Element, name: str, default: str) -> str:
    return entry.findtext(q(OPTICAL_SWITCH, name)) or default


def _port_list(container: str, leaf: str, values: Iterable[tuple[int, str]]) -> Element:
    root = element(OPTICAL_SWITCH, container)
    entry_tag, id_tag, leaf_tag = (q(OPTICAL_SWITCH, name) for name in ("port", "port-id", leaf))
    for port, text in values:
        entry = etree.SubElement(root, entry_tag)
        etree.SubElement(entry, id_tag).text = str(port)
        etree.SubElement(entry, leaf_tag).text = text
    return root
