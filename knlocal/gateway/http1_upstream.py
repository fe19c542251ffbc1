"""A keep-alive HTTP/1.1 connection to an upstream; one exchange at a time."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from multidict import CIMultiDict

from knlocal.gateway.chunked import ChunkedDecoder
from knlocal.gateway.http import HeaderPairs, Stream
from knlocal.gateway.http1 import (
    CHUNKED,
    UNTIL_CLOSE,
    BadMessage,
    Pairs,
    ResponseHead,
    encode_head,
    parse_response_head,
)
from knlocal.gateway.incoming import Incoming
from knlocal.gateway.outbox import Writer
from knlocal.gateway.tunnel import TunnelEnd
from knlocal.gateway.upstream import Exchange, UnansweredError, UpstreamError

#: Linux only.
TCP_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class Http1Upstream(Writer, Exchange):
    """The connection, and the exchange that uses it at the moment."""

    def __init__(
        self,
        give_back: Callable[[Http1Upstream], None],
        gone: Callable[[Http1Upstream], None],
    ) -> None:
        """`give_back` takes it for another exchange; `gone` hears of its end."""
        super().__init__()
        self._give_back = give_back
        self._gone = gone
        self.used = False
        """An exchange was completed on it before: it may have been closed while idle."""
        self.idle_since = 0.0
        self.on_arrival: Callable[[], object] | None = None
        """Called instead of waking `response` when `head` or `error` is there, or an interim
        answer."""
        self.head: ResponseHead | None = None
        self.error: UpstreamError | None = None
        self._active = False
        self._interim: deque[ResponseHead] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self._incoming: Incoming | None = None
        self._decoder: ChunkedDecoder | None = None
        self._buffer = b""

    # Exchange

    def send_request(
        self,
        method: str,
        target: str,
        authority: str,
        headers: Pairs,
        body: bytes | None,
        length: int | None,
    ) -> None:
        self._begin(method, body is not None)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {authority}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        elif body is None:
            self._chunked = True
            lines.append("Transfer-Encoding: chunked")
        head = encode_head(lines)
        self.send(head + body if body else head)

    def _begin(self, method: str, whole: bool) -> None:
        self._active = True
        self._method = method
        self.head = None
        self._whole: bytes | None = None
        self._incoming = None
        self._ended = False
        """All of the answer is here."""
        self._sent = whole
        """All of the request is out."""
        self._chunked = False

    def send_whole(self, method: str, request: bytes) -> None:
        """A whole request, head and body, ready to be sent."""
        self._begin(method, True)
        self.send(request)

    async def write(self, data: bytes) -> None:
        self._check()
        if not data:
            return
        self.send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        if self.full:
            await self.drained()

    async def finish(self, trailers: HeaderPairs = ()) -> None:
        self._check()
        if self._chunked:
            lines = [f"{name}: {value}" for name, value in trailers]
            self.send(b"0\r\n" + (encode_head(lines) if lines else b"\r\n"))
        self._sent = True

    async def response(self) -> ResponseHead:
        while True:
            if self._interim:
                return self._interim.popleft()
            if self.head is not None:
                return self.head
            if self.error is not None:
                raise self.error
            self._arrival = self.loop.create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None

    async def read(self) -> bytes:
        whole = self._whole
        if whole is not None:
            self._whole = b""
            return whole
        assert self._incoming is not None
        return await self._incoming.read()

    def whole(self) -> bytes | None:
        return self._whole

    @property
    def trailers(self) -> CIMultiDict[str] | None:
        return None if self._incoming is None else self._incoming.trailers

    def tunnel(self) -> Stream:
        received, self._buffer = self._buffer, b""
        return _Tunnel(self, received)

    def close(self) -> None:
        if not self._active:
            return
        self._active = False
        head = self.head
        if (
            head is not None
            and self._ended
            and self._sent
            and head.keep_alive
            and not self.lost
            and not self.transport.is_closing()
        ):
            self.used = True
            self._give_back(self)
        elif head is None or head.status != 101:
            self.transport.abort()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if not self._active:
            # An idle server that says something (408, most likely) is about to close.
            self.transport.abort()
        elif self.head is None:
            self._read_head(self._buffer + data if self._buffer else data)
        else:
            self._read_body(self.head, data)

    def _read_head(self, data: bytes) -> None:
        while True:
            try:
                parsed = parse_response_head(data, self._method)
            except BadMessage as bad:
                self._fail(UpstreamError(f"it answered with a malformed response: {bad}"))
                return
            if parsed is None:
                self._buffer = data
                self._acknowledge()
                return
            head, data = parsed
            if head.status >= 200 or head.status == 101:
                break
            self._interim.append(head)
            self._arrived()
        self._buffer = b""
        self.head = head
        length = head.length
        if head.status == 101:
            self._buffer = data
            self._whole = b""
        elif length >= 0 and len(data) >= length:
            # The usual case: a short answer in one segment.
            self._whole = data[:length] if len(data) > length else data
            self._answer_ended(data[length:])
        else:
            self._incoming = Incoming(self.pause_reading, self.resume_reading)
            if length == CHUNKED:
                self._decoder = ChunkedDecoder()
            self._left = length
            if data:
                self._read_body(head, data)
            if not self._ended:
                self._acknowledge()
        self._arrived()

    def _read_body(self, head: ResponseHead, data: bytes) -> None:
        incoming = self._incoming
        if head.status == 101:
            self._buffer += data
        elif incoming is None or self._ended:
            # Bytes nobody asked for.
            self.transport.abort()
        elif self._decoder is not None:
            decoder = self._decoder
            try:
                for piece in decoder.feed(data):
                    incoming.feed(piece)
            except BadMessage as bad:
                self._fail(UpstreamError(f"it broke the framing of its answer: {bad}"))
                return
            if decoder.done:
                self._decoder = None
                incoming.end(decoder.trailers)
                self._answer_ended(decoder.rest)
        elif head.length == UNTIL_CLOSE:
            incoming.feed(data)
        else:
            rest = data[self._left :]
            if rest:
                data = data[: self._left]
            self._left -= len(data)
            incoming.feed(data)
            if not self._left:
                incoming.end()
                self._answer_ended(rest)

    def _acknowledge(self) -> None:
        """Acknowledge what came at once. Many servers (Python's http.server, for one) send head and
        body apart and leave Nagle's algorithm on: they would wait 40 ms for our delayed ACK."""
        if TCP_QUICKACK is not None:
            connection = self.transport.get_extra_info("socket")
            try:
                connection.setsockopt(socket.IPPROTO_TCP, TCP_QUICKACK, 1)
            except OSError:
                return  # it is closing

    def _answer_ended(self, rest: bytes) -> None:
        self._ended = True
        if rest:
            # More than it announced: what follows cannot be trusted.
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._gone(self)
        if not self._active or self._ended:
            return
        reason = f" ({exc})" if exc else ""
        if self.head is None:
            if self.used and not self._buffer and not self._interim:
                self._fail(UnansweredError(f"it closed the connection{reason}"))
            else:
                self._fail(UpstreamError(f"it closed the connection before it answered{reason}"))
        elif self.head.length == UNTIL_CLOSE and exc is None and self._incoming is not None:
            self._ended = True
            self._incoming.end()
        else:
            self._fail(
                UpstreamError(f"it closed the connection in the middle of its answer{reason}")
            )

    def tunnel_lost(self) -> None:
        self.lost = True
        self._gone(self)

    def _check(self) -> None:
        if self.lost or self.transport.is_closing():
            raise UpstreamError("it closed the connection while the request was sent")

    def _fail(self, error: UpstreamError) -> None:
        if self.error is None:
            self.error = error
        if self._incoming is not None:
            self._incoming.fail(error)
        self._arrived()
        if not self.lost:
            self.transport.abort()

    def _arrived(self) -> None:
        arrival = self._arrival
        if self.on_arrival is not None:
            self.on_arrival()
        elif arrival is not None and not arrival.done():
            arrival.set_result(None)


class _Tunnel(TunnelEnd):
    """A tunnel that ends its connection's bookkeeping too."""

    def __init__(self, connection: Http1Upstream, received: bytes) -> None:
        self._connection = connection
        super().__init__(connection, received)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connection.tunnel_lost()
