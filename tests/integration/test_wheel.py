"""The wheel in an empty environment: what a user who installs Bellhop gets."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def output(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    output(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("bellhop_sdn-*-py3-none-any.whl")
    return built


@pytest.fixture(scope="module")
def bellhop(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command."""
    folder = tmp_path_factory.mktemp("venv")
    output(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    pip = (sys.executable, "-m", "pip", "--python", folder, "--disable-pip-version-check")
    output(
        *pip, "install", "--quiet", "--no-compile", wheel, cwd=folder
    )  # to compile all of scipy for two commands would take half a minute
    return folder / "bin" / "bellhop"


def test_what_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"controller", "apps", "topologies", "bellhop_sdn"}
    assert names >= {"topologies/sandbox.yaml", "topologies/secoqc.yaml", "controller/cli/__init__.py"}
    for package in ("controller", "apps", "topologies"):
        assert f"{package}/py.typed" in names
    in_tree = {str(file.relative_to(ROOT)) for each in ("controller", "apps", "topologies") for file in (ROOT / each).rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == in_tree
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_it_answers_from_another_folder_as_the_tree_does(bellhop: Path, tmp_path: Path) -> None:
    route = ("route", "key", "secoqc", "STP", "FOR", "-o", "json")
    tree = [sys.executable, "-c", "from controller.cli import main; main()"]
    assert json.loads(output(bellhop, *route, cwd=tmp_path)) == json.loads(output(*tree, *route, cwd=ROOT))
    assert output(bellhop, "check", "sandbox", cwd=tmp_path).startswith("sandbox: right: ")
    (tmp_path / "mine.yaml").write_text((ROOT / "topologies" / "sandbox.yaml").read_text())
    assert output(bellhop, "check", "mine.yaml", cwd=tmp_path).startswith("mine.yaml: right: ")
    assert output(bellhop, "--version", cwd=tmp_path).startswith("bellhop ")


def test_its_apps_are_found(bellhop: Path, tmp_path: Path) -> None:
    code = "from controller.services.planner import apps; import controller; print(*sorted(apps()), controller.__file__)"
    *kinds, place = output(bellhop.parent / "python", "-c", code, cwd=tmp_path).split()
    assert kinds == ["connectivity", "key", "lightpath"]
    assert Path(place).is_relative_to(bellhop.parent.parent)  # and not the tree
