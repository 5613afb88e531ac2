"""Joint lightpaths held against every choice of every path, port by port, on small plants; the enumeration shares only `physics`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.network.model import Channel, Link, Module, Node
from controller.network.topology import Topology
from controller.physics.coexistence import DataChannel, SharedSpan, raman_noise
from controller.routing.light.joint import Assignment
from controller.routing.lightpath import Bundle, Strand, assign

Port = tuple[str, str]
GUARD_MHZ = 50_000


def mhz(nm: float) -> float:
    return 299_792_458 / nm * 1000


@dataclass(frozen=True)
class Ray:
    """One strand on one path at one wavelength."""

    bundle: str
    strand: Strand
    ports: tuple[Port, ...]
    fibres: tuple[tuple[str, bool, float, float], ...]
    """Link, whether along its ends, loss before it, loss after it."""
    crossings: tuple[tuple[Port, Port], ...]
    loss_db: float
    nm: float


def neighbour(topology: Topology, port: Port) -> tuple[Link, Port] | None:
    for link in topology.links("fibre"):
        ends = [(end.node, end.port or "") for end in (link.a, link.b)]
        if port in ends:
            return link, ends[1 - ends.index(port)]
    return None


def crossing(node: Node, port: str, other: str, nm: float) -> float | None:
    if node.kind == "passive":
        for name in (port, other):
            low, high = node.bands.get(name, (0, math.inf))
            if not low <= nm <= high:
                return None
        return node.losses_db.get(f"{port}-{other}", node.losses_db.get(f"{other}-{port}"))
    if node.kind == "wavelength-switch" or (node.kind == "optical-switch" and node.sides == "single"):
        return node.insertion_loss_db
    if node.kind == "optical-switch" and (int(port) <= (node.ports or 0) / 2) != (int(other) <= (node.ports or 0) / 2):
        return node.insertion_loss_db
    return None


def paths(topology: Topology, here: Port, dst: Port, nm: float, used: frozenset[Port]) -> Iterator[tuple[Any, ...]]:
    """Steps ("glass", link, along, loss, port) and ("inside", None, None, loss, port) from a port that light leaves over glass."""
    found = neighbour(topology, here)
    if found is None or found[1] in used:
        return
    link, there = found
    if any(abs(mhz(each.wavelength_nm) - mhz(nm)) < GUARD_MHZ - 2 for each in link.channels):
        return
    step = ("glass", link.id, (link.a.node, link.a.port) == here, link.loss_db, there)
    if there == dst:
        yield (step,)
        return
    node = topology.node(there[0])
    for number in range(1, (node.ports or 0) + 1):
        out = (there[0], str(number))
        inside = crossing(node, there[1], out[1], nm) if out != there and out not in used else None
        if inside is not None:
            for rest in paths(topology, out, dst, nm, used | {there, out}):
                yield (step, ("inside", None, None, inside, out), *rest)


def rays(topology: Topology, bundle: str, strand: Strand) -> list[Ray]:
    (src_node, src), (dst_node, dst) = strand.src.split("/"), strand.dst.split("/")
    sender, receiver = topology.node(src_node).modules[src], topology.node(dst_node).modules[dst]
    found = []
    for nm in strand.wavelengths_nm or (sender.wavelength_nm,):
        for steps in paths(topology, (src_node, src), (dst_node, dst), nm, frozenset({(src_node, src)})):
            total = sum(step[3] for step in steps)
            ports = ((src_node, src), *(step[4] for step in steps))
            so_far, fibres, crossings = 0.0, [], []
            for number, step in enumerate(steps):
                if step[0] == "glass":
                    fibres.append((step[1], step[2], so_far, total - so_far - step[3]))
                elif topology.node(step[4][0]).kind == "optical-switch":
                    crossings.append((ports[number], step[4]))
                so_far += step[3]
            limits = [each for each in (strand.max_loss_db, sender.max_loss_db, receiver.max_loss_db) if each is not None]
            if total <= min(limits, default=math.inf):
                found.append(Ray(bundle, strand, ports, tuple(fibres), tuple(crossings), total, nm))
    return found


def flooded(topology: Topology, ray: Ray, chosen: Sequence[Ray]) -> set[Port]:
    """Every port that a classical strand lights, with all optical switches set as chosen and the wavelength switches as for itself."""
    joined: dict[Port, set[Port]] = {}
    for each in chosen:
        for a, b in each.crossings:
            joined.setdefault(a, set()).add(b)
            joined.setdefault(b, set()).add(a)
    for a, b in pairwise(ray.ports):
        if a[0] == b[0] and topology.node(a[0]).kind == "wavelength-switch":
            joined.setdefault(a, set()).add(b)
            joined.setdefault(b, set()).add(a)
    seen: set[tuple[Port, str]] = set()
    todo = [(ray.ports[0], "leaves")]
    while todo:
        state = todo.pop()
        if state in seen:
            continue
        seen.add(state)
        port, what = state
        if what == "leaves":
            found = neighbour(topology, port)
            if found:
                todo.append((found[1], "arrives"))
            continue
        node = topology.node(port[0])
        if node.kind == "passive":
            outs = [(port[0], str(n)) for n in range(1, (node.ports or 0) + 1) if str(n) != port[1]]
            todo += [(out, "leaves") for out in outs if crossing(node, port[1], out[1], ray.nm) is not None]
        todo += [(out, "leaves") for out in joined.get(port, ())]
    return {port for port, _ in seen}


def noise_hz(topology: Topology, quantum: Ray, chosen: Sequence[Ray]) -> float:
    spans = []
    for link_id, along, _, after in quantum.fibres:
        link = topology.link(link_id)
        met = [DataChannel(each.wavelength_nm, each.launch_dbm, (each.direction == "forward") == along) for each in link.channels]
        for other in chosen:
            shares = other.bundle == quantum.bundle or not any(
                topology.node(end.node).kind == "optical-switch" and topology.node(far.node).kind == "optical-switch"
                for end, far in ((link.a, link.b),)
            )
            for fibre, its_along, before, _ in other.fibres:
                if other.strand.signal != "quantum" and fibre == link_id and shares:
                    met.append(DataChannel(other.nm, launch(topology, other) - before, its_along == along))
        spans.append(SharedSpan(link.length_km or 0.0, met, 0.2, 0.2, max(0.0, after)))
    return raman_noise(spans, quantum.nm, quantum.strand.filter_nm).photons_hz


def launch(topology: Topology, ray: Ray) -> float:
    return topology.node(ray.ports[0][0]).modules[ray.ports[0][1]].launch_dbm


def right(topology: Topology, chosen: Sequence[Ray]) -> bool:
    ends = [port for ray in chosen for port in (ray.ports[0], ray.ports[-1])]
    if len(set(ends)) < len(ends):
        return False
    holders: dict[Port, set[object]] = {}
    for ray in chosen:
        for pair in ray.crossings:
            for port in pair:
                holders.setdefault(port, set()).add((ray.bundle, frozenset(pair)))
    if any(len(each) > 1 for each in holders.values()):
        return False
    lights: dict[frozenset[Port], set[tuple[int, float]]] = {}
    for number, ray in enumerate(chosen):
        reached = set(ray.ports)
        if ray.strand.signal != "quantum":
            reached |= flooded(topology, ray, chosen)
            for node, name in reached:
                module = topology.node(node).modules.get(name)
                if module is not None and module.signal == "quantum" and module.role == "rx":
                    return False
            if any(port in holders for port in reached - set(ray.ports)):
                return False
        for port in reached:
            found = neighbour(topology, port)
            if found:
                lights.setdefault(frozenset({port, found[1]}), set()).add((number, ray.nm))
    for on_fibre in lights.values():
        if any(abs(mhz(a[1]) - mhz(b[1])) < GUARD_MHZ - 2 for a, b in combinations(on_fibre, 2)):
            return False
    return all(
        ray.strand.max_noise_hz is None or noise_hz(topology, ray, chosen) <= ray.strand.max_noise_hz * (1 + 1e-6)
        for ray in chosen
        if ray.strand.signal == "quantum"
    )


def best(topology: Topology, bundles: Sequence[Bundle]) -> tuple[tuple[int, ...], float]:
    """Most served of each priority, highest first, and the least loss with which that can be."""
    levels = sorted({bundle.priority for bundle in bundles}, reverse=True)
    found: list[tuple[tuple[int, ...], float]] = []

    def choose(number: int, chosen: list[Ray], counts: dict[int, int]) -> None:
        if number == len(bundles):
            found.append((tuple(-counts.get(level, 0) for level in levels), sum(ray.loss_db for ray in chosen)))
            return
        bundle = bundles[number]

        def strands(which: int, so_far: list[Ray]) -> None:
            if which == len(bundle.strands):
                counts[bundle.priority] = counts.get(bundle.priority, 0) + 1
                choose(number + 1, so_far, counts)
                counts[bundle.priority] -= 1
                return
            for ray in options[bundle.strands[which]]:
                if right(topology, [*so_far, ray]):
                    strands(which + 1, [*so_far, ray])

        strands(0, chosen)
        choose(number + 1, chosen, counts)

    options = {strand: rays(topology, bundle.name, strand) for bundle in bundles for strand in bundle.strands}
    choose(0, [], {})
    counts, loss = min(found)
    return tuple(-each for each in counts), loss


@st.composite
def plants(draw: st.DrawFn) -> Topology:
    """West and east each have a switch; quantum and service modules come to it by a filter or splitter, or each by itself."""
    kinds = st.sampled_from(["dual", "dual", "single", "wss", "wss"])
    links: list[Link] = []
    nodes: dict[str, Node] = {}
    service_nm = draw(st.sampled_from([1310, 1310, 1551]))

    def join(a: str, b: str, loss: float, **more: Any) -> None:
        links.append(Link(kind="fibre", id=f"{a}-{b}".replace(":", "."), ends=(a, b), loss_db=loss, length_km=loss / 0.2, **more))

    for side, role, outer in (("w", "tx", 1), ("e", "rx", 1)):
        kind = draw(kinds)
        if kind == "wss":
            nodes[f"{side}o"] = Node(kind="wavelength-switch", ports=10, insertion_loss_db=0.5)
        else:
            nodes[f"{side}o"] = Node(
                kind="optical-switch",
                ports=10,
                sides="single" if kind == "single" else None,
                insertion_loss_db=draw(st.sampled_from([0.5, 1])),
            )
        for user in "ab":
            modules = {
                "q": Module(role=role, wavelength_nm=1550),
                "s": Module(role=role, signal="service", wavelength_nm=service_nm, launch_dbm=0.0),
            }
            nodes[side + user] = Node(kind="end-node", modules=modules)
            mux = draw(st.sampled_from(["filter", "filter", "splitter", "none"]))
            if mux == "none":
                join(f"{side}{user}:q", f"{side}o:{outer}", 0.2)
                join(f"{side}{user}:s", f"{side}o:{outer + 1}", 0.2)
            else:
                bands = {"2": (1549.0, 1550.5), "3": (1300.0, 1320.0)} if mux == "filter" else {}
                nodes[f"{side}{user}m"] = Node(kind="passive", ports=3, losses_db={"1-2": 1.0, "1-3": 1.5}, bands=bands)
                join(f"{side}{user}:q", f"{side}{user}m:2", 0.1)
                join(f"{side}{user}:s", f"{side}{user}m:3", 0.1)
                join(f"{side}{user}m:1", f"{side}o:{outer}", draw(st.sampled_from([0.2, 1.0])))
            outer += 2
    for number in range(draw(st.integers(1, 3))):
        lit = draw(st.lists(st.sampled_from([1552.0, 1549.9, 1560.0]), max_size=1))
        channels = tuple(Channel(wavelength_nm=nm, launch_dbm=-20, direction=draw(st.sampled_from(["forward", "backward"]))) for nm in lit)
        join(f"wo:{6 + number}", f"eo:{6 + number}", draw(st.sampled_from([2.0, 2.0, 5.0])), channels=channels)
    return Topology("random", nodes, links)


@st.composite
def wishes(draw: st.DrawFn) -> list[Bundle]:
    floor = st.sampled_from([None, None, 1e3, 1e5, 1e7])
    pairs = draw(st.sampled_from([["aa", "bb"], ["ab", "ba"], ["aa", "ab", "bb"]]))
    bundles = []
    for number, pair in enumerate(pairs):
        src, dst = pair[0], pair[1]
        quantum = Strand(f"w{src}/q", f"e{dst}/q", max_noise_hz=draw(floor), max_loss_db=draw(st.sampled_from([None, 7.0])))
        nms = draw(st.sampled_from([(), (1310.0, 1312.0)]))
        service = Strand(f"w{src}/s", f"e{dst}/s", "service", wavelengths_nm=nms)
        strands = draw(st.sampled_from([(quantum,), (quantum, service), (quantum, service), (service,)]))
        bundles.append(Bundle(f"{number}{src}{dst}", strands, draw(st.integers(0, 1))))
    return bundles


def counted(bundles: Sequence[Bundle], found: Assignment) -> tuple[int, ...]:
    levels = sorted({bundle.priority for bundle in bundles}, reverse=True)
    return tuple(sum(bundle.priority == level and bundle.name in found.served for bundle in bundles) for level in levels)


@given(plants(), wishes())
def test_no_assignment_serves_more_or_loses_less(topology: Topology, bundles: list[Bundle]) -> None:
    found = assign(topology, bundles, candidates=500)
    assert found.exact
    assert set(found.served) | set(found.refused) == {bundle.name for bundle in bundles}
    assert not set(found.served) & set(found.refused)
    counts, loss = best(topology, bundles)
    assert counted(bundles, found) == counts, found.refused
    assert sum(each.loss_db for each in found.served.values()) == pytest.approx(loss, abs=1e-6)


@given(plants(), wishes(), st.integers(1, 3))
def test_what_is_served_is_right(topology: Topology, bundles: list[Bundle], candidates: int) -> None:
    """No port used twice, no classical light in a quantum receiver, the guard kept, losses as added up, whatever the candidates."""
    found = assign(topology, bundles, candidates=candidates)
    chosen = []
    for bundle in bundles:
        for told in found.served[bundle.name].strands if bundle.name in found.served else ():
            ports = tuple((node, port) for node, port in (text.split(":") for text in told.route.ports))
            (ray,) = [ray for ray in rays(topology, bundle.name, told.strand) if ray.ports == ports and ray.nm == told.route.wavelength_nm]
            assert told.route.loss_db == pytest.approx(ray.loss_db)
            assert told.route.links == tuple(fibre[0] for fibre in ray.fibres)
            assert len(told.route.cross_connects) == len(ray.crossings)
            assert len(told.route.media_channels) == sum(
                topology.node(a[0]).kind == "wavelength-switch" and a[0] == b[0] for a, b in pairwise(ports)
            )
            chosen.append((ray, told))
    assert right(topology, [ray for ray, _ in chosen])
    for ray, told in chosen:
        if ray.strand.signal == "quantum":
            assert told.noise_hz == pytest.approx(noise_hz(topology, ray, [each for each, _ in chosen]), rel=1e-6)
    assert "NaN" not in str(found.to_json()) and "inf" not in str(found.to_json())
