"""Spares: the pod of the next revision, started before anybody knows what it will run.

A Deployment whose pods mount a source snapshot will have a successor as soon as somebody saves; it
says which (`knlocal.dev/successor`). Until then a pod is held ready for it: sandbox, network and
container stand, and the program waits at a gate for its source (`Runtime.hold`). The successor's
first pod then is that one, under the name and uid it already has. Whatever turns out differently
from what was expected is made anew by the runtime, so a spare can be useless but never wrong.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from knlocal.resources.annotations import SUCCESSOR
from knlocal.resources.base import (
    Key,
    Obj,
    annotations_of,
    controller_of,
    is_deleting,
    spec_of,
    status_of,
)
from knlocal.resources.status import StatusError
from knlocal.runtime.api import ContainerEvent, EngineUnavailable, RuntimeFailure
from knlocal.store.store import WriteOptions
from knlocal.workloads.background import Background, wait_while
from knlocal.workloads.environment import ConfigError
from knlocal.workloads.kubelet import Kubelet
from knlocal.workloads.podcontrol import pod_from_template, template_hash
from knlocal.workloads.podplan import SandboxFacts, sandbox_facts, snapshot_target
from knlocal.workloads.podworker import PodWorker
from knlocal.workloads.terms import DEPLOYMENT, SPARE_FOR

log = logging.getLogger(__name__)

#: Spares kept at most: nobody edits many services at once.
MOST_SPARES = 2
#: Seconds (real time) between two looks at whether pods are being started, and for how long at
#: most; and what a Deployment gets to have its own pods ready (broken code never has).
_CALM_SECONDS, _PATIENCE_SECONDS, _SETTLE_SECONDS = 0.05, 30.0, 5.0
#: After which the engine is asked again, and a spare that ended is replaced.
_RETRY_SECONDS, _AGAIN_SECONDS = 30.0, 1.0
#: Deployments that are remembered to need no spare.
_MEMORY = 1000


@dataclass(frozen=True, slots=True)
class Successor:
    """What a Deployment says about the one that comes after it."""

    deployment: Key
    names: Mapping[str, str]
    """Values in the pod template that will be others then: now to then."""


@dataclass(slots=True, eq=False)
class Spare:
    """One pod in waiting."""

    worker: PodWorker
    after: Key
    """The Deployment whose successor it is for."""
    successor: Successor
    sandbox: SandboxFacts
    ready: bool = False
    """It is held. Before that it is being made: whoever needs a pod then is faster with it, too."""
    taken: bool = False


class Spares:
    """All spares, by the Deployment whose first pod they will be."""

    def __init__(self, kubelet: Kubelet, *, most: int = MOST_SPARES) -> None:
        self._kubelet = kubelet
        self._node = kubelet.node
        self._store = kubelet.store
        self._most = most
        self._spares: OrderedDict[Key, Spare] = OrderedDict()
        self._planned: set[Key] = set()
        self._settled: OrderedDict[Key, None] = OrderedDict()
        self._one_at_a_time = asyncio.Semaphore(1)
        self._background = Background("spare")
        self._closed = False
        kubelet.event_listeners.append(self._happened)
        kubelet.engine_changed.append(self._engine_changed)

    # -- what controllers tell ----------------------------------------------------------------

    def claim(self, replica_set: Obj) -> Obj | None:
        """The first pod of a ReplicaSet, when a spare can be it. Raises what creating raises."""
        owner = controller_of(replica_set)
        if owner is None or not self._spares:
            return None
        key = Key(*DEPLOYMENT, replica_set["metadata"]["namespace"], str(owner["name"]))
        spare = self._spares.get(key)
        if spare is None:
            return None
        del self._spares[key]
        spare.taken = True
        worker = spare.worker
        pod = pod_from_template(replica_set, spec_of(replica_set)["template"], name=worker.id.name)
        if not _suits(spare, sandbox_facts(pod, self._node.network)):
            worker.gone()
            return None
        try:
            return self._store.create(pod, WriteOptions(uid=worker.uid))
        except StatusError:
            worker.gone()
            raise

    def follow(self, key: Key) -> None:
        """Something about a Deployment has changed: have a spare for its successor."""
        deployment = self._store.find_key(key)
        successor = successor_of(deployment) if deployment is not None else None
        if deployment is None or is_deleting(deployment):
            self._drop_all_after(key)
            return
        if successor is None:
            return
        self._let_be(key)
        if key in self._spares and not int(spec_of(deployment).get("replicas", 1)):
            self._drop(key)  # it begins with no pods
        wanted = successor.deployment
        if wanted in self._planned or not self._is_wanted(successor):
            return
        self._planned.add(wanted)
        self._background.spawn(self._prepare(key, wanted))

    async def close(self) -> None:
        """Stop preparing; what stands is left for the next daemon to clear away."""
        self._closed = True
        await self._background.close()
        await asyncio.gather(*(spare.worker.close() for spare in self._spares.values()))

    @property
    def busy(self) -> bool:
        """Whether a spare is being prepared."""
        return self._background.busy

    def names(self) -> list[str]:
        """Names of the pods that are held, ready."""
        return [spare.worker.id.name for spare in self._spares.values() if spare.ready]

    # -- preparing ----------------------------------------------------------------------------

    def _is_wanted(self, successor: Successor) -> bool:
        key = successor.deployment
        if self._closed or key in self._spares or key in self._settled:
            return False
        return self._store.find_key(key) is None

    def _let_be(self, key: Key) -> None:
        """It exists, or cannot be had: no spare is made for it any more."""
        self._settled[key] = None
        if len(self._settled) > _MEMORY:
            self._settled.popitem(last=False)

    async def _prepare(self, after: Key, key: Key) -> None:
        try:
            async with self._one_at_a_time:
                await self._until_calm(after)
                await self._make(after, key)
        finally:
            self._planned.discard(key)

    async def _make(self, after: Key, key: Key) -> None:
        deployment = self._store.find_key(after)
        successor = successor_of(deployment) if deployment is not None else None
        if deployment is None or successor is None or successor.deployment != key:
            return
        if is_deleting(deployment) or not self._is_wanted(successor):
            return
        try:
            pod = self._expected_pod(deployment, successor)
        except StatusError as error:
            log.debug("no spare for %s: %s", key, error)
            return
        worker = PodWorker(self._node, pod, silent=True)
        spare = Spare(worker, after, successor, sandbox_facts(pod, self._node.network))
        self._spares[key] = spare
        self._keep_few()
        try:
            spare.ready = await worker.hold(snapshot_target(pod), {SPARE_FOR: key.name})
            if not spare.ready:
                self._let_be(key)
        except EngineUnavailable:
            self._node.machine_clock.call_later(_RETRY_SECONDS, self._follow_later, after)
        except (ConfigError, RuntimeFailure) as error:
            log.info("no spare for %s: %s", key, error)
            self._let_be(key)
        finally:
            if not spare.ready and self._spares.get(key) is spare:
                self._drop(key)

    def _expected_pod(self, deployment: Obj, successor: Successor) -> Obj:
        """What the successor's first pod will be, but for what only a save can tell."""
        template = _renamed(spec_of(deployment)["template"], successor.names)
        prefix = f"{successor.deployment.name}-{template_hash(template)}-"
        pod = pod_from_template(deployment, template, prefix=prefix)
        del pod["metadata"]["ownerReferences"]
        return self._store.create(pod, WriteOptions(dry_run=True))

    async def _until_calm(self, after: Key) -> None:
        """Pods that are wanted now come first, above all those of the Deployment itself."""
        clock = self._node.machine_clock
        await wait_while(
            lambda: not _has_its_pods(self._store.find_key(after)),
            clock, every=_CALM_SECONDS, most=_SETTLE_SECONDS,
        )  # fmt: skip
        await clock.sleep(_CALM_SECONDS)
        await wait_while(
            lambda: any(w.busy and w.ending is None for w in self._kubelet.workers.values()),
            clock, every=_CALM_SECONDS, most=_PATIENCE_SECONDS,
        )  # fmt: skip

    def _follow_later(self, key: Key) -> None:
        if not self._closed:
            self.follow(key)

    # -- dropping -----------------------------------------------------------------------------

    def _keep_few(self) -> None:
        while len(self._spares) > self._most:
            self._drop(next(iter(self._spares)))

    def _drop_all_after(self, key: Key) -> None:
        """A Deployment is gone, perhaps with all of its kind: then there is no successor."""
        for wanted in [k for k, spare in self._spares.items() if spare.after == key]:
            self._drop(wanted)

    def _drop(self, key: Key) -> None:
        self._spares.pop(key).worker.gone()

    def _happened(self, event: ContainerEvent) -> None:
        """What is held is not expected to end."""
        if event.what not in ("exited", "removed"):
            return
        for key, spare in list(self._spares.items()):
            if spare.worker.uid == event.id.uid:
                self._replace(key)

    def _engine_changed(self, answers: bool) -> None:
        if answers:
            for key, spare in list(self._spares.items()):
                self._background.spawn(self._check(key, spare))

    async def _check(self, key: Key, spare: Spare) -> None:
        """After the engine was away: is it still held?"""
        try:
            state = await self._node.runtime.inspect(spare.worker.id)
        except RuntimeFailure:
            return
        sound = state is not None and all(c.state == "created" for c in state.containers.values())
        if not sound and self._spares.get(key) is spare:
            self._replace(key)

    def _replace(self, key: Key) -> None:
        after = self._spares[key].after
        self._drop(key)
        self._node.machine_clock.call_later(_AGAIN_SECONDS, self._follow_later, after)


def successor_of(deployment: Obj) -> Successor | None:
    """None when it names none, or nothing could be held for it."""
    text = annotations_of(deployment).get(SUCCESSOR)
    template = spec_of(deployment).get("template") or {}
    if not text or not snapshot_target(template):
        return None
    try:
        said = json.loads(text)
        names = {str(now): str(then) for now, then in said["names"].items()}
        name = str(said["deployment"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return Successor(Key(*DEPLOYMENT, deployment["metadata"]["namespace"], name), names)


def _has_its_pods(deployment: Obj | None) -> bool:
    if deployment is None:
        return True
    wanted = int(spec_of(deployment).get("replicas", 1))
    return int(status_of(deployment).get("readyReplicas") or 0) >= wanted


def _suits(spare: Spare, facts: SandboxFacts) -> bool:
    """Whether a pod with these facts can live in the spare's sandbox. What the sandbox has in its
    hosts file must be there, but for the pod's own names: those are just coming to be."""
    own = tuple(spare.successor.names.values())
    has = spare.sandbox.hosts
    missing = [
        name
        for name, address in facts.hosts.items()
        if has.get(name) != address and not name.startswith(own)
    ]
    return not missing and replace(facts, hosts=has) == spare.sandbox


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """The same JSON value with every string that is one of `names` replaced."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, dict):
        return {key: _renamed(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, names) for one in value]
    return value
