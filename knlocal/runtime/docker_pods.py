"""What the runtime remembers of its pods: nothing that the engine's labels do not also say.

The memory spares the wake path its look-ups. It is filled from one "list containers" call when the
runtime starts, so a restarted daemon knows what an earlier one made.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from knlocal.runtime import docker_state, labels
from knlocal.runtime.api import ContainerPlan, PodId, RuntimeFailure
from knlocal.runtime.docker_gates import Gate

#: Pods that were removed and are still remembered: the engine tells of their ends a moment later.
_FORMER = 1000


@dataclass
class HeldContainer:
    """The current attempt of one container."""

    id: str
    attempt: int
    plan_hash: str
    role: str
    ran: bool = False
    """It has been started (or a start was tried): to run again, it must be made anew."""
    gate: Gate | None = None
    """It waits at a gate: started, but nothing of the user's has run in it yet."""

    def is_made_for(self, one: ContainerPlan) -> bool:
        """Whether it is what this plan asks for."""
        if self.gate is not None:
            return self.gate.fits(one, self.plan_hash)
        return self.plan_hash == labels.plan_hash(one)


@dataclass
class HeldPod:
    id: PodId
    sandbox_id: str = ""
    ip: str = ""
    published: dict[int, int] = field(default_factory=dict)
    containers: dict[str, HeldContainer] = field(default_factory=dict)
    previous: dict[str, str] = field(default_factory=dict)
    """Container name to the id of its last attempt, kept for its logs."""
    labels: Mapping[str, str] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while containers are made or removed; never while one is waited for."""

    def learn_sandbox(self, shown: Mapping[str, Any]) -> None:
        """From "inspect the sandbox": its address changes with every start."""
        self.ip = docker_state.address(shown)
        self.published = docker_state.published(shown)

    def forget(self) -> None:
        """Nothing of it is left on the engine."""
        self.sandbox_id = self.ip = ""
        self.published = {}
        self.containers.clear()
        self.previous.clear()


class Pods:
    """All pods of the project, by uid. `left_closed` finds the gate of a pod that an earlier daemon
    held and did not let go."""

    def __init__(self, left_closed: Callable[[PodId], Gate | None]) -> None:
        self._pods: dict[str, HeldPod] = {}
        self._former: OrderedDict[str, HeldPod] = OrderedDict()
        self._left_closed = left_closed

    def all(self) -> list[HeldPod]:
        return list(self._pods.values())

    def get(self, pod: PodId) -> HeldPod | None:
        return self._pods.get(pod.uid)

    def make(self, pod: PodId) -> HeldPod:
        return self._pods.setdefault(pod.uid, HeldPod(pod))

    def check(self, pod: HeldPod) -> None:
        """RuntimeFailure when the pod was removed while someone waited for its lock."""
        if self._pods.get(pod.id.uid) is not pod:
            raise RuntimeFailure("PodRemoved", f'pod "{pod.id.name}" was removed meanwhile')

    def drop(self, pod: PodId) -> None:
        if (held := self._pods.pop(pod.uid, None)) is not None:
            self._former[pod.uid] = held
            if len(self._former) > _FORMER:
                self._former.popitem(last=False)

    def is_current(self, tag: labels.Tag, container_id: str) -> bool:
        """Whether a container stands for its name, or is an older attempt's remains."""
        pod = self._pods.get(tag.id.uid) or self._former.get(tag.id.uid)
        if pod is None:
            return True
        if tag.role == "sandbox":
            return pod.sandbox_id in {"", container_id}
        held = pod.containers.get(tag.container)
        return held is None or held.id == container_id

    def learn(self, listed: Iterable[Mapping[str, Any]]) -> None:
        """Take in a "list containers" answer; pods that are known already stay as they are."""
        fresh: dict[str, list[tuple[labels.Tag, Mapping[str, Any]]]] = {}
        for one in listed:
            tag = labels.read(one.get("Labels") or {})
            if tag is not None and tag.id.uid not in self._pods:
                fresh.setdefault(tag.id.uid, []).append((tag, one))
        for found in fresh.values():
            pod = self.make(found[0][0].id)
            # Oldest attempt first: each newer one makes the one before it "previous".
            for tag, one in sorted(found, key=lambda pair: pair[0].attempt):
                _take(pod, tag, one)
            if (gate := self._left_closed(pod.id)) is not None:
                for held in pod.containers.values():
                    if held.role == "container":
                        held.ran, held.gate = False, gate


def _take(pod: HeldPod, tag: labels.Tag, one: Mapping[str, Any]) -> None:
    if tag.role == "sandbox":
        pod.sandbox_id = str(one["Id"])
        pod.ip = docker_state.address(one)
        pod.labels = labels.others(one.get("Labels") or {})
        pod.published = {
            int(port["PrivatePort"]): int(port["PublicPort"])
            for port in one.get("Ports") or ()
            if port.get("PublicPort")
        }
        return
    if tag.container in pod.containers:
        pod.previous[tag.container] = pod.containers[tag.container].id
    pod.containers[tag.container] = HeldContainer(
        str(one["Id"]), tag.attempt, tag.plan_hash, tag.role, one.get("State") != "created"
    )
