"""A whole network for a test: emulated devices, KMEs and the controller as processes of their own, asked with curl."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from controller.network import document
from topologies.emulation.workspace import Workspace, lay_out

TOPOLOGIES = Path(document.__file__).parents[2] / "topologies"
MANAGEMENT = IPv4Network("10.99.0.0/16")
sys.path.insert(0, str(Path(__file__).parent))  # the modules beside the tests are imported by name
BELLHOP = [sys.executable, "-c", "from controller.cli import main; main()"]


class Network:
    """`within` is a command prefix under which everything runs, as `ip netns exec NAME`."""

    def __init__(self, directory: Path, within: list[str], *, mininet: bool, topology: str) -> None:
        self.directory = directory
        self.within = within
        self.mininet = mininet
        found = document.load(TOPOLOGIES / f"{topology}.yaml")
        self.workspace: Workspace = lay_out(found, directory, any_ports=True, management=MANAGEMENT if mininet else None)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def spawn(self, name: str, *arguments: str) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen([*self.within, *BELLHOP, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start_devices(self) -> None:
        work = self.workspace
        ports = [
            f"--{name}-port={port}"
            for name, port in (
                ("api", work.api.rsplit(":")[-1]),
                ("openflow", work.openflow[1]),
                ("emulator", work.emulator.rsplit(":")[-1]),
            )
        ]
        if not self.mininet:
            self.spawn("kme", "kme", "--config", str(work.kmes))
        real = ["--mininet", "--management", str(MANAGEMENT)] if self.mininet else []
        self.spawn("emulator", "emulate", str(work.network), "--directory", str(self.directory), *ports, *real)
        wait_for(lambda: self.emulator("GET", "/state"), 40)

    def start_controller(self, *options: str, ready: bool = True) -> None:
        self.spawn("controller", "run", "--config", str(self.workspace.settings), "--verbose", *options)
        if ready:
            wait_for(lambda: (self.api("GET", "/readyz") or {}).get("ready"), 20)

    def kill_controller(self) -> None:
        self.processes["controller"].send_signal(signal.SIGKILL)
        self.processes["controller"].wait()

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            process.wait(30)

    def curl(self, *arguments: str) -> str:
        done = subprocess.run([*self.within, "curl", "-sS", "--max-time", "20", *arguments], capture_output=True, text=True)
        return done.stdout

    def api(self, method: str, path: str, body: object = None) -> Any:
        return self._json(self.workspace.api, method, path, body)

    def flows(self) -> dict[str, list[str]]:
        """The flow entries of every switch, as text, without those by which the controller discovers links and hosts."""
        flows = self.emulator("GET", "/state")["flows"]
        return {switch: [entry for entry in entries if "cookie=0xbe11d15c" not in entry] for switch, entries in flows.items()}

    def emulator(self, method: str, path: str, body: object = None) -> Any:
        return self._json(self.workspace.emulator, method, path, body)

    def _json(self, url: str, method: str, path: str, body: object) -> Any:
        data = ["-d", json.dumps(body)] if body is not None else []
        try:
            return json.loads(self.curl("-X", method, *data, f"{url}{path}"))
        except ValueError:
            return None

    def sae(self, name: str, node: str, path: str, *arguments: str) -> Any:
        """What the KME of `node` answers the SAE `name` over ETSI GS QKD 014."""
        pki = self.workspace.pki
        identity = ["--cacert", str(pki / "ca.crt"), "--cert", str(pki / f"sae-{name}.crt"), "--key", str(pki / f"sae-{name}.key")]
        kme = self.workspace.topology.node(node).kme
        return json.loads(self.curl(*identity, *arguments, f"https://{kme}/api/v1/keys/{path}"))

    def create(self, kind: str, *ends: str, **request: Any) -> str:
        answer = self.api("POST", "/api/v1/services", {"kind": kind, "request": {"ends": ends, **request}})
        assert "id" in answer, answer
        return str(answer["id"])

    def within_ovs(self, *command: str) -> list[str]:
        """A command that talks to the Open vSwitch of this network."""
        run = str(self.directory / "mininet" / "openvswitch")
        return [*self.within, "env", f"OVS_RUNDIR={run}", f"OVS_DBDIR={run}", *command]

    def services(self) -> dict[str, dict[str, Any]]:
        return {each["id"]: each for each in self.api("GET", "/api/v1/services")["services"]}

    def wait_active(self, *names: str, timeout_s: float = 20) -> None:
        def active() -> bool:
            services = self.services()
            return all(services[name]["state"] == "ACTIVE" for name in names or services)

        wait_for(active, timeout_s, lambda: str(self.services()))

    def remove_all(self) -> None:
        for name in self.services():
            self.api("DELETE", f"/api/v1/services/{name}")
        wait_for(lambda: not self.services(), 20, lambda: str(self.services()))

    def differences(self) -> dict[str, Any]:
        """What each device, read now, is away from what it should hold."""
        devices = [each["name"] for each in self.api("GET", "/api/v1/devices")["devices"]]
        found = {name: self.api("GET", f"/api/v1/devices/{name}") for name in devices}
        return {name: each["diff"] for name, each in found.items() if each["diff"]["add"] or each["diff"]["remove"]}


def wait_for(condition: Callable[[], Any], timeout_s: float, told: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s} s: {told()}")
        time.sleep(0.05)


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[Callable[..., Network]]:
    """Makes networks that are stopped after the test."""
    made: list[Network] = []

    def make(*, within: list[str] | None = None, mininet: bool = False, topology: str = "sandbox") -> Network:
        network = Network(tmp_path, within or [], mininet=mininet, topology=topology)
        made.append(network)
        network.start_devices()
        return network

    yield make
    for network in made:
        network.stop()


@pytest.fixture
def network(networks: Callable[..., Network]) -> Network:
    """The sandbox with its controller."""
    running = networks()
    running.start_controller()
    return running


@pytest.fixture
def netns() -> Iterator[list[str]]:
    """The command prefix of a network namespace of this test's own."""
    if os.geteuid() != 0:
        pytest.skip("needs root for a network namespace")
    name = f"bellhop-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield ["ip", "netns", "exec", name]
    subprocess.run(["ip", "netns", "delete", name], check=True)
