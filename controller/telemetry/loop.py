"""An event loop whose turns are short and measured, the garbage collector's part in them included."""

from __future__ import annotations

import asyncio
import gc
import math
import select
import selectors
from time import monotonic, thread_time

from controller.telemetry.histogram import Histogram

_LONG_S = 0.003
"""After a turn that took so much processor time, fewer ready connections are taken up in the next."""
_MOST_AT_ONCE = 64
_YOUNG = 200
"""So many new objects the collector looks through in one pass between turns: few, for each may refer to thousands."""
GARBAGE = 50_000, 10, 1_000_000
"""After how many new objects, and then passes over the generation before, it looks through each by itself: when a turn makes very many."""
_BETWEEN_S = 3600.0
"""Between two passes over everything, which at ten thousand services take a second."""


class ShortTurns(asyncio.SelectorEventLoop):
    """As asyncio's own, but of a thousand connections that are ready at once it does not see to all before anything else.

    `turns_s` is the processor time of the loop's thread that each turn took, in seconds: what other programs take is not in it.
    """

    def __init__(self) -> None:
        self.turns_s = Histogram()
        self._between = _BetweenTurns(self.turns_s)
        super().__init__(self._between)

    def collect_in_short_passes(self) -> None:
        """Have the garbage collector look through new objects only. What is there now is put aside, and so is what survives its first pass.

        Otherwise a pass over the last generation looks through the whole network and all its sessions, for tens of milliseconds. Only
        when what was put aside has doubled, garbage that only such a pass can find included, there is one over all of it, once an hour at most.
        """
        gc.set_threshold(*GARBAGE)
        self._between.collector = _Collector()


class _Collector:
    def __init__(self) -> None:
        self._aside, self._next_s = self._look_through_all(), monotonic() + _BETWEEN_S

    def due(self) -> bool:
        return gc.get_count()[0] >= _YOUNG

    def look_through(self) -> None:
        gc.collect(0)
        gc.freeze()  # what stays is looked at once; most of what goes needs no collector
        if monotonic() >= self._next_s:
            self._next_s = monotonic() + _BETWEEN_S
            if gc.get_freeze_count() > 2 * self._aside:
                self._aside = self._look_through_all()

    def _look_through_all(self) -> int:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        return gc.get_freeze_count()


class _BetweenTurns(selectors.EpollSelector):
    """Reports as many of the ready files as the last turn leaves to expect that there is time for; the kernel has the others in line."""

    def __init__(self, turns_s: Histogram) -> None:
        super().__init__()
        self.collector: _Collector | None = None
        self._turns_s = turns_s
        self._at_once = _MOST_AT_ONCE
        self._woken_s = thread_time()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.collector is not None and self.collector.due():
            self.collector.look_through()
        took_s = thread_time() - self._woken_s
        self._turns_s.observe(took_s)
        self._at_once = max(1, self._at_once // 2) if took_s > _LONG_S else min(_MOST_AT_ONCE, self._at_once + 4)
        wait_s = -1 if timeout is None else max(0.0, math.ceil(timeout * 1e3) * 1e-3)  # rounded up: not before it is due
        ready = self._selector.poll(wait_s, self._at_once)  # type: ignore[attr-defined]
        self._woken_s = thread_time()
        registered, found = self.get_map(), []
        for file, events in ready:
            if (key := registered.get(file)) is not None:
                reported = selectors.EVENT_READ if events & ~select.EPOLLOUT else 0
                reported |= selectors.EVENT_WRITE if events & ~select.EPOLLIN else 0
                found.append((key, reported & key.events))
        return found
