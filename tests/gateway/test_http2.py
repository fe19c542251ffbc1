from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from concurrent import futures
from threading import Event
from typing import Any

import grpc
import h2.connection
import h2.errors
import h2.exceptions
import pytest

from knlocal.clock import SystemClock, VirtualClock
from knlocal.gateway.forward import NotSent, Timeouts
from knlocal.gateway.http import Request
from knlocal.gateway.upstream import Endpoint
from tests.gateway.conftest import DEADLINE, Door, Wire, eventually
from tests.gateway.h2client import H2Client
from tests.gateway.test_forward import OK, Start, answering, header_of

GET = b"GET /p HTTP/1.1\r\nHost: app.test\r\n\r\n"


async def echo(request: Request) -> None:
    body = await request.read(50_000_000)
    lines = [
        ("X-Protocol", request.protocol),
        ("X-Target", request.target),
        ("X-Host", request.host),
        ("X-Trailers", ",".join(f"{name}={value}" for name, value in request.trailers.items())),
    ]
    await request.respond(200, lines, body)


async def connect(door: Door, **options: bool) -> H2Client:
    return await H2Client(await door.connect(), **options).begin()


@pytest.fixture
async def inner() -> AsyncIterator[Door]:
    """A second door: an upstream that speaks everything."""
    opened = Door(SystemClock())
    await opened.open()
    yield opened
    await opened.close()


def h2c(door: Door) -> Endpoint:
    return Endpoint(door.host, door.port, "h2c")


# The door


async def test_http2_and_http1_share_a_port(door: Door) -> None:
    door.serve(echo)
    client = await connect(door)
    for path in ("/a?b=c%20d", "/e"):
        answer = await client.get(path)
        assert answer.headers[":status"] == "200"
        assert answer.headers["x-protocol"] == "HTTP/2"
        assert answer.headers["x-target"] == path
    wire = await door.connect()
    await wire.send(GET)
    assert header_of((await wire.response())[0], "X-Protocol") == "HTTP/1.1"


async def test_the_preface_may_arrive_in_pieces(door: Door) -> None:
    door.serve(echo)
    client = H2Client(await door.connect())
    client.state.initiate_connection()
    for byte in client.state.data_to_send():
        await client.wire.send(bytes([byte]))
    assert (await client.get()).headers[":status"] == "200"


@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000])
async def test_bodies_of_any_size_pass_through_the_windows(door: Door, size: int) -> None:
    door.serve(echo)
    client = await connect(door)
    stream = await client.start(method="POST", end=size == 0)
    await client.send(stream, b"a" * size, end=True)
    assert len((await client.answer(stream)).body) == size


async def test_trailers_and_interim_answers_pass_both_ways(door: Door) -> None:
    async def handler(request: Request) -> None:
        body = await request.read(100)
        await request.inform(103, [("Link", "</a>")])
        await request.start(200)
        await request.write(body)
        await request.finish([("X-Got", request.trailers["x-sum"])])

    door.serve(handler)
    client = await connect(door)
    stream = await client.start([("expect", "100-continue")], method="POST", end=False)
    while not client.answers[stream].interim:
        await client.pump()
    await client.send(stream, b"abc")
    client.state.send_headers(stream, [("x-sum", "3")], end_stream=True)
    await client.flush()
    answer = await client.answer(stream)
    assert answer.interim == ["100", "103"]
    assert (answer.body, answer.trailers) == (b"abc", {"x-got": "3"})


async def test_head_and_empty_answers_end_with_their_headers(door: Door) -> None:
    async def handler(request: Request) -> None:
        await request.respond(204 if request.target == "/none" else 200, (), "text")

    door.serve(handler)
    client = await connect(door)
    answer = await client.answer(await client.start(method="HEAD"))
    assert (answer.body, answer.headers["content-length"]) == (b"", "4")
    answer = await client.get("/none")
    assert answer.headers[":status"] == "204"
    assert "content-length" not in answer.headers


async def test_many_streams_are_answered_at_once(door: Door) -> None:
    waiting = 0
    release = asyncio.Event()

    async def handler(request: Request) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 100:
            release.set()
        await release.wait()
        await request.respond(200, (), request.target)

    door.serve(handler)
    client = await connect(door)
    streams = [await client.start(path=f"/{number}") for number in range(100)]
    for number, stream in enumerate(streams):
        assert (await client.answer(stream)).body == b"/%d" % number


async def test_a_stream_that_nobody_reads_delays_no_other(door: Door) -> None:
    async def handler(request: Request) -> None:
        if request.target == "/flood":
            await request.start(200)
            while True:
                await request.write(b"a" * 100_000)
        await request.respond(200, (), b"b" * 50_000)

    door.serve(handler)
    client = await connect(door, window=False)
    # Room for the connection, none beyond the first 64 KiB for the flood.
    client.state.increment_flow_control_window(10_000_000)
    await client.flush()
    flood = await client.start(path="/flood")
    while len(client.answers[flood].body) < 60_000:
        await client.pump()
    for _ in range(3):
        assert len((await client.get("/")).body) == 50_000
    assert len(client.answers[flood].body) <= 65_535


async def test_an_upload_that_nobody_takes_delays_no_other(door: Door) -> None:
    async def handler(request: Request) -> None:
        if request.target == "/ignored":
            await asyncio.sleep(DEADLINE)
        await echo(request)

    door.serve(handler)
    client = await connect(door)
    ignored = [await client.start(method="POST", path="/ignored", end=False) for _ in range(40)]
    for stream in ignored:
        # As much as the stream's window takes: 40 MB in all, more than the connection's.
        await client.send(stream, b"a" * 1_000_000)
    stream = await client.start(method="POST", end=False)
    await client.send(stream, b"b" * 500_000, end=True)
    assert len((await client.answer(stream)).body) == 500_000


async def test_a_reset_stream_cancels_its_handler_and_no_other(door: Door) -> None:
    started = asyncio.Event()
    cancelled = asyncio.Event()

    async def handler(request: Request) -> None:
        if request.target == "/":
            await request.respond(200)
            return
        started.set()
        try:
            await asyncio.sleep(DEADLINE)
        finally:
            cancelled.set()

    door.serve(handler)
    client = await connect(door)
    stream = await client.start(path="/slow")
    await asyncio.wait_for(started.wait(), DEADLINE)
    client.state.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    await client.flush()
    await asyncio.wait_for(cancelled.wait(), DEADLINE)
    assert (await client.get()).headers[":status"] == "200"


async def test_a_client_that_leaves_cancels_all_its_handlers(door: Door) -> None:
    running = 0

    async def handler(request: Request) -> None:
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(DEADLINE)
        finally:
            running -= 1

    door.serve(handler)
    client = await connect(door)
    for _ in range(5):
        await client.start()
    await eventually(lambda: running == 5)
    client.wire.close()
    await eventually(lambda: running == 0)


async def test_a_failing_handler_breaks_its_stream_only(door: Door) -> None:
    async def handler(request: Request) -> None:
        if request.target == "/half":
            await request.start(200)
            await request.write(b"half")
            raise RuntimeError
        if request.target == "/fail":
            raise RuntimeError
        await request.respond(200)

    door.serve(handler)
    client = await connect(door)
    assert (await client.get("/half")).reset == h2.errors.ErrorCodes.INTERNAL_ERROR
    assert (await client.get("/fail")).headers[":status"] == "500"
    assert (await client.get("/")).headers[":status"] == "200"


async def test_an_answer_before_the_end_of_the_request_ends_the_stream(door: Door) -> None:
    async def handler(request: Request) -> None:
        await request.respond(413, (), "too much")

    door.serve(handler)
    client = await connect(door)
    stream = await client.start(method="POST", end=False)
    answer = await client.answer(stream)
    assert (answer.headers[":status"], answer.body) == ("413", b"too much")


@pytest.mark.parametrize(
    "headers",
    [
        [("x-a", "b\r\nx-injected: c")],
        [("x-a", "b\0c")],
        [("X-Upper", "a")],
        [("connection", "close")],
        [("transfer-encoding", "chunked")],
        [("te", "gzip")],
        [("content-length", "5")],
        [("x a", "b")],
        [(":late", "b")],
    ],
)
async def test_headers_that_http1_would_misread_never_reach_a_handler(
    door: Door, headers: list[tuple[str, str]]
) -> None:
    reached: list[str] = []

    async def handler(request: Request) -> None:
        await request.read(100)
        reached.append(request.target)
        await request.respond(200)

    door.serve(handler)
    client = await connect(door, careless=True)
    stream = await client.start(headers)
    answer = await client.answer(stream)
    assert answer.reset is not None or client.closed or answer.headers.get(":status") == "400"
    assert not reached
    assert (await (await connect(door)).get()).headers[":status"] == "200"


@pytest.mark.parametrize(
    "pseudo",
    [
        {":path": ""},
        {":path": "no-slash"},
        {":path": "/a b"},
        {":path": "/a HTTP/1.1\r\nHost: evil"},
        {":method": "GE T"},
        {":authority": "bad host"},
        {":authority": "user@app.test"},
    ],
)
async def test_malformed_request_lines_are_refused(door: Door, pseudo: dict[str, str]) -> None:
    reached: list[str] = []

    async def handler(request: Request) -> None:
        reached.append(request.target)
        await request.respond(200)

    door.serve(handler)
    client = await connect(door, careless=True)
    parts = {":method": "GET", ":scheme": "http", ":authority": "app.test", ":path": "/"} | pseudo
    stream = client.state.get_next_available_stream_id()
    client.state.send_headers(stream, list(parts.items()), end_stream=True)
    from tests.gateway.h2client import Answer

    client.answers[stream] = Answer()
    await client.flush()
    answer = await client.answer(stream)
    assert answer.reset is not None or client.closed
    assert not reached


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0\0\0\x04\0\0\0\0\0" + b"\xff" * 100,
        b"\xff\xff\xff\x00\0\0\0\0\x01",
        b"\0\0\x01\x01\x05\0\0\0\x01\xff",
        b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0",
        b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n",
    ],
)
async def test_broken_frames_end_the_connection_and_nothing_else(
    door: Door, garbage: bytes
) -> None:
    door.serve(echo)
    client = await connect(door)
    await client.get()
    await client.wire.send(garbage)
    await client.wire.rest()
    assert (await (await connect(door)).get()).headers[":status"] == "200"


async def test_rapid_resets_are_stopped(door: Door) -> None:
    async def handler(request: Request) -> None:
        await asyncio.sleep(DEADLINE)

    door.serve(handler)
    client = await connect(door)
    try:
        for _ in range(3000):
            stream = await client.start()
            client.state.reset_stream(stream)
            await client.flush()
        await client.until_closed()
    except (ConnectionError, h2.exceptions.ProtocolError):
        return
    assert client.closed


async def test_closing_the_gateway_lets_streams_finish(door: Door) -> None:
    release = asyncio.Event()
    started = asyncio.Event()

    async def handler(request: Request) -> None:
        started.set()
        await release.wait()
        await request.respond(200, (), "done")

    door.serve(handler)
    client = await connect(door)
    stream = await client.start()
    await asyncio.wait_for(started.wait(), DEADLINE)
    closing = asyncio.ensure_future(door.gateway.close(grace=DEADLINE))
    while client.terminated is None:
        await client.pump()
    release.set()
    assert (await client.answer(stream)).body == b"done"
    await asyncio.wait_for(closing, DEADLINE)


async def test_an_idle_connection_is_closed_in_the_end(timed_door: Door) -> None:
    timed_door.serve(echo)
    client = await connect(timed_door)
    await client.get()
    assert isinstance(timed_door.clock, VirtualClock)
    await timed_door.clock.advance(301)
    await asyncio.wait_for(client.until_closed(), DEADLINE)


async def test_a_request_may_upgrade_to_h2c(door: Door) -> None:
    door.serve(echo)
    client = H2Client(await door.connect())
    settings = client.state.initiate_upgrade_connection()
    assert settings is not None
    await client.wire.send(
        b"GET /up HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: " + settings + b"\r\n\r\n"
    )
    head = await client.wire.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert header_of(head, "Upgrade") == "h2c"
    from tests.gateway.h2client import Answer

    client.answers[1] = Answer()
    await client.flush()
    answer = await client.answer(1)
    assert (answer.headers["x-protocol"], answer.headers["x-target"]) == ("HTTP/2", "/up")
    assert (await client.get("/next")).headers["x-target"] == "/next"


@pytest.mark.parametrize(
    "settings",
    [b"", b"HTTP2-Settings: !!\r\n", b"HTTP2-Settings: AAA\r\n", b"HTTP2-Settings:\r\n" * 2],
)
async def test_an_upgrade_that_cannot_be_had_is_ignored(door: Door, settings: bytes) -> None:
    door.serve(echo)
    wire = await door.connect()
    await wire.send(
        b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        + settings
        + b"\r\n"
    )
    assert header_of((await wire.response())[0], "X-Protocol") == "HTTP/1.1"


# Forwarding


async def test_an_http1_client_reaches_an_h2c_upstream(door: Door, inner: Door) -> None:
    inner.serve(echo)
    door.forward_to(h2c(inner))
    wire = await door.connect()
    await wire.send(
        b"POST /p?q HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n"
    )
    head, body = await wire.response()
    assert (header_of(head, "x-protocol"), header_of(head, "x-target")) == ("HTTP/2", "/p?q")
    assert (header_of(head, "x-trailers"), header_of(head, "x-host")) == ("x-sum=3", "app.test")
    assert body == b"abc"


async def test_an_http2_client_reaches_an_http1_upstream(door: Door, inner: Door) -> None:
    inner.serve(echo)
    door.forward_to(Endpoint(inner.host, inner.port))
    client = await connect(door)
    stream = await client.start([("cookie", "a=1"), ("cookie", "b=2")], method="POST", end=False)
    await client.send(stream, b"abc")
    client.state.send_headers(stream, [("x-sum", "3")], end_stream=True)
    await client.flush()
    answer = await client.answer(stream)
    assert (answer.headers["x-protocol"], answer.headers["x-trailers"]) == ("HTTP/1.1", "x-sum=3")
    assert answer.body == b"abc"


@pytest.mark.parametrize("size", [1, 3_000_000])
async def test_http2_all_the_way(door: Door, inner: Door, size: int) -> None:
    inner.serve(echo)
    door.forward_to(h2c(inner))
    client = await connect(door)
    for _ in range(2):
        stream = await client.start([("te", "trailers")], method="POST", end=False)
        await client.send(stream, b"a" * size, end=True)
        assert len((await client.answer(stream)).body) == size
    assert len(inner.gateway._listeners[0][1].connections) == 1


async def test_an_h2c_upstream_sees_where_the_request_came_from(door: Door, inner: Door) -> None:
    seen: dict[str, str] = {}

    async def show(request: Request) -> None:
        seen.update(request.headers)
        await request.respond(200)

    inner.serve(show)
    door.forward_to(h2c(inner))
    await (await connect(door)).get()
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["forwarded"] == "for=127.0.0.1;host=app.test;proto=http"


async def test_streams_to_an_upstream_share_one_connection(door: Door, inner: Door) -> None:
    together = 0
    release = asyncio.Event()

    async def handler(request: Request) -> None:
        nonlocal together
        together += 1
        if together == 50:
            release.set()
        await release.wait()
        await request.respond(200)

    inner.serve(handler)
    door.forward_to(h2c(inner))
    client = await connect(door)
    streams = [await client.start() for _ in range(50)]
    for stream in streams:
        assert (await client.answer(stream)).headers[":status"] == "200"
    assert len(inner.gateway._listeners[0][1].connections) == 1


async def test_a_client_that_resets_a_stream_resets_the_upstream_stream(
    door: Door, inner: Door
) -> None:
    started = asyncio.Event()
    cancelled = asyncio.Event()

    async def handler(request: Request) -> None:
        started.set()
        try:
            await asyncio.sleep(DEADLINE)
        finally:
            cancelled.set()

    inner.serve(handler)
    door.forward_to(h2c(inner))
    client = await connect(door)
    stream = await client.start()
    await asyncio.wait_for(started.wait(), DEADLINE)
    client.state.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    await client.flush()
    await asyncio.wait_for(cancelled.wait(), DEADLINE)


async def test_an_upstream_that_breaks_a_stream_off_breaks_the_answer(
    door: Door, inner: Door
) -> None:
    async def handler(request: Request) -> None:
        if request.target == "/half":
            await request.start(200)
            await request.write(b"half")
            await asyncio.sleep(0)
        request.abort()

    inner.serve(handler)
    door.forward_to(h2c(inner))
    client = await connect(door)
    assert (await client.get("/half")).reset is not None
    assert (await client.get("/")).headers[":status"] == "502"
    assert "reset the stream" in door.forwarded[0].upstream_error


async def test_an_upstream_that_shuts_down_gets_no_new_requests(door: Door, inner: Door) -> None:
    inner.serve(echo)
    door.forward_to(h2c(inner))
    wire = await door.connect()
    post = b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\n\r\na"
    await wire.send(post)
    assert (await wire.response())[1] == b"a"
    for connection in list(inner.gateway._listeners[0][1].connections):
        connection.shut()
    await eventually(
        lambda: not any(one.open for many in door.pool._shared.values() for one in many)
    )
    await wire.send(post)
    assert (await wire.response())[1] == b"a"


async def test_a_refused_stream_goes_to_a_new_connection(door: Door, inner: Door) -> None:
    inner.serve(echo)
    door.forward_to(h2c(inner))
    wire = await door.connect()
    post = b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\n\r\na"
    await wire.send(post)
    assert (await wire.response())[1] == b"a"
    (connection,) = inner.gateway._listeners[0][1].connections
    # It refuses without having said so.
    connection._closing = True
    await wire.send(post)
    assert (await wire.response())[1] == b"a"


async def test_an_upstream_that_speaks_no_http2_gives_502(door: Door, upstream: Start) -> None:
    async def script(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await wire.rest()

    server = await upstream(script)
    door.forward_to(server.endpoint._replace(protocol="h2c"))
    wire = await door.connect()
    await wire.send(GET)
    head, body = await wire.response()
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"HTTP/2" in body


async def test_no_h2c_upstream_is_not_sent(door: Door, free_port: Callable[[], int]) -> None:
    door.forward_to(Endpoint("127.0.0.1", free_port(), "h2c"))
    wire = await door.connect()
    await wire.send(GET)
    assert (await wire.response())[0].startswith(b"HTTP/1.1 502 ")
    assert isinstance(door.failures[0], NotSent)


async def test_a_websocket_to_an_h2c_port_goes_over_http1(door: Door, upstream: Start) -> None:
    server = await upstream(answering(OK))
    door.forward_to(server.endpoint._replace(protocol="h2c"))
    wire = await door.connect()
    await wire.send(
        b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert (await wire.response())[1] == b"ok"


async def test_timeouts_hold_for_http2(door: Door, inner: Door) -> None:
    async def handler(request: Request) -> None:
        if request.target == "/half":
            await request.start(200)
            await request.write(b"half ")
        await asyncio.sleep(DEADLINE)

    inner.serve(handler)
    door.forward_to(h2c(inner), Timeouts(total=0.2))
    client = await connect(door)
    answer = await client.get("/")
    assert (answer.headers[":status"], answer.body) == ("504", b"request timeout")
    answer = await client.get("/half")
    assert (answer.headers[":status"], answer.body) == ("200", b"half request timeout")
    assert answer.reset is None


# gRPC, with its own compiled ends


class _Service(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self.cancelled = Event()
        self.started = Event()

    def service(self, details: Any) -> Any:
        return {
            "/t/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "/t/Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "/t/Down": grpc.unary_stream_rpc_method_handler(self.down),
            "/t/Up": grpc.stream_unary_rpc_method_handler(self.up),
            "/t/Both": grpc.stream_stream_rpc_method_handler(self.both),
            "/t/Hang": grpc.unary_unary_rpc_method_handler(self.hang),
        }.get(details.method)

    def unary(self, request: bytes, context: Any) -> bytes:
        sent = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-first", sent.get("x-meta", "")),))
        context.set_trailing_metadata((("x-last-bin", b"\x00\xff"),))
        return request

    def fail(self, request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ü")
        return b""

    def down(self, request: bytes, context: Any) -> Any:
        for number in range(int(request)):
            yield b"%d" % number

    def up(self, requests: Any, context: Any) -> bytes:
        return b"%d" % sum(len(request) for request in requests)

    def both(self, requests: Any, context: Any) -> Any:
        for request in requests:
            yield request.upper()

    def hang(self, request: bytes, context: Any) -> bytes:
        context.add_callback(self.cancelled.set)
        self.started.set()
        self.cancelled.wait(DEADLINE)
        return b""


@pytest.fixture
async def service(door: Door) -> AsyncIterator[_Service]:
    handler = _Service()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    door.forward_to(Endpoint("127.0.0.1", port, "h2c"))
    yield handler
    await asyncio.to_thread(server.stop(0).wait)


@pytest.fixture
def channel(door: Door) -> Any:
    opened = grpc.insecure_channel(
        f"{door.host}:{door.port}", options=[("grpc.default_authority", "app.test")]
    )
    yield opened
    opened.close()


async def test_grpc_unary_with_metadata_both_ways(service: _Service, channel: Any) -> None:
    def call() -> None:
        unary = channel.unary_unary("/t/Unary")
        answer, done = unary.with_call(b"ping", timeout=DEADLINE, metadata=(("x-meta", "m"),))
        assert answer == b"ping"
        assert ("x-first", "m") in done.initial_metadata()
        assert ("x-last-bin", b"\x00\xff") in done.trailing_metadata()
        big = b"a" * 3_000_000
        assert unary(big, timeout=DEADLINE) == big

    await asyncio.to_thread(call)


async def test_grpc_status_and_message_pass(service: _Service, channel: Any) -> None:
    def call() -> None:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/t/Fail")(b"", timeout=DEADLINE)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert caught.value.details() == "no such thing: ü"
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/t/Nothing")(b"", timeout=DEADLINE)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    await asyncio.to_thread(call)


async def test_grpc_streams_down_up_and_both_ways(service: _Service, channel: Any) -> None:
    def call() -> None:
        down = channel.unary_stream("/t/Down")(b"100", timeout=DEADLINE)
        assert list(down) == [b"%d" % number for number in range(100)]
        up = channel.stream_unary("/t/Up")
        assert up(iter([b"a" * 100_000] * 30), timeout=DEADLINE) == b"3000000"
        # Ping-pong: each message is sent only after the answer to the one before.
        turn = futures.Future[None]()
        turns = [turn]

        def messages() -> Any:
            for word in (b"one", b"two", b"three"):
                turns[-1].result(DEADLINE) if word != b"one" else None
                turns.append(futures.Future())
                yield word

        got = []
        for answer in channel.stream_stream("/t/Both")(messages(), timeout=DEADLINE):
            got.append(answer)
            turns[-1].set_result(None)
        assert got == [b"ONE", b"TWO", b"THREE"]

    await asyncio.to_thread(call)


async def test_a_cancelled_grpc_call_is_cancelled_at_the_server(
    service: _Service, channel: Any
) -> None:
    def call() -> None:
        future = channel.unary_unary("/t/Hang").future(b"", timeout=DEADLINE)
        assert service.started.wait(DEADLINE)
        future.cancel()
        assert service.cancelled.wait(DEADLINE)

    await asyncio.to_thread(call)


async def test_a_grpc_deadline_is_kept(service: _Service, channel: Any) -> None:
    def call() -> None:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/t/Hang")(b"", timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert service.cancelled.wait(DEADLINE)

    await asyncio.to_thread(call)


def test_the_upgrade_settings_are_base64() -> None:
    assert base64.urlsafe_b64decode(
        h2.connection.H2Connection().initiate_upgrade_connection() or b""
    )
