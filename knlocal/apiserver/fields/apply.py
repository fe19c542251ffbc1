"""Server-side apply: merge what a manager wants, respect what others own, drop what it let go."""

from __future__ import annotations

import orjson

from knlocal.apiserver.fields.managed import (
    Entry,
    owned_leaves,
    read_entries,
    write_entries,
)
from knlocal.apiserver.fields.paths import ITEM, Path, merge, remove, shown
from knlocal.apiserver.requests import ApiRequest
from knlocal.clock import Clock
from knlocal.resources.base import Obj, copy, timestamp
from knlocal.resources.status import BadRequest, Conflict

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class ServerSideApply:
    """Works out the object that an apply patch asks for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(
        self, request: ApiRequest, configuration: Obj, live: Obj | None, force: bool
    ) -> Obj:
        """The merged object with its `managedFields`.

        Raises Conflict (with a cause per field) when another manager owns a field with another
        value and `force` is off.
        """
        if (configuration.get("metadata") or {}).get("managedFields"):
            raise BadRequest("metadata.managedFields must be nil")
        kind = request.kind
        on_status = request.target.subresource == "status"
        wanted = set(owned_leaves(configuration, kind, status=on_status))
        entries = read_entries(((live or {}).get("metadata") or {}).get("managedFields"))
        own = self._own_entry(request, entries)
        others = [entry for entry in entries if entry is not own]
        if live is None:
            merged = copy(configuration)
        else:
            merged = merge(live, configuration, kind.schema)
            changed = self._changed(request, live, merged)
            tolerated = set() if on_status else self._last_applied(request, live)
            self._settle(changed & wanted, others, force, tolerated)
            merged = self._let_go(request, merged, own.paths - wanted, wanted, others)
            # Who applies says nothing about versions unless they wrote one.
            version = (configuration.get("metadata") or {}).get("resourceVersion")
            merged["metadata"]["resourceVersion"] = version or live["metadata"]["resourceVersion"]
        self._record(merged, live, own, wanted, others)
        return merged

    def _own_entry(self, request: ApiRequest, entries: list[Entry]) -> Entry:
        subresource = request.target.subresource
        for entry in entries:
            if (entry.manager, entry.operation, entry.subresource) == (
                request.manager, "Apply", subresource,
            ):  # fmt: skip
                return entry
        return Entry(request.manager, "Apply", request.target.api_version, "", subresource, set())

    def _changed(self, request: ApiRequest, live: Obj, merged: Obj) -> set[Path]:
        on_status = request.target.subresource == "status"
        before = owned_leaves(live, request.kind, status=on_status)
        after = owned_leaves(merged, request.kind, status=on_status)
        return {
            path
            for path, value in after.items()
            if value is not ITEM and (path not in before or before[path] != value)
        }

    def _settle(
        self, changed: set[Path], others: list[Entry], force: bool, tolerated: set[Path]
    ) -> None:
        conflicts = [(entry, path) for entry in others for path in sorted(entry.paths & changed)]
        if not conflicts:
            return
        if not force and not {path for _, path in conflicts} <= tolerated:
            raise conflict(conflicts)
        for entry, path in conflicts:
            entry.paths.discard(path)

    def _last_applied(self, request: ApiRequest, live: Obj) -> set[Path]:
        """What `kubectl apply` set before it was used with `--server-side`, and nobody changed
        since: kubectl may take these fields over without a conflict."""
        text = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED)
        if request.manager != "kubectl" or not text:
            return set()
        try:
            applied = orjson.loads(text)
            before, now = (owned_leaves(obj, request.kind) for obj in (applied, live))
        except (orjson.JSONDecodeError, TypeError, AttributeError):
            return set()
        return {path for path, value in before.items() if path in now and now[path] == value}

    def _let_go(
        self, request: ApiRequest, merged: Obj, dropped: set[Path], wanted: set[Path],
        others: list[Entry],
    ) -> Obj:  # fmt: skip
        """Remove what this manager applied before and no longer does, unless somebody else
        owns it or something below it."""
        held = wanted.union(*(entry.paths for entry in others))
        holding = {path[:length] for path in held for length in range(1, len(path) + 1)}
        # Items before their fields: once its key is gone, an item is not found any more.
        for path in sorted(dropped, key=len):
            if path not in holding:
                merged = remove(merged, path, request.kind.schema)
        return merged

    def _record(
        self, merged: Obj, live: Obj | None, own: Entry, wanted: set[Path], others: list[Entry]
    ) -> None:
        before = ((live or {}).get("metadata") or {}).get("managedFields")
        unchanged = own.paths == wanted and own.time
        own.paths = wanted
        if not unchanged:
            own.time = timestamp(self._clock.now())
        managed = write_entries([own, *others])
        if live is not None and unchanged and _same(managed, before):
            managed = before or []
        merged.setdefault("metadata", {})["managedFields"] = managed


def _same(new: list[Obj], old: object) -> bool:
    return new == old


def conflict(conflicts: list[tuple[Entry, Path]]) -> Conflict:
    """The 409 that names each contested field and who holds it."""
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {_holder(entry)}",
            "field": shown(path),
        }
        for entry, path in conflicts
    ]
    if len(conflicts) == 1:
        entry, path = conflicts[0]
        said = f"conflict with {_holder(entry)}: {shown(path)}"
    else:
        by_holder: dict[str, list[str]] = {}
        for entry, path in conflicts:
            by_holder.setdefault(_holder(entry), []).append(shown(path))
        lines = []
        for holder in sorted(by_holder):
            lines += [f"conflicts with {holder}:", *(f"- {path}" for path in by_holder[holder])]
        said = "\n".join(lines)
    plural = "" if len(conflicts) == 1 else "s"
    return Conflict(f"Apply failed with {len(conflicts)} conflict{plural}: {said}", causes=causes)


def _holder(entry: Entry) -> str:
    with_subresource = f' with subresource "{entry.subresource}"' if entry.subresource else ""
    holder = f'"{entry.manager}"{with_subresource}'
    if entry.operation == "Update":
        holder += f" using {entry.api_version}"
        if entry.time:
            holder += f" at {entry.time}"
    return holder
