"""Labels and annotations of Knative Serving, and how annotations with two spellings are read.

Sources: knative.dev/serving pkg/apis/serving/register.go and pkg/apis/autoscaling/register.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

GROUP = "serving.knative.dev"
WEBHOOK = "validation.webhook.serving.knative.dev"
AUTOSCALING_GROUP = "autoscaling.knative.dev"

CONFIGURATION_LABEL = f"{GROUP}/configuration"
CONFIGURATION_GENERATION_LABEL = f"{GROUP}/configurationGeneration"
CONFIGURATION_UID_LABEL = f"{GROUP}/configurationUID"
SERVICE_LABEL = f"{GROUP}/service"
SERVICE_UID_LABEL = f"{GROUP}/serviceUID"
REVISION_LABEL = f"{GROUP}/revision"
REVISION_UID_LABEL = f"{GROUP}/revisionUID"
ROUTE_LABEL = f"{GROUP}/route"
ROUTING_STATE_LABEL = f"{GROUP}/routingState"
VISIBILITY_LABEL = "networking.knative.dev/visibility"
VISIBILITY_CLUSTER_LOCAL = "cluster-local"

CREATOR_ANNOTATION = f"{GROUP}/creator"
LAST_MODIFIER_ANNOTATION = f"{GROUP}/lastModifier"
ROUTES_ANNOTATION = f"{GROUP}/routes"
ROUTING_STATE_MODIFIED_ANNOTATION = f"{GROUP}/routingStateModified"
NO_GC_ANNOTATION = f"{GROUP}/no-gc"
DRY_RUN_ANNOTATION = "features.knative.dev/podspec-dryrun"


class AnnotationKey(NamedTuple):
    """The spellings of one annotation, the preferred one first."""

    spellings: tuple[str, ...]

    @property
    def key(self) -> str:
        return self.spellings[0]

    def find(self, annotations: Mapping[str, str]) -> tuple[str, str] | None:
        """(the spelling used, its value), or None."""
        for key in self.spellings:
            if key in annotations:
                return key, annotations[key]
        return None

    def value(self, annotations: Mapping[str, str]) -> str | None:
        found = self.find(annotations)
        return None if found is None else found[1]


def _annotation(group: str, name: str, alternative: bool = True) -> AnnotationKey:
    first, *others = name.split("-")
    camel = first + "".join(part.capitalize() for part in others)
    spellings = dict.fromkeys((name, camel) if alternative else (name,))
    return AnnotationKey(tuple(f"{group}/{spelling}" for spelling in spellings))


CLASS = _annotation(AUTOSCALING_GROUP, "class")
METRIC = _annotation(AUTOSCALING_GROUP, "metric")
TARGET = _annotation(AUTOSCALING_GROUP, "target")
WINDOW = _annotation(AUTOSCALING_GROUP, "window")
MIN_SCALE = _annotation(AUTOSCALING_GROUP, "min-scale")
MAX_SCALE = _annotation(AUTOSCALING_GROUP, "max-scale")
INITIAL_SCALE = _annotation(AUTOSCALING_GROUP, "initial-scale")
ACTIVATION_SCALE = _annotation(AUTOSCALING_GROUP, "activation-scale")
SCALE_DOWN_DELAY = _annotation(AUTOSCALING_GROUP, "scale-down-delay")
SCALE_TO_ZERO_POD_RETENTION_PERIOD = _annotation(
    AUTOSCALING_GROUP, "scale-to-zero-pod-retention-period"
)
TARGET_UTILIZATION_PERCENTAGE = _annotation(AUTOSCALING_GROUP, "target-utilization-percentage")
TARGET_BURST_CAPACITY = _annotation(AUTOSCALING_GROUP, "target-burst-capacity")
PANIC_WINDOW_PERCENTAGE = _annotation(AUTOSCALING_GROUP, "panic-window-percentage")
PANIC_THRESHOLD_PERCENTAGE = _annotation(AUTOSCALING_GROUP, "panic-threshold-percentage")
METRIC_AGGREGATION_ALGORITHM = _annotation(AUTOSCALING_GROUP, "metric-aggregation-algorithm")

ROLLOUT_DURATION = _annotation(GROUP, "rollout-duration")
PROGRESS_DEADLINE = _annotation(GROUP, "progress-deadline")

_QUEUE = "queue.sidecar.serving.knative.dev"
QUEUE_RESOURCE_PERCENTAGE = _annotation(_QUEUE, "resource-percentage")
QUEUE_RESOURCES: dict[tuple[str, str], AnnotationKey] = {
    (resource, what): _annotation(_QUEUE, f"{resource}-resource-{what}", alternative=False)
    for resource in ("cpu", "memory", "ephemeral-storage")
    for what in ("request", "limit")
}
