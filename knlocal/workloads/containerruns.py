"""Starting, restarting and stopping the containers of a pod that is set up."""

from __future__ import annotations

from datetime import datetime

from knlocal.resources.base import spec_of
from knlocal.runtime.api import ContainerState, EngineUnavailable, ImageMissing, RuntimeFailure
from knlocal.workloads.containers import Container
from knlocal.workloads.environment import ConfigError
from knlocal.workloads.lifecycle import run_hook
from knlocal.workloads.podprobing import PodProbing
from knlocal.workloads.podrun import PodRun
from knlocal.workloads.probes import Which
from knlocal.workloads.signalling import is_deaf

#: Seconds after which a container whose configuration is missing is tried again unasked.
_CONFIG_RETRY_SECONDS = 60.0
_HOOK_SECONDS = 600.0
_START_ERROR = 128


class ContainerRuns:
    """Decides for each container whether it shall start now, and has it started or stopped."""

    def __init__(self, run: PodRun) -> None:
        self._run = run
        self.probing = PodProbing(run, self._probe_failed)

    def drive_all(self) -> None:
        """Init containers one by one, then the others together."""
        containers = self._run.containers
        for container in containers:
            if container.role == "init":
                if not container.succeeded:
                    self._drive(container)
                    return
            elif container.role == "sidecar":
                self._drive(container)
                if not container.started:
                    return
        for container in containers:
            if container.role == "app":
                self._drive(container)
            elif container.role == "shown" and not container.running:
                self._show(container)

    def stop_running(self) -> None:
        """Stop what runs, for good."""
        for container in self._run.containers:
            if container.running and container.role != "shown" and not container.busy:
                message = f"Stopping container {container.name}"
                self._run.operate(container, self._stop(container, message))

    def apps_done(self) -> bool:
        """Every app container has ended and will not be restarted."""
        apps = [c for c in self._run.containers if c.role == "app"]
        return bool(apps) and all(c.terminated is not None and not self._restarts(c) for c in apps)

    # -- deciding -----------------------------------------------------------------------------

    def _drive(self, container: Container) -> None:
        """Start a container that shall run and does not, unless it must wait."""
        if container.busy or container.running:
            return
        now = self._run.node.clock.monotonic()
        if container.terminated is not None:
            if not self._restarts(container):
                return
            container.start_at = container.backoff.due(container.failed_at)
            if now < container.start_at:
                self._back_off(container)
                return
        elif now < container.start_at:
            return
        self._run.operate(container, self._start(container))

    def _restarts(self, container: Container) -> bool:
        policy = spec_of(self._run.pod).get("restartPolicy") or "Always"
        if container.role == "sidecar":
            return not self.apps_done()
        if container.role == "init" and policy == "Always":
            policy = "OnFailure"
        return policy == "Always" or (policy == "OnFailure" and not container.succeeded)

    def _back_off(self, container: Container) -> None:
        run, seconds = self._run, container.backoff.seconds
        pod = f"{run.id.name}_{run.id.namespace}({run.id.uid})"
        wait = f"{seconds:g}s" if seconds < 60 else f"{int(seconds // 60)}m{int(seconds % 60)}s"
        container.wait(
            "CrashLoopBackOff",
            f"back-off {wait} restarting failed container={container.name} pod={pod}",
        )
        message = f"Back-off restarting failed container {container.name} in pod {pod}"
        run.recorder.warning(run.pod, "BackOff", message)

    def _show(self, container: Container) -> None:
        """Knative's queue-proxy: knlocal's gateway plays its part."""
        identity = f"knlocal-{self._run.id.uid[:8]}-queue-proxy"
        container.run(
            ContainerState(container.name, "running", identity), self._run.node.clock.now()
        )
        container.started = container.ready = True

    # -- starting -----------------------------------------------------------------------------

    async def _start(self, container: Container) -> None:
        run = self._run
        again = container.terminated is not None or container.last_terminated is not None
        now, began = run.node.clock.monotonic(), run.node.clock.now()
        try:
            if again:
                run.plan = run.make_plan()  # variables are looked up anew at each restart
            assert run.plan is not None
            state = await run.node.runtime.start_container(run.plan, container.name)
            if again:  # the sandbox may have been made anew for it
                run.state = await run.node.runtime.inspect(run.id) or run.state
        except EngineUnavailable:
            run.node.engine_lost()
            return
        except ConfigError as error:
            container.wait(error.reason, error.message)
            container.start_at = now + _CONFIG_RETRY_SECONDS
            run.warn_once("Failed", f"Error: {error.message}")
            return
        except RuntimeFailure as error:
            if run.is_clearing:
                return
            if again:
                self._count_restart(container, now)
            self._could_not_start(container, error)
            return
        if run.is_clearing:
            return  # its sandbox was lost meanwhile: it goes with that, and is started anew
        if again:
            self._count_restart(container, now)
        self._runs(container, state, began)
        await self._after_start(container)

    @staticmethod
    def _count_restart(container: Container, now: float) -> None:
        container.restarts += 1
        container.backoff.attempted(now)

    def _runs(self, container: Container, state: ContainerState, began: datetime) -> None:
        run = self._run
        # Two clocks do not agree to the millisecond: it did not start before it was told to.
        container.run(state, max(began, run.node.on_policy_clock(state.started_at)))
        self.probing.begin(container)
        run.publish()
        run.recorder.normal(run.pod, "Created", f"Created container: {container.name}")
        run.recorder.normal(run.pod, "Started", f"Started container {container.name}")

    async def _after_start(self, container: Container) -> None:
        if not (container.spec.get("lifecycle") or {}).get("postStart"):
            return
        run = self._run
        problem = await run_hook(
            run.node,
            container.spec,
            "postStart",
            self.probing.target(container),
            self.probing.ports(container),
            seconds=_HOOK_SECONDS,
        )
        if problem and container.running:
            message = f"PostStartHook failed: {problem}"
            run.recorder.warning(run.pod, "FailedPostStartHook", message)
            await self._stop(container, "FailedPostStartHook")

    def _could_not_start(self, container: Container, error: RuntimeFailure) -> None:
        run, clock = self._run, self._run.node.clock
        run.recorder.warning(run.pod, "Failed", f"Error: {error.message}")
        if isinstance(error, ImageMissing):
            run.images.forget()
            run.plan = None
            container.wait(error.reason, error.message)
            return
        now = clock.monotonic()
        container.end(
            _START_ERROR, clock.now(), reason="StartError", message=error.message, now=now
        )
        if self._restarts(container):
            container.wait(error.reason, error.message)
            if not container.backoff.seconds:
                container.backoff.attempted(now)
            container.start_at = container.backoff.due(now)

    # -- stopping -----------------------------------------------------------------------------

    def _probe_failed(self, container: Container, which: Which) -> None:
        if container.busy or not container.running:
            return
        message = f"Container {container.name} failed {which.lower()} probe, will be restarted"
        self._run.operate(container, self._stop(container, message, which))

    async def _stop(self, container: Container, message: str, which: Which | None = None) -> None:
        run = self._run
        run.recorder.normal(run.pod, "Killing", message)
        self.probing.stop(container)
        probe = container.spec.get(f"{which.lower()}Probe") or {} if which else {}
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is None:
            grace = spec_of(run.pod).get("terminationGracePeriodSeconds", 30)
        if await is_deaf(run, container):
            grace = 0
        try:
            await run.node.runtime.stop_container(run.id, container.name, float(grace))
        except EngineUnavailable:
            run.node.engine_lost()
        except RuntimeFailure as error:
            run.recorder.warning(run.pod, "FailedKillPod", error.message)
        run.must_look = True
