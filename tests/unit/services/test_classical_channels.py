"""Quantum services on a network whose nodes are attached to the classical one: their channels are companions, promised and metered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.network.document import load
from controller.network.model import Attachment
from controller.network.topology import Topology
from controller.routing.refusal import NoRoute
from controller.southbound.device import METER_KBPS, FlowRule, Meter
from controller.store.sqlite import Store
from tests.unit.services.sandbox import KEY, LIGHT, OVER_LIGHT, SANDBOX, Running

SITES = {"alice": "h1", "relay1": "h2", "relay2": "h4", "bob": "h3"}


def attached(max_latency_ms: float = 1.0, **hosts: str) -> Topology:
    """The sandbox with nodes that are attached by hosts, at 5 Mbit/s."""
    plain = load(SANDBOX)
    nodes = {
        name: replace(node, classical=Attachment(host=hosts[name], max_latency_ms=max_latency_ms, rate_mbps=5)) if name in hosts else node
        for name, node in plain.nodes()
    }
    return Topology(plain.name, nodes, plain.links())


@pytest.fixture
def joined(store: Store, net: Running) -> Running:
    """`net`, for what it makes quick."""
    return Running(store, topology=attached(**SITES))


def channels(net: Running) -> dict[tuple[str, ...], str]:
    """The connectivity services by their ends."""
    return {tuple(each.request["ends"]): each.id for each in net.book.services.values() if each.kind == "connectivity"}


async def test_a_key_service_and_the_lightpath_beneath_it_share_their_channel(joined: Running) -> None:
    async with joined.running():
        await joined.desk.create("key", OVER_LIGHT, name="k")
        await joined.reaches("k", "ACTIVE")
        (channel,) = channels(joined).values()
        assert joined.book.services["k"].companions == ("k.lightpath-1", channel)
        assert joined.book.services["k.lightpath-1"].companions == (channel,)
        assert channels(joined) == {("h1", "h3"): channel}
        meters = {(name, item) for name in ("s1", "s2") for item in joined.devices[name].items if isinstance(item, Meter)}
        assert {(name, meter.flags & METER_KBPS, meter.bands[0].rate) for name, meter in meters} == {("s1", 1, 5000), ("s2", 1, 5000)}
        metered = [
            item
            for name, meter in meters
            for item in joined.devices[name].items
            if isinstance(item, FlowRule) and ("meter", meter.number) in item.actions
        ]
        assert len(metered) == 2, "packets of each direction, where they enter"
        assert joined.desk.ledger().reserved()["ethernet:ethernet:s1--s2"] == 5.0
        await joined.desk.remove("k")
        await joined.until(lambda: not joined.book.services)
    assert joined.held() == 0


async def test_channels_are_shared_by_services_and_go_with_the_last(joined: Running) -> None:
    async with joined.running():
        await joined.desk.create(
            "key", {**KEY, "avoid": ["relay3"], "max_trusted_nodes": 2, "rate_bps": 100, "prefer": "widest"}, name="long"
        )
        await joined.reaches("long", "ACTIVE")
        assert set(channels(joined)) == {("h1", "h2"), ("h2", "h4"), ("h3", "h4")}
        await joined.desk.create("key", {"ends": ["alice", "relay1"]}, name="short")
        await joined.reaches("short", "ACTIVE")
        first = channels(joined)[("h1", "h2")]
        assert joined.book.services["short"].companions == (first,)
        await joined.desk.remove("long")
        await joined.until(lambda: set(channels(joined)) == {("h1", "h2")})
        assert joined.book.services[first].state == "ACTIVE"
        await joined.desk.remove("short")
        await joined.until(lambda: not joined.book.services)


async def test_a_channel_moves_when_its_path_is_cut_and_what_it_serves_says_what_it_waits_for(joined: Running) -> None:
    async with joined.running():
        await joined.desk.create("lightpath", LIGHT, name="l")
        await joined.reaches("l", "ACTIVE")
        (channel,) = channels(joined).values()
        assert "ethernet:s1--s2" in joined.links_of(channel)
        joined.link("ethernet:s1--s2", up=False)
        await joined.until(lambda: "ethernet:s1--s3" in joined.links_of(channel) and joined.book.services[channel].state == "ACTIVE")
        await joined.reaches("l", "ACTIVE")
        joined.link("ethernet:h1--s1", up=False)
        await joined.reaches(channel, "DEGRADED")
        await joined.reaches("l", "DEGRADED", reason=f"waiting for {channel}: ")


async def test_no_channel_in_time_no_service(store: Store, net: Running) -> None:
    far = Running(store, topology=attached(max_latency_ms=0.1, **SITES))
    with pytest.raises(
        NoRoute, match=r"the connectivity h1 - h3, which l needs: h1 and h3 are too far apart: .* takes 0\.12 ms"
    ) as refused:
        await far.desk.create("lightpath", LIGHT, name="l")
    assert refused.value.constraint == "max_latency_ms"
    assert not far.book.services


async def test_a_network_without_attachments_has_no_channels(net: Running) -> None:
    async with net.running():
        await net.desk.create("key", OVER_LIGHT, name="k")
        await net.reaches("k", "ACTIVE")
    assert {each.kind for each in net.book.services.values()} == {"key", "lightpath"}
