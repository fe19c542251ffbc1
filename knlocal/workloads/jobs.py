"""Jobs: pods that run to completion (k8s.io/kubernetes pkg/controller/job).

A finished pod is counted once, when its tracking finalizer is taken off: a pod that someone deletes
meanwhile is not forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from knlocal.control.controller import Controller, Requeue, Retry, Watching, owned_by
from knlocal.control.events import EventRecorder
from knlocal.resources.base import (
    Key,
    Obj,
    controller_of,
    copy,
    is_deleting,
    key_of,
    parse_timestamp,
    spec_of,
    status_of,
    timestamp,
    uid_of,
)
from knlocal.resources.names import generate_name
from knlocal.resources.status import NotFound, StatusError
from knlocal.store.store import Store
from knlocal.workloads.jobstatus import (
    INDEX,
    backoff_left,
    failure_of,
    finished_at,
    format_indexes,
    index_of,
    is_finished,
    parse_indexes,
    with_condition,
)
from knlocal.workloads.podcontrol import is_active, owned, pod_from_template
from knlocal.workloads.podstatus import is_pod_ready, is_terminal
from knlocal.workloads.terms import JOB, POD

TRACKING = "batch.kubernetes.io/job-tracking"
_JOB_NAME = "batch.kubernetes.io/job-name"


class JobController(Controller):
    """Runs a Job's pods, counts them, and says when it is done."""

    kind = JOB

    def __init__(self, store: Store) -> None:
        super().__init__(store, EventRecorder(store, "job-controller"))
        self._last_failure: dict[str, tuple[int, datetime]] = {}

    def watches(self) -> Sequence[Watching]:
        return [Watching(POD, owned_by(JOB))]

    async def reconcile(self, key: Key) -> Requeue | None:
        job = self.store.find_key(key)
        self._release_orphans(key, job)
        if job is None or is_deleting(job):
            return None
        if is_finished(job):
            return self._expire(job)
        self._count(job)
        job = self.store.get(JOB, key.namespace, key.name)
        if self._conclude(job):
            self._stop_pods(job)
            return self._expire(self.store.get(JOB, key.namespace, key.name))
        after = self._manage(job)
        self._report(key)
        return Requeue(after) if after is not None else None

    # -- counting -----------------------------------------------------------------------------

    def _count(self, job: Obj) -> None:
        """Take finished pods into the Job's status, each once."""
        fresh = [pod for pod in owned(self.store, job) if _is_tracked(pod) and _has_ended(pod)]
        if not fresh:
            return
        status = copy(status_of(job))
        done = parse_indexes(status.get("completedIndexes", ""))
        for pod in fresh:
            if _succeeded(pod):
                index = index_of(pod)
                if index is None or index not in done:
                    status["succeeded"] = int(status.get("succeeded") or 0) + 1
                if index is not None:
                    done.add(index)
                self._last_failure.pop(uid_of(job), None)
            else:
                status["failed"] = int(status.get("failed") or 0) + 1
                failures = self._last_failure.get(uid_of(job), (0, self.clock.now()))[0] + 1
                self._last_failure[uid_of(job)] = (failures, self.clock.now())
        if _is_indexed(job):
            status["completedIndexes"] = format_indexes(done)
        self.update_status(job, status)
        for pod in fresh:
            self._release(pod)

    def _release(self, pod: Obj) -> None:
        key = key_of(pod)
        try:
            self.store.modify(
                POD, key.namespace, key.name, lambda p: p["metadata"]["finalizers"].remove(TRACKING)
            )
        except (NotFound, ValueError):
            pass

    def _release_orphans(self, key: Key, job: Obj | None) -> None:
        """Pods whose Job is gone must not be held back."""
        if job is not None and not is_deleting(job):
            return
        for pod in self.store.list(POD, key.namespace, {_JOB_NAME: key.name}):
            owner = controller_of(pod)
            if _is_tracked(pod) and owner is not None and owner["name"] == key.name:
                self._release(pod)
        if job is None:
            self._last_failure = {
                uid: value for uid, value in self._last_failure.items() if self.store.children(uid)
            }

    # -- concluding ---------------------------------------------------------------------------

    def _conclude(self, job: Obj) -> bool:
        """Write Complete or Failed when it is so."""
        status, now = status_of(job), self.clock.now()
        pods = owned(self.store, job)
        failure = failure_of(job, int(status.get("failed") or 0), pods, now)
        if failure is not None:
            reason, message = failure
            self.recorder.warning(job, reason, message)
            self._finish(job, ("FailureTarget", "Failed"), reason, message)
            return True
        if not self._has_completed(job, pods):
            return False
        message = "Reached expected number of succeeded pods"
        self.recorder.normal(job, "Completed", "Job completed")
        self._finish(job, ("SuccessCriteriaMet", "Complete"), "CompletionsReached", message)
        return True

    @staticmethod
    def _has_completed(job: Obj, pods: Iterable[Obj]) -> bool:
        spec, succeeded = spec_of(job), int(status_of(job).get("succeeded") or 0)
        if spec.get("suspend"):
            return False
        wanted = spec.get("completions")
        if wanted is None:  # a work queue: done when one has succeeded and none is left
            return succeeded > 0 and not any(is_active(pod) for pod in pods)
        return succeeded >= int(wanted)

    def _finish(self, job: Obj, types: tuple[str, str], reason: str, message: str) -> None:
        now = self.clock.now()
        status = copy(status_of(job))
        conditions = status.get("conditions") or []
        for type_ in types:
            conditions = with_condition(conditions, type_, now, reason, message)
        status["conditions"] = conditions
        status.setdefault("startTime", timestamp(now))
        if "Complete" in types:
            status["completionTime"] = timestamp(now)
        for field in ("active", "ready"):
            status.pop(field, None)
        self.update_status(job, status)

    def _stop_pods(self, job: Obj) -> None:
        """What still runs of a finished or suspended Job."""
        for pod in owned(self.store, job):
            if is_active(pod):
                self._delete(pod)
            elif _is_tracked(pod) and _has_ended(pod):
                self._release(pod)

    def _expire(self, job: Obj) -> Requeue | None:
        """Delete a finished Job after its time to live."""
        self._stop_pods(job)
        seconds, ended = spec_of(job).get("ttlSecondsAfterFinished"), finished_at(job)
        if seconds is None or ended is None:
            return None
        left = float(seconds) - (self.clock.now() - ended).total_seconds()
        if left > 0:
            return Requeue(left)
        key = key_of(job)
        self.store.delete(JOB, key.namespace, key.name, propagation="Background")
        return None

    # -- running ------------------------------------------------------------------------------

    def _manage(self, job: Obj) -> float | None:
        """Make or stop pods; seconds until there is something to do again."""
        if self._suspended(job):
            return None
        spec, status = spec_of(job), status_of(job)
        active = [pod for pod in owned(self.store, job) if is_active(pod)]
        wanted = int(spec.get("parallelism", 1))
        completions = spec.get("completions")
        succeeded = int(status.get("succeeded") or 0)
        if completions is not None:
            wanted = min(wanted, int(completions) - succeeded)
        elif succeeded:
            wanted = min(wanted, len(active))  # a work queue that found its end makes no more
        for pod in active[max(0, wanted) :]:
            self._delete(pod)
        if len(active) < wanted:
            failures, last = self._last_failure.get(uid_of(job), (0, None))
            wait = backoff_left(failures, last, self.clock.now())
            if wait > 0:
                return min(wait, self._deadline_left(job) or wait)
            self._create(job, active, wanted - len(active))
        return self._deadline_left(job)

    def _create(self, job: Obj, active: Sequence[Obj], count: int) -> None:
        indexes = self._free_indexes(job, active) if _is_indexed(job) else None
        for _ in range(count):
            index = None
            if indexes is not None:
                if not indexes:
                    return
                index = indexes.pop(0)
            try:
                pod = self.store.create(_make_pod(job, index))
            except StatusError as error:
                self.recorder.warning(job, "FailedCreate", f"Error creating: {error.message}")
                self._report(key_of(job))
                raise Retry(error.message) from error
            self.recorder.normal(job, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")

    @staticmethod
    def _free_indexes(job: Obj, active: Sequence[Obj]) -> list[int]:
        taken = parse_indexes(status_of(job).get("completedIndexes", ""))
        taken |= {index for pod in active if (index := index_of(pod)) is not None}
        every = range(int(spec_of(job).get("completions") or 0))
        return [index for index in every if index not in taken]

    def _suspended(self, job: Obj) -> bool:
        suspend = bool(spec_of(job).get("suspend"))
        before = any(
            c["type"] == "Suspended" and c["status"] == "True"
            for c in status_of(job).get("conditions") or ()
        )
        if suspend:
            self._stop_pods(job)
        if suspend == before:
            return suspend
        status = copy(status_of(job))
        word, message = ("JobSuspended", "Job suspended") if suspend else (
            "JobResumed", "Job resumed",
        )  # fmt: skip
        status["conditions"] = with_condition(
            status.get("conditions") or (), "Suspended", self.clock.now(), word, message,
            "True" if suspend else "False",
        )  # fmt: skip
        if suspend:
            status.pop("startTime", None)
        self.update_status(job, status)
        self.recorder.normal(job, "Suspended" if suspend else "Resumed", message)
        return suspend

    def _deadline_left(self, job: Obj) -> float | None:
        seconds, started = (
            spec_of(job).get("activeDeadlineSeconds"),
            status_of(job).get("startTime"),
        )
        if seconds is None:
            return None
        if not started:
            return float(seconds)
        gone = (self.clock.now() - parse_timestamp(started)).total_seconds()
        return max(0.01, float(seconds) - gone)

    def _delete(self, pod: Obj) -> None:
        key = key_of(pod)
        try:
            self.store.delete(POD, key.namespace, key.name, uid=uid_of(pod))
        except NotFound:
            pass

    def _report(self, key: Key) -> None:
        job = self.store.find_key(key)
        if job is None:
            return
        pods = [pod for pod in owned(self.store, job) if is_active(pod)]
        status: dict[str, Any] = copy(status_of(job))
        if not spec_of(job).get("suspend"):
            status.setdefault("startTime", timestamp(self.clock.now()))
        status["active"], status["ready"] = len(pods), sum(map(is_pod_ready, pods))
        status["terminating"] = sum(
            is_deleting(pod) and not is_terminal(pod) for pod in owned(self.store, job)
        )
        status["uncountedTerminatedPods"] = {}
        if not status["active"]:
            del status["active"]
        self.update_status(job, status)


def _make_pod(job: Obj, index: int | None) -> Obj:
    name = job["metadata"]["name"]
    template = copy(spec_of(job)["template"])
    if index is None:
        pod = pod_from_template(job, template)
    else:
        pod = pod_from_template(job, template, name=generate_name(f"{name}-{index}-"))
        metadata = pod["metadata"]
        metadata.setdefault("annotations", {})[INDEX] = str(index)
        metadata.setdefault("labels", {})[INDEX] = str(index)
        pod["spec"]["hostname"] = f"{name}-{index}"[:63]
        variable = {"name": "JOB_COMPLETION_INDEX", "value": str(index)}
        spec = pod["spec"]
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            container["env"] = [*(container.get("env") or ()), variable]
    pod["metadata"]["finalizers"] = [*(pod["metadata"].get("finalizers") or ()), TRACKING]
    labels = pod["metadata"].setdefault("labels", {})
    labels.setdefault(_JOB_NAME, name)
    labels.setdefault("job-name", name)
    return pod


def _is_indexed(job: Obj) -> bool:
    return spec_of(job).get("completionMode") == "Indexed"


def _is_tracked(pod: Obj) -> bool:
    return TRACKING in (pod["metadata"].get("finalizers") or ())


def _has_ended(pod: Obj) -> bool:
    """Finished; or deleted before it finished, which counts as failed once its containers are
    gone (the kubelet has then let go of its grace)."""
    if is_terminal(pod):
        return True
    return is_deleting(pod) and not pod["metadata"].get("deletionGracePeriodSeconds")


def _succeeded(pod: Obj) -> bool:
    return bool(status_of(pod).get("phase") == "Succeeded")
