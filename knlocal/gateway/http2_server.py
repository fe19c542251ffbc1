"""The HTTP/2 side of the door (prior knowledge, ALPN and `Upgrade: h2c`): each stream a request."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator
from typing import Any, Final

import h2.errors
import h2.events
import h2.exceptions
from multidict import CIMultiDict

from knlocal.gateway.context import ServerContext
from knlocal.gateway.http import ClientGone, HeaderPairs, Request
from knlocal.gateway.http1 import RequestHead, split_host
from knlocal.gateway.http2 import BadHeaders, Http2Peer, Stream2, from_wire, to_wire, trailers_of

_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET: Final = re.compile(r"(?:/[^\x00-\x20\x7f]*|\*)")
_NO_TRAILERS: Final[CIMultiDict[str]] = CIMultiDict()
_MAX_WASTED: Final = 1000
"""Streams a client may reset before they are answered, more than are answered: rapid reset."""


class Http2Connection(Http2Peer["Http2Request"]):
    """One client connection."""

    def __init__(
        self, context: ServerContext, upgraded: tuple[RequestHead, bytes] | None = None
    ) -> None:
        """`upgraded`: the HTTP/1.1 request that asked for h2c, and its HTTP2-Settings."""
        super().__init__(client_side=False)
        self.context = context
        self._upgraded = upgraded
        self.peer = ""
        self._closing = False
        self._wasted = 0
        self._deadline = 0
        self._handlers[h2.events.RequestReceived] = self._request
        self._handlers[h2.events.StreamEnded] = self._ended
        self._handlers[h2.events.TrailersReceived] = self._trailers
        self._handlers[h2.events.StreamReset] = self._reset

    # Life of the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self.context.connections.add(self)
        self._deadline = self.context.idle_deadlines.add(self.hang_up)
        if self._upgraded is not None:
            # That request is stream 1, and all of it is here (RFC 7540 3.2).
            request = Http2Request(self, 1, self._upgraded[0])
            request.stream.incoming.ended = True
            self._start(request)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.context.connections.discard(self)
        self.context.idle_deadlines.cancel(self._deadline)
        for request in list(self.streams.values()):
            request.lose()
        self.streams.clear()

    @property
    def busy(self) -> bool:
        return bool(self.streams)

    def shut(self) -> None:
        """GOAWAY, and close once the streams in progress have ended."""
        self._closing = True
        self.say_goaway()
        if not self.streams:
            self.hang_up()

    def abort(self) -> None:
        self.transport.abort()

    def broken(self, error: str) -> None:
        pass

    def terminated(self, event: h2.events.ConnectionTerminated) -> None:
        self._closing = True
        if not self.streams:
            self.hang_up()

    def stream_of(self, owner: Http2Request) -> Stream2:
        return owner.stream

    def begin(self) -> None:
        if self._upgraded is None:
            self.state.initiate_connection()
        else:
            self.state.initiate_upgrade_connection(self._upgraded[1])

    # Events

    def _request(self, event: h2.events.RequestReceived) -> None:
        stream_id = event.stream_id or 0
        if self._closing:
            self._refuse(stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        try:
            head = _head(event.headers, ended=event.stream_ended is not None)
        except BadHeaders:
            self._refuse(stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
            return
        self._start(Http2Request(self, stream_id, head))

    def _start(self, request: Http2Request) -> None:
        if not self.streams:
            self.context.idle_deadlines.cancel(self._deadline)
        self.streams[request.stream.id] = request
        request.task = self.loop.create_task(self._run(request))

    async def _run(self, request: Http2Request) -> None:
        try:
            await self.context.serve(request)
        except (ClientGone, asyncio.CancelledError):
            pass
        finally:
            if not request.finished:
                request.abort()

    def _refuse(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        try:
            self.state.reset_stream(stream_id, code)
        except h2.exceptions.ProtocolError:
            pass

    def _ended(self, event: h2.events.StreamEnded) -> None:
        request = self.streams.get(event.stream_id or 0)
        if request is not None:
            request.stream.incoming.end(request.stream.incoming.trailers)

    def _trailers(self, event: h2.events.TrailersReceived) -> None:
        request = self.streams.get(event.stream_id or 0)
        if request is not None:
            request.stream.incoming.trailers = trailers_of(event.headers)

    def _reset(self, event: h2.events.StreamReset) -> None:
        request = self.streams.pop(event.stream_id or 0, None)
        if request is None:
            return
        self._wasted += 1
        request.lose()
        self._after_stream()
        if self._wasted > _MAX_WASTED:
            self.state.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            self.hang_up()

    def answered(self, request: Http2Request) -> None:
        self.streams.pop(request.stream.id, None)
        self._wasted = max(0, self._wasted - 1)
        self._after_stream()

    def _after_stream(self) -> None:
        if self.streams or self.lost:
            return
        if self._closing:
            self.hang_up()
        else:
            self._deadline = self.context.idle_deadlines.add(self.hang_up)


class Http2Request(Request):
    """A request on a stream."""

    protocol = "HTTP/2"

    def __init__(self, connection: Http2Connection, stream_id: int, head: RequestHead) -> None:
        self.stream = Stream2(connection, stream_id)
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self.method = head.method
        self.target = head.target
        self._headers = head.headers
        self.authority = head.authority
        self.host = head.host
        self.expects_continue = head.expects_continue
        self.scheme = connection.context.scheme
        self.exposure = connection.context.exposure
        self.peer = connection.peer
        self._no_body = False

    # What came

    @property
    def headers(self) -> CIMultiDict[str]:
        return self._headers

    async def body(self) -> AsyncIterator[bytes]:
        if self.expects_continue and not self.stream.incoming.ended:
            await self.inform(100)
        while data := await self.stream.incoming.read():
            yield data

    def buffered(self) -> bytes | None:
        incoming = self.stream.incoming
        if not incoming.ended or incoming.trailers is not None:
            return None
        return incoming.peek()

    @property
    def trailers(self) -> CIMultiDict[str]:
        trailers = self.stream.incoming.trailers
        return _NO_TRAILERS if trailers is None else trailers

    # What goes back

    async def start(self, status: int, headers: HeaderPairs = (), reason: str = "") -> None:
        self._start(status, headers, end=False)

    async def write(self, data: bytes) -> None:
        if self.stream.gone:
            raise ClientGone
        if self._no_body or not data:
            return
        self.answer_bytes += len(data)
        self.stream.push(data)
        await self.stream.room()

    async def finish(self, trailers: HeaderPairs = ()) -> None:
        if self.finished:
            return
        if not self.started:
            raise RuntimeError("finish() before start()")
        if self.stream.gone:
            raise ClientGone
        self.stream.end(to_wire(trailers))
        await self._done()

    async def answer(
        self, status: int, headers: HeaderPairs, body: bytes, reason: str, raw: bytes = b""
    ) -> None:
        no_body = not body or self.method == "HEAD" or status in (204, 304)
        self._start(status, headers, end=no_body)
        if not no_body:
            self.answer_bytes = len(body)
            self.stream.push(body)
            self.stream.end([])
        await self._done()

    async def respond(
        self, status: int, headers: HeaderPairs = (), body: bytes | str = b""
    ) -> None:
        data = body.encode() if isinstance(body, str) else body
        await self.answer(status, [*headers, ("content-length", str(len(data)))], data, "")

    async def cut_short(self, text: str) -> None:
        # A client that does not read must not hold up the end.
        if self.finished or self.stream.gone:
            return
        if self.stream.stuck:
            self.abort()
            return
        self.stream.push(text.encode())
        self.stream.end([])
        self.finished = True
        self._connection.answered(self)

    async def inform(self, status: int, headers: HeaderPairs = ()) -> None:
        if self.started or self.stream.gone:
            return
        if status == 100:
            if not self.expects_continue:
                return
            self.expects_continue = False
        self._send_headers([(b":status", b"%d" % status), *to_wire(headers)], end=False)

    def abort(self) -> None:
        self.finished = True
        self.stream.reset(h2.errors.ErrorCodes.INTERNAL_ERROR)
        self._connection.answered(self)

    def lose(self) -> None:
        """The client reset the stream or left."""
        self.finished = True
        self.stream.lose()
        self.stream.incoming.fail(ClientGone())
        if self.task is not None:
            self.task.cancel()

    def _start(self, status: int, headers: HeaderPairs, end: bool) -> None:
        if self.started:
            raise RuntimeError("the answer has started already")
        raw = to_wire(headers)
        if status == 204:
            raw = [pair for pair in raw if pair[0] != b"content-length"]
        if not any(name == b"date" for name, _ in raw):
            raw.append((b"date", self._connection.context.date.text().encode()))
        self.started = True
        self.answer_status = status
        self._no_body = self.method == "HEAD" or status in (204, 304)
        self._send_headers([(b":status", b"%d" % status), *raw], end)
        self.stream.closed_out = end

    def _send_headers(self, raw: list[tuple[bytes, bytes]], end: bool) -> None:
        if self.stream.gone:
            raise ClientGone
        try:
            self._connection.state.send_headers(self.stream.id, raw, end_stream=end)
        except h2.exceptions.ProtocolError:
            raise ClientGone from None
        self._connection.touch()

    async def _done(self) -> None:
        """Let go of the stream once all of the answer is out."""
        stream = self.stream
        if stream.stuck:
            await stream.room(0)
        if stream.gone:
            raise ClientGone
        self.finished = True
        if not stream.incoming.ended:
            # The rest of the request is of no interest (RFC 9113 8.1).
            stream.reset(h2.errors.ErrorCodes.NO_ERROR)
        self._connection.answered(self)


def _head(raw: Any, ended: bool) -> RequestHead:
    """The request line and headers of a stream; BadHeaders when HTTP/1 could not carry them.

    `ended`: no body follows, so none may be announced (the library checks the lengths of others).
    """
    pseudo, pairs = from_wire(raw)
    method = pseudo.get(b":method", "")
    target = pseudo.get(b":path", "")
    headers = CIMultiDict(pairs)
    authority = pseudo.get(b":authority", "") or headers.get("host") or ""
    host = split_host(authority)
    if not _METHOD.fullmatch(method) or not _TARGET.fullmatch(target) or host is None:
        raise BadHeaders
    if ended and headers.get("content-length", "0").strip("0"):
        raise BadHeaders
    headers["host"] = authority
    return RequestHead(
        method,
        target,
        "HTTP/2",
        tuple(headers.keys()),
        tuple(headers.values()),
        authority,
        host,
        length=0,
        keep_alive=True,
        upgrade="",
        expects_continue=(headers.get("expect") or "").lower() == "100-continue",
        absolute=False,
        made=[headers],
    )


def upgrade_to_h2c(context: ServerContext, head: RequestHead) -> Http2Connection | None:
    """The connection that goes on with an HTTP/1.1 request that asks for h2c and can have it."""
    if head.upgrade.lower() != "h2c" or head.length:
        return None
    settings = head.headers.getall("HTTP2-Settings", ())
    if len(settings) != 1:
        return None
    padded = settings[0] + "=" * (-len(settings[0]) % 4)
    try:
        decoded = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(decoded) % 6:
        return None
    return Http2Connection(context, (head, padded.encode()))
