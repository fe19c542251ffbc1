"""Serves a Python file that defines an app or a handler; runs with the standard library alone.

    python3 serve_python.py app.py [--invoke=http|cloudevent] [--function]

Looks, in this order, for: `app` or `application` (ASGI or WSGI), `new()` (a class as `kn func`
makes them, with `handle`), `handle`, `handler` or `main`, called with the request; or with the
event, when --invoke=cloudevent or when the parameter is called `event`. A handler returns text,
bytes, something for JSON, `(body, status)` or `(body, status, headers)`; what it returns for an
event becomes the reply event.

uvicorn serves ASGI apps when it is installed; else the small server below does. With --function,
the middleware of `kn func` serves, where it is installed: func-python, or parliament.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import importlib.util
import inspect
import io
import json
import logging
import os
import signal
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from types import SimpleNamespace
from urllib.parse import parse_qsl, quote, unquote

MAX_HEAD, MAX_BODY = 64 * 1024, 64 * 1024 * 1024
THREADS = ThreadPoolExecutor(64)


def main() -> None:
    entry = sys.argv[1]
    invoke = next((a.split("=", 1)[1] for a in sys.argv[2:] if a.startswith("--invoke=")), "http")
    sys.path.insert(0, os.path.dirname(os.path.abspath(entry)) or ".")
    sys.path.insert(0, os.getcwd())
    port = int(os.environ.get("PORT", "8080"))
    try:
        module = load(entry)
    except Exception as error:
        error.__traceback__ = without_launcher(error.__traceback__)
        traceback.print_exception(error)
        sys.exit(1)
    if "--function" in sys.argv[2:]:
        logging.basicConfig(level=logging.INFO)  # as the scaffolding of `kn func` has it
    if "--function" in sys.argv[2:] and served_by_middleware(module, invoke, port):
        return
    app = find_app(module, entry, invoke)
    if getattr(app, "is_asgi_of_its_own", True):
        try:
            import uvicorn
        except ImportError:
            pass
        else:
            uvicorn.run(app, host="0.0.0.0", port=port, log_level="warning", lifespan="auto")
            return
    asyncio.run(serve(app, port))


def without_launcher(trace):
    """What is wrong is in the user's file: who imported it says nothing."""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file != __file__ and not file.startswith("<frozen importlib"):
            break
        trace = trace.tb_next
    return trace


def load(entry: str):
    """The file as a module; with its package when it is part of one, which may say more."""
    folder, file = os.path.split(os.path.relpath(entry))
    name = os.path.splitext(file)[0]
    package = folder.replace(os.sep, ".")
    if folder and os.path.exists(os.path.join(folder, "__init__.py")) and ".." not in package:
        whole = importlib.import_module(package)
        if any(callable(getattr(whole, word, None)) for word in ("new", "handle", "main")):
            return whole
        return whole if name == "__init__" else importlib.import_module(f"{package}.{name}")
    spec = importlib.util.spec_from_file_location(name, entry)
    if spec is None or spec.loader is None:
        sys.exit(f"{entry}: cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def served_by_middleware(module, invoke: str, port: int) -> bool:
    """Serve with what `kn func` would, until stopped; False where it is not installed."""
    if callable(getattr(module, "main", None)) and "parliament" in sys.modules:
        import waitress
        from parliament import server

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        waitress.serve(server.create(module), host="0.0.0.0", port=port)
        return True
    found = getattr(module, "new", None) or getattr(module, "handle", None)
    if found is None or getattr(found, "__name__", "") not in ("new", "handle"):
        return False
    try:
        middleware = importlib.import_module(
            "func_python.cloudevent" if invoke == "cloudevent" else "func_python.http"
        )
    except ImportError:
        return False
    os.environ.setdefault("LISTEN_ADDRESS", f"[::]:{port},0.0.0.0:{port}")
    middleware.serve(found)
    return True


def find_app(module, entry: str, invoke: str):
    for name in ("app", "application"):
        found = getattr(module, name, None)
        if callable(found):
            return found if is_asgi(found) else from_wsgi(found)
    if callable(getattr(module, "new", None)):
        return from_instance(module.new(), invoke)
    for name in ("handle", "handler", "main"):
        found = getattr(module, name, None)
        if callable(found):
            if is_asgi_function(found):
                return from_instance(SimpleNamespace(handle=found), invoke)
            return from_handler(found, invoke, health="--function" in sys.argv)
    sys.exit(
        f"{entry}: nothing to serve: define app (ASGI or WSGI), or handle(request); "
        'or start a server yourself under if __name__ == "__main__"'
    )


def is_asgi(app) -> bool:
    call = app if inspect.isfunction(app) or inspect.ismethod(app) else type(app).__call__
    if inspect.iscoroutinefunction(call):
        return True
    wanted = [
        p for p in inspect.signature(app).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]  # fmt: skip
    return len(wanted) == 3


def is_asgi_function(handle) -> bool:
    """Whether a handler is an ASGI app itself, as func-python takes it."""
    return list(inspect.signature(handle).parameters) == ["scope", "receive", "send"]


# -- requests, events, answers --------------------------------------------------------------------


class Request:
    """What a handler gets: method, path, headers (lower case), query, body."""

    def __init__(self, scope, body: bytes) -> None:
        self.method = scope["method"]
        self.path = scope["path"]
        self.headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        self.query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        self.args = self.query
        self.body = self.data = body

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    @property
    def json(self):
        return json.loads(self.body)

    def get_data(self) -> bytes:
        return self.body

    def get_json(self, silent: bool = False):
        try:
            return json.loads(self.body)
        except ValueError:
            if silent:
                return None
            raise


class Event(dict):
    """A CloudEvent: attributes as items and as attributes; `data` decoded when it is JSON."""

    def __init__(self, attributes, data) -> None:
        super().__init__(attributes)
        self.data = data

    def __getattr__(self, name: str):
        if name.startswith("get_"):  # get_id(), get_type(), …, as the SDK has them
            return lambda: self.get(name[4:])
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def get_data(self):
        return self.data

    def get_attributes(self):
        return dict(self)


def event_of(request: Request):
    """The event in a request (binary or structured), or None."""
    kind = request.headers.get("content-type", "")
    if kind.startswith("application/cloudevents+json"):
        whole = json.loads(request.body)
        data = whole.pop("data", None)
        if "data_base64" in whole:
            data = base64.b64decode(whole.pop("data_base64"))
        return Event(whole, data)
    attributes = {k[3:]: unquote(v) for k, v in request.headers.items() if k.startswith("ce-")}
    if "specversion" not in attributes:
        return None
    if kind:
        attributes["datacontenttype"] = kind
    is_json = kind.split(";")[0].strip().endswith("json")
    return Event(attributes, json.loads(request.body) if is_json and request.body else request.body)


def in_header(value) -> str:
    """An attribute as the HTTP binding has it: percent-encoded where it is not plain."""
    plain = {*map(chr, range(0x21, 0x7F))} - {'"', "%"}
    return quote(str(value), safe="".join(plain))


def answer_of(result):
    """Status, headers and body of what a handler returned."""
    status, headers = 200, {}
    if isinstance(result, tuple):
        result, status, headers = (*result, *(200, {})[len(result) - 1 :])[:3]
        headers = dict(headers)
    if isinstance(result, Event) or (isinstance(result, dict) and "specversion" in result):
        data = result.data if isinstance(result, Event) else result.get("data")
        for key, value in dict(result).items():
            if key == "datacontenttype":
                headers["content-type"] = str(value)
            elif key != "data":
                headers[f"ce-{key}"] = in_header(value)
        result = data
    elif hasattr(result, "get_attributes") and hasattr(result, "get_data"):  # the SDK's own class
        for key, value in result.get_attributes().items():
            name = "content-type" if key == "datacontenttype" else f"ce-{key}"
            headers[name] = in_header(value.isoformat() if hasattr(value, "isoformat") else value)
        result = result.get_data()
    if result is None:
        body, kind = b"", None
        status = 204 if status == 200 else status
    elif isinstance(result, (bytes, bytearray)):
        body, kind = bytes(result), "application/octet-stream"
    elif isinstance(result, str):
        body, kind = result.encode(), "text/plain; charset=utf-8"
    else:
        body, kind = json.dumps(result).encode(), "application/json"
    names = {key.lower() for key in headers}
    if kind and "content-type" not in names:
        headers["content-type"] = kind
    return status, headers, body


async def read_body(receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def send_answer(send, status: int, headers, body: bytes) -> None:
    raw = [(k.lower().encode("latin-1"), str(v).encode("latin-1")) for k, v in headers.items()]
    if status not in (204, 304):
        raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def from_handler(handler, invoke: str, *, health: bool = False):
    if next(iter(inspect.signature(handler).parameters), "") == "event":
        invoke = "cloudevent"  # it says so itself

    async def app(scope, receive, send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        request = Request(scope, await read_body(receive))
        if health and scope["path"] in ("/health/liveness", "/health/readiness"):
            await send_answer(send, 200, {}, b"OK")
            return
        argument = request
        if invoke == "cloudevent":
            try:
                argument = event_of(request)
            except ValueError as error:
                await send_answer(send, 400, {}, f"not a CloudEvent: {error}\n".encode())
                return
            if argument is None:
                await send_answer(send, 400, {}, b"not a CloudEvent: no ce-specversion\n")
                return
        context = SimpleNamespace(
            request=request, cloud_event=argument if invoke == "cloudevent" else None
        )
        result = await called(handler, argument, context)
        await send_answer(send, *answer_of(result))

    app.is_asgi_of_its_own = False  # type: ignore[attr-defined]
    return app


async def called(handler, argument, context):
    """Call a handler with what it asks for: nothing, a context (as kn func has it), the request."""
    names = list(inspect.signature(handler).parameters)
    if not names:
        given = []
    elif names[0] in ("context", "ctx"):
        given = [context]
    else:
        given = [argument, context][: max(1, min(2, len(names)))]
    if inspect.iscoroutinefunction(handler):
        return await handler(*given)
    return await asyncio.get_running_loop().run_in_executor(THREADS, lambda: handler(*given))


def from_instance(instance, invoke: str):
    """A class as `kn func create -l python` makes it: `handle(scope, receive, send)`, and
    optionally start, stop, alive, ready."""
    handle = instance.handle
    if len(inspect.signature(handle).parameters) != 3:
        return from_handler(handle, invoke, health=True)

    async def app(scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                step = message["type"].partition(".")[2]
                hook = getattr(instance, {"startup": "start", "shutdown": "stop"}[step], None)
                if hook:
                    result = hook(dict(os.environ)) if step == "startup" else hook()
                    if inspect.isawaitable(result):
                        await result
                await send({"type": f"lifespan.{step}.complete"})
                if step == "shutdown":
                    return
        health = {"/health/liveness": "alive", "/health/readiness": "ready"}.get(scope["path"])
        if health:
            check = getattr(instance, health, None)
            result = check() if check else True
            good = result[0] if isinstance(result, tuple) else result
            said = str(result[1]) if isinstance(result, tuple) else "OK"
            await send_answer(send, 200 if good else 503, {}, said.encode())
            return
        if invoke == "cloudevent":
            request = Request(scope, await read_body(receive))
            try:
                event = event_of(request)
            except ValueError as error:
                await send_answer(send, 400, {}, f"not a CloudEvent: {error}\n".encode())
                return
            if event is None:
                await send_answer(send, 400, {}, b"not a CloudEvent: no ce-specversion\n")
                return
            scope = {**scope, "event": event_of_the_sdk(request) or event}
            await handle(scope, receive, EventSender(send))
            return
        await handle(scope, receive, send)

    return app


def event_of_the_sdk(request: Request):
    """The event as the CloudEvents SDK has it, as func-python gives it; None without the SDK."""
    try:
        from cloudevents.core.bindings.http import HTTPMessage, from_http_event
    except ImportError:
        return None
    return from_http_event(HTTPMessage(headers=request.headers, body=request.body))


class EventSender:
    """`send` of a function that is called with events, as func-python has it."""

    def __init__(self, send) -> None:
        self._send = send

    async def __call__(self, event, status: int = 200) -> None:
        if isinstance(event, dict) and str(event.get("type", "")).startswith("http."):
            await self._send(event)
        else:
            await self.structured(event, status)

    async def structured(self, event, status: int = 200) -> None:
        _, headers, body = answer_of(event)
        whole = {
            k.lower()[3:]: unquote(v) for k, v in headers.items() if k.lower().startswith("ce-")
        }
        kind = next((v for k, v in headers.items() if k.lower() == "content-type"), None)
        if kind:
            whole["datacontenttype"] = kind
        if kind and kind.split(";")[0].strip().endswith("json"):
            whole["data"] = json.loads(body)
        elif body:
            try:
                whole["data"] = body.decode("utf-8")
            except UnicodeDecodeError:
                whole["data_base64"] = base64.b64encode(body).decode()
        kind = {"content-type": "application/cloudevents+json"}
        await send_answer(self._send, status, kind, json.dumps(whole).encode())

    async def binary(self, event, status: int = 200) -> None:
        _, headers, body = answer_of(event)
        await send_answer(self._send, status, headers, body)

    async def http(self, message) -> None:
        await self._send(message)


def from_wsgi(wsgi):
    async def app(scope, receive, send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        body = await read_body(receive)
        loop = asyncio.get_running_loop()
        status, headers, chunks = await loop.run_in_executor(THREADS, run_wsgi, wsgi, scope, body)
        raw = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        iterator = iter(chunks)
        try:
            while (chunk := await loop.run_in_executor(THREADS, next, iterator, None)) is not None:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        await send({"type": "http.response.body", "body": b""})

    app.is_asgi_of_its_own = False  # type: ignore[attr-defined]
    return app


def run_wsgi(wsgi, scope, body: bytes):
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": os.environ.get("PORT", "8080"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for key, value in scope["headers"]:
        name = key.decode("latin-1").upper().replace("-", "_")
        name = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        environ[name] = value.decode("latin-1")
    started = []
    written = []

    def start_response(status, headers, exc_info=None):
        started[:] = [int(status.split(" ", 1)[0]), headers]
        return written.append

    chunks = wsgi(environ, start_response)
    if not started:  # generators begin when the first chunk is asked for
        iterator = iter(chunks)
        first = next(iterator, b"")
        rest = iterator

        def joined():
            yield first
            yield from rest

        return started[0], started[1], joined()
    if written:
        return started[0], started[1], [*written, *chunks]
    return started[0], started[1], chunks


# -- a small HTTP/1.1 server for ASGI apps --------------------------------------------------------


async def serve(app, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    lifespan = await Lifespan(app).begin()
    open_connections: set[asyncio.Task] = set()
    idle: set[asyncio.StreamReader] = set()

    async def connected(reader, writer) -> None:
        task = asyncio.current_task()
        open_connections.add(task)
        try:
            await connection(app, reader, writer, stop, idle)
        finally:
            open_connections.discard(task)

    server = await asyncio.start_server(connected, "", port, limit=MAX_HEAD, backlog=512)
    await stop.wait()
    server.close()
    for reader in idle:  # nothing more is expected of who waits between requests
        reader.feed_eof()
    if open_connections:
        await asyncio.wait(set(open_connections), timeout=20)
    await lifespan.end()


class Lifespan:
    """The startup and shutdown of an ASGI app; apps that know nothing of it are left alone."""

    def __init__(self, app) -> None:
        self._app = app
        self._inbox: asyncio.Queue = asyncio.Queue()
        self._outbox: asyncio.Queue = asyncio.Queue()
        self._task: asyncio.Task | None = None

    async def begin(self) -> Lifespan:
        self._task = asyncio.ensure_future(self._run())
        await self._say("startup")
        return self

    async def end(self) -> None:
        if self._task is not None and not self._task.done():
            await self._say("shutdown")
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._app({"type": "lifespan", "asgi": {"version": "3.0"}}, self._inbox.get,
                            self._outbox.put)  # fmt: skip
        except Exception:
            pass  # the app does not do lifespan

    async def _say(self, what: str) -> None:
        await self._inbox.put({"type": f"lifespan.{what}"})
        answer = asyncio.ensure_future(self._outbox.get())
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        if answer.done() and answer.result()["type"].endswith(".failed"):
            sys.exit(f"the app refused to start: {answer.result().get('message', '')}")
        answer.cancel()


async def connection(app, reader, writer, stop: asyncio.Event, idle: set) -> None:
    try:
        while not stop.is_set():
            idle.add(reader)
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                writer.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n")
                return
            finally:
                idle.discard(reader)
            if not await one_request(app, head, reader, writer):
                return
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        pass
    finally:
        try:
            await writer.drain()
        except ConnectionError:
            pass
        writer.close()


async def one_request(app, head: bytes, reader, writer) -> bool:
    """Answer one request; whether the connection can go on."""
    first, *lines = head[:-4].split(b"\r\n")
    method, target, version = first.split(b" ")
    headers = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name.strip().lower(), value.strip()))
    find = dict(headers)
    path, _, query = target.partition(b"?")
    keep = find.get(b"connection", b"").lower() != b"close" and version == b"HTTP/1.1"
    if find.get(b"expect", b"").lower() == b"100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = Body(reader, find)
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": method.decode("latin-1").upper(), "scheme": "http",
        "path": unquote(path.decode()),
        "raw_path": path, "query_string": query, "root_path": "", "headers": headers,
        "client": writer.get_extra_info("peername"), "server": writer.get_extra_info("sockname"),
    }  # fmt: skip
    answer = Answer(writer, keep, method == b"HEAD")
    try:
        await app(scope, body.receive, answer.send)
    except ConnectionError:
        return False
    except Exception:
        traceback.print_exc()
        if answer.begun:
            return False  # nothing honest can be said any more
        await send_answer(answer.send, 500, {"content-type": "text/plain"}, b"internal error\n")
    await answer.end()
    await body.drain()
    return keep


class Body:
    def __init__(self, reader, headers) -> None:
        self._reader = reader
        self._chunked = b"chunked" in headers.get(b"transfer-encoding", b"").lower()
        self._left = int(headers.get(b"content-length", b"0"))
        self._ended = not self._chunked and not self._left

    async def receive(self):
        if self._ended:
            if getattr(self, "_told", False):
                await asyncio.Event().wait()
            self._told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        block = await self._next()
        self._told = self._ended
        return {"type": "http.request", "body": block, "more_body": not self._ended}

    async def _next(self) -> bytes:
        if self._chunked:
            size = int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)
            block = await self._reader.readexactly(size)
            await self._reader.readexactly(2)
            self._ended = size == 0
            return block
        block = await self._reader.read(min(self._left, 65536))
        if not block:
            raise ConnectionError
        self._left -= len(block)
        self._ended = self._left == 0
        return block

    async def drain(self) -> None:
        while not self._ended:
            await self._next()


class Answer:
    def __init__(self, writer, keep: bool, without_body: bool) -> None:
        self._writer, self._keep, self._without_body = writer, keep, without_body
        self.begun = self._ended = False
        self._start = None
        self._chunked = False

    async def send(self, message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            more = message.get("more_body", False)
            block = message.get("body", b"")
            if not self.begun:
                self._head(len(block) if not more else None)
            if block and not self._without_body:
                self._write(block)
            if not more:
                await self.end()
            await self._writer.drain()

    def _head(self, length) -> None:
        self.begun = True
        status = self._start["status"]
        headers = list(self._start.get("headers", ()))
        names = {bytes(k).lower() for k, _ in headers}
        bodiless = status in (204, 304)
        if b"content-length" not in names and not bodiless:
            if length is not None:
                headers.append((b"content-length", str(length).encode()))
            else:
                headers.append((b"transfer-encoding", b"chunked"))
                self._chunked = True
        if not self._keep:
            headers.append((b"connection", b"close"))
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = ""
        lines = [f"HTTP/1.1 {status} {phrase}".encode()]
        lines += [bytes(k) + b": " + bytes(v) for k, v in headers]
        self._writer.write(b"\r\n".join(lines) + b"\r\n\r\n")

    def _write(self, block: bytes) -> None:
        if self._chunked:
            block = f"{len(block):x}\r\n".encode() + block + b"\r\n"
        self._writer.write(block)

    async def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if not self.begun:
            if self._start is None:
                self._start = {"status": 500}
            self._head(0)
        if self._chunked and not self._without_body:
            self._writer.write(b"0\r\n\r\n")


if __name__ == "__main__":
    main()
