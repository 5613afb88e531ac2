"""Topologies in Python: what they become, what becomes them, and how their faults are told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controller.network import document

pytest.importorskip("mininet.topo", reason="pip install 'bellhop-sdn[mininet]'")

from mininet.topo import Topo

from topologies.emulation.hybrid_topo import HybridTopo, read

TOPOLOGIES = Path(document.__file__).parents[2] / "topologies"
HEAD = "from topologies.emulation.hybrid_topo import HybridTopo\n"


@pytest.mark.parametrize("name", ["sandbox", "secoqc"])
def test_a_document_becomes_a_topology_and_the_same_document_again(name: str) -> None:
    network = document.load(TOPOLOGIES / f"{name}.yaml")
    topo = HybridTopo.of(network)
    assert document.dump(topo.network(network.name)) == document.dump(network)
    assert set(topo.switches()) == {each for each, _ in network.nodes("openflow-switch")}
    assert set(topo.hosts()) == {each for each, node in network.nodes() if node.kind != "openflow-switch"}
    assert len(topo.links()) == len(list(network.links("ethernet"))), "light is no cable"


def test_every_kind_of_document_survives(tmp_path: Path) -> None:
    """Parallel cables, ports at hosts, hosts without an address, windows, origins, passive nodes, the sky."""
    network = document.parse(
        b"""
name: odd
description: of everything
nodes:
  spare: {kind: host}
  h2: {kind: host, ip: 10.9.0.1, mac: "02:00:00:00:00:07", site: here, location: [1.0, 2.0]}
  core: {kind: openflow-switch, dpid: "00000000000000a1"}
  s2: {kind: openflow-switch, dpid: "00000000000000a2", admin: draining}
  mux: {kind: passive, ports: 3, losses_db: {"1-2": 3.4}}
  bell: {kind: bell-station}
  sat: {kind: satellite, kme: "127.0.0.1:9000", saes: [x, y]}
  ogs: {kind: ground-station}
links:
  - {kind: ethernet, id: one, ends: ["core:7", "s2:9"], latency_ms: 0.25}
  - {kind: ethernet, id: two, ends: ["s2:8", "core:3"], shared_risk: [duct]}
  - {kind: ethernet, ends: ["spare:eth0", "core:1"]}
  - {kind: ethernet, ends: [h2, "s2:1"]}
  - {kind: free-space, ends: [sat, ogs], loss_db: 30}
  - {kind: qkd, ends: [sat, ogs], rate_bps: 100, qber: 0.02, source: a paper, origins: {qber: measured},
     windows: [{start: "2026-01-01T00:00:00Z", end: "2026-01-01T00:10:00Z"}]}
"""
    )
    assert document.dump(HybridTopo.of(network).network("odd")) == document.dump(network)


def test_the_example_becomes_a_document_with_mininets_defaults() -> None:
    network = read(TOPOLOGIES / "metro.py")
    assert network.name == "metro"
    assert (network.node("h2").ip, network.node("h2").mac) == ("10.0.0.2", "02:00:00:00:00:02")
    assert network.node("s2").dpid == "0000000000000002"
    assert network.link("ethernet:s1--s2").ends == ("s1:2", "s2:2") and network.link("ethernet:s1--s2-2").ends == ("s1:3", "s2:3")
    assert network.link("ethernet:s1--s2").latency_ms == 0.1 and network.link("ethernet:s1--s2").capacity_mbps == 1000
    assert network.link("ethernet:h1--s1").ends == ("h1", "s1:1")
    assert {node.kind for _, node in network.nodes()} > {"end-node", "trusted-node", "repeater", "source", "optical-switch"}
    assert document.dump(document.parse(document.dump(network))) == document.dump(network)


def test_mininet_is_told_the_same(tmp_path: Path) -> None:
    topo = HybridTopo()
    topo.addHost("h1", ip="10.0.5.1/24", site="west")
    topo.addSwitch("s10", site="west")
    topo.addTrustedNode("relay", operator="metro")
    topo.addLink("h1", "s10", latency_ms=0.5)
    assert topo.nodeInfo("h1") == {"ip": "10.0.5.1/24", "mac": "02:00:00:00:00:01", "site": "west"}
    assert topo.nodeInfo("s10")["dpid"] == "000000000000000a" and topo.nodeInfo("s10")["protocols"] == "OpenFlow13"
    assert topo.nodeInfo("relay") == {"ip": None}
    assert topo.linkInfo("h1", "s10")["delay"] == "0.5ms"
    network = topo.network("told")
    assert (network.node("h1").ip, network.node("s10").site, network.link("ethernet:h1--s10").latency_ms) == ("10.0.5.1", "west", 0.5)


@pytest.mark.parametrize(("delay", "ms"), [("2ms", 2.0), ("0.5s", 500.0), ("200us", 0.2), (1000, 1.0)])
def test_delays_are_those_of_tc(delay: object, ms: float) -> None:
    topo = HybridTopo()
    topo.addLink(topo.addSwitch("s1"), topo.addSwitch("s2"), delay=delay)
    assert topo.network("delays").link("ethernet:s1--s2").latency_ms == pytest.approx(ms)


def test_a_plain_mininet_topology_is_taken_too(tmp_path: Path) -> None:
    class Plain(Topo):  # type: ignore[misc]
        def build(self) -> None:
            self.addLink(self.addHost("h1", ip="10.1.1.1"), self.addSwitch("s3"))
            self.addLink("s3", self.addSwitch("s4", dpid="ab"), port1=5, delay="1ms")

    network = HybridTopo.adopting(Plain()).network("plain")
    assert (network.node("h1").ip, network.node("s3").dpid, network.node("s4").dpid) == ("10.1.1.1", "0" * 15 + "3", "0" * 14 + "ab")
    assert network.link("ethernet:s3--s4").ends == ("s3:5", "s4:1") and network.link("ethernet:s3--s4").latency_ms == 1.0
    file = tmp_path / "plain.py"
    file.write_text("from mininet.topo import SingleSwitchTopo\ntopos = {'plain': lambda: SingleSwitchTopo(3)}\n")
    assert [name for name, _ in read(file).nodes("host")] == ["h1", "h2", "h3"]


BUILD = HEAD + "class A(HybridTopo):\n    def build(self):\n        self.addEndNode('alice')\n        {}\ntopos = {{'a': A}}\n"
FAULTS = {
    "import error": ("import os\nimport no_such_module\n", r"topo\.py:2: .*ModuleNotFoundError: No module named 'no_such_module'"),
    "syntax": (HEAD + "x = (\n", r"topo\.py:2: .*SyntaxError"),
    "ends the program": (HEAD + "raise SystemExit(3)\n", r"topo\.py:2: .*SystemExit: 3"),
    "no topos": (HEAD + "\n\n", r"topo\.py:3: topos: the file names no topology, end it with topos = "),
    "empty topos": ("\ntopos = {}\n", r"topo\.py:2: topos: the file names no topology"),
    "several": (
        HEAD + "topos = {'a': HybridTopo, 'b': HybridTopo}\n",
        r"topo\.py:2: .*several topologies: a, b, say which, as in .*topo\.py:a",
    ),
    "not callable": ("\ntopos = {'a': 5}\n", r"topo\.py:2: topos: 'a' is 5, give a class"),
    "no topology": ("\ntopos = {'a': dict}\n", r"topo\.py:2: topos: 'a' makes \{\}, make a HybridTopo"),
    "wrong method": (BUILD.format("self.addQuantumNode('x')"), r"topo\.py:5: topos\[a\]: AttributeError: .*addQuantumNode"),
    "wrong field": (
        BUILD.format("self.addTrustedNode('t', operater='x')"),
        r"topo\.py:5: nodes\.t\.operater: unknown field 'operater', did you mean operator",
    ),
    "misplaced field": (
        BUILD.format("self.addRepeater('t', kme='localhost:1')"),
        r"topo\.py:5: nodes\.t\.kme: a node or link of kind repeater has no kme",
    ),
    "unknown end": (BUILD.format("self.addFibre('alice', 'bob', length_km=1)"), r"topo\.py:5: links\[0\]\.ends\[1\]: no node named 'bob'"),
    "unknown cable end": (
        BUILD.format("self.addLink('alice', 'h9')"),
        r"topo\.py:5: topos\[a\]: ValueError: there is no node 'h9': add it before",
    ),
    "twice": (BUILD.format("self.addHost('alice')"), r"topo\.py:5: topos\[a\]: ValueError: there is a node 'alice' already"),
    "no dpid": (BUILD.format("self.addSwitch('core')"), r"topo\.py:5: nodes\.core: an openflow-switch without dpid"),
    "delay": (
        BUILD.format("self.addLink(self.addSwitch('s1'), self.addSwitch('s2'), delay='soon')"),
        r"topo\.py:5: .*'soon' is not of the form 2ms",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_name_file_and_line(name: str, tmp_path: Path) -> None:
    text, told = FAULTS[name]
    file = tmp_path / "topo.py"
    file.write_text(text)
    with pytest.raises(document.WrongDocument, match=told):
        read(file)


def test_every_fault_of_a_topology_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "topo.py"
    file.write_text(
        BUILD.format("self.addRepeater('r', memories=0); self.addFibre('alice', 'x')\n        self.addQuantumLink('r', 'y', kind='qbit')")
    )
    with pytest.raises(document.WrongDocument) as wrong:
        read(file)
    assert [fault.line for fault in wrong.value.faults] == sorted(fault.line for fault in wrong.value.faults)
    assert {5, 6} == {fault.line for fault in wrong.value.faults} and len(wrong.value.faults) >= 3


def test_one_of_several_is_chosen(tmp_path: Path) -> None:
    file = tmp_path / "topo.py"
    file.write_text(HEAD + "class A(HybridTopo):\n    def build(self):\n        self.addHost('h1')\ntopos = {'a': A, 'b': HybridTopo}\n")
    assert [name for name, _ in read(file, "a").nodes()] == ["h1"] and read(file, "b").name == "b"
    with pytest.raises(document.WrongDocument, match=r"topo\.py:5: topos: the file has no topology 'c', .*there are a, b"):
        read(file, "c")


def bellhop(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"{before}\nfrom controller.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)


def test_the_command_line_takes_python_files(tmp_path: Path) -> None:
    done = bellhop("topology", "show", str(TOPOLOGIES / "metro.py"), "-o", "yaml")
    assert done.returncode == 0 and done.stderr == ""
    assert document.dump(document.parse(done.stdout)) == document.dump(read(TOPOLOGIES / "metro.py"))
    done = bellhop("check", f"{TOPOLOGIES / 'metro.py'}:metra")
    assert done.returncode == 2 and "metro.py:" in done.stdout and "did you mean metro" in done.stdout
    done = bellhop("up", str(tmp_path / "missing.py"))
    assert done.returncode == 2 and "no document" in done.stderr and "Traceback" not in done.stderr


def test_without_mininet_it_is_said_what_to_install() -> None:
    hidden = "import sys; sys.modules['mininet.topo'] = None"
    done = bellhop("check", str(TOPOLOGIES / "metro.py"), before=hidden)
    assert done.returncode == 2 and "pip install 'bellhop-sdn[mininet]'" in done.stderr and "Traceback" not in done.stderr
    done = bellhop("check", str(TOPOLOGIES / "sandbox.yaml"), before=hidden)
    assert done.returncode == 0, "a document needs no Mininet"
