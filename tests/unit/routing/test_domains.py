"""The edge of every router: whatever figures a network has and whatever is asked, the answer is numbers, a refusal, or a ValueError by name."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.network.events import LinkMeasured
from controller.network.model import Link, Module, Node, Swap
from controller.network.topology import Topology, UnknownName
from controller.routing import classical, entanglement, key_relay, lightpath, slots
from controller.routing.keys import allocation, pools
from controller.routing.refusal import NoRoute

EDGES = [0.0, -0.0, 5e-324, 1e-300, 1e-16, 0.25, 0.5, 1.0, 1 + 1e-9, 2.0, 1e16, 1e300, 1.7e308, -1.0, math.nan, math.inf, -math.inf]
anything = st.sampled_from(EDGES) | st.floats(0, 1) | st.floats(0, 1e4) | st.floats()
legal = st.sampled_from([0.0, 5e-324, 1e-300, 1e-9, 1.0, 1e9, 1e30]) | st.floats(0, 1e4)
positive = legal.filter(lambda value: value >= 1e-30)
numbers_of = st.integers(-2, 40)
NODES = ["a", "m", "n", "b", "r", "x", "alone"]


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    """Two ends, a trusted node and two repeaters between them, a switch of each kind, and a node by itself; figures from their edges."""

    def swap() -> Swap:
        return Swap(success=draw(positive.filter(lambda value: value <= 1)), fidelity=draw(st.floats(0.25, 1)))

    memory = st.none() | positive
    nodes = {
        "a": Node(kind="end-node", t2_s=draw(memory), modules={"q": Module(role="tx", port="x:1")}),
        "b": Node(kind="end-node", t2_s=draw(memory), modules={"q": Module(role="rx", port="x:5")}),
        "m": Node(kind="repeater", t1_s=draw(memory), t2_s=draw(memory), swap=swap(), memories=draw(st.none() | st.integers(1, 9))),
        "n": Node(kind="repeater", swap=swap()),
        "r": Node(kind="trusted-node"),
        "x": Node(kind="optical-switch", ports=8, insertion_loss_db=draw(legal)),
        "s": Node(kind="openflow-switch", dpid="0000000000000001"),
        "h": Node(kind="host"),
        "i": Node(kind="host"),
        "alone": Node(kind="trusted-node"),
    }
    pairs = ("am", "mb", "an", "nb", "mn")
    fidelity = st.floats(0.25, 1) | st.sampled_from([0.25, 0.5, 1.0])
    links = [
        Link(kind="entanglement", id=f"e{pair}", ends=(pair[0], pair[1]), rate_hz=draw(legal), fidelity=draw(fidelity)) for pair in pairs
    ]
    links += [Link(kind="qkd", id=f"q{pair}", ends=(pair[0], pair[1]), rate_bps=draw(legal)) for pair in ("ar", "rb", "ab")]
    links.append(Link(kind="fibre", id="f", ends=("a", "r"), length_km=draw(legal), loss_db_per_km=draw(positive)))
    links.append(Link(kind="qkd", id="over", ends=("a", "r"), over=("f",)))
    links.append(Link(kind="qkd", id="lit", ends=("a/q", "b/q"), over="switched"))
    for host in "hi":
        links.append(
            Link(kind="ethernet", id=f"w{host}", ends=(host, "s"), capacity_mbps=draw(positive), latency_ms=draw(st.none() | legal))
        )
    topology = Topology("edges", nodes, links)
    if draw(st.booleans()):
        topology.apply(LinkMeasured(draw(st.sampled_from(["qar", "over", "lit"])), "rate_bps", draw(legal)))
    return topology


floats = st.none() | anything
CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, st.SearchStrategy[Any]]]] = {
    "entanglement": (
        entanglement.entanglement,
        ("a", "b"),
        {"min_fidelity": floats, "min_rate_hz": floats, "model": st.sampled_from(["buffered", "on-demand", "other"])},
    ),
    "key": (
        key_relay.key,
        ("a", "b"),
        {
            "rate_bps": anything,
            "prefer": st.sampled_from(["widest", "fewest-trusted-nodes", "other"]),
            "shares": numbers_of,
            "split": numbers_of,
            "max_trusted_nodes": st.none() | numbers_of,
            "reserved": st.none() | st.dictionaries(st.sampled_from(["qar", "qrb", "eam"]), anything, max_size=2),
            "pool_bytes": st.none() | st.dictionaries(st.sampled_from([("a", "r"), ("b", "r"), ("r", "r")]), anything, max_size=2),
            "minimum_bytes": anything,
            "horizon_s": anything,
        },
    ),
    "light": (lightpath.light, ("a", "b"), {"max_loss_db": floats}),
    "classical": (classical.classical, ("h", "i"), {"min_capacity_mbps": floats}),
    "k_shortest": (
        lambda then, src, dst, paths, **more: classical.k_shortest(then, src, dst, paths, **more),
        ("h", "i"),
        {"paths": numbers_of, "min_capacity_mbps": floats},
    ),
    "disjoint_pair": (classical.disjoint_pair, ("h", "i"), {"min_capacity_mbps": floats}),
    "slot": (lambda then, src, dst, slot_s: slots.slot(then, [slots.Pair(src, dst)], slot_s), ("a", "b"), {"slot_s": anything}),
    "allocate": (
        lambda then, src, dst, rate_bps, weight, **more: allocation.allocate(then, [allocation.Demand(src, dst, rate_bps, weight)], **more),
        ("a", "b"),
        {
            "rate_bps": anything,
            "weight": anything,
            "objective": st.sampled_from(["max-min", "throughput", "other"]),
            "cost_factor": anything,
            "minimum_bytes": anything,
            "horizon_s": anything,
            "pool_bytes": st.none() | st.dictionaries(st.just(("a", "r")), anything, max_size=1),
        },
    ),
    "assign": (
        lambda then, src, dst, **more: lightpath.assign(then, [lightpath.Bundle("b", (lightpath.Strand(f"{src}/q", f"{dst}/q", **more),))]),
        ("a", "b"),
        {
            "max_loss_db": floats,
            "max_noise_hz": floats,
            "min_rate_bps": floats,
            "filter_nm": anything,
            "gate_s": anything,
            "launch_dbm": floats,
        },
    ),
}


def told(answer: Any) -> Iterator[Any]:
    if hasattr(answer, "to_json"):
        yield from told(answer.to_json())
    elif isinstance(answer, dict):
        for each in answer.values():
            yield from told(each)
    elif isinstance(answer, list | tuple):
        for each in answer:
            yield from told(each)
    else:
        yield answer


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(data=st.data())
def test_an_answer_is_numbers_or_a_refusal_or_names_what_is_wrong(name: str, data: st.DataObject) -> None:
    function, ends, wanted = CALLS[name]
    ends = data.draw(st.just(ends) | st.tuples(st.sampled_from(NODES), st.sampled_from(NODES)))
    # few at once, so that not every call is refused for some figure
    chosen = data.draw(st.sets(st.sampled_from(sorted(wanted)), max_size=2))
    needed = set() if name not in ("k_shortest", "slot", "allocate") else {"paths", "slot_s", "rate_bps", "weight"} & wanted.keys()
    arguments = {each: data.draw(wanted[each], label=each) for each in sorted(chosen | needed)}
    try:
        answer = function(data.draw(networks()), *ends, **arguments)
    except NoRoute as refused:
        assert refused.constraint and refused.error
        assert refused.best is None or math.isfinite(refused.best), refused
        assert not re.search(r"\bnan\b", str(refused))
        return
    except UnknownName:
        return
    except ValueError as wrong:
        assert any(re.search(rf"\b{each}\b", str(wrong)) for each in {*wanted, "swaps", "k", "requests"}), wrong
        return
    for each in told(answer):
        assert not isinstance(each, float) or math.isfinite(each) or each == arguments.get("rate_bps"), answer
        assert not isinstance(each, str) or not re.search(r"\bnan\b", each), answer


@pytest.mark.parametrize("function", [pools.width_bps, pools.time_to_empty_s, pools.link_cost_factor, pools.pool_state])
@given(data=st.data())
def test_pools(function: Callable[..., Any], data: st.DataObject) -> None:
    kinds = {"before": st.sampled_from(["READY", "EMPTY"]), "key_bits": numbers_of, "tag_bits": numbers_of, "batch": numbers_of}
    parameters = inspect.signature(function).parameters.values()
    values = {each.name: data.draw(kinds.get(each.name, anything), label=each.name) for each in parameters}
    places = [values[each.name] for each in parameters if each.kind is not each.KEYWORD_ONLY]
    try:
        answer = function(*places, **{each.name: values[each.name] for each in parameters if each.kind is each.KEYWORD_ONLY})
    except ValueError as wrong:
        assert any(re.search(rf"\b{name}\b", str(wrong)) for name in values), wrong
        return
    assert not isinstance(answer, float) or not math.isnan(answer)
