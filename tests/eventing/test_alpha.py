"""RequestReply and EventPolicy."""

from __future__ import annotations

import asyncio
from typing import Any

from knlocal.resources.base import GroupKind
from tests.eventing.house import House, to


async def ask(house: House, kind: str, name: str, body: bytes, **more: str) -> Any:
    """Post, and wait for the answer."""
    url = house.get(kind, name)["status"]["address"]["url"]
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
