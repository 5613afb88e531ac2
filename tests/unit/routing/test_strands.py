"""Bundles of strands case by case: sharing a fibre, Raman floors, the hard rule, wavelength switches, bare ports, bad input."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from scipy.optimize import OptimizeResult

from controller.network import events
from controller.network.document import parse
from controller.network.topology import Topology, UnknownName
from controller.physics.coexistence import raman_coefficient, raman_forward_w
from controller.physics.key_rates import DecoyBb84
from controller.routing.light import programme as lightpath_programme
from controller.routing.light.plant import build
from controller.routing.lightpath import Bundle, Strand, assign, light
from controller.routing.refusal import NoRoute

METRO = """
name: metro
nodes:
  a: {{kind: end-node, modules: {{q: {{role: tx}}, s: {{role: tx, signal: synchronisation, wavelength_nm: 1570, launch_dbm: -3}}}}}}
  b: {{kind: end-node, modules: {{q: {{role: rx}}, s: {{role: rx, signal: synchronisation, wavelength_nm: 1570{limit}}}}}}}
  am: {{kind: passive, ports: 3, losses_db: {{"1-2": 0.5, "1-3": 0.5}}, bands: {{"2": [1549, 1551], "3": [1565, 1575]}}}}
  bm: {{kind: passive, ports: 3, losses_db: {{"1-2": 0.5, "1-3": 0.5}}{bands}}}
  o: {{kind: optical-switch, ports: 4, sides: single, insertion_loss_db: 1}}
  p: {{kind: optical-switch, ports: 4, sides: single, insertion_loss_db: 1}}
links:
  - {{kind: fibre, id: l1, ends: ["a:q", "am:2"], loss_db: 0}}
  - {{kind: fibre, id: l2, ends: ["a:s", "am:3"], loss_db: 0}}
  - {{kind: fibre, id: l3, ends: ["am:1", "o:1"], loss_db: 0, length_km: 0}}
  - {{kind: fibre, id: one, ends: ["o:3", "p:3"], length_km: 25{raman}}}
  - {{kind: fibre, id: two, ends: ["p:4", "o:4"], length_km: 25{raman}}}
  - {{kind: fibre, id: l4, ends: ["p:1", "bm:1"], loss_db: 0, length_km: 0}}
  - {{kind: fibre, id: l5, ends: ["bm:2", "b:q"], loss_db: 0}}
  - {{kind: fibre, id: l6, ends: ["bm:3", "b:s"], loss_db: 0}}
"""
FILTERED = ', bands: {"2": [1549, 1551], "3": [1565, 1575]}'


def metro(bands: str = FILTERED, raman: str = "", limit: str = "") -> Topology:
    return parse(METRO.format(bands=bands, raman=raman, limit=limit))


def pair(**quantum: Any) -> Bundle:
    return Bundle("pair", (Strand("a/q", "b/q", **quantum), Strand("a", "b", "synchronisation")))


def test_strands_of_a_bundle_share_a_fibre_and_its_cross_connects() -> None:
    found = assign(metro(), [pair()])
    served = found.served["pair"]
    quantum, sync = served.strands
    assert quantum.route.cross_connects == sync.route.cross_connects == served.cross_connects
    assert [(each.switch, {each.ingress, each.egress}) for each in served.cross_connects] == [("o", {1, 3}), ("p", {1, 3})]
    assert quantum.route.loss_db == pytest.approx(0.5 + 1 + 5 + 1 + 0.5)
    assert served.loss_db == pytest.approx(16)
    assert (quantum.route.wavelength_nm, sync.route.wavelength_nm) == (1550, 1570)
    assert sync.received_dbm == pytest.approx(-3 - 8)
    assert found.exact


def test_raman_noise_is_told_with_the_origin_of_its_coefficient() -> None:
    quantum = assign(metro(), [pair()]).served["pair"].strands[0]
    beta = raman_coefficient(1570, 1550)
    launched_w = 1e-3 * 10 ** ((-3 - 1.5) / 10)
    watt = raman_forward_w(launched_w, beta.beta_per_km_nm, 0.2, 25, 0.2, 0.2) * 10 ** (-1.5 / 10)
    assert quantum.noise_hz == pytest.approx(watt * 1550e-9 / (6.62607015e-34 * 299_792_458))
    lines = "\n".join(quantum.route.explanation)
    assert "(assumed, a table of unknown paper, 1570 nm to 1550 nm)" in lines
    assert "the synchronisation strand a to b, 1570 nm at -4.5 dBm into one, with the quantum light" in lines
    assert f"Raman noise: {quantum.noise_hz:.4g} photons/s in 0.2 nm at the receiver (assumed)" in lines
    declared = assign(metro(raman=", raman_per_km_nm: 2.0e-9, source: measured in the lab"), [pair()]).served["pair"].strands[0]
    assert any("2e-09 /(km nm) (declared, measured in the lab)" in line for line in declared.route.explanation)
    assert declared.noise_hz == pytest.approx((quantum.noise_hz or 0) * 2e-9 / beta.beta_per_km_nm)


def test_a_floor_of_noise_or_key_rate_is_met_or_named() -> None:
    noise_hz = assign(metro(), [pair()]).served["pair"].strands[0].noise_hz or 0.0
    assert assign(metro(), [pair(max_noise_hz=noise_hz * 1.001)]).served
    refused = assign(metro(), [pair(max_noise_hz=noise_hz * 0.999)]).refused["pair"]
    assert refused.constraint == "noise" and "more Raman noise" in refused.error
    detector = DecoyBb84(clock_hz=1e9, receiver_efficiency=0.1, misalignment_error=0.01)
    clicks = -math.expm1(-noise_hz * 1e-10 * detector.receiver_efficiency)
    noisy = replace(detector, background_yield=detector.background_yield + clicks).rate_bps(8)
    assert 0 < noisy < detector.rate_bps(8)
    assert assign(metro(), [pair(receiver=detector, gate_s=1e-10, min_rate_bps=noisy * 0.999)]).served
    assert assign(metro(), [pair(receiver=detector, gate_s=1e-10, min_rate_bps=noisy * 1.001)]).refused["pair"].constraint == "noise"
    dark = assign(metro(), [Bundle("q", (Strand("a/q", "b/q", min_rate_bps=1e9),))]).refused["q"]
    assert dark.constraint == "noise" and "8 dB" in dark.error


def test_data_of_others_in_the_glass_weigh_as_well() -> None:
    lit = ", channels: [{wavelength_nm: 1560, launch_dbm: 0}]"
    quantum = Bundle("q", (Strand("a/q", "b/q", max_noise_hz=1e12),))
    noises = []
    for text, told in (("id: one", "with"), ("id: two", "against")):
        other = "id: two" if text == "id: one" else "id: one"
        document = METRO.format(bands=FILTERED, raman=lit, limit="").replace(
            f"{{kind: fibre, {other}", f"{{kind: fibre, admin: disabled, {other}"
        )
        topology = parse(document)
        strand = assign(topology, [quantum]).served["q"].strands[0]
        # fibre two is written from p to o: what is lit forward there runs against the quantum light
        assert any(
            f"a channel of others, 1560 nm at 0 dBm into {text[4:]}, {told} the quantum light" in line for line in strand.route.explanation
        )
        assert any("Raman noise" in line for line in light(topology, "a/q", "b/q").explanation)
        assert light(topology, "b/q", "a/q").explanation[-2] == light(topology, "a/q", "b/q").explanation[-2]
        noises.append(strand.noise_hz or 0.0)
    assert noises[1] > noises[0] > 0
    near = METRO.format(bands=FILTERED, raman=lit.replace("1560", "1550.3"), limit="")
    assert assign(parse(near), [quantum]).refused["q"].constraint == "reachability"
    with pytest.raises(NoRoute):
        light(parse(near), "a/q", "b/q")


def test_no_classical_light_into_a_quantum_receiver_by_whatever_way() -> None:
    unfiltered = metro(bands="")
    assert assign(unfiltered, [pair()]).refused["pair"].constraint == "power"
    with pytest.raises(NoRoute) as refused:
        light(unfiltered, "a/s", "b/s")
    assert refused.value.constraint == "power" and "b:q" in refused.value.error
    # port to port, with the modules only behind the ports
    with pytest.raises(NoRoute) as refused:
        light(unfiltered, "o:1", "p:1")
    assert refused.value.constraint == "power"
    assert light(metro(), "o:1", "p:1").loss_db == 7
    # straight at it, and under a false name
    with pytest.raises(NoRoute) as refused:
        light(metro(), "a/s", "b/q")
    assert refused.value.constraint == "power"
    for strand in (Strand("a/s", "b/q"), Strand("a/q", "b/q", "service"), Strand("o:1", "b/q", "service", wavelengths_nm=(1550,))):
        assert assign(metro(), [Bundle("x", (strand,))]).refused["x"].constraint == "power"
    assert assign(metro(), [Bundle("x", (Strand("a/s", "b/s"),))]).refused["x"].constraint == "ends"


def test_power_limits() -> None:
    sync = Bundle("s", (Strand("a/s", "b/s", "synchronisation"),))
    assert assign(metro(limit=", max_input_dbm: -10.9"), [sync]).served
    refused = assign(metro(limit=", max_input_dbm: -11.1"), [sync]).refused["s"]
    assert (refused.constraint, refused.best) == ("power", pytest.approx(-11))
    for launch_dbm, serves in ((-43, True), (-41, False)):
        quantum = Bundle("q", (Strand("a/q", "b/q", launch_dbm=launch_dbm),))
        assert bool(assign(metro(), [quantum]).served) is serves


COLOURED = """
name: coloured
nodes:
  a: {kind: end-node, modules: {q: {role: tx, wavelength_nm: 1550.12}, s: {role: tx, signal: service, wavelength_nm: 1550.92, launch_dbm: -30}}}
  b: {kind: end-node, modules: {q: {role: rx, wavelength_nm: 1550.12}, s: {role: rx, signal: service, wavelength_nm: 1550.92}}}
  v: {kind: wavelength-switch, ports: 4, insertion_loss_db: 5}
  w: {kind: wavelength-switch, ports: 4, insertion_loss_db: 5}
links:
  - {kind: fibre, id: l1, ends: ["a:q", "v:1"], loss_db: 0}
  - {kind: fibre, id: l2, ends: ["a:s", "v:2"], loss_db: 0}
  - {kind: fibre, id: l3, ends: ["v:4", "w:4"], length_km: 10}
  - {kind: fibre, id: l4, ends: ["w:1", "b:q"], loss_db: 0}
  - {kind: fibre, id: l5, ends: ["w:2", "b:s"], loss_db: 0}
"""


def test_a_wavelength_switch_is_crossed_in_a_media_channel() -> None:
    route = light(parse(COLOURED), "a/q", "b/q")
    told = route.to_json()["media_channels"]
    assert isinstance(told, list) and [(each["switch"], each["ingress"], each["egress"]) for each in told] == [("v", 1, 4), ("w", 4, 1)]
    for each in told:
        lower, upper = each["lower_frequency_mhz"], each["upper_frequency_mhz"]
        assert lower < 299_792_458 / 1550.12 * 1000 < upper
        assert upper - lower == 37_500 and (lower - 193_100_000) % 6250 == 0
    assert route.loss_db == 12 and route.cross_connects == ()
    assert "media_channels" not in light(metro(), "a/q", "b/q").to_json()
    with pytest.raises(NoRoute):  # nobody says which wavelength it is
        light(parse(COLOURED), "v:1", "w:1")


def test_wavelengths_in_one_fibre_keep_the_guard() -> None:
    bundles = [Bundle(name, (Strand(f"a/{name}", f"b/{name}", signal),)) for name, signal in (("q", "quantum"), ("s", "service"))]  # type: ignore[arg-type]
    both = assign(parse(COLOURED), bundles)
    channels = sorted(
        (each.lower_frequency_mhz, each.upper_frequency_mhz)
        for served in both.served.values()
        for each in served.media_channels
        if each.switch == "v"
    )
    assert len(channels) == 2 and channels[0][1] < channels[1][0]
    wide = assign(parse(COLOURED), bundles, guard_ghz=100)  # they are 99.8 GHz apart
    assert len(wide.served) == 1 and wide.refused.popitem()[1].constraint == "ports"  # type: ignore[attr-defined]
    first = assign(parse(COLOURED), [bundles[0], Bundle("s", bundles[1].strands, priority=1)], guard_ghz=100)
    assert set(first.served) == {"s"}
    tuned = Strand("a/s", "b/s", "service", wavelengths_nm=(1550.12, 1550.2, 1549.3))
    assert assign(parse(COLOURED), [bundles[0], Bundle("s", (tuned,))]).served["s"].strands[0].route.wavelength_nm == 1549.3


TRUNKS = """
name: trunks
nodes:
  a: {kind: end-node, modules: {t1: {role: tx, port: "o:1"}, t2: {role: tx, port: "o:2"}}}
  b: {kind: end-node, modules: {r1: {role: rx, port: "p:1"}, r2: {role: rx, port: "p:2"}}}
  o: {kind: optical-switch, ports: 8, insertion_loss_db: 1}
  p: {kind: optical-switch, ports: 8, insertion_loss_db: 1, sides: single}
links:
  - {kind: fibre, id: f5, ends: ["o:5", "p:5"], length_km: 5}
  - {kind: fibre, id: f6, ends: ["o:6", "p:6"], length_km: 5}
  - {kind: fibre, id: f7, ends: ["o:7", "p:7"], length_km: 10}
"""
BOTH = [Bundle("1", (Strand("a", "b"),)), Bundle("2", (Strand("a", "b"),))]


def links(topology: Topology, bundles: list[Bundle], **more: Any) -> list[str]:
    found = assign(topology, bundles, **more)
    return sorted(link for served in found.served.values() for strand in served.strands for link in strand.route.links)


def test_parallel_trunks_are_interchangeable_until_somebody_names_one() -> None:
    topology = parse(TRUNKS)
    assert links(topology, BOTH, candidates=1) == ["f5", "f6"]
    assert links(topology, BOTH, taken={("p", "5")}) == ["f6", "f7"]
    assert links(topology, [*BOTH, Bundle("test", (Strand("o:3", "o:5"),), priority=-1)]) == ["f6", "f7"]
    assert links(topology, [BOTH[0], Bundle("test", (Strand("o:3", "o:5"),), 1), Bundle("tap", (Strand("p:6", "p:8"),), 1)]) == ["f7"]
    topology.apply(events.LinkStateChanged("f6", up=False))
    assert links(topology, BOTH) == ["f5", "f7"]
    assert assign(topology, BOTH, taken={("o", "1"), ("o", "2")}).refused["1"].constraint == "ports"


def test_what_bounds_an_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    topology = parse(TRUNKS)
    three = [*BOTH, Bundle("3", (Strand("o:3", "p:3"),)), Bundle("4", (Strand("o:4", "p:4"),))]
    bounded = assign(topology, three, candidates=1)
    assert not bounded.exact and len(bounded.served) == 2
    assert any("more ways than the 1 of least loss" in line for line in bounded.explanation)
    whole = assign(topology, three)
    assert whole.exact and len(whole.served) == 3 and set(whole.to_json()) == {"served", "refused", "exact", "explanation"}
    monkeypatch.setattr(lightpath_programme, "milp", lambda *_, **__: OptimizeResult(x=None, status=1))
    ended = assign(topology, three)
    assert not ended.exact and not ended.served and "the search was ended after 10 s" in ended.explanation[-1]


def test_the_plant_follows_the_topology() -> None:
    topology = parse(TRUNKS)
    first = build(topology)
    topology.apply(events.LinkMeasured("f5", "loss_db", 3.0))
    assert build(topology) is not first and light(topology, "a/t1", "b/r1").links == ("f6",)
    second = build(topology)
    topology.apply(events.LinkMeasured("f5", "loss_db", 3.0))
    assert build(topology) is second
    topology.apply(events.AdminChanged("node", "a", "disabled"))  # no fibre leads to a, only patch cords
    with pytest.raises(NoRoute):
        light(topology, "a", "b")
    topology.apply(events.AdminChanged("node", "a", "enabled"))
    topology.apply(events.LinkRemoved("f6"))
    assert light(topology, "a/t1", "b/r1").loss_db == 4 and light(topology, "a/t1", "b/r1").links == ("f7",)
    assert light(topology, "a", "b", plant=build(topology, avoid=["f7"])).links == ("f5",)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"launch_dbm": math.nan}, "launch_dbm"),
        ({"max_loss_db": -1}, "max_loss_db"),
        ({"wavelengths_nm": (0.0,)}, "wavelengths_nm"),
        ({"min_rate_bps": math.inf}, "min_rate_bps"),
        ({"max_noise_hz": math.nan}, "max_noise_hz"),
        ({"gate_s": 0.0}, "gate_s"),
        ({"signal": "light"}, "signal"),
        ({"signal": "service", "max_noise_hz": 1.0}, "this one is classical"),
    ],
)
def test_a_wrong_strand_names_its_field(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Strand("a", "b", **wrong)


def test_wrong_requests() -> None:
    topology = parse(TRUNKS)
    for wrong, told in (({"guard_ghz": 1.0}, "guard_ghz"), ({"candidates": 0}, "candidates"), ({"time_limit_s": math.nan}, "time_limit_s")):
        with pytest.raises(ValueError, match=told):
            assign(topology, BOTH, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one name"):
        assign(topology, [BOTH[0], BOTH[0]])
    with pytest.raises(ValueError, match="no strands"):
        Bundle("none", ())
    with pytest.raises(ValueError, match="max_loss_db"):
        light(topology, "a", "b", max_loss_db=math.nan)
    with pytest.raises(UnknownName, match="carol"):
        assign(topology, [Bundle("x", (Strand("carol", "b"),))])
    nothing = assign(topology, [])
    assert nothing.exact and not nothing.served and not nothing.refused
    assert assign(topology, [Bundle("x", (Strand("a", "a"),))]).refused["x"].constraint == "ends"
