"""The media channels and powers of a wavelength switch in OpenConfig's wavelength-router (revision 2024-04-08). Pure."""

from __future__ import annotations

from typing import ClassVar, get_args

from lxml import etree

from controller.southbound.device import ChannelAdmin, DeviceEvent, Diff, Item, MediaChannel
from controller.southbound.drivers.xml_values import decimal, leaf, number
from controller.southbound.netconf.rpc import BASE, MessageError, element, q, text

WAVELENGTH_ROUTER = "http://openconfig.net/yang/wavelength-router"
PLATFORM = "http://openconfig.net/yang/platform"
LINE_COMMON = "http://openconfig.net/yang/transport-line-common"

Element = etree._Element
_ADMIN: dict[str, ChannelAdmin] = {each: each for each in get_args(ChannelAdmin)}


class WavelengthRouter:
    """The model. Readings are kept of the components that are named by their port's number; power is the greater of in and out."""

    item: ClassVar[type[Item]] = MediaChannel

    def configuration(self) -> Element:
        root = element(WAVELENGTH_ROUTER, "wavelength-router")
        etree.SubElement(root, q(WAVELENGTH_ROUTER, "media-channels"))
        return root

    def powers(self) -> Element:
        return element(PLATFORM, "components")

    def items(self, data: Element) -> frozenset[Item]:
        way = f"{q(WAVELENGTH_ROUTER, 'wavelength-router')}/{q(WAVELENGTH_ROUTER, 'media-channels')}/{q(WAVELENGTH_ROUTER, 'channel')}"
        return frozenset(map(_channel, data.iterfind(way)))

    def power_dbm(self, data: Element) -> dict[int, float]:
        found: dict[int, float] = {}
        for component in data.iterfind(f"{q(PLATFORM, 'components')}/{q(PLATFORM, 'component')}"):
            name = text(component, PLATFORM, "name")
            state = component.find(f"{q(PLATFORM, 'port')}/{q(LINE_COMMON, 'optical-port')}/{q(LINE_COMMON, 'state')}")
            if state is not None and name.isascii() and name.isdigit():
                powers = [
                    decimal(each, "instant") for side in ("input-power", "output-power") for each in state.iterfind(q(LINE_COMMON, side))
                ]
                if powers:
                    found[int(name)] = max(powers)
        return found

    def edit(self, held: frozenset[Item], diff: Diff) -> Element | None:
        """Deletes come before additions. An addition at an index that this same diff frees is a replacement."""
        remove = {item.index for item in diff.remove if item in held and isinstance(item, MediaChannel)}
        add = [item for item in diff.add if item not in held and isinstance(item, MediaChannel)]
        root = self.configuration()
        for index in sorted(remove - {item.index for item in add}):
            _leaves(_entry(root, "delete"), index=str(index))
        for item in add:
            channel = _entry(root, "replace" if item.index in remove else "create")
            _leaves(channel, index=str(item.index))
            config = etree.SubElement(channel, q(WAVELENGTH_ROUTER, "config"))
            band = {"lower-frequency": str(item.lower_frequency_mhz), "upper-frequency": str(item.upper_frequency_mhz)}
            _leaves(config, index=str(item.index), **({"name": item.name} if item.name else {}), **band, **{"admin-status": item.admin})
            for side, port in (("source", item.source), ("dest", item.dest)):
                end = etree.SubElement(etree.SubElement(channel, q(WAVELENGTH_ROUTER, side)), q(WAVELENGTH_ROUTER, "config"))
                _leaves(end, **{"port-name": port})
        return root if len(root[0]) else None

    def event(self, device: str, event: Element) -> DeviceEvent | None:
        """None: the module defines no notifications."""
        return None


def _entry(root: Element, operation: str) -> Element:
    return etree.SubElement(root[0], q(WAVELENGTH_ROUTER, "channel"), {q(BASE, "operation"): operation}, nsmap={"nc": BASE})


def _leaves(parent: Element, **texts: str) -> None:
    for name, value in texts.items():
        etree.SubElement(parent, q(WAVELENGTH_ROUTER, name)).text = value


def _channel(entry: Element) -> MediaChannel:
    """A channel as it is configured. Somebody else's may lack all but its index; one that does not say that it is dark is taken for lit."""
    index = number(entry, "index")
    config = entry.find(q(WAVELENGTH_ROUTER, "config"))
    source, dest = (
        (entry.findtext(f"{q(WAVELENGTH_ROUTER, side)}/{q(WAVELENGTH_ROUTER, 'config')}/{q(WAVELENGTH_ROUTER, 'port-name')}") or "").strip()
        for side in ("source", "dest")
    )
    if config is None:
        return MediaChannel(index, source, dest, 0, 0)
    admin = leaf(config, "admin-status") or "ENABLED"
    if admin not in _ADMIN:
        raise MessageError(f"admin-status is {admin[:40]!r}, not {', '.join(_ADMIN)}")
    return MediaChannel(
        index, source, dest, _mhz(config, "lower-frequency"), _mhz(config, "upper-frequency"), _ADMIN[admin], leaf(config, "name")
    )


def _mhz(config: Element, name: str) -> int:
    """A frequency; 0 where none is given."""
    value = leaf(config, name) or "0"
    if not (value.isascii() and value.isdigit() and len(value) <= 20):
        raise MessageError(f"{name} is {value[:40]!r}, not a frequency in MHz")
    return int(value)
