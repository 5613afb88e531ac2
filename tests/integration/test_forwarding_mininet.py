"""Connectivity on real Mininet and Open vSwitch: both families, VLANs apart, links cut while packets flow, and no controller."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not all(map(shutil.which, ("ovs-vswitchd", "mnexec", "ethtool", "ping"))),
        reason="needs openvswitch-switch, mininet, ethtool and ping",
    ),
]

INTERVAL_S = 0.01
RING = """
name: ring
nodes:
  h1: {kind: host, ip: 10.0.0.1, ipv6: "fd00::1", mac: "02:00:00:00:00:01", vlan: 100}
  h2: {kind: host, ip: 10.0.0.2, ipv6: "fd00::2", mac: "02:00:00:00:00:02", vlan: 100}
  h3: {kind: host, ip: 10.0.0.3, ipv6: "fd00::3", mac: "02:00:00:00:00:03", vlan: 200}
  h4: {kind: host, ip: 10.0.0.4, ipv6: "fd00::4", mac: "02:00:00:00:00:04", vlan: 200}
  s1: {kind: openflow-switch, dpid: "0000000000000001"}
  s2: {kind: openflow-switch, dpid: "0000000000000002"}
  s3: {kind: openflow-switch, dpid: "0000000000000003"}
  s4: {kind: openflow-switch, dpid: "0000000000000004"}
  s5: {kind: openflow-switch, dpid: "0000000000000005"}
links:
  - {kind: ethernet, ends: ["h1:1", "s1:1"]}
  - {kind: ethernet, ends: ["h3:1", "s1:2"]}
  - {kind: ethernet, ends: ["h2:1", "s4:1"]}
  - {kind: ethernet, ends: ["h4:1", "s4:2"]}
  - {kind: ethernet, id: w1, ends: ["s1:11", "s2:12"], latency_ms: 0.1}
  - {kind: ethernet, id: w2, ends: ["s2:11", "s3:12"], latency_ms: 0.1}
  - {kind: ethernet, id: w3, ends: ["s3:11", "s4:12"], latency_ms: 0.1}
  - {kind: ethernet, id: p1, ends: ["s1:13", "s5:12"], latency_ms: 0.5}
  - {kind: ethernet, id: p2, ends: ["s5:11", "s4:13"], latency_ms: 0.5}
"""
WORKING = ("w1", "w2", "w3")


@pytest.fixture
def ring(networks: Callable[..., Any], netns: list[str], tmp_path: Path) -> Any:
    """h1 - s1 - s2 - s3 - s4 - h2, and s1 - s5 - s4 the other way round; h3 is beside h1, h4 beside h2."""
    (tmp_path / "ring.yaml").write_text(RING)
    network = networks(within=netns, mininet=True, topology=str(tmp_path / "ring"))
    network.start_controller()
    return network


def inside(network: Any, host: str) -> list[str]:
    """The command prefix that runs a command on a Mininet host of this network: the shell among the emulator's children that has its name."""
    for pid in descendants(network.processes["emulator"].pid):
        if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(f"mininet:{host}\0".encode()):
            return ["mnexec", "-a", str(pid)]
    raise AssertionError(f"no process is host {host}")


def descendants(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            yield child
            yield from descendants(child)


def answers(network: Any, host: str, address: str, *options: str) -> int:
    done = subprocess.run(
        [*inside(network, host), "ping", "-n", "-W", "1", "-i", "0.05", *options, address], capture_output=True, text=True
    )
    found = re.search(r"(\d+) received", done.stdout)
    assert found, done
    return int(found[1])


def forget_neighbours(network: Any, host: str) -> None:
    subprocess.run([*inside(network, host), "ip", "neigh", "flush", "all"], check=True)


def gap_s(network: Any, link: str) -> float:
    """How long no answer comes when a link is cut while h1 pings h2 a hundred times a second; the link is mended afterwards."""
    command = [*inside(network, "h1"), "ping", "-n", "-D", "-i", str(INTERVAL_S), "-c", "220", "-W", "1", "10.0.0.2"]
    pinging = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    time.sleep(0.6)
    network.emulator("POST", f"/links/{link}/cut")
    output, _ = pinging.communicate(timeout=60)
    network.emulator("POST", f"/links/{link}/restore")
    came_s = [float(moment) for moment in re.findall(r"^\[([0-9.]+)\] .*icmp_seq=\d+ .*time=", output, re.MULTILINE)]
    assert len(came_s) > 100, output[-500:]
    return max(later - before for before, later in pairwise(came_s)) - INTERVAL_S


def told(kind: str, gaps_s: list[float]) -> str:
    p50, p99 = statistics.median(gaps_s), statistics.quantiles(gaps_s, n=100, method="inclusive")[-1]
    return f"{kind}: gap p50 {1e3 * p50:.1f} ms, p99 {1e3 * p99:.1f} ms, most {1e3 * max(gaps_s):.1f} ms over {len(gaps_s)} cuts"


def test_both_families_pass_and_vlans_stay_apart(ring: Any) -> None:
    ring.create("connectivity", "h1", "h2")
    ring.create("connectivity", "h3", "h4", max_rate_kbps=10_000)
    refused = ring.api("POST", "/api/v1/services", {"kind": "connectivity", "request": {"ends": ["h1", "h4"]}})
    assert refused["constraint"] == "vlan"
    ring.wait_active()
    for a, b in (("h1", "2"), ("h2", "1"), ("h3", "4"), ("h4", "3")):
        assert answers(ring, a, f"10.0.0.{b}", "-c", "5", "-W", "5") == 5
        assert answers(ring, a, f"fd00::{b}", "-c", "5", "-W", "5") == 5
    assert ring.emulator("POST", "/ping", {"from": "h1", "to": "h2", "count": 2, "ipv6": True})["received"] == 2
    for a, b in (("h1", "4"), ("h1", "3"), ("h3", "2")):
        assert answers(ring, a, f"10.0.0.{b}", "-c", "2") == 0
        assert answers(ring, a, f"fd00::{b}", "-c", "2") == 0
    assert ring.differences() == {}


def test_services_follow_a_host_whose_cable_is_plugged_in_elsewhere(ring: Any) -> None:
    name = ring.create("connectivity", "h1", "h2")
    ring.wait_active()
    assert answers(ring, "h1", "10.0.0.2", "-c", "2") == 2
    plug = ring.within_ovs("ovs-vsctl", "del-port", "s1-eth1", "--", "add-port", "s5", "s1-eth1")
    subprocess.run([*plug, "--", "set", "interface", "s1-eth1", "ofport_request=21"], check=True)
    forget_neighbours(ring, "h1")
    assert answers(ring, "h1", "10.0.0.2", "-c", "60") > 0, "its first question is what tells where it is"
    ring.wait_active()
    assert ring.services()[name]["route"]["nodes"] == ["h1", "s5", "s4", "h2"]
    for host, address in (("h1", "10.0.0.2"), ("h2", "10.0.0.1"), ("h1", "fd00::2")):
        assert answers(ring, host, address, "-c", "3") == 3
    ring.kill_controller()
    ring.start_controller()
    ring.wait_active()
    assert ring.services()[name]["route"]["nodes"] == ["h1", "s5", "s4", "h2"], "a restart remembers"
    assert answers(ring, "h2", "10.0.0.1", "-c", "3") == 3
    assert ring.differences() == {}


@pytest.mark.parametrize("cuts", [1, pytest.param(15, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_a_protected_path_survives_each_link_without_a_controller(ring: Any, cuts: int) -> None:
    name = ring.create("connectivity", "h1", "h2", protection="fast-failover")
    ring.wait_active()
    route = ring.services()[name]["route"]
    assert route["links"][1:-1] == list(WORKING)
    assert route["protection"]["links"][1:-1] == ["p1", "p2"]
    assert answers(ring, "h1", "10.0.0.2", "-c", "3") == 3
    ring.kill_controller()
    for link in (*WORKING, "p1"):
        ring.emulator("POST", f"/links/{link}/cut")
        for host in ("h1", "h2"):
            forget_neighbours(ring, host)  # addresses are resolved on the way that is left
        assert answers(ring, "h1", "10.0.0.2", "-c", "3") == 3, f"without {link}"
        assert answers(ring, "h2", "fd00::1", "-c", "3") == 3, f"without {link}"
        ring.emulator("POST", f"/links/{link}/restore")
    gaps_s = []
    for link in WORKING * cuts:
        gaps_s.append(gap_s(ring, link))
        assert answers(ring, "h1", "10.0.0.2", "-c", "3") == 3, "and back on its path"
    print(told("fast failover, no controller", gaps_s))
    ring.start_controller()
    ring.wait_active()
    assert ring.differences() == {}


@pytest.fixture
def quick_hellos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten hellos a second: a link that fell often is trusted after up to 32 of them, which a campaign of cuts would wait out in seconds each."""
    monkeypatch.setenv("BELLHOP_DISCOVERY_INTERVAL_S", "0.1")


@pytest.mark.parametrize("cuts", [1, pytest.param(15, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
@pytest.mark.usefixtures("quick_hellos")
def test_without_protection_the_controller_finds_another_path(ring: Any, cuts: int) -> None:
    ring.create("connectivity", "h1", "h2")
    ring.wait_active()
    assert answers(ring, "h1", "10.0.0.2", "-c", "3") == 3
    gaps_s = []
    for link in WORKING * cuts:
        (service,) = ring.services().values()
        gaps_s.append(gap_s(ring, link if link in service["route"]["links"] else "p2"))
        while not all(each["up"] for each in ring.api("GET", "/api/v1/topology")["links"]):  # until there is another path again
            time.sleep(0.1)
        ring.wait_active()
    print(told("replanned by the controller", gaps_s))
