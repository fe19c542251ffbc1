"""What a request looks like behind the front door, whichever protocol brought it.

Handlers are written against `Request`; HTTP/1.1 and HTTP/2 each implement it. Bodies stream in
both directions; nothing is buffered unless `read` is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Literal, Protocol

from multidict import CIMultiDict

Exposure = Literal["external", "internal"]
"""Where a connection came in: the loopback door people use, or the one inside containers."""

HeaderPairs = Iterable[tuple[str, str]]


class ClientGone(Exception):
    """The client closed its connection: stop working for it."""


class BodyTooLarge(Exception):
    """A body is longer than the reader allows."""


class Stream(Protocol):
    """One end of a tunnel: bytes both ways, each direction closed on its own."""

    async def read(self) -> bytes:
        """The next bytes; b"" once the other side has ended its direction."""

    async def write(self, data: bytes) -> None:
        """Send; waits while the other side cannot take more."""

    def write_eof(self) -> None:
        """End this direction."""

    def close(self) -> None:
        """End both directions at once."""


class Request(ABC):
    """One request. Answer it exactly once: `respond`, or `start` then `write`… then `finish`."""

    method: str
    target: str
    """Path and query exactly as received ("/a%20b?x=1")."""
    host: str
    """Host or :authority, lower case, without the port; "" when there was none."""
    authority: str
    """Host or :authority exactly as received."""
    scheme: Literal["http", "https"]
    protocol: Literal["HTTP/1.0", "HTTP/1.1", "HTTP/2"]
    exposure: Exposure
    peer: str
    """The client's address, without the port."""
    to_port: int | str = 0
    """The port of a Service that is meant, by number or name, whatever the authority says."""
    started: bool = False
    """True once a status line went out."""
    finished: bool = False
    """True once the answer is complete (or broken off)."""
    answer_status: int = 0
    """The status that went out, 0 before."""
    answer_bytes: int = 0
    """Body bytes that went out."""

    @property
    @abstractmethod
    def headers(self) -> CIMultiDict[str]:
        """A copy that the handler may change before forwarding."""

    @property
    def fields(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names and values of the headers as they came; for handlers that never want `headers`."""
        headers = self.headers
        return tuple(headers.keys()), tuple(headers.values())

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @abstractmethod
    def body(self) -> AsyncIterator[bytes]:
        """The body's chunks as they arrive; ClientGone when the client leaves."""

    @property
    @abstractmethod
    def trailers(self) -> CIMultiDict[str]:
        """Trailers, once `body()` has ended."""

    async def read(self, limit: int) -> bytes:
        """The whole body; BodyTooLarge above `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        async for chunk in self.body():
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge
            parts.append(chunk)
        return b"".join(parts)

    @abstractmethod
    async def start(self, status: int, headers: HeaderPairs = (), reason: str = "") -> None:
        """Send the status line and headers."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Send a piece of the body; waits while the client cannot take more."""

    @abstractmethod
    async def finish(self, trailers: HeaderPairs = ()) -> None:
        """End the response."""

    async def respond(
        self, status: int, headers: HeaderPairs = (), body: bytes | str = b""
    ) -> None:
        """A whole response at once."""
        data = body.encode() if isinstance(body, str) else body
        await self.start(status, [*headers, ("Content-Length", str(len(data)))])
        if data:
            await self.write(data)
        await self.finish()

    def respond_now(self, status: int, headers: HeaderPairs = (), body: bytes | str = b"") -> None:
        """The same without waiting, for a request that came to `Route.at_once`; nothing happens
        when the client has gone."""
        raise NotImplementedError("this request is answered by its handler")

    # What `forward` needs beyond that. The defaults suit a request that never travelled.

    upgrade: str = ""
    """The protocol the client wants to switch to ("websocket"), "" for none."""
    expects_continue: bool = False
    """The client waits for 100 Continue; reading the body sends it."""

    def buffered(self) -> bytes | None:
        """The whole body when it has arrived already and carries no trailers, else None."""
        return None

    async def inform(self, status: int, headers: HeaderPairs = ()) -> None:
        """Send an interim (1xx) answer, where the protocol has them."""
        return

    async def tunnel(self, headers: HeaderPairs = ()) -> Stream:
        """Answer 101 Switching Protocols and hand over the connection."""
        raise NotImplementedError("this request cannot be upgraded")

    async def answer(
        self, status: int, headers: HeaderPairs, body: bytes, reason: str, raw: bytes = b""
    ) -> None:
        """A whole response whose headers say all about its body already. `raw`: status line and
        headers as HTTP/1.1 bytes, which may be sent instead."""
        await self.start(status, headers, reason)
        if body:
            await self.write(body)
        await self.finish()

    async def cut_short(self, text: str) -> None:
        """End a started answer with `text`, as far as its Content-Length lets it."""
        await self.write(text.encode())
        await self.finish()

    def abort(self) -> None:
        """Break the answer off, so that the client sees it is not complete."""
        self.finished = True


Handler = Callable[[Request], Awaitable[None]]
"""Answers a request. An exception becomes 500 with a plain body (502 for a failed upstream)."""
