"""What others do to containers behind knlocal's back: pods say so, and recover by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from knlocal.clock import VirtualClock
from knlocal.resources.base import Obj, status_of
from tests.workloads.conftest import (
    LISTENS,
    POD,
    SERVER,
    Cluster,
    container_status,
    is_ready,
    state,
)

pytestmark = [pytest.mark.docker, pytest.mark.parametrize("engine", ["docker"], indirect=True)]

Attack = Callable[[Cluster, Obj], Any]


async def docker(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "docker", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode().strip()
    assert process.returncode == 0, said
    return said


@pytest.fixture
def clock() -> VirtualClock:
    """Back-off passes when a test says so."""
    return VirtualClock()


def container_of(pod: Obj, name: str = "app") -> str:
    return str(container_status(pod, name)["containerID"]).rpartition("/")[2]


async def sandbox_of(pod: Obj) -> str:
    uid, role = pod["metadata"]["uid"], "dev.knlocal.role=sandbox"
    return await docker(
        "ps", "-q", "--filter", f"label=dev.knlocal.uid={uid}", "--filter", f"label={role}"
    )


def restarted(times: int) -> Callable[[Obj], bool]:
    return lambda pod: container_status(pod)["restartCount"] == times and is_ready(pod)


async def test_a_paused_container_is_not_ready_until_it_goes_on(cluster: Cluster) -> None:
    cluster.create(cluster.pod("web"))
    pod = await cluster.running("web")
    await docker("pause", container_of(pod))
    pod = await cluster.pod_where("web", lambda p: not is_ready(p))
    assert "running" in state(pod)
    assert "docker unpause" in cluster.events("Unhealthy")[-1]["message"]
    await docker("unpause", container_of(pod))
    pod = await cluster.running("web")
    assert container_status(pod)["restartCount"] == 0
    assert await cluster.get("web") == (200, "hello web")


async def test_a_paused_container_without_probes_is_not_ready_either(cluster: Cluster) -> None:
    one = cluster.container("other", SERVER)
    cluster.create(cluster.pod("web", containers=[one]))
    pod = await cluster.running("web")
    await docker("pause", container_of(pod, "other"))
    await cluster.pod_where("web", lambda p: not is_ready(p))
    await docker("unpause", container_of(pod, "other"))
    await cluster.running("web")


async def test_a_paused_container_that_shall_live_is_restarted(cluster: Cluster) -> None:
    probe = {"httpGet": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1,
             "timeoutSeconds": 3}  # fmt: skip
    one = cluster.container("app", livenessProbe=probe, startupProbe=LISTENS)
    cluster.create(cluster.pod("web", containers=[one], terminationGracePeriodSeconds=1))
    pod = await cluster.running("web")
    await docker("pause", container_of(pod))
    await cluster.pod_where("web", restarted(1))


async def stopped(_: Cluster, pod: Obj) -> None:
    await docker("stop", container_of(pod))


async def killed(_: Cluster, pod: Obj) -> None:
    await docker("kill", container_of(pod))


async def removed(_: Cluster, pod: Obj) -> None:
    await docker("rm", "-f", container_of(pod))


async def sandbox_killed(_: Cluster, pod: Obj) -> None:
    await docker("kill", await sandbox_of(pod))


async def sandbox_removed(_: Cluster, pod: Obj) -> None:
    await docker("rm", "-f", await sandbox_of(pod))


async def everything_removed(_: Cluster, pod: Obj) -> None:
    await docker("rm", "-f", container_of(pod), await sandbox_of(pod))


@pytest.mark.parametrize(
    "attack", [stopped, killed, removed, sandbox_killed, sandbox_removed, everything_removed]
)
async def test_whatever_is_taken_away_comes_back(
    cluster: Cluster, virtual_clock: VirtualClock, attack: Attack
) -> None:
    cluster.create(cluster.pod("web"))
    await attack(cluster, await cluster.running("web"))
    pod = await cluster.pod_where("web", restarted(1))
    assert await cluster.get("web") == (200, "hello web")
    ended = state(pod, which="lastState")["terminated"]
    assert ended["exitCode"] in (0, 137)
    # … and when it happens again the pod waits, as crashing ones do, and comes back once more.
    await attack(cluster, pod)
    await cluster.pod_where(
        "web", lambda p: state(p).get("waiting", {}).get("reason") == "CrashLoopBackOff"
    )
    await cluster.manager.settled()
    await virtual_clock.advance(10)
    pod = await cluster.pod_where("web", restarted(2))
    assert await cluster.get("web") == (200, "hello web")
    assert not [e for e in cluster.events("Failed") if "removed meanwhile" in e["message"]]


async def test_a_pod_that_lost_its_network_gets_another(cluster: Cluster) -> None:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    cluster.create(cluster.pod("web", containers=[cluster.container("app", readinessProbe=probe)]))
    pod = await cluster.running("web")
    await docker("network", "disconnect", "bridge", await sandbox_of(pod))
    await cluster.pod_where("web", restarted(1))
    assert await cluster.get("web") == (200, "hello web")
    assert cluster.events("SandboxChanged")


async def test_a_pod_under_attack_can_be_deleted(cluster: Cluster) -> None:
    cluster.create(cluster.pod("web", terminationGracePeriodSeconds=1))
    pod = await cluster.running("web")
    await docker("kill", await sandbox_of(pod))
    cluster.store.delete(POD, "default", "web")
    await cluster.gone("web")
    assert not await cluster.runtime.pods()
    assert status_of(pod)["podIP"]
