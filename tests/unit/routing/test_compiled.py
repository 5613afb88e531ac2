import contextlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from controller.network.events import AdminChanged, LinkAdded, LinkMeasured, LinkRemoved, LinkStateChanged, LinkWindowChanged
from controller.network.model import Link, Node
from controller.network.topology import Topology
from controller.routing.compiled import Compiled, compiled

NAMES = ["a", "b", "c", "d", "m"]
IDS = [f"l{number}" for number in range(6)]
links = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), st.floats(0, 1e6)).filter(lambda each: each[0] != each[1]), max_size=6
)
happenings = st.lists(
    st.one_of(
        st.builds(LinkStateChanged, st.sampled_from([*IDS, "f"]), st.booleans()),
        st.builds(LinkWindowChanged, st.sampled_from([*IDS, "f"]), st.booleans()),
        st.builds(LinkMeasured, st.sampled_from(IDS), st.just("rate_bps"), st.floats(0, 1e6)),
        st.builds(AdminChanged, st.just("node"), st.sampled_from(NAMES), st.sampled_from(["enabled", "draining"])),
        st.builds(AdminChanged, st.just("link"), st.sampled_from([*IDS, "f"]), st.sampled_from(["enabled", "disabled"])),
        st.builds(LinkRemoved, st.sampled_from(IDS)),
        st.builds(lambda rate: LinkAdded(Link(kind="qkd", id="new", ends=("a", "b"), rate_bps=rate)), st.floats(0, 10)),
    ),
    max_size=12,
)


@given(links, happenings)
def test_arrays_follow_the_topology(drawn: list[tuple[str, str, float]], events: list[object]) -> None:
    nodes = {name: Node(kind="trusted-node") for name in NAMES}
    qkd = [Link(kind="qkd", id=IDS[at], ends=(a, b), rate_bps=rate, over=("f",) if at % 2 else ()) for at, (a, b, rate) in enumerate(drawn)]
    topology = Topology("n", nodes, [Link(kind="fibre", id="f", ends=("a", "m"), length_km=1), *qkd])
    for event in (None, *events):
        with contextlib.suppress(LookupError):
            topology.apply(event)  # type: ignore[arg-type]
        kept, anew = compiled(topology), Compiled(topology)
        assert np.array_equal(anew.figure(topology, "qkd", "rate_bps"), kept.figure(topology, "qkd", "rate_bps"))
        assert np.array_equal(anew.edges(topology, "qkd").usable, kept.edges(topology, "qkd").usable)
        edges, rates = kept.edges(topology, "qkd"), kept.figure(topology, "qkd", "rate_bps")
        assert edges.ids == [link.id for link in topology.links("qkd")]
        for at, link in enumerate(topology.links("qkd")):
            figure = topology.figure(link, "rate_bps")
            assert figure is not None and rates[at] == figure.value
            assert edges.usable[at] == topology.usable(link)
            assert (kept.names[edges.a[at]], kept.names[edges.b[at]]) == link.nodes
        for node, name in enumerate(kept.names):
            span = slice(edges.indptr[node], edges.indptr[node + 1])
            around = sorted((kept.names[other], edges.ids[edge]) for other, edge in zip(edges.indices[span], edges.edge[span], strict=True))
            told = sorted((link.nodes[1 - side], link.id) for link in topology.links("qkd") for side in (0, 1) if link.nodes[side] == name)
            assert around == told


def test_a_measurement_does_not_compile_anew() -> None:
    nodes = {name: Node(kind="trusted-node") for name in NAMES}
    topology = Topology("n", nodes, [Link(kind="qkd", id="l0", ends=("a", "b"), rate_bps=5)])
    first = compiled(topology)
    first.figure(topology, "qkd", "rate_bps")
    topology.apply(LinkMeasured("l0", "rate_bps", 7.0))
    assert compiled(topology) is first
    assert np.array_equal(first.figure(topology, "qkd", "rate_bps"), [7.0])
    topology.apply(LinkRemoved("l0"))
    assert isinstance(compiled(topology), Compiled) and compiled(topology) is not first
