"""A learning switch, as an example of a packet app: frames go where their receiver was last seen, and everywhere until it was.

Load it with `apps: [apps.learning_switch]` in the settings. For networks without loops: a loop would multiply what is flooded.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from controller.services.app import (
    NO_BUFFER,
    FlowCommand,
    FlowMod,
    FlowRule,
    Message,
    PacketApp,
    PacketIn,
    PacketOut,
    Port13,
    Switch,
    encode,
    rebuffered,
)

IDLE_TIMEOUT_S = 60
WHOLE_COOKIE = 0xFFFFFFFFFFFFFFFF
HOSTS_KEPT = 20_000
"""As many senders as are remembered of a switch: made-up addresses must not fill the memory."""


def packet_in(switch: Switch, packet: PacketIn) -> Iterator[Message | bytes]:
    """Remember where the sender is. Once the receiver is known, too, a rule lets the switch forward by itself."""
    ports, in_port = switch.memory, packet.in_port
    receiver, sender = packet.data[:6], packet.data[6:12]
    if ports.get(sender) != in_port:
        if sender in ports:  # it has moved: what the switch was told of it is wrong
            stale = FlowRule(0, (("eth_dst", sender.hex(":")),), (), switch.cookie)
            yield FlowMod(FlowCommand.DELETE, stale, cookie_mask=WHOLE_COOKIE)
        elif len(ports) >= HOSTS_KEPT:
            ports.clear()
        ports[sender] = in_port
    out = ports.get(receiver)
    if out is not None:
        yield rebuffered(rule(receiver, sender, in_port, out, switch.cookie), packet.buffer_id)
    if out is None or packet.buffer_id == NO_BUFFER:  # otherwise the rule has released the packet
        data = packet.data if packet.buffer_id == NO_BUFFER else b""
        yield PacketOut((("output", Port13.FLOOD if out is None else out),), data, in_port, packet.buffer_id)


@lru_cache(32768)
def rule(receiver: bytes, sender: bytes, in_port: int, out: int, cookie: int) -> bytes:
    """What sends frames between two hosts out of a port, encoded once for all the packets that ask for it."""
    match = (("eth_dst", receiver.hex(":")), ("eth_src", sender.hex(":")), ("in_port", in_port))
    return encode(FlowMod(FlowCommand.ADD, FlowRule(1, match, (("output", out),), cookie), idle_timeout_s=IDLE_TIMEOUT_S))


app = PacketApp(name="learning-switch", packet_in=packet_in)
