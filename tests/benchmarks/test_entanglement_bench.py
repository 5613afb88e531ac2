"""How long entanglement routes take: medians over pairs of nodes, as multiples of one scipy Dijkstra in -ln w over the same links.

Time is that of the processor, so that other work on the machine troubles little; it is printed, never asserted. The figures are held against
networkx: the highest rate where swaps never fail is that of the widest path.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import networkx as nx
import numpy as np
import pytest
from scipy.sparse import csgraph, csr_array
from test_routing_bench import Drawn, geometric, real, waxman

from controller.network.events import LinkMeasured
from controller.network.model import Link, Node, Swap
from controller.network.topology import Topology
from controller.routing.entanglement import EntanglementRoute, entanglement
from controller.routing.refusal import NoRoute

PAIRS = 9
SWAPS = {
    "never fail": lambda rng: Swap(fidelity=0.999),
    "all succeed in 0.9": lambda rng: Swap(success=0.9, fidelity=0.999),
    "succeed in 0.5 to 1": lambda rng: Swap(success=rng.uniform(0.5, 1), fidelity=0.999),
}


def network(drawn: Drawn, swaps: str) -> Topology:
    """Repeaters with memories of T2 = 10 s; links of 1 to 1,000 Hz and fidelity 0.95 to 1."""
    rng = np.random.default_rng(7)
    nodes = {f"r{number}": Node(kind="repeater", t2_s=10, swap=SWAPS[swaps](rng)) for number in range(drawn.nodes)}
    figures = zip(rng.uniform(1, 1000, len(drawn.ends)).tolist(), rng.uniform(0.95, 1, len(drawn.ends)).tolist(), strict=True)
    return Topology(
        drawn.name,
        nodes,
        [
            Link(kind="entanglement", id=f"l{number}", ends=(f"r{a}", f"r{b}"), rate_hz=rate, fidelity=fidelity)
            for number, ((a, b), (rate, fidelity)) in enumerate(zip(drawn.ends.tolist(), figures, strict=True))
        ],
    )


class Bench:
    def __init__(self, drawn: Drawn, swaps: str) -> None:
        self.topology = network(drawn, swaps)
        links = list(self.topology.links("entanglement"))
        weights = -np.log((4 * np.array([link.fidelity for link in links]) - 1) / 3)
        both = np.concatenate((drawn.ends, drawn.ends[:, ::-1]))
        self.matrix = csr_array((np.concatenate((weights, weights)), both.T), shape=(drawn.nodes, drawn.nodes))
        self.pairs = [(int(a), int(b)) for a, b in np.random.default_rng(2).integers(0, drawn.nodes, (4 * PAIRS, 2)) if a != b][:PAIRS]
        begun = time.process_time()
        entanglement(self.topology, *self.names(self.pairs[0]))
        cold_s = time.process_time() - begun
        self.topology.apply(LinkMeasured("l0", "rate_hz", 77.0))
        begun = time.process_time()
        entanglement(self.topology, *self.names(self.pairs[0]))
        changed_s = time.process_time() - begun
        yardstick = statistics.median(self.yardstick(a) for a, _ in self.pairs)
        print(f"\n{drawn.name}: {drawn.nodes} nodes, {len(drawn.ends)} links, swaps {swaps}; one Dijkstra {1e3 * yardstick:.1f} ms")
        print(f"  first route, arrays compiled {cold_s:.2f} s; first after a link changed {changed_s / yardstick:.1f} x")

    def names(self, pair: tuple[int, int]) -> tuple[str, str]:
        return f"r{pair[0]}", f"r{pair[1]}"

    def yardstick(self, source: int) -> float:
        begun = time.process_time()
        csgraph.dijkstra(self.matrix, indices=source, return_predecessors=True)
        return time.process_time() - begun

    def row(self, name: str, goal: str, run: Callable[[str, str], EntanglementRoute]) -> dict[tuple[int, int], EntanglementRoute]:
        """Measure and print one line; what was found, by pair."""
        found, ratios = {}, []
        for pair in self.pairs:
            yardstick = statistics.median(self.yardstick(pair[0]) for _ in range(3))
            begun = time.process_time()
            try:
                found[pair] = run(*self.names(pair))
            except NoRoute:
                continue
            ratios.append((time.process_time() - begun) / yardstick)
        if ratios:
            unproven = sum(any("bound on its effort" in line for line in route.explanation) for route in found.values())
            figures = f"median {statistics.median(ratios):7.1f} x   worst {max(ratios):7.1f} x"
            print(f"  {name:42} {figures}   {len(ratios)} of {PAIRS} routed, {unproven} not proven   (goal {goal})")
        return found


def rows(bench: Bench) -> None:
    t = bench.topology
    bench.row("highest fidelity", "3", lambda a, b: entanglement(t, a, b, min_rate_hz=0))
    fastest = bench.row("highest rate", "3", lambda a, b: entanglement(t, a, b))
    bench.row("fidelity >= 0.8, purified, buffered", "30", lambda a, b: entanglement(t, a, b, min_fidelity=0.8))
    bench.row("fidelity >= 0.95, purified, buffered", "30", lambda a, b: entanglement(t, a, b, min_fidelity=0.95))
    rates = {bench.names(pair): route.rate_hz for pair, route in fastest.items()}
    bench.row("a tenth of the highest rate, buffered", "-", lambda a, b: entanglement(t, a, b, min_rate_hz=rates[a, b] / 10))
    bench.row("highest rate, on demand", "60", lambda a, b: entanglement(t, a, b, model="on-demand"))
    bench.row("fidelity >= 0.4, on demand", "60", lambda a, b: entanglement(t, a, b, min_fidelity=0.4, model="on-demand"))


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("swaps", SWAPS)
@pytest.mark.parametrize("draw", [lambda: geometric(10_000, 6.8), lambda: waxman(10_000, 6.1)], ids=["geometric", "waxman"])
def test_ten_thousand_nodes(draw: Callable[[], Drawn], swaps: str) -> None:
    bench = Bench(draw(), swaps)
    rows(bench)
    if swaps != "never fail":
        return
    graph = nx.Graph()
    for link in bench.topology.links("entanglement"):
        figure = bench.topology.figure(link, "rate_hz")
        assert figure is not None
        graph.add_edge(*link.nodes, rate=figure.value, cost=1 / figure.value)
    begun = time.process_time()
    nx.shortest_path(graph, *bench.names(bench.pairs[0]), weight="cost")
    print(f"  networkx, one shortest path: {(time.process_time() - begun) / bench.yardstick(bench.pairs[0][0]):.0f} x")
    tree = nx.maximum_spanning_tree(graph, weight="rate")
    for pair in bench.pairs:
        a, b = bench.names(pair)
        widest = min(graph.edges[hop]["rate"] for hop in nx.utils.pairwise(nx.shortest_path(tree, a, b)))
        assert entanglement(bench.topology, a, b).rate_hz == pytest.approx(widest)


@pytest.mark.timeout(1_800)
def test_a_hundred_thousand_nodes() -> None:
    bench = Bench(geometric(100_000, 8), "never fail")
    t = bench.topology
    found = bench.row("highest fidelity", "4", lambda a, b: entanglement(t, a, b, min_rate_hz=0))
    found |= bench.row("highest rate", "4", lambda a, b: entanglement(t, a, b))
    assert len(found) == PAIRS


@pytest.mark.parametrize("name", ["sndlib/germany50", "backbone/europe"])
def test_real_networks(name: str) -> None:
    rows(Bench(real(name), "succeed in 0.5 to 1"))
