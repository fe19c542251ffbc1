"""Service account tokens for pods: signed JWTs in the shape Kubernetes gives them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

DEFAULT_AUDIENCE = "https://kubernetes.default.svc.cluster.local"
DEFAULT_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """For whom a token is wanted, and for how long (seconds, from `now`)."""

    namespace: str
    service_account: str
    service_account_uid: str
    pod: str
    pod_uid: str
    audience: str
    seconds: int
    now: datetime


TokenIssuer = Callable[[TokenRequest], str]
"""Makes a token. The daemon passes the API server's own, so that the API knows the tokens."""


def claims(request: TokenRequest) -> dict[str, Any]:
    """The claims of a bound service account token (KEP-1205)."""
    now = int(request.now.timestamp())
    return {
        "aud": [request.audience or DEFAULT_AUDIENCE],
        "exp": now + request.seconds,
        "iat": now,
        "nbf": now,
        "iss": DEFAULT_AUDIENCE,
        "kubernetes.io": {
            "namespace": request.namespace,
            "pod": {"name": request.pod, "uid": request.pod_uid},
            "serviceaccount": {
                "name": request.service_account,
                "uid": request.service_account_uid,
            },
        },
        "sub": f"system:serviceaccount:{request.namespace}:{request.service_account}",
    }


class LocalIssuer:
    """Signs with a key that lives as long as the process: for when nobody verifies tokens."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def __call__(self, request: TokenRequest) -> str:
        header = _encoded(json.dumps({"alg": "ES256", "kid": "knlocal"}).encode())
        signed = f"{header}.{_encoded(json.dumps(claims(request)).encode())}"
        signature = self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(signature)
        return f"{signed}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
