"""What discovery has found, for the interface and the metrics page."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from controller.northbound.face import Face
from controller.southbound.discovery.discovery import Counters, Discovery
from controller.southbound.discovery.wiring import text


def as_found(discovery: Discovery | None) -> dict[str, Any]:
    """Found links beside the declared ones, loops, hosts and neighbours; `enabled` is false when nothing is looked for."""
    if discovery is None:
        return {"enabled": False, "links": [], "one_way": [], "loops": [], "disagreements": [], "hosts": [], "neighbours": []}
    links, wiring, now_s = discovery.links, discovery.wiring, time.monotonic()
    found = [{"ports": text(pair), "link": wiring.links.get(pair), "found": True} for pair in sorted(links.links)]
    found += [{"ports": text(pair), "link": link, "found": False} for link, pair in wiring.cables.items() if pair not in links.links]
    return {
        "enabled": True,
        "links": found,
        "one_way": [text(pair) for pair in sorted(links.one_way)],
        "loops": [text(pair) for pair in sorted(links.loops)],
        "disagreements": sorted(discovery.disagreements),
        "hosts": [
            {
                "mac": host.mac,
                "ips": [str(ip) for ip in host.ips],
                "switch": host.end[0],
                "port": host.end[1],
                "host": discovery.declared_host(host),
                "silent_s": round(now_s - host.seen_s, 1),
            }
            for host in discovery.hosts
        ],
        "neighbours": [
            {"switch": switch, "port": port, "chassis": each.who.chassis, "neighbour_port": each.who.port, "system": each.who.system}
            for (switch, port), those in sorted(discovery.strangers.items())
            for each in those.values()
        ],
    }


def discovered(face: Face) -> Iterator[Metric]:
    """The same in numbers; all are 0 when nothing is looked for."""
    discovery = face.discovery
    links = GaugeMetricFamily(
        "bellhop_discovery_links", "Links between OpenFlow switches, by what they were found to be.", labels=["state"]
    )
    told = Counter(each.kind for each in discovery.disagreements) if discovery else Counter[str]()
    states = {
        "declared": len(discovery.wiring.cables) if discovery else 0,
        "found": len(discovery.links.links) if discovery else 0,
        "one-way": len(discovery.links.one_way) if discovery else 0,
        "looped": len(discovery.links.loops) if discovery else 0,
        **{kind: told[kind] for kind in ("missing", "miswired", "unexpected")},
    }
    for state, count in states.items():
        links.add_metric([state], count)
    yield links
    for name, help_text, size in (
        ("hosts", "Hosts at ports of OpenFlow switches that were seen lately.", len(discovery.hosts) if discovery else 0),
        ("neighbours", "Other systems that say by LLDP who they are.", sum(map(len, discovery.strangers.values())) if discovery else 0),
    ):
        gauge = GaugeMetricFamily(f"bellhop_discovery_{name}", help_text)
        gauge.add_metric([], size)
        yield gauge
    counters = discovery.counters if discovery else Counters()
    for name, help_text, value in (
        ("hellos_sent", "LLDP frames sent out of ports of OpenFlow switches.", counters.sent),
        ("hellos_received", "LLDP frames of this controller that came back by another port.", counters.received),
    ):
        counter = CounterMetricFamily(f"bellhop_discovery_{name}", help_text)
        counter.add_metric([], value)
        yield counter
    refused = CounterMetricFamily("bellhop_discovery_refused", "Frames that were not believed.", labels=["reason"])
    for reason in ("forged", "replayed", "malformed"):
        refused.add_metric([reason], getattr(counters, reason))
    yield refused
