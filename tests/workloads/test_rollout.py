"""How many pods each ReplicaSet of a Deployment gets: the rules of Kubernetes, as numbers."""

from __future__ import annotations

from typing import Any

import pytest

from knlocal.resources.base import Obj
from knlocal.workloads import rollout


def deployment(replicas: int, surge: Any = "25%", unavailable: Any = "25%", **spec: Any) -> Obj:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    return {"metadata": {"name": "d"}, "spec": {"replicas": replicas, "strategy": strategy, **spec}}


def replica_set(name: str, replicas: int, available: int | None = None, **marks: int) -> Obj:
    annotations = {
        {"desired": rollout.DESIRED, "most": rollout.MOST}[word]: str(number)
        for word, number in marks.items()
    }
    return {
        "metadata": {
            "name": name, "creationTimestamp": f"2026-01-0{name[-1]}T00:00:00Z",
            "annotations": annotations,
        },
        "spec": {"replicas": replicas},
        "status": {"availableReplicas": replicas if available is None else available},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "surge", "has", "old", "next_number"),
    [
        (10, "25%", 0, 10, 3),  # 25 % of 10 is 2.5: more rather than fewer
        (10, 0, 0, 10, 0),  # none beyond the wanted number: old ones must go first
        (10, 0, 0, 8, 2),
        (10, "100%", 0, 10, 10),
        (10, 5, 8, 5, 10),  # never more than wanted
        (10, 5, 12, 0, 10),
    ],
)
def test_new_pods_come_as_far_as_the_surge_allows(
    wanted: int, surge: Any, has: int, old: int, next_number: int
) -> None:
    plan = rollout.roll_new(
        deployment(wanted, surge), replica_set("n2", has), [replica_set("o1", old)]
    )
    assert plan == {"n2": next_number}


@pytest.mark.parametrize(
    ("unavailable", "new", "new_available", "old_available", "left"),
    [
        (0, 3, 0, 10, 10),  # nothing new works yet: nothing old goes
        (0, 3, 3, 10, 7),
        ("20%", 0, 0, 10, 8),
        ("20%", 3, 0, 10, 8),  # pods that are only starting do not count
        (0, 3, 0, 6, 10),  # too few work already
        (1, 3, 2, 8, 7),  # the two that are broken, and one that works
    ],
)
def test_old_pods_go_as_far_as_availability_allows(
    unavailable: Any, new: int, new_available: int, old_available: int, left: int
) -> None:
    plan = rollout.roll_old(
        deployment(10, 3, unavailable),
        replica_set("n2", new, new_available),
        [replica_set("o1", 10, old_available)],
    )
    assert plan.get("o1", 10) == left


def test_pods_that_do_not_work_go_first() -> None:
    broken, sound = replica_set("o2", 4, 0), replica_set("o1", 6)
    plan = rollout.roll_old(deployment(8, 2, 0), replica_set("n3", 0), [broken, sound])
    assert plan == {"o1": 6, "o2": 2}


def test_a_number_changed_in_the_middle_of_a_rollout_is_shared_in_proportion() -> None:
    """The example of Kubernetes' own documentation: 8 and 5 become 11 and 7 (or so)."""
    wanted = deployment(15, 3, 2)
    old = replica_set("o1", 8, desired=10, most=13)
    new = replica_set("n2", 5, 0, desired=10, most=13)
    assert rollout.is_scaling(wanted, [old, new])
    plan = rollout.scale(wanted, new, [old])
    assert plan == {"o1": 11, "n2": 7}


def test_fewer_are_shared_in_proportion_too() -> None:
    old, new = replica_set("o1", 8, desired=10, most=13), replica_set("n2", 5, desired=10, most=13)
    plan = rollout.scale(deployment(5, 3, 2), new, [old])
    assert sum(plan.values()) == 8
    assert plan["o1"] > plan["n2"] > 0
    assert rollout.scale(deployment(0, 3, 2), new, [old]) == {"o1": 0, "n2": 0}


def test_the_only_one_with_pods_takes_the_whole_number() -> None:
    old, new = replica_set("o1", 3, desired=3), replica_set("n2", 0)
    assert rollout.scale(deployment(5), new, [old]) == {"o1": 5}
    assert rollout.scale(deployment(5), None, [old]) == {"o1": 5}
    assert rollout.scale(deployment(5), new, [replica_set("o1", 0)]) == {"n2": 5}
    assert rollout.scale(deployment(5), None, []) == {}


def test_when_the_new_one_is_complete_the_others_get_none() -> None:
    old, new = replica_set("o1", 2), replica_set("n2", 3, desired=3)
    assert rollout.scale(deployment(3), new, [old]) == {"o1": 0}
