"""The composition root: builds every part of the controller, starts and stops them in order."""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from controller.config import Settings, WrongSettings
from controller.network import document
from controller.network.events import LinkMeasured, LinkStateChanged, NetworkEvent
from controller.network.model import Link
from controller.network.topology import Topology
from controller.northbound.api import serve
from controller.northbound.face import Face
from controller.routing.light.plant import build
from controller.services import packets
from controller.services.app import PacketApp
from controller.services.desired import Book
from controller.services.desk import Desk
from controller.services.neighbours import Neighbours
from controller.services.planner import Planner, executor
from controller.services.reconciler import Reconciler
from controller.southbound.device import (
    CONTROLLER_METER,
    METER_BURST,
    METER_PKTPS,
    METER_STATS,
    Band,
    Changed,
    Connected,
    Device,
    DeviceEvent,
    Disconnected,
    FlowRule,
    Meter,
    PortChanged,
    QkdLinkReport,
)
from controller.southbound.discovery.answers import answer
from controller.southbound.discovery.discovery import HOST_RULES, LLDP_RULE, Discovery, Publish
from controller.southbound.discovery.liveness import Timing
from controller.southbound.discovery.session import send_hellos
from controller.southbound.discovery.wiring import declared
from controller.southbound.drivers.kme import Kme
from controller.southbound.drivers.netconf_device import NetconfDevice
from controller.southbound.drivers.openflow_switch import OpenFlowSwitch
from controller.southbound.drivers.optical_switch import OpticalSwitch
from controller.southbound.drivers.scpi_switch import ScpiSwitch
from controller.southbound.drivers.wavelength_router import WavelengthRouter
from controller.southbound.netconf.session import Credentials
from controller.southbound.openflow.certificates import server_tls
from controller.southbound.openflow.listener import OpenFlowListener
from controller.southbound.openflow.messages import PacketIn, Role
from controller.store.sqlite import Store
from controller.telemetry.events import EventLog
from controller.telemetry.loop import ShortTurns

log = logging.getLogger(__name__)

LAG_PROBE_S = 0.02

LEAST_KEY_BYTES = 16

DarkPorts = set[tuple[str, str]]
"""Ports (device, port) that have lost their signal."""


@asynccontextmanager
async def running(settings: Settings, *, observe: bool = False) -> AsyncIterator[Face]:
    """Run the controller while the context lasts. Leaving it stops the controller and leaves the devices as they are.

    Raises WrongDocument, WrongSettings, StoreError, or OSError naming a port that is taken.
    """
    topology = document.load(settings.network)
    apps = [] if observe else _packet_apps(settings)
    async with AsyncExitStack() as stack:
        store = Store(settings.store)
        stack.callback(store.close)
        try:
            planner = Planner(stack.enter_context(executor(settings.planner.executor)))
        except ValueError as error:
            raise WrongSettings(f"the settings: {error}") from error
        stack.callback(planner.close)
        planner.start()
        # As generation serves when the controller was started: of two that think they are master, the later one is.
        claim = (Role.SLAVE if observe else Role.MASTER, time.time_ns() // 1_000_000)
        door = settings.openflow
        tls = server_tls(door.tls.cert, door.tls.key, door.tls.ca) if door.tls else None
        listener = await stack.enter_async_context(
            OpenFlowListener(door.host, door.port, tls=tls, packet_ins_per_s=door.packet_ins_per_s, claim=claim)
        )
        devices = {device.name: device for device in _devices(topology, settings, listener)}
        events = EventLog()
        discovery = None if observe else _discovery(topology, settings, events.publish)
        switches = {device.name: device for device in devices.values() if isinstance(device, OpenFlowSwitch)}
        book = Book(store, {} if observe else dict.fromkeys(switches, _standing(settings, apps)))
        listener.on_refused = lambda datapath_id, why: _refused(topology, events, datapath_id, why)
        desk: Desk
        reconciler = Reconciler(
            devices,
            book,
            lambda *round: desk.settled(*round),
            observe=observe,
            sweep_s=settings.reconciler.sweep_s,
            verdict_s=settings.reconciler.verdict_s,
            plant=partial(build, topology),
        )
        desk = Desk(topology, book, planner, reconciler, events, store, hold_off_s=settings.reconciler.hold_off_s)
        face = Face(topology, devices, listener, reconciler, desk, events, time.time(), discovery)
        if isinstance(loop := asyncio.get_running_loop(), ShortTurns):
            face.loop_turns = loop.turns_s
        greetings = [rule for app in apps for rule in packets.rules(app)]
        for switch in switches.values():
            for app in apps:
                packets.serve(app, switch)
        dark_ports: DarkPorts = set()
        if discovery is not None:
            discovery.link_changed = lambda link, up: _take(face, [_cable_state(face, dark_ports, topology.link(link))])
            neighbours = Neighbours(topology, book)
            for switch in switches.values():
                switch.on_packet_in = partial(_learn, face, discovery, neighbours, switch)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        heard = [(device, device.events()) for device in devices.values()]
        owned = [
            tasks.create_task(_follow(face, dark_ports, greetings, device, stream), name=f"events of {device.name}")
            for device, stream in heard
        ]
        owned += [tasks.create_task(device.run(), name=f"session of {device.name}") for device in devices.values()]
        owned += [tasks.create_task(reconciler.run(), name="reconciler"), tasks.create_task(desk.run(), name="desk")]
        owned.append(tasks.create_task(_measure_lag(face), name="loop lag"))
        if discovery is not None:
            owned.append(tasks.create_task(send_hellos(discovery, switches), name="discovery"))
        face.api = await stack.enter_async_context(serve(face, settings.api.host, settings.api.port))
        events.publish("controller.started", network=topology.name, observe=observe)
        try:
            yield face
        finally:
            for task in owned:
                task.cancel()


def _devices(topology: Topology, settings: Settings, listener: OpenFlowListener) -> Iterator[Device]:
    """A driver for every node that names how it is reached. What the settings lack for that is said in the log."""
    for name, node in topology.nodes("openflow-switch"):
        yield OpenFlowSwitch(name, int(node.dpid or "0", 16), listener)
    for name, node in topology.nodes("optical-switch", "wavelength-switch"):
        if node.address is None:
            log.warning("%s has no address in the document: it is not controlled", name)
        elif node.driver == "scpi":
            yield ScpiSwitch(name, node.address)
        elif settings.netconf is None:
            log.warning("%s is not controlled: the settings have no netconf section", name)
        else:
            password = settings.netconf.password_file.read_text().strip() if settings.netconf.password_file else None
            credentials = Credentials(settings.netconf.username, settings.netconf.known_hosts, settings.netconf.client_key, password)
            model = OpticalSwitch if node.kind == "optical-switch" else lambda _: WavelengthRouter()
            yield NetconfDevice(name, node.address, credentials, model)
    tls: ssl.SSLContext | None = None
    for name, node in topology.nodes():
        if node.kme is None:
            continue
        if settings.kme is None:
            log.warning("the KME of %s is not controlled: the settings have no kme section", name)
            continue
        if tls is None:
            tls = ssl.create_default_context(cafile=settings.kme.ca)
            tls.load_cert_chain(settings.kme.cert, settings.kme.key)
        yield Kme(name, f"https://{node.kme}", tls)


def _packet_apps(settings: Settings) -> list[PacketApp]:
    try:
        return packets.load(settings.apps)
    except ValueError as error:
        raise WrongSettings(f"the settings: {error}") from error


def _discovery(topology: Topology, settings: Settings, publish: Publish) -> Discovery | None:
    asked = settings.discovery
    if not asked.enabled:
        return None
    key = secrets.token_bytes(32) if asked.secret is None else asked.secret.read_bytes().strip()
    if len(key) < LEAST_KEY_BYTES:
        raise WrongSettings(
            f"discovery.secret: {asked.secret} holds {len(key)} bytes; give at least {LEAST_KEY_BYTES}, or leave the setting out"
        )
    timing = Timing(asked.interval_s, asked.up_hellos, asked.dead_multiplier)
    return Discovery(declared(topology), key, publish, timing=timing, first_nonce=secrets.randbits(63))


def _standing(settings: Settings, apps: list[PacketApp]) -> tuple[FlowRule | Meter, ...]:
    """What switches are to hold whatever the services want: the rules of discovery, and the meter of the controller port.

    A packet app that takes every packet that nobody asked to be carried is given ARP, too.
    """
    standing: tuple[FlowRule | Meter, ...] = ()
    if settings.discovery.enabled:
        hosts = settings.discovery.hosts and not any(() in app.packets for app in apps)
        standing = (LLDP_RULE, *HOST_RULES) if hosts else (LLDP_RULE,)
    if settings.openflow.meter_packet_ins:
        rate = max(1, round(settings.openflow.packet_ins_per_s))
        standing += (Meter(CONTROLLER_METER, METER_PKTPS | METER_BURST | METER_STATS, (Band(rate, max(1, rate // 10)),)),)
    return standing


def _learn(face: Face, discovery: Discovery, neighbours: Neighbours, switch: OpenFlowSwitch, packet: PacketIn) -> None:
    """Take what a packet says of links and hosts, and answer a host that asks for one it is joined with, but not where its rules are."""
    if discovery.packet_in(switch.name, packet.in_port, packet.data, time.monotonic()):
        return
    host = neighbours.names.get(packet.data[6:12].hex(":"))
    if host is not None and discovery.edge((switch.name, packet.in_port)):
        _locate(face, discovery, host)
        if told := answer(packet.data, neighbours.mac_of):
            switch.packet_out(packet.in_port, told)


def _locate(face: Face, discovery: Discovery, host: str) -> None:
    """Tell the desk where a host was seen last."""
    seen = discovery.hosts.get(face.topology.node(host).mac or "")
    if seen is not None:
        face.desk.host_seen(host, f"{seen.end[0]}:{seen.end[1]}")


def _refused(topology: Topology, events: EventLog, datapath_id: int, why: str) -> None:
    for name, node in topology.nodes("openflow-switch"):
        if int(node.dpid or "0", 16) == datapath_id:
            events.publish("device.refused", device=name, reason=why)


async def _follow(face: Face, dark_ports: DarkPorts, greetings: list[bytes], device: Device, stream: AsyncIterator[DeviceEvent]) -> None:
    """Turn one device's events into network events and work for the reconciler. A switch that connects is sent the greetings."""
    async for event in stream:
        match event:
            case Connected():
                face.events.publish("device.connected", device=device.name)
                if face.discovery and isinstance(device, OpenFlowSwitch):
                    face.discovery.connected(device.name)
                if isinstance(device, OpenFlowSwitch):
                    for message in greetings:
                        device.send(message)
                face.reconciler.renew(device.name)
            case Disconnected(_, reason):
                face.events.publish("device.disconnected", device=device.name, reason=reason)
                if face.discovery:
                    face.discovery.disconnected(device.name)
            case Changed(_, what):
                face.events.publish("device.changed", device=device.name, what=what)
                face.reconciler.mark([device.name])
            case PortChanged(_, port, up):
                face.events.publish("port.up" if up else "port.down", device=device.name, port=port)
                (dark_ports.discard if up else dark_ports.add)((device.name, str(port)))
                if face.discovery:
                    face.discovery.port_changed(device.name, port, up)
                cables = [link for link in face.topology.links("ethernet") if (device.name, str(port)) in _ports(link)]
                _take(face, [_cable_state(face, dark_ports, link) for link in cables])
                if face.discovery:  # a host may have been seen elsewhere before its own port was seen to go
                    for host in {name for link in cables for name in link.nodes if face.topology.node(name).kind == "host"}:
                        _locate(face, face.discovery, host)
                face.reconciler.mark([device.name])
            case QkdLinkReport():
                try:
                    _take(face, _qkd_report(face.topology, event))
                except ValueError as nonsense:
                    log.warning("%s: a report is not believed: %s", device.name, nonsense)
                    face.reconciler.views[device.name].trouble = f"a report is not believed: {nonsense}"


def _take(face: Face, events: list[NetworkEvent]) -> None:
    for event in events:
        if face.topology.apply(event) and isinstance(event, LinkStateChanged):
            face.desk.network_changed(event, better=event.up)


def _cable_state(face: Face, dark_ports: DarkPorts, link: Link) -> LinkStateChanged:
    """An ethernet link is up when neither of its ports has lost its signal, and hellos have not ceased to pass. Of fibres a dark port alone
    proves nothing."""
    lost = face.discovery is not None and link.id in face.discovery.lost
    return LinkStateChanged(link.id, not lost and dark_ports.isdisjoint(_ports(link)))


def _ports(link: Link) -> list[tuple[str, str]]:
    return [(end.node, end.port) for end in (link.a, link.b) if end.port is not None]


def _qkd_report(topology: Topology, report: QkdLinkReport) -> list[NetworkEvent]:
    """What a KME says of a QKD link. A switched link that makes no key is no fault: it lives and dies with its lightpath.

    ValueError for a figure that cannot be.
    """
    with suppress(LookupError):
        link = topology.link(report.link)
        events: list[NetworkEvent] = [] if link.switched else [LinkStateChanged(link.id, report.up)]
        if report.up:
            events.append(LinkMeasured(link.id, "rate_bps", report.rate_bps))
        if report.qber is not None:  # of a link that makes no key it says why
            qber = 0.5 if 0.5 < report.qber <= 1 else report.qber  # more than one half is so by chance
            events.append(LinkMeasured(link.id, "qber", qber))
        return events
    log.warning("%s reports a QKD link '%s' that the document does not have", report.device, report.link)
    return []


async def _measure_lag(face: Face) -> None:
    """How much later than asked the event loop wakes us: what every session waits at most."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_PROBE_S
        await asyncio.sleep(LAG_PROBE_S)
        face.loop_lag.observe(max(0.0, loop.time() - due))
