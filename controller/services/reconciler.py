"""The one engine: read the devices, compare with what they should hold, change the difference in stages, read back.

First programming, repair after drift, restart after a crash and undo are all this. It is level-triggered: it acts on what is, not on what
was said to have happened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from controller.services.desired import Book
from controller.services.stages import stages
from controller.southbound.device import Device, DeviceError, Diff, Item, Refused, State, diff

log = logging.getLogger(__name__)

SWEEP_S = 30.0
"""How often every device is read again without a cause."""
RETRY_S = 1.0
"""How long to wait before a device that failed is tried again."""


@dataclass(slots=True)
class DeviceView:
    """What is known of one device: its last reading, what was to change then, and its last trouble."""

    state: State | None = None
    diff: Diff | None = None
    trouble: str = ""
    reads: int = 0
    applies: int = 0
    failures: int = 0


@dataclass(slots=True)
class Reconciler:
    """Owns the devices. `book` says what they should hold; `settled` is called after a round with the devices that were read.

    With `observe` it reads and compares, and writes nothing.
    """

    devices: Mapping[str, Device]
    book: Book
    settled: Callable[[frozenset[str], Mapping[str, str]], None]
    light_order: Callable[[], Mapping[str, int]]
    observe: bool = False
    views: dict[str, DeviceView] = field(default_factory=dict)
    rounds: int = 0
    _dirty: set[str] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.views = {name: DeviceView() for name in self.devices}

    def mark(self, devices: Iterable[str]) -> None:
        """These devices may differ from what they should hold: look at them now."""
        self._dirty.update(name for name in devices if name in self.devices)
        self._wake.set()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        while True:
            try:
                async with asyncio.timeout(SWEEP_S):
                    await self._wake.wait()
            except TimeoutError:
                self._dirty.update(self.devices)
            self._wake.clear()
            batch, self._dirty = self._dirty, set()
            failed = await self._round(batch)
            if failed:
                asyncio.get_running_loop().call_later(RETRY_S, self.mark, failed)

    async def _round(self, batch: set[str]) -> set[str]:
        """One pass over these devices. Returns those to try again."""
        self.rounds += 1
        batch = {name for name in batch if self.devices[name].connected}
        diffs = await self._read(batch)
        refused: dict[str, str] = {}
        failed = batch - diffs.keys()
        if not self.observe:
            held = self._items_of(self._services_on({name for name, device in self.devices.items() if not device.connected} | failed))
            wanted = {name: _without(each, held) for name, each in diffs.items()}
            refused, unanswered = await self._check({name: each for name, each in wanted.items() if not each.empty})
            blocked = self._items_of({service for name in refused | unanswered for service in self._owners(wanted[name])})
            wanted = {name: _without(each, blocked) for name, each in wanted.items() if name not in unanswered}
            failed |= unanswered.keys() | await self._apply(list(wanted.values()), refused)
        self.settled(frozenset(diffs), refused)
        return failed - refused.keys()

    async def read(self, names: Iterable[str]) -> dict[str, Diff]:
        """Read these devices now and compare, without changing anything."""
        return await self._read({name for name in names if self.devices[name].connected})

    async def _read(self, names: set[str]) -> dict[str, Diff]:
        ordered = sorted(names)
        results = await asyncio.gather(*(self._read_one(name) for name in ordered))
        return {name: result for name, result in zip(ordered, results, strict=True) if result is not None}

    async def _read_one(self, name: str) -> Diff | None:
        view = self.views[name]
        try:
            view.state = await self.devices[name].read()
        except DeviceError as error:
            view.trouble = error.what
            view.failures += 1
            return None
        view.reads += 1
        view.trouble = ""
        desired = self.book.of(name)
        view.diff = diff(name, view.state.items, desired.items(), frozenset(desired.absent))
        if not self.observe:
            self.book.forget_absent(name, (item for item in desired.absent if item not in view.state.items))
        return view.diff

    def _services_on(self, devices: Iterable[str]) -> set[str]:
        """Services that need one of these devices: while it cannot be reached they are not programmed elsewhere either."""
        return {service for name in devices for service in self.book.of(name).present}

    def _owners(self, each: Diff) -> set[str]:
        """Services whose items a diff adds."""
        added = set(each.add)
        return {service for service, items in self.book.of(each.device).present.items() if not added.isdisjoint(items)}

    def _items_of(self, services: set[str]) -> frozenset[Item]:
        return frozenset(item for each in self.book.desired.values() for service in services for item in each.present.get(service, ()))

    async def _check(self, diffs: Mapping[str, Diff]) -> tuple[dict[str, str], dict[str, str]]:
        """Asked before the first stage: what devices would refuse, and which did not answer, by device."""
        refused: dict[str, str] = {}
        unanswered: dict[str, str] = {}

        async def ask(name: str, each: Diff) -> None:
            taken = {item.key for item in each.foreign}
            clash = [item for item in each.add if item.key in taken]
            if clash:
                refused[name] = f"{name}: {clash[0]} would replace what somebody else put there; remove that, or ask for other ends"
            elif "validate" in self.devices[name].capabilities:
                try:
                    faults = await self.devices[name].check(each)
                except DeviceError as error:
                    unanswered[name] = self.views[name].trouble = error.what
                else:
                    if faults:
                        refused[name] = f"{name}: {'; '.join(faults)}"

        await asyncio.gather(*(ask(name, each) for name, each in sorted(diffs.items())))
        return refused, unanswered

    async def _apply(self, diffs: list[Diff], refused: dict[str, str]) -> set[str]:
        """Apply in stages and read back. Returns the devices to try again; when one fails, later stages are not begun.

        What a device refuses now is added to `refused`.
        """
        failed: set[str] = set()
        touched: set[str] = set()
        for stage in stages(diffs, self.light_order()):
            touched |= stage.keys()
            results = await asyncio.gather(*(self._apply_one(name, each, refused) for name, each in stage.items()))
            if not all(results):
                failed = {each.device for each in diffs if not each.empty}
                break
        return failed | (touched - (await self._read(touched)).keys())

    async def _apply_one(self, name: str, each: Diff, refused: dict[str, str]) -> bool:
        view = self.views[name]
        try:
            await self.devices[name].apply(each)
        except DeviceError as error:
            log.warning("%s", error)
            view.trouble = error.what
            view.failures += 1
            if isinstance(error, Refused):
                refused[name] = str(error)
            return False
        view.applies += 1
        return True


def _without(each: Diff, held: frozenset[Item]) -> Diff:
    return Diff(each.device, tuple(item for item in each.add if item not in held), each.remove, each.foreign)
