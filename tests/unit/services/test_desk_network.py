"""The desk while the network, the clock and operators change what services stand on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.network.document import load, parse
from controller.network.events import LinkStateChanged
from controller.network.model import Window
from controller.network.topology import Topology
from controller.routing.refusal import NoRoute
from controller.services import desk as desk_module
from controller.services import judge
from controller.services.app import Plan
from controller.services.planner import Planner, apps
from controller.southbound.device import CrossConnect, FlowRule
from controller.store.sqlite import Store
from tests.unit.services.sandbox import EXECUTOR, H1_H3, KEY, LIGHT, OVER_LIGHT, SANDBOX, Running
from tests.unit.services.scripted import foreign_rule


async def test_the_highest_priority_is_replanned_first(net: Running) -> None:
    async with net.running():
        for name, priority in (("low", 1), ("high", 9), ("middle", 5)):
            await net.desk.create("key", {**KEY, "rate_bps": 100, "prefer": "widest"}, name=name, priority=priority)
            await net.reaches(name, "ACTIVE")
        net.link("qkd:relay1--relay2", up=False)
        moved, stuck = await net.desk.administer("node", "relay2", "disabled")
    assert (moved, stuck) == (["high", "middle", "low"], {})


@pytest.mark.parametrize("admin", ["draining", "disabled"])
async def test_a_filter_inside_the_glass_of_a_qkd_link_is_drained_as_a_node_at_its_end(store: Store, admin: Any) -> None:
    there = "- {kind: fibre, ends: [alice, relay1], length_km: 6.0}"
    halves = (
        "- {kind: fibre, id: f1, ends: [alice, 'mux:1'], length_km: 3}\n  - {kind: fibre, id: f2, ends: ['mux:2', relay1], length_km: 3}"
    )
    text = SANDBOX.read_text().replace(there, halves).replace('["fibre:alice--relay1"]', "[f1, f2]")
    network = parse(text.replace("nodes:\n", "nodes:\n  mux: {kind: passive, ports: 2, insertion_loss_db: 0.5}\n", 1))
    net = Running(store, topology=network)
    await net.desk.create("key", {**KEY, "rate_bps": 500, "prefer": "widest"}, name="k")
    await net.desk.create("key", {"ends": ["alice", "relay1"], "max_trusted_nodes": 0}, name="fast")
    assert "qkd:alice--relay1" in net.links_of("k") & net.links_of("fast")
    moved, stuck = await net.desk.administer("node", "mux", admin)
    assert (moved, list(stuck)) == (["k"], ["fast"])
    assert "qkd:alice--relay1" not in net.links_of("k")
    assert net.book.services["fast"].state == ("DEGRADED" if admin == "disabled" else "PROGRAMMING")


async def test_drain_says_what_cannot_move_and_disabling_cuts_it_off(net: Running, store: Store) -> None:
    async with net.running():
        await net.desk.create("connectivity", H1_H3, name="c")
        await net.desk.create("connectivity", {"ends": ["h1", "h2"]}, name="d")
        await net.reaches("c", "ACTIVE")
        await net.reaches("d", "ACTIVE")
        assert await net.desk.administer("link", "ethernet:s1--s2", "draining") == (["c"], {})
        moved, stuck = await net.desk.administer("node", "s1", "draining")
        assert (moved, sorted(stuck)) == ([], ["c", "d"])
        await asyncio.sleep(0.05)
        assert net.book.services["d"].state == "ACTIVE"
        await net.desk.administer("node", "s1", "disabled")
        await net.reaches("d", "DEGRADED")
        assert Running(store).topology.node("s1").admin == "disabled", "a restart remembers"
        await net.desk.administer("node", "s1", "enabled")
        await net.reaches("c", "ACTIVE")
        await net.reaches("d", "ACTIVE")
        assert set(store.read("admin/")) == {"admin/link/ethernet:s1--s2"}
        with pytest.raises(LookupError):
            await net.desk.administer("node", "nowhere", "disabled")


async def test_services_follow_a_host_that_has_left_its_port(net: Running, store: Store) -> None:
    async with net.running():
        await net.desk.create("connectivity", H1_H3, name="c")
        await net.reaches("c", "ACTIVE")
        net.desk.host_seen("h1", "s3:7")
        await asyncio.sleep(0.05)
        assert net.book.services["c"].state == "ACTIVE", "its own port has a signal: somebody else may be using its address"
        net.link("ethernet:h1--s1", up=False)
        await net.reaches("c", "DEGRADED")
        net.desk.host_seen("h1", "s1:1")
        assert net.book.services["c"].state == "DEGRADED"
        net.desk.host_seen("h1", "s3:7")
        await net.until(lambda: net.links_of("c") == {"ethernet:h1--s1", "ethernet:s2--s3", "ethernet:h3--s2"})
        await net.reaches("c", "ACTIVE")
        await net.until(lambda: net.devices["s1"].items == {foreign_rule(99)})
        assert any(("in_port", 7) in item.match for item in net.devices["s3"].items if isinstance(item, FlowRule))
        again = Running(store)
        assert again.topology.link("ethernet:h1--s1").ends == ("h1:1", "s3:7"), "a restart remembers"
        net.desk.host_seen("h1", "s2:7")
        assert net.topology.link("ethernet:h1--s1").ends[1] == "s3:7"
        net.desk.host_seen("h1", "s1:1")  # where the document has it
        await net.until(lambda: "ethernet:s1--s2" in net.links_of("c"))
        await net.reaches("c", "ACTIVE")
    told = [each.data for each in net.events.after(0) if each.kind == "host.followed"]
    assert told == [{"host": "h1", "before": "s1:1", "now": "s3:7"}, {"host": "h1", "before": "s3:7", "now": "s1:1"}]
    assert store.read("place/") == {}


async def test_a_place_that_the_document_has_changed_since_is_no_longer_remembered(store: Store) -> None:
    store.commit({"place/h1": ["s1:9", "s3:7"], "place/h2": ["s1:2", "s9:1"], "place/gone": ["s1:1", "s3:1"]})
    topology = Running(store).topology
    assert [topology.link(f"ethernet:{host}--s1").ends[1] for host in ("h1", "h2")] == ["s1:1", "s1:2"]


async def test_who_only_watches_moves_nothing(store: Store) -> None:
    watching = Running(store, observe=True)
    watching.link("ethernet:h1--s1", up=False)
    watching.desk.host_seen("h1", "s3:7")
    assert watching.topology.link("ethernet:h1--s1").ends == ("h1:1", "s1:1")


async def test_services_start_and_end_on_time_and_their_companions_with_them(net: Running) -> None:
    async with net.running():
        await net.desk.dry_run("key", OVER_LIGHT)  # the worker is there now
        start_s = time.time() + 0.3
        await net.desk.create("key", OVER_LIGHT, name="later", start_s=start_s, end_s=start_s + 0.4)
        await asyncio.sleep(0.1)
        assert {each.state for each in net.book.services.values()} == {"PLANNED"}
        assert net.held() == 0
        await net.reaches("later", "ACTIVE")
        assert time.time() >= start_s
        await net.until(lambda: not net.book.services)
    assert net.held() == 0
    with pytest.raises(ValueError, match="end before it starts"):
        await net.desk.create("key", KEY, start_s=5.0, end_s=4.0)


async def test_the_same_ports_serve_one_after_the_other(net: Running) -> None:
    hour = time.time() + 3600
    await net.desk.create("lightpath", LIGHT, name="first", start_s=hour, end_s=hour + 60)
    await net.desk.create("lightpath", LIGHT, name="second", start_s=hour + 60, end_s=hour + 120)
    for start_s, end_s in ((hour + 59, hour + 61), (None, None), (hour + 100, None)):
        with pytest.raises(NoRoute, match="in use"):
            await net.desk.create("lightpath", LIGHT, start_s=start_s, end_s=end_s)
    await net.desk.create("lightpath", LIGHT, name="now", end_s=hour)


async def test_a_service_starting_on_a_link_that_broke_meanwhile_goes_around_it(net: Running) -> None:
    async with net.running():
        await net.desk.create("connectivity", H1_H3, name="c", start_s=time.time() + 0.2)
        net.link("ethernet:s1--s2", up=False)
        await net.until(lambda: "ethernet:s2--s3" in net.links_of("c"))
        assert net.book.services["c"].state == "PLANNED"
        await net.reaches("c", "ACTIVE")


async def test_a_service_that_starts_without_a_way_says_so(net: Running) -> None:
    async with net.running():
        await net.desk.dry_run("connectivity", H1_H3)  # the worker is there now
        await net.desk.create("connectivity", H1_H3, name="c", start_s=time.time() + 0.2)
        net.link("ethernet:h3--s2", up=False)
        await net.reaches("c", "PLANNED", reason="no usable ethernet links join h1 and h3")
        await net.reaches("c", "DEGRADED", reason="no usable ethernet links join h1 and h3")
        net.link("ethernet:h3--s2", up=True)
        await net.reaches("c", "ACTIVE")


async def test_a_link_that_breaks_while_a_service_is_planned_is_not_in_its_plan(net: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = Planner.plan

    async def slow(self: Planner, *arguments: Any) -> Plan:
        plan = await planned(self, *arguments)
        if net.topology.up(net.topology.link("ethernet:s1--s2")):
            net.topology.apply(LinkStateChanged("ethernet:s1--s2", up=False))
        return plan

    monkeypatch.setattr(Planner, "plan", slow)
    created = await net.desk.create("connectivity", H1_H3)
    assert created.plan is not None
    assert "ethernet:s1--s2" not in created.plan.touches


async def test_a_judgement_made_while_a_service_is_planned_again_is_not_lost(net: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await net.desk.create("connectivity", H1_H3, name="c")
    planned = Planner.plans

    async def slow(self: Planner, *arguments: Any, **options: Any) -> list[Plan | Exception]:
        plans = await planned(self, *arguments, **options)
        net.book.commit([net.book.services["c"].moved("ACTIVE")])
        return plans

    monkeypatch.setattr(Planner, "plans", slow)
    assert await net.desk.administer("link", "ethernet:s1--s2", "draining") == (["c"], {})
    assert (net.book.services["c"].state, net.book.services["c"].served) == ("REPAIRING", True)


async def test_an_app_that_breaks_spoils_its_own_services_only(net: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> Any:
        raise ZeroDivisionError("a bug")

    async with net.running():
        await net.desk.create("connectivity", H1_H3, name="c")
        await net.desk.create("lightpath", LIGHT, name="l")
        await net.reaches("c", "ACTIVE")
        await net.reaches("l", "ACTIVE")
        installed = apps()
        sabotaged = replace(installed["connectivity"], plan=broken, serving=broken)
        monkeypatch.setattr("controller.services.planner.apps", lambda: {**installed, "connectivity": sabotaged})
        monkeypatch.setattr(judge, "apps", lambda: {**installed, "connectivity": sabotaged})
        net.link("ethernet:s1--s2", up=False)
        await net.until(lambda: net.book.services["c"].state == "DEGRADED" and "a bug" in net.book.services["c"].reason)
        net.devices["ocs1"].items.clear()
        net.reconciler.mark(["ocs1"])
        await net.until(lambda: bool(net.devices["ocs1"].items))
        with pytest.raises(ZeroDivisionError):
            await net.desk.create("connectivity", {"ends": ["h2", "h4"]})


async def test_a_service_degraded_for_want_of_ports_gets_them_when_another_leaves(net: Running) -> None:
    async with net.running():
        await net.desk.create("lightpath", LIGHT, name="l")
        await net.reaches("l", "ACTIVE")
        await net.desk.create("lightpath", {"ends": ["ocs1:10", "ocs2:2"]}, name="in-the-way")
        net.link("trunk-a", up=False)
        net.plant.cut.add("trunk-a")
        net.reconciler.mark(["ocs1", "ocs2"])
        await net.reaches("l", "DEGRADED")
        await net.desk.remove("in-the-way")
        await net.reaches("l", "ACTIVE")
    assert "trunk-b" in net.links_of("l")


async def test_a_degraded_service_is_looked_at_again_without_a_cause(net: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "LOOK_AGAIN_S", 0.05)
    async with net.running():
        await net.desk.create("connectivity", H1_H3, name="c")
        await net.reaches("c", "ACTIVE")
        net.link("ethernet:h3--s2", up=False)
        await net.reaches("c", "DEGRADED")
        net.topology.apply(LinkStateChanged("ethernet:h3--s2", up=True))  # and nobody says so
        await net.reaches("c", "ACTIVE")


async def test_the_controller_restarted_takes_up_where_it_was(net: Running, store: Store) -> None:
    async with net.running():
        await net.desk.create("key", OVER_LIGHT, name="k")
        await net.desk.create("connectivity", H1_H3, name="c")
        await net.reaches("k", "ACTIVE")
        await net.reaches("c", "ACTIVE")
        await net.desk.remove("k")
    net.devices["s1"].items |= {CrossConnect(1, 2)}
    again = Running(store, devices=net.devices)
    async with again.running():
        await again.until(lambda: set(again.book.services) == {"c"})
        await again.until(lambda: not any(each.absent for each in again.book.desired.values()))
    assert net.devices["ocs1"].items == set()
    assert CrossConnect(1, 2) in net.devices["s1"].items
    assert again.book.services["c"].state == "ACTIVE"


async def test_a_network_that_lost_a_link_since_the_last_start_is_replanned(net: Running, store: Store) -> None:
    await net.desk.create("connectivity", H1_H3, name="c")
    assert net.book.services["c"].plan is not None
    lost = net.book.services["c"].model_copy(
        update={"plan": replace(net.book.services["c"].plan, touches=frozenset({"ethernet:old--link"}))}
    )
    net.book.commit([lost])
    again = Running(store, devices=net.devices)
    async with again.running():
        again.link("trunk-b", up=False)
        again.link("trunk-b", up=True)
        await again.reaches("c", "ACTIVE")
    assert again.links_of("c") == {"ethernet:h1--s1", "ethernet:s1--s2", "ethernet:h3--s2"}


async def test_the_same_request_network_and_ledger_give_the_same_plan_in_another_process(net: Running) -> None:
    pool, thread = Planner(), Planner(EXECUTOR)
    try:
        for kind, request in (("key", {**KEY, "shares": 2, "rate_bps": 50.0}), ("connectivity", H1_H3), ("lightpath", LIGHT)):
            service, _ = await net.desk.dry_run(kind, request)
            plans = [await planner.plan(service, net.topology, net.desk.ledger(), 0.0) for planner in (pool, thread, pool)]
            assert plans[0] == plans[1] == plans[2]
            assert repr(plans[0].desired) == repr(plans[1].desired), "in the same order, too"
        with pytest.raises(NoRoute) as refused:
            await pool.plan(service.model_copy(update={"request": {"ends": ["alice/q9", "relay1"]}}), net.topology, net.desk.ledger(), 0.0)
        assert refused.value.constraint == "reachability"
        victims: Mapping[int, Any] = pool._executor._processes  # type: ignore[attr-defined]
        for process in victims.values():
            process.kill()
        again = await asyncio.gather(*(pool.plan(service, net.topology, net.desk.ledger(), 0.0) for _ in range(3)))
        assert again == [plans[0]] * 3
        assert pool.restarts == 1
    finally:
        pool.close()


async def test_everything_is_withdrawn_whatever_is_removed_when(net: Running) -> None:
    async with net.running():
        names = [
            (await net.desk.create(kind, request)).id
            for kind, request in (("key", OVER_LIGHT), ("key", KEY), ("connectivity", H1_H3), ("connectivity", {"ends": ["h2", "h4"]}))
        ]
        for name in names:
            await net.desk.remove(name)
        await net.until(lambda: not net.book.services)
        assert net.desk.ledger().reserved() == {}
        assert all(not each.absent and not each.present for each in net.book.desired.values())
    assert net.held() == 0


async def test_a_booking_for_later_is_no_companion_now(net: Running) -> None:
    async with net.running():
        await net.desk.create("lightpath", LIGHT, name="later", start_s=time.time() + 3600)
        with pytest.raises(NoRoute):  # the ports are booked, and nothing lights the link until then
            await net.desk.create("key", {**KEY, "max_trusted_nodes": 0}, name="k")
        await net.desk.remove("later")
        await net.until(lambda: "later" not in net.book.services)
        await net.desk.create("key", {**KEY, "max_trusted_nodes": 0}, name="k")
        await net.reaches("k", "ACTIVE")


async def test_a_dry_run_is_for_the_same_hours(net: Running) -> None:
    async with net.running():
        now = time.time()
        await net.desk.create("lightpath", LIGHT, name="later", start_s=now + 3600)
        service, _ = await net.desk.dry_run("lightpath", LIGHT, end_s=now + 60)
        assert service.end_s == now + 60
        with pytest.raises(NoRoute):
            await net.desk.dry_run("lightpath", LIGHT)
        with pytest.raises(ValueError, match="end before it starts"):
            await net.desk.dry_run("lightpath", LIGHT, start_s=now + 9, end_s=now + 8)


async def test_the_log_tells_where_a_service_moved(net: Running) -> None:
    async with net.running():
        await net.desk.create("key", KEY, name="k")
        await net.reaches("k", "ACTIVE")
        net.link("qkd:relay1--relay2", up=False)
        await net.until(lambda: any(event.kind == "service.moved" for event in net.events.after(0)))
        moved = next(event for event in net.events.after(0) if event.kind == "service.moved")
        assert moved.data == {"service": "k", "over": "alice - relay3 - bob"}


def windowed(topology: Topology, link_id: str, start_s: float, end_s: float) -> Topology:
    window = Window(start=datetime.fromtimestamp(start_s, UTC), end=datetime.fromtimestamp(end_s, UTC))
    links = [replace(link, windows=(window,)) if link.id == link_id else link for link in topology.links()]
    return Topology(topology.name, dict(topology.nodes()), links)


async def test_services_move_when_the_window_of_a_link_ends(store: Store) -> None:
    end_s = time.time() + 1.0
    net = Running(store, topology=windowed(load(SANDBOX), "ethernet:s1--s2", 0, end_s))
    async with net.running():
        c = await net.desk.create("connectivity", H1_H3, name="c")
        assert c.plan is not None and "ethernet:s1--s2" in c.plan.touches
        assert c.plan.route["holds"]["from"] == "1970-01-01T00:00:00Z" and "window of ethernet:s1--s2 ends" in c.plan.explanation[-1]
        await net.reaches("c", "ACTIVE")
        later = await net.desk.create("connectivity", {"ends": ["h2", "h3"]}, name="later", start_s=end_s + 60, end_s=end_s + 90)
        assert later.plan is not None and "ethernet:s1--s2" not in later.plan.touches and "holds" not in later.plan.route
        for _ in range(200):
            if "ethernet:s1--s2" not in (net.book.services["c"].plan or c.plan).touches:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("it stays on a link whose window has ended")
        await net.reaches("c", "ACTIVE")
    assert time.time() > end_s


async def test_a_service_waits_for_the_window_of_its_only_link(store: Store) -> None:
    start_s = time.time() + 1.0
    net = Running(store, topology=windowed(load(SANDBOX), "ethernet:h1--s1", start_s, start_s + 3600))
    async with net.running():
        await asyncio.sleep(0)
        booked = await net.desk.create("connectivity", H1_H3, name="c", start_s=start_s + 0.5)
        assert booked.plan is not None and booked.plan.route["holds"]
        with pytest.raises(NoRoute):
            await net.desk.create("connectivity", H1_H3, name="now")
        await net.reaches("c", "ACTIVE")
    assert time.time() > start_s
