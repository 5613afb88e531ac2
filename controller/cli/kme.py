"""`bellhop kme`: key management entities."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import click

from controller.cli.document import fail, reason
from controller.cli.run import log_to_stderr, until_stopped


@click.command()
@click.option(
    "--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True, help="A YAML list, one entry per KME."
)
@click.option("--only", metavar="ID", help="Run only the KME of this id.")
@click.option("--verbose", is_flag=True, help="Log what happens.")
def kme(config: Path, only: str | None, verbose: bool) -> None:
    """Run the key management entities of a settings file in this process, until SIGTERM or SIGINT.

    They hold the keys, relay them, and hand them to applications over ETSI GS QKD 014.

    \b
    Example:
      bellhop kme --config kmes.yaml

    \b
    An entry of the settings file:
      - {id: alice, port: 8411, saes: [sae-alice], ca: ca.crt, cert: kme-alice.crt, key: kme-alice.key,
         peers: {relay1: "https://127.0.0.1:8412"}, store: kme-alice.db, kek: kme-alice.kek}
    """
    import yaml
    from pydantic import TypeAdapter, ValidationError

    from apps.kme.program import running
    from apps.kme.settings import KmeSettings

    log_to_stderr(verbose)
    try:
        settings = TypeAdapter(list[KmeSettings]).validate_python(yaml.safe_load(config.read_bytes()))
    except yaml.YAMLError as error:
        fail(f"{config}: not YAML: {' '.join(str(error).split())}", 2)
    except ValidationError as error:
        fail("\n".join(f"{config}: {'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()), 2)
    if only is not None and not (settings := [each for each in settings if each.id == only]):
        fail(f"{config}: has no KME of id '{only}'", 2)

    async def serve(stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            kmes = [await stack.enter_async_context(running(each)) for each in settings]
            click.echo("\n".join(f"KME {each.id} at {each.url}" for each in kmes))
            stopping = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait({stopping, *(each.work for each in kmes)}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task

    try:
        until_stopped(serve)
    except OSError as error:
        fail(f"cannot start: {reason(error)}")
    except ValueError as wrong:  # a key-encryption key that is not the store's
        fail(f"cannot start: {wrong}")
