"""The edge of discovery: hellos leave every port of every switch once per interval, spread over it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Protocol

from controller.southbound.discovery.discovery import Discovery
from controller.southbound.openflow.messages import Port

_MOST_STEPS = 200
_SWITCHES_AT_ONCE = 50
"""Whose ports are gone through before others have their turn on the event loop."""
_LAST_PHYSICAL_PORT = 0xFFFFFF00


class Switch(Protocol):
    """What discovery needs of a switch's driver."""

    name: str

    @property
    def ports(self) -> Mapping[int, Port]: ...

    def packet_out(self, port: int, data: bytes) -> bool: ...


async def send_hellos(discovery: Discovery, switches: Mapping[str, Switch]) -> None:
    """Send and judge until cancelled. What a controller short of time does not send is not made up for."""
    loop = asyncio.get_running_loop()
    while True:
        due: list[tuple[Switch, Port]] = []
        for number, switch in enumerate(switches.values()):
            due += [(switch, port) for port in switch.ports.values() if port.number <= _LAST_PHYSICAL_PORT and port.up]
            if number % _SWITCHES_AT_ONCE == 0:
                await asyncio.sleep(0)
        steps = max(1, min(len(due), _MOST_STEPS))
        for step in range(steps):
            for switch, port in due[step::steps]:
                discovery.greet(switch.name, port.number, port.mac, partial(switch.packet_out, port.number))
            await asyncio.sleep(discovery.timing.interval_s / steps)
        discovery.judge(loop.time())
