from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps import forwarding, lightpath
from apps.key_relay import Keys, plan, serving
from controller.network.document import load
from controller.network.model import Attachment, Link, Node
from controller.network.topology import Topology, UnknownName
from controller.routing.refusal import NoRoute
from controller.services.app import Companion, Entry, KeyRelay, Ledger, Plan, State
from tests.unit.services.sandbox import SANDBOX


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    """Two ends and some relays, joined at random by QKD links of a few rates."""
    relays = [f"r{number}" for number in range(draw(st.integers(1, 5)))]
    nodes = {"a": Node(kind="end-node", saes=("sae-1", "sae-2")), "b": Node(kind="end-node")}
    nodes |= {name: Node(kind="trusted-node") for name in relays}
    pairs = [(x, y) for x in nodes for y in nodes if x < y]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, min_size=1))
    return Topology("keys", nodes, [Link(kind="qkd", ends=pair, rate_bps=draw(st.sampled_from([100.0, 300.0, 1000.0]))) for pair in chosen])


REQUESTS = st.builds(
    Keys,
    ends=st.sampled_from([("a", "b"), ("sae-2", "sae-b"), ("b", "a")]),
    rate_bps=st.sampled_from([0.0, 50.0, 150.0]),
    shares=st.integers(1, 3),
) | st.builds(
    Keys,
    ends=st.sampled_from([("a", "b"), ("sae-2", "sae-b"), ("b", "a")]),
    rate_bps=st.sampled_from([0.0, 150.0, 350.0]),
    split=st.integers(2, 3),
)


def planned(network: Topology, request: Keys, ledger: Ledger | None = None) -> Plan | None:
    try:
        return plan("k", request, network, ledger or Ledger(), 0.0)
    except NoRoute:
        return None


@given(networks(), REQUESTS)
def test_every_kme_on_a_path_has_one_entry_per_share_and_the_entries_chain_up(network: Topology, request: Keys) -> None:
    found = planned(network, request)
    if found is None:
        return
    saes = {"a": "sae-1", "b": "sae-b"}
    left_sae, right_sae = (saes.get(end, end) for end in request.ends)
    entries = {(device, item.share): item for device, items in found.desired.items() for item in items if isinstance(item, KeyRelay)}
    assert len(entries) == sum(len(items) for items in found.desired.values()), "one per KME and share"
    paths = len(found.route["paths"])
    assert paths == request.shares if request.split == 1 else paths <= request.split
    for share in range(paths):
        chain: list[str] = []
        at: str | None = next(device for (device, number), item in entries.items() if number == share and item.left is None)
        while at is not None:
            entry = entries.pop((at, share))
            assert entry.left == (chain[-1] if chain else None)
            assert (entry.service, entry.saes, entry.shares) == ("k", (left_sae, right_sae), request.shares)
            assert entry.split == (1 if request.split == 1 else paths)
            chain.append(at)
            at = entry.right
        assert [left_sae in network.saes(chain[0]), right_sae in network.saes(chain[-1])] == [True, True]
        assert all(any({here, there} == set(link.nodes) for link in network.links("qkd")) for here, there in pairwise(chain))
        assert set(chain) <= found.touches
    assert not entries, "no entry beside the chains"


@given(networks(), REQUESTS)
def test_no_link_ever_promises_more_than_it_makes(network: Topology, request: Keys) -> None:
    ledger, number = Ledger(), 0
    while (found := planned(network, request, ledger)) is not None and number < 6:
        entries = [item for items in found.desired.values() for item in items if isinstance(item, KeyRelay)]
        rates = {item.share: item.rate_bps for item in entries}
        assert all(item.rate_bps == rates[item.share] for item in entries)
        each = sum(rates.values()) if request.split > 1 else max(rates.values())
        assert each * 2 == pytest.approx(request.rate_bps or found.route["rate_bps"]), "both directions together"
        ledger, number = ledger.with_entry(f"k{number}", Entry(found.reservations)), number + 1
    promised = ledger.reserved()
    for link in network.links("qkd"):
        assert promised.get(f"key:{link.id}", 0.0) <= (link.rate_bps or 0.0) * (1 + 1e-9)
    if number and request.rate_bps:
        best_effort = request.model_copy(update={"rate_bps": 0.0})
        first, narrower = planned(network, best_effort), planned(network, best_effort, ledger)
        assert first is not None
        assert narrower is None or narrower.route["rate_bps"] <= first.route["rate_bps"], "what is promised is not had again"


def test_a_promised_rate_trusts_few_and_best_effort_takes_the_widest() -> None:
    names = {"a": "end-node", "b": "end-node", "near": "trusted-node", "far1": "trusted-node", "far2": "trusted-node"}
    rates = {("a", "near"): 100.0, ("near", "b"): 100.0, ("a", "far1"): 900.0, ("far1", "far2"): 900.0, ("far2", "b"): 900.0}
    links = [Link(kind="qkd", ends=ends, rate_bps=rate) for ends, rate in rates.items()]
    network = Topology("two ways", {name: Node(kind=kind) for name, kind in names.items()}, links)  # type: ignore[arg-type]

    def trusted(**wanted: Any) -> list[str]:
        found = planned(network, Keys(ends=("a", "b"), **wanted))
        assert found is not None
        return list(found.route["trusted_nodes"])

    assert trusted() == trusted(rate_bps=101) == trusted(rate_bps=1, prefer="widest") == ["far1", "far2"]
    assert trusted(rate_bps=100) == trusted(prefer="fewest-trusted-nodes") == ["near"]


def test_a_link_that_two_paths_of_a_split_share_promises_what_both_carry() -> None:
    ends = [("a", "r"), ("r", "x"), ("r", "y"), ("x", "b"), ("y", "b")]
    nodes = {name: Node(kind="end-node" if name in "ab" else "trusted-node") for name in "abrxy"}
    links = [Link(kind="qkd", ends=pair, rate_bps=1000.0 if pair == ("a", "r") else 300.0) for pair in ends]
    found = planned(Topology("fork", nodes, links), Keys(ends=("a", "b"), rate_bps=450, split=2))
    assert found is not None
    assert found.reservations["key:qkd:a--r"] == pytest.approx(450) and len(found.reservations) == 5
    assert found.reservations["key:qkd:x--b"] + found.reservations["key:qkd:y--b"] == pytest.approx(450)
    with pytest.raises(ValueError, match="one of them must be 1"):
        Keys(ends=("a", "b"), split=2, shares=2)


def test_switched_links_bring_their_lightpath_and_fixed_ones_their_glass() -> None:
    network = load(SANDBOX)
    switched = plan("k", Keys(ends=("alice", "bob"), avoid=("relay1", "relay3")), network, Ledger(), 0.0)
    assert switched.companions == (Companion("lightpath", {"ends": ["alice/q9", "bob/q9"]}),)
    fixed = plan("k", Keys(ends=("sae-alice", "sae-bob"), rate_bps=100, prefer="widest"), network, Ledger(), 0.0)
    assert fixed.companions == ()
    assert {"fibre:alice--relay1", "qkd:alice--relay1", "relay1"} <= fixed.touches


def test_a_switched_link_needs_its_ports_unless_they_light_it_already() -> None:
    network = load(SANDBOX)
    keys = Keys(ends=("alice", "bob"), avoid=("relay1", "relay3"))
    other = Ledger().with_entry("l", Entry({"port:ocs1:1": 1.0, "port:ocs1:9": 1.0}))
    with pytest.raises(NoRoute):
        plan("k", keys, network, other, 0.0)
    own = Ledger().with_entry(
        "l", Entry(lightpath.plan("l", lightpath.Lightpath(ends=("alice/q9", "bob/q9")), network, Ledger(), 0.0).reservations)
    )
    assert plan("k", keys, network, own, 0.0) == plan("k", keys, network, Ledger(), 0.0)


def test_ends_that_hold_no_keys_are_told_from_those_that_do_not_exist() -> None:
    network = load(SANDBOX)
    with pytest.raises(NoRoute, match="h1 is of kind host and holds no keys; name an end-node, a trusted-node or an SAE"):
        plan("k", Keys(ends=("h1", "bob")), network, Ledger(), 0.0)
    with pytest.raises(UnknownName, match="did you mean sae-alice"):
        plan("k", Keys(ends=("sae-alic", "bob")), network, Ledger(), 0.0)
    with pytest.raises(UnknownName, match="relay9"):
        plan("k", Keys(ends=("alice", "bob"), avoid=("relay9",)), network, Ledger(), 0.0)


def test_it_serves_when_both_ends_have_a_key() -> None:
    found = plan("k", Keys(ends=("alice", "bob")), load(SANDBOX), Ledger(), 0.0)
    states = {device: State(frozenset(items), stock_keys={"k": 1}) for device, items in found.desired.items()}
    assert serving("k", found, states) == ""
    for end in ("alice", "bob"):
        assert serving("k", found, states | {end: State(stock_keys={"k": 0})}) == f"no key in stock at {end} yet"
    for relay in states.keys() - {"alice", "bob"}:
        assert serving("k", found, states | {relay: State()}) == ""


def attached(**hosts: tuple[str, float, float]) -> Topology:
    """a - r1 - r2 - b in a row, and the hosts by which some of them are attached: name, most latency in ms, rate in Mbit/s."""
    nodes = {
        name: Node(
            kind="end-node" if name in "ab" else "trusted-node",
            classical=Attachment(host=hosts[name][0], max_latency_ms=hosts[name][1], rate_mbps=hosts[name][2]) if name in hosts else None,
        )
        for name in ("a", "r1", "r2", "b")
    }
    return Topology("row", nodes, [Link(kind="qkd", ends=pair, rate_bps=1000.0) for pair in pairwise(nodes)])


def test_neighbours_on_the_path_have_a_classical_channel_as_good_as_both_need() -> None:
    found = planned(attached(a=("ha", 5.0, 2.0), r1=("h1", 3.0, 8.0), r2=("h2", 4.0, 0.5), b=("hb", 9.0, 0.25)), Keys(ends=("a", "b")))
    assert found is not None
    wanted = [(["h1", "ha"], 3.0, 8.0, 8000), (["h1", "h2"], 3.0, 8.0, 8000), (["h2", "hb"], 4.0, 0.5, 500)]
    assert found.companions == tuple(
        Companion("connectivity", {"ends": ends, "max_latency_ms": latency_ms, "rate_mbps": rate_mbps, "max_rate_kbps": rate_kbps})
        for ends, latency_ms, rate_mbps, rate_kbps in wanted
    )
    for companion in found.companions:
        assert forwarding.Connectivity.model_validate(companion.request).rate_mbps == companion.request["rate_mbps"]


def test_who_is_not_attached_or_shares_a_host_needs_no_channel() -> None:
    alone = planned(attached(), Keys(ends=("a", "b")))
    assert alone is not None and alone.companions == ()
    some = planned(attached(a=("ha", 5.0, 1.0), r2=("h2", 5.0, 1.0), b=("h2", 5.0, 1.0)), Keys(ends=("a", "b")))
    assert some is not None and some.companions == (), "r1 is not attached, and r2 is where b is"


def test_the_same_two_hosts_have_one_channel_however_often_the_paths_pass() -> None:
    network = attached(a=("site1", 5.0, 1.0), r1=("site2", 5.0, 1.0), r2=("site1", 5.0, 1.0), b=("site2", 5.0, 1.0))
    found = planned(network, Keys(ends=("a", "b")))
    assert found is not None
    assert [each.request["ends"] for each in found.companions] == [["site1", "site2"]]
