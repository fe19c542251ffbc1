"""PingSource: events on a cron schedule (behaviours E8, E59, E60, E68, E70)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from knlocal.resources.base import GroupKind
from knlocal.resources.status import BadRequest
from knlocal.testing.sink import Answer, Sink
from tests.sources.house import House, to


def ping(receiver: Sink, **spec: Any) -> dict[str, Any]:
    return {"sink": {"uri": receiver.url}, **spec}


async def test_an_event_comes_whenever_the_line_is_due(house: House, receiver: Sink) -> None:
    await house.apply("PingSource", "tick", ping(receiver, schedule="*/5 * * * *", data="hello"))
    await house.clock.advance(4 * 60)
    assert not receiver.events
    await house.clock.advance(11 * 60)
    events = await house.received(receiver, 3)
    assert [e.attributes["time"] for e in events] == [
        f"2026-01-01T10:{minute:02}:00Z" for minute in (5, 10, 15)
    ]
    event = events[0]
    assert event.type == "dev.knative.sources.ping"
    assert event.source == "/apis/v1/namespaces/default/pingsources/tick"
    assert event.data == b"hello"
    assert "datacontenttype" not in event.attributes
    assert len({e.id for e in events}) == 3


async def test_the_line_may_begin_with_seconds(house: House, receiver: Sink) -> None:
    await house.apply("PingSource", "tick", ping(receiver, schedule="*/10 * * * * *"))
    await house.clock.advance(30)
    await house.received(receiver, 3)


async def test_without_a_line_there_is_an_event_a_minute(house: House, receiver: Sink) -> None:
    source = await house.apply("PingSource", "tick", ping(receiver))
    assert source["spec"]["schedule"] == "* * * * *"
    await house.clock.advance(60)
    await house.received(receiver, 1)


async def test_the_line_is_read_in_its_time_zone(house: House, receiver: Sink) -> None:
    # 11:15 in Berlin is 10:15 in UTC, in winter.
    spec = ping(receiver, schedule="15 11 * * *", timezone="Europe/Berlin")
    await house.apply("PingSource", "tick", spec)
    await house.clock.advance(15 * 60)
    [event] = await house.received(receiver, 1)
    assert event.attributes["time"] == "2026-01-01T10:15:00Z"


@pytest.mark.parametrize(
    ("spec", "data", "content_type"),
    [
        ({"data": '{"a": 1}', "contentType": "application/json"}, b'{"a": 1}', "application/json"),
        ({"dataBase64": "//4A", "contentType": "image/png"}, b"\xff\xfe\x00", "image/png"),
        ({"data": "<a/>", "contentType": "text/xml"}, b"<a/>", "text/xml"),
        ({"contentType": "text/plain"}, None, None),
    ],
)
async def test_data_arrives_as_it_was_given(
    house: House, receiver: Sink, spec: dict[str, str], data: bytes, content_type: str
) -> None:
    await house.apply("PingSource", "tick", ping(receiver, **spec))
    await house.clock.advance(60)
    [event] = await house.received(receiver, 1)
    assert event.data == data
    assert event.attributes.get("datacontenttype") == content_type


async def test_overrides_become_extensions(house: House, receiver: Sink) -> None:
    spec = ping(receiver, ceOverrides={"extensions": {"team": "blue", "sink": "mine"}})
    await house.apply("PingSource", "tick", spec)
    await house.clock.advance(60)
    [event] = await house.received(receiver, 1)
    assert event.attributes["team"] == "blue"
    assert event.attributes["sink"] == "mine"


async def test_deliveries_name_the_namespace_they_come_from(house: House, receiver: Sink) -> None:
    await house.apply("PingSource", "tick", ping(receiver))
    await house.clock.advance(60)
    await house.received(receiver, 1)
    headers = {name.lower(): value for name, value in receiver.requests[0].headers.items()}
    assert headers["kn-namespace"] == "default"


async def test_the_status_tells_sink_event_type_and_conditions(
    house: House, receiver: Sink
) -> None:
    await house.apply("PingSource", "tick", ping(receiver))
    status = house.status("PingSource", "tick")
    assert status["sinkUri"] == receiver.url
    assert status["ceAttributes"] == [
        {
            "type": "dev.knative.sources.ping",
            "source": "/apis/v1/namespaces/default/pingsources/tick",
        }
    ]
    assert status["observedGeneration"] == 1
    assert house.conditions("PingSource", "tick") == {
        "Ready": "True", "SinkProvided": "True", "Deployed": "True", "OIDCIdentityCreated": "True",
    }  # fmt: skip


async def test_a_sink_that_is_made_later_is_taken_up(house: House, receiver: Sink) -> None:
    await house.apply("PingSource", "tick", {"sink": to("later")})
    state, reason, message = house.condition("PingSource", "tick", "SinkProvided")
    assert (state, reason) == ("False", "NotFound")
    assert 'channels.messaging.knative.dev "later" not found' in message
    assert "sinkUri" not in house.status("PingSource", "tick")
    assert "ceAttributes" not in house.status("PingSource", "tick")
    await house.clock.advance(120)
    await house.apply("Channel", "later", {})
    assert house.condition("PingSource", "tick")[0] == "False"
    await house.addressable("later", receiver.url)
    assert house.condition("PingSource", "tick")[0] == "True"
    await house.clock.advance(60)
    assert len(await house.received(receiver, 1)) == 1


async def test_events_follow_a_sink_that_moves(
    house: House, receiver: Sink, other_receiver: Sink
) -> None:
    await house.addressable("there", receiver.url)
    await house.apply("PingSource", "tick", {"sink": to("there")})
    await house.clock.advance(60)
    await house.received(receiver, 1)
    await house.addressable("there", other_receiver.url)
    await house.clock.advance(60)
    await house.received(other_receiver, 1)
    assert len(receiver.events) == 1


async def test_a_uri_beside_a_reference_is_relative_to_it(house: House, receiver: Sink) -> None:
    await house.addressable("there", receiver.url)
    await house.apply("PingSource", "tick", {"sink": {**to("there"), "uri": "/deep/inside"}})
    await house.clock.advance(60)
    await house.received(receiver, 1)
    assert receiver.requests[0].path == "/deep/inside"


async def test_a_changed_line_replaces_the_old_one(house: House, receiver: Sink) -> None:
    await house.apply("PingSource", "tick", ping(receiver, schedule="*/10 * * * * *"))
    await house.clock.advance(10)
    await house.received(receiver, 1)
    await house.apply("PingSource", "tick", ping(receiver, schedule="0 0 * * * *"))
    await house.clock.advance(300)
    assert len(receiver.events) == 1


async def test_a_deleted_source_sends_nothing(house: House, receiver: Sink) -> None:
    await house.apply("PingSource", "tick", ping(receiver))
    await house.delete("PingSource", "tick")
    await house.clock.advance(600)
    assert not receiver.requests


async def test_a_line_that_is_never_due_is_said_to_be(house: House, receiver: Sink) -> None:
    await house.apply("PingSource", "tick", ping(receiver, schedule="0 0 30 2 *"))
    state, reason, message = house.condition("PingSource", "tick", "Deployed")
    assert (state, reason) == ("True", "NeverDue")
    assert "no moment that ever comes" in message
    await house.clock.advance(3600)
    assert not receiver.requests


async def test_a_line_for_one_day_of_the_month_is_due_each_month(
    house: House, receiver: Sink
) -> None:
    await house.apply("PingSource", "tick", ping(receiver, schedule="0 12 28 * *"))
    await house.clock.advance(60 * 86400)
    events = await house.received(receiver, 2)
    assert [e.attributes["time"][:16] for e in events] == [
        f"2026-{month:02}-28T12:00" for month in (1, 2)
    ]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"schedule": "@every 5s"}, "unsupported descriptor @every: spec.schedule"),
        ({"schedule": "61 * * * *"}, "spec.schedule"),
        ({"timezone": "Mars/Olympus"}, "provided bad location Mars/Olympus"),
        ({"data": "a", "dataBase64": "YQ=="}, "expected exactly one, got both: spec.data"),
        ({"data": "[1]", "contentType": "application/json"}, "spec.data"),
        ({"ceOverrides": {"extensions": {"Bad-Name": "x"}}}, "Bad-Name"),
    ],
)
async def test_nonsense_is_refused_with_the_place(
    house: House, receiver: Sink, spec: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadRequest, match="validation.webhook.eventing.knative.dev") as error:
        await house.apply("PingSource", "tick", ping(receiver, **spec))
    assert said in str(error.value)


# -- delivery -------------------------------------------------------------------------------------


async def test_a_sink_that_fails_is_tried_again_with_growing_pauses(
    house: House, receiver: Sink
) -> None:
    receiver.answers(503, 404, Answer(close="reset"), 500, 202)
    await house.apply("PingSource", "tick", ping(receiver))
    await house.clock.advance(59)
    await house.until(lambda: len(receiver.requests) >= 5)
    assert len({event.id for event in receiver.events}) == 1
    assert house.journal.recent()[-1]["subscribers"][0]["outcome"] == "delivered"


async def test_after_five_retries_the_event_is_given_up_and_noted(
    house: House, receiver: Sink
) -> None:
    receiver.answers(503)
    await house.apply("PingSource", "tick", ping(receiver))
    await house.clock.advance(30)
    await house.until(lambda: house.journal.trails(), step=0.01)
    assert len(receiver.requests) == 6
    [entry] = house.journal.recent()
    assert entry["door"]["label"] == "PingSource default/tick"
    [told] = entry["subscribers"]
    assert told["outcome"] == "dropped"
    assert [attempt["status"] for attempt in told["attempts"]] == [503] * 6


async def test_a_refusal_is_final(house: House, receiver: Sink) -> None:
    receiver.answers(400)
    await house.apply("PingSource", "tick", ping(receiver))
    await house.clock.advance(30)
    await house.until(lambda: house.journal.trails())
    assert len(receiver.requests) == 1


async def test_a_slow_sink_delays_no_other_event(
    house: House, receiver: Sink, other_receiver: Sink
) -> None:
    receiver.answers(Answer(delay=0.5))
    await house.apply("PingSource", "slow", ping(receiver, schedule="*/10 * * * * *"))
    await house.apply("PingSource", "quick", ping(other_receiver, schedule="*/10 * * * * *"))
    await house.clock.advance(20)
    await house.received(other_receiver, 2)
    await house.received(receiver, 2)


# -- other versions -------------------------------------------------------------------------------


async def test_manifests_of_the_old_version_work(house: House, receiver: Sink) -> None:
    spec = {"sink": {"uri": receiver.url}, "data": "old", "contentType": "text/plain"}
    await house.apply("PingSource", "tick", spec, version="sources.knative.dev/v1beta2")
    await house.clock.advance(60)
    [event] = await house.received(receiver, 1)
    assert event.data == b"old"
    assert house.get("PingSource", "tick")["apiVersion"] == "sources.knative.dev/v1"


async def test_json_data_of_still_older_manifests_is_data(house: House, receiver: Sink) -> None:
    spec = {"sink": {"uri": receiver.url}, "jsonData": '{"a": 1}'}
    source = await house.apply("PingSource", "tick", spec, version="sources.knative.dev/v1beta2")
    assert source["spec"]["data"] == '{"a": 1}'
    assert source["spec"]["contentType"] == "application/json"
    assert "jsonData" not in source["spec"]
    await house.clock.advance(60)
    [event] = await house.received(receiver, 1)
    assert event.data == b'{"a": 1}'


# -- event types ----------------------------------------------------------------------------------


async def test_an_event_type_tells_what_a_source_sends_where(house: House, receiver: Sink) -> None:
    await house.addressable("there", receiver.url)
    source = await house.apply("PingSource", "tick", {"sink": to("there")})
    [found] = house.list("EventType")
    uri = "/apis/v1/namespaces/default/pingsources/tick"
    text = f"dev.knative.sources.ping{uri}{source['metadata']['uid']}"
    assert found["metadata"]["name"] == hashlib.md5(text.encode()).hexdigest()
    assert found["metadata"]["labels"]["eventing.knative.dev/sourceName"] == "tick"
    assert found["metadata"]["ownerReferences"][0]["uid"] == source["metadata"]["uid"]
    spec = found["spec"]
    attributes = {entry["name"]: entry.get("value") for entry in spec["attributes"]}
    assert attributes["type"] == "dev.knative.sources.ping"
    assert attributes["source"] == uri
    assert spec["reference"] == {**to("there")["ref"], "namespace": "default"}
    assert "cron schedule" in spec["description"]


async def test_the_event_type_follows_the_sink_and_goes_with_it(
    house: House, receiver: Sink
) -> None:
    await house.addressable("there", receiver.url)
    await house.addressable("elsewhere", receiver.url)
    await house.apply("PingSource", "tick", {"sink": to("there")})
    await house.apply("PingSource", "tick", {"sink": to("elsewhere")})
    [found] = house.list("EventType")
    assert found["spec"]["reference"]["name"] == "elsewhere"
    await house.apply("PingSource", "tick", {"sink": {"uri": receiver.url}})
    assert not house.list("EventType")
    await house.apply("PingSource", "tick", {"sink": to("there")})
    assert len(house.list("EventType")) == 1
    await house.delete("PingSource", "tick")
    assert not house.store.list(GroupKind("eventing.knative.dev", "EventType"))
