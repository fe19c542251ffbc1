"""Reaching into pods: logs, exec, attach, port-forward, eviction."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web

from knlocal.apiserver import negotiation
from knlocal.apiserver.containers import choose_container, log_options, running_container
from knlocal.apiserver.requests import ApiRequest
from knlocal.apiserver.streams import channels as ch
from knlocal.apiserver.streams.messages import Sink, send_output
from knlocal.apiserver.streams.port_forward import forward
from knlocal.apiserver.streams.upgrade import wants_websocket
from knlocal.apiserver.writing import delete_wishes
from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.labels import from_label_selector
from knlocal.resources.status import (
    BadRequest,
    MethodNotAllowed,
    StatusError,
    TooManyRequests,
    Unavailable,
)
from knlocal.runtime.api import ExecStream, LogOptions, RuntimeFailure
from knlocal.store.store import POD, Store

CONNECT_SECONDS = 10.0
_BUDGET = GroupKind("policy", "PodDisruptionBudget")


class PodAccess(Protocol):
    """What the daemon lends the API to look inside pods. `pod` is the Pod object. Everything here
    raises `StatusError` or `RuntimeFailure` for what cannot be done."""

    def logs(self, pod: Obj, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        """Whole lines of the container's output."""

    async def exec(
        self, pod: Obj, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecStream:
        """Run a command in a container."""

    async def attach(self, pod: Obj, container: str, *, stdin: bool) -> ExecStream:
        """Join the container's own program: its output from now on, and its stdin."""

    async def address(self, pod: Obj, port: int) -> tuple[str, int]:
        """Where the pod's port is reached from here."""

    async def stats(self, pod: Obj) -> Mapping[str, tuple[float, int]]:
        """Per container: cores in use, bytes in use."""


class NoPods:
    """`PodAccess` where nothing runs pods."""

    _WHY = "no runtime is connected: pods cannot be looked into"

    def logs(self, pod: Obj, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        raise Unavailable(self._WHY)

    async def exec(
        self, pod: Obj, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecStream:
        raise Unavailable(self._WHY)

    async def attach(self, pod: Obj, container: str, *, stdin: bool) -> ExecStream:
        raise Unavailable(self._WHY)

    async def address(self, pod: Obj, port: int) -> tuple[str, int]:
        raise Unavailable(self._WHY)

    async def stats(self, pod: Obj) -> Mapping[str, tuple[float, int]]:
        return {}


class PodStreams:
    """The subresources of pods that lead inside."""

    def __init__(self, store: Store, access: PodAccess) -> None:
        self._store = store
        self._access = access

    def handlers(self) -> dict[str, Callable[[ApiRequest], Awaitable[web.StreamResponse]]]:
        return {
            "log": self.log,
            "exec": self.exec,
            "attach": self.attach,
            "portforward": self.port_forward,
            "eviction": self.evict,
        }

    def _pod(self, request: ApiRequest) -> Obj:
        return self._store.get(POD, request.target.namespace, request.target.name)

    # -- log ----------------------------------------------------------------------------------

    async def log(self, request: ApiRequest) -> web.StreamResponse:
        if request.http.method != "GET":
            raise MethodNotAllowed(
                "the server does not allow this method on the requested resource"
            )
        pod = self._pod(request)
        options, limit = log_options(request, self._store.clock.now())
        container = choose_container(pod, request.query.text("container"))
        if not (pod.get("spec") or {}).get("nodeName"):
            return web.Response(text="")
        running_container(pod, container, previous=options.previous)
        chunks = self._access.logs(pod, container, options)
        return await self._stream_log(request, chunks, limit)

    async def _stream_log(
        self, request: ApiRequest, chunks: AsyncIterator[bytes], limit: int | None
    ) -> web.StreamResponse:
        try:
            # The first chunk is fetched before the answer begins: an error can still be a Status.
            first = await _first(chunks) if not request.query.flag("follow") else b""
        except RuntimeFailure as error:
            raise BadRequest(error.message) from None

        async def write(sink: Sink) -> None:
            left = limit
            try:
                async for chunk in _with_first(first, chunks):
                    await sink.write(chunk if left is None else chunk[:left])
                    if left is not None:
                        left -= len(chunk)
                        if left <= 0:
                            break
            except (RuntimeFailure, StatusError) as error:
                await sink.write(f"{error.message}\n".encode())

        if wants_websocket(request.http):
            return await send_output(request.http, write)
        response = web.StreamResponse()
        response.headers["Content-Type"] = "text/plain"
        response.headers["Cache-Control"] = "no-cache, private"
        response.enable_chunked_encoding()
        await response.prepare(request.http)
        await write(response)
        await response.write_eof()
        return response

    # -- exec and attach ----------------------------------------------------------------------

    async def exec(self, request: ApiRequest) -> web.StreamResponse:
        query = request.query
        pod = self._pod(request)
        container = choose_container(pod, query.text("container"))
        command = query.all("command")
        if not command:
            raise BadRequest("you must specify at least 1 command for the container")
        _check_streams(request)
        phase = (pod.get("status") or {}).get("phase")
        if phase in ("Succeeded", "Failed"):
            raise BadRequest(
                f"cannot exec into a container in a completed pod; current phase is {phase}"
            )
        running_container(pod, container, previous=False)
        stdin, tty = query.flag("stdin"), query.flag("tty")
        return await self._join(
            request, self._access.exec(pod, container, command, stdin=stdin, tty=tty)
        )

    async def attach(self, request: ApiRequest) -> web.StreamResponse:
        pod = self._pod(request)
        container = choose_container(pod, request.query.text("container"))
        _check_streams(request)
        running_container(pod, container, previous=False)
        stdin = request.query.flag("stdin")
        return await self._join(request, self._access.attach(pod, container, stdin=stdin))

    async def _join(
        self, request: ApiRequest, start: Coroutine[Any, Any, ExecStream]
    ) -> web.StreamResponse:
        """Connect the client with a program that `start` gives access to."""
        try:
            process = await start
        except RuntimeFailure as error:
            return await self._refuse(request, error)
        try:
            client = await self._open(request)
            return await _Session(client, process, tty=request.query.flag("tty")).run()
        finally:
            await process.close()

    async def _open(self, request: ApiRequest) -> ch.Channels:
        query = request.query
        tty = query.flag("tty")
        wanted = {
            channel
            for name, channel in (("stdin", ch.STDIN), ("stdout", ch.STDOUT), ("stderr", ch.STDERR))
            if query.flag(name) and not (tty and name == "stderr")
        }
        return await ch.open_channels(request.http, wanted, tty=tty, clock=self._store.clock)

    async def _refuse(self, request: ApiRequest, error: RuntimeFailure) -> web.StreamResponse:
        """The command could not be started: clients expect to hear it on the error channel."""
        client = await self._open(request)
        message = f"error executing command in container: {error.message}"
        await client.send(ch.ERROR, ch.failure_status(message))
        await client.close()
        return client.response

    # -- port-forward -------------------------------------------------------------------------

    async def port_forward(self, request: ApiRequest) -> web.StreamResponse:
        pod = self._pod(request)
        phase = (pod.get("status") or {}).get("phase")
        if phase != "Running":
            raise BadRequest(
                f"unable to forward port because pod is not running. Current status={phase}"
            )
        ports = []
        for text in ",".join(request.query.all("ports")).split(","):
            if text:
                if not text.isdigit() or not 0 < int(text) < 65536:
                    raise BadRequest(f'unable to parse "{text}" as a port: must be 1 to 65535')
                ports.append(int(text))

        async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            host, number = await self._access.address(pod, port)
            async with self._store.clock.timeout(CONNECT_SECONDS):
                return await asyncio.open_connection(host, number)

        return await forward(request.http, ports, connect)

    # -- eviction -----------------------------------------------------------------------------

    async def evict(self, request: ApiRequest) -> web.StreamResponse:
        if request.http.method != "POST":
            raise MethodNotAllowed(
                "the server does not allow this method on the requested resource"
            )
        body = await negotiation.read_body(request.http)
        media = negotiation.content_type(request.http.headers)
        eviction = negotiation.decode_as(body, media, "io.k8s.api.policy.v1.Eviction")
        pod = self._pod(request)
        wishes = delete_wishes(request, eviction.get("deleteOptions") or {})
        phase = (pod.get("status") or {}).get("phase")
        if not wishes["options"].dry_run and phase not in ("Pending", "Succeeded", "Failed"):
            self._spend_budgets(pod)
        self._store.delete(
            POD, request.target.namespace, request.target.name, propagation=wishes["propagation"],
            grace_seconds=wishes["grace"], uid=wishes["uid"],
            resource_version=wishes["version"], options=wishes["options"],
        )  # fmt: skip
        await self._store.durable()
        status = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
        }  # fmt: skip
        return negotiation.answer(status, status=201)

    def _spend_budgets(self, pod: Obj) -> None:
        """Raises TooManyRequests when a budget forbids it; each eviction counts at once, before
        the budget's controller has seen the pod go."""
        metadata = pod["metadata"]
        chosen = [
            budget
            for budget in self._store.list(_BUDGET, metadata.get("namespace"))
            if from_label_selector((budget.get("spec") or {}).get("selector")).matches(
                metadata.get("labels")
            )
        ]
        for budget in chosen:
            status = budget.get("status") or {}
            if status.get("disruptionsAllowed", 0) > 0:
                continue
            raise TooManyRequests(
                "Cannot evict pod as it would violate the pod's disruption budget.",
                causes=[{
                    "reason": "DisruptionBudget",
                    "message": f"The disruption budget {budget['metadata']['name']} needs "
                    f"{status.get('desiredHealthy', 0)} healthy pods and has "
                    f"{status.get('currentHealthy', 0)} currently",
                }],
            )  # fmt: skip
        for budget in chosen:
            self._store.modify(
                _BUDGET, metadata.get("namespace") or "", budget["metadata"]["name"], _spent,
                subresource="status",
            )  # fmt: skip


def _spent(budget: Obj) -> None:
    budget["status"]["disruptionsAllowed"] -= 1


class _Session:
    """Carries one command's input, output and end between runtime and client."""

    def __init__(self, client: ch.Channels, process: ExecStream, *, tty: bool) -> None:
        self._client = client
        self._process = process
        self._tty = tty

    async def run(self) -> web.StreamResponse:
        client = self._client
        reading = asyncio.create_task(self._read())
        writing = asyncio.create_task(self._write())
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done() and writing.exception() is None:
                await client.send(ch.ERROR, self._end(writing.result()))
        except (ConnectionError, StatusError):
            pass  # the client is gone; the command goes with the stream
        finally:
            for task in (reading, writing):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
            with contextlib.suppress(ConnectionError):
                await client.close()
        return client.response

    def _end(self, code: int) -> bytes:
        if self._client.status_errors:
            return ch.exit_status(code)
        return b"" if code == 0 else f"command terminated with exit code {code}".encode()

    async def _write(self) -> int:
        async for name, data in self._process:
            channel = ch.STDERR if name == "stderr" and not self._tty else ch.STDOUT
            await self._client.send(channel, data)
        return await self._process.wait()

    async def _read(self) -> None:
        async for channel, data in self._client.incoming():
            if channel == ch.STDIN:
                await self._process.write(data)
            elif channel == ch.RESIZE and (size := ch.terminal_size(data)):
                await self._process.resize(*size)


def _check_streams(request: ApiRequest) -> None:
    if not any(request.query.flag(name) for name in ("stdin", "stdout", "stderr")):
        raise BadRequest("you must specify at least 1 of stdin, stdout, stderr")


async def _first(chunks: AsyncIterator[bytes]) -> bytes:
    try:
        return await anext(chunks)
    except StopAsyncIteration:
        return b""


async def _with_first(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for chunk in rest:
        yield chunk
