from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controller.network import yaml_reader

scalars = st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.dates()
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20)


@given(values, st.booleans())
def test_reads_what_pyyaml_reads(value: Any, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    data, complaints, _ = yaml_reader.read(text)
    assert (data, complaints) == (value, [])


PLAIN = "1.5 -0.5 +1.0 1. .5 1_000.5 1e5 1.0e+5 0x1F 012 0o7 7 -7 ~ null .inf -.inf 2026-03-01 n1 e5 nan a-b"


@pytest.mark.parametrize("text", PLAIN.split())
def test_plain_scalars_mean_what_pyyaml_says(text: str) -> None:
    expected = yaml.safe_load(f"[{text}]")
    data, complaints, _ = yaml_reader.read(f"[{text}]")
    assert (data, complaints, type(data[0])) == (expected, [], type(expected[0]))


@pytest.mark.parametrize("text", ["true", "True", "yes", "No", "on", "OFF", "1:30", "-1:30", "12:30:45.5", "10:20:30:40:50:10"])
def test_there_is_no_yes_and_no_and_no_number_to_the_base_of_sixty(text: str) -> None:
    assert type(yaml.safe_load(text)) is not str
    assert yaml_reader.read(f"[{text}]")[0] == [text]


def test_a_key_that_is_no_text_is_told_where_it_is() -> None:
    text = "a: {kind: 1}\n[x]: {kind: 2}\n? {b: c}\n: 3\n"
    told = yaml_reader.read(text, wanted={(1,), (2,)})
    assert told == ({"a": {"kind": 1}}, [((at,), "the key is not plain text", "use a name as key") for at in (1, 2)], {(1,): 2, (2,): 3})


def test_anchors_and_merge_keys() -> None:
    text = "base: &b {x: 1, y: 2}\nsame: *b\nmore: {<<: *b, y: 3}\nboth: {<<: [{z: 9, x: 7}, *b]}\n"
    data, complaints, _ = yaml_reader.read(text)
    expected = yaml.safe_load(text)
    assert (data, complaints) == (expected, [])


def test_what_is_taken_is_not_kept_and_lines_are_known() -> None:
    text = "name: n\nitems:\n  - 1\n  - {deep: [2,\n     3]}\n"
    taken = []
    data, _, lines = yaml_reader.read(
        text, lambda key, value: len(key) == 2 and not taken.append((key, value)), wanted={("items", 1, "deep", 1), ("name",)}
    )
    assert data == {"name": "n", "items": []}
    assert taken == [(("items", 0), 1), (("items", 1), {"deep": [2, 3]})]
    assert lines == {("items", 1, "deep", 1): 5, ("name",): 1}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: &x [*x]", "contains itself"),
        ("[" * 40 + "]" * 40, "nests too deep"),
        ("a: !secret 1", "the tag !secret"),
        ("a: 1\n---\nb: 2", "second document"),
        ("{[1]: 2}", "not plain text"),
        ("a: 1\na: 2", "given twice"),
    ],
)
def test_complaints(text: str, what: str) -> None:
    _, complaints, _ = yaml_reader.read(text)
    assert any(what in said for _, said, _ in complaints)


def test_progress_grows_to_the_length() -> None:
    told: list[int] = []
    text = "a:\n" + "  - {b: 1234567890}\n" * 20_000
    yaml_reader.read(text, progress=told.append)
    assert told == sorted(told)
    assert len(text) - told[-1] <= yaml_reader.REPORT_EVERY
