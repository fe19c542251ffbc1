"""Pass a request on to an upstream and its answer back, streaming both ways.

What Knative spreads over Envoy, the activator and the queue-proxy (headers, timeouts, upgrades)
happens here once. Sources: net/http/httputil.ReverseProxy as knative.dev/serving uses it,
serving pkg/http/handler/timeout.go, pkg/http/proxy (the Forwarded header).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from multidict import istr

from knlocal.clock import Clock, Timer
from knlocal.gateway.deadlines import Deadlines
from knlocal.gateway.http import Request
from knlocal.gateway.http1 import Pairs, ResponseHead
from knlocal.gateway.origin import request_headers
from knlocal.gateway.pool import Pool
from knlocal.gateway.tunnel import join
from knlocal.gateway.upstream import (
    Endpoint,
    Exchange,
    NotSent,
    UnansweredError,
    UpstreamError,
)

__all__ = ["Endpoint", "Forwarded", "NotSent", "Timeouts", "forward"]

TIMEOUT_BODY: Final = "request timeout"
CONTINUE_SECONDS: Final = 1.0
"""How long an upstream may take to say 100 Continue before the body is sent all the same
(net/http's ExpectContinueTimeout)."""

_REPLAYABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_CONTENT_LENGTH: Final = istr("Content-Length")
_IDEMPOTENCY_KEYS: Final = (istr("Idempotency-Key"), istr("X-Idempotency-Key"))
_PLAIN: Final = (("Content-Type", "text/plain; charset=utf-8"),)

Expired = Literal["", "total", "response_start", "idle"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, None for no limit. Semantics: Knative Serving pkg/http/handler/timeout.go."""

    total: float | None = None
    """The whole exchange. Before the first byte: 504; later the text is appended."""
    response_start: float | None = None
    """Until the response's status line."""
    idle: float | None = None
    """Between two writes of the response (or since the arrival when nothing was written)."""


NO_TIMEOUTS: Final = Timeouts()


@dataclass(slots=True)
class Forwarded:
    """What happened to a forwarded request."""

    status: int = 0
    """The status the client got (0 when it left before)."""
    bytes_in: int = 0
    """Body bytes sent to the upstream."""
    bytes_out: int = 0
    """Body bytes sent to the client."""
    seconds: float = 0.0
    """Seconds from the call to the end."""
    upstream_error: str = ""
    """Why the upstream failed ("" when it did not)."""
    timed_out: Expired = ""
    upgraded: bool = False
    """A tunnel was opened (WebSocket or any other Upgrade)."""


async def forward(
    request: Request,
    endpoint: Endpoint,
    *,
    pool: Pool,
    clock: Clock,
    timeouts: Timeouts = NO_TIMEOUTS,
    set_headers: Mapping[str, str] | None = None,
    remove_headers: Collection[str] = (),
) -> Forwarded:
    """Send `request` to `endpoint` and its answer to the client.

    Answers the client in any case (502 and 504 included), except for `NotSent` (before which
    nothing was answered and nothing of the body read) and for ClientGone or CancelledError, because
    the client left. `set_headers` and `remove_headers` (any case) act on what the upstream sees.
    """
    run = _Run(request, endpoint, pool, clock)
    run.watch(timeouts)
    try:
        await run.exchange_with(request_headers(request, set_headers, remove_headers))
    except asyncio.CancelledError:
        if not run.was_expiry():
            raise
        await run.answer_timeout()
    except UpstreamError as error:
        await run.answer_failure(error)
    finally:
        run.end()
    return run.result


class _Run:
    """One forwarded request."""

    __slots__ = (
        "began",
        "cancelling",
        "clock",
        "deadlines",
        "endpoint",
        "exchange",
        "idle_timer",
        "last_write",
        "pool",
        "pump",
        "request",
        "result",
        "task",
    )

    def __init__(self, request: Request, endpoint: Endpoint, pool: Pool, clock: Clock) -> None:
        self.request = request
        # An upgrade is an HTTP/1.1 matter, whatever the port says.
        self.endpoint = endpoint._replace(protocol="http1") if request.upgrade else endpoint
        self.pool = pool
        self.clock = clock
        self.result = Forwarded()
        self.began = self.last_write = clock.monotonic()
        self.exchange: Exchange | None = None
        self.pump: asyncio.Task[None] | None = None
        self.deadlines: list[tuple[Deadlines, int]] = []
        self.idle_timer: Timer | None = None
        self.task: asyncio.Task[Any] | None = None
        self.cancelling = 0

    # The way there and back

    async def exchange_with(self, headers: Pairs) -> None:
        exchange, head = await self.send(headers)
        while head.status < 200 and head.status != 101:
            await self.interim(head)
            head = await exchange.response()
        self.result.status = head.status
        if head.status == 101:
            await self.tunnel(exchange, head)
        else:
            await self.answer(exchange, head)

    async def send(self, headers: Pairs) -> tuple[Exchange, ResponseHead]:
        """Send the request on a kept or a new connection; the first answer, interim or final."""
        request = self.request
        body = request.buffered()
        exchange = self.pool.idle(self.endpoint)
        if exchange is not None:
            self.start(exchange, headers, body)
            try:
                return exchange, await exchange.response()
            except UnansweredError as error:
                if not self.may_repeat(body, error):
                    raise
                exchange.close()
        exchange = await self.pool.connect(self.endpoint)
        self.start(exchange, headers, body)
        try:
            return exchange, await exchange.response()
        except UnansweredError as error:
            if error.untouched and body is not None:
                raise NotSent(f"{self.endpoint}: {error}") from error
            raise

    def start(self, exchange: Exchange, headers: Pairs, body: bytes | None) -> None:
        """Send the head, with the body if it is here; else start sending it as it comes."""
        request = self.request
        self.exchange = exchange
        length = None
        if body or _CONTENT_LENGTH in request.headers:
            length = len(body) if body is not None else int(request.headers[_CONTENT_LENGTH])
        exchange.send_request(
            request.method, request.target, request.authority, headers, body, length
        )
        if body is not None:
            self.result.bytes_in = len(body)
        elif request.expects_continue:
            self.arm(CONTINUE_SECONDS, self.start_pump)
        else:
            self.start_pump()

    def may_repeat(self, body: bytes | None, error: UnansweredError) -> bool:
        """As net/http: nothing of an answer came, and doing it twice is harmless."""
        headers = self.request.headers
        return body is not None and (
            error.untouched
            or self.request.method in _REPLAYABLE
            or any(key in headers for key in _IDEMPOTENCY_KEYS)
        )

    def start_pump(self) -> None:
        if self.pump is None and self.exchange is not None:
            self.pump = asyncio.ensure_future(self.carry_body(self.exchange))

    async def carry_body(self, exchange: Exchange) -> None:
        try:
            async for chunk in self.request.body():
                self.result.bytes_in += len(chunk)
                await exchange.write(chunk)
            await exchange.finish(self.request.trailers.items())
        except UpstreamError:
            # An upstream may answer without reading to the end (413): its answer decides.
            pass
        except Exception:
            # Without an end the upstream would wait for ever.
            exchange.close()
            raise

    async def interim(self, head: ResponseHead) -> None:
        if head.status != 100:
            await self.request.inform(head.status, head.headers)
        elif self.request.expects_continue and self.result.bytes_in == 0:
            self.start_pump()

    async def answer(self, exchange: Exchange, head: ResponseHead) -> None:
        request, result = self.request, self.result
        body = exchange.whole()
        if body is not None and (
            (head.length >= 0 and request.method != "HEAD") or request.protocol == "HTTP/2"
        ):
            # The usual case: a short answer, all of it here, goes out in one write. (On HTTP/2 the
            # end goes with the headers, as gRPC wants it for an error without a body.)
            await request.answer(head.status, head.headers, body, head.reason, head.raw)
            result.bytes_out = len(body)
            return
        await request.start(head.status, head.headers, head.reason)
        self.last_write = self.clock.monotonic()
        while chunk := await exchange.read():
            await request.write(chunk)
            result.bytes_out += len(chunk)
            self.last_write = self.clock.monotonic()
        trailers = exchange.trailers
        await request.finish(() if trailers is None else trailers.items())

    async def tunnel(self, exchange: Exchange, head: ResponseHead) -> None:
        if not self.request.upgrade:
            raise UpstreamError("it switched protocols without being asked")
        self.result.upgraded = True
        upstream = exchange.tunnel()
        try:
            client = await self.request.tunnel([("Upgrade", head.upgrade), *head.headers])
        except BaseException:
            upstream.close()
            raise
        self.result.bytes_in, self.result.bytes_out = await join(client, upstream)

    # Timeouts

    def watch(self, timeouts: Timeouts) -> None:
        if timeouts is NO_TIMEOUTS:
            return
        if timeouts.total is not None:
            self.arm(timeouts.total, self.total_expired)
        if timeouts.response_start:
            self.arm(timeouts.response_start, self.start_expired)
        if timeouts.idle:
            self.arm(timeouts.idle, partial(self.idle_expired, timeouts.idle))
        self.task = asyncio.current_task()
        if self.task is not None:
            self.cancelling = self.task.cancelling()

    def arm(self, seconds: float, expired: Callable[[], object]) -> None:
        deadlines = self.pool.deadlines.of(seconds)
        self.deadlines.append((deadlines, deadlines.add(expired)))

    def total_expired(self) -> None:
        self.expire("total")

    def start_expired(self) -> None:
        # Knative's timer does not see an upgraded connection start, and ends it (C20).
        if not self.request.started or self.result.upgraded:
            self.expire("response_start")

    def idle_expired(self, seconds: float) -> None:
        left = self.last_write + seconds - self.clock.monotonic()
        if left > 1e-6 and not self.result.upgraded:
            self.idle_timer = self.clock.call_later(left, self.idle_expired, seconds)
        else:
            self.expire("idle")

    def expire(self, which: Expired) -> None:
        if self.task is not None and not self.result.timed_out and not self.task.done():
            self.result.timed_out = which
            self.task.cancel()

    def was_expiry(self) -> bool:
        """True when the cancellation came from a timeout, and from nobody else as well."""
        return (
            self.result.timed_out != ""
            and self.task is not None
            and self.task.uncancel() <= self.cancelling
        )

    # What the client gets when it does not go well

    async def answer_timeout(self) -> None:
        self.drop_upstream()
        request, result = self.request, self.result
        if request.finished:
            return
        if request.started:
            await request.cut_short(TIMEOUT_BODY)
            return
        result.status = 504
        await request.respond(504, _PLAIN, TIMEOUT_BODY)

    async def answer_failure(self, error: UpstreamError) -> None:
        self.drop_upstream()
        request, result = self.request, self.result
        result.upstream_error = f"upstream {self.endpoint}: {error}"
        if request.finished:
            return
        if request.started:
            request.abort()
            return
        result.status = 502
        await request.respond(502, _PLAIN, result.upstream_error + "\n")

    def drop_upstream(self) -> None:
        if self.exchange is not None:
            self.exchange.close()
            self.exchange = None

    def end(self) -> None:
        for deadlines, token in self.deadlines:
            deadlines.cancel(token)
        if self.idle_timer is not None:
            self.idle_timer.cancel()
        if self.pump is not None:
            self.pump.cancel()
            self.pump.add_done_callback(_forget)
        self.drop_upstream()
        self.result.seconds = self.clock.monotonic() - self.began


def _forget(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
