"""The controller's middle on the sandbox network: scripted devices, an emulated fibre plant, the planner in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import topologies
from controller.network.document import load
from controller.network.events import LinkStateChanged
from controller.network.topology import Topology
from controller.routing.light.plant import build
from controller.services.desired import Book
from controller.services.desk import Desk
from controller.services.planner import Planner
from controller.services.reconciler import Reconciler
from controller.services.service import Service
from controller.southbound.device import CrossConnect, KeyRelay, State
from controller.store.sqlite import Store
from controller.telemetry.events import EventLog
from tests.unit.services.scripted import ScriptedDevice, foreign_rule
from topologies.emulation.plant import FibrePlant

SANDBOX = Path(topologies.__file__).parent / "sandbox.yaml"
EXECUTOR = ThreadPoolExecutor(1)
H1_H3 = {"ends": ["h1", "h3"]}
KEY = {"ends": ["alice", "bob"]}
OVER_LIGHT = {**KEY, "avoid": ["relay1", "relay3"]}
"""Keys that only the switched QKD link can carry."""
LIGHT = {"ends": ["alice/q9", "bob/q9"]}


@dataclass
class Running:
    """The controller's middle on the sandbox: scripted devices, and the emulated fibre plant for what the switches' monitors read."""

    store: Store
    observe: bool = False
    topology: Topology = field(default_factory=lambda: load(SANDBOX))
    devices: dict[str, ScriptedDevice] = field(default_factory=dict)
    keys_in_stock: int = 64
    book: Book = field(init=False)
    desk: Desk = field(init=False)
    reconciler: Reconciler = field(init=False)
    events: EventLog = field(default_factory=EventLog)

    def __post_init__(self) -> None:
        self.plant = FibrePlant(load(SANDBOX))
        for name in ("s1", "s2", "s3", "ocs1", "ocs2", "alice", "bob", "relay1", "relay2", "relay3"):
            self.devices.setdefault(name, ScriptedDevice(name, *([foreign_rule(99)] if name.startswith("s") else [])))
            self.devices[name].state = self._readings(name)
        self.book = Book(self.store)
        self.reconciler = Reconciler(self.devices, self.book, lambda *round: self.desk.settled(*round), observe=self.observe)
        self.reconciler.plant = partial(build, self.topology)
        self.desk = Desk(self.topology, self.book, Planner(EXECUTOR), self.reconciler, self.events, self.store)

    def _readings(self, name: str) -> Callable[[State], State]:
        def read(state: State) -> State:
            for switch in ("ocs1", "ocs2"):
                held = self.devices[switch].items
                self.plant.cross_connects[switch] = frozenset(
                    (each.ingress, each.egress) for each in held if isinstance(each, CrossConnect)
                )
            stock = {each.service: self.keys_in_stock for each in state.items if isinstance(each, KeyRelay)}
            dark = dict.fromkeys(range(1, 17), -60.0) if name.startswith("ocs") else {}
            return replace(state, power_dbm=dark | dict(self.plant.light().power_dbm.get(name, {})), stock_keys=stock)

        return read

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.reconciler.run()), asyncio.create_task(self.desk.run())]
        try:
            yield
            assert not any(task.done() for task in tasks), [task.exception() for task in tasks if task.done()]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, condition: Callable[[], object]) -> None:
        try:
            async with asyncio.timeout(5):
                while not condition():  # noqa: ASYNC110 - the state of several parts is watched
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError({name: (each.state, each.reason) for name, each in self.book.services.items()}) from None

    async def reaches(self, name: str, state: str, *, reason: str = "") -> Service:
        await self.until(
            lambda: name in self.book.services and self.book.services[name].state == state and reason in self.book.services[name].reason
        )
        return self.book.services[name]

    def link(self, link: str, *, up: bool) -> None:
        event = LinkStateChanged(link, up)
        assert self.topology.apply(event)
        self.desk.network_changed(event, better=up)

    def held(self) -> int:
        return sum(len(device.items - {foreign_rule(99)}) for device in self.devices.values())

    def links_of(self, name: str) -> set[str]:
        plan = self.book.services[name].plan
        assert plan is not None
        return {each for each in plan.touches if each not in self.topology.graph}
