"""EventTypes: made from what passes a door and what subscribers reply (behaviours E79, E80), and
their one condition (E78)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any

from knlocal.events import Event
from knlocal.resources.base import GroupKind, Obj, controller_of, owner_reference, uid_of
from knlocal.resources.ducks import SYSTEM_NAMESPACE
from knlocal.resources.names import child_name
from knlocal.resources.status import StatusError
from knlocal.store.store import Store

log = logging.getLogger(__name__)

EVENT_TYPE = GroupKind("eventing.knative.dev", "EventType")
DESCRIPTION = "Event Type auto-created by controller"
MAX_SEEN = 10_000
"""Pairs of type and source remembered per door; beyond, the store is asked again."""


class EventTypeRegistrar:
    """Registers types while the feature flag `eventtype-auto-create` is on."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def enabled(self) -> bool:
        flags = self._store.configs.get(f"{SYSTEM_NAMESPACE}/config-features") or {}
        return flags.get("eventtype-auto-create", "").strip().lower() == "enabled"

    def observer(self, referenced: Obj) -> Callable[[Event], object] | None:
        """What is called with each event that a door accepts, or that the subscriber of a Trigger
        or Subscription replies with (wherever the reply goes, if anywhere; knative.dev/eventing
        pkg/kncloudevents). None when nothing is to be registered."""
        reference = controller_of(referenced)
        owned_by_broker = reference is not None and reference["kind"] == "Broker"
        if not self.enabled or owned_by_broker:
            return None
        seen: set[tuple[str, str]] = set()

        def observe(event: Event) -> None:
            pair = (event.type, event.source)
            if pair in seen:
                return
            if len(seen) >= MAX_SEEN:
                seen.clear()
            seen.add(pair)
            self._register(event, referenced)

        return observe

    def _register(self, event: Event, referenced: Obj) -> None:
        metadata = referenced["metadata"]
        name = _name(event, metadata["namespace"], metadata["name"])
        if self._store.find(EVENT_TYPE, metadata["namespace"], name) is not None:
            return
        attributes: list[dict[str, Any]] = [
            {"name": "type", "required": True, "value": event.type},
            {"name": "source", "required": True, "value": event.source},
            {"name": "specversion", "required": True,
             "value": str(event.attributes.get("specversion", "1.0"))},
            {"name": "id", "required": True},
        ]  # fmt: skip
        schema = event.attributes.get("dataschema")
        if schema:
            attributes.append({"name": "schemadata", "required": False, "value": str(schema)})
        wanted = {
            "apiVersion": "eventing.knative.dev/v1beta3",
            "kind": "EventType",
            "metadata": {
                "name": name,
                "namespace": metadata["namespace"],
                "ownerReferences": [owner_reference(referenced, controller=False)],
            },
            "spec": {
                "reference": {
                    "apiVersion": referenced["apiVersion"],
                    "kind": referenced["kind"],
                    "namespace": metadata["namespace"],
                    "name": metadata["name"],
                },
                "description": DESCRIPTION,
                "attributes": attributes,
            },
        }
        try:
            self._store.create(wanted)
        except StatusError as error:
            log.warning(
                "cannot register the type of event %s (%s): %s",
                event.id, uid_of(referenced), error,
            )  # fmt: skip


def _name(event: Event, namespace: str, name: str) -> str:
    text = f"{event.type}{event.source}{namespace}{name}"
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    safe = "".join(char if char.isascii() and char.isalnum() else "-" for char in name.lower())
    return child_name(f"et-{safe.strip('-')}-", digest)
