from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from knlocal.clock import SystemClock, VirtualClock
from knlocal.gateway.client import (
    ConnectError,
    HttpClient,
    HttpClientError,
    InvalidUrl,
    ProtocolError,
    RequestTimeout,
    ResponseTooLarge,
)
from knlocal.gateway.http import Request
from knlocal.gateway.routes import Route, RouteTable
from tests.gateway.conftest import DEADLINE, Door, Script, Upstream, Wire
from tests.gateway.test_forward import OK, answering, header_of

Start = Callable[[Script], Awaitable[Upstream]]


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    opened = HttpClient(RouteTable(), SystemClock(), max_response=1_000_000)
    yield opened
    await opened.close()


def url_of(server: Upstream, path: str = "/") -> str:
    return f"http://{server.endpoint}{path}"


async def test_a_post_arrives_whole_and_its_answer_comes_back(
    client: HttpClient, upstream: Start
) -> None:
    heads: list[bytes] = []

    async def script(wire: Wire) -> None:
        while True:
            heads.append(await wire.until(b"\r\n\r\n"))
            assert await wire.exactly(5) == b"event"
            await wire.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok")

    server = await upstream(script)
    for _ in range(3):
        response = await client.request(
            "POST", url_of(server, "/in?q=ü x"), [("Ce-Id", "1"), ("Ce-Type", "ü")], b"event"
        )
        assert (response.status, response.body) == (202, b"ok")
        assert response.headers["x-a"] == "b"
    assert server.connections == 1
    assert heads[0].startswith(b"POST /in?q=%C3%BC%20x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert header_of(heads[0], "Content-Length") == "5"
    assert header_of(heads[0], "Ce-Type") == "ü"
    assert header_of(heads[0], "User-Agent") is None


async def test_an_empty_post_says_so(client: HttpClient, upstream: Start) -> None:
    heads: list[bytes] = []
    server = await upstream(answering(OK, heads))
    await client.request("POST", url_of(server))
    await client.request("GET", url_of(server))
    assert header_of(heads[0], "Content-Length") == "0"
    assert header_of(heads[1], "Content-Length") is None


async def test_chunked_and_unframed_answers_are_read_to_their_end(
    client: HttpClient, upstream: Start
) -> None:
    async def script(wire: Wire) -> None:
        head = await wire.until(b"\r\n\r\n")
        if b"/chunked" in head:
            await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
            await asyncio.sleep(0)
            await wire.send(b"1\r\nc\r\n0\r\nX-T: 1\r\n\r\n")
        else:
            await wire.send(b"HTTP/1.1 200 OK\r\n\r\nabc")

    server = await upstream(script)
    for path in ("/chunked", "/close"):
        assert (await client.request("GET", url_of(server, path))).body == b"abc"


async def test_a_dead_kept_connection_is_replaced(client: HttpClient, upstream: Start) -> None:
    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.send(OK)
        await wire.until(b"\r\n\r\n")

    server = await upstream(script)
    for _ in range(3):
        assert (await client.request("POST", url_of(server))).status == 200
    assert server.connections == 3


async def test_nobody_listening_is_a_connect_error(
    client: HttpClient, free_port: Callable[[], int]
) -> None:
    port = free_port()
    with pytest.raises(ConnectError, match=f"127.0.0.1:{port}: connection refused"):
        await client.request("POST", f"http://127.0.0.1:{port}/")


async def test_a_name_that_does_not_resolve_is_a_connect_error(client: HttpClient) -> None:
    with pytest.raises(ConnectError, match="does not resolve"):
        await client.request("POST", "http://no-such-host.invalid/", timeout=DEADLINE)


async def test_no_answer_in_time_is_a_timeout(upstream: Start) -> None:
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
    clock = VirtualClock()
    client = HttpClient(None, clock)
    task = asyncio.ensure_future(client.request("GET", url_of(server), timeout=5))
    await asyncio.wait_for(arrived.wait(), DEADLINE)
    await clock.advance(5)
    with pytest.raises(RequestTimeout, match="did not answer within 5 s"):
        await asyncio.wait_for(task, DEADLINE)
    await asyncio.wait_for(gone.wait(), DEADLINE)
    await client.close()


async def test_a_cancelled_request_is_cancelled_not_timed_out(
    client: HttpClient, upstream: Start
) -> None:
    arrived = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        arrived.set()
        await wire.rest()

    server = await upstream(script)
    task = asyncio.ensure_future(client.request("GET", url_of(server)))
    await asyncio.wait_for(arrived.wait(), DEADLINE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ProtocolError),
        (b"SMTP ready\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", ProtocolError),
        (b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 1_000_001, ResponseTooLarge),
    ],
)
async def test_bad_answers_are_errors_with_a_reason(
    client: HttpClient, upstream: Start, answer: bytes, error: type[HttpClientError]
) -> None:
    async def script(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.send(answer)

    server = await upstream(script)
    with pytest.raises(error) as caught:
        await client.request("GET", url_of(server))
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "orders", "/path", "ftp://x/", "http://", "http://a b/", "http://x:port/"]
)
async def test_what_is_not_an_http_url_is_refused(client: HttpClient, url: str) -> None:
    with pytest.raises(InvalidUrl):
        await client.request("GET", url)


async def test_header_values_cannot_break_out(client: HttpClient, upstream: Start) -> None:
    server = await upstream(answering(OK))
    with pytest.raises(ProtocolError, match="line break"):
        await client.request("GET", url_of(server), [("X-A", "b\r\nX-B: c")])


# Names of this gateway


async def show(request: Request) -> None:
    body = await request.read(1000)
    await request.respond(
        200,
        [("X-Exposure", request.exposure)],
        f"{request.method} {request.host} {request.authority} {request.target} {body.decode()}",
    )


@pytest.mark.parametrize(
    "name",
    ["app.shop.svc.cluster.local", "app.shop.svc", "app.shop", "APP.shop.svc.cluster.local."],
)
async def test_cluster_local_names_are_answered_in_process(name: str) -> None:
    routes = RouteTable()
    routes.put("a", {"app.shop.svc.cluster.local": Route(show, frozenset({"internal"}))})
    client = HttpClient(routes, SystemClock())
    response = await client.request("POST", f"http://{name}/p?q", body=b"data")
    method, host, authority, target, body = response.body.decode().split()
    assert (method, host, target, body) == ("POST", "app.shop.svc.cluster.local", "/p?q", "data")
    assert authority == name
    assert response.headers["X-Exposure"] == "internal"
    await client.close()


async def test_the_hosts_people_use_are_answered_in_process_whatever_the_port() -> None:
    routes = RouteTable()
    routes.put("a", {"app.shop.localhost": Route(show, frozenset({"external"}))})
    client = HttpClient(routes, SystemClock())
    response = await client.request("GET", "http://app.shop.localhost:8080/")
    assert response.headers["X-Exposure"] == "external"
    await client.close()


async def test_an_unknown_cluster_name_says_which_there_are() -> None:
    routes = RouteTable()
    routes.put("a", {"orders.shop.svc.cluster.local": Route(show)})
    client = HttpClient(routes, SystemClock())
    with pytest.raises(ConnectError, match="names like it: orders.shop.svc.cluster.local"):
        await client.request("GET", "http://order.shop.svc.cluster.local/")
    await client.close()


async def test_a_handler_in_process_may_forward_to_a_pod(door: Door, upstream: Start) -> None:
    heads: list[bytes] = []
    server = await upstream(answering(OK, heads))
    door.forward_to(server.endpoint)
    client = HttpClient(door.routes, door.clock, door.pool)
    response = await client.request("GET", "http://app.test/x", [("Traceparent", "00-ab-cd-01")])
    assert (response.status, response.body) == (200, b"ok")
    assert heads[0].startswith(b"GET /x HTTP/1.1\r\nHost: app.test\r\n")
    assert header_of(heads[0], "Traceparent") == "00-ab-cd-01"


async def test_failing_handlers_in_process_answer_as_through_the_door() -> None:
    async def fail(request: Request) -> None:
        if request.target == "/half":
            await request.start(200)
            await request.write(b"half")
        if request.target == "/flood":
            await request.start(200)
            while True:
                await request.write(b"a" * 1000)
        if request.target == "/slow":
            await asyncio.sleep(DEADLINE)
        raise RuntimeError

    routes = RouteTable()
    routes.put("a", {"app.test": Route(fail)})
    client = HttpClient(routes, SystemClock(), max_response=100_000)
    assert (await client.request("GET", "http://app.test/")).status == 500
    with pytest.raises(ProtocolError, match="broke off"):
        await client.request("GET", "http://app.test/half")
    with pytest.raises(ResponseTooLarge):
        await client.request("GET", "http://app.test/flood")
    with pytest.raises(RequestTimeout):
        await client.request("GET", "http://app.test/slow", timeout=0.01)
    await client.close()


async def test_an_address_means_the_network_even_where_the_gateway_has_a_host_of_it(
    upstream: Start,
) -> None:
    async def ours(request: Request) -> None:
        await request.respond(404)

    routes = RouteTable()
    routes.put("test", {"127.0.0.1": Route(ours)})
    client = HttpClient(routes, SystemClock())
    server = await upstream(answering(OK, []))
    assert (await client.request("POST", url_of(server))).status == 200
    await client.close()
