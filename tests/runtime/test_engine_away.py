"""An engine that is not there, goes away, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from knlocal.clock import SystemClock
from knlocal.runtime.api import ContainerPlan, EngineUnavailable, Runtime
from knlocal.runtime.choose import choose
from knlocal.runtime.docker import DockerRuntime
from knlocal.runtime.docker_client import DockerSDK
from knlocal.runtime.docker_http import Endpoint
from tests.runtime.conftest import (
    House,
    events_of,
    eventually,
    get,
    kept_house,
    logs,
    pod_of,
    until_state,
)


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent.sock")


async def test_an_engine_that_is_not_there_is_said_plainly(no_docker: None, tmp_path: Path) -> None:
    runtime = DockerRuntime("test", SystemClock(), tmp_path)
    with pytest.raises(EngineUnavailable, match=r"absent\.sock.*Is Docker running\?"):
        await runtime.start()
    assert not await runtime.healthy()
    with pytest.raises(EngineUnavailable):
        await runtime.pods()
    await runtime.close()


async def test_auto_takes_local_processes_without_an_engine(
    no_docker: None, tmp_path: Path
) -> None:
    runtime, why = await choose("auto", project="p", clock=SystemClock(), state_dir=tmp_path)
    assert runtime.name == "process"
    assert "local processes" in why
    assert "absent.sock" in why
    await runtime.close()
    with pytest.raises(EngineUnavailable, match='runtime = "docker"'):
        await choose("docker", project="p", clock=SystemClock(), state_dir=tmp_path)
    runtime, why = await choose("process", project="p", clock=SystemClock(), state_dir=tmp_path)
    assert (runtime.name, "because runtime" in why) == ("process", True)
    await runtime.close()


@pytest.mark.docker
async def test_auto_takes_docker_where_it_answers(tmp_path: Path) -> None:
    runtime, why = await choose("auto", project="p", clock=SystemClock(), state_dir=tmp_path)
    assert runtime.name == "docker"
    assert "on Docker" in why
    await runtime.close()


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        ("unix:///run/x.sock", "unix:///run/x.sock"),
        ("tcp://192.0.2.1:2375", "tcp://192.0.2.1:2375"),
        ("192.0.2.1", "tcp://192.0.2.1:2375"),
        ("tcp://[2001:db8::1]:99", "tcp://2001:db8::1:99"),
    ],
)
async def test_docker_host_decides(
    monkeypatch: pytest.MonkeyPatch, host: str, endpoint: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    assert await _endpoint() == endpoint


async def test_a_kind_of_address_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@there")
    with pytest.raises(EngineUnavailable, match="ssh://me@there"):
        await _endpoint()


async def test_docker_contexts_are_honoured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from docker.context import ContextAPI

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    (tmp_path / "config.json").write_text('{"currentContext": "chosen"}')
    ContextAPI.create_context("chosen", host="unix:///run/chosen.sock")
    ContextAPI.create_context("named", host="tcp://192.0.2.7:2375")
    assert await _endpoint() == "unix:///run/chosen.sock"
    monkeypatch.setenv("DOCKER_CONTEXT", "named")
    assert await _endpoint() == "tcp://192.0.2.7:2375"
    monkeypatch.setenv("DOCKER_CONTEXT", "absent")
    with pytest.raises(EngineUnavailable, match='"absent" does not exist'):
        await _endpoint()


async def _endpoint() -> str:
    sdk = DockerSDK()
    try:
        return str(await sdk.endpoint())
    finally:
        sdk.close()


async def test_an_engine_that_hangs_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knlocal.runtime.docker_http.QUICK", 0.2)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(silent, tmp_path / "silent.sock")
    async with server:
        endpoint = Endpoint(socket=str(tmp_path / "silent.sock"))
        runtime = DockerRuntime("test", SystemClock(), tmp_path, endpoint=endpoint)
        with pytest.raises(EngineUnavailable, match="in time"):
            await runtime.start()
        await runtime.close()


class Wire:
    """Stands between a runtime and the engine, and can be cut."""

    def __init__(self, path: Path, engine: str) -> None:
        self.path = path
        self._engine = engine
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def connect(self) -> None:
        self._server = await asyncio.start_unix_server(self._carry, self.path)

    async def cut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.path.unlink(missing_ok=True)
        for writer in list(self._open):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._engine)
        self._open |= {writer, far_writer}
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            self._open -= {writer, far_writer}
            for one in (writer, far_writer):
                one.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


@pytest.fixture
async def cuttable(tmp_path: Path) -> AsyncIterator[tuple[House, Runtime, Wire]]:
    sdk = DockerSDK()
    engine = await sdk.endpoint()
    sdk.close()
    if not engine.socket:
        pytest.skip("the engine is not at a unix socket")
    async with kept_house("docker", tmp_path) as house:
        wire = Wire(tmp_path / "wire.sock", engine.socket)
        await wire.connect()
        runtime = await house.open(endpoint=Endpoint(socket=str(wire.path)))
        yield house, runtime, wire
        await wire.cut()


def _httpd() -> ContainerPlan:
    return ContainerPlan("user", "knlocal-test/httpd:1")


@pytest.mark.docker
async def test_work_goes_on_when_the_engine_comes_back(
    cuttable: tuple[House, Runtime, Wire],
) -> None:
    _, runtime, wire = cuttable
    plan = pod_of(_httpd())
    await runtime.prepare(plan)
    await wire.cut()
    assert not await runtime.healthy()
    with pytest.raises(EngineUnavailable):
        await runtime.start_container(plan, "user")
    with pytest.raises(EngineUnavailable):
        await runtime.prepare(pod_of(_httpd()))
    with pytest.raises(EngineUnavailable):
        await runtime.remove(plan.id)
    await wire.connect()
    assert await runtime.healthy()
    await runtime.start_container(plan, "user")
    assert await get(runtime, plan) == "Hello World!\n"


@pytest.mark.docker
async def test_an_engine_over_tcp_publishes_ports(tmp_path: Path) -> None:
    """Nothing says that its containers' addresses are reachable from here."""
    sdk = DockerSDK()
    engine = await sdk.endpoint()
    sdk.close()
    if not engine.socket:
        pytest.skip("the engine is not at a unix socket")
    wire = Wire(tmp_path / "unused.sock", engine.socket)
    server = await asyncio.start_server(wire._carry, "127.0.0.1", 0)
    async with server, kept_house("docker", tmp_path) as house:
        port = server.sockets[0].getsockname()[1]
        runtime = await house.open(endpoint=Endpoint(host="127.0.0.1", port=port))
        plan = pod_of(_httpd())
        state = await runtime.prepare(plan)
        await runtime.start_container(plan, "user")
        assert runtime.address(state, 8080)[0] == "127.0.0.1"
        assert await get(runtime, plan) == "Hello World!\n"
        assert await runtime.host_address() == "host-gateway"
        stream = await runtime.exec_stream(
            plan.id, "user", ["/httpd", "crash", "4"], stdin=False, tty=False
        )
        assert [piece async for piece in stream] == [("stderr", b"crashing as asked\n")]
        assert await stream.wait() == 4
        await stream.close()
        await runtime.close()
        await wire.cut()


@pytest.mark.docker
async def test_nothing_that_happens_meanwhile_is_missed(
    cuttable: tuple[House, Runtime, Wire],
) -> None:
    house, runtime, wire = cuttable
    direct = await house.open()
    plan, gone = pod_of(_httpd()), pod_of(_httpd())
    async with events_of(runtime) as seen:
        for one in (plan, gone):
            await direct.prepare(one)
            await direct.start_container(one, "user")
        await runtime.pods()

        # The feed is known to stand once a change has come through it.
        async def heard() -> bool:
            probe = pod_of(ContainerPlan("probe", "knlocal-test/httpd:1"))
            await direct.prepare(probe)
            await direct.remove(probe.id)
            return bool(seen.seen)

        await eventually(heard)
        await wire.cut()
        await direct.stop_container(plan.id, "user", 0)
        await until_state(direct, plan.id, "exited")
        await direct.remove(gone.id)
        await wire.connect()
        await eventually(lambda: {"exited", "removed"} <= set(seen.of()))
        assert seen.of().count("exited") == 1
        assert seen.of().count("removed") == 1
    assert "listening" in await logs(runtime, plan.id)
