"""Mininet and Open vSwitch as the classical half of the emulator.

Every scenario that needs root is a run of this file in a network namespace of its own, so that neither parallel runs nor the machine's
Open vSwitch meet it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from controller.network import document
from controller.network.topology import UnknownName
from controller.southbound.device import DeviceEvent, Diff, FlowRule, PortChanged
from controller.southbound.drivers.openflow_switch import OpenFlowSwitch
from controller.southbound.openflow.listener import OpenFlowListener
from topologies.emulation.mininet_network import MininetNetwork, interface_names, parse_ping
from topologies.emulation.open_vswitch import MininetError

SANDBOX = Path(__file__).parents[2] / "topologies" / "sandbox.yaml"
MISSING = [tool for tool in ("unshare", "ip", "mnexec", "ovs-vswitchd", "ovs-ofctl", "ethtool") if shutil.which(tool) is None]

OURS = 0xBE11 << 48
H1, H4 = "02:00:00:00:00:01", "02:00:00:00:00:04"


def test_names_that_do_not_fit_an_interface_are_replaced_and_the_others_kept() -> None:
    topology = document.parse(
        b"""
name: long-names
nodes:
  s1: {kind: openflow-switch, dpid: "0000000000000001"}
  vienna-core-switch: {kind: openflow-switch, dpid: "0000000000000002"}
  default: {kind: openflow-switch, dpid: "0000000000000003"}
  sw-graz-1: {kind: openflow-switch, dpid: "0000000000000004"}
  sw-graz-22: {kind: openflow-switch, dpid: "0000000000000005"}
  laboratory-host: {kind: host, ip: 10.0.0.1, mac: "02:00:00:00:00:01"}
  alice: {kind: end-node}
  bob: {kind: end-node}
links:
  - {kind: ethernet, ends: ["s1:1", "vienna-core-switch:1"]}
  - {kind: ethernet, ends: ["default:1", "sw-graz-1:12"]}
  - {kind: ethernet, ends: ["s1:2", "laboratory-host:1"]}
  - {kind: ethernet, ends: ["s1:3", alice]}
  - {kind: ethernet, ends: ["s1:4", "sw-graz-22:1"]}
"""
    )
    assert interface_names(topology) == {
        "s1": "s1",
        "vienna-core-switch": "s2",
        "default": "s3",
        "sw-graz-1": "sw-graz-1",
        "sw-graz-22": "s4",
        "laboratory-host": "h1",
        "alice": "alice",
    }


def test_duplicate_replies_are_not_counted() -> None:
    result = parse_ping(
        "64 bytes from 10.0.0.4: icmp_seq=1 ttl=64 time=1.24 ms\n"
        "64 bytes from 10.0.0.4: icmp_seq=1 ttl=64 time=1.99 ms (DUP!)\n"
        "From 10.0.0.1 icmp_seq=2 Destination Host Unreachable\n"
        "64 bytes from 10.0.0.4: icmp_seq=3 ttl=64 time=12 ms\n\n"
        "3 packets transmitted, 2 received, +1 duplicates, +1 errors, 33% packet loss, time 402ms\n"
    )
    assert (result.sent, result.received, result.rtts_ms) == (3, 2, (1.24, 12.0))
    with pytest.raises(MininetError, match="Network is unreachable"):
        parse_ping("ping: connect: Network is unreachable\n")


async def test_what_the_machine_lacks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = MininetNetwork(document.load(SANDBOX), ("127.0.0.1", 6653), tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MininetError, match=r"needs root.*sudo"):
        async with network.running():
            pass
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MininetError, match=r"not installed: mnexec, ovs-vswitchd.*apt install .*mininet.*openvswitch-switch"):
        async with network.running():
            pass


async def driven_network(directory: Path) -> None:
    """The whole life: rules by the driver, pings, a cut, a controller that goes and comes back."""
    topology = document.load(SANDBOX)
    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(OpenFlowListener("127.0.0.1", 0))
        network = MininetNetwork(topology, ("127.0.0.1", listener.port), directory)
        events: list[DeviceEvent] = []
        async with managed(listener, events) as drivers:
            began = time.monotonic()
            await stack.enter_async_context(network.running())
            print(f"started in {time.monotonic() - began:.2f} s")
            await until(lambda: all(driver.connected for driver in drivers.values()))
            assert sorted(port for port in drivers["s1"].ports if port < 0xFFFFFF00) == [1, 2, 11, 13]
            assert (await network.ping("h1", "h4", 1)).received == 0

            for switch, to_h1, to_h4 in (("s1", 1, 13), ("s3", 13, 1)):
                await drivers[switch].apply(Diff(switch, add=forwarding(to_h1, to_h4)))
            result = await network.ping("h1", "h4", 5)
            assert (result.sent, result.received, len(result.rtts_ms)) == (5, 5, 5)
            assert all(rtt_ms > 0 for rtt_ms in result.rtts_ms)
            with pytest.raises(UnknownName, match="no host named 'h9'"):
                await network.ping("h1", "h9", 1)
            assert flows(network, "s1").count("cookie=0xbe11") == 4
            assert await transfer(network, "h1", "h4", 200_000) == 200_000

            link = topology.link("ethernet:s1--s3")
            events.clear()
            await network.set_link(link, False)
            await until(lambda: {PortChanged("s1", 13, False), PortChanged("s3", 13, False)} <= set(events))
            assert (await network.ping("h1", "h4", 1)).received == 0
            await network.set_link(link, True)
            await until(lambda: {PortChanged("s1", 13, True), PortChanged("s3", 13, True)} <= set(events))
            await until_answered(network, "h1", "h4")

        rules = durations(flows(network, "s3"))
        await listener.__aexit__(None, None, None)
        result = await network.ping("h1", "h4", 5)
        assert result.received == 5, "the switches stop forwarding without a controller"
        async with OpenFlowListener("127.0.0.1", listener.port) as again, managed(again, []) as drivers:
            await until(lambda: all(driver.connected for driver in drivers.values()))
            assert (await network.ping("h1", "h4", 2)).received == 2
            later = durations(flows(network, "s3"))
            assert rules.keys() == later.keys()
            assert all(later[rule] >= rules[rule] + 0.8 for rule in rules), "a rule was written again"
        began = time.monotonic()
    print(f"stopped in {time.monotonic() - began:.2f} s")
    assert_nothing_left()
    assert not any(name.startswith("OVS_") for name in os.environ)


async def odd_document(directory: Path) -> None:
    """Names too long for an interface, hosts of no common subnet, the highest port, a node that is no host, two cables in parallel."""
    topology = document.parse(
        b"""
name: odd
nodes:
  vienna-core-switch: {kind: openflow-switch, dpid: "00000000000000a1"}
  graz-access-switch: {kind: openflow-switch, dpid: "00000000000000a2"}
  laboratory-host: {kind: host, ip: 10.0.0.255, mac: "02:00:00:00:00:01"}
  h2: {kind: host, ip: 192.168.0.1, mac: "02:00:00:00:00:02"}
  spare: {kind: host}
  alice: {kind: end-node}
links:
  - {kind: ethernet, ends: ["vienna-core-switch:1", "laboratory-host:1"]}
  - {kind: ethernet, ends: [h2, "graz-access-switch:65279"]}
  - {kind: ethernet, id: first, ends: ["vienna-core-switch:2", "graz-access-switch:2"]}
  - {kind: ethernet, id: second, ends: ["vienna-core-switch:3", "graz-access-switch:3"]}
  - {kind: ethernet, ends: ["vienna-core-switch:4", alice]}
"""
    )
    network = MininetNetwork(topology, ("127.0.0.1", 6653), directory)
    async with network.running():
        assert network.names["vienna-core-switch"] == "s1"
        for switch, port, trunk in (("vienna-core-switch", 1, 3), ("graz-access-switch", 65279, 3)):
            for a, b in ((port, trunk), (trunk, port)):
                rule = f"in_port={a},actions=output:{b}"
                call("ovs-ofctl", "-O", "OpenFlow13", "add-flow", network.names[switch], rule, environment=network.environment)
        assert (await network.ping("laboratory-host", "h2", 3)).received == 3
        assert (await network.ping("h2", "laboratory-host", 3)).received == 3
        await network.set_link(topology.link("first"), False)
        assert (await network.ping("h2", "laboratory-host", 2)).received == 2
        await network.set_link(topology.link("second"), False)
        assert (await network.ping("h2", "laboratory-host", 2)).received == 0
        with pytest.raises(UnknownName, match="no host named 'spare'"):
            await network.ping("h2", "spare", 1)
    assert_nothing_left()


async def failing_half_way(directory: Path) -> None:
    """ethtool refuses, when hosts, switches and cables are there already."""
    broken = directory / "bin" / "ethtool"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    broken.chmod(0o755)
    os.environ["PATH"] = f"{broken.parent}:{os.environ['PATH']}"
    network = MininetNetwork(document.load(SANDBOX), ("127.0.0.1", 6653), directory)
    with pytest.raises(MininetError, match="h1-eth0: checksum offload cannot be turned off: not today"):
        async with network.running():
            pass
    assert_nothing_left()
    with pytest.raises(MininetError, match="h1 cannot ping: the network does not run"):
        await network.ping("h1", "h4", 1)


async def cancelled_while_starting(directory: Path) -> None:
    """Cancelling, also more than once, waits for Mininet's thread and then takes down what it built."""
    network = MininetNetwork(document.load(SANDBOX), ("127.0.0.1", 6653), directory)

    async def run() -> None:
        async with network.running():
            await asyncio.sleep(60)

    running = asyncio.create_task(run())
    await until(lambda: any(name == "s1-eth1" for _, name in socket.if_nameindex()))
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert_nothing_left()


async def killed_parts(directory: Path) -> None:
    """A host and the switch daemon that were killed do not hold up the end."""
    network = MininetNetwork(document.load(SANDBOX), ("127.0.0.1", 6653), directory)
    async with asyncio.timeout(20), network.running():
        os.kill(network.pids["h1"], signal.SIGKILL)
        os.kill(int((directory / "openvswitch" / "ovs-vswitchd.pid").read_text()), signal.SIGKILL)
    assert_nothing_left()


async def clashes(directory: Path) -> None:
    """Interfaces and switches of others are named and left alone."""
    topology = document.load(SANDBOX)
    call("ip", "link", "add", "s2-eth1", "type", "veth", "peer", "name", "other")
    with pytest.raises(MininetError, match=r"already has interfaces called s2-eth1: .*ip link del"):
        async with MininetNetwork(topology, ("127.0.0.1", 6653), directory / "a").running():
            pass
    assert {name for _, name in socket.if_nameindex()} == {"lo", "s2-eth1", "other"}
    call("ip", "link", "del", "s2-eth1")

    async with MininetNetwork(topology, ("127.0.0.1", 6653), directory / "a").running():
        with pytest.raises(MininetError, match=r"already has interfaces called .*ovs-netdev, .*unshare --net"):
            async with MininetNetwork(topology, ("127.0.0.1", 6653), directory / "b").running():
                pass
    assert_nothing_left()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces")
@pytest.mark.skipif(find_spec("mininet") is None, reason="pip install 'bellhop-sdn[mininet]': no mininet package")
@pytest.mark.skipif(bool(MISSING), reason=f"apt install mininet openvswitch-switch ethtool: no {', '.join(MISSING)}")
@pytest.mark.parametrize(
    "scenario",
    [driven_network, odd_document, failing_half_way, cancelled_while_starting, killed_parts, clashes],
    ids=lambda one: one.__name__,
)
def test_in_a_namespace_of_its_own(scenario: Callable[..., Any], tmp_path: Path) -> None:
    # With the process namespace, whatever a failed scenario has left ends with its first process.
    namespaces = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    child = subprocess.Popen(
        [*namespaces, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, __file__, scenario.__name__, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = child.communicate(timeout=90)
    finally:
        child.kill()
        child.wait()
    print(output)
    assert child.returncode == 0, output


def forwarding(to_h1: int, to_h4: int) -> tuple[FlowRule, ...]:
    """Rules of a switch between h1 and h4: ARP from port to port, IPv4 by destination."""
    return (
        FlowRule(10, (("eth_dst", H4), ("eth_type", 0x0800)), (("output", to_h4),), OURS | 1),
        FlowRule(10, (("eth_dst", H1), ("eth_type", 0x0800)), (("output", to_h1),), OURS | 2),
        FlowRule(20, (("eth_type", 0x0806), ("in_port", to_h1)), (("output", to_h4),), OURS | 3),
        FlowRule(20, (("eth_type", 0x0806), ("in_port", to_h4)), (("output", to_h1),), OURS | 4),
    )


@asynccontextmanager
async def managed(listener: OpenFlowListener, events: list[DeviceEvent]) -> AsyncIterator[dict[str, OpenFlowSwitch]]:
    """Drivers of the sandbox's three switches; what they report is appended to `events`."""
    drivers = {f"s{number}": OpenFlowSwitch(f"s{number}", number, listener) for number in (1, 2, 3)}

    async def follow(driver: OpenFlowSwitch) -> None:
        async for event in driver.events():
            events.append(event)

    tasks = [asyncio.create_task(work) for driver in drivers.values() for work in (driver.run(), follow(driver))]
    try:
        yield drivers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)


async def until_answered(network: MininetNetwork, source: str, target: str) -> None:
    async with asyncio.timeout(20):
        while not (await network.ping(source, target, 1)).received:
            pass


async def transfer(network: MininetNetwork, source: str, target: str, size: int) -> int:
    """Send bytes by TCP, which does not get through with checksums left undone. Returns how many arrived."""
    serve = (
        "import socket; s = socket.create_server(('', 5001)); print('ready', flush=True); c = s.accept()[0]; n = 0\n"
        "while d := c.recv(65536): n += len(d)\nprint(n)"
    )
    send = f"import socket; s = socket.create_connection(('10.0.0.4', 5001), 5); s.settimeout(5); s.sendall(bytes({size}))"
    inside = [("mnexec", "-a", str(network.pids[host]), sys.executable, "-c") for host in (target, source)]
    server = await asyncio.create_subprocess_exec(*inside[0], serve, stdout=subprocess.PIPE)
    try:
        assert server.stdout
        assert await server.stdout.readline() == b"ready\n"
        client = await asyncio.create_subprocess_exec(*inside[1], send)
        async with asyncio.timeout(15):
            assert await client.wait() == 0
            return int(await server.stdout.readline())
    finally:
        with suppress(ProcessLookupError):
            server.kill()
        await server.wait()


def call(*command: str, environment: dict[str, str] | None = None) -> str:
    return subprocess.run(command, env=os.environ | (environment or {}), check=True, capture_output=True, text=True, timeout=30).stdout


def flows(network: MininetNetwork, switch: str) -> str:
    return call("ovs-ofctl", "-O", "OpenFlow13", "dump-flows", network.names[switch], environment=network.environment)


def durations(dump: str) -> dict[str, float]:
    """How many seconds each rule has been there, by its cookie."""
    return {cookie: float(seconds) for cookie, seconds in re.findall(r"cookie=(\w+), duration=([0-9.]+)s", dump)}


def assert_nothing_left() -> None:
    """No interface but loopback, and, /proc being the scenario's own, no process but this one; so no namespace of a host either."""
    interfaces = [name for _, name in socket.if_nameindex()]
    assert interfaces == ["lo"], interfaces
    alive = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended, or a zombie
            (process / "ns/net").readlink()
            alive.append((process / "cmdline").read_text().replace("\0", " "))
    assert len(alive) == 1, alive


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](Path(sys.argv[2])))
