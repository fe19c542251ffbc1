"""Channel and InMemoryChannel (behaviours E44–E49)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from knlocal.control.conditions import Conditions, find_condition
from knlocal.control.controller import Requeue, Watching, owned_by
from knlocal.eventing.addresses import channel_service
from knlocal.eventing.children import ChildError, child, ensure
from knlocal.eventing.controller import EventingController, policies_off
from knlocal.eventing.links import backing_channel
from knlocal.eventing.plane import CHANNEL, IN_MEMORY_CHANNEL, SUBSCRIPTION
from knlocal.resources.annotations import DURABLE, HOST_URL, ROUTED_BY
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    annotations_of,
    is_deleting,
    spec_of,
    status_of,
)
from knlocal.resources.ducks import SYSTEM_NAMESPACE

SERVICE = GroupKind("", "Service")
CONFIG_MAP = GroupKind("", "ConfigMap")
DISPATCHER = "imc-dispatcher.knative-eventing.svc.cluster.local"
_COPIED = ("messaging.knative.dev/", "eventing.knative.dev/scope", DURABLE)


class ChannelController(EventingController):
    """Makes the backing channel, of the template's kind and the same name."""

    kind = CHANNEL
    dependents = ("BackingChannelReady", "Addressable", "DeadLetterSinkResolved",
                  "EventPoliciesReady")  # fmt: skip

    def watches(self) -> Sequence[Watching]:
        return [Watching(IN_MEMORY_CHANNEL, owned_by(CHANNEL))]

    async def reconcile(self, key: Key) -> Requeue | None:
        channel = self.store.find_key(key)
        self.destinations.begin(key)
        if channel is None or is_deleting(channel):
            return None
        status: dict[str, Any] = dict(status_of(channel))
        conditions = self.conditions(channel)
        policies_off(conditions)
        self._bring_backing(channel, status, conditions)
        self.resolve_dead_letter(key, channel, status, conditions)
        self.finish(channel, status, conditions)
        return None

    def _bring_backing(self, channel: Obj, status: dict[str, Any], conditions: Conditions) -> None:
        template = spec_of(channel)["channelTemplate"]
        api_version, kind = template["apiVersion"], template["kind"]
        if self.store.registry.by_version(api_version, kind) is None:
            conditions.false(
                "BackingChannelReady", "ChannelFailure",
                f'no matches for kind "{kind}" in version "{api_version}"',
            )  # fmt: skip
            conditions.unknown("Addressable")
            return
        delivery = spec_of(channel).get("delivery")
        copied = {
            name: value
            for name, value in annotations_of(channel).items()
            if name.startswith(_COPIED)
        }
        wanted = child(
            channel, api_version, kind, channel["metadata"]["name"],
            {**(template.get("spec") or {}), **({"delivery": delivery} if delivery else {})},
            annotations=copied,
        )  # fmt: skip
        try:
            backing = ensure(self.store, channel, wanted)
        except ChildError as error:
            conditions.false("BackingChannelReady", "ChannelFailure", str(error))
            return
        metadata = backing["metadata"]
        status["channel"] = {
            "apiVersion": backing["apiVersion"], "kind": backing["kind"],
            "name": metadata["name"], "namespace": metadata["namespace"],
        }  # fmt: skip
        ready = find_condition(backing)
        if ready is None:
            conditions.unknown(
                "BackingChannelReady", "BackingChannelNotConfigured",
                "BackingChannel has not yet been reconciled.",
            )  # fmt: skip
        else:
            conditions.follow("BackingChannelReady", ready)
        known = status_of(backing)
        for name in ("address", "subscribers"):
            if known.get(name):
                status[name] = known[name]
            else:
                status.pop(name, None)
        if host_url := (known.get("annotations") or {}).get(HOST_URL):
            status["annotations"] = {**(status.get("annotations") or {}), HOST_URL: host_url}
        if status.get("address"):
            conditions.true("Addressable")
        else:
            conditions.unknown("Addressable", "emptyAddress", "addressable is nil")


class InMemoryChannelController(EventingController):
    """The channel itself: a Service for its name, an exchange for its events."""

    kind = IN_MEMORY_CHANNEL
    dependents = (
        "ServiceReady",
        "EndpointsReady",
        "Addressable",
        "ChannelServiceReady",
        "DeadLetterSinkResolved",
        "EventPoliciesReady",
    )

    def watches(self) -> Sequence[Watching]:
        return [
            Watching(SERVICE, owned_by(IN_MEMORY_CHANNEL)),
            Watching(SUBSCRIPTION, self._channel_of),
            Watching(CONFIG_MAP, self._if_features),
        ]

    async def reconcile(self, key: Key) -> Requeue | None:
        channel = self.store.find_key(key)
        self.destinations.begin(key)
        if channel is None:
            await self.plane.sync_channel(key.namespace, key.name)
            return None
        if is_deleting(channel):
            return None
        status: dict[str, Any] = dict(status_of(channel))
        conditions = self.conditions(channel)
        for name in ("DispatcherReady", "ServiceReady", "EndpointsReady"):
            conditions.true(name)
        policies_off(conditions)
        try:
            ensure(self.store, channel, _service(channel))
        except ChildError as error:
            conditions.false("ChannelServiceReady", "ChannelServiceFailed", str(error))
        else:
            conditions.true("ChannelServiceReady")
            addresses = self.plane.addresses
            url = addresses.channel(key.namespace, key.name)
            status["address"] = {"name": "http", "url": url}
            status["annotations"] = {
                **(status.get("annotations") or {}),
                HOST_URL: addresses.channel_outside(key.namespace, key.name),
            }
            conditions.true("Addressable")
        self.resolve_dead_letter(key, channel, status, conditions)
        status["subscribers"] = [
            {
                "uid": entry["uid"],
                "observedGeneration": entry.get("generation", 0),
                "ready": "True",
            }
            for entry in spec_of(channel).get("subscribers") or []
            if entry.get("uid")
        ]
        if not status["subscribers"]:
            del status["subscribers"]
        self.finish(channel, status, conditions)
        await self.plane.sync_channel(key.namespace, key.name)
        return None

    def _channel_of(self, subscription: Obj) -> list[Key]:
        backing = backing_channel(self.store, subscription)
        return [backing] if backing and backing.group_kind == IN_MEMORY_CHANNEL else []

    def _if_features(self, obj: Obj) -> list[Key]:
        metadata = obj["metadata"]
        if (metadata["namespace"], metadata["name"]) == (SYSTEM_NAMESPACE, "config-features"):
            return self.all_keys()
        return []


def _service(channel: Obj) -> Obj:
    return child(
        channel,
        "v1",
        "Service",
        channel_service(channel["metadata"]["name"]),
        {
            "type": "ExternalName",
            "externalName": DISPATCHER,
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        },
        labels={"messaging.knative.dev/role": "in-memory-channel"},
        # Else the Service, which is there first after a restart, would take the name.
        annotations={ROUTED_BY: "eventing"},
    )
