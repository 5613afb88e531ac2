"""Emulated optical devices beside the drivers that hold them, under one face: what the conformance suite drives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal, Protocol

import asyncssh

from controller.southbound.device import Connected, CrossConnect, Device, DeviceEvent, Diff, Item, MediaChannel
from controller.southbound.drivers.netconf_device import Model, NetconfDevice
from controller.southbound.drivers.optical_switch import OpticalSwitch
from controller.southbound.drivers.scpi_switch import ScpiSwitch
from controller.southbound.drivers.wavelength_router import WavelengthRouter
from controller.southbound.netconf import rpc
from controller.southbound.netconf import session as netconf
from controller.southbound.scpi import grammar
from controller.southbound.scpi import session as scpi
from topologies.emulation.netconf.server import Misbehaviour, NetconfServer
from topologies.emulation.optical_switch import EmulatedOpticalSwitch
from topologies.emulation.scpi_switch import EmulatedScpiSwitch
from topologies.emulation.wavelength_switch import EmulatedWavelengthSwitch

Fault = Literal["hang", "lie", "drop", "drop-after", "refuse"]
PASSWORD = "sesame"
PORTS = 16


class Twin(Protocol):
    """An emulated device `dev1`. `items` go together on it; `clash` does not go with the first of them, `moved` is that first one led elsewhere."""

    items: tuple[Item, Item, Item]
    moved: Item
    clash: Item
    capabilities: frozenset[str]

    async def start(self) -> None:
        """Listen: where it did before, when it did."""
        ...

    async def close(self) -> None: ...

    def driver(self, timeout_s: float) -> Device: ...

    def held(self) -> frozenset[Item]:
        """What the device itself says that it holds."""
        ...

    async def change(self, add: tuple[Item, ...], remove: tuple[Item, ...] = ()) -> None:
        """Somebody else's change, over a session of their own."""
        ...

    def light(self, port: int, dbm: float) -> None: ...

    def misbehave(self, does: Fault) -> None:
        """Go wrong, once, at the step that puts a change into effect."""
        ...


class NetconfTwin:
    """`without` are capabilities the device does not have."""

    def __init__(
        self,
        device: NetconfServer,
        held: Callable[[], frozenset[Item]],
        light: Callable[[int, float], None],
        model: Callable[[frozenset[str]], Model],
        items: tuple[Item, Item, Item],
        moved: Item,
        clash: Item,
        directory: Path,
        without: tuple[str, ...] = (),
    ) -> None:
        device.capabilities = tuple(each for each in device.capabilities if not any(name in each for name in without))
        self.device = device
        self.held = held
        self.light = light
        self.items, self.moved, self.clash = items, moved, clash
        self.capabilities = frozenset({"validate", "power", "atomic"})
        self._commits = "edit-config" if "candidate" in without else "commit"
        self._model = model
        self._directory = directory
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._port = 0

    async def start(self) -> None:
        self._port = await self.device.start(port=self._port, passwords={"bellhop": PASSWORD, "other": PASSWORD}, host_key=self._key)
        (self._directory / "known_hosts").write_text(f"[127.0.0.1]:{self._port} {self.device.host_public_key}\n")

    async def close(self) -> None:
        await self.device.close()

    def driver(self, timeout_s: float) -> Device:
        login = netconf.Credentials("bellhop", self._directory / "known_hosts", password=PASSWORD)
        backoff = {"reconnect_min_s": 0.02, "reconnect_max_s": 0.1}
        return NetconfDevice("dev1", f"127.0.0.1:{self._port}", login, self._model, timeout_s=timeout_s, **backoff)

    async def change(self, add: tuple[Item, ...], remove: tuple[Item, ...] = ()) -> None:
        login = netconf.Credentials("other", self._directory / "known_hosts", password=PASSWORD)
        async with netconf.open_session("127.0.0.1", self._port, login) as session:
            config = self._model(session.capabilities).edit(self.held(), Diff("dev1", add, remove))
            assert config is not None
            await session.call(rpc.edit_config("running", config))

    def misbehave(self, does: Fault) -> None:
        self.device.misbehaviours.append(Misbehaviour(self._commits, does))


class ScpiTwin:
    def __init__(self) -> None:
        self.device = EmulatedScpiSwitch("dev1", PORTS, switching_time_s=0.0)
        self.items, self.moved, self.clash = CROSS_CONNECTS
        self.capabilities: frozenset[str] = frozenset()
        self._port = 0

    async def start(self) -> None:
        self._port = await self.device.start(port=self._port)

    async def close(self) -> None:
        await self.device.close()

    def driver(self, timeout_s: float) -> Device:
        return ScpiSwitch("dev1", f"127.0.0.1:{self._port}", timeout_s=timeout_s, poll_s=0.02, reconnect_min_s=0.02, reconnect_max_s=0.1)

    def held(self) -> frozenset[Item]:
        return frozenset(CrossConnect(*pair) for pair in self.device.cross_connects)

    async def change(self, add: tuple[Item, ...], remove: tuple[Item, ...] = ()) -> None:
        async with scpi.open_session("127.0.0.1", self._port) as session:
            for command, items in ((grammar.subtract_connections, remove), (grammar.add_connections, add)):
                pairs = [(item.ingress, item.egress) for item in items if isinstance(item, CrossConnect)]
                assert not pairs or not await session.command(command(pairs))

    def light(self, port: int, dbm: float) -> None:
        """Nothing shows it: the switch has no monitors that can be asked."""

    def misbehave(self, does: Fault) -> None:
        self.device.misbehaviours.append(Misbehaviour("OXC:SWIT:CONN:ADD", does))


CROSS_CONNECTS = (CrossConnect(1, 9), CrossConnect(2, 10), CrossConnect(3, 11)), CrossConnect(1, 12), CrossConnect(4, 9)


def optical_switch(directory: Path, model: Literal["pair", "pairs"], without: tuple[str, ...] = ()) -> Twin:
    device = EmulatedOpticalSwitch("dev1", PORTS, switching_time_s=0.0, model=model)

    def held() -> frozenset[Item]:
        return frozenset(CrossConnect(*pair) for pair in device.cross_connects)

    return NetconfTwin(device, held, device.set_power, OpticalSwitch, *CROSS_CONNECTS, directory, without)


def wavelength_switch(directory: Path) -> Twin:
    device = EmulatedWavelengthSwitch("dev1", [str(port) for port in range(1, PORTS + 1)], switching_time_s=0.0)

    def held() -> frozenset[Item]:
        return frozenset(
            MediaChannel(each.index, each.source, each.dest, each.lower_mhz, each.upper_mhz, name=f"channel {each.index}")
            for each in device.channels
        )

    def light(port: int, dbm: float) -> None:
        device.set_power(str(port), input_dbm=dbm, output_dbm=None)

    def channel(index: int, source: str, dest: str, slot: int = 0) -> MediaChannel:
        lower = 193_100_000 + slot * 50_000
        return MediaChannel(index, source, dest, lower, lower + 50_000, name=f"channel {index}")

    items = channel(1, "1", "9"), channel(2, "2", "9", slot=1), channel(3, "3", "10")
    return NetconfTwin(
        device, held, light, lambda _: WavelengthRouter(), items, channel(1, "1", "12", slot=2), channel(4, "4", "9"), directory
    )


TWINS: dict[str, Callable[[Path], Twin]] = {
    "netconf pair": lambda directory: optical_switch(directory, "pair"),
    "netconf pairs": lambda directory: optical_switch(directory, "pairs"),
    "netconf without candidate": lambda directory: optical_switch(directory, "pair", without=("candidate", "confirmed-commit")),
    "scpi": lambda directory: ScpiTwin(),
    "wavelength switch": wavelength_switch,
}


@asynccontextmanager
async def driven(twin: Twin, timeout_s: float = 5.0) -> AsyncIterator[tuple[Device, AsyncIterator[DeviceEvent]]]:
    """The twin's driver, connected."""
    device = twin.driver(timeout_s)
    events = device.events()
    task = asyncio.create_task(device.run())
    try:
        assert await next_event(events) == Connected("dev1")
        yield device, events
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def next_event(events: AsyncIterator[DeviceEvent]) -> DeviceEvent:
    return await asyncio.wait_for(anext(events), 10)
