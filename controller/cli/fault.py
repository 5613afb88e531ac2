"""`bellhop fault`: what goes wrong with the fibres of an emulated network, and undoing it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from controller.cli.client import EMULATOR, ask, quoted
from controller.cli.document import OUTPUT, Finite, print_json, print_table

_DECIBEL = Finite(min=0, min_open=True, max=100)


@click.group()
def fault() -> None:
    """Faults of the emulated fibre plant: bend a fibre, listen in on it, let it drift; list and undo them.

    The controller is not told: it has to find out by itself. `bellhop link cut` cuts a fibre; the cut is listed here, too.

    \b
    Examples:
      bellhop fault bend trunk-a --loss 3
      bellhop fault eavesdrop fibre:alice--relay1 --fraction 0.4
      bellhop fault drift trunk-b --per-hour 0.5 --max 6
      bellhop fault list
      bellhop fault clear f1
    """


@fault.command()
@click.argument("fibre")
@click.option("--loss", "loss_db", type=_DECIBEL, required=True, help="What the bend adds, in dB.")
@EMULATOR
def bend(emulator: str, fibre: str, loss_db: float) -> None:
    """Bend a fibre: it loses more light from now on.

    \b
    Example:
      bellhop fault bend trunk-a --loss 3
    """
    _add(emulator, {"kind": "bend", "link": fibre, "loss_db": loss_db})


@fault.command()
@click.argument("fibre")
@click.option(
    "--fraction", type=Finite(min=0, min_open=True, max=1), default=1.0, show_default=True, help="The share of signals that is measured."
)
@EMULATOR
def eavesdrop(emulator: str, fibre: str, fraction: float) -> None:
    """Measure a fraction of a fibre's quantum signals and send them anew, which adds a quarter of it to the QBER.

    \b
    Example:
      bellhop fault eavesdrop fibre:alice--relay1 --fraction 0.4
    """
    _add(emulator, {"kind": "eavesdropper", "link": fibre, "fraction": fraction})


@fault.command()
@click.argument("fibre")
@click.option("--per-hour", "db_per_hour", type=_DECIBEL, help="How fast the loss grows, in dB per hour.")
@click.option("--per-second", "db_per_s", type=_DECIBEL, help="The same in dB per second.")
@click.option("--max", "max_db", type=_DECIBEL, required=True, help="Where it stops, in dB.")
@EMULATOR
def drift(emulator: str, fibre: str, db_per_hour: float | None, db_per_s: float | None, max_db: float) -> None:
    """Let the alignment at a fibre or telescope drift: its loss grows until a maximum. Clearing the fault aligns it again.

    \b
    Examples:
      bellhop fault drift trunk-a --per-hour 0.5 --max 6
      bellhop fault drift trunk-a --per-second 0.1 --max 6
    """
    if (db_per_hour is None) == (db_per_s is None):
        raise click.UsageError("say how fast with one of --per-hour and --per-second")
    speed = db_per_s if db_per_s is not None else (db_per_hour or 0.0) / 3600
    _add(emulator, {"kind": "drift", "link": fibre, "db_per_s": speed, "max_db": max_db})


@fault.command(name="list")
@OUTPUT
@EMULATOR
def list_faults(emulator: str, output: str) -> None:
    """List the faults that stand.

    \b
    Example:
      bellhop fault list
    """
    faults: list[dict[str, Any]] = ask(emulator, "GET", "/faults")["faults"]
    if output == "json":
        print_json(faults)
        return
    rows = [(each["id"], each["kind"], each["link"], _since(each["since_s"]), _effect(each)) for each in faults]
    print_table(["FAULT", "KIND", "LINK", "SINCE", "EFFECT"], rows)


@fault.command()
@click.argument("fault_id", metavar="FAULT")
@EMULATOR
def clear(emulator: str, fault_id: str) -> None:
    """Undo a fault, by its id in the list.

    \b
    Example:
      bellhop fault clear f1
    """
    undone = ask(emulator, "DELETE", f"/faults/{quoted(fault_id)}")
    click.echo(f"fault {fault_id}: {undone['kind']} of {undone['link']} undone")


def _add(emulator: str, asked: dict[str, Any]) -> None:
    made = ask(emulator, "POST", "/faults", asked)
    click.echo(f"fault {made['id']}: {made['kind']} of {made['link']}, {_effect(made)}; undo with `bellhop fault clear {made['id']}`")


def _since(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _effect(fault: dict[str, Any]) -> str:
    match fault["kind"]:
        case "eavesdropper":
            return f"QBER +{fault['fraction'] / 4:.1%}"
        case "drift":
            return f"+{fault['loss_now_db']:.2f} dB now, +{fault['db_per_s'] * 3600:g} dB/h up to {fault['max_db']:g} dB"
        case "bend":
            return f"+{fault['loss_db']:g} dB"
    return "nothing passes"
