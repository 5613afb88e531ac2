"""The edge of the formulas: a figure outside its domain is refused by name, NaN included."""

from __future__ import annotations

import math
import sys

LEAST, MOST = 1e-100, 1e100
"""Bounds of figures that have none of their own, where products and quotients of a few must stay floats."""


def within(name: str, value: float, low: float, high: float = math.inf, *, open_low: bool = False) -> None:
    """Raise ValueError unless `value` is finite and low <= value <= high (low < value when `open_low`)."""
    above = value > low if open_low else value >= low
    if not (above and value <= min(high, sys.float_info.max)):
        upper = "inf)" if high == math.inf else f"{high:g}]"
        raise ValueError(f"{name} must be in {'(' if open_low else '['}{low:g}, {upper}, got {_shown(value)}")


def whole(name: str, value: int, low: int, high: int) -> None:
    """Raise ValueError unless `value` is an int with low <= value <= high."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number in [{low}, {high}], got {_shown(value)}")


def _shown(value: float) -> str:
    """Whole numbers of thousands of digits cannot be written out."""
    return f"a number of {value.bit_length()} bits" if isinstance(value, int) and value.bit_length() > 1024 else repr(value)
