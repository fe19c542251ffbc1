"""PodDisruptionBudgets: their status follows the pods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from knlocal.clock import SystemClock
from knlocal.control.manager import Manager
from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.catalog import registry
from knlocal.store.store import Store
from knlocal.workloads.disruption import BUDGET, DisruptionController
from tests.apiserver.conftest import eventually

POD = GroupKind("", "Pod")


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = Store(registry(), SystemClock())
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    manager = Manager(store)
    manager.add(DisruptionController(store))
    await manager.start()
    yield store
    await manager.stop()
    store.close()


def budget(**spec: Any) -> Obj:
    return {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec},
    }  # fmt: skip


def add_pod(store: Store, name: str, *, ready: bool, owner: Obj | None = None) -> None:
    metadata: Obj = {"name": name, "namespace": "default", "labels": {"app": "web"}}
    if owner:
        metadata["ownerReferences"] = [
            {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": True,
             "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
        ]  # fmt: skip
    store.create({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    })  # fmt: skip
    status = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
    }
    store.modify(
        POD, "default", name, lambda obj: obj.__setitem__("status", status), subresource="status"
    )


async def settled(store: Store, *figures: int) -> None:
    """expectedPods, currentHealthy, desiredHealthy, disruptionsAllowed."""
    names = ("expectedPods", "currentHealthy", "desiredHealthy", "disruptionsAllowed")

    def shown() -> bool:
        status = store.get(BUDGET, "default", "b").get("status") or {}
        return tuple(status.get(name) for name in names) == figures

    await eventually(store, shown)


async def test_a_budget_counts_the_healthy_pods_it_chooses(store: Store) -> None:
    store.create(budget(minAvailable=1))
    add_pod(store, "one", ready=True)
    await settled(store, 1, 1, 1, 0)
    add_pod(store, "two", ready=True)
    await settled(store, 2, 2, 1, 1)
    add_pod(store, "three", ready=False)
    await settled(store, 3, 2, 1, 1)
    (condition,) = store.get(BUDGET, "default", "b")["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("DisruptionAllowed", "True")
    store.delete(POD, "default", "one", grace_seconds=0)
    await settled(store, 2, 1, 1, 0)


async def test_a_share_is_of_what_the_deployment_wants(store: Store) -> None:
    template = {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "a", "image": "a"}]}}  # fmt: skip
    replica_set = store.create({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "web"}},
                 "template": template},
    })  # fmt: skip
    store.create(budget(minAvailable="50%"))
    for name in ("one", "two", "three"):
        add_pod(store, name, ready=True, owner=replica_set)
    await settled(store, 4, 3, 2, 1)
    store.modify(
        BUDGET, "default", "b",
        lambda obj: obj.__setitem__("spec", budget(maxUnavailable=2)["spec"]),
    )  # fmt: skip
    await settled(store, 4, 3, 2, 1)


async def test_a_budget_without_pods_allows_nothing(store: Store) -> None:
    store.create(budget(minAvailable=0))
    await settled(store, 0, 0, 0, 0)
