"""What the README shows must be so."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller.cli import bellhop
from controller.network import document
from controller.routing.key_relay import key
from topologies.emulation.faults import Bend, Cut, Eavesdropper, Fault, Faults

README = (Path(document.__file__).parents[2] / "README.md").read_text()


def test_its_network_is_right() -> None:
    text = textwrap.dedent(README[README.index("    name: my-network\n") : README.index("A `trusted-node` or `end-node` holds keys")])
    network = document.parse(text)
    assert len(key(network, "alice", "bob", shares=2).paths) == 2
    assert key(network, "alice", "bob", max_trusted_nodes=0, segments=["relay"]).paths[0].links == ("qkd:alice--bob",)


def test_its_commands_on_paper_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text, name in re.findall(r"^ {4}(\S+: \[.*\]) +# (\S+\.yaml)$", README, flags=re.MULTILINE):
        Path(name).write_text(text)
    block = README[README.index("    bellhop check my-network.yaml") : README.index("`--at 2026")]
    commands = [re.split(r"\s{2,}", line.strip())[0].split()[1:] for line in block.strip().splitlines()]
    assert len(commands) == 12
    for words in commands[1:]:
        done = CliRunner().invoke(bellhop, words)
        assert done.exit_code == 0, (words, done.output)


def test_the_faults_of_its_walk_are_those_that_it_clears() -> None:
    faults = Faults()
    walk = README[README.index("**Cut a fibre") : README.index("Nobody can see that a dark fibre")]
    made: dict[str, Callable[[str], Fault]] = {
        "cut": lambda link: Cut(link=link),
        "eavesdrop": lambda link: Eavesdropper(link=link, fraction=0.4),
        "bend": lambda link: Bend(link=link, loss_db=3),
    }
    for verb, name in re.findall(r"bellhop (?:link|fault) (cut|restore|eavesdrop|bend|clear) (\S+)", walk):
        if verb in made:
            faults.add(made[verb](name), 0.0)
            continue
        cleared = faults.cut_of(name) if verb == "restore" else faults.held.get(name)
        assert cleared is not None, f"{verb} {name}"
        del faults.held[cleared.id]
    assert not faults.held


def test_every_command_it_names_exists() -> None:
    for words in re.findall(r"^ {4}(?:\$ |sudo )?bellhop ([a-z]+)(?: ([a-z]+))?", README, flags=re.MULTILINE):
        command = bellhop.get_command(None, words[0])  # type: ignore[arg-type]
        assert command is not None, words
        if hasattr(command, "commands"):
            assert words[1] in command.commands, words
