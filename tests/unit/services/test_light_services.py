"""Lightpaths from request to restoration, on the sandbox's emulated fibre plant."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from controller.network.model import Link, Module, Node
from controller.network.topology import Topology
from controller.routing.light.plant import build
from controller.routing.refusal import NoRoute
from controller.services.desired import Book
from controller.services.planner import apps
from controller.services.reconciler import Reconciler
from controller.services.service import Service
from controller.services.setup_times import KEPT, SetupTimes
from controller.southbound.device import CrossConnect, Diff, State
from controller.store.sqlite import Store
from tests.unit.services.sandbox import H1_H3, LIGHT, OVER_LIGHT, Running
from tests.unit.services.scripted import ScriptedDevice, delivered

TO_TRUNK_A, TO_TRUNK_B = CrossConnect(1, 9), CrossConnect(1, 10)


def connects(net: Running) -> dict[str, set[CrossConnect]]:
    return {name: {each for each in net.devices[name].items if isinstance(each, CrossConnect)} for name in ("ocs1", "ocs2")}


async def test_light_that_is_off_by_some_decibels_is_told_in_the_log(net: Running) -> None:
    async with net.running():
        await net.desk.create("lightpath", LIGHT, name="l")
        await net.reaches("l", "ACTIVE")
        read = net.devices["ocs2"].state
        net.devices["ocs2"].state = lambda state: _dimmed(read(state), 4.0)
        net.reconciler.mark(["ocs2"])
        await net.reaches("l", "DEGRADED", reason="4.0 dB less than expected")
        assert any(each.kind == "service.degraded" and "4.0 dB less" in each.data["reason"] for each in net.events.after(0))
        net.devices["ocs2"].state = read
        net.reconciler.mark(["ocs2"])
        await net.reaches("l", "ACTIVE")


def _dimmed(state: State, by_db: float) -> State:
    return replace(state, power_dbm={port: dbm - by_db for port, dbm in state.power_dbm.items()})


@pytest.mark.parametrize("policy", ["repair", "report"])
async def test_what_somebody_took_away_is_put_back_or_told_as_asked(net: Running, policy: str) -> None:
    async with net.running():
        await net.desk.create("lightpath", {**LIGHT, "on_drift": policy}, name="l")
        await net.reaches("l", "ACTIVE")
        net.devices["ocs1"].items.discard(TO_TRUNK_A)
        net.reconciler.mark(["ocs1"])
        if policy == "repair":
            await net.until(lambda: TO_TRUNK_A in net.devices["ocs1"].items)
            await net.reaches("l", "ACTIVE")
            return
        await net.reaches("l", "DEGRADED", reason="ocs1 lost what was set for it")
        rounds = net.reconciler.rounds
        net.reconciler.renew("ocs1")  # nor when the switch comes back
        await net.until(lambda: net.reconciler.rounds > rounds + 3)
        assert connects(net)["ocs1"] == set(), "it is left so"
        net.devices["ocs1"].items.add(TO_TRUNK_A)
        net.reconciler.mark(["ocs1"])
        await net.reaches("l", "ACTIVE")


async def test_a_service_whose_port_somebody_took_goes_around_it(net: Running) -> None:
    async with net.running():
        await net.desk.create("lightpath", LIGHT, name="l")
        await net.reaches("l", "ACTIVE")
        net.devices["ocs1"].items ^= {TO_TRUNK_A, CrossConnect(2, 9)}
        net.reconciler.mark(["ocs1"])
        await net.until(lambda: TO_TRUNK_B in net.devices["ocs1"].items)
        await net.reaches("l", "ACTIVE")
        assert connects(net)["ocs1"] == {TO_TRUNK_B, CrossConnect(2, 9)}, "what is somebody else's stays"


async def test_a_service_whose_only_port_somebody_took_comes_back_when_it_is_free(net: Running) -> None:
    """One that is told of drift only stays where it is; a new one is not planned over what somebody else has."""
    async with net.running():
        await net.desk.create("lightpath", LIGHT, name="l")
        await net.reaches("l", "ACTIVE")
        theirs = {CrossConnect(1, 12), CrossConnect(2, 9), CrossConnect(3, 10)}
        net.devices["ocs1"].items ^= {TO_TRUNK_A, *theirs}
        net.reconciler.mark(["ocs1"])
        await net.reaches("l", "DEGRADED")
        await net.desk.remove("l")
        await net.until(lambda: not net.book.services)
        with pytest.raises(NoRoute):
            await net.desk.create("lightpath", LIGHT, name="m")
        net.devices["ocs1"].items.clear()
        net.reconciler.mark(["ocs1"])
        await net.until(lambda: not any("others" in name for name in net.book.ledger.entries))
        await net.desk.create("lightpath", LIGHT, name="l")
        await net.reaches("l", "ACTIVE")
        net.devices["ocs1"].items ^= {TO_TRUNK_A, *theirs}
        net.reconciler.mark(["ocs1"])
        await net.reaches("l", "DEGRADED")
        net.devices["ocs1"].items -= theirs
        net.reconciler.mark(["ocs1"])
        await net.reaches("l", "ACTIVE")
        assert connects(net)["ocs1"] == {TO_TRUNK_A}


async def test_light_is_not_let_in_while_something_on_its_way_waits_to_be_put_back(net: Running) -> None:
    """One switch has a new session and what it lacks is due at once; what somebody took away at the other may be on its way back."""
    net.reconciler.verdict_s = 3600.0
    async with net.running():
        await net.desk.create("lightpath", LIGHT, name="l")
        await net.reaches("l", "ACTIVE")
        before = connects(net)
        for name in ("ocs1", "ocs2"):
            net.devices[name].items.clear()
        net.reconciler.mark(before)
        await net.until(lambda: not any(state.items for name in before if (state := net.reconciler.views[name].state) is not None))
        net.reconciler.renew("ocs1")
        rounds = net.reconciler.rounds
        await net.until(lambda: net.reconciler.rounds > rounds + 3)
        assert not any(connects(net).values())
        net.reconciler.renew("ocs2")
        await net.until(lambda: connects(net) == before)
        await net.reaches("l", "ACTIVE")


async def test_a_service_that_is_told_of_drift_only_is_not_led_around_what_somebody_took(net: Running) -> None:
    async with net.running():
        await net.desk.create("lightpath", {**LIGHT, "on_drift": "report"}, name="l")
        await net.reaches("l", "ACTIVE")
        net.devices["ocs1"].items ^= {TO_TRUNK_A, CrossConnect(2, 9)}
        net.reconciler.mark(["ocs1"])
        await net.reaches("l", "DEGRADED", reason="ocs1 lost what was set for it")
        rounds = net.reconciler.rounds
        await net.until(lambda: net.reconciler.rounds > rounds + 3)
        assert connects(net)["ocs1"] == {CrossConnect(2, 9)}


async def test_what_is_kept_until_its_light_is_out_is_planned_for_nobody_else(net: Running) -> None:
    async with net.running():
        await net.desk.create("lightpath", LIGHT, name="l")
        await net.reaches("l", "ACTIVE")
        net.devices["ocs1"].up = False
        await net.desk.remove("l")
        await net.reaches("l", "REMOVING", reason="ocs2: light may still come from ocs1")
        (kept,) = connects(net)["ocs2"]
        held = net.desk.ledger().entries["what ocs2 may still hold"].amounts.keys()
        assert held == {f"port:ocs2:{kept.ingress}", f"port:ocs2:{kept.egress}"}
        net.devices["ocs1"].up = True
        net.reconciler.renew("ocs1")
        await net.until(lambda: not net.book.services)
        assert "what ocs2 may still hold" not in net.desk.ledger().entries


async def test_a_path_that_must_change_is_set_although_drift_is_only_reported(net: Running) -> None:
    async with net.running():
        await net.desk.create("lightpath", {**LIGHT, "on_drift": "report"}, name="l")
        await net.reaches("l", "ACTIVE")
        net.plant.cut.add("trunk-a")
        net.link("trunk-a", up=False)
        await net.reaches("l", "ACTIVE")
        await net.until(lambda: connects(net)["ocs1"] == {TO_TRUNK_B})


async def test_a_short_dark_is_sat_out_and_a_long_one_is_not(net: Running) -> None:
    net.desk.hold_off_s = 3600.0
    async with net.running():
        await net.desk.create("lightpath", LIGHT, name="l")
        await net.reaches("l", "ACTIVE")
        net.link("trunk-a", up=False)
        for name in ("meanwhile", "others"):  # the desk has its turns, and something gets better
            net.link("ethernet:s1--s2", up=False)
            net.link("ethernet:s1--s2", up=True)
            await net.desk.create("connectivity", H1_H3, name=name)
            await net.reaches(name, "ACTIVE")
            await net.desk.remove(name)
            await net.until(lambda name=name: name not in net.book.services)  # type: ignore[misc]
        net.link("trunk-a", up=True)
        assert not net.desk._held_off
        await net.reaches("l", "ACTIVE")
        assert connects(net)["ocs1"] == {TO_TRUNK_A}
        assert not any(each.kind == "service.moved" and each.data["service"] == "l" for each in net.events.after(0))
        net.desk.hold_off_s = 0.02
        net.plant.cut.add("trunk-a")
        net.link("trunk-a", up=False)
        await net.until(lambda: connects(net)["ocs1"] == {TO_TRUNK_B})
        await net.reaches("l", "ACTIVE")


async def test_keys_are_served_from_the_stock_while_their_light_finds_another_way(net: Running) -> None:
    async with net.running():
        await net.desk.create("key", OVER_LIGHT, name="k")
        await net.reaches("k", "ACTIVE")
        await net.until(lambda: connects(net)["ocs1"] == {TO_TRUNK_A})
        before = net.events.number
        net.plant.cut.add("trunk-a")
        net.link("trunk-a", up=False)
        await net.until(lambda: connects(net)["ocs1"] == {TO_TRUNK_B})
        await net.until(lambda: all(each.state == "ACTIVE" and not each.reason for each in net.book.services.values()))
        told = [each.kind for each in net.events.after(before) if each.data.get("service") == "k"]
        assert not {"service.degraded", "service.repairing"} & set(told), "it was ACTIVE all the while"


async def test_the_time_of_a_set_up_is_learned_and_survives_a_restart(net: Running, store: Store) -> None:
    async with net.running():
        drafted, _ = await net.desk.dry_run("lightpath", LIGHT)
        assert net.desk.setup_s(drafted) is None, "nothing is known of a path that was never set"
        for _ in range(2):
            await net.desk.create("lightpath", LIGHT, name="l")
            await net.reaches("l", "ACTIVE")
            await net.desk.remove("l")
            await net.until(lambda: not net.book.services)
        drafted, _ = await net.desk.dry_run("lightpath", LIGHT)
        learned = net.desk.setup_s(drafted)
        assert learned is not None
        assert learned[1] == 2
    again = Running(store)
    assert again.desk.setup_s(drafted) == learned


def test_the_median_of_the_last_few_is_expected_and_what_was_disturbed_does_not_count(store: Store) -> None:
    net = Running(store)
    plan = apps()["lightpath"].plan("l", apps()["lightpath"].request.model_validate(LIGHT), net.topology, Book(store).ledger, 0.0)
    times = SetupTimes(store)
    service = Service(id="l", kind="lightpath", request=LIGHT, plan=plan)

    def take(*states: str, took_s: float) -> None:
        for number, state in enumerate(states):
            times.follow(service.model_copy(update={"state": state}), took_s * number / max(1, len(states) - 1))

    for took_s in (100.0, *range(1, KEPT + 1)):
        take("PROGRAMMING", "ACTIVE", took_s=float(took_s))
    take("PROGRAMMING", "DEGRADED", "ACTIVE", took_s=500.0)
    take("ACTIVE", "DEGRADED", "ACTIVE", took_s=500.0)
    assert times.expected_s(plan) == ((KEPT + 1) / 2, KEPT), "the first is forgotten"
    assert SetupTimes(store).expected_s(plan) == times.expected_s(plan)


async def test_old_light_is_dark_before_ports_are_joined_anew_and_the_source_comes_last(net: Running) -> None:
    calls: list[Diff] = []
    async with net.running():
        await net.desk.create("lightpath", LIGHT, name="l")
        await net.reaches("l", "ACTIVE")
        for name in ("ocs1", "ocs2"):
            net.devices[name].before_apply = calls.append
        net.plant.cut.add("trunk-a")
        net.link("trunk-a", up=False)
        await net.until(lambda: connects(net)["ocs1"] == {TO_TRUNK_B})
    assert [each.device for each in calls] == ["ocs1", "ocs2", "ocs2", "ocs1"]
    assert [bool(each.add) for each in calls] == [False, False, True, True]


async def test_what_needs_no_port_of_the_old_way_is_made_while_it_still_carries_light(store: Store) -> None:
    """Alice's switch and Bob's are in every way; the switch in the middle of the new one is in nobody's."""
    switches = {name: Node(kind="optical-switch", ports=8) for name in ("west", "old", "new", "east")}
    ends = {
        "alice": Node(kind="end-node", modules={"q": Module(role="tx")}),
        "bob": Node(kind="end-node", modules={"q": Module(role="rx")}),
    }
    pairs = [("alice:q", "west:1"), ("bob:q", "east:5"), ("west:5", "old:1"), ("old:5", "east:1"), ("west:6", "new:1"), ("new:5", "east:2")]
    links = [Link(kind="fibre", id=f"f{number}", ends=pair, loss_db=1.0) for number, pair in enumerate(pairs)]
    before = {"west": (CrossConnect(1, 5),), "old": (CrossConnect(1, 5),), "east": (CrossConnect(1, 5),)}
    after = {"west": (CrossConnect(1, 6),), "new": (CrossConnect(1, 5),), "east": (CrossConnect(2, 5),)}
    devices = {name: ScriptedDevice(name) for name in switches}
    book = Book(store)

    async def settled(*round: object) -> None:
        pass

    network = Topology("four", switches | ends, links)
    reconciler = Reconciler(devices, book, settled, plant=partial(build, network))
    book.commit([delivered("l", dict(before))])
    await reconciler._round(set(devices))
    calls: list[Diff] = []
    for device in devices.values():
        device.before_apply = calls.append
    book.commit([delivered("l", dict(after))])
    await reconciler._round(set(devices))
    assert {name: tuple(device.items) for name, device in devices.items()} == {"old": (), **after}
    assert (calls[0].device, calls[0].add) == ("new", (CrossConnect(1, 5),)), "made while the old way stands"
    assert {each.device for each in calls[1:4] if each.remove} == {"west", "old", "east"}
    assert [each.device for each in calls[4:]] == ["east", "west"]
