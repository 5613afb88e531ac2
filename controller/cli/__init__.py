"""The `bellhop` command. Each noun lives in a module of its own, imported only when it is used, so that --help answers at once."""

from __future__ import annotations

import importlib
import os

import click

COMMANDS = {
    "up": ("controller.cli.up:up", "Bring up a network: controller, emulated devices and KMEs."),
    "run": ("controller.cli.run:run", "Run the controller daemon for a network."),
    "emulate": ("controller.cli.emulate:emulate", "Run the emulated devices of a network."),
    "kme": ("controller.cli.kme:kme", "Run key management entities."),
    "check": ("controller.cli.topology:check", "Check a network document; every fault at once."),
    "route": ("controller.cli.route:route", "Compute a route on paper: entanglement, key, light, classical."),
    "topology": ("controller.cli.topology:topology", "Show the nodes and links of a network document."),
    "service": ("controller.cli.service:service", "Ask for services, list them, remove them."),
    "device": ("controller.cli.device:device", "What devices hold, should hold, and the difference."),
    "node": ("controller.cli.node:node", "Nodes of the live network: list, drain, enable; ping between emulated hosts."),
    "link": ("controller.cli.link:link", "Links of the live network: list, drain, enable; cut an emulated fibre."),
    "fault": ("controller.cli.fault:fault", "Bend, tap or misalign an emulated fibre; list and undo faults."),
    "event": ("controller.cli.event:event", "Follow what happens in the live network."),
    "doctor": ("controller.cli.doctor:doctor", "Say what this machine has and lacks for each way to run Bellhop."),
}


class Nouns(click.Group):
    """A group that knows its commands' names and one-line help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Nouns, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bellhop-sdn", message="bellhop %(version)s")
def bellhop() -> None:
    """Control a hybrid quantum-classical network.

    \b
    Examples:
      bellhop up sandbox                                   bring up an emulated network
      bellhop service create key alice bob                 ask it for keys
      bellhop route key topologies/secoqc.yaml STP FOR     compute a route on paper
      bellhop check my-network.yaml                        find every fault of a document

    Exit codes: 0 done, 1 failed, 2 wrong usage or document, 3 no route.
    """


def main() -> None:
    """Entry point of the console script."""
    # routes solve many small systems of equations, for which threads cost three times what they give; read when numpy is loaded
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    bellhop.main(prog_name="bellhop")
