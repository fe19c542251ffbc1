"""The API's certificates: a CA made once per project, and a short-lived server certificate.

Files lie in a private folder of the project's state; the CA's key never leaves it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from knlocal.clock import Clock

CA_DAYS = 3650
SERVER_DAYS = 365
#: A server certificate with fewer days left is made anew.
RENEW_DAYS = 30

#: Names under which clients reach the API: from this machine, and from inside pods.
SERVER_NAMES = (
    "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local", "host.docker.internal", "127.0.0.1", "::1",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA: who trusts `certificate` trusts what `key` signed."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, replacing it atomically."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    temporary.replace(path)


def load_authority(folder: Path, clock: Clock) -> Authority:
    """The CA in `folder`; made when missing, unreadable or near its end."""
    certificate_file, key_file = folder / "ca.crt", folder / "ca.key"
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        if isinstance(key, ec.EllipticCurvePrivateKey) and _days_left(certificate, clock) > 1:
            return Authority(certificate, key)
    except (OSError, ValueError):
        pass
    authority = _make_authority(clock.now())
    write_private(key_file, _key_pem(authority.key))
    write_private(certificate_file, authority.pem)
    return authority


def server_context(
    folder: Path, authority: Authority, clock: Clock, extra_names: Iterable[str] = ()
) -> ssl.SSLContext:
    """A TLS context for the server; its certificate is renewed when due or when names changed.

    Client certificates signed by the CA are accepted as credentials, and never required.
    """
    names = [*SERVER_NAMES, *(name for name in extra_names if name not in SERVER_NAMES)]
    certificate_file, key_file = folder / "server.crt", folder / "server.key"
    if not _still_good(certificate_file, authority, names, clock):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = issue(authority, key, "knlocal-api", (), names, clock.now(), server=True)
        write_private(key_file, _key_pem(key))
        write_private(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate_file, key_file)
    context.load_verify_locations(cadata=authority.pem.decode())
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


def issue(
    authority: Authority,
    key: ec.EllipticCurvePrivateKey,
    common_name: str,
    organizations: Sequence[str],
    names: Sequence[str],
    now: datetime,
    *,
    server: bool,
    days: int = SERVER_DAYS,
) -> x509.Certificate:
    """A certificate for `key`: a server's for `names`, or a client's for a user and groups."""
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    subject += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
    usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(x509.Name(subject), authority.certificate.subject, key, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    if names:
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def _make_authority(now: datetime) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "knlocal")])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder(name, name, key, now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A little in the past: clocks of containers and machines differ.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _still_good(file: Path, authority: Authority, names: Sequence[str], clock: Clock) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        certificate.verify_directly_issued_by(authority.certificate)
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except Exception:  # whatever is wrong with the file, a new one puts it right
        return False
    known = {str(name.value) for name in extension.value}
    return set(names) <= known and _days_left(certificate, clock) > RENEW_DAYS


def _days_left(certificate: x509.Certificate, clock: Clock) -> float:
    return (certificate.not_valid_after_utc - clock.now()).total_seconds() / 86400


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
