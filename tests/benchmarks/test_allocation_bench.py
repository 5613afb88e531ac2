"""Allocation of demand matrices on random geometric networks. networkx has no multi-commodity flow; its maximum flow stands beside one demand."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest

from controller.network.model import Link, Node
from controller.network.topology import Topology
from controller.routing.keys.allocation import Demand, allocate
from controller.routing.keys.segments import key_segments
from controller.routing.keys.splitting import split
from controller.routing.keys.supply import KeySupply, Wish


def metropolis(nodes: int, links: int, seed: int) -> Topology:
    """A connected random geometric network of about so many QKD links, whose rates fall with distance and vary."""
    chance = random.Random(seed)
    radius = math.sqrt(2 * links / nodes / (math.pi * nodes))
    while True:
        graph = nx.random_geometric_graph(nodes, radius, seed=chance.randrange(2**31))
        if nx.is_connected(graph):
            break
        radius *= 1.02
    names = {f"n{number}": Node(kind="trusted-node") for number in graph}
    return Topology(
        "random geometric",
        names,
        [Link(kind="qkd", id=f"q{a}-{b}", ends=(f"n{a}", f"n{b}"), rate_bps=chance.lognormvariate(8, 1)) for a, b in graph.edges],
    )


def matrix(topology: Topology, count: int, rate_bps: float, seed: int, **policy: Any) -> list[Demand]:
    chance, names = random.Random(seed), sorted(topology.graph)
    return [Demand(*chance.sample(names, 2), rate_bps, **policy) for _ in range(count)]


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("nodes", "links", "demands"), [(100, 400, 20), (1000, 4000, 100)])
def test_demand_matrices(nodes: int, links: int, demands: int) -> None:
    topology = metropolis(nodes, links, seed=3)
    print(f"\n{nodes} nodes, {len(list(topology.links()))} links, {demands} demands")
    for rate_bps in (256.0, 1e3, 1e4):
        for objective in ("throughput", "max-min"):
            for bound in (None, 8):
                asked = matrix(topology, demands, rate_bps, seed=5, max_trusted_nodes=bound)
                spent, found = seconds(lambda asked=asked, objective=objective: allocate(topology, asked, objective=objective))
                met = sum(not grant.held_by and grant.refusal is None for grant in found.grants)
                print(
                    f"  {objective:10} of {rate_bps:7g} bit/s, at most {bound or 'any'} trusted nodes: {spent:7.2f} s,"
                    f" {found.throughput_bps:9.6g} bit/s, {met} met, gap {found.gap:.1e}, excess {found.excess:.2g}"
                )
                assert found.gap < 1e-7


def test_one_demand_beside_networkx() -> None:
    topology = metropolis(1000, 4000, seed=3)
    flow: nx.Graph[str] = nx.Graph()
    for link in topology.links():
        flow.add_edge(*link.nodes, capacity=link.rate_bps)
    (demand,) = matrix(topology, 1, math.inf, seed=6)
    ours, found = seconds(lambda: allocate(topology, [demand]))
    theirs, value = seconds(lambda: nx.maximum_flow_value(flow, demand.src, demand.dst))
    print(f"\none demand, 1000 nodes: {1e3 * ours:.0f} ms, networkx maximum flow {1e3 * theirs:.0f} ms")
    assert found.throughput_bps == pytest.approx(value, rel=1e-9)


def test_split_over_few_paths() -> None:
    topology = metropolis(1000, 4000, seed=3)
    (demand,) = matrix(topology, 1, math.inf, seed=6)
    wish = Wish(demand.src, demand.dst, None, frozenset())
    supply = KeySupply(topology, [wish], lambda avoid: key_segments(topology, reserved={}, avoid=avoid))
    print()
    for paths in (1, 2, 4, 8):
        spent, found = seconds(lambda paths=paths: split(supply, wish, paths))
        print(f"split over {paths} paths, 1000 nodes: {1e3 * spent:.0f} ms, {found.rate_bps:.6g} bit/s, at most {found.bound_bps:.6g}")
        assert found.rate_bps <= found.bound_bps * (1 + 1e-9)
