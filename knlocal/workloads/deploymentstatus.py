"""A Deployment's status: counts and the conditions Available, Progressing, ReplicaFailure
(k8s.io/kubernetes pkg/controller/deployment/{progress,sync}.go). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import ceil, floor
from typing import Any

from knlocal.resources.annotations import SIMULATED_DOWN
from knlocal.resources.base import (
    Obj,
    annotations_of,
    parse_timestamp,
    spec_of,
    status_of,
    timestamp,
)
from knlocal.workloads.podcontrol import set_condition, without_condition

_DONE = "NewReplicaSetAvailable"


def deployment_status(
    deployment: Obj, replica_sets: Sequence[Obj], new: Obj | None, *, created: bool, now: datetime
) -> dict[str, Any]:
    """The status to store, given the ReplicaSets and which of them has the current template."""

    def total(field: str, among: Sequence[Obj] = replica_sets) -> int:
        return sum(int(status_of(r).get(field) or 0) for r in among)

    wanted = int(spec_of(deployment).get("replicas", 1))
    planned = sum(int(spec_of(r).get("replicas", 1)) for r in replica_sets)
    counts = {
        "replicas": total("replicas"),
        "updatedReplicas": total("replicas", [new] if new else []),
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": total("availableReplicas"),
    }
    counts["unavailableReplicas"] = max(0, max(planned, wanted) - counts["availableReplicas"])
    conditions: list[dict[str, Any]] = list(status_of(deployment).get("conditions") or ())
    conditions = _available(deployment, conditions, counts, timestamp(now))
    conditions = _progressing(deployment, conditions, counts, new, created=created, now=now)
    conditions = _replica_failure(conditions, replica_sets, timestamp(now))
    collisions = status_of(deployment).get("collisionCount")
    return {
        "observedGeneration": deployment["metadata"].get("generation", 1),
        **{k: v for k, v in counts.items() if v},
        **({"collisionCount": collisions} if collisions else {}),
        "conditions": conditions,
    }


def simulated_status(deployment: Obj, now: datetime) -> dict[str, Any]:
    """The status of a Deployment that stands for a part of Knative inside the daemon: as ready as
    it asks to be, with no pods."""
    wanted = int(spec_of(deployment).get("replicas", 1))
    ready = 0 if annotations_of(deployment).get(SIMULATED_DOWN) else wanted
    counts = {
        **dict.fromkeys(("replicas", "updatedReplicas"), wanted),
        **dict.fromkeys(("readyReplicas", "availableReplicas"), ready),
    }
    conditions: list[dict[str, Any]] = list(status_of(deployment).get("conditions") or ())
    conditions = _available(deployment, conditions, counts, timestamp(now))
    conditions = set_condition(
        conditions, "Progressing", "True", _DONE, "knlocal does this work itself.",
        timestamp(now), touch=False,
    )  # fmt: skip
    return {
        "observedGeneration": deployment["metadata"].get("generation", 1),
        **{k: v for k, v in counts.items() if v},
        "conditions": conditions,
    }


def progress_deadline_in(deployment: Obj | None, now: datetime) -> float | None:
    """Seconds until the Deployment counts as stuck; None when it does not wait for progress."""
    if deployment is None:
        return None
    seconds = spec_of(deployment).get("progressDeadlineSeconds")
    condition = _find(status_of(deployment).get("conditions") or (), "Progressing")
    if seconds is None or condition is None or condition["status"] == "False":
        return None
    if condition["reason"] in (_DONE, "DeploymentPaused"):
        return None
    gone = (now - parse_timestamp(condition["lastUpdateTime"])).total_seconds()
    # Kubernetes says "after", and its times are whole seconds.
    return max(0.0, float(seconds) - gone) + 0.01


def _available(
    deployment: Obj, conditions: list[dict[str, Any]], counts: dict[str, int], now: str
) -> list[dict[str, Any]]:
    if counts["availableReplicas"] >= least_available(deployment):
        return set_condition(
            conditions, "Available", "True", "MinimumReplicasAvailable",
            "Deployment has minimum availability.", now, touch=False,
        )  # fmt: skip
    return set_condition(
        conditions, "Available", "False", "MinimumReplicasUnavailable",
        "Deployment does not have minimum availability.", now, touch=False,
    )  # fmt: skip


def _progressing(
    deployment: Obj,
    conditions: list[dict[str, Any]],
    counts: dict[str, int],
    new: Obj | None,
    *,
    created: bool,
    now: datetime,
) -> list[dict[str, Any]]:
    if spec_of(deployment).get("progressDeadlineSeconds") is None:
        return without_condition(conditions, "Progressing")

    def said(status: str, reason: str, message: str, *, touch: bool = False) -> list[Any]:
        return set_condition(
            conditions, "Progressing", status, reason, message, timestamp(now), touch=touch
        )

    before = _find(conditions, "Progressing")
    if spec_of(deployment).get("paused"):
        if before and before["reason"] == "ProgressDeadlineExceeded":
            return conditions
        return said("Unknown", "DeploymentPaused", "Deployment is paused")
    if before and before["reason"] == "DeploymentPaused":
        conditions = said("Unknown", "DeploymentResumed", "Deployment is resumed", touch=True)
    if new is None:
        return conditions
    name = new["metadata"]["name"]
    if created:
        return said("True", "NewReplicaSetCreated", f'Created new replica set "{name}"', touch=True)
    if before is None:
        conditions = said("True", "FoundNewReplicaSet", f'Found new replica set "{name}"')
    elif before["reason"] == _DONE and counts["replicas"] == counts["updatedReplicas"]:
        return conditions  # scaling is no rollout
    if _is_complete(deployment, counts):
        return said("True", _DONE, f'ReplicaSet "{name}" has successfully progressed.')
    if _has_moved(status_of(deployment), counts):
        message = f'ReplicaSet "{name}" is progressing.'
        return said("True", "ReplicaSetUpdated", message, touch=True)
    if _is_late(deployment, _find(conditions, "Progressing"), now):
        message = f'ReplicaSet "{name}" has timed out progressing.'
        return said("False", "ProgressDeadlineExceeded", message)
    return conditions


def _is_complete(deployment: Obj, counts: dict[str, int]) -> bool:
    wanted = int(spec_of(deployment).get("replicas", 1))
    return all(
        counts[field] == wanted for field in ("updatedReplicas", "replicas", "availableReplicas")
    )


def _has_moved(before: Obj, counts: dict[str, int]) -> bool:
    def was(field: str) -> int:
        return int(before.get(field) or 0)

    return (
        counts["updatedReplicas"] > was("updatedReplicas")
        or counts["replicas"] - counts["updatedReplicas"] < was("replicas") - was("updatedReplicas")
        or counts["readyReplicas"] > was("readyReplicas")
        or counts["availableReplicas"] > was("availableReplicas")
    )


def _is_late(deployment: Obj, condition: dict[str, Any] | None, now: datetime) -> bool:
    if condition is None or condition["reason"] == _DONE:
        return False
    if condition["status"] == "False":
        return True
    since = parse_timestamp(condition["lastUpdateTime"])
    return (now - since).total_seconds() >= float(spec_of(deployment)["progressDeadlineSeconds"])


def _replica_failure(
    conditions: list[dict[str, Any]], replica_sets: Sequence[Obj], now: str
) -> list[dict[str, Any]]:
    for one in replica_sets:
        failure = _find(status_of(one).get("conditions") or (), "ReplicaFailure")
        if failure is not None:
            return set_condition(
                conditions, "ReplicaFailure", failure["status"], failure.get("reason", ""),
                failure.get("message", ""), now, touch=False,
            )  # fmt: skip
    return without_condition(conditions, "ReplicaFailure")


def _find(conditions: Sequence[dict[str, Any]], type_: str) -> dict[str, Any] | None:
    return next((c for c in conditions if c["type"] == type_), None)


def least_available(deployment: Obj) -> int:
    """How many available pods the Deployment needs to count as available."""
    return int(spec_of(deployment).get("replicas", 1)) - rolling_limits(deployment)[1]


def rolling_limits(deployment: Obj) -> tuple[int, int]:
    """How many pods may be there beyond the wanted number, and how many may be missing."""
    strategy = spec_of(deployment).get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    wanted = int(spec_of(deployment).get("replicas", 1))
    surge = _resolve(rolling.get("maxSurge", "25%"), wanted, up=True)
    unavailable = _resolve(rolling.get("maxUnavailable", "25%"), wanted, up=False)
    if not surge and not unavailable:
        unavailable = 1
    return surge, min(unavailable, wanted)


def _resolve(value: Any, of: int, *, up: bool) -> int:
    text = str(value)
    if not text.endswith("%"):
        return int(text)
    part = int(text[:-1]) * of / 100
    return ceil(part) if up else floor(part)
