"""The Docker runtime: a pod is a sandbox container plus containers that join its namespaces.

Waking a prepared pod is one call to the engine. Everything else may take a few.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from knlocal.clock import Clock
from knlocal.runtime import (
    docker_exec,
    docker_images,
    docker_logs,
    docker_spec,
    docker_state,
    labels,
    sandbox,
)
from knlocal.runtime.api import (
    ContainerEvent,
    ContainerPlan,
    ContainerState,
    EngineUnavailable,
    ExecResult,
    ExecStream,
    ImageInfo,
    ImageMissing,
    PodId,
    PodPlan,
    PodState,
    RegistryAuth,
    Runtime,
    RuntimeFailure,
)
from knlocal.runtime.docker_client import DockerSDK
from knlocal.runtime.docker_events import EventFeed
from knlocal.runtime.docker_http import NORMAL, QUICK, SLOW, Endpoint, Engine, EngineRefused
from knlocal.runtime.docker_pods import HeldContainer, HeldPod, Pods
from knlocal.runtime.docker_stats import Usage
from knlocal.runtime.termination import TerminationLogs

#: Inspections in flight at once.
PARALLEL = 16


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
        self._pods = Pods()
        self._usage = Usage()
        self._gateway = ""
        self._connecting = asyncio.Lock()
        self._engine_or_none: Engine | None = None
        self._ground_or_none: docker_spec.Ground | None = None

    # -- connecting ---------------------------------------------------------------------------

    async def start(self) -> None:
        async with self._connecting:
            if self._ground_or_none is not None:
                return
            engine = Engine(self._endpoint or await self._sdk.endpoint())
            try:
                await engine.connect()
                self._ground_or_none = await self._survey(engine)
                self._pods.learn(await self._list(engine))
                self._engine_or_none = engine
            except BaseException:
                self._ground_or_none = None
                await engine.close()
                raise

    async def _survey(self, engine: Engine) -> docker_spec.Ground:
        info, bridge, image = await asyncio.gather(
            engine.get("/info"), _bridge(engine), sandbox.ensure_image(engine)
        )
        self._gateway = bridge
        publish = self._publish
        if publish is None:
            publish = not (engine.endpoint.local and _is_own_address(bridge))
        return docker_spec.Ground(
            project=self.project,
            sandbox_image=image,
            publish=publish,
            relabel=any("selinux" in str(word) for word in info.get("SecurityOptions") or ()),
            log_max_bytes=self._log_max_bytes,
        )

    async def close(self) -> None:
        engine, self._engine_or_none = self._engine_or_none, None
        self._ground_or_none = None
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
            raise EngineUnavailable("The Docker runtime is not connected to an engine.")
        return self._engine_or_none

    @property
    def _ground(self) -> docker_spec.Ground:
        if self._ground_or_none is None:
            raise EngineUnavailable("The Docker runtime is not connected to an engine.")
        return self._ground_or_none

    # -- pods ---------------------------------------------------------------------------------

    async def prepare(self, plan: PodPlan) -> PodState:
        pod = self._pods.make(plan.id)
        async with pod.lock:
            await self._ensure_sandbox(pod, plan)
        states = (
            [await self.inspect(plan.id)] if any(c.ran for c in pod.containers.values()) else []
        )
        if states and states[0] is not None:
            return states[0]
        made = {
            name: ContainerState(name, "created", held.id) for name, held in pod.containers.items()
        }
        return PodState(plan.id, pod.ip, made, plan.labels)

    async def _ensure_sandbox(self, pod: HeldPod, plan: PodPlan) -> None:
        """The sandbox runs and every container exists, whatever part of it was there already."""
        if pod.sandbox_id and not await self._restart_sandbox(pod):
            self._forget(pod)
        starting: list[Awaitable[Any]] = []
        if not pod.sandbox_id:
            spec = docker_spec.sandbox(self._ground, plan)
            pod.sandbox_id = await self._create(
                plan.id, "", 0, spec, "CreatePodSandboxError", reuse=True
            )
            pod.labels = plan.labels
            starting = [self._start_sandbox(pod)]
        # The engine wires the sandbox's network while the containers are laid out.
        await _all(
            *starting,
            *(self._ensure_container(pod, plan, one, role) for one, role in _all_planned(plan)),
        )

    async def _restart_sandbox(self, pod: HeldPod) -> bool:
        """False when it is gone. After an engine restart it stands still: start it again."""
        try:
            shown = await self._engine.get(f"/containers/{pod.sandbox_id}/json")
        except EngineRefused as refused:
            if refused.status == 404:
                return False
            raise
        if not docker_state.is_running(shown):
            await self._start_sandbox(pod)
        else:
            pod.ip, pod.published = docker_state.address(shown), docker_state.published(shown)
        return True

    async def _start_sandbox(self, pod: HeldPod) -> None:
        try:
            await self._engine.call("POST", f"/containers/{pod.sandbox_id}/start", deadline=SLOW)
            shown = await self._engine.get(f"/containers/{pod.sandbox_id}/json")
        except EngineRefused as refused:
            raise RuntimeFailure("CreatePodSandboxError", refused.message) from refused
        pod.ip, pod.published = docker_state.address(shown), docker_state.published(shown)

    async def _ensure_container(
        self, pod: HeldPod, plan: PodPlan, one: ContainerPlan, role: labels.Role
    ) -> None:
        held = pod.containers.get(one.name)
        if held is not None and (held.ran or held.plan_hash == labels.plan_hash(one)):
            return
        attempt = 0
        if held is not None:  # made for another plan, never started
            await self._delete(held.id)
            attempt = held.attempt + 1
        await self._make_container(pod, plan, one, role, attempt)

    async def _make_container(
        self, pod: HeldPod, plan: PodPlan, one: ContainerPlan, role: labels.Role, attempt: int
    ) -> HeldContainer:
        image_user = ""
        if one.group is not None and one.user is None and (found := await self.image(one.image)):
            image_user = found.user
        log = self._messages.reset(plan.id, one.name) if self._engine.endpoint.local else None
        spec = docker_spec.container(
            self._ground,
            plan,
            one,
            sandbox_id=pod.sandbox_id,
            role=role,
            attempt=attempt,
            termination_log=log,
            image_user=image_user,
        )
        try:
            made = await self._create(plan.id, one.name, attempt, spec, "CreateContainerError")
        except ImageMissing:
            # The plan's image may be spelt as a digest that is an image id here; or be missing.
            local = docker_images.local_name(one.image)
            if local == one.image or await self.image(local) is None:
                await self._fetch(one)
                local = one.image
            made = await self._create(
                plan.id, one.name, attempt, {**spec, "Image": local}, "CreateContainerError"
            )
        held = HeldContainer(made, attempt, labels.plan_hash(one), role)
        pod.containers[one.name] = held
        return held

    async def _fetch(self, one: ContainerPlan) -> None:
        if one.pull_policy == "Never":
            raise ImageMissing(
                f'Container image "{one.image}" is not present with pull policy of Never',
                "ErrImageNeverPull",
            )
        await self.pull(one.image)

    async def _create(
        self,
        pod: PodId,
        container: str,
        attempt: int,
        spec: Mapping[str, Any],
        reason: str,
        *,
        reuse: bool = False,
    ) -> str:
        """Create; a container left under the name is taken over (`reuse`) or replaced."""
        name = labels.container_name(self.project, pod, container, attempt)
        for last_try in (False, True):
            try:
                made = await self._engine.call(
                    "POST", "/containers/create", params={"name": name}, body=spec, deadline=SLOW
                )
                return str(made["Id"])
            except EngineRefused as refused:
                if refused.status == 404 and "image" in refused.message.lower():
                    raise ImageMissing(
                        f'image "{spec["Image"]}" is not on this machine', "ErrImagePull"
                    ) from refused
                if "invalid reference format" in refused.message:
                    raise docker_images.invalid_name(str(spec["Image"])) from refused
                if refused.status != 409 or last_try:
                    raise RuntimeFailure(reason, refused.message) from refused
            found = await self._inspect_container(name)
            if found is not None and reuse:
                return str(found["Id"])
            if found is not None:
                await self._delete(str(found["Id"]))
        raise AssertionError("unreachable")

    async def start_container(self, plan: PodPlan, container: str) -> ContainerState:
        one, role = _planned(plan, container)
        pod = self._pods.get(plan.id)
        held = pod.containers.get(container) if pod is not None else None
        if pod is None or held is None or held.ran:
            return await self._start_again(plan, one, role)
        held.ran = True
        try:
            await self._engine.call("POST", f"/containers/{held.id}/start", deadline=SLOW)
        except EngineRefused as refused:
            if refused.status not in {404, 409} and "network of a non running" not in (
                refused.message
            ):
                raise RuntimeFailure("RunContainerError", refused.message) from refused
            # The container or its sandbox is not what it was: put the pod in order first.
            return await self._start_again(plan, one, role)
        except EngineUnavailable:
            held.ran = False
            raise
        return ContainerState(container, "running", held.id, started_at=self._clock.now())

    async def _start_again(
        self, plan: PodPlan, one: ContainerPlan, role: labels.Role
    ) -> ContainerState:
        """Start a container of which anything may be true: unknown, running, ended, gone."""
        pod = self._pods.make(plan.id)
        async with pod.lock:
            await self._ensure_sandbox(pod, plan)
            held = pod.containers[one.name]
            shown = await self._inspect_container(held.id)
            if shown is not None and docker_state.is_running(shown):
                return docker_state.container_state(one.name, shown)
            before = pod.previous.get(one.name, "")
            if shown is None:
                held = await self._make_container(pod, plan, one, role, held.attempt + 1)
            elif docker_state.container_state(one.name, shown).state != "created":
                old = held.id
                held = await self._make_container(pod, plan, one, role, held.attempt + 1)
                pod.previous[one.name] = old
            held.ran = True
            try:
                await self._engine.call("POST", f"/containers/{held.id}/start", deadline=SLOW)
            except EngineRefused as refused:
                raise RuntimeFailure("RunContainerError", refused.message) from refused
            finally:
                if before and before != pod.previous.get(one.name):
                    await self._delete(before)
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
            await _ignoring({404, 409, 500}, self._engine.call("POST", f"{path}/unpause"))
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
            _ignoring({404, 409, 500}, self._engine.call("POST", f"/containers/{one.id}/{what}"))
            for one in held.containers.values()
            if one.ran
        ]
        if len(calls) == 1:
            await calls[0]
        else:
            await _all(*calls)

    async def remove(self, pod: PodId, grace_seconds: float = 0) -> None:
        if grace_seconds > 0:
            await _all(
                *(
                    self._stop(str(one["Id"]), grace_seconds)
                    for one in await self._list(self._engine, pod)
                    if one.get("State") in {"running", "paused", "restarting"}
                    and (one.get("Labels") or {}).get(labels.ROLE) != "sandbox"
                )
            )
        held = self._pods.make(pod)
        async with held.lock:
            # Looked up again: something may have been made while others were stopping.
            listed = await self._list(self._engine, pod)
            await _all(*(self._delete(str(one["Id"])) for one in listed))
            self._pods.drop(pod)
            self._messages.remove(pod)
            self._usage.forget(str(one["Id"]) for one in listed)

    async def _delete(self, container_id: str) -> None:
        path = f"/containers/{container_id}"
        try:
            await self._engine.call(
                "DELETE", path, params={"force": True, "v": True}, deadline=SLOW
            )
        except EngineRefused as refused:
            if refused.status == 409:  # someone else is removing it: see it gone
                waiting = self._engine.call("POST", f"{path}/wait", params={"condition": "removed"})
                await _ignoring({404}, waiting)
            elif refused.status != 404:
                raise RuntimeFailure("RemoveContainerError", refused.message) from refused

    def _forget(self, pod: HeldPod) -> None:
        pod.sandbox_id = pod.ip = ""
        pod.published = {}
        pod.containers.clear()
        pod.previous.clear()

    async def inspect(self, pod: PodId) -> PodState | None:
        held = await self._held(pod)
        if held is None or not (held.sandbox_id or held.containers):
            return None
        names = list(held.containers)
        ids = [held.sandbox_id, *(held.containers[name].id for name in names)]
        sandbox_shown, *shown = await _all(
            *(self._inspect_container(one) if one else _nothing() for one in ids)
        )
        if sandbox_shown is None and not any(shown):
            if self._pods.get(pod) is held and not held.lock.locked():
                self._pods.drop(pod)
            return None
        if sandbox_shown is not None:
            held.ip = docker_state.address(sandbox_shown)
            held.published = docker_state.published(sandbox_shown)
        states = {
            name: docker_state.container_state(name, one)
            if one is not None
            else ContainerState(name, "missing")
            for name, one in zip(names, shown, strict=True)
        }
        return PodState(held.id, held.ip, states, held.labels)

    async def pods(self) -> list[PodState]:
        self._pods.learn(await self._list(self._engine))
        limit = asyncio.Semaphore(PARALLEL)

        async def look(pod: PodId) -> PodState | None:
            async with limit:
                return await self.inspect(pod)

        found = await _all(*(look(held.id) for held in self._pods.all()))
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

    # -- looking inside -----------------------------------------------------------------------

    async def logs(
        self,
        pod: PodId,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: datetime | None = None,
        timestamps: bool = False,
        previous: bool = False,
    ) -> AsyncIterator[bytes]:
        held = await self._held(pod)
        if previous:
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
        async for lines in docker_logs.read(
            self._engine,
            container_id,
            follow=follow and not previous,
            tail=tail,
            since=since,
            timestamps=timestamps,
        ):
            yield lines

    async def exec(
        self, pod: PodId, container: str, command: Sequence[str], *, timeout_seconds: float = 10
    ) -> ExecResult:
        return await docker_exec.run(
            self._engine,
            await self._container_id(pod, container),
            command,
            timeout_seconds,
            same_machine=not self._ground.publish,
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
        if not self._gateway or not _is_own_address(self._gateway):
            # The engine runs in a machine of its own (Docker Desktop): only it knows the way.
            return "host-gateway"
        return self._gateway

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

    async def _inspect_container(self, container_id: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._engine.get(f"/containers/{container_id}/json")
        except EngineRefused as refused:
            if refused.status == 404:
                return None
            raise
        return found

    async def _list(self, engine: Engine, pod: PodId | None = None) -> list[dict[str, Any]]:
        wanted = [f"{labels.PROJECT}={self.project}"]
        if pod is not None:
            wanted.append(f"{labels.UID}={pod.uid}")
        listed: list[dict[str, Any]] = await engine.get(
            "/containers/json", all=True, filters={"label": wanted}
        )
        return listed


def _all_planned(plan: PodPlan) -> list[tuple[ContainerPlan, labels.Role]]:
    return [(one, "init") for one in plan.init_containers] + [
        (one, "container") for one in plan.containers
    ]


def _planned(plan: PodPlan, container: str) -> tuple[ContainerPlan, labels.Role]:
    for one, role in _all_planned(plan):
        if one.name == container:
            return one, role
    raise RuntimeFailure(
        "ContainerNotFound", f'container "{container}" is not in pod "{plan.id.name}"'
    )


async def _all(*calls: Awaitable[Any]) -> list[Any]:
    """Run together; when one fails the others are still waited for, so that none runs on unseen."""
    if not calls:
        return []
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)


async def _ignoring(statuses: set[int], call: Awaitable[Any]) -> None:
    try:
        await call
    except EngineRefused as refused:
        if refused.status not in statuses:
            raise


async def _nothing() -> None:
    return None


async def _bridge(engine: Engine) -> str:
    """The default network's gateway: this machine, as containers see it ("" when unknown)."""
    for network in ("bridge", "podman"):
        try:
            shown = await engine.get(f"/networks/{network}")
        except EngineRefused:
            continue
        for config in (shown.get("IPAM") or {}).get("Config") or ():
            if gateway := config.get("Gateway"):
                return str(gateway)
        name = str((shown.get("Options") or {}).get("com.docker.network.bridge.name") or "docker0")
        return _interface_address(name)
    return ""


def _interface_address(name: str) -> str:
    import psutil

    for address in psutil.net_if_addrs().get(name, ()):
        if address.family == socket.AF_INET:
            return str(address.address)
    return ""


def _is_own_address(ip: str) -> bool:
    """Whether this machine itself has the address (so that its neighbours are reachable)."""
    if not ip:
        return False
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        try:
            probe.bind((ip, 0))
        except OSError:
            return False
    return True
