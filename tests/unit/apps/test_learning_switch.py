"""The example packet app, with the controller around it and an emulated switch: does the frame come out there?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from apps import learning_switch
from controller import daemon
from controller.config import Listen, OpenFlow, Settings, WrongSettings
from controller.network import document
from controller.northbound.face import Face
from controller.services import packets
from controller.services.app import NO_BUFFER, FlowCommand, FlowMod, FlowRule, PacketApp, PacketIn, PacketOut, Port13, Switch
from controller.southbound.drivers.openflow_switch import OpenFlowSwitch
from controller.southbound.openflow.codec import Framer, decode
from topologies.emulation.openflow.tables import Entry
from topologies.emulation.openflow_switch import EmulatedSwitch

A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
ALL = b"\xff" * 6


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


class Bench:
    """A controller, one emulated switch with three ports, and what came out of them."""

    def __init__(self, controller: Face, switch: EmulatedSwitch) -> None:
        self.controller = controller
        self.switch = switch
        self.out: list[tuple[int, bytes]] = []
        for port in (1, 2, 3):
            switch.attach(port, lambda frame, port=port: self.out.append((port, frame)))

    async def frame(self, port: int, to: bytes, sender: bytes, *out: int) -> None:
        """A frame comes in by a port, and out of those named."""
        self.out.clear()
        frame = to + sender + b"\x88\xb5" + bytes(50)
        self.switch.receive(port, frame)
        await until(lambda: len(self.out) >= len(out))
        await asyncio.sleep(0.02)
        assert sorted(self.out) == [(each, frame) for each in out]

    def rules(self) -> list[Entry]:
        return [entry for entry in self.switch.flows() if entry.cookie >> 16 == learning_switch.app.cookie >> 16]

    @property
    def driver(self) -> OpenFlowSwitch:
        driver = self.controller.devices["s1"]
        assert isinstance(driver, OpenFlowSwitch)
        return driver


@asynccontextmanager
async def bench(directory: Path, *apps: str, observe: bool = False, switch: EmulatedSwitch | None = None) -> AsyncIterator[Bench]:
    network = directory / "network.yaml"
    network.write_text('name: one\nnodes:\n  s1: {kind: openflow-switch, dpid: "0000000000000001"}\n')
    assert document.load(network)
    settings = Settings(
        network=network,
        store=directory / "bellhop.db",
        api=Listen(port=0),
        openflow=OpenFlow(port=0),
        apps=apps,
        discovery={"enabled": False},
    )
    async with daemon.running(settings, observe=observe) as controller:
        made = EmulatedSwitch("s1", 1, [1, 2, 3], ("127.0.0.1", controller.listener.port)) if switch is None else switch
        running = asyncio.create_task(made.run())
        made._addresses = (("127.0.0.1", controller.listener.port),)
        try:
            each = Bench(controller, made)
            await until(lambda: each.driver.connected)
            yield each
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_frames_are_flooded_until_the_receiver_is_known(tmp_path: Path) -> None:
    async with bench(tmp_path, "apps.learning_switch") as each:
        await until(lambda: len(each.rules()) == 1)
        await each.frame(1, B, A, 2, 3)
        await each.frame(2, A, B, 1)
        await until(lambda: len(each.rules()) == 2)
        before = each.driver.packet_ins
        await each.frame(2, A, B, 1)
        assert each.driver.packet_ins == before, "the switch forwards by itself"
        await each.frame(1, ALL, A, 2, 3)
        await each.frame(1, B, A, 2)
        await each.frame(3, A, B, 1)  # b has moved to another port
        await each.frame(1, B, A, 3)
        assert {entry.idle_timeout_s for entry in each.rules()} == {0, 60}


async def test_the_apps_rules_are_its_own_until_it_is_gone(tmp_path: Path) -> None:
    """While it is loaded they are no difference; once it is not, they are cleared up as anything else that is Bellhop's."""
    async with bench(tmp_path, "apps.learning_switch") as each:
        await each.frame(1, B, A, 2, 3)
        await each.frame(2, A, B, 1)
        assert not (await each.driver.read()).items
        switch = each.switch
    async with bench(tmp_path, switch=switch) as each:
        await until(lambda: not each.rules())


async def test_one_who_looks_on_writes_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path, "apps.learning_switch", observe=True) as each:
        await until(lambda: each.controller.reconciler.views["s1"].reads > 0)
        each.switch.receive(1, B + A + b"\x88\xb5" + bytes(50))
        await asyncio.sleep(0.05)
        assert not each.switch.flows()


def answers(switch: Switch, to: bytes, sender: bytes, in_port: int, buffer_id: int = NO_BUFFER) -> list[Any]:
    packet = PacketIn(buffer_id, 64, 0, 0, switch.cookie, (("in_port", in_port),), to + sender + bytes(52))
    given = learning_switch.packet_in(switch, packet)
    return [decode(Framer().feed(each)[0]) if isinstance(each, bytes) else each for each in given]


def test_the_rule_releases_a_packet_that_waits_in_the_switch() -> None:
    switch = Switch("s1", 1, learning_switch.app.cookie, dict)
    (flood,) = answers(switch, B, A, 1, buffer_id=7)
    assert flood == PacketOut((("output", Port13.FLOOD),), b"", 1, 7)
    for buffer_id in (8, 9):
        (rule,) = answers(switch, A, B, 2, buffer_id)
        assert (rule.buffer_id, rule.rule.actions, rule.rule.cookie) == (buffer_id, (("output", 1),), switch.cookie)
    rule, out = answers(switch, A, B, 2)
    assert rule.buffer_id == NO_BUFFER
    assert (out.actions, out.in_port, out.data[:6]) == ((("output", 1),), 2, A)


def test_made_up_senders_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_switch, "HOSTS_KEPT", 10)
    switch = Switch("s1", 1, learning_switch.app.cookie, dict)
    for number in range(100):
        answers(switch, ALL, number.to_bytes(6), 1)
    assert len(switch.memory) <= 10


async def test_an_app_cannot_write_rules_in_anothers_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def packet_in(switch: Switch, packet: PacketIn) -> list[FlowMod]:
        return [FlowMod(FlowCommand.ADD, FlowRule(5, (), (), switch.cookie ^ 1 << 16))]

    async with bench(tmp_path) as each:
        app = PacketApp("bold", packet_in)
        packets.serve(app, each.driver)
        each.driver.send(packets.rules(app)[0])
        await until(lambda: bool(each.switch.flows()))
        each.switch.receive(1, B + A + bytes(52))
        await until(lambda: "which is not the app's: use switch.cookie" in caplog.text)
        assert [entry.priority for entry in each.switch.flows()] == [0]


def test_cookies_are_within_bellhops_and_apart_by_name() -> None:
    cookies = [PacketApp(name, learning_switch.packet_in).cookie for name in ("a", "b")]
    assert all(cookie >> 48 == 0xBE11 and not cookie & 0xFFFF for cookie in cookies)
    assert cookies[0] != cookies[1]


@pytest.mark.parametrize(
    ("modules", "why"),
    [
        (["apps.no_such_app"], "'apps.no_such_app' cannot be imported"),
        (["apps.forwarding"], "the module 'apps.forwarding' has no packet app"),
        (["apps.learning_switch", "apps.learning_switch"], "second packet app named 'learning-switch'"),
    ],
)
async def test_what_is_no_packet_app_is_told_at_the_start(tmp_path: Path, modules: list[str], why: str) -> None:
    with pytest.raises(WrongSettings, match=why):
        async with bench(tmp_path, *modules):
            pass
