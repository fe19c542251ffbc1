"""The HorizontalPodAutoscaler of a PodAutoscaler of class hpa.

Mirrors knative.dev/serving/pkg/reconciler/autoscaling/hpa/resources/hpa.go.
"""

from __future__ import annotations

import math

from knlocal.control.events import EventRecorder
from knlocal.resources import duration
from knlocal.resources.base import Obj, annotations_of, is_controlled_by, key_of, spec_of
from knlocal.resources.serving import keys
from knlocal.resources.settings import Autoscaler
from knlocal.serving.autoscaling.scale_bounds import scale_bounds
from knlocal.serving.children import child_metadata, ensure
from knlocal.serving.kinds import HORIZONTAL_POD_AUTOSCALER
from knlocal.store.store import Store

_ANY_NUMBER = 2**31 - 1


def ensure_autoscaler(
    store: Store, recorder: EventRecorder, autoscaler: Obj, defaults: Autoscaler
) -> Obj:
    """Create or correct it, and return it as stored. Raises NotOwned."""
    wanted = make_autoscaler(autoscaler, defaults)
    return ensure(store, recorder, autoscaler, wanted, merge=True)


def remove_autoscaler(store: Store, autoscaler: Obj) -> None:
    """A PodAutoscaler that was of class hpa before is not scaled by two."""
    key = key_of(autoscaler)
    found = store.find(HORIZONTAL_POD_AUTOSCALER, key.namespace, key.name)
    if found is not None and is_controlled_by(found, autoscaler):
        store.delete(HORIZONTAL_POD_AUTOSCALER, key.namespace, key.name)


def make_autoscaler(autoscaler: Obj, defaults: Autoscaler) -> Obj:
    """What Kubernetes is to scale a revision by."""
    least, most = scale_bounds(autoscaler, defaults)
    target = spec_of(autoscaler)["scaleTargetRef"]
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": child_metadata(autoscaler),
        "spec": {
            "scaleTargetRef": {field: target[field] for field in ("apiVersion", "kind", "name")},
            "minReplicas": least or 1,
            "maxReplicas": most or _ANY_NUMBER,
            **_metrics(autoscaler),
            **_behavior(autoscaler),
        },
    }


def _metrics(autoscaler: Obj) -> Obj:
    """Empty without a target: Kubernetes' default then holds."""
    annotations = annotations_of(autoscaler)
    try:
        target = float(keys.TARGET.value(annotations) or "")
    except ValueError:
        return {}
    name = keys.METRIC.value(annotations) or "cpu"
    if name == "cpu":
        wanted = {"type": "Utilization", "averageUtilization": math.ceil(target)}
        return {"metrics": [_resource(name, wanted)]}
    if name == "memory":
        wanted = {"type": "AverageValue", "averageValue": f"{int(target)}Mi"}
        return {"metrics": [_resource(name, wanted)]}
    wanted = {"type": "AverageValue", "averageValue": str(int(target))}
    return {"metrics": [{"type": "Pods", "pods": {"metric": {"name": name}, "target": wanted}}]}


def _resource(name: str, target: Obj) -> Obj:
    return {"type": "Resource", "resource": {"name": name, "target": target}}


def _behavior(autoscaler: Obj) -> Obj:
    try:
        window = int(duration.parse(keys.WINDOW.value(annotations_of(autoscaler)) or ""))
    except ValueError:
        return {}
    rules = {"stabilizationWindowSeconds": window}
    return {"behavior": {"scaleUp": rules, "scaleDown": dict(rules)}}
