"""One pod, from its object to its containers and back to its status.

`sync` looks at what is wanted and what is so, takes the next step, and says when to look again. It
never waits for a container: starts, stops and pulls are tasks of their own that have the pod looked
at again when they end. The stages, in order: image and plan, sandbox, init containers one by one,
app containers; a pod that is being deleted goes to `PodEnding` instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from knlocal.resources.base import (
    Key,
    Obj,
    is_deleting,
    key_of,
    labels_of,
    parse_timestamp,
    spec_of,
    status_of,
    uid_of,
)
from knlocal.runtime.api import (
    ContainerEvent,
    ContainerState,
    EngineUnavailable,
    ImageMissing,
    PodId,
    PodPlan,
    PodState,
    RuntimeFailure,
)
from knlocal.workloads.containers import Container, containers_of
from knlocal.workloads.environment import ConfigError, PodFacts
from knlocal.workloads.images import PodImages
from knlocal.workloads.lifecycle import run_hook
from knlocal.workloads.node import Node, PodRecorder
from knlocal.workloads.podending import PodEnding
from knlocal.workloads.podplan import (
    DEFAULT_PORT,
    Ground,
    container_ports,
    plan_pod,
    pod_id,
    serving_container,
)
from knlocal.workloads.podstatus import PodView, is_initialized, is_terminal, pod_phase, pod_status
from knlocal.workloads.probe_checks import Ports, Target
from knlocal.workloads.probes import (
    STEADY_PERIOD,
    Prober,
    Probes,
    ProbeSpec,
    Verdicts,
    Which,
    parse_probe,
)
from knlocal.workloads.termination import termination_message
from knlocal.workloads.terms import POD, SERVING_REVISION
from knlocal.workloads.volumes import PodVolumes, references

log = logging.getLogger(__name__)

#: Seconds (real time) after which something the engine refused is tried again.
_RETRY_SECONDS = 1.0
_NO_EXIT_CODE = 137
#: Seconds (real time) that what is under way gets when the daemon goes.
_CLOSE_SECONDS = 3.0
#: Seconds after which a container whose configuration is missing is tried again unasked.
_CONFIG_RETRY_SECONDS = 60.0


class PodWorker:
    """Owns everything that runs for one pod. Called by the kubelet, one call at a time."""

    def __init__(
        self, node: Node, pod: Obj, found: PodState | None = None, *, silent: bool = False
    ) -> None:
        self.node = node
        self.recorder = PodRecorder(node.recorder, silent=silent)
        self.pod = pod
        self.key: Key = key_of(pod)
        self.id: PodId = pod_id(pod)
        self.containers = containers_of(pod, node.clock.now())
        self.images = PodImages(node, self.recorder, self.poke)
        self.volumes = PodVolumes(node.store, node.root, pod, node.issue_token, node.clock.now)
        self.references = references(pod)
        self.plan: PodPlan | None = None
        self.state: PodState | None = found
        self.ending: PodEnding | None = None
        self.frozen = False
        self._probers: dict[str, Prober] = {}
        self._failure: tuple[str, str] | None = None
        self._failed_set_ups = 0
        # A pod that has run before is looked at first: much may have happened meanwhile.
        self._must_look = bool(status_of(pod).get("startTime"))
        self._restore_plan = self._must_look
        self._told_problem = ""
        self._ready_before: set[str] = set()
        self._config_touched = False
        self._setting_up = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        if is_terminal(pod) and status_of(pod).get("reason"):
            status = status_of(pod)
            self._failure = (str(status["reason"]), str(status.get("message") or ""))

    # -- what the kubelet tells ---------------------------------------------------------------

    @property
    def uid(self) -> str:
        return self.id.uid

    @property
    def busy(self) -> bool:
        """Whether something is being done that will soon end."""
        return bool(self._tasks) or (self.ending is not None and not self.ending.done)

    @property
    def done(self) -> bool:
        return self.ending is not None and self.ending.done

    def update(self, pod: Obj) -> None:
        """The object has changed."""
        self.pod = pod

    def gone(self) -> None:
        """The object was removed without waiting for the containers: they go at once."""
        self._end(grace=0)

    def config_touched(self) -> None:
        """A ConfigMap, Secret or claim that the pod uses has changed: `sync` shall follow it."""
        self._config_touched = True

    def _follow_config(self) -> None:
        self._config_touched = False
        if self.plan is None:
            return
        with contextlib.suppress(ConfigError):  # what was deleted stays as it was, as in Kubernetes
            self.volumes.set_up(self.pod, self._facts())
        for container in self.containers:
            if container.waiting and container.waiting[0] == "CreateContainerConfigError":
                container.start_at = 0.0

    def container_event(self, event: ContainerEvent) -> None:
        if event.container == "" and event.what in ("exited", "removed") and self.ending is None:
            self._sandbox_lost()
        elif event.what != "started":
            self._must_look = True

    def look_again(self) -> None:
        """The engine was away, or something may have been missed."""
        self._must_look = True

    async def close(self) -> None:
        """The daemon goes; containers stay. What the engine is just doing is waited for: a call
        that is cut off would be carried out all the same, unseen."""
        self.images.close()
        for prober in self._probers.values():
            prober.cancel()
        if self.ending is not None:
            self.ending.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)

    def poke(self) -> None:
        self.node.poke(self.key)

    # -- as a standby -------------------------------------------------------------------------

    async def prepare(self) -> bool:
        """Make sandbox and containers, and start nothing. False when that failed."""
        return await self._is_set_up()

    async def prepare_anew(self) -> bool:
        """After something the plan depends on has changed. False when that failed."""
        async with self._setting_up:
            try:
                plan = self.make_plan()
                if plan != self.plan:
                    self.state = await self.node.runtime.prepare(plan)
                    self.plan = plan
            except (ConfigError, RuntimeFailure):
                return False
        return True

    def let_go(self) -> None:
        """The containers are kept, paused: stop watching them."""
        self.stop_all_probing()
        self.frozen = True

    def inherit(self, before: PodWorker) -> None:
        """Take over the (paused) containers of a pod whose object is gone."""
        self.plan, self.state, self.images = before.plan, before.state, before.images
        self.containers, self.frozen = before.containers, True
        self._ready_before = {c.name for c in self.containers if c.ready}
        for container in self.containers:
            container.operation, container.ready = None, False

    def begin(self) -> None:
        """It is about to be an object: what happens is told from now on."""
        self.recorder.silent = False

    def wake(self) -> None:
        """Begin to live: one call to the engine for each container, at once."""
        if self.frozen:
            self.frozen = False
            thawing = self._spawn(self._thaw())
            for container in self.containers:
                container.operation = thawing
        elif self.plan is not None and self.state is not None:
            self._drive_all()

    async def _thaw(self) -> None:
        try:
            await self.node.runtime.unpause(self.id)
        except EngineUnavailable:
            self.node.engine_lost()
        except RuntimeFailure:
            pass  # what does not run is seen below
        self._must_look = True
        for container in self.containers:  # what was ready when it was paused is ready now
            container.ready = container.name in self._ready_before
        self.publish()
        for container in self.containers:
            if container.running and container.role in ("app", "sidecar"):
                self._probe(container)

    # -- the stages ---------------------------------------------------------------------------

    async def sync(self) -> float | None:
        """Take the next step. Returns seconds (policy clock) until the next look, or None."""
        if self.ending is not None or self.frozen:
            self._hurry_ending()
            return None
        if is_deleting(self.pod):
            self._end(float(self.pod["metadata"].get("deletionGracePeriodSeconds") or 0))
            return None
        if is_terminal(self.pod) or not self.node.engine_ok:
            return None
        if self._must_look:
            await self._look()
        self._refresh_volumes()
        if self.phase in ("Succeeded", "Failed"):
            pass  # nothing more to run
        elif self._past_deadline():
            self._fail(
                "DeadlineExceeded",
                "Pod was active on the node longer than the specified deadline",
            )
        elif await self._is_set_up():
            self._drive_all()
        self.publish()
        self._finish_sidecars()
        return self._next_look()

    async def _is_set_up(self) -> bool:
        """Images are here, the plan is made and the sandbox stands; else it says why not."""
        async with self._setting_up:
            if self.plan is None or self.state is None:
                await self._try_set_up()
        return self.plan is not None and self.state is not None

    async def _try_set_up(self) -> None:
        try:
            await self._set_up()
        except ConfigError as error:
            self._set_up_failed(error.container, error.reason, error.message)
        except EngineUnavailable:
            self.node.engine_lost()
        except ImageMissing as error:
            self.images.forget()
            self._set_up_failed("", error.reason, error.message)
            self._retry_later()
        except RuntimeFailure as error:
            self._set_up_failed("", error.reason, error.message)
            self._retry_later()
        else:
            self._failed_set_ups = 0
            self._told_problem = ""

    async def _set_up(self) -> None:
        to_run = [c for c in self.containers if c.role != "shown"]
        adopting = self._restore_plan and self.state is not None and self._any_running()
        if adopting:
            await self.images.peek(to_run)
        elif not await self.images.ensure(self.pod, to_run):
            return
        plan = self.make_plan()
        if self.state is None and _asks_for_ip(self.pod):
            # The address is known once the sandbox stands, and the containers want to know it.
            bare = replace(plan, containers=(), init_containers=())
            self.state = await self.node.runtime.prepare(bare)
            plan = self.make_plan()
        if not adopting:  # else it stays as it runs
            self.state = await self.node.runtime.prepare(plan)
        self.plan = plan
        self._restore_plan = False

    def make_plan(self) -> PodPlan:
        """The plan as objects are now. Raises ConfigError."""
        ground = Ground(
            store=self.node.store,
            network=self.node.network,
            facts=self._facts(),
            env_port=self.node.runtime.env_port,
            labels=self.node.runtime_labels(self.pod),
        )
        return plan_pod(self.pod, ground, self.volumes, self.images.found)

    def _facts(self) -> PodFacts:
        ip = self.state.ip if self.state else str(status_of(self.pod).get("podIP") or "")
        return PodFacts(ip=ip, host_ip=self.node.host_ip)

    def _drive_all(self) -> None:
        for container in self.containers:
            if container.role == "init":
                if not container.succeeded:
                    self._drive(container)
                    return
            elif container.role == "sidecar":
                self._drive(container)
                if not container.started:
                    return
        for container in self.containers:
            if container.role == "app":
                self._drive(container)
            elif container.role == "shown" and not container.running:
                self._show(container)

    def _drive(self, container: Container) -> None:
        """Start a container that shall run and does not, unless it must wait."""
        if container.busy or container.running:
            return
        now = self.node.clock.monotonic()
        if container.terminated is not None:
            if not self._restarts(container):
                return
            container.start_at = container.backoff.due(container.failed_at)
            if now < container.start_at:
                self._back_off(container)
                return
        elif now < container.start_at:
            return
        self._operate(container, self._start(container))

    def _restarts(self, container: Container) -> bool:
        policy = spec_of(self.pod).get("restartPolicy") or "Always"
        if container.role == "sidecar":
            return not self._apps_done()
        if container.role == "init" and policy == "Always":
            policy = "OnFailure"
        return policy == "Always" or (policy == "OnFailure" and not container.succeeded)

    def _back_off(self, container: Container) -> None:
        pod = self._pod_words()
        seconds = container.backoff.seconds
        wait = f"{seconds:g}s" if seconds < 60 else f"{int(seconds // 60)}m{int(seconds % 60)}s"
        container.wait(
            "CrashLoopBackOff",
            f"back-off {wait} restarting failed container={container.name} pod={pod}",
        )
        self.recorder.warning(
            self.pod,
            "BackOff",
            f"Back-off restarting failed container {container.name} in pod {pod}",
        )

    def _show(self, container: Container) -> None:
        """Knative's queue-proxy: knlocal's gateway plays its part."""
        state = ContainerState(container.name, "running", f"knlocal-{self.uid[:8]}-queue-proxy")
        container.run(state, self.node.clock.now())
        container.started = container.ready = True

    # -- starting -----------------------------------------------------------------------------

    async def _start(self, container: Container) -> None:
        again = container.terminated is not None or container.last_terminated is not None
        now, began = self.node.clock.monotonic(), self.node.clock.now()
        try:
            if again:
                self.plan = self.make_plan()  # variables are looked up anew at each restart
            assert self.plan is not None
            state = await self.node.runtime.start_container(self.plan, container.name)
        except EngineUnavailable:
            self.node.engine_lost()
            return
        except ConfigError as error:
            container.wait(error.reason, error.message)
            container.start_at = now + _CONFIG_RETRY_SECONDS
            self._tell(f"Error: {error.message}")
            return
        except RuntimeFailure as error:
            if again:
                self._restarted(container, now)
            self._could_not_start(container, error)
            return
        if again:
            self._restarted(container, now)
        self._runs(container, state, began)
        await self._after_start(container)

    @staticmethod
    def _restarted(container: Container, now: float) -> None:
        container.restarts += 1
        container.backoff.attempted(now)

    def _runs(self, container: Container, state: ContainerState, began: datetime) -> None:
        # Two clocks do not agree to the millisecond: it did not start before it was told to.
        container.run(state, max(began, self.node.on_policy_clock(state.started_at)))
        self._probe(container)
        self.publish()
        recorder = self.recorder
        recorder.normal(self.pod, "Created", f"Created container: {container.name}")
        recorder.normal(self.pod, "Started", f"Started container {container.name}")

    async def _after_start(self, container: Container) -> None:
        if not (container.spec.get("lifecycle") or {}).get("postStart"):
            return
        problem = await run_hook(
            self.node, container.spec, "postStart", self.target(container), self.ports(container),
            seconds=600,
        )  # fmt: skip
        if problem and container.running:
            self.recorder.warning(
                self.pod, "FailedPostStartHook", f"PostStartHook failed: {problem}"
            )
            await self._stop(container, "FailedPostStartHook")

    def _could_not_start(self, container: Container, error: RuntimeFailure) -> None:
        now = self.node.clock
        self.recorder.warning(self.pod, "Failed", f"Error: {error.message}")
        if isinstance(error, ImageMissing):
            self.images.forget()
            self.plan = None
            container.wait(error.reason, error.message)
            return
        container.end(
            128, now.now(), reason="StartError", message=error.message, now=now.monotonic()
        )
        if self._restarts(container):
            container.wait(error.reason, error.message)
            if not container.backoff.seconds:
                container.backoff.attempted(now.monotonic())
            container.start_at = container.backoff.due(now.monotonic())

    # -- probing ------------------------------------------------------------------------------

    def _probe(self, container: Container) -> None:
        self._stop_probing(container)
        if container.role == "init":
            return
        ports = self.ports(container)
        spec = container.spec
        probes = Probes(
            startup=None if container.started else parse_probe(spec.get("startupProbe"), ports),
            readiness=self._readiness(parse_probe(spec.get("readinessProbe"), ports)),
            liveness=parse_probe(spec.get("livenessProbe"), ports),
        )
        if probes == Probes():
            container.started = container.ready = True
            return
        verdicts = Verdicts(
            started=lambda: self._set(container, started=True),
            ready=lambda ready: self._set(container, ready=ready),
            failed=lambda which: self._probe_failed(container, which),
            unhealthy=lambda which, message: self.recorder.warning(
                self.pod, "Unhealthy", f"{which} probe failed: {message}"
            ),
        )
        self._probers[container.name] = Prober(
            probes,
            self.target(container),
            verdicts,
            self.node.machine_clock,
            ready=container.ready,
        )

    def _readiness(self, probe: ProbeSpec | None) -> ProbeSpec | None:
        """Serving pods without a period of their own are probed aggressively, as queue-proxy
        does; Kubernetes' defaulting has turned their 0 into 10."""
        if probe and probe.period == STEADY_PERIOD and labels_of(self.pod).get(SERVING_REVISION):
            return replace(probe, period=0.0)
        return probe

    def _set(
        self, container: Container, *, started: bool | None = None, ready: bool | None = None
    ) -> None:
        if not container.running:
            return
        if started is not None:
            container.started = started
            if started and container.role == "sidecar":
                self.poke()
        if ready is not None:
            container.ready = ready
        if ready is not None or container.spec.get("startupProbe"):
            self.publish()

    def _probe_failed(self, container: Container, which: Which) -> None:
        if container.busy or not container.running or self.ending is not None:
            return
        message = f"Container {container.name} failed {which.lower()} probe, will be restarted"
        self._operate(container, self._stop(container, message, which=which))

    async def _stop(self, container: Container, message: str, which: Which | None = None) -> None:
        self.recorder.normal(self.pod, "Killing", message)
        self._stop_probing(container)
        probe = container.spec.get(f"{which.lower()}Probe") or {} if which else {}
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is None:
            grace = spec_of(self.pod).get("terminationGracePeriodSeconds", 30)
        try:
            await self.node.runtime.stop_container(self.id, container.name, float(grace))
        except EngineUnavailable:
            self.node.engine_lost()
        except RuntimeFailure as error:
            self.recorder.warning(self.pod, "FailedKillPod", error.message)
        self._must_look = True

    def _stop_probing(self, container: Container) -> None:
        prober = self._probers.pop(container.name, None)
        if prober is not None:
            prober.cancel()

    def stop_all_probing(self) -> None:
        for container in self.containers:
            self._stop_probing(container)

    def target(self, container: Container) -> Target:
        runtime, state = self.node.runtime, self.state
        assert state is not None

        def address(port: int) -> tuple[str, int]:
            return runtime.address(state, port)

        host = address(DEFAULT_PORT)[0]
        return Target(
            ip=state.ip,
            address=address,
            execute=lambda command, seconds: runtime.exec(
                self.id, container.name, command, timeout_seconds=seconds
            ),
            proxied=runtime.name == "docker" and host.startswith("127."),
        )

    def ports(self, container: Container) -> Ports:
        """How the probes of a container name ports. No port means the serving port (Knative)."""
        serving = serving_container([c.spec for c in self.containers if c.role == "app"])
        own = container_ports(container.spec)
        default = own[0] if own else DEFAULT_PORT if container.spec is serving else 0
        declared = container.spec.get("ports") or ()
        return Ports(
            named={p["name"]: int(p.get("containerPort") or DEFAULT_PORT)
                   for p in declared if p.get("name")},
            default=default,
            http2=frozenset(
                int(p.get("containerPort") or DEFAULT_PORT)
                for p in declared
                if p.get("name") in ("h2c", "grpc")
            ),
        )  # fmt: skip

    # -- seeing what happened -----------------------------------------------------------------

    async def _look(self) -> None:
        """Compare what runs with what was known."""
        try:
            state = await self.node.runtime.inspect(self.id)
        except EngineUnavailable:
            self.node.engine_lost()
            return
        self._must_look = any(c.busy for c in self.containers)
        if state is None:
            self.plan, self.state = None, None
        else:
            self.state = state
        for container in self.containers:
            if container.role == "shown" or container.busy:
                continue
            seen = state.containers.get(container.name) if state else None
            await self._compare(container, seen)

    async def _compare(self, container: Container, seen: ContainerState | None) -> None:
        runs = seen is not None and seen.state in ("running", "paused")
        if container.running:
            if seen is None or seen.state in ("missing", "created"):
                self._vanished(container)
            elif not runs:
                await self._ended(container, seen)
            elif container.name not in self._probers and not self._is_settled(container):
                self._probe(container)
        elif container.waiting is not None and seen is not None:
            if runs:
                container.run(seen, self.node.on_policy_clock(seen.started_at))
                self._probe(container)
            elif seen.state == "exited" and seen.container_id != container.container_id:
                container.started_at = self.node.on_policy_clock(seen.started_at)
                container.container_id = seen.container_id
                await self._ended(container, seen)

    def _is_settled(self, container: Container) -> bool:
        """Running, and nothing to probe."""
        spec = container.spec
        kinds = ("startupProbe", "readinessProbe", "livenessProbe")
        if container.role == "init" or not any(spec.get(kind) for kind in kinds):
            container.started = container.ready = container.role != "init"
            return True
        return False

    async def _ended(self, container: Container, seen: ContainerState) -> None:
        self._stop_probing(container)
        code = seen.exit_code if seen.exit_code is not None else _NO_EXIT_CODE
        message = await termination_message(self.node, self.id, container.spec, code)
        reason = "OOMKilled" if seen.oom_killed else "ContainerCannotRun" if seen.error else ""
        container.end(
            code,
            self.node.on_policy_clock(seen.finished_at),
            reason=reason,
            message=message or seen.error,
            now=self.node.clock.monotonic(),
        )

    def _vanished(self, container: Container) -> None:
        self._stop_probing(container)
        container.end(
            _NO_EXIT_CODE,
            self.node.clock.now(),
            reason="ContainerStatusUnknown",
            message="The container could not be located when the pod was terminated",
            now=self.node.clock.monotonic(),
        )

    def _sandbox_lost(self) -> None:
        """Someone removed the sandbox: the containers have no network; all start afresh."""
        if self.state is None:
            return
        self.state = self.plan = None
        self.recorder.normal(
            self.pod,
            "SandboxChanged",
            "Pod sandbox changed, it will be killed and re-created.",
        )

        async def clear() -> None:
            try:
                await self.node.runtime.remove(self.id)
            except RuntimeFailure as error:
                log.debug("cannot clear pod %s: %s", self.id.name, error)
            for container in self.containers:
                if container.running and container.role != "shown":
                    self._vanished(container)

        for container in self.containers:
            self._stop_probing(container)
        waiting = [c.operation for c in self.containers if c.busy and c.operation]

        async def settle() -> None:
            if waiting:
                await asyncio.wait(waiting, timeout=30)
            await clear()

        cleared = self._spawn(settle())
        for container in self.containers:
            if container.role != "shown":
                container.operation = cleared

    # -- ending -------------------------------------------------------------------------------

    def _end(self, grace: float) -> None:
        if self.ending is None:
            self.images.close()
            operations = [c.operation for c in self.containers if c.busy and c.operation]
            self.ending = PodEnding(self, grace, operations)
        else:
            self.ending.shorten(grace)

    def _hurry_ending(self) -> None:
        if self.ending is not None and is_deleting(self.pod):
            wanted = self.pod["metadata"].get("deletionGracePeriodSeconds")
            if wanted is not None:
                self.ending.shorten_to(float(wanted))

    def _past_deadline(self) -> bool:
        left = self._deadline_left()
        return left is not None and left <= 0

    def _deadline_left(self) -> float | None:
        seconds = spec_of(self.pod).get("activeDeadlineSeconds")
        started = status_of(self.pod).get("startTime")
        if seconds is None or not started:
            return None
        gone: float = (self.node.clock.now() - parse_timestamp(started)).total_seconds()
        return float(seconds) - gone

    def _fail(self, reason: str, message: str) -> None:
        """End the pod as Failed, whatever its containers do."""
        if self._failure is None:
            self._failure = (reason, message)
            self.recorder.normal(self.pod, reason, message)
        self._stop_running("Stopping container")

    def _finish_sidecars(self) -> None:
        """Sidecars end when the app containers have."""
        if self._apps_done() and not self.ending:
            self._stop_running("Stopping container", roles=("sidecar",))

    def _stop_running(self, words: str, roles: Iterable[str] = ("init", "sidecar", "app")) -> None:
        for container in self.containers:
            if container.running and container.role in roles and not container.busy:
                message = f"{words} {container.name}"
                self._operate(container, self._stop_for_good(container, message))

    async def _stop_for_good(self, container: Container, message: str) -> None:
        await self._stop(container, message)
        with contextlib.suppress(EngineUnavailable):
            state = await self.node.runtime.inspect(self.id)
            seen = state.containers.get(container.name) if state else None
            if container.running and seen is not None and seen.state == "exited":
                await self._ended(container, seen)
                self.publish()

    def _apps_done(self) -> bool:
        apps = [c for c in self.containers if c.role == "app"]
        return bool(apps) and all(c.terminated is not None and not self._restarts(c) for c in apps)

    async def see_ends(self) -> None:
        """After everything was stopped: note how each container ended."""
        try:
            state = await self.node.runtime.inspect(self.id)
        except RuntimeFailure:
            return
        for container in self.containers:
            seen = state.containers.get(container.name) if state else None
            if container.role == "shown" and container.running:
                container.end(0, self.node.clock.now())
            elif container.running and seen is not None and seen.state == "exited":
                await self._ended(container, seen)
        self.publish()

    # -- telling ------------------------------------------------------------------------------

    def publish(self) -> None:
        """Write the status when it differs from the stored one."""
        stored = self.node.store.find(POD, self.id.namespace, self.id.name)
        if stored is None or uid_of(stored) != self.uid:
            return
        status = pod_status(stored, self.view())
        self.pod = self.node.store.set_status(self.key, status) or stored

    def view(self) -> PodView:
        return PodView(
            containers=self.containers,
            now=self.node.clock.now(),
            engine=self.node.runtime.name,
            image_id=self._image_id,
            ip=self.state.ip if self.state else "",
            host_ip=self.node.host_ip,
            sandbox=self.state is not None,
            failure=self._failure,
        )

    def _image_id(self, container: Container) -> str:
        if container.role == "shown":
            return str(container.spec.get("image") or "")
        info = self.images.info(str(container.spec.get("image") or ""))
        return (info.digest or info.id) if info else container.image_id

    def _pod_words(self) -> str:
        return f"{self.id.name}_{self.id.namespace}({self.uid})"

    def _set_up_failed(self, name: str, reason: str, message: str) -> None:
        """Containers that cannot be made yet say why, and an Event does."""
        self._failed_set_ups += 1
        if reason == "FailedMount":
            self._warn("FailedMount", message)
            return
        if reason == "CreatePodSandboxError":
            self._warn("FailedCreatePodSandBox", f"Failed to create pod sandbox: {message}")
            return
        self._tell(f"Error: {message}")
        for container in self.containers:
            if container.waiting and container.role != "shown" and name in ("", container.name):
                container.wait(reason, message)

    def _tell(self, message: str) -> None:
        self._warn("Failed", message)

    def _warn(self, reason: str, message: str) -> None:
        if self._told_problem != message:
            self._told_problem = message
            self.recorder.warning(self.pod, reason, message)

    # -- time and tasks -----------------------------------------------------------------------

    def _next_look(self) -> float | None:
        now = self.node.clock.monotonic()
        due = [c.start_at - now for c in self.containers if not c.running and c.start_at > now]
        if (image := self.images.retry_at()) is not None:
            due.append(max(0.01, image - now))
        if (left := self._deadline_left()) is not None and self._failure is None:
            due.append(max(0.01, left))
        if (refresh := self.volumes.refresh_at) is not None:
            due.append(max(1.0, (refresh - self.node.clock.now()).total_seconds()))
        return min(due, default=None)

    def _refresh_volumes(self) -> None:
        due = self.volumes.refresh_at
        if self._config_touched or (due is not None and self.node.clock.now() >= due):
            self._follow_config()

    def _retry_later(self) -> None:
        """The engine refused: try again soon, in real time."""
        wait = min(30.0, _RETRY_SECONDS * 2 ** min(self._failed_set_ups - 1, 5))
        self.node.machine_clock.call_later(wait, self.poke)

    def _operate(self, container: Container, work: Coroutine[Any, Any, None]) -> None:
        container.operation = self._spawn(work)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"pod {self.id.namespace}/{self.id.name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended_task)
        return task

    def _ended_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            if error := task.exception():
                log.error("pod %s: %s", self.id.name, error, exc_info=error)
            self.poke()

    def _any_running(self) -> bool:
        return any(c.running for c in self.containers if c.role != "shown")

    @property
    def phase(self) -> str:
        return pod_phase(self.pod, self.view())

    @property
    def initialized(self) -> bool:
        return is_initialized(self.containers)


def _asks_for_ip(pod: Obj) -> bool:
    spec = spec_of(pod)
    paths = [
        str(((variable.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath") or "")
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
        for variable in container.get("env") or ()
    ]
    return any(path.startswith("status.podIP") for path in paths)
