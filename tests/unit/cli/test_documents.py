"""Documents named on the command line, settings files of the programs, and what is said when they are wrong."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from controller.cli import bellhop

TEN_FAULTS = Path(__file__).parents[2] / "data" / "ten_faults.yaml"


def run(*words: str) -> Result:
    return CliRunner().invoke(bellhop, list(words))


@pytest.mark.parametrize("name", ["sandbox", "secoqc"])
def test_the_shipped_networks_are_right(name: str) -> None:
    done = run("check", name)
    assert done.exit_code == 0 and done.stdout.startswith(f"{name}: right: ")


@pytest.mark.parametrize("words", [("check",), ("topology", "show"), ("route", "key")])
def test_every_fault_is_a_line(words: tuple[str, ...]) -> None:
    ends = ("alice", "bob") if words[0] == "route" else ()
    done = run(*words, str(TEN_FAULTS), *ends)
    told, silent = (done.stdout, done.stderr) if words == ("check",) else (done.stderr, done.stdout)
    assert done.exit_code == 2 and silent == ""
    lines = told.splitlines()
    assert len(lines) == 10
    for line in lines:
        assert re.fullmatch(rf"{re.escape(str(TEN_FAULTS))}:\d+: [a-z0-9_\[\].]+: .+, .+", line), line


def test_what_is_no_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    (tmp_path / "open.yaml").write_text("name: [a")
    for name in ("empty.yaml", "binary.yaml", "list.yaml", "open.yaml"):
        done = run("check", name)
        assert done.exit_code == 2 and re.match(rf"{name}:\d+: ", done.stdout), done.stdout
    missing = run("check", "nowhere.yaml")
    assert missing.exit_code == 2 and "no document 'nowhere.yaml'" in missing.stderr and "sandbox, secoqc" in missing.stderr
    folder = run("check", ".")
    assert folder.exit_code == 2 and "Is a directory" in folder.stderr and "YAML file" in folder.stderr


def test_a_folder_does_not_hide_a_shipped_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sandbox").mkdir()
    assert run("check", "sandbox").exit_code == 0


def test_a_file_comes_before_a_shipped_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sandbox").write_text("name: mine\nnodes: {a: {kind: host}}\nlinks: []\n")
    told = run("check", "sandbox").stdout.splitlines()
    assert told == [
        "sandbox: right: mine: 1 x host",
        "warning: host a has no ip and no mac, which a connectivity service for it needs",
    ]
    assert "warning" not in run("check", "secoqc").stdout


def test_a_topology_with_the_origin_of_every_figure() -> None:
    answer = json.loads(run("topology", "show", "secoqc", "-o", "json").stdout)
    assert answer.keys() == {"name", "description", "nodes", "links"}
    figures = [figure for link in answer["links"] for figure in link["figures"].values()]
    assert figures and {figure["origin"] for figure in figures} <= {"declared", "assumed", "computed", "measured"}
    assert all(figure["source"] for figure in figures if figure["origin"] == "declared")
    shown = run("topology", "show", "sandbox").stdout
    assert "fibre:alice--relay1" in shown and "6 km (assumed), 1.2 dB (computed)" in shown


def test_a_pipe_that_closes_is_no_error_to_read() -> None:
    program = [sys.executable, "-c", "from controller.cli import main; main()", "topology", "show", "sandbox"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


SETTINGS = "network: {network}\nstore: {store}\napi: {{port: {port}}}\nopenflow: {{port: 0}}\n"


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"network": "nowhere.yaml"}, 1, "nowhere.yaml: No such file or directory"),
        ({"network": str(TEN_FAULTS)}, 2, "ten_faults.yaml:2: name: "),
        ({"store": "controller.yaml"}, 1, "cannot be used as a store"),
        ({"port": "many"}, 2, "api.port: "),
    ],
)
def test_a_controller_that_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text("name: small\nnodes: {a: {kind: host}}\nlinks: []\n")
    values = {"network": "net.yaml", "store": "bellhop.db", "port": "0"} | change
    (tmp_path / "controller.yaml").write_text(SETTINGS.format(**values))
    done = run("run", "--config", "controller.yaml")
    assert done.exit_code == code and said in done.stderr, (done.stderr, done.exception)


def test_a_taken_port_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text("name: small\nnodes: {a: {kind: host}}\nlinks: []\n")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        (tmp_path / "controller.yaml").write_text(SETTINGS.format(network=tmp_path / "net.yaml", store=tmp_path / "bellhop.db", port=port))
        done = run("run", "--config", str(tmp_path / "controller.yaml"))
    assert done.exit_code == 1
    assert f"port {port} on 127.0.0.1 is taken" in done.stderr and "ss -ltnp" in done.stderr


def test_wrong_settings_of_kmes(tmp_path: Path) -> None:
    file = tmp_path / "kmes.yaml"
    file.write_text("- {id: alice, prot: 1}\n")
    done = run("kme", "--config", str(file))
    assert done.exit_code == 2 and f"{file}: 0.prot: " in done.stderr and f"{file}: 0.kek: " in done.stderr
    pem = {name: str(tmp_path / "none.pem") for name in ("ca", "cert", "key")}
    file.write_text(json.dumps([{"id": "alice", **pem, "store": str(tmp_path / "a.db"), "kek": str(tmp_path / "a.kek")}]))
    done = run("kme", "--config", str(file))
    assert done.exit_code == 1 and "No such file" in done.stderr and "port" not in done.stderr
