"""How a pod goes (k8s.io/kubernetes pkg/kubelet/kuberuntime killContainersWithSyncResult):
drain its requests, preStop hooks, SIGTERM, grace, SIGKILL, then the object itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from knlocal.resources.base import annotations_of, is_deleting, uid_of
from knlocal.resources.status import NotFound, StatusError
from knlocal.runtime.api import EngineUnavailable, RuntimeFailure
from knlocal.workloads.containers import Container
from knlocal.workloads.grace import Grace
from knlocal.workloads.lifecycle import run_hook
from knlocal.workloads.podstatus import is_terminal
from knlocal.workloads.signalling import is_deaf
from knlocal.workloads.terms import DRAIN, POD

if TYPE_CHECKING:
    from knlocal.workloads.podworker import PodWorker

log = logging.getLogger(__name__)

#: Seconds between two attempts while the engine is away or refuses.
_RETRY_SECONDS = 1.0
#: Seconds given to starts under way before the pod is stopped all the same.
_SETTLE_SECONDS = 30.0
#: Kubernetes gives at least this long to what gets SIGTERM after a slow preStop hook.
_LEAST_GRACE = 2.0


class PodEnding:
    """The end of one pod, as a task of its own."""

    def __init__(
        self, worker: PodWorker, seconds: float, operations: Sequence[asyncio.Task[None]]
    ) -> None:
        self._worker = worker
        self._node = worker.node
        self._forced = seconds <= 0
        self._grace = Grace(worker.node.machine_clock, seconds)
        self._began = worker.node.machine_clock.monotonic()
        self._stopping = False
        self._drained = False
        """Every drain hook has ended: no request is in flight."""
        self._task = asyncio.create_task(self._run(operations), name=f"end {worker.id.name}")

    @property
    def done(self) -> bool:
        return self._task.done()

    def shorten(self, seconds: float) -> None:
        """The grace is no longer than `seconds` from now."""
        self._grace.shorten(seconds)
        if self._stopping and seconds < self._grace.left + 0.001:
            for container in self._running():
                self._node.machine_clock.call_later(0, self._kill, container.name, seconds)

    def shorten_to(self, seconds: float) -> None:
        """The grace is `seconds` counted from when the ending began."""
        gone = self._node.machine_clock.monotonic() - self._began
        if seconds - gone < self._grace.left - 0.5:
            self.shorten(max(0.0, seconds - gone))

    def cancel(self) -> None:
        """The daemon goes; the next one goes on with this."""
        self._task.cancel()
        self._grace.close()

    # -- the stages ---------------------------------------------------------------------------

    async def _run(self, operations: Sequence[asyncio.Task[None]]) -> None:
        worker = self._worker
        if operations:
            await asyncio.wait(operations, timeout=_SETTLE_SECONDS)
        if not is_terminal(worker.pod):
            await self._drain()
            if not self._forced and self._node.retain and await self._retained():
                return
            worker.probing.stop_all()
            await self._stop_containers()
        worker.probing.stop_all()
        await self._persist(lambda: self._node.runtime.remove(worker.id, 0))
        await asyncio.to_thread(worker.run.volumes.tear_down)
        self._delete_object()
        self._grace.close()
        worker.poke()

    async def _drain(self) -> None:
        """Let requests in flight end."""
        pod = self._worker.pod
        if self._forced or not self._running() or annotations_of(pod).get(DRAIN) == "false":
            return
        drained = True
        for hook in self._node.drain_hooks:
            try:
                drained = await self._grace.bound(hook(pod)) and drained
            except Exception:
                log.exception("pod %s: a drain hook failed", self._worker.id.name)
                drained = False
        self._drained = drained and bool(self._node.drain_hooks)

    async def _retained(self) -> bool:
        """Whether somebody keeps the containers (a frozen standby)."""
        worker = self._worker
        assert self._node.retain is not None
        try:
            if not await self._node.retain(worker):
                return False
        except RuntimeFailure:
            return False
        worker.let_go()
        self._delete_object()
        self._grace.close()
        return True

    async def _stop_containers(self) -> None:
        self._stopping = True
        apps = [c for c in self._running() if c.role != "sidecar"]
        sidecars = [c for c in self._running() if c.role == "sidecar"]
        for container in self._running():
            self._worker.run.recorder.normal(
                self._worker.pod, "Killing", f"Stopping container {container.name}"
            )
        await asyncio.gather(*(self._stop(c) for c in apps))
        await asyncio.gather(*(self._stop(c) for c in sidecars))
        await self._worker.see_ends()

    async def _stop(self, container: Container) -> None:
        worker = self._worker
        if (container.spec.get("lifecycle") or {}).get("preStop") and worker.state:
            hook = run_hook(
                self._node, container.spec, "preStop", worker.probing.target(container),
                worker.probing.ports(container), seconds=max(self._grace.left, 0.001),
            )  # fmt: skip
            await self._grace.bound(hook)
        least = 0.0 if self._forced else min(_LEAST_GRACE, self._seconds_wanted())
        deaf = self._drained and await is_deaf(worker.run, container)

        def stop() -> Awaitable[None]:
            seconds = 0.0 if deaf else max(self._grace.left, least)
            return self._node.runtime.stop_container(worker.id, container.name, seconds)

        await self._persist(stop)

    def _seconds_wanted(self) -> float:
        metadata = self._worker.pod["metadata"]
        return float(metadata.get("deletionGracePeriodSeconds") or 0)

    def _kill(self, name: str, seconds: float) -> None:
        task = asyncio.ensure_future(
            self._node.runtime.stop_container(self._worker.id, name, seconds)
        )
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _delete_object(self) -> None:
        id_ = self._worker.id
        pod = self._node.store.find(POD, id_.namespace, id_.name)
        if pod is None or uid_of(pod) != id_.uid or not is_deleting(pod):
            return
        try:
            self._node.store.delete(POD, id_.namespace, id_.name, grace_seconds=0, uid=id_.uid)
        except (NotFound, StatusError) as error:
            log.debug("pod %s: %s", id_.name, error)

    # -- helpers ------------------------------------------------------------------------------

    def _running(self) -> list[Container]:
        return [c for c in self._worker.containers if c.running and c.role != "shown"]

    async def _persist(self, call: Callable[[], Awaitable[object]]) -> None:
        """Until the engine has done it: nothing may be left behind."""
        while True:
            try:
                await call()
                return
            except EngineUnavailable:
                self._node.engine_lost()
            except RuntimeFailure as error:
                log.warning("pod %s: %s", self._worker.id.name, error)
            await self._node.machine_clock.sleep(_RETRY_SECONDS)
