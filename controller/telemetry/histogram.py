"""A histogram that costs a bisection to observe and is read by the metrics page."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds, in seconds, for what a session waits."""


class Histogram:
    """How often values fell into each bucket. `bounds` are the buckets' inclusive upper ends, in ascending order."""

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.total = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Each bucket's upper end as text and how many values are not above it, as Prometheus wants them."""
        return [(str(bound), float(count)) for bound, count in zip((*self.bounds, "+Inf"), accumulate(self._counts), strict=True)]
