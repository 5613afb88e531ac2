"""The cross-connects, powers and alarms of an optical circuit switch in Polatis's YANG modules. Pure."""

from __future__ import annotations

import re
from typing import ClassVar

from lxml import etree

from controller.southbound.device import CrossConnect, DeviceEvent, Diff, Item, PortChanged
from controller.southbound.drivers.xml_values import decimal, number
from controller.southbound.netconf.rpc import BASE, element, q

OPTICAL_SWITCH = "http://www.polatis.com/yang/optical-switch"
POLATIS_SWITCH = "http://www.polatis.com/yang/polatis-switch"
_RENAMED = "2017-08-04"
"""The revision of optical-switch since which an entry of cross-connects is a `pair`; before, it was `pairs` and ports had one list."""

Element = etree._Element


class OpticalSwitch:
    """The model; `capabilities` are those of the device's hello. A device that does not say its revision is taken for a recent one."""

    item: ClassVar[type[Item]] = CrossConnect

    def __init__(self, capabilities: frozenset[str]) -> None:
        told = (re.search(r"[?&]revision=(\d{4}-\d\d-\d\d)", each) for each in capabilities if each.startswith(OPTICAL_SWITCH + "?"))
        self.older = any(found is not None and found[1] < _RENAMED for found in told)
        self._pair = q(OPTICAL_SWITCH, "pairs" if self.older else "pair")

    def configuration(self) -> Element:
        return element(OPTICAL_SWITCH, "cross-connects")

    def powers(self) -> Element:
        return element(OPTICAL_SWITCH, "ports" if self.older else "opm-power")

    def items(self, data: Element) -> frozenset[Item]:
        pairs = data.iterfind(f"{q(OPTICAL_SWITCH, 'cross-connects')}/{self._pair}")
        return frozenset(CrossConnect(number(pair, "ingress"), number(pair, "egress")) for pair in pairs)

    def power_dbm(self, data: Element) -> dict[int, float]:
        ports = data.iterfind(f"{self.powers().tag}/{q(OPTICAL_SWITCH, 'port')}")
        monitors = ((port, port.find(q(OPTICAL_SWITCH, "opm")) if self.older else port) for port in ports)
        return {number(port, "port-id"): decimal(monitor, "power") for port, monitor in monitors if monitor is not None}

    def edit(self, held: frozenset[Item], diff: Diff) -> Element | None:
        """Deletes come before additions. At an ingress that this same diff frees, an addition is a replacement."""
        remove = {item.ingress for item in diff.remove if item in held and isinstance(item, CrossConnect)}
        add = [item for item in diff.add if item not in held and isinstance(item, CrossConnect)]
        root = element(OPTICAL_SWITCH, "cross-connects")
        for ingress in sorted(remove - {item.ingress for item in add}):
            self._change(root, "delete", ingress, None)
        for item in add:
            self._change(root, "replace" if item.ingress in remove else "create", item.ingress, item.egress)
        return root if len(root) else None

    def _change(self, root: Element, operation: str, ingress: int, egress: int | None) -> None:
        pair = etree.SubElement(root, self._pair, {q(BASE, "operation"): operation}, nsmap={"nc": BASE})
        etree.SubElement(pair, q(OPTICAL_SWITCH, "ingress")).text = str(ingress)
        if egress is not None:
            etree.SubElement(pair, q(OPTICAL_SWITCH, "egress")).text = str(egress)

    def event(self, device: str, event: Element) -> DeviceEvent | None:
        """The alarms of port power."""
        if event.tag in (q(POLATIS_SWITCH, "port-power-alarm"), q(POLATIS_SWITCH, "port-power-clear")):
            return PortChanged(device, number(event, "port-id"), up=event.tag.endswith("clear"))
        return None
