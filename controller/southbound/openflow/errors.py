"""The names of OpenFlow 1.3 errors (1.3.5, 7.5.4), for people who read why a switch refused something."""

from __future__ import annotations

from controller.southbound.openflow.messages import EXPERIMENTER_ERROR, Error

HELLO_FAILED = 0
INCOMPATIBLE, NOT_PERMITTED = 0, 1
ROLE_REQUEST_FAILED = 11
STALE = 0

_TYPES: dict[int, tuple[str, tuple[str, ...]]] = {
    0: ("HELLO_FAILED", ("INCOMPATIBLE", "EPERM")),
    1: (
        "BAD_REQUEST",
        (
            *("BAD_VERSION", "BAD_TYPE", "BAD_MULTIPART", "BAD_EXPERIMENTER", "BAD_EXP_TYPE", "EPERM", "BAD_LEN", "BUFFER_EMPTY"),
            *("BUFFER_UNKNOWN", "BAD_TABLE_ID", "IS_SLAVE", "BAD_PORT", "BAD_PACKET", "MULTIPART_BUFFER_OVERFLOW"),
        ),
    ),
    2: (
        "BAD_ACTION",
        (
            *("BAD_TYPE", "BAD_LEN", "BAD_EXPERIMENTER", "BAD_EXP_TYPE", "BAD_OUT_PORT", "BAD_ARGUMENT", "EPERM", "TOO_MANY", "BAD_QUEUE"),
            *("BAD_OUT_GROUP", "MATCH_INCONSISTENT", "UNSUPPORTED_ORDER", "BAD_TAG", "BAD_SET_TYPE", "BAD_SET_LEN", "BAD_SET_ARGUMENT"),
        ),
    ),
    3: (
        "BAD_INSTRUCTION",
        (
            *("UNKNOWN_INST", "UNSUP_INST", "BAD_TABLE_ID", "UNSUP_METADATA", "UNSUP_METADATA_MASK", "BAD_EXPERIMENTER", "BAD_EXP_TYPE"),
            *("BAD_LEN", "EPERM"),
        ),
    ),
    4: (
        "BAD_MATCH",
        (
            *("BAD_TYPE", "BAD_LEN", "BAD_TAG", "BAD_DL_ADDR_MASK", "BAD_NW_ADDR_MASK", "BAD_WILDCARDS", "BAD_FIELD", "BAD_VALUE"),
            *("BAD_MASK", "BAD_PREREQ", "DUP_FIELD", "EPERM"),
        ),
    ),
    5: ("FLOW_MOD_FAILED", ("UNKNOWN", "TABLE_FULL", "BAD_TABLE_ID", "OVERLAP", "EPERM", "BAD_TIMEOUT", "BAD_COMMAND", "BAD_FLAGS")),
    6: (
        "GROUP_MOD_FAILED",
        (
            *("GROUP_EXISTS", "INVALID_GROUP", "WEIGHT_UNSUPPORTED", "OUT_OF_GROUPS", "OUT_OF_BUCKETS", "CHAINING_UNSUPPORTED"),
            *("WATCH_UNSUPPORTED", "LOOP", "UNKNOWN_GROUP", "CHAINED_GROUP", "BAD_TYPE", "BAD_COMMAND", "BAD_BUCKET", "BAD_WATCH", "EPERM"),
        ),
    ),
    7: ("PORT_MOD_FAILED", ("BAD_PORT", "BAD_HW_ADDR", "BAD_CONFIG", "BAD_ADVERTISE", "EPERM")),
    8: ("TABLE_MOD_FAILED", ("BAD_TABLE", "BAD_CONFIG", "EPERM")),
    9: ("QUEUE_OP_FAILED", ("BAD_PORT", "BAD_QUEUE", "EPERM")),
    10: ("SWITCH_CONFIG_FAILED", ("BAD_FLAGS", "BAD_LEN", "EPERM")),
    11: ("ROLE_REQUEST_FAILED", ("STALE", "UNSUP", "BAD_ROLE")),
    12: (
        "METER_MOD_FAILED",
        (
            *("UNKNOWN", "METER_EXISTS", "INVALID_METER", "UNKNOWN_METER", "BAD_COMMAND", "BAD_FLAGS", "BAD_RATE", "BAD_BURST", "BAD_BAND"),
            *("BAD_BAND_VALUE", "OUT_OF_METERS", "OUT_OF_BANDS"),
        ),
    ),
    13: ("TABLE_FEATURES_FAILED", ("BAD_TABLE", "BAD_METADATA", "BAD_TYPE", "BAD_LEN", "BAD_ARGUMENT", "EPERM")),
}


def error_name(error: Error) -> str:
    """`FLOW_MOD_FAILED/TABLE_FULL`; the bare numbers for what has no name here."""
    if error.type == EXPERIMENTER_ERROR:
        return f"experimenter {error.experimenter:#010x}/code {error.code}"
    name, codes = _TYPES.get(error.type, (f"error type {error.type}", ()))
    return f"{name}/{codes[error.code] if error.code < len(codes) else f'code {error.code}'}"
