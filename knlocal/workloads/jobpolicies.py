"""What a Job's policies say about its pods: pure (k8s.io/kubernetes pkg/controller/job
{pod_failure_policy,success_policy,backoff_utils,indexed_job_utils}.go)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from knlocal.resources.base import Obj, annotations_of, spec_of, status_of
from knlocal.workloads.indexes import index_of, parse_indexes

FAILURE_COUNT = "batch.kubernetes.io/job-index-failure-count"


# -- podFailurePolicy -----------------------------------------------------------------------------


def failure_action(job: Obj, pod: Obj) -> tuple[str, str]:
    """What a failed pod means ("FailJob", "FailIndex", "Ignore" or "Count"), and in words why."""
    rules = (spec_of(job).get("podFailurePolicy") or {}).get("rules") or ()
    for number, rule in enumerate(rules):
        if why := _matches(rule, pod):
            place = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            return str(rule.get("action") or "Count"), why.format(
                pod=place, rule=f"matching {rule.get('action')} rule at index {number}"
            )
    return "Count", ""


def _matches(rule: Obj, pod: Obj) -> str:
    """In words, with `{pod}` and `{rule}` to be filled in; "" when the rule says nothing."""
    if codes := rule.get("onExitCodes"):
        for name, code in _exit_codes(pod):
            listed = code in (codes.get("values") or ())
            wanted = codes.get("operator") != "NotIn"
            if codes.get("containerName") in (None, name) and code and listed == wanted:
                return f"Container {name} for pod {{pod}} failed with exit code {code} {{rule}}"
        return ""
    for pattern in rule.get("onPodConditions") or ():
        for condition in status_of(pod).get("conditions") or ():
            if condition["type"] == pattern.get("type") and (
                condition["status"] == (pattern.get("status") or "True")
            ):
                return f"Pod {{pod}} has condition {condition['type']} {{rule}}"
    return ""


def _exit_codes(pod: Obj) -> Iterable[tuple[str, int]]:
    status = status_of(pod)
    every = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    for one in every:
        ended = (one.get("state") or {}).get("terminated")
        if ended:
            yield one["name"], int(ended.get("exitCode") or 0)


# -- backoffLimitPerIndex -------------------------------------------------------------------------


def has_index_limits(job: Obj) -> bool:
    return spec_of(job).get("backoffLimitPerIndex") is not None


def index_failures(job: Obj, pod: Obj) -> int:
    """How often the index of a failed pod has failed, this time included."""
    text = annotations_of(pod).get(FAILURE_COUNT, "0")
    before = int(text) if text.isdigit() else 0
    return before + (failure_action(job, pod)[0] != "Ignore")


def fails_index(job: Obj, pod: Obj) -> bool:
    """Whether a failed pod is the last that its index gets."""
    if not has_index_limits(job):
        return False
    limit = int(spec_of(job)["backoffLimitPerIndex"])
    return failure_action(job, pod)[0] == "FailIndex" or index_failures(job, pod) > limit


def failures_so_far(job: Obj, index: int, pods: Iterable[Obj]) -> int:
    """What the next pod of an index is told."""
    failed = (p for p in pods if index_of(p) == index and status_of(p).get("phase") == "Failed")
    return max((index_failures(job, pod) for pod in failed), default=0)


def index_verdict(job: Obj) -> tuple[str, str] | None:
    """Reason and message when failed indexes make the Job fail."""
    if not has_index_limits(job):
        return None
    spec, status = spec_of(job), status_of(job)
    failed = parse_indexes(status.get("failedIndexes") or "")
    most = spec.get("maxFailedIndexes")
    if most is not None and len(failed) > int(most):
        return (
            "MaxFailedIndexesExceeded",
            "Job has exceeded the specified maximal number of failed indexes",
        )
    done = parse_indexes(status.get("completedIndexes") or "") | failed
    if failed and len(done) >= int(spec.get("completions") or 0):
        return "FailedIndexes", "Job has failed indexes"
    return None


# -- successPolicy --------------------------------------------------------------------------------


def success_message(job: Obj) -> str:
    """Which rule of the success policy is met; "" for none."""
    rules: Sequence[dict[str, Any]] = (spec_of(job).get("successPolicy") or {}).get("rules") or ()
    done = parse_indexes(status_of(job).get("completedIndexes") or "")
    for number, rule in enumerate(rules):
        wanted = rule.get("succeededIndexes")
        counted = done & parse_indexes(wanted) if wanted else done
        least = rule.get("succeededCount")
        if least is None:
            least = len(parse_indexes(wanted or ""))
        if least and len(counted) >= int(least):
            return f"Matched rules at index {number}"
    return ""
