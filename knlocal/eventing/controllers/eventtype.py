"""EventType: does what it refers to exist (behaviour E78)."""

from __future__ import annotations

from typing import Any

from knlocal.control.controller import Requeue
from knlocal.eventing.controller import EventingController
from knlocal.eventing.eventtypes import EVENT_TYPE
from knlocal.resources.base import Key, is_deleting, spec_of, split_api_version, status_of


class EventTypeController(EventingController):
    kind = EVENT_TYPE
    dependents = ("ReferenceExists",)

    async def reconcile(self, key: Key) -> Requeue | None:
        event_type = self.store.find_key(key)
        self.destinations.begin(key)
        if event_type is None or is_deleting(event_type):
            return None
        status: dict[str, Any] = dict(status_of(event_type))
        conditions = self.conditions(event_type)
        reference = spec_of(event_type).get("reference")
        if not reference:
            conditions.true("ReferenceExists", "ReferenceNotSet", "reference not set")
        else:
            group = reference.get("group") or split_api_version(reference.get("apiVersion", ""))[0]
            namespace = reference.get("namespace") or key.namespace
            wanted = Key(group, reference["kind"], namespace, reference["name"])
            self.destinations.track(wanted, key, self.enqueue)
            known = self.store.registry.stored(wanted.group_kind)
            if known is not None and self.store.find_key(wanted) is not None:
                conditions.true("ReferenceExists")
            else:
                resource = known.resource if known else str(wanted.group_kind)
                conditions.false(
                    "ReferenceExists", "ResourceDoesNotExist",
                    f'{resource} "{wanted.name}" not found',
                )  # fmt: skip
        self.finish(event_type, status, conditions)
        return None
