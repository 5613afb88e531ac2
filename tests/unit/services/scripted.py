"""A device in memory that can be told to misbehave, and a network of items to put on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from controller.services.app import Plan, cookie
from controller.services.service import Service
from controller.southbound.device import CrossConnect, DeviceEvent, Diff, FlowRule, Item, KeyRelay, Refused, State, Unreachable


def rule(service: str, number: int, *, hop: int = 0, port: int = 1) -> FlowRule:
    return FlowRule(1000, (("in_port", number),), (("output", port),), cookie(service), hop=hop)


def foreign_rule(number: int) -> FlowRule:
    return FlowRule(1000, (("in_port", number),), (("output", 9),), cookie=77)


def relay(service: str, left: str | None = None, right: str | None = None) -> KeyRelay:
    return KeyRelay(service, ("sae-l", "sae-r"), left, right, 100.0)


def delivered(name: str, desired: dict[str, tuple[Item, ...]], **changes: object) -> Service:
    """A service on its way whose plan wants these items."""
    plan = Plan(desired, frozenset(), {})
    return Service(id=name, kind="connectivity", request={"ends": ["h1", "h3"]}, plan=plan, state="PROGRAMMING").model_copy(update=changes)


class ScriptedDevice:
    """Holds items as a switch would: an added item replaces one of the same key, a port of an optical switch carries one beam.

    `before_apply` is called before a change; what it raises, the device says. `refuses` tells which items it would refuse.
    """

    def __init__(self, name: str, *items: Item, validates: bool = False) -> None:
        self.name = name
        self.items: set[Item] = set(items)
        self.up = True
        self.capabilities = frozenset({"validate"} if validates else ())
        self.refuses: Callable[[Item], bool] = lambda item: False
        self.before_apply: Callable[[Diff], None] = lambda diff: None
        self.before_check: Callable[[], None] = lambda: None
        self.state: Callable[[State], State] = lambda state: state
        self.calls: list[str] = []
        self.on_call: Callable[[], None] = lambda: None

    @property
    def connected(self) -> bool:
        return self.up

    async def _answer(self, call: str) -> None:
        self.calls.append(call)
        self.on_call()
        await asyncio.sleep(0)
        if not self.up:
            raise Unreachable(self.name, "no session")

    async def read(self) -> State:
        await self._answer("read")
        return self.state(State(frozenset(self.items)))

    async def check(self, diff: Diff) -> list[str]:
        await self._answer("check")
        self.before_check()
        return [f"{item} is not possible" for item in diff.add if self.refuses(item)]

    async def apply(self, diff: Diff) -> None:
        await self._answer("apply")
        self.before_apply(diff)
        after = self.items - set(diff.remove)
        added = {item.key for item in diff.add}
        after = {item for item in after if item.key not in added} | set(diff.add)
        ports = [(item.kind, port) for item in after if isinstance(item, CrossConnect) for port in (item.ingress, item.egress)]
        if len(ports) != len(set(ports)):
            raise Refused(self.name, "a port would carry two beams")
        if refused := [item for item in diff.add if self.refuses(item)]:
            raise Refused(self.name, f"will not take {refused[0]}")
        self.items = after
        await asyncio.sleep(0)  # done, but the answer is still on its way

    async def events(self) -> AsyncIterator[DeviceEvent]:
        events: list[DeviceEvent] = []
        for event in events:
            yield event

    async def run(self) -> None:
        await asyncio.Event().wait()
