"""`idle = "freeze"`: pods at zero are paused, and go on where they were."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from knlocal.resources.base import GroupKind, Obj
from knlocal.runtime.api import PodId, PodState
from knlocal.workloads.kubelet import Kubelet
from tests.workloads.conftest import (
    POD,
    Cluster,
    Found,
    MakeControllers,
    container_status,
)
from tests.workloads.test_deployments import (
    DEPLOYMENT,
    complete,
    deployment,
    live,
    scale,
)
from tests.workloads.test_interference import docker

FREEZE = {"knlocal.dev/standby": "freeze"}
#: Counts what it was asked, in memory.
COUNTER = """
import http.server, os, signal
class Handler(http.server.BaseHTTPRequestHandler):
    count = 0
    def do_GET(self):
        Handler.count += 1
        print("asked", Handler.count, flush=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(Handler.count).encode())
    def log_message(self, *_): pass
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
http.server.HTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture
def make_controllers(with_standbys: MakeControllers) -> MakeControllers:
    return with_standbys


async def only(cluster: Cluster, state: str) -> PodState:
    """The one pod there is, as soon as its container is in that state."""

    async def look() -> PodState | None:
        pods = await cluster.runtime.pods()
        one = pods[0].containers.get("app") if len(pods) == 1 else None
        return pods[0] if one is not None and one.state == state else None

    found: PodState = await cluster.comes(look)
    return found


async def frozen(cluster: Cluster, found: Found, **extra: Any) -> PodState:
    """A Deployment at zero whose one pod is frozen."""
    one = cluster.container("app", COUNTER, readinessProbe={"tcpSocket": {"port": 8080}})
    cluster.create(
        deployment(cluster, 1, annotations=FREEZE, pod={"containers": [one]}, **extra)
    )  # fmt: skip
    await complete(cluster, 1)
    await cluster.get(live(cluster)[0]["metadata"]["name"])
    scale(cluster, 0)
    await cluster.until(lambda: not cluster.store.list(POD))
    await cluster.comes(found.standbys.names)
    return await only(cluster, "paused")


async def test_a_frozen_pod_goes_on_where_it_was(cluster: Cluster, found: Found) -> None:
    before = await frozen(cluster, found)
    scale(cluster, 1)
    await complete(cluster, 1)
    [pod] = live(cluster)
    assert pod["metadata"]["uid"] == before.id.uid
    status = container_status(pod)
    assert status["containerID"].endswith(before.containers["app"].container_id)
    assert status["restartCount"] == 0
    assert await cluster.get(before.id.name) == (200, "2")
    scale(cluster, 0)
    again = await only(cluster, "paused")
    assert again.id == before.id


async def test_a_frozen_pod_that_dies_is_followed_by_a_prepared_one(
    cluster: Cluster, found: Found
) -> None:
    """As when the engine is restarted: nothing that was paused survives that."""
    before = await frozen(cluster, found)
    await cluster.runtime.stop_container(before.id, "app", 0)
    await cluster.comes(lambda: found.standbys.names() not in ([], [before.id.name]))
    prepared = await only(cluster, "created")
    scale(cluster, 1)
    await complete(cluster, 1)
    assert await cluster.get(prepared.id.name) == (200, "1")


async def test_a_frozen_pod_goes_when_its_template_changes(cluster: Cluster, found: Found) -> None:
    before = await frozen(cluster, found)

    def change(obj: Obj) -> None:
        container = obj["spec"]["template"]["spec"]["containers"][0]
        container["env"].append({"name": "TARGET", "value": "new"})

    cluster.store.modify(DEPLOYMENT, "default", "web", change)
    after = await only(cluster, "created")
    assert after.id.uid != before.id.uid


async def test_a_frozen_pod_goes_with_its_deployment(cluster: Cluster, found: Found) -> None:
    before = await frozen(cluster, found)
    cluster.store.delete(DEPLOYMENT, "default", "web")
    await cluster.removed(before.id)
    assert not found.standbys.names()


async def test_going_down_leaves_no_frozen_pod(cluster: Cluster, found: Found) -> None:
    await frozen(cluster, found)
    await cluster.manager.stop()
    await cluster.kubelet.shutdown(grace_seconds=1)
    assert await cluster.runtime.pods() == []


async def test_a_later_daemon_clears_away_what_was_frozen(cluster: Cluster, found: Found) -> None:
    """What it held in memory nobody can vouch for any more."""
    before = await frozen(cluster, found)
    await cluster.manager.stop()
    later = Kubelet(cluster.store, cluster.runtime, cluster.kubelet.node.root)
    await later.start()
    await cluster.removed(before.id)
    await later.stop()


async def test_the_log_of_a_frozen_pod_can_be_read(cluster: Cluster, found: Found) -> None:
    before = await frozen(cluster, found)

    async def log() -> bytes:
        return b"".join([chunk async for chunk in cluster.runtime.logs(before.id, "app")])

    assert await cluster.comes(log) == b"asked 1\n"  # it is written by someone who is not frozen


async def test_changing_ones_mind_again_and_again_ends_with_the_last_word(
    cluster: Cluster, found: Found
) -> None:
    await frozen(cluster, found)
    for _ in range(4):
        scale(cluster, 1)
        await asyncio.sleep(0)
        scale(cluster, 0)
        await cluster.manager.settled()
    scale(cluster, 1)
    await complete(cluster, 1)
    await cluster.until(lambda: len(cluster.store.list(GroupKind("", "Pod"))) == 1)
    state = await only(cluster, "running")
    assert (await cluster.get(state.id.name))[0] == 200


async def test_a_pod_wanted_again_while_it_is_being_paused_is_not_kept_beside_its_follower(
    cluster: Cluster, found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cluster.container("app", COUNTER, readinessProbe={"tcpSocket": {"port": 8080}})
    cluster.create(deployment(cluster, 1, annotations=FREEZE, pod={"containers": [one]}))
    await complete(cluster, 1)
    pause, replaced = cluster.runtime.pause, asyncio.Event()

    async def slowly(pod: PodId) -> None:
        await pause(pod)
        await replaced.wait()

    monkeypatch.setattr(cluster.runtime, "pause", slowly)
    before = await only(cluster, "running")
    scale(cluster, 0)
    await only(cluster, "paused")
    scale(cluster, 1)
    await cluster.until(lambda: [p for p in live(cluster) if p["metadata"]["uid"] != before.id.uid])
    replaced.set()
    await complete(cluster, 1)
    after = await only(cluster, "running")
    assert after.id != before.id
    assert not found.standbys.names()


@pytest.mark.docker
@pytest.mark.parametrize("engine", ["docker"], indirect=True)
@pytest.mark.parametrize("idle", ["stop", "freeze"])
@pytest.mark.parametrize("role", ["sandbox", "container"])
async def test_a_standby_that_somebody_removes_is_followed_by_another(
    cluster: Cluster, found: Found, role: str, idle: str
) -> None:
    cluster.create(deployment(cluster, 1, annotations={"knlocal.dev/standby": idle}))
    await complete(cluster, 1)
    scale(cluster, 0)
    await cluster.until(lambda: not cluster.store.list(POD))
    await cluster.comes(found.standbys.names)
    before = await only(cluster, "paused" if idle == "freeze" else "created")
    labels = (f"dev.knlocal.uid={before.id.uid}", f"dev.knlocal.role={role}")
    filters = [part for label in labels for part in ("--filter", f"label={label}")]
    await docker("rm", "-f", await docker("ps", "-aq", *filters))
    await cluster.comes(lambda: found.standbys.names() not in ([], [before.id.name]))
    after = await only(cluster, "created")
    scale(cluster, 1)
    await complete(cluster, 1)
    assert (await cluster.get(after.id.name))[0] == 200
