"""The listener, codec and driver against a real Open vSwitch, with `ovs-ofctl` as the witness."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from controller.southbound.device import Diff, FlowRule, Refused, diff
from controller.southbound.drivers.openflow_switch import OpenFlowSwitch
from controller.southbound.openflow.listener import OpenFlowListener

TOOLS = ("ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ovs-ofctl", "unshare")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network namespace"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs Open vSwitch (openvswitch-switch) and util-linux: no {', '.join(MISSING)}"),
]

OURS = 0xBE11 << 48
DPID = 0x0000BE1100000001


class OpenVSwitch:
    """An Open vSwitch of its own: private database and sockets, the daemon in a network namespace that ends with it."""

    def __init__(self, run: Path) -> None:
        self._environment = {**os.environ, "OVS_RUNDIR": str(run), "OVS_DBDIR": str(run), "OVS_LOGDIR": str(run)}
        self._run = run
        self._log = run / "daemons.log"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, *command: str) -> str:
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def start(self) -> None:
        database, socket = str(self._run / "conf.db"), self._run / "db.sock"
        self("ovsdb-tool", "create", database, str(SCHEMA))
        self._spawn("ovsdb-server", database, f"--remote=punix:{socket}")
        deadline_s = time.monotonic() + 10
        while not socket.exists():
            assert time.monotonic() < deadline_s, self._log.read_text()
            time.sleep(0.02)
        self._spawn("unshare", "-n", "ovs-vswitchd", f"unix:{socket}")
        self(
            *("ovs-vsctl", f"--db=unix:{socket}", "--timeout=15", "add-br", "br0", "--"),
            *("set", "bridge", "br0", "datapath_type=netdev", "protocols=OpenFlow13", "fail_mode=secure"),
            f"other_config:datapath-id={DPID:016x}",
        )

    def connect(self, controller: Path) -> None:
        self("ovs-vsctl", f"--db=unix:{self._run / 'db.sock'}", "--timeout=15", "set-controller", "br0", f"unix:{controller}")

    def flows(self) -> str:
        return self("ovs-ofctl", "-O", "OpenFlow13", "--no-stats", "dump-flows", str(self._run / "br0.mgmt"))

    def add_flow(self, flow: str) -> None:
        self("ovs-ofctl", "-O", "OpenFlow13", "add-flow", str(self._run / "br0.mgmt"), flow)

    def _spawn(self, *command: str) -> None:
        with self._log.open("ab") as output:
            self._processes.append(subprocess.Popen(command, env=self._environment, stdout=output, stderr=output))

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def unix_door(path: Path, port: int) -> AsyncIterator[None]:
    """A Unix socket that leads to the listener's port: the switch, in its namespace, cannot reach ours by TCP."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    async with await asyncio.start_unix_server(relay, path):
        yield


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)


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
        await asyncio.to_thread(switch.connect, door)
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
    await asyncio.to_thread(switch.add_flow, "cookie=0x77,priority=7,in_port=7,actions=resubmit(,5),learn(table=3,NXM_OF_VLAN_TCI[0..11])")
    await asyncio.to_thread(switch.add_flow, "cookie=0x78,priority=8,tcp,tcp_flags=+syn,actions=controller(max_len=64)")
    await asyncio.to_thread(switch.add_flow, "cookie=0x79,priority=9,reg3=5,actions=write_actions(output:2),goto_table:4")
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
