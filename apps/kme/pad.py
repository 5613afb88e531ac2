"""Key material on its way to a neighbouring KME: one-time pad and one-time tag. Pure.

Both are information-theoretically secure as long as no pool byte serves twice. The tag is Poly1305 (Bernstein 2005, FSE, LNCS 3557)
with a key of its own for each message: a Wegman-Carter code, forged with probability at most 8 ceil(L/16) / 2^106 for L bytes.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field

TAG_KEY_BYTES = 32
"""Pool bytes that one message costs besides its keys."""

Toward = Literal["left", "right"]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class Span(BaseModel):
    """Pool bytes: `length` bytes of `block` from `offset` on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block: Name
    offset: int = Field(ge=0)
    length: int = Field(gt=0)


class RelayMessage(BaseModel):
    """A batch of keys of one service, or of one XOR share of them, for the next KME on the path.

    `toward` is the side of the service the batch travels to, so its master SAE is on the other side. `origin` is the KME that made the
    keys. `spans` name the pool bytes used, the tag's key first. `text` is the keys, one after the other, under the pad.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: Name
    share: int = Field(ge=0)
    shares: int = Field(ge=1)
    toward: Toward
    origin: Name
    key_ids: tuple[Name, ...] = Field(min_length=1, max_length=1024)
    spans: tuple[Span, ...] = Field(min_length=1, max_length=1024)
    text: Base64Bytes = b""
    tag: Base64Bytes = b""


class TagMismatch(Exception):
    """The message is not what the neighbour sent, or the two ends hold different pool bytes."""


def seal(message: RelayMessage, keys: bytes | bytearray, pad: bytearray) -> RelayMessage:
    """`message` with `keys` encrypted and authenticated by `pad`, which must hold `TAG_KEY_BYTES + len(keys)` fresh pool bytes."""
    _check_length(keys, pad)
    text = bytes(xor(keys, pad[TAG_KEY_BYTES:]))
    tag = Poly1305.generate_tag(bytes(pad[:TAG_KEY_BYTES]), _covered(message, text))
    return message.model_copy(update={"text": text, "tag": tag})


def unseal(message: RelayMessage, pad: bytearray) -> bytearray:
    """The keys in `message`; `TagMismatch` when anything in it was changed."""
    _check_length(message.text, pad)
    try:
        Poly1305.verify_tag(bytes(pad[:TAG_KEY_BYTES]), _covered(message, message.text), message.tag)
    except InvalidSignature:
        raise TagMismatch("the message's tag does not verify") from None
    return xor(message.text, pad[TAG_KEY_BYTES:])


def _covered(message: RelayMessage, text: bytes) -> bytes:
    return message.model_dump_json(exclude={"text", "tag"}).encode() + b"\n" + text


def _check_length(text: bytes | bytearray, pad: bytearray) -> None:
    if len(pad) != TAG_KEY_BYTES + len(text):
        raise ValueError(f"{len(pad)} pool bytes given for {len(text)} bytes of keys; {TAG_KEY_BYTES} more than the keys are needed")


def xor(left: bytes | bytearray, right: bytes | bytearray) -> bytearray:
    """Bytewise exclusive or of two strings of one length."""
    return bytearray(a ^ b for a, b in zip(left, right, strict=True))


def split_shares(key: bytearray, shares: int) -> list[bytearray]:
    """`shares` strings whose exclusive or is `key`; any fewer of them say nothing about it."""
    parts = [bytearray(secrets.token_bytes(len(key))) for _ in range(shares - 1)]
    return [*parts, join_shares([key, *parts])]


def join_shares(parts: Sequence[bytearray]) -> bytearray:
    whole = bytearray(len(parts[0]))
    for part in parts:
        whole = xor(whole, part)
    return whole


def wipe(*buffers: bytearray) -> None:
    """Overwrite with zeros. Copies that TLS and the interpreter made on the way are out of reach."""
    for buffer in buffers:
        buffer[:] = bytes(len(buffer))


def halves(here: str, there: str, size: int) -> tuple[range, range]:
    """The byte ranges of a block that this KME and its neighbour may spend: the same split at both ends, so no byte is spent twice."""
    first, second = range(size // 2), range(size // 2, size)
    return (first, second) if here < there else (second, first)
