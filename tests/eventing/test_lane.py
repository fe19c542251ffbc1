"""Deliveries over real sockets, to subscribers that answer in all the ways HTTP has: in order, each
event once per answer, whatever way a lane has to take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from knlocal.clock import SystemClock, TravelClock
from knlocal.eventing.engines import MemoryEngine
from knlocal.events import Event
from knlocal.gateway import HttpClient, RouteTable
from tests.eventing.plane import Plane, subscription

DEADLINE = 60.0
EVENTS = 30
OK = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"

Answer = Callable[[int, asyncio.StreamWriter], bytes | None]
"""The bytes that answer the nth request; None breaks the connection off without any."""


class Sink:
    """A subscriber in bytes."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.ids: list[str] = []
        self.heads: list[str] = []
        self.connections = 0
        self.url = ""
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(
                    line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line
                )
                await reader.readexactly(int(fields["content-length"]))
                self.heads.append(head)
                self.ids.append(fields["ce-id"])
                said = self._answer(len(self.ids), writer)
                if said is None:
                    writer.transport.abort()
                    return
                if said:
                    writer.write(said)
                if b"connection: close" in said.lower() or said.startswith(b"HTTP/1.0"):
                    writer.close()
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    plane = Plane(TravelClock(), MemoryEngine())
    await plane.start()
    yield plane
    await plane.stop()


async def deliver(plane: Plane, sink: Sink, count: int = EVENTS, **more: object) -> None:
    """Send numbered events to `sink`, and wait until they are dealt with."""
    await sink.open()
    exchange = await plane.channel("c", subscription("s", sink.url, **more))
    try:
        for n in range(count):
            attributes = {"specversion": "1.0", "type": "t", "source": "/s", "id": str(n)}
            exchange.offer(Event(attributes, b"data"), (), lambda verdict: None)
            if n % 7 == 0:
                await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE):
            while not plane.dispatcher.idle:  # noqa: ASYNC110 (as in the dispatcher itself)
                await asyncio.sleep(0.002)
    finally:
        sink.close()


def outcomes(plane: Plane) -> list[str]:
    return [entry["subscribers"][0]["outcome"] for entry in plane.journal.recent(limit=1000)]


def in_two_pieces(n: int, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
    asyncio.get_running_loop().call_later(0.002, writer.write, b"done")
    return b""


BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\n\r\n"
CLOSE = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        pytest.param(lambda n, w: OK, 1, id="nothing but accepted"),
        pytest.param(lambda n, w: BODY, 1, id="a body"),
        pytest.param(in_two_pieces, 1, id="head and body apart"),
        pytest.param(lambda n, w: CHUNKED, 1, id="chunked"),
        pytest.param(lambda n, w: HINTS + OK, 1, id="interim answers"),
        pytest.param(lambda n, w: CLOSE, EVENTS, id="a connection for each"),
        pytest.param(lambda n, w: b"HTTP/1.0 200 OK\r\n\r\ndone", EVENTS, id="HTTP/1.0"),
    ],
)
async def test_however_a_subscriber_says_that_it_accepts(
    plane: Plane, answer: Answer, connections: int
) -> None:
    sink = Sink(answer)
    await deliver(plane, sink)
    assert sink.ids == [str(n) for n in range(EVENTS)]
    assert sink.connections == connections
    assert outcomes(plane) == ["delivered"] * EVENTS
    assert all("\r\nPrefer: reply\r\nContent-Length: 4\r\n\r\n" in head for head in sink.heads)


async def test_a_refused_event_is_tried_again_before_the_next(plane: Plane) -> None:
    def refuse_every_third(n: int, writer: asyncio.StreamWriter) -> bytes:
        return OK if n % 3 else b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"

    sink = Sink(refuse_every_third)
    await deliver(plane, sink, 10, retry=2)
    assert sink.ids == ["0", "1", "2", "2", "3", "4", "4", "5", "6", "6", "7", "8", "8", "9"]
    [entry] = plane.journal.explain("2")
    attempts = entry["subscribers"][0]["attempts"]
    assert [(a["status"], a["response"]) for a in attempts] == [(503, "busy"), (202, "")]


async def test_a_kept_connection_that_was_closed_meanwhile_costs_no_attempt(plane: Plane) -> None:
    """It breaks before anything of an answer came: the event is sent again on a new one."""
    sink = Sink(lambda n, writer: None if n == 5 else OK)
    await deliver(plane, sink, 10)
    assert sink.ids == ["0", "1", "2", "3", "4", "4", "5", "6", "7", "8", "9"]
    assert sink.connections == 2
    [entry] = plane.journal.explain("4")
    assert [a["status"] for a in entry["subscribers"][0]["attempts"]] == [202]


async def test_an_answer_that_breaks_off_is_a_failure(plane: Plane) -> None:
    def break_off(n: int, writer: asyncio.StreamWriter) -> bytes | None:
        if n != 3:
            return OK
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        asyncio.get_running_loop().call_later(0.002, writer.close)
        return b""

    sink = Sink(break_off)
    await deliver(plane, sink, 6)
    assert sink.ids == [str(n) for n in range(6)]
    assert outcomes(plane) == ["delivered", "delivered", "dropped", *["delivered"] * 3]


async def test_silence_is_given_up_and_the_next_is_delivered(plane: Plane) -> None:
    silent = asyncio.Event()

    def say_nothing(n: int, writer: asyncio.StreamWriter) -> bytes:
        if n != 3:
            return OK
        silent.set()
        return b""

    async def pass_time() -> None:
        assert isinstance(plane.clock, TravelClock)
        await silent.wait()
        await plane.clock.advance(600)

    passing = asyncio.create_task(pass_time())
    sink = Sink(say_nothing)
    await deliver(plane, sink, 6, timeout=600)
    await passing
    assert sink.ids == [str(n) for n in range(6)]
    assert outcomes(plane)[2] == "dropped"
    [entry] = plane.journal.explain("2")
    assert "within 600 s" in entry["subscribers"][0]["dropped"]["reason"]


async def test_a_redirection_that_keeps_the_method_is_followed(plane: Plane) -> None:
    other = Sink(lambda n, writer: OK)
    await other.open()

    def redirect(n: int, writer: asyncio.StreamWriter) -> bytes:
        if n != 3:
            return OK
        return f"HTTP/1.1 307 There\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n".encode()

    sink = Sink(lambda n, writer: redirect(3 if sink.ids[-1] == "2" else 0, writer))
    await deliver(plane, sink, 5)
    other.close()
    assert other.ids == ["2"]
    assert outcomes(plane) == ["delivered"] * 5


async def test_a_lane_sees_that_its_subscriber_has_moved(plane: Plane) -> None:
    """In the middle of a queue, from one event to the next."""
    moved = asyncio.Event()
    new = Sink(lambda n, writer: OK)
    await new.open()

    def move(n: int, writer: asyncio.StreamWriter) -> bytes:
        if n == 3 and not moved.is_set():
            moved.set()
            asyncio.ensure_future(plane.channel("c", subscription("s", new.url)))
        return OK

    old = Sink(move)
    await deliver(plane, old, 200)
    new.close()
    assert old.ids + new.ids == [str(n) for n in range(200)]
    assert new.ids


async def test_without_order_many_are_under_way(plane: Plane) -> None:
    waiting: list[asyncio.StreamWriter] = []

    def answer_in_fours(n: int, writer: asyncio.StreamWriter) -> bytes:
        waiting.append(writer)
        if len(waiting) == 4:
            for each in waiting:
                each.write(OK)
            waiting.clear()
        return b""

    sink = Sink(answer_in_fours)
    await deliver(plane, sink, 40, parallel=4)
    assert sorted(map(int, sink.ids)) == list(range(40))
    assert sink.connections == 4


async def test_an_event_that_nobody_wants_takes_no_memory() -> None:
    engine = MemoryEngine()
    plane = Plane(SystemClock(), engine)
    exchange = await plane.channel("c")
    said: list[int] = []
    attributes = {"specversion": "1.0", "type": "t", "source": "/s", "id": "1"}
    exchange.offer(Event(attributes), (), lambda verdict: said.append(verdict.status))
    assert (said, engine.used) == ([202], 0)
    await plane.stop()


async def test_a_line_is_not_made_for_a_host_of_our_own() -> None:
    client = HttpClient(RouteTable(), SystemClock())
    assert client.line("http://one.default.svc.cluster.local/", None) is None  # type: ignore[arg-type]
    await client.close()
