"""What Kubernetes refuses in its own kinds, as far as clients notice, in its own words.

A finding here is `FieldError(message, (path,))` with a message such as `Required value` or
`Invalid value: "x": must be …`; the store shows it as `<path>: <message>` in a 422 `Status`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from knlocal.resources.base import Obj
from knlocal.resources.core.pod_validation import new_pod, pod_spec, pod_update
from knlocal.resources.core.scaling_validation import job_numbers, rollout
from knlocal.resources.core.words import (
    Errors,
    duplicate,
    forbidden,
    invalid,
    negative,
    not_supported,
    required,
    too_long,
)
from knlocal.resources.cron import schedule_problem
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.kinds import AdmissionContext
from knlocal.resources.names import config_map_key, port_number

_MOST_DATA = 1024 * 1024


def config_map(obj: Obj, context: AdmissionContext) -> FieldErrors:
    errors: Errors = []
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    for field, values in (("data", data), ("binaryData", binary)):
        errors += _keys(values, field)
    errors += [invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
               for key in data if key in binary]  # fmt: skip
    errors += _base64(binary, "binaryData")
    size = sum(len(value.encode()) for value in data.values() if isinstance(value, str))
    size += sum(len(value) * 3 // 4 for value in binary.values() if isinstance(value, str))
    if size > _MOST_DATA:
        errors.append(too_long("", _MOST_DATA))
    errors += _immutable(obj, context.old, ("data", "binaryData"))
    return FieldErrors(errors)


def secret(obj: Obj, context: AdmissionContext) -> FieldErrors:
    errors: Errors = []
    data = obj.get("data") or {}
    errors += _keys(data, "data")
    errors += _base64(data, "data")
    if sum(len(v) * 3 // 4 for v in data.values() if isinstance(v, str)) > _MOST_DATA:
        errors.append(too_long("data", _MOST_DATA))
    for name in _SECRET_KEYS.get(obj.get("type") or "", ()):
        if name not in data:
            errors.append(required(f"data[{name}]"))
        elif name.startswith(".docker") and not _is_json(data[name]):
            what = "invalid character looking for beginning of value"
            errors.append(invalid(f"data[{name}]", "<secret contents redacted>", what))
    if context.old is not None and context.old.get("type") != obj.get("type"):
        errors.append(invalid("type", obj.get("type"), "field is immutable"))
    errors += _immutable(obj, context.old, ("data",))
    return FieldErrors(errors)


_SECRET_KEYS: dict[str, tuple[str, ...]] = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def _keys(values: Mapping[str, Any], field: str) -> Iterable[Any]:
    for key in values:
        for what in config_map_key(key):
            yield invalid(f"{field}[{key}]", key, what)


def _base64(values: Mapping[str, Any], field: str) -> Iterable[Any]:
    for key, value in values.items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError, TypeError):
            yield invalid(f"{field}[{key}]", value, "must be base64 encoded")


def _is_json(value: str) -> bool:
    try:
        orjson.loads(base64.b64decode(value))
    except (ValueError, TypeError):
        return False
    return True


def _immutable(obj: Obj, old: Obj | None, fields: tuple[str, ...]) -> Iterable[Any]:
    if old is None or not old.get("immutable"):
        return
    why = "field is immutable when `immutable` is set"
    if not obj.get("immutable"):
        yield forbidden("immutable", why)
    for field in fields:
        if (old.get(field) or {}) != (obj.get(field) or {}):
            yield forbidden(field, why)


def service(obj: Obj, context: AdmissionContext) -> FieldErrors:
    errors: Errors = []
    spec = obj.get("spec") or {}
    kinds = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec.get("type") not in kinds:
        errors.append(not_supported("spec.type", spec.get("type"), kinds))
    ports = spec.get("ports") or []
    if spec.get("type") == "ExternalName":
        if not spec.get("externalName"):
            errors.append(required("spec.externalName"))
    elif not ports and spec.get("clusterIP") != "None":
        errors.append(required("spec.ports"))
    errors += _ports(ports)
    return FieldErrors(errors)


def _ports(ports: list[Any]) -> Errors:
    errors: Errors = []
    names: set[str] = set()
    places: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        number, name = port.get("port") or 0, port.get("name") or ""
        errors += [invalid(f"{path}.port", number, what) for what in port_number(number)]
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            errors.append(
                not_supported(f"{path}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))
            )
        if len(ports) > 1 and not name:
            errors.append(required(f"{path}.name"))
        elif name in names:
            errors.append(duplicate(f"{path}.name", name))
        names.add(name)
        place = (number, port.get("protocol"))
        if place in places:
            value = {"port": number, "protocol": port.get("protocol")}
            errors.append(duplicate(path, orjson.dumps(value).decode()))
        places.add(place)
    return errors


def persistent_volume_claim(obj: Obj, context: AdmissionContext) -> FieldErrors:
    errors: Errors = []
    spec = obj.get("spec") or {}
    if not spec.get("accessModes"):
        errors.append(required("spec.accessModes", "at least 1 access mode is required"))
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        errors.append(required("spec.resources[storage]"))
    return FieldErrors(errors)


def pod(obj: Obj, context: AdmissionContext) -> FieldErrors:
    errors: Errors = []
    spec = obj.get("spec") or {}
    if context.old is None:
        errors += new_pod(spec, "spec")
    elif context.subresource != "status":
        errors += pod_update(spec, context.old.get("spec") or {})
    return FieldErrors(errors)


def deployment(obj: Obj, context: AdmissionContext) -> FieldErrors:
    return FieldErrors([*_selected_template(obj, context), *rollout(obj.get("spec") or {})])


def replica_set(obj: Obj, context: AdmissionContext) -> FieldErrors:
    replicas = (obj.get("spec") or {}).get("replicas")
    return FieldErrors([*_selected_template(obj, context), *negative(replicas, "spec.replicas")])


stateful_set = daemon_set = replica_set


def _selected_template(obj: Obj, context: AdmissionContext) -> Errors:
    errors: Errors = []
    spec = obj.get("spec") or {}
    selector = spec.get("selector")
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not selector:
        errors.append(required("spec.selector"))
        if selector == {}:
            errors.append(invalid("spec.selector", {}, "empty selector is invalid for deployment"))
    elif not _matches(selector, labels):
        errors.append(
            invalid(
                "spec.template.metadata.labels", labels,
                "`selector` does not match template `labels`",
            )
        )  # fmt: skip
    if context.old is not None and (context.old.get("spec") or {}).get("selector") != selector:
        errors.append(invalid("spec.selector", selector, "field is immutable"))
    pod_template = template.get("spec") or {}
    errors += pod_spec(pod_template, "spec.template.spec")
    policy = pod_template.get("restartPolicy")
    if policy != "Always":
        errors.append(not_supported("spec.template.spec.restartPolicy", policy, ("Always",)))
    return errors


def _matches(selector: dict[str, Any], labels: Mapping[str, str]) -> bool:
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    for rule in selector.get("matchExpressions") or ():
        key, values = rule.get("key"), rule.get("values") or ()
        holds = {
            "In": labels.get(key) in values and key in labels,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }.get(rule.get("operator"), False)
        if not holds:
            return False
    return True


def job(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    errors = [
        *_job_template(spec.get("template") or {}, "spec.template.spec"),
        *job_numbers(spec, "spec"),
    ]
    if context.old is not None:
        old, new = context.old.get("spec") or {}, obj.get("spec") or {}
        for name in ("selector", "completions", "template"):
            if name == "template" and old.get("suspend"):
                continue
            if old.get(name) != new.get(name):
                errors.append(invalid(f"spec.{name}", "<omitted>", "field is immutable"))
    return FieldErrors(errors)


def cron_job(obj: Obj, context: AdmissionContext) -> FieldErrors:
    errors: Errors = []
    spec = obj.get("spec") or {}
    schedule = str(spec.get("schedule") or "")
    if not schedule:
        errors.append(required("spec.schedule"))
    elif "TZ" in schedule:
        detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        errors.append(invalid("spec.schedule", schedule, detail))
    elif problem := schedule_problem(schedule, seconds=False):
        errors.append(invalid("spec.schedule", schedule, problem))
    template = ((spec.get("jobTemplate") or {}).get("spec") or {}).get("template") or {}
    errors += _job_template(template, "spec.jobTemplate.spec.template.spec")
    return FieldErrors(errors)


def _job_template(template: dict[str, Any], path: str) -> Errors:
    spec = template.get("spec") or {}
    policy = spec.get("restartPolicy")
    errors = list(pod_spec(spec, path))
    if not policy:
        errors.append(required(f"{path}.restartPolicy", 'valid values: "OnFailure", "Never"'))
    elif policy not in ("OnFailure", "Never"):
        errors.append(not_supported(f"{path}.restartPolicy", policy, ("OnFailure", "Never")))
    return errors


def role_binding(obj: Obj, context: AdmissionContext) -> FieldErrors:
    errors: Errors = []
    reference = obj.get("roleRef") or {}
    if not reference.get("name"):
        errors.append(required("roleRef.name"))
    kinds = ("ClusterRole",) if obj.get("kind") == "ClusterRoleBinding" else ("ClusterRole", "Role")
    if reference.get("kind") not in kinds:
        errors.append(not_supported("roleRef.kind", reference.get("kind"), kinds))
    if context.old is not None and context.old.get("roleRef") != reference:
        errors.append(invalid("roleRef", reference, "cannot change roleRef"))
    for index, subject in enumerate(obj.get("subjects") or ()):
        if subject.get("kind") not in ("ServiceAccount", "User", "Group"):
            errors.append(not_supported(
                f"subjects[{index}].kind", subject.get("kind"), ("Group", "ServiceAccount", "User")
            ))  # fmt: skip
    return FieldErrors(errors)


def custom_resource_definition(obj: Obj, context: AdmissionContext) -> FieldErrors:
    errors: Errors = []
    spec = obj.get("spec") or {}
    names = spec.get("names") or {}
    name = (obj.get("metadata") or {}).get("name") or ""
    wanted = f"{names.get('plural', '')}.{spec.get('group', '')}"
    if name != wanted:
        errors.append(invalid(
            "metadata.name", name, 'must be spec.names.plural+"."+spec.group'
        ))  # fmt: skip
    for field in ("plural", "kind"):
        if not names.get(field):
            errors.append(required(f"spec.names.{field}"))
    if not spec.get("group"):
        errors.append(required("spec.group"))
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        errors.append(not_supported("spec.scope", spec.get("scope"), ("Cluster", "Namespaced")))
    versions = spec.get("versions") or []
    stored = [version for version in versions if version.get("storage")]
    if len(stored) != 1:
        errors.append(invalid(
            "spec.versions", "<omitted>",
            "must have exactly one version marked as storage version",
        ))  # fmt: skip
    for index, version in enumerate(versions):
        if not version.get("name"):
            errors.append(required(f"spec.versions[{index}].name"))
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            errors.append(required(
                f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required"
            ))  # fmt: skip
    return FieldErrors(errors)
