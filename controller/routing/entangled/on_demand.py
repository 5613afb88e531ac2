"""A quick estimate of a chain on demand, by which long ones are ranked: who has a pair waits until all have one.

All links start at once. Link i has its pair after an exponential time T_i of rate r_i; at M = max T_i all repeaters swap. Meanwhile pair i
decays depolarising in the memories at its two ends: of its Werner parameter exp(-g_i (M - T_i)) is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_NODES_PER_OCTAVE = 12
_LONGEST_WAITS = 60.0
"""Integration ends after this many mean waits of the slowest link; what lies beyond is below e^-60 of the whole."""


def evaluate(rates_hz: Sequence[float], decays_per_s: Sequence[float]) -> tuple[float, float]:
    """(E[M] in s, E[prod_i exp(-g_i (M - T_i))]) of links of rates r_i > 0 in Hz and decay rates g_i >= 0 in 1/s.

    E[M] is the integral of 1 - prod(1 - exp(-r_i m)). The second expectation, given that the last pair arrives at m from link j, is a
    product over the others of h_i(m), the integral over t < m of r_i exp(-r_i t) exp(-g_i (m - t)). Both integrals over m are taken by
    Gauss-Legendre quadrature on panels that double in width; relative error below 1e-9.
    """
    rates, decays = np.asarray(rates_hz, dtype=float), np.asarray(decays_per_s, dtype=float)
    m, weight = _grid(float(np.max(rates + decays)), float(np.min(rates)))
    waits = rates[:, None] * m
    mean_s = float(weight @ -np.expm1(np.log(-np.expm1(-waits)).sum(axis=0)))
    if not decays.any():
        return mean_s, 1.0
    slower, apart = np.minimum(rates, decays)[:, None], np.abs(rates - decays)[:, None] * m
    # (e^-gm - e^-rm)/(r - g), written so that neither overflow nor r = g matters
    ratio = np.divide(-np.expm1(-apart), apart, out=np.ones_like(apart), where=apart > 0)
    kept = np.log(rates[:, None] * m * ratio) - slower * m
    density = np.exp(kept.sum(axis=0) - kept - waits) * rates[:, None]
    return mean_s, min(1.0, float(weight @ density.sum(axis=0)))


def _grid(fastest_hz: float, slowest_hz: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points and weights on [0, 60/slowest]: the first panel ends well before anything happens, each next one doubles the reach."""
    points, weights = np.polynomial.legendre.leggauss(_NODES_PER_OCTAVE)
    first, end = 1e-2 / fastest_hz, _LONGEST_WAITS / slowest_hz
    octaves = int(np.ceil(np.log2(end / first)))
    edges = np.concatenate(([0.0], end * 2.0 ** np.arange(-octaves, 1)))
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (points + 1)).ravel(), (half * weights).ravel()
