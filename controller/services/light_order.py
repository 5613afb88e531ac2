"""In which order light is led elsewhere, so that none stands on half a way in between. Pure.

The order follows the light itself, whatever was planned: from each transmitter over the glass and through what the switches were read to
hold. What comes first on a way that is given up goes before all behind it, which is dark then; what comes first on a new way is made last.
Where a way changes behind a join that stays, that join is taken apart meanwhile: the first that no other light needs. No switch has to have
a shutter for this; light that comes from both ends of a way at once stands on half of it for the moment between two switches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field

import networkx as nx

from controller.routing.light.plant import Plant, Port, mhz_of
from controller.services.light_safety import Held, Join, Light, Part, after, dark, ends
from controller.southbound.device import CrossConnect, Diff, Item

Way = tuple[tuple[Part, ...], bool]
"""What light passes, in order, and whether it comes to an end there that is one: a module, or whatever nobody has told of."""


@dataclass(frozen=True, slots=True)
class LightOrder:
    """Ranks of what is removed and of what is added; lower ones first, equal ones in any order."""

    removals: Mapping[Part, int] = field(default_factory=dict)
    additions: Mapping[Part, int] = field(default_factory=dict)
    early: Set[Part] = frozenset()
    """Additions to be made while old light still stands: they are dark, and their ports are free."""
    darkened: Set[Part] = frozenset()
    """What is to be taken apart and made again though it is to stay."""
    behind: Mapping[Part, Set[Part]] = field(default_factory=dict)
    """By removal, what must be gone before it."""

    def obstacle(self, removal: Part, joins: Mapping[str, Container[Join]]) -> str:
        """The switch at which light is still to be put out before this is removed, as far as `joins` tells; "" when it may be removed."""
        return min((device for device, item in self.behind.get(removal, ()) if item in joins.get(device, ())), default="")


def in_order(
    plant: Plant,
    held: Held,
    diffs: Iterable[Diff],
    wanted: Mapping[str, Container[Item]],
    leaving: Mapping[str, Container[Item]],
) -> LightOrder:
    """The order of the diffs. `held` is what each device holds, or may hold where it has not been read.

    Of that, `wanted` is ours and to stay, and `leaving` is to be gone, if not by the diffs then when its device answers.
    """
    diffs = [each for each in diffs if any(isinstance(item, Join) for item in (*each.add, *each.remove))]
    removed = {(each.device, item) for each in diffs for item in each.remove if isinstance(item, Join)}
    added = {(each.device, item) for each in diffs for item in each.add if isinstance(item, Join)}
    now, then = Light(plant, after(held, ())), Light(plant, after(held, diffs))
    senders, open_ports = _origins((now, then), removed | added)
    far, modules = plant.survey.far, plant.survey.modules

    def told(light: Light) -> list[Way]:
        """Of transmitters' light."""
        return [way for port in senders for way in _ways(light, far[port], mhz_of(modules[port].wavelength_nm))]

    def untold(light: Light) -> list[Way]:
        """Of what may come in where nobody has told what is there, and of transmitters tuned to other than their modules' wavelengths."""
        return [way for port in (*(far[sender] for sender in senders), *open_ports) for way in _ways(light, port, None)]

    def going(ways: Iterable[Way]) -> set[Part]:
        return {part for way, _ in ways for part in way if part in removed or part[1] in leaving.get(part[0], ())}

    ways = told(now)
    gone = going(ways)
    darkened = _to_be_darkened(ways, removed, gone, wanted)
    behind = _behind(ways, gone | darkened)
    if not gone >= removed:
        ways = untold(now)
        behind |= _behind(ways, going(ways) - gone)
    ranks = _ranks(removed | darkened, behind)

    early = dark(plant, held, map(_in_nobodys_way, diffs))
    late = (added - early) | darkened
    ways = told(then)
    first = _behind(ways, late)
    if rest := late.difference(*(way for way, _ in ways)):
        first |= _behind(untold(then), rest)
    last: dict[Part, set[Part]] = defaultdict(set)
    for part, firsts in first.items():
        for each in firsts:
            last[each].add(part)
    return LightOrder(
        removals=ranks,
        additions=_ranks(late, last),
        early=early,
        darkened=darkened,
        behind={part: {each for each in behind[part] if ranks.get(each, -1) < ranks[part]} for part in behind.keys() & ranks.keys()},
    )


def _origins(lights: Iterable[Light], parts: Iterable[Part]) -> tuple[list[Port], list[Port]]:
    """The transmitters whose light may come to one of these, and the ports of switches at which something else may send."""
    senders, open_ports = dict[Port, None](), dict[Port, None]()
    lights = tuple(lights)
    ahead = [(device, port) for device, item in sorted(parts, key=repr) for port in ends(item)]
    left = set[Port]()
    while ahead:
        if (begin := ahead.pop()) in left:
            continue
        left.add(begin)
        for light in lights:
            there = light.survey.far.get(begin)
            if there is None or light.untold(there):
                open_ports[begin] = None
            elif there in light.survey.modules:
                if light.survey.modules[there].role != "rx":
                    senders[there] = None
            else:
                ahead += (onward for onward, _, _ in light.across(there, None))
    return list(senders), list(open_ports)


def _ways(light: Light, arriving: Port, mhz: int | None) -> Iterator[Way]:
    """Every way of light that has come in by a port."""
    ahead: list[tuple[Port, tuple[Part, ...], frozenset[Port]]] = [(arriving, (), frozenset())]
    while ahead:
        here, passed, seen = ahead.pop()
        onward = [(port, item) for port, _, item in light.across(here, mhz) if port not in seen]
        if not onward:
            yield passed, False
        for port, item in onward:
            through = passed if item is None else (*passed, (port[0], item))
            there = light.survey.far.get(port)
            if there is None or there in light.survey.modules or light.untold(there):
                yield through, True
            else:
                ahead.append((there, through, seen | {here, port}))


def _to_be_darkened(ways: list[Way], removed: Set[Part], gone: Set[Part], wanted: Mapping[str, Container[Item]]) -> set[Part]:
    """By way that is whole and changes behind joins that stay, the first of these that no whole way needs which stays as it is."""
    needed = {part for way, whole in ways if whole and gone.isdisjoint(way) for part in way}
    darkened = set[Part]()
    for way, whole in ways:
        first = next((place for place, part in enumerate(way) if part in gone), 0)
        if whole and first and way[first] in removed:
            darkened.update([part for part in way[:first] if part not in needed and part[1] in wanted.get(part[0], ())][:1])
    return darkened


def _behind(ways: Iterable[Way], parts: Set[Part]) -> dict[Part, set[Part]]:
    """By part, the first of them on each way that leads on to it."""
    found: dict[Part, set[Part]] = defaultdict(set)
    for way, _ in ways:
        mine = [part for part in way if part in parts]
        for part in mine[1:]:
            found[part].add(mine[0])
    return found


def _ranks(parts: Set[Part], needs: Mapping[Part, Set[Part]]) -> dict[Part, int]:
    """Each part's rank is above those of the parts it needs; of parts that need each other, it is the same."""
    left = {part: set(needs.get(part, ())) & parts for part in parts}
    ranks: dict[Part, int] = {}
    rank = 0
    while left:
        ready = {part for part, before in left.items() if not before} or _ring(left)
        ranks |= dict.fromkeys(ready, rank)
        left = {part: before - ready for part, before in left.items() if part not in ready}
        rank += 1
    return ranks


def _ring(needs: Mapping[Part, Set[Part]]) -> set[Part]:
    """Parts that need each other and no more, where every part needs some."""
    rings = nx.condensation(nx.DiGraph([(before, part) for part, each in needs.items() for before in each]))
    return {part for ring, count in rings.in_degree if count == 0 for part in rings.nodes[ring]["members"]}


def _in_nobodys_way(each: Diff) -> Diff:
    """The additions of cross-connects that need no port that is to be freed."""
    breaking = {port for item in each.remove if isinstance(item, CrossConnect) for port in ends(item)}
    return Diff(each.device, add=tuple(item for item in each.add if isinstance(item, CrossConnect) and breaking.isdisjoint(ends(item))))
