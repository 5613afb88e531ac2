"""The listener, codec and driver against a real Open vSwitch, with `ovs-ofctl` as the witness."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from private_ovs import DPID, MISSING, OpenVSwitch, unix_door, until

from controller.southbound.device import (
    CONTROLLER_METER,
    GROUP_NUMBERS,
    METER_BURST,
    METER_KBPS,
    METER_NUMBERS,
    METER_PKTPS,
    METER_STATS,
    Band,
    Bucket,
    Diff,
    FlowRule,
    Group,
    GroupType,
    Item,
    Meter,
    Refused,
    diff,
)
from controller.southbound.drivers.openflow_switch import OpenFlowSwitch
from controller.southbound.openflow.listener import OpenFlowListener
from controller.southbound.openflow.messages import PacketOut, Port13, Type

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network namespace"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs Open vSwitch (openvswitch-switch) and util-linux: no {', '.join(MISSING)}"),
]

OURS = 0xBE11 << 48


@pytest.fixture
async def bridge(tmp_path: Path) -> AsyncIterator[tuple[OpenVSwitch, OpenFlowSwitch]]:
    switch = OpenVSwitch(tmp_path)
    async with AsyncExitStack() as stack:
        stack.callback(switch.stop)
        await asyncio.to_thread(switch.start)
        listener = await stack.enter_async_context(OpenFlowListener("127.0.0.1", 0))
        door = tmp_path / "controller.sock"
        await stack.enter_async_context(unix_door(door, listener.port))
        driver = OpenFlowSwitch("br0", DPID, listener)
        running = asyncio.create_task(driver.run())
        await asyncio.to_thread(switch.connect, f"unix:{door}")
        await until(lambda: driver.connected)
        yield switch, driver
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await asyncio.to_thread(switch.stop)


RULES = frozenset(
    {
        FlowRule(0, (), (("output", 0xFFFFFFFD),), OURS | 1),
        FlowRule(10, (("eth_dst", "02:00:00:00:00:02"), ("in_port", 1)), (("output", 2),), OURS | 2),
        FlowRule(
            20,
            (("eth_type", 0x0800), ("ip_proto", 17), ("ipv4_dst", "10.0.0.0/255.255.255.0"), ("udp_dst", 53)),
            (("set_field:eth_src", "02:00:00:00:00:09"), ("set_field:ipv4_dst", "10.0.0.9"), ("output", 2), ("output", 3)),
            OURS | 3,
        ),
        FlowRule(30, (("arp_op", 1), ("arp_tpa", "10.0.0.1"), ("eth_type", 0x0806)), (("output", 0xFFFFFFFB),), OURS | 4),
        FlowRule(40, (("in_port", 1), ("vlan_vid", 0x1000 | 42)), (("pop_vlan", 0), ("output", 2)), OURS | 5),
        FlowRule(41, (("vlan_vid", "0x1000/0x1000"),), (("output", 2),), OURS | 6),
        FlowRule(50, (("in_port", 3),), (("push_vlan", 0x8100), ("set_field:vlan_vid", 0x1000 | 7), ("output", 1)), OURS | 7),
        FlowRule(60, (("eth_dst", "01:00:00:00:00:00/01:00:00:00:00:00"),), (), OURS | 8),
        FlowRule(70, (("eth_type", 0x86DD), ("ipv6_dst", "2001:db8::/ffff:ffff::")), (("output", 1),), OURS | 9),
        FlowRule(80, (("metadata", "0x10/0xf0"),), (("goto_table", 1),), OURS | 10),
        FlowRule(5, (("in_port", 2),), (("output", 1),), OURS | 11, table=1),
    }
)


async def test_rules_arrive_and_are_read_back_as_they_were_sent(bridge: tuple[OpenVSwitch, OpenFlowSwitch]) -> None:
    switch, driver = bridge
    await driver.apply(diff("br0", frozenset(), RULES, frozenset()))
    assert (await driver.read()).items == RULES
    dump = await asyncio.to_thread(switch.flows)
    assert dump.count("cookie=0xbe11") == len(RULES)
    assert "priority=10,in_port=1,dl_dst=02:00:00:00:00:02 actions=output:2" in dump
    assert "priority=20,udp,nw_dst=10.0.0.0/24,tp_dst=53 actions=set_field:02:00:00:00:00:09->eth_src,set_field:10.0.0.9->ip_dst" in dump
    assert "priority=30,arp,arp_tpa=10.0.0.1,arp_op=1 actions=FLOOD" in dump
    assert "priority=40,in_port=1,dl_vlan=42 actions=pop_vlan,output:2" in dump
    assert "priority=60,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00 actions=drop" in dump

    await driver.apply(Diff("br0", remove=tuple(RULES)))
    assert "cookie=0xbe11" not in await asyncio.to_thread(switch.flows)


async def test_a_rule_is_replaced(bridge: tuple[OpenVSwitch, OpenFlowSwitch]) -> None:
    _, driver = bridge
    before = FlowRule(10, (("in_port", 1),), (("output", 2),), OURS | 1)
    after = FlowRule(10, (("in_port", 1),), (("output", 3),), OURS | 2)
    await driver.apply(Diff("br0", add=(before,)))
    await driver.apply(diff("br0", frozenset((await driver.read()).items), frozenset({after}), frozenset()))
    assert (await driver.read()).items == {after}


async def test_foreign_rules_are_seen_and_survive(bridge: tuple[OpenVSwitch, OpenFlowSwitch]) -> None:
    switch, driver = bridge
    await asyncio.to_thread(
        switch.ofctl, "add-flow", "cookie=0x77,priority=7,in_port=7,actions=resubmit(,5),learn(table=3,NXM_OF_VLAN_TCI[0..11])"
    )
    await asyncio.to_thread(switch.ofctl, "add-flow", "cookie=0x78,priority=8,tcp,tcp_flags=+syn,actions=controller(max_len=64)")
    await asyncio.to_thread(switch.ofctl, "add-flow", "cookie=0x79,priority=9,reg3=5,actions=write_actions(output:2),goto_table:4")
    wanted = FlowRule(10, (("in_port", 1),), (("output", 2),), OURS)
    change = diff("br0", frozenset((await driver.read()).items), frozenset({wanted}), frozenset())
    assert sorted(rule.cookie for rule in change.foreign if isinstance(rule, FlowRule)) == [0x77, 0x78, 0x79]
    assert not change.remove
    await driver.apply(change)
    await driver.apply(Diff("br0", remove=(wanted,)))
    dump = await asyncio.to_thread(switch.flows)
    assert [cookie in dump for cookie in ("cookie=0x77", "cookie=0x78", "cookie=0x79", "cookie=0xbe11")] == [True, True, True, False]


async def test_what_the_switch_refuses_is_named(bridge: tuple[OpenVSwitch, OpenFlowSwitch]) -> None:
    _, driver = bridge
    good = FlowRule(10, (("in_port", 1),), (("output", 2),), OURS)
    bad = FlowRule(20, (("ipv4_dst", "10.0.0.1"),), (("output", 2),), OURS)
    with pytest.raises(Refused, match=r"br0: table 0 priority 20 ipv4_dst=10.0.0.1: BAD_MATCH/BAD_PREREQ"):
        await driver.apply(Diff("br0", add=(good, bad)))
    assert (await driver.read()).items == {good}


FAILOVER = Group(
    GROUP_NUMBERS.stop - 1, GroupType.FAST_FAILOVER, (Bucket((("output", 2),), watch_port=2), Bucket((("output", 3),), watch_port=3))
)
SPREAD = Group(
    GROUP_NUMBERS.start,
    GroupType.SELECT,
    (
        Bucket(
            (("set_field:eth_dst", "02:00:00:00:00:09"), ("push_vlan", 0x8100), ("set_field:vlan_vid", 0x1007), ("output", 2)), weight=3
        ),
        Bucket((("group", FAILOVER.number),), weight=1),
    ),
)
FIRST_METER = Meter(METER_NUMBERS.start, METER_KBPS, (Band(1000),))
LAST_METER = Meter(METER_NUMBERS.stop - 1, METER_PKTPS | METER_BURST | METER_STATS, (Band(100, 10),))
USERS = (
    FlowRule(10, (("in_port", 1),), (("group", SPREAD.number), ("meter", LAST_METER.number)), OURS),
    FlowRule(11, (("in_port", 2),), (("goto_table", 1), ("write:group", FAILOVER.number), ("meter", FIRST_METER.number)), OURS),
)
EVERYTHING = frozenset[Item]({FAILOVER, SPREAD, FIRST_METER, LAST_METER, *USERS})


async def dumped(switch: OpenVSwitch) -> tuple[str, str, str]:
    flows = await asyncio.to_thread(switch.flows)
    groups = await asyncio.to_thread(switch.ofctl, "dump-groups")
    return flows, groups, await asyncio.to_thread(switch.ofctl, "dump-meters")


async def make(driver: OpenFlowSwitch, desired: frozenset[Item]) -> Diff:
    change = diff("br0", (await driver.read()).items, desired, frozenset())
    if not change.empty:
        await driver.apply(change)
    return change


async def test_groups_and_meters_come_change_and_go_with_the_rules_that_use_them(bridge: tuple[OpenVSwitch, OpenFlowSwitch]) -> None:
    switch, driver = bridge
    await asyncio.to_thread(switch.ofctl, "add-group", "group_id=7,type=all,bucket=output:1")
    await asyncio.to_thread(switch.ofctl, "add-meter", "meter=7,kbps,band=type=drop,rate=64")
    await asyncio.to_thread(switch.ofctl, "add-flow", "cookie=0x77,priority=7,in_port=7,actions=meter:7,group:7")
    await make(driver, EVERYTHING)
    again = await make(driver, EVERYTHING)
    assert again.empty, "what is read back is what was sent"
    assert sorted(item.kind for item in again.foreign) == ["flow", "group", "meter"]
    flows, groups, meters = await dumped(switch)
    assert f"priority=10,in_port=1 actions=meter:{LAST_METER.number},group:{SPREAD.number}" in flows
    assert f"priority=11,in_port=2 actions=meter:{FIRST_METER.number},write_actions(group:{FAILOVER.number}),goto_table:1" in flows
    assert f"group_id={FAILOVER.number},type=ff,bucket=watch_port:2,actions=output:2,bucket=watch_port:3,actions=output:3" in groups
    assert "type=select,bucket=weight:3,actions=set_field:02:00:00:00:00:09->eth_dst,push_vlan:0x8100,set_field:4103->vlan_vid" in groups
    assert f"meter={LAST_METER.number} pktps burst stats bands=\ntype=drop rate=100 burst_size=10" in meters

    reversed_order = replace(FAILOVER, buckets=FAILOVER.buckets[::-1])
    slower = replace(FIRST_METER, bands=(Band(500),))
    changed = frozenset[Item](EVERYTHING - {FAILOVER, FIRST_METER} | {reversed_order, slower})
    assert set((await make(driver, changed)).add) == {reversed_order, slower}
    flows, groups, meters = await dumped(switch)
    assert flows.count("cookie=0xbe11") == 2, "the rules stay while what they use is changed"
    assert f"group_id={FAILOVER.number},type=ff,bucket=watch_port:3,actions=output:3,bucket=watch_port:2" in groups
    assert f"meter={FIRST_METER.number} kbps bands=\ntype=drop rate=500" in meters

    await make(driver, frozenset())
    flows, groups, meters = await dumped(switch)
    assert flows.strip() == "cookie=0x77, priority=7,in_port=7 actions=meter:7,group:7"
    assert (groups.count("group_id="), meters.count("meter=")) == (1, 1)


async def test_what_was_edited_by_hand_is_found_and_set_right(bridge: tuple[OpenVSwitch, OpenFlowSwitch]) -> None:
    switch, driver = bridge
    await make(driver, EVERYTHING)
    before = await dumped(switch)
    for command, argument in (
        ("mod-flows", "in_port=1,actions=drop"),
        ("del-meters", f"meter={FIRST_METER.number}"),
        ("mod-group", f"group_id={SPREAD.number},type=all,bucket=output:1"),
        ("add-group", f"group_id={GROUP_NUMBERS.start + 5},type=all"),
        ("add-flow", f"cookie={OURS | 9:#x},priority=12,actions=drop"),
    ):
        await asyncio.to_thread(switch.ofctl, command, argument)
    await make(driver, EVERYTHING)
    after = await dumped(switch)
    assert [sorted(text.splitlines()) for text in after] == [sorted(text.splitlines()) for text in before]


async def test_a_new_session_rewrites_nothing(bridge: tuple[OpenVSwitch, OpenFlowSwitch]) -> None:
    _, driver = bridge
    await make(driver, EVERYTHING)
    sent = driver._listener.counters.sent
    session, changes = driver.sessions, [sent[kind] for kind in (Type.FLOW_MOD, Type.GROUP_MOD, Type.METER_MOD)]
    assert driver._channel
    driver._channel.stop("the test ends the session")
    await until(lambda: driver.sessions > session and driver.connected)
    assert (await make(driver, EVERYTHING)).empty
    assert [sent[kind] for kind in (Type.FLOW_MOD, Type.GROUP_MOD, Type.METER_MOD)] == changes


async def test_refusals_of_groups_and_meters_are_named(bridge: tuple[OpenVSwitch, OpenFlowSwitch]) -> None:
    _, driver = bridge
    lost = FlowRule(12, (), (("group", GROUP_NUMBERS.start + 9),), OURS)
    unmetered = FlowRule(13, (), (("output", 1), ("meter", METER_NUMBERS.start + 9)), OURS)
    two_in_one = Group(GROUP_NUMBERS.start + 8, GroupType.INDIRECT, SPREAD.buckets[:1] * 2)
    with pytest.raises(Refused) as caught:
        await make(driver, EVERYTHING | {lost, unmetered, two_in_one})
    assert sorted(caught.value.what.split("; ")) == [
        f"group {two_in_one.number}: GROUP_MOD_FAILED/INVALID_GROUP",
        "table 0 priority 12 any: BAD_ACTION/BAD_OUT_GROUP",
        "table 0 priority 13 any: METER_MOD_FAILED/INVALID_METER",
    ]
    assert (await driver.read()).items == EVERYTHING


async def test_the_controllers_meter_limits_what_comes_up(bridge: tuple[OpenVSwitch, OpenFlowSwitch]) -> None:
    switch, driver = bridge
    up = FlowRule(1, (), (("output", int(Port13.CONTROLLER)),), OURS)
    limit = Meter(CONTROLLER_METER, METER_PKTPS | METER_BURST | METER_STATS, (Band(1, 1),))
    through_the_tables = PacketOut((("output", int(Port13.TABLE)),), bytes(12) + b"\x88\xb5" + bytes(46), in_port=int(Port13.LOCAL))
    came: dict[str, int] = {}
    for name, desired in (("unlimited", frozenset[Item]({up})), ("limited", frozenset[Item]({up, limit}))):
        await make(driver, desired)
        before = driver.packet_ins
        for _ in range(50):
            driver.send(through_the_tables)
        await driver.read()
        await asyncio.sleep(0.2)
        came[name] = driver.packet_ins - before
    assert came["unlimited"] == 50
    assert came["limited"] < 25
    assert (await driver.read()).items >= {up, limit}
    assert "meter=controller pktps burst stats bands=\ntype=drop rate=1 burst_size=1" in await asyncio.to_thread(switch.ofctl, "dump-meters")
