"""The kinds that Serving reads and writes, and the labels and annotations it speaks in."""

from __future__ import annotations

from knlocal.resources.base import GroupKind

SERVING = "serving.knative.dev"

SERVICE = GroupKind(SERVING, "Service")
CONFIGURATION = GroupKind(SERVING, "Configuration")
REVISION = GroupKind(SERVING, "Revision")
ROUTE = GroupKind(SERVING, "Route")
DOMAIN_MAPPING = GroupKind(SERVING, "DomainMapping")

POD_AUTOSCALER = GroupKind("autoscaling.internal.knative.dev", "PodAutoscaler")
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

SERVICE_LABEL = f"{SERVING}/service"
SERVICE_UID_LABEL = f"{SERVING}/serviceUID"
CONFIGURATION_LABEL = f"{SERVING}/configuration"
CONFIGURATION_GENERATION_LABEL = f"{SERVING}/configurationGeneration"
CONFIGURATION_UID_LABEL = f"{SERVING}/configurationUID"
REVISION_LABEL = f"{SERVING}/revision"
REVISION_UID_LABEL = f"{SERVING}/revisionUID"
ROUTE_LABEL = f"{SERVING}/route"
ROUTE_NAMESPACE_LABEL = f"{SERVING}/routeNamespace"
ROUTING_STATE_LABEL = f"{SERVING}/routingState"
DOMAIN_MAPPING_UID_LABEL = f"{SERVING}/domainMappingUID"
DOMAIN_MAPPING_NAMESPACE_LABEL = f"{SERVING}/domainMappingNamespace"
VISIBILITY_LABEL = "networking.knative.dev/visibility"
CLUSTER_LOCAL = "cluster-local"
SERVICE_TYPE_LABEL = "networking.internal.knative.dev/serviceType"
SERVERLESS_SERVICE_LABEL = "networking.internal.knative.dev/serverlessservice"

# -- annotations ----------------------------------------------------------------------------------

CREATOR = f"{SERVING}/creator"
LAST_MODIFIER = f"{SERVING}/lastModifier"
ROUTES = f"{SERVING}/routes"
ROUTING_STATE_MODIFIED = f"{SERVING}/routingStateModified"
LAST_PINNED = f"{SERVING}/lastPinned"
NO_GC = f"{SERVING}/no-gc"
ROLLOUT_DURATION = (f"{SERVING}/rollout-duration", f"{SERVING}/rolloutDuration")
PROGRESS_DEADLINE = (f"{SERVING}/progress-deadline", f"{SERVING}/progressDeadline")
ROLLOUT = "networking.internal.knative.dev/rollout"
INGRESS_CLASS = "networking.knative.dev/ingress-class"
HTTP_PROTOCOL = ("networking.knative.dev/http-protocol", "networking.knative.dev/httpProtocol")
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"

AUTOSCALING = "autoscaling.knative.dev"

# -- knlocal's own --------------------------------------------------------------------------------

STANDBY = "knlocal.dev/standby"
IDLE = "knlocal.dev/idle"
ROUTED_BY = "knlocal.dev/routed-by"

QUEUE_PROXY = "queue-proxy"
QUEUE_PROXY_IMAGE = "knlocal.internal/queue-proxy"
DEFAULT_USER_PORT = 8080
