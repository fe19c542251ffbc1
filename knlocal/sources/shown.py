"""Parts of Knative that live inside the daemon, shown as the objects they are in a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knlocal.resources.annotations import ROUTED_BY, SIMULATED, SIMULATED_DOWN
from knlocal.resources.base import (
    GroupKind,
    Obj,
    annotations_of,
    is_controlled_by,
    owner_reference,
)
from knlocal.store.store import Store

CONFIG_MAP = GroupKind("", "ConfigMap")
SERVICE = GroupKind("", "Service")
DEPLOYMENT = GroupKind("apps", "Deployment")


def show_deployment(
    store: Store,
    owner: Obj,
    name: str,
    labels: Mapping[str, str],
    container: str,
    env: Mapping[str, str],
    service_account: str = "",
    down: str = "",
) -> Obj:
    """Make the Deployment, or bring its container's environment in line. `container` names the
    container, and its image in a registry that does not exist; `down` is why it does not run."""
    pod: dict[str, Any] = {
        "containers": [
            {
                "name": container,
                "image": f"knlocal.internal/{container}",
                "env": [{"name": name, "value": value} for name, value in env.items()],
            }
        ]
    }
    if service_account:
        pod["serviceAccountName"] = service_account
    namespace = owner["metadata"]["namespace"]
    template = {"metadata": {"labels": dict(labels)}, "spec": pod}
    wanted = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": dict(labels),
            "annotations": {SIMULATED: "true", **({SIMULATED_DOWN: down} if down else {})},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": dict(labels)},
            "template": template,
        },
    }
    found = store.find(DEPLOYMENT, namespace, name)
    if found is None:
        return store.create(wanted)
    if not is_controlled_by(found, owner):
        return found
    others = {
        k: v for k, v in annotations_of(found).items() if k not in (SIMULATED, SIMULATED_DOWN)
    }
    marked = {**found["metadata"], "annotations": {**others, **annotations_of(wanted)}}
    return store.update(
        {**found, "metadata": marked, "spec": {**found["spec"], "template": template}}
    )


def show_service(
    store: Store,
    owner: Obj,
    name: str,
    labels: Mapping[str, str],
    ports: Mapping[str, tuple[int, int]],
) -> None:
    """The Service under whose name the part is reached; `ports` by name: its own and the pods'."""
    numbers = [
        {"name": called, "protocol": "TCP", "port": port, "targetPort": target}
        for called, (port, target) in ports.items()
    ]
    spec = {"type": "ClusterIP", "selector": dict(labels), "ports": numbers}
    _show(store, owner, SERVICE, name, labels, {"spec": spec}, {ROUTED_BY: "sources"})


def show_config_map(
    store: Store, owner: Obj, name: str, labels: Mapping[str, str], data: Mapping[str, str]
) -> None:
    """What the part is told by a file."""
    _show(store, owner, CONFIG_MAP, name, labels, {"data": dict(data)})


def _show(
    store: Store,
    owner: Obj,
    kind: GroupKind,
    name: str,
    labels: Mapping[str, str],
    content: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> None:
    """Make the object, or bring it in line. What somebody else made under the name stays."""
    namespace = owner["metadata"]["namespace"]
    found = store.find(kind, namespace, name)
    if found is None:
        metadata: dict[str, Any] = {
            "name": name,
            "namespace": namespace,
            "labels": dict(labels),
            "ownerReferences": [owner_reference(owner)],
        }
        if annotations:
            metadata["annotations"] = dict(annotations)
        wanted = {"apiVersion": "v1", "kind": kind.kind, "metadata": metadata, **content}
        store.create(wanted)
    elif is_controlled_by(found, owner):
        merged = {
            field: {**found.get(field, {}), **value} if field == "spec" else value
            for field, value in content.items()
        }
        store.update({**found, **merged})


def hide(store: Store, owner: Obj, name: str, *kinds: GroupKind) -> None:
    """Take objects of the name away again, if they are the owner's."""
    namespace = owner["metadata"]["namespace"]
    for kind in kinds:
        found = store.find(kind, namespace, name)
        if found is not None and is_controlled_by(found, owner):
            store.delete(kind, namespace, name)
