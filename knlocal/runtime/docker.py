"""The Docker runtime: a pod is a sandbox container plus containers that join its namespaces.

Waking a prepared pod is one call to the engine. Everything else may take a few.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from knlocal.clock import Clock
from knlocal.runtime import (
    docker_exec,
    docker_images,
    docker_logs,
    docker_state,
    elf,
    gate,
    labels,
)
from knlocal.runtime.api import (
    WHOLE_LOG,
    ContainerEvent,
    ContainerPlan,
    ContainerState,
    EngineUnavailable,
    ExecResult,
    ExecStream,
    ImageInfo,
    LogOptions,
    PodId,
    PodPlan,
    PodState,
    RegistryAuth,
    Runtime,
    RuntimeFailure,
)
from knlocal.runtime.docker_client import DockerSDK
from knlocal.runtime.docker_events import EventFeed
from knlocal.runtime.docker_gates import Gate, Gates, can_be_held
from knlocal.runtime.docker_ground import Ground, survey
from knlocal.runtime.docker_http import NORMAL, QUICK, SLOW, Endpoint, Engine, EngineRefused
from knlocal.runtime.docker_make import (
    Maker,
    all_planned,
    delete,
    ignoring,
    inspect,
    together,
)
from knlocal.runtime.docker_pods import HeldContainer, HeldPod, Pods
from knlocal.runtime.docker_stats import Usage
from knlocal.runtime.signals import hears_sigterm
from knlocal.runtime.termination import TerminationLogs
from knlocal.runtime.unbroken import Unbroken

#: Inspections in flight at once.
PARALLEL = 16
_NOT_CONNECTED = "The Docker runtime is not connected to an engine."


class DockerRuntime(Runtime):
    """Pods on a Docker engine (or one that speaks its API).

    `project` keeps projects that share an engine apart. `state_dir` holds termination messages.
    `publish` says whether pod ports are published on loopback; None finds out whether container
    addresses are reachable from here.
    """

    name = "docker"

    def __init__(
        self,
        project: str,
        clock: Clock,
        state_dir: Path,
        *,
        endpoint: Endpoint | None = None,
        publish: bool | None = None,
        log_max_bytes: int = 10 * 1024 * 1024,
    ) -> None:
        self.project = project
        self._clock = clock
        self._endpoint = endpoint
        self._publish = publish
        self._log_max_bytes = log_max_bytes
        self._messages = TerminationLogs(state_dir)
        self._sdk = DockerSDK()
        self._gates = Gates(state_dir)
        self._gate_program: bytes | None = None
        self._pods = Pods(self._gates.left_closed)
        self._unbroken = Unbroken()
        self._usage = Usage()
        self._connecting = asyncio.Lock()
        self._engine_or_none: Engine | None = None
        self._ground_or_none: Ground | None = None
        self._maker_or_none: Maker | None = None

    # -- connecting ---------------------------------------------------------------------------

    async def start(self) -> None:
        async with self._connecting:
            if self._ground_or_none is not None:
                return
            engine = Engine(self._endpoint or await self._sdk.endpoint())
            try:
                await engine.connect()
                ground = await survey(
                    engine, self.project, publish=self._publish, log_max_bytes=self._log_max_bytes
                )
                self._pods.learn(await self._list(engine))
            except BaseException:
                await engine.close()
                raise
            self._engine_or_none, self._ground_or_none = engine, ground
            self._maker_or_none = Maker(engine, ground, self._messages, self.pull)
            if ground.neighbour and not ground.relabel:
                self._gate_program = gate.executable(elf.architecture(engine.version))
            self._gates.sweep(pod.id for pod in self._pods.all())

    async def close(self) -> None:
        await self._unbroken.settle(QUICK)
        engine, self._engine_or_none = self._engine_or_none, None
        self._ground_or_none = self._maker_or_none = None
        self._sdk.close()
        if engine is not None:
            await engine.close()

    async def healthy(self) -> bool:
        try:
            await self._engine.call("GET", "/_ping", deadline=QUICK)
        except RuntimeFailure:
            return False
        return True

    @property
    def where(self) -> str:
        """The engine's address and version, for people."""
        return f"{self._engine.endpoint}, version {self._engine.version.get('Version', 'unknown')}"

    @property
    def _engine(self) -> Engine:
        if self._engine_or_none is None:
            raise EngineUnavailable(_NOT_CONNECTED)
        return self._engine_or_none

    @property
    def _ground(self) -> Ground:
        if self._ground_or_none is None:
            raise EngineUnavailable(_NOT_CONNECTED)
        return self._ground_or_none

    @property
    def _maker(self) -> Maker:
        if self._maker_or_none is None:
            raise EngineUnavailable(_NOT_CONNECTED)
        return self._maker_or_none

    # -- pods ---------------------------------------------------------------------------------

    async def prepare(self, plan: PodPlan) -> PodState:
        pod = await self._unbroken(self._ensure(plan))
        states = (
            [await self.inspect(plan.id)] if any(c.ran for c in pod.containers.values()) else []
        )
        if states and states[0] is not None:
            return states[0]
        made = {
            name: ContainerState(name, "created", held.id) for name, held in pod.containers.items()
        }
        return PodState(plan.id, pod.ip, made, plan.labels)

    async def _ensure(self, plan: PodPlan) -> HeldPod:
        pod = self._pods.make(plan.id)
        async with pod.lock:
            self._pods.check(pod)
            await self._maker.ensure_pod(pod, plan)
        return pod

    async def hold(self, plan: PodPlan, container: str, late: str) -> bool:
        one, _ = _planned(plan, container)
        image = await self.image(one.image)
        if self._gate_program is None or image is None or not can_be_held(one, image):
            return False
        made = self._gates.of(plan.id, late, image)
        return await self._unbroken(self._hold(plan, one, made, self._gate_program))

    async def _hold(self, plan: PodPlan, one: ContainerPlan, made: Gate, program: bytes) -> bool:
        pod = self._pods.make(plan.id)
        async with pod.lock:
            self._pods.check(pod)
            if one.name in pod.containers:  # somebody was faster, and wants it as it is
                return False
            await asyncio.to_thread(made.build, program)
            await self._maker.hold(pod, plan, one, made)
            return True

    async def start_container(self, plan: PodPlan, container: str) -> ContainerState:
        one, role = _planned(plan, container)
        pod = self._pods.get(plan.id)
        held = pod.containers.get(container) if pod is not None else None
        if pod is None or held is None or held.ran:
            return await self._unbroken(self._start_again(plan, one, role))
        held.ran = True
        if held.gate is not None:
            return await self._unbroken(self._let_go(plan, one, role, held, held.gate))
        try:
            await self._engine.call("POST", f"/containers/{held.id}/start", deadline=SLOW)
        except EngineRefused as refused:
            if refused.status not in {404, 409} and "network of a non running" not in (
                refused.message
            ):
                raise RuntimeFailure("RunContainerError", refused.message) from refused
            # The container or its sandbox is not what it was: put the pod in order first.
            return await self._unbroken(self._start_again(plan, one, role))
        except EngineUnavailable:
            held.ran = False
            raise
        return ContainerState(container, "running", held.id, started_at=self._clock.now())

    async def _let_go(
        self, plan: PodPlan, one: ContainerPlan, role: labels.Role, held: HeldContainer, at: Gate
    ) -> ContainerState:
        """The program of a held container begins; one that was held for another plan goes."""
        fits = held.is_made_for(one) and await at.open(one)
        held.gate = None
        if fits:
            return ContainerState(one.name, "running", held.id, started_at=self._clock.now())
        held.ran = False
        return await self._start_again(plan, one, role)

    async def _start_again(
        self, plan: PodPlan, one: ContainerPlan, role: labels.Role
    ) -> ContainerState:
        """Start a container of which anything may be true: unknown, running, ended, gone."""
        pod = self._pods.make(plan.id)
        async with pod.lock:
            self._pods.check(pod)
            await self._maker.ensure_pod(pod, plan)
            held = pod.containers[one.name]
            shown = await inspect(self._engine, held.id)
            if shown is not None and docker_state.is_running(shown):
                return docker_state.container_state(one.name, shown)
            before = pod.previous.get(one.name, "")
            if shown is None:
                held = await self._maker.make_container(pod, plan, one, role, held.attempt + 1)
            elif docker_state.container_state(one.name, shown).state != "created":
                old = held.id
                held = await self._maker.make_container(pod, plan, one, role, held.attempt + 1)
                pod.previous[one.name] = old
            held.ran = True
            try:
                await self._engine.call("POST", f"/containers/{held.id}/start", deadline=SLOW)
            except EngineRefused as refused:
                raise RuntimeFailure("RunContainerError", refused.message) from refused
            finally:
                if before and before != pod.previous.get(one.name):
                    await delete(self._engine, before)
        return ContainerState(one.name, "running", held.id, started_at=self._clock.now())

    async def stop_container(self, pod: PodId, container: str, grace_seconds: float) -> None:
        held = await self._held(pod)
        if held is not None and container in held.containers:
            await self._stop(held.containers[container].id, grace_seconds)

    async def _stop(self, container_id: str, grace_seconds: float) -> None:
        path = f"/containers/{container_id}"
        try:
            if grace_seconds <= 0:
                await self._engine.call("POST", f"{path}/kill", params={"signal": "KILL"})
                await self._engine.call("POST", f"{path}/wait")
                return
            # A frozen program cannot act on a signal.
            await ignoring({404, 409, 500}, self._engine.call("POST", f"{path}/unpause"))
            seconds = math.ceil(grace_seconds)
            await self._engine.call(
                "POST", f"{path}/stop", params={"t": seconds}, deadline=seconds + NORMAL
            )
        except EngineRefused as refused:
            if refused.status not in {404, 409}:  # gone, or not running
                raise RuntimeFailure("KillContainerError", refused.message) from refused

    async def pause(self, pod: PodId) -> None:
        await self._each_container(pod, "pause")

    async def unpause(self, pod: PodId) -> None:
        await self._each_container(pod, "unpause")

    async def _each_container(self, pod: PodId, what: str) -> None:
        held = await self._held(pod)
        if held is None:
            return
        # 409 and 500: it does not run, or is paused (not paused) already.
        calls = [
            ignoring({404, 409, 500}, self._engine.call("POST", f"/containers/{one.id}/{what}"))
            for one in held.containers.values()
            if one.ran
        ]
        if len(calls) == 1:
            await calls[0]
        else:
            await together(*calls)

    async def remove(self, pod: PodId, grace_seconds: float = 0) -> None:
        if grace_seconds > 0:
            await together(
                *(
                    self._stop(str(one["Id"]), grace_seconds)
                    for one in await self._list(self._engine, pod)
                    if one.get("State") in {"running", "paused", "restarting"}
                    and (one.get("Labels") or {}).get(labels.ROLE) != "sandbox"
                )
            )
        await self._unbroken(self._remove_all(self._pods.make(pod)))

    async def _remove_all(self, held: HeldPod) -> None:
        pod = held.id
        async with held.lock:
            # Looked up again: something may have been made while others were stopping.
            listed = await self._list(self._engine, pod)
            await together(*(delete(self._engine, str(one["Id"])) for one in listed))
            self._pods.drop(pod)
            self._messages.remove(pod)
            self._gates.remove(pod)
            self._usage.forget(str(one["Id"]) for one in listed)

    async def inspect(self, pod: PodId) -> PodState | None:
        held = await self._held(pod)
        if held is None or not (held.sandbox_id or held.containers):
            return None
        names = list(held.containers)
        ids = [held.sandbox_id, *(held.containers[name].id for name in names)]
        sandbox_shown, *shown = await together(
            *(inspect(self._engine, one) if one else _nothing() for one in ids)
        )
        if sandbox_shown is None and not any(shown):
            if self._pods.get(pod) is held and not held.lock.locked():
                self._pods.drop(pod)
            return None
        held.learn_sandbox(sandbox_shown or {})
        states = {
            name: docker_state.container_state(name, one)
            if one is not None
            else ContainerState(name, "missing")
            for name, one in zip(names, shown, strict=True)
        }
        for name, state in states.items():
            if state.state == "running" and held.containers[name].gate is not None:
                states[name] = replace(state, state="created", started_at=None)
        return PodState(held.id, held.ip, states, held.labels)

    async def pods(self) -> list[PodState]:
        self._pods.learn(await self._list(self._engine))
        limit = asyncio.Semaphore(PARALLEL)

        async def look(held: HeldPod) -> PodState | None:
            async with limit:
                state = await self.inspect(held.id)
            if state is None and held.lock.locked() and self._pods.get(held.id) is held:
                # Just being made: who removes all there is must not overlook it.
                return PodState(held.id, "", {}, held.labels)
            return state

        found = await together(*(look(held) for held in self._pods.all()))
        return [state for state in found if state is not None]

    def events(self) -> AsyncIterator[ContainerEvent]:
        return EventFeed(self._engine, self.project, self._pods.is_current).read()

    def address(self, pod: PodState, port: int) -> tuple[str, int]:
        held = self._pods.get(pod.id)
        if held is not None and port in held.published:
            return "127.0.0.1", held.published[port]
        return (held.ip if held is not None and held.ip else pod.ip), port

    def env_port(self, pod: PodId, port: int) -> int:
        return port

    async def termination_message(self, pod: PodId, container: str) -> str:
        return self._messages.read(pod, container)

    async def hears_sigterm(self, pod: PodId, container: str) -> bool:
        held = await self._held(pod)
        if held is None or container not in held.containers or not self._engine.endpoint.local:
            return True
        shown = await inspect(self._engine, held.containers[container].id) or {}
        return hears_sigterm(int((shown.get("State") or {}).get("Pid") or 0))

    # -- looking inside -----------------------------------------------------------------------

    async def logs(
        self, pod: PodId, container: str, options: LogOptions = WHOLE_LOG
    ) -> AsyncIterator[bytes]:
        held = await self._held(pod)
        if options.previous:
            container_id = held.previous.get(container, "") if held is not None else ""
            if not container_id:
                raise RuntimeFailure(
                    "ContainerNotFound",
                    f'previous terminated container "{container}" in pod "{pod.name}" not found',
                )
        else:
            one = held.containers.get(container) if held is not None else None
            if one is None or not one.ran:
                return
            container_id = one.id
        async for lines in docker_logs.read(self._engine, container_id, options):
            yield lines

    async def exec(
        self, pod: PodId, container: str, command: Sequence[str], *, timeout_seconds: float = 10
    ) -> ExecResult:
        return await docker_exec.run(
            self._engine,
            await self._container_id(pod, container),
            command,
            timeout_seconds,
            same_machine=self._ground.neighbour,
        )

    async def exec_stream(
        self, pod: PodId, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecStream:
        container_id = await self._container_id(pod, container)
        return await docker_exec.open_stream(
            self._engine, container_id, command, stdin=stdin, tty=tty
        )

    async def attach(self, pod: PodId, container: str, *, stdin: bool) -> ExecStream:
        container_id = await self._container_id(pod, container)
        return await docker_exec.attach(self._engine, container_id, stdin=stdin)

    async def stats(self, pod: PodId) -> Mapping[str, tuple[float, int]]:
        held = await self._held(pod)
        running = {
            name: one.id for name, one in (held.containers if held else {}).items() if one.ran
        }
        return await self._usage.read(self._engine, running)

    # -- images and ground --------------------------------------------------------------------

    async def image(self, image: str) -> ImageInfo | None:
        return await docker_images.find(self._engine, image)

    async def pull(
        self,
        image: str,
        auth: RegistryAuth | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> ImageInfo:
        return await docker_images.pull(self._engine, self._sdk, image, auth, progress)

    async def host_address(self) -> str:
        # An engine in a machine of its own (Docker Desktop) is the only one to know the way.
        return self._ground.gateway if self._ground.neighbour else "host-gateway"

    # -- helpers ------------------------------------------------------------------------------

    async def _held(self, pod: PodId) -> HeldPod | None:
        if (held := self._pods.get(pod)) is None:
            self._pods.learn(await self._list(self._engine, pod))
            held = self._pods.get(pod)
        return held

    async def _container_id(self, pod: PodId, container: str) -> str:
        held = await self._held(pod)
        if held is None or container not in held.containers:
            raise RuntimeFailure(
                "ContainerNotFound", f'container "{container}" in pod "{pod.name}" not found'
            )
        return held.containers[container].id

    async def _list(self, engine: Engine, pod: PodId | None = None) -> list[dict[str, Any]]:
        wanted = [f"{labels.PROJECT}={self.project}"]
        if pod is not None:
            wanted.append(f"{labels.UID}={pod.uid}")
        listed: list[dict[str, Any]] = await engine.get(
            "/containers/json", all=True, filters={"label": wanted}
        )
        return listed


def _planned(plan: PodPlan, container: str) -> tuple[ContainerPlan, labels.Role]:
    for one, role in all_planned(plan):
        if one.name == container:
            return one, role
    raise RuntimeFailure(
        "ContainerNotFound", f'container "{container}" is not in pod "{plan.id.name}"'
    )


async def _nothing() -> None:
    return None
