"""What a person reads about changes: each once, in words, and nothing about what is nobody's."""

from typing import Any

import pytest

from knlocal.cli.narrator import Line, Narrator, service_rows
from knlocal.resources.base import Obj
from knlocal.store.watch import EventType, WatchEvent


def condition(status: str, message: str = "") -> dict[str, str]:
    return {"type": "Ready", "status": status, **({"message": message} if message else {})}


def service(ready: str, message: str = "", serving: str = "a-1", latest: str = "a-1") -> Obj:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "a", "namespace": "n", "generation": 1},
        "status": {
            "observedGeneration": 1,
            "url": "http://a",
            "conditions": [condition(ready, message)],
            "latestCreatedRevisionName": latest,
            "latestReadyRevisionName": serving,
            "traffic": [{"revisionName": serving, "percent": 100}] if serving else [],
        },
    }


def owned(api_version: str, kind: str, name: str, status: Obj) -> Obj:
    labels = {"serving.knative.dev/service": "a"}
    metadata = {"name": name, "namespace": "n", "labels": labels, "uid": name}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "status": status}


def scaled(pods: int, revision: str = "a-1") -> Obj:
    group = "autoscaling.internal.knative.dev/v1alpha1"
    return owned(group, "PodAutoscaler", revision, {"actualScale": pods})


def crashed(restarts: int, reason: str = "Error") -> Obj:
    status = {
        "name": "user-container",
        "restartCount": restarts,
        "lastState": {"terminated": {"exitCode": 3, "reason": reason}},
    }
    return owned("v1", "Pod", "p", {"containerStatuses": [status]})


def told(narrator: Narrator, *objects: Obj, event: EventType = "MODIFIED") -> list[str]:
    lines: list[Line] = []
    for obj in objects:
        lines += narrator.feed(WatchEvent(event, obj, None, 1))
    return [f"{line.about}: {line.text}" for line in lines]


def test_a_service_is_said_to_be_ready_once() -> None:
    narrator = Narrator()
    assert told(narrator, service("True"), service("True")) == ["a: ready at http://a"]


def test_a_broken_revision_is_told_with_its_reason_and_who_serves_on() -> None:
    narrator = Narrator()
    told(narrator, service("True"))
    said = told(narrator, service("False", "exit code 1", "a-1", "a-2"))
    assert said == ["a: not ready: exit code 1 (a-1 keeps serving)"]


def test_a_takeover_is_told() -> None:
    narrator = Narrator()
    told(narrator, service("True"))
    assert told(narrator, service("True", serving="a-2", latest="a-2")) == [
        "a: a-2 takes over from a-1"
    ]


def test_scaling_of_the_serving_revision_is_told_and_of_others_not() -> None:
    narrator = Narrator()
    told(narrator, service("True"))
    changes = [scaled(1), scaled(0), scaled(1), scaled(3), scaled(0, "a-0"), scaled(3)]
    assert told(narrator, *changes) == [
        "a: idle: scaled to zero",
        "a: awake: 1 pod",
        "a: 3 pods (was 1)",
    ]


def test_a_crash_is_told_under_its_services_name() -> None:
    narrator = Narrator()
    assert told(narrator, crashed(0), crashed(1), crashed(1), crashed(2, "OOMKilled")) == [
        "a: user-container ended with exit code 3; restart 1",
        "a: user-container ran out of memory with exit code 3; restart 2",
    ]


def test_other_kinds_are_told_when_people_made_them() -> None:
    def trigger(status: str, **metadata: Any) -> Obj:
        return {
            "apiVersion": "eventing.knative.dev/v1",
            "kind": "Trigger",
            "metadata": {"name": "t", "namespace": "n", **metadata},
            "status": {"conditions": [condition(status, "no broker")]},
        }

    narrator = Narrator()
    assert told(narrator, trigger("False"), trigger("True")) == [
        "trigger t: not ready: no broker",
        "trigger t: ready",
    ]
    assert told(Narrator(), trigger("True", ownerReferences=[{"uid": "x"}])) == []


def test_the_table_says_why_something_is_not_ready() -> None:
    rows = service_rows([service("False", "no such image"), service("Unknown")], "n")
    assert [row[2] for row in rows[1:]] == ["no: no such image", "starting"]


def test_the_cause_is_told_and_not_only_that_no_revision_is_ready() -> None:
    obj = service("False", 'Configuration "a" does not have any ready Revision.', serving="")
    ready = obj["status"]["conditions"][0] | {"reason": "RevisionMissing"}
    cause = {"type": "ConfigurationsReady", "status": "False", "message": "No such image. "}
    obj["status"]["conditions"] = [cause, ready]
    assert told(Narrator(), obj) == ["a: not ready: No such image"]
    assert service_rows([obj], "n")[1][2] == "no: No such image"


def test_a_long_reason_is_cut_in_the_table() -> None:
    [_, row] = service_rows([service("False", "x" * 500)], "n")
    assert row[2].endswith("x…")
    assert len(row[2]) < 80


@pytest.mark.parametrize(
    "said",
    [
        "Traceback (most recent call last):\n  File \"/app/main.py\", line 1\nKeyError: 'x'",
        "node:internal/modules/cjs/loader:1207\n  throw err;\n\nKeyError: 'x'\n    at f (a.js)",
    ],
)
def test_the_table_shows_the_line_that_names_the_error(said: str) -> None:
    why = f'Revision "a-1" failed with message: Container failed with: {said}'
    assert service_rows([service("False", why)], "n")[1][2] == "no: KeyError: 'x'"


def test_a_service_that_never_listened_is_told_with_its_last_failed_probe() -> None:
    narrator = Narrator()
    refused = "Readiness probe failed: dial tcp 10.0.0.2:8080: connect: connection refused"
    event = owned("v1", "Event", "e", {})
    event |= {"reason": "Unhealthy", "message": refused}
    event["involvedObject"] = {"kind": "Pod", "name": "a-1-deployment-6d5f-x8z2k"}
    late = 'Revision "a-1" failed with message: ReplicaSet "r" has timed out progressing.'
    assert told(narrator, event, service("False", late, serving="")) == [
        f"a: not ready: {late[:-1]}; {refused}"
    ]
    [_, row] = service_rows([service("False", late, serving="")], "n")
    assert row[2] == 'no: ReplicaSet "r" has timed out progressing'


def test_a_program_that_does_not_listen_is_told_once_while_it_is_waited_for() -> None:
    narrator = Narrator()
    refused = "Readiness probe failed: dial tcp 10.0.0.2:8080: connect: connection refused"
    event = owned("v1", "Event", "e", {}) | {"reason": "Unhealthy", "message": refused}
    event["involvedObject"] = {"kind": "Pod", "name": "a-1-deployment-6d5f-x8z2k"}
    revision = owned("serving.knative.dev/v1", "Revision", "a-1", {})
    told(narrator, revision)
    assert told(narrator, event) == []
    assert told(narrator, event | {"count": 2}, revision, event | {"count": 3})[:1] == [
        f"a: a-1 is still starting: {refused}; does it listen on $PORT?"
    ]


def test_the_probes_of_a_pod_that_is_ready_are_not_told() -> None:
    narrator = Narrator()
    event = owned("v1", "Event", "e", {}) | {"reason": "Unhealthy", "message": "m", "count": 9}
    event["involvedObject"] = {"kind": "Pod", "name": "a-1-deployment-6d5f-x8z2k"}
    ready = {"conditions": [condition("True")]}
    assert told(narrator, owned("serving.knative.dev/v1", "Revision", "a-1", ready), event) == []


def test_a_service_that_tries_again_after_a_failure_is_not_said_to_fail_meanwhile() -> None:
    narrator = Narrator()
    told(narrator, service("False", "it failed", serving=""))
    trying = service("False", 'Configuration "a" does not have any ready Revision', serving="")
    trying["status"]["conditions"][0]["reason"] = "RevisionMissing"
    trying["status"]["conditions"].append({"type": "ConfigurationsReady", "status": "Unknown"})
    assert told(narrator, trying) == []
    assert service_rows([trying], "n")[1][2] == "starting"
    assert told(narrator, service("True"))[0] == "a: ready at http://a"
