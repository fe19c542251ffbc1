"""autoscaling.internal.knative.dev and caching.internal.knative.dev: what serving keeps for itself.

Models: knative.dev/serving/pkg/apis/autoscaling/v1alpha1, knative.dev/caching/pkg/apis/caching.
"""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from knlocal.resources import schema
from knlocal.resources.ducks import READY, REASON, Status
from knlocal.resources.kinds import Column, Kind
from knlocal.resources.schema import DOUBLE, INT32, INT64, Ref

GROUP = "autoscaling.internal.knative.dev"
CACHING_GROUP = "caching.internal.knative.dev"
VERSION = "v1alpha1"

_LABELS = {"app.kubernetes.io/name": "knative-serving", "knative.dev/crd-install": "true"}


class PodAutoscalerSpec(TypedDict, total=False):
    """What is scaled, and whether anything can reach it."""

    scaleTargetRef: Annotated[dict[str, Any], Ref("io.k8s.api.core.v1.ObjectReference")]
    reachability: Annotated[str, "Reachable, Unreachable or empty (unknown)."]
    containerConcurrency: Annotated[int, INT64]
    protocolType: str


class PodAutoscalerStatus(Status, total=False):
    serviceName: str
    metricsServiceName: str
    desiredScale: Annotated[int, INT32]
    actualScale: Annotated[int, INT32]


class MetricSpec(TypedDict, total=False):
    """Durations are nanoseconds, as Go writes them."""

    stableWindow: Annotated[int, INT64]
    panicWindow: Annotated[int, INT64]
    scrapeTarget: str


class MetricStatus(Status, total=False):
    concurrency: Annotated[float, DOUBLE]


class ImageSpec(TypedDict, total=False):
    """An image that nodes would do well to have at hand."""

    image: str
    serviceAccountName: str
    imagePullSecrets: list[
        Annotated[dict[str, Any], Ref("io.k8s.api.core.v1.LocalObjectReference")]
    ]


POD_AUTOSCALER = Kind(
    group=GROUP,
    version=VERSION,
    kind="PodAutoscaler",
    plural="podautoscalers",
    schema=schema.kind_schema(PodAutoscalerSpec, PodAutoscalerStatus),
    short_names=("kpa", "pa"),
    categories=("knative-internal", "autoscaling"),
    columns=(
        Column("DesiredScale", ".status.desiredScale", type="integer"),
        Column("ActualScale", ".status.actualScale", type="integer"),
        READY,
        REASON,
    ),
    crd_labels=_LABELS,
)
METRIC = Kind(
    group=GROUP,
    version=VERSION,
    kind="Metric",
    plural="metrics",
    schema=schema.kind_schema(MetricSpec, MetricStatus),
    categories=("knative-internal", "autoscaling"),
    columns=(READY, REASON),
    crd_labels=_LABELS,
)
IMAGE = Kind(
    group=CACHING_GROUP,
    version=VERSION,
    kind="Image",
    plural="images",
    schema=schema.kind_schema(ImageSpec, Status),
    categories=("knative-internal", "caching"),
    columns=(Column("Image", ".spec.image"),),
    crd_labels=_LABELS,
)

KINDS: tuple[Kind, ...] = (POD_AUTOSCALER, METRIC, IMAGE)
