"""What a user may do, from the stored RBAC objects (kubernetes plugin/pkg/auth/authorizer/rbac).

Enforced for service accounts; administrators may do everything, and other (impersonated) users are
only asked about (`kubectl auth can-i --as`): knlocal has one owner.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from knlocal.apiserver.users import User
from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.labels import from_label_selector
from knlocal.resources.status import Forbidden
from knlocal.store.store import Store

_GROUP = "rbac.authorization.k8s.io"
ROLE, ROLE_BINDING = GroupKind(_GROUP, "Role"), GroupKind(_GROUP, "RoleBinding")
CLUSTER_ROLE = GroupKind(_GROUP, "ClusterRole")
CLUSTER_ROLE_BINDING = GroupKind(_GROUP, "ClusterRoleBinding")

Rule = dict[str, Any]

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


@dataclass(frozen=True, slots=True)
class Attributes:
    """What somebody wants to do. `path` alone for requests that name no resource."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


class Authorizer:
    """Answers from the roles and bindings in the store, as they are at that moment."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def check(self, user: User, wanted: Attributes) -> None:
        """Raise Forbidden, in Kubernetes' words, for what a service account may not do."""
        if user.is_service_account and not self.allowed(user, wanted):
            raise forbidden(user, wanted)

    def allowed(self, user: User, wanted: Attributes) -> bool:
        if user.is_admin:
            return True
        return any(_grants(rule, wanted) for rule in self.rules(user, wanted.namespace))

    def rules(self, user: User, namespace: str) -> Iterator[Rule]:
        """All rules that apply to a user in a namespace ("" for cluster-wide ones only)."""
        yield from _BASIC
        for binding in self._store.list(CLUSTER_ROLE_BINDING):
            if _binds(binding, user, ""):
                yield from self._referenced(binding, "")
        if namespace:
            for binding in self._store.list(ROLE_BINDING, namespace):
                if _binds(binding, user, namespace):
                    yield from self._referenced(binding, namespace)

    def _referenced(self, binding: Obj, namespace: str) -> list[Rule]:
        reference = binding.get("roleRef") or {}
        name = str(reference.get("name") or "")
        if reference.get("kind") == "Role":
            role = self._store.find(ROLE, namespace, name)
            return (role or {}).get("rules") or []
        return self.cluster_role_rules(name)

    def cluster_role_rules(self, name: str) -> list[Rule]:
        """The rules of a ClusterRole, with those of roles that it aggregates by label."""
        if name == "cluster-admin":
            everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            return [everything, {"verbs": ["*"], "nonResourceURLs": ["*"]}]
        role = self._store.find(CLUSTER_ROLE, "", name)
        if role is None:
            return []
        selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors")
        if not selectors:
            return role.get("rules") or []
        chosen = [from_label_selector(selector) for selector in selectors]
        return [
            rule
            for other in self._store.list(CLUSTER_ROLE)
            if other is not role
            and any(selector.matches(other["metadata"].get("labels")) for selector in chosen)
            for rule in other.get("rules") or ()
        ]


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


def _binds(binding: Obj, user: User, namespace: str) -> bool:
    for subject in binding.get("subjects") or ():
        name = subject.get("name")
        match subject.get("kind"):
            case "User":
                if name == user.name:
                    return True
            case "Group":
                if name in user.groups:
                    return True
            case "ServiceAccount":
                place = subject.get("namespace") or namespace
                if user.name == f"system:serviceaccount:{place}:{name}":
                    return True
    return False


def _grants(rule: Rule, wanted: Attributes) -> bool:
    if not _has(rule.get("verbs"), wanted.verb):
        return False
    if wanted.path:
        return any(
            _path_matches(str(url), wanted.path) for url in rule.get("nonResourceURLs") or ()
        )
    if not _has(rule.get("apiGroups"), wanted.group):
        return False
    if not _resource_matches(rule.get("resources") or (), wanted):
        return False
    names = rule.get("resourceNames") or ()
    return not names or wanted.name in names


def _has(values: Any, value: str) -> bool:
    return "*" in (values or ()) or value in (values or ())


def _path_matches(url: str, path: str) -> bool:
    return url in ("*", path) or (url.endswith("*") and path.startswith(url[:-1]))


def _resource_matches(resources: Any, wanted: Attributes) -> bool:
    full = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    if "*" in resources or full in resources:
        return True
    return bool(wanted.subresource) and f"*/{wanted.subresource}" in resources
