"""From the first probe to the last request: readiness, crashes, scale to zero, the end."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conformance.conftest import NAMESPACE, SERVING, Cluster, condition, name, service
from tests.conformance.test_runtime_requests import open_websocket

pytestmark = pytest.mark.docker
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
ONE = {"autoscaling.knative.dev/min-scale": "1"}


def log_of(cluster: Cluster, pod: dict[str, Any]) -> str:
    """What the serving container has written."""
    return str(cluster.get(f"{PODS}/{pod['metadata']['name']}/log?container=user-container"))


def test_a_ready_service_answers_at_once(cluster: Cluster) -> None:
    made = cluster.ready_service(service(name("delay"), env={"LISTEN_DELAY": "2"}))
    assert cluster.call(made["status"]["url"]).status == 200


def test_http_readiness_with_a_query_on_the_serving_port(cluster: Cluster) -> None:
    probe = {"httpGet": {"path": "/healthz?deep=yes"}, "periodSeconds": 1}
    made = cluster.ready_service(
        service(
            name("query"),
            container={"readinessProbe": probe},
            env={"READY_QUERY": "deep=yes", "READY_DELAY": "1"},
        )
    )
    assert cluster.call(made["status"]["url"]).status == 200
    (pod,) = cluster.pods(made["metadata"]["name"])
    cluster.until(lambda: "probe /healthz?deep=yes" in log_of(cluster, pod))


@pytest.mark.parametrize(
    "probe",
    [
        {"exec": {"command": ["python3", "-c", "raise SystemExit(0)"]}},
        {"tcpSocket": {}},
        {
            "httpGet": {
                "path": "/healthz",
                "port": 8080,
                "httpHeaders": [{"name": "X", "value": "1"}],
            }
        },
    ],
    ids=["exec", "tcp", "http"],
)
def test_every_kind_of_readiness_probe_is_run(cluster: Cluster, probe: dict[str, Any]) -> None:
    made = cluster.ready_service(service(name("probe"), container={"readinessProbe": probe}))
    assert cluster.call(made["status"]["url"]).status == 200


def test_a_probe_that_never_passes_fails_the_revision_after_the_deadline(cluster: Cluster) -> None:
    probe = {"exec": {"command": ["python3", "-c", "raise SystemExit(1)"]}}
    called = name("never")
    cluster.create_service(
        service(
            called,
            container={"readinessProbe": probe},
            annotations={"serving.knative.dev/progress-deadline": "5s"},
        )
    )
    path = f"{SERVING}/revisions/{called}-00001"
    cluster.until(lambda: cluster.pods(called))
    assert condition(cluster.get(path)).get("status") == "Unknown"
    revision = cluster.ready(path, "False")
    assert condition(revision)["reason"] == "ProgressDeadlineExceeded"
    assert condition(revision, "ResourcesAvailable")["status"] == "False"
    for kind, reason in (
        ("ConfigurationsReady", "RevisionFailed"),
        ("RoutesReady", "RevisionMissing"),
    ):
        got = cluster.ready(f"{SERVING}/services/{called}", "False", kind)
        assert condition(got, kind)["reason"] == reason
    cluster.must("DELETE", f"{SERVING}/services/{called}")


def test_what_cannot_run_says_why_in_the_revision(cluster: Cluster) -> None:
    """Knative's TestPodScheduleError and TestImagePullError."""
    huge = {"requests": {"cpu": "5000", "memory": "35Ti"}}
    deadline = {"serving.knative.dev/progress-deadline": "5s"}
    nothing = "127.0.0.1:1/nothing@sha256:" + "0" * 64
    wanted = {
        name("huge"): ({"resources": huge}, "Unschedulable", "Insufficient cpu"),
        name("pull"): ({"image": nothing}, "ImagePullBackOff|ErrImagePull", nothing),
    }
    for called, (container, _, _) in wanted.items():
        cluster.create_service(service(called, container=container, annotations=deadline))
    for called, (_, reason, message) in wanted.items():
        cluster.ready(f"{SERVING}/configurations/{called}", "False")
        revision = cluster.ready(f"{SERVING}/revisions/{called}-00001", "False")
        assert re.fullmatch(reason, condition(revision)["reason"])
        assert message in condition(revision)["message"]
        cluster.must("DELETE", f"{SERVING}/services/{called}")


def test_a_quota_that_is_used_up_is_told(cluster: Cluster) -> None:
    """Knative's TestResourceQuotaError."""
    namespace = name("quota")
    cluster.must("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    quota = {"metadata": {"name": "little"}, "spec": {"hard": {"requests.cpu": "50m"}}}
    cluster.must("POST", f"/api/v1/namespaces/{namespace}/resourcequotas", quota)
    body = service("much", container={"resources": {"requests": {"cpu": "200m"}}})
    body["metadata"]["namespace"] = namespace
    where = SERVING.replace(NAMESPACE, namespace)
    cluster.must("POST", f"{where}/services", body)
    cluster.ready(f"{where}/configurations/much", "False")
    revision = cluster.ready(f"{where}/revisions/much-00001", "False")
    assert "forbidden: exceeded quota: little" in condition(revision)["message"]
    cluster.must("DELETE", f"/api/v1/namespaces/{namespace}")


def test_liveness_restarts_the_container_and_not_the_pod(cluster: Cluster) -> None:
    probe = {"httpGet": {"path": "/healthz"}, "periodSeconds": 1, "failureThreshold": 1}
    made = cluster.ready_service(
        service(name("live"), container={"livenessProbe": probe}, annotations=ONE)
    )
    called = made["metadata"]["name"]
    (before,) = cluster.pods(called)
    assert cluster.call(made["status"]["url"], "/break").status == 200

    def restarted() -> Any:
        (pod,) = cluster.pods(called)
        assert pod["metadata"]["name"] == before["metadata"]["name"]
        statuses = {s["name"]: s for s in pod["status"]["containerStatuses"]}
        return statuses["user-container"]["restartCount"] >= 1

    cluster.until(restarted)
    cluster.until(lambda: cluster.call(made["status"]["url"]).status == 200)


def test_a_crash_is_followed_by_a_restart(cluster: Cluster) -> None:
    made = cluster.ready_service(service(name("crash"), annotations=ONE))
    assert cluster.call(made["status"]["url"], "/exit?code=5").status in (502, 503, 500)
    cluster.until(lambda: cluster.call(made["status"]["url"]).status == 200)
    called = made["metadata"]["name"]

    def told() -> Any:
        (pod,) = cluster.pods(called)
        state = {s["name"]: s for s in pod["status"]["containerStatuses"]}["user-container"]
        return state["restartCount"] >= 1 and state["lastState"]["terminated"]["exitCode"] == 5

    cluster.until(told)


def test_an_image_that_ends_at_once_says_so_in_the_service(cluster: Cluster) -> None:
    """Knative's TestContainerExitingMsg."""
    called = name("exits")
    command = ["python3", "-c", "print('goodbye'); raise SystemExit(7)"]
    cluster.create_service(service(called, container={"command": command}))
    got = cluster.ready(f"{SERVING}/configurations/{called}", "False")
    assert condition(got)["reason"] == "RevisionFailed"
    assert "goodbye" in condition(got)["message"]
    revision = cluster.get(f"{SERVING}/revisions/{called}-00001")
    assert condition(revision, "ContainerHealthy")["reason"] == "ExitCode7"


def test_an_image_that_does_not_exist_says_so_in_the_service(cluster: Cluster) -> None:
    """Knative's TestContainerErrorMsg."""
    called = name("missing")
    image = "127.0.0.1:1/knlocal-test/there-is-none:1"
    cluster.create_service(service(called, container={"image": image}))
    got = cluster.ready(f"{SERVING}/configurations/{called}", "False")
    assert condition(got)["reason"] == "RevisionFailed"
    revision = cluster.ready(f"{SERVING}/revisions/{called}-00001", "False")
    assert condition(revision)["reason"]
    cluster.ready(f"{SERVING}/services/{called}", "False", "ConfigurationsReady")
    route = cluster.ready(f"{SERVING}/routes/{called}", "False")
    assert condition(route)["reason"] == "RevisionMissing"


def test_a_service_at_zero_wakes_for_the_first_request(cluster: Cluster) -> None:
    made = cluster.ready_service(
        service(
            name("zero"),
            annotations={"autoscaling.knative.dev/window": "6s"},
        )
    )
    called = made["metadata"]["name"]
    cluster.until(lambda: not cluster.pods(called), lambda: cluster.pods(called))
    revision = cluster.get(f"{SERVING}/revisions/{called}-00001")
    assert condition(revision)["status"] == "True"
    assert condition(revision, "Active")["status"] == "False"
    assert condition(revision, "Active")["reason"] == "NoTraffic"
    assert condition(cluster.get(f"{SERVING}/services/{called}"))["status"] == "True"
    with ThreadPoolExecutor(5) as many:
        got = list(many.map(lambda _: cluster.call(made["status"]["url"]).status, range(5)))
    assert got == [200] * 5


def test_requests_in_flight_end_before_the_container_does(cluster: Cluster) -> None:
    """Knative's TestDestroyPodInflight and TestDestroyPodWithRequests, a bit faster."""
    made = cluster.ready_service(service(name("drain"), annotations=ONE))
    url, called = made["status"]["url"], made["metadata"]["name"]
    (pod,) = cluster.pods(called)
    with ThreadPoolExecutor(2) as many:
        answers = [many.submit(cluster.call, url, f"/sleep?ms={ms}") for ms in (3000, 5000)]
        cluster.until(lambda: log_of(cluster, pod).count("sleeps") == 2)
        cluster.must("DELETE", f"{PODS}/{pod['metadata']['name']}")
        assert [a.result().text for a in answers] == [
            "Slept for 3000 milliseconds", "Slept for 5000 milliseconds",
        ]  # fmt: skip
    cluster.until(lambda: cluster.request("GET", f"{PODS}/{pod['metadata']['name']}")[0] == 404)
    cluster.until(lambda: cluster.call(url).status == 200)


def test_requests_in_flight_outlive_their_service(cluster: Cluster) -> None:
    made = cluster.ready_service(service(name("outlive"), spec={"timeoutSeconds": 45}))
    called = made["metadata"]["name"]
    with ThreadPoolExecutor(1) as many:
        answer = many.submit(cluster.call, made["status"]["url"], "/sleep?ms=4000")
        (pod,) = cluster.pods(called)
        cluster.until(lambda: "sleeps" in log_of(cluster, pod))
        cluster.must("DELETE", f"{SERVING}/services/{called}")
        assert answer.result().text == "Slept for 4000 milliseconds"
    cluster.until(lambda: not cluster.pods(called))


def test_an_idle_pod_goes_quickly(cluster: Cluster) -> None:
    """Knative's TestDestroyPodTimely: the grace period is for requests, not to be waited for."""
    made = cluster.ready_service(service(name("timely"), spec={"timeoutSeconds": 300}))
    (pod,) = cluster.pods(made["metadata"]["name"])
    path = f"{PODS}/{pod['metadata']['name']}"
    cluster.must("DELETE", path)
    cluster.until(lambda: cluster.request("GET", path)[0] == 404)


def test_websockets_are_closed_in_order_when_their_service_goes(cluster: Cluster) -> None:
    made = cluster.ready_service(service(name("wsclose"), annotations=ONE))
    with open_websocket(made["status"]["url"]) as talk:
        cluster.must("DELETE", f"{SERVING}/services/{made['metadata']['name']}")
        assert talk.recv(4) == b"\x88\x02\x03\xe8"


def test_init_containers_run_before_and_sidecars_beside(cluster: Cluster) -> None:
    shared = {"name": "shared", "mountPath": "/shared"}
    made = cluster.ready_service(
        {
            **service(name("multi")),
            "spec": {
                "template": {
                    "spec": {
                        "initContainers": [
                            {
                                "name": "first", "image": "knlocal-test/conformance:1",
                                "command": ["sh", "-c", "echo prepared > /shared/note"],
                                "volumeMounts": [shared],
                            }
                        ],
                        "containers": [
                            {
                                "name": "front", "image": "knlocal-test/conformance:1",
                                "ports": [{"containerPort": 8881}],
                                "env": [{"name": "FORWARD_PORT", "value": "8882"}],
                                "volumeMounts": [shared],
                            },
                            {
                                "name": "back", "image": "knlocal-test/conformance:1",
                                "env": [{"name": "PORT", "value": "8882"},
                                        {"name": "TARGET", "value": "from the side"}],
                            },
                        ],
                        "volumes": [{"name": "shared", "emptyDir": {}}],
                    }
                }
            },
        }
    )  # fmt: skip
    url = made["status"]["url"]
    # The front is ready as soon as it listens itself: nobody probes the one beside it.
    cluster.until(lambda: cluster.call(url).text == "Hello from the side!\n")
    assert cluster.call(url, "/cat?path=/shared/note").text == "prepared\n"
    revision = cluster.get(f"{SERVING}/revisions/{made['status']['latestReadyRevisionName']}")
    assert [s["name"] for s in revision["status"]["containerStatuses"]] == ["front", "back"]
    assert [s["name"] for s in revision["status"]["initContainerStatuses"]] == ["first"]
