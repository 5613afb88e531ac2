"""Lightpaths judged by the emulated fibre plant: what it says of the light is what the app expects, and dark where the app looks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from apps.lightpath import POWER_TOLERANCE_DB, Lightpath, plan, serving, suspects
from controller.network import document
from controller.network.events import LinkStateChanged
from controller.network.model import Link, Module, Node
from controller.network.topology import Topology
from controller.routing.light.plant import mhz_of
from controller.routing.refusal import NoRoute
from controller.services.app import CrossConnect, Entry, Ledger, Plan, State
from controller.southbound.device import MediaChannel
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
    assert first.reservations.keys() == {f"port:{port}" for port in first.route["ports"]}
    with pytest.raises(NoRoute) as refused:
        plan("m", Lightpath(ends=("alice", "bob")), network, ledger.with_entry("l", Entry(first.reservations)), 0.0)
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
    with pytest.raises(NoRoute, match="through w, which cannot be reached") as refused:
        plan("light", Lightpath(ends=("a/q", "b/q")), network, Ledger(), 0.0)
    assert refused.value.constraint == "driver"


BUNDLED = """
name: n
nodes:
  a: {kind: end-node, modules: {q: {role: tx, max_loss_db: 20}, s: {role: tx, signal: service, wavelength_nm: 1310, launch_dbm: -3}}}
  b: {kind: end-node, modules: {q: {role: rx, max_loss_db: 20}, s: {role: rx, signal: service, wavelength_nm: 1310, max_input_dbm: -3}}}
  m: {kind: passive, ports: 3, losses_db: {1-3: 0.5, 2-3: 0.5}, bands: {"1": [1540, 1560], "2": [1300, 1320]}}
  d: {kind: passive, ports: 3, losses_db: {1-3: 0.5, 2-3: 0.5}, bands: {"1": [1540, 1560], "2": [1300, 1320]}}
  o: {kind: optical-switch, ports: 8, insertion_loss_db: 1}
links:
  - {kind: fibre, ends: ["a:q", "m:1"], loss_db: 0}
  - {kind: fibre, id: fs, ends: ["a:s", "m:2"], loss_db: 0}
  - {kind: fibre, id: in, ends: ["m:3", "o:1"], loss_db: 2}
  - {kind: fibre, id: out, ends: ["o:5", "d:3"], loss_db: 3}
  - {kind: fibre, ends: ["d:1", "b:q"], loss_db: 0}
  - {kind: fibre, id: gs, ends: ["d:2", "b:s"], loss_db: 0}
"""
BUNDLE = {"ends": ("b", "a"), "strands": [{"signal": "quantum"}, {"signal": "service"}]}


def test_a_bundle_is_one_change_and_its_strands_share_what_they_can() -> None:
    network = document.parse(BUNDLED)
    planned = plan("l", Lightpath.model_validate(BUNDLE), network, Ledger(), 0.0)
    assert planned.desired == {"o": (CrossConnect(1, 5),)}, "one cross-connect carries both"
    assert [each["signal"] for each in planned.route["strands"]] == ["quantum", "service"]
    assert {"in", "out", "fs", "gs", "a", "b"} <= planned.touches
    # what both strands have behind the switch: -20 and -3 dBm, less 0.5 + 2 + 1 dB
    assert planned.expected_power_dbm["o"][5] == pytest.approx(10 * math.log10(10**-2.35 + 10**-0.65))
    assert planned.route["cross_connects"] == [{"switch": "o", "ingress": 1, "egress": 5, "place": 0}]
    with pytest.raises(NoRoute) as refused:
        again = plan("m", Lightpath.model_validate(BUNDLE), network, Ledger().with_entry("l", Entry(planned.reservations)), 0.0)
        assert again is None
    assert refused.value.constraint == "ports"
    dark = State(frozenset(planned.desired["o"]), {1: -60.0, 5: -60.0})
    assert suspects(planned, {"o": dark}) >= {"in"}


def test_a_bundle_that_would_burn_its_receiver_or_blind_another_is_refused() -> None:
    network = document.parse(BUNDLED.replace("max_input_dbm: -3", "max_input_dbm: -11"))
    with pytest.raises(NoRoute) as refused:
        plan("l", Lightpath.model_validate(BUNDLE), network, Ledger(), 0.0)
    assert refused.value.constraint == "power"
    with pytest.raises(NoRoute) as refused:  # a single strand, whose search knows nothing of what a receiver takes
        plan("l", Lightpath(ends=("a/s", "b/s")), network, Ledger(), 0.0)
    assert (refused.value.constraint, "maximum input power" in str(refused.value)) == ("safety", True)
    network = document.parse(BUNDLED.replace('bands: {"1": [1540, 1560], "2": [1300, 1320]}', ""))
    with pytest.raises(NoRoute) as refused:
        plan("l", Lightpath.model_validate(BUNDLE), network, Ledger(), 0.0)
    assert refused.value.constraint == "power", "without filters the service light reaches the quantum receiver"


def test_wavelength_switches_are_given_channels_of_their_own_numbers() -> None:
    text = """
name: n
nodes:
  a: {kind: end-node, modules: {q: {role: tx}, s: {role: tx, signal: service, wavelength_nm: 1530}}}
  b: {kind: end-node, modules: {q: {role: rx}, s: {role: rx, signal: service, wavelength_nm: 1530}}}
  o: {kind: optical-switch, ports: 4}
  w: {kind: wavelength-switch, ports: 6, insertion_loss_db: 5, address: "127.0.0.1:830"}
links:
  - {kind: fibre, ends: ["a:q", "o:1"], loss_db: 1}
  - {kind: fibre, id: ow, ends: ["o:3", "w:1"], loss_db: 1}
  - {kind: fibre, id: as, ends: ["a:s", "w:2"], loss_db: 1}
  - {kind: fibre, ends: ["w:3", "b:q"], loss_db: 1}
  - {kind: fibre, id: sb, ends: ["w:4", "b:s"], loss_db: 1}
"""
    network = document.parse(text)
    first = plan("l", Lightpath(ends=("a/q", "b/q")), network, Ledger(), 0.0)
    (channel,) = first.desired["w"]
    assert isinstance(channel, MediaChannel)
    assert (channel.source, channel.dest) == ("1", "3")
    assert channel.lower_frequency_mhz < mhz_of(1550) < channel.upper_frequency_mhz
    assert [each["place"] for each in first.route["media_channels"]] == [1], "the cross-connect at the source comes last"
    second = plan("m", Lightpath(ends=("a/s", "b/s")), network, Ledger().with_entry("l", Entry(first.reservations)), 0.0)
    (other,) = second.desired["w"]
    assert isinstance(other, MediaChannel)
    assert other.index == channel.index + 1
    both = plan("n", Lightpath.model_validate(BUNDLE), network, Ledger(), 0.0)
    assert len({item.index for item in both.desired["w"] if isinstance(item, MediaChannel)}) == 2
