"""What Kubernetes' API server and scheduler add to a pod, done at its creation: there is one node,
and so nothing to schedule but what would never fit."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from knlocal.resources import quantity
from knlocal.resources.base import Obj, meta, spec_of
from knlocal.resources.names import generate_name
from knlocal.resources.status import Forbidden
from knlocal.store.store import AdmissionHook, AdmissionRequest, Store
from knlocal.workloads.environment import machine_capacity
from knlocal.workloads.podplan import PodNetwork
from knlocal.workloads.podstatus import qos_class
from knlocal.workloads.terms import NODE_NAME, POD, SERVICE_ACCOUNT

_TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
_DEFAULTS: dict[str, Any] = {
    "restartPolicy": "Always",
    "dnsPolicy": "ClusterFirst",
    "terminationGracePeriodSeconds": 30,
}


def pod_admission(store: Store, network: PodNetwork) -> AdmissionHook:
    """The admission hook for pods."""

    def admit(request: AdmissionRequest) -> None:
        if request.kind.group_kind != POD or request.subresource:
            return
        pod = request.obj
        spec = pod.setdefault("spec", {})
        if request.operation == "CREATE":
            for name, value in _DEFAULTS.items():
                spec.setdefault(name, value)
            if not spec.get("serviceAccountName"):
                spec["serviceAccountName"] = spec["serviceAccount"] = "default"
            _check_account(store, pod)
            if network.in_cluster is not None:
                _mount_token(store, pod)
            pod["status"] = {"phase": "Pending", "qosClass": qos_class(pod)}
        if not spec.get("nodeName") and not why_unschedulable(pod):
            spec["nodeName"] = NODE_NAME

    return admit


def why_unschedulable(pod: Obj) -> tuple[str, str] | None:
    """Reason and message of the PodScheduled condition for a pod that no node can take."""
    if spec_of(pod).get("schedulingGates"):
        return "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates"
    for resource in ("cpu", "memory"):
        if pod_requests(pod, resource) > machine_capacity(resource):
            return "Unschedulable", (
                f"0/1 nodes are available: 1 Insufficient {resource}. preemption: 0/1 nodes are "
                "available: 1 No preemption victims found for incoming pod."
            )
    return None


def pod_requests(pod: Obj, resource: str, section: str = "requests") -> Decimal:
    """What a pod asks for: the sum of its containers, or its largest init container."""

    def of(container: Obj) -> Decimal:
        resources = container.get("resources") or {}
        value = (resources.get(section) or {}).get(resource)
        if value is None and section == "requests":
            value = (resources.get("limits") or {}).get(resource)
        return quantity.parse(value) if value is not None else Decimal(0)

    spec = spec_of(pod)
    total = sum((of(c) for c in spec.get("containers") or ()), Decimal(0))
    first = max((of(c) for c in spec.get("initContainers") or ()), default=Decimal(0))
    return max(total, first)


def _check_account(store: Store, pod: Obj) -> None:
    metadata, name = meta(pod), spec_of(pod)["serviceAccountName"]
    namespace = metadata.get("namespace") or ""
    if name == "default" or store.find(SERVICE_ACCOUNT, namespace, name) is not None:
        return
    shown = metadata.get("name") or metadata.get("generateName") or ""
    raise Forbidden(
        f'pods "{shown}" is forbidden: error looking up service account {namespace}/{name}: '
        f'serviceaccount "{name}" not found',
        kind="pods",
        name=shown,
    )


def _mount_token(store: Store, pod: Obj) -> None:
    """The volume `kube-api-access-…` (k8s.io/kubernetes plugin/pkg/admission/serviceaccount)."""
    spec = pod["spec"]
    account = store.find(
        SERVICE_ACCOUNT, meta(pod).get("namespace") or "", spec["serviceAccountName"]
    )
    wanted = spec.get("automountServiceAccountToken")
    if wanted is None:
        wanted = (account or {}).get("automountServiceAccountToken", True)
    if not wanted:
        return
    mounted = False
    name = generate_name("kube-api-access-")
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        mounts = container.setdefault("volumeMounts", [])
        if not any(m.get("mountPath") == _TOKEN_FOLDER for m in mounts):
            mounts.append({"name": name, "readOnly": True, "mountPath": _TOKEN_FOLDER})
            mounted = True
    if mounted:
        spec.setdefault("volumes", []).append(_token_volume(name))


def _token_volume(name: str) -> Obj:
    namespace = {"path": "namespace", "fieldRef": {
        "apiVersion": "v1", "fieldPath": "metadata.namespace",
    }}  # fmt: skip
    return {
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {
                    "configMap": {
                        "name": "kube-root-ca.crt",
                        "items": [{"key": "ca.crt", "path": "ca.crt"}],
                    }
                },
                {"downwardAPI": {"items": [namespace]}},
            ],
        },
    }
