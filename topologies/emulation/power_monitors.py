"""The optical power monitors of an emulated device."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

DARK_DBM = -60.0
"""What a Polatis power monitor reports without light: the bottom of its range."""

Port = TypeVar("Port")


class PowerMonitors(Generic[Port]):
    """The power each port's monitor shows, in dBm. It follows the light after `settling_time_s`; `shown` is told each change."""

    def __init__(self, ports: Iterable[Port], settling_time_s: float, shown: Callable[[Port, float, float], None]) -> None:
        self._power_dbm = dict.fromkeys(ports, DARK_DBM)
        self._settling_time_s = settling_time_s
        self._shown = shown
        self._settling: dict[Port, tuple[float, asyncio.TimerHandle]] = {}

    def __getitem__(self, port: Port) -> float:
        return self._power_dbm[port]

    def __iter__(self) -> Iterator[Port]:
        return iter(self._power_dbm)

    def light(self, port: Port, dbm: float | None) -> None:
        """The light at a port is now so strong; None is dark. Raises KeyError for a port that is none."""
        level = DARK_DBM if dbm is None else max(dbm, DARK_DBM)
        lit, timer = self._settling.get(port, (self._power_dbm[port], None))
        if level == lit:
            return
        if timer is not None:
            timer.cancel()
        if self._settling_time_s:
            self._settling[port] = level, asyncio.get_running_loop().call_later(self._settling_time_s, self._show, port, level)
        else:
            self._show(port, level)

    def settle(self) -> None:
        """Show at once what is still settling: nobody is there to wait for it."""
        for port, (level, timer) in tuple(self._settling.items()):
            timer.cancel()
            self._show(port, level)

    def _show(self, port: Port, level: float) -> None:
        self._settling.pop(port, None)
        before, self._power_dbm[port] = self._power_dbm[port], level
        self._shown(port, before, level)
