"""Port-forward: connections to a pod's ports, carried by SPDY (bare or inside a WebSocket, as
kubectl does) or by plain WebSocket channels (as the Python client does)."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aiohttp import WSMsgType, web

from knlocal.apiserver.streams.spdy import SpdyError, SpdySession, SpdyStream
from knlocal.apiserver.streams.upgrade import (
    ByteStream,
    WebSocketBytes,
    upgrade_raw,
    upgrade_websocket,
    wants_spdy,
    wants_websocket,
)
from knlocal.resources.status import BadRequest

PROTOCOL = "portforward.k8s.io"
_TUNNEL = "SPDY/3.1+portforward.k8s.io"
_CHANNELS = ("v4.channel.k8s.io", "channel.k8s.io", PROTOCOL, "v2." + PROTOCOL)

Connect = Callable[[int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Opens a connection to a port of the pod; raises OSError or RuntimeFailure."""


async def forward(
    request: web.BaseRequest, ports: list[int], connect: Connect
) -> web.StreamResponse:
    """Serve one port-forward session. Raises BadRequest when no known upgrade is asked for."""
    if wants_websocket(request):
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        socket = await upgrade_websocket(request, (_TUNNEL, *_CHANNELS))
        if _TUNNEL in offered:
            await _Session(WebSocketBytes(socket), connect).run()
        else:
            await _channels(socket, ports, connect)
        await socket.close()
        return socket
    if wants_spdy(request):
        headers = {"X-Stream-Protocol-Version": PROTOCOL}
        connection = await upgrade_raw(request, "SPDY/3.1", headers)
        await _Session(connection, connect).run()
        await connection.close()
        return connection.response
    raise BadRequest("Upgrade request required")


class _Session:
    """An SPDY session: for each connection the client opens an error and a data stream."""

    def __init__(self, carrier: ByteStream, connect: Connect) -> None:
        self._carrier = carrier
        self._connect = connect
        self._pairs: dict[str, dict[str, SpdyStream]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._session = SpdySession(carrier.send, self._opened)

    async def run(self) -> None:
        try:
            async for data in self._carrier:
                await self._session.feed(data)
        except (SpdyError, ConnectionError):
            pass
        finally:
            self._session.end()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _opened(self, stream: SpdyStream) -> None:
        number = stream.headers.get("requestid", str(stream.number))
        pair = self._pairs.setdefault(number, {})
        pair[stream.headers.get("streamtype", "data")] = stream
        if {"data", "error"} <= pair.keys():
            del self._pairs[number]
            self._start(self._serve(pair["data"], pair["error"]))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, data: SpdyStream, error: SpdyStream) -> None:
        port = data.headers.get("port", "")
        try:
            reader, writer = await self._connect(int(port))
        except Exception as problem:  # whatever it is, the client shall read it
            with contextlib.suppress(ConnectionError):
                await error.write(f"error forwarding port {port}: {problem}".encode())
                await error.close()
                await data.close()
            return
        upstream = asyncio.create_task(_upload(data, writer))
        try:
            while chunk := await reader.read(65536):
                await data.write(chunk)
            await data.close()
            await error.close()
            await upstream
        except ConnectionError as problem:
            with contextlib.suppress(ConnectionError):
                await error.write(f"error forwarding port {port}: {problem}".encode())
                await error.close()
                await data.reset()
        finally:
            upstream.cancel()
            writer.close()


async def _upload(data: SpdyStream, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await data.read():
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _channels(socket: web.WebSocketResponse, ports: list[int], connect: Connect) -> None:
    """Two channels a port: data and errors; each is opened by a message with the port's number."""
    writers: dict[int, asyncio.StreamWriter] = {}
    tasks: list[asyncio.Task[None]] = []
    for index, port in enumerate(ports):
        number = struct.pack("<H", port)
        for channel in (2 * index, 2 * index + 1):
            await socket.send_bytes(bytes([channel]) + number)
        try:
            reader, writer = await connect(port)
        except Exception as problem:  # whatever it is, the client shall read it
            text = f"error forwarding port {port}: {problem}".encode()
            await socket.send_bytes(bytes([2 * index + 1]) + text)
            continue
        writers[2 * index] = writer
        tasks.append(asyncio.create_task(_download(socket, 2 * index, reader)))
    try:
        async for message in socket:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            target = writers.get(message.data[0])
            if target is not None:
                with contextlib.suppress(ConnectionError):
                    target.write(message.data[1:])
                    await target.drain()
    finally:
        for task in tasks:
            task.cancel()
        for writer in writers.values():
            writer.close()


async def _download(
    socket: web.WebSocketResponse, channel: int, reader: asyncio.StreamReader
) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            await socket.send_bytes(bytes([channel]) + chunk)
        # This protocol cannot close one channel: the connection's end is told by closing all.
        await socket.close()
