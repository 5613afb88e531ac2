"""An optical circuit switch over SCPI (raw TCP).

SCPI has no locks, no notifications and nothing to validate with: what the switch holds is read before each change, so that no port is taken
from its owner, and asked for again and again, so that other hands are noticed. Never sent: `CONN:ONLY` and `DISC:ALL`, which undo what
others have connected.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress

from controller.southbound.device import Changed, CrossConnect, DeviceEvent, Diff, Item, PortChanged, Refused, State
from controller.southbound.drivers.reconnection import Reconnection, host_and_port
from controller.southbound.scpi import grammar
from controller.southbound.scpi.session import ScpiSession, open_session
from controller.southbound.session import RefusedError

Pair = tuple[int, int]


class ScpiSwitch:
    """The driver; `address` is `host:port`. The switch is asked every `poll_s`.

    It is not atomic: removals are done before additions are asked for. It has no power readings: the grammar known here has no query
    for them. A port whose state is not `enabled` passes no light, and is reported as one without signal.
    """

    def __init__(
        self,
        name: str,
        address: str,
        *,
        timeout_s: float = 10.0,
        poll_s: float = 2.0,
        reconnect_min_s: float = 0.5,
        reconnect_max_s: float = 30.0,
    ) -> None:
        host, port = host_and_port(name, address)
        self.name = name
        self.capabilities: frozenset[str] = frozenset()
        self.link: Reconnection[ScpiSession] = Reconnection(
            name, lambda: open_session(host, port, timeout_s=timeout_s), self._follow, min_s=reconnect_min_s, max_s=reconnect_max_s
        )
        self._poll_s = poll_s
        self._size = (0, 0)
        self._changing = asyncio.Lock()
        self._held: frozenset[Pair] = frozenset()
        """What the switch was last seen to hold."""

    @property
    def connected(self) -> bool:
        return self.link.connected

    def events(self) -> AsyncIterator[DeviceEvent]:
        return self.link.events()

    async def run(self) -> None:
        await self.link.run()

    async def read(self) -> State:
        """The cross-connects in effect."""
        async with self._changing:
            with self.link.session() as session:
                return State(items=frozenset(CrossConnect(*pair) for pair in await self._look(session)))

    async def check(self, diff: Diff) -> list[str]:
        """What the switch would refuse, by its size and by what it holds now."""
        add, remove = self._pairs(diff.add), self._pairs(diff.remove)
        async with self._changing:
            with self.link.session() as session:
                return _faults(await self._look(session), self._size, add, remove)

    async def apply(self, diff: Diff) -> None:
        """Take apart, connect, read back. A change that fails on the way leaves what was done until then."""
        add, remove = self._pairs(diff.add), self._pairs(diff.remove)
        if diff.empty:
            return
        async with self._changing:
            with self.link.session() as session:
                held = await self._look(session)
                if faults := _faults(held, self._size, add, remove):
                    raise RefusedError("; ".join(faults))
                if pairs := sorted(held.intersection(remove)):
                    await self._command(session, grammar.subtract_connections(pairs))
                if pairs := sorted(set(add) - held):
                    await self._command(session, grammar.add_connections(pairs))
                wrong = [f"{ingress} to {egress} is not connected" for ingress, egress in add if (ingress, egress) not in self._held]
                wrong += [f"{ingress} to {egress} is still connected" for ingress, egress in remove if (ingress, egress) in self._held]
                if wrong:
                    raise RefusedError(f"it confirmed the change, yet read back {'; '.join(wrong)}")

    async def _follow(self, session: ScpiSession) -> None:
        """Learn what the switch is, then ask it for what others change."""
        grammar.read_identity(await session.query(grammar.IDENTITY))
        self._size = grammar.read_size(await session.query(grammar.SIZE))
        self._held = await self._connections(session)
        states = await self._port_states(session)
        await self.link.opened(session)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await session.ended.wait()
                    return
            async with self._changing:
                await self._look(session)
            was, states = states, await self._port_states(session)
            for port, (old, new) in enumerate(zip(was, states, strict=True), 1):
                if (old == "E") != (new == "E"):
                    await self.link.emit(PortChanged(self.name, port, up=new == "E"))

    async def _look(self, session: ScpiSession) -> frozenset[Pair]:
        """What the switch holds now. What is not as it was last seen is somebody else's doing."""
        before, self._held = self._held, await self._connections(session)
        if self._held != before:
            await self.link.emit(Changed(self.name, "its cross-connects were changed by somebody else"))
        return self._held

    async def _command(self, session: ScpiSession, command: str) -> None:
        faults = await session.command(command)
        self._held = await self._connections(session)
        if faults:
            raise RefusedError("; ".join(map(str, faults)))

    async def _connections(self, session: ScpiSession) -> frozenset[Pair]:
        return grammar.read_connections(await session.query(grammar.CONNECTIONS))

    async def _port_states(self, session: ScpiSession) -> str:
        ports = range(1, sum(self._size) + 1)
        return grammar.read_port_states(await session.query(grammar.port_states(ports)), len(ports))

    def _pairs(self, items: Iterable[Item]) -> list[Pair]:
        pairs: list[Pair] = []
        for item in items:
            if not isinstance(item, CrossConnect):
                raise Refused(self.name, f"it holds items of the kind {CrossConnect.__name__}; the change has a {item.kind}")
            pairs.append((item.ingress, item.egress))
        return pairs


def _faults(held: frozenset[Pair], size: tuple[int, int], add: list[Pair], remove: list[Pair]) -> list[str]:
    """What is wrong with adding and removing these on a switch that holds `held`: ports that it has not, or that are in use."""
    faults: list[str] = []
    ingress_ports, ports = size[0], sum(size)
    used = {port: pair for pair in held.difference(remove) for port in pair}
    for ingress, egress in add:
        if (ingress, egress) in held:
            continue
        if not 1 <= ingress <= ingress_ports < egress <= ports:
            faults.append(f"{ingress} to {egress}: ingress ports are 1 to {ingress_ports}, egress ports {ingress_ports + 1} to {ports}")
        for port in (ingress, egress):
            if port in used:
                faults.append(
                    f"{ingress} to {egress}: port {port} is already used by the cross-connect of {used[port][0]} to {used[port][1]}"
                )
            used.setdefault(port, (ingress, egress))
    return faults
