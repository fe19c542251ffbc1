"""A keep-alive HTTP/1.1 connection to an upstream; one exchange at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from multidict import CIMultiDict

from knlocal.gateway.http import HeaderPairs, Stream
from knlocal.gateway.http1 import (
    CHUNKED,
    CONTENT_LENGTH,
    UNTIL_CLOSE,
    BadMessage,
    ChunkedDecoder,
    ResponseHead,
    encode_head,
    parse_response_head,
)
from knlocal.gateway.incoming import Incoming
from knlocal.gateway.tunnel import TunnelEnd
from knlocal.gateway.upstream import Exchange, UnansweredError, UpstreamError


class Http1Upstream(asyncio.Protocol, Exchange):
    """The connection, and the exchange that uses it at the moment."""

    def __init__(self, give_back: Callable[[Http1Upstream], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._give_back = give_back
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.lost = False
        self.used = False
        """An exchange was completed on it before: it may have been closed while idle."""
        self.idle_since = 0.0
        self._write_paused = False
        self._writable: asyncio.Future[None] | None = None
        self._reset("GET")

    def _reset(self, method: str) -> None:
        self._method = method
        self._buffer = b""
        self._waiter: asyncio.Future[None] | None = None
        self._heads: list[ResponseHead] = []
        self._error: UpstreamError | None = None
        self._head: ResponseHead | None = None
        self._left = 0
        self._decoder: ChunkedDecoder | None = None
        self._incoming = Incoming(self._pause, self._resume)
        self._chunked = False
        self._sent_all = False
        self._answered = False
        self._switched = False
        self._active = False

    # Exchange

    def send(
        self,
        method: str,
        target: str,
        authority: str,
        headers: list[tuple[str, str]],
        body: bytes | None,
    ) -> None:
        self._reset(method)
        self._active = True
        lines = [f"{method} {target} HTTP/1.1", f"Host: {authority}"]
        framed = False
        for name, value in headers:
            lines.append(f"{name}: {value}")
            if len(name) == 14 and name.lower() == "content-length":
                framed = True
        if body is None:
            self._chunked = not framed
            if self._chunked:
                lines.append("Transfer-Encoding: chunked")
            self.transport.write(encode_head(lines))
            return
        if body and not framed:
            lines.append(f"Content-Length: {len(body)}")
        self._sent_all = True
        head = encode_head(lines)
        self.transport.write(head + body if body else head)

    async def write(self, data: bytes) -> None:
        self._check()
        if not data:
            return
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        while self._write_paused and not self.lost:
            self._writable = self._loop.create_future()
            await self._writable

    async def finish(self, trailers: HeaderPairs = ()) -> None:
        self._check()
        if self._chunked:
            lines = [f"{name}: {value}" for name, value in trailers]
            self.transport.write(b"0\r\n" + (encode_head(lines) if lines else b"\r\n"))
        self._sent_all = True
        if self._incoming.ended and self._head is not None:
            self._complete()

    async def response(self) -> ResponseHead:
        while not self._heads:
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._heads.pop(0)

    async def read(self) -> bytes:
        return await self._incoming.read()

    def whole(self) -> bytes | None:
        incoming = self._incoming
        if not incoming.ended or incoming.trailers is not None:
            return None
        return incoming.take() if incoming._pieces else b""

    @property
    def trailers(self) -> CIMultiDict[str] | None:
        return self._incoming.trailers

    def tunnel(self) -> Stream:
        received, self._buffer = self._buffer, b""
        return TunnelEnd(self.transport, received)

    def close(self) -> None:
        if self._answered and not self.lost:
            self._answered = False
            head = self._head
            if head is not None and head.keep_alive and not self.transport.is_closing():
                self.used = True
                self._active = False
                self._head = None
                self._give_back(self)
                return
        if self.transport.get_protocol() is self:
            self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        head = self._head
        if head is None:
            if not self._active:
                # An idle server that says something (408, most likely) is about to close.
                self.transport.abort()
                return
            self._read_head(self._buffer + data if self._buffer else data)
        elif self._switched:
            self._buffer += data
        else:
            self._body(head, data)

    def _read_head(self, data: bytes) -> None:
        while True:
            try:
                parsed = parse_response_head(data, self._method)
            except BadMessage as bad:
                self._fail(UpstreamError(f"it answered with a malformed response: {bad}"))
                return
            if parsed is None:
                self._buffer = data
                return
            head, data = parsed
            self._heads.append(head)
            if head.status == 101:
                self._buffer = data
                self._head = head
                self._incoming.ended = True
                self._switched = True
                self._wake()
                return
            if head.status >= 200:
                break
            self._wake()
        self._buffer = b""
        self._head = head
        length = head.length
        if length == 0:
            self._incoming.ended = True
            self._body_ended(data)
        else:
            if length == CHUNKED:
                self._decoder = ChunkedDecoder()
                if CONTENT_LENGTH in head.headers:
                    del head.headers[CONTENT_LENGTH]
            elif length != UNTIL_CLOSE:
                self._left = length
            if data:
                self._body(head, data)
        self._wake()

    def _body(self, head: ResponseHead, data: bytes) -> None:
        incoming = self._incoming
        if self._left:
            size = len(data)
            if size < self._left:
                self._left -= size
                incoming.feed(data)
                return
            incoming.ended = True
            incoming.feed(data if size == self._left else data[: self._left])
            rest = data[self._left :]
            self._left = 0
            self._body_ended(rest)
        elif self._decoder is not None:
            try:
                for piece in self._decoder.feed(data):
                    incoming.feed(piece)
            except BadMessage as bad:
                self._fail(UpstreamError(f"it broke the framing of its answer: {bad}"))
                return
            if self._decoder.done:
                incoming.end(self._decoder.trailers)
                self._body_ended(self._decoder.rest)
        elif head.length == UNTIL_CLOSE and not incoming.ended:
            incoming.feed(data)
        else:
            # Bytes nobody asked for: what follows cannot be trusted.
            self.transport.abort()

    def _body_ended(self, rest: bytes) -> None:
        if rest:
            # An answer longer than it said, or one nobody asked for.
            self.transport.close()
        elif self._sent_all:
            self._complete()

    def _complete(self) -> None:
        self._answered = True

    def eof_received(self) -> bool:
        head = self._head
        if head is not None and head.length == UNTIL_CLOSE:
            self._incoming.end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._head is None:
            reason = f" ({exc})" if exc else ""
            if self.used and not self._buffer and not self._heads:
                self._fail(UnansweredError(f"it closed the connection{reason}"))
            else:
                self._fail(UpstreamError(f"it closed the connection before it answered{reason}"))
        elif self._head.length == UNTIL_CLOSE and exc is None:
            self._incoming.end()
        else:
            self._fail(UpstreamError("it closed the connection in the middle of its answer"))
        self.resume_writing()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _check(self) -> None:
        if self.lost or self.transport.is_closing():
            raise UpstreamError("it closed the connection while the request was sent")

    def _fail(self, error: UpstreamError) -> None:
        if self._error is None:
            self._error = error
        self._incoming.fail(error)
        self._wake()
        if not self.lost:
            self.transport.abort()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _pause(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def _resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()
