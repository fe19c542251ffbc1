"""Watches: every change after a resource version, in order, none missed and none repeated."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.status import Gone

EventType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. `old` is the object before it (None for ADDED); `version` the store's version
    that the change made, which is also the object's resourceVersion (for DELETED too); `json` the
    object as JSON, where it comes from the store."""

    type: EventType
    obj: Obj
    old: Obj | None
    version: int
    json: bytes = b""

    @property
    def namespace(self) -> str:
        return str(self.obj["metadata"].get("namespace") or "")


class Watch:
    """An async iterator of `WatchEvent`s. A reader that falls `limit` events behind gets `Gone`,
    as a client of the Kubernetes API does, instead of making the daemon hold events for ever."""

    def __init__(
        self,
        group_kind: GroupKind | None,
        namespace: str | None,
        on_close: Callable[[Watch], None],
        limit: int = 100_000,
    ) -> None:
        self.group_kind = group_kind
        self.namespace = namespace
        self._on_close = on_close
        self._limit = limit
        self._events: deque[WatchEvent] = deque()
        self._overrun = False
        self._closed = False
        self._ready = asyncio.Event()

    def offer(self, event: WatchEvent) -> None:
        if self.namespace is not None and event.namespace != self.namespace:
            return
        if len(self._events) >= self._limit:
            self._overrun = True
            self._events.clear()
        if not self._overrun:
            self._events.append(event)
        self._ready.set()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> WatchEvent:
        while not self._events:
            if self._overrun:
                raise Gone("too old resource version: the watch fell too far behind; list again")
            if self._closed:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        return self._events.popleft()

    def pending(self) -> list[WatchEvent]:
        """What is waiting to be read, taken out of the watch; never waits."""
        events = list(self._events)
        self._events.clear()
        return events

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._ready.set()
            self._on_close(self)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
