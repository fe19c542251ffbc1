"""Brokers and triggers, from the object to the delivered event."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from knlocal.eventing import HOST_URL
from knlocal.eventing.engines.durable import WINDOW
from knlocal.events import Event
from knlocal.resources.base import GroupKind
from knlocal.resources.ducks import EVENTING_CONTROLLER
from knlocal.resources.status import StatusError
from tests.eventing.house import House, to
from tests.eventing.plane import Reply

READY_BROKER = dict.fromkeys(
    ["Addressable", "DeadLetterSinkResolved", "EventPoliciesReady", "FilterReady", "IngressReady",
     "Ready", "TriggerChannelReady"], "True",
)  # fmt: skip
READY_TRIGGER = dict.fromkeys(
    ["BrokerReady", "DeadLetterSinkResolved", "DependencyReady", "OIDCIdentityCreated", "Ready",
     "SubscriberResolved", "SubscriptionReady"], "True",
)  # fmt: skip


async def test_a_broker_becomes_ready_with_knatives_addresses(house: House) -> None:
    broker = await house.apply("Broker", "b")
    assert house.conditions("Broker", "b") == READY_BROKER
    url = "http://broker-ingress.knative-eventing.svc.cluster.local/default/b"
    status = broker["status"]
    assert status["address"] == {"name": "http", "url": url}
    assert status["observedGeneration"] == 1
    assert status["annotations"] == {
        "knative.dev/channelAddress":
            "http://b-kne-trigger-kn-channel.default.svc.cluster.local",
        "knative.dev/channelAPIVersion": "messaging.knative.dev/v1",
        "knative.dev/channelKind": "InMemoryChannel",
        "knative.dev/channelName": "b-kne-trigger",
        HOST_URL: "http://broker-ingress.knative-eventing.localhost:8080/default/b",
    }  # fmt: skip
    assert house.condition("Broker", "b", "EventPoliciesReady") == (
        "True", "OIDCDisabled",
        'Feature "authentication-oidc" must be enabled to support Authorization',
    )  # fmt: skip
    assert house.condition("Broker", "b", "DeadLetterSinkResolved")[:2] == (
        "True", "DeadLetterSinkNotConfigured",
    )  # fmt: skip


async def test_a_broker_owns_its_trigger_channel(house: House) -> None:
    annotations = {"messaging.knative.dev/x": "y", "other": "z"}
    await house.apply("Broker", "b", annotations=annotations)
    channel = house.get("InMemoryChannel", "b-kne-trigger")
    assert channel["metadata"]["ownerReferences"][0]["kind"] == "Broker"
    assert channel["metadata"]["labels"]["eventing.knative.dev/broker"] == "b"
    assert channel["metadata"]["annotations"]["messaging.knative.dev/x"] == "y"
    assert "other" not in channel["metadata"]["annotations"]
    await house.delete("Broker", "b")
    assert house.find("InMemoryChannel", "b-kne-trigger") is None


async def test_an_event_goes_through_a_trigger(house: House) -> None:
    sink = await house.service("sink")
    await house.apply("Broker", "b")
    trigger = await house.apply("Trigger", "t", {"broker": "b", "subscriber": to("sink")})
    assert house.conditions("Trigger", "t") == READY_TRIGGER
    assert trigger["status"]["subscriberUri"] == "http://sink.default.svc.cluster.local"
    assert (await house.post_to("Broker", "b")).status == 202
    assert sink.ids == ["1"]
    assert sink.headers[0]["kn-namespace"] == "default"


@pytest.mark.parametrize(
    "url",
    [
        "http://broker-ingress.knative-eventing.svc.cluster.local/default/b",
        "http://broker-ingress.knative-eventing.svc.cluster.local/default/b/",
        "http://broker-ingress.knative-eventing.svc/default/b",
        "http://broker-ingress.knative-eventing/default/b",
        "http://broker-ingress.knative-eventing.localhost:8080/default/b",
    ],
)
async def test_a_broker_answers_under_all_its_names(house: House, url: str) -> None:
    await house.apply("Broker", "b")
    assert (await house.post(url)).status == 202


async def test_a_broker_without_an_address_says_so_at_its_door(house: House) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "name": "nope"}
    await house.apply("Broker", "b", {"config": config})
    door = "http://broker-ingress.knative-eventing.svc.cluster.local/default"
    response = await house.post(f"{door}/b")
    assert response.status == 500
    assert b'configmaps "nope" not found' in response.body
    assert (await house.post(f"{door}/unheard")).status == 404


async def test_the_door_knows_the_short_names_that_pods_may_use(house: House) -> None:
    await house.apply("Channel", "c")
    for host in ("broker-ingress.knative-eventing", "c-kn-channel.default"):
        assert house.routes.find(host, "internal") is not None


async def test_a_trigger_may_come_before_its_broker_and_its_sink(house: House) -> None:
    await house.apply("Trigger", "t", {"broker": "b", "subscriber": to("sink")})
    assert house.condition("Trigger", "t") == (
        "False", "BrokerDoesNotExist", 'Broker "b" does not exist',
    )  # fmt: skip
    await house.apply("Broker", "b")
    status, reason, message = house.condition("Trigger", "t", "SubscriberResolved")
    assert (status, reason) == ("False", "Unable to get the Subscriber's URI")
    assert 'services "sink" not found' in message
    assert (await house.post_to("Broker", "b")).status == 202
    sink = await house.service("sink")
    await house.delivered()
    assert house.conditions("Trigger", "t") == READY_TRIGGER
    assert sink.ids == ["1"]


async def test_a_deleted_broker_makes_its_triggers_unready(house: House) -> None:
    await house.service("sink")
    await house.apply("Broker", "b")
    await house.apply("Trigger", "t", {"broker": "b", "subscriber": to("sink")})
    url = house.get("Broker", "b")["status"]["address"]["url"]
    await house.delete("Broker", "b")
    assert house.condition("Trigger", "t")[1] == "BrokerDoesNotExist"
    assert (await house.post(url)).status == 404


async def test_a_deleted_trigger_gets_nothing_more(house: House) -> None:
    sink = await house.service("sink")
    await house.apply("Broker", "b")
    await house.apply("Trigger", "t", {"broker": "b", "subscriber": to("sink")})
    await house.delete("Trigger", "t")
    await house.post_to("Broker", "b")
    assert sink.ids == []


async def test_a_changed_filter_counts_at_once(house: House) -> None:
    sink = await house.service("sink")
    await house.apply("Broker", "b")
    spec = {"broker": "b", "subscriber": to("sink")}
    await house.apply("Trigger", "t", {**spec, "filter": {"attributes": {"type": "x"}}})
    await house.post_to("Broker", "b", "1")
    await house.apply("Trigger", "t", {**spec, "filters": [{"cesql": "type = 't'"}]})
    await house.post_to("Broker", "b", "2")
    assert sink.ids == ["2"]


async def test_an_expression_that_does_not_parse_is_refused_with_its_place(house: House) -> None:
    filters = [{"all": [{"not": {"cesql": "type = = 'x'"}}]}]
    with pytest.raises(StatusError) as caught:
        await house.apply(
            "Trigger", "t", {"broker": "b", "subscriber": to("s"), "filters": filters}
        )
    assert caught.value.message.startswith(
        'admission webhook "validation.webhook.eventing.knative.dev" denied the request: '
        "validation failed: invalid value: type = = 'x': spec.filters[0].all[0].not.cesql\n"
        "parse error at line 1, column 8: unexpected '='"
    )


async def test_replies_reenter_the_broker(house: House) -> None:
    ask, answers = await house.service("ask"), await house.service("answers")
    headers = {"ce-specversion": "1.0", "ce-id": "r", "ce-type": "re", "ce-source": "/r"}
    ask.answer(Reply(200, tuple(headers.items()), b"x"))
    await house.apply("Broker", "b")
    for name, type_ in (("ask", "t"), ("answers", "re")):
        wanted = {"attributes": {"type": type_}}
        spec = {"broker": "b", "subscriber": to(name), "filter": wanted}
        await house.apply("Trigger", name, spec)
    await house.post_to("Broker", "b")
    assert (ask.ids, answers.ids) == (["1"], ["r"])


async def test_a_triggers_delivery_replaces_the_brokers_but_not_its_dead_letter_sink(
    house: House,
) -> None:
    sink, dead, own = [await house.service(name) for name in ("sink", "dead", "own")]
    sink.answer(500)
    delivery = {"retry": 3, "backoffDelay": "PT1S", "backoffPolicy": "linear",
                "deadLetterSink": to("dead")}  # fmt: skip
    broker = await house.apply("Broker", "b", {"delivery": delivery})
    assert broker["status"]["deadLetterSinkUri"] == "http://dead.default.svc.cluster.local"
    spec = {"broker": "b", "subscriber": to("sink")}
    trigger = await house.apply("Trigger", "t", {**spec, "delivery": {"retry": 1}})
    assert trigger["status"]["deadLetterSinkUri"] == "http://dead.default.svc.cluster.local"
    await house.post_to("Broker", "b", "1")
    assert (sink.ids, dead.ids) == (["1", "1"], ["1"])
    delivery = {"deadLetterSink": to("own")}
    await house.apply("Trigger", "t", {**spec, "delivery": delivery})
    await house.post_to("Broker", "b", "2")
    assert (dead.ids, own.ids) == (["1"], ["2"])


async def test_a_dead_letter_sink_that_is_missing_is_told(house: House) -> None:
    delivery = {"deadLetterSink": to("dead")}
    await house.apply("Broker", "b", {"delivery": delivery})
    await house.apply("Broker", "fine")
    spec = {"broker": "fine", "subscriber": {"uri": "http://s"}, "delivery": delivery}
    await house.apply("Trigger", "t", spec)
    assert house.condition("Broker", "b")[:2] == ("False", "Unable to get the DeadLetterSink's URI")
    said = house.condition("Trigger", "t", "DeadLetterSinkResolved")
    assert said[:2] == ("False", "Unable to get the dead letter sink's URI")
    await house.service("dead")
    await house.settled()
    assert house.condition("Broker", "b")[0] == "True"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"apiVersion": "v1", "kind": "ConfigMap", "name": "nope"}, 'configmaps "nope" not found'),
        ({"apiVersion": "v1", "kind": "Secret", "name": "x"}, "only [kind: ConfigMap"),
        ({"apiVersion": "v1", "kind": "ConfigMap", "name": "bad"}, "channel-template-spec"),
        ({"apiVersion": "v1", "kind": "ConfigMap", "name": "kafka"}, 'no matches for kind "Kafka'),
    ],
)
async def test_a_broken_broker_config_is_told(
    house: House, config: dict[str, str], says: str
) -> None:
    kafka = "apiVersion: messaging.knative.dev/v1beta1\nkind: KafkaChannel"
    for name, data in (("bad", {"x": "y"}), ("kafka", {"channel-template-spec": kafka})):
        house.store.create({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
                            "metadata": {"name": name, "namespace": "default"}})  # fmt: skip
    await house.apply("Broker", "b", {"config": config})
    status, _, message = house.condition("Broker", "b", "TriggerChannelReady")
    assert status == "False"
    assert says in message
    assert "address" not in house.get("Broker", "b")["status"]


async def test_a_config_map_that_is_put_right_makes_the_broker_ready(house: House) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "name": "late"}
    await house.apply("Broker", "b", {"config": config})
    assert house.condition("Broker", "b", "TriggerChannelReady")[1] == "ChannelTemplateFailed"
    template = "apiVersion: messaging.knative.dev/v1\nkind: InMemoryChannel"
    house.store.create({"apiVersion": "v1", "kind": "ConfigMap",
                        "metadata": {"name": "late", "namespace": "default"},
                        "data": {"channel-template-spec": template}})  # fmt: skip
    await house.settled()
    assert house.condition("Broker", "b")[0] == "True"


async def test_another_class_of_broker_is_left_alone(house: House) -> None:
    other = {"eventing.knative.dev/broker.class": "Kafka"}
    broker = await house.apply("Broker", "b", annotations=other)
    trigger = await house.apply("Trigger", "t", {"broker": "b", "subscriber": to("s")})
    assert "status" not in broker
    assert "status" not in trigger


async def test_a_trigger_waits_for_what_it_depends_on(house: House) -> None:
    sink = await house.service("sink")
    await house.apply("Broker", "b")
    dependency = '{"kind":"Sequence","name":"s","apiVersion":"flows.knative.dev/v1"}'
    await house.apply(
        "Trigger", "t", {"broker": "b", "subscriber": to("sink")},
        annotations={"knative.dev/dependency": dependency},
    )  # fmt: skip
    assert house.condition("Trigger", "t")[:2] == ("False", "DependencyDoesNotExist")
    await house.post_to("Broker", "b")
    assert sink.ids == []
    await house.apply("Sequence", "s", {"steps": [to("sink")]})
    assert house.conditions("Trigger", "t") == READY_TRIGGER
    await house.delivered()
    assert sink.ids == ["1"]


async def test_sinks_are_resolved_anew_when_they_change(house: House) -> None:
    sink = await house.service("sink")
    await house.apply("Broker", "b")
    await house.apply("Channel", "c")
    spec = {"broker": "b", "subscriber": {**to("c", "Channel"), "uri": "/ignored?x=1"}}
    trigger = await house.apply("Trigger", "t", spec)
    host = "c-kn-channel.default.svc.cluster.local"
    assert trigger["status"]["subscriberUri"] == f"http://{host}/ignored?x=1"
    await house.apply("Trigger", "t", {"broker": "b", "subscriber": to("sink")})
    await house.post_to("Broker", "b")
    assert sink.ids == ["1"]


async def test_a_bad_uri_is_still_ready(house: House) -> None:
    await house.apply("Broker", "b")
    await house.apply("Trigger", "t", {"broker": "b", "subscriber": {"uri": "bad://uri"}})
    assert house.condition("Trigger", "t")[0] == "True"


async def test_a_broker_is_made_on_demand(house: House) -> None:
    await house.apply(
        "Trigger", "t", {"broker": "default", "subscriber": to("s")},
        annotations={"eventing.knative.dev/injection": "enabled"},
    )  # fmt: skip
    assert house.condition("Broker", "default")[0] == "True"
    made = house.get("Broker", "default")["metadata"]["annotations"]
    assert made["eventing.knative.dev/creator"] == EVENTING_CONTROLLER


async def test_sugar_makes_brokers_where_selectors_say_so(house: House) -> None:
    data = {"namespace-selector": "matchLabels: {team: a}", "trigger-selector": "{}"}
    house.store.modify(
        house.store.registry.by_version("v1", "ConfigMap").group_kind,  # type: ignore[union-attr]
        "knative-eventing", "config-sugar", lambda obj: obj.__setitem__("data", data),
    )  # fmt: skip
    house.store.create({"apiVersion": "v1", "kind": "Namespace",
                        "metadata": {"name": "team-a", "labels": {"team": "a"}}})  # fmt: skip
    await house.apply("Trigger", "t", {"broker": "mine", "subscriber": to("s")})
    assert house.find("Broker", "default", "team-a") is not None
    assert house.find("Broker", "default") is None
    assert house.find("Broker", "mine") is not None


async def test_a_durable_broker_takes_its_events_to_disk(house: House) -> None:
    sink = await house.service("sink")
    await house.apply("Broker", "b", annotations={"knlocal.dev/durable": "true"})
    await house.apply("Trigger", "t", {"broker": "b", "subscriber": to("sink")})
    exchange = house.eventing.dispatcher.exchange("Broker", "default", "b")
    assert exchange is not None
    assert exchange.engine is house.eventing.dispatcher.engines["durable"]
    await house.post_to("Broker", "b")
    assert sink.ids == ["1"]


async def test_order_is_given_up_by_annotation(house: House) -> None:
    sink = await house.service("sink")
    sink.gate.clear()
    await house.apply("Broker", "b")
    await house.apply(
        "Trigger", "t", {"broker": "b", "subscriber": to("sink")},
        annotations={"eventing.knative.dev/delivery.order": "unordered"},
    )  # fmt: skip
    url = house.get("Broker", "b")["status"]["address"]["url"]
    for n in range(5):
        await house.post(url, str(n))
    await house.settled()
    assert sink.running == 5
    sink.gate.set()
    await house.delivered()


async def test_event_types_are_registered_when_the_flag_is_on(house: House) -> None:
    await house.apply("Broker", "b")
    await house.post_to("Broker", "b")
    kind = house.store.registry.by_version("eventing.knative.dev/v1beta3", "EventType")
    assert kind is not None
    assert house.store.list(kind.group_kind) == []
    flags = house.store.registry.by_version("v1", "ConfigMap")
    assert flags is not None
    house.store.modify(
        flags.group_kind, "knative-eventing", "config-features",
        lambda obj: obj["data"].__setitem__("eventtype-auto-create", "enabled"),
    )  # fmt: skip
    await house.settled()
    for n in range(3):
        await house.post_to("Broker", "b", str(n), ce_dataschema="http://x/schema")
    await house.settled()
    [event_type] = house.store.list(kind.group_kind)
    assert event_type["metadata"]["name"].startswith("et-b-")
    assert event_type["spec"]["reference"] == {
        "apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "namespace": "default",
        "name": "b",
    }  # fmt: skip
    assert event_type["spec"]["description"] == "Event Type auto-created by controller"
    attributes = {a["name"]: a.get("value") for a in event_type["spec"]["attributes"]}
    assert attributes == {"type": "t", "source": "/s", "specversion": "1.0", "id": None,
                          "schemadata": "http://x/schema"}  # fmt: skip
    assert house.condition("EventType", event_type["metadata"]["name"])[0] == "True"


async def test_the_type_of_a_reply_is_registered_with_who_got_it_from_its_subscriber(
    house: House,
) -> None:
    """Also when the reply goes nowhere, as here that of the Subscription."""
    flags = house.store.registry.by_version("v1", "ConfigMap")
    assert flags is not None
    house.store.modify(
        flags.group_kind, "knative-eventing", "config-features",
        lambda obj: obj["data"].__setitem__("eventtype-auto-create", "enabled"),
    )  # fmt: skip
    sink = await house.service("sink")
    headers = {"ce-specversion": "1.0", "ce-id": "r", "ce-type": "re", "ce-source": "/r"}
    sink.answer(Reply(200, tuple(headers.items()), b"x"))
    await house.apply("Broker", "b")
    await house.apply("InMemoryChannel", "c")
    wanted = {"filter": {"attributes": {"type": "t"}}}
    await house.apply("Trigger", "t", {"broker": "b", "subscriber": to("sink"), **wanted})
    channel = to("c", "InMemoryChannel")["ref"]
    await house.apply("Subscription", "s", {"channel": channel, "subscriber": to("sink")})
    await house.post_to("Broker", "b")
    await house.post_to("InMemoryChannel", "c")
    await house.settled()
    found = {
        (event_type["spec"]["reference"]["apiVersion"], event_type["spec"]["reference"]["kind"])
        for event_type in house.store.list(GroupKind("eventing.knative.dev", "EventType"))
        for attribute in event_type["spec"]["attributes"]
        if attribute.get("value") == "re"
    }
    assert found == {
        ("eventing.knative.dev/v1", "Trigger"),
        ("eventing.knative.dev/v1", "Broker"),  # which the reply came back to
        ("messaging.knative.dev/v1", "Subscription"),
    }


async def test_an_event_type_says_whether_its_reference_exists(house: House) -> None:
    attributes = [{"name": name} for name in ("type", "source", "specversion", "id")]
    await house.apply("EventType", "free", {"attributes": attributes})
    assert house.condition("EventType", "free", "ReferenceExists")[:2] == (
        "True", "ReferenceNotSet",
    )  # fmt: skip
    reference = to("b", "Broker")["ref"]
    await house.apply("EventType", "e", {"attributes": attributes, "reference": reference})
    assert house.condition("EventType", "e")[:2] == ("False", "ResourceDoesNotExist")
    await house.apply("Broker", "b")
    assert house.condition("EventType", "e")[0] == "True"


async def test_a_durable_broker_goes_on_where_it_was(house: House, tmp_path: Path) -> None:
    sink = await house.service("sink")
    sink.gate.clear()
    await house.apply("Broker", "b", annotations={"knlocal.dev/durable": "true"})
    for name in ("t", "gone"):
        await house.apply("Trigger", name, {"broker": "b", "subscriber": to("sink")})
    url = house.get("Broker", "b")["status"]["address"]["url"]
    for n in range(5):
        assert (await house.post(url, str(n), ce_subject="%41")).status == 202
    await house.settled()
    await house.stop()
    house.store.delete(GroupKind("eventing.knative.dev", "Trigger"), "default", "gone")

    again = House(house.store, tmp_path / "events.db")
    received = await again.service("sink")
    await again.start()
    await again.delivered()
    # The first was being delivered when the daemon stopped: at least once.
    assert received.ids == ["0", "1", "2", "3", "4"]
    assert received.headers[-1]["ce-subject"] == "%41"
    engine = again.eventing.dispatcher.engines["durable"]
    assert engine.known() == []
    await again.stop()


async def test_a_long_durable_queue_is_read_back_in_order(house: House) -> None:
    sink = await house.service("sink")
    sink.gate.clear()
    await house.apply("Broker", "b", annotations={"knlocal.dev/durable": "true"})
    await house.apply("Trigger", "t", {"broker": "b", "subscriber": to("sink")})
    exchange = house.eventing.dispatcher.exchange("Broker", "default", "b")
    assert exchange is not None
    count = 2 * WINDOW + 500
    event = {"specversion": "1.0", "type": "t", "source": "/s"}
    for start in range(0, count, 500):
        await asyncio.gather(
            *(exchange.accept(Event({**event, "id": str(n)})) for n in range(start, start + 500))
        )
    sink.gate.set()
    for _ in range(40):
        await house.delivered()
    assert sink.ids == [str(n) for n in range(count)]
