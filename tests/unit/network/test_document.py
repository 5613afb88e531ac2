from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controller.network import document
from controller.network.document import WrongDocument

TOPOLOGIES = Path(document.__file__).parents[2] / "topologies"
TEN_FAULTS = Path(__file__).parents[2] / "data" / "ten_faults.yaml"


def faults(text: str) -> list[str]:
    with pytest.raises(WrongDocument) as wrong:
        document.parse(text, "net.yaml")
    return str(wrong.value).splitlines()


def attached(host: str, rate_mbps: str = "10") -> str:
    """A node that is attached to the classical network by a host: h1 can be it, h2 has no address of the network, h3 no cable."""
    return f"""name: n
nodes:
  s1: {{kind: openflow-switch, dpid: "0000000000000001"}}
  h1: {{kind: host, mac: "02:00:00:00:00:01", ip: 10.0.0.1}}
  a: {{kind: end-node, classical: {{host: {host}, max_latency_ms: 5, rate_mbps: {rate_mbps}}}}}
  h2: {{kind: host, mac: "02:00:00:00:00:02"}}
  h3: {{kind: host, mac: "02:00:00:00:00:03", ipv6: "fd00::3"}}
links:
  - {{kind: ethernet, ends: ["h1:1", "s1:1"]}}
  - {{kind: ethernet, ends: ["h2:1", "s1:2"]}}
"""


def test_an_attachment_to_a_host_that_can_be_reached_is_right() -> None:
    found = document.parse(attached("h1"))
    classical = found.node("a").classical
    assert classical is not None and (classical.host, classical.max_latency_ms, classical.rate_mbps) == ("h1", 5.0, 10.0)
    assert document.parse(document.dump(found)).node("a") == found.node("a")


@pytest.mark.parametrize("name", ["sandbox", "secoqc"])
def test_shipped_networks_are_right_and_survive_writing(name: str) -> None:
    first = document.load(TOPOLOGIES / f"{name}.yaml")
    second = document.parse(document.dump(first))
    assert dict(first.nodes()) == dict(second.nodes())
    assert list(first.links()) == list(second.links())
    assert (second.name, second.description) == (first.name, first.description)


def test_ten_faults_are_ten_lines_each_with_line_path_and_remedy() -> None:
    with pytest.raises(WrongDocument) as wrong:
        document.load(TEN_FAULTS)
    lines = str(wrong.value).splitlines()
    assert len(lines) == 10
    written = TEN_FAULTS.read_text().splitlines()
    for line in lines:
        file, number, path, told = line.split(":", 3)
        assert file == str(TEN_FAULTS)
        assert ", " in told
        last = path.strip().split(".")[-1].split("[")[0]
        assert last in ("links", "ends", "s1") or last in written[int(number) - 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "net.yaml:1: : the document is not a mapping"),
        ("name: [", ": : not YAML"),
        ("name: n\nnode: {}", "net.yaml:2: node: unknown field 'node', did you mean nodes?"),
        ("name: n\nnodes:\n  a: {kind: host}\n  a: {kind: host}", "net.yaml:4: nodes.a: the key is given twice"),
        ("name: n\nnodes: [a]", "net.yaml:2: nodes: nodes is not a mapping"),
        ("name: n\nnodes: []", "net.yaml:2: nodes: nodes is not a mapping"),
        ("name: n\nlinks: {}", "net.yaml:2: links: links is not a list"),
        ("name: n\nnodes:\n  a: {kind: host}\n  [x]: {kind: host}", "net.yaml:4: nodes[1]: the key is not plain text, use a name as key"),
        ("name: n\nlinks:\n  - {kind: fibre, ends: [a, b], length_km: true}", "net.yaml:3: links[0].length_km: length_km is 'true'"),
        ("name: n\nlinks:\n  - {kind: qkd, ends: [a, b], rate_bps: on}", "net.yaml:3: links[0].rate_bps: rate_bps is 'on'"),
        ("name: n\nlinks:\n  - {kind: qkd, ends: [a, b], rate_bps: 1:30}", "net.yaml:3: links[0].rate_bps: rate_bps is '1:30'"),
        ("name: n\nnodes: {a: {kind: repeater, memories: true}}", "net.yaml:2: nodes.a.memories: memories is 'true'"),
        ("name: n\nnodes: {a: {kind: repeater, swap: {success: yes}}}", "net.yaml:2: nodes.a.swap.success: success is 'yes'"),
        (
            "name: n\nlinks: [{kind: ethernet, ends: [1, a]}]",
            'net.yaml:2: links[0].ends[0]: ends[0] is a number where text belongs, put it in quotes, as in "1"',
        ),
        ("name: n\nnodes: {p: {kind: passive, ports: 2, losses_db: {1-5: 3}}}", "net.yaml:2: nodes.p.losses_db.1-5: p has no port '5'"),
        (
            "name: n\nnodes: {p: {kind: passive, ports: 2, losses_db: {1-1: 3}}}",
            "net.yaml:2: nodes.p.losses_db.1-1: both ports are the same",
        ),
        ("name: n\nnodes: {a: 3}", "net.yaml:2: nodes.a: the entry is not a mapping"),
        ("name: n\nlinks:\n  - {kind: fibre, ends: [a], length_km: .nan}", "net.yaml:3: links[0].length_km: "),
        ("name: n\nnodes: {a: {kind: end-node}, b: {kind: end-node}}\nlinks: [{kind: qkd, ends: [a, b]}]", "neither rate_bps nor fibres"),
        ("name: n\nnodes: {a: {kind: end-node}}\nlinks: [{kind: qkd, ends: [a, a], rate_bps: 1}]", "both ends are at the same node"),
        ("name: n\nnodes: &n {a: *n}", "net.yaml:2: nodes.a: "),
        ("name: n\nnodes: {s: {kind: optical-switch, ports: 5}}", "a dual-sided switch with 5 ports"),
        ("name: n\nnodes: {r: {kind: repeater, t1_s: 1, t2_s: 2.5}}", "net.yaml:2: nodes.r.t2_s: t2_s 2.5 is more than twice t1_s 1"),
        (attached("x"), "net.yaml:5: nodes.a.classical.host: no node named 'x', name a host of this document"),
        (attached("s1"), "net.yaml:5: nodes.a.classical.host: 's1' is of kind openflow-switch, name a host"),
        (
            attached("h2"),
            "net.yaml:5: nodes.a.classical.host: h2 has no addresses for packets to be sent to, give h2 a mac, and an ip or ipv6",
        ),
        (attached("h3"), "net.yaml:5: nodes.a.classical.host: no ethernet link ends at h3, join h3 with an openflow-switch"),
        (attached("h1", rate_mbps="0"), "net.yaml:5: nodes.a.classical.rate_mbps: "),
        (attached("h1", rate_mbps="1").replace(", max_latency_ms: 5", ""), "net.yaml:5: nodes.a.classical.max_latency_ms: "),
        (
            "name: n\nnodes: {s: {kind: passive, ports: 2, classical: {host: h, max_latency_ms: 1, rate_mbps: 1}}}",
            "net.yaml:2: nodes.s.classical: ",
        ),
        (
            "name: n\nnodes: {a: {kind: end-node, kme: 'h:99999'}}",
            "net.yaml:2: nodes.a.kme: 'h:99999' ends in no port, give one from 1 to 65535",
        ),
        (
            "name: n\nnodes: {o: {kind: optical-switch, ports: 4, address: '[::1]:0'}}",
            "net.yaml:2: nodes.o.address: '[::1]:0' ends in no port",
        ),
        ("name: n\nnodes: {s: {kind: wavelength-switch, driver: scpi}}", "nodes.s.driver: a wavelength-switch is not driven over SCPI"),
        (
            "name: n\nnodes: {s: {kind: optical-switch, ports: 4, sides: single, driver: scpi}}",
            "a single-sided switch is not driven over SCPI",
        ),
    ],
)
def test_a_fault_names_its_line_and_path(text: str, expected: str) -> None:
    assert any(expected in line for line in faults(text)), faults(text)


def test_a_port_has_one_name() -> None:
    text = """
name: n
nodes:
  o: {kind: optical-switch, ports: 8}
  p: {kind: passive, ports: 2, bands: {"02": [1549, 1551]}}
  a: {kind: end-node, modules: {q: {role: tx, port: "o:002"}}}
  s: {kind: openflow-switch, dpid: "0000000000000001"}
  h: {kind: host}
links:
  - {kind: fibre, ends: ["p:1", "o:01"], length_km: 1}
  - {kind: ethernet, ends: ["h:1", "s:07"]}
"""
    assert faults(text) == [
        "net.yaml:5: nodes.p.bands.02: p has no port '02', write 2",
        "net.yaml:6: nodes.a.modules.q.port: o has no port '002', write 2",
        "net.yaml:10: links[0].ends[1]: o has no port '01', write 1",
        "net.yaml:11: links[1].ends[1]: s has no port '07', write 7",
    ]


def test_parallel_links_must_be_told_apart() -> None:
    text = "name: n\nnodes: {a: {kind: end-node}, b: {kind: end-node}}\nlinks:\n"
    text += "  - {kind: fibre, ends: [a, b], length_km: 1}\n" * 2
    assert faults(text) == [
        "net.yaml:5: links[1]: a second link with id fibre:a--b (the first is links[0]), give parallel links an id each",
    ]


def test_over_must_lead_from_end_to_end() -> None:
    text = """
name: n
nodes: {a: {kind: end-node}, b: {kind: end-node}, c: {kind: trusted-node}}
links:
  - {kind: fibre, ends: [a, c], length_km: 1}
  - {kind: qkd, ends: [a, b], over: ["fibre:a--c"]}
"""
    assert faults(text) == ["net.yaml:6: links[1].over: these fibres do not join a and b, list the fibres from one end to the other"]


@given(st.lists(st.sampled_from(["a-m", "m-n", "n-b", "m-b", "a-b", "m-b 2", "c-d"]), min_size=1, max_size=5))
def test_over_is_one_way_and_has_each_fibre_once(over: list[str]) -> None:
    fibres = ["a-m", "m-n", "n-b", "m-b", "a-b", "m-b 2", "c-d"]
    kinds = {"a": "end-node", "b": "end-node", "m": "passive", "n": "optical-switch, ports: 8", "c": "end-node", "d": "end-node"}
    text = f"name: n\nnodes: {{{', '.join(f'{name}: {{kind: {kind}}}' for name, kind in kinds.items())}}}\nlinks:\n"
    ids = {fibre: fibre.replace(" ", "-") for fibre in fibres}
    text += "".join(f"  - {{kind: fibre, id: {ids[fibre]}, ends: [{fibre[0]}, {fibre[2]}], length_km: 1}}\n" for fibre in fibres)
    text += f"  - {{kind: qkd, ends: [a, b], over: [{', '.join(ids[fibre] for fibre in over)}]}}\n"
    ways = [{"a-b"}, {"a-m", "m-b"}, {"a-m", "m-b 2"}, {"a-m", "m-n", "n-b"}]
    if set(over) in ways and len(over) == len(set(over)):
        assert document.parse(text).link("qkd:a--b").fibres == tuple(ids[fibre] for fibre in over)
    else:
        (told,) = faults(text)
        assert told.startswith("net.yaml:11: links[7].over: these fibres ")


def test_light_ends_at_the_node_where_its_fibre_does() -> None:
    text = """
name: n
nodes: {a: {kind: end-node}, b: {kind: end-node}, c: {kind: trusted-node}}
links:
  - {kind: fibre, id: f, ends: [a, c], length_km: 1}
  - {kind: fibre, id: g, ends: [c, b], length_km: 1}
  - {kind: qkd, ends: [a, b], over: [f, g]}
"""
    assert faults(text) == [
        "net.yaml:7: links[2].over: the light ends on the way at c, a trusted-node, end the link there, or lead the fibres around"
    ]


@pytest.mark.parametrize("name", ["id: f, ends: [a, b]", "ends: [a, b]"])
def test_a_faulty_fibre_is_told_once_and_not_by_those_that_ride_on_it(name: str) -> None:
    rider = "f" if "id" in name else "fibre:a--b"
    text = f"""
name: n
nodes: {{a: {{kind: end-node}}, b: {{kind: end-node}}}}
links:
  - {{kind: fibre, {name}, length_km: -1}}
  - {{kind: qkd, ends: [a, b], over: ["{rider}"]}}
  - {{kind: qkd, id: other, ends: [a, b], over: [elsewhere]}}
"""
    assert faults(text) == [
        "net.yaml:5: links[0].length_km: length_km is -1, give a value of at least 0.0",
        "net.yaml:7: links[2].over[0]: no link with id 'elsewhere', name a fibre of this document by its id",
    ]


def test_switched_modules_must_fit() -> None:
    text = """
name: n
nodes:
  a: {kind: end-node, modules: {q: {role: tx, technology: cow, port: "o:1"}}}
  b: {kind: end-node, modules: {q: {role: tx, port: "o:1"}}}
  o: {kind: optical-switch, ports: 4}
links:
  - {kind: qkd, ends: [a/q, b/q], over: switched}
"""
    told = "\n".join(faults(text))
    assert "port o:1 is taken by a/q" in told
    assert "both modules have role tx" in told
    assert "a cow module cannot talk to a bb84-decoy one" in told


scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=8
)
node_like = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["host", "repeater", "optical-switch"]) | values,
        "ports": values,
        "swap": values,
        "modules": values,
        "location": values,
    },
)
link_like = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["fibre", "qkd"]) | values,
        "ends": st.just(["a", "b"]) | values,
        "over": values,
        "length_km": values,
        "windows": values,
    },
)


@given(st.dictionaries(st.sampled_from(["a", "b", "é", ""]), node_like | values, max_size=3), st.lists(link_like | values, max_size=3))
def test_any_document_is_read_or_refused_with_faults(nodes: object, links: object) -> None:
    text = yaml.safe_dump({"name": "n", "nodes": nodes, "links": links})
    try:
        document.parse(text, "f")
    except WrongDocument as wrong:
        assert wrong.faults
        assert all(fault.line >= 1 and fault.what and fault.remedy for fault in wrong.faults)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(WrongDocument):
        document.parse(data, "f")


NUMBERS = {
    "repeater": ["t1_s", "t2_s", "memories"],
    "optical-switch": ["ports", "insertion_loss_db"],
    "fibre": ["length_km", "loss_db", "loss_db_per_km", "raman_per_km_nm"],
    "qkd": ["rate_bps", "qber"],
    "entanglement": ["rate_hz", "fidelity"],
    "ethernet": ["capacity_mbps", "latency_ms"],
}


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "-1", "1e300"])
@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind, fields in NUMBERS.items() for field in fields])
def test_a_figure_that_is_no_number_or_beyond_all_sense_is_named(kind: str, field: str, value: str) -> None:
    if kind in ("repeater", "optical-switch"):
        text, path = f"name: n\nnodes:\n  a: {{kind: {kind}, {field}: {value}}}", f"net.yaml:3: nodes.a.{field}: "
    else:
        ends = "name: n\nnodes: {a: {kind: trusted-node}, b: {kind: trusted-node}}\nlinks:"
        text, path = f"{ends}\n  - {{kind: {kind}, ends: [a, b], {field}: {value}}}", f"net.yaml:4: links[0].{field}: "
    assert any(line.startswith(path) for line in faults(text))


@pytest.mark.parametrize("value", ["0", "1.5", ".nan", "-0.1"])
def test_a_swap_that_never_succeeds_is_named(value: str) -> None:
    assert faults(f"name: n\nnodes:\n  a: {{kind: repeater, swap: {{success: {value}}}}}")[0].startswith(
        "net.yaml:3: nodes.a.swap.success: "
    )
