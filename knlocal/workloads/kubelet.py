"""The kubelet: has every Pod object run, and its status say how it goes.

Each pod has a `PodWorker`. The kubelet brings it what concerns it: changes of its object, of
ConfigMaps and Secrets it uses, and what the engine says happened to its containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from knlocal.clock import Clock, SystemClock
from knlocal.control.controller import Controller, Requeue, Watching
from knlocal.control.pace import Urgency
from knlocal.control.queue import WorkQueue
from knlocal.resources.base import (
    Key,
    Obj,
    controller_of,
    key_of,
    spec_of,
    status_of,
    timestamp,
    uid_of,
)
from knlocal.resources.status import NotFound
from knlocal.runtime.api import (
    ContainerEvent,
    EngineUnavailable,
    PodState,
    Runtime,
    RuntimeFailure,
)
from knlocal.store.store import Store
from knlocal.workloads.admission import pod_admission, why_unschedulable
from knlocal.workloads.background import Background
from knlocal.workloads.node import DrainHook, Node
from knlocal.workloads.podplan import PodNetwork
from knlocal.workloads.podstatus import is_terminal
from knlocal.workloads.podworker import PodWorker
from knlocal.workloads.terms import CLAIM, CONFIG_MAP, NODE_NAME, POD, SECRET
from knlocal.workloads.tokens import LocalIssuer, TokenIssuer
from knlocal.workloads.volumes import remove_all_volumes, remove_volumes

log = logging.getLogger(__name__)

#: Seconds (real time) between two looks at whether the engine answers: while it does, while not.
_CHECK_SECONDS = 10.0
_RETURN_SECONDS = 0.5
#: Checks between two looks at every pod, so that nothing stays unseen for long.
_CHECKS_PER_LOOK = 6
#: Seconds (real time) that looks under way get when the daemon stops.
_STOP_SECONDS = 10.0
#: Seconds (real time) that `shutdown` may take beside the grace: an engine that hangs must not keep
#: the daemon from ending.
_SHUTDOWN_SECONDS = 30.0
#: Times that `shutdown` makes sure that nothing is left.
_SWEEPS = 3


class Kubelet(Controller):
    """Runs pods. `root` holds their volumes and the claims' folders; `snapshots` (beside it when
    not given) is where source snapshots lie.

    `store.clock` rules back-off and deadlines; `machine_clock` probes, graces and the engine.
    """

    kind = POD
    urgency = Urgency.PODS

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        root: Path,
        *,
        snapshots: Path | None = None,
        machine_clock: Clock | None = None,
        network: PodNetwork | None = None,
        issue_token: TokenIssuer | None = None,
    ) -> None:
        super().__init__(store)
        self.node = Node(
            store=store,
            runtime=runtime,
            root=root.absolute(),
            snapshots=(snapshots or root.parent / "snapshots").absolute(),
            machine_clock=machine_clock or SystemClock(),
            network=network or PodNetwork(),
            issue_token=issue_token or LocalIssuer(),
            poke=self.poke,
            engine_lost=self._engine_lost,
        )
        self.workers: dict[str, PodWorker] = {}
        self.engine_changed: list[Callable[[bool], object]] = []
        """Told when the engine went away or came back."""
        self.event_listeners: list[Callable[[ContainerEvent], object]] = []
        """Told everything that happens to containers."""
        self._found: dict[str, PodState] = {}
        self._queue = WorkQueue("kubelet", store.clock, self._sync, urgency=Urgency.PODS)
        self._background = Background("kubelet")
        self._lost = asyncio.Event()
        self._adopted = False
        self._closing = False
        store.admission.append(pod_admission(store, self.node.network))

    # -- for others ---------------------------------------------------------------------------

    @property
    def drain_hooks(self) -> list[DrainHook]:
        """Awaited, within the grace, before the containers of a deleted pod get SIGTERM."""
        return self.node.drain_hooks

    @property
    def busy(self) -> bool:
        """Whether some pod is being started, stopped or changed right now."""
        return self._queue.busy or any(worker.busy for worker in self.workers.values())

    def address_of(self, pod: Obj, port: int) -> tuple[str, int]:
        """Where the daemon reaches a port of the pod. LookupError while that is not known."""
        worker = self.workers.get(uid_of(pod))
        if worker is None or worker.state is None:
            raise LookupError(f"pod {pod['metadata']['name']} has no address yet")
        return self.node.runtime.address(worker.state, port)

    def poke(self, key: Key) -> None:
        """Have a pod looked at soon."""
        if not self._closing:
            self._queue.add(key)

    def take_over(self, worker: PodWorker) -> None:
        """A prepared pod becomes a real one: its worker runs already, its object comes now."""
        self.workers[worker.uid] = worker

    # -- the controller -----------------------------------------------------------------------

    def watches(self) -> Sequence[Watching]:
        return [Watching(kind, self._users_of) for kind in (CONFIG_MAP, SECRET, CLAIM)]

    async def start(self) -> None:
        await self._adopt()
        self._background.spawn(self._follow_events())
        self._background.spawn(self._watch_engine())

    async def stop(self) -> None:
        """Let go of everything; containers stay as they are."""
        self._background.cancel()
        self._closing = True
        clock = self.node.machine_clock
        with contextlib.suppress(TimeoutError):
            async with clock.timeout(_STOP_SECONDS):
                while self._queue.busy:
                    await clock.sleep(0.01)
        await self._queue.close()
        await asyncio.gather(*(worker.close() for worker in self.workers.values()))
        self.workers.clear()

    async def shutdown(self, *, grace_seconds: float = 5.0) -> None:
        """After `stop`: leave nothing of any pod on this machine. Pods that a controller will make
        anew are deleted, others start afresh next time; finished ones stay as they are."""
        try:
            async with self.node.machine_clock.timeout(_SHUTDOWN_SECONDS + grace_seconds):
                left = await self._sweep(grace_seconds)
        except (RuntimeFailure, TimeoutError) as error:
            left = [str(error) or "the container engine takes too long"]
        if left:
            log.warning("not all pods could be removed (%s); try: knlocal down", ", ".join(left))
        for pod in self.store.list(POD):
            if not is_terminal(pod):
                self._forget(pod)
        await asyncio.to_thread(remove_all_volumes, self.node.root)

    async def _sweep(self, grace_seconds: float) -> list[str]:
        """Remove every pod; returns the names of those that are still there."""
        for _ in range(_SWEEPS):
            found = await self.node.runtime.pods()
            if not found:
                return []
            await asyncio.gather(
                *(self.node.runtime.remove(state.id, grace_seconds) for state in found),
                return_exceptions=True,
            )
        return [state.id.name for state in await self.node.runtime.pods()]

    async def reconcile(self, key: Key) -> Requeue | None:
        self.poke(key)
        return None

    async def _sync(self, key: Key) -> float | None:
        pod = self.store.find_key(key)
        for worker in self._workers_of(key):
            if pod is None or worker.uid != uid_of(pod):
                worker.gone()
            if worker.done and (pod is None or worker.uid != uid_of(pod)):
                await worker.close()
                del self.workers[worker.uid]
        if pod is None:
            return None
        if not spec_of(pod).get("nodeName"):
            self._tell_unschedulable(pod)
            return None
        worker = self.workers.get(uid_of(pod)) or self._new_worker(pod)
        worker.update(pod)
        if worker.done:
            return None  # its finalizers keep the object; of its containers nothing is left
        try:
            return await worker.sync()
        except EngineUnavailable:
            self._engine_lost()
        except Exception:
            log.exception("kubelet: cannot bring pod %s in line", key)
            raise
        return None

    def _new_worker(self, pod: Obj) -> PodWorker:
        uid = uid_of(pod)
        worker = PodWorker(self.node, pod, self._found.pop(uid, None))
        self.workers[uid] = worker
        if not status_of(pod).get("startTime") and not pod["metadata"].get("deletionTimestamp"):
            name = f"{pod['metadata'].get('namespace')}/{pod['metadata']['name']}"
            self.node.scheduler.normal(
                pod, "Scheduled", f"Successfully assigned {name} to {NODE_NAME}"
            )
        return worker

    def _workers_of(self, key: Key) -> list[PodWorker]:
        return [worker for worker in list(self.workers.values()) if worker.key == key]

    def _users_of(self, obj: Obj) -> Iterable[Key]:
        """Pods that use a ConfigMap, Secret or claim."""
        wanted = key_of(obj)
        keys = []
        for worker in self.workers.values():
            if worker.key.namespace == wanted.namespace and (
                (wanted.group_kind, wanted.name) in worker.references
            ):
                worker.config_touched()
                keys.append(worker.key)
        return keys

    def _tell_unschedulable(self, pod: Obj) -> None:
        reason, message = why_unschedulable(pod) or ("", "")
        status = status_of(pod)
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "lastTransitionTime": timestamp(self.clock.now()),
            "reason": reason,
            "message": message,
        }
        before: Obj = next(iter(status.get("conditions") or ()), {})
        if before.get("message") != message:
            self.store.set_status(key_of(pod), {**status, "conditions": [condition]})
            self.node.scheduler.warning(pod, "FailedScheduling", message)

    # -- the engine ---------------------------------------------------------------------------

    async def _adopt(self) -> None:
        """Learn what runs; remove what nobody owns."""
        try:
            address = await self.node.runtime.host_address()
            self.node.host_ip = address if address[:1].isdigit() else "127.0.0.1"
            found = await self.node.runtime.pods()
        except EngineUnavailable:
            self._engine_lost()
            return
        owned = {uid_of(pod) for pod in self.store.list(POD)}
        self._found = {state.id.uid: state for state in found if state.id.uid in owned}
        strangers = [s for s in found if s.id.uid not in owned and s.id.uid not in self.workers]
        for state in strangers:
            self._background.spawn(self._remove_stranger(state))
        self._background.spawn(self._remove_left_folders(owned))
        self._adopted = True

    async def _remove_stranger(self, state: PodState) -> None:
        log.info("removing pod %s/%s: nobody owns it", state.id.namespace, state.id.name)
        try:
            await self.node.runtime.remove(state.id)
        except RuntimeFailure as error:
            log.warning("cannot remove pod %s: %s", state.id.name, error)
        await asyncio.to_thread(remove_volumes, self.node.root / "pods" / state.id.uid)

    async def _remove_left_folders(self, owned: set[str]) -> None:
        """Volumes of pods that went while nobody could remove them."""
        folders = self.node.root / "pods"
        found = list(folders.iterdir()) if folders.is_dir() else []
        for folder in found:
            if folder.name not in owned and folder.name not in self.workers:
                await asyncio.to_thread(remove_volumes, folder)

    async def _follow_events(self) -> None:
        while True:
            try:
                async for event in self.node.runtime.events():
                    self._happened(event)
            except EngineUnavailable:
                self._engine_lost()
            except RuntimeFailure as error:
                log.warning("kubelet: the engine's events stopped: %s", error)
            await self.node.machine_clock.sleep(_RETURN_SECONDS)
            self._look_at_all()  # something may have happened unseen

    def _happened(self, event: ContainerEvent) -> None:
        worker = self.workers.get(event.id.uid)
        if worker is not None:
            worker.container_event(event)
            worker.poke()
        for listener in self.event_listeners:
            listener(event)

    async def _watch_engine(self) -> None:
        clock = self.node.machine_clock
        for check in itertools.count(1):
            with contextlib.suppress(TimeoutError):
                await clock.wait_for(self._lost.wait(), _CHECK_SECONDS)
            if await self._answers():
                if self._lost.is_set():
                    await self._engine_returned()
                elif check % _CHECKS_PER_LOOK == 0:
                    self._look_at_all()
            else:
                self._engine_lost()
                await clock.sleep(_RETURN_SECONDS)

    async def _answers(self) -> bool:
        runtime = self.node.runtime
        if await runtime.healthy():
            return True
        with contextlib.suppress(RuntimeFailure):
            await runtime.start()
            return await runtime.healthy()
        return False

    def _engine_lost(self) -> None:
        if self.node.engine_ok:
            log.warning("the container engine does not answer; pods stay as they were last seen")
            self.node.engine_ok = False
            for tell in self.engine_changed:
                tell(False)
        self._lost.set()

    async def _engine_returned(self) -> None:
        self._lost.clear()
        self.node.engine_ok = True
        if not self._adopted:
            await self._adopt()
        log.info("the container engine answers again")
        for tell in self.engine_changed:
            tell(True)
        self._look_at_all()

    def _look_at_all(self) -> None:
        for worker in self.workers.values():
            worker.look_again()
            worker.poke()

    # -- helpers ------------------------------------------------------------------------------

    def _forget(self, pod: Obj) -> None:
        key = key_of(pod)
        try:
            if controller_of(pod) or pod["metadata"].get("deletionTimestamp"):
                if pod["metadata"].get("finalizers"):
                    # Nothing failed here: its Job shall not count it, only make it anew.
                    self.store.modify(
                        POD, key.namespace, key.name, lambda p: p["metadata"].pop("finalizers")
                    )
                self.store.delete(POD, key.namespace, key.name, grace_seconds=0)
            else:
                fresh = {"phase": "Pending", "qosClass": status_of(pod).get("qosClass")}
                self.store.set_status(key, fresh)
        except NotFound:
            pass
