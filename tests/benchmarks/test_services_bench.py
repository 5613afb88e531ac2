"""A thousand trusted nodes and ten thousand key services: a busy link fails, then everything is planned again. Times, and the event loop's lag.

The devices are honest ones in memory: they hold what they are given and answer at once, so what is measured is the controller, and these
devices with it, which live on its loop. The lag is how much later than a millisecond a sleep of one millisecond returns; it counts what
else the machine does, the loop's busy time between two ticks does not. Figures are printed, never asserted. BENCH_SERVICES: how many.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from scipy.spatial import cKDTree

from controller.cli.run import SWITCH_S
from controller.network.events import LinkMeasured, LinkStateChanged
from controller.network.model import Link, Node
from controller.network.topology import Topology
from controller.services.desired import Book
from controller.services.desk import Desk
from controller.services.planner import Planner
from controller.services.reconciler import Reconciler
from controller.southbound.device import Diff, Item, KeyRelay, State
from controller.store.sqlite import Store
from controller.telemetry.events import EventLog
from controller.telemetry.loop import ShortTurns

NODES = 1000
SERVICES = int(os.environ.get("BENCH_SERVICES", "10000"))
DEGREE = 8.0


class Kme:
    """Holds the relay entries it is given, and has keys in stock for each."""

    capabilities: frozenset[str] = frozenset()
    connected = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: set[Item] = set()
        self.held: dict[object, Item] = {}
        self.stock: dict[str, int] = {}

    async def read(self) -> State:
        await asyncio.sleep(0)
        return State(frozenset(self.items), stock_keys=self.stock.copy())

    async def check(self, diff: Diff) -> list[str]:
        return []

    async def apply(self, diff: Diff) -> None:
        await asyncio.sleep(0)
        for item in (*diff.remove, *(self.held[item.key] for item in diff.add if item.key in self.held)):
            if self.held.get(item.key) == item:
                del self.held[item.key], self.stock[item.service]  # type: ignore[union-attr]
            self.items.discard(item)
        for item in diff.add:
            assert isinstance(item, KeyRelay)
            self.items.add(item)
            self.held[item.key], self.stock[item.service] = item, 64

    async def events(self) -> AsyncIterator[None]:
        for never in ():
            yield never

    async def run(self) -> None:
        await asyncio.Event().wait()


def network() -> Topology:
    rng = np.random.default_rng(NODES)
    at = rng.random((NODES, 2))
    pairs = cKDTree(at).query_pairs(np.sqrt(DEGREE / (np.pi * NODES)), output_type="ndarray")
    graph = nx.Graph(pairs.tolist())
    joined = max(nx.connected_components(graph), key=len)
    nodes = {f"n{number}": Node(kind="trusted-node") for number in sorted(joined)}
    return Topology(
        "thousand",
        nodes,
        [
            Link(kind="qkd", ends=(f"n{a}", f"n{b}"), rate_bps=float(rng.integers(1e5, 1e6)))
            for a, b in sorted(map(tuple, pairs.tolist()))
            if a in joined
        ],
    )


@dataclass
class Phase:
    """What a part of the story took: of the clock, of the processor in the loop's thread and in the worker, and of the loop's patience."""

    what: str
    services: int = 0
    took_s: float = 0.0
    loop_cpu_s: float = 0.0
    worker_cpu_s: float = 0.0
    late_ms: list[float] = field(default_factory=list)
    """How late a ticker of 1 ms was."""
    busy_ms: list[float] = field(default_factory=list)
    """What the loop's thread computed between two ticks: its lag on a machine that has nothing else to do."""

    async def tick(self) -> None:
        while True:
            before, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.001)
            self.late_ms.append((time.perf_counter() - before) * 1e3 - 1)
            self.busy_ms.append((time.thread_time() - cpu) * 1e3)

    def __str__(self) -> str:
        lag = "".join(f"{np.quantile(self.late_ms, q):8.2f}" for q in (0.5, 0.99, 0.999, 1.0))
        busy = "".join(f"{np.quantile(self.busy_ms, q):8.2f}" for q in (0.999, 1.0))
        each = f"{self.loop_cpu_s / self.services * 1e3:8.2f}{self.worker_cpu_s / self.services * 1e3:8.2f}" if self.services else " " * 16
        return f"{self.what:44}{self.services:9}{self.took_s:9.2f}{each}{lag}{busy}"


HEAD = f"{'':44}{'services':>9}{'s':>9}{'loop':>8}{'worker':>8}{'p50':>8}{'p99':>8}{'p99.9':>8}{'max':>8}{'p99.9':>8}{'max':>8}"
UNITS = f"{'':44}{'':>9}{'':>9}{'  CPU ms per plan':16}{'  lag, ms':31}{'  loop busy, ms':17}"


def cpu_s(topology: Topology) -> float:
    """Runs in the worker."""
    return time.process_time()


@asynccontextmanager
async def measured(desk: Desk, what: str) -> AsyncIterator[Phase]:
    gc.collect()
    gc.freeze()
    phase = Phase(what)
    worker_s = await desk.planner.compute(desk.topology, cpu_s)
    ticker = asyncio.get_running_loop().create_task(phase.tick())
    start, loop_s = time.perf_counter(), time.thread_time()
    try:
        yield phase
    finally:
        phase.took_s, phase.loop_cpu_s = time.perf_counter() - start, time.thread_time() - loop_s
        await asyncio.sleep(0.002)
        ticker.cancel()
        phase.worker_cpu_s = await desk.planner.compute(desk.topology, cpu_s) - worker_s
        print(phase, flush=True)


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[tuple[Desk, Callable[[], None]]]:
    topology, store, planner = network(), Store(path / "store.db"), Planner()
    devices = {name: Kme(name) for name, _ in topology.nodes()}
    book = Book(store)
    desks: list[Desk] = []
    reconciler = Reconciler(devices, book, lambda *round: desks[0].settled(*round))
    desks.append(Desk(topology, book, planner, reconciler, EventLog(), store))
    tasks: list[asyncio.Task[None]] = []
    try:
        yield desks[0], lambda: tasks.extend(asyncio.create_task(each.run()) for each in (reconciler, desks[0]))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        planner.close()
        store.close()


async def settled(desk: Desk) -> None:
    """Until all are active, and those that served from their stock meanwhile are on their new way."""
    while desk.book.index.unsettled:  # noqa: ASYNC110 - a benchmark watches
        await asyncio.sleep(0.005)


def turn(desk: Desk, link: str, *, up: bool) -> None:
    event = LinkStateChanged(link, up=up)
    desk.topology.apply(event)
    desk.network_changed(event, better=up)


@pytest.mark.timeout(0)
def test_ten_thousand_key_services(tmp_path: Path) -> None:
    before, before_s = gc.get_threshold(), sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)  # as the daemon does, whose loop this is
    with asyncio.Runner(loop_factory=ShortTurns) as runner:
        runner.run(story(tmp_path))
    sys.setswitchinterval(before_s)
    gc.set_threshold(*before)
    gc.unfreeze()


async def story(tmp_path: Path) -> None:
    rng = np.random.default_rng(SERVICES)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ShortTurns)
    async with running(tmp_path) as (desk, start):
        index, names = desk.book.index, list(desk.topology.graph)
        loop.collect_in_short_passes()
        print(f"\n{HEAD}\n{UNITS}")
        async with measured(desk, "created, one after the other") as phase:
            for number in range(SERVICES):
                a, b = rng.choice(len(names), 2, replace=False)
                await desk.create("key", {"ends": [names[a], names[b]], "rate_bps": 1.0}, name=f"k{number}", priority=number % 10)
                phase.services += 1
        async with measured(desk, "devices programmed, until all are active") as phase:
            phase.services = SERVICES
            start()
            await settled(desk)

        def loaded() -> list[str]:
            """The links that carry a service, the fewest services first."""
            return sorted(
                (link.id for link in desk.topology.links("qkd") if index.touching.of(link.id)), key=lambda each: len(index.touching[each])
            )

        for which, quantile in (("median", 0.5), ("90th percentile", 0.9), ("busiest", 1.0)):
            links = loaded()
            link = links[round(quantile * (len(links) - 1))]
            async with measured(desk, f"{which} link fails: planned again") as phase:
                phase.services = len(index.touching[link])
                turn(desk, link, up=False)
                while desk._changed or desk._planning.locked():  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            async with measured(desk, "  then until all are active again"):
                await settled(desk)
            turn(desk, link, up=True)
            await settled(desk)

        rng = np.random.default_rng(1)
        for each in list(desk.topology.links("qkd"))[::10]:
            desk.topology.apply(LinkMeasured(each.id, "rate_bps", float(rng.integers(1e5, 1e6))))
        async with measured(desk, "a tenth of the links changed: all planned again") as phase:
            phase.services = SERVICES
            moved, stuck = await desk._plans.replan(list(desk.book.services))
        print(f"{len(moved)} moved, {len(stuck)} stuck")
        assert len(moved) + len(stuck) <= SERVICES
        async with measured(desk, "  then until all are active again"):
            await settled(desk)
