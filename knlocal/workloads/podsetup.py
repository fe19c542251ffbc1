"""Getting a pod ready to run: its images, its plan with all it refers to, its sandbox."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace

from knlocal.resources.base import Obj, spec_of
from knlocal.runtime.api import EngineUnavailable, ImageMissing, RuntimeFailure
from knlocal.workloads.environment import ConfigError
from knlocal.workloads.podplan import run_containers, serving_container
from knlocal.workloads.podrun import PodRun

#: Seconds (real time) after which something the engine refused is tried again: first, and at most.
_RETRY_SECONDS = 1.0
_RETRY_MOST = 30.0


class PodSetUp:
    """Sets a pod up once, and keeps what it refers to up to date."""

    def __init__(self, run: PodRun) -> None:
        self._run = run
        self._failures = 0
        self._touched = False

    async def ensure(self) -> bool:
        """True when the pod may run; else its containers say what they wait for."""
        run = self._run
        async with run.setting_up:
            if not run.is_set_up:
                await self._attempt()
        return run.is_set_up

    async def hold(self, late: str, labels: Mapping[str, str]) -> bool:
        """Have the serving container started up to where its program begins, for a pod that is no
        object yet. False when that is not possible. Raises ConfigError, RuntimeFailure."""
        run = self._run
        async with run.setting_up:
            apps = [c for c in run.containers if c.role != "shown"]
            serving = serving_container(run_containers(run.pod))
            if serving is None or _asks_for_ip(run.pod):
                return False
            if not await run.images.ensure(run.pod, apps):
                return False
            plan = replace(run.make_plan(), labels=labels)
            return await run.node.runtime.hold(plan, str(serving["name"]), late)

    async def renew(self) -> bool:
        """Of a pod that has not started: after something its plan depends on has changed. False
        when that failed."""
        run = self._run
        async with run.setting_up:
            try:
                plan = run.make_plan()
                if plan != run.plan:
                    run.state = await run.node.runtime.prepare(plan)
                    run.plan = plan
            except (ConfigError, RuntimeFailure):
                return False
        return True

    def touched(self) -> None:
        """Something the pod uses (a ConfigMap, Secret or claim) has changed."""
        self._touched = True

    def follow_config(self) -> None:
        """Write volumes anew when what they show has changed, or a token is about to expire."""
        run, due = self._run, self._run.volumes.refresh_at
        if not self._touched and (due is None or run.node.clock.now() < due):
            return
        self._touched = False
        if run.plan is None:
            return
        with contextlib.suppress(ConfigError):  # what was deleted stays as it was, as in Kubernetes
            run.volumes.set_up(run.pod, run.facts())
        for container in run.containers:
            if container.waiting and container.waiting[0] == "CreateContainerConfigError":
                container.start_at = 0.0

    # -- the attempt --------------------------------------------------------------------------

    async def _attempt(self) -> None:
        run = self._run
        try:
            await self._set_up()
        except ConfigError as error:
            self._failed(error.container, error.reason, error.message)
        except EngineUnavailable:
            run.node.engine_lost()
        except RuntimeFailure as error:
            if isinstance(error, ImageMissing):
                run.images.forget()
            self._failed("", error.reason, error.message)
            wait = min(_RETRY_MOST, _RETRY_SECONDS * 2 ** min(self._failures - 1, 5))
            run.node.machine_clock.call_later(wait, run.poke)
        else:
            self._failures = 0
            run.problem_solved()

    async def _set_up(self) -> None:
        run = self._run
        to_run = [c for c in run.containers if c.role != "shown"]
        adopting = run.ran_before and run.state is not None and run.any_running
        if adopting:
            await run.images.peek(to_run)
        elif not await run.images.ensure(run.pod, to_run):
            return
        plan = run.make_plan()
        if run.state is None and _asks_for_ip(run.pod):
            # The address is known once the sandbox stands, and the containers want to know it.
            bare = replace(plan, containers=(), init_containers=())
            run.state = await run.node.runtime.prepare(bare)
            plan = run.make_plan()
        if not adopting:  # else it stays as it runs
            run.state = await run.node.runtime.prepare(plan)
        run.plan = plan
        run.ran_before = False

    def _failed(self, name: str, reason: str, message: str) -> None:
        """Containers that cannot be made yet say why, and an Event does."""
        run = self._run
        self._failures += 1
        if reason == "FailedMount":
            run.warn_once("FailedMount", message)
            return
        if reason == "CreatePodSandboxError":
            run.warn_once("FailedCreatePodSandBox", f"Failed to create pod sandbox: {message}")
            return
        run.warn_once("Failed", f"Error: {message}")
        for container in run.containers:
            if container.waiting and container.role != "shown" and name in ("", container.name):
                container.wait(reason, message)


def _asks_for_ip(pod: Obj) -> bool:
    spec = spec_of(pod)
    paths = [
        str(((variable.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath") or "")
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
        for variable in container.get("env") or ()
    ]
    return any(path.startswith("status.podIP") for path in paths)
