import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.network import document
from controller.network.events import (
    AdminChanged,
    LinkAdded,
    LinkMeasured,
    LinkRemoved,
    LinkStateChanged,
    LinkWindowChanged,
    NetworkEvent,
    NodeAdded,
)
from controller.network.model import Link, Node
from controller.network.topology import Topology, UnknownName

TOPOLOGIES = Path(document.__file__).parents[2] / "topologies"


@pytest.fixture
def sandbox() -> Topology:
    return document.load(TOPOLOGIES / "sandbox.yaml")


@pytest.fixture
def secoqc() -> Topology:
    return document.load(TOPOLOGIES / "secoqc.yaml")


def test_a_cut_fibre_takes_the_quantum_link_over_it_down(sandbox: Topology) -> None:
    qkd = sandbox.link("qkd:alice--relay1")
    assert sandbox.usable(qkd)
    assert sandbox.apply(LinkStateChanged("fibre:alice--relay1", up=False))
    assert not sandbox.up(qkd)
    assert not sandbox.usable(qkd)
    assert sandbox.apply(LinkStateChanged("fibre:alice--relay1", up=True))
    assert sandbox.usable(qkd)


def test_revision_grows_only_with_changes(sandbox: Topology) -> None:
    before = sandbox.revision, sandbox.structure
    assert not sandbox.apply(LinkStateChanged("trunk-a", up=True))
    assert not sandbox.apply(AdminChanged("node", "relay1", "enabled"))
    assert (sandbox.revision, sandbox.structure) == before
    assert sandbox.apply(AdminChanged("node", "relay1", "draining"))
    assert (sandbox.revision, sandbox.structure) == (before[0] + 1, before[1])
    sandbox.apply(LinkAdded(Link(kind="fibre", ends=("alice", "bob"), length_km=1)))
    assert sandbox.structure == before[1] + 1
    sandbox.apply(LinkRemoved("fibre:alice--bob"))
    with pytest.raises(UnknownName):
        sandbox.link("fibre:alice--bob")


def test_a_link_of_the_same_id_begins_anew(sandbox: Topology) -> None:
    link = sandbox.link("qkd:alice--relay1")
    computed = sandbox.figure(link, "rate_bps")
    for event in (LinkMeasured(link.id, "rate_bps", 7.0), LinkStateChanged(link.id, up=False), LinkRemoved(link.id), LinkAdded(link)):
        assert sandbox.apply(event)
    assert sandbox.usable(link) and sandbox.figure(link, "rate_bps") == computed
    assert link.id not in sandbox.out_of_service | sandbox.unusable()


def test_draining_node_takes_its_links_out_of_new_plans(sandbox: Topology) -> None:
    sandbox.apply(AdminChanged("node", "relay1", "draining"))
    assert not sandbox.usable(sandbox.link("qkd:alice--relay1"))
    assert sandbox.up(sandbox.link("qkd:alice--relay1"))


MUX = """
name: filtered
nodes: {a: {kind: end-node}, m: {kind: passive, ports: 2, insertion_loss_db: 1}, b: {kind: trusted-node}, c: {kind: end-node}}
links:
  - {kind: fibre, id: f1, ends: [a, "m:1"], length_km: 5}
  - {kind: fibre, id: f2, ends: ["m:2", b], length_km: 5}
  - {kind: qkd, id: ab, ends: [a, b], over: [f1, f2]}
  - {kind: qkd, id: bc, ends: [b, c], rate_bps: 1000}
"""
ADMINISTERED = st.builds(
    AdminChanged, st.just("node"), st.sampled_from(["a", "m", "b", "c"]), st.sampled_from(["enabled", "draining", "disabled"])
) | st.builds(
    AdminChanged, st.just("link"), st.sampled_from(["f1", "f2", "ab", "bc"]), st.sampled_from(["enabled", "draining", "disabled"])
)


@given(st.lists(ADMINISTERED, max_size=8))
def test_a_link_is_usable_when_all_that_it_stands_on_is_enabled(happened: list[AdminChanged]) -> None:
    network = document.parse(MUX)
    stands_on = {"f1": {"f1", "a", "m"}, "f2": {"f2", "m", "b"}, "ab": {"ab", "f1", "f2", "a", "m", "b"}, "bc": {"bc", "b", "c"}}
    admin: dict[str, str] = {}
    for event in happened:
        before = {link.id for link in network.links() if network.usable(link)}
        revision = network.revision
        network.apply(event)
        admin[event.name] = event.admin
        usable = {link for link, parts in stands_on.items() if all(admin.get(part, "enabled") == "enabled" for part in parts)}
        assert {link.id for link in network.links() if network.usable(link)} == usable
        assert network.unusable() == stands_on.keys() - usable
        changed = network.changed_since(revision)
        assert changed is not None and before ^ usable <= changed


NAMES = st.sampled_from(["alice", "relay1", "bob"])
LINKS = st.sampled_from(["fibre:alice--relay1", "qkd:alice--relay1", "trunk-a", "ethernet:s1--s2"])
EVENTS: st.SearchStrategy[NetworkEvent] = (
    st.builds(LinkStateChanged, LINKS, st.booleans())
    | st.builds(LinkWindowChanged, LINKS, st.booleans())
    | st.builds(AdminChanged, st.just("node"), NAMES, st.sampled_from(["enabled", "draining", "disabled"]))
    | st.builds(AdminChanged, st.just("link"), LINKS, st.sampled_from(["enabled", "draining", "disabled"]))
    | st.builds(NodeAdded, NAMES, st.builds(Node, kind=st.just("trusted-node"), admin=st.sampled_from(["enabled", "disabled"])))
)


@given(st.lists(EVENTS, max_size=12))
def test_what_is_out_of_service_is_what_each_node_and_link_says(happened: list[NetworkEvent]) -> None:
    sandbox = document.load(TOPOLOGIES / "sandbox.yaml")
    for event in happened:
        sandbox.apply(event)
    silent = {link.id for link in sandbox.links() if not (sandbox.up(link) and sandbox.open(link)) or link.admin == "disabled"}
    silent |= {name for name, node in sandbox.nodes() if node.admin == "disabled"}
    assert sandbox.out_of_service == silent
    gone = [link.id for link in sandbox.links("ethernet")]
    for each in gone:
        sandbox.apply(LinkRemoved(each))
    assert not any(sandbox.known(each) for each in gone)
    assert all(sandbox.known(name) for name in ("alice", "trunk-a"))


def test_every_figure_has_its_origin(secoqc: Topology) -> None:
    toshiba = secoqc.link("qkd:SIE--BRT")
    declared = secoqc.figure(toshiba, "rate_bps")
    assert declared is not None
    assert (declared.value, declared.origin) == (3100, "declared")
    assert "NJP 11:075001" in declared.source
    unpublished = secoqc.figure(secoqc.link("qkd:SIE--GUD"), "rate_bps")
    assert unpublished is not None
    assert unpublished.origin == "computed"
    assert "sarg04" in unpublished.source
    assert secoqc.figure(secoqc.link("qkd:ERD--GUD"), "qber") is None
    secoqc.apply(LinkMeasured(toshiba.id, "rate_bps", 2800.0))
    measured = secoqc.figure(toshiba, "rate_bps")
    assert measured is not None
    assert (measured.value, measured.origin) == (2800.0, "measured")


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        *(("rate_bps", value) for value in (math.nan, math.inf, -1.0, 1e300)),
        *(("qber", value) for value in (math.nan, -0.1, 0.51)),
        ("fidelity", 1.5),
        ("loss_db", -math.inf),
    ],
)
def test_what_no_document_may_say_is_not_measured(figure: Any, value: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{figure} of x cannot be {value!r}: ")):
        LinkMeasured("x", figure, value)


def test_risk_is_inherited_from_the_glass(sandbox: Topology) -> None:
    assert sandbox.shared_risk(sandbox.link("qkd:alice--relay3")) == {"fibre:alice--relay3", "south-duct"}


def test_unknown_name_hints_at_close_ones(sandbox: Topology) -> None:
    with pytest.raises(UnknownName, match=r"no node named 'relay9'.*did you mean relay"):
        sandbox.node("relay9")
