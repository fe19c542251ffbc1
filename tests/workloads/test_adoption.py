"""The daemon comes and goes, the engine goes and comes: pods stay what they are."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from knlocal.clock import SystemClock
from knlocal.resources.base import GroupKind, status_of
from knlocal.resources.core.kinds import KINDS
from knlocal.resources.kinds import KindRegistry
from knlocal.runtime.api import EngineUnavailable, PodId, Runtime
from knlocal.store.store import Store
from tests.workloads.conftest import (
    Cluster,
    container_status,
    is_ready,
    make_runtime,
    run_cluster,
    state,
)

POD = GroupKind("", "Pod")
Meanwhile = Callable[[Cluster, Runtime, PodId], Any]


class Daemons:
    """One store and one project; daemons follow each other."""

    def __init__(self, engine: str, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.store = Store(KindRegistry(KINDS), SystemClock())
        self.project = f"test-adopt-{uuid.uuid4().hex[:8]}"

    async def runtime(self) -> Runtime:
        found = make_runtime(self.engine, self.project, self.folder)
        await found.start()
        return found

    def daemon(self, runtime: Runtime) -> run_cluster:
        return run_cluster(self.store, runtime, self.folder)


@pytest.fixture
async def daemons(engine: str, tmp_path: Path) -> AsyncIterator[Daemons]:
    found = Daemons(engine, tmp_path)
    yield found
    runtime = await found.runtime()
    await asyncio.gather(*(runtime.remove(state.id) for state in await runtime.pods()))
    await runtime.close()


async def first_life(daemons: Daemons, **spec: Any) -> tuple[PodId, dict[str, Any]]:
    """Run a pod until it is ready, then let the daemon go."""
    runtime = await daemons.runtime()
    async with daemons.daemon(runtime) as cluster:
        cluster.create(cluster.pod("web", **spec))
        pod = await cluster.running("web")
    await runtime.close()
    return PodId("default", "web", pod["metadata"]["uid"]), container_status(pod)


async def test_a_new_daemon_adopts_what_runs(daemons: Daemons) -> None:
    _, before = await first_life(daemons)
    runtime = await daemons.runtime()
    versions = [daemons.store.version]
    async with daemons.daemon(runtime) as cluster:
        seen: list[bool] = []
        cluster.store.subscribe(
            lambda e: seen.append(is_ready(e.obj)) if e.obj["kind"] == "Pod" else None
        )
        await cluster.comes(lambda: cluster.kubelet.workers and not cluster.kubelet.busy)
        pod = await cluster.running("web")
        assert container_status(pod)["containerID"] == before["containerID"]
        assert container_status(pod)["state"] == before["state"]
        assert container_status(pod)["restartCount"] == 0
        assert await cluster.get("web") == (200, "hello web")
        assert all(seen), versions
        await cluster.get("web", "/exit")  # and it is watched
        await cluster.pod_where(
            "web", lambda p: container_status(p)["restartCount"] == 1 and is_ready(p)
        )
    await runtime.close()


@pytest.mark.parametrize("policy", ["Always", "Never"])
async def test_a_pod_that_vanished_meanwhile_is_restarted_or_failed(
    daemons: Daemons, policy: str
) -> None:
    id_, _ = await first_life(daemons, restartPolicy=policy)
    runtime = await daemons.runtime()
    await runtime.remove(id_)
    async with daemons.daemon(runtime) as cluster:
        if policy == "Never":
            pod = await cluster.pod_where("web", lambda p: status_of(p)["phase"] == "Failed")
            ended = state(pod)["terminated"]
        else:
            pod = await cluster.pod_where(
                "web", lambda p: container_status(p)["restartCount"] == 1 and is_ready(p)
            )
            ended = state(pod, which="lastState")["terminated"]
            assert (await cluster.get("web"))[0] == 200
        assert ended["reason"] == "ContainerStatusUnknown"
    await runtime.close()


async def test_a_container_that_ended_meanwhile_is_noticed(daemons: Daemons) -> None:
    id_, _ = await first_life(daemons)
    runtime = await daemons.runtime()
    await runtime.stop_container(id_, "app", 5)
    async with daemons.daemon(runtime) as cluster:
        pod = await cluster.pod_where(
            "web", lambda p: container_status(p)["restartCount"] == 1 and is_ready(p)
        )
        assert state(pod, which="lastState")["terminated"]["exitCode"] == 0
    await runtime.close()


async def test_a_pod_deleted_while_the_daemon_was_away_is_ended(daemons: Daemons) -> None:
    await first_life(daemons)
    daemons.store.delete(POD, "default", "web", grace_seconds=2)
    runtime = await daemons.runtime()
    async with daemons.daemon(runtime) as cluster:
        await cluster.gone("web")
        assert await runtime.pods() == []
    await runtime.close()


async def test_what_nobody_owns_is_removed(daemons: Daemons) -> None:
    await first_life(daemons)
    daemons.store.delete(POD, "default", "web", grace_seconds=0)
    runtime = await daemons.runtime()
    async with daemons.daemon(runtime) as cluster:
        await cluster.gone_from_engine()
    await runtime.close()


async def test_shutdown_leaves_nothing(daemons: Daemons) -> None:
    runtime = await daemons.runtime()
    daemon = daemons.daemon(runtime)
    async with daemon as cluster:
        cluster.create(cluster.pod("web"))
        await cluster.running("web")
    await daemon.cluster.kubelet.shutdown(grace_seconds=1)
    assert await runtime.pods() == []
    assert not list((daemons.folder / "node").glob("pods/*"))
    async with daemons.daemon(runtime) as cluster:
        pod = await cluster.running("web")
        assert container_status(pod)["restartCount"] == 0
    await runtime.close()


async def test_an_engine_that_hangs_does_not_keep_the_daemon_from_ending(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("knlocal.workloads.kubelet._SHUTDOWN_SECONDS", 0.1)
    runtime = await daemons.runtime()
    daemon = daemons.daemon(runtime)
    async with daemon as cluster:
        cluster.create(cluster.pod("web"))
        await cluster.running("web")
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "remove", lambda *_: asyncio.Event().wait())
        await daemon.cluster.kubelet.shutdown(grace_seconds=0)
    assert "try: knlocal down" in caplog.text
    await runtime.close()


async def test_a_removed_sandbox_is_made_anew(daemons: Daemons, engine: str) -> None:
    if engine == "process":
        pytest.skip("processes have no sandbox")
    runtime = await daemons.runtime()
    async with daemons.daemon(runtime) as cluster:
        cluster.create(cluster.pod("web"))
        await cluster.running("web")
        out = await asyncio.create_subprocess_exec(
            "docker", "ps", "-q", "--filter", f"label=dev.knlocal.project={daemons.project}",
            "--filter", "label=dev.knlocal.role=sandbox", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        sandbox = (await out.communicate())[0].decode().split()
        kill = await asyncio.create_subprocess_exec(
            "docker", "rm", "-f", *sandbox, stdout=asyncio.subprocess.DEVNULL
        )
        await kill.wait()
        await cluster.pod_where(
            "web", lambda p: container_status(p)["restartCount"] == 1 and is_ready(p)
        )
        assert (await cluster.get("web"))[0] == 200
        assert cluster.events("SandboxChanged")
    await runtime.close()


async def test_while_the_engine_is_away_pods_stay_and_then_go_on(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await daemons.runtime()
    down = False
    for name in ("prepare", "start_container", "inspect", "remove", "healthy", "start", "pods"):
        real = getattr(runtime, name)

        async def call(*args: Any, real: Any = real, name: str = name, **named: Any) -> Any:
            if down and name == "healthy":
                return False
            if down:
                raise EngineUnavailable("the engine is on holiday")
            return await real(*args, **named)

        monkeypatch.setattr(runtime, name, call)
    async with daemons.daemon(runtime) as cluster:
        told: list[bool] = []
        cluster.kubelet.engine_changed.append(told.append)
        cluster.create(cluster.pod("old"))
        await cluster.running("old")
        down = True
        cluster.create(cluster.pod("new"))
        await cluster.comes(lambda: told == [False])
        assert is_ready(cluster.find("old") or {})
        down = False
        await cluster.running("new")
        assert told == [False, True]
        assert container_status(cluster.find("old") or {})["restartCount"] == 0
    await runtime.close()
