"""Who hears whom: the directed links between ports, and what they come to: links, one-way links and loops."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

from controller.southbound.discovery.liveness import Liveness, Timing, fallen, heard, missed

End = tuple[str, int]
"""A switch and its port."""
Pair = tuple[End, End]
"""Two ports. Of a link or a loop the lesser comes first, of a one-way link the one that is heard."""

_MOST_RECEIVERS = 16
"""Ports that may hear one port: a hub has more than one, and a switch that makes ports up must not fill the memory."""
_FORGOTTEN_AFTER = 300
"""Hellos missed in a row after which a direction is forgotten, falls included."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something was found, or is no more."""

    kind: Literal["link", "one-way", "loop"]
    pair: Pair
    found: bool


@dataclass(slots=True)
class _Arrival:
    nonce: int
    liveness: Liveness = field(default_factory=Liveness)


class Links:
    """Fed with hellos that leave and arrive; every method that can change what is found returns the changes.

    A link is there when both directions are up; a loop, a switch that hears itself, with the first hello.
    """

    def __init__(self, timing: Timing, first_nonce: int = 0) -> None:
        self.timing = timing
        self.links: set[Pair] = set()
        self.one_way: set[Pair] = set()
        self.loops: set[Pair] = set()
        self._nonce = first_nonce
        self._sent: dict[str, dict[int, tuple[int, int | None]]] = {}
        """The last two nonces that left, by switch and port."""
        self._arrivals: dict[End, dict[End, _Arrival]] = {}
        """By the port that is heard, and the one that hears it."""
        self._origins: dict[End, set[End]] = {}
        self._live: dict[End, int] = {}

    def joined(self, end: End) -> bool:
        """Whether a direction that is up begins or ends at this port."""
        return end in self._live

    def at(self, end: End) -> Iterator[Pair]:
        """The links that are found at this port."""
        yield from (pair for other in self._arrivals.get(end, ()) if (pair := _pair(end, other)) in self.links)

    def leaves(self, origin: End, connected: Collection[str]) -> tuple[int, list[Change]]:
        """A hello is about to leave this port: its nonce. Who is connected, could have heard the one before, and did not, has missed it."""
        changes: list[Change] = []
        sent = self._sent.setdefault(origin[0], {})
        before = sent.get(origin[1])
        if before is not None:
            for receiver, arrival in list(self._arrivals.get(origin, {}).items()):
                if arrival.nonce != before[0] and receiver[0] in connected:
                    changes += self._becomes(missed(arrival.liveness, self.timing), (origin, receiver))
                    if arrival.liveness.missed >= _FORGOTTEN_AFTER:
                        del self._arrivals[origin][receiver]
                        self._origins[receiver].discard(origin)
        self._nonce = (self._nonce + 1) % 2**64
        sent[origin[1]] = (self._nonce, before[0] if before else None)
        return self._nonce, changes

    def withdraws(self, origin: End) -> None:
        """The hello that was about to leave did not: nobody can miss it."""
        self._sent[origin[0]].pop(origin[1], None)

    def arrives(self, origin: End, receiver: End, nonce: int) -> list[Change] | None:
        """A hello of this controller has arrived. None when it was replayed: it is none of the last two that left there, or has been here.

        What comes from a port that has gone, or whose switch has, was under way then, and is left aside.
        """
        sent = self._sent.get(origin[0], {}).get(origin[1])
        if sent is None:
            return []
        arrivals = self._arrivals.setdefault(origin, {})
        arrival = arrivals.get(receiver)
        if nonce not in sent or (arrival is not None and arrival.nonce in (nonce, sent[0])):
            return None
        if arrival is None:
            if len(arrivals) >= _MOST_RECEIVERS:
                return None
            arrival = arrivals[receiver] = _Arrival(nonce)
            self._origins.setdefault(receiver, set()).add(origin)
        arrival.nonce = nonce
        return self._becomes(heard(arrival.liveness, self.timing), (origin, receiver))

    def goes_down(self, end: End) -> list[Change]:
        """The port has lost its signal: what it hears, and what hears it, is gone at once."""
        self._sent.get(end[0], {}).pop(end[1], None)
        directions = [(end, receiver) for receiver in self._arrivals.get(end, ())]
        directions += [(origin, end) for origin in self._origins.get(end, ())]
        evaluated = [each for each in directions if self._put(each, fallen(self._arrivals[each[0]][each[1]].liveness))]
        return [change for each in evaluated for change in self._comes_to(*each)]

    def pauses(self, switch: str) -> None:
        """The session with a switch is gone: nothing can be said of its links until it is back, and they stay as they are."""
        self._sent.pop(switch, None)

    def _becomes(self, after: Liveness, direction: Pair) -> list[Change]:
        if not self._put(direction, after):
            return []
        changes = self._comes_to(*direction)
        return changes + [gone for change in changes if change.kind == "link" and change.found for gone in self._replaced_by(change.pair)]

    def _replaced_by(self, pair: Pair) -> list[Change]:
        """A port has one cable: a link that misses hellos while another is found at its port has been unplugged."""
        stale = [
            (a, b)
            for end in pair
            for a, b in list(self.at(end))
            if (a, b) != pair and (self._direction(a, b).missed or self._direction(b, a).missed)
        ]
        for a, b in stale:
            for direction in ((a, b), (b, a)):
                self._put(direction, fallen(self._direction(*direction)))
        return [change for each in stale for change in self._comes_to(*each)]

    def _put(self, direction: Pair, after: Liveness) -> bool:
        """Keep a direction's liveness; whether that can change what is found."""
        origin, receiver = direction
        arrival = self._arrivals[origin][receiver]
        before, arrival.liveness = arrival.liveness, after
        if before.up != after.up:
            for end in direction:
                self._live[end] = self._live.get(end, 0) + (1 if after.up else -1)
                if not self._live[end]:
                    del self._live[end]
        settled = after.heard == self.timing.settled_hellos or after.missed == self.timing.dead_multiplier
        return before.up != after.up or settled or origin[0] == receiver[0]

    def _comes_to(self, origin: End, receiver: End) -> list[Change]:
        there, back = self._direction(origin, receiver), self._direction(receiver, origin)
        pair = _pair(origin, receiver)
        if origin[0] == receiver[0]:
            return _changed("loop", self.loops, pair, any(each.up or each.heard for each in (there, back)))
        changes = _changed("link", self.links, pair, there.up and back.up)
        for way, forth, other in (((origin, receiver), there, back), ((receiver, origin), back, there)):
            alone = forth.up and not other.up
            if alone and way not in self.one_way:  # long enough to tell, and not merely the first of the two to go
                silent = other.missed >= self.timing.dead_multiplier or forth.heard >= self.timing.settled_hellos
                alone = not forth.missed and not other.heard and silent
            changes += _changed("one-way", self.one_way, way, alone)
        return changes

    def _direction(self, origin: End, receiver: End) -> Liveness:
        arrival = self._arrivals.get(origin, {}).get(receiver)
        return arrival.liveness if arrival else Liveness()


def _pair(a: End, b: End) -> Pair:
    return (a, b) if a <= b else (b, a)


def _changed(kind: Literal["link", "one-way", "loop"], known: set[Pair], pair: Pair, now: bool) -> list[Change]:
    if (pair in known) == now:
        return []
    (known.add if now else known.discard)(pair)
    return [Change(kind, pair, now)]
