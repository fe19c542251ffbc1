"""Both runtimes behind one fixture, and programs that run the same under either."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from knlocal.clock import SystemClock
from knlocal.runtime.api import ContainerPlan, LogOptions, PodId, PodPlan, Runtime
from knlocal.runtime.docker import DockerRuntime
from knlocal.runtime.process import ProcessRuntime
from tests.images import build

#: Seconds that anything here may take at most.
PATIENCE = 30.0

SERVER = """
import http.server, os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"hello from {os.environ.get('WHO', 'nobody')}\\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler)
print("serving", flush=True)
server.serve_forever()
"""


@dataclass
class House:
    """One runtime under test, with its project and everything it made."""

    kind: str
    folder: Path
    project: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:10]}")
    opened: list[Runtime] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    async def open(self, **options: Any) -> Runtime:
        """A runtime as a fresh daemon would make it."""
        made: Runtime
        options = {**self.options, **options}
        if self.kind == "docker":
            made = DockerRuntime(self.project, SystemClock(), self.folder, **options)
        else:
            made = ProcessRuntime(self.project, SystemClock(), self.folder, **options)
        self.opened.append(made)
        await made.start()
        return made

    def python(self, code: str, name: str = "user", **changes: Any) -> ContainerPlan:
        """A container that runs Python code, in whichever way this runtime runs things."""
        plan = ContainerPlan(name, "knlocal-test/python:3", command=("python3", "-u", "-c", code))
        if self.kind == "process":
            local = (sys.executable, "-u", "-c", code)
            plan = replace(plan, command=None, local_command=local, local_dir=self.folder)
        return replace(plan, **changes)

    def server(self, runtime: Runtime, pod: PodId, who: str = "me") -> ContainerPlan:
        env = {"PORT": str(runtime.env_port(pod, 8080)), "WHO": who}
        return self.python(SERVER, env=env)


def pod_id(name: str = "pod") -> PodId:
    return PodId("default", name, uuid.uuid4().hex)


def pod_of(*containers: ContainerPlan, pod: PodId | None = None, **changes: Any) -> PodPlan:
    return replace(PodPlan(pod or pod_id(), containers, ports=(8080,)), **changes)


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def engine(request: pytest.FixtureRequest) -> str:
    """Which runtime; modules about one of them override it."""
    return str(request.param)


@pytest.fixture
async def house(engine: str, tmp_path: Path) -> AsyncIterator[House]:
    async with kept_house(engine, tmp_path) as made:
        yield made


@pytest.fixture
async def runtime(house: House) -> Runtime:
    return await house.open()


@contextlib.asynccontextmanager
async def kept_house(kind: str, folder: Path) -> AsyncIterator[House]:
    if kind == "docker":
        await asyncio.to_thread(build.ensure, "python", "httpd")
    made = House(kind, folder)
    try:
        yield made
    finally:
        for runtime in made.opened:
            await runtime.close()
        cleaner = await House(kind, folder, made.project).open()
        for pod in await cleaner.pods():
            await cleaner.remove(pod.id)
        left = await cleaner.pods()
        await cleaner.close()
        assert left == []


async def eventually(found: Callable[[], Any], what: str = "") -> Any:
    """What `found` gives (awaited when it must be), as soon as it is true."""
    async with asyncio.timeout(PATIENCE):
        while True:
            value = found()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.01)


async def until_state(runtime: Runtime, pod: PodId, state: str, container: str = "user") -> Any:
    async def look() -> Any:
        found = await runtime.inspect(pod)
        one = found.containers.get(container) if found else None
        return one if one is not None and one.state == state else None

    return await eventually(look)


async def get(runtime: Runtime, plan: PodPlan, port: int = 8080, path: str = "/") -> str:
    """The body of an answer, asking until the program listens."""
    state = await runtime.inspect(plan.id)
    assert state is not None
    host, number = runtime.address(state, port)
    async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
        while True:
            try:
                async with session.get(f"http://{host}:{number}{path}") as response:
                    return await response.text()
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)


async def logs(runtime: Runtime, pod: PodId, container: str = "user", **options: Any) -> str:
    async with asyncio.timeout(PATIENCE):
        chunks = [chunk async for chunk in runtime.logs(pod, container, LogOptions(**options))]
    return b"".join(chunks).decode()


async def run_to_end(runtime: Runtime, plan: PodPlan, container: str = "user") -> Any:
    """Prepare, start, and the state once it has ended."""
    await runtime.prepare(plan)
    await runtime.start_container(plan, container)
    return await until_state(runtime, plan.id, "exited", container)


class Collected:
    """Events of a runtime, collected while a test goes on."""

    def __init__(self, runtime: Runtime) -> None:
        self.seen: list[tuple[str, str]] = []
        self._task = asyncio.create_task(self._collect(runtime))

    async def _collect(self, runtime: Runtime) -> None:
        async for event in runtime.events():
            self.seen.append((event.container, event.what))

    def of(self, container: str = "user") -> Sequence[str]:
        return [what for name, what in self.seen if name == container]

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


@contextlib.asynccontextmanager
async def events_of(runtime: Runtime) -> AsyncIterator[Collected]:
    collected = Collected(runtime)
    await asyncio.sleep(0)
    try:
        yield collected
    finally:
        await collected.close()


async def until_heard(house: House, runtime: Runtime, seen: Collected) -> None:
    """Return once events are known to come: some have. Those are forgotten again."""

    async def heard() -> bool:
        probe = pod_of(house.python("", name="probe"))
        await runtime.prepare(probe)
        await runtime.start_container(probe, "probe")
        await runtime.remove(probe.id)
        return bool(seen.seen)

    await eventually(heard)
    done = pod_of(house.python("", name="last"))
    await runtime.prepare(done)
    await runtime.start_container(done, "last")
    await runtime.remove(done.id)
    await eventually(lambda: "removed" in seen.of("last"))  # so nothing earlier is still to come
    seen.seen.clear()


def environment_of(text: str) -> Mapping[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
