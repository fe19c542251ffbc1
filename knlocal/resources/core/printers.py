"""The tables of Kubernetes' own kinds, whose cells are worked out rather than looked up
(k8s.io/kubernetes pkg/printers/internalversion)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NamedTuple

from knlocal.resources.ages import age, human_duration
from knlocal.resources.base import GroupKind, Obj, parse_timestamp
from knlocal.resources.core import pod_printer
from knlocal.resources.core.cells import (
    container_images,
    container_names,
    created,
    joined,
    selector_text,
)
from knlocal.resources.core.events import to_core_event
from knlocal.resources.kinds import Column

Cells = list[Any]


class Printer(NamedTuple):
    """`columns` (their paths unused) and what fills them, the name first."""

    columns: tuple[Column, ...]
    cells: Callable[[Obj, datetime], Cells]


def _columns(text: str) -> tuple[Column, ...]:
    """ "Name, Ready, Restarts:integer, IP*": a star hides a column unless `-o wide`."""
    columns = []
    for word in text.split(","):
        name, _, kind = word.strip().partition(":")
        wide = name.endswith("*")
        columns.append(Column(name.rstrip("*"), "", kind or "string", 1 if wide else 0))
    return tuple(columns)


def _spec(obj: Obj) -> dict[str, Any]:
    return obj.get("spec") or {}


def _status(obj: Obj) -> dict[str, Any]:
    return obj.get("status") or {}


def _name(obj: Obj) -> str:
    return str(obj["metadata"].get("name") or "")


def _template(obj: Obj) -> dict[str, Any]:
    return (_spec(obj).get("template") or {}).get("spec") or {}


def _workload(obj: Obj) -> Cells:
    spec = _template(obj)
    return [
        container_names(spec),
        container_images(spec),
        selector_text(_spec(obj).get("selector")),
    ]


def _deployment(obj: Obj, now: datetime) -> Cells:
    status, wanted = _status(obj), _spec(obj).get("replicas", 0)
    ready = f"{status.get('readyReplicas', 0)}/{wanted}"
    counts = [status.get("updatedReplicas", 0), status.get("availableReplicas", 0)]
    return [_name(obj), ready, *counts, created(obj, now), *_workload(obj)]


def _replica_set(obj: Obj, now: datetime) -> Cells:
    status = _status(obj)
    counts = [
        _spec(obj).get("replicas", 0),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
    ]
    return [_name(obj), *counts, created(obj, now), *_workload(obj)]


def _controller_revision(obj: Obj, now: datetime) -> Cells:
    owners = [one for one in obj["metadata"].get("ownerReferences") or () if one.get("controller")]
    owner = owners[0] if owners else {}
    group = str(owner.get("apiVersion", "")).rpartition("/")[0]
    shown = (
        f"{str(owner.get('kind', '')).lower()}{f'.{group}' if group else ''}/{owner.get('name')}"
    )
    return [_name(obj), shown if owner else "<none>", obj.get("revision"), created(obj, now)]


def _stateful_set(obj: Obj, now: datetime) -> Cells:
    ready = f"{_status(obj).get('readyReplicas', 0)}/{_spec(obj).get('replicas', 0)}"
    return [_name(obj), ready, created(obj, now), *_workload(obj)[:2]]


def _daemon_set(obj: Obj, now: datetime) -> Cells:
    status = _status(obj)
    counts = [
        status.get(name, 0)
        for name in ("desiredNumberScheduled", "currentNumberScheduled", "numberReady",
                     "updatedNumberScheduled", "numberAvailable")
    ]  # fmt: skip
    node = selector_text({"matchLabels": _template(obj).get("nodeSelector") or {}})
    return [_name(obj), *counts, node, created(obj, now), *_workload(obj)]


def _job(obj: Obj, now: datetime) -> Cells:
    spec, status = _spec(obj), _status(obj)
    done = status.get("succeeded", 0)
    if spec.get("completions") is not None:
        completions = f"{done}/{spec['completions']}"
    elif spec.get("parallelism", 0) > 1:
        completions = f"{done}/1 of {spec['parallelism']}"
    else:
        completions = f"{done}/1"
    return [
        _name(obj), _job_state(obj), completions, _job_duration(status, now), created(obj, now),
        *_workload(obj),
    ]  # fmt: skip


def _job_state(obj: Obj) -> str:
    true = {c["type"] for c in _status(obj).get("conditions") or () if c.get("status") == "True"}
    for type_ in ("Complete", "Failed"):
        if type_ in true:
            return type_
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for type_, shown in (("Suspended", "Suspended"), ("FailureTarget", "FailureTarget"),
                         ("SuccessCriteriaMet", "SuccessCriteriaMet")):  # fmt: skip
        if type_ in true:
            return shown
    return "Running"


def _job_duration(status: dict[str, Any], now: datetime) -> str:
    start, end = status.get("startTime"), status.get("completionTime")
    if not start:
        return ""
    until = parse_timestamp(end) if end else now
    return human_duration((until - parse_timestamp(start)).total_seconds())


def _cron_job(obj: Obj, now: datetime) -> Cells:
    spec, status = _spec(obj), _status(obj)
    last = status.get("lastScheduleTime")
    pod = (((spec.get("jobTemplate") or {}).get("spec") or {}).get("template") or {}).get("spec")
    return [
        _name(obj), spec.get("schedule", ""), spec.get("timeZone") or "<none>",
        str(bool(spec.get("suspend"))), len(status.get("active") or ()),
        age(last, now) if last else "<none>", created(obj, now), container_names(pod or {}),
        container_images(pod or {}), "<none>",
    ]  # fmt: skip


def _service(obj: Obj, now: datetime) -> Cells:
    spec = _spec(obj)
    ports = ",".join(_port(port) for port in spec.get("ports") or ()) or "<none>"
    return [
        _name(obj), spec.get("type", ""), spec.get("clusterIP") or "<none>", _external(obj), ports,
        created(obj, now), selector_text({"matchLabels": spec.get("selector") or {}}),
    ]  # fmt: skip


def _port(port: dict[str, Any]) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}"


def _external(obj: Obj) -> str:
    spec = _spec(obj)
    given = ",".join(spec.get("externalIPs") or ())
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName") or "")
    if spec.get("type") == "LoadBalancer":
        ingress = (_status(obj).get("loadBalancer") or {}).get("ingress") or ()
        found = ",".join(sorted(i.get("ip") or i.get("hostname") or "" for i in ingress))
        return found or given or "<pending>"
    return given or "<none>"


def _endpoints(obj: Obj, now: datetime) -> Cells:
    found = [
        f"{address.get('ip')}:{port.get('port')}"
        for subset in obj.get("subsets") or ()
        for port in subset.get("ports") or [dict[str, Any]()]
        for address in subset.get("addresses") or ()
    ]
    return [_name(obj), joined(found, 3), created(obj, now)]


def _endpoint_slice(obj: Obj, now: datetime) -> Cells:
    ports = [str(port.get("port")) for port in obj.get("ports") or ()]
    addresses = [a for end in obj.get("endpoints") or () for a in end.get("addresses") or ()]
    return [
        _name(obj), obj.get("addressType", ""), joined(ports, 3) if ports else "<unset>",
        joined(addresses, 3) if addresses else "<unset>", created(obj, now),
    ]  # fmt: skip


def _event(obj: Obj, now: datetime) -> Cells:
    first = age(obj.get("firstTimestamp") or obj.get("eventTime"), now)
    last = age(obj.get("lastTimestamp") or obj.get("eventTime"), now)
    about = obj.get("involvedObject") or {}
    source = obj.get("source") or {}
    place = ", ".join(p for p in (source.get("component"), source.get("host")) if p)
    target = f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"
    return [
        last, obj.get("type", ""), obj.get("reason", ""), target, about.get("fieldPath", ""),
        place or obj.get("reportingComponent", ""), str(obj.get("message", "")).strip(), first,
        obj.get("count") or 1, _name(obj),
    ]  # fmt: skip


def _node(obj: Obj, now: datetime) -> Cells:
    status, spec = _status(obj), _spec(obj)
    conditions: list[dict[str, Any]] = status.get("conditions") or []
    ready = next((c for c in conditions if c.get("type") == "Ready"), dict[str, Any]())
    state = {"True": "Ready", "False": "NotReady"}.get(ready.get("status", ""), "Unknown")
    if spec.get("unschedulable"):
        state += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    roles = sorted(key[len(prefix) :] for key in labels if key.startswith(prefix))
    info = status.get("nodeInfo") or {}
    addresses = {a.get("type"): a.get("address") for a in status.get("addresses") or ()}
    return [
        _name(obj), state, ",".join(roles) or "<none>", created(obj, now),
        info.get("kubeletVersion", ""), addresses.get("InternalIP", "<none>"),
        addresses.get("ExternalIP", "<none>"), info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]  # fmt: skip


_MODES = {
    "ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}  # fmt: skip


def _modes(modes: Iterable[str] | None) -> str:
    return ",".join(_MODES.get(mode, mode) for mode in modes or ())


def _persistent_volume(obj: Obj, now: datetime) -> Cells:
    spec, status = _spec(obj), _status(obj)
    claim = spec.get("claimRef") or {}
    return [
        _name(obj), (spec.get("capacity") or {}).get("storage", ""),
        _modes(spec.get("accessModes")), spec.get("persistentVolumeReclaimPolicy", ""),
        status.get("phase", ""),
        f"{claim.get('namespace')}/{claim.get('name')}" if claim else "",
        spec.get("storageClassName", ""), spec.get("volumeAttributesClassName") or "<unset>",
        status.get("reason", ""), created(obj, now), spec.get("volumeMode", "<unset>"),
    ]  # fmt: skip


def _persistent_volume_claim(obj: Obj, now: datetime) -> Cells:
    spec, status = _spec(obj), _status(obj)
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    bound = bool(spec.get("volumeName"))
    return [
        _name(obj), phase, spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", "") if bound else "",
        _modes(status.get("accessModes")) if bound else "", spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or "<unset>", created(obj, now),
        spec.get("volumeMode", "<unset>"),
    ]  # fmt: skip


def _resource_quota(obj: Obj, now: datetime) -> Cells:
    hard, used = _status(obj).get("hard") or {}, _status(obj).get("used") or {}
    parts = [f"{name}: {used.get(name, '0')}/{hard[name]}" for name in sorted(hard)]
    limits = [part for part in parts if part.startswith("limits")]
    requests = [part for part in parts if not part.startswith("limits")]
    return [_name(obj), ", ".join(requests), ", ".join(limits), created(obj, now)]


def _binding(obj: Obj, now: datetime) -> Cells:
    role = obj.get("roleRef") or {}
    subjects: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or ():
        name = str(subject.get("name", ""))
        if subject.get("kind") == "ServiceAccount":
            name = f"{subject.get('namespace', '')}/{name}"
        subjects.setdefault(str(subject.get("kind")), []).append(name)
    return [
        _name(obj), f"{role.get('kind')}/{role.get('name')}", created(obj, now),
        *(", ".join(subjects[kind]) for kind in ("User", "Group", "ServiceAccount")),
    ]  # fmt: skip


def _autoscaler(obj: Obj, now: datetime) -> Cells:
    spec, status = _spec(obj), _status(obj)
    target = spec.get("scaleTargetRef") or {}
    return [
        _name(obj), f"{target.get('kind')}/{target.get('name')}", _metrics(spec, status),
        str(spec.get("minReplicas", "<unset>")), spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0), created(obj, now),
    ]  # fmt: skip


def _metrics(spec: dict[str, Any], status: dict[str, Any]) -> str:
    found = []
    for index, metric in enumerate(spec.get("metrics") or ()):
        kind = str(metric.get("type", ""))
        key = kind[:1].lower() + kind[1:]
        known = (status.get("currentMetrics") or [])[index : index + 1]
        current = ((known[0].get(key) or {}).get("current") if known else None) or {}
        target = (metric.get(key) or {}).get("target") or {}
        name = (metric.get(key) or {}).get("name")
        prefix = f"{name}: " if name else ""
        if "averageUtilization" in target:
            now_at = current.get("averageUtilization")
            shown = "<unknown>" if now_at is None else f"{now_at}%"
            found.append(f"{prefix}{shown}/{target['averageUtilization']}%")
        else:
            wanted = target.get("averageValue") or target.get("value")
            shown = current.get("averageValue") or current.get("value") or "<unknown>"
            found.append(f"{prefix}{shown}/{wanted}")
    return joined(found, 2)


def _disruption_budget(obj: Obj, now: datetime) -> Cells:
    spec = _spec(obj)
    bounds = [str(spec.get(name, "N/A")) for name in ("minAvailable", "maxUnavailable")]
    return [_name(obj), *bounds, _status(obj).get("disruptionsAllowed", 0), created(obj, now)]


def _ingress(obj: Obj, now: datetime) -> Cells:
    spec = _spec(obj)
    hosts = [rule["host"] for rule in spec.get("rules") or () if rule.get("host")]
    ingress = (_status(obj).get("loadBalancer") or {}).get("ingress") or ()
    address = ",".join(i.get("ip") or i.get("hostname") or "" for i in ingress)
    return [
        _name(obj), spec.get("ingressClassName") or "<none>", joined(hosts, 3) if hosts else "*",
        address, "80, 443" if spec.get("tls") else "80", created(obj, now),
    ]  # fmt: skip


def _ingress_class(obj: Obj, now: datetime) -> Cells:
    parameters = _spec(obj).get("parameters") or {}
    group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
    shown = f"{parameters.get('kind')}{group}/{parameters.get('name')}" if parameters else "<none>"
    return [_name(obj), _spec(obj).get("controller", ""), shown, created(obj, now)]


def _storage_class(obj: Obj, now: datetime) -> Cells:
    annotations = obj["metadata"].get("annotations") or {}
    default = annotations.get("storageclass.kubernetes.io/is-default-class") == "true"
    return [
        f"{_name(obj)} (default)" if default else _name(obj), obj.get("provisioner", ""),
        obj.get("reclaimPolicy", "Delete"), obj.get("volumeBindingMode", "<unset>"),
        bool(obj.get("allowVolumeExpansion")), created(obj, now),
    ]  # fmt: skip


def _counted(*fields: str) -> Callable[[Obj, datetime], Cells]:
    def cells(obj: Obj, now: datetime) -> Cells:
        return [_name(obj), sum(len(obj.get(field) or ()) for field in fields), created(obj, now)]

    return cells


def _created_at(obj: Obj, now: datetime) -> Cells:
    return [_name(obj), obj["metadata"].get("creationTimestamp") or "<unknown>"]


def _secret(obj: Obj, now: datetime) -> Cells:
    return [_name(obj), obj.get("type", ""), len(obj.get("data") or ()), created(obj, now)]


def _namespace(obj: Obj, now: datetime) -> Cells:
    return [_name(obj), _status(obj).get("phase", ""), created(obj, now)]


def _lease(obj: Obj, now: datetime) -> Cells:
    return [_name(obj), _spec(obj).get("holderIdentity", ""), created(obj, now)]


def _network_policy(obj: Obj, now: datetime) -> Cells:
    return [_name(obj), selector_text(_spec(obj).get("podSelector")), created(obj, now)]


def _priority_class(obj: Obj, now: datetime) -> Cells:
    return [
        _name(obj), obj.get("value", 0), bool(obj.get("globalDefault")), created(obj, now),
        obj.get("preemptionPolicy", ""),
    ]  # fmt: skip


_WIDE = "Containers*, Images*, Selector*"
_EVENT = ("Last Seen, Type, Reason, Object, Subobject*, Source*, Message, First Seen*, "
          "Count*:integer, Name*")  # fmt: skip
_RBAC, _POLICY = "rbac.authorization.k8s.io", "policy"
_TABLES: tuple[tuple[str, str, str, Callable[[Obj, datetime], Cells]], ...] = (
    ("", "Pod", pod_printer.COLUMNS, pod_printer.cells),
    ("apps", "Deployment", f"Name, Ready, Up-to-date:integer, Available:integer, Age, {_WIDE}",
     _deployment),
    ("apps", "ReplicaSet",
     f"Name, Desired:integer, Current:integer, Ready:integer, Age, {_WIDE}", _replica_set),
    ("", "ReplicationController",
     f"Name, Desired:integer, Current:integer, Ready:integer, Age, {_WIDE}", _replica_set),
    ("apps", "StatefulSet", "Name, Ready, Age, Containers*, Images*", _stateful_set),
    ("apps", "ControllerRevision", "Name, Controller, Revision:integer, Age", _controller_revision),
    ("apps", "DaemonSet", ("Name, Desired:integer, Current:integer, Ready:integer, "
     f"Up-to-date:integer, Available:integer, Node Selector, Age, {_WIDE}"), _daemon_set),
    ("batch", "Job", f"Name, Status, Completions, Duration, Age, {_WIDE}", _job),
    ("batch", "CronJob", ("Name, Schedule, Timezone, Suspend, Active:integer, Last Schedule, Age, "
     f"{_WIDE}"), _cron_job),
    ("", "Service", "Name, Type, Cluster-IP, External-IP, Port(s), Age, Selector*", _service),
    ("", "Endpoints", "Name, Endpoints, Age", _endpoints),
    ("discovery.k8s.io", "EndpointSlice", "Name, AddressType, Ports, Endpoints, Age",
     _endpoint_slice),
    ("", "Event", _EVENT, _event),
    ("events.k8s.io", "Event", _EVENT, lambda obj, now: _event(to_core_event(obj), now)),
    ("", "Node", ("Name, Status, Roles, Age, Version, Internal-IP*, External-IP*, OS-Image*, "
     "Kernel-Version*, Container-Runtime*"), _node),
    ("", "PersistentVolume", ("Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, "
     "StorageClass, VolumeAttributesClass, Reason, Age, VolumeMode*"), _persistent_volume),
    ("", "PersistentVolumeClaim", ("Name, Status, Volume, Capacity, Access Modes, StorageClass, "
     "VolumeAttributesClass, Age, VolumeMode*"), _persistent_volume_claim),
    ("", "ResourceQuota", "Name, Request, Limit, Age", _resource_quota),
    ("", "LimitRange", "Name, Created At", _created_at),
    ("", "ConfigMap", "Name, Data:integer, Age", _counted("data", "binaryData")),
    ("", "ServiceAccount", "Name, Secrets:integer, Age", _counted("secrets")),
    ("", "Secret", "Name, Type, Data:integer, Age", _secret),
    ("", "Namespace", "Name, Status, Age", _namespace),
    (_RBAC, "Role", "Name, Created At", _created_at),
    (_RBAC, "ClusterRole", "Name, Created At", _created_at),
    (_RBAC, "RoleBinding", "Name, Role, Age, Users*, Groups*, ServiceAccounts*", _binding),
    (_RBAC, "ClusterRoleBinding", "Name, Role, Age, Users*, Groups*, ServiceAccounts*", _binding),
    ("coordination.k8s.io", "Lease", "Name, Holder, Age", _lease),
    ("autoscaling", "HorizontalPodAutoscaler", ("Name, Reference, Targets, MinPods, "
     "MaxPods:integer, Replicas:integer, Age"), _autoscaler),
    (_POLICY, "PodDisruptionBudget", ("Name, Min Available, Max Unavailable, "
     "Allowed Disruptions:integer, Age"), _disruption_budget),
    ("networking.k8s.io", "Ingress", "Name, Class, Hosts, Address, Ports, Age", _ingress),
    ("networking.k8s.io", "IngressClass", "Name, Controller, Parameters, Age", _ingress_class),
    ("networking.k8s.io", "NetworkPolicy", "Name, Pod-Selector, Age", _network_policy),
    ("scheduling.k8s.io", "PriorityClass", ("Name, Value:integer, Global-Default:boolean, Age, "
     "PreemptionPolicy"), _priority_class),
    ("storage.k8s.io", "StorageClass", ("Name, Provisioner, ReclaimPolicy, VolumeBindingMode, "
     "AllowVolumeExpansion, Age"), _storage_class),
    ("apiextensions.k8s.io", "CustomResourceDefinition", "Name, Created At", _created_at),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration",
     "Name, Webhooks:integer, Age", _counted("webhooks")),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration",
     "Name, Webhooks:integer, Age", _counted("webhooks")),
)  # fmt: skip

PRINTERS: dict[GroupKind, Printer] = {
    GroupKind(group, kind): Printer(_columns(columns), cells)
    for group, kind, columns, cells in _TABLES
}
