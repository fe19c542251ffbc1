"""What knlocal accepts and keeps, but does not act upon: nothing is dropped silently.

`of(obj)` lists such fields of one object, more of them where programs run as local processes. The
list feeds a note on the object and `knlocal doctor`; exporting to a cluster brings the fields to
life there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from knlocal.resources.base import GroupKind, Obj, annotations_of, group_kind_of


class Unsimulated(NamedTuple):
    """`path` is dotted, as in error messages; `why` completes "this has no effect here: …"."""

    path: str
    why: str


_ONE_NODE = "there is one node, so nothing is chosen between nodes"
_NO_PRIORITY = "one machine runs everything; nothing is evicted for something more important"
_OWN_NAMESPACES = "a pod has its own namespaces; it cannot join the machine's"
_NO_PROFILE = "the container engine's own profile applies"
_QUEUE_PROXY = "queue-proxy is a part of knlocal, not a container with resources"

_POD: Mapping[str, str] = {
    "nodeSelector": _ONE_NODE,
    "affinity": _ONE_NODE,
    "tolerations": _ONE_NODE,
    "topologySpreadConstraints": _ONE_NODE,
    "schedulerName": _ONE_NODE,
    "priorityClassName": _NO_PRIORITY,
    "priority": _NO_PRIORITY,
    "preemptionPolicy": _NO_PRIORITY,
    "runtimeClassName": "containers run with the engine's default runtime",
    "overhead": "no runtime class, no overhead",
    "hostNetwork": _OWN_NAMESPACES,
    "hostPID": _OWN_NAMESPACES,
    "hostIPC": _OWN_NAMESPACES,
    "hostUsers": _OWN_NAMESPACES,
    "shareProcessNamespace": "each container sees its own processes only",
    "setHostnameAsFQDN": "the host name is the pod's name",
    "resources": "limits are those of the containers",
    "securityContext.seLinuxOptions": _NO_PROFILE,
    "securityContext.seccompProfile": _NO_PROFILE,
    "securityContext.appArmorProfile": _NO_PROFILE,
    "securityContext.windowsOptions": "containers are Linux containers",
    "securityContext.sysctls": "kernel settings stay as the engine sets them",
    "securityContext.fsGroupChangePolicy": "ownership is set whenever a volume is made",
}
_CONTAINER: Mapping[str, str] = {
    "securityContext.seLinuxOptions": _NO_PROFILE,
    "securityContext.seccompProfile": _NO_PROFILE,
    "securityContext.appArmorProfile": _NO_PROFILE,
    "securityContext.windowsOptions": "containers are Linux containers",
    "securityContext.procMount": "/proc is mounted as the engine does",
    "resources.limits.ephemeral-storage": "disk use of a container is not limited",
    "resources.requests.ephemeral-storage": "disk space is not reserved",
    "resources.claims": "devices are not handed out",
    "resizePolicy": "resources of a running container do not change",
    "volumeDevices": "block devices are not handed out",
}
_UNLIMITED = "local processes are not limited; containers are"
_NO_ROOT = "local processes see this machine's own files"
_OWN_RIGHTS = "local processes have the rights of whoever runs knlocal"
_NO_TERMINAL = "what local processes print is kept in a log"
_OWN_NAMES = "local processes resolve names as this machine does"
#: What only containers have.
_PROCESS_POD: Mapping[str, str] = {
    "hostAliases": _OWN_NAMES,
    "dnsConfig": _OWN_NAMES,
    "dnsPolicy": _OWN_NAMES,
}
_PROCESS_CONTAINER: Mapping[str, str] = {
    "resources.limits.memory": _UNLIMITED,
    "resources.limits.cpu": _UNLIMITED,
    "securityContext.readOnlyRootFilesystem": _NO_ROOT,
    "securityContext.capabilities": _OWN_RIGHTS,
    "securityContext.privileged": _OWN_RIGHTS,
    "tty": _NO_TERMINAL,
    "stdin": "local processes read nothing",
}
_MOUNTS = (
    "local processes see this machine's own files; only an environment variable that names the "
    "mount's path leads into the volume"
)
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
#: What the defaults of `secure-pod-defaults` and of Kubernetes itself write is nobody's wish.
_HARMLESS: Mapping[str, Any] = {
    "schedulerName": "default-scheduler",
    "preemptionPolicy": "PreemptLowerPriority",
    "priority": 0,
    "securityContext.seccompProfile": {"type": "RuntimeDefault"},
    "securityContext.procMount": "Default",
    "securityContext.capabilities": {"drop": ["ALL"]},
    "dnsPolicy": "ClusterFirst",
}

_SERVING = "serving.knative.dev"
_POD_SPECS: Mapping[GroupKind, str] = {
    GroupKind(_SERVING, "Service"): "spec.template.spec",
    GroupKind(_SERVING, "Configuration"): "spec.template.spec",
    GroupKind(_SERVING, "Revision"): "spec",
    GroupKind("", "Pod"): "spec",
    GroupKind("apps", "Deployment"): "spec.template.spec",
    GroupKind("apps", "ReplicaSet"): "spec.template.spec",
    GroupKind("batch", "Job"): "spec.template.spec",
    GroupKind("batch", "CronJob"): "spec.jobTemplate.spec.template.spec",
    GroupKind("sources.knative.dev", "ContainerSource"): "spec.template.spec",
    GroupKind("sinks.knative.dev", "JobSink"): "spec.job.spec.template.spec",
}

_KEPT = "it is kept for clients that ask for it"
_KINDS: Mapping[GroupKind, str] = {
    GroupKind("", "ReplicationController"): f"its pods are not run; {_KEPT}",
    GroupKind("networking.k8s.io", "NetworkPolicy"): f"every pod reaches every pod; {_KEPT}",
    GroupKind("networking.k8s.io", "Ingress"): f"the gateway serves Knative's routes only; {_KEPT}",
    GroupKind("scheduling.k8s.io", "PriorityClass"): _NO_PRIORITY,
    GroupKind("storage.k8s.io", "StorageClass"): "every claim gets a folder of this machine",
    GroupKind("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): (
        f"no webhook is called; {_KEPT}"
    ),
    GroupKind("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): (
        f"no webhook is called; {_KEPT}"
    ),
}

_ANNOTATIONS: tuple[tuple[str, Callable[[str], bool], str], ...] = (
    ("networking.knative.dev/ingress.class", lambda value: True, "there is one gateway"),
    ("networking.knative.dev/certificate.class", lambda value: True, "no certificates are issued"),
)
_SERVICE = GroupKind("", "Service")
_NO_PORTS = "no port of this machine is opened for it; `kubectl port-forward` reaches it"
_QUEUE_ANNOTATION = "queue.sidecar.serving.knative.dev/"


def of(obj: Obj, *, processes: bool = False) -> list[Unsimulated]:
    """The fields of `obj` that are accepted but have no effect here; with `processes`, where
    programs run as local processes."""
    return list(_of(obj, processes))


def _of(obj: Obj, processes: bool) -> Iterator[Unsimulated]:
    group_kind = group_kind_of(obj)
    if group_kind in _KINDS:
        yield Unsimulated("", _KINDS[group_kind])
        return
    yield from _annotations(annotations_of(obj), "metadata.annotations")
    if group_kind == _SERVICE and _at(obj, "spec.selector"):
        if _at(obj, "spec.type") in ("NodePort", "LoadBalancer"):
            yield Unsimulated("spec.type", _NO_PORTS)
        return
    path = _POD_SPECS.get(group_kind)
    if path is None:
        return
    template, _, last = path.rpartition(".")
    if last == "spec" and template:
        holder = _at(obj, template)
        if isinstance(holder, dict):
            yield from _annotations(annotations_of(holder), f"{template}.metadata.annotations")
    spec = _at(obj, path)
    if isinstance(spec, dict):
        yield from _pod_spec(spec, path, _POD, _CONTAINER)
        if processes:
            yield from _pod_spec(spec, path, _PROCESS_POD, _PROCESS_CONTAINER)
            yield from _mounts(spec, path)


def _annotations(annotations: Mapping[str, str], path: str) -> Iterator[Unsimulated]:
    for key, applies, why in _ANNOTATIONS:
        if key in annotations and applies(annotations[key]):
            yield Unsimulated(f"{path}.{key}", why)
    for key in annotations:
        if key.startswith(_QUEUE_ANNOTATION):
            yield Unsimulated(f"{path}.{key}", _QUEUE_PROXY)


def _pod_spec(
    spec: Mapping[str, Any], path: str, of_pod: Mapping[str, str], of_container: Mapping[str, str]
) -> Iterator[Unsimulated]:
    yield from _fields(spec, path, of_pod)
    for place, container in _containers(spec, path):
        yield from _fields(container, place, of_container)


def _mounts(spec: Mapping[str, Any], path: str) -> Iterator[Unsimulated]:
    for place, container in _containers(spec, path):
        paths = [mount.get("mountPath") for mount in container.get("volumeMounts") or ()]
        if any(one != _TOKEN_PATH for one in paths):  # that one comes with every pod
            yield Unsimulated(f"{place}.volumeMounts", _MOUNTS)


def _containers(spec: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            yield f"{path}.{field}[{index}]", container


def _fields(
    holder: Mapping[str, Any], path: str, known: Mapping[str, str]
) -> Iterator[Unsimulated]:
    for field, why in known.items():
        value = _at(holder, field)
        if value not in (None, "", False, [], {}, 0) and value != _HARMLESS.get(field):
            yield Unsimulated(f"{path}.{field}", why)


def _at(value: Any, path: str) -> Any:
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value
