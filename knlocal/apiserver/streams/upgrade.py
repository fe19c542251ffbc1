"""Takes a connection over from HTTP: a WebSocket, or the bare connection (SPDY)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

from aiohttp import WSMsgType, web


class ByteStream(Protocol):
    """Bytes both ways, whatever carries them."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def send(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


class _Switched(web.StreamResponse):
    """`101 Switching Protocols`: what is written afterwards goes out as it is."""

    _length_check = False


class _Feeder:
    """Stands where the HTTP parser was, and hands bytes on."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._reader.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self._reader.feed_eof()

    def set_exception(self, error: BaseException, *_: Any) -> None:
        self._reader.feed_eof()


class RawConnection:
    """The connection itself, after a 101."""

    def __init__(self, response: web.StreamResponse, reader: asyncio.StreamReader) -> None:
        self.response = response
        self._reader = reader

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._read()

    async def _read(self) -> AsyncIterator[bytes]:
        while data := await self._reader.read(65536):
            yield data

    async def send(self, data: bytes) -> None:
        await self.response.write(data)

    async def close(self) -> None:
        self.response.force_close()


async def upgrade_raw(
    request: web.BaseRequest, protocol: str, headers: dict[str, str]
) -> RawConnection:
    """Answer 101 and take the connection over."""
    response = _Switched(
        status=101, headers={"Connection": "Upgrade", "Upgrade": protocol, **headers}
    )
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    reader = asyncio.StreamReader(limit=256 * 1024)
    # Lets the reader make the client wait when nobody reads.
    reader.set_transport(transport)
    request.protocol.set_parser(_Feeder(reader))  # type: ignore[arg-type]
    request.protocol.keep_alive(False)
    await response.prepare(request)
    return RawConnection(response, reader)


class WebSocketBytes:
    """A WebSocket whose binary messages are one stream of bytes (SPDY tunnelled by kubectl)."""

    def __init__(self, response: web.WebSocketResponse) -> None:
        self.response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._read()

    async def _read(self) -> AsyncIterator[bytes]:
        async for message in self.response:
            if message.type is WSMsgType.BINARY:
                yield message.data
            elif message.type is WSMsgType.TEXT:
                yield message.data.encode()

    async def send(self, data: bytes) -> None:
        await self.response.send_bytes(data)

    async def close(self) -> None:
        await self.response.close()


def wants_websocket(request: web.BaseRequest) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def wants_spdy(request: web.BaseRequest) -> bool:
    return request.headers.get("Upgrade", "").lower().startswith("spdy/")


async def upgrade_websocket(
    request: web.BaseRequest, protocols: tuple[str, ...]
) -> web.WebSocketResponse:
    """Accept a WebSocket with the first protocol of the client's that is known."""
    response = web.WebSocketResponse(
        protocols=protocols, max_msg_size=0, compress=False, timeout=1.0
    )
    await response.prepare(request)
    return response
