"""Watches and logs over a WebSocket, as browsers and some client libraries ask for them.

Messages are those of k8s.io/apiserver pkg/endpoints/handlers/watch.go and of k8s.io/apimachinery
pkg/util/httpstream/wsstream.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from knlocal.apiserver.streams.upgrade import upgrade_websocket

_BINARY, _BASE64 = "binary.k8s.io", "base64.binary.k8s.io"


class Sink(Protocol):
    """Where a stream is written to: a response, or a WebSocket."""

    async def write(self, data: bytes) -> None: ...


class _Events:
    """Each line is a message of its own."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def write(self, data: bytes) -> None:
        for line in data.splitlines():
            await self._socket.send_str(line.decode())


class _Output:
    """Bytes as they come, in base64 for clients that asked for it."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def write(self, data: bytes) -> None:
        if self._socket.ws_protocol == _BASE64:
            await self._socket.send_str(base64.b64encode(data).decode())
        else:
            await self._socket.send_bytes(data)


async def send_events(
    request: web.BaseRequest, write: Callable[[Sink], Awaitable[None]]
) -> web.WebSocketResponse:
    """Upgrade; `write` then writes whole lines. Ends with it, or when the client goes."""
    socket = await upgrade_websocket(request, (_BINARY, _BASE64))
    return await _until_closed(socket, write(_Events(socket)))


async def send_output(
    request: web.BaseRequest, write: Callable[[Sink], Awaitable[None]]
) -> web.WebSocketResponse:
    """Upgrade; `write` then writes bytes. Ends with it, or when the client goes."""
    socket = await upgrade_websocket(request, (_BINARY, _BASE64))
    return await _until_closed(socket, write(_Output(socket)))


async def _until_closed(
    socket: web.WebSocketResponse, writing: Awaitable[None]
) -> web.WebSocketResponse:
    tasks = {asyncio.ensure_future(writing), asyncio.ensure_future(_closed(socket))}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with contextlib.suppress(ConnectionError):
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        with contextlib.suppress(ConnectionError):
            await socket.close()
    return socket


async def _closed(socket: web.WebSocketResponse) -> None:
    """What the client sends means nothing here; that it stops does."""
    async for _message in socket:
        pass
