"""Channels, subscriptions, sequences and parallels, from the object to the delivered event."""

from __future__ import annotations

from typing import Any

import pytest

from knlocal.eventing import HOST_URL
from knlocal.gateway.client import ConnectError
from knlocal.resources.base import GroupKind, Obj
from tests.eventing.house import House, to
from tests.eventing.plane import Recorder, Reply

MESSAGING = "messaging.knative.dev/v1"
CHANNEL = {"apiVersion": MESSAGING, "kind": "Channel", "name": "c"}


def replying(recorder: Recorder, event_id: str) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": event_id, "ce-type": "t", "ce-source": "/r"}
    recorder.answer(Reply(200, tuple(headers.items()), b"x"))


def all_true(conditions: dict[str, str]) -> bool:
    return bool(conditions) and set(conditions.values()) == {"True"}


async def test_an_in_memory_channel_has_a_service_and_an_address(house: House) -> None:
    channel = await house.apply("InMemoryChannel", "c")
    assert house.conditions("InMemoryChannel", "c") == dict.fromkeys(
        ["Addressable", "ChannelServiceReady", "DeadLetterSinkResolved", "DispatcherReady",
         "EndpointsReady", "EventPoliciesReady", "Ready", "ServiceReady"], "True",
    )  # fmt: skip
    url = "http://c-kn-channel.default.svc.cluster.local"
    assert channel["status"]["address"] == {"name": "http", "url": url}
    host_url = channel["status"]["annotations"][HOST_URL]
    assert host_url == "http://c-kn-channel.default.localhost:8080/"
    service = house.get("Service", "c-kn-channel")
    assert service["spec"]["type"] == "ExternalName"
    assert service["metadata"]["ownerReferences"][0]["name"] == "c"
    for address in (url, host_url):
        assert (await house.post(address)).status == 202


async def test_a_channel_shows_what_its_backing_channel_does(house: House) -> None:
    channel = await house.apply("Channel", "c")
    assert house.conditions("Channel", "c") == dict.fromkeys(
        ["Addressable", "BackingChannelReady", "DeadLetterSinkResolved", "EventPoliciesReady",
         "Ready"], "True",
    )  # fmt: skip
    status = channel["status"]
    assert status["channel"] == {
        "apiVersion": MESSAGING, "kind": "InMemoryChannel", "name": "c", "namespace": "default",
    }  # fmt: skip
    assert status["address"]["url"] == "http://c-kn-channel.default.svc.cluster.local"
    await house.delete("Channel", "c")
    assert house.find("InMemoryChannel", "c") is None
    assert house.find("Service", "c-kn-channel") is None
    with pytest.raises(ConnectError, match="no service answers"):
        await house.post(status["address"]["url"])


async def test_an_unknown_kind_of_channel_is_told(house: House) -> None:
    template = {"apiVersion": "messaging.knative.dev/v1beta1", "kind": "KafkaChannel"}
    await house.apply("Channel", "c", {"channelTemplate": template})
    status, reason, message = house.condition("Channel", "c")
    assert (status, reason) == ("False", "ChannelFailure")
    assert message.startswith('no matches for kind "KafkaChannel"')


@pytest.mark.parametrize("kind", ["Channel", "InMemoryChannel"])
async def test_a_subscription_enters_the_channel(house: House, kind: str) -> None:
    sink = await house.service("sink")
    channel = await house.apply(kind, "c")
    subscription = await house.apply(
        "Subscription", "s", {"channel": {**CHANNEL, "kind": kind}, "subscriber": to("sink")}
    )
    assert house.conditions("Subscription", "s") == dict.fromkeys(
        ["AddedToChannel", "ChannelReady", "OIDCIdentityCreated", "Ready", "ReferencesResolved"],
        "True",
    )
    assert subscription["status"]["physicalSubscription"] == {
        "subscriberUri": "http://sink.default.svc.cluster.local"
    }
    [shown] = house.get("InMemoryChannel", "c")["status"]["subscribers"]
    uid = subscription["metadata"]["uid"]
    assert shown == {"uid": uid, "observedGeneration": 1, "ready": "True"}
    assert house.get(kind, "c")["status"]["subscribers"] == [shown]
    await house.post_to(kind, "c")
    assert sink.ids == ["1"]
    assert all_true(house.conditions(kind, channel["metadata"]["name"]))


async def test_a_subscription_waits_for_its_channel_and_its_subscriber(house: House) -> None:
    await house.apply("Subscription", "s", {"channel": CHANNEL, "subscriber": to("sink")})
    status, reason, message = house.condition("Subscription", "s")
    assert (status, reason) == ("Unknown", "ChannelReferenceFailed")
    assert 'channels.messaging.knative.dev "c" not found' in message
    await house.apply("Channel", "c")
    assert house.condition("Subscription", "s")[:2] == ("False", "SubscriberResolveFailed")
    assert (await house.post_to("Channel", "c")).status == 202
    sink = await house.service("sink")
    await house.delivered()
    assert house.condition("Subscription", "s")[0] == "True"
    assert sink.ids == ["1"]


async def test_a_deleted_subscription_leaves_the_channel(house: House) -> None:
    sink = await house.service("sink")
    await house.apply("Channel", "c")
    await house.apply("Subscription", "s", {"channel": CHANNEL, "subscriber": to("sink")})
    await house.delete("Subscription", "s")
    assert house.find("Subscription", "s") is None
    assert "subscribers" not in house.get("InMemoryChannel", "c")["spec"]
    await house.post_to("Channel", "c")
    assert sink.ids == []


async def test_deleting_the_channel_first_blocks_nothing(house: House) -> None:
    await house.service("sink")
    await house.apply("Channel", "c")
    await house.apply("Subscription", "s", {"channel": CHANNEL, "subscriber": to("sink")})
    await house.delete("Channel", "c")
    await house.delete("Subscription", "s")
    assert house.find("Subscription", "s") is None


async def test_a_subscriptions_parts_may_change(house: House) -> None:
    one, two, reply = [await house.service(name) for name in ("one", "two", "reply")]
    await house.apply("Channel", "c")
    await house.apply("Subscription", "s", {"channel": CHANNEL, "subscriber": to("one")})
    await house.post_to("Channel", "c", "1")
    spec = {"channel": CHANNEL, "subscriber": to("two"), "reply": to("reply")}
    await house.apply("Subscription", "s", spec)
    replying(two, "r")
    await house.post_to("Channel", "c", "2")
    assert (one.ids, two.ids, reply.ids) == (["1"], ["2"], ["r"])


async def test_without_own_delivery_the_channels_counts(house: House) -> None:
    sink, dead = await house.service("sink"), await house.service("dead")
    sink.answer(500)
    delivery = {"retry": 2, "deadLetterSink": to("dead")}
    channel = await house.apply("Channel", "c", {"delivery": delivery})
    dead_uri = "http://dead.default.svc.cluster.local"
    assert channel["status"]["deadLetterSinkUri"] == dead_uri
    spec: dict[str, Any] = {"channel": CHANNEL, "subscriber": to("sink")}
    subscription = await house.apply("Subscription", "s", spec)
    assert subscription["status"]["physicalSubscription"]["deadLetterSinkUri"] == dead_uri
    await house.post_to("Channel", "c", "1")
    assert (sink.ids, dead.ids) == (["1"] * 3, ["1"])
    await house.apply("Subscription", "s", {**spec, "delivery": {"retry": 0}})
    await house.post_to("Channel", "c", "2")
    assert (sink.ids[3:], dead.ids) == (["2"], ["1", "2"])


async def test_the_same_sink_twice_gets_the_event_twice(house: House) -> None:
    sink = await house.service("sink")
    await house.apply("Channel", "c")
    for name in ("s1", "s2"):
        await house.apply("Subscription", name, {"channel": CHANNEL, "subscriber": to("sink")})
    await house.post_to("Channel", "c")
    assert sink.ids == ["1", "1"]


async def test_entries_without_a_subscription_object_are_served_too(house: House) -> None:
    from knlocal.resources.ducks import EVENTING_CONTROLLER
    from knlocal.store.store import WriteOptions

    sink = await house.service("sink")
    channel = await house.apply("InMemoryChannel", "c")
    entry = {"uid": "u", "subscriberUri": sink.url}
    house.store.update(
        {**channel, "spec": {"subscribers": [entry]}}, WriteOptions(user=EVENTING_CONTROLLER)
    )
    await house.settled()
    await house.post_to("InMemoryChannel", "c")
    assert sink.ids == ["1"]


async def test_references_in_a_circle_end_without_harm(house: House) -> None:
    """A sequence whose reply is its own address: nothing hangs, and every hop is told."""
    step = await house.service("step")
    await house.apply("Sequence", "s", {"steps": [to("step")], "reply": to("s", "Sequence")})
    assert house.condition("Sequence", "s")[0] == "True"
    hops = 0

    async def reply_ten_times(request: Any) -> None:
        nonlocal hops
        hops += 1
        headers = {"ce-specversion": "1.0", "ce-id": str(hops), "ce-type": "t", "ce-source": "/r"}
        await request.respond(200 if hops < 10 else 204, headers.items() if hops < 10 else ())

    from knlocal.gateway import Route

    house.routes.put("test/step", {step.url[7:-1]: Route(reply_ten_times)})
    await house.post_to("Sequence", "s")
    assert hops == 10


# -- flows -----------------------------------------------------------------------------------------


async def test_a_sequence_runs_its_steps_in_order(house: House) -> None:
    one, two, last = [await house.service(name) for name in ("one", "two", "last")]
    replying(one, "from-one")
    replying(two, "from-two")
    spec = {"steps": [to("one"), to("two")], "reply": to("last")}
    sequence = await house.apply("Sequence", "s", spec)
    assert house.conditions("Sequence", "s") == dict.fromkeys(
        ["Addressable", "ChannelsReady", "EventPoliciesReady", "Ready", "SubscriptionsReady"],
        "True",
    )
    status = sequence["status"]
    assert status["address"]["url"] == "http://s-kn-sequence-0-kn-channel.default.svc.cluster.local"
    assert [c["channel"]["name"] for c in status["channelStatuses"]] == [
        "s-kn-sequence-0", "s-kn-sequence-1",
    ]  # fmt: skip
    assert [s["subscription"]["name"] for s in status["subscriptionStatuses"]] == [
        "s-kn-sequence-0", "s-kn-sequence-1",
    ]  # fmt: skip
    assert status["channelStatuses"][0]["ready"]["status"] == "True"
    await house.post_to("Sequence", "s")
    assert (one.ids, two.ids, last.ids) == (["1"], ["from-one"], ["from-two"])


async def test_a_step_without_a_reply_ends_the_sequence(house: House) -> None:
    await house.service("one")
    two = await house.service("two")
    await house.apply("Sequence", "s", {"steps": [to("one"), to("two")]})
    await house.post_to("Sequence", "s")
    assert two.ids == []


async def test_the_number_of_steps_may_change(house: House) -> None:
    recorders = [await house.service(name) for name in ("one", "two", "three")]
    for recorder in recorders:
        replying(recorder, "r")
    names = ["one", "two", "three"]
    await house.apply("Sequence", "s", {"steps": [to(name) for name in names]})
    await house.apply("Sequence", "s", {"steps": [to("three")]})
    subscriptions = house.store.list(GroupKind("messaging.knative.dev", "Subscription"))
    assert [one["metadata"]["name"] for one in subscriptions] == ["s-kn-sequence-0"]
    assert house.find("InMemoryChannel", "s-kn-sequence-1") is None
    await house.post_to("Sequence", "s")
    assert [len(recorder.ids) for recorder in recorders] == [0, 0, 1]
    await house.apply("Sequence", "s", {"steps": [to(name) for name in names]})
    assert house.condition("Sequence", "s")[0] == "True"
    await house.post_to("Sequence", "s")
    assert [len(recorder.ids) for recorder in recorders] == [1, 1, 2]


async def test_a_sequence_with_a_missing_step_is_unknown(house: House) -> None:
    await house.apply("Sequence", "s", {"steps": [to("missing")]})
    assert house.condition("Sequence", "s")[:2] == ("Unknown", "SubscriptionsNotReady")


async def test_a_steps_own_delivery_counts(house: House) -> None:
    one, dead = await house.service("one"), await house.service("dead")
    one.answer(500)
    delivery = {"retry": 1, "deadLetterSink": to("dead")}
    await house.apply("Sequence", "s", {"steps": [{**to("one"), "delivery": delivery}]})
    await house.post_to("Sequence", "s")
    assert (one.ids, dead.ids) == (["1", "1"], ["1"])


async def test_a_parallel_runs_its_branches_side_by_side(house: House) -> None:
    names = ("filter", "yes", "no", "common", "special", "drop")
    made = {name: await house.service(name) for name in names}
    replying(made["filter"], "filtered")
    replying(made["yes"], "from-yes")
    replying(made["no"], "from-no")
    branches = [
        {"filter": to("filter"), "subscriber": to("yes")},
        {"subscriber": to("no"), "reply": to("special")},
        {"filter": to("drop"), "subscriber": to("yes")},
    ]
    parallel = await house.apply("Parallel", "p", {"branches": branches, "reply": to("common")})
    assert all_true(house.conditions("Parallel", "p"))
    status = parallel["status"]
    assert status["ingressChannelStatus"]["channel"]["name"] == "p-kn-parallel"
    first = status["branchStatuses"][0]
    assert first["filterSubscriptionStatus"]["subscription"]["name"] == "p-kn-parallel-filter-0"
    assert first["filterChannelStatus"]["channel"]["name"] == "p-kn-parallel-0"
    assert first["subscriberSubscriptionStatus"]["subscription"]["name"] == "p-kn-parallel-0"
    await house.post_to("Parallel", "p")
    assert {name: recorder.ids for name, recorder in made.items()} == {
        "filter": ["1"], "yes": ["filtered"], "no": ["1"], "common": ["from-yes"],
        "special": ["from-no"], "drop": ["1"],
    }  # fmt: skip


async def test_a_parallel_that_is_not_ready_is_false(house: House) -> None:
    await house.apply("Parallel", "p", {"branches": [{"subscriber": to("missing")}]})
    assert house.condition("Parallel", "p")[:2] == ("False", "SubscriptionsNotReady")


async def test_branches_may_come_and_go(house: House) -> None:
    one, two = await house.service("one"), await house.service("two")
    spec = [{"subscriber": to("one")}, {"subscriber": to("two")}]
    await house.apply("Parallel", "p", {"branches": spec})
    await house.apply("Parallel", "p", {"branches": spec[:1]})
    await house.post_to("Parallel", "p")
    assert (one.ids, two.ids) == (["1"], [])
    assert house.find("InMemoryChannel", "p-kn-parallel-1") is None


BAD_TEMPLATE = {
    "apiVersion": MESSAGING, "kind": "InMemoryChannel", "spec": {"delivery": {"retry": -1}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "spec", "condition", "status"),
    [
        ("Channel", {}, "BackingChannelReady", "False"),
        ("Sequence", {"steps": [{"uri": "http://s"}]}, "ChannelsReady", "Unknown"),
        ("Parallel", {"branches": [{"subscriber": {"uri": "http://s"}}]}, "ChannelsReady", "False"),
    ],
)
async def test_a_template_that_makes_no_channel_is_told(
    house: House, kind: str, spec: Obj, condition: str, status: str
) -> None:
    await house.apply(kind, "x", {**spec, "channelTemplate": BAD_TEMPLATE})
    found = house.condition(kind, "x", condition)
    assert found[0] == status
    assert "invalid value: -1: spec.delivery.retry" in found[2]


async def test_a_channel_whose_service_could_have_no_name_tells_so(house: House) -> None:
    name = "n" * 60
    await house.apply("Channel", name)
    status, reason, message = house.condition("Channel", name)
    assert (status, reason) == ("False", "ChannelServiceFailed")
    assert "must be no more than 63" in message


async def test_only_a_channel_can_be_subscribed_to(house: House) -> None:
    await house.apply("Broker", "b")
    channel = {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "b"}
    await house.apply("Subscription", "s", {"channel": channel, "subscriber": {"uri": "http://s"}})
    assert house.condition("Subscription", "s") == (
        "False", "ChannelReferenceFailed",
        ('Failed to validate spec.channel: crd "brokers.eventing.knative.dev" does not contain '
        'mandatory label "messaging.knative.dev/subscribable"'),
    )  # fmt: skip
