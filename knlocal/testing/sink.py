"""A real HTTP subscriber for tests: records what arrives, answers as it is told."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from aiohttp import web

from knlocal.clock import SystemClock
from knlocal.events import Event, InvalidEvent, decode, encode, has_event
from knlocal.testing.loop import LoopThread
from knlocal.testing.matching import explain, hidden, mismatches, seconds

__tracebackhide__ = hidden

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """How to answer one request. `delay` in seconds, or as text ("2s"). `close`: "half" sends half
    an answer and closes the connection, "reset" closes it without a word. `reply` is an event."""

    status: int = 202
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float | str = 0
    close: Literal["", "half", "reset"] = ""
    reply: Event | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived; `event` is None when it carried no valid event."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    event: Event | None


class Sink:
    """`sink.url` is what a trigger or source is given. All waiting is in real time.

    sink.answers(503, 503, 202)          # fail twice, then accept (the last one stays)
    sink.expect(type="order.created", within="5s")
    """

    def __init__(
        self, loop: LoopThread, host: str = "127.0.0.1", trails: Callable[[], str] = str
    ) -> None:
        """`trails` says what passed on the way here, for a failing expectation."""
        self._loop = loop
        self._trails = trails
        self._host = host
        self._received: list[Received] = []
        self._taken: set[int] = set()
        self._answers: deque[Answer] = deque([Answer()])
        self._arrived = asyncio.Event()
        self._guard = threading.Lock()
        self._runner: web.ServerRunner | None = None
        self.url = ""
        self._call(self._start())

    def _call(self, work: Coroutine[Any, Any, T], within: float | None = 30) -> T:
        return self._loop.run(work, within)

    async def _start(self) -> None:
        self._runner = web.ServerRunner(
            web.Server(self._handle, access_log=None), shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/"

    def close(self) -> None:
        if self._runner is not None:
            self._call(self._runner.cleanup())
            self._runner = None

    # -- what arrived -------------------------------------------------------------------------

    @property
    def requests(self) -> list[Received]:
        """Everything that arrived, in order."""
        with self._guard:
            return list(self._received)

    @property
    def events(self) -> list[Event]:
        """The events among it, in order."""
        return [r.event for r in self.requests if r.event is not None]

    def clear(self) -> None:
        """Forget what arrived."""
        with self._guard:
            self._received.clear()
            self._taken.clear()

    # -- expecting ----------------------------------------------------------------------------

    def expect(self, *, within: float | str = "5s", **wanted: Any) -> Event:
        """The first event not yet expected before that has these attributes (and `data`).

        Fails the test, with what did arrive, when none comes `within` that real time.
        """
        limit = seconds(within)
        return self._call(self._expect(limit, wanted), limit + 10)

    async def aexpect(self, *, within: float | str = "5s", **wanted: Any) -> Event:
        """`expect` for asynchronous tests."""
        return await self._loop.aio(self._expect(seconds(within), wanted))

    def expect_none(self, *, within: float | str = "0.3s", **wanted: Any) -> None:
        """Fails the test when such an event (not yet expected) is here or comes `within`."""
        try:
            event = self.expect(within=within, **wanted)
        except AssertionError:
            return
        raise AssertionError(f"expected no such event, but {event.type} {event.id} arrived")

    async def _expect(self, limit: float, wanted: Mapping[str, Any]) -> Event:
        try:
            async with asyncio.timeout(limit):
                while True:
                    self._arrived.clear()
                    found = self._take(wanted)
                    if found is not None:
                        return found
                    await self._arrived.wait()
        except TimeoutError:
            shown = ", ".join(f"{name}={value!r}" for name, value in wanted.items()) or "any event"
            arrived = explain(self.events, wanted)
            raise AssertionError(
                f"no event with {shown} within {limit:g} s; {arrived}{self._trails()}"
            ) from None

    def _take(self, wanted: Mapping[str, Any]) -> Event | None:
        with self._guard:
            for number, received in enumerate(self._received):
                event = received.event
                if event is None or number in self._taken or mismatches(event, wanted):
                    continue
                self._taken.add(number)
                return event
        return None

    # -- answering ----------------------------------------------------------------------------

    def answers(self, *answers: Answer | int | Event) -> None:
        """What to answer, one after the other; the last one stays. An int is a status, an Event a
        reply with status 200."""
        with self._guard:
            self._answers = deque(_as_answers(answers))

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        event = None
        if has_event(request.headers):
            try:
                event = decode(request.headers, body)
            except InvalidEvent:
                event = None
        with self._guard:
            self._received.append(
                Received(request.method, request.path_qs, dict(request.headers), body, event)
            )
            answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        self._arrived.set()
        return await _answer(request, answer)


def _as_answers(answers: Iterable[Answer | int | Event]) -> list[Answer]:
    result = []
    for answer in answers:
        if isinstance(answer, Answer):
            result.append(answer)
        elif isinstance(answer, Event):
            result.append(Answer(200, reply=answer))
        else:
            result.append(Answer(answer))
    return result or [Answer()]


async def _answer(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    if answer.delay:
        # The subscriber is a program of its own: its slowness is real, whatever knlocal's clock.
        await SystemClock().sleep(seconds(answer.delay))
    transport = request.transport
    if answer.close and transport is not None:
        if answer.close == "half":
            transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this much")
            transport.close()
        else:
            transport.abort()
        return web.Response(status=answer.status)
    headers, body = dict(answer.headers), answer.body
    if answer.reply is not None:
        message = encode(answer.reply)
        headers |= dict(message.headers)
        body = message.body
    return web.Response(status=answer.status, headers=headers, body=body)
