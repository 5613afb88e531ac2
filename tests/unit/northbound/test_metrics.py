"""The metrics page: readable to Prometheus, named as documented, true."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

DOCUMENTED = Path(__file__).parents[3] / "deploy" / "METRICS.md"


async def page(controller: Any) -> str:
    async with controller.http.get("/metrics") as response:
        assert response.status == 200 and response.content_type == "text/plain"
        text: str = await response.text()
        return text


def value(text: str, name: str, **labels: str) -> float:
    (found,) = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return float(found)


async def test_names_are_as_documented(controller: Any) -> None:
    rows = {}
    for line in (await page(controller)).splitlines():
        if line.startswith("# HELP "):
            name, text = line.removeprefix("# HELP ").split(" ", 1)
            assert re.fullmatch(r"bellhop_[a-z_]+", name)
            rows[name] = text
    documented = dict(re.findall(r"^\| `(\w+)` \| \w+ \|[^|]*\| (.+) \|$", DOCUMENTED.read_text(), re.MULTILINE))
    assert rows == documented


async def test_types_and_labels_are_as_documented(controller: Any) -> None:
    documented = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", DOCUMENTED.read_text(), re.MULTILINE)
    }
    await controller.ask("POST", "/api/v1/services", 201, json={"kind": "connectivity", "request": {"ends": ["h1", "h4"]}})
    for family in text_string_to_metric_families(await page(controller)):
        for sample in family.samples:
            name = family.name if family.type == "histogram" else sample.name
            assert (family.type, set(sample.labels) - {"le"}) == documented[name], sample.name


async def test_the_figures_are_true(controller: Any) -> None:
    await controller.ask("POST", "/api/v1/services", 201, json={"kind": "connectivity", "request": {"ends": ["h1", "h4"]}})
    await controller.serving("connectivity-1")
    text = await page(controller)
    assert value(text, "bellhop_services", kind="connectivity", state="ACTIVE") == 1
    assert value(text, "bellhop_services", kind="connectivity", state="FAILED") == 0
    assert value(text, "bellhop_device_items", device="s1") == 8
    assert value(text, "bellhop_device_connected", device="s1", kind="openflow-switch") == 1
    assert value(text, "bellhop_device_difference_items", device="s1", difference="missing") == 0
    assert value(text, "bellhop_openflow_sessions_total") == 3
    assert value(text, "bellhop_events_total") == controller.daemon.events.number
    assert value(text, "bellhop_network_revision") == controller.daemon.topology.revision
    qkd = next(link for link in controller.daemon.topology.links("qkd") if link.id == "qkd:alice--relay1")
    rate_bps = controller.daemon.topology.figure(qkd, "rate_bps").value
    assert value(text, "bellhop_link_key_rate_bytes_per_second", link=qkd.id) == pytest.approx(rate_bps / 8)
    late, probes = value(text, "bellhop_loop_lag_seconds_sum"), value(text, "bellhop_loop_lag_seconds_count")
    assert 0 <= late < 60 * probes
    assert value(text, "bellhop_loop_lag_seconds_bucket", le="+Inf") == probes


async def test_a_services_traffic_and_its_ports_are_counted_at_the_next_reading(controller: Any) -> None:
    await controller.ask("POST", "/api/v1/services", 201, json={"kind": "connectivity", "request": {"ends": ["h1", "h4"]}})
    await controller.serving("connectivity-1")
    switch = controller.daemon.devices["s1"]
    await switch.read()
    before = await page(controller)
    await controller.network.hosts["h1"].ping(controller.network.hosts["h4"].ip)
    await switch.read()
    after = await page(controller)
    more = {
        name: value(after, name, **labels) - value(before, name, **labels)
        for name, labels in (
            ("bellhop_service_packets_total", {"device": "s1", "service": "connectivity-1"}),
            ("bellhop_service_bytes_total", {"device": "s1", "service": "connectivity-1"}),
            ("bellhop_port_received_packets_total", {"device": "s1", "port": "1"}),
            ("bellhop_port_sent_bytes_total", {"device": "s1", "port": "1"}),
        )
    }
    assert more["bellhop_service_packets_total"] >= 4, "a question after the address and an echo, and their answers"
    assert more["bellhop_service_bytes_total"] > 60 * more["bellhop_service_packets_total"] / 2
    assert more["bellhop_port_received_packets_total"] >= 2
    assert more["bellhop_port_sent_bytes_total"] > 0


async def test_open_metrics_when_asked_for(controller: Any) -> None:
    async with controller.http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}) as response:
        assert response.content_type == "application/openmetrics-text"
        assert (await response.text()).endswith("# EOF\n")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (of Debian's package prometheus) is not here")
async def test_promtool_finds_nothing(controller: Any) -> None:
    process = await asyncio.create_subprocess_exec(
        "promtool", "check", "metrics", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate((await page(controller)).encode())
    assert (process.returncode, said.decode()) == (0, "")
