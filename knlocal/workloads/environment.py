"""A container's environment: literals, ConfigMaps, Secrets, fields of the pod and its resources.

Mirrors `makeEnvironmentVariables` of k8s.io/kubernetes pkg/kubelet/kubelet_pods.go, messages
included: they end up in the container's waiting state (CreateContainerConfigError).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

import psutil

from knlocal.resources import names, quantity
from knlocal.resources.base import GroupKind, Obj, annotations_of, labels_of, spec_of
from knlocal.store.store import Store
from knlocal.workloads.expansion import expand
from knlocal.workloads.terms import CONFIG_MAP, NODE_NAME, SECRET


class ConfigError(Exception):
    """Something the pod refers to is missing or wrong; the pod waits until that changes.

    `container` is the one that cannot be made ("" when it concerns the whole pod, as a volume
    does); `reason` is what its waiting state says.
    """

    def __init__(
        self, message: str, *, container: str = "", reason: str = "CreateContainerConfigError"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.container = container
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the downward API can tell beside the object itself."""

    ip: str = ""
    host_ip: str = ""
    node_name: str = NODE_NAME


def container_environment(
    store: Store, pod: Obj, container: Obj, facts: PodFacts
) -> dict[str, str]:
    """All variables of a container, in order, values final. Raises ConfigError."""
    found: dict[str, str] = {}
    namespace = pod["metadata"].get("namespace") or ""
    for source in container.get("envFrom") or ():
        found |= _from_whole(store, namespace, source)
    for variable in container.get("env") or ():
        name = variable["name"]
        if variable.get("valueFrom"):
            value = _from_reference(store, pod, container, variable["valueFrom"], facts)
            if value is None:
                continue
        else:
            value = expand(str(variable.get("value") or ""), found)
        found[name] = value
    return found


def _from_whole(store: Store, namespace: str, source: Obj) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    if reference := source.get("configMapRef"):
        data = config_data(store, CONFIG_MAP, namespace, reference)
    elif reference := source.get("secretRef"):
        data = config_data(store, SECRET, namespace, reference)
    else:
        return {}
    return {
        prefix + key: value.decode(errors="replace")
        for key, value in (data or {}).items()
        if not names.env_var_name(prefix + key)
    }


def _from_reference(
    store: Store, pod: Obj, container: Obj, source: Obj, facts: PodFacts
) -> str | None:
    namespace = pod["metadata"].get("namespace") or ""
    for field, group_kind in (("configMapKeyRef", CONFIG_MAP), ("secretKeyRef", SECRET)):
        if reference := source.get(field):
            return _from_key(store, group_kind, namespace, reference)
    if reference := source.get("fieldRef"):
        return field_value(pod, str(reference.get("fieldPath") or ""), facts)
    if reference := source.get("resourceFieldRef"):
        return resource_value(pod, container, reference)
    return ""


def _from_key(store: Store, group_kind: GroupKind, namespace: str, reference: Obj) -> str | None:
    data = config_data(store, group_kind, namespace, reference)
    if data is None:
        return None
    key = str(reference.get("key") or "")
    if key in data:
        return data[key].decode(errors="replace")
    if reference.get("optional"):
        return None
    raise ConfigError(
        f"couldn't find key {key} in {group_kind.kind} {namespace}/{reference.get('name')}"
    )


def config_data(
    store: Store, group_kind: GroupKind, namespace: str, reference: Obj
) -> Mapping[str, bytes] | None:
    """The data of a ConfigMap or Secret, decoded; None when it is missing but optional."""
    name = str(reference.get("name") or reference.get("secretName") or "")
    obj = store.find(group_kind, namespace, name)
    if obj is None:
        if reference.get("optional"):
            return None
        raise ConfigError(f'{group_kind.kind.lower()} "{name}" not found')
    return object_data(obj)


def object_data(obj: Obj) -> dict[str, bytes]:
    """The data of a ConfigMap or Secret as bytes."""
    if obj.get("kind") == "Secret":
        return {key: _decoded(value) for key, value in (obj.get("data") or {}).items()}
    data = {key: str(value).encode() for key, value in (obj.get("data") or {}).items()}
    return data | {key: _decoded(value) for key, value in (obj.get("binaryData") or {}).items()}


def _decoded(value: str | None) -> bytes:
    try:
        return base64.b64decode(value or "")
    except (binascii.Error, ValueError):
        return b""


# -- the downward API ---------------------------------------------------------------------------

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")


def field_value(pod: Obj, path: str, facts: PodFacts) -> str:
    """The field at `path` as text (k8s.io/kubernetes pkg/fieldpath)."""
    metadata = pod["metadata"]
    if match := _SUBSCRIPT.fullmatch(path):
        holder = labels_of(pod) if match.group(1) == "labels" else annotations_of(pod)
        return str(holder.get(match.group(2), ""))
    values = {
        "metadata.name": metadata.get("name", ""),
        "metadata.namespace": metadata.get("namespace", ""),
        "metadata.uid": metadata.get("uid", ""),
        "metadata.labels": _formatted(labels_of(pod)),
        "metadata.annotations": _formatted(annotations_of(pod)),
        "spec.nodeName": facts.node_name,
        "spec.serviceAccountName": spec_of(pod).get("serviceAccountName") or "default",
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
        "status.podIP": facts.ip,
        "status.podIPs": facts.ip,
    }
    if path not in values:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(values[path])


def _formatted(pairs: Mapping[str, str]) -> str:
    quoted = (f'{key}="{_go_escaped(value)}"' for key, value in sorted(pairs.items()))
    return "\n".join(quoted)


def _go_escaped(value: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return "".join(escapes.get(char, char) for char in value)


def resource_value(pod: Obj, container: Obj, reference: Obj) -> str:
    """A limit or request divided by its divisor, rounded up; a missing limit is what the machine
    has, a missing request the limit or zero."""
    wanted = reference.get("containerName")
    if wanted and wanted != container.get("name"):
        spec = spec_of(pod)
        every = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        container = next((c for c in every if c.get("name") == wanted), {})
        if not container:
            raise ConfigError(f"container {wanted} not found")
    section, _, resource = str(reference.get("resource") or "").partition(".")
    resources = container.get("resources") or {}
    value = (resources.get(section) or {}).get(resource)
    if value is None and section == "requests":
        value = (resources.get("limits") or {}).get(resource, "0")
    amount = quantity.parse(value) if value is not None else machine_capacity(resource)
    divisor = quantity.parse(reference.get("divisor") or "1") or Decimal(1)
    return str(int((amount / divisor).to_integral_value(ROUND_CEILING)))


def machine_capacity(resource: str) -> Decimal:
    """How much of a resource this machine has (cores, bytes)."""
    if resource == "cpu":
        return Decimal(os.cpu_count() or 1)
    if resource == "memory":
        return Decimal(psutil.virtual_memory().total)
    if resource == "ephemeral-storage":
        return Decimal(psutil.disk_usage(os.curdir).total)
    if resource == "pods":
        return Decimal(1000)
    return Decimal(0)
