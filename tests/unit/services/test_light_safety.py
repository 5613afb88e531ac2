"""What light may do, judged by a tracer of its own that follows every transmitter's light through what the devices hold at each moment."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.network.model import Link, Module, Node, parse_end
from controller.network.topology import Topology
from controller.routing.light.plant import build
from controller.services.desired import Book
from controller.services.light_safety import dark, unsafe
from controller.services.reconciler import Reconciler
from controller.southbound.device import CrossConnect, Diff, Item, MediaChannel, Refused, Unreachable
from controller.store.sqlite import Store
from tests.unit.services.scripted import ScriptedDevice, delivered

SWITCHES = ("o0", "o1", "o2")
Held = Mapping[str, frozenset[Item]]
Through = frozenset[tuple[str, Item]]
"""What light has passed, by device."""

MODULES = st.builds(
    Module,
    role=st.sampled_from(["tx", "rx", "tx-rx"]),
    signal=st.sampled_from(["quantum", "service"]),
    wavelength_nm=st.sampled_from([1310.0, 1550.0]),
    launch_dbm=st.sampled_from([-30.0, 0.0]),
    max_input_dbm=st.sampled_from([None, -40.0, -6.0, 3.0]),
)


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    """Three single-sided switches joined in a triangle, modules at two ports of each, and a splitter or a filter behind some."""
    nodes: dict[str, Node] = {}
    links: list[Link] = []

    def fibre(a: str, b: str) -> None:
        links.append(Link(kind="fibre", id=f"f{len(links)}", ends=(a, b), loss_db=draw(st.sampled_from([0.5, 3.0]))))

    for number, name in enumerate(SWITCHES):
        nodes[name] = Node(kind="optical-switch", ports=5, sides="single", insertion_loss_db=draw(st.sampled_from([None, 1.0])))
        for port in (1, 2):
            if draw(st.booleans()):
                nodes[f"n{number}{port}"] = Node(kind="end-node", modules={"m": draw(MODULES)})
                fibre(f"n{number}{port}:m", f"{name}:{port}")
                continue
            nodes[f"n{number}{port}"] = Node(kind="end-node", modules={"m": draw(MODULES), "k": draw(MODULES)})
            bands: dict[str, tuple[float, float]] = draw(st.sampled_from([{}, {"1": (1300.0, 1320.0), "2": (1540.0, 1560.0)}]))
            nodes[f"p{number}{port}"] = Node(kind="passive", ports=3, losses_db={"1-3": 0.4, "2-3": 0.4}, bands=bands)
            for branch, module in (("1", "m"), ("2", "k")):
                fibre(f"n{number}{port}:{module}", f"p{number}{port}:{branch}")
            fibre(f"p{number}{port}:3", f"{name}:{port}")
    for a, b in (("o0:4", "o1:5"), ("o1:4", "o2:5"), ("o2:4", "o0:5")):
        fibre(a, b)
    return Topology("triangle", nodes, links)


PAIRS = st.sampled_from([(a, b) for a in range(1, 6) for b in range(1, 6) if a != b]).map(lambda pair: CrossConnect(*pair))


def rays(network: Topology, held: Held) -> Iterator[tuple[str, Module, str, Module, float, Through]]:
    """Every way of light from a transmitter to a module, with the power that arrives and what it has passed."""
    glass = {end: (str(link.ends[1 - side]), link.loss_db or 0.0) for link in network.links("fibre") for side, end in enumerate(link.ends)}
    modules = {f"{name}:{each}": module for name, node in network.nodes() for each, module in node.modules.items()}

    def follow(port: str, dbm: float, nm: float, passed: Through, seen: frozenset[str]) -> Iterator[tuple[str, float, Through]]:
        if port in seen or port not in glass:
            return
        there, lost_db = glass[port]
        dbm -= lost_db
        if there in modules:
            yield there, dbm, passed
            return
        end = parse_end(there)
        node = network.node(end.node)
        if node.kind == "passive":
            for pair, loss_db in node.losses_db.items():
                for here, onward in (pair.split("-"), pair.split("-")[::-1]):
                    if here == end.port and all(
                        low <= nm <= high for low, high in (node.bands[n] for n in (here, onward) if n in node.bands)
                    ):
                        yield from follow(f"{end.node}:{onward}", dbm - loss_db, nm, passed, seen | {port})
        for item in held.get(end.node, ()):
            assert isinstance(item, CrossConnect)
            for here, onward in ((str(item.ingress), str(item.egress)), (str(item.egress), str(item.ingress))):
                if here == end.port:
                    through = passed | {(end.node, item)}
                    yield from follow(f"{end.node}:{onward}", dbm - (node.insertion_loss_db or 0.0), nm, through, seen | {port})

    for start, sender in modules.items():
        if sender.role != "rx":
            for end, dbm, passed in follow(start, sender.launch_dbm, sender.wavelength_nm, frozenset(), frozenset()):
                yield start, sender, end, modules[end], dbm, passed


def harm(network: Topology, held: Held) -> set[Through]:
    """What the light passes that does what it must not."""
    return {
        passed
        for _, sender, _, taker, dbm, passed in rays(network, held)
        if (sender.signal != "quantum" and taker.signal == "quantum" and taker.role != "tx")
        or taker.role == "tx"
        or (taker.max_input_dbm is not None and dbm > taker.max_input_dbm + 1e-6)
    }


def beams(items: frozenset[Item]) -> list[int]:
    return [port for item in items if isinstance(item, CrossConnect) for port in (item.ingress, item.egress)]


DIFFS = st.dictionaries(st.sampled_from(SWITCHES), st.frozensets(PAIRS, min_size=1, max_size=3), min_size=1)


@given(networks(), DIFFS, DIFFS)
def test_exactly_what_does_harm_is_unsafe(network: Topology, held: dict[str, frozenset[Item]], added: dict[str, frozenset[Item]]) -> None:
    """Both ways: nothing harmful passes, and of harmless light nothing is refused."""
    diffs = [Diff(name, add=tuple(sorted(items - held.get(name, frozenset()), key=repr))) for name, items in added.items()]
    now = {name: held.get(name, frozenset()) | added.get(name, frozenset()) for name in SWITCHES}
    told = {(each.device, each.item): each.rule for each in unsafe(build(network), held, diffs)}
    new = {(each.device, item) for each in diffs for item in each.add}
    doing = {part for passed in harm(network, now) for part in passed} & new
    clashing = {
        (name, item)
        for name, item in new
        if isinstance(item, CrossConnect) and any(beams(now[name]).count(p) > 1 for p in beams(frozenset({item})))
    }
    if all(len(beams(items)) == len(set(beams(items))) for items in now.values()):
        assert set(told) == doing, "where each port has one beam there is one way on, and both tracers follow it"
    assert doing | clashing <= set(told)
    assert {each for each, rule in told.items() if rule == "exclusive ports"} == clashing


@given(networks(), DIFFS, DIFFS)
def test_what_is_dark_is_passed_by_no_light(network: Topology, held: dict[str, frozenset[Item]], added: dict[str, frozenset[Item]]) -> None:
    unlit = dark(build(network), held, [Diff(name, add=tuple(items)) for name, items in added.items()])
    now = {name: held.get(name, frozenset()) | added.get(name, frozenset()) for name in SWITCHES}
    assert all(passed.isdisjoint(unlit) for *_, passed in rays(network, now))


FAULTS = st.lists(st.sampled_from([None, None, None, Unreachable, Refused]), max_size=12)


@settings(max_examples=150, deadline=None)
@given(networks(), DIFFS, DIFFS, st.lists(DIFFS, min_size=1, max_size=4), FAULTS)
def test_whatever_services_want_and_devices_do_no_light_does_harm_at_any_moment(
    network: Topology,
    foreign: dict[str, frozenset[Item]],
    left: dict[str, frozenset[Item]],
    wanted: list[dict[str, frozenset[Item]]],
    faults: list[type[Unreachable] | None],
) -> None:
    asyncio.run(_no_harm(network, foreign, left, wanted, faults))


async def _no_harm(
    network: Topology,
    foreign: dict[str, frozenset[Item]],
    left: dict[str, frozenset[Item]],
    wanted: list[dict[str, frozenset[Item]]],
    faults: list[type[Unreachable] | None],
) -> None:
    def once(items: frozenset[Item]) -> frozenset[Item]:
        """As many as leave each port one beam."""
        kept: frozenset[Item] = frozenset()
        for item in sorted(items, key=repr):
            if len(set(beams(kept | {item}))) == len(beams(kept | {item})):
                kept |= {item}
        return kept

    begun = {name: once(foreign.get(name, frozenset()) | left.get(name, frozenset())) for name in SWITCHES}
    devices = {name: ScriptedDevice(name, *begun[name]) for name in SWITCHES}
    coming = iter(faults)

    def look(name: str, diff: Diff) -> None:
        harmless()
        items = (frozenset(devices[name].items) - set(diff.remove)) | set(diff.add)
        assert len(beams(items)) == len(set(beams(items))), "a port never carries two beams"
        if (fault := next(coming, None)) is not None:
            raise fault(name, "as the script has it")

    def harmless() -> None:
        now = {name: frozenset(device.items) for name, device in devices.items()}
        ours = {(name, item) for name, items in now.items() for item in items - begun[name]}
        assert all(passed.isdisjoint(ours) for passed in harm(network, now)), "no light that does harm passes what was put there"

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store.db")
        book = Book(store)
        refused: dict[str, str] = {}

        async def settled(read: frozenset[str], concerned: set[str], no: Mapping[str, str]) -> None:
            refused.update(no)
            reconciler.mark(book.commit([book.services[name].moved("FAILED", why) for name, why in no.items()]))

        reconciler = Reconciler(devices, book, settled, plant=partial(build, network))
        book.commit([delivered("old", {name: tuple(items & begun[name]) for name, items in left.items()})])
        for device in devices.values():
            device.before_apply = partial(look, device.name)
        for number, items in enumerate(wanted):
            book.commit([delivered(f"s{number}", {name: tuple(sorted(each, key=repr)) for name, each in items.items()})])
        book.commit([], ["old"])
        for _ in range(4):
            await reconciler._round(set(SWITCHES))
            harmless()
        store.close()
    assert all("joining ports" in why or "script" in why or "somebody else" in why or "two beams" in why for why in refused.values())


def test_a_refusal_names_switch_ports_and_rule() -> None:
    nodes = {
        "lamp": Node(kind="end-node", modules={"m": Module(role="tx", signal="service", launch_dbm=3.0)}),
        "eye": Node(kind="end-node", modules={"m": Module(role="rx")}),
        "ear": Node(kind="end-node", modules={"m": Module(role="rx", signal="service", max_input_dbm=-10.0)}),
        "lamp2": Node(kind="end-node", modules={"m": Module(role="tx", signal="service")}),
        "o": Node(kind="optical-switch", ports=8, insertion_loss_db=1.0),
    }
    links = [
        Link(kind="fibre", id=f"f{port}", ends=(f"{name}:m", f"o:{port}"), loss_db=2.0)
        for name, port in (("lamp", 1), ("eye", 5), ("ear", 6), ("lamp2", 7))
    ]
    plant = build(Topology("four", nodes, links))

    def told(*items: CrossConnect, held: tuple[CrossConnect, ...] = ()) -> list[str]:
        return [str(each) for each in unsafe(plant, {"o": held}, [Diff("o", add=items)])]

    assert told(CrossConnect(1, 5)) == [
        "o: joining ports 1 and 5 breaks the rule of no classical light into a quantum receiver:"
        " light of the service transmitter lamp:m would reach eye:m"
    ]
    assert told(CrossConnect(1, 6)) == [
        "o: joining ports 1 and 6 breaks the rule of maximum input power: -2.00 dBm from lamp:m would arrive at ear:m, which takes -10 dBm at most"
    ]
    assert "no light into a source: light of lamp:m would travel backwards into the transmitter lamp2:m" in told(CrossConnect(1, 7))[0]
    assert told(CrossConnect(2, 6), held=(CrossConnect(3, 6),)) == [
        "o: joining ports 2 and 6 breaks the rule of exclusive ports: port 6 is joined to another in 3 to 6"
    ]
    assert told(CrossConnect(2, 6)) == []


@pytest.mark.parametrize(
    ("other", "clashes"),
    [
        (MediaChannel(2, "1", "3", 150, 250), True),
        (MediaChannel(2, "4", "2", 150, 250), True),
        (MediaChannel(2, "1", "3", 200, 300), False),
        (MediaChannel(2, "3", "4", 150, 250), False),
        (MediaChannel(1, "3", "4", 500, 600), True),
    ],
)
def test_channels_share_a_port_but_no_wavelength_and_no_number(other: MediaChannel, clashes: bool) -> None:
    plant = build(Topology("w", {"w": Node(kind="wavelength-switch", ports=4)}, []))
    found = unsafe(plant, {"w": [other]}, [Diff("w", add=(MediaChannel(1, "1", "2", 100, 200),))])
    assert [each.rule for each in found] == ["exclusive ports"] * clashes


LAMP_AND_EYE = Topology(
    "pair",
    {
        "lamp": Node(kind="end-node", modules={"m": Module(role="tx", signal="service")}),
        "eye": Node(kind="end-node", modules={"m": Module(role="rx")}),
        "west": Node(kind="optical-switch", ports=8),
        "east": Node(kind="optical-switch", ports=8),
    },
    [
        Link(kind="fibre", id="a", ends=("lamp:m", "west:1"), loss_db=1.0),
        Link(kind="fibre", id="b", ends=("west:5", "east:1"), loss_db=1.0),
        Link(kind="fibre", id="c", ends=("east:5", "eye:m"), loss_db=1.0),
    ],
)


async def _told(store: Store, devices: dict[str, ScriptedDevice], wanted: dict[str, tuple[Item, ...]], gone: str = "") -> dict[str, str]:
    """What is refused of the service `new` when `old`, which has what devices hold, leaves."""
    book = Book(store)
    refused: dict[str, str] = {}

    async def settled(read: frozenset[str], concerned: set[str], no: Mapping[str, str]) -> None:
        refused.update(no)

    reconciler = Reconciler(devices, book, settled, plant=partial(build, LAMP_AND_EYE))
    if gone:
        book.commit([delivered("old", {gone: tuple(devices[gone].items)})])
        book.commit([], ["old"])
    book.commit([delivered("new", wanted)])
    await reconciler._round(set(devices))
    return refused


async def test_what_would_do_harm_is_refused_before_anything_is_done(store: Store) -> None:
    devices = {name: ScriptedDevice(name) for name in ("west", "east")}
    refused = await _told(store, devices, {"west": (CrossConnect(1, 5),), "east": (CrossConnect(1, 5),)})
    assert "classical light into a quantum receiver" in refused["new"]
    assert not any("apply" in device.calls for device in devices.values())


async def test_what_was_safe_only_with_old_light_gone_is_refused_when_that_stays(store: Store) -> None:
    devices = {"west": ScriptedDevice("west", CrossConnect(1, 5)), "east": ScriptedDevice("east")}

    def stuck(diff: Diff) -> None:
        raise Unreachable("west", "gone")

    devices["west"].before_apply = stuck
    refused = await _told(store, devices, {"east": (CrossConnect(1, 5),)}, gone="west")
    assert devices["east"].items == set()
    assert "east: joining ports 1 and 5 breaks the rule of no classical light into a quantum receiver" in refused["new"]
