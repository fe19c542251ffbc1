"""Connections to upstreams, kept open between requests."""

from __future__ import annotations

import asyncio
import socket
import ssl as ssl_module
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from knlocal.clock import Clock
from knlocal.gateway.deadlines import DeadlineBook
from knlocal.gateway.http1_upstream import Http1Upstream
from knlocal.gateway.http2_upstream import Http2Upstream
from knlocal.gateway.upstream import Endpoint, Exchange, NotSent

CONNECT_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 60.0
MAX_IDLE: Final = 256
"""Idle connections kept per upstream."""
_PROBE_AFTER: Final = 0.5
"""Idle seconds after which a connection is looked at before it is used again."""


ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)


class Pool:
    """Keep-alive connections per upstream address. One per daemon, shared by all handlers."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.deadlines = DeadlineBook(clock)
        self._idle: dict[Endpoint, deque[Http1Upstream]] = {}
        self._open: dict[Endpoint, set[Http1Upstream]] = {}
        self._shared: dict[Endpoint, list[Http2Upstream]] = {}
        self._connecting: dict[Endpoint, asyncio.Lock] = {}
        self._sweeper = self.deadlines.of(IDLE_SECONDS)
        self._sweep: int = 0
        self._tls: ssl_module.SSLContext | None = None
        self._closed = False

    def idle(self, endpoint: Endpoint) -> Exchange | None:
        """A kept connection that still stands, or None."""
        if endpoint.protocol == "h2c":
            for shared in self._shared.get(endpoint, ()):
                if shared.open:
                    return shared.exchange()
            return None
        waiting = self._idle.get(endpoint)
        while waiting:
            connection = waiting.pop()
            if connection.lost or connection.transport.is_closing():
                continue
            if self.clock.monotonic() - connection.idle_since > _PROBE_AFTER and not _stands(
                connection.transport
            ):
                connection.transport.abort()
                continue
            return connection
        return None

    async def connect(self, endpoint: Endpoint, seconds: float = CONNECT_SECONDS) -> Exchange:
        """A new connection. NotSent, with the reason, when there is none within `seconds`."""
        if endpoint.protocol == "h2c":
            return await self._connect_h2c(endpoint, seconds)

        def give_back(connection: Http1Upstream) -> None:
            self._keep(endpoint, connection)

        def gone(connection: Http1Upstream) -> None:
            self._forget(endpoint, connection)

        connection = await self._open_connection(
            lambda: Http1Upstream(give_back, gone), endpoint, seconds
        )
        self._open.setdefault(endpoint, set()).add(connection)
        return connection

    async def _connect_h2c(self, endpoint: Endpoint, seconds: float) -> Exchange:
        """One connection is opened at a time: those who waited for it share it."""
        lock = self._connecting.setdefault(endpoint, asyncio.Lock())
        waited = lock.locked()
        async with lock:
            shared = self.idle(endpoint) if waited else None
            if shared is not None:
                return shared
            connection = await self._open_connection(Http2Upstream, endpoint, seconds)
        kept = [one for one in self._shared.get(endpoint, ()) if not one.lost]
        self._shared[endpoint] = [connection, *kept]
        connection.idle_since = self.clock.monotonic()
        self._sweep_later()
        return connection.exchange()

    async def _open_connection(
        self, make: Callable[[], ProtocolT], endpoint: Endpoint, seconds: float
    ) -> ProtocolT:
        try:
            async with self.clock.timeout(seconds):
                transport, protocol = await asyncio.get_running_loop().create_connection(
                    make,
                    endpoint.host,
                    endpoint.port,
                    ssl=self._client_tls() if endpoint.tls else None,
                    server_hostname=endpoint.tls or None,
                )
        except TimeoutError:
            raise NotSent(f"{endpoint} did not accept a connection within {seconds:g} s") from None
        except OSError as error:
            raise NotSent(f"cannot connect to {endpoint}: {_reason(error)}") from error
        if self._closed:
            transport.abort()
            raise NotSent("the gateway is shutting down")
        return protocol

    def close_endpoint(self, host: str, port: int | None = None) -> None:
        """Close every connection to an address whose pod is gone (all its ports when None)."""
        for endpoint in [
            known for known in self._open if known.host == host and port in (None, known.port)
        ]:
            self._idle.pop(endpoint, None)
            for connection in self._open.pop(endpoint):
                if not connection.lost:
                    connection.transport.abort()
        for endpoint in [
            known for known in self._shared if known.host == host and port in (None, known.port)
        ]:
            self._connecting.pop(endpoint, None)
            for shared in self._shared.pop(endpoint):
                if not shared.lost:
                    shared.transport.abort()

    async def close(self) -> None:
        """Close everything."""
        self._closed = True
        self.deadlines.close()
        for endpoint in [*self._open, *self._shared]:
            self.close_endpoint(endpoint.host, endpoint.port)
        await asyncio.sleep(0)

    def _forget(self, endpoint: Endpoint, connection: Http1Upstream) -> None:
        opened = self._open.get(endpoint)
        if opened is not None:
            opened.discard(connection)
            if not opened:
                del self._open[endpoint]
                self._idle.pop(endpoint, None)

    def _keep(self, endpoint: Endpoint, connection: Http1Upstream) -> None:
        if self._closed or endpoint not in self._open:
            connection.transport.close()
            return
        waiting = self._idle.get(endpoint)
        if waiting is None:
            waiting = self._idle[endpoint] = deque()
        connection.idle_since = self.clock.monotonic()
        waiting.append(connection)
        if len(waiting) > MAX_IDLE:
            waiting.popleft().transport.close()
        self._sweep_later()

    def _sweep_later(self) -> None:
        if not self._sweep:
            self._sweep = self._sweeper.add(self._drop_idle)

    def _drop_idle(self) -> None:
        """Close what was not used for `IDLE_SECONDS`; look again while something is kept."""
        self._sweep = 0
        oldest = self.clock.monotonic() - IDLE_SECONDS + 1.0
        for endpoint, waiting in list(self._idle.items()):
            while waiting and (waiting[0].idle_since < oldest or waiting[0].lost):
                waiting.popleft().transport.close()
            if not waiting:
                del self._idle[endpoint]
        for endpoint, connections in list(self._shared.items()):
            for shared in connections:
                if not shared.lost and not shared.streams:
                    shared.hang_up()
            self._shared[endpoint] = [one for one in connections if one.streams]
            if not self._shared[endpoint]:
                del self._shared[endpoint]
                self._connecting.pop(endpoint, None)
        if self._idle or self._shared:
            self._sweep_later()

    def _client_tls(self) -> ssl_module.SSLContext:
        if self._tls is None:
            self._tls = ssl_module.create_default_context()
        return self._tls


def _stands(transport: asyncio.Transport) -> bool:
    """False when the peer has closed and the event loop has not got round to saying so."""
    if transport.get_extra_info("ssl_object") is not None:
        # Session tickets and the like would look like an answer.
        return True
    sock = transport.get_extra_info("socket")
    try:
        fileno = sock.fileno()
        with socket.socket(fileno=fileno) as peek:
            try:
                peek.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            finally:
                peek.detach()
    except BlockingIOError:
        return True
    except (OSError, AttributeError):
        return False
    # Closed (b""), or bytes nobody asked for.
    return False


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "the name does not resolve"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return error.strerror or str(error)
