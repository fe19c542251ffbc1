"""CronJobs: Jobs by the clock (k8s.io/kubernetes pkg/controller/cronjob)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from knlocal.control.controller import Controller, Requeue, Watching, owned_by
from knlocal.control.events import EventRecorder
from knlocal.resources.base import (
    Key,
    Obj,
    copy,
    is_deleting,
    key_of,
    owner_reference,
    parse_timestamp,
    spec_of,
    status_of,
    timestamp,
)
from knlocal.resources.cron import as_cronsim
from knlocal.resources.status import AlreadyExists, NotFound
from knlocal.store.store import Store
from knlocal.workloads.jobstatus import finished_at, is_finished
from knlocal.workloads.podcontrol import owned
from knlocal.workloads.terms import CRON_JOB, JOB

_SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_WORDS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0", "@daily": "0 0 * * *", "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}  # fmt: skip
#: Missed starts beyond this many are not counted one by one.
_MOST_MISSED = 100


class CronJobController(Controller):
    """Makes a Job whenever the schedule says so."""

    kind = CRON_JOB

    def __init__(self, store: Store) -> None:
        super().__init__(store, EventRecorder(store, "cronjob-controller"))

    def watches(self) -> Sequence[Watching]:
        return [Watching(JOB, owned_by(CRON_JOB))]

    async def reconcile(self, key: Key) -> Requeue | None:
        cron_job = self.store.find_key(key)
        if cron_job is None or is_deleting(cron_job):
            return None
        self._follow_jobs(cron_job)
        self._clean_up(cron_job)
        cron_job = self.store.get(CRON_JOB, key.namespace, key.name)
        if spec_of(cron_job).get("suspend"):
            return None
        try:
            due, following = due_times(cron_job, self.clock.now())
        except (CronSimError, ZoneInfoNotFoundError, ValueError) as error:
            self.recorder.warning(cron_job, "UnparseableSchedule", f"unparseable schedule: {error}")
            return None
        if due is not None:
            self._start(cron_job, due)
        if following is None:
            return None
        return Requeue(max(0.01, (following - self.clock.now()).total_seconds()))

    def _follow_jobs(self, cron_job: Obj) -> None:
        """`status.active`, and when a Job succeeded last."""
        jobs = [j for j in owned(self.store, cron_job, "Job") if not is_deleting(j)]
        status = copy(status_of(cron_job))
        status["active"] = [_reference(job) for job in jobs if not is_finished(job)]
        good = [
            str(status_of(job)["completionTime"])
            for job in jobs
            if status_of(job).get("completionTime")
        ]
        if good:
            status["lastSuccessfulTime"] = max([*good, status.get("lastSuccessfulTime", "")])
        if not status["active"]:
            del status["active"]
        self.update_status(cron_job, status)

    def _start(self, cron_job: Obj, due: datetime) -> None:
        running = [j for j in owned(self.store, cron_job, "Job") if not is_finished(j)]
        policy = spec_of(cron_job).get("concurrencyPolicy") or "Allow"
        if running and policy == "Forbid":
            self.recorder.normal(
                cron_job,
                "JobAlreadyActive",
                "Not starting job because prior execution is running and concurrency policy is "
                "Forbid",
            )
            return
        if policy == "Replace":
            for job in running:
                self._delete(job)
        job = _make_job(cron_job, due)
        try:
            made = self.store.create(job)
        except AlreadyExists:
            made = self.store.get(JOB, *_place(job))
        else:
            self.recorder.normal(
                cron_job, "SuccessfulCreate", f"Created job {job['metadata']['name']}"
            )
        status = copy(status_of(self.store.get(CRON_JOB, *_place(cron_job))))
        status["lastScheduleTime"] = timestamp(due)
        status["active"] = [*(status.get("active") or ()), _reference(made)]
        self.update_status(cron_job, status)

    def _clean_up(self, cron_job: Obj) -> None:
        """Keep only so many finished Jobs."""
        spec = spec_of(cron_job)
        finished = [j for j in owned(self.store, cron_job, "Job") if is_finished(j)]
        finished.sort(key=lambda job: finished_at(job) or self.clock.now())
        for good, limit in (
            (True, int(spec.get("successfulJobsHistoryLimit", 3))),
            (False, int(spec.get("failedJobsHistoryLimit", 1))),
        ):
            these = [j for j in finished if bool(status_of(j).get("completionTime")) == good]
            for job in these[: max(0, len(these) - limit)]:
                self._delete(job)

    def _delete(self, job: Obj) -> None:
        try:
            self.store.delete(JOB, *_place(job), propagation="Background")
        except NotFound:
            pass


def due_times(cron_job: Obj, now: datetime) -> tuple[datetime | None, datetime | None]:
    """The latest time a Job should have been started at and was not, and the next time.

    Raises CronSimError or ZoneInfoNotFoundError for a schedule that cannot be read.
    """
    spec, status = spec_of(cron_job), status_of(cron_job)
    expression = str(spec.get("schedule") or "")
    expression = as_cronsim(_WORDS.get(expression, expression))
    zone = ZoneInfo(str(spec["timeZone"])) if spec.get("timeZone") else UTC
    since = parse_timestamp(
        str(status.get("lastScheduleTime") or cron_job["metadata"]["creationTimestamp"])
    )
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None:
        since = max(since, now - timedelta(seconds=float(deadline)))
    due = None
    for count, moment in enumerate(CronSim(expression, since.astimezone(zone))):
        if moment > now:
            return due, moment.astimezone(UTC)
        due = moment.astimezone(UTC)
        if count > _MOST_MISSED:
            break
    following = next(CronSim(expression, now.astimezone(zone)), None)
    return due, following.astimezone(UTC) if following else None


def _make_job(cron_job: Obj, due: datetime) -> Obj:
    template = copy(spec_of(cron_job).get("jobTemplate") or {})
    metadata = template.get("metadata") or {}
    name = f"{cron_job['metadata']['name']}-{int(due.timestamp()) // 60}"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": cron_job["metadata"]["namespace"],
            "labels": metadata.get("labels") or {},
            "annotations": (metadata.get("annotations") or {}) | {_SCHEDULED: timestamp(due)},
            "ownerReferences": [owner_reference(cron_job)],
        },
        "spec": template.get("spec") or {},
    }


def _reference(job: Obj) -> dict[str, str]:
    metadata = job["metadata"]
    return {
        "kind": "Job",
        "apiVersion": "batch/v1",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "resourceVersion": metadata["resourceVersion"],
    }


def _place(obj: Obj) -> tuple[str, str]:
    key = key_of(obj)
    return key.namespace, key.name
