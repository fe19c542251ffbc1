"""What Kubernetes refuses in pod specs (pkg/apis/core/validation), as far as clients notice."""

from __future__ import annotations

import ipaddress
from typing import Any

import orjson

from knlocal.resources import names
from knlocal.resources.core.container_validation import (
    FILE_FIELDS,
    below,
    container,
    field_reference,
    resource_reference,
    security,
)
from knlocal.resources.core.words import (
    Errors,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
)

_MAX_INT32 = (1 << 31) - 1
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_NAMES = {
    "hostname": names.dns1123_label,
    "subdomain": names.dns1123_label,
    "nodeName": names.dns1123_subdomain,
    "serviceAccountName": names.dns1123_subdomain,
    "priorityClassName": names.dns1123_subdomain,
    "runtimeClassName": names.dns1123_subdomain,
}
_RESTART_POLICIES = ("Always", "OnFailure", "Never")


def pod_spec(spec: dict[str, Any], path: str) -> Errors:
    errors: Errors = []
    volumes = _volumes(spec, path, errors)
    containers = spec.get("containers") or []
    if not containers:
        errors.append(required(f"{path}.containers"))
    taken: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, spec_of_one in enumerate(spec.get(field) or ()):
            place = f"{path}.{field}[{index}]"
            errors += container(spec_of_one, place, volumes, init=field == "initContainers")
            name = spec_of_one.get("name") or ""
            if name and name in taken:
                errors.append(duplicate(f"{place}.name", name))
            taken.add(name)
    policy = spec.get("restartPolicy")
    if policy is not None and policy not in _RESTART_POLICIES:
        errors.append(not_supported(f"{path}.restartPolicy", policy, _RESTART_POLICIES))
    errors += _of_the_pod(spec, path)
    return errors


def new_pod(spec: dict[str, Any], path: str) -> Errors:
    """What is refused in a pod itself, and not in the template of one."""
    errors = pod_spec(spec, path)
    for field in ("initContainers", "containers"):
        for index, one in enumerate(spec.get(field) or ()):
            image = one.get("image") or ""
            if image != image.strip():
                what = "must not have leading or trailing whitespace"
                errors.append(invalid(f"{path}.{field}[{index}].image", image, what))
    if spec.get("ephemeralContainers"):
        errors.append(forbidden(f"{path}.ephemeralContainers", "cannot be set on create"))
    return errors


def _of_the_pod(spec: dict[str, Any], path: str) -> Errors:
    errors: Errors = []
    policy = spec.get("dnsPolicy")
    if policy is not None and policy not in _DNS_POLICIES:
        errors.append(not_supported(f"{path}.dnsPolicy", policy, _DNS_POLICIES))
    if policy == "None" and not (spec.get("dnsConfig") or {}).get("nameservers"):
        why = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        errors.append(required(f"{path}.dnsConfig.nameservers", why))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _MAX_INT32:
        what = f"must be between 1 and {_MAX_INT32}, inclusive"
        errors.append(invalid(f"{path}.activeDeadlineSeconds", deadline, what))
    for field, check in _NAMES.items():
        if spec.get(field):
            errors += [invalid(f"{path}.{field}", spec[field], what) for what in check(spec[field])]
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        operator = toleration.get("operator") or "Equal"
        if operator not in ("Equal", "Exists"):
            place = f"{path}.tolerations[{index}].operator"
            errors.append(not_supported(place, operator, ("Equal", "Exists")))
    for alias in spec.get("hostAliases") or ():
        if not _is_address(alias.get("ip") or ""):
            what = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            errors.append(invalid(f"{path}.hostAliases.ip", alias.get("ip") or "", what))
    errors += security(spec.get("securityContext") or {}, f"{path}.securityContext")
    return errors


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _volumes(spec: dict[str, Any], path: str, errors: Errors) -> set[str]:
    found: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        place, name = f"{path}.volumes[{index}]", volume.get("name") or ""
        if not name:
            errors.append(required(f"{place}.name"))
        elif wrong := names.dns1123_label(name):
            errors += [invalid(f"{place}.name", name, what) for what in wrong]
        elif name in found:
            errors.append(duplicate(f"{place}.name", name))
        found.add(name)
        sources = sorted(
            key for key, value in volume.items() if key != "name" and value is not None
        )
        for extra in sources[1:]:
            errors.append(forbidden(f"{place}.{extra}", "may not specify more than 1 volume type"))
        if sources:
            errors += _source(sources[0], volume[sources[0]], f"{place}.{sources[0]}")
    return found


#: What the sources of volumes cannot do without.
_NEEDED = {
    "secret": "secretName",
    "configMap": "name",
    "persistentVolumeClaim": "claimName",
    "hostPath": "path",
}


def _source(kind: str, source: dict[str, Any], path: str) -> Errors:
    errors: Errors = []
    needed = _NEEDED.get(kind)
    if needed and not source.get(needed):
        errors.append(required(f"{path}.{needed}"))
    if kind == "projected":
        for index, projection in enumerate(source.get("sources") or ()):
            for name, content in projection.items():
                place = f"{path}.sources[{index}].{name}"
                errors += _items(name, content or {}, place)
                if name in ("secret", "configMap") and not (content or {}).get("name"):
                    errors.append(required(f"{place}.name"))
    else:
        errors += _items(kind, source, path)
    return errors


def _items(kind: str, source: dict[str, Any], path: str) -> Errors:
    errors: Errors = []
    if kind == "serviceAccountToken":
        if not source.get("path"):
            errors.append(required(f"{path}.path"))
        if source.get("expirationSeconds", 3600) < 600:
            what = "may not specify a duration less than 10 minutes"
            errors.append(invalid(f"{path}.expirationSeconds", source["expirationSeconds"], what))
    if kind not in ("secret", "configMap", "downwardAPI"):
        return errors
    for index, item in enumerate(source.get("items") or ()):
        place = f"{path}.items[{index}]" if kind != "downwardAPI" else path
        if kind != "downwardAPI" and not item.get("key"):
            errors.append(required(f"{place}.key"))
        if not item.get("path"):
            errors.append(required(f"{place}.path"))
        else:
            errors += below(item["path"], f"{place}.path")
        if item.get("fieldRef") is not None:
            errors += field_reference(item["fieldRef"], f"{place}.fieldRef", FILE_FIELDS)
        elif item.get("resourceFieldRef") is not None:
            errors += resource_reference(item["resourceFieldRef"], f"{place}.resourceFieldRef")
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
