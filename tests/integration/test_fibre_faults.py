"""Faults of the fibre plant under a running controller: what it sees, what services do, and that undoing them heals."""

import subprocess
import time
from typing import Any

import pytest
from conftest import BELLHOP, wait_for

TAPPED = "fibre:alice--relay1"


def bellhop(network: Any, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BELLHOP, *words, "--emulator", network.workspace.emulator], capture_output=True, text=True)


def figure(network: Any, link: str, name: str) -> float:
    links = {each["id"]: each for each in network.api("GET", "/api/v1/topology")["links"]}
    return float(links[link]["figures"][name]["value"])


def up(network: Any, link: str) -> bool:
    return bool({each["id"]: each for each in network.api("GET", "/api/v1/topology")["links"]}[link]["up"])


def test_an_eavesdropper_is_seen_in_the_qber_and_keys_go_another_way_until_he_leaves(network: Any) -> None:
    key = network.create("key", "alice", "bob", rate_bps=200, prefer="widest")
    network.wait_active(key)
    assert network.services()[key]["route"]["paths"][0]["nodes"] == ["alice", "relay1", "relay2", "bob"]
    wait_for(lambda: figure(network, "qkd:alice--relay1", "qber") == pytest.approx(0.033, abs=1e-3), 10)
    quiet_bps = figure(network, "qkd:alice--relay1", "rate_bps")

    assert network.emulator("POST", "/faults", {"kind": "eavesdropper", "link": TAPPED, "fraction": 0.04})["id"] == "f1"
    wait_for(lambda: figure(network, "qkd:alice--relay1", "qber") == pytest.approx(0.043, abs=1e-3), 10)
    assert 0 < figure(network, "qkd:alice--relay1", "rate_bps") < quiet_bps
    assert up(network, "qkd:alice--relay1")

    assert bellhop(network, "fault", "eavesdrop", TAPPED, "--fraction", "0.5").returncode == 0
    state = network.emulator("GET", "/state")["qkd"]["qkd:alice--relay1"]
    assert state["live"] and state["rate_bps"] == 0 and state["qber"] == pytest.approx(0.168, abs=2e-3)
    wait_for(lambda: network.services()[key]["route"]["paths"][0]["nodes"] == ["alice", "relay3", "bob"], 15)
    assert not up(network, "qkd:alice--relay1")
    network.wait_active(key)

    for fault in ("f1", "f2"):
        assert bellhop(network, "fault", "clear", fault).returncode == 0
    wait_for(lambda: up(network, "qkd:alice--relay1"), 10)
    wait_for(lambda: figure(network, "qkd:alice--relay1", "rate_bps") == quiet_bps, 10)
    assert network.emulator("GET", "/faults") == {"faults": []}


def test_a_bend_shows_at_the_monitors_and_drift_grows_until_both_are_undone(network: Any) -> None:
    light = network.create("lightpath", "alice/q9", "bob/q9")
    network.wait_active(light)
    before = network.emulator("GET", "/state")

    def monitor() -> float:
        return float(network.api("GET", "/api/v1/devices/ocs2")["actual"]["power_dbm"]["9"])

    wait_for(lambda: monitor() == pytest.approx(-26.6), 10)
    assert network.emulator("POST", "/faults", {"kind": "bend", "link": "trunk-a", "loss_db": 3})["loss_now_db"] == 3
    wait_for(lambda: monitor() == pytest.approx(-29.6), 10)
    bent = network.emulator("GET", "/state")["qkd"]["qkd:alice--bob"]
    assert bent["loss_db"] == pytest.approx(9.6) and bent["rate_bps"] < before["qkd"]["qkd:alice--bob"]["rate_bps"]

    network.emulator("POST", "/faults", {"kind": "drift", "link": "trunk-a", "db_per_s": 0.5, "max_db": 1})
    wait_for(lambda: network.emulator("GET", "/state")["qkd"]["qkd:alice--bob"]["loss_db"] == pytest.approx(10.6), 10)
    listed = bellhop(network, "fault", "list")
    assert [line.split()[:3] for line in listed.stdout.splitlines()[1:]] == [["f1", "bend", "trunk-a"], ["f2", "drift", "trunk-a"]]
    for fault in ("f1", "f2"):
        network.emulator("DELETE", f"/faults/{fault}")
    after = network.emulator("GET", "/state")
    assert (after["qkd"], after["power_dbm"]) == (before["qkd"], before["power_dbm"])
    wait_for(lambda: monitor() == pytest.approx(-26.6), 10)

    network.emulator("POST", "/faults", {"kind": "bend", "link": "trunk-a", "loss_db": 60})  # below the monitors' threshold
    wait_for(lambda: network.services()[light]["route"]["links"] == ["trunk-b"], 15)
    network.wait_active(light)
    moved = network.emulator("GET", "/state")["qkd"]["qkd:alice--bob"]
    assert moved["live"] and moved["path"][2:4] == ["ocs1:10", "ocs2:2"]


def test_no_light_was_ever_on_a_half_built_path(network: Any) -> None:
    begun_s = time.time()
    light = network.create("lightpath", "alice/q9", "bob/q9")
    network.wait_active(light)
    network.api("DELETE", f"/api/v1/services/{light}")
    wait_for(lambda: network.emulator("GET", "/state")["cross_connects"] == {"ocs1": [], "ocs2": []}, 10)
    log = network.emulator("GET", "/light")
    assert log["forgotten"] == 0
    ways = [each["ways"] for each in log["intervals"] if each["transmitter"] == "alice/q9" and (each["until_s"] or begun_s) >= begun_s]
    assert ways == [[["ocs1:1"]], [["ocs1:1", "ocs1:9", "ocs2:1", "ocs2:9", "bob:q9"]], [["ocs1:1"]]]


def test_what_cannot_be_is_refused_with_the_field_that_is_wrong(network: Any) -> None:
    for asked, field in (
        ({"kind": "bend", "link": "trunk-a", "loss_db": 0}, "loss_db"),
        ({"kind": "bend", "link": "trunk-x", "loss_db": 1}, "link"),
        ({"kind": "eavesdropper", "link": "qkd:alice--bob"}, "fraction"),
        ({"kind": "eavesdropper", "link": "ethernet:s1--s2", "fraction": 1}, "link"),
    ):
        assert [each["field"] for each in network.emulator("POST", "/faults", asked)["errors"]] == [field]
    assert "send JSON" in network.curl("-X", "POST", "-d", "{", f"{network.workspace.emulator}/faults")
    wrong = bellhop(network, "fault", "bend", "trunk-x", "--loss", "1")
    assert (wrong.returncode, wrong.stderr) == (2, "link: no link named 'trunk-x' in this network; did you mean trunk-b or trunk-a?\n")
    assert bellhop(network, "fault", "clear", "f7").returncode == 2
    assert bellhop(network, "fault", "drift", "trunk-a", "--max", "3").returncode == 2
    assert network.emulator("GET", "/faults") == {"faults": []}
