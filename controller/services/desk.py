"""The desk: takes requests for services, has them planned one after the other, and follows each until it serves or is gone."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from controller.network.events import AdminChanged, LinkStateChanged, LinkWindowChanged
from controller.network.model import Admin, Link
from controller.network.moves import access_link, moved, place
from controller.network.topology import Topology
from controller.services.desired import Book
from controller.services.judge import Judge
from controller.services.ledger import Ledger
from controller.services.planner import Planner
from controller.services.planning import NameTaken, Planning
from controller.services.reconciler import Reconciler
from controller.services.service import Service
from controller.services.turn import Turn
from controller.southbound.device import Diff, diff
from controller.store.sqlite import Store
from controller.telemetry.events import EventLog

__all__ = ["Desk", "NameTaken", "Observing", "UnknownService"]

TICK_S = 1.0
SETTLING_S = 3.0
"""How long light may take to be read after its path was set, before a fibre is held to be cut."""
CHUNK = 4
"""So many services are judged before others have their turn on the event loop."""
LOOK_AGAIN_S = 30.0
"""How often degraded services are planned again without a cause."""


class UnknownService(LookupError):
    def __init__(self, name: str) -> None:
        super().__init__(f"no service named '{name}'")
        self.name = name


class Observing(RuntimeError):
    def __init__(self) -> None:
        super().__init__("this controller only observes; start it without --observe to change the network")


@dataclass(slots=True)
class Desk:
    """Services from request to removal.

    `settled` is to be called by the reconciler after each round; `network_changed` by whoever applied an event to the topology.
    """

    topology: Topology
    book: Book
    planner: Planner
    reconciler: Reconciler
    events: EventLog
    store: Store
    hold_off_s: float = 0.0
    """How long a fibre must be dark before services are moved off it: light may come back by itself."""
    _judge: Judge = field(init=False)
    _plans: Planning = field(init=False)
    _planning: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: set[str] = field(default_factory=set)
    _held_off: dict[str, float] = field(default_factory=dict)
    """Links that are down, and when (monotonic) their services will be moved."""
    _again: set[str] = field(default_factory=set)
    _declared: dict[str, str] = field(default_factory=dict)
    """Where the document has the hosts that have moved."""
    _better: bool = False
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._judge = Judge(self.topology, self.book, self.reconciler)
        self._plans = Planning(self.topology, self.book, self.planner, self._judge, self.reconciler, self.events)
        for key, entry in self.store.read("admin/").items():
            _, subject, name = key.split("/", 2)
            with suppress(LookupError):  # the document may have lost it since
                self.topology.apply(AdminChanged("node" if subject == "node" else "link", name, entry.value))
        for key, entry in self.store.read("place/").items():
            host = key.removeprefix("place/")
            before, there = entry.value
            link = access_link(self.topology, host) if host in self.topology.graph else None
            if link is not None and place(link, host) == before:  # the document has said nothing new of it since
                self._declared[host] = before
                self._move(link, host, there)

    # asking

    async def create(
        self,
        kind: str,
        request: dict[str, Any],
        *,
        name: str | None = None,
        priority: int = 0,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> Service:
        """Plan a service and make it the desired state. Raises WrongRequest, UnknownName, NoRoute or NameTaken; then nothing has changed."""
        self._may_write()
        async with self._planning:
            family = await self._plans.drafted(self._plans.draft(kind, request, name, priority, start_s, end_s))
            self._plans.deliver(family)
            self._wake.set()  # a shared companion may have to start
            created = self.book.services[family[0].id]
        await self.store.durable()
        return created

    async def dry_run(self, kind: str, request: dict[str, Any], **options: Any) -> tuple[Service, list[Diff]]:
        """What `create` would do: the planned service, and per device the difference it would make now. Nothing changes."""
        async with self._planning:
            family = await self._plans.drafted(
                self._plans.draft(
                    kind, request, options.get("name"), options.get("priority", 0), options.get("start_s"), options.get("end_s")
                )
            )
        per_device: dict[str, list[Service]] = {}
        for service in family:
            for device in service.plan.desired if service.plan else ():
                per_device.setdefault(device, []).append(service)
        await self.reconciler.read(per_device)
        diffs = []
        for device, services in sorted(per_device.items()):
            desired = self.book.of(device).copy()
            for service in services:
                desired.put(service.id, tuple(service.plan.desired[device]) if service.plan else ())
            view = self.reconciler.views.get(device)
            actual = view.state.items if view and view.state else frozenset()
            diffs.append(diff(device, actual, desired.items(), frozenset(desired.absent)))
        return family[0], diffs

    async def remove(self, name: str) -> Service:
        """Take a service off the devices; it is gone when they have been read without it. Companions nobody else needs go with it."""
        self._may_write()
        async with self._planning:
            if name not in self.book.services:
                raise UnknownService(name)
            self._remove([name])
            leaving = self.book.services[name]
        await self.store.durable()
        return leaving

    async def administer(self, subject: str, name: str, admin: Admin) -> tuple[list[str], dict[str, str]]:
        """Enable, drain or disable a node or link; services on it are moved off. Returns those moved, and those that cannot move with why."""
        self._may_write()
        event = AdminChanged("node" if subject == "node" else "link", name, admin)
        (self.topology.node if subject == "node" else self.topology.link)(name)
        self.store.commit({f"admin/{subject}/{name}": None if admin == "enabled" else admin})
        if self.topology.apply(event):
            self.events.publish(f"{subject}.{admin}", name=name)
        if subject == "link" and admin == "enabled":  # the operator's word that a cut fibre is mended, where no light can say so
            self._link_is_up(name)
        async with self._planning:
            concerned = [each.id for each in self._judge.waiting()] if admin == "enabled" else self._judge.touching({name})
            outcome = await self._plans.replan(concerned)
        await self.store.durable()
        return outcome

    def _may_write(self) -> None:
        if self.reconciler.observe:
            raise Observing

    # following

    def network_changed(self, event: LinkStateChanged | LinkWindowChanged, *, better: bool) -> None:
        """A link changed. Services on it are planned again soon; if it got `better`, so are those that wait for a way."""
        if isinstance(event, LinkWindowChanged):
            self.events.publish("window.opened" if event.open else "window.closed", link=event.link)
        else:
            self.events.publish("link.up" if event.up else "link.down", link=event.link)
        self._held_off.pop(event.link, None)
        optical = self.hold_off_s > 0 and self.topology.link(event.link).kind in ("fibre", "free-space")
        if optical and isinstance(event, LinkStateChanged) and not event.up:
            self._held_off[event.link] = time.monotonic() + self.hold_off_s
        else:
            self._changed.add(event.link)
        self._better |= better
        self._wake.set()

    def host_seen(self, host: str, there: str) -> None:
        """A host was seen at a port (`s3:1`). Its services are planned to there if its own port has no signal: while that is alive, whoever
        claims the host's address elsewhere may lie. Where the document has it, a host is always believed to be. Moves are remembered over
        restarts.
        """
        link = access_link(self.topology, host)
        if self.reconciler.observe or link is None or place(link, host) == there:
            return
        if self.topology.up(link) and there != self._declared.get(host):
            return
        before = place(link, host)
        declared = self._declared.setdefault(host, before)
        self.store.commit({f"place/{host}": None if declared == there else [declared, there]})
        self._move(link, host, there)
        self.events.publish("host.followed", host=host, before=before, now=there)
        self._again.update(self._judge.touching({link.id}))
        self._better = True
        self._wake.set()

    def _move(self, link: Link, host: str, there: str) -> None:
        if there.partition(":")[0] in self.topology.graph:
            for event in moved(link, host, there):
                self.topology.apply(event)

    def _link_is_up(self, link: str) -> None:
        event = LinkStateChanged(link, up=True)
        if self.topology.apply(event):
            self.network_changed(event, better=True)

    async def settled(self, looked_at: frozenset[str], concerned: set[str], refused: Mapping[str, str]) -> None:
        """The reconciler has looked at these devices: something is other than it was for those concerned, and some were refused.

        They are judged, and with them who is on the way on those devices and whose plan, state or companion changed since.
        """
        index, turn = self.book.index, Turn()
        concerned = concerned | refused.keys() | self._plans.unjudged
        self._plans.unjudged.clear()
        for device in looked_at:
            concerned |= index.unsettled.intersection(index.on.of(device))
            await turn.pause()
        await self._judged(sorted(concerned), refused)
        robbed, freed = self._plans.follow_others(looked_at)
        if robbed or freed:
            self._again |= robbed
            self._better |= freed
            self._wake.set()

    async def _judged(self, concerned: Sequence[str], refused: Mapping[str, str]) -> None:
        turn = Turn()
        for start in range(0, len(concerned), CHUNK):
            some = concerned[start : start + CHUNK]
            self._judge_some([self.book.services[name] for name in some if name in self.book.services], refused)
            await turn.pause()

    def _judge_some(self, services: list[Service], refused: Mapping[str, str]) -> None:
        changed: list[Service] = []
        gone: list[Service] = []
        for service in services:
            verdict = service
            if service.state == "REMOVING":
                if not (left := self._judge.left_behind(service)):
                    gone.append(service)
                    continue
                verdict = service.moved("REMOVING", "; ".join(f"waiting for {each}: {self._judge.trouble(each)}" for each in left))
            elif service.delivered and service.plan is not None:
                verdict = self._judge.verdict(service, refused.get(service.id, ""))
                self._follow_light(service, verdict)
            if (verdict.state, verdict.reason) != (service.state, service.reason):
                changed.append(verdict)
        self._plans.commit(changed, [each.id for each in gone], judged=True)
        if any(each.parent is None or (parent := self.book.services.get(each.parent)) is None or parent.state != "FAILED" for each in gone):
            self._better = True  # what they held may be what another one waits for
            self._wake.set()

    def _follow_light(self, service: Service, verdict: Service) -> None:
        """What the readings along a service say of its links: which one fails it, or that one held to be down carries light again."""
        assert service.plan is not None
        if verdict.state == "ACTIVE" and not verdict.reason:
            return  # nothing is amiss
        if any(self._judge.lacks(device, service.plan) for device in service.plan.desired):
            return
        if not self._judge.unmet(service):
            if service.plan.expected_power_dbm:
                for link in self._judge.broken(service.plan):
                    if link not in self.topology.graph:
                        with suppress(LookupError):
                            self._link_is_up(link)
            return
        views = self.reconciler.views
        if time.monotonic() < SETTLING_S + max((views[name].changed_s for name in service.plan.desired if name in views), default=0.0):
            return
        for link in self._judge.suspects(verdict):
            event = LinkStateChanged(link, up=False)
            with suppress(LookupError):
                if self.topology.apply(event):
                    self.network_changed(event, better=False)

    async def run(self) -> None:
        """Replan what changes in the network touch, start and end services on time, look again at those on their way; until cancelled."""
        self.reconciler.mark(self.reconciler.devices)
        look_again_s = time.monotonic() + LOOK_AGAIN_S
        while True:
            with suppress(TimeoutError):
                until_s = min(self._held_off.values(), default=math.inf) - time.monotonic()
                async with asyncio.timeout(max(0.0, min(TICK_S, until_s))):
                    await self._wake.wait()
            self._wake.clear()
            for event in self.topology.window_events(time.time()):
                self.topology.apply(event)
                self.network_changed(event, better=event.open)
            if not self.reconciler.observe:
                async with self._planning:
                    if time.monotonic() >= look_again_s:
                        look_again_s = time.monotonic() + LOOK_AGAIN_S
                        self._again.update(each.id for each in self._judge.waiting() if each.state != "FAILED")
                    await self._follow_network()
                    await self._keep_time(time.time())
            await self._look_at_those_on_their_way()

    async def _look_at_those_on_their_way(self) -> None:
        names = sorted(self.book.index.states("PROGRAMMING", "REPAIRING", "DEGRADED", "REMOVING"))
        for start in range(0, len(names), 32 * CHUNK):
            services = (self.book.services.get(name) for name in names[start : start + 32 * CHUNK])
            self.reconciler.mark(
                {device for each in services if each is not None and each.plan is not None for device in each.plan.desired}
            )
            await asyncio.sleep(0)

    async def _follow_network(self) -> None:
        changed, self._changed = self._changed, set()
        affected, self._again = self._again, set()
        better, self._better = self._better, False
        for link in [link for link, until_s in self._held_off.items() if until_s <= time.monotonic()]:
            del self._held_off[link]
            changed.add(link)
        affected.update(self._judge.touching({name for name in changed if not self._judge.usable(name)}))
        if better:
            affected.update({service.id for service in self._judge.waiting()}.difference(self._judge.touching(self._held_off)))
        if affected:
            await self._plans.replan(affected)

    async def _keep_time(self, now_s: float) -> None:
        services, index = self.book.services, self.book.index
        ending = map(services.__getitem__, sorted(index.timed))
        if over := [each.id for each in ending if each.end_s is not None and each.end_s <= now_s and each.state != "REMOVING"]:
            self._remove(over)
        planned = [services[name] for name in sorted(index.states("PLANNED"))]
        starting = {each.id: each for each in planned if each.parent is None and each.due(now_s)}
        for each in planned:
            users = (services[user] for user in index.needing.of(each.id))
            if each.parent is not None and any(user.delivered or user.id in starting for user in users):
                starting[each.id] = each
        if starting:
            self._plans.commit([each.moved("PROGRAMMING") for each in starting.values()])
            await self._plans.replan(name for name, each in starting.items() if each.plan is not None and self._judge.broken(each.plan))

    # looking things up

    def ledger(self) -> Ledger:
        """What is promised now."""
        return self._plans.ledger()

    def setup_s(self, service: Service) -> tuple[float, int] | None:
        """How long setting the service's path of light took, by the median in seconds, and of how many times; None when it never was."""
        return None if service.plan is None else self._plans.setups.expected_s(service.plan)

    def survives_for_s(self, service: Service) -> float | None:
        """How long the keys in stock last at the promised rate; None for services that keep none, infinity when none is promised."""
        if service.plan is None or service.kind != "key" or service.state not in ("ACTIVE", "DEGRADED", "REPAIRING"):
            return None
        stocks = [
            view.state.stock_keys[service.id]
            for device in service.plan.desired
            if (view := self.reconciler.views.get(device)) is not None and view.state is not None and service.id in view.state.stock_keys
        ]
        rate_bps = float(service.request.get("rate_bps") or 0)
        bits = min(stocks, default=0) * int(service.request.get("key_bits") or 0)
        return bits / rate_bps if rate_bps else math.inf

    # keeping

    def _remove(self, names: Iterable[str]) -> None:
        """Those that others need are planned for anew by those others."""
        leaving = [self.book.services[name] for name in names if self.book.services[name].state != "REMOVING"]
        self._plans.commit([each.moved("REMOVING") for each in leaving])
        gone = {each.id for each in leaving}
        users = {user for name in gone for user in self.book.index.needing.of(name)}
        self._again.update(user for user in users if self.book.services[user].delivered)
        self._wake.set()
