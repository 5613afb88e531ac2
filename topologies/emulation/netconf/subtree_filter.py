"""Which part of a tree a NETCONF subtree filter selects (RFC 6241 section 6)."""

from __future__ import annotations

from copy import deepcopy

from lxml import etree

Element = etree._Element


def subtree_filter(roots: list[Element], wanted: Element) -> list[Element]:
    """Copies of what a filter selects (RFC 6241 section 6); nothing for an empty filter."""
    kept: set[Element] = set()
    for test in wanted:
        for root in roots:
            _mark(root, test, kept)
    return [_copy(root, kept) for root in roots if root in kept]


def _mark(node: Element, test: Element, kept: set[Element]) -> bool:
    """Add to `kept` what `test` selects of `node`; whether it selects anything."""
    if not named(node.tag, test) or any(node.get(name) != value for name, value in test.attrib.items()):
        return False
    if not len(test):
        value = (test.text or "").strip()
        if value and value != (node.text or "").strip():
            return False
        kept.update(node.iter())
        return True
    content = [child for child in test if not len(child) and (child.text or "").strip()]
    matched: list[Element] = []
    for leaf in content:
        found = [child for child in node if named(child.tag, leaf) and (child.text or "").strip() == (leaf.text or "").strip()]
        if not found:
            return False
        matched += found
    if len(content) == len(test):
        kept.update(node.iter())
        return True
    marks = [_mark(child, inner, kept) for inner in test if inner not in content for child in node]
    if not matched and not any(marks):
        return False
    kept.update((node, *matched))
    return True


def named(tag: str, test: Element) -> bool:
    """Whether the names agree; a filter without a namespace means any (section 6.2.1)."""
    return tag == test.tag or tag.rpartition("}")[2] == test.tag


def _copy(node: Element, kept: set[Element]) -> Element:
    copy = deepcopy(node)
    _prune(node, copy, kept)
    return copy


def _prune(node: Element, copy: Element, kept: set[Element]) -> None:
    for child, twin in zip(list(node), list(copy), strict=True):
        if child in kept:
            _prune(child, twin, kept)
        else:
            copy.remove(twin)
