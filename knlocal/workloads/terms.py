"""Names that the workloads modules share: kinds, labels, annotations."""

from __future__ import annotations

from knlocal.resources.annotations import STANDBY
from knlocal.resources.base import GroupKind, Obj, annotations_of

POD = GroupKind("", "Pod")
NODE = GroupKind("", "Node")
SERVICE = GroupKind("", "Service")
ENDPOINTS = GroupKind("", "Endpoints")
ENDPOINT_SLICE = GroupKind("discovery.k8s.io", "EndpointSlice")
CONFIG_MAP = GroupKind("", "ConfigMap")
SECRET = GroupKind("", "Secret")
SERVICE_ACCOUNT = GroupKind("", "ServiceAccount")
CLAIM = GroupKind("", "PersistentVolumeClaim")
VOLUME = GroupKind("", "PersistentVolume")
STORAGE_CLASS = GroupKind("storage.k8s.io", "StorageClass")
LIMIT_RANGE = GroupKind("", "LimitRange")
QUOTA = GroupKind("", "ResourceQuota")
DEPLOYMENT = GroupKind("apps", "Deployment")
REPLICA_SET = GroupKind("apps", "ReplicaSet")
STATEFUL_SET = GroupKind("apps", "StatefulSet")
DAEMON_SET = GroupKind("apps", "DaemonSet")
JOB = GroupKind("batch", "Job")
CRON_JOB = GroupKind("batch", "CronJob")

NODE_NAME = "knlocal"
"""The one node."""

QUEUE_PROXY = "queue-proxy"
QUEUE_PROXY_IMAGE = "knlocal.internal/queue-proxy"

STANDBY_COUNT = "knlocal.dev/standby-count"
"""On a Deployment: how many paused pods to keep (default 1)."""
STANDBY_OF = "knlocal.dev/standby-of"
"""Runtime label: uid of the Deployment whose standby the pod may become, or is."""
SPARE_FOR = "knlocal.dev/spare-for"
"""Runtime label: name of the Deployment for whose first pod it was started ahead."""
DRAIN = "knlocal.dev/drain"
"""On a pod: "false" skips the drain hooks before SIGTERM."""

SERVING_ROUTE = "serving.knative.dev/route"
SERVING_REVISION = "serving.knative.dev/revision"
TEMPLATE_HASH = "pod-template-hash"


def is_shown_only(container: Obj) -> bool:
    """True for Knative's queue-proxy, which is knlocal's own gateway: listed, never run."""
    image = str(container.get("image") or "")
    return container.get("name") == QUEUE_PROXY and image.startswith(QUEUE_PROXY_IMAGE)


def standby_of(deployment: Obj) -> str:
    """ "stop", "freeze", or "" for a Deployment that wants no standby."""
    wanted = annotations_of(deployment).get(STANDBY, "")
    return wanted if wanted in ("stop", "freeze") else ""
