"""What a user may do, from the Role and ClusterRole objects in the store.

The project's own token may do everything; this answers for ServiceAccounts (SubjectAccessReview,
programs in pods, sources that act for an account). Rules: k8s.io/kubernetes plugin/pkg/auth/rbac.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from knlocal.resources import labels
from knlocal.resources.base import GroupKind, Obj, labels_of
from knlocal.store.store import Store

_RBAC = "rbac.authorization.k8s.io"
ROLE = GroupKind(_RBAC, "Role")
CLUSTER_ROLE = GroupKind(_RBAC, "ClusterRole")
ROLE_BINDING = GroupKind(_RBAC, "RoleBinding")
CLUSTER_ROLE_BINDING = GroupKind(_RBAC, "ClusterRoleBinding")


@dataclass(frozen=True, slots=True)
class Action:
    """What someone wants to do. `namespace` "" means in all namespaces, or cluster-scoped."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    """For requests that are not about resources ("/metrics")."""


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


def allowed(store: Store, user: str, groups: Sequence[str], action: Action) -> bool:
    """Whether the stored roles and bindings let `user` do it."""
    everyone = {*groups, *groups_of(user)}
    return any(
        _permits(rule, action)
        for rules in _rules_for(store, user, everyone, action.namespace)
        for rule in rules
    )


def rules_of(store: Store, cluster_role: Obj) -> list[dict[str, Any]]:
    """A ClusterRole's rules, with those that its aggregation rule gathers."""
    selectors = (cluster_role.get("aggregationRule") or {}).get("clusterRoleSelectors")
    if not selectors:
        return cluster_role.get("rules") or []
    wanted = [labels.from_label_selector(selector) for selector in selectors]
    return [
        rule
        for role in store.list(CLUSTER_ROLE)
        if role is not cluster_role and any(w.matches(labels_of(role)) for w in wanted)
        for rule in role.get("rules") or []
    ]


def _rules_for(
    store: Store, user: str, groups: set[str], namespace: str
) -> Iterator[list[dict[str, Any]]]:
    for binding in store.list(CLUSTER_ROLE_BINDING):
        if _binds(binding, user, groups, ""):
            yield _role_rules(store, binding, "")
    if namespace:
        for binding in store.list(ROLE_BINDING, namespace):
            if _binds(binding, user, groups, namespace):
                yield _role_rules(store, binding, namespace)


def _binds(binding: Obj, user: str, groups: set[str], namespace: str) -> bool:
    for subject in binding.get("subjects") or ():
        kind, name = subject.get("kind"), subject.get("name", "")
        if kind == "ServiceAccount":
            if user == service_account(subject.get("namespace") or namespace, name):
                return True
        elif (kind == "User" and name == user) or (kind == "Group" and name in groups):
            return True
    return False


def _role_rules(store: Store, binding: Obj, namespace: str) -> list[dict[str, Any]]:
    reference = binding.get("roleRef") or {}
    if reference.get("kind") == "ClusterRole":
        role = store.find(CLUSTER_ROLE, "", reference.get("name", ""))
        return rules_of(store, role) if role else []
    role = store.find(ROLE, namespace, reference.get("name", ""))
    return (role.get("rules") or []) if role else []


def _permits(rule: Mapping[str, Any], action: Action) -> bool:
    if not _has(rule.get("verbs"), action.verb):
        return False
    if action.path:
        return any(
            path in ("*", action.path) or (path.endswith("*") and action.path.startswith(path[:-1]))
            for path in rule.get("nonResourceURLs") or ()
        )
    names = rule.get("resourceNames")
    return (
        _has(rule.get("apiGroups"), action.group)
        and _has_resource(rule.get("resources"), action)
        and (not names or action.name in names)
    )


def _has(allowed_values: Iterable[str] | None, value: str) -> bool:
    values = allowed_values or ()
    return "*" in values or value in values


def _has_resource(resources: Iterable[str] | None, action: Action) -> bool:
    wanted = f"{action.resource}/{action.subresource}" if action.subresource else action.resource
    return any(
        r in ("*", wanted) or (action.subresource and r == f"*/{action.subresource}")
        for r in resources or ()
    )
