"""A pod's grace: how long things may take on its way out; it can only get shorter."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from knlocal.clock import Clock, Timer


class Grace:
    """`seconds` from now on `clock`."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._end = clock.monotonic() + seconds
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer: Timer = clock.call_later(seconds, self._expire)

    @property
    def left(self) -> float:
        """Seconds; 0 when it is over."""
        return max(0.0, self._end - self._clock.monotonic())

    def shorten(self, seconds: float) -> None:
        """No more than `seconds` from now on."""
        if seconds < self.left:
            self._timer.cancel()
            self._end = self._clock.monotonic() + seconds
            self._timer = self._clock.call_later(seconds, self._expire)

    async def bound(self, work: Awaitable[object]) -> bool:
        """Wait for `work` as long as the grace lasts; what takes longer is cancelled. False then.

        Exceptions of `work` come through.
        """
        task: asyncio.Future[Any] = asyncio.ensure_future(work)
        over: asyncio.Future[Any] = self._over
        try:
            await asyncio.wait({task, over}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return False
            task.result()
            return True
        finally:
            if not task.done():
                task.cancel()

    async def over(self) -> None:
        """Return when the grace has ended."""
        await asyncio.shield(self._over)

    def close(self) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
