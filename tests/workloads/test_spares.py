"""Spares: the next save's pod stands before the save, and nothing but speed tells."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from knlocal.clock import SystemClock
from knlocal.resources.base import GroupKind, Obj, copy, uid_of
from knlocal.resources.core.kinds import KINDS
from knlocal.resources.kinds import KindRegistry
from knlocal.runtime.api import PodId, PodPlan, Runtime
from knlocal.store.store import Store
from knlocal.workloads.standby import Standbys
from tests.workloads.conftest import IMAGE, Cluster, Found, MakeControllers, is_ready, run_cluster

pytestmark = pytest.mark.docker

DEPLOYMENT = GroupKind("apps", "Deployment")
POD = GroupKind("", "Pod")
SECOND = {"revision": "app-00002"}

MAIN = """
import http.server, os, socket
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        who = f"{os.environ['REVISION']} {os.environ['COLOUR']} {os.environ['HOSTNAME']}"
        body = f"save-%d {who} {socket.gethostname()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.HTTPServer(("", 8080), Handler).serve_forever()
"""


class Saves:
    """What saving does, without the rest of Knative: one Deployment after the other."""

    def __init__(self, cluster: Cluster, standbys: Standbys) -> None:
        self.cluster = cluster
        self.spares = standbys.spares

    def save(self, number: int, colour: str = "red") -> Obj:
        tree = self.cluster.kubelet.node.snapshots / "trees" / str(number)
        tree.mkdir(parents=True)
        (tree / "main.py").write_text(MAIN % number)
        name, then = f"app-{number:05d}", f"app-{number + 1:05d}"
        successor = {"deployment": f"{then}-deployment", "names": {name: then}}
        snapshot = {"dir": str(tree), "target": "/app"}
        env = [{"name": "REVISION", "value": name}, {"name": "COLOUR", "value": colour}]
        container = {
            "name": "user-container",
            "image": IMAGE,
            "command": ["python3", "main.py"],
            "workingDir": "/app",
            "env": env,
            "ports": [{"containerPort": 8080}],
            "readinessProbe": {"tcpSocket": {"port": 8080}},
        }
        return self.cluster.create(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {
                    "name": f"{name}-deployment",
                    "namespace": "default",
                    "annotations": {"knlocal.dev/successor": json.dumps(successor)},
                },
                "spec": {
                    "replicas": 1,
                    "selector": {"matchLabels": {"revision": name}},
                    "template": {
                        "metadata": {
                            "labels": {"revision": name},
                            "annotations": {"knlocal.dev/snapshot": json.dumps(snapshot)},
                        },
                        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
                    },
                },
            }
        )

    async def runs(self, number: int) -> Obj:
        """The pod of that save, once it is ready."""

        def find() -> Obj | None:
            for pod in self.cluster.store.list(POD, "default", {"revision": f"app-{number:05d}"}):
                if is_ready(pod):
                    return pod
            return None

        pod: Obj = await self.cluster.until(find, f"save {number} ready")
        return pod

    async def answer(self, number: int) -> str:
        pod = await self.runs(number)
        return (await self.cluster.get(pod["metadata"]["name"]))[1]

    async def spare(self, number: int) -> PodId:
        """What is held for that save, once it is."""
        wanted = f"app-{number:05d}-deployment-"

        async def look() -> PodId | None:
            names = {name for name in self.spares.names() if name.startswith(wanted)}
            states = await self.cluster.runtime.pods()
            return next((state.id for state in states if state.id.name in names), None)

        found: PodId = await self.cluster.comes(look)
        return found


@pytest.fixture
def engine() -> str:
    """Processes begin fast enough by themselves."""
    return "docker"


@pytest.fixture
def make_controllers(with_standbys: MakeControllers) -> MakeControllers:
    return with_standbys


@pytest.fixture
def saves(cluster: Cluster, found: Found) -> Saves:
    return Saves(cluster, found.standbys)


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout


async def names(runtime: Runtime) -> set[str]:
    return {state.id.name.rpartition("-deployment-")[0] for state in await runtime.pods()}


async def test_the_first_pod_of_the_next_save_is_the_spare_with_the_new_code(saves: Saves) -> None:
    saves.save(1)
    assert (await saves.answer(1)).startswith("save-1 app-00001")
    spare = await saves.spare(2)
    assert saves.cluster.find(spare.name) is None
    saves.save(2)
    pod = await saves.runs(2)
    assert (pod["metadata"]["name"], uid_of(pod)) == (spare.name, spare.uid)
    assert await saves.answer(2) == f"save-2 app-00002 red {spare.name} {spare.name}"
    assert (await saves.answer(1)).startswith("save-1 app-00001")


async def test_each_save_leaves_a_spare_for_the_next_and_only_that(saves: Saves) -> None:
    for number in (1, 2, 3):
        saves.save(number)
        assert (await saves.answer(number)).startswith(f"save-{number} ")
        await saves.spare(number + 1)
    assert len(saves.spares.names()) == 1
    assert await names(saves.cluster.runtime) == {f"app-0000{n}" for n in (1, 2, 3, 4)}


async def test_what_was_not_expected_is_right_all_the_same(saves: Saves) -> None:
    saves.save(1)
    await saves.spare(2)
    saves.save(2, colour="blue")
    assert (await saves.answer(2)).startswith("save-2 app-00002 blue")


async def test_a_save_that_comes_while_the_spare_is_being_made_has_it(
    saves: Saves, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, begun, go_on = saves.cluster.runtime.hold, asyncio.Event(), asyncio.Event()

    async def slowly(plan: PodPlan, container: str, late: str) -> bool:
        begun.set()
        await go_on.wait()
        return await hold(plan, container, late)

    monkeypatch.setattr(saves.cluster.runtime, "hold", slowly)
    saves.save(1)
    await saves.runs(1)
    await saves.cluster.comes(begun.is_set)
    saves.save(2)
    await saves.cluster.until(lambda: saves.cluster.store.list(POD, "default", SECOND))
    go_on.set()
    assert (await saves.answer(2)).startswith("save-2 app-00002 red")
    await saves.spare(3)
    assert await names(saves.cluster.runtime) == {"app-00001", "app-00002", "app-00003"}


async def test_a_spare_that_is_killed_is_replaced(saves: Saves) -> None:
    saves.save(1)
    spare = await saves.spare(2)
    state = await saves.cluster.runtime.inspect(spare)
    assert state is not None
    docker("kill", state.containers["user-container"].container_id)

    async def another() -> PodId | None:
        again = await saves.spare(2)
        return None if again.uid == spare.uid else again

    again = await saves.cluster.comes(another)
    saves.save(2)
    assert uid_of(await saves.runs(2)) == again.uid


async def test_new_names_in_the_cluster_are_known_to_the_next_pod(saves: Saves) -> None:
    """Where names are given through the hosts file, a sandbox knows those of its birth."""
    names_now = {"app-00001.default": "10.0.0.1"}
    saves.cluster.kubelet.node.network.hosts = lambda _namespace: dict(names_now)
    saves.save(1)
    spare = await saves.spare(2)
    names_now |= {"app-00002.default": "10.0.0.2", "other.default": "10.0.0.3"}
    saves.save(2)
    pod = await saves.runs(2)
    assert uid_of(pod) != spare.uid
    names_now |= {"app-00003.default": "10.0.0.4"}  # its own name, which is just coming to be
    spare = await saves.spare(3)
    saves.save(3)
    assert uid_of(await saves.runs(3)) == spare.uid


async def test_a_spare_goes_with_the_deployment_it_follows(saves: Saves) -> None:
    obj = saves.save(1)
    spare = await saves.spare(2)
    saves.cluster.store.delete(DEPLOYMENT, "default", obj["metadata"]["name"])
    await saves.cluster.removed(spare)
    assert not saves.spares.names()


async def test_nothing_is_held_where_no_save_can_come(saves: Saves) -> None:
    obj = copy(saves.save(1))
    await saves.spare(2)
    del obj["spec"]["template"]["metadata"]["annotations"]
    obj["metadata"] = {**obj["metadata"], "name": "other"}
    for name in ("uid", "resourceVersion", "creationTimestamp", "generation"):
        obj["metadata"].pop(name, None)
    obj["spec"]["selector"] = {"matchLabels": {"revision": "other"}}
    obj["spec"]["template"]["metadata"]["labels"] = {"revision": "other"}
    saves.cluster.create(obj)
    await saves.cluster.comes(lambda: not saves.spares.busy)
    assert len(saves.spares.names()) == 1


async def test_where_nothing_can_be_held_it_is_tried_once_for_each_save(
    saves: Saves, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    async def hold(plan: PodPlan, container: str, late: str) -> bool:
        tried.append(plan.id.name.rpartition("-deployment-")[0])
        return False

    monkeypatch.setattr(saves.cluster.runtime, "hold", hold)
    for number in (1, 2):
        saves.save(number)
        assert (await saves.answer(number)).startswith(f"save-{number} ")
        await saves.cluster.comes(lambda n=number: len(tried) >= n and not saves.spares.busy)
    assert tried == ["app-00002", "app-00003"]
    assert saves.spares.names() == []


async def test_a_later_daemon_clears_away_what_an_earlier_one_held(
    runtime: Runtime, found: Found, tmp_path: Path,
    make_controllers: MakeControllers,
) -> None:  # fmt: skip
    store = Store(KindRegistry(KINDS), SystemClock())
    async with run_cluster(store, runtime, tmp_path, make_controllers) as cluster:
        saves = Saves(cluster, found.standbys)
        saves.save(1)
        spare = await saves.spare(2)
    assert await runtime.inspect(spare) is not None
    async with run_cluster(store, runtime, tmp_path) as later:
        await later.removed(spare)
        assert await names(runtime) == {"app-00001"}


async def test_shutting_down_leaves_no_spare(
    runtime: Runtime, found: Found, tmp_path: Path,
    make_controllers: MakeControllers,
) -> None:  # fmt: skip
    store = Store(KindRegistry(KINDS), SystemClock())
    async with run_cluster(store, runtime, tmp_path, make_controllers) as cluster:
        saves = Saves(cluster, found.standbys)
        saves.save(1)
        await saves.spare(2)
    await cluster.kubelet.shutdown(grace_seconds=0)
    assert await runtime.pods() == []
