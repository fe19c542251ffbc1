"""Defaults of Kubernetes' own kinds (k8s.io/kubernetes pkg/apis/*/v1/defaults.go and the admission
plugins that a client would notice)."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from knlocal.resources.base import Obj
from knlocal.resources.core.pod_defaults import default_pod_spec
from knlocal.resources.kinds import AdmissionContext


def secret(obj: Obj, context: AdmissionContext) -> None:
    """`stringData` is folded into `data`; the type cannot be empty."""
    if not obj.get("type"):
        obj["type"] = "Opaque"
    plain = obj.pop("stringData", None)
    if isinstance(plain, dict):
        data = obj.setdefault("data", {})
        for name, text in plain.items():
            data[name] = base64.b64encode(str(text).encode()).decode()


def service(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port")
    obj.setdefault("status", {}).setdefault("loadBalancer", {})
    if spec["type"] == "ExternalName":
        return
    spec.setdefault("internalTrafficPolicy", "Cluster")
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    spec.setdefault("ipFamilies", ["IPv4"])
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    if not spec.get("clusterIP"):
        before = ((context.old or {}).get("spec") or {}).get("clusterIP")
        spec["clusterIP"] = before or _cluster_ip(obj)
    spec.setdefault("clusterIPs", [spec["clusterIP"]])


def _cluster_ip(obj: Obj) -> str:
    """An address that looks like a cluster's; nothing routes there: names are what counts."""
    metadata = obj.get("metadata") or {}
    name = f"{metadata.get('namespace')}/{metadata.get('name')}"
    third, fourth = hashlib.sha256(name.encode()).digest()[:2]
    return f"10.96.{third}.{fourth or 1}"


def endpoints(obj: Obj, context: AdmissionContext) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            port.setdefault("protocol", "TCP")


def endpoint_slice(obj: Obj, context: AdmissionContext) -> None:
    for port in obj.get("ports") or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def event(obj: Obj, context: AdmissionContext) -> None:
    obj.setdefault("involvedObject", {})
    obj.setdefault("source", {})
    obj.setdefault("reportingComponent", "")
    obj.setdefault("reportingInstance", "")
    for name in ("firstTimestamp", "lastTimestamp", "eventTime"):
        # Clients look these up without a second thought; Go writes a null for "not set".
        obj.setdefault(name, None)


def persistent_volume(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")
    if context.is_create:
        obj.setdefault("status", {}).setdefault("phase", "Pending")


def persistent_volume_claim(obj: Obj, context: AdmissionContext) -> None:
    obj.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    if context.is_create:
        obj.setdefault("status", {}).setdefault("phase", "Pending")


def pod(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    default_pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    # What admission plugins add to a pod (but not to a template).
    if not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"] = "default"
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    status = obj.setdefault("status", {})
    if context.is_create:
        status.setdefault("phase", "Pending")
        status.setdefault("qosClass", quality_class(spec))


def quality_class(spec: dict[str, Any]) -> str:
    """`Guaranteed`, `Burstable` or `BestEffort`."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    resources = [container.get("resources") or {} for container in containers]
    if not any(r.get("limits") or r.get("requests") for r in resources):
        return "BestEffort"
    for r in resources:
        limits, requests = r.get("limits") or {}, r.get("requests") or {}
        for name in ("cpu", "memory"):
            if name not in limits or requests.get(name) != limits[name]:
                return "Burstable"
    return "Guaranteed"


def pod_template_object(obj: Obj, context: AdmissionContext) -> None:
    _template(obj)


def _template(holder: dict[str, Any]) -> dict[str, Any]:
    template: dict[str, Any] = holder.setdefault("template", {})
    template.setdefault("metadata", {})
    default_pod_spec(template.setdefault("spec", {}))
    return template


def replication_controller(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    labels = (_template(spec).get("metadata") or {}).get("labels") or {}
    if labels:
        spec.setdefault("selector", dict(labels))


def deployment(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    _template(spec)
    spec.setdefault("replicas", 1)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def replica_set(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    _template(spec)
    spec.setdefault("replicas", 1)


def stateful_set(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    _template(spec)
    spec.setdefault("replicas", 1)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    policy = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    policy.setdefault("whenDeleted", "Retain")
    policy.setdefault("whenScaled", "Retain")
    for claim in spec.get("volumeClaimTemplates") or ():
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def daemon_set(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    _template(spec)
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)


def job(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    _job_spec(spec)
    if not spec.get("manualSelector") and context.is_create:
        _generate_selector(obj, spec)


def _job_spec(spec: dict[str, Any]) -> None:
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    pod_spec = template.setdefault("spec", {})
    # "Always" is what a pod spec defaults to, and what a job refuses: so no default here.
    given = pod_spec.get("restartPolicy")
    default_pod_spec(pod_spec)
    if not given:
        del pod_spec["restartPolicy"]
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6 if spec.get("backoffLimitPerIndex") is None else 2**31 - 1)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")
    if "podFailurePolicy" in spec:
        spec["podReplacementPolicy"] = "Failed"


def _generate_selector(obj: Obj, spec: dict[str, Any]) -> None:
    """A job selects its pods by its own uid (pkg/registry/batch/job/strategy.go)."""
    metadata = obj.get("metadata") or {}
    uid, name = metadata.get("uid"), metadata.get("name")
    if not uid:
        return
    metadata_of_template = spec["template"]["metadata"]
    labels = metadata_of_template.setdefault("labels", {})
    labels |= {
        "batch.kubernetes.io/controller-uid": uid, "controller-uid": uid,
        "batch.kubernetes.io/job-name": name, "job-name": name,
    }  # fmt: skip
    selector = spec.setdefault("selector", {}).setdefault("matchLabels", {})
    selector["batch.kubernetes.io/controller-uid"] = uid


def cron_job(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    template = spec.setdefault("jobTemplate", {})
    template.setdefault("metadata", {})
    pod_template = template.setdefault("spec", {}).setdefault("template", {})
    pod_template.setdefault("metadata", {})
    pod_spec = pod_template.setdefault("spec", {})
    given = pod_spec.get("restartPolicy")
    default_pod_spec(pod_spec)
    if not given:
        del pod_spec["restartPolicy"]


def role_binding(obj: Obj, context: AdmissionContext) -> None:
    reference = obj.setdefault("roleRef", {})
    reference.setdefault("apiGroup", "rbac.authorization.k8s.io")
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


def horizontal_pod_autoscaler(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]


def network_policy(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress"] + (["Egress"] if spec.get("egress") else [])


def priority_class(obj: Obj, context: AdmissionContext) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def storage_class(obj: Obj, context: AdmissionContext) -> None:
    obj.setdefault("reclaimPolicy", "Delete")
    obj.setdefault("volumeBindingMode", "Immediate")


def custom_resource_definition(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind") or ""
    if kind:
        names["singular"] = names.get("singular") or kind.lower()
        names["listKind"] = names.get("listKind") or f"{kind}List"
    spec.setdefault("conversion", {}).setdefault("strategy", "None")
