"""Brokers, Triggers, Channels and Subscriptions, as Knative's eventing test/rekt asks for them."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.conftest import NAMESPACE, Answer, Cluster, Inbox, condition, name, service

pytestmark = pytest.mark.docker
EVENTING = f"/apis/eventing.knative.dev/v1/namespaces/{NAMESPACE}"
MESSAGING = f"/apis/messaging.knative.dev/v1/namespaces/{NAMESPACE}"
Inboxes = Callable[[], Inbox]
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/test", "ce-type": "made",
         "Content-Type": "application/json"}  # fmt: skip


@pytest.fixture
def broker(cluster: Cluster) -> dict[str, Any]:
    return create(cluster, "brokers", {})


def create(cluster: Cluster, plural: str, spec: Any, called: str = "", **metadata: Any) -> Any:
    group = EVENTING if plural in ("brokers", "triggers") else MESSAGING
    kind = {"brokers": "Broker", "triggers": "Trigger", "channels": "Channel",
            "subscriptions": "Subscription",
            "inmemorychannels": "InMemoryChannel"}[plural]  # fmt: skip
    version = "eventing.knative.dev/v1" if group == EVENTING else "messaging.knative.dev/v1"
    called = called or name(kind.lower())
    body = {"apiVersion": version, "kind": kind, "spec": spec,
            "metadata": {"name": called, "namespace": NAMESPACE, **metadata}}  # fmt: skip
    cluster.must("POST", f"{group}/{plural}", body)
    return cluster.ready(f"{group}/{plural}/{called}")


def trigger(cluster: Cluster, broker: dict[str, Any], to: str, **spec: Any) -> Any:
    whole = {"broker": broker["metadata"]["name"], "subscriber": {"uri": to}, **spec}
    return create(cluster, "triggers", whole)


def named(body: dict[str, Any]) -> str:
    return str(body["metadata"]["name"])


def send(cluster: Cluster, to: dict[str, Any], **change: str) -> Answer:
    """An event from inside the cluster, as Knative's eventshub sends it."""
    headers = {**EVENT, **{f"ce-{key}": value for key, value in change.items()}}
    return post(cluster, to["status"]["address"]["url"], headers, b'{"a": 1}')


def post(cluster: Cluster, url: str, headers: dict[str, str], body: bytes) -> Answer:
    """To an address of the cluster, through the listener that containers use."""
    parts = urllib.parse.urlsplit(url)
    door = cluster.inside()
    return cluster.call(
        f"http://{parts.netloc}", parts.path, method="POST", headers=headers, body=body, door=door
    )


def test_a_broker_is_addressable_and_takes_events(cluster: Cluster, broker: dict[str, Any]) -> None:
    url = broker["status"]["address"]["url"]
    assert url.startswith("http://broker-ingress.knative-eventing.svc.cluster.local")
    assert url.endswith(f"/{NAMESPACE}/{broker['metadata']['name']}")
    assert {c["type"] for c in broker["status"]["conditions"]} >= {"Ready", "Addressable"}
    annotations = broker["metadata"]["annotations"]
    assert annotations["eventing.knative.dev/broker.class"] == "MTChannelBasedBroker"
    assert send(cluster, broker).status == 202


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (EVENT, b"{}", 202),
        ({"Content-Type": "application/cloudevents+json"}, json.dumps(
            {"specversion": "1.0", "id": "2", "source": "/x", "type": "t"}).encode(), 202),
        ({k: v for k, v in EVENT.items() if k != "ce-type"}, b"{}", 400),
        ({k: v for k, v in EVENT.items() if k != "ce-id"}, b"{}", 400),
        ({**EVENT, "ce-specversion": "99"}, b"{}", 400),
        ({"Content-Type": "text/plain"}, b"no event", 400),
    ],
    ids=["binary", "structured", "no type", "no id", "version", "none"],
)  # fmt: skip
def test_ingress_takes_events_and_nothing_else(
    cluster: Cluster, broker: dict[str, Any], headers: dict[str, str], body: bytes, status: int
) -> None:
    assert post(cluster, broker["status"]["address"]["url"], headers, body).status == status


def test_ingress_answers_other_methods_405_and_tells_options(
    cluster: Cluster, broker: dict[str, Any]
) -> None:
    parts = urllib.parse.urlsplit(broker["status"]["address"]["url"])
    got = cluster.call(f"http://{parts.netloc}", parts.path, method="GET", door=cluster.inside())
    assert got.status == 405
    got = cluster.call(
        f"http://{parts.netloc}", parts.path, method="OPTIONS", door=cluster.inside()
    )
    assert (got.status, "POST" in got.headers["Allow"]) == (200, True)


def test_triggers_filter_and_the_event_is_not_changed(
    cluster: Cluster, broker: dict[str, Any], inboxes: Inboxes
) -> None:
    everything, some, none = inboxes(), inboxes(), inboxes()
    trigger(cluster, broker, everything.url)
    trigger(cluster, broker, some.url, filter={"attributes": {"type": "made", "color": "blue"}})
    trigger(cluster, broker, none.url, filters=[{"not": {"prefix": {"type": "ma"}}}])
    assert send(cluster, broker, color="blue", id="a").status == 202
    assert send(cluster, broker, color="red", id="b").status == 202
    cluster.until(lambda: len(everything.got) == 2)
    cluster.until(lambda: len(some.got) == 1)
    headers, body = some.got[0]
    assert body == b'{"a": 1}'
    shown = {k: v for k, v in headers.items() if k.startswith("ce-")}
    assert shown.pop("ce-knativearrivaltime")  # as Knative's own ingress adds it
    assert shown == {"ce-specversion": "1.0", "ce-id": "a", "ce-source": "/test", "ce-type": "made",
                     "ce-color": "blue"}  # fmt: skip
    assert headers["content-type"] == "application/json"
    assert "reply" in headers.get("prefer", "")
    assert none.got == []


def test_one_event_goes_to_each_trigger_that_matches(
    cluster: Cluster, broker: dict[str, Any], inboxes: Inboxes
) -> None:
    inbox = inboxes()
    for _ in range(2):
        trigger(cluster, broker, inbox.url)
    send(cluster, broker)
    cluster.until(lambda: len(inbox.got) == 2)


def test_replies_go_back_into_the_broker(
    cluster: Cluster, broker: dict[str, Any], inboxes: Inboxes
) -> None:
    first, second = inboxes(), inboxes()
    reply = {**EVENT, "ce-type": "answered", "ce-id": "r"}
    first.answers = [(200, reply, b"{}")]
    trigger(cluster, broker, first.url, filter={"attributes": {"type": "made"}})
    trigger(cluster, broker, second.url, filter={"attributes": {"type": "answered"}})
    send(cluster, broker)
    cluster.until(lambda: second.types() == ["answered"])


def test_failures_are_tried_again_and_then_buried(
    cluster: Cluster, broker: dict[str, Any], inboxes: Inboxes
) -> None:
    failing, dead = inboxes(), inboxes()
    failing.answers = [(500, {}, b"oh dear")] * 9
    delivery = {"retry": 2, "backoffPolicy": "linear", "backoffDelay": "PT0.05S",
                "deadLetterSink": {"uri": dead.url}}  # fmt: skip
    made = trigger(cluster, broker, failing.url, delivery=delivery)
    assert made["status"]["deadLetterSinkUri"] == dead.url
    send(cluster, broker)
    cluster.until(lambda: dead.got)
    assert len(failing.got) == 3
    headers, body = dead.got[0]
    assert (headers["ce-type"], body) == ("made", b'{"a": 1}')
    assert headers["ce-knativeerrorcode"] == "500"
    assert headers["ce-knativeerrordest"].rstrip("/") == failing.url


def test_the_dead_letters_of_a_broker_are_the_default_of_its_triggers(
    cluster: Cluster, inboxes: Inboxes
) -> None:
    dead, failing = inboxes(), inboxes()
    failing.answers = [(400, {}, b"")] * 9
    made = create(cluster, "brokers", {"delivery": {"deadLetterSink": {"uri": dead.url}}})
    assert made["status"]["deadLetterSinkUri"] == dead.url
    trigger(cluster, made, failing.url)
    send(cluster, made)
    cluster.until(lambda: dead.types() == ["made"])
    assert len(failing.got) == 1


def test_a_trigger_without_its_broker_is_not_ready(cluster: Cluster, inboxes: Inboxes) -> None:
    body = {
        "apiVersion": "eventing.knative.dev/v1", "kind": "Trigger",
        "metadata": {"name": name("early"), "namespace": NAMESPACE},
        "spec": {"broker": name("later"), "subscriber": {"uri": inboxes().url}},
    }  # fmt: skip
    cluster.must("POST", f"{EVENTING}/triggers", body)
    path = f"{EVENTING}/triggers/{named(body)}"
    got = cluster.ready(path, "False")
    assert condition(got)["reason"] == "BrokerDoesNotExist"
    create(cluster, "brokers", {}, body["spec"]["broker"])  # type: ignore[index]
    cluster.ready(path)


def test_a_subscriber_that_is_missing_is_named(cluster: Cluster, broker: dict[str, Any]) -> None:
    ref = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "nobody"}
    body = {
        "apiVersion": "eventing.knative.dev/v1", "kind": "Trigger",
        "metadata": {"name": name("lost"), "namespace": NAMESPACE},
        "spec": {"broker": broker["metadata"]["name"], "subscriber": {"ref": ref}},
    }  # fmt: skip
    cluster.must("POST", f"{EVENTING}/triggers", body)
    got = cluster.ready(f"{EVENTING}/triggers/{named(body)}", "False")
    assert condition(got, "SubscriberResolved")["status"] == "False"
    assert "nobody" in condition(got)["message"]
    assert "subscriberUri" not in got["status"]


def test_brokers_and_triggers_keep_what_must_not_change(
    cluster: Cluster, broker: dict[str, Any], inboxes: Inboxes
) -> None:
    path = f"{EVENTING}/brokers/{broker['metadata']['name']}"
    changed = cluster.get(path)
    changed["metadata"]["annotations"]["eventing.knative.dev/broker.class"] = "Other"
    assert "Immutable" in cluster.refused("PUT", path, changed)
    made = trigger(cluster, broker, inboxes().url)
    path = f"{EVENTING}/triggers/{made['metadata']['name']}"
    changed = cluster.get(path)
    changed["spec"]["broker"] = "other"
    assert "Immutable fields changed (-old +new): broker, spec" in cluster.refused(
        "PUT", path, changed
    )
    changed = cluster.get(path)
    changed["spec"]["filter"] = {"attributes": {"type": "x"}}
    cluster.must("PUT", path, changed)


def test_a_service_is_a_subscriber(
    cluster: Cluster, broker: dict[str, Any], inboxes: Inboxes
) -> None:
    """The test image answers a POST with what it got: an event, and so a reply."""
    made = cluster.ready_service(service(name("subscriber")))
    ref = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "name": made["metadata"]["name"],
    }
    got = create(cluster, "triggers", {"broker": broker["metadata"]["name"],
                                       "subscriber": {"ref": ref, "uri": "/deep"}})  # fmt: skip
    local = made["status"]["address"]["url"]
    assert got["status"]["subscriberUri"] == f"{local}/deep"
    assert send(cluster, broker).status == 202


def test_a_channel_hands_events_to_each_subscription(cluster: Cluster, inboxes: Inboxes) -> None:
    channel = create(cluster, "channels", {})
    template = channel["spec"]["channelTemplate"]
    assert template == {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel"}
    assert channel["status"]["channel"]["kind"] == "InMemoryChannel"
    one, two, answers = inboxes(), inboxes(), inboxes()
    one.answers = [(200, {**EVENT, "ce-type": "answered"}, b"{}")]
    ref = {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel",
           "name": channel["metadata"]["name"]}  # fmt: skip
    made = create(cluster, "subscriptions", {"channel": ref, "subscriber": {"uri": one.url},
                                             "reply": {"uri": answers.url}})  # fmt: skip
    create(cluster, "subscriptions", {"channel": ref, "subscriber": {"uri": two.url}})
    assert made["status"]["physicalSubscription"] == {
        "subscriberUri": one.url, "replyUri": answers.url,
    }  # fmt: skip
    assert send(cluster, channel).status == 202
    cluster.until(lambda: one.types() == two.types() == ["made"])
    cluster.until(lambda: answers.types() == ["answered"])
    path = f"{MESSAGING}/subscriptions/{made['metadata']['name']}"
    changed = cluster.get(path)
    changed["spec"]["channel"]["name"] = "other"
    assert "Immutable" in cluster.refused("PUT", path, changed)
    shown = cluster.get(f"{MESSAGING}/channels/{channel['metadata']['name']}")
    assert len(shown["status"].get("subscribers", [])) == 2


def test_a_subscription_without_its_channel_is_not_ready(
    cluster: Cluster, inboxes: Inboxes
) -> None:
    ref = {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "nowhere"}
    body = {
        "apiVersion": "messaging.knative.dev/v1", "kind": "Subscription",
        "metadata": {"name": name("lost"), "namespace": NAMESPACE},
        "spec": {"channel": ref, "subscriber": {"uri": inboxes().url}},
    }  # fmt: skip
    cluster.must("POST", f"{MESSAGING}/subscriptions", body)
    path = f"{MESSAGING}/subscriptions/{named(body)}"
    cluster.until(lambda: condition(cluster.get(path)).get("reason"))
    assert condition(cluster.get(path))["status"] != "True"
