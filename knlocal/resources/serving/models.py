"""The typed models of serving.knative.dev: every field of the v1 API, and DomainMapping v1beta1.

Spec: Knative Serving API Specification 1.0 ("Detailed Resources – v1").
"""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from knlocal.resources import schema
from knlocal.resources.ducks import Addressable, KReference, Status
from knlocal.resources.schema import INT32, INT64, Ref

_CORE = "io.k8s.api.core.v1."
ObjectMeta = Annotated[dict[str, Any], Ref(schema.OBJECT_META)]
Container = Annotated[dict[str, Any], Ref(_CORE + "Container")]
Volume = Annotated[dict[str, Any], Ref(_CORE + "Volume")]
LocalObjectReference = Annotated[dict[str, Any], Ref(_CORE + "LocalObjectReference")]
_Int = Annotated[int, INT64]


class RevisionSpec(TypedDict, total=False):
    """What each instance of a revision runs: a pod spec, less what would stand in the way of
    scaling, and the limits for requests."""

    containerConcurrency: Annotated[
        int, INT64, "Concurrent requests that one instance may be given; 0: no limit."
    ]
    timeoutSeconds: Annotated[
        int, INT64, "Longest duration of a request, from its arrival to the end of the response."
    ]
    responseStartTimeoutSeconds: Annotated[
        int, INT64, "Longest wait for the first byte of the response."
    ]
    idleTimeoutSeconds: Annotated[int, INT64, "Longest pause between bytes of the response."]

    containers: list[Container]
    initContainers: list[Container]
    volumes: list[Volume]
    serviceAccountName: str
    imagePullSecrets: list[LocalObjectReference]
    enableServiceLinks: bool
    automountServiceAccountToken: bool

    # Behind feature flags (config-features).
    affinity: Annotated[dict[str, Any], Ref(_CORE + "Affinity")]
    dnsConfig: Annotated[dict[str, Any], Ref(_CORE + "PodDNSConfig")]
    dnsPolicy: str
    hostAliases: list[Annotated[dict[str, Any], Ref(_CORE + "HostAlias")]]
    hostIPC: bool
    hostNetwork: bool
    hostPID: bool
    nodeSelector: dict[str, str]
    priorityClassName: str
    runtimeClassName: str
    schedulerName: str
    securityContext: Annotated[dict[str, Any], Ref(_CORE + "PodSecurityContext")]
    shareProcessNamespace: bool
    tolerations: list[Annotated[dict[str, Any], Ref(_CORE + "Toleration")]]
    topologySpreadConstraints: list[
        Annotated[dict[str, Any], Ref(_CORE + "TopologySpreadConstraint")]
    ]

    # Never allowed; known, so that the refusal names them.
    activeDeadlineSeconds: _Int
    hostUsers: bool
    hostname: str
    nodeName: str
    os: Annotated[dict[str, Any], Ref(_CORE + "PodOS")]
    overhead: dict[str, Any]
    preemptionPolicy: str
    priority: Annotated[int, INT32]
    readinessGates: list[Annotated[dict[str, Any], Ref(_CORE + "PodReadinessGate")]]
    restartPolicy: str
    serviceAccount: str
    setHostnameAsFQDN: bool
    subdomain: str
    terminationGracePeriodSeconds: _Int


class RevisionTemplateSpec(TypedDict, total=False):
    """The next revision: its metadata and spec."""

    metadata: ObjectMeta
    spec: RevisionSpec


class ContainerStatus(TypedDict, total=False):
    """A container and the digest that its image was resolved to."""

    name: str
    imageDigest: str


class RevisionStatus(Status, total=False):
    serviceName: str
    logUrl: str
    containerStatuses: list[ContainerStatus]
    initContainerStatuses: list[ContainerStatus]
    actualReplicas: Annotated[int, INT32]
    desiredReplicas: Annotated[int, INT32]


class ConfigurationSpec(TypedDict, total=False):
    template: RevisionTemplateSpec


class ConfigurationStatus(Status, total=False):
    latestReadyRevisionName: str
    latestCreatedRevisionName: str


class TrafficTarget(TypedDict, total=False):
    """A share of the traffic, and the revision (or configuration) that gets it."""

    tag: Annotated[str, "Name of a host that reaches just this target."]
    revisionName: Annotated[str, "The revision; mutually exclusive with configurationName."]
    configurationName: Annotated[str, "The configuration whose latest ready revision is meant."]
    latestRevision: Annotated[bool, "Whether the latest ready revision is meant."]
    percent: Annotated[int, INT64, "Share of the requests, 0 to 100; all shares sum to 100."]
    url: Annotated[str, "Where the tag is reachable (only in status)."]


class RouteSpec(TypedDict, total=False):
    traffic: list[TrafficTarget]


class RouteStatusFields(TypedDict, total=False):
    url: Annotated[str, "Where the route is reachable."]
    address: Addressable
    traffic: list[TrafficTarget]


class RouteStatus(Status, RouteStatusFields, total=False):
    pass


class ServiceSpec(ConfigurationSpec, RouteSpec, total=False):
    """A configuration and a route in one."""


class ServiceStatus(ConfigurationStatus, RouteStatusFields, total=False):
    pass


class SecretTLS(TypedDict, total=False):
    secretName: Annotated[str, "A secret of type kubernetes.io/tls for this domain."]


class DomainMappingSpec(TypedDict, total=False):
    ref: KReference
    tls: SecretTLS


class DomainMappingStatus(Status, total=False):
    url: str
    address: Addressable
