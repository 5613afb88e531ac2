"""What a store of key adds to a link: width over a horizon, time to empty, water marks; and what relaying a key costs each link. Pure."""

from __future__ import annotations

import math
from typing import Literal

from controller.physics.domain import whole, within

PoolState = Literal["READY", "WARNING", "CHARGING", "EMPTY"]


def width_bps(eskr_bps: float, *, reserved_bps: float = 0.0, pool_bits: float = 0.0, minimum_bits: float = 0.0, horizon_s: float) -> float:
    """The rate that a link can give for `horizon_s`: eskr - reserved + (pool - minimum) / horizon, in bit/s.

    `eskr_bps` is the end-to-end secret-key rate of the link, `pool_bits` what its two KMEs hold, `minimum_bits` what must stay there.
    An infinite horizon gives the sustained rate. Negative when the link is promised beyond what it can give, or has to refill its pool.
    Raises ValueError for a number out of range, by name.
    """
    for name, value in (("eskr_bps", eskr_bps), ("reserved_bps", reserved_bps), ("pool_bits", pool_bits), ("minimum_bits", minimum_bits)):
        within(name, value, 0)
    _positive("horizon_s", horizon_s)
    return eskr_bps - reserved_bps + (pool_bits - minimum_bits) / horizon_s


def time_to_empty_s(*, pool_bits: float, minimum_bits: float = 0.0, consumption_bps: float, eskr_bps: float) -> float:
    """Seconds until the pool is down to its minimum, in the fluid model dM/dt = eskr - consumption: (pool - minimum) / (consumption - eskr).

    Infinite when the pool does not shrink, 0 when it is at or below its minimum already and shrinks. Raises ValueError, by name.
    """
    for name, value in (
        ("pool_bits", pool_bits), ("minimum_bits", minimum_bits), ("consumption_bps", consumption_bps), ("eskr_bps", eskr_bps)
    ):  # fmt: skip
        within(name, value, 0)
    if consumption_bps <= eskr_bps:
        return math.inf
    return max(0.0, pool_bits - minimum_bits) / (consumption_bps - eskr_bps)


def pool_state(before: PoolState, *, pool_bits: float, minimum_bits: float, threshold_bits: float) -> PoolState:
    """The water mark of a pool, with hysteresis (QKDNetSim's states): READY from the threshold up, EMPTY from the minimum down.

    Between the two a pool that was READY is in WARNING, one that was EMPTY is CHARGING, and either stays what it is. Raises ValueError.
    """
    within("minimum_bits", minimum_bits, 0)
    within("threshold_bits", threshold_bits, minimum_bits)
    within("pool_bits", pool_bits, 0)
    if pool_bits <= minimum_bits:
        return "EMPTY"
    if pool_bits >= threshold_bits:
        return "READY"
    return "WARNING" if before in ("READY", "WARNING") else "CHARGING"


def link_cost_factor(key_bits: int = 256, *, tag_bits: int = 256, batch: int = 1) -> float:
    """Bits that each hop spends per bit of key delivered: the pad, and one one-time authentication key of `tag_bits` per message.

    A message carries `batch` keys of `key_bits`: 1 + tag / (batch * key). Raises ValueError for a number out of range, by name.
    """
    whole("key_bits", key_bits, 1, 2**53)
    whole("tag_bits", tag_bits, 0, 2**53)
    whole("batch", batch, 1, 2**53)
    return 1.0 + tag_bits / (batch * key_bits)


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, infinite for the sustained rate, got {value!r}")
