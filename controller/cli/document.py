"""Network documents named on the command line, and answers printed as tables or JSON."""

from __future__ import annotations

import errno
import importlib.resources
import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from controller.network.topology import Topology

BELLHOP = (sys.executable, "-c", "from controller.cli import main; main()")
"""This command, for programs that run beside it."""

OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to print the answer."
)


class Finite(click.FloatRange):
    """A number in a range; NaN and infinity, which compare as they like, are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return float(number)


class Moment(click.ParamType[float]):
    """A moment in ISO 8601, as seconds since the epoch; without a time zone it is in UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value} is no moment in ISO 8601; write it as 2026-03-01T12:00:00Z", param, ctx)
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()


class Pool(click.ParamType[tuple[tuple[str, str], float]]):
    """What two nodes have in store, as NODE,NODE=BYTES."""

    name = "pool"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[tuple[str, str], float]:
        if isinstance(value, tuple):
            return value
        pair, _, number = value.rpartition("=")
        one, _, other = pair.partition(",")
        if not one or not other:
            self.fail(f"{value} names no pool; write it as alice,relay1=125000", param, ctx)
        return (one, other), Finite(0).convert(number, param, ctx)


LARGE_BYTES = 1_000_000
"""From this size on reading a document takes long enough to show progress."""


def fail(message: str, code: int = 1) -> NoReturn:
    """Say what went wrong on standard error and leave with that exit code."""
    click.echo(message, err=True)
    sys.exit(code)


def reason(error: OSError) -> str:
    """What the system refused, with the file it was about, and for a port what to do."""
    what = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE and "ss -ltnp" not in what:
        what += "; stop the program that holds the port (`ss -ltnp` names it), or choose another"
    return f"{error.filename}: {what}" if error.filename else what


def find(name: str) -> Path:
    """The file of a document: a path, or the bare name of one of the networks that come with Bellhop."""
    path = Path(name)
    shipped = importlib.resources.files("topologies")
    bundled = Path(str(shipped / f"{name}.yaml"))
    if "/" not in name and bundled.exists() and not path.is_file():
        return bundled
    if path.exists():
        return path
    known = sorted(Path(str(each)).stem for each in shipped.iterdir() if each.name.endswith(".yaml"))
    fail(
        f"no document '{name}'; give the path of a YAML file or of a Python file with topos, or one of the networks that come with Bellhop: {', '.join(known)}",
        2,
    )


def load(name: str, *, faults_to_stderr: bool = True) -> Topology:
    """The topology of a document, or of a Python file as FILE.py or FILE.py:NAME; large documents show how far they are read.

    A wrong one ends the program with every fault, exit code 2.
    """
    from controller.network import document

    python = re.fullmatch(r"(.+\.py)(?::([^:/]+))?", name)
    file = find(python[1] if python else name)
    try:
        if python:
            from topologies.emulation import hybrid_topo

            return hybrid_topo.read(file, python[2])
        size = file.stat().st_size
        if size < LARGE_BYTES or not sys.stderr.isatty():
            return document.load(file)
        with click.progressbar(length=size, label=f"reading {name}", file=sys.stderr) as bar:
            return document.load(file, lambda read: bar.update(read - bar.pos))
    except document.WrongDocument as wrong:
        click.echo(str(wrong), err=faults_to_stderr)
        sys.exit(2)
    except ImportError as error:
        fail(f"{name}: {error}", 2)
    except OSError as error:
        fail(f"{name}: {error.strerror or error}; a network document is a readable YAML file", 2)


def print_json(answer: Any) -> None:
    """JSON on standard output, indented for a terminal and on one line for a pipe."""
    click.echo(json.dumps(answer, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns padded to their widest cell; numbers to the right."""
    body = [["" if cell is None else f"{cell:,.6g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    numeric = [
        bool(body)
        and all(cell.replace(",", "").replace(".", "").replace("-", "").replace("e+", "").isdigit() or not cell for cell in column)
        for column in zip(*body, strict=True)
    ] or [False] * len(header)
    widths = [max(len(cell) for cell in column) for column in zip(header, *body, strict=True)]
    for row in [list(header), *body]:
        cells = [cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric, strict=True)]
        click.echo("  ".join(cells).rstrip())
