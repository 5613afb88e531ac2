"""Mutual TLS for the OpenFlow port: the controller's certificate, renewed while it runs, and what a switch's certificate says it is."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_DATAPATH_ID = re.compile(r"[0-9a-fA-F]{16}")

log = logging.getLogger(__name__)


def server_tls(certificate: Path, key: Path, authority: Path) -> Callable[[], ssl.SSLContext]:
    """What gives the TLS context for the next session: the files as they are now, or as they last were when they do not go together.

    Raises OSError, naming the files, when they do not to begin with.
    """
    files = (certificate, key, authority)
    try:
        seen, context = _stamps(files), _context(*files)
    except OSError as error:
        named = ", ".join(map(str, files))
        raise OSError(
            f"the certificates of the OpenFlow port ({named}) cannot be used: {error}; see openflow.tls in the settings"
        ) from error

    def current() -> ssl.SSLContext:
        nonlocal seen, context
        try:
            stamps = _stamps(files)
            if stamps != seen:
                context = _context(*files)
                seen = stamps
                log.info("new OpenFlow sessions use the certificate that is now in %s", certificate)
        except OSError as error:  # half written, or the key of another certificate: tried again at the next session
            log.warning("the new certificates of the OpenFlow port cannot be used, the old ones serve on: %s", error)
        return context

    return current


def _stamps(files: tuple[Path, ...]) -> list[tuple[int, int, int]]:
    return [(stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in (file.stat() for file in files)]


def _context(certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority))
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def datapaths_named(certificate: Mapping[str, Any]) -> set[int]:
    """The datapath ids among a certificate's common names and DNS names; the certificate as `SSLSocket.getpeercert` gives it."""
    names = [value for name in certificate.get("subject", ()) for kind, value in name if kind == "commonName"]
    names += [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
    return {int(name, 16) for name in names if _DATAPATH_ID.fullmatch(name)}
