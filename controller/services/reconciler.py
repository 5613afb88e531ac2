"""The one engine: read the devices, compare with what they should hold, change the difference in stages, read back.

First programming, repair after drift, restart after a crash and undo are all this. It is level-triggered: it acts on what is, not on what
was said to have happened.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

from controller.network.topology import Topology
from controller.routing.light.plant import Plant, build
from controller.services.desired import STANDING, Book, Desired
from controller.services.device_view import UNREAD, DeviceView
from controller.services.light_order import LightOrder, in_order
from controller.services.light_safety import Join, Part, after, unsafe
from controller.services.stages import stages
from controller.services.turn import Turn, let_go, together
from controller.services.work import Change, Work, darken, drop, lit, owned, to_do, wait_for_dark
from controller.southbound.device import Device, DeviceError, Diff, Item, Refused, State, diff

LONG_TABLE = 500
"""So many items of a device, read or wanted, are compared beside the event loop."""
RETRY_S = 1.0
"""How long to wait before a device that failed is tried again."""
GATHER_S = 0.5
"""How long to wait after a round while many services are being planned."""


@dataclass(slots=True)
class Reconciler:
    """Owns the devices. `book` says what they should hold; `settled` is called after a round with the devices that were looked at, the
    services for which one was read to be other than before, and those that one refused, with its reason.

    Every device is read again each `sweep_s` without a cause. What became other than it should be without us is repaired when it still is
    after `verdict_s`: somebody's change may be on its way; what is to stand whatever the services want, at once. With `observe` it reads and
    compares, and writes nothing.
    """

    devices: Mapping[str, Device]
    book: Book
    settled: Callable[[frozenset[str], set[str], Mapping[str, str]], Awaitable[None]]
    observe: bool = False
    sweep_s: float = 30.0
    verdict_s: float = 0.0
    plant: Callable[[], Plant] = lambda: build(Topology("unknown", {}, []))
    """What is at the ports of optical switches, for the rules of safety."""
    views: dict[str, DeviceView] = field(default_factory=dict)
    rounds: int = 0
    waiting: set[str] = field(default_factory=set)
    """Devices that keep what is to be gone, since the last round, until the light that passes it is put out elsewhere."""
    _dirty: set[str] = field(default_factory=set)
    _concerned: set[str] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _next_verdict_s: float = math.inf
    _gathered: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.views = {name: DeviceView(name, partial(self.mark, [name])) for name in self.devices}
        self._gathered.set()

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """While many services are being planned, one after the other: each round is to serve many of them, for each looks at whole devices."""
        self._gathered.clear()
        try:
            yield
        finally:
            self._gathered.set()

    def mark(self, devices: Iterable[str]) -> None:
        """These devices may differ from what they should hold: look at them now."""
        self._dirty.update(name for name in devices if name in self.devices)
        self._wake.set()

    def renew(self, device: str) -> None:
        """The device has a new session: whatever it lacks is put there at once."""
        self.views[device].renewed = True
        self.mark([device])

    async def run(self) -> None:
        """Reconcile until cancelled."""
        try:
            await self._run()
        finally:
            await asyncio.gather(*(view.close() for view in self.views.values()))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        sweep_s = loop.time() + self.sweep_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(sweep_s, self._next_verdict_s)):
                    await self._wake.wait()
            if loop.time() >= sweep_s:
                self._dirty.update(self.devices)
                self._concerned.update(self.book.services)  # whatever was overlooked
                sweep_s = loop.time() + self.sweep_s
            self._wake.clear()
            batch, self._dirty = self._dirty, set()
            failed = await self._round(batch)
            if failed:
                loop.call_later(RETRY_S, self.mark, failed)
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    await self._gathered.wait()

    async def _round(self, batch: set[str]) -> set[str]:
        """One pass over these devices and those already known to differ. Returns those to try again."""
        self.rounds += 1
        looked_at = batch | {name for name, view in self.views.items() if view.diff is not None and not view.diff.empty}
        batch = {name for name in looked_at if self.devices[name].connected}
        diffs = await self._read(batch, forget=not self.observe)
        against = {name: self.views[name].against or Desired() for name in diffs}
        refused: dict[str, str] = {}
        failed = batch - diffs.keys()
        if not self.observe:
            held = self._held(failed)
            work: Work = {}
            turn = Turn()
            now_s = asyncio.get_running_loop().time()
            for name, each in diffs.items():
                each = self.views[name].deviations.due(each, now_s, self.verdict_s)
                each = self._without_reported(each)
                if not each.empty:
                    view, services = self.views[name], self.book.services
                    # not what somebody else has had the device compared for meanwhile
                    wanted = (view.against or self.book.of(name)).wanted
                    work[name] = await owned(each, (view.state or UNREAD).items, wanted, services, held)
                    await turn.pause()
            drop(work, set(), self._half_lit(work))
            await self.book.store.durable()  # what devices are given is known after a crash
            failed |= await self._check(work, refused)
            failed |= await self._apply(work, refused, held)
            # with those that were found when the changes were read back
            self._next_verdict_s = min((view.deviations.next_s(now_s, self.verdict_s) for view in self.views.values()), default=math.inf)
            await let_go(diffs, work)
        refused = {name: why for name, why in refused.items() if self._current(name, against)}
        await let_go(against)
        concerned, self._concerned = self._concerned, set()
        await self.settled(frozenset(looked_at), concerned, refused)
        return failed

    def _current(self, service: str, against: Mapping[str, Desired]) -> bool:
        """Whether a service still wants what it wanted when the devices were read: what was refused of another plan says nothing of it."""
        return all(then.present.get(service) == self.book.of(name).present.get(service) for name, then in against.items())

    async def read(self, names: Iterable[str]) -> dict[str, Diff]:
        """Read these devices now and compare, without changing anything."""
        return await self._read({name for name in names if name in self.devices and self.devices[name].connected}, forget=False)

    async def _read(self, names: set[str], *, forget: bool) -> dict[str, Diff]:
        """The differences of those that answered. `forget` what was to be gone and is: only between changes can that be known."""
        ordered = sorted(names)
        before = {name: self.views[name].state for name in ordered}
        wanted_before = {name: self.views[name].against for name in ordered}
        results = await together(self._read_one(name) for name in ordered)
        states = {name: result for name, result in zip(ordered, results, strict=True) if result is not None}
        turn = Turn()
        if forget:
            for name, state in states.items():
                self.book.forget_absent(name, state.items)
                await turn.pause()
        wanted = {name: self.book.lend(name) for name in states}  # of one moment: a plan that changes now is the next round's
        diffs: dict[str, Diff] = {}
        for name, state in states.items():
            view, desired = self.views[name], wanted[name]
            compared = name, state.items, desired.items(), frozenset(desired.absent)
            short = max(len(state.items), len(desired.wanted)) < LONG_TABLE
            diffs[name] = view.diff = diff(*compared) if short else await asyncio.to_thread(diff, *compared)
            view.against = desired
            held, wanted_then = before.pop(name), wanted_before.pop(name)  # to let go of all at the end would take a slice of its own
            earlier = (held or UNREAD).items
            view.darkened -= state.items
            view.lost = {item for item in diffs[name].add if (item in earlier or item in view.lost) and item not in view.darkened}
            if view.renewed:
                view.renewed = False
                view.deviations.forget()
            elif held is not None:
                astray = (item for item in diffs[name].add if item in held.items and item not in view.darkened)
                in_place = {item for item in astray if _patient(item, wanted_then, desired)}
                view.deviations.note(diffs[name], in_place, desired.absent, asyncio.get_running_loop().time())
            self._concerned.update(_concerned(held, state, diffs[name], desired))
            await turn.pause()
        return diffs

    async def _read_one(self, name: str) -> State | None:
        view = self.views[name]
        state = await view.read(self.devices[name].read)
        if isinstance(state, DeviceError):
            return None
        view.state, view.trouble = state, ""
        view.reads += 1
        return state

    def _without_reported(self, each: Diff) -> Diff:
        """Without what somebody took away from services that were in place and ask for no more than to be told."""

        def reported(item: Item) -> bool:
            users = (self.book.services.get(name) for name in self.book.of(each.device).wanted.get(item, ()))
            return all(user is not None and user.reports_drift for user in users)

        lost = self.views[each.device].lost
        return replace(each, add=tuple(item for item in each.add if item not in lost or not reported(item))) if lost else each

    def _held(self, failed: set[str]) -> set[str]:
        """Services that need a device which cannot be asked and was not read to hold what they need: they are not half programmed."""
        held = set()
        for name, desired in self.book.desired.items():
            if name in failed or name not in self.devices or not self.devices[name].connected:
                view = self.views.get(name)
                known = view.state.items if view is not None and view.state is not None else frozenset()
                held |= {service for service, items in desired.present.items() if not known.issuperset(items)}
        return held

    def _half_lit(self, work: Work) -> set[str]:
        """Services whose light would be let in though something on its way is missing that is not to be put there in this round, as what
        somebody took away may be on its way back."""
        changes = [work[name] for name in lit(work)]
        found = set[str]()
        for service in map(self.book.services.get, {each.owners[item] for each in changes for item in each.whole.add if isinstance(item, Join)}):
            if service is None or service.plan is None:
                continue
            for name, items in service.plan.desired.items():
                view = self.views.get(name)
                there = view.state.items if view is not None and view.state is not None else frozenset()
                coming = work[name].owners if name in work else {}
                if any(isinstance(item, Join) and item not in there and item not in coming for item in items):
                    found.add(service.id)
        return found

    async def _check(self, work: Work, refused: dict[str, str]) -> set[str]:
        """Asked before the first stage: what devices would refuse. Services refused, and devices that did not answer, leave `work`.

        Returns the devices to try again.
        """
        self._refuse(work, [change.whole for change in work.values()], self._joins(work), refused)
        drop(work, set(), set(refused))
        results = await together(self._check_one(name, change, refused) for name, change in sorted(work.items()))
        failed = {name for name, passed in zip(sorted(work), results, strict=True) if not passed}
        drop(work, failed, set(refused))
        return failed

    async def _check_one(self, name: str, change: Change, refused: dict[str, str]) -> bool:
        """Whether the device may be changed now; services it would refuse are named in `refused`."""
        taken = {item.key for item in change.whole.foreign}
        for item in change.whole.add if taken else ():
            if item.key in taken:
                refused[change.owners[item]] = (
                    f"{name}: {item} would replace what somebody else put there; remove that, or ask for other ends"
                )
        if "validate" not in self.devices[name].capabilities:
            return True
        services = set(change.owners.values()) - refused.keys()
        mine = sorted(services - {""})
        if not services:
            return True
        faults = await self._faults(name, change.only(services.__contains__))
        if isinstance(faults, DeviceError):
            return False
        if faults and not mine:
            self.views[name].trouble = "; ".join(faults)
            return False
        if faults:
            blame = dict.fromkeys(mine, faults)
            if len(mine) > 1:
                for service in mine:
                    alone = await self._faults(name, change.only({"", service}.__contains__))
                    if isinstance(alone, DeviceError):
                        return False
                    blame[service] = alone
            if not any(blame.values()):
                blame = dict.fromkeys(mine, faults)
            refused.update({service: f"{name}: {'; '.join(what)}" for service, what in blame.items() if what})
        return True

    async def _faults(self, name: str, change: Change) -> list[str] | DeviceError:
        return await self.views[name].call(lambda: self.devices[name].check(change.whole))

    async def _apply(self, work: Work, refused: dict[str, str], held: set[str]) -> set[str]:
        """Apply in stages and read back. Returns the devices to try again.

        When a device fails, the services with a part in its change go no further, and nor does the device; the others go on. What a
        device refuses now is added to `refused`. Services that are `held` keep their light as it is.
        """
        failed: set[str] = set()
        touched: set[str] = set()
        troubles: dict[str, str] = {}
        joins = self._joins(work)
        light = await self._light_order(work, joins)
        darken(work, self._darkened(light, held | refused.keys()))
        waiting = set[str]()
        # pure, and long when there is much to do
        for stage in await asyncio.to_thread(stages, [change.whole for change in work.values()], light):
            if joins:
                sources = wait_for_dark(work, stage, light, joins)
                waiting |= sources.keys()
                troubles |= {name: self._waits(each) for name, each in sources.items()}
            calls = await to_do(work, stage)
            if joins and self._refuse(work, [change.whole for change in calls.values()], joins, refused):
                drop(work, set(), set(refused))
                calls = await to_do(work, stage)
            touched |= calls.keys()
            failures = {name: self.views[name].failures for name in calls}
            for name, change in calls.items():
                self.views[name].darkened |= {item for item in change.whole.remove if (name, item) in light.darkened}
            results = await together(self._apply_one(name, change, refused) for name, change in calls.items())
            down = {name for name, done in zip(calls, results, strict=True) if not done}
            if joins:
                sure = {name for name in calls if name not in down and self.views[name].failures == failures[name]}  # else nobody knows what is done
                joins = after(joins, [each.whole if name in sure else replace(each.whole, remove=()) for name, each in calls.items()])
            troubles |= {name: self.views[name].trouble for name in down}
            lost = set(refused) | {service for name in down for service in work[name].owners.values() if service}
            if down or lost:
                failed |= down | {name for name, change in work.items() if not lost.isdisjoint(change.owners.values())}
                drop(work, down, lost)
        self.waiting = waiting
        left = await self._read(touched, forget=True)
        for name, trouble in troubles.items():  # that it can be read is no answer to why it is not changed
            if name not in touched or (name in left and not left[name].empty):
                self.views[name].trouble = trouble
        return failed | (touched - left.keys())

    async def _light_order(self, work: Work, joins: Mapping[str, set[Join]]) -> LightOrder:
        if not joins:
            return LightOrder()
        plant = self.plant()
        # of a switch that does not answer the operator can say that no light passes it, by disabling it
        shut = {name for name in joins if not self.devices[name].connected and plant.survey.disabled(name)}
        held = {name: items for name, items in joins.items() if name not in shut}
        plans = {name: self.book.lend(name) for name in held}
        wanted, leaving = {name: each.wanted for name, each in plans.items()}, {name: each.absent for name, each in plans.items()}
        return await asyncio.to_thread(in_order, plant, held, [change.whole for change in work.values()], wanted, leaving)

    def _darkened(self, light: LightOrder, held: Container[str]) -> dict[Part, str]:
        """What of that which is to be dark meanwhile can be taken apart now, and the service it is for."""
        found = {}
        for name, item in light.darkened:
            *_, service = self.book.of(name).wanted.get(item, ("",))
            if service and service not in held and self.views[name].state is not None and self.devices[name].connected:
                found[name, item] = service
        return found

    def _waits(self, switches: Iterable[str]) -> str:
        """For a device that waits for these."""
        sources = ", ".join(f"{name} ({self.views[name].trouble or 'no session'})" for name in sorted(switches))
        return f"light may still come from {sources}: what passes it is taken apart when it is put out there"

    def _joins(self, work: Work) -> dict[str, set[Join]]:
        """What lets light pass now, on every device where it may; empty when the work has nothing to do with light."""
        changing = lit(work)
        if not changing:
            return {}
        held: dict[str, Iterable[Item]] = {}
        for name in {*changing, *self.plant().survey.devices} & self.views.keys():
            view, desired = self.views[name], self.book.of(name)
            sure, state = view.state is not None and not view.late, view.state or UNREAD
            held[name] = state.items if sure else (*state.items, *desired.items(), *desired.absent)
        return after(held, ())

    def _refuse(self, work: Work, diffs: Iterable[Diff], joins: Mapping[str, set[Join]], refused: dict[str, str]) -> bool:
        """Whether something in the diffs is unsafe; the services it is for are in `refused` then."""
        found = unsafe(self.plant(), joins, diffs) if joins else []
        refused.update({work[each.device].owners[each.item]: str(each) for each in found})
        return bool(found)

    async def _apply_one(self, name: str, change: Change, refused: dict[str, str]) -> bool:
        """Whether the device took the change; of what it refuses, each service's part is tried alone to find out whose it is."""
        answer = await self._change(name, change.whole)
        if not isinstance(answer, Refused):
            return answer is None
        services = sorted({change.owners[item] for item in (*change.whole.add, *change.whole.remove)})
        if len(services) == 1 and services[0]:
            refused[services[0]] = str(answer)
            return True
        for service in services if len(services) > 1 else ():
            alone = await self._change(name, change.only({service}.__contains__).whole)
            if isinstance(alone, Refused) and service:
                refused[service] = str(alone)
            elif isinstance(alone, DeviceError):
                return False
        return len(services) > 1

    async def _change(self, name: str, each: Diff) -> DeviceError | None:
        view = self.views[name]

        async def change() -> None:
            try:
                await self.devices[name].apply(each)
                view.applies += 1
            finally:
                view.changed_s = time.monotonic()

        return await view.call(change)


def _patient(item: Item, before: Desired | None, now: Desired) -> bool:
    """Whether an item that was there may be missing for a while before it is put back: not when it was not wanted then, for it was we who
    replaced it, and not when it is to stand whatever the services want, for then what they stand on is missing."""
    return (before is None or item in before.wanted) and not any(owner.startswith(STANDING) for owner in now.wanted[item])


def _concerned(before: State | None, now: State, each: Diff, desired: Desired) -> Iterator[str]:
    """The services for which it makes a difference that the device, read as `before` then, holds and measures this now."""
    if before is None or before.power_dbm != now.power_dbm:
        yield from desired.present
        return
    for item in (*each.add, *(now.items - before.items)):
        yield from desired.wanted.get(item, ())
    if before.stock_keys != now.stock_keys:
        yield from {service for service, _ in before.stock_keys.items() ^ now.stock_keys.items()}
