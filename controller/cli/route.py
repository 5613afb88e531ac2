"""`bellhop route`: routes computed on paper, from a document, without a controller."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

import click

from controller.cli.document import OUTPUT, Finite, Moment, Pool, fail, load, print_json, print_table

if TYPE_CHECKING:
    from controller.network.topology import Topology

AT = click.option(
    "--at",
    type=Moment(),
    metavar="TIME",
    help="The moment the route is for, as 2026-03-01T12:00:00Z; now if not given. Links have windows.",
)


@click.group()
def route() -> None:
    """Compute a route in a network document, without a running controller.

    \b
    Examples:
      bellhop route entanglement sandbox alice bob --min-fidelity 0.8
      bellhop route key topologies/secoqc.yaml STP FOR --avoid SIE -o json
      bellhop route light sandbox alice bob
      bellhop route classical sandbox h1 h4
      bellhop route demands secoqc demands.yaml --throughput
      bellhop route slot sandbox requests.yaml

    Exit codes: 0 a route, 2 a wrong document or name, 3 no route (which constraint cannot be met, and the best there is); of many requests,
    3 when one of them gets nothing.
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
@AT
@OUTPUT
def entanglement(
    file: str,
    src: str,
    dst: str,
    min_fidelity: float | None,
    min_rate: float | None,
    model: Literal["buffered", "on-demand"],
    at: float | None,
    output: str,
) -> None:
    """Entangled pairs from SRC to DST over repeaters, with purification rounds per link.

    \b
    Example:
      bellhop route entanglement sandbox alice bob --min-fidelity 0.8
    """
    from controller.routing import entanglement as routing

    network = load(file)
    answer = _routed(
        network,
        at,
        output,
        lambda then: routing.entanglement(then, src, dst, min_fidelity=min_fidelity, min_rate_hz=min_rate, model=model).to_json(),
    )
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
@click.option(
    "--split", type=click.IntRange(1, 16), default=1, show_default=True, help="At most so many paths whose rates add up; no added secrecy."
)
@click.option(
    "--horizon-s",
    type=Finite(0, min_open=True),
    metavar="SECONDS",
    help="How long the rate is needed; what --pool names is spent over that time. For ever if not given.",
)
@click.option(
    "--pool",
    "pools",
    type=Pool(),
    multiple=True,
    metavar="NODE,NODE=BYTES",
    help="Key that two nodes have in store; may be given again.",
)
@click.option("--max-trusted-nodes", type=click.IntRange(0), help="The most trusted nodes a path may pass.")
@click.option("--avoid", multiple=True, metavar="NODE", help="A node to keep off; may be given again.")
@AT
@OUTPUT
def key(
    file: str,
    src: str,
    dst: str,
    rate: float,
    prefer: Literal["widest", "fewest-trusted-nodes"],
    shares: int,
    split: int,
    horizon_s: float | None,
    pools: tuple[tuple[tuple[str, str], float], ...],
    max_trusted_nodes: int | None,
    avoid: tuple[str, ...],
    at: float | None,
    output: str,
) -> None:
    """Secret key between SRC and DST, relayed over trusted nodes or made end to end from entanglement.

    \b
    Examples:
      bellhop route key secoqc STP FOR --max-trusted-nodes 3 --avoid SIE
      bellhop route key secoqc BRT ERD --split 2
      bellhop route key secoqc BRT GUD --horizon-s 600 --pool BRT,GUD=1e6
    """
    from controller.routing import key_relay as routing

    if shares > 1 and split > 1:
        raise click.UsageError("--shares combines the keys of its paths, --split adds up their rates; give one of them")
    if (horizon_s is None) != (not pools):
        raise click.UsageError("--horizon-s and --pool go together: what is in store is spent over the horizon")
    seen: set[frozenset[str]] = set()
    for pair, _ in pools:
        if frozenset(pair) in seen:
            raise click.UsageError(f"--pool names {' and '.join(pair)} twice; give once what they have in store")
        seen.add(frozenset(pair))
    network = load(file)
    answer = _routed(
        network,
        at,
        output,
        lambda then: routing.key(
            then,
            src,
            dst,
            rate_bps=rate,
            prefer=prefer,
            shares=shares,
            split=split,
            max_trusted_nodes=max_trusted_nodes,
            avoid=avoid,
            pool_bytes=dict(pools),
            horizon_s=horizon_s or math.inf,
        ).to_json(),
    )
    rows = [(number, " - ".join(path["nodes"]), float(path["rate_bps"])) for number, path in enumerate(answer["paths"], 1)]
    trusted = ", ".join(answer["trusted_nodes"]) or "none"
    _print(answer, output, ["PATH", "NODES", "BIT/S"], rows, f"{answer['rate_bps']:.4g} bit/s; trusted nodes: {trusted}")


@route.command()
@click.argument("file")
@click.argument("src")
@click.argument("dst")
@click.option("--max-loss", type=Finite(0), metavar="DB", help="Loss budget in dB, beside what the modules at the ends allow.")
@AT
@OUTPUT
def light(file: str, src: str, dst: str, max_loss: float | None, at: float | None, output: str) -> None:
    """A lightpath from SRC to DST (nodes or node:port) through optical switches.

    \b
    Example:
      bellhop route light sandbox alice bob
    """
    from controller.routing import lightpath as routing

    network = load(file)
    answer = _routed(network, at, output, lambda then: routing.light(then, src, dst, max_loss_db=max_loss).to_json())
    rows = [(each["switch"], each["ingress"], each["egress"]) for each in answer["cross_connects"]]
    _print(answer, output, ["SWITCH", "INGRESS", "EGRESS"], rows, f"{' - '.join(answer['nodes'])}: {answer['loss_db']:.2f} dB")


@route.command()
@click.argument("file")
@click.argument("src")
@click.argument("dst")
@click.option("--paths", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="K", help="So many paths, the fastest first.")
@click.option("--disjoint", type=click.Choice(["node", "link"]), help="Two paths that share no switch, or no link.")
@click.option("--min-capacity", type=Finite(0), metavar="MBPS", help="Capacity that every link of a path must have, Mbit/s.")
@AT
@OUTPUT
def classical(
    file: str,
    src: str,
    dst: str,
    paths: int,
    disjoint: Literal["node", "link"] | None,
    min_capacity: float | None,
    at: float | None,
    output: str,
) -> None:
    """The path of least latency for packets from SRC to DST, the K of least latency, or two disjoint ones.

    \b
    Examples:
      bellhop route classical sandbox h1 h4
      bellhop route classical sandbox h1 h4 --paths 3
      bellhop route classical sandbox h1 h4 --disjoint link
    """
    from controller.routing import classical as routing

    if disjoint and paths != 1:
        raise click.UsageError("--disjoint gives two paths; leave --paths away")
    network = load(file)
    several = paths > 1 or disjoint is not None

    def compute(then: Topology) -> dict[str, Any]:
        if disjoint:
            found: tuple[routing.ClassicalRoute, ...] = routing.disjoint_pair(then, src, dst, by=disjoint, min_capacity_mbps=min_capacity)
        else:
            found = routing.k_shortest(then, src, dst, paths, min_capacity_mbps=min_capacity)
        return {"paths": [each.to_json() for each in found]} if several else found[0].to_json()

    answer = _routed(network, at, output, compute)
    if not several:
        rows = [(each,) for each in answer["links"]]
        _print(answer, output, ["LINK"], rows, f"{' - '.join(answer['nodes'])}: {answer['latency_ms']:.3f} ms")
        return
    numbered = enumerate(answer["paths"], 1)
    told = [(number, float(each["latency_ms"]), " - ".join(each["nodes"]), ", ".join(each["links"])) for number, each in numbered]
    _print(answer, output, ["PATH", "MS", "NODES", "LINKS"], told, f"{len(told)} paths from {src} to {dst}")


@route.command()
@click.argument("file")
@click.argument("asked", metavar="DEMANDS")
@click.option("--fair/--throughput", default=True, show_default=True, help="Fair shares (max-min), or the most key in all.")
@AT
@OUTPUT
def demands(file: str, asked: str, fair: bool, at: float | None, output: str) -> None:
    """Share the network's secret key among the demands of a file.

    \b
    Example:
      bellhop route demands secoqc demands.yaml --throughput
    with, in demands.yaml (rate_bps: .inf asks for all there is):
      demands:
        - {src: STP, dst: FOR, rate_bps: 2000, weight: 2}
        - {src: GUD, dst: ERD, rate_bps: .inf, max_trusted_nodes: 1, avoid: [SIE]}
    """
    from controller.cli import requests
    from controller.routing.keys.allocation import Demand, allocate

    network = load(file)
    wanted = requests.read(asked, "demands", Demand, network)
    answer = _routed(
        network, at, output, lambda then: allocate(then, wanted, objective="max-min" if fair else "throughput").to_json(), len(wanted)
    )
    nothing: list[dict[str, Any]] = [{"rate_bps": 0, "nodes": ()}]
    rows = [
        (grant["src"], grant["dst"], float(path["rate_bps"]), " - ".join(path["nodes"]), ", ".join(grant["held_by"]))
        for grant in answer["grants"]
        for path in grant["flows"] or nothing
    ]
    _print(answer, output, ["SRC", "DST", "BIT/S", "PATH", "HELD BY"], rows, f"{answer['throughput_bps']:.4g} bit/s in all")
    if any(grant["refusal"] for grant in answer["grants"]):
        sys.exit(3)


@route.command()
@click.argument("file")
@click.argument("asked", metavar="REQUESTS")
@AT
@OUTPUT
def lightpaths(file: str, asked: str, at: float | None, output: str) -> None:
    """Lightpaths for the requests of a file, all at once: ports, cross-connects and wavelengths that do not disturb each other.

    \b
    Example:
      bellhop route lightpaths sandbox requests.yaml
    with, in requests.yaml (the strands of a request are of use only together):
      requests:
        - {name: pair, priority: 1, strands: [{src: alice/q9, dst: bob/q9, max_loss_db: 12}]}
        - {name: probe, strands: [{src: relay1, dst: relay2, signal: service, wavelengths_nm: [1310, 1490]}]}
    """
    from controller.cli import requests
    from controller.routing.lightpath import Bundle, assign

    network = load(file)
    wanted = requests.read(asked, "requests", Bundle, network)
    answer = _routed(network, at, output, lambda then: assign(then, wanted).to_json(), len(wanted))
    served = [(each.name, strand) for each in wanted for strand in answer["served"].get(each.name, {"strands": ()})["strands"]]
    rows: list[tuple[object, ...]] = [
        (name, strand["signal"], strand["wavelength_nm"], float(strand["loss_db"]), " - ".join(strand["nodes"]), _joined(strand), "")
        for name, strand in served
    ]
    rows += [(name, "", None, None, "", "", refused["error"]) for name, refused in answer["refused"].items()]
    header = ["REQUEST", "SIGNAL", "NM", "DB", "NODES", "CROSS-CONNECTS", "REFUSED"]
    hops = [f"{name}, {strand['signal']}: {line}" for name, strand in served for line in strand["explanation"]]
    _print(answer, output, header, rows, f"{len(answer['served'])} of {len(wanted)} served", hops)
    if answer["refused"]:
        sys.exit(3)


@route.command()
@click.argument("file")
@click.argument("asked", metavar="REQUESTS")
@click.option(
    "--slot", "slot_s", type=Finite(0, min_open=True), default=0.01, show_default=True, metavar="SECONDS", help="How long the slot is."
)
@AT
@OUTPUT
def slot(file: str, asked: str, slot_s: float, at: float | None, output: str) -> None:
    """Entangled pairs for the requests of a file in one time slot: which channels to reserve for whom before any is tried.

    \b
    Example:
      bellhop route slot sandbox requests.yaml --slot 0.02
    with, in requests.yaml:
      requests:
        - {src: alice, dst: bob}
        - {src: alice, dst: rep2}
    """
    from controller.cli import requests
    from controller.routing import slots

    network = load(file)
    wanted = requests.read(asked, "requests", slots.Pair, network)
    answer = _routed(network, at, output, lambda then: slots.slot(then, wanted, slot_s).to_json(), len(wanted))
    rows: list[tuple[object, ...]] = [
        (each["src"], each["dst"], float(path["ebits"]), " - ".join(path["nodes"]), "-".join(map(str, path["channels"])), "")
        for each in answer["requests"]
        for path in each["paths"]
    ]
    none = [each for each in answer["requests"] if each["refusal"]]
    rows += [(each["src"], each["dst"], None, "", "", each["refusal"]["constraint"]) for each in none]
    header = ["SRC", "DST", "PAIRS", "NODES", "CHANNELS", "REFUSED FOR"]
    _print(answer, output, header, rows, f"{answer['ebits']:.4g} pairs expected per slot")
    if none:
        sys.exit(3)


def _joined(strand: dict[str, Any]) -> str:
    """The ports that a strand has joined at each switch, as `ocs1 1-9`."""
    joined = (*strand["cross_connects"], *strand.get("media_channels", ()))
    return ", ".join(f"{each['switch']} {each['ingress']}-{each['egress']}" for each in joined)


def _routed(
    network: Topology, at: float | None, output: str, compute: Callable[[Topology], dict[str, Any]], requests: int = 1
) -> dict[str, Any]:
    """The answer at a moment; a refusal, or a wrong name, ends the program. Of many requests it is said that they are being worked on."""
    from controller.network.topology import UnknownName
    from controller.routing.holding import answer_at
    from controller.routing.refusal import NoRoute

    if requests > 1 and sys.stderr.isatty():
        click.echo(f"computing for {requests} requests ...", err=True)
    try:
        return answer_at(network, time.time() if at is None else at, compute)
    except (UnknownName, ValueError) as wrong:
        fail(str(wrong), 2)
    except NoRoute as none:
        if output == "json":
            print_json(none.to_json())
        else:
            best = "" if none.best is None else f", the best there is {none.best:.6g}"
            click.echo(f"no route: {none}\n(the constraint that cannot be met: {none.constraint}{best})", err=True)
        sys.exit(3)


def _print(
    answer: dict[str, Any], output: str, header: list[str], rows: Iterable[tuple[object, ...]], summary: str, hops: Iterable[str] = ()
) -> None:
    if output == "json":
        print_json(answer)
        return
    click.echo(summary + "\n")
    print_table(header, rows)
    click.echo()
    of_paths = [line for path in answer.get("paths", ()) for line in path.get("explanation", ())]
    for line in [*hops, *of_paths, *answer.get("explanation", ())]:
        click.echo(f"  {line}")
