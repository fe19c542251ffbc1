"""What the kubelet knows about one container of a pod: its state, past and back-off."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from knlocal.resources.base import Obj, parse_timestamp, spec_of, status_of, timestamp
from knlocal.runtime.api import ContainerState
from knlocal.workloads.backoff import Backoff
from knlocal.workloads.terms import is_shown_only

Role = Literal["init", "sidecar", "app", "shown"]
"""A sidecar is an init container that restarts always; "shown" is never run (queue-proxy)."""


@dataclass(slots=True)
class Container:
    """One container. Exactly one of waiting, running (`started_at`) and `terminated` holds."""

    spec: Obj
    role: Role
    waiting: tuple[str, str] | None = ("ContainerCreating", "")
    """Reason and message."""
    started_at: datetime | None = None
    terminated: dict[str, Any] | None = None
    last_terminated: dict[str, Any] | None = None
    restarts: int = 0
    container_id: str = ""
    image_id: str = ""
    ready: bool = False
    started: bool = False
    """The startup probe (if any) has passed."""
    paused: bool = False
    """Someone paused it behind our back: it cannot answer."""
    failed_at: float = 0.0
    """When it ended last: seconds on the policy clock."""
    start_at: float = 0.0
    """Not to be started again before: seconds on the policy clock."""
    backoff: Backoff = field(default_factory=Backoff)
    operation: asyncio.Task[None] | None = None
    """A start or stop under way."""

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def running(self) -> bool:
        return self.started_at is not None

    @property
    def busy(self) -> bool:
        return self.operation is not None and not self.operation.done()

    @property
    def succeeded(self) -> bool:
        return self.terminated is not None and self.terminated["exitCode"] == 0

    def wait(self, reason: str, message: str = "") -> None:
        """It is not running, and why."""
        if self.terminated is not None:
            self.last_terminated, self.terminated = self.terminated, None
        self.started_at = None
        self.ready = self.started = self.paused = False
        self.waiting = (reason, message)

    def run(self, state: ContainerState, at: datetime) -> None:
        """It runs since `at`."""
        if self.terminated is not None:
            self.last_terminated, self.terminated = self.terminated, None
        self.waiting = None
        self.started_at = at
        self.container_id = state.container_id or self.container_id
        self.image_id = state.image_id or self.image_id

    def end(
        self, exit_code: int, at: datetime, *, reason: str = "", message: str = "", now: float = 0.0
    ) -> None:
        """It ended, or could not even start."""
        if not reason:
            reason = "Completed" if exit_code == 0 else "Error"
        self.terminated = {
            "exitCode": exit_code,
            "reason": reason,
            **({"message": message} if message else {}),
            "startedAt": timestamp(self.started_at or at),
            "finishedAt": timestamp(at),
            "containerID": self.container_id,
        }
        self.waiting = self.started_at = None
        self.ready = self.started = self.paused = False
        self.failed_at = now
        self.backoff.failed(now)

    def status(self, engine: str, image_id: str) -> dict[str, Any]:
        """As `status.containerStatuses` shows it."""
        state: dict[str, Any]
        if self.terminated is not None:
            state = {"terminated": self._shown(self.terminated, engine)}
        elif self.started_at is not None:
            state = {"running": {"startedAt": timestamp(self.started_at)}}
        else:
            reason, message = self.waiting or ("ContainerCreating", "")
            state = {"waiting": {"reason": reason} | ({"message": message} if message else {})}
        last = self.last_terminated
        identity = f"{engine}://{self.container_id}" if self.container_id else ""
        return {
            "name": self.name,
            "image": str(self.spec.get("image") or ""),
            "imageID": image_id,
            **({"containerID": identity} if identity else {}),
            "state": state,
            "lastState": {"terminated": self._shown(last, engine)} if last else {},
            "ready": self.succeeded if self.role == "init" else self.ready,
            "started": self.started,
            "restartCount": self.restarts,
        }

    @staticmethod
    def _shown(terminated: dict[str, Any], engine: str) -> dict[str, Any]:
        identity = terminated["containerID"]
        if identity and "://" not in identity:
            identity = f"{engine}://{identity}"
        return {**terminated, "containerID": identity}


def containers_of(pod: Obj, now: datetime) -> list[Container]:
    """A pod's containers, init containers first; with what its status says about them, for a
    daemon that was restarted."""
    spec, status = spec_of(pod), status_of(pod)
    known = {
        one["name"]: one
        for one in (
            *(status.get("initContainerStatuses") or ()),
            *(status.get("containerStatuses") or ()),
        )
    }
    found = [
        Container(one, "sidecar" if one.get("restartPolicy") == "Always" else "init")
        for one in spec.get("initContainers") or ()
    ]
    waits_for_init = bool(found)
    for one in spec.get("containers") or ():
        container = Container(one, "shown" if is_shown_only(one) else "app")
        if waits_for_init:
            container.waiting = ("PodInitializing", "")
        found.append(container)
    for container in found:
        if before := known.get(container.name):
            _remember(container, before)
    return found


def _remember(container: Container, status: dict[str, Any]) -> None:
    state = status.get("state") or {}
    container.restarts = int(status.get("restartCount") or 0)
    container.container_id = str(status.get("containerID") or "").rpartition("://")[2]
    container.ready = bool(status.get("ready"))
    container.started = bool(status.get("started"))
    container.last_terminated = (status.get("lastState") or {}).get("terminated")
    if running := state.get("running"):
        container.waiting = None
        container.started_at = parse_timestamp(running["startedAt"])
    elif terminated := state.get("terminated"):
        container.waiting = None
        container.terminated = terminated
    elif waiting := state.get("waiting"):
        container.waiting = (
            str(waiting.get("reason") or "ContainerCreating"),
            str(waiting.get("message") or ""),
        )
