"""Kubernetes Events: what controllers tell people about an object (`kubectl describe`)."""

from __future__ import annotations

import hashlib

from knlocal.resources.base import Obj, is_deleting, timestamp
from knlocal.store.store import EVENT, NAMESPACE, Store

#: Kubernetes forgets Events after an hour; here the oldest go when there are this many.
MOST_EVENTS = 2_000


class EventRecorder:
    """Records Events; the same message about the same object again only counts up."""

    def __init__(self, store: Store, component: str) -> None:
        self._store = store
        self._component = component

    def normal(self, obj: Obj, reason: str, message: str) -> None:
        self._record(obj, "Normal", reason, message)

    def warning(self, obj: Obj, reason: str, message: str) -> None:
        self._record(obj, "Warning", reason, message)

    def _record(self, obj: Obj, type_: str, reason: str, message: str) -> None:
        metadata = obj["metadata"]
        namespace = metadata.get("namespace") or "default"
        place = self._store.find(NAMESPACE, "", namespace)
        if place is None or is_deleting(place):
            return
        same = f"{metadata.get('uid')}{self._component}{type_}{reason}{message}"
        name = f"{metadata['name']}.{hashlib.sha256(same.encode()).hexdigest()[:16]}"
        now = timestamp(self._store.clock.now())
        known = self._store.find(EVENT, namespace, name)
        if known is not None:

            def count_up(event: Obj) -> None:
                event["count"] = event.get("count", 1) + 1
                event["lastTimestamp"] = now

            self._store.modify(EVENT, namespace, name, count_up)
            return
        if self._store.count(EVENT) >= MOST_EVENTS:
            self._forget_oldest(MOST_EVENTS // 10)
        self._store.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": {
                    "apiVersion": obj.get("apiVersion"),
                    "kind": obj.get("kind"),
                    "name": metadata["name"],
                    "namespace": metadata.get("namespace") or "",
                    "uid": metadata.get("uid"),
                    "resourceVersion": metadata.get("resourceVersion"),
                },
                "type": type_,
                "reason": reason,
                "message": message,
                "source": {"component": self._component},
                "reportingComponent": self._component,
                "reportingInstance": "",
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
            }
        )

    def _forget_oldest(self, count: int) -> None:
        events = sorted(self._store.list(EVENT), key=lambda e: e.get("lastTimestamp") or "")
        for event in events[:count]:
            metadata = event["metadata"]
            self._store.delete(EVENT, metadata["namespace"], metadata["name"])
