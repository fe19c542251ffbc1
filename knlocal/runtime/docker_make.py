"""Making and unmaking containers: whatever part of a pod is there already, the rest is added."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from knlocal.runtime import docker_images, docker_spec, docker_state, labels
from knlocal.runtime.api import (
    ContainerPlan,
    ImageInfo,
    ImageMissing,
    PodId,
    PodPlan,
    RuntimeFailure,
)
from knlocal.runtime.docker_gates import Gate
from knlocal.runtime.docker_ground import Ground
from knlocal.runtime.docker_http import SLOW, Engine, EngineRefused
from knlocal.runtime.docker_pods import HeldContainer, HeldPod
from knlocal.runtime.termination import TerminationLogs


class Maker:
    """Callers hold the pod's lock."""

    def __init__(
        self,
        engine: Engine,
        ground: Ground,
        messages: TerminationLogs,
        pull: Callable[[str], Awaitable[ImageInfo]],
    ) -> None:
        self._engine = engine
        self._ground = ground
        self._messages = messages
        self._pull = pull

    async def ensure_pod(self, pod: HeldPod, plan: PodPlan) -> None:
        """The sandbox runs and every container exists."""
        if pod.sandbox_id and not await self._revive_sandbox(pod):
            pod.forget()
        starting: list[Awaitable[Any]] = []
        if not pod.sandbox_id:
            spec = docker_spec.sandbox(self._ground, plan)
            pod.sandbox_id = await self._create(
                plan.id, "", 0, spec, "CreatePodSandboxError", reuse=True
            )
            pod.labels = plan.labels
            starting = [self._start_sandbox(pod)]
        # The engine wires the sandbox's network while the containers are laid out.
        await together(
            *starting,
            *(self._ensure_container(pod, plan, one, role) for one, role in all_planned(plan)),
        )

    async def hold(self, pod: HeldPod, plan: PodPlan, one: ContainerPlan, gate: Gate) -> None:
        """The same, with one container started that waits at its gate."""
        behind = [gate.before(c) if c is one else c for c in plan.containers]
        await self.ensure_pod(pod, replace(plan, containers=behind))
        held = pod.containers[one.name]
        try:
            await self._engine.call("POST", f"/containers/{held.id}/start", deadline=SLOW)
        except RuntimeFailure:
            # Whoever wants the pod now shall have a container that was never tried.
            del pod.containers[one.name]
            await delete(self._engine, held.id)
            raise
        held.gate = gate

    async def _revive_sandbox(self, pod: HeldPod) -> bool:
        """False when it is gone. After an engine restart it stands still: start it again."""
        shown = await inspect(self._engine, pod.sandbox_id)
        if shown is None:
            return False
        if docker_state.is_running(shown):
            pod.learn_sandbox(shown)
        else:
            await self._start_sandbox(pod)
        return True

    async def _start_sandbox(self, pod: HeldPod) -> None:
        try:
            await self._engine.call("POST", f"/containers/{pod.sandbox_id}/start", deadline=SLOW)
            pod.learn_sandbox(await self._engine.get(f"/containers/{pod.sandbox_id}/json"))
        except EngineRefused as refused:
            raise RuntimeFailure("CreatePodSandboxError", refused.message) from refused

    async def _ensure_container(
        self, pod: HeldPod, plan: PodPlan, one: ContainerPlan, role: labels.Role
    ) -> None:
        held = pod.containers.get(one.name)
        if held is not None and (held.ran or held.is_made_for(one)):
            return
        attempt = 0
        if held is not None:  # made for another plan, and its program never began
            await delete(self._engine, held.id)
            attempt = held.attempt + 1
        await self.make_container(pod, plan, one, role, attempt)

    async def make_container(
        self, pod: HeldPod, plan: PodPlan, one: ContainerPlan, role: labels.Role, attempt: int
    ) -> HeldContainer:
        image_user = ""
        if one.group is not None and one.user is None:
            found = await docker_images.find(self._engine, one.image)
            image_user = found.user if found is not None else ""
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
        except ImageMissing as missing:
            if missing.reason == "InvalidImageName":
                raise
            spec["Image"] = await self._have_image(one)
            made = await self._create(plan.id, one.name, attempt, spec, "CreateContainerError")
        held = HeldContainer(made, attempt, labels.plan_hash(one), role)
        pod.containers[one.name] = held
        return held

    async def _have_image(self, one: ContainerPlan) -> str:
        """The name under which the engine has the image, pulled when it must be."""
        # A digest may be an image id here: images that were built here have no other.
        local = docker_images.local_name(one.image)
        if local != one.image and await docker_images.find(self._engine, local) is not None:
            return local
        if one.pull_policy == "Never":
            raise ImageMissing(
                f'Container image "{one.image}" is not present with pull policy of Never',
                "ErrImageNeverPull",
            )
        await self._pull(one.image)
        return one.image

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
        name = labels.container_name(self._ground.project, pod, container, attempt)
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
            found = await inspect(self._engine, name)
            if found is not None and reuse:
                return str(found["Id"])
            if found is not None:
                await delete(self._engine, str(found["Id"]))
        raise AssertionError("unreachable")


async def inspect(engine: Engine, container_id: str) -> dict[str, Any] | None:
    """None when it is gone."""
    try:
        found: dict[str, Any] = await engine.get(f"/containers/{container_id}/json")
    except EngineRefused as refused:
        if refused.status == 404:
            return None
        raise
    return found


async def delete(engine: Engine, container_id: str) -> None:
    """Kill and remove, with its anonymous volumes; seen through when another is at it already."""
    path = f"/containers/{container_id}"
    try:
        await engine.call("DELETE", path, params={"force": True, "v": True}, deadline=SLOW)
    except EngineRefused as refused:
        if refused.status == 409:
            gone = engine.call("POST", f"{path}/wait", params={"condition": "removed"})
            await ignoring({404}, gone)
        elif refused.status != 404:
            raise RuntimeFailure("RemoveContainerError", refused.message) from refused


def all_planned(plan: PodPlan) -> list[tuple[ContainerPlan, labels.Role]]:
    return [(one, "init") for one in plan.init_containers] + [
        (one, "container") for one in plan.containers
    ]


async def together(*calls: Awaitable[Any]) -> list[Any]:
    """Run together; when one fails the others are still waited for, so that none runs on unseen."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)


async def ignoring(statuses: set[int], call: Awaitable[Any]) -> None:
    """Await it; the engine's refusals with these statuses are no errors here."""
    try:
        await call
    except EngineRefused as refused:
        if refused.status not in statuses:
            raise
