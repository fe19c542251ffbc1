"""Parts of Knative that live inside the daemon, shown as the Deployments they are in a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knlocal.resources.base import (
    GroupKind,
    Obj,
    annotations_of,
    is_controlled_by,
    owner_reference,
)
from knlocal.resources.status import NotFound
from knlocal.store.store import Store

DEPLOYMENT = GroupKind("apps", "Deployment")
#: The Deployment controller writes a ready status for it, and makes no pods.
SIMULATED = "knlocal.dev/simulated"
#: Why such a part does not work; its Deployment is not ready then.
SIMULATED_DOWN = "knlocal.dev/simulated-down"


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


def hide_deployment(store: Store, owner_namespace: str, name: str) -> None:
    """Take it away again."""
    try:
        store.delete(DEPLOYMENT, owner_namespace, name)
    except NotFound:
        pass
