"""`bellhop up` in a process of its own: it comes up soon, and nothing of it stays, however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.network import document
from topologies.emulation.workspace import lay_out

BELLHOP = [sys.executable, "-c", "from controller.cli import main; main()"]


def get(url: str) -> Any:
    """The JSON answer; None when there is no 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return json.load(response)
    except OSError:
        return None


def soon(what: Callable[[], Any], within_s: float) -> Any:
    """The first true answer of `what`."""
    deadline = time.monotonic() + within_s
    while not (answer := what()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        time.sleep(0.05)
    return answer


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | descendants(child)
    return found


def living(pids: set[int]) -> set[int]:
    return {pid for pid in pids if (stat := Path(f"/proc/{pid}/stat")).exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"}


def listening(ports: set[int]) -> set[int]:
    """Those of the ports that somebody listens on."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                found.add(int(local.rpartition(":")[2], 16))
    return found & ports


class Up:
    """A running `bellhop up` whose /readyz has said 200."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self.process = process
        self.directory = directory
        begun = time.monotonic()
        addresses = directory / "addresses.json"
        soon(addresses.exists, 10)
        self.addresses = soon(lambda: addresses.read_text() and json.loads(addresses.read_text()), 5)
        soon(lambda: get(f"{self.addresses['api']}/readyz"), 10)
        self.ready_s = time.monotonic() - begun
        self.children = descendants(process.pid)
        text = (directory / "network.yaml").read_text() + addresses.read_text()
        self.ports = {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", text)} | {self.addresses["openflow"][1]}

    def nothing_is_left(self, within_s: float) -> None:
        soon(lambda: not living(self.children), within_s)
        assert not listening(self.ports)


@contextmanager
def up(directory: Path, *options: str) -> Iterator[Up]:
    command = [*BELLHOP, "up", "sandbox", "--any-ports", "--directory", str(directory), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Up(process, directory)
        finally:
            if process.poll() is None:
                process.terminate()


def test_up_for_a_while_leaves_nothing(tmp_path: Path) -> None:
    with up(tmp_path / "run", "--for", "3") as running:
        assert running.ready_s < 10
        assert len(running.children) >= 3
        assert len(running.ports) == 3 + 5 + 2 and listening(running.ports) == running.ports
        said, complained = running.process.communicate(timeout=30)
    assert running.process.returncode == 0 and complained == ""
    named = {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", said)}
    assert named == running.ports
    assert said.startswith("starting sandbox") and "sandbox is up" in said and "devices 10/10" in said
    assert said.endswith("stopped: nothing is left running\n")
    running.nothing_is_left(0.5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda each: each.name)
def test_up_that_is_stopped_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path) as running:
        running.process.send_signal(number)
        said, complained = running.process.communicate(timeout=30)
    assert "Traceback" not in said + complained
    assert running.process.returncode == (-number if number == signal.SIGKILL else 0)
    running.nothing_is_left(10 if number == signal.SIGKILL else 0.5)


def test_a_second_up_is_refused_and_a_program_that_dies_takes_the_first_down(tmp_path: Path) -> None:
    mine = tmp_path / "mine.db"
    mine.write_text("not up's to delete")
    with up(tmp_path) as running:
        store = (tmp_path / "controller.db").stat().st_ino
        again = [*BELLHOP, "up", "sandbox", "--any-ports", "--directory", str(tmp_path)]
        done = subprocess.run(again, capture_output=True, text=True, timeout=30)
        assert done.returncode == 1 and "another `bellhop up` is running" in done.stderr
        assert (tmp_path / "controller.db").stat().st_ino == store and mine.exists()
        assert get(f"{running.addresses['api']}/api/v1/routes/classical?src=h1&dst=h4")  # the planner's worker runs from now on
        running.children = descendants(running.process.pid)
        (controller,) = [pid for pid in running.children if b"\0run\0--config\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(controller, signal.SIGKILL)
        _, complained = running.process.communicate(timeout=30)
    assert running.process.returncode == 1
    assert "controller ended with exit code -9" in complained and "controller.log" in complained
    running.nothing_is_left(10)


def test_taken_ports_are_named_and_nothing_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        taken = [holder.getsockname()[1] for holder in (one, two)]
        file = tmp_path / "net.yaml"
        file.write_text(
            f"name: small\nnodes:\n  a: {{kind: trusted-node, kme: '127.0.0.1:{taken[0]}'}}\n"
            f"  o: {{kind: optical-switch, ports: 4, address: '127.0.0.1:{taken[1]}'}}\nlinks: []\n"
        )
        done = subprocess.run([*BELLHOP, "up", str(file), "--directory", str(tmp_path / "run")], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert f"port {taken[0]} for the KME of a: Address already in use" in done.stderr
    assert f"port {taken[1]} for the optical switch o: Address already in use" in done.stderr
    assert "--any-ports" in done.stderr and "ss -ltnp" in done.stderr
    assert not list((tmp_path / "run").glob("*.log"))


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [*BELLHOP, "up", "sandbox", "--directory", str(tmp_path / "file" / "run")], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1 and "choose another --directory" in done.stderr and "Traceback" not in done.stderr


def test_an_observer_writes_nothing(tmp_path: Path) -> None:
    """A service is in the store, the devices are empty: the observer shows what is missing and leaves it."""
    with up(tmp_path) as running:
        api, emulator = running.addresses["api"], running.addresses["emulator"]
        subprocess.run([*BELLHOP, "service", "create", "connectivity", "h1", "h4", "--wait", "10", "--server", api], check=True)
        subprocess.run([*BELLHOP, "service", "create", "lightpath", "alice/q9", "bob/q9", "--server", api], check=True)
        soon(lambda: all(get(f"{emulator}/state")["cross_connects"].values()), 10)
    running.nothing_is_left(10)

    emptied = lay_out_again(tmp_path)
    programs: list[subprocess.Popen[bytes]] = []
    try:
        programs.append(subprocess.Popen([*BELLHOP, "emulate", str(emptied.network), "--directory", str(tmp_path), *ports(emptied)]))
        state = soon(lambda: get(f"{emptied.emulator}/state"), 10)
        assert not any(state["flows"].values()) and not any(state["cross_connects"].values())
        programs.append(subprocess.Popen([*BELLHOP, "run", "--config", str(emptied.settings), "--observe"]))
        missing = {"s1": 4, "s2": 2, "s3": 4, "ocs1": 1, "ocs2": 1}

        def seen() -> bool:
            listed = get(f"{emptied.api}/api/v1/devices") or {"devices": []}
            return missing.items() <= {each["name"]: each["to_add"] for each in listed["devices"]}.items()

        soon(seen, 30)  # it starts while the machine is busy with other tests
        time.sleep(2.5)  # as long as a controller that writes would need many times over
        state = get(f"{emptied.emulator}/state")
        assert not any(state["flows"].values()) and not any(state["cross_connects"].values())
        assert seen()
    finally:
        for program in programs:
            program.terminate()
        codes = [program.wait(20) for program in programs]
    assert codes == [0, 0]


def lay_out_again(directory: Path) -> Any:
    """The same addresses, which the document of the last run holds, for programs that are started one by one."""
    last = json.loads((directory / "addresses.json").read_text())
    port = {name: int(last[name].rpartition(":")[2]) for name in ("api", "emulator")}
    network = document.load(directory / "network.yaml")
    return lay_out(network, directory, api_port=port["api"], emulator_port=port["emulator"], openflow_port=last["openflow"][1])


def ports(workspace: Any) -> list[str]:
    pairs = {"--api-port": workspace.api.rpartition(":")[2], "--emulator-port": workspace.emulator.rpartition(":")[2]}
    pairs["--openflow-port"] = workspace.openflow[1]
    return [str(each) for pair in pairs.items() for each in pair]
