"""Watches: the store's changes as a stream of JSON lines, selected, converted, and kept alive."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from knlocal.apiserver.streams.messages import Sink
from knlocal.apiserver.table import partial_metadata, table
from knlocal.clock import Clock
from knlocal.resources.base import Obj, copy
from knlocal.resources.kinds import Kind
from knlocal.resources.status import StatusError
from knlocal.store.watch import Watch, WatchEvent

log = logging.getLogger(__name__)

BOOKMARK_SECONDS = 60.0
#: Without a wish of the client's, a watch ends after this long and a little more.
DEFAULT_SECONDS = 1800.0

Matches = Callable[[Obj], bool]


@dataclass(frozen=True, slots=True)
class WatchPlan:
    """What one watch shows and for how long."""

    kind: Kind
    #: None: all objects of the kind (and the request's namespace).
    matches: Matches | None
    #: Objects to show as ADDED before anything else; None to start with changes.
    initial: list[Obj] | None
    #: The store's version at which the initial objects were listed.
    version: int
    timeout_seconds: float | None
    bookmarks: bool
    send_initial_events: bool
    transform: str
    include: str


class WatchStream:
    """Writes one watch to one client until its time is up, the client goes, or it falls behind."""

    def __init__(self, plan: WatchPlan, watch: Watch, clock: Clock) -> None:
        self._plan = plan
        self._watch = watch
        self._clock = clock
        self._version = plan.version
        self._columns_sent = False

    async def run(self, response: Sink) -> None:
        plan = self._plan
        seconds = plan.timeout_seconds or DEFAULT_SECONDS + random.uniform(0, 300)
        for lines in self._beginning():
            await response.write(lines)
        try:
            async with self._clock.timeout(seconds):
                async for lines in self._changes():
                    await response.write(lines)
        except TimeoutError:
            if plan.bookmarks:
                await response.write(self._bookmark())
        except StatusError as error:
            await response.write(_line("ERROR", orjson.dumps(error.to_status())))

    def _beginning(self) -> list[bytes]:
        plan = self._plan
        lines = (
            [b"".join(self._event("ADDED", obj) for obj in plan.initial)] if plan.initial else []
        )
        if plan.send_initial_events:
            lines.append(self._bookmark(end_of_initial=True))
        return lines

    async def _changes(self) -> AsyncIterator[bytes]:
        pending: asyncio.Future[WatchEvent] = asyncio.ensure_future(anext(self._watch))
        bookmark = self._bookmark_timer()
        try:
            while True:
                waiting: set[asyncio.Future[Any]] = {pending}
                if bookmark:
                    waiting.add(bookmark)
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if bookmark and bookmark.done():
                    yield self._bookmark()
                    bookmark = self._bookmark_timer()
                if not pending.done():
                    continue
                try:
                    events = [pending.result(), *self._watch.pending()]
                except StopAsyncIteration:
                    return
                pending = asyncio.ensure_future(anext(self._watch))
                lines = b"".join(self._change(event) for event in events)
                if lines:
                    yield lines
        finally:
            pending.cancel()
            if bookmark:
                bookmark.cancel()

    def _bookmark_timer(self) -> asyncio.Future[None] | None:
        if not self._plan.bookmarks:
            return None
        return asyncio.ensure_future(self._clock.sleep(BOOKMARK_SECONDS))

    def _change(self, event: WatchEvent) -> bytes:
        """An object that leaves the selection is DELETED for this client, one that enters ADDED."""
        self._version = event.version
        matches = self._plan.matches or _always
        before = event.old is not None and matches(event.old)
        after = matches(event.obj)
        if event.type == "DELETED":
            return self._event("DELETED", event.obj, event.json) if before or after else b""
        if after:
            return self._event("MODIFIED" if before else "ADDED", event.obj, event.json)
        if before:
            gone = {**(event.old or {}), "metadata": {**(event.old or {})["metadata"]}}
            gone["metadata"]["resourceVersion"] = str(event.version)
            return self._event("DELETED", gone)
        return b""

    def _event(self, type_: str, obj: Obj, json: bytes = b"") -> bytes:
        return _line(type_, self._shown(obj, json))

    def _shown(self, obj: Obj, json: bytes) -> bytes:
        """As this watch shows objects; `json` is the object as the store has it, if it does."""
        kind, plan = self._plan.kind, self._plan
        if kind.from_storage is not None:
            obj, json = kind.from_storage(copy(obj)), b""
        if plan.transform == "Table":
            return self._table(obj)
        if plan.transform.startswith("PartialObjectMetadata"):
            return orjson.dumps(partial_metadata(obj))
        return json or orjson.dumps(obj)

    def _table(self, obj: Obj) -> bytes:
        version = obj["metadata"].get("resourceVersion", "")
        first, self._columns_sent = not self._columns_sent, True
        now: datetime = self._clock.now()
        shown = table(
            self._plan.kind, [obj], now, self._plan.include, {"resourceVersion": version},
            definitions=first,
        )  # fmt: skip
        return orjson.dumps(shown)

    def _bookmark(self, *, end_of_initial: bool = False) -> bytes:
        kind = self._plan.kind
        metadata: dict[str, Any] = {
            "resourceVersion": str(max(self._version, self._plan.version)),
            "creationTimestamp": None,
        }
        if end_of_initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        obj: Obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
        if self._plan.transform == "Table":
            obj = {
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": [],
                "metadata": {"resourceVersion": metadata["resourceVersion"]},
                "rows": [{"cells": [], "object": partial_metadata({"metadata": metadata})}],
            }  # fmt: skip
        return _line("BOOKMARK", orjson.dumps(obj))


def _always(_obj: Obj) -> bool:
    return True


def _line(type_: str, obj: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (type_.encode(), obj)
