"""The one place where the order of changes lives: which part of which device's diff goes before which. Pure.

Light never lands on a half-built path and packets never meet a missing rule: what joins the far ports of new lightpaths is made while old
ones still stand (make before break) where no port is in the way; then optical removals (break before make: one port, one beam), at the
source's switch first; then the other additions, at the source's switch last (`light_order` says what that is); key relay entries when the
light is there, from the middle to the ends; for OpenFlow meters and groups, then the rules that use them from the far end back to the
ingress, whose rules turn the traffic over, then removals, of meters and groups last (make before break).
"""

from __future__ import annotations

from collections.abc import Iterable

from controller.services.light_order import LightOrder
from controller.southbound.device import CrossConnect, Diff, FlowRule, Group, Item, KeyRelay, MediaChannel, Meter, order

Stage = dict[str, Diff]
_DARK = LightOrder()


def stages(diffs: Iterable[Diff], light: LightOrder = _DARK) -> list[Stage]:
    """The diffs cut into stages; within one, devices are independent and go in parallel, one diff per device.

    Every addition and every removal of the diffs is in exactly one stage; what is to be dark meanwhile is in both. What `light` does not
    know counts as next to the source.
    """
    numbered: dict[tuple[int, int], dict[str, tuple[list[Item], list[Item]]]] = {}

    def put(rank: tuple[int, int], device: str, item: Item, *, remove: bool) -> None:
        add_remove = numbered.setdefault(rank, {}).setdefault(device, ([], []))
        add_remove[remove].append(item)

    for each in diffs:
        for item in each.remove:
            put(_removal_rank(each.device, item, light), each.device, item, remove=True)
        for item in each.add:
            put(_addition_rank(each.device, item, light), each.device, item, remove=False)
    return [
        {device: Diff(device, add=order(add), remove=order(remove)) for device, (add, remove) in sorted(devices.items())}
        for _, devices in sorted(numbered.items())
    ]


def _removal_rank(device: str, item: Item, light: LightOrder) -> tuple[int, int]:
    match item:
        case CrossConnect() | MediaChannel():
            return 0, light.removals.get((device, item), 0)
        case KeyRelay():
            return 2, 0 if item.left is None or item.right is None else 1  # the ends stop asking before the middle stops answering
        case FlowRule():
            return 6, item.hop
        case Group() | Meter():
            return 7, 0  # a driver knows what follows what within one switch


def _addition_rank(device: str, item: Item, light: LightOrder) -> tuple[int, int]:
    match item:
        case CrossConnect() | MediaChannel() if (device, item) in light.early:
            return -1, 0
        case CrossConnect() | MediaChannel():
            return 1, light.additions.get((device, item), 0)
        case KeyRelay():
            return 3, 1 if item.left is None or item.right is None else 0
        case Group() | Meter():
            return 4, 0
        case FlowRule():
            return 5, -item.hop
