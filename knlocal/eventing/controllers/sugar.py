"""Brokers made on demand, where ConfigMap config-sugar asks for it (behaviour E18)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from knlocal.control.controller import Controller, Requeue, Watching
from knlocal.eventing.controllers.trigger import injected_broker
from knlocal.eventing.plane import BROKER, TRIGGER
from knlocal.resources import labels
from knlocal.resources.base import GroupKind, Key, Obj, is_deleting, labels_of, spec_of
from knlocal.resources.ducks import EVENTING_CONTROLLER, SYSTEM_NAMESPACE
from knlocal.resources.settings.eventing import Sugar
from knlocal.resources.settings.parsing import SettingsError
from knlocal.store.store import Store, WriteOptions

NAMESPACE = GroupKind("", "Namespace")
CONFIG_MAP = GroupKind("", "ConfigMap")


class _Sugar(Controller):
    def watches(self) -> Sequence[Watching]:
        return [
            Watching(CONFIG_MAP, self._if_sugar),
            Watching(BROKER, lambda broker: self._near(broker)),
        ]

    def _if_sugar(self, obj: Obj) -> list[Key]:
        metadata = obj["metadata"]
        place = (metadata["namespace"], metadata["name"])
        return self.all_keys() if place == (SYSTEM_NAMESPACE, "config-sugar") else []

    def _near(self, broker: Obj) -> list[Key]:
        return []

    def selects(self, name: str, obj: Obj) -> bool:
        selector = getattr(_sugar(self.store), name)
        if selector is None:
            return False
        return labels.from_label_selector(selector).matches(labels_of(obj))

    def make(self, namespace: str, name: str) -> None:
        if self.store.find(BROKER, namespace, name) is None:
            self.store.create(
                injected_broker(namespace, name), WriteOptions(user=EVENTING_CONTROLLER)
            )


class NamespaceSugar(_Sugar):
    """A Broker `default` in each namespace that `namespace-selector` selects."""

    kind = NAMESPACE

    def _near(self, broker: Obj) -> list[Key]:
        return [Key(*NAMESPACE, "", broker["metadata"]["namespace"])]

    async def reconcile(self, key: Key) -> Requeue | None:
        namespace = self.store.find_key(key)
        if namespace is not None and not is_deleting(namespace):
            disabled = labels_of(namespace).get("eventing.knative.dev/injection") == "disabled"
            if not disabled and self.selects("namespace_selector", namespace):
                self.make(key.name, "default")
        return None


class TriggerSugar(_Sugar):
    """The Broker of each Trigger that `trigger-selector` selects."""

    kind = TRIGGER

    async def reconcile(self, key: Key) -> Requeue | None:
        trigger = self.store.find_key(key)
        if trigger is not None and not is_deleting(trigger):
            name = spec_of(trigger).get("broker")
            if name and self.selects("trigger_selector", trigger):
                self.make(key.namespace, name)
        return None


def _sugar(store: Store) -> Sugar:
    data: Mapping[str, Any] = store.configs.get(f"{SYSTEM_NAMESPACE}/config-sugar") or {}
    try:
        return Sugar.parse(data)
    except SettingsError:
        return Sugar()
