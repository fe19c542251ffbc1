"""The HTTP/1.0 and 1.1 side of the door: one protocol object per connection.

Requests of a connection are answered one after the other (pipelined ones wait unread); while one is
answered, its body and the answer stream at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any, Final, Literal

from multidict import CIMultiDict

from knlocal.clock import Clock
from knlocal.gateway.deadlines import DeadlineBook, Deadlines
from knlocal.gateway.http import ClientGone, Exposure, HeaderPairs, Request, Stream
from knlocal.gateway.http1 import (
    CHUNKED,
    BadMessage,
    ChunkedDecoder,
    RequestHead,
    check_unfinished_head,
    encode_head,
    parse_request_head,
)
from knlocal.gateway.incoming import HIGH_WATER, Incoming
from knlocal.gateway.names import is_cluster_local
from knlocal.gateway.outbox import Writer
from knlocal.gateway.tunnel import TunnelEnd

REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_FRAMING: Final = frozenset({"connection", "transfer-encoding", "keep-alive", "proxy-connection"})
_DRAIN: Final = 256 * 1024
"""Bytes of an unread request body worth reading to keep the connection (as Go's server)."""

_SWITCH_TO_H2C: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
)
_NO_TRAILERS: Final[CIMultiDict[str]] = CIMultiDict()


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a client may take, in seconds."""

    head: float = 30.0
    """From the first byte of a head to its last (then 408)."""
    idle: float = 300.0
    """Between two requests. Longer than clients keep connections (Go: 90), so that they close."""
    body: float = 600.0
    """Between two pieces of a request's body (then 408)."""
    linger: float = 2.0
    """For reading what a refused client still sends, so that it gets to see the answer."""


class HttpDate:
    """The text of the Date header, made once a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._text = ""
        self._until = 0.0

    def text(self) -> str:
        now = self._clock.monotonic()
        if now >= self._until or not self._text:
            self._text = format_datetime(self._clock.now(), usegmt=True)
            self._until = now + 1.0
        return self._text


class ServerContext:
    """What the connections of one listener share."""

    def __init__(
        self,
        serve: Callable[[Request], Awaitable[object]],
        exposure: Exposure,
        scheme: Literal["http", "https"],
        deadlines: DeadlineBook,
        limits: Limits,
        date: HttpDate,
    ) -> None:
        self.serve = serve
        self.exposure = exposure
        self.scheme = scheme
        self.limits = limits
        self.date = date
        self.head_deadlines: Deadlines = deadlines.of(limits.head)
        self.idle_deadlines: Deadlines = deadlines.of(limits.idle)
        self.body_deadlines: Deadlines = deadlines.of(limits.body)
        self.linger_deadlines: Deadlines = deadlines.of(limits.linger)
        self.connections: set[Any] = set()
        self.upgrade_to_h2c: Callable[[RequestHead], asyncio.Protocol | None] | None = None
        """The HTTP/2 connection that goes on with a request, None when it cannot."""


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
        if self._buffer[:2] == b"\r\n":
            # Some clients end a body with an extra line break (RFC 9112 2.2).
            self._buffer = self._buffer.lstrip(b"\r\n")
            if not self._buffer:
                return
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        try:
            if not found:
                check_unfinished_head(head)
                if self._deadlines is not self.context.head_deadlines:
                    self._watch(self.context.head_deadlines, self._head_expired)
                return
            parsed = parse_request_head(head)
        except BadMessage as bad:
            self._refuse(bad)
            return
        if parsed.upgrade and self._switch_to_h2c(parsed, rest):
            return
        self._deadlines.cancel(self._deadline)
        self._request = request = Http1Request(self, parsed)
        self._buffer = rest
        if parsed.length:
            self._buffer = b""
            if parsed.length == CHUNKED:
                self._decoder = ChunkedDecoder()
            else:
                self._left = parsed.length
            if rest:
                self._body(request, rest)
                if self._request is not request:
                    return
            if not request.body_ended:
                self._watch(self.context.body_deadlines, self._body_expired)
        self._task = self.loop.create_task(self._run(request))

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

    def _broken_body(self, request: Http1Request, bad: BadMessage) -> None:
        """The client broke its own framing: nothing after it can be understood."""
        if request.started:
            self.transport.abort()
            return
        request.body_ended = request.finished = True
        self._request = None
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


class Http1Request(Request):
    """A request on an `Http1Connection`."""

    incoming: Incoming | None = None
    _awaits_continue = False
    _no_body = False
    _chunked = False
    _left = -1
    """Bytes of the answer's Content-Length still to be written; -1 without one."""

    def __init__(self, connection: Http1Connection, head: RequestHead) -> None:
        context = connection.context
        self._connection = connection
        (
            self.method,
            self.target,
            self.protocol,
            headers,
            self.authority,
            self.host,
            length,
            self.keep_alive,
            self.upgrade,
            self.expects_continue,
            absolute,
        ) = head
        self.headers = headers.copy()
        self.scheme = context.scheme
        self.exposure = context.exposure
        if absolute and is_cluster_local(self.host):
            # The client takes us for its proxy, to reach what only containers can resolve.
            self.exposure = "internal"
        self.peer = connection.peer
        self.body_ended = not length
        if length:
            self.incoming = Incoming(connection.pause_reading, connection.resume_reading)
            self._awaits_continue = self.expects_continue

    # What came

    @property
    def has_body(self) -> bool:
        return self.incoming is not None

    async def body(self) -> AsyncIterator[bytes]:
        incoming = self.incoming
        if incoming is None:
            return
        if self._awaits_continue:
            await self.inform(100)
        while data := await incoming.read():
            yield data

    def buffered(self) -> bytes | None:
        incoming = self.incoming
        if incoming is None:
            return b""
        if not incoming.ended or incoming.trailers is not None:
            return None
        return incoming.peek()

    @property
    def trailers(self) -> CIMultiDict[str]:
        if self.incoming is None or self.incoming.trailers is None:
            return _NO_TRAILERS
        return self.incoming.trailers

    # What goes back

    async def start(self, status: int, headers: HeaderPairs = (), reason: str = "") -> None:
        self._connection.send(self._head(status, headers, reason))

    async def write(self, data: bytes) -> None:
        connection = self._connection
        if connection.lost:
            raise ClientGone
        if self._no_body or not data:
            return
        if self._left >= 0:
            if len(data) > self._left:
                self.abort()
                raise ValueError("the body is longer than its Content-Length")
            self._left -= len(data)
        self._send_piece(data)
        if connection.full:
            await connection.drained()

    async def finish(self, trailers: HeaderPairs = ()) -> None:
        connection = self._connection
        if self.finished:
            return
        if connection.lost:
            raise ClientGone
        if not self.started:
            raise RuntimeError("finish() before start()")
        if self._left > 0 and not self._no_body:
            self.abort()
            return
        if self._chunked:
            lines = [f"{name}: {value}" for name, value in trailers]
            connection.send(b"0\r\n" + encode_head(lines) if lines else b"0\r\n\r\n")
        self.finished = True
        connection.answered(self)

    async def respond(
        self, status: int, headers: HeaderPairs = (), body: bytes | str = b""
    ) -> None:
        data = body.encode() if isinstance(body, str) else body
        await self.answer(status, [*headers, ("Content-Length", str(len(data)))], data, "")

    async def answer(
        self, status: int, headers: HeaderPairs, body: bytes, reason: str, raw: bytes = b""
    ) -> None:
        connection = self._connection
        if raw and self._may_send_raw():
            self.started = True
            self.answer_status = status
            head = raw
        else:
            head = self._head(status, headers, reason)
        if body and not self._no_body:
            head += body
            self.answer_bytes = len(body)
        connection.send(head)
        self.finished = True
        connection.answered(self)

    async def cut_short(self, text: str) -> None:
        data = text.encode()
        if self._left >= 0:
            data = data[: self._left]
            self._left -= len(data)
        if data and not self._no_body and not self._connection.lost:
            # Not `write`: a client that does not read must not hold up the end.
            self._send_piece(data)
        await self.finish()

    async def inform(self, status: int, headers: HeaderPairs = ()) -> None:
        if self.protocol == "HTTP/1.0" or self.started:
            return
        if status == 100:
            if self.body_ended or not self._awaits_continue:
                return
            self._awaits_continue = False
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, '')}"]
        lines += [f"{name}: {value}" for name, value in headers]
        self._connection.send(encode_head(lines))

    async def tunnel(self, headers: HeaderPairs = ()) -> Stream:
        connection = self._connection
        if connection.lost:
            raise ClientGone
        lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade"]
        lines += [f"{name}: {value}" for name, value in headers if name.lower() != "connection"]
        self.started = self.finished = True
        self.answer_status = 101
        connection.send(encode_head(lines))
        return ClientTunnel(connection)

    def abort(self) -> None:
        self.finished = True
        self.keep_alive = False
        self._connection.abort()

    def _may_send_raw(self) -> bool:
        """A head from elsewhere says what this connection would say itself."""
        return (
            self.keep_alive
            and self.protocol == "HTTP/1.1"
            and self.method != "HEAD"
            and not self.started
            and not self._awaits_continue
            and not self._connection.closing
            and not self._connection.lost
        )

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
        framed = dated = False
        for name, value in headers:
            lower = name.lower()
            if lower == "date":
                dated = True
            elif lower in _FRAMING:
                if lower == "connection" and "close" in value.lower():
                    self.keep_alive = False
                continue
            elif lower == "content-length":
                if framed or status == 204:
                    continue
                framed = True
                self._left = int(value)
            lines.append(f"{name}: {value}")
        if not dated:
            lines.append(f"Date: {connection.context.date.text()}")
        if not framed and not self._no_body:
            if self.protocol == "HTTP/1.1":
                self._chunked = True
                lines.append("Transfer-Encoding: chunked")
            else:
                self.keep_alive = False
        if connection.closing or (self._awaits_continue and not self.body_ended):
            # A client that was never told to continue may send its body all the same, or not.
            self.keep_alive = False
        if not self.keep_alive:
            lines.append("Connection: close")
        elif self.protocol == "HTTP/1.0":
            lines.append("Connection: keep-alive")
        return encode_head(lines)

    def _send_piece(self, data: bytes) -> None:
        self.answer_bytes += len(data)
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._connection.send(data)


class ClientTunnel(TunnelEnd):
    """A tunnel that ends its connection's bookkeeping too."""

    def __init__(self, connection: Http1Connection) -> None:
        self._connection = connection
        super().__init__(connection, connection.take_over())

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connection.tunnel_lost(exc)
