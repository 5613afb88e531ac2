"""`bellhop device`: what devices hold, what they should hold, and the difference."""

from __future__ import annotations

import click

from controller.cli.client import SERVER, ask, quoted
from controller.cli.document import OUTPUT, print_json, print_table
from controller.cli.service import told


@click.group()
def device() -> None:
    """What devices hold, should hold, and the difference.

    \b
    Examples:
      bellhop device list
      bellhop device show ocs1
    """


@device.command(name="list")
@OUTPUT
@SERVER
def list_devices(server: str, output: str) -> None:
    """List the devices, whether they are reached, and how far they are from what they should hold.

    \b
    Example:
      bellhop device list
    """
    devices = ask(server, "GET", "/api/v1/devices")["devices"]
    if output == "json":
        print_json(devices)
        return
    rows = [
        (
            each["name"],
            each["kind"],
            "yes" if each["connected"] else "no",
            each["items"],
            each["to_add"],
            each["to_remove"],
            each["foreign"],
            each["trouble"],
        )
        for each in devices
    ]
    print_table(["DEVICE", "KIND", "CONNECTED", "ITEMS", "MISSING", "SUPERFLUOUS", "FOREIGN", "TROUBLE"], rows)


@device.command()
@click.argument("name")
@OUTPUT
@SERVER
def show(server: str, output: str, name: str) -> None:
    """Read a device now and show what it holds beside what it should hold.

    \b
    Example:
      bellhop device show ocs1
    """
    answer = ask(server, "GET", f"/api/v1/devices/{quoted(name)}")
    if output == "json":
        print_json(answer)
        return
    click.echo(
        f"{name}: {answer['kind']}, {'connected' if answer['connected'] else 'not connected'}{': ' + answer['trouble'] if answer['trouble'] else ''}"
    )
    wanted = {service: [told(item) for item in items] for service, items in answer["desired"].items()}
    for service, items in wanted.items():
        click.echo(f"for {service}:")
        for item in items:
            click.echo(f"    {item}")
    diff = answer["diff"]
    for title, items in (
        ("missing", diff["add"]),
        ("superfluous", diff["remove"]),
        ("foreign (not Bellhop's, left alone)", diff["foreign"]),
    ):
        if items:
            click.echo(f"{title}:")
            for item in items:
                click.echo(f"    {told(item)}")
    actual = answer["actual"]
    lit = {port: dbm for port, dbm in actual["power_dbm"].items() if dbm > -60}
    for title, readings in (
        ("light, dBm, by port", lit),
        ("key pool, bytes, by peer", actual["pool_bytes"]),
        ("keys ready, by service", actual["stock_keys"]),
    ):
        if readings:
            click.echo(f"{title}: " + ", ".join(f"{name} {value:g}" for name, value in readings.items()))
