"""Instructions and actions of OpenFlow 1.3: decoded with os-ken, checked against a match and against what the switch has."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from os_ken.ofproto import ofproto_v1_3 as ofp
from os_ken.ofproto import ofproto_v1_3_parser as messages

from topologies.emulation.openflow.errors import OpenFlowError
from topologies.emulation.openflow.headers import TYPE_IPV4, TYPE_IPV6, VLAN_PRESENT, VLAN_TYPES
from topologies.emulation.openflow.match import Match, missing, parse_field

Action = Any
"""An os-ken `OFPAction`. os-ken has no types."""
Instruction = Any

RESERVED = frozenset({ofp.OFPP_IN_PORT, ofp.OFPP_FLOOD, ofp.OFPP_ALL, ofp.OFPP_CONTROLLER})
_READ_ONLY = frozenset({"in_port", "eth_type", "ip_proto", "sctp_src", "sctp_dst"})
_INSTRUCTION_SIZES = {ofp.OFPIT_CLEAR_ACTIONS: 8, ofp.OFPIT_GOTO_TABLE: 8, ofp.OFPIT_WRITE_METADATA: 24, ofp.OFPIT_METER: 8}
_WITH_ACTIONS = (ofp.OFPIT_WRITE_ACTIONS, ofp.OFPIT_APPLY_ACTIONS)
_EXECUTION = (
    ofp.OFPIT_METER,
    ofp.OFPIT_APPLY_ACTIONS,
    ofp.OFPIT_CLEAR_ACTIONS,
    ofp.OFPIT_WRITE_ACTIONS,
    ofp.OFPIT_WRITE_METADATA,
    ofp.OFPIT_GOTO_TABLE,
)
"""Instruction types in the order of execution."""
_ACTION_SIZES = {
    ofp.OFPAT_OUTPUT: 16,
    ofp.OFPAT_GROUP: 8,
    ofp.OFPAT_SET_QUEUE: 8,
    ofp.OFPAT_SET_NW_TTL: 8,
    ofp.OFPAT_DEC_NW_TTL: 8,
    ofp.OFPAT_PUSH_VLAN: 8,
    ofp.OFPAT_POP_VLAN: 8,
}
"""By type; SET_FIELD has no one size."""

_SET_ORDER = (
    ofp.OFPAT_POP_VLAN,
    ofp.OFPAT_PUSH_VLAN,
    ofp.OFPAT_DEC_NW_TTL,
    ofp.OFPAT_SET_NW_TTL,
    ofp.OFPAT_SET_FIELD,
    ofp.OFPAT_SET_QUEUE,
    ofp.OFPAT_GROUP,
    ofp.OFPAT_OUTPUT,
)
"""Action types in the order in which an action set is executed."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What references are checked against."""

    has_port: Callable[[int], bool]
    has_group: Callable[[int], bool]
    has_meter: Callable[[int], bool]
    tables: int


def records(data: bytes, offset: int, end: int, error: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
    """Type, place and length of each record of a list; OpenFlowError of `error` when a length cannot be."""
    while offset < end:
        kind, length = struct.unpack_from("!HH", data, offset) if end - offset >= 8 else (0, 0)
        if length < 8 or length % 8 or offset + length > end:
            raise OpenFlowError(*error)
        yield kind, offset, length
        offset += length


def parse_instructions(data: bytes, offset: int, end: int, table: int, match: Match, holdings: Holdings) -> list[Instruction]:
    """The instructions of a FLOW_MOD for `table` with `match`, in the order of execution.

    OpenFlowError (BAD_INSTRUCTION, BAD_ACTION, METER_MOD_FAILED) when one is wrong: first for its form, then for what it would do to the
    frames that match, then for what it refers to.
    """
    found: dict[int, Instruction] = {}
    for kind, at, length in records(data, offset, end, (ofp.OFPET_BAD_INSTRUCTION, ofp.OFPBIC_BAD_LEN)):
        if kind == ofp.OFPIT_EXPERIMENTER:
            raise OpenFlowError(ofp.OFPET_BAD_INSTRUCTION, ofp.OFPBIC_BAD_EXPERIMENTER)
        if kind not in _EXECUTION:
            raise OpenFlowError(ofp.OFPET_BAD_INSTRUCTION, ofp.OFPBIC_UNKNOWN_INST)
        if kind in found:
            raise OpenFlowError(ofp.OFPET_BAD_INSTRUCTION, ofp.OFPBIC_UNSUP_INST)
        if length != _INSTRUCTION_SIZES.get(kind, length):
            raise OpenFlowError(ofp.OFPET_BAD_INSTRUCTION, ofp.OFPBIC_BAD_LEN)
        if kind in _WITH_ACTIONS:
            parse_actions(data, at + 8, at + length, holdings)
        found[kind] = messages.OFPInstruction.parser(data, at)
    instructions = [found[kind] for kind in _EXECUTION if kind in found]
    known, inconsistent = dict(match), False
    for instruction in instructions:
        if instruction.type == ofp.OFPIT_APPLY_ACTIONS:
            inconsistent = _unfit(instruction.actions, known)
        elif instruction.type == ofp.OFPIT_WRITE_ACTIONS:
            _unfit(instruction.actions, known)  # in which order they are executed, and what later tables add, is not known
        elif instruction.type == ofp.OFPIT_GOTO_TABLE and not table < instruction.table_id < holdings.tables:
            raise OpenFlowError(ofp.OFPET_BAD_INSTRUCTION, ofp.OFPBIC_BAD_TABLE_ID)
    if inconsistent:
        raise OpenFlowError(ofp.OFPET_BAD_ACTION, ofp.OFPBAC_MATCH_INCONSISTENT)
    for instruction in instructions:
        if instruction.type == ofp.OFPIT_METER and not holdings.has_meter(instruction.meter_id):
            raise OpenFlowError(ofp.OFPET_METER_MOD_FAILED, ofp.OFPMMFC_INVALID_METER)
        check_groups(instruction.actions if instruction.type in _WITH_ACTIONS else [], holdings)
    return instructions


def parse_actions(data: bytes, offset: int, end: int, holdings: Holdings, *, reserved: frozenset[int] = RESERVED) -> list[Action]:
    """The actions of a list, right in their form. `reserved` are the reserved ports that may be put out to."""
    actions = []
    for kind, at, length in records(data, offset, end, (ofp.OFPET_BAD_ACTION, ofp.OFPBAC_BAD_LEN)):
        if kind == ofp.OFPAT_EXPERIMENTER:
            raise OpenFlowError(ofp.OFPET_BAD_ACTION, ofp.OFPBAC_BAD_EXPERIMENTER)
        if kind not in _SET_ORDER:
            raise OpenFlowError(ofp.OFPET_BAD_ACTION, ofp.OFPBAC_BAD_TYPE)
        if length != _ACTION_SIZES.get(kind, length):
            raise OpenFlowError(ofp.OFPET_BAD_ACTION, ofp.OFPBAC_BAD_LEN)
        if kind == ofp.OFPAT_SET_FIELD:
            _check_set_field(data, at, length)
        action = messages.OFPAction.parser(data, at)
        if kind == ofp.OFPAT_OUTPUT and not (holdings.has_port(action.port) or action.port in reserved):
            raise OpenFlowError(ofp.OFPET_BAD_ACTION, ofp.OFPBAC_BAD_OUT_PORT)
        if kind == ofp.OFPAT_PUSH_VLAN and action.ethertype not in VLAN_TYPES:
            raise OpenFlowError(ofp.OFPET_BAD_ACTION, ofp.OFPBAC_BAD_ARGUMENT)
        actions.append(action)
    return actions


def check_groups(actions: list[Action], holdings: Holdings) -> None:
    """OpenFlowError (BAD_OUT_GROUP) when an action leads to a group that is not there."""
    if not all(holdings.has_group(action.group_id) for action in actions if action.type == ofp.OFPAT_GROUP):
        raise OpenFlowError(ofp.OFPET_BAD_ACTION, ofp.OFPBAC_BAD_OUT_GROUP)


def _check_set_field(data: bytes, at: int, length: int) -> None:
    kinds = (ofp.OFPBAC_BAD_SET_TYPE, ofp.OFPBAC_BAD_SET_LEN, ofp.OFPBAC_BAD_SET_ARGUMENT)
    name, value, mask, after = parse_field(data, at + 4, at + length, error=ofp.OFPET_BAD_ACTION, kinds=kinds)
    if mask is not None:
        raise OpenFlowError(ofp.OFPET_BAD_ACTION, ofp.OFPBAC_BAD_SET_TYPE)
    if at + length - after >= 8:
        raise OpenFlowError(ofp.OFPET_BAD_ACTION, ofp.OFPBAC_BAD_SET_LEN)
    if name in _READ_ONLY or (name == "vlan_vid" and not value & VLAN_PRESENT):
        raise OpenFlowError(ofp.OFPET_BAD_ACTION, ofp.OFPBAC_BAD_SET_ARGUMENT)


def _unfit(actions: list[Action], known: Match) -> bool:
    """Whether a tag is taken off, or a TTL changed, that frames as `known` need not have; `known` follows the tags.

    OpenFlowError (MATCH_INCONSISTENT) when a field is set whose prerequisite is not in the match.
    """
    unfit = False
    for action in actions:
        tagged = bool(known.get("vlan_vid", (0, 0))[0] & VLAN_PRESENT)
        if action.type == ofp.OFPAT_SET_FIELD and (missing(action.key, known) or (action.key == "vlan_vid" and not tagged)):
            raise OpenFlowError(ofp.OFPET_BAD_ACTION, ofp.OFPBAC_MATCH_INCONSISTENT)
        if action.type == ofp.OFPAT_PUSH_VLAN:
            known["vlan_vid"] = VLAN_PRESENT, VLAN_PRESENT
        elif action.type == ofp.OFPAT_POP_VLAN:
            unfit = unfit or not tagged
            known["vlan_vid"] = 0, 0
        elif action.type in (ofp.OFPAT_SET_NW_TTL, ofp.OFPAT_DEC_NW_TTL):
            unfit = unfit or known.get("eth_type", (0, 0))[0] not in (TYPE_IPV4, TYPE_IPV6)
    return unfit


def actions_of(instructions: list[Instruction], kind: int) -> list[Action]:
    """The actions of the instruction of one type; none without it."""
    return next((instruction.actions for instruction in instructions if instruction.type == kind), [])


def in_order(actions: list[Action]) -> list[Action]:
    """A bucket's or a set's actions as they are executed: the last of each kind, tags before TTL before fields, then group or output."""
    last: dict[object, Action] = {}
    for action in actions:
        key = action.key if action.type == ofp.OFPAT_SET_FIELD else action.type
        last.pop(key, None)
        last[key] = action
    if ofp.OFPAT_GROUP in last:
        last.pop(ofp.OFPAT_OUTPUT, None)
    elif ofp.OFPAT_OUTPUT not in last:
        return []
    return sorted(last.values(), key=lambda action: _SET_ORDER.index(action.type))
