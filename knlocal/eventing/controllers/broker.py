"""Broker: its trigger channel as Knative shows it, its address, its conditions (E13–E17).

knlocal delivers from the broker's own exchange to each trigger; the trigger channel is an object
that clients may look for, and the source of `knative.dev/channel…` annotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from knlocal.control.conditions import Conditions, find_condition
from knlocal.control.controller import Requeue, Watching
from knlocal.eventing.children import ChildError, child, ensure
from knlocal.eventing.controller import EventingController, policies_off
from knlocal.eventing.links import broker_of
from knlocal.eventing.plane import BROKER, DURABLE_CLASS, TRIGGER
from knlocal.resources.annotations import HOST_URL
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
from knlocal.resources.eventing import BROKER_CLASS, BROKER_LABEL, MT_CHANNEL_BROKER
from knlocal.resources.names import child_name
from knlocal.resources.settings.eventing import ChannelTemplate
from knlocal.resources.settings.parsing import SettingsError

CLASSES = frozenset({MT_CHANNEL_BROKER, DURABLE_CLASS})
CONFIG_MAP = GroupKind("", "ConfigMap")
_CHANNEL_ANNOTATION = "knative.dev/channel"


class _ConfigError(Exception):
    pass


class BrokerController(EventingController):
    kind = BROKER
    dependents = (
        "IngressReady",
        "TriggerChannelReady",
        "FilterReady",
        "Addressable",
        "DeadLetterSinkResolved",
        "EventPoliciesReady",
    )

    def watches(self) -> Sequence[Watching]:
        return [
            Watching(CONFIG_MAP, self._brokers_of_config),
            Watching(TRIGGER, self._broker_of_trigger),
        ]

    def accepts(self, obj: Obj) -> bool:
        return annotations_of(obj).get(BROKER_CLASS) in CLASSES

    async def reconcile(self, key: Key) -> Requeue | None:
        broker = self.store.find_key(key)
        self.destinations.begin(key)
        if broker is None or is_deleting(broker):
            if broker is None:
                await self.plane.sync_broker(key.namespace, key.name)
            return None
        if not self.accepts(broker):
            return None
        status: dict[str, Any] = dict(status_of(broker))
        conditions = self.conditions(broker)
        conditions.true("IngressReady")
        conditions.true("FilterReady")
        policies_off(conditions)
        if self._bring_channel(key, broker, status, conditions):
            url = self.plane.addresses.broker(key.namespace, key.name)
            status["address"] = {"name": "http", "url": url}
            outside = self.plane.addresses.broker_outside(key.namespace, key.name)
            status["annotations"] = {**status.get("annotations", {}), HOST_URL: outside}
            conditions.true("Addressable")
        elif "address" not in status:
            conditions.unknown("Addressable")
        self.resolve_dead_letter(key, broker, status, conditions)
        self.finish(broker, status, conditions)
        await self.plane.sync_broker(key.namespace, key.name)
        return None

    # -- the trigger channel ------------------------------------------------------------------

    def _bring_channel(
        self, key: Key, broker: Obj, status: dict[str, Any], conditions: Conditions
    ) -> bool:
        try:
            template = self._template(key, broker)
        except _ConfigError as error:
            conditions.false("TriggerChannelReady", "ChannelTemplateFailed", str(error))
            return False
        if self.store.registry.by_version(template["apiVersion"], template["kind"]) is None:
            said = f'no matches for kind "{template["kind"]}" in version "{template["apiVersion"]}"'
            conditions.false("TriggerChannelReady", "ChannelFailure", said)
            return False
        try:
            channel = ensure(self.store, broker, _trigger_channel(broker, template))
        except ChildError as error:
            conditions.false("TriggerChannelReady", "ChannelFailure", str(error))
            return False
        self.destinations.track(
            Key(*_group_kind(channel), key.namespace, channel["metadata"]["name"]), key,
            self.enqueue,
        )  # fmt: skip
        ready = find_condition(channel)
        conditions.follow("TriggerChannelReady", ready)
        address = (status_of(channel).get("address") or {}).get("url")
        if not address:
            return False
        status["annotations"] = {
            **status.get("annotations", {}),
            f"{_CHANNEL_ANNOTATION}Address": address,
            f"{_CHANNEL_ANNOTATION}APIVersion": channel["apiVersion"],
            f"{_CHANNEL_ANNOTATION}Kind": channel["kind"],
            f"{_CHANNEL_ANNOTATION}Name": channel["metadata"]["name"],
        }
        return True

    def _template(self, key: Key, broker: Obj) -> dict[str, Any]:
        """The channel template of the broker's ConfigMap (E14)."""
        config = spec_of(broker).get("config")
        if not config:
            raise _ConfigError("Broker.Spec.Config is required")
        if config.get("kind") != "ConfigMap" or config.get("apiVersion") != "v1":
            raise _ConfigError(
                "Broker.Spec.Config configuration not supported, only [kind: ConfigMap, "
                "apiVersion: v1]"
            )
        namespace, name = config.get("namespace") or key.namespace, config["name"]
        self.destinations.track(Key("", "ConfigMap", namespace, name), key, self.enqueue)
        found = self.store.find(CONFIG_MAP, namespace, name)
        if found is None:
            raise _ConfigError(f'configmaps "{name}" not found')
        try:
            return dict(ChannelTemplate.parse(found.get("data") or {}).template)
        except SettingsError as error:
            raise _ConfigError(str(error)) from None

    def _brokers_of_config(self, obj: Obj) -> list[Key]:
        """Feature flags concern all; another ConfigMap, those that refer to it."""
        metadata = obj["metadata"]
        if (metadata["namespace"], metadata["name"]) == (SYSTEM_NAMESPACE, "config-features"):
            return self.all_keys()
        place = (metadata["namespace"], metadata["name"])
        found = []
        for broker in self.store.list(BROKER):
            config = spec_of(broker).get("config") or {}
            namespace = broker["metadata"]["namespace"]
            if (config.get("namespace") or namespace, config.get("name")) == place:
                found.append(Key(*BROKER, namespace, broker["metadata"]["name"]))
        return found

    def _broker_of_trigger(self, trigger: Obj) -> list[Key]:
        key = broker_of(self.store, trigger)
        return [key] if key.name else []


def _trigger_channel(broker: Obj, template: dict[str, Any]) -> Obj:
    name = broker["metadata"]["name"]
    delivery = spec_of(broker).get("delivery")
    copied = {
        key: value
        for key, value in annotations_of(broker).items()
        if key.startswith("messaging.knative.dev")
    }
    return child(
        broker,
        template["apiVersion"],
        template["kind"],
        child_name(name, "-kne-trigger"),
        {**(template.get("spec") or {}), **({"delivery": delivery} if delivery else {})},
        labels={BROKER_LABEL: name, "eventing.knative.dev/brokerEverything": "true"},
        annotations={"eventing.knative.dev/scope": "cluster", **copied},
    )


def _group_kind(obj: Obj) -> GroupKind:
    return GroupKind(obj["apiVersion"].rpartition("/")[0], obj["kind"])
