"""`cross-namespace-event-links`: a Trigger's broker and a Subscription's channel elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from knlocal.resources.base import GroupKind
from knlocal.resources.status import StatusError
from tests.eventing.house import House, to

FAR = {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "b", "namespace": "far"}


@pytest.fixture(autouse=True)
async def another_namespace(house: House) -> None:
    house.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "far"}})


async def switch(house: House, value: str) -> None:
    house.store.modify(
        GroupKind("", "ConfigMap"), "knative-eventing", "config-features",
        lambda obj: obj["data"].__setitem__("cross-namespace-event-links", value),
    )  # fmt: skip
    await house.settled()


def posts(house: House) -> Any:
    url = house.get("Broker", "b", "far")["status"]["address"]["url"]
    return lambda event_id: house.post(url, event_id)


async def test_a_trigger_hears_a_broker_of_another_namespace(house: House) -> None:
    await switch(house, "enabled")
    near = await house.service("near")
    await house.apply("Broker", "b", namespace="far")
    trigger = await house.apply("Trigger", "t", {"brokerRef": FAR, "subscriber": to("near")})
    assert trigger["metadata"]["labels"] == {"eventing.knative.dev/broker": "b"}
    assert house.condition("Trigger", "t")[0] == "True"
    assert (await posts(house)("1")).status == 202
    await house.settled()
    assert [event.id for event in near.events] == ["1"]
    await house.delete("Trigger", "t")
    await posts(house)("2")
    await house.settled()
    assert [event.id for event in near.events] == ["1"]


async def test_its_readiness_follows_the_broker_that_comes_and_goes(house: House) -> None:
    await switch(house, "enabled")
    await house.service("near")
    await house.apply("Broker", "b")
    await house.apply("Trigger", "t", {"brokerRef": FAR, "subscriber": to("near")})
    assert house.condition("Trigger", "t")[:2] == ("False", "BrokerDoesNotExist")
    await house.apply("Broker", "b", namespace="far")
    assert house.condition("Trigger", "t")[0] == "True"
    await house.delete("Broker", "b", "far")
    assert house.condition("Trigger", "t")[:2] == ("False", "BrokerDoesNotExist")


async def test_without_the_feature_the_reference_says_nothing(house: House) -> None:
    near = await house.service("near")
    await house.apply("Broker", "b", namespace="far")
    with pytest.raises(StatusError, match="missing field"):
        await house.apply("Trigger", "t", {"brokerRef": FAR, "subscriber": to("near")})
    spec = {"broker": "b", "brokerRef": FAR, "subscriber": to("near")}
    await house.apply("Trigger", "t", spec)
    assert house.condition("Trigger", "t")[:2] == ("False", "BrokerDoesNotExist")
    await posts(house)("1")
    await switch(house, "enabled")
    assert house.condition("Trigger", "t")[0] == "True"
    await posts(house)("2")
    await switch(house, "disabled")
    assert house.condition("Trigger", "t")[0] == "False"
    await posts(house)("3")
    await house.settled()
    assert [event.id for event in near.events] == ["2"]


async def test_a_reference_to_a_broker_cannot_be_changed(house: House) -> None:
    await switch(house, "enabled")
    await house.apply("Trigger", "t", {"brokerRef": FAR, "subscriber": to("near")})
    changed = {**FAR, "namespace": "farther"}
    with pytest.raises(StatusError, match="Immutable fields changed"):
        await house.apply("Trigger", "t", {"brokerRef": changed, "subscriber": to("near")})


@pytest.mark.parametrize("kind", ["Channel", "InMemoryChannel"])
async def test_a_subscription_hears_a_channel_of_another_namespace(house: House, kind: str) -> None:
    near = await house.service("near")
    await house.apply(kind, "c", {}, namespace="far")
    channel = {"apiVersion": "messaging.knative.dev/v1", "kind": kind, "name": "c",
               "namespace": "far"}  # fmt: skip
    spec = {"channel": channel, "subscriber": to("near")}
    with pytest.raises(StatusError, match="must not set the field"):
        await house.apply("Subscription", "s", spec)
    await switch(house, "enabled")
    await house.apply("Subscription", "s", spec)
    assert house.condition("Subscription", "s")[0] == "True"
    [entry] = house.get("InMemoryChannel", "c", "far")["spec"]["subscribers"]
    assert entry["name"] == "s"
    url = house.get(kind, "c", "far")["status"]["address"]["url"]
    await house.post(url, "1")
    await house.settled()
    assert [event.id for event in near.events] == ["1"]
    await house.delete("Subscription", "s")
    assert "subscribers" not in house.get("InMemoryChannel", "c", "far")["spec"]
    await house.post(url, "2")
    await house.settled()
    assert [event.id for event in near.events] == ["1"]
