"""What a Route leaves for clients to see: the Ingress (kingress) and the placeholder Services.

The gateway's table does the work; these objects describe it, and the Ingress remembers the state
of a gradual rollout. Sources: knative.dev/serving/pkg/reconciler/route/resources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from knlocal.control.conditions import Conditions
from knlocal.control.events import EventRecorder
from knlocal.resources.annotations import ROUTED_BY
from knlocal.resources.base import Obj, annotations_of, key_of, labels_of, status_of
from knlocal.serving.children import ensure
from knlocal.serving.config import Config
from knlocal.serving.hosts import HostName
from knlocal.serving.kinds import (
    DEFAULT_ROUTE_HEADER,
    INGRESS_CLASS,
    LAST_APPLIED,
    ROLLOUT,
    ROUTE_LABEL,
    ROUTE_NAMESPACE_LABEL,
    SERVICE_LABEL,
    TAG_HEADER,
    VISIBILITY_LABEL,
)
from knlocal.serving.rollout import Rollout
from knlocal.store.store import Store

CONDITIONS = ("LoadBalancerReady", "NetworkConfigured")
GATEWAY_EXTERNAL = "kourier.kourier-system.svc.cluster.local"
GATEWAY_INTERNAL = "kourier-internal.kourier-system.svc.cluster.local"


class SplitOfHost(Protocol):
    """One host and the revisions behind it."""

    @property
    def name(self) -> HostName: ...
    @property
    def shares(self) -> tuple[tuple[str, int], ...]: ...


def ingress_name(owner: Obj) -> str:
    return str(owner["metadata"]["name"])


def ensure_ingress(
    store: Store,
    recorder: EventRecorder,
    route: Obj,
    splits: Sequence[SplitOfHost],
    rollout: Rollout,
    config: Config,
) -> Obj:
    """The Ingress of a Route, with the rollout's state in its annotation."""
    metadata = route["metadata"]
    annotations = {k: v for k, v in annotations_of(route).items() if k != LAST_APPLIED}
    annotations.setdefault(INGRESS_CLASS, config.network.ingress_class)
    labels = dict(labels_of(route)) | {
        ROUTE_LABEL: metadata["name"],
        ROUTE_NAMESPACE_LABEL: metadata["namespace"],
    }
    labels.setdefault(SERVICE_LABEL, "")
    tag_header = config.features.tag_header_based_routing == "Enabled"
    rules = [
        rule
        for split in splits
        for rule in _rules(split.name, _paths(metadata["namespace"], split, splits, tag_header))
    ]
    return show_ingress(
        store, recorder, route, labels, annotations | {ROLLOUT: rollout.to_json()}, rules
    )


def show_ingress(
    store: Store,
    recorder: EventRecorder,
    owner: Obj,
    labels: dict[str, str],
    annotations: dict[str, str],
    rules: list[Obj],
    tls: Sequence[Obj] = (),
) -> Obj:
    """An Ingress that is served already: ready from the start."""
    ingress = ensure(
        store,
        recorder,
        owner,
        {
            "apiVersion": "networking.internal.knative.dev/v1alpha1",
            "kind": "Ingress",
            "metadata": {
                "name": ingress_name(owner),
                "namespace": owner["metadata"]["namespace"],
                "labels": labels,
                "annotations": annotations,
            },
            "spec": {
                "httpOption": "Enabled",
                "rules": rules,
                **({"tls": list(tls)} if tls else {}),
            },
        },
    )
    conditions = Conditions(CONDITIONS, status_of(ingress), store.clock.now())
    conditions.true("LoadBalancerReady")
    conditions.true("NetworkConfigured")
    status = {
        "observedGeneration": ingress["metadata"]["generation"],
        "conditions": conditions.result(),
        **balancers(),
    }
    return store.set_status(key_of(ingress), status) or ingress


def balancers() -> Obj:
    """Where an Ingress is reached, as its status tells."""
    return {
        "publicLoadBalancer": {"ingress": [{"domainInternal": GATEWAY_EXTERNAL}]},
        "privateLoadBalancer": {"ingress": [{"domainInternal": GATEWAY_INTERNAL}]},
    }


def _paths(
    namespace: str, split: SplitOfHost, splits: Sequence[SplitOfHost], tag_header: bool
) -> list[Obj]:
    """Where the requests to a host go. With the feature tag-header-based-routing, those to the
    route's main host may name a tag, and what gets them is told how they were routed."""
    own = {"splits": _splits(namespace, split)}
    if not tag_header:
        return [own]
    tag = split.name.tag
    if tag:
        return [own | {"appendHeaders": {TAG_HEADER: tag}}]
    by_header: list[Obj] = [
        {
            "headers": {TAG_HEADER: {"exact": other.name.tag}},
            "appendHeaders": {TAG_HEADER: other.name.tag},
            "splits": _splits(namespace, other),
        }
        for other in splits
        if other.name.tag
    ]
    return [*by_header, own | {"appendHeaders": {DEFAULT_ROUTE_HEADER: "true"}}]


def _splits(namespace: str, split: SplitOfHost) -> list[Obj]:
    return [
        {
            "serviceName": revision,
            "serviceNamespace": namespace,
            "servicePort": 80,
            "percent": percent,
            "appendHeaders": {
                "Knative-Serving-Namespace": namespace,
                "Knative-Serving-Revision": revision,
            },
        }
        for revision, percent in split.shares
        if percent
    ]


def _rules(name: HostName, paths: list[Obj]) -> list[Obj]:
    rules: list[Obj] = [
        {
            "hosts": list(name.internal_names),
            "visibility": "ClusterLocal",
            "http": {"paths": paths},
        }
    ]
    if name.external:
        rules.append(
            {"hosts": [name.external], "visibility": "ExternalIP", "http": {"paths": paths}}
        )
    return rules


def ensure_placeholder(store: Store, recorder: EventRecorder, route: Obj, name: str) -> Obj:
    """The k8s Service that holds a route's (or tag's) name. What users put on it stays: the
    visibility label makes just this name private."""
    metadata = route["metadata"]
    labels = {k: v for k, v in labels_of(route).items() if k != VISIBILITY_LABEL}
    return ensure(
        store,
        recorder,
        route,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name,
                "namespace": metadata["namespace"],
                "labels": labels | {ROUTE_LABEL: metadata["name"]},
                "annotations": {k: v for k, v in annotations_of(route).items() if k != LAST_APPLIED}
                | {ROUTED_BY: "serving"},
            },
            "spec": {
                "type": "ExternalName",
                "externalName": GATEWAY_INTERNAL,
                "sessionAffinity": "None",
                "ports": [{"name": "http2", "port": 80, "protocol": "TCP", "targetPort": 80}],
            },
        },
        merge=True,
        word="placeholder service",
    )
