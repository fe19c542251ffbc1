"""Raw bytes both ways, after a connection was upgraded."""

from __future__ import annotations

import asyncio

from knlocal.gateway.http import ClientGone, Stream
from knlocal.gateway.incoming import Incoming


class TunnelEnd(asyncio.Protocol):
    """A `Stream` on a transport that spoke HTTP before."""

    def __init__(self, transport: asyncio.Transport, received: bytes = b"") -> None:
        self._transport = transport
        self._incoming = Incoming(self._pause, self._resume)
        self._writable: asyncio.Future[None] | None = None
        self._paused_writing = False
        self._closed = False
        if received:
            self._incoming.feed(received)
        transport.set_protocol(self)

    # Stream

    async def read(self) -> bytes:
        return await self._incoming.read()

    async def write(self, data: bytes) -> None:
        if self._closed or self._transport.is_closing():
            raise ClientGone
        self._transport.write(data)
        while self._paused_writing and not self._closed:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable

    def write_eof(self) -> None:
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def close(self) -> None:
        self._transport.close()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self._incoming.feed(data)

    def eof_received(self) -> bool:
        self._incoming.end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        if exc is None:
            self._incoming.end()
        else:
            self._incoming.fail(ClientGone())
        self.resume_writing()

    def pause_writing(self) -> None:
        self._paused_writing = True

    def resume_writing(self) -> None:
        self._paused_writing = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _pause(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()


async def join(one: Stream, other: Stream) -> tuple[int, int]:
    """Carry bytes both ways until both directions have ended. Returns the bytes of each."""
    counts = [0, 0]

    async def pump(source: Stream, sink: Stream, which: int) -> None:
        try:
            while data := await source.read():
                counts[which] += len(data)
                await sink.write(data)
        except ClientGone:
            # One side broke off: nothing can be carried any more, in either direction.
            source.close()
            sink.close()
        else:
            sink.write_eof()

    back = asyncio.ensure_future(pump(other, one, 1))
    try:
        await pump(one, other, 0)
        await back
    finally:
        back.cancel()
        one.close()
        other.close()
    return counts[0], counts[1]
