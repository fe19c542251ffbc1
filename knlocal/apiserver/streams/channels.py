"""The channels of `exec` and `attach` (stdin, stdout, stderr, error, resize) over a WebSocket or
SPDY (k8s.io/apimachinery/pkg/util/remotecommand, protocols v1 to v5)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

import orjson
from aiohttp import WSMsgType, web

from knlocal.apiserver.streams.spdy import SpdyError, SpdySession, SpdyStream
from knlocal.apiserver.streams.upgrade import (
    RawConnection,
    upgrade_raw,
    upgrade_websocket,
    wants_spdy,
    wants_websocket,
)
from knlocal.clock import Clock
from knlocal.resources.status import BadRequest

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
_CLOSE = 255
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io",
              "channel.k8s.io")  # fmt: skip
#: How long an SPDY client may take to open the streams it asked for.
STREAMS_SECONDS = 30.0


class Channels(Protocol):
    """One client's channels. `incoming` yields (STDIN or RESIZE, data); STDIN with b"" is its
    end. It ends when the client goes."""

    response: web.StreamResponse
    #: Whether failures are told as a Status (protocol v4 and later) or as plain text.
    status_errors: bool

    def incoming(self) -> AsyncIterator[tuple[int, bytes]]: ...

    async def send(self, channel: int, data: bytes) -> None: ...

    async def close(self) -> None: ...


async def open_channels(
    request: web.BaseRequest, wanted: set[int], *, tty: bool, clock: Clock
) -> Channels:
    """Upgrade the request to channels. Raises BadRequest when it asks for no known protocol."""
    if wants_websocket(request):
        response = await upgrade_websocket(request, _PROTOCOLS)
        return WebSocketChannels(response)
    if wants_spdy(request):
        return await _open_spdy(request, wanted, tty=tty, clock=clock)
    raise BadRequest("Upgrade request required")


class WebSocketChannels:
    """Each message begins with its channel's number."""

    def __init__(self, response: web.WebSocketResponse) -> None:
        self.response: web.StreamResponse = response
        self._socket = response
        self.status_errors = response.ws_protocol in ("v4.channel.k8s.io", "v5.channel.k8s.io")

    async def incoming(self) -> AsyncIterator[tuple[int, bytes]]:
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                data = message.data.encode()
            elif message.type is WSMsgType.BINARY:
                data = message.data
            else:
                continue
            if len(data) >= 2 and data[0] == _CLOSE:
                if data[1] == STDIN:
                    yield STDIN, b""
            elif len(data) > 1:
                yield data[0], data[1:]

    async def send(self, channel: int, data: bytes) -> None:
        await self._socket.send_bytes(bytes([channel]) + data)

    async def close(self) -> None:
        await self._socket.close()


async def _open_spdy(
    request: web.BaseRequest, wanted: set[int], *, tty: bool, clock: Clock
) -> SpdyChannels:
    offered = [
        part.strip()
        for value in request.headers.getall("X-Stream-Protocol-Version", [])
        for part in value.split(",")
    ]
    chosen = next((name for name in _PROTOCOLS if name in offered), "")
    if offered and not chosen:
        raise BadRequest(f"none of the protocols {', '.join(offered)} is spoken here")
    headers = {"X-Stream-Protocol-Version": chosen} if chosen else {}
    connection = await upgrade_raw(request, "SPDY/3.1", headers)
    channels = SpdyChannels(connection, chosen)
    expected = {ERROR, *wanted} | ({RESIZE} if tty else set())
    async with clock.timeout(STREAMS_SECONDS):
        await channels.opened(expected)
    return channels


_BY_NAME = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}


class SpdyChannels:
    """Each channel is a stream that the client opens and names."""

    def __init__(self, connection: RawConnection, protocol: str) -> None:
        self.response = connection.response
        self.status_errors = protocol in ("v4.channel.k8s.io", "v5.channel.k8s.io")
        self._connection = connection
        self._streams: dict[int, SpdyStream] = {}
        self._new = asyncio.Event()
        self._incoming: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(maxsize=16)
        self._session = SpdySession(connection.send, self._opened)
        self._tasks = {asyncio.create_task(self._pump())}

    async def opened(self, expected: set[int]) -> None:
        while not expected <= self._streams.keys():
            self._new.clear()
            await self._new.wait()

    def _opened(self, stream: SpdyStream) -> None:
        channel = _BY_NAME.get(stream.headers.get("streamtype", ""))
        if channel is None:
            return
        self._streams[channel] = stream
        self._new.set()
        if channel in (STDIN, RESIZE):
            self._tasks.add(asyncio.create_task(self._read(channel, stream)))

    async def _pump(self) -> None:
        try:
            async for data in self._connection:
                await self._session.feed(data)
        except (SpdyError, ConnectionError):
            pass
        finally:
            self._session.end()
            await self._incoming.put(None)

    async def _read(self, channel: int, stream: SpdyStream) -> None:
        while data := await stream.read():
            await self._incoming.put((channel, data))
        if channel == STDIN:
            await self._incoming.put((STDIN, b""))

    async def incoming(self) -> AsyncIterator[tuple[int, bytes]]:
        while (item := await self._incoming.get()) is not None:
            yield item

    async def send(self, channel: int, data: bytes) -> None:
        stream = self._streams.get(channel)
        if stream is not None:
            await stream.write(data)

    async def close(self) -> None:
        for channel in (STDOUT, STDERR, ERROR):
            stream = self._streams.get(channel)
            if stream is not None:
                with contextlib.suppress(ConnectionError):
                    await stream.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._connection.close()


def terminal_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from a message on the resize channel."""
    try:
        size = orjson.loads(data)
        return int(size["Width"]), int(size["Height"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def exit_status(code: int) -> bytes:
    """What the error channel says at the end of a command."""
    if code == 0:
        return orjson.dumps({"metadata": {}, "status": "Success"})
    return orjson.dumps(
        {
            "metadata": {},
            "status": "Failure",
            "message": f"command terminated with non-zero exit code: exit status {code}",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        }
    )


def failure_status(message: str) -> bytes:
    """What the error channel says when the command could not be run."""
    return orjson.dumps(
        {
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": "InternalError",
            "details": {"causes": [{"message": message}]},
            "code": 500,
        }
    )
