"""Certificates that people bring, chosen by the name a client asks for (SNI)."""

from __future__ import annotations

import datetime
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from knlocal.clock import Clock
from knlocal.gateway.routes import normal_host


class KeyPair(NamedTuple):
    """PEM, as in a Secret of type kubernetes.io/tls (`tls.crt`, `tls.key`)."""

    certificate: bytes
    key: bytes


class InvalidCertificate(ValueError):
    """Not a certificate with its key. The message says what is wrong."""


class Certificates:
    """Certificates by host; several owners, each replacing its own.

    `context` is for `Gateway.listen`; it follows every later change. A client that asks for a name
    without a certificate, or for none, gets a self-signed one made at start.
    """

    def __init__(self, clock: Clock) -> None:
        self._by_host: dict[str, ssl.SSLContext] = {}
        self._owned: dict[str, dict[str, ssl.SSLContext]] = {}
        self.context = _context(self_signed("knlocal.localhost", clock))
        self.context.sni_callback = self._choose

    def put(self, owner: str, pairs: Mapping[str, KeyPair]) -> None:
        """Replace what `owner` brought. Hosts may start with "*." (one label). Raises
        InvalidCertificate, and then nothing has changed."""
        made = {}
        for host, pair in pairs.items():
            try:
                made[normal_host(host)] = _context(pair)
            except (ssl.SSLError, ValueError, OSError) as error:
                reason = getattr(error, "reason", None) or str(error)
                raise InvalidCertificate(
                    f"the certificate for {host!r} cannot be used: {reason}"
                ) from None
        if made:
            self._owned[owner] = made
        else:
            self._owned.pop(owner, None)
        merged: dict[str, ssl.SSLContext] = {}
        for contexts in self._owned.values():
            for host, context in contexts.items():
                merged.setdefault(host, context)
        self._by_host = merged

    def remove(self, owner: str) -> None:
        """Forget what `owner` brought."""
        self.put(owner, {})

    def has(self, host: str) -> bool:
        """Whether `host` has a certificate."""
        return self._find(host) is not None

    def _find(self, host: str) -> ssl.SSLContext | None:
        host = normal_host(host)
        return self._by_host.get(host) or self._by_host.get("*." + host.partition(".")[2])

    def _choose(
        self, connection: ssl.SSLObject | ssl.SSLSocket, host: str | None, _: ssl.SSLContext
    ) -> int | None:
        context = self._find(host) if host else None
        if context is not None:
            connection.context = context
        return None


def self_signed(host: str, clock: Clock, days: int = 365) -> KeyPair:
    """A certificate nobody trusts yet, for `host` and its subdomains."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = clock.now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host), x509.DNSName(f"*.{host}")]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return KeyPair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _context(pair: KeyPair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    # The module loads files only; these are gone again before anyone could look.
    with tempfile.TemporaryDirectory(prefix="knlocal-tls-") as folder:
        chain = Path(folder, "tls.pem")
        chain.touch(mode=0o600)
        chain.write_bytes(pair.key.rstrip() + b"\n" + pair.certificate)
        context.load_cert_chain(chain)
    return context
