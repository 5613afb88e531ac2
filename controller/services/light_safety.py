"""The hard rules of light, by what is at the ports: asked when a lightpath is planned, and again of what is about to be changed. Pure.

Light runs both ways through whatever joins two ports, and through more the more is joined. So what is found safe with all additions made
is safe with some of them made, and every state between two stages is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal, TypeGuard, get_args

from controller.network.model import Module
from controller.routing.light.light_route import sends_classical, takes_quantum
from controller.routing.light.plant import Plant, Port, mhz_of, passes
from controller.southbound.device import CrossConnect, Diff, Item, MediaChannel

Join = CrossConnect | MediaChannel
"""What lets light pass between two ports of a device."""
JOINS = frozenset(get_args(Join))
"""Its types: to look them up is much faster than `isinstance`, where there are thousands of items."""
Rule = Literal["exclusive ports", "no classical light into a quantum receiver", "no light into a source", "maximum input power"]
Held = Mapping[str, Iterable[Item]]
Part = tuple[str, Join]
"""A device, and what joins two ports of it."""


@dataclass(frozen=True, slots=True)
class Unsafe:
    """An addition that must not be made."""

    device: str
    item: Join
    rule: Rule
    what: str

    def __str__(self) -> str:
        here, there = ends(self.item)
        return f"{self.device}: joining ports {here} and {there} breaks the rule of {self.rule}: {self.what}"


def ends(item: Join) -> tuple[str, str]:
    """The two ports that an item joins."""
    return (str(item.ingress), str(item.egress)) if isinstance(item, CrossConnect) else (item.source, item.dest)


def unsafe(plant: Plant, held: Held, diffs: Iterable[Diff]) -> list[Unsafe]:
    """The additions among `diffs` after which, with what devices hold by then, a rule is broken; each with the first rule found broken.

    `held` is what each device holds, or may hold where that is not known. What breaks a rule without an addition having a part in it is
    somebody else's doing, and not told.
    """
    diffs = list(diffs)
    added = [(each.device, item) for each in diffs for item in each.add if isinstance(item, Join)]
    if not added:
        return []
    joins = after(held, diffs)
    light = Light(plant, joins)
    found = []
    for device, item in added:
        # what shares no port with a cross-connect is not in its way
        others = joins[device] if isinstance(item, MediaChannel) else light.beside(device, item)
        broken = next(_clashes(item, others), None) or next(light.trespasses(device, item), None)
        if broken is not None:
            found.append(Unsafe(device, item, *broken))
    return found


def dark(plant: Plant, held: Held, diffs: Iterable[Diff]) -> frozenset[Part]:
    """The additions that no light can reach, with all of them made and nothing removed: nothing that sends, and no port at which something
    unknown may send, has a way there."""
    made = [Diff(each.device, add=each.add) for each in diffs]
    light = Light(plant, after(held, made))
    joins = ((each.device, item) for each in made for item in each.add if isinstance(item, Join))
    return frozenset(part for part in joins if light.dark(*part))


def taken(device: str, foreign: Iterable[Item], wanted: Iterable[Item]) -> set[str]:
    """The resources, as the ledger names them, that others' joins take. A port that they share in peace with what is wanted is not taken."""
    ours = [item for item in wanted if isinstance(item, Join)]
    found: set[str] = set()
    for item in foreign:
        if isinstance(item, Join):
            clashing = any(_clashes(item, ours))
            shared = {port for other in ours for port in ends(other)} if not clashing else set()
            found |= {f"port:{device}:{port}" for port in ends(item) if port not in shared}
            found |= {f"channel:{device}:{item.index}"} if isinstance(item, MediaChannel) else set()
    return found


def after(held: Held, diffs: Iterable[Diff]) -> dict[str, set[Join]]:
    """What lets light pass when the changes have been made."""
    joins: dict[str, set[Join]] = defaultdict(set)
    joins |= {device: set(filter(_is_join, items)) for device, items in held.items()}
    for each in diffs:
        joins[each.device] -= set(each.remove)
        joins[each.device] |= {item for item in each.add if isinstance(item, Join)}
    return joins


def _is_join(item: Item) -> TypeGuard[Join]:
    return type(item) in JOINS


def _clashes(item: Join, joins: Iterable[Join]) -> Iterator[tuple[Rule, str]]:
    """A port carries one beam, in either direction; a port of a wavelength switch one of each wavelength."""
    mine = ends(item)
    if mine[0] == mine[1]:
        yield "exclusive ports", "a port cannot be joined to itself"
    for other in joins:
        if other == item or type(other) is not type(item):
            continue
        theirs = ends(other)
        if isinstance(item, MediaChannel) and isinstance(other, MediaChannel):
            overlap = item.lower_frequency_mhz < other.upper_frequency_mhz and other.lower_frequency_mhz < item.upper_frequency_mhz
            if item.index == other.index:
                yield "exclusive ports", f"the channel's number {item.index} is that of another channel"
            elif overlap and (item.source == other.source or item.dest == other.dest):
                yield "exclusive ports", f"channel {other.index} from {theirs[0]} to {theirs[1]} has some of these wavelengths"
        elif shared := set(mine) & set(theirs):
            yield "exclusive ports", f"port {min(shared)} is joined to another in {theirs[0]} to {theirs[1]}"


class Light:
    """Where light goes over the glass of a plant and what joins ports."""

    def __init__(self, plant: Plant, joins: Mapping[str, Iterable[Join]]) -> None:
        self._plant, self.survey = plant, plant.survey
        self._joined: dict[Port, list[tuple[Port, Join]]] = defaultdict(list)
        for device, items in joins.items():
            for item in items:
                if not isinstance(item, MediaChannel) or item.admin != "DISABLED":
                    here, there = ((device, port) for port in ends(item))
                    self._joined[here].append((there, item))
                    self._joined[there].append((here, item))
        self._reached: dict[tuple[Port, int | None], dict[Port, float]] = {}

    def beside(self, device: str, item: Join) -> list[Join]:
        """What joins one of the ports that this item joins."""
        return [other for port in ends(item) for _, other in self._joined.get((device, port), ())]

    def trespasses(self, device: str, item: Join) -> Iterator[tuple[Rule, str]]:
        """The rules broken by light that passes this item."""
        here, there = ((device, port) for port in ends(item))
        modules = self.survey.modules
        sources = {
            port: modules[port] for side in (here, there) for port in self._beyond(side, None) if modules[port].role in ("tx", "tx-rx")
        }
        for mhz in sorted({mhz_of(module.wavelength_nm) for module in sources.values()}):
            if not _lets_through(item, mhz):
                continue
            for near, far in ((here, there), (there, here)):
                for source, lost_db in self._beyond(near, mhz).items():
                    if source not in sources or mhz_of(sources[source].wavelength_nm) != mhz:
                        continue
                    for target, more_db in self._beyond(far, mhz).items():
                        arriving_dbm = sources[source].launch_dbm - lost_db - self._inside_db(device) - more_db
                        yield from _broken(source, sources[source], target, modules[target], arriving_dbm)

    def dark(self, device: str, item: Join) -> bool:
        """Whether nothing that sends, and no port at which something unknown may send, has a way to this item."""
        ahead, left = [(device, port) for port in ends(item)], set[Port]()
        while ahead:
            if (begin := ahead.pop()) in left:
                continue
            left.add(begin)
            there = self.survey.far.get(begin)
            if there is None or self.untold(there) or (there in self.survey.modules and self.survey.modules[there].role != "rx"):
                return False
            ahead += (onward for onward, _, _ in self.across(there, None))
        return True

    def untold(self, port: Port) -> bool:
        """Whether nobody has told what is at a port that glass leads to: of a node that is no device and names no module there."""
        return port not in self.survey.modules and port[0] not in self.survey.devices

    def _beyond(self, port: Port, mhz: int | None) -> dict[Port, float]:
        """The modules that light leaving by a port reaches, with the least loss in dB; None: light of any frequency."""
        if (found := self._reached.get((port, mhz))) is not None:
            return found
        found = self._reached[port, mhz] = {}
        heap, left = [(0.0, port)], set[Port]()
        while heap:
            loss_db, begin = heappop(heap)
            there = self.survey.far.get(begin)
            if begin in left or there is None:
                continue
            left.add(begin)
            if (glass := self._plant.glass.get(begin)) is not None:  # of glass whose loss is not known, nothing is sure to be lost
                loss_db += glass.loss_db
            if there in self.survey.modules:
                found.setdefault(there, loss_db)
            for onward, lost_db, _ in self.across(there, mhz):
                heappush(heap, (loss_db + lost_db, onward))
        return found

    def across(self, port: Port, mhz: int | None) -> Iterator[tuple[Port, float, Join | None]]:
        """Where light that has come in by a port leaves the device, with what it loses inside, and through what; None: a passive node."""
        for there, item in self._joined.get(port, ()):
            if _lets_through(item, mhz):
                yield there, self._inside_db(port[0]), item
        node = self.survey.devices.get(port[0])
        if node is not None and node.kind == "passive":
            for name in self.survey.ports[port[0]]:
                for leave in self._plant.through(node, port, (port[0], name)):
                    if mhz is None or passes(leave.bands, mhz):
                        yield (port[0], name), leave.inside_db, None

    def _inside_db(self, device: str) -> float:
        node = self.survey.devices.get(device)
        return (node.insertion_loss_db or 0.0) if node is not None else 0.0


def _lets_through(item: Join, mhz: int | None) -> bool:
    return mhz is None or isinstance(item, CrossConnect) or item.lower_frequency_mhz <= mhz <= item.upper_frequency_mhz


def _broken(source: Port, sender: Module, target: Port, taker: Module, arriving_dbm: float) -> Iterator[tuple[Rule, str]]:
    here, there = ":".join(source), ":".join(target)
    if sends_classical(sender) and takes_quantum(taker):
        yield "no classical light into a quantum receiver", f"light of the {sender.signal} transmitter {here} would reach {there}"
    if taker.role == "tx":
        yield "no light into a source", f"light of {here} would travel backwards into the transmitter {there}"
    elif taker.max_input_dbm is not None and arriving_dbm > taker.max_input_dbm + 1e-9:
        told = f"{arriving_dbm:.2f} dBm from {here} would arrive at {there}, which takes {taker.max_input_dbm:g} dBm at most"
        yield "maximum input power", told
