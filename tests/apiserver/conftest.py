"""An API server over a real store, and the real clients that talk to it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes
import pytest

from knlocal.apiserver.kubeconfig import write_kubeconfig
from knlocal.apiserver.pods import PodAccess
from knlocal.apiserver.server import ApiServer
from knlocal.clock import SystemClock
from knlocal.control.garbage import GarbageCollector
from knlocal.control.manager import Manager
from knlocal.control.namespaces import NamespaceController, admit_namespace
from knlocal.resources.catalog import registry
from knlocal.store.store import Store

#: Seconds that one command or one wait may take at most.
PATIENCE = 30.0


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass
class Api:
    """A running API server and ways to reach it."""

    server: ApiServer
    store: Store
    home: Path
    session: aiohttp.ClientSession
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "KUBECONFIG": str(self.kubeconfig),
            "TMPDIR": str(self.home),
        }

    async def run(self, *command: str, stdin: str = "", **environment: str) -> Ran:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env={**self.environment(), **environment},
        )  # fmt: skip
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin.encode()), PATIENCE)
        except TimeoutError:
            process.kill()
            raise
        return Ran(process.returncode or 0, out.decode(), err.decode())

    async def kubectl(self, *arguments: str, stdin: str = "", **environment: str) -> str:
        """What a successful kubectl prints."""
        ran = await self.run("kubectl", *arguments, stdin=stdin, **environment)
        assert ran.code == 0, ran.err
        return ran.out

    async def refused(self, *arguments: str, stdin: str = "") -> str:
        """What a kubectl that must fail says."""
        ran = await self.run("kubectl", *arguments, stdin=stdin)
        assert ran.code != 0, ran.out
        return ran.err

    async def start_kubectl(self, *arguments: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            "kubectl", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, env=self.environment(),
        )  # fmt: skip
        self.processes.append(process)
        return process

    async def apply(self, *objects: dict[str, Any]) -> str:
        text = {"apiVersion": "v1", "kind": "List", "items": objects}
        return await self.kubectl("apply", "-f", "-", stdin=json.dumps(text))

    async def call(
        self, method: str, path: str, body: Any = None, *, media: str = "",
        token: str | None = None, headers: dict[str, str] | None = None,
    ) -> tuple[int, Any, aiohttp.ClientResponse]:  # fmt: skip
        """A bare HTTP request: status, decoded body, response."""
        sent = {"Authorization": f"Bearer {self.server.tokens.admin if token is None else token}"}
        if token == "":
            sent = {}
        if media:
            sent["Content-Type"] = media
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if data is not None and not media:
            sent["Content-Type"] = "application/json"
        async with self.session.request(
            method, self.server.url + path, data=data, headers={**sent, **(headers or {})}
        ) as response:
            raw = await response.read()
            text = raw.decode(errors="replace")
            is_json = "json" in response.headers.get("Content-Type", "")
            return response.status, json.loads(text) if is_json else text, response

    async def stream(self, path: str) -> aiohttp.ClientResponse:
        """An open watch (close it yourself)."""
        headers = {"Authorization": f"Bearer {self.server.tokens.admin}"}
        return await self.session.get(self.server.url + path, headers=headers)

    def client(self) -> kubernetes.client.ApiClient:
        """The Python client. It blocks: call it in a thread."""
        return kubernetes.config.new_client_from_config(str(self.kubeconfig))


async def event_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The next line of a watch."""
    line = await asyncio.wait_for(response.content.readline(), PATIENCE)
    assert line, "the watch ended"
    event: dict[str, Any] = json.loads(line)
    return event


async def eventually(store: Store, condition: Callable[[], Any]) -> Any:
    """What `condition` gives once it is true; looked at after each change of the store."""
    changed = asyncio.Event()
    unsubscribe = store.subscribe(lambda _event: changed.set())
    try:
        async with asyncio.timeout(PATIENCE):
            while not (found := condition()):
                await changed.wait()
                changed.clear()
        return found
    finally:
        unsubscribe()


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What clients keep there (certificates, what they have discovered) goes with the test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def pods() -> PodAccess | None:
    """Overridden where tests look into pods."""
    return None


@pytest.fixture
async def api(tmp_path: Path, pods: PodAccess | None) -> AsyncIterator[Api]:
    store = Store(registry(), SystemClock())
    store.admission.append(admit_namespace)
    for name in ("default", "kube-system", "knative-serving", "knative-eventing"):
        store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    garbage, manager = GarbageCollector(store), Manager(store)
    manager.add(NamespaceController(store))
    server = ApiServer(store, tmp_path / "api", pods=pods)
    await server.start()
    garbage.start()
    await manager.start()
    await manager.settled()  # what namespaces come with is there
    write_kubeconfig(tmp_path / "kubeconfig", server.kubeconfig())
    trust = ssl.create_default_context(cadata=server.authority.pem.decode())
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust),
        timeout=aiohttp.ClientTimeout(total=PATIENCE),
    ) as session:
        made = Api(server, store, tmp_path, session)
        yield made
        for process in made.processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
    await manager.stop()
    garbage.stop()
    await server.close()
    store.close()


needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is missing")


def config_map(name: str = "one", **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"}, "data": data or {"a": "1"},
    }  # fmt: skip


def deployment(name: str = "web", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "nginx:1.25"}]},
            },
            **spec,
        },
    }  # fmt: skip


def knative_service(name: str = "hello", image: str = "example.com/hello:1") -> dict[str, Any]:
    return {
        "apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"spec": {"containers": [{"image": image}]}}},
    }  # fmt: skip
