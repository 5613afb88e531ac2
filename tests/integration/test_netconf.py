"""NETCONF over real sockets: a foreign client on our emulated switch, our driver on it, and our driver on servers that lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncssh
import pytest
from ncclient import manager
from ncclient.operations import RPCError

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
from controller.southbound.drivers.optical_switch import OpticalSwitch
from controller.southbound.netconf import rpc
from controller.southbound.netconf.framing import frame
from controller.southbound.netconf.session import Credentials, RpcRefusedError, Session, SessionError, open_session
from topologies.emulation import netconf_server
from topologies.emulation.optical_switch import OPTICAL_SWITCH, EmulatedOpticalSwitch

PASSWORD = "sesame"
CONFIG = f'<nc:config xmlns:nc="{rpc.BASE}"><cross-connects xmlns="{OPTICAL_SWITCH}">%s</cross-connects></nc:config>'
PAIR = '<pair nc:operation="%s"><ingress>%d</ingress><egress>%d</egress></pair>'

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
async def switch() -> AsyncIterator[EmulatedOpticalSwitch]:
    switch = EmulatedOpticalSwitch("ocs1", 32, switching_time_s=0.01)
    yield switch
    await switch.close()


def credentials(tmp_path: Path, port: int, public_key: str, password: str | None = PASSWORD, client_key: Path | None = None) -> Credentials:
    known_hosts = tmp_path / f"known_hosts-{port}"
    known_hosts.write_text(f"[127.0.0.1]:{port} {public_key}\n")
    return Credentials("bellhop", known_hosts, client_key, password)


async def login(switch: EmulatedOpticalSwitch, tmp_path: Path) -> tuple[int, Credentials]:
    port = await switch.start(passwords={"bellhop": PASSWORD, "other": PASSWORD})
    return port, credentials(tmp_path, port, switch.host_public_key)


@asynccontextmanager
async def running(port: int, login: Credentials, timeout_s: float = 5.0) -> AsyncIterator[tuple[OpticalSwitch, AsyncIterator[DeviceEvent]]]:
    driver = OpticalSwitch("ocs1", f"127.0.0.1:{port}", login, timeout_s=timeout_s, reconnect_min_s=0.02, reconnect_max_s=0.1)
    events = driver.events()
    task = asyncio.create_task(driver.run())
    try:
        yield driver, events
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def driven(switch: EmulatedOpticalSwitch, tmp_path: Path) -> AsyncIterator[tuple[OpticalSwitch, AsyncIterator[DeviceEvent]]]:
    async with running(*await login(switch, tmp_path)) as (driver, events):
        assert await next_event(events) == Connected("ocs1")
        yield driver, events


async def next_event(events: AsyncIterator[DeviceEvent]) -> DeviceEvent:
    return await asyncio.wait_for(anext(events), 5)


def adding(*pairs: tuple[int, int]) -> Diff:
    return Diff("ocs1", add=tuple(CrossConnect(*pair) for pair in pairs))


async def foreign_edit(session: Session, ingress: int, egress: int) -> None:
    root = rpc.element(OPTICAL_SWITCH, "cross-connects")
    pair = rpc.element(OPTICAL_SWITCH, "pair")
    for leaf, port in (("ingress", ingress), ("egress", egress)):
        node = rpc.element(OPTICAL_SWITCH, leaf)
        node.text = str(port)
        pair.append(node)
    root.append(pair)
    await session.call(rpc.edit_config("running", root))


# A foreign client, ncclient, on the emulated switch.


async def with_ncclient(port: int, work: Callable[[manager.Manager], object]) -> object:
    def session() -> object:
        with manager.connect(
            host="127.0.0.1",
            port=port,
            username="other",
            password=PASSWORD,
            hostkey_verify=False,
            allow_agent=False,
            look_for_keys=False,
            timeout=5,
        ) as client:
            return work(client)

    return await asyncio.to_thread(session)


async def test_ncclient_edits_commits_and_reads_back(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    port, _ = await login(switch, tmp_path)

    def work(client: manager.Manager) -> str:
        assert any(OPTICAL_SWITCH in capability for capability in client.server_capabilities)
        with client.locked("candidate"):
            client.edit_config(target="candidate", config=CONFIG % (PAIR % ("merge", 1, 17) + PAIR % ("create", 2, 18)))
            client.validate("candidate")
            assert switch.cross_connects == frozenset()
            client.commit()
        wanted = f'<cross-connects xmlns="{OPTICAL_SWITCH}"><pair><ingress>2</ingress></pair></cross-connects>'
        return str(client.get_config("running", filter=("subtree", wanted)).data_xml)

    read = await with_ncclient(port, work)
    assert switch.cross_connects == {(1, 17), (2, 18)}
    assert "<egress>18</egress>" in str(read) and "<ingress>1</ingress>" not in str(read) and "opm-power" not in str(read)


@pytest.mark.parametrize(
    ("config", "tag"),
    [
        (CONFIG % (PAIR % ("create", 1, 17)), "data-exists"),
        (CONFIG % (PAIR % ("delete", 9, 17)), "data-missing"),
        (CONFIG % (PAIR % ("merge", 3, 99)), "invalid-value"),
        (CONFIG % (PAIR % ("merge", 3, 17)), "data-exists"),
        (CONFIG % (PAIR % ("merge", 3, 4)), "invalid-value"),
        (CONFIG % "<pair><ingress>3</ingress></pair>", "missing-element"),
        (f'<config><cross-connects xmlns="{OPTICAL_SWITCH}"/></config>', "missing-element"),
        (f'<nc:config xmlns:nc="{rpc.BASE}"><pair/></nc:config>', "unknown-namespace"),
    ],
)
async def test_ncclient_is_told_what_is_wrong(switch: EmulatedOpticalSwitch, tmp_path: Path, config: str, tag: str) -> None:
    port, _ = await login(switch, tmp_path)
    switch.running = {1: 17}
    with pytest.raises(RPCError) as refusal:
        await with_ncclient(port, lambda client: client.edit_config(target="candidate", config=config))
    assert refusal.value.tag == tag
    assert switch.cross_connects == {(1, 17)}


async def test_ncclient_meets_a_lock(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    port, ours = await login(switch, tmp_path)
    async with open_session("127.0.0.1", port, ours) as session:
        await session.call(rpc.lock("candidate"))
        with pytest.raises(RPCError) as denied:
            await with_ncclient(port, lambda client: client.lock("candidate"))
        assert denied.value.tag == "lock-denied"
        assert f"<session-id>{session.session_id}</session-id>" in str(denied.value.info)


async def test_ncclient_is_notified(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    port, _ = await login(switch, tmp_path)
    loop = asyncio.get_running_loop()

    def work(client: manager.Manager) -> str:
        client.create_subscription()
        loop.call_soon_threadsafe(switch.set_power, 3, -12.0)
        notification = client.take_notification(timeout=5)
        assert notification is not None
        return str(notification.notification_xml)

    told = await with_ncclient(port, work)
    assert "port-power-clear" in str(told) and "<port-id>3</port-id>" in str(told)


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
    async with driven(switch, tmp_path) as (driver, events), open_session("127.0.0.1", driver._port, driver._credentials) as other:
        await foreign_edit(other, 5, 21)
        changed = await next_event(events)
        assert isinstance(changed, Changed) and f"session {other.session_id}" in changed.what
        change = diff("ocs1", (await driver.read()).items, frozenset({CrossConnect(1, 17)}), frozenset())
        assert change.foreign == (CrossConnect(5, 21),)
        await driver.apply(change)
        # A stale diff that would take ingress 5 over, or remove what is no longer ours, changes nothing.
        with pytest.raises(Refused, match="ingress 5 is already connected to 21"):
            await driver.apply(adding((5, 22)))
        await driver.apply(Diff("ocs1", remove=(CrossConnect(5, 20),)))
        assert switch.cross_connects == {(1, 17), (5, 21)}
        switch.set_power(1, -3.0)
        assert await next_event(events) == PortChanged("ocs1", 1, up=True)  # and no Changed for what the driver did itself


async def test_check_tells_and_changes_nothing(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    switch.running = {1: 17}
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
        with pytest.raises(Refused, match="holds cross-connects"):
            await driver.apply(Diff("ocs1", add=(FlowRule(1, (), (), 0),)))


async def test_a_lock_of_somebody_else_is_told_and_ends_with_its_session(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    async with driven(switch, tmp_path) as (driver, _):
        async with open_session("127.0.0.1", driver._port, driver._credentials) as other:
            await other.call(rpc.lock("candidate"))
            await other.call(rpc.edit_config("candidate", default_operation="replace"))
            with pytest.raises(Refused, match=f"lock-denied .*session-id {other.session_id}"):
                await driver.apply(adding((1, 17)))
            other.end("crashed")
        await driver.apply(adding((1, 17)))
        assert switch.cross_connects == {(1, 17)}


async def test_a_cancelled_change_leaves_no_lock(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    switch.switching_time_s = 0.2
    async with driven(switch, tmp_path) as (driver, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await driver.apply(adding((1, 17)))
        await driver.apply(adding((2, 18)))
        assert switch.cross_connects == {(1, 17), (2, 18)}


async def test_without_a_candidate_the_running_datastore_is_edited(
    switch: EmulatedOpticalSwitch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tuple(capability for capability in netconf_server.CAPABILITIES if "candidate" not in capability)
    monkeypatch.setattr(netconf_server, "CAPABILITIES", kept)
    async with driven(switch, tmp_path) as (driver, _):
        assert await driver.check(adding((1, 17))) == []
        assert switch.cross_connects == frozenset()
        await driver.apply(adding((1, 17)))
        (fault,) = await driver.check(adding((2, 17)))
        assert "data-exists" in fault and switch.cross_connects == {(1, 17)}


async def test_base_1_0_framing(switch: EmulatedOpticalSwitch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netconf_server, "CAPABILITIES", tuple(set(netconf_server.CAPABILITIES) - {rpc.BASE_1_1}))
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
        assert (driver.sessions_opened, driver.sessions_lost) == (2, 1)


async def test_pipelined_operations_each_get_their_reply(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    port, ours = await login(switch, tmp_path)
    async with open_session("127.0.0.1", port, ours) as session:
        results = await asyncio.gather(
            session.call(rpc.get_config("running")),
            session.call(rpc.unlock("running")),
            session.call(rpc.discard_changes()),
            session.call(rpc.element(rpc.BASE, "copy-config")),
            return_exceptions=True,
        )
    read, unlocked, discarded, copied = results
    assert isinstance(read, rpc.Reply) and read.data is not None and isinstance(discarded, rpc.Reply) and discarded.ok
    assert isinstance(unlocked, RpcRefusedError) and unlocked.errors[0].tag == "operation-failed"
    assert isinstance(copied, RpcRefusedError) and copied.errors[0].tag == "operation-not-supported"


async def test_a_session_can_be_killed(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    port, ours = await login(switch, tmp_path)
    async with open_session("127.0.0.1", port, ours) as victim, open_session("127.0.0.1", port, ours) as session:
        operation = rpc.element(rpc.BASE, "kill-session")
        wanted = rpc.element(rpc.BASE, "session-id")
        wanted.text = str(victim.session_id)
        operation.append(wanted)
        assert (await session.call(operation)).ok
        assert await asyncio.wait_for(victim.notifications.get(), 5) is None
        assert victim.lost is not None
        with pytest.raises(RpcRefusedError, match="invalid-value"):
            await session.call(operation)


async def test_login_by_key(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(tmp_path / "id"))
    key.write_public_key(str(tmp_path / "authorized_keys"))
    port = await switch.start(authorized_keys=tmp_path / "authorized_keys")
    ours = credentials(tmp_path, port, switch.host_public_key, password=None, client_key=tmp_path / "id")
    async with open_session("127.0.0.1", port, ours) as session:
        assert session.session_id == 1
    with pytest.raises(SessionError, match="refused the login of bellhop"):
        async with open_session("127.0.0.1", port, credentials(tmp_path, port, switch.host_public_key)):
            pass


async def test_nobody_gets_in_without_a_secret(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nobody could log in"):
        await switch.start()
    port, _ = await login(switch, tmp_path)
    for password in ("wrong", "", None):
        with pytest.raises(SessionError, match="refused the login"):
            async with open_session("127.0.0.1", port, credentials(tmp_path, port, switch.host_public_key, password)):
                pass


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

Process = asyncssh.SSHServerProcess[bytes]
HELLO = frame(rpc.hello([rpc.BASE_1_0, rpc.BASE_1_1], 1), chunked=False)


@asynccontextmanager
async def liar(tmp_path: Path, lie: Callable[[Process], Awaitable[None]]) -> AsyncIterator[tuple[int, Credentials]]:
    class Anyone(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

    async def serve(process: Process) -> None:
        with suppress(OSError, asyncssh.Error):
            await lie(process)
        process.close()

    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen(
        "127.0.0.1", 0, config=None, server_factory=Anyone, server_host_keys=[key], process_factory=serve, encoding=None, line_editor=False
    )
    try:
        port = server.get_port()
        yield port, credentials(tmp_path, port, key.export_public_key().decode().strip())
    finally:
        server.close()
        await server.wait_closed()


def chunked(text: str) -> bytes:
    return frame(text.encode(), chunked=True)


REPLY = f'<rpc-reply xmlns="{rpc.BASE}" message-id="%s">%s</rpc-reply>'


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

    async with driven(switch, tmp_path) as (honest, _), liar(tmp_path, lie) as (port, theirs):
        async with running(port, theirs, timeout_s=0.5) as (driver, events):
            assert await next_event(events) == Connected("ocs1")
            with pytest.raises(Unreachable) as lost:
                await driver.read()
            assert why in lost.value.what
            event = await next_event(events)
            assert isinstance(event, Disconnected) and why in event.reason
            assert await next_event(events) == Connected("ocs1")
            await honest.apply(adding((1, 17)))
        assert honest.sessions_lost == 0


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

    async with liar(tmp_path, lie) as (port, theirs), running(port, theirs) as (driver, events):
        event = await next_event(events)
        assert isinstance(event, Disconnected) and why in event.reason
        assert not driver.connected and driver.sessions_opened == 0


async def test_silence_is_no_session(tmp_path: Path) -> None:
    async def lie(process: Process) -> None:
        await process.stdin.read()

    async with liar(tmp_path, lie) as (port, theirs):
        with pytest.raises(SessionError, match=r"no hello within 0.2 s"):
            async with open_session("127.0.0.1", port, theirs, timeout_s=0.2):
                pass


# Clients that lie.


@pytest.mark.parametrize("nonsense", [b"nonsense]]>]]>", HELLO, frame(rpc.hello([rpc.BASE_1_1]), chunked=False) + b"nonsense", b"<hello"])
async def test_a_lying_client_costs_its_session_only(switch: EmulatedOpticalSwitch, tmp_path: Path, nonsense: bytes) -> None:
    async with driven(switch, tmp_path) as (driver, _):
        async with asyncssh.connect(
            "127.0.0.1",
            driver._port,
            config=None,
            username="other",
            password=PASSWORD,
            client_keys=None,
            known_hosts=str(driver._credentials.known_hosts),
        ) as connection:
            process = await connection.create_process(subsystem="netconf", encoding=None)
            process.stdin.write(nonsense)
            process.stdin.write_eof()
            assert b"session-id" in await asyncio.wait_for(process.stdout.read(), 5)
        await driver.apply(adding((1, 17)))


async def test_malformed_operations_are_answered(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    port, ours = await login(switch, tmp_path)
    sent = (
        f'<rpc xmlns="{rpc.BASE}" message-id="1"><get>',
        f'<rpc xmlns="{rpc.BASE}"><get/></rpc>',
        '<rpc message-id="3"><get/></rpc>',
        f'<rpc xmlns="{rpc.BASE}" message-id="4" note="kept"><edit-config><target><startup/></target></edit-config></rpc>',
        f'<rpc xmlns="{rpc.BASE}" message-id="5"><close-session/></rpc>',
    )
    async with asyncssh.connect(
        "127.0.0.1", port, config=None, username="other", password=PASSWORD, client_keys=None, known_hosts=str(ours.known_hosts)
    ) as connection:
        process = await connection.create_process(subsystem="netconf", encoding=None)
        process.stdin.write(
            frame(rpc.hello([rpc.BASE_1_0]), chunked=False) + b"".join(frame(text.encode(), chunked=False) for text in sent)
        )
        answers = (await asyncio.wait_for(process.stdout.read(), 5)).split(b"]]>]]>")[1:-1]
    tags = [error.tag for answer in answers if isinstance(reply := rpc.parse(answer), rpc.Reply) for error in reply.errors]
    assert tags == ["malformed-message", "missing-attribute", "operation-not-supported", "operation-not-supported"]
    assert b'note="kept"' in answers[3] and b"<ok/>" in answers[4]
