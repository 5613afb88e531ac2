"""Lightpaths judged by the emulated fibre plant: what it says of the light is what the app expects, and dark where the app looks."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from apps.lightpath import POWER_TOLERANCE_DB, Lightpath, plan, serving, suspects
from controller.network import document
from controller.network.events import LinkStateChanged
from controller.network.model import Link, Module, Node
from controller.network.topology import Topology
from controller.routing.refusal import NoRoute
from controller.services.app import CrossConnect, Ledger, Plan, State
from topologies.emulation.plant import FibrePlant, Lit


@st.composite
def plants(draw: st.DrawFn) -> Topology:
    """A transmitter and a receiver, patched or spliced to the first and last of some switches in a row, by several fibres each step."""
    patched = draw(st.booleans())
    module = {"technology": "bb84-decoy", "launch_dbm": draw(st.sampled_from([-20.0, -3.5]))}
    count = draw(st.integers(1, 3))
    nodes = {
        "alice": Node(kind="end-node", modules={"q": Module(role="tx", port="o0:1" if patched else None, **module)}),
        "bob": Node(kind="end-node", modules={"q": Module(role="rx", port=f"o{count - 1}:8" if patched else None, **module)}),
    }
    for number in range(count):
        nodes[f"o{number}"] = Node(kind="optical-switch", ports=8, insertion_loss_db=draw(st.sampled_from([None, 0.8, 1.2])))
    loss = st.sampled_from([0.3, 0.8, 2.5])
    links = (
        []
        if patched
        else [
            Link(kind="fibre", id="lead-a", ends=("alice:q", "o0:1"), loss_db=draw(loss)),
            Link(kind="fibre", id="lead-b", ends=("bob:q", f"o{count - 1}:8"), loss_db=draw(loss)),
        ]
    )
    for number in range(count - 1):
        for strand in range(draw(st.integers(1, 3))):
            ends = (f"o{number}:{5 + strand}", f"o{number + 1}:{2 + strand}")
            if draw(st.booleans()):
                links.append(Link(kind="fibre", id=f"f{number}-{strand}", ends=ends, length_km=draw(st.sampled_from([1.0, 17.0]))))
            else:
                mux = f"mux{number}-{strand}"
                nodes[mux] = Node(kind="passive", ports=2, losses_db={"1-2": draw(loss)})
                links.append(Link(kind="fibre", id=f"f{number}-{strand}", ends=(ends[0], f"{mux}:1"), loss_db=draw(loss)))
                links.append(Link(kind="fibre", id=f"g{number}-{strand}", ends=(f"{mux}:2", ends[1]), loss_db=draw(loss)))
    links.append(Link(kind="qkd", id="switched", ends=("alice/q", "bob/q"), over="switched"))
    return Topology("plant", nodes, links)


def lit(network: Topology, planned: Plan, cut: set[str]) -> Lit:
    """The plant's word on the light once the plan is on the switches."""
    crossed = {
        name: frozenset((item.ingress, item.egress) for item in items if isinstance(item, CrossConnect))
        for name, items in planned.desired.items()
    }
    return FibrePlant(network, cut, crossed).light()


def readings(network: Topology, planned: Plan, cut: set[str]) -> Mapping[str, State]:
    """What the switches read once the plan is on them; a dark port reads the monitor's bottom."""
    power_dbm = lit(network, planned, cut).power_dbm
    return {
        name: State(frozenset(planned.desired.get(name, ())), dict.fromkeys(range(1, 9), -60.0) | dict(power_dbm[name]))
        for name, _ in network.nodes("optical-switch")
    }


ENDS = st.sampled_from([("alice/q", "bob/q"), ("bob", "alice"), ("bob/q", "alice/q")])


@given(plants(), ENDS)
def test_the_light_read_back_is_what_the_plan_expects(network: Topology, ends: tuple[str, str]) -> None:
    planned = plan("l", Lightpath(ends=ends), network, Ledger(), 0.0)
    states = readings(network, planned, set())
    ((switch, ports),) = planned.expected_power_dbm.items()
    assert switch == planned.route["cross_connects"][-1]["switch"], "it is read next to the receiver, whoever is named first"
    for port, power_dbm in ports.items():
        assert states[switch].power_dbm[port] == pytest.approx(power_dbm, abs=1e-9)
    assert serving("l", planned, states) == ""
    assert suspects(planned, states) == frozenset()
    assert lit(network, planned, set()).links["switched"].live, "and it arrives at the receiver"


@given(plants(), ENDS, st.data())
def test_a_cut_fibre_is_named_and_the_next_plan_goes_around_it(network: Topology, ends: tuple[str, str], data: st.DataObject) -> None:
    planned = plan("l", Lightpath(ends=ends), network, Ledger(), 0.0)
    fibres = sorted({hop["link"] for hop in planned.route["hops"]} - {None})
    assume(fibres)
    cut = data.draw(st.sampled_from(fibres))
    states = readings(network, planned, {cut})
    if cut == "lead-b":
        assert serving("l", planned, states) == "", "beyond the last monitor nothing is seen"
        return
    assert "power at" in serving("l", planned, states)
    blamed = suspects(planned, states)
    kind, between = cut[0], cut[1:]
    mux = {f"f{between}", f"g{between}"} & set(fibres)
    assert set(blamed) == (mux if kind in "fg" and len(mux) == 2 else {cut}), "no monitor sees the light between the two fibres of a mux"
    for link in blamed:
        network.apply(LinkStateChanged(link, up=False))
    try:
        again = plan("l", Lightpath(ends=ends), network, Ledger(), 0.0)
    except NoRoute:
        return
    assert blamed.isdisjoint(again.touches)


@given(plants(), st.floats(-3, 3))
def test_more_loss_than_the_tolerance_is_told(network: Topology, extra_db: float) -> None:
    planned = plan("l", Lightpath(ends=("alice", "bob")), network, Ledger(), 0.0)
    (switch,) = planned.expected_power_dbm
    states = readings(network, planned, set())
    off = {port: power_dbm - extra_db for port, power_dbm in states[switch].power_dbm.items()}
    told = serving("l", planned, {**states, switch: State(states[switch].items, off)})
    assert (told == "") == (abs(extra_db) <= POWER_TOLERANCE_DB + 1e-9) or abs(abs(extra_db) - POWER_TOLERANCE_DB) < 1e-6
    assert "no power reading" in serving("l", planned, {**states, switch: State(states[switch].items)})


@given(plants())
def test_ports_are_exclusive(network: Topology) -> None:
    ledger = Ledger()
    first = plan("l", Lightpath(ends=("alice", "bob")), network, ledger, 0.0)
    assert {each.resource for each in first.reservations} == {f"port:{port}" for port in first.route["ports"]}
    with pytest.raises(NoRoute) as refused:
        plan("m", Lightpath(ends=("alice", "bob")), network, ledger.with_entry("l", first.reservations), 0.0)
    assert refused.value.constraint == "ports"
    if first.route["loss_db"]:
        with pytest.raises(NoRoute) as refused:
            plan("m", Lightpath(ends=("alice", "bob"), max_loss_db=first.route["loss_db"] / 2), network, ledger, 0.0)
        assert refused.value.best == pytest.approx(first.route["loss_db"])


def test_a_way_through_a_wavelength_switch_is_refused_while_nothing_drives_one() -> None:
    text = """
name: n
nodes:
  a: {kind: end-node, modules: {q: {role: tx, max_loss_db: 20}}}
  b: {kind: end-node, modules: {q: {role: rx, max_loss_db: 20}}}
  w: {kind: wavelength-switch, ports: 4, insertion_loss_db: 5}
links:
  - {kind: fibre, ends: ["a:q", "w:1"], length_km: 1}
  - {kind: fibre, ends: ["w:2", "b:q"], length_km: 1}
"""
    network = document.parse(text)
    with pytest.raises(NoRoute, match="through w, and there is no driver") as refused:
        plan("light", Lightpath(ends=("a/q", "b/q")), network, Ledger(), 0.0)
    assert refused.value.constraint == "driver"
