"""Bringing an owned object into the shape its owner wants, and telling when it is not ours."""

from __future__ import annotations

from typing import Any

from knlocal.control.events import EventRecorder
from knlocal.resources.base import (
    Obj,
    annotations_of,
    copy,
    group_kind_of,
    is_controlled_by,
    key_of,
    labels_of,
    owner_reference,
)
from knlocal.serving.kinds import CONFIGURATION, DOMAIN_MAPPING, ROUTE, SERVICE
from knlocal.store.store import Store

#: Owners whose Events tell what was made for them, as on a cluster.
_TOLD = {SERVICE, CONFIGURATION, ROUTE, DOMAIN_MAPPING}


class NotOwned(Exception):
    """An object of the wanted name exists, but belongs to somebody else."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f'There is an existing {kind} "{name}" that we do not own.')
        self.kind = kind
        self.name = name


def ensure(
    store: Store,
    recorder: EventRecorder,
    owner: Obj,
    desired: Obj,
    *,
    merge: bool = False,
    word: str = "",
) -> Obj:
    """Create or correct `owner`'s child and return it as stored.

    Its labels and annotations become exactly the desired ones, and so does its spec; with `merge`,
    what others added stays. Raises NotOwned.
    """
    key = key_of(desired)
    existing = store.find_key(key)
    if existing is None:
        desired["metadata"]["ownerReferences"] = [owner_reference(owner)]
        created = store.create(desired)
        if group_kind_of(owner) in _TOLD:
            recorder.normal(owner, "Created", f'Created {word or key.kind} "{key.name}"')
        return created
    if not is_controlled_by(existing, owner):
        raise NotOwned(key.kind, key.name)
    if _agrees(existing, desired, merge=merge):
        return existing
    new = copy(existing)
    for field, value in desired.items():
        if field != "metadata":
            new[field] = _merged(existing.get(field), value) if merge else value
    for field in ("labels", "annotations"):
        wanted = desired["metadata"].get(field) or {}
        if merge:
            wanted = (existing["metadata"].get(field) or {}) | wanted
        new["metadata"][field] = wanted
    return store.update(new)


def child_metadata(owner: Obj) -> Obj:
    """The metadata of a child that goes by its owner's name, with its labels and annotations."""
    metadata = owner["metadata"]
    return {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "labels": dict(labels_of(owner)),
        "annotations": dict(annotations_of(owner)),
    }


def _agrees(existing: Obj, desired: Obj, *, merge: bool) -> bool:
    for field in ("labels", "annotations"):
        has = existing["metadata"].get(field) or {}
        wanted = desired["metadata"].get(field) or {}
        if not (wanted.items() <= has.items() if merge else wanted == has):
            return False
    same = covers if merge else _equal
    return all(
        same(existing.get(field), value) for field, value in desired.items() if field != "metadata"
    )


def _equal(has: Any, wanted: Any) -> bool:
    return bool(has == wanted)


def covers(has: Any, wanted: Any) -> bool:
    """Whether all of `wanted` is in `has`: what defaulting or others added does not count."""
    if isinstance(wanted, dict):
        return isinstance(has, dict) and all(
            covers(has.get(field), value) for field, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(has, list) and len(has) == len(wanted) and all(map(covers, has, wanted))
    return bool(has == wanted)


def _merged(has: Any, wanted: Any) -> Any:
    """`wanted`, and on top level whatever else `has` holds."""
    if isinstance(has, dict) and isinstance(wanted, dict):
        return {**has, **wanted}
    return wanted
