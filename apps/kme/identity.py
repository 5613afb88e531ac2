"""Who is calling: the role and the name in a client certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

URN_PREFIX = "urn:bellhop:"


@dataclass(frozen=True, slots=True)
class Identity:
    role: str
    """`sae`, `kme`, `controller` or `qkd`."""
    name: str


def identify(certificate: Mapping[str, Any] | None) -> Identity | None:
    """The identity in a verified certificate, in the form of `ssl.SSLSocket.getpeercert()`; None when it has none.

    A URI `urn:bellhop:<role>:<name>` among the alternative names decides. A certificate without one is an SAE's, named by its common
    name: applications often bring certificates of their own making.
    """
    if not certificate:
        return None
    for kind, value in certificate.get("subjectAltName", ()):
        if kind == "URI" and value.startswith(URN_PREFIX):
            role, _, name = value.removeprefix(URN_PREFIX).partition(":")
            return Identity(role, unquote(name)) if role and name else None
    for attributes in certificate.get("subject", ()):
        for kind, value in attributes:
            if kind == "commonName" and value:
                return Identity("sae", value)
    return None
