"""An emulated network with root: Mininet hosts in network namespaces, joined by Open vSwitch in user space, and where managed devices live.

Interchangeable with `classical.ClassicalNetwork`, but for the links' capacity, which is not imposed, and their latency, which is where the
kernel has netem; elsewhere round trips are those of the machine.

The switches of the document have `fail-mode=secure`: without a controller they forward by the rules they hold and by nothing else. In the
other mode, standalone, a switch that has lost its controller becomes a learning switch: it would send packets over paths that nobody
planned, around the rings of the network for ever, and past the rules that keep classical companions of quantum services apart. Only the
bridge of the management network is standalone: it has no controller, for the controller is behind it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Set
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from controller.network.model import End, Link
from controller.network.topology import Topology, UnknownName
from topologies.emulation import open_vswitch
from topologies.emulation.frames import PingResult
from topologies.emulation.management import BRIDGE, Management, addresses, gateway_commands
from topologies.emulation.namespaces import within
from topologies.emulation.open_vswitch import MininetError, run

log = logging.getLogger("bellhop.emulation")

_TOOLS = {
    "mnexec": "mininet",
    "ovs-vswitchd": "openvswitch-switch",
    "ovsdb-server": "openvswitch-switch",
    "ovsdb-tool": "openvswitch-common",
    "ovs-vsctl": "openvswitch-switch",
    "ethtool": "ethtool",
    "ifconfig": "net-tools",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "tc": "iproute2",
    "ping": "iputils-ping",
}
"""The programs that are run, and the Debian packages they are in."""

_INTERFACE_NAME_MAX = 15
_LAST_PORT = 65279
"""Open vSwitch numbers ports from 1 to this."""
_TAKEN_NAMES = frozenset({"lo", "all", "default", "ovs-netdev", "ovs-system", "uplink", BRIDGE})
"""What no node can be called: the kernel's own names, those of Open vSwitch and of the management network."""
_MANAGEMENT_DPID = f"{(1 << 64) - 2:016x}"
"""No controller ever sees it; Mininet wants one."""
_STATISTICS = re.compile(r"(\d+) packets transmitted, \d+ received")
_REPLY = re.compile(r"icmp_seq=\d+ .*time=([0-9.]+) ms\s*$", re.MULTILINE)


def interface_names(topology: Topology, managed: Collection[str] = ()) -> dict[str, str]:
    """What each node that is managed or at an ethernet link is called in Mininet, where `name-eth<port>` must fit the kernel's 15 characters.

    A name that fits stays. In place of the others come s1, s2, ... for switches and h1, h2, ... for all else, by their order in the
    document, leaving out what the document itself uses.
    """
    ends = [end for link in topology.links("ethernet") for end in (link.a, link.b)]
    digits = {name: max((len(end.port or "") for end in ends if end.node == name), default=0) for name, _ in topology.nodes()}
    names: dict[str, str] = {}
    for name, node in topology.nodes():
        if node.kind not in ("openflow-switch", "host") and name not in managed and not any(end.node == name for end in ends):
            continue
        names[name] = name
        if name in _TAKEN_NAMES or len(f"{name}-eth") + max(digits[name], 2) > _INTERFACE_NAME_MAX:
            letter, number = "s" if node.kind == "openflow-switch" else "h", 1
            while f"{letter}{number}" in topology.graph or f"{letter}{number}" in names.values():
                number += 1
            names[name] = f"{letter}{number}"
    return names


def parse_ping(output: str) -> PingResult:
    """What iputils' `ping` printed, as a result. MininetError when it holds no statistics: ping could not even send."""
    statistics = _STATISTICS.search(output)
    if statistics is None:
        raise MininetError(f"ping sent nothing: {output.strip() or 'no output'}")
    rtts_ms = tuple(float(text) for text in _REPLY.findall(output))
    return PingResult(int(statistics[1]), len(rtts_ms), rtts_ms)


class MininetNetwork:
    """Hosts and switches of the document's ethernet links. `controller` is an IP address and a port; nodes that are neither switch nor
    host are namespaces without an address, so that the switches' ports towards them exist. With `management`, devices that are managed have
    one there, in a namespace each.

    The switches live in this process's network namespace, which is best one of its own (see `namespaces.enclose`), in an Open vSwitch of
    their own whose database, sockets and logs are in `directory`/openvswitch. While the network starts and stops, `os.environ` holds
    `environment`, because Mininet's own commands inherit it.
    """

    def __init__(self, topology: Topology, controller: tuple[str, int], directory: Path, management: Management | None = None) -> None:
        self._management = management
        self._managed = addresses(topology, management.network) if management else {}
        self.names = interface_names(topology, self._managed)
        """The names in Mininet and Open vSwitch, by the document's."""
        self.environment: dict[str, str] = {}
        """What `ovs-vsctl` and `ovs-ofctl` must have in their environment to see these switches; known while it runs."""
        self.pids: dict[str, int] = {}
        """The process in whose namespace a host is: `mnexec -a PID command` runs a command there. Empty unless it runs."""
        self.warnings: list[str] = []
        """What of the document the machine cannot do; known while it runs."""
        self._controller = controller
        self._directory = directory / "openvswitch"
        self._switches = {name: node.dpid or "" for name, node in topology.nodes("openflow-switch")}
        # As in ClassicalNetwork, a cable whose port at a switch is not told is not plugged in.
        self._links = [link for link in topology.links("ethernet") if all(e.port or e.node not in self._switches for e in (link.a, link.b))]
        self._addresses = {name: node.ip for name, node in topology.nodes("host") if node.ip and node.mac}
        self._ipv6 = {name: node.ipv6 for name, node in topology.nodes("host") if node.ipv6 and node.mac}
        self._macs = {name: node.mac for name, node in topology.nodes("host")}
        self._cables: list[tuple[str, int, str]] = []
        """The interfaces at both ends of each link, with a process in whose namespace they are, and the link."""
        self._latency_ms = {link.id: figure.value for link in self._links if (figure := topology.figure(link, "latency_ms"))}

    def _interface(self, end: End) -> str | None:
        """The interface of a switch's port; None for an end that is at no switch."""
        return f"{self.names[end.node]}-eth{int(end.port)}" if end.node in self._switches and end.port else None

    def _ports(self) -> dict[str, int]:
        """Port numbers by switch interface."""
        ends = [end for link in self._links for end in (link.a, link.b)]
        return {interface: int(end.port or 0) for end in ends if (interface := self._interface(end))}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The network is up while the context lasts. MininetError when it cannot be; then, too, nothing is left behind."""
        stack = ExitStack()
        try:
            await _to_the_end(partial(self._start, stack))
            async with self._programs():
                yield
        finally:
            await _to_the_end(partial(self._stop, stack))

    @asynccontextmanager
    async def _programs(self) -> AsyncIterator[None]:
        """The programs of the management network run while the context lasts, each in its node's namespace. One that ends is an error."""
        management = self._management
        if management is None:
            yield
            return
        processes: list[asyncio.subprocess.Process] = []

        async def watch(name: str, process: asyncio.subprocess.Process) -> None:
            code = await process.wait()
            raise MininetError(f"the program of {name} ended with exit code {code}: {management.log_of(name)} says why")

        try:
            async with asyncio.TaskGroup() as tasks:
                watching = []
                for name, command in management.programs.items():
                    with management.log_of(name).open("wb") as out:
                        inside = ("mnexec", "-a", str(self.pids[name]), *command)
                        processes.append(await asyncio.create_subprocess_exec(*inside, stdin=subprocess.DEVNULL, stdout=out, stderr=out))
                    watching.append(tasks.create_task(watch(name, processes[-1])))
                try:
                    yield
                finally:
                    for task in watching:
                        task.cancel()
        finally:
            await asyncio.gather(*map(_ended, processes))

    def listener(self, node: str, host: str, port: int) -> socket.socket:
        """A listening socket in the namespace of a managed node."""
        return within(f"/proc/{self.pids[node]}/ns/net", partial(socket.create_server, (host, port)))

    async def flows(self) -> dict[str, list[str]]:
        """The flow entries of every switch, as `ovs-ofctl dump-flows` prints them."""
        found: dict[str, list[str]] = {}
        for name in self._switches:
            output, failed = await _communicate("ovs-ofctl", "-O", "OpenFlow13", "dump-flows", self.names[name], more=self.environment)
            if failed:
                raise MininetError(f"{name}: its flow entries cannot be read: {output.strip()}")
            found[name] = [line.strip() for line in output.splitlines() if "cookie=" in line]
        return found

    async def set_link(self, link: Link, up: bool) -> None:
        """Cut an ethernet link, or mend it; both switches see their port go."""
        for interface in filter(None, map(self._interface, (link.a, link.b))):
            output, failed = await _communicate("ip", "link", "set", "dev", interface, "up" if up else "down")
            if failed:
                raise MininetError(f"{link.id}: interface {interface} cannot be set {'up' if up else 'down'}: {output.strip()}")

    async def ping(self, source: str, target: str, count: int, ipv6: bool = False) -> PingResult:
        """Pings between two hosts, one each 0.2 s. UnknownName when one is no host with an address of that family here."""
        known = self._ipv6 if ipv6 else self._addresses
        for name in (source, target):
            if name not in known:
                raise UnknownName("host", name, known)
        if source not in self.pids:
            raise MininetError(f"{source} cannot ping: the network does not run")
        ping = ("ping", "-n", "-c", str(count), "-i", "0.2", "-W", "1", known[target])
        output, _ = await _communicate("mnexec", "-a", str(self.pids[source]), *ping)
        return parse_ping(output)

    def _start(self, stack: ExitStack) -> None:
        self._check_machine()
        run = str(self._directory.absolute())
        self.environment = {"OVS_CTL_TIMEOUT": str(open_vswitch.TIMEOUT_S), "OVS_RUNDIR": run, "OVS_DBDIR": run, "OVS_LOGDIR": run}
        with _environment(self.environment):
            stack.callback(_remove_interfaces, {*self._bridges, "ovs-netdev"})  # its tap interfaces outlive the daemon
            open_vswitch.start(self._directory.absolute(), stack)
            self._build(stack)

    def _stop(self, stack: ExitStack) -> None:
        with _environment(self.environment):
            stack.close()
        self.pids, self.warnings, self._cables = {}, [], []

    @property
    def _bridges(self) -> list[str]:
        return [*(self.names[name] for name in self._switches), *([BRIDGE] if self._management else [])]

    def _check_machine(self) -> None:
        if os.geteuid() != 0:
            raise MininetError("Mininet needs root, for network namespaces: run with sudo, or without --mininet")
        if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
            packages = " ".join(sorted({_TOOLS[tool] for tool in missing}))
            raise MininetError(f"not installed: {', '.join(missing)}; on Debian and Ubuntu: apt install {packages}")
        if too_high := [interface for interface, port in self._ports().items() if port > _LAST_PORT]:
            raise MininetError(
                f"Open vSwitch has no port above {_LAST_PORT}, as for {', '.join(too_high)}: number it lower in the document"
            )
        # Two user-space switches cannot share a namespace: both need a tap interface called `ovs-netdev`, and the second one's bridges fail.
        taken = {name for _, name in socket.if_nameindex()} & {*self._ports(), *self._bridges, "ovs-netdev"}
        if taken:
            raise MininetError(
                f"this network namespace already has interfaces called {', '.join(sorted(taken))}: start the program in one of its own, "
                f"with `unshare --net`, or when they are what a killed run left, remove them with `ip link del NAME`"
            )

    def _build(self, stack: ExitStack) -> None:
        mininet = _mininet()
        network = mininet(build=False, controller=None)
        # Not Mininet's own stop: it asks the shell of each node, and waits for ever for one that has been killed.
        stack.callback(lambda: [node.terminate() for node in (*network.hosts, *network.switches)])
        plugged = {*self._ports(), *(f"{BRIDGE}-eth{number}" for number, _ in enumerate(self._managed, 1)), "uplink"}
        stack.callback(_remove_interfaces, plugged)  # the far ends go with these
        for name, short in self.names.items():
            if name in self._switches:
                network.addSwitch(short, dpid=self._switches[name], datapath="user", protocols="OpenFlow13", failMode="secure", batch=True)
            else:
                # Every address is asked for on the cable, as ClassicalNetwork's hosts do, whatever subnets the document uses.
                on_link = (
                    {"ip": f"{self._addresses[name]}/32", "defaultRoute": f"dev {short}-eth0"} if name in self._addresses else {"ip": None}
                )
                self.pids[name] = network.addHost(short, mac=self._macs.get(name), **on_link).pid
        if self._management:
            network.addSwitch(BRIDGE, dpid=_MANAGEMENT_DPID, datapath="user", failMode="standalone", batch=True)
        for link in self._links:
            ports = [int(end.port or 0) if self._interface(end) else None for end in (link.a, link.b)]
            cable = network.addLink(self.names[link.a.node], self.names[link.b.node], port1=ports[0], port2=ports[1])
            self._cables += [(interface.name, interface.node.pid, link.id) for interface in (cable.intf1, cable.intf2)]
        for name, address in self._managed.items():
            address_there = {"ip": f"{address}/{self._management.network.prefixlen}"} if self._management else {}
            network.addLink(self.names[name], BRIDGE, intfName1="mgmt0", params1=address_there)
        network.build()
        for host in network.hosts:
            for interface in host.intfNames():
                # A segment whose checksum is left to hardware that a veth pair does not have is dropped by its receiver.
                output, error, status = host.pexec("ethtool", "-K", interface, "tx", "off")
                if status:
                    raise MininetError(f"{interface}: checksum offload cannot be turned off: {(error or output).strip()}")
        for name, ipv6 in self._ipv6.items():
            inside, interface = ("mnexec", "-a", str(self.pids[name]), "ip", "-6"), f"{self.names[name]}-eth0"
            run(*inside, "addr", "add", f"{ipv6}/128", "dev", interface, "nodad")
            run(*inside, "route", "add", "default", "dev", interface)
        network.start()
        self._connect()
        for command in gateway_commands(self._management) if self._management else ():
            run(*command, pass_fds=(self._management.outside,) if self._management else ())
        self._delay()

    def _delay(self) -> None:
        """Impose the latency of the links: each end holds back what it sends."""
        late = {link.id: self._latency_ms[link.id] for link in self._links if self._latency_ms.get(link.id)}
        if not late:
            return
        netem = ("root", "netem", "delay")
        probe = subprocess.run(
            ["tc", "qdisc", "add", "dev", "lo", *netem, "1us"], capture_output=True, text=True, timeout=open_vswitch.TIMEOUT_S
        )
        if probe.returncode:
            self.warnings.append(
                f"the latency of {len(late)} links is not imposed, round trips are those of the machine: this kernel has no netem "
                f"(tc: {' '.join(probe.stderr.split()) or 'failed'}); `modprobe sch_netem` loads it where it is built, "
                "on Debian and Ubuntu it is in the package linux-image-amd64 or linux-modules-extra"
            )
            log.warning("%s", self.warnings[-1])
            return
        run("tc", "qdisc", "del", "dev", "lo", "root")
        for interface, pid, link_id in self._cables:
            if link_id in late:
                run("mnexec", "-a", str(pid), "tc", "qdisc", "add", "dev", interface, *netem, f"{late[link_id]:g}ms")

    def _connect(self) -> None:
        """Point the switches at the controller, and see that they are as they should be: ovs-vsctl succeeds although a port failed."""
        host, port = self._controller
        target = f"tcp:[{host}]:{port}" if ":" in host else f"tcp:{host}:{port}"
        commands = ["init"]
        for name in self._switches:
            bridge = self.names[name]
            commands += ["--", "set-controller", bridge, target, "--", "set", "controller", bridge, "max_backoff=1000"]
        run("ovs-vsctl", *commands)
        rows = json.loads(run("ovs-vsctl", "--format=json", "--columns=name,ofport", "list", "Interface"))["data"]
        actual = dict(rows)
        if wrong := [f"{interface} (port {port})" for interface, port in self._ports().items() if actual.get(interface) != port]:
            log = Path(self.environment.get("OVS_LOGDIR", "/var/log/openvswitch")) / "ovs-vswitchd.log"
            raise MininetError(f"Open vSwitch did not take {', '.join(wrong)}: {log} says why")


def _mininet() -> Callable[..., Any]:
    try:
        from mininet.net import Mininet
    except ImportError as error:
        raise MininetError(
            f"Mininet cannot be imported ({error}): pip install 'bellhop-sdn[mininet]' (in a clone: .venv/bin/pip install -e '.[mininet]') and apt install mininet"
        ) from error
    return Mininet  # type: ignore[no-any-return]


def _remove_interfaces(names: Set[str]) -> None:
    for name in names & {name for _, name in socket.if_nameindex()}:
        # One end of a cable takes the other with it, so that some are gone by now.
        subprocess.run(["ip", "link", "del", name], capture_output=True, timeout=open_vswitch.TIMEOUT_S)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End a program, at once when it does not end when told."""
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), open_vswitch.TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _communicate(*command: str, more: Mapping[str, str] | None = None) -> tuple[str, bool]:
    """What a command printed, and whether it failed. It is killed when the caller is cancelled."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, **(more or {}), "LC_ALL": "C"}
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode(errors="replace"), process.returncode != 0


async def _to_the_end(work: Callable[[], None]) -> None:
    """Do blocking work in a thread. A thread cannot be cancelled, so a cancelled caller waits for its end."""
    running = asyncio.ensure_future(asyncio.to_thread(_told_as_mininet_error, work))
    cancelled = False
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            cancelled = True
    failure = running.exception()
    if cancelled:
        raise asyncio.CancelledError from failure
    if failure:
        raise failure


def _told_as_mininet_error(work: Callable[[], None]) -> None:
    """Mininet raises bare Exceptions, and where it thinks that all is lost it ends the program."""
    try:
        work()
    except MininetError:
        raise
    except (Exception, SystemExit) as error:
        raise MininetError(f"Mininet failed: {error!r}; what it has to say is on the standard error output") from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
