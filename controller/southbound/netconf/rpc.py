"""NETCONF messages (RFC 6241, RFC 5277): operations and hellos to XML, received XML to values.

The XML comes from a device and is not trusted: document types, entities and anything from the network are refused, and libxml2's limits on
depth (256), names and text stay on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from lxml import etree

from controller.southbound.session import ProtocolError

Element = etree._Element

BASE = "urn:ietf:params:xml:ns:netconf:base:1.0"
NOTIFICATION = "urn:ietf:params:xml:ns:netconf:notification:1.0"
CONFIG_CHANGES = "urn:ietf:params:xml:ns:yang:ietf-netconf-notifications"
BASE_1_0 = "urn:ietf:params:netconf:base:1.0"
BASE_1_1 = "urn:ietf:params:netconf:base:1.1"
CAPABILITY = "urn:ietf:params:netconf:capability:"

Datastore = Literal["running", "candidate"]
TestOption = Literal["test-then-set", "set", "test-only"]
ErrorOption = Literal["stop-on-error", "continue-on-error", "rollback-on-error"]


class MessageError(ProtocolError):
    """What the peer sent is not a NETCONF message."""


@dataclass(frozen=True, slots=True)
class RpcError:
    """One rpc-error of RFC 6241 section 4.3. `info` holds error-info's children by local name."""

    tag: str
    message: str = ""
    path: str = ""
    severity: str = "error"
    type: str = "application"
    info: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        info = ", ".join(f"{name} {text}" for name, text in self.info)
        return self.tag + (f" at {self.path}" if self.path else "") + (f" ({info})" if info else "") + f": {self.message or 'no message'}"


@dataclass(frozen=True, slots=True)
class Hello:
    capabilities: frozenset[str]
    session_id: int | None


@dataclass(frozen=True, slots=True)
class Reply:
    """An rpc-reply. `message_id` is None when the peer could not read ours; `errors` include warnings."""

    message_id: str | None
    ok: bool
    data: Element | None
    errors: tuple[RpcError, ...]


@dataclass(frozen=True, slots=True)
class Notification:
    event_time: str
    event: Element


def parse_xml(message: bytes) -> Element:
    """The root element. Raises MessageError for anything that is not plain UTF-8 XML without a document type."""
    # Forcing UTF-8 below leaves no other spelling of these bytes. They could also stand in a comment or a CDATA section; nobody needs that.
    if b"<!DOCTYPE" in message:
        raise MessageError("the message has a document type (DOCTYPE), which NETCONF forbids")
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        return etree.fromstring(message.lstrip(), parser)  # some peers end a message with a line feed after its delimiter
    except (etree.XMLSyntaxError, ValueError) as fault:
        raise MessageError(f"the message is not well-formed XML: {fault}") from None


def parse(message: bytes) -> Hello | Reply | Notification:
    """What a server sent. Raises MessageError."""
    root = parse_xml(message)
    if root.tag == q(BASE, "hello"):
        return _hello(root)
    if root.tag == q(BASE, "rpc-reply"):
        if not len(root):
            raise MessageError("the rpc-reply holds neither ok nor data nor errors")
        return Reply(
            message_id=root.get("message-id"),
            ok=root.find(q(BASE, "ok")) is not None,
            data=root.find(q(BASE, "data")),
            errors=tuple(_error(child) for child in root.iterfind(q(BASE, "rpc-error"))),
        )
    if root.tag == q(NOTIFICATION, "notification"):
        events = [child for child in root if child.tag != q(NOTIFICATION, "eventTime")]
        if len(events) != 1:
            raise MessageError(f"a notification holds {len(events)} events instead of one")
        return Notification(text(root, NOTIFICATION, "eventTime"), events[0])
    raise MessageError(f"the message is a {root.tag}, not a hello, an rpc-reply or a notification")


def _hello(root: Element) -> Hello:
    given = text(root, BASE, "session-id")
    session_id = unsigned(given)
    if given and not session_id:
        raise MessageError(f"the hello has the session-id {given[:40]!r}, which is not a number from 1 to 4294967295")
    found = root.iterfind(f"{q(BASE, 'capabilities')}/{q(BASE, 'capability')}")
    return Hello(frozenset((capability.text or "").strip() for capability in found), session_id)


def _error(fault: Element) -> RpcError:
    info = fault.find(q(BASE, "error-info"))
    return RpcError(
        tag=text(fault, BASE, "error-tag") or "operation-failed",
        message=text(fault, BASE, "error-message"),
        path=text(fault, BASE, "error-path"),
        severity=text(fault, BASE, "error-severity") or "error",
        type=text(fault, BASE, "error-type") or "application",
        info=tuple((etree.QName(child).localname, (child.text or "").strip()) for child in info) if info is not None else (),
    )


def q(namespace: str, name: str) -> str:
    """An element's name in the notation of lxml."""
    return f"{{{namespace}}}{name}"


def element(namespace: str, name: str) -> Element:
    """A new element whose namespace is the default one of what is put in it."""
    prefixes: dict[Any, str] = {None: namespace}  # lxml's stubs do not know the default namespace
    return etree.Element(q(namespace, name), nsmap=prefixes)


def text(parent: Element, namespace: str, name: str) -> str:
    """The stripped text of a child; empty when there is no such child."""
    return (parent.findtext(q(namespace, name)) or "").strip()


def unsigned(number: str) -> int | None:
    """The value of a YANG uint32 or smaller; None when it is not one."""
    value = int(number) if number.isascii() and number.isdigit() and len(number) <= 10 else None
    return value if value is not None and value < 2**32 else None


def hello(capabilities: Iterable[str], session_id: int | None = None) -> bytes:
    root = element(BASE, "hello")
    listed = etree.SubElement(root, q(BASE, "capabilities"))
    for capability in capabilities:
        etree.SubElement(listed, q(BASE, "capability")).text = capability
    if session_id is not None:
        etree.SubElement(root, q(BASE, "session-id")).text = str(session_id)
    return serialise(root)


def serialise(root: Element) -> bytes:
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def rpc(message_id: int, operation: Element) -> bytes:
    root = element(BASE, "rpc")
    root.set("message-id", str(message_id))
    root.append(operation)
    return serialise(root)


def get(*subtrees: Element) -> Element:
    """Configuration and state; with subtrees, only what this filter of RFC 6241 section 6 selects."""
    return _filtered(element(BASE, "get"), subtrees)


def get_config(source: Datastore, *subtrees: Element) -> Element:
    return _filtered(_on("get-config", "source", source), subtrees)


def edit_config(
    target: Datastore,
    *config: Element,
    default_operation: Literal["merge", "replace", "none"] = "merge",
    test_option: TestOption | None = None,
    error_option: ErrorOption | None = None,
) -> Element:
    """`test_option` needs the capability validate, `rollback-on-error` its own; None leaves the element out."""
    operation = _on("edit-config", "target", target)
    etree.SubElement(operation, q(BASE, "default-operation")).text = default_operation
    for name, option in (("test-option", test_option), ("error-option", error_option)):
        if option is not None:
            etree.SubElement(operation, q(BASE, name)).text = option
    etree.SubElement(operation, q(BASE, "config")).extend(config)
    return operation


def lock(target: Datastore) -> Element:
    return _on("lock", "target", target)


def unlock(target: Datastore) -> Element:
    return _on("unlock", "target", target)


def validate(source: Datastore) -> Element:
    return _on("validate", "source", source)


def commit() -> Element:
    return element(BASE, "commit")


def discard_changes() -> Element:
    return element(BASE, "discard-changes")


def close_session() -> Element:
    return element(BASE, "close-session")


def create_subscription(stream: str | None = None) -> Element:
    """Without a stream the server sends its NETCONF stream, which has every notification it knows (RFC 5277, 3.2.3)."""
    operation = element(NOTIFICATION, "create-subscription")
    if stream is not None:
        etree.SubElement(operation, q(NOTIFICATION, "stream")).text = stream
    return operation


def _on(name: str, side: str, datastore: Datastore) -> Element:
    operation = element(BASE, name)
    etree.SubElement(etree.SubElement(operation, q(BASE, side)), q(BASE, datastore))
    return operation


def _filtered(operation: Element, subtrees: tuple[Element, ...]) -> Element:
    if subtrees:
        etree.SubElement(operation, q(BASE, "filter"), {"type": "subtree"}).extend(subtrees)
    return operation
