"""An upper bound on the ebits of one slot, for any algorithm and any knowledge of link states.

Let x_P be the expected number of chains along path P in a slot. They use x_P links of each of P's edges, and an edge with c_e reserved
channels gives p_e c_e links on average; channels and qubits are limited; a chain of h edges becomes an ebit with q^(h-1), because which
swaps to make is decided before any is tried. So every algorithm's expectation is a feasible point of

    max sum_P q^(h_P - 1) x_P   s.t.  sum_{P over e} x_P <= p_e c_e,   c_e <= C_e,   sum_{e at v} c_e <= Q_v,

a linear programme over all paths, solved here by column generation (HiGHS) with c_e eliminated. It ignores that links come in whole numbers
and at random, so it is far above what can be reached.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_matrix


def most_ebits(qubits: Sequence[int], edges: Sequence[tuple[int, int, int, float]], q: float, pairs: Sequence[tuple[int, int]]) -> float:
    near: list[list[tuple[int, int]]] = [[] for _ in qubits]
    for index, (a, b, _, _) in enumerate(edges):
        near[a].append((b, index))
        near[b].append((a, index))
    limits = [channels for _, _, channels, _ in edges] + list(qubits)
    values: list[float] = []
    columns: list[np.ndarray] = []
    prices, optimum = np.zeros(len(edges)), 0.0
    while True:
        found = [each for each in (_dearest(near, prices, q, *pair) for pair in pairs) if each is not None]
        if not found:
            return optimum
        for value, path in found:
            column = np.zeros(len(limits))
            for index in path:
                a, b, _, p = edges[index]
                column[[index, len(edges) + a, len(edges) + b]] += 1 / p
            values.append(value)
            columns.append(column)
        solved = linprog(-np.array(values), A_ub=csr_matrix(np.array(columns).T), b_ub=limits, method="highs")
        duals, optimum = -solved.ineqlin.marginals, -solved.fun
        prices = np.array([(duals[i] + duals[len(edges) + a] + duals[len(edges) + b]) / p for i, (a, b, _, p) in enumerate(edges)])


def _dearest(near: list[list[tuple[int, int]]], prices: np.ndarray, q: float, source: int, target: int) -> tuple[float, list[int]] | None:
    """The path whose q^(h-1) exceeds its price most, and that value; None if no path's does. Bellman-Ford by number of edges."""
    best, chosen = 1e-7, None
    ring = {source: 0.0}
    steps: list[dict[int, tuple[float, int, int]]] = []
    while ring and q ** len(steps) - min(ring.values()) > best and len(steps) < len(near):
        reached: dict[int, tuple[float, int, int]] = {}
        for here, price in ring.items():
            for there, edge in near[here]:
                if there not in reached or price + prices[edge] < reached[there][0]:
                    reached[there] = (price + prices[edge], here, edge)
        steps.append(reached)
        if target in reached and q ** (len(steps) - 1) - reached[target][0] > best:
            best, chosen = q ** (len(steps) - 1) - reached[target][0], len(steps)
        ring = {node: price for node, (price, _, _) in reached.items() if node != target}
    if chosen is None:
        return None
    path, here = [], target
    for step in reversed(steps[:chosen]):
        _, before, edge = step[here]
        path.append(edge)
        here = before
    return q ** (chosen - 1), path
