"""`bellhop check` and `bellhop topology`: network documents and the live network."""

from __future__ import annotations

from dataclasses import asdict

import click

from controller.cli.document import load, print_json, print_table


@click.command()
@click.argument("file")
def check(file: str) -> None:
    """Check the network document FILE and print every fault as `file:line: path: what, remedy`.

    \b
    Example:
      bellhop check topologies/sandbox.yaml
    """
    found = load(file, faults_to_stderr=False)  # they are what was asked for
    kinds: dict[str, int] = {}
    for _, node in found.nodes():
        kinds[node.kind] = kinds.get(node.kind, 0) + 1
    for link in found.links():
        kinds[f"{link.kind} link"] = kinds.get(f"{link.kind} link", 0) + 1
    click.echo(f"{file}: right: {found.name}: " + ", ".join(f"{count} x {kind}" for kind, count in kinds.items()))
    for name, node in found.nodes("host"):
        if lacking := [field for field in ("ip", "mac") if getattr(node, field) is None]:
            click.echo(f"warning: host {name} has no {' and no '.join(lacking)}, which a connectivity service for it needs")


@click.group()
def topology() -> None:
    """Show a network document with every figure and its origin. `bellhop node list` and `link list` show the live network.

    \b
    Example:
      bellhop topology show sandbox
    """


@topology.command()
@click.argument("file")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True, help="How to print it.")
def show(file: str, output: str) -> None:
    """Show the nodes and links of FILE, every figure with its origin; as YAML, the document it is.

    \b
    Examples:
      bellhop topology show secoqc
      bellhop topology show my-network.yaml -o json
      bellhop topology show topologies/metro.py -o yaml > metro.yaml
    """
    from controller.network.document import dump
    from controller.network.model import given
    from controller.network.topology import FIGURES

    found = load(file)
    if output == "yaml":
        click.echo(dump(found), nl=False)
        return
    if output == "json":
        nodes = {name: given(node) for name, node in found.nodes()}
        links = [
            given(link) | {"figures": {name: asdict(figure) for name, figure in found.figures(link).items()}} for link in found.links()
        ]
        print_json({"name": found.name, "description": found.description, "nodes": nodes, "links": links})
        return
    click.echo(found.name + (f": {found.description}" if found.description else "") + "\n")
    print_table(["NODE", "KIND", "SITE", "OPERATOR"], [(name, node.kind, node.site, node.operator) for name, node in found.nodes()])
    click.echo()
    rows = []
    for link in found.links():
        told = [f"{figure.value:,.5g} {FIGURES[name]} ({figure.origin})" for name, figure in found.figures(link).items()]
        rows.append((link.id, " - ".join(link.ends), ", ".join(told)))
    print_table(["LINK", "ENDS", "FIGURES"], rows)
