"""Two links and the station between them, with a cut-off: closed forms.

Who is first waits for the other, at most the cut-off; then both begin anew (Collins et al., PRL 98, 060502, 2007; Kamin et al., Phys. Rev.
Research 5, 023086, 2023). Links of one attempt time, or of exponential waiting, have no memory of their tries, and what they wait is geometric.

Links whose attempts differ end them on two lattices of times. How long one waits for the other then depends on how the lattices lie, and the
sum over one of them is that of x^k y^floor((a k + b)/m): products of maps in the order in which the two lattices' times come, which Euclid's
algorithm multiplies in as many steps as the lattices' ratio has digits. What numbers so close to each other lose in their differences is made
up for by more digits.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from controller.physics.domain import LEAST, MOST, within

_INSTANT = Decimal("1e-30")
"""An attempt that takes no time takes so much of the shortest time there is."""
_FASTEST_DECAY = Decimal("1e12")
"""In units of 1/(the longest wait that counts): what decays faster than that is gone unless both links are there at once."""


def mean_delivery(
    arrivals: tuple[float, float], slot_s: float, cutoff_s: float, swap_success: float, news_s: float, decays_hz: Sequence[Sequence[float]]
) -> tuple[float, list[float]]:
    """(mean time to deliver in s, for every row of decay rates in 1/s of the three nodes' memories the mean of exp(-decay) at delivery).

    arrivals: success probabilities per slot, in (0, 1], or rates in Hz where `slot_s` is 0. swap_success in (0, 1]. news_s: from the station
    to the farther end; a delivery, and a new start after a failed swap, wait for it. cutoff_s may be infinite. Exact; a cut-off is rounded
    down to whole slots.

    Raises ValueError for a figure outside its domain, and when the cut-off lets nothing through.
    """
    for arrival in arrivals:
        within("arrivals", arrival, 0, 1 if slot_s else MOST, open_low=True)
    _look_at(swap_success, news_s, decays_hz)
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
    lasting = []
    for left, middle, right in decays_hz:
        lasts = together
        for chance, awaited, decay in zip(first, (other, one), (left + middle, middle + right), strict=True):
            lasts += chance * _meeting(awaited, longest, slot_s, decay)[0]
        lasting.append(lasts)
    return _delivered(try_s, met, lasting, cutoff_s, swap_success, news_s, decays_hz)


def _look_at(swap_success: float, news_s: float, decays_hz: Sequence[Sequence[float]]) -> None:
    within("swap_success", swap_success, 0, 1, open_low=True)
    within("news_s", news_s, 0)
    for row in decays_hz:
        for decay in row:
            within("decays_hz", decay, 0)


def _delivered(
    try_s: float,
    met: float,
    lasting: list[float],
    cutoff_s: float,
    swap_success: float,
    news_s: float,
    decays_hz: Sequence[Sequence[float]],
) -> tuple[float, list[float]]:
    """The result, of what a try takes, how often both sides meet in it, and the mean of exp(-decay) then, otherwise counting 0."""
    if met < LEAST:
        raise ValueError(f"cutoff_s is too short: no try delivers within {cutoff_s!r} s")
    kept = [min(1.0, lasts / met * math.exp(-(row[0] + row[-1]) * news_s)) for lasts, row in zip(lasting, decays_hz, strict=True)]
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


def mean_delivery_of_unlike(
    rates_hz: tuple[float, float],
    attempts_s: tuple[float, float],
    cutoff_s: float,
    swap_success: float,
    news_s: float,
    decays_hz: Sequence[Sequence[float]],
) -> tuple[float, list[float]]:
    """As `mean_delivery`, of links whose attempts take different times; 0 means exponential waiting. The cut-off is finite.

    Both links begin an attempt when the other is discarded. Exact; waits that differ from the cut-off by 1e-9 attempts are equal to it.
    """
    for rate_hz, attempt_s in zip(rates_hz, attempts_s, strict=True):
        within("rates_hz", rate_hz, LEAST, MOST)
        within("attempts_s", attempt_s, 0, MOST)
    within("cutoff_s", cutoff_s, LEAST, MOST)
    _look_at(swap_success, news_s, decays_hz)
    scales = [*(1 / rate_hz for rate_hz in rates_hz), *(attempt_s for attempt_s in attempts_s if attempt_s), cutoff_s]
    digits = 200 + 4 * math.ceil(math.log10(max(scales)) - math.log10(min(scales)))
    context = decimal.Context(prec=digits, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[decimal.InvalidOperation])
    with decimal.localcontext(context):
        instant = Decimal(min(scales)) * _INSTANT
        attempts = tuple(Decimal(attempt_s) if attempt_s else instant for attempt_s in attempts_s)
        chances = tuple(
            Decimal(min(1.0, rate_hz * attempt_s)) if attempt_s else Decimal(rate_hz) * instant
            for rate_hz, attempt_s in zip(rates_hz, attempts_s, strict=True)
        )
        cutoff, equal = Decimal(cutoff_s), Decimal("1e-9") * min(attempts)
        leaving_hz = [-(1 - p).ln() / a if p < 1 else Decimal(digits) / a for p, a in zip(chances, attempts, strict=True)]
        last = 3 * digits / (leaving_hz[0] + leaving_hz[1]) + 2 * max(attempts)
        # of the link that is first: the other comes strictly after it, or at the same time
        orders = [
            _Order(attempts, chances, equal, cutoff + equal, last),
            _Order(attempts[::-1], chances[::-1], -equal, cutoff + equal, last),
        ]
        slow = Decimal(10) ** (-digits // 3) / last
        met = sum(order.meeting(Decimal(0)) for order in orders)
        # what a try takes: the later of the two, less what it comes later than the cut-off lets it
        try_s = attempts[0] / chances[0] + orders[0].mean_wait(slow) - sum(order.mean_excess(slow, cutoff) for order in orders)
        lasting = []
        for left, middle, right in decays_hz:
            decays = (min(Decimal(end) + Decimal(middle), _FASTEST_DECAY / last) for end in (left, right))
            lasting.append(sum(order.meeting(decay) for order, decay in zip(orders, decays, strict=True)))
        return _delivered(float(try_s), float(met), [float(lasts) for lasts in lasting], cutoff_s, swap_success, news_s, decays_hz)


class _Order:
    """Two links, of which the first is there first: by at least `least` (in s), and at most `most` if they meet.

    Times after `last` do not count. Figures are those of the context's digits.
    """

    def __init__(self, attempts: Sequence[Decimal], chances: Sequence[Decimal], least: Decimal, most: Decimal, last: Decimal) -> None:
        self._attempts, self._chances, self._least, self._most = attempts, chances, least, most
        exact = [Fraction(each) for each in (*attempts, least, most)]
        unit = math.lcm(*(each.denominator for each in exact))
        self._first, self._second, *self._beyond = (int(each * unit) for each in exact)
        self._terms = int(last / attempts[0]) + 1

    def meeting(self, decay_hz: Decimal) -> Decimal:
        """Mean of exp(-decay) over the wait, what does not meet counting 0."""
        return self._lasting(decay_hz, 0) - self._lasting(decay_hz, 1)

    def mean_wait(self, slow_hz: Decimal) -> Decimal:
        """Mean wait of the first, if it is first: the slope of what a very slow decay takes."""
        return (self._lasting(Decimal(0), 0) - self._lasting(slow_hz, 0)) / slow_hz

    def mean_excess(self, slow_hz: Decimal, cutoff_s: Decimal) -> Decimal:
        """Mean of what the second comes later than the cut-off lets it."""
        late = self._lasting(Decimal(0), 1)
        return (late - self._lasting(slow_hz, 1)) / slow_hz - cutoff_s * late

    def _lasting(self, decay_hz: Decimal, beyond: int) -> Decimal:
        """Mean of exp(-decay) over waits beyond `least` (0) or `most` (1), others counting 0."""
        (a, b), (p, q) = self._attempts, self._chances
        grows, decays = (decay_hz * a).exp(), (-decay_hz * b).exp()
        y = (1 - q) * decays
        summed = _lattice_sum((1 - p) * grows, y, self._terms, self._first, self._first + self._beyond[beyond], self._second)
        return p * grows * q * decays / (1 - y) * summed


_Map = tuple[Decimal, Decimal]
"""(factor, sum): what it adds to a sum when all before it has the factor 1, and the factor it gives all after it."""


def _then(one: _Map, other: _Map) -> _Map:
    return one[0] * other[0], one[1] + one[0] * other[1]


def _times(each: _Map, count: int) -> _Map:
    result = (Decimal(1), Decimal(0))
    while count:
        if count & 1:
            result = _then(result, each)
        each = _then(each, each)
        count >>= 1
    return result


def _lattice_sum(x: Decimal, y: Decimal, terms: int, a: int, b: int, m: int) -> Decimal:
    """Sum over k = 0 .. terms - 1 of x^k y^floor((a k + b)/m), for whole a, b >= 0 and m > 0.

    `step` adds a term and goes on to the next k, `rise` lifts the floor by one; they stand in the order of a line of slope a/m. As Euclid's
    algorithm reduces the slope, what was a step and the rises with it become one map.
    """
    step, rise = (x, Decimal(1)), (y, Decimal(0))
    before = after = (Decimal(1), Decimal(0))
    top = (a * terms + b) // m
    while True:
        rises, a = divmod(a, m)
        step = _then(step, _times(rise, rises))
        at_once, b = divmod(b, m)
        before = _then(before, _times(rise, at_once))
        top -= rises * terms + at_once
        if top == 0:
            return _then(before, _then(_times(step, terms), after))[1]
        steps = (m * top - b - 1) // a + 1
        after = _then(rise, _then(_times(step, terms - steps), after))
        terms, top, a, b, m = top - 1, steps, m, m - b - 1 + a, a
        step, rise = rise, step
