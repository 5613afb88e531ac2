"""The plant's log: which ports each transmitter's light reached, from when until when. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from topologies.emulation.plant import Port, Ray

KEPT = 10_000
"""How many ended intervals are kept; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Interval:
    """While this lasted, the transmitter's light reached these ports, each way in order; moments in seconds since the epoch."""

    transmitter: Port
    ways: tuple[tuple[Port, ...], ...]
    from_s: float
    until_s: float | None = None

    def told(self) -> dict[str, Any]:
        ways = [[f"{node}:{port}" for node, port in way[1:]] for way in self.ways]
        return {"transmitter": "/".join(self.transmitter), "ways": ways, "from_s": self.from_s, "until_s": self.until_s}


class LightLog:
    def __init__(self, kept: int = KEPT) -> None:
        self._ended: deque[Interval] = deque(maxlen=kept)
        self._now: dict[Port, Interval] = {}
        self.forgotten = 0
        """How many intervals were too old to be kept."""

    def note(self, rays: Mapping[Port, Iterable[Ray]], now_s: float) -> None:
        """The light is so from now on. Every state is noted, however short: two at one moment are two intervals."""
        for transmitter, each in rays.items():
            ways = tuple(ray.ports for ray in each)
            before = self._now.get(transmitter)
            if before is not None and before.ways == ways:
                continue
            if before is not None:
                self.forgotten += len(self._ended) == self._ended.maxlen
                self._ended.append(replace(before, until_s=now_s))
            self._now[transmitter] = Interval(transmitter, ways, now_s)

    def intervals(self) -> list[Interval]:
        """The ended ones, then those that last."""
        return [*self._ended, *self._now.values()]
