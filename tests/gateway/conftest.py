"""A gateway on a real socket, scripted upstreams, and raw bytes to talk to both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop

from knlocal.clock import Clock, SystemClock, VirtualClock
from knlocal.gateway.forward import Forwarded, Timeouts, forward
from knlocal.gateway.http import Handler, Request
from knlocal.gateway.pool import Pool
from knlocal.gateway.routes import Route, RouteTable
from knlocal.gateway.server import Gateway, RequestRecord
from knlocal.gateway.upstream import Endpoint

DEADLINE = 10.0
"""Seconds any wait in these tests may take."""


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The daemon runs on uvloop where there is one, so both are tested."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


class Wire:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), DEADLINE)

    async def until(self, end: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(end), DEADLINE)

    async def exactly(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), DEADLINE)

    async def rest(self) -> bytes:
        """Everything until the other side closes."""
        return await asyncio.wait_for(self.reader.read(-1), DEADLINE)

    async def response(self) -> tuple[bytes, bytes]:
        """A head and the body its Content-Length announces."""
        head = await self.until(b"\r\n\r\n")
        size = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                size = int(line.partition(b":")[2])
        return head, await self.exactly(size)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


class Door:
    """A gateway with a listener, and the pool that its handlers forward with."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.routes = RouteTable()
        self.records: list[RequestRecord] = []
        self.pool = Pool(clock)
        self.gateway = Gateway(self.routes, clock, self.records.append)
        self.host, self.port = "", 0
        self._wires: list[Wire] = []
        self.forwarded: list[Forwarded] = []
        self.failures: list[BaseException] = []

    async def open(self) -> None:
        self.host, self.port = await self.gateway.listen("127.0.0.1", 0, "external")

    async def close(self) -> None:
        for wire in self._wires:
            wire.close()
        await self.gateway.close()
        await self.pool.close()

    def serve(self, handler: Handler, *hosts: str) -> None:
        self.routes.put("test", {host: Route(handler) for host in hosts or ("app.test",)})

    def forward_to(
        self, endpoint: Endpoint, timeouts: Timeouts = Timeouts(), **options: Any
    ) -> None:
        async def handler(request: Request) -> None:
            try:
                self.forwarded.append(
                    await forward(
                        request,
                        endpoint,
                        pool=self.pool,
                        clock=self.clock,
                        timeouts=timeouts,
                        **options,
                    )
                )
            except BaseException as error:
                self.failures.append(error)
                raise

        self.serve(handler)

    async def connect(self) -> Wire:
        wire = Wire(
            *await asyncio.wait_for(asyncio.open_connection(self.host, self.port), DEADLINE)
        )
        self._wires.append(wire)
        return wire

    async def exchange(self, data: bytes) -> bytes:
        """Send bytes on a new connection; everything that comes back until it closes."""
        wire = await self.connect()
        await wire.send(data)
        return await wire.rest()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    opened = Door(SystemClock())
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def timed_door() -> AsyncIterator[Door]:
    """A door whose time stands still until a test advances it."""
    opened = Door(VirtualClock())
    await opened.open()
    yield opened
    await opened.close()


Script = Callable[[Wire], Awaitable[None]]


class Upstream:
    """A server that does what a script says with each connection."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = 0
        self.failures: list[BaseException] = []
        self.endpoint = Endpoint("", 0)
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.endpoint = Endpoint(host, port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.script(Wire(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except BaseException as error:
            self.failures.append(error)
        finally:
            with contextlib.suppress(Exception):
                writer.close()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


@pytest.fixture
async def upstream() -> AsyncIterator[Callable[[Script], Awaitable[Upstream]]]:
    opened: list[Upstream] = []

    async def start(script: Script) -> Upstream:
        server = Upstream(script)
        await server.open()
        opened.append(server)
        return server

    yield start
    for server in opened:
        server.close()
        assert server.failures == []


async def eventually(condition: Callable[[], object]) -> None:
    """Return once `condition()` is true; fail at the deadline."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - the condition is other code's state
            await asyncio.sleep(0.001)
