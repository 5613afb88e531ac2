"""How long classical and key routes take, beside networkx and scipy: milliseconds, and how many times one scipy Dijkstra of the same graph.

Each figure is the median over pairs of nodes of the median of a few runs, taken in turn with the yardstick. Time is that of the processor, so
that other work on the machine troubles little. Ratios are printed, never asserted; what is found is held against the peers'.
"""

from __future__ import annotations

import importlib.resources
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import networkx as nx
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csgraph, csr_array
from scipy.spatial import cKDTree

from controller.network.events import LinkMeasured
from controller.network.model import Link, Node
from controller.network.topology import Topology
from controller.routing.classical import classical, disjoint_pair, k_shortest
from controller.routing.compiled import compiled
from controller.routing.key_relay import key
from controller.routing.keys.promised import Promised
from controller.routing.refusal import NoRoute

PAIRS = 7
RUNS = 5
KM_PER_MS = 204.0
REAL = ("sndlib/germany50", "topozoo/TataNld", "backbone/europe", "backbone/world")


@dataclass(frozen=True)
class Drawn:
    """A connected graph: ends and length of each edge."""

    name: str
    nodes: int
    ends: NDArray[np.int64]
    length_km: NDArray[np.float64]


def geometric(nodes: int, degree: float) -> Drawn:
    at = np.random.default_rng(nodes).random((nodes, 2))
    ends = cKDTree(at).query_pairs(np.sqrt(degree / (np.pi * nodes)), output_type="ndarray")
    return largest_part(f"geometric {nodes}", nodes, ends, 1000 * np.linalg.norm(at[ends[:, 0]] - at[ends[:, 1]], axis=1))


def waxman(nodes: int, degree: float, alpha: float = 0.1) -> Drawn:
    rng = np.random.default_rng(nodes)
    at, found, expected = rng.random((nodes, 2)), [], 0.0
    sample = rng.random((2000, 4))
    expected = np.exp(-np.hypot(*(sample[:, :2] - sample[:, 2:]).T) / (alpha * np.sqrt(2))).mean()
    for start in range(0, nodes, 1000):
        block = at[start : start + 1000]
        length = np.hypot(block[:, None, 0] - at[None, :, 0], block[:, None, 1] - at[None, :, 1])
        one, other = np.nonzero(rng.random(length.shape) < degree / nodes / expected * np.exp(-length / (alpha * np.sqrt(2))))
        found.append(np.column_stack((one + start, other))[other > one + start])
    ends = np.concatenate(found)
    return largest_part(f"Waxman {nodes}", nodes, ends, 1000 * np.linalg.norm(at[ends[:, 0]] - at[ends[:, 1]], axis=1))


def largest_part(name: str, nodes: int, ends: NDArray[np.int64], length_km: NDArray[np.float64]) -> Drawn:
    _, part = csgraph.connected_components(csr_array((np.ones(len(ends)), ends.T), shape=(nodes, nodes)), directed=False)
    inside = part == np.bincount(part).argmax()
    number = np.cumsum(inside) - 1
    keep = inside[ends[:, 0]]
    return Drawn(name, int(inside.sum()), number[ends[keep]], length_km[keep])


def real(name: str) -> Drawn:
    topohub = pytest.importorskip("topohub")
    told = json.loads((importlib.resources.files(topohub) / "data" / f"{name}.json").read_text())  # topohub.get leaves the file open
    number = {node["id"]: index for index, node in enumerate(told["nodes"])}
    edges = [(number[edge["source"]], number[edge["target"]], edge["dist"]) for edge in told.get("edges", told.get("links"))]
    ends = np.array([edge[:2] for edge in edges])
    return largest_part(name, len(number), ends, np.array([float(edge[2]) for edge in edges]))


def network(drawn: Drawn) -> Topology:
    """Switches that are trusted nodes too would be no node of the model: one network of switches, one of trusted nodes, side by side."""
    rates = np.random.default_rng(1).random(len(drawn.ends)) * 1e4 + 1
    nodes = {f"t{number}": Node(kind="trusted-node") for number in range(drawn.nodes)}
    nodes |= {f"s{number}": Node(kind="openflow-switch", dpid=f"{number:016x}") for number in range(drawn.nodes)}
    links = []
    for number, ((a, b), km, rate) in enumerate(zip(drawn.ends.tolist(), drawn.length_km.tolist(), rates.tolist(), strict=True)):
        links.append(Link(kind="qkd", id=f"q{number}", ends=(f"t{a}", f"t{b}"), rate_bps=rate))
        links.append(Link(kind="ethernet", id=f"e{number}", ends=(f"s{a}:{number}", f"s{b}:{number}"), latency_ms=km / KM_PER_MS))
    return Topology(drawn.name, nodes, links)


class Bench:
    def __init__(self, drawn: Drawn) -> None:
        self.drawn = drawn
        self.topology = network(drawn)
        begun = time.perf_counter()
        arrays = compiled(self.topology)
        arrays.figure(self.topology, "ethernet", "latency_ms")
        arrays.figure(self.topology, "qkd", "rate_bps")
        self.compile_ms = 1e3 * (time.perf_counter() - begun)
        lengths = np.maximum(drawn.length_km, 1e-6) / KM_PER_MS
        ends, both = drawn.ends, np.concatenate((drawn.ends, drawn.ends[:, ::-1])).astype(np.int32)
        self.matrix = csr_array((np.concatenate((lengths, lengths)), both.T), shape=(drawn.nodes, drawn.nodes))
        self.graph = nx.Graph()
        self.graph.add_weighted_edges_from(zip(*ends.T.tolist(), lengths.tolist(), strict=True))
        self.pairs = np.random.default_rng(2).integers(0, drawn.nodes, (PAIRS, 2)).tolist()
        self.pairs = [(a, b if b != a else (a + 1) % drawn.nodes) for a, b in self.pairs]

    def dijkstra(self, source: int) -> Any:
        return csgraph.dijkstra(self.matrix, indices=source, return_predecessors=True)

    def row(self, name: str, run: Callable[[int, int], object], pairs: int = PAIRS, runs: int = RUNS) -> None:
        """Measure and print one line; pairs without a route are left out."""
        ours, yardstick = [], []
        for a, b in self.pairs[:pairs]:
            try:
                run(a, b)
            except NoRoute:
                continue
            both = [(took(lambda a=a: self.dijkstra(a)), took(lambda a=a, b=b: run(a, b))) for _ in range(runs)]  # type: ignore[misc]
            yardstick.append(statistics.median(each for each, _ in both))
            ours.append(statistics.median(each for _, each in both))
        if not ours:
            print(f"  {name:<44} no pair has one")
            return
        median, one = statistics.median(ours), statistics.median(yardstick)
        print(f"  {name:<44}{median:10.2f} ms {median / one:9.2f} x")


def took(run: Callable[[], object]) -> float:
    begun = time.thread_time()
    run()
    return 1e3 * (time.thread_time() - begun)


def exhaust(paths: Iterable[object], count: int) -> list[object]:
    return [path for path, _ in zip(paths, range(count), strict=False)]


def measure(drawn: Drawn) -> None:
    bench = Bench(drawn)
    topology, small = bench.topology, drawn.nodes <= 2000
    nodes, edges = bench.matrix.shape[0], len(drawn.ends)
    print(f"\n{drawn.name}: {nodes} nodes, {edges} links; arrays compiled in {bench.compile_ms:.0f} ms")
    bench.row("scipy: one Dijkstra with predecessors", lambda a, b: bench.dijkstra(a))
    bench.row("networkx: Dijkstra from one node to one", lambda a, b: nx.dijkstra_path(bench.graph, a, b), 3, 1)
    bench.row("classical: best", lambda a, b: classical(topology, f"s{a}", f"s{b}"))
    bench.row("classical: eight shortest", lambda a, b: k_shortest(topology, f"s{a}", f"s{b}", 8))
    if nodes <= 20_000:
        bench.row("  scipy: yen", lambda a, b: csgraph.yen(bench.matrix, a, b, 8), 3, 1)
    if small:
        bench.row("  networkx: shortest_simple_paths", lambda a, b: exhaust(nx.shortest_simple_paths(bench.graph, a, b, "weight"), 8), 3, 1)
    bench.row("classical: two node-disjoint", lambda a, b: disjoint_pair(topology, f"s{a}", f"s{b}"))
    bench.row("classical: two link-disjoint", lambda a, b: disjoint_pair(topology, f"s{a}", f"s{b}", by="link"))
    if small:
        bench.row("  networkx: two node-disjoint, not the shortest", lambda a, b: two_disjoint(bench.graph, a, b), 3, 1)

    rates = iter(np.linspace(1, 2, 100_000).tolist())

    def cold(a: int, b: int) -> object:
        topology.apply(LinkMeasured("q0", "rate_bps", next(rates)))
        compiled(topology)  # the arrays follow, and what was computed from them is gone
        return key(topology, f"t{a}", f"t{b}")

    bench.row("key: widest, first of a revision", cold)
    bench.row("key: widest, kept", lambda a, b: key(topology, f"t{a}", f"t{b}"))
    bench.row("  scipy: minimum_spanning_tree alone", lambda a, b: csgraph.minimum_spanning_tree(bench.matrix), 3, 1)
    bench.row("  networkx: maximum_spanning_tree alone", lambda a, b: nx.maximum_spanning_tree(bench.graph), 1, 1)
    promised = {"q1": 1.0}
    bench.row("key: widest, some promised", lambda a, b: key(topology, f"t{a}", f"t{b}", reserved=promised))
    fewest = partial(key, topology, prefer="fewest-trusted-nodes")
    bench.row("key: fewest trusted nodes, kept", lambda a, b: fewest(f"t{a}", f"t{b}", rate_bps=100))
    followed = Promised(dict.fromkeys((f"q{number}" for number in range(edges)), 1.0))

    def promises_change(a: int, b: int) -> object:
        followed["q0"] = next(rates)
        return fewest(f"t{a}", f"t{b}", rate_bps=100, reserved=followed)

    bench.row("key: fewest, every link promised, one changed", promises_change)
    bench.row("key: widest, at most 20 trusted nodes", lambda a, b: key(topology, f"t{a}", f"t{b}", max_trusted_nodes=20))
    bench.row("key: two disjoint", lambda a, b: key(topology, f"t{a}", f"t{b}", shares=2))
    bench.row("key: three disjoint", lambda a, b: key(topology, f"t{a}", f"t{b}", shares=3))

    for a, b in bench.pairs[:3]:
        best = classical(topology, f"s{a}", f"s{b}")
        assert best.latency_ms == pytest.approx(bench.dijkstra(a)[0][b], rel=1e-6, abs=1e-6)


def two_disjoint(graph: nx.Graph[int], a: int, b: int) -> object:
    try:
        return list(nx.node_disjoint_paths(graph, a, b, cutoff=2))
    except nx.NetworkXException:
        return None


@pytest.mark.parametrize("name", REAL)
def test_real_networks(name: str) -> None:
    measure(real(name))


@pytest.mark.parametrize("nodes", [1_000, 10_000])
@pytest.mark.timeout(600)
def test_geometric(nodes: int) -> None:
    measure(geometric(nodes, 6.8))


@pytest.mark.parametrize("nodes", [1_000, 10_000])
@pytest.mark.timeout(600)
def test_waxman(nodes: int) -> None:
    measure(waxman(nodes, 6.1))


@pytest.mark.timeout(900)
def test_a_hundred_thousand_nodes() -> None:
    measure(geometric(100_000, 8.0))
