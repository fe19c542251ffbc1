"""Looking inside pods for the Kubernetes API: logs, exec, ports, usage, through the runtime."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from knlocal.resources.base import Obj, uid_of
from knlocal.resources.status import BadRequest, StatusError, Unavailable
from knlocal.runtime.api import ExecStream, LogOptions, Runtime, RuntimeFailure
from knlocal.serving.request_log import Line, RequestLog
from knlocal.workloads.kubelet import Kubelet
from knlocal.workloads.podplan import pod_id
from knlocal.workloads.terms import is_shown_only


class PodLooks:
    """What the API may do with running pods (see `apiserver/pods.py`)."""

    def __init__(
        self, runtime: Runtime, kubelet: Kubelet, requests: RequestLog | None = None
    ) -> None:
        """`requests` is what the queue-proxy of a serving pod has to say."""
        self._runtime = runtime
        self._kubelet = kubelet
        self._requests = requests

    async def logs(self, pod: Obj, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        if self._is_shown_only(pod, container):
            async for line in self._request_lines(uid_of(pod), options):
                date = line.moment.isoformat().replace("+00:00", "Z")
                text = f"{date} {line.text}" if options.timestamps else line.text
                yield f"{text}\n".encode()
            return
        try:
            async for chunk in self._runtime.logs(pod_id(pod), container, options):
                yield chunk
        except RuntimeFailure as error:
            raise _refusal(error) from error

    async def _request_lines(self, uid: str, options: LogOptions) -> AsyncIterator[Line]:
        since, tail = options.since, options.tail
        if self._requests is None:
            return
        new: asyncio.Queue[Line] = asyncio.Queue()
        stop = self._requests.follow(uid, new.put_nowait)
        try:
            kept = [line for line in self._requests.lines(uid) if not since or line.moment >= since]
            for line in kept if tail is None else kept[max(0, len(kept) - tail) :]:
                yield line
            while options.follow:
                yield await new.get()
        finally:
            stop()

    async def exec(
        self, pod: Obj, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecStream:
        if self._is_shown_only(pod, container):
            raise BadRequest(f"container {container} is knlocal's own gateway: nothing runs in it")
        try:
            return await self._runtime.exec_stream(
                pod_id(pod), container, command, stdin=stdin, tty=tty
            )
        except RuntimeFailure as error:
            raise _refusal(error) from error

    async def attach(self, pod: Obj, container: str, *, stdin: bool) -> ExecStream:
        if self._is_shown_only(pod, container):
            raise BadRequest(f"container {container} is knlocal's own gateway: nothing runs in it")
        try:
            return await self._runtime.attach(pod_id(pod), container, stdin=stdin)
        except RuntimeFailure as error:
            raise _refusal(error) from error

    async def address(self, pod: Obj, port: int) -> tuple[str, int]:
        try:
            return self._kubelet.address_of(pod, port)
        except LookupError as error:
            raise Unavailable(str(error)) from error

    async def stats(self, pod: Obj) -> Mapping[str, tuple[float, int]]:
        try:
            return await self._runtime.stats(pod_id(pod))
        except RuntimeFailure as error:
            raise _refusal(error) from error

    @staticmethod
    def _is_shown_only(pod: Obj, container: str) -> bool:
        containers = pod["spec"].get("containers") or ()
        return any(c.get("name") == container and is_shown_only(c) for c in containers)


def _refusal(error: RuntimeFailure) -> StatusError:
    if error.reason == "EngineUnavailable":
        return Unavailable(error.message)
    return BadRequest(error.message)
