"""Who calls: the bearer token of the kubeconfig, service-account tokens, client certificates,
impersonation; and from where: no foreign Host, no foreign Origin."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from knlocal.apiserver.tokens import decode_base64url
from knlocal.apiserver.users import AUTHENTICATED, User, service_account_user
from knlocal.resources.status import Forbidden, Unauthorized


class KnowsTokens(Protocol):
    """Whoever can say whose token something is."""

    def user(self, token: str, audiences: Collection[str] = ()) -> User | None: ...


def authenticate(
    headers: Mapping[str, str], peer_certificate: Mapping[str, Any] | None, tokens: KnowsTokens
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
            user = tokens.user(decode_base64url(encoded).decode(errors="replace"))
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
