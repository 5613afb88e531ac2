"""A certificate authority for emulated networks: who is who in mutual TLS, on one machine, without any set-up.

The identity of a certificate is a URI in its subject alternative name: `urn:bellhop:<role>:<name>`. The authority's key lies beside the
certificates, which is right for an emulated network and for nothing else.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Role = Literal["kme", "sae", "controller", "qkd"]
"""A key management entity, an application, a controller, the QKD modules of a node."""

SERVERS: frozenset[Role] = frozenset({"kme", "controller"})
CA_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=365)
CLOCK_SKEW = timedelta(minutes=5)


def issue(directory: Path, role: Role, name: str, address: str = "127.0.0.1") -> tuple[Path, Path]:
    """The certificate and the private key of `name` in `role`, made on first use together with the authority's `ca.crt`.

    `address` is where a server listens. A certificate that ends within a day, or is for another address, is replaced. Private keys are P-256, in files only their owner may read.
    """
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"{role}-{quote(name, safe='')}"
    certificate_path, key_path = directory / f"{stem}.crt", directory / f"{stem}.key"
    authority, authority_key = _authority(directory)
    if (
        key_path.exists()
        and certificate_path.exists()
        and _holds(certificate_path, authority, _place(address) if role in SERVERS else None)
    ):
        return certificate_path, key_path
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"urn:bellhop:{role}:{quote(name, safe='')}")]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if role in SERVERS:
        # The server's own name is a DNS name too, so that clients verify who answers and not only where.
        names += [x509.DNSName(name), x509.DNSName("localhost"), _place(address)]
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        _builder(name, authority.subject, key.public_key(), LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
    )
    _write(certificate_path, key_path, builder.sign(authority_key, hashes.SHA256()), key)
    return certificate_path, key_path


def _place(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(address.strip("[]")))
    except ValueError:
        return x509.DNSName(address)


def _authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate_path, key_path = directory / "ca.crt", directory / "ca.key"
    if certificate_path.exists() and key_path.exists():
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key_path}: not an elliptic-curve key; remove it and ca.crt to have a new authority made")
        return x509.load_pem_x509_certificate(certificate_path.read_bytes()), key
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("Bellhop emulation CA")
    certificate = (
        _builder("Bellhop emulation CA", subject, key.public_key(), CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(certificate_path, key_path, certificate, key)
    return certificate, key


def _builder(common_name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _holds(path: Path, authority: x509.Certificate, place: x509.GeneralName | None) -> bool:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    if place is not None and place not in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value:
        return False
    issued_by = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    issuer = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    return issued_by == issuer and certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=1)


def _write(certificate_path: Path, key_path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_path.unlink(missing_ok=True)
    with os.fdopen(os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
