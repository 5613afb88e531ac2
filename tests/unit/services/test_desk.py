from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from controller.network.topology import UnknownName
from controller.routing.refusal import NoRoute
from controller.services import desk as desk_module
from controller.services.desk import NameTaken, Observing, UnknownService
from controller.services.judge import Judge
from controller.services.planner import WrongRequest
from controller.store.sqlite import Store
from tests.unit.services.sandbox import H1_H3, KEY, LIGHT, OVER_LIGHT, Running
from tests.unit.services.scripted import foreign_rule


async def test_from_request_to_gone(net: Running) -> None:
    async with net.running():
        created = await net.desk.create("connectivity", H1_H3)
        assert (created.id, created.state) == ("connectivity-1", "PROGRAMMING")
        await net.reaches("connectivity-1", "ACTIVE")
        assert net.held() == 8
        with pytest.raises(NameTaken):
            await net.desk.create("connectivity", {"ends": ["h1", "h2"]}, name="connectivity-1")
        assert (await net.desk.remove("connectivity-1")).state == "REMOVING"
        await net.until(lambda: not net.book.services)
        assert net.held() == 0
        assert net.devices["s1"].items == {foreign_rule(99)}
    kinds = [event.kind for event in net.events.after(0)]
    assert kinds == ["service.programming", "service.active", "service.removing", "service.gone"]


@pytest.mark.parametrize(
    ("kind", "request_", "error"),
    [
        ("connectivity", {"ends": ["h1", "alice"]}, NoRoute),
        ("connectivity", {"ends": ["h1", "nobody"]}, UnknownName),
        ("connectivity", {"ends": ["h1"]}, WrongRequest),
        ("teleport", H1_H3, WrongRequest),
        ("key", {**KEY, "rate_bps": 1e12}, NoRoute),
        ("key", {**OVER_LIGHT, "rate_bps": 1e12}, NoRoute),
    ],
)
async def test_a_request_that_cannot_be_met_leaves_nothing_behind(
    net: Running, kind: str, request_: dict[str, Any], error: type[Exception]
) -> None:
    before = net.store.revision
    with pytest.raises(error):
        await net.desk.create(kind, request_)
    assert (net.book.services, net.book.desired, net.store.revision) == ({}, {}, before)


async def test_a_key_service_whose_lightpath_finds_no_port_leaves_nothing_behind(net: Running) -> None:
    await net.desk.create("lightpath", {"ends": ["ocs1:1", "ocs1:9"]}, name="in-the-way")
    before = net.store.revision
    with pytest.raises(NoRoute):
        await net.desk.create("key", OVER_LIGHT)
    assert (set(net.book.services), net.store.revision) == ({"in-the-way"}, before)


async def test_dry_run_shows_the_difference_and_changes_nothing(net: Running) -> None:
    service, diffs = await net.desk.dry_run("key", OVER_LIGHT)
    assert service.state == "REQUESTED"
    assert {each.device for each in diffs} == {"alice", "bob", "ocs1", "ocs2"}
    assert all(each.add and not each.remove for each in diffs)
    assert (net.book.services, net.store.revision, net.held()) == ({}, 0, 0)


async def test_companions_are_made_shared_and_go_with_their_last_user(net: Running) -> None:
    async with net.running():
        await net.desk.create("key", OVER_LIGHT, name="k1")
        await net.reaches("k1", "ACTIVE")
        assert net.book.services["k1"].companions == ("k1.lightpath-1",)
        await net.desk.create("key", OVER_LIGHT, name="k2", end_s=time.time() + 3600)
        assert net.book.services["k2"].companions == ("k1.lightpath-1",)
        assert net.book.services["k1.lightpath-1"].parent == "k1"
        await net.reaches("k2", "ACTIVE")
        await net.desk.remove("k1")
        await net.until(lambda: "k1" not in net.book.services)
        assert net.book.services["k1.lightpath-1"].state == "ACTIVE"
        await net.desk.create("key", OVER_LIGHT, name="k1")  # the same name again, while its old companion serves another
        await net.desk.remove("k2")
        await net.desk.remove("k1")
        await net.until(lambda: not net.book.services)
    assert net.held() == 0


async def test_who_loses_its_companion_gets_another(net: Running) -> None:
    async with net.running():
        await net.desk.create("lightpath", LIGHT, name="by-hand")
        await net.desk.create("key", OVER_LIGHT, name="k")
        assert net.book.services["k"].companions == ("by-hand",)
        await net.reaches("k", "ACTIVE")
        await net.desk.remove("by-hand")
        await net.until(lambda: net.book.services["k"].companions == ("k.lightpath-1",))
        await net.reaches("k.lightpath-1", "ACTIVE")
        await net.until(lambda: net.book.services["k"].state == "ACTIVE" and not net.book.services["k"].reason)
        await net.until(lambda: "by-hand" not in net.book.services)


async def test_who_loses_its_companion_does_not_wait_for_it_to_be_gone(net: Running) -> None:
    relays = ("qkd:relay1--relay2", "qkd:relay3--bob")
    for link in relays:
        net.link(link, up=False)
    async with net.running():
        await net.desk.create("lightpath", LIGHT, name="by-hand")
        await net.desk.create("key", KEY, name="k")
        await net.reaches("k", "ACTIVE")
        assert net.book.services["k"].companions == ("by-hand",)
        for link in relays:
            net.link(link, up=True)
        await asyncio.sleep(0.05)  # the desk has seen to that, and left the service where it is
        net.devices["ocs1"].up = False
        await net.desk.remove("by-hand")
        await net.until(lambda: net.book.services["k"].companions == ())
        await net.reaches("by-hand", "REMOVING", reason="ocs1: no session")


async def test_a_companion_that_was_refused_is_tried_again_for_the_next_who_needs_it(net: Running) -> None:
    net.devices["ocs1"].refuses = lambda item: True
    async with net.running():
        await net.desk.create("key", OVER_LIGHT, name="k")
        await net.reaches("k.lightpath-1", "FAILED")
        await net.until(lambda: "waiting for k.lightpath-1: ocs1: will not take" in net.book.services["k"].reason)
        net.devices["ocs1"].refuses = lambda item: False
        await net.desk.create("key", OVER_LIGHT, name="k2")
        assert net.book.services["k2"].companions == ("k.lightpath-1",)
        await net.until(lambda: {(each.state, each.reason) for each in net.book.services.values()} == {("ACTIVE", "")})


async def test_a_refused_service_fails_with_the_reason_and_takes_its_companions_off(net: Running) -> None:
    net.devices["alice"].refuses = lambda item: True
    async with net.running():
        await net.desk.create("key", OVER_LIGHT, name="k")
        failed = await net.reaches("k", "FAILED")
        assert failed.reason.startswith("alice: will not take")
        await net.until(lambda: set(net.book.services) == {"k"})
        assert net.held() == 0
        net.devices["alice"].refuses = lambda item: False
        net.link("trunk-b", up=False)
        net.link("trunk-b", up=True)  # the network gets better: it is tried again
        await net.reaches("k", "ACTIVE")
        await net.reaches("k.lightpath-1", "ACTIVE")


async def test_degraded_without_a_way_and_back_when_the_link_returns(net: Running) -> None:
    async with net.running():
        await net.desk.create("connectivity", H1_H3, name="c")
        await net.reaches("c", "ACTIVE")
        net.link("ethernet:s1--s2", up=False)
        await net.until(lambda: "ethernet:s2--s3" in net.links_of("c"))
        await net.reaches("c", "ACTIVE")
        net.link("ethernet:s2--s3", up=False)
        degraded = await net.reaches("c", "DEGRADED")
        assert "no usable ethernet links join h1 and h3" in degraded.reason
        await asyncio.sleep(0.1)
        assert net.book.services["c"] == degraded, "everything programmed, and yet it does not serve"
        net.link("ethernet:s1--s2", up=True)
        await net.reaches("c", "ACTIVE")
        assert net.links_of("c") == {"ethernet:h1--s1", "ethernet:s1--s2", "ethernet:h3--s2"}


async def test_a_service_that_never_served_waits_for_its_way_too(net: Running) -> None:
    net.devices["s2"].up = False
    async with net.running():
        await net.desk.create("connectivity", H1_H3, name="c")
        await net.reaches("c", "PROGRAMMING", reason="s2: no session")
        net.link("ethernet:h3--s2", up=False)
        await net.reaches("c", "DEGRADED")
        net.link("ethernet:h3--s2", up=True)
        net.devices["s2"].up = True
        await net.reaches("c", "ACTIVE")


async def test_a_cut_fibre_is_found_in_the_readings_and_gone_around(net: Running) -> None:
    async with net.running():
        await net.desk.create("key", OVER_LIGHT, name="k")
        await net.reaches("k", "ACTIVE")
        assert "trunk-a" in net.links_of("k.lightpath-1")
        await asyncio.sleep(0.06)  # what has just been set may still be settling
        net.plant.cut.add("trunk-a")
        net.reconciler.mark(["ocs1", "ocs2"])
        await net.until(lambda: "trunk-b" in net.links_of("k.lightpath-1"))
        assert net.book.services["k"].state == "ACTIVE", "it serves from its stock meanwhile"
        await net.reaches("k.lightpath-1", "ACTIVE")
        await asyncio.sleep(0.06)
        net.plant.cut.add("trunk-b")
        net.reconciler.mark(["ocs1", "ocs2"])
        await net.reaches("k.lightpath-1", "DEGRADED")
        await net.until(lambda: "serving from its stock" in net.book.services["k"].reason)
        assert net.book.services["k"].state == "ACTIVE"
        net.keys_in_stock = 0
        net.reconciler.mark(["alice", "bob"])
        await net.reaches("k", "DEGRADED")
        net.keys_in_stock = 8
        net.plant.cut.clear()  # the light on its path is back, and says so itself
        await net.reaches("k.lightpath-1", "ACTIVE")
        await net.until(lambda: net.book.services["k"].state == "ACTIVE" and not net.book.services["k"].reason)


async def test_a_drift_just_repaired_is_no_cut_fibre(net: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "SETTLING_S", 60.0)
    async with net.running():
        await net.desk.create("lightpath", LIGHT, name="l")
        await net.reaches("l", "ACTIVE")
        net.plant.cut.add("trunk-a")  # dark for a moment, as light is right after a switch has moved
        net.devices["ocs1"].items.clear()
        net.reconciler.mark(["ocs1", "ocs2"])
        await net.reaches("l", "DEGRADED", reason="power at")
        assert net.topology.up(net.topology.link("trunk-a"))
        net.plant.cut.clear()
        await net.reaches("l", "ACTIVE")


async def test_a_lost_lightpath_sends_its_keys_another_way(net: Running) -> None:
    async with net.running():
        net.link("qkd:relay1--relay2", up=False)
        net.link("qkd:relay3--bob", up=False)
        await net.desk.create("key", KEY, name="k")
        await net.reaches("k", "ACTIVE")
        assert net.book.services["k"].companions
        net.link("qkd:relay1--relay2", up=True)
        for trunk in ("trunk-a", "trunk-b"):
            net.plant.cut.add(trunk)
            net.link(trunk, up=False)
        await net.until(lambda: net.book.services["k"].companions == ())
        await net.until(lambda: set(net.book.services) == {"k"})
        await net.reaches("k", "ACTIVE")


async def test_an_unreachable_switch_keeps_the_ports_it_may_still_use(net: Running) -> None:
    async with net.running():
        await net.desk.create("lightpath", LIGHT, name="l")
        await net.reaches("l", "ACTIVE")
        net.devices["ocs1"].up = False
        await net.desk.remove("l")
        await net.reaches("l", "REMOVING", reason="waiting for ocs1: no session")
        with pytest.raises(NoRoute, match="in use"):
            await net.desk.create("lightpath", LIGHT, name="m")
        net.devices["ocs1"].up = True
        net.reconciler.mark(["ocs1"])
        await net.until(lambda: "l" not in net.book.services)
        await net.desk.create("lightpath", LIGHT, name="m")
        await net.reaches("m", "ACTIVE")


async def test_ports_a_service_left_stay_taken_until_their_switch_was_read(net: Running) -> None:
    async with net.running():
        await net.desk.create("lightpath", LIGHT, name="l")
        await net.reaches("l", "ACTIVE")
        net.devices["ocs1"].up = False
        assert await net.desk.administer("link", "trunk-a", "draining") == (["l"], {})
        await net.desk.administer("link", "trunk-a", "enabled")
        trunk_a = {"ends": ["ocs1:9", "ocs2:1"]}
        with pytest.raises(NoRoute, match="in use"):
            await net.desk.create("lightpath", trunk_a)
        net.devices["ocs1"].up = True
        net.reconciler.mark(["ocs1"])
        await net.until(lambda: not net.book.of("ocs1").absent)
        await net.desk.create("lightpath", trunk_a)


async def test_observing_refuses_changes_and_changes_nothing(net: Running, store: Store) -> None:
    await net.desk.create("connectivity", H1_H3)
    watching = Running(store, observe=True, devices=net.devices)
    async with watching.running():
        for refused in (watching.desk.create("connectivity", {"ends": ["h2", "h4"]}), watching.desk.remove("connectivity-1")):
            with pytest.raises(Observing):
                await refused
        with pytest.raises(Observing):
            await watching.desk.administer("node", "s1", "disabled")
        await asyncio.sleep(0.05)
    assert net.held() == 0
    with pytest.raises(UnknownService):
        await net.desk.remove("nothing")


async def test_only_those_are_judged_for_whom_a_reading_makes_a_difference(net: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []
    verdict = Judge.verdict
    monkeypatch.setattr(Judge, "verdict", lambda self, service, refusal="": (judged.append(service.id), verdict(self, service, refusal))[1])
    async with net.running():
        for name in ("a", "b", "c"):
            await net.desk.create("key", {**KEY, "rate_bps": 1.0}, name=name)
        await net.until(lambda: all(each.state == "ACTIVE" and not each.reason for each in net.book.services.values()))
        plan = net.book.services["b"].plan
        assert plan is not None
        device = next(name for name in plan.desired if name in ("alice", "bob"))
        await net.reconciler.read([device])
        rounds = net.reconciler.rounds
        net.reconciler.mark([])
        await net.until(lambda: net.reconciler.rounds > rounds)
        await asyncio.sleep(0.01)
        judged.clear()
        net.reconciler.mark([device])
        await net.until(lambda: net.reconciler.rounds > rounds + 1)
        await asyncio.sleep(0.02)
        assert judged == [], "nothing there is other than it was"
        net.devices[device].items -= set(plan.desired[device])
        net.reconciler.mark([device])
        await net.until(lambda: net.devices[device].items.issuperset(plan.desired[device]))
        await net.until(lambda: judged)
        assert set(judged) == {"b"}
