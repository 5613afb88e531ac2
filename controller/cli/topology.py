"""`bellhop check` and `bellhop topology`: network documents and the live network."""

from __future__ import annotations

from dataclasses import asdict

import click

from controller.cli.document import OUTPUT, load, print_json, print_table


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


@click.group()
def topology() -> None:
    """Show a network document with every figure and its origin. `bellhop node list` and `link list` show the live network.

    \b
    Example:
      bellhop topology show sandbox
    """


@topology.command()
@click.argument("file")
@OUTPUT
def show(file: str, output: str) -> None:
    """Show the nodes and links of FILE, every figure with its origin.

    \b
    Examples:
      bellhop topology show secoqc
      bellhop topology show my-network.yaml -o json
    """
    from controller.network.model import given
    from controller.network.topology import FIGURES

    found = load(file)
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
