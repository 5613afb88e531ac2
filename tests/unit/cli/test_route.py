"""`bellhop route`: the contract that scripts rely on. Keys, exit codes, and what is said when there is no route."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controller.cli import bellhop

ENTANGLEMENT = {"nodes", "links", "rate_hz", "fidelity", "rounds", "model", "explanation"}
KEY = {"paths", "rate_bps", "trusted_nodes", "explanation"}
PATH = {"nodes", "links", "segments", "rate_bps"}
LIGHT = {"nodes", "links", "cross_connects", "loss_db"}  # and more
CLASSICAL = {"nodes", "links", "latency_ms"}  # and more


def bellhop_route(*words: str) -> Result:
    return CliRunner().invoke(bellhop, ["route", *words])


def routed(*words: str) -> dict[str, Any]:
    done = bellhop_route(*words, "-o", "json")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def refused(*words: str) -> dict[str, Any]:
    done = bellhop_route(*words, "-o", "json")
    assert done.exit_code == 3, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer.keys() == {"error", "constraint", "best"}
    return answer


def test_entanglement() -> None:
    answer = routed("entanglement", "sandbox", "alice", "bob")
    assert answer.keys() == ENTANGLEMENT
    assert answer["nodes"] == ["alice", "rep1", "rep2", "bob"]
    assert len(answer["links"]) == len(answer["rounds"]) == 3
    assert answer["model"] == "buffered"
    assert answer["rate_hz"] > 0 and 0.5 < answer["fidelity"] < 1
    assert all(isinstance(line, str) for line in answer["explanation"])


def test_entanglement_floors() -> None:
    fast = routed("entanglement", "sandbox", "alice", "bob", "--min-fidelity", "0.8")
    pure = routed("entanglement", "sandbox", "alice", "bob", "--min-rate", "1")
    both = routed("entanglement", "sandbox", "alice", "bob", "--min-fidelity", "0.9", "--min-rate", "1")
    assert both["fidelity"] >= 0.9 > fast["fidelity"] and both["rate_hz"] < fast["rate_hz"]  # the highest rate above the floor
    assert pure["fidelity"] > both["fidelity"] and pure["rate_hz"] >= 1  # the highest fidelity above the floor
    assert routed("entanglement", "sandbox", "alice", "bob", "--model", "on-demand")["model"] == "on-demand"


def test_no_entanglement_of_such_fidelity() -> None:
    answer = refused("entanglement", "sandbox", "alice", "bob", "--min-fidelity", "0.9999")
    assert answer["constraint"] == "min_fidelity"
    assert 0.9 < answer["best"] < 0.9999


def test_key() -> None:
    answer = routed("key", "secoqc", "STP", "FOR")
    assert answer.keys() == KEY
    (path,) = answer["paths"]
    assert path.keys() == PATH
    assert path["nodes"][0] == "STP" and path["nodes"][-1] == "FOR"
    assert set(path["segments"]) <= {"relay", "entanglement"}
    assert answer["trusted_nodes"] == sorted(path["nodes"][1:-1])
    assert answer["rate_bps"] == path["rate_bps"] > 0


def test_key_with_constraints() -> None:
    assert routed("key", "secoqc", "BRT", "ERD")["trusted_nodes"] == ["SIE"]  # wider than the direct link
    assert routed("key", "secoqc", "BRT", "ERD", "--prefer", "fewest-trusted-nodes")["trusted_nodes"] == []
    around = routed("key", "secoqc", "BRT", "ERD", "--avoid", "SIE", "--avoid", "STP", "--max-trusted-nodes", "1", "--shares", "2")
    assert sorted(path["nodes"] for path in around["paths"]) == [["BRT", "ERD"], ["BRT", "GUD", "ERD"]]
    assert around["trusted_nodes"] == ["GUD"]
    assert refused("key", "secoqc", "STP", "FOR", "--max-trusted-nodes", "0")["constraint"] == "max_trusted_nodes"
    too_much = refused("key", "secoqc", "STP", "FOR", "--rate", "1e9")
    assert too_much["constraint"] == "rate_bps"
    assert math.isclose(too_much["best"], routed("key", "secoqc", "STP", "FOR")["rate_bps"])


def test_key_shares_go_over_disjoint_paths() -> None:
    answer = routed("key", "sandbox", "alice", "bob", "--shares", "2")
    first, second = (set(path["nodes"][1:-1]) for path in answer["paths"])
    assert first and second
    assert first.isdisjoint(second)
    assert set(answer["trusted_nodes"]) == first | second
    assert answer["rate_bps"] == min(path["rate_bps"] for path in answer["paths"])
    short = refused("key", "sandbox", "alice", "bob", "--shares", "5")
    assert (short["constraint"], short["best"]) == ("shares", 4)  # two relayed, one switched, one over repeaters


def test_a_split_key_adds_up() -> None:
    answer = routed("key", "secoqc", "BRT", "ERD", "--split", "2")
    assert sorted(path["nodes"] for path in answer["paths"]) == [["BRT", "GUD", "ERD"], ["BRT", "SIE", "ERD"]]
    assert answer["rate_bps"] == pytest.approx(sum(path["rate_bps"] for path in answer["paths"]))
    too_much = refused("key", "secoqc", "BRT", "ERD", "--split", "2", "--rate", "1e6")
    assert (too_much["constraint"], too_much["best"]) == ("rate_bps", pytest.approx(answer["rate_bps"]))


def test_key_from_pools_over_a_horizon() -> None:
    free = routed("key", "sandbox", "alice", "relay1", "--max-trusted-nodes", "0")["rate_bps"]
    answer = routed("key", "sandbox", "alice", "relay1", "--horizon-s", "600", "--pool", "relay1,alice=75000", "--rate", "4500")
    assert answer["rate_bps"] == pytest.approx(free + 75_000 * 8 / 600)
    lasts_s = 75_000 * 8 / (4500 - free)
    assert f"the pool of alice -- relay1 is down to its minimum after {lasts_s:.6g} s at 4500 bit/s" in answer["explanation"]


@pytest.mark.parametrize("ends", [("alice", "bob"), ("alice:q9", "bob:q9"), ("ocs1:1", "ocs2:9")], ids=" ".join)
def test_light(ends: tuple[str, str]) -> None:
    answer = routed("light", "sandbox", *ends)
    assert answer.keys() >= LIGHT
    assert [each["switch"] for each in answer["cross_connects"]] == ["ocs1", "ocs2"]
    assert all(each.keys() == {"switch", "ingress", "egress"} for each in answer["cross_connects"])
    assert answer["links"] == ["trunk-a"]
    assert math.isclose(answer["loss_db"], 2 * 0.8 + 25 * 0.2)


def test_light_beyond_the_budget() -> None:
    answer = refused("light", "sandbox", "alice", "bob", "--max-loss", "3")
    assert math.isclose(answer["best"], 6.6)


def test_classical() -> None:
    answer = routed("classical", "sandbox", "h1", "h4")
    assert answer.keys() >= CLASSICAL
    assert answer["nodes"] == ["h1", "s1", "s2", "s3", "h4"]  # 0.1 + 0.05 ms rather than 0.2 ms
    assert math.isclose(answer["latency_ms"], 0.17)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("entanglement", "sandbox", "alice", "bobb"), ("'bobb'", "did you mean bob?")),
        (("key", "sandbox", "alise", "bob"), ("'alise'", "did you mean alice?")),
        (("key", "sandbox", "alice", "bob", "--avoid", "relay"), ("'relay'", "relay1")),
        (("light", "sandbox", "alice:q7", "bob"), ("'alice:q7'",)),
        (("classical", "sandbox", "h1", "h44"), ("'h44'", "did you mean h4?")),
        (("key", "sandbx", "alice", "bob"), ("'sandbx'", "sandbox")),
        (("key", "sandbox", "alice"), ("Missing argument 'DST'",)),
        (("entanglement", "sandbox", "alice", "bob", "--min-fidelity", "1.5"), ("--min-fidelity", "1.5")),
        (("key", "sandbox", "alice", "bob", "--shares", "0"), ("--shares",)),
        (("key", "sandbox", "alice", "bob", "--shares", "2", "--split", "2"), ("--shares", "--split")),
        (("key", "sandbox", "alice", "bob", "--horizon-s", "600"), ("--horizon-s and --pool",)),
        (
            ("key", "sandbox", "alice", "bob", "--horizon-s", "600", "--pool", "alice,relay1=75000", "--pool", "relay1,alice=1"),
            ("--pool names relay1 and alice twice",),
        ),
        (("key", "sandbox", "alice", "bob", "--horizon-s", "600", "--pool", "alice=5"), ("alice=5 names no pool",)),
        (("key", "sandbox", "alice", "bob", "--horizon-s", "600", "--pool", "alice,bob=nan"), ("nan",)),
        (("key", "sandbox", "alice", "bob", "--horizon-s", "600", "--pool", "alice,rely1=5"), ("did you mean relay1",)),
    ],
)
@pytest.mark.parametrize("output", ["json", "table"])
def test_a_wrong_name_or_option_exits_2_and_names_it(words: tuple[str, ...], said: tuple[str, ...], output: str) -> None:
    done = bellhop_route(*words, "-o", output)
    assert done.exit_code == 2
    assert done.stdout == ""
    for each in said:
        assert each in done.stderr


def test_tables_are_for_people() -> None:
    shown = bellhop_route("key", "sandbox", "alice", "bob", "--shares", "2").stdout.splitlines()
    assert shown[0] == "2543 bit/s; trusted nodes: relay1, relay2, relay3"
    assert shown[2:5] == [
        "PATH  NODES                             BIT/S",
        "   1  alice - relay3 - bob           2,542.98",
        "   2  alice - relay1 - relay2 - bob  3,360.41",
    ]
    assert any("binding: relay1 -- relay2" in line for line in shown)
    for words in (("entanglement", "alice", "bob"), ("light", "alice", "bob"), ("classical", "h1", "h4")):
        done = bellhop_route(words[0], "sandbox", *words[1:])
        assert done.exit_code == 0 and len(done.stdout.splitlines()) > 5


def test_no_route_in_words() -> None:
    done = bellhop_route("entanglement", "sandbox", "alice", "bob", "--min-fidelity", "0.9999")
    assert done.exit_code == 3 and done.stdout == ""
    assert done.stderr.startswith("no route: ") and "min_fidelity, the best there is 0.97" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("entanglement", "sandbox", "alice", "bob", "--min-fidelity", "nan"),
        ("entanglement", "sandbox", "alice", "bob", "--min-rate", "inf"),
        ("key", "sandbox", "alice", "bob", "--rate", "nan"),
        ("light", "sandbox", "alice", "bob", "--max-loss", "nan"),
    ],
)
def test_what_is_no_number_is_refused_where_it_is_given(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(bellhop, ["route", *words])
    assert done.exit_code == 2 and "is no finite number" in done.stderr


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "asked.yaml"
    file.write_text(text)
    return str(file)


def test_several_classical_paths() -> None:
    answer = routed("classical", "sandbox", "s1", "s3", "--paths", "5")
    assert [path["nodes"] for path in answer["paths"]] == [["s1", "s2", "s3"], ["s1", "s3"]]
    pair = routed("classical", "sandbox", "s1", "s3", "--disjoint", "link")
    assert [path["latency_ms"] for path in pair["paths"]] == pytest.approx([0.15, 0.2])
    shown = bellhop_route("classical", "sandbox", "s1", "s3", "--disjoint", "node").stdout.splitlines()
    assert shown[0] == "2 paths from s1 to s3" and shown[3].split()[:2] == ["1", "0.15"]
    assert refused("classical", "sandbox", "h1", "h4", "--disjoint", "link")["constraint"] == "disjoint"
    assert refused("classical", "sandbox", "h1", "h4", "--min-capacity", "2000")["best"] == 1000
    assert bellhop_route("classical", "sandbox", "s1", "s3", "--paths", "2", "--disjoint", "link").exit_code == 2


DEMANDS = """
demands:
  - {src: STP, dst: FOR, rate_bps: 2000, weight: 2}
  - {src: GUD, dst: ERD, rate_bps: .inf, max_trusted_nodes: 1, avoid: [SIE]}
"""


def test_demands_share_the_key(tmp_path: Path) -> None:
    asked = written(tmp_path, DEMANDS)
    fair, most = routed("demands", "secoqc", asked), routed("demands", "secoqc", asked, "--throughput")
    assert [(grant["src"], grant["dst"]) for grant in fair["grants"]] == [("STP", "FOR"), ("GUD", "ERD")]
    assert 0 < fair["throughput_bps"] <= most["throughput_bps"] * (1 + 1e-9)
    assert all(flow["nodes"][0] == grant["src"] for grant in fair["grants"] for flow in grant["flows"])
    shown = bellhop_route("demands", "secoqc", asked).stdout.splitlines()
    assert shown[2].split("  ")[0] == "SRC" and shown[3].startswith("STP  FOR")
    flows = [flow for grant in fair["grants"] for flow in grant["flows"]]
    for line, flow in zip(shown[3:], flows, strict=False):
        assert f"{flow['rate_bps']:,.6g}  {' - '.join(flow['nodes'])}  " in line, "a row for each path"


def test_a_demand_that_gets_nothing_is_told_and_counts(tmp_path: Path) -> None:
    asked = written(tmp_path, DEMANDS + "  - {src: STP, dst: FOR, rate_bps: 1, max_trusted_nodes: 0}\n")
    done = bellhop_route("demands", "secoqc", asked, "-o", "json")
    assert done.exit_code == 3
    grants = json.loads(done.stdout)["grants"]
    assert [grant["refusal"] and grant["refusal"]["constraint"] for grant in grants] == [None, None, "max_trusted_nodes"]


LIGHTPATHS = """
requests:
  - {name: pair, priority: 1, strands: [{src: alice/q9, dst: bob/q9, max_loss_db: 12}]}
  - {name: probe, strands: [{src: relay1, dst: relay2, signal: service, wavelengths_nm: [1310, 1490]}]}
"""


def test_lightpaths_for_many_requests(tmp_path: Path) -> None:
    answer = routed("lightpaths", "sandbox", written(tmp_path, LIGHTPATHS))
    assert answer["served"].keys() == {"pair", "probe"} and answer["refused"] == {}
    assert answer["served"]["pair"]["strands"][0]["links"] == ["trunk-a"]
    shown = bellhop_route("lightpaths", "sandbox", written(tmp_path, LIGHTPATHS)).stdout.splitlines()
    assert shown[2].split() == ["REQUEST", "SIGNAL", "NM", "DB", "NODES", "CROSS-CONNECTS", "REFUSED"]
    assert re.split(" {2,}", shown[3]) == ["pair", "quantum", "1,550.12", "6.6", "alice - ocs1 - ocs2 - bob", "ocs1 1-9, ocs2 1-9"]
    assert "  probe, service: 0 dBm are launched, -1.8 dBm arrive" in shown
    again = LIGHTPATHS + "  - {name: again, strands: [{src: alice/q9, dst: bob/q9}]}\n"
    done = bellhop_route("lightpaths", "sandbox", written(tmp_path, again))
    assert done.exit_code == 3
    assert done.stdout.startswith("2 of 3 served\n") and any(line.startswith("again") for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("command", "text", "expected"),
    [
        ("demands", "demands:\n  - {src: alice, dst: bobb, rate_bps: 1}\n", "2: demands[0].dst: no node named 'bobb'"),
        ("demands", "demands:\n  - {src: alice, dst: bob, rate_bps: -1}\n", "2: demands[0]: rate_bps must be at least 0, got -1"),
        (
            "demands",
            "demands:\n  - {src: alice, dst: bob, rate_bps: 1}\n  - {src: alice, rate_bps: 1}\n",
            "3: demands[1].dst: dst is missing",
        ),
        (
            "demands",
            "demands:\n  - {src: alice, dst: bob, rate_bps: 1,\n     wieght: 2}\n",
            "3: demands[0].wieght: unknown field 'wieght', did you",
        ),
        ("demands", "demands:\n  - {src: alice, dst: bob, rate_bps: yes}\n", "2: demands[0].rate_bps: rate_bps is 'yes'"),
        ("demands", "demands:\n  - {src: alice, dst: bob, rate_bps: 1, weight: 1:30}\n", "2: demands[0].weight: weight is '1:30'"),
        (
            "demands",
            "demands:\n  - {src: alice, dst: bob, rate_bps: 1}\n  - {src: alice, dst: bob, rate_bps: 1,\n     avoid: [relay1, XXX]}\n",
            "4: demands[1].avoid[1]: no node or link named 'XXX' in this network, name one of the network's",
        ),
        (
            "demands",
            "demands:\n  - {src: alice, dst: bob, rate_bps: 1, avoid: [trunk]}\n",
            "2: demands[0].avoid[0]: no node or link named 'trunk' in this network, did you mean trunk-",
        ),
        (
            "lightpaths",
            "requests:\n  - {name: a, strands: [{src: alice/q9, dst: bob/q9}]}\n  - {name: a, strands: [{src: relay1, dst: relay2}]}\n",
            "3: requests[1].name: requests[0] is named a too, give each its own name",
        ),
        ("demands", "demands: []\n", "1: demands: no list of demands"),
        ("demands", "requests: []\n", "1: requests: unknown field 'requests'"),
        ("demands", "demands: [3]\n", "1: demands[0]: the entry is not a mapping"),
        ("demands", "- 1\n", "1: : the document is not a mapping, start with demands:"),
        ("demands", "demands: [\n", "not YAML"),
        (
            "lightpaths",
            "requests:\n  - name: a\n    strands:\n      - {src: alice/q1, dst: bob}\n",
            "4: requests[0].strands[0].src: no module named 'q1'",
        ),
        ("lightpaths", "requests:\n  - {name: a, strands: []}\n", "2: requests[0]: bundle a has no strands"),
        (
            "lightpaths",
            "requests:\n  - {name: a, strands: [{src: alice, dst: bob, colour: 3}]}\n",
            "2: requests[0].strands[0].colour: unknown field 'colour'",
        ),
    ],
)
def test_a_wrong_file_of_requests_is_refused_with_line_and_path(tmp_path: Path, command: str, text: str, expected: str) -> None:
    asked = written(tmp_path, text)
    done = bellhop_route(command, "sandbox", asked)
    assert done.exit_code == 2 and done.stdout == ""
    assert any(line.startswith(f"{asked}:") and expected in line for line in done.stderr.splitlines()), done.stderr


def test_every_fault_of_a_file_of_requests_at_once(tmp_path: Path) -> None:
    text = "demands:\n  - {src: alicia, dst: bob, rate_bps: -1, x: 1}\n  - {dst: bob, rate_bps: 1}\nmore: 1\n"
    told = bellhop_route("demands", "sandbox", written(tmp_path, text)).stderr.splitlines()
    assert [line.split(":")[1] for line in told] == ["2", "2", "2", "3", "4"]


def test_a_name_that_is_not_known_does_not_make_the_fields_after_it_unknown(tmp_path: Path) -> None:
    text = "demands:\n  - {src: alice, dst: bob, avoid: [XXX], rate_bps: 1}\n"
    (told,) = bellhop_route("demands", "sandbox", written(tmp_path, text)).stderr.splitlines()
    assert "demands[0].avoid[0]: no node or link named 'XXX'" in told


def test_a_file_of_requests_that_is_not_there() -> None:
    done = bellhop_route("demands", "sandbox", "no-such.yaml")
    assert done.exit_code == 2 and "no-such.yaml: No such file" in done.stderr


PASSES = """
name: passes
nodes: {vienna: {kind: ground-station}, sat: {kind: satellite}}
links:
  - {kind: qkd, ends: [vienna, sat], rate_bps: 900, windows: [{start: 2026-03-01T12:00:00Z, end: 2026-03-01T12:07:00Z}]}
"""


def test_a_route_is_for_a_moment(tmp_path: Path) -> None:
    file = written(tmp_path, PASSES)
    answer = routed("key", file, "vienna", "sat", "--at", "2026-03-01T13:01:00+01:00")
    assert answer["holds"] == {"from": "2026-03-01T12:00:00Z", "until": "2026-03-01T12:07:00Z"}
    early = bellhop_route("key", file, "vienna", "sat", "--at", "2026-03-01T11:00")
    assert early.exit_code == 3 and "there is one from 2026-03-01T12:00:00Z on" in early.stderr
    assert "window" not in str(refused("key", file, "vienna", "sat", "--at", "2026-03-02"))
    assert bellhop_route("key", file, "vienna", "sat", "--at", "noon").exit_code == 2


def test_many_requests_in_a_slot(tmp_path: Path) -> None:
    asked = written(tmp_path, "requests:\n  - {src: alice, dst: bob}\n  - {src: alice, dst: rep1}\n")
    done = bellhop_route("slot", "sandbox", asked, "--slot", "0.02", "-o", "json")
    answer = json.loads(done.stdout)
    # one channel from alice to rep1 serves one of the two, and the shorter gives more
    assert done.exit_code == 3
    far, near = answer["requests"]
    assert far["refusal"]["constraint"] == "channels" and far["paths"] == []
    assert far["refusal"]["best"] == pytest.approx(0.9**2 * math.prod(1 - math.exp(-rate * 0.02) for rate in (120, 80, 120)))
    table = bellhop_route("slot", "sandbox", asked, "--slot", "0.02")
    assert table.exit_code == 3 and "REFUSED FOR" in table.stdout
    assert "alice -> rep1: 120 Hz (assumed), a pair in the slot with probability 0.909282, over entanglement:alice--rep1" in table.stdout
    assert near["ebits"] == pytest.approx(1 - math.exp(-120 * 0.02)) and near["paths"][0]["links"] == ["entanglement:alice--rep1"]
    alone = routed("slot", "sandbox", written(tmp_path, "requests: [{src: alice, dst: bob}]"), "--slot", "0.02")
    thrice = [1 - math.exp(-rate * 0.02) for rate in (120, 80, 120)]
    assert alone["ebits"] == pytest.approx(0.9**2 * math.prod(thrice))
    assert alone["requests"][0]["paths"][0]["channels"] == [1, 1, 1]
    assert bellhop_route("slot", "sandbox", written(tmp_path, "requests: [{src: bob, dst: bob}]")).exit_code == 2


CROSSING = """
name: n
nodes: {a: {kind: end-node}, b: {kind: end-node}, c: {kind: end-node}, r: {kind: repeater, memories: 4}}
links:
  - {kind: entanglement, ends: [a, b], rate_hz: 100, fidelity: 0.9}
  - {kind: entanglement, ends: [b, c], rate_hz: 100, fidelity: 0.9}
  - {kind: entanglement, ends: [a, r], rate_hz: 1, fidelity: 0.9}
  - {kind: entanglement, id: r1, ends: [r, c], rate_hz: 1, fidelity: 0.9}
  - {kind: entanglement, id: r2, ends: [r, c], rate_hz: 0, fidelity: 0.9}
"""


def test_only_repeaters_swap_in_a_slot(tmp_path: Path) -> None:
    network = tmp_path / "n.yaml"
    network.write_text(CROSSING)
    answer = routed("slot", str(network), written(tmp_path, "requests: [{src: a, dst: c}]"), "--slot", "1")
    assert [path["nodes"] for path in answer["requests"][0]["paths"]] == [["a", "r", "c"]]
    assert answer["requests"][0]["paths"][0]["links"] == ["entanglement:a--r", "r1"]


def test_links_of_rate_zero_are_named_as_such(tmp_path: Path) -> None:
    link = "name: n\nnodes: {a: {kind: end-node}, b: {kind: end-node}}\nlinks: [{kind: entanglement, id: e, ends: [a, b], fidelity: 0.9, rate_hz: RATE}]"
    file = written(tmp_path, link.replace("RATE", "0"))
    for model in ("buffered", "on-demand"):
        told = refused("entanglement", file, "a", "b", "--min-fidelity", "0.5", "--model", model)
        assert told["error"].endswith("; left out: e (makes no pairs, rate_hz is 0)")
    assert routed("entanglement", written(tmp_path, link.replace("RATE", "3")), "a", "b")["rate_hz"] == 3
