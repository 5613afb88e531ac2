"""The whole of Bellhop on real Mininet and Open vSwitch, in a network namespace of its own."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not all(map(shutil.which, ("ovs-vswitchd", "mnexec", "ethtool"))), reason="needs openvswitch-switch, mininet and ethtool"
    ),
]


def test_the_data_plane_does_not_notice_a_killed_controller(networks: Callable[..., Any], netns: list[str]) -> None:
    """No ping is lost on installed paths, nothing is rewritten, and a rule somebody made by hand is still there."""
    network = networks(within=netns, mininet=True)
    network.start_controller()
    network.create("connectivity", "h1", "h4")
    network.wait_active()
    assert network.emulator("POST", "/ping", {"from": "h1", "to": "h4", "count": 3})["received"] == 3

    ofctl = network.within_ovs("ovs-ofctl", "-O", "OpenFlow13")
    foreign = "cookie=0x77,priority=5,in_port=2,dl_type=0x88b5,actions=drop"
    subprocess.run([*ofctl, "add-flow", "s1", foreign], check=True)
    before = dump(ofctl)
    assert len(before["s1"]) == 5

    port = network.workspace.emulator
    pinging = subprocess.Popen(
        [*netns, "curl", "-sS", "-d", '{"from": "h1", "to": "h4", "count": 40}', f"{port}/ping"], stdout=subprocess.PIPE, text=True
    )
    time.sleep(1)
    network.kill_controller()
    time.sleep(2)
    network.start_controller()
    network.wait_active()
    time.sleep(1)
    answer, _ = pinging.communicate(timeout=60)
    assert '"sent": 40, "received": 40' in answer

    after = dump(ofctl)
    assert {bridge: set(rules) for bridge, rules in after.items()} == {bridge: set(rules) for bridge, rules in before.items()}
    for bridge, rules in before.items():
        for rule, duration_s in rules.items():
            assert after[bridge][rule] > duration_s + 3, f"{bridge} has rewritten {rule}"
    device = network.api("GET", "/api/v1/devices/s1")
    assert len(device["diff"]["foreign"]) == 1
    network.remove_all()
    left = dump(ofctl)
    assert [len(left[bridge]) for bridge in ("s1", "s2", "s3")] == [1, 0, 0]


def dump(ofctl: list[str]) -> dict[str, dict[str, float]]:
    """Per bridge, the rules but discovery's, without their counters, and how long each has stood."""
    found: dict[str, dict[str, float]] = {}
    for bridge in ("s1", "s2", "s3"):
        text = subprocess.run([*ofctl, "dump-flows", bridge], capture_output=True, text=True, check=True).stdout
        found[bridge] = {}
        for line in text.splitlines():
            if (duration := re.search(r"duration=([0-9.]+)s", line)) and "cookie=0xbe11d15c" not in line:
                rule = re.sub(r"(duration|n_packets|n_bytes|idle_age|hard_age)=[^,]+, ?", "", line).strip()
                found[bridge][rule] = float(duration[1])
    return found
