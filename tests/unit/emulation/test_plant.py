"""The fibre plant: traced light, powers, key rates and QBER, and faults that leave nothing behind when they are undone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.network import document
from controller.network.topology import Topology
from controller.physics.coexistence import DataChannel, SharedSpan, clicks_per_gate, raman_noise
from controller.physics.key_rates import DecoyBb84, bbm92_rate
from topologies.emulation.faults import Bend, Cut, Drift, Eavesdropper, Fault, Faults, WrongFault, parse
from topologies.emulation.light_log import LightLog
from topologies.emulation.plant import FibrePlant, Lit

SANDBOX = document.load(Path(document.__file__).parents[2] / "topologies" / "sandbox.yaml")
SWITCHED, FIXED = "qkd:alice--bob", "qkd:alice--relay1"
OVER_A = {"ocs1": frozenset({(1, 9)}), "ocs2": frozenset({(1, 9)})}
LOSS_A_DB = 25 * 0.2 + 2 * 0.8
GYS = DecoyBb84()


def lit(*faults: Fault, at_s: float = 0.0, network: Topology = SANDBOX, crossed: dict[str, frozenset[tuple[int, int]]] = OVER_A) -> Lit:
    standing = Faults()
    for fault in faults:
        standing.add(fault, 0.0)
    return FibrePlant(network, standing.cuts(), crossed, standing.extra_loss_db(at_s), standing.intercepted()).light()


def test_light_is_followed_through_switches_and_loses_what_each_part_takes() -> None:
    light = lit()
    assert light.power_dbm == {
        "ocs1": pytest.approx({1: -20.0, 9: -20.8}),
        "ocs2": pytest.approx({1: -25.8, 9: -26.6}),
    }
    found = light.links[SWITCHED]
    assert found.live and found.loss_db == pytest.approx(LOSS_A_DB)
    assert (found.rate_bps, found.qber) == pytest.approx((GYS.rate_bps(LOSS_A_DB), GYS.qber(LOSS_A_DB)))
    ports = (("alice", "q9"), ("ocs1", "1"), ("ocs1", "9"), ("ocs2", "1"), ("ocs2", "9"), ("bob", "q9"))
    assert found.path == ports
    assert [ray.ports for ray in light.rays["alice", "q9"]] == [ports]


def test_light_ends_where_no_cross_connect_leads_on() -> None:
    light = lit(crossed={"ocs1": OVER_A["ocs1"]})
    assert light.power_dbm == {"ocs1": pytest.approx({1: -20.0, 9: -20.8}), "ocs2": pytest.approx({1: -25.8})}
    assert not light.links[SWITCHED].live
    assert lit(crossed={switch: frozenset({(9, 1)}) for switch in OVER_A}) == lit(), "a cross-connect passes light both ways"


@given(st.floats(0.01, 0.11) | st.floats(0.13, 1))
def test_an_eavesdropper_adds_a_quarter_of_the_fraction_to_the_qber(fraction: float) -> None:
    before, after = (lit(*faults).links[FIXED] for faults in ((), (Eavesdropper(link="fibre:alice--relay1", fraction=fraction),)))
    assert before.qber is not None and after.qber is not None
    assert after.qber - before.qber == pytest.approx(fraction / 4, rel=2e-3), "but for the dark counts, which nobody intercepts"
    assert after.live and after.loss_db == before.loss_db
    assert after.rate_bps == pytest.approx(DecoyBb84(misalignment_error=GYS.misalignment_error + fraction / 4).rate_bps(1.2))
    assert after.rate_bps < before.rate_bps
    assert (after.rate_bps > 0) == (after.qber < 0.0627), "the QBER at which pairs of this model cease to make key"


def test_an_eavesdropper_concerns_who_rides_on_the_fibre_and_nobody_else() -> None:
    tapped, still = lit(Eavesdropper(link="trunk-a", fraction=0.1)).links, lit().links
    assert {link for link in still if still[link] != tapped[link]} == {SWITCHED}
    assert lit(Eavesdropper(link="trunk-b", fraction=1)).links == still


def test_a_bend_takes_power_behind_it_and_key() -> None:
    light, still = lit(Bend(link="trunk-a", loss_db=3)), lit()
    assert light.power_dbm == {"ocs1": still.power_dbm["ocs1"], "ocs2": pytest.approx({1: -28.8, 9: -29.6})}
    assert light.links[SWITCHED].rate_bps == pytest.approx(GYS.rate_bps(LOSS_A_DB + 3))
    assert not lit(Bend(link="trunk-a", loss_db=8)).links[SWITCHED].live, "beyond what the receiver takes (14 dB)"
    assert lit(Bend(link="fibre:alice--relay1", loss_db=2)).links[FIXED].rate_bps == pytest.approx(GYS.rate_bps(1.2 + 2))


def test_faults_of_one_fibre_add_up() -> None:
    found = lit(*(Bend(link="trunk-a", loss_db=loss_db) for loss_db in (1, 2)), Drift(link="trunk-a", db_per_s=1, max_db=3), at_s=2)
    assert found.links[SWITCHED].loss_db == pytest.approx(LOSS_A_DB + 1 + 2 + 2)
    standing = Faults()
    for fraction in (0.3, 0.2):
        standing.add(Eavesdropper(link="trunk-a", fraction=fraction), 0.0)
    assert standing.intercepted() == {"trunk-a": pytest.approx(0.5)}
    standing.add(Eavesdropper(link="trunk-a", fraction=0.9), 0.0)
    assert standing.intercepted() == {"trunk-a": 1.0}, "nobody measures more signals than there are"


def test_drift_grows_until_its_maximum() -> None:
    drift = Drift(link="trunk-a", db_per_s=0.5, max_db=3)
    losses = [lit(drift, at_s=at_s).links[SWITCHED].loss_db for at_s in (-1, 0, 2, 6, 1000)]
    assert losses == pytest.approx([LOSS_A_DB + more for more in (0, 0, 1, 3, 3)])
    standing = Faults()
    standing.add(drift, 0.0)
    assert [standing.drifting(at_s) for at_s in (0, 5.9, 6)] == [True, True, False]


FAULTS = st.one_of(
    st.builds(Cut, link=st.sampled_from(["trunk-a", "fibre:alice--relay1"])),
    st.builds(Bend, link=st.sampled_from(["trunk-a", "trunk-b", "fibre:relay3--bob"]), loss_db=st.floats(0.1, 20)),
    st.builds(Drift, link=st.just("trunk-a"), db_per_s=st.floats(0.1, 5), max_db=st.floats(0.1, 20)),
    st.builds(Eavesdropper, link=st.sampled_from(["trunk-a", "fibre:alice--relay1"]), fraction=st.floats(0.01, 1)),
)


@given(st.lists(FAULTS, min_size=1, max_size=6), st.data())
def test_undoing_faults_in_any_order_restores_exactly(faults: list[Fault], data: st.DataObject) -> None:
    standing = Faults()
    ids = [standing.add(fault, 0.0).id for fault in faults]
    order = data.draw(st.permutations(ids))
    for count, fault_id in enumerate(order, 1):
        del standing.held[fault_id]
        left = [faults[ids.index(each)] for each in ids if each not in order[:count]]
        now = FibrePlant(SANDBOX, standing.cuts(), OVER_A, standing.extra_loss_db(3.0), standing.intercepted()).light()
        assert now == lit(*left, at_s=3.0)
    assert now == lit()


COEXISTING = """
name: coexisting
nodes:
  a: {kind: end-node, modules: {q: {role: tx, wavelength_nm: 1550, port: "o:1"}}}
  b: {kind: end-node, modules: {q: {role: rx, wavelength_nm: 1550}}}
  o: {kind: optical-switch, ports: 4, insertion_loss_db: 1}
  m: {kind: passive, ports: 3, losses_db: {"1-2": 2, "1-3": 2}, bands: {"3": [1300, 1320]}}
links:
  - {kind: fibre, id: shared, ends: ENDS, length_km: 20, channels: [{wavelength_nm: 1540, launch_dbm: 0, direction: DIRECTION}]}
  - {kind: fibre, id: last, ends: ["m:2", "b:q"], length_km: 5}
  - {kind: fibre, id: astray, ends: ["m:3", "o:4"], length_km: 1}
  - {kind: qkd, id: q, ends: [a/q, b/q], over: switched}
"""


def coexisting(direction: str = "forward", ends: str = '["o:3", "m:1"]') -> str:
    return COEXISTING.replace("DIRECTION", direction).replace("ENDS", ends)


@pytest.mark.parametrize("ends", ['["o:3", "m:1"]', '["m:1", "o:3"]'], ids=["along", "against"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_data_channels_in_the_same_glass_add_raman_noise(direction: str, ends: str) -> None:
    network = document.parse(coexisting(direction, ends))
    found = lit(network=network, crossed={"o": frozenset({(1, 3)})}).links["q"]
    loss_db = 1 + 4 + 2 + 1
    span = SharedSpan(20, [DataChannel(1540, 0, (direction == "forward") == ends.startswith('["o'))], loss_after_db=3)
    noise = clicks_per_gate(raman_noise([span], 1550, 0.2).photons_hz, 1e-9, 0.045)
    expected = DecoyBb84(background_yield=1.7e-6 + noise)
    assert noise > 1e-6
    assert found.loss_db == pytest.approx(loss_db)
    assert (found.rate_bps, found.qber) == pytest.approx((expected.rate_bps(loss_db), expected.qber(loss_db)))


def test_a_filter_and_a_splitter_send_light_where_they_let_it() -> None:
    text = coexisting()
    crossed = {"o": frozenset({(1, 3)})}
    assert set(lit(network=document.parse(text), crossed=crossed).power_dbm["o"]) == {1, 3}, "1550 nm does not leave by port 3 of m"
    split = document.parse(text.replace(', bands: {"3": [1300, 1320]}', ""))
    light = lit(network=split, crossed=crossed)
    assert light.links["q"].live and light.power_dbm["o"] == pytest.approx({1: -20, 3: -21, 4: -20 - 1 - 4 - 2 - 0.2})
    assert len(light.rays["a", "q"]) == 2


def test_declared_figures_stand_until_a_fault_and_shrink_with_it() -> None:
    network = document.parse("""
name: declared
nodes: {a: {kind: trusted-node}, b: {kind: trusted-node}}
links:
  - {kind: fibre, id: f, ends: [a, b], length_km: 80}
  - {kind: qkd, id: q, ends: [a, b], over: [f], rate_bps: 3100, qber: 0.026, source: "told"}
""")
    assert (lit(network=network).links["q"].rate_bps, lit(network=network).links["q"].qber) == (3100, 0.026)
    assert lit(Bend(link="f", loss_db=3), network=network).links["q"].rate_bps == pytest.approx(3100 * 10**-0.3)
    tapped = lit(Eavesdropper(link="f", fraction=0.1), network=network).links["q"]
    assert tapped.qber == pytest.approx(0.051)
    assert tapped.rate_bps == pytest.approx(3100 * bbm92_rate(1, 0.051, 1.22) / bbm92_rate(1, 0.026, 1.22))
    assert lit(Eavesdropper(link="f", fraction=1), network=network).links["q"].rate_bps == 0
    assert not lit(Cut(link="f"), network=network).links["q"].live


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"kind": "bend", "link": "trunk-a", "loss_db": -1}, "loss_db"),
        ({"kind": "bend", "link": "trunk-a", "loss_db": math.nan}, "loss_db"),
        ({"kind": "bend", "link": "trunk-a"}, "loss_db"),
        ({"kind": "bend", "link": "", "loss_db": 1}, "link"),
        ({"kind": "bend", "link": "trunk-a", "loss_db": 1, "loss": 1}, "loss"),
        ({"kind": "eavesdropper", "link": "trunk-a", "fraction": 1.1}, "fraction"),
        ({"kind": "drift", "link": "trunk-a", "db_per_s": 1, "max_db": 0}, "max_db"),
        ({"kind": "flood", "link": "trunk-a"}, "kind"),
        ({"link": "trunk-a"}, "kind"),
        ([], "kind"),
        (None, "kind"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_by_field(asked: object, field: str) -> None:
    with pytest.raises(WrongFault) as refused:
        parse(asked)
    assert [each for each, _ in refused.value.errors] == [field]
    assert str(refused.value).startswith(f"{field}: ")


def test_the_log_of_light_keeps_every_state_and_a_bounded_past() -> None:
    log = LightLog(kept=3)
    half, whole, dark = (lit(crossed=crossed) for crossed in ({"ocs1": OVER_A["ocs1"]}, OVER_A, {}))
    for now_s, state in ((1, dark), (2, half), (2, whole), (3, whole), (4, dark)):
        log.note(state.rays, now_s)
    told = [each.told() for each in log.intervals()]
    assert [(each["from_s"], each["until_s"], each["ways"][0][-1]) for each in told] == [
        (1, 2, "ocs1:1"),
        (2, 2, "ocs2:1"),
        (2, 4, "bob:q9"),
        (4, None, "ocs1:1"),
    ]
    assert told[2]["transmitter"] == "alice/q9" and told[2]["ways"] == [["ocs1:1", "ocs1:9", "ocs2:1", "ocs2:9", "bob:q9"]]
    log.note(whole.rays, 5)
    assert (log.forgotten, len(log.intervals()), log.intervals()[0].from_s) == (1, 4, 2)
