"""When a route holds: what the availability windows of links have to do with the answer to a request."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from controller.network.topology import Topology
from controller.network.windows import iso
from controller.routing.refusal import NoRoute

OPENINGS_TRIED = 64
"""So many beginnings of windows are tried for a request that is refused now."""


@dataclass(frozen=True, slots=True)
class Holds:
    """The interval in which a route holds, in seconds since the epoch, and the link whose window ends it."""

    from_s: float
    until_s: float
    link: str

    def __str__(self) -> str:
        return f"holds from {iso(self.from_s)} until {iso(self.until_s)}, when the window of {self.link} ends"

    def to_json(self) -> dict[str, str]:
        return {"from": iso(self.from_s), "until": iso(self.until_s)}


def answer_at(topology: Topology, moment_s: float, compute: Callable[[Topology], dict[str, Any]]) -> dict[str, Any]:
    """What `compute` makes of the network as it is at a moment (seconds since the epoch): the answer of a route function, as JSON.

    Over links with windows it has `holds`, from when until when, and a line of explanation. Raises what `compute` does; a NoRoute says from
    when on there is a route, if a window that begins later brings one.
    """
    try:
        answer = compute(topology.at(moment_s))
    except NoRoute as none:
        for opening_s in topology.openings(moment_s)[:OPENINGS_TRIED]:
            try:
                compute(topology.at(opening_s))
            except NoRoute:
                continue
            raise NoRoute(f"{none.error}; there is one from {iso(opening_s)} on, when a window opens", none.constraint, none.best) from None
        raise
    holds = held(topology, moment_s, set(_links(answer)))
    if holds is None:
        return answer
    return {**answer, "holds": holds.to_json(), "explanation": [*answer.get("explanation", ()), str(holds)]}


def held(topology: Topology, moment_s: float, links: Iterable[str]) -> Holds | None:
    """The interval around a moment in which links (by id) that are usable then stay so; None where none of them has windows."""
    if not topology.has_windows:
        return None
    around = {link: topology.open_around(topology.link(link), moment_s) for link in links}
    bounded = {link: each for link, each in around.items() if each is not None and each != (-math.inf, math.inf)}
    if not bounded:
        return None
    until_s, first = min((each[1], link) for link, each in bounded.items())
    return Holds(max(each[0] for each in bounded.values()), until_s, first)


def _links(answer: Any) -> Iterator[str]:
    """The ids of links anywhere in an answer: under `links`, and under `link` of a hop."""
    if isinstance(answer, dict):
        for key, value in answer.items():
            if key == "links":
                yield from value
            elif key == "link" and isinstance(value, str):
                yield value
            else:
                yield from _links(value)
    elif isinstance(answer, list | tuple):
        for each in answer:
            yield from _links(each)
