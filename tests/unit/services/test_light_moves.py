"""Lightpaths set, moved and removed while switches fall silent, refuse, lose their answers, and controllers die: no light strays meanwhile."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.network.events import AdminChanged
from controller.network.model import Module, Node
from controller.network.topology import Topology
from controller.routing.light.plant import build
from controller.services.desired import Book
from controller.services.reconciler import Reconciler
from controller.southbound.device import CrossConnect, Diff, Item, Refused, Unreachable
from controller.store.sqlite import Store
from tests.unit.services.scripted import ScriptedDevice, delivered
from tests.unit.services.test_light_order import Way, fibre, half_ways, whole_ways

SWITCHES = ("o0", "o1", "o2", "o3")
Ways = Mapping[str, tuple[Item, ...]]


def all_joined() -> Topology:
    """A transmitter at port 1 of each switch, a receiver at port 2, and glass from each to each: from `oA` port `3 + B` to `oB`."""
    nodes: dict[str, Node] = {}
    links = []
    for number, name in enumerate(SWITCHES):
        nodes[name] = Node(kind="optical-switch", ports=8, sides="single")
        nodes[f"tx{number}"], nodes[f"rx{number}"] = (Node(kind="end-node", modules={"m": Module(role=role)}) for role in ("tx", "rx"))
        links += [fibre(f"tx{number}:m", f"{name}:1"), fibre(f"rx{number}:m", f"{name}:2")]
        links += [fibre(f"{name}:{3 + other}", f"o{other}:{3 + number}") for other in range(number)]
    return Topology("all joined", nodes, links)


def over(*switches: int) -> Ways:
    """From the transmitter of the first to the receiver of the last."""
    ports = {number: [1, 2] for number in switches}
    for here, there in pairwise(switches):
        ports[here][1], ports[there][0] = 3 + there, 3 + here
    return {f"o{number}": (CrossConnect(*pair),) for number, pair in ports.items()}


class Switch(ScriptedDevice):
    """`after_apply` is called when a change has been made and is not answered yet."""

    after_apply: Callable[[], None] = staticmethod(lambda: None)

    async def apply(self, diff: Diff) -> None:
        await super().apply(diff)
        self.after_apply()


FAULTS = st.lists(st.sampled_from([*[None] * 12, "lost", "lost after", "refused", "crash", "crash after"]), max_size=40)
WAYS = {
    "s": [(0, 1), (0, 2, 1), (0, 3, 1), (0, 2, 3, 1), (0, 3, 2, 1), (0, 3, 2), (0, 1, 3, 2)],
    "t": [(1, 0), (1, 2, 3), (1, 3), (1, 0, 3), (1, 0, 2, 3)],
}
WANTS = st.sampled_from([("want", name, way) for name, ways in WAYS.items() for way in ways])
OTHERS = st.one_of(
    st.tuples(st.just("leave"), st.sampled_from("st")),
    st.tuples(st.sampled_from(["down", "up", "up"]), st.sampled_from(SWITCHES)),
    st.just(("restart",)),
)
ROUNDS = st.sampled_from([frozenset(SWITCHES)] * 3 + [frozenset()] * 2) | st.frozensets(st.sampled_from(SWITCHES))
STEPS = st.lists(st.tuples(WANTS | WANTS | OTHERS, ROUNDS), min_size=4, max_size=16)
"""What happens, and which switches are connected to the controller in the round after it."""


@pytest.mark.timeout(1800)
@settings(deadline=None)
@given(STEPS, FAULTS)
def test_no_light_strays_whatever_fails_and_all_is_as_wanted_when_it_is_over(
    steps: list[tuple[tuple[object, ...], frozenset[str]]], faults: list[str | None]
) -> None:
    asyncio.run(_story(steps, iter(faults)))


async def _story(steps: list[tuple[tuple[object, ...], frozenset[str]]], faults: Iterator[str | None]) -> None:
    network = all_joined()
    devices = {name: Switch(name) for name in SWITCHES}

    def held() -> dict[str, frozenset[Item]]:
        return {name: frozenset(device.items) for name, device in devices.items()}

    def look() -> None:
        strayed.extend(half_ways(network, held()))

    def strike(name: str, fault: str | None) -> None:
        look()
        match fault:
            case "lost" | "lost after":
                raise Unreachable(name, "as the script has it")
            case "refused":
                raise Refused(name, "as the script has it")
            case "crash" | "crash after":
                raise asyncio.CancelledError

    strayed: list[Way] = []
    planned: dict[str, str | None] = {}
    for name, device in devices.items():

        def before(_: Diff, name: str = name) -> None:
            planned[name] = next(faults, None)
            if not (planned[name] or "").endswith("after"):
                strike(name, planned[name])

        device.before_apply = before
        device.after_apply = lambda name=name: strike(name, planned[name])  # type: ignore[misc]

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store.db")

        def started() -> tuple[Book, Reconciler]:
            book = Book(store)

            async def settled(read: frozenset[str], concerned: set[str], no: Mapping[str, str]) -> None:
                book.commit([book.services[name].moved("FAILED", why) for name, why in no.items()])

            return book, Reconciler(devices, book, settled, plant=partial(build, network))

        book, reconciler = started()

        async def rounds(count: int) -> None:
            nonlocal book, reconciler
            for _ in range(count):
                try:
                    await reconciler._round({name for name in SWITCHES if devices[name].up})
                except asyncio.CancelledError:
                    book, reconciler = started()

        def free(name: str, way: Ways) -> bool:
            """Whether a planner would give the service this way."""
            for device, items in way.items():
                desired = book.of(device)
                taken = {item for item, users in desired.wanted.items() if users != (name,)}
                if not devices[device].up or device in reconciler.waiting or reconciler.views[device].state is None:
                    taken |= desired.absent.keys() - set(items)
                if any(not {item.ingress, item.egress}.isdisjoint((each.ingress, each.egress)) for item in items for each in taken):  # type: ignore[union-attr]
                    return False
            return True

        for step, heard in steps:
            match step:
                case "want", str(name), tuple(switches):
                    if free(name, way := over(*switches)):
                        book.commit([delivered(name, dict(way))])
                case "leave", str(name):
                    if name in book.services:
                        book.commit([], [name])
                case ("down" | "up") as what, str(name):
                    devices[name].up = what == "up"
                case ("restart",):
                    book, reconciler = started()
            up = {name: device.up for name, device in devices.items()}
            for name, device in devices.items():
                device.up &= name in heard
            await rounds(1 if heard else 0)
            for name, device in devices.items():
                device.up = up[name]
            look()
            assert not strayed
        for device in devices.values():
            device.up = True
        with suppress(StopIteration):
            while True:
                next(faults)
        await rounds(5)
        assert not strayed
        served = [each.plan.desired for each in book.services.values() if each.delivered and each.plan is not None]
        assert held() == {name: {item for desired in served for item in desired.get(name, ())} for name in SWITCHES}
        assert len(whole_ways(network, held())) == len(served)
        assert not any(desired.absent for desired in book.desired.values())
        store.close()


class Bench:
    """Service `s` from switch to switch of the network above, and the controller that keeps it."""

    def __init__(self, store: Store, *switches: int) -> None:
        self.network = all_joined()
        self.store = store
        self.devices = {name: Switch(name) for name in SWITCHES}
        for name, items in over(*switches).items():
            self.devices[name].items = set(items)
        self.refused: dict[str, str] = {}
        self.restart()
        self.want(*switches)

    def restart(self) -> None:
        self.book = Book(self.store)
        self.reconciler = Reconciler(self.devices, self.book, self._settled, plant=partial(build, self.network))

    async def _settled(self, read: frozenset[str], concerned: set[str], refused: Mapping[str, str]) -> None:
        self.refused |= refused

    def want(self, *switches: int) -> None:
        self.book.commit([delivered("s", dict(over(*switches)))])

    async def round(self, *silent: str) -> list[tuple[str, str]]:
        """One, without these switches. Returns who was changed, and how."""
        calls: list[tuple[str, str]] = []
        for name, device in self.devices.items():
            device.up = name not in silent
            device.before_apply = lambda each: calls.append((each.device, "+" * bool(each.add) + "-" * bool(each.remove)))
        await self.reconciler._round({name for name in SWITCHES if name not in silent})
        return calls

    def holds(self, *switches: int) -> bool:
        return {name: device.items for name, device in self.devices.items() if device.items} == {
            name: set(items) for name, items in over(*switches).items()
        }


async def test_a_join_that_stays_is_dark_while_the_way_behind_it_changes(store: Store) -> None:
    bench = Bench(store, 0, 1, 2)
    await bench.round()
    bench.want(0, 1, 3)
    bench.devices["o0"].calls.clear()
    calls = await bench.round()
    assert calls == [("o3", "+"), ("o0", "-"), ("o1", "-"), ("o2", "-"), ("o1", "+"), ("o0", "+")]
    assert bench.holds(0, 1, 3)


@pytest.mark.parametrize("policy", ["repair", "report"])
async def test_what_was_dark_for_a_moment_is_lit_again_at_once_however_drift_is_met(store: Store, policy: str) -> None:
    bench = Bench(store, 0, 1, 2)
    await bench.round()
    bench.reconciler.verdict_s = 3600.0
    request = {"ends": ["a", "b"], "on_drift": policy}
    bench.book.commit([delivered("s", dict(over(0, 1, 3)), request=request, state="ACTIVE")])

    def fail(each: Diff) -> None:
        raise Unreachable("o1", "gone")

    for name in SWITCHES:
        bench.devices[name].before_apply = fail if name == "o1" else lambda each: None
    await bench.reconciler._round({*SWITCHES})
    assert not bench.devices["o0"].items, "dark, as the way behind could not be changed"
    await bench.round()
    assert bench.holds(0, 1, 3)


async def test_a_controller_that_starts_takes_nothing_apart_before_the_switch_at_the_source_is_read(store: Store) -> None:
    bench = Bench(store, 0, 1, 2)
    await bench.round()
    bench.book.commit([], ["s"])
    bench.restart()
    assert await bench.round("o0") == []
    assert bench.reconciler.waiting == {"o1", "o2"}
    assert bench.reconciler.views["o1"].trouble == (
        "light may still come from o0 (no session): what passes it is taken apart when it is put out there"
    )
    assert await bench.round() == [("o0", "-"), ("o1", "-"), ("o2", "-")]
    assert bench.holds()
    assert bench.reconciler.waiting == set()


async def test_a_dead_switch_holds_back_only_what_it_may_light_and_nothing_once_it_is_disabled(store: Store) -> None:
    bench = Bench(store, 0, 1, 2)
    await bench.round()
    bench.want(0, 3)
    assert await bench.round("o1") == [("o3", "+"), ("o0", "-"), ("o2", "-"), ("o0", "+")], "the source is dark: o1 matters to nobody"
    bench = Bench(store, 0, 1, 2)
    bench.devices["o0"].items = set(over(0, 1, 2)["o0"])
    await bench.round()
    bench.book.commit([], ["s"])
    assert await bench.round("o0") == []
    bench.network.apply(AdminChanged("node", "o0", "disabled"))
    assert sorted(await bench.round("o0")) == [("o1", "-"), ("o2", "-")]


async def test_what_must_wait_for_a_port_waits_without_a_refusal(store: Store) -> None:
    """Somebody wants the port of a join that may still be lit."""
    bench = Bench(store, 0, 1, 2)
    await bench.round()
    bench.book.commit([], ["s"])
    bench.book.commit([delivered("t", {"o1": (CrossConnect(1, 5),)})])
    assert await bench.round("o0") == []
    assert not bench.refused
    await bench.round()
    assert bench.devices["o1"].items == {CrossConnect(1, 5)}


async def test_light_stays_on_as_long_as_the_new_way_cannot_be_set(store: Store) -> None:
    bench = Bench(store, 0, 1, 2)
    await bench.round()
    bench.want(0, 1, 3)
    await bench.round("o3")
    assert bench.holds(0, 1, 2)
    await bench.round()
    assert bench.holds(0, 1, 3)


async def test_a_lost_answer_at_the_source_leaves_the_rest_as_it_is(store: Store) -> None:
    bench = Bench(store, 0, 1, 2)
    await bench.round()
    bench.book.commit([], ["s"])

    def lose(each: Diff) -> None:
        raise Unreachable("o0", "the answer was lost")

    bench.devices["o0"].before_apply = lose
    await bench.reconciler._round({*SWITCHES})
    assert bench.holds(0, 1, 2)
    await bench.round()
    assert bench.holds()
