"""The HTTP/1.0 and 1.1 side of the door: one protocol object per connection.

Requests of a connection are answered one after the other (pipelined ones wait unread); while one is
answered, its body and the answer stream at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from multidict import CIMultiDict

from knlocal.gateway.chunked import ChunkedDecoder
from knlocal.gateway.context import ServerContext
from knlocal.gateway.deadlines import Deadlines
from knlocal.gateway.http import ClientGone
from knlocal.gateway.http1 import (
    CHUNKED,
    REASONS,
    BadMessage,
    RequestHead,
    check_unfinished_head,
    encode_head,
    parse_request_head,
)
from knlocal.gateway.http1_request import Http1Request
from knlocal.gateway.incoming import HIGH_WATER, Incoming
from knlocal.gateway.outbox import Writer

_DRAIN: Final = 256 * 1024
"""Bytes of an unread request body worth reading to keep the connection (as Go's server)."""

_SHORT: Final = 64 * 1024
"""Bytes of a body that may be waited for before its request is looked at."""

_SWITCH_TO_H2C: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
)


class Http1Connection(Writer):
    """One client connection."""

    def __init__(self, context: ServerContext) -> None:
        super().__init__()
        self.context = context
        self.peer = ""
        self.closing = False
        self._buffer = b""
        self._request: Http1Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._decoder: ChunkedDecoder | None = None
        self._left = 0
        self._lingering = False
        self._advancing = False
        self._awaits_whole = False
        self._deadlines = context.idle_deadlines
        self._deadline = 0

    # Life of the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self.context.connections.add(self)
        self._deadline = self._deadlines.add(self.hang_up)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.context.connections.discard(self)
        self._deadlines.cancel(self._deadline)
        request = self._request
        if request is not None:
            if request.incoming is not None:
                request.incoming.fail(ClientGone())
            if self._task is not None:
                self._task.cancel()

    def eof_received(self) -> bool:
        # Like Go's server and Envoy: a client that ends its direction has gone.
        return False

    @property
    def busy(self) -> bool:
        return self._request is not None

    def shut(self) -> None:
        """Close now when idle, else after the current answer."""
        self.closing = True
        if self._request is None and not self._lingering:
            self.hang_up()

    def abort(self) -> None:
        self.transport.abort()

    # Bytes in

    def data_received(self, data: bytes) -> None:
        request = self._request
        if request is None:
            if not self._lingering:
                self._buffer = self._buffer + data if self._buffer else data
                self._next_request()
        elif request.body_ended:
            self._buffer += data
            if len(self._buffer) > HIGH_WATER:
                self.pause_reading()
        else:
            self._watch(self._deadlines, self._body_expired)
            self._body(request, data)

    def _next_request(self) -> None:
        """Begin the next request, and those behind it as long as they are answered at once."""
        self._advancing = True
        while self._begin_request() and self._request is None and self._buffer:
            pass
        self._advancing = False

    def _begin_request(self) -> bool:
        """False when there is none yet, or never will be."""
        if self._buffer[:2] == b"\r\n":
            # Some clients end a body with an extra line break (RFC 9112 2.2).
            self._buffer = self._buffer.lstrip(b"\r\n")
            if not self._buffer:
                return False
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        try:
            if not found:
                check_unfinished_head(head)
                if self._deadlines is not self.context.head_deadlines:
                    self._watch(self.context.head_deadlines, self._head_expired)
                return False
            parsed = parse_request_head(head)
        except BadMessage as bad:
            self._refuse(bad)
            return False
        if parsed.upgrade and self._switch_to_h2c(parsed, rest):
            return False
        self._deadlines.cancel(self._deadline)
        length = parsed.length
        if 0 <= length <= len(rest):
            self._request = request = Http1Request(self, parsed, rest[:length])
            self._buffer = rest[length:] if length else rest
            if parsed.method == "POST" and self.context.serve_at_once(request):
                return True
        else:
            self._request = request = Http1Request(self, parsed, None)
            if not self._begin_body(request, length, rest):
                return False
            if 0 < length <= _SHORT and self.context.wants_whole(request):
                self._awaits_whole = True
                return True  # `_body_ended` goes on
        self._task = self.loop.create_task(self._run(request))
        return True

    def _begin_body(self, request: Http1Request, length: int, rest: bytes) -> bool:
        """False when it is broken already."""
        self._buffer = b""
        if length == CHUNKED:
            self._decoder = ChunkedDecoder()
        else:
            self._left = length
        if rest:
            self._body(request, rest)
            if self._request is not request:
                return False
        if not request.body_ended:
            self._watch(self.context.body_deadlines, self._body_expired)
        return True

    def _switch_to_h2c(self, head: RequestHead, rest: bytes) -> bool:
        """Answer `Upgrade: h2c` (RFC 7540 3.2) when the request can go on as HTTP/2."""
        take_over = self.context.upgrade_to_h2c
        protocol = take_over(head) if take_over is not None else None
        if protocol is None:
            return False
        self._deadlines.cancel(self._deadline)
        self.context.connections.discard(self)
        self.send(_SWITCH_TO_H2C)
        self.flush()
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if rest:
            protocol.data_received(rest)
        return True

    def _body(self, request: Http1Request, data: bytes) -> None:
        decoder = self._decoder
        incoming = request.incoming
        assert incoming is not None
        if decoder is None:
            rest = b""
            if len(data) > self._left:
                rest = data[self._left :]
                data = data[: self._left]
            self._left -= len(data)
            if not request.finished:
                incoming.feed(data)
            if not self._left:
                self._body_ended(request, incoming, rest, None)
            return
        try:
            for piece in decoder.feed(data):
                if not request.finished:
                    incoming.feed(piece)
        except BadMessage as bad:
            self._broken_body(request, bad)
            return
        if decoder.done:
            self._decoder = None
            self._body_ended(request, incoming, decoder.rest, decoder.trailers)

    def _body_ended(
        self,
        request: Http1Request,
        incoming: Incoming,
        rest: bytes,
        trailers: CIMultiDict[str] | None,
    ) -> None:
        request.body_ended = True
        self._deadlines.cancel(self._deadline)
        incoming.end(trailers)
        self._buffer = rest
        if request.finished:
            self.answered(request)
        elif self._awaits_whole:
            self._awaits_whole = False
            request.is_whole()
            if not self.context.serve_at_once(request):
                self._task = self.loop.create_task(self._run(request))

    def _broken_body(self, request: Http1Request, bad: BadMessage) -> None:
        """The client broke its own framing: nothing after it can be understood."""
        if request.started:
            self.transport.abort()
            return
        request.body_ended = request.finished = True
        self._request = None
        self._awaits_whole = False
        if request.incoming is not None:
            request.incoming.fail(ClientGone())
        if self._task is not None:
            self._task.cancel()
        self._refuse(bad)

    # Answers

    async def _run(self, request: Http1Request) -> None:
        try:
            await self.context.serve(request)
        except (ClientGone, asyncio.CancelledError):
            pass
        finally:
            if not request.finished and not self.lost:
                request.abort()

    def answered(self, request: Http1Request) -> None:
        """The answer is out: take the next request, or close."""
        if self.lost:
            return
        if not request.body_ended:
            if request.keep_alive and self._decoder is None and self._left <= _DRAIN:
                assert request.incoming is not None
                request.incoming.take()
                self._watch(self.context.head_deadlines, self._body_expired)
            else:
                self._request = None
                self._linger()
            return
        self._request = None
        self._task = None
        if self.closing or not request.keep_alive:
            if self._buffer:
                self._linger()
            else:
                self.hang_up()
            return
        self._watch(self.context.idle_deadlines, self.hang_up)
        if self._buffer:
            self.resume_reading()
            if not self._advancing:
                self._next_request()

    def _refuse(self, bad: BadMessage) -> None:
        body = f"{bad}\n".encode()
        head = [
            f"HTTP/1.1 {bad.status} {REASONS.get(bad.status, '')}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        self.send(encode_head(head) + body)
        self._linger()

    def _linger(self) -> None:
        """End our direction and read on for a moment: closing with bytes unread resets the
        connection, and the client would lose the answer."""
        self._lingering = True
        self._buffer = b""
        self._decoder = None
        self._watch(self.context.linger_deadlines, self.hang_up)
        self.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.resume_reading()
        else:
            self.transport.close()

    def _watch(self, deadlines: Deadlines, expired: Callable[[], object]) -> None:
        self._deadlines.cancel(self._deadline)
        self._deadlines = deadlines
        self._deadline = deadlines.add(expired)

    def _head_expired(self) -> None:
        self._refuse(BadMessage(408, f"no complete request within {self.context.limits.head:g} s"))

    def _body_expired(self) -> None:
        request = self._request
        if request is None or request.finished:
            self.hang_up()
        else:
            self._broken_body(
                request, BadMessage(408, f"nothing of the body for {self.context.limits.body:g} s")
            )

    def take_over(self) -> bytes:
        """Bytes that followed the head of an upgraded request; nothing is read here any more."""
        received, self._buffer = self._buffer, b""
        return received

    def tunnel_lost(self, exc: Exception | None) -> None:
        # The handler learns of it from its stream, not by being cancelled.
        self._task = None
        self.connection_lost(exc)
