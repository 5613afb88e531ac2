"""Values of YANG leaves in what a device sent; a leaf is in the namespace of its parent. Raises MessageError for what is none."""

from __future__ import annotations

import math

from lxml import etree

from controller.southbound.netconf import rpc


def leaf(parent: etree._Element, name: str) -> str:
    """The text of a leaf; empty where there is none."""
    return rpc.text(parent, etree.QName(parent).namespace or "", name)


def number(parent: etree._Element, name: str) -> int:
    """A YANG uint32."""
    text = leaf(parent, name)
    value = rpc.unsigned(text)
    if value is None:
        raise rpc.MessageError(f"{name} is {text[:40]!r}, not a number from 0 to {2**32 - 1}")
    return value


def decimal(parent: etree._Element, name: str) -> float:
    """A YANG decimal64."""
    text = leaf(parent, name)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise rpc.MessageError(f"{name} is {text[:40]!r}, not a finite decimal number")
    return value
