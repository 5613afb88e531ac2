"""What a round of the reconciler has to do: by device what is to change there, and the service that each item is for."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Set
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from controller.services.app import cookie
from controller.services.light_order import LightOrder
from controller.services.light_safety import JOINS, Join, Part, ends
from controller.services.service import Service
from controller.services.turn import Turn
from controller.southbound.device import Diff, FlowRule, Group, Item, KeyRelay, Meter
from controller.southbound.openflow.change import used

PIECE = 200
"""So many items are looked through before others have their turn."""


class Change(NamedTuple):
    """What one device is to change, and the service each item is for; "" for what no service has any more."""

    whole: Diff
    owners: Mapping[Item, str]

    def only(self, concerns: Callable[[str], bool]) -> Change:
        """The part of it that is for some of the services."""
        return self.about({item: service for item, service in self.owners.items() if concerns(service)})

    def about(self, owners: Mapping[Item, str]) -> Change:
        """The part of it that is about these items."""
        return self if len(owners) == len(self.owners) else Change(_within(self.whole, owners), owners)


Work = dict[str, Change]


def lit(work: Work) -> list[str]:
    """The devices on which something is to change that lets light pass."""
    return [name for name, change in work.items() if not JOINS.isdisjoint(map(type, change.owners))]


async def owned(
    each: Diff, read: Iterable[Item], wanted: Mapping[Item, tuple[str, ...]], services: Mapping[str, Service], held: Container[str]
) -> Change:
    """The diff of a device that was read to hold this, with whose its items are; without those of services that are held, and without what
    is no longer `wanted` there."""
    kinds = set(map(type, each.remove))
    flows = kinds & {FlowRule, Group, Meter}
    cookies = {_cookie(name): name for name, service in services.items() if service.delivered} if flows else {}
    users = _users(read, cookies) if kinds & {Group, Meter} else {}

    def leaving(item: Item) -> str:
        match item:
            case FlowRule():
                return cookies.get(item.cookie, "")
            case Group() | Meter():
                return users.get(item.key, "")  # with the rules that use it, which would be deleted with it
            case KeyRelay() if item.service in services and services[item.service].delivered:
                return item.service
        return ""

    owners: dict[Item, str] = {}
    turn = Turn()
    for start in range(0, max(len(each.add), len(each.remove)), PIECE):
        piece = slice(start, start + PIECE)
        owners |= {item: wants[-1] for item in each.add[piece] if (wants := wanted.get(item)) and wants[-1] not in held}
        owners |= {item: owner for item in each.remove[piece] if (owner := leaving(item)) not in held}
        await turn.pause()
    return Change(each if len(owners) == len(each.add) + len(each.remove) else _within(each, owners), owners)


def _users(items: Iterable[Item], cookies: Mapping[int, str]) -> dict[object, str]:
    """By key of a group or meter the service whose rules use it, by themselves or through a group."""
    beyond = {item.key: tuple(used(item)) for item in items if isinstance(item, Group)}
    users: dict[object, str] = {}
    for rule in items:
        if isinstance(rule, FlowRule) and rule.cookie in cookies:
            ahead = list(used(rule))
            while ahead:
                if (key := ahead.pop()) not in users:
                    users[key] = cookies[rule.cookie]
                    ahead += beyond.get(key, ())
    return users


def drop(work: Work, devices: Set[str], services: Set[str]) -> None:
    """Take devices, and services on every device, out of the work; a device that goes takes the services with a part in it along."""
    services = services | {service for name in devices for service in work[name].owners.values() if service}
    for name, change in work.items() if devices or services else ():
        gone = name in devices
        if gone or not services.isdisjoint(change.owners.values()):
            work[name] = change.only(lambda service, gone=gone: not gone and service not in services)  # type: ignore[misc]


async def to_do(work: Work, stage: Mapping[str, Diff]) -> Work:
    """What of a stage is still to be done."""
    calls: Work = {}
    turn = Turn()
    for name, whole in stage.items():
        owners = work[name].owners
        part = _within(replace(whole, foreign=work[name].whole.foreign), owners)
        if not part.empty:
            calls[name] = Change(part, owners)
        await turn.pause()
    return calls


def darken(work: Work, parts: Mapping[Part, str]) -> None:
    """Have these parts of the light's ways removed and added again, each for its service."""
    for (name, item), service in parts.items():
        whole, owners = work.get(name, Change(Diff(name), {}))
        whole = replace(whole, add=(*whole.add, item), remove=(*whole.remove, item))
        work[name] = Change(whole, {**owners, item: service})


def wait_for_dark(work: Work, stage: Mapping[str, Diff], light: LightOrder, joins: Mapping[str, Set[Join]]) -> dict[str, set[str]]:
    """Take out of the work what of a stage's removals may still be lit, and the services that need the ports.

    Returns for each device that waits the switches from which light may still come.
    """
    sources: dict[str, set[str]] = {}
    for name, each in stage.items():
        owners = work[name].owners
        lit = {item: source for item in each.remove if isinstance(item, Join) and (source := light.obstacle((name, item), joins))}
        lit = {item: source for item, source in lit.items() if item in owners}
        if not lit:
            continue
        ports = {port for item in lit for port in ends(item)}
        blocked = {owners[item] for item in work[name].whole.add if isinstance(item, Join) and not ports.isdisjoint(ends(item))}
        work[name] = work[name].about({item: service for item, service in owners.items() if item not in lit})
        drop(work, set(), blocked - {""})
        sources[name] = set(lit.values())
    return sources


def _within(each: Diff, items: Container[Item]) -> Diff:
    """The part of a diff that is about these items."""
    return replace(each, add=tuple(item for item in each.add if item in items), remove=tuple(item for item in each.remove if item in items))


_cookie = lru_cache(65536)(cookie)
