"""The optical switch driver over real sockets: on the emulated switch, and on servers that lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncssh
import pytest
from netconf_peers import HELLO, PASSWORD, REPLY, Process, chunked, credentials, scripted

from controller.southbound.device import (
    Changed,
    Connected,
    CrossConnect,
    DeviceEvent,
    Diff,
    Disconnected,
    FlowRule,
    PortChanged,
    Refused,
    Unreachable,
    diff,
)
from controller.southbound.drivers.netconf_device import NetconfDevice
from controller.southbound.drivers.optical_switch import OpticalSwitch
from controller.southbound.netconf import rpc
from controller.southbound.netconf.framing import frame
from controller.southbound.netconf.session import Credentials, Session, open_session
from controller.southbound.session import SessionError
from topologies.emulation.optical_switch import OPTICAL_SWITCH, EmulatedOpticalSwitch

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
async def switch() -> AsyncIterator[EmulatedOpticalSwitch]:
    switch = EmulatedOpticalSwitch("ocs1", 32, switching_time_s=0.01)
    yield switch
    await switch.close()


async def login(switch: EmulatedOpticalSwitch, tmp_path: Path) -> tuple[int, Credentials]:
    port = await switch.start(passwords={"bellhop": PASSWORD, "other": PASSWORD})
    return port, credentials(tmp_path, port, switch.host_public_key)


@asynccontextmanager
async def running(port: int, login: Credentials, timeout_s: float = 5.0) -> AsyncIterator[tuple[NetconfDevice, AsyncIterator[DeviceEvent]]]:
    driver = NetconfDevice(
        "ocs1", f"127.0.0.1:{port}", login, OpticalSwitch, timeout_s=timeout_s, reconnect_min_s=0.02, reconnect_max_s=0.1
    )
    events = driver.events()
    task = asyncio.create_task(driver.run())
    try:
        yield driver, events
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def driven(switch: EmulatedOpticalSwitch, tmp_path: Path) -> AsyncIterator[tuple[NetconfDevice, AsyncIterator[DeviceEvent]]]:
    async with running(*await login(switch, tmp_path)) as (driver, events):
        assert await next_event(events) == Connected("ocs1")
        yield driver, events


async def next_event(events: AsyncIterator[DeviceEvent]) -> DeviceEvent:
    return await asyncio.wait_for(anext(events), 5)


def adding(*pairs: tuple[int, int]) -> Diff:
    return Diff("ocs1", add=tuple(CrossConnect(*pair) for pair in pairs))


async def commit_under_way(driver: NetconfDevice, switch: EmulatedOpticalSwitch, monkeypatch: pytest.MonkeyPatch) -> asyncio.Task[None]:
    """A change of (1, 17) whose commit the switch has begun, and takes its time for."""
    begun, activate = asyncio.Event(), switch.activate

    async def activate_slowly(config: rpc.Element) -> None:
        begun.set()
        await asyncio.sleep(0.1)
        await activate(config)

    monkeypatch.setattr(switch, "activate", activate_slowly)
    change = asyncio.create_task(driver.apply(adding((1, 17))))
    await asyncio.wait_for(begun.wait(), 5)
    return change


async def foreign_edit(session: Session, ingress: int, egress: int) -> None:
    root = rpc.element(OPTICAL_SWITCH, "cross-connects")
    pair = rpc.element(OPTICAL_SWITCH, "pair")
    for leaf, port in (("ingress", ingress), ("egress", egress)):
        node = rpc.element(OPTICAL_SWITCH, leaf)
        node.text = str(port)
        pair.append(node)
    root.append(pair)
    await session.call(rpc.edit_config("running", root))


# Our driver on the emulated switch.


async def test_what_is_applied_is_read_back(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    async with driven(switch, tmp_path) as (driver, _):
        assert driver.connected and driver.capabilities == {"validate", "power", "atomic"}
        switch.set_power(17, -8.25)
        await driver.apply(adding((1, 17), (2, 18)))
        state = await driver.read()
        assert state.items == {CrossConnect(1, 17), CrossConnect(2, 18)}
        assert (state.power_dbm[17], state.power_dbm[1], len(state.power_dbm)) == (-8.25, -60.0, 32)
        # Port 17 changes hands and ingress 2 its egress, in one edit; what is already so is left out.
        change = Diff("ocs1", add=(CrossConnect(2, 17), CrossConnect(3, 18)), remove=(CrossConnect(1, 17), CrossConnect(2, 18)))
        await driver.apply(change)
        await driver.apply(change)
        assert switch.cross_connects == {(2, 17), (3, 18)}
        assert driver.operations_refused == 0


async def test_a_foreign_cross_connect_is_reported_and_kept(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    port, ours = await login(switch, tmp_path)
    async with running(port, ours) as (driver, events), open_session("127.0.0.1", port, ours) as other:
        assert await next_event(events) == Connected("ocs1")
        await foreign_edit(other, 5, 21)
        changed = await next_event(events)
        assert isinstance(changed, Changed) and f"changed by bellhop (NETCONF session {other.session_id})" in changed.what
        change = diff("ocs1", (await driver.read()).items, frozenset({CrossConnect(1, 17)}), frozenset())
        assert change.foreign == (CrossConnect(5, 21),)
        await driver.apply(change)
        # A stale diff that would take ingress 5 over, or remove what is no longer ours, changes nothing.
        with pytest.raises(Refused, match="there is a pair ingress 5 already"):
            await driver.apply(adding((5, 22)))
        await driver.apply(Diff("ocs1", remove=(CrossConnect(5, 20),)))
        assert switch.cross_connects == {(1, 17), (5, 21)}
        switch.set_power(1, -3.0)
        assert await next_event(events) == PortChanged("ocs1", 1, up=True)  # and no Changed for what the driver did itself


async def test_check_tells_and_changes_nothing(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    switch.patch({1: 17})
    async with driven(switch, tmp_path) as (driver, _):
        assert await driver.check(adding((2, 18))) == []
        (fault,) = await driver.check(adding((2, 17)))
        assert fault.startswith("data-exists at /opsw:cross-connects/opsw:pair[opsw:ingress='2']/opsw:egress: port 17 is already used")
        assert switch.cross_connects == {(1, 17)}
        with pytest.raises(Refused, match="port 17 is already used by the cross-connect of ingress 1"):
            await driver.apply(adding((2, 17), (3, 19)))
        assert switch.cross_connects == {(1, 17)}
        await driver.apply(adding((2, 18)))  # nothing is left locked or half-edited
        assert switch.cross_connects == {(1, 17), (2, 18)}


async def test_only_cross_connects_are_taken(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    async with driven(switch, tmp_path) as (driver, _):
        with pytest.raises(Refused, match="items of the kind CrossConnect; the change has a flow"):
            await driver.apply(Diff("ocs1", add=(FlowRule(1, (), (), 0),)))


async def test_a_lock_of_somebody_else_is_told_and_ends_with_its_session(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    port, ours = await login(switch, tmp_path)
    async with running(port, ours) as (driver, events):
        assert await next_event(events) == Connected("ocs1")
        async with open_session("127.0.0.1", port, ours) as other:
            await other.call(rpc.lock("candidate"))
            await other.call(rpc.edit_config("candidate", default_operation="replace"))
            with pytest.raises(Refused, match=f"lock-denied .*session-id {other.session_id}"):
                await driver.apply(adding((1, 17)))
            other.end("crashed")
        await driver.apply(adding((1, 17)))
        assert switch.cross_connects == {(1, 17)}


async def test_a_cancelled_change_leaves_no_lock(switch: EmulatedOpticalSwitch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with driven(switch, tmp_path) as (driver, _):
        change = await commit_under_way(driver, switch, monkeypatch)
        change.cancel()
        await asyncio.wait((change,))
        assert change.cancelled()
        await driver.apply(adding((2, 18)))
        assert switch.cross_connects == {(1, 17), (2, 18)}


async def test_without_a_candidate_the_running_datastore_is_edited(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    switch.capabilities = tuple(capability for capability in switch.capabilities if "candidate" not in capability)
    async with driven(switch, tmp_path) as (driver, _):
        assert await driver.check(adding((1, 17))) == []
        assert switch.cross_connects == frozenset()
        await driver.apply(adding((1, 17)))
        (fault,) = await driver.check(adding((2, 17)))
        assert "data-exists" in fault and switch.cross_connects == {(1, 17)}


async def test_a_device_that_only_writes_promises_no_more(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    lacking = ("candidate", "confirmed-commit", "validate", "rollback-on-error", "notification", "interleave")
    switch.capabilities = tuple(each for each in switch.capabilities if not any(name in each for name in lacking))
    async with driven(switch, tmp_path) as (driver, _):
        assert driver.capabilities == {"power"}
        await driver.apply(adding((1, 17)))
        assert await driver.check(adding((2, 17))) == [], "it cannot be asked"
        with pytest.raises(Refused, match="data-exists"):
            await driver.apply(adding((2, 17)))
        await driver.apply(Diff("ocs1", add=(CrossConnect(2, 17),), remove=(CrossConnect(1, 17),)))
        assert switch.cross_connects == {(2, 17)}
        assert driver.notifications == 0


async def test_base_1_0_framing(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    switch.capabilities = tuple(set(switch.capabilities) - {rpc.BASE_1_1})
    async with driven(switch, tmp_path) as (driver, _):
        await driver.apply(adding((1, 17)))
        assert (await driver.read()).items == {CrossConnect(1, 17)}


async def test_loss_of_signal_and_its_return(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    switch.set_power(4, -10.0)
    async with driven(switch, tmp_path) as (driver, events):
        switch.set_power(4, -11.0)
        switch.set_power(4, None)
        assert await next_event(events) == PortChanged("ocs1", 4, up=False)
        switch.set_power(4, -10.0)
        assert await next_event(events) == PortChanged("ocs1", 4, up=True)
        assert driver.notifications == 2


async def test_a_restarted_device_is_found_again(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    key = tmp_path / "host_key"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(key))
    port = await switch.start(passwords={"bellhop": PASSWORD}, host_key=key)
    async with running(port, credentials(tmp_path, port, switch.host_public_key)) as (driver, events):
        assert await next_event(events) == Connected("ocs1")
        await driver.apply(adding((1, 17)))
        await switch.close()
        assert isinstance(await next_event(events), Disconnected)
        with pytest.raises(Unreachable):
            await driver.read()
        await switch.start(port=port, passwords={"bellhop": PASSWORD}, host_key=key)
        while not isinstance(event := await next_event(events), Connected):
            assert isinstance(event, Disconnected)
        assert (await driver.read()).items == {CrossConnect(1, 17)}
        assert (driver.link.sessions_opened, driver.link.sessions_lost) == (2, 1)


async def test_a_commit_under_way_is_finished_before_the_switch_closes(
    switch: EmulatedOpticalSwitch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with driven(switch, tmp_path) as (driver, _):
        change = await commit_under_way(driver, switch, monkeypatch)
        await switch.close()
        assert switch.cross_connects == {(1, 17)}
        with pytest.raises(Unreachable):
            await change


async def test_a_device_that_vanished_is_noticed_without_asking_it(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    """Between the two is a wire that is cut: no byte passes any more, and nobody says so."""
    port, ours = await login(switch, tmp_path)
    wires: list[asyncio.Task[None]] = []
    over = asyncio.Event()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        wires.extend(asyncio.create_task(pass_on(*ends)) for ends in ((reader, far_writer), (far_reader, writer)))
        await over.wait()
        for each in (far_writer, writer):
            each.transport.abort()

    async with await asyncio.start_server(join, "127.0.0.1", 0) as wire:
        through = wire.sockets[0].getsockname()[1]
        ours.known_hosts.write_text(f"[127.0.0.1]:{through} {switch.host_public_key}\n")
        async with open_session("127.0.0.1", through, ours, keepalive_s=0.05) as session:
            await session.call(rpc.get_config("running"))
            for each in wires:
                each.cancel()
            assert await asyncio.wait_for(session.notifications.get(), 10) is None
            assert "connection broke" in (session.lost or "")
        over.set()


async def test_an_unknown_host_key_is_refused(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    port, ours = await login(switch, tmp_path)
    stranger = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    ours.known_hosts.write_text(f"[127.0.0.1]:{port} {stranger}\n")
    async with running(port, ours) as (driver, events):
        event = await next_event(events)
        assert isinstance(event, Disconnected) and f"host key of 127.0.0.1:{port}" in event.reason
        with pytest.raises(Unreachable, match="host key"):
            await driver.apply(adding((1, 17)))
    ours.known_hosts.write_text("")
    with pytest.raises(SessionError, match="host key"):
        async with open_session("127.0.0.1", port, ours):
            pass
    ours.known_hosts.unlink()
    with pytest.raises(SessionError, match="known_hosts"):
        async with open_session("127.0.0.1", port, ours):
            pass


# Servers that lie.


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"\n#4000000000\n", "longer than"),
        (b"complete nonsense", "not with LF #"),
        (chunked("<rpc-reply"), "not well-formed"),
        (chunked(REPLY % ("99", "<ok/>")), "which was not asked"),
        (chunked(f'<rpc-reply xmlns="{rpc.BASE}"><ok/></rpc-reply>'), "which was not asked"),
        (chunked('<!DOCTYPE a [<!ENTITY e "e">]><a>&e;</a>'), "DOCTYPE"),
        (frame(rpc.hello([rpc.BASE_1_1], 2), chunked=True), "a hello comes first, and once"),
        (chunked(REPLY % ("1", "<ok/>")), "no data"),
        (
            chunked(
                REPLY % ("1", f'<data><cross-connects xmlns="{OPTICAL_SWITCH}"><pair><ingress>x</ingress></pair></cross-connects></data>')
            ),
            "ingress is 'x'",
        ),
        (
            chunked(
                REPLY
                % ("1", f'<data><opm-power xmlns="{OPTICAL_SWITCH}"><port><port-id>1</port-id><power>nan</power></port></opm-power></data>')
            ),
            "power is 'nan'",
        ),
        (b"\n#1000\n<rpc-reply", "no reply to get within"),
    ],
)
async def test_a_lying_reply_costs_that_session_only(switch: EmulatedOpticalSwitch, tmp_path: Path, answer: bytes, why: str) -> None:
    async def lie(process: Process) -> None:
        process.stdout.write(HELLO)
        await process.stdin.readuntil(b"]]>]]>")
        await process.stdin.readuntil(b"\n##\n")
        process.stdout.write(answer)
        await process.stdin.read()

    async with driven(switch, tmp_path) as (honest, _), scripted(tmp_path, lie) as (port, theirs):
        async with running(port, theirs, timeout_s=0.5) as (driver, events):
            assert await next_event(events) == Connected("ocs1")
            with pytest.raises(Unreachable) as lost:
                await driver.read()
            assert why in lost.value.what
            event = await next_event(events)
            assert isinstance(event, Disconnected) and why in event.reason
            assert await next_event(events) == Connected("ocs1")
            await honest.apply(adding((1, 17)))
        assert honest.link.sessions_lost == 0


@pytest.mark.parametrize(
    ("greeting", "why"),
    [
        (HELLO[:40], "closed the session"),
        (b"", "closed the session"),
        (frame(b"hello there", chunked=False), "not well-formed"),
        (frame(rpc.hello([rpc.BASE_1_1]), chunked=False), "no session-id"),
        (frame(rpc.hello(["urn:base:2.0"], 1), chunked=False), "neither base:1.0 nor base:1.1"),
        (frame((REPLY % ("1", "<ok/>")).encode(), chunked=False), "a hello comes first"),
    ],
)
async def test_a_lying_hello_is_no_session(tmp_path: Path, greeting: bytes, why: str) -> None:
    async def lie(process: Process) -> None:
        process.stdout.write(greeting)
        await process.stdout.drain()

    async with scripted(tmp_path, lie) as (port, theirs), running(port, theirs) as (driver, events):
        event = await next_event(events)
        assert isinstance(event, Disconnected) and why in event.reason
        assert not driver.connected and driver.link.sessions_opened == 0


async def test_silence_is_no_session(tmp_path: Path) -> None:
    async def lie(process: Process) -> None:
        await process.stdin.read()

    async with scripted(tmp_path, lie) as (port, theirs):
        with pytest.raises(SessionError, match=r"no hello within 0.2 s"):
            async with open_session("127.0.0.1", port, theirs, timeout_s=0.2):
                pass
