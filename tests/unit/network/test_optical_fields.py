"""What lightpaths read from the document beside ports and losses: signals, power limits, passbands, lit channels."""

from __future__ import annotations

import pytest

from controller.network import document
from controller.network.document import WrongDocument

NETWORK = """name: lit
nodes:
  a: {{kind: end-node, modules: {{q: {{role: tx, port: "m:2"}}, s: {{role: {role}, signal: {signal}, max_input_dbm: {limit}, port: "m:3"}}}}}}
  b: {{kind: end-node, modules: {{q: {{role: rx}}}}}}
  m: {{kind: passive, ports: 3, insertion_loss_db: 1.0, bands: {{"{port}": [{low}, {high}]}}}}
links:
  - {{kind: fibre, ends: ["m:1", "b:q"], length_km: 10, raman_per_km_nm: {raman}, channels: [{{wavelength_nm: {nm}, launch_dbm: {dbm}}}]}}
  - {{kind: qkd, ends: [a/{module}, b/q], rate_bps: 1}}
"""
RIGHT = {
    "role": "rx",
    "signal": "service",
    "limit": 3,
    "port": 3,
    "low": 1300,
    "high": 1320,
    "raman": 2e-9,
    "nm": 1560,
    "dbm": 0,
    "module": "q",
}


def test_the_fields_survive_writing() -> None:
    first = document.parse(NETWORK.format(**RIGHT))
    second = document.parse(document.dump(first))
    assert dict(first.nodes()) == dict(second.nodes()) and list(first.links()) == list(second.links())
    assert first.node("m").bands == {"3": (1300, 1320)}
    assert first.node("a").modules["s"].max_input_dbm == 3
    assert next(first.links("fibre")).channels[0].direction == "forward"


@pytest.mark.parametrize(
    ("wrong", "path", "told"),
    [
        ({"signal": "sync"}, "nodes.a.modules.s.signal", "one of quantum, service, synchronisation"),
        ({"role": "tx"}, "nodes.a.modules.s.max_input_dbm", "a transmitter takes no light"),
        ({"limit": ".nan"}, "nodes.a.modules.s.max_input_dbm", "finite"),
        ({"low": 1330}, "nodes.m.bands.3", "the band from 1330 to 1320 nm is empty"),
        ({"port": 4}, "nodes.m.bands.4", "m has no port '4'"),
        ({"high": -1}, "nodes.m.bands.3[1]", "above 0"),
        ({"nm": 800}, "links[0].channels[0].wavelength_nm", "at least 1200"),
        ({"dbm": 50}, "links[0].channels[0].launch_dbm", "at most 40"),
        ({"raman": 0.1}, "links[0].raman_per_km_nm", "at most 1e-06"),
        ({"module": "s"}, "links[1].ends[0]", "a/s carries a service signal, not a quantum one"),
    ],
)
def test_a_wrong_field_is_refused_where_it_stands(wrong: dict[str, object], path: str, told: str) -> None:
    with pytest.raises(WrongDocument) as refused:
        document.parse(NETWORK.format(**{**RIGHT, **wrong}), "net.yaml")
    lines = str(refused.value).splitlines()
    assert any(f" {path}: " in line and told in line for line in lines), lines


def test_only_a_fibre_is_lit_and_only_a_passive_node_has_bands() -> None:
    text = """name: n
nodes:
  o: {kind: optical-switch, ports: 4, bands: {"1": [1300, 1320]}}
  a: {kind: end-node}
links: [{kind: free-space, ends: [a, "o:1"], length_km: 1, channels: [{wavelength_nm: 1550, launch_dbm: 0}]}]
"""
    with pytest.raises(WrongDocument) as refused:
        document.parse(text, "net.yaml")
    assert "bands" in str(refused.value) and "channels" in str(refused.value)
