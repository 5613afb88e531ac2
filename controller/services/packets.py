"""Between the switches and the packet apps: each packet goes to the app whose rule sent it to the controller."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from controller.services.app import FlowCommand, FlowMod, FlowRule, PacketApp, PacketIn, Port13, Switch
from controller.southbound.drivers.openflow_switch import OpenFlowSwitch
from controller.southbound.openflow.codec import encode
from controller.southbound.openflow.messages import Type

_FLOW_MOD = int(Type.FLOW_MOD)
_TO_CONTROLLER = (("output", int(Port13.CONTROLLER)),)


def load(modules: Iterable[str]) -> list[PacketApp]:
    """The packet apps of the modules. Raises ValueError for a module that cannot be imported or has no packet app."""
    apps: dict[int, PacketApp] = {}
    for name in modules:
        try:
            app = getattr(importlib.import_module(name), "app", None)
        except ImportError as error:
            raise ValueError(f"apps: '{name}' cannot be imported: {error}; write the name of a module that is installed") from error
        if not isinstance(app, PacketApp):
            raise ValueError(f"apps: the module '{name}' has no packet app; it needs `app = PacketApp(...)` (controller.services.app)")
        if app.cookie in apps:
            raise ValueError(f"apps: '{name}' is the second packet app named '{app.name}'; list it once, or rename one")
        apps[app.cookie] = app
    return list(apps.values())


def serve(app: PacketApp, driver: OpenFlowSwitch) -> None:
    """Let the app answer the packets that its rules on the switch send."""
    switch = Switch(driver.name, driver.datapath_id, app.cookie, lambda: driver.ports)
    answer, send, owner = app.packet_in, driver.send, (app.cookie >> 16).to_bytes(6)

    def packet_in(packet: PacketIn) -> None:
        for message in answer(switch, packet):
            data = message if isinstance(message, bytes) else encode(message)
            if data[1] == _FLOW_MOD and data[8:14] != owner:
                raise ValueError(f"{app.name}: a rule with the cookie 0x{data[8:16].hex()}, which is not the app's: use switch.cookie")
            send(data)

    driver.packet_apps[app.cookie >> 16] = packet_in


def rules(app: PacketApp) -> list[bytes]:
    """What brings the app its packets, as FLOW_MODs for every switch. Raises ValueError when a match of the app is wrong."""
    wanted = [FlowRule(app.priority, match, _TO_CONTROLLER, app.cookie) for match in app.packets]
    return [encode(FlowMod(FlowCommand.ADD, rule)) for rule in wanted]
