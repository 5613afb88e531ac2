"""Sessions that have messages to handle take turns, so that none holds up the others or the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter

_LONGEST_S = 0.003
"""After so long the event loop sees to everything else, before the next session has its turn."""

Work = Callable[[], bool]
"""Handles a slice of what waits, and says whether there is more."""


class Turns:
    """One for all sessions of an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Work] = deque()
        self._called = False

    def add(self, work: Work) -> None:
        """Have `work` called until it says that there is no more. Whoever adds sees to it that nothing waits twice."""
        self._waiting.append(work)
        if not self._called:
            self._called = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        until_s = perf_counter() + _LONGEST_S
        while self._waiting:
            work = self._waiting.popleft()
            if work():
                self._waiting.append(work)
            if perf_counter() > until_s:
                break
        if self._waiting:
            self._loop.call_soon(self._run)
        else:
            self._called = False
