from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime

import pytest

from knlocal.clock import VirtualClock
from knlocal.gateway.context import Limits
from knlocal.gateway.http import BodyTooLarge, ClientGone, Request
from knlocal.gateway.routes import Route
from knlocal.gateway.server import Gateway
from tests.gateway.conftest import DEADLINE, Door, eventually

GET = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"
CLOSING = b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n"


async def hello(request: Request) -> None:
    await request.respond(200, [("Content-Type", "text/plain")], f"hello {request.target}")


async def echo(request: Request) -> None:
    body = await request.read(10_000_000)
    trailers = ",".join(f"{name}={value}" for name, value in request.trailers.items())
    await request.respond(200, [("X-Trailers", trailers)], body)


async def test_a_kept_connection_carries_many_requests(door: Door) -> None:
    door.serve(hello)
    wire = await door.connect()
    for path in (b"/a", b"/b%20c?d=e"):
        await wire.send(b"GET " + path + b" HTTP/1.1\r\nHost: app.test\r\n\r\n")
        head, body = await wire.response()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == b"hello " + path


async def test_pipelined_requests_are_answered_in_order(door: Door) -> None:
    door.serve(echo)
    wire = await door.connect()
    requests = b"".join(
        b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\n\r\n%d" % number
        for number in range(10)
    )
    await wire.send(requests)
    assert [(await wire.response())[1] for _ in range(10)] == [b"%d" % n for n in range(10)]


@pytest.mark.parametrize("size", [1_000_000, 1000, 61])
async def test_what_is_all_here_may_be_answered_without_a_task(door: Door, size: int) -> None:
    """However many come at once, mixed with those that need their handler, in order."""

    def at_once(request: Request) -> bool:
        number = int(request.buffered() or b"0")
        if number % 5 == 0:
            return False
        if number % 7 == 0:
            asyncio.get_running_loop().call_later(0.001, request.respond_now, 200, (), str(number))
        elif number % 2:
            request.respond_now(202)
        else:
            request.respond_now(200, [("X-N", "1")], str(number))
        return True

    door.routes.put("test", {"app.test": Route(echo, at_once=at_once)})
    gateway = Gateway(door.routes, door.clock)  # which records nothing
    door.host, door.port = await gateway.listen("127.0.0.1", 0, "external")
    wire = await door.connect()
    count = 2000
    requests = b"".join(
        b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 4\r\n\r\n%04d" % number
        for number in range(count)
    )
    for start in range(0, len(requests), size):
        await wire.send(requests[start : start + size])
    for number in range(count):
        head, body = await wire.response()
        if number % 5 == 0:
            assert body == b"%04d" % number
        elif number % 7 == 0 or number % 2 == 0:
            assert body == b"%d" % number
        else:
            assert head.startswith(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nDate: ")
    await gateway.close()


async def test_a_client_that_leaves_before_it_is_answered_harms_nobody(door: Door) -> None:
    asked: list[Request] = []
    door.routes.put(
        "test", {"app.test": Route(hello, at_once=lambda request: not asked.append(request))}
    )
    gateway = Gateway(door.routes, door.clock)
    door.host, door.port = await gateway.listen("127.0.0.1", 0, "external")
    wire = await door.connect()
    await wire.send(GET.replace(b"GET", b"POST"))
    await eventually(lambda: asked)
    wire.reset()
    await eventually(lambda: asked[0]._connection.lost)  # type: ignore[attr-defined]
    asked[0].respond_now(202)
    assert not asked[0].finished
    await gateway.close()


async def test_a_request_may_arrive_byte_by_byte(door: Door) -> None:
    door.serve(echo)
    wire = await door.connect()
    message = (
        b"\r\nPOST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"
    )
    for byte in message:
        await wire.send(bytes([byte]))
        await asyncio.sleep(0)
    head, body = await wire.response()
    assert body == b"abcde"
    assert b"X-Trailers: X-Sum=5" in head


async def test_http_1_0_is_answered_and_closed(door: Door) -> None:
    door.serve(hello)
    answer = await door.exchange(b"GET /x HTTP/1.0\r\nHost: app.test\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"hello /x")


async def test_http_1_0_with_keep_alive_is_kept(door: Door) -> None:
    door.serve(hello)
    wire = await door.connect()
    for _ in range(2):
        await wire.send(b"GET /x HTTP/1.0\r\nHost: app.test\r\nConnection: keep-alive\r\n\r\n")
        head, _ = await wire.response()
        assert b"Connection: keep-alive" in head


async def test_a_streamed_answer_is_chunked_and_carries_trailers(door: Door) -> None:
    async def stream(request: Request) -> None:
        await request.start(200)
        await request.write(b"one")
        await request.write(b"two!")
        await request.finish([("X-End", "yes")])

    door.serve(stream)
    answer = await door.exchange(CLOSING)
    assert b"Transfer-Encoding: chunked" in answer
    assert answer.endswith(b"\r\n\r\n3\r\none\r\n4\r\ntwo!\r\n0\r\nX-End: yes\r\n\r\n")


async def test_a_streamed_answer_to_http_1_0_ends_with_the_connection(door: Door) -> None:
    async def stream(request: Request) -> None:
        await request.start(200)
        await request.write(b"data")
        await request.finish()

    door.serve(stream)
    answer = await door.exchange(b"GET / HTTP/1.0\r\nHost: app.test\r\n\r\n")
    assert answer.endswith(b"\r\n\r\ndata")
    assert b"chunked" not in answer


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_keep_the_connection(door: Door, status: int) -> None:
    async def empty(request: Request) -> None:
        await request.start(status)
        await request.finish()

    door.serve(empty)
    wire = await door.connect()
    for _ in range(2):
        await wire.send(GET)
        head = await wire.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d" % status)
        assert b"chunked" not in head


async def test_head_gets_the_length_but_no_body(door: Door) -> None:
    door.serve(hello)
    wire = await door.connect()
    await wire.send(b"HEAD / HTTP/1.1\r\nHost: app.test\r\n\r\n")
    assert b"Content-Length: 7" in await wire.until(b"\r\n\r\n")
    await wire.send(GET)
    assert (await wire.response())[1] == b"hello /"


def get(*lines: str, first: str = "GET / HTTP/1.1", host: str | None = "app.test") -> bytes:
    hosts = [] if host is None else [f"Host: {host}"]
    return "\r\n".join([first, *hosts, *lines, "", ""]).encode("latin-1")


def post(*lines: str, body: str = "", version: str = "HTTP/1.1") -> bytes:
    return get(*lines, first=f"POST / {version}") + body.encode()


CHUNKED = "Transfer-Encoding: chunked"

BAD = {
    "both lengths": (400, post("Content-Length: 3", CHUNKED, body="0\r\n\r\n")),
    "both lengths, turned round": (400, post(CHUNKED, "Content-Length: 3", body="0\r\n\r\n")),
    "differing lengths": (400, post("Content-Length: 3", "Content-Length: 4", body="abcd")),
    "differing lengths in one line": (400, post("Content-Length: 3, 4", body="abcd")),
    "signed length": (400, post("Content-Length: +3", body="abc")),
    "hex length": (400, post("Content-Length: 0x3", body="abc")),
    "length in other digits": (400, post("Content-Length: \xb2", body="abc")),
    "huge length": (400, post("Content-Length: " + "9" * 40)),
    "empty length": (400, post("Content-Length:")),
    "unknown coding": (501, post("Transfer-Encoding: gzip, chunked")),
    "chunked twice": (501, post(CHUNKED, CHUNKED)),
    "obfuscated coding": (400, post("Transfer-Encoding: \x0bchunked")),
    "coding in 1.0": (400, post(CHUNKED, version="HTTP/1.0")),
    "no host": (400, get(host=None)),
    "two hosts": (400, get("Host: app.test")),
    "bad host": (400, get(host="app/test")),
    "host with user": (400, get(host="a@app.test")),
    "host with a bad port": (400, get(host="app.test:http")),
    "empty host": (400, get(host="")),
    "space before the colon": (400, get("X-A : b")),
    "folded line": (400, get("X-A: b", " c")),
    "no colon": (400, get("nonsense")),
    "empty name": (400, get(": x")),
    "nul in a value": (400, get("X-A: b\0c")),
    "control byte in a value": (400, get("X-A: \x7f")),
    "bare CR": (400, get("X-A: b\rc")),
    "bare LF": (400, b"GET / HTTP/1.1\nHost: app.test\n\n"),
    "bare LF in a header": (400, b"GET / HTTP/1.1\r\nHost: app.test\nX-A: b\r\n\r\n"),
    "garbage": (400, b"hello there\r\n\r\n"),
    "HTTP/0.9": (400, b"GET /\r\n\r\n"),
    "lower-case version": (400, get(first="GET / http/1.1")),
    "two spaces": (400, get(first="GET  / HTTP/1.1")),
    "bad method": (400, get(first="G(T / HTTP/1.1")),
    "relative target": (400, get(first="GET index.html HTTP/1.1")),
    "unknown version": (505, get(first="GET / HTTP/3.0")),
    "connect": (405, get(first="CONNECT app.test:80 HTTP/1.1")),
    "long request line": (414, get(first="GET /" + "a" * 40_000 + " HTTP/1.1")),
    "endless request line": (414, b"GET /" + b"a" * 40_000),
    "long header": (431, get("X-A: " + "a" * 70_000)),
    "endless headers": (431, b"GET / HTTP/1.1\r\nHost: app.test\r\n" + b"X-A: b\r\n" * 10_000),
    "bad chunk size": (400, post(CHUNKED, body="xyz\r\n")),
    "negative chunk size": (400, post(CHUNKED, body="-1\r\n")),
    "chunk size with a bare LF": (400, post(CHUNKED, body="3\nabc\r\n0\r\n\r\n")),
    "chunk longer than its size": (400, post(CHUNKED, body="3\r\nabcdef\r\n0\r\n\r\n")),
    "endless chunk extension": (400, post(CHUNKED, body="3;" + "a" * 5000)),
    "framing in trailers": (400, post(CHUNKED, body="0\r\nContent-Length: 3\r\n\r\n")),
    "TLS on the plain port": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
}


@pytest.mark.parametrize("case", BAD)
async def test_what_could_be_misread_is_refused_and_the_connection_closed(
    door: Door, case: str
) -> None:
    door.serve(echo)
    status, data = BAD[case]
    answer = await door.exchange(data)
    assert answer[9:12] == b"%d" % status, answer
    assert b"\nHTTP/1." not in answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert body.strip()
    # The door is unharmed.
    assert (await door.exchange(CLOSING)).startswith(b"HTTP/1.1 200 ")


async def test_equal_repeated_lengths_count_as_one(door: Door) -> None:
    door.serve(echo)
    wire = await door.connect()
    await wire.send(b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3, 3\r\n\r\nabc")
    assert (await wire.response())[1] == b"abc"


async def test_a_client_that_is_slow_with_its_headers_gets_408(timed_door: Door) -> None:
    clock = timed_door.clock
    assert isinstance(clock, VirtualClock)
    wire = await timed_door.connect()
    await wire.send(b"GET / HTTP/1.1\r\nHost: app")
    connections = timed_door.gateway._listeners[0][1].connections
    await eventually(lambda: any(getattr(c, "_buffer", b"") for c in connections))
    await clock.advance(29)
    await wire.send(b".test\r\n")
    await clock.advance(2)
    answer = await wire.rest()
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_closed_in_the_end(timed_door: Door) -> None:
    clock = timed_door.clock
    assert isinstance(clock, VirtualClock)
    timed_door.serve(hello)
    wire = await timed_door.connect()
    await wire.send(GET)
    await wire.response()
    await clock.advance(299)
    await wire.send(GET)
    await wire.response()
    await clock.advance(301)
    assert await wire.rest() == b""


async def test_a_body_is_asked_for_when_it_is_read(door: Door) -> None:
    door.serve(echo)
    wire = await door.connect()
    head = b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    await wire.send(head)
    assert await wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(b"abc")
    assert (await wire.response())[1] == b"abc"
    await wire.send(GET)
    assert (await wire.response())[1] == b""


async def test_a_refusal_before_the_body_closes_the_connection(door: Door) -> None:
    async def refuse(request: Request) -> None:
        await request.respond(413, (), "no")

    door.serve(refuse)
    answer = await door.exchange(
        b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in answer


async def test_a_short_unread_body_does_not_cost_the_connection(door: Door) -> None:
    door.serve(hello)
    wire = await door.connect()
    await wire.send(b"POST /x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 100000\r\n\r\n")
    assert (await wire.response())[1] == b"hello /x"
    await wire.send(b"a" * 100_000 + GET)
    assert (await wire.response())[1] == b"hello /"


async def test_a_client_that_sends_a_long_unread_body_still_sees_the_answer(door: Door) -> None:
    door.serve(hello)
    wire = await door.connect()
    await wire.send(b"POST /x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 90000000\r\n\r\n")
    await wire.send(b"a" * 500_000)
    assert (await wire.rest()).endswith(b"hello /x")


async def test_an_absolute_target_decides_the_host(door: Door) -> None:
    async def show(request: Request) -> None:
        await request.respond(200, (), f"{request.host} {request.authority} {request.target}")

    door.serve(show)
    wire = await door.connect()
    await wire.send(b"GET http://App.Test:81/a?b HTTP/1.1\r\nHost: other.test\r\n\r\n")
    assert (await wire.response())[1] == b"app.test App.Test:81 /a?b"
    await wire.send(b"GET http://app.test HTTP/1.1\r\nHost: app.test\r\n\r\n")
    assert (await wire.response())[1] == b"app.test app.test /"


async def test_cluster_local_names_are_only_reached_through_the_door_as_a_proxy(door: Door) -> None:
    name = "app.default.svc.cluster.local"
    door.routes.put("test", {name: Route(hello, frozenset({"internal"}))})
    wire = await door.connect()
    await wire.send(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % name.encode())
    assert (await wire.response())[0].startswith(b"HTTP/1.1 404 ")
    await wire.send(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (name.encode(), name.encode()))
    assert (await wire.response())[0].startswith(b"HTTP/1.1 200 ")


async def test_an_unknown_host_gets_404_with_the_hosts_like_it(door: Door) -> None:
    door.serve(hello, "orders.default.localhost", "audit.default.localhost")
    wire = await door.connect()
    await wire.send(b"GET / HTTP/1.1\r\nHost: order.default.localhost:8080\r\n\r\n")
    head, body = await wire.response()
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"'order.default.localhost'" in body
    assert b"orders.default.localhost" in body


async def test_asterisk_form_is_for_options_only(door: Door) -> None:
    door.serve(hello)
    wire = await door.connect()
    await wire.send(b"OPTIONS * HTTP/1.1\r\nHost: app.test\r\n\r\n")
    assert (await wire.response())[1] == b"hello *"
    assert (await door.exchange(b"GET * HTTP/1.1\r\nHost: app.test\r\n\r\n"))[9:12] == b"400"


async def test_a_client_that_leaves_cancels_its_handler(door: Door) -> None:
    ended = asyncio.Event()
    started = asyncio.Event()

    async def slow(request: Request) -> None:
        started.set()
        try:
            await asyncio.sleep(DEADLINE)
        except asyncio.CancelledError:
            ended.set()
            with pytest.raises(ClientGone):
                await request.respond(200)
            raise

    door.serve(slow)
    wire = await door.connect()
    await wire.send(GET)
    await asyncio.wait_for(started.wait(), DEADLINE)
    wire.close()
    await asyncio.wait_for(ended.wait(), DEADLINE)
    await eventually(lambda: door.records)
    assert door.records[0].status == 0


async def test_a_failing_handler_gives_500_and_the_next_request_is_served(door: Door) -> None:
    async def fail(request: Request) -> None:
        if request.target == "/fail":
            raise RuntimeError("secret")
        if request.target == "/silent":
            return
        if request.target == "/large":
            raise BodyTooLarge
        await hello(request)

    door.serve(fail)
    wire = await door.connect()
    for path, status in ((b"/fail", 500), (b"/silent", 500), (b"/large", 413), (b"/", 200)):
        await wire.send(b"GET " + path + b" HTTP/1.1\r\nHost: app.test\r\n\r\n")
        head, body = await wire.response()
        assert head[9:12] == b"%d" % status
        assert b"secret" not in body
    assert door.records[0].error == "RuntimeError: secret"


async def test_a_handler_that_fails_half_way_leaves_no_complete_looking_answer(door: Door) -> None:
    async def fail(request: Request) -> None:
        await request.start(200)
        await request.write(b"part")
        await asyncio.sleep(0)
        raise RuntimeError

    door.serve(fail)
    wire = await door.connect()
    await wire.send(GET)
    try:
        answer = await wire.rest()
    except ConnectionError:
        return
    assert not answer.endswith(b"0\r\n\r\n")


async def test_header_values_cannot_break_out_of_their_line(door: Door) -> None:
    async def inject(request: Request) -> None:
        await request.respond(200, [("X-A", "b\r\nSet-Cookie: c")])

    door.serve(inject)
    answer = await door.exchange(CLOSING)
    assert b"Set-Cookie" not in answer


async def test_non_ascii_header_bytes_pass_unchanged(door: Door) -> None:
    async def mirror(request: Request) -> None:
        await request.respond(200, [("X-A", request.headers["X-A"])])

    door.serve(mirror)
    answer = await door.exchange(
        b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nX-A: gr\xc3\xbc\xff\r\n\r\n"
    )
    assert b"X-A: gr\xc3\xbc\xff\r\n" in answer


async def test_a_writer_waits_for_a_client_that_does_not_read(door: Door) -> None:
    written = 0

    async def flood(request: Request) -> None:
        nonlocal written
        await request.start(200)
        for _ in range(1000):
            await request.write(b"a" * 100_000)
            written += 100_000
        await request.finish()

    door.serve(flood)
    wire = await door.connect()
    await wire.send(CLOSING)
    await eventually(lambda: written > 0)
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert written < 50_000_000
    size = 0
    while data := await asyncio.wait_for(wire.reader.read(1 << 20), DEADLINE):
        size += len(data)
    assert size > 100_000_000


async def test_a_sender_waits_for_a_handler_that_does_not_read(door: Door) -> None:
    release = asyncio.Event()

    async def late(request: Request) -> None:
        await release.wait()
        await echo(request)

    door.serve(late)
    wire = await door.connect()
    size = 8_000_000
    wire.writer.write(b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: %d\r\n\r\n" % size)
    wire.writer.write(b"a" * size)
    await eventually(lambda: door.gateway._listeners[0][1].connections)
    for _ in range(20):
        await asyncio.sleep(0.005)
    (connection,) = door.gateway._listeners[0][1].connections
    assert connection._request.incoming._size < 2_000_000
    release.set()
    _, body = await wire.response()
    assert len(body) == size


async def test_closing_lets_answers_finish_and_idle_connections_go(door: Door) -> None:
    release = asyncio.Event()
    started = asyncio.Event()

    async def slow(request: Request) -> None:
        started.set()
        await release.wait()
        await hello(request)

    door.serve(slow)
    idle = await door.connect()
    busy = await door.connect()
    await busy.send(GET)
    await asyncio.wait_for(started.wait(), DEADLINE)
    closing = asyncio.ensure_future(door.gateway.close(grace=DEADLINE))
    assert await idle.rest() == b""
    release.set()
    answer = await busy.rest()
    assert answer.endswith(b"hello /")
    assert b"Connection: close" in answer
    await asyncio.wait_for(closing, DEADLINE)
    with pytest.raises(OSError):
        await door.connect()


async def test_closing_cuts_answers_that_outlast_the_grace(door: Door) -> None:
    started = asyncio.Event()
    cancelled = asyncio.Event()

    async def endless(request: Request) -> None:
        started.set()
        try:
            await asyncio.sleep(100)
        finally:
            cancelled.set()

    door.serve(endless)
    wire = await door.connect()
    await wire.send(GET)
    await asyncio.wait_for(started.wait(), DEADLINE)
    await asyncio.wait_for(door.gateway.close(grace=0.05), DEADLINE)
    assert cancelled.is_set()


async def test_a_port_in_use_is_an_os_error(door: Door) -> None:
    second = Gateway(door.routes, door.clock, limits=Limits(idle=1))
    with pytest.raises(OSError, match=r"in use"):
        await second.listen("127.0.0.1", door.port, "external")


async def test_every_request_is_recorded_for_the_journal(door: Door) -> None:
    door.serve(hello)
    await door.exchange(CLOSING)
    (record,) = door.records
    assert (record.method, record.host, record.target, record.status) == (
        "GET",
        "app.test",
        "/",
        200,
    )
    assert (record.bytes_out, record.protocol, record.peer) == (7, "HTTP/1.1", "127.0.0.1")


async def test_every_answer_is_dated_once(door: Door) -> None:
    async def dated(request: Request) -> None:
        own = [("Date", "Tue, 01 Jan 2030 00:00:00 GMT")] if request.target == "/own" else []
        await request.respond(200, own)

    door.serve(dated)
    wire = await door.connect()
    await wire.send(GET)
    head, _ = await wire.response()
    assert parsedate_to_datetime(head.split(b"Date: ")[1].split(b"\r\n")[0].decode()).year > 2000
    await wire.send(GET.replace(b"/ ", b"/own "))
    head, _ = await wire.response()
    assert head.count(b"Date: ") == 1
    assert b"2030" in head


async def test_a_client_that_stops_in_its_body_gets_408(timed_door: Door) -> None:
    clock = timed_door.clock
    assert isinstance(clock, VirtualClock)
    reading = asyncio.Event()

    async def read(request: Request) -> None:
        async for _ in request.body():
            reading.set()

    timed_door.serve(read)
    wire = await timed_door.connect()
    await wire.send(b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 10\r\n\r\nabc")
    await asyncio.wait_for(reading.wait(), DEADLINE)
    await clock.advance(601)
    assert (await wire.rest()).startswith(b"HTTP/1.1 408 ")


async def test_a_door_whose_time_stands_still_can_be_closed(timed_door: Door) -> None:
    started = asyncio.Event()

    async def endless(request: Request) -> None:
        started.set()
        await asyncio.Event().wait()

    timed_door.serve(endless)
    wire = await timed_door.connect()
    await wire.send(GET)
    await asyncio.wait_for(started.wait(), DEADLINE)
    await asyncio.wait_for(timed_door.gateway.close(grace=0.05), DEADLINE)
