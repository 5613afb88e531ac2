from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.southbound.scpi import grammar
from controller.southbound.scpi.grammar import DeviceFault, GrammarError, Identity, Lines

PAIRS = st.lists(st.integers(1, grammar.MAX_PORT), unique=True, max_size=40).map(
    lambda ports: list(zip(ports[::2], ports[1::2], strict=False))
)
READERS: list[Callable[[str], object]] = [
    grammar.read_identity,
    grammar.read_size,
    grammar.read_connections,
    grammar.read_ports,
    grammar.read_fault,
    lambda answer: grammar.read_port_states(answer, 3),
]


def test_what_a_switch_answers() -> None:
    assert grammar.read_identity("Polatis,I-OST-24x24-LU1-DMHNS,002414,6.5.2.18") == Identity(
        "Polatis", "I-OST-24x24-LU1-DMHNS", "002414", "6.5.2.18"
    )
    assert grammar.read_size("16,16") == (16, 16)
    assert grammar.read_connections("(@1,2,3),(@19,18,22)") == {(1, 19), (2, 18), (3, 22)}
    assert grammar.read_connections("(@), (@)") == frozenset()
    assert grammar.read_ports("(@1,2,5:7,9:8)") == (1, 2, 5, 6, 7, 9, 8)
    assert grammar.read_port_states("(D,E,F)", 3) == "DEF"
    assert grammar.read_fault('0,"No error"') is None and grammar.read_fault('+0,"No error"') is None
    assert grammar.read_fault('-222,"Data out of range"') == DeviceFault(-222, "Data out of range")


def test_what_a_switch_is_told() -> None:
    assert grammar.add_connections([(1, 17), (2, 18), (3, 19)]) == ":OXC:SWIT:CONN:ADD (@1,2,3),(@17,18,19)"
    assert grammar.subtract_connections([(1, 17)]) == ":OXC:SWIT:CONN:SUB (@1),(@17)"
    assert grammar.port_states([2, 4]) == ":OXC:SWIT:PORT:STAT? (@2,4)"


@given(PAIRS)
def test_pairs_are_read_as_they_were_written(pairs: list[tuple[int, int]]) -> None:
    _, _, lists = grammar.add_connections(pairs).partition(" ")
    assert grammar.read_connections(lists) == frozenset(pairs)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("(@1,2),(@17)", "2 ingress ports are said to be connected to 1 egress ports"),
        ("(@1,1),(@17,18)", "in two connections"),
        ("(@1),(@1)", "in two connections"),
        ("(@1,2)", "not two lists"),
        ("(@1),(@17),(@18)", "not two lists"),
        ("(@0),(@17)", "'0' is neither a port"),
        ("(@1),(@65536)", "'65536' is neither a port"),
        ("(@1:2:3),(@17)", "'1:2:3' is neither a port"),
        ("(@1 2),(@17)", "'1 2' is neither a port"),
        ("(@1,),(@17)", "'' is neither a port"),
        ("(@²),(@17)", "no list of ports"),
        (f"(@{'1:65535,' * 40}1),(@17)", "longer than 65535"),
        (f"(@{'9' * 100_000}),(@17)", "is neither a port"),
        ("", "not two lists"),
    ],
)
def test_connections_that_are_none(answer: str, why: str) -> None:
    with pytest.raises(GrammarError) as fault:
        grammar.read_connections(answer)
    assert why in str(fault.value) and len(str(fault.value)) < 200


@given(st.sampled_from(READERS), st.text(alphabet='(@),:0123456789 DEF"+-x\n²', max_size=30) | st.text(max_size=30))
def test_nonsense_is_a_grammar_error_and_nothing_else(read: Callable[[str], object], answer: str) -> None:
    try:
        read(answer)
    except GrammarError as fault:
        assert str(fault)


@pytest.mark.parametrize("answer", ["16", "16,0", "0,16", "65535,1", "a,b", "16,16,16", "99999999999,1"])
def test_sizes_that_are_none(answer: str) -> None:
    with pytest.raises(GrammarError, match="size"):
        grammar.read_size(answer)


@pytest.mark.parametrize("answer", ["(D,E)", "(D,E,F,E)", "(D,E,X)", "D,E,F", ""])
def test_port_states_that_are_none(answer: str) -> None:
    with pytest.raises(GrammarError, match="port states"):
        grammar.read_port_states(answer, 3)


@given(st.lists(st.text(alphabet="abc(@),1", max_size=8), max_size=6), st.data())
def test_lines_come_out_however_they_are_cut(lines: list[str], data: st.DataObject) -> None:
    stream = "".join(f"{line}{data.draw(st.sampled_from(['', chr(13)]))}\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    collector, taken = Lines(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        collector.feed(stream[start:end])
        while (line := collector.take()) is not None:
            taken.append(line)
    assert taken == lines


@pytest.mark.parametrize(("data", "why"), [(b"x" * 11, "longer than 10"), (b"x" * 11 + b"\n", "longer than 10"), (b"\xff\n", "no ASCII")])
def test_lines_that_are_none(data: bytes, why: str) -> None:
    collector = Lines(max_line_bytes=10)
    collector.feed(data)
    with pytest.raises(GrammarError, match=why):
        collector.take()
