"""The list of Kubernetes' own kinds: names, schema, defaulting, validation.

Their tables (`kubectl get`) have computed cells: see `printers`.
"""

from __future__ import annotations

from knlocal.resources.core import autoscaling, defaults, scaling_validation, validation
from knlocal.resources.core.table import CORE, definition
from knlocal.resources.kinds import Defaulter, Kind, Validator

_ALL = ("all",)
_APPS = "io.k8s.api.apps.v1."
_BATCH = "io.k8s.api.batch.v1."
_EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."


def _kind(
    api_version: str,
    kind: str,
    plural: str,
    prefix: str,
    *short_names: str,
    namespaced: bool = True,
    categories: tuple[str, ...] = (),
    status: bool = False,
    scale: bool = False,
    default: Defaulter | None = None,
    validate: Validator | None = None,
) -> Kind:
    group, _, version = api_version.rpartition("/")
    return Kind(
        group, version, kind, plural, definition(prefix + kind),
        namespaced=namespaced, short_names=short_names, categories=categories,
        has_status=status, has_scale=scale, is_custom=False,
        default=default, validate=validate,
    )  # fmt: skip


def _core() -> list[Kind]:
    return [
        _kind("v1", "Namespace", "namespaces", CORE, "ns", namespaced=False, status=True),
        _kind("v1", "ConfigMap", "configmaps", CORE, "cm", validate=validation.config_map),
        _kind("v1", "Secret", "secrets", CORE, default=defaults.secret, validate=validation.secret),
        _kind("v1", "ServiceAccount", "serviceaccounts", CORE, "sa"),
        _kind("v1", "Service", "services", CORE, "svc", categories=_ALL, status=True,
              default=defaults.service, validate=validation.service),
        _kind("v1", "Endpoints", "endpoints", CORE, "ep", default=defaults.endpoints),
        _kind("v1", "Event", "events", CORE, "ev", default=defaults.event),
        _kind("v1", "Pod", "pods", CORE, "po", categories=_ALL, status=True,
              default=defaults.pod, validate=validation.pod),
        _kind("v1", "Node", "nodes", CORE, "no", namespaced=False, status=True),
        _kind("v1", "PersistentVolume", "persistentvolumes", CORE, "pv", namespaced=False,
              status=True, default=defaults.persistent_volume),
        _kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims", CORE, "pvc", status=True,
              default=defaults.persistent_volume_claim,
              validate=validation.persistent_volume_claim),
        _kind("v1", "ResourceQuota", "resourcequotas", CORE, "quota", status=True),
        _kind("v1", "LimitRange", "limitranges", CORE, "limits"),
        _kind("v1", "PodTemplate", "podtemplates", CORE, default=defaults.pod_template_object),
        _kind("v1", "ReplicationController", "replicationcontrollers", CORE, "rc",
              categories=_ALL, status=True, scale=True, default=defaults.replication_controller),
    ]  # fmt: skip


def _workloads() -> list[Kind]:
    return [
        _kind("apps/v1", "Deployment", "deployments", _APPS, "deploy", categories=_ALL,
              status=True, scale=True, default=defaults.deployment,
              validate=validation.deployment),
        _kind("apps/v1", "ReplicaSet", "replicasets", _APPS, "rs", categories=_ALL,
              status=True, scale=True, default=defaults.replica_set,
              validate=validation.replica_set),
        _kind("apps/v1", "StatefulSet", "statefulsets", _APPS, "sts", categories=_ALL,
              status=True, scale=True, default=defaults.stateful_set,
              validate=validation.stateful_set),
        _kind("apps/v1", "DaemonSet", "daemonsets", _APPS, "ds", categories=_ALL,
              status=True, default=defaults.daemon_set, validate=validation.daemon_set),
        _kind("apps/v1", "ControllerRevision", "controllerrevisions", _APPS),
        _kind("batch/v1", "Job", "jobs", _BATCH, categories=_ALL, status=True,
              default=defaults.job, validate=validation.job),
        _kind("batch/v1", "CronJob", "cronjobs", _BATCH, "cj", categories=_ALL, status=True,
              default=defaults.cron_job, validate=validation.cron_job),
    ]  # fmt: skip


def _rbac() -> list[Kind]:
    prefix = "io.k8s.api.rbac.v1."
    group = "rbac.authorization.k8s.io/v1"
    return [
        _kind(group, "Role", "roles", prefix),
        _kind(group, "RoleBinding", "rolebindings", prefix, default=defaults.role_binding,
              validate=validation.role_binding),
        _kind(group, "ClusterRole", "clusterroles", prefix, namespaced=False),
        _kind(group, "ClusterRoleBinding", "clusterrolebindings", prefix, namespaced=False,
              default=defaults.role_binding, validate=validation.role_binding),
    ]  # fmt: skip


def _others() -> list[Kind]:
    networking, storage = "io.k8s.api.networking.v1.", "io.k8s.api.storage.v1."
    webhooks = "io.k8s.api.admissionregistration.v1."
    return [
        _kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices",
              "io.k8s.api.discovery.v1.", default=defaults.endpoint_slice),
        _kind("coordination.k8s.io/v1", "Lease", "leases", "io.k8s.api.coordination.v1.",
              validate=scaling_validation.lease),
        _kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "io.k8s.api.policy.v1.",
              "pdb", status=True),
        _kind("networking.k8s.io/v1", "Ingress", "ingresses", networking, "ing", status=True),
        _kind("networking.k8s.io/v1", "IngressClass", "ingressclasses", networking,
              namespaced=False),
        _kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", networking, "netpol",
              default=defaults.network_policy),
        _kind("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses",
              "io.k8s.api.scheduling.v1.", "pc", namespaced=False,
              default=defaults.priority_class),
        _kind("storage.k8s.io/v1", "StorageClass", "storageclasses", storage, "sc",
              namespaced=False, default=defaults.storage_class),
        _kind("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration",
              "mutatingwebhookconfigurations", webhooks, namespaced=False),
        _kind("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration",
              "validatingwebhookconfigurations", webhooks, namespaced=False),
        _kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions",
              _EXTENSIONS, "crd", "crds", namespaced=False, categories=("api-extensions",),
              status=True, default=defaults.custom_resource_definition,
              validate=validation.custom_resource_definition),
    ]  # fmt: skip


KINDS: tuple[Kind, ...] = (
    *_core(), *_workloads(), *_rbac(), *autoscaling.KINDS, *_others(),
)  # fmt: skip
