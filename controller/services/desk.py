"""The desk: takes requests for services, has them planned one after the other, and follows each until it serves or is gone."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from controller.network.events import AdminChanged, LinkStateChanged
from controller.network.model import Admin
from controller.network.topology import Topology
from controller.routing.refusal import NoRoute
from controller.services.app import CrossConnect, Plan
from controller.services.desired import Book
from controller.services.judge import Judge
from controller.services.ledger import Ledger, Reservation
from controller.services.planner import Planner, checked
from controller.services.reconciler import Reconciler
from controller.services.service import Service
from controller.southbound.device import Diff, diff
from controller.store.sqlite import Store
from controller.telemetry.events import EventLog

log = logging.getLogger(__name__)

TICK_S = 1.0
REPLANS = 5
SETTLING_S = 3.0
"""How long light may take to be read after its path was set, before a fibre is held to be cut."""
LOOK_AGAIN_S = 30.0
"""How often degraded services are planned again without a cause."""


class NameTaken(ValueError):
    """A service of that name exists."""


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
    _judge: Judge = field(init=False)
    _planning: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: set[str] = field(default_factory=set)
    _again: set[str] = field(default_factory=set)
    _better: bool = False
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._judge = Judge(self.topology, self.book, self.reconciler)
        for key, entry in self.store.read("admin/").items():
            _, subject, name = key.split("/", 2)
            with suppress(LookupError):  # the document may have lost it since
                self.topology.apply(AdminChanged("node" if subject == "node" else "link", name, entry.value))

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
            head, *companions = await self._drafted(self._draft(kind, request, name, priority, start_s, end_s))
            self._commit([self._under_way(each, head) for each in (head, *companions)])
            self._wake.set()  # a shared companion may have to start
            return self.book.services[head.id]

    async def dry_run(self, kind: str, request: dict[str, Any], **options: Any) -> tuple[Service, list[Diff]]:
        """What `create` would do: the planned service, and per device the difference it would make now. Nothing changes."""
        async with self._planning:
            family = await self._drafted(self._draft(kind, request, options.get("name"), options.get("priority", 0), None, None))
        per_device: dict[str, list[Service]] = {}
        for service in family:
            for device in service.plan.desired if service.plan else ():
                per_device.setdefault(device, []).append(service)
        await self.reconciler.read(per_device)
        diffs = []
        for device, services in sorted(per_device.items()):
            desired = self.book.of(device)
            for service in services:
                desired = desired.replace(service.id, tuple(service.plan.desired[device]) if service.plan else ())
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
            return self.book.services[name]

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
            if admin == "enabled":
                return await self._replan(service.id for service in self._judge.waiting())
            return await self._replan(self._judge.touching({name}))

    def _may_write(self) -> None:
        if self.reconciler.observe:
            raise Observing

    # following

    def network_changed(self, event: LinkStateChanged | AdminChanged, *, better: bool) -> None:
        """A link or node changed. Services on it are planned again soon; if it got `better`, so are those that wait for a way."""
        match event:
            case LinkStateChanged(link, up):
                self.events.publish("link.up" if up else "link.down", link=link)
                self._changed.add(link)
            case AdminChanged(subject, name, admin):
                self.events.publish(f"{subject}.{admin}", name=name)
                self._changed.add(name)
        self._better |= better
        self._wake.set()

    def _link_is_up(self, link: str) -> None:
        event = LinkStateChanged(link, up=True)
        if self.topology.apply(event):
            self.network_changed(event, better=True)

    def settled(self, read: frozenset[str], refused: Mapping[str, str]) -> None:
        """The reconciler has read these devices; some refused what they were asked for these services."""
        changed: list[Service] = []
        gone: list[str] = []
        for service in self.book.services.values():
            verdict = service
            if service.state == "REMOVING":
                if not (left := self._judge.left_behind(service)):
                    gone.append(service.id)
                    continue
                verdict = service.moved("REMOVING", "; ".join(f"waiting for {each}: {self._judge.trouble(each)}" for each in left))
            elif service.delivered and self._concerned(service, read, refused):
                verdict = self._judge.verdict(service, refused.get(service.id, ""))
                self._follow_light(service, verdict)
            if (verdict.state, verdict.reason) != (service.state, service.reason):
                changed.append(verdict)
        if not changed and not gone:
            return
        freed = [self.book.services[name] for name in gone]
        self._commit(changed, gone)
        if any(
            each.parent is None or (parent := self.book.services.get(each.parent)) is None or parent.state != "FAILED" for each in freed
        ):
            self._better = True  # what they held may be what another one waits for
            self._wake.set()

    def _concerned(self, service: Service, read: frozenset[str], refused: Mapping[str, str]) -> bool:
        if service.plan is None:
            return False
        if service.state != "ACTIVE" or service.reason or service.id in refused or not read.isdisjoint(service.plan.desired):
            return True
        companions = (self.book.services.get(name) for name in service.companions)
        return any(each is None or each.state != "ACTIVE" for each in companions)

    def _follow_light(self, service: Service, verdict: Service) -> None:
        """What the readings along a service say of its links: which one fails it, or that one held to be down carries light again."""
        assert service.plan is not None
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
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            self._wake.clear()
            if not self.reconciler.observe:
                async with self._planning:
                    if time.monotonic() >= look_again_s:
                        look_again_s = time.monotonic() + LOOK_AGAIN_S
                        self._again.update(each.id for each in self._judge.waiting() if each.state != "FAILED")
                    await self._follow_network()
                    await self._keep_time(time.time())
            for service in self.book.services.values():
                if service.plan is not None and service.state in ("PROGRAMMING", "REPAIRING", "DEGRADED", "REMOVING"):
                    self.reconciler.mark(service.plan.desired)

    async def _follow_network(self) -> None:
        changed, self._changed = self._changed, set()
        affected, self._again = self._again, set()
        better, self._better = self._better, False
        affected.update(self._judge.touching({name for name in changed if not self._judge.usable(name)}))
        if better:
            affected.update(service.id for service in self._judge.waiting())
        if affected:
            await self._replan(affected)

    async def _keep_time(self, now_s: float) -> None:
        services = self.book.services.values()
        over = [each.id for each in services if each.end_s is not None and each.end_s <= now_s and each.state != "REMOVING"]
        if over:
            self._remove(over)
        starting = [each for each in services if each.state == "PLANNED" and each.parent is None and each.due(now_s)]
        needed = {name for each in services if each.delivered for name in each.companions}.union(*(each.companions for each in starting))
        starting += [each for each in services if each.state == "PLANNED" and each.parent is not None and each.id in needed]
        if starting:
            self._commit([each.moved("PROGRAMMING") for each in starting])
            await self._replan(each.id for each in starting if each.plan is not None and self._judge.broken(each.plan))

    # planning

    def _draft(
        self, kind: str, request: dict[str, Any], name: str | None, priority: int, start_s: float | None, end_s: float | None
    ) -> Service:
        request = checked(kind, request)
        if name is None:
            name = self._free_name(kind)
        elif name in self.book.services:
            raise NameTaken(f"a service named '{name}' exists; remove it first, or choose another name")
        if start_s is not None and end_s is not None and end_s <= start_s:
            raise ValueError("the service would end before it starts; give an end later than the start")
        return Service(id=name, kind=kind, request=request, priority=priority, start_s=start_s, end_s=end_s, created_s=time.time())

    def _free_name(self, prefix: str, drafts: Iterable[Service] = ()) -> str:
        taken = {each.id for each in drafts}
        return next(name for number in count(1) if (name := f"{prefix}-{number}") not in self.book.services and name not in taken)

    async def _drafted(self, service: Service) -> list[Service]:
        """The service and the new companions it needs, each with its plan; companions that stand already are shared."""
        for _ in range(REPLANS):
            family = await self._family(service)
            drafts = {each.id for each in family}
            shared = [self.book.services.get(name) for each in family for name in each.companions if name not in drafts]
            if all(each is not None and each.state not in ("REMOVING", "FAILED") for each in shared):
                return family  # none of those shared has left while planning went on
        raise NoRoute(f"the companions of {service.id} change faster than it can be planned; try again", "stability", None)

    async def _family(self, service: Service) -> list[Service]:
        others = {name for each in self.book.services.values() if each.id != service.id for name in each.companions}
        ledger = self.ledger().without(
            [service.id, *(name for name in service.companions if self._is_companion(name) and name not in others)]
        )
        family: list[Service] = []
        queue = [service]
        while queue:
            each = queue.pop(0)
            plan = await self._planned(each, ledger)
            ledger = ledger.with_entry(each.id, _within(plan, each))
            companions: list[str] = []
            for wanted in plan.companions:
                request = checked(wanted.kind, wanted.request)
                drafts = (*family, *queue)
                found = self._standing(wanted.kind, request, drafts)
                if found is None:
                    number = self._free_name(f"{each.id[:40]}.{wanted.kind}", drafts)
                    found = self._draft(wanted.kind, request, number, each.priority, None, None).model_copy(update={"parent": each.id})
                    queue.append(found)
                elif found.state == "FAILED" and found not in drafts:
                    queue.append(found)
                elif found.plan is not None:
                    ledger = ledger.with_entry(found.id, _within(found.plan, found))
                companions.append(found.id)
            family.append(each.model_copy(update={"plan": plan, "companions": tuple(companions)}))
        return family

    def _is_companion(self, name: str) -> bool:
        found = self.book.services.get(name)
        return found is not None and found.parent is not None

    def _standing(self, kind: str, request: dict[str, Any], drafts: Iterable[Service]) -> Service | None:
        """A service that does what is wanted, rather one that has not failed."""
        found = [
            each
            for each in (*drafts, *self.book.services.values())
            if each.kind == kind and each.request == request and each.state != "REMOVING"
        ]
        return min(found, key=lambda each: each.state == "FAILED", default=None)

    async def _planned(self, service: Service, ledger: Ledger) -> Plan:
        """A plan that still fits the network when it is done: what changed meanwhile leads to another try."""
        for _ in range(REPLANS):
            plan = await self.planner.plan(service, self.topology, ledger.during(*service.interval_s), time.time())
            if plan.network_revision == self.topology.revision or all(self._judge.usable(name) for name in plan.touches):
                return plan
        raise NoRoute(f"the network changes faster than {service.id} can be planned; try again", "stability", None)

    async def _replan(self, names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
        """Plan services again, the highest priority first. Those that find no way keep what they have and say why.

        A service whose companion finds no way is planned again, too.
        """
        services = [self.book.services[name] for name in set(names) if name in self.book.services]
        queue = [each.id for each in sorted(services, key=lambda each: (-each.priority, each.created_s, each.id))]
        moved: list[str] = []
        stuck: dict[str, str] = {}
        for name in queue:  # grows on the way
            service = self.book.services.get(name)
            if service is None or service.state == "REMOVING":
                continue
            try:
                head, *companions = await self._drafted(service)
            except Exception as no:
                if not isinstance(no, NoRoute | LookupError):
                    log.exception("planning %s failed", name)
                stuck[name] = str(no) or repr(no)
                self._stay(name, stuck[name])
                if self.book.services[name].state == "DEGRADED":
                    queue += [each.id for each in self.book.services.values() if name in each.companions and each.id not in queue]
                continue
            service = self.book.services[name]  # it may have moved on while it was planned
            again = service.model_copy(update={"plan": head.plan, "companions": head.companions})
            if again.delivered and service.plan is not None and head.plan is not None and head.plan.desired == service.plan.desired:
                self._commit([again, *(self._under_way(each, service) for each in companions)])
            else:
                moved.append(name)
                self._commit([self._under_way(each, service) for each in (again, *companions)])
        return moved, stuck

    def _stay(self, name: str, why: str) -> None:
        """No other way was found for a service: what that means for it depends on whether it still has the one it is on."""
        service = self.book.services[name]
        if service.plan is not None and service.delivered and not self._judge.broken(service.plan) and service.state != "DEGRADED":
            return
        degraded = service.state in ("ACTIVE", "PROGRAMMING", "REPAIRING") and not self._judge.serves_from_stock(service)
        self._commit([service.moved("DEGRADED" if degraded else service.state, why)])

    def _under_way(self, service: Service, head: Service) -> Service:
        """A service with a new plan, on its way to being delivered; `head` is the one that all this is planned for."""
        if service.state in ("REQUESTED", "FAILED"):
            service = service.moved("PLANNED")
        if service.state == "PLANNED":
            return service.moved("PROGRAMMING") if head.delivered or head.state == "FAILED" or head.due(time.time()) else service
        if self._judge.serves_from_stock(service):
            return service.moved("ACTIVE", "serving from its stock while its path is set")
        return service.moved("PROGRAMMING" if service.state == "PROGRAMMING" else "REPAIRING", "its path is being set anew")

    # looking things up

    def ledger(self) -> Ledger:
        """What is promised now; ports of cross-connects that an unreachable switch may still have count as promised."""
        entries = {
            each.id: _within(each.plan, each) for each in self.book.services.values() if each.plan is not None and each.state != "FAILED"
        }
        for name, desired in self.book.desired.items():
            device = self.reconciler.devices.get(name)
            if desired.absent and (device is None or not device.connected):
                left = [item for item in desired.absent if isinstance(item, CrossConnect)]
                ports = {f"port:{name}:{port}" for item in left for port in (item.ingress, item.egress)}
                entries[f"what {name} may still hold"] = tuple(Reservation(port, 1.0) for port in sorted(ports))
        return Ledger(entries, self.book.revision)

    def light_order(self) -> dict[tuple[str, int, int], int]:
        """Cross-connects (switch, ingress, egress) numbered along their lightpaths, the one at the source 0."""
        return {
            (each["switch"], each["ingress"], each["egress"]): number
            for service in self.book.services.values()
            if service.plan is not None
            for number, each in enumerate(service.plan.route.get("cross_connects", ()))
        }

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
        self._commit([each.moved("REMOVING") for each in leaving])
        gone = {each.id for each in leaving}
        self._again.update(each.id for each in self.book.services.values() if not gone.isdisjoint(each.companions) and each.delivered)
        self._wake.set()

    def _commit(self, changed: Iterable[Service], gone: Iterable[str] = ()) -> None:
        """Keep these services in one change of the store; companions that nobody needs any more leave in the same one."""
        gone = frozenset(gone)
        after = {name: each for name, each in self.book.services.items() if name not in gone}
        kept = {each.id: each for each in changed}
        after |= kept
        while orphans := _orphans(after):
            leaving = {each.id: each.moved("REMOVING") for each in orphans}
            after |= leaving
            kept |= leaving
        before = {name: self.book.services[name].state for name in kept if name in self.book.services}
        self.reconciler.mark(self.book.commit(kept.values(), gone))
        for name, service in kept.items():
            if before.get(name) != service.state:
                why = {"reason": service.reason} if service.reason else {}
                self.events.publish(f"service.{service.state.lower()}", service=name, **why)
        for name in gone:
            self.events.publish("service.gone", service=name)


def _orphans(services: Mapping[str, Service]) -> list[Service]:
    """Companions that no service needs any more."""
    needed = {name for each in services.values() if each.state not in ("REMOVING", "FAILED") for name in each.companions}
    return [each for each in services.values() if each.parent is not None and each.id not in needed and each.state != "REMOVING"]


def _within(plan: Plan, service: Service) -> tuple[Reservation, ...]:
    """The plan's reservations cut to the service's own interval."""
    start_s, end_s = service.interval_s
    return tuple(replace(each, start_s=start_s, end_s=end_s) for each in plan.reservations)
