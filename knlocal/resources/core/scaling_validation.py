"""What Kubernetes refuses about numbers of pods: how Deployments roll, Jobs count, and
HorizontalPodAutoscalers scale (pkg/apis/apps, batch and autoscaling, each `validation`)."""

from __future__ import annotations

import re
from typing import Any

from knlocal.resources.base import Obj, spec_of
from knlocal.resources.core.words import (
    Errors,
    forbidden,
    invalid,
    negative,
    not_supported,
    required,
)
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.kinds import AdmissionContext

_PERCENT = re.compile(r"[0-9]+%")
_PERCENT_RULE = (
    "a valid percent string must be a numeric string followed by an ending '%' "
    "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
)
_JOB_NUMBERS = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit",
    "ttlSecondsAfterFinished",
)  # fmt: skip


def rollout(spec: dict[str, Any]) -> Errors:
    """How a Deployment replaces its pods, with the defaults filled in."""
    errors: Errors = []
    for field in ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        errors += negative(spec.get(field), f"spec.{field}")
    deadline, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds") or 0
    if deadline is not None and deadline <= ready:
        what = "must be greater than minReadySeconds"
        errors.append(invalid("spec.progressDeadlineSeconds", deadline, what))
    strategy = spec.get("strategy") or {}
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    path = "spec.strategy.rollingUpdate"
    if kind not in (None, "Recreate", "RollingUpdate"):
        errors.append(not_supported("spec.strategy.type", kind, ("Recreate", "RollingUpdate")))
    elif kind == "Recreate" and rolling is not None:
        why = "may not be specified when strategy `type` is 'Recreate'"
        errors.append(forbidden(path, why))
    elif rolling:
        for field in ("maxUnavailable", "maxSurge"):
            errors += _number_or_share(rolling.get(field), f"{path}.{field}")
        if not errors and _is_none(rolling.get("maxSurge")):
            least = rolling.get("maxUnavailable")
            if _is_none(least):
                what = "may not be 0 when `maxSurge` is 0"
                errors.append(invalid(f"{path}.maxUnavailable", least, what))
    return errors


def _number_or_share(value: Any, path: str) -> Errors:
    if isinstance(value, str):
        if not _PERCENT.fullmatch(value):
            return [invalid(path, value, _PERCENT_RULE)]
        if path.endswith("maxUnavailable") and int(value[:-1]) > 100:
            return [invalid(path, value, "must not be greater than 100%")]
    return negative(value, path)


def _is_none(value: Any) -> bool:
    return value is not None and int(str(value).removesuffix("%")) == 0


def job_numbers(spec: dict[str, Any], path: str) -> Errors:
    return [error for name in _JOB_NUMBERS for error in negative(spec.get(name), f"{path}.{name}")]


def horizontal_pod_autoscaler(obj: Obj, context: AdmissionContext) -> FieldErrors:
    errors: Errors = []
    spec = spec_of(obj)
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if least is not None and least < 1:
        what = "must be greater than or equal to 1"
        errors.append(invalid("spec.minReplicas", least, what))
    if most < 1:
        errors.append(invalid("spec.maxReplicas", most, "must be greater than 0"))
    if least is not None and most < least:
        what = "must be greater than or equal to `minReplicas`"
        errors.append(invalid("spec.maxReplicas", most, what))
    target = spec.get("scaleTargetRef") or {}
    errors += [
        required(f"spec.scaleTargetRef.{field}")
        for field in ("kind", "name")
        if not target.get(field)
    ]
    return FieldErrors(errors)


def lease(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = spec_of(obj)
    errors: Errors = []
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        errors.append(invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    errors += negative(spec.get("leaseTransitions"), "spec.leaseTransitions")
    return FieldErrors(errors)
