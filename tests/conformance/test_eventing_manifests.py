"""Flows, sources, sinks and transformations from manifests, by kubectl, as Knative's eventing
test/rekt installs them and its documentation shows them."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

import pytest

from tests.conformance.conftest import (
    IMAGE,
    NAMESPACE,
    Cluster,
    Inbox,
    condition,
    name,
    needs_kubectl,
)
from tests.conformance.test_eventing import EVENT, Inboxes, post

pytestmark = [pytest.mark.docker, needs_kubectl]

#: Sends one event to $K_SINK, as Knative's heartbeats image does.
HEARTBEAT = """
import json, os, time, urllib.request
extra = json.loads(os.environ.get("K_CE_OVERRIDES") or "{}").get("extensions", {})
headers = {"ce-specversion": "1.0", "ce-type": "heartbeat", "ce-source": "/heart", "ce-id": "1",
           "Content-Type": "application/json", **{f"ce-{k}": v for k, v in extra.items()}}
request = urllib.request.Request(os.environ["K_SINK"], b'{"id": 1}', headers, method="POST")
print("answer", urllib.request.urlopen(request, timeout=30).status, flush=True)
time.sleep(float(os.environ.get("LINGER", "0")))
"""


def apply(cluster: Cluster, manifest: str) -> str:
    return cluster.kubectl("apply", "-f", "-", feed=manifest)


def wait(cluster: Cluster, *what: str) -> None:
    cluster.kubectl("wait", "--for=condition=Ready", "--timeout=50s", *what)


def address(cluster: Cluster, what: str) -> str:
    return cluster.kubectl("get", what, "-o", "jsonpath={.status.address.url}")


def reply(kind: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
    return 200, {**EVENT, "ce-type": kind, "Content-Type": "text/plain"}, body


def container(**more: Any) -> str:
    """A container that sends a heartbeat, as JSON, which is YAML."""
    return json.dumps(
        {"name": "heart", "image": IMAGE, "command": ["python3", "-c", HEARTBEAT], **more}
    )


def test_a_sequence_hands_each_reply_to_its_next_step(cluster: Cluster, inboxes: Inboxes) -> None:
    called, one, two, end = name("sequence"), inboxes(), inboxes(), inboxes()
    one.answers, two.answers = [reply("made.1", b"x-1")], [reply("made.2", b"x-1-2")]
    apply(cluster, f"""
apiVersion: flows.knative.dev/v1
kind: Sequence
metadata: {{name: {called}}}
spec:
  channelTemplate: {{apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel}}
  steps:
  - uri: {one.url}
  - uri: {two.url}
    delivery: {{retry: 1}}
  reply: {{uri: {end.url}}}
""")  # fmt: skip
    wait(cluster, f"sequence/{called}")
    steps = [f"{called}-kn-sequence-{n}" for n in range(2)]
    wait(cluster, *(f"inmemorychannel/{step}" for step in steps))
    wait(cluster, *(f"subscription/{step}" for step in steps))
    assert post(cluster, address(cluster, f"sequence/{called}"), EVENT, b"x").status == 202
    cluster.until(lambda: end.got)
    assert (one.types(), two.types(), end.types()) == (["made"], ["made.1"], ["made.2"])
    assert end.got[0][1] == b"x-1-2"
    cluster.kubectl("delete", "sequence", called)
    cluster.until(
        lambda: called not in cluster.kubectl("get", "imc,subscription,svc", "-o", "name")
    )


def test_a_parallel_takes_the_branches_whose_filter_answers(
    cluster: Cluster, inboxes: Inboxes
) -> None:
    called = name("parallel")
    yes, no, first, second, end = (inboxes() for _ in range(5))
    yes.answers, first.answers = [reply("chosen", b"y")], [reply("done", b"z")]
    apply(cluster, f"""
apiVersion: flows.knative.dev/v1
kind: Parallel
metadata: {{name: {called}}}
spec:
  branches:
  - filter: {{uri: {yes.url}}}
    subscriber: {{uri: {first.url}}}
  - filter: {{uri: {no.url}}}
    subscriber: {{uri: {second.url}}}
  reply: {{uri: {end.url}}}
""")  # fmt: skip
    wait(cluster, f"parallel/{called}")
    assert post(cluster, address(cluster, f"parallel/{called}"), EVENT, b"x").status == 202
    cluster.until(lambda: end.got and no.got)
    assert (yes.types(), no.types()) == (["made"], ["made"])
    assert (first.types(), end.types(), second.types()) == (["chosen"], ["done"], [])


def test_a_job_sink_runs_a_job_that_finds_the_event_in_a_file(cluster: Cluster) -> None:
    called = name("jobs")
    apply(cluster, f"""
apiVersion: sinks.knative.dev/v1alpha1
kind: JobSink
metadata: {{name: {called}}}
spec:
  job:
    spec:
      completions: 1
      parallelism: 1
      template:
        spec:
          restartPolicy: Never
          containers:
          - name: main
            image: {IMAGE}
            command: [cat]
            args: [/etc/jobsink-event/event]
""")  # fmt: skip
    wait(cluster, f"jobsink/{called}")
    answer = post(cluster, address(cluster, f"jobsink/{called}"), EVENT, b'{"a": 1}')
    assert answer.status == 202
    selector = f"sinks.knative.dev/job-sink-name={called}"
    cluster.kubectl("wait", "--for=condition=Complete", "--timeout=50s", "job", "-l", selector)
    job = cluster.kubectl("get", "job", "-l", selector, "-o", "name").strip()
    assert json.loads(cluster.kubectl("logs", job)) == {
        "specversion": "1.0", "id": "1", "source": "/test", "type": "made",
        "datacontenttype": "application/json", "data": {"a": 1},
    }  # fmt: skip
    cluster.kubectl("delete", "job", "-l", selector)
    cluster.until(lambda: not cluster.kubectl("get", "secret", "-l", selector, "-o", "name"))


def test_a_transformation_is_a_subscriber_that_replies(cluster: Cluster, inboxes: Inboxes) -> None:
    called, after = name("changed"), inboxes()
    apply(cluster, f"""
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {{name: {called}}}
---
apiVersion: eventing.knative.dev/v1alpha1
kind: EventTransform
metadata: {{name: {called}}}
spec:
  jsonata:
    expression: |
      {{
        "specversion": "1.0", "id": id, "type": "transformed", "source": source,
        "reason": data.reason, "data": $
      }}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {{name: {called}}}
spec:
  broker: {called}
  filters: [{{exact: {{type: made}}}}]
  subscriber:
    ref: {{apiVersion: eventing.knative.dev/v1alpha1, kind: EventTransform, name: {called}}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {{name: {called}-after}}
spec:
  broker: {called}
  filters: [{{cesql: "type = 'transformed' AND reason LIKE 'be%'"}}]
  subscriber: {{uri: {after.url}}}
""")  # fmt: skip
    wait(cluster, f"broker/{called}", f"trigger/{called}", f"trigger/{called}-after")
    assert called in cluster.kubectl("get", "service", f"{called}-jsonata")
    body = b'{"reason": "because"}'
    assert post(cluster, address(cluster, f"broker/{called}"), EVENT, body).status == 202
    headers, got = _first(cluster, after)
    event = json.loads(got)
    assert headers["content-type"].startswith("application/cloudevents+json")
    assert (event["type"], event["reason"], event["data"]["type"]) == (
        "transformed", "because", "made",
    )  # fmt: skip


def test_a_request_reply_answers_with_what_a_transformation_replied(cluster: Cluster) -> None:
    called = name("ask")
    apply(cluster, f"""
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {{name: {called}}}
---
apiVersion: eventing.knative.dev/v1alpha1
kind: RequestReply
metadata: {{name: {called}}}
spec:
  brokerRef: {{apiVersion: eventing.knative.dev/v1, kind: Broker, name: {called}}}
  timeout: PT20S
---
apiVersion: eventing.knative.dev/v1alpha1
kind: EventTransform
metadata: {{name: {called}}}
spec:
  jsonata:
    expression: |
      {{"specversion": "1.0", "id": "re-" & id, "type": "answer", "source": "/t",
        "replyid": correlationid, "data": {{"seen": data}}}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {{name: {called}}}
spec:
  broker: {called}
  filters: [{{cesql: "EXISTS correlationid AND NOT EXISTS replyid"}}]
  subscriber:
    ref: {{apiVersion: eventing.knative.dev/v1alpha1, kind: EventTransform, name: {called}}}
""")  # fmt: skip
    wait(cluster, f"requestreply/{called}", f"trigger/{called}")
    event = {**EVENT, "Content-Type": "application/json"}
    answer = post(cluster, address(cluster, f"requestreply/{called}"), event, b'{"n": 1}')
    assert answer.status == 200, answer.text
    assert answer.json()["type"] == "answer"
    assert answer.json()["data"] == {"seen": {"n": 1}}
    keys = cluster.kubectl(
        "get", "secret", "request-reply-keys", "-n", "knative-eventing", "-o", "jsonpath={.data}"
    )
    assert f"{NAMESPACE}.{called}.key-0" in keys


def test_a_container_source_sends_what_it_has_to_its_sink(
    cluster: Cluster, inboxes: Inboxes
) -> None:
    called, inbox = name("source"), inboxes()
    sender = container(env=[{"name": "LINGER", "value": "600"}], args=[None])
    apply(cluster, f"""
apiVersion: messaging.knative.dev/v1
kind: Channel
metadata: {{name: {called}}}
---
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata: {{name: {called}}}
spec:
  channel: {{apiVersion: messaging.knative.dev/v1, kind: Channel, name: {called}}}
  subscriber: {{uri: {inbox.url}}}
---
apiVersion: sources.knative.dev/v1
kind: ContainerSource
metadata: {{name: {called}}}
spec:
  ceOverrides: {{extensions: {{wow: so extended}}}}
  sink: {{ref: {{apiVersion: messaging.knative.dev/v1, kind: Channel, name: {called}}}}}
  template: {{metadata: {{annotations: {{foo: "true"}}}}, spec: {{containers: [{sender}]}}}}
""")  # fmt: skip
    wait(cluster, f"subscription/{called}", f"containersource/{called}")
    headers, _ = _first(cluster, inbox)
    assert headers["ce-type"] == "heartbeat"
    assert urllib.parse.unquote(headers["ce-wow"]) == "so extended"


@pytest.mark.parametrize("first", ["subject", "binding"])
def test_a_bound_deployment_learns_its_sink(cluster: Cluster, inboxes: Inboxes, first: str) -> None:
    called, inbox = name("bound"), inboxes()
    sender = container(env=[{"name": "LINGER", "value": "600"}])
    apply(cluster, f"""
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {{name: {called}}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {{name: {called}}}
spec: {{broker: {called}, subscriber: {{uri: {inbox.url}}}}}
""")  # fmt: skip
    wait(cluster, f"trigger/{called}")
    subject = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {called}, labels: {{app: {called}}}}}
spec:
  selector: {{matchLabels: {{app: {called}}}}}
  template:
    metadata: {{labels: {{app: {called}}}}}
    spec: {{containers: [{sender}]}}
"""
    binding = f"""
apiVersion: sources.knative.dev/v1
kind: SinkBinding
metadata: {{name: {called}}}
spec:
  ceOverrides: {{extensions: {{sinkbinding: "{called}"}}}}
  subject: {{apiVersion: apps/v1, kind: Deployment, selector: {{matchLabels: {{app: {called}}}}}}}
  sink: {{ref: {{apiVersion: eventing.knative.dev/v1, kind: Broker, name: {called}}}}}
"""
    for manifest in (subject, binding) if first == "subject" else (binding, subject):
        apply(cluster, manifest)
    wait(cluster, f"sinkbinding/{called}")
    headers, _ = _first(cluster, inbox)
    assert headers["ce-sinkbinding"] == called


def test_a_bound_knative_service_learns_its_sink_in_a_new_revision(cluster: Cluster) -> None:
    called = name("bound")
    apply(cluster, f"""
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {{name: {called}}}
spec: {{template: {{spec: {{containers: [{{image: "{IMAGE}"}}]}}}}}}
---
apiVersion: sources.knative.dev/v1
kind: SinkBinding
metadata: {{name: {called}}}
spec:
  ceOverrides: {{extensions: {{team: blue}}}}
  subject: {{apiVersion: serving.knative.dev/v1, kind: Service, name: {called}}}
  sink: {{uri: "http://sink.example.com/here"}}
""")  # fmt: skip
    wait(cluster, f"sinkbinding/{called}", f"ksvc/{called}")
    path = f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}/services/{called}"

    def environment() -> Any:
        made = cluster.ready(path)
        return cluster.info(made)["env"]

    cluster.until(lambda: "K_SINK" in environment())
    env = environment()
    assert env["K_SINK"] == "http://sink.example.com/here"
    assert json.loads(env["K_CE_OVERRIDES"]) == {"extensions": {"team": "blue"}}
    cluster.kubectl("delete", "sinkbinding", called)
    cluster.until(lambda: "K_SINK" not in environment())


def test_an_api_server_source_tells_of_pods_once_it_may(cluster: Cluster, inboxes: Inboxes) -> None:
    called, inbox = name("watcher"), inboxes()
    apply(cluster, f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {called}}}
---
apiVersion: sources.knative.dev/v1
kind: ApiServerSource
metadata: {{name: {called}}}
spec:
  serviceAccountName: {called}
  mode: Resource
  resources:
  - apiVersion: v1
    kind: Pod
    selector: {{matchExpressions: [{{key: e2e, operator: Exists, values: null}}]}}
  sink: {{uri: {inbox.url}}}
""")  # fmt: skip
    path = f"/apis/sources.knative.dev/v1/namespaces/{NAMESPACE}/apiserversources/{called}"
    got = cluster.ready(path, "False")
    assert condition(got)["reason"] == "InsufficientPermissions"
    assert f"apiserversource-{called}" not in cluster.kubectl("get", "deploy", "-o", "name")
    apply(cluster, f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {called}}}
rules: [{{apiGroups: [""], resources: [pods], verbs: [get, list, watch]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {called}}}
subjects: [{{kind: ServiceAccount, name: {called}}}]
roleRef: {{kind: Role, name: {called}, apiGroup: rbac.authorization.k8s.io}}
""")  # fmt: skip
    wait(cluster, f"apiserversource/{called}")
    assert f"apiserversource-{called}" in cluster.kubectl("get", "deploy", "-o", "name")
    cluster.kubectl("run", called, f"--image={IMAGE}", "--labels=e2e=testing")
    headers, body = _first(cluster, inbox)
    assert headers["ce-type"] == "dev.knative.apiserver.resource.add"
    assert json.loads(body)["metadata"]["name"] == called
    cluster.kubectl("delete", "pod", called, "--now", "--wait=false")
    cluster.kubectl("delete", "apiserversource", called)


def _first(cluster: Cluster, inbox: Inbox) -> tuple[dict[str, str], bytes]:
    cluster.until(lambda: inbox.got)
    return inbox.got[0]
