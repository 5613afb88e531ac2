"""The metrics page: one collector, every gauge computed when it is read."""

from __future__ import annotations

import asyncio
import importlib.metadata
import math
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from controller.northbound.discovered import discovered
from controller.northbound.face import Face
from controller.northbound.openflow_metrics import histogram, openflow
from controller.services.service import TRANSITIONS


async def exposition(face: Face, accept: str = "") -> tuple[bytes, str]:
    """The page and its content type, in the format the scraper accepts. Of a large network it is made in turns with everything else."""
    families: list[Metric] = []
    for part in (_controller, openflow, _services, _devices, _readings, _links, discovered):
        for family in part(face):
            families.append(family)
            await asyncio.sleep(0)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families))
    encode, content_type = choose_encoder(accept)
    return await asyncio.to_thread(encode, registry), content_type


class _Collected(Collector):
    """What was collected, in the form in which the encoder wants it."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _gauge(name: str, text: str, labels: list[str] | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"bellhop_{name}", text, labels=labels or [])


def _counter(name: str, text: str, labels: list[str] | None = None) -> CounterMetricFamily:
    return CounterMetricFamily(f"bellhop_{name}", text, labels=labels or [])


def _controller(face: Face) -> Iterator[Metric]:
    info = _gauge("info", "Always 1; the labels say which Bellhop controls which network.", ["version", "network"])
    info.add_metric([importlib.metadata.version("bellhop-sdn"), face.topology.name], 1)
    yield info
    start = _gauge("start_time_seconds", "When the controller started, since the epoch.")
    start.add_metric([], face.started_s)
    yield start
    revision = _gauge("network_revision", "The revision of the network; grows with every change of a link or node.")
    revision.add_metric([], face.topology.revision)
    yield revision
    yield histogram("loop_lag_seconds", "How late the event loop woke a probe: what every session waits.", face.loop_lag)
    yield histogram("loop_turn_seconds", "Processor time that a turn of the event loop took its thread.", face.loop_turns)
    for name, text, value in (
        ("events", "Events published.", face.events.number),
        ("planner_jobs", "Jobs given to the planner's worker.", face.desk.planner.jobs),
        ("planner_restarts", "Planner workers that died and were replaced.", face.desk.planner.restarts),
        ("reconciler_rounds", "Rounds of the reconciler.", face.reconciler.rounds),
    ):
        counter = _counter(name, text)
        counter.add_metric([], value)
        yield counter


def _services(face: Face) -> Iterator[Metric]:
    services = _gauge("services", "Services by kind and state.", ["kind", "state"])
    found = Counter((service.kind, service.state) for service in face.desk.book.services.values())
    for kind in sorted({kind for kind, _ in found}):
        for state in TRANSITIONS:
            services.add_metric([kind, state], found[kind, state])
    yield services
    survival = _gauge("key_survival_seconds", "How long a key service's stock lasts at its promised rate.", ["service"])
    for service in face.desk.book.services.values():
        survives_s = face.desk.survives_for_s(service)
        if survives_s is not None and not math.isinf(survives_s):
            survival.add_metric([service.id], survives_s)
    yield survival


def _devices(face: Face) -> Iterator[Metric]:
    connected = _gauge("device_connected", "1 while the controller has a session with the device.", ["device", "kind"])
    reads = _counter("device_reads", "Times the device was read.", ["device"])
    applies = _counter("device_applies", "Changes the device confirmed.", ["device"])
    failures = _counter("device_failures", "Reads and changes that failed.", ["device"])
    for name, view in face.reconciler.views.items():
        connected.add_metric([name, face.topology.node(name).kind], float(face.devices[name].connected))
        reads.add_metric([name], view.reads)
        applies.add_metric([name], view.applies)
        failures.add_metric([name], view.failures)
    yield from (connected, reads, applies, failures)


def _readings(face: Face) -> Iterator[Metric]:
    items = _gauge("device_items", "Flow rules, cross-connects or relay entries the device was last read to hold.", ["device"])
    differing = _gauge(
        "device_difference_items", "Items that were missing, superfluous or foreign when last read.", ["device", "difference"]
    )
    pool = _gauge("key_pool_bytes", "Key material in a KME's pool, by the KME it is shared with.", ["kme", "peer"])
    stock = _gauge("key_stock_keys", "Keys of a service ready at a KME, the lesser direction.", ["kme", "service"])
    power = _gauge("optical_power_dbm", "Light at a port of an optical switch.", ["device", "port"])
    for name, view in face.reconciler.views.items():
        if view.state is not None and view.diff is not None:
            items.add_metric([name], len(view.state.items))
            for difference, those in (("missing", view.diff.add), ("superfluous", view.diff.remove), ("foreign", view.diff.foreign)):
                differing.add_metric([name, difference], len(those))
            for peer, level in view.state.pool_bytes.items():
                pool.add_metric([name, peer], level)
            for service, keys in view.state.stock_keys.items():
                stock.add_metric([name, service], keys)
            for port, dbm in view.state.power_dbm.items():
                power.add_metric([name, str(port)], dbm)
    yield from (items, differing, pool, stock, power)


def _links(face: Face) -> Iterator[Metric]:
    up = _gauge("link_up", "1 while the link carries its signal, as far as devices said.", ["link", "kind"])
    rate = _gauge("link_key_rate_bytes_per_second", "Secret-key rate of a QKD link; times 8 for bit/s.", ["link"])
    qber = _gauge("link_qber_ratio", "Quantum bit error rate of a QKD link.", ["link"])
    for link in face.topology.links():
        up.add_metric([link.id, link.kind], float(face.topology.up(link)))
        if link.kind == "qkd":
            for family, field, factor in ((rate, "rate_bps", 1 / 8), (qber, "qber", 1.0)):
                figure = face.topology.figure(link, field)
                if figure is not None:
                    family.add_metric([link.id], figure.value * factor)
    yield from (up, rate, qber)
