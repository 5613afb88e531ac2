"""--help: at once, with an example, for every command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from controller.cli import COMMANDS, bellhop

HEAVY = ("aiohttp", "asyncssh", "lxml", "networkx", "numpy", "os_ken", "prometheus_client", "pydantic", "scipy", "yaml")


def commands() -> Iterator[tuple[str, ...]]:
    context = click.Context(bellhop)
    for noun in COMMANDS:
        command = bellhop.get_command(context, noun)
        yield (noun,)
        if isinstance(command, click.Group):
            yield from ((noun, verb) for verb in command.commands)


def test_help_names_every_command() -> None:
    shown = CliRunner().invoke(bellhop, ["--help"])
    assert shown.exit_code == 0
    for noun in COMMANDS:
        assert f"\n  {noun} " in shown.output
    assert "Examples:" in shown.output and "Exit codes:" in shown.output


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_every_command_has_help_with_an_example_of_itself(command: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(bellhop, [*command, "--help"])
    assert shown.exit_code == 0
    _, found, examples = shown.output.partition("Example")
    assert found and f"\n    bellhop {' '.join(command)}" in examples.replace("sudo ", "")


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([noun, "--help"] for noun in COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = f"""
import sys
from controller.cli import bellhop
try:
    bellhop.main({words!r}, prog_name="bellhop")
finally:
    print("heavy:", *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "heavy:"


def test_an_unknown_command_is_wrong_usage() -> None:
    wrong = CliRunner().invoke(bellhop, ["rout"])
    assert wrong.exit_code == 2 and "No such command 'rout'" in wrong.output
