"""`bellhop link`: links of the live network, and faults of an emulated one."""

from __future__ import annotations

import click

from controller.cli.client import EMULATOR, SERVER, ask, quoted
from controller.cli.document import OUTPUT, print_json, print_table
from controller.cli.node import administer

_FOUND = {True: "yes", False: "NO", None: ""}


@click.group()
def link() -> None:
    """Links of the live network: list, drain, enable; cut an emulated fibre.

    \b
    Examples:
      bellhop link list
      bellhop link cut fibre:alice--relay1      (emulated networks only)
      bellhop link restore fibre:alice--relay1
      bellhop link enable trunk-a               tell the controller that a dark fibre is mended
    """


@link.command(name="list")
@OUTPUT
@SERVER
def list_links(server: str, output: str) -> None:
    """List the links with what is known of them, and whether the switches' ports were found to be joined so.

    \b
    Example:
      bellhop link list
    """
    links = ask(server, "GET", "/api/v1/topology")["links"]
    looked_for = ask(server, "GET", "/api/v1/discovery")["links"]
    found = {each["link"]: each["found"] for each in looked_for if each["link"]}
    links = [each | {"found": found.get(each["id"])} for each in links]
    if output == "json":
        print_json(links)
        return
    rows = []
    for each in links:
        figures = ", ".join(f"{name} {figure['value']:.6g} ({figure['origin']})" for name, figure in each["figures"].items())
        rows.append((each["id"], "up" if each["up"] else "DOWN", _FOUND[each["found"]], each.get("admin", "enabled"), figures))
    rows += [(each["ports"], "", "NOT DECLARED", "", "") for each in looked_for if not each["link"]]
    print_table(["LINK", "STATE", "FOUND", "ADMIN", "FIGURES"], rows)


@link.command()
@click.argument("name")
@SERVER
def drain(server: str, name: str) -> None:
    """Move services off a link and use it for no new ones; says which cannot move (exit code 1).

    \b
    Example:
      bellhop link drain trunk-a
    """
    administer(server, "link", name, "draining")


@link.command()
@click.argument("name")
@SERVER
def disable(server: str, name: str) -> None:
    """Take a link out of use at once: services that cannot move off it are cut off, and named.

    \b
    Example:
      bellhop link disable trunk-a
    """
    administer(server, "link", name, "disabled")


@link.command()
@click.argument("name")
@SERVER
def enable(server: str, name: str) -> None:
    """Use a link again. A dark fibre counts as mended from now on.

    \b
    Example:
      bellhop link enable trunk-a
    """
    administer(server, "link", name, "enabled")


@link.command()
@click.argument("name")
@EMULATOR
def cut(emulator: str, name: str) -> None:
    """Cut a fibre or cable of the emulated network; the controller has to find out by itself.

    \b
    Example:
      bellhop link cut trunk-a
    """
    ask(emulator, "POST", f"/links/{quoted(name)}/cut")
    click.echo(f"link {name}: cut")


@link.command()
@click.argument("name")
@EMULATOR
def restore(emulator: str, name: str) -> None:
    """Mend a fibre or cable of the emulated network.

    \b
    Example:
      bellhop link restore trunk-a
    """
    ask(emulator, "POST", f"/links/{quoted(name)}/restore")
    click.echo(f"link {name}: restored")
