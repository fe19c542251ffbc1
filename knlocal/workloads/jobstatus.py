"""What a Job has come to: conditions, back-off and indexes. Pure
(k8s.io/kubernetes pkg/controller/job)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from knlocal.resources.base import (
    Obj,
    annotations_of,
    parse_timestamp,
    spec_of,
    status_of,
    timestamp,
)

INDEX = "batch.kubernetes.io/job-completion-index"
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


def failure_of(job: Obj, failed: int, pods: Sequence[Obj], now: datetime) -> tuple[str, str] | None:
    """Why the Job has failed for good: reason and message."""
    spec, status = spec_of(job), status_of(job)
    limit = int(spec.get("backoffLimit", 6))
    if failed > limit or _restarts(job, pods) >= max(1, limit):
        return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    seconds = spec.get("activeDeadlineSeconds")
    started = status.get("startTime")
    if seconds is not None and started and not spec.get("suspend"):
        gone = (now - parse_timestamp(started)).total_seconds()
        if gone >= float(seconds):
            return "DeadlineExceeded", "Job was active longer than specified deadline"
    return None


def _restarts(job: Obj, pods: Sequence[Obj]) -> int:
    """Restarts in place count as failures where the pods' policy is OnFailure."""
    if spec_of(spec_of(job).get("template") or {}).get("restartPolicy") != "OnFailure":
        return 0
    return sum(
        int(container.get("restartCount") or 0)
        for pod in pods
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


def index_of(pod: Obj) -> int | None:
    text = annotations_of(pod).get(INDEX, "")
    return int(text) if text.isdigit() else None


def parse_indexes(text: str) -> set[int]:
    """ "0,2-4" → {0, 2, 3, 4}."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def format_indexes(indexes: Iterable[int]) -> str:
    """{0, 2, 3, 4} → "0,2-4"."""
    spans: list[list[int]] = []
    for index in sorted(indexes):
        if spans and spans[-1][1] == index - 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
