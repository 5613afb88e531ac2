"""Discovery on Open vSwitch: what is found is the wiring, whatever is done to the cables."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from private_ovs import DPID, MISSING, OpenVSwitch, unix_door, until

from controller import daemon
from controller.config import DiscoverySettings, Listen, OpenFlow, Settings
from controller.northbound.face import Face
from controller.services.planner import Planner
from controller.southbound.discovery.discovery import Discovery

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs Open vSwitch (openvswitch-switch) and util-linux: no {', '.join(MISSING)}"),
]

SWITCHES = {"s1": "br0", "s2": "br1", "s3": "br2"}
CABLES = [("s1", 1, "s2", 1), ("s2", 2, "s3", 2), ("s1", 3, "s3", 3)]
DOCUMENT = f"""
name: ring
nodes:
  s1: {{kind: openflow-switch, dpid: "{DPID:016x}"}}
  s2: {{kind: openflow-switch, dpid: "{DPID + 1:016x}"}}
  s3: {{kind: openflow-switch, dpid: "{DPID + 2:016x}"}}
  h1: {{kind: host, ip: 10.0.0.1, mac: "02:00:00:00:00:01"}}
links:
  - {{kind: ethernet, ends: ["h1:1", "s1:9"]}}
""" + "".join(f'  - {{kind: ethernet, ends: ["{a}:{p}", "{b}:{q}"]}}\n' for a, p, b, q in CABLES)
S1_S2 = "ethernet:s1--s2"


class Ring:
    """Three bridges in a network namespace, joined by veth pairs; a host is a namespace of its own."""

    def __init__(self, ovs: OpenVSwitch, run: Path, namespace: str, face: Face) -> None:
        self.ovs, self.face, self._run, self.namespace = ovs, face, run, namespace
        assert face.discovery is not None
        self.discovery: Discovery = face.discovery

    async def vsctl(self, *command: str) -> None:
        await asyncio.to_thread(self.ovs, "ovs-vsctl", f"--db=unix:{self._run / 'db.sock'}", "--timeout=15", *command)

    async def ip(self, *command: str) -> None:
        await asyncio.to_thread(subprocess.run, ["ip", "-n", self.namespace, *command], check=True)

    async def plug(self, interface: str, switch: str, port: int) -> None:
        """Put an interface into a port, whichever it was in."""
        adding = ("add-port", SWITCHES[switch], interface, "--", "set", "interface", interface, f"ofport_request={port}")
        await self.vsctl("--if-exists", "del-port", interface, "--", *adding)

    def mod_port(self, switch: str, port: int, what: str) -> None:
        self.ovs("ovs-ofctl", "-O", "OpenFlow13", "mod-port", str(self._run / f"{SWITCHES[switch]}.mgmt"), str(port), what)

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.face.events.after(0) if event.kind == kind]

    def up(self, link: str) -> bool:
        return self.face.topology.up(self.face.topology.link(link))


def found(*cables: tuple[str, int, str, int]) -> set[Any]:
    return {((a, p), (b, q)) for a, p, b, q in cables}


@pytest.fixture
async def ring(tmp_path: Path, netns: list[str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ring]:
    monkeypatch.setattr(daemon, "Planner", lambda executor: Planner(ThreadPoolExecutor(1)))
    (tmp_path / "network.yaml").write_text(DOCUMENT)
    settings = Settings(
        network=tmp_path / "network.yaml",
        store=tmp_path / "bellhop.db",
        api=Listen(port=0),
        openflow=OpenFlow(port=0),
        discovery=DiscoverySettings(interval_s=0.2),
    )
    ovs = OpenVSwitch(tmp_path, tuple(netns))
    async with AsyncExitStack() as stack:
        stack.callback(ovs.stop)
        await asyncio.to_thread(ovs.start)
        face = await stack.enter_async_context(daemon.running(settings))
        door = tmp_path / "controller.sock"
        await stack.enter_async_context(unix_door(door, face.listener.port))
        ring = Ring(ovs, tmp_path, netns[-1], face)
        for number, bridge in enumerate(SWITCHES.values()):
            adding = ("--may-exist", "add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev", "protocols=OpenFlow13")
            await ring.vsctl(*adding, "fail_mode=secure", f"other_config:datapath-id={DPID + number:016x}")
        for a, p, b, q in CABLES:
            await ring.ip("link", "add", f"{a}-{p}", "type", "veth", "peer", "name", f"{b}-{q}")
            for switch, port in ((a, p), (b, q)):
                await ring.ip("link", "set", f"{switch}-{port}", "up")
                await ring.plug(f"{switch}-{port}", switch, port)
        for bridge in SWITCHES.values():
            await ring.vsctl("set-controller", bridge, f"unix:{door}")
        yield ring
        await stack.aclose()


async def settled(ring: Ring, links: set[Any], right: Callable[[], bool] = lambda: True) -> None:
    try:
        await until(lambda: ring.discovery.links.links == links and right())
    except TimeoutError:
        told = [(event.kind, event.data) for event in ring.face.events.after(0)]
        pytest.fail(f"found {ring.discovery.links.links}, disagreements {ring.discovery.disagreements}, events {told}")


async def test_what_is_found_is_the_wiring(ring: Ring) -> None:
    await settled(ring, found(*CABLES))
    assert not ring.discovery.disagreements and not ring.told("link.lost") and all(map(ring.up, ring.discovery.wiring.cables))
    assert ring.discovery.counters.forged == ring.discovery.counters.replayed == 0
    dump = await asyncio.to_thread(ring.ovs.flows)
    assert "cookie=0xbe11d15c00000001, send_flow_rem priority=65535,dl_type=0x88cc actions=CONTROLLER:65535" in dump

    # The rule is taken away by hand: the reconciler puts it back, and the link is found as before.
    await asyncio.to_thread(ring.ovs.ofctl, "del-flows", "dl_type=0x88cc")
    await until(lambda: "0xbe11d15c00000001" in ring.ovs.flows())
    await settled(ring, found(*CABLES), lambda: ring.up(S1_S2) and not ring.discovery.disagreements)

    # One side of a cable is taken down.
    await ring.ip("link", "set", "s1-1", "down")
    await settled(ring, found(*CABLES[1:]), lambda: [each.subject for each in ring.discovery.disagreements] == [S1_S2])
    assert not ring.up(S1_S2)
    await ring.ip("link", "set", "s1-1", "up")
    await settled(ring, found(*CABLES), lambda: ring.up(S1_S2) and not ring.discovery.disagreements)

    # A cable carries one way only, and no port says so.
    await asyncio.to_thread(ring.mod_port, "s3", 2, "no-receive")
    await settled(ring, found(CABLES[0], CABLES[2]), lambda: ring.discovery.links.one_way == {(("s3", 2), ("s2", 2))})
    assert ring.told("link.unidirectional")[-1:] == [{"heard": "s3:2", "hears": "s2:2"}] and not ring.up("ethernet:s2--s3")
    assert not [each for each in ring.told("port.down") if each["device"] == "s3"]
    await asyncio.to_thread(ring.mod_port, "s3", 2, "receive")
    await settled(ring, found(*CABLES), lambda: ring.up("ethernet:s2--s3"))


async def test_a_cable_in_the_wrong_port(ring: Ring) -> None:
    await settled(ring, found(*CABLES))
    await ring.plug("s2-1", "s2", 7)
    await settled(ring, found(("s1", 1, "s2", 7), *CABLES[1:]), lambda: bool(ring.told("link.miswired")))
    assert ring.told("link.miswired")[-1] == {"link": S1_S2, "declared": "s1:1 - s2:1", "found": ["s1:1 - s2:7"]}
    assert not ring.up(S1_S2)
    await ring.plug("s2-1", "s2", 1)
    await settled(ring, found(*CABLES), lambda: ring.up(S1_S2) and not ring.discovery.disagreements)
    assert ring.told("link.mended")[-1]["link"] == S1_S2


async def test_a_host_is_found_where_it_pings_and_where_it_moves(ring: Ring) -> None:
    await settled(ring, found(*CABLES))
    host = f"{ring.namespace}-h1"
    await asyncio.to_thread(subprocess.run, ["ip", "netns", "add", host], check=True)
    try:
        await ring.ip("link", "add", "h1", "type", "veth", "peer", "name", "eth0", "address", "02:00:00:00:00:01", "netns", host)
        await ring.ip("link", "set", "h1", "up")
        for command in (["addr", "add", "10.0.0.1/24", "dev", "eth0"], ["link", "set", "eth0", "up"]):
            await asyncio.to_thread(subprocess.run, ["ip", "-n", host, *command], check=True)

        async def ping_until(condition: Callable[[], bool], target: str = "10.0.0.99") -> None:
            async with asyncio.timeout(20):
                while not condition():
                    ping = ["ip", "netns", "exec", host, "ping", "-c", "1", "-W", "1", target]
                    await asyncio.to_thread(subprocess.run, ping, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        await ring.plug("h1", "s1", 9)
        await ping_until(lambda: "10.0.0.1" in [str(ip) for each in ring.discovery.hosts for ip in each.ips])
        (seen,) = ring.discovery.hosts
        assert (seen.mac, seen.end) == ("02:00:00:00:00:01", ("s1", 9)) and not ring.told("host.elsewhere")
        await ping_until(lambda: any(ip.is_link_local for ip in seen.ips), "fe80::99%eth0")
        await ring.plug("h1", "s3", 9)
        await ping_until(lambda: bool(ring.told("host.elsewhere")))
        assert ring.told("host.moved") == [{"mac": seen.mac, "switch": "s3", "port": 9, "from": "s1:9"}]
        assert ring.told("host.elsewhere") == [{"host": "h1", "declared": "s1:9", "found": "s3:9"}]
    finally:
        await asyncio.to_thread(subprocess.run, ["ip", "netns", "delete", host], check=True)
