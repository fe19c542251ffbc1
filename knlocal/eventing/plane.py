"""From objects to the data plane: what the exchange of a broker or channel serves, worked out anew
from the store whenever something about it changes, so that no event misses a subscriber."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from functools import lru_cache
from typing import Any

from knlocal.control.conditions import find_condition
from knlocal.eventing import links
from knlocal.eventing.addresses import BROKER_INGRESS, SYSTEM, Addresses, channel_service
from knlocal.eventing.cesql import CesqlError
from knlocal.eventing.delivery import policy_of
from knlocal.eventing.dispatcher import Dispatcher
from knlocal.eventing.eventtypes import EventTypeRegistrar
from knlocal.eventing.exchange import Exchange
from knlocal.eventing.filters import Filter, Refusal, trigger_filter
from knlocal.eventing.ingress import MAX_EVENT, BrokerIngress, ChannelIngress
from knlocal.eventing.subscription import Subscription
from knlocal.gateway import RouteTable
from knlocal.journal import Door
from knlocal.resources.annotations import DURABLE
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    annotations_of,
    is_deleting,
    spec_of,
    status_of,
    uid_of,
)
from knlocal.resources.eventing import BROKER_CLASS
from knlocal.store.store import Store

BROKER = GroupKind("eventing.knative.dev", "Broker")
TRIGGER = GroupKind("eventing.knative.dev", "Trigger")
CHANNEL = GroupKind("messaging.knative.dev", "Channel")
IN_MEMORY_CHANNEL = GroupKind("messaging.knative.dev", "InMemoryChannel")
SUBSCRIPTION = GroupKind("messaging.knative.dev", "Subscription")

DURABLE_CLASS = "Durable"
"""The broker class that means the same as the annotation."""

ORDER = (
    "eventing.knative.dev/delivery.order",
    "knlocal.dev/delivery-order",
    "kafka.eventing.knative.dev/delivery.order",
)
"""Annotations on a Trigger or Subscription: "ordered" (the default) or "unordered"."""
PARALLELISM = "knlocal.dev/delivery-parallelism"
DEFAULT_PARALLELISM = 32


class Plane:
    """One dispatcher, fed from the store; and the routes that lead to it."""

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        routes: RouteTable,
        addresses: Addresses,
        *,
        max_event: int = MAX_EVENT,
    ) -> None:
        self.store = store
        self.dispatcher = dispatcher
        self.addresses = addresses
        self.event_types = EventTypeRegistrar(store)
        self._routes = routes
        self._max_event = max_event
        self._locks: dict[tuple[str, str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    def open_doors(self) -> None:
        """The brokers' common host."""
        ingress = BrokerIngress(
            lambda namespace, name: self.dispatcher.exchange("Broker", namespace, name),
            self._max_event,
            why_not=self._why_not,
        )
        hosts = self.addresses.hosts(BROKER_INGRESS, SYSTEM)
        self._routes.put("eventing/brokers", dict.fromkeys(hosts, ingress.route))

    def _why_not(self, namespace: str, name: str) -> str:
        broker = self.store.find(BROKER, namespace, name)
        if broker is None:
            return ""
        return f"broker {name} in {namespace} has no address: {_not_yet(broker, 'Ready')}"

    # -- brokers ------------------------------------------------------------------------------

    async def sync_broker(self, namespace: str, name: str) -> None:
        """Serve the broker as the store has it now. One that lost its address keeps what it has:
        only a broker that is gone takes its events with it."""
        async with self._locks["Broker", namespace, name]:
            broker = self.store.find(BROKER, namespace, name)
            if broker is None:
                await self.dispatcher.remove("Broker", namespace, name)
                return
            if not status_of(broker).get("address"):
                return
            url = self.addresses.broker(namespace, name)
            exchange = await self.dispatcher.serve(
                Door("Broker", namespace, name, url),
                self._triggers(broker, url),
                is_broker=True,
                engine="durable" if is_durable(broker) else "memory",
            )
            exchange.observe = self.event_types.observer(broker)

    def _triggers(self, broker: Obj, url: str) -> list[Subscription]:
        return [
            self._trigger(trigger, broker, url)
            for trigger in links.triggers_of(self.store, broker)
            if not is_deleting(trigger)
        ]

    def _trigger(self, trigger: Obj, broker: Obj, url: str) -> Subscription:
        metadata, spec, status = trigger["metadata"], spec_of(trigger), status_of(trigger)
        delivery = spec.get("delivery") or spec_of(broker).get("delivery")
        dead_letter = status.get("deadLetterSinkUri")
        if not (spec.get("delivery") or {}).get("deadLetterSink"):
            dead_letter = status_of(broker).get("deadLetterSinkUri")
        return Subscription(
            uid=uid_of(trigger),
            name=f"trigger {metadata['namespace']}/{metadata['name']}",
            namespace=metadata["namespace"],
            subscriber=status.get("subscriberUri") or "",
            unresolved=_not_yet(trigger, "SubscriberResolved", "DependencyReady"),
            reply=url,
            dead_letter=dead_letter or "",
            policy=policy_of(delivery),
            filter=compiled_filter(trigger),
            strict_reply=True,
            parallel=parallelism(trigger),
            observe=self.event_types.observer(trigger),
        )

    # -- channels -----------------------------------------------------------------------------

    async def sync_channel(self, namespace: str, name: str) -> None:
        """Serve the InMemoryChannel as the store has it now."""
        async with self._locks["InMemoryChannel", namespace, name]:
            channel = self.store.find(IN_MEMORY_CHANNEL, namespace, name)
            owner = f"eventing/channel/{namespace}/{name}"
            if channel is None:
                self._routes.remove(owner)
                await self.dispatcher.remove("InMemoryChannel", namespace, name)
                return
            if not status_of(channel).get("address"):
                return
            exchange = await self.dispatcher.serve(
                Door("InMemoryChannel", namespace, name, self.addresses.channel(namespace, name)),
                self._channel_subscriptions(channel),
                is_broker=False,
                engine="durable" if is_durable(channel) else "memory",
            )
            exchange.observe = self.event_types.observer(channel)
            ingress = ChannelIngress(exchange, self._max_event)
            hosts = self.addresses.hosts(channel_service(name), namespace)
            self._routes.put(owner, dict.fromkeys(hosts, ingress.route))

    def _channel_subscriptions(self, channel: Obj) -> list[Subscription]:
        namespace, name = channel["metadata"]["namespace"], channel["metadata"]["name"]
        key = Key(*IN_MEMORY_CHANNEL, namespace, name)
        place = None if links.are_on(self.store) else namespace
        found = [
            self._subscription(subscription, channel)
            for subscription in self.store.list(SUBSCRIPTION, place)
            if not is_deleting(subscription)
            and links.backing_channel(self.store, subscription) == key
        ]
        known = {one.uid for one in found}
        for entry in spec_of(channel).get("subscribers") or []:
            if entry.get("uid") not in known:
                found.append(self._bare(entry, channel))
        return found

    def _subscription(self, subscription: Obj, channel: Obj) -> Subscription:
        metadata, spec = subscription["metadata"], spec_of(subscription)
        physical = status_of(subscription).get("physicalSubscription") or {}
        return Subscription(
            uid=uid_of(subscription),
            name=f"subscription {metadata['namespace']}/{metadata['name']}",
            namespace=metadata["namespace"],
            subscriber=physical.get("subscriberUri") or "",
            unresolved=_not_yet(subscription, "ReferencesResolved"),
            reply=physical.get("replyUri") or "",
            dead_letter=physical.get("deadLetterSinkUri")
            or status_of(channel).get("deadLetterSinkUri")
            or "",
            policy=policy_of(spec.get("delivery") or spec_of(channel).get("delivery")),
            parallel=parallelism(subscription),
            observe=self.event_types.observer(subscription),
        )

    def _bare(self, entry: dict[str, Any], channel: Obj) -> Subscription:
        """An entry of a channel that no Subscription object stands behind."""
        delivery = entry.get("delivery") or {}
        dead_letter = (delivery.get("deadLetterSink") or {}).get("uri")
        place = f"{channel['metadata']['namespace']}/{channel['metadata']['name']}"
        return Subscription(
            uid=str(entry.get("uid") or entry.get("subscriberUri") or entry.get("replyUri")),
            name=f"subscriber {entry.get('name') or entry.get('uid') or ''} of {place}",
            namespace=channel["metadata"]["namespace"],
            subscriber=entry.get("subscriberUri") or "",
            reply=entry.get("replyUri") or "",
            dead_letter=dead_letter or status_of(channel).get("deadLetterSinkUri") or "",
            policy=policy_of(delivery or spec_of(channel).get("delivery")),
        )

    def exchange_of(self, kind: str, namespace: str, name: str) -> Exchange | None:
        return self.dispatcher.exchange(kind, namespace, name)


def is_durable(obj: Obj) -> bool:
    annotations = annotations_of(obj)
    return (
        annotations.get(DURABLE, "").lower() == "true"
        or annotations.get(BROKER_CLASS) == DURABLE_CLASS
    )


def parallelism(obj: Obj) -> int:
    """How many deliveries at a time an object's annotations allow."""
    annotations = annotations_of(obj)
    if not any(annotations.get(name) == "unordered" for name in ORDER):
        return 1
    text = annotations.get(PARALLELISM, "")
    return min(int(text), 1000) if text.isdigit() and int(text) else DEFAULT_PARALLELISM


def compiled_filter(trigger: Obj) -> Filter:
    spec = spec_of(trigger)
    wanted = {"filter": spec.get("filter"), "filters": spec.get("filters")}
    return _compiled(json.dumps(wanted, sort_keys=True))


@lru_cache(maxsize=4096)
def _compiled(text: str) -> Filter:
    try:
        return trigger_filter(json.loads(text))
    except CesqlError as error:
        refusal = Refusal("filters", "", detail=str(error))
        return Filter(lambda attributes: False, lambda attributes: refusal)


def _not_yet(obj: Obj, *conditions: str) -> str:
    """Why an object's events cannot be delivered yet; "" when they can."""
    for type_ in conditions:
        condition = find_condition(obj, type_)
        if condition is None:
            return "it has not been looked at yet"
        if condition.get("status") != "True":
            return str(condition.get("message") or condition.get("reason") or f"{type_} unknown")
    return ""
