"""What controllers that own pods share: making them from a template, counting, choosing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from knlocal.resources.base import (
    Obj,
    annotations_of,
    copy,
    is_controlled_by,
    is_deleting,
    key_of,
    owner_reference,
    parse_timestamp,
    spec_of,
    status_of,
    uid_of,
)
from knlocal.store.store import Store
from knlocal.workloads.podstatus import is_pod_ready, is_terminal

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def pod_from_template(owner: Obj, template: Obj, *, name: str = "", prefix: str = "") -> Obj:
    """A pod as its controller makes it: from a template, owned by `owner`."""
    metadata = copy(template.get("metadata") or {})
    names = {"name": name} if name else {"generateName": prefix or f"{owner['metadata']['name']}-"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **{k: v for k, v in metadata.items() if k in ("labels", "annotations", "finalizers")},
            **names,
            "namespace": owner["metadata"]["namespace"],
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": copy(template.get("spec") or {}),
    }


def owned(store: Store, owner: Obj, kind: str = "Pod") -> list[Obj]:
    """Objects of a kind that `owner` controls."""
    return [
        child
        for child in store.children(uid_of(owner))
        if child["kind"] == kind and is_controlled_by(child, owner)
    ]


def fresh(store: Store, obj: Obj) -> Obj:
    """The object as it is in the store now. Raises NotFound."""
    key = key_of(obj)
    return store.get(key.group_kind, key.namespace, key.name)


def is_active(pod: Obj) -> bool:
    """Neither finished nor on its way out."""
    return not is_deleting(pod) and not is_terminal(pod)


def available_in(pod: Obj, min_ready_seconds: float, now: datetime) -> float | None:
    """Seconds until the pod counts as available; 0 when it does, None while it is not ready."""
    if not is_pod_ready(pod):
        return None
    if min_ready_seconds <= 0:
        return 0.0
    conditions = status_of(pod).get("conditions") or ()
    since = next(c["lastTransitionTime"] for c in conditions if c["type"] == "Ready")
    return max(0.0, min_ready_seconds - (now - parse_timestamp(since)).total_seconds())


def deletion_order(pods: list[Obj]) -> list[Obj]:
    """Pods in the order in which a controller lets go of them: first the unassigned, pending and
    not ready, then the cheap, the young and the often restarted (kubernetes
    pkg/controller/controller_utils.go ActivePodsWithRanks)."""

    def rank(pod: Obj) -> tuple[Any, ...]:
        status = status_of(pod)
        phases = {"Pending": 0, "Unknown": 1, "Running": 2}
        restarts = [c.get("restartCount", 0) for c in status.get("containerStatuses") or ()]
        return (
            bool(spec_of(pod).get("nodeName")),
            phases.get(status.get("phase", ""), 0),
            is_pod_ready(pod),
            _cost(pod),
            -max(restarts, default=0),
            _newest_first(pod),
        )

    return sorted(pods, key=rank)


def _cost(pod: Obj) -> int:
    try:
        return int(annotations_of(pod).get(_DELETION_COST, "0"))
    except ValueError:
        return 0


def _newest_first(pod: Obj) -> tuple[float, int]:
    metadata = pod["metadata"]
    created = parse_timestamp(metadata["creationTimestamp"]).timestamp()
    return -created, -int(metadata.get("resourceVersion") or 0)


def template_hash(template: Mapping[str, Any], collisions: int = 0) -> str:
    """Ten characters that change with the template (the `pod-template-hash` label), and with how
    many names made of them were taken."""
    content = json.dumps(template, sort_keys=True, separators=(",", ":"), default=str)
    content += str(collisions or "")
    number = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")
    letters = []
    for _ in range(10):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)


def set_condition(
    conditions: list[dict[str, Any]],
    type_: str,
    status: str,
    reason: str,
    message: str,
    now: str,
    *,
    touch: bool | None = None,
) -> list[dict[str, Any]]:
    """`conditions` with one of them set. The same status and reason again change nothing, unless
    `touch` (for Deployments, whose conditions have a `lastUpdateTime`) asks for it."""
    before = next((c for c in conditions if c["type"] == type_), None)
    same = before is not None and before["status"] == status
    if before and same and before.get("reason") == reason and not touch:
        return conditions
    condition = {"type": type_, "status": status}
    if touch is not None:
        condition["lastUpdateTime"] = now
    moved = before["lastTransitionTime"] if before and same else now
    condition |= {"lastTransitionTime": moved, "reason": reason, "message": message}
    return [*(c for c in conditions if c["type"] != type_), condition]


def without_condition(conditions: list[dict[str, Any]], type_: str) -> list[dict[str, Any]]:
    return [c for c in conditions if c["type"] != type_]
