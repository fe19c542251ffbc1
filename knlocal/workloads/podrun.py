"""One pod while it runs: what its parts share, and its status in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from knlocal.resources.base import Key, Obj, key_of, status_of, uid_of
from knlocal.runtime.api import PodId, PodPlan, PodState
from knlocal.workloads.background import Background
from knlocal.workloads.containers import Container, containers_of
from knlocal.workloads.environment import PodFacts
from knlocal.workloads.images import PodImages
from knlocal.workloads.node import Node, PodRecorder
from knlocal.workloads.podplan import Ground, plan_pod, pod_id
from knlocal.workloads.podstatus import PodView, is_terminal, pod_phase, pod_status
from knlocal.workloads.terms import POD
from knlocal.workloads.volumes import PodVolumes


class PodRun:
    """What is known and wanted of one pod. `plan` and `state` are None until its sandbox stands."""

    def __init__(self, node: Node, pod: Obj, found: PodState | None, *, silent: bool) -> None:
        self.node = node
        self.recorder = PodRecorder(node.recorder, silent=silent)
        self.pod = pod
        self.key: Key = key_of(pod)
        self.id: PodId = pod_id(pod)
        self.containers = containers_of(pod, node.clock.now())
        self.images = PodImages(node, self.recorder, self.poke)
        self.volumes = PodVolumes(node.store, node.root, pod, node.issue_token, node.clock.now)
        self.plan: PodPlan | None = None
        self.state: PodState | None = found
        # A pod that has run before is looked at first: much may have happened meanwhile.
        self.ran_before = self.must_look = bool(status_of(pod).get("startTime"))
        self.failure: tuple[str, str] | None = _stored_failure(pod)
        """Reason and message that end the pod as Failed, whatever its containers do."""
        name = f"pod {self.id.namespace}/{self.id.name}"
        self.background = Background(name, ended=self.poke)
        self.setting_up = asyncio.Lock()
        """Held while sandbox and containers are made, or what is left of them is removed."""
        self.clearing: asyncio.Task[None] | None = None
        """What is left of a lost sandbox is being removed."""
        self._told_problem = ""

    @property
    def is_set_up(self) -> bool:
        return self.plan is not None and self.state is not None

    @property
    def is_clearing(self) -> bool:
        return self.clearing is not None and not self.clearing.done()

    @property
    def phase(self) -> str:
        return pod_phase(self.pod, self.view())

    @property
    def any_running(self) -> bool:
        return any(c.running for c in self.containers if c.role != "shown")

    def make_plan(self) -> PodPlan:
        """The plan as objects are now. Raises ConfigError."""
        ground = Ground(
            store=self.node.store,
            network=self.node.network,
            facts=self.facts(),
            env_port=self.node.runtime.env_port,
            labels=self.node.runtime_labels(self.pod),
            snapshots=self.node.snapshots,
        )
        return plan_pod(self.pod, ground, self.volumes, self.images.found)

    def facts(self) -> PodFacts:
        ip = self.state.ip if self.state else str(status_of(self.pod).get("podIP") or "")
        return PodFacts(ip=ip, host_ip=self.node.host_ip)

    # -- telling ------------------------------------------------------------------------------

    def publish(self) -> None:
        """Write the status when it differs from the stored one."""
        stored = self.node.store.find(POD, self.id.namespace, self.id.name)
        if stored is None or uid_of(stored) != self.id.uid:
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
            failure=self.failure,
        )

    def _image_id(self, container: Container) -> str:
        if container.role == "shown":
            return str(container.spec.get("image") or "")
        info = self.images.info(str(container.spec.get("image") or ""))
        return (info.digest or info.id) if info else container.image_id

    def warn_once(self, reason: str, message: str) -> None:
        """A Warning Event, unless it would only say the last one again."""
        if self._told_problem != message:
            self._told_problem = message
            self.recorder.warning(self.pod, reason, message)

    def problem_solved(self) -> None:
        self._told_problem = ""

    # -- tasks --------------------------------------------------------------------------------

    def poke(self) -> None:
        """Have the pod looked at."""
        self.node.poke(self.key)

    def look(self) -> None:
        """Have the engine asked what is so."""
        self.must_look = True
        self.poke()

    def operate(self, container: Container, work: Coroutine[Any, Any, None]) -> None:
        """Do something with a container that takes a while; nothing else is done with it then."""
        container.operation = self.background.spawn(work)


def _stored_failure(pod: Obj) -> tuple[str, str] | None:
    status = status_of(pod)
    if is_terminal(pod) and status.get("reason"):
        return str(status["reason"]), str(status.get("message") or "")
    return None
