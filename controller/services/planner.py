"""Planning jobs on a `concurrent.futures.Executor`: the event loop never routes.

The worker keeps a copy of the network and of the ledger. A job brings what changed since the last job; a worker that has something else
says what it has, and is sent what it lacks, or everything.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import logging
import math
import multiprocessing
import multiprocessing.connection
import os
import pickle
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError

from controller.network.events import NetworkEvent
from controller.network.topology import Topology
from controller.routing.holding import held
from controller.routing.refusal import NoRoute
from controller.services.app import App, Plan
from controller.services.ledger import ALWAYS, Entry, Ledger
from controller.services.service import Service, promised
from controller.services.turn import Turn

log = logging.getLogger(__name__)


class WrongRequest(ValueError):
    """A request that its app cannot read; `faults` are (path, what) pairs."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {what}" if path else what for path, what in faults))
        self.faults = faults

    @classmethod
    def of(cls, error: ValidationError) -> WrongRequest:
        """What a model found wrong with a request."""
        return cls([(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()])


@cache
def apps() -> dict[str, App]:
    """The installed planner apps by kind."""
    found: dict[str, App] = {}
    for entry in importlib.metadata.entry_points(group="bellhop.apps"):
        app = entry.load()
        if not isinstance(app, App) or app.kind != entry.name:
            raise TypeError(f"entry point {entry.name} of bellhop.apps is {entry.value}, which is no App of kind '{entry.name}'")
        found[entry.name] = app
    return found


def checked(kind: str, request: dict[str, Any]) -> dict[str, Any]:
    """The request with its defaults filled in. WrongRequest says what does not fit and where."""
    if kind not in apps():
        raise WrongRequest([("kind", f"no app plans '{kind}'; there are {', '.join(sorted(apps()))}")])
    try:
        return apps()[kind].request.model_validate(request).model_dump(mode="json")
    except ValidationError as error:
        raise WrongRequest.of(error) from None


class Wanted(NamedTuple):
    """What a planning job has to know of a service."""

    id: str
    kind: str
    request: dict[str, Any]
    interval_s: tuple[float, float]

    @classmethod
    def of(cls, service: Service) -> Wanted:
        return cls(service.id, service.kind, service.request, service.interval_s)


class _Has(NamedTuple):
    """Whose network and ledger a worker has, and at which revisions; -1 for nothing."""

    owner: str = ""
    network: int = -1
    ledger: int = -1


class _News(NamedTuple):
    """What brings a worker that has `since` to `now`: the network whole (pickled) or what happened to it; pickled parts of the ledger."""

    name: str
    since: _Has
    now: _Has
    whole: bytes | None
    events: tuple[NetworkEvent, ...]
    entries: tuple[bytes, ...]


class _Replica:
    """In the worker: its own copies of a network and of what is promised there."""

    def __init__(self, whole: bytes, now: _Has) -> None:
        self.topology: Topology = pickle.loads(whole)  # noqa: S301 - from our own parent process
        self.ledger = Ledger()
        self.ahead: dict[str, Entry | None] = {}
        """What the controller's ledger has where this one may have something else: most plans are kept, and then nothing is to be undone."""
        self.has = now._replace(ledger=-1)
        self.unread: dict[str, Entry | None] = {}
        """What was told of the controller's ledger and is neither in this one nor in `ahead` yet."""
        self.job = 0
        """The number of the last job that planned."""
        self.planned: set[str] = set()
        """For which services that job, and those that it went on from, planned."""

    def take(self, news: _News) -> bool:
        """Catch up. False when this replica is not one that the news are for."""
        at, since, now = self.has, news.since, news.now
        if news.whole is None and not (
            at.owner == now.owner and since.network <= at.network <= now.network and since.ledger <= at.ledger <= now.ledger
        ):
            return False
        if news.whole is None:
            for event in news.events[at.network - since.network :]:
                self.topology.apply(event)
        for part in news.entries:
            self.unread.update(pickle.loads(part))  # noqa: S301
        self.has = now
        return True


_replicas: dict[str, _Replica] = {}  # in the worker process only, by the network's name
YOUNG = 20_000
"""After so many new objects the worker's garbage is collected: plans are many objects, no garbage, and nobody waits for a slice of it."""
PLANS_PER_PART = 8
LATE_S = 30.0
"""A job that has had no answer for so long is said to be late."""
ENTRIES_PER_PART = 100
"""So many services' entries of the ledger are pickled at a time, so that the event loop does not stand still."""


def _job(news: _News, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Runs in the worker: `work(topology, ledger, *arguments)`; what the worker has when the news are not for that."""
    if news.whole is not None:
        _replicas[news.name] = _Replica(news.whole, news.now)
        gc.collect()
        gc.freeze()  # the network stays
    replica = _replicas.get(news.name)
    if replica is None or not replica.take(news):
        return _Has() if replica is None else replica.has
    return work(replica, *arguments)


def _alone(replica: _Replica, work: Callable[..., Any], *arguments: Any) -> Any:
    return work(replica.topology, *arguments)


class _PlanJob(NamedTuple):
    """What is to be planned when, on which revision of the ledger, with which entries in place of what it has.

    `after` is the number of the job on whose plans this one counts, as if they had been kept; the entries are left as they are then.
    """

    number: int
    after: int | None
    wanted: Sequence[Wanted]
    but: Mapping[str, Entry | None]
    now_s: float
    revision: int


def _plans(replica: _Replica, job: _PlanJob) -> list[bytes]:
    """Pickled a few at a time, so that the event loop unpickles them in short turns, and no thread that competes with it does.

    Nothing when another job came between this and the one that it is to go on from, or that was another worker's.
    """
    but: Mapping[str, Entry | None] | None = job.but
    if job.after is None:
        replica.planned.clear()
        replica.ahead |= replica.unread
        replica.unread.clear()
    elif job.after == replica.job:
        but = None
        for service in replica.unread.keys() - replica.planned:  # what is told is mostly what was planned, and is here already
            replica.ledger.put(service, replica.unread.pop(service))
            replica.ahead.pop(service, None)
    else:
        return []
    answers = plan_in_order(replica.topology, replica.ledger, job.wanted, but, job.now_s, job.revision, replica.ahead)
    replica.job = job.number
    replica.planned.update(each.id for each in job.wanted)
    return [pickle.dumps(answers[start : start + PLANS_PER_PART], -1) for start in range(0, len(answers), PLANS_PER_PART)]


def plan_in_order(
    topology: Topology,
    ledger: Ledger,
    wanted: Sequence[Wanted],
    but: Mapping[str, Entry | None] | None,
    now_s: float,
    revision: int,
    before: dict[str, Entry | None],
) -> list[Plan | Exception]:
    """Plans, or why there is none, one after the other on the ledger as it would be with the entries `but`.

    Each plan counts with what those before it reserve. It ends with the first plan that needs companions: what follows depends on them.
    What `before` tells of is undone first, unless `but` is None. The ledger is left with all that; what it had instead is told to `before`.
    """
    answers: list[Plan | Exception] = []

    def put(service: str, entry: Entry | None) -> Entry | None:
        had = ledger.put(service, entry)
        before.setdefault(service, had)
        return had

    if but is not None:
        put_back(ledger, before, but)
    for each in wanted:
        had = put(each.id, None)
        try:
            app = apps()[each.kind]
            view = ledger if each.interval_s == ALWAYS else ledger.during(*each.interval_s)
            plan = _in_windows(topology, each.interval_s, now_s, partial(app.plan, each.id, app.request.model_validate(each.request)), view)
        except Exception as no:
            answers.append(_portable(no))
            put(each.id, had)
            continue
        answers.append(replace(plan, network_revision=topology.revision, ledger_revision=revision))
        if plan.companions:
            break
        put(each.id, promised(plan, each.interval_s))
    return answers


def _in_windows(
    topology: Topology, interval_s: tuple[float, float], now_s: float, plan_on: Callable[[Topology, Ledger, float], Plan], ledger: Ledger
) -> Plan:
    """A plan that says until when its links are there. A booking for later needs them all its time; what is due is planned again in time."""
    start_s, end_s = max(now_s, interval_s[0]), interval_s[1]
    there = topology if start_s <= now_s else topology.at(start_s, None if end_s == math.inf else end_s)
    plan = plan_on(there, ledger, now_s)
    holds = held(topology, start_s, (name for name in plan.touches if name not in topology.graph))
    if holds is None:
        return plan
    return replace(plan, route={**plan.route, "holds": holds.to_json()}, explanation=(*plan.explanation, str(holds)))


def put_back(ledger: Ledger, before: dict[str, Entry | None], but: Mapping[str, Entry | None] = MappingProxyType({})) -> None:
    """Undo what planning told to `before`; but these entries the ledger is to have, whatever was before is told of those only."""
    for service, entry in before.items():
        if service not in but:
            ledger.put(service, entry)
    told = before.copy()
    before.clear()
    for service, entry in but.items():
        had = ledger.put(service, entry)
        before[service] = told.get(service, had)


def _portable(error: Exception) -> Exception:
    """The error, if it can be sent to the other process: one that cannot must not take the rest of its batch along."""
    if isinstance(error, NoRoute | LookupError):
        return error
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        return RuntimeError(repr(error))
    return error


class Planner:
    """Runs planning on a worker process of its own, or on another executor of worker processes."""

    def __init__(self, executor: Executor | None = None) -> None:
        self._given = executor
        self._executor = executor or _own_pool()
        self._subject: tuple[Topology | None, Ledger] = None, Ledger()
        self._has = _Has()
        self._sending = asyncio.Lock()
        """Jobs are sent in the order in which they were asked for."""
        self._number = 0
        self.jobs = 0
        self.restarts = 0
        self.late: set[object] = set()
        """Jobs that have had no answer for LATE_S."""

    def start(self) -> None:
        """Have the worker there, and ready, before there is something to plan."""
        self._executor.submit(os.getpid)

    async def plan(
        self, service: Service, topology: Topology, ledger: Ledger, now_s: float, but: Mapping[str, Entry | None] | None = None
    ) -> Plan:
        """The plan for a service on the ledger, with the entries `but` in place of what it has. Raises NoRoute or UnknownName as its app does."""
        answer = (await self.plans([service], topology, ledger, now_s, but))[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def plans(
        self,
        services: Sequence[Service],
        topology: Topology,
        ledger: Ledger,
        now_s: float,
        but: Mapping[str, Entry | None] | None = None,
        *,
        going_on: bool = False,
    ) -> list[Plan | Exception]:
        """The plans of services in their order, as if each were planned and committed before the next; an exception where there is none.

        Shorter than `services` when a plan needs companions: that plan is the last. With `going_on` they count on the plans of the call
        before, which need not be answered yet, as if these were committed; there are none when the worker cannot.
        """
        after = self._number if going_on else None
        self._number += 1
        wanted = [Wanted.of(service) for service in services]
        found: list[Plan | Exception] = []
        turn = Turn()
        for part in await self._run(topology, ledger, _plans, _PlanJob(self._number, after, wanted, but or {}, now_s, ledger.revision)):
            found += pickle.loads(part)  # noqa: S301 - from our own worker
            await turn.pause()
        return found

    async def compute(self, topology: Topology, work: Callable[..., Any], *arguments: Any) -> Any:
        """`work(topology, *arguments)` in the worker; `work` must be a function of a module, and what it raises comes back."""
        return await self._run(topology, self._subject[1], _alone, work, *arguments)

    async def _run(self, topology: Topology, ledger: Ledger, work: Callable[..., Any], *arguments: Any) -> Any:
        self.jobs += 1
        if self._subject[0] is not topology or self._subject[1] is not ledger:
            self._subject, self._has = (topology, ledger), _Has(uuid.uuid4().hex)
        owner, has = self._has.owner, None
        for attempt in range(4):
            try:
                async with self._sending:
                    executor = self._executor
                    if has is None:  # or what a worker said that it has
                        has = self._has if self._has.owner == owner else _Has(owner)
                    news = await _news(has if attempt < 2 else _Has(owner), topology, ledger)
                    job = executor.submit(_job, news, work, arguments)
                    if self._has.owner == owner:
                        self._has = news.now  # when it comes to the next job
                alarm = asyncio.get_running_loop().call_later(LATE_S, self._is_late, job)
                try:
                    answer = await asyncio.wrap_future(job)
                finally:
                    alarm.cancel()
                    self.late.discard(job)
            except BrokenProcessPool:
                if self._executor is executor:  # not replaced yet by another job that was in it
                    self.restarts += 1
                    self._executor = _own_pool()
                has = _Has(owner)
                continue
            if not isinstance(answer, _Has):
                return answer
            has = answer if answer.owner == owner else _Has(owner)
        raise RuntimeError(f"the planner's worker process keeps dying in {work.__qualname__}; see the log for its last words")

    def _is_late(self, job: object) -> None:
        self.late.add(job)
        log.warning("the planner's worker has not answered for %g s; of a Dask cluster, see that it has workers", LATE_S)

    def close(self) -> None:
        """Stop a worker of the planner's own when the job under way is done; jobs that wait are given up. Who gave it an executor stops that."""
        if self._executor is not self._given:
            self._executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def executor(where: str) -> Iterator[Executor]:
    """Where planning runs: `pool`, a worker process of our own, or `dask://host:port`, the workers of a Dask cluster.

    Raises ValueError when the cluster does not answer or Dask is not installed; the text says what to do.
    """
    if where == "pool":
        pool = _own_pool()
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return
    try:
        from distributed import Client
    except ImportError:
        raise ValueError(f"planner.executor is {where}, and Dask is not installed: pip install 'bellhop-sdn[dask]'") from None
    try:
        client = Client(where.replace("dask://", "tcp://", 1), timeout=10, set_as_default=False)
    except OSError as error:
        raise ValueError(
            f"no Dask scheduler answers at {where} ({error}); start one with `dask scheduler`, or use planner.executor: pool"
        ) from None
    cluster = client.get_executor(pure=False)
    try:
        yield cluster
    finally:
        cluster.shutdown(wait=False)  # a cluster without workers would be waited for without end
        client.close()


async def _news(has: _Has, topology: Topology, ledger: Ledger) -> _News:
    """For a worker that has this."""
    entries, now = list(ledger.changed_since(has.ledger).items()), has._replace(ledger=ledger.revision)
    parts = []
    for start in range(0, len(entries), ENTRIES_PER_PART):
        if len(entries) > ENTRIES_PER_PART:
            await asyncio.sleep(0)
        parts.append(pickle.dumps(entries[start : start + ENTRIES_PER_PART], -1))
    events = topology.events_since(has.network) if has.network >= 0 else None
    whole, revision = (None, topology.revision) if events is not None else await _whole(topology)
    return _News(topology.name, has, now._replace(network=revision), whole, events or (), tuple(parts))


async def _whole(topology: Topology) -> tuple[bytes, int]:
    """The network pickled, at which revision: in a thread, for a large one takes long, unless it keeps changing meanwhile."""
    for _ in range(3):
        revision = topology.revision
        with suppress(RuntimeError):  # what is walked through may grow
            whole = await asyncio.to_thread(pickle.dumps, topology)
            if topology.revision == revision:
                return whole, revision
    return pickle.dumps(topology), topology.revision


def _own_pool() -> Executor:
    return ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker)


def _begin_worker() -> None:
    """Runs in the worker, before its first job."""
    _end_with_controller()
    gc.set_threshold(YOUNG)
    # in a thread, so that what needs no compiled search does not wait for one that was never compiled on this machine
    threading.Thread(target=_warm_up, name="warm-up", daemon=True).start()


def _warm_up() -> None:
    """Load, or compile, what the first entangled route would wait for: routes along a chain that is long enough to be simulated."""
    from controller.network.model import Link, Node, Swap
    from controller.physics.chains import EXACT_LINKS
    from controller.routing.entanglement import entanglement

    names = [f"r{number}" for number in range(EXACT_LINKS + 2)]
    links = [Link(kind="entanglement", id=f"{a}{b}", ends=(a, b), rate_hz=1.0, fidelity=0.99) for a, b in pairwise(names)]
    topology = Topology("warm-up", {name: Node(kind="repeater", swap=Swap(success=0.9)) for name in names}, links)
    entanglement(topology, names[0], names[-1], min_fidelity=0.5)
    entanglement(topology, names[0], names[-1], model="on-demand")


def _end_with_controller() -> None:
    """Runs in the worker, which waits for jobs on a pipe that it holds open itself: it would outlive a controller that is killed."""

    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
