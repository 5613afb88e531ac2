"""A cable is cut: how long until every lightpath in it is on another way. 1, 100 and 1000 lightpaths, 100 strands to a cable.

The switches are honest ones in memory, on the controller's own loop; the fibre plant says what their monitors see. What that emulation
takes of the processor is printed apart. Each cable leads from a switch to another, and a longer cable beside it has as many strands. All
strands of the shorter cables are cut at once. Times are from the cut, per service, over several cuts; printed, never asserted. With device
times a change of a switch takes 25 ms and the monitors show light, and its loss, 10 ms late.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from controller.network.events import LinkStateChanged
from controller.network.model import Link, Module, Node
from controller.network.topology import Topology
from controller.routing.light.plant import build
from controller.services.desired import Book
from controller.services.desk import Desk
from controller.services.planner import Planner
from controller.services.reconciler import Reconciler
from controller.southbound.device import CrossConnect, Diff, State
from controller.store.sqlite import Store
from controller.telemetry.events import EventLog
from topologies.emulation.plant import FibrePlant

STRANDS = 100
CUTS = {1: 16, 100: 6, 1000: 3}
DARK_DBM = -60.0


class Glass:
    """The plant as the monitors show it, `settling_s` late: then they alarm `on_change` of the switches where light came or went.

    `cpu_s` is what following the light has taken.
    """

    def __init__(self, topology: Topology, settling_s: float) -> None:
        self.plant = FibrePlant(topology)
        self.settling_s = settling_s
        self.on_change: Callable[[list[str]], None] = lambda switches: None
        self.cpu_s = 0.0
        self._dark = {name: dict.fromkeys(range(1, (node.ports or 0) + 1), DARK_DBM) for name, node in topology.nodes("optical-switch")}
        self._shown = self.plant.light().power_dbm
        self._due_s: float | None = None

    def changed(self) -> None:
        loop = asyncio.get_running_loop()
        if self._due_s is None:
            loop.call_at(loop.time() + self.settling_s, self._settle)
        self._due_s = loop.time() + self.settling_s

    def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        if self._due_s is not None and loop.time() < self._due_s:
            loop.call_at(self._due_s, self._settle)
            return
        start, before, self._due_s = time.thread_time(), self._shown, None
        self._shown = self.plant.light().power_dbm
        self.cpu_s += time.thread_time() - start
        self.on_change([name for name, seen in self._shown.items() if seen.keys() != before[name].keys()])

    def power_dbm(self, switch: str) -> dict[int, float]:
        return self._dark[switch] | self._shown[switch]


class Switch:
    """Holds the cross-connects it is given."""

    capabilities = frozenset({"validate", "power", "atomic"})
    connected = True

    def __init__(self, name: str, glass: Glass, switching_s: float) -> None:
        self.name = name
        self.items: frozenset[CrossConnect] = frozenset()
        self._glass = glass
        self._switching_s = switching_s
        self.changes = 0

    async def read(self) -> State:
        await asyncio.sleep(0)
        return State(self.items, power_dbm=self._glass.power_dbm(self.name))

    async def check(self, diff: Diff) -> list[str]:
        await asyncio.sleep(0)
        return []

    async def apply(self, diff: Diff) -> None:
        await asyncio.sleep(self._switching_s)
        self.items = self.items - frozenset(diff.remove) | frozenset(each for each in diff.add if isinstance(each, CrossConnect))
        self.changes += 1
        self._glass.plant.cross_connects[self.name] = frozenset((each.ingress, each.egress) for each in self.items)
        self._glass.changed()

    async def events(self) -> AsyncIterator[None]:
        for never in ():
            yield never

    async def run(self) -> None:
        await asyncio.Event().wait()


def site(number: int, n: int) -> Topology:
    """From west to east; ports 1 to n at the transmitters, then the strands of cable a and of cable b."""
    west, east, links = f"west{number}", f"east{number}", list[Link]()
    nodes = {name: Node(kind="optical-switch", ports=4 * n, insertion_loss_db=0.8) for name in (west, east)}
    for each in range(1, n + 1):
        nodes[f"tx{number}-{each}"] = Node(kind="source", modules={"m": Module(role="tx", port=f"{west}:{each}")})
        nodes[f"rx{number}-{each}"] = Node(kind="bell-station", modules={"m": Module(role="rx", port=f"{east}:{2 * n + each}")})
        for cable, (out, into) in {"a": (2 * n, 0), "b": (3 * n, n)}.items():
            ends = (f"{west}:{out + each}", f"{east}:{into + each}")
            links.append(Link(id=f"{cable}{number}-{each}", kind="fibre", ends=ends, length_km=1.0 if cable == "a" else 2.0))
    return Topology(f"site{number}", nodes, links)


def network(sites: list[Topology]) -> Topology:
    return Topology("cables", {name: node for each in sites for name, node in each.nodes()}, [link for each in sites for link in each.links()])


@asynccontextmanager
async def running(path: Path, topology: Topology, glasses: list[Glass], switching_s: float) -> AsyncIterator[Desk]:
    store, planner = Store(path / f"{time.monotonic_ns()}.db"), Planner()
    devices = {name: Switch(name, glass, switching_s) for glass in glasses for name, _ in glass.plant.topology.nodes("optical-switch")}
    book, desks = Book(store), list[Desk]()
    reconciler = Reconciler(devices, book, lambda *round: desks[0].settled(*round), plant=partial(build, topology))
    desks.append(Desk(topology, book, planner, reconciler, EventLog(1 << 16), store))
    for glass in glasses:
        glass.on_change = reconciler.mark
    tasks = [asyncio.create_task(each.run()) for each in (reconciler, desks[0])]
    try:
        yield desks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        planner.close()
        store.close()


async def all_on(desk: Desk, cable: str) -> None:
    """Until every service is active on that cable."""
    states = desk.book.index.states
    while states("PROGRAMMING", "REPAIRING", "DEGRADED", "FAILED") or any(  # noqa: ASYNC110 - a benchmark watches
        each.plan is None or not each.plan.route["links"][0].startswith(cable) for each in desk.book.services.values()
    ):
        await asyncio.sleep(0.002)


async def cut(desk: Desk, glasses: list[Glass], cable: str) -> list[float]:
    """Seconds from the cut of every strand of a cable until each service is active again."""
    for view in desk.reconciler.views.values():
        view.changed_s = -math.inf  # paths that have been set for long
    number, begun_s = desk.events.number, time.time()
    for glass in glasses:
        glass.plant.cut = {link.id for link in glass.plant.topology.links("fibre") if link.id.startswith(cable)}
        glass.changed()
    await all_on(desk, "b" if cable == "a" else "a")
    active_s = {event.data["service"]: event.time_s for event in desk.events.after(number) if event.kind == "service.active"}
    assert len(active_s) == len(desk.book.services)
    return [each - begun_s for each in active_s.values()]


async def mend(desk: Desk, glasses: list[Glass]) -> None:
    for glass in glasses:
        for link_id in sorted(glass.plant.cut):
            event = LinkStateChanged(link_id, up=True)
            desk.topology.apply(event)
            desk.network_changed(event, better=True)
        glass.plant.cut = set()
        glass.changed()
    await asyncio.sleep(1.2)


@pytest.mark.timeout(600)
async def test_a_cut_cable(tmp_path: Path) -> None:
    print(f"\n{'lightpaths':>10}{'device times':>14}{'cuts':>6}{'p50 ms':>9}{'p99 ms':>9}{'last ms':>9}{'changes':>9}{'loop CPU ms':>13}{'of it emulation':>17}")
    for lightpaths, cuts in CUTS.items():
        for switching_s, settling_s in ((0.0, 0.0), (0.025, 0.010)):
            sites = [site(number, min(STRANDS, lightpaths)) for number in range(-(-lightpaths // STRANDS))]
            glasses = [Glass(each, settling_s) for each in sites]  # apart, so that the light of a site is followed when that site changes
            topology = network(sites)
            async with running(tmp_path, topology, glasses, switching_s) as desk:
                for name in [name for name, _ in topology.nodes("source")]:
                    await desk.create("lightpath", {"ends": [f"{name}/m", f"{name.replace('tx', 'rx')}/m"]})
                await all_on(desk, "a")
                taken_s, last_s, emulation_s, controller_s, changes = list[float](), list[float](), 0.0, 0.0, 0
                for number in range(cuts):
                    before_s, loop_s, before = sum(each.cpu_s for each in glasses), time.thread_time(), sum(each.changes for each in desk.reconciler.devices.values())  # type: ignore[attr-defined]
                    times_s = await cut(desk, glasses, "ab"[number % 2])
                    emulation_s += sum(each.cpu_s for each in glasses) - before_s
                    controller_s += time.thread_time() - loop_s
                    changes += sum(each.changes for each in desk.reconciler.devices.values()) - before  # type: ignore[attr-defined]
                    taken_s += times_s
                    last_s.append(max(times_s))
                    await mend(desk, glasses)
                p50, p99 = np.quantile(taken_s, (0.5, 0.99)) * 1e3
                device = "25 + 10 ms" if switching_s else "0"
                print(
                    f"{lightpaths:10}{device:>14}{cuts:6}{p50:9.1f}{p99:9.1f}{np.median(last_s) * 1e3:9.1f}{changes / cuts:9.1f}"
                    f"{controller_s / cuts * 1e3:13.1f}{emulation_s / cuts * 1e3:17.1f}",
                    flush=True,
                )
