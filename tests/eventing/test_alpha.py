"""RequestReply and EventPolicy."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from knlocal.eventing.cesql import compile_expression
from knlocal.eventing.correlation import CorrelationKeys
from knlocal.resources.base import GroupKind
from tests.eventing.house import House, to


async def ask(
    house: House, kind: str, name: str, body: bytes, *, path: str = "", **more: str
) -> Any:
    """Post, and wait for the answer."""
    url = house.get(kind, name)["status"]["address"]["url"] + path
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "/s",
               "content-type": "application/json", **more}  # fmt: skip
    return await asyncio.wait_for(house.client.request("POST", url, headers.items(), body), 10)


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
    answer = await ask(
        house, "RequestReply", "rr", b"{}", path="/reply", **{"ce-replyid": "1:bm8=:0"}
    )
    assert answer.status == 400


async def test_a_forged_reply_id_does_not_even_reach_the_door(house: House) -> None:
    await house.apply("Broker", "b")
    await house.apply("RequestReply", "rr", {"brokerRef": to("b", "Broker")["ref"]})
    trigger = house.get("Trigger", "rr0-1")
    assert trigger["metadata"]["labels"] == {
        "eventing.knative.dev/broker": "b",
        "eventing.knative.dev/RequestReply.name": "rr",
        "eventing.knative.dev/RequestReply.namespace": "default",
        "eventing.knative.dev/RequestReply.dataPlaneReplicas": "1",
    }
    [expression] = [one["cesql"] for one in trigger["spec"]["filters"]]
    secret = house.store.get(GroupKind("", "Secret"), "knative-eventing", "request-reply-keys")
    assert list(secret["data"]) == ["default.rr.key-0"]
    given = CorrelationKeys(house.store).seal("default", "rr", "an:id")
    matches = compile_expression(expression).matches
    assert matches({"replyid": given})
    assert not matches({"replyid": "x" + given})
    assert not matches({"replyid": "an:id:bm8=:0"})
    assert not matches({"replyid": ""})
    assert not matches({})


async def test_a_key_serves_through_a_rotation_and_goes_with_its_object(house: House) -> None:
    await house.apply("Broker", "b")
    await house.apply("RequestReply", "rr", {"brokerRef": to("b", "Broker")["ref"]})
    keys = CorrelationKeys(house.store)
    before = keys.seal("default", "rr", "1")

    def rotate(secret: Any) -> None:
        secret["data"]["default.rr.key-1"] = base64.b64encode(bytes(32)).decode()
        secret["data"]["default.rr.key-2"] = "bm8="

    kind = GroupKind("", "Secret")
    house.store.modify(kind, "knative-eventing", "request-reply-keys", rotate)
    assert keys.verify(before, "default", "rr")
    assert keys.verify(keys.seal("default", "rr", "2"), "default", "rr")
    await house.delete("RequestReply", "rr")
    assert not keys.verify(before, "default", "rr")
    assert house.store.get(kind, "knative-eventing", "request-reply-keys")["data"] == {}


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
