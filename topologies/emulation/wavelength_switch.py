"""An emulated wavelength-selective switch: media channels between its ports and the powers there, served over NETCONF.

The element names and namespaces are OpenConfig's `wavelength-router`, `platform` and `transport-line-common`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise

from lxml import etree

from controller.southbound.netconf.rpc import BASE, element, q
from topologies.emulation.netconf.fault import FaultError
from topologies.emulation.netconf.schema import schema
from topologies.emulation.netconf.server import NetconfServer
from topologies.emulation.power_monitors import PowerMonitors

WAVELENGTH_ROUTER = "http://openconfig.net/yang/wavelength-router"
PLATFORM = "http://openconfig.net/yang/platform"
LINE_COMMON = "http://openconfig.net/yang/transport-line-common"

Element = etree._Element
_MODULES = (
    "openconfig-platform@2025-07-09",
    "openconfig-transport-types@2024-10-01",
    "openconfig-transport-line-common@2019-06-03",
    "openconfig-wavelength-router@2024-04-08",
)
_CHANNELS = "/oc-wave-router:wavelength-router/oc-wave-router:media-channels/oc-wave-router:channel"


@dataclass(frozen=True, slots=True)
class MediaChannel:
    """The light from `lower_mhz` to `upper_mhz` that enters at `source` leaves at `dest`, at `target_dbm` where that is set."""

    index: int
    source: str
    dest: str
    lower_mhz: int
    upper_mhz: int
    target_dbm: float | None = None


class EmulatedWavelengthSwitch(NetconfServer):
    """A switch with these ports, by name. Its state lives as long as the object: sessions, and the listening itself, come and go.

    A change takes `switching_time_s`; then `on_commit` is called with every media channel that passes light, before the client has its
    reply. The power monitors follow the light after `settling_time_s`. Raises ValueError for a switch that cannot be.
    """

    def __init__(
        self,
        name: str,
        ports: Iterable[str],
        switching_time_s: float = 0.025,
        on_commit: Callable[[frozenset[MediaChannel]], None] = lambda channels: None,
        *,
        settling_time_s: float = 0.0,
    ) -> None:
        self.name = name
        self.ports = tuple(ports)
        if len(self.ports) < 2 or len(set(self.ports)) < len(self.ports):
            raise ValueError(f"{name}: a wavelength switch has two ports or more, each of its own name; these are {', '.join(self.ports)}")
        super().__init__(schema(*_MODULES), self._delivered())
        self.switching_time_s = switching_time_s
        self.on_commit = on_commit
        self.channels: frozenset[MediaChannel] = frozenset()
        """The media channels that are enabled, between open ports."""
        self._input = PowerMonitors(self.ports, settling_time_s, lambda port, before_dbm, now_dbm: None)
        self._output = PowerMonitors(self.ports, settling_time_s, lambda port, before_dbm, now_dbm: None)

    def set_power(self, port: str, *, input_dbm: float | None, output_dbm: float | None) -> None:
        """The light into and out of a port is now so strong in all, in dBm; None is dark. Raises KeyError for a port that is none."""
        self._input.light(port, input_dbm)
        self._output.light(port, output_dbm)

    async def close(self) -> None:
        """Stop serving; the media channels stay."""
        await super().close()
        self._input.settle()
        self._output.settle()

    def _delivered(self) -> Element:
        """The configuration as the switch comes: its ports, all open."""
        config = element(BASE, "config")
        components = _inside(config, PLATFORM, "components")
        for port in self.ports:
            component = _inside(components, PLATFORM, "component")
            _inside(component, PLATFORM, "name").text = port
            _inside(_inside(component, PLATFORM, "config"), PLATFORM, "name").text = port
            optical = _inside(_inside(component, PLATFORM, "port"), LINE_COMMON, "optical-port")
            _inside(_inside(optical, LINE_COMMON, "config"), LINE_COMMON, "admin-state").text = "ENABLED"
        return config

    # What the server asks of the device.

    def check(self, config: Element) -> None:
        """The ports are those there are; enabled channels are complete, and light of one frequency goes one way from and to a port."""
        names = [
            entry.findtext(q(PLATFORM, "name"), "") for entry in config.iterfind(f"{q(PLATFORM, 'components')}/{q(PLATFORM, 'component')}")
        ]
        if sorted(names) != sorted(self.ports):
            strange = ", ".join(sorted(set(names) ^ set(self.ports)))
            raise FaultError(
                "operation-not-supported", f"the ports of a switch are neither made nor deleted: {strange}", "/oc-platform:components"
            )
        channels = list(_media_channels(config))
        for channel in channels:
            if channel.source == channel.dest:
                raise FaultError(
                    "invalid-value", f"light from {channel.source} cannot leave there", f"{_path(channel)}/oc-wave-router:dest"
                )
            if channel.lower_mhz >= channel.upper_mhz:
                message = f"lower-frequency {channel.lower_mhz} MHz is not below upper-frequency {channel.upper_mhz} MHz"
                raise FaultError("invalid-value", message, f"{_path(channel)}/oc-wave-router:config/oc-wave-router:lower-frequency")
        for side in ("source", "dest"):
            at_port: dict[str, list[MediaChannel]] = {}
            for channel in sorted(channels, key=lambda channel: channel.lower_mhz):
                at_port.setdefault(getattr(channel, side), []).append(channel)
            for port, neighbours in at_port.items():
                for one, other in pairwise(neighbours):
                    if other.lower_mhz < one.upper_mhz:
                        first, second = sorted((one, other), key=lambda channel: channel.index)
                        message = f"channel {second.index} shares spectrum with channel {first.index} at port {port}"
                        raise FaultError("data-exists", message, _path(second))

    async def activate(self, config: Element) -> None:
        await asyncio.sleep(self.switching_time_s)
        shut = _shut(config)
        self.channels = frozenset(channel for channel in _media_channels(config) if shut.isdisjoint((channel.source, channel.dest)))
        self.on_commit(self.channels)

    def state(self) -> Mapping[str, Callable[[], Element]]:
        return {q(PLATFORM, "components"): self._components, q(WAVELENGTH_ROUTER, "wavelength-router"): self._router}

    def _components(self) -> Element:
        root = element(PLATFORM, "components")
        shut = _shut(self.datastores.running)
        for port in self.ports:
            component = _inside(root, PLATFORM, "component")
            _inside(component, PLATFORM, "name").text = port
            _inside(_inside(component, PLATFORM, "state"), PLATFORM, "name").text = port
            state = _inside(_inside(_inside(component, PLATFORM, "port"), LINE_COMMON, "optical-port"), LINE_COMMON, "state")
            _inside(state, LINE_COMMON, "admin-state").text = "DISABLED" if port in shut else "ENABLED"
            for name, monitors in (("input-power", self._input), ("output-power", self._output)):
                _inside(_inside(state, LINE_COMMON, name), LINE_COMMON, "instant").text = f"{monitors[port]:.2f}"
        return root

    def _router(self) -> Element:
        """Each configured channel's state: what is configured, and whether it passes light."""
        root = element(WAVELENGTH_ROUTER, "wavelength-router")
        channels = _inside(root, WAVELENGTH_ROUTER, "media-channels")
        up = {channel.index for channel in self.channels}
        for held in _channel_entries(self.datastores.running):
            channel = _inside(channels, WAVELENGTH_ROUTER, "channel")
            index = _text(held, "index")
            _inside(channel, WAVELENGTH_ROUTER, "index").text = index
            for path in ((), ("source",), ("dest",)):
                config = held.find("/".join(q(WAVELENGTH_ROUTER, step) for step in (*path, "config")))
                place = _inside(channel, WAVELENGTH_ROUTER, path[0]) if path else channel
                if config is not None:
                    state = _inside(place, WAVELENGTH_ROUTER, "state")
                    for leaf in config:
                        state.append(deepcopy(leaf))
                    if not path:
                        _inside(state, WAVELENGTH_ROUTER, "oper-status").text = "UP" if int(index) in up else "DOWN"
        return root


def _media_channels(config: Element) -> Iterable[MediaChannel]:
    """The enabled channels of a configuration. Raises FaultError for one without its ports or its spectrum."""
    for entry in _channel_entries(config):
        if _text(entry, "config", "admin-status") == "ENABLED":
            path = f"{_CHANNELS}[oc-wave-router:index='{_text(entry, 'index')}']"
            needed = (
                ("source", "config", "port-name"),
                ("dest", "config", "port-name"),
                ("config", "lower-frequency"),
                ("config", "upper-frequency"),
            )
            source, dest, lower, upper = (_text(entry, *steps) for steps in needed)
            for steps, text in zip(needed, (source, dest, lower, upper), strict=True):
                if not text:
                    where = "/oc-wave-router:".join((path, *steps[:-1]))
                    raise FaultError("missing-element", f"an enabled channel needs its {steps[-1]}", where, bad_element=steps[-1])
            target = _text(entry, "spectrum-power-profile", "distribution", "config", "target-power")
            yield MediaChannel(int(_text(entry, "index")), source, dest, int(lower), int(upper), float(target) if target else None)


def _channel_entries(config: Element) -> Iterable[Element]:
    return config.iterfind("/".join(q(WAVELENGTH_ROUTER, step) for step in ("wavelength-router", "media-channels", "channel")))


def _shut(config: Element) -> set[str]:
    """The ports that are closed."""
    steps = q(PLATFORM, "port"), *(q(LINE_COMMON, name) for name in ("optical-port", "config", "admin-state"))
    entries = config.iterfind(f"{q(PLATFORM, 'components')}/{q(PLATFORM, 'component')}")
    return {entry.findtext(q(PLATFORM, "name"), "") for entry in entries if entry.findtext("/".join(steps), "ENABLED") != "ENABLED"}


def _path(channel: MediaChannel) -> str:
    return f"{_CHANNELS}[oc-wave-router:index='{channel.index}']"


def _text(entry: Element, *steps: str) -> str:
    return entry.findtext("/".join(q(WAVELENGTH_ROUTER, step) for step in steps), "")


def _inside(parent: Element, namespace: str, name: str) -> Element:
    inside = element(namespace, name)
    parent.append(inside)
    return inside
