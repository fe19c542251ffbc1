"""Services in real processes behind the real gateway, over real sockets and real time."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from knlocal.clock import SystemClock, TravelClock
from knlocal.control.conditions import is_ready
from knlocal.control.garbage import GarbageCollector
from knlocal.control.manager import Manager
from knlocal.control.namespaces import SYSTEM_NAMESPACES, NamespaceController, admit_namespace
from knlocal.gateway import Gateway, Pool, RouteTable
from knlocal.project.image_digests import EngineDigests
from knlocal.resources import catalog, settings
from knlocal.resources.base import Obj
from knlocal.runtime.api import Runtime
from knlocal.runtime.docker import DockerRuntime
from knlocal.runtime.process import ProcessRuntime
from knlocal.serving import Ports, Serving
from knlocal.serving.kinds import DEPLOYMENT, POD, REVISION, SERVICE
from knlocal.store.store import Store
from knlocal.workloads.deployments import DeploymentController
from knlocal.workloads.kubelet import Kubelet
from knlocal.workloads.replicasets import ReplicaSetController
from knlocal.workloads.standby import Standbys
from tests.images import build
from tests.serving.world import service

DEADLINE = 30.0
IMAGE = "knlocal-test/python:3"

SERVER = """
import http.server, os, signal, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path.startswith("/sleep/"): time.sleep(float(self.path.rsplit("/")[-1]))
        body = "|".join([os.environ["TARGET"], os.environ["K_REVISION"], self.headers["Host"],
                         self.headers["X-Forwarded-Proto"], self.headers["Forwarded"]]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""


class Machine:
    """What the daemon wires, as far as Serving needs it."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.clock = TravelClock()
        self.store = Store(catalog.registry(), self.clock)
        self.store.admission.append(admit_namespace)
        for name in SYSTEM_NAMESPACES:
            self.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for config in settings.default_configmaps():
            self.store.create(config)
        self.routes = RouteTable()
        self.pool = Pool(self.clock)
        self.gateway = Gateway(self.routes, self.clock)
        self.runtime: Runtime
        project = f"serving-test-{uuid.uuid4().hex[:8]}"
        if engine == "docker":
            self.runtime = DockerRuntime(project, SystemClock(), folder / "state")
        else:
            self.runtime = ProcessRuntime(project, SystemClock(), folder / "state")
        self.kubelet = Kubelet(self.store, self.runtime, folder / "volumes")
        self.standbys = Standbys(self.kubelet)
        self.serving = Serving(
            self.store, self.routes, self.clock, pool=self.pool, ports=Ports(),
            address_of=self.kubelet.address_of,
            image_resolver=EngineDigests(self.runtime, self.kubelet.node),
        )  # fmt: skip
        self.kubelet.drain_hooks.append(self.serving.drain)
        self.manager = Manager(self.store)
        self.manager.add(
            NamespaceController(self.store),
            DeploymentController(self.store, self.standbys),
            ReplicaSetController(self.store, self.standbys),
            self.kubelet,
            *self.serving.controllers(),
        )
        self.garbage = GarbageCollector(self.store)
        self.port = 0

    async def start(self) -> None:
        await self.runtime.start()
        self.garbage.start()
        self.serving.start()
        await self.manager.start()
        self.port = (await self.gateway.listen("127.0.0.1", 0, "external")).port

    async def stop(self) -> None:
        await self.gateway.close()
        await self.manager.stop()
        await self.standbys.close()
        self.serving.stop()
        self.garbage.stop()
        await self.kubelet.shutdown(grace_seconds=1)
        await self.pool.close()
        await self.runtime.close()

    async def until(self, what: Callable[[], Any]) -> Any:
        """Wait for `what()` to be true, woken by changes of objects."""
        with self.store.watch() as watch:
            async with self.clock.timeout(DEADLINE):
                while not (found := what()):
                    await anext(watch)
        return found

    async def ready(self, name: str, revision: str) -> None:
        def check() -> bool:
            found = self.store.find(SERVICE, "default", name)
            return is_ready(found) and found["status"].get("latestReadyRevisionName") == revision

        await self.until(check)

    async def get(self, host: str, path: str = "/") -> tuple[int, str]:
        def ask() -> tuple[int, str]:
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.port}{path}", headers={"Host": host}
            )
            try:
                with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        return await asyncio.to_thread(ask)


def program(target: str, script: str = SERVER, name: str = "hello", **more: Any) -> Obj:
    """A Service that runs a Python script, whatever the runtime."""
    annotations = {
        "knlocal.dev/run": json.dumps({"command": [sys.executable, "-c", script]}),
        **more.pop("annotations", {}),
    }
    container = {
        "image": IMAGE,
        "command": ["python3", "-c", script],
        "env": [{"name": "TARGET", "value": target}],
    }
    spec = {"containers": [container], **more.pop("spec", {})}
    return service(name, annotations=annotations, spec=spec, **more)


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
async def machine(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    if request.param == "docker":
        await asyncio.to_thread(build.ensure, "python")
    machine = Machine(tmp_path, request.param)
    await machine.start()
    try:
        yield machine
    finally:
        await machine.stop()


async def test_a_service_runs_scales_to_zero_and_wakes(machine: Machine) -> None:
    machine.store.create(program("one"))
    await machine.ready("hello", "hello-00001")
    status, body = await machine.get("hello.default.localhost")
    assert status == 200
    target, revision, host, proto, forwarded = body.split("|")
    assert (target, revision, host, proto) == (
        "one", "hello-00001", "hello.default.localhost", "http",
    )  # fmt: skip
    assert "for=127.0.0.1" in forwarded
    await machine.clock.advance(70)
    await machine.until(lambda: not machine.store.list(POD))
    status, body = await machine.get("hello.default.localhost")
    assert (status, body.split("|")[0]) == (200, "one")


async def test_no_request_fails_while_revisions_follow_each_other(machine: Machine) -> None:
    machine.store.create(program("v1"))
    await machine.ready("hello", "hello-00001")
    answers: list[tuple[int, str]] = []
    done = asyncio.Event()

    async def prober() -> None:
        while not done.is_set():
            answers.append(await machine.get("hello.default.localhost"))

    probers = [asyncio.create_task(prober()) for _ in range(4)]
    for number in (2, 3):
        wanted = program(f"v{number}")["spec"]["template"]
        machine.store.modify(
            SERVICE, "default", "hello",
            lambda s, wanted=wanted: s["spec"].__setitem__("template", wanted),
        )  # fmt: skip
        await machine.ready("hello", f"hello-0000{number}")
        assert (await machine.get("hello.default.localhost"))[1].startswith(f"v{number}|")
    machine.store.delete(REVISION, "default", "hello-00001", propagation="Background")
    await machine.until(
        lambda: machine.store.find(DEPLOYMENT, "default", "hello-00001-deployment") is None
    )
    done.set()
    await asyncio.gather(*probers)
    assert {status for status, _ in answers} == {200}


async def test_requests_in_flight_survive_the_deletion_of_their_pod(machine: Machine) -> None:
    machine.store.create(program("one"))
    await machine.ready("hello", "hello-00001")
    asking = asyncio.create_task(machine.get("hello.default.localhost", "/sleep/2"))
    backend = machine.serving.activator.revision("default", "hello-00001")
    async with machine.clock.timeout(DEADLINE):
        while backend.statistics.concurrency == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    (pod,) = machine.store.list(POD)
    machine.store.delete(POD, "default", pod["metadata"]["name"])
    status, body = await asking
    assert (status, body.split("|")[0]) == (200, "one")


async def test_a_program_that_dies_says_why(machine: Machine) -> None:
    machine.store.create(program("one", "import sys; sys.exit('no database here')"))

    def failed() -> str | None:
        found = machine.store.find(SERVICE, "default", "hello") or {}
        for condition in (found.get("status") or {}).get("conditions") or ():
            if condition["type"] == "ConfigurationsReady" and condition["status"] == "False":
                return str(condition["message"])
        return None

    message = await machine.until(failed)
    assert message.startswith('Revision "hello-00001" failed with message: Container failed with:')
    assert "no database here" in message
