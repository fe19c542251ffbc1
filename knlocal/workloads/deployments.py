"""Deployments: a ReplicaSet per template, rolled from the old ones to the new one
(k8s.io/kubernetes pkg/controller/deployment)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from knlocal.control.controller import Controller, Requeue, Watching, owned_by
from knlocal.control.events import EventRecorder
from knlocal.resources.base import (
    Key,
    Obj,
    annotations_of,
    copy,
    is_deleting,
    key_of,
    owner_reference,
    spec_of,
    status_of,
)
from knlocal.store.store import Store
from knlocal.workloads.deploymentstatus import (
    deployment_status,
    progress_deadline_in,
    rolling_limits,
    simulated_status,
)
from knlocal.workloads.podcontrol import fresh, owned, template_hash
from knlocal.workloads.standby import Standbys
from knlocal.workloads.terms import (
    CONFIG_MAP,
    DEPLOYMENT,
    REPLICA_SET,
    SECRET,
    SHOWN_ONLY,
    SIMULATED,
    TEMPLATE_HASH,
)

REVISION = "deployment.kubernetes.io/revision"
_DESIRED = "deployment.kubernetes.io/desired-replicas"
_MOST = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = {"kubectl.kubernetes.io/last-applied-configuration", REVISION, _DESIRED, _MOST}


class DeploymentController(Controller):
    """Brings a Deployment's ReplicaSets in line, and its status."""

    kind = DEPLOYMENT

    def __init__(self, store: Store, standbys: Standbys | None = None) -> None:
        super().__init__(store, EventRecorder(store, "deployment-controller"))
        self._standbys = standbys

    def watches(self) -> Sequence[Watching]:
        return [
            Watching(REPLICA_SET, owned_by(DEPLOYMENT)),
            Watching(CONFIG_MAP, self._config_changed),
            Watching(SECRET, self._config_changed),
        ]

    def accepts(self, obj: Obj) -> bool:
        return annotations_of(obj).get(SHOWN_ONLY) != "true"

    def _config_changed(self, obj: Obj) -> Iterable[Key]:
        if self._standbys:
            self._standbys.config_changed(key_of(obj))
        return ()

    async def stop(self) -> None:
        if self._standbys:
            await self._standbys.close()

    async def reconcile(self, key: Key) -> Requeue | None:
        deployment = self.store.find_key(key)
        if deployment is None or is_deleting(deployment):
            if self._standbys:
                self._standbys.follow(key)
            return None
        if annotations_of(deployment).get(SIMULATED) == "true":
            status = simulated_status(deployment, self.clock.now())
            self.update_status(deployment, status)
            return None
        new, created = self._new_replica_set(deployment)
        if new is not None:
            self._roll(deployment, new)
            self._forget_old(deployment, new)
        self._report(key, new, created=created)
        if self._standbys:
            self._standbys.follow(key)
        left = progress_deadline_in(self.store.find_key(key), self.clock.now())
        return Requeue(left) if left is not None else None

    # -- ReplicaSets --------------------------------------------------------------------------

    def _new_replica_set(self, deployment: Obj) -> tuple[Obj | None, bool]:
        """The ReplicaSet of the current template, made when it is missing (and whether it was)."""
        hash_ = template_hash(spec_of(deployment)["template"])
        name = f"{deployment['metadata']['name']}-{hash_}"
        namespace = deployment["metadata"]["namespace"]
        found = self.store.find(REPLICA_SET, namespace, name)
        if found is not None:
            return self._annotated(deployment, found), False
        if spec_of(deployment).get("paused"):
            return None, False
        made = self.store.create(self._make(deployment, name, hash_))
        self._number(deployment, made)
        return self.store.get(REPLICA_SET, namespace, name), True

    def _make(self, deployment: Obj, name: str, hash_: str) -> Obj:
        spec, label = spec_of(deployment), {TEMPLATE_HASH: hash_}
        template = copy(spec["template"])
        metadata = template.setdefault("metadata", {})
        metadata["labels"] = (metadata.get("labels") or {}) | label
        selector = copy(spec.get("selector") or {})
        selector["matchLabels"] = (selector.get("matchLabels") or {}) | label
        others = [r for r in owned(self.store, deployment, "ReplicaSet") if _replicas(r) > 0]
        wanted = self._room(deployment, others) if others else _replicas(deployment)
        return {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": deployment["metadata"]["namespace"],
                "labels": metadata["labels"],
                "annotations": self._annotations(deployment),
                "ownerReferences": [owner_reference(deployment)],
            },
            "spec": {
                "replicas": wanted,
                "minReadySeconds": spec.get("minReadySeconds") or 0,
                "selector": selector,
                "template": template,
            },
        }

    def _annotations(self, deployment: Obj) -> dict[str, str]:
        wanted = _replicas(deployment)
        own = {k: v for k, v in annotations_of(deployment).items() if k not in _NOT_COPIED}
        surge, _ = rolling_limits(deployment)
        return own | {_DESIRED: str(wanted), _MOST: str(wanted + surge)}

    def _annotated(self, deployment: Obj, replica_set: Obj) -> Obj:
        """The number follows when an older template is taken up again (a rollback)."""
        if annotations_of(replica_set).get(REVISION) == annotations_of(deployment).get(REVISION):
            return replica_set
        self._number(deployment, replica_set)
        return fresh(self.store, replica_set)

    def _number(self, deployment: Obj, replica_set: Obj) -> None:
        """Give the ReplicaSet the next revision number, and the Deployment the same."""
        others = [
            _revision(r)
            for r in owned(self.store, deployment, "ReplicaSet")
            if r["metadata"]["uid"] != replica_set["metadata"]["uid"]
        ]
        number = str(max(_revision(replica_set), max(others, default=0) + 1))
        for obj in (replica_set, deployment):
            key = key_of(obj)

            def put(one: Obj) -> None:
                one["metadata"].setdefault("annotations", {})[REVISION] = number

            if annotations_of(obj).get(REVISION) != number:
                self.store.modify(key.group_kind, key.namespace, key.name, put)

    def _scale(
        self, deployment: Obj, replica_set: Obj, wanted: int, *, quiet: bool = False
    ) -> None:
        before = _replicas(replica_set)
        if before == wanted:
            return
        key = key_of(replica_set)
        marks = {k: v for k, v in self._annotations(deployment).items() if k in (_DESIRED, _MOST)}

        def change(one: Obj) -> None:
            one["spec"]["replicas"] = wanted
            one["metadata"].setdefault("annotations", {}).update(marks)

        self.store.modify(REPLICA_SET, key.namespace, key.name, change)
        word = "up" if wanted > before else "down"
        self.recorder.normal(
            deployment,
            "ScalingReplicaSet",
            f"Scaled {word} replica set {key.name} from {before} to {wanted}",
        )

    # -- rolling ------------------------------------------------------------------------------

    def _roll(self, deployment: Obj, new: Obj) -> None:
        old = [
            r
            for r in owned(self.store, deployment, "ReplicaSet")
            if r["metadata"]["uid"] != new["metadata"]["uid"] and _replicas(r) > 0
        ]
        wanted = _replicas(deployment)
        if not old:
            self._scale(deployment, new, wanted)
        elif spec_of(deployment).get("paused"):
            return
        elif (spec_of(deployment).get("strategy") or {}).get("type") == "Recreate":
            for one in old:
                self._scale(deployment, one, 0)
            if not any(self._pods_left(one) for one in old):
                self._scale(deployment, new, wanted)
        else:
            self._scale(
                deployment, new, min(wanted, _replicas(new) + self._room(deployment, [*old, new]))
            )
            self._shrink_old(deployment, new, old)

    def _room(self, deployment: Obj, replica_sets: list[Obj]) -> int:
        """How many more pods may be there at once."""
        strategy = (spec_of(deployment).get("strategy") or {}).get("type")
        if strategy == "Recreate":
            return 0
        surge, _ = rolling_limits(deployment)
        most = _replicas(deployment) + surge
        return max(0, min(_replicas(deployment), most - sum(_replicas(r) for r in replica_sets)))

    def _shrink_old(self, deployment: Obj, new: Obj, old: list[Obj]) -> None:
        new = fresh(self.store, new)
        _, unavailable = rolling_limits(deployment)
        least = _replicas(deployment) - unavailable
        total = sum(_replicas(r) for r in (*old, new))
        not_yet = max(0, _replicas(new) - _available(new))
        can_go = total - least - not_yet
        if can_go <= 0:
            return
        for one in old:  # first what does not work anyway
            broken = min(can_go, _replicas(one) - _available(one))
            if broken > 0:
                self._scale(deployment, one, _replicas(one) - broken)
                can_go -= broken
        old = [fresh(self.store, one) for one in old]
        spare = sum(_available(r) for r in (*old, new)) - least
        for one in old:
            go = min(_replicas(one), spare)
            if go > 0:
                self._scale(deployment, one, _replicas(one) - go)
                spare -= go

    def _pods_left(self, replica_set: Obj) -> bool:
        return bool(owned(self.store, replica_set))

    def _forget_old(self, deployment: Obj, new: Obj) -> None:
        """Keep `revisionHistoryLimit` old ReplicaSets for rollbacks."""
        keep = int(spec_of(deployment).get("revisionHistoryLimit", 10))
        idle = [
            r
            for r in owned(self.store, deployment, "ReplicaSet")
            if r["metadata"]["uid"] != new["metadata"]["uid"]
            and not _replicas(r)
            and not status_of(r).get("replicas")
            and not is_deleting(r)
        ]
        for one in sorted(idle, key=_revision)[: max(0, len(idle) - keep)]:
            key = key_of(one)
            self.store.delete(REPLICA_SET, key.namespace, key.name)

    # -- status -------------------------------------------------------------------------------

    def _report(self, key: Key, new: Obj | None, *, created: bool) -> None:
        deployment = self.store.find_key(key)
        if deployment is None:
            return
        replica_sets = owned(self.store, deployment, "ReplicaSet")
        new = self.store.find_key(key_of(new)) if new else None
        status: dict[str, Any] = deployment_status(
            deployment, replica_sets, new, created=created, now=self.clock.now()
        )
        self.update_status(deployment, status)


def _replicas(obj: Obj) -> int:
    return int(spec_of(obj).get("replicas", 1))


def _available(replica_set: Obj) -> int:
    return int(status_of(replica_set).get("availableReplicas") or 0)


def _revision(obj: Obj) -> int:
    text = annotations_of(obj).get(REVISION, "0")
    return int(text) if text.isdigit() else 0
