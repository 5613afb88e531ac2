"""`bellhop emulate`: the devices of a network, without any hardware."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, ExitStack
from ipaddress import IPv4Network
from pathlib import Path
from typing import Literal

import click

from controller.cli.document import BELLHOP, fail, load, reason
from controller.cli.run import log_to_stderr, until_stopped

TIMES = click.option(
    "--device-times",
    type=click.Choice(["demo", "lab"]),
    default="demo",
    show_default=True,
    help="How long devices take: demo, QKD pairs resynchronise in half a second; lab, in a minute.",
)
MININET = click.option(
    "--mininet", is_flag=True, help="Mininet hosts and Open vSwitch, and a namespace for each optical switch and KME (needs root)."
)


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
@click.option("--management", type=IPv4Network, help="With --mininet: a /16 for the devices' addresses; by default one that is free.")
@click.option("--verbose", is_flag=True, help="Log what happens.")
def emulate(
    topology: str,
    directory: Path,
    api_port: int,
    openflow_port: int,
    emulator_port: int,
    device_times: Literal["demo", "lab"],
    mininet: bool,
    management: IPv4Network | None,
    verbose: bool,
) -> None:
    """Run the emulated devices of TOPOLOGY: optical switches, QKD modules, OpenFlow switches and hosts.

    Writes settings for `bellhop run` (controller.yaml) and `bellhop kme` (kmes.yaml) into the directory first. With --mininet it runs
    the KMEs, too.

    \b
    Example:
      bellhop emulate sandbox --directory run
      bellhop kme --config run/kmes.yaml
      bellhop run --config run/controller.yaml
    """
    from aiohttp import web

    from topologies.emulation.classical import ClassicalNetwork
    from topologies.emulation.emulator import DEVICE_TIMES, Classical, Emulator, interface
    from topologies.emulation.management import Management, claim
    from topologies.emulation.mininet_network import MininetNetwork
    from topologies.emulation.namespaces import enclose, relayed
    from topologies.emulation.workspace import lay_out

    log_to_stderr(verbose)
    network = load(topology)
    directory = directory.resolve()
    controller = ("127.0.0.1", openflow_port)
    with ExitStack() as held:
        try:
            listener = held.enter_context(socket.create_server(("127.0.0.1", emulator_port)))
            if not mininet:
                management = None
            elif management is None:
                management, claimed = claim()
                held.enter_context(claimed)
            workspace = lay_out(
                network,
                directory,
                management=management,
                api_port=api_port,
                openflow_port=openflow_port,
                emulator_port=emulator_port,
            )
        except OSError as error:
            fail(f"cannot begin: {reason(error)}")
        except ValueError as wrong:  # a management network that is too small
            fail(f"cannot begin: {wrong}")
        try:
            outside = enclose() if management else None
        except OSError as error:
            fail(f"cannot have namespaces of its own ({reason(error)}): --mininet needs root, run with sudo, or without --mininet")

        async def serve(stop: asyncio.Event) -> None:
            async with AsyncExitStack() as stack:
                classical: Classical = ClassicalNetwork(network, controller)
                if management and outside is not None:
                    await stack.enter_async_context(relayed(controller, outside))
                    command = [*BELLHOP, "kme", "--config", str(workspace.kmes), *(["--verbose"] if verbose else []), "--only"]
                    kmes = {name: [*command, name] for name, node in network.nodes() if node.holds_keys}
                    classical = MininetNetwork(network, controller, directory / "mininet", Management(management, outside, kmes, directory))
                emulator = Emulator(network, directory, classical, DEVICE_TIMES[device_times])
                await stack.enter_async_context(emulator.running())
                runner = web.AppRunner(interface(emulator), access_log=None, shutdown_timeout=0.5)
                await runner.setup()
                stack.push_async_callback(runner.cleanup)
                await web.SockSite(runner, listener).start()
                click.echo(f"emulating {network.name}: faults and pings at http://127.0.0.1:{emulator_port}")
                await stop.wait()

        try:
            until_stopped(serve)
        except OSError as error:
            fail(f"cannot emulate: {reason(error)}")
        except RuntimeError as error:
            fail(f"cannot emulate: {error}")
