"""What one KME is told when it starts; its relay entries come from the controller."""

from __future__ import annotations

import ssl
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class KmeSettings(BaseModel):
    """One KME. Its certificate must carry `id` as a DNS name: other KMEs and the controller verify it on connecting."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")
    node: str = ""
    """The node whose QKD modules feed this KME: the name in their certificates. By default the KME's own id."""
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    saes: frozenset[str] = frozenset()
    """The SAE IDs that this KME serves."""
    ca: Path
    cert: Path
    key: Path
    peers: dict[str, str] = {}
    """Neighbouring KMEs: id to `https://host:port`."""
    store: Path
    kek: Path
    """The key-encryption key, 32 bytes; made on first start. Whoever holds it and the store holds the keys."""
    pool_max_bytes: int = Field(default=1 << 20, ge=1024)
    """The most pool bytes kept per neighbour; beyond it the oldest are destroyed."""
    key_lifetime_s: float = Field(default=86400.0, gt=0)
    """How long a key waits for its master SAE; for its slave SAE it waits twice as long."""

    @property
    def modules_node(self) -> str:
        return self.node or self.id


def server_tls(settings: KmeSettings) -> ssl.SSLContext:
    """Mutual TLS, 1.2 or later, as ETSI GS QKD 014 asks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _with_certificate(context, settings)


def client_tls(settings: KmeSettings) -> ssl.SSLContext:
    """For calls to other KMEs; the server's name is verified."""
    return _with_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), settings)


def _with_certificate(context: ssl.SSLContext, settings: KmeSettings) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(settings.ca)
    context.load_cert_chain(settings.cert, settings.key)
    return context
