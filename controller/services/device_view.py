"""What is known of one device, and calls of its driver: one at a time, and none that everybody else waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from controller.services.desired import Desired
from controller.services.deviations import Deviations
from controller.southbound.device import DeviceError, Diff, Item, State, Unreachable

log = logging.getLogger(__name__)

CALL_S = 30.0
"""How long a driver may take for one call; drivers have shorter limits of their own."""
PATIENCE_S = 2.0
"""How long others wait for a call: a session that is dead, and not known to be yet, takes ten times as long to fail."""

UNREAD = State()
"""What stands for the state of a device that was never read."""

Answer = TypeVar("Answer")


@dataclass(slots=True)
class DeviceView:
    """What is known of one device: its last reading, what was to change then, when it was last changed, and its last trouble.

    `came` is called when a call is over that was not waited for any longer.
    """

    name: str
    came: Callable[[], None]
    state: State | None = None
    diff: Diff | None = None
    against: Desired | None = None
    """What the diff is against."""
    deviations: Deviations = field(default_factory=Deviations)
    renewed: bool = False
    """Whether its session is new since it was last read."""
    lost: set[Item] = field(default_factory=set)
    """What it was read to hold once, is to hold, and was missing when it was last read."""
    darkened: set[Item] = field(default_factory=set)
    """What we took apart for a moment, and that has not been read to be there again."""
    trouble: str = ""
    reads: int = 0
    applies: int = 0
    failures: int = 0
    changed_s: float = float("-inf")
    """Monotonic."""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One call at a time, so that a reading is never older than the change it is compared with."""
    _late: asyncio.Task[Any] | None = None
    """The call that is under way still and that nobody waits for. Until it is over the device is asked nothing else."""
    _belated: State | None = None
    """What a reading found that came too late for whoever had asked."""

    @property
    def late(self) -> bool:
        """Whether a call is under way that nobody waits for: what the device holds may be other than before, soon."""
        return self._late is not None

    async def read(self, call: Callable[[], Coroutine[Any, Any, State]]) -> State | DeviceError:
        """What the device holds: as just read, or by a reading that nobody waited for and after which it was not changed."""
        found, self._belated = self._belated, None
        return await self.call(call) if found is None or self.renewed else found

    async def call(self, call: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer | DeviceError:
        """What a driver answers; what goes wrong is an answer, too, and noted as the device's trouble.

        Unreachable after `PATIENCE_S`: the call goes on then, and `came` is called when it is over.
        """
        async with self._lock:
            if self._late is None:
                task = asyncio.create_task(self._answer(call))
                try:
                    await asyncio.wait((task,), timeout=PATIENCE_S)
                except asyncio.CancelledError:
                    task.cancel()
                    await asyncio.wait((task,))  # nothing else is asked before it has cleared up
                    raise
                if task.done():
                    return task.result()
                self._late, self.trouble = task, f"no answer for {PATIENCE_S:g} s"
                task.add_done_callback(self._is_over)
                log.warning("%s: %s; others do not wait for it", self.name, self.trouble)
            return Unreachable(self.name, self.trouble)

    async def close(self) -> None:
        """Give up the call that nobody waits for, if there is one."""
        if self._late is not None:
            self._late.cancel()
            await asyncio.gather(self._late, return_exceptions=True)

    def _is_over(self, task: asyncio.Task[Any]) -> None:
        self._late = None
        if not task.cancelled():
            self._belated = found if isinstance(found := task.result(), State) else None
            self.came()

    async def _answer(self, call: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer | DeviceError:
        error: DeviceError
        try:
            async with asyncio.timeout(CALL_S):
                return await call()
        except DeviceError as own:
            error = own
        except TimeoutError:
            error = Unreachable(self.name, f"no answer within {CALL_S:g} s")
        except Exception as unforeseen:
            log.exception("the driver of %s failed", self.name)
            error = Unreachable(self.name, f"its driver failed: {unforeseen!r}")
        log.warning("%s", error)
        self.trouble = error.what
        self.failures += 1
        return error
