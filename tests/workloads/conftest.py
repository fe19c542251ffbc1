"""A cluster of one node with nothing but workloads, on each runtime that is here."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from knlocal.clock import Clock, SystemClock, VirtualClock
from knlocal.control.controller import Controller
from knlocal.control.garbage import GarbageCollector
from knlocal.control.manager import Manager
from knlocal.resources.base import GroupKind, Obj, status_of
from knlocal.resources.core.kinds import KINDS
from knlocal.resources.kinds import KindRegistry
from knlocal.runtime.api import PodId, Runtime
from knlocal.store.store import Store
from knlocal.workloads.deployments import DeploymentController
from knlocal.workloads.kubelet import Kubelet
from knlocal.workloads.replicasets import ReplicaSetController
from knlocal.workloads.standby import Standbys
from knlocal.workloads.volumes import remove_all_volumes

IMAGE = "knlocal-test/python:3"
POD = GroupKind("", "Pod")
DEADLINE = 30.0

MakeControllers = Callable[[Kubelet], list[Controller]]

#: A server that says hello, with switches for what tests need. Answers /healthz with 503 while
#: the file named by its query exists.
SERVER = """
import http.server, os, signal, sys, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    healthy = True
    def do_GET(self):
        if self.path == "/break": Handler.healthy = False
        if self.path == "/mend": Handler.healthy = True
        if self.path == "/exit": os._exit(3)
        if self.path.startswith("/slow"): time.sleep(0.5)
        ok = Handler.healthy or not self.path.startswith("/healthz")
        body = (os.environ.get("TARGET", "hello") + " " + os.environ.get("HOSTNAME", "")).encode()
        self.send_response(200 if ok else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
server.serve_forever()
"""


#: A startup probe: only from then on is a container asked whether it lives.
LISTENS = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 60}


class Cluster:
    """A store, its controllers and a kubelet, and the words tests use."""

    def __init__(self, store: Store, manager: Manager, kubelet: Kubelet, runtime: Runtime) -> None:
        self.store = store
        self.manager = manager
        self.kubelet = kubelet
        self.runtime = runtime

    @property
    def clock(self) -> Clock:
        return self.store.clock

    def pod(self, name: str, script: str = SERVER, **extra: Any) -> Obj:
        """A pod of one container that runs a Python script (or `containers=[…]`)."""
        containers = extra.pop("containers", None) or [self.container("app", script)]
        annotations = extra.pop("annotations", {})
        metadata = extra.pop("metadata", {})
        spec = {"containers": containers, **extra}
        everyone = [*containers, *(spec.get("initContainers") or ())]
        run = {
            c["name"]: {"command": [sys.executable, *c["command"][1:]]}
            for c in everyone
            if c.get("command")
        }
        annotations = annotations | {"knlocal.dev/run": json.dumps({"containers": run})}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name, "namespace": "default", "annotations": annotations, **metadata,
            },
            "spec": spec,
        }  # fmt: skip

    @staticmethod
    def container(name: str, script: str = SERVER, **extra: Any) -> Obj:
        if script is SERVER and name == "app":
            extra.setdefault("readinessProbe", {"tcpSocket": {"port": 8080}})
        return {
            "name": name,
            "image": IMAGE,
            "command": ["/usr/bin/python3", "-u", "-c", script],
            "ports": [{"containerPort": 8080}],
            "env": [{"name": "PORT", "value": "8080"}, *extra.pop("env", [])],
            **extra,
        }

    def create(self, obj: Obj) -> Obj:
        return self.store.create(obj)

    def find(self, name: str, kind: GroupKind = POD) -> Obj | None:
        return self.store.find(kind, "default", name)

    async def until(
        self, condition: Callable[[], Any], what: str = "", seconds: float = DEADLINE
    ) -> Any:
        """Wait for the store to make `condition` true; returns its value."""
        changed = asyncio.Event()
        stop = self.store.subscribe(lambda _event: changed.set())
        try:
            async with asyncio.timeout(seconds):
                while not (value := condition()):
                    changed.clear()
                    await changed.wait()
                return value
        except TimeoutError:
            shown = json.dumps([status_of(p) for p in self.store.list(POD)], indent=1)
            told = [
                f"{e['reason']}: {e['message']}" for e in self.store.list(GroupKind("", "Event"))
            ]
            pytest.fail(f"not so after {seconds} s: {what or condition}\n{shown}\n{told}")
        finally:
            stop()

    async def comes(self, condition: Callable[[], Any]) -> Any:
        """Wait for what the store says nothing of: what `condition` gives (awaited when it must be)
        once it is true."""
        clock = self.kubelet.node.machine_clock
        async with clock.timeout(DEADLINE):
            while True:
                value = condition()
                if inspect.isawaitable(value):
                    value = await value
                if value:
                    return value
                await clock.sleep(0.01)

    async def removed(self, pod: PodId) -> None:
        """Nothing of the pod is left on the engine."""

        async def gone() -> bool:
            return await self.runtime.inspect(pod) is None

        await self.comes(gone)

    async def gone_from_engine(self) -> None:
        """No pod is left, whatever the store says."""

        async def none() -> bool:
            return not await self.runtime.pods()

        await self.comes(none)

    async def pod_where(self, name: str, condition: Callable[[Obj], Any]) -> Obj:
        await self.until(
            lambda: (pod := self.find(name)) is not None and condition(pod), f"pod {name}"
        )
        pod = self.find(name)
        assert pod is not None
        return pod

    async def running(self, name: str) -> Obj:
        return await self.pod_where(name, is_ready)

    async def gone(self, name: str) -> None:
        await self.until(lambda: self.find(name) is None, f"pod {name} gone")

    def events(self, reason: str) -> list[Obj]:
        found = self.store.list(GroupKind("", "Event"))
        return [event for event in found if event["reason"] == reason]

    async def get(self, name: str, path: str = "/") -> tuple[int, str]:
        """Status and body of a request to the pod's port 8080."""
        pod = self.find(name)
        assert pod is not None
        host, port = self.kubelet.address_of(pod, 8080)
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        return (int(head.split()[1]) if head else 0), body


def is_ready(pod: Obj) -> bool:
    conditions = {c["type"]: c["status"] for c in status_of(pod).get("conditions") or ()}
    return conditions.get("Ready") == "True"


def state(pod: Obj, container: str = "app", which: str = "state") -> dict[str, Any]:
    """{"running": …}, {"waiting": …} or {"terminated": …}."""
    status = status_of(pod)
    every = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    return next((c[which] for c in every if c["name"] == container), {})


def container_status(pod: Obj, container: str = "app") -> dict[str, Any]:
    return next(
        (c for c in status_of(pod).get("containerStatuses") or () if c["name"] == container), {}
    )


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def engine(request: pytest.FixtureRequest) -> str:
    """Which runtime."""
    return str(request.param)


@pytest.fixture
async def runtime(engine: str, tmp_path: Path) -> AsyncIterator[Runtime]:
    """A started runtime of a project of its own; nothing is left of it afterwards."""
    project = f"test-{uuid.uuid4().hex[:8]}"
    found = make_runtime(engine, project, tmp_path)
    await found.start()
    yield found
    await found.start()
    for _ in range(3):
        await asyncio.gather(*(found.remove(state.id) for state in await found.pods()))
    await found.close()


def make_runtime(engine: str, project: str, folder: Path) -> Runtime:
    if engine == "docker":
        from knlocal.runtime.docker import DockerRuntime
        from tests.images.build import ensure

        ensure("python")
        return DockerRuntime(project, SystemClock(), folder / "runtime")
    from knlocal.runtime.process import ProcessRuntime

    return ProcessRuntime(project, SystemClock(), folder / "runtime")


@pytest.fixture
def clock() -> Clock:
    """The policy clock; tests about time override it."""
    return SystemClock()


@pytest.fixture
def virtual_clock(clock: Clock) -> VirtualClock:
    assert isinstance(clock, VirtualClock)
    return clock


@pytest.fixture
def make_controllers() -> MakeControllers:
    """Controllers beside the kubelet; tests of other modules override it."""
    return lambda kubelet: []


class Found:
    """What a test of `with_standbys` reaches for."""

    standbys: Standbys


@pytest.fixture
def found() -> Found:
    return Found()


@pytest.fixture
def with_standbys(found: Found) -> MakeControllers:
    """Deployments and ReplicaSets, with pods in waiting."""

    def make(kubelet: Kubelet) -> list[Controller]:
        found.standbys = Standbys(kubelet)
        return [
            DeploymentController(kubelet.store, found.standbys),
            ReplicaSetController(kubelet.store, found.standbys),
        ]

    return make


@pytest.fixture
async def cluster(
    runtime: Runtime,
    clock: Clock,
    tmp_path: Path,
    make_controllers: MakeControllers,
) -> AsyncIterator[Cluster]:
    store = Store(KindRegistry(KINDS), clock)
    async with run_cluster(store, runtime, tmp_path, make_controllers) as found:
        yield found
    remove_all_volumes(tmp_path / "node")


class run_cluster:
    """Start controllers over a store; stop them at the end (containers stay)."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        folder: Path,
        make_controllers: MakeControllers = lambda kubelet: [],
    ) -> None:
        kubelet = Kubelet(store, runtime, folder / "node")
        self.manager = Manager(store)
        self.manager.add(kubelet, *make_controllers(kubelet))
        self.garbage = GarbageCollector(store)
        self.cluster = Cluster(store, self.manager, kubelet, runtime)

    async def __aenter__(self) -> Cluster:
        store = self.cluster.store
        if store.find(GroupKind("", "Namespace"), "", "default") is None:
            for kind, name in (("Namespace", "default"),):
                store.create({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})
        self.garbage.start()
        await self.manager.start()
        return self.cluster

    async def __aexit__(self, *_: object) -> None:
        await self.manager.stop()
        self.garbage.stop()
