"""Long work on the event loop in short turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

TURN_S = 0.002
STARTS = 4
"""So many calls are started before others have their turn."""

Answer = TypeVar("Answer")


class Turn:
    """One's turn on the event loop: `pause` between the pieces of a long work lets others go on when it has lasted long enough."""

    def __init__(self) -> None:
        self._until_s = time.monotonic() + TURN_S

    async def pause(self) -> None:
        if time.monotonic() >= self._until_s:
            await asyncio.sleep(0)
            self._until_s = time.monotonic() + TURN_S


async def let_go(*held: dict[Any, Any]) -> None:
    """Empty them in short turns: what nobody else holds is freed, and of a large network that takes long."""
    turn = Turn()
    for each in held:
        while each:
            each.popitem()
            await turn.pause()


async def together(calls: Iterable[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """What the calls answer, in their order: all under way at once, but not all begun in one turn."""
    async with asyncio.TaskGroup() as group:
        tasks = []
        for call in calls:
            tasks.append(group.create_task(call))
            if len(tasks) % STARTS == 0:
                await asyncio.sleep(0)
    return [task.result() for task in tasks]
