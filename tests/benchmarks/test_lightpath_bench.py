"""Lightpaths on plants of optical switches: one on 1,000 ports beside networkx, and 50 at once on 10 switches of 64 ports."""

from __future__ import annotations

import random
import statistics
import time

import networkx as nx
import pytest

from controller.network import events
from controller.network.model import Link, Module, Node
from controller.network.topology import Topology
from controller.routing.light.plant import build, crossing_loss_db
from controller.routing.lightpath import Bundle, Strand, assign, light


def mesh(ports: int, users: int, trunks: int, seed: int) -> Topology:
    """Ten single-sided switches in a ring with ten chords, bundles of parallel trunks, and transmitters and receivers at the rest."""
    draw = random.Random(seed)
    nodes: dict[str, Node] = {}
    free = {f"o{number}": iter(range(1, ports + 1)) for number in range(10)}
    for name in free:
        nodes[name] = Node(kind="optical-switch", ports=ports, sides="single", insertion_loss_db=1.0)
    pairs = {(f"o{number}", f"o{(number + 1) % 10}") for number in range(10)}
    while len(pairs) < 20:
        a, b = draw.sample(sorted(free), 2)
        if (b, a) not in pairs:
            pairs.add((a, b))
    links = [
        Link(kind="fibre", id=f"{a}-{b}-{n}", ends=(f"{a}:{next(free[a])}", f"{b}:{next(free[b])}"), length_km=draw.choice([5, 10, 17.3]))
        for a, b in sorted(pairs)
        for n in range(trunks)
    ]
    for name, rest in free.items():
        for number, port in zip(range(users), rest, strict=False):
            module = Module(role="rx" if number % 2 else "tx", port=f"{name}:{port}")
            nodes[f"u{name}-{number}"] = Node(kind="end-node", modules={"q": module})
    return Topology("mesh", nodes, links)


def ends(topology: Topology, seed: int) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    found = {role: [name for name, node in topology.nodes("end-node") if node.modules["q"].role == role] for role in ("tx", "rx")}
    for names in found.values():
        draw.shuffle(names)
    return found["tx"], found["rx"]


def port_graph(topology: Topology) -> nx.Graph[tuple[str, str]]:
    """Every port a node, every fibre and every crossing an edge."""
    graph: nx.Graph[tuple[str, str]] = nx.Graph()
    for glass in {id(each): each for each in build(topology).glass.values()}.values():
        graph.add_edge(glass.a, glass.b, loss=glass.loss_db)
    for name, node in topology.nodes("optical-switch"):
        ports = [port for _, port in build(topology).ports_of(name)]
        for a in ports:
            for b in ports:
                loss = crossing_loss_db(node, a, b) if a < b else None
                if loss is not None:
                    graph.add_edge((name, a), (name, b), loss=loss)
    return graph


def test_one_lightpath_on_a_thousand_ports() -> None:
    topology = mesh(100, 80, 5, 1)
    started = time.perf_counter()
    build(topology)
    compiled_s = time.perf_counter() - started
    graph, times, peer = port_graph(topology), [], []
    for src, dst in zip(*ends(topology, 2), strict=False):
        started = time.perf_counter()
        route = light(topology, src, dst)
        times.append(time.perf_counter() - started)
        if len(peer) < 10:
            started = time.perf_counter()
            loss = nx.dijkstra_path_length(graph, (src, "q"), (dst, "q"), weight="loss")
            peer.append(time.perf_counter() - started)
            assert route.loss_db == pytest.approx(loss)
    started = time.perf_counter()
    topology.apply(events.LinkStateChanged("o0-o1-0", up=False))
    build(topology)
    followed_s = time.perf_counter() - started
    print(
        f"\nlight, 1,000 ports: median {statistics.median(times) * 1e3:.2f} ms, worst {max(times) * 1e3:.2f} ms;"
        f" compiled in {compiled_s * 1e3:.1f} ms, a change followed in {followed_s * 1e3:.1f} ms;"
        f" networkx Dijkstra over ports {statistics.median(peer) * 1e3:.1f} ms"
    )
    assert statistics.median(times) < 0.005


@pytest.mark.parametrize("trunks", [2, 6])
def test_fifty_lightpaths_at_once(trunks: int) -> None:
    seconds = []
    for seed in range(3):
        topology = mesh(64, 20, trunks, seed)
        requests = [
            Bundle(f"{src}-{dst}", (Strand(src, dst),), priority=number % 2)
            for number, (src, dst) in enumerate(zip(*ends(topology, seed), strict=False))
        ][:50]
        started = time.perf_counter()
        found = assign(topology, requests)
        seconds.append(time.perf_counter() - started)
        print(f"\nassign, 10 x 64 ports, {trunks} trunks a pair: {seconds[-1]:.2f} s; {'; '.join(found.explanation)}; exact {found.exact}")
    assert statistics.median(seconds) < 1.0
