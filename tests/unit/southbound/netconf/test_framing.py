from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.southbound.netconf.framing import END_OF_MESSAGE, Deframer, FramingError, frame

messages = st.lists(
    st.binary(min_size=1, max_size=300).filter(lambda message: END_OF_MESSAGE not in message + b"]]>]]"), min_size=1, max_size=5
)


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[start:end] for start, end in pairwise(marks)]


def deframe(parts: list[bytes], chunked: bool, max_message_bytes: int = 10_000) -> list[bytes]:
    deframer = Deframer(max_message_bytes)
    deframer.chunked = chunked
    taken = []
    for part in parts:
        deframer.feed(part)
        while (message := deframer.take()) is not None:
            taken.append(message)
    return taken


@given(messages, st.booleans(), st.lists(st.integers(0, 2000), max_size=20))
def test_what_was_framed_comes_out_however_it_is_cut(sent: list[bytes], chunked: bool, cuts: list[int]) -> None:
    stream = b"".join(frame(message, chunked) for message in sent)
    assert deframe(split(stream, cuts), chunked) == sent


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8), st.lists(st.integers(0, 500), max_size=20))
def test_a_message_may_come_in_many_chunks(chunks: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(b"\n#%d\n%b" % (len(chunk), chunk) for chunk in chunks) + b"\n##\n"
    assert deframe(split(stream, cuts), chunked=True) == [b"".join(chunks)]


@given(messages, st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=6), st.booleans())
def test_damage_raises_nothing_but_a_framing_error(sent: list[bytes], damage: list[tuple[int, int]], chunked: bool) -> None:
    stream = bytearray(b"".join(frame(message, chunked) for message in sent))
    for place, value in damage:
        stream[place % len(stream)] = value
    try:
        taken = deframe([bytes(stream)], chunked)
    except FramingError:
        return
    assert sum(map(len, taken)) <= len(stream)


@given(st.binary(max_size=200))
def test_noise_raises_nothing_but_a_framing_error(noise: bytes) -> None:
    try:
        deframe([noise], chunked=True)
    except FramingError as fault:
        assert str(fault)


def test_the_framing_changes_between_two_messages_of_one_read() -> None:
    deframer = Deframer()
    deframer.feed(frame(b"<hello/>", chunked=False) + frame(b"<rpc/>", chunked=True))
    assert deframer.take() == b"<hello/>"
    deframer.chunked = True
    assert deframer.take() == b"<rpc/>"
    assert deframer.take() is None


@pytest.mark.parametrize(
    ("stream", "complaint"),
    [
        (b"rpc", "not with LF #"),
        (b"\n#0\n", "size b'0'"),
        (b"\n#04\nrpc/", "size b'04'"),
        (b"\n#-4\nrpc/", "size b'-4'"),
        (b"\n#4294967296\n", "size b'4294967296'"),
        (b"\n#42949672955\n", "size b'42949672955'"),
        (b"\n#four\n", "size b'four'"),
        (b"\n##\n", "no chunk"),
        (b"\n#4\nrpc/X", "not with LF #"),
        (b"\n#101\n", "longer than 100 bytes"),
        (b"\n#60\n" + 60 * b"x" + b"\n#60\n", "longer than 100 bytes"),
    ],
)
def test_chunks_that_break_rfc_6242(stream: bytes, complaint: str) -> None:
    with pytest.raises(FramingError, match=complaint):
        deframe([stream], chunked=True, max_message_bytes=100)


@pytest.mark.parametrize("arrives", [1, 7, 200])
def test_a_message_without_an_end_is_refused_at_the_limit(arrives: int) -> None:
    stream = b"x" * 200
    with pytest.raises(FramingError, match="longer than 100 bytes"):
        deframe([stream[start : start + arrives] for start in range(0, len(stream), arrives)], chunked=False, max_message_bytes=100)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_message_of_exactly_the_limit_passes(chunked: bool) -> None:
    assert deframe([frame(b"x" * 100, chunked)], chunked, max_message_bytes=100) == [b"x" * 100]


def test_messages_that_a_framing_cannot_carry() -> None:
    with pytest.raises(FramingError, match="cannot be sent"):
        frame(b"a]]>]]>b", chunked=False)
    with pytest.raises(FramingError, match="empty"):
        frame(b"", chunked=True)
