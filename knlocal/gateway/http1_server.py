"""The HTTP/1.0 and 1.1 side of the door: one protocol object per connection.

Requests of a connection are answered one after the other (pipelined ones wait unread); while one is
answered, its body and the answer stream at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal, cast

from multidict import CIMultiDict

from knlocal.gateway.deadlines import DeadlineBook, Deadlines
from knlocal.gateway.http import ClientGone, Exposure, HeaderPairs, Request, Stream
from knlocal.gateway.http1 import (
    CHUNKED,
    CONNECTION,
    EXPECT,
    UPGRADE,
    BadMessage,
    ChunkedDecoder,
    RequestHead,
    check_unfinished_head,
    encode_head,
    parse_request_head,
    tokens,
)
from knlocal.gateway.incoming import HIGH_WATER, Incoming
from knlocal.gateway.names import is_cluster_local
from knlocal.gateway.tunnel import TunnelEnd

REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_FRAMING: Final = frozenset({"connection", "transfer-encoding", "keep-alive", "proxy-connection"})
_DRAIN: Final = 256 * 1024
"""Bytes of an unread request body that are worth reading to keep the connection (as Go's server)."""

_NO_TRAILERS: Final[CIMultiDict[str]] = CIMultiDict()


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a client may take, in seconds."""

    head: float = 30.0
    """From the first byte of a head to its last (then 408)."""
    idle: float = 300.0
    """Between two requests. Longer than clients keep connections (Go: 90), so that they close."""
    linger: float = 2.0
    """For reading what a refused client still sends, so that it gets to see the answer."""


class ServerContext:
    """What the connections of one listener share."""

    def __init__(
        self,
        serve: Callable[[Request], Awaitable[None]],
        exposure: Exposure,
        scheme: Literal["http", "https"],
        deadlines: DeadlineBook,
        limits: Limits,
    ) -> None:
        self.serve = serve
        self.exposure = exposure
        self.scheme = scheme
        self.limits = limits
        self.head_deadlines: Deadlines = deadlines.of(limits.head)
        self.idle_deadlines: Deadlines = deadlines.of(limits.idle)
        self.linger_deadlines: Deadlines = deadlines.of(limits.linger)
        self.connections: set[Any] = set()


class Http1Connection(asyncio.Protocol):
    """One client connection."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._request: Http1Request | None = None
        self._decoder: ChunkedDecoder | None = None
        self._left = 0
        self._task: asyncio.Task[None] | None = None
        self._deadline = 0
        self._deadlines = context.idle_deadlines
        self._writable: asyncio.Future[None] | None = None
        self._write_paused = False
        self._lingering = False
        self._closing = False
        self.lost = False
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.peer = ""

    # Life of the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self._context.connections.add(self)
        self._deadline = self._deadlines.add(self._idle_expired)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._context.connections.discard(self)
        self._deadlines.cancel(self._deadline)
        request = self._request
        if request is not None:
            request.incoming.fail(ClientGone())
            if self._task is not None:
                self._task.cancel()
        self.resume_writing()

    def eof_received(self) -> bool:
        # Like Go's server and Envoy: a client that ends its direction has gone.
        return False

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def shut(self) -> None:
        """Close now when idle, else after the current answer."""
        self._closing = True
        if self._request is None and not self._lingering:
            self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    @property
    def busy(self) -> bool:
        return self._request is not None

    # Bytes in

    def data_received(self, data: bytes) -> None:
        request = self._request
        if request is None:
            if self._lingering:
                return
            self._buffer = self._buffer + data if self._buffer else data
            self._next_request()
        elif request.body_ended:
            self._buffer += data
            if len(self._buffer) > HIGH_WATER:
                self._pause_reading()
        else:
            self._body(request, data)

    def _next_request(self) -> None:
        if self._buffer[:2] == b"\r\n":
            # Some clients end a body with an extra line break (RFC 9112 2.2).
            self._buffer = self._buffer.lstrip(b"\r\n")
            if not self._buffer:
                return
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        try:
            if not found:
                check_unfinished_head(head)
                if self._deadlines is not self._context.head_deadlines:
                    self._watch(self._context.head_deadlines, self._head_expired)
                return
            parsed = parse_request_head(head)
        except BadMessage as bad:
            self._refuse(bad)
            return
        self._deadlines.cancel(self._deadline)
        self._buffer = b""
        request = Http1Request(self, parsed)
        self._request = request
        length = parsed.length
        if length:
            if length == CHUNKED:
                self._decoder = ChunkedDecoder()
            else:
                self._left = length
            if rest:
                self._body(request, rest)
                if self._request is not request:
                    return
        else:
            self._buffer = rest
        self._task = self._loop.create_task(self._run(request))

    def _body(self, request: Http1Request, data: bytes) -> None:
        decoder = self._decoder
        if decoder is None:
            rest = b""
            if len(data) > self._left:
                rest = data[self._left :]
                data = data[: self._left]
            self._left -= len(data)
            if not request.finished:
                request.incoming.feed(data)
            if not self._left:
                self._body_ended(request, rest, None)
            return
        try:
            for piece in decoder.feed(data):
                if not request.finished:
                    request.incoming.feed(piece)
        except BadMessage as bad:
            self._broken_body(request, bad)
            return
        if decoder.done:
            self._decoder = None
            self._body_ended(request, decoder.rest, decoder.trailers)

    def _body_ended(
        self, request: Http1Request, rest: bytes, trailers: CIMultiDict[str] | None
    ) -> None:
        request.body_ended = True
        request.incoming.end(trailers)
        self._buffer = rest
        if request.finished:
            self._answered(request)

    def _broken_body(self, request: Http1Request, bad: BadMessage) -> None:
        request.body_ended = True
        request.keep_alive = False
        request.incoming.fail(ClientGone())
        started = request.started
        request.finished = True
        self._request = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if started:
            self.transport.abort()
        else:
            self._refuse(bad)

    # Answers

    async def _run(self, request: Http1Request) -> None:
        try:
            await self._context.serve(request)
        except (ClientGone, asyncio.CancelledError):
            if not self.lost and self._request is request:
                request.abort()
        else:
            if self._request is request and not request.finished:
                request.abort()

    def _answered(self, request: Http1Request) -> None:
        """The answer is out: take the next request, or close."""
        if self.lost:
            return
        if not request.body_ended:
            if self._worth_draining(request):
                request.incoming.take()
                self._watch(self._context.head_deadlines, self.transport.close)
                return
            self._request = None
            self._linger()
            return
        self._request = None
        self._task = None
        if self._closing or not request.keep_alive:
            self._close()
            return
        self._deadlines = self._context.idle_deadlines
        self._deadline = self._deadlines.add(self._idle_expired)
        self._resume_reading()
        if self._buffer:
            self._next_request()

    def _worth_draining(self, request: Http1Request) -> bool:
        return (
            request.keep_alive
            and not self._closing
            and not request.awaits_continue
            and self._decoder is None
            and self._left <= _DRAIN
        )

    def _refuse(self, bad: BadMessage) -> None:
        reason = REASONS.get(bad.status, "")
        body = f"{bad}\n".encode()
        head = [
            f"HTTP/1.1 {bad.status} {reason}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        self.transport.write(encode_head(head) + body)
        self._linger()

    def _linger(self) -> None:
        """End our direction and read on for a moment: closing with bytes unread resets the
        connection, and the client would lose the answer."""
        self._lingering = True
        self._buffer = b""
        self._decoder = None
        self._watch(self._context.linger_deadlines, self.transport.close)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._resume_reading()
        else:
            self.transport.close()

    def _close(self) -> None:
        if self._buffer:
            self._linger()
        else:
            self.transport.close()

    def _watch(self, deadlines: Deadlines, expired: Callable[[], object]) -> None:
        self._deadlines.cancel(self._deadline)
        self._deadlines = deadlines
        self._deadline = deadlines.add(expired)

    def _idle_expired(self) -> None:
        self.transport.close()

    def _head_expired(self) -> None:
        self._refuse(
            BadMessage(408, f"no complete request within {self._context.limits.head:g} s")
        )

    def _pause_reading(self) -> None:
        if not self.transport.is_closing() and self.transport.is_reading():
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self.transport.is_closing() and not self.transport.is_reading():
            self.transport.resume_reading()

    async def drained(self) -> None:
        while self._write_paused and not self.lost:
            self._writable = self._loop.create_future()
            await self._writable
        if self.lost:
            raise ClientGone


class Http1Request(Request):
    """A request on an `Http1Connection`."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_left",
        "_no_body",
        "answer_bytes",
        "answer_status",
        "authority",
        "awaits_continue",
        "body_ended",
        "expects_continue",
        "exposure",
        "finished",
        "headers",
        "host",
        "incoming",
        "keep_alive",
        "method",
        "peer",
        "protocol",
        "scheme",
        "started",
        "target",
        "upgrade",
    )

    def __init__(self, connection: Http1Connection, head: RequestHead) -> None:
        context = connection._context
        headers = head.headers
        self._connection = connection
        self.method = head.method
        self.target = head.target
        self.host = head.host
        self.authority = head.authority
        self.headers = headers
        self.scheme = context.scheme
        self.protocol = cast(Literal["HTTP/1.0", "HTTP/1.1"], head.version)
        self.exposure = context.exposure
        if head.absolute and is_cluster_local(head.host):
            # The client takes us for its proxy, to reach what only containers can resolve.
            self.exposure = "internal"
        self.peer = connection.peer
        self.started = False
        self.finished = False
        self.answer_status = 0
        self.answer_bytes = 0
        self.body_ended = not head.length
        self.incoming = Incoming(connection._pause_reading, connection._resume_reading)
        if self.body_ended:
            self.incoming.ended = True
        self._chunked = False
        self._no_body = False
        self._left = -1
        self.keep_alive = head.version == "HTTP/1.1"
        self.upgrade = ""
        self.expects_continue = self.awaits_continue = False
        if CONNECTION in headers:
            options = tokens(",".join(headers.getall(CONNECTION)))
            if "close" in options:
                self.keep_alive = False
            elif "keep-alive" in options:
                self.keep_alive = True
            if "upgrade" in options and self.keep_alive:
                self.upgrade = headers.get(UPGRADE, "")
        if EXPECT in headers and head.version == "HTTP/1.1":
            self.expects_continue = headers[EXPECT].lower() == "100-continue"
            self.awaits_continue = self.expects_continue and not self.body_ended

    # What came

    @property
    def has_body(self) -> bool:
        return not (self.body_ended and self.incoming.ended and not self.incoming._pieces)

    async def body(self) -> AsyncIterator[bytes]:
        if self.awaits_continue:
            self.awaits_continue = False
            if not self.started and not self.body_ended:
                self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while data := await self.incoming.read():
            yield data

    def buffered(self) -> bytes | None:
        incoming = self.incoming
        if not incoming.ended or incoming.trailers is not None:
            return None
        return incoming.peek()

    @property
    def trailers(self) -> CIMultiDict[str]:
        trailers = self.incoming.trailers
        return _NO_TRAILERS if trailers is None else trailers

    # What goes back

    async def start(self, status: int, headers: HeaderPairs = (), reason: str = "") -> None:
        self._connection.transport.write(self._head(status, headers, reason))

    async def write(self, data: bytes) -> None:
        connection = self._connection
        if connection.lost:
            raise ClientGone
        if self._no_body or not data:
            return
        self.answer_bytes += len(data)
        if self._left >= 0:
            if len(data) > self._left:
                self.abort()
                raise ValueError("the body is longer than its Content-Length")
            self._left -= len(data)
            connection.transport.write(data)
        elif self._chunked:
            connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            connection.transport.write(data)
        if connection._write_paused:
            await connection.drained()

    async def finish(self, trailers: HeaderPairs = ()) -> None:
        connection = self._connection
        if self.finished:
            return
        if connection.lost:
            raise ClientGone
        if not self.started:
            raise RuntimeError("finish() before start()")
        if self._chunked and not self._no_body:
            lines = [f"{name}: {value}" for name, value in trailers]
            if lines:
                connection.transport.write(b"0\r\n" + encode_head(lines))
            else:
                connection.transport.write(b"0\r\n\r\n")
        elif self._left > 0 and not self._no_body:
            self.abort()
            return
        self.finished = True
        connection._answered(self)

    async def respond(self, status: int, headers: HeaderPairs = (), body: bytes | str = b"") -> None:
        data = body.encode() if isinstance(body, str) else body
        await self.answer(status, [*headers, ("Content-Length", str(len(data)))], data, "")

    async def answer(self, status: int, headers: HeaderPairs, body: bytes, reason: str) -> None:
        head = self._head(status, headers, reason)
        if body and not self._no_body:
            head += body
            self.answer_bytes = len(body)
        connection = self._connection
        connection.transport.write(head)
        self.finished = True
        connection._answered(self)
        if connection._write_paused:
            await connection.drained()

    async def cut_short(self, text: str) -> None:
        connection = self._connection
        data = text.encode()
        if 0 <= self._left < len(data):
            data = data[: self._left]
        if connection.lost or self._no_body:
            data = b""
        if data:
            # Not `write`: a client that does not read must not hold up the end.
            if self._left >= 0:
                self._left -= len(data)
            self.answer_bytes += len(data)
            framed = b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
            connection.transport.write(framed)
        await self.finish()

    async def inform(self, status: int, headers: HeaderPairs = ()) -> None:
        if self.protocol == "HTTP/1.0" or self.started:
            return
        if status == 100:
            if not self.awaits_continue:
                return
            self.awaits_continue = False
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, '')}"]
        lines += [f"{name}: {value}" for name, value in headers]
        self._connection.transport.write(encode_head(lines))

    async def tunnel(self, headers: HeaderPairs = ()) -> Stream:
        connection = self._connection
        if connection.lost:
            raise ClientGone
        lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade"]
        lines += [f"{name}: {value}" for name, value in headers if name.lower() != "connection"]
        self.started = True
        self.finished = True
        self.answer_status = 101
        connection.transport.write(encode_head(lines))
        received, connection._buffer = connection._buffer, b""
        connection._resume_reading()
        end = ClientTunnel(connection, received)
        if connection._write_paused:
            end.pause_writing()
        return end

    def abort(self) -> None:
        self.finished = True
        self.keep_alive = False
        self._connection.transport.abort()

    def _head(self, status: int, headers: HeaderPairs, reason: str) -> bytes:
        connection = self._connection
        if connection.lost:
            raise ClientGone
        if self.started:
            raise RuntimeError("the answer has started already")
        self.started = True
        self.answer_status = status
        self._no_body = self.method == "HEAD" or status == 204 or status == 304
        lines = [f"HTTP/1.1 {status} {reason or REASONS.get(status, '')}"]
        framed = False
        for name, value in headers:
            lower = name.lower()
            if lower in _FRAMING:
                if lower == "connection" and "close" in value.lower():
                    self.keep_alive = False
                continue
            if lower == "content-length":
                if framed or status == 204:
                    continue
                framed = True
                self._left = int(value)
            lines.append(f"{name}: {value}")
        if not framed and not self._no_body:
            if self.protocol == "HTTP/1.1":
                self._chunked = True
                lines.append("Transfer-Encoding: chunked")
            else:
                self.keep_alive = False
        if self.awaits_continue or connection._closing:
            # A client that was never told to continue may send its body all the same, or not.
            self.keep_alive = False
        if not self.keep_alive:
            lines.append("Connection: close")
        elif self.protocol == "HTTP/1.0":
            lines.append("Connection: keep-alive")
        return encode_head(lines)


class ClientTunnel(TunnelEnd):
    """A tunnel that ends the connection's bookkeeping too."""

    def __init__(self, connection: Http1Connection, received: bytes) -> None:
        self._connection = connection
        super().__init__(connection.transport, received)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # The handler learns of it from its stream, not by cancellation.
        self._connection._task = None
        self._connection.connection_lost(exc)
