"""Which role the daemon asks of switches, and what it says when there is a newer master."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from os_ken.ofproto import ofproto_v1_3 as ofp

from controller import daemon
from controller.config import Listen, OpenFlow, Settings
from topologies.emulation.openflow_switch import EmulatedSwitch


@pytest.mark.parametrize(
    ("observe", "newest", "role", "told"),
    [
        (False, None, ofp.OFPCR_ROLE_MASTER, "device.connected"),
        (False, 5, ofp.OFPCR_ROLE_MASTER, "device.connected"),
        (False, 1 << 62, None, "device.refused"),
        (True, 5, ofp.OFPCR_ROLE_SLAVE, "device.connected"),
        (True, None, ofp.OFPCR_ROLE_EQUAL, "device.connected"),
    ],
)
async def test_roles(tmp_path: Path, observe: bool, newest: int | None, role: int | None, told: str) -> None:
    network = tmp_path / "network.yaml"
    network.write_text('name: one\nnodes:\n  s1: {kind: openflow-switch, dpid: "0000000000000001"}\n')
    settings = Settings(network=network, store=tmp_path / "bellhop.db", api=Listen(port=0), openflow=OpenFlow(port=0))
    async with daemon.running(settings, observe=observe) as controller:
        switch = EmulatedSwitch("s1", 1, [1], ("127.0.0.1", controller.listener.port))
        switch._agent._generation = newest
        running = asyncio.create_task(switch.run())
        async with asyncio.timeout(10):
            async for event in controller.events.follow(0):
                if event.kind == told:
                    break
        assert event.data["device"] == "s1"
        if role is None:
            assert "newer generation than ours" in event.data["reason"]
        else:
            assert [each.role for each in switch._agent.controllers] == [role]
        if observe:
            assert switch._agent._generation == newest, "who looks on fences nobody off"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
