"""`bellhop doctor`: what this machine has for each way to run Bellhop, and how to get what it lacks."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Iterator

import click

from controller.cli.document import OUTPUT, print_json, print_table

SANDBOX_PORTS = (8301, 8302, 8411, 8412, 8413, 8414, 8415)
"""Where the devices of the sandbox listen, besides."""

Finding = tuple[str, bool, str, str]
"""What was looked at, whether it is right, what was found, what to do when it is not."""


@click.command()
@OUTPUT
def doctor(output: str) -> None:
    """Say what this machine has and lacks; exit code 1 when `bellhop up` cannot run.

    \b
    Example:
      bellhop doctor
    """
    needed, optional = list(_needed()), list(_optional())
    if output == "json":
        fields = ("what", "right", "found", "remedy")
        print_json(
            {
                "needed": [dict(zip(fields, each, strict=True)) for each in needed],
                "optional": [dict(zip(fields, each, strict=True)) for each in optional],
            }
        )
    else:
        rows = [(what, "ok" if right else "LACKING", found, "" if right else remedy) for what, right, found, remedy in needed]
        rows += [(what, "ok" if right else "-", found, "" if right else remedy) for what, right, found, remedy in optional]
        print_table(["WHAT", "", "FOUND", "WHAT TO DO"], rows)
    if not all(right for _, right, _, _ in needed):
        sys.exit(1)


def _needed() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield "Python 3.11 or newer", sys.version_info >= (3, 11), version, "install a newer Python"
    for port, what in ((8480, "API"), (6653, "OpenFlow"), (8481, "emulator"), *((port, "of the sandbox") for port in SANDBOX_PORTS)):
        try:
            socket.create_server(("127.0.0.1", port)).close()
            yield f"port {port} ({what})", True, "free", ""
        except OSError as error:
            yield (
                f"port {port} ({what})",
                False,
                os.strerror(error.errno or 0),
                f"`ss -ltnp 'sport = :{port}'` names who holds it; or bellhop up --any-ports",
            )


def _optional() -> Iterator[Finding]:
    yield "root (for --mininet)", os.geteuid() == 0, f"user {os.geteuid()}", "sudo"
    for program, package, purpose in (
        ("ovs-vswitchd", "openvswitch-switch", "--mininet"),
        ("mnexec", "mininet", "--mininet"),
        ("ethtool", "ethtool", "--mininet"),
        ("curl", "curl", "fetching keys"),
    ):
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
        yield f"{program} (for {purpose})", path is not None, path or "not found", f"apt-get install {package}"
    found = importlib.util.find_spec("mininet") is not None
    yield (
        "Python package mininet (for --mininet)",
        found,
        "installed" if found else "not found",
        "pip install 'bellhop-sdn[mininet]', in a clone: .venv/bin/pip install -e '.[mininet]'",
    )
