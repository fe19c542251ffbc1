"""The autoscaler's decision, pure: what was measured goes in, how many pods to have comes out.

Mirrors knative.dev/serving/pkg/autoscaler/scaling/autoscaler.go and kpa/resources/target.go
(behaviours D4 to D13).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from knlocal.resources import duration
from knlocal.resources.serving import keys
from knlocal.resources.serving.keys import AnnotationKey
from knlocal.resources.settings import Autoscaler
from knlocal.serving.autoscaling.windows import MaxWindow

Metric = Literal["concurrency", "rps"]


@dataclass(frozen=True, slots=True)
class DeciderSpec:
    """The settings of one revision's decisions."""

    metric: Metric
    target: float
    """Per pod, after utilization."""
    total: float
    """Per pod, before utilization."""
    target_burst_capacity: float
    stable_window: float
    panic_window: float
    """Seconds."""
    panic_threshold: float
    """A ratio: 2.0 for 200 %."""
    max_scale_up_rate: float
    max_scale_down_rate: float
    activation_scale: int
    scale_down_delay: float
    reachable: bool
    activator_capacity: float
    aggregation: str = "linear"

    @classmethod
    def of(
        cls,
        annotations: Mapping[str, str],
        container_concurrency: int,
        defaults: Autoscaler,
        *,
        reachable: bool,
    ) -> DeciderSpec:
        """The spec for a PodAutoscaler's annotations (already validated; nonsense is ignored)."""
        metric: Metric = "rps" if keys.METRIC.value(annotations) == "rps" else "concurrency"
        target, total = _target(annotations, container_concurrency, metric, defaults)
        window = seconds_annotation(annotations, keys.WINDOW, defaults.stable_window)
        panic_share = _number(
            annotations, keys.PANIC_WINDOW_PERCENTAGE, defaults.panic_window_percentage
        )
        threshold = _number(
            annotations, keys.PANIC_THRESHOLD_PERCENTAGE, defaults.panic_threshold_percentage
        )
        return cls(
            metric=metric,
            target=target,
            total=total,
            target_burst_capacity=_number(
                annotations, keys.TARGET_BURST_CAPACITY, defaults.target_burst_capacity
            ),
            stable_window=window,
            panic_window=max(1.0, math.floor(window * panic_share / 100 + 0.5)),
            panic_threshold=threshold / 100,
            max_scale_up_rate=defaults.max_scale_up_rate,
            max_scale_down_rate=defaults.max_scale_down_rate,
            activation_scale=int(_number(annotations, keys.ACTIVATION_SCALE, 1)),
            scale_down_delay=seconds_annotation(
                annotations, keys.SCALE_DOWN_DELAY, defaults.scale_down_delay
            ),
            reachable=reachable,
            activator_capacity=defaults.activator_capacity,
            aggregation=keys.METRIC_AGGREGATION_ALGORITHM.value(annotations) or "linear",
        )


class Observation(NamedTuple):
    """What was measured, averaged over the two windows, and how many pods are ready."""

    stable: float
    panic: float
    ready_pods: int


class Decision(NamedTuple):
    desired: int
    excess_burst_capacity: int
    """Negative: pods alone cannot take the burst, so the activator stays in the path."""
    panicking: bool = False


class Decider:
    """Decides for one revision; remembers panic and delayed scale-downs between calls."""

    def __init__(self, spec: DeciderSpec, ready_pods: int = 0, now: float = 0.0) -> None:
        # Starting with several pods means a restart: hold them until the windows have filled.
        self._panic_since: float | None = now if ready_pods > 1 else None
        self._panic_pods = ready_pods
        self._delay: MaxWindow | None = None
        self.spec = spec

    @property
    def spec(self) -> DeciderSpec:
        return self._spec

    @spec.setter
    def spec(self, spec: DeciderSpec) -> None:
        self._spec = spec
        if spec.scale_down_delay <= 0:
            self._delay = None
        elif self._delay is None:
            self._delay = MaxWindow(spec.scale_down_delay)
        else:
            self._delay.seconds = spec.scale_down_delay

    @property
    def panicking(self) -> bool:
        return self._panic_since is not None

    def decide(self, seen: Observation, now: float) -> Decision:
        """How many pods there shall be at `now` (monotonic seconds)."""
        spec = self._spec
        ready = max(1, seen.ready_pods)
        stable, panic = self._wanted(seen.stable, ready), self._wanted(seen.panic, ready)
        self._panic(math.ceil(seen.panic / spec.target) / ready >= spec.panic_threshold, now)
        desired = stable
        if self._panic_since is not None:
            self._panic_pods = max(self._panic_pods, stable, panic)
            desired = self._panic_pods
        if self._delay is not None:
            highest = self._delay.record(now, desired)
            desired = highest if spec.reachable else desired
        return Decision(desired, self._excess_burst_capacity(seen), self.panicking)

    def _wanted(self, value: float, ready: int) -> int:
        """Pods for `value` requests, within the rates of change."""
        spec = self._spec
        demand = math.ceil(value / spec.target)
        most = math.ceil(spec.max_scale_up_rate * ready)
        least = math.floor(ready / spec.max_scale_down_rate) if spec.reachable else 0
        wanted = min(max(demand, least), most)
        if spec.activation_scale > 1 and demand > 0:
            wanted = max(wanted, spec.activation_scale)
        return wanted

    def _panic(self, over_threshold: bool, now: float) -> None:
        if over_threshold:
            self._panic_since = now
        elif self._panic_since is not None and self._panic_since + self._spec.stable_window < now:
            self._panic_since = None
            self._panic_pods = 0

    def expected_excess(self, initial_scale: int) -> int:
        """The excess burst capacity as it is expected before anything was measured (serving
        pkg/autoscaler/scaling/multiscaler.go createScaler)."""
        return self._excess_burst_capacity(Observation(0.0, 0.0, initial_scale))

    def _excess_burst_capacity(self, seen: Observation) -> int:
        burst = self._spec.target_burst_capacity
        if burst == 0:
            return 0
        if burst < 0:
            return -1
        return math.floor(seen.ready_pods * self._spec.total - burst - seen.panic)


def activator_count(ready_pods: int, spec: DeciderSpec) -> int:
    """How many activators a ServerlessService asks for (behaviour D24)."""
    if spec.target_burst_capacity == 0:
        return 2
    cover = ready_pods * spec.total + max(0.0, spec.target_burst_capacity)
    return max(2, math.ceil(cover / spec.activator_capacity))


def _target(
    annotations: Mapping[str, str],
    container_concurrency: int,
    metric: Metric,
    defaults: Autoscaler,
) -> tuple[float, float]:
    share = _number(annotations, keys.TARGET_UTILIZATION_PERCENTAGE, -1.0) / 100
    if share <= 0:
        share = defaults.container_concurrency_target_fraction
    if metric == "rps":
        total = _number(annotations, keys.TARGET, defaults.requests_per_second_target_default)
    else:
        total = container_concurrency or defaults.container_concurrency_target_default
        asked = _number(annotations, keys.TARGET, 0.0)
        if asked:
            total = min(asked, container_concurrency) if container_concurrency else asked
    return max(0.01, total * share), total


# -- annotations ----------------------------------------------------------------------------------


def _number(annotations: Mapping[str, str], key: AnnotationKey, default: float) -> float:
    try:
        return float(key.value(annotations) or default)
    except ValueError:
        return default


def seconds_annotation(annotations: Mapping[str, str], key: AnnotationKey, default: float) -> float:
    """A duration annotation in seconds, or `default`."""
    text = key.value(annotations)
    try:
        return duration.parse(text) if text else default
    except ValueError:
        return default


def whole_number(annotations: Mapping[str, str], key: AnnotationKey) -> int | None:
    """An integer annotation, or None when it is not there (or not a number)."""
    try:
        return int(key.value(annotations) or "")
    except ValueError:
        return None
