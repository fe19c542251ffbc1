"""A POST by callback: written to a kept connection, its answer handed over when it is here.

What `HttpClient.request` does with a task, for the case that nothing has to be waited for but the
answer: a connection stands ready and the answer is short. Events are delivered this way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from knlocal.gateway.deadlines import Deadlines
from knlocal.gateway.http1 import ResponseHead
from knlocal.gateway.http1_upstream import Http1Upstream
from knlocal.gateway.upstream import UnansweredError, UpstreamError

Arrived = Callable[[ResponseHead, bytes], object]
Failed = Callable[[str], object]


class Post:
    """One POST under way on `connection`.

    Calls one of three when it is over: `arrived(head, body)` with a whole answer, `failed(why)`, or
    `unanswered()` when the connection turned out to be dead before anything of an answer came.
    """

    __slots__ = (
        "_arrived", "_connection", "_deadline", "_deadlines", "_failed", "_limit", "_rest",
        "_seconds", "_unanswered",
    )  # fmt: skip

    def __init__(
        self,
        connection: Http1Upstream,
        deadlines: Deadlines,
        seconds: float,
        limit: int,
        arrived: Arrived,
        failed: Failed,
        unanswered: Callable[[], object],
    ) -> None:
        self._connection = connection
        self._deadlines = deadlines
        self._seconds = seconds
        self._limit = limit
        self._arrived = arrived
        self._failed = failed
        self._unanswered = unanswered
        self._rest: asyncio.Task[None] | None = None
        self._deadline = deadlines.add(self._expired)
        connection.on_arrival = self._look

    def cancel(self) -> None:
        """Break it off; nothing is called any more."""
        self._deadlines.cancel(self._deadline)
        self._connection.on_arrival = None
        if self._rest is not None:
            self._rest.cancel()
        self._connection.close()

    def _look(self) -> None:
        """Something of the answer has arrived, or the connection has failed."""
        connection = self._connection
        head = connection.head
        if head is None:
            error = connection.error
            if error is None:
                return  # an interim answer
            self.cancel()
            if isinstance(error, UnansweredError):
                self._unanswered()
            else:
                self._failed(str(error))
            return
        connection.on_arrival = None
        body = connection.whole()
        if head.status == 101:
            self.cancel()
            self._failed("it switched protocols without being asked")
        elif body is None:
            self._rest = asyncio.create_task(self._read(head), name="long answer to an event")
        else:
            self._deadlines.cancel(self._deadline)
            connection.close()
            self._arrived(head, body)

    async def _read(self, head: ResponseHead) -> None:
        """The rest of an answer that did not come in one piece."""
        pieces = []
        size = 0
        try:
            while piece := await self._connection.read():
                pieces.append(piece)
                size += len(piece)
                if size > self._limit:
                    raise UpstreamError(f"its answer is larger than {self._limit} bytes")
        except UpstreamError as error:
            self._rest = None
            self.cancel()
            self._failed(str(error))
            return
        self._rest = None
        self._deadlines.cancel(self._deadline)
        self._connection.close()
        self._arrived(head, b"".join(pieces))

    def _expired(self) -> None:
        self.cancel()
        self._failed(f"no answer within {self._seconds:g} s")
