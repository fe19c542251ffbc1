"""The ClusterRoles that a cluster with Knative has: Kubernetes' admin, edit and view, and Knative's
roles for its duck types; and the controller that fills aggregated roles.

Sources: kubernetes plugin/pkg/auth/authorizer/rbac/bootstrappolicy, knative/serving and
knative/eventing config/core/**/*clusterrole*.yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from knlocal.control.rbac import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, Rule, cluster_role_rules
from knlocal.resources.base import Obj, copy
from knlocal.resources.kinds import Kind
from knlocal.store.store import Store
from knlocal.store.watch import WatchEvent

_GROUP = "rbac.authorization.k8s.io"
_API_VERSION = f"{_GROUP}/v1"
_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"


class ClusterRoles:
    """Makes what is missing, and keeps aggregated roles filled."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._unsubscribe: Callable[[], object] = lambda: None
        self._planned = False

    def start(self) -> None:
        """Idempotent."""
        self.stop()
        for role in initial_roles(self._store.registry):
            if self._store.find(CLUSTER_ROLE, "", role["metadata"]["name"]) is None:
                self._store.create(role)
        for binding in _bindings():
            if self._store.find(CLUSTER_ROLE_BINDING, "", binding["metadata"]["name"]) is None:
                self._store.create(binding)
        self._fill()
        self._unsubscribe = self._store.subscribe(self._changed)

    def stop(self) -> None:
        self._unsubscribe()
        self._unsubscribe = lambda: None

    def _changed(self, event: WatchEvent) -> None:
        if event.obj.get("kind") == CLUSTER_ROLE.kind and not self._planned:
            self._planned = True
            self._store.clock.call_later(0, self._fill)

    def _fill(self) -> None:
        self._planned = False
        for role in self._store.list(CLUSTER_ROLE):
            if role.get("aggregationRule"):
                rules = cluster_role_rules(self._store, role["metadata"]["name"])
                if rules != (role.get("rules") or []):
                    self._store.update({**role, "rules": copy({"rules": rules})["rules"]})


_EVENTING_CONTROLLER: Obj = {
    "kind": "ServiceAccount",
    "name": "eventing-controller",
    "namespace": "knative-eventing",
}


def _bindings() -> Iterator[Obj]:
    masters = {"apiGroup": _GROUP, "kind": "Group", "name": "system:masters"}
    yield _binding("cluster-admin", "cluster-admin", masters)
    for suffix, role in (
        ("manipulator", "channelable-manipulator"),
        ("resolver", "addressable-resolver"),
        ("source-observer", "source-observer"),
    ):
        # Suites act as it where only it may, for instance on the subscribers of a channel.
        yield _binding(f"eventing-controller-{suffix}", role, _EVENTING_CONTROLLER)


def _binding(name: str, role: str, subject: Obj) -> Obj:
    return {
        "apiVersion": _API_VERSION,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": _GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [dict(subject)],
    }


def initial_roles(kinds: Iterable[Kind]) -> list[Obj]:
    return [*_kubernetes_roles(), *_knative_roles(list(kinds))]


def _role(name: str, rules: list[Rule], labels: Mapping[str, str] | None = None) -> Obj:
    metadata: Obj = {"name": name}
    if labels:
        metadata["labels"] = dict(labels)
    return {"apiVersion": _API_VERSION, "kind": "ClusterRole", "metadata": metadata, "rules": rules}


def _aggregated(name: str, label: str, labels: Mapping[str, str] | None = None) -> Obj:
    role = _role(name, [], labels)
    role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}
    return role


def _rule(group: str, resources: Iterable[str], verbs: list[str]) -> Rule:
    return {"apiGroups": [group], "resources": sorted(resources), "verbs": verbs}


# --- Kubernetes' own -----------------------------------------------------------------------------

_VIEWED = {
    "": (
        "configmaps", "endpoints", "events", "limitranges", "namespaces", "namespaces/status",
        "persistentvolumeclaims", "pods", "pods/log", "pods/status", "replicationcontrollers",
        "resourcequotas", "serviceaccounts", "services",
    ),
    "apps": ("controllerrevisions", "daemonsets", "deployments", "deployments/scale",
             "replicasets", "replicasets/scale", "statefulsets", "statefulsets/scale"),
    "autoscaling": ("horizontalpodautoscalers",),
    "batch": ("cronjobs", "jobs"),
    "discovery.k8s.io": ("endpointslices",),
    "networking.k8s.io": ("ingresses", "networkpolicies"),
    "policy": ("poddisruptionbudgets",),
}  # fmt: skip
_EDITED = {
    "": (
        "configmaps", "events", "persistentvolumeclaims", "pods", "pods/attach", "pods/eviction",
        "pods/exec", "pods/portforward", "replicationcontrollers", "secrets", "serviceaccounts",
        "serviceaccounts/token", "services",
    ),
    "apps": _VIEWED["apps"],
    "autoscaling": _VIEWED["autoscaling"],
    "batch": _VIEWED["batch"],
    "networking.k8s.io": _VIEWED["networking.k8s.io"],
    "policy": _VIEWED["policy"],
}  # fmt: skip
_ADMINISTERED = {"rbac.authorization.k8s.io": ("roles", "rolebindings")}


def _kubernetes_roles() -> Iterator[Obj]:
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    yield _role("cluster-admin", [everything, {"verbs": ["*"], "nonResourceURLs": ["*"]}])
    for name, below, places, verbs in (
        ("view", ("view", "edit", "admin"), _VIEWED, _READ),
        ("edit", ("edit", "admin"), _EDITED, _WRITE),
        ("admin", ("admin",), _ADMINISTERED, [*_WRITE, *_READ]),
    ):
        yield _aggregated(name, f"{_AGGREGATE}{name}")
        rules = [_rule(group, resources, verbs) for group, resources in places.items()]
        if name == "edit":
            rules.append(_rule("", ["secrets", *_EXECUTED], _READ))
        labels = {f"{_AGGREGATE}{role}": "true" for role in below}
        yield _role(f"system:aggregate-to-{name}", rules, labels)


_EXECUTED = ("pods/attach", "pods/exec", "pods/portforward")


# --- Knative's -----------------------------------------------------------------------------------

_DUCK = "duck.knative.dev/"
_OBSERVED = "eventing-sources-source-observer"
_ADMINISTRATORS = {
    "knative-eventing-namespaced-admin": "eventing.knative.dev",
    "knative-messaging-namespaced-admin": "messaging.knative.dev",
    "knative-flows-namespaced-admin": "flows.knative.dev",
    "knative-sources-namespaced-admin": "sources.knative.dev",
    "knative-sinks-namespaced-admin": "sinks.knative.dev",
}


def _knative_roles(kinds: list[Kind]) -> Iterator[Obj]:
    for name, duck in (
        ("addressable-resolver", "addressable"),
        ("knative-serving-aggregated-addressable-resolver", "addressable"),
        ("channelable-manipulator", "channelable"),
        ("podspecable-binding", "podspecable"),
        ("source-observer", "source"),
    ):
        yield _aggregated(name, _DUCK + duck)
    yield from _addressables(kinds)
    channelable = {_DUCK + "channelable": "true"}
    for name, plural in (("meta", "channels"), ("imc", "inmemorychannels")):
        rules = [
            _rule(
                "messaging.knative.dev",
                _with_status([plural]),
                [*_READ, "create", "update", "patch", "delete"],
            )
        ]
        yield _role(f"{name}-channelable-manipulator", rules, channelable)
    sources = [k.plural for k in kinds if k.crd_labels.get(_DUCK + "source") and k.storage]
    observed = [_rule("sources.knative.dev", _with_status(sources), _READ)]
    yield _role(_OBSERVED, observed, {_DUCK + "source": "true"})
    yield from _podspecables()
    yield from _namespaced()


def _with_status(plurals: Iterable[str]) -> list[str]:
    return [name for plural in plurals for name in (plural, f"{plural}/status")]


def _addressables(kinds: list[Kind]) -> Iterator[Obj]:
    labels = {_DUCK + "addressable": "true"}
    yield _role("service-addressable-resolver", [_rule("", ["services"], _READ)], labels)
    groups: dict[str, list[str]] = {}
    for kind in kinds:
        if kind.is_custom and kind.storage and kind.crd_labels.get(_DUCK + "addressable"):
            groups.setdefault(kind.group, []).append(kind.plural)
    for group, plurals in groups.items():
        name = f"{group.partition('.')[0]}-addressable-resolver"
        yield _role(name, [_rule(group, _with_status(plurals), _READ)], labels)
    serving = _rule("serving.knative.dev", _with_status(["routes", "services"]), [*_READ, "patch"])
    yield _role("knative-serving-addressable-resolver", [serving], labels)


def _podspecables() -> Iterator[Obj]:
    labels = {_DUCK + "podspecable": "true"}
    verbs = ["list", "watch", "patch"]
    apps = ["daemonsets", "deployments", "replicasets", "statefulsets"]
    rules = [_rule("apps", apps, verbs), _rule("batch", ["jobs"], verbs)]
    yield _role("builtin-podspecable-binding", rules, labels)
    serving = _rule("serving.knative.dev", ["configurations", "services"], verbs)
    yield _role("knative-serving-podspecable-binding", [serving], labels)


def _namespaced() -> Iterator[Obj]:
    for name, group in _ADMINISTRATORS.items():
        yield _role(name, [_rule(group, ["*"], ["*"])], {f"{_AGGREGATE}admin": "true"})
    eventing = sorted(_ADMINISTRATORS.values())
    serving = [
        "serving.knative.dev", "networking.internal.knative.dev",
        "autoscaling.internal.knative.dev", "caching.internal.knative.dev",
    ]  # fmt: skip
    for part, groups in (("eventing", eventing), ("serving", serving)):
        for role, verbs in (
            ("admin", ["*"]), ("edit", ["create", "update", "patch", "delete"]), ("view", _READ),
        ):  # fmt: skip
            if (part, role) == ("eventing", "admin"):
                continue
            rule = {"apiGroups": groups, "resources": ["*"], "verbs": verbs}
            labels = {f"{_AGGREGATE}{role}": "true"}
            yield _role(f"knative-{part}-namespaced-{role}", [rule], labels)
