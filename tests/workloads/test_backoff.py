"""Restarts, back-off and deadlines, on a clock that tests move."""

from __future__ import annotations

import pytest

from knlocal.clock import VirtualClock
from knlocal.resources.base import GroupKind, status_of
from knlocal.workloads.backoff import Backoff
from tests.workloads.conftest import Cluster, container_status, state


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


CRASH = "import sys; print('boom', file=sys.stderr); sys.exit(3)"


async def test_a_crash_loop_backs_off_and_goes_on(
    cluster: Cluster, virtual_clock: VirtualClock
) -> None:
    one = cluster.container("app", CRASH, terminationMessagePolicy="FallbackToLogsOnError")
    cluster.create(cluster.pod("web", containers=[one]))
    uid = cluster.find("web")["metadata"]["uid"]  # type: ignore[index]
    for restarts, words in ((1, "10s"), (2, "20s"), (3, "40s"), (4, "1m20s"), (5, "2m40s")):
        pod = await cluster.pod_where(
            "web",
            lambda p, n=restarts: (  # type: ignore[misc]
                container_status(p).get("restartCount") == n and state(p).get("waiting")
            ),
        )
        assert state(pod)["waiting"] == {
            "reason": "CrashLoopBackOff",
            "message": f"back-off {words} restarting failed container=app pod=web_default({uid})",
        }
        last = state(pod, which="lastState")["terminated"]
        assert last["exitCode"] == 3
        assert last["message"] == "boom\n"
        assert status_of(pod)["phase"] == "Running"
        await virtual_clock.advance(next(
            s for w, s in (("10s", 10), ("20s", 20), ("40s", 40), ("1m20s", 80), ("2m40s", 160))
            if w == words
        ))  # fmt: skip
    [event] = cluster.events("BackOff")
    assert event["count"] == 5
    assert "Back-off restarting failed container app in pod web_default" in event["message"]


async def test_a_pod_past_its_deadline_fails(cluster: Cluster, virtual_clock: VirtualClock) -> None:
    cluster.create(cluster.pod("job", activeDeadlineSeconds=60, terminationGracePeriodSeconds=1))
    await cluster.running("job")
    await virtual_clock.advance(61)
    pod = await cluster.pod_where(
        "job", lambda p: status_of(p)["phase"] == "Failed" and state(p).get("terminated")
    )
    assert status_of(pod)["reason"] == "DeadlineExceeded"
    assert cluster.find("job") is not None


def test_back_off_doubles_to_five_minutes_and_is_forgotten_after_ten() -> None:
    backoff, now, waits = Backoff(), 0.0, []
    for _ in range(8):
        backoff.failed(now)
        waits.append(backoff.due(now) - now)
        now = backoff.due(now)
        backoff.attempted(now)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    now += 601
    backoff.failed(now)
    assert backoff.due(now) == now


async def test_restart_counts_are_kept_when_a_container_runs_again(
    cluster: Cluster, virtual_clock: VirtualClock
) -> None:
    cluster.create(cluster.pod("web"))
    await cluster.running("web")
    await cluster.get("web", "/exit")  # the first restart is free
    await cluster.pod_where(
        "web", lambda p: container_status(p)["restartCount"] == 1 and container_status(p)["ready"]
    )
    await cluster.get("web", "/exit")
    await cluster.pod_where("web", lambda p: state(p).get("waiting"))
    await virtual_clock.advance(10)
    await cluster.pod_where(
        "web", lambda p: container_status(p)["restartCount"] == 2 and container_status(p)["ready"]
    )


async def test_an_image_that_cannot_be_pulled_is_tried_again_with_back_off(
    cluster: Cluster, virtual_clock: VirtualClock, engine: str
) -> None:
    if engine == "process":
        pytest.skip("processes have no images")
    pod = cluster.pod("web")
    pod["spec"]["containers"][0]["image"] = "localhost:1/no/such:image"
    cluster.create(pod)
    found = await cluster.pod_where(
        "web", lambda p: state(p).get("waiting", {}).get("reason") == "ErrImagePull"
    )
    assert state(found)["waiting"]["message"]
    await virtual_clock.advance(2)
    found = await cluster.pod_where(
        "web", lambda p: state(p).get("waiting", {}).get("reason") == "ImagePullBackOff"
    )
    assert "Back-off pulling image" in state(found)["waiting"]["message"]
    await virtual_clock.advance(10)
    await cluster.until(lambda: cluster.events("Pulling")[0]["count"] == 2)
    cluster.store.delete(GroupKind("", "Pod"), "default", "web")
    await cluster.gone("web")


async def test_a_missing_image_that_may_not_be_pulled_says_so(
    cluster: Cluster, engine: str
) -> None:
    if engine == "process":
        pytest.skip("processes have no images")
    one = cluster.container("app", imagePullPolicy="Never") | {"image": "no/such:image"}
    cluster.create(cluster.pod("web", containers=[one]))
    pod = await cluster.pod_where("web", lambda p: state(p).get("waiting", {}).get("message"))
    assert state(pod)["waiting"]["reason"] == "ErrImageNeverPull"


async def test_a_command_that_does_not_exist_cannot_start(cluster: Cluster, engine: str) -> None:
    if engine == "process":
        pytest.skip("the process runtime says it in its own way")
    pod = cluster.pod("web", restartPolicy="Never")
    pod["spec"]["containers"][0]["command"] = ["/no/such/program"]
    cluster.create(pod)
    found = await cluster.pod_where("web", lambda p: status_of(p).get("phase") == "Failed")
    ended = state(found)["terminated"]
    assert ended["reason"] == "StartError"
    assert "/no/such/program" in ended["message"]
