"""The meter of switches' controller ports as the daemon's settings ask for it, from one start of the controller to the next."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from os_ken.ofproto import ofproto_v1_3 as ofp

from controller import daemon
from controller.config import DiscoverySettings, Listen, OpenFlow, Settings
from topologies.emulation.openflow_switch import EmulatedSwitch

NETWORK = 'name: one\nnodes:\n  s1: {kind: openflow-switch, dpid: "0000000000000001"}\n'


@pytest.mark.parametrize("discovers", [True, False])
async def test_the_meter_is_set_renewed_and_taken_away_and_a_strangers_stays(tmp_path: Path, discovers: bool) -> None:
    (tmp_path / "network.yaml").write_text(NETWORK)
    switch = EmulatedSwitch("s1", 1, [1])

    async def run(wanted: tuple[int, int] | None, **asked: bool | float) -> None:
        """Run a controller with these settings until the switch's meter of the controller port has this rate and burst, or is none."""
        settings = Settings(
            network=tmp_path / "network.yaml",
            store=tmp_path / "bellhop.db",
            api=Listen(port=0),
            openflow=OpenFlow(port=0, **asked),
            discovery=DiscoverySettings(enabled=discovers),
        )
        async with daemon.running(settings) as controller:
            switch._addresses = (("127.0.0.1", controller.listener.port),)
            serving = asyncio.create_task(switch.run())
            reconciler = controller.reconciler
            async with asyncio.timeout(10):
                while held() != wanted or not reconciler.views["s1"].reads:  # noqa: ASYNC110 - the state of a switch is watched
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert held() == wanted
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    def held() -> tuple[int, int] | None:
        meter = switch.pipeline.meters.get(ofp.OFPM_CONTROLLER)
        return None if meter is None else (meter.bands[0].rate, meter.bands[0].burst_size)

    await run(None)
    await run((20_000, 2_000), meter_packet_ins=True)
    await run((500, 50), meter_packet_ins=True, packet_ins_per_s=500.0)
    await run((500, 50), meter_packet_ins=True, packet_ins_per_s=500.0)
    await run(None)
    await run((7, 1), meter_packet_ins=True, packet_ins_per_s=7.0)
    theirs = switch.pipeline.meters[ofp.OFPM_CONTROLLER]
    await run(None)
    switch.pipeline.meters[ofp.OFPM_CONTROLLER] = theirs
    await run((7, 1))
