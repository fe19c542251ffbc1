"""Tokens: the administrator's, kept in a private file, and signed ones of service accounts.

Service-account tokens are ES256 JSON Web Tokens; `Tokens.key_set` and `Tokens.discovery` let others
verify them, as Kubernetes' own issuer does (`/openid/v1/jwks`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from knlocal.apiserver.certificates import write_private
from knlocal.apiserver.users import ADMIN_USER, User, service_account_user
from knlocal.clock import Clock
from knlocal.resources.base import GroupKind, Obj, timestamp
from knlocal.store.store import Store

SERVICE_ACCOUNT = GroupKind("", "ServiceAccount")
ISSUER = "https://kubernetes.default.svc.cluster.local"
DEFAULT_AUDIENCE = ISSUER
#: Bytes of each half of a P-256 signature.
_HALF = 32


class Tokens:
    """Issues tokens and says whose they are. Files lie in `folder`."""

    def __init__(self, folder: Path, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.admin = _kept(folder / "token", lambda: secrets.token_urlsafe(32))
        self._key = _kept_key(folder / "service-account.key")
        numbers = self._key.public_key().public_numbers()
        self._public = {
            "kty": "EC",
            "crv": "P-256",
            "x": encode_base64url(numbers.x.to_bytes(_HALF, "big")),
            "y": encode_base64url(numbers.y.to_bytes(_HALF, "big")),
        }
        thumbprint = json.dumps(self._public, sort_keys=True, separators=(",", ":"))
        self._key_id = encode_base64url(hashlib.sha256(thumbprint.encode()).digest())

    def user(self, token: str, audiences: Collection[str] = ()) -> User | None:
        """Whose token it is; None for one that is unknown, expired, or for another audience."""
        if hmac.compare_digest(token.encode(), self.admin.encode()):
            return ADMIN_USER
        claims = self._claims(token)
        if claims is None or claims["exp"] <= self._clock.now().timestamp():
            return None
        if not set(claims["aud"]) & set(audiences or (DEFAULT_AUDIENCE,)):
            return None
        about = claims["kubernetes.io"]
        namespace, account = about["namespace"], about["serviceaccount"]
        known = self._store.find(SERVICE_ACCOUNT, namespace, account["name"])
        if known is None or known["metadata"]["uid"] != account["uid"]:
            return None
        return service_account_user(namespace, account["name"], account["uid"])

    def issue(
        self, account: Obj, audiences: Collection[str] = (), seconds: int = 3600
    ) -> tuple[str, str]:
        """A token for a service account, and when it expires (RFC 3339)."""
        metadata = account["metadata"]
        now = self._clock.now()
        expires = now + timedelta(seconds=seconds)
        claims = {
            "aud": list(audiences) or [DEFAULT_AUDIENCE],
            "exp": int(expires.timestamp()),
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "iss": ISSUER,
            "jti": secrets.token_hex(8),
            "sub": f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}",
            "kubernetes.io": {
                "namespace": metadata["namespace"],
                "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
            },
        }
        header = {"alg": "ES256", "kid": self._key_id, "typ": "JWT"}
        signed = f"{_encode(header)}.{_encode(claims)}"
        return f"{signed}.{self._sign(signed)}", timestamp(expires)

    def discovery(self) -> Obj:
        """`/.well-known/openid-configuration`."""
        return {
            "issuer": ISSUER,
            "jwks_uri": f"{ISSUER}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def key_set(self) -> Obj:
        """`/openid/v1/jwks`: the public key that verifies tokens."""
        return {"keys": [{**self._public, "use": "sig", "alg": "ES256", "kid": self._key_id}]}

    def _claims(self, token: str) -> dict[str, Any] | None:
        signed, _, signature = token.rpartition(".")
        try:
            raw = decode_base64url(signature)
            if len(raw) != 2 * _HALF:
                return None
            r, s = (int.from_bytes(raw[at : at + _HALF], "big") for at in (0, _HALF))
            self._key.public_key().verify(
                encode_dss_signature(r, s), signed.encode(), ec.ECDSA(hashes.SHA256())
            )
            claims: dict[str, Any] = json.loads(decode_base64url(signed.rpartition(".")[2]))
        except (InvalidSignature, ValueError):
            return None
        return claims

    def _sign(self, text: str) -> str:
        signature = self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(signature)
        return encode_base64url(r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big"))


def _kept(path: Path, make: Callable[[], str]) -> str:
    try:
        kept = path.read_text().strip()
        if kept:
            return kept
    except OSError:
        pass
    made = make()
    write_private(path, made.encode())
    return made


def _kept_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key
    except (OSError, ValueError):
        pass
    made = ec.generate_private_key(ec.SECP256R1())
    pem = made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_private(path, pem)
    return made


def encode_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64url(text: str) -> bytes:
    """Raises ValueError for what is no base64url."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encode(value: Any) -> str:
    return encode_base64url(json.dumps(value, separators=(",", ":")).encode())
