"""Which groups, versions and resources there are: `/api`, `/apis` and below, old and aggregated."""

from __future__ import annotations

import re
from collections.abc import Iterable

from knlocal.resources.base import Obj
from knlocal.resources.kinds import Kind

#: `kubectl` shows and searches groups in this order; Knative's and users' own come after.
_GROUP_ORDER = (
    "", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "autoscaling",
    "batch", "networking.k8s.io", "policy", "rbac.authorization.k8s.io", "storage.k8s.io",
    "admissionregistration.k8s.io", "apiextensions.k8s.io", "scheduling.k8s.io",
    "coordination.k8s.io", "discovery.k8s.io",
)  # fmt: skip

#: Subresources beside `status` and `scale`: (name, kind, group, version, verbs).
_SUBRESOURCES: dict[tuple[str, str], tuple[tuple[str, str, str, str, tuple[str, ...]], ...]] = {
    ("", "pods"): (
        ("attach", "PodAttachOptions", "", "v1", ("create", "get")),
        ("eviction", "Eviction", "policy", "v1", ("create",)),
        ("exec", "PodExecOptions", "", "v1", ("create", "get")),
        ("log", "Pod", "", "v1", ("get",)),
        ("portforward", "PodPortForwardOptions", "", "v1", ("create", "get")),
        ("proxy", "PodProxyOptions", "", "v1", ("create", "delete", "get", "patch", "update")),
    ),
    ("", "services"): (
        ("proxy", "ServiceProxyOptions", "", "v1", ("create", "delete", "get", "patch", "update")),
    ),
    ("", "serviceaccounts"): (
        ("token", "TokenRequest", "authentication.k8s.io", "v1", ("create",)),
    ),
    ("", "namespaces"): (("finalize", "Namespace", "", "v1", ("update",)),),
}


def version_priority(version: str) -> tuple[int, int, int]:
    """A sort key: v2 before v1 before v2beta1 before v1alpha1."""
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return (3, 0, 0)
    major, stage, minor = match.groups()
    return ({None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0))


class Discovery:
    """Answers made from the kinds of one moment."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._groups: dict[str, dict[str, list[Kind]]] = {}
        for kind in kinds:
            versions = self._groups.setdefault(kind.group, {})
            versions.setdefault(kind.version, []).append(kind)

    def groups(self) -> list[str]:
        known = {group: index for index, group in enumerate(_GROUP_ORDER)}
        return sorted(self._groups, key=lambda group: (known.get(group, 99), group))

    def versions(self, group: str) -> list[str]:
        return sorted(self._groups.get(group, ()), key=version_priority)

    def kinds(self, group: str, version: str) -> list[Kind]:
        return sorted(self._groups.get(group, {}).get(version, ()), key=lambda kind: kind.plural)

    # -- the old documents --------------------------------------------------------------------

    def core_versions(self, address: str) -> Obj:
        return {
            "kind": "APIVersions",
            "versions": self.versions(""),
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
        }

    def group_list(self) -> Obj:
        groups = [self.group(name) for name in self.groups() if name]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def group(self, name: str) -> Obj | None:
        versions = [
            {"groupVersion": f"{name}/{version}", "version": version}
            for version in self.versions(name)
        ]
        if not versions:
            return None
        return {"name": name, "versions": versions, "preferredVersion": versions[0]}

    def resource_list(self, group: str, version: str) -> Obj | None:
        kinds = self.kinds(group, version)
        if not kinds:
            return None
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": [row for kind in kinds for row in _rows(kind)],
        }

    # -- the aggregated document --------------------------------------------------------------

    def aggregated(self, api_version: str, *, core: bool) -> Obj:
        """Everything below `/api` or `/apis` in one answer (KEP-3352)."""
        names = [name for name in self.groups() if (not name) == core]
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": api_version,
            "metadata": {},
            "items": [
                {
                    "metadata": {"name": name, "creationTimestamp": None} if name else {},
                    "versions": [
                        {
                            "version": version,
                            "resources": [_aggregated(k) for k in self.kinds(name, version)],
                            "freshness": "Current",
                        }
                        for version in self.versions(name)
                    ],
                }
                for name in names
            ],
        }


def _rows(kind: Kind) -> list[Obj]:
    row: Obj = {
        "name": kind.plural,
        "singularName": kind.singular_name,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        row["shortNames"] = list(kind.short_names)
    if kind.categories:
        row["categories"] = list(kind.categories)
    rows = [row]
    for name, kind_name, group, version, verbs in _subresources(kind):
        rows.append({
            "name": f"{kind.plural}/{name}",
            "singularName": "",
            "namespaced": kind.namespaced,
            **({"group": group, "version": version} if group != kind.group else {}),
            "kind": kind_name,
            "verbs": list(verbs),
        })  # fmt: skip
    return rows


def _subresources(kind: Kind) -> list[tuple[str, str, str, str, tuple[str, ...]]]:
    verbs = ("get", "patch", "update")
    found = list(_SUBRESOURCES.get((kind.group, kind.plural), ()))
    if kind.has_scale:
        found.append(("scale", "Scale", "autoscaling", "v1", verbs))
    if kind.has_status and "update" in kind.verbs:
        found.append(("status", kind.kind, kind.group, kind.version, verbs))
    return sorted(found)


def _aggregated(kind: Kind) -> Obj:
    resource: Obj = {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular_name,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.categories:
        resource["categories"] = list(kind.categories)
    subresources = [
        {
            "subresource": name,
            "responseKind": {"group": group, "version": version, "kind": kind_name},
            "verbs": list(verbs),
        }
        for name, kind_name, group, version, verbs in _subresources(kind)
    ]
    if subresources:
        resource["subresources"] = subresources
    return resource
