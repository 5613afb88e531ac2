"""`bellhop emulate`: the devices of a network, without any hardware."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import click

from controller.cli.document import fail, load, reason
from controller.cli.run import log_to_stderr, until_stopped

TIMES = click.option(
    "--device-times",
    type=click.Choice(["demo", "lab"]),
    default="demo",
    show_default=True,
    help="How long devices take: demo, QKD pairs resynchronise in half a second; lab, in a minute.",
)
MININET = click.option("--mininet", is_flag=True, help="Classical part as real Mininet and Open vSwitch (needs root).")


@click.command()
@click.argument("topology")
@click.option(
    "--directory", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where certificates, keys and settings go."
)
@click.option("--api-port", type=int, default=8480, show_default=True, help="Where the controller's API will listen.")
@click.option("--openflow-port", type=int, default=6653, show_default=True, help="Where the OpenFlow switches dial.")
@click.option("--emulator-port", type=int, default=8481, show_default=True, help="Where this emulator takes faults and pings.")
@TIMES
@MININET
@click.option("--verbose", is_flag=True, help="Log what happens.")
def emulate(
    topology: str,
    directory: Path,
    api_port: int,
    openflow_port: int,
    emulator_port: int,
    device_times: Literal["demo", "lab"],
    mininet: bool,
    verbose: bool,
) -> None:
    """Run the emulated devices of TOPOLOGY: optical switches, QKD modules, OpenFlow switches and hosts.

    Writes settings for `bellhop run` (controller.yaml) and `bellhop kme` (kmes.yaml) into the directory first.

    \b
    Example:
      bellhop emulate sandbox --directory run
      bellhop kme --config run/kmes.yaml
      bellhop run --config run/controller.yaml
    """
    from aiohttp import web

    from topologies.emulation.classical import ClassicalNetwork
    from topologies.emulation.emulator import DEVICE_TIMES, Classical, Emulator, interface
    from topologies.emulation.workspace import lay_out

    log_to_stderr(verbose)
    network = load(topology)
    directory = directory.resolve()
    try:
        lay_out(network, directory, api_port=api_port, openflow_port=openflow_port, emulator_port=emulator_port)
    except OSError as error:
        fail(f"cannot write settings: {reason(error)}")

    async def serve(stop: asyncio.Event) -> None:
        controller = ("127.0.0.1", openflow_port)
        classical: Classical
        if mininet:
            from topologies.emulation.mininet_network import MininetNetwork

            classical = MininetNetwork(network, controller, directory / "mininet")
        else:
            classical = ClassicalNetwork(network, controller)
        emulator = Emulator(network, directory, classical, DEVICE_TIMES[device_times])
        async with emulator.running():
            runner = web.AppRunner(interface(emulator), access_log=None, shutdown_timeout=0.5)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", emulator_port).start()
                click.echo(f"emulating {network.name}: faults and pings at http://127.0.0.1:{emulator_port}")
                await stop.wait()
            finally:
                await runner.cleanup()

    try:
        until_stopped(serve)
    except OSError as error:
        fail(f"cannot emulate: {reason(error)}")
    except RuntimeError as error:
        fail(f"cannot emulate: {error}")
