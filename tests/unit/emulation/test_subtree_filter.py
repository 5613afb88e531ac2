from __future__ import annotations

import pytest
from lxml import etree

from topologies.emulation.netconf.subtree_filter import subtree_filter

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


PORTS = "<ports xmlns='urn:t' xmlns:a='urn:a'><port name='1' a:side='in'><dbm>-3</dbm></port><port name='2'><dbm>-3</dbm></port></ports>"


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("<ports xmlns='urn:t'><port name='2'/></ports>", ["2"]),
        ("<ports xmlns='urn:t'><port name='2'><dbm>-3</dbm></port></ports>", ["2"]),
        ("<ports xmlns='urn:t'><port><dbm>-3</dbm></port></ports>", ["1", "2"]),
        ("<ports xmlns='urn:t'><port name='3'/></ports>", []),
        ("<ports xmlns='urn:t' xmlns:b='urn:a'><port b:side='in'/></ports>", ["1"]),
        ("<ports xmlns='urn:t'><port side='in'/></ports>", []),
        ("<ports><port name='1'><dbm/></port><port name='2'/></ports>", ["1", "2"]),
    ],
)
def test_filters_by_attribute(wanted: str, names: list[str]) -> None:
    found = subtree_filter([etree.fromstring(PORTS)], etree.fromstring(f"<filter>{wanted}</filter>"))
    assert [port.get("name") for root in found for port in root] == names
