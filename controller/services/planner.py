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
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache
from typing import Any

from pydantic import ValidationError

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


_kept: dict[str, tuple[int, Topology]] = {}  # in the worker process only: the network it was last sent, by its name
_LACKING = "network not sent yet"


def _job(revision: int, name: str, network: bytes | None, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Runs in the worker: `work(topology, *arguments)`, or _LACKING when the network of that revision has not been sent."""
    if network is not None:
        _kept[name] = revision, pickle.loads(network)  # noqa: S301 - from our own parent process
    kept = _kept.get(name)
    if kept is None or kept[0] != revision:
        return _LACKING
    return work(kept[1], *arguments)


def _plan(topology: Topology, service: Service, ledger: Ledger, now_s: float) -> Plan:
    app = apps()[service.kind]
    return app.plan(service.id, app.request.model_validate(service.request), topology, ledger, now_s)


class Planner:
    """Runs planning on a worker process of its own."""

    def __init__(self, executor: Executor | None = None) -> None:
        self._executor = executor or _own_pool()
        self._pickled: tuple[int, bytes] = (0, b"")
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
        revision = topology.revision
        if self._pickled[0] != revision:
            self._pickled = revision, pickle.dumps(topology)
        pickled = self._pickled[1]
        for network in (None, pickled, pickled):
            executor = self._executor
            try:
                result = await asyncio.wrap_future(executor.submit(_job, revision, topology.name, network, work, arguments))
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


def _own_pool() -> Executor:
    return ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_controller)


def _end_with_controller() -> None:
    """Runs in the worker, which waits for jobs on a pipe that it holds open itself: it would outlive a controller that is killed."""

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=watch, daemon=True).start()
