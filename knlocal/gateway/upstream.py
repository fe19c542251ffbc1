"""One request on its way to an upstream: what HTTP/1.1 and HTTP/2 connections both offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

from multidict import CIMultiDict

from knlocal.gateway.http import HeaderPairs, Stream
from knlocal.gateway.http1 import Pairs, ResponseHead

Protocol = Literal["http1", "h2c"]


class Endpoint(NamedTuple):
    """Where an upstream listens and what it speaks there."""

    host: str
    port: int
    protocol: Protocol = "http1"
    tls: str = ""
    """The name to ask for (and check) over TLS; "" for clear text."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class NotSent(Exception):
    """The upstream got nothing of the request (refused, unreachable): another pod may get it.

    Nothing was answered to the client and nothing of its body was read.
    """


class UpstreamError(Exception):
    """The upstream broke off or does not speak HTTP."""


class UnansweredError(UpstreamError):
    """A kept connection broke before anything of the answer came: most likely it was closed while
    idle, and a request that may be repeated may be sent again. `untouched`: the upstream said that
    it did nothing with it, so that any request may."""

    def __init__(self, message: str, untouched: bool = False) -> None:
        super().__init__(message)
        self.untouched = untouched


class Exchange(ABC):
    """A request and its answer on an upstream connection.

    `send_request` first; then `write`… and `finish` unless the body went with it. `response` gives
    each interim answer and then the final one; `read` its body, b"" at the end. `close` always.
    """

    @abstractmethod
    def send_request(
        self,
        method: str,
        target: str,
        authority: str,
        headers: Pairs,
        body: bytes | None,
        length: int | None,
    ) -> None:
        """The head, and the body when it is all here; None when it follows. `length`: what to say
        about its length (not in `headers`); None to say nothing."""

    @abstractmethod
    async def write(self, data: bytes) -> None: ...

    @abstractmethod
    async def finish(self, trailers: HeaderPairs = ()) -> None: ...

    @abstractmethod
    async def response(self) -> ResponseHead: ...

    @abstractmethod
    async def read(self) -> bytes: ...

    @abstractmethod
    def whole(self) -> bytes | None:
        """The answer's whole body when all of it has arrived and no trailers, else None."""

    @property
    @abstractmethod
    def trailers(self) -> CIMultiDict[str] | None: ...

    @abstractmethod
    def tunnel(self) -> Stream:
        """The connection as raw bytes, after 101."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back when the exchange is complete, else break it off."""
