"""The dry run of a template as a real pod (knative.dev/serving/pkg/webhook/podspec_dryrun.go)."""

from __future__ import annotations

import copy
from typing import Any

from knlocal.resources import field_errors as errors
from knlocal.resources.base import Obj, annotations_of, meta
from knlocal.resources.core import pod_validation
from knlocal.resources.core.pod_defaults import default_pod_spec
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.kinds import AdmissionContext
from knlocal.resources.serving import keys, masks

_DEFAULT_PORT = 8080


def validate_template(obj: Obj, template: dict[str, Any], ctx: AdmissionContext) -> FieldErrors:
    """What Kubernetes would refuse in the pod of this template; only looked at in a dry run, or
    when the annotation features.knative.dev/podspec-dryrun asks for it. Paths are those of
    `template`'s holder."""
    asked = annotations_of(obj).get(keys.DRY_RUN_ANNOTATION, "").lower() in ("enabled", "strict")
    if not (ctx.dry_run or asked):
        return FieldErrors()
    found = FieldErrors(list(pod_validation.pod_spec(_pod_spec(template), "spec")))
    if not found:
        return found
    name = meta(obj).get("name") or meta(obj).get("generateName") or ""
    causes = [str(item) for item in found]
    # Kubernetes puts the path first.
    reasons = [f"{item.paths[0]}: {item.message}" for item in found if item.paths] or causes
    reason = reasons[0] if len(reasons) == 1 else f"[{', '.join(reasons)}]"
    message = f'dry run failed with Pod "{name}" is invalid: {reason}'
    return errors.generic(f"validation callback failed: {message}", "template")


def _pod_spec(template: dict[str, Any]) -> dict[str, Any]:
    """The pod as it would run: without Knative's own fields, with the serving port filled in.
    Readiness is asked by queue-proxy, and so is no probe of the pod."""
    spec = {
        name: value
        for name, value in copy.deepcopy(template.get("spec") or {}).items()
        if name not in masks.REVISION_FIELDS
    }
    for container in spec.get("containers") or ():
        serving = _DEFAULT_PORT
        for port in container.get("ports") or ():
            serving = port["containerPort"] = port.get("containerPort") or _DEFAULT_PORT
        container.pop("readinessProbe", None)
        for name in ("livenessProbe", "startupProbe"):
            for handler in ("httpGet", "tcpSocket", "grpc"):
                if (action := (container.get(name) or {}).get(handler)) is not None:
                    action["port"] = serving if _is_unset(action.get("port")) else action["port"]
    default_pod_spec(spec)
    return spec


def _is_unset(port: Any) -> bool:
    """Named ports are the serving port's, whose name is another in the pod."""
    return not port or isinstance(port, str)
