"""`bellhop event`: what happens in the live network."""

from __future__ import annotations

import datetime
import json

import click

from controller.cli.client import SERVER, follow


@click.command()
@click.option("--after", type=click.IntRange(0), help="Begin after this event number; 0 for all that are kept.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@SERVER
def event(server: str, output: str, after: int | None) -> None:
    """Follow what happens in the live network, until interrupted.

    \b
    Examples:
      bellhop event
      bellhop event --after 0 -o json
    """
    query = "" if after is None else f"?after={after}"
    try:
        for number, kind, data in follow(server, f"/api/v1/events{query}"):
            if output == "json":
                click.echo(json.dumps({"number": number, "kind": kind, **data}))
                continue
            clock = datetime.datetime.fromtimestamp(data.pop("time_s")).strftime("%H:%M:%S.%f")[:-3]
            click.echo(f"{clock}  {number:5} {kind:22} " + "  ".join(f"{name}={value}" for name, value in data.items()))
    except KeyboardInterrupt:
        pass
