"""What a NETCONF server tells of itself (RFC 6022): its capabilities, schemas, datastores and sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lxml import etree

from controller.southbound.netconf import rpc
from controller.southbound.netconf.rpc import CAPABILITY, element, q
from topologies.emulation.netconf.fault import FaultError
from topologies.emulation.netconf.schema import Schema

if TYPE_CHECKING:
    from topologies.emulation.netconf.server import NetconfServer

Element = etree._Element

MONITORING = "urn:ietf:params:xml:ns:yang:ietf-netconf-monitoring"


def netconf_state(server: NetconfServer) -> Element:
    root = element(MONITORING, "netconf-state")
    capabilities = _inside(root, "capabilities")
    for capability in (*server.capabilities, *(module.capability for module in server.schema.modules)):
        _inside(capabilities, "capability", capability)
    datastores = _inside(root, "datastores")
    for name in ("running", "candidate") if CAPABILITY + "candidate:1.0" in server.capabilities else ("running",):
        datastore = _inside(datastores, "datastore")
        _inside(datastore, "name", name)
        if name in server.datastores.locks:
            lock = _inside(_inside(datastore, "locks"), "global-lock")
            _inside(lock, "locked-by-session", str(server.datastores.locks[name]))
    schemas = _inside(root, "schemas")
    for module in server.schema.modules:
        schema = _inside(schemas, "schema")
        for leaf, text in (("identifier", module.name), ("version", module.revision), ("format", "yang"), ("namespace", module.namespace)):
            _inside(schema, leaf, text)
        _inside(schema, "location", "NETCONF")
    sessions = _inside(root, "sessions")
    for session in server.sessions.values():
        entry = _inside(sessions, "session")
        for leaf, text in (("session-id", str(session.id)), ("transport", "netconf-ssh"), ("username", session.username)):
            _inside(entry, leaf, text)
        _inside(entry, "login-time", session.since.isoformat(timespec="seconds"))
    return root


def get_schema(schema: Schema, operation: Element) -> Element:
    """The text of the module asked for. Raises FaultError."""
    identifier, version, form = (rpc.text(operation, MONITORING, leaf) for leaf in ("identifier", "version", "format"))
    if not identifier:
        raise FaultError("missing-element", "get-schema needs the identifier of a module", type="protocol", bad_element="identifier")
    if form.rpartition(":")[2] not in ("", "yang"):
        raise FaultError("invalid-value", f"modules are given as yang, not as {form[:40]!r}", bad_element="format")
    for module in schema.modules:
        if module.name == identifier and version in ("", module.revision):
            data = element(MONITORING, "data")
            data.text = module.text
            return data
    raise FaultError("invalid-value", f"there is no module {identifier[:80]} {version[:40]}".rstrip(), bad_element="identifier")


def _inside(parent: Element, leaf: str, text: str | None = None) -> Element:
    inside = etree.SubElement(parent, q(MONITORING, leaf))
    inside.text = text
    return inside
