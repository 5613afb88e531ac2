"""What the order of light promises, judged by a tracer of its own that follows every transmitter's light port by port."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from controller.network.model import Link, Module, Node
from controller.network.topology import Topology
from controller.routing.light.plant import build, mhz_of
from controller.services.light_order import LightOrder, in_order
from controller.services.stages import stages
from controller.southbound.device import CrossConnect, Diff, Item, MediaChannel, diff

Held = Mapping[str, frozenset[Item]]
Way = tuple[str, ...]
"""Ports, in the order in which light passes them; the last is a module's where light comes to an end that is one."""
Joined = frozenset[tuple[str, Item]]

RED, BLUE = 1550.0, 1310.0


def fibre(a: str, b: str) -> Link:
    return Link(kind="fibre", id=f"{a}--{b}", ends=(a, b), loss_db=1.0)


@st.composite
def networks(draw: st.DrawFn, *, divided: bool) -> Topology:
    """Transmitters and receivers at three or four switches that are all joined; with `divided`, splitters, filters and wavelength switches."""
    count = draw(st.integers(3, 4))
    nodes: dict[str, Node] = {}
    links: list[Link] = []
    for number in range(count):
        name = f"o{number}"
        kinds = ["optical-switch", "wavelength-switch"] if divided else ["optical-switch"]
        nodes[name] = Node(kind=draw(st.sampled_from(kinds)), ports=6, sides="single")
        for port in (1, 2):
            role = draw(st.sampled_from(["tx", "rx"]))
            end = f"n{number}{port}"
            ends = draw(st.sampled_from(["one", "splitter", "filter"])) if divided else "one"
            names = ("m",) if ends == "one" else ("m", "k")
            nodes[end] = Node(
                kind="end-node", modules={each: Module(role=role, wavelength_nm=draw(st.sampled_from([RED, BLUE]))) for each in names}
            )
            if ends == "one":
                links.append(fibre(f"{end}:m", f"{name}:{port}"))
                continue
            bands = {"1": (1300.0, 1320.0), "2": (1540.0, 1560.0)} if ends == "filter" else {}
            nodes[f"p{number}{port}"] = Node(kind="passive", ports=3, losses_db={"1-3": 0.4, "2-3": 0.4}, bands=bands)
            links += [fibre(f"{end}:{each}", f"p{number}{port}:{branch}") for branch, each in enumerate(names, 1)]
            links.append(fibre(f"p{number}{port}:3", f"{name}:{port}"))
    free = {f"o{number}": iter((3, 4, 5, 6)) for number in range(count)}
    for a in range(count):
        for b in range(a):
            links.append(fibre(f"o{a}:{next(free[f'o{a}'])}", f"o{b}:{next(free[f'o{b}'])}"))
    return Topology("all joined", nodes, links)


def ways(network: Topology, held: Held) -> Iterator[tuple[Way, Joined]]:
    """Every way of every transmitter's light, with what it passes on it."""
    glass = {end: link.ends[1 - side] for link in network.links("fibre") for side, end in enumerate(link.ends)}
    modules = {f"{name}:{each}": module for name, node in network.nodes() for each, module in node.modules.items()}

    def leads(port: str, nm: float) -> Iterator[tuple[str, Joined]]:
        name, _, number = port.partition(":")
        node = network.node(name)
        for pair in node.losses_db:
            for here, there in (pair.split("-"), pair.split("-")[::-1]):
                bands = [node.bands[each] for each in (here, there) if each in node.bands]
                if here == number and all(low <= nm <= high for low, high in bands):
                    yield f"{name}:{there}", frozenset()
        for item in held.get(name, ()):
            assert isinstance(item, CrossConnect | MediaChannel)
            pair = [str(item.ingress), str(item.egress)] if isinstance(item, CrossConnect) else [item.source, item.dest]
            if isinstance(item, MediaChannel) and not item.lower_frequency_mhz <= mhz_of(nm) <= item.upper_frequency_mhz:
                continue
            for here, there in (pair, pair[::-1]):
                if here == number:
                    yield f"{name}:{there}", frozenset({(name, item)})

    def follow(way: Way, passed: Joined, nm: float) -> Iterator[tuple[Way, Joined]]:
        there = glass.get(way[-1])
        if there is None:
            yield way, passed
            return
        way = (*way, there)
        onward = [(port, through) for port, through in leads(there, nm) if port not in way] if there not in modules else []
        if not onward:
            yield way, passed
        for port, through in onward:
            yield from follow((*way, port), passed | through, nm)

    for start, module in modules.items():
        if module.role != "rx":
            yield from follow((start,), frozenset(), module.wavelength_nm)


def ends_well(network: Topology, way: Way) -> bool:
    return "m" in way[-1].partition(":")[2] or "k" in way[-1].partition(":")[2]


def half_ways(network: Topology, held: Held) -> dict[Way, Joined]:
    """Those that light leaves a switch on without coming to a module."""
    return {way: passed for way, passed in ways(network, held) if passed and not ends_well(network, way)}


def whole_ways(network: Topology, held: Held) -> dict[Way, Joined]:
    return {way: passed for way, passed in ways(network, held) if passed and ends_well(network, way)}


def beams(item: Item) -> set[tuple[str, int | None]]:
    """The ports that an item takes, of a wavelength switch those of its colour."""
    if isinstance(item, CrossConnect):
        return {(str(item.ingress), None), (str(item.egress), None)}
    assert isinstance(item, MediaChannel)
    return {(item.source, item.lower_frequency_mhz), (item.dest, item.lower_frequency_mhz)}


@st.composite
def holdings(draw: st.DrawFn, network: Topology) -> Held:
    """What switches hold: mostly whole ways from one module to another, each port with one beam, or one of each colour."""
    switches = sorted(name for name, _ in network.nodes("optical-switch", "wavelength-switch"))
    glass = {tuple(sorted((a.partition(":")[0], b.partition(":")[0]))): (a, b) for link in network.links("fibre") for a, b in [link.ends]}
    held: dict[str, set[Item]] = {name: set() for name in switches}

    def join(name: str, here: str, there: str) -> None:
        node, pair = network.node(name), draw(st.permutations((here, there)))
        mhz = mhz_of(draw(st.sampled_from([RED, BLUE])))
        item: Item = MediaChannel(len(held[name]), pair[0], pair[1], mhz - 9, mhz + 9)
        if node.kind == "optical-switch":
            item = CrossConnect(*map(int, pair))
        if here != there and not any(beams(item) & beams(each) for each in held[name]):
            held[name].add(item)

    for _ in range(draw(st.integers(0, 4))):
        over = draw(st.permutations(switches))[: draw(st.integers(1, len(switches)))]
        arriving = str(draw(st.integers(1, 2)))
        for here, there in zip(over, [*over[1:], ""], strict=True):
            ends = glass.get((min(here, there), max(here, there)), ())
            leaving = next((end.partition(":")[2] for end in ends if end.startswith(f"{here}:")), str(draw(st.integers(1, 2))))
            join(here, arriving, leaving)
            arriving = next((end.partition(":")[2] for end in ends if end.startswith(f"{there}:")), "")
    for _ in range(draw(st.integers(0, 2))):
        join(draw(st.sampled_from(switches)), str(draw(st.integers(1, 6))), str(draw(st.integers(1, 6))))
    return {name: frozenset(items) for name, items in held.items()}


@st.composite
def changes(draw: st.DrawFn, *, divided: bool) -> tuple[Topology, Held, Held]:
    network = draw(networks(divided=divided))
    before, after = draw(holdings(network)), draw(holdings(network))
    kept = draw(st.sets(st.sampled_from(sorted(before)), max_size=len(before)))
    return network, before, {name: before[name] if name in kept else after[name] for name in before}


def ordered(network: Topology, before: Held, after: Held, foreign: Joined = frozenset()) -> tuple[list[Diff], LightOrder]:
    """The diffs, with what is to be dark meanwhile, and their order."""
    diffs = [diff(name, before[name], after[name], before[name] - after[name]) for name in before]
    wanted = {name: {item for item in after[name] if (name, item) not in foreign} for name in after}
    leaving = {name: before[name] - after[name] for name in before}
    order = in_order(build(network), before, [each for each in diffs if not each.empty], wanted, leaving)
    dimmed: dict[str, tuple[Item, ...]] = defaultdict(tuple)
    for name, item in sorted(order.darkened, key=repr):
        dimmed[name] += (item,)
    diffs = [replace(each, add=each.add + dimmed[each.device], remove=each.remove + dimmed[each.device]) for each in diffs]
    return [each for each in diffs if not each.empty], order


def moments(draw: st.DrawFn, before: Held, diffs: list[Diff], order: LightOrder) -> Iterator[Held]:
    """Every state on the way, where within a stage one item is changed after the other, in whatever order."""
    now = dict(before)
    for stage in stages(diffs, order):
        steps = [
            (name, item, adds) for name, each in stage.items() for adds in (False, True) for item in (each.add if adds else each.remove)
        ]
        for name, item, adds in draw(st.permutations(steps)):
            now[name] = now[name] | {item} if adds else now[name] - {item}
            yield dict(now)


def prefixes(found: Mapping[Way, Joined]) -> set[Way]:
    return {way[:end] for way in found for end in range(1, len(way) + 1)}


@pytest.mark.timeout(1800)
@given(st.data())
def test_light_is_never_on_half_a_way_that_it_was_not_on_before_or_is_to_be_on(data: st.DataObject) -> None:
    """Where light has one way on, and comes from one end."""
    network, before, after = data.draw(changes(divided=False))
    for held in (before, after):
        assume(all(network.node(way[-1].partition(":")[0]).modules["m"].role == "rx" for way in whole_ways(network, held)))
    allowed = prefixes(half_ways(network, before)) | prefixes(half_ways(network, after))
    diffs, order = ordered(network, before, after)
    now = before
    for now in moments(data.draw, before, diffs, order):
        assert half_ways(network, now).keys() <= allowed
    assert now == after


@pytest.mark.timeout(1800)
@given(st.data())
def test_where_light_divides_half_a_way_is_lit_only_through_what_other_light_or_others_need(data: st.DataObject) -> None:
    """Splitters, filters, wavelength switches, and cross-connects of others; what stays whole is not interrupted for what changes."""
    network, before, after = data.draw(changes(divided=True))
    for held in (before, after):
        assume(all(_module(network, way[-1]).role == "rx" for way in whole_ways(network, held)))
    staying = {(name, item) for name in before for item in before[name] & after[name]}
    foreign = frozenset(data.draw(st.sets(st.sampled_from(sorted(staying, key=repr)), max_size=2))) if staying else frozenset()
    untouched = {way: passed for way, passed in whole_ways(network, before).items() if passed <= staying}
    allowed = prefixes(half_ways(network, before)) | prefixes(half_ways(network, after))
    tied = foreign.union(*untouched.values())
    diffs, order = ordered(network, before, after, foreign)
    assert foreign.isdisjoint(order.darkened)
    for now in moments(data.draw, before, diffs, order):
        assert all(way in allowed or passed <= tied for way, passed in half_ways(network, now).items())
        assert untouched.keys() <= whole_ways(network, now).keys()


def _module(network: Topology, end: str) -> Module:
    name, _, module = end.partition(":")
    return network.node(name).modules[module]


@pytest.mark.timeout(1800)
@given(st.data())
def test_behind_a_switch_that_does_not_answer_only_what_is_dark_is_taken_apart(data: st.DataObject) -> None:
    """All that the switches hold is to be gone, or a part of it; some of them cannot be changed."""
    network = data.draw(networks(divided=False))
    before = data.draw(holdings(network))
    assume(all(_module(network, way[-1]).role == "rx" for way in whole_ways(network, before)))
    staying = data.draw(st.sets(st.sampled_from(sorted(before))))
    leaving = {name: frozenset() if name in staying else items for name, items in before.items()}
    silent = data.draw(st.sets(st.sampled_from(sorted(before)), min_size=1))
    wanted = {name: before[name] - leaving[name] for name in before}
    diffs = [Diff(name, remove=tuple(items)) for name, items in leaving.items() if name not in silent and items]
    order = in_order(build(network), before, diffs, wanted, leaving)
    answering = [(name, item) for name, item in order.darkened if name not in silent]
    diffs += [Diff(name, add=(item,), remove=(item,)) for name, item in answering]
    now: dict[str, frozenset[Item]] = dict(before)
    kept: set[tuple[str, Item]] = set()
    allowed = prefixes(half_ways(network, before))
    for stage in stages(diffs, order):
        steps = [(name, item) for name, each in stage.items() for item in each.remove if not order.obstacle((name, item), now)]
        kept |= {(name, item) for name, each in stage.items() for item in each.remove} - {*steps}
        for name, item in data.draw(st.permutations(steps)):
            now[name] -= {item}
            assert half_ways(network, now).keys() <= allowed
    lit = {part for _, passed in ways(network, now) for part in passed}
    assert kept <= lit, "what is dark is held back by nobody"


def test_of_light_from_both_ends_both_are_put_out_first_and_lit_last() -> None:
    nodes = {
        **{name: Node(kind="end-node", modules={"m": Module(role="tx-rx")}) for name in ("west", "east")},
        **{name: Node(kind="optical-switch", ports=8) for name in ("a", "b", "c")},
    }
    network = Topology("row", nodes, [fibre("west:m", "a:1"), fibre("a:5", "b:1"), fibre("b:5", "c:1"), fibre("c:5", "east:m")])
    way = (CrossConnect(1, 5),)
    whole = {name: frozenset(way) for name in "abc"}
    dark: dict[str, frozenset[Item]] = dict.fromkeys("abc", frozenset())
    off = in_order(build(network), whole, [Diff(name, remove=way) for name in "abc"], {}, whole)
    assert [sorted(stage) for stage in stages([Diff(name, remove=way) for name in "abc"], off)] == [["a", "c"], ["b"]]
    on = in_order(build(network), {**dark, "b": frozenset()}, [Diff(name, add=way) for name in "abc"], {}, {})
    assert [sorted(stage) for stage in stages([Diff(name, add=way) for name in "abc"], on)] == [["b"], ["a", "c"]]


def test_where_nobody_has_told_what_sends_light_may_come_from_every_end() -> None:
    """Nor is anything removed in the middle while an end cannot be changed; a transmitter that is told of comes first."""
    switches = {name: Node(kind="optical-switch", ports=8) for name in ("a", "b", "c")}
    between = [fibre("a:5", "b:1"), fibre("b:5", "c:1")]
    way = (CrossConnect(1, 5),)
    diffs = [Diff(name, remove=way) for name in "abc"]
    whole = {name: frozenset(way) for name in "abc"}
    order = in_order(build(Topology("row", switches, between)), whole, diffs, {}, whole)
    assert [sorted(stage) for stage in stages(diffs, order)] == [["a", "c"], ["b"]]
    assert order.obstacle(("b", way[0]), whole | {"a": frozenset()}) == "c"
    assert order.obstacle(("b", way[0]), {"b": frozenset(way)}) == ""
    lamp = Node(kind="end-node", modules={"m": Module(role="tx")})
    told = Topology("row", {**switches, "lamp": lamp}, [*between, fibre("lamp:m", "a:1")])
    assert [sorted(stage) for stage in stages(diffs, in_order(build(told), whole, diffs, {}, whole))] == [["a"], ["b", "c"]]


def test_what_other_light_needs_is_not_darkened() -> None:
    """A splitter behind the join that stays: one branch is led elsewhere, the other one serves."""
    nodes = {
        "lamp": Node(kind="end-node", modules={"m": Module(role="tx")}),
        **{name: Node(kind="end-node", modules={"m": Module(role="rx")}) for name in ("r1", "r2", "r3")},
        "p": Node(kind="passive", ports=3, losses_db={"1-3": 0.4, "2-3": 0.4}),
        **{name: Node(kind="optical-switch", ports=8) for name in ("a", "b", "c")},
    }
    pairs = [("lamp:m", "a:1"), ("a:5", "p:3"), ("p:1", "b:1"), ("p:2", "c:1"), ("b:5", "r1:m"), ("b:6", "r2:m"), ("c:5", "r3:m")]
    network = Topology("branches", nodes, [fibre(*pair) for pair in pairs])
    stays, old, new = CrossConnect(1, 5), CrossConnect(1, 5), CrossConnect(1, 6)
    for other, darkened in ((frozenset({CrossConnect(1, 5)}), set()), (frozenset[CrossConnect](), {("a", stays)})):
        held = {"a": frozenset({stays}), "b": frozenset({old}), "c": other}
        order = in_order(build(network), held, [Diff("b", add=(new,), remove=(old,))], {**held, "b": {new}}, {"b": {old}})
        assert order.darkened == darkened
        assert order.behind.get(("b", old), set()) == darkened


def test_light_of_one_colour_does_not_hold_back_what_only_another_passes() -> None:
    nodes = {
        **{
            colour: Node(kind="end-node", modules={"m": Module(role="tx", wavelength_nm=nm)})
            for colour, nm in (("red", RED), ("blue", BLUE))
        },
        **{name: Node(kind="optical-switch", ports=8) for name in ("a", "b")},
        "p": Node(kind="passive", ports=3, losses_db={"1-3": 0.4, "2-3": 0.4}),
        "w": Node(kind="wavelength-switch", ports=4),
    }
    pairs = [("red:m", "a:1"), ("blue:m", "b:1"), ("a:5", "p:1"), ("b:5", "p:2"), ("p:3", "w:1")]
    network = Topology("colours", nodes, [fibre(*pair) for pair in pairs])
    joined = CrossConnect(1, 5)
    of = {nm: MediaChannel(number, "1", str(number + 2), mhz_of(nm) - 9, mhz_of(nm) + 9) for number, nm in enumerate((RED, BLUE))}
    held: dict[str, frozenset[Item]] = {"a": frozenset({joined}), "b": frozenset({joined}), "w": frozenset(of.values())}
    diffs = [Diff("a", remove=(joined,)), Diff("w", remove=tuple(of.values()))]
    order = in_order(build(network), held, diffs, {}, held)
    gone = {**held, "a": frozenset[Item]()}
    assert (order.obstacle(("w", of[RED]), held), order.obstacle(("w", of[RED]), gone)) == ("a", "")
    assert (order.obstacle(("w", of[BLUE]), held), order.obstacle(("w", of[BLUE]), gone)) == ("b", "b")
