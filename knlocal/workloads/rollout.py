"""How many pods each ReplicaSet of a Deployment shall have next: pure
(k8s.io/kubernetes pkg/controller/deployment/{rolling,recreate,sync}.go and util).

Each function returns the numbers that change, by ReplicaSet name.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

from knlocal.resources.base import Obj, annotations_of, spec_of, status_of
from knlocal.workloads.deploymentstatus import rolling_limits

DESIRED = "deployment.kubernetes.io/desired-replicas"
MOST = "deployment.kubernetes.io/max-replicas"

Plan = dict[str, int]


def replicas(obj: Obj) -> int:
    """How many pods a Deployment or ReplicaSet wants."""
    return int(spec_of(obj).get("replicas", 1))


def available(replica_set: Obj) -> int:
    return int(status_of(replica_set).get("availableReplicas") or 0)


def is_recreate(deployment: Obj) -> bool:
    return (spec_of(deployment).get("strategy") or {}).get("type") == "Recreate"


def is_scaling(deployment: Obj, replica_sets: Sequence[Obj]) -> bool:
    """The wanted number has changed since the ReplicaSets were given theirs."""
    noted = (annotations_of(one).get(DESIRED) for one in _active(replica_sets))
    return any(text is not None and text != str(replicas(deployment)) for text in noted)


def scale(deployment: Obj, new: Obj | None, old: Sequence[Obj]) -> Plan:
    """Follow the wanted number without going on with a rollout: the only one that has pods takes
    it all; several share it in proportion to their size."""
    wanted = replicas(deployment)
    every = [*old, *([new] if new else [])]
    active = _active(every)
    if len(active) <= 1:
        one = active[0] if active else new or (max(old, key=_age) if old else None)
        return {one["metadata"]["name"]: wanted} if one is not None else {}
    if new is not None and _is_saturated(deployment, new):
        return {one["metadata"]["name"]: 0 for one in _active(old)}
    return {} if is_recreate(deployment) else _in_proportion(deployment, active)


def roll_new(deployment: Obj, new: Obj, old: Sequence[Obj]) -> Plan:
    """As many new pods as there may be now."""
    name, wanted, has = new["metadata"]["name"], replicas(deployment), replicas(new)
    if has >= wanted or not _active(old):
        return {name: wanted}
    surge, _ = rolling_limits(deployment)
    room = wanted + surge - sum(map(replicas, (new, *old)))
    return {name: min(wanted, has + max(0, room))}


def roll_old(deployment: Obj, new: Obj, old: Sequence[Obj]) -> Plan:
    """Let go of as many old pods as availability allows, first of those that do not work."""
    _, unavailable = rolling_limits(deployment)
    least = replicas(deployment) - unavailable
    active = sorted(_active(old), key=_age)
    left: Plan = {one["metadata"]["name"]: replicas(one) for one in active}
    not_yet = max(0, replicas(new) - available(new))
    can_go = sum(left.values()) + replicas(new) - least - not_yet
    if can_go <= 0:
        return {}
    for one in active:
        name = one["metadata"]["name"]
        broken = min(can_go, left[name] - available(one))
        if broken > 0:
            left[name] -= broken
            can_go -= broken
    spare = sum(map(available, (new, *active))) - least
    for one in active:
        name = one["metadata"]["name"]
        go = min(left[name], spare)
        if go > 0:
            left[name] -= go
            spare -= go
    return left


def _in_proportion(deployment: Obj, active: Sequence[Obj]) -> Plan:
    surge, _ = rolling_limits(deployment)
    wanted = replicas(deployment)
    add = (wanted + surge if wanted else 0) - sum(map(replicas, active))
    newest_first = sorted(active, key=lambda one: (replicas(one), _age(one)), reverse=True)
    if add < 0:  # of equal size the oldest loses first
        newest_first = sorted(active, key=lambda one: (-replicas(one), _age(one)))
    plan: Plan = {}
    added = 0
    for one in newest_first:
        share = _share(deployment, one, wanted + surge)
        share = min(share, add - added) if add > 0 else max(share, add - added)
        plan[one["metadata"]["name"]] = replicas(one) + (share if add else 0)
        added += share if add else 0
    first = newest_first[0]["metadata"]["name"]
    plan[first] = max(0, plan[first] + add - added)
    return plan


def _share(deployment: Obj, one: Obj, most: int) -> int:
    """What one ReplicaSet gains (or loses) when the Deployment's greatest size changes."""
    if not replicas(deployment):
        return -replicas(one)
    text = annotations_of(one).get(MOST, "0")
    before = int(text) if text.isdigit() else 0
    before = before or int(status_of(deployment).get("replicas") or 0) or 1
    return floor(replicas(one) * most / before + 0.5) - replicas(one)


def _is_saturated(deployment: Obj, replica_set: Obj) -> bool:
    wanted = replicas(deployment)
    return (
        annotations_of(replica_set).get(DESIRED) == str(wanted)
        and replicas(replica_set) == wanted
        and available(replica_set) == wanted
    )


def _active(replica_sets: Sequence[Obj]) -> list[Obj]:
    return [one for one in replica_sets if replicas(one) > 0]


def _age(replica_set: Obj) -> tuple[str, str]:
    metadata = replica_set["metadata"]
    return str(metadata.get("creationTimestamp") or ""), str(metadata["name"])
