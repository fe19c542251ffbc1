"""Sidecars, hooks, graces: the finer points of a pod's life."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from knlocal.resources.base import GroupKind, status_of
from tests.workloads.conftest import SERVER, Cluster, container_status, is_ready, state

POD = GroupKind("", "Pod")
SLEEP = "import time; time.sleep(600)"


async def test_a_sidecar_runs_beside_the_others_and_ends_with_them(cluster: Cluster) -> None:
    sidecar = cluster.container("side", SLEEP, restartPolicy="Always", ports=[])
    work = cluster.container("app", "print('done')", ports=[])
    cluster.create(
        cluster.pod(
            "job",
            containers=[work],
            initContainers=[sidecar],
            restartPolicy="Never",
            terminationGracePeriodSeconds=1,
        )
    )
    pod = await cluster.pod_where("job", lambda p: status_of(p).get("phase") == "Succeeded")
    assert state(pod)["terminated"]["reason"] == "Completed"
    await cluster.pod_where("job", lambda p: state(p, "side").get("terminated"))


async def test_a_sidecar_must_have_started_before_the_others_do(cluster: Cluster) -> None:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 60}
    sidecar = cluster.container("side", SERVER, restartPolicy="Always", startupProbe=probe)
    app = cluster.container("app", SLEEP, ports=[])
    seen: list[tuple[bool, bool]] = []

    def note(event: Any) -> None:
        if event.obj["kind"] == "Pod":
            sides = status_of(event.obj).get("initContainerStatuses") or [{}]
            seen.append((bool(sides[0].get("started")), bool(state(event.obj).get("running"))))

    cluster.store.subscribe(note)
    cluster.create(
        cluster.pod(
            "web", containers=[app], initContainers=[sidecar], terminationGracePeriodSeconds=1
        )
    )
    await cluster.running("web")
    assert not any(app_runs and not side_started for side_started, app_runs in seen)


async def test_hooks_run_after_the_start_and_before_the_stop(
    cluster: Cluster, tmp_path: Path, engine: str
) -> None:
    folder = "/scratch" if engine == "docker" else str(tmp_path)
    one = cluster.container(
        "app",
        lifecycle={
            "postStart": {"exec": {"command": ["touch", f"{folder}/started"]}},
            "preStop": {"exec": {"command": ["touch", f"{folder}/stopping"]}},
        },
        volumeMounts=[{"name": "v", "mountPath": "/scratch"}],
    )
    cluster.create(cluster.pod("web", containers=[one], volumes=[{"name": "v", "emptyDir": {}}]))
    await cluster.running("web")
    worker = next(iter(cluster.kubelet.workers.values()))
    place = worker.run.volumes.folder / "volumes" / "v" if engine == "docker" else tmp_path
    await cluster.comes((place / "started").exists)
    seen = []
    worker.run.volumes.tear_down = lambda: seen.append((place / "stopping").exists())  # type: ignore[method-assign]
    cluster.store.delete(POD, "default", "web")
    await cluster.gone("web")
    assert seen == [True]


async def test_a_failed_post_start_hook_restarts_the_container(cluster: Cluster) -> None:
    one = cluster.container("app", lifecycle={"postStart": {"exec": {"command": ["false"]}}})
    cluster.create(cluster.pod("web", containers=[one], terminationGracePeriodSeconds=1))
    await cluster.pod_where("web", lambda p: container_status(p).get("restartCount") == 1)
    assert cluster.events("FailedPostStartHook")


async def test_a_drain_that_never_ends_is_cut_by_the_grace(cluster: Cluster) -> None:
    cluster.create(cluster.pod("web", terminationGracePeriodSeconds=1))
    await cluster.running("web")
    cut = asyncio.Event()

    async def drain(_pod: dict[str, Any]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()

    cluster.kubelet.drain_hooks.append(drain)
    cluster.store.delete(POD, "default", "web")
    await cluster.gone("web")
    assert cut.is_set()


async def test_a_second_deletion_may_shorten_the_grace(cluster: Cluster) -> None:
    stubborn = SERVER.replace("lambda *_: os._exit(0)", "signal.SIG_IGN")
    one = cluster.container("app", stubborn, readinessProbe={"tcpSocket": {"port": 8080}})
    cluster.create(cluster.pod("web", containers=[one], terminationGracePeriodSeconds=600))
    await cluster.running("web")
    cluster.store.delete(POD, "default", "web")
    await cluster.until(lambda: cluster.events("Killing"))
    cluster.store.delete(POD, "default", "web", grace_seconds=1)
    await cluster.gone("web")


async def test_containers_know_the_pods_own_address(cluster: Cluster) -> None:
    source = {"fieldRef": {"fieldPath": "status.podIP"}}
    one = cluster.container("app", env=[{"name": "TARGET", "valueFrom": source}])
    cluster.create(cluster.pod("web", containers=[one]))
    pod = await cluster.running("web")
    assert (await cluster.get("web"))[1] == f"{status_of(pod)['podIP']} web"


async def test_readiness_gates_hold_a_pod_back(cluster: Cluster) -> None:
    cluster.create(cluster.pod("web", readinessGates=[{"conditionType": "test.dev/open"}]))
    pod = await cluster.pod_where("web", lambda p: container_status(p).get("ready"))
    assert not is_ready(pod)

    def open_gate(obj: dict[str, Any]) -> None:
        obj["status"]["conditions"].append({"type": "test.dev/open", "status": "True"})

    cluster.store.modify(POD, "default", "web", open_gate, subresource="status")
    await cluster.running("web")


@pytest.mark.docker
@pytest.mark.parametrize("engine", ["docker"], indirect=True)
async def test_an_image_that_runs_as_root_is_refused_where_that_is_forbidden(
    cluster: Cluster,
) -> None:
    one = cluster.container("app", securityContext={"runAsNonRoot": True})
    cluster.create(cluster.pod("web", containers=[one]))
    pod = await cluster.pod_where("web", lambda p: state(p).get("waiting", {}).get("message"))
    waiting = state(pod)["waiting"]
    assert waiting["reason"] == "CreateContainerConfigError"
    assert "container has runAsNonRoot and image will run as root" in waiting["message"]


@pytest.mark.docker
@pytest.mark.parametrize("engine", ["docker"], indirect=True)
async def test_containers_of_a_pod_share_network_and_volumes(cluster: Cluster) -> None:
    talk = (
        "import time, urllib.request\n"
        "while True:\n"
        "    try: print(urllib.request.urlopen('http://127.0.0.1:8080').read().decode()); break\n"
        "    except OSError: time.sleep(0.05)\n"
        "open('/shared/heard', 'w').write('yes'); time.sleep(600)"
    )
    probe = {"exec": {"command": ["grep", "yes", "/shared/heard"]}, "periodSeconds": 1}
    mounts = [{"name": "v", "mountPath": "/shared"}]
    other = cluster.container(
        "other", talk, ports=[], volumeMounts=mounts, readinessProbe=probe
    )  # fmt: skip
    cluster.create(
        cluster.pod(
            "web",
            containers=[cluster.container("app", volumeMounts=mounts), other],
            volumes=[{"name": "v", "emptyDir": {"medium": "Memory"}}],
            terminationGracePeriodSeconds=1,
        )
    )
    await cluster.running("web")
