"""Actions and instructions: the canonical tuples of a `FlowRule` to bytes and back (OpenFlow 1.3.5, 7.2.4 and 7.2.5).

A rule's tuple lists its apply-actions in order and, after them, its other instructions: `("meter", 3)`, `("goto_table", 1)`. What is
not modelled keeps its bytes: `("raw", hex)` for an action, `("instruction", hex)` for an instruction; such a rule is still a value that
compares, and is written back unchanged.
"""

from __future__ import annotations

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
_APPLY = Struct("!HH4x")

_OUTPUT_TYPE, _SET_FIELD_TYPE, _APPLY_TYPE = 0, 25, 4
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

_INSTRUCTIONS: dict[str, tuple[int, Struct]] = {"goto_table": (1, _BYTE), "meter": (6, _WORD)}
_INSTRUCTION_NAMES = {kind: (name, shape) for name, (kind, shape) in _INSTRUCTIONS.items()}


def _encode(shapes: dict[str, tuple[int, Struct]], name: str, value: int | str) -> bytes:
    """Raises ValueError, naming the action, when it is unknown or its value does not fit."""
    try:
        if name in ("raw", "instruction"):
            return bytes.fromhex(str(value))
        if name == "output":
            return _OUTPUT.pack(_OUTPUT_TYPE, _OUTPUT.size, value, _WHOLE_PACKET if value == Port13.CONTROLLER else 0)
        if name.startswith("set_field:"):
            field = encode_field(name.removeprefix("set_field:"), value)
            length = 4 + len(field)
            return _TLV.pack(_SET_FIELD_TYPE, length + -length % 8) + field + bytes(-length % 8)
        kind, shape = shapes[name]
        return shape.pack(kind, shape.size) if shape is _NOTHING else shape.pack(kind, shape.size, value)
    except KeyError:
        raise ValueError(f"{name} is no OpenFlow 1.3 action; known are output, set_field:<field>, {', '.join(shapes)}") from None
    except (ValueError, struct_error) as error:
        raise ValueError(f"action {name}={value}: {error}") from None


def encode_actions(actions: Actions) -> bytes:
    """An action list, as in PACKET_OUT. Raises ValueError naming the action that is unknown or whose value does not fit."""
    return b"".join(_encode(_ACTIONS, name, value) for name, value in actions)


def encode_instructions(actions: Actions) -> bytes:
    """A rule's actions as its instructions. Raises ValueError as `encode_actions` does."""
    others = [item for item in actions if item[0] == "instruction" or item[0] in _INSTRUCTIONS]
    applied = encode_actions(tuple(item for item in actions if item not in others))
    apply = _APPLY.pack(_APPLY_TYPE, _APPLY.size + len(applied)) + applied if applied else b""
    return apply + b"".join(_encode(_INSTRUCTIONS, name, value) for name, value in others)


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
            if port != Port13.CONTROLLER or max_length == _WHOLE_PACKET:
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


def decode_instructions(data: bytes, offset: int, end: int) -> Actions:
    actions: list[tuple[str, int | str]] = []
    others: list[tuple[int, str, int | str]] = []
    while offset < end:
        kind, after = _next_tlv(data, offset, end)
        if kind == _APPLY_TYPE:
            actions += decode_actions(data, offset + _APPLY.size, after)
        elif (known := _INSTRUCTION_NAMES.get(kind)) and known[1].size == after - offset:
            others.append((kind, known[0], known[1].unpack_from(data, offset)[2]))
        else:
            others.append((kind, "instruction", data[offset:after].hex()))
        offset = after
    others.sort(key=str)  # a switch may list them in any order
    return (*actions, *((name, value) for _, name, value in others))
