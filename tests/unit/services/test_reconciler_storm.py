"""Whatever happens while devices are read and changed, once it is quiet they hold what is desired: nothing waits for the next sweep."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from controller.services import reconciler as module
from controller.services.desired import STANDING, Book
from controller.services.reconciler import Reconciler
from controller.southbound.device import Diff, Item, State, Unreachable
from controller.store.sqlite import Store
from tests.unit.services.scripted import ScriptedDevice, delivered, foreign_rule, rule

FOREIGN = foreign_rule(99)
DEVICES, SERVICES = "ABC", ("s", "t")


class Unsteady(ScriptedDevice):
    """Takes its time, and as long as it has `ills` left makes some changes in part, or says that it did not."""

    def __init__(self, name: str, draw: random.Random) -> None:
        super().__init__(name, FOREIGN)
        self.draw = draw
        self.ills = 0

    async def _pause(self) -> None:
        for _ in range(self.draw.randrange(4)):
            await asyncio.sleep(0)
        if self.draw.random() < 0.2:
            await asyncio.sleep(0.001)

    async def read(self) -> State:
        await self._pause()
        state = await super().read()
        await self._pause()
        if not self.up:
            raise Unreachable(self.name, "the session ended")
        return state

    async def apply(self, diff: Diff) -> None:
        await self._pause()
        ill = self.ills > 0 and self.draw.random() < 0.5
        if ill:
            self.ills -= 1
            diff = Diff(diff.device, diff.add[: self.draw.randrange(len(diff.add) + 1)])
        await super().apply(diff)
        await self._pause()
        if ill or not self.up:
            raise Unreachable(self.name, "the session ended")


class Storm:
    def __init__(self, store: Store, draw: random.Random, verdict_s: float) -> None:
        self.draw = draw
        self.devices = {name: Unsteady(name, draw) for name in DEVICES}
        self.book = Book(store, {name: (rule(f"{STANDING}{name}", 90),) for name in DEVICES})
        self.reconciler = Reconciler(self.devices, self.book, self.settled, sweep_s=1e6, verdict_s=verdict_s)
        self.refused: dict[str, str] = {}

    async def settled(self, looked_at: frozenset[str], concerned: set[str], refused: Mapping[str, str]) -> None:
        self.refused |= refused

    def happen(self, what: str) -> None:
        """What the daemon is told of, it tells the reconciler: a new plan, a session, a change that the device reports."""
        name = self.draw.choice(DEVICES)
        device, service = self.devices[name], self.draw.choice(SERVICES)
        device.ills = self.draw.randrange(3)
        match what:
            case "plan":
                items: dict[str, tuple[Item, ...]] = {
                    each: tuple(
                        rule(service, 10 * SERVICES.index(service) + number, hop=self.draw.randrange(3), port=self.draw.randrange(2))
                        for number in self.draw.sample(range(3), self.draw.randrange(1, 4))
                    )
                    for each in DEVICES
                    if self.draw.random() < 0.7
                }
                self.reconciler.mark(self.book.commit([delivered(service, items)]))
            case "leave":
                self.reconciler.mark(self.book.commit([], [service] if service in self.book.services else []))
            case "drift":
                changed: Item = rule(service, self.draw.randrange(20), port=self.draw.randrange(3))
                device.items = {each for each in device.items if each.key != changed.key and (each == FOREIGN or self.draw.random() < 0.7)}
                device.items |= {changed} if self.draw.random() < 0.5 else set()
                self.reconciler.mark([name])
            case "session":
                device.up = not device.up
                if device.up:
                    self.reconciler.renew(name)

    def at_rest(self) -> bool:
        return all(
            device.items == self.book.of(name).items() | {FOREIGN}
            and not self.book.of(name).absent
            and (state := self.reconciler.views[name].state) is not None
            and state.items == device.items
            for name, device in self.devices.items()
        )


@pytest.mark.timeout(600)
@settings(phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck))  # each example that fails waits for long
@given(
    st.lists(st.tuples(st.sampled_from(["plan", "leave", "drift", "session", "read"]), st.integers(0, 30)), max_size=25),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.01]),
)
def test_once_it_is_quiet_devices_hold_what_is_desired(happenings: list[tuple[str, int]], seed: int, verdict_s: float) -> None:
    async def story(store: Store) -> None:
        storm = Storm(store, random.Random(seed), verdict_s)
        running = asyncio.create_task(storm.reconciler.run())
        readings = []
        storm.reconciler.mark(DEVICES)
        for what, turns in happenings:
            if what == "read":
                readings.append(asyncio.create_task(storm.reconciler.read(DEVICES)))
            storm.happen(what)
            for _ in range(turns % 10):
                await asyncio.sleep(0)
            await asyncio.sleep(0.001 * (turns // 10))
        for device in storm.devices.values():
            if not device.up:
                device.up = True
                storm.reconciler.renew(device.name)
        await asyncio.gather(*readings)
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                while not storm.at_rest() and not running.done():  # noqa: ASYNC110 - what is waited for has no event
                    await asyncio.sleep(0.001)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        held = {name: (device.items, storm.book.of(name), storm.reconciler.views[name]) for name, device in storm.devices.items()}
        assert storm.at_rest(), held
        assert storm.refused == {}

    with tempfile.TemporaryDirectory() as folder, patch.object(module, "RETRY_S", 0.005):
        store = Store(Path(folder) / "store.db")
        try:
            asyncio.run(story(store))
        finally:
            store.close()
