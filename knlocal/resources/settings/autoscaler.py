"""config-autoscaler (knative.dev/serving/pkg/autoscaler/config)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from knlocal.resources.settings.parsing import (
    SettingsError,
    as_duration,
    read,
    setting,
    shown_duration,
    whole_seconds,
)

KPA = "kpa.autoscaling.knative.dev"
HPA = "hpa.autoscaling.knative.dev"

#: Bounds that annotations and the ConfigMap share (pkg/apis/autoscaling/register.go).
WINDOW_MIN = 6.0
WINDOW_MAX = 3600.0
TARGET_MIN = 0.01
PANIC_WINDOW_PERCENTAGE_MIN = 1.0
PANIC_WINDOW_PERCENTAGE_MAX = 100.0
PANIC_THRESHOLD_PERCENTAGE_MIN = 110.0
PANIC_THRESHOLD_PERCENTAGE_MAX = 1000.0


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """Durations are seconds; `container_concurrency_target_fraction` is a fraction, not percent."""

    container_concurrency_target_fraction: float = setting(
        "container-concurrency-target-percentage",
        0.7,
        "Share of the hard or default concurrency limit that the autoscaler aims for, in percent.",
        shown="70",
    )
    container_concurrency_target_default: float = setting(
        "container-concurrency-target-default", 100.0, "Target when containerConcurrency is 0."
    )
    requests_per_second_target_default: float = setting(
        "requests-per-second-target-default", 200.0, "Target for the metric rps."
    )
    target_burst_capacity: float = setting(
        "target-burst-capacity",
        211.0,
        "Burst in requests to keep room for; 0: activator only from zero, -1: always in the path.",
    )
    stable_window: float = setting(
        "stable-window", 60.0, "Window of the stable average.", parse=as_duration, shown="60s"
    )
    panic_window_percentage: float = setting(
        "panic-window-percentage", 10.0, "Panic window, in percent of the stable window."
    )
    panic_threshold_percentage: float = setting(
        "panic-threshold-percentage", 200.0, "Load, in percent of capacity, that starts panicking."
    )
    max_scale_up_rate: float = setting(
        "max-scale-up-rate", 1000.0, "Largest ratio of desired to existing pods in one step up."
    )
    max_scale_down_rate: float = setting(
        "max-scale-down-rate", 2.0, "Largest ratio of existing to desired pods in one step down."
    )
    enable_scale_to_zero: bool = setting("enable-scale-to-zero", True, "Whether to scale to zero.")
    scale_to_zero_grace_period: float = setting(
        "scale-to-zero-grace-period",
        30.0,
        "Upper bound of the wait for the network before the last pod goes.",
        parse=as_duration,
        shown="30s",
    )
    scale_to_zero_pod_retention_period: float = setting(
        "scale-to-zero-pod-retention-period",
        0.0,
        "Least time that the last pod is kept after the decision to scale to zero.",
        parse=as_duration,
        shown="0s",
    )
    pod_autoscaler_class: str = setting("pod-autoscaler-class", KPA, "Autoscaler class.")
    activator_capacity: float = setting(
        "activator-capacity", 100.0, "Concurrent requests that one activator is reckoned to hold."
    )
    initial_scale: int = setting("initial-scale", 1, "Pods of a new revision.")
    allow_zero_initial_scale: bool = setting(
        "allow-zero-initial-scale", False, "Whether initial-scale may be 0."
    )
    min_scale: int = setting("min-scale", 0, "min-scale of revisions that do not set one.")
    max_scale: int = setting("max-scale", 0, "max-scale of revisions that do not set one; 0: none.")
    max_scale_limit: int = setting("max-scale-limit", 0, "Largest max-scale allowed; 0: none.")
    scale_down_delay: float = setting(
        "scale-down-delay",
        0.0,
        "Time that load must stay low before pods go.",
        parse=as_duration,
        shown="0s",
    )

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> Autoscaler:
        try:
            found = read(cls, data)
        except SettingsError as error:
            raise SettingsError(f"failed to parse data: {error}") from None
        fraction = found.container_concurrency_target_fraction
        if fraction > 1.0:  # percent; small values are fractions, for old ConfigMaps' sake
            found = dataclasses.replace(found, container_concurrency_target_fraction=fraction / 100)
        for wrong in _wrongs(found):
            raise SettingsError(wrong)
        return found


def _wrongs(lc: Autoscaler) -> list[str]:
    text = shown_duration
    wrong = []
    if lc.scale_to_zero_grace_period <= 0:
        grace = text(lc.scale_to_zero_grace_period)
        wrong.append(f"scale-to-zero-grace-period must be positive, was: {grace}")
    if lc.scale_down_delay < 0:
        wrong.append(f"scale-down-delay cannot be negative, was: {text(lc.scale_down_delay)}")
    if not whole_seconds(lc.scale_down_delay):
        wrong.append(
            f"scale-down-delay = {text(lc.scale_down_delay)}, "
            "must be specified with at most second precision"
        )
    if lc.scale_to_zero_pod_retention_period < 0:
        retention = text(lc.scale_to_zero_pod_retention_period)
        wrong.append(f"scale-to-zero-pod-retention-period cannot be negative, was: {retention}")
    if lc.target_burst_capacity < 0 and lc.target_burst_capacity != -1:
        wrong.append(
            "target-burst-capacity must be either non-negative or -1 (for unlimited), "
            f"was: {lc.target_burst_capacity:f}"
        )
    fraction = lc.container_concurrency_target_fraction
    if not 0 < fraction <= 1:
        wrong.append(
            f"container-concurrency-target-percentage = {fraction:f} "
            "is outside of valid range of (0, 100]"
        )
    if (target := fraction * lc.container_concurrency_target_default) < TARGET_MIN:
        wrong.append(
            "container-concurrency-target-percentage and container-concurrency-target-default "
            f"yield target concurrency of {target:g}, can't be less than {TARGET_MIN}"
        )
    if lc.requests_per_second_target_default < TARGET_MIN:
        wrong.append(
            f"requests-per-second-target-default must be at least {TARGET_MIN}, "
            f"was: {lc.requests_per_second_target_default:g}"
        )
    if lc.activator_capacity < 1:
        wrong.append(f"activator-capacity = {lc.activator_capacity:g}, must be at least 1")
    if lc.max_scale_up_rate <= 1:
        wrong.append(f"max-scale-up-rate = {lc.max_scale_up_rate:g}, must be greater than 1.0")
    if lc.max_scale_down_rate <= 1:
        wrong.append(f"max-scale-down-rate = {lc.max_scale_down_rate:g}, must be greater than 1.0")
    if not WINDOW_MIN <= lc.stable_window <= WINDOW_MAX:
        wrong.append(
            f"stable-window = {text(lc.stable_window)}, "
            f"must be in [{text(WINDOW_MIN)}; {text(WINDOW_MAX)}] range"
        )
    if not whole_seconds(lc.stable_window):
        wrong.append(
            f"stable-window = {text(lc.stable_window)}, "
            "must be specified with at most second precision"
        )
    if not (
        PANIC_WINDOW_PERCENTAGE_MIN <= lc.panic_window_percentage <= PANIC_WINDOW_PERCENTAGE_MAX
    ):
        wrong.append(
            f"panic-window-percentage = {lc.panic_window_percentage:g}, "
            f"must be in [{PANIC_WINDOW_PERCENTAGE_MIN:g}, {PANIC_WINDOW_PERCENTAGE_MAX:g}] "
            "interval"
        )
    if lc.initial_scale < 0 or (lc.initial_scale == 0 and not lc.allow_zero_initial_scale):
        wrong.append(
            f"initial-scale = {lc.initial_scale}, must be at least 0 "
            "(or at least 1 when allow-zero-initial-scale is false)"
        )
    lowest = 1 if lc.max_scale_limit > 0 else 0
    if lc.max_scale < lowest or 0 < lc.max_scale_limit < lc.max_scale:
        wrong.append(
            f"max-scale = {lc.max_scale}, "
            f"must be in [{lowest}, max-scale-limit({lc.max_scale_limit})] range"
        )
    if lc.max_scale_limit < 0:
        wrong.append(f"max-scale-limit = {lc.max_scale_limit}, must be at least 0")
    if lc.min_scale < 0:
        wrong.append(f"min-scale = {lc.min_scale}, must be at least 0")
    if lc.max_scale > 0 and lc.min_scale > lc.max_scale:
        wrong.append(f"min-scale = {lc.min_scale}, must be at most max-scale = {lc.max_scale}")
    return wrong
