"""Whether one direction of a link lives, judged from the hellos that arrive: a state machine without a clock.

A hello is missed when the next one leaves the same port and it has not arrived. So a controller that is short of time, and sends nothing,
takes no link down: time is counted in hellos sent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_MOST_UP_HELLOS = 32
_CALM_HELLOS = 60
"""A link that has lived through so many is trusted as a new one."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A hello leaves every port each `interval_s`; after `up_hellos` in a row a direction is up, after `dead_multiplier` missed ones down."""

    interval_s: float = 1.0
    up_hellos: int = 2
    dead_multiplier: int = 3

    @property
    def settled_hellos(self) -> int:
        """After so many hellos what lives has been found, and what does not has been missed."""
        return self.up_hellos + self.dead_multiplier

    @property
    def ttl_s(self) -> int:
        return min(65535, int(self.interval_s * self.dead_multiplier) + 1)


@dataclass(frozen=True, slots=True)
class Liveness:
    """`heard` and `missed` count in a row. `falls` counts how often it went down lately: each after the first doubles what is asked of it."""

    up: bool = False
    heard: int = 0
    missed: int = 0
    falls: int = 0


def heard(state: Liveness, timing: Timing) -> Liveness:
    """After one more hello has arrived."""
    run = state.heard + 1
    asked = min(timing.up_hellos << max(0, state.falls - 1), max(_MOST_UP_HELLOS, timing.up_hellos))
    return Liveness(state.up or run >= asked, run, 0, 0 if run >= _CALM_HELLOS else state.falls)


def missed(state: Liveness, timing: Timing) -> Liveness:
    """After one more hello has been sent and has not arrived."""
    after = replace(state, heard=0, missed=state.missed + 1)
    return fallen(after) if after.missed >= timing.dead_multiplier else after


def fallen(state: Liveness) -> Liveness:
    """After the signal has gone."""
    return replace(state, up=False, heard=0, falls=min(state.falls + state.up, 16))
