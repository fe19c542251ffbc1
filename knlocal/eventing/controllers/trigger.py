"""Trigger: conditions and resolved addresses; the broker's exchange delivers (E24–E28)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from knlocal.control.conditions import Conditions, find_condition
from knlocal.control.controller import Requeue, Watching
from knlocal.eventing.controller import EventingController, oidc_off, put_address
from knlocal.eventing.controllers.broker import CLASSES, CONFIG_MAP
from knlocal.eventing.links import broker_of, triggers_of
from knlocal.eventing.plane import BROKER, TRIGGER
from knlocal.eventing.resolver import Unresolved
from knlocal.resources.base import (
    Key,
    Obj,
    annotations_of,
    is_deleting,
    key_of,
    spec_of,
    split_api_version,
    status_of,
)
from knlocal.resources.ducks import EVENTING_CONTROLLER
from knlocal.resources.eventing import BROKER_CLASS, DEPENDENCY, INJECTION
from knlocal.resources.status import StatusError
from knlocal.store.store import WriteOptions

SUBSCRIBER_FIELDS = ("subscriberUri", "subscriberCACerts", "subscriberAudience")


class TriggerController(EventingController):
    kind = TRIGGER
    dependents = (
        "BrokerReady",
        "SubscriptionReady",
        "DependencyReady",
        "SubscriberResolved",
        "DeadLetterSinkResolved",
        "OIDCIdentityCreated",
    )
    dead_letter_reason = "Unable to get the dead letter sink's URI"

    def watches(self) -> Sequence[Watching]:
        return [Watching(BROKER, self._triggers_of), Watching(CONFIG_MAP, self._if_features)]

    async def reconcile(self, key: Key) -> Requeue | None:
        trigger = self.store.find_key(key)
        self.destinations.begin(key)
        if trigger is None or is_deleting(trigger):
            return None  # the broker watches triggers, and forgets this one
        wanted = broker_of(self.store, trigger)
        broker = self.store.find_key(wanted)
        if broker is None and annotations_of(trigger).get(INJECTION) == "enabled":
            broker = self._inject(wanted.namespace, wanted.name)
        if broker is not None and annotations_of(broker).get(BROKER_CLASS) not in CLASSES:
            return None  # another implementation's business
        status: dict[str, Any] = dict(status_of(trigger))
        conditions = self.conditions(trigger)
        oidc_off(conditions)
        self._broker_ready(wanted.name, broker, conditions)
        if broker is None:
            self.finish(trigger, status, conditions)
            return None
        self._dependency(key, trigger, conditions)
        self._subscriber(key, trigger, status, conditions)
        if self.resolve_dead_letter(key, trigger, status, conditions):
            inherited = status_of(broker).get("deadLetterSinkUri")
            if "deadLetterSinkUri" not in status and inherited:
                status["deadLetterSinkUri"] = inherited
                conditions.true("DeadLetterSinkResolved")
        conditions.true("SubscriptionReady")
        self.finish(trigger, status, conditions)
        await self.plane.sync_broker(wanted.namespace, wanted.name)
        return None

    def _broker_ready(self, name: str, broker: Obj | None, conditions: Conditions) -> None:
        if broker is None or is_deleting(broker):
            conditions.false("BrokerReady", "BrokerDoesNotExist", f'Broker "{name}" does not exist')
            return
        ready = find_condition(broker)
        if ready is None:
            conditions.unknown(
                "BrokerReady", "BrokerUninitialized", "Broker has not been reconciled."
            )
        else:
            conditions.follow("BrokerReady", ready)

    def _dependency(self, key: Key, trigger: Obj, conditions: Conditions) -> None:
        text = annotations_of(trigger).get(DEPENDENCY)
        if text is None:
            conditions.true("DependencyReady")
            return
        reference = json.loads(text)  # admitted, so it parses
        group, _ = split_api_version(reference["apiVersion"])
        wanted = Key(group, reference["kind"], key.namespace, reference["name"])
        self.destinations.track(wanted, key, self.enqueue)
        found = self.store.find_key(wanted)
        if found is None:
            conditions.false(
                "DependencyReady", "DependencyDoesNotExist",
                f"Dependency does not exist: {wanted.kind} {wanted.name!r} not found",
            )  # fmt: skip
            return
        ready = find_condition(found)
        observed = status_of(found).get("observedGeneration")
        if observed is not None and observed != found["metadata"].get("generation", observed):
            conditions.unknown(
                "DependencyReady", "GenerationNotEqual",
                "The dependency's metadata.generation is not equal to its "
                "status.observedGeneration.",
            )  # fmt: skip
        else:
            conditions.follow("DependencyReady", ready)

    def _subscriber(
        self, key: Key, trigger: Obj, status: dict[str, Any], conditions: Conditions
    ) -> None:
        for name in SUBSCRIBER_FIELDS:
            status.pop(name, None)
        try:
            address = self.resolve(key, spec_of(trigger).get("subscriber") or {})
        except Unresolved as error:
            conditions.false("SubscriberResolved", "Unable to get the Subscriber's URI", str(error))
            return
        put_address(status, "subscriber", address)
        conditions.true("SubscriberResolved")

    def _inject(self, namespace: str, name: str) -> Obj | None:
        """`eventing.knative.dev/injection: enabled`: the default broker is made on demand."""
        try:
            return self.store.create(
                injected_broker(namespace, name), WriteOptions(user=EVENTING_CONTROLLER)
            )
        except StatusError:
            return self.store.find(BROKER, namespace, name)

    def _triggers_of(self, broker: Obj) -> list[Key]:
        return [key_of(trigger) for trigger in triggers_of(self.store, broker)]

    def _if_features(self, config_map: Obj) -> list[Key]:
        """A broker elsewhere is one's own while `cross-namespace-event-links` is on."""
        if config_map["metadata"]["name"] != "config-features":
            return []
        return [key_of(one) for one in self.store.list(TRIGGER) if spec_of(one).get("brokerRef")]


def injected_broker(namespace: str, name: str) -> Obj:
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Broker",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"eventing.knative.dev/injected": "true"},
        },
    }
