"""What a user may do, from the Role and ClusterRole objects in the store.

The project's own token may do everything; this answers for ServiceAccounts (SubjectAccessReview,
programs in pods, sources that act for an account). Rules: k8s.io/kubernetes
plugin/pkg/auth/authorizer/rbac.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from knlocal.resources.base import GroupKind, Obj, labels_of
from knlocal.resources.labels import from_label_selector
from knlocal.store.store import Store

_RBAC = "rbac.authorization.k8s.io"
ROLE = GroupKind(_RBAC, "Role")
CLUSTER_ROLE = GroupKind(_RBAC, "ClusterRole")
ROLE_BINDING = GroupKind(_RBAC, "RoleBinding")
CLUSTER_ROLE_BINDING = GroupKind(_RBAC, "ClusterRoleBinding")

Rule = dict[str, Any]
"""A PolicyRule: verbs on resources, or on paths that are no resources."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What somebody wants to do. `namespace` "" means in all namespaces, or cluster-scoped; `path`
    alone is for requests that name no resource ("/metrics")."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


def service_account(namespace: str, name: str) -> str:
    """The user name of a service account."""
    return f"system:serviceaccount:{namespace}:{name}"


def groups_of(user: str) -> tuple[str, ...]:
    """The groups a service account's user is in by itself."""
    if user.startswith("system:serviceaccount:"):
        namespace = user.split(":")[2]
        return (
            "system:serviceaccounts",
            f"system:serviceaccounts:{namespace}",
            "system:authenticated",
        )
    return ("system:authenticated",)


def grants(rules: Iterable[Rule], wanted: Attributes) -> bool:
    """Whether any of the rules lets it happen."""
    return any(_permits(rule, wanted) for rule in rules)


def rules_for(store: Store, user: str, groups: Collection[str], namespace: str) -> Iterator[Rule]:
    """The rules bound to a user in a namespace ("" for those bound in the whole cluster only)."""
    for binding in store.list(CLUSTER_ROLE_BINDING):
        if _binds(binding, user, groups, ""):
            yield from _bound_rules(store, binding, "")
    if namespace:
        for binding in store.list(ROLE_BINDING, namespace):
            if _binds(binding, user, groups, namespace):
                yield from _bound_rules(store, binding, namespace)


def cluster_role_rules(store: Store, name: str) -> list[Rule]:
    """A ClusterRole's rules, or those of the roles that it aggregates by label; none when there is
    no such role."""
    if name == "cluster-admin":
        everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
        return [everything, {"verbs": ["*"], "nonResourceURLs": ["*"]}]
    role = store.find(CLUSTER_ROLE, "", name)
    if role is None:
        return []
    selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors")
    if not selectors:
        return role.get("rules") or []
    chosen = [from_label_selector(selector) for selector in selectors]
    return [
        rule
        for other in store.list(CLUSTER_ROLE)
        if other is not role and any(selector.matches(labels_of(other)) for selector in chosen)
        for rule in other.get("rules") or ()
    ]


def _bound_rules(store: Store, binding: Obj, namespace: str) -> list[Rule]:
    reference = binding.get("roleRef") or {}
    name = str(reference.get("name") or "")
    if reference.get("kind") == "Role":
        return (store.find(ROLE, namespace, name) or {}).get("rules") or []
    return cluster_role_rules(store, name)


def _binds(binding: Obj, user: str, groups: Collection[str], namespace: str) -> bool:
    for subject in binding.get("subjects") or ():
        name = subject.get("name", "")
        match subject.get("kind"):
            case "User":
                bound = name == user
            case "Group":
                bound = name in groups
            case "ServiceAccount":
                bound = user == service_account(subject.get("namespace") or namespace, name)
            case _:
                bound = False
        if bound:
            return True
    return False


def _permits(rule: Rule, wanted: Attributes) -> bool:
    if not _has(rule.get("verbs"), wanted.verb):
        return False
    if wanted.path:
        return any(
            _path_matches(str(url), wanted.path) for url in rule.get("nonResourceURLs") or ()
        )
    names = rule.get("resourceNames")
    return (
        _has(rule.get("apiGroups"), wanted.group)
        and _resource_matches(rule.get("resources") or (), wanted)
        and (not names or wanted.name in names)
    )


def _has(values: Collection[str] | None, value: str) -> bool:
    return "*" in (values or ()) or value in (values or ())


def _path_matches(url: str, path: str) -> bool:
    return url in ("*", path) or (url.endswith("*") and path.startswith(url[:-1]))


def _resource_matches(resources: Collection[str], wanted: Attributes) -> bool:
    full = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    if "*" in resources or full in resources:
        return True
    return bool(wanted.subresource) and f"*/{wanted.subresource}" in resources
