"""What all pods on the one node share: engine, clocks, folders, hooks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from knlocal.clock import Clock, SystemClock
from knlocal.control.events import EventRecorder
from knlocal.resources.base import Key, Obj
from knlocal.runtime.api import Runtime
from knlocal.store.store import Store
from knlocal.workloads.podplan import PodNetwork
from knlocal.workloads.tokens import LocalIssuer, TokenIssuer

if TYPE_CHECKING:
    from knlocal.workloads.podworker import PodWorker

Probed = Callable[[Obj, str, str, bool, float], None]
"""Told of each probe that counted: the pod, the container's name, "Readiness" or another kind,
whether it went well, and the seconds it took."""
DrainHook = Callable[[Obj], Awaitable[None]]
"""Given a pod that is going away; returns when its requests have ended."""


class PodRecorder:
    """Events about one pod; silent while it is no object yet."""

    def __init__(self, recorder: EventRecorder, *, silent: bool = False) -> None:
        self._recorder = recorder
        self.silent = silent

    def normal(self, pod: Obj, reason: str, message: str) -> None:
        if not self.silent:
            self._recorder.normal(pod, reason, message)

    def warning(self, pod: Obj, reason: str, message: str) -> None:
        if not self.silent:
            self._recorder.warning(pod, reason, message)


@dataclass(slots=True)
class Node:
    """`store.clock` rules policy (back-off, deadlines); `machine_clock` rules what happens in real
    time whatever a test does to the clock: probes, graces, talking to the engine."""

    store: Store
    runtime: Runtime
    root: Path
    snapshots: Path
    """Where source snapshots lie: the only place the annotation knlocal.dev/snapshot may name."""
    machine_clock: Clock = field(default_factory=SystemClock)
    network: PodNetwork = field(default_factory=PodNetwork)
    issue_token: TokenIssuer = field(default_factory=LocalIssuer)
    drain_hooks: list[DrainHook] = field(default_factory=list)
    retain: Callable[[PodWorker], Awaitable[bool]] | None = None
    """Asked after a pod drained: True when its containers shall be kept (paused)."""
    runtime_labels: Callable[[Obj], dict[str, str]] = field(default=lambda _pod: {})
    probed: Probed = field(default=lambda _pod, _container, _which, _ok, _seconds: None)
    poke: Callable[[Key], None] = field(default=lambda _key: None)
    """Have a pod looked at."""
    engine_lost: Callable[[], None] = field(default=lambda: None)
    engine_ok: bool = True
    """False between `engine_lost` and the engine's return: nothing is tried meanwhile."""
    host_ip: str = ""
    recorder: EventRecorder = field(init=False)
    scheduler: EventRecorder = field(init=False)

    def __post_init__(self) -> None:
        self.recorder = EventRecorder(self.store, "kubelet")
        self.scheduler = EventRecorder(self.store, "default-scheduler")

    @property
    def clock(self) -> Clock:
        return self.store.clock

    def on_policy_clock(self, moment: datetime | None) -> datetime:
        """A moment of the engine's (real) time as the policy clock would have told it."""
        if moment is None:
            return self.clock.now()
        return moment + (self.clock.now() - self.machine_clock.now())
