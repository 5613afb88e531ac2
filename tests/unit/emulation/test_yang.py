"""The reading of YANG, and the edits that follow it, on modules made for it; and the modules of the emulated devices."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from controller.southbound.netconf.rpc import BASE
from topologies.emulation.netconf import edit_config as edit_config_module
from topologies.emulation.netconf import schema as schema_module
from topologies.emulation.netconf import yang
from topologies.emulation.netconf.edit_config import edit_config, merge_state
from topologies.emulation.netconf.fault import FaultError
from topologies.emulation.netconf.schema import Schema

TYPES = """module types { namespace "urn:types"; prefix t; revision 2026-01-01;
  typedef small { type tiny; } typedef tiny { type uint8; }
  grouping two { leaf one { type small; } leaf two { type string; } } }"""
SHELF = """module shelf {
  namespace "urn:" + 'shelf'; prefix s; // the rest of a line
  import types { prefix t; }
  revision 2026-01-01; /* a comment of
  two lines */
  container shelf {
    leaf-list tag { type string; }
    leaf-list number { type t:small; }
    list slot { key "row column"; leaf column { type t:small; } leaf row { type uint8; } leaf card { type string; }
      list port { key id; leaf id { type string; } leaf load { type uint8; config false; } } }
    container power { presence "switched on"; uses t:two; }
    container fan { leaf speed { type uint8; } }
  }
  rpc reset { input { leaf hard { type boolean; } } }
}"""
RACK = """module rack { namespace "urn:rack"; prefix r; import shelf { prefix s; } import types { prefix t; } revision 2026-01-01;
  augment "/s:shelf/s:fan" { container filter { uses t:two; } } }"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Schema:
    for name, text in (("types", TYPES), ("shelf", SHELF), ("rack", RACK)):
        (tmp_path / f"{name}@2026-01-01.yang").write_text(text)
    monkeypatch.setattr(schema_module, "_DIRECTORY", tmp_path)
    return Schema(["types@2026-01-01", "shelf@2026-01-01", "rack@2026-01-01"])


def test_the_tree(shelf: Schema) -> None:
    (top,) = shelf.root.children.values()
    slot = top.children["{urn:shelf}slot"]
    assert (top.tag, slot.kind, slot.keys) == ("{urn:shelf}shelf", "list", ("row", "column"))
    assert slot.children["{urn:shelf}column"].type == "uint8" and not slot.children["{urn:shelf}port"].children["{urn:shelf}load"].config
    assert top.children["{urn:shelf}power"].presence and top.children["{urn:shelf}power"].children["{urn:shelf}one"].type == "uint8"
    grafted = top.children["{urn:shelf}fan"].children["{urn:rack}filter"]
    assert grafted.prefix == "r" and set(grafted.children) == {"{urn:rack}one", "{urn:rack}two"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("module m { namespace urn:m; prefix m; choice c { leaf a { type string; } } }", "m: choice is not read here"),
        ("module m { namespace urn:m; prefix m; uses nothing; }", "uses nothing: no plain grouping"),
        ("module m { namespace urn:m; prefix m; leaf a { type x:y; } }", "no module with the prefix x"),
        ("module m { prefix m;", "a brace is not closed"),
        ("module m { prefix m }", "does not end"),
        ("module m { ; }", "begins with ';'"),
        ('module m { prefix "m; }', "no YANG"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        yang.data_tree([yang.parse(text)])


def edited(schema: Schema, held: str, edit: str, default: str = "merge") -> str:
    """What a shelf becomes, in short."""
    config = edit_config(schema, body(held), body(edit), default)
    schema.check(config)
    text = b"".join(etree.tostring(child, method="c14n", exclusive=True) for child in config).decode()
    return text.replace(' xmlns="urn:shelf"', "").replace("<shelf>", "").replace("</shelf>", "")


def body(inner: str) -> etree._Element:
    """A configuration with this in its shelf."""
    shelf = f'<shelf xmlns="urn:shelf">{inner}</shelf>' if inner else ""
    return etree.fromstring(f'<config xmlns="{BASE}" xmlns:nc="{BASE}" xmlns:y="urn:rack">{shelf}</config>')


SLOT = "<slot><row>%d</row><column>%d</column>%s</slot>"


@pytest.mark.parametrize(
    ("held", "edit", "result"),
    [
        ("", SLOT % (1, 2, "<card>a</card>"), SLOT % (1, 2, "<card>a</card>")),
        ("", "<slot><card>a</card><column>2</column><row>1</row></slot>", SLOT % (1, 2, "<card>a</card>")),
        (SLOT % (1, 2, "<card>a</card>"), SLOT % (1, 3, ""), SLOT % (1, 2, "<card>a</card>") + SLOT % (1, 3, "")),
        (SLOT % (1, 2, "<card>a</card>"), '<slot><row>1</row><column>2</column><card nc:operation="delete"/></slot>', SLOT % (1, 2, "")),
        (
            SLOT % (1, 2, "<port><id>x</id></port>"),
            SLOT % (1, 2, "<port><id> x</id></port>"),
            SLOT % (1, 2, "<port><id>x</id></port><port><id> x</id></port>"),
        ),
        (SLOT % (1, 2, "<port><id>x</id></port>"), SLOT % (1, 2, "<port nc:operation='remove'><id>x</id></port>"), SLOT % (1, 2, "")),
        ("<tag>a</tag><tag>b</tag>", "<tag>c</tag><tag nc:operation='delete'>a</tag><tag>b</tag>", "<tag>b</tag><tag>c</tag>"),
        ("<number>7</number>", "<number> 07 </number>", "<number>7</number>"),
        ("<number>7</number>", "<number nc:operation='delete'>7</number>", ""),
        ("", "<power/>", "<power></power>"),
        ("<power/>", "<power nc:operation='delete'/>", ""),
        ("", "<fan/>", ""),
        ("<fan><speed>3</speed></fan>", "<fan><speed nc:operation='remove'/></fan>", ""),
    ],
)
def test_edits_follow_the_keys(shelf: Schema, held: str, edit: str, result: str) -> None:
    assert edited(shelf, held, edit) == result


@pytest.mark.parametrize(
    ("edit", "tag", "path"),
    [
        ("<tag nc:operation='create'>a</tag>", "data-exists", "/s:shelf/s:tag[.='a']"),
        ("<tag nc:operation='delete'>it's</tag>", "data-missing", '/s:shelf/s:tag[.="it\'s"]'),
        ("<slot><row>1</row></slot>", "missing-element", "/s:shelf/s:slot"),
        (SLOT % (300, 2, ""), "invalid-value", "/s:shelf/s:slot/s:row"),
        (
            SLOT % (1, 2, "<port><id>x</id><load>3</load></port>"),
            "unknown-element",
            "/s:shelf/s:slot[s:row='1'][s:column='2']/s:port[s:id='x']",
        ),
        ("<fan><y:filter><y:one>999</y:one></y:filter></fan>", "invalid-value", "/s:shelf/s:fan/r:filter/r:one"),
        ("<fan><filter/></fan>", "unknown-element", "/s:shelf/s:fan"),
        ("<y:fan/>", "unknown-namespace", "/s:shelf"),
    ],
)
def test_faults_say_where(shelf: Schema, edit: str, tag: str, path: str) -> None:
    with pytest.raises(FaultError) as fault:
        edited(shelf, "<tag>a</tag>", edit)
    assert (fault.value.error.tag, fault.value.error.path) == (tag, path)


def test_state_joins_the_entry_it_is_of(shelf: Schema) -> None:
    held = body(SLOT % (1, 2, "<port><id>x</id></port>"))
    before = etree.tostring(held)
    state = etree.fromstring(
        "<shelf xmlns='urn:shelf'>" + SLOT % (1, 2, "<port><id>x</id><load>3</load></port><port><id>y</id></port>") + "</shelf>"
    )
    (merged,) = merge_state(shelf, held, [state])
    assert etree.tostring(merged, method="c14n").decode().count("<slot>") == 1
    assert [[leaf.text for leaf in port] for port in merged.iter("{urn:shelf}port")] == [["x", "3"], ["y"]]
    assert etree.tostring(held) == before


def test_an_edit_looks_through_a_list_once(shelf: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[etree._Element] = []
    identity = edit_config_module._held_identity
    monkeypatch.setattr(edit_config_module, "_held_identity", lambda node, held: (looked.append(held), identity(node, held))[1])
    held = body("".join(SLOT % (row, 1, "") for row in range(200)))
    edit_config(shelf, held, body("".join(SLOT % (row, 1, "<card>a</card>") for row in range(200))), "merge")
    slots = [entry for entry in looked if entry.tag == "{urn:shelf}slot"]
    assert len(slots) == 200


def test_without_the_whole_only_names_and_values_count() -> None:
    schema = schema_module.schema("optical-switch@2018-03-22", "polatis-switch@2018-01-19")
    lone = etree.fromstring(
        '<config><cross-connects xmlns="http://www.polatis.com/yang/optical-switch"><pair><ingress>1</ingress></pair></cross-connects></config>'
    )
    schema.check(lone, whole=False)
    with pytest.raises(FaultError, match="egress"):
        schema.check(lone)
    lone[0][0][0].text = "one"
    with pytest.raises(FaultError, match="one"):
        schema.check(lone, whole=False)
