"""EventTransform, RequestReply, EventPolicy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from knlocal.events import decode
from knlocal.resources.base import GroupKind
from tests.eventing.house import House, to
from tests.eventing.plane import Reply

RENAME = (
    '{"specversion": "1.0", "id": id, "type": "renamed." & type, "source": source, "ext": ext,'
    ' "data": {"total": $sum(data.prices)}}'
)


async def ask(house: House, kind: str, name: str, body: bytes, **more: str) -> Any:
    """Post and wait for the answer; JSONata runs on a thread."""
    url = house.get(kind, name)["status"]["address"]["url"]
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "/s",
               "content-type": "application/json", **more}  # fmt: skip
    return await asyncio.wait_for(house.client.request("POST", url, headers.items(), body), 10)


async def test_without_a_sink_the_answer_is_the_transformed_event(house: House) -> None:
    await house.apply("EventTransform", "x", {"jsonata": {"expression": RENAME}})
    assert house.condition("EventTransform", "x")[0] == "True"
    answer = await ask(house, "EventTransform", "x", b'{"prices": [1, 2.5]}', **{"ce-ext": "e"})
    event = decode(answer.headers, answer.body)
    assert (answer.status, event.type, event.attributes["ext"]) == (200, "renamed.t", "e")
    assert event.data == b'{"total":3.5}'


async def test_a_transform_is_a_subscriber_whose_reply_reenters_the_broker(house: House) -> None:
    sink = await house.service("sink")
    await house.apply("EventTransform", "x", {"jsonata": {"expression": RENAME}})
    await house.apply("Broker", "b")
    spec = {"broker": "b", "subscriber": to("x", "EventTransform")}
    await house.apply("Trigger", "in", {**spec, "filter": {"attributes": {"type": "t"}}})
    wanted = {"attributes": {"type": "renamed.t"}}
    await house.apply("Trigger", "out", {"broker": "b", "subscriber": to("sink"), "filter": wanted})
    await house.post_to("Broker", "b", content_type="application/json")
    for _ in range(200):
        if sink.ids:
            break
        await asyncio.sleep(0.01)
    assert sink.ids == ["1"]


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        (None, 200, b'{"prices": [7]}'),
        ({"discard": True}, 200, b""),
        ({"jsonata": {"expression": RENAME}}, 200, b'{"total":7}'),
    ],
)
async def test_with_a_sink_the_answer_is_the_sinks(
    house: House, reply: Any, status: int, body: bytes
) -> None:
    sink = await house.service("sink")
    headers = {"ce-specversion": "1.0", "ce-id": "r", "ce-type": "re", "ce-source": "/r",
               "content-type": "application/json"}  # fmt: skip
    sink.answer(Reply(200, tuple(headers.items()), b'{"prices": [7]}'))
    spec: dict[str, Any] = {"jsonata": {"expression": RENAME}, "sink": to("sink")}
    transform = await house.apply("EventTransform", "x", spec | ({"reply": reply} if reply else {}))
    assert transform["status"]["sinkUri"] == "http://sink.default.svc.cluster.local"
    answer = await ask(house, "EventTransform", "x", b'{"prices": [1]}')
    assert (answer.status, answer.body) == (status, body)
    assert sink.events[0].type == "renamed.t"


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("$error('no')", "the expression failed"),
        ('{"a": 1}', "no valid CloudEvent: specversion: REQUIRED"),
        ("42", "no valid CloudEvent"),
        ("nothing.here", "no valid CloudEvent"),
    ],
)
async def test_an_expression_that_fails_is_told(house: House, expression: str, says: str) -> None:
    await house.apply("EventTransform", "x", {"jsonata": {"expression": expression}})
    answer = await ask(house, "EventTransform", "x", b"{}")
    assert answer.status == 500
    assert says in answer.body.decode()


async def test_an_expression_that_does_not_parse_is_a_condition(house: House) -> None:
    await house.apply("EventTransform", "x", {"jsonata": {"expression": '{"a": '}})
    status, reason, message = house.condition("EventTransform", "x")
    assert (status, reason) == ("False", "InvalidExpression")
    assert "invalid JSONata expression" in message


async def test_a_question_waits_for_its_reply(house: House) -> None:
    worker = await house.service("worker")
    await house.apply("Broker", "b")
    await house.apply("RequestReply", "rr", {"brokerRef": to("b", "Broker")["ref"]})
    await house.apply("Trigger", "work", {
        "broker": "b", "subscriber": to("worker"), "filters": [{"cesql": "NOT EXISTS replyid"}],
    })  # fmt: skip
    assert house.conditions("RequestReply", "rr") == dict.fromkeys(
        ["Addressable", "BrokerReady", "EventPoliciesReady", "Ready", "TriggersReady"], "True"
    )

    async def reply(request: Any) -> None:
        await request.read(1000)
        headers = {"ce-specversion": "1.0", "ce-id": "r", "ce-type": "re", "ce-source": "/r",
                   "ce-replyid": request.headers["ce-correlationid"]}  # fmt: skip
        await request.respond(200, headers.items(), b"answer")

    from knlocal.gateway import Route

    house.routes.put("test/worker", {worker.url[7:-1]: Route(reply)})
    answer = await ask(house, "RequestReply", "rr", b"{}")
    assert (answer.status, answer.body, answer.headers["ce-id"]) == (200, b"answer", "r")


async def test_a_question_nobody_answers_ends_in_time(house: House) -> None:
    await house.apply("Broker", "b")
    spec = {"brokerRef": to("b", "Broker")["ref"], "timeout": "PT5S"}
    await house.apply("RequestReply", "rr", spec)
    asking = asyncio.ensure_future(ask(house, "RequestReply", "rr", b"{}"))
    await house.clock.advance(6)
    assert (await asking).status == 504


async def test_a_reply_that_was_not_asked_for_is_refused(house: House) -> None:
    await house.apply("Broker", "b")
    await house.apply("RequestReply", "rr", {"brokerRef": to("b", "Broker")["ref"]})
    answer = await ask(house, "RequestReply", "rr", b"{}", **{"ce-replyid": "1:bm8=:0"})
    assert answer.status == 400


async def test_policies_need_the_feature(house: House) -> None:
    config_map = GroupKind("", "ConfigMap")
    house.store.modify(
        config_map, "knative-eventing", "config-features",
        lambda obj: obj["data"].__setitem__("authentication-oidc", "enabled"),
    )  # fmt: skip
    subject = "system:serviceaccount:default:me"
    policy = await house.apply("EventPolicy", "p", {"from": [{"sub": subject}]})
    assert house.condition("EventPolicy", "p")[0] == "True"
    assert policy["status"]["from"] == [subject]
    house.store.modify(
        config_map, "knative-eventing", "config-features",
        lambda obj: obj["data"].__setitem__("authentication-oidc", "disabled"),
    )  # fmt: skip
    await house.settled()
    assert house.condition("EventPolicy", "p")[:2] == ("False", "OIDCAuthenticationDisabled")
