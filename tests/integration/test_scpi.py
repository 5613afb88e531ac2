"""The SCPI driver over real sockets, on devices that answer nonsense; and the emulated switch, by its bare lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import pytest

from controller.southbound.device import Changed, Connected, CrossConnect, DeviceEvent, Diff, Disconnected, PortChanged, Unreachable
from controller.southbound.drivers.scpi_switch import ScpiSwitch
from controller.southbound.scpi.session import open_session
from controller.southbound.session import SessionError
from topologies.emulation.scpi_switch import EmulatedScpiSwitch

pytestmark = pytest.mark.timeout(30)

HONEST = {
    "*IDN?": "Polatis,OST,1,6.5",
    ":OXC:SWIT:SIZE?": "2,2",
    ":OXC:SWIT:CONN:STAT?": "(@),(@)",
    ":OXC:SWIT:PORT:STAT? (@1,2,3,4)": "(E,E,E,E)",
    ":SYST:ERR?": '0,"No error"',
    ":OXC:SWIT:CONN:ADD (@1),(@3);*OPC?": "1",
}


@asynccontextmanager
async def answering(answers: Mapping[str, str | None]) -> AsyncIterator[int]:
    """A device that answers by the book; what is not in it, or None there, is not answered."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while line := await reader.readline():
                answer = answers.get(line.decode().strip())
                if answer is not None:
                    writer.write(answer.encode("latin-1") + b"\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        server.close()


@asynccontextmanager
async def running(port: int, timeout_s: float = 0.5) -> AsyncIterator[tuple[ScpiSwitch, AsyncIterator[DeviceEvent]]]:
    driver = ScpiSwitch("ocs1", f"127.0.0.1:{port}", timeout_s=timeout_s, poll_s=0.02, reconnect_min_s=0.02, reconnect_max_s=0.1)
    events = driver.events()
    task = asyncio.create_task(driver.run())
    try:
        yield driver, events
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def next_event(events: AsyncIterator[DeviceEvent]) -> DeviceEvent:
    return await asyncio.wait_for(anext(events), 5)


@pytest.fixture
async def switch() -> AsyncIterator[EmulatedScpiSwitch]:
    switch = EmulatedScpiSwitch("ocs1", 32, switching_time_s=0.0)
    yield switch
    await switch.close()


@pytest.mark.parametrize(
    ("lies", "why"),
    [
        ({":OXC:SWIT:CONN:ADD (@1),(@3);*OPC?": "0"}, "not 1"),
        ({":OXC:SWIT:CONN:ADD (@1),(@3);*OPC?": "1\n1"}, "which was not asked"),
        ({":OXC:SWIT:CONN:ADD (@1),(@3);*OPC?": None}, "no answer to :OXC:SWIT:CONN:ADD"),
        ({":SYST:ERR?": "all is well"}, "not a number and a text"),
        ({":SYST:ERR?": '-100,"again"'}, "more than 100 entries"),
        ({":SYST:ERR?": "\xff"}, "no ASCII"),
    ],
)
async def test_nonsense_costs_that_session_only(switch: EmulatedScpiSwitch, lies: dict[str, str | None], why: str) -> None:
    async with answering(HONEST | lies) as port, running(await switch.start()) as (honest, _), running(port) as (driver, events):
        assert await next_event(events) == Connected("ocs1")
        with pytest.raises(Unreachable) as lost:
            await driver.apply(Diff("ocs1", add=(CrossConnect(1, 3),)))
        assert why in lost.value.what
        event = await next_event(events)
        assert isinstance(event, Disconnected) and why in event.reason
        assert await next_event(events) == Connected("ocs1")
        await honest.apply(Diff("ocs1", add=(CrossConnect(1, 17),)))
        assert honest.link.sessions_lost == 0


@pytest.mark.parametrize(
    ("lies", "why"),
    [
        ({"*IDN?": "SSH-2.0-OpenSSH_9.2"}, "the identity"),
        ({"*IDN?": None}, "no answer to"),
        ({":OXC:SWIT:SIZE?": "16"}, "the size"),
        ({":OXC:SWIT:CONN:STAT?": "(@1),(@2,3)"}, "1 ingress ports"),
        ({":OXC:SWIT:PORT:STAT? (@1,2,3,4)": "(E,E)"}, "the port states"),
        ({"*IDN?": "x" * 2_000_000}, "longer than"),
    ],
)
async def test_a_device_that_is_no_such_switch_is_no_session(lies: dict[str, str | None], why: str) -> None:
    async with answering(HONEST | lies) as port, running(port) as (driver, events):
        event = await next_event(events)
        assert isinstance(event, Disconnected) and why in event.reason
        assert not driver.connected and driver.link.sessions_opened == 0
        with pytest.raises(Unreachable, match=r".+"):
            await driver.read()


async def test_a_refused_connection_is_told() -> None:
    async with answering(HONEST) as port:
        pass
    with pytest.raises(SessionError, match=f"no connection to 127.0.0.1:{port}"):
        async with open_session("127.0.0.1", port):
            pass


async def test_a_cancelled_change_is_no_answer_for_the_next(switch: EmulatedScpiSwitch, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, move = asyncio.Event(), switch.set_cross_connects

    async def move_slowly(pairs: Mapping[int, int]) -> None:
        begun.set()
        await asyncio.sleep(0.1)
        await move(pairs)

    monkeypatch.setattr(switch, "set_cross_connects", move_slowly)
    async with running(await switch.start(), timeout_s=5.0) as (driver, events):
        assert await next_event(events) == Connected("ocs1")
        change = asyncio.create_task(driver.apply(Diff("ocs1", add=(CrossConnect(1, 17),))))
        await asyncio.wait_for(begun.wait(), 5)
        change.cancel()
        await asyncio.wait((change,))
        event = await next_event(events)
        assert isinstance(event, Disconnected) and "nobody waited" in event.reason
        assert await next_event(events) == Connected("ocs1")
        await driver.apply(Diff("ocs1", add=(CrossConnect(2, 18),)))
        assert switch.cross_connects == {(1, 17), (2, 18)}


async def test_ports_that_are_disabled_or_failed_are_without_signal(switch: EmulatedScpiSwitch) -> None:
    async with running(await switch.start()) as (_, events):
        assert await next_event(events) == Connected("ocs1")
        switch.set_port_state([4], "F")
        assert await next_event(events) == PortChanged("ocs1", 4, up=False)
        switch.set_port_state([4], "E")
        assert await next_event(events) == PortChanged("ocs1", 4, up=True)


async def test_a_whole_change_is_one_command_each_way_and_nobody_elses_connections_are_named(switch: EmulatedScpiSwitch) -> None:
    await switch.set_cross_connects({16: 32})
    async with running(await switch.start()) as (driver, events):
        assert await next_event(events) == Connected("ocs1")
        pairs = tuple(CrossConnect(port, port + 16) for port in range(1, 11))
        await driver.apply(Diff("ocs1", add=pairs))
        await driver.apply(Diff("ocs1", remove=pairs))
        assert switch.cross_connects == {(16, 32)}
        changes = [each for each in switch.received if "?" not in each]
        assert changes == ["OXC:SWIT:CONN:ADD", "OXC:SWIT:CONN:SUB"]


async def test_errors_of_others_are_not_taken_for_ours(switch: EmulatedScpiSwitch) -> None:
    port = await switch.start()
    async with running(port) as (driver, events), open_session("127.0.0.1", port) as other:
        assert await next_event(events) == Connected("ocs1")
        assert await other.query(":BELLHOP:NONSENSE;*OPC?") == "1"
        await driver.apply(Diff("ocs1", add=(CrossConnect(1, 17),)))
        await switch.set_cross_connects({})
        assert isinstance(await next_event(events), Changed)


async def test_the_emulated_switch_by_its_lines(switch: EmulatedScpiSwitch) -> None:
    dark: list[frozenset[tuple[int, int]]] = []
    switch.on_commit = dark.append
    async with open_session("127.0.0.1", await switch.start()) as session:
        assert await session.query("*idn?") == "Polatis,EMU-OST-16x16,ocs1,0"
        assert await session.query(":oxc:switch:connect:add (@1:2),(@17,18);*opc?") == "1"
        assert await session.query(":oxc:swit:conn:only (@3,4),(@20,19); stat?") == "(@3,4),(@20,19)"  # the path goes on
        assert await session.query(":oxc:swit:port:dis (@3);*OPC?") == "1"
        assert dark[-1] == {(4, 19)}, "no light passes a disabled port"
        assert await session.query(":OXC:SWIT:PORT:STAT? (@2:4);:OXC:SWIT:SIZE?") == "(E,D,E);16,16"
        faulty = {
            ":oxc:swit:conn:add (@5),(@20)": -221,
            ":oxc:swit:conn:add (@5,6),(@21)": -109,
            ":oxc:swit:conn:add (@17),(@5)": -222,
            ":oxc:swit:conn:add (@5),(@33)": -222,
            ":oxc:swit:conn:add 5,21": -102,
            ":oxc:swit:conn:sub (@5),(@21)": -221,
            ":oxc:swit:conn:su (@3),(@20)": -113,
        }
        for command, number in faulty.items():
            assert [fault.number for fault in await session.command(command)] == [number]
        assert switch.cross_connects == {(3, 20), (4, 19)}
        assert await session.command(":oxc:swit:conn:sub (@3),(@)") == []
        assert switch.cross_connects == {(4, 19)}
        for _ in range(30):
            await session.query(":NO:SUCH;*OPC?")
        faults = await session.faults()
        assert len(faults) == 20 and faults[-1].number == -350
