"""Files that define an app or a handler are served, on the standard library alone."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from knlocal.build.recipes import LAUNCHER

DEADLINE = 15.0
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "s"}


@contextmanager
def served(command: list[str], folder: Path, port: int) -> Iterator[int]:
    env = {**os.environ, "PORT": str(port), "PYTHONPATH": ""}
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        until = time.monotonic() + DEADLINE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                ended = process.poll() is not None
                if ended or time.monotonic() > until:
                    process.kill()
                    said = process.communicate()[0].decode()
                    raise AssertionError(f"does not serve: {said}") from None
                time.sleep(0.01)
        yield port
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.communicate()


def call(
    port: int,
    method: str = "GET",
    path: str = "/",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        answer_headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, answer_headers, response.read()
    finally:
        connection.close()


@pytest.fixture
def python(tmp_path: Path, free_port: Callable[[], int]) -> Callable[..., object]:
    def serve(source: str, *options: str) -> object:
        (tmp_path / "app.py").write_text(source)
        # -S: nothing that happens to be installed here may help.
        command = [sys.executable, "-S", str(LAUNCHER / "serve_python.py"), "app.py", *options]
        return served(command, tmp_path, free_port())

    return serve


def test_a_wsgi_app_streams_and_reads_bodies(python: Callable[..., object]) -> None:
    source = """
def app(environ, start_response):
    start_response("201 Created", [("Content-Type", "text/plain"), ("X-A", environ["HTTP_X_A"])])
    yield environ["REQUEST_METHOD"].encode() + b" " + environ["PATH_INFO"].encode()
    yield b"?" + environ["QUERY_STRING"].encode() + b" " + environ["wsgi.input"].read()
"""
    with python(source) as port:  # type: ignore[attr-defined]
        status, headers, body = call(port, "POST", "/p/a?x=1", b"data", {"X-A": "1"})
    assert (status, body) == (201, b"POST /p/a?x=1 data")
    assert headers["x-a"] == "1"


def test_an_asgi_app_gets_lifespan_and_streams(python: Callable[..., object]) -> None:
    source = """
ready = []
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            ready.append(message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"].endswith("shutdown"):
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": ready[0].encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b"!"})
"""
    with python(source) as port:  # type: ignore[attr-defined]
        status, headers, body = call(port)
    assert (status, body) == (200, b"lifespan.startup!")
    assert headers["transfer-encoding"] == "chunked"


@pytest.mark.parametrize(
    ("source", "status", "body", "kind"),
    [
        ("def handle(request): return 'hi ' + request.query['n']", 200, b"hi x", "text/plain"),
        ("async def handler(request): return {'a': request.path}", 200, b'{"a": "/"}', "json"),
        ("def handle(request): return 'no', 404", 404, b"no", "text/plain"),
        ("def handle(request): return b'x', 200, {'Content-Type': 'a/b'}", 200, b"x", "a/b"),
        ("def main(context): return context.request.method", 200, b"GET", "text/plain"),
        ("def handle(): return 'nothing asked'", 200, b"nothing asked", "text/plain"),
        ("def handle(request): pass", 204, b"", ""),
        ("def handle(request): 1 / 0", 500, b"internal error\n", "text/plain"),
    ],
)
def test_a_handler_is_called_with_the_request(
    python: Callable[..., object], source: str, status: int, body: bytes, kind: str
) -> None:
    with python(source) as port:  # type: ignore[attr-defined]
        found_status, headers, found_body = call(port, path="/?n=x")
    assert (found_status, found_body) == (status, body)
    assert kind in headers.get("content-type", "")


def test_an_event_handler_gets_the_event_and_its_answer_is_the_reply(
    python: Callable[..., object],
) -> None:
    source = """
def handle(event):
    return {"specversion": "1.0", "id": "2", "type": event.type + ".done", "source": "me",
            "data": {"got": event.data["n"]}}
"""
    with python(source, "--invoke=cloudevent") as port:  # type: ignore[attr-defined]
        headers = {**EVENT, "content-type": "application/json"}
        status, found, body = call(port, "POST", "/", b'{"n": 1}', headers)
        structured = json.dumps({"specversion": "1.0", "id": "1", "type": "u", "source": "s",
                                 "data": {"n": 2}}).encode()  # fmt: skip
        kind = {"content-type": "application/cloudevents+json"}
        second = call(port, "POST", "/", structured, kind)
        refused, _, why = call(port, "POST", "/", b"x")
    assert (status, found["ce-type"], json.loads(body)) == (200, "t.done", {"got": 1})
    assert (second[1]["ce-type"], json.loads(second[2])) == ("u.done", {"got": 2})
    assert refused == 400
    assert b"ce-specversion" in why


def test_a_function_class_is_made_once_and_asked_about_its_health(
    python: Callable[..., object],
) -> None:
    source = """
class Function:
    def start(self, cfg): self.started = True
    def ready(self): return self.started, "up"
    async def handle(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"made"})
def new(): return Function()
"""
    with python(source) as port:  # type: ignore[attr-defined]
        assert call(port)[2] == b"made"
        assert call(port, path="/health/readiness")[::2] == (200, b"up")


def test_a_file_with_nothing_to_serve_says_what_to_define(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("x = 1")
    done = subprocess.run(
        [sys.executable, str(LAUNCHER / "serve_python.py"), "app.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert done.returncode == 1
    assert "define app (ASGI or WSGI), or handle(request)" in done.stderr


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize(
    ("source", "status", "body"),
    [
        ("module.exports = async (context) => `hi ${context.query.n}`", 200, b"hi x"),
        ("exports.handle = (context) => ({a: context.method})", 200, b'{"a":"GET"}'),
        ("exports.handle = () => ({statusCode: 201, body: 'made'})", 201, b"made"),
        ("exports.handle = () => { throw new Error('no') }", 500, b"internal error\n"),
    ],
)
def test_a_node_function_is_called(
    tmp_path: Path, free_port: Callable[[], int], source: str, status: int, body: bytes
) -> None:
    (tmp_path / "index.js").write_text(source)
    command = ["node", str(LAUNCHER / "serve_node.mjs"), "index.js"]
    with served(command, tmp_path, free_port()) as port:
        assert call(port, path="/?n=x")[::2] == (status, body)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_a_node_function_gets_events_and_answers_with_them(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    (tmp_path / "index.js").write_text(
        "exports.handle = (context, event) => ({specversion: '1.0', id: '2', source: 'me', "
        "type: event.type + '.done', data: {got: event.data.n}})"
    )
    command = ["node", str(LAUNCHER / "serve_node.mjs"), "index.js", "--invoke=cloudevent"]
    with served(command, tmp_path, free_port()) as port:
        headers = {**EVENT, "content-type": "application/json"}
        status, found, body = call(port, "POST", "/", b'{"n": 1}', headers)
    assert (status, found["ce-type"], json.loads(body)) == (200, "t.done", {"got": 1})


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize(
    ("data", "body"),
    [("data: {n: 1}", b'{"n":1}'), ("data: undefined, data_base64: 'aGk='", b"hi")],
)
def test_an_event_of_the_node_sdk_leaves_out_what_is_not_set(
    tmp_path: Path, free_port: Callable[[], int], data: str, body: bytes
) -> None:
    (tmp_path / "index.js").write_text(
        "exports.handle = () => ({specversion: '1.0', id: '2', source: 'me', type: 't', "
        f"subject: null, dataschema: undefined, {data}}})"
    )
    command = ["node", str(LAUNCHER / "serve_node.mjs"), "index.js", "--invoke=cloudevent"]
    with served(command, tmp_path, free_port()) as port:
        _, found, said = call(port, "POST", "/", b"{}", EVENT)
    assert said == body
    assert {n for n in found if n.startswith("ce-")} == {
        "ce-specversion", "ce-id", "ce-source", "ce-type",
    }  # fmt: skip


def test_connections_between_requests_do_not_keep_a_stopped_program(
    python: Callable[..., object],
) -> None:
    with python("def handle(request):\n    return 'ok'\n") as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"ok"
        # `served` ends it now, and waits for less time than open requests are given


def test_a_file_that_cannot_be_loaded_is_told_without_who_loads_it(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def handle(:\n")
    command = [sys.executable, "-S", str(LAUNCHER / "serve_python.py"), "app.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 1
    assert done.stderr.endswith("SyntaxError: invalid syntax\n")
    assert "serve_python.py" not in done.stderr
    assert done.stderr.count("File ") == 1
