"""POST after POST on one kept connection, by callbacks: how events are delivered.

What `HttpClient.request` does with a task for each request, for the case that nothing has to be
waited for but the answer: a connection stands ready, and answers are short.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from knlocal.gateway.deadlines import DeadlineBook, Deadlines
from knlocal.gateway.http1 import ResponseHead
from knlocal.gateway.http1_upstream import Http1Upstream
from knlocal.gateway.upstream import UnansweredError, UpstreamError


class Sender(Protocol):
    """Who posts. One of these is called for each POST; it may post again at once."""

    def arrived(self, head: ResponseHead, body: bytes) -> None:
        """A whole answer."""

    def failed(self, why: str) -> None:
        """There was none; the line is dead."""

    def unanswered(self) -> None:
        """The connection had been closed meanwhile, before anything of an answer came: send it
        another way; the line is dead."""


class Line:
    """A kept connection in the hands of one sender, who posts one thing at a time and gives it back
    with `close` when there is nothing more to post."""

    __slots__ = (
        "_connection", "_deadline", "_deadlines", "_limit", "_of", "_reading", "_seconds",
        "_sender", "_start", "posts",
    )  # fmt: skip

    def __init__(
        self, connection: Http1Upstream, start: str, of: DeadlineBook, limit: int, sender: Sender
    ) -> None:
        self._connection = connection
        self._start = start
        self._of = of
        self._seconds = 0.0
        self._deadlines: Deadlines | None = None
        self._deadline = 0
        self._limit = limit
        self._sender = sender
        self._reading: asyncio.Task[None] | None = None
        #: How many were begun.
        self.posts = 0

    def post(self, lines: str, body: bytes, timeout: float) -> bool:
        """Send a request. `lines` are its header lines as they are to be sent, each with its CRLF,
        without Host and Content-Length. False, and nothing is sent, when the line is dead."""
        connection = self._connection
        if connection.lost or connection.transport.is_closing():
            return False
        if timeout != self._seconds or self._deadlines is None:
            self._seconds = timeout
            self._deadlines = self._of.of(timeout)
        self._deadline = self._deadlines.add(self._expired)
        self.posts += 1
        connection.on_arrival = self._look
        head = f"{self._start}{lines}Content-Length: {len(body)}\r\n\r\n"
        connection.send_whole("POST", head.encode("utf-8", "surrogateescape") + body)
        return True

    def close(self) -> None:
        """Give the connection back, or break off what is under way; nothing is called any more."""
        if self._deadlines is not None:
            self._deadlines.cancel(self._deadline)
        self._connection.on_arrival = None
        if self._reading is not None:
            self._reading.cancel()
        self._connection.close()

    def _look(self) -> None:
        """Something of the answer has arrived, or the connection has failed."""
        connection = self._connection
        head = connection.head
        if head is None:
            self._look_at_error(connection.error)
            return
        body = connection.whole()
        if body is not None and head.keep_alive:
            assert self._deadlines is not None
            self._deadlines.cancel(self._deadline)
            connection.used = True
            self._sender.arrived(head, body)
        else:
            connection.on_arrival = None
            self._reading = asyncio.create_task(self._read(head), name="long answer to an event")

    def _look_at_error(self, error: UpstreamError | None) -> None:
        if error is None:
            return  # an interim answer
        self.close()
        if isinstance(error, UnansweredError):
            self._sender.unanswered()
        else:
            self._sender.failed(str(error))

    async def _read(self, head: ResponseHead) -> None:
        """The rest of an answer that did not come in one piece, or ends the connection."""
        pieces = []
        size = 0
        why = "it switched protocols without being asked" if head.status == 101 else ""
        try:
            while not why and (piece := await self._connection.read()):
                pieces.append(piece)
                size += len(piece)
                if size > self._limit:
                    why = f"its answer is larger than {self._limit} bytes"
        except UpstreamError as error:
            why = str(error)
        self._reading = None
        if why or not head.keep_alive:
            self.close()
        else:
            assert self._deadlines is not None
            self._deadlines.cancel(self._deadline)
        if why:
            self._sender.failed(why)
        else:
            self._sender.arrived(head, b"".join(pieces))

    def _expired(self) -> None:
        self.close()
        self._sender.failed(f"no answer within {self._seconds:g} s")
