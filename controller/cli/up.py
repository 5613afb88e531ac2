"""`bellhop up`: a whole network with one command, and nothing left when it ends."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from controller.cli.client import peek
from controller.cli.document import BELLHOP, Finite, fail, load, reason
from controller.cli.emulate import MININET, TIMES

if TYPE_CHECKING:
    from topologies.emulation.workspace import Workspace

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
PR_SET_PDEATHSIG = 1


@click.command()
@click.argument("topology")
@click.option("--for", "for_s", type=Finite(0, min_open=True), metavar="SECONDS", help="End by itself after so long.")
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), help="Where certificates, keys, stores and logs go.")
@click.option("--keep", is_flag=True, help="Go on with the services and keys of the last run in this directory.")
@click.option("--any-ports", is_flag=True, help="Use free ports instead of the usual ones.")
@TIMES
@MININET
def up(topology: str, for_s: float | None, directory: Path | None, keep: bool, any_ports: bool, device_times: str, mininet: bool) -> None:
    """Bring up TOPOLOGY: the controller, emulated devices and KMEs, on loopback. Ctrl-C ends all of it.

    TOPOLOGY is a YAML file, a Python file as for `mn --custom` (FILE.py, or FILE.py:NAME where it has several topologies), or the name of a
    network that comes with Bellhop (sandbox, secoqc). With --mininet, hosts are Mininet's, switches Open vSwitch, and each optical switch
    and KME has a network namespace and an address in 10.0.0.0/8.

    \b
    Examples:
      bellhop up sandbox
      bellhop up topologies/secoqc.yaml --for 60
      bellhop up topologies/metro.py
      sudo bellhop up sandbox --mininet
    """
    from topologies.emulation.management import claim
    from topologies.emulation.workspace import lay_out

    network = load(topology)
    try:
        management, claimed = claim() if mininet else (None, None)
    except OSError as error:
        fail(str(error))
    state_home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    directory = (directory or state_home / "bellhop" / network.name).resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not keep:
            for left in (*directory.glob("controller.db*"), *directory.glob("kme-*.db*")):
                left.unlink()
        workspace = lay_out(network, directory, any_ports=any_ports, management=management)
    except BlockingIOError:
        fail(f"another `bellhop up` is running in {directory}; stop it, or give this one a --directory (and --any-ports)")
    except OSError as error:
        fail(f"cannot write in {directory} ({reason(error)}); choose another --directory")
    _refuse_taken_ports(workspace, devices=management is None)
    programs = Programs(directory)
    click.echo(f"starting {network.name}: KMEs, emulated devices, controller; files and logs in {directory}")
    with lock, claimed or nullcontext(), programs.running(), _stop_signals():
        try:
            _start(programs, workspace, device_times, management)
            _introduce(workspace, management)
            _watch(programs, workspace, for_s)
        except KeyboardInterrupt:
            pass
    click.echo("stopped: nothing is left running")


@dataclass(slots=True)
class Programs:
    """The child processes, by name, each with a log file of its own; they die with this process, however it ends."""

    directory: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *arguments: str) -> None:
        with (self.directory / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [*BELLHOP, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def ended(self) -> str | None:
        """What to say of a program that has ended by itself; None while all run."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                log = self.directory / f"{name}.log"
                last = "\n  ".join(log.read_text(errors="replace").splitlines()[-8:])
                return f"{name} ended with exit code {process.returncode}; {log} ends with:\n  {last}"
        return None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Stop every program on leaving, the last started first."""
        try:
            yield
        finally:
            for name, process in reversed(self.processes.items()):
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    click.echo(f"{name} does not stop; it is killed", err=True)
                    process.kill()
                    process.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _stop_signals() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse_taken_ports(workspace: Workspace, *, devices: bool) -> None:
    wanted = {"the controller's API": workspace.api, "OpenFlow": f"//127.0.0.1:{workspace.openflow[1]}", "the emulator": workspace.emulator}
    for name, node in workspace.topology.nodes() if devices else ():
        for what, address in (("the KME of", node.kme), ("the optical switch", node.address)):
            if address is not None:
                wanted[f"{what} {name}"] = f"//{address}"
    taken = []
    for what, url in wanted.items():
        parts = urlsplit(url)
        try:
            socket.create_server((parts.hostname or "127.0.0.1", parts.port or 0)).close()
        except OSError as error:
            taken.append(f"port {parts.port} for {what}: {os.strerror(error.errno or 0)}")
    if taken:
        fail("\n".join(taken) + "\nstop what holds them (`ss -ltnp` names it), or use free ports: bellhop up ... --any-ports")


def _start(programs: Programs, workspace: Workspace, device_times: str, management: IPv4Network | None) -> None:
    options = ["--device-times", device_times, "--api-port", str(urlsplit(workspace.api).port)]
    options += ["--openflow-port", str(workspace.openflow[1]), "--emulator-port", str(urlsplit(workspace.emulator).port)]
    if management is None:
        programs.start("kme", "kme", "--config", str(workspace.kmes))
    else:
        options += ["--mininet", "--management", str(management)]
    programs.start("emulator", "emulate", str(workspace.network), "--directory", str(workspace.directory), *options)
    controller = ("run", "--config", str(workspace.settings), "--verbose")
    if management is None:
        programs.start("controller", *controller)
    deadline = time.monotonic() + START_TIMEOUT_S
    state = _answer(programs, workspace, "emulated devices", f"{workspace.emulator}/state", deadline)
    for warning in state["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    if management is not None:  # only now is there a way to the devices
        programs.start("controller", *controller)
    _answer(programs, workspace, "controller", f"{workspace.api}/readyz", deadline)


def _answer(programs: Programs, workspace: Workspace, what: str, url: str, deadline: float) -> dict[str, Any]:
    """What a program that comes up answers, once it is ready."""
    server, _, path = url.rpartition("/")
    while (answer := peek(server, f"/{path}")) is None or answer.get("ready") is False:
        ended = programs.ended()
        if ended is not None:
            fail(ended)
        if time.monotonic() > deadline:
            waiting = (answer or {}).get("waiting_for")
            fail(
                f"the {what} did not come up in {START_TIMEOUT_S:g} s"
                + (f", waiting for {waiting}" if waiting else "")
                + f"; see {workspace.directory}"
            )
        time.sleep(0.1)
    return answer


def _introduce(workspace: Workspace, management: IPv4Network | None) -> None:
    """Say what was started and where."""
    click.echo(f"{workspace.topology.name} is up")
    click.echo(f"  API        {workspace.api}/api/v1/topology   metrics {workspace.api}/metrics")
    click.echo(f"  OpenFlow   {workspace.openflow[0]}:{workspace.openflow[1]}   emulator {workspace.emulator}")
    for name, node in workspace.topology.nodes():
        if node.kme is not None:
            click.echo(f"  KME        https://{node.kme}   {name}, for {', '.join(workspace.topology.saes(name))}")
        if node.address is not None:
            click.echo(f"  NETCONF    {node.address}   {name}")
    if management is not None:
        switches = workspace.directory / "mininet" / "openvswitch"
        click.echo("  inside     nsenter -n -t $(pgrep -nf 'is mininet:ocs1$') ss -ltn   as root, with the name of a host or device")
        click.echo(f"  switches   OVS_RUNDIR={switches} ovs-ofctl -O OpenFlow13 dump-flows s1   as root, with the name of a switch")
    click.echo(f"  files      {workspace.directory} (certificates in pki/, logs beside them)")
    if workspace.api != "http://127.0.0.1:8480":
        click.echo(f"  for the command line: export BELLHOP_SERVER={workspace.api} BELLHOP_EMULATOR={workspace.emulator}")


def _watch(programs: Programs, workspace: Workspace, for_s: float | None) -> None:
    """Keep a line of state, rewritten on a terminal and printed when it changes elsewhere, until the time is over or something ends."""
    begun = time.monotonic()
    shown = ""
    try:
        while for_s is None or time.monotonic() - begun < for_s:
            ended = programs.ended()
            if ended is not None:
                fail(ended)
            state = _state(workspace)
            if sys.stdout.isatty():
                click.echo(f"\r\x1b[K{time.monotonic() - begun:5.0f} s  {state}", nl=False)
            elif state != shown:
                click.echo(state)
            shown = state
            time.sleep(min(1.0, max(0.0, for_s - (time.monotonic() - begun))) if for_s is not None else 1.0)
    finally:
        if sys.stdout.isatty():
            click.echo()


def _state(workspace: Workspace) -> str:
    devices, services = peek(workspace.api, "/api/v1/devices"), peek(workspace.api, "/api/v1/services")
    if devices is None or services is None:
        return "the controller does not answer"
    connected = sum(each["connected"] for each in devices["devices"])
    counts: dict[str, int] = {}
    for each in services["services"]:
        counts[each["state"]] = counts.get(each["state"], 0) + 1
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or f"none yet{_hint(workspace)}"
    return f"devices {connected}/{len(devices['devices'])}  services: {told}"


def _hint(workspace: Workspace) -> str:
    """A first service to ask this network for."""
    ends = [name for name, node in workspace.topology.nodes("end-node", "trusted-node") if node.kme is not None][:2]
    return f" (try: bellhop service create key {ends[0]} {ends[1]})" if len(ends) == 2 else ""
