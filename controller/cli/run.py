"""`bellhop run`: the controller daemon."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from controller.cli.document import fail, reason
from controller.telemetry.loop import ShortTurns


@click.command()
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True, help="The settings file (YAML).")
@click.option("--observe", is_flag=True, help="Read and compare, and write nothing to any device.")
@click.option("--verbose", is_flag=True, help="Log every event.")
def run(config: Path, observe: bool, verbose: bool) -> None:
    """Run the controller until SIGTERM or SIGINT. Stopping it leaves the devices as they are.

    \b
    Example:
      bellhop run --config controller.yaml --observe

    \b
    A settings file, in which paths are relative to it:
      network: my-network.yaml
      store: bellhop.db
      api: {port: 8480}
      openflow: {host: 192.0.2.1, port: 6653, tls: {ca: ca.crt, cert: controller.crt, key: controller.key}}
      apps: [apps.learning_switch]
      netconf: {username: bellhop, client_key: id_ed25519, known_hosts: known_hosts}
      kme: {ca: ca.crt, cert: controller.crt, key: controller.key}
    """
    from controller import config as settings_file
    from controller import daemon
    from controller.network.document import WrongDocument
    from controller.store.sqlite import StoreError

    log_to_stderr(verbose)

    async def serve(stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShortTurns)
        async with daemon.running(settings_file.load(config), observe=observe) as controller:
            click.echo(
                f"controlling {controller.topology.name}: API {controller.api}, OpenFlow {controller.listener.host}:{controller.listener.port}"
            )
            loop.collect_in_short_passes()
            sys.setswitchinterval(SWITCH_S)
            await stop.wait()

    try:
        until_stopped(serve)
    except (WrongDocument, settings_file.WrongSettings) as wrong:
        fail(str(wrong), 2)
    except StoreError as error:
        fail(f"cannot start: {error}")
    except OSError as error:
        fail(f"cannot start: {reason(error)}")


SWITCH_S = 0.0005
"""How long a thread that compares, unpickles or writes keeps the event loop waiting for the interpreter (5 ms if nothing is said)."""


def log_to_stderr(verbose: bool) -> None:
    """Warnings, and with `verbose` everything Bellhop says, on standard error."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("bellhop", "controller", "apps", "topologies"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger("asyncssh").setLevel(logging.ERROR)


def until_stopped(serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run `serve` with an event that is set by SIGTERM or SIGINT. What fails inside comes out as its first cause."""

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(stop)

    try:
        with asyncio.Runner(loop_factory=ShortTurns) as runner:
            runner.run(main())
    except BaseExceptionGroup as group:
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        raise cause from None
