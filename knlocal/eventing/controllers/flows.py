"""Sequence and Parallel: channels and subscriptions in Knative's names (behaviours E55–E58)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from knlocal.control.conditions import Conditions, find_condition
from knlocal.control.controller import Requeue, Watching, owned_by
from knlocal.eventing.children import ChildError, child, ensure, remove_others
from knlocal.eventing.controller import EventingController, policies_off
from knlocal.eventing.plane import IN_MEMORY_CHANNEL, SUBSCRIPTION
from knlocal.resources.annotations import HOST_URL
from knlocal.resources.base import GroupKind, Key, Obj, is_deleting, spec_of, status_of
from knlocal.resources.names import child_name

SEQUENCE = GroupKind("flows.knative.dev", "Sequence")
PARALLEL = GroupKind("flows.knative.dev", "Parallel")
MESSAGING = "messaging.knative.dev/v1"


class FlowController(EventingController):
    """A flow is channels and subscriptions; it is as ready as they are."""

    dependents = ("ChannelsReady", "SubscriptionsReady", "Addressable", "EventPoliciesReady")

    def watches(self) -> Sequence[Watching]:
        return [
            Watching(IN_MEMORY_CHANNEL, owned_by(self.kind)),
            Watching(SUBSCRIPTION, owned_by(self.kind)),
        ]

    async def reconcile(self, key: Key) -> Requeue | None:
        flow = self.store.find_key(key)
        self.destinations.begin(key)
        if flow is None or is_deleting(flow):
            return None
        status: dict[str, Any] = dict(status_of(flow))
        conditions = self.conditions(flow)
        policies_off(conditions)
        template = spec_of(flow)["channelTemplate"]
        if self.store.registry.by_version(template["apiVersion"], template["kind"]) is None:
            self.tell(
                conditions, "ChannelsReady", "ChannelsNotReady",
                f'no matches for kind "{template["kind"]}" in version "{template["apiVersion"]}"',
            )  # fmt: skip
        else:
            try:
                self.build(flow, status, conditions)
            except ChildError as error:
                self.tell(conditions, "ChannelsReady", "ChannelsNotReady", str(error))
        self.finish(flow, status, conditions)
        return None

    # -- what Sequence and Parallel do in their own ways ----------------------------------------

    def build(self, flow: Obj, status: dict[str, Any], conditions: Conditions) -> None:
        raise NotImplementedError

    def tell(self, conditions: Conditions, type_: str, reason: str, message: str) -> None:
        """How not-ready is said: Unknown in a Sequence, False in a Parallel."""
        raise NotImplementedError

    # -- what they share --------------------------------------------------------------------------

    def channel(self, flow: Obj, name: str) -> Obj:
        template = spec_of(flow)["channelTemplate"]
        wanted = child(
            flow, template["apiVersion"], template["kind"], name, template.get("spec") or {}
        )
        return ensure(self.store, flow, wanted)

    def subscription(
        self,
        flow: Obj,
        name: str,
        channel: Obj,
        subscriber: Obj,
        reply: Obj | None,
        delivery: Obj | None,
    ) -> Obj:
        spec = {
            "channel": _reference(channel),
            "subscriber": _bare(subscriber),
            "reply": _bare(reply) if reply else None,
            "delivery": delivery or None,
        }
        wanted = child(flow, MESSAGING, "Subscription", name, spec)
        if self.store.find(SUBSCRIPTION, flow["metadata"]["namespace"], name) is None:
            wanted["spec"] = {field: value for field, value in spec.items() if value}
        return ensure(self.store, flow, wanted, fixed=("channel",))

    def told_channel(self, channel: Obj) -> dict[str, Any]:
        """A channel's entry in the status: ready when it can be addressed."""
        ready: dict[str, Any] = {
            "type": "Ready", "status": "Unknown", "reason": "NotAddressable",
            "message": "Channel is not addressable",
        }  # fmt: skip
        if status_of(channel).get("address"):
            ready = find_condition(channel) or ready
        return {"channel": {**_reference(channel), "namespace": _namespace(channel)},
                "ready": ready}  # fmt: skip

    def told_subscription(self, subscription: Obj) -> dict[str, Any]:
        ready = find_condition(subscription) or {
            "type": "Ready", "status": "Unknown", "reason": "NoReady",
            "message": "Subscription does not have Ready condition",
        }  # fmt: skip
        return {
            "subscription": {
                "apiVersion": MESSAGING, "kind": "Subscription",
                "name": subscription["metadata"]["name"], "namespace": _namespace(subscription),
            },
            "ready": ready,
        }  # fmt: skip

    def told_ready(
        self, conditions: Conditions, type_: str, entries: Sequence[dict[str, Any]], noun: str
    ) -> None:
        if entries and all(entry["ready"].get("status") == "True" for entry in entries):
            conditions.true(type_)
        else:
            said = f"{noun} are not ready yet, or there are none"
            self.tell(conditions, type_, f"{noun}NotReady", said)

    def address_of(self, channel: Obj, status: dict[str, Any], conditions: Conditions) -> None:
        """The flow's address is its first channel's."""
        address = status_of(channel).get("address")
        if not address:
            status.pop("address", None)
            self.tell(conditions, "Addressable", "emptyAddress", "addressable is nil")
            return
        status["address"] = address
        host_url = (status_of(channel).get("annotations") or {}).get(HOST_URL)
        if host_url:
            status["annotations"] = {**(status.get("annotations") or {}), HOST_URL: host_url}
        conditions.true("Addressable")


class SequenceController(FlowController):
    kind = SEQUENCE

    def tell(self, conditions: Conditions, type_: str, reason: str, message: str) -> None:
        conditions.unknown(type_, reason, message)

    def build(self, flow: Obj, status: dict[str, Any], conditions: Conditions) -> None:
        spec = spec_of(flow)
        steps = spec.get("steps") or []
        names = [
            child_name(flow["metadata"]["name"], f"-kn-sequence-{n}") for n in range(len(steps))
        ]
        channels = [self.channel(flow, name) for name in names]
        subscriptions = []
        for index, step in enumerate(steps):
            last = index == len(steps) - 1
            reply = spec.get("reply") if last else {"ref": _reference(channels[index + 1])}
            subscriptions.append(
                self.subscription(
                    flow, names[index], channels[index], step, reply, step.get("delivery")
                )
            )
        remove_others(self.store, flow, set(names), "Subscription", channels[0]["kind"])
        status["channelStatuses"] = [self.told_channel(channel) for channel in channels]
        status["subscriptionStatuses"] = [self.told_subscription(one) for one in subscriptions]
        self.told_ready(conditions, "ChannelsReady", status["channelStatuses"], "Channels")
        self.told_ready(
            conditions, "SubscriptionsReady", status["subscriptionStatuses"], "Subscriptions"
        )
        self.address_of(channels[0], status, conditions)


class ParallelController(FlowController):
    kind = PARALLEL

    def tell(self, conditions: Conditions, type_: str, reason: str, message: str) -> None:
        conditions.false(type_, reason, message)

    def build(self, flow: Obj, status: dict[str, Any], conditions: Conditions) -> None:
        spec = spec_of(flow)
        branches = spec.get("branches") or []
        named: Callable[[str], str] = lambda suffix: child_name(  # noqa: E731
            flow["metadata"]["name"], f"-kn-parallel{suffix}"
        )
        ingress = self.channel(flow, named(""))
        keep = {named("")}
        statuses = []
        for index, branch in enumerate(branches):
            channel = self.channel(flow, named(f"-{index}"))
            to_channel = {"ref": _reference(channel)}
            chosen = branch.get("filter")
            filtered = self.subscription(
                flow,
                named(f"-filter-{index}"),
                ingress,
                chosen or to_channel,
                to_channel if chosen else None,
                None,
            )
            subscriber = self.subscription(
                flow,
                named(f"-{index}"),
                channel,
                branch["subscriber"],
                branch.get("reply") or spec.get("reply"),
                branch.get("delivery"),
            )
            keep |= {named(f"-{index}"), named(f"-filter-{index}")}
            statuses.append(
                {
                    "filterSubscriptionStatus": self.told_subscription(filtered),
                    "filterChannelStatus": self.told_channel(channel),
                    "subscriberSubscriptionStatus": self.told_subscription(subscriber),
                }
            )
        remove_others(self.store, flow, keep, "Subscription", ingress["kind"])
        status["ingressChannelStatus"] = self.told_channel(ingress)
        status["branchStatuses"] = statuses
        channels = [status["ingressChannelStatus"], *(s["filterChannelStatus"] for s in statuses)]
        self.told_ready(conditions, "ChannelsReady", channels, "Channels")
        subscriptions = [s["filterSubscriptionStatus"] for s in statuses]
        subscriptions += [s["subscriberSubscriptionStatus"] for s in statuses]
        self.told_ready(conditions, "SubscriptionsReady", subscriptions, "Subscriptions")
        self.address_of(ingress, status, conditions)


def _reference(channel: Obj) -> dict[str, Any]:
    return {
        "apiVersion": channel["apiVersion"],
        "kind": channel["kind"],
        "name": channel["metadata"]["name"],
    }


def _namespace(obj: Obj) -> str:
    return str(obj["metadata"]["namespace"])


def _bare(destination: Obj) -> dict[str, Any]:
    """A destination without what a step has beside it."""
    fields = ("ref", "uri", "CACerts", "audience")
    return {field: destination[field] for field in fields if destination.get(field)}
