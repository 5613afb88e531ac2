from __future__ import annotations

import pytest
from lxml import etree

from controller.southbound.netconf.rpc import BASE
from topologies.emulation.netconf_server import FaultError
from topologies.emulation.optical_switch import OPTICAL_SWITCH, EmulatedOpticalSwitch
from topologies.emulation.subtree_filter import subtree_filter

HELD = {1: 17, 2: 18}


def config(inner: str) -> etree._Element:
    return etree.fromstring(f'<config xmlns="{BASE}" xmlns:nc="{BASE}">{inner}</config>')


def pairs(*entries: str, attributes: str = "") -> etree._Element:
    return config(f'<cross-connects xmlns="{OPTICAL_SWITCH}" {attributes}>{"".join(entries)}</cross-connects>')


def pair(ingress: object, egress: object = None, operation: str = "") -> str:
    leaf = "" if egress is None else f"<egress>{egress}</egress>"
    attribute = f'nc:operation="{operation}"' if operation else ""
    return f"<pair {attribute}><ingress>{ingress}</ingress>{leaf}</pair>"


@pytest.mark.parametrize(
    ("edit", "default", "result"),
    [
        (pairs(pair(3, 19)), "merge", {1: 17, 2: 18, 3: 19}),
        (pairs(pair(1, 20)), "merge", {1: 20, 2: 18}),
        (pairs(pair(1)), "merge", HELD),
        (pairs(pair(3, 19)), "replace", {3: 19}),
        (config(""), "replace", {}),
        (pairs(pair(1, 20)), "none", HELD),
        (pairs(pair(1, 20, "merge"), pair(2, 18)), "none", {1: 20, 2: 18}),
        (pairs(pair(3, 19, "create")), "none", {1: 17, 2: 18, 3: 19}),
        (pairs(pair(1, operation="delete"), pair(3, 17, "create")), "merge", {2: 18, 3: 17}),
        (pairs(pair(9, operation="remove"), pair(2, operation="remove")), "merge", {1: 17}),
        (pairs(pair(1, 20, "replace")), "merge", {1: 20, 2: 18}),
        (pairs(pair(3, 19), attributes='nc:operation="replace"'), "merge", {3: 19}),
        (pairs(attributes='nc:operation="delete"'), "merge", {}),
        (pairs(attributes='nc:operation="remove"'), "merge", {}),
        (pairs(pair(" 3 ", " 19\n")), "merge", {1: 17, 2: 18, 3: 19}),
    ],
)
def test_edits(edit: etree._Element, default: str, result: dict[int, int]) -> None:
    switch = EmulatedOpticalSwitch("ocs1", 32)
    assert switch.edit(HELD, edit, default) == result
    assert HELD == {1: 17, 2: 18}


@pytest.mark.parametrize(
    ("edit", "tag", "path_end"),
    [
        (pairs(pair(1, 20, "create")), "data-exists", "pair[opsw:ingress='1']"),
        (pairs(pair(9, operation="delete")), "data-missing", "pair[opsw:ingress='9']"),
        (pairs(pair(9)), "missing-element", "pair[opsw:ingress='9']"),
        (pairs("<pair><egress>17</egress></pair>"), "missing-element", "pair"),
        (pairs(pair(33, 17)), "invalid-value", "ingress"),
        (pairs(pair(3, 70000)), "invalid-value", "egress"),
        (pairs(pair(0, 17)), "invalid-value", "ingress"),
        (pairs(pair("three", 17)), "invalid-value", "ingress"),
        (pairs(pair("٣", 17)), "invalid-value", "ingress"),
        (pairs(pair("1" * 5000, 17)), "invalid-value", "ingress"),
        (pairs("<pair><ingress>1</ingress><ingress>2</ingress></pair>"), "bad-element", "pair"),
        (pairs("<pair><ingress>1</ingress><colour>red</colour></pair>"), "unknown-element", "pair"),
        (pairs('<pair xmlns=""><ingress>3</ingress><egress>19</egress></pair>'), "unknown-namespace", "cross-connects"),
        (config("<cross-connects/>"), "unknown-namespace", "/"),
        (config(f'<voa xmlns="{OPTICAL_SWITCH}"/>'), "unknown-element", "/"),
        (pairs(pair(1, operation="destroy")), "bad-attribute", "cross-connects"),
        (pairs('<pair operation="delete"><ingress>1</ingress></pair>'), "unknown-attribute", "cross-connects"),
        (pairs('<pair><ingress>1</ingress><egress nc:operation="delete"/></pair>'), "operation-not-supported", "egress"),
        (pairs(pair(3, 19), attributes='nc:operation="create"'), "data-exists", "cross-connects"),
    ],
)
def test_faulty_edits(edit: etree._Element, tag: str, path_end: str) -> None:
    with pytest.raises(FaultError) as fault:
        EmulatedOpticalSwitch("ocs1", 32).edit(HELD, edit, "merge")
    assert fault.value.error.tag == tag
    assert fault.value.error.path.endswith(path_end)


@pytest.mark.parametrize(
    ("wanted", "dual_sided", "tag"),
    [
        ({1: 1}, False, "invalid-value"),
        ({1: 2}, True, "invalid-value"),
        ({17: 1}, True, "invalid-value"),
        ({1: 17, 2: 17}, True, "data-exists"),
        ({1: 2, 2: 3}, False, "data-exists"),
        ({1: 2, 3: 1}, False, "data-exists"),
    ],
)
def test_configurations_that_light_cannot_follow(wanted: dict[int, int], dual_sided: bool, tag: str) -> None:
    with pytest.raises(FaultError) as fault:
        EmulatedOpticalSwitch("ocs1", 32, dual_sided).validate(wanted)
    assert fault.value.error.tag == tag


def test_configurations_that_stand() -> None:
    EmulatedOpticalSwitch("ocs1", 32).validate({1: 17, 16: 32})
    EmulatedOpticalSwitch("ocs1", 5, dual_sided=False).validate({2: 1, 3: 5})


@pytest.mark.parametrize(("ports", "dual_sided"), [(1, False), (7, True), (65536, False)])
def test_switches_that_cannot_be(ports: int, dual_sided: bool) -> None:
    with pytest.raises(ValueError, match="ports"):
        EmulatedOpticalSwitch("ocs1", ports, dual_sided)


async def test_a_commit_takes_effect_and_is_told() -> None:
    told: list[frozenset[tuple[int, int]]] = []
    switch = EmulatedOpticalSwitch("ocs1", 32, switching_time_s=0.0, on_commit=told.append)
    await switch.activate({1: 17})
    assert told == [frozenset({(1, 17)})] and switch.cross_connects == {(1, 17)}


def test_powers_are_reported_in_hundredths_and_not_below_dark() -> None:
    switch = EmulatedOpticalSwitch("ocs1", 2)
    switch.set_power(1, -7.126)
    switch.set_power(2, -80.0)
    powers = switch.state()[0]
    assert [leaf.text for leaf in powers.iter(f"{{{OPTICAL_SWITCH}}}power")] == ["-7.13", "-60.00"]
    with pytest.raises(KeyError):
        switch.set_power(3, 0.0)


TREE = "<top xmlns='urn:t'><users><user><name>root</name><type>super</type></user><user><name>fred</name><type>admin</type></user></users><n>1</n></top>"


@pytest.mark.parametrize(
    ("wanted", "selected"),
    [
        ("", []),
        ("<top xmlns='urn:t'/>", [TREE]),
        ("<top/>", [TREE]),
        ("<top xmlns='urn:other'/>", []),
        ("<top xmlns='urn:t'><n/></top>", ["<top xmlns='urn:t'><n>1</n></top>"]),
        ("<top xmlns='urn:t'><absent/></top>", []),
        (
            "<top xmlns='urn:t'><users><user><name/></user></users></top>",
            ["<top xmlns='urn:t'><users><user><name>root</name></user><user><name>fred</name></user></users></top>"],
        ),
        (
            "<top xmlns='urn:t'><users><user><name> fred </name></user></users></top>",
            ["<top xmlns='urn:t'><users><user><name>fred</name><type>admin</type></user></users></top>"],
        ),
        (
            "<top xmlns='urn:t'><users><user><name>fred</name><type/></user><user><name>root</name><name/></user></users></top>",
            ["<top xmlns='urn:t'><users><user><name>root</name></user><user><name>fred</name><type>admin</type></user></users></top>"],
        ),
        ("<top xmlns='urn:t'><users><user><name>fred</name><type>super</type></user></users></top>", []),
        ("<top xmlns='urn:t'><n>2</n><users/></top>", []),
        ("<top xmlns='urn:t' colour='red'/>", []),
    ],
)
def test_subtree_filters(wanted: str, selected: list[str]) -> None:
    found = subtree_filter([etree.fromstring(TREE)], etree.fromstring(f"<filter>{wanted}</filter>"))
    assert [etree.tostring(element, method="c14n") for element in found] == [
        etree.tostring(etree.fromstring(text), method="c14n") for text in selected
    ]
