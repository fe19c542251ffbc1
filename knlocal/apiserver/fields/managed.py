"""Keeps `metadata.managedFields`: each writer owns the fields it set last
(k8s.io/apimachinery/pkg/util/managedfields)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from knlocal.apiserver.fields.paths import ITEM, Path, from_fields, leaves, to_fields
from knlocal.apiserver.requests import ApiWriteOptions
from knlocal.clock import Clock
from knlocal.resources.base import Obj, timestamp
from knlocal.resources.kinds import Kind
from knlocal.store.store import AdmissionHook, AdmissionRequest

#: More managers than this and the oldest updates are folded into one.
MAX_UPDATE_MANAGERS = 10
_FOLDED = "ancient-changes"
_IDENTITY = ("manager", "operation", "apiVersion", "subresource")

_UNOWNED = {
    ("f:apiVersion",), ("f:kind",),
    *(("f:metadata", f"f:{name}") for name in (
        "name", "namespace", "creationTimestamp", "selfLink", "uid", "generation",
        "managedFields", "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds",
    )),
}  # fmt: skip


@dataclass(slots=True)
class Entry:
    """One manager's fields."""

    manager: str
    operation: str
    api_version: str
    time: str
    subresource: str
    paths: set[Path]

    @property
    def identity(self) -> tuple[str, str, str, str]:
        return self.manager, self.operation, self.api_version, self.subresource

    def to_obj(self) -> Obj:
        return {
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            **({"time": self.time} if self.time else {}),
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields(self.paths),
            **({"subresource": self.subresource} if self.subresource else {}),
        }


def read_entries(managed: Any) -> list[Entry]:
    return [
        Entry(
            str(item.get("manager") or "unknown"), str(item.get("operation") or "Update"),
            str(item.get("apiVersion") or ""), str(item.get("time") or ""),
            str(item.get("subresource") or ""), from_fields(item.get("fieldsV1")),
        )
        for item in managed or ()
        if isinstance(item, dict) and item
    ]  # fmt: skip


def write_entries(entries: Iterable[Entry]) -> list[Obj]:
    kept = [entry for entry in entries if entry.paths]
    kept.sort(key=lambda entry: (entry.operation != "Apply", entry.time, entry.manager))
    return [entry.to_obj() for entry in _folded(kept)]


def _folded(entries: list[Entry]) -> list[Entry]:
    updates = [entry for entry in entries if entry.operation == "Update" and not entry.subresource]
    if len(updates) <= MAX_UPDATE_MANAGERS:
        return entries
    old = updates[: len(updates) - MAX_UPDATE_MANAGERS + 1]
    paths = {path for entry in old for path in entry.paths}
    folded = Entry(_FOLDED, "Update", old[0].api_version, old[-1].time, "", paths)
    return [*(entry for entry in entries if entry not in old), folded]


def owned_leaves(obj: Obj, kind: Kind, *, status: bool = False) -> dict[Path, Any]:
    """What a writer of `obj` may own: no identity, and status only through its subresource."""
    return {
        path: value
        for path, value in leaves(obj, kind.schema).items()
        if path[:1] not in _UNOWNED
        and path[:2] not in _UNOWNED
        and (not kind.has_status or (path[0] == "f:status") == status)
        and path != ("f:metadata",)
    }


def tracking_hook(clock: Clock) -> AdmissionHook:
    """The admission hook that records who set what through the API. Put it last."""

    def hook(request: AdmissionRequest) -> None:
        options, old = request.options, request.old
        if not isinstance(options, ApiWriteOptions):
            return
        if not options.tracked:
            track(request.kind, request.obj, old, options, clock.now())
        if old is not None and _says_the_same(request.obj, old):
            # With its defaults filled in, what was sent is what there is: nothing happened.
            _put(request.obj["metadata"], old["metadata"].get("managedFields"))

    return hook


def _says_the_same(obj: Obj, old: Obj) -> bool:
    """Whether nothing but the times in `managedFields` would change."""
    if obj.keys() != old.keys() or any(
        obj[name] != old[name] for name in obj if name != "metadata"
    ):
        return False
    return _without_times(obj["metadata"]) == _without_times(old["metadata"])


def _without_times(metadata: Obj) -> Obj:
    managed = [
        {name: value for name, value in entry.items() if name != "time"}
        for entry in metadata.get("managedFields") or ()
    ]
    # Who wrote last comes last in the list: that order is one of time, too.
    by_writer = {tuple(str(entry.get(name)) for name in _IDENTITY): entry for entry in managed}
    rest = {name: value for name, value in metadata.items() if name != "resourceVersion"}
    return {**rest, "managedFields": by_writer}


def track(
    kind: Kind,
    obj: Obj,
    old: Obj | None,
    options: ApiWriteOptions,
    now: datetime,
    subresource: str = "",
) -> None:
    """Put the `managedFields` of a write into `obj`, which replaces `old` (with `subresource`
    "status": whose status does)."""
    on_status = subresource == "status"
    metadata = obj["metadata"]
    given = metadata.get("managedFields")
    if old is not None and given is None:
        given = old["metadata"].get("managedFields")
    entries = read_entries(given)
    before = owned_leaves(old, kind, status=on_status) if old is not None else {}
    after = owned_leaves(obj, kind, status=on_status)
    changed = {path for path, value in after.items() if _differs(before, path, value)}
    gone = before.keys() - after.keys()
    if not changed and not gone:
        _put(metadata, given if entries else None)
        return
    identity = (options.manager, "Update", options.api_version, subresource)
    own = next((entry for entry in entries if entry.identity == identity), None)
    if own is None and changed:
        own = Entry(options.manager, "Update", options.api_version, "", subresource, set())
        entries.append(own)
    for entry in entries:
        entry.paths -= gone
        if entry is own:
            entry.paths |= changed
            entry.time = timestamp(now)
        else:
            entry.paths -= {path for path in changed if after[path] is not ITEM}
    _put(metadata, write_entries(entries))


def _differs(before: dict[Path, Any], path: Path, value: Any) -> bool:
    return path not in before or before[path] != value


def _put(metadata: Obj, managed: Any) -> None:
    if managed:
        metadata["managedFields"] = managed
    else:
        metadata.pop("managedFields", None)
