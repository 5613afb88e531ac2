"""What happened, numbered: a bounded log that readers follow and resume by number."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("bellhop.events")


@dataclass(frozen=True, slots=True)
class Event:
    """`number` grows by one; a reader that sees a gap has lost events and should read everything anew."""

    number: int
    time_s: float
    kind: str
    data: dict[str, Any]


class EventLog:
    """The last `size` events. Publishing never waits; a slow reader misses events and sees the gap in the numbers."""

    def __init__(self, size: int = 4096) -> None:
        self._events: deque[Event] = deque(maxlen=size)
        self._published = asyncio.Event()
        self.number = 0

    def publish(self, kind: str, **data: Any) -> None:
        """Add an event; `kind` is dotted, as in `service.active`."""
        self.number += 1
        self._events.append(Event(self.number, time.time(), kind, data))
        if log.isEnabledFor(logging.INFO):
            log.info("%s %s", kind, " ".join(f"{name}={value}" for name, value in data.items()))
        self._published.set()
        self._published = asyncio.Event()

    def after(self, number: int) -> list[Event]:
        """The kept events with a higher number."""
        return [event for event in self._events if event.number > number]

    async def follow(self, number: int) -> AsyncIterator[Event]:
        """Events after `number`, kept ones first, then as they come. A number not reached yet is from before a restart: all are new then."""
        if number > self.number:
            number = 0
        while True:
            published = self._published
            for event in self.after(number):
                number = event.number
                yield event
            if not self.after(number):
                await published.wait()
