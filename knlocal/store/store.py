"""The one store of objects, with Kubernetes semantics.

Synchronous, on the event loop's thread: a write is atomic and seen by the next read. Each write
runs prune → mutation hooks → default → admission hooks → validate → persist → watchers. Objects
handed out are shared snapshots: never change one (`modify` hands a copy to a function).
"""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from knlocal.clock import Clock
from knlocal.resources import schema
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    copy,
    is_deleting,
    key_of,
    timestamp,
)
from knlocal.resources.field_errors import findings
from knlocal.resources.kinds import AdmissionContext, Kind, KindRegistry
from knlocal.resources.names import check_metadata, generate_name
from knlocal.resources.status import (
    AlreadyExists,
    BadRequest,
    Forbidden,
    NotFound,
)
from knlocal.store.database import Database
from knlocal.store.decoding import is_decoded, undecodable
from knlocal.store.history import MOST_CHANGES, Change, History
from knlocal.store.metadata import (
    SERVER_FIELDS,
    Propagation,
    check_preconditions,
    counts_generations,
    holders,
    mark_deleted,
    spec_changed,
    with_server_fields,
    written_by_clients,
)
from knlocal.store.objects import Objects, Place, encode
from knlocal.store.refusals import invalid, not_found, precondition_failed
from knlocal.store.saving import Saver
from knlocal.store.watch import EventType, Watch, WatchEvent

log = logging.getLogger(__name__)

NAMESPACE = GroupKind("", "Namespace")
CONFIG_MAP = GroupKind("", "ConfigMap")
POD = GroupKind("", "Pod")
EVENT = GroupKind("", "Event")
SYSTEM_USER = "system:serviceaccount:knative-serving:controller"

_SYSTEM_NAMESPACES = {"knative-serving", "knative-eventing"}

#: Named here because the method `Store.list` hides the built-in inside the class.
Found = list[Obj]
Snapshot = list[tuple[Place, bytes]]


@dataclass(slots=True)
class WriteOptions:
    """Who writes, and how. `warnings` is filled by the store, for the `Warning` header."""

    user: str = SYSTEM_USER
    dry_run: bool = False
    field_validation: Literal["Ignore", "Warn", "Strict"] = "Ignore"
    warnings: list[str] = field(default_factory=list)
    uid: str = ""
    """For a create: the uid to give (a prepared pod has one before its object exists)."""
    decoded: bool = False
    """The object is a request's body as it came: what does not fit cannot be decoded (400)."""


@dataclass(slots=True)
class AdmissionRequest:
    """What an admission hook sees; it may change `obj` in place or raise a `StatusError`."""

    operation: Literal["CREATE", "UPDATE"]
    kind: Kind
    obj: Obj
    old: Obj | None
    options: WriteOptions
    subresource: str = ""


AdmissionHook = Callable[[AdmissionRequest], None]


class Store:
    """See the module. `database` None keeps everything in memory only."""

    def __init__(
        self,
        registry: KindRegistry,
        clock: Clock,
        database: Path | None = None,
        *,
        history: int = MOST_CHANGES,
    ) -> None:
        self.registry = registry
        self.clock = clock
        self.version = 0
        #: Called in order before defaulting: who changes objects so that defaults see the result.
        self.mutation: list[AdmissionHook] = []
        #: Called in order on every create and main-resource update, after defaulting.
        self.admission: list[AdmissionHook] = []
        #: Data of the ConfigMaps in Knative's system namespaces: "knative-serving/config-network".
        self.configs: dict[str, Mapping[str, str]] = {}
        self._objects = Objects()
        self._children: dict[str, set[Key]] = defaultdict(set)
        self._history = History(history)
        self._watches: dict[GroupKind | None, set[Watch]] = defaultdict(set)
        self._subscribers: list[Callable[[WatchEvent], None]] = []
        self._saver = Saver(Database(database) if database else None, clock)
        self._load()

    def _load(self) -> None:
        for key, json in self._saver.load():
            obj = self._objects.put(key.group_kind, (key.namespace, key.name), json)
            self._index(key, None, obj)
        self.version = self._history.begins = self._saver.saved_version

    # -- reading ------------------------------------------------------------------------------

    def find(self, group_kind: GroupKind, namespace: str, name: str) -> Obj | None:
        """The object, or None."""
        return self._objects.find(group_kind, (namespace, name))

    def find_key(self, key: Key) -> Obj | None:
        return self.find(key.group_kind, key.namespace, key.name)

    def get(self, group_kind: GroupKind, namespace: str, name: str) -> Obj:
        """The object; NotFound in Kubernetes' words when there is none."""
        obj = self.find(group_kind, namespace, name)
        if obj is None:
            raise self._not_found(group_kind, name)
        return obj

    def list(
        self,
        group_kind: GroupKind,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Found:
        """Objects of one kind, by name; `namespace` None means all, `labels` must all agree."""
        found = [self.decoded(json) for _, json in self.snapshot(group_kind, namespace)]
        if labels:
            wanted = labels.items()
            found = [o for o in found if wanted <= (o["metadata"].get("labels") or {}).items()]
        return found

    def snapshot(
        self, group_kind: GroupKind, namespace: str | None = None, version: int | None = None
    ) -> Snapshot:
        """The same as JSON, with namespace and name: next to nothing to pay for what is only passed
        on. As it was at an older `version` when one is given (Gone when that is too long ago)."""
        table = self._objects.table(group_kind)
        if version is not None and version != self.version:
            table = self._table_at(group_kind, version)
        return [
            (place, json)
            for place, json in sorted(table.items())
            if namespace is None or place[0] == namespace
        ]

    def decoded(self, json: bytes) -> Obj:
        """An object of a snapshot."""
        return self._objects.decoded(json)

    def _table_at(self, group_kind: GroupKind, version: int) -> dict[Place, bytes]:
        table = dict(self._objects.table(group_kind))
        changes = [*self._history.since(version, self.version, group_kind)]
        for change in reversed(changes):
            if change.old is None:
                table.pop(change.place, None)
            else:
                table[change.place] = change.old
        return table

    def keys(self, group_kind: GroupKind) -> Sequence[Key]:
        """Which objects of one kind there are, by name."""
        return [Key(*group_kind, *place) for place in sorted(self._objects.table(group_kind))]

    def count(self, group_kind: GroupKind) -> int:
        """How many objects of one kind there are."""
        return len(self._objects.table(group_kind))

    def children(self, uid: str) -> Found:
        """Objects that name `uid` among their owners."""
        found = (self.find_key(key) for key in sorted(self._children.get(uid, ())))
        return [obj for obj in found if obj is not None]

    def owner_exists(self, reference: Mapping[str, Any], namespace: str) -> bool:
        """Whether an owner reference points at an object that is still here, by uid."""
        group = str(reference.get("apiVersion", "")).rpartition("/")[0]
        group_kind = GroupKind(group, str(reference.get("kind", "")))
        name = str(reference.get("name", ""))
        owner = self.find(group_kind, namespace, name) or self.find(group_kind, "", name)
        return owner is not None and owner["metadata"].get("uid") == reference.get("uid")

    def kinds_in_use(self) -> Iterable[GroupKind]:
        return list(self._objects.kinds())

    # -- watching -----------------------------------------------------------------------------

    def watch(
        self,
        group_kind: GroupKind | None = None,
        namespace: str | None = None,
        since: int | None = None,
    ) -> Watch:
        """Changes after version `since` (None: from now), replayed from history where needed.

        Raises Gone when history no longer reaches back to `since`, or for a version that was
        never made here. `group_kind` None watches everything.
        """
        watch = Watch(group_kind, namespace, self._close_watch)
        if since is not None and since != self.version:
            for change in self._history.since(since, self.version, group_kind):
                watch.offer(self._event(change))
        self._watches[group_kind].add(watch)
        return watch

    def _event(self, change: Change) -> WatchEvent:
        obj = self._objects.decoded(change.json)
        old = self._objects.decoded(change.old) if change.old is not None else None
        return WatchEvent(change.type, obj, old, change.version, change.json)

    def _close_watch(self, watch: Watch) -> None:
        self._watches[watch.group_kind].discard(watch)

    def subscribe(self, callback: Callable[[WatchEvent], None]) -> Callable[[], None]:
        """Call `callback` at once after each change; returns what ends the subscription."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    # -- writing ------------------------------------------------------------------------------

    def create(self, obj: Obj, options: WriteOptions | None = None) -> Obj:
        """Store a new object and return it as stored. Status is ignored, as Kubernetes does."""
        options = options or WriteOptions()
        kind, obj = self._incoming(copy(obj), options)
        metadata = obj["metadata"]
        for name in SERVER_FIELDS:
            metadata.pop(name, None)
        if metadata.pop("resourceVersion", None):
            raise BadRequest("resourceVersion should not be set on objects to be created")
        if kind.has_status:
            obj.pop("status", None)
        self._check_namespace(kind, metadata)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = self._generated_name(kind, metadata)
        # Some defaults speak of the uid (a Job's selector), so it is there before they are made.
        metadata["uid"] = options.uid or str(uuid.uuid4())
        self._admit("CREATE", kind, obj, None, options)
        if self.find_key(key_of(obj)) is not None:
            raise AlreadyExists(
                f'{kind.resource} "{metadata["name"]}" already exists',
                group=kind.group, kind=kind.plural, name=metadata["name"],
            )  # fmt: skip
        metadata["creationTimestamp"] = timestamp(self.clock.now())
        if counts_generations(kind):
            metadata["generation"] = 1
        return obj if options.dry_run else self._commit("ADDED", key_of(obj), obj, None)

    def update(
        self, obj: Obj, options: WriteOptions | None = None, *, subresource: str = ""
    ) -> Obj:
        """Replace an object (or, with subresource "status", only its status).

        A resourceVersion in `obj` makes it conditional (Conflict when stale). An update that
        changes nothing keeps the version and tells no watcher.
        """
        return self._update(copy(obj), options or WriteOptions(), subresource)

    def _update(self, obj: Obj, options: WriteOptions, subresource: str) -> Obj:
        kind, obj = self._incoming(obj, options)
        key = key_of(obj)
        current = self.get(key.group_kind, key.namespace, key.name)
        check_preconditions(kind, obj, current)
        if subresource:
            new = {**current, "metadata": dict(current["metadata"])}
            if managed := obj["metadata"].get("managedFields"):  # who writes it owns what it sets
                new["metadata"]["managedFields"] = managed
            new[subresource] = obj.get(subresource)
            if new[subresource] is None:
                del new[subresource]
            if kind.validates_status and not is_deleting(current):
                self._validate(kind, new, self._context(current, options, subresource), options)
        else:
            new = with_server_fields(kind, obj, current)
            self._admit("UPDATE", kind, new, current, options)
            if counts_generations(kind) and spec_changed(kind, current, new):
                new["metadata"]["generation"] = int(current["metadata"].get("generation", 0)) + 1
        new["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
        if new == current:
            return current
        return new if options.dry_run else self._replace(key, new, current)

    def _replace(self, key: Key, new: Obj, current: Obj) -> Obj:
        if is_deleting(new) and not holders(new):
            return self._remove(key, new)
        return self._commit("MODIFIED", key, new, current)

    def modify(
        self,
        group_kind: GroupKind,
        namespace: str,
        name: str,
        change: Callable[[Obj], object],
        options: WriteOptions | None = None,
        *,
        subresource: str = "",
    ) -> Obj:
        """Get a copy, let `change` change it, and update: atomic, so never a conflict."""
        obj = self._objects.private(group_kind, (namespace, name))
        if obj is None:
            raise self._not_found(group_kind, name)
        change(obj)
        return self._update(obj, options or WriteOptions(), subresource)

    def set_status(self, key: Key, status: Mapping[str, Any]) -> Obj | None:
        """Replace the status of an object; None when it is gone.

        What controllers do most: only the status is looked at, as nothing else can change.
        """
        current = self.find_key(key)
        if current is None or current.get("status") == status:
            return current
        kind = self.registry.stored(key.group_kind)
        assert kind is not None  # it was stored
        only = {"apiVersion": current["apiVersion"], "kind": key.kind, "status": copy(dict(status))}
        schema.prune(only, kind.schema)
        found = only.get("status")
        if found is None or found == current.get("status"):
            return current
        wrong = schema.check_types(found, _status_schema(kind))
        if wrong:
            raise invalid(kind, current, wrong)
        new = {**current, "metadata": dict(current["metadata"]), "status": found}
        return self._replace(key, new, current)

    def delete(
        self,
        group_kind: GroupKind,
        namespace: str,
        name: str,
        *,
        propagation: Propagation | None = None,
        grace_seconds: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        options: WriteOptions | None = None,
    ) -> Obj:
        """Delete an object, or mark it for deletion while something holds it (finalizers,
        foreground children, a pod's grace). Returns its last state; check `deletionTimestamp`.

        `uid` and `resource_version` are preconditions (Conflict).
        """
        current = self.get(group_kind, namespace, name)
        kind = self.registry.stored(group_kind)
        if kind is None:
            raise BadRequest(f"unknown kind {group_kind}")
        metadata = current["metadata"]
        if uid and uid != metadata["uid"]:
            raise precondition_failed(kind, name, "UID", uid, metadata["uid"])
        if resource_version and resource_version != metadata["resourceVersion"]:
            raise precondition_failed(
                kind, name, "ResourceVersion", resource_version, metadata["resourceVersion"]
            )
        if options and options.dry_run:
            return current
        if propagation == "Orphan":
            self._orphan_children(metadata["uid"])
        key = Key(group_kind.group, group_kind.kind, namespace, name)
        new = copy(current)
        mark_deleted(
            new, propagation, grace_seconds,
            now=self.clock.now(), has_children=bool(self._children.get(metadata["uid"])),
        )  # fmt: skip
        if not holders(new):
            return self._remove(key, new)
        return current if new == current else self._commit("MODIFIED", key, new, current)

    # -- durability ---------------------------------------------------------------------------

    async def durable(self) -> None:
        """Return when everything written so far survives the daemon's death."""
        self.flush()

    def flush(self) -> None:
        self._saver.flush()

    def close(self) -> None:
        """Save and let go of the file; watches end."""
        for watches in list(self._watches.values()):
            for watch in list(watches):
                watch.close()
        self._saver.close()

    # -- the steps of a write -----------------------------------------------------------------

    def _incoming(self, obj: Obj, options: WriteOptions) -> tuple[Kind, Obj]:
        """What was sent (and is nobody else's), pruned, in the stored version."""
        kind = self.registry.by_version(obj.get("apiVersion") or "", obj.get("kind") or "")
        if kind is None:
            raise BadRequest(
                f'no matches for kind "{obj.get("kind", "")}" '
                f'in version "{obj.get("apiVersion", "")}"'
            )
        if not isinstance(obj.get("metadata"), dict):
            obj["metadata"] = {}
        self._check_fields(kind, obj, options)
        if not kind.namespaced:
            obj["metadata"].pop("namespace", None)
        if kind.to_storage:
            obj = kind.to_storage(obj)
        stored = self.registry.stored(kind.group_kind)
        if stored is None:
            raise BadRequest(f"{kind.resource} has no stored version")
        return stored, obj

    def _check_fields(self, kind: Kind, obj: Obj, options: WriteOptions) -> None:
        # Nulls count as absent (Go clients send `creationTimestamp: null`), so pruning comes first.
        unknown = schema.prune(obj, kind.schema)
        if unknown and options.field_validation == "Strict":
            said = ", ".join(f'unknown field "{path}"' for path in unknown)
            raise BadRequest(
                f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
                f"strict decoding error: {said}"
            )
        if options.field_validation == "Warn":
            options.warnings += [f'unknown field "{path}"' for path in unknown]
        wrong = schema.check_types(obj, kind.schema)
        if wrong and options.decoded and is_decoded(kind, wrong[0]):
            raise undecodable(kind, obj, wrong[0])
        if wrong:
            raise invalid(kind, obj, wrong)

    def _admit(
        self,
        operation: Literal["CREATE", "UPDATE"],
        kind: Kind,
        obj: Obj,
        old: Obj | None,
        options: WriteOptions,
    ) -> None:
        context = self._context(old, options)
        # An object on its way out is only ever changed to let it go: never refuse that.
        leaving = old is not None and is_deleting(old)
        request = AdmissionRequest(operation, kind, obj, old, options)
        for hook in self.mutation:
            hook(request)
        if kind.default and not leaving:
            kind.default(obj, context)
        for hook in self.admission:
            hook(request)
        if not leaving and written_by_clients(obj) != written_by_clients(old):
            wrong = check_metadata(obj, kind.group_kind)
            if wrong:
                raise invalid(kind, obj, wrong)
        if not leaving:
            self._validate(kind, obj, context, options)

    def _context(
        self, old: Obj | None, options: WriteOptions, subresource: str = ""
    ) -> AdmissionContext:
        return AdmissionContext(
            user=options.user, now=self.clock.now(), configs=self.configs, old=old,
            subresource=subresource, dry_run=options.dry_run,
        )  # fmt: skip

    def _validate(
        self, kind: Kind, obj: Obj, context: AdmissionContext, options: WriteOptions
    ) -> None:
        if kind.validate is None:
            return
        errors = kind.validate(obj, context)
        options.warnings += errors.warnings()
        if errors and kind.webhook:
            raise BadRequest(
                f'admission webhook "{kind.webhook}" denied the request: '
                f"validation failed: {errors}"
            )
        if errors:
            raise invalid(kind, obj, findings(errors))

    def _commit(self, event: EventType, key: Key, obj: Obj, old: Obj | None) -> Obj:
        """Make it so. What is handed out from now on is what was saved, decoded anew."""
        version = self.version + 1
        obj["metadata"]["resourceVersion"] = str(version)
        json = self._encode(obj)
        group_kind, place = key.group_kind, (key.namespace, key.name)
        before = self._objects.table(group_kind).get(place)
        if event == "DELETED":
            self._objects.remove(group_kind, place)
            self._index(key, old, None)
        else:
            obj = self._objects.put(group_kind, place, json, keep=group_kind != EVENT)
            self._index(key, old, obj)
        self.version = version
        self._saver.add(key, None if event == "DELETED" else json, version)
        self._history.add(Change(version, event, group_kind, place, json, before))
        self._announce(group_kind, WatchEvent(event, obj, old, version, json))
        return obj

    @staticmethod
    def _encode(obj: Obj) -> bytes:
        try:
            return encode(obj)
        except (TypeError, ValueError) as error:  # half a surrogate pair, a number beyond 64 bits
            name = obj["metadata"].get("name", "")
            raise BadRequest(f'{obj["kind"]} "{name}" cannot be kept as JSON: {error}') from None

    def _announce(self, group_kind: GroupKind, event: WatchEvent) -> None:
        for watch in (*self._watches[group_kind], *self._watches[None]):
            watch.offer(event)
        for callback in tuple(self._subscribers):
            callback(event)

    def _index(self, key: Key, old: Obj | None, new: Obj | None) -> None:
        for obj, update in ((old, set.discard), (new, set.add)):
            for reference in (obj or {}).get("metadata", {}).get("ownerReferences") or ():
                update(self._children[reference.get("uid", "")], key)
        if key.group_kind == CONFIG_MAP and key.namespace in _SYSTEM_NAMESPACES:
            name = f"{key.namespace}/{key.name}"
            if new is None:
                self.configs.pop(name, None)
            else:
                self.configs[name] = new.get("data") or {}

    def _remove(self, key: Key, last: Obj) -> Obj:
        old = self.find_key(key)
        return self._commit("DELETED", key, last, old)

    def _orphan_children(self, uid: str) -> None:
        for child in self.children(uid):
            orphan = copy(child)
            orphan["metadata"]["ownerReferences"] = [
                r for r in orphan["metadata"]["ownerReferences"] if r.get("uid") != uid
            ]
            self._commit("MODIFIED", key_of(orphan), orphan, child)

    # -- checks -------------------------------------------------------------------------------

    def _check_namespace(self, kind: Kind, metadata: Obj) -> None:
        if not kind.namespaced:
            return
        namespace = metadata.get("namespace") or ""
        if not namespace:
            raise BadRequest("an empty namespace may not be set during creation")
        found = self.find(NAMESPACE, "", namespace)
        if found is None:
            raise self._not_found(NAMESPACE, namespace)
        if is_deleting(found):
            name = metadata.get("name", "")
            raise Forbidden(
                f'{kind.resource} "{name}" is forbidden: unable to create new content in namespace '
                f"{namespace} because it is being terminated",
                group=kind.group, kind=kind.plural, name=name,
                causes=[{
                    "reason": "NamespaceTerminating",
                    "message": f"namespace {namespace} is being terminated",
                    "field": "metadata.namespace",
                }],
            )  # fmt: skip

    def _generated_name(self, kind: Kind, metadata: Obj) -> str:
        for _ in range(8):
            name = generate_name(metadata["generateName"])
            if self.find(kind.group_kind, metadata.get("namespace") or "", name) is None:
                return name
        raise AlreadyExists(f"cannot find a free name for {metadata['generateName']}")

    def _not_found(self, group_kind: GroupKind, name: str) -> NotFound:
        return not_found(group_kind, self.registry.stored(group_kind), name)


def _status_schema(kind: Kind) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (kind.schema.get("properties") or {}).get("status") or {}
    return found
