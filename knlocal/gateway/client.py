"""The HTTP client for events: pooled, bounded, and at home in the gateway's own names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from multidict import CIMultiDict

from knlocal.clock import Clock
from knlocal.gateway.pool import Pool
from knlocal.gateway.routes import RouteTable


class HttpClientError(Exception):
    """A request got no answer. The message is meant for people."""


class ConnectError(HttpClientError):
    """No connection: refused, unreachable, or the name does not resolve."""


class RequestTimeout(HttpClientError, TimeoutError):
    """No complete answer in time."""


class ProtocolError(HttpClientError):
    """The other side broke off or does not speak HTTP."""


class ResponseTooLarge(HttpClientError):
    """The body is longer than allowed."""


class InvalidUrl(HttpClientError, ValueError):
    """Not an absolute http(s) URL."""


@dataclass(slots=True)
class Response:
    status: int
    headers: CIMultiDict[str]
    body: bytes


class HttpClient:
    """Posts events and reads small answers. Names of this gateway are answered in process."""

    def __init__(
        self,
        routes: RouteTable | None,
        clock: Clock,
        pool: Pool | None = None,
        max_response: int = 16 * 1024 * 1024,
    ) -> None:
        self._routes = routes
        self._clock = clock
        self._max_response = max_response

    async def request(
        self,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        timeout: float | None = 30.0,
    ) -> Response:
        """Send a request and read the whole answer. Redirects are not followed."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close idle connections."""
