"""What Jobs make of failures and successes, by their policies."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from knlocal.clock import VirtualClock
from knlocal.control.controller import Controller
from knlocal.resources.base import Obj, is_deleting, status_of
from knlocal.workloads.jobpolicies import failure_action, success_message
from knlocal.workloads.jobs import JobController
from knlocal.workloads.jobstatus import verdict_of
from knlocal.workloads.kubelet import Kubelet
from knlocal.workloads.podstatus import is_terminal
from tests.workloads.conftest import POD, Cluster
from tests.workloads.test_jobs import JOB, condition, ended, job

#: What is tested happens above the runtime.
processes = pytest.mark.parametrize("engine", ["process"], indirect=True)

FAIL = "import sys; sys.exit(42)"
SLEEP = "import time; time.sleep(600)"
INDEX = "import os; index = os.environ['JOB_COMPLETION_INDEX']"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(datetime(2026, 1, 1, 10, tzinfo=UTC))


@pytest.fixture
def make_controllers() -> Callable[[Kubelet], list[Controller]]:
    return lambda kubelet: [JobController(kubelet.store)]


def rule(action: str, operator: str = "In", *values: int) -> Obj:
    return {"action": action, "onExitCodes": {"operator": operator, "values": list(values)}}


def status(cluster: Cluster) -> dict[str, Any]:
    return status_of(cluster.find("work", JOB) or {})


@processes
async def test_a_policy_fails_the_job_at_the_first_bad_exit_code(cluster: Cluster) -> None:
    rules = [rule("FailJob", "In", 42)]
    cluster.create(job(FAIL, backoffLimit=6, podFailurePolicy={"rules": rules}))
    done = await ended(cluster, "Failed")
    failed = condition(done, "Failed")
    [pod] = cluster.store.list(POD)
    assert failed["reason"] == "PodFailurePolicy"
    assert failed["message"] == (
        f"Container app for pod default/{pod['metadata']['name']} failed with exit code 42 "
        "matching FailJob rule at index 0"
    )
    assert condition(done, "FailureTarget")["message"] == failed["message"]
    assert status_of(done)["failed"] == 1


@processes
async def test_a_policy_can_ignore_failures(cluster: Cluster) -> None:
    rules = [rule("Ignore", "In", 42)]
    cluster.create(job(FAIL, backoffLimit=0, podFailurePolicy={"rules": rules}))
    await cluster.until(lambda: len(cluster.store.list(POD)) >= 3)
    assert not status(cluster).get("failed")
    assert not condition(cluster.find("work", JOB), "Failed")


@processes
async def test_suspending_a_job_counts_nothing_as_failed(
    cluster: Cluster, virtual_clock: VirtualClock
) -> None:
    cluster.create(job(SLEEP, backoffLimit=0))
    await cluster.until(lambda: status(cluster).get("active") == 1)
    cluster.store.modify(JOB, "default", "work", lambda j: j["spec"].__setitem__("suspend", True))
    await cluster.until(lambda: not cluster.store.list(POD))
    cluster.store.modify(JOB, "default", "work", lambda j: j["spec"].__setitem__("suspend", False))
    await cluster.until(lambda: status(cluster).get("active") == 1)
    assert not status(cluster).get("failed")


@processes
async def test_fewer_pods_at_once_is_no_failure_either(cluster: Cluster) -> None:
    cluster.create(job(SLEEP, parallelism=2, completions=4, backoffLimit=0))
    await cluster.until(lambda: status(cluster).get("active") == 2)
    cluster.store.modify(JOB, "default", "work", lambda j: j["spec"].__setitem__("parallelism", 1))
    await cluster.until(lambda: len(cluster.store.list(POD)) == 1)
    assert not status(cluster).get("failed")


@processes
async def test_a_job_is_failed_only_when_its_last_pod_has_ended(
    cluster: Cluster, virtual_clock: VirtualClock
) -> None:
    slow = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(0)))\n"
        "time.sleep(600)"
    )
    cluster.create(job(slow, activeDeadlineSeconds=60))
    await cluster.until(lambda: status(cluster).get("ready") == 1)
    seen: list[tuple[bool, int]] = []

    def note(event: Any) -> None:
        if event.obj["kind"] == "Job" and condition(event.obj, "FailureTarget"):
            running = [p for p in cluster.store.list(POD) if not is_terminal(p)]
            seen.append((bool(condition(event.obj, "Failed")), len(running)))

    cluster.store.subscribe(note)
    await virtual_clock.advance(60)
    await ended(cluster, "Failed")
    assert (False, 1) in seen
    assert all(not left for failed, left in seen if failed)
    assert status(cluster)["terminating"] == 0


@processes
async def test_an_index_that_keeps_failing_leaves_the_others_alone(
    cluster: Cluster, virtual_clock: VirtualClock
) -> None:
    script = f"{INDEX}\nimport sys; sys.exit(1 if index == '1' else 0)"
    spec = {"completions": 3, "parallelism": 3, "completionMode": "Indexed"}
    cluster.create(job(script, **spec, backoffLimitPerIndex=1))
    await cluster.until(lambda: status(cluster).get("failed") == 1)
    await cluster.manager.settled()
    await virtual_clock.advance(20)
    done = await ended(cluster, "Failed")
    assert condition(done, "Failed")["reason"] == "FailedIndexes"
    found = status_of(done)
    assert (found["completedIndexes"], found["failedIndexes"]) == ("0,2", "1")
    assert found["failed"] == 2


@processes
async def test_too_many_failed_indexes_end_the_job(cluster: Cluster) -> None:
    spec = {"completions": 3, "parallelism": 1, "completionMode": "Indexed"}
    cluster.create(job(FAIL, **spec, backoffLimitPerIndex=0, maxFailedIndexes=0))
    done = await ended(cluster, "Failed")
    assert condition(done, "Failed")["reason"] == "MaxFailedIndexesExceeded"


@processes
async def test_a_success_policy_ends_the_job_early(cluster: Cluster) -> None:
    script = f"{INDEX}\nimport time\nif index != '0': time.sleep(600)"
    spec = {"completions": 3, "parallelism": 3, "completionMode": "Indexed"}
    policy = {"rules": [{"succeededIndexes": "0"}]}
    cluster.create(job(script, **spec, successPolicy=policy))
    done = await ended(cluster, "Complete")
    assert condition(done, "SuccessCriteriaMet")["reason"] == "SuccessPolicy"
    assert condition(done, "Complete")["message"] == "Matched rules at index 0"
    assert not status_of(done).get("failed")
    await cluster.until(lambda: not [p for p in cluster.store.list(POD) if is_deleting(p)])


@pytest.mark.parametrize(
    ("rules", "code", "action"),
    [
        ([rule("FailJob", "NotIn", 1, 2)], 3, "FailJob"),
        ([rule("FailJob", "NotIn", 1, 2)], 2, "Count"),
        ([rule("FailIndex", "In", 3), rule("Ignore", "In", 3)], 3, "FailIndex"),
        ([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}], 3, "Ignore"),
        ([{"action": "FailJob", "onExitCodes": {
            "containerName": "other", "operator": "In", "values": [3]}}], 3, "Count"),
        ([], 3, "Count"),
    ],
)  # fmt: skip
def test_the_first_rule_that_matches_decides(rules: list[Obj], code: int, action: str) -> None:
    pod = {
        "metadata": {"name": "p", "namespace": "default"},
        "status": {
            "conditions": [{"type": "DisruptionTarget", "status": "True"}],
            "containerStatuses": [{"name": "app", "state": {"terminated": {"exitCode": code}}}],
        },
    }
    assert failure_action({"spec": {"podFailurePolicy": {"rules": rules}}}, pod)[0] == action


@pytest.mark.parametrize(
    ("one", "done", "met"),
    [
        ({"succeededIndexes": "0,2-3"}, "0-3", True),
        ({"succeededIndexes": "0,2-3"}, "0-2", False),
        ({"succeededIndexes": "0,2-3", "succeededCount": 1}, "2", True),
        ({"succeededCount": 2}, "4,7", True),
        ({"succeededCount": 2}, "4", False),
    ],
)
def test_success_rules_name_indexes_a_number_or_both(one: Obj, done: str, met: bool) -> None:
    found = {"spec": {"successPolicy": {"rules": [one]}}, "status": {"completedIndexes": done}}
    assert bool(success_message(found)) is met


def test_restarts_of_pods_that_succeeded_in_the_end_do_not_count() -> None:
    spec = {"template": {"spec": {"restartPolicy": "OnFailure"}}, "backoffLimit": 2}
    found = {"spec": spec, "status": {}}

    def pod(phase: str) -> Obj:
        return {"status": {"phase": phase, "containerStatuses": [{"restartCount": 2}]}}

    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert verdict_of(found, [pod("Succeeded")], now) is None
    failed = verdict_of(found, [pod("Running")], now)
    assert failed is not None
    assert failed.reason == "BackoffLimitExceeded"
