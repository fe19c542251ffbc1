"""Quotas, claims, the node, StatefulSets and DaemonSets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from knlocal.control.controller import Controller
from knlocal.gateway import Pool, RouteTable
from knlocal.resources.base import GroupKind, Obj, status_of
from knlocal.resources.status import Forbidden
from knlocal.workloads.cluster import ClaimController, NodeController
from knlocal.workloads.deployments import DeploymentController
from knlocal.workloads.feature import Workloads
from knlocal.workloads.kubelet import Kubelet
from knlocal.workloads.quota import QuotaController, quota_admission
from knlocal.workloads.replicasets import ReplicaSetController
from knlocal.workloads.sets import DaemonSetController, StatefulSetController
from tests.workloads.conftest import Cluster, is_ready

POD = GroupKind("", "Pod")
QUOTA = GroupKind("", "ResourceQuota")
CLAIM = GroupKind("", "PersistentVolumeClaim")
SET = GroupKind("apps", "StatefulSet")


@pytest.fixture
def make_controllers() -> Callable[[Kubelet], list[Controller]]:
    def make(kubelet: Kubelet) -> list[Controller]:
        store = kubelet.store
        store.admission.append(quota_admission(store))
        return [
            NodeController(kubelet),
            ClaimController(kubelet),
            QuotaController(store),
            DeploymentController(store),
            ReplicaSetController(store),
            StatefulSetController(store),
            DaemonSetController(store),
        ]

    return make


def quota(**hard: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "rq", "namespace": "default"},
        "spec": {"hard": {name.replace("_", "."): value for name, value in hard.items()}},
    }


def asking(cluster: Cluster, name: str, cpu: str = "30m") -> Obj:
    one = cluster.container("app", resources={"requests": {"cpu": cpu}})
    return cluster.pod(name, containers=[one], terminationGracePeriodSeconds=1)


def owned_set(cluster: Cluster, kind: str, **spec: Any) -> Obj:
    pod = cluster.pod("x", **spec.pop("pod", {}))
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {
                    "labels": {"app": "db"}, "annotations": pod["metadata"]["annotations"],
                },
                "spec": {"terminationGracePeriodSeconds": 1, **pod["spec"]},
            },
            **spec,
        },
    }  # fmt: skip


async def test_a_quota_refuses_what_exceeds_it(cluster: Cluster) -> None:
    cluster.create(quota(cpu="50m", pods="2"))
    cluster.create(asking(cluster, "one"))
    with pytest.raises(Forbidden) as caught:
        cluster.create(asking(cluster, "two"))
    assert caught.value.message == (
        'pods "two" is forbidden: exceeded quota: rq, requested: cpu=30m, used: cpu=30m, '
        "limited: cpu=50m"
    )
    with pytest.raises(Forbidden) as caught:
        cluster.create(cluster.pod("three"))
    assert caught.value.message == (
        'pods "three" is forbidden: failed quota: rq: must specify cpu for: app'
    )
    await cluster.until(
        lambda: (
            status_of(cluster.find("rq", QUOTA) or {}).get("used") == {"cpu": "30m", "pods": "1"}
        )
    )
    cluster.store.delete(POD, "default", "one")
    await cluster.gone("one")
    cluster.create(asking(cluster, "two", "50m"))


async def test_a_deployment_over_quota_reports_replica_failure(cluster: Cluster) -> None:
    cluster.create(quota(cpu="10m"))
    one = cluster.container("app", resources={"requests": {"cpu": "1"}})
    cluster.create(
        owned_set(cluster, "Deployment", pod={"containers": [one]}, progressDeadlineSeconds=600)
    )

    def failure() -> dict[str, Any]:
        found = cluster.store.get(GroupKind("apps", "Deployment"), "default", "db")
        conditions = status_of(found).get("conditions") or ()
        return next((c for c in conditions if c["type"] == "ReplicaFailure"), {})

    await cluster.until(failure)
    assert failure()["reason"] == "FailedCreate"
    assert "is forbidden: exceeded quota: rq, requested: cpu=1, used: cpu=0" in failure()["message"]


async def test_a_claim_is_bound_and_protected_while_it_is_used(
    cluster: Cluster, tmp_path: Path
) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    cluster.create(claim)
    await cluster.until(
        lambda: status_of(cluster.find("data", CLAIM) or {}).get("phase") == "Bound"
    )
    found = cluster.find("data", CLAIM)
    assert found is not None
    assert status_of(found)["capacity"] == {"storage": "1Gi"}
    volume = cluster.store.get(GroupKind("", "PersistentVolume"), "", found["spec"]["volumeName"])
    assert volume["spec"]["claimRef"]["name"] == "data"
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    cluster.create(cluster.pod("web", volumes=volumes))
    await cluster.running("web")
    cluster.store.delete(CLAIM, "default", "data")
    await cluster.manager.settled()
    assert cluster.find("data", CLAIM) is not None
    cluster.store.delete(POD, "default", "web")
    await cluster.gone("web")
    await cluster.until(lambda: cluster.find("data", CLAIM) is None)
    assert not list((tmp_path / "node" / "claims").iterdir())


async def test_the_node_says_that_it_is_ready(cluster: Cluster) -> None:
    node = cluster.store.get(GroupKind("", "Node"), "", "knlocal")
    conditions = {c["type"]: c["status"] for c in status_of(node)["conditions"]}
    assert conditions["Ready"] == "True"
    assert status_of(node)["capacity"]["cpu"]
    for tell in cluster.kubelet.engine_changed:
        cluster.kubelet.node.engine_ok = False
        tell(False)
    node = cluster.store.get(GroupKind("", "Node"), "", "knlocal")
    conditions = {c["type"]: c["status"] for c in status_of(node)["conditions"]}
    assert conditions["Ready"] == "Unknown"


async def test_a_stateful_set_has_ordinals_in_order_and_keeps_its_claims(cluster: Cluster) -> None:
    claims = [{
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}},
    }]  # fmt: skip
    cluster.create(
        owned_set(cluster, "StatefulSet", replicas=2, serviceName="db", volumeClaimTemplates=claims)
    )
    await cluster.running("db-0")
    await cluster.running("db-1")
    await cluster.until(lambda: status_of(cluster.find("db", SET) or {}).get("readyReplicas") == 2)
    pods = {p["metadata"]["name"]: p for p in cluster.store.list(POD)}
    assert (
        pods["db-0"]["metadata"]["creationTimestamp"]
        <= (pods["db-1"]["metadata"]["creationTimestamp"])
    )
    assert pods["db-1"]["spec"]["hostname"] == "db-1"
    assert {c["metadata"]["name"] for c in cluster.store.list(CLAIM)} == {
        "data-db-0",
        "data-db-1",
    }
    cluster.store.modify(SET, "default", "db", lambda s: s["spec"].__setitem__("replicas", 1))
    await cluster.gone("db-1")
    assert cluster.find("data-db-1", CLAIM) is not None
    first = pods["db-0"]["metadata"]["uid"]
    cluster.store.delete(POD, "default", "db-0")
    await cluster.pod_where("db-0", lambda p: p["metadata"]["uid"] != first and is_ready(p))


def set_variable(value: str) -> Callable[[Obj], None]:
    def change(obj: Obj) -> None:
        container = obj["spec"]["template"]["spec"]["containers"][0]
        container["env"] = [e for e in container["env"] if e["name"] != "TARGET"]
        container["env"].append({"name": "TARGET", "value": value})

    return change


async def test_pods_below_the_partition_keep_the_template_they_had(cluster: Cluster) -> None:
    cluster.create(
        owned_set(cluster, "StatefulSet", replicas=2, podManagementPolicy="Parallel",
                  updateStrategy={"rollingUpdate": {"partition": 1}})
    )  # fmt: skip

    def status() -> dict[str, Any]:
        return dict(status_of(cluster.find("db", SET) or {}))

    await cluster.until(lambda: status().get("readyReplicas") == 2)
    first = status()["updateRevision"]
    cluster.store.modify(SET, "default", "db", set_variable("new"))
    await cluster.until(lambda: status()["updateRevision"] != first)
    second = status()["updateRevision"]
    await cluster.until(lambda: (status()["updatedReplicas"], status()["readyReplicas"]) == (1, 2))
    uid = cluster.store.get(POD, "default", "db-0")["metadata"]["uid"]
    cluster.store.delete(POD, "default", "db-0")
    pod = await cluster.pod_where("db-0", lambda p: p["metadata"]["uid"] != uid and is_ready(p))
    assert pod["metadata"]["labels"]["controller-revision-hash"] == first
    assert {"name": "TARGET", "value": "new"} not in pod["spec"]["containers"][0]["env"]
    newer = cluster.store.get(POD, "default", "db-1")
    assert newer["metadata"]["labels"]["controller-revision-hash"] == second
    assert (status()["currentRevision"], status()["currentReplicas"]) == (first, 1)

    def whole(obj: Obj) -> None:
        obj["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = 0

    cluster.store.modify(SET, "default", "db", whole)
    await cluster.until(lambda: status()["currentRevision"] == second)


def _reached(known: Callable[[], dict[int, str]], number: int) -> bool:
    return number in known()


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
async def test_the_templates_of_a_set_are_remembered_and_can_be_gone_back_to(
    cluster: Cluster, kind: str
) -> None:
    set_, revision = GroupKind("apps", kind), GroupKind("apps", "ControllerRevision")
    cluster.create(owned_set(cluster, kind, revisionHistoryLimit=1))

    def known() -> dict[int, str]:
        found = cluster.store.list(revision)
        return {
            one["revision"]: one["data"]["spec"]["template"]["spec"]["containers"][0]["env"][-1]
            ["value"] for one in found
        }  # fmt: skip

    await cluster.until(lambda: 1 in known())
    for number, value in enumerate(("one", "two", "three"), 2):
        cluster.store.modify(set_, "default", "db", set_variable(value))
        await cluster.until(partial(_reached, known, number))
    await cluster.until(lambda: known() == {3: "two", 4: "three"})
    cluster.store.modify(set_, "default", "db", set_variable("two"))
    await cluster.until(lambda: known() == {4: "three", 5: "two"})


async def test_a_daemon_set_is_one_pod_that_follows_its_template(cluster: Cluster) -> None:
    kind = GroupKind("apps", "DaemonSet")
    cluster.create(owned_set(cluster, "DaemonSet"))
    await cluster.until(lambda: status_of(cluster.find("db", kind) or {}).get("numberReady") == 1)
    [before] = cluster.store.list(POD)
    cluster.store.modify(kind, "default", "db", set_variable("new"))
    await cluster.until(
        lambda: (
            status_of(cluster.find("db", kind) or {}).get("updatedNumberScheduled") == 1
            and status_of(cluster.find("db", kind) or {}).get("numberReady") == 1
            and cluster.find(before["metadata"]["name"]) is None
        )
    )


def test_the_feature_has_a_controller_for_every_kind_it_runs(
    cluster_parts: tuple[Any, Any, Path],
) -> None:
    store, runtime, folder = cluster_parts
    pool = Pool(store.clock)
    feature = Workloads(
        store, runtime, folder, routes=RouteTable(), pool=pool, gateway_address="127.0.0.1"
    )
    kinds = {controller.kind.kind for controller in feature.controllers()}
    assert {"Pod", "Deployment", "ReplicaSet", "Job", "CronJob", "Service", "Node"} <= kinds
    assert not feature.busy


@pytest.fixture
def cluster_parts(cluster: Cluster, tmp_path: Path) -> tuple[Any, Any, Path]:
    return cluster.store, cluster.runtime, tmp_path / "other"
