from pathlib import Path

import pytest

from controller.network import document
from controller.network.events import AdminChanged, LinkAdded, LinkMeasured, LinkRemoved, LinkStateChanged
from controller.network.model import Link
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


def test_draining_node_takes_its_links_out_of_new_plans(sandbox: Topology) -> None:
    sandbox.apply(AdminChanged("node", "relay1", "draining"))
    assert not sandbox.usable(sandbox.link("qkd:alice--relay1"))
    assert sandbox.up(sandbox.link("qkd:alice--relay1"))


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


def test_risk_is_inherited_from_the_glass(sandbox: Topology) -> None:
    assert sandbox.shared_risk(sandbox.link("qkd:alice--relay3")) == {"fibre:alice--relay3", "south-duct"}


def test_unknown_name_hints_at_close_ones(sandbox: Topology) -> None:
    with pytest.raises(UnknownName, match=r"no node named 'relay9'.*did you mean relay"):
        sandbox.node("relay9")
