"""What a datastore becomes by an edit-config (RFC 6241 section 7.2), for any YANG module. Pure: the datastore given is not changed."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from lxml import etree

from controller.southbound.netconf.rpc import BASE, q
from topologies.emulation.netconf.fault import FaultError
from topologies.emulation.netconf.schema import Schema
from topologies.emulation.netconf.yang import Node

Element = etree._Element

_OPERATION = q(BASE, "operation")
_OPERATIONS = ("merge", "replace", "create", "delete", "remove")
_TEXT_TYPES = ("string", "binary")


def edit_config(schema: Schema, config: Element, edit: Element, default_operation: str) -> Element:
    """The configuration after the edit, of which names and operations have been checked, but not yet the values. Raises FaultError."""
    if default_operation == "replace":
        target, default = etree.Element(config.tag), "merge"
    else:
        target, default = deepcopy(config), default_operation
    _Edit(schema).children(schema.root, target, edit, default, "")
    return target


def merge_state(schema: Schema, roots: Iterable[Element], states: Iterable[Element]) -> list[Element]:
    """Configuration and operational state in one: what is in both is copied, the rest is as it was given."""
    made = {state.tag: state for state in states}
    merged: list[Element] = []
    for root in roots:
        state = made.pop(root.tag, None)
        if state is not None:
            root = deepcopy(root)
            _merge(schema.root.children[root.tag], root, state)
        merged.append(root)
    return [*merged, *made.values()]


def _merge(node: Node, held: Element, state: Element) -> None:
    twins = {(child.tag, _held_identity(node.children[child.tag], child)): child for child in held}
    for child in list(state):
        known = node.children[child.tag]
        twin = twins.get((child.tag, _held_identity(known, child)))
        if twin is None:
            held.append(child)
        elif known.kind in ("container", "list"):
            _merge(known, twin, child)


def _held_identity(node: Node, held: Element) -> tuple[str, ...]:
    """What tells an instance from the others of its name: the keys of an entry, the value of one of a leaf-list."""
    if node.kind == "leaf-list":
        return (held.text or "",)
    return tuple(held.findtext(q(node.namespace, key), "") for key in node.keys)


class _Edit:
    """One edit. The entries of the lists it touches are found by key: an edit of many entries would else search the list for each."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._entries: dict[tuple[Element, str], dict[tuple[str, ...], Element]] = {}

    def children(self, node: Node, parent: Element, edits: Element, inherited: str, path: str) -> None:
        """Apply what stands under `edits` to `parent`; keys of a list entry are there already."""
        if edits.text is not None and edits.text.strip():
            raise FaultError("bad-element", f"{edits.text.strip()[:40]!r} stands where only elements can", path, bad_element=_name(edits))
        once: set[str] = set()
        for edit in edits:
            child = self._known(node, edit, path)
            if child.kind in ("container", "leaf"):
                if edit.tag in once:
                    raise FaultError("bad-element", f"{child.name} is given twice", path, bad_element=child.name)
                once.add(edit.tag)
            operation = _operation(child, edit, inherited, path)
            if child.name not in node.keys or child.namespace != node.namespace:
                self._apply(child, parent, edit, operation, f"{path}/{child.prefix}:{child.name}")
            elif operation in ("delete", "remove") and operation != inherited:
                raise FaultError("bad-attribute", "a key goes with its entry only", path, bad_attribute="operation", bad_element=child.name)

    def _known(self, node: Node, edit: Element, path: str) -> Node:
        child = node.children.get(edit.tag)
        if child is not None and child.config:
            return child
        name = etree.QName(edit)
        expected = ", ".join(known.name for known in node.children.values() if known.config) or "nothing"
        if child is not None:
            message = f"{name.localname} is operational state; here can be configured: {expected}"
        elif name.namespace not in {known.namespace for known in node.children.values()}:
            belongs = " or ".join(sorted({known.namespace for known in node.children.values() if known.config})) or "no namespace"
            raise FaultError(
                "unknown-namespace",
                f"{name.localname} is in {name.namespace or 'no namespace'}; what belongs here is in {belongs}",
                path or "/",
                bad_element=name.localname,
                bad_namespace=name.namespace or "",
            )
        else:
            message = f"there is no {name.localname} here; {expected} can be configured"
        raise FaultError("unknown-element", message, path or "/", bad_element=name.localname)

    def _apply(self, node: Node, parent: Element, edit: Element, operation: str, path: str) -> None:
        identity = self._identity(node, edit, path)
        if node.kind == "list":
            path += "".join(f"[{node.prefix}:{key}={_quoted(value)}]" for key, value in zip(node.keys, identity, strict=True))
        elif node.kind == "leaf-list":
            path += f"[.={_quoted(identity[0])}]"
        entries = self._instances(node, parent)
        held = entries.get(identity)
        implied = node.kind == "container" and not node.presence  # such a container is there whenever something is put in it
        if held is None and (operation == "delete" or (operation == "none" and not implied)):
            raise FaultError("data-missing", f"there is no {_told(node, identity)}", path)
        if held is not None and operation == "create":
            raise FaultError("data-exists", f"there is a {_told(node, identity)} already", path)
        prefixes = _value_prefix(node, edit)
        if held is not None and (operation in ("delete", "remove", "replace") or prefixes.items() - held.nsmap.items()):
            parent.remove(held)
            del entries[identity]
            held = None
        if operation in ("delete", "remove"):
            return
        if held is None:
            if etree.QName(parent).namespace != node.namespace:
                prefixes[None] = node.namespace
            held = entries[identity] = etree.SubElement(parent, node.tag, nsmap=prefixes)
            for key, value in zip(node.keys, identity, strict=False):
                etree.SubElement(held, q(node.namespace, key)).text = value
        if node.kind in ("leaf", "leaf-list"):
            if len(edit):
                raise FaultError("bad-element", f"{node.name} is a value and holds no elements", path, bad_element=node.name)
            if operation != "none":
                held.text = _value(node, edit)
        else:
            self.children(node, held, edit, "merge" if operation in ("create", "replace") else operation, path)
            if implied and not len(held):
                parent.remove(held)
                del entries[identity]

    def _identity(self, node: Node, edit: Element, path: str) -> tuple[str, ...]:
        if node.kind == "leaf-list":
            return (_value(node, edit),)
        keys = []
        for key in node.keys:
            tag = q(node.namespace, key)
            given = edit.find(tag)
            if given is None:
                raise FaultError("missing-element", f"the {node.name} has no {key}, its key", path, bad_element=key)
            keys.append(_value(node.children[tag], given))
        return tuple(keys)

    def _instances(self, node: Node, parent: Element) -> dict[tuple[str, ...], Element]:
        found = self._entries.get((parent, node.tag))
        if found is None:
            found = self._entries[parent, node.tag] = {_held_identity(node, held): held for held in parent.iterchildren(node.tag)}
        return found


def _operation(node: Node, edit: Element, inherited: str, path: str) -> str:
    for attribute in edit.attrib:
        if attribute == "operation":  # taken for a merge, a delete would do the opposite
            message = f"the operation of {node.name} must be in the namespace {BASE}"
        elif attribute != _OPERATION:
            message = f"{node.name} has an attribute {attribute!s}, which means nothing here"
        else:
            continue
        raise FaultError("unknown-attribute", message, path, bad_attribute=etree.QName(str(attribute)).localname, bad_element=node.name)
    operation = str(edit.get(_OPERATION, inherited))
    if operation != inherited and operation not in _OPERATIONS:
        message = f"{operation[:40]!r} is no operation; it is one of {', '.join(_OPERATIONS)}"
        raise FaultError("bad-attribute", message, path, bad_attribute="operation", bad_element=node.name)
    return operation


def _value(node: Node, leaf: Element) -> str:
    """A leaf's text in the form in which equal values have equal texts, so far as keys of these modules need it."""
    text = leaf.text or ""
    if node.type in _TEXT_TYPES:
        return text
    text = text.strip()
    return str(int(text)) if "int" in node.type and text.isascii() and text.isdigit() and len(text) < 20 else text


def _value_prefix(node: Node, edit: Element) -> dict[Any, str]:
    """The declaration of the prefix that a leaf's value has, such as an identity's."""
    prefix, colon, _ = (edit.text or "").strip().partition(":")
    return {prefix: edit.nsmap[prefix]} if colon and node.type not in _TEXT_TYPES and prefix in edit.nsmap else {}


def _told(node: Node, identity: tuple[str, ...]) -> str:
    keys = node.keys or (() if node.kind != "leaf-list" else ("value",))
    return " ".join((node.name, *(f"{key} {value[:40]}" for key, value in zip(keys, identity, strict=False))))


def _quoted(value: str) -> str:
    value = value[:80]
    return f'"{value}"' if "'" in value else f"'{value}'"


def _name(element: Element) -> str:
    return etree.QName(element).localname
