"""Raw bytes both ways, after a connection was upgraded."""

from __future__ import annotations

import asyncio

from knlocal.gateway.http import ClientGone, Stream
from knlocal.gateway.incoming import Incoming
from knlocal.gateway.outbox import Writer


class TunnelEnd(Writer):
    """A `Stream` on the transport of a connection that spoke HTTP before."""

    def __init__(self, before: Writer, received: bytes) -> None:
        super().__init__()
        before.flush()
        self.transport = before.transport
        self.full = before.full
        self._incoming = Incoming(self.pause_reading, self.resume_reading)
        if received:
            self._incoming.feed(received)
        self.transport.set_protocol(self)
        self.resume_reading()

    async def read(self) -> bytes:
        return await self._incoming.read()

    async def write(self, data: bytes) -> None:
        if self.lost or self.transport.is_closing():
            raise ClientGone
        self.send(data)
        if self.full:
            await self.drained()

    def write_eof(self) -> None:
        if self.lost or self.transport.is_closing():
            return
        self.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def close(self) -> None:
        if not self.lost:
            self.hang_up()

    def data_received(self, data: bytes) -> None:
        self._incoming.feed(data)

    def eof_received(self) -> bool:
        self._incoming.end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if exc is None:
            self._incoming.end()
        else:
            self._incoming.fail(ClientGone())


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
