"""Deployments change: rolled, recreated, paused, taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from knlocal.control.controller import Controller
from knlocal.resources.base import GroupKind, Obj, is_deleting, status_of
from knlocal.workloads.deployments import DeploymentController
from knlocal.workloads.kubelet import Kubelet
from knlocal.workloads.replicasets import ReplicaSetController
from tests.workloads.conftest import POD, SERVER, Cluster, is_ready
from tests.workloads.test_deployments import (
    DEPLOYMENT,
    REPLICA_SET,
    complete,
    condition,
    deployment,
    live,
    scale,
)

#: What is tested happens above the runtime.
pytestmark = pytest.mark.parametrize("engine", ["process"], indirect=True)
Change = Callable[[Obj], Any]


@pytest.fixture
def make_controllers() -> Callable[[Kubelet], list[Controller]]:
    return lambda kubelet: [
        DeploymentController(kubelet.store), ReplicaSetController(kubelet.store)
    ]  # fmt: skip


def change(cluster: Cluster, how: Change) -> None:
    cluster.store.modify(DEPLOYMENT, "default", "web", how)


def retarget(cluster: Cluster, value: str) -> None:
    """A new template, of the same kind."""

    def put(obj: Obj) -> None:
        env = obj["spec"]["template"]["spec"]["containers"][0]["env"]
        env[:] = [e for e in env if e["name"] != "TARGET"] + [{"name": "TARGET", "value": value}]

    change(cluster, put)


def revision(obj: Obj | None) -> str:
    return str((obj or {})["metadata"]["annotations"]["deployment.kubernetes.io/revision"])


def set_of(cluster: Cluster, number: str) -> Obj:
    return next(r for r in cluster.store.list(REPLICA_SET) if revision(r) == number)


async def rolled(cluster: Cluster, replicas: int, number: str) -> Obj:
    await cluster.until(lambda: revision(cluster.find("web", DEPLOYMENT)) == number)
    return await complete(cluster, replicas)


async def test_recreate_waits_for_the_last_old_pod_to_be_gone(cluster: Cluster) -> None:
    slow = SERVER.replace("os._exit(0)", "(time.sleep(1), os._exit(0))")
    one = cluster.container("app", slow, readinessProbe={"tcpSocket": {"port": 8080}})
    cluster.create(deployment(cluster, 1, strategy={"type": "Recreate"}, pod={"containers": [one]}))
    await complete(cluster, 1)
    together: list[int] = []
    cluster.store.subscribe(lambda _e: together.append(len(cluster.store.list(POD))))
    retarget(cluster, "new")
    await rolled(cluster, 1, "2")
    assert max(together) == 1
    assert (await cluster.get(live(cluster)[0]["metadata"]["name"]))[1].startswith("new")


async def test_a_paused_deployment_scales_and_does_not_roll_until_it_is_resumed(
    cluster: Cluster,
) -> None:
    cluster.create(deployment(cluster, 1, progressDeadlineSeconds=600))
    await complete(cluster, 1)
    change(cluster, lambda d: d["spec"].__setitem__("paused", True))
    retarget(cluster, "new")
    scale(cluster, 2)
    await cluster.until(
        lambda: status_of(cluster.find("web", DEPLOYMENT) or {}).get("readyReplicas") == 2
    )
    assert len(cluster.store.list(REPLICA_SET)) == 1
    found = condition(cluster.find("web", DEPLOYMENT), "Progressing")
    assert (found["status"], found["reason"]) == ("Unknown", "DeploymentPaused")
    change(cluster, lambda d: d["spec"].__setitem__("paused", False))
    await rolled(cluster, 2, "2")
    assert all([(await cluster.get(p["metadata"]["name"]))[1].startswith("new")
                for p in live(cluster)])  # fmt: skip


async def test_a_rollback_takes_the_old_replica_set_up_again(cluster: Cluster) -> None:
    cluster.create(deployment(cluster, 1))
    await complete(cluster, 1)
    first = set_of(cluster, "1")["metadata"]["name"]
    retarget(cluster, "new")
    await rolled(cluster, 1, "2")

    def undo(obj: Obj) -> None:
        container = obj["spec"]["template"]["spec"]["containers"][0]
        container["env"] = [e for e in container["env"] if e["name"] != "TARGET"]

    change(cluster, undo)
    await rolled(cluster, 1, "3")
    again = set_of(cluster, "3")
    assert again["metadata"]["name"] == first
    history = again["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"]
    assert history == "1"
    assert len(cluster.store.list(REPLICA_SET)) == 2


async def test_only_so_many_old_replica_sets_are_kept(cluster: Cluster) -> None:
    cluster.create(deployment(cluster, 1, revisionHistoryLimit=1))
    await complete(cluster, 1)
    for number in ("2", "3"):
        retarget(cluster, number)
        await rolled(cluster, 1, number)
    await cluster.until(
        lambda: sorted(map(revision, cluster.store.list(REPLICA_SET))) == ["2", "3"]
    )


async def test_a_template_that_never_gets_ready_takes_no_working_pod_away(
    cluster: Cluster,
) -> None:
    cluster.create(deployment(cluster, 3, progressDeadlineSeconds=1))
    await complete(cluster, 3)
    good = {p["metadata"]["name"] for p in live(cluster)}

    def break_it(obj: Obj) -> None:
        container = obj["spec"]["template"]["spec"]["containers"][0]
        container["readinessProbe"] = {"exec": {"command": ["false"]}}

    change(cluster, break_it)
    await cluster.until(
        lambda: condition(cluster.find("web", DEPLOYMENT), "Progressing").get("status") == "False"
    )
    found = cluster.find("web", DEPLOYMENT)
    assert condition(found, "Available")["status"] == "True"
    assert {p["metadata"]["name"] for p in live(cluster) if is_ready(p)} == good
    retarget(cluster, "mended")

    def mend(obj: Obj) -> None:
        probe = {"tcpSocket": {"port": 8080}}
        obj["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = probe

    change(cluster, mend)
    await cluster.until(lambda: condition(cluster.find("web", DEPLOYMENT), "Progressing")
                        .get("reason") == "NewReplicaSetAvailable")  # fmt: skip
    await cluster.until(lambda: len([p for p in live(cluster) if is_ready(p)]) == 3)


async def test_a_longer_time_to_count_as_available_needs_no_new_pods(cluster: Cluster) -> None:
    cluster.create(deployment(cluster, 1))
    await complete(cluster, 1)
    before = live(cluster)[0]["metadata"]["uid"]
    patience = {"minReadySeconds": 3600, "progressDeadlineSeconds": 7200}
    change(cluster, lambda d: d["spec"].update(patience))
    await cluster.until(
        lambda: condition(cluster.find("web", DEPLOYMENT), "Available").get("status") == "False"
    )
    assert [p["metadata"]["uid"] for p in live(cluster)] == [before]


async def test_a_name_that_is_taken_is_avoided(cluster: Cluster) -> None:
    cluster.create(deployment(cluster, 1))
    await complete(cluster, 1)
    [first] = cluster.store.list(REPLICA_SET)
    cluster.store.delete(DEPLOYMENT, "default", "web", propagation="Orphan")
    await cluster.until(lambda: cluster.find("web", DEPLOYMENT) is None)
    cluster.create(deployment(cluster, 1))
    await complete(cluster, 1)
    assert status_of(cluster.find("web", DEPLOYMENT) or {})["collisionCount"] == 1
    names = {r["metadata"]["name"] for r in cluster.store.list(REPLICA_SET)}
    assert len(names) == 2
    assert first["metadata"]["name"] in names
    assert not any(is_deleting(p) for p in cluster.store.list(GroupKind("", "Pod")))


async def test_a_pod_whose_label_is_taken_away_runs_on_beside_its_successor(
    cluster: Cluster,
) -> None:
    """How one takes a broken pod out of service to look at it."""
    cluster.create(deployment(cluster, 1))
    await complete(cluster, 1)
    [before] = live(cluster)
    name = before["metadata"]["name"]
    cluster.store.modify(
        POD, "default", name, lambda p: p["metadata"]["labels"].__setitem__("app", "debug")
    )
    await cluster.until(lambda: len([p for p in live(cluster) if is_ready(p)]) == 2)
    assert not (cluster.find(name) or {})["metadata"].get("ownerReferences")
    cluster.store.modify(
        POD, "default", name, lambda p: p["metadata"]["labels"].__setitem__("app", "web")
    )
    await cluster.until(lambda: len(cluster.store.list(POD)) == 1)
    await complete(cluster, 1)


async def test_a_replica_set_takes_in_the_pods_that_are_there(cluster: Cluster) -> None:
    cluster.create(deployment(cluster, 1))
    await complete(cluster, 1)
    [before] = live(cluster)
    [replica_set] = cluster.store.list(REPLICA_SET)
    cluster.store.delete(DEPLOYMENT, "default", "web", propagation="Orphan")
    name = replica_set["metadata"]["name"]
    cluster.store.delete(REPLICA_SET, "default", name, propagation="Orphan")
    await cluster.until(lambda: not (cluster.find(before["metadata"]["name"]) or {})["metadata"]
                        .get("ownerReferences"))  # fmt: skip
    metadata = {"name": "again", "namespace": "default"}
    cluster.create({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata,
                    "spec": replica_set["spec"]})  # fmt: skip
    await cluster.until(
        lambda: status_of(cluster.find("again", REPLICA_SET) or {}).get("readyReplicas") == 1
    )
    assert [p["metadata"]["uid"] for p in live(cluster)] == [before["metadata"]["uid"]]
