"""Owner references: children go when their owner goes (Kubernetes' garbage collector)."""

from __future__ import annotations

from collections.abc import Callable

from knlocal.resources.base import Key, Obj, is_deleting, key_of
from knlocal.resources.status import NotFound
from knlocal.store.store import Store
from knlocal.store.watch import WatchEvent


class GarbageCollector:
    """Deletes what lost its owner, and lets foreground-deleted owners go after their children.

    It listens to the store directly, as it concerns every kind; the work itself happens on the
    loop's next turn, never inside someone else's write.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._unsubscribe: Callable[[], object] = lambda: None

    def start(self) -> None:
        self._unsubscribe = self._store.subscribe(self._changed)
        for group_kind in list(self._store.kinds_in_use()):
            for obj in self._store.list(group_kind):
                self._look(key_of(obj))

    def stop(self) -> None:
        self._unsubscribe()

    def _changed(self, event: WatchEvent) -> None:
        metadata = event.obj["metadata"]
        if event.type == "DELETED":
            self._store.clock.call_later(0, self._owner_gone, metadata["uid"])
            for reference in metadata.get("ownerReferences") or ():
                # A reference does not say whether its owner lives in a namespace.
                for namespace in {event.namespace, ""}:
                    owner = _owner_key(reference, namespace)
                    self._store.clock.call_later(0, self._look, owner)
        elif is_deleting(event.obj) or metadata.get("ownerReferences"):
            self._store.clock.call_later(0, self._look, key_of(event.obj))

    def _owner_gone(self, uid: str) -> None:
        for child in self._store.children(uid):
            self._look(key_of(child))

    def _look(self, key: Key) -> None:
        obj = self._store.find_key(key)
        if obj is None:
            return
        try:
            if is_deleting(obj):
                self._finish_foreground(obj)
            else:
                self._delete_if_orphaned(obj)
        except NotFound:
            pass  # someone else was quicker

    def _delete_if_orphaned(self, obj: Obj) -> None:
        metadata = obj["metadata"]
        references = metadata.get("ownerReferences") or []
        namespace = metadata.get("namespace") or ""
        if references and not any(self._store.owner_exists(r, namespace) for r in references):
            key = key_of(obj)
            self._store.delete(
                key.group_kind, key.namespace, key.name,
                uid=metadata["uid"], propagation="Background",
            )  # fmt: skip

    def _finish_foreground(self, obj: Obj) -> None:
        metadata = obj["metadata"]
        if "foregroundDeletion" not in (metadata.get("finalizers") or ()):
            return
        for child in self._store.children(metadata["uid"]):
            if not is_deleting(child):
                key = key_of(child)
                self._store.delete(
                    key.group_kind, key.namespace, key.name, propagation="Foreground"
                )
        blocked = any(
            reference.get("uid") == metadata["uid"] and reference.get("blockOwnerDeletion")
            for child in self._store.children(metadata["uid"])
            for reference in child["metadata"]["ownerReferences"]
        )
        if not blocked:
            key = key_of(obj)
            self._store.modify(
                key.group_kind, key.namespace, key.name,
                lambda o: o["metadata"]["finalizers"].remove("foregroundDeletion"),
            )  # fmt: skip


def _owner_key(reference: Obj, namespace: str) -> Key:
    group = str(reference.get("apiVersion", "")).rpartition("/")[0]
    return Key(group, str(reference.get("kind")), namespace, str(reference.get("name")))
