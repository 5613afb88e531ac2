"""`bellhop service`: ask a running controller for services, look at them, remove them."""

from __future__ import annotations

import time
from typing import Any

import click

from controller.cli.client import SERVER, ask, quoted
from controller.cli.document import OUTPUT, Finite, fail, print_json, print_table


@click.group()
def service() -> None:
    """Ask for services, list them, remove them.

    \b
    Examples:
      bellhop service create key alice bob --rate 500
      bellhop service create connectivity h1 h4 --dry-run
      bellhop service list
      bellhop service remove key-1
    """


@service.command()
@click.argument("kind")
@click.argument("src")
@click.argument("dst")
@click.option("--name", help="The service's id; by default its kind and a number.")
@click.option(
    "--priority", type=click.IntRange(0, 9), default=0, show_default=True, help="Who goes first when ways get scarce; 9 is highest."
)
@click.option("--rate", type=Finite(0), metavar="BPS", help="key: secret-key rate to promise, bit/s.")
@click.option(
    "--prefer",
    type=click.Choice(["widest", "fewest-trusted-nodes"]),
    help="key: which path of those that carry the rate; by default the fewest trusted nodes for a promised rate, else the widest.",
)
@click.option("--shares", type=click.IntRange(1, 16), help="key: disjoint paths with an XOR share on each.")
@click.option("--split", type=click.IntRange(1, 16), help="key: at most so many paths whose rates add up; no added secrecy.")
@click.option("--max-trusted-nodes", type=click.IntRange(0), help="key: the most trusted nodes.")
@click.option("--avoid", multiple=True, metavar="NODE", help="key: a node to keep off; may be given again.")
@click.option("--max-loss", type=Finite(0), metavar="DB", help="lightpath: loss budget.")
@click.option(
    "--protection",
    type=click.Choice(["none", "fast-failover"]),
    help="connectivity: fast-failover keeps a second path in the switches, taken without the controller when a link of the first is cut.",
)
@click.option("--disjoint", type=click.Choice(["node", "link"]), help="connectivity: what the two paths may not share.")
@click.option("--rate-mbps", type=Finite(0), metavar="MBPS", help="connectivity: capacity to promise, each way.")
@click.option("--max-rate-kbps", type=click.IntRange(1), metavar="KBPS", help="connectivity: what is above it is dropped where it enters.")
@click.option("--max-latency-ms", type=Finite(0, min_open=True), metavar="MS", help="connectivity: the most latency of its links together.")
@click.option("--for", "for_s", type=Finite(0, min_open=True), metavar="SECONDS", help="Remove the service after so long.")
@click.option("--dry-run", is_flag=True, help="Only show what would change on which device.")
@click.option("--wait", "wait_s", type=Finite(0), default=0.0, metavar="SECONDS", help="Wait so long for it to be ACTIVE.")
@OUTPUT
@SERVER
def create(server: str, output: str, kind: str, src: str, dst: str, dry_run: bool, wait_s: float, **options: Any) -> None:
    """Ask for a service of KIND (key, lightpath, connectivity, or what another installed app plans) from SRC to DST.

    \b
    Examples:
      bellhop service create key alice bob --wait 20
      bellhop service create lightpath alice/q9 bob/q9
      bellhop service create connectivity h1 h4 --protection fast-failover
    """
    given = {"rate_bps": options["rate"], "shares": options["shares"], "max_trusted_nodes": options["max_trusted_nodes"]}
    given |= {"avoid": list(options["avoid"]) or None, "max_loss_db": options["max_loss"], "prefer": options["prefer"]}
    given |= {name: options[name] for name in ("split", "protection", "disjoint", "rate_mbps", "max_rate_kbps", "max_latency_ms")}
    request = {"ends": [src, dst]} | {name: value for name, value in given.items() if value is not None}
    body = {"kind": kind, "request": request, "name": options["name"], "priority": options["priority"]}
    if options["for_s"] is not None:
        body["end_s"] = time.time() + options["for_s"]
    answer = ask(server, "POST", f"/api/v1/services{'?dry_run=1' if dry_run else ''}", body)
    if dry_run:
        _print_dry_run(answer, output)
        return
    if wait_s:
        answer = _wait(server, answer, wait_s)
    if output == "json":
        print_json(answer)
    else:
        click.echo(f"{answer['id']}: {answer['state']}" + (f": {answer['reason']}" if answer["reason"] else ""))
    if wait_s and answer["state"] != "ACTIVE":
        fail(f"{answer['id']} is not ACTIVE after {wait_s:g} s")


def _wait(server: str, answer: dict[str, Any], wait_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + wait_s
    told = ""
    while answer["state"] not in ("ACTIVE", "FAILED") and time.monotonic() < deadline:
        line = f"{answer['id']}: {answer['state']}" + (f": {answer['reason']}" if answer["reason"] else "")
        if line != told:
            click.echo(line, err=True)
            told = line
        time.sleep(0.2)
        answer = ask(server, "GET", f"/api/v1/services/{quoted(answer['id'])}")
    return answer


_GROUPS = {0: "all", 1: "select", 2: "indirect", 3: "fast failover"}


def _print_dry_run(answer: dict[str, Any], output: str) -> None:
    if output == "json":
        print_json(answer)
        return
    for line in answer["service"].get("explanation", ()):
        click.echo(f"  {line}")
    for diff in answer["diff"]:
        click.echo(f"{diff['device']}:")
        for sign, items in (("+", diff["add"]), ("-", diff["remove"]), ("?", diff["foreign"])):
            for item in items:
                click.echo(f"  {sign} {told(item)}")
        if not any(diff[change] for change in ("add", "remove", "foreign")):
            click.echo("  nothing to change")


def told(item: dict[str, Any]) -> str:
    """A device's item on one line."""
    match item["kind"]:
        case "cross-connect":
            return f"cross-connect {item['ingress']} to {item['egress']}"
        case "media-channel":
            band = f"{item['lower_frequency_mhz'] / 1e6:.9g} to {item['upper_frequency_mhz'] / 1e6:.9g} THz"
            return f"media channel {item['index']}: {item['source']} to {item['dest']}, {band}, {item['admin'].lower()}"
        case "flow":
            match = ",".join(f"{name}={value}" for name, value in item["match"])
            actions = ",".join(f"{name}:{value}" for name, value in item["actions"]) or "drop"
            return f"flow cookie={item['cookie']:#x} table={item['table']} priority={item['priority']} {match or 'any'} actions={actions}"
        case "group":
            ways = ["+".join(f"{name}:{value}" for name, value in bucket["actions"]) or "drop" for bucket in item["buckets"]]
            return f"group {item['number']} ({_GROUPS.get(item['type'], item['type'])}): {' | '.join(ways) or 'drop'}"
        case "meter":
            unit = "packets/s" if item["flags"] & 2 else "kbit/s"
            return f"meter {item['number']}: at most {' and '.join(str(band['rate']) for band in item['bands'])} {unit}"
        case _:
            way = f"{item['left'] or item['saes'][0]} <-> {item['right'] or item['saes'][1]}"
            part = (
                f"path {item['share'] + 1}/{item['split']}" if item.get("split", 1) > 1 else f"share {item['share'] + 1}/{item['shares']}"
            )
            return f"relay for {item['service']} {part}: {way}, {item['rate_bps']:.6g} bit/s each way"


@service.command(name="list")
@OUTPUT
@SERVER
def list_services(server: str, output: str) -> None:
    """List the services and where they stand.

    \b
    Example:
      bellhop service list -o json
    """
    services = ask(server, "GET", "/api/v1/services")["services"]
    if output == "json":
        print_json(services)
        return
    rows = [
        (each["id"], each["state"], " - ".join(each["request"]["ends"]), _way(each), each["priority"], each["reason"]) for each in services
    ]
    print_table(["SERVICE", "STATE", "ENDS", "WAY", "PRIORITY", "REASON"], rows)


def _way(each: dict[str, Any]) -> str:
    route = each.get("route", {})
    paths = route.get("paths", [route])
    return "; ".join(" - ".join(path.get("nodes", ())) for path in paths)


@service.command()
@click.argument("name")
@OUTPUT
@SERVER
def show(server: str, output: str, name: str) -> None:
    """Show one service: its request, its route with every figure, what each device holds for it.

    \b
    Example:
      bellhop service show key-1
    """
    answer = ask(server, "GET", f"/api/v1/services/{quoted(name)}")
    if output == "json":
        print_json(answer)
        return
    click.echo(f"{answer['id']}: {answer['state']}" + (f": {answer['reason']}" if answer["reason"] else ""))
    click.echo(f"  {answer['kind']} {' - '.join(answer['request']['ends'])}, over {_way(answer)}")
    if "survives_for_s" in answer:
        lasts = answer["survives_for_s"]
        click.echo(
            f"  its stock of keys lasts {'for ever (no rate is promised)' if lasts is None else f'{lasts:.0f} s at the promised rate'}"
        )
    for line in answer.get("explanation", ()):
        click.echo(f"  {line}")
    for device, items in answer.get("devices", {}).items():
        click.echo(f"{device}:")
        for item in items:
            click.echo(f"  {told(item)}")


@service.command()
@click.argument("name")
@click.option("--wait", "wait_s", type=Finite(0), default=0.0, metavar="SECONDS", help="Wait so long for it to be gone.")
@SERVER
def remove(server: str, name: str, wait_s: float) -> None:
    """Take a service off the network.

    \b
    Example:
      bellhop service remove key-1
    """
    ask(server, "DELETE", f"/api/v1/services/{quoted(name)}")
    deadline = time.monotonic() + wait_s
    while any(each["id"] == name for each in ask(server, "GET", "/api/v1/services")["services"]):
        if time.monotonic() >= deadline:
            click.echo(f"{name}: REMOVING")
            if wait_s:
                fail(f"{name} is not gone after {wait_s:g} s; `bellhop service show {name}` says which device holds it up")
            return
        time.sleep(0.2)
    click.echo(f"{name}: gone")
