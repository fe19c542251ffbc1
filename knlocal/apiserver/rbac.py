"""What a user may do through the API (the rules: `control/rbac.py`).

Administrators (the token of the kubeconfig) may do everything; service accounts and users whom an
administrator impersonates (`kubectl --as`) what roles give them.
"""

from __future__ import annotations

from collections.abc import Iterator

from knlocal.apiserver.users import User
from knlocal.control.rbac import Attributes, Rule, grants, rules_for
from knlocal.resources.status import Forbidden
from knlocal.store.store import Store

#: What every authenticated user may do (system:discovery, system:basic-user).
_BASIC: tuple[Rule, ...] = (
    {
        "verbs": ["get"],
        "nonResourceURLs": [
            "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/readyz", "/openapi",
            "/openapi/*", "/version", "/version/", "/openid/v1/jwks",
            "/.well-known/openid-configuration",
        ],
    },
    {
        "verbs": ["create"],
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    },
    {
        "verbs": ["create"],
        "apiGroups": ["authentication.k8s.io"],
        "resources": ["selfsubjectreviews"],
    },
)  # fmt: skip


class Authorizer:
    """Answers from the roles and bindings in the store, as they are at that moment."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def check(self, user: User, wanted: Attributes) -> None:
        """Raise Forbidden, in Kubernetes' words, for what a user may not do."""
        if not self.allowed(user, wanted):
            raise forbidden(user, wanted)

    def allowed(self, user: User, wanted: Attributes) -> bool:
        if user.is_admin:
            return True
        return grants(self.rules(user, wanted.namespace), wanted)

    def rules(self, user: User, namespace: str) -> Iterator[Rule]:
        """All rules that apply to a user in a namespace ("" for cluster-wide ones only)."""
        yield from _BASIC
        yield from rules_for(self._store, user.name, user.groups, namespace)


def forbidden(user: User, wanted: Attributes) -> Forbidden:
    if wanted.path:
        return Forbidden(f'forbidden: User "{user.name}" cannot {wanted.verb} path "{wanted.path}"')
    resource = "/".join(part for part in (wanted.resource, wanted.subresource) if part)
    place = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    qualified = f"{wanted.resource}.{wanted.group}" if wanted.group else wanted.resource
    named = f'"{wanted.name}" ' if wanted.name else ""
    return Forbidden(
        f'{qualified} {named}is forbidden: User "{user.name}" cannot {wanted.verb} resource '
        f'"{resource}" in API group "{wanted.group}" {place}',
        group=wanted.group, kind=wanted.resource, name=wanted.name,
    )  # fmt: skip
