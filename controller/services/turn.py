"""Long work on the event loop in short turns."""

from __future__ import annotations

import asyncio
import time

TURN_S = 0.002


class Turn:
    """One's turn on the event loop: `pause` between the pieces of a long work lets others go on when it has lasted long enough."""

    def __init__(self) -> None:
        self._until_s = time.monotonic() + TURN_S

    async def pause(self) -> None:
        if time.monotonic() >= self._until_s:
            await asyncio.sleep(0)
            self._until_s = time.monotonic() + TURN_S
