"""Many entanglement requests in one slot: the expected ebits of a path, what a selection may take, how good it is, who may use which link."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.routing.entangled.slotted import Edge, Reservation, SlottedNetwork, expected_ebits, select
from controller.routing.entangled.slotted_swaps import share_links

UNIFORM = {  # (hops, width) at p = 0.6, q = 0.9
    (1, 1): 0.6,
    (1, 2): 1.2,
    (1, 3): 1.8,
    (2, 1): 0.324,
    (2, 2): 0.75168,
    (2, 3): 1.2083904,
    (3, 1): 0.17496,
    (3, 2): 0.5178816,
    (3, 3): 0.89278309,
}


@pytest.mark.parametrize(("hops", "width"), UNIFORM)
def test_expected_ebits_of_uniform_paths(hops: int, width: int) -> None:
    assert expected_ebits([0.6] * hops, [width] * hops, 0.9) == pytest.approx(UNIFORM[hops, width], abs=1e-8)


@given(
    st.lists(st.tuples(st.floats(0.05, 1), st.integers(1, 6)), min_size=1, max_size=5),
    st.floats(0.5, 1),
)
def test_expected_ebits_follow_from_the_distribution_of_the_poorest_edge(path: list[tuple[float, int]], q: float) -> None:
    """The paper's recursion over edges, with unequal widths padded by impossible counts."""
    widest = max(width for _, width in path)
    least: list[float] | None = None
    for p, width in path:
        mass = [math.comb(width, i) * p**i * (1 - p) ** (width - i) if i <= width else 0.0 for i in range(widest + 1)]
        if least is None:
            least = mass
        else:
            least = [least[i] * sum(mass[i:]) + mass[i] * sum(least[i + 1 :]) for i in range(widest + 1)]
    assert least is not None
    expected = q ** (len(path) - 1) * sum(i * chance for i, chance in enumerate(least))
    assert expected_ebits([p for p, _ in path], [width for _, width in path], q) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_simulated_ebits_of_a_path_are_the_expected() -> None:
    p, widths, q, slots = [0.4, 0.7, 0.55], [5, 3, 4], 0.9, 200_000
    rng = np.random.default_rng(7)
    chains = np.min([rng.binomial(width, chance, slots) for width, chance in zip(widths, p, strict=True)], axis=0)
    delivered = rng.binomial(chains, q**2)
    assert delivered.mean() == pytest.approx(expected_ebits(p, widths, q), abs=4 * delivered.std() / math.sqrt(slots))


@st.composite
def networks(draw: st.DrawFn) -> tuple[SlottedNetwork, list[tuple[int, int]]]:
    n = draw(st.integers(2, 9))
    qubits = draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))
    joined = draw(st.lists(st.sampled_from(list(itertools.combinations(range(n), 2))), unique=True, max_size=14))
    edges = [Edge(a, b, draw(st.integers(0, 5)), draw(st.floats(0.05, 1))) for a, b in joined]
    ends = st.lists(st.integers(0, n - 1), min_size=2, max_size=2, unique=True)
    requests = [(pair[0], pair[1]) for pair in draw(st.lists(ends, max_size=5))]
    return SlottedNetwork(qubits, edges, draw(st.floats(0.5, 1))), requests


@given(networks())
def test_a_selection_is_made_of_paths_within_qubits_and_channels(case: tuple[SlottedNetwork, list[tuple[int, int]]]) -> None:
    network, requests = case
    qubits: Counter[int] = Counter()
    channels: Counter[int] = Counter()
    for path in select(network, requests):
        assert (path.nodes[0], path.nodes[-1]) == requests[path.request]
        assert len(set(path.nodes)) == len(path.nodes)
        for pair, index, count in zip(itertools.pairwise(path.nodes), path.edges, path.channels, strict=True):
            edge = network.edges[index]
            assert set(pair) == {edge.a, edge.b} and count >= 1
            channels[index] += count
            qubits.update({edge.a: count, edge.b: count})
        figures = [network.edges[index].p for index in path.edges]
        assert path.ebits == pytest.approx(expected_ebits(figures, path.channels, network.swap), rel=1e-6)
    assert all(count <= network.qubits[node] for node, count in qubits.items())
    assert all(count <= network.edges[index].channels for index, count in channels.items())


@given(networks())
def test_a_request_goes_without_only_where_no_path_is_left(case: tuple[SlottedNetwork, list[tuple[int, int]]]) -> None:
    network, requests = case
    paths = select(network, requests)
    qubits, channels = list(network.qubits), [edge.channels for edge in network.edges]
    for path in paths:
        for index, count in zip(path.edges, path.channels, strict=True):
            channels[index] -= count
            qubits[network.edges[index].a] -= count
            qubits[network.edges[index].b] -= count
    for source, target in requests:
        for nodes, edges in _simple_paths(network, source, target):
            free = min(channels[index] for index in edges) >= 1 and all(qubits[node] >= 2 for node in nodes[1:-1])
            assert not (free and qubits[source] and qubits[target])


def _simple_paths(network: SlottedNetwork, source: int, target: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    stack: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((source,), ())]
    while stack:
        nodes, edges = stack.pop()
        if nodes[-1] == target:
            yield nodes, edges
            continue
        for index, edge in enumerate(network.edges):
            if nodes[-1] in (edge.a, edge.b) and edge.a + edge.b - nodes[-1] not in nodes:
                stack.append(((*nodes, edge.a + edge.b - nodes[-1]), (*edges, index)))


def _best_possible(network: SlottedNetwork, requests: list[tuple[int, int]]) -> float:
    """Every set of paths with every number of channels on each edge. A path is used once: two of its kind are no better than one of both
    their channels."""
    paths = [edges for source, target in requests for _, edges in _simple_paths(network, source, target)]

    def best(number: int, qubits: tuple[int, ...], channels: tuple[int, ...]) -> float:
        if number == len(paths):
            return 0.0
        most = best(number + 1, qubits, channels)
        edges = paths[number]
        for counts in itertools.product(*(range(1, channels[index] + 1) for index in edges)):
            left, free = list(qubits), list(channels)
            for index, count in zip(edges, counts, strict=True):
                free[index] -= count
                left[network.edges[index].a] -= count
                left[network.edges[index].b] -= count
            if min(left) >= 0:
                own = expected_ebits([network.edges[index].p for index in edges], counts, network.swap)
                most = max(most, own + best(number + 1, tuple(left), tuple(free)))
        return most

    return best(0, network.qubits, tuple(edge.channels for edge in network.edges))


def test_tiny_selections_are_close_to_the_best_of_all() -> None:
    """On 60 random networks of 5 nodes and 6 edges the best in 52, 99.1 % of it on average, 87 % at worst."""
    ratios = []
    for seed in range(60):
        rng = random.Random(seed)
        joined = rng.sample(list(itertools.combinations(range(5), 2)), 6)
        network = SlottedNetwork(
            [rng.randint(2, 4) for _ in range(5)], [Edge(a, b, rng.randint(1, 2), rng.uniform(0.3, 0.9)) for a, b in joined], 0.9
        )
        ends = rng.sample(range(5), 4)
        requests = [(ends[0], ends[1]), (ends[2], ends[3])]
        best = _best_possible(network, requests)
        if best > 0:
            ratios.append(sum(path.ebits for path in select(network, requests)) / best)
    assert max(ratios) <= 1 + 1e-9
    assert np.mean(ratios) >= 0.985
    assert min(ratios) >= 0.85
    assert sum(ratio >= 1 - 1e-9 for ratio in ratios) >= 50


def test_widths_are_unequal_where_that_pays() -> None:
    network = SlottedNetwork([2, 8, 6], [Edge(0, 1, 5, 0.9), Edge(1, 2, 5, 0.3)], 0.9)
    (path,) = select(network, [(0, 2)])
    assert path.nodes == (0, 1, 2) and path.channels == (2, 5)


@pytest.mark.parametrize(
    ("qubits", "edges", "swap", "field"),
    [
        ([1, 1], [Edge(0, 1, 1, 0.5)], 0.0, "swap"),
        ([1, 1], [Edge(0, 1, 1, math.nan)], 0.9, r"edges\[0\].p"),
        ([1, 1], [Edge(0, 1, -1, 0.5)], 0.9, r"edges\[0\].channels"),
        ([1, -1], [], 0.9, r"qubits\[1\]"),
        ([1, 1], [Edge(0, 2, 1, 0.5)], 0.9, r"edges\[0\]"),
        ([1, 1], [Edge(0, 0, 1, 0.5)], 0.9, r"edges\[0\]"),
        ([1, 1], [Edge(0, 1, 1, 0.5), Edge(1, 0, 1, 0.5)], 0.9, r"edges\[1\] joins the same nodes as edges\[0\]"),
    ],
)
def test_bad_networks_are_refused_by_field(qubits: list[int], edges: list[Edge], swap: float, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        SlottedNetwork(qubits, edges, swap)


@pytest.mark.parametrize("request_", [(0, 0), (0, 2), (-1, 0)])
def test_bad_requests_are_refused(request_: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"requests\[0\]"):
        select(SlottedNetwork([1, 1], [Edge(0, 1, 1, 0.5)], 0.9), [request_])


def _path(edges: tuple[int, ...], channels: int) -> Reservation:
    return Reservation(0, tuple(range(len(edges) + 1)), edges, (channels,) * len(edges), 1.0)


def test_a_surplus_link_on_a_common_edge_goes_to_the_path_that_lacks_it() -> None:
    paths = [_path((0, 1), 3), _path((1, 2), 3)]
    assert share_links(paths, [(1, 3), (1, 3)]) == [(1, 1), (3, 3)]
    assert share_links(paths, [(1, 3), (1, 3)], k=1) == [(1, 3), (1, 3)]


def test_a_surplus_nobody_lacks_stays() -> None:
    assert share_links([_path((0, 1), 3), _path((1, 2), 3)], [(1, 3), (2, 2)]) == [(1, 3), (2, 2)]


def test_nobody_decides_on_links_beyond_k_hops() -> None:
    long = _path((0, 1, 2, 3, 4), 3)
    other = _path((0, 9), 3)
    for far in range(4):  # three edges and more away from the common edge 0
        shared = share_links([long, other], [(2, 2, 2, far, far), (1, 3)], k=3)
        assert (shared[0][0], shared[1][0]) == (2, 1)


@given(st.data())
def test_sharing_keeps_every_link_once_and_every_paths_chains(data: st.DataObject) -> None:
    paths = [
        _path(tuple(data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=5, unique=True))), 4)
        for _ in range(data.draw(st.integers(1, 5)))
    ]
    links = [tuple(data.draw(st.integers(0, 4)) for _ in path.edges) for path in paths]
    shared = share_links(paths, links)
    before: Counter[int] = Counter()
    after: Counter[int] = Counter()
    for path, own, given_ in zip(paths, links, shared, strict=True):
        assert min(given_) >= min(own)
        before.update(dict(zip(path.edges, own, strict=True)))
        after.update(dict(zip(path.edges, given_, strict=True)))
    assert after == before


def test_more_links_than_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"links\[0\]\[1\] must be in 0 .. 2"):
        share_links([_path((0, 1), 2)], [(1, 3)])
