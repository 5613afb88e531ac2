"""Slotted quantum networks to compare on: the published text format, and a seeded generator in the manner of Q-CAST's evaluation."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Network:
    """Qubits per node; edges (a, b, channels, success probability of one channel); success probability of a swap."""

    qubits: tuple[int, ...]
    edges: tuple[tuple[int, int, int, float], ...]
    q: float


def read(path: Path) -> Network:
    """Lines n, alpha, q, k, then n of `qubits x y`, then `a b channels`; a channel of length L succeeds with exp(-alpha L)."""
    lines = path.read_text().split("\n")
    n, alpha, q = int(lines[0]), float(lines[1]), float(lines[2])
    nodes = [line.split() for line in lines[4 : 4 + n]]
    place = [(float(x), float(y)) for _, x, y in nodes]
    edges = []
    for line in filter(None, (line.strip() for line in lines[4 + n :])):
        a, b, channels = map(int, line.split())
        edges.append((a, b, channels, math.exp(-alpha * math.dist(place[a], place[b]))))
    return Network(tuple(int(qubits) for qubits, _, _ in nodes), tuple(edges), q)


def waxman(n: int, degree: float, mean_p: float, q: float, seed: int) -> Network:
    """A connected Waxman-like network: nodes uniform in a square of 100 x 100 and at least 50/sqrt(n) apart, edges drawn with odds falling
    exponentially in length until the mean degree is reached, U[10, 14] qubits, U[3, 7] channels, alpha solved for the mean success."""
    rng = random.Random(seed)
    place: list[tuple[float, float]] = []
    while len(place) < n:
        spot = (100 * rng.random(), 100 * rng.random())
        if all(math.dist(spot, other) >= 50 / math.sqrt(n) for other in place):
            place.append(spot)
    pairs = [(math.dist(place[a], place[b]), a, b) for a in range(n) for b in range(a)]
    reach = 100 / math.sqrt(n)
    drawn = sorted((rng.expovariate(1) * math.exp(length / (0.4 * reach)), length, a, b) for length, a, b in pairs)
    chosen = {(a, b): length for _, length, a, b in drawn[: round(n * degree / 2)]}
    island = list(range(n))  # the representative of each node's component

    def root(a: int) -> int:
        while island[a] != a:
            a = island[a]
        return a

    for a, b in chosen:
        island[root(a)] = root(b)
    for length, a, b in sorted(pairs):  # the shortest edges that join what is apart
        if root(a) != root(b):
            island[root(a)] = root(b)
            chosen[a, b] = length
    low, high = 0.0, 10.0
    for _ in range(60):
        alpha = (low + high) / 2
        mean = sum(math.exp(-alpha * length) for length in chosen.values()) / len(chosen)
        low, high = (alpha, high) if mean > mean_p else (low, alpha)
    qubits = tuple(rng.randint(10, 14) for _ in range(n))
    return Network(qubits, tuple((a, b, rng.randint(3, 7), math.exp(-alpha * length)) for (a, b), length in chosen.items()), q)
