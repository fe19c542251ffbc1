"""What the connections of one listener share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Any, Literal

from knlocal.clock import Clock
from knlocal.gateway.deadlines import DeadlineBook, Deadlines
from knlocal.gateway.http import Exposure, Request
from knlocal.gateway.http1 import RequestHead, encode_head


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a client may take, in seconds."""

    head: float = 30.0
    """From the first byte of a head to its last (then 408)."""
    idle: float = 300.0
    """Between two requests. Longer than clients keep connections (Go: 90), so that they close."""
    body: float = 600.0
    """Between two pieces of a request's body (then 408)."""
    linger: float = 2.0
    """For reading what a refused client still sends, so that it gets to see the answer."""


class HttpDate:
    """What is made once a second: the text of the Date header, and the commonest answer to an event
    with it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._text = ""
        self._until = 0.0
        self._accepted = b""

    def text(self) -> str:
        now = self._clock.monotonic()
        if now >= self._until or not self._text:
            self._text = format_datetime(self._clock.now(), usegmt=True)
            self._until = now + 1.0
            lines = ["HTTP/1.1 202 Accepted", "Content-Length: 0", f"Date: {self._text}"]
            self._accepted = encode_head(lines)
        return self._text

    def accepted(self) -> bytes:
        """An answer that says 202 and nothing else, as HTTP/1.1 bytes."""
        self.text()
        return self._accepted


class ServerContext:
    """What the connections of one listener share."""

    def __init__(
        self,
        serve: Callable[[Request], Awaitable[object]],
        serve_at_once: Callable[[Request], bool],
        wants_whole: Callable[[Request], bool],
        exposure: Exposure,
        scheme: Literal["http", "https"],
        deadlines: DeadlineBook,
        limits: Limits,
        date: HttpDate,
    ) -> None:
        self.serve = serve
        self.serve_at_once = serve_at_once
        """Answers a request that is all here without a task, when it can: True when it will."""
        self.wants_whole = wants_whole
        """Whether `serve_at_once` has a use for a request once its body is here."""
        self.exposure = exposure
        self.scheme = scheme
        self.limits = limits
        self.date = date
        self.head_deadlines: Deadlines = deadlines.of(limits.head)
        self.idle_deadlines: Deadlines = deadlines.of(limits.idle)
        self.body_deadlines: Deadlines = deadlines.of(limits.body)
        self.linger_deadlines: Deadlines = deadlines.of(limits.linger)
        self.connections: set[Any] = set()
        self.upgrade_to_h2c: Callable[[RequestHead], asyncio.Protocol | None] | None = None
        """The HTTP/2 connection that goes on with a request, None when it cannot."""
