"""Every path of /api/v1 against a running controller with emulated switches."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any

import pytest

from controller.services.device_view import DeviceView
from controller.southbound.device import Diff, FlowRule, State
from controller.southbound.discovery.discovery import COOKIES

CONNECTIVITY = {"kind": "connectivity", "request": {"ends": ["h1", "h4"]}}


async def test_topology(controller: Any) -> None:
    answer = await controller.ask("GET", "/api/v1/topology")
    assert answer["name"] == "sandbox" and answer["revision"] == controller.daemon.topology.revision
    assert answer["nodes"]["s1"]["kind"] == "openflow-switch"
    trunk = next(link for link in answer["links"] if link["id"] == "trunk-a")
    assert trunk["up"] and trunk["usable"]
    assert trunk["figures"]["length_km"] == {"value": 25.0, "origin": "assumed", "source": ""}


@pytest.mark.parametrize(
    ("kind", "query", "expected"),
    [
        ("entanglement", {"src": "alice", "dst": "bob", "min_fidelity": "0.8"}, {"nodes": ["alice", "rep1", "rep2", "bob"]}),
        ("key", {"src": "alice", "dst": "bob", "avoid": "relay1", "max_trusted_nodes": "1"}, {"trusted_nodes": ["relay3"]}),
        ("light", {"src": "alice", "dst": "bob"}, {"links": ["trunk-a"]}),
        ("classical", {"src": "h1", "dst": "h4"}, {"nodes": ["h1", "s1", "s2", "s3", "h4"]}),
    ],
)
async def test_routes(controller: Any, kind: str, query: dict[str, str], expected: dict[str, Any]) -> None:
    answer = await controller.ask("GET", f"/api/v1/routes/{kind}", params=query)
    assert answer | expected == answer
    assert answer["explanation"]


async def test_avoid_may_be_given_again(controller: Any) -> None:
    query = [("src", "alice"), ("dst", "bob"), ("avoid", "relay1"), ("avoid", "relay3")]
    answer = await controller.ask("GET", "/api/v1/routes/key", params=query)
    assert answer["trusted_nodes"] == []


async def test_a_split_and_what_the_pools_give(controller: Any) -> None:
    query = {"src": "alice", "dst": "bob", "split": "2"}
    answer = await controller.ask("GET", "/api/v1/routes/key", params=query)
    assert answer["rate_bps"] == pytest.approx(sum(path["rate_bps"] for path in answer["paths"])) and len(answer["paths"]) == 2
    await controller.ask("GET", "/api/v1/routes/key", 422, params=query | {"shares": "2"})
    views = controller.daemon.reconciler.views
    for name, peer, held in (("relay1", "alice", 75_000), ("alice", "relay1", 100_000)):
        views[name] = DeviceView(name, lambda: None, State(pool_bytes={peer: held}))
    query = {"src": "alice", "dst": "relay1", "horizon_s": "600", "prefer": "fewest-trusted-nodes"}
    answer = await controller.ask("GET", "/api/v1/routes/key", params=query)
    assert any("plus 1000 bit/s of its pool, over qkd:alice--relay1" in line for line in answer["explanation"])
    assert any("the pool of alice -- relay1" in line for line in answer["explanation"])
    await controller.ask("GET", "/api/v1/routes/key", 422, params=query | {"horizon_s": "0"})


async def test_a_route_that_is_not(controller: Any) -> None:
    query = {"src": "alice", "dst": "bob", "min_fidelity": "0.9999"}
    answer = await controller.ask("GET", "/api/v1/routes/entanglement", 409, params=query)
    assert answer["constraint"] == "min_fidelity" and 0.9 < answer["best"] < 0.9999
    assert answer["title"] == "No route"


async def test_services_from_request_to_removal(controller: Any) -> None:
    created = await controller.ask("POST", "/api/v1/services", 201, json={**CONNECTIVITY, "priority": 3})
    assert (created["id"], created["kind"], created["priority"]) == ("connectivity-1", "connectivity", 3)
    service = await controller.serving("connectivity-1")
    assert service["route"]["nodes"] == ["h1", "s1", "s2", "s3", "h4"]
    assert {device: len(items) for device, items in service["devices"].items()} == {"s1": 4, "s2": 2, "s3": 4}
    assert (await controller.network.ping("h1", "h4", 1)).received == 1
    (listed,) = (await controller.ask("GET", "/api/v1/services"))["services"]
    assert listed["state"] == "ACTIVE" and "devices" not in listed
    assert (await controller.ask("DELETE", "/api/v1/services/connectivity-1", 202))["state"] == "REMOVING"
    await controller.gone("connectivity-1")
    assert (await controller.ask("GET", "/api/v1/services"))["services"] == []
    left = [entry for switch in controller.network.switches.values() for entry in switch.flows() if entry.cookie >> 32 != COOKIES >> 32]
    assert not left


async def test_a_dry_run_prints_the_diff_and_changes_nothing(controller: Any) -> None:
    foreign = FlowRule(9, (("in_port", 5),), (), cookie=7)
    await controller.daemon.devices["s2"].apply(Diff("s2", add=(foreign,)))
    before = await controller.network.flows()
    revision = controller.daemon.desk.book.revision
    answer = await controller.ask("POST", "/api/v1/services?dry_run=1", json=CONNECTIVITY)
    assert answer["service"]["id"] == "connectivity-1" and answer["service"]["explanation"]
    assert [(each["device"], len(each["add"]), len(each["remove"])) for each in answer["diff"]] == [
        ("s1", 4, 0),
        ("s2", 2, 0),
        ("s3", 4, 0),
    ]
    (told,) = answer["diff"][1]["foreign"]
    assert told["cookie"] == 7
    assert await controller.network.flows() == before
    assert (await controller.ask("GET", "/api/v1/services"))["services"] == []
    assert controller.daemon.desk.book.revision == revision
    created = await controller.ask("POST", "/api/v1/services", 201, json=CONNECTIVITY)
    assert [len(items) for items in created["devices"].values()] == [4, 2, 4]  # as was said


@pytest.mark.parametrize("query", ["dryrun=1", "dry_run", "dry_run=maybe", "dry_run=", "dry_run=0&dry_run=1"])
async def test_a_mistyped_dry_run_changes_nothing(controller: Any, query: str) -> None:
    answer = await controller.ask("POST", f"/api/v1/services?{query}", 422, json=CONNECTIVITY)
    assert [fault["path"] for fault in answer["faults"]] == [query.partition("=")[0]]
    assert (await controller.ask("GET", "/api/v1/services"))["services"] == []


async def test_what_cannot_be_run_dry_is_not_run(controller: Any) -> None:
    for spelling, status in (("1", 200), ("yes", 200), ("True", 200), ("false", 201)):
        await controller.ask("POST", f"/api/v1/services?dry_run={spelling}", status, json={**CONNECTIVITY, "name": "c"})
    await controller.ask("DELETE", "/api/v1/services/c?dry_run=1", 422)
    await controller.ask("PATCH", "/api/v1/nodes/s2?dry_run=1", 422, json={"admin": "disabled"})
    assert (await controller.ask("GET", "/api/v1/services/c"))["state"] != "REMOVING"
    assert "admin" not in (await controller.ask("GET", "/api/v1/topology"))["nodes"]["s2"]


async def test_a_key_route_is_of_what_is_not_promised(controller: Any) -> None:
    query = {"src": "alice", "dst": "relay3", "max_trusted_nodes": "0"}
    free = (await controller.ask("GET", "/api/v1/routes/key", params=query))["rate_bps"]
    wanted = {"kind": "key", "request": {"ends": ["alice", "relay3"], "rate_bps": 500, "max_trusted_nodes": 0}}
    await controller.ask("POST", "/api/v1/services", 201, json=wanted)
    left = (await controller.ask("GET", "/api/v1/routes/key", params=query))["rate_bps"]
    dry = await controller.ask("POST", "/api/v1/services?dry_run=1", json={**wanted, "request": {**wanted["request"], "rate_bps": 0}})  # type: ignore[dict-item]
    assert left == dry["service"]["route"]["rate_bps"] == pytest.approx(free - 500)


async def test_devices(controller: Any) -> None:
    await controller.ask("POST", "/api/v1/services", 201, json=CONNECTIVITY)
    await controller.serving("connectivity-1")
    listed = {each["name"]: each for each in (await controller.ask("GET", "/api/v1/devices"))["devices"]}
    assert listed.keys() == {"s1", "s2", "s3"}
    assert all(each["connected"] and not each["trouble"] for each in listed.values())
    shown = await controller.ask("GET", "/api/v1/devices/s1")
    assert {owner: len(items) for owner, items in shown["desired"].items()} == {"connectivity-1": 4, "standing:s1": 4}
    assert len(shown["actual"]["items"]) == 8
    assert shown["diff"] == {"device": "s1", "add": [], "remove": [], "foreign": []}
    stray = FlowRule(9, (("in_port", 5),), (), cookie=7)
    await controller.daemon.devices["s1"].apply(Diff("s1", add=(stray,)))
    shown = await controller.ask("GET", "/api/v1/devices/s1")  # read now, not remembered
    assert shown["foreign"] == 1 and shown["diff"]["foreign"][0]["cookie"] == 7


async def test_draining_a_node_moves_services(controller: Any) -> None:
    await controller.ask("POST", "/api/v1/services", 201, json=CONNECTIVITY)
    await controller.ask("POST", "/api/v1/services", 201, json={"kind": "connectivity", "request": {"ends": ["h1", "h3"]}, "name": "stuck"})
    await controller.serving("stuck")
    answer = await controller.ask("PATCH", "/api/v1/nodes/s2", json={"admin": "draining"})
    assert answer["moved"] == ["connectivity-1"] and answer["cannot_move"].keys() == {"stuck"}
    assert (await controller.serving("connectivity-1"))["route"]["nodes"] == ["h1", "s1", "s3", "h4"]
    topology = await controller.ask("GET", "/api/v1/topology")
    assert topology["nodes"]["s2"]["admin"] == "draining"
    assert (await controller.ask("PATCH", "/api/v1/nodes/s2", json={"admin": "enabled"}))["admin"] == "enabled"


async def test_administering_a_link(controller: Any) -> None:
    path = "/api/v1/links/ethernet%3As1--s2"
    assert (await controller.ask("PATCH", path, json={"admin": "disabled"}))["link"] == "ethernet:s1--s2"
    route = await controller.ask("GET", "/api/v1/routes/classical", params={"src": "h1", "dst": "h4"})
    assert route["nodes"] == ["h1", "s1", "s3", "h4"]


async def test_health_and_readiness(controller: Any) -> None:
    alive = await controller.ask("GET", "/healthz")
    assert alive["status"] == "alive" and alive["uptime_s"] >= 0
    assert await controller.ask("GET", "/readyz") == {"ready": True, "waiting_for": []}
    controller.daemon.reconciler.views["s2"].reads = 0
    assert await controller.ask("GET", "/readyz", 503) == {"ready": False, "waiting_for": ["s2"]}
    controller.daemon.reconciler.views["s2"].reads = 1
    controller.daemon.desk.planner.late.add("a job")
    assert await controller.ask("GET", "/readyz", 503) == {"ready": False, "waiting_for": ["the planner"]}
    await controller.ask("GET", "/healthz")  # alive all the same


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/api/v1/services", {"kind": "connectivity", "request": {"ends": ["h1", "nobody"]}}, 404, "'nobody'"),
        ("POST", "/api/v1/services", {"kind": "key", "request": {"ends": ["alice", "bobb"]}}, 404, "did you mean"),
        ("POST", "/api/v1/services", {"kind": "connectivity", "request": {"ends": ["alice", "h1"]}}, 409, "alice is no host"),
        ("GET", "/api/v1/services/nothing", None, 404, "'nothing'"),
        ("DELETE", "/api/v1/services/nothing", None, 404, "'nothing'"),
        ("GET", "/api/v1/devices/s9", None, 404, "'s9'"),
        ("GET", "/api/v1/devices/h1", None, 404, "'h1'"),
        ("PATCH", "/api/v1/nodes/s9", {"admin": "draining"}, 404, "'s9'"),
        ("PATCH", "/api/v1/links/trunk-z", {"admin": "draining"}, 404, "did you mean trunk-"),
        ("GET", "/api/v1/routes/classical?src=h1&dst=h44", None, 404, "did you mean h4?"),
        ("GET", "/api/v1/routes/sideways?src=h1&dst=h4", None, 404, "'sideways'"),
        ("GET", "/api/v1/elsewhere", None, 404, "/api/v1/elsewhere"),
        ("PUT", "/api/v1/services", {}, 405, "it takes GET, HEAD, POST"),
        ("POST", "/api/v1/devices/s1", {}, 405, "GET"),
    ],
)
async def test_problems(controller: Any, method: str, path: str, body: Any, status: int, said: str) -> None:
    answer = await controller.ask(method, path, status, **({"json": body} if body is not None else {}))
    assert said in answer["detail"]


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({}, {"kind", "request"}),
        ({"kind": "connectivity", "request": {}, "colour": "red", "priority": 10}, {"colour", "priority"}),
        ({"kind": "teleport", "request": {}}, {"kind"}),
        ({"kind": "connectivity", "request": {"ends": ["h1"]}}, {"ends.1"}),
        ({"kind": "key", "request": {"ends": ["alice", "bob"], "shares": 0, "rate": 1}}, {"shares", "rate"}),
        ({**CONNECTIVITY, "name": "Not A Name"}, {"name"}),
        ({**CONNECTIVITY, "end_s": float("nan")}, {"end_s"}),
        ({"kind": "key", "request": {"ends": ["alice", "bob"], "rate_bps": float("inf")}}, {"rate_bps"}),
        ([], {""}),
    ],
)
async def test_a_wrong_body_names_every_fault(controller: Any, body: Any, paths: set[str]) -> None:
    answer = await controller.ask("POST", "/api/v1/services", 422, json=body)
    assert {fault["path"] for fault in answer["faults"]} == paths
    assert all(fault["what"] for fault in answer["faults"])
    assert (await controller.ask("GET", "/api/v1/services"))["services"] == []


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe\x00", b'{"kind": "connectivity", "request": {"ends": ["h1", "h4"]}} more'])
async def test_a_body_that_is_no_json(controller: Any, data: bytes) -> None:
    assert "JSON" in (await controller.ask("POST", "/api/v1/services", 422, data=data))["detail"]


async def test_a_body_too_large(controller: Any) -> None:
    await controller.ask("POST", "/api/v1/services", 413, data=io.BytesIO(b" " * (2 << 20)))


@pytest.mark.parametrize("query", ["", "src=h1&dst=h4&colour=red", "src=h1&dst=h4&shares=many", "src=h1&dst=h4&min_rate_hz=nan"])
async def test_a_wrong_query(controller: Any, query: str) -> None:
    assert (await controller.ask("GET", f"/api/v1/routes/classical?{query}", 422))["faults"]


async def test_names_are_taken_once_and_times_go_forward(controller: Any) -> None:
    await controller.ask("POST", "/api/v1/services", 201, json={**CONNECTIVITY, "name": "mine"})
    taken = await controller.ask("POST", "/api/v1/services", 409, json={**CONNECTIVITY, "name": "mine"})
    assert "'mine' exists" in taken["detail"]
    backwards = await controller.ask("POST", "/api/v1/services", 422, json={**CONNECTIVITY, "start_s": 2e9, "end_s": 1e9})
    assert "end" in backwards["detail"]


async def test_an_observer_refuses_changes(controller: Any) -> None:
    controller.daemon.reconciler.observe = True
    answer = await controller.ask("POST", "/api/v1/services", 409, json=CONNECTIVITY)
    assert "--observe" in answer["detail"]


async def test_a_fault_of_ours_keeps_its_inside_to_the_log(
    controller: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr(type(controller.daemon.reconciler), "read", broken)
    answer = await controller.ask("GET", "/api/v1/devices/s1", 500)
    assert "secret" not in str(answer) and "a secret of the inside" in caplog.text


async def looked_up(controller: Any, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What discovery says, once it is what is wanted."""
    async with asyncio.timeout(20):
        while True:
            found: dict[str, Any] = await controller.ask("GET", "/api/v1/discovery")
            if wanted(found):
                return found
            await asyncio.sleep(0.05)


async def test_what_is_found_stands_beside_what_is_declared(controller: Any) -> None:
    found = await looked_up(controller, lambda found: all(each["found"] for each in found["links"]))
    assert {each["link"]: each["ports"] for each in found["links"]} == {
        "ethernet:s1--s2": "s1:11 - s2:11",
        "ethernet:s2--s3": "s2:12 - s3:12",
        "ethernet:s1--s3": "s1:13 - s3:13",
    }
    assert found["enabled"] and not (found["disagreements"] or found["loops"] or found["one_way"] or found["neighbours"])
    await controller.network.ping("h1", "h2", 1)
    (host,) = (await controller.ask("GET", "/api/v1/discovery"))["hosts"]
    assert (host["host"], host["ips"], host["switch"], host["port"]) == ("h1", ["10.0.0.1"], "s1", 1)
    switches = controller.network.switches
    switches["s1"].attach(11, lambda frame: None)  # a cable that dies in silence
    switches["s2"].attach(11, lambda frame: None)
    told = (await looked_up(controller, lambda found: bool(found["disagreements"])))["disagreements"]
    assert told == [{"kind": "missing", "subject": "ethernet:s1--s2", "declared": "s1:11 - s2:11", "found": []}]
    links = {each["id"]: each["up"] for each in (await controller.ask("GET", "/api/v1/topology"))["links"] if each["kind"] == "ethernet"}
    assert [link for link, up in links.items() if not up] == ["ethernet:s1--s2"]
