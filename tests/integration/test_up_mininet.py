"""`bellhop up --mininet`: devices in namespaces of their own behind Open vSwitch, runs that do not meet, and nothing left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.network import document

BELLHOP = [sys.executable, "-c", "from controller.cli import main; main()"]
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not all(map(shutil.which, ("ovs-vswitchd", "mnexec", "ethtool", "nsenter"))), reason="needs openvswitch-switch, mininet, ethtool"
    ),
]


class Up:
    """A `bellhop up --mininet` in the network namespace that `netns` is a command prefix of."""

    def __init__(self, process: subprocess.Popen[str], directory: Path, netns: list[str]) -> None:
        self.process, self.directory, self.netns = process, directory, netns
        soon((directory / "addresses.json").exists, 30)
        self.addresses = soon(lambda: json.loads((directory / "addresses.json").read_text() or "null"), 5)
        soon(lambda: (self.get("api", "/readyz") or {}).get("ready"), 60)
        self.network = document.load(directory / "network.yaml")

    def get(self, server: str, path: str, *arguments: str) -> Any:
        command = [*self.netns, "curl", "-sS", "--max-time", "20", *arguments, f"{self.addresses[server]}{path}"]
        done = subprocess.run(command, capture_output=True, text=True)
        return json.loads(done.stdout) if done.stdout else None

    def ovs(self, *command: str) -> str:
        run = str(self.directory / "mininet" / "openvswitch")
        environment = os.environ | {"OVS_RUNDIR": run, "OVS_DBDIR": run}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=30).stdout

    def inside(self, node: str, *command: str) -> str:
        """What a command prints in the namespace of a node."""
        (pid,) = [each for each in self.everything() if cmdline(each).endswith(f"-is mininet:{node}")]
        return subprocess.run(["nsenter", "-t", str(pid), "-n", *command], capture_output=True, text=True, check=True).stdout

    def everything(self) -> list[int]:
        return descendants(self.process.pid)


@contextmanager
def up(directory: Path, netns: list[str], *options: str) -> Iterator[Up]:
    command = [*netns, *BELLHOP, "up", "sandbox", "--mininet", "--any-ports", "--directory", str(directory), *options]
    (directory / "addresses.json").unlink(missing_ok=True)  # of an earlier run
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Up(process, directory, netns)
        finally:
            if process.poll() is None:
                process.terminate()
                process.communicate(timeout=60)


def soon(condition: Callable[[], Any], timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.05)
    return found


def cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def descendants(root: int) -> list[int]:
    """The process and all below it."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def network_namespaces(pids: list[int]) -> set[str]:
    found = set()
    for pid in pids:
        try:
            found.add(str(Path(f"/proc/{pid}/ns/net").readlink()))
        except OSError:
            continue
    return found


def users_of(namespaces: set[str]) -> list[str]:
    return [cmdline(int(each.name)) for each in Path("/proc").glob("[0-9]*") if network_namespaces([int(each.name)]) & namespaces]


def interfaces(netns: list[str]) -> set[str]:
    listed = subprocess.run([*netns, "ip", "-json", "link"], capture_output=True, text=True, check=True).stdout
    return {each["ifname"] for each in json.loads(listed)}


def listeners(said: str) -> set[str]:
    """The local addresses in what `ss -Hltn` said."""
    return {line.split()[3] for line in said.splitlines()}


def test_the_controller_reaches_devices_in_their_own_namespaces_through_open_vswitch(tmp_path: Path, netns: list[str]) -> None:
    with up(tmp_path, netns) as run:
        nodes = dict(run.network.nodes())
        for name, node in nodes.items():
            address = node.address or node.kme
            if address is not None:
                assert address.startswith("10.") and listeners(run.inside(name, "ss", "-Hltn")) == {address}, name
        outside = listeners(subprocess.run([*netns, "ss", "-Hltn"], capture_output=True, text=True, check=True).stdout)
        own = {run.addresses[each].removeprefix("http://") for each in ("api", "emulator")}
        assert outside == own | {"127.0.0.1:{}".format(run.addresses["openflow"][1])}

        before = bridge_packets(run)
        service = {"kind": "lightpath", "request": {"ends": ["alice/q9", "bob/q9"]}}
        created = run.get("api", "/api/v1/services", "-d", json.dumps(service), "-H", "content-type: application/json")
        soon(lambda: run.get("api", f"/api/v1/services/{created['id']}")["state"] == "ACTIVE", 30)
        assert all(run.get("emulator", "/state")["cross_connects"].values())
        passed = {port: count - before[port] for port, count in bridge_packets(run).items()}
        assert passed["uplink"] > 10 and sum(count > 10 for port, count in passed.items() if port != "uplink") >= 2

        # Key that was made behind the bridge is fetched over it, by one who verifies the address in the KME's certificate.
        pki = tmp_path / "pki"
        sae = ["--cacert", f"{pki}/ca.crt", "--cert", f"{pki}/sae-sae-alice.crt", "--key", f"{pki}/sae-sae-alice.key"]
        run.addresses["alice"] = f"https://{nodes['alice'].kme}"
        service = {"kind": "key", "request": {"ends": ["alice", "bob"]}}
        run.get("api", "/api/v1/services", "-d", json.dumps(service), "-H", "content-type: application/json")
        soon(lambda: "keys" in (run.get("alice", "/api/v1/keys/sae-bob/enc_keys", *sae) or {}), 40)

        # Without the bridge there is no way: nothing else joins the controller's namespace and the devices'.
        ip, _, port = str(nodes["ocs1"].address).rpartition(":")
        connect = [*netns, "timeout", "3", "bash", "-c", f"exec 3<> /dev/tcp/{ip}/{port}"]
        assert subprocess.run(connect).returncode == 0
        run.ovs("ovs-vsctl", "del-port", "mgmt", "uplink")
        assert subprocess.run(connect, capture_output=True).returncode != 0


def bridge_packets(run: Up) -> dict[str, int]:
    """How many packets the management bridge has taken in, by interface."""
    said = run.ovs("ovs-ofctl", "dump-ports-desc", "mgmt")
    names = dict(re.findall(r"(\d+)\((\S+)\):", said))
    counts = re.findall(r"port +(\d+): rx pkts=(\d+)", run.ovs("ovs-ofctl", "dump-ports", "mgmt"))
    counts += re.findall(r'port +"?(mgmt-eth\d+|uplink)"?: rx pkts=(\d+)', run.ovs("ovs-ofctl", "dump-ports", "mgmt"))
    return {names.get(port, port): int(count) for port, count in counts}


def test_switches_fail_secure_and_only_the_management_bridge_stands_alone(tmp_path: Path, netns: list[str]) -> None:
    with up(tmp_path, netns) as run:
        modes = {bridge: run.ovs("ovs-vsctl", "get-fail-mode", bridge).strip() for bridge in run.ovs("ovs-vsctl", "list-br").split()}
        controllers = {bridge: run.ovs("ovs-vsctl", "get-controller", bridge).strip() for bridge in modes}
        assert modes == {"s1": "secure", "s2": "secure", "s3": "secure", "mgmt": "standalone"}
        target = "tcp:127.0.0.1:{}".format(run.addresses["openflow"][1])
        assert controllers == {"s1": target, "s2": target, "s3": target, "mgmt": ""}


def test_two_runs_and_the_machines_open_vswitch_do_not_meet(tmp_path: Path, netns: list[str]) -> None:
    system = tmp_path / "system"
    system.mkdir()
    environment = os.environ | {"OVS_RUNDIR": str(system), "OVS_DBDIR": str(system), "OVS_LOGDIR": str(system)}
    subprocess.run(["ovsdb-tool", "create", str(system / "conf.db"), str(SCHEMA)], check=True)
    with ExitStack() as stack:
        for daemon in (
            ["ovsdb-server", str(system / "conf.db"), f"--remote=punix:{system}/db.sock"],
            ["ovs-vswitchd", f"unix:{system}/db.sock", "--disable-system"],
        ):
            process = subprocess.Popen([*netns, *daemon, "--pidfile"], env=environment, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        # A bridge with the name of a switch of the document.
        own = ["ovs-vsctl", "--retry", "--timeout=15", "add-br", "s1", "--", "set", "bridge", "s1", "datapath_type=netdev"]
        subprocess.run(own, env=environment, check=True)
        one, two = (stack.enter_context(up(tmp_path / name, netns)) for name in ("one", "two"))
        for run in (one, two):
            assert run.ovs("ovs-vsctl", "list-br").split() == ["mgmt", "s1", "s2", "s3"]
        there = [{node.address or node.kme for _, node in run.network.nodes()} - {None} for run in (one, two)]
        assert len(there[0]) == len(there[1]) == 7 and not there[0] & there[1]
        assert not network_namespaces(one.everything()) & network_namespaces(two.everything()) - network_namespaces([one.process.pid])
        service = {"kind": "connectivity", "request": {"ends": ["h1", "h4"]}}
        one.get("api", "/api/v1/services", "-d", json.dumps(service), "-H", "content-type: application/json")
        ping = ("-d", '{"from": "h1", "to": "h4", "count": 2}')
        soon(lambda: one.get("emulator", "/ping", *ping)["received"] == 2, 30)
        elsewhere = [entry for entries in two.get("emulator", "/state")["flows"].values() for entry in entries]
        assert all("cookie=0xbe11d15c" in entry for entry in elsewhere), "the other run's switches have nothing but discovery's rules"
        assert two.get("emulator", "/ping", *ping)["received"] == 0
        listed = subprocess.run(["ovs-vsctl", "list-br"], env=environment, check=True, capture_output=True, text=True).stdout
        assert listed.split() == ["s1"]
        one.process.send_signal(signal.SIGKILL)
        soon(lambda: len(interfaces(netns) & {"bellhop64", "bellhop65"}) == 1, 30)
        assert (two.get("api", "/readyz") or {}).get("ready"), "the other run goes on"


@pytest.mark.parametrize("victim", ["up", "emulator", "terminated"])
def test_nothing_is_left_after_a_kill(tmp_path: Path, netns: list[str], victim: str) -> None:
    before = interfaces(netns)
    with up(tmp_path, netns) as run:
        everything = run.everything()
        namespaces = network_namespaces(everything) - network_namespaces([run.process.pid])
        assert len(namespaces) >= 1 + 4 + 7, "the switches', one for each host, one for each managed device"
        assert interfaces(netns) - before == {"bellhop64"}
        if victim == "terminated":
            run.process.terminate()
        elif victim == "up":
            run.process.kill()
        else:
            (emulator, *_) = [pid for pid in everything if " emulate " in cmdline(pid)]
            os.kill(emulator, signal.SIGKILL)
        run.process.communicate(timeout=60)
        soon(lambda: not users_of(namespaces), 30)
        soon(lambda: not any(cmdline(pid) for pid in everything), 30)
        soon(lambda: interfaces(netns) == before, 30)
    if victim != "up":
        return
    with up(tmp_path, netns) as again:
        assert interfaces(netns) - before == {"bellhop64"}, "the network is free again"
        assert again.get("api", "/readyz")["ready"]


def test_latency_is_imposed_where_the_kernel_can_and_told_once_where_not(tmp_path: Path, netns: list[str]) -> None:
    """With a `tc` that knows netem every end of a late link is delayed; the real one here may know it or not."""
    told = tmp_path / "tc.log"
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, exit_code in (("can", 0), ("cannot", 2)):
        (tools / "tc").write_text(
            f'#!/bin/sh\necho "$@" >> {told}\n[ {exit_code} = 0 ] || echo "Error: no such qdisc." >&2\nexit {exit_code}\n'
        )
        (tools / "tc").chmod(0o755)
        told.write_text("")
        with up(tmp_path / name, ["env", f"PATH={tools}:{os.environ['PATH']}", *netns]) as run:
            warnings = run.get("emulator", "/state")["warnings"]
            log = (tmp_path / name / "emulator.log").read_text()
        said = told.read_text().splitlines()
        if exit_code:
            assert len(warnings) == 1 and log.count("netem") == log.count(warnings[0]) * warnings[0].count("netem") > 0
            assert "7 links" in warnings[0] and "no such qdisc" in warnings[0] and "modprobe sch_netem" in warnings[0]
            assert len(said) == 1
        else:
            assert warnings == [] and "netem" not in log
            delayed = {line.split()[3]: line.split()[-1] for line in said if "netem delay" in line and " lo " not in line}
            assert len(delayed) == 14 and delayed["s1-eth13"] == delayed["s3-eth13"] == "0.2ms" and delayed["h1-eth0"] == "0.01ms"


def test_without_root_it_is_said_in_a_line(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root to become somebody else")
    tmp_path.chmod(0o777)
    command = ["unshare", "--user", "--net", *BELLHOP, "emulate", "sandbox", "--directory", str(tmp_path / "run"), "--mininet"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = subprocess.run([*command, "--emulator-port", str(port)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "--mininet needs root" in done.stderr and "Traceback" not in done.stderr
