"""Availability windows: the intervals in which a link is there, in seconds since the epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from controller.network.model import Window

Interval = tuple[float, float]
"""From a moment until just before another."""


def merged(windows: Iterable[Window]) -> tuple[Interval, ...]:
    """The intervals in order, those that touch or overlap as one."""
    found: list[Interval] = []
    for start_s, end_s in sorted((each.start.timestamp(), each.end.timestamp()) for each in windows):
        if found and start_s <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end_s)
        else:
            found.append((start_s, end_s))
    return tuple(found)


def covering(intervals: Sequence[Interval], start_s: float, end_s: float) -> Interval | None:
    """The interval that holds from `start_s` until `end_s`, which may be the same moment; None when none does."""
    return next((each for each in intervals if each[0] <= start_s < each[1] and end_s <= each[1]), None)


def iso(moment_s: float) -> str:
    """A moment as ISO 8601 in UTC, as in 2026-03-01T12:00:00Z."""
    return datetime.fromtimestamp(moment_s, UTC).isoformat().replace("+00:00", "Z")
