"""What a Route leaves for clients to see: the Ingress (kingress) and the placeholder Services.

The gateway's table does the work; these objects describe it, and the Ingress remembers the state
of a gradual rollout. Sources: knative.dev/serving/pkg/reconciler/route/resources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from knlocal.control.conditions import Conditions
from knlocal.control.events import EventRecorder
from knlocal.resources.base import Obj, annotations_of, key_of, labels_of, status_of
from knlocal.serving.children import ensure
from knlocal.serving.config import Config
from knlocal.serving.hosts import HostName
from knlocal.serving.kinds import (
    INGRESS_CLASS,
    LAST_APPLIED,
    ROLLOUT,
    ROUTE_LABEL,
    ROUTE_NAMESPACE_LABEL,
    ROUTED_BY,
    SERVICE_LABEL,
    VISIBILITY_LABEL,
)
from knlocal.serving.rollout import Rollout
from knlocal.store.store import Store

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
    rules = [rule for split in splits for rule in _rules(metadata["namespace"], split)]
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
    conditions = Conditions(
        ("LoadBalancerReady", "NetworkConfigured"), status_of(ingress), store.clock.now()
    )
    conditions.true("LoadBalancerReady")
    conditions.true("NetworkConfigured")
    status = {
        "observedGeneration": ingress["metadata"]["generation"],
        "conditions": conditions.result(),
        "publicLoadBalancer": {"ingress": [{"domainInternal": GATEWAY_EXTERNAL}]},
        "privateLoadBalancer": {"ingress": [{"domainInternal": GATEWAY_INTERNAL}]},
    }
    return store.set_status(key_of(ingress), status) or ingress


def _rules(namespace: str, split: SplitOfHost) -> list[Obj]:
    paths = [
        {
            "splits": [
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
            ]
        }
    ]
    rules: list[Obj] = [
        {
            "hosts": list(split.name.internal_names),
            "visibility": "ClusterLocal",
            "http": {"paths": paths},
        }
    ]
    if split.name.external:
        rules.append(
            {
                "hosts": [split.name.external],
                "visibility": "ExternalIP",
                "http": {"paths": paths},
            }
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
