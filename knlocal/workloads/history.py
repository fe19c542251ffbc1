"""The templates a StatefulSet or DaemonSet has had, as ControllerRevisions: what `kubectl rollout
history` lists and `kubectl rollout undo` goes back to.

Source: k8s.io/kubernetes pkg/controller/history and its use in pkg/controller/{statefulset,daemon}.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from knlocal.resources.base import (
    GroupKind,
    Obj,
    copy,
    key_of,
    labels_of,
    owner_reference,
    spec_of,
)
from knlocal.resources.status import AlreadyExists
from knlocal.store.store import Store
from knlocal.workloads.podcontrol import owned, template_hash

CONTROLLER_REVISION = GroupKind("apps", "ControllerRevision")
_HASH = "controller.kubernetes.io/hash"
_KEPT = 10


def record(store: Store, owner: Obj) -> Obj:
    """The revision of the owner's present template. One it had before becomes the newest again."""
    data = {"spec": {"template": {**copy(spec_of(owner)["template"]), "$patch": "replace"}}}
    known = revisions(store, owner)
    number = max((one["revision"] for one in known), default=0)
    for one in known:
        if one["data"] == data:
            if one["revision"] < number:
                return _renumber(store, one, number + 1)
            return one
    collisions = 0
    while True:
        hash_ = template_hash(spec_of(owner)["template"], collisions)
        try:
            return store.create(_revision(owner, hash_, data, number + 1))
        except AlreadyExists:
            collisions += 1


def revisions(store: Store, owner: Obj) -> list[Obj]:
    """The owner's history, the oldest first."""
    return sorted(owned(store, owner, "ControllerRevision"), key=lambda one: int(one["revision"]))


def trim(store: Store, owner: Obj, in_use: Iterable[str]) -> None:
    """Let go of the oldest beyond `revisionHistoryLimit`; those in use (by name) do not count."""
    used = set(in_use)
    idle = [one for one in revisions(store, owner) if one["metadata"]["name"] not in used]
    limit = int(spec_of(owner).get("revisionHistoryLimit", _KEPT))
    for one in idle[: max(0, len(idle) - limit)]:
        key = key_of(one)
        store.delete(CONTROLLER_REVISION, key.namespace, key.name)


def hash_of(revision: Obj) -> str:
    return labels_of(revision)[_HASH]


def template_of(revision: Obj) -> dict[str, Any]:
    template = copy(revision["data"]["spec"]["template"])
    template.pop("$patch", None)
    return template


def _revision(owner: Obj, hash_: str, data: Obj, number: int) -> Obj:
    labels = (spec_of(owner).get("selector") or {}).get("matchLabels") or {}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{owner['metadata']['name']}-{hash_}",
            "namespace": owner["metadata"]["namespace"],
            "labels": {**labels, _HASH: hash_},
            "ownerReferences": [owner_reference(owner)],
        },
        "data": data,
        "revision": number,
    }


def _renumber(store: Store, revision: Obj, number: int) -> Obj:
    key = key_of(revision)

    def change(obj: Obj) -> None:
        obj["revision"] = number

    return store.modify(CONTROLLER_REVISION, key.namespace, key.name, change)
