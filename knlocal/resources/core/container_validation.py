"""What Kubernetes refuses in containers (pkg/apis/core/validation), as far as clients notice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from knlocal.resources import names, quantity
from knlocal.resources.core.words import (
    Errors,
    duplicate,
    forbidden,
    invalid,
    negative,
    not_found,
    not_supported,
    required,
)
from knlocal.resources.field_errors import FieldError

Spec = dict[str, Any]
Found = Iterator[FieldError]

_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_STANDARD_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_ENV_FIELDS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName",
    "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
#: Fields that files may show, and variables may not.
_FILE_FIELDS = ("metadata.annotations", "metadata.labels")
_SUBSCRIPTED = re.compile(r"metadata\.(labels|annotations)\['[^']*'\]")
_RESOURCE_FIELDS = tuple(
    f"{kind}.{name}" for kind in ("limits", "requests") for name in sorted(_STANDARD_RESOURCES)
)
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_MAX_INT32 = (1 << 31) - 1


def container(spec: Spec, path: str, volumes: set[str], *, init: bool = False) -> Errors:
    """`path` is the container's place, `volumes` the names of those its pod has."""
    return [
        *_name_and_image(spec, path),
        *(_init(spec, path) if init else _main(spec, path)),
        *_probes(spec, path),
        *_ports(spec, f"{path}.ports"),
        *_env(spec, f"{path}.env"),
        *_env_from(spec, f"{path}.envFrom"),
        *_mounts(spec, f"{path}.volumeMounts", volumes),
        *_resources(spec.get("resources") or {}, f"{path}.resources"),
        *security(spec.get("securityContext") or {}, f"{path}.securityContext"),
    ]


def _name_and_image(spec: Spec, path: str) -> Found:
    name = spec.get("name") or ""
    if not name:
        yield required(f"{path}.name")
    for what in names.dns1123_label(name) if name else ():
        yield invalid(f"{path}.name", name, what)
    if not spec.get("image"):
        yield required(f"{path}.image")
    policy = spec.get("imagePullPolicy")
    if policy not in (None, *_PULL_POLICIES):
        yield not_supported(f"{path}.imagePullPolicy", policy, _PULL_POLICIES)
    policy = spec.get("terminationMessagePolicy")
    if policy not in (None, "File", "FallbackToLogsOnError"):
        what = "must be 'File' or 'FallbackToLogsOnError'"
        yield invalid(f"{path}.terminationMessagePolicy", policy, what)


def _main(spec: Spec, path: str) -> Found:
    if spec.get("restartPolicy"):
        yield forbidden(f"{path}.restartPolicy", "may not be set for non-init containers")
    for name, handler in (spec.get("lifecycle") or {}).items():
        if name in ("postStart", "preStop") and handler is not None:
            yield from _handler(handler, f"{path}.lifecycle.{name}")


def _init(spec: Spec, path: str) -> Found:
    policy = spec.get("restartPolicy")
    if policy == "Always":
        yield from _main({**spec, "restartPolicy": None}, path)
        return
    if policy:
        yield not_supported(f"{path}.restartPolicy", policy, ("Always",))
    for field in ("lifecycle", *_PROBES):
        if spec.get(field) is not None:
            why = "may not be set for init containers without restartPolicy=Always"
            yield forbidden(f"{path}.{field}", why)


# --- probes --------------------------------------------------------------------------------------


def _probes(spec: Spec, path: str) -> Found:
    for field in _PROBES:
        probe = spec.get(field)
        if probe is None:
            continue
        place = f"{path}.{field}"
        yield from _handler(probe, place)
        for name in (
            "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold",
            "failureThreshold",
        ):  # fmt: skip
            yield from negative(probe.get(name), f"{place}.{name}")
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is not None and field == "readinessProbe":
            what = "must not be set for readinessProbes"
            yield invalid(f"{place}.terminationGracePeriodSeconds", grace, what)
        elif grace is not None and grace <= 0:
            what = "must be greater than 0"
            yield invalid(f"{place}.terminationGracePeriodSeconds", grace, what)
        successes = probe.get("successThreshold", 1)
        if field != "readinessProbe" and successes != 1:
            yield invalid(f"{place}.successThreshold", successes, "must be 1")


def _handler(handler: Spec, path: str) -> Found:
    given = [name for name in _HANDLERS if handler.get(name) is not None]
    if not given:
        yield required(path, "must specify a handler type")
        return
    for name in given[1:]:
        yield forbidden(f"{path}.{name}", "may not specify more than 1 handler type")
    name = given[0]
    action, place = handler[name], f"{path}.{name}"
    if name == "exec" and not action.get("command"):
        yield required(f"{place}.command")
    if name == "httpGet":
        if not action.get("path"):
            yield required(f"{place}.path")
        if action.get("scheme") not in ("HTTP", "HTTPS"):
            yield not_supported(f"{place}.scheme", action.get("scheme"), ("HTTP", "HTTPS"))
    if name in ("httpGet", "tcpSocket", "grpc"):
        yield from _port(action.get("port"), f"{place}.port")


def _port(port: Any, path: str) -> Found:
    if isinstance(port, str):
        for what in names.port_name(port):
            yield invalid(path, port, what)
        return
    for what in names.port_number(port or 0):
        yield invalid(path, port or 0, what)


# --- ports and environment -----------------------------------------------------------------------


def _ports(spec: Spec, path: str) -> Found:
    seen: set[str] = set()
    for index, port in enumerate(spec.get("ports") or ()):
        place, name = f"{path}[{index}]", port.get("name") or ""
        for what in names.port_name(name) if name else ():
            yield invalid(f"{place}.name", name, what)
        if name and name in seen:
            yield duplicate(f"{place}.name", name)
        seen.add(name)
        if not port.get("containerPort"):
            yield required(f"{place}.containerPort")
        else:
            yield from _port(port["containerPort"], f"{place}.containerPort")
        if port.get("hostPort"):
            yield from _port(port["hostPort"], f"{place}.hostPort")
        if port.get("protocol", "TCP") not in _PROTOCOLS:
            yield not_supported(f"{place}.protocol", port.get("protocol"), _PROTOCOLS)


def _env(spec: Spec, path: str) -> Found:
    for index, variable in enumerate(spec.get("env") or ()):
        place = f"{path}[{index}]"
        if not variable.get("name"):
            yield required(f"{place}.name")
        for what in names.env_var_name(variable["name"]) if variable.get("name") else ():
            yield invalid(f"{place}.name", variable["name"], what)
        if (source := variable.get("valueFrom")) is not None:
            yield from _value_from(source, variable.get("value"), f"{place}.valueFrom")


def _value_from(source: Spec, value: Any, path: str) -> Found:
    given = [name for name in _ENV_SOURCES if source.get(name) is not None]
    for name in given:
        reference, place = source[name], f"{path}.{name}"
        if name == "fieldRef":
            yield from field_reference(reference, place, _ENV_FIELDS)
        elif name == "resourceFieldRef":
            yield from resource_reference(reference, place)
        elif name in ("configMapKeyRef", "secretKeyRef"):
            yield from _key_reference(reference, place)
    if not given:
        what = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or "
        yield invalid(path, "", what + "`secretKeyRef`")
    elif value:
        yield invalid(path, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        yield invalid(path, "", "may not have more than one field specified at a time")


def field_reference(reference: Spec, path: str, known: tuple[str, ...]) -> Found:
    """A field of the pod, for a variable or (with `known` larger) for a file."""
    field = reference.get("fieldPath") or ""
    if not field:
        yield required(f"{path}.fieldPath")
    elif field in known or _SUBSCRIPTED.fullmatch(field):
        return
    elif field in _FILE_FIELDS or field in _ENV_FIELDS:
        yield not_supported(f"{path}.fieldPath", field, sorted(known))
    else:
        what = f"error converting fieldPath: field label not supported: {field}"
        yield invalid(f"{path}.fieldPath", field, what)


#: What files of the downward API may show of their pod.
FILE_FIELDS = ("metadata.name", "metadata.namespace", "metadata.uid", *_FILE_FIELDS)


def resource_reference(reference: Spec, path: str) -> Found:
    resource = str(reference.get("resource") or "")
    if not resource:
        yield required(f"{path}.resource")
    elif resource not in _RESOURCE_FIELDS and ".hugepages-" not in resource:
        yield not_supported(f"{path}.resource", resource, _RESOURCE_FIELDS)


def _key_reference(reference: Spec, path: str) -> Found:
    name, key = reference.get("name") or "", reference.get("key") or ""
    for what in names.dns1123_subdomain(name) if name else ():
        yield invalid(f"{path}.name", name, what)
    if not key:
        yield required(f"{path}.key")
    for what in names.config_map_key(key) if key else ():
        yield invalid(f"{path}.key", key, what)


def _env_from(spec: Spec, path: str) -> Found:
    for index, source in enumerate(spec.get("envFrom") or ()):
        place = f"{path}[{index}]"
        if source.get("prefix"):
            for what in names.env_var_name(source["prefix"]):
                yield invalid(f"{place}.prefix", source["prefix"], what)
        given = [name for name in ("configMapRef", "secretRef") if source.get(name) is not None]
        for name in given:
            if not source[name].get("name"):
                yield required(f"{place}.{name}.name")
        if not given:
            yield invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(given) > 1:
            yield invalid(path, "", "may not have more than one field specified at a time")


# --- volumes, resources, rights ------------------------------------------------------------------


def _mounts(spec: Spec, path: str, volumes: set[str]) -> Found:
    targets: set[str] = set()
    for index, mount in enumerate(spec.get("volumeMounts") or ()):
        place, name = f"{path}[{index}]", mount.get("name") or ""
        if not name:
            yield required(f"{place}.name")
        if name not in volumes:
            yield not_found(f"{place}.name", name)
        target = mount.get("mountPath") or ""
        if not target:
            yield required(f"{place}.mountPath")
        elif target in targets:
            yield invalid(f"{place}.mountPath", target, "must be unique")
        targets.add(target)
        for field in ("subPath", "subPathExpr"):
            if mount.get(field):
                yield from below(mount[field], f"{path}.{field}")
        if mount.get("subPath") and mount.get("subPathExpr"):
            yield invalid(f"{path}.subPathExpr", mount["subPathExpr"],
                          "subPathExpr and subPath are mutually exclusive")  # fmt: skip


def below(value: str, path: str) -> Found:
    """A path that has to stay below where it starts."""
    if value.startswith("/"):
        yield invalid(path, value, "must be a relative path")
    if ".." in value.split("/"):
        yield invalid(path, value, "must not contain '..'")


def _resources(resources: Spec, path: str) -> Found:
    limits = resources.get("limits") or {}
    for field in ("limits", "requests"):
        for name, amount in (resources.get(field) or {}).items():
            place = f"{path}.{field}[{name}]"
            yield from _resource_name(name, place)
            try:
                if quantity.parse(amount) < 0:
                    yield invalid(place, str(amount), "must be greater than or equal to 0")
            except ValueError as error:
                yield invalid(place, str(amount), str(error))
                return
    for name, amount in (resources.get("requests") or {}).items():
        limit = limits.get(name)
        if limit is None:
            continue
        if name not in _STANDARD_RESOURCES and quantity.parse(amount) != quantity.parse(limit):
            what = f"must be equal to {name} limit of {quantity.canonical(limit)}"
            yield invalid(f"{path}.requests", quantity.canonical(amount), what)
        elif quantity.parse(amount) > quantity.parse(limit):
            what = f"must be less than or equal to {name} limit of {quantity.canonical(limit)}"
            yield invalid(f"{path}.requests", quantity.canonical(amount), what)


def _resource_name(name: str, path: str) -> Found:
    found = names.qualified_name(name)
    yield from (invalid(path, name, what) for what in found)
    is_standard = name in _STANDARD_RESOURCES or name.startswith("hugepages-")
    if not found and "/" not in name and not is_standard:
        yield invalid(path, name, "must be a standard resource for containers")


def security(context: Spec, path: str) -> Found:
    """The rights of a container or of a whole pod."""
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        number = context.get(field)
        if number is not None and not 0 <= number <= _MAX_INT32:
            what = f"must be between 0 and {_MAX_INT32}, inclusive"
            yield invalid(f"{path}.{field}", number, what)
    if context.get("allowPrivilegeEscalation") is False:
        begin = "cannot set `allowPrivilegeEscalation` to false and"
        if context.get("privileged"):
            yield invalid(path, context, f"{begin} `privileged` to true")
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            yield invalid(path, context, f"{begin} `capabilities.Add` CAP_SYS_ADMIN")
    for field in ("seccompProfile", "appArmorProfile"):
        if (profile := context.get(field)) is not None:
            yield from _profile(profile, f"{path}.{field}")


def _profile(profile: Spec, path: str) -> Found:
    kind, local = profile.get("type") or "", profile.get("localhostProfile")
    known = ("Localhost", "RuntimeDefault", "Unconfined")
    if not kind:
        yield required(f"{path}.type", "type is required when profile is set")
    elif kind not in known:
        yield not_supported(f"{path}.type", kind, known)
    if kind == "Localhost" and not local:
        yield required(f"{path}.localhostProfile", "must be set when type is Localhost")
    elif kind != "Localhost" and local is not None:
        why = "can only be set when profile type is Localhost"
        yield invalid(f"{path}.localhostProfile", local, why)
