"""The keyed work queue: one sequential worker per object, many objects side by side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from knlocal.clock import Clock, Timer
from knlocal.control.pace import Urgency, pace
from knlocal.resources.base import Key

log = logging.getLogger(__name__)

Work = Callable[[Key], Awaitable[float | None]]
"""Does the work for a key; returns seconds after which to look again, or None."""


class WorkQueue:
    """Calls `work(key)` for each added key. A key added while its work runs is worked once more
    afterwards; a key added twice before is worked once. An exception means retry with back-off."""

    BACKOFF_FIRST = 0.05
    BACKOFF_MOST = 30.0

    def __init__(
        self,
        name: str,
        clock: Clock,
        work: Work,
        parallel: int = 64,
        *,
        urgency: Urgency = Urgency.REST,
    ) -> None:
        self.name = name
        self._urgency = urgency
        self._clock = clock
        self._work = work
        self._slots = asyncio.Semaphore(parallel)
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._timers: dict[Key, Timer] = {}
        self._failures: dict[Key, int] = {}
        self._closed = False

    def add(self, key: Key, after: float = 0) -> None:
        """Work on `key` now, or `after` seconds; an earlier appointment wins."""
        if self._closed:
            return
        if after > 0:
            self._plan(key, after)
        elif key in self._running:
            self._again.add(key)
        else:
            self._drop_timer(key)
            self._running[key] = asyncio.create_task(self._run(key), name=f"{self.name} {key}")

    @property
    def busy(self) -> bool:
        """Whether something is being worked on now (appointments do not count)."""
        return bool(self._running)

    async def close(self, deadline_seconds: float = 5.0) -> None:
        """Stop: no new work; what runs is cancelled."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=deadline_seconds)

    async def _run(self, key: Key) -> None:
        try:
            while True:
                self._again.discard(key)
                async with self._slots:
                    await pace().turn(self._urgency)
                    after = await self._attempt(key)
                if after is not None:
                    self._plan(key, after)
                if key not in self._again or self._closed:
                    return
        finally:
            self._running.pop(key, None)
            if key in self._again and not self._closed:
                self._again.discard(key)
                self.add(key)

    async def _attempt(self, key: Key) -> float | None:
        try:
            after = await self._work(key)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            wanted = getattr(error, "after", None)
            backoff = min(self.BACKOFF_MOST, self.BACKOFF_FIRST * 2 ** min(failures - 1, 16))
            return float(wanted) if wanted is not None else backoff
        self._failures.pop(key, None)
        return after

    def _plan(self, key: Key, after: float) -> None:
        due = self._clock.monotonic() + after
        timer = self._timers.get(key)
        if timer is not None and timer.due <= due:
            return
        self._drop_timer(key)
        self._timers[key] = self._clock.call_later(after, self._due, key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _drop_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
