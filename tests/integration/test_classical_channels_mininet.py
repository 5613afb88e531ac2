"""The classical channel of a key service on real Open vSwitch: the meter is there, counts, and limits what hosts send to what is promised."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_forwarding_mininet import answers, inside

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not all(map(shutil.which, ("ovs-vswitchd", "mnexec", "ethtool", "ping"))),
        reason="needs openvswitch-switch, mininet, ethtool and ping",
    ),
]

RATE_MBPS = 2
NETWORK = f"""
name: channel
nodes:
  alice: {{kind: end-node, kme: "127.0.0.1:1", classical: {{host: h1, max_latency_ms: 2, rate_mbps: {RATE_MBPS}}}}}
  bob: {{kind: end-node, kme: "127.0.0.1:2", classical: {{host: h2, max_latency_ms: 2, rate_mbps: 1}}}}
  h1: {{kind: host, ip: 10.0.0.1, mac: "02:00:00:00:00:01"}}
  h2: {{kind: host, ip: 10.0.0.2, mac: "02:00:00:00:00:02"}}
  s1: {{kind: openflow-switch, dpid: "0000000000000001"}}
  s2: {{kind: openflow-switch, dpid: "0000000000000002"}}
links:
  - {{kind: qkd, ends: [alice, bob], rate_bps: 2000}}
  - {{kind: ethernet, ends: ["h1:1", "s1:1"], capacity_mbps: 100}}
  - {{kind: ethernet, ends: ["h2:1", "s2:1"], capacity_mbps: 100}}
  - {{kind: ethernet, ends: ["s1:2", "s2:2"], capacity_mbps: 100, latency_ms: 0.5}}
"""
RECEIVE = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.0.0.2", 5000))
print("ready", flush=True)
s.settimeout(3)
got = 0
try:
    while True:
        got += len(s.recv(2048))
except TimeoutError:
    print(got)
"""
SEND = """
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
began, sent = time.monotonic(), 0
while (at := time.monotonic() - began) < 2:
    if sent * 8 < at * 20e6:
        sent += s.sendto(bytes(1000), ("10.0.0.2", 5000))
print(sent, at)
"""


def meters(network: Any, switch: str, what: str) -> str:
    return subprocess.run(
        network.within_ovs("ovs-ofctl", "-O", "OpenFlow13", what, switch), check=True, capture_output=True, text=True
    ).stdout


def test_a_key_service_brings_a_channel_with_the_promised_rate_and_no_more(
    networks: Callable[..., Any], netns: list[str], tmp_path: Path
) -> None:
    (tmp_path / "channel.yaml").write_text(NETWORK)
    network = networks(within=netns, mininet=True, topology=str(tmp_path / "channel"))
    network.start_controller()
    key = network.create("key", "alice", "bob")
    network.wait_active()
    channel = f"{key}.connectivity-1"
    assert network.services()[key]["companions"] == [channel]
    assert network.services()[channel]["request"]["max_latency_ms"] == 2
    for switch in ("s1", "s2"):
        held = meters(network, switch, "dump-meters")
        assert re.search(r"meter=\d+ kbps burst stats bands=\s*type=drop rate=2000 burst_size=200", held), held
    assert answers(network, "h1", "10.0.0.2", "-c", "3") == 3

    receiver = subprocess.Popen([*inside(network, "h2"), sys.executable, "-c", RECEIVE], stdout=subprocess.PIPE, text=True)
    assert receiver.stdout is not None and receiver.stdout.readline() == "ready\n"
    said = subprocess.run([*inside(network, "h1"), sys.executable, "-c", SEND], check=True, capture_output=True, text=True).stdout
    sent, took_s = int(said.split()[0]), float(said.split()[1])
    received = int(receiver.communicate(timeout=30)[0])
    promised = RATE_MBPS * 1e6 / 8 * took_s
    assert sent > 3 * promised, "more was sent than is promised"
    assert 0.5 * promised < received < 1.5 * promised + 25_000, "the burst beside the rate"
    counted = meters(network, "s1", "meter-stats")
    dropped = re.search(r"packet_in_count:(\d+).*\s*bands:\s*0: packet_count:(\d+)", counted)
    assert dropped, counted
    passed = int(dropped[1]) - int(dropped[2])
    assert received // 1000 <= passed <= received // 1000 + 20, "besides some pings, the meter let through what arrived"
    assert int(dropped[2]) > 2 * passed

    network.remove_all()
    for switch in ("s1", "s2"):
        assert "meter=" not in meters(network, switch, "dump-meters")
