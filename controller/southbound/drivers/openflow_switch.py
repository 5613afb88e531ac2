"""The driver of one OpenFlow 1.3 switch: rules, groups and meters, read back and changed, every change closed by a BARRIER."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from controller.southbound.device import (
    Changed,
    Connected,
    DeviceEvent,
    Diff,
    Disconnected,
    FlowRule,
    Group,
    Item,
    Meter,
    PortChanged,
    Refused,
    State,
    Unreachable,
)
from controller.southbound.drivers.reconnection import drained
from controller.southbound.openflow.change import Faults, Key, named, phases
from controller.southbound.openflow.channel import Channel, ChannelClosed, RequestFailed
from controller.southbound.openflow.compiled import SwitchItem, Traffic, read_flows, without_idle_bursts
from controller.southbound.openflow.errors import error_name
from controller.southbound.openflow.groups import (
    GroupDescReply,
    GroupDescRequest,
    GroupStats,
    GroupStatsReply,
    GroupStatsRequest,
    MeterConfigReply,
    MeterConfigRequest,
    MeterStats,
    MeterStatsReply,
    MeterStatsRequest,
)
from controller.southbound.openflow.listener import OpenFlowListener
from controller.southbound.openflow.messages import (
    Error,
    FlowRemoved,
    FlowStatsRequest,
    MalformedMessage,
    Message,
    PacketIn,
    PacketOut,
    Port,
    PortReason,
    PortStatus,
    Raw,
)
from controller.southbound.openflow.statistics import PortStats, PortStatsReply, PortStatsRequest

_READ_TIMEOUT_S = 30.0
_EVENTS_KEPT = 1000
_LAST_PHYSICAL_PORT = 0xFFFFFF00
_FAULTS_NAMED = 5
_COMPILED_AT_ONCE = 100
_SENT_AT_ONCE = 1000
_UNKNOWN_REQUEST = frozenset({(1, 1), (1, 2)})
"""BAD_REQUEST with BAD_TYPE and BAD_MULTIPART: what a switch without groups or meters answers."""


@dataclass(frozen=True, slots=True)
class SwitchCounters:
    """What a switch has counted: the traffic that Bellhop's rules met, by cookie, and its ports, groups and meters."""

    traffic: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Packets and bytes."""
    ports: tuple[PortStats, ...] = ()
    groups: tuple[GroupStats, ...] = ()
    meters: tuple[MeterStats, ...] = ()


class OpenFlowSwitch:
    """A `Device`. The switch dials in, so `run` only admits its sessions at the listener."""

    capabilities: frozenset[str] = frozenset()

    def __init__(self, name: str, datapath_id: int, listener: OpenFlowListener) -> None:
        self.name = name
        self.datapath_id = datapath_id
        self.on_packet_in: Callable[[PacketIn], None] | None = None
        """Called for each PACKET_IN; must not block."""
        self.packet_apps: dict[int, Callable[[PacketIn], None]] = {}
        """Who is called instead for packets sent by a rule of theirs, by the upper 48 bits of its cookie. `read` leaves out their rules."""
        self.sessions = 0
        self.packet_ins = 0
        self.packet_outs = 0
        self.packet_outs_dropped = 0
        self._listener = listener
        self._channel: Channel | None = None
        self._events: asyncio.Queue[DeviceEvent] | None = None
        self._up: dict[int, bool] = {}
        self._applying = asyncio.Lock()
        self._rules: dict[bytes, FlowRule] = {}
        """Those of the last reading, by what they are on the wire: they are not decoded again."""
        self._held: set[Key] | None = None
        """The keys of the groups and meters that are there; None before they were read in this session."""
        self._lacking: dict[str, str] = {}
        """Of `group` and `meter` those that the switch has none of, and what it said."""
        self._counters = SwitchCounters()
        self._leaving: set[Key] = set()

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
        flows: dict[bytes, FlowRule] = {}
        items: set[Item] = set()
        traffic: Traffic = {}
        with self._answering("reading its tables"):
            for part in await channel.request(FlowStatsRequest(), _READ_TIMEOUT_S, raw=True):
                for rules in read_flows(part.body, self._rules, flows, traffic) if isinstance(part, Raw) else ():
                    items.update(rule for rule in rules if rule.cookie >> 16 not in self.packet_apps)
                    await asyncio.sleep(0)
            held = await self._groups_and_meters(channel)
            counters = await self._counted(channel, traffic, {item.kind for item in held})
        if self._channel is channel:
            self._rules, self._held, self._counters = flows, {item.key for item in held}, counters
        items.update(held)
        return State(frozenset(items))

    async def check(self, diff: Diff) -> list[str]:
        self._session()
        return [f"{named(item)}: {why}" for item, why in (await self._faults(diff)).items()]

    async def apply(self, diff: Diff) -> None:
        """Meters, groups and rules, then what goes, the other way round. One item that is refused does not hold up the others; `Refused`
        names each."""
        faults = await self._faults(diff)
        async with self._applying:
            channel = self._session()
            with self._answering("BARRIER"):
                if self._held is None and not all(isinstance(item, FlowRule) for item in diff.add):
                    self._held = {item.key for item in await self._groups_and_meters(channel)}
                self._leaving = {item.key for item in diff.remove}
                try:
                    for phase in phases(diff, faults, self._held or ()):
                        for start in range(0, len(phase.items), _SENT_AT_ONCE):
                            items = phase.items[start : start + _SENT_AT_ONCE]
                            self._note(items, await channel.transact([phase.message(item) for item in items]), faults)
                finally:
                    self._leaving = set()
        if faults:
            refusals = [f"{named(item)}: {why}" for item, why in islice(faults.items(), _FAULTS_NAMED)]
            more = f" (and {len(faults) - _FAULTS_NAMED} more)" if len(faults) > _FAULTS_NAMED else ""
            raise Refused(self.name, "; ".join(refusals) + more)

    def _note(self, items: Sequence[SwitchItem], errors: Mapping[int, Error], faults: dict[Item, str]) -> None:
        """What came of a change of items: the refused ones are at fault, the groups and meters among the others are there, or gone."""
        for index, error in sorted(errors.items()):
            faults[items[index]] = error_name(error)
        for index, item in enumerate(items):
            if self._held is not None and index not in errors and not isinstance(item, FlowRule):
                (self._held.discard if item.key in self._leaving else self._held.add)(item.key)

    async def _faults(self, diff: Diff) -> dict[Item, str]:
        """In slices: what is compiled for the first time takes its time."""
        faults = Faults(diff, self._lacking)
        for number, item in enumerate(diff.add, 1):
            faults.judge_added(item)
            if number % _COMPILED_AT_ONCE == 0:
                await asyncio.sleep(0)
        for item in diff.remove:
            faults.judge_removed(item)
        return faults.found

    async def _groups_and_meters(self, channel: Channel) -> list[Group | Meter]:
        groups = await self._asked(channel, "group", GroupDescRequest())
        meters = await self._asked(channel, "meter", MeterConfigRequest())
        found: list[Group | Meter] = [group for part in groups if isinstance(part, GroupDescReply) for group in part.groups]
        return found + [without_idle_bursts(meter) for part in meters if isinstance(part, MeterConfigReply) for meter in part.meters]

    async def _counted(self, channel: Channel, traffic: Traffic, kinds: set[str]) -> SwitchCounters:
        ports = await channel.request(PortStatsRequest())
        groups = await self._asked(channel, "group", GroupStatsRequest()) if "group" in kinds else []
        meters = await self._asked(channel, "meter", MeterStatsRequest()) if "meter" in kinds else []
        return SwitchCounters(
            traffic,
            tuple(port for part in ports if isinstance(part, PortStatsReply) for port in part.ports),
            tuple(group for part in groups if isinstance(part, GroupStatsReply) for group in part.groups),
            tuple(meter for part in meters if isinstance(part, MeterStatsReply) for meter in part.meters),
        )

    async def _asked(self, channel: Channel, kind: str, request: Message) -> list[Message]:
        """What the switch tells of its groups or meters: nothing when it has none, which is then `_lacking`."""
        if kind in self._lacking:
            return []
        try:
            return await channel.request(request, _READ_TIMEOUT_S)
        except RequestFailed as failed:
            if failed.error is None or (failed.error.type, failed.error.code) not in _UNKNOWN_REQUEST:
                raise
            self._lacking[kind] = str(failed)
            return []

    @contextmanager
    def _answering(self, what: str) -> Iterator[None]:
        """The channel's troubles as a device's."""
        try:
            yield
        except (ChannelClosed, TimeoutError) as error:
            raise Unreachable(self.name, str(error)) from error
        except RequestFailed as error:
            raise Refused(self.name, f"{what}: {error}") from error
        except MalformedMessage as error:
            self._listener.counters.undecodable += 1
            raise Refused(self.name, f"{what}: the answer cannot be decoded: {error}") from error

    def counters(self) -> SwitchCounters:
        """What the switch had counted when it was last read; before that, nothing."""
        return self._counters

    def events(self) -> AsyncIterator[DeviceEvent]:
        self._events = asyncio.Queue()
        return drained(self._events)

    def packet_out(self, port: int, data: bytes) -> bool:
        """Send a frame out of a port; False when it was left out, because there is no session or the switch does not keep up."""
        sent = self.send(PacketOut((("output", port),), data))
        self.packet_outs += sent
        self.packet_outs_dropped += not sent
        return sent

    def send(self, message: Message | bytes) -> bool:
        """Send a message, or the bytes of one, that nothing waits for; False when it was left out, as in `packet_out`."""
        if self._channel is None or self._channel.congested:
            return False
        self._channel.send(message)
        return True

    def _session(self) -> Channel:
        if self._channel is None:
            raise Unreachable(self.name, f"datapath {self.datapath_id:016x} has not connected to port {self._listener.port}")
        return self._channel

    @contextmanager
    def _attached(self, channel: Channel) -> Iterator[None]:
        self.sessions += 1
        self._channel, self._held, self._lacking = channel, None, {}
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
            handle = self.packet_apps.get(message.cookie >> 16, self.on_packet_in)
            if handle:
                handle(message)
        elif isinstance(message, PortStatus):
            self._port(message.port.number, message.reason != PortReason.DELETE and message.port.up)
        elif isinstance(message, FlowRemoved):
            gone = FlowRule(message.priority, message.match, (), message.cookie, message.table)
            if gone.key not in self._leaving:
                self._report(Changed(self.name, f"the rule {named(gone)} was removed"))

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
