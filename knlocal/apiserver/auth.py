"""Who calls: the bearer token of the kubeconfig, service-account tokens, client certificates,
impersonation; and from where: no foreign Host, no foreign Origin."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from knlocal.apiserver.certificates import write_private
from knlocal.clock import Clock
from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.status import Forbidden, Unauthorized
from knlocal.store.store import Store

ADMIN = "kubernetes-admin"
MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
SERVICE_ACCOUNT = GroupKind("", "ServiceAccount")
DEFAULT_AUDIENCE = "https://kubernetes.default.svc.cluster.local"
ISSUER = "https://kubernetes.default.svc.cluster.local"


@dataclass(frozen=True, slots=True)
class User:
    """Who a request is from, as `UserInfo` of authentication.k8s.io has it."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def is_admin(self) -> bool:
        return MASTERS in self.groups

    @property
    def is_service_account(self) -> bool:
        return self.name.startswith("system:serviceaccount:")

    def to_info(self) -> Obj:
        return {
            "username": self.name,
            **({"uid": self.uid} if self.uid else {}),
            **({"groups": list(self.groups)} if self.groups else {}),
            **({"extra": dict(self.extra)} if self.extra else {}),
        }


ADMIN_USER = User(ADMIN, groups=(MASTERS, AUTHENTICATED))


def service_account_user(namespace: str, name: str, uid: str = "") -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(f"system:serviceaccount:{namespace}:{name}", uid, groups)


# --- tokens --------------------------------------------------------------------------------------


class Tokens:
    """The admin token, kept in a private file, and signed service-account tokens."""

    def __init__(self, folder: Path, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.admin = _kept_secret(folder / "token", lambda: secrets.token_urlsafe(32))
        self._key = _kept_secret(folder / "service-account.key", lambda: secrets.token_hex(32))

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
        signed = f"{_encode({'alg': 'HS256', 'typ': 'JWT'})}.{_encode(claims)}"
        return f"{signed}.{self._sign(signed)}", expires.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _claims(self, token: str) -> dict[str, Any] | None:
        signed, _, signature = token.rpartition(".")
        if not signed or not hmac.compare_digest(
            self._sign(signed).encode(), signature.encode(errors="replace")
        ):
            return None
        payload = signed.rpartition(".")[2]
        claims: dict[str, Any] = json.loads(_decode(payload))
        return claims

    def _sign(self, text: str) -> str:
        return _base64url(hmac.digest(self._key.encode(), text.encode(), "sha256"))


def _kept_secret(path: Path, make: Any) -> str:
    try:
        kept = path.read_text().strip()
        if kept:
            return kept
    except OSError:
        pass
    made = str(make())
    write_private(path, made.encode())
    return made


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _encode(value: Any) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# --- requests ------------------------------------------------------------------------------------


def authenticate(
    headers: Mapping[str, str], peer_certificate: Mapping[str, Any] | None, tokens: Tokens
) -> User:
    """The caller before impersonation. Raises Unauthorized."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        user = tokens.user(token.strip())
        if user is not None:
            return user
        raise Unauthorized("Unauthorized")
    protocols = headers.get("Sec-WebSocket-Protocol", "")
    for protocol in protocols.split(","):
        # Browsers cannot set a header on a WebSocket; Kubernetes takes the token this way.
        marker, _, encoded = protocol.strip().partition("base64url.bearer.authorization.k8s.io.")
        if not marker and encoded:
            user = tokens.user(_decode(encoded).decode(errors="replace"))
            if user is not None:
                return user
    if peer_certificate:
        subject = [pair for group in peer_certificate.get("subject", ()) for pair in group]
        names = [value for key, value in subject if key == "commonName"]
        groups = [value for key, value in subject if key == "organizationName"]
        if names:
            return User(names[0], groups=(*groups, AUTHENTICATED))
    raise Unauthorized("Unauthorized")


def impersonate(user: User, headers: Any) -> User:
    """Whom the caller wants to be taken for (`kubectl --as`); only an administrator may."""
    name = headers.get("Impersonate-User")
    if not name:
        if headers.get("Impersonate-Group") or headers.get("Impersonate-Uid"):
            raise Forbidden("requested impersonation without impersonating a user")
        return user
    if not user.is_admin:
        raise Forbidden(
            f'users "{name}" is forbidden: User "{user.name}" cannot impersonate resource "users" '
            'in API group "" at the cluster scope',
            kind="users", name=name,
        )  # fmt: skip
    groups = list(headers.getall("Impersonate-Group", []))
    if name.startswith("system:serviceaccount:") and name.count(":") == 3 and not groups:
        _, _, namespace, account = name.split(":")
        return service_account_user(namespace, account)
    if AUTHENTICATED not in groups:
        groups.append(AUTHENTICATED)
    extra = {
        key[len("Impersonate-Extra-") :].lower(): headers.getall(key)
        for key in headers
        if key.lower().startswith("impersonate-extra-")
    }
    return User(name, headers.get("Impersonate-Uid", ""), tuple(groups), extra)


_OWN_NAMES = {
    "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local", "host.docker.internal",
}  # fmt: skip


def check_host(headers: Mapping[str, str], extra_names: Collection[str] = ()) -> None:
    """Refuse a Host that a page under somebody's domain would send (DNS rebinding), and any
    Origin but our own. Addresses cannot be rebound, so they are welcome."""
    host = _host_name(headers.get("Host", ""))
    if not _is_own(host, extra_names):
        raise Forbidden(
            f"the host name {host!r} is not one of this API; use localhost or 127.0.0.1"
        )
    origin = headers.get("Origin")
    if origin and urlsplit(origin).netloc.lower() != headers.get("Host", "").lower():
        raise Forbidden(f"requests from web pages of {origin!r} are not allowed")


def _host_name(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".") if host.count(":") <= 1 else host


def _is_own(host: str, extra_names: Collection[str]) -> bool:
    if host in _OWN_NAMES or host in extra_names or host.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
