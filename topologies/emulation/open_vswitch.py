"""An Open vSwitch of a run's own: a database and a switch daemon in user space, with everything they keep in one directory."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

TIMEOUT_S = 15
_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")


class MininetError(RuntimeError):
    """Mininet or Open vSwitch cannot be had, or failed. The text says what, and what to do."""


def start(directory: Path, stack: ExitStack) -> None:
    """Start a database and a switch daemon with everything in `directory`; they end with `stack`."""
    directory.mkdir(parents=True, exist_ok=True)
    database, server = directory / "conf.db", directory / "db.sock"
    database.unlink(missing_ok=True)
    run("ovsdb-tool", "create", str(database), str(_SCHEMA))
    # --disable-system: a daemon that finds bridges in the kernel which are not in its database removes them.
    for command in (
        ["ovsdb-server", str(database), f"--remote=punix:{server}"],
        ["ovs-vswitchd", f"unix:{server}", "--disable-system"],
    ):
        with (directory / f"{command[0]}.log").open("wb") as log:
            # In a session of its own, Ctrl-C at the terminal does not end it before Mininet has taken the network down.
            daemon = subprocess.Popen([*command, "--pidfile"], stdout=log, stderr=log, start_new_session=True)
        stack.callback(_end, daemon)
    try:
        run("ovs-vsctl", "--retry", "init")
    except MininetError as error:
        raise MininetError(f"Open vSwitch does not start: the logs in {directory} say why ({error})") from error


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def run(*command: str, pass_fds: Sequence[int] = ()) -> str:
    """What a command prints. MininetError when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * TIMEOUT_S, pass_fds=pass_fds)
    if done.returncode:
        raise MininetError(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
