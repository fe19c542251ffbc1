"""From a Revision to its Deployment: the pod template as Knative builds it.

Sources: knative.dev/serving/pkg/reconciler/revision/resources/deploy.go and meta.go. The
queue-proxy container is shown, never run (docs/architecture.md, "Pods"): its work is done by the
gateway, and so its readiness probe stays where the user put it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from knlocal.gateway.upstream import Protocol
from knlocal.resources import duration
from knlocal.resources.annotations import SNAPSHOT, STANDBY, SUCCESSOR
from knlocal.resources.base import Obj, annotations_of, copy, labels_of, owner_reference, spec_of
from knlocal.resources.names import child_name
from knlocal.serving.config import Config
from knlocal.serving.kinds import (
    AUTOSCALING,
    CONFIGURATION_GENERATION_LABEL,
    CONFIGURATION_LABEL,
    DEFAULT_CONTAINER,
    DEFAULT_USER_PORT,
    LAST_PINNED,
    NO_GC,
    PROGRESS_DEADLINE,
    REVISION_LABEL,
    REVISION_UID_LABEL,
    ROUTE_LABEL,
    ROUTES,
    ROUTING_STATE_LABEL,
    ROUTING_STATE_MODIFIED,
    SERVICE_LABEL,
)
from knlocal.serving.queue_proxy import queue_proxy_container
from knlocal.serving.revision_names import numbered_name

_NOT_ON_PODS = {ROUTE_LABEL, ROUTING_STATE_LABEL}
_NOT_ON_TEMPLATES = {LAST_PINNED, NO_GC, ROUTING_STATE_MODIFIED, ROUTES}


def deployment_name(revision: Obj) -> str:
    return child_name(revision["metadata"]["name"], "-deployment")


def make_deployment(revision: Obj, config: Config, replicas: int) -> Obj:
    """The Deployment of a revision whose digests are known. `replicas` counts at creation only."""
    labels = child_labels(revision)
    annotations = child_annotations(revision)
    uid = revision["metadata"]["uid"]
    # Scale settings may change on a live revision, which is no reason to restart its pods.
    template_annotations = {
        k: v for k, v in annotations.items() if not k.startswith(f"{AUTOSCALING}/")
    } | {DEFAULT_CONTAINER: serving_container(spec_of(revision))["name"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": deployment_name(revision),
            "namespace": revision["metadata"]["namespace"],
            "labels": labels,
            "annotations": annotations | {STANDBY: config.standby(revision)} | _successor(revision),
            "ownerReferences": [owner_reference(revision)],
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {REVISION_UID_LABEL: uid}},
            "progressDeadlineSeconds": progress_deadline(revision, config),
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"},
            },
            "template": {
                "metadata": {"labels": labels, "annotations": template_annotations},
                "spec": _pod_spec(revision, config),
            },
        },
    }


def _successor(revision: Obj) -> dict[str, str]:
    """For a revision that a save made: the Deployment that the next save will make, so that its
    first pod can be got ready. None where somebody chooses the names of revisions."""
    labels, name = labels_of(revision), revision["metadata"]["name"]
    configuration = labels.get(CONFIGURATION_LABEL, "")
    generation = labels.get(CONFIGURATION_GENERATION_LABEL, "")
    if SNAPSHOT not in annotations_of(revision) or not generation.isdigit():
        return {}
    if name != numbered_name(configuration, int(generation)):
        return {}
    then = numbered_name(configuration, int(generation) + 1)
    said = {"deployment": child_name(then, "-deployment"), "names": {name: then}}
    return {SUCCESSOR: json.dumps(said)}


def progress_deadline(revision: Obj, config: Config) -> int:
    """Seconds (behaviour B85)."""
    try:
        return int(duration.parse(PROGRESS_DEADLINE.value(annotations_of(revision)) or ""))
    except ValueError:
        pass
    return int(config.deployment.progress_deadline)


def child_labels(revision: Obj) -> dict[str, str]:
    """What pods and everything else that belongs to a revision are labelled with (B88)."""
    labels = {k: v for k, v in labels_of(revision).items() if k not in _NOT_ON_PODS}
    labels |= {
        REVISION_LABEL: revision["metadata"]["name"],
        REVISION_UID_LABEL: revision["metadata"]["uid"],
    }
    labels.setdefault("app", revision["metadata"]["name"])
    return labels


def child_annotations(revision: Obj) -> dict[str, str]:
    return {k: v for k, v in annotations_of(revision).items() if k not in _NOT_ON_TEMPLATES}


# -- the serving container ------------------------------------------------------------------------


def serving_container(spec: Mapping[str, Any]) -> Obj:
    """The container that declares ports, or the only one (RevisionSpec.GetContainer)."""
    containers: list[Obj] = spec.get("containers") or [{}]
    for container in containers:
        if container.get("ports"):
            return container
    return containers[0]


def user_port(container: Obj) -> int:
    ports = container.get("ports") or [{}]
    return int(ports[0].get("containerPort") or DEFAULT_USER_PORT)


def user_protocol(container: Obj) -> Protocol:
    ports = container.get("ports") or [{}]
    return "h2c" if ports[0].get("name") == "h2c" else "http1"


# -- the pod spec ---------------------------------------------------------------------------------


def _pod_spec(revision: Obj, config: Config) -> Obj:
    spec = copy(spec_of(revision))
    serving = serving_container(spec)
    port = user_port(serving)
    digests = _digests(revision, "containerStatuses")
    containers = [
        _container(revision, container, port, digests, serving=container is serving)
        for container in spec["containers"]
    ]
    pod: Obj = {
        field: value
        for field, value in spec.items()
        if field not in _REVISION_ONLY and field not in ("containers", "initContainers")
    }
    if spec.get("initContainers"):
        init_digests = _digests(revision, "initContainerStatuses")
        pod["initContainers"] = [
            _with_digest(container, init_digests) for container in spec["initContainers"]
        ]
    pod["containers"] = [*containers, queue_proxy_container(revision, serving, port, config)]
    pod["terminationGracePeriodSeconds"] = int(spec.get("timeoutSeconds") or 0)
    return pod


_REVISION_ONLY = {
    "containerConcurrency",
    "timeoutSeconds",
    "responseStartTimeoutSeconds",
    "idleTimeoutSeconds",
}


def _container(
    revision: Obj, container: Obj, port: int, digests: Mapping[str, str], *, serving: bool
) -> Obj:
    container = _with_digest(container, digests)
    env = list(container.get("env") or ())
    if serving:
        container["ports"] = [{"name": "user-port", "containerPort": port}]
        env.append({"name": "PORT", "value": str(port)})
    labels = labels_of(revision)
    env += [
        {"name": "K_REVISION", "value": revision["metadata"]["name"]},
        {"name": "K_CONFIGURATION", "value": labels.get(CONFIGURATION_LABEL, "")},
        {"name": "K_SERVICE", "value": labels.get(SERVICE_LABEL, "")},
    ]
    container["env"] = env
    container.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        if probe in container:
            fill_in_port(container[probe], port)
    return container


def fill_in_port(probe: Obj, port: int) -> None:
    """A probe that names no port means the user port."""
    for handler in ("httpGet", "tcpSocket", "grpc"):
        if probe.get(handler) is not None and not probe[handler].get("port"):
            probe[handler]["port"] = port


def _with_digest(container: Obj, digests: Mapping[str, str]) -> Obj:
    digest = digests.get(container["name"])
    return {**container, "image": digest} if digest else dict(container)


def _digests(revision: Obj, field: str) -> dict[str, str]:
    statuses = (revision.get("status") or {}).get(field) or []
    return {s["name"]: s.get("imageDigest") or "" for s in statuses}
