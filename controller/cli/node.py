"""`bellhop node`: nodes of the live network."""

from __future__ import annotations

from typing import Any

import click

from controller.cli.client import EMULATOR, SERVER, ask, quoted
from controller.cli.document import OUTPUT, fail, print_json, print_table


@click.group()
def node() -> None:
    """Nodes of the live network: list, drain, enable; ping between emulated hosts.

    \b
    Examples:
      bellhop node drain relay1       move services off before works
      bellhop node enable relay1
      bellhop node ping h1 h4
    """


@node.command(name="list")
@OUTPUT
@SERVER
def list_nodes(server: str, output: str) -> None:
    """List the nodes.

    \b
    Example:
      bellhop node list
    """
    nodes: dict[str, dict[str, Any]] = ask(server, "GET", "/api/v1/topology")["nodes"]
    if output == "json":
        print_json(nodes)
        return
    rows = [(name, each["kind"], each.get("site"), each.get("operator"), each.get("admin", "enabled")) for name, each in nodes.items()]
    print_table(["NODE", "KIND", "SITE", "OPERATOR", "ADMIN"], rows)


@node.command()
@OUTPUT
@SERVER
def hosts(server: str, output: str) -> None:
    """List the hosts that were seen at ports of the OpenFlow switches.

    \b
    Example:
      bellhop node hosts
    """
    seen = ask(server, "GET", "/api/v1/discovery")["hosts"]
    if output == "json":
        print_json(seen)
        return
    rows = [(each["mac"], each["host"], f"{each['switch']}:{each['port']}", ", ".join(each["ips"]), each["silent_s"]) for each in seen]
    print_table(["MAC", "HOST", "AT", "ADDRESSES", "SILENT (s)"], rows)


def administer(server: str, subject: str, name: str, admin: str) -> None:
    """Set a node's or link's admin state and say what became of its services."""
    answer = ask(server, "PATCH", f"/api/v1/{subject}s/{quoted(name)}", {"admin": admin})
    click.echo(f"{subject} {name}: {admin}")
    for service in answer["moved"]:
        click.echo(f"  moved: {service}")
    for service, why in answer["cannot_move"].items():
        click.echo(f"  cannot move: {service}: {why}")
    if admin == "draining" and answer["cannot_move"]:
        fail(f"still on {name}: {', '.join(answer['cannot_move'])}")


@node.command()
@click.argument("name")
@SERVER
def drain(server: str, name: str) -> None:
    """Move services off a node and use it for no new ones; says which cannot move (exit code 1).

    \b
    Example:
      bellhop node drain relay1
    """
    administer(server, "node", name, "draining")


@node.command()
@click.argument("name")
@SERVER
def disable(server: str, name: str) -> None:
    """Take a node out of use at once: services that cannot move off it are cut off, and named.

    \b
    Example:
      bellhop node disable relay1
    """
    administer(server, "node", name, "disabled")


@node.command()
@click.argument("name")
@SERVER
def enable(server: str, name: str) -> None:
    """Use a node again.

    \b
    Example:
      bellhop node enable relay1
    """
    administer(server, "node", name, "enabled")


@node.command()
@click.argument("src")
@click.argument("dst")
@click.option("-c", "--count", type=click.IntRange(1, 1000), default=3, show_default=True)
@click.option("-6", "--ipv6", is_flag=True, help="Over IPv6.")
@EMULATOR
def ping(emulator: str, src: str, dst: str, count: int, ipv6: bool) -> None:
    """Ping from one emulated host to another; exit code 1 when nothing comes back.

    \b
    Example:
      bellhop node ping h1 h4
    """
    answer = ask(emulator, "POST", "/ping", {"from": src, "to": dst, "count": count, "ipv6": ipv6})
    for number, rtt_ms in enumerate(answer["rtts_ms"], 1):
        click.echo(f"{dst}: answer {number}: {rtt_ms:.2f} ms")
    click.echo(f"{answer['sent']} sent, {answer['received']} received")
    if not answer["received"]:
        fail(f"{dst} does not answer {src}; ask for it with: bellhop service create connectivity {src} {dst}")
