"""A binary heap of numbered items in arrays, for compiled searches: least key first, and keys can be lowered.

`keys` and `items` hold the heap's `size` first entries; `place` (per item) where in the heap it is, ABSENT before and GONE after its time.
"""

from __future__ import annotations

from numba import njit

from controller.routing.compiled import Floats, Ints

ABSENT, GONE = -1, -2


@njit(cache=True)
def push(keys: Floats, items: Ints, place: Ints, size: int, key: float, item: int) -> int:
    """Put an item in, or lower its key; the heap's new size."""
    at = place[item]
    if at == ABSENT:
        at = size
        size += 1
    while at > 0:
        above = (at - 1) >> 1
        if keys[above] <= key:
            break
        keys[at], items[at] = keys[above], items[above]
        place[items[at]] = at
        at = above
    keys[at], items[at] = key, item
    place[item] = at
    return size


@njit(cache=True)
def pop(keys: Floats, items: Ints, place: Ints, size: int) -> int:
    """Take the first item out; the heap's new size."""
    place[items[0]] = GONE
    size -= 1
    if size == 0:
        return 0
    key, item = keys[size], items[size]
    at, below = 0, 1
    while below < size:
        if below + 1 < size and keys[below + 1] < keys[below]:
            below += 1
        if keys[below] >= key:
            break
        keys[at], items[at] = keys[below], items[below]
        place[items[at]] = at
        at, below = below, 2 * below + 1
    keys[at], items[at] = key, item
    place[item] = at
    return size
