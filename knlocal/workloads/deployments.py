"""Deployments: a ReplicaSet per template, rolled from the old ones to the new one
(k8s.io/kubernetes pkg/controller/deployment)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from knlocal.control.controller import Controller, Requeue, Watching, owned_by
from knlocal.control.events import EventRecorder
from knlocal.control.pace import Urgency
from knlocal.resources.annotations import SHOWN_ONLY, SIMULATED
from knlocal.resources.base import (
    Key,
    Obj,
    annotations_of,
    controller_of,
    copy,
    is_controlled_by,
    is_deleting,
    key_of,
    owner_reference,
    spec_of,
    status_of,
    uid_of,
)
from knlocal.store.store import Store
from knlocal.workloads import rollout
from knlocal.workloads.deploymentstatus import (
    deployment_status,
    progress_deadline_in,
    rolling_limits,
    simulated_status,
)
from knlocal.workloads.podcontrol import fresh, owned, template_hash
from knlocal.workloads.podstatus import is_terminal
from knlocal.workloads.rollout import DESIRED, MOST, replicas
from knlocal.workloads.standby import Standbys
from knlocal.workloads.terms import CONFIG_MAP, DEPLOYMENT, POD, REPLICA_SET, SECRET, TEMPLATE_HASH

REVISION = "deployment.kubernetes.io/revision"
_HISTORY = "deployment.kubernetes.io/revision-history"
_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION, _HISTORY, DESIRED, MOST, "deprecated.deployment.rollback.to",
}  # fmt: skip


class DeploymentController(Controller):
    """Brings a Deployment's ReplicaSets in line, and its status."""

    kind = DEPLOYMENT
    urgency = Urgency.PODS

    def __init__(self, store: Store, standbys: Standbys | None = None) -> None:
        super().__init__(store, EventRecorder(store, "deployment-controller"))
        self._standbys = standbys

    def watches(self) -> Sequence[Watching]:
        return [
            Watching(REPLICA_SET, owned_by(DEPLOYMENT)),
            Watching(POD, self._waiting_for_last),
            Watching(CONFIG_MAP, self._config_changed),
            Watching(SECRET, self._config_changed),
        ]

    def accepts(self, obj: Obj) -> bool:
        return annotations_of(obj).get(SHOWN_ONLY) != "true"

    def _waiting_for_last(self, pod: Obj) -> Iterable[Key]:
        """The Deployment that makes its new pods when the last old one has gone (Recreate)."""
        owner = controller_of(pod) if is_deleting(pod) or is_terminal(pod) else None
        if owner is None or owner["kind"] != REPLICA_SET.kind:
            return []
        found = self.store.find(REPLICA_SET, pod["metadata"]["namespace"], owner["name"])
        keys = owned_by(DEPLOYMENT)(found) if found else []
        return [k for k in keys if (d := self.store.find_key(k)) and rollout.is_recreate(d)]

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
        deployment = fresh(self.store, deployment)
        self._move(deployment, new)
        if new is not None:
            self._forget_old(deployment, new)
        self._report(key, new, created=created)
        if self._standbys:
            self._standbys.follow(key)
        left = progress_deadline_in(self.store.find_key(key), self.clock.now())
        return Requeue(left) if left is not None else None

    # -- ReplicaSets --------------------------------------------------------------------------

    def _new_replica_set(self, deployment: Obj) -> tuple[Obj | None, bool]:
        """The ReplicaSet of the current template, made when it is missing (and whether it was)."""
        collisions = int(status_of(deployment).get("collisionCount") or 0)
        hash_ = template_hash(spec_of(deployment)["template"], collisions)
        name = f"{deployment['metadata']['name']}-{hash_}"
        namespace = deployment["metadata"]["namespace"]
        found = self.store.find(REPLICA_SET, namespace, name)
        if found is not None and is_controlled_by(found, deployment):
            return self._followed(deployment, found), False
        if found is not None:  # of a Deployment before, or of nobody: its name is taken
            self.update_status(
                deployment, {**status_of(deployment), "collisionCount": collisions + 1}
            )
            return self._new_replica_set(fresh(self.store, deployment))
        if spec_of(deployment).get("paused"):
            return None, False
        draft = self._make(deployment, name, hash_)
        old = self._old(deployment, None)
        if not (rollout.is_recreate(deployment) and any(map(self._pods_left, old))):
            draft["spec"]["replicas"] = rollout.roll_new(deployment, draft, old)[name]
        newest = max(map(_revision, old), default=0)
        draft["metadata"]["annotations"][REVISION] = str(newest + 1)
        made = self.store.create(draft)
        self._number(deployment, made)
        self._tell_scaled(deployment, name, 0, replicas(made))
        return fresh(self.store, made), True

    def _make(self, deployment: Obj, name: str, hash_: str) -> Obj:
        spec, label = spec_of(deployment), {TEMPLATE_HASH: hash_}
        template = copy(spec["template"])
        metadata = template.setdefault("metadata", {})
        metadata["labels"] = (metadata.get("labels") or {}) | label
        selector = copy(spec.get("selector") or {})
        selector["matchLabels"] = (selector.get("matchLabels") or {}) | label
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
                "replicas": 0,
                "minReadySeconds": self._min_ready(deployment),
                "selector": selector,
                "template": template,
            },
        }

    def _annotations(self, deployment: Obj) -> dict[str, str]:
        own = {k: v for k, v in annotations_of(deployment).items() if k not in _NOT_COPIED}
        return own | self._marks(deployment)

    @staticmethod
    def _marks(deployment: Obj) -> dict[str, str]:
        wanted, (surge, _) = replicas(deployment), rolling_limits(deployment)
        return {DESIRED: str(wanted), MOST: str(wanted + surge if wanted else 0)}

    def _followed(self, deployment: Obj, found: Obj) -> Obj:
        """What changes in a Deployment without its template changing. The number follows when an
        older template is taken up again (a rollback)."""
        own, ready = self._annotations(deployment), self._min_ready(deployment)
        own = {k: v for k, v in own.items() if k not in (DESIRED, MOST)}
        if not own.items() <= annotations_of(found).items() or ready != self._min_ready(found):

            def change(one: Obj) -> None:
                one["metadata"].setdefault("annotations", {}).update(own)
                one["spec"]["minReadySeconds"] = ready

            key = key_of(found)
            found = self.store.modify(REPLICA_SET, key.namespace, key.name, change)
        if annotations_of(found).get(REVISION) != annotations_of(deployment).get(REVISION):
            self._number(deployment, found)
            found = fresh(self.store, found)
        return found

    @staticmethod
    def _min_ready(obj: Obj) -> int:
        return int(spec_of(obj).get("minReadySeconds") or 0)

    def _number(self, deployment: Obj, replica_set: Obj) -> None:
        """Give the ReplicaSet the next revision number, and the Deployment the same."""
        others = [_revision(one) for one in self._old(deployment, replica_set)]
        before = _revision(replica_set)
        number = str(max(before, max(others, default=0) + 1))

        def put(one: Obj) -> None:
            annotations = one["metadata"].setdefault("annotations", {})
            if one["kind"] == REPLICA_SET.kind and before:
                past = [p for p in annotations.get(_HISTORY, "").split(",") if p]
                annotations[_HISTORY] = ",".join([*past, str(before)])
            annotations[REVISION] = number

        for obj in (replica_set, deployment):
            key = key_of(obj)
            if annotations_of(obj).get(REVISION) != number:
                self.store.modify(key.group_kind, key.namespace, key.name, put)

    # -- rolling ------------------------------------------------------------------------------

    def _move(self, deployment: Obj, new: Obj | None) -> None:
        """Take the next step; what changes by it comes back as a change of a ReplicaSet."""
        old = self._old(deployment, new)
        if spec_of(deployment).get("paused") or rollout.is_scaling(deployment, self._all(new, old)):
            self._apply(deployment, rollout.scale(deployment, new, old))
        elif new is None:
            return
        elif rollout.is_recreate(deployment):
            self._apply(deployment, {one["metadata"]["name"]: 0 for one in old})
            if not any(self._pods_left(one) for one in old):
                self._apply(deployment, rollout.scale(deployment, new, []))
        else:
            self._apply(deployment, rollout.roll_new(deployment, new, old))
            old = [fresh(self.store, one) for one in old]
            self._apply(deployment, rollout.roll_old(deployment, fresh(self.store, new), old))

    def _old(self, deployment: Obj, new: Obj | None) -> list[Obj]:
        uid = uid_of(new) if new else ""
        return [r for r in owned(self.store, deployment, "ReplicaSet") if uid_of(r) != uid]

    @staticmethod
    def _all(new: Obj | None, old: list[Obj]) -> list[Obj]:
        return [*old, new] if new else old

    def _apply(self, deployment: Obj, plan: rollout.Plan) -> None:
        """Give the ReplicaSets their numbers, and note what they were worked out from."""
        namespace = deployment["metadata"]["namespace"]
        for name, wanted in plan.items():
            found = self.store.get(REPLICA_SET, namespace, name)
            before, marks = replicas(found), self._marks(deployment)
            if before == wanted and marks.items() <= annotations_of(found).items():
                continue

            def change(one: Obj, wanted: int = wanted, marks: dict[str, str] = marks) -> None:
                one["spec"]["replicas"] = wanted
                one["metadata"].setdefault("annotations", {}).update(marks)

            self.store.modify(REPLICA_SET, namespace, name, change)
            self._tell_scaled(deployment, name, before, wanted)

    def _tell_scaled(self, deployment: Obj, name: str, before: int, now: int) -> None:
        if before != now:
            word = "up" if now > before else "down"
            message = f"Scaled {word} replica set {name} from {before} to {now}"
            self.recorder.normal(deployment, "ScalingReplicaSet", message)

    def _pods_left(self, replica_set: Obj) -> bool:
        """Also those on their way out: Recreate waits for the last of them."""
        return any(not is_terminal(pod) for pod in owned(self.store, replica_set))

    def _forget_old(self, deployment: Obj, new: Obj) -> None:
        """Keep `revisionHistoryLimit` old ReplicaSets for rollbacks."""
        keep = int(spec_of(deployment).get("revisionHistoryLimit", 10))
        idle = [
            r
            for r in owned(self.store, deployment, "ReplicaSet")
            if uid_of(r) != uid_of(new)
            and not replicas(r)
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


def _revision(obj: Obj) -> int:
    text = annotations_of(obj).get(REVISION, "0")
    return int(text) if text.isdigit() else 0
