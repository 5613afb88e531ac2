"""`bellhop route`: routes computed on paper, from a document, without a controller."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, Literal

import click

from controller.cli.document import OUTPUT, Finite, fail, load, print_json, print_table


@click.group()
def route() -> None:
    """Compute a route in a network document, without a running controller.

    \b
    Examples:
      bellhop route entanglement sandbox alice bob --min-fidelity 0.8
      bellhop route key topologies/secoqc.yaml STP FOR --avoid SIE -o json
      bellhop route light sandbox alice bob
      bellhop route classical sandbox h1 h4

    Exit codes: 0 a route, 2 a wrong document or name, 3 no route (which constraint cannot be met, and the best there is).
    """


@route.command()
@click.argument("file")
@click.argument("src")
@click.argument("dst")
@click.option("--min-fidelity", type=Finite(0.25, 1.0), help="End-to-end fidelity floor; the highest rate above it is chosen.")
@click.option("--min-rate", type=Finite(0), metavar="HZ", help="Rate floor in pairs per second; alone, the highest fidelity above it.")
@click.option(
    "--model", type=click.Choice(["buffered", "on-demand"]), default="buffered", show_default=True, help="How pairs are made and kept."
)
@OUTPUT
def entanglement(
    file: str, src: str, dst: str, min_fidelity: float | None, min_rate: float | None, model: Literal["buffered", "on-demand"], output: str
) -> None:
    """Entangled pairs from SRC to DST over repeaters, with purification rounds per link.

    \b
    Example:
      bellhop route entanglement sandbox alice bob --min-fidelity 0.8
    """
    from controller.routing import entanglement as routing

    network = load(file)
    answer = _routed(lambda: routing.entanglement(network, src, dst, min_fidelity=min_fidelity, min_rate_hz=min_rate, model=model), output)
    hops = zip(answer["links"], answer["rounds"], strict=True)
    _print(
        answer,
        output,
        ["LINK", "ROUNDS"],
        list(hops),
        f"{answer['rate_hz']:.4g} pairs/s at fidelity {answer['fidelity']:.4f} ({answer['model']})",
    )


@route.command()
@click.argument("file")
@click.argument("src")
@click.argument("dst")
@click.option("--rate", type=Finite(0), default=0.0, metavar="BPS", help="Secret-key rate that is needed, bit/s.")
@click.option(
    "--prefer",
    type=click.Choice(["widest", "fewest-trusted-nodes"]),
    default="widest",
    show_default=True,
    help="Which path of those that carry the rate; among equals the other counts.",
)
@click.option(
    "--shares", type=click.IntRange(1, 16), default=1, show_default=True, help="Disjoint paths; the key is the XOR of a share on each."
)
@click.option("--max-trusted-nodes", type=click.IntRange(0), help="The most trusted nodes a path may pass.")
@click.option("--avoid", multiple=True, metavar="NODE", help="A node to keep off; may be given again.")
@OUTPUT
def key(
    file: str,
    src: str,
    dst: str,
    rate: float,
    prefer: Literal["widest", "fewest-trusted-nodes"],
    shares: int,
    max_trusted_nodes: int | None,
    avoid: tuple[str, ...],
    output: str,
) -> None:
    """Secret key between SRC and DST, relayed over trusted nodes or made end to end from entanglement.

    \b
    Example:
      bellhop route key secoqc STP FOR --max-trusted-nodes 3 --avoid SIE
    """
    from controller.routing import key_relay as routing

    network = load(file)
    answer = _routed(
        lambda: routing.key(
            network, src, dst, rate_bps=rate, prefer=prefer, shares=shares, max_trusted_nodes=max_trusted_nodes, avoid=avoid
        ),
        output,
    )
    rows = [(number, " - ".join(path["nodes"]), float(path["rate_bps"])) for number, path in enumerate(answer["paths"], 1)]
    trusted = ", ".join(answer["trusted_nodes"]) or "none"
    _print(answer, output, ["PATH", "NODES", "BIT/S"], rows, f"{answer['rate_bps']:.4g} bit/s; trusted nodes: {trusted}")


@route.command()
@click.argument("file")
@click.argument("src")
@click.argument("dst")
@click.option("--max-loss", type=Finite(0), metavar="DB", help="Loss budget in dB, beside what the modules at the ends allow.")
@OUTPUT
def light(file: str, src: str, dst: str, max_loss: float | None, output: str) -> None:
    """A lightpath from SRC to DST (nodes or node:port) through optical switches.

    \b
    Example:
      bellhop route light sandbox alice bob
    """
    from controller.routing import lightpath as routing

    network = load(file)
    answer = _routed(lambda: routing.light(network, src, dst, max_loss_db=max_loss), output)
    rows = [(each["switch"], each["ingress"], each["egress"]) for each in answer["cross_connects"]]
    _print(answer, output, ["SWITCH", "INGRESS", "EGRESS"], rows, f"{' - '.join(answer['nodes'])}: {answer['loss_db']:.2f} dB")


@route.command()
@click.argument("file")
@click.argument("src")
@click.argument("dst")
@OUTPUT
def classical(file: str, src: str, dst: str, output: str) -> None:
    """The path of least latency for packets from SRC to DST.

    \b
    Example:
      bellhop route classical sandbox h1 h4
    """
    from controller.routing import classical as routing

    network = load(file)
    answer = _routed(lambda: routing.classical(network, src, dst), output)
    _print(answer, output, ["LINK"], [(each,) for each in answer["links"]], f"{' - '.join(answer['nodes'])}: {answer['latency_ms']:.3f} ms")


def _routed(compute: Callable[[], Any], output: str) -> dict[str, Any]:
    from controller.network.topology import UnknownName
    from controller.routing.refusal import NoRoute

    try:
        answer: dict[str, Any] = compute().to_json()
    except UnknownName as unknown:
        fail(str(unknown), 2)
    except NoRoute as none:
        if output == "json":
            print_json(none.to_json())
        else:
            best = "" if none.best is None else f", the best there is {none.best:.6g}"
            click.echo(f"no route: {none}\n(the constraint that cannot be met: {none.constraint}{best})", err=True)
        sys.exit(3)
    return answer


def _print(answer: dict[str, Any], output: str, header: list[str], rows: Iterable[tuple[object, ...]], summary: str) -> None:
    if output == "json":
        print_json(answer)
        return
    click.echo(summary + "\n")
    print_table(header, rows)
    click.echo()
    for line in answer.get("explanation", ()):
        click.echo(f"  {line}")
