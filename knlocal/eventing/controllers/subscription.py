"""Subscription: resolves its addresses and enters itself into the channel (E50–E54)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from knlocal.control.conditions import Conditions
from knlocal.control.controller import Requeue, Watching
from knlocal.eventing.controller import EventingController, oidc_off, put_address
from knlocal.eventing.links import are_on, backing_channel, channel_of, not_a_channel
from knlocal.eventing.plane import CHANNEL, IN_MEMORY_CHANNEL, SUBSCRIPTION
from knlocal.eventing.resolver import Unresolved
from knlocal.resources.base import Key, Obj, is_deleting, key_of, spec_of, status_of
from knlocal.resources.ducks import EVENTING_CONTROLLER
from knlocal.store.store import WriteOptions

FINALIZER = "subscriptions.messaging.knative.dev"
_WHO = WriteOptions(user=EVENTING_CONTROLLER)


class SubscriptionController(EventingController):
    kind = SUBSCRIPTION
    dependents = ("ReferencesResolved", "AddedToChannel", "ChannelReady", "OIDCIdentityCreated")

    def watches(self) -> Sequence[Watching]:
        return [
            Watching(CHANNEL, self._subscriptions_of),
            Watching(IN_MEMORY_CHANNEL, self._subscriptions_of),
        ]

    async def reconcile(self, key: Key) -> Requeue | None:
        subscription = self.store.find_key(key)
        self.destinations.begin(key)
        if subscription is None:
            return None
        if is_deleting(subscription):
            await self._let_go(key, subscription)
            return None
        if FINALIZER not in (subscription["metadata"].get("finalizers") or []):
            subscription = self.store.modify(
                SUBSCRIPTION, key.namespace, key.name,
                lambda obj: obj["metadata"].setdefault("finalizers", []).append(FINALIZER),
            )  # fmt: skip
        status: dict[str, Any] = dict(status_of(subscription))
        conditions = self.conditions(subscription)
        oidc_off(conditions)
        backing = self._backing(key, subscription, conditions)
        if backing is not None and self._addresses(key, subscription, backing, status, conditions):
            conditions.true("ReferencesResolved")
            self._enter(subscription, backing, status)
            conditions.true("AddedToChannel")
            self._channel_ready(subscription, backing, conditions)
        elif backing is not None:
            # Its address is gone: the channel must not go on with the old one.
            self._leave(subscription, backing)
            conditions.unknown("AddedToChannel")
            conditions.unknown("ChannelReady")
        self.finish(subscription, status, conditions)
        if backing is not None:
            place = backing["metadata"]
            await self.plane.sync_channel(place["namespace"], place["name"])
        return None

    # -- the channel --------------------------------------------------------------------------

    def _backing(self, key: Key, subscription: Obj, conditions: Conditions) -> Obj | None:
        """The channel that carries the events; None (and conditions say so) while there is none."""
        if wrong := not_a_channel(self.store, channel_of(subscription)):
            conditions.unknown("AddedToChannel")
            conditions.unknown("ChannelReady")
            said = f"Failed to validate spec.channel: {wrong}"
            conditions.false("ReferencesResolved", "ChannelReferenceFailed", said)
            return None
        place = backing_channel(self.store, subscription)
        if place is None:
            named = channel_of(subscription)
            problem = f'channel "{named.name}" has no backing channel yet'
            if self.store.find_key(named) is None:
                problem = f'channels.messaging.knative.dev "{named.name}" not found'
        else:
            self.destinations.track(place, key, self.enqueue)
            kind = self.store.registry.stored(place.group_kind)
            channel = self.store.find_key(place) if kind else None
            if channel is not None:
                return channel
            resource = kind.resource if kind else str(place.group_kind)
            problem = f'{resource} "{place.name}" not found'
        conditions.unknown("AddedToChannel")
        conditions.unknown("ChannelReady")
        # Set last, so that Ready gives this reason.
        conditions.unknown(
            "ReferencesResolved", "ChannelReferenceFailed",
            f"Failed to get Spec.Channel or backing channel: {problem}",
        )  # fmt: skip
        return None

    def _enter(self, subscription: Obj, channel: Obj, status: Mapping[str, Any]) -> None:
        entry = _entry(subscription, status["physicalSubscription"], channel)
        entries = spec_of(channel).get("subscribers") or []
        others = [one for one in entries if one.get("uid") != entry["uid"]]
        if len(others) == len(entries) or entry not in entries:
            self._write(channel, [*others, entry])

    def _leave(self, subscription: Obj, channel: Obj) -> None:
        uid = subscription["metadata"]["uid"]
        entries = spec_of(channel).get("subscribers") or []
        others = [one for one in entries if one.get("uid") != uid]
        if len(others) != len(entries):
            self._write(channel, others)

    def _write(self, channel: Obj, entries: list[dict[str, Any]]) -> None:
        def change(obj: Obj) -> None:
            obj.setdefault("spec", {})["subscribers"] = entries
            if not entries:
                del obj["spec"]["subscribers"]

        key = key_of(channel)
        self.store.modify(key.group_kind, key.namespace, key.name, change, _WHO)

    def _channel_ready(self, subscription: Obj, channel: Obj, conditions: Conditions) -> None:
        current = self.store.find_key(key_of(channel))
        uid = subscription["metadata"]["uid"]
        for entry in status_of(current or {}).get("subscribers") or []:
            if entry.get("uid") == uid and entry.get("ready") == "True":
                conditions.true("ChannelReady")
                return
        conditions.unknown(
            "ChannelReady", "SubscriptionNotMarkedReadyByChannel",
            "Subscription marked by Channel as Unknown",
        )  # fmt: skip

    async def _let_go(self, key: Key, subscription: Obj) -> None:
        place = backing_channel(self.store, subscription)
        if place is not None:
            channel = self.store.find_key(place)
            if channel is not None:
                self._leave(subscription, channel)
                await self.plane.sync_channel(place.namespace, place.name)

        def release(obj: Obj) -> None:
            held = obj["metadata"].get("finalizers") or []
            obj["metadata"]["finalizers"] = [one for one in held if one != FINALIZER]

        if self.store.find_key(key) is not None:
            self.store.modify(SUBSCRIPTION, key.namespace, key.name, release)

    # -- addresses ----------------------------------------------------------------------------

    def _addresses(
        self,
        key: Key,
        subscription: Obj,
        channel: Obj,
        status: dict[str, Any],
        conditions: Conditions,
    ) -> bool:
        spec = spec_of(subscription)
        physical: dict[str, Any] = {}
        status["physicalSubscription"] = physical
        wanted = (
            ("subscriber", spec.get("subscriber"), "spec.subscriber", "SubscriberResolveFailed"),
            ("reply", spec.get("reply"), "spec.reply", "ReplyResolveFailed"),
            (
                "deadLetterSink",
                (spec.get("delivery") or {}).get("deadLetterSink"),
                "spec.delivery.deadLetterSink",
                "DeadLetterSinkResolveFailed",
            ),
        )
        for prefix, destination, path, reason in wanted:
            if not destination:
                continue
            try:
                put_address(physical, prefix, self.resolve(key, destination))
            except Unresolved as error:
                said = f"Failed to resolve {path}: {error}"
                conditions.false("ReferencesResolved", reason, said)
                return False
        inherited = status_of(channel).get("deadLetterSinkUri")
        if inherited and "deadLetterSinkUri" not in physical:
            physical["deadLetterSinkUri"] = inherited
        return True

    def _subscriptions_of(self, channel: Obj) -> list[Key]:
        """A channel is meant by name, by its own kind or by the generic one in front of it."""
        metadata = channel["metadata"]
        place = (metadata["namespace"], metadata["name"])
        near = None if are_on(self.store) else metadata["namespace"]
        found = []
        for subscription in self.store.list(SUBSCRIPTION, near):
            named = channel_of(subscription)
            if (named.namespace, named.name) == place:
                found.append(key_of(subscription))
        return found


def _entry(subscription: Obj, physical: Mapping[str, Any], channel: Obj) -> dict[str, Any]:
    """The subscription as the channel lists it."""
    metadata = subscription["metadata"]
    entry: dict[str, Any] = {
        "uid": metadata["uid"],
        "name": metadata["name"],
        "generation": metadata.get("generation", 1),
    }
    for name in ("subscriberUri", "replyUri"):
        if physical.get(name):
            entry[name] = physical[name]
    delivery = dict(spec_of(subscription).get("delivery") or spec_of(channel).get("delivery") or {})
    delivery.pop("deadLetterSink", None)
    if physical.get("deadLetterSinkUri"):
        delivery["deadLetterSink"] = {"uri": physical["deadLetterSinkUri"]}
    if delivery:
        entry["delivery"] = delivery
    return entry
