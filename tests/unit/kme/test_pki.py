from __future__ import annotations

import ssl
import stat
from pathlib import Path

from apps.kme.identity import Identity, identify
from topologies.emulation import pki


def handshake(directory: Path, server: tuple[Path, Path], client: tuple[Path, Path], name: str) -> ssl.SSLObject:
    """A TLS handshake in memory, as strict as Python can be; returns the server's side."""
    contexts = []
    for side, (cert, key) in ((ssl.PROTOCOL_TLS_SERVER, server), (ssl.PROTOCOL_TLS_CLIENT, client)):
        context = ssl.SSLContext(side)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(directory / "ca.crt")
        context.load_cert_chain(cert, key)
        contexts.append(context)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        contexts[1].wrap_bio(to_client, to_server, server_hostname=name),
        contexts[0].wrap_bio(to_server, to_client, server_side=True),
    ]
    for end in ends * 3:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return ends[1]


def test_certificates_pass_strict_mutual_tls_and_carry_the_identity(tmp_path: Path) -> None:
    server = pki.issue(tmp_path, "kme", "alice")
    for role, name in (("sae", "vpn 1/a"), ("controller", "c1"), ("qkd", "alice"), ("kme", "bob")):
        client = pki.issue(tmp_path, role, name)  # type: ignore[arg-type]
        for expected in ("alice", "localhost", "127.0.0.1"):
            assert identify(handshake(tmp_path, server, client, expected).getpeercert()) == Identity(role, name)


def test_files_are_named_kept_and_private(tmp_path: Path) -> None:
    cert, key = pki.issue(tmp_path, "sae", "alice")
    assert {path.name for path in tmp_path.iterdir()} == {"ca.crt", "ca.key", "sae-alice.crt", "sae-alice.key"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.glob("*.key"))
    before = cert.read_bytes(), key.read_bytes()
    assert pki.issue(tmp_path, "sae", "alice") == (cert, key)
    assert (cert.read_bytes(), key.read_bytes()) == before
    (tmp_path / "ca.crt").unlink()
    pki.issue(tmp_path, "sae", "alice")
    assert cert.read_bytes() != before[0], "a certificate of another authority is replaced"
