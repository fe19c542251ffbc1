"""Jobs and CronJobs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from knlocal.clock import VirtualClock
from knlocal.control.controller import Controller
from knlocal.resources.base import GroupKind, Obj, status_of
from knlocal.workloads.cronjobs import CronJobController, due_times
from knlocal.workloads.indexes import format_indexes, parse_indexes
from knlocal.workloads.jobs import JobController
from knlocal.workloads.kubelet import Kubelet
from tests.workloads.conftest import IMAGE, Cluster

JOB = GroupKind("batch", "Job")
CRON_JOB = GroupKind("batch", "CronJob")
POD = GroupKind("", "Pod")


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(datetime(2026, 1, 1, 10, 0, 30, tzinfo=UTC))


@pytest.fixture
def make_controllers() -> Callable[[Kubelet], list[Controller]]:
    return lambda kubelet: [JobController(kubelet.store), CronJobController(kubelet.store)]


def template(script: str, policy: str = "Never") -> Obj:
    run = {"command": [sys.executable, "-c", script]}
    return {
        "metadata": {"annotations": {"knlocal.dev/run": json.dumps(run)}},
        "spec": {
            "restartPolicy": policy,
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {"name": "app", "image": IMAGE, "command": ["/usr/bin/python3", "-c", script]}
            ],
        },
    }


def job(script: str = "print('done')", policy: str = "Never", **spec: Any) -> Obj:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "work", "namespace": "default"},
        "spec": {"template": template(script, policy), **spec},
    }


def condition(obj: Obj | None, type_: str) -> dict[str, Any]:
    found = status_of(obj or {}).get("conditions") or ()
    return next((c for c in found if c["type"] == type_ and c["status"] == "True"), {})


async def ended(cluster: Cluster, type_: str) -> Obj:
    await cluster.until(lambda: condition(cluster.find("work", JOB), type_), type_)
    found = cluster.find("work", JOB)
    assert found is not None
    return found


async def test_a_job_completes_after_as_many_successes_as_wanted(cluster: Cluster) -> None:
    cluster.create(job(completions=3, parallelism=2))
    done = await ended(cluster, "Complete")
    status = status_of(done)
    assert status["succeeded"] == 3
    assert status["startTime"]
    assert status["completionTime"]
    assert not status.get("active")
    assert condition(done, "SuccessCriteriaMet")["reason"] == "CompletionsReached"
    pods = cluster.store.list(POD, "default", {"job-name": "work"})
    assert len(pods) == 3
    assert all(p["metadata"]["name"].startswith("work-") for p in pods)
    assert not any(p["metadata"].get("finalizers") for p in pods)


async def test_a_failing_job_backs_off_and_gives_up(
    cluster: Cluster, virtual_clock: VirtualClock
) -> None:
    cluster.create(job("import sys; sys.exit(4)", backoffLimit=2))
    for failures in (1, 2):
        await cluster.until(
            lambda n=failures: status_of(cluster.find("work", JOB) or {}).get("failed") == n  # type: ignore[misc]
        )
        await cluster.manager.settled()
        assert len(cluster.store.list(POD)) == failures
        await virtual_clock.advance(10 * 2 ** (failures - 1))
    done = await ended(cluster, "Failed")
    assert condition(done, "Failed")["reason"] == "BackoffLimitExceeded"
    assert status_of(done)["failed"] == 3


async def test_restarts_in_place_count_against_the_limit(
    cluster: Cluster, virtual_clock: VirtualClock
) -> None:
    cluster.create(job("import sys; sys.exit(4)", "OnFailure", backoffLimit=1))
    done = await ended(cluster, "Failed")
    assert condition(done, "Failed")["message"] == "Job has reached the specified backoff limit"


async def test_a_job_past_its_deadline_fails_and_goes_after_its_time(
    cluster: Cluster, virtual_clock: VirtualClock
) -> None:
    cluster.create(
        job("import time; time.sleep(600)", activeDeadlineSeconds=60, ttlSecondsAfterFinished=100)
    )
    await cluster.until(lambda: status_of(cluster.find("work", JOB) or {}).get("active") == 1)
    await virtual_clock.advance(60)
    done = await ended(cluster, "Failed")
    assert condition(done, "Failed")["reason"] == "DeadlineExceeded"
    await virtual_clock.advance(101)
    await cluster.until(lambda: cluster.find("work", JOB) is None and not cluster.store.list(POD))


async def test_an_indexed_job_runs_each_index_once(cluster: Cluster) -> None:
    script = "import os; print(os.environ['JOB_COMPLETION_INDEX'])"
    cluster.create(job(script, completions=3, parallelism=3, completionMode="Indexed"))
    done = await ended(cluster, "Complete")
    assert status_of(done)["completedIndexes"] == "0-2"
    hosts = {p["spec"]["hostname"] for p in cluster.store.list(POD)}
    assert hosts == {"work-0", "work-1", "work-2"}


async def test_a_suspended_job_has_no_pods_until_it_is_resumed(cluster: Cluster) -> None:
    cluster.create(job(suspend=True))
    await cluster.until(lambda: condition(cluster.find("work", JOB), "Suspended"))
    assert not cluster.store.list(POD)
    cluster.store.modify(JOB, "default", "work", lambda j: j["spec"].__setitem__("suspend", False))
    await ended(cluster, "Complete")


async def test_deleting_a_job_takes_its_pods(cluster: Cluster, virtual_clock: VirtualClock) -> None:
    cluster.create(job("import time; time.sleep(600)", parallelism=2, completions=2))
    await cluster.until(lambda: status_of(cluster.find("work", JOB) or {}).get("active") == 2)
    cluster.store.delete(JOB, "default", "work")
    await virtual_clock.advance(0)
    await cluster.until(lambda: not cluster.store.list(POD))


async def test_a_deleted_pod_of_a_job_counts_as_failed_and_is_replaced(
    cluster: Cluster, virtual_clock: VirtualClock
) -> None:
    cluster.create(job("import time; time.sleep(600)"))
    await cluster.until(lambda: status_of(cluster.find("work", JOB) or {}).get("active") == 1)
    [pod] = cluster.store.list(POD)
    cluster.store.delete(POD, "default", pod["metadata"]["name"])
    await cluster.until(lambda: status_of(cluster.find("work", JOB) or {}).get("failed") == 1)
    await virtual_clock.advance(10)
    await cluster.until(
        lambda: (
            [p["metadata"]["name"] for p in cluster.store.list(POD)]
            not in ([], [pod["metadata"]["name"]])
        )
    )


def cron_job(**spec: Any) -> Obj:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "tick", "namespace": "default"},
        "spec": {
            "schedule": "*/5 * * * *",
            "jobTemplate": {"spec": {"template": template("print('tick')")}},
            **spec,
        },
    }


async def test_a_cron_job_makes_jobs_by_the_clock(
    cluster: Cluster, virtual_clock: VirtualClock
) -> None:
    cluster.create(cron_job())
    await cluster.manager.settled()
    await virtual_clock.advance(200)
    assert not cluster.store.list(JOB)
    await virtual_clock.advance(100)
    [first] = cluster.store.list(JOB)
    minutes = int(datetime(2026, 1, 1, 10, 5, tzinfo=UTC).timestamp()) // 60
    assert first["metadata"]["name"] == f"tick-{minutes}"
    await cluster.until(lambda: status_of(cluster.find("tick", CRON_JOB) or {})
                        .get("lastSuccessfulTime"))  # fmt: skip
    for _ in range(5):
        await virtual_clock.advance(300)
        await cluster.until(lambda: not status_of(cluster.find("tick", CRON_JOB) or {})
                            .get("active"))  # fmt: skip
    await cluster.manager.settled()
    assert len(cluster.store.list(JOB)) == 3  # the history limit
    status = status_of(cluster.find("tick", CRON_JOB) or {})
    assert status["lastScheduleTime"] == "2026-01-01T10:30:00Z"


async def test_a_cron_job_that_forbids_overlaps_waits(
    cluster: Cluster, virtual_clock: VirtualClock
) -> None:
    spec = {"template": template("import time; time.sleep(600)")}
    cluster.create(cron_job(concurrencyPolicy="Forbid", jobTemplate={"spec": spec}))
    await cluster.manager.settled()
    await virtual_clock.advance(1200)
    assert len(cluster.store.list(JOB)) == 1
    assert cluster.events("JobAlreadyActive")


def test_due_times_know_zones_words_and_missed_starts() -> None:
    now = datetime(2026, 7, 1, 12, 30, tzinfo=UTC)

    def at(**spec: Any) -> tuple[datetime | None, datetime | None]:
        return due_times(
            {"metadata": {"creationTimestamp": "2026-07-01T00:00:00Z"}, "spec": spec}, now
        )

    assert at(schedule="@hourly") == (
        datetime(2026, 7, 1, 12, tzinfo=UTC),
        datetime(2026, 7, 1, 13, tzinfo=UTC),
    )
    due, following = at(schedule="0 9 * * *", timeZone="Europe/Berlin")
    assert due == datetime(2026, 7, 1, 7, tzinfo=UTC)
    assert following == datetime(2026, 7, 2, 7, tzinfo=UTC)
    assert at(schedule="@hourly", startingDeadlineSeconds=60)[0] is None
    assert at(schedule="0 0 */4 ? FRI")[1] == datetime(2026, 7, 3, tzinfo=UTC)
    assert at(schedule="0 0 ? * ?")[1] == datetime(2026, 7, 2, tzinfo=UTC)


def test_indexes_are_written_as_spans() -> None:
    assert format_indexes({0, 2, 3, 4, 9}) == "0,2-4,9"
    assert parse_indexes("0,2-4,9") == {0, 2, 3, 4, 9}
    assert parse_indexes("") == set()
