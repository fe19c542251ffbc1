"""What a request looks like behind the front door, whichever protocol brought it.

Handlers are written against `Request`; HTTP/1.1 and HTTP/2 each implement it. Bodies stream in
both directions; nothing is buffered unless `read` is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Literal

from multidict import CIMultiDict

Exposure = Literal["external", "internal"]
"""Where a connection came in: the loopback door people use, or the one inside containers."""

HeaderPairs = Iterable[tuple[str, str]]


class ClientGone(Exception):
    """The client closed its connection: stop working for it."""


class BodyTooLarge(Exception):
    """A body is longer than the reader allows."""


class Request(ABC):
    """One request. Answer it exactly once: `respond`, or `start` then `write`… then `finish`."""

    method: str
    target: str
    """Path and query exactly as received ("/a%20b?x=1")."""
    host: str
    """Host or :authority, lower case, without the port; "" when there was none."""
    authority: str
    """Host or :authority exactly as received."""
    headers: CIMultiDict[str]
    """A copy that the handler may change before forwarding."""
    scheme: Literal["http", "https"]
    protocol: Literal["HTTP/1.0", "HTTP/1.1", "HTTP/2"]
    exposure: Exposure
    peer: str
    """The client's address, without the port."""
    started: bool = False
    """True once a status line went out."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    @abstractmethod
    def has_body(self) -> bool: ...

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


Handler = Callable[[Request], Awaitable[None]]
"""Answers a request. An exception becomes 500 with a plain body (502 for a failed upstream)."""
