"""The emulated switch's NETCONF server over real sockets: a foreign client (ncclient), ours, and clients that lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncssh
import pytest
from lxml import etree
from ncclient import manager
from ncclient.operations import RPCError

from controller.southbound.netconf import rpc
from controller.southbound.netconf.framing import frame
from controller.southbound.netconf.session import Credentials, RpcRefusedError, SessionError, open_session
from topologies.emulation.optical_switch import OPTICAL_SWITCH, POLATIS_SWITCH, EmulatedOpticalSwitch

pytestmark = pytest.mark.timeout(30)

PASSWORD = "sesame"
HELLO = frame(rpc.hello([rpc.BASE_1_0, rpc.BASE_1_1], 1), chunked=False)
CONFIG = f'<nc:config xmlns:nc="{rpc.BASE}"><cross-connects xmlns="{OPTICAL_SWITCH}">%s</cross-connects></nc:config>'
PAIR = '<pair nc:operation="%s"><ingress>%d</ingress><egress>%d</egress></pair>'


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
    switch.patch({1: 17})
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
        await session.call(rpc.unlock("candidate"))
        await session.call(rpc.edit_config("candidate", *etree.fromstring(CONFIG % (PAIR % ("create", 1, 17)))))
        with pytest.raises(RPCError) as denied:  # for what is edited and not committed
            await with_ncclient(port, lambda client: client.lock("candidate"))
        assert denied.value.tag == "lock-denied"
        await with_ncclient(port, lambda client: client.discard_changes() and client.lock("candidate"))


async def test_what_one_session_locked_another_cannot_change(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    port, ours = await login(switch, tmp_path)
    async with open_session("127.0.0.1", port, ours) as holder, open_session("127.0.0.1", port, ours) as other:
        await holder.call(rpc.lock("candidate"))
        for operation in (rpc.edit_config("candidate"), rpc.commit(), rpc.discard_changes()):
            with pytest.raises(RpcRefusedError, match=rf"in-use.*session {holder.session_id} holds the lock of the candidate"):
                await other.call(operation)
        await holder.call(rpc.unlock("candidate"))
        await holder.call(rpc.lock("running"))
        for operation in (rpc.edit_config("running"), rpc.commit()):
            with pytest.raises(RpcRefusedError, match=r"in-use.*lock of the running"):
                await other.call(operation)
        assert (await other.call(rpc.edit_config("candidate"))).ok


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


async def test_pipelined_operations_each_get_their_reply(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    port, ours = await login(switch, tmp_path)
    async with open_session("127.0.0.1", port, ours) as session:
        results = await asyncio.gather(
            session.call(rpc.get_config("running")),
            session.call(rpc.unlock("running")),
            session.call(rpc.discard_changes()),
            session.call(rpc.element(rpc.BASE, "delete-config")),
            return_exceptions=True,
        )
    read, unlocked, discarded, deleted = results
    assert isinstance(read, rpc.Reply) and read.data is not None and isinstance(discarded, rpc.Reply) and discarded.ok
    assert isinstance(unlocked, RpcRefusedError) and unlocked.errors[0].tag == "operation-failed"
    assert isinstance(deleted, RpcRefusedError) and deleted.errors[0].tag == "operation-not-supported"


async def test_subscriptions(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    def subscription(leaf: str, text: str = "", inner: rpc.Element | None = None) -> rpc.Element:
        operation = rpc.create_subscription()
        node = rpc.element(rpc.NOTIFICATION, leaf)
        node.text = text
        if inner is not None:
            node.append(inner)
        operation.append(node)
        return operation

    port, ours = await login(switch, tmp_path)
    async with open_session("127.0.0.1", port, ours) as session:
        for refused, tag in (
            (subscription("stream", "snmp"), "invalid-value"),
            (subscription("startTime", "2026-01-01T00:00:00Z"), "operation-not-supported"),
        ):
            with pytest.raises(RpcRefusedError, match=tag):
                await session.call(refused)
        await session.call(subscription("filter", inner=rpc.element(POLATIS_SWITCH, "port-power-alarm")))
        with pytest.raises(RpcRefusedError, match="in-use"):
            await session.call(rpc.create_subscription("Polatis"))
        edit = rpc.edit_config("running", *etree.fromstring(CONFIG % (PAIR % ("create", 1, 17))))
        switch.set_power(1, -5.0)
        switch.set_power(1, None)
        await session.call(edit)
        assert session.notifications.qsize() == 1
        told = session.notifications.get_nowait()
        assert told is not None and told.event.tag == rpc.q(POLATIS_SWITCH, "port-power-alarm")


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


@pytest.mark.parametrize("nonsense", [b"nonsense]]>]]>", HELLO, frame(rpc.hello([rpc.BASE_1_1]), chunked=False) + b"nonsense", b"<hello"])
async def test_a_lying_client_costs_its_session_only(switch: EmulatedOpticalSwitch, tmp_path: Path, nonsense: bytes) -> None:
    port, ours = await login(switch, tmp_path)
    async with open_session("127.0.0.1", port, ours) as honest:
        async with asyncssh.connect(
            "127.0.0.1", port, config=None, username="other", password=PASSWORD, client_keys=None, known_hosts=str(ours.known_hosts)
        ) as connection:
            process = await connection.create_process(subsystem="netconf", encoding=None)
            process.stdin.write(nonsense)
            process.stdin.write_eof()
            assert b"session-id" in await asyncio.wait_for(process.stdout.read(), 5)
        assert (await honest.call(rpc.get())).data is not None


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
