"""The desk: takes requests for services, has them planned one after the other, and follows each until it serves or is gone."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.network.events import AdminChanged, LinkStateChanged
from controller.network.model import Admin
from controller.network.topology import Topology
from controller.routing.refusal import NoRoute
from controller.services.app import Plan, State
from controller.services.desired import Book
from controller.services.ledger import Ledger, Reservation
from controller.services.planner import Planner, apps, checked
from controller.services.reconciler import Reconciler
from controller.services.service import Service
from controller.southbound.device import Diff, diff
from controller.store.sqlite import Store
from controller.telemetry.events import EventLog

TICK_S = 1.0
REPLANS = 5
SETTLING_S = 3.0
"""How long light may take to be read after its path was set, before a fibre is held to be cut."""


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
    _planning: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: set[str] = field(default_factory=set)
    _better: bool = False
    _unserved: dict[str, float] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        for key, entry in self.store.read("admin/").items():
            _, subject, name = key.split("/", 2)
            if (subject == "node" and name in self.topology.graph) or (
                subject == "link" and any(link.id == name for link in self.topology.links())
            ):
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
        if self.reconciler.observe:
            raise Observing
        async with self._planning:
            family = await self._drafted(self._draft(kind, request, name, priority, start_s, end_s))
            due = start_s is None or start_s <= time.time()
            self._commit([service.moved("PLANNED").moved("PROGRAMMING") if due else service.moved("PLANNED") for service in family])
            return self.book.services[family[0].id]

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
        if self.reconciler.observe:
            raise Observing
        async with self._planning:
            if name not in self.book.services:
                raise UnknownService(name)
            self._remove([name])
            return self.book.services[name]

    async def administer(self, subject: str, name: str, admin: Admin) -> tuple[list[str], dict[str, str]]:
        """Enable, drain or disable a node or link; services on it are moved off. Returns those moved, and those that cannot move with why."""
        event = AdminChanged("node" if subject == "node" else "link", name, admin)
        (self.topology.node if subject == "node" else self.topology.link)(name)
        self.store.commit({f"admin/{subject}/{name}": None if admin == "enabled" else admin})
        if self.topology.apply(event):
            self.events.publish(f"{subject}.{admin}", name=name)
        if subject == "link" and admin == "enabled":  # the operator's word that a cut fibre is mended: no light can say so by itself
            repaired = LinkStateChanged(name, up=True)
            if self.topology.apply(repaired):
                self.network_changed(repaired, better=True)
        async with self._planning:
            if admin == "enabled":
                moved, stuck = await self._replan(service.id for service in self._waiting())
            else:
                moved, stuck = await self._replan(self._touching({name}))
        return moved, stuck

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

    def settled(self, read: frozenset[str], refused: Mapping[str, str]) -> None:
        """The reconciler has read these devices; some refused what they were asked."""
        for service in list(self.book.services.values()):
            if service.delivered:
                self._judge(service, read, refused)
        gone = [service.id for service in self.book.services.values() if service.state == "REMOVING" and not self._left_behind(service)]
        if gone:
            self.book.commit([], gone)
            for name in gone:
                self.events.publish("service.gone", service=name)

    async def run(self) -> None:
        """Replan what changes in the network touch, start and end services on time, look again at those on their way; until cancelled."""
        self.reconciler.mark(self.reconciler.devices)
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            async with self._planning:
                await self._follow_network()
                self._keep_time(time.time())
            for service in self.book.services.values():
                if service.plan is not None and service.state in ("PROGRAMMING", "REPAIRING", "DEGRADED", "REMOVING"):
                    self.reconciler.mark(service.plan.desired)

    async def _follow_network(self) -> None:
        if self.reconciler.observe:
            return
        changed, self._changed = self._changed, set()
        better, self._better = self._better, False
        affected = dict.fromkeys(self._touching({name for name in changed if not self._usable(name)}))
        if better:
            affected |= dict.fromkeys(service.id for service in self._waiting())
        if affected:
            await self._replan(affected)

    def _keep_time(self, now_s: float) -> None:
        if self.reconciler.observe:
            return
        due = [
            each.moved("PROGRAMMING") for each in self.book.services.values() if each.state == "PLANNED" and (each.start_s or 0) <= now_s
        ]
        if due:
            self._commit(due)
        over = [
            each.id for each in self.book.services.values() if each.end_s is not None and each.end_s <= now_s and each.state != "REMOVING"
        ]
        if over:
            self._remove(over)

    # planning

    def _draft(
        self, kind: str, request: dict[str, Any], name: str | None, priority: int, start_s: float | None, end_s: float | None
    ) -> Service:
        request = checked(kind, request)
        if name is None:
            number = 1 + sum(1 for each in self.book.services.values() if each.kind == kind)
            while f"{kind}-{number}" in self.book.services:
                number += 1
            name = f"{kind}-{number}"
        elif name in self.book.services:
            raise NameTaken(f"a service named '{name}' exists; remove it first, or choose another name")
        if start_s is not None and end_s is not None and end_s <= start_s:
            raise ValueError("the service would end before it starts; give an end later than the start")
        return Service.model_validate(
            {
                "id": name,
                "kind": kind,
                "request": request,
                "priority": priority,
                "start_s": start_s,
                "end_s": end_s,
                "created_s": time.time(),
            }
        )

    async def _drafted(self, service: Service) -> list[Service]:
        """The service and the new companions it needs, each with its plan; companions that stand already are shared."""
        family: list[Service] = []
        queue = [service]
        ledger = self.ledger().without([service.id])
        while queue:
            each = queue.pop(0)
            plan = await self._planned(each, ledger)
            family.append(each.model_copy(update={"plan": plan}))
            ledger = ledger.with_entry(each.id, _within(plan, each))
            for number, companion in enumerate(plan.companions, 1):
                request = checked(companion.kind, companion.request)
                if self._standing(companion.kind, request, family) is None:
                    draft = self._draft(
                        companion.kind, request, f"{each.id}.{companion.kind}-{number}", each.priority, each.start_s, each.end_s
                    )
                    queue.append(draft.model_copy(update={"parent": each.id}))
        return family

    async def _planned(self, service: Service, ledger: Ledger) -> Plan:
        """A plan that still fits the network when it is done: what changed meanwhile leads to another try."""
        for _ in range(REPLANS):
            plan = await self.planner.plan(service, self.topology, ledger, time.time())
            if plan.network_revision == self.topology.revision or all(self._usable(name) for name in plan.touches):
                return plan
        raise NoRoute(f"the network changes faster than {service.id} can be planned; try again", "stability", None)

    async def _replan(self, names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
        """Plan services again, the highest priority first. Those that find no way keep what they have and say why."""
        services = [self.book.services[name] for name in names if name in self.book.services]
        moved: list[str] = []
        stuck: dict[str, str] = {}
        for service in sorted(services, key=lambda each: (-each.priority, each.created_s, each.id)):
            try:
                family = await self._drafted(service)
            except (NoRoute, LookupError) as no:
                stuck[service.id] = str(no)
                if service.state in ("ACTIVE", "PROGRAMMING", "REPAIRING") and not self._serves_from_stock(service):
                    self._put(service.moved("DEGRADED", str(no)))
                continue
            again = family[0]
            if service.plan is not None and again.plan is not None and service.delivered and again.plan.desired == service.plan.desired:
                self.book.put(again)
                continue
            moved.append(service.id)
            self._commit([self._on_its_way(again), *(each.moved("PLANNED").moved("PROGRAMMING") for each in family[1:])])
        self._remove(self._orphans())
        return moved, stuck

    def _on_its_way(self, service: Service) -> Service:
        if service.state == "FAILED":
            return service.moved("PLANNED").moved("PROGRAMMING")
        if self._serves_from_stock(service):
            return service.moved("ACTIVE", "serving from its stock while its path is set")
        return service.moved("REPAIRING" if service.served else "PROGRAMMING", "its path is being set anew")

    # judging

    def _judge(self, service: Service, read: frozenset[str], refused: Mapping[str, str]) -> None:
        plan = service.plan
        if plan is None or (not read & plan.desired.keys() and service.state == "ACTIVE"):
            return
        blame = [what for device, what in refused.items() if self._lacks(device, plan)]
        if blame and service.state in ("PROGRAMMING", "REPAIRING"):
            self._put(service.moved("FAILED", "; ".join(blame)), commit=True)
            return
        lacking = [device for device in plan.desired if self._lacks(device, plan)]
        companions = [
            standing for each in plan.companions if (standing := self._standing(each.kind, checked(each.kind, each.request))) is not None
        ]
        waiting = [each.id for each in companions if each.state != "ACTIVE"]
        missing = ""
        if lacking:
            troubles = "; ".join(f"{device}: {self._trouble(device)}" for device in sorted(lacking))
            missing = f"waiting for {troubles}"
        elif waiting:
            missing = f"waiting for {', '.join(waiting)}"
        if (not missing or apps()[service.kind].buffered) and not (unmet := self._unmet(service)):
            state = service.moved("ACTIVE", missing and f"serving from its stock, {missing}")
        elif service.state == "ACTIVE":
            state = service.moved("DEGRADED", missing or unmet)
        else:
            state = service.moved(service.state, missing or unmet)
        if state != service:
            self._put(state)
        if missing or state.state == "ACTIVE":
            self._unserved.pop(service.id, None)
        else:
            self._blame(state)

    def _blame(self, service: Service) -> None:
        """Everything is in place and the service yet does not serve. Once that is not for its being set up, its app says which link it is."""
        since_s = self._unserved.setdefault(service.id, time.monotonic())
        if service.plan is None or (service.state != "DEGRADED" and time.monotonic() - since_s < SETTLING_S):
            return
        for link in apps()[service.kind].suspects(service.plan, self._states(service.plan)):
            event = LinkStateChanged(link, up=False)
            if self.topology.apply(event):
                self.network_changed(event, better=False)

    def _unmet(self, service: Service) -> str:
        """What the app still misses, given what the devices were read to hold."""
        assert service.plan is not None
        return apps()[service.kind].serving(service.id, service.plan, self._states(service.plan))

    def _states(self, plan: Plan) -> dict[str, State]:
        views = self.reconciler.views
        return {device: (views[device].state if device in views else None) or State() for device in plan.desired}

    def _serves_from_stock(self, service: Service) -> bool:
        return service.served and service.plan is not None and apps()[service.kind].buffered and not self._unmet(service)

    def _lacks(self, device: str, plan: Plan) -> bool:
        view = self.reconciler.views.get(device)
        return device in plan.desired and (view is None or view.state is None or not view.state.items.issuperset(plan.desired[device]))

    def _trouble(self, device: str) -> str:
        if device not in self.reconciler.devices:
            return "no driver for this device; give it an address or a dpid in the document"
        if not self.reconciler.devices[device].connected:
            return "no session"
        return self.reconciler.views[device].trouble or "being programmed"

    def _left_behind(self, service: Service) -> bool:
        """Whether some device still has to be read without the service's items."""
        return service.plan is not None and any(
            not set(items).isdisjoint(self.book.of(device).absent) for device, items in service.plan.desired.items()
        )

    # looking things up

    def ledger(self) -> Ledger:
        """What is promised now."""
        entries = {
            each.id: _within(each.plan, each)
            for each in self.book.services.values()
            if each.plan is not None and each.state not in ("FAILED",)
        }
        return Ledger(entries, self.book.revision)

    def light_order(self) -> dict[str, int]:
        """Optical switches numbered along their lightpaths, the one at the source 0."""
        numbers: dict[str, int] = {}
        for service in self.book.services.values():
            if service.plan is not None:
                for number, each in enumerate(service.plan.route.get("cross_connects", ())):
                    numbers[each["switch"]] = max(number, numbers.get(each["switch"], 0))
        return numbers

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

    def _touching(self, subjects: set[str]) -> list[str]:
        return [
            each.id
            for each in self.book.services.values()
            if each.plan is not None and each.delivered and not subjects.isdisjoint(each.plan.touches)
        ]

    def _waiting(self) -> list[Service]:
        """Services without a way: a change for the better may give them one."""
        return [each for each in self.book.services.values() if each.state in ("DEGRADED", "FAILED")]

    def _standing(self, kind: str, request: dict[str, Any], family: Iterable[Service] = ()) -> Service | None:
        wanted = json.dumps(request, sort_keys=True)
        for each in (*family, *self.book.services.values()):
            if each.kind == kind and each.state not in ("REMOVING", "FAILED") and json.dumps(each.request, sort_keys=True) == wanted:
                return each
        return None

    def _usable(self, name: str) -> bool:
        if name in self.topology.graph:
            return self.topology.node(name).admin == "enabled"
        return self.topology.usable(self.topology.link(name))

    # keeping

    def _commit(self, services: list[Service]) -> None:
        devices = self.book.commit(services)
        for service in services:
            self._tell(service)
        self.reconciler.mark(devices)

    def _put(self, service: Service, *, commit: bool = False) -> None:
        """Keep a service in its new state; `commit` when that changes what devices are to hold."""
        before = self.book.services.get(service.id)
        if commit:
            self.reconciler.mark(self.book.commit([service]))
        else:
            self.book.put(service)
        if before is None or before.state != service.state:
            self._tell(service)

    def _tell(self, service: Service) -> None:
        self.events.publish(
            f"service.{service.state.lower()}", service=service.id, **({"reason": service.reason} if service.reason else {})
        )

    def _remove(self, names: Iterable[str]) -> None:
        leaving = [self.book.services[name].moved("REMOVING") for name in names if self.book.services[name].state != "REMOVING"]
        if leaving:
            self._commit(leaving)
            self._remove(self._orphans())

    def _orphans(self) -> list[str]:
        """Companions that no service needs any more."""
        needed = set()
        for each in self.book.services.values():
            if each.plan is not None and each.state not in ("REMOVING", "FAILED"):
                for companion in each.plan.companions:
                    standing = self._standing(companion.kind, checked(companion.kind, companion.request))
                    needed.add(standing.id if standing else "")
        return [each.id for each in self.book.services.values() if each.parent and each.id not in needed and each.state != "REMOVING"]


def _within(plan: Plan, service: Service) -> tuple[Reservation, ...]:
    """The plan's reservations cut to the service's own interval."""
    start_s = -math.inf if service.start_s is None else service.start_s
    end_s = math.inf if service.end_s is None else service.end_s
    return tuple(replace(each, start_s=start_s, end_s=end_s) for each in plan.reservations)
