"""Getting a pod's images: by policy, with Kubernetes' back-off and words."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from knlocal.resources.base import Obj, spec_of
from knlocal.runtime.api import (
    EngineUnavailable,
    ImageInfo,
    ImageMissing,
    RegistryAuth,
    RuntimeFailure,
)
from knlocal.workloads.backoff import Backoff
from knlocal.workloads.containers import Container
from knlocal.workloads.environment import object_data
from knlocal.workloads.node import Node, PodRecorder
from knlocal.workloads.terms import SECRET, SERVICE_ACCOUNT

#: Seconds for which a failed pull says ErrImagePull, before it says ImagePullBackOff.
_FRESH = 1.0


@dataclass(slots=True)
class _Wanted:
    task: asyncio.Task[None] | None = None
    info: ImageInfo | None = None
    problem: tuple[str, str] | None = None
    """Why the last attempt failed: reason and message."""
    backing_off: bool = False
    failed_at: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)


class PodImages:
    """The images of one pod. `changed` is called whenever something is worth another look."""

    def __init__(self, node: Node, recorder: PodRecorder, changed: Callable[[], None]) -> None:
        self._node = node
        self._recorder = recorder
        self._changed = changed
        self._wanted: dict[str, _Wanted] = {}

    @property
    def found(self) -> dict[str, ImageInfo]:
        return {image: one.info for image, one in self._wanted.items() if one.info is not None}

    def info(self, image: str) -> ImageInfo | None:
        one = self._wanted.get(image)
        return one.info if one else None

    async def ensure(self, pod: Obj, containers: list[Container]) -> bool:
        """True when every image is here. Otherwise containers wait with the reason, and pulls are
        under way. Raises EngineUnavailable."""
        missing = False
        for container in containers:
            image = str(container.spec.get("image") or "")
            one = self._wanted.setdefault(image, _Wanted())
            if one.info is None and one.task is None and self._is_due(one):
                await self._begin(pod, container, image, one)
            if one.info is None:
                missing = True
                self._explain(pod, container, image, one)
        return not missing

    async def peek(self, containers: list[Container]) -> None:
        """Learn what is here, for containers that run already."""
        for container in containers:
            image = str(container.spec.get("image") or "")
            one = self._wanted.setdefault(image, _Wanted())
            one.info = one.info or await self._node.runtime.image(image)

    def retry_at(self) -> float | None:
        """When to look again at a failed pull (seconds on the policy clock)."""
        now = self._node.clock.monotonic()
        due = [
            one.failed_at + _FRESH
            if now < one.failed_at + _FRESH
            else one.backoff.due(one.failed_at)
            for one in self._wanted.values()
            if one.info is None and one.task is None and one.problem is not None
        ]
        return min(due, default=None)

    def forget(self) -> None:
        """Look again whether the images are here (they were removed meanwhile)."""
        for one in self._wanted.values():
            one.info = None

    def close(self) -> None:
        for one in self._wanted.values():
            if one.task is not None:
                one.task.cancel()

    def _is_due(self, one: _Wanted) -> bool:
        if one.problem is None:
            return True
        return self._node.clock.monotonic() >= one.backoff.due(one.failed_at)

    async def _begin(self, pod: Obj, container: Container, image: str, one: _Wanted) -> None:
        """Take the image that is here, or start pulling."""
        policy = container.spec.get("imagePullPolicy") or "IfNotPresent"
        here = await self._node.runtime.image(image)
        # An image that was built here has no registry to be asked again.
        if here is not None and (policy != "Always" or _is_local(here, image)):
            one.info, one.problem = here, None
            message = f'Container image "{image}" already present on machine'
            self._recorder.normal(pod, "Pulled", message)
        elif policy == "Never":
            message = f'Container image "{image}" is not present with pull policy of Never'
            self._failed(pod, one, "ErrImageNeverPull", message, message)
        else:
            one.task = asyncio.create_task(
                self._pull(pod, container, image, one, here), name=f"pull {image}"
            )

    async def _pull(
        self, pod: Obj, container: Container, image: str, one: _Wanted, here: ImageInfo | None
    ) -> None:
        recorder, clock = self._recorder, self._node.machine_clock
        began = clock.monotonic()
        recorder.normal(pod, "Pulling", f'Pulling image "{image}"')
        try:
            one.info = await self._pull_with_any(pod, image)
            seconds = clock.monotonic() - began
            recorder.normal(
                pod,
                "Pulled",
                f'Successfully pulled image "{image}" in {seconds:.3f}s '
                f"({seconds:.3f}s including waiting).",
            )
            one.problem = None
            one.backoff.clear()
        except EngineUnavailable:
            self._node.engine_lost()
        except RuntimeFailure as error:
            if here is not None:
                # Policy Always without a network: what is here is better than nothing.
                one.info, one.problem = here, None
            else:
                said = f'Failed to pull image "{image}": {error.message}'
                self._failed(pod, one, error.reason, error.message, said)
        finally:
            one.task = None
            self._changed()

    async def _pull_with_any(self, pod: Obj, image: str) -> ImageInfo:
        """With each fitting pull secret in turn, then without."""
        failure: ImageMissing | None = None
        for auth in (*pull_credentials(self._node, pod, image), None):
            try:
                return await self._node.runtime.pull(image, auth)
            except ImageMissing as error:
                failure = failure or error
        assert failure is not None
        raise failure

    def _failed(self, pod: Obj, one: _Wanted, reason: str, message: str, event: str) -> None:
        one.failed_at = self._node.clock.monotonic()
        one.backoff.attempted(one.failed_at)
        one.problem, one.backing_off = (reason, message), False
        self._recorder.warning(pod, "Failed", event)
        self._recorder.warning(pod, "Failed", f"Error: {reason}")

    def _explain(self, pod: Obj, container: Container, image: str, one: _Wanted) -> None:
        """Have the container say why it waits: the error first, then that there is a back-off."""
        if one.problem is None or container.waiting is None:
            return
        reason, message = one.problem
        if reason != "ErrImagePull" or self._node.clock.monotonic() < one.failed_at + _FRESH:
            container.wait(reason, message)
            return
        if not one.backing_off:
            one.backing_off = True
            self._recorder.normal(pod, "BackOff", f'Back-off pulling image "{image}"')
            self._recorder.warning(pod, "Failed", "Error: ImagePullBackOff")
        why = f'Back-off pulling image "{image}": ErrImagePull: {message}'
        container.wait("ImagePullBackOff", why)


def _is_local(info: ImageInfo, image: str) -> bool:
    """Built or loaded here: its "digest" is its own id, so no registry knows it."""
    return "@sha256:" in image or not info.digest or info.digest.endswith(info.id)


def pull_credentials(node: Node, pod: Obj, image: str) -> list[RegistryAuth]:
    """Credentials from imagePullSecrets (the pod's own, else its service account's) that fit the
    image's registry."""
    namespace = pod["metadata"].get("namespace") or ""
    references = spec_of(pod).get("imagePullSecrets") or []
    if not references:
        name = spec_of(pod).get("serviceAccountName") or "default"
        account = node.store.find(SERVICE_ACCOUNT, namespace, name) or {}
        references = account.get("imagePullSecrets") or []
    found = []
    for reference in references:
        secret = node.store.find(SECRET, namespace, str(reference.get("name") or ""))
        if secret is not None:
            found += _fitting(object_data(secret), image)
    return found


def _fitting(data: dict[str, bytes], image: str) -> list[RegistryAuth]:
    text = data.get(".dockerconfigjson") or data.get(".dockercfg") or b"{}"
    try:
        parsed = json.loads(text)
        auths = parsed.get("auths", parsed)
        return [
            auth
            for server, entry in auths.items()
            if _server(server) == _registry(image) and (auth := _auth(entry)) is not None
        ]
    except (ValueError, AttributeError):
        return []


def _auth(entry: Obj) -> RegistryAuth | None:
    if entry.get("auth"):
        username, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        return RegistryAuth(username, password)
    if entry.get("username"):
        return RegistryAuth(str(entry["username"]), str(entry.get("password") or ""))
    return None


def _server(server: str) -> str:
    host = server.removeprefix("https://").removeprefix("http://").split("/")[0]
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host


def _registry(image: str) -> str:
    first, slash, _ = image.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    return first if is_host else "docker.io"
