"""Switches joined by links, asked as one: where does a frame come out that goes in here?

fabric = Fabric({"s1": first, "s2": second}, [(("h1", 1), ("s1", 1)), (("s1", 2), ("s2", 2)), (("s2", 1), ("h2", 1))])
assert fabric.send(frame, ("h1", 1)).arrived == [("h2", frame)]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from topologies.emulation.openflow.pipeline import PacketIn, Pipeline

End = tuple[str, int]
"""A node and its port."""


class ForwardingLoop(Exception):
    """A frame came back, unchanged, to a port where it had come in. `ends` are the ports it went round by."""

    def __init__(self, ends: list[End]) -> None:
        super().__init__("a frame goes round by " + " ".join(f"{node}:{port}" for node, port in ends))
        self.ends = ends


@dataclass(slots=True)
class Journey:
    """What became of a frame and its copies. `visited` are the switch ports they came in by, in the order of the walk."""

    arrived: list[tuple[str, bytes]] = field(default_factory=list)
    packet_ins: list[tuple[str, PacketIn]] = field(default_factory=list)
    visited: list[End] = field(default_factory=list)


class Fabric:
    """`links` join ports; a node that is no switch is a host. A port without a link leads nowhere."""

    def __init__(self, switches: Mapping[str, Pipeline], links: Iterable[tuple[End, End]]) -> None:
        self.switches = dict(switches)
        self._far = {near: far for a, b in links for near, far in ((a, b), (b, a))}

    def send(self, frame: bytes, source: End, now_s: float = 0.0) -> Journey:
        """Carry a frame that leaves by `source`, a host's port or a switch's, until all copies have arrived or are dropped.

        ForwardingLoop when one comes back unchanged; one whose TTL a switch lowers goes round until it has none.
        """
        journey = Journey()
        ahead: list[tuple[End | None, bytes, list[tuple[End, bytes]]]] = [(self._far.get(source), frame, [])]
        while ahead:
            end, frame, way = ahead.pop()
            if end is None:
                continue
            node, port = end
            if node not in self.switches:
                journey.arrived.append((node, frame))
                continue
            if (end, frame) in way:
                raise ForwardingLoop([each for each, _ in way[way.index((end, frame)) :]])
            journey.visited.append(end)
            passage = self.switches[node].process(frame, port, now_s)
            journey.packet_ins += [(node, packet_in) for packet_in in passage.packet_ins]
            further = [*way, (end, frame)]
            ahead += [(self._far.get((node, out)), copy, further) for out, copy in reversed(passage.outputs)]
        return journey
