"""Work beside the controllers: named, its failures logged, and over before the daemon is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from knlocal.clock import Clock

log = logging.getLogger(__name__)

#: Seconds (real time) that work under way gets to end by itself, and again when it is cancelled.
CLOSE_SECONDS = 3.0


class Background:
    """Tasks of one owner. `ended` is called after each of them that was not cancelled."""

    def __init__(self, name: str, *, ended: Callable[[], object] | None = None) -> None:
        self._name = name
        self._ended = ended
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether something is under way."""
        return bool(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=self._name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def cancel(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    async def close(self) -> None:
        """Wait for what is under way, then cancel it: a call to the engine that is cut off would be
        carried out all the same, unseen."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        self.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        if error := task.exception():
            log.error("%s: %s", self._name, error, exc_info=error)
        if self._ended is not None:
            self._ended()


async def wait_while(holds: Callable[[], bool], clock: Clock, *, every: float, most: float) -> None:
    """Until it does not hold any more: looked at every so many seconds, and for `most` seconds."""
    with contextlib.suppress(TimeoutError):
        async with clock.timeout(most):
            while holds():
                await clock.sleep(every)
