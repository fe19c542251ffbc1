"""What a Job has come to: conditions and back-off. Pure
(k8s.io/kubernetes pkg/controller/job)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from knlocal.resources.base import Obj, parse_timestamp, spec_of, status_of, timestamp
from knlocal.workloads.jobpolicies import failure_action, index_verdict, success_message
from knlocal.workloads.podstatus import is_terminal

_BACKOFF_FIRST = 10.0
_BACKOFF_MOST = 600.0


def is_finished(job: Obj) -> bool:
    return finished_at(job) is not None


def finished_at(job: Obj) -> datetime | None:
    """When the Job completed or failed; None while it has not."""
    for condition in status_of(job).get("conditions") or ():
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return parse_timestamp(condition["lastTransitionTime"])
    return None


def with_condition(
    conditions: Sequence[dict[str, Any]],
    type_: str,
    now: datetime,
    reason: str = "",
    message: str = "",
    status: str = "True",
) -> list[dict[str, Any]]:
    condition = {
        "type": type_,
        "status": status,
        "lastProbeTime": timestamp(now),
        "lastTransitionTime": timestamp(now),
        **({"reason": reason} if reason else {}),
        **({"message": message} if message else {}),
    }
    return [*(c for c in conditions if c["type"] != type_), condition]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a Job ends: `good` is Complete, else Failed."""

    good: bool
    reason: str
    message: str

    @property
    def interim(self) -> str:
        """The condition that tells before the last pod has gone."""
        return "SuccessCriteriaMet" if self.good else "FailureTarget"

    @property
    def final(self) -> str:
        return "Complete" if self.good else "Failed"


def noted_verdict(job: Obj) -> Verdict | None:
    """What was decided earlier."""
    for condition in status_of(job).get("conditions") or ():
        if condition["status"] == "True" and condition["type"] in (
            "FailureTarget", "SuccessCriteriaMet"
        ):  # fmt: skip
            good = condition["type"] == "SuccessCriteriaMet"
            return Verdict(good, condition.get("reason", ""), condition.get("message", ""))
    return None


def verdict_of(job: Obj, pods: Sequence[Obj], now: datetime) -> Verdict | None:
    """Whether the Job is decided, in Kubernetes' order of questions."""
    failure = _failure_of(job, pods, now)
    if failure is not None:
        return Verdict(False, *failure)
    if message := success_message(job):
        return Verdict(True, "SuccessPolicy", message)
    if _has_completed(job, pods):
        return Verdict(
            True, "CompletionsReached", "Reached expected number of succeeded pods"
        )  # fmt: skip
    return None


def _failure_of(job: Obj, pods: Sequence[Obj], now: datetime) -> tuple[str, str] | None:
    """Why the Job has failed for good: reason and message."""
    spec, status = spec_of(job), status_of(job)
    for pod in pods:
        if status_of(pod).get("phase") == "Failed":
            action, message = failure_action(job, pod)
            if action == "FailJob":
                return "PodFailurePolicy", message
    limit = int(spec.get("backoffLimit", 6))
    if int(status.get("failed") or 0) > limit or _restarts(job, pods) >= max(1, limit):
        return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    seconds, started = spec.get("activeDeadlineSeconds"), status.get("startTime")
    if seconds is not None and started and not spec.get("suspend"):
        gone = (now - parse_timestamp(started)).total_seconds()
        if gone >= float(seconds):
            return "DeadlineExceeded", "Job was active longer than specified deadline"
    return index_verdict(job)


def _has_completed(job: Obj, pods: Sequence[Obj]) -> bool:
    spec, succeeded = spec_of(job), int(status_of(job).get("succeeded") or 0)
    if spec.get("suspend"):
        return False
    wanted = spec.get("completions")
    if wanted is None:  # a work queue: done when one has succeeded and none is left
        return succeeded > 0 and all(map(is_terminal, pods))
    return succeeded >= int(wanted)


def _restarts(job: Obj, pods: Sequence[Obj]) -> int:
    """Restarts in place count as failures where the pods' policy is OnFailure."""
    if spec_of(spec_of(job).get("template") or {}).get("restartPolicy") != "OnFailure":
        return 0
    return sum(
        int(container.get("restartCount") or 0)
        for pod in pods
        if not is_terminal(pod)
        for container in (
            *(status_of(pod).get("initContainerStatuses") or ()),
            *(status_of(pod).get("containerStatuses") or ()),
        )
    )


def backoff_left(failures: int, last_failure: datetime | None, now: datetime) -> float:
    """Seconds to wait before the next pod, after so many failures in a row."""
    if not failures or last_failure is None:
        return 0.0
    wait = min(_BACKOFF_MOST, _BACKOFF_FIRST * 2.0 ** min(failures - 1, 10))
    return max(0.0, wait - (now - last_failure).total_seconds())
