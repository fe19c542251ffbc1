"""Objects that a controller makes for another: created when missing, put right when they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knlocal.resources.base import Obj, copy, is_controlled_by, key_of, owner_reference, uid_of
from knlocal.resources.ducks import EVENTING_CONTROLLER
from knlocal.resources.status import BadRequest, Invalid
from knlocal.store.store import Store, WriteOptions


class ChildError(Exception):
    """A child is not there as it should be; the message tells why."""


class NotOwned(ChildError):
    """An object of the child's name exists and belongs to somebody else."""


class Refused(ChildError):
    """The API takes no such child."""


def child(
    owner: Obj,
    api_version: str,
    kind: str,
    name: str,
    spec: Mapping[str, Any] | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Obj:
    """The wanted form of a child, beside its owner in the namespace."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [owner_reference(owner)],
    }
    if labels:
        metadata["labels"] = dict(labels)
    if annotations:
        metadata["annotations"] = dict(annotations)
    obj: Obj = {"apiVersion": api_version, "kind": kind, "metadata": metadata}
    if spec is not None:
        obj["spec"] = dict(spec)
    return obj


def ensure(store: Store, owner: Obj, wanted: Obj, *, fixed: tuple[str, ...] = ()) -> Obj:
    """The child as it is in the store now.

    Fields of the spec that `wanted` names are put right, others are left to the child's own
    controllers. When a field of `fixed` differs, the child is made anew, as it cannot be changed.
    Raises NotOwned, and Refused for what validation is against.
    """
    try:
        return _ensure(store, owner, wanted, fixed)
    except (BadRequest, Invalid) as error:
        raise Refused(error.message) from error


def _ensure(store: Store, owner: Obj, wanted: Obj, fixed: tuple[str, ...]) -> Obj:
    options = WriteOptions(user=EVENTING_CONTROLLER)
    key = key_of(wanted)
    known = store.find_key(key)
    if known is None:
        return store.create(wanted, options)
    if not is_controlled_by(known, owner):
        raise NotOwned(
            f"{key.kind} {key.name!r} exists and is not owned by "
            f"{owner['kind']} {owner['metadata']['name']!r}"
        )
    changed = copy(known)
    spec = changed.setdefault("spec", {})
    for name, value in (wanted.get("spec") or {}).items():
        if value is None:
            spec.pop(name, None)
        else:
            spec[name] = value
    metadata = wanted["metadata"]
    for field in ("labels", "annotations"):
        if metadata.get(field):
            changed["metadata"].setdefault(field, {}).update(metadata[field])
    # Defaulting fills in what `wanted` leaves out; compare after it, and write only a difference.
    after = store.update(changed, WriteOptions(user=EVENTING_CONTROLLER, dry_run=True))
    if any(after["spec"].get(name) != known["spec"].get(name) for name in fixed):
        store.delete(key.group_kind, key.namespace, key.name)
        if store.find_key(key) is not None:
            return known  # held by a finalizer: its own change brings us back
        return store.create(wanted, options)
    if after.get("spec") == known.get("spec") and after["metadata"] == known["metadata"]:
        return known
    return store.update(changed, options)


def remove_others(store: Store, owner: Obj, keep: set[str], *kinds: str) -> None:
    """Delete the owner's children of these kinds whose names are not in `keep`."""
    for obj in store.children(uid_of(owner)):
        if obj["kind"] in kinds and obj["metadata"]["name"] not in keep:
            key = key_of(obj)
            store.delete(key.group_kind, key.namespace, key.name)
