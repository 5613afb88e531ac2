"""The controller as a process of its own, with a real Open vSwitch that has hosts or certificates, in network namespaces of the test's own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from private_ovs import DPID, MISSING, OpenVSwitch

from topologies.emulation import pki

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for network namespaces"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs Open vSwitch (openvswitch-switch) and util-linux: no {', '.join(MISSING)}"),
]


def wait_for(condition: Callable[[], Any], told: Callable[[], object] = lambda: "") -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s, told()
        time.sleep(0.05)


class Controller:
    """`bellhop run` in a network namespace, for one switch."""

    def __init__(self, within: list[str], directory: Path, settings: str = "") -> None:
        self._within = within
        (directory / "network.yaml").write_text(f'name: one\nnodes:\n  s1: {{kind: openflow-switch, dpid: "{DPID:016x}"}}\n')
        self._settings = directory / "controller.yaml"
        self._settings.write_text(f"network: network.yaml\nstore: {directory}/bellhop.db\napi: {{port: 0}}\n{settings}")
        self.log = directory / "controller.log"
        self.port = 0
        self._api = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-c", "from controller.cli import main; main()", "run", "--config", str(self._settings)]
        with self.log.open("a") as log:
            self._process = subprocess.Popen([*self._within, *command], stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        said = re.search(r"API (\S+), OpenFlow \S+:(\d+)", self._process.stdout.readline())
        assert said, self.log.read_text()
        self._api, self.port = said[1], int(said[2])

    def stop(self) -> None:
        if self._process is not None:
            with self._process as process:
                process.send_signal(signal.SIGTERM)

    def ask(self, path: str) -> str:
        return subprocess.run([*self._within, "curl", "-sS", f"{self._api}{path}"], capture_output=True, text=True).stdout

    def device(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.ask("/api/v1/devices/s1"))
        return answer

    def metric(self, name: str) -> float:
        return float(re.search(rf"^{re.escape(name)} (\S+)$", self.ask("/metrics"), re.MULTILINE)[1])  # type: ignore[index]


@pytest.fixture
def switch(tmp_path: Path, netns: list[str]) -> Iterator[OpenVSwitch]:
    (tmp_path / "ovs").mkdir()
    made = OpenVSwitch(tmp_path / "ovs", tuple(netns))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def hosts(netns: list[str]) -> Iterator[dict[str, list[str]]]:
    """Two hosts, each in a namespace of its own, whose cables end at the switch as v1 and v2: a prefix for commands on each."""
    middle = netns[-1]
    names = {f"h{number}": f"{middle}-h{number}" for number in (1, 2)}
    for number, name in enumerate(names.values(), 1):
        for command in (
            f"ip netns add {name}",
            f"ip -n {middle} link add v{number} type veth peer name eth0 netns {name}",
            f"ip -n {middle} link set v{number} up",
            f"ip -n {name} link set eth0 address 02:00:00:00:00:0{number} up",
            f"ip -n {name} address add 10.0.0.{number}/24 dev eth0",
            f"ip netns exec {name} sysctl -qw net.ipv6.conf.all.disable_ipv6=1",
        ):
            subprocess.run(command.split(), check=True)
    yield {host: ["ip", "netns", "exec", name] for host, name in names.items()}
    for name in names.values():
        subprocess.run(["ip", "netns", "delete", name], check=True)


def pings(host: list[str], address: str, count: int) -> int:
    done = subprocess.run([*host, "ping", "-c", str(count), "-i", "0.1", "-W", "2", address], capture_output=True, text=True)
    return int(re.search(r"(\d+) received", done.stdout)[1])  # type: ignore[index]


def test_the_learning_switch_on_a_real_switch(switch: OpenVSwitch, hosts: dict[str, list[str]], netns: list[str], tmp_path: Path) -> None:
    """Hosts reach each other, by rules that are the app's: the controller neither repairs nor reports them, and clears them up after it."""
    for number in (1, 2):
        switch.vsctl("add-port", "br0", f"v{number}", "--", "set", "interface", f"v{number}", f"ofport_request={number}")
    controller = Controller(netns, tmp_path, "openflow: {port: 6653}\napps: [apps.learning_switch]\n")
    controller.start()
    try:
        switch.connect("tcp:127.0.0.1:6653")
        wait_for(lambda: "priority=0 actions=CONTROLLER" in switch.flows(), switch.flows)
        assert pings(hosts["h1"], "10.0.0.2", 5) == 5
        rules = switch.flows()
        assert re.search(r"in_port=(1|v1),dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02 actions=output:(2|v2)", rules), rules
        assert rules.count("idle_timeout=60") == 2
        taken_up = controller.metric("bellhop_openflow_packet_ins_total")
        assert pings(hosts["h1"], "10.0.0.2", 10) == 10
        assert controller.metric("bellhop_openflow_packet_ins_total") - taken_up <= 2, "the switch forwards by itself"
        device = controller.device()
        assert not any(device["diff"][part] for part in ("add", "remove", "foreign")), device
    finally:
        controller.stop()
    without = Controller(netns, tmp_path, "openflow: {port: 6653}\ndiscovery: {enabled: false}\n")
    without.start()
    try:
        wait_for(lambda: "cookie=" not in switch.flows(), switch.flows)
    finally:
        without.stop()


def test_tls_with_a_real_switch(switch: OpenVSwitch, netns: list[str], tmp_path: Path) -> None:
    """A certificate of the authority is let in and bound to its datapath; of another authority it is refused. A renewed one is used."""
    ours, others = tmp_path / "pki", tmp_path / "others"
    certificate, key = pki.issue(ours, "controller", "bellhop")
    tls = f"{{ca: {ours}/ca.crt, cert: {certificate}, key: {key}}}"
    controller = Controller(netns, tmp_path, f"openflow: {{port: 6653, tls: {tls}}}\n")

    def bring(directory: Path, name: str) -> None:
        mine, my_key = pki.issue(directory, "qkd", name)
        switch.vsctl("--", "set-ssl", str(my_key), str(mine), str(ours / "ca.crt"))

    controller.start()
    try:
        bring(others, f"{DPID:016x}")
        switch.connect("ssl:127.0.0.1:6653")
        wait_for(lambda: controller.metric("bellhop_openflow_tls_refused_total") >= 1, controller.log.read_text)
        assert "certificate verify failed" in controller.log.read_text()
        assert not controller.device()["connected"]

        bring(ours, f"{1:016x}")
        wait_for(lambda: controller.metric("bellhop_openflow_refused_total") >= 1, controller.log.read_text)
        assert "its certificate is for datapath 0000000000000001" in controller.log.read_text()

        bring(ours, f"{DPID:016x}")
        wait_for(lambda: controller.device()["connected"], controller.log.read_text)

        certificate.unlink()
        pki.issue(ours, "controller", "bellhop")
        sessions = controller.metric("bellhop_openflow_sessions_total")
        switch.vsctl("del-controller", "br0")
        wait_for(lambda: not controller.device()["connected"])
        switch.connect("ssl:127.0.0.1:6653")
        wait_for(lambda: controller.metric("bellhop_openflow_sessions_total") > sessions, controller.log.read_text)
        shown = subprocess.run(
            [*netns, "openssl", "s_client", "-connect", "127.0.0.1:6653", "-showcerts"], input="", capture_output=True, text=True
        ).stdout
        assert "".join(certificate.read_text().split()) in "".join(shown.split()), "the renewed certificate is the one that is shown"
    finally:
        controller.stop()
