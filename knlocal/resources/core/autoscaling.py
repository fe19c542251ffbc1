"""HorizontalPodAutoscaler: stored as autoscaling/v2, also spoken as v1."""

from __future__ import annotations

from typing import Any

from knlocal.resources.base import Obj
from knlocal.resources.core import defaults, scaling_validation
from knlocal.resources.core.table import definition
from knlocal.resources.kinds import Kind

_NAME, _PLURAL = "HorizontalPodAutoscaler", "horizontalpodautoscalers"


def _from_v1(obj: Obj) -> Obj:
    obj["apiVersion"] = "autoscaling/v2"
    spec = obj.get("spec") or {}
    target = spec.pop("targetCPUUtilizationPercentage", None)
    if target is not None:
        spec["metrics"] = [_cpu({"target": {"type": "Utilization", "averageUtilization": target}})]
    status = obj.get("status") or {}
    current = status.pop("currentCPUUtilizationPercentage", None)
    if current is not None:
        status["currentMetrics"] = [_cpu({"current": {"averageUtilization": current}})]
    return obj


def _to_v1(obj: Obj) -> Obj:
    obj["apiVersion"] = "autoscaling/v1"
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    target = _utilisation(spec.pop("metrics", None), "target")
    if target is not None:
        spec["targetCPUUtilizationPercentage"] = target
    current = _utilisation(status.pop("currentMetrics", None), "current")
    if current is not None:
        status["currentCPUUtilizationPercentage"] = current
    for name in ("behavior",):
        spec.pop(name, None)
    status.pop("conditions", None)
    return obj


def _cpu(values: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Resource", "resource": {"name": "cpu", **values}}


def _utilisation(metrics: Any, which: str) -> Any:
    for metric in metrics or ():
        resource = metric.get("resource") or {}
        if metric.get("type") == "Resource" and resource.get("name") == "cpu":
            return (resource.get(which) or {}).get("averageUtilization")
    return None


KINDS = (
    Kind(
        "autoscaling", "v2", _NAME, _PLURAL,
        definition(f"io.k8s.api.autoscaling.v2.{_NAME}"),
        short_names=("hpa",), categories=("all",), is_custom=False,
        default=defaults.horizontal_pod_autoscaler,
        validate=scaling_validation.horizontal_pod_autoscaler,
    ),
    Kind(
        "autoscaling", "v1", _NAME, _PLURAL,
        definition(f"io.k8s.api.autoscaling.v1.{_NAME}"),
        short_names=("hpa",), categories=("all",), is_custom=False, storage=False,
        to_storage=_from_v1, from_storage=_to_v1,
    ),
)  # fmt: skip
