"""Reaching into pods: logs, exec, attach, port-forward, eviction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from aiohttp import web

from knlocal.apiserver.requests import ApiRequest
from knlocal.resources.base import Obj
from knlocal.resources.status import Unavailable
from knlocal.runtime.api import ExecStream
from knlocal.store.store import Store


class PodAccess(Protocol):
    """What the daemon lends the API to look inside pods. `pod` is the Pod object."""

    def logs(
        self,
        pod: Obj,
        container: str,
        *,
        follow: bool,
        tail: int | None,
        since: datetime | None,
        timestamps: bool,
        previous: bool,
    ) -> AsyncIterator[bytes]:
        """Whole lines of the container's output."""

    async def exec(
        self, pod: Obj, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecStream:
        """Run a command in a container."""

    async def address(self, pod: Obj, port: int) -> tuple[str, int]:
        """Where the pod's port is reached from here."""

    async def stats(self, pod: Obj) -> Mapping[str, tuple[float, int]]:
        """Per container: cores in use, bytes in use."""


class NoPods:
    """Stands in where nothing runs pods."""

    def logs(self, pod: Obj, container: str, **_: object) -> AsyncIterator[bytes]:
        raise Unavailable("no runtime is connected: pods cannot be looked into")

    async def exec(
        self, pod: Obj, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecStream:
        raise Unavailable("no runtime is connected: pods cannot be looked into")

    async def address(self, pod: Obj, port: int) -> tuple[str, int]:
        raise Unavailable("no runtime is connected: pods cannot be looked into")

    async def stats(self, pod: Obj) -> Mapping[str, tuple[float, int]]:
        return {}


class PodStreams:
    def __init__(self, store: Store, access: PodAccess) -> None:
        self._store = store
        self._access = access

    def handlers(self) -> dict[str, Callable[[ApiRequest], Awaitable[web.StreamResponse]]]:
        return {}
