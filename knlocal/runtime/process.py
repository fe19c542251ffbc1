"""The process runtime: the same pods as local processes, for machines without an engine and for
the fastest loop.

A container is a process group under a shim (`process_shim.py`) that outlives the daemon. There is
no isolation: no image, no network, no limits (`resources/unsimulated.py` says so to who asks).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import psutil

from knlocal.clock import Clock
from knlocal.runtime import labels, process_exec, process_logs
from knlocal.runtime.api import (
    WHOLE_LOG,
    ContainerEvent,
    ContainerPlan,
    ContainerState,
    EngineUnavailable,
    ExecResult,
    ExecStream,
    ImageInfo,
    ImageMissing,
    LogOptions,
    PodId,
    PodPlan,
    PodState,
    RegistryAuth,
    Runtime,
    RuntimeFailure,
)
from knlocal.runtime.process_environment import POD_UID, environment
from knlocal.runtime.process_launch import Bell, Launch, Shims, reap
from knlocal.runtime.process_ports import Ports
from knlocal.runtime.process_state import HeldPod, HeldProcess, load
from knlocal.runtime.process_stats import Usage
from knlocal.runtime.realtime import CLOCK
from knlocal.runtime.signals import hears_sigterm
from knlocal.runtime.unbroken import Unbroken

#: Seconds for a killed group to be gone; the kernel needs a moment, a stuck disk longer.
KILL_DEADLINE = 10.0
LOCALHOST = "127.0.0.1"


class ProcessRuntime(Runtime):
    """Pods as local processes. `state_dir` holds their logs and what a later daemon needs."""

    name = "process"

    def __init__(
        self,
        project: str,
        clock: Clock,
        state_dir: Path,
        *,
        log_max_bytes: int = 10 * 1024 * 1024,
    ) -> None:
        self.project = project
        self._clock = clock
        self._root = state_dir.absolute() / "processes"
        self._log_max_bytes = log_max_bytes
        self._pods: dict[str, HeldPod] = {}
        self._ports = Ports()
        self._shims = Shims()
        self._listeners: set[asyncio.Queue[ContainerEvent]] = set()
        self._usage = Usage(clock)
        self._started = False
        self._unbroken = Unbroken()

    async def start(self) -> None:
        if self._started:
            return
        if sys.platform == "win32":
            raise EngineUnavailable("The process runtime needs Linux or macOS. Use Docker.")
        self._shims = Shims()
        for pod, ports in load(self._root):
            self._pods[pod.id.uid] = pod
            self._ports.adopt(pod.id, ports)
            for one in pod.containers.values():
                self._adopt(pod, one)
        self._started = True

    def _adopt(self, pod: HeldPod, one: HeldProcess) -> None:
        if not one.ran:
            return
        bell = self._bell(pod, one)
        if bell.listen():
            one.bell = bell
            one.read_pid()
        else:
            # Its shim is gone. If that was killed too, what it left must not run on unseen.
            one.signal(signal.SIGKILL)
            one.ended.set()

    async def close(self) -> None:
        await self._unbroken.settle(KILL_DEADLINE)
        self._shims.close()
        self._started = False
        for pod in self._pods.values():
            for one in pod.containers.values():
                if one.bell is not None:
                    one.bell.close()
                one.ring()
        self._pods.clear()
        reap()

    async def healthy(self) -> bool:
        return self._started

    # -- pods ---------------------------------------------------------------------------------

    async def prepare(self, plan: PodPlan) -> PodState:
        for one in (*plan.init_containers, *plan.containers):
            _check_runnable(one)
        pod = self._pods.setdefault(plan.id.uid, HeldPod(plan.id, self._root / plan.id.uid))
        async with pod.lock:
            self._check(pod)
            pod.labels, pod.hostname = dict(plan.labels), plan.hostname or plan.id.name
            for port in plan.ports:
                self._ports.get(plan.id, port)
            for one in (*plan.init_containers, *plan.containers):
                held = pod.container(one.name)
                if not held.ran:
                    held.plan_hash = labels.plan_hash(one)
            self._save(pod)
        return self._state(pod)

    async def start_container(self, plan: PodPlan, container: str) -> ContainerState:
        one = next(
            (c for c in (*plan.containers, *plan.init_containers) if c.name == container), None
        )
        if one is None:
            raise RuntimeFailure(
                "ContainerNotFound", f'container "{container}" is not in pod "{plan.id.name}"'
            )
        pod = self._pods.get(plan.id.uid)
        if pod is None or container not in pod.containers:
            await self.prepare(plan)
            pod = self._pods[plan.id.uid]
        held = pod.containers[container]
        if not held.running:
            await self._unbroken(self._start(pod, held, one))
        return held.state()

    async def _start(self, pod: HeldPod, held: HeldProcess, one: ContainerPlan) -> None:
        async with pod.lock:
            self._check(pod)
            if not held.running:
                await self._run(pod, held, one)

    def _check(self, pod: HeldPod) -> None:
        if self._pods.get(pod.id.uid) is not pod:
            raise RuntimeFailure("PodRemoved", f'pod "{pod.id.name}" was removed meanwhile')

    async def _run(self, pod: HeldPod, held: HeldProcess, one: ContainerPlan) -> None:
        argv = _check_runnable(one)
        if held.ran:
            shutil.rmtree(held.previous_folder, ignore_errors=True)
            held.attempt += 1
        held.ran, held.paused, held.pid = True, False, 0
        held.ended, held.plan_hash = asyncio.Event(), labels.plan_hash(one)
        held.cwd = one.local_dir or Path.cwd()
        held.env = environment(one.env, pod.hostname, pod.id.uid, one.mounts)
        as_root = os.geteuid() == 0
        launch = Launch(
            argv=argv,
            env=held.env,
            cwd=held.cwd,
            log_max=self._log_max_bytes,
            user=one.user if as_root else None,
            group=one.group if as_root else None,
            groups=one.supplemental_groups if as_root else (),
        )
        try:
            shutil.rmtree(held.run_folder, ignore_errors=True)
            held.run_folder.mkdir(parents=True, mode=0o700)
            # First, so that whoever comes after a kill looks for what may just be starting.
            self._save(pod)
            bell = self._bell(pod, held)
            await bell.launch(launch, self._shims)
        except BaseException as failed:
            held.ended.set()
            if isinstance(failed, OSError):
                raise _disk_failure(failed) from failed
            raise
        held.bell = bell
        held.read_pid()
        self._save(pod)
        self._tell(pod, held, "started")

    def _bell(self, pod: HeldPod, held: HeldProcess) -> Bell:
        # A later attempt has an Event of its own: this one's end must not be taken for that one's.
        ended = held.ended

        def on_end() -> None:
            if held.ended is ended:
                held.signal(signal.SIGKILL)  # its shim was killed: it would run on unseen
            ended.set()
            held.ring()
            reap()
            CLOCK.call_later(0.2, reap)
            self._tell(pod, held, "exited")

        return Bell(held.run_folder, held.ring, on_end)

    async def stop_container(self, pod: PodId, container: str, grace_seconds: float) -> None:
        held = self._pods.get(pod.uid)
        if held is not None and container in held.containers:
            await self._stop(held.containers[container], grace_seconds)

    async def _stop(self, held: HeldProcess, grace_seconds: float) -> None:
        if not held.running:
            return
        ended = held.ended
        if grace_seconds > 0:
            held.signal(signal.SIGTERM)
            held.signal(signal.SIGCONT)  # a frozen process cannot act on a signal
            held.paused = False
            if await _happens(ended, grace_seconds):
                return
        held.signal(signal.SIGKILL)
        if not await _happens(ended, KILL_DEADLINE):
            raise RuntimeFailure(
                "KillContainerError", f"process {held.pid} of {held.name} does not end"
            )

    async def pause(self, pod: PodId) -> None:
        self._freeze(pod, True)

    async def unpause(self, pod: PodId) -> None:
        self._freeze(pod, False)

    def _freeze(self, pod: PodId, frozen: bool) -> None:
        held = self._pods.get(pod.uid)
        if held is None:
            return
        for one in held.containers.values():
            if one.running and one.paused != frozen:
                one.signal(signal.SIGSTOP if frozen else signal.SIGCONT)
                one.paused = frozen
        self._save(held)

    async def remove(self, pod: PodId, grace_seconds: float = 0) -> None:
        held = self._pods.get(pod.uid)
        if held is None:
            self._ports.release(pod)
            return
        await asyncio.gather(*(self._stop(one, grace_seconds) for one in held.containers.values()))
        await self._unbroken(self._remove_all(held))

    async def _remove_all(self, held: HeldPod) -> None:
        pod = held.id
        async with held.lock:
            # Once more: something may have been started while others were stopping.
            for one in held.containers.values():
                await self._stop(one, 0)
                if one.bell is not None:
                    one.bell.close()
            if any(one.ran for one in held.containers.values()):
                await asyncio.to_thread(_kill_strays, pod.uid)
            held.delete()
            self._pods.pop(pod.uid, None)
            self._ports.release(pod)
        self._usage.forget(held.containers.values())
        for one in held.containers.values():
            self._tell(held, one, "removed")

    async def inspect(self, pod: PodId) -> PodState | None:
        held = self._pods.get(pod.uid)
        return self._state(held) if held is not None else None

    async def pods(self) -> list[PodState]:
        return [self._state(pod) for pod in self._pods.values()]

    async def events(self) -> AsyncIterator[ContainerEvent]:
        heard: asyncio.Queue[ContainerEvent] = asyncio.Queue()
        self._listeners.add(heard)
        try:
            while True:
                yield await heard.get()
        finally:
            self._listeners.discard(heard)

    def address(self, pod: PodState, port: int) -> tuple[str, int]:
        return LOCALHOST, self._ports.of(pod.id).get(port, port)

    def env_port(self, pod: PodId, port: int) -> int:
        return self._ports.get(pod, port)

    async def termination_message(self, pod: PodId, container: str) -> str:
        return ""

    async def hears_sigterm(self, pod: PodId, container: str) -> bool:
        held = self._pods.get(pod.uid)
        one = held.containers.get(container) if held is not None else None
        return one is None or not one.running or hears_sigterm(one.pid)

    # -- looking inside -----------------------------------------------------------------------

    async def logs(
        self, pod: PodId, container: str, options: LogOptions = WHOLE_LOG
    ) -> AsyncIterator[bytes]:
        held = self._pods.get(pod.uid)
        one = held.containers.get(container) if held is not None else None
        if options.previous and (
            one is None or one.attempt == 0 or not one.previous_folder.exists()
        ):
            raise RuntimeFailure(
                "ContainerNotFound",
                f'previous terminated container "{container}" in pod "{pod.name}" not found',
            )
        if one is None:
            return
        ended = one.ended

        def news() -> tuple[bool, asyncio.Event]:
            return self._started and not ended.is_set(), one.logged

        async for lines in process_logs.read(
            one.previous_folder if options.previous else one.run_folder,
            options,
            news=news if options.follow and not options.previous and one.ran else None,
        ):
            yield lines

    async def exec(
        self, pod: PodId, container: str, command: Sequence[str], *, timeout_seconds: float = 10
    ) -> ExecResult:
        cwd, env = self._inside(pod, container)
        return await process_exec.run(command, cwd, env, timeout_seconds)

    async def exec_stream(
        self, pod: PodId, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecStream:
        cwd, env = self._inside(pod, container)
        return await process_exec.open_stream(command, cwd, env, stdin=stdin, tty=tty)

    async def attach(self, pod: PodId, container: str, *, stdin: bool) -> ExecStream:
        self._inside(pod, container)
        held = self._pods[pod.uid].containers[container]
        # By date, not by place: it is from now on, whenever somebody begins to read.
        lines = self.logs(pod, container, LogOptions(follow=True, since=self._clock.now()))
        return process_exec.LogStream(lines, lambda: held.state().exit_code or 0)

    def _inside(self, pod: PodId, container: str) -> tuple[Path, Mapping[str, str]]:
        held = self._pods.get(pod.uid)
        one = held.containers.get(container) if held is not None else None
        if one is None:
            raise RuntimeFailure(
                "ContainerNotFound", f'container "{container}" in pod "{pod.name}" not found'
            )
        process = one.process() if one.running else None
        if process is None:
            raise RuntimeFailure(
                "ContainerNotRunning", f'container "{container}" in pod "{pod.name}" does not run'
            )
        try:
            return one.cwd or Path.cwd(), one.env or process.environ()
        except psutil.Error:
            return one.cwd or Path.cwd(), environment({}, "", pod.uid)

    async def stats(self, pod: PodId) -> Mapping[str, tuple[float, int]]:
        held = self._pods.get(pod.uid)
        return await self._usage.read(held.containers.values() if held is not None else ())

    # -- images and ground --------------------------------------------------------------------

    async def image(self, image: str) -> ImageInfo | None:
        """There are no images here; a name stands for itself, so that a Revision gets a digest.
        What a container really runs is checked when its pod is prepared."""
        digest = "sha256:" + hashlib.sha256(image.encode()).hexdigest()
        repository = image.partition("@")[0]
        last = repository.rpartition("/")[2]
        if ":" in last:
            repository = repository.removesuffix(":" + last.partition(":")[2])
        return ImageInfo(digest, image if "@" in image else f"{repository}@{digest}")

    async def pull(
        self,
        image: str,
        auth: RegistryAuth | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> ImageInfo:
        found = await self.image(image)
        assert found is not None
        return found

    async def host_address(self) -> str:
        return LOCALHOST

    # -- helpers ------------------------------------------------------------------------------

    def _state(self, pod: HeldPod) -> PodState:
        states = {name: one.state() for name, one in pod.containers.items()}
        return PodState(pod.id, LOCALHOST, states, pod.labels)

    def _save(self, pod: HeldPod) -> None:
        try:
            pod.save(self._ports.of(pod.id))
        except OSError as failed:
            raise _disk_failure(failed) from failed

    def _tell(
        self, pod: HeldPod, one: HeldProcess, what: Literal["started", "exited", "removed"]
    ) -> None:
        for heard in self._listeners:
            heard.put_nowait(ContainerEvent(pod.id, one.name, what))


def _check_runnable(one: ContainerPlan) -> list[str]:
    """What to run; ImageMissing with what to add when the plan only has an image."""
    if one.local_command:
        return [*one.local_command, *((one.args or ()) if not one.command else ())]
    raise ImageMissing(
        f'The process runtime cannot run the image "{one.image}" of container "{one.name}". Say'
        ' what to run instead: `run = ["python", "app.py"]` and `source = "./folder"` in'
        " knlocal.toml, or the annotation knlocal.dev/run on the pod template. With Docker, images"
        " run as they are."
    )


def _kill_strays(pod_uid: str) -> None:
    """Programs that left their group (a daemon of its own, say) still carry the pod's uid."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(POD_UID) == pod_uid:
                process.kill()
        except (psutil.Error, OSError):
            continue


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    """Real time: processes do not live by a test's clock."""
    try:
        async with CLOCK.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _disk_failure(failed: OSError) -> RuntimeFailure:
    return RuntimeFailure(
        "CreateContainerError", f"cannot write {failed.filename}: {failed.strerror or failed}"
    )
