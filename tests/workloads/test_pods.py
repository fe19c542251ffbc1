"""Pods: from the object to containers, and back to its status."""

from __future__ import annotations

from typing import Any

import pytest

from knlocal.resources.base import GroupKind, status_of
from tests.workloads.conftest import SERVER, Cluster, container_status, is_ready, state

CONFIG_MAP = GroupKind("", "ConfigMap")


def config_map(name: str, data: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": data,
    }


async def test_a_pod_runs_and_answers(cluster: Cluster) -> None:
    cluster.create(cluster.pod("web"))
    pod = await cluster.running("web")
    status = status_of(pod)
    assert status["phase"] == "Running"
    assert status["podIP"]
    assert status["podIPs"] == [{"ip": status["podIP"]}]
    assert status["hostIP"]
    assert status["startTime"]
    assert status["qosClass"] == "BestEffort"
    assert pod["spec"]["nodeName"] == "knlocal"
    one = container_status(pod)
    assert one["ready"]
    assert one["started"]
    assert one["restartCount"] == 0
    assert one["containerID"].startswith(f"{cluster.runtime.name}://")
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
        "PodScheduled": "True",
    }


async def test_a_pod_is_ready_only_when_its_probe_passes(cluster: Cluster) -> None:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    cluster.create(cluster.pod("web", containers=[cluster.container("app", readinessProbe=probe)]))
    await cluster.running("web")
    code, body = await cluster.get("web")
    assert code == 200
    assert body == "hello web"
    reasons = [e["reason"] for e in cluster.store.list(GroupKind("", "Event"))]
    for reason in ("Scheduled", "Pulled", "Created", "Started"):
        assert reason in reasons


async def test_a_job_like_pod_succeeds_or_fails(cluster: Cluster) -> None:
    good = cluster.pod("good", "print('done')", restartPolicy="Never")
    bad = cluster.pod("bad", "import sys; sys.exit(7)", restartPolicy="Never")
    cluster.create(good)
    cluster.create(bad)
    done = await cluster.pod_where("good", lambda p: status_of(p).get("phase") == "Succeeded")
    assert state(done)["terminated"]["reason"] == "Completed"
    failed = await cluster.pod_where("bad", lambda p: status_of(p).get("phase") == "Failed")
    assert state(failed)["terminated"]["exitCode"] == 7
    assert state(failed)["terminated"]["reason"] == "Error"
    assert not is_ready(failed)


async def test_init_containers_run_one_by_one_before_the_others(cluster: Cluster) -> None:
    first = cluster.container("first", "print('one')")
    second = cluster.container("second", "print('two')")
    cluster.create(cluster.pod("web", initContainers=[first, second]))
    pod = await cluster.running("web")
    ends = [state(pod, name)["terminated"] for name in ("first", "second")]
    assert all(end["reason"] == "Completed" for end in ends)
    assert ends[0]["finishedAt"] <= ends[1]["startedAt"]
    assert status_of(pod)["initContainerStatuses"][0]["ready"]


async def test_a_failing_init_container_fails_a_pod_that_never_restarts(cluster: Cluster) -> None:
    init = cluster.container("init", "import sys; sys.exit(1)")
    cluster.create(cluster.pod("web", initContainers=[init], restartPolicy="Never"))
    pod = await cluster.pod_where("web", lambda p: status_of(p).get("phase") == "Failed")
    assert state(pod, "init")["terminated"]["exitCode"] == 1
    assert state(pod, "app")["waiting"]["reason"] == "PodInitializing"


async def test_a_deleted_pod_stays_listed_until_its_containers_are_gone(cluster: Cluster) -> None:
    cluster.create(cluster.pod("web", terminationGracePeriodSeconds=5))
    await cluster.running("web")
    cluster.store.delete(GroupKind("", "Pod"), "default", "web")
    leaving = cluster.find("web")
    assert leaving is not None
    assert leaving["metadata"]["deletionTimestamp"]
    await cluster.gone("web")
    assert await cluster.runtime.pods() == []
    assert [e["message"] for e in cluster.events("Killing")] == ["Stopping container app"]


async def test_a_pod_that_ignores_the_signal_is_killed_after_its_grace(cluster: Cluster) -> None:
    script = SERVER.replace("lambda *_: os._exit(0)", "signal.SIG_IGN")
    one = cluster.container("app", script, readinessProbe={"tcpSocket": {"port": 8080}})
    cluster.create(cluster.pod("stubborn", containers=[one], terminationGracePeriodSeconds=1))
    await cluster.running("stubborn")
    ends = []
    cluster.store.subscribe(lambda e: ends.append(state(e.obj)) if e.obj["kind"] == "Pod" else None)
    cluster.store.delete(GroupKind("", "Pod"), "default", "stubborn")
    await cluster.gone("stubborn")
    assert ends[-1]["terminated"]["exitCode"] == 137


async def test_a_forced_deletion_does_not_wait(cluster: Cluster) -> None:
    cluster.create(cluster.pod("web"))
    await cluster.running("web")
    cluster.store.delete(GroupKind("", "Pod"), "default", "web", grace_seconds=0)
    assert cluster.find("web") is None
    await cluster.comes(lambda: not cluster.kubelet.workers)
    assert await cluster.runtime.pods() == []


async def test_drain_hooks_are_awaited_before_the_signal(cluster: Cluster) -> None:
    cluster.create(cluster.pod("web"))
    await cluster.running("web")
    seen = []

    async def drain(pod: dict[str, Any]) -> None:
        seen.append(pod["metadata"]["name"])
        assert (await cluster.get("web"))[0] == 200

    cluster.kubelet.drain_hooks.append(drain)
    cluster.store.delete(GroupKind("", "Pod"), "default", "web")
    await cluster.gone("web")
    assert seen == ["web"]


async def test_queue_proxy_is_shown_but_not_run(cluster: Cluster) -> None:
    proxy = {"name": "queue-proxy", "image": "knlocal.internal/queue-proxy"}
    cluster.create(cluster.pod("web", containers=[cluster.container("app"), proxy]))
    pod = await cluster.running("web")
    assert container_status(pod, "queue-proxy")["ready"]
    [found] = await cluster.runtime.pods()
    assert "queue-proxy" not in found.containers


async def test_a_missing_config_map_keeps_the_container_waiting_until_it_comes(
    cluster: Cluster,
) -> None:
    env = [{"name": "TARGET", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "who"}}}]
    cluster.create(cluster.pod("web", containers=[cluster.container("app", env=env)]))
    pod = await cluster.pod_where("web", lambda p: state(p).get("waiting", {}).get("message"))
    assert state(pod)["waiting"] == {
        "reason": "CreateContainerConfigError",
        "message": 'configmap "late" not found',
    }
    cluster.create(config_map("late", {"who": "you"}))
    await cluster.running("web")


async def test_a_pod_too_large_for_the_machine_is_unschedulable(cluster: Cluster) -> None:
    big = cluster.container("app", resources={"requests": {"cpu": "5000"}})
    cluster.create(cluster.pod("big", containers=[big]))
    pod = await cluster.pod_where("big", lambda p: status_of(p).get("conditions"))
    [condition] = status_of(pod)["conditions"]
    assert condition["reason"] == "Unschedulable"
    assert "Insufficient cpu" in condition["message"]
    cluster.store.delete(GroupKind("", "Pod"), "default", "big")
    assert cluster.find("big") is None


@pytest.mark.parametrize("policy", ["OnFailure", "Always"])
async def test_a_crashed_container_is_restarted(cluster: Cluster, policy: str) -> None:
    cluster.create(cluster.pod("web", restartPolicy=policy))
    await cluster.running("web")
    await cluster.get("web", "/exit")
    pod = await cluster.pod_where(
        "web", lambda p: container_status(p)["restartCount"] == 1 and is_ready(p)
    )
    last = state(pod, which="lastState")["terminated"]
    assert last["exitCode"] == 3
    assert last["reason"] == "Error"
