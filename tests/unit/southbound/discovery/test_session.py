"""Hellos leave in turns, one per port and interval, and only where they can."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from controller.southbound.discovery.discovery import Discovery
from controller.southbound.discovery.liveness import Timing
from controller.southbound.discovery.session import send_hellos
from controller.southbound.discovery.wiring import Wiring
from controller.southbound.openflow.messages import Port

LOCAL = 0xFFFFFFFE


@dataclass
class Switch:
    """Notes the turn of the event loop in which each hello leaves."""

    name: str
    ports: dict[int, Port]
    turns: list[int]
    sent: list[tuple[int, int]] = field(default_factory=list)
    takes: bool = True

    def packet_out(self, port: int, data: bytes) -> bool:
        assert len(data) >= 60
        self.sent.append((self.turns[0], port))
        return self.takes


def ports(count: int) -> dict[int, Port]:
    return {number: Port(number, "02:00:00:00:00:01", f"p{number}") for number in range(1, count + 1)}


async def test_every_port_has_one_hello_per_interval_and_not_all_at_once() -> None:
    turns = [0]
    up = ports(40) | {LOCAL: Port(LOCAL, "02:00:00:00:00:01", "local"), 7: Port(7, "02:00:00:00:00:01", "p7", state=1)}
    switches = {name: Switch(name, up, turns) for name in ("s1", "s2")}
    datapaths = {1: "s1", 2: "s2"}
    discovery = Discovery(Wiring(datapaths=datapaths), b"key", lambda kind, **data: None, timing=Timing(interval_s=0.2))
    for name in switches:
        discovery.connected(name)
    sending = asyncio.create_task(send_hellos(discovery, switches))
    while discovery.counters.sent < 3 * 78:
        await asyncio.sleep(0)
        turns[0] += 1
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    for switch in switches.values():
        rounds = Counter(port for _, port in switch.sent)
        assert rounds.keys() == set(range(1, 41)) - {7} and set(rounds.values()) <= {3, 4}
    assert max(Counter(turn for switch in switches.values() for turn, _ in switch.sent).values()) <= 2


async def test_what_a_switch_does_not_take_was_not_sent() -> None:
    switch = Switch("s1", ports(2), [0], takes=False)
    discovery = Discovery(Wiring(datapaths={1: "s1"}), b"key", lambda kind, **data: None, timing=Timing(interval_s=0.1))
    sending = asyncio.create_task(send_hellos(discovery, {"s1": switch}))
    while len(switch.sent) < 6:  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert discovery.counters.sent == 0
