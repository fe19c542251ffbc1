"""The front door: listeners, and each request handed to the handler of its host."""

from __future__ import annotations

import asyncio
import logging
import ssl as ssl_module
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple

from knlocal.clock import Clock, SystemClock
from knlocal.gateway.context import HttpDate, Limits, ServerContext
from knlocal.gateway.deadlines import DeadlineBook
from knlocal.gateway.dispatch import dispatch
from knlocal.gateway.http import Exposure, Request
from knlocal.gateway.routes import RouteTable
from knlocal.gateway.sniff import Sniffer

log = logging.getLogger(__name__)


class Address(NamedTuple):
    """Where a listener listens."""

    host: str
    port: int


@dataclass(slots=True)
class RequestRecord:
    """One answered request, for the journal hook."""

    method: str
    host: str
    target: str
    protocol: str
    exposure: Exposure
    peer: str
    status: int
    """0 when the client left before an answer."""
    seconds: float
    bytes_out: int
    error: str
    """Why the handler failed, "" when it did not."""


class Gateway:
    """Listeners in front of a route table.

    `journal_hook` is called after every request, on the event loop; it must be quick.
    """

    def __init__(
        self,
        routes: RouteTable,
        clock: Clock,
        journal_hook: Callable[[RequestRecord], None] | None = None,
        limits: Limits = Limits(),
    ) -> None:
        self.routes = routes
        self.clock = clock
        self.journal_hook = journal_hook
        self._limits = limits
        self._deadlines = DeadlineBook(clock)
        self._date = HttpDate(clock)
        self._listeners: list[tuple[asyncio.Server, ServerContext]] = []

    async def listen(
        self,
        host: str,
        port: int,
        exposure: Exposure,
        ssl: ssl_module.SSLContext | None = None,
    ) -> Address:
        """Open a listener (port 0 picks one). OSError when the address cannot be bound."""
        context = ServerContext(
            self.handle,
            self.handle_at_once,
            self.wants_whole,
            exposure,
            "https" if ssl else "http",
            self._deadlines,
            self._limits,
            self._date,
        )
        server = await asyncio.get_running_loop().create_server(
            lambda: Sniffer(context),
            host,
            port,
            ssl=ssl,
            backlog=1024,
            ssl_handshake_timeout=self._limits.head if ssl else None,
        )
        self._listeners.append((server, context))
        bound = server.sockets[0].getsockname()
        return Address(bound[0], bound[1])

    async def close(self, grace: float = 0.0) -> None:
        """Stop accepting, let requests finish for `grace` seconds, then cut the rest."""
        for server, context in self._listeners:
            server.close()
            for connection in list(context.connections):
                connection.shut()
        # Connections drain in real time, also where the time of everything else stands still.
        real = SystemClock()
        until = real.monotonic() + grace
        while self._busy() and real.monotonic() < until:
            await real.sleep(0.02)
        for _, context in self._listeners:
            for connection in list(context.connections):
                connection.abort()
        # Let the cancelled handlers run to their end.
        for _ in range(3):
            await asyncio.sleep(0)
        self._listeners.clear()
        self._deadlines.close()

    def handle(self, request: Request) -> Coroutine[Any, Any, object]:
        """Answer a request, whichever listener brought it."""
        if self.journal_hook is None:
            return dispatch(self.routes, request)
        return self._recorded(request, self.journal_hook)

    def wants_whole(self, request: Request) -> bool:
        """Whether it pays to wait for the request's body."""
        if self.routes.around is not None or self.journal_hook is not None:
            return False
        route = self.routes.find(request.host, request.exposure)
        return route is not None and route.at_once is not None and not request.expects_continue

    def handle_at_once(self, request: Request) -> bool:
        """Let the route take a request that is all here, without a task; False when it does not."""
        routes = self.routes
        if routes.around is not None or self.journal_hook is not None:
            return False
        route = routes.find(request.host, request.exposure)
        if route is None or route.at_once is None:
            return False
        try:
            return route.at_once(request)
        except Exception:
            log.exception("the handler for %s failed", request.host)
            return False

    async def _recorded(self, request: Request, hook: Callable[[RequestRecord], None]) -> None:
        began = self.clock.monotonic()
        error = ""
        try:
            error = await dispatch(self.routes, request)
        finally:
            hook(
                RequestRecord(
                    request.method,
                    request.host,
                    request.target,
                    request.protocol,
                    request.exposure,
                    request.peer,
                    request.answer_status,
                    self.clock.monotonic() - began,
                    request.answer_bytes,
                    error,
                )
            )

    def _busy(self) -> bool:
        return any(
            connection.busy for _, context in self._listeners for connection in context.connections
        )
