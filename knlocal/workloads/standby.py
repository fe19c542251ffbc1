"""Standby pods: what makes a wake from zero fast.

While a Deployment that asks for it (`knlocal.dev/standby`) has no replicas, one pod is kept ready
to run: "stop" keeps a sandbox with created containers, "freeze" the paused containers of the pods
that were scaled down last. A standby is no Pod object. When a pod is wanted, the standby becomes it
under the name and uid it already has, and the engine is called before anything else happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from dataclasses import dataclass

from knlocal.resources.base import (
    Key,
    Obj,
    annotations_of,
    controller_of,
    copy,
    is_deleting,
    key_of,
    spec_of,
    uid_of,
)
from knlocal.resources.status import StatusError
from knlocal.runtime.api import ContainerEvent, RuntimeFailure
from knlocal.store.store import WriteOptions
from knlocal.store.watch import WatchEvent
from knlocal.workloads.background import Background, wait_while
from knlocal.workloads.kubelet import Kubelet
from knlocal.workloads.podcontrol import owned, pod_from_template
from knlocal.workloads.podworker import PodWorker
from knlocal.workloads.spares import Spares
from knlocal.workloads.terms import (
    DEPLOYMENT,
    REPLICA_SET,
    STANDBY_COUNT,
    STANDBY_OF,
    standby_of,
)

log = logging.getLogger(__name__)

#: Seconds (real time) after which a missing standby is prepared: off the hot path.
_DELAY_SECONDS = 0.5
_RETRY_SECONDS = 30.0
#: Seconds without a new one to prepare before the first is: somebody is applying many services, and
#: they need the machine. Less than the delay, so that a single one does not wait for it.
_QUIET_SECONDS = 0.4
#: Seconds between two looks at whether pods are being started, and for how long to go on looking.
_CALM_SECONDS = 0.1
_PATIENCE_SECONDS = 30.0
#: Standbys kept at most, the longest unused go first: a thousand idle services need not all be
#: woken fast.
MOST_STANDBYS = 50


@dataclass(slots=True, eq=False)
class Standby:
    """One pod in waiting. `ready` tells whether its preparation has ended well."""

    worker: PodWorker
    replica_set: Key
    deployment: Key
    deployment_uid: str
    frozen: bool
    ready: bool = False
    woken: bool = False


class Standbys:
    """All standbys, by the uid of the ReplicaSet whose pod they will be."""

    def __init__(self, kubelet: Kubelet, *, most: int = MOST_STANDBYS) -> None:
        self._kubelet = kubelet
        self._node = kubelet.node
        self._store = kubelet.store
        self._most = most
        self._waiting: OrderedDict[str, list[Standby]] = OrderedDict()
        self._planned: OrderedDict[str, None] = OrderedDict()
        self._planned_at = 0.0
        self._pausing: Counter[str] = Counter()
        self._one_at_a_time = asyncio.Semaphore(1)
        self._background = Background("standby")
        self._closed = False
        self._node.retain = self._retain
        self._node.runtime_labels = self._labels
        self._unsubscribe = self._store.subscribe(self._deployment_changed)
        self.spares = Spares(kubelet)
        kubelet.event_listeners.append(self._happened)
        kubelet.engine_changed.append(self._engine_changed)

    # -- what controllers tell ----------------------------------------------------------------

    def _deployment_changed(self, event: WatchEvent) -> None:
        """A Deployment at zero is to have pods: wake its standby at once, before any controller
        has its turn. Its pod object follows (`claim`)."""
        deployment = event.obj
        if deployment["kind"] != DEPLOYMENT.kind or event.type != "MODIFIED" or not self._waiting:
            return
        before = int(spec_of(event.old or {}).get("replicas", 1))
        if before or not int(spec_of(deployment).get("replicas", 1)) or is_deleting(deployment):
            return
        key = key_of(deployment)
        for uid, standbys in self._waiting.items():
            if standbys[0].deployment == key:
                standby = self._first(uid)
                if standby is not None:
                    self._wake(standby)
                return

    def claim(self, replica_set: Obj) -> Obj | None:
        """The next pod of a ReplicaSet, when a standby or a spare can be it. Raises what creating
        raises."""
        uid = uid_of(replica_set)
        standby = self._first(uid)
        if standby is None:
            return self.spares.claim(replica_set)
        self._waiting[uid].remove(standby)
        if not self._waiting[uid]:
            del self._waiting[uid]
        worker = standby.worker
        pod = copy(worker.pod)
        for name in ("uid", "resourceVersion", "creationTimestamp", "generateName"):
            pod["metadata"].pop(name, None)
        self._wake(standby)
        self._kubelet.take_over(worker)
        try:
            return self._store.create(pod, WriteOptions(uid=worker.uid))
        except StatusError:
            worker.gone()
            raise

    def follow(self, key: Key) -> None:
        """Something about a Deployment has changed: have a standby when there shall be one, and a
        spare for what comes after it."""
        self.spares.follow(key)
        deployment = self._store.find_key(key)
        replica_set = self._newest(deployment)
        for uid, standbys in list(self._waiting.items()):
            if standbys[0].deployment == key and not self._is_fit(
                standbys, deployment, replica_set
            ):
                self._drop(uid)
        if deployment is None or replica_set is None:
            return
        uid = uid_of(replica_set)
        if (
            self._is_wanted(deployment, replica_set)
            and uid not in self._waiting
            and uid not in self._planned
        ):
            self._planned[uid] = None
            self._planned_at = self._node.machine_clock.monotonic()
            if len(self._planned) > self._most:
                # It would be dropped again before anybody needs it.
                self._planned.popitem(last=False)
            self._node.machine_clock.call_later(
                _DELAY_SECONDS, self._prepare_soon, key, key_of(replica_set), uid
            )

    def follow_replica_set(self, replica_set: Obj) -> None:
        """One of its pods has gone, perhaps the last."""
        owner = controller_of(replica_set)
        if owner is not None and owner["kind"] == DEPLOYMENT.kind:
            self.follow(Key(*DEPLOYMENT, replica_set["metadata"]["namespace"], owner["name"]))

    def config_changed(self, config: Key) -> None:
        """A ConfigMap or Secret changed: standbys that use it are made anew."""
        wanted = (config.group_kind, config.name)
        for uid, standbys in list(self._waiting.items()):
            for standby in standbys:
                if (
                    standby.replica_set.namespace == config.namespace
                    and wanted in standby.worker.references
                    and not standby.woken
                ):
                    self._background.spawn(self._refresh(uid, standby))

    async def close(self) -> None:
        """Stop preparing; what is prepared stays for the next daemon to clear away."""
        self._closed = True
        await self.spares.close()
        self._unsubscribe()
        self._unsubscribe = _nothing
        await self._background.close()
        workers = [s.worker for found in self._waiting.values() for s in found]
        await asyncio.gather(*(worker.close() for worker in workers))

    @property
    def busy(self) -> bool:
        """Whether a standby or spare is being prepared or removed."""
        return self._background.busy or self.spares.busy

    def names(self) -> list[str]:
        """Names of the pods that wait, prepared."""
        return [s.worker.id.name for found in self._waiting.values() for s in found if s.ready]

    # -- preparing ----------------------------------------------------------------------------

    def _newest(self, deployment: Obj | None) -> Obj | None:
        """The ReplicaSet of the Deployment's current template."""
        if deployment is None:
            return None
        for replica_set in owned(self._store, deployment, "ReplicaSet"):
            if _is_newest(deployment, replica_set):
                return replica_set
        return None

    @staticmethod
    def _is_fit(standbys: list[Standby], deployment: Obj | None, replica_set: Obj | None) -> bool:
        """Whether standbys may stay: of this very Deployment, and of its current template."""
        if deployment is None or is_deleting(deployment) or not standby_of(deployment):
            return False
        if standbys[0].deployment_uid != uid_of(deployment) or replica_set is None:
            return False
        if standbys[0].replica_set.name != replica_set["metadata"]["name"]:
            return False
        asleep = not int(spec_of(replica_set).get("replicas", 1))
        return not (asleep and any(standby.woken for standby in standbys))

    def _is_wanted(self, deployment: Obj, replica_set: Obj) -> bool:
        if is_deleting(deployment) or not standby_of(deployment) or is_deleting(replica_set):
            return False
        if int(spec_of(deployment).get("replicas", 1)):
            return False
        return not self._store.children(uid_of(replica_set))

    def _prepare_soon(self, key: Key, replica_set: Key, uid: str) -> None:
        if self._closed:
            return
        self._background.spawn(self._prepare(key, replica_set, uid))

    async def _prepare(self, key: Key, name: Key, uid: str) -> None:
        async with self._one_at_a_time:
            if uid in self._planned:
                await self._until_calm()
            if uid not in self._planned:  # too many newer ones
                return
            del self._planned[uid]
            replica_set = self._store.find_key(name)
            deployment = self._store.find_key(key)
            if replica_set is None or deployment is None or uid in self._waiting:
                return
            if uid_of(replica_set) != uid or not self._is_wanted(deployment, replica_set):
                return
            try:
                pod = self._store.create(
                    pod_from_template(replica_set, spec_of(replica_set)["template"]),
                    WriteOptions(dry_run=True),
                )
            except StatusError as error:
                log.debug("no standby for %s: %s", name, error)
                return
            worker = PodWorker(self._node, pod, silent=True)
            standby = Standby(worker, name, key, uid_of(deployment), frozen=False)
            self._waiting[uid] = [standby]
            standby.ready = await worker.prepare()
            if not standby.ready and not standby.woken:
                self._drop(uid)
                self._node.machine_clock.call_later(_RETRY_SECONDS, self._follow_later, key)
            self._keep_few()

    async def _until_calm(self) -> None:
        """Pods and services that are wanted now come first; standbys are for later."""
        clock = self._node.machine_clock
        await wait_while(
            lambda: self._kubelet.busy or clock.monotonic() - self._planned_at < _QUIET_SECONDS,
            clock, every=_CALM_SECONDS, most=_PATIENCE_SECONDS,
        )  # fmt: skip

    def _follow_later(self, key: Key) -> None:
        if not self._closed:
            self.follow(key)

    async def _refresh(self, uid: str, standby: Standby) -> None:
        # Paused programs keep the values they started with: a new pod would have new ones.
        useless = standby.frozen or not await standby.worker.renew()
        if useless and not standby.woken:
            self._drop(uid)
            self.follow(standby.deployment)

    def _keep_few(self) -> None:
        while sum(len(found) for found in self._waiting.values()) > self._most:
            self._drop(next(iter(self._waiting)))

    # -- freezing -----------------------------------------------------------------------------

    async def _retain(self, worker: PodWorker) -> bool:
        """Called when a deleted pod has drained: pause it when its Deployment is to freeze."""
        replica_set = self._freezer(worker)
        if replica_set is None or not all(
            c.running for c in worker.containers if c.role in ("app", "sidecar")
        ):
            return False
        uid = uid_of(replica_set)
        self._pausing[uid] += 1
        try:
            await self._node.runtime.pause(worker.id)
        finally:
            self._pausing[uid] -= 1
        if self._freezer(worker) is None:
            # Wanted again while the engine was busy: a new pod has taken its place.
            return False
        pod = copy(worker.pod)
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds"):
            pod["metadata"].pop(name, None)
        pod.pop("status", None)
        heir = PodWorker(self._node, pod, silent=True)
        heir.inherit(worker)
        owner = controller_of(replica_set) or {}
        key = Key(*DEPLOYMENT, worker.id.namespace, str(owner.get("name")))
        standby = Standby(
            heir, key_of(replica_set), key, str(owner.get("uid")), frozen=True, ready=True
        )
        self._waiting.setdefault(uid, []).append(standby)
        self._keep_few()
        return True

    def _freezer(self, worker: PodWorker) -> Obj | None:
        """The ReplicaSet whose Deployment wants this pod's containers kept."""
        namespace = worker.id.namespace
        owner = controller_of(worker.pod) or {}
        replica_set = self._store.find(REPLICA_SET, namespace, str(owner.get("name")))
        if replica_set is None or uid_of(replica_set) != owner.get("uid"):
            return None
        above = controller_of(replica_set) or {}
        deployment = self._store.find(DEPLOYMENT, namespace, str(above.get("name")))
        if deployment is None or is_deleting(deployment) or standby_of(deployment) != "freeze":
            return None
        if int(spec_of(deployment).get("replicas", 1)) or int(spec_of(replica_set)["replicas"]):
            return None
        uid = uid_of(replica_set)
        frozen = sum(s.frozen for s in self._waiting.get(uid, ())) + self._pausing[uid]
        return replica_set if frozen < _count(deployment) else None

    # -- waking and dropping ------------------------------------------------------------------

    def _first(self, uid: str) -> Standby | None:
        found = self._waiting.get(uid) or ()
        return min(found, key=lambda one: (not one.woken, not one.frozen), default=None)

    def _wake(self, standby: Standby) -> None:
        if not standby.woken:
            standby.woken = True
            standby.worker.begin()
            standby.worker.wake()

    def _drop(self, uid: str) -> None:
        for standby in self._waiting.pop(uid, ()):
            standby.worker.gone()

    def _happened(self, event: ContainerEvent) -> None:
        """A standby's containers are not expected to end."""
        if event.what not in ("exited", "removed"):
            return
        for uid, standbys in list(self._waiting.items()):
            for standby in standbys:
                if standby.worker.uid == event.id.uid and not standby.woken:
                    self._drop(uid)
                    self.follow(standby.deployment)

    def _engine_changed(self, answers: bool) -> None:
        if not answers:
            return
        for uid, standbys in list(self._waiting.items()):
            for standby in standbys:
                if not standby.woken:
                    self._background.spawn(self._check(uid, standby))

    async def _check(self, uid: str, standby: Standby) -> None:
        """After the engine was away: is the standby still what it was?"""
        try:
            state = await self._node.runtime.inspect(standby.worker.id)
        except RuntimeFailure:
            return
        wanted = "paused" if standby.frozen else "created"
        sound = state is not None and all(
            state.containers.get(c.name) and state.containers[c.name].state == wanted
            for c in standby.worker.containers
            if c.role == "app"
        )
        if not sound and not standby.woken:
            self._drop(uid)
            self.follow(standby.deployment)

    def _labels(self, pod: Obj) -> dict[str, str]:
        """Tells a later daemon whose standby a pod without an object may be."""
        owner = controller_of(pod) or {}
        if owner.get("kind") != "ReplicaSet":
            return {}
        replica_set = self._store.find(
            REPLICA_SET, pod["metadata"].get("namespace") or "", str(owner.get("name"))
        )
        above = controller_of(replica_set) if replica_set else None
        return {STANDBY_OF: str(above["uid"])} if above else {}


def _nothing() -> None: ...


def _count(deployment: Obj) -> int:
    text = annotations_of(deployment).get(STANDBY_COUNT, "1")
    return max(1, int(text)) if text.isdigit() else 1


def _is_newest(deployment: Obj, replica_set: Obj) -> bool:
    revision = "deployment.kubernetes.io/revision"
    return annotations_of(deployment).get(revision) == annotations_of(replica_set).get(revision)
