"""ncclient, a NETCONF client by other people, at every operation of the emulated devices; and what their faults on order look like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

import asyncssh
import pytest
from lxml import etree
from ncclient import manager
from ncclient.operations import RPCError
from ncclient.xml_ import to_ele

from controller.southbound.netconf import rpc
from controller.southbound.netconf.session import Credentials, RpcRefusedError, Session, SessionError, open_session
from topologies.emulation.netconf.monitoring import MONITORING
from topologies.emulation.netconf.schema import schema
from topologies.emulation.netconf.server import Misbehaviour
from topologies.emulation.optical_switch import OPTICAL_SWITCH, EmulatedOpticalSwitch
from topologies.emulation.wavelength_switch import WAVELENGTH_ROUTER, EmulatedWavelengthSwitch, MediaChannel

pytestmark = pytest.mark.timeout(60)

PASSWORD = "sesame"
CONFIG = f'<nc:config xmlns:nc="{rpc.BASE}">%s</nc:config>'
CONNECTS = CONFIG % f'<cross-connects xmlns="{OPTICAL_SWITCH}">%s</cross-connects>'
PAIR = '<pair nc:operation="%s"><ingress>%d</ingress><egress>%d</egress></pair>'
Device = EmulatedOpticalSwitch | EmulatedWavelengthSwitch


@pytest.fixture
async def switch() -> AsyncIterator[EmulatedOpticalSwitch]:
    switch = EmulatedOpticalSwitch("ocs1", 32, switching_time_s=0.0)
    await switch.start(passwords={"bellhop": PASSWORD})
    yield switch
    await switch.close()


@contextmanager
def ncclient_on(device: Device) -> Iterator[Any]:
    assert device.port
    with manager.connect(
        host="127.0.0.1",
        port=device.port,
        username="bellhop",
        password=PASSWORD,
        hostkey_verify=False,
        allow_agent=False,
        look_for_keys=False,
        timeout=5,
    ) as client:
        yield client


async def with_ncclient(device: Device, work: Callable[[Any], Any]) -> Any:
    def session() -> Any:
        with ncclient_on(device) as client:
            return work(client)

    return await asyncio.to_thread(session)


@asynccontextmanager
async def ours_on(device: Device, tmp_path: Path, timeout_s: float = 5.0) -> AsyncIterator[Session]:
    known_hosts = tmp_path / f"known_hosts-{device.port}"
    known_hosts.write_text(f"[127.0.0.1]:{device.port} {device.host_public_key}\n")
    async with open_session("127.0.0.1", device.port, Credentials("bellhop", known_hosts, None, PASSWORD), timeout_s=timeout_s) as session:
        yield session


def source(config: str) -> rpc.Element:
    element = rpc.element(rpc.BASE, "source")
    element.append(etree.fromstring(config))
    return element


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with pytest.raises(RPCError) as refusal:
        call(*arguments, **options)
    return refusal.value


def cross_connect(operation: str, ingress: int, egress: int) -> rpc.Element:
    (edit,) = etree.fromstring(CONNECTS % (PAIR % (operation, ingress, egress)))
    return edit


async def test_datastores(switch: EmulatedOpticalSwitch) -> None:
    def work(client: Any) -> None:
        client.lock("running")
        client.lock("candidate")
        client.edit_config(
            CONNECTS % (PAIR % ("create", 1, 17)), default_operation="none", test_option="set", error_option="rollback-on-error"
        )
        client.validate("candidate")
        client.discard_changes()
        assert "egress" not in str(client.get_config("candidate"))
        client.edit_config(CONNECTS % (PAIR % ("merge", 2, 18)))
        assert "<egress>18</egress>" in str(client.get_config("candidate")) and "egress" not in str(client.get_config("running"))
        client.commit()
        client.unlock("candidate")
        client.unlock("running")
        client.edit_config(CONNECTS % (PAIR % ("replace", 2, 19)), target="running")
        client.edit_config(CONNECTS % (PAIR % ("remove", 7, 23)), target="running", test_option="test-only")
        client.copy_config(source="running", target="candidate")
        client.copy_config(source=source(CONNECTS % (PAIR % ("merge", 5, 21))), target="candidate")
        assert "<egress>19</egress>" in str(client.get_config("running"))
        client.commit()
        inline = rpc.element(rpc.BASE, "validate")  # ncclient itself sends datastores only
        inline.append(source(CONNECTS % "<pair><ingress>5</ingress></pair>"))
        assert refused(client.dispatch, inline).tag == "missing-element"
        assert refused(client.unlock, "running").tag == "operation-failed"
        assert refused(client.delete_config, "running").tag == "operation-not-supported"
        assert refused(client.get_config, "startup").tag == "operation-not-supported"

    await with_ncclient(switch, work)
    assert switch.cross_connects == {(5, 21)}


async def test_filters_choose_among_configuration_and_state(switch: EmulatedOpticalSwitch) -> None:
    def work(client: Any) -> None:
        label = f'<port-config xmlns="{OPTICAL_SWITCH}"><port><port-id>3</port-id><label>to bob</label></port></port-config>'
        client.edit_config(CONFIG % label, target="running")
        entry = f'<port-config xmlns="{OPTICAL_SWITCH}"><port><port-id>3</port-id></port></port-config>'
        (port,) = client.get(filter=("subtree", entry)).data_ele.iter(rpc.q(OPTICAL_SWITCH, "port"))
        assert {etree.QName(leaf).localname: leaf.text for leaf in port} == {"port-id": "3", "label": "to bob", "status": "ENABLED"}
        anywhere = '<opm-power xmlns=""><port><power/></port></opm-power>'
        powers = client.get(filter=("subtree", anywhere)).data_ele
        assert len(powers[0]) == 32 and not list(powers.iter(rpc.q(OPTICAL_SWITCH, "port-id")))
        assert not len(client.get(filter=("subtree", '<opm-power xmlns="urn:else"/>')).data_ele)
        assert {etree.QName(part).localname for part in client.get().data_ele} >= {"port-config", "opm-power", "netconf-state"}
        assert refused(client.get, filter=("xpath", "/x")).tag == "operation-not-supported"

    await with_ncclient(switch, work)


async def test_schemas_are_served_and_announced(switch: EmulatedOpticalSwitch) -> None:
    def work(client: Any) -> None:
        listed = client.get(filter=("subtree", f'<netconf-state xmlns="{MONITORING}"><schemas/></netconf-state>')).data_ele
        names = [(entry[0].text, entry[1].text) for entry in listed.iter(rpc.q(MONITORING, "schema"))]
        assert ("optical-switch", "2018-03-22") in names and len(names) == len(switch.schema.modules)
        for name, revision in names:
            assert any(f"module={name}&revision={revision}" in capability for capability in client.server_capabilities)
            text = client.get_schema(name, version=revision, format="yang").data
            assert text == next(module.text for module in switch.schema.modules if module.name == name)
        assert refused(client.get_schema, "no-such-module").tag == "invalid-value"
        assert refused(client.get_schema, "optical-switch", version="1999-01-01").tag == "invalid-value"
        assert refused(client.get_schema, "optical-switch", format="yin").tag == "invalid-value"

    await with_ncclient(switch, work)


async def test_what_the_server_tells_of_itself_is_what_its_module_says(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    async with ours_on(switch, tmp_path) as session:
        await session.call(rpc.lock("candidate"))
        told = (await session.call(rpc.get())).data
    assert told is not None
    switch.schema.check(told)
    (holder,) = told.iter(rpc.q(MONITORING, "locked-by-session"))
    assert holder.text == str(session.session_id)


async def test_sessions_end_and_are_ended(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    async with ours_on(switch, tmp_path) as victim:
        await victim.call(rpc.lock("candidate"))

        def work(client: Any) -> None:
            assert refused(client.kill_session, client.session_id).tag == "invalid-value"
            client.kill_session(str(victim.session_id))

        await with_ncclient(switch, work)
        assert await asyncio.wait_for(victim.notifications.get(), 5) is None
    await with_ncclient(switch, lambda client: client.lock("candidate"))


async def test_shutters_by_the_vendors_operation(switch: EmulatedOpticalSwitch) -> None:
    switch.patch({1: 17})

    def work(client: Any) -> Any:
        client.dispatch(to_ele(f'<port-set-state xmlns="{OPTICAL_SWITCH}"><port-disab>17</port-disab></port-set-state>'))
        wrong = to_ele(f'<port-set-state xmlns="{OPTICAL_SWITCH}"><port-enab>17</port-enab><port-enab>99</port-enab></port-set-state>')
        return refused(client.dispatch, wrong).tag

    assert await with_ncclient(switch, work) == "invalid-value"
    assert switch.shut == {17} and switch.passing == frozenset() and switch.cross_connects == {(1, 17)}


# Confirmed commits.


async def test_a_confirmed_commit_is_confirmed_or_cancelled(switch: EmulatedOpticalSwitch) -> None:
    switch.patch({1: 17})

    def work(client: Any) -> None:
        client.edit_config(CONNECTS % (PAIR % ("merge", 2, 18)))
        client.commit(confirmed=True, timeout="60")
        assert switch.cross_connects == {(1, 17), (2, 18)}
        client.edit_config(CONNECTS % (PAIR % ("merge", 3, 19)))
        client.commit(confirmed=True, timeout="60")
        assert switch.cross_connects == {(1, 17), (2, 18), (3, 19)}
        client.cancel_commit()
        assert switch.cross_connects == {(1, 17)}
        assert refused(client.cancel_commit).tag == "operation-failed"
        client.edit_config(CONNECTS % (PAIR % ("merge", 2, 18)))
        client.commit(confirmed=True)
        client.commit()
        assert refused(client.commit, confirmed=True, timeout="0").tag == "invalid-value"

    await with_ncclient(switch, work)
    assert switch.cross_connects == {(1, 17), (2, 18)}


async def test_an_unconfirmed_commit_ends_with_its_session_or_its_time(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    def trial(client: Any) -> None:
        client.edit_config(CONNECTS % (PAIR % ("merge", 2, 18)))
        client.commit(confirmed=True, timeout="60")
        assert switch.cross_connects == {(2, 18)}

    await with_ncclient(switch, trial)
    async with ours_on(switch, tmp_path) as session:
        await session.call(rpc.lock("running"))  # granted when what the other session left behind is undone
        assert switch.cross_connects == frozenset()
        await session.call(rpc.unlock("running"))
        await session.call(rpc.create_subscription())
        await session.call(rpc.edit_config("candidate", cross_connect("create", 3, 19)))
        commit = rpc.commit()
        for name, text in (("confirmed", None), ("confirm-timeout", "1")):
            etree.SubElement(commit, rpc.q(rpc.BASE, name)).text = text
        await session.call(commit)
        assert switch.cross_connects == {(3, 19)}
        told = []
        while "timeout" not in told:
            notification = await session.notifications.get()
            assert notification is not None
            told.append(notification.event.findtext(rpc.q(rpc.CONFIG_CHANGES, "confirm-event")))
        assert told == [None, "start", None, "timeout"] and switch.cross_connects == frozenset()


async def test_a_persistent_commit_is_confirmed_by_whoever_knows_its_token(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    def trial(client: Any) -> None:
        client.edit_config(CONNECTS % (PAIR % ("merge", 2, 18)))
        client.commit(confirmed=True, timeout="60", persist="let me in")

    def confirm(client: Any) -> None:
        assert refused(client.lock, "running").tag == "lock-denied"
        assert refused(client.commit).tag == "invalid-value"
        assert refused(client.commit, persist_id="please").tag == "invalid-value"
        assert refused(client.cancel_commit).tag == "invalid-value"
        client.commit(persist_id="let me in")
        client.lock("running")

    await with_ncclient(switch, trial)
    assert switch.cross_connects == {(2, 18)}
    await with_ncclient(switch, confirm)
    await with_ncclient(
        switch, lambda client: client.edit_config(CONNECTS % (PAIR % ("delete", 2, 18))) and client.commit(confirmed=True, persist="x")
    )
    assert switch.cross_connects == frozenset()
    await switch.close()  # as a restart does, which nobody confirmed
    assert switch.cross_connects == {(2, 18)}


async def test_the_confirmed_commit_of_one_is_not_anothers_to_confirm(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    async with ours_on(switch, tmp_path) as session:
        await session.call(rpc.edit_config("candidate", cross_connect("create", 3, 19)))
        commit = rpc.commit()
        etree.SubElement(commit, rpc.q(rpc.BASE, "confirmed"))
        await session.call(commit)
        refusal = await with_ncclient(switch, lambda client: refused(client.commit))
        assert refusal.tag == "in-use"
        await session.call(rpc.commit())
    assert switch.cross_connects == {(3, 19)}


# Other devices.


async def test_a_device_offers_what_it_says(switch: EmulatedOpticalSwitch) -> None:
    switch.capabilities = tuple(name for name in switch.capabilities if "candidate" not in name and "confirmed" not in name)

    def work(client: Any) -> None:
        assert refused(client.lock, "candidate").tag == "operation-not-supported"
        client.edit_config(CONNECTS % (PAIR % ("create", 2, 18)), target="running")

    await with_ncclient(switch, work)
    assert switch.cross_connects == {(2, 18)}
    switch.capabilities = (rpc.BASE_1_0, rpc.CAPABILITY + "candidate:1.0")

    def other(client: Any) -> None:
        assert refused(client.edit_config, CONNECTS % (PAIR % ("create", 3, 19)), target="running").tag == "operation-not-supported"
        client.edit_config(CONNECTS % (PAIR % ("create", 3, 19)))
        client.commit()

    await with_ncclient(switch, other)
    assert switch.cross_connects == {(2, 18), (3, 19)}


async def test_the_older_optical_switch() -> None:
    switch = EmulatedOpticalSwitch("ocs1", 32, switching_time_s=0.0, model="pairs")
    await switch.start(passwords={"bellhop": PASSWORD})

    def work(client: Any) -> None:
        assert any("revision=2016-04-22" in capability for capability in client.server_capabilities)
        assert refused(client.edit_config, CONNECTS % (PAIR % ("merge", 1, 17)), target="running").tag == "unknown-element"
        client.edit_config(CONNECTS % (PAIR % ("merge", 1, 17)).replace("pair", "pairs"), target="running")
        wanted = f'<ports xmlns="{OPTICAL_SWITCH}"><port><port-id>17</port-id></port></ports>'
        assert "<power>-60.00</power>" in str(client.get(filter=("subtree", wanted)))

    try:
        await with_ncclient(switch, work)
    finally:
        await switch.close()
    assert switch.cross_connects == {(1, 17)}


async def test_a_wavelength_switch() -> None:
    switch = EmulatedWavelengthSwitch("wss1", ["line", "drop-1"], switching_time_s=0.0)
    await switch.start(passwords={"bellhop": PASSWORD})
    channel = f"""<wavelength-router xmlns="{WAVELENGTH_ROUTER}"><media-channels><channel><index>1</index><config><index>1</index>
        <lower-frequency>193400000</lower-frequency><upper-frequency>193450000</upper-frequency><admin-status>ENABLED</admin-status></config>
        <source><config><port-name>line</port-name></config></source><dest><config><port-name>%s</port-name></config></dest>
        </channel></media-channels></wavelength-router>"""

    def work(client: Any) -> None:
        wrong = refused(client.edit_config, CONFIG % (channel % "drop-9"))
        assert wrong.tag == "data-missing" and wrong.path.endswith("oc-wave-router:dest/oc-wave-router:config/oc-wave-router:port-name")
        client.edit_config(CONFIG % (channel % "drop-1"))
        client.commit()
        read = [
            str(client.get(filter=("subtree", wanted))) for wanted in (f'<wavelength-router xmlns="{WAVELENGTH_ROUTER}"/>', "<components/>")
        ]
        assert "<oper-status>UP</oper-status>" in read[0] and "input-power" in read[1]

    try:
        await with_ncclient(switch, work)
    finally:
        await switch.close()
    assert switch.channels == {MediaChannel(1, "line", "drop-1", 193_400_000, 193_450_000)}


# Faults on order.


async def test_a_device_that_hangs(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    switch.misbehaviours.append(Misbehaviour("commit", "hang"))
    async with ours_on(switch, tmp_path, timeout_s=0.3) as session:
        await session.call(rpc.edit_config("candidate", cross_connect("create", 1, 17)))
        with pytest.raises(SessionError, match="no reply to commit within"):
            await session.call(rpc.commit())
    assert switch.cross_connects == frozenset()
    await with_ncclient(switch, lambda client: client.lock("candidate"))  # what the hanging session had is given up


async def test_a_hanging_device_can_be_closed(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    switch.misbehaviours.append(Misbehaviour("get", "hang"))
    async with ours_on(switch, tmp_path) as session:
        await session.call(rpc.get_config("running"))
        waiting = asyncio.create_task(session.call(rpc.get()))
        async with ours_on(switch, tmp_path) as other:
            while switch.misbehaviours:
                await other.call(rpc.get_config("running"))
        await switch.close()
        with pytest.raises(SessionError):
            await waiting


async def test_a_device_that_lies(switch: EmulatedOpticalSwitch) -> None:
    switch.patch({1: 17})
    switch.misbehaviours += [Misbehaviour("edit-config", "lie"), Misbehaviour("get-config", "lie", skip=1)]

    def work(client: Any) -> None:
        assert client.edit_config(CONNECTS % (PAIR % ("create", 2, 18)), target="running").ok
        assert "<egress>17</egress>" in str(client.get_config("running"))
        assert not len(client.get_config("running").data_ele)

    await with_ncclient(switch, work)
    assert switch.cross_connects == {(1, 17)} and not switch.misbehaviours


@pytest.mark.parametrize(("does", "left"), [("drop", frozenset()), ("drop-after", {(1, 17)})])
async def test_a_session_dropped_between_validate_and_commit(
    switch: EmulatedOpticalSwitch, tmp_path: Path, does: Literal["drop", "drop-after"], left: Any
) -> None:
    switch.misbehaviours.append(Misbehaviour("commit", does))
    async with ours_on(switch, tmp_path) as session:
        for operation in (rpc.lock("candidate"), rpc.edit_config("candidate", cross_connect("create", 1, 17)), rpc.validate("candidate")):
            await session.call(operation)
        with pytest.raises(SessionError):
            await session.call(rpc.commit())
    assert switch.cross_connects == left
    await with_ncclient(switch, lambda client: client.lock("candidate"))


async def test_a_device_that_refuses_the_nth_edit(switch: EmulatedOpticalSwitch, tmp_path: Path) -> None:
    switch.misbehaviours.append(Misbehaviour("edit-config", "refuse", skip=1))
    async with ours_on(switch, tmp_path) as session:
        await session.call(rpc.edit_config("running", cross_connect("create", 1, 17)))
        with pytest.raises(RpcRefusedError, match="operation-failed: the device cannot do edit-config now"):
            await session.call(rpc.edit_config("running", cross_connect("create", 2, 18)))
        await session.call(rpc.edit_config("running", cross_connect("create", 3, 19)))
    assert switch.cross_connects == {(1, 17), (3, 19)}


async def test_a_device_that_comes_back_with_other_cross_connects(switch: EmulatedOpticalSwitch) -> None:
    told: list[frozenset[tuple[int, int]]] = []
    switch.on_commit = told.append
    key, port = asyncssh.generate_private_key("ssh-ed25519"), switch.port
    await switch.close()
    switch.patch({4: 20, 5: 21})
    await switch.start(port=port, passwords={"bellhop": PASSWORD}, host_key=key)
    read = await with_ncclient(switch, lambda client: str(client.get_config("running")))
    assert "<egress>21</egress>" in read and told == [{(4, 20), (5, 21)}]
    await with_ncclient(switch, lambda client: client.edit_config(CONNECTS % (PAIR % ("delete", 4, 20)), target="running"))
    assert switch.cross_connects == {(5, 21)}


def test_a_schema_is_made_once() -> None:
    assert EmulatedOpticalSwitch("ocs1", 4).schema is EmulatedOpticalSwitch("ocs2", 8).schema
    assert EmulatedOpticalSwitch("ocs1", 4).schema is not schema("optical-switch@2016-04-22", "polatis-switch@2018-01-19")
