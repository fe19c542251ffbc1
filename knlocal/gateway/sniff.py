"""The first bytes of a connection decide what it speaks: HTTP/2 by its preface, else HTTP/1."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from knlocal.gateway.context import ServerContext
from knlocal.gateway.http1_server import Http1Connection
from knlocal.gateway.http2_server import Http2Connection, upgrade_to_h2c

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_TLS_HANDSHAKE: Final = b"\x16\x03"
_TLS_ANSWER: Final = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n\r\nThis port speaks plain HTTP: use http://, not https://.\n"
)


class Sniffer(asyncio.Protocol):
    """Holds a new connection until it is clear which protocol takes it."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        context.upgrade_to_h2c = partial(upgrade_to_h2c, context)
        self._received = b""
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._deadline = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._context.connections.add(self)
        self._deadline = self._context.idle_deadlines.add(self._transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def data_received(self, data: bytes) -> None:
        self._received = received = self._received + data
        if PREFACE.startswith(received[: len(PREFACE)]):
            if len(received) >= len(PREFACE):
                self._become(Http2Connection, received)
            return
        if received.startswith(_TLS_HANDSHAKE):
            self._transport.write(_TLS_ANSWER)
            self._transport.close()
            return
        self._become(Http1Connection, received)

    def _become(self, protocol: Callable[[ServerContext], asyncio.Protocol], data: bytes) -> None:
        self._leave()
        chosen = protocol(self._context)
        self._transport.set_protocol(chosen)
        chosen.connection_made(self._transport)
        chosen.data_received(data)

    def _leave(self) -> None:
        self._context.connections.discard(self)
        self._context.idle_deadlines.cancel(self._deadline)

    # What the gateway asks of every connection.

    busy = False

    def shut(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()
