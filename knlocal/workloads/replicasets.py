"""ReplicaSets: as many pods as wanted (k8s.io/kubernetes pkg/controller/replicaset)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from knlocal.control.controller import Controller, Requeue, Retry, Watching, owned_by
from knlocal.control.events import EventRecorder
from knlocal.control.pace import Urgency
from knlocal.resources.base import (
    Key,
    Obj,
    is_deleting,
    key_of,
    labels_of,
    spec_of,
    status_of,
    timestamp,
)
from knlocal.resources.status import NotFound, StatusError
from knlocal.store.store import Store
from knlocal.workloads.adoption import Adoption
from knlocal.workloads.podcontrol import (
    available_in,
    deletion_order,
    is_active,
    owned,
    pod_from_template,
    set_condition,
    without_condition,
)
from knlocal.workloads.podstatus import is_pod_ready
from knlocal.workloads.standby import Standbys
from knlocal.workloads.terms import POD, REPLICA_SET


class ReplicaSetController(Controller):
    """Makes and deletes pods; a standby, where there is one, becomes the first pod."""

    kind = REPLICA_SET
    urgency = Urgency.PODS

    def __init__(self, store: Store, standbys: Standbys | None = None) -> None:
        super().__init__(store, EventRecorder(store, "replicaset-controller"))
        self._standbys = standbys
        self._adoption = Adoption(store, REPLICA_SET)

    def watches(self) -> Sequence[Watching]:
        return [
            Watching(POD, owned_by(REPLICA_SET)),
            Watching(POD, self._adoption.wanted_by),
        ]

    async def reconcile(self, key: Key) -> Requeue | None:
        replica_set = self.store.find_key(key)
        if replica_set is None or is_deleting(replica_set):
            return None
        self._adoption.settle(replica_set)
        failure = self._fill_up(replica_set)
        after = self._report(key, failure)
        if self._standbys and not int(spec_of(replica_set).get("replicas", 1)):
            self._standbys.follow_replica_set(replica_set)
        if failure is not None:
            raise Retry(failure)
        return Requeue(after) if after else None

    def _fill_up(self, replica_set: Obj) -> str | None:
        """Make or delete pods; says why a pod could not be made."""
        pods = [pod for pod in owned(self.store, replica_set) if is_active(pod)]
        wanted = int(spec_of(replica_set).get("replicas", 1))
        for _ in range(wanted - len(pods)):
            try:
                self._create(replica_set)
            except StatusError as error:
                self.recorder.warning(
                    replica_set, "FailedCreate", f"Error creating: {error.message}"
                )
                return error.message
        if len(pods) > wanted:
            for pod in deletion_order(pods)[: len(pods) - wanted]:
                self._delete(replica_set, pod)
        return None

    def _create(self, replica_set: Obj) -> None:
        pod = self._standbys.claim(replica_set) if self._standbys else None
        if pod is None:
            pod = self.store.create(
                pod_from_template(replica_set, spec_of(replica_set)["template"])
            )
        self.recorder.normal(
            replica_set, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}"
        )

    def _delete(self, replica_set: Obj, pod: Obj) -> None:
        key = key_of(pod)
        try:
            self.store.delete(POD, key.namespace, key.name, uid=pod["metadata"]["uid"])
        except NotFound:
            return
        self.recorder.normal(replica_set, "SuccessfulDelete", f"Deleted pod: {key.name}")

    def _report(self, key: Key, failure: str | None) -> float | None:
        """Write the status; seconds until a ready pod becomes available, if any waits for that."""
        replica_set = self.store.find_key(key)
        if replica_set is None:
            return None
        now = self.clock.now()
        least = float(spec_of(replica_set).get("minReadySeconds") or 0)
        pods = [pod for pod in owned(self.store, replica_set) if is_active(pod)]
        waits = [w for pod in pods if (w := available_in(pod, least, now)) is not None]
        template = labels_of(spec_of(replica_set).get("template") or {}).items()
        conditions: list[dict[str, Any]] = list(status_of(replica_set).get("conditions") or ())
        if failure is None:
            conditions = without_condition(conditions, "ReplicaFailure")
        else:
            conditions = set_condition(
                conditions, "ReplicaFailure", "True", "FailedCreate", failure, timestamp(now)
            )
        status = {
            "replicas": len(pods),
            "fullyLabeledReplicas": sum(template <= labels_of(pod).items() for pod in pods),
            "readyReplicas": sum(is_pod_ready(pod) for pod in pods),
            "availableReplicas": sum(wait == 0 for wait in waits),
            "observedGeneration": replica_set["metadata"].get("generation", 1),
            "conditions": conditions,
        }
        always = ("replicas", "observedGeneration")
        self.update_status(
            replica_set, {k: v for k, v in status.items() if v or k in always}
        )  # fmt: skip
        return min((wait for wait in waits if wait > 0), default=None)
