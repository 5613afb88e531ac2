"""Planning jobs on a `concurrent.futures.Executor`: the event loop never routes.

The network goes to the worker once per revision and is kept there; a worker that lacks it says so and is sent it.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import multiprocessing
import multiprocessing.connection
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pydantic import ValidationError

from controller.network.events import NetworkEvent
from controller.network.topology import Topology
from controller.services.app import App, Plan
from controller.services.ledger import Ledger
from controller.services.service import Service


class WrongRequest(ValueError):
    """A request that its app cannot read; `faults` are (path, what) pairs."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {what}" if path else what for path, what in faults))
        self.faults = faults


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
        raise WrongRequest([(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()]) from None


_kept: dict[str, tuple[int, Topology]] = {}  # in the worker process only: the network by its name, and the revision it was sent at
_LACKING = "network not sent yet"
REBASE_EVENTS = 500
"""After so many changes the whole network is sent again, and the list of changes begins anew."""


@dataclass(frozen=True, slots=True)
class _Replica:
    """What brings a worker's copy of the network up to date: the copy sent at revision `base` (bytes only when it is lacking), and since."""

    name: str
    base: int
    whole: bytes | None
    since: tuple[NetworkEvent, ...]


def _job(replica: _Replica, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Runs in the worker: `work(topology, *arguments)`, or _LACKING when the network has not been sent."""
    if replica.whole is not None:
        _kept[replica.name] = replica.base, pickle.loads(replica.whole)  # noqa: S301 - from our own parent process
    kept = _kept.get(replica.name)
    if kept is None or kept[0] != replica.base or kept[1].revision > replica.base + len(replica.since):
        return _LACKING
    topology = kept[1]
    for event in replica.since[topology.revision - replica.base :]:
        topology.apply(event)
    return work(topology, *arguments)


def _plan(topology: Topology, service: Service, ledger: Ledger, now_s: float) -> Plan:
    app = apps()[service.kind]
    return app.plan(service.id, app.request.model_validate(service.request), topology, ledger, now_s)


class Planner:
    """Runs planning on a worker process of its own, or on another executor of worker processes."""

    def __init__(self, executor: Executor | None = None) -> None:
        self._executor = executor or _own_pool()
        self._base: tuple[int, bytes] = (0, b"")
        self.jobs = 0
        self.restarts = 0

    async def plan(self, service: Service, topology: Topology, ledger: Ledger, now_s: float) -> Plan:
        """The plan for a service. Raises NoRoute or UnknownName as its app does."""
        revision = topology.revision
        plan: Plan = await self.compute(topology, _plan, service, ledger, now_s)
        return replace(plan, network_revision=revision, ledger_revision=ledger.revision)

    async def compute(self, topology: Topology, work: Callable[..., Any], *arguments: Any) -> Any:
        """`work(topology, *arguments)` in the worker; `work` must be a function of a module, and what it raises comes back."""
        self.jobs += 1
        since = topology.events_since(self._base[0])
        if since is None or len(since) > REBASE_EVENTS or not self._base[1]:
            self._base, since = (topology.revision, pickle.dumps(topology)), ()
        base, pickled = self._base
        for whole in (None, pickled, pickled):
            executor = self._executor
            try:
                replica = _Replica(topology.name, base, whole, since)
                result = await asyncio.wrap_future(executor.submit(_job, replica, work, arguments))
            except BrokenProcessPool:
                if self._executor is executor:  # not replaced yet by another job that was in it
                    self.restarts += 1
                    self._executor = _own_pool()
                continue
            if result != _LACKING:
                return result
        raise RuntimeError(f"the planner's worker process keeps dying in {work.__qualname__}; see the log for its last words")

    def close(self) -> None:
        """Stop the worker when the job under way is done; those that wait are given up."""
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
    try:
        yield client.get_executor(pure=False)
    finally:
        client.close()


def _own_pool() -> Executor:
    return ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_controller)


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
