"""What a Revision and its PodAutoscaler tell each other.

Mirrors knative.dev/serving/pkg/reconciler/revision/resources/pa.go and PropagateAutoscalerStatus in
pkg/apis/serving/v1/revision_lifecycle.go.
"""

from __future__ import annotations

from knlocal.control.conditions import Conditions, find_condition
from knlocal.resources.base import Obj, annotations_of, labels_of, spec_of, status_of
from knlocal.resources.serving import keys
from knlocal.resources.settings import HPA
from knlocal.serving.kinds import ROUTING_STATE_LABEL
from knlocal.serving.template import (
    child_annotations,
    child_labels,
    deployment_name,
    serving_container,
    user_protocol,
)

#: What must be healthy about a revision.
CONDITIONS = ("ResourcesAvailable", "ContainerHealthy")


def make_pod_autoscaler(
    revision: Obj, conditions: Conditions, existing: Obj | None, class_: str
) -> Obj:
    """The PodAutoscaler of a revision; its annotations are the revision's own (D2), and who scales
    and by what is written out: `class_`, unless another was chosen before."""
    metadata, spec = revision["metadata"], spec_of(revision)
    return {
        "apiVersion": "autoscaling.internal.knative.dev/v1alpha1",
        "kind": "PodAutoscaler",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": child_labels(revision),
            "annotations": _with_class(child_annotations(revision), existing, class_),
        },
        "spec": {
            "containerConcurrency": int(spec.get("containerConcurrency") or 0),
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": deployment_name(revision),
            },
            "protocolType": user_protocol(serving_container(spec)),
            "reachability": _reachability(revision, conditions),
        },
    }


def _with_class(annotations: dict[str, str], existing: Obj | None, class_: str) -> dict[str, str]:
    """Mirrors pkg/apis/autoscaling/v1alpha1/podautoscaler_defaults.go."""
    chosen = keys.CLASS.value(annotations)
    if chosen is None:
        chosen = keys.CLASS.value(annotations_of(existing or {})) or class_
        annotations[keys.CLASS.key] = chosen
    if keys.METRIC.value(annotations) is None:
        annotations[keys.METRIC.key] = "cpu" if chosen == HPA else "concurrency"
    return annotations


def take_autoscaler_status(autoscaler: Obj, status: Obj, conditions: Conditions) -> None:
    """What the PodAutoscaler knows about the revision (PropagateAutoscalerStatus)."""
    about = status_of(autoscaler)
    for shown, field in (("actualReplicas", "actualScale"), ("desiredReplicas", "desiredScale")):
        scale = about.get(field)
        if scale is not None and scale >= 0:
            status[shown] = scale
        else:
            status.pop(shown, None)
    ready = find_condition(autoscaler)
    if ready is None:
        conditions.unknown("Active", "Deploying")
        return
    initialized = (find_condition(autoscaler, "ScaleTargetInitialized") or {}).get("status")
    unavailable = (conditions.get("ResourcesAvailable") or {}).get("status") == "False"
    if ready["status"] == "True" or (initialized == "True" and not unavailable):
        # Once initialized, a crash at a later start is no reason to call the revision broken.
        conditions.true("ResourcesAvailable")
        conditions.true("ContainerHealthy")
    elif (
        ready["status"] == "False"
        and ready.get("reason") == "TimedOut"  # NoTraffic is just idle (initial scale 0)
        and initialized != "True"
        and not unavailable
        and about.get("serviceName")
    ):
        conditions.false(
            "ResourcesAvailable", "ProgressDeadlineExceeded", "Initial scale was never achieved"
        )
    conditions.follow("Active", ready)


def _reachability(revision: Obj, conditions: Conditions) -> str:
    """Whether requests may come; a broken revision counts as unreachable so that it lets its pods
    go (resources/pa.go)."""
    for condition in CONDITIONS:
        if (conditions.get(condition) or {}).get("status") == "False":
            return "Unreachable"
    match labels_of(revision).get(ROUTING_STATE_LABEL):
        case "active":
            return "Reachable"
        case "reserve":
            return "Unreachable"
    return "Unknown"
