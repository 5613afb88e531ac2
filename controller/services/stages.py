"""The one place where the order of changes lives: which part of which device's diff goes before which. Pure.

Light never lands on a half-built path and packets never meet a missing rule: what joins the far ports of new lightpaths is made while old
ones still stand (make before break) where no port is in the way; then optical removals (break before make: one port, one beam), then the
other additions, from the receiver's switch back to the source's; key relay entries when the light is there, from the middle to the ends;
for OpenFlow meters and groups, then the rules that use them from the far end back to the ingress, whose rules turn the traffic over, then
removals, of meters and groups last (make before break).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.services.light_safety import ends
from controller.southbound.device import CrossConnect, Diff, FlowRule, Group, Item, KeyRelay, MediaChannel, Meter, order

Stage = dict[str, Diff]


def stages(diffs: Iterable[Diff], light_order: Mapping[tuple[str, int, int], int], *, make_first: bool = False) -> list[Stage]:
    """The diffs cut into stages; within one, devices are independent and go in parallel, one diff per device.

    `light_order` numbers what joins two ports (switch, ingress, egress) along their lightpaths from the source (0): additions go from the
    highest number down, so the switch that the source feeds is last. With `make_first` what needs no port that is to be freed, and is not at
    the source's switch, is made before anything is broken: right as long as it is `dark`. Every item of the diffs is in exactly one stage.
    """
    diffs = list(diffs)
    numbered: dict[tuple[int, int], dict[str, tuple[list[Item], list[Item]]]] = {}

    def place(device: str, item: Item) -> int:
        if not isinstance(item, CrossConnect | MediaChannel):
            return 0
        here, there = ends(item)
        return light_order.get((device, int(here), int(there)), 0) if here.isdecimal() and there.isdecimal() else 0

    def put(rank: tuple[int, int], device: str, item: Item, *, remove: bool) -> None:
        add_remove = numbered.setdefault(rank, {}).setdefault(device, ([], []))
        add_remove[remove].append(item)

    for each in diffs:
        breaking = {port for item in each.remove if isinstance(item, CrossConnect) for port in ends(item)}
        for item in each.remove:
            put(_removal_rank(item, place(each.device, item)), each.device, item, remove=True)
        for item in each.add:
            at = place(each.device, item)
            early = make_first and at > 0 and isinstance(item, CrossConnect) and breaking.isdisjoint(ends(item))
            put((-1, -at) if early else _addition_rank(item, at), each.device, item, remove=False)
    return [
        {device: Diff(device, add=order(add), remove=order(remove)) for device, (add, remove) in sorted(devices.items())}
        for _, devices in sorted(numbered.items())
    ]


def _removal_rank(item: Item, place: int) -> tuple[int, int]:
    match item:
        case CrossConnect() | MediaChannel():
            return 0, place  # the switch next to the source first: what follows is dark
        case KeyRelay():
            return 2, 0 if item.left is None or item.right is None else 1  # the ends stop asking before the middle stops answering
        case FlowRule():
            return 6, item.hop
        case Group() | Meter():
            return 7, 0  # a driver knows what follows what within one switch


def _addition_rank(item: Item, place: int) -> tuple[int, int]:
    match item:
        case CrossConnect() | MediaChannel():
            return 1, -place
        case KeyRelay():
            return 3, 1 if item.left is None or item.right is None else 0
        case Group() | Meter():
            return 4, 0
        case FlowRule():
            return 5, -item.hop
