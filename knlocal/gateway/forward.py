"""Pass a request on to an upstream and its answer back, streaming both ways."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from knlocal.clock import Clock
from knlocal.gateway.http import Request
from knlocal.gateway.pool import Pool

Protocol = Literal["http1", "h2c"]


class Endpoint(NamedTuple):
    """Where an upstream listens and what it speaks there."""

    host: str
    port: int
    protocol: Protocol = "http1"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, None for no limit. Semantics: Knative Serving pkg/http/handler/timeout.go."""

    total: float | None = None
    """The whole exchange. Before the first byte: 504; later the text is appended."""
    response_start: float | None = None
    """Until the response's status line."""
    idle: float | None = None
    """Between two writes of the response (or since the arrival when nothing was written)."""


@dataclass(slots=True)
class Forwarded:
    """What happened to a forwarded request."""

    status: int = 0
    """The status the client got (0 when it left before)."""
    bytes_in: int = 0
    """Body bytes sent to the upstream."""
    bytes_out: int = 0
    """Body bytes sent to the client."""
    first_byte: float | None = None
    """Seconds from the call to the upstream's status line."""
    seconds: float = 0.0
    """Seconds from the call to the end."""
    upstream_error: str = ""
    """Why the upstream failed ("" when it did not)."""
    timed_out: Literal["", "total", "response_start", "idle"] = ""
    upgraded: bool = False
    """A tunnel was opened (WebSocket or any other Upgrade)."""
    client_gone: bool = False


class NotSent(Exception):
    """The upstream got nothing of the request (refused, unreachable): another pod may get it.

    Nothing was answered to the client and nothing of its body was read.
    """


async def forward(
    request: Request,
    endpoint: Endpoint,
    *,
    pool: Pool,
    clock: Clock,
    timeouts: Timeouts = Timeouts(),
    set_headers: Mapping[str, str] | None = None,
    remove_headers: Collection[str] = (),
) -> Forwarded:
    """Send `request` to `endpoint` and its answer to the client.

    Always answers the client (502 and 504 included) unless it raises `NotSent`, before which
    nothing was answered or read, or ClientGone/CancelledError because the client left.
    """
    raise NotImplementedError
