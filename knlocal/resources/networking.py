"""networking.internal.knative.dev: what serving tells the network to do.

Models: knative.dev/networking/pkg/apis/networking/v1alpha1.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from knlocal.resources import schema
from knlocal.resources.base import Obj
from knlocal.resources.ducks import READY, REASON, Status
from knlocal.resources.kinds import AdmissionContext, Column, Kind
from knlocal.resources.schema import DATE_TIME, INT32, INT_OR_STRING, Ref

GROUP = "networking.internal.knative.dev"
VERSION = "v1alpha1"


# --- ServerlessService ---------------------------------------------------------------------------


class ServerlessServiceSpec(TypedDict, total=False):
    """Where a revision's requests go: to its pods, or to the activator."""

    mode: Annotated[Literal["Proxy", "Serve"], "Proxy: the activator; Serve: the pods."]
    objectRef: Annotated[dict[str, Any], Ref("io.k8s.api.core.v1.ObjectReference")]
    protocolType: Annotated[str, "http1 or h2c."]
    numActivators: Annotated[int, INT32, "How many activators share the load; 0: all."]


class ServerlessServiceStatus(Status, total=False):
    serviceName: Annotated[str, "The public Service."]
    privateServiceName: Annotated[str, "The Service that holds the pods alone."]


# --- Ingress -------------------------------------------------------------------------------------


class IngressBackend(TypedDict, total=False):
    serviceNamespace: str
    serviceName: str
    servicePort: Annotated[int | str, INT_OR_STRING]


class IngressBackendSplit(IngressBackend, total=False):
    percent: Annotated[int, "Share of the requests, 0 to 100."]
    appendHeaders: dict[str, str]


class HeaderMatch(TypedDict, total=False):
    exact: str


class HTTPIngressPath(TypedDict, total=False):
    path: str
    rewriteHost: str
    headers: dict[str, HeaderMatch]
    splits: list[IngressBackendSplit]
    appendHeaders: dict[str, str]


class HTTPIngressRuleValue(TypedDict, total=False):
    paths: list[HTTPIngressPath]


class IngressRule(TypedDict, total=False):
    hosts: list[str]
    visibility: Annotated[str, "ExternalIP or ClusterLocal."]
    http: HTTPIngressRuleValue


class IngressTLS(TypedDict, total=False):
    hosts: list[str]
    secretName: str
    secretNamespace: str


class IngressSpec(TypedDict, total=False):
    """Hosts and the services behind them."""

    tls: list[IngressTLS]
    rules: list[IngressRule]
    httpOption: Annotated[str, "Enabled or Redirected."]


class LoadBalancerIngressStatus(TypedDict, total=False):
    ip: str
    domain: str
    domainInternal: str
    meshOnly: bool


class LoadBalancerStatus(TypedDict, total=False):
    ingress: list[LoadBalancerIngressStatus]


class IngressStatus(Status, total=False):
    publicLoadBalancer: LoadBalancerStatus
    privateLoadBalancer: LoadBalancerStatus


# --- Certificate, ClusterDomainClaim -------------------------------------------------------------


class CertificateSpec(TypedDict, total=False):
    dnsNames: list[str]
    domain: str
    secretName: str


class HTTP01Challenge(TypedDict, total=False):
    url: str
    serviceName: str
    serviceNamespace: str
    servicePort: Annotated[int | str, INT_OR_STRING]


class CertificateStatus(Status, total=False):
    notAfter: Annotated[str, DATE_TIME]
    http01Challenges: list[HTTP01Challenge]


class ClusterDomainClaimSpec(TypedDict, total=False):
    """The namespace that may use the domain of this claim's name."""

    namespace: str


def _kind(kind: str, plural: str, short_names: tuple[str, ...], **further: Any) -> Kind:
    return Kind(
        group=GROUP,
        version=VERSION,
        kind=kind,
        plural=plural,
        short_names=short_names,
        categories=("knative-internal", "networking"),
        crd_labels={
            "app.kubernetes.io/name": "knative-serving",
            "app.kubernetes.io/component": "networking",
            "knative.dev/crd-install": "true",
        },
        **further,
    )


SERVERLESS_SERVICE = _kind(
    "ServerlessService",
    "serverlessservices",
    ("sks",),
    schema=schema.kind_schema(ServerlessServiceSpec, ServerlessServiceStatus),
    columns=(
        Column("Mode", ".spec.mode"),
        Column("Activators", ".spec.numActivators", type="integer"),
        Column("ServiceName", ".status.serviceName"),
        Column("PrivateServiceName", ".status.privateServiceName"),
        READY,
        REASON,
    ),
)


def _default_ingress(obj: Obj, context: AdmissionContext) -> None:
    """pkg/apis/networking/v1alpha1/ingress_defaults.go"""
    spec = obj.setdefault("spec", {})
    if not spec.get("httpOption"):
        spec["httpOption"] = "Enabled"
    for rule in spec.get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            splits = path.get("splits") or []
            if len(splits) == 1 and not splits[0].get("percent"):
                splits[0]["percent"] = 100


INGRESS = _kind(
    "Ingress",
    "ingresses",
    ("kingress", "king"),
    default=_default_ingress,
    schema=schema.kind_schema(IngressSpec, IngressStatus),
    columns=(READY, REASON),
)
CERTIFICATE = _kind(
    "Certificate",
    "certificates",
    ("kcert",),
    schema=schema.kind_schema(CertificateSpec, CertificateStatus),
    columns=(READY, REASON),
)
CLUSTER_DOMAIN_CLAIM = _kind(
    "ClusterDomainClaim",
    "clusterdomainclaims",
    ("cdc",),
    schema=schema.kind_schema(ClusterDomainClaimSpec),
    namespaced=False,
    has_status=False,
    columns=(Column("Namespace", ".spec.namespace"),),
)

KINDS: tuple[Kind, ...] = (SERVERLESS_SERVICE, INGRESS, CERTIFICATE, CLUSTER_DOMAIN_CLAIM)
