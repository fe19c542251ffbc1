"""The metadata that the store answers for: what clients cannot set, generations, deletion."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from knlocal.resources.base import GroupKind, Obj, group_kind_of, timestamp
from knlocal.resources.kinds import Kind
from knlocal.store.refusals import conflict, precondition_failed

Propagation = Literal["Background", "Foreground", "Orphan"]

#: Fields that only the store sets.
SERVER_FIELDS = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "selfLink")
#: Built-in groups whose objects carry a generation.
_GENERATION_GROUPS = {"apps", "batch", "networking.k8s.io", "policy", "autoscaling"}
_NAMESPACE, _POD = GroupKind("", "Namespace"), GroupKind("", "Pod")


def written_by_clients(obj: Obj | None) -> Any:
    """The part that clients write: checked again only when it changed."""
    fields = ("name", "generateName", "labels", "annotations", "ownerReferences")
    metadata = (obj or {}).get("metadata") or {}
    return obj and [metadata.get(field) for field in fields]


# -- updates --------------------------------------------------------------------------------------


def check_preconditions(kind: Kind, obj: Obj, current: Obj) -> None:
    """Raise Conflict when `obj` is of another object, or of another version of it."""
    metadata, has = obj["metadata"], current["metadata"]
    if metadata.get("uid") and metadata["uid"] != has["uid"]:
        raise precondition_failed(kind, has["name"], "UID", metadata["uid"], has["uid"])
    version = metadata.get("resourceVersion")
    if version and version != "0" and version != has["resourceVersion"]:
        raise conflict(
            kind, has["name"],
            "the object has been modified; please apply your changes to the latest version "
            "and try again",
        )  # fmt: skip


def with_server_fields(kind: Kind, obj: Obj, current: Obj) -> Obj:
    """`obj` with everything that only the store or the status subresource may change."""
    metadata, has = obj["metadata"], current["metadata"]
    for name in (*SERVER_FIELDS, "deletionGracePeriodSeconds", "generateName"):
        metadata.pop(name, None)
        if name in has:
            metadata[name] = has[name]
    for name in ("labels", "annotations", "finalizers", "ownerReferences"):
        if name in metadata and not metadata[name]:
            del metadata[name]
    if kind.has_status:
        obj.pop("status", None)
        if "status" in current:
            obj["status"] = current["status"]
    return obj


def counts_generations(kind: Kind) -> bool:
    return kind.is_custom or kind.group in _GENERATION_GROUPS


def spec_changed(kind: Kind, old: Obj, new: Obj) -> bool:
    """Whether it is another generation."""
    ignored = {"metadata", "status"} if kind.has_status else {"metadata"}
    return {k: v for k, v in old.items() if k not in ignored} != {
        k: v for k, v in new.items() if k not in ignored
    }


# -- deletion -------------------------------------------------------------------------------------


def mark_deleted(
    obj: Obj,
    propagation: Propagation | None,
    grace_seconds: int | None,
    *,
    now: datetime,
    has_children: bool,
) -> None:
    """Say in `obj` that it is to go, and what has to come first."""
    metadata, group_kind = obj["metadata"], group_kind_of(obj)
    if group_kind == _POD:
        spec = obj.get("spec") or {}
        grace = spec.get("terminationGracePeriodSeconds", 30)
        grace = grace if grace_seconds is None else grace_seconds
        if not spec.get("nodeName"):  # a pod that never got a node has nothing to shut down
            grace = 0
        earlier = metadata.get("deletionGracePeriodSeconds")
        metadata["deletionGracePeriodSeconds"] = grace if earlier is None else min(grace, earlier)
    if not metadata.get("deletionTimestamp"):
        metadata["deletionTimestamp"] = timestamp(now)
    if propagation == "Foreground" and has_children:
        finalizers = metadata.setdefault("finalizers", [])
        if "foregroundDeletion" not in finalizers:
            finalizers.append("foregroundDeletion")
    if group_kind == _NAMESPACE:
        obj.setdefault("status", {})["phase"] = "Terminating"


def holders(obj: Obj) -> Sequence[Any]:
    """What keeps a deleted object here: finalizers, a namespace's content, a pod's grace."""
    metadata = obj["metadata"]
    found = list(metadata.get("finalizers") or ())
    if group_kind_of(obj) == _NAMESPACE:
        found += (obj.get("spec") or {}).get("finalizers") or ()
    if metadata.get("deletionGracePeriodSeconds"):
        found.append("grace")
    return found
