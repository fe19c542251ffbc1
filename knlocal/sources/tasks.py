"""Sources that live in the daemon as a coroutine each: the short way to a new kind of source."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from knlocal.control.conditions import Conditions
from knlocal.control.controller import Requeue
from knlocal.control.destinations import Destinations
from knlocal.resources.base import Key, Obj, key_of, spec_of
from knlocal.sources.base import SourceController
from knlocal.sources.emit import Emitter, overrides
from knlocal.store.store import Store

log = logging.getLogger(__name__)

#: Seconds until a source that failed is started again: the first time, and at most.
RESTART_FIRST, RESTART_MOST = 1.0, 60.0


class Send(Protocol):
    """Sends an event to the source's sink, wherever that is by now; False when it was not taken
    after all retries. `ceOverrides` are added."""

    async def __call__(
        self,
        type_: str,
        source: str,
        data: bytes | None = None,
        content_type: str = "",
        *,
        subject: str = "",
        extensions: Mapping[str, Any] | None = None,
    ) -> bool: ...


@dataclass(slots=True)
class _Running:
    """One source at work. `problem` is why it stopped, "" while it has not; `again` is when to
    start it anew then (monotonic)."""

    spec: Mapping[str, Any]
    sink: str
    task: asyncio.Task[None] | None = None
    problem: str = ""
    again: float = 0.0


class TaskSourceController(SourceController):
    """Runs `produce` for each source that has a sink; stops it when the source goes, starts it
    anew when the spec changes, and again, ever later, when it fails."""

    def __init__(self, store: Store, destinations: Destinations, emitter: Emitter) -> None:
        super().__init__(store, destinations, emitter)
        self._running: dict[Key, _Running] = {}
        self._failures: dict[Key, int] = {}

    @abstractmethod
    async def produce(self, obj: Obj, send: Send) -> None:
        """Send events, until cancelled or until there is nothing more to send. What it raises is
        told in the source's conditions."""

    def refusal(self, obj: Obj) -> tuple[str, str]:
        """Reason and message when this source cannot run here; ("", "") when it can."""
        return "", ""

    async def run(self, obj: Obj, sink: str, conditions: Conditions) -> Requeue | None:
        key, spec = key_of(obj), spec_of(obj)
        reason, message = self.refusal(obj)
        if reason:
            await self.halt(key)
            conditions.false(self.running_condition, reason, message)
            return None
        known = self._running.get(key)
        if known is not None and known.problem and known.spec == spec:
            left = known.again - self.clock.monotonic()
            if left > 0:
                conditions.false(self.running_condition, "Failed", known.problem)
                return Requeue(left)
            known = None
        if known is None or _without_sink(known.spec) != _without_sink(spec):
            await self.halt(key)
            self._start(key, obj, sink)
        else:
            known.sink = sink
        conditions.true(self.running_condition)
        return None

    async def halt(self, key: Key) -> None:
        running = self._running.pop(key, None)
        if running is not None and running.task is not None and not running.task.done():
            running.task.cancel()
            await asyncio.wait([running.task], timeout=5)

    async def stop(self) -> None:
        for key in list(self._running):
            await self.halt(key)

    def _start(self, key: Key, obj: Obj, sink: str) -> None:
        running = self._running[key] = _Running(spec_of(obj), sink)
        running.task = asyncio.create_task(
            self._work(key, obj, running), name=f"{key.kind} {key.namespace}/{key.name}"
        )

    async def _work(self, key: Key, obj: Obj, running: _Running) -> None:
        extensions = overrides(running.spec)

        async def send(
            type_: str,
            source: str,
            data: bytes | None = None,
            content_type: str = "",
            **more: Any,
        ) -> bool:
            more["extensions"] = {**(more.get("extensions") or {}), **extensions}
            event = self.emitter.event(type_, source, data, content_type, **more)
            taken = await self.emitter.send(event, running.sink, key)
            if taken:
                self._failures.pop(key, None)
            return taken

        try:
            await self.produce(obj, send)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.warning("%s failed: %s", key, error, exc_info=True)
            running.problem = f"{type(error).__name__}: {error}"
            running.again = self.clock.monotonic() + self._pause(key)
            self.enqueue(key)

    def _pause(self, key: Key) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return min(RESTART_MOST, RESTART_FIRST * 2.0 ** min(failures - 1, 16))


def _without_sink(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What a source does; where to is looked up anew for each event."""
    return {key: value for key, value in spec.items() if key != "sink"}
