"""The promises of a running network, seen from outside: by curl, at the devices, and in the memory of the controller."""

import base64
import json
import time
from pathlib import Path
from typing import Any


def memory_of(pid: int) -> bytes:
    """Everything readable in a process's memory."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if "r" in rights and "[v" not in line:
                start, end = (int(part, 16) for part in span.split("-"))
                try:
                    memory.seek(start)
                    found.append(memory.read(end - start))
                except OSError:
                    continue
    return b"".join(found)


def test_the_same_key_on_both_sides_over_two_trusted_nodes_and_none_in_the_controller(network: Any) -> None:
    service = network.create("key", "alice", "bob", rate_bps=500, prefer="widest")
    network.wait_active(service)
    route = network.services()[service]["route"]
    assert route["trusted_nodes"] == ["relay1", "relay2"]

    deadline = time.monotonic() + 10
    while network.sae("sae-alice", "alice", "sae-bob/status")["stored_key_count"] < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    taken = network.sae("sae-alice", "alice", "sae-bob/enc_keys", "-d", json.dumps({"number": 3}), "-H", "Content-Type: application/json")
    wanted = {"key_IDs": [{"key_ID": key["key_ID"]} for key in taken["keys"]]}
    given = network.sae("sae-bob", "bob", "sae-alice/dec_keys", "-d", json.dumps(wanted), "-H", "Content-Type: application/json")
    assert len(taken["keys"]) == 3
    assert taken["keys"] == given["keys"]
    assert all(len(base64.b64decode(key["key"])) == 32 for key in given["keys"])

    pid = network.processes["controller"].pid
    memory = memory_of(pid)
    assert service.encode() in memory, "the scan sees the controller's memory"
    for key in given["keys"]:
        raw = base64.b64decode(key["key"])
        for form in (raw, key["key"].encode(), raw.hex().encode()):
            assert form not in memory

    network.kill_controller()
    taken = network.sae("sae-bob", "bob", "sae-alice/enc_keys")
    given = network.sae("sae-alice", "alice", f"sae-bob/dec_keys?key_ID={taken['keys'][0]['key_ID']}")
    assert taken["keys"] == given["keys"]
    stock = network.sae("sae-alice", "alice", "sae-bob/status")["stored_key_count"]
    for _ in range(stock):
        network.sae("sae-alice", "alice", "sae-bob/enc_keys")
    time.sleep(3)
    assert network.sae("sae-alice", "alice", "sae-bob/status")["stored_key_count"] > 0, "keys are relayed on without the controller"


def test_a_dead_link_makes_services_find_another_way(network: Any) -> None:
    key = network.create("key", "alice", "bob", rate_bps=200, prefer="widest")
    light = network.create("lightpath", "alice/q9", "bob/q9")
    packets = network.create("connectivity", "h1", "h4")
    network.wait_active()
    assert network.emulator("POST", "/ping", {"from": "h1", "to": "h4", "count": 2})["received"] == 2

    for link in ("fibre:relay1--relay2", "trunk-a", "ethernet:s2--s3"):
        assert network.emulator("POST", f"/links/{link}/cut")["up"] is False

    def ways() -> dict[str, list[str]]:
        services = network.services()
        key_nodes = services[key]["route"]["paths"][0]["nodes"]
        return {"key": key_nodes, "light": services[light]["route"]["links"], "packets": services[packets]["route"]["nodes"]}

    expected = {"key": ["alice", "relay3", "bob"], "light": ["trunk-b"], "packets": ["h1", "s1", "s3", "h4"]}
    deadline = time.monotonic() + 15
    while ways() != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ways() == expected
    network.wait_active()

    state = network.emulator("GET", "/state")
    assert state["cross_connects"] == {"ocs1": [[1, 10]], "ocs2": [[2, 9]]}
    assert state["qkd"]["qkd:alice--bob"]["live"]
    assert network.flows()["s2"] == []
    assert network.emulator("POST", "/ping", {"from": "h4", "to": "h1", "count": 2})["received"] == 2
    assert network.differences() == {}


def test_removal_leaves_no_residue_and_foreign_things_alone(network: Any) -> None:
    before, flows = network.emulator("GET", "/state"), network.flows()
    for kind, *ends in (
        ("key", "alice", "bob"),
        ("connectivity", "h1", "h3"),
        ("connectivity", "h2", "h4"),
        ("lightpath", "alice/q9", "bob/q9"),
    ):
        network.create(kind, *ends)
    network.wait_active()
    during = network.emulator("GET", "/state")
    assert during["cross_connects"] != before["cross_connects"]
    assert all(network.flows().values())
    network.remove_all()
    assert (network.flows(), network.emulator("GET", "/state")["cross_connects"]) == (flows, before["cross_connects"])
    assert network.differences() == {}


def test_a_companion_lightpath_comes_and_goes_with_its_key_service(network: Any) -> None:
    key = network.create("key", "alice", "bob", max_trusted_nodes=0)
    network.wait_active()
    services = network.services()
    companion = next(each for each in services.values() if each["parent"] == key)
    assert companion["kind"] == "lightpath"
    assert network.emulator("GET", "/state")["qkd"]["qkd:alice--bob"]["live"]
    network.api("DELETE", f"/api/v1/services/{key}")
    deadline = time.monotonic() + 10
    while network.services() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert network.services() == {}
    assert network.emulator("GET", "/state")["cross_connects"] == {"ocs1": [], "ocs2": []}


def test_sigterm_leaves_devices_as_they_are_and_a_restart_rewrites_nothing(network: Any) -> None:
    network.create("connectivity", "h1", "h4")
    network.create("lightpath", "alice/q9", "bob/q9")
    network.wait_active()
    before = network.emulator("GET", "/state")
    network.processes["controller"].terminate()
    assert network.processes["controller"].wait(15) == 0
    assert network.emulator("GET", "/state") == before
    assert network.emulator("POST", "/ping", {"from": "h1", "to": "h4", "count": 3})["received"] == 3
    network.start_controller()
    network.wait_active()
    after = network.emulator("GET", "/state")
    assert after["flows"] == before["flows"], "the time at which a rule was added is part of the text"
    assert after["cross_connects"] == before["cross_connects"]


def test_drain_moves_services_and_names_those_that_cannot_move(network: Any) -> None:
    network.create("connectivity", "h1", "h4")
    network.create("connectivity", "h2", "h3")
    network.wait_active()
    assert network.services()["connectivity-1"]["route"]["nodes"] == ["h1", "s1", "s2", "s3", "h4"]
    answer = network.api("PATCH", "/api/v1/nodes/s2", {"admin": "draining"})
    assert answer["moved"] == ["connectivity-1"]
    assert list(answer["cannot_move"]) == ["connectivity-2"]
    assert network.services()["connectivity-1"]["route"]["nodes"] == ["h1", "s1", "s3", "h4"]
    network.wait_active("connectivity-1")


def test_a_bundle_of_light_is_set_and_restored_and_the_time_that_took_is_learned(network: Any) -> None:
    body = {"ends": ["alice", "bob"], "strands": [{"signal": "quantum"}]}
    plan = network.api("POST", "/api/v1/services?dry_run=1", {"kind": "lightpath", "request": body})
    assert not any("set-up:" in line for line in plan["service"]["explanation"])
    network.api("POST", "/api/v1/services", {"kind": "lightpath", "request": body, "name": "bundle"})
    network.wait_active("bundle")
    state = network.emulator("GET", "/state")
    assert state["cross_connects"] == {"ocs1": [[1, 9]], "ocs2": [[1, 9]]}
    assert [each["signal"] for each in network.services()["bundle"]["route"]["strands"]] == ["quantum"]
    network.emulator("POST", "/links/trunk-a/cut")
    deadline = time.monotonic() + 15
    while network.services()["bundle"]["route"]["links"] != ["trunk-b"] and time.monotonic() < deadline:
        time.sleep(0.1)
    network.wait_active("bundle")
    assert network.emulator("GET", "/state")["cross_connects"] == {"ocs1": [[1, 10]], "ocs2": [[2, 9]]}
    network.remove_all()
    plan = network.api("POST", "/api/v1/services?dry_run=1", {"kind": "lightpath", "request": body})
    assert plan["service"]["route"]["links"] == ["trunk-b"], "trunk-a is cut"
    assert any("set-up:" in line and "median" in line for line in plan["service"]["explanation"])
