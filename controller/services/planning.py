"""Planning services with the companions they need, one or many, and keeping in the book what comes of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from controller.network.topology import Topology
from controller.routing.refusal import NoRoute
from controller.services.app import CrossConnect, Plan
from controller.services.desired import Book
from controller.services.index import likeness
from controller.services.judge import Judge
from controller.services.ledger import Entry, Ledger
from controller.services.light_safety import taken
from controller.services.planner import Planner, checked
from controller.services.reconciler import Reconciler
from controller.services.service import Service, promised
from controller.services.setup_times import SetupTimes
from controller.services.turn import Turn
from controller.telemetry.events import EventLog

log = logging.getLogger(__name__)

REPLANS = 5
BATCH = 64
"""So many services are planned by one job."""
JOBS = 3
"""So many jobs are under way, of which each counts on the plans of the one before: the worker never waits until these are kept."""
CHUNK = 4
"""So many are kept by one change of the store, without a pause."""

_Ahead = deque[tuple[list[Service], asyncio.Task[Sequence[Plan | Exception]]]]
"""Batches whose jobs are under way, in their order."""
Outcome = list[Service] | str
"""A service and its new companions as planned, or why there is no plan."""


class NameTaken(ValueError):
    """A service of that name exists."""


@dataclass(slots=True)
class Planning:
    """Whoever calls `drafted` or `replan` sees to it that one does so at a time."""

    topology: Topology
    book: Book
    planner: Planner
    judge: Judge
    reconciler: Reconciler
    events: EventLog
    _held: set[str] = field(default_factory=set)
    """Devices for which the ledger has an entry of what they may still hold."""
    unjudged: set[str] = field(default_factory=set)
    """Services that changed, or whose companions did, since they were last judged."""
    _numbers: dict[str, int] = field(default_factory=dict)
    """By kind, a number below which every name was given."""
    setups: SetupTimes = field(init=False)

    def __post_init__(self) -> None:
        self.setups = SetupTimes(self.book.store)

    def draft(
        self, kind: str, request: dict[str, Any], name: str | None, priority: int, start_s: float | None, end_s: float | None
    ) -> Service:
        """A service as asked for. Raises WrongRequest, NameTaken or ValueError."""
        request = checked(kind, request)
        if name is None:
            self._numbers[kind] = number = self._free_number(kind, self._numbers.get(kind, 1))
            name = f"{kind}-{number}"
        elif name in self.book.services:
            raise NameTaken(f"a service named '{name}' exists; remove it first, or choose another name")
        if start_s is not None and end_s is not None and end_s <= start_s:
            raise ValueError("the service would end before it starts; give an end later than the start")
        return Service(id=name, kind=kind, request=request, priority=priority, start_s=start_s, end_s=end_s, created_s=time.time())

    def _free_number(self, prefix: str, start: int = 1, drafts: Iterable[Service] = ()) -> int:
        taken = {each.id for each in drafts}
        return next(number for number in count(start) if (name := f"{prefix}-{number}") not in self.book.services and name not in taken)

    # one service with its companions

    async def drafted(self, service: Service) -> list[Service]:
        """The service and the new companions it needs, each with its plan; companions that stand already are shared. Raises NoRoute, UnknownName."""
        for _ in range(REPLANS):
            family = await self._family(service)
            drafts = {each.id for each in family}
            shared = [self.book.services.get(name) for each in family for name in each.companions if name not in drafts]
            if all(each is not None and each.state not in ("REMOVING", "FAILED") for each in shared):
                return family  # none of those shared has left while planning went on
        raise NoRoute(f"the companions of {service.id} change faster than it can be planned; try again", "stability", None)

    async def _family(self, service: Service) -> list[Service]:
        own = [name for name in service.companions if self._is_companion(name) and set(self.book.index.needing.of(name)) <= {service.id}]
        but: dict[str, Entry | None] = dict.fromkeys([service.id, *own])
        family: list[Service] = []
        queue = [service]
        while queue:
            each = queue.pop(0)
            try:
                plan = await self._planned(each, but)
            except NoRoute as no:
                if each is service:
                    raise
                ends = " - ".join(each.request["ends"])
                raise NoRoute(f"the {each.kind} {ends}, which {each.parent} needs: {no}", no.constraint, no.best) from None
            but[each.id] = promised(plan, each.interval_s)
            companions: list[str] = []
            for wanted in plan.companions:
                request = checked(wanted.kind, wanted.request)
                drafts = (*family, *queue)
                found = self._standing(wanted.kind, request, drafts)
                if found is None:
                    prefix = f"{each.id[:40]}.{wanted.kind}"
                    name = f"{prefix}-{self._free_number(prefix, drafts=drafts)}"
                    found = self.draft(wanted.kind, request, name, each.priority, None, None).model_copy(update={"parent": each.id})
                    queue.append(found)
                elif found.state == "FAILED" and found not in drafts:
                    queue.append(found)
                elif found.plan is not None:
                    but[found.id] = promised(found.plan, found.interval_s)
                companions.append(found.id)
            family.append(each.model_copy(update={"plan": plan, "companions": tuple(companions)}))
        return family

    def _is_companion(self, name: str) -> bool:
        found = self.book.services.get(name)
        return found is not None and found.parent is not None

    def _standing(self, kind: str, request: dict[str, Any], drafts: Iterable[Service]) -> Service | None:
        """A service that does what is wanted now: a booking for later is no companion; rather one that has not failed and is delivered."""
        names = self.book.index.alike.of(likeness(kind, request))
        standing = sorted((self.book.services[name] for name in names), key=lambda each: (each.created_s, each.id))
        found = [
            each
            for each in (*drafts, *standing)
            if each.kind == kind
            and each.request == request
            and each.state != "REMOVING"
            and (each.parent is not None or each.due(time.time()))
        ]
        return min(found, key=lambda each: (each.state == "FAILED", not each.delivered), default=None)

    async def _planned(self, service: Service, but: Mapping[str, Entry | None]) -> Plan:
        """A plan that still fits the network when it is done: what changed meanwhile leads to another try."""
        for _ in range(REPLANS):
            plan = await self.planner.plan(service, self.topology, self.ledger(), time.time(), but)
            if self._fits(plan):
                return plan
        raise NoRoute(f"the network changes faster than {service.id} can be planned; try again", "stability", None)

    def _fits(self, plan: Plan) -> bool:
        return plan.network_revision == self.topology.revision or all(self.judge.usable(name) for name in plan.touches)

    # many

    async def replan(self, names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
        """Plan services again, the highest priority first. Those that find no way keep what they have and say why.

        A service whose companion finds no way is planned again, too. Returns those that moved, and those that did not with the reason.
        """
        ordered, turn = list[tuple[int, float, str]](), Turn()
        for name in set(names):
            if (service := self.book.services.get(name)) is not None:
                ordered.append((-service.priority, service.created_s, name))
            await turn.pause()
        ordered.sort()
        await turn.pause()
        queue = deque(name for _, _, name in ordered)
        with self.reconciler.gathering() if len(queue) > BATCH else nullcontext():
            return await self._replan(queue)

    async def _replan(self, queue: deque[str]) -> tuple[list[str], dict[str, str]]:
        known = set(queue)
        moved: list[str] = []
        stuck: dict[str, str] = {}
        ahead: _Ahead = deque()
        going_on = False
        async with asyncio.TaskGroup() as jobs:  # the worker plans what follows while these are kept
            while queue or ahead:
                while len(ahead) < JOBS and (batch := self._first(queue)):
                    ahead.append((batch, jobs.create_task(self._answers(batch, going_on=going_on))))
                    going_on = True
                batch, outcomes = [], dict[str, Outcome]()
                if ahead:
                    batch, job = ahead.popleft()
                    outcomes = self._outcomes(batch, await job)
                if not 0 < len(batch) == len(outcomes):  # what counts on these plans is planned again
                    going_on = _give_back(ahead, queue)
                    queue.extendleft(each.id for each in reversed(batch[len(outcomes) :]))
                if not outcomes and queue:  # else all that was left to be planned is gone
                    outcomes = await self._alone(queue.popleft())
                found, kept = await self._keep(outcomes)
                moved += found
                if not kept:
                    going_on = _give_back(ahead, queue)
                stayed = {name: why for name, why in outcomes.items() if isinstance(why, str) and name in self.book.services}
                stuck |= stayed
                for name in stayed:
                    if self.book.services[name].state == "DEGRADED":
                        users = sorted(set(self.book.index.needing.of(name)) - known)
                        known.update(users)
                        queue.extend(users)
        return moved, stuck

    def _first(self, queue: deque[str]) -> list[Service]:
        """Take from the queue, from its start, what can be planned together: services that stand alone."""
        batch: list[Service] = []
        while queue and len(batch) < BATCH:
            service = self.book.services.get(queue[0])
            if service is not None and service.state != "REMOVING":
                if service.companions:
                    break
                batch.append(service)
            queue.popleft()
        return batch

    def _outcomes(self, batch: Sequence[Service], answers: Sequence[Plan | Exception]) -> dict[str, Outcome]:
        """What was planned together, up to the first that comes to need companions or does not fit the network as it is now."""
        outcomes: dict[str, Outcome] = {}
        for service, answer in zip(batch, answers, strict=False):
            if isinstance(answer, Exception):
                outcomes[service.id] = _why(service, answer)
            elif answer.companions or not self._fits(answer):
                break
            else:
                outcomes[service.id] = [service.model_copy(update={"plan": answer})]
        return outcomes

    async def _alone(self, name: str) -> dict[str, Outcome]:
        """Plan one service with the companions it needs; nothing when it is gone."""
        service = self.book.services.get(name)
        if service is None:
            return {}
        try:
            return {name: await self.drafted(service)}
        except Exception as no:
            return {name: _why(service, no)}

    async def _answers(self, batch: Sequence[Service], *, going_on: bool) -> Sequence[Plan | Exception]:
        """Plans on the ledger, or on what it will be with the plans of the batch before."""
        try:
            return await self.planner.plans(batch, self.topology, self.ledger(), time.time(), going_on=going_on)
        except Exception as no:  # of the executor, not of an app
            return [no] * len(batch)

    async def _keep(self, outcomes: Mapping[str, Outcome]) -> tuple[list[str], bool]:
        """Keep in the book what came of planning services, some at a time. Returns those that moved, and whether every plan was kept."""
        moved: list[str] = []
        names, all_kept = list(outcomes), True
        for start in range(0, len(names), CHUNK):
            changed: list[Service] = []
            for name in names[start : start + CHUNK]:
                service, outcome = self.book.services.get(name), outcomes[name]
                if service is None or service.state == "REMOVING":  # it moved on while it was planned
                    all_kept = False
                    continue
                if isinstance(outcome, str):
                    changed += self._stay(service, outcome)
                    continue
                head, *companions = outcome
                again = service.model_copy(update={"plan": head.plan, "companions": head.companions})
                if service.state == "ACTIVE" and not service.reason and not companions and _same(again, service):
                    continue
                if again.delivered and service.plan is not None and head.plan is not None and head.plan.desired == service.plan.desired:
                    changed.append(again)
                else:
                    moved.append(name)
                    self.events.publish("service.moved", service=name, over=_way(head))
                    changed.append(self._under_way(again, service))
                changed += [self._under_way(each, service) for each in companions]
            self.commit(changed)
            await asyncio.sleep(0)
        return moved, all_kept

    def _stay(self, service: Service, why: str) -> list[Service]:
        """No other way was found for a service: what that changes of it depends on whether it still has the one it is on."""
        if service.plan is not None and service.delivered and not self.judge.broken(service.plan) and service.state != "DEGRADED":
            return []
        degraded = service.state in ("ACTIVE", "PROGRAMMING", "REPAIRING") and not self.judge.serves_from_stock(service)
        return [service.moved("DEGRADED" if degraded else service.state, why)]

    def _under_way(self, service: Service, head: Service) -> Service:
        """A service with a new plan, on its way to being delivered; `head` is the one that all this is planned for."""
        if service.state in ("REQUESTED", "FAILED"):
            service = service.moved("PLANNED")
        if service.state == "PLANNED":
            return service.moved("PROGRAMMING") if head.delivered or head.state == "FAILED" or head.due(time.time()) else service
        if self.judge.serves_from_stock(service):
            return service.moved("ACTIVE", "serving from its stock while its path is set")
        return service.moved("PROGRAMMING" if service.state == "PROGRAMMING" else "REPAIRING", "its path is being set anew")

    # keeping

    def ledger(self) -> Ledger:
        """What is promised now; ports of cross-connects that a switch keeps, or may keep where it is unreachable, count as promised."""
        devices, waiting = self.reconciler.devices, self.reconciler.waiting
        silent = {name for name in self.book.leaving if name in waiting or name not in devices or not devices[name].connected}
        held = silent | self._held
        for name in sorted(held):
            left = self.book.of(name).absent if name in silent else ()
            ports = {f"port:{name}:{port}" for item in left if isinstance(item, CrossConnect) for port in (item.ingress, item.egress)}
            self.book.ledger.put(f"what {name} may still hold", Entry(dict.fromkeys(ports, 1.0)) if ports else None)
        self._held = {name for name in held if f"what {name} may still hold" in self.book.ledger.entries}
        return self.book.ledger

    def follow_others(self, looked_at: Iterable[str]) -> tuple[set[str], bool]:
        """Have what others joined on these devices, as they were last read, count as promised.

        Returns the services that had planned with it, and whether something became free.
        """
        robbed, freed = set[str](), False
        for name in looked_at:
            view = self.reconciler.views.get(name)
            foreign = view.diff.foreign if view is not None and view.diff is not None else ()
            holder = f"what others have on {name}"
            if not foreign and holder not in self.book.ledger.entries:
                continue
            now = taken(name, foreign, self.book.of(name).wanted)
            had = self.book.ledger.put(holder, Entry(dict.fromkeys(now, 1.0)) if now else None)
            before = set(had.amounts if had is not None else ())
            freed |= not before <= now
            for service in map(self.book.services.__getitem__, self.book.index.on.of(name) if now - before else ()):
                needs = service.plan.reservations if service.plan is not None else {}
                if service.state != "REMOVING" and not service.reports_drift and not needs.keys().isdisjoint(now - before):
                    robbed.add(service.id)
        return robbed, freed

    def deliver(self, family: Sequence[Service]) -> None:
        """Keep a service and its companions, the service first, as planned and on their way."""
        self.commit([self._under_way(each, family[0]) for each in family])

    def commit(self, changed: Iterable[Service], gone: Iterable[str] = (), *, judged: bool = False) -> None:
        """Keep these services in one change of the store; companions that nobody needs any more leave in the same one.

        `judged` says that their states are what was found of them just now.
        """
        gone = frozenset(gone)
        kept = {each.id: each for each in changed}
        known = frozenset(kept if judged else ())
        if not kept and not gone:
            return
        self._let_go(kept, gone)
        before = {name: self.book.services[name].state for name in kept if name in self.book.services}
        marked = self.book.commit(kept.values(), gone)
        self.unjudged.update(kept.keys() - known)
        for name in (*kept, *gone):
            self.unjudged.update(self.book.index.needing.of(name))
        self.reconciler.mark(marked)
        for name, service in kept.items():
            self.setups.follow(service, time.monotonic())
            if before.get(name) != service.state:
                why = {"reason": service.reason} if service.reason else {}
                self.events.publish(f"service.{service.state.lower()}", service=name, **why)
        for name in gone:
            self.events.publish("service.gone", service=name)

    def _let_go(self, kept: dict[str, Service], gone: frozenset[str]) -> None:
        """Add to what is kept the companions that no service needs any more, as leaving."""

        def after(name: str) -> Service | None:
            return None if name in gone else kept.get(name) or self.book.services.get(name)

        def needed(name: str) -> bool:
            users = (after(user) for user in {*self.book.index.needing.of(name), *kept})
            return any(user is not None and name in user.companions and user.state not in ("REMOVING", "FAILED") for user in users)

        queue = [*kept, *gone]
        while queue:
            name = queue.pop()
            before = self.book.services.get(name)
            for each in {name, *(before.companions if before else ()), *(kept[name].companions if name in kept else ())}:
                service = after(each)
                if service is not None and service.parent is not None and service.state != "REMOVING" and not needed(each):
                    kept[each] = service.moved("REMOVING")
                    queue.append(each)


def _give_back(ahead: _Ahead, queue: deque[str]) -> bool:
    """Put what was begun back at the head of the queue, in its order. False: what is planned next goes on from nothing."""
    queue.extendleft(each.id for batch, _ in reversed(ahead) for each in reversed(batch))
    ahead.clear()
    return False


def _why(service: Service, no: Exception) -> str:
    if not isinstance(no, NoRoute | LookupError):
        log.error("planning %s failed", service.id, exc_info=no)
    return str(no) or repr(no)


def _same(a: Service, b: Service) -> bool:
    """Whether their plans say the same, whatever they were made on."""
    plans = [replace(each.plan, network_revision=0, ledger_revision=0) for each in (a, b) if each.plan is not None]
    return a.companions == b.companions and len(plans) == 2 and plans[0] == plans[1]


def _way(service: Service) -> str:
    """The nodes of a service's route, for a person to read."""
    route = service.plan.route if service.plan is not None else {}
    return "; ".join(" - ".join(path.get("nodes", ())) for path in route.get("paths", [route]))
