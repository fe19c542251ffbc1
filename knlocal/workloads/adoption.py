"""Pods that come to a controller, or leave it, by their labels
(k8s.io/kubernetes pkg/controller/controller_ref_manager.go).

A pod whose labels no longer match is let go and runs on by itself; one that matches and belongs to
nobody is taken in.
"""

from __future__ import annotations

from collections.abc import Iterable

from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    controller_of,
    is_deleting,
    key_of,
    labels_of,
    owner_reference,
    spec_of,
    uid_of,
)
from knlocal.resources.labels import Selector, from_label_selector
from knlocal.store.store import Store
from knlocal.workloads.podcontrol import owned
from knlocal.workloads.podstatus import is_terminal
from knlocal.workloads.terms import POD


class Adoption:
    """For the pods of one kind of controller."""

    def __init__(self, store: Store, kind: GroupKind) -> None:
        self._store = store
        self._kind = kind
        self._looked: set[str] = set()
        """Controllers (by uid) for which nobody has come since they were looked at."""

    def wanted_by(self, pod: Obj) -> Iterable[Key]:
        """Whom a pod that belongs to nobody may interest."""
        if controller_of(pod) is not None or is_deleting(pod):
            return []
        found = [
            owner
            for owner in self._store.list(self._kind, pod["metadata"].get("namespace"))
            if (selector := _selector(owner)) and selector.matches(labels_of(pod))
        ]
        self._looked -= {uid_of(owner) for owner in found}
        return [key_of(owner) for owner in found]

    def settle(self, owner: Obj) -> None:
        """Let go of and take in what its selector says."""
        selector = _selector(owner)
        if selector is None or is_deleting(owner):
            return
        for pod in owned(self._store, owner):
            if not selector.matches(labels_of(pod)) and not is_deleting(pod):
                self._release(pod, uid_of(owner))
        if uid_of(owner) in self._looked:
            return
        self._looked.add(uid_of(owner))
        for pod in self._store.list(POD, owner["metadata"]["namespace"]):
            if controller_of(pod) is None and selector.matches(labels_of(pod)):
                self._adopt(pod, owner)

    def _release(self, pod: Obj, uid: str) -> None:
        key = key_of(pod)

        def change(one: Obj) -> None:
            references = one["metadata"].get("ownerReferences") or ()
            one["metadata"]["ownerReferences"] = [r for r in references if r["uid"] != uid]

        self._store.modify(POD, key.namespace, key.name, change)

    def _adopt(self, pod: Obj, owner: Obj) -> None:
        if is_deleting(pod) or is_terminal(pod):
            return
        key = key_of(pod)

        def change(one: Obj) -> None:
            references = one["metadata"].get("ownerReferences") or ()
            one["metadata"]["ownerReferences"] = [*references, owner_reference(owner)]

        self._store.modify(POD, key.namespace, key.name, change)


def _selector(owner: Obj) -> Selector | None:
    """None for one that chooses nothing: it would choose everything."""
    selector = spec_of(owner).get("selector")
    return from_label_selector(selector) if selector else None
