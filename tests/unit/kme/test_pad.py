from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.kme.pad import TAG_KEY_BYTES, RelayMessage, Span, TagMismatch, halves, join_shares, seal, split_shares, unseal, wipe


def message(keys: bytes, pad: bytearray) -> RelayMessage:
    plain = RelayMessage(
        service="svc",
        share=0,
        shares=1,
        toward="right",
        origin="alice",
        key_ids=("k",),
        spans=(Span(block="b", offset=0, length=len(pad)),),
    )
    return seal(plain, keys, pad)


@given(keys=st.binary(min_size=1, max_size=100))
def test_what_is_sealed_unseals_over_the_wire_and_is_hidden(keys: bytes) -> None:
    pad = bytearray(os.urandom(TAG_KEY_BYTES + len(keys)))
    sealed = RelayMessage.model_validate_json(message(keys, pad).model_dump_json())
    assert unseal(sealed, pad) == keys
    assert sealed.text == bytes(a ^ b for a, b in zip(keys, pad[TAG_KEY_BYTES:], strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"text": b"\x00" * 32},
        {"tag": b"\x00" * 16},
        {"tag": b""},
        {"service": "other"},
        {"toward": "left"},
        {"origin": "mallory"},
        {"share": 1},
        {"key_ids": ("other",)},
        {"spans": (Span(block="b", offset=1, length=64),)},
    ],
)
def test_any_change_breaks_the_tag(change: dict[str, object]) -> None:
    pad = bytearray(os.urandom(TAG_KEY_BYTES + 32))
    sealed = message(os.urandom(32), pad)
    with pytest.raises(TagMismatch):
        unseal(sealed.model_copy(update=change), pad)


def test_a_pad_of_the_wrong_length_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="32 more"):
        message(b"key", bytearray(3))


@given(key=st.binary(min_size=1, max_size=64), shares=st.integers(1, 5))
def test_shares_join_to_the_key(key: bytes, shares: int) -> None:
    parts = split_shares(bytearray(key), shares)
    assert len(parts) == shares
    assert join_shares(parts) == key


def test_fewer_shares_say_nothing_about_the_key() -> None:
    zero = bytearray(32)
    parts = split_shares(zero, 3)
    assert join_shares(parts[:2]) != zero
    assert join_shares(parts[1:]) != zero


@given(size=st.integers(0, 1000))
def test_both_ends_split_a_block_the_same_way(size: int) -> None:
    mine, theirs = halves("alice", "bob", size)
    assert halves("bob", "alice", size) == (theirs, mine)
    assert sorted([*mine, *theirs]) == list(range(size))


def test_wipe_leaves_zeros_of_the_same_length() -> None:
    secret = bytearray(b"secret")
    wipe(secret)
    assert secret == bytes(6)
