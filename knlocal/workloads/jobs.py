"""Jobs: pods that run to completion (k8s.io/kubernetes pkg/controller/job).

A finished pod is counted once, when its tracking finalizer is taken off: a pod that someone deletes
meanwhile is not forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from knlocal.workloads.adoption import Adoption
from knlocal.workloads.indexes import INDEX, format_indexes, index_of, parse_indexes
from knlocal.workloads.jobpolicies import (
    FAILURE_COUNT,
    fails_index,
    failure_action,
    failures_so_far,
    has_index_limits,
)
from knlocal.workloads.jobstatus import (
    Verdict,
    backoff_left,
    finished_at,
    is_finished,
    noted_verdict,
    verdict_of,
    with_condition,
)
from knlocal.workloads.podcontrol import fresh, is_active, owned, pod_from_template
from knlocal.workloads.podstatus import is_pod_ready, is_terminal
from knlocal.workloads.terms import JOB, POD

TRACKING = "batch.kubernetes.io/job-tracking"
_JOB_NAME = "batch.kubernetes.io/job-name"


class JobController(Controller):
    """Runs a Job's pods, counts them, and says when it is done."""

    kind = JOB

    def __init__(self, store: Store) -> None:
        super().__init__(store, EventRecorder(store, "job-controller"))
        self._adoption = Adoption(store, JOB)
        self._last_failure: dict[str, tuple[int, datetime]] = {}

    def watches(self) -> Sequence[Watching]:
        return [Watching(POD, owned_by(JOB)), Watching(POD, self._adoption.wanted_by)]

    async def reconcile(self, key: Key) -> Requeue | None:
        job = self.store.find_key(key)
        self._release_orphans(key, job)
        if job is None or is_deleting(job):
            return None
        if is_finished(job):
            return self._expire(job)
        self._adoption.settle(job)
        job = self._count(job)
        if verdict := self._verdict(job):
            return self._finish(fresh(self.store, job), verdict)
        after = self._manage(job)
        self._report(key)
        return Requeue(after) if after is not None else None

    # -- counting -----------------------------------------------------------------------------

    def _count(self, job: Obj) -> Obj:
        """Take finished pods into the Job's status, each once; returns the Job with that."""
        ended = [pod for pod in owned(self.store, job) if _is_tracked(pod) and _has_ended(pod)]
        if not ended:
            return job
        status, verdict = copy(status_of(job)), noted_verdict(job)
        done = parse_indexes(status.get("completedIndexes") or "")
        failed = parse_indexes(status.get("failedIndexes") or "")
        for pod in ended:
            index = index_of(pod)
            if _succeeded(pod):
                if index is None or index not in done:
                    status["succeeded"] = int(status.get("succeeded") or 0) + 1
                if index is not None:
                    done.add(index)
                self._last_failure.pop(uid_of(job), None)
            elif (verdict and verdict.good) or failure_action(job, pod)[0] == "Ignore":
                continue  # it was let go, or does not matter
            else:
                status["failed"] = int(status.get("failed") or 0) + 1
                failures = self._last_failure.get(uid_of(job), (0, self.clock.now()))[0] + 1
                self._last_failure[uid_of(job)] = (failures, self.clock.now())
                if index is not None and fails_index(job, pod):
                    failed.add(index)
        if _is_indexed(job):
            status["completedIndexes"] = format_indexes(done)
        if has_index_limits(job):
            status["failedIndexes"] = format_indexes(failed)
        self.update_status(job, status)
        for pod in ended:
            self._release(pod)
        return fresh(self.store, job)

    def _release(self, pod: Obj) -> None:
        key = key_of(pod)
        try:
            self.store.modify(
                POD, key.namespace, key.name, lambda p: p["metadata"]["finalizers"].remove(TRACKING)
            )
        except (NotFound, KeyError, ValueError):
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

    def _verdict(self, job: Obj) -> Verdict | None:
        """Whether the Job is decided; the condition that says so comes first."""
        if noted := noted_verdict(job):
            return noted
        verdict = verdict_of(job, owned(self.store, job), self.clock.now())
        if verdict is not None:
            self._put_condition(job, verdict.interim, verdict)
        return verdict

    def _finish(self, job: Obj, verdict: Verdict) -> Requeue | None:
        """Complete or Failed, once the last pod has ended."""
        self._stop_pods(job)
        if any(not is_terminal(pod) for pod in owned(self.store, job)):
            self._report(key_of(job))
            return None
        self._put_condition(job, verdict.final, verdict)
        if verdict.good:
            self.recorder.normal(job, "Completed", "Job completed")
        else:
            self.recorder.warning(job, verdict.reason, verdict.message)
        return self._expire(fresh(self.store, job))

    def _put_condition(self, job: Obj, type_: str, verdict: Verdict) -> None:
        now, status = self.clock.now(), copy(status_of(job))
        status["conditions"] = with_condition(
            status.get("conditions") or [], type_, now, verdict.reason, verdict.message
        )
        status.setdefault("startTime", timestamp(now))
        if type_ == "Complete":
            status["completionTime"] = timestamp(now)
        if type_ == verdict.final:
            status.pop("active", None)
            status |= {"ready": 0, "terminating": 0}
        self.update_status(job, status)

    def _stop_pods(self, job: Obj, *, forget: bool = False) -> None:
        """What still runs of a Job that is decided, or (`forget`: not to be counted) suspended."""
        for pod in owned(self.store, job):
            if is_active(pod):
                self._delete(pod, forget=forget)
            elif _is_tracked(pod) and is_finished(job) and _has_ended(pod):
                self._release(pod)

    def _expire(self, job: Obj) -> Requeue | None:
        """Delete a finished Job after its time to live."""
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
        pods = owned(self.store, job)
        active = [pod for pod in pods if is_active(pod)]
        wanted = self._pods_wanted(job, pods)
        for pod in active[max(0, wanted) :]:
            self._delete(pod, forget=True)
        if len(active) < wanted:
            failures, last = self._last_failure.get(uid_of(job), (0, None))
            wait = backoff_left(failures, last, self.clock.now())
            if wait > 0:
                return min(wait, self._deadline_left(job) or wait)
            self._create(job, pods, wanted - len(active))
        return self._deadline_left(job)

    @staticmethod
    def _pods_wanted(job: Obj, pods: Sequence[Obj]) -> int:
        """How many shall be active now."""
        spec, status = spec_of(job), status_of(job)
        wanted, completions = int(spec.get("parallelism", 1)), spec.get("completions")
        succeeded = int(status.get("succeeded") or 0)
        if completions is not None:
            given_up = len(parse_indexes(status.get("failedIndexes") or ""))
            wanted = min(wanted, int(completions) - succeeded - given_up)
        elif succeeded:  # a work queue that found its end makes no more
            wanted = min(wanted, sum(map(is_active, pods)))
        if spec.get("podReplacementPolicy") == "Failed":
            wanted -= sum(is_deleting(pod) and not is_terminal(pod) for pod in pods)
        return wanted

    def _create(self, job: Obj, pods: Sequence[Obj], count: int) -> None:
        indexes = self._free_indexes(job, pods) if _is_indexed(job) else None
        for _ in range(count):
            index, failures = None, 0
            if indexes is not None:
                if not indexes:
                    return
                index = indexes.pop(0)
                failures = failures_so_far(job, index, pods)
            try:
                pod = self.store.create(_make_pod(job, index, failures))
            except StatusError as error:
                self.recorder.warning(job, "FailedCreate", f"Error creating: {error.message}")
                self._report(key_of(job))
                raise Retry(error.message) from error
            self.recorder.normal(job, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")

    @staticmethod
    def _free_indexes(job: Obj, pods: Sequence[Obj]) -> list[int]:
        status, late = status_of(job), spec_of(job).get("podReplacementPolicy") == "Failed"
        taken = parse_indexes(status.get("completedIndexes") or "")
        taken |= parse_indexes(status.get("failedIndexes") or "")
        there = (p for p in pods if is_active(p) or (late and not is_terminal(p)))
        taken |= {index for pod in there if (index := index_of(pod)) is not None}
        every = range(int(spec_of(job).get("completions") or 0))
        return [index for index in every if index not in taken]

    def _suspended(self, job: Obj) -> bool:
        suspend = bool(spec_of(job).get("suspend"))
        before = any(
            c["type"] == "Suspended" and c["status"] == "True"
            for c in status_of(job).get("conditions") or ()
        )
        if suspend:
            self._stop_pods(job, forget=True)
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

    def _delete(self, pod: Obj, *, forget: bool = False) -> None:
        """`forget`: it was asked for, and is no failure."""
        key = key_of(pod)
        if forget:
            self._release(pod)
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


def _make_pod(job: Obj, index: int | None, failures: int) -> Obj:
    name = job["metadata"]["name"]
    template = copy(spec_of(job)["template"])
    if index is None:
        pod = pod_from_template(job, template)
    else:
        pod = pod_from_template(job, template, name=generate_name(f"{name}-{index}-"))
        metadata = pod["metadata"]
        metadata.setdefault("annotations", {})[INDEX] = str(index)
        metadata.setdefault("labels", {})[INDEX] = str(index)
        if has_index_limits(job):
            metadata["annotations"][FAILURE_COUNT] = str(failures)
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
