"""Which fields of a pod spec Knative lets through (serving pkg/apis/serving/fieldmask.go).

A field counts as set as in Go: structs, lists, maps and pointers when they are there at all, plain
scalars when they are not zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from knlocal.resources import field_errors as errors
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.settings.features import DISABLED, ENABLED, Features

Spec = Mapping[str, Any]

#: Scalars that Go keeps behind a pointer: an explicit false or 0 is a value.
_POINTERS = frozenset(
    {
        *("activeDeadlineSeconds", "automountServiceAccountToken", "enableServiceLinks"),
        *("hostUsers", "preemptionPolicy", "priority", "runtimeClassName", "setHostnameAsFQDN"),
        *("shareProcessNamespace", "terminationGracePeriodSeconds", "restartPolicyRules"),
        *("allowPrivilegeEscalation", "privileged", "procMount", "readOnlyRootFilesystem"),
        *("runAsGroup", "runAsNonRoot", "runAsUser", "fsGroup", "fsGroupChangePolicy"),
        *("mountPropagation", "recursiveReadOnly", "supplementalGroupsPolicy"),
    }
)

#: Fields of RevisionSpec that are no part of the pod spec.
REVISION_FIELDS = frozenset(
    {
        *("containerConcurrency", "timeoutSeconds"),
        *("responseStartTimeoutSeconds", "idleTimeoutSeconds"),
    }
)

_POD = frozenset(
    {
        *("serviceAccountName", "containers", "volumes", "imagePullSecrets"),
        "enableServiceLinks",
    }
)
_POD_FLAGS = {
    "affinity": "pod_spec_affinity",
    "topologySpreadConstraints": "pod_spec_topology_spread_constraints",
    "hostAliases": "pod_spec_host_aliases",
    "nodeSelector": "pod_spec_node_selector",
    "runtimeClassName": "pod_spec_runtime_class_name",
    "tolerations": "pod_spec_tolerations",
    "securityContext": "pod_spec_security_context",
    "shareProcessNamespace": "pod_spec_share_process_namespace",
    "hostIPC": "pod_spec_host_ipc",
    "hostPID": "pod_spec_host_pid",
    "hostNetwork": "pod_spec_host_network",
    "priorityClassName": "pod_spec_priority_class_name",
    "schedulerName": "pod_spec_scheduler_name",
    "initContainers": "pod_spec_init_containers",
    "dnsPolicy": "pod_spec_dns_policy",
    "dnsConfig": "pod_spec_dns_config",
}
CONTAINER = frozenset(
    {
        *("name", "args", "command", "env", "envFrom", "workingDir", "image", "imagePullPolicy"),
        *("ports", "resources", "securityContext", "terminationMessagePath"),
        *("terminationMessagePolicy", "volumeMounts"),
        *("livenessProbe", "readinessProbe", "startupProbe"),
    }
)
PROBE = frozenset(
    {
        *("initialDelaySeconds", "timeoutSeconds", "periodSeconds"),
        *("successThreshold", "failureThreshold"),
        *("httpGet", "tcpSocket", "exec", "grpc"),
    }
)
HANDLERS = {
    "httpGet": frozenset({"host", "path", "scheme", "httpHeaders", "port"}),
    "tcpSocket": frozenset({"host", "port"}),
    "exec": frozenset({"command"}),
    "grpc": frozenset({"port", "service"}),
}
PORT = frozenset({"containerPort", "name", "protocol"})
RESOURCES = frozenset({"limits", "requests"})
ENV = frozenset({"name", "value", "valueFrom"})
ENV_FROM = frozenset({"prefix", "configMapRef", "secretRef"})
ENV_FROM_REF = frozenset({"name", "optional"})
PROJECTION = frozenset({"secret", "configMap", "serviceAccountToken", "downwardAPI"})
_SECURITY_CONTEXT = frozenset(
    {
        *("capabilities", "readOnlyRootFilesystem", "runAsUser", "runAsGroup", "runAsNonRoot"),
        *("allowPrivilegeEscalation", "seccompProfile"),
    }
)
_POD_SECURITY_CONTEXT = frozenset(
    {
        *("runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup", "fsGroupChangePolicy"),
        *("supplementalGroups", "seccompProfile"),
    }
)
_VOLUME_FLAGS = {
    "emptyDir": "pod_spec_volumes_empty_dir",
    "persistentVolumeClaim": "pod_spec_persistent_volume_claim",
    "hostPath": "pod_spec_volumes_host_path",
    "csi": "pod_spec_volumes_csi",
    "image": "pod_spec_volumes_image",
    "ephemeral": "pod_spec_volumes_ephemeral",
}
PLAIN_SOURCES = ("secret", "configMap", "projected")


def allows(features: Features, flag: str) -> bool:
    """Whether a feature is not disabled (Enabled or Allowed)."""
    return bool(getattr(features, flag) != DISABLED)


def is_set(name: str, value: Any) -> bool:
    if value is None:
        return False
    return isinstance(value, dict | list) or name in _POINTERS or bool(value)


def disallowed(holder: Spec, allowed: Iterable[str]) -> FieldErrors:
    """The fields that are set although they are not in `allowed`."""
    allowed = set(allowed)
    names = [name for name, value in holder.items() if name not in allowed and is_set(name, value)]
    return errors.disallowed(*sorted(names)) if names else FieldErrors()


def pod_spec(spec: Spec, features: Features) -> FieldErrors:
    allowed = {*_POD, *REVISION_FIELDS}
    allowed |= {field for field, flag in _POD_FLAGS.items() if allows(features, flag)}
    if spec.get("automountServiceAccountToken") is False:  # opting out of the token is fine
        allowed.add("automountServiceAccountToken")
    if features.secure_pod_defaults == ENABLED:
        allowed.add("securityContext")
    return disallowed(spec, allowed)


def pod_security_context(context: Spec, features: Features) -> FieldErrors:
    if allows(features, "pod_spec_security_context"):
        return disallowed(context, _POD_SECURITY_CONTEXT)
    allowed = set()
    if features.secure_pod_defaults == ENABLED:  # one may opt out of the stricter defaults
        if (context.get("seccompProfile") or {}).get("type") in ("RuntimeDefault", "Unconfined"):
            allowed.add("seccompProfile")
        if context.get("runAsNonRoot") is False:
            allowed.add("runAsNonRoot")
    return disallowed(context, allowed)


def security_context(context: Spec) -> FieldErrors:
    allowed = set(_SECURITY_CONTEXT)
    if context.get("privileged") is False:
        allowed.add("privileged")
    return disallowed(context, allowed)


def capabilities(value: Spec, features: Features) -> FieldErrors:
    allowed = {"drop"}
    binds_low_ports = value.get("add") == ["NET_BIND_SERVICE"]
    secure = features.secure_pod_defaults != DISABLED
    if allows(features, "container_spec_add_capabilities") or (secure and binds_low_ports):
        allowed.add("add")
    return disallowed(value, allowed)


def volume_sources(features: Features) -> list[str]:
    """The kinds of volumes that may be used, in the order Knative lists them."""
    gated = [source for source, flag in _VOLUME_FLAGS.items() if allows(features, flag)]
    return [*PLAIN_SOURCES, *gated]


def volume_mount(features: Features) -> set[str]:
    allowed = {"name", "readOnly", "mountPath", "subPath"}
    if allows(features, "pod_spec_volumes_mount_propagation"):
        allowed.add("mountPropagation")
    return allowed


def env_source(features: Features) -> set[str]:
    allowed = {"configMapKeyRef", "secretKeyRef"}
    if allows(features, "pod_spec_field_ref"):
        allowed |= {"fieldRef", "resourceFieldRef"}
    return allowed
