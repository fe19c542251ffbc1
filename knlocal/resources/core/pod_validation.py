"""What Kubernetes refuses in pod specs (pkg/apis/core/validation), as far as clients notice."""

from __future__ import annotations

import re
from typing import Any

import orjson

from knlocal.resources.core.words import (
    Errors,
    duplicate,
    forbidden,
    invalid,
    not_found,
    not_supported,
    required,
)

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_RESTART_POLICIES = ("Always", "OnFailure", "Never")


def pod_spec(spec: dict[str, Any], path: str) -> Errors:
    errors: Errors = []
    volumes = _volumes(spec, path, errors)
    containers = spec.get("containers") or []
    if not containers:
        errors.append(required(f"{path}.containers"))
    names: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            place = f"{path}.{field}[{index}]"
            errors += _container(container, place, volumes)
            name = container.get("name") or ""
            if name and name in names:
                errors.append(duplicate(f"{place}.name", name))
            names.add(name)
    policy = spec.get("restartPolicy")
    if policy is not None and policy not in _RESTART_POLICIES:
        errors.append(not_supported(f"{path}.restartPolicy", policy, _RESTART_POLICIES))
    return errors


def _volumes(spec: dict[str, Any], path: str, errors: Errors) -> set[str]:
    names: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        place, name = f"{path}.volumes[{index}]", volume.get("name") or ""
        if not name:
            errors.append(required(f"{place}.name"))
        elif not _DNS_LABEL.fullmatch(name) or len(name) > 63:
            errors.append(invalid(f"{place}.name", name, _LABEL_RULE))
        elif name in names:
            errors.append(duplicate(f"{place}.name", name))
        names.add(name)
        sources = sorted(
            key for key, value in volume.items() if key != "name" and value is not None
        )
        for extra in sources[1:]:
            errors.append(forbidden(f"{place}.{extra}", "may not specify more than 1 volume type"))
    return names


def _container(container: dict[str, Any], path: str, volumes: set[str]) -> Errors:
    errors: Errors = []
    name = container.get("name") or ""
    if not name:
        errors.append(required(f"{path}.name"))
    elif not _DNS_LABEL.fullmatch(name) or len(name) > 63:
        errors.append(invalid(f"{path}.name", name, _LABEL_RULE))
    if not container.get("image"):
        errors.append(required(f"{path}.image"))
    policy = container.get("imagePullPolicy")
    if policy not in (None, *_PULL_POLICIES):
        errors.append(not_supported(f"{path}.imagePullPolicy", policy, _PULL_POLICIES))
    for index, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            errors.append(required(f"{path}.env[{index}].name"))
        if variable.get("value") and variable.get("valueFrom"):
            why = "may not be specified when `value` is not empty"
            errors.append(invalid(f"{path}.env[{index}].valueFrom", "", why))
    errors += _ports(container, path)
    targets: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        place = f"{path}.volumeMounts[{index}]"
        if mount.get("name") not in volumes:
            errors.append(not_found(f"{place}.name", mount.get("name") or ""))
        target = mount.get("mountPath") or ""
        if not target:
            errors.append(required(f"{place}.mountPath"))
        elif target in targets:
            errors.append(invalid(f"{place}.mountPath", target, "must be unique"))
        targets.add(target)
    return errors


def _ports(container: dict[str, Any], path: str) -> Errors:
    errors: Errors = []
    names: set[str] = set()
    for index, port in enumerate(container.get("ports") or ()):
        place, number = f"{path}.ports[{index}]", port.get("containerPort")
        if number is None:
            errors.append(required(f"{place}.containerPort"))
        elif not 1 <= number <= 65535:
            what = "must be between 1 and 65535, inclusive"
            errors.append(invalid(f"{place}.containerPort", number, what))
        name = port.get("name")
        if name and name in names:
            errors.append(duplicate(f"{place}.name", name))
        names.add(name or "")
    return errors


_CHANGEABLE = ("image",)
_POD_CHANGEABLE = (
    "activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "nodeName",
    "schedulingGates", "ephemeralContainers",
)  # fmt: skip


def pod_update(new: dict[str, Any], old: dict[str, Any]) -> Errors:
    """Of a pod that exists, hardly anything but its images may change."""
    if _frozen(new) == _frozen(old):
        return []
    return [
        forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
            "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to "
            "be set to 1 if it was previously negative)",
        )
    ]


def _frozen(spec: dict[str, Any]) -> bytes:
    kept = {key: value for key, value in spec.items() if key not in _POD_CHANGEABLE}
    for field in ("containers", "initContainers"):
        if kept.get(field):
            kept[field] = [
                {key: value for key, value in container.items() if key not in _CHANGEABLE}
                for container in kept[field]
            ]
    return orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)
