"""From requests to pods and back to none, in time that the test moves."""

import asyncio

import pytest

from knlocal.resources.base import Obj, key_of
from knlocal.serving.kinds import (
    HORIZONTAL_POD_AUTOSCALER,
    METRIC,
    POD,
    POD_AUTOSCALER,
    REVISION,
    SERVERLESS_SERVICE,
)
from tests.serving.world import World, conditions, service


async def test_a_service_nobody_asks_for_goes_to_zero_and_stays_ready(world: World) -> None:
    await world.apply(service())
    assert world.replicas() == 1
    await world.clock.advance(58)
    assert world.replicas() == 1
    await world.clock.advance(10)
    assert world.replicas() == 0
    assert conditions(world.revision())["Active"] == "False NoTraffic"
    assert conditions(world.revision())["Ready"] == "True"
    assert conditions(world.service())["Ready"] == "True"
    assert world.revision()["status"]["actualReplicas"] == 0
    assert world.store.list(POD) == []


async def test_the_wish_is_shown_from_the_first_pod_on(world: World) -> None:
    world.workloads.holding = True
    await world.apply(service())
    for _ in range(3):
        world.workloads.release()
        await world.change(POD_AUTOSCALER, "hello-00001", lambda _autoscaler: None)
        await world.settled()
        status = world.revision()["status"]
        assert (status["actualReplicas"], status["desiredReplicas"]) == (1, 1)


async def test_a_request_to_a_service_at_zero_is_held_and_answered(world: World) -> None:
    await world.apply(service())
    await world.clock.advance(70)
    assert world.replicas() == 0
    world.workloads.holding = True
    asking = asyncio.create_task(world.get())
    await world.settled()
    assert world.replicas() == 1  # at once, not at the next tick
    assert conditions(world.revision())["Active"] == "Unknown Queued"
    assert not asking.done()
    world.workloads.release()
    assert (await asking).body == b"hello"
    await world.settled()
    assert conditions(world.revision())["Active"] == "True"


async def test_nothing_ticks_while_all_revisions_are_at_zero(world: World) -> None:
    for name in ("one", "two", "three"):
        await world.apply(service(name))
    assert world.clock.next_due() is not None
    await world.clock.advance(100)
    assert world.clock.next_due() is None


async def test_requests_in_flight_keep_a_pod(world: World) -> None:
    let_go = asyncio.Event()

    async def slow(_path: str, _headers: dict[str, str]) -> tuple[int, str]:
        await let_go.wait()
        return 200, "done"

    world.workloads.answer = slow
    await world.apply(service(spec={"timeoutSeconds": 600, "responseStartTimeoutSeconds": 600}))
    asking = asyncio.create_task(world.get())
    await world.settled()
    await world.clock.advance(300)
    assert world.replicas() == 1
    let_go.set()
    assert (await asking).body == b"done"
    await world.clock.advance(70)
    assert world.replicas() == 0


@pytest.mark.parametrize(
    ("annotations", "replicas"),
    [
        ({"min-scale": "2"}, 2),
        ({"initial-scale": "3"}, 3),
        ({"initial-scale": "3", "min-scale": "5"}, 5),
        ({"initial-scale": "3", "max-scale": "2"}, 2),
    ],
)
async def test_a_new_revision_is_ready_with_its_initial_scale(
    world: World, annotations: dict[str, str], replicas: int
) -> None:
    world.workloads.holding = True
    await world.apply(
        service(annotations={f"autoscaling.knative.dev/{k}": v for k, v in annotations.items()})
    )
    assert world.replicas() == replicas
    pods = world.store.list(POD)
    for pod in pods[:-1]:
        world.workloads.make_ready(pod)
    await world.settled()
    if len(pods) > 1:
        assert conditions(world.revision())["Ready"] == "Unknown Deploying"
    world.workloads.release()
    await world.settled()
    assert conditions(world.revision())["Ready"] == "True"
    assert world.revision()["status"]["actualReplicas"] == replicas


async def test_initial_scale_zero_makes_a_ready_service_without_pods(world: World) -> None:
    world.configure("config-autoscaler", allow_zero_initial_scale="true")
    await world.apply(service(annotations={"autoscaling.knative.dev/initial-scale": "0"}))
    assert conditions(world.service())["Ready"] == "True"
    assert world.workloads.made == 0
    assert (await world.get()).status == 200


async def test_min_scale_changed_on_a_live_revision_counts_at_once(world: World) -> None:
    await world.apply(service())
    key = "autoscaling.knative.dev/min-scale"
    await world.change(
        ("serving.knative.dev", "Revision"),
        "hello-00001",
        lambda r: r["metadata"].setdefault("annotations", {}).__setitem__(key, "3"),
    )
    assert world.replicas() == 3
    await world.change(
        ("serving.knative.dev", "Revision"),
        "hello-00001",
        lambda r: r["metadata"]["annotations"].pop(key),
    )
    assert key not in world.autoscaler()["metadata"]["annotations"]
    assert world.deployment()["metadata"]["generation"] == 2  # replicas only: no pod is restarted
    await world.clock.advance(130)
    assert world.replicas() == 0


async def test_a_revision_without_a_route_forgets_its_min_scale(world: World) -> None:
    await world.apply(service(annotations={"autoscaling.knative.dev/min-scale": "2"}))
    await world.apply(service(image="demo:2"))
    assert conditions(world.service())["Ready"] == "True"
    assert world.autoscaler()["spec"]["reachability"] == "Unreachable"
    await world.clock.advance(70)
    assert world.replicas("hello-00001") == 0
    assert world.revision("hello-00001")["metadata"]["labels"][
        "serving.knative.dev/routingState"] == "reserve"  # fmt: skip


async def test_load_brings_more_pods_and_max_scale_limits_them(world: World) -> None:
    let_go = asyncio.Event()

    async def slow(_path: str, _headers: dict[str, str]) -> tuple[int, str]:
        await let_go.wait()
        return 200, "done"

    world.workloads.answer = slow
    await world.apply(
        service(
            annotations={"autoscaling.knative.dev/max-scale": "5"},
            spec={"containerConcurrency": 10},
        )
    )
    await world.clock.advance(65)
    asking = [asyncio.create_task(world.get()) for _ in range(200)]
    await world.clock.advance(4)
    assert world.replicas() == 5
    assert all(server.most_active <= 10 for server in world.workloads.servers.values())
    let_go.set()
    assert {(await one).status for one in asking} == {200}
    assert world.replicas() == 5


async def test_a_burst_to_a_service_at_zero_is_seen_before_the_next_tick(world: World) -> None:
    await world.apply(service(spec={"containerConcurrency": 1}))
    await world.clock.advance(70)
    world.workloads.holding = True
    asking = [asyncio.create_task(world.get()) for _ in range(7)]
    await world.clock.advance(0.2)
    assert world.replicas() == 10  # seven at a target of 0.7
    world.workloads.release()
    assert {(await one).status for one in asking} == {200}


def horizontal(**annotations: str) -> Obj:
    """A Service of class hpa."""
    prefix = "autoscaling.knative.dev"
    wanted = {f"{prefix}/{name.replace('_', '-')}": value for name, value in annotations.items()}
    return service(annotations={f"{prefix}/class": f"hpa.{prefix}", **wanted})


async def test_the_hpa_class_leaves_scaling_to_kubernetes(world: World) -> None:
    await world.apply(horizontal(metric="cpu", target="75", min_scale="2", max_scale="10"))
    scaler = world.store.get(HORIZONTAL_POD_AUTOSCALER, "default", "hello-00001")
    assert scaler["metadata"]["labels"]["serving.knative.dev/revision"] == "hello-00001"
    assert scaler["metadata"]["ownerReferences"][0]["kind"] == "PodAutoscaler"
    assert scaler["spec"] == {
        "scaleTargetRef": {
            "apiVersion": "apps/v1", "kind": "Deployment", "name": "hello-00001-deployment",
        },
        "minReplicas": 2,
        "maxReplicas": 10,
        "metrics": [{
            "type": "Resource",
            "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 75},
            },
        }],
    }  # fmt: skip
    assert world.replicas() == 2
    assert conditions(world.service())["Ready"] == "True"
    assert conditions(world.autoscaler()) == dict.fromkeys(
        ("Active", "Ready", "SKSReady", "ScaleTargetInitialized"), "True"
    )
    world.store.set_status(key_of(scaler), {"desiredReplicas": 4, "currentReplicas": 3})
    await world.change(
        ("apps", "Deployment"), "hello-00001-deployment",
        lambda d: d["spec"].__setitem__("replicas", 4),
    )  # fmt: skip
    await world.clock.advance(200)
    assert world.replicas() == 4  # the KPA keeps out of it
    assert world.autoscaler()["status"]["desiredScale"] == 4
    assert world.revision()["status"]["actualReplicas"] == 3
    serverless = world.store.get(SERVERLESS_SERVICE, "default", "hello-00001")
    assert serverless["spec"]["mode"] == "Serve"


async def test_a_revision_that_leaves_the_hpa_class_is_the_kpas_alone(world: World) -> None:
    await world.apply(horizontal(metric="cpu", target="75"))
    prefix = "autoscaling.knative.dev"

    def leave(revision: Obj) -> None:
        revision["metadata"]["annotations"] |= {
            f"{prefix}/class": f"kpa.{prefix}", f"{prefix}/metric": "concurrency",
        }  # fmt: skip

    await world.change(REVISION, "hello-00001", leave)
    assert world.store.find(HORIZONTAL_POD_AUTOSCALER, "default", "hello-00001") is None
    await world.clock.advance(100)
    assert world.replicas() == 0


@pytest.mark.parametrize(
    ("annotations", "spec"),
    [
        (
            {"metric": "memory", "target": "200"},
            {"metrics": [{"type": "Resource", "resource": {
                "name": "memory", "target": {"type": "AverageValue", "averageValue": "200Mi"},
            }}]},
        ),
        (
            {"metric": "depth", "target": "20"},
            {"metrics": [{"type": "Pods", "pods": {
                "metric": {"name": "depth"},
                "target": {"type": "AverageValue", "averageValue": "20"},
            }}]},
        ),
        (
            {"window": "90s"},
            {"behavior": {
                "scaleUp": {"stabilizationWindowSeconds": 90},
                "scaleDown": {"stabilizationWindowSeconds": 90},
            }},
        ),
    ],
)  # fmt: skip
async def test_annotations_reach_the_horizontal_pod_autoscaler(
    world: World, annotations: dict[str, str], spec: Obj
) -> None:
    await world.apply(horizontal(**annotations))
    found = world.store.get(HORIZONTAL_POD_AUTOSCALER, "default", "hello-00001")["spec"]
    assert found["maxReplicas"] == 2**31 - 1
    assert {field: found[field] for field in spec} == spec


async def test_the_class_is_written_down_when_a_revision_is_made(world: World) -> None:
    await world.apply(service())
    world.configure("config-autoscaler", pod_autoscaler_class="hpa.autoscaling.knative.dev")
    await world.apply(service("later"))
    prefix = "autoscaling.knative.dev"
    for name, expected in (("hello", ("kpa", "concurrency")), ("later", ("hpa", "cpu"))):
        annotations = world.autoscaler(f"{name}-00001")["metadata"]["annotations"]
        class_, metric = expected
        assert annotations[f"{prefix}/class"] == f"{class_}.{prefix}"
        assert annotations[f"{prefix}/metric"] == metric
        serverless = world.store.get(SERVERLESS_SERVICE, "default", f"{name}-00001")
        assert f"{prefix}/metric" not in serverless["metadata"]["annotations"]
    await world.clock.advance(100)
    assert (world.replicas(), world.replicas("later-00001")) == (0, 1)


async def test_the_metric_of_a_revision_tells_its_windows(world: World) -> None:
    await world.apply(service(annotations={"autoscaling.knative.dev/window": "30s"}))
    metric = world.store.get(METRIC, "default", "hello-00001")
    assert metric["spec"] == {
        "stableWindow": 30_000_000_000,
        "panicWindow": 3_000_000_000,
        "scrapeTarget": "hello-00001-private",
    }
    assert conditions(metric) == {"Ready": "True"}
    await world.clock.advance(70)
    assert world.replicas() == 0
    metric = world.store.get(METRIC, "default", "hello-00001")
    assert conditions(metric) == {"Ready": "Unknown NoEndpoints"}


async def test_manual_scaling_is_reverted(world: World) -> None:
    await world.apply(service())
    await world.change(
        ("apps", "Deployment"), "hello-00001-deployment",
        lambda d: d["spec"].__setitem__("replicas", 7),
    )  # fmt: skip
    await world.clock.advance(7)  # 7, 3, 1: no faster than max-scale-down-rate
    assert world.replicas() == 1


async def test_scale_to_zero_can_be_switched_off(world: World) -> None:
    world.configure("config-autoscaler", enable_scale_to_zero="false")
    await world.apply(service())
    await world.clock.advance(300)
    assert world.replicas() == 1


async def test_the_last_pod_is_retained_for_the_retention_period(world: World) -> None:
    key = "autoscaling.knative.dev/scale-to-zero-pod-retention-period"
    await world.apply(service(annotations={key: "2m"}))
    await world.clock.advance(170)
    assert world.replicas() == 1
    await world.clock.advance(20)
    assert world.replicas() == 0


def mode_of(world: World) -> Obj:
    return world.store.get(SERVERLESS_SERVICE, "default", "hello-00001")["spec"]


async def test_burst_capacity_decides_whether_the_activator_is_in_the_path(world: World) -> None:
    key = "autoscaling.knative.dev/target-burst-capacity"
    await world.apply(service(annotations={key: "0"}))
    await world.clock.advance(4)
    assert mode_of(world)["mode"] == "Serve"
    assert mode_of(world)["numActivators"] == 2
    pod = world.store.list(POD)[0]
    slices = world.store.list(
        ("discovery.k8s.io", "EndpointSlice"), "default",
        labels={"kubernetes.io/service-name": "hello-00001"},
    )  # fmt: skip
    assert [e["addresses"] for s in slices for e in s["endpoints"]] == [[pod["status"]["podIP"]]]
    await world.apply(service("other", annotations={key: "-1"}))
    await world.clock.advance(4)
    assert world.store.get(SERVERLESS_SERVICE, "default", "other-00001")["spec"]["mode"] == "Proxy"


@pytest.mark.parametrize(
    ("burst", "mode"), [(None, "Proxy"), ("-1", "Proxy"), ("0", "Serve"), ("1", "Serve")]
)
async def test_bursts_find_the_activator_before_anything_was_measured(
    world: World, burst: str | None, mode: str
) -> None:
    key = "autoscaling.knative.dev/target-burst-capacity"
    let_go = asyncio.Event()

    async def slow(_path: str, _headers: dict[str, str]) -> tuple[int, str]:
        await let_go.wait()
        return 200, "done"

    world.workloads.answer = slow
    annotations = {"autoscaling.knative.dev/max-scale": "1"} | ({key: burst} if burst else {})
    await world.apply(service(spec={"containerConcurrency": 5}, annotations=annotations))
    assert mode_of(world)["mode"] == mode
    waiting = [asyncio.create_task(world.get()) for _ in range(100)]
    throttler = world.serving.activator.revision("default", "hello-00001").throttler
    while throttler.waiting + sum(task.done() for task in waiting) < 95:  # noqa: ASYNC110
        await asyncio.sleep(0)
    let_go.set()
    turned_away = [answer.status for answer in await asyncio.gather(*waiting)].count(503)
    # Without the activator, ten may wait for each of the five slots.
    assert turned_away == (0 if mode == "Proxy" else 45)


async def test_activation_that_never_succeeds_times_out(world: World) -> None:
    world.workloads.holding = True
    await world.apply(service(annotations={"serving.knative.dev/progress-deadline": "30s"}))
    await world.clock.advance(50)
    assert conditions(world.service())["Ready"].startswith("Unknown")
    world.workloads.stuck = True
    await world.workloads.reconcile(key_of(world.deployment()))
    await world.settled()
    assert conditions(world.revision())["Ready"] == "False ProgressDeadlineExceeded"
    await world.clock.advance(20)
    assert world.replicas() == 0
    assert conditions(world.revision())["Active"] == "False TimedOut"
    assert conditions(world.service()) == {
        "ConfigurationsReady": "False RevisionFailed",
        "Ready": "False RevisionMissing",
        "RoutesReady": "False RevisionMissing",
    }
