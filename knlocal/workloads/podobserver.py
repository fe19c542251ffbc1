"""Seeing what happened to a pod's containers, and noting how they ended."""

from __future__ import annotations

import asyncio
import logging

from knlocal.runtime.api import ContainerState, EngineUnavailable, PodState, RuntimeFailure
from knlocal.workloads.containers import Container
from knlocal.workloads.podprobing import PodProbing
from knlocal.workloads.podrun import PodRun
from knlocal.workloads.termination import termination_message

log = logging.getLogger(__name__)

_KILLED = 137
_SETTLE_SECONDS = 30.0


class PodObserver:
    """Compares what the engine shows with what was known."""

    def __init__(self, run: PodRun, probing: PodProbing) -> None:
        self._run = run
        self._probing = probing

    async def look(self) -> None:
        """One question to the engine; containers that something is being done with are left for
        the next look."""
        run = self._run
        try:
            state = await run.node.runtime.inspect(run.id)
        except EngineUnavailable:
            run.node.engine_lost()
            return
        run.must_look = any(c.busy for c in run.containers)
        if state is None:
            run.plan = None
        run.state = state
        if state is not None and not state.ip and _any_runs(state):
            self.sandbox_lost()  # someone took it off its network (kubelet: "no IP address")
            return
        for container in run.containers:
            if container.role != "shown" and not container.busy:
                await self._compare(
                    container, state.containers.get(container.name) if state else None
                )

    async def see_ends(self) -> None:
        """After everything was stopped: note how each container ended."""
        run = self._run
        try:
            state = await run.node.runtime.inspect(run.id)
        except RuntimeFailure:
            return
        for container in run.containers:
            seen = state.containers.get(container.name) if state else None
            if container.role == "shown" and container.running:
                container.end(0, run.node.clock.now())
            elif container.running and seen is not None and seen.state == "exited":
                await self._ended(container, seen)
        run.publish()

    def sandbox_lost(self) -> None:
        """Someone removed the sandbox: the containers have no network; all start afresh."""
        run = self._run
        if run.state is None or run.is_clearing:
            return
        run.state = run.plan = None
        message = "Pod sandbox changed, it will be killed and re-created."
        run.recorder.normal(run.pod, "SandboxChanged", message)
        self._probing.stop_all()
        under_way = [c.operation for c in run.containers if c.busy and c.operation]
        run.clearing = run.background.spawn(self._clear(under_way))
        for container in run.containers:
            if container.role != "shown":
                container.operation = run.clearing

    # -- one container ------------------------------------------------------------------------

    async def _compare(self, container: Container, seen: ContainerState | None) -> None:
        run = self._run
        runs = seen is not None and seen.state in ("running", "paused")
        if container.running:
            if seen is None or seen.state in ("missing", "created"):
                self._vanished(container)
            elif not runs:
                await self._ended(container, seen)
            elif container.paused != (seen.state == "paused"):
                self._paused(container, seen)
            else:
                self._probing.resume(container)
        elif container.waiting is not None and seen is not None:
            if runs:
                container.run(seen, run.node.on_policy_clock(seen.started_at))
                self._probing.begin(container)
            elif seen.state == "exited" and seen.container_id != container.container_id:
                container.started_at = run.node.on_policy_clock(seen.started_at)
                container.container_id = seen.container_id
                await self._ended(container, seen)

    def _paused(self, container: Container, seen: ContainerState) -> None:
        """The engine's own pause: Kubernetes has no word for it, but such a container answers
        nobody. It is not ready until it goes on."""
        container.paused = seen.state == "paused"
        if container.paused:
            container.ready = False
            self._run.recorder.warning(
                self._run.pod,
                "Unhealthy",
                f"Container {container.name} is paused; to go on: docker unpause "
                f"{seen.container_id[:12]}",
            )
        self._probing.begin(container)

    async def _ended(self, container: Container, seen: ContainerState) -> None:
        run = self._run
        self._probing.stop(container)
        code = seen.exit_code if seen.exit_code is not None else _KILLED
        message = await termination_message(run.node, run.id, container.spec, code)
        reason = "OOMKilled" if seen.oom_killed else "ContainerCannotRun" if seen.error else ""
        container.end(
            code,
            run.node.on_policy_clock(seen.finished_at),
            reason=reason,
            message=message or seen.error,
            now=run.node.clock.monotonic(),
        )

    def _vanished(self, container: Container) -> None:
        clock = self._run.node.clock
        self._probing.stop(container)
        container.end(
            _KILLED,
            clock.now(),
            reason="ContainerStatusUnknown",
            message="The container could not be located when the pod was terminated",
            now=clock.monotonic(),
        )

    async def _clear(self, under_way: list[asyncio.Task[None]]) -> None:
        run = self._run
        if under_way:
            await asyncio.wait(under_way, timeout=_SETTLE_SECONDS)
        async with run.setting_up:
            try:
                await run.node.runtime.remove(run.id)
            except RuntimeFailure as error:
                log.debug("cannot clear pod %s: %s", run.id.name, error)
            run.state = run.plan = None  # whatever was under way may have seen the rest
        for container in run.containers:
            if container.running and container.role != "shown":
                self._vanished(container)


def _any_runs(state: PodState) -> bool:
    return any(one.state in ("running", "paused") for one in state.containers.values())
