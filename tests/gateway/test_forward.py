from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from knlocal.clock import VirtualClock
from knlocal.gateway.forward import NotSent, Timeouts
from knlocal.gateway.upstream import Endpoint
from tests.gateway.conftest import DEADLINE, Door, Script, Upstream, Wire, eventually

Start = Callable[[Script], Awaitable[Upstream]]

GET = b"GET /p?q=1 HTTP/1.1\r\nHost: app.test:8080\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answering(answer: bytes, heads: list[bytes] | None = None) -> Script:
    """Gives every request without a body the same answer, and collects their heads."""

    async def script(wire: Wire) -> None:
        while True:
            head = await wire.until(b"\r\n\r\n")
            if heads is not None:
                heads.append(head)
            await wire.send(answer)

    return script


def header_of(head: bytes, name: str) -> str | None:
    found = re.search(rb"(?im)^" + name.encode() + rb": (.*?)\r$", head)
    return found[1].decode() if found else None


# What the upstream sees


async def test_the_request_arrives_as_it_was_sent(door: Door, upstream: Start) -> None:
    heads: list[bytes] = []
    server = await upstream(answering(OK, heads))
    door.forward_to(server.endpoint)
    wire = await door.connect()
    await wire.send(
        b"PURGE /a%20b?x=1&y=%2F HTTP/1.1\r\nhOST: app.test:8080\r\nX-MiXed: One\r\n"
        b"x-mixed: two\r\nX-Empty:\r\n\r\n"
    )
    assert (await wire.response())[1] == b"ok"
    assert heads[0].startswith(b"PURGE /a%20b?x=1&y=%2F HTTP/1.1\r\nHost: app.test:8080\r\n")
    assert b"\r\nX-MiXed: One\r\nx-mixed: two\r\nX-Empty: \r\n" in heads[0]
    assert header_of(heads[0], "User-Agent") is None
    assert header_of(heads[0], "Content-Length") is None


async def test_the_upstream_learns_where_the_request_came_from(door: Door, upstream: Start) -> None:
    heads: list[bytes] = []
    server = await upstream(answering(OK, heads))
    door.forward_to(server.endpoint)
    wire = await door.connect()
    for _ in range(2):
        await wire.send(GET)
        await wire.response()
    assert header_of(heads[0], "X-Forwarded-For") == "127.0.0.1"
    assert header_of(heads[0], "X-Forwarded-Proto") == "http"
    assert header_of(heads[0], "X-Forwarded-Host") == "app.test:8080"
    assert header_of(heads[0], "Forwarded") == 'for=127.0.0.1;host="app.test:8080";proto=http'
    ids = {header_of(head, "X-Request-Id") for head in heads}
    assert len(ids) == 2
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", str(i)) for i in ids)


async def test_earlier_hops_are_kept(door: Door, upstream: Start) -> None:
    heads: list[bytes] = []
    server = await upstream(answering(OK, heads))
    door.forward_to(server.endpoint)
    wire = await door.connect()
    await wire.send(
        b"GET / HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: 192.0.2.1, 2001:db8::1\r\n"
        b"X-Forwarded-Proto: https\r\nX-Request-Id: mine\r\n\r\n"
    )
    await wire.response()
    assert header_of(heads[0], "X-Forwarded-For") == "192.0.2.1, 2001:db8::1, 127.0.0.1"
    assert header_of(heads[0], "X-Forwarded-Proto") == "https"
    assert header_of(heads[0], "X-Request-Id") == "mine"
    assert (
        header_of(heads[0], "Forwarded")
        == 'for=192.0.2.1;host=app.test;proto=https, for="[2001:db8::1]", for=127.0.0.1'
    )


async def test_hop_by_hop_headers_end_here_in_both_directions(door: Door, upstream: Start) -> None:
    heads: list[bytes] = []
    server = await upstream(
        answering(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Secret\r\nX-Secret: a\r\n"
            b"Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nX-Kept: b\r\n\r\nok",
            heads,
        )
    )
    door.forward_to(server.endpoint)
    wire = await door.connect()
    await wire.send(
        b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: keep-alive, X-Drop\r\nX-Drop: 1\r\n"
        b"Keep-Alive: 5\r\nProxy-Authorization: x\r\nTE: trailers, gzip\r\nX-Keep: 1\r\n\r\n"
    )
    head, _ = await wire.response()
    for name in ("X-Secret", "Keep-Alive", "Proxy-Authenticate", "Connection"):
        assert header_of(head, name) is None
    assert header_of(head, "X-Kept") == "b"
    for name in ("Connection", "X-Drop", "Keep-Alive", "Proxy-Authorization"):
        assert header_of(heads[0], name) is None
    assert header_of(heads[0], "X-Keep") == "1"
    assert header_of(heads[0], "TE") == "trailers"


async def test_headers_are_set_and_removed_for_the_upstream(door: Door, upstream: Start) -> None:
    heads: list[bytes] = []
    server = await upstream(answering(OK, heads))
    door.forward_to(
        server.endpoint,
        set_headers={"Knative-Serving-Revision": "app-00001"},
        remove_headers=("K-Proxy-Request",),
    )
    wire = await door.connect()
    await wire.send(
        b"GET / HTTP/1.1\r\nHost: app.test\r\nk-proxy-request: a\r\n"
        b"knative-serving-revision: forged\r\n\r\n"
    )
    await wire.response()
    assert header_of(heads[0], "K-Proxy-Request") is None
    assert re.findall(rb"(?i)knative-serving-revision: (.*)\r", heads[0]) == [b"app-00001"]


# Bodies


@pytest.mark.parametrize("size", [0, 1, 100, 300_000, 5_000_000])
@pytest.mark.parametrize("chunked", [True, False])
async def test_bodies_of_any_size_pass_both_ways(door: Door, size: int, chunked: bool) -> None:
    async def mirror(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.content.read())

    async with _aiohttp_server(mirror) as endpoint:
        door.forward_to(endpoint)
        data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

        async def pieces() -> object:
            for start in range(0, size, 10_000):
                yield data[start : start + 10_000]

        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                async with session.post(
                    f"http://{door.host}:{door.port}/",
                    data=pieces() if chunked else data,
                    headers={"Host": "app.test"},
                ) as response:
                    assert response.status == 200
                    assert await response.read() == data
    assert [(f.bytes_in, f.bytes_out) for f in door.forwarded] == [(size, size)] * 2


async def test_request_and_answer_stream_at_the_same_time(door: Door, upstream: Start) -> None:
    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            size = int((await wire.until(b"\r\n")).strip(), 16)
            data = await wire.exactly(size + 2)
            await wire.send(b"%x\r\n%b\r\n" % (size, data[:-2]))
            if size == 0:
                return

    server = await upstream(script)
    door.forward_to(server.endpoint)
    wire = await door.connect()
    await wire.send(b"POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert b"chunked" in await wire.until(b"\r\n\r\n")
    for word in (b"ping", b"pong"):
        await wire.send(b"4\r\n%b\r\n" % word)
        assert await wire.exactly(9) == b"4\r\n%b\r\n" % word
    await wire.send(b"0\r\n\r\n")
    assert await wire.exactly(5) == b"0\r\n\r\n"


async def test_trailers_pass_both_ways(door: Door, upstream: Start) -> None:
    received: list[bytes] = []

    async def script(wire: Wire) -> None:
        received.append(await wire.until(b"\r\n\r\n"))
        received.append(await wire.until(b"X-Sum: 3\r\n\r\n"))
        await wire.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\n\r\n"
            b"2\r\nok\r\n0\r\nX-Check: yes\r\n\r\n"
        )

    server = await upstream(script)
    door.forward_to(server.endpoint)
    wire = await door.connect()
    await wire.send(
        b"POST / HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n"
    )
    assert header_of(await wire.until(b"\r\n\r\n"), "Trailer") == "X-Check"
    assert await wire.until(b"X-Check: yes\r\n\r\n") == b"2\r\nok\r\n0\r\nX-Check: yes\r\n\r\n"
    assert header_of(received[0], "Trailer") == "X-Sum"


@pytest.mark.parametrize(
    ("method", "answer", "expected"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"Content-Length: 5"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 304"),
        (b"GET", b"HTTP/1.1 299 Odd Words\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 299 Odd Words"),
    ],
)
async def test_answers_without_a_body_leave_both_connections_usable(
    door: Door, upstream: Start, method: bytes, answer: bytes, expected: bytes
) -> None:
    server = await upstream(answering(answer))
    door.forward_to(server.endpoint)
    wire = await door.connect()
    for _ in range(3):
        await wire.send(method + b" / HTTP/1.1\r\nHost: app.test\r\n\r\n")
        head = await wire.until(b"\r\n\r\n")
        assert expected in head
        assert b"chunked" not in head
    assert server.connections == 1


async def test_an_answer_that_ends_with_the_connection_is_complete(
    door: Door, upstream: Start
) -> None:
    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.send(b"HTTP/1.0 200 OK\r\nX-Old: yes\r\n\r\nsome ")
        await wire.send(b"data")

    server = await upstream(script)
    door.forward_to(server.endpoint)
    wire = await door.connect()
    for _ in range(2):
        await wire.send(GET)
        assert b"chunked" in await wire.until(b"\r\n\r\n")
        body = await wire.until(b"0\r\n\r\n")
        assert re.sub(rb"(^|\r\n)[0-9a-f]\r\n|\r\n", b"", body) == b"some data"


async def test_old_spellings_of_an_answer_are_understood(door: Door, upstream: Start) -> None:
    server = await upstream(answering(b"HTTP/1.1 200\nX-A: b\n c\nContent-Length: 2\n\nok"))
    door.forward_to(server.endpoint)
    wire = await door.connect()
    await wire.send(GET)
    head, body = await wire.response()
    assert (header_of(head, "X-A"), body) == ("b c", b"ok")


async def test_expect_100_continue_is_settled_between_client_and_upstream(
    door: Door, upstream: Start
) -> None:
    async def script(wire: Wire) -> None:
        head = await wire.until(b"\r\n\r\n")
        assert header_of(head, "Expect") == "100-continue"
        if b"/refuse" in head:
            await wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            return
        await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await wire.exactly(3) == b"abc"
        await wire.send(OK)

    server = await upstream(script)
    door.forward_to(server.endpoint)
    wire = await door.connect()
    rest = b" HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    await wire.send(b"POST /accept" + rest)
    assert await wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(b"abc")
    assert (await wire.response())[1] == b"ok"
    await wire.send(b"POST /refuse" + rest)
    assert (await wire.rest()).startswith(b"HTTP/1.1 413 ")


async def test_the_body_goes_without_100_when_the_upstream_does_not_know_it(
    timed_door: Door, upstream: Start
) -> None:
    arrived = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        arrived.set()
        assert await wire.exactly(3) == b"abc"
        await wire.send(OK)

    server = await upstream(script)
    timed_door.forward_to(server.endpoint)
    wire = await timed_door.connect()
    await wire.send(
        b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    )
    await asyncio.wait_for(arrived.wait(), DEADLINE)
    assert isinstance(timed_door.clock, VirtualClock)
    await timed_door.clock.advance(1)
    assert await wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(b"abc")
    assert (await wire.response())[1] == b"ok"


async def test_interim_answers_pass(door: Door, upstream: Start) -> None:
    server = await upstream(
        answering(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + OK)
    )
    door.forward_to(server.endpoint)
    wire = await door.connect()
    await wire.send(GET)
    assert await wire.until(b"\r\n\r\n") == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    assert (await wire.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 102 ")
    assert (await wire.response())[1] == b"ok"


# Connections


async def test_upstream_connections_are_kept_and_shared(door: Door, upstream: Start) -> None:
    server = await upstream(answering(OK))
    door.forward_to(server.endpoint)
    for _ in range(5):
        wire = await door.connect()
        await wire.send(GET)
        await wire.response()
    assert server.connections == 1


async def test_nothing_listening_is_not_sent_so_that_another_pod_may_get_it(
    door: Door, free_port: Callable[[], int]
) -> None:
    door.forward_to(Endpoint("127.0.0.1", free_port()))
    wire = await door.connect()
    await wire.send(b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n\r\nabc")
    head, body = await wire.response()
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"connection refused" in body
    (failure,) = door.failures
    assert isinstance(failure, NotSent)


async def test_a_request_that_was_not_sent_can_go_to_another_pod_whole(
    door: Door, upstream: Start, free_port: Callable[[], int]
) -> None:
    from knlocal.gateway.forward import forward
    from knlocal.gateway.http import Request

    bodies: list[bytes] = []

    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        bodies.append(await wire.exactly(3))
        await wire.send(OK)

    server = await upstream(script)
    dead = Endpoint("127.0.0.1", free_port())

    async def handler(request: Request) -> None:
        with pytest.raises(NotSent):
            await forward(request, dead, pool=door.pool, clock=door.clock)
        await forward(request, server.endpoint, pool=door.pool, clock=door.clock)

    door.serve(handler)
    wire = await door.connect()
    await wire.send(b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n\r\nabc")
    assert (await wire.response())[1] == b"ok"
    assert bodies == [b"abc"]


def closing_after_one(heads: list[bytes], answered: asyncio.Event) -> Script:
    """Answers once, then takes the next request and closes without a word."""

    async def script(wire: Wire) -> None:
        heads.append(await wire.until(b"\r\n\r\n"))
        await wire.send(OK)
        answered.set()
        await wire.until(b"\r\n\r\n")

    return script


async def test_a_get_survives_a_kept_connection_that_died(door: Door, upstream: Start) -> None:
    heads: list[bytes] = []
    server = await upstream(closing_after_one(heads, asyncio.Event()))
    door.forward_to(server.endpoint)
    wire = await door.connect()
    for _ in range(3):
        await wire.send(GET)
        assert (await wire.response())[1] == b"ok"
    assert server.connections == 3


async def test_a_post_is_never_sent_twice(door: Door, upstream: Start) -> None:
    heads: list[bytes] = []
    server = await upstream(closing_after_one(heads, asyncio.Event()))
    door.forward_to(server.endpoint)
    wire = await door.connect()
    post = b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n"
    await wire.send(post)
    await wire.response()
    await wire.send(post)
    assert (await wire.response())[0].startswith(b"HTTP/1.1 502 ")
    assert server.connections == 1
    await wire.send(post.replace(b"\r\n\r\n", b"\r\nIdempotency-Key: 1\r\n\r\n"))
    assert (await wire.response())[1] == b"ok"


async def test_a_connection_closed_while_idle_is_not_used_again(
    door: Door, upstream: Start
) -> None:
    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.send(OK)

    server = await upstream(script)
    door.forward_to(server.endpoint)
    wire = await door.connect()
    post = b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n"
    for number in range(3):
        await wire.send(post)
        assert (await wire.response())[1] == b"ok"
        await eventually(lambda: all(c.lost for opened in door.pool._open.values() for c in opened))
        assert server.connections == number + 1


async def test_connections_to_a_pod_that_is_gone_are_closed(door: Door, upstream: Start) -> None:
    gone = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.send(OK)
        try:
            await wire.rest()
        finally:
            gone.set()

    server = await upstream(script)
    door.forward_to(server.endpoint)
    wire = await door.connect()
    await wire.send(GET)
    await wire.response()
    door.pool.close_endpoint(server.endpoint.host, server.endpoint.port)
    await asyncio.wait_for(gone.wait(), DEADLINE)


async def test_idle_upstream_connections_are_closed_in_the_end(
    timed_door: Door, upstream: Start
) -> None:
    gone = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.send(OK)
        await wire.rest()
        gone.set()

    server = await upstream(script)
    timed_door.forward_to(server.endpoint)
    wire = await timed_door.connect()
    await wire.send(GET)
    await wire.response()
    assert isinstance(timed_door.clock, VirtualClock)
    await timed_door.clock.advance(120)
    await asyncio.wait_for(gone.wait(), DEADLINE)


async def test_a_client_that_leaves_takes_its_upstream_request_along(
    door: Door, upstream: Start
) -> None:
    arrived = asyncio.Event()
    gone = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        arrived.set()
        try:
            await wire.rest()
        finally:
            gone.set()

    server = await upstream(script)
    door.forward_to(server.endpoint)
    wire = await door.connect()
    await wire.send(GET)
    await asyncio.wait_for(arrived.wait(), DEADLINE)
    wire.close()
    await asyncio.wait_for(gone.wait(), DEADLINE)


# Upstreams that fail


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
    ],
)
async def test_an_upstream_that_does_not_speak_http_gives_502(
    door: Door, upstream: Start, answer: bytes
) -> None:
    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.send(answer)

    server = await upstream(script)
    door.forward_to(server.endpoint)
    wire = await door.connect()
    await wire.send(GET)
    head, body = await wire.response()
    assert head.startswith(b"HTTP/1.1 502 ")
    assert str(server.endpoint).encode() in body
    assert door.forwarded[0].status == 502
    assert door.forwarded[0].upstream_error


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxx\r\n",
    ],
)
async def test_an_answer_that_breaks_off_never_looks_complete(
    door: Door, upstream: Start, answer: bytes
) -> None:
    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.send(answer)

    server = await upstream(script)
    door.forward_to(server.endpoint)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            async with session.get(
                f"http://{door.host}:{door.port}/", headers={"Host": "app.test"}
            ) as response:
                await response.read()
    await eventually(lambda: door.forwarded)
    assert door.forwarded[0].upstream_error


async def test_an_answer_with_two_lengths_is_framed_anew(door: Door, upstream: Start) -> None:
    server = await upstream(
        answering(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nok\r\n0\r\n\r\n"
        )
    )
    door.forward_to(server.endpoint)
    wire = await door.connect()
    await wire.send(GET)
    head = await wire.until(b"\r\n\r\n")
    assert header_of(head, "Content-Length") is None
    assert await wire.until(b"0\r\n\r\n") == b"2\r\nok\r\n0\r\n\r\n"


async def test_bytes_after_an_answer_never_reach_another_request(
    door: Door, upstream: Start
) -> None:
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    server = await upstream(answering(OK + poison))
    door.forward_to(server.endpoint)
    wire = await door.connect()
    for _ in range(3):
        await wire.send(GET)
        assert (await wire.response())[1] == b"ok"


async def test_an_upstream_may_refuse_without_reading_the_body(door: Door, upstream: Start) -> None:
    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")

    server = await upstream(script)
    door.forward_to(server.endpoint)
    wire = await door.connect()
    await wire.send(b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 90000000\r\n\r\n")
    await wire.send(b"a" * 1000)
    answer = await wire.rest()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"big")


# Timeouts (serving pkg/http/handler/timeout.go)


class Slow:
    """An upstream that says what it is told to say, when it is told."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.gone = asyncio.Event()
        self.wire: Wire | None = None

    async def script(self, wire: Wire) -> None:
        self.wire = wire
        await wire.until(b"\r\n\r\n")
        self.arrived.set()
        try:
            await wire.rest()
        finally:
            self.gone.set()

    async def say(self, data: bytes) -> None:
        assert self.wire is not None
        await self.wire.send(data)


@pytest.mark.parametrize(
    ("timeouts", "which"),
    [
        (Timeouts(total=10), "total"),
        (Timeouts(total=60, response_start=10), "response_start"),
        (Timeouts(total=60, response_start=30, idle=10), "idle"),
    ],
)
async def test_a_timeout_before_the_first_byte_gives_504(
    timed_door: Door, upstream: Start, timeouts: Timeouts, which: str
) -> None:
    slow = Slow()
    server = await upstream(slow.script)
    timed_door.forward_to(server.endpoint, timeouts)
    clock = timed_door.clock
    assert isinstance(clock, VirtualClock)
    wire = await timed_door.connect()
    await wire.send(GET)
    await asyncio.wait_for(slow.arrived.wait(), DEADLINE)
    await clock.advance(9.9)
    assert not timed_door.forwarded
    await clock.advance(0.1)
    head, body = await wire.response()
    assert head.startswith(b"HTTP/1.1 504 ")
    assert body == b"request timeout"
    await asyncio.wait_for(slow.gone.wait(), DEADLINE)
    (result,) = timed_door.forwarded
    assert (result.status, result.timed_out) == (504, which)


@pytest.mark.parametrize("timeouts", [Timeouts(total=10), Timeouts(total=60, idle=10)])
async def test_a_timeout_after_the_start_appends_its_text_and_ends_cleanly(
    timed_door: Door, upstream: Start, timeouts: Timeouts
) -> None:
    slow = Slow()
    server = await upstream(slow.script)
    timed_door.forward_to(server.endpoint, timeouts)
    clock = timed_door.clock
    assert isinstance(clock, VirtualClock)
    wire = await timed_door.connect()
    await wire.send(GET)
    await asyncio.wait_for(slow.arrived.wait(), DEADLINE)
    await slow.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    await wire.until(b"2\r\nok\r\n")
    await clock.advance(10)
    assert await wire.until(b"0\r\n\r\n") == b"f\r\nrequest timeout\r\n0\r\n\r\n"
    await asyncio.wait_for(slow.gone.wait(), DEADLINE)
    # The client's connection is still good.
    await wire.send(b"GET / HTTP/1.1\r\nHost: unknown.test\r\n\r\n")
    assert (await wire.response())[0].startswith(b"HTTP/1.1 404 ")


async def test_a_timeout_within_an_announced_length_does_not_fake_its_end(
    timed_door: Door, upstream: Start
) -> None:
    slow = Slow()
    server = await upstream(slow.script)
    timed_door.forward_to(server.endpoint, Timeouts(total=10))
    clock = timed_door.clock
    assert isinstance(clock, VirtualClock)
    wire = await timed_door.connect()
    await wire.send(GET)
    await asyncio.wait_for(slow.arrived.wait(), DEADLINE)
    await slow.say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok")
    await wire.until(b"ok")
    await clock.advance(10)
    try:
        rest = await wire.rest()
    except ConnectionError:
        return
    assert len(rest) < 98


async def test_writes_put_the_idle_timeout_off(timed_door: Door, upstream: Start) -> None:
    slow = Slow()
    server = await upstream(slow.script)
    timed_door.forward_to(server.endpoint, Timeouts(idle=10))
    clock = timed_door.clock
    assert isinstance(clock, VirtualClock)
    wire = await timed_door.connect()
    await wire.send(GET)
    await asyncio.wait_for(slow.arrived.wait(), DEADLINE)
    await slow.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await wire.until(b"\r\n\r\n")
    for _ in range(4):
        await clock.advance(8)
        await slow.say(b"2\r\nok\r\n")
        assert await wire.until(b"ok\r\n") == b"2\r\nok\r\n"
    await clock.advance(9.9)
    assert not timed_door.forwarded
    await clock.advance(0.1)
    assert b"request timeout" in await wire.until(b"0\r\n\r\n")


async def test_a_started_answer_outlives_the_response_start_timeout(
    timed_door: Door, upstream: Start
) -> None:
    slow = Slow()
    server = await upstream(slow.script)
    timed_door.forward_to(server.endpoint, Timeouts(response_start=5))
    clock = timed_door.clock
    assert isinstance(clock, VirtualClock)
    wire = await timed_door.connect()
    await wire.send(GET)
    await asyncio.wait_for(slow.arrived.wait(), DEADLINE)
    await slow.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    await wire.until(b"ok\r\n")
    await clock.advance(100)
    await slow.say(b"0\r\n\r\n")
    assert await wire.until(b"\r\n\r\n") == b"0\r\n\r\n"
    await eventually(lambda: timed_door.forwarded)
    assert timed_door.forwarded[0].timed_out == ""


# Upgrades


async def test_websockets_pass_in_both_directions(door: Door) -> None:
    async def chat(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=["chat"])
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data.upper())
            else:
                await socket.send_bytes(message.data[::-1])
        return socket

    async with _aiohttp_server(chat) as endpoint:
        door.forward_to(endpoint, Timeouts(total=300))
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"ws://{door.host}:{door.port}/", headers={"Host": "app.test"}, protocols=["chat"]
            ) as socket,
        ):
            assert socket.protocol == "chat"
            await socket.send_str("hello")
            assert await socket.receive_str(timeout=DEADLINE) == "HELLO"
            data = bytes(range(256)) * 4000
            await socket.send_bytes(data)
            assert await socket.receive_bytes(timeout=DEADLINE) == data[::-1]
            await socket.close(code=1000)
            assert socket.close_code == 1000
    await eventually(lambda: door.forwarded)
    await eventually(lambda: not door.pool._open)
    (result,) = door.forwarded
    assert result.upgraded
    assert result.status == 101
    assert result.bytes_in > 1_000_000


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: raw\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"


async def test_any_upgrade_is_a_tunnel_with_half_close(door: Door, upstream: Start) -> None:
    async def script(wire: Wire) -> None:
        head = await wire.until(b"\r\n\r\n")
        assert header_of(head, "Upgrade") == "raw"
        assert header_of(head, "Connection") == "Upgrade"
        await wire.send(SWITCH + b"early")
        everything = await wire.rest()
        await wire.send(b"got %d" % len(everything))

    server = await upstream(script)
    door.forward_to(server.endpoint)
    wire = await door.connect()
    await wire.send(UPGRADE + b"first")
    head = await wire.until(b"\r\n\r\n")
    assert header_of(head, "Upgrade") == "raw"
    assert await wire.exactly(5) == b"early"
    await wire.send(b"x" * 1_000_000)
    wire.writer.write_eof()
    assert await wire.rest() == b"got 1000005"


async def test_a_refused_upgrade_is_an_ordinary_answer(door: Door, upstream: Start) -> None:
    server = await upstream(answering(OK))
    door.forward_to(server.endpoint)
    wire = await door.connect()
    for _ in range(2):
        await wire.send(UPGRADE)
        assert (await wire.response())[1] == b"ok"


@pytest.mark.parametrize(
    "timeouts", [Timeouts(total=10), Timeouts(response_start=10), Timeouts(idle=10)]
)
async def test_every_timeout_ends_a_tunnel(
    timed_door: Door, upstream: Start, timeouts: Timeouts
) -> None:
    gone = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.send(SWITCH)
        try:
            while data := await wire.reader.read(100):
                await wire.send(data)
        finally:
            gone.set()

    server = await upstream(script)
    timed_door.forward_to(server.endpoint, timeouts)
    clock = timed_door.clock
    assert isinstance(clock, VirtualClock)
    wire = await timed_door.connect()
    await wire.send(UPGRADE)
    await wire.until(b"\r\n\r\n")
    await clock.advance(9)
    await wire.send(b"ping")
    assert await wire.exactly(4) == b"ping"
    await clock.advance(1)
    assert await wire.rest() == b""
    await asyncio.wait_for(gone.wait(), DEADLINE)
    assert timed_door.forwarded[0].timed_out


async def test_a_tunnel_ends_when_the_upstream_dies(door: Door, upstream: Start) -> None:
    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.send(SWITCH)
        await wire.exactly(1)
        wire.reset()

    server = await upstream(script)
    door.forward_to(server.endpoint)
    wire = await door.connect()
    await wire.send(UPGRADE)
    await wire.until(b"\r\n\r\n")
    await wire.send(b"x")
    assert await wire.rest() == b""
    wire.close()
    await eventually(lambda: door.forwarded)


class _aiohttp_server:
    """A running aiohttp application that hands every request to `handler`."""

    def __init__(self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self._server = web.ServerRunner(
            web.Server(handler)  # type: ignore[arg-type]
        )

    async def __aenter__(self) -> Endpoint:
        await self._server.setup()
        site = web.TCPSite(self._server, "127.0.0.1", 0)
        await site.start()
        host, port = self._server.addresses[0][:2]
        return Endpoint(host, port)

    async def __aexit__(self, *exc: object) -> None:
        await self._server.cleanup()
