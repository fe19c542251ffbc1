"""HTTP/2 with prior knowledge to an upstream: many exchanges on one connection."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

import h2.errors
import h2.events
import h2.exceptions
from multidict import CIMultiDict

from knlocal.gateway.http import HeaderPairs, Stream
from knlocal.gateway.http1 import CHUNKED, HOP_BY_HOP, Pairs, ResponseHead
from knlocal.gateway.http2 import BadHeaders, Http2Peer, Stream2, from_wire, to_wire, trailers_of
from knlocal.gateway.upstream import Exchange, NotSent, UnansweredError, UpstreamError

_ASSUMED_STREAMS: Final = 100
"""Streams an upstream takes at once, until it says so (RFC 9113 recommends no fewer)."""


class Http2Upstream(Http2Peer["Http2Exchange"]):
    """One connection."""

    def __init__(self) -> None:
        super().__init__(client_side=True)
        self.idle_since = 0.0
        self.used = False
        self._draining = False
        self._told = False
        self._handlers[h2.events.ResponseReceived] = self._response
        self._handlers[h2.events.InformationalResponseReceived] = self._interim
        self._handlers[h2.events.TrailersReceived] = self._trailers
        self._handlers[h2.events.StreamEnded] = self._ended
        self._handlers[h2.events.StreamReset] = self._reset

    @property
    def open(self) -> bool:
        """New exchanges may start here."""
        if self.lost or self._draining or self.transport.is_closing():
            return False
        limit = self.state.remote_settings.max_concurrent_streams if self._told else 0
        return len(self.streams) < min(limit or _ASSUMED_STREAMS, 1000)

    def exchange(self) -> Http2Exchange:
        return Http2Exchange(self)

    def stream_of(self, owner: Http2Exchange) -> Stream2:
        return owner.stream

    def data_received(self, data: bytes) -> None:
        if not self._told and data.startswith(b"HTTP/1."):
            self._fail_all(
                UpstreamError("it answers in HTTP/1.1, but its port is named h2c (HTTP/2)")
            )
            self.hang_up()
            return
        super().data_received(data)

    # Events

    def _settings(self, event: h2.events.RemoteSettingsChanged) -> None:
        self._told = True
        super()._settings(event)

    def _response(self, event: h2.events.ResponseReceived) -> None:
        exchange = self.streams.get(event.stream_id or 0)
        if exchange is not None:
            exchange.answered(event.headers, final=True)

    def _interim(self, event: h2.events.InformationalResponseReceived) -> None:
        exchange = self.streams.get(event.stream_id or 0)
        if exchange is not None:
            exchange.answered(event.headers, final=False)

    def _trailers(self, event: h2.events.TrailersReceived) -> None:
        exchange = self.streams.get(event.stream_id or 0)
        if exchange is not None:
            exchange.stream.incoming.trailers = trailers_of(event.headers)

    def _ended(self, event: h2.events.StreamEnded) -> None:
        exchange = self.streams.get(event.stream_id or 0)
        if exchange is not None:
            incoming = exchange.stream.incoming
            incoming.end(incoming.trailers)

    def _reset(self, event: h2.events.StreamReset) -> None:
        exchange = self.streams.pop(event.stream_id or 0, None)
        if exchange is None:
            return
        if event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM:
            exchange.fail(UnansweredError("it refused the stream", untouched=True))
        else:
            exchange.fail(UpstreamError(f"it reset the stream ({_code(event.error_code)})"))

    def terminated(self, event: h2.events.ConnectionTerminated) -> None:
        self._draining = True
        last = event.last_stream_id or 0
        for stream_id, exchange in list(self.streams.items()):
            if stream_id > last:
                del self.streams[stream_id]
                exchange.fail(UnansweredError("it is shutting down", untouched=True))
        self._close_when_drained()

    def broken(self, error: str) -> None:
        self._fail_all(UpstreamError(f"it does not speak HTTP/2 as it should: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        reason = f" ({exc})" if exc else ""
        for exchange in list(self.streams.values()):
            if self.used and not exchange.started:
                exchange.fail(UnansweredError(f"it closed the connection{reason}"))
            else:
                exchange.fail(UpstreamError(f"it closed the connection{reason}"))
        self.streams.clear()

    def done(self, exchange: Http2Exchange) -> None:
        self.used = True
        self.streams.pop(exchange.stream.id, None)
        self._close_when_drained()

    def _close_when_drained(self) -> None:
        if self._draining and not self.streams and not self.lost:
            self.hang_up()

    def _fail_all(self, error: UpstreamError) -> None:
        exchanges = list(self.streams.values())
        self.streams.clear()
        for exchange in exchanges:
            exchange.fail(error)


class Http2Exchange(Exchange):
    """One stream."""

    def __init__(self, connection: Http2Upstream) -> None:
        self._connection = connection
        self._arrival: asyncio.Future[None] | None = None
        self._interim: deque[ResponseHead] = deque()
        self._head: ResponseHead | None = None
        self._error: UpstreamError | None = None
        self._method = "GET"
        self._sent = False
        self.started = False
        """Something of the answer came."""
        self.stream: Stream2 = Stream2(connection, 0)

    def send_request(
        self,
        method: str,
        target: str,
        authority: str,
        headers: Pairs,
        body: bytes | None,
        length: int | None,
    ) -> None:
        connection = self._connection
        self._method = method
        raw = [
            (b":method", method.encode()),
            (b":scheme", b"http"),
            (b":authority", authority.encode()),
            (b":path", target.encode("utf-8", "surrogateescape")),
            *to_wire(headers),
        ]
        if length is not None:
            raw.append((b"content-length", b"%d" % length))
        try:
            stream_id = connection.state.get_next_available_stream_id()
            connection.state.send_headers(stream_id, raw, end_stream=body == b"")
        except h2.exceptions.ProtocolError as error:
            # Out of ids, or closed a moment ago; the connection is of no more use.
            connection._draining = True
            raise NotSent(f"the connection takes no more requests: {error}") from error
        self.stream.id = stream_id
        connection.streams[stream_id] = self
        connection.touch()
        if body is not None:
            self._sent = True
            if body:
                self.stream.push(body)
                self.stream.end([])
            else:
                self.stream.closed_out = True

    async def write(self, data: bytes) -> None:
        self._check()
        if data:
            self.stream.push(data)
            await self.stream.room()

    async def finish(self, trailers: HeaderPairs = ()) -> None:
        self._check()
        self._sent = True
        self.stream.end(to_wire(trailers))

    async def response(self) -> ResponseHead:
        while True:
            if self._interim:
                return self._interim.popleft()
            if self._head is not None:
                return self._head
            if self._error is not None:
                raise self._error
            self._arrival = self._connection.loop.create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None

    async def read(self) -> bytes:
        return await self.stream.incoming.read()

    def whole(self) -> bytes | None:
        incoming = self.stream.incoming
        if not incoming.ended or incoming.trailers is not None:
            return None
        return incoming.peek()

    @property
    def trailers(self) -> CIMultiDict[str] | None:
        return self.stream.incoming.trailers

    def tunnel(self) -> Stream:
        raise UpstreamError("it switched protocols within HTTP/2")

    def close(self) -> None:
        stream = self.stream
        if not stream.id or stream.gone:
            return
        if not (stream.incoming.ended and stream.closed_out):
            stream.reset(h2.errors.ErrorCodes.CANCEL)
        stream.lose()
        self._connection.done(self)

    # From the connection

    def answered(self, raw: Any, final: bool) -> None:
        self.started = True
        try:
            pseudo, pairs = from_wire(raw)
            status = int(pseudo.get(b":status", ""))
        except (BadHeaders, ValueError):
            self.fail(UpstreamError("it answered with malformed headers"))
            self.stream.reset(h2.errors.ErrorCodes.PROTOCOL_ERROR)
            return
        length = CHUNKED
        if self._method == "HEAD" or status in (204, 304):
            length = 0
        kept = []
        for pair in pairs:
            if pair[0] in HOP_BY_HOP:
                continue
            if pair[0] == "content-length" and pair[1].isdecimal() and length == CHUNKED:
                length = int(pair[1])
            kept.append(pair)
        head = ResponseHead(status, "", kept, length, True)
        if final:
            self._head = head
        else:
            self._interim.append(head)
        self._arrived()

    def fail(self, error: UpstreamError) -> None:
        self.stream.lose()
        if self._error is None:
            self._error = error
        self.stream.incoming.fail(error)
        self._arrived()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self.stream.gone:
            raise UpstreamError("it closed the stream while the request was sent")

    def _arrived(self) -> None:
        arrival = self._arrival
        if arrival is not None and not arrival.done():
            arrival.set_result(None)


def _code(code: Any) -> str:
    try:
        return h2.errors.ErrorCodes(code).name
    except ValueError:
        return str(code)
