"""A request that came over HTTP/1.0 or 1.1, and how its answer is framed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict

from knlocal.gateway.http import BodyTooLarge, ClientGone, HeaderPairs, Request, Stream
from knlocal.gateway.http1 import REASONS, RequestHead, encode_head
from knlocal.gateway.incoming import Incoming
from knlocal.gateway.names import is_cluster_local
from knlocal.gateway.tunnel import TunnelEnd

if TYPE_CHECKING:
    from knlocal.gateway.http1_server import Http1Connection

_FRAMING: Final = frozenset({"connection", "transfer-encoding", "keep-alive", "proxy-connection"})
_NO_TRAILERS: Final[CIMultiDict[str]] = CIMultiDict()


class Http1Request(Request):
    """A request on an `Http1Connection`."""

    incoming: Incoming | None = None
    """The body as it comes; None when all of it came with the head."""
    _whole: bytes | None = None
    _headers: CIMultiDict[str] | None = None
    _awaits_continue = False
    _no_body = False
    _chunked = False
    _left = -1
    """Bytes of the answer's Content-Length still to be written; -1 without one."""

    def __init__(self, connection: Http1Connection, head: RequestHead, whole: bytes | None) -> None:
        """`whole`: the body, when all of it is here."""
        context = connection.context
        self._connection = connection
        (
            self.method,
            self.target,
            self.protocol,
            _,
            _,
            self.authority,
            self.host,
            _,
            self.keep_alive,
            self.upgrade,
            self.expects_continue,
            absolute,
            _,
        ) = head
        self._parsed = head
        self.scheme = context.scheme
        self.exposure = context.exposure
        if absolute and is_cluster_local(self.host):
            # The client takes us for its proxy, to reach what only containers can resolve.
            self.exposure = "internal"
        self.peer = connection.peer
        self._whole = whole
        self.body_ended = whole is not None
        if whole is None:
            self.incoming = Incoming(connection.pause_reading, connection.resume_reading)
            self._awaits_continue = self.expects_continue

    def is_whole(self) -> None:
        """All of the body is here, and nobody has begun to read it."""
        if self.incoming is not None and self.incoming.trailers is None:
            self._whole = self.incoming.take()
            self.incoming = None

    # What came

    @property
    def headers(self) -> CIMultiDict[str]:
        headers = self._headers
        if headers is None:
            headers = self._headers = self._parsed.headers.copy()
        return headers

    @property
    def fields(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self._parsed.names, self._parsed.values

    async def read(self, limit: int) -> bytes:
        whole = self._whole
        if whole is None:
            return await super().read(limit)
        if len(whole) > limit:
            raise BodyTooLarge
        return whole

    async def body(self) -> AsyncIterator[bytes]:
        incoming = self.incoming
        if incoming is None:
            if self._whole:
                yield self._whole
            return
        if self._awaits_continue:
            await self.inform(100)
        while data := await incoming.read():
            yield data

    def buffered(self) -> bytes | None:
        incoming = self.incoming
        if incoming is None:
            return self._whole
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
        self._answer(status, headers, body, reason, raw)

    def respond_now(self, status: int, headers: HeaderPairs = (), body: bytes | str = b"") -> None:
        connection = self._connection
        if self.finished or connection.lost:
            return
        if status == 202 and not body and not headers and self._may_send_raw():
            self.started = self.finished = True
            self.answer_status = 202
            connection.send(connection.context.date.accepted())
            connection.answered(self)
            return
        data = body.encode() if isinstance(body, str) else body
        self._answer(status, [*headers, ("Content-Length", str(len(data)))], data, "")

    def _answer(
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
