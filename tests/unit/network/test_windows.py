import pickle

import numpy as np
import pytest

from controller.network import document
from controller.network.events import AdminChanged, LinkMeasured, LinkWindowChanged
from controller.network.topology import Topology
from controller.routing.classical import classical
from controller.routing.compiled import compiled
from controller.routing.holding import answer_at
from controller.routing.key_relay import key
from controller.routing.lightpath import light
from controller.routing.refusal import NoRoute

PASS = """
name: passes
nodes:
  vienna: {kind: ground-station}
  graz: {kind: ground-station}
  sat: {kind: satellite}
links:
  - kind: free-space
    id: down-v
    ends: [vienna, sat]
    loss_db: 20
    windows: [{start: 2026-03-01T12:00:00Z, end: 2026-03-01T12:05:00Z}, {start: 2026-03-01T12:05:00, end: 2026-03-01T12:08:00Z}]
  - {kind: qkd, id: v-sat, ends: [vienna, sat], rate_bps: 900, over: [down-v]}
  - {kind: qkd, id: g-sat, ends: [graz, sat], rate_bps: 800, windows: [{start: 2026-03-01T14:00:00+02:00, end: 2026-03-01T12:07:00Z}]}
  - {kind: qkd, id: v-g, ends: [vienna, graz], rate_bps: 10}
"""
NOON = 1772366400.0


@pytest.fixture
def network() -> Topology:
    return document.parse(PASS)


def usable(topology: Topology) -> set[str]:
    edges = compiled(topology).edges(topology, "qkd")
    told = {link.id for link in topology.links("qkd") if topology.usable(link)}
    assert {edges.ids[at] for at in np.flatnonzero(edges.usable)} == told
    return told


@pytest.mark.parametrize(
    ("start_s", "end_s", "there"),
    [
        (NOON - 1, None, set()),
        (NOON, None, {"v-sat", "g-sat"}),
        (NOON + 419, None, {"v-sat", "g-sat"}),
        (NOON + 420, None, {"v-sat"}),
        (NOON + 479, None, {"v-sat"}),
        (NOON + 480, None, set()),
        (NOON, NOON + 420, {"v-sat", "g-sat"}),
        (NOON + 100, NOON + 480, {"v-sat"}),
        (NOON + 100, NOON + 481, set()),
        (NOON - 1, NOON + 1, set()),
    ],
)
def test_a_link_is_usable_inside_its_windows(network: Topology, start_s: float, end_s: float | None, there: set[str]) -> None:
    assert usable(network.at(start_s, end_s)) == {"v-g", *there}
    assert usable(network) == {"v-g", "v-sat", "g-sat"}, "a view leaves the network alone"


def test_a_view_follows_its_network_without_compiling_anew(network: Topology) -> None:
    view = network.at(NOON)
    arrays = compiled(view)
    arrays.figure(view, "qkd", "rate_bps")
    network.apply(LinkMeasured("v-sat", "rate_bps", 700.0))
    network.apply(AdminChanged("link", "g-sat", "draining"))
    again = network.at(NOON + 1)
    assert again is view and compiled(again) is arrays
    assert arrays.figure(again, "qkd", "rate_bps").tolist() == [700.0, 800.0, 10.0]
    assert usable(again) == {"v-sat", "v-g"} and usable(network.at(NOON - 1)) == {"v-g"}
    assert usable(pickle.loads(pickle.dumps(network)).at(NOON)) == {"v-sat", "v-g"}  # noqa: S301 - our own


def test_a_network_without_windows_is_its_own_view(network: Topology) -> None:
    plain = Topology("n", dict(network.nodes()), [network.link("v-g")])
    assert plain.at(NOON) is plain


def test_the_clock_is_told_by_events(network: Topology) -> None:
    assert usable(network) == {"v-g", "v-sat", "g-sat"}
    for event in network.window_events(NOON + 430):
        assert network.apply(event)
    assert network.window_events(NOON + 430) == [] and usable(network) == {"v-g", "v-sat"}
    assert network.window_events(NOON) == [LinkWindowChanged("g-sat", open=True)]
    before = network.revision
    network.apply(LinkWindowChanged("down-v", open=False))
    assert network.changed_since(before) == {"down-v", "v-sat"} and usable(network) == {"v-g"}


def test_a_route_says_until_when_it_holds(network: Topology) -> None:
    answer = answer_at(network, NOON + 60, lambda at: key(at, "vienna", "graz").to_json())
    assert answer["rate_bps"] == 800
    assert answer["holds"] == {"from": "2026-03-01T12:00:00Z", "until": "2026-03-01T12:07:00Z"}
    assert answer["explanation"][-1] == "holds from 2026-03-01T12:00:00Z until 2026-03-01T12:07:00Z, when the window of g-sat ends"
    later = answer_at(network, NOON + 450, lambda at: key(at, "vienna", "graz").to_json())
    assert later["rate_bps"] == 10 and "holds" not in later


def test_a_refusal_says_when_a_window_that_helps_opens(network: Topology) -> None:
    with pytest.raises(NoRoute, match=r"one from 2026-03-01T12:00:00Z on, when a window opens") as refused:
        answer_at(network, NOON - 3600, lambda at: key(at, "vienna", "graz", rate_bps=100).to_json())
    assert (refused.value.constraint, refused.value.best) == ("rate_bps", 10)
    with pytest.raises(NoRoute) as refused:
        answer_at(network, NOON - 3600, lambda at: key(at, "vienna", "graz", rate_bps=5000).to_json())
    assert "window" not in str(refused.value)


def test_light_and_packets_keep_to_windows_too() -> None:
    text = """
name: n
nodes:
  a: {kind: ground-station}
  b: {kind: satellite}
  s: {kind: openflow-switch, dpid: "0000000000000001"}
  t: {kind: openflow-switch, dpid: "0000000000000002"}
links:
  - {kind: free-space, id: f, ends: [a, b], loss_db: 3, windows: [{start: 2026-03-01T12:00:00Z, end: 2026-03-01T12:07:00Z}]}
  - {kind: ethernet, id: e, ends: ["s:1", "t:1"], windows: [{start: 2026-03-01T12:00:00Z, end: 2026-03-01T12:07:00Z}]}
"""
    network = document.parse(text)
    for compute in (lambda at: light(at, "a", "b").to_json(), lambda at: classical(at, "s", "t").to_json()):
        assert answer_at(network, NOON, compute)["holds"]["until"] == "2026-03-01T12:07:00Z"
        with pytest.raises(NoRoute, match="when a window opens"):
            answer_at(network, NOON - 1, compute)
        with pytest.raises(NoRoute) as refused:
            answer_at(network, NOON + 420, compute)
        assert "window" not in str(refused.value)
