"""The HTTP client for events: pooled, bounded, and at home in the gateway's own names.

Names in the route table (cluster-local ones, and the hosts people use) are answered by their
handler in this process, without a socket; everything else goes out over kept connections.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

from multidict import CIMultiDict

from knlocal.clock import Clock
from knlocal.gateway.dispatch import dispatch
from knlocal.gateway.http import ClientGone, Exposure
from knlocal.gateway.http1 import split_host
from knlocal.gateway.http1_upstream import Http1Upstream
from knlocal.gateway.local import LocalRequest
from knlocal.gateway.names import full_names, is_cluster_local
from knlocal.gateway.pool import Pool
from knlocal.gateway.post import Line, Sender
from knlocal.gateway.routes import RouteTable
from knlocal.gateway.upstream import Endpoint, Exchange, NotSent, UnansweredError, UpstreamError

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_OWN: Final = frozenset({"content-length", "transfer-encoding", "connection", "host"})
_URL_SAFE: Final = "%/:=&?~#+!$,;'@()*[]"


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
    """A whole answer."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


class _Address(NamedTuple):
    """What a URL says."""

    endpoint: Endpoint
    authority: str
    host: str
    target: str
    start: str
    """The first two lines of a POST."""


class HttpClient:
    """Posts events and reads small answers. Redirects are not followed.

    `routes` None: no names are answered in process. `max_response` bounds an answer's body, in
    bytes. A request is sent a second time when a kept connection turns out to be dead before
    anything of an answer came: delivery is at least once.
    """

    def __init__(
        self,
        routes: RouteTable | None,
        clock: Clock,
        pool: Pool | None = None,
        max_response: int = 16 * 1024 * 1024,
    ) -> None:
        self._routes = routes
        self._pool = pool or Pool(clock)
        self._own_pool = pool is None
        self._max_response = max_response

    async def request(
        self,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        timeout: float | None = 30.0,
    ) -> Response:
        """Send a request and read the whole answer within `timeout` seconds (None: no limit).

        Raises an `HttpClientError` (ConnectError, RequestTimeout, ProtocolError, ResponseTooLarge,
        InvalidUrl). Every status is an answer, not an error.
        """
        address = _parse(url)
        local = self._find(address.host)
        if timeout is None:
            return await self._send(method, address, headers, body, local)
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            task.cancel()

        deadlines = self._pool.deadlines.of(timeout)
        token = deadlines.add(expire)
        try:
            return await self._send(method, address, headers, body, local)
        except asyncio.CancelledError:
            if expired and task.uncancel() <= cancelling:
                raise RequestTimeout(f"{url} did not answer within {timeout:g} s") from None
            raise
        finally:
            deadlines.cancel(token)

    def line(self, url: str, sender: Sender) -> Line | None:
        """A kept connection for posting to `url` by callbacks; None when there is none, or when the
        URL is answered in process. InvalidUrl as `request`."""
        address = _parse(url)
        if self._find(address.host) is not None:
            return None
        connection = self._pool.idle(address.endpoint)
        if not isinstance(connection, Http1Upstream):
            return None
        return Line(connection, address.start, self._pool.deadlines, self._max_response, sender)

    async def close(self) -> None:
        """Close idle connections (of its own pool only)."""
        if self._own_pool:
            await self._pool.close()

    def _find(self, host: str) -> tuple[str, Exposure] | None:
        """The name and door under which this gateway serves `host`, if it does."""
        routes = self._routes
        if routes is None or _is_address(host):
            return None  # an address means the network, even where this gateway has a host of it
        if routes.find(host, "external") is not None:
            return host, "external"
        for name in full_names(host):
            if routes.find(name, "internal") is not None:
                return name, "internal"
        return None

    async def _send(
        self,
        method: str,
        address: _Address,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        local: tuple[str, Exposure] | None,
    ) -> Response:
        if local is not None:
            return await self._ask_here(method, address, headers, body, *local)
        if self._routes is not None and is_cluster_local(address.host):
            near = self._routes.similar(address.host, "internal")
            hint = f"; names like it: {', '.join(near)}" if near else ""
            raise ConnectError(f"no service answers for {address.host!r}{hint}")
        try:
            pairs = [pair for pair in headers if pair[0].lower() not in _OWN]
            return await self._ask_there(method, address, pairs, body)
        except NotSent as error:
            raise ConnectError(str(error)) from error
        except UpstreamError as error:
            raise ProtocolError(f"{address.endpoint}: {error}") from error

    async def _ask_there(
        self, method: str, address: _Address, headers: list[tuple[str, str]], body: bytes
    ) -> Response:
        exchange = self._pool.idle(address.endpoint)
        if exchange is not None:
            try:
                return await self._exchange(exchange, method, address, headers, body)
            except UnansweredError:
                pass
        exchange = await self._pool.connect(address.endpoint)
        return await self._exchange(exchange, method, address, headers, body)

    async def _exchange(
        self,
        exchange: Exchange,
        method: str,
        address: _Address,
        headers: list[tuple[str, str]],
        body: bytes,
    ) -> Response:
        length = len(body) if body or method in _WITH_BODY else None
        try:
            exchange.send_request(method, address.target, address.authority, headers, body, length)
            head = await exchange.response()
            while head.status < 200:
                if head.status == 101:
                    raise ProtocolError(
                        f"{address.endpoint} switched protocols without being asked"
                    )
                head = await exchange.response()
            data = exchange.whole()
            if data is None:
                data = await self._read(exchange, address)
            return Response(head.status, CIMultiDict(head.headers), data)
        except ValueError as error:
            raise ProtocolError(str(error)) from error
        finally:
            exchange.close()

    async def _read(self, exchange: Exchange, address: _Address) -> bytes:
        pieces = []
        size = 0
        while piece := await exchange.read():
            size += len(piece)
            if size > self._max_response:
                raise self._too_large(address)
            pieces.append(piece)
        return b"".join(pieces)

    async def _ask_here(
        self,
        method: str,
        address: _Address,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        host: str,
        exposure: Exposure,
    ) -> Response:
        assert self._routes is not None
        sent = CIMultiDict([("Host", address.authority), *headers])
        if body or method in _WITH_BODY:
            sent["Content-Length"] = str(len(body))
        request = LocalRequest(
            method, address.target, address.authority, host, sent, body, self._max_response
        )
        request.exposure = exposure
        try:
            await dispatch(self._routes, request)
        except ClientGone:
            if not request.aborted:
                raise
        if request.too_large:
            raise self._too_large(address)
        if request.aborted:
            raise ProtocolError(f"{address.host} broke off its answer")
        return Response(request.answer_status, request.answer_headers, b"".join(request.pieces))

    def _too_large(self, address: _Address) -> ResponseTooLarge:
        return ResponseTooLarge(
            f"the answer of {address.host} is larger than {self._max_response} bytes"
        )


@functools.lru_cache(maxsize=4096)
def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=4096)
def _parse(url: str) -> _Address:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidUrl(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise InvalidUrl(f"{url!r} is not an http:// or https:// URL")
    authority = parts.netloc.rpartition("@")[2]
    host = split_host(authority)
    if not host:
        raise InvalidUrl(f"{url!r} names no valid host")
    target = quote(parts.path or "/", safe=_URL_SAFE)
    if parts.query:
        target += "?" + quote(parts.query, safe=_URL_SAFE)
    secure = parts.scheme == "https"
    return _Address(
        Endpoint(
            host.strip("[]"),
            port or (443 if secure else 80),
            tls=host.strip("[]") if secure else "",
        ),
        authority,
        host,
        target,
        f"POST {target} HTTP/1.1\r\nHost: {authority}\r\n",
    )
