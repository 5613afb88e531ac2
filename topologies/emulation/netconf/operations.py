"""The operations of a NETCONF server: what they ask for, what is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

from lxml import etree

from controller.southbound.netconf import rpc
from controller.southbound.netconf.rpc import BASE, CAPABILITY, NOTIFICATION, element, q
from topologies.emulation.netconf import monitoring
from topologies.emulation.netconf.edit_config import edit_config, merge_state
from topologies.emulation.netconf.fault import FaultError
from topologies.emulation.netconf.monitoring import MONITORING
from topologies.emulation.netconf.subtree_filter import named, subtree_filter

if TYPE_CHECKING:
    from topologies.emulation.netconf.server import NetconfServer, Session

Element = etree._Element

_NEEDS = {  # operations that are there only with a capability
    "commit": "candidate:1.0",
    "discard-changes": "candidate:1.0",
    "cancel-commit": "confirmed-commit:1.1",
    "validate": "validate:1.1",
    "create-subscription": "notification:1.0",
}
_CONFIRM_TIMEOUT_S = 600
_MAX_FILTER_ELEMENTS = 1000


async def operate(server: NetconfServer, session: Session, operation: Element) -> Sequence[Element]:
    """Do an operation; its output, empty for ok. Raises FaultError."""
    name = etree.QName(operation).localname
    datastores = server.datastores
    if name in _NEEDS and CAPABILITY + _NEEDS[name] not in server.capabilities:
        raise FaultError("operation-not-supported", f"this device does not offer {_NEEDS[name]}", type="protocol")
    match operation.tag.removeprefix(f"{{{BASE}}}"):
        case "get":
            states = {**server.state(), q(MONITORING, "netconf-state"): lambda: monitoring.netconf_state(server)}
            return [_data(operation, datastores.running, server, states)]
        case "get-config":
            return [_data(operation, datastores.read(_datastore(server, operation, "source")), server, {})]
        case "edit-config":
            target = _datastore(server, operation, "target")
            default = _choice(operation, "default-operation", "merge", "replace", "none")
            test = _choice(operation, "test-option", "test-then-set", "set", "test-only")
            # An edit is all or nothing whatever the error-option says.
            _choice(operation, "error-option", "stop-on-error", "continue-on-error", "rollback-on-error")
            await datastores.edit(session.id, target, _config(operation), default, test)
        case "lock":
            await datastores.lock(session.id, _datastore(server, operation, "target"))
        case "unlock":
            await datastores.unlock(session.id, _datastore(server, operation, "target"))
        case "validate":
            datastores.validate(_source(server, operation))
        case "copy-config":
            await datastores.copy(session.id, _datastore(server, operation, "target"), _source(server, operation))
        case "commit":
            confirmed = operation.find(q(BASE, "confirmed")) is not None
            timeout_s = _seconds(operation, "confirm-timeout", _CONFIRM_TIMEOUT_S)
            if confirmed and CAPABILITY + "confirmed-commit:1.1" not in server.capabilities:
                raise FaultError("operation-not-supported", "this device does not offer confirmed-commit:1.1", type="protocol")
            await datastores.commit(
                session.id,
                timeout_s=timeout_s if confirmed else None,
                persist=rpc.text(operation, BASE, "persist") if confirmed else "",
                persist_id=rpc.text(operation, BASE, "persist-id"),
            )
        case "cancel-commit":
            await datastores.cancel_commit(session.id, rpc.text(operation, BASE, "persist-id"))
        case "discard-changes":
            await datastores.discard(session.id)
        case "close-session":
            session.end()
        case "kill-session":
            _kill(server, session, rpc.unsigned(rpc.text(operation, BASE, "session-id")))
        case _ if operation.tag == q(NOTIFICATION, "create-subscription"):
            _subscribe(server, session, operation)
        case _ if operation.tag == q(MONITORING, "get-schema"):
            return [monitoring.get_schema(server.schema, operation)]
        case _:
            return await server.call(operation)
    return ()


def _kill(server: NetconfServer, session: Session, victim: int | None) -> None:
    if victim is None or victim == session.id or victim not in server.sessions:
        raise FaultError("invalid-value", "session-id is not another open session's", type="protocol", bad_element="session-id")
    server.sessions[victim].abort()


def _subscribe(server: NetconfServer, session: Session, operation: Element) -> None:
    if session.subscription is not None:
        raise FaultError("in-use", "this session has a subscription already", type="protocol")
    for name in ("startTime", "stopTime"):
        if operation.find(q(NOTIFICATION, name)) is not None:
            raise FaultError("operation-not-supported", f"notifications are not replayed here: leave {name} out", type="protocol")
    stream = rpc.text(operation, NOTIFICATION, "stream")
    if stream not in ("", *server.streams):
        message = f"there is no stream {stream[:40]!r}; there is {', '.join(server.streams)}"
        raise FaultError("invalid-value", message, type="protocol", bad_element="stream")
    holder = element(NOTIFICATION, "subscription")
    wanted = operation.find(q(NOTIFICATION, "filter"))
    if wanted is not None:
        holder.append(_subtree(wanted))
    session.subscription = holder


def _datastore(server: NetconfServer, operation: Element, side: str) -> str:
    given = operation.find(q(BASE, side))
    if given is None or len(given) != 1:
        raise FaultError("missing-element", f"{side} must name one datastore", type="protocol", bad_element=side)
    name = str(given[0].tag).removeprefix(f"{{{BASE}}}")
    offered = ("running", "candidate") if CAPABILITY + "candidate:1.0" in server.capabilities else ("running",)
    if name not in offered:
        message = f"{name} is no datastore here: use {' or '.join(offered)}"
        raise FaultError("operation-not-supported", message, type="protocol", bad_element=etree.QName(given[0]).localname)
    written = operation.tag in (q(BASE, "edit-config"), q(BASE, "copy-config")) and side == "target"
    if written and name == "running" and CAPABILITY + "writable-running:1.0" not in server.capabilities:
        raise FaultError("operation-not-supported", "running is changed here by commits only", type="protocol")
    return name


def _source(server: NetconfServer, operation: Element) -> Element:
    """The configuration an operation is about: that of a datastore, or one it brings along."""
    given = operation.find(f"{q(BASE, 'source')}/{q(BASE, 'config')}")
    if given is None:
        return server.datastores.read(_datastore(server, operation, "source"))
    return edit_config(server.schema, element(BASE, "config"), given, "merge")


def _choice(operation: Element, name: str, *choices: str) -> str:
    """A parameter's text; the first choice when it is not given."""
    value = rpc.text(operation, BASE, name) or choices[0]
    if value not in choices:
        message = f"{name} is {value[:40]!r}; it must be {', '.join(choices)}"
        raise FaultError("invalid-value", message, type="protocol", bad_element=name)
    return value


def _seconds(operation: Element, name: str, default: int) -> int:
    text = rpc.text(operation, BASE, name)
    value = rpc.unsigned(text) if text else default
    if not value:
        raise FaultError(
            "invalid-value", f"{name} is {text[:40]!r}; it must be a number of seconds from 1", type="protocol", bad_element=name
        )
    return value


def _config(operation: Element) -> Element:
    config = operation.find(q(BASE, "config"))
    if config is None:
        stray = ", ".join(str(child.tag) for child in operation if etree.QName(child).localname == "config")
        hint = f"; {stray!r} is in another namespace" if stray else ""
        raise FaultError("missing-element", f"edit-config has no config of {BASE}{hint}", type="protocol", bad_element="config")
    return config


def _subtree(wanted: Element) -> Element:
    if wanted.get("type", wanted.get(q(BASE, "type"), "subtree")) != "subtree":
        raise FaultError("operation-not-supported", "only subtree filters are offered", type="protocol", bad_element="filter")
    if sum(1 for _ in wanted.iter()) > _MAX_FILTER_ELEMENTS:  # each of them may be held against each element there is
        raise FaultError("too-big", f"a filter has {_MAX_FILTER_ELEMENTS} elements at most", type="protocol", bad_element="filter")
    return wanted


def _data(operation: Element, config: Element, server: NetconfServer, states: Mapping[str, Callable[[], Element]]) -> Element:
    """The reply's data: everything, or what the operation's filter selects. State that the filter cannot select is not made."""
    filters = operation.find(q(BASE, "filter"))
    wanted = None if filters is None else _subtree(filters)

    def selected(tag: str) -> bool:
        return wanted is None or any(named(tag, test) for test in wanted)

    made = [make() for tag, make in states.items() if selected(tag)]
    roots = merge_state(server.schema, [root for root in config if selected(root.tag)], made)
    data = element(BASE, "data")
    data.extend(
        (root if root.getparent() is None else deepcopy(root) for root in roots) if wanted is None else subtree_filter(roots, wanted)
    )
    return data
