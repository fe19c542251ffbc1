"""JobSink, IntegrationSink and EventTransform (behaviours E71–E75)."""

from __future__ import annotations

import base64
import logging
from typing import Any

import orjson
import pytest

from knlocal.resources.base import Obj
from knlocal.resources.status import BadRequest
from knlocal.testing.sink import Answer, Sink
from tests.sources.house import House, env_of, to

JOB = {
    "spec": {
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "i"}],
                "initContainers": [{"name": "init", "image": "i"}],
            }
        }
    }
}
INSIDE = "http://job-sink.knative-eventing.svc.cluster.local/default/js"
BASE = INSIDE.removesuffix("/default/js")


@pytest.fixture
async def job_sink(house: House) -> House:
    await house.apply("JobSink", "js", {"job": JOB})
    return house


async def finish(house: House, name: str, how: str) -> None:
    job = house.get("Job", name)
    status = {"conditions": [{"type": how, "status": "True"}]}
    house.store.update({**job, "status": status}, subresource="status")
    await house.settled()


async def test_a_job_sink_has_an_address_and_a_selector(job_sink: House) -> None:
    status = job_sink.status("JobSink", "js")
    assert status["address"] == {"name": "http", "url": INSIDE}
    assert status["job"]["selector"] == "sinks.knative.dev/job-sink-name=js"
    outside = "http://job-sink.knative-eventing.localhost:8080/default/js"
    assert status["annotations"]["knlocal.dev/host-url"] == outside
    assert job_sink.conditions("JobSink", "js") == {
        "Ready": "True", "Addressable": "True", "EventPoliciesReady": "True",
    }  # fmt: skip


async def test_each_event_starts_a_job_that_finds_it_in_a_file(job_sink: House) -> None:
    house = job_sink
    answer = await house.post(
        INSIDE, b'{"a": 1}', ce_source="/s/1", content_type="application/json"
    )
    assert answer.status == 202
    assert answer.headers["Location"] == "/namespaces/default/name/js/sources/%2Fs%2F1/ids/1"
    [job] = house.list("Job")
    labels = job["metadata"]["labels"]
    assert job["metadata"]["name"] == f"js-{labels['sinks.knative.dev/job-sink-id']}"
    assert labels["sinks.knative.dev/job-sink-name"] == "js"
    owner = house.get("JobSink", "js")["metadata"]["uid"]
    assert job["metadata"]["ownerReferences"][0]["uid"] == owner
    for kind in ("containers", "initContainers"):
        env = env_of(job, 0, kind)
        assert env == {"K_EXECUTION_MODE": "batch", "K_EVENT_PATH": "/etc/jobsink-event"}
    pod = job["spec"]["template"]["spec"]
    assert pod["volumes"][0]["secret"]["secretName"] == job["metadata"]["name"]
    mount = pod["containers"][0]["volumeMounts"][0]
    assert mount == {"name": "jobsink-event", "readOnly": True, "mountPath": "/etc/jobsink-event"}
    secret = house.get("Secret", job["metadata"]["name"])
    assert secret["immutable"] is True
    assert secret["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    event = orjson.loads(base64.b64decode(secret["data"]["event"]))
    assert event == {
        "specversion": "1.0", "id": "1", "type": "t", "source": "/s/1",
        "datacontenttype": "application/json", "data": {"a": 1},
    }  # fmt: skip


async def test_the_file_tells_the_trace_that_the_event_came_with(job_sink: House) -> None:
    house = job_sink
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    own = parent.replace("b7ad", "beef")
    await house.post(INSIDE, traceparent=parent, tracestate="a=b")
    await house.post(INSIDE, ce_id="2", traceparent=parent, ce_traceparent=own)
    files = [orjson.loads(base64.b64decode(s["data"]["event"])) for s in house.list("Secret")]
    traces = {file["id"]: (file["traceparent"], file.get("tracestate")) for file in files}
    assert traces == {"1": (parent, "a=b"), "2": (own, None)}


async def test_the_same_event_again_starts_nothing(job_sink: House) -> None:
    house = job_sink
    first = await house.post(INSIDE)
    again = await house.post(INSIDE)
    assert (again.status, again.headers["Location"]) == (202, first.headers["Location"])
    assert len(house.list("Job")) == 1
    for changed in ({"ce_id": "2"}, {"ce_source": "/other"}):
        assert (await house.post(INSIDE, **changed)).status == 202
    assert len(house.list("Job")) == 3


async def test_the_location_tells_how_the_job_went(job_sink: House) -> None:
    house = job_sink
    answer = await house.post(INSIDE, ce_source="https://example.test/a?c=1#2", ce_id="x/%C3%A9")
    [job] = house.list("Job")
    url = BASE + answer.headers["Location"]
    running = await house.post(url, method="GET")
    assert (running.status, running.headers["Location"]) == (202, answer.headers["Location"])
    await finish(house, job["metadata"]["name"], "Complete")
    done = await house.post(url, method="GET")
    assert (done.status, done.headers["Reason"]) == (200, "Complete")
    await finish(house, job["metadata"]["name"], "Failed")
    failed = await house.post(url, method="GET")
    assert (failed.status, failed.headers["Reason"]) == (400, "Failed")
    unknown = await house.post(url + "2", method="GET")
    assert unknown.status == 500


@pytest.mark.parametrize(
    ("url", "changes", "status"),
    [
        (BASE + "/default/none", {}, 400),
        (BASE + "/default", {}, 400),
        (BASE + "/", {}, 400),
        (INSIDE + "/more", {}, 400),
        (INSIDE, {"ce_type": ""}, 400),
        (INSIDE, {"ce_specversion": "9"}, 400),
        (INSIDE, {"method": "PUT"}, 400),
        (INSIDE, {"method": "GET"}, 400),
        (BASE + "/namespaces/default/name/js", {"method": "GET"}, 400),
    ],
)
async def test_what_is_no_event_for_a_job_sink_is_refused(
    job_sink: House, url: str, changes: dict[str, Any], status: int
) -> None:
    answer = await job_sink.post(url, **changes)
    assert answer.status == status
    assert answer.headers["Reason"]
    assert not job_sink.list("Job")


async def test_a_job_that_cannot_be_made_is_the_senders_error(job_sink: House) -> None:
    house = job_sink

    def refuse(request: Any) -> None:
        if request.kind.kind == "Job":
            raise BadRequest("no jobs today")

    house.store.admission.append(refuse)
    answer = await house.post(INSIDE)
    assert (answer.status, answer.headers["Reason"]) == (500, "no jobs today")
    assert not house.list("Secret")
    [entry] = house.journal.recent()
    assert "no jobs today" in entry["refused"]


async def test_an_event_that_became_a_job_has_a_trail(job_sink: House) -> None:
    await job_sink.post(INSIDE)
    [entry] = job_sink.journal.explain("1")
    [job] = job_sink.list("Job")
    assert entry["door"]["label"] == "JobSink default/js"
    [receiver] = entry["subscribers"]
    assert receiver["name"] == f"job default/{job['metadata']['name']}"
    assert receiver["outcome"] == "delivered"


async def test_jobs_go_with_their_sink_and_events_with_their_job(job_sink: House) -> None:
    house = job_sink
    await house.post(INSIDE)
    await house.delete("JobSink", "js")
    assert not house.list("Job")
    assert not house.list("Secret")


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (None, "expected exactly one, got neither: spec.job"),
        ({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}}},
         "spec.template.spec.restartPolicy: Required value"),
        ({"spec": {"templates": {}, **JOB["spec"]}}, 'unknown field "spec.templates"'),
        ({"spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "A_B", "image": "i"}]}}}},
         "spec.template.spec.containers[0].name: Invalid value"),
    ],
)  # fmt: skip
async def test_a_job_that_could_not_be_created_is_refused_at_once(
    house: House, job: Any, said: str
) -> None:
    with pytest.raises(BadRequest) as error:
        await house.apply("JobSink", "js", {"job": job} if job else {})
    assert "validation.webhook.eventing.knative.dev" in str(error.value)
    assert said in str(error.value)
    if job:
        assert str(error.value).endswith(": spec.job")


async def test_a_job_sink_keeps_an_execution_mode_that_was_given(house: House) -> None:
    job = orjson.loads(orjson.dumps(JOB))
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "K_EXECUTION_MODE", "value": "mine"}]
    made = await house.apply("JobSink", "js", {"job": job})
    pod = made["spec"]["job"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["env"] == container["env"]
    assert pod["initContainers"][0]["env"][0]["value"] == "batch"


# -- IntegrationSink ------------------------------------------------------------------------------


async def test_the_log_sink_logs_what_it_gets(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    await house.apply("IntegrationSink", "log", {"log": {"loggerName": "mine"}})
    url = house.status("IntegrationSink", "log")["address"]["url"]
    assert url == "http://log-deployment.default.svc.cluster.local"
    assert house.conditions("IntegrationSink", "log") == dict.fromkeys(
        ("Ready", "Addressable", "DeploymentReady", "EventPoliciesReady", "TrustBundlePropagated"),
        "True",
    )
    with caplog.at_level(logging.INFO):
        answer = await house.post(url, b"what happened", content_type="text/plain")
    assert answer.status == 204
    assert "what happened" in caplog.text
    assert house.journal.explain("1")[0]["door"]["label"] == "IntegrationSink default/log"
    assert (await house.post(url, ce_type="")).status == 400
    assert (await house.post(url, method="GET")).status == 405
    assert house.get("Deployment", "log-deployment")["status"]["readyReplicas"] == 1
    ports = house.get("Service", "log-deployment")["spec"]["ports"]
    assert [(port["name"], port["port"]) for port in ports] == [("http", 80), ("https", 443)]
    await house.delete("IntegrationSink", "log")
    assert house.routes.find("log-deployment.default.svc.cluster.local", "internal") is None


async def test_a_sink_that_needs_aws_says_what_is_missing(house: House) -> None:
    aws = {
        "s3": {"arn": "arn:aws:s3:::b", "region": "eu-west-1"},
        "auth": {"secret": {"ref": {"name": "keys"}}},
    }
    await house.apply("IntegrationSink", "bucket", {"aws": aws})
    state, reason, message = house.condition("IntegrationSink", "bucket")
    assert (state, reason) == ("False", "NotSimulated")
    assert "aws-s3-sink" in message
    assert "address" not in house.status("IntegrationSink", "bucket")


# -- EventTransform -------------------------------------------------------------------------------

EXPRESSION = """{
  "specversion": "1.0", "id": id, "type": "changed." & type, "source": source,
  "team": team, "data": {"total": $sum(data.items.price)}
}"""
ORDER = b'{"items": [{"price": 1}, {"price": 2}]}'


async def transform(house: House, **spec: Any) -> str:
    spec = {"jsonata": {"expression": EXPRESSION}, **spec}
    await house.apply("EventTransform", "et", spec)
    return str((house.status("EventTransform", "et").get("address") or {}).get("url"))


async def test_a_transformation_shows_its_parts(house: House) -> None:
    sink = {"uri": "http://x.test"}
    await transform(house, sink=sink, reply={"jsonata": {"expression": "$"}})
    service = house.get("Service", "et-jsonata")
    assert service["spec"]["ports"][0]["port"] == 80
    assert service["metadata"]["labels"]["eventing.knative.dev/event-transform-name"] == "et"
    files = {"jsonata-expression": EXPRESSION, "jsonata-expression-reply": "$"}
    assert house.get("ConfigMap", "et-jsonata")["data"] == files
    await transform(house, sink=sink)
    assert house.get("ConfigMap", "et-jsonata")["data"] == {"jsonata-expression": EXPRESSION}
    await house.delete("EventTransform", "et")
    for kind in ("Service", "ConfigMap", "Deployment"):
        assert not house.list(kind)


async def test_without_a_sink_the_changed_event_is_the_answer(house: House) -> None:
    url = await transform(house)
    assert url == "http://et-jsonata.default.svc.cluster.local"
    assert house.conditions("EventTransform", "et") == dict.fromkeys(
        ("Ready", "TransformationReady", "JsonataDeploymentReady", "JsonataSinkBindingReady",
         "Addressable", "EventPoliciesReady"), "True",
    )  # fmt: skip
    answer = await house.post(url, ORDER, ce_team="blue", content_type="application/json")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/cloudevents+json"
    assert orjson.loads(answer.body) == {
        "specversion": "1.0", "id": "1", "type": "changed.t", "source": "/s",
        "team": "blue", "data": {"total": 3},
    }  # fmt: skip


async def test_structured_events_are_changed_alike(house: House) -> None:
    url = await transform(house)
    event = {
        "specversion": "1.0", "id": "7", "type": "t", "source": "/s", "team": "red",
        "data": orjson.loads(ORDER),
    }  # fmt: skip
    answer = await house.post(
        url, orjson.dumps(event), content_type="application/cloudevents+json",
        ce_specversion="", ce_id="", ce_type="", ce_source="",
    )  # fmt: skip
    assert orjson.loads(answer.body)["data"] == {"total": 3}


async def test_with_a_sink_the_changed_event_goes_there_and_its_answer_comes_back(
    house: House, receiver: Sink
) -> None:
    receiver.answers(Answer(200, {"Content-Type": "application/json"}, b'{"thanks": true}'))
    url = await transform(house, sink={"uri": receiver.url})
    assert house.status("EventTransform", "et")["sinkUri"] == receiver.url
    answer = await house.post(url, ORDER, content_type="application/json", traceparent="00-a-b-01")
    assert (answer.status, answer.body) == (200, b'{"thanks": true}')
    assert answer.headers["Content-Type"] == "application/json"
    [event] = receiver.events
    assert event.type == "changed.t"
    assert receiver.requests[0].headers["traceparent"] == "00-a-b-01"


async def test_the_answer_can_be_changed_or_dropped(house: House, receiver: Sink) -> None:
    receiver.answers(Answer(201, {"Content-Type": "application/json"}, b'{"a": 1}'))
    sink = {"uri": receiver.url}
    reply = {"jsonata": {"expression": '{"b": a + 1}'}}
    url = await transform(house, sink=sink, reply=reply)
    answer = await house.post(url, ORDER, content_type="application/json")
    assert (answer.status, answer.body) == (201, b'{"b":2}')
    await transform(house, sink=sink, reply={"discard": True})
    answer = await house.post(url, ORDER, content_type="application/json")
    assert (answer.status, answer.body) == (201, b"")


async def test_what_is_no_event_is_changed_as_json_or_text(house: House) -> None:
    url = await transform(house, jsonata={"expression": '{"was": $, "contenttype": "x/y"}'})
    none = {"ce_specversion": "", "ce_id": "", "ce_type": "", "ce_source": ""}
    answer = await house.post(url, b'{"a": 1}', **none)
    assert orjson.loads(answer.body)["was"] == {"a": 1}
    assert answer.headers["Content-Type"] == "x/y"
    answer = await house.post(url, b"plain", **none)
    assert orjson.loads(answer.body)["was"] == "plain"


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("data.nothing", "selects nothing"),
        ("type + 1", "left side of the + operator must evaluate to a number"),
        ("($f := function($x) { 1 + $f($x) }; $f(1))", "Stack overflow"),
        ("function($x) { $x }", "no JSON"),
    ],
)
async def test_an_expression_that_fails_says_why(house: House, expression: str, said: str) -> None:
    url = await transform(house, jsonata={"expression": expression})
    answer = await house.post(url, ORDER, content_type="application/json")
    assert answer.status == 500
    assert said in answer.headers["Reason"]


async def test_an_expression_that_does_not_parse_is_told_with_its_place(house: House) -> None:
    url = await transform(house, jsonata={"expression": '{"a": '})
    assert url == "None"
    state, reason, message = house.condition("EventTransform", "et", "TransformationReady")
    assert (state, reason) == ("False", "InvalidExpression")
    assert message.startswith("spec.jsonata.expression: ")
    assert "at character" in message
    assert house.condition("EventTransform", "et", "Addressable")[0] == "False"
    assert await transform(house) != "None"


async def test_a_transformation_waits_for_its_sink(house: House) -> None:
    assert await transform(house, sink=to("later")) == "None"
    state, reason, _ = house.condition("EventTransform", "et", "JsonataSinkBindingReady")
    assert (state, reason) == ("False", "NotFound")
    await house.addressable("later", "http://127.0.0.1:1")
    url = house.status("EventTransform", "et")["address"]["url"]
    answer = await house.post(url, ORDER, content_type="application/json")
    assert answer.status == 500
    assert "127.0.0.1" in answer.headers["Reason"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"jsonata": None}, "expected exactly one, got neither: spec.jsonata"),
        ({"reply": {"discard": True}}, "reply is set without spec.sink: spec.reply"),
        ({"sink": {"uri": "http://x.test"}, "reply": {"discard": True, "jsonata": {
            "expression": "$"}}}, "expected exactly one, got both"),
    ],
)  # fmt: skip
async def test_nonsense_is_refused_with_the_place(house: House, spec: Obj, said: str) -> None:
    with pytest.raises(BadRequest) as error:
        await transform(house, **spec)
    assert said in str(error.value)
