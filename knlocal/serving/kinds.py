"""The kinds that Serving reads and writes, and the labels and annotations it speaks in."""

from __future__ import annotations

from knlocal.resources.base import GroupKind
from knlocal.resources.serving import keys

SERVING = keys.GROUP
AUTOSCALING = keys.AUTOSCALING_GROUP

SERVICE = GroupKind(SERVING, "Service")
CONFIGURATION = GroupKind(SERVING, "Configuration")
REVISION = GroupKind(SERVING, "Revision")
ROUTE = GroupKind(SERVING, "Route")
DOMAIN_MAPPING = GroupKind(SERVING, "DomainMapping")

POD_AUTOSCALER = GroupKind("autoscaling.internal.knative.dev", "PodAutoscaler")
METRIC = GroupKind("autoscaling.internal.knative.dev", "Metric")
HORIZONTAL_POD_AUTOSCALER = GroupKind("autoscaling", "HorizontalPodAutoscaler")
SERVERLESS_SERVICE = GroupKind("networking.internal.knative.dev", "ServerlessService")
INGRESS = GroupKind("networking.internal.knative.dev", "Ingress")
CLUSTER_DOMAIN_CLAIM = GroupKind("networking.internal.knative.dev", "ClusterDomainClaim")
IMAGE = GroupKind("caching.internal.knative.dev", "Image")

DEPLOYMENT = GroupKind("apps", "Deployment")
POD = GroupKind("", "Pod")
K8S_SERVICE = GroupKind("", "Service")
CONFIG_MAP = GroupKind("", "ConfigMap")
SECRET = GroupKind("", "Secret")
SERVICE_ACCOUNT = GroupKind("", "ServiceAccount")
ENDPOINTS = GroupKind("", "Endpoints")
ENDPOINT_SLICE = GroupKind("discovery.k8s.io", "EndpointSlice")

SYSTEM_NAMESPACE = "knative-serving"

# -- labels (knative.dev/serving/pkg/apis/serving/register.go) ------------------------------------

SERVICE_LABEL = keys.SERVICE_LABEL
SERVICE_UID_LABEL = keys.SERVICE_UID_LABEL
CONFIGURATION_LABEL = keys.CONFIGURATION_LABEL
CONFIGURATION_GENERATION_LABEL = keys.CONFIGURATION_GENERATION_LABEL
CONFIGURATION_UID_LABEL = keys.CONFIGURATION_UID_LABEL
REVISION_LABEL = keys.REVISION_LABEL
REVISION_UID_LABEL = keys.REVISION_UID_LABEL
ROUTE_LABEL = keys.ROUTE_LABEL
ROUTING_STATE_LABEL = keys.ROUTING_STATE_LABEL
VISIBILITY_LABEL = keys.VISIBILITY_LABEL
CLUSTER_LOCAL = keys.VISIBILITY_CLUSTER_LOCAL
ROUTE_NAMESPACE_LABEL = f"{SERVING}/routeNamespace"
DOMAIN_MAPPING_UID_LABEL = f"{SERVING}/domainMappingUID"
DOMAIN_MAPPING_NAMESPACE_LABEL = f"{SERVING}/domainMappingNamespace"
SERVICE_TYPE_LABEL = "networking.internal.knative.dev/serviceType"
SERVERLESS_SERVICE_LABEL = "networking.internal.knative.dev/serverlessservice"

# -- annotations ----------------------------------------------------------------------------------

CREATOR = keys.CREATOR_ANNOTATION
LAST_MODIFIER = keys.LAST_MODIFIER_ANNOTATION
ROUTES = keys.ROUTES_ANNOTATION
ROUTING_STATE_MODIFIED = keys.ROUTING_STATE_MODIFIED_ANNOTATION
NO_GC = keys.NO_GC_ANNOTATION
ROLLOUT_DURATION = keys.ROLLOUT_DURATION
PROGRESS_DEADLINE = keys.PROGRESS_DEADLINE
LAST_PINNED = f"{SERVING}/lastPinned"
ROLLOUT = "networking.internal.knative.dev/rollout"
INGRESS_CLASS = "networking.knative.dev/ingress-class"
INGRESS_CLASS_BEFORE = "networking.knative.dev/ingress.class"
HTTP_PROTOCOL = ("networking.knative.dev/http-protocol", "networking.knative.dev/httpProtocol")
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"

# -- headers (knative.dev/networking/pkg/http/header) ---------------------------------------------

TAG_HEADER = "Knative-Serving-Tag"
DEFAULT_ROUTE_HEADER = "Knative-Serving-Default-Route"

# -- knlocal's own --------------------------------------------------------------------------------


QUEUE_PROXY = "queue-proxy"
QUEUE_PROXY_IMAGE = "knlocal.internal/queue-proxy"
DEFAULT_USER_PORT = 8080
