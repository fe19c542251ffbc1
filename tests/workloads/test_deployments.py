"""Deployments, ReplicaSets and standby pods."""

from __future__ import annotations

from typing import Any

import pytest

from knlocal.resources.base import GroupKind, Obj, is_deleting, status_of
from tests.workloads.conftest import SERVER, Cluster, Found, MakeControllers, is_ready

DEPLOYMENT = GroupKind("apps", "Deployment")
REPLICA_SET = GroupKind("apps", "ReplicaSet")
POD = GroupKind("", "Pod")


@pytest.fixture
def make_controllers(with_standbys: MakeControllers) -> MakeControllers:
    return with_standbys


def deployment(cluster: Cluster, replicas: int = 1, **extra: Any) -> Obj:
    pod = cluster.pod("web", **extra.pop("pod", {}))
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "web", "namespace": "default", "annotations": extra.pop("annotations", {}),
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {
                    "labels": {"app": "web"}, "annotations": pod["metadata"]["annotations"],
                },
                "spec": {"terminationGracePeriodSeconds": 5, **pod["spec"]},
            },
            **extra,
        },
    }  # fmt: skip


def condition(obj: Obj | None, type_: str) -> dict[str, Any]:
    found = status_of(obj or {}).get("conditions") or ()
    return next((c for c in found if c["type"] == type_), {})


def live(cluster: Cluster) -> list[Obj]:
    return [p for p in cluster.store.list(POD) if not is_deleting(p)]


def scale(cluster: Cluster, replicas: int) -> None:
    cluster.store.modify(
        DEPLOYMENT, "default", "web", lambda d: d["spec"].__setitem__("replicas", replicas)
    )


async def complete(cluster: Cluster, replicas: int) -> Obj:
    def so() -> bool:
        found = cluster.find("web", DEPLOYMENT)
        status = status_of(found or {})
        return (
            status.get("availableReplicas", 0) == replicas
            and status.get("replicas", 0) == replicas
            and status.get("observedGeneration") == (found or {})["metadata"]["generation"]
            and condition(found, "Progressing").get("reason") == "NewReplicaSetAvailable"
        )

    await cluster.until(so, f"{replicas} replicas")
    result = cluster.find("web", DEPLOYMENT)
    assert result is not None
    return result


async def test_a_deployment_becomes_available(cluster: Cluster) -> None:
    cluster.create(deployment(cluster, 2))
    done = await complete(cluster, 2)
    status = status_of(done)
    assert status["readyReplicas"] == status["updatedReplicas"] == 2
    assert condition(done, "Available")["reason"] == "MinimumReplicasAvailable"
    [replica_set] = cluster.store.list(REPLICA_SET)
    name = replica_set["metadata"]["name"]
    assert condition(done, "Progressing")["message"] == (
        f'ReplicaSet "{name}" has successfully progressed.'
    )
    pods = live(cluster)
    assert all(p["metadata"]["name"].startswith(f"{name}-") for p in pods)
    assert all(p["metadata"]["labels"]["pod-template-hash"] for p in pods)


async def test_scaling_goes_both_ways_and_a_deleted_pod_is_replaced(cluster: Cluster) -> None:
    cluster.create(deployment(cluster, 1))
    await complete(cluster, 1)
    scale(cluster, 3)
    await complete(cluster, 3)
    victim = live(cluster)[0]["metadata"]["name"]
    cluster.store.delete(POD, "default", victim)
    await cluster.until(lambda: cluster.find(victim) is None)
    await complete(cluster, 3)
    scale(cluster, 1)
    await complete(cluster, 1)
    await cluster.until(lambda: len(cluster.store.list(POD)) == 1)


async def test_a_changed_template_rolls_the_pods(cluster: Cluster) -> None:
    cluster.create(deployment(cluster, 2))
    await complete(cluster, 2)
    before = {p["metadata"]["name"] for p in live(cluster)}

    def change(obj: Obj) -> None:
        container = obj["spec"]["template"]["spec"]["containers"][0]
        container["env"].append({"name": "TARGET", "value": "new"})

    fewest = [2]
    cluster.store.subscribe(
        lambda _e: fewest.append(sum(is_ready(p) for p in cluster.store.list(POD)))
    )
    cluster.store.modify(DEPLOYMENT, "default", "web", change)
    done = await complete(cluster, 2)
    after = {p["metadata"]["name"] for p in live(cluster)}
    assert not before & after
    assert min(fewest) >= 2
    assert done["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
    code, body = await cluster.get(after.pop())
    assert code == 200
    assert body.startswith("new")


async def test_deleting_a_deployment_takes_its_pods(cluster: Cluster) -> None:
    cluster.create(deployment(cluster, 2))
    await complete(cluster, 2)
    cluster.store.delete(DEPLOYMENT, "default", "web")
    await cluster.until(lambda: not cluster.store.list(POD))
    assert not cluster.store.list(REPLICA_SET)


async def test_a_deployment_that_makes_no_progress_says_so(cluster: Cluster) -> None:
    cluster.create(
        deployment(
            cluster,
            1,
            progressDeadlineSeconds=1,
            pod={"containers": [cluster.container("app", readinessProbe={"exec": {
                "command": ["false"]}})]},
        )
    )  # fmt: skip
    await cluster.until(
        lambda: condition(cluster.find("web", DEPLOYMENT), "Progressing").get("status") == "False"
    )
    found = condition(cluster.find("web", DEPLOYMENT), "Progressing")
    assert found["reason"] == "ProgressDeadlineExceeded"
    assert found["message"].endswith("has timed out progressing.")


@pytest.mark.parametrize("idle", ["stop", "freeze"])
async def test_a_standby_becomes_the_first_pod(cluster: Cluster, found: Found, idle: str) -> None:
    cluster.create(deployment(cluster, 1, annotations={"knlocal.dev/standby": idle}))
    await complete(cluster, 1)
    first = live(cluster)[0]["metadata"]
    scale(cluster, 0)
    await cluster.until(lambda: not cluster.store.list(POD))
    await cluster.comes(found.standbys.names)
    [name] = found.standbys.names()
    assert (name == first["name"]) == (idle == "freeze")
    assert not cluster.store.list(POD)
    [waiting] = await cluster.runtime.pods()
    assert waiting.containers["app"].state == ("paused" if idle == "freeze" else "created")
    scale(cluster, 1)
    await complete(cluster, 1)
    [pod] = live(cluster)
    assert pod["metadata"]["name"] == name
    assert pod["metadata"]["uid"] == waiting.id.uid
    assert await cluster.get(name) == (200, f"hello {name}")
    assert not found.standbys.names()


async def test_frozen_standbys_are_kept_up_to_their_count_and_serve_again(
    cluster: Cluster, found: Found
) -> None:
    annotations = {"knlocal.dev/standby": "freeze", "knlocal.dev/standby-count": "2"}
    cluster.create(deployment(cluster, 3, annotations=annotations))
    await complete(cluster, 3)
    for _ in range(2):
        scale(cluster, 0)
        await cluster.until(lambda: not cluster.store.list(POD))
        assert len(found.standbys.names()) == 2
        scale(cluster, 2)
        await complete(cluster, 2)
        assert not found.standbys.names()
        scale(cluster, 3)
        await complete(cluster, 3)


async def test_a_standby_goes_with_its_deployment(cluster: Cluster, found: Found) -> None:
    cluster.create(deployment(cluster, 0, annotations={"knlocal.dev/standby": "stop"}))
    await cluster.comes(found.standbys.names)
    cluster.store.delete(DEPLOYMENT, "default", "web")
    await cluster.gone_from_engine()
    assert not found.standbys.names()


async def test_of_many_deployments_made_at_once_only_the_last_few_get_a_standby(
    cluster: Cluster, found: Found
) -> None:
    found.standbys._most = 2
    async with found.standbys._one_at_a_time:  # none is begun before all are known
        for number in range(8):
            one = deployment(cluster, 0, annotations={"knlocal.dev/standby": "stop"})
            one["metadata"]["name"] = f"web-{number}"
            cluster.create(one)
        await cluster.manager.settled()
    prepared = set()

    async def done() -> bool:
        prepared.update(state.id.name for state in await cluster.runtime.pods())
        return len(found.standbys.names()) == 2 and not found.standbys.busy

    await cluster.comes(done)
    assert {name.rsplit("-", 2)[0] for name in found.standbys.names()} == {"web-6", "web-7"}
    assert len(prepared) <= 2


async def test_a_standby_knows_the_latest_configuration(cluster: Cluster, found: Found) -> None:
    def config(who: str) -> Obj:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "config", "namespace": "default"},
            "data": {"who": who},
        }

    cluster.create(config("old"))
    source = {"configMapKeyRef": {"name": "config", "key": "who"}}
    one = cluster.container("app", env=[{"name": "TARGET", "valueFrom": source}])
    cluster.create(
        deployment(
            cluster, 0, annotations={"knlocal.dev/standby": "stop"}, pod={"containers": [one]}
        )
    )
    await cluster.comes(found.standbys.names)
    cluster.store.update(config("new"))
    await cluster.manager.settled()
    await cluster.comes(lambda: not found.standbys.busy)
    scale(cluster, 1)
    await complete(cluster, 1)
    _, body = await cluster.get(live(cluster)[0]["metadata"]["name"])
    assert body.startswith("new ")


@pytest.mark.parametrize("handler", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"])
async def test_a_drained_serving_pod_that_ignores_the_signal_is_not_waited_for(
    cluster: Cluster, handler: str
) -> None:
    async def drained(_pod: Obj) -> None: ...

    cluster.kubelet.drain_hooks.append(drained)
    deaf = SERVER.replace("signal.signal(signal.SIGTERM, lambda *_: os._exit(0))", handler)
    one = cluster.container("app", deaf, readinessProbe={"tcpSocket": {"port": 8080}})
    cluster.create(
        cluster.pod(
            "web",
            containers=[one],
            terminationGracePeriodSeconds=300,
            metadata={"labels": {"serving.knative.dev/revision": "web"}},
        )
    )
    await cluster.running("web")
    cluster.store.delete(POD, "default", "web")
    await cluster.gone("web")


async def test_a_deployment_that_stands_for_a_part_of_the_daemon_is_ready_without_pods(
    cluster: Cluster,
) -> None:
    shown = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "shown", "namespace": "default",
            "annotations": {"knlocal.dev/simulated": "true"},
        },
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "shown"}},
            "template": {
                "metadata": {"labels": {"app": "shown"}},
                "spec": {"containers": [{"name": "adapter", "image": "knlocal.internal/adapter"}]},
            },
        },
    }  # fmt: skip
    cluster.create(shown)
    await cluster.until(
        lambda: status_of(cluster.find("shown", DEPLOYMENT) or {}).get("readyReplicas") == 2
    )
    found = cluster.find("shown", DEPLOYMENT)
    conditions = {c["type"]: c["status"] for c in status_of(found or {})["conditions"]}
    assert conditions == {"Available": "True", "Progressing": "True"}
    assert not cluster.store.list(POD)
    assert not cluster.store.list(REPLICA_SET)
    down = {**(found or {})["metadata"]["annotations"], "knlocal.dev/simulated-down": "no rights"}
    cluster.store.modify(
        DEPLOYMENT, "default", "shown", lambda obj: obj["metadata"].update(annotations=down)
    )
    await cluster.until(
        lambda: "readyReplicas" not in status_of(cluster.find("shown", DEPLOYMENT) or {})
    )
