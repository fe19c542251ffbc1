"""Sources and sinks whose programs really run: as local processes, and on Docker."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from knlocal.resources.base import status_of
from knlocal.testing.project import LocalProject

IMAGE = "knlocal-test/python:3"

#: Sends one event to $K_SINK again and again until it was taken, with $K_CE_OVERRIDES as Knative's
#: own programs read it.
SENDER = """
import json, os, time, urllib.request
overrides = json.loads(os.environ.get("K_CE_OVERRIDES") or "{}").get("extensions", {})
def send():
    headers = {"ce-specversion": "1.0", "ce-id": os.environ.get("EVENT_ID", "1"),
               "ce-type": "sender.was.here", "ce-source": "/sender",
               "Content-Type": "application/json"}
    headers |= {f"ce-{name}": value for name, value in overrides.items()}
    body = json.dumps({"sink": os.environ["K_SINK"]}).encode()
    urllib.request.urlopen(urllib.request.Request(os.environ["K_SINK"], body, headers), timeout=5)
while True:
    try:
        send()
    except Exception as error:
        print("not yet:", error, flush=True)
        time.sleep(0.2)
    else:
        break
"""
#: The same, and then stays, as a source does.
STAYING = SENDER + "\nwhile True: time.sleep(60)\n"

#: A JobSink's program: reads the event it was started for, and sends on what it found.
READER = """
import json, os, pathlib, urllib.request
path = pathlib.Path(os.environ["K_EVENT_PATH"]) / "event"
event = json.loads(path.read_text())
assert os.environ["K_EXECUTION_MODE"] == "batch"
headers = {"ce-specversion": "1.0", "ce-id": "job", "ce-type": "job.found", "ce-source": "/job",
           "Content-Type": "application/json"}
body = json.dumps({"found": event}).encode()
urllib.request.urlopen(urllib.request.Request(os.environ["TO"], body, headers), timeout=30)
"""


@pytest.fixture(
    params=[
        pytest.param("process", marks=pytest.mark.knlocal(folder=".", runtime="process")),
        pytest.param(
            "docker", marks=[pytest.mark.docker, pytest.mark.knlocal(folder=".", runtime="docker")]
        ),
    ]
)
def engine(request: pytest.FixtureRequest) -> str:
    """Which runtime."""
    if request.param == "docker":
        from tests.images.build import ensure

        ensure("python")
    return str(request.param)


def template(script: str, policy: str = "Always", **env: str) -> dict[str, Any]:
    run = {"command": [sys.executable, "-c", script]}
    return {
        "metadata": {
            "labels": {"app": "sender"}, "annotations": {"knlocal.dev/run": json.dumps(run)},
        },
        "spec": {
            "restartPolicy": policy,
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "main",
                    "image": IMAGE,
                    "command": ["/usr/bin/python3", "-u", "-c", script],
                    "env": [{"name": name, "value": value} for name, value in env.items()],
                }
            ],
        },
    }  # fmt: skip


def obj(api_version: str, kind: str, name: str, spec: Any, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": api_version, "kind": kind, "metadata": {"name": name, **metadata},
        "spec": spec,
    }  # fmt: skip


def broker_to(sink_url: str) -> list[dict[str, Any]]:
    """A broker, and a trigger that brings its events to the test's sink."""
    return [
        obj("eventing.knative.dev/v1", "Broker", "default", {}),
        obj("eventing.knative.dev/v1", "Trigger", "all", {
            "broker": "default", "subscriber": {"uri": sink_url},
        }),
    ]  # fmt: skip


BROKER = {"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "default"}}


def test_a_container_source_sends_to_a_broker(
    engine: str, knlocal: LocalProject, sink: Any
) -> None:
    knlocal.apply(*broker_to(sink.url))
    knlocal.apply(
        obj("sources.knative.dev/v1", "ContainerSource", "src", {
            "sink": BROKER,
            "ceOverrides": {"extensions": {"team": "blue"}},
            "template": template(STAYING),
        })
    )  # fmt: skip
    event = sink.expect(type="sender.was.here", within="30s")
    assert event.attributes["team"] == "blue"
    # Local processes know no cluster-local names: theirs goes into the path.
    assert ("/-/" in json.loads(event.data)["sink"]) == (engine == "process")
    ready = status_of(knlocal.get("containersource", "src"))
    assert ready["sinkUri"].startswith("http://broker-ingress.knative-eventing.svc.cluster.local")


def test_a_bound_deployment_and_a_bound_job_send_to_their_sinks(
    engine: str, knlocal: LocalProject, sink: Any
) -> None:
    knlocal.apply(*broker_to(sink.url))
    knlocal.apply(
        obj("apps/v1", "Deployment", "app", {
            "selector": {"matchLabels": {"app": "sender"}},
            "template": template(STAYING, EVENT_ID="from-deployment"),
        }),
    )  # fmt: skip
    knlocal.apply(
        obj("sources.knative.dev/v1", "SinkBinding", "app", {
            "sink": BROKER,
            "subject": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "app"},
        }),
        obj("sources.knative.dev/v1", "SinkBinding", "jobs", {
            "sink": BROKER,
            "subject": {
                "apiVersion": "batch/v1", "kind": "Job",
                "selector": {"matchLabels": {"sends": "yes"}},
            },
        }),
    )  # fmt: skip
    knlocal.apply(
        obj("batch/v1", "Job", "work", {
            "template": template(SENDER, "Never", EVENT_ID="from-job"),
        }, labels={"sends": "yes"}),
    )  # fmt: skip
    sink.expect(id="from-deployment", within="30s")
    sink.expect(id="from-job", within="30s")


def test_a_job_sink_starts_a_program_that_reads_the_event(
    engine: str, knlocal: LocalProject, sink: Any
) -> None:
    knlocal.apply(*broker_to(sink.url))
    knlocal.apply(
        obj("sinks.knative.dev/v1alpha1", "JobSink", "js", {
            "job": {
                "spec": {
                    "completions": 1, "backoffLimit": 0,
                    "template": template(READER, "Never", TO=_broker_url(knlocal)),
                }
            },
        })
    )  # fmt: skip
    url = status_of(knlocal.get("jobsink", "js"))["annotations"]["knlocal.dev/host-url"]
    assert f":{knlocal.port}/" in url
    headers = {
        "ce-specversion": "1.0", "ce-id": "42", "ce-type": "order", "ce-source": "/shop",
        "Content-Type": "application/json",
    }  # fmt: skip
    answer = knlocal.run(
        knlocal.daemon.client.request("POST", url, headers.items(), b'{"total": 3}')
    )
    assert answer.status == 202
    found = sink.expect(type="job.found", within="30s")
    event = json.loads(found.data)["found"]
    assert (event["id"], event["data"]) == ("42", {"total": 3})
    where = url.partition(f"/{knlocal.namespace}/")[0] + answer.headers["Location"]
    status = knlocal.run(_when_done(knlocal, where))
    assert status == (200, "Complete")


def _broker_url(knlocal: LocalProject) -> str:
    return str(status_of(knlocal.get("broker", "default"))["address"]["url"])


async def _when_done(knlocal: LocalProject, url: str) -> tuple[int, str]:
    """What the Location says once it is no longer 202."""

    async def ask() -> Any:
        return await knlocal.daemon.client.request("GET", url)

    with knlocal.daemon.store.watch() as changes:
        while (answer := await ask()).status == 202:
            await anext(changes)
    return answer.status, answer.headers["Reason"]


@pytest.mark.knlocal(folder=".", runtime="process")
def test_a_ping_source_keeps_the_tests_time(knlocal: LocalProject, sink: Any) -> None:
    knlocal.apply(
        obj("sources.knative.dev/v1", "PingSource", "tick", {
            "schedule": "0 * * * *", "data": "hourly", "sink": {"uri": sink.url},
        })
    )  # fmt: skip
    knlocal.clock.advance("3h")
    assert [event.data for event in sink.events] == [b"hourly"] * 3
