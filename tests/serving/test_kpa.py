"""The autoscaler's decisions, by table (knative.dev/serving/pkg/autoscaler/scaling)."""

from dataclasses import replace

import pytest

from knlocal.resources.settings import Autoscaler
from knlocal.serving.autoscaling.kpa import (
    Decider,
    DeciderSpec,
    Observation,
    activator_count,
)

SPEC = DeciderSpec(
    metric="concurrency",
    target=10.0,
    total=20.0,
    target_burst_capacity=0.0,
    stable_window=60.0,
    panic_window=6.0,
    panic_threshold=2.0,
    max_scale_up_rate=10.0,
    max_scale_down_rate=2.0,
    activation_scale=1,
    scale_down_delay=0.0,
    reachable=True,
    activator_capacity=100.0,
)


def desired(seen: Observation, **changes: object) -> int:
    return Decider(replace(SPEC, **changes)).decide(seen, 0.0).desired  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "pods"),
    [
        (Observation(0, 0, 0), 0),
        (Observation(0.01, 0.01, 0), 1),
        (Observation(10, 10, 1), 1),
        (Observation(10.1, 10.1, 1), 2),
        (Observation(100, 100, 10), 10),
        (Observation(1000, 1000, 1), 10),  # no faster than max-scale-up-rate
        (Observation(0, 0, 10), 5),  # nor down faster than max-scale-down-rate
        (Observation(10, 0, 10), 5),
        (Observation(0, 0, 1), 0),
    ],
)
def test_pods_follow_demand_within_the_rates(seen: Observation, pods: int) -> None:
    assert desired(seen) == pods


def test_an_unreachable_revision_goes_down_at_once() -> None:
    assert desired(Observation(0, 0, 10), reachable=False) == 0


@pytest.mark.parametrize(
    ("seen", "pods"),
    [(Observation(0, 0, 0), 0), (Observation(1, 1, 0), 3), (Observation(50, 50, 1), 5)],
)
def test_activation_scale_is_the_least_that_is_activated(seen: Observation, pods: int) -> None:
    assert desired(seen, activation_scale=3) == pods


def test_panic_begins_at_the_threshold_and_never_scales_down() -> None:
    decider = Decider(SPEC)
    assert not decider.decide(Observation(10, 10, 1), 0).panicking
    assert decider.decide(Observation(10, 11, 1), 0).panicking  # 2 pods wanted, 1 there: 200 %
    decider = Decider(SPEC)
    decision = decider.decide(Observation(10, 21, 1), 0)
    assert (decision.panicking, decision.desired) == (True, 3)
    decision = decider.decide(Observation(10, 1, 3), 2)
    assert (decision.panicking, decision.desired) == (True, 3)
    assert decider.decide(Observation(10, 80, 3), 4).desired == 8


def test_panic_ends_a_stable_window_after_the_last_surge() -> None:
    decider = Decider(SPEC)
    decider.decide(Observation(10, 40, 1), 0)
    assert decider.decide(Observation(10, 40, 1), 30).panicking  # renewed
    assert decider.decide(Observation(10, 10, 4), 90).panicking
    decision = decider.decide(Observation(10, 10, 4), 91)
    assert (decision.panicking, decision.desired) == (False, 2)


def test_in_panic_the_larger_of_both_averages_counts() -> None:
    assert desired(Observation(50, 21, 1)) == 5


def test_after_a_restart_several_pods_are_kept_for_a_window() -> None:
    decider = Decider(SPEC, ready_pods=5, now=0)
    assert decider.decide(Observation(0, 0, 5), 2).desired == 5
    assert decider.decide(Observation(0, 0, 5), 61).desired == 2


def test_scale_down_is_delayed_and_scale_up_is_not() -> None:
    decider = Decider(replace(SPEC, scale_down_delay=10.0))
    assert decider.decide(Observation(50, 10, 5), 0).desired == 5
    assert decider.decide(Observation(10, 10, 5), 2).desired == 5
    assert decider.decide(Observation(60, 10, 5), 4).desired == 6
    assert decider.decide(Observation(10, 10, 5), 12).desired == 6
    assert decider.decide(Observation(10, 10, 5), 15).desired == 2


@pytest.mark.parametrize(
    ("burst", "seen", "excess"),
    [
        (0, Observation(0, 500, 1), 0),
        (-1, Observation(0, 0, 9), -1),
        (50, Observation(0, 5, 3), 5),
        (50, Observation(0, 5.5, 3), 4),
        (50, Observation(0, 0, 0), -50),
    ],
)
def test_excess_burst_capacity(burst: float, seen: Observation, excess: int) -> None:
    spec = replace(SPEC, target_burst_capacity=burst)
    assert Decider(spec).decide(seen, 0).excess_burst_capacity == excess


@pytest.mark.parametrize(
    ("burst", "ready", "activators"), [(0, 100, 2), (-1, 100, 20), (211, 1, 3), (200, 5, 3)]
)
def test_activators_cover_capacity_and_burst(burst: float, ready: int, activators: int) -> None:
    assert activator_count(ready, replace(SPEC, target_burst_capacity=burst)) == activators


def annotated(container_concurrency: int = 0, **annotations: str) -> DeciderSpec:
    prefixed = {
        f"autoscaling.knative.dev/{name.replace('_', '-')}": value
        for name, value in annotations.items()
    }
    return DeciderSpec.of(prefixed, container_concurrency, Autoscaler(), reachable=True)


@pytest.mark.parametrize(
    ("concurrency", "annotations", "target", "total"),
    [
        (0, {}, 70, 100),
        (10, {}, 7, 10),
        (0, {"target": "50"}, 35, 50),
        (10, {"target": "50"}, 7, 10),
        (10, {"target": "5"}, 3.5, 5),
        (0, {"target": "1", "target_utilization_percentage": "100"}, 1, 1),
        (0, {"target_utilization_percentage": "10"}, 10, 100),
        (0, {"metric": "rps"}, 140, 200),
        (5, {"metric": "rps", "target": "100"}, 70, 100),
        (0, {"target": "0.01", "target_utilization_percentage": "1"}, 0.01, 0.01),
    ],
)
def test_the_target_per_pod(
    concurrency: int, annotations: dict[str, str], target: float, total: float
) -> None:
    spec = annotated(concurrency, **annotations)
    assert (spec.target, spec.total) == (pytest.approx(target), total)


def test_windows_come_from_annotations_in_either_spelling() -> None:
    spec = annotated(window="30s", panic_window_percentage="20", panicThresholdPercentage="150")
    assert (spec.stable_window, spec.panic_window, spec.panic_threshold) == (30, 6, 1.5)
    assert annotated(window="6s").panic_window == 1  # never under a second
