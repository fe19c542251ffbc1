"""A pod calls a Service of its own namespace by its bare name."""

from __future__ import annotations

import asyncio

import pytest

from knlocal.clock import SystemClock
from knlocal.gateway import Gateway, Request, Route, RouteTable
from knlocal.gateway.http import Exposure
from knlocal.gateway.routes import INSIDE


@pytest.mark.parametrize(
    ("host", "namespace", "door", "status"),
    [
        ("sink", "default", "internal", 200),
        ("SINK:80", "default", "internal", 200),
        ("sink", "other", "internal", 404),
        ("sink", "", "internal", 404),
        ("sink", "default", "external", 404),
        ("sink.default", "default", "internal", 404),
    ],
)
async def test_a_bare_name_means_the_callers_own_namespace(
    host: str, namespace: str, door: Exposure, status: int
) -> None:
    async def handler(request: Request) -> None:
        await request.respond(200, (), "here")

    routes = RouteTable()
    routes.namespace_of = {"127.0.0.1": namespace}.__getitem__
    routes.put("test", {"sink.default.svc.cluster.local": Route(handler, INSIDE)})
    gateway = Gateway(routes, SystemClock())
    try:
        reader, writer = await asyncio.open_connection(*await gateway.listen("127.0.0.1", 0, door))
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.readline(), 5)
        assert answer.split()[1] == str(status).encode()
        writer.close()
    finally:
        await gateway.close()
