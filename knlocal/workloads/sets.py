"""StatefulSets and DaemonSets, as far as they make sense on one machine.

A DaemonSet is one pod on the one node. A StatefulSet has its ordinals, its claims, its order, and
below the partition of its update strategy the template it had before.
Sources: k8s.io/kubernetes pkg/controller/{statefulset,daemon}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from knlocal.control.controller import Controller, Requeue, Retry, Watching, owned_by
from knlocal.control.events import EventRecorder
from knlocal.resources.base import (
    Key,
    Obj,
    copy,
    is_deleting,
    key_of,
    labels_of,
    owner_reference,
    spec_of,
    status_of,
)
from knlocal.resources.status import StatusError
from knlocal.store.store import Store
from knlocal.workloads import history
from knlocal.workloads.podcontrol import owned, pod_from_template
from knlocal.workloads.podstatus import is_pod_ready, is_terminal
from knlocal.workloads.terms import CLAIM, DAEMON_SET, POD, STATEFUL_SET

_REVISION = "controller-revision-hash"
_POD_NAME = "statefulset.kubernetes.io/pod-name"
_INDEX = "apps.kubernetes.io/pod-index"


class _SetController(Controller):
    """What both have in common: making and deleting pods by name."""

    def _make(self, owner: Obj, pod: Obj) -> None:
        try:
            made = self.store.create(pod)
        except StatusError as error:
            self.recorder.warning(owner, "FailedCreate", f"Error creating: {error.message}")
            raise Retry(error.message) from error
        self.recorder.normal(owner, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")

    def _remove(self, owner: Obj, pod: Obj) -> None:
        key = key_of(pod)
        if not is_deleting(pod):
            self.store.delete(POD, key.namespace, key.name, uid=pod["metadata"]["uid"])
            self.recorder.normal(owner, "SuccessfulDelete", f"Deleted pod: {key.name}")


class DaemonSetController(_SetController):
    """One pod, on the one node."""

    kind = DAEMON_SET

    def __init__(self, store: Store) -> None:
        super().__init__(store, EventRecorder(store, "daemonset-controller"))

    def watches(self) -> Sequence[Watching]:
        return [Watching(POD, owned_by(DAEMON_SET))]

    async def reconcile(self, key: Key) -> Requeue | None:
        found = self.store.find_key(key)
        if found is None or is_deleting(found):
            return None
        revision = history.record(self.store, found)
        hash_ = history.hash_of(revision)
        pods = [pod for pod in owned(self.store, found) if not is_deleting(pod)]
        current = [p for p in pods if labels_of(p).get(_REVISION) == hash_ and not is_terminal(p)]
        on_delete = (spec_of(found).get("updateStrategy") or {}).get("type") == "OnDelete"
        for pod in pods:
            if pod not in current[:1] and not (on_delete and not is_terminal(pod)):
                self._remove(found, pod)
        if not current and not (on_delete and pods):
            pod = pod_from_template(found, spec_of(found)["template"])
            pod["metadata"].setdefault("labels", {})[_REVISION] = hash_
            self._make(found, pod)
        used = {f"{key.name}-{labels_of(pod).get(_REVISION)}" for pod in owned(self.store, found)}
        history.trim(self.store, found, used | {revision["metadata"]["name"]})
        self._report(key, hash_)
        return None

    def _report(self, key: Key, hash_: str) -> None:
        found = self.store.get(DAEMON_SET, key.namespace, key.name)
        pods = [p for p in owned(self.store, found) if not is_deleting(p) and not is_terminal(p)]
        ready = sum(map(is_pod_ready, pods))
        status = {
            "currentNumberScheduled": len(pods),
            "numberMisscheduled": 0,
            "desiredNumberScheduled": 1,
            "numberReady": ready,
            "updatedNumberScheduled": sum(labels_of(p).get(_REVISION) == hash_ for p in pods),
            "numberAvailable": ready,
            "numberUnavailable": max(0, 1 - ready),
            "observedGeneration": found["metadata"].get("generation", 1),
        }
        self.update_status(found, status)


class StatefulSetController(_SetController):
    """Pods with names and claims that stay."""

    kind = STATEFUL_SET

    def __init__(self, store: Store) -> None:
        super().__init__(store, EventRecorder(store, "statefulset-controller"))

    def watches(self) -> Sequence[Watching]:
        return [Watching(POD, owned_by(STATEFUL_SET))]

    async def reconcile(self, key: Key) -> Requeue | None:
        found = self.store.find_key(key)
        if found is None or is_deleting(found):
            return None
        plan = _plan(self.store, found)
        try:
            self._bring_in_line(found, plan)
        finally:
            self._report(key, plan)
        return None

    def _bring_in_line(self, found: Obj, plan: _Plan) -> None:
        spec = spec_of(found)
        start = int((spec.get("ordinals") or {}).get("start") or 0)
        wanted = range(start, start + int(spec.get("replicas", 1)))
        pods = {_ordinal(found, pod): pod for pod in owned(self.store, found)}
        one_by_one = spec.get("podManagementPolicy") != "Parallel"
        for ordinal in wanted:
            pod = pods.get(ordinal)
            if pod is not None and is_terminal(pod):
                self._remove(found, pod)
            elif pod is None:
                self._create(found, ordinal, plan)
            if one_by_one and (pod is None or not is_pod_ready(pod) or is_deleting(pod)):
                return
        extra = sorted((o for o in pods if o not in wanted), reverse=True)
        for ordinal in extra:
            self._remove(found, pods[ordinal])
            if one_by_one:
                return
        self._update(found, [pods[o] for o in sorted(pods, reverse=True) if o in wanted], plan)

    def _update(self, found: Obj, pods: list[Obj], plan: _Plan) -> None:
        """Replace pods of an older template, the last one first, one at a time."""
        strategy = spec_of(found).get("updateStrategy") or {}
        if strategy.get("type") == "OnDelete":
            return
        for pod in pods:
            if _ordinal(found, pod) < plan.first_new:
                return
            if labels_of(pod).get(_REVISION) != plan.update:
                self._remove(found, pod)
                return
            if not is_pod_ready(pod):
                return

    def _create(self, found: Obj, ordinal: int, plan: _Plan) -> None:
        spec, name = spec_of(found), f"{found['metadata']['name']}-{ordinal}"
        is_old = ordinal < plan.first_new
        template = plan.current_template if is_old else spec["template"]
        pod = pod_from_template(found, template, name=name)
        labels = pod["metadata"].setdefault("labels", {})
        labels |= {
            _REVISION: plan.current if is_old else plan.update,
            _POD_NAME: name,
            _INDEX: str(ordinal),
        }
        pod["spec"]["hostname"] = name
        if spec.get("serviceName"):
            pod["spec"]["subdomain"] = spec["serviceName"]
        self._claims(found, pod, name)
        self._make(found, pod)

    def _claims(self, found: Obj, pod: Obj, name: str) -> None:
        """Each pod's own claims, made once and kept."""
        namespace = found["metadata"]["namespace"]
        volumes: list[Any] = pod["spec"].setdefault("volumes", [])
        for template in spec_of(found).get("volumeClaimTemplates") or ():
            volume = template["metadata"]["name"]
            claim = f"{volume}-{name}"
            volumes[:] = [v for v in volumes if v.get("name") != volume]
            volumes.append({"name": volume, "persistentVolumeClaim": {"claimName": claim}})
            if self.store.find(CLAIM, namespace, claim) is None:
                self.store.create(self._claim(found, template, claim))

    @staticmethod
    def _claim(found: Obj, template: Obj, name: str) -> Obj:
        metadata = template.get("metadata") or {}
        labels = (metadata.get("labels") or {}) | (
            (spec_of(found).get("selector") or {}).get("matchLabels") or {}
        )
        policy = spec_of(found).get("persistentVolumeClaimRetentionPolicy") or {}
        owners = [owner_reference(found)] if policy.get("whenDeleted") == "Delete" else []
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": name,
                "namespace": found["metadata"]["namespace"],
                "labels": labels,
                "annotations": metadata.get("annotations") or {},
                "ownerReferences": owners,
            },
            "spec": copy(template.get("spec") or {}),
        }

    def _report(self, key: Key, plan: _Plan) -> None:
        found = self.store.find_key(key)
        if found is None:
            return
        pods = owned(self.store, found)
        ready = sum(is_pod_ready(p) and not is_deleting(p) for p in pods)
        running = [labels_of(p).get(_REVISION, "") for p in pods]
        updated, current = running.count(plan.update), plan.current
        wanted = int(spec_of(found).get("replicas", 1))
        rolls = (spec_of(found).get("updateStrategy") or {}).get("type") != "OnDelete"
        if rolls and wanted == len(pods) == updated == ready:
            current = plan.update
        status = {
            "observedGeneration": found["metadata"].get("generation", 1),
            "replicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "currentReplicas": running.count(current),
            "updatedReplicas": updated,
            "updateRevision": plan.update,
            "currentRevision": current,
            "collisionCount": 0,
        }
        self.update_status(found, status)
        history.trim(self.store, found, {*running, current, plan.update})


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which template each pod of a StatefulSet is to have; revisions by name."""

    update: str
    current: str
    current_template: dict[str, Any]
    #: The first ordinal of the new template; those below keep the current one.
    first_new: int


def _plan(store: Store, found: Obj) -> _Plan:
    update = history.record(store, found)
    name = status_of(found).get("currentRevision")
    known = {one["metadata"]["name"]: one for one in history.revisions(store, found)}
    current = known.get(name or "", update)
    spec = spec_of(found)
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    return _Plan(
        update["metadata"]["name"],
        current["metadata"]["name"],
        history.template_of(current),
        int((spec.get("ordinals") or {}).get("start") or 0) + int(rolling.get("partition") or 0),
    )


def _ordinal(found: Obj, pod: Obj) -> int:
    text = pod["metadata"]["name"].removeprefix(f"{found['metadata']['name']}-")
    return int(text) if text.isdigit() else -1
