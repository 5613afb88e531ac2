"""Actions and instructions: the canonical tuples of a `FlowRule` to bytes and back (OpenFlow 1.3.5, 7.2.4 and 7.2.5).

A rule's tuple lists its apply-actions in order and, after them, its other instructions by their number: `("goto_table", 1)`,
`("write_metadata", 5)` or `("write_metadata", "0x5/0xff")`, one `("write:<action>", value)` per action of a write-actions instruction,
`("clear_actions", 0)`, `("meter", 3)`. What is not modelled keeps its bytes: `("raw", hex)` for an action, `("instruction", hex)` for an
instruction; such a rule is still a value that compares, and is written back unchanged.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from struct import error as struct_error

from controller.southbound.device import Actions
from controller.southbound.openflow.match import decode_field, encode_field
from controller.southbound.openflow.messages import MalformedMessage, Port13

_TLV = Struct("!HH")
_OUTPUT = Struct("!HHIH6x")
_NOTHING = Struct("!HH4x")
_BYTE = Struct("!HHB3x")
_ETHERTYPE = Struct("!HHH2x")
_WORD = Struct("!HHI")
_METADATA = Struct("!HH4xQQ")

_OUTPUT_TYPE, _SET_FIELD_TYPE = 0, 25
_METADATA_TYPE, _WRITE_TYPE, _APPLY_TYPE, _CLEAR_TYPE = 2, 3, 4, 5
_ALL_METADATA = 0xFFFFFFFFFFFFFFFF
_CONTROLLER = int(Port13.CONTROLLER)
_LISTS_KEPT = 4096
"""Lists of actions that are remembered: a switch has few ports, and most rules do no more than send to one of them."""
_SHORT_BYTES = 128
"""Longer lists that a switch sends are not remembered: it must not fill the memory."""
_WHOLE_PACKET = 0xFFFF
"""`max_len` of an output to the controller: all of the frame, unbuffered."""

_ACTIONS: dict[str, tuple[int, Struct]] = {
    "copy_ttl_out": (11, _NOTHING),
    "copy_ttl_in": (12, _NOTHING),
    "set_mpls_ttl": (15, _BYTE),
    "dec_mpls_ttl": (16, _NOTHING),
    "push_vlan": (17, _ETHERTYPE),
    "pop_vlan": (18, _NOTHING),
    "push_mpls": (19, _ETHERTYPE),
    "pop_mpls": (20, _ETHERTYPE),
    "set_queue": (21, _WORD),
    "group": (22, _WORD),
    "set_nw_ttl": (23, _BYTE),
    "dec_nw_ttl": (24, _NOTHING),
    "push_pbb": (26, _ETHERTYPE),
    "pop_pbb": (27, _NOTHING),
}
_ACTION_NAMES = {kind: (name, shape) for name, (kind, shape) in _ACTIONS.items()}

_INSTRUCTIONS: dict[str, tuple[int, Struct]] = {"goto_table": (1, _BYTE), "clear_actions": (_CLEAR_TYPE, _NOTHING), "meter": (6, _WORD)}
_INSTRUCTION_NAMES = {kind: (name, shape) for name, (kind, shape) in _INSTRUCTIONS.items()}


def _encode_known(shapes: dict[str, tuple[int, Struct]], name: str, value: int | str) -> bytes:
    kind, shape = shapes[name]
    return shape.pack(kind, shape.size) if shape is _NOTHING else shape.pack(kind, shape.size, value)


def _encode_action(name: str, value: int | str) -> bytes:
    """Raises ValueError, naming the action, when it is unknown or its value does not fit."""
    try:
        if name == "output":
            return _OUTPUT.pack(_OUTPUT_TYPE, 16, value, _WHOLE_PACKET if value == _CONTROLLER else 0)
        if name.startswith("set_field:"):
            field = encode_field(name.removeprefix("set_field:"), value)
            length = 4 + len(field)
            return _TLV.pack(_SET_FIELD_TYPE, length + -length % 8) + field + bytes(-length % 8)
        return bytes.fromhex(str(value)) if name == "raw" else _encode_known(_ACTIONS, name, value)
    except KeyError:
        known = ", ".join(("output", "set_field:<field>", *_ACTIONS, "write:<action>", "write_metadata", *_INSTRUCTIONS))
        raise ValueError(f"{name} is no OpenFlow 1.3 action; known are {known}") from None
    except (ValueError, struct_error) as error:
        raise ValueError(f"action {name}={value}: {error}") from None


@lru_cache(_LISTS_KEPT)
def encode_actions(actions: Actions) -> bytes:
    """An action list, as in PACKET_OUT. Raises ValueError naming the action that is unknown or whose value does not fit."""
    return b"".join([_encode_action(name, value) for name, value in actions])


def _encode_metadata(value: int | str) -> bytes:
    if isinstance(value, int):
        return _METADATA.pack(_METADATA_TYPE, _METADATA.size, value, _ALL_METADATA)
    plain, _, mask = value.partition("/")
    return _METADATA.pack(_METADATA_TYPE, _METADATA.size, int(plain, 0), int(mask, 0))


def _encode_instruction(name: str, value: int | str) -> bytes:
    """Raises ValueError, naming the instruction, when its value does not fit."""
    try:
        if name == "write_metadata":
            return _encode_metadata(value)
        return bytes.fromhex(str(value)) if name == "instruction" else _encode_known(_INSTRUCTIONS, name, value)
    except (ValueError, struct_error) as error:
        raise ValueError(f"instruction {name}={value}: {error}") from None


@lru_cache(_LISTS_KEPT)
def encode_instructions(actions: Actions) -> bytes:
    """A rule's actions as its instructions. Raises ValueError as `encode_actions` does."""
    applied: list[bytes] = []
    written: list[bytes] = []
    others: list[bytes] = []
    for name, value in actions:
        if name.startswith("write:"):
            written.append(_encode_action(name.removeprefix("write:"), value))
        elif name in _INSTRUCTIONS or name in ("write_metadata", "instruction"):
            others.append(_encode_instruction(name, value))
        else:
            applied.append(_encode_action(name, value))
    return _action_instruction(_APPLY_TYPE, applied) + _action_instruction(_WRITE_TYPE, written) + b"".join(others)


def _action_instruction(kind: int, actions: list[bytes]) -> bytes:
    listed = b"".join(actions)
    return _NOTHING.pack(kind, _NOTHING.size + len(listed)) + listed if listed else b""


def _next_tlv(data: bytes, offset: int, end: int) -> tuple[int, int]:
    kind, length = _TLV.unpack_from(data, offset)
    if length < 8 or length % 8 or offset + length > end:
        raise MalformedMessage(f"an action or instruction of length {length} at byte {offset}")
    return kind, offset + length


def _decode_set_field(data: bytes, offset: int, after: int) -> tuple[str, int | str]:
    name, value, end = decode_field(data, offset + 4)
    if value is None or "/" in str(value) or after - end >= 8 or end > after:
        return "raw", data[offset:after].hex()
    return f"set_field:{name}", value


def decode_actions(data: bytes, offset: int, end: int) -> list[tuple[str, int | str]]:
    actions: list[tuple[str, int | str]] = []
    while offset < end:
        kind, after = _next_tlv(data, offset, end)
        if kind == _OUTPUT_TYPE and after - offset == _OUTPUT.size:
            _, _, port, max_length = _OUTPUT.unpack_from(data, offset)
            if port != _CONTROLLER or max_length == _WHOLE_PACKET:
                actions.append(("output", port))
            else:
                actions.append(("raw", data[offset:after].hex()))
        elif kind == _SET_FIELD_TYPE:
            actions.append(_decode_set_field(data, offset, after))
        elif (known := _ACTION_NAMES.get(kind)) and known[1].size == after - offset:
            values = known[1].unpack_from(data, offset)
            actions.append((known[0], values[2] if len(values) == 3 else 0))
        else:
            actions.append(("raw", data[offset:after].hex()))
        offset = after
    return actions


def _decode_metadata(data: bytes, offset: int) -> int | str:
    value, mask = _METADATA.unpack_from(data, offset)[2:]
    return value if mask == _ALL_METADATA else f"{value & mask:#x}/{mask:#x}"


def decode_instructions(data: bytes) -> Actions:
    """The canonical actions in the bytes of a list of instructions."""
    return _decode_short_instructions(data) if len(data) <= _SHORT_BYTES else _decode_instructions(data)


def _decode_instructions(data: bytes) -> Actions:
    actions: list[tuple[str, int | str]] = []
    others: list[tuple[int, list[tuple[str, int | str]]]] = []
    offset, end = 0, len(data)
    while offset < end:
        kind, after = _next_tlv(data, offset, end)
        if kind == _APPLY_TYPE:
            actions += decode_actions(data, offset + 8, after)
        elif kind == _WRITE_TYPE:
            others.append((kind, [(f"write:{name}", value) for name, value in decode_actions(data, offset + 8, after)]))
        elif kind == _METADATA_TYPE and after - offset == _METADATA.size:
            others.append((kind, [("write_metadata", _decode_metadata(data, offset))]))
        elif (known := _INSTRUCTION_NAMES.get(kind)) and known[1].size == after - offset:
            values = known[1].unpack_from(data, offset)
            others.append((kind, [(known[0], values[2] if len(values) == 3 else 0)]))
        else:
            others.append((kind, [("instruction", data[offset:after].hex())]))
        offset = after
    if others:
        others.sort(key=lambda other: (other[0], str(other[1])))  # a switch may list them in any order
        actions += [item for _, items in others for item in items]
    return tuple(actions)


_decode_short_instructions = lru_cache(_LISTS_KEPT)(_decode_instructions)
