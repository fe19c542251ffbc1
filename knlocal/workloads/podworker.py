"""One pod, from its object to its containers and back to its status.

`sync` looks at what is wanted and what is so, takes the next step, and says when to look again. It
never waits for a container: starts, stops and pulls are tasks of their own that have the pod looked
at again when they end. The stages, in order: look at what happened, images and plan and sandbox,
init containers one by one, app containers; a pod that is being deleted goes to `PodEnding`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from knlocal.resources.base import Key, Obj, is_deleting, parse_timestamp, spec_of, status_of
from knlocal.runtime.api import (
    ContainerEvent,
    EngineUnavailable,
    PodId,
    PodState,
    RuntimeFailure,
)
from knlocal.workloads.containerruns import ContainerRuns
from knlocal.workloads.containers import Container
from knlocal.workloads.node import Node
from knlocal.workloads.podending import PodEnding
from knlocal.workloads.podobserver import PodObserver
from knlocal.workloads.podprobing import PodProbing
from knlocal.workloads.podrun import PodRun
from knlocal.workloads.podsetup import PodSetUp
from knlocal.workloads.podstatus import is_terminal
from knlocal.workloads.volumes import references


class PodWorker:
    """Owns everything that runs for one pod. Called by the kubelet, one call at a time.

    `found` is what the engine already runs for it; `silent` keeps Events back while the pod is no
    object (a standby).
    """

    def __init__(
        self, node: Node, pod: Obj, found: PodState | None = None, *, silent: bool = False
    ) -> None:
        self.node = node
        self.run = PodRun(node, pod, found, silent=silent)
        self.references = references(pod)
        self.ending: PodEnding | None = None
        self.frozen = False
        self._set_up = PodSetUp(self.run)
        self._runs = ContainerRuns(self.run)
        self._observer = PodObserver(self.run, self._runs.probing)
        self._ready_before: set[str] = set()

    # -- what it is ---------------------------------------------------------------------------

    @property
    def pod(self) -> Obj:
        return self.run.pod

    @property
    def key(self) -> Key:
        return self.run.key

    @property
    def id(self) -> PodId:
        return self.run.id

    @property
    def uid(self) -> str:
        return self.run.id.uid

    @property
    def containers(self) -> list[Container]:
        return self.run.containers

    @property
    def state(self) -> PodState | None:
        """What the engine made of the pod: its address above all."""
        return self.run.state

    @property
    def busy(self) -> bool:
        """Whether something is being done that will soon end."""
        return self.run.background.busy or (self.ending is not None and not self.ending.done)

    @property
    def done(self) -> bool:
        """Nothing of it is left."""
        return self.ending is not None and self.ending.done

    # -- what the kubelet tells ---------------------------------------------------------------

    def update(self, pod: Obj) -> None:
        """The object has changed."""
        self.run.pod = pod

    def gone(self) -> None:
        """The object was removed without waiting for the containers: they go at once."""
        self.frozen = False
        self._end(grace=0)

    def config_touched(self) -> None:
        """A ConfigMap, Secret or claim that the pod uses has changed: `sync` shall follow it."""
        self._set_up.touched()

    def container_event(self, event: ContainerEvent) -> None:
        """Something happened to a container, or ("") to the sandbox."""
        if event.container == "" and event.what in ("exited", "removed") and self.ending is None:
            self._observer.sandbox_lost()
        elif event.what != "started":
            self.run.must_look = True

    def look_again(self) -> None:
        """The engine was away, or something may have been missed."""
        self.run.must_look = True

    def poke(self) -> None:
        self.run.poke()

    async def close(self) -> None:
        """The daemon goes; containers stay. What the engine is just doing is waited for: a call
        that is cut off would be carried out all the same, unseen."""
        self.run.images.close()
        self._runs.probing.stop_all()
        if self.ending is not None:
            self.ending.cancel()
        await self.run.background.close()

    # -- the stages ---------------------------------------------------------------------------

    async def sync(self) -> float | None:
        """Take the next step. Returns seconds (policy clock) until the next look, or None."""
        run = self.run
        if self.ending is not None or self.frozen:
            self._hurry_ending()
            return None
        if is_deleting(run.pod):
            self._end(float(run.pod["metadata"].get("deletionGracePeriodSeconds") or 0))
            return None
        if is_terminal(run.pod) or not self.node.engine_ok or run.is_clearing:
            return None
        began = self.node.clock.monotonic()
        if run.must_look:
            await self._observer.look()
        self._set_up.follow_config()
        if run.phase in ("Succeeded", "Failed"):
            pass  # nothing more to run
        elif self._is_past_deadline():
            self._fail(
                "DeadlineExceeded",
                "Pod was active on the node longer than the specified deadline",
            )
        elif await self._set_up.ensure():
            self._runs.drive_all()
        run.publish()
        if self._runs.apps_done() and any(c.running for c in run.containers if c.role == "sidecar"):
            run.background.spawn(self._stop_all())  # sidecars end when what they serve has ended
        return self._next_look(began)

    def _is_past_deadline(self) -> bool:
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
        if self.run.failure is None:
            self.run.failure = (reason, message)
            self.run.recorder.normal(self.pod, reason, message)
        self.run.background.spawn(self._stop_all())

    async def _stop_all(self) -> None:
        """Stop what still runs of a finished pod, and note how it ended."""
        self._runs.stop_running()
        stopping = [c.operation for c in self.containers if c.busy and c.operation]
        if stopping:
            await asyncio.wait(stopping)
        await self._observer.see_ends()

    def _next_look(self, began: float) -> float | None:
        """`began` is when this look began: what was not due then must not be forgotten though it
        is due now."""
        run, now = self.run, self.node.clock.monotonic()
        due = [
            max(0.01, c.start_at - now)
            for c in run.containers
            if not c.running and c.start_at > began
        ]
        if (image := run.images.retry_at()) is not None:
            due.append(max(0.01, image - now))
        if (left := self._deadline_left()) is not None and run.failure is None:
            due.append(max(0.01, left))
        if (refresh := run.volumes.refresh_at) is not None:
            due.append(max(1.0, (refresh - self.node.clock.now()).total_seconds()))
        return min(due, default=None)

    # -- ending -------------------------------------------------------------------------------

    def _end(self, grace: float) -> None:
        if self.ending is None:
            self.run.images.close()
            operations = [c.operation for c in self.containers if c.busy and c.operation]
            self.ending = PodEnding(self, grace, operations)
        else:
            self.ending.shorten(grace)

    def _hurry_ending(self) -> None:
        if self.ending is not None and is_deleting(self.pod):
            wanted = self.pod["metadata"].get("deletionGracePeriodSeconds")
            if wanted is not None:
                self.ending.shorten_to(float(wanted))

    @property
    def probing(self) -> PodProbing:
        return self._runs.probing

    async def see_ends(self) -> None:
        """After everything was stopped: note how each container ended."""
        await self._observer.see_ends()

    # -- as a standby -------------------------------------------------------------------------

    async def prepare(self) -> bool:
        """Make sandbox and containers, and start nothing. False when that failed."""
        return await self._set_up.ensure()

    async def hold(self, late: str, labels: Mapping[str, str]) -> bool:
        """The same, and the serving container started up to its program, with what is mounted at
        `late` to be decided later. False when that is not possible. Raises ConfigError and
        RuntimeFailure."""
        return await self._set_up.hold(late, labels)

    async def renew(self) -> bool:
        """Of a prepared pod: after something its plan depends on has changed. False when that
        failed."""
        return await self._set_up.renew()

    def let_go(self) -> None:
        """The containers are kept, paused: stop watching them."""
        self._runs.probing.stop_all()
        self.frozen = True

    def inherit(self, before: PodWorker) -> None:
        """Take over the (paused) containers of a pod whose object is gone."""
        run, old = self.run, before.run
        run.plan, run.state, run.images = old.plan, old.state, old.images
        run.containers, self.frozen = old.containers, True
        self._ready_before = {c.name for c in run.containers if c.ready}
        for container in run.containers:
            container.operation, container.ready = None, False

    def begin(self) -> None:
        """It is about to be an object: what happens is told from now on."""
        self.run.recorder.silent = False

    def wake(self) -> None:
        """Begin to live: one call to the engine for each container, at once."""
        if self.frozen:
            self.frozen = False
            thawing = self.run.background.spawn(self._thaw())
            for container in self.containers:
                container.operation = thawing
        elif self.run.is_set_up:
            self._runs.drive_all()

    async def _thaw(self) -> None:
        run = self.run
        try:
            await self.node.runtime.unpause(run.id)
        except EngineUnavailable:
            self.node.engine_lost()
        except RuntimeFailure:
            pass  # what does not run is seen by the next look
        run.must_look = True
        for container in run.containers:  # what was ready when it was paused is ready now
            container.ready = container.name in self._ready_before
        run.publish()
        for container in run.containers:
            if container.running and container.role in ("app", "sidecar"):
                self._runs.probing.begin(container)
