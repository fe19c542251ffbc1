"""Objects as they lie in the store, and the few accessors everyone needs.

An object is plain JSON data (`Obj`), exactly as the Kubernetes API shows it. Objects that the
store hands out are shared: never change one, `copy` it first (`Store.modify` does that for you).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

Obj = dict[str, Any]
"""A Kubernetes object as JSON data."""


class GroupKind(NamedTuple):
    """What an object is, without the version: the store keeps one form per group and kind."""

    group: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind


class Key(NamedTuple):
    """Which object: its group, kind, namespace ("" when cluster-scoped) and name."""

    group: str
    kind: str
    namespace: str
    name: str

    @property
    def group_kind(self) -> GroupKind:
        return GroupKind(self.group, self.kind)

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.group_kind} {place}"


def split_api_version(api_version: str) -> tuple[str, str]:
    """("serving.knative.dev", "v1") for "serving.knative.dev/v1"; ("", "v1") for "v1"."""
    group, _, version = api_version.rpartition("/")
    return group, version


def group_kind_of(obj: Obj) -> GroupKind:
    return GroupKind(split_api_version(obj.get("apiVersion", ""))[0], obj.get("kind", ""))


def key_of(obj: Obj) -> Key:
    metadata = obj.get("metadata") or {}
    group, kind = group_kind_of(obj)
    return Key(group, kind, metadata.get("namespace") or "", metadata.get("name") or "")


def meta(obj: Obj) -> dict[str, Any]:
    """`obj.metadata`, made when missing."""
    result: dict[str, Any] = obj.setdefault("metadata", {})
    return result


def labels_of(obj: Obj) -> dict[str, str]:
    return (obj.get("metadata") or {}).get("labels") or {}


def annotations_of(obj: Obj) -> dict[str, str]:
    return (obj.get("metadata") or {}).get("annotations") or {}


def spec_of(obj: Obj) -> dict[str, Any]:
    return obj.get("spec") or {}


def status_of(obj: Obj) -> dict[str, Any]:
    return obj.get("status") or {}


def uid_of(obj: Obj) -> str:
    return str((obj.get("metadata") or {}).get("uid") or "")


def is_deleting(obj: Obj) -> bool:
    return bool((obj.get("metadata") or {}).get("deletionTimestamp"))


def copy(obj: Obj) -> Obj:
    """A deep copy that may be changed."""
    return {key: _copy(value) for key, value in obj.items()}


def _copy(value: Any) -> Any:
    # JSON data only, so a fraction of what copy.deepcopy takes.
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def owner_reference(owner: Obj, *, controller: bool = True) -> dict[str, Any]:
    """The reference a child carries to `owner` (a controller reference unless told otherwise)."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    if controller:
        reference |= {"controller": True, "blockOwnerDeletion": True}
    return reference


def controller_of(obj: Obj) -> dict[str, Any] | None:
    """The owner reference with `controller: true`, if any."""
    for reference in (obj.get("metadata") or {}).get("ownerReferences") or []:
        if reference.get("controller"):
            return dict(reference)
    return None


def is_controlled_by(obj: Obj, owner: Obj) -> bool:
    reference = controller_of(obj)
    return reference is not None and reference.get("uid") == uid_of(owner)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds: the form of `metav1.Time`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
