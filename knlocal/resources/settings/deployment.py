"""config-deployment (knative.dev/serving/pkg/deployment/config.go)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from knlocal.resources.settings.parsing import (
    SettingsError,
    as_choice,
    as_duration,
    as_quantity,
    as_string_set,
    as_yaml,
    read,
    setting,
    shown_duration,
    whole_seconds,
)

#: Nothing is pulled: the container of this name is knlocal's own gateway.
QUEUE_SIDECAR_IMAGE = "knlocal.dev/queue"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Durations are seconds, quantities canonical ("" when not set)."""

    queue_sidecar_image: str = setting(
        "queue-sidecar-image",
        QUEUE_SIDECAR_IMAGE,
        "Image named for the queue-proxy container.",
        legacy=("queueSidecarImage",),
    )
    registries_skipping_tag_resolving: frozenset[str] = setting(
        "registries-skipping-tag-resolving",
        frozenset({"kind.local", "ko.local", "dev.local"}),
        "Registries whose tags are not resolved to digests.",
        parse=as_string_set,
        legacy=("registriesSkippingTagResolving",),
    )
    digest_resolution_timeout: float = setting(
        "digest-resolution-timeout",
        10.0,
        "Longest wait for an image's digest.",
        parse=as_duration,
        shown="10s",
        legacy=("digestResolutionTimeout",),
    )
    progress_deadline: float = setting(
        "progress-deadline",
        600.0,
        "Time that a deployment has to become ready.",
        parse=as_duration,
        shown="600s",
        legacy=("progressDeadline",),
    )
    queue_sidecar_cpu_request: str = setting(
        "queue-sidecar-cpu-request",
        "25m",
        "CPU request of queue-proxy.",
        parse=as_quantity,
        legacy=("queueSidecarCPURequest",),
    )
    queue_sidecar_cpu_limit: str = setting(
        "queue-sidecar-cpu-limit",
        "",
        "CPU limit of queue-proxy.",
        parse=as_quantity,
        legacy=("queueSidecarCPULimit",),
    )
    queue_sidecar_memory_request: str = setting(
        "queue-sidecar-memory-request",
        "",
        "Memory request of queue-proxy.",
        parse=as_quantity,
        legacy=("queueSidecarMemoryRequest",),
    )
    queue_sidecar_memory_limit: str = setting(
        "queue-sidecar-memory-limit",
        "",
        "Memory limit of queue-proxy.",
        parse=as_quantity,
        legacy=("queueSidecarMemoryLimit",),
    )
    queue_sidecar_ephemeral_storage_request: str = setting(
        "queue-sidecar-ephemeral-storage-request",
        "",
        "Ephemeral storage request of queue-proxy.",
        parse=as_quantity,
        legacy=("queueSidecarEphemeralStorageRequest",),
    )
    queue_sidecar_ephemeral_storage_limit: str = setting(
        "queue-sidecar-ephemeral-storage-limit",
        "",
        "Ephemeral storage limit of queue-proxy.",
        parse=as_quantity,
        legacy=("queueSidecarEphemeralStorageLimit",),
    )
    queue_sidecar_token_audiences: frozenset[str] = setting(
        "queue-sidecar-token-audiences",
        frozenset(),
        "Audiences of tokens that queue-proxy gets.",
        parse=as_string_set,
        legacy=("queue-sidecar-tokens",),
    )
    queue_sidecar_rootca: str = setting(
        "queue-sidecar-rootca", "", "Root certificates that queue-proxy trusts, PEM."
    )
    default_affinity_type: str = setting(
        "default-affinity-type",
        "prefer-spread-revision-over-nodes",
        'Affinity of pods that set none: "prefer-spread-revision-over-nodes" or "none".',
        parse=as_choice("prefer-spread-revision-over-nodes", "none"),
    )
    runtime_class_name: object = setting(
        "runtime-class-name",
        None,
        "Runtime classes by label selector, YAML.",
        parse=as_yaml,
    )
    pod_is_always_schedulable: bool = setting(
        "pod-is-always-schedulable",
        False,
        "Whether a pod that cannot be scheduled yet is waited for.",
    )

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> Deployment:
        found = read(cls, data)
        if not found.queue_sidecar_image:
            raise SettingsError("queue-sidecar-image cannot be empty or unset")
        for key, value in (
            ("progress-deadline", found.progress_deadline),
            ("digest-resolution-timeout", found.digest_resolution_timeout),
        ):
            if value <= 0:
                raise SettingsError(
                    f"{key} cannot be a non-positive duration, was {shown_duration(value)}"
                )
        if not whole_seconds(found.progress_deadline):
            deadline = shown_duration(found.progress_deadline)
            raise SettingsError(
                f"progress-deadline must be rounded to a whole second, was: {deadline}"
            )
        return found
