"""Volumes and environment: what a pod finds in its files and variables."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from knlocal.clock import VirtualClock
from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.core.kinds import KINDS
from knlocal.resources.kinds import KindRegistry
from knlocal.runtime.api import ContainerEvent
from knlocal.store.store import Store
from knlocal.workloads.environment import ConfigError, PodFacts, container_environment
from knlocal.workloads.expansion import expand, expand_all
from knlocal.workloads.payload import PayloadFile, read_payload, write_payload
from knlocal.workloads.podplan import Ground, PodNetwork, plan_pod
from knlocal.workloads.tokens import LocalIssuer
from knlocal.workloads.volumes import PodVolumes, references, remove_all_volumes
from tests.images.programs import SURVIVOR
from tests.workloads.conftest import Cluster, state

FACTS = PodFacts(ip="10.0.0.9", host_ip="10.0.0.1")


@pytest.fixture
def store() -> Store:
    found = Store(KindRegistry(KINDS), VirtualClock())
    found.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    return found


def put(store: Store, kind: str, name: str, data: dict[str, str]) -> None:
    obj = {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "stringData" if kind == "Secret" else "data": data,
    }
    if store.find(GroupKind("", kind), "default", name):
        store.update(obj)
    else:
        store.create(obj)


def pod(container: Obj | None = None, **spec: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web", "namespace": "default", "uid": "u-1",
            "labels": {"app": "web", "tier": "one"}, "annotations": {"note": 'say "hi"'},
        },
        "spec": {"containers": [{"name": "app", "image": "x", **(container or {})}], **spec},
    }  # fmt: skip


class Room:
    """The volumes of one pod."""

    def __init__(self, store: Store, root: Path, obj: Obj) -> None:
        self.store, self.pod = store, obj
        self.volumes = PodVolumes(store, root, obj, LocalIssuer(), store.clock.now)

    def set_up(self) -> None:
        self.volumes.set_up(self.pod, FACTS)

    def path(self, volume: str) -> Path:
        mount = {"name": volume, "mountPath": "/x"}
        [found] = self.volumes.mounts(self.pod, {"name": "app", "volumeMounts": [mount]}, {})
        assert found.source is not None
        return found.source


def room(store: Store, root: Path, *volumes: Obj, **spec: Any) -> Room:
    found = Room(store, root, pod(volumes=list(volumes), **spec))
    found.set_up()
    return found


# -- environment ----------------------------------------------------------------------------------


def test_references_in_text_are_expanded_as_kubernetes_does() -> None:
    variables = {"A": "1", "B": "$(A)"}
    assert expand("$(A)-$(B)-$(C)-$$(A)-$A", variables) == "1-$(A)-$(C)-$(A)-$A"
    assert expand("$(A", variables) == "$(A"
    assert expand_all(["run", "$(A)"], variables) == ("run", "1")
    assert expand_all([], variables) is None


def test_the_environment_comes_from_everywhere(store: Store) -> None:
    put(store, "ConfigMap", "config", {"COLOUR": "blue", "SIZE": "big"})
    put(store, "Secret", "secret", {"KEY": "s3cret"})
    container = {
        "envFrom": [
            {"configMapRef": {"name": "config"}},
            {"secretRef": {"name": "secret"}, "prefix": "MY_"},
            {"configMapRef": {"name": "gone", "optional": True}},
        ],
        "env": [
            {"name": "SIZE", "value": "small"},
            {"name": "SENTENCE", "value": "$(SIZE) $(COLOUR) $(LATER)"},
            {"name": "LATER", "value": "x"},
            {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "config", "key": "COLOUR"}}},
            {"name": "TWO", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "KEY"}}},
            {"name": "NO", "valueFrom": {
                "secretKeyRef": {"name": "secret", "key": "gone", "optional": True}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MEM", "valueFrom": {
                "resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        ],
        "resources": {"limits": {"cpu": "1500m", "memory": "128Mi"}},
    }  # fmt: skip
    obj = pod(container)
    found = container_environment(store, obj, obj["spec"]["containers"][0], FACTS)
    assert found == {
        "COLOUR": "blue", "SIZE": "small", "MY_KEY": "s3cret",
        "SENTENCE": "small blue $(LATER)", "LATER": "x", "ONE": "blue", "TWO": "s3cret",
        "POD": "web", "APP": "web", "IP": "10.0.0.9", "CPU": "2", "MEM": "128",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "no", "key": "k"}}, 'configmap "no" not found'),
        ({"secretKeyRef": {"name": "no", "key": "k"}}, 'secret "no" not found'),
        (
            {"configMapKeyRef": {"name": "config", "key": "k"}},
            "couldn't find key k in ConfigMap default/config",
        ),
    ],
)
def test_missing_references_are_named(store: Store, source: Obj, message: str) -> None:
    put(store, "ConfigMap", "config", {"a": "b"})
    container = {"name": "app", "env": [{"name": "X", "valueFrom": source}]}
    with pytest.raises(ConfigError) as caught:
        container_environment(store, pod(container), container, FACTS)
    assert caught.value.message == message


# -- volumes --------------------------------------------------------------------------------------


def test_a_config_map_becomes_files_that_change_at_once(store: Store, tmp_path: Path) -> None:
    put(store, "ConfigMap", "config", {"a": "1", "b": "2"})
    found = room(store, tmp_path, {"name": "v", "configMap": {"name": "config"}})
    folder = found.path("v")
    assert (folder / "a").read_text() == "1"
    assert (folder / "a").stat().st_mode & 0o777 == 0o644
    before = os.readlink(folder / "..data")
    put(store, "ConfigMap", "config", {"a": "new", "c": "3"})
    found.set_up()
    assert (folder / "a").read_text() == "new"
    assert not (folder / "b").exists()
    assert (folder / "c").read_text() == "3"
    assert os.readlink(folder / "..data") != before
    assert not (folder / before).exists()


def test_an_unchanged_payload_is_not_written_again(tmp_path: Path) -> None:
    payload = {"x/y": PayloadFile(b"1", 0o600)}
    assert write_payload(tmp_path / "v", payload)
    assert not write_payload(tmp_path / "v", payload)
    assert read_payload(tmp_path / "v") == payload


def test_items_choose_keys_paths_and_modes(store: Store, tmp_path: Path) -> None:
    put(store, "Secret", "secret", {"key": "value", "other": "no"})
    items = [{"key": "key", "path": "deep/er/file", "mode": 0o400}]
    found = room(
        store, tmp_path,
        {"name": "v", "secret": {"secretName": "secret", "items": items, "defaultMode": 0o440}},
    )  # fmt: skip
    file = found.path("v") / "deep" / "er" / "file"
    assert file.read_text() == "value"
    assert file.stat().st_mode & 0o777 == 0o400
    assert not (found.path("v") / "other").exists()


def test_a_missing_key_or_object_is_refused_unless_optional(store: Store, tmp_path: Path) -> None:
    put(store, "ConfigMap", "config", {"a": "1"})
    items = [{"key": "no", "path": "no"}]
    with pytest.raises(ConfigError, match="references non-existent key: no"):
        room(store, tmp_path, {"name": "v", "configMap": {"name": "config", "items": items}})
    with pytest.raises(ConfigError) as caught:
        room(store, tmp_path, {"name": "v", "secret": {"secretName": "no"}})
    assert caught.value.message == (
        'MountVolume.SetUp failed for volume "v" : secret "no" not found'
    )
    found = room(store, tmp_path, {"name": "v", "configMap": {"name": "no", "optional": True}})
    assert [p for p in found.path("v").iterdir() if not p.name.startswith("..")] == []


def test_projected_sources_are_merged_and_the_last_one_wins(store: Store, tmp_path: Path) -> None:
    put(store, "ConfigMap", "one", {"same": "one", "a": "1"})
    put(store, "Secret", "two", {"same": "two"})
    sources = [
        {"configMap": {"name": "one"}},
        {"secret": {"name": "two"}},
        {"serviceAccountToken": {"path": "token", "audience": "me", "expirationSeconds": 600}},
        {"downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "notes", "fieldRef": {"fieldPath": "metadata.annotations"}}]}},
    ]  # fmt: skip
    found = room(store, tmp_path, {"name": "v", "projected": {"sources": sources}})
    folder = found.path("v")
    assert (folder / "same").read_text() == "two"
    assert (folder / "a").read_text() == "1"
    assert (folder / "labels").read_text() == 'app="web"\ntier="one"'
    assert (folder / "notes").read_text() == 'note="say \\"hi\\""'
    header, body, signature = (folder / "token").read_text().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert claims["aud"] == ["me"]
    assert claims["sub"] == "system:serviceaccount:default:default"
    assert claims["exp"] - claims["iat"] == 600
    assert header
    assert signature
    assert found.volumes.refresh_at == store.clock.now() + timedelta(seconds=480)
    assert store.clock.now() == datetime(2026, 1, 1, tzinfo=UTC)


def test_an_empty_dir_may_be_written_by_anyone(store: Store, tmp_path: Path) -> None:
    found = room(store, tmp_path, {"name": "v", "emptyDir": {}})
    assert found.path("v").stat().st_mode & 0o777 == 0o777
    found.volumes.tear_down()
    assert not found.path("v").exists()


def test_memory_with_a_limit_is_a_tmpfs_of_its_one_container(store: Store, tmp_path: Path) -> None:
    mounts = [{"name": "v", "mountPath": "/cache"}]
    volume = {"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "100M"}}
    obj = pod({"volumeMounts": mounts}, volumes=[volume])
    found = Room(store, tmp_path, obj)
    found.set_up()
    [mount] = found.volumes.mounts(obj, obj["spec"]["containers"][0], {})
    assert mount.tmpfs
    assert mount.size_limit == 100_000_000


def test_nothing_of_any_pod_is_left_after_a_daemon_that_was_killed(
    store: Store, tmp_path: Path
) -> None:
    volumes = {"name": "v", "emptyDir": {"medium": "Memory"}}
    found = room(store, tmp_path, volumes)
    memory = found.path("v")
    assert memory.is_dir()
    remove_all_volumes(tmp_path)
    assert not memory.exists()
    assert not (tmp_path / "pods").exists()


def test_a_claim_outlives_the_pod(store: Store, tmp_path: Path) -> None:
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
    with pytest.raises(ConfigError, match='persistentvolumeclaim "data" not found'):
        room(store, tmp_path, volume)
    store.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": "default"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}},
        }
    )
    found = room(store, tmp_path, volume)
    (found.path("v") / "kept").write_text("x")
    found.volumes.tear_down()
    assert (room(store, tmp_path, volume).path("v") / "kept").read_text() == "x"


def test_fs_group_may_read_and_write(store: Store, tmp_path: Path) -> None:
    put(store, "Secret", "secret", {"key": "value"})
    found = room(
        store, tmp_path,
        {"name": "v", "emptyDir": {}}, {"name": "s", "secret": {
            "secretName": "secret", "defaultMode": 0o400}},
        securityContext={"fsGroup": 4321},
    )  # fmt: skip
    file = found.path("s") / "key"
    if os.geteuid() == 0:
        assert found.path("v").stat().st_gid == file.stat().st_gid == 4321
        assert file.stat().st_mode & 0o777 == 0o440
    else:
        assert file.stat().st_mode & 0o004


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ({"hostPath": {"path": "/etc"}}, "hostPath volumes are refused"),
        ({"nfs": {"server": "x", "path": "/"}}, "nfs volumes are not supported"),
    ],
)
def test_what_cannot_be_mounted_is_refused_with_a_reason(
    store: Store, tmp_path: Path, volume: Obj, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        room(store, tmp_path, {"name": "v", **volume})


def test_a_sub_path_is_one_file_and_cannot_leave_its_volume(store: Store, tmp_path: Path) -> None:
    put(store, "ConfigMap", "config", {"a": "1"})
    found = room(
        store, tmp_path, {"name": "v", "configMap": {"name": "config"}},
        {"name": "e", "emptyDir": {}},
    )  # fmt: skip

    def mount(volume: str, **extra: str) -> Any:
        one = {"name": volume, "mountPath": "/x", **extra}
        [made] = found.volumes.mounts(
            found.pod, {"name": "app", "volumeMounts": [one]}, {"POD": "web"}
        )
        return made

    one = mount("v", subPath="a")
    put(store, "ConfigMap", "config", {"a": "2"})
    found.set_up()
    assert one.source.read_text() == "1"  # as in Kubernetes, it does not follow
    assert mount("v", subPath="a").source.read_text() == "2"
    assert mount("e", subPathExpr="logs/$(POD)").source == found.path("e") / "logs" / "web"
    (found.path("e") / "out").symlink_to("/etc")
    for path in ("../..", "/etc", "out"):
        with pytest.raises(ConfigError, match="failed to prepare subPath"):
            mount("e", subPath=path)


def test_a_pod_knows_what_it_refers_to() -> None:
    obj = pod(
        {"envFrom": [{"configMapRef": {"name": "a"}}]},
        volumes=[
            {"name": "v", "secret": {"secretName": "b"}},
            {"name": "w", "persistentVolumeClaim": {"claimName": "c"}},
        ],
    )
    assert references(obj) == {
        (GroupKind("", "ConfigMap"), "a"),
        (GroupKind("", "Secret"), "b"),
        (GroupKind("", "PersistentVolumeClaim"), "c"),
    }


def test_a_plan_carries_user_resources_and_names(store: Store, tmp_path: Path) -> None:
    obj = pod(
        {
            "command": ["run"], "args": ["--as", "$(WHO)"], "workingDir": "/tmp",
            "env": [{"name": "WHO", "value": "me"}],
            "ports": [{"containerPort": 0}],
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "1m"}},
            "securityContext": {
                "runAsUser": 65532, "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
            },
        },
        securityContext={"runAsGroup": 7, "fsGroup": 9, "supplementalGroups": [8]},
        hostAliases=[{"ip": "1.2.3.4", "hostnames": ["db"]}],
    )  # fmt: skip
    ground = Ground(store, PodNetwork(), FACTS, lambda _pod, port: port, {}, tmp_path)
    volumes = PodVolumes(store, tmp_path, obj, LocalIssuer(), store.clock.now)
    plan = plan_pod(obj, ground, volumes, {})
    [one] = plan.containers
    assert (one.command, one.args, one.working_dir) == (("run",), ("--as", "me"), "/tmp")
    assert (one.user, one.group, one.supplemental_groups) == (65532, 7, (8, 9))
    assert (one.cpu_limit, one.cpu_request, one.memory_limit) == (0.5, 0.001, 64 * 1024**2)
    assert one.capabilities_drop == ("ALL",)
    assert one.read_only_root
    assert one.allow_privilege_escalation is False
    assert one.env["HOSTNAME"] == plan.hostname == "web"
    assert plan.hosts == {"db": "1.2.3.4"}
    assert list(plan.ports) == [8080]


# -- in containers --------------------------------------------------------------------------------

LOOK = """
import os, sys
print(open("/etc/config/a").read(), open("/etc/one").read(), os.geteuid(), sep=",", end="")
open("/scratch/by-me", "w").write("x")
open("/memory/by-me", "w").write("x")
sys.stdout.flush()
"""


@pytest.mark.docker
@pytest.mark.parametrize("engine", ["docker"], indirect=True)
async def test_a_user_without_rights_can_use_all_its_volumes(cluster: Cluster) -> None:
    put(cluster.store, "ConfigMap", "config", {"a": "hello"})
    one = cluster.container(
        "app", LOOK + "open('/dev/termination-log', 'w').write('said ' + str(os.geteuid()))",
        volumeMounts=[
            {"name": "config", "mountPath": "/etc/config"},
            {"name": "config", "mountPath": "/etc/one", "subPath": "a"},
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "memory", "mountPath": "/memory"},
        ],
        securityContext={"runAsUser": 65532},
    )  # fmt: skip
    cluster.create(
        cluster.pod(
            "web",
            containers=[one],
            restartPolicy="Never",
            volumes=[
                {"name": "config", "configMap": {"name": "config"}},
                {"name": "scratch", "emptyDir": {}},
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            ],
        )
    )
    pod_done = await cluster.pod_where("web", lambda p: state(p).get("terminated"))
    assert state(pod_done)["terminated"] | {"exitCode": 0} == state(pod_done)["terminated"]
    assert state(pod_done)["terminated"]["message"] == "said 65532"
    worker = next(iter(cluster.kubelet.workers.values()))
    lines = [chunk async for chunk in cluster.runtime.logs(worker.id, "app")]
    assert b"".join(lines).strip() == b"hello,hello,65532"


@pytest.mark.docker
@pytest.mark.parametrize("engine", ["docker"], indirect=True)
async def test_a_running_container_sees_a_changed_config_map(cluster: Cluster) -> None:
    put(cluster.store, "ConfigMap", "config", {"a": "old"})
    probe = {"exec": {"command": ["grep", "-q", "new", "/etc/config/a"]}, "periodSeconds": 1}
    one = cluster.container(
        "app",
        "import time; time.sleep(600)",
        readinessProbe=probe,
        volumeMounts=[{"name": "config", "mountPath": "/etc/config"}],
    )
    volumes = [{"name": "config", "configMap": {"name": "config"}}]
    cluster.create(cluster.pod("web", containers=[one], volumes=volumes,
                               terminationGracePeriodSeconds=0))  # fmt: skip
    await cluster.pod_where("web", lambda p: state(p).get("running"))
    put(cluster.store, "ConfigMap", "config", {"a": "new"})
    await cluster.running("web")


@pytest.mark.docker
@pytest.mark.parametrize("engine", ["docker"], indirect=True)
async def test_too_much_memory_is_an_oom_kill(cluster: Cluster) -> None:
    told: list[ContainerEvent] = []
    cluster.kubelet.event_listeners.append(told.append)
    one = cluster.container("app", SURVIVOR, resources={"limits": {"memory": "40Mi"}})
    cluster.create(cluster.pod("web", containers=[one], restartPolicy="Never"))
    await cluster.comes(lambda: any(event.what == "oom" for event in told))
    await cluster.runtime.stop_container(told[-1].id, "app", 0)
    found = await cluster.pod_where("web", lambda p: state(p).get("terminated"))
    assert state(found)["terminated"]["reason"] == "OOMKilled"
    assert state(found)["terminated"]["exitCode"] == 137
