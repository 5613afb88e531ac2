"""What became other than it should be without us, and since when: it may be on its way back, so it is not repaired at once. Pure."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import replace

from controller.southbound.device import Diff, Item


class Deviations:
    """Those of one device."""

    def __init__(self) -> None:
        self._since_s: dict[Item, float] = {}

    def note(self, found: Diff, held: Container[Item], leaving: Container[Item], now_s: float) -> None:
        """Take a new difference. What is missing of what was `held`, and what is superfluous and not `leaving` by our own will, deviates:
        from now on, or from when it was noted first."""
        astray = [item for item in found.add if item in held or item in self._since_s]
        astray += [item for item in found.remove if item not in leaving]
        self._since_s = {item: self._since_s.get(item, now_s) for item in astray}

    def forget(self) -> None:
        """The device is new to us: what it lacks now, it never had."""
        self._since_s = {}

    def due(self, found: Diff, now_s: float, verdict_s: float) -> Diff:
        """The part of the difference to be made now: without the deviations that have not lasted `verdict_s`."""
        waiting = {item for item, since_s in self._since_s.items() if since_s + verdict_s > now_s}
        if not waiting:
            return found
        add = tuple(item for item in found.add if item not in waiting)
        remove = tuple(item for item in found.remove if item not in waiting)
        return replace(found, add=add, remove=remove)

    def next_s(self, after_s: float, verdict_s: float) -> float:
        """When the next deviation will have lasted `verdict_s`, of those that had not `after_s`; infinity for none."""
        return min((until_s for since_s in self._since_s.values() if (until_s := since_s + verdict_s) > after_s), default=math.inf)
