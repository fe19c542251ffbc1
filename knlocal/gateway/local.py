"""A request that never leaves the process: what `HttpClient` hands to a handler of this gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

from multidict import CIMultiDict

from knlocal.gateway.http import ClientGone, Exposure, HeaderPairs, Request


class LocalRequest(Request):
    """A whole request in memory; the answer is collected, up to `limit` bytes of body."""

    scheme = "http"
    protocol = "HTTP/1.1"
    exposure: Exposure = "internal"

    def __init__(
        self,
        method: str,
        target: str,
        authority: str,
        host: str,
        headers: CIMultiDict[str],
        body: bytes,
        limit: int,
        peer: str = "127.0.0.1",
    ) -> None:
        self.method = method
        self.target = target
        self.authority = authority
        self.host = host
        self._headers = headers
        self.peer = peer
        self._body = body
        self._limit = limit
        self.answer_headers: CIMultiDict[str] = CIMultiDict()
        self.pieces: list[bytes] = []
        self.aborted = False
        self.too_large = False

    @property
    def headers(self) -> CIMultiDict[str]:
        return self._headers

    async def body(self) -> AsyncIterator[bytes]:
        if self._body:
            yield self._body

    def buffered(self) -> bytes | None:
        return self._body

    @property
    def trailers(self) -> CIMultiDict[str]:
        return CIMultiDict()

    async def start(self, status: int, headers: HeaderPairs = (), reason: str = "") -> None:
        if self.started:
            raise RuntimeError("the answer has started already")
        self.started = True
        self.answer_status = status
        self.answer_headers = CIMultiDict(headers)

    async def write(self, data: bytes) -> None:
        if self.aborted:
            raise ClientGone
        if self.method == "HEAD":
            return
        self.answer_bytes += len(data)
        if self.answer_bytes > self._limit:
            self.too_large = True
            self.abort()
            raise ClientGone
        self.pieces.append(data)

    async def finish(self, trailers: HeaderPairs = ()) -> None:
        self.finished = True

    def abort(self) -> None:
        self.aborted = True
        self.finished = True
