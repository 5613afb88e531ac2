"""Two links and the station between them, with a cut-off: closed forms.

Who is first waits for the other, at most the cut-off; then it is discarded and begins anew. The other link has no memory of its tries, so
going on and beginning anew are the same to it (Collins et al., PRL 98, 060502, 2007; Kamin et al., Phys. Rev. Research 5, 023086, 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean_delivery(
    arrivals: tuple[float, float], slot_s: float, cutoff_s: float, swap_success: float, news_s: float, decays_hz: Sequence[Sequence[float]]
) -> tuple[float, list[float]]:
    """(mean time to deliver in s, for every row of decay rates in 1/s of the three nodes' memories the mean of exp(-decay) at delivery).

    arrivals: success probabilities per slot, in (0, 1], or rates in Hz where `slot_s` is 0. news_s: from the station to the farther end; a
    delivery, and a new start after a failed swap, wait for it. cutoff_s may be infinite. Exact; a cut-off is rounded down to whole slots.

    Raises ValueError when the cut-off lets nothing through.
    """
    one, other = arrivals
    if slot_s:
        both = one * other
        leaving = one + other - both
        first = [one * (1 - other) / leaving, other * (1 - one) / leaving]
        together = both / leaving
    else:
        leaving, together = one + other, 0.0
        first = [one / leaving, other / leaving]
    longest = cutoff_s if not slot_s or cutoff_s == math.inf else math.floor(cutoff_s / slot_s + 1e-9)
    try_s, met = (slot_s or 1.0) / leaving, together
    for chance, awaited in zip(first, (other, one), strict=True):
        meets, wait = _meeting(awaited, longest, slot_s, 0.0)
        met += chance * meets
        try_s += chance * wait
    if met == 0:
        raise ValueError(f"cutoff_s is too short: no try delivers within {cutoff_s!r} s")
    kept = []
    for left, middle, right in decays_hz:
        lasting = together
        for chance, awaited, decay in zip(first, (other, one), (left + middle, middle + right), strict=True):
            lasting += chance * _meeting(awaited, longest, slot_s, decay)[0]
        kept.append(min(1.0, lasting / met * math.exp(-(left + right) * news_s)))
    return (try_s / met + (1 - swap_success) * news_s) / swap_success + news_s, kept


def _meeting(arrival: float, longest: float, slot_s: float, decay_hz: float) -> tuple[float, float]:
    """(mean of exp(-decay) over waits k of 1.. slots that end within `longest`, the others counting 0; mean of min(wait, longest) in s)."""
    if not slot_s:
        total = arrival + decay_hz
        return arrival / total * -math.expm1(-total * longest), -math.expm1(-arrival * longest) / arrival
    if longest == 0:
        return 0.0, 0.0
    stays = math.log1p(-arrival) if arrival < 1 else -math.inf
    step = stays - decay_hz * slot_s
    lasting = arrival * math.exp(-decay_hz * slot_s) * math.expm1(step * longest) / math.expm1(step)
    return lasting, -slot_s * math.expm1(stays * longest) / arrival
