"""The driver of one OpenFlow 1.3 switch: flow rules by FLOW_MOD and BARRIER, read back by FLOW_STATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from controller.southbound.device import (
    Changed,
    Connected,
    DeviceEvent,
    Diff,
    Disconnected,
    FlowRule,
    Item,
    PortChanged,
    Refused,
    State,
    Unreachable,
)
from controller.southbound.openflow.channel import Channel, ChannelClosed, RequestFailed
from controller.southbound.openflow.codec import Framer, decode, encode
from controller.southbound.openflow.errors import error_name
from controller.southbound.openflow.listener import OpenFlowListener
from controller.southbound.openflow.messages import (
    SEND_FLOW_REMOVED,
    FlowCommand,
    FlowMod,
    FlowRemoved,
    FlowStatsReply,
    FlowStatsRequest,
    MalformedMessage,
    Message,
    PacketIn,
    PacketOut,
    Port,
    PortReason,
    PortStatus,
)

_READ_TIMEOUT_S = 30.0
_EVENTS_KEPT = 1000
_LAST_PHYSICAL_PORT = 0xFFFFFF00
_WHOLE_COOKIE = 0xFFFFFFFFFFFFFFFF
_FAULTS_NAMED = 5


class OpenFlowSwitch:
    """A `Device`. The switch dials in, so `run` only admits its sessions at the listener."""

    capabilities: frozenset[str] = frozenset()

    def __init__(self, name: str, datapath_id: int, listener: OpenFlowListener) -> None:
        self.name = name
        self.datapath_id = datapath_id
        self.on_packet_in: Callable[[PacketIn], None] | None = None
        """Called for each PACKET_IN; must not block."""
        self.sessions = 0
        self.packet_ins = 0
        self.packet_outs = 0
        self.packet_outs_dropped = 0
        self._listener = listener
        self._channel: Channel | None = None
        self._events: asyncio.Queue[DeviceEvent] | None = None
        self._up: dict[int, bool] = {}
        self._applying = asyncio.Lock()
        self._leaving: set[tuple[object, ...]] = set()

    @property
    def connected(self) -> bool:
        return self._channel is not None

    @property
    def ports(self) -> dict[int, Port]:
        """The switch's ports by number; empty without a session."""
        return dict(self._channel.ports) if self._channel else {}

    async def run(self) -> None:
        with self._listener.expect(self.datapath_id, self._attached):
            await asyncio.get_running_loop().create_future()

    async def read(self) -> State:
        channel = self._session()
        try:
            parts = await channel.request(FlowStatsRequest(), _READ_TIMEOUT_S)
        except (ChannelClosed, TimeoutError) as error:
            raise Unreachable(self.name, str(error)) from error
        except RequestFailed as error:
            raise Refused(self.name, f"reading its flow rules: {error}") from error
        return State(frozenset(flow.rule for part in parts if isinstance(part, FlowStatsReply) for flow in part.flows))

    async def check(self, diff: Diff) -> list[str]:
        self._session()
        return list(_faults(diff).values())

    async def apply(self, diff: Diff) -> None:
        """Add, then remove. One rule that is refused does not hold up the others; `Refused` names each."""
        faults = _faults(diff)
        async with self._applying:
            channel = self._session()
            added = [rule for rule in diff.add if isinstance(rule, FlowRule) and rule not in faults]
            removed = [rule for rule in diff.remove if isinstance(rule, FlowRule)]
            changes: list[Message] = [FlowMod(FlowCommand.ADD, rule, flags=SEND_FLOW_REMOVED) for rule in added]
            # The cookie in the request spares a stranger's rule that has taken the place of ours.
            changes += [FlowMod(FlowCommand.DELETE_STRICT, rule, cookie_mask=_WHOLE_COOKIE) for rule in removed]
            self._leaving = {rule.key for rule in removed}
            try:
                errors = await channel.transact(changes)
            except (ChannelClosed, TimeoutError) as error:
                raise Unreachable(self.name, str(error)) from error
            except RequestFailed as error:
                raise Refused(self.name, f"BARRIER: {error}") from error
            finally:
                self._leaving = set()
        rules = added + removed
        refusals = list(faults.values()) + [f"{_text(rules[index])}: {error_name(error)}" for index, error in sorted(errors.items())]
        if refusals:
            more = f" (and {len(refusals) - _FAULTS_NAMED} more)" if len(refusals) > _FAULTS_NAMED else ""
            raise Refused(self.name, "; ".join(refusals[:_FAULTS_NAMED]) + more)

    def events(self) -> AsyncIterator[DeviceEvent]:
        self._events = asyncio.Queue()
        return _drain(self._events)

    def packet_out(self, port: int, data: bytes) -> bool:
        """Send a frame out of a port; False when it was left out, because there is no session or the switch does not keep up."""
        if self._channel is None or self._channel.congested:
            self.packet_outs_dropped += 1
            return False
        self._channel.send(PacketOut((("output", port),), data))
        self.packet_outs += 1
        return True

    def _session(self) -> Channel:
        if self._channel is None:
            raise Unreachable(self.name, f"datapath {self.datapath_id:016x} has not connected to port {self._listener.port}")
        return self._channel

    @contextmanager
    def _attached(self, channel: Channel) -> Iterator[None]:
        self.sessions += 1
        self._channel = channel
        channel.on_message = self._received
        self._report(Connected(self.name))
        for number in {*channel.ports, *self._up}:
            self._port(number, number in channel.ports and channel.ports[number].up)
        try:
            yield
        finally:
            self._channel = None
            channel.on_message = None
            self._report(Disconnected(self.name, channel.closed_because or "the controller is stopping"))

    def _received(self, message: Message) -> None:
        if isinstance(message, PacketIn):
            self.packet_ins += 1
            if self.on_packet_in:
                self.on_packet_in(message)
        elif isinstance(message, PortStatus):
            self._port(message.port.number, message.reason != PortReason.DELETE and message.port.up)
        elif isinstance(message, FlowRemoved):
            gone = FlowRule(message.priority, message.match, (), message.cookie, message.table)
            if gone.key not in self._leaving:
                self._report(Changed(self.name, f"the rule {_text(gone)} was removed"))

    def _port(self, number: int, up: bool) -> None:
        if number <= _LAST_PHYSICAL_PORT and self._up.get(number, True) != up:
            self._report(PortChanged(self.name, number, up))
        self._up[number] = up

    def _report(self, event: DeviceEvent) -> None:
        if self._events is None:
            return
        if self._events.qsize() >= _EVENTS_KEPT:  # nobody reads: keep the news that matters, that something changed
            while not self._events.empty():
                self._events.get_nowait()
            self._events.put_nowait(Changed(self.name, f"{_EVENTS_KEPT} events were lost"))
        self._events.put_nowait(event)


async def _drain(events: asyncio.Queue[DeviceEvent]) -> AsyncIterator[DeviceEvent]:
    while True:
        yield await events.get()


def _text(rule: FlowRule) -> str:
    match = ",".join(f"{name}={value}" for name, value in rule.match) or "any"
    return f"table {rule.table} priority {rule.priority} {match}"


def _faults(diff: Diff) -> dict[Item, str]:
    """What cannot be added as it stands, and why."""
    faults: dict[Item, str] = {}
    taken: dict[tuple[object, ...], str] = {item.key: "a rule that is not Bellhop's has this match and priority" for item in diff.foreign}
    for item in diff.add:
        if not isinstance(item, FlowRule):
            faults[item] = f"an OpenFlow switch holds flow rules, not a {item.kind}"
        elif item.key in taken:
            faults[item] = f"{_text(item)}: {taken[item.key]}, and would be overwritten: choose another priority"
        elif why := _not_canonical(item):
            faults[item] = f"{_text(item)}: {why}"
        else:
            taken[item.key] = "another rule of the same change has this match and priority"
    return faults


def _not_canonical(rule: FlowRule) -> str:
    """Why the rule could not be recognised when it is read back; empty when it can."""
    try:
        sent = decode(Framer().feed(encode(FlowMod(FlowCommand.ADD, rule)))[0])
    except (ValueError, MalformedMessage) as error:
        return str(error)
    assert isinstance(sent, FlowMod)
    return "" if sent.rule == rule else f"not in canonical form; write match {sent.rule.match}, actions {sent.rule.actions}"
