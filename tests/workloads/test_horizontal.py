"""HorizontalPodAutoscalers: what is used decides on how many replicas there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import pytest

from knlocal.clock import VirtualClock
from knlocal.control.manager import Manager
from knlocal.resources.base import GroupKind, Obj, key_of, timestamp
from knlocal.resources.core.kinds import KINDS
from knlocal.resources.kinds import KindRegistry
from knlocal.store.store import Store
from knlocal.workloads.horizontal import AUTOSCALER, HorizontalPodAutoscalerController
from knlocal.workloads.terms import DEPLOYMENT, POD

EVENT = GroupKind("", "Event")
LABELS = {"app": "web"}


class Cluster:
    """A Deployment whose pods use what the test says; its replicas become pods by `follow`."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.store = Store(KindRegistry(KINDS), self.clock)
        self.used: dict[str, tuple[float, int]] = {}
        self.everyone: tuple[float, int] | None = None
        self.requests: dict[str, str] = {"cpu": "100m", "memory": "100Mi"}
        self.manager = Manager(self.store)
        self.manager.add(HorizontalPodAutoscalerController(self.store, self._usage))
        self.clock.settle = self.settled
        self.store.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
        )

    async def _usage(self, pod: Obj) -> Mapping[str, tuple[float, int]]:
        used = self.used.get(pod["metadata"]["name"], self.everyone)
        return {} if used is None else {"main": used}

    async def settled(self) -> None:
        quiet = 0
        while quiet < 3:
            await self.clock._yield_to_loop()
            quiet = 0 if self.manager.busy else quiet + 1

    def deploy(self, replicas: int) -> None:
        container = {"name": "main", "image": "x", "resources": {"requests": self.requests}}
        template = {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}}
        self.store.create({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": LABELS},
                     "template": template},
        })  # fmt: skip
        self.follow()

    def follow(self, ready: bool = True) -> None:
        """Have as many pods as the Deployment asks for; new ones are `ready` for a long time."""
        wanted, pods = self.replicas, self.store.list(POD)
        for number in range(len(pods), wanted):
            self._pod(f"web-{number}", ready=ready)
        for pod in pods[wanted:]:
            self.store.delete(POD, "default", pod["metadata"]["name"], grace_seconds=0)

    def _pod(self, name: str, *, ready: bool) -> None:
        template = self.store.get(DEPLOYMENT, "default", "web")["spec"]["template"]
        pod = self.store.create({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": LABELS},
            "spec": template["spec"],
        })  # fmt: skip
        since = timestamp(self.clock.now() - timedelta(minutes=10))
        self.store.set_status(key_of(pod), {
            "phase": "Running", "startTime": since,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False",
                            "lastTransitionTime": since}],
        })  # fmt: skip

    async def autoscale(self, **spec: Any) -> None:
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
        self.store.create({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"scaleTargetRef": target, "maxReplicas": 10, **spec},
        })  # fmt: skip
        await self.settled()

    async def next_look(self) -> None:
        self.follow()
        await self.clock.advance(15)

    @property
    def replicas(self) -> int:
        return int(self.store.get(DEPLOYMENT, "default", "web")["spec"]["replicas"])

    @property
    def status(self) -> Any:
        return self.store.get(AUTOSCALER, "default", "web")["status"]

    def condition(self, type_: str) -> tuple[str, str]:
        found = next(c for c in self.status["conditions"] if c["type"] == type_)
        return found["status"], found["reason"]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    await cluster.manager.start()
    yield cluster
    await cluster.manager.stop()


def cpu(percent: int) -> list[Obj]:
    target = {"type": "Utilization", "averageUtilization": percent}
    return [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]


def memory(average: str) -> list[Obj]:
    target = {"type": "AverageValue", "averageValue": average}
    return [{"type": "Resource", "resource": {"name": "memory", "target": target}}]


async def test_busy_pods_get_company(cluster: Cluster) -> None:
    cluster.deploy(2)
    cluster.everyone = (0.15, 0)  # 150 % of 100m
    await cluster.autoscale(metrics=cpu(75))
    assert cluster.replicas == 4
    shown = cluster.status["currentMetrics"][0]["resource"]["current"]
    assert shown == {"averageValue": "150m", "averageUtilization": 150}
    assert cluster.condition("AbleToScale") == ("True", "SucceededRescale")
    assert cluster.condition("ScalingActive") == ("True", "ValidMetricFound")
    told = [event["message"] for event in cluster.store.list(EVENT)]
    assert told == [
        "New size: 4; reason: cpu resource utilization (percentage of request) above target"
    ]


async def test_memory_counts_per_pod(cluster: Cluster) -> None:
    cluster.deploy(1)
    cluster.everyone = (0.0, 500 * 2**20)
    await cluster.autoscale(metrics=memory("200Mi"))
    assert cluster.replicas == 3
    assert cluster.status["desiredReplicas"] == 3


async def test_the_metric_that_wants_most_decides(cluster: Cluster) -> None:
    cluster.deploy(2)
    cluster.everyone = (0.05, 300 * 2**20)
    await cluster.autoscale(metrics=[*cpu(50), *memory("100Mi")])
    assert cluster.replicas == 6


async def test_a_small_miss_changes_nothing(cluster: Cluster) -> None:
    cluster.deploy(4)
    cluster.everyone = (0.082, 0)
    await cluster.autoscale(metrics=cpu(75))
    assert cluster.replicas == 4
    assert cluster.condition("AbleToScale") == ("True", "ReadyForNewScale")


async def test_scaling_up_is_no_faster_than_kubernetes_allows(cluster: Cluster) -> None:
    cluster.deploy(1)
    cluster.everyone = (5.0, 0)
    await cluster.autoscale(metrics=cpu(50), maxReplicas=100)
    assert cluster.replicas == 5  # four more, or twice as many
    assert cluster.condition("ScalingLimited") == ("True", "ScaleUpLimit")
    await cluster.next_look()
    assert cluster.replicas == 10


async def test_the_bounds_hold(cluster: Cluster) -> None:
    cluster.deploy(1)
    cluster.everyone = (5.0, 0)
    await cluster.autoscale(metrics=cpu(50), minReplicas=2, maxReplicas=3)
    assert cluster.replicas == 2
    await cluster.next_look()
    assert cluster.replicas == 3
    assert cluster.condition("ScalingLimited") == ("True", "TooManyReplicas")


async def test_idle_pods_go_only_after_five_minutes_of_idleness(cluster: Cluster) -> None:
    cluster.deploy(4)
    cluster.everyone = (0.075, 0)
    await cluster.autoscale(metrics=cpu(75))
    cluster.everyone = (0.0, 0)
    for _ in range(19):
        await cluster.next_look()
        assert cluster.replicas == 4
    for _ in range(2):
        await cluster.next_look()
    assert cluster.replicas == 1


async def test_the_window_of_its_behavior_replaces_the_five_minutes(cluster: Cluster) -> None:
    cluster.deploy(4)
    cluster.everyone = (0.0, 0)
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    await cluster.autoscale(metrics=cpu(75), behavior=behavior)
    assert cluster.replicas == 1


async def test_a_pod_that_nothing_is_known_of_makes_no_difference_larger(cluster: Cluster) -> None:
    cluster.deploy(3)
    cluster.used = {"web-0": (0.2, 0), "web-1": (0.2, 0)}
    await cluster.autoscale(metrics=cpu(100))
    assert cluster.replicas == 4  # 400m over three pods, not 200 % of each


async def test_pods_that_only_start_are_not_counted_as_busy(cluster: Cluster) -> None:
    cluster.deploy(1)
    cluster.store.modify(
        DEPLOYMENT, "default", "web", lambda obj: obj["spec"].__setitem__("replicas", 2)
    )
    cluster.follow(ready=False)
    cluster.used = {"web-0": (0.1, 0), "web-1": (3.0, 0)}
    await cluster.autoscale(metrics=cpu(100))
    assert cluster.replicas == 2


async def test_without_requests_there_is_no_utilization(cluster: Cluster) -> None:
    cluster.requests = {}
    cluster.deploy(1)
    cluster.everyone = (1.0, 0)
    await cluster.autoscale(metrics=cpu(50))
    assert cluster.replicas == 1
    assert cluster.condition("ScalingActive") == ("False", "FailedGetResourceMetric")
    told = [event["message"] for event in cluster.store.list(EVENT)]
    assert "missing request for cpu in container main of Pod web-0" in told[0]


async def test_zero_replicas_switch_it_off(cluster: Cluster) -> None:
    cluster.deploy(0)
    await cluster.autoscale(metrics=cpu(50))
    assert cluster.replicas == 0
    assert cluster.condition("ScalingActive") == ("False", "ScalingDisabled")


async def test_a_missing_target_and_custom_metrics_are_told(cluster: Cluster) -> None:
    await cluster.autoscale(metrics=cpu(50))
    assert cluster.condition("AbleToScale") == ("False", "FailedGetScale")
    cluster.deploy(1)
    rate = {"metric": {"name": "rate"}, "target": {"type": "AverageValue", "averageValue": "1"}}
    cluster.store.modify(
        AUTOSCALER, "default", "web",
        lambda obj: obj["spec"].__setitem__("metrics", [{"type": "Pods", "pods": rate}]),
    )  # fmt: skip
    await cluster.settled()
    assert cluster.condition("ScalingActive") == ("False", "FailedGetPodsMetric")
